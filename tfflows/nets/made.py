"""MADE: nets whose outputs for a scalar hear only the scalars before it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfflows.nets.feedforward import FeedForward
from tfflows.nets.parameters import FullPrecision
from tfflows.nets.sequential import Circles, Layer, Stages
from tfflows.numerics import split_last
from tfflows.serialization import register


@register
class MADE(FullPrecision, FeedForward):
    """Masked autoencoder: parameters of scalar i depend on the scalars before i, and on context.

    The degree of a unit is the number of scalars it may hear: order[i] at the outputs for scalar i, 1 .. D - 1 (from
    0 with a context) in the hidden layers, spread evenly and sorted. Input i counts as order[i] + 1, and a connection
    exists where the degree does not fall. Context is not masked. The output has shape `[..., n_parameters, D]`.

    It computes in the dtype of its weights, under mixed precision too: a map inverts only if both directions have the
    same parameters, and one of them has the net in `stages`, where a scalar rounded low would be the input of the next.

    Args:
      n_dim: D, the number of scalars.
      n_parameters: numbers to put out for each scalar.
      hidden, activation, residual: as in `MLP`.
      order: order[i] is the position of scalar i in the sequence, a permutation of 0 .. D - 1;
        left to right by default.
      circular, circular_bound: as in `MLP`.

    Raises:
      ValueError: for an order that is no permutation, or widths that `MLP` refuses.

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
        circular: bool | Sequence[bool] | np.ndarray = False,
        circular_bound: float = math.pi,
        **kwargs,
    ):
        super().__init__(hidden, activation, residual, circular, circular_bound, **kwargs)
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

    def _degrees(self, n_inputs, with_context):
        if n_inputs != self.n_dim:
            raise ValueError(f"Expected {self.n_dim} scalars in a MADE's input; got {n_inputs}.")
        low = 0 if with_context else min(1, self.n_dim - 1)
        # Counted down from D - 1, so that a layer too narrow for all degrees still lets every input through.
        n_degrees = self.n_dim - low
        hidden = [self.n_dim - 1 - np.arange(width)[::-1] * n_degrees // width for width in self.hidden]
        return [self.order[self._inputs_seen(n_inputs)] + 1, *hidden, np.tile(self.order, self.n_parameters)]

    def on_circles(self, circular, bound, n_outputs):
        config = {"circular": circular.tolist(), "circular_bound": bound, "n_parameters": n_outputs // self.n_dim}
        return type(self).from_config(self.get_config() | config)

    def call(self, x, context=None):
        """The parameters, `[..., n_parameters, D]`.

        Args:
          x: `[..., D]`.
          context: `[..., n_context]`, if it was built with one.
        """
        return split_last(super().call(x, context), [self.n_parameters, self.n_dim])

    def stages(self, context: tf.Tensor | None = None) -> Stages:
        """The net with its units sorted by what they hear, for `run_sequentially`.

        Args:
          context: `[n, n_context]`, if it hears one.
        """
        sources = _groups(self.order[self._inputs_seen(self.n_dim)], self.n_dim)
        layers = []
        for layer in self.linears:
            groups = _groups(layer.degrees[1], self.n_dim)
            kernel = layer.masked_kernel()
            kernel = _take(_take(kernel, sources, axis=0), groups, axis=1)
            shift = _take(layer.shift(context), groups, axis=-1)
            shift = shift[:, tf.newaxis] if shift.shape.rank == 1 else tf.transpose(shift)
            layers.append(
                Layer(
                    tf.reshape(tf.transpose(kernel), [*groups.shape, sources.size]),
                    tf.reshape(shift, [*groups.shape, shift.shape[1] or -1]),
                )
            )
            sources = groups
        circular = self._is_circular(self.n_dim)[np.argsort(self.order)]
        circles = Circles(circular, self.circular_bound) if circular.any() else None
        return Stages(tuple(layers), tuple(layer.skip for layer in self.linears[:-1]), self.activation, circles)

    def get_config(self):
        config = {"n_dim": self.n_dim, "n_parameters": self.n_parameters, "order": self.order.tolist()}
        return {**super().get_config(), **config}


def _groups(stage: np.ndarray, n_stages: int) -> np.ndarray:
    """`[n_stages, n_group]`: the numbers of the units of each stage, in their order, and -1 where it has fewer."""
    members = [np.flatnonzero(stage == s) for s in range(n_stages)]
    width = max(len(m) for m in members)
    return np.stack([np.pad(m, (0, width - len(m)), constant_values=-1) for m in members])


def _take(array: tf.Tensor, groups: np.ndarray, axis: int) -> tf.Tensor:
    """The entries of `array` on an axis in the order of `groups`, zeros for -1."""
    index = groups.reshape(-1)
    if np.array_equal(index, np.arange(array.shape[axis])):
        return array
    shape = [1] * array.shape.rank
    shape[axis] = len(index)
    taken = tf.gather(array, np.maximum(index, 0), axis=axis)
    if (index >= 0).all():
        return taken
    return taken * tf.constant((index >= 0).reshape(shape), array.dtype)
