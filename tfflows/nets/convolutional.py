"""Convolutional conditioners for images, with context."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence

import keras
import tensorflow as tf

from tfflows.nets.feedforward import hidden_widths, spread
from tfflows.numerics import times
from tfflows.serialization import register

_uncompiled = False


@contextlib.contextmanager
def uncompiled():
    """Within it, graphs are traced for where no XLA will compile them: each convolution is one operation."""
    global _uncompiled
    before, _uncompiled = _uncompiled, True
    try:
        yield
    finally:
        _uncompiled = before


@dataclasses.dataclass
class Convolution:
    """A layer of a `ConvNet`.

    Args:
      kernel: weight `[3, 3, in, out]`, or `[in, out]` of a 1x1 convolution.
      bias: weight `[out]`.
      context_kernel: weight `[n_context, out]`, if it hears the context.
    """

    kernel: keras.Variable
    bias: keras.Variable
    context_kernel: keras.Variable | None

    def __call__(self, x, context=None):
        kernel = tf.convert_to_tensor(self.kernel)
        value = (times if kernel.shape.rank == 2 else convolve)(x, kernel) + self.bias
        if self.context_kernel is None:
            return value
        return value + times(context, tf.convert_to_tensor(self.context_kernel))[:, tf.newaxis, tf.newaxis, :]


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

    Raises:
      ValueError: for no hidden layer, widths that are not positive, or different ones of a residual net.

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

    @property
    def prefers_graph(self) -> bool:
        """Whether on a CPU TensorFlow's own kernels are faster than XLA: for convolutions of many channels."""
        return self.residual

    def build(self, x_shape, context_shape=None):
        """Makes the weights, given the shapes that Keras has of the arguments of a call.

        Args:
          x_shape: `(n, H, W, n_inputs)`.
          context_shape: `(n, n_context)`, or None if it is to hear no context.
        """
        n_inputs, widths = x_shape[-1], self.hidden
        first = self._layer("first", 3, n_inputs, widths[0], context_shape)
        inner = []
        for i in range(1, len(widths)):
            if self.residual:
                inner.append(self._layer(f"hidden_{i}", 3, widths[0], widths[0], context_shape))
                inner.append(self._layer(f"residual_{i}", 3, widths[0], widths[0]))
            else:
                inner.append(self._layer(f"hidden_{i}", 1, widths[i - 1], widths[i]))
        outputs = self._layer("outputs", 3, widths[-1], self.n_outputs, zero=True)
        self.convolutions = [first, *inner, outputs]

    def _layer(self, name, side, n_in, n_out, context_shape=None, *, zero=False):
        # Two initializers: one would draw the bias equal to the kernel's first row.
        kernel, bias = ("zeros", "zeros") if zero else (spread(side * side * n_in), spread(side * side * n_in))
        shape = (n_in, n_out) if side == 1 else (side, side, n_in, n_out)
        context = None
        if context_shape is not None:
            n_context = context_shape[-1]
            initializer = spread(n_context)
            context = self.add_weight(shape=(n_context, n_out), initializer=initializer, name=f"{name}_context")
        return Convolution(
            self.add_weight(shape=shape, initializer=kernel, name=f"{name}_kernel"),
            self.add_weight(shape=(n_out,), initializer=bias, name=f"{name}_bias"),
            context,
        )

    def call(self, x, context=None):
        """The outputs, `[n, H, W, n_outputs]`.

        Args:
          x: `[n, H, W, n_inputs]`.
          context: `[n, n_context]`, if it was built with one.
        """
        first, *inner, outputs = self.convolutions
        value = first(x, context)
        if self.residual:
            for layer, second in zip(inner[::2], inner[1::2], strict=True):
                value += second(self.activation(layer(self.activation(value), context)))
        else:
            for layer in inner:
                value = layer(self.activation(value))
        return outputs(self.activation(value))

    def get_config(self):
        activation = keras.activations.serialize(self.activation)
        config = {"n_outputs": self.n_outputs, "hidden": self.hidden, "activation": activation}
        return {**super().get_config(), **config, "residual": self.residual}


def convolve(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """`x` `[n, H, W, C]` convolved with `kernel` `[3, 3, C, M]`, zeros beyond the border: `[n, H, W, M]`.

    Where one of them has far fewer channels than the other, as one product of matrices, with nine shifted copies of
    that one: XLA compiles it well on a CPU, unlike its own convolutions, and kernels made for many channels waste their
    time on a few. A training step of Glow's net is so up to 1.5 times as fast as with convolutions outside XLA.
    """
    n_in, n_out = kernel.shape[2:]
    if _uncompiled or 3 * min(n_in, n_out) > max(n_in, n_out):
        return tf.nn.conv2d(x, kernel, 1, "SAME")
    if n_in <= n_out:
        return times(_neighbours(x), tf.reshape(kernel, [9 * n_in, n_out]))
    each = tf.reshape(tf.transpose(kernel, [2, 0, 1, 3]), [n_in, 9 * n_out])
    return _sum_of_neighbours(times(x, each))


def _moved(x, down, right):
    """The pixel that is `down` and `right` (-1, 0 or 1) of each, or zero beyond the border."""
    height, width = x.shape[1:3]
    if (down and height == 1) or (right and width == 1):
        return tf.zeros_like(x)  # nothing is left of it, and TFLite pads no empty tensor
    kept = x[:, max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)]
    # Cut, then padded: under XLA on a CPU a third faster than the other way round.
    return tf.pad(kept, [[0, 0], [max(-down, 0), max(down, 0)], [max(-right, 0), max(right, 0)], [0, 0]])


# From the upper left pixel to the lower right one, row by row.
_DIRECTIONS = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]


def _neighbours(x, flip=False):
    """Each pixel's 3 x 3 pixels, row by row (with `flip` the last first), as channels: `[..., C]` to `[..., 9 C]`."""

    @tf.custom_gradient
    def spread(x):
        directions = reversed(_DIRECTIONS) if flip else _DIRECTIONS
        return tf.concat([_moved(x, *d) for d in directions], -1), lambda g: _sum_of_neighbours(g, not flip)

    return spread(x)


def _sum_of_neighbours(x, flip=False):
    """The sum of what each of a pixel's 3 x 3 has for it, `[..., 9 C]` to `[..., C]`: `_neighbours` transposed."""

    @tf.custom_gradient
    def total(x):
        parts = tf.split(x, 9, axis=-1)
        directions = reversed(_DIRECTIONS) if flip else _DIRECTIONS
        moved = [_moved(part, *d) for part, d in zip(parts, directions, strict=True)]
        return tf.add_n(moved), lambda g: _neighbours(g, not flip)

    return total(x)
