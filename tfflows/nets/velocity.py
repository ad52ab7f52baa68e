"""The velocity of a continuous flow: a net of position, time and context, with its derivatives."""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras
import tensorflow as tf

from tfflows.nets.feedforward import FeedForward
from tfflows.serialization import register

# Derivatives of the activations a velocity may have, given the argument u and the value. In closed form, because
# they stand where gradients are taken through them and computed again.
SLOPES = {
    keras.activations.tanh: lambda u, value: 1.0 - tf.square(value),
    keras.activations.softplus: lambda u, value: tf.sigmoid(u),
    keras.activations.silu: lambda u, value: value + tf.sigmoid(u) * (1.0 - value),
}


@register
class Velocity(FeedForward):
    """A fully connected net of x `[n, D]`, a time in [0, 1] and a context, to velocities `[n, D]`.

    It hears the time t as 2 t - 1 and cos(pi k t), k = 1 .. n_frequencies.

    Args:
      n_dim: D.
      hidden, residual: as in `MLP`.
      activation: "silu", "softplus" or "tanh" of Keras: smooth, so that trajectories are.
      n_frequencies: cosines of the time, >= 0.

    Raises:
      ValueError: for another activation, or a negative n_frequencies.
    """

    def __init__(
        self,
        n_dim: int,
        hidden: Sequence[int] = (64, 64),
        activation="silu",
        *,
        residual: bool = False,
        n_frequencies: int = 2,
        **kwargs,
    ):
        super().__init__(hidden, activation, residual, **kwargs)
        self.n_dim = int(n_dim)
        self.n_frequencies = int(n_frequencies)
        if self.activation not in SLOPES:
            known = ", ".join(known.__name__ for known in SLOPES)
            raise ValueError(f"Expected one of {known} as activation; got {activation!r}.")
        if self.n_frequencies < 0:
            raise ValueError(f"Expected n_frequencies >= 0; got {n_frequencies}.")

    def _n_outputs(self):
        return self.n_dim

    def _degrees(self, n_inputs, with_context):
        return None

    def build(self, x_shape, time_shape, context_shape=None):
        n_heard = 1 + self.n_frequencies + (0 if context_shape is None else context_shape[-1])
        super().build(x_shape, (x_shape[0], n_heard))

    def call(self, x, time, context=None):
        """Velocities `[n, D]` at positions `[n, D]` and times `[n, 1]` or `[1, 1]`."""
        return super().call(x, self._heard(time, context))

    def with_derivatives(
        self, x: tf.Tensor, time: tf.Tensor, context: tf.Tensor | None, directions: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The velocities v and their derivatives along `directions`, in one pass of the net.

        Args:
          x, time, context: as in a call.
          directions: K of them for each row, or the same for all: `[K, n or 1, D]`.

        Returns:
          v `[n, D]`, and sum_j (dv_i / dx_j) direction_j of shape `[K, n, D]`.
        """
        heard = self._heard(time, context)
        values, changes = [], []
        for layer in self.linears:
            source, change = x, directions
            if values:
                source = self.activation(values[-1])
                change = changes[-1] * SLOPES[self.activation](values[-1], source)
            kernel = layer.masked_kernel()
            value, change = tf.matmul(source, kernel) + layer.shift(heard), _times(change, kernel)
            values.append(value + values[-2] if layer.skip else value)
            changes.append(change + changes[-2] if layer.skip else change)
        return values[-1], changes[-1]

    def _heard(self, time, context):
        angles = math.pi * tf.range(1, self.n_frequencies + 1, dtype=time.dtype)
        heard = tf.concat([2.0 * time - 1.0, tf.cos(angles * time)], axis=-1)
        if context is None:
            return heard
        return tf.concat([tf.broadcast_to(heard, [tf.shape(context)[0], heard.shape[-1]]), context], axis=-1)

    def get_config(self):
        return {**super().get_config(), "n_dim": self.n_dim, "n_frequencies": self.n_frequencies}


def _times(rows, kernel):
    """Matrix product of `[K, n, in]` with `[in, out]`, as one product of two matrices."""
    product = tf.matmul(tf.reshape(rows, [-1, kernel.shape[0]]), kernel)
    return tf.reshape(product, tf.concat([tf.shape(rows)[:-1], [kernel.shape[1]]], axis=0))
