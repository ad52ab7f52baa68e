"""The flows that samplers make and train."""

from __future__ import annotations

import keras
import numpy as np

from tfflows.architectures import CouplingRQNSF, MaskedAutoregressiveRQNSF
from tfflows.model import FlowModel

BATCH_SIZE = 256
LEARNING_RATE = 2e-3
FIRST_EPOCHS, EPOCHS = 40, 10


def default_flow(n_dim: int) -> FlowModel:
    """A spline flow of unconstrained parameters: fast to sample and to evaluate."""
    if n_dim == 1:
        return FlowModel(MaskedAutoregressiveRQNSF(1, n_layers=1, hidden=(16,)))
    width = int(np.clip(16 * n_dim, 32, 128))
    return FlowModel(CouplingRQNSF(n_dim, n_layers=4 if n_dim < 8 else 6, hidden=(width, width)))


def train(flow: FlowModel, z: np.ndarray, *, is_first: bool) -> None:
    """Some epochs on draws `[n, n_dim]`, with their location and scale set anew."""
    if is_first or getattr(flow, "optimizer", None) is None:
        flow.compile(keras.optimizers.Adam(LEARNING_RATE, global_clipnorm=10.0))
    flow.adapt(z)
    flow.fit(z, batch_size=min(BATCH_SIZE, len(z)), epochs=FIRST_EPOCHS if is_first else EPOCHS, verbose=0)
