"""Feed-forward nets with context."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from tfflows.numerics import permute, times
from tfflows.serialization import register


def hidden_widths(hidden: Sequence[int]) -> tuple[int, ...]:
    """The widths of hidden layers, at least one.

    Raises:
      ValueError: if they are not positive integers.
    """
    widths = tuple(hidden) if np.iterable(hidden) else ()
    if not widths or not all(isinstance(n, (int, np.integer)) and n >= 1 for n in widths):
        raise ValueError(f"Expected at least one hidden layer, of positive widths; got hidden={hidden!r}.")
    return tuple(int(n) for n in widths)


def _silu_slope(u):
    gate = tf.sigmoid(u)
    return gate * (1.0 + u * (1.0 - gate))


def lipswish(x: tf.Tensor) -> tf.Tensor:
    """x sigmoid(x) / 1.1, whose slope is at most 1: Chen et al. (2019), https://arxiv.org/abs/1906.02735."""
    return keras.activations.silu(x) / 1.1  # the slope of silu is at most 1.0999


# Derivatives of smooth activations, in closed form, because they stand where gradients are taken through them.
SLOPES = {
    keras.activations.tanh: lambda u: 1.0 - tf.square(tf.tanh(u)),
    keras.activations.softplus: tf.sigmoid,
    keras.activations.silu: _silu_slope,
    lipswish: lambda u: _silu_slope(u) / 1.1,
}


def slope_of(activation):
    """The derivative of a smooth activation; a ValueError for one that is not in `SLOPES`."""
    if activation not in SLOPES:
        known = ", ".join(known.__name__ for known in SLOPES)
        raise ValueError(f"Expected one of {known} as activation; got {activation!r}.")
    return SLOPES[activation]


@dataclasses.dataclass
class Linear:
    """A linear layer of a `FeedForward`.

    Args:
      kernel: weight `[in, out]`.
      bias: weight `[out]`.
      degrees: of its inputs `[in]` and outputs `[out]`: an output hears the inputs whose degree is not above its
        own. None if it hears all.
      skip: whether the values of two layers before are added to its own.
      context_kernel: weight `[n_context, out]`, if it hears the context.
    """

    kernel: keras.Variable
    bias: keras.Variable
    degrees: tuple[np.ndarray, np.ndarray] | None
    skip: bool
    context_kernel: keras.Variable | None = None

    def masked_kernel(self) -> tf.Tensor:
        """The kernel with zeros where an output must not hear an input."""
        kernel = tf.convert_to_tensor(self.kernel)
        if self.degrees is None:
            return kernel
        # Compared in the graph: as a constant the mask would be as large as the kernel, once more in every file.
        inputs, outputs = self.degrees
        return tf.where(inputs[:, np.newaxis] <= tf.constant(outputs, tf.int32), kernel, tf.zeros([], kernel.dtype))

    def shift(self, context: tf.Tensor | None) -> tf.Tensor:
        """What is added to its product: `[out]`, or `[n, out]` where it hears a context."""
        shift = tf.convert_to_tensor(self.bias)
        return shift if self.context_kernel is None else shift + times(context, self.context_kernel)


