"""What happens around the steps of `fit`: when to stop, and what to say when a loss is not finite."""

from __future__ import annotations

import contextlib
import math
import time

import keras
import numpy as np
import tensorflow as tf

from tfflows import replicas
from tfflows.places import place, place_of_weight
from tfflows.watch import is_finite, watching

MAX_EPOCHS = 1000
PATIENCE_STEPS = 3000
PATIENCE_EPOCHS = (5, 30)  # at least, at most
EXPLAIN_SECONDS = 20


def default_optimizer(*, averaged: bool, learning_rate: float | None = None) -> keras.optimizers.Optimizer:
    """Adam with clipped gradients; `averaged` keeps a moving average of the weights over some 100 steps.

    Averaged weights are free of the last mini-batches' noise, which is worth about 0.01 nats on held-out data,
    and so allow a learning rate twice as high.
    """
    if learning_rate is None:
        learning_rate = 2e-3 if averaged else 1e-3
    return keras.optimizers.Adam(learning_rate, global_clipnorm=5.0, use_ema=averaged, ema_momentum=0.99)


def until_converged(steps_per_epoch: int) -> list[keras.callbacks.Callback]:
    """Callbacks of `fit(epochs=None)`: stop when the held-out loss stops improving, keep the best weights."""
    least, most = PATIENCE_EPOCHS
    patience = max(least, min(most, PATIENCE_STEPS // max(steps_per_epoch, 1)))
    return [
        keras.callbacks.ReduceLROnPlateau("val_loss", factor=0.3, patience=-(-patience // 2), min_lr=1e-5),
        keras.callbacks.EarlyStopping("val_loss", min_delta=1e-4, patience=patience, restore_best_weights=True),
    ]


def averaging(optimizer, callbacks: list[keras.callbacks.Callback]) -> list[keras.callbacks.Callback]:
    """What makes Keras validate and keep the averaged weights of an optimizer with `use_ema`.

    It comes before all other callbacks, so that they see the averaged weights at the end of an epoch.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    has_one = any(isinstance(callback, keras.callbacks.SwapEMAWeights) for callback in callbacks)
    if has_one or not getattr(optimizer, "use_ema", False):
        return []
    return [keras.callbacks.SwapEMAWeights(swap_on_epoch=True)]


def restore_best(callbacks: list[keras.callbacks.Callback]) -> None:
    """Puts the best weights back, also after an interrupted fit."""
    for callback in callbacks:
        best = getattr(callback, "best_weights", None)
        if best is not None:
            callback.model.set_weights(best)


class Agree(keras.callbacks.Callback):
    """Makes all workers go on with what the first one's logs say, and stop together if one of them does.

    They compute the same, but up to rounding on unlike machines, and callbacks may see what only one of them has; one
    that stops alone would leave the others waiting.
    """

    def on_train_begin(self, logs=None):
        self._gathering = replicas.Gathering(self.model.distribute_strategy)

    def on_epoch_end(self, epoch, logs=None):
        names = sorted(logs or {})
        each = self._gathering([*(float(logs[name]) for name in names), float(self.model.stop_training)])
        if logs:
            logs.update(zip(names, map(float, each[0]), strict=False))
        self.model.stop_training = bool(each[:, -1].any())


def agreeing(callbacks: list[keras.callbacks.Callback], strategy) -> list[keras.callbacks.Callback]:
    """The callbacks, between which the workers of a strategy agree, if there are several."""
    if not replicas.are_workers(strategy):
        return callbacks
    return [each for callback in callbacks for each in (callback, Agree())]


BATCH_HOOKS = ("on_batch_begin", "on_batch_end", "on_train_batch_begin", "on_train_batch_end")


def hears_batches(callback: keras.callbacks.Callback) -> bool:
    """Whether a callback asks to be called after single batches; Keras' own hooks are content with many at once."""

    def is_users(hook):
        if hook in vars(callback):  # LambdaCallback
            return True
        definer = next(kind for kind in type(callback).__mro__ if hook in vars(kind))
        return not definer.__module__.startswith("keras.")

    return any(map(is_users, BATCH_HOOKS))


class ProgressBar(keras.callbacks.ProgbarLogger):
    """Keras' progress bar, for epochs whose last call makes fewer steps than the others, which Keras counts in full."""

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(min(batch, self.target - 1), logs)


class StopOnNonFinite(keras.callbacks.Callback):
    """Stops the fit at the first batch whose loss or gradient is not finite, or when the loss held out is NaN."""

    def on_train_batch_end(self, batch, logs=None):
        loss = float((logs or {}).get("loss", 0.0))
        if loss != loss or loss in (float("inf"), -float("inf")):
            loop = getattr(self.model, "train_function", None)
            batch = getattr(loop, "step", batch + 1)  # a loop of many steps knows where it stopped
            raise NonFiniteLossError(f"in epoch {self.epoch + 1} of {self.params.get('epochs')}, batch {batch}")

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_epoch_end(self, epoch, logs=None):
        if np.isnan((logs or {}).get("val_loss", 0.0)):
            raise NonFiniteLossError(f"after epoch {epoch + 1} of {self.params.get('epochs')}", is_validation=True)


class NonFiniteLossError(FloatingPointError):
    """A loss or gradient that is NaN or infinite, of rows that are trained with or of those held out."""

    def __init__(self, where: str, *, is_validation: bool = False):
        super().__init__(where)
        self.is_validation = is_validation


def explain(model, flows: list, dataset: tf.data.Dataset) -> str:
    """Where the first number that is not finite comes from, found by going through the data again, for some seconds.

    Args:
      model: what is trained, with the weights from before the bad step.
      flows: the `FlowModel`s it consists of.
      dataset: dicts of x, weight and perhaps context.
    """
    started = time.monotonic()
    for batch in dataset:
        if time.monotonic() - started > EXPLAIN_SECONDS:
            return (
                f"In {EXPLAIN_SECONDS} s of going through the data again with these weights, every number was finite."
            )
        x, context = batch["x"], batch.get("context")
        if bool(tf.reduce_any(tf.math.is_nan(batch["weight"]))):
            return "Some sample weights are negative or NaN."
        rows = tf.where(batch["weight"] > 0.0)[:, 0]
        for name, value in (("x", x), ("context", context)):
            if value is not None and (bad := _bad_rows(value, rows)):
                return f"The {name} of the data is not finite, in {len(bad)} rows of a batch."
        for flow in flows:
            if flow.context_net is not None and (bad := _bad_rows(flow._hear(context), rows)):
                return f"The output of the context net {flow.context_net.name} is not finite for {len(bad)} rows."
        with watching() as found:
            outside = [set(_bad_rows(flow._log_prob(x, context), rows)) for flow in flows]
        if not found and flows and (bad := sorted(set.intersection(*outside))):
            return (
                f"The log-density of the base is not finite for {len(bad)} rows of a batch, such as "
                f"x = {_shown(x, bad[0])}: they lie outside its support, or so far out that it overflows."
            )
        if not found:
            try:
                with tf.GradientTape() as tape:
                    loss = tf.reduce_mean(model.flow_loss(model, x, context))
            except ValueError as error:  # one net's numbers are another flow's data, which are checked
                return f"What the loss asks of a flow is refused: {error}"
            if not is_finite(loss):  # it computes something else, or the model is made of other flows
                with watching() as found, _nothing_compiled():
                    model.flow_loss(model, x, context)
        if found:
            return _accuse(model, found[0], x, rows)
        weights = model.trainable_weights
        gradients = tape.gradient(loss, weights)
        for weight, gradient in zip(weights, gradients, strict=True):
            if gradient is not None and not is_finite(gradient):
                return f"The gradient with respect to {place_of_weight(model, weight)} is not finite."
        sizes = [0.0 if g is None else float(tf.reduce_max(tf.abs(g))) for g in gradients]
        if weights and not math.isfinite(float(tf.linalg.global_norm([g for g in gradients if g is not None]))):
            largest = place_of_weight(model, weights[int(np.argmax(sizes))])
            return f"The norm of the gradient overflows; it is largest, {max(sizes):.1e}, with respect to {largest}."
    return "Going through the data again with these weights, every number was finite."


def _accuse(model, culprit, x, rows) -> str:
    where = place(model, culprit.bijector)
    if culprit.what == "context":
        return f"The context that is told to {where} is not finite."
    same_rows = culprit.numbers.shape.rank > 0 and culprit.numbers.shape[0] == x.shape[0]
    bad = _bad_rows(culprit.numbers, rows) if same_rows else []
    such = f" for {len(bad)} rows of a batch, such as x = {_shown(x, bad[0])}" if bad else ""
    return f"The {culprit.what} of {where} is not finite{such}."


@contextlib.contextmanager
def _nothing_compiled():
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


def _shown(x, row) -> str:
    return np.array2string(x[row].numpy(), threshold=8, separator=", ", max_line_width=200).replace("\n", "")


def _bad_rows(value, rows) -> list[int]:
    axes = list(range(1, value.shape.rank))
    finite = tf.reduce_all(tf.math.is_finite(value), axis=axes)
    return [int(r) for r in rows if not bool(finite[int(r)])]
