"""FlowModel: a bijector and a base distribution as one Keras model."""

from __future__ import annotations

import tensorflow_probability as tfp

from tfflows import bases, inputs, summary
from tfflows.bijectors.base import Bijector, describe
from tfflows.density import Density
from tfflows.serialization import deserialize, register, serialize


@register
class FlowModel(Density):
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

    # The verbs that need one latent space; the others are those of `Density`.

    def encode(self, x, context=None, *, return_log_det: bool = False, batch_size: int | None = None):
        """The latents z `[n, *latent]` of data x, and log |det dz/dx| `[n]` if `return_log_det`."""
        z, log_det = self._over_rows("encode", x, context, batch_size)
        return (z, log_det) if return_log_det else z

    def decode(self, z, context=None, *, return_log_det: bool = False, batch_size: int | None = None):
        """The data x `[n, *event]` of latents z, and log |det dx/dz| `[n]` if `return_log_det`."""
        x, log_det = self._over_rows("decode", z, context, batch_size)
        return (x, log_det) if return_log_det else x

    # What they compute, in graph.

    def _log_prob(self, x, context, temperature=1.0):
        z, log_det = self._encode(x, context)
        return self.base.log_prob(z, temperature) + log_det

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

    def _flows(self):
        return [self]

    @property
    def default_loss(self):
        return self.bijector.default_loss or super().default_loss

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
