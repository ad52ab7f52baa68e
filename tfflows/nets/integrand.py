"""The net inside an unconstrained monotonic net."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from tfflows.nets.feedforward import hidden_widths, spread
from tfflows.nets.parameters import FullPrecision
from tfflows.numerics import times
from tfflows.serialization import register


@register
class Integrand(FullPrecision):
    """A function of one number t for each signal; zero for all t if the signal is zero.

    The last hidden layer is mapped to as many numbers as the signal has, and the two are multiplied. So it starts,
    below a conditioner whose outputs start at zero, as zero, and every weight still gets a gradient.

    Args:
      n_signal: width of the signal.
      hidden: widths of the hidden layers.
      activation: a Keras activation. A smooth one: kinks cost the quadrature its accuracy.

    Raises:
      ValueError: for no hidden layer, or widths that are not positive.
    """

    def __init__(self, n_signal: int, hidden: Sequence[int] = (32, 32), activation="tanh", **kwargs):
        super().__init__(**kwargs)
        self.n_signal = int(n_signal)
        self.hidden = hidden_widths(hidden)
        self.activation = keras.activations.get(activation)
        widths = [1 + self.n_signal, *self.hidden]
        self.kernels, self.biases = [], []
        for i, (n_in, n_out) in enumerate(zip(widths, [*self.hidden, self.n_signal], strict=True)):
            self.kernels.append(self.add_weight(shape=(n_in, n_out), initializer=spread(n_in), name=f"kernel_{i}"))
            self.biases.append(self.add_weight(shape=(n_out,), initializer=spread(n_in), name=f"bias_{i}"))
        self.built = True

    def call(self, t, signal):
        """The function at some `t` `[..., n, D]`, given `signal` `[..., n_signal, D]`: values `[..., n, D]`."""
        signal = tf.linalg.matrix_transpose(signal)[..., tf.newaxis, :, :]  # [..., 1, D, n_signal]
        first, *kernels = (tf.convert_to_tensor(kernel) for kernel in self.kernels)
        # What the signal adds is the same at every t.
        value = t[..., tf.newaxis] * first[0] + (times(signal, first[1:]) + self.biases[0])
        for kernel, bias in zip(kernels, self.biases[1:], strict=True):
            value = times(self.activation(value), kernel) + bias
        return tf.reduce_sum(value * signal, axis=-1)

    def get_config(self):
        activation = keras.activations.serialize(self.activation)
        return {**super().get_config(), "n_signal": self.n_signal, "hidden": self.hidden, "activation": activation}
