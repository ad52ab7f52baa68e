"""The flows that samplers make and train."""

from __future__ import annotations

import keras
import numpy as np

from tfflows.architectures import CouplingRQNSF, MaskedAutoregressiveRQNSF
from tfflows.bijectors import Chain, Whiten
from tfflows.inference import diagnostics
from tfflows.model import FlowModel

BATCH_SIZE = 256
LEARNING_RATE = 1e-3
EPOCHS, PATIENCE = 60, 4
HELD_OUT = 0.25


def default_flow(n_dim: int) -> FlowModel:
    """A spline flow of unconstrained parameters, behind a whitening: fast to sample and to evaluate."""
    if n_dim == 1:
        return FlowModel(MaskedAutoregressiveRQNSF(1, n_layers=1, hidden=(16,)))
    width = int(np.clip(16 * n_dim, 32, 128))
    layers = CouplingRQNSF(n_dim, n_layers=4 if n_dim < 8 else 6, hidden=(width, width))
    return FlowModel(Chain([Whiten(n_dim), layers]))


class Trainer:
    """Trains a flow again and again, on draws that change; where they are few it learns none of them by heart.

    Each time it starts from what it had learned or from what it was at first, whichever is better on held-out draws,
    and keeps the weights that are best on those. A flow that has learned draws by heart is too narrow: proposals then
    miss the tails, and the next draws are narrower still.

    Args:
      flow: is compiled here.
      n: number of draws to train and hold out, each time.
    """

    def __init__(self, flow: FlowModel, n: int):
        self.flow = flow
        self._n_held_out = int(HELD_OUT * n)
        self._n = n - self._n_held_out
        self._first = [weight.numpy() for weight in flow.trainable_weights]
        flow.compile(keras.optimizers.Adam(LEARNING_RATE, global_clipnorm=10.0))

    def __call__(self, z: np.ndarray, weights: np.ndarray, rng: np.random.Generator) -> None:
        """Trains on draws z `[m, n_dim]` with weights `[m]`, which add up to 1."""
        # Particles that no move has moved are in there twice; none may be on both sides.
        _, first, same = np.unique(z, axis=0, return_index=True, return_inverse=True)
        weights = np.bincount(same.ravel(), weights)
        z = z[first]
        held_out = rng.random(len(z)) < HELD_OUT
        train, test = (
            z[side][diagnostics.systematic(weights[side] / weights[side].sum(), n, rng)]
            for side, n in ((~held_out, self._n), (held_out, self._n_held_out))
        )
        flow = self.flow
        flow.adapt(train)
        learned = [weight.numpy() for weight in flow.trainable_weights]
        loss = self._loss(test)
        self._assign(self._first)
        if not self._loss(test) <= loss:
            self._assign(learned)
        stop = keras.callbacks.EarlyStopping(patience=PATIENCE, restore_best_weights=True, start_from_epoch=0)
        flow.fit(train, validation_data=test, batch_size=BATCH_SIZE, epochs=EPOCHS, callbacks=[stop], verbose=0)

    def _loss(self, test):
        return -float(np.mean(self.flow.log_prob(test)))

    def _assign(self, values):
        for weight, value in zip(self.flow.trainable_weights, values, strict=True):
            weight.assign(value)
