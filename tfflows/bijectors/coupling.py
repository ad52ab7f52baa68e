"""Coupling: one part of the scalars conditions the other."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from tfflows.bijectors.base import Bijector
from tfflows.nets import build_conditioner, conditioner
from tfflows.nets.conditioning import describe_net, net_on_circles
from tfflows.numerics import inverse_permutation, permute, split_last, sum_event
from tfflows.serialization import register
from tfflows.transformers import Transformer


def half_mask(n_dim: int, *, flip: bool = False) -> np.ndarray:
    """Transforms the second half of `n_dim` scalars; with `flip`, the first.

    Returns:
      Booleans `[n_dim]`.
    """
    return (np.arange(n_dim) >= n_dim // 2) ^ flip


def alternating_mask(n_dim: int, *, flip: bool = False) -> np.ndarray:
    """Transforms every second of `n_dim` scalars, beginning with the second; with `flip`, the first.

    Returns:
      Booleans `[n_dim]`.
    """
    return (np.arange(n_dim) % 2 == 1) ^ flip


def checkerboard_mask(n_channels: int, *, flip: bool = False) -> np.ndarray:
    """Transforms every second pixel of an image, like a chessboard's black fields, after a `Squeeze`.

    There a pixel's four neighbours are four groups of channels, two of which are transformed given the other two:
    without computing anything for the pixels that pass, at a quarter of the positions.

    Args:
      n_channels: of the image before `Squeeze`; the mask has 4 n_channels entries.
      flip: the other pixels.
    """
    return np.repeat([False, True, True, False], n_channels) ^ flip


@register
class Coupling(Bijector):
    """Transforms some scalars with parameters computed from the others, which pass unchanged.

    x_a = z_a;  x_b = f(z_b; net(z_a, context));  log-det = sum_b log dx_b/dz_b.

    Both directions cost one evaluation of the net.

    Args:
      transformer: the scalar map f.
      mask: `[D]` booleans, True for the scalars of the last axis to transform (`half_mask`, `alternating_mask`, or
        any; for images that are channels, and `checkerboard_mask` pixels).
      net: a Keras layer called as `net(z_a)` or `net(z_a, context)` that returns
        `[..., transformer.n_parameters * sum(mask)]`; for images a `ConvNet`.
      context_dim: width of the context, or None.
      event_shape: shape of an event, whose last axis has length D; `(D,)` by default.

    Raises:
      ValueError: for a mask without both kinds of scalars, one that does not fit the event, or a net of another width.

    Reference:
      Dinh, Krueger & Bengio (2014), NICE, https://arxiv.org/abs/1410.8516
    """

    def __init__(
        self,
        transformer: Transformer,
        mask: Sequence[bool] | np.ndarray,
        net: keras.layers.Layer,
        context_dim: int | None = None,
        event_shape: Sequence[int] | None = None,
        name: str | None = None,
    ):
        parameters = dict(locals())
        mask = np.asarray(mask)
        if mask.ndim != 1 or mask.dtype != bool or mask.all() or not mask.any():
            raise ValueError(f"Expected a mask of booleans with at least one True and one False; got {mask.tolist()}.")
        shape = mask.shape if event_shape is None else tuple(event_shape)
        if shape[-1:] != mask.shape:
            raise ValueError(f"Expected an event whose last axis has the mask's length {len(mask)}; got {shape}.")
        super().__init__(parameters, event_ndims=len(shape), event_shape=shape, context_dim=context_dim, name=name)
        self._transformer = transformer
        self._transformer_layers = transformer.layers
        self._n_transformed, self._n_passed = int(mask.sum()), int((~mask).sum())
        self._order = np.concatenate([np.flatnonzero(~mask), np.flatnonzero(mask)])
        n_outputs = self._n_transformed * transformer.n_parameters
        self._net = build_conditioner(net, (*shape[:-1], self._n_passed), n_outputs, context_dim)

    def _forward_and_log_det(self, z, context):
        return self._couple(z, context, self._transformer.forward_and_log_det)

    def _inverse_and_log_det(self, x, context):
        return self._couple(x, context, self._transformer.inverse_and_log_det)

    def _couple(self, value, context, transform):
        ordered = permute(value, self._order)
        passed, transformed = ordered[..., : self._n_passed], ordered[..., self._n_passed :]
        event_ndims = len(self.event_shape)
        params = conditioner(self._net, passed, context, event_ndims)
        params = split_last(params, [self._transformer.n_parameters, self._n_transformed])
        changed, log_det = transform(transformed, params)
        if context is not None:  # it may have added batch axes
            passed = tf.broadcast_to(passed, tf.concat([tf.shape(changed)[:-1], [self._n_passed]], axis=0))
        merged = permute(tf.concat([passed, changed], axis=-1), inverse_permutation(self._order))
        return merged, sum_event(log_det, event_ndims)

    @property
    def circle_bound(self):
        return self._transformer.circle_bound

    def on_circles(self, circular, bound):
        ordered = np.asarray(circular)[self._order]
        transformer = self._transformer.on_circles(ordered[self._n_passed :], bound)
        n_outputs = self._n_transformed * transformer.n_parameters
        net = net_on_circles(self._net, ordered[: self._n_passed], bound, n_outputs)
        return Coupling(transformer, self.parameters["mask"], net, self.context_dim), circular

    def describe(self):
        return (
            f"Coupling: {self._transformer} of {self._n_transformed} given {self._n_passed}, {describe_net(self._net)}"
        )
