"""Domains: maps of all real numbers onto a part of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfflows.bijectors.base import Bijector
from tfflows.numerics import sum_event
from tfflows.serialization import register


@register
class Bounded(Bijector):
    """Numbers between bounds, each with its own, spread over the whole line.

    x = low + (high - low) sigmoid(z) between two bounds, low + softplus(z) above one, high - softplus(-z) below one,
    and z without. Far from an only bound the map is a straight line, so large numbers stay what they are.

    Args:
      low: `[n]`, -inf where there is no lower bound.
      high: `[n]`, inf where there is no upper bound.

    Raises:
      ValueError: if low and high have not one length, or somewhere not low < high.
    """

    def __init__(self, low: Sequence[float], high: Sequence[float], name: str | None = None):
        parameters = dict(locals())
        low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
        if low.shape != high.shape or low.ndim != 1 or not np.all(low < high):
            raise ValueError(f"Expected bounds low < high, equally many of each; got {low.tolist()}, {high.tolist()}.")
        super().__init__(parameters, event_shape=low.shape, is_constant_jacobian=False, name=name)
        self._has_low, self._has_high = np.isfinite(low), np.isfinite(high)
        self._is_interval = self._has_low & self._has_high
        # Any number where there is no bound: what is computed of it is not used.
        self._low, self._high = np.where(self._has_low, low, 0.0), np.where(self._has_high, high, 0.0)
        self._width = np.where(self._is_interval, high - low, 1.0)

    def _choose(self, interval, above, below, free):
        return tf.where(
            self._is_interval, interval, tf.where(self._has_low, above, tf.where(self._has_high, below, free))
        )

    def _log_slope(self, z):
        rising, falling = -tf.nn.softplus(-z), -tf.nn.softplus(z)  # log sigmoid of z and -z
        interval = tf.math.log(tf.cast(self._width, z.dtype)) + rising + falling
        return self._choose(interval, rising, falling, tf.zeros_like(z))

    def _forward_and_log_det(self, z, context):
        low, high, width = (tf.cast(v, z.dtype) for v in (self._low, self._high, self._width))
        x = self._choose(low + width * tf.sigmoid(z), low + tf.nn.softplus(z), high - tf.nn.softplus(-z), z)
        return x, sum_event(self._log_slope(z), 1)

    def _inverse_and_log_det(self, x, context):
        z, log_dets = self._inverse_and_log_dets(x, context)
        return z, sum_event(log_dets, 1)

    @property
    def is_elementwise(self):
        return True

    def _inverse_and_log_dets(self, x, context):
        low, high = (tf.cast(v, x.dtype) for v in (self._low, self._high))
        tiny = tf.constant(np.finfo(x.dtype.as_numpy_dtype).tiny, x.dtype)
        # Rounding may put a number on its bound, whose latent is infinite.
        from_low = tf.maximum(tf.where(self._has_low, x - low, 1.0), tiny)
        from_high = tf.maximum(tf.where(self._has_high, high - x, 1.0), tiny)
        interval = tf.math.log(from_low) - tf.math.log(from_high)
        softplus_inverse = tfp.math.softplus_inverse
        z = self._choose(interval, softplus_inverse(from_low), -softplus_inverse(from_high), x)
        return z, -self._log_slope(z)

    def describe(self):
        return f"Bounded, {int(np.sum(self._has_low | self._has_high))} of {self.event_shape[0]} numbers"
