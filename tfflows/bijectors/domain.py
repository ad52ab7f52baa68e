"""Domains: maps of all real numbers, or of a circle, onto where data live."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfflows.bijectors.base import Bijector, check_range, refuse
from tfflows.numerics import sum_event, wrap
from tfflows.serialization import register

# Of what rounding in a table leaves.
SUM_TOLERANCE = 1e-4  # of fractions that add up to 1
NORM_TOLERANCE = 1e-3  # of the squared length of unit vectors


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
        between = tf.clip_by_value(low + width * tf.sigmoid(z), low, high)  # which rounding may miss
        x = self._choose(between, low + tf.nn.softplus(z), high - tf.nn.softplus(-z), z)
        return x, sum_event(self._log_slope(z), 1)

    def _inverse_and_log_det(self, x, context):
        z, log_dets = self._inverse_and_log_dets(x, context)
        return z, sum_event(log_dets, 1)

    @property
    def is_elementwise(self):
        return True

    def _inverse_and_log_dets(self, x, context):
        low, high = (tf.cast(v, x.dtype) for v in (self._low, self._high))
        # On its bound a number has its latent at infinity: it counts as some ulps of the interval inside.
        least = tf.cast(self._width * np.finfo(x.dtype.as_numpy_dtype).eps, x.dtype)
        from_low = tf.where(self._has_low, x - low, tf.ones_like(x))
        from_high = tf.where(self._has_high, high - x, tf.ones_like(x))
        from_low, from_high = (tf.where(v > 0.0, v, least) for v in (from_low, from_high))
        interval = tf.math.log(from_low) - tf.math.log(from_high)
        softplus_inverse = tfp.math.softplus_inverse
        z = self._choose(interval, softplus_inverse(from_low), -softplus_inverse(from_high), x)
        return z, -self._log_slope(z)

    def check(self, x, what, columns=None, *, exact=True):
        check_range(x, self.parameters["low"], self.parameters["high"], what, columns)

    def describe(self):
        return f"Bounded, {int(np.sum(self._has_low | self._has_high))} of {self.event_shape[0]} numbers"


@register
class Positive(Bijector):
    """Amounts: numbers above a bound, by their logarithm, so that it does not matter in which unit they are.

    x = low + exp(z);  log-det = sum_i z_i. Their tails are those of log-normal distributions, where `Bounded` leaves
    large numbers as they are.

    Args:
      low: `[n]`, the bounds.

    Raises:
      ValueError: for bounds that are not finite, or not of one axis.
    """

    def __init__(self, low: Sequence[float], name: str | None = None):
        parameters = dict(locals())
        low = np.asarray(low, np.float64)
        if low.ndim != 1 or not np.all(np.isfinite(low)):
            raise ValueError(f"Expected finite bounds; got {low.tolist()}.")
        super().__init__(parameters, event_shape=low.shape, is_constant_jacobian=False, name=name)
        self._low = low

    @property
    def is_elementwise(self):
        return True

    def _forward_and_log_det(self, z, context):
        finite = np.finfo(z.dtype.as_numpy_dtype)
        # Beyond, the exponential is 0 or infinite.
        z = tf.clip_by_value(z, np.log(finite.tiny), np.log(finite.max) - 1.0)
        return tf.cast(self._low, z.dtype) + tf.exp(z), sum_event(z, 1)

    def _inverse_and_log_dets(self, x, context):
        # Rounding may put a number on its bound, whose latent is infinite.
        z = tf.math.log(tf.maximum(x - tf.cast(self._low, x.dtype), np.finfo(x.dtype.as_numpy_dtype).tiny))
        return z, -z

    def _inverse_and_log_det(self, x, context):
        z, log_dets = self._inverse_and_log_dets(x, context)
        return z, sum_event(log_dets, 1)

    def check(self, x, what, columns=None, *, exact=True):
        check_range(x, self._low, np.full_like(self._low, np.inf), what, columns)

    def describe(self):
        return f"Positive, {self.event_shape[0]} numbers"


@register
class Circle(Bijector):
    """Angles and other numbers that come round again, on circles of one period.

    x = start + period (z + bound) / (2 bound), z in [-bound, bound);  log-det = sum_i log(period_i / (2 bound)). A
    number outside of its period stands for the one inside it that it differs from by whole periods.

    Args:
      period: `[n]`, > 0.
      start: `[n]`, the least of the numbers that come out.
      bound: half the period of the latents, > 0.

    Raises:
      ValueError: for a period or bound that is not positive, or period and start of different lengths.
    """

    def __init__(self, period: Sequence[float], start: Sequence[float], bound: float, name: str | None = None):
        parameters = dict(locals())
        period, start = np.asarray(period, np.float64), np.asarray(start, np.float64)
        if period.shape != start.shape or period.ndim != 1 or not np.all(period > 0.0) or not bound > 0.0:
            raise ValueError(
                f"Expected a bound > 0, and periods > 0 with as many starts; got {bound}, {period.tolist()} and "
                f"{start.tolist()}."
            )
        super().__init__(parameters, event_shape=period.shape, is_constant_jacobian=True, name=name)
        self._start, self._scale, self._bound = start, period / (2.0 * bound), float(bound)
        # The last number before the end, which no rounding may reach.
        self._last = np.nextafter((start + period).astype(self.dtype.as_numpy_dtype), -np.inf)

    @property
    def accepts_float64(self):
        return True

    def _log_det(self, value, sign):
        return tf.fill(tf.shape(value)[:-1], tf.cast(sign * np.sum(np.log(self._scale)), self.dtype))

    def _forward_and_log_det(self, z, context):
        start, scale, last = (tf.cast(v, z.dtype) for v in (self._start, self._scale, self._last))
        x = start + scale * (wrap(z, self._bound) + self._bound)
        return tf.minimum(x, last), self._log_det(z, 1.0)

    def _inverse_and_log_det(self, x, context):
        start, scale = (tf.cast(v, x.dtype) for v in (self._start, self._scale))
        z = tf.cast(wrap((x - start) / scale - self._bound, self._bound), self.dtype)
        return wrap(z, self._bound), self._log_det(x, -1.0)  # rounded, it may be on the edge again

    @property
    def is_elementwise(self):
        return True

    def _inverse_and_log_dets(self, x, context):
        z, _ = self._inverse_and_log_det(x, context)
        return z, tf.broadcast_to(tf.cast(-np.log(self._scale), z.dtype), tf.shape(z))

    def describe(self):
        return f"Circle, {self.event_shape[0]} numbers"


@register
class Simplex(Bijector):
    """n fractions that add up to 1, of n - 1 real numbers.

    x = softmax(z_1 .. z_{n-1}, 0), z_i = log x_i - log x_n;  log-det = sum_i log x_i over all n: densities are with
    respect to the first n - 1 fractions, as those of Dirichlet distributions are.

    Args:
      n: number of fractions, >= 2.

    Raises:
      ValueError: for n < 2.

    Reference:
      Aitchison (1982), The statistical analysis of compositional data (additive log-ratios)
    """

    def __init__(self, n: int, name: str | None = None):
        parameters = dict(locals())
        if n < 2:
            raise ValueError(f"Expected n >= 2 fractions; got {n}.")
        super().__init__(parameters, event_shape=(n,), is_constant_jacobian=False, name=name)

    @property
    def latent_shape(self):
        return (self.event_shape[0] - 1,)

    def _forward_and_log_det(self, z, context):
        log_x = tf.nn.log_softmax(tf.concat([z, tf.zeros_like(z[..., :1])], axis=-1))
        return tf.exp(log_x), sum_event(log_x, 1)

    def _inverse_and_log_det(self, x, context):
        # A fraction of zero has its latent at infinity; the smallest number keeps it finite.
        log_x = tf.math.log(tf.maximum(x, np.finfo(x.dtype.as_numpy_dtype).tiny))
        return log_x[..., :-1] - log_x[..., -1:], -sum_event(log_x, 1)

    def check(self, x, what, columns=None, *, exact=True):
        columns = list(range(x.shape[1]) if columns is None else columns)
        away = np.abs(np.sum(x, axis=1, dtype=np.float64) - 1.0)
        outside = ~np.all(x >= 0.0, axis=1) | (away > SUM_TOLERANCE)
        refuse(outside, f"fractions >= 0 that add up to 1 in columns {columns}", x, what)

    def describe(self):
        return f"Simplex of {self.event_shape[0]}"


@register
class Sphere(Bijector):
    """Directions: unit vectors of n numbers, of n - 2 heights and an angle.

    Recursively: the last number is a height h in (-1, 1), and those before it sqrt(1 - h^2) times a unit vector of
    n - 1; the first two are cosine and sine of an angle. Each height is a sigmoid of a real number, the angle circular,
    pi z / bound. Densities are with respect to area: with n numbers, (1 - h^2)^((n - 3) / 2) dh of the last height
    times that of the rest.

    Args:
      n: number of coordinates, >= 2; 3 is the sphere in space.
      bound: half the period of the angle's latent, > 0.

    Raises:
      ValueError: for n < 2 or a bound <= 0.

    Reference:
      Rezende et al. (2020), Normalizing flows on tori and spheres, https://arxiv.org/abs/2002.02428
    """

    def __init__(self, n: int, bound: float, name: str | None = None):
        parameters = dict(locals())
        if n < 2 or not bound > 0.0:
            raise ValueError(f"Expected n >= 2 coordinates and bound > 0; got {n} and {bound}.")
        super().__init__(parameters, event_shape=(n,), is_constant_jacobian=False, name=name)
        self._bound = float(bound)
        # Of the squares 1 - h^2 in the area, for the heights of coordinates 3 .. n.
        self._powers = 0.5 * np.arange(n - 2)

    @property
    def latent_shape(self):
        return (self.event_shape[0] - 1,)

    def _log_det(self, log_up, log_down):
        """Of heights h = 2 sigmoid(z) - 1, with the logarithms of (1 + h) / 2 and (1 - h) / 2."""
        powers = tf.constant(self._powers, log_up.dtype)
        log_squares = log_up + log_down + 2.0 * math.log(2.0)
        heights = sum_event(powers * log_squares + math.log(2.0) + log_up + log_down, 1)
        return heights + math.log(math.pi / self._bound)

    def _forward_and_log_det(self, z, context):
        angle, heights = math.pi / self._bound * z[..., :1], z[..., 1:]
        log_up, log_down = -tf.nn.softplus(-heights), -tf.nn.softplus(heights)
        x = tf.concat([tf.cos(angle), tf.sin(angle)], axis=-1)
        for i in range(self.event_shape[0] - 2):
            radius = 2.0 * tf.exp(0.5 * (log_up + log_down))[..., i : i + 1]
            x = tf.concat([radius * x, tf.tanh(0.5 * heights[..., i : i + 1])], axis=-1)
        return x, self._log_det(log_up, log_down)

    def _inverse_and_log_det(self, x, context):
        tiny = np.finfo(x.dtype.as_numpy_dtype).tiny
        # The length of what comes before each number: no digits are lost near the poles, as with 1 - h^2.
        squares = tf.maximum(tf.cumsum(x**2, axis=-1), tiny)
        before, here, length = x[..., 2:], tf.sqrt(squares[..., 1:-1]), tf.sqrt(squares[..., 2:])
        # (1 + h) (1 - h) = r^2 for height h and radius r, of the larger of the two factors.
        large = 0.5 * (1.0 + tf.abs(before) / length)
        log_large = tf.math.log(large)
        eps = np.finfo(x.dtype.as_numpy_dtype).eps  # at the poles themselves the latent is infinite
        log_small = 2.0 * tf.math.log(tf.maximum(here / length, eps)) - 2.0 * math.log(2.0) - log_large
        is_up = before >= 0.0
        log_up, log_down = tf.where(is_up, log_large, log_small), tf.where(is_up, log_small, log_large)
        angle = tf.atan2(x[..., 1:2], x[..., :1]) * (self._bound / math.pi)
        return tf.concat([wrap(angle, self._bound), log_up - log_down], axis=-1), -self._log_det(log_up, log_down)

    def check(self, x, what, columns=None, *, exact=True):
        columns = list(range(x.shape[1]) if columns is None else columns)
        away = np.abs(np.sum(np.square(x, dtype=np.float64), axis=1) - 1.0)
        refuse(away > NORM_TOLERANCE, f"unit vectors in columns {columns}", x, what)

    def describe(self):
        return f"Sphere of {self.event_shape[0]}"
