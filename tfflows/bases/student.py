"""Student-t base: heavy tails."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfflows.bases.base import Base, draw_uniform, split_seed
from tfflows.serialization import register

# Learned degrees of freedom stay above it. At 1, Cauchy's, there is no mean already; at this one draws, of uniform
# numbers down to 2^-24, are still finite in float32.
MIN_DF = 0.5


@register
class StudentT(Base):
    """Independent Student-t variables, for data with heavy tails.

    Args:
      event_shape: shape of an event; an int is one axis.
      df: degrees of freedom, > 0; small is heavy. A number, or `[*event_shape]` for one of each scalar.
      learned: whether they are learned, each scalar its own, from `df` on, > 0.5; they stay above 0.5.

    Raises:
      ValueError: for degrees of freedom that are too small or of another shape.

    References:
      sampling: Bailey (1994), Polar generation of random variates with the t-distribution,
      https://doi.org/10.1090/S0025-5718-1994-1219702-8; learned tails in flows: Laszkiewicz, Lederer & Fischer (2022),
      Marginal tail-adaptive normalizing flows, https://arxiv.org/abs/2206.10311
    """

    def __init__(
        self,
        event_shape: int | Sequence[int],
        df: float | Sequence[float] = 5.0,
        *,
        learned: bool = False,
        **kwargs,
    ):
        super().__init__(event_shape, **kwargs)
        each = np.asarray(df, np.float64)
        least = MIN_DF if learned else 0.0
        if not np.all((each > least) & (each < np.inf)):
            raise ValueError(f"Expected df > {least:g}, finite; got {df}.")
        if each.shape not in ((), self.event_shape):
            raise ValueError(f"Expected a number as df, or as many as {self.event_shape}; got shape {each.shape}.")
        self.df = float(df) if each.ndim == 0 else each.tolist()
        self.learned = bool(learned)
        if learned:
            above = each - MIN_DF
            raw = above + np.log(-np.expm1(-above))  # whose softplus it is
            self.raw_df = self.add_weight(shape=self.event_shape, initializer="zeros", name="raw_df")
            self.raw_df.assign(np.broadcast_to(raw, self.event_shape))

    def degrees_of_freedom(self) -> tf.Tensor:
        """Those of each scalar as they are now, `[*event_shape]`."""
        if self.learned:
            return MIN_DF + tf.math.softplus(tf.convert_to_tensor(self.raw_df))
        return tf.constant(np.broadcast_to(self.df, self.event_shape), self.variable_dtype)

    def log_probs(self, z, temperature=1.0):
        z = tf.convert_to_tensor(z)
        temperature = tf.cast(temperature, z.dtype)
        df = tf.cast(self.degrees_of_freedom(), z.dtype)
        normaliser = _log_gamma_step(0.5 * df) - 0.5 * tf.math.log(df * math.pi)
        # |z| = 1e4 squares to 1e8; float32 holds it, and log1p keeps the small ones.
        tail = -0.5 * (df + 1.0) * tf.math.log1p(tf.square(z / temperature) / df)
        return normaliser + tail - tf.math.log(temperature)

    def sample(self, shape, seed, temperature=1.0):
        seeds = split_seed(seed)
        shape, dtype = self._full_shape(shape), self.variable_dtype
        # u > 0: float32's uniform numbers are multiples of 2^-23, and half a step keeps the heaviest tails finite.
        u = tf.maximum(draw_uniform(shape, seeds[0], dtype), 2.0**-24)
        v = draw_uniform(shape, seeds[1], dtype)
        return tf.cast(temperature, dtype) * self._polar(u, v)

    @property
    def n_uniform(self):
        return 2 * self._n_dim

    def from_uniform(self, uniform, temperature):
        u, v = (self._as_events(part) for part in tf.split(uniform, 2, axis=-1))
        return self._for_each_row(temperature) * self._polar(u, v)

    def cdf(self, z):
        return self._stock().cdf(tf.cast(z, self.variable_dtype))

    def quantile(self, p):
        return self._stock().quantile(tf.cast(p, self.variable_dtype))

    def _stock(self):
        df = self.degrees_of_freedom()
        return tfp.distributions.StudentT(df, tf.zeros([], df.dtype), tf.ones([], df.dtype))

    def _polar(self, u, v):
        df = self.degrees_of_freedom()
        radius = tf.sqrt(df * tf.math.expm1(-2.0 / df * tf.math.log(u)))
        return radius * tf.cos(2.0 * math.pi * v)

    def get_config(self):
        return {**super().get_config(), "df": self.df, "learned": self.learned}


def _log_gamma_step(a):
    """log Gamma(a + 1/2) - log Gamma(a) for a > 0, to the last digits where the two are large and almost equal.

    Stirling's series of the difference, eight steps further on, where it is right to 1e-14.
    """
    steps = 8
    total = tf.zeros_like(a)
    for k in range(steps):
        total += tf.math.log((a + k) / (a + k + 0.5))
    a += steps
    inverse = 1.0 / a
    square = tf.square(inverse)
    series = -691.0 / 180224.0
    for coefficient in (31.0 / 18432.0, -17.0 / 14336.0, 1.0 / 640.0, -1.0 / 192.0, 1.0 / 8.0):
        series = series * square + coefficient
    return total + 0.5 * tf.math.log(a) - inverse * series