class FeedForward(keras.layers.Layer):
    """What MLP and MADE share: a stack of linear layers, masked or not, with context.

    Plain: h = act(W1 x + C1 context), h = act(W h + b), ...; residual: blocks
    h + W''(act(W' act(h) + C context)) of one width. The output layer starts at zero. Of circular inputs the first
    layer sees cosine and sine, so that its outputs have no seam.
    """

    def __init__(self, hidden, activation, residual, circular=False, circular_bound=math.pi, **kwargs):
        super().__init__(**kwargs)
        # One boolean for all inputs, or one for each.
        self.circular = bool(circular) if np.ndim(circular) == 0 else tuple(bool(c) for c in circular)
        self.circular_bound = float(circular_bound)
        self.hidden = hidden_widths(hidden)
        self.activation = keras.activations.get(activation)
        self.residual = bool(residual)
        if self.residual and len(set(self.hidden)) > 1:
            raise ValueError(f"Expected hidden layers of one width in a residual net; got hidden={hidden}.")

    def _n_outputs(self) -> int:
        raise NotImplementedError  # abstract

    def _degrees(self, n_inputs: int, with_context: bool) -> list[np.ndarray] | None:
        """Of the inputs, the units of each hidden layer and the outputs, as in `Linear`; None if all hear all."""
        raise NotImplementedError  # abstract

    def on_circles(self, circular: np.ndarray, bound: float, n_outputs: int) -> FeedForward:
        """A new net of these settings, some of whose inputs are circular.

        Args:
          circular: `[n_inputs]` booleans.
          bound: circular inputs have the period 2 * bound.
          n_outputs: how many numbers it puts out.
        """
        raise NotImplementedError  # abstract

    def _is_circular(self, n_inputs):
        circular = np.broadcast_to(self.circular, [n_inputs]) if np.ndim(self.circular) == 0 else self.circular
        if len(circular) != n_inputs:
            raise ValueError(f"Expected circular of length {n_inputs}, the number of inputs; got {len(circular)}.")
        return np.asarray(circular)

    def _inputs_seen(self, n_inputs):
        """The numbers of the inputs that the first layer sees: the others, and circular ones twice."""
        circular = self._is_circular(n_inputs)
        return np.concatenate([np.flatnonzero(part) for part in (~circular, circular, circular)])

    def _embedded(self, x):
        """What the first layer sees of inputs `[..., n_inputs]`."""
        circular = self._is_circular(x.shape[-1])
        if not circular.any():
            return x
        ordered, n_others = permute(x, np.argsort(circular, kind="stable")), int(np.sum(~circular))
        angle = (np.pi / self.circular_bound) * ordered[..., n_others:]
        return tf.concat([ordered[..., :n_others], tf.cos(angle), tf.sin(angle)], axis=-1)

    def build(self, x_shape, context_shape=None):
        """Makes the weights, given the shapes that Keras has of the arguments of a call.

        Args:
          x_shape: `(..., n_inputs)`.
          context_shape: `(..., n_context)`, or None if it is to hear no context.
        """
        heard = self._inputs_seen(x_shape[-1])
        n_inputs = len(heard)
        widths = self.hidden
        degrees = self._degrees(x_shape[-1], context_shape is not None)
        pairs = itertools.repeat(None) if degrees is None else itertools.pairwise(degrees)
        first = self._linear("first", n_inputs, widths[0], next(pairs))
        n_context = 0 if context_shape is None else context_shape[-1]
        n_hearing = 0 if context_shape is None else (len(widths) if self.residual else 1)
        hearing = [
            self.add_weight(shape=(n_context, widths[0]), initializer=spread(n_context), name=f"context_{i}")
            for i in range(n_hearing)
        ]
        inner = [self._linear(f"hidden_{i}", widths[i - 1], widths[i], next(pairs)) for i in range(1, len(widths))]
        if self.residual:
            second = [
                self._linear(f"residual_{i}", widths[0], widths[0], layer.degrees, skip=True)
                for i, layer in enumerate(inner, start=1)
            ]
            inner = [layer for pair in zip(inner, second, strict=True) for layer in pair]
        outputs = self._linear("outputs", widths[-1], self._n_outputs(), next(pairs), zero=True)
        self.linears = [first, *inner, outputs]
        # The first layer hears the context, and the first of each residual block.
        for layer, kernel in zip([first, *inner[::2]], hearing, strict=False):
            layer.context_kernel = kernel

    def _linear(self, name, n_in, n_out, degrees, *, zero=False, skip=False):
        # Two initializers: one would draw the bias equal to the kernel's first row.
        kernel, bias = ("zeros", "zeros") if zero else (spread(n_in), spread(n_in))
        kernel = self.add_weight(shape=(n_in, n_out), initializer=kernel, name=f"{name}_kernel")
        bias = self.add_weight(shape=(n_out,), initializer=bias, name=f"{name}_bias")
        return Linear(kernel, bias, degrees, skip)

    def kernels(self) -> list[tf.Tensor]:
        """What each linear layer multiplies with."""
        return [layer.masked_kernel() for layer in self.linears]

    def call(self, x, context=None):
        """The outputs, `[..., n_outputs]`.

        Args:
          x: `[..., n_inputs]`.
          context: `[..., n_context]`, if it was built with one.
        """
        return self._values(self._embedded(x), context, self.kernels())[-1]

    def _values(self, x, context, kernels):
        """What each linear layer returns, the sum of a block included."""
        values = []
        for layer, kernel in zip(self.linears, kernels, strict=True):
            source = self.activation(values[-1]) if values else x
            value = times(source, kernel) + layer.shift(context)
            values.append(value + values[-2] if layer.skip else value)
        return values

    def linearize(self, x: tf.Tensor, context: tf.Tensor | None = None):
        """The net's value at `x` `[n, n_inputs]`, and its derivative there, as a function.

        Args:
          x: `[n, n_inputs]`.
          context: `[n, n_context]`, if it was built with one.

        Returns:
          the value `[n, n_outputs]`, and a function of directions `[K, n or 1, n_inputs]` that returns their products
          with the Jacobian, `[K, n, n_outputs]`.

        Raises:
          ValueError: for an activation that is not in `SLOPES`.
        """
        slope, kernels = slope_of(self.activation), self.kernels()
        values = self._values(x, context, kernels)
        slopes = [slope(value) for value in values[:-1]]

        def push(directions):
            changes = []
            for i, (layer, kernel) in enumerate(zip(self.linears, kernels, strict=True)):
                change = times(changes[-1] * slopes[i - 1] if changes else directions, kernel)
                changes.append(change + changes[-2] if layer.skip else change)
            return changes[-1]

        return values[-1], push

    def get_config(self):
        activation = keras.activations.serialize(self.activation)
        config = {"hidden": self.hidden, "activation": activation, "residual": self.residual}
        if np.any(self.circular):
            config |= {"circular": self.circular, "circular_bound": self.circular_bound}
        return {**super().get_config(), **config}


