"""A transformer for each scalar, with parameters that are learned or given by the context."""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from tfflows.bijectors.base import Bijector
from tfflows.nets import Constant, build_conditioner, conditioner
from tfflows.nets.conditioning import check_net_and_context, net_on_circles
from tfflows.numerics import split_last, sum_event
from tfflows.serialization import register
from tfflows.transformers import Transformer


@register
class Elementwise(Bijector):
    """Transforms each scalar on its own.

    x_i = f(z_i; params_i); log-det = sum_i log dx_i/dz_i.

    Args:
      transformer: the scalar map f.
      event_shape: shape of an event; an int is one axis.
      net: without a context, None: the parameters are learned constants. With one, a Keras layer called as
        `net(context)` that returns as many numbers as `[*event_shape[:-1], n_parameters, event_shape[-1]]` has.
      context_dim: width of the context, or None.
      initializer: a Keras initializer of the learned constants, zeros by default. With a context, they are added to
        what the net returns. Maps whose gradient vanishes at zero parameters for standardised data, such as mixtures
        of equal components, need one.

    Raises:
      ValueError: for an event without axes, a net without a context, or a context without a net.
    """

    def __init__(
        self,
        transformer: Transformer,
        event_shape: int | Sequence[int],
        net: keras.layers.Layer | None = None,
        context_dim: int | None = None,
        initializer: keras.initializers.Initializer | None = None,
        name: str | None = None,
    ):
        parameters = dict(locals())
        event_shape = (event_shape,) if isinstance(event_shape, int) else tuple(event_shape)
        if not event_shape:
            raise ValueError("Expected an event of at least one axis, such as event_shape=1 for one number; got ().")
        check_net_and_context(net, context_dim)
        super().__init__(
            parameters,
            event_ndims=len(event_shape),
            event_shape=event_shape,
            context_dim=context_dim,
            name=name,
        )
        self._transformer = transformer
        self._transformer_layers = transformer.layers
        self._shape = (*event_shape[:-1], transformer.n_parameters, event_shape[-1])
        has_constants = net is None or initializer is not None
        self._constants = Constant(self._shape, initializer or "zeros") if has_constants else None
        self._net = None if net is None else build_conditioner(net, context_dim, math.prod(self._shape))

    def _params(self, dtype, context):
        params = 0.0 if self._constants is None else tf.cast(self._constants(None), dtype)
        if context is None:
            return params
        return params + split_last(conditioner(self._net, context, None), self._shape)

    def _forward_and_log_det(self, z, context):
        x, log_det = self._transformer.forward_and_log_det(z, self._params(z.dtype, context))
        return x, sum_event(log_det, len(self.event_shape))

    def _inverse_and_log_det(self, x, context):
        z, log_dets = self._inverse_and_log_dets(x, context)
        return z, sum_event(log_dets, len(self.event_shape))

    def _inverse_and_log_dets(self, x, context):
        return self._transformer.inverse_and_log_det(x, self._params(x.dtype, context))

    @property
    def is_elementwise(self):
        return True

    @property
    def circle_bound(self):
        return self._transformer.circle_bound

    def on_circles(self, circular, bound):
        transformer, (n_dim,), net = self._transformer.on_circles(circular, bound), self.event_shape, self._net
        if net is not None:
            net = net_on_circles(net, np.zeros(self.context_dim, bool), bound, n_dim * transformer.n_parameters)
        return Elementwise(transformer, n_dim, net, self.context_dim, self.parameters["initializer"]), circular

    def describe(self):
        return f"Elementwise: {self._transformer}"
