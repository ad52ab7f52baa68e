"""Masked autoregressive maps: each scalar is conditioned on all before it."""

from __future__ import annotations

import tensorflow as tf

from tfflows.bijectors.base import Bijector
from tfflows.nets import MADE, build_conditioner, conditioner, describe_net
from tfflows.numerics import sum_event
from tfflows.serialization import register
from tfflows.transformers import Transformer


@register
class MaskedAutoregressive(Bijector):
    """Transforms each scalar with parameters computed from the data's scalars before it.

    x_i = f(z_i; params_i(x_<i, context));  log-det = sum_i log dx_i/dz_i.

    The inverse (density) costs one evaluation of the net; the forward direction (sampling) one for each
    scalar. `Invert` of it is the inverse autoregressive flow, fast the other way.

    Args:
      transformer: the scalar map f.
      net: a `MADE` for D scalars of `transformer.n_parameters` parameters each.
      context_dim: width of the context, or None.

    Raises:
      ValueError: if the net is no MADE or has another number of parameters.

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
        self._net = build_conditioner(net, net.n_dim, net.n_dim * transformer.n_parameters, context_dim)

    def _inverse_and_log_det(self, x, context):
        z, log_det = self._transformer.inverse_and_log_det(x, conditioner(self._net, x, context))
        return z, sum_event(log_det, 1)

    def _forward_and_log_det(self, z, context):
        if context is not None:  # it may add batch axes, and a loop's shapes must not change
            shape = tf.broadcast_dynamic_shape(tf.shape(z)[:-1], tf.shape(context)[:-1])
            z = tf.broadcast_to(z, tf.concat([shape, tf.shape(z)[-1:]], axis=0))
        position = tf.constant(self._net.order, dtype=tf.int32)

        def step(k, x, log_det):
            # Scalars not yet generated stay zero: whatever f made of them could overflow, and
            # the masks' zeros would turn an inf into NaN for the others.
            new_x, new_log_det = self._transformer.forward_and_log_det(z, conditioner(self._net, x, context))
            now = position == k
            return k + 1, tf.where(now, new_x, x), tf.where(now, new_log_det, log_det)

        n_dim = self._net.n_dim
        _, x, log_det = tf.while_loop(
            lambda k, x, log_det: k < n_dim,
            step,
            (tf.constant(0), tf.zeros_like(z), tf.zeros_like(z)),
            maximum_iterations=n_dim,
        )
        return x, sum_event(log_det, 1)

    def describe(self):
        return f"MaskedAutoregressive: {self._transformer}, {describe_net(self._net)}"
