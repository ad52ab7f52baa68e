"""Density: the verbs that every distribution of the package has."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tfflows import bases, batching, export, inputs, questions
from tfflows.distribution import FlowDistribution
from tfflows.training import TrainableModel


class Density(TrainableModel):
    """A distribution that is fitted, evaluated and sampled: `FlowModel`, or several of them in a `FlowMixture`.

    Calling it, `flow(x)` or `flow(x, context)`, gives the log-density, inside other Keras models too.

    A subclass sets `accepts` (an `inputs.Inputs`) and has `_flows`, `_log_prob` and `_sample_and_log_prob`.
    """

    # What a subclass implements, in graph.

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
        return all(flow.base.is_reparameterized for flow in self._flows())

    # The verbs.

    def log_prob(self, x, context=None, *, batch_size: int | None = None) -> tf.Tensor:
        """Log-density in nats.

        Args:
          x: `[n, *event]`, NumPy array, tensor or pandas frame.
          context: `[n, context_dim]`, if the flow is conditional.
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
          context: None; `[context_dim]` for one condition; or `[batch, context_dim]`. With classes, a label or
            `[batch]` of them.
          seed: an integer or a pair of them makes the draws reproducible.
          temperature: multiplies the spread of the latents; below 1 draws come from denser regions. With several
            scales, one number for all or one for each, the finest first.
          batch_size: rows worked on at a time; bounds the memory.

        Returns:
          `[n, *event]`, or `[n, batch, *event]` for a batch of contexts.
        """
        return self._draw("sample_only", n, context, seed, temperature, batch_size)

    def sample_and_log_prob(self, n: int, context=None, *, seed=None, temperature=1.0, batch_size: int | None = None):
        """Draws and the log-density they were drawn with, in one pass; arguments as in `sample`.

        With a temperature other than 1 the density is that of the tempered flow.
        """
        return self._draw("sample_and_log_prob", n, context, seed, temperature, batch_size)

    def distribution(self, context=None) -> FlowDistribution:
        """The flow as a `tfd.Distribution`, given a context `[..., context_dim]` (or labels) if it is conditional."""
        if self.accepts.are_labels(context):
            context = self.accepts.one_hot(context)
        if context is not None or self.context_dim is not None:
            rows = None if context is None else tf.reshape(context, [-1, np.shape(context)[-1]])
            self.accepts.context(rows, None)
            context = tf.cast(context, self.accepts.dtype)
        return FlowDistribution(self, context)

    # Questions. Answers by draws come with their standard errors.

    def probability(self, region, context=None, *, n: int = 10_000, seed=None) -> questions.Estimate:
        """The probability of a region, by draws.

        Args:
          region: a function of x `[n, *event]` that returns `[n]` booleans, or bounds (low, high) of a box, numbers or
            `[*event]`, infinite ones too.
          context: one condition `[context_dim]` (or label), if the flow is conditional.
          n: number of draws, >= 2.
          seed: as in `sample`.

        Returns:
          `Estimate(value, error)`. The error is not 0 where all draws are in or out.
        """
        return questions.probability(self, region, n, context, seed)

    def entropy(self, context=None, *, n: int = 10_000, seed=None) -> questions.Estimate:
        """The differential entropy, -E log p, in nats, by draws; arguments as in `probability`."""
        return questions.entropy(self, n, context, seed)

    def kl_to(self, other, context=None, *, n: int = 10_000, seed=None) -> questions.Estimate:
        """The Kullback-Leibler divergence E [log p - log q] to `other`, in nats, over draws of this flow.

        Args:
          other: a flow of the same data, which is given the same context if it is conditional, or a `tfd.Distribution`.
          context, n, seed: as in `probability`.

        Returns:
          `Estimate(value, error)`, both infinite if a draw is impossible under `other`.
        """
        return questions.kl_to(self, other, n, context, seed)

    def mode(
        self, context=None, *, n_starts: int = 8, n_draws: int = 1000, n_steps: int = 200, seed=None
    ) -> questions.Mode:
        """The densest point: L-BFGS from the densest draws, in the coordinates of x, on which a mode depends.

        Args:
          context: as in `probability`.
          n_starts: draws to climb from. If these all lie on one hill, others are not seen.
          n_draws: draws that they are the densest of.
          n_steps: of each climb, at most.
          seed: as in `sample`.

        Returns:
          `Mode(x, log_prob)`, x `[*event]`; never less dense than the best draw.
        """
        return questions.mode(self, n_starts, n_draws, n_steps, context, seed)

    def outliers(
        self,
        x,
        context=None,
        *,
        calibration,
        rate: float = 0.01,
        score: Callable | None = None,
        seed: int | None = None,
    ) -> questions.Outliers:
        """Which rows are strange, at a rate of false alarms that held-out data vouch for.

        Of rows that come from where the calibration rows come from, a fraction of `rate` is flagged in the mean over
        calibration data, or less if scores tie, whether the flow fits or not; conformal p-values. The density alone is
        known to mislead: it depends on the data's coordinates, and does not see rows that are too typical.

        Args:
          x: `[n, *event]`.
          context: `[n, context_dim]`, if the flow is conditional.
          calibration: rows that it was not fitted to (validation data count as fitted to), or (rows, context); at
            least 1 / rate - 1 of them. The rate of one calibration scatters by sqrt(rate / their number).
          rate: of false alarms, in (0, 1).
          score: `questions.Density()`, the default, `Typicality()`, `Latent()`, or a function of (flow, x, context)
            that returns `[n]` numbers, large for strange rows.
          seed: lets chance decide between ties, so that data of few values are flagged at the full rate too.

        Returns:
          `Outliers(flags, p_values, scores, threshold)`.

        References:
          Le Lan & Dinh (2021), https://arxiv.org/abs/2012.03808; Nalisnick et al. (2019),
          https://arxiv.org/abs/1906.02994; Bates et al. (2023), https://arxiv.org/abs/2104.08279
        """
        return questions.outliers(self, x, context, calibration, rate, score or questions.Density(), seed)

    def call(self, x, context=None):
        return self._log_prob(x, context)

    def export(
        self,
        filepath,
        format: str = "tf_saved_model",
        verbose: bool = True,
        *,
        overwrite: bool = False,
        batch_size: int | None = None,
        weights: str = "float32",
    ) -> None:
        """Writes the flow for where Python is not: a SavedModel for TF Serving, or a TFLite file.

        Signatures are log_prob (also serving_default), sample, encode, decode, and for images interpolate; inputs and
        outputs are named, and all have rows as their leading axis. `sample` draws a row for each `seed` (int32, a
        negative one is new in each call) and `temperature`; the same seed gives the same row everywhere.
        Standardisation and base are inside.

        Args:
          filepath: a folder for the SavedModel, a file for TFLite.
          format: "tf_saved_model", or "litert".
          verbose: whether it says what was written.
          overwrite: whether what is there is replaced; it stays as it was if the export fails.
          batch_size: of "litert", a fixed number of rows, which the browser needs; None for any number.
          weights: of "litert", "float32", "float16", or "int8", where activations are quantised on their way too; what
            that changes is measured on draws of the flow and printed.

        Exports check shapes and nothing else: of data with NaN they give NaN. `sample` has seeds of its own, whose rows
        are not those of `flow.sample(seed=...)`; `interpolate` has one context for both ends.

        Raises:
          ValueError: for a path that exists (with `overwrite`, one that holds no export of the format), an unknown
            format, a float64 flow or operations that TFLite has not; nothing is written.
        """
        export.export(
            self, filepath, format, overwrite=overwrite, batch_size=batch_size, weights=weights, verbose=verbose
        )

    # How they are run.

    def _temperature(self, temperature):
        """The temperature, checked: a number, or as many as the latent has."""
        if inputs.is_symbolic(temperature):
            return temperature
        if np.ndim(temperature) != 0 or not 0.0 <= float(temperature) < np.inf:
            raise ValueError(f"Expected a finite temperature >= 0; got {temperature}.")
        return temperature

    def _compiled(self, verb):
        """The verb's function, compiled once for each padded number of rows."""
        if verb not in self._functions:
            self._functions[verb] = tf.function(getattr(self, f"_{verb}"), jit_compile=self.use_xla, autograph=False)
        return self._functions[verb]

    def _buckets(self):
        return batching.buckets(math.prod(self.accepts.event_shape))

    def _over_rows(self, verb, value, context, batch_size):
        value = self._check_value(verb, value)
        context = self.accepts.context(context, value.shape[0])
        inputs.check_batch_size(batch_size)
        if inputs.is_symbolic(value) or not tf.executing_eagerly():
            return getattr(self, f"_{verb}")(value, context)
        return batching.map_rows(self._compiled(verb), [value, context], batch_size, self._buckets())

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
            bases.check_temperature(temperature)
        inputs.check_batch_size(batch_size)
        is_single = self.accepts.is_one_context(context)
        context = self.accepts.context(tf.convert_to_tensor(context)[None] if is_single else context, None)
        n_contexts = 1 if context is None else context.shape[0]
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
                None if context is None else tf.cast(context, self.accepts.dtype),
                seed,
                batch_size,
                self._buckets(),
            )
        else:
            if context is not None:
                n_contexts = tf.shape(context)[0]
                context = tf.tile(context, [n, 1])
            result = getattr(self, f"_{verb}")([n * n_contexts], context, seed, temperature)
        if context is None or is_single:
            return result
        return tf.nest.map_structure(
            lambda r: tf.reshape(r, tf.concat([[n, n_contexts], tf.shape(r)[1:]], axis=0)), result
        )

    # Facts and files.

    @property
    def context_dim(self) -> int | None:
        """Width of the context vectors, or None for a flow without context."""
        return self.accepts.context_dim

    def load_weights(self, filepath, **kwargs):
        """Keras' `load_weights`, which here changes nothing unless the whole file fits."""
        before = self.get_weights()
        try:
            super().load_weights(filepath, **kwargs)
        except ValueError as error:
            self.set_weights(before)
            raise ValueError(f"Expected the weights of {self!r}; got a file that does not fit: {error}") from error
