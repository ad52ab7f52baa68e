"""Checkpoints of long runs: arrays, a random generator and a flow's weights in one `.npz`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tfflows.model import FlowModel

N_CHECKED = 16  # log-densities of a checkpoint that are computed anew


def save(path, state: dict) -> None:
    """Writes arrays, `numpy.random.Generator`s and weights of `FlowModel`s; a reader sees the old or the new one."""
    path, arrays = Path(path), {}
    for key, value in state.items():
        if isinstance(value, np.random.Generator):
            arrays[f"{key}:generator"] = np.array(json.dumps(value.bit_generator.state))
        elif isinstance(value, FlowModel):
            arrays |= {f"{key}:weight:{i}": weight for i, weight in enumerate(value.get_weights())}
        else:
            arrays[key] = value
    beside = path.with_name(f".{path.name}.part")
    with open(beside, "wb") as file:
        np.savez(file, **arrays)
    beside.replace(path)


def load(path) -> dict:
    """What `save` wrote: arrays, generators, and for each flow the list of its weights."""
    state, weights = {}, {}
    with np.load(path, allow_pickle=False) as arrays:
        for key in arrays.files:
            name, *kind = key.split(":")
            if not kind:
                state[name] = arrays[key]
            elif kind[0] == "generator":
                state[name] = np.random.default_rng()
                state[name].bit_generator.state = json.loads(str(arrays[key]))
            else:
                weights.setdefault(name, {})[int(kind[1])] = arrays[key]
    return state | {name: [of[i] for i in range(len(of))] for name, of in weights.items()}


def check_same(kept: np.ndarray, now: np.ndarray) -> None:
    """Log-densities of a checkpoint against the target's own.

    Raises:
      ValueError: if they differ by more than rounding: the checkpoint is of another target.
    """
    same = np.where(np.isfinite(now), np.isclose(kept, now, rtol=1e-4, atol=1e-3), kept < -1e29)
    if not np.all(same):
        i = int(np.argmin(same))
        raise ValueError(
            f"Expected a checkpoint of this target; at one of its points the log-density was {kept[i]:.6g} and is "
            f"{now[i]:.6g}."
        )
