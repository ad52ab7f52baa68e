"""Normal bases: standard, diagonal, mixtures."""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from tfflows.bases.base import Base, as_vector, draw_normal, normal_from_uniform, normal_log_prob, split_seed
from tfflows.numerics import root_of_increasing
from tfflows.randomness import categories, draw_categories
from tfflows.serialization import register


@register
class StandardNormal(Base):
    """Independent normals of mean 0 and variance 1.

    Args:
      event_shape: shape of an event; an int is one axis.
    """

    def log_probs(self, z, temperature=1.0):
        z = tf.convert_to_tensor(z)
        temperature = tf.cast(temperature, z.dtype)
        return normal_log_prob(z / temperature) - tf.math.log(temperature)

    def sample(self, shape, seed, temperature=1.0):
        eps = draw_normal(self._full_shape(shape), seed, self.variable_dtype)
        return eps * tf.cast(temperature, eps.dtype)

    @property
    def n_uniform(self):
        return 2 * self._n_dim

    def from_uniform(self, uniform, temperature):
        return self._for_each_row(temperature) * self._as_events(normal_from_uniform(uniform))

    def cdf(self, z):
        return _normal_cdf(tf.cast(z, self.variable_dtype))

    def quantile(self, p):
        return _normal_quantile(tf.cast(p, self.variable_dtype))


@register
class DiagonalNormal(Base):
    """Independent normals with learned means and variances, which start as those of `StandardNormal`.

    Args:
      event_shape: shape of an event; an int is one axis.
    """

    def __init__(self, event_shape: int | Sequence[int], **kwargs):
        super().__init__(event_shape, **kwargs)
        self.location = self.add_weight(shape=self.event_shape, initializer="zeros", name="location")
        self.log_scale = self.add_weight(shape=self.event_shape, initializer="zeros", name="log_scale")

    def log_probs(self, z, temperature=1.0):
        z = tf.convert_to_tensor(z)
        log_scale = self.log_scale + tf.math.log(tf.cast(temperature, z.dtype))
        return normal_log_prob((z - self.location) * tf.exp(-log_scale)) - log_scale

    def sample(self, shape, seed, temperature=1.0):
        eps = draw_normal(self._full_shape(shape), seed, self.variable_dtype)
        return self.location + tf.cast(temperature, eps.dtype) * tf.exp(self.log_scale) * eps

    @property
    def n_uniform(self):
        return 2 * self._n_dim

    def from_uniform(self, uniform, temperature):
        eps = self._as_events(normal_from_uniform(uniform))
        return self.location + self._for_each_row(temperature) * tf.exp(self.log_scale) * eps

    def cdf(self, z):
        return _normal_cdf((tf.cast(z, self.variable_dtype) - self.location) * tf.exp(-self.log_scale))

    def quantile(self, p):
        return self.location + tf.exp(self.log_scale) * _normal_quantile(tf.cast(p, self.variable_dtype))


