"""Many training steps in one compiled call, for data in memory."""

from __future__ import annotations

import math

import keras
import numpy as np
import tensorflow as tf

from tfflows import batching
from tfflows.rows import gather, order_of_epoch

# Rows that the device keeps for the whole fit, at most; larger data are streamed batch by batch.
MAX_BYTES = 2**30

# A call takes about this long, so that the progress bar moves and Ctrl-C is heard.
SECONDS_PER_CALL = 0.2
FLOPS_PER_SECOND = 2e10  # of one core, in the small matrix products of a flow's nets
MAX_STEPS_PER_CALL = 200


def default_steps(n_steps: int, batch_size: int, n_products: int) -> int:
    """Steps to make in one call, out of the `n_steps` of an epoch: calls of equal length, of some 0.2 s."""
    seconds_per_step = 6.0 * n_products * batch_size / FLOPS_PER_SECOND
    most = int(np.clip(SECONDS_PER_CALL / max(seconds_per_step, 1e-9), 1, MAX_STEPS_PER_CALL))
    n_calls = -(-n_steps // most)
    return -(-n_steps // n_calls)


def compiled(model):
    """The model's training steps as one compiled function of (data, order, start, stop).

    data are the rows, as a dict of x, weight and perhaps context; order `[n_steps, batch_size]` are the numbers
    of the rows of each step, and -1 - number for a filler of weight zero. It makes the steps from `start` up to, but
    not including, `stop`, and ends early after a loss that is not finite.

    Returns of the function: the number of the step it stopped before, and the metrics.
    """

    def steps(data, order, start, stop):
        def body(step, finite):
            del finite
            logs = model.train_step(gather(data, tf.gather(order, step)))
            return step + 1, tf.math.is_finite(logs["loss"])

        step, _ = tf.while_loop(lambda step, finite: (step < stop) & finite, body, (start, tf.constant(True)))
        return step, {metric.name: metric.result() for metric in model.metrics}

    return tf.function(steps, jit_compile=model.use_xla, autograph=False)


class EpochLoop(keras.callbacks.Callback):
    """Stands in for Keras' train function: each call makes the next steps of an epoch.

    The rows stay on the device. As a callback it hears when an epoch starts.

    Args:
      function: what `compiled` returned.
      rows: a `Rows`.
      batch_size: rows in a step.
      steps_per_call: steps in a call, or None for `default_steps`.
      n_products: products of a weight and a number that one row takes.
      seed: of a new order of the rows in each epoch, or None for the order they have.
    """

    def __init__(self, function, rows, batch_size: int, steps_per_call: int | None, n_products: int, seed: int | None):
        super().__init__()
        self.n_steps = -(-len(rows) // batch_size)
        self.steps_per_call = steps_per_call or default_steps(self.n_steps, batch_size, n_products)
        self._function = function
        self._n_rows = len(rows)
        self._seed = seed
        # Rounded up, so that fitting a few rows more needs no new compilation.
        capacity = batching.round_up(len(rows))
        self._order_shape = (-(-capacity // batch_size), batch_size)
        missing = capacity - len(rows)
        self._data = {
            name: tf.constant(np.pad(value, [(0, missing)] + [(0, 0)] * (value.ndim - 1)))
            for name, value in rows.columns().items()
        }

    def on_train_begin(self, logs=None):
        # Keras has read it for the epochs of training; evaluation goes on batch by batch.
        self.model.steps_per_execution = 1

    def on_epoch_begin(self, epoch, logs=None):
        rows = np.arange(self._n_rows) if self._seed is None else order_of_epoch(self._n_rows, self._seed, epoch)
        fillers = rows[np.arange(math.prod(self._order_shape) - self._n_rows) % self._n_rows]
        order = np.concatenate([rows, -1 - fillers]).astype(np.int32)
        self._order = tf.constant(order.reshape(self._order_shape))
        self.step = 0

    def __call__(self, iterator):
        del iterator  # Keras' own; the rows are here already
        stop = min(self.step + self.steps_per_call, self.n_steps)
        step, logs = self._function(self._data, self._order, tf.constant(self.step), tf.constant(stop))
        self.step = int(step)
        return logs


def n_products(model) -> int:
    """About how many products of a weight and a number one row takes in a `TrainableModel`."""
    # Of images each weight is used for each pixel, of which the first scale has a quarter, the others less.
    # Of clouds, whose number of points is open, a quarter of the usual 2048 is what a step looks at.
    per_row = model.count_params() * -(-math.prod(n or 2048 for n in model.accepts.event_shape[:-1]) // 4)
    if model.accepts.contexts is None or len(model.accepts.context_shape) < 2:
        return per_row
    nets = sum(flow.context_net.count_params() for flow in model._flows() if flow.context_net is not None)
    return per_row + nets * -(-model.accepts.contexts.size // (4 * (model.accepts.context_shape[-1] or 1)))
