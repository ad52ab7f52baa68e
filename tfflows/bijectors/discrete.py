"""Discrete columns: whole numbers as points of the line."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfflows.bijectors.base import Bijector, check_range
from tfflows.nets import Shares
from tfflows.numerics import sum_event
from tfflows.randomness import random_uniform, training_seed
from tfflows.serialization import register

N_POINTS = 16  # that a probability is the mean of


@register
class Integers(Bijector):
    """Whole numbers; the map itself is the identity.

    The number k stands for the interval [k - 1/2, k + 1/2): its probability is the density's integral over that. In
    training each is moved to a point of its interval at random, new in each step, so that the loss is in the mean at
    least minus the log-probability. Elsewhere the probability is the mean of the densities at 16 points for all columns
    together, spread evenly (a lattice, shifted by a function of the row, and folded), which in the mean is the integral
    itself.

    Args:
      low, high: `[n]`, the least and the greatest of each column, -inf and inf where there are none.

    References:
      Theis, van den Oord & Bethge (2016), A note on the evaluation of generative models,
      https://arxiv.org/abs/1511.01844; Roberts (2018), The unreasonable effectiveness of quasirandom sequences;
      Hickernell (2002), Obtaining O(N^(-2+eps)) convergence for lattice quadrature rules (folding)
    """

    def __init__(self, low: Sequence[float], high: Sequence[float], name: str | None = None):
        parameters = dict(locals())
        low, high = _bounds(low, high, np.float64)
        super().__init__(parameters, event_shape=low.shape, is_constant_jacobian=True, name=name)
        self._low, self._high = low, high

    @property
    def is_discrete(self):
        return True

    def _forward_and_log_det(self, z, context):
        return z, tf.zeros(tf.shape(z)[:-1], z.dtype)

    def _inverse_and_log_det(self, x, context):
        return x, tf.zeros(tf.shape(x)[:-1], x.dtype)

    def quantize(self, x):
        low, high = (tf.cast(v, x.dtype) for v in (self._low, self._high))
        return tf.clip_by_value(tf.floor(x + 0.5), low, high)

    def dequantize(self, x, context):
        x = self.quantize(tf.cast(x, self.dtype))
        uniform = random_uniform(x, event_ndims=1)
        if training_seed() is None:
            lattice = tf.cast(lattice_points(N_POINTS, self.event_shape[0]), x.dtype)
            shape = [N_POINTS] + [1] * (x.shape.rank - 1) + [self.event_shape[0]]
            shifted = tf.math.floormod(uniform + tf.reshape(lattice, shape), 1.0)
            # Folded, so that what is integrated is periodic: the error falls with the square of the number of points.
            uniform = 1.0 - tf.abs(2.0 * shifted - 1.0)
        # Rounded, the largest numbers below 1 would be the next interval's.
        return x + tf.clip_by_value(uniform, 1e-6, 1.0 - 1e-6) - 0.5, None

    def check(self, x, what, columns=None, *, exact=True):
        margin = 0.0 if exact else 0.5
        bad = (x != np.floor(x)) & exact
        check_range(x, self._low - margin, self._high + margin, what, columns, bad)

    def describe(self):
        return f"Integers, {self.event_shape[0]} numbers"


@register
class Frequencies(Bijector):
    """Points of whole numbers low .. high, spread over the line by how often each of these is.

    z = logit(v), v = the share of the data below, linear in each interval [k - 1/2, k + 1/2): data that are whole
    numbers moved to points at random have a logistic distribution, whatever their frequencies were, which `adapt` takes
    from data. So what a flow is left to learn is how columns depend on each other. Log-det = sum_i log(v (1 - v) / p).

    Args:
      low, high: `[n]`, the least and the greatest whole number of each column.
    """

    def __init__(self, low: Sequence[int], high: Sequence[int], name: str | None = None):
        parameters = dict(locals())
        low, high = _bounds(low, high, np.int64)
        super().__init__(parameters, event_shape=low.shape, is_constant_jacobian=False, name=name)
        self._low, self._sizes = low, high - low + 1
        self._shares = Shares(self._sizes)

    @property
    def needs_adapt(self):
        return not self._shares.is_adapted

    def adapt(self, x, context=None, *, sample_weight=None, verbose=0):
        bins = np.floor(np.asarray(x) + 0.5).astype(np.int64) - self._low
        weight = None if sample_weight is None else np.asarray(sample_weight, np.float64)
        counts = [np.bincount(bins[:, i], weight, minlength=n) for i, n in enumerate(self._sizes)]
        # What has not been seen yet may come: half a row of each.
        self._shares.set([(count + 0.5) / np.sum(count + 0.5) for count in counts])

    def _at(self, table, bins):
        """Entries `[..., n]` of a table `[n, m]`, one of each column."""
        flat = bins + np.arange(len(self._sizes)) * table.shape[1]
        return tf.gather(tf.reshape(table, [-1]), flat)

    def _tables(self, dtype):
        share = tf.cast(self._shares(None), dtype)
        return share, tf.cumsum(share, axis=-1, exclusive=True)

    def _log_det(self, log_up, log_down, share):
        return sum_event(log_up + log_down - tf.math.log(share), 1)

    def _forward_and_log_det(self, z, context):
        share, below = self._tables(z.dtype)
        v = tf.sigmoid(z)
        bins = tf.reduce_sum(tf.cast(v[..., tf.newaxis] >= below[:, 1:], tf.int32), axis=-1)
        bins = tf.minimum(bins, self._sizes.astype(np.int32) - 1)
        here = self._at(share, bins)
        within = tf.clip_by_value((v - self._at(below, bins)) / here, 0.0, 1.0)
        x = tf.cast(self._low, z.dtype) + tf.cast(bins, z.dtype) + within - 0.5
        return x, self._log_det(-tf.nn.softplus(-z), -tf.nn.softplus(z), here)

    def _inverse_and_log_det(self, x, context):
        share, below = self._tables(x.dtype)
        from_low = x + 0.5 - tf.cast(self._low, x.dtype)
        bins = tf.clip_by_value(tf.cast(tf.floor(from_low), tf.int32), 0, self._sizes.astype(np.int32) - 1)
        within = tf.clip_by_value(from_low - tf.cast(bins, x.dtype), 0.0, 1.0)
        here = self._at(share, bins)
        # At the ends of all, where the latent is infinite, it stops some ulps before.
        least = 8.0 * np.finfo(x.dtype.as_numpy_dtype).eps
        v = tf.clip_by_value(self._at(below, bins) + here * within, least, 1.0 - least)
        log_up, log_down = tf.math.log(v), tf.math.log1p(-v)
        return log_up - log_down, -self._log_det(log_up, log_down, here)

    def describe(self):
        return f"Frequencies, {len(self._sizes)} numbers"


def lattice_points(n: int, n_dim: int) -> np.ndarray:
    """`[n, n_dim]`, evenly spread over the unit cube, as multiples of an irrational vector modulo 1."""
    root = 2.0
    for _ in range(60):  # of root^(n_dim + 1) = root + 1
        root = (1.0 + root) ** (1.0 / (n_dim + 1))
    return np.arange(n)[:, np.newaxis] * root ** -np.arange(1.0, n_dim + 1) % 1.0


def _bounds(low, high, dtype):
    low, high = np.asarray(low, dtype), np.asarray(high, dtype)
    if low.shape != high.shape or low.ndim != 1 or not np.all(low <= high):
        raise ValueError(f"Expected bounds low <= high, equally many of each; got {low.tolist()}, {high.tolist()}.")
    return low, high
