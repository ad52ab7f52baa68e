"""Base distributions: where the latents come from.

A base is a Keras layer, so what it learns is trained and saved with the flow. Its `temperature` multiplies
the spread around the centre: below 1 samples come from nearer the middle.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfflows.numerics import sum_event
from tfflows.randomness import RANDOM, categories, draw_categories
from tfflows.serialization import deserialize, register, serialize


class Base(keras.layers.Layer):
    """A distribution of events of one shape.

    Args:
      event_shape: shape of an event; an int is one axis.
    """

    def __init__(self, event_shape: int | Sequence[int], **kwargs):
        super().__init__(**kwargs)
        shape = (event_shape,) if isinstance(event_shape, int) else event_shape
        self.event_shape = tuple(int(n) for n in shape)
        self.built = True

    # Whether gradients flow through its draws to all that it learns.
    is_reparameterized = True

    def log_prob(self, z: tf.Tensor, temperature: tf.Tensor | float = 1.0) -> tf.Tensor:
        """Log-density in nats of `z` `[..., *event_shape]`, of shape `[...]`."""
        raise NotImplementedError  # abstract

    def sample(
        self, shape: Sequence[int] | tf.Tensor, seed: tf.Tensor, temperature: tf.Tensor | float = 1.0
    ) -> tf.Tensor:
        """Draws `[*shape, *event_shape]`; the same seed (two integers) gives the same draws."""
        raise NotImplementedError  # abstract

    # Of bases of independent scalars; others have no such functions.

    def log_probs(self, z: tf.Tensor) -> tf.Tensor:
        """Log-density of each scalar, `[..., *event_shape]`; `log_prob` is their sum."""
        raise ValueError(f"Expected a base that knows the densities of single scalars; got {type(self).__name__}.")

    def cdf(self, z: tf.Tensor) -> tf.Tensor:
        """Cumulative distribution function of each scalar, `[..., *event_shape]`."""
        raise ValueError(f"Expected a base of independent scalars; got {type(self).__name__}.")

    def quantile(self, p: tf.Tensor) -> tf.Tensor:
        """The inverse of `cdf`, for `p` in [0, 1] of each scalar, `[..., *event_shape]`."""
        raise ValueError(f"Expected a base of independent scalars; got {type(self).__name__}.")

    @property
    def n_uniform(self) -> int:
        """How many uniform numbers `from_uniform` makes a draw from."""
        raise NotImplementedError  # abstract

    def from_uniform(self, uniform: tf.Tensor, temperature: tf.Tensor) -> tf.Tensor:
        """Draws `[n, *event_shape]` as a function of numbers uniform in (0, 1), `[n, n_uniform]`.

        The way of exported flows, which have a seed and a temperature `[n]` for each row.
        """
        raise NotImplementedError  # abstract

    def call(self, z):
        return self.log_prob(z)

    def get_config(self):
        return {**super().get_config(), "event_shape": self.event_shape}

    @property
    def _n_dim(self):
        return math.prod(self.event_shape)

    def _as_events(self, x):
        return tf.reshape(x, [-1, *self.event_shape])

    def _for_each_row(self, temperature):
        return tf.reshape(temperature, [-1] + [1] * len(self.event_shape))

    def _sum(self, x):
        return sum_event(x, len(self.event_shape))

    def _full_shape(self, shape):
        return tf.concat([_vector(shape), tf.constant(self.event_shape, tf.int32)], axis=0)


def _vector(shape):
    return tf.reshape(tf.cast(shape, tf.int32), [-1])


def _split(seed):
    return tf.random.split(seed, 2, alg=RANDOM)


def _normal(shape, seed, dtype):
    return tf.random.stateless_normal(shape, seed, dtype=dtype, alg=RANDOM)


def _uniform(shape, seed, dtype, low=0.0, high=1.0):
    return tf.random.stateless_uniform(shape, seed, minval=low, maxval=high, dtype=dtype, alg=RANDOM)


def _normal_from_uniform(uniform):
    """Standard-normal numbers `[n, k]` from uniform ones `[n, 2 k]`: Box & Muller (1958)."""
    u, v = tf.split(uniform, 2, axis=-1)
    return tf.sqrt(-2.0 * tf.math.log(u)) * tf.cos(2.0 * math.pi * v)


def _normal_log_prob(standardised):
    return -0.5 * tf.square(standardised) - 0.5 * math.log(2.0 * math.pi)


@register
class StandardNormal(Base):
    """Independent normals of mean 0 and variance 1."""

    def log_prob(self, z, temperature=1.0):
        temperature = tf.cast(temperature, z.dtype)
        return self._sum(_normal_log_prob(z / temperature) - tf.math.log(temperature))

    def log_probs(self, z):
        return _normal_log_prob(tf.convert_to_tensor(z))

    def cdf(self, z):
        return 0.5 * tf.math.erfc(-tf.convert_to_tensor(z) / math.sqrt(2.0))

    def quantile(self, p):
        return tf.math.ndtri(tf.convert_to_tensor(p))

    def sample(self, shape, seed, temperature=1.0):
        eps = _normal(self._full_shape(shape), seed, self.variable_dtype)
        return eps * tf.cast(temperature, eps.dtype)

    @property
    def n_uniform(self):
        return 2 * self._n_dim

    def from_uniform(self, uniform, temperature):
        return self._for_each_row(temperature) * self._as_events(_normal_from_uniform(uniform))


@register
class DiagonalNormal(Base):
    """Independent normals with learned means and variances."""

    def __init__(self, event_shape: int | Sequence[int], **kwargs):
        super().__init__(event_shape, **kwargs)
        self.location = self.add_weight(shape=self.event_shape, initializer="zeros", name="location")
        self.log_scale = self.add_weight(shape=self.event_shape, initializer="zeros", name="log_scale")

    def log_prob(self, z, temperature=1.0):
        log_scale = self.log_scale + tf.math.log(tf.cast(temperature, z.dtype))
        return self._sum(_normal_log_prob((z - self.location) * tf.exp(-log_scale)) - log_scale)

    def sample(self, shape, seed, temperature=1.0):
        eps = _normal(self._full_shape(shape), seed, self.variable_dtype)
        return self.location + tf.cast(temperature, eps.dtype) * tf.exp(self.log_scale) * eps

    @property
    def n_uniform(self):
        return 2 * self._n_dim

    def from_uniform(self, uniform, temperature):
        eps = self._as_events(_normal_from_uniform(uniform))
        return self.location + self._for_each_row(temperature) * tf.exp(self.log_scale) * eps


@register
class StudentT(Base):
    """Independent Student-t variables, for data with heavy tails.

    Args:
      event_shape: shape of an event; an int is one axis.
      df: degrees of freedom, > 0; small is heavy.

    Reference:
      sampling: Bailey (1994), Polar generation of random variates with the t-distribution,
      https://doi.org/10.1090/S0025-5718-1994-1219702-8
    """

    def __init__(self, event_shape: int | Sequence[int], df: float = 5.0, **kwargs):
        super().__init__(event_shape, **kwargs)
        if not df > 0.0:
            raise ValueError(f"Expected df > 0; got {df}.")
        self.df = float(df)

    def log_prob(self, z, temperature=1.0):
        temperature = tf.cast(temperature, z.dtype)
        normaliser = math.lgamma(0.5 * (self.df + 1.0)) - math.lgamma(0.5 * self.df) - 0.5 * math.log(self.df * math.pi)
        # |z| = 1e4 squares to 1e8; float32 holds it, and log1p keeps the small ones.
        tail = -0.5 * (self.df + 1.0) * tf.math.log1p(tf.square(z / temperature) / self.df)
        return self._sum(normaliser + tail - tf.math.log(temperature))

    def sample(self, shape, seed, temperature=1.0):
        seeds = _split(seed)
        shape, dtype = self._full_shape(shape), self.variable_dtype
        # u > 0: the smallest normal number keeps log(u) finite.
        u = _uniform(shape, seeds[0], dtype, low=np.finfo(dtype).tiny)
        v = _uniform(shape, seeds[1], dtype)
        return tf.cast(temperature, dtype) * self._polar(u, v)

    @property
    def n_uniform(self):
        return 2 * self._n_dim

    def from_uniform(self, uniform, temperature):
        u, v = (self._as_events(part) for part in tf.split(uniform, 2, axis=-1))
        return self._for_each_row(temperature) * self._polar(u, v)

    def _polar(self, u, v):
        radius = tf.sqrt(self.df * tf.math.expm1(-2.0 / self.df * tf.math.log(u)))
        return radius * tf.cos(2.0 * math.pi * v)

    def get_config(self):
        return {**super().get_config(), "df": self.df}


@register
class MixtureOfNormals(Base):
    """A mixture of diagonal normals with learned weights, means and variances.

    Args:
      event_shape: shape of an event; an int is one axis.
      n_components: K. The means start spread out, as draws from a standard normal.
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
        each = self._sum(_normal_log_prob((z - self.location) * tf.exp(-log_scale)) - log_scale)
        return tf.reduce_logsumexp(each + tf.nn.log_softmax(tf.convert_to_tensor(self.logits)), axis=-1)

    def sample(self, shape, seed, temperature=1.0):
        seeds = _split(seed)
        n = tf.reduce_prod(_vector(shape))
        which = draw_categories(tf.nn.log_softmax(tf.convert_to_tensor(self.logits)), [n], seeds[0])
        full = self._full_shape(shape)
        eps = _normal(full, seeds[1], self.variable_dtype)
        location = tf.reshape(tf.gather(tf.convert_to_tensor(self.location), which), full)
        scale = tf.reshape(tf.gather(tf.exp(self.log_scale), which), full)
        return location + tf.cast(temperature, eps.dtype) * scale * eps

    @property
    def n_uniform(self):
        return 1 + 2 * self._n_dim

    def from_uniform(self, uniform, temperature):
        which = categories(tf.nn.log_softmax(tf.convert_to_tensor(self.logits)), uniform[:, 0])
        eps = self._as_events(_normal_from_uniform(uniform[:, 1:]))
        scale = tf.gather(tf.exp(self.log_scale), which)
        return tf.gather(tf.convert_to_tensor(self.location), which) + self._for_each_row(temperature) * scale * eps

    def get_config(self):
        return {**super().get_config(), "n_components": self.n_components}


