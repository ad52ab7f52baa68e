"""Checkpoints of samplers: arrays, a random generator and weights of flows in one `.npz`."""

from __future__ import annotations

import numpy as np

from tfflows.states import load, save

__all__ = ["N_CHECKED", "check_same", "load", "save"]

N_CHECKED = 16  # log-densities of a checkpoint that are computed anew


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
