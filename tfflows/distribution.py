"""A fitted flow as a TFP distribution."""

from __future__ import annotations

import tensorflow as tf
import tensorflow_probability as tfp

__all__ = ["FlowDistribution"]


class FlowDistribution(tfp.distributions.Distribution):
    """The density of a flow, for one context or a batch of them, wherever TFP takes a distribution.

    Args:
      flow: a `FlowModel` or `FlowMixture`.
      context: None, `[*context_shape]`, or `[..., *context_shape]` for a batch of distributions.
    """

    def __init__(self, flow, context: tf.Tensor | None = None, name: str = "FlowDistribution"):
        parameters = dict(locals())
        self._flow, self._context = flow, context
        self._n_batch = 0 if context is None else context.shape.rank - len(flow.context_shape)
        super().__init__(
            dtype=tf.as_dtype(flow.accepts.dtype),
            reparameterization_type=(
                tfp.distributions.FULLY_REPARAMETERIZED
                if flow._is_reparameterized()
                else tfp.distributions.NOT_REPARAMETERIZED
            ),
            validate_args=False,
            allow_nan_stats=True,
            parameters=parameters,
            name=name,
        )

    @property
    def variables(self) -> tuple[tf.Variable, ...]:
        """The flow's weights, which TensorFlow does not find inside Keras' own."""
        return tuple(weight.value for weight in self._flow.variables)

    @property
    def trainable_variables(self) -> tuple[tf.Variable, ...]:
        """Those that are trained, as by `tfp.vi.fit_surrogate_posterior`."""
        return tuple(weight.value for weight in self._flow.trainable_variables)

    @classmethod
    def _parameter_properties(cls, dtype, num_classes=None):
        return {}

    def _batch_shape(self):
        return tf.TensorShape([]) if self._context is None else self._context.shape[: self._n_batch]

    def _batch_shape_tensor(self):
        return tf.shape(self._context)[: self._n_batch] if self._context is not None else tf.constant([], tf.int32)

    def _event_shape(self):
        return tf.TensorShape(self._flow.accepts.event_shape)

    def _event_shape_tensor(self):
        return tf.constant(self._flow.accepts.event_shape, tf.int32)

    def _log_prob(self, x):
        return self._flow._log_prob(x, self._context)

    def _sample_n(self, n, seed=None):
        return self._flow._sample_only(self._shape(n), self._context, tfp.random.sanitize_seed(seed), 1.0)

    def _sample_and_log_prob(self, sample_shape, seed):
        n = tf.reduce_prod(tf.cast(sample_shape, tf.int32))
        seed = tfp.random.sanitize_seed(seed)
        x, log_prob = self._flow._sample_and_log_prob(self._shape(n), self._context, seed, 1.0)
        shape = tf.cast(sample_shape, tf.int32)
        return (
            tf.reshape(x, tf.concat([shape, tf.shape(x)[1:]], 0)),
            tf.reshape(log_prob, tf.concat([shape, tf.shape(log_prob)[1:]], 0)),
        )

    def _shape(self, n):
        return tf.concat([[n], self._batch_shape_tensor()], 0)
