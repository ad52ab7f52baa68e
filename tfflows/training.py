"""TrainableModel: how a flow is compiled, adapted, fitted and evaluated."""

from __future__ import annotations

import random
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfflows import checkpoints, loop, replicas, states
from tfflows.bijectors.normalization import MomentsOfAll
from tfflows.callbacks import (
    MAX_EPOCHS,
    NonFiniteLossError,
    ProgressBar,
    StopOnNonFinite,
    agreeing,
    averaging,
    default_optimizer,
    explain,
    hears_batches,
    restore_best,
    until_converged,
)
from tfflows.losses import Loss, NegativeLogLikelihood
from tfflows.serialization import deserialize, serialize
from tfflows.steps import SteppingModel

# On a CPU faster outside XLA.
CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
BATCH_SIZE = 256


class TrainableModel(SteppingModel):
    """A Keras model that is trained without labels.

    A subclass implements the following, besides what `SteppingModel` asks for.
    """

    @property
    def default_loss(self) -> Loss:
        """What `fit` minimises unless `compile` is told otherwise."""
        return NegativeLogLikelihood()

    def _adapt(self, rows, verbose):
        raise NotImplementedError  # abstract

    def _moments(self) -> MomentsOfAll:
        """What takes the moments of all rows of a pipeline, if it is a single flow that wants them."""
        return MomentsOfAll()

    def _needs_adapt(self) -> bool:
        return any(flow.bijector.needs_adapt for flow in self._flows())

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.xla_wanted = None  # it chooses
        self._reset_compiled()

    @property
    def use_xla(self) -> bool:
        """Whether `fit` and all verbs are compiled by XLA: as `compile` was told, or as is faster here."""
        if self.xla_wanted is not None:
            return bool(self.xla_wanted)
        if self.distribute_strategy.num_replicas_in_sync > 1:  # XLA would look for all variables on one device
            return False
        layers = self._flatten_layers()
        if not all(layer.supports_jit for layer in layers):  # as Keras' own random zooms do not
            return False
        if tf.config.list_logical_devices("GPU"):
            return True
        return not any(isinstance(layer, CONVOLUTIONS) or getattr(layer, "prefers_graph", False) for layer in layers)

    def _reset_compiled(self):
        self._functions = {}  # the verbs
        self._steps_function = None
        self._epoch_loop = None

    def compile(
        self,
        optimizer=None,
        loss: Loss | None = None,
        *,
        jit_compile: bool | None = None,
        steps_per_execution: int | None = None,
        **kwargs,
    ):
        """Sets how to train; optional, `fit` calls it with the defaults.

        Args:
          optimizer: a Keras optimizer; by default Adam at 1e-3 with gradients clipped to a norm of 5.
          loss: a loss of `tfflows.losses`; by default what the bijector's paper trains it with, which is the
            negative log-likelihood for most.
          jit_compile: whether `fit` and all verbs run under XLA. By default they do, but on a CPU for convolutions of
            many channels (residual `ConvNet`s, Keras' own), which TensorFlow's kernels compute faster.
          steps_per_execution: training steps in one compiled call, after which callbacks hear of a batch. By
            default so many that a call takes some 0.2 s, but one if a callback of yours asks for batches.
          **kwargs: Keras' `run_eagerly`, `auto_scale_loss`.

        Raises:
          ValueError: for metrics, a loss that is none of tfflows, a steps_per_execution below 1, or several replicas
            with jit_compile or an optimizer that accumulates gradients or sets weights to their averages.
        """
        if kwargs.get("metrics") or kwargs.get("weighted_metrics") or kwargs.get("loss_weights"):
            raise ValueError("Expected no metrics: they compare with labels, which a flow has none of.")
        if loss is not None and not isinstance(loss, Loss):
            raise ValueError(f"Expected a loss of tfflows.losses; got {loss!r}.")
        if steps_per_execution is not None and not (isinstance(steps_per_execution, int) and steps_per_execution >= 1):
            raise ValueError(f"Expected a whole number steps_per_execution >= 1; got {steps_per_execution!r}.")
        if optimizer is None:
            optimizer = default_optimizer(averaged=False)
        replicas.check_optimizer(optimizer, self.distribute_strategy)
        if jit_compile and self.distribute_strategy.num_replicas_in_sync > 1:
            raise ValueError("Expected no jit_compile on several replicas, whose variables are on several devices.")
        self.xla_wanted = jit_compile
        super().compile(
            optimizer=optimizer,
            jit_compile=self.use_xla and not kwargs.get("run_eagerly"),
            steps_per_execution=steps_per_execution or 1,
            **kwargs,
        )
        self.flow_loss = loss or self.default_loss
        self._seed = random.getrandbits(31)
        self.steps_per_call = steps_per_execution
        self._reset_compiled()

    def adapt(self, x, context=None, sample_weight=None, *, verbose=0, checkpoint=None) -> None:
        """Sets what is taken from data without gradients (Standardize, ActNorm). The first `fit` calls it.

        Args:
          x, context, sample_weight: as in `fit`. Of a `tf.data.Dataset` all rows are read once and checked. Where
            `Standardize` or `Whiten` come first, as in most presets, they take the moments of all; what else is set
            from data gets 100,000 rows at random. `fit` by itself takes the first ones for everything.
          verbose: 1 to show the progress of what takes long, else 0.
          checkpoint: path of a `.npz`, where SINF keeps the layers found so far; if it is there, the search goes on
            from it, to the same layers as if it had never been killed.

        Raises:
          ValueError: for data that do not fit the flow, or a checkpoint of other data or settings.
        """
        moments = self._moments()
        rows = self.accepts.adapt_rows(x, context, sample_weight, moments.add)
        with moments, states.kept(checkpoint):
            self._adapt_alike(rows, verbose)

    def fit(
        self,
        x,
        context=None,
        sample_weight=None,
        *,
        batch_size: int | None = None,
        epochs: int | None = None,
        verbose="auto",
        callbacks=None,
        validation_split: float | None = None,
        validation_data=None,
        shuffle: bool = True,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: int = 1,
        checkpoint: str | Path | None = None,
    ) -> keras.callbacks.History:
        """Fits the flow to data; the arguments are those of Keras' `fit`.

        With `epochs=None` it decides itself: it holds out a random `validation_split` (10 %) unless
        `validation_data` is given, trains until the held-out loss has not improved for about 3000 steps (5 to
        30 epochs; 1000 epochs at most), and restores the best weights; unless you compiled the model yourself,
        those are averaged over some 100 steps. With a number of epochs it is plain Keras.

        Args:
          x: `[n, *event]`: array, tensor or pandas frame, whose columns it then knows by name; or a `tf.data.Dataset`
            of batches x, (x, context) or (x, context, weight), context () if there is none.
          context: `[n, *context_shape]`, if the flow is conditional.
          sample_weight: `[n]`, >= 0.
          batch_size: rows of a step; 256 by default.
          epochs: over the data, >= 1; None decides itself.
          validation_split: the fraction of rows held out, in (0, 1): at random with `epochs=None`, else the last ones.
          validation_data: x, (x, context) or (x, context, weight), context None if there is none; or a dataset.
          shuffle: whether rows are in another order in each epoch; a dataset has its own.
          verbose, callbacks, initial_epoch, steps_per_epoch: as in Keras.
          validation_steps, validation_batch_size, validation_freq: as in Keras.
          checkpoint: path of a `.npz`, written every 10 s as it goes and at the end. If it is there, the fit goes on
            from it and ends as it would have ended; if that fit has ended, its result is there at once.

        Returns:
          Keras' history; `loss` and `val_loss` are the mean loss, by default the NLL in nats. For images `bits_per_dim`
          and `val_bits_per_dim` are the same in bits for each number of an image.

        Raises:
          ValueError: for data that do not fit the flow, or a checkpoint of another fit, before anything is trained.
          FloatingPointError: if loss or gradient stop being finite; says where, and leaves the weights
            of before. If the validation loss is NaN; with `epochs=None` the best weights so far are restored.
        """
        automatic = epochs is None
        if automatic and validation_data is None and validation_split is None:
            validation_split = 0.1
        batch_size = BATCH_SIZE if batch_size is None else batch_size
        if validation_steps is not None and validation_batch_size is None:
            validation_batch_size = batch_size  # what the steps are counted in
        accepts = self.accepts.named(x, context)
        strategy = self.distribute_strategy
        kept = None if checkpoint is None else checkpoints.read(checkpoint, strategy)
        seed = replicas.agreed(np.random.randint(2**31 - 1), strategy) if kept is None else kept.seed
        data = accepts.training_data(
            x,
            context,
            sample_weight,
            batch_size,
            validation_split=validation_split,
            validation_data=validation_data,
            validation_batch_size=validation_batch_size,
            hold_out_random=automatic,
            shuffle=shuffle,
            seed=seed,
        )
        if data.rows is not None and replicas.are_workers(strategy):
            replicas.check_alike(states.fingerprint(*data.rows.columns().values()), "rows", strategy)
        self.accepts = accepts
        adapts = kept is None and self._needs_adapt()
        with states.kept(checkpoint if kept is None else None):
            if adapts:
                rows = data.adapt_rows()
                self.accepts.check_domain(rows.x)  # of a pipeline, those that are seen here
                self._adapt_alike(rows, 1 if verbose == "auto" else verbose)
        if automatic and not self.trainable_weights:  # `adapt` was all there is to it
            automatic, epochs = False, 1
        with strategy.scope():
            if not self.compiled:
                self.compile(default_optimizer(averaged=automatic))
            self._set_step_seed(replicas.agreed(self._seed, strategy) if kept is None else kept.step_seed)
            if not self.optimizer.built:  # in the first step, its new variables would make TensorFlow trace twice
                self.optimizer.build(self.trainable_variables)
        n_epochs = MAX_EPOCHS if automatic else epochs
        saver = None
        if checkpoint is not None:
            facts = {"automatic": automatic, "validation_split": validation_split, "steps_per_epoch": steps_per_epoch}
            facts = checkpoints.facts(self, data, shuffle=shuffle, **facts)
            begun = kept or checkpoints.Progress(facts, seed, self._seed, adapts)
            saver = checkpoints.Checkpoint(self, checkpoint, begun, facts)
            if saver.has_ended(n_epochs):
                self.history = saver.history()
                return self.history
            saver.check_writable()
            initial_epoch = max(initial_epoch, saver.first_epoch(n_epochs))
        callbacks = tf.nest.flatten(callbacks or [])
        dataset = self._choose_loop(data, callbacks, steps_per_epoch)
        n_steps = steps_per_epoch or int(dataset.cardinality())
        stop = until_converged(n_steps) if automatic else []
        ours, averages = [StopOnNonFinite()], averaging(self.optimizer, callbacks)
        last = []
        if self._epoch_loop is not None:
            ours.append(self._epoch_loop)
            last = [ProgressBar()] if verbose != 0 else []
        others = [*averages, *callbacks, *stop, keras.callbacks.History()]
        if saver is not None:
            saver.attach(others, self._epoch_loop)
            last = [saver, *last]
            if kept is not None and self._epoch_loop is None:
                dataset = saver.rest_of(data, steps_per_epoch)
        try:
            history = super().fit(
                dataset,
                epochs=n_epochs,
                verbose=verbose,
                callbacks=[*agreeing([*ours, *others], strategy), *last],
                validation_data=data.held_out,
                shuffle=False,  # the data have shuffled already
                initial_epoch=initial_epoch,
                steps_per_epoch=steps_per_epoch,
                validation_steps=validation_steps,
                validation_freq=validation_freq,
            )
            restore_best(stop)
            if saver is not None:
                saver.done()
            return history
        except NonFiniteLossError as error:
            if error.is_validation:
                reason = explain(self, self._flows(), data.held_out)
                restore_best(stop)
                raise FloatingPointError(f"The validation loss is NaN {error}. {reason}") from None
            raise FloatingPointError(
                f"The loss or its gradient is not finite {error}. {explain(self, self._flows(), data.stream)} "
                "The model has the weights from before that step. A smaller learning rate may help, or gradient "
                "clipping."
            ) from None
        except KeyboardInterrupt:
            restore_best(stop)
            raise
        finally:
            if self._epoch_loop is not None:
                self._epoch_loop = self.train_function = None  # it holds the data
            self.steps_per_execution = self.steps_per_call or 1

    def _set_step_seed(self, seed: int) -> None:
        """Where the random numbers of losses come from; compiled steps have it as a constant."""
        if seed != self._seed:
            self._seed, self._steps_function, self.train_function = seed, None, None

    def _choose_loop(self, data, callbacks, steps_per_epoch) -> tf.data.Dataset:
        """Prepares the compiled loop over data in memory, if it will do; returns what Keras iterates over."""
        rows = data.rows
        if (
            rows is None
            or rows.nbytes() > loop.MAX_BYTES
            or steps_per_epoch is not None
            or self.run_eagerly
            or self.distribute_strategy.num_replicas_in_sync > 1
            or type(self).train_step is not TrainableModel.train_step
        ):
            return data.stream
        if self._steps_function is None:
            self._steps_function = loop.compiled(self)
        steps = self.steps_per_call
        if steps is None and any(map(hears_batches, callbacks)):
            steps = 1
        self._epoch_loop = loop.EpochLoop(
            self._steps_function, rows, data.batch_size, steps, loop.n_products(self), data.seed
        )
        # Keras counts the steps with these two and hands the dataset to the loop, which has its own.
        self.steps_per_execution = self._epoch_loop.steps_per_call
        return tf.data.Dataset.range(self._epoch_loop.n_steps)

    def make_train_function(self, force=False):
        """Prepares the loop over an epoch's steps; Keras calls it. `force`: as in Keras."""
        if self._epoch_loop is None:
            super().make_train_function(force)
        else:
            self.train_function = self._epoch_loop

    def get_compile_config(self):
        if not self.compiled:
            return None
        return {
            "optimizer": keras.saving.serialize_keras_object(self.optimizer),
            "loss": serialize(self.flow_loss),
            "jit_compile": self.xla_wanted,
            "steps_per_execution": self.steps_per_call,
        }

    def compile_from_config(self, config):
        self.compile(**{k: deserialize(v) for k, v in config.items()})
        self.optimizer.build(self.trainable_variables)
