"""SteppingModel: a step of training, and of evaluation."""

from __future__ import annotations

import math

import keras
import numpy as np
import tensorflow as tf

from tfflows.losses import NegativeLogLikelihood, weighted_mean
from tfflows.randomness import training_randomness


class SteppingModel(keras.Model):
    """A Keras model whose steps take the mean of a loss over rows without labels.

    A subclass sets `accepts` (an `inputs.Inputs`), has the verbs that losses call, and implements the following.
    """

    def _flows(self) -> list:
        """The `FlowModel`s that are trained. No property: Keras would follow it when it saves."""
        raise NotImplementedError  # abstract

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.loss_tracker = keras.metrics.Mean(name="loss")
        self.bits_tracker = keras.metrics.Mean(name="bits_per_dim")
        self.flow_loss = NegativeLogLikelihood()

    def train_step(self, data):
        """A step of the optimizer on a batch; Keras calls it.

        Args:
          data: x, weight and perhaps context, by name.

        Returns:
          The metrics so far, by name.
        """
        if not self.trainable_weights:  # all there is to fit was set by `adapt`
            return self.test_step(data)
        x, context, weight = data["x"], data.get("context"), data["weight"]
        weights, state = self.trainable_weights, self._moving_state()
        before = [tf.identity(variable.value) for variable in state]
        # The gradient is inside too: what it computes again must draw the same numbers.
        with training_randomness(tf.stack([self._seed, tf.cast(self.optimizer.iterations, tf.int32)])):
            with tf.GradientTape() as tape:
                loss = weighted_mean(self.flow_loss(self, x, context), weight)
                objective = tf.add_n([loss, *(tf.cast(extra, loss.dtype) for extra in self.losses)])
                scaled = self.optimizer.scale_loss(objective)
            gradients = tape.gradient(scaled, weights, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        # A bad step must not reach the weights: it is left out, its loss is shown as NaN, and the callback
        # StopOnNonFinite ends the fit.
        finite = tf.math.is_finite(objective + tf.linalg.global_norm(gradients))
        self._apply_if(finite, gradients, weights)
        for variable, value in zip(state, before, strict=True):
            variable.assign(tf.where(finite, variable.value, value))
        return self._track(tf.where(finite, loss, np.nan), weight)

    def _moving_state(self):
        """What context nets set by themselves as they train, such as the statistics of a `BatchNormalization`."""
        if self.distribute_strategy.num_replicas_in_sync > 1:  # replicas may not restore what they share
            return []
        nets = [flow.context_net for flow in self._flows() if flow.context_net is not None]
        return [variable for net in nets for variable in net.non_trainable_weights]

    def _apply_if(self, finite, gradients, weights):
        if self.distribute_strategy.num_replicas_in_sync > 1:  # replicas may not meet inside a cond
            gradients = [tf.where(finite, g, tf.zeros_like(g)) for g in gradients]
            self.optimizer.apply_gradients(zip(gradients, weights, strict=True))
            return
        tf.cond(
            finite,
            lambda: self.optimizer.apply_gradients(zip(gradients, weights, strict=True)),
            lambda: self.optimizer.iterations,
        )

    def test_step(self, data):
        """The loss of a batch of evaluation; Keras calls it. `data` and result as in `train_step`."""
        x, context, weight = data["x"], data.get("context"), data["weight"]
        loss = weighted_mean(self.flow_loss(self, x, context), weight)
        return self._track(loss, weight)

    def _trackers(self):
        """Metrics, and what the loss is divided by for each."""
        trackers = [(self.loss_tracker, 1.0)]
        are_pixels = self.accepts.is_discrete and len(self.accepts.event_shape) == 3
        if are_pixels and isinstance(self.flow_loss, NegativeLogLikelihood):
            trackers.append((self.bits_tracker, math.prod(self.accepts.event_shape) * math.log(2.0)))
        return trackers

    def _track(self, loss, weight):
        for metric, unit in self._trackers():
            metric.update_state(loss / unit, sample_weight=tf.reduce_sum(weight))
        return {metric.name: metric.result() for metric in self.metrics}

    @property
    def metrics(self):
        return [metric for metric, _ in self._trackers()]
