"""FlowModel: a bijector and a base distribution as one Keras model."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfflows import bases, batching, inputs, summary
from tfflows.bijectors.base import Bijector, describe
from tfflows.distribution import FlowDistribution
from tfflows.serialization import deserialize, register, serialize
from tfflows.training import TrainableModel


@register
class FlowModel(TrainableModel):
    """A normalizing flow: a distribution that is fitted with `fit`, evaluated and sampled.

    x = bijector.forward(z), z ~ base;  log p(x) = log base(z) + log |det dz/dx|.

    Calling it, `flow(x)` or `flow(x, context)`, gives the log-density, inside other Keras models too.

    Args:
      bijector: the invertible map, such as a preset (`RealNVP(n_dim)`), or a `Chain`.
      base: distribution of the latents: one of `bases`, or a TFP distribution without variables; a standard
        normal by default.

    Raises:
      ValueError: if bijector and base do not fit each other.
    """

    def __init__(self, bijector: Bijector, base: bases.Base | None = None, **kwargs):
        if not isinstance(bijector, Bijector):
            raise ValueError(
                f"Expected a bijector of tfflows; got {bijector!r}. A stock TFP one goes inside a `Chain`."
            )
        if bijector.event_shape is None:
            raise ValueError("Expected a bijector that knows its event shape, which no part of this one does.")
        latent_shape = tuple(bijector.inverse_event_shape(bijector.event_shape).as_list())
        if base is None:
            base = bases.StandardNormal(latent_shape)
        elif isinstance(base, tfp.distributions.Distribution):
            base = bases.FromTFP(base)
        if not isinstance(base, bases.Base):
            raise ValueError(f"Expected a base of tfflows.bases or a TFP distribution; got {base!r}.")
        if base.event_shape != latent_shape:
            raise ValueError(f"Expected a base of event shape {latent_shape}; got {base.event_shape}.")
        super().__init__(**kwargs)
        self.bijector = bijector
        self.base = base
        # Keras sees no weights inside a TFP object; this list is how it finds all of them.
        self.bijector_layers = bijector.layers
        self.accepts = inputs.Inputs(
            bijector.event_shape,
            bijector.context_dim,
            bijector.dtype.as_numpy_dtype,
            bijector.accepts_float64,
        )
        self.built = True

    # The five verbs and their relatives.

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

    def encode(self, x, context=None, *, return_log_det: bool = False, batch_size: int | None = None):
        """The latents z `[n, *latent]` of data x, and log |det dz/dx| `[n]` if `return_log_det`."""
        z, log_det = self._over_rows("encode", x, context, batch_size)
        return (z, log_det) if return_log_det else z

    def decode(self, z, context=None, *, return_log_det: bool = False, batch_size: int | None = None):
        """The data x `[n, *event]` of latents z, and log |det dx/dz| `[n]` if `return_log_det`."""
        x, log_det = self._over_rows("decode", z, context, batch_size)
        return (x, log_det) if return_log_det else x

    def sample(self, n: int, context=None, *, seed=None, temperature=1.0, batch_size: int | None = None):
        """Draws from the flow.

        Args:
          n: number of draws, > 0.
          context: None; `[context_dim]` for one condition; or `[batch, context_dim]`.
          seed: an integer or a pair of them makes the draws reproducible.
          temperature: multiplies the spread of the latents; below 1 draws come from denser regions.
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
        """The flow as a `tfd.Distribution`, given a context `[..., context_dim]` if it is conditional."""
        if context is not None or self.context_dim is not None:
            rows = None if context is None else tf.reshape(context, [-1, np.shape(context)[-1]])
            self.accepts.context(rows, None)
            context = tf.cast(context, self.bijector.dtype)
        return FlowDistribution(self, context)

    def call(self, x, context=None):
        return self._log_prob(x, context)

    # What they compute, in graph.

    def _log_prob(self, x, context):
        z, log_det = self._encode(x, context)
        return self.base.log_prob(z) + log_det

    def _encode(self, x, context):
        return self.bijector.inverse_and_log_det(x, context)

    def _decode(self, z, context):
        return self.bijector.forward_and_log_det(z, context)

    def _sample_and_log_prob(self, shape, context, seed, temperature):
        z = self.base.sample(shape, seed, temperature)
        x, log_det = self.bijector.forward_and_log_det(z, context)
        return x, self.base.log_prob(z, temperature) - log_det

    def _sample_only(self, shape, context, seed, temperature):
        return self.bijector.forward_and_log_det(self.base.sample(shape, seed, temperature), context)[0]

    def _compiled(self, verb):
        """The verb's function, compiled once for each padded number of rows."""
        if verb not in self._functions:
            self._functions[verb] = tf.function(getattr(self, f"_{verb}"), jit_compile=self.use_xla)
        return self._functions[verb]

    def _over_rows(self, verb, value, context, batch_size):
        what, shape = ("z", self.base.event_shape) if verb == "decode" else ("x", self.bijector.event_shape)
        value = self.accepts.value(value, what, shape)
        context = self.accepts.context(context, value.shape[0])
        inputs.check_batch_size(batch_size)
        if inputs.is_symbolic(value) or not tf.executing_eagerly():
            return getattr(self, f"_{verb}")(value, context)
        return batching.map_rows(self._compiled(verb), [value, context], batch_size)

    def _draw(self, verb, n, context, seed, temperature, batch_size):
        if not tf.is_tensor(n) and (isinstance(n, bool) or int(n) != n or n < 1):
            raise ValueError(f"Expected a number of draws n >= 1; got {n}.")
        if not inputs.is_symbolic(temperature) and not 0.0 <= float(temperature) < np.inf:
            raise ValueError(f"Expected a finite temperature >= 0; got {temperature}.")
        if isinstance(self.base, bases.FromTFP):  # knows no other, and says so
            bases.check_temperature(temperature)
        inputs.check_batch_size(batch_size)
        is_single = context is not None and len(np.shape(context)) == 1
        context = self.accepts.context(tf.convert_to_tensor(context)[None] if is_single else context, None)
        n_contexts = 1 if context is None else context.shape[0]
        seed = batching.seed_pair(seed)
        if tf.is_tensor(temperature):
            temperature = tf.cast(temperature, self.bijector.dtype)
        else:
            temperature = np.asarray(temperature, self.bijector.dtype.as_numpy_dtype)
        if tf.executing_eagerly():
            function = self._compiled(verb)
            result = batching.draw_rows(
                lambda size, rows, seed: function([size], rows, seed, temperature),
                int(n) * n_contexts,
                None if context is None else tf.cast(context, self.bijector.dtype),
                seed,
                batch_size,
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
        return self.bijector.context_dim

    def get_config(self):
        return {
            "name": self.name,
            "trainable": self.trainable,
            "bijector": serialize(self.bijector),
            "base": serialize(self.base),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        return cls(deserialize(config.pop("bijector")), deserialize(config.pop("base")), **config)

    def load_weights(self, filepath, **kwargs):
        """Keras' `load_weights`, which here changes nothing unless the whole file fits."""
        before = self.get_weights()
        try:
            super().load_weights(filepath, **kwargs)
        except ValueError as error:
            self.set_weights(before)
            raise ValueError(f"Expected the weights of {self!r}; got a file that does not fit: {error}") from error

    def __repr__(self):
        return (
            f"FlowModel({describe(self.bijector)}, event_shape={self.bijector.event_shape}, "
            f"context_dim={self.context_dim}, base={type(self.base).__name__}, weights={self.count_params():,})"
        )

    def summary(self, print_fn=print, **kwargs):
        """Prints the flow part by part, from the data to the latent, with numbers of weights."""
        del kwargs  # Keras' layout options have no meaning for this table
        print_fn(summary.table(self))
