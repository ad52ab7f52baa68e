"""Checks of bijectors: ours, and those that users write."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfflows.bijectors.base import Bijector, describe
from tfflows.model import FlowModel

__all__ = ["Check", "check_bijector"]


@dataclasses.dataclass(frozen=True)
class Check:
    """What `check_bijector` found.

    Args:
      name: of the check.
      passed: whether the bijector does what it should.
      found: the error, or what is wrong.
    """

    name: str
    passed: bool
    found: str


def check_bijector(
    bijector: Bijector,
    x,
    context=None,
    *,
    tolerance: float | None = None,
    print_fn: Callable[[str], None] | None = print,
) -> list[Check]:
    """Runs a bijector through everything that a flow asks of it, and prints a table.

    Checked are: round trips from data and from latents; log-dets of both directions against the Jacobian that
    TensorFlow differentiates, and against each other; shapes and dtypes for one row, many and two batch axes; whether
    the context is heard; whether a `.keras` file keeps the numbers, and whatever `adapt` has set; whether every weight
    is seen and gets a gradient; the same numbers under XLA; finite values and gradients far out and at zero.

    A bijector that `adapt` would set something in is adapted to `x` first. Weights are taken as they are: at their
    start many are zero, where a wrong formula may be right, so set them before.

    Args:
      bijector: to be checked; its classes must be registered with Keras.
      x: `[n, *event]`, n >= 2, data to try it on.
      context: `[n, context_dim]`, with rows that differ, or None.
      tolerance: largest error that passes; by default 1e-8 in float64, 1e-3 in float32.
      print_fn: what prints the table, or None.

    Returns:
      the checks, in the order of the table.

    Raises:
      AssertionError: if a check fails; says which.
      ValueError: for x or context that do not fit.
    """
    checker = _Checker(bijector, x, context, tolerance)
    checks = [checker.run(name, method) for name, method in checker.methods()]
    if print_fn is not None:
        width = max(len(check.name) for check in checks)
        print_fn(f"{describe(bijector)}, {bijector.dtype.name}")
        for check in checks:
            print_fn(f"{'ok    ' if check.passed else 'FAILED'}  {check.name:<{width}}  {check.found}")
    failed = [f"{check.name}: {check.found}" for check in checks if not check.passed]
    if failed:
        raise AssertionError("Expected every check to pass; failed: " + "; ".join(failed))
    return checks


class _Checker:
    def __init__(self, bijector, x, context, tolerance):
        if not isinstance(bijector, Bijector):
            raise ValueError(f"Expected a bijector of tfflows; got {bijector!r}.")
        self.bijector = bijector
        self.flow = FlowModel(bijector)
        self.x = tf.cast(self.flow.accepts.value(np.asarray(x)), bijector.dtype)
        context = self.flow.accepts.context(context, self.x.shape[0])
        self.context = None if context is None else tf.cast(context, bijector.dtype)
        if self.x.shape[0] < 2:
            raise ValueError(f"Expected at least two rows; got {self.x.shape[0]}.")
        self.tolerance = tolerance or (1e-8 if bijector.dtype == tf.float64 else 1e-3)
        if bijector.needs_adapt:
            bijector.adapt(self.x, self.context)
        self.weights = self.flow.trainable_weights

    def methods(self):
        yield "round trip from data", self.round_trip_from_data
        yield "round trip from latents", self.round_trip_from_latents
        yield "log-det of inverse = Jacobian", self.inverse_log_det
        yield "log-det of forward = Jacobian", self.forward_log_det
        yield "log-dets cancel", self.log_dets_cancel
        yield "shapes and dtypes", self.shapes
        if self.context is not None:
            yield "context is heard", self.context_is_heard
        yield "file keeps the numbers", self.file_keeps_the_numbers
        yield "adapt is done once", self.adapt_is_done_once
        yield "every weight has a gradient", self.every_weight
        yield "the same under XLA", self.xla
        yield "finite far out", self.far_out

    def run(self, name, method) -> Check:
        try:
            found = method()
        except Exception as error:
            return Check(name, False, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
        if isinstance(found, str):
            return Check(name, not found, found)
        return Check(name, bool(found <= self.tolerance), f"{found:.1e}")

    def inverse(self, x=None):
        return self.bijector.inverse_and_log_det(self.x if x is None else x, self.context)

    def forward(self, z):
        return self.bijector.forward_and_log_det(z, self.context)

    def round_trip_from_data(self):
        return _error(self.forward(self.inverse()[0])[0], self.x)

    def round_trip_from_latents(self):
        z = self.inverse()[0] + 0.1
        return _error(self.inverse(self.forward(z)[0])[0], z)

    def inverse_log_det(self):
        return self._log_det_error(self.inverse, self.x)

    def forward_log_det(self):
        # Latents of other data than those of the other direction: a log-det taken at the wrong point shows.
        return self._log_det_error(self.forward, self.inverse()[0] + 0.1)

    def _log_det_error(self, method, value):
        with tf.GradientTape(persistent=True) as tape:  # for a Jacobian without pfor, which knows not every operation
            tape.watch(value)
            mapped, log_det = method(value)
        jacobian = tape.batch_jacobian(mapped, value, experimental_use_pfor=False).numpy()
        jacobian = jacobian.reshape(len(jacobian), np.prod(mapped.shape[1:]), -1).astype(np.float64)
        return _error(log_det, np.linalg.slogdet(jacobian)[1])

    def log_dets_cancel(self):
        z, log_det = self.inverse()
        return _error(self.forward(z)[1], -log_det)

    def shapes(self):
        n, event = self.x.shape[0], self.x.shape[1:]
        for batch in ((), (1,), (n,), (1, n)):
            x = tf.reshape(self.x[: 1 if batch in ((), (1,)) else n], (*batch, *event))
            context = self.context
            if context is not None:
                context = tf.reshape(context[: 1 if batch in ((), (1,)) else n], (*batch, -1))
            z, log_det = self.bijector.inverse_and_log_det(x, context)
            back, forward_log_det = self.bijector.forward_and_log_det(z, context)
            for what, value, shape in (
                ("x", back, x.shape),
                ("log-det of inverse", log_det, batch),
                ("log-det of forward", forward_log_det, batch),
            ):
                if tuple(value.shape) != tuple(shape):
                    return f"expected {what} of shape {tuple(shape)}; got {tuple(value.shape)}"
            if {v.dtype for v in (z, back, log_det, forward_log_det)} != {self.bijector.dtype}:
                return f"expected {self.bijector.dtype.name} everywhere"
        return ""

    def context_is_heard(self):
        # A fresh net's last layer is zero and hears nothing yet.
        z, _ = self.inverse()
        other, _ = self.bijector.inverse_and_log_det(self.x, tf.roll(self.context, 1, axis=0))
        heard = _error(z, other) > 0.0
        return "" if heard else "latents are the same for another context (or the weights still at zero)"

    def file_keeps_the_numbers(self):
        again = self._reloaded()
        return _error(again._log_prob(self.x, self.context), self.flow._log_prob(self.x, self.context))

    def adapt_is_done_once(self):
        if self.bijector.needs_adapt:
            return "needs_adapt is still true after adapt"
        return (
            "needs_adapt is true after loading: the file has lost what adapt set"
            if (self._reloaded().bijector.needs_adapt)
            else ""
        )

    def _reloaded(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "flow.keras"
            self.flow.save(path)
            policy = keras.config.dtype_policy()
            keras.config.set_dtype_policy(self.bijector.dtype.name)
            try:
                return keras.saving.load_model(path)
            finally:
                keras.config.set_dtype_policy(policy)

    def every_weight(self):
        with tf.GradientTape() as tape:
            z, log_det = self.inverse()
            # Sines: a sum alone has zero gradient in some directions.
            loss = tf.reduce_sum(tf.sin(z)) + tf.reduce_sum(tf.sin(log_det))
        gradients = tape.gradient(loss, [w.value for w in self.weights])
        silent = [w.path for w, g in zip(self.weights, gradients, strict=True) if g is None]
        bad = [
            w.path for w, g in zip(self.weights, gradients, strict=True) if g is not None and not np.all(np.isfinite(g))
        ]
        seen = {id(w.value) for w in self.weights}
        unseen = [v.name for v in self.bijector.trainable_variables if id(v) not in seen]
        if silent or bad or unseen:
            return f"no gradient for {silent}, not finite for {bad}, unseen by the model {unseen}"
        return ""

    def xla(self):
        errors = []
        for method, value in ((self.inverse, self.x), (self.forward, self.inverse()[0])):
            compiled = tf.function(method, jit_compile=True, autograph=False)(value)
            errors += [_error(a, b) for a, b in zip(compiled, method(value), strict=True)]
        return max(errors)

    def far_out(self):
        for at in (1e4, -1e4, 0.0):
            for name, method, event_shape in (
                ("inverse", self.inverse, self.bijector.event_shape),
                ("forward", self.forward, self.bijector.latent_shape),
            ):
                value = tf.fill((len(self.x), *event_shape), tf.constant(at, self.bijector.dtype))
                with tf.GradientTape() as tape:
                    tape.watch(value)
                    mapped, log_det = method(value)
                    total = tf.reduce_sum(mapped) + tf.reduce_sum(log_det)
                gradients = tape.gradient(total, [value, *(w.value for w in self.weights)])
                values = [mapped, log_det, *(g for g in gradients if g is not None)]
                if not all(np.all(np.isfinite(v)) for v in values):
                    return f"{name} at {at:g}: a value or gradient is not finite"
        return ""


def _error(a, b) -> float:
    """Largest difference, relative where the numbers are large; inf where one is NaN."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape:
        raise ValueError(f"Expected values of shape {b.shape}; got {a.shape}.")
    error = np.max(np.abs(a - b) / np.maximum(np.abs(b), 1.0))
    return float(error) if np.isfinite(error) else np.inf