@register
class UniformBox(Base):
    """Uniform on a box, and -inf outside: for data on an interval or a torus.

    Args:
      event_shape: shape of an event; an int is one axis.
      low, high: the box's bounds, the same for each scalar.
    """

    def __init__(self, event_shape: int | Sequence[int], low: float = 0.0, high: float = 1.0, **kwargs):
        super().__init__(event_shape, **kwargs)
        if not low < high:
            raise ValueError(f"Expected low < high; got low={low}, high={high}.")
        self.low, self.high = float(low), float(high)

    def log_prob(self, z, temperature=1.0):
        z = tf.convert_to_tensor(z)
        temperature = tf.cast(temperature, z.dtype)
        middle, half = 0.5 * (self.low + self.high), 0.5 * (self.high - self.low)
        # An edge may be missed by the rounding of a wrap.
        inside = tf.abs(z - middle) <= temperature * half * (1.0 + 4.0 * np.finfo(z.dtype.as_numpy_dtype).eps)
        density = -tf.math.log(2.0 * half * temperature) * tf.ones_like(z)
        return self._sum(tf.where(inside, density, -np.inf * tf.ones_like(z)))

    def sample(self, shape, seed, temperature=1.0):
        u = _uniform(self._full_shape(shape), seed, self.variable_dtype, self.low, self.high)
        middle = 0.5 * (self.low + self.high)
        return middle + tf.cast(temperature, u.dtype) * (u - middle)

    @property
    def n_uniform(self):
        return self._n_dim

    def from_uniform(self, uniform, temperature):
        middle, width = 0.5 * (self.low + self.high), self.high - self.low
        return middle + self._for_each_row(temperature) * (self._as_events(uniform) - 0.5) * width

    def get_config(self):
        return {**super().get_config(), "low": self.low, "high": self.high}


