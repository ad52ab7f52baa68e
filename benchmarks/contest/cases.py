"""What is built and timed, and how a library shows it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

ARCHITECTURES = {
    "RealNVP": "RealNVP",
    "MAF": "MAF",
    "CouplingRQNSF": "RQ coupling",
    "MaskedAutoregressiveRQNSF": "RQ autoregressive",
}
# Quantities in the order of measuring. Sampling comes last: who exceeds the limit is stopped there.
QUANTITIES = {"log_prob": "log_prob", "step": "training step", "sample": "sample"}
FACTORS = {"n_dim": "scalars", "batch_size": "batch", "n_layers": "layers", "bins": "bins"}
SCALING_ARCHITECTURES = ("CouplingRQNSF", "MaskedAutoregressiveRQNSF")
BOUND = 5.0
LEARNING_RATE = 1e-3
FIT_ROWS, FIT_BATCH, FIT_EPOCHS, FIT_LAYERS, FIT_WIDTH = 25_600, 256, 20, 8, 50


@dataclasses.dataclass(frozen=True)
class Case:
    """What is built and timed. `n_steps` training steps are made in one timed call."""

    architecture: str
    n_dim: int
    n_layers: int
    hidden: tuple[int, ...]
    bins: int
    batch_size: int
    n_steps: int
    threads: int

    @property
    def is_spline(self) -> bool:
        return "RQNSF" in self.architecture

    @property
    def is_coupling(self) -> bool:
        return self.architecture in ("RealNVP", "CouplingRQNSF")

    def halves(self) -> list[np.ndarray]:
        """What each coupling layer of a library that takes masks transforms: a random half, then the other."""
        rng = np.random.default_rng(0)
        masks = []
        for i in range(self.n_layers):
            masks.append(rng.permutation(self.n_dim) < self.n_dim // 2 if i % 2 == 0 else ~masks[-1])
        return masks


@dataclasses.dataclass
class Verbs:
    """A library's flow as its users call it; everything ends with an array on the host, or waits for the result.

    Attributes:
      log_prob: from rows `[n, n_dim]` to log-densities `[n]`.
      sample: from a seed to `[batch_size, n_dim]`.
      train: makes `n_steps` training steps. Returns their seconds and the last loss.
      n_weights: trainable numbers.
    """

    log_prob: Callable[[np.ndarray], np.ndarray]
    sample: Callable[[int], np.ndarray]
    train: Callable[[], tuple[float, float]]
    n_weights: int
