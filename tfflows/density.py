"""Density: the verbs that every distribution of the package has."""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf

from tfflows import bases, batching, checks, export
from tfflows.bases.stock import check_temperature
from tfflows.bijectors.noise import users_context_dim
from tfflows.distribution import FlowDistribution
from tfflows.nets.context import Heard
from tfflows.questions.verbs import ByDraws
from tfflows.schema import Schema
from tfflows.training import TrainableModel


class Density(ByDraws, export.Exportable, TrainableModel):
    """A distribution that is fitted, evaluated and sampled: `FlowModel`, or several of them in a `FlowMixture`.

    Calling it, `flow(x)` or `flow(x, context)`, gives the log-density, inside other Keras models too.

    A subclass sets `accepts` (an `inputs.Inputs`) and has `_flows`, `_hear`, `_log_prob` and `_sample_and_log_prob`.
    """

    # What a subclass implements, in graph. A context may be `Heard` already.

    def _hear(self, context):
        """What is told of contexts `[..., *context_shape]`: by context nets, where there are any."""
        raise NotImplementedError  # abstract

    def _log_prob(self, x, context, temperature=1.0):
        raise NotImplementedError  # abstract

    def _sample_and_log_prob(self, shape, context, seed, temperature):
        raise NotImplementedError  # abstract

    def _sample_only(self, shape, context, seed, temperature):
        return self._sample_and_log_prob(shape, context, seed, temperature)[0]

    def _sample_rows(self, seeds, context, temperature):
        """A draw for each of `seeds` `[n]`, given `temperature` `[n]`, that depends on nothing else."""
        raise NotImplementedError  # abstract

    def _log_prob_and_slope(self, x, context):
        with tf.GradientTape() as tape:
            tape.watch(x)
            log_prob = self._log_prob(x, context)
        return log_prob, tape.gradient(log_prob, x)

    def _is_reparameterized(self) -> bool:
        """Whether gradients flow through draws to all weights."""
        return not self.accepts.is_discrete and all(flow.base.is_reparameterized for flow in self._flows())

    # The verbs.

    def log_prob(self, x, context=None, *, batch_size: int | None = None) -> tf.Tensor:
        """Log-density in nats.

        Args:
          x: `[n, *event]`, NumPy array, tensor or pandas frame.
          context: `[n, *context_shape]`, if the flow is conditional.
          batch_size: rows worked on at a time; bounds the memory.

        Returns:
          `[n]`.

        Raises:
          ValueError: for data of another shape or type, with NaN or inf, or a context that does not fit.
        """
        return self._over_rows("log_prob", x, context, batch_size)

    def sample(self, n: int, context=None, *, seed=None, temperature=1.0, batch_size: int | None = None):
        """Draws from the flow.

        Args:
          n: number of draws, > 0.
          context: None; `[*context_shape]` for one condition; or `[batch, *context_shape]`. With classes, a label or
            `[batch]` of them. A context net hears each of them once, not for every draw.
          seed: an integer or a pair of them makes the draws reproducible.
          temperature: multiplies the spread of the latents; below 1 draws come from denser regions. With several
            scales, one number for all or one for each, the finest first.
          batch_size: rows worked on at a time; bounds the memory.

        Returns:
          `[n, *event]`, or `[n, batch, *event]` for a batch of contexts.

        Raises:
          ValueError: for n < 1, a context that does not fit, or a temperature that is negative or not finite.
        """
        return self._draw("sample_only", n, context, seed, temperature, batch_size)

    def sample_and_log_prob(self, n: int, context=None, *, seed=None, temperature=1.0, batch_size: int | None = None):
        """Draws and the log-density they were drawn with, in one pass.

        With a temperature other than 1 the density is that of the tempered flow.

        Args:
          n, context, seed, temperature, batch_size: as in `sample`.

        Returns:
          What `sample` returns, and `[n]` or `[n, batch]`, in nats.

        Raises:
          ValueError: as `sample` does.
        """
        return self._draw("sample_and_log_prob", n, context, seed, temperature, batch_size)

    def class_probabilities(self, x, prior=None, *, return_log_prob: bool = False, batch_size: int | None = None):
        """The probability of each class given data, by Bayes' rule: p(c | x) = p(x | c) p(c) / p(x).

        Args:
          x: `[n, *event]`.
          prior: p(c), `[n_classes]`, numbers >= 0 up to a common factor, such as how often each class was seen; equal
            by default.
          return_log_prob: whether log p(x) = log sum_c p(x | c) p(c) is returned too; it is low for what belongs to no
            class, however sure the probabilities seem.
          batch_size: rows worked on at a time.

        Returns:
          `[n, n_classes]`, and log p(x) `[n]` if `return_log_prob`.

        Raises:
          ValueError: for a flow whose context is no class (`n_classes`, or labels through an `Embedding`), or another
            prior.
        """
        n_labels = None if self.accepts.contexts is None else self.accepts.contexts.n_labels
        if n_labels is None:
            raise ValueError("Expected a flow with n_classes, or with an Embedding of labels as context_net; got none.")
        weights = np.ones(n_labels) if prior is None else np.asarray(prior, np.float64)
        if weights.shape != (n_labels,) or not (np.all(weights >= 0.0) and 0.0 < weights.sum() < np.inf):
            raise ValueError(f"Expected a prior of {n_labels} numbers >= 0, not all zero; got {prior}.")
        n_rows = tf.shape(x)[0] if checks.is_symbolic(x) else len(x)
        with np.errstate(divide="ignore"):
            log_prior = np.log(weights / weights.sum())
        # One class after the other: as many rows at a time as `log_prob` takes.
        each = [self.log_prob(x, tf.fill([n_rows], c), batch_size=batch_size) for c in range(n_labels)]
        joint = tf.stack(each, axis=-1) + tf.cast(log_prior, each[0].dtype)
        probabilities = tf.nn.softmax(joint, axis=-1)
        return (probabilities, tf.reduce_logsumexp(joint, axis=-1)) if return_log_prob else probabilities

    def distribution(self, context=None) -> FlowDistribution:
        """The flow as a `tfd.Distribution`.

        Args:
          context: `[..., *context_shape]` (or labels), if the flow is conditional; leading axes are the batch shape.

        Raises:
          ValueError: for a context that does not fit.
        """
        contexts = self.accepts.contexts
        return FlowDistribution(
            self, self.accepts.context(context, None) if contexts is None else contexts.any_batch(context)
        )

    def call(self, x, context=None):
        """`log_prob` inside other Keras models, unchecked: `x` `[..., *event]` and `context` to `[...]`."""
        return self._log_prob(x, context)

    def _signatures(self, batch_size):
        return export.signatures(self, batch_size)

    # How they are run.

    def _temperature(self, temperature):
        """The temperature, checked: a number, or as many as the latent has."""
        if checks.is_symbolic(temperature):
            return temperature
        if np.ndim(temperature) != 0 or not 0.0 <= float(temperature) < np.inf:
            raise ValueError(f"Expected a finite temperature >= 0; got {temperature}.")
        return temperature

    def _compiled(self, verb):
        """The verb's function, compiled once for each padded number of rows."""
        if verb not in self._functions:
            self._functions[verb] = tf.function(getattr(self, f"_{verb}"), jit_compile=self.use_xla, autograph=False)
        return self._functions[verb]

    def _has_context_nets(self) -> bool:
        return any(flow.context_net is not None for flow in self._flows())

    def _listen(self, context):
        return Heard(self._hear(context))

    def _listened(self, context, batch_size):
        """Checked contexts `[n, ...]` as what the context nets make of them, each once; without nets themselves."""
        if context is None or not self._has_context_nets():
            return context
        if checks.is_symbolic(context) or not tf.executing_eagerly():
            return self._listen(context)
        return batching.map_rows(self._compiled("listen"), [context], batch_size, self.accepts.buckets)

    def _over_rows(self, verb, value, context, batch_size):
        value = self._check_value(verb, value)
        if not isinstance(context, Heard):
            context = self.accepts.context(context, value.shape[0])
        checks.check_batch_size(batch_size)
        if checks.is_symbolic(value) or not tf.executing_eagerly():
            return getattr(self, f"_{verb}")(value, context)
        return batching.map_rows(self._compiled(verb), [value, context], batch_size, self.accepts.buckets)

    def _check_value(self, verb, value):
        value = self.accepts.value(value)
        self.accepts.check_domain(value, exact=verb != "encode")
        return value

    def _draw(self, verb, n, context, seed, temperature, batch_size):
        if not tf.is_tensor(n) and (isinstance(n, bool) or int(n) != n or n < 1):
            raise ValueError(f"Expected a number of draws n >= 1; got {n}.")
        temperature = self._temperature(temperature)
        is_stock = any(isinstance(flow.base, bases.FromTFP) for flow in self._flows())
        if is_stock:  # knows no other, and says so
            check_temperature(temperature)
        checks.check_batch_size(batch_size)
        is_single = self.accepts.contexts is not None and self.accepts.contexts.is_one(context)
        context = self.accepts.context(tf.convert_to_tensor(context)[None] if is_single else context, None)
        n_contexts = 1 if context is None else context.shape[0]
        heard = self._listened(context, batch_size)
        seed = batching.seed_pair(seed)
        if is_stock:
            temperature = 1.0  # a number that the graph knows
        elif tf.is_tensor(temperature):
            temperature = tf.cast(temperature, self.accepts.dtype)
        else:
            temperature = np.asarray(temperature, self.accepts.dtype)
        if tf.executing_eagerly():
            function = self._compiled(verb)
            result = batching.draw_rows(
                lambda size, rows, seed: function([size], rows, seed, temperature),
                int(n) * n_contexts,
                heard,
                n_contexts,
                seed,
                batch_size,
                self.accepts.buckets,
            )
        else:
            if context is not None:
                n_contexts = tf.shape(context)[0]
                heard = tf.nest.map_structure(lambda c: tf.tile(c, [n, *[1] * (c.shape.rank - 1)]), heard)
            result = getattr(self, f"_{verb}")([n * n_contexts], heard, seed, temperature)
        if context is None or is_single:
            return result
        return tf.nest.map_structure(
            lambda r: tf.reshape(r, tf.concat([[n, n_contexts], tf.shape(r)[1:]], axis=0)), result
        )

    # Facts and files.

    @property
    def schema(self) -> Schema | None:
        """Names and types of a table's columns; None if they have none. The first `fit` to a data frame sets it."""
        return self.accepts.schema

    @schema.setter
    def schema(self, schema: Schema | None):
        if not (schema is None or isinstance(schema, Schema)):
            raise ValueError(f"Expected a Schema or None; got {schema!r}.")
        self.accepts = dataclasses.replace(self.accepts, schema=schema)

    @property
    def context_dim(self) -> int | None:
        """Width of the context that the bijector hears, less the scale of `Noise`; None for a flow without context."""
        return users_context_dim(self._flows()[0].bijector)

    @property
    def context_shape(self) -> tuple[int | None, ...] | None:
        """Shape of one context, as it is passed in, or None for a flow without context."""
        return self.accepts.context_shape

    def load_weights(self, filepath, **kwargs):
        """Keras' `load_weights`, which here changes nothing unless the whole file fits.

        Args:
          filepath: a `.weights.h5` or `.keras` file.
          **kwargs: of Keras.

        Raises:
          ValueError: for the weights of another model.
        """
        before = self.get_weights()
        try:
            super().load_weights(filepath, **kwargs)
        except ValueError as error:
            self.set_weights(before)
            raise ValueError(f"Expected the weights of {self!r}; got a file that does not fit: {error}") from error
