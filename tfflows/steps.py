"""SteppingModel: a step of training, and of evaluation."""

from __future__ import annotations

import math

import keras
import numpy as np
import tensorflow as tf

from tfflows import replicas
from tfflows.atomic import SavedWhole
from tfflows.losses import NegativeLogLikelihood, weighted_mean
from tfflows.randomness import training_randomness


class SteppingModel(SavedWhole, keras.Model):
    """A Keras model whose steps take the mean of a loss over rows without labels.

    A subclass sets `accepts` (an `inputs.Inputs`), has the verbs that losses call, and implements the following.
    """

    def _flows(self) -> list:
        """The `FlowModel`s that are trained. No property: Keras would follow it when it saves."""
        raise NotImplementedError  # abstract

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.autocast = False
        self.loss_tracker = keras.metrics.Mean(name="loss")
        self.bits_tracker = keras.metrics.Mean(name="bits_per_dim")
        self.flow_loss = NegativeLogLikelihood()

    @property
    def compute_dtype(self):
        """That of the weights: under mixed precision nets alone compute low, each for itself."""
        return self.variable_dtype

    def train_step(self, data):
        """A step of the optimizer on a batch; Keras calls it.

        Args:
          data: x, weight and perhaps context, by name.

        Returns:
          The metrics so far, by name.
        """
        if not self.trainable_weights:  # all there is to fit was set by `adapt`
            return self.test_step(data)
        x, context, weight = _columns(data)
        weights, state = self.trainable_weights, self._moving_state()
        before = [tf.identity(variable.value) for variable in state]
        # The gradient is inside too: what it computes again must draw the same numbers.
        seed = tf.stack([self._seed + replicas.index(), tf.cast(self.optimizer.iterations, tf.int32)])
        share = replicas.share(weight)
        with training_randomness(seed):
            with tf.GradientTape() as tape:
                loss = weighted_mean(self.flow_loss(self, x, context), weight)
                extras = [tf.cast(extra, loss.dtype) / replicas.count() for extra in self.losses]
                objective = tf.add_n([loss * tf.cast(share, loss.dtype), *extras])
                scaled = self.optimizer.scale_loss(objective)
            gradients = tape.gradient(scaled, weights, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        gradients = [tf.convert_to_tensor(g) for g in gradients]
        loss, objective, gradients = replicas.heard((loss, objective, gradients), tf.shape(x)[0])
        objective, gradients = replicas.total((objective, gradients))
        # A bad step must not reach the weights: it is left out, its loss is shown as NaN, and the callback
        # StopOnNonFinite ends the fit.
        finite = self._is_sound(objective, gradients)
        self._apply_if(finite, gradients, weights)
        # Each replica has moved them by its own rows.
        after = replicas.mean([tf.convert_to_tensor(variable) for variable in state], tf.shape(x)[0])
        for variable, old, new in zip(state, before, after, strict=True):
            variable.assign(tf.where(finite, new, old))
        return self._track(tf.where(finite, loss, np.nan), weight)

    def _adapt_alike(self, rows, verbose):
        """Adapts; of several workers, whose rows may be others or in another order, all take what the first one has."""
        self._adapt(rows, verbose)
        replicas.take_first(self.weights, self.distribute_strategy)

    def _is_sound(self, objective, gradients):
        """Whether the optimizer may have the gradients."""
        finite = tf.math.is_finite(objective + tf.linalg.global_norm(gradients))
        if isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer):
            # It multiplies the loss by ever more until some gradient overflows; such a step it leaves out by itself,
            # and halves the factor.
            finite |= tf.math.is_finite(objective) & (self.optimizer.scale_loss(1.0) > 1.0)
        return finite

    def _moving_state(self):
        """What context nets set by themselves as they train, such as the statistics of a `BatchNormalization`."""
        nets = [flow.context_net for flow in self._flows() if flow.context_net is not None]
        weights = [weight for net in nets for weight in net.non_trainable_weights]
        return [weight for weight in weights if keras.backend.is_float_dtype(weight.dtype)]

    def _apply_if(self, finite, gradients, weights):
        if replicas.count() > 1:  # they may not meet inside a cond
            gradients = replicas.clipped([tf.where(finite, g, tf.zeros_like(g)) for g in gradients], self.optimizer)
            with replicas.summed(self.optimizer) as n_times:
                self.optimizer.apply_gradients([(g / n_times, w) for g, w in zip(gradients, weights, strict=True)])
            return
        tf.cond(
            finite,
            lambda: self.optimizer.apply_gradients(zip(gradients, weights, strict=True)),
            lambda: self.optimizer.iterations,
        )

    def test_step(self, data):
        """The loss of a batch of evaluation; Keras calls it. `data` and result as in `train_step`."""
        x, context, weight = _columns(data)
        loss = weighted_mean(self.flow_loss(self, x, context), weight)
        return self._track(loss, weight)

    def evaluate(self, x, context=None, sample_weight=None, *, batch_size: int | None = None, **kwargs):
        """The mean loss of data, by default the NLL in nats.

        Args:
          x, context, sample_weight: as in `fit`.
          batch_size: rows worked on at a time.
          **kwargs: of Keras' `evaluate`.

        Returns:
          The loss; of images a list of it and `bits_per_dim`; with `return_dict=True` a dict of them by name.

        Raises:
          ValueError: for data that do not fit the flow.
        """
        if kwargs.get("_use_cached_eval_dataset"):  # Keras' fit, validating
            kwargs.pop("y", None)
            return super().evaluate(x=x, sample_weight=sample_weight, batch_size=batch_size, **kwargs)
        if not self.compiled:
            self.compile()
        batch_size = self.accepts.evaluation_rows if batch_size is None else batch_size
        dataset = self.accepts.dataset(x, context, sample_weight, batch_size)
        return super().evaluate(dataset, **kwargs)

    def train_on_batch(self, x, context=None, sample_weight=None, *, return_dict: bool = False):
        """One step of the optimizer, for a training loop of one's own. The first one adapts, as `fit` does.

        Args:
          x, context, sample_weight: as in `fit`, but no dataset.
          return_dict: whether the result is a dict by name.

        Returns:
          The mean loss of the rows before the step; of images a list of it and `bits_per_dim`. If it is NaN, the loss
          or its gradient was not finite, and the weights are as they were.

        Raises:
          ValueError: for data that do not fit the flow.
        """
        if not self.compiled:
            self.compile()
        rows = self.accepts.rows(x, context, sample_weight)
        if self._needs_adapt():
            self._adapt_alike(rows.positive(), 0)
        self.reset_metrics()  # older versions of Keras go on with the mean of the calls before
        return super().train_on_batch(rows.columns(), return_dict=return_dict)

    def test_on_batch(self, x, context=None, sample_weight=None, *, return_dict: bool = False):
        """The mean loss of rows, which are worked on at once; result and errors are those of `train_on_batch`.

        Args:
          x, context, sample_weight: as in `fit`, but no dataset.
          return_dict: whether the result is a dict by name.
        """
        if not self.compiled:
            self.compile()
        rows = self.accepts.rows(x, context, sample_weight)
        self.reset_metrics()
        return super().test_on_batch(rows.columns(), return_dict=return_dict)

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
        results = {metric.name: metric.result() for metric in self.metrics}
        # Of several workers Keras takes the mean along the first axis, which a number has none of.
        return {name: result[tf.newaxis] for name, result in results.items()} if replicas.are_workers() else results

    def _maybe_symbolic_build(self, *args, **kwargs):
        """Keras would add up the replicas' parts of a batch to see what is to be built; all is built already."""

    @property
    def metrics(self):
        return [metric for metric, _ in self._trackers()]


def _columns(data):
    """x, context or None, and weight of a batch; Keras' `train_on_batch` has it in a tuple."""
    columns = data[0] if isinstance(data, tuple) else data
    return columns["x"], columns.get("context"), columns["weight"]