@register
class MixtureOfNormals(Base):
    """A mixture of diagonal normals with learned weights, means and variances.

    Args:
      event_shape: shape of an event; an int is one axis.
      n_components: K >= 1. The means start spread out, as draws from a standard normal.

    Raises:
      ValueError: for n_components < 1; of `cdf` and `quantile` if events are not one number.
    """

    is_reparameterized = False

    def __init__(self, event_shape: int | Sequence[int], n_components: int = 4, **kwargs):
        super().__init__(event_shape, **kwargs)
        if n_components < 1:
            raise ValueError(f"Expected n_components >= 1; got {n_components}.")
        self.n_components = int(n_components)
        shape = (self.n_components, *self.event_shape)
        self.logits = self.add_weight(shape=(self.n_components,), initializer="zeros", name="logits")
        normal = keras.initializers.RandomNormal(stddev=1.0)
        self.location = self.add_weight(shape=shape, initializer=normal, name="location")
        self.log_scale = self.add_weight(shape=shape, initializer="zeros", name="log_scale")

    def log_prob(self, z, temperature=1.0):
        log_scale = self.log_scale + tf.math.log(tf.cast(temperature, z.dtype))
        z = tf.expand_dims(z, axis=-1 - len(self.event_shape))
        each = self._sum(normal_log_prob((z - self.location) * tf.exp(-log_scale)) - log_scale)
        return tf.reduce_logsumexp(each + tf.nn.log_softmax(tf.convert_to_tensor(self.logits)), axis=-1)

    def sample(self, shape, seed, temperature=1.0):
        seeds = split_seed(seed)
        n = tf.reduce_prod(as_vector(shape))
        which = draw_categories(tf.nn.log_softmax(tf.convert_to_tensor(self.logits)), [n], seeds[0])
        full = self._full_shape(shape)
        eps = draw_normal(full, seeds[1], self.variable_dtype)
        location = tf.reshape(tf.gather(tf.convert_to_tensor(self.location), which), full)
        scale = tf.reshape(tf.gather(tf.exp(self.log_scale), which), full)
        return location + tf.cast(temperature, eps.dtype) * scale * eps

    @property
    def n_uniform(self):
        return 1 + 2 * self._n_dim

    def from_uniform(self, uniform, temperature):
        which = categories(tf.nn.log_softmax(tf.convert_to_tensor(self.logits)), uniform[:, 0])
        eps = self._as_events(normal_from_uniform(uniform[:, 1:]))
        scale = tf.gather(tf.exp(self.log_scale), which)
        return tf.gather(tf.convert_to_tensor(self.location), which) + self._for_each_row(temperature) * scale * eps

    def cdf(self, z):
        self._check_one_number()
        return self._cdf(tf.cast(z, self.variable_dtype))[0]

    def quantile(self, p):
        self._check_one_number()
        p = tf.cast(p, self.variable_dtype)
        # It lies between the quantiles of the components. At 0 and 1 those are infinite, and so is it.
        ends = _normal_quantile(p)[..., tf.newaxis] * tf.exp(self._flat(self.log_scale)) + self._flat(self.location)
        ends = tf.clip_by_value(ends, ends.dtype.min, ends.dtype.max)
        low, high = tf.reduce_min(ends, axis=-1), tf.reduce_max(ends, axis=-1)
        is_inner = (p > 0.0) & (p < 1.0)
        inner = tf.where(is_inner, p, 0.5 * tf.ones_like(p))
        ends = [tf.where(is_inner, end, sign * 1e4 * tf.ones_like(p)) for end, sign in ((low, -1.0), (high, 1.0))]
        return tf.where(is_inner, root_of_increasing(self._cdf, inner, *ends), _normal_quantile(p))

    def _cdf(self, z):
        """The distribution function and its slope."""
        log_scale = self._flat(self.log_scale)
        standardised = (z[..., tf.newaxis] - self._flat(self.location)) * tf.exp(-log_scale)
        weights = tf.nn.softmax(tf.convert_to_tensor(self.logits))
        cdf = tf.reduce_sum(weights * _normal_cdf(standardised), axis=-1)
        return cdf, tf.reduce_sum(weights * tf.exp(normal_log_prob(standardised) - log_scale), axis=-1)

    def _flat(self, weight):
        return tf.reshape(weight, [self.n_components])

    def _check_one_number(self):
        if self._n_dim != 1:
            raise ValueError(
                f"Expected a mixture of events of one number for cdf and quantile; got event shape {self.event_shape}."
            )

    def get_config(self):
        return {**super().get_config(), "n_components": self.n_components}


def _normal_cdf(z):
    # By the complement, whose lower tail keeps its digits.
    return 0.5 * tf.math.erfc(-math.sqrt(0.5) * z)


def _normal_quantile(p):
    """Quantiles of the standard normal, to the last digits of `p`, however small.

    Under XLA `tf.math.ndtri` has 2 p - 1 inside, and no digits left in the lower tail. From the formula 26.2.23 of
    Abramowitz & Stegun (1964), right to 5e-4, by two of Halley's steps, which cube the error.
    """
    tiny = np.finfo(p.dtype.as_numpy_dtype).tiny
    lower = tf.stop_gradient(tf.maximum(tf.minimum(p, 1.0 - p), tiny))
    t = tf.sqrt(-2.0 * tf.math.log(lower))
    ratio = (2.515517 + t * (0.802853 + t * 0.010328)) / (1.0 + t * (1.432788 + t * (0.189269 + t * 0.001308)))
    z = ratio - t
    for _ in range(2):
        step = (_normal_cdf(z) - lower) * tf.exp(-normal_log_prob(z))
        z -= step / (1.0 + 0.5 * z * step)
    z = tf.where(p > 0.5, -z, z)
    # The gradient is one over the density.
    z = tf.stop_gradient(z)
    z += (p - tf.stop_gradient(p)) * tf.exp(-normal_log_prob(z))
    return tf.where(p > 0.0, tf.where(p < 1.0, z, np.inf), -np.inf)
