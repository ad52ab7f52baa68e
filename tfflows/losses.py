"""Losses: what `fit` minimises."""

from __future__ import annotations

import tensorflow as tf

from tfflows.serialization import register


class Loss:
    """An objective, one number for each row of data; `fit` minimises its weighted mean.

    A subclass implements `__call__`, has a `get_config` with its constructor's arguments, and is registered
    with `keras.saving.register_keras_serializable`.
    """

    def __call__(self, flow, x: tf.Tensor, context: tf.Tensor | None) -> tf.Tensor:
        """The loss of `x` `[n, ...]` given `context` `[n, context_dim]` or None, of shape `[n]`.

        Args:
          flow: the `FlowModel`; its verbs (`log_prob`, `encode`, ...) may be called, and gradients
            flow through them to its weights.
        """
        raise NotImplementedError  # abstract

    def get_config(self) -> dict:
        return {}

    @classmethod
    def from_config(cls, config: dict) -> Loss:
        return cls(**config)


@register
class NegativeLogLikelihood(Loss):
    """-log p(x | context), in nats: maximum likelihood, the default."""

    def __call__(self, flow, x, context):
        return -flow.log_prob(x, context)
