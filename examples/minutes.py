"""Training by the clock."""

from __future__ import annotations

import math
import time

import keras


class Minutes(keras.callbacks.Callback):
    """Ends the training some minutes after its first step, which compiles.

    The learning rate rises in the first 2 % of them, then falls to zero.
    """

    def __init__(self, minutes: float, learning_rate: float):
        super().__init__()
        self.seconds, self.learning_rate = 60.0 * minutes, learning_rate

    def on_train_begin(self, logs=None):
        self.started = None

    def on_train_batch_end(self, batch, logs=None):
        if self.started is None:
            self.started = time.perf_counter()
        fraction = (time.perf_counter() - self.started) / self.seconds
        fall = 0.5 * (1.0 + math.cos(math.pi * min(fraction, 1.0)))
        self.model.optimizer.learning_rate = self.learning_rate * min(max(fraction, 1e-3) / 0.02, fall)
        self.model.stop_training = fraction >= 1.0