@register
class FromTFP(Base):
    """A stock TFP distribution without variables as base, such as `tfd.MultivariateNormalTriL(...)`.

    Args:
      distribution: with an empty batch shape. It knows no temperature but 1.
    """

    def __init__(self, distribution: tfp.distributions.Distribution, **kwargs):
        if distribution.trainable_variables:
            raise ValueError(
                f"Expected a TFP distribution without variables, which Keras cannot train or save; got "
                f"{distribution}. `bases` has learned ones."
            )
        if distribution.batch_shape.rank != 0:
            raise ValueError(f"Expected an empty batch shape; got {distribution.batch_shape}.")
        super().__init__(distribution.event_shape.as_list(), **kwargs)
        self.distribution = distribution
        self.is_reparameterized = distribution.reparameterization_type == tfp.distributions.FULLY_REPARAMETERIZED

    def log_prob(self, z, temperature=1.0):
        check_temperature(temperature)
        return self.distribution.log_prob(tf.identity(z))

    def sample(self, shape, seed, temperature=1.0):
        check_temperature(temperature)
        return self.distribution.sample(shape, seed=seed)

    def get_config(self):
        config = super().get_config()
        del config["event_shape"]
        return {**config, "distribution": serialize(self.distribution)}

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        return cls(deserialize(config.pop("distribution")), **config)


def check_temperature(temperature) -> None:
    """Raises unless `temperature` is known to be 1."""
    static = tf.get_static_value(temperature)
    if static is None or static != 1.0:
        raise ValueError(f"Expected temperature 1 with a stock TFP distribution as base; got {temperature}.")
