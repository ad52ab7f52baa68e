"""FlowModel: a bijector and a base distribution as one Keras model."""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfflows import bases, checks, inputs, latents, summary
from tfflows.bijectors.base import Bijector, describe
from tfflows.bijectors.normalization import MomentsOfAll
from tfflows.contexts import contexts_of
from tfflows.density import Density
from tfflows.domains import Domain, domain_of, on_domain
from tfflows.nets.context import Heard, run_context_net
from tfflows.questions.verbs import ByLatents
from tfflows.randomness import seeded_uniform, training_randomness
from tfflows.serialization import deserialize, register, serialize


@register
class FlowModel(ByLatents, Density):
    """A normalizing flow: a distribution that is fitted with `fit`, evaluated and sampled.

    x = bijector.forward(z), z ~ base;  log p(x) = log base(z) + log |det dz/dx|.

    Calling it, `flow(x)` or `flow(x, context)`, gives the log-density, inside other Keras models too.

    With a `context_net` contexts may be images, sequences, labels or long vectors: a Keras layer or model turns them
    into the `[n, context_dim]` that the bijector hears. Its weights are the flow's: `fit` trains them with it, and they
    are in its files and exports, which take contexts as the net does.

    Args:
      bijector: the invertible map, such as a preset (`RealNVP(n_dim)`), or a `Chain`.
      base: distribution of the latents: one of `bases`, or a TFP distribution without variables; a standard normal by
        default. None with circular columns of a `domain`, which are uniform, beside normal ones.
      domain: where each column of a table lives, a list of `Domain`s; by default all are real. Densities are then of
        the data as they are, samples never leave the domain, and data outside are refused. With integer or
        categorical columns `log_prob` is of their probability, and a mean of several points (`bijectors.Integers`).
      context_net: a Keras layer or model, from contexts `[n, *context_shape]` to `[n, context_dim]`. It is told that it
        trains in `fit` only (`Dropout`, `BatchNormalization`).
      context_shape: shape of one context, for a net that does not say it, such as a `Sequential` without `Input`; () is
        a single number, None an axis of any length.
      n_classes: number of classes, if the context is one: labels `[n]`, or one-hot vectors, which is what the bijector
        or the net hears.

    Attributes:
      schema: names and types of the columns, a `schema.Schema`, or None. The first `fit` to a data frame sets it, or
        the command line; files have it. Columns of data frames are then found by their names.

    Raises:
      ValueError: if bijector, base, domain, context net and shape do not fit each other.

    Reference:
      context nets: Radev et al. (2020), BayesFlow: learning complex stochastic models with invertible neural networks,
      https://arxiv.org/abs/2003.06281; class contexts: Ardizzone et al. (2020), Training normalizing flows with the
      information bottleneck, https://arxiv.org/abs/2001.06448
    """

    def __init__(
        self,
        bijector: Bijector,
        base: bases.Base | None = None,
        domain: Sequence[Domain] | None = None,
        *,
        context_net: keras.layers.Layer | None = None,
        context_shape: Sequence[int | None] | None = None,
        n_classes: int | None = None,
        **kwargs,
    ):
        if not isinstance(bijector, Bijector):
            raise ValueError(
                f"Expected a bijector of tfflows, such as RealNVP(3) for 3 columns; got {bijector!r}. A stock TFP one "
                "goes inside a `Chain`."
            )
        if bijector.event_shape is None:
            raise ValueError("Expected a bijector that knows its event shape, which no part of this one does.")
        if domain is not None:
            bijector, circular, bound = on_domain(bijector, domain)
            if base is not None and circular.any():
                raise ValueError(f"Expected no base for circular columns, which bring their own; got {base!r}.")
            if circular.any():
                base = bases.NormalAndCircular(circular, bound)
        latent_shape = bijector.latent_shape
        if base is None:
            base = bases.StandardNormal(latent_shape)
        elif isinstance(base, tfp.distributions.Distribution):
            base = bases.FromTFP(base)
        if not isinstance(base, bases.Base):
            raise ValueError(f"Expected a base of tfflows.bases or a TFP distribution; got {base!r}.")
        if base.event_shape != latent_shape:
            raise ValueError(f"Expected a base of event shape {latent_shape}; got {base.event_shape}.")
        contexts = contexts_of(bijector, context_net, context_shape, n_classes)
        super().__init__(**kwargs)
        self.bijector = bijector
        self.base = base
        # Keras sees no weights inside a TFP object; this list is how it finds all of them.
        self.bijector_layers = bijector.layers
        self.context_net = context_net
        self.accepts = inputs.Inputs(
            bijector.event_shape,
            contexts,
            bijector.dtype.as_numpy_dtype,
            bijector.accepts_float64,
            bijector.is_discrete,
            bijector.check,
        )
        self.built = True

    def log_prob(self, x, context=None, *, noise_scale=None, batch_size: int | None = None) -> tf.Tensor:
        """Log-density in nats.

        Args:
          x: `[n, *event]`, NumPy array, tensor or pandas frame.
          context: `[n, *context_shape]`, if the flow is conditional.
          noise_scale: of a flow that is trained with noise (`SoftFlow`), which density is meant: that of data blurred
            by noise of this scale, a number or `[n]`, from 0 to the flow's largest. By default 0, the density of what
            `sample` draws; where data lie on a thin manifold, this one is extreme on it and off it, and outliers are
            better found at half the largest scale.
          batch_size: rows worked on at a time; bounds the memory.

        Returns:
          `[n]`.

        Raises:
          ValueError: for data of another shape or type, with NaN or inf, a context that does not fit, or a scale that
            the flow has not been trained with.
        """
        if noise_scale is not None:
            context = self._blurred(len(x), context, noise_scale, batch_size)
        return super().log_prob(x, context, batch_size=batch_size)

    # The verbs that need one latent space; the others are those of `Density`.

    def encode(self, x, context=None, *, return_log_det: bool = False, batch_size: int | None = None):
        """The latents z `[n, *latent]` of data.

        Args:
          x, context, batch_size: as in `log_prob`.
          return_log_det: whether log |det dz/dx| `[n]` is returned too.
        """
        z, log_det = self._over_rows("encode", x, context, batch_size)
        return (z, log_det) if return_log_det else z

    def decode(self, z, context=None, *, return_log_det: bool = False, batch_size: int | None = None):
        """The data `[n, *event]` of latents.

        Args:
          z: `[n, *latent]`.
          context, batch_size: as in `log_prob`.
          return_log_det: whether log |det dx/dz| `[n]` is returned too.
        """
        x, log_det = self._over_rows("decode", z, context, batch_size)
        return (x, log_det) if return_log_det else x

    def interpolate(
        self, x0, x1, n_steps: int = 9, context=None, *, mode=latents.spherical, batch_size: int | None = None
    ):
        """The way from data x0 to data x1 through the latent space: encoded, mixed, decoded.

        Args:
          x0, x1: `[n, *event]`, or one event each.
          n_steps: events on the way, the two ends included, >= 2.
          context: of both ends, `[n, *context_shape]` or for one event `[*context_shape]` (or class labels); or a
            pair of them. On the way they, or what the context net makes of them, are mixed linearly.
          mode: how latents are mixed: `latents.spherical`, `latents.linear`, one of their names, or a function of
            (z0, z1, t) with t in [0, 1].
          batch_size: rows worked on at a time.

        Returns:
          `[n, n_steps, *event]`, or `[n_steps, *event]` for one event each; the first and the last are x0 and x1, up
          to rounding.

        Raises:
          ValueError: for n_steps < 2, x0 and x1 of different shapes, or another mode.
        """
        return latents.way(self, x0, x1, n_steps, context, mode, batch_size)

    def attribute_vector(self, x_with, x_without, context_with=None, context_without=None):
        """What latents of data with an attribute have more, in the mean, than those without: `[*latent]`.

        Added to a latent, times some number, it gives the datum more of the attribute: `flow.decode(z + t * vector)`.

        Args:
          x_with, x_without: `[n, *event]` each, any two numbers of rows.
          context_with, context_without: their contexts, if the flow is conditional.

        Reference:
          Kingma & Dhariwal (2018), Glow, https://arxiv.org/abs/1807.03039
        """
        sets = ((x_with, context_with), (x_without, context_without))
        mean_with, mean_without = (tf.reduce_mean(self.encode(x, context), axis=0) for x, context in sets)
        return mean_with - mean_without

    # What they compute, in graph.

    def _hear(self, context, noise_scale=0.0):
        if isinstance(context, Heard):
            return context.value
        if context is not None and self.context_net is not None:
            context = run_context_net(self.context_net, context, len(self.accepts.context_shape))
            context = tf.cast(context, self.accepts.dtype)
        noise = self.bijector.noise
        return context if noise is None else noise.heard(context, noise_scale)

    def _blurred(self, n_rows, context, noise_scale, batch_size):
        """Contexts of `n_rows` rows as the bijector hears them with noise of that scale."""
        noise = self.bijector.noise
        if noise is None:
            raise ValueError(f"Expected noise_scale of a flow with noise, such as SoftFlow; got {noise_scale}.")
        noise.check_scale(noise_scale)
        if np.ndim(noise_scale) and np.shape(noise_scale) != (n_rows,):
            raise ValueError(f"Expected a noise_scale for all {n_rows} rows or each; got {np.shape(noise_scale)}.")
        context = self._listened(self.accepts.context(context, n_rows), batch_size)
        context = context.value[..., :-1] if isinstance(context, Heard) else context  # without the scale that it has
        return Heard(noise.heard(context, tf.broadcast_to(tf.cast(noise_scale, noise.dtype), [n_rows])))

    def _log_prob(self, x, context, temperature=1.0):
        context = self._hear(context)
        points, log_weight = self.bijector.dequantize(x, context)
        z, log_det = self.bijector.inverse_and_log_det(points, context)
        log_prob = self.base.log_prob(z, temperature) + log_det
        if log_weight is not None:
            log_prob += log_weight
        if len(points.shape) > len(x.shape):  # several points of each row
            log_prob = tf.reduce_logsumexp(log_prob, axis=0) - math.log(points.shape[0])
        return log_prob

    def _encode(self, x, context):
        return self.bijector.inverse_and_log_det(x, self._hear(context))

    def _scalar_log_probs(self, x, context):
        """z and log p(x_i | those before), `[n, D]`, of a triangular flow."""
        z, log_dets = self.bijector.inverse_and_log_dets(x, self._hear(context))
        return z, self.base.log_probs(z) + log_dets

    def _decode(self, z, context):
        return self.bijector.forward_and_log_det(z, self._hear(context))

    def _sample_and_log_prob(self, shape, context, seed, temperature):
        z = self.base.sample(shape, seed, temperature)
        context = self._hear(context)
        x, log_det = self.bijector.forward_and_log_det(z, context)
        if self.bijector.is_discrete:
            x = self.bijector.quantize(x)
            return x, self._log_prob(x, Heard(context), temperature)
        return x, self.base.log_prob(z, temperature) - log_det

    def _sample_only(self, shape, context, seed, temperature):
        z = self.base.sample(shape, seed, temperature)
        return self.bijector.quantize(self._decode(z, context)[0])

    def _sample_rows(self, seeds, context, temperature, stream=0):
        uniform = tf.cast(seeded_uniform(seeds, self.base.n_uniform, stream), self.accepts.dtype)
        z = self.base.from_uniform(uniform, tf.cast(temperature, uniform.dtype))
        return self.bijector.quantize(self._decode(z, context)[0])

    def _flows(self):
        return [self]

    def _moments(self):
        return MomentsOfAll(self.bijector)

    @property
    def default_loss(self):
        return self.bijector.default_loss or super().default_loss

    def _temperature(self, temperature):
        sizes = self.bijector.level_sizes
        if sizes is None or checks.is_symbolic(temperature) or np.ndim(temperature) == 0:
            return super()._temperature(temperature)
        each = np.asarray(temperature, self.accepts.dtype)
        if each.shape != (len(sizes),) or not np.all(np.isfinite(each) & (each >= 0.0)):
            raise ValueError(f"Expected {len(sizes)} finite temperatures >= 0, one for each level; got {temperature}.")
        return np.repeat(each, sizes)

    def _adapt(self, rows, verbose):
        context = rows.context
        if self.context_net is not None:  # without gradients, like all that `adapt` does
            context = self._listened(context, None)
        if isinstance(context, Heard) or self.bijector.noise is not None:
            heard = np.asarray(self._hear(context))
            context = np.broadcast_to(heard, (len(rows), heard.shape[-1]))
        self.bijector.adapt(self._points(rows), context, sample_weight=rows.weight, verbose=verbose)

    def _points(self, rows):
        """The rows' x; of a table's integers points of what they stand for, as in training."""
        if not self.accepts.is_discrete or len(self.accepts.event_shape) != 1:
            return rows.x
        with training_randomness(tf.zeros([2], tf.int32)):
            return self.bijector.dequantize(tf.constant(rows.x), None)[0].numpy()

    def _check_value(self, verb, value):
        if verb == "decode":
            return self.accepts.value(value, "z", self.base.event_shape)
        return super()._check_value(verb, value)

    # Facts and files.

    @property
    def domain(self) -> list[Domain] | None:
        """Where each column of the data lives, or several together; None if events are not vectors."""
        return domain_of(self.bijector)

    def get_config(self):
        return {
            "name": self.name,
            "trainable": self.trainable,
            "bijector": serialize(self.bijector),
            "base": serialize(self.base),
            "context_net": serialize(self.context_net),
            "context_shape": None if self.context_net is None else serialize(self.context_shape),
            "n_classes": self.accepts.n_classes,
            "schema": serialize(self.schema),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """A new flow from the `config` of `get_config`; `custom_objects` is not looked at."""
        config = dict(config)
        parts = {name: deserialize(config.pop(name, None)) for name in ("bijector", "base", "context_net")}
        schema = deserialize(config.pop("schema", None))
        flow = cls(**parts, **config)
        flow.schema = schema
        return flow

    def __repr__(self):
        net = "" if self.context_net is None else f", context_net={self.context_net.name} of {self.context_shape}"
        return (
            f"FlowModel({describe(self.bijector)}, event_shape={self.bijector.event_shape}, "
            f"context_dim={self.context_dim}{net}, base={type(self.base).__name__}, weights={self.count_params():,})"
        )

    def summary(self, print_fn=print, **kwargs):
        """Prints by `print_fn` the flow part by part, from the data to the latent, with numbers of weights."""
        del kwargs  # Keras' layout options have no meaning for this table
        print_fn(summary.table(self))
