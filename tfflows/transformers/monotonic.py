"""What transformers have in common that know a closed form in one direction only."""

from __future__ import annotations

import functools

import tensorflow as tf

from tfflows.numerics import implicit_root, solve_increasing
from tfflows.transformers.base import Transformer


class Monotonic(Transformer):
    """A transformer whose direction from data to latent is a formula; the other one is found by bisection.

    A subclass implements `inverse_and_log_det` and `_bracket`. Gradients of first order are right in both directions.
    """

    def _bracket(self, z: tf.Tensor, params: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Two x, shaped like `z`, that `inverse_and_log_det` maps to at most and at least `z`."""
        raise NotImplementedError  # abstract

    def forward_and_log_det(self, z, params):
        z = z + tf.zeros_like(params[..., 0, :])
        if tf.executing_eagerly():
            # Dozens of evaluations, operation by operation, would take long. The scope pauses the gradient's tape;
            # with one batch axis a graph serves every shape.
            n_dim = z.shape[-1]
            with tf.init_scope():
                each = tf.broadcast_to(params, [*z.shape[:-1], self.n_parameters, n_dim])
                found = self._solve_in_graph(
                    tf.reshape(z, [-1, n_dim]), tf.reshape(each, [-1, self.n_parameters, n_dim])
                )
            found = tf.reshape(found, z.shape)
        else:
            found = self._solve(z, params)
        again, log_slope = self.inverse_and_log_det(found, params)
        x = implicit_root(found, z, again, tf.exp(log_slope))
        return x, -self.inverse_and_log_det(x, params)[1]

    def _solve(self, z, params):
        low, high = self._bracket(z, params)
        return solve_increasing(lambda x: self.inverse_and_log_det(x, params)[0], z, low, high)

    @functools.cached_property
    def _solve_in_graph(self):
        return tf.function(self._solve, reduce_retracing=True, autograph=False)


def bracket_with_linear_tails(transformer: Monotonic, bound: float, z: tf.Tensor, params: tf.Tensor):
    """A bracket for a map that is linear outside [-bound, bound]."""
    ends = []
    for end, is_beyond in ((-bound, tf.less), (bound, tf.greater)):
        x = tf.fill(tf.shape(z), tf.constant(end, z.dtype))
        z_end, log_slope = transformer.inverse_and_log_det(x, params)
        beyond = tf.where(is_beyond(z, z_end), z - z_end, tf.zeros_like(z))
        # A little further than the line says, because the slope is rounded.
        ends.append(x + 1.001 * beyond * tf.exp(-log_slope))
    return tuple(ends)
