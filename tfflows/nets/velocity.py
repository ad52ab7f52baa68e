"""The velocity of a continuous flow, with its derivatives: a net, or the slope of a potential."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import keras
import tensorflow as tf

from tfflows.nets.feedforward import FeedForward, hidden_widths, slope_of, spread
from tfflows.numerics import times
from tfflows.serialization import register


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
        slope_of(self.activation)  # must be known
        if self.n_frequencies < 0:
            raise ValueError(f"Expected n_frequencies >= 0; got {n_frequencies}.")

    def _n_outputs(self):
        return self.n_dim

    def _degrees(self, n_inputs, with_context):
        return None

    def build(self, x_shape, time_shape, context_shape=None):
        """Makes the weights, given the shapes that Keras has of the arguments of a call.

        Args:
          x_shape: `(n, D)`.
          time_shape: `(n, 1)` or `(1, 1)`.
          context_shape: `(n, n_context)`, or None if it is to hear no context.
        """
        n_heard = 1 + self.n_frequencies + (0 if context_shape is None else context_shape[-1])
        super().build(x_shape, (x_shape[0], n_heard))

    def call(self, x, time, context=None):
        """Velocities, `[n, D]`.

        Args:
          x: positions `[n, D]`.
          time: `[n, 1]` or `[1, 1]`, in [0, 1].
          context: `[n, n_context]`, if it was built with one.
        """
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
        velocity, push = self.linearize(x, self._heard(time, context))
        return velocity, push(directions)

    def _heard(self, time, context):
        angles = math.pi * tf.cast(tf.range(1, self.n_frequencies + 1), time.dtype)  # a range knows no float16
        heard = tf.concat([2.0 * time - 1.0, tf.cos(angles * time)], axis=-1)
        if context is None:
            return heard
        return tf.concat([tf.broadcast_to(heard, [tf.shape(context)[0], heard.shape[-1]]), context], axis=-1)

    def get_config(self):
        return {**super().get_config(), "n_dim": self.n_dim, "n_frequencies": self.n_frequencies}


@register
class Potential(keras.layers.Layer):
    """A velocity that is the slope of a potential: v = -grad_x Phi(s), s = (x, t, context).

    Phi(s) = w . N(s) + s . A B^T s + b . s, where the net N is u_0 = f(K_0 s + c_0), u_i = u_(i-1) + h f(K_i u_(i-1) +
    c_i) with f(a) = log(2 cosh a) and h one over the number of layers after the first. Slopes and their derivatives
    are in closed form. The paper's quadratic term is A A^T, which has no gradient where it is zero.

    Args:
      n_dim: D.
      hidden: widths of the hidden layers, all equal.
      rank: columns of A and B, >= 1.

    Raises:
      ValueError: for widths that differ, or a rank below 1.

    Reference:
      Onken, Wu Fung, Li & Ruthotto (2021), OT-Flow, https://arxiv.org/abs/2006.00104
    """

    def __init__(self, n_dim: int, hidden: Sequence[int] = (64, 64), *, rank: int = 10, **kwargs):
        super().__init__(**kwargs)
        self.n_dim, self.rank = int(n_dim), int(rank)
        self.hidden = hidden_widths(hidden)
        if len(set(self.hidden)) > 1:
            raise ValueError(f"Expected hidden layers of one width in a potential; got hidden={hidden}.")
        if self.rank < 1:
            raise ValueError(f"Expected rank >= 1; got {rank}.")

    def build(self, x_shape, time_shape, context_shape=None):
        """As `Velocity.build`, with `x_shape`, `time_shape` and `context_shape`."""
        n_inputs = x_shape[-1] + 1 + (0 if context_shape is None else context_shape[-1])
        widths = [n_inputs, *self.hidden]
        self.kernels, self.biases = [], []
        for i, (n_in, n_out) in enumerate(itertools.pairwise(widths)):
            self.kernels.append(self.add_weight(shape=(n_in, n_out), initializer=spread(n_in), name=f"kernel_{i}"))
            self.biases.append(self.add_weight(shape=(n_out,), initializer=spread(n_in), name=f"bias_{i}"))
        self.outputs = self.add_weight(shape=(self.hidden[-1], 1), initializer="zeros", name="outputs")
        self.left = self.add_weight(shape=(n_inputs, self.rank), initializer=spread(n_inputs), name="left")
        self.right = self.add_weight(shape=(n_inputs, self.rank), initializer="zeros", name="right")
        self.linear = self.add_weight(shape=(n_inputs,), initializer="zeros", name="linear")

    def call(self, x, time, context=None):
        """Velocities, `[n, D]`; `x`, `time` and `context` as in a call of `Velocity`."""
        return self.with_derivatives(x, time, context, tf.zeros_like(x)[tf.newaxis])[0]

    def with_derivatives(
        self, x: tf.Tensor, time: tf.Tensor, context: tf.Tensor | None, directions: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """As `Velocity.with_derivatives`, of the same `x`, `time`, `context` and `directions`."""
        directions = tf.pad(directions, [[0, 0], [0, 0], [0, self.linear.shape[0] - self.n_dim]])
        slopes, changes = self._slopes(self._inputs(x, time, context), directions)
        return -slopes[..., : self.n_dim], -changes[..., : self.n_dim]

    def hamilton_jacobi(self, x: tf.Tensor, time: tf.Tensor, context: tf.Tensor | None) -> tf.Tensor:
        """dPhi/dt - |grad_x Phi|^2 / 2 `[n]`, zero along ways of least energy; `x`, `time`, `context` as in a call."""
        inputs = self._inputs(x, time, context)
        slopes, _ = self._slopes(inputs, tf.zeros_like(inputs)[tf.newaxis])
        return slopes[:, self.n_dim] - 0.5 * tf.reduce_sum(tf.square(slopes[:, : self.n_dim]), axis=-1)

    def _inputs(self, x, time, context):
        time = tf.broadcast_to(time, [tf.shape(x)[0], 1])
        return tf.concat([x, time] if context is None else [x, time, context], axis=-1)

    def _slopes(self, inputs, directions):
        """The gradient of Phi `[n, d]` at `inputs` `[n, d]`, and how it changes along `directions`, `[K, n, d]`."""
        kernels = [tf.convert_to_tensor(kernel) for kernel in self.kernels]
        step = 1.0 / max(len(kernels) - 1, 1)
        # Up through the net: slopes of the activations, and changes of their arguments.
        value, change, slopes, arguments = inputs, directions, [], []
        for i, (kernel, bias) in enumerate(zip(kernels, self.biases, strict=True)):
            argument = tf.matmul(value, kernel) + bias
            arguments.append(times(change, kernel))
            slopes.append(tf.tanh(argument))
            # log(2 cosh a), which grows like |a|: no exponential overflows.
            activated = tf.abs(argument) + tf.math.log1p(tf.exp(-2.0 * tf.abs(argument)))
            activated_change = slopes[-1] * arguments[-1]
            value = activated if i == 0 else value + step * activated
            change = activated_change if i == 0 else change + step * activated_change
        # And down again.
        weight = tf.transpose(self.outputs)
        weight_change = tf.zeros_like(change)
        for i, kernel in reversed(list(enumerate(kernels))):
            curved = (1.0 - tf.square(slopes[i])) * weight * arguments[i] + slopes[i] * weight_change
            down = tf.matmul(slopes[i] * weight, kernel, transpose_b=True)
            down_change = times(curved, tf.transpose(kernel))
            weight = down if i == 0 else weight + step * down
            weight_change = down_change if i == 0 else weight_change + step * down_change
        matrix = tf.matmul(self.left, self.right, transpose_b=True)
        matrix = matrix + tf.transpose(matrix)
        return weight + tf.matmul(inputs, matrix) + self.linear, weight_change + times(directions, matrix)

    def get_config(self):
        return {**super().get_config(), "n_dim": self.n_dim, "hidden": self.hidden, "rank": self.rank}
