"""Stock TFP distributions as bases."""

from __future__ import annotations

import tensorflow as tf
import tensorflow_probability as tfp

from tfflows.bases.base import Base
from tfflows.serialization import deserialize, register, serialize


@register
class FromTFP(Base):
    """A stock TFP distribution without variables as base, such as `tfd.MultivariateNormalTriL(...)`.

    Args:
      distribution: with an empty batch shape. It knows no temperature but 1.

    Raises:
      ValueError: for a distribution with variables or a batch shape, and of its methods for a temperature other than 1.
    """

    def __init__(self, distribution: tfp.distributions.Distribution, **kwargs):
        if distribution.trainable_variables:
            raise ValueError(
                f"Expected a TFP distribution without variables, which Keras cannot train or save; got "
                f"{distribution}. `bases` has learned ones."
            )
        if distribution.batch_shape.rank != 0:
            raise ValueError(f"Expected an empty batch shape; got {distribution.batch_shape}.")
        super().__init__(distribution.event_shape.as_list(), **kwargs)
        self.distribution = distribution
        self.is_reparameterized = distribution.reparameterization_type == tfp.distributions.FULLY_REPARAMETERIZED

    def log_prob(self, z, temperature=1.0):
        """As of `Base`, of `z` and a `temperature` of 1.

        Raises:
          ValueError: for another temperature.
        """
        check_temperature(temperature)
        return self.distribution.log_prob(tf.identity(z))

    def sample(self, shape, seed, temperature=1.0):
        """As of `Base`, of `shape` and `seed`, at a `temperature` of 1.

        Raises:
          ValueError: for another temperature.
        """
        check_temperature(temperature)
        return self.distribution.sample(shape, seed=seed)

    def get_config(self):
        config = super().get_config()
        del config["event_shape"]
        return {**config, "distribution": serialize(self.distribution)}

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        return cls(deserialize(config.pop("distribution")), **config)


def check_temperature(temperature) -> None:
    """Raises unless `temperature` is known to be 1."""
    static = tf.get_static_value(temperature)
    if static is None or static != 1.0:
        raise ValueError(f"Expected temperature 1 with a stock TFP distribution as base; got {temperature}.")
