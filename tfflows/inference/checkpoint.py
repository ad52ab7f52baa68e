"""Checkpoints of samplers: arrays, a random generator and weights of flows in one `.npz`, of one target."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf

from tfflows.inference.target import Target
from tfflows.states import load, save

__all__ = ["N_CHECKED", "Checkpoint", "check_kind", "check_same"]

N_CHECKED = 16  # log-densities of a checkpoint that are computed anew


def check_kind(state: dict, key: str, sampler: str) -> None:
    """Raises a ValueError for a checkpoint without `key`, which those of the sampler have."""
    if key not in state or "flow_optimizer" not in state:
        raise ValueError(f"Expected a checkpoint of {sampler}; got another one, of {', '.join(sorted(state)[:8])}.")


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


class Checkpoint:
    """What a run of a sampler keeps, and goes on from.

    Args:
      path: of a `.npz`, or None for none.
      target: is asked for its log-density at some points, which no result counts.
      rng: the run's generator, which is kept, and set to what was kept.
      **settings: whole numbers that the run depends on.

    Attributes:
      found: all that was kept so far, by name.

    Raises:
      ValueError: if what is at `path` is of another target or other settings.
    """

    def __init__(self, path: str | Path | None, target: Target, rng: np.random.Generator, **settings: int):
        self._path, self._target, self._rng, self.found = path, target, rng, {}
        if path is None:
            return
        known, settings = self._known(), {"n_dim": target.n_dim, **settings}
        given = {f"setting_{name}": np.array(value) for name, value in settings.items()}
        if Path(path).exists():
            self.found = load(path)
            for name, value in given.items():
                if not np.array_equal(self.found.get(name), value):
                    name = name.removeprefix("setting_")
                    got = self.found.get(f"setting_{name}")
                    raise ValueError(f"Expected a checkpoint of {name}={value}; got {path}, of {got}.")
            check_same(self.found["known"], known)
            rng.bit_generator.state = self.found["generator"].bit_generator.state
            target.n_invalid = int(self.found["n_invalid"])
        self.found |= given | {"known": known}

    def _known(self):
        z = np.random.default_rng(0).normal(size=(N_CHECKED, self._target.n_dim))
        z, n_invalid = tf.constant(z, self._target.dtype), self._target.n_invalid
        known = self._target.run(tf.function(self._target.unconstrained_log_prob, autograph=False), z).numpy()
        self._target.n_invalid = n_invalid
        return known

    def keep(self, **state) -> None:
        """Writes `state`: arrays, numbers and lists of arrays, and what was kept under other names before."""
        if self._path is not None:
            self.found |= {
                name: value if isinstance(value, list) else np.asarray(value) for name, value in state.items()
            }
            self.found |= {"generator": self._rng, "n_invalid": np.array(self._target.n_invalid)}
            save(self._path, self.found)
