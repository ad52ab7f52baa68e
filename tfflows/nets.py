"""Nets: the Keras layers that hold a flow's weights. They know no Jacobian.

A conditioner is called as `net(x)` or `net(x, context)` and returns `[..., n_outputs]` numbers,
which a bijector hands to a transformer as parameters. Its last layer starts at zero and all-zero
parameters mean the identity, so every flow starts as the identity map.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from tfflows.numerics import split_last
from tfflows.serialization import register


@register
class Constant(keras.layers.Layer):
    """One weight, returned whatever the input: parameters that depend on nothing.

    Args:
      shape: shape of the weight.
      initializer: a Keras initializer; zeros by default.
    """

    def __init__(self, shape: Sequence[int], initializer="zeros", **kwargs):
        super().__init__(**kwargs)
        self.shape = tuple(int(n) for n in shape)
        self.initializer = keras.initializers.get(initializer)
        self.value = self.add_weight(shape=self.shape, initializer=self.initializer, name="value")
        self.built = True

    def call(self, x=None):
        return tf.convert_to_tensor(self.value)

    def get_config(self):
        initializer = keras.initializers.serialize(self.initializer)
        return {**super().get_config(), "shape": self.shape, "initializer": initializer}


@register
class Statistics(keras.layers.Layer):
    """Location and scale of each scalar, set from data, and whether that has happened.

    Args:
      shape: shape of location and scale.
      trainable: whether training goes on changing them (ActNorm) or not (Standardize).

    The scale is kept as its logarithm, so it stays positive whatever the optimizer does.
    """

    def __init__(self, shape: Sequence[int], trainable: bool = False, **kwargs):
        super().__init__(trainable=trainable, **kwargs)
        self.shape = tuple(int(n) for n in shape)
        self.location = self.add_weight(shape=self.shape, initializer="zeros", trainable=trainable, name="location")
        self.log_scale = self.add_weight(shape=self.shape, initializer="zeros", trainable=trainable, name="log_scale")
        # A weight, not a Python attribute: a reloaded model must know that it was adapted.
        self.adapted = self.add_weight(shape=(), initializer="zeros", trainable=False, name="adapted")
        self.built = True

    def call(self, x=None):
        return tf.convert_to_tensor(self.location), tf.convert_to_tensor(self.log_scale)

    def set(self, location: np.ndarray, scale: np.ndarray) -> None:
        """Assigns location and scale (positive) and marks them as adapted."""
        self.location.assign(location)
        self.log_scale.assign(np.log(scale))
        self.adapted.assign(1.0)

    def get_config(self):
        return {**super().get_config(), "shape": self.shape}


class _FeedForward(keras.layers.Layer):
    """What MLP and MADE share: a stack of linear layers, masked or not, with context.

    Plain: h = act(W1 x + C1 context), h = act(W h + b), ...; residual: blocks
    h + W''(act(W' act(h) + C context)) of one width. The output layer starts at zero.
    """

    def __init__(self, hidden, activation, residual, **kwargs):
        super().__init__(**kwargs)
        self.hidden = tuple(int(n) for n in hidden)
        self.activation = keras.activations.get(activation)
        self.residual = bool(residual)
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(f"Expected at least one hidden layer, of positive widths; got hidden={hidden}.")
        if self.residual and len(set(self.hidden)) > 1:
            raise ValueError(f"Expected hidden layers of one width in a residual net; got hidden={hidden}.")

    def _n_outputs(self) -> int:
        raise NotImplementedError  # abstract

    def _masks(self, n_inputs: int, with_context: bool) -> tuple:
        """Masks `[in, out]` of: inputs to hidden, hidden to hidden, hidden to outputs."""
        raise NotImplementedError  # abstract

    def build(self, x_shape, context_shape=None):
        n_inputs = x_shape[-1]
        self._mask_in, self._mask_hidden, self._mask_out = self._masks(n_inputs, context_shape is not None)
        width = self.hidden[0]
        self._first = self._linear("first", n_inputs, width)
        n_context = 0 if context_shape is None else context_shape[-1]
        n_hearing = 0 if context_shape is None else (len(self.hidden) if self.residual else 1)
        self._context_kernels = [
            self.add_weight(shape=(n_context, width), initializer=_spread(n_context), name=f"context_{i}")
            for i in range(n_hearing)
        ]
        self._inner = []
        for i, units in enumerate(self.hidden[1:], start=1):
            self._inner.append(self._linear(f"hidden_{i}", self.hidden[i - 1], units))
        if self.residual:
            self._second = [self._linear(f"residual_{i}", width, width) for i in range(1, len(self.hidden))]
        self._last = self._linear("outputs", self.hidden[-1], self._n_outputs(), zero=True)

    def _linear(self, name, n_in, n_out, *, zero=False):
        # Two initializers: one would draw the bias equal to the kernel's first row.
        kernel, bias = ("zeros", "zeros") if zero else (_spread(n_in), _spread(n_in))
        kernel = self.add_weight(shape=(n_in, n_out), initializer=kernel, name=f"{name}_kernel")
        return kernel, self.add_weight(shape=(n_out,), initializer=bias, name=f"{name}_bias")

    def call(self, x, context=None):
        shift = [tf.matmul(context, k) for k in self._context_kernels] if context is not None else []
        h = _affine(x, self._first, self._mask_in)
        if shift:
            h = h + shift[0]
        for i, layer in enumerate(self._inner):
            mask = self._mask_hidden[i] if self._mask_hidden else None
            if self.residual:
                update = _affine(self.activation(h), layer, mask)
                if shift:
                    update = update + shift[i + 1]
                h = h + _affine(self.activation(update), self._second[i], mask)
            else:
                h = _affine(self.activation(h), layer, mask)
        return _affine(self.activation(h), self._last, self._mask_out)

    def get_config(self):
        activation = keras.activations.serialize(self.activation)
        config = {"hidden": self.hidden, "activation": activation, "residual": self.residual}
        return {**super().get_config(), **config}


@register
class MLP(_FeedForward):
    """A fully connected net, `[..., n_inputs]` and context `[..., n_context]` to `[..., n_outputs]`.

    Args:
      n_outputs: width of the output.
      hidden: widths of the hidden layers; each width after the first is one block if `residual`.
      activation: a Keras activation.
      residual: pre-activation residual blocks of two layers each; all widths must be equal.
      circular: the inputs are angles in radians: the net sees their cosines and sines, so that its
        outputs have no seam at +-pi.
    """

    def __init__(
        self,
        n_outputs: int,
        hidden: Sequence[int] = (64, 64),
        activation="relu",
        *,
        residual: bool = False,
        circular: bool = False,
        **kwargs,
    ):
        super().__init__(hidden, activation, residual, **kwargs)
        self.n_outputs = int(n_outputs)
        self.circular = bool(circular)

    def _n_outputs(self):
        return self.n_outputs

    def _masks(self, n_inputs, with_context):
        return None, None, None

    def build(self, x_shape, context_shape=None):
        n_inputs = x_shape[-1] * (2 if self.circular else 1)
        super().build((*x_shape[:-1], n_inputs), context_shape)

    def call(self, x, context=None):
        if self.circular:
            x = tf.concat([tf.cos(x), tf.sin(x)], axis=-1)
        return super().call(x, context)

    def get_config(self):
        return {**super().get_config(), "n_outputs": self.n_outputs, "circular": self.circular}


@register
class MADE(_FeedForward):
    """Masked autoencoder: parameters of scalar i depend on the scalars before i, and on context.

    Input i has degree order[i] + 1, hidden units have degrees 1 .. D - 1 (from 0 with a context), spread
    evenly and sorted; a connection exists where the degree does not fall, and at the output where it
    rises. Context is not masked: it has degree 0.

    Args:
      n_dim: D, the number of scalars.
      n_parameters: numbers to put out for each scalar.
      hidden, activation, residual: as in `MLP`.
      order: order[i] is the position of scalar i in the sequence, a permutation of 0 .. D - 1;
        left to right by default.

    The output has shape `[..., D, n_parameters]`.

    Warns:
      UserWarning: where a hidden layer has fewer than D - 1 units, so that some scalars are heard
        later than the ordering allows.

    Reference:
      Germain, Gregor, Murray & Larochelle (2015), MADE: masked autoencoder for distribution
      estimation, https://arxiv.org/abs/1502.03509
    """

    def __init__(
        self,
        n_dim: int,
        n_parameters: int,
        hidden: Sequence[int] = (64, 64),
        activation="relu",
        *,
        order: Sequence[int] | None = None,
        residual: bool = False,
        **kwargs,
    ):
        super().__init__(hidden, activation, residual, **kwargs)
        self.n_dim = int(n_dim)
        self.n_parameters = int(n_parameters)
        self.order = np.arange(self.n_dim) if order is None else np.asarray(order)
        if sorted(self.order.tolist()) != list(range(self.n_dim)):
            raise ValueError(f"Expected an order that permutes 0 .. {self.n_dim - 1}; got {order}.")
        if min(self.hidden) < self.n_dim - 1:
            warnings.warn(
                f"MADE: a hidden layer of {min(self.hidden)} units is narrower than D - 1 = {self.n_dim - 1}, "
                "so some scalars cannot be heard by the ones right after them.",
                stacklevel=2,
            )

    def _n_outputs(self):
        return self.n_dim * self.n_parameters

    def _masks(self, n_inputs, with_context):
        if n_inputs != self.n_dim:
            raise ValueError(f"Expected {self.n_dim} scalars in a MADE's input; got {n_inputs}.")
        degrees_in = self.order + 1
        low = 0 if with_context else min(1, self.n_dim - 1)
        # Counted down from D - 1, so that a layer too narrow for all degrees still lets every input through.
        n_degrees = self.n_dim - low
        hidden = [self.n_dim - 1 - np.arange(width)[::-1] * n_degrees // width for width in self.hidden]
        mask_in = degrees_in[:, None] <= hidden[0][None, :]
        mask_hidden = [a[:, None] <= b[None, :] for a, b in itertools.pairwise(hidden)]
        degrees_out = np.repeat(degrees_in, self.n_parameters)
        mask_out = hidden[-1][:, None] < degrees_out[None, :]
        return mask_in, mask_hidden, mask_out

    def call(self, x, context=None):
        return split_last(super().call(x, context), [self.n_dim, self.n_parameters])

    def get_config(self):
        config = {"n_dim": self.n_dim, "n_parameters": self.n_parameters, "order": self.order.tolist()}
        return {**super().get_config(), **config}


def build_conditioner(
    net: keras.layers.Layer, n_inputs: int, n_outputs: int, context_dim: int | None = None
) -> keras.layers.Layer:
    """Builds `net`, so that all its weights exist before any data, and checks its width.

    Raises:
      ValueError: if the last axes of its output do not multiply to `n_outputs`.
    """
    if not isinstance(net, keras.layers.Layer):
        raise ValueError(f"Expected a Keras layer as net; got {net!r}.")
    widths = [n_inputs] if context_dim is None else [n_inputs, context_dim]
    shape = net(*(keras.KerasTensor((None, width)) for width in widths)).shape
    if math.prod(shape[1:]) != n_outputs:
        raise ValueError(f"Expected a net with {n_outputs} outputs; got {type(net).__name__} with {shape[1:]}.")
    return net


def conditioner(net: keras.layers.Layer, x: tf.Tensor, context: tf.Tensor | None) -> tf.Tensor:
    """Calls `net` on any number of batch axes, in the dtype of `x`.

    Keras layers see rows, `[n, n_inputs]` and `[n, context_dim]`; the batch axes of x and context are
    broadcast against each other, flattened before, and restored after.
    """
    if x.shape.rank == 2 and (context is None or _same_rows(x, context)):
        return tf.cast(net(x) if context is None else net(x, context), x.dtype)
    batch = tf.shape(x)[:-1]
    if context is not None:
        batch = tf.broadcast_dynamic_shape(batch, tf.shape(context)[:-1])
    rows = [
        tf.reshape(tf.broadcast_to(v, tf.concat([batch, [v.shape[-1]]], axis=0)), [-1, v.shape[-1]])
        for v in (x, context)
        if v is not None
    ]
    outputs = net(*rows)
    restored = tf.reshape(outputs, tf.concat([batch, outputs.shape[1:]], axis=0))
    return tf.cast(restored, x.dtype)


def _same_rows(x, context):
    return x.shape[0] is not None and context.shape.rank == 2 and x.shape[0] == context.shape[0]


def describe_net(net: keras.layers.Layer) -> str:
    """One line about a conditioner."""
    widths = "-".join(str(n) for n in getattr(net, "hidden", ()))
    kind = "residual " if getattr(net, "residual", False) else ""
    return f"{kind}{type(net).__name__} {widths}".strip()


def _spread(n_in: int) -> keras.initializers.Initializer:
    """He's uniform law, for kernels and for biases.

    A flow's nets have few inputs, of size one. With biases at zero all kinks of the units would meet in the origin;
    spread over the data, they are worth 0.2 to 0.4 nats on POWER after 1500 steps.
    """
    bound = math.sqrt(6.0 / n_in)
    return keras.initializers.RandomUniform(-bound, bound)


def _affine(x, kernel_and_bias, mask):
    kernel, bias = (tf.convert_to_tensor(v) for v in kernel_and_bias)
    if mask is not None:
        kernel = kernel * tf.constant(mask, dtype=x.dtype)
    return tf.matmul(x, kernel) + bias
