"""Convolutional conditioners for images, with context."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from tfflows.nets.feedforward import hidden_widths, spread
from tfflows.serialization import register


@register
class ConvNet(keras.layers.Layer):
    """A convolutional net, `[n, H, W, n_inputs]` and context `[n, n_context]` to `[n, H, W, n_outputs]`.

    Plain, as in Glow: a 3x3 convolution to the first width, 1x1 convolutions to the others, a 3x3 one to the outputs.
    Residual, as in Real NVP: a 3x3 convolution, then for each further width a pre-activation block of two of them,
    h + W'' * act(W' * act(h) + C context). The context is added to the first layer of all pixels alike, and to the
    first of each block. The output layer starts at zero. Beyond its border an image is zero.

    Args:
      n_outputs: numbers returned for each pixel.
      hidden: widths of the hidden layers; an int stands for two layers of that width.
      activation: a Keras activation.
      residual: residual blocks; all widths must be equal.

    References:
      Kingma & Dhariwal (2018), Glow, https://arxiv.org/abs/1807.03039; Dinh, Sohl-Dickstein & Bengio (2017), Density
      estimation using Real NVP, https://arxiv.org/abs/1605.08803
    """

    def __init__(
        self,
        n_outputs: int,
        hidden: int | Sequence[int] = 64,
        activation="relu",
        *,
        residual: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.n_outputs = int(n_outputs)
        self.hidden = hidden_widths((hidden, hidden) if isinstance(hidden, int) else hidden)
        self.activation = keras.activations.get(activation)
        self.residual = bool(residual)
        if self.residual and len(set(self.hidden)) > 1:
            raise ValueError(f"Expected hidden layers of one width in a residual net; got hidden={self.hidden}.")

    def build(self, x_shape, context_shape=None):
        widths = [x_shape[-1], *self.hidden]
        # Layers come one after another; `hearing` are the places of those that hear the context.
        if self.residual:
            self.convolutions = [self._convolution("first", widths[0], widths[1], 3)]
            for i, width in enumerate(self.hidden[1:], start=1):
                self.convolutions.append(self._convolution(f"block_{i}_first", width, width, 3))
                self.convolutions.append(self._convolution(f"block_{i}_second", width, width, 3))
            hearing = [0, *range(1, len(self.convolutions), 2)]
        else:
            self.convolutions = [
                self._convolution(f"hidden_{i}", widths[i], widths[i + 1], 1 if i else 3)
                for i in range(len(widths) - 1)
            ]
            hearing = [0]
        self.outputs = keras.layers.Conv2D(
            self.n_outputs, 3, padding="same", kernel_initializer="zeros", name="outputs", dtype=self.dtype_policy
        )
        self.outputs.build((None, None, None, widths[-1]))
        self.contexts = {}
        if context_shape is not None:
            n_context = context_shape[-1]
            for i in hearing:
                dense = keras.layers.Dense(
                    self.convolutions[i].filters,
                    use_bias=False,
                    kernel_initializer=spread(n_context),
                    name=f"context_{i}",
                    dtype=self.dtype_policy,
                )
                dense.build((None, n_context))
                self.contexts[str(i)] = dense

    def _convolution(self, name, n_in, n_out, side):
        n_heard = side * side * n_in
        layer = keras.layers.Conv2D(
            n_out,
            side,
            padding="same",
            kernel_initializer=spread(n_heard),
            bias_initializer=spread(n_heard),
            name=name,
            dtype=self.dtype_policy,
        )
        layer.build((None, None, None, n_in))
        return layer

    def call(self, x, context=None):
        value = self._layer(0, x, context)
        if self.residual:
            for i in range(1, len(self.convolutions), 2):
                inner = self._layer(i, self.activation(value), context)
                value = value + self._layer(i + 1, self.activation(inner), context)
        else:
            for i in range(1, len(self.convolutions)):
                value = self._layer(i, self.activation(value), context)
        return self.outputs(self.activation(value))

    def _layer(self, i, x, context):
        value = self.convolutions[i](x)
        hearing = self.contexts.get(str(i))
        return value if hearing is None else value + hearing(context)[:, tf.newaxis, tf.newaxis, :]

    def get_config(self):
        activation = keras.activations.serialize(self.activation)
        config = {"n_outputs": self.n_outputs, "hidden": self.hidden, "activation": activation}
        return {**super().get_config(), **config, "residual": self.residual}
