"""Masked autoregressive maps: each scalar is conditioned on all before it."""

from __future__ import annotations

import tensorflow as tf

from tfflows.bijectors.base import Bijector
from tfflows.nets import MADE, build_conditioner, conditioner
from tfflows.nets.conditioning import describe_net, net_on_circles
from tfflows.nets.sequential import run_sequentially
from tfflows.numerics import inverse_permutation, permute, sum_event
from tfflows.serialization import register
from tfflows.transformers import Transformer


@register
class MaskedAutoregressive(Bijector):
    """Transforms each scalar with parameters computed from the data's scalars before it.

    x_i = f(z_i; params_i(x_<i, context));  log-det = sum_i log dx_i/dz_i.

    Either direction costs one evaluation of the net, forward (sampling) in D small stages. `Invert` of it is the
    inverse autoregressive flow, which samples without stages.

    Args:
      transformer: the scalar map f.
      net: a `MADE` for D scalars of `transformer.n_parameters` parameters each.
      context_dim: width of the context, or None.

    Raises:
      ValueError: if the net is no `MADE` or has another number of parameters.

    Reference:
      Papamakarios, Pavlakou & Murray (2017), Masked autoregressive flow for density estimation,
      https://arxiv.org/abs/1705.07057
    """

    def __init__(self, transformer: Transformer, net: MADE, context_dim: int | None = None, name: str | None = None):
        parameters = dict(locals())
        if not isinstance(net, MADE):
            raise ValueError(f"Expected a MADE as net; got {net!r}.")
        super().__init__(parameters, event_shape=(net.n_dim,), context_dim=context_dim, name=name)
        self._transformer = transformer
        self._transformer_layers = transformer.layers
        self._net = build_conditioner(net, net.n_dim, net.n_dim * transformer.n_parameters, context_dim)

    @property
    def triangular_order(self):
        return self._net.order

    def _inverse_and_log_det(self, x, context):
        z, log_dets = self._inverse_and_log_dets(x, context)
        return z, sum_event(log_dets, 1)

    def _inverse_and_log_dets(self, x, context):
        return self._transformer.inverse_and_log_det(x, conditioner(self._net, x, context))

    def _forward_and_log_det(self, z, context):
        if context is None:
            return self._generate(z, None)
        # Rows, as the net's layers see them: [..., D] and [..., n_context], broadcast against each other.
        batch = tf.broadcast_dynamic_shape(tf.shape(z)[:-1], tf.shape(context)[:-1])
        z, context = (tf.broadcast_to(v, tf.concat([batch, [v.shape[-1]]], axis=0)) for v in (z, context))
        return self._generate(z, tf.reshape(context, [-1, context.shape[-1]]))

    def _generate(self, z, context):
        shape = tf.shape(z)
        order = self._net.order
        z = tf.reshape(z, [-1, self._net.n_dim])
        z = tf.transpose(permute(z, inverse_permutation(order)))
        x, log_det = run_sequentially(self._transformer.forward_and_log_det, self._net.stages(context), z)
        x = permute(tf.transpose(x), order)
        return tf.reshape(x, shape), tf.reshape(tf.reduce_sum(log_det, axis=0), shape[:-1])

    @property
    def circle_bound(self):
        return self._transformer.circle_bound

    def on_circles(self, circular, bound):
        transformer = self._transformer.on_circles(circular, bound)
        net = net_on_circles(self._net, circular, bound, len(circular) * transformer.n_parameters)
        return MaskedAutoregressive(transformer, net, self.context_dim), circular

    def describe(self):
        return f"MaskedAutoregressive: {self._transformer}, {describe_net(self._net)}"
