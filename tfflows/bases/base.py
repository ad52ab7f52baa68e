"""What every base distribution has.

A base is a Keras layer, so what it learns is trained and saved with the flow. Its `temperature` multiplies
the spread around the centre: below 1 samples come from nearer the middle.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras
import tensorflow as tf

from tfflows.numerics import sum_event
from tfflows.randomness import RANDOM, box_muller, normal, uniform


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
        """Log-density in nats of `z`, `[...]`.

        Args:
          z: `[..., *event_shape]`.
          temperature: > 0, a number or one that broadcasts with z: it multiplies the spread around the centre.
        """
        return self._sum(self.log_probs(z, temperature))

    def log_probs(self, z: tf.Tensor, temperature: tf.Tensor | float = 1.0) -> tf.Tensor:
        """Log-density of each scalar, `[..., *event_shape]`, which `log_prob` is the sum of.

        Args:
          z, temperature: as in `log_prob`.

        Raises:
          ValueError: for a base whose scalars depend on each other.
        """
        raise ValueError(f"Expected a base of independent scalars; got {type(self).__name__}.")

    def sample(
        self, shape: Sequence[int] | tf.Tensor, seed: tf.Tensor, temperature: tf.Tensor | float = 1.0
    ) -> tf.Tensor:
        """Draws `[*shape, *event_shape]`; the same seed gives the same draws.

        Args:
          shape: of the batch; a number is one axis.
          seed: two integers.
          temperature: >= 0, as in `log_prob`.
        """
        raise NotImplementedError  # abstract

    @property
    def n_uniform(self) -> int:
        """How many uniform numbers `from_uniform` makes a draw from."""
        raise NotImplementedError  # abstract

    def from_uniform(self, uniform: tf.Tensor, temperature: tf.Tensor) -> tf.Tensor:
        """Draws `[n, *event_shape]` as a function of uniform numbers.

        The way of exported flows, which have a seed and a temperature for each row.

        Args:
          uniform: `[n, n_uniform]`, in (0, 1).
          temperature: `[n]`, > 0.
        """
        raise NotImplementedError  # abstract

    def cdf(self, z: tf.Tensor) -> tf.Tensor:
        """The probability in [0, 1] that a scalar of a draw is at most that of `z`, scalar by scalar.

        Args:
          z: `[..., *event_shape]`.

        Returns:
          `[..., *event_shape]`, in the base's dtype.

        Raises:
          ValueError: for a base whose scalars depend on each other, or that has no formula for it.
        """
        raise ValueError(self._without_cdf())

    def quantile(self, p: tf.Tensor) -> tf.Tensor:
        """The inverse of `cdf`.

        Args:
          p: `[..., *event_shape]` in [0, 1].

        Returns:
          `[..., *event_shape]`, in the base's dtype.

        Raises:
          ValueError: as of `cdf`.
        """
        raise ValueError(self._without_cdf())

    def _without_cdf(self):
        return f"Expected a base of independent scalars for cdf and quantile; got {type(self).__name__}."

    def call(self, z):
        """`log_prob(z)`, for Keras."""
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
        return tf.concat([as_vector(shape), tf.constant(self.event_shape, tf.int32)], axis=0)


def as_vector(shape):
    return tf.reshape(tf.cast(shape, tf.int32), [-1])


def split_seed(seed):
    return tf.random.split(seed, 2, alg=RANDOM)


def draw_normal(shape, seed, dtype):
    return normal(shape, seed, dtype)


def draw_uniform(shape, seed, dtype, low=0.0, high=1.0):
    return low + (high - low) * uniform(shape, seed, dtype)


def normal_from_uniform(uniform):
    """Standard-normal numbers `[n, k]` from uniform ones `[n, 2 k]`."""
    return box_muller(*tf.split(uniform, 2, axis=-1))


def normal_log_prob(standardised):
    return -0.5 * tf.square(standardised) - 0.5 * math.log(2.0 * math.pi)