@register
class MLP(FeedForward):
    """A fully connected net, `[..., n_inputs]` and context `[..., n_context]` to `[..., n_outputs]`.

    Args:
      n_outputs: width of the output, >= 1.
      hidden: widths of the hidden layers, at least one; each width after the first is one block if `residual`.
      activation: a Keras activation.
      residual: pre-activation residual blocks of two layers each; all widths must be equal.
      circular: whether the inputs, or which of them, are circular: the net sees their cosines and sines, so that its
        outputs have no seam.
      circular_bound: circular inputs have the period 2 * circular_bound; pi for angles in radians.

    Raises:
      ValueError: for no hidden layer, widths that are not positive, or different ones of a residual net.
    """

    def __init__(
        self,
        n_outputs: int,
        hidden: Sequence[int] = (64, 64),
        activation="relu",
        *,
        residual: bool = False,
        circular: bool | Sequence[bool] | np.ndarray = False,
        circular_bound: float = math.pi,
        **kwargs,
    ):
        super().__init__(hidden, activation, residual, circular, circular_bound, **kwargs)
        self.n_outputs = int(n_outputs)

    def _n_outputs(self):
        return self.n_outputs

    def _degrees(self, n_inputs, with_context):
        return None

    def on_circles(self, circular, bound, n_outputs):
        config = self.get_config() | {"circular": circular.tolist(), "circular_bound": bound, "n_outputs": n_outputs}
        return type(self).from_config(config)

    def get_config(self):
        return {**super().get_config(), "n_outputs": self.n_outputs}


def spread(n_in: int) -> keras.initializers.Initializer:
    """He's uniform law, for kernels and for biases.

    A flow's nets have few inputs, of size one. With biases at zero all kinks of the units would meet in the origin;
    spread over the data, they are worth 0.2 to 0.4 nats on POWER after 1500 steps.
    """
    bound = math.sqrt(6.0 / n_in)
    return keras.initializers.RandomUniform(-bound, bound)
