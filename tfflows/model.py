"""FlowModel: a bijector and a base distribution as one Keras model."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfflows import bases, inputs, latents, questions, summary
from tfflows.bijectors.base import Bijector, describe
from tfflows.density import Density
from tfflows.domains import Domain, on_domain
from tfflows.randomness import seeded_uniform
from tfflows.serialization import deserialize, register, serialize


@register
class FlowModel(Density):
    """A normalizing flow: a distribution that is fitted with `fit`, evaluated and sampled.

    x = bijector.forward(z), z ~ base;  log p(x) = log base(z) + log |det dz/dx|.

    Calling it, `flow(x)` or `flow(x, context)`, gives the log-density, inside other Keras models too.

    Args:
      bijector: the invertible map, such as a preset (`RealNVP(n_dim)`), or a `Chain`.
      base: distribution of the latents: one of `bases`, or a TFP distribution without variables; by default a standard
        normal, and uniform for circular numbers of a `domain`.
      domain: where each column of a table lives, a list of `Domain`s; by default all are real. Densities are then of
        the data as they are, samples never leave the domain, and data outside are refused. With integer or
        categorical columns `log_prob` is of their probability, and a mean of several points (`bijectors.Integers`).

    Raises:
      ValueError: if bijector, base and domain do not fit each other.
    """

    def __init__(
        self,
        bijector: Bijector,
        base: bases.Base | None = None,
        domain: Sequence[Domain] | None = None,
        **kwargs,
    ):
        if not isinstance(bijector, Bijector):
            raise ValueError(
                f"Expected a bijector of tfflows; got {bijector!r}. A stock TFP one goes inside a `Chain`."
            )
        if bijector.event_shape is None:
            raise ValueError("Expected a bijector that knows its event shape, which no part of this one does.")
        if domain is not None:
            bijector, circular, bound = on_domain(bijector, domain)
            if base is None and circular.any():
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
            bijector.n_classes,
            bijector.is_discrete,
            bijector.check,
        )
        self.built = True

    # The verbs that need one latent space; the others are those of `Density`.

    def encode(self, x, context=None, *, return_log_det: bool = False, batch_size: int | None = None):
        """The latents z `[n, *latent]` of data x, and log |det dz/dx| `[n]` if `return_log_det`."""
        z, log_det = self._over_rows("encode", x, context, batch_size)
        return (z, log_det) if return_log_det else z

    def decode(self, z, context=None, *, return_log_det: bool = False, batch_size: int | None = None):
        """The data x `[n, *event]` of latents z, and log |det dx/dz| `[n]` if `return_log_det`."""
        x, log_det = self._over_rows("decode", z, context, batch_size)
        return (x, log_det) if return_log_det else x

    def interpolate(
        self, x0, x1, n_steps: int = 9, context=None, *, mode=latents.spherical, batch_size: int | None = None
    ):
        """The way from data x0 to data x1 through the latent space: encoded, mixed, decoded.

        Args:
          x0, x1: `[n, *event]`, or one event each.
          n_steps: events on the way, the two ends included, >= 2.
          context: of both ends, `[n, context_dim]` or for one event `[context_dim]` (or class labels); or a pair of
            them, which are mixed linearly on the way.
          mode: how latents are mixed: `latents.spherical`, `latents.linear`, one of their names, or a function of
            (z0, z1, t) with t in [0, 1].
          batch_size: rows worked on at a time.

        Returns:
          `[n, n_steps, *event]`, or `[n_steps, *event]` for one event each; the first and the last are x0 and x1, up
          to rounding.
        """
        mode = latents.mode(mode)
        if isinstance(n_steps, bool) or not isinstance(n_steps, (int, np.integer)) or n_steps < 2:
            raise ValueError(f"Expected n_steps >= 2; got {n_steps}.")
        if tuple(np.shape(x0)) != tuple(np.shape(x1)):
            raise ValueError(f"Expected x0 and x1 of one shape; got {np.shape(x0)} and {np.shape(x1)}.")
        is_single = np.ndim(x0) == len(self.bijector.event_shape)
        contexts = context if isinstance(context, tuple) else (context, context)
        if is_single:
            x0, x1 = tf.convert_to_tensor(x0)[tf.newaxis], tf.convert_to_tensor(x1)[tf.newaxis]
            contexts = [None if c is None else np.asarray(c)[np.newaxis] for c in contexts]
        contexts = [self.accepts.context(c, len(x0)) for c in contexts]
        z0, z1 = (self.encode(x, c, batch_size=batch_size) for x, c in zip((x0, x1), contexts, strict=True))
        times = np.linspace(0.0, 1.0, n_steps).tolist()
        z = tf.reshape(tf.stack([mode(z0, z1, t) for t in times], axis=1), [-1, *self.base.event_shape])
        if self.context_dim is None:
            mixed = None
        else:
            mixed = tf.stack([latents.linear(*(tf.cast(c, z.dtype) for c in contexts), t) for t in times], axis=1)
            mixed = tf.reshape(mixed, [-1, self.context_dim])
        x = self.decode(z, mixed, batch_size=batch_size)
        x = tf.reshape(x, [-1, n_steps, *self.bijector.event_shape])
        return x[0] if is_single else x

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

    # Questions to flows of one number, or whose Jacobian is triangular.

    def cdf(self, x, context=None) -> tf.Tensor:
        """P(X <= x) for a flow of one number: exact, through its monotone map and the base's cdf.

        Args:
          x: `[n, 1]`.
          context: `[n, context_dim]`, if the flow is conditional.

        Returns:
          `[n]`.

        Raises:
          ValueError: for events of another shape, a map that is not monotone (angles), or a base without a cdf.
        """
        return questions.cdf(self, x, context)

    def quantile(self, p, context=None) -> tf.Tensor:
        """The x `[n, 1]` of which P(X <= x) = p, for a flow of one number: the inverse of `cdf`.

        Args:
          p: `[n]` in (0, 1), or one number, for all rows of the context.
          context, Raises: as in `cdf`.
        """
        return questions.quantile(self, p, context)

    def rosenblatt(self, x, context=None) -> tf.Tensor:
        """u_i = P(X_i <= x_i | the scalars before it), `[n, D]`: independent uniform numbers, if the flow is right.

        Of triangular flows, such as `MAF(n_dim, alternate=False)`; "before" is in `bijector.triangular_order`. Numbers
        are kept inside (0, 1), where the dtype would round them to 1.

        Args:
          x: `[n, D]`.
          context: `[n, context_dim]`, if the flow is conditional.

        Raises:
          ValueError: for a flow that is not triangular, scalars that are angles, or a base without a cdf.

        Reference:
          Rosenblatt (1952), Remarks on a multivariate transformation, https://doi.org/10.1214/aoms/1177729394
        """
        return questions.rosenblatt(self, x, context)

    def inverse_rosenblatt(self, u, context=None) -> tf.Tensor:
        """The x `[n, D]` of which `rosenblatt` makes u `[n, D]`, in (0, 1); quasi-random u make even draws."""
        return questions.inverse_rosenblatt(self, u, context)

    def conditional(self, known, context=None, *, n_draws: int = 1000, seed=None) -> questions.Conditional:
        """The distribution of the other scalars, given some: `flow.conditional({0: 1.2, 2: 0.3}).sample(100)`.

        Of triangular flows, such as `MAF(n_dim, alternate=False)`. Draws and densities are exact if the known scalars
        come first in `bijector.triangular_order`; if not, by sequential importance sampling with resampling.

        Args:
          known: {column: value}, at least one, not all.
          context: one condition `[context_dim]` (or label), if the flow is conditional.
          n_draws: weighted draws, where they are needed, >= 2.
          seed: of those for the norm of `log_prob`.

        Returns:
          An object with `columns`, those of the other scalars; `sample(n, seed=)`, `[n, k]`; `log_prob(x)` of values
          `[n, k]` of theirs; `log_evidence`, the log-density of the known values as an `Estimate`;
          `weighted(n, seed=)`, draws with weights and their effective number; and `is_exact`.

        Raises:
          ValueError: for a flow that is not triangular, or a base of dependent scalars.
        """
        return questions.Conditional(self, known, context, n_draws, seed)

    def marginal_log_prob(self, x, context=None, *, n_draws: int = 1000, seed=None) -> questions.Estimate:
        """Log-density in nats of the scalars that are known; those that are NaN in x are integrated out.

        Of triangular flows. Exact where the known scalars come first in `bijector.triangular_order`; elsewhere the
        density is estimated without bias by `n_draws` imputations of each row, so its logarithm is low by about half
        its squared error.

        Args:
          x: `[n, D]`, NaN where a number is missing.
          context: `[n, context_dim]`, if the flow is conditional.
          n_draws, seed: as in `conditional`.

        Returns:
          `Estimate(value, error)`, `[n]` each; errors are 0 where values are exact.

        Raises:
          ValueError: as `conditional` does.
        """
        return questions.marginal_log_prob(self, x, context, n_draws, seed)

    # What they compute, in graph.

    def _log_prob(self, x, context, temperature=1.0):
        points, log_weight = self.bijector.dequantize(x, context)
        z, log_det = self._encode(points, context)
        log_prob = self.base.log_prob(z, temperature) + log_det
        if log_weight is not None:
            log_prob += log_weight
        if len(points.shape) > len(x.shape):  # several points of each row
            log_prob = tf.reduce_logsumexp(log_prob, axis=0) - math.log(points.shape[0])
        return log_prob

    def _encode(self, x, context):
        return self.bijector.inverse_and_log_det(x, context)

    def _scalar_log_probs(self, x, context):
        """z and log p(x_i | those before), `[n, D]`, of a triangular flow."""
        z, log_dets = self.bijector.inverse_and_log_dets(x, context)
        return z, self.base.log_probs(z) + log_dets

    def _decode(self, z, context):
        return self.bijector.forward_and_log_det(z, context)

    def _sample_and_log_prob(self, shape, context, seed, temperature):
        z = self.base.sample(shape, seed, temperature)
        x, log_det = self.bijector.forward_and_log_det(z, context)
        if self.bijector.is_discrete:
            x = self.bijector.quantize(x)
            return x, self._log_prob(x, context, temperature)
        return x, self.base.log_prob(z, temperature) - log_det

    def _sample_only(self, shape, context, seed, temperature):
        z = self.base.sample(shape, seed, temperature)
        return self.bijector.quantize(self.bijector.forward_and_log_det(z, context)[0])

    def _sample_rows(self, seeds, context, temperature, stream=0):
        uniform = tf.cast(seeded_uniform(seeds, self.base.n_uniform, stream), self.accepts.dtype)
        z = self.base.from_uniform(uniform, tf.cast(temperature, uniform.dtype))
        return self.bijector.quantize(self.bijector.forward_and_log_det(z, context)[0])

    def _flows(self):
        return [self]

    @property
    def default_loss(self):
        return self.bijector.default_loss or super().default_loss

    def _temperature(self, temperature):
        sizes = self.bijector.level_sizes
        if sizes is None or inputs.is_symbolic(temperature) or np.ndim(temperature) == 0:
            return super()._temperature(temperature)
        each = np.asarray(temperature, self.accepts.dtype)
        if each.shape != (len(sizes),) or not np.all(np.isfinite(each) & (each >= 0.0)):
            raise ValueError(f"Expected {len(sizes)} finite temperatures >= 0, one for each level; got {temperature}.")
        return np.repeat(each, sizes)

    def _adapt(self, rows, verbose):
        self.bijector.adapt(rows.x, rows.context, sample_weight=rows.weight, verbose=verbose)

    def _check_value(self, verb, value):
        if verb == "decode":
            return self.accepts.value(value, "z", self.base.event_shape)
        return super()._check_value(verb, value)

    # Facts and files.

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

    def __repr__(self):
        return (
            f"FlowModel({describe(self.bijector)}, event_shape={self.bijector.event_shape}, "
            f"context_dim={self.context_dim}, base={type(self.base).__name__}, weights={self.count_params():,})"
        )

    def summary(self, print_fn=print, **kwargs):
        """Prints the flow part by part, from the data to the latent, with numbers of weights."""
        del kwargs  # Keras' layout options have no meaning for this table
        print_fn(summary.table(self))
