"""Noise: where data on thin manifolds are blurred in training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfflows.bijectors.base import Bijector
from tfflows.numerics import check_counts
from tfflows.randomness import normal, uniform
from tfflows.serialization import register

LOUDEST = 2.0  # what the nets hear of the largest scale: about as much as of a standardised scalar


@register
class Noise(Bijector):
    """The place in a chain where `losses.NoisyLikelihood` adds noise; the map itself is the identity.

    The parts between it and the latent hear the scale of the noise as the last number of their context, and so must
    have a context_dim of one more than the flow's users are asked for. They learn the data blurred by every scale up to
    the largest one, which are densities however thin the data are, and what they learn of the wide ones carries over to
    the thin ones. Wherever no scale is named the flow hears zero.

    Args:
      n_dim: number of scalars.
      max_scale: the largest standard deviation of the noise, in units of what comes out of the parts before (of each
        scalar's standard deviation, after `Standardize`), > 0.
      default_loss: what `fit` minimises unless `compile` names another; a `losses.NoisyLikelihood`.

    Raises:
      ValueError: for a scale that is not positive and finite.

    Reference:
      Kim, Lee, Kang & Kim (2020), SoftFlow: probabilistic framework for normalizing flow on manifolds,
      https://arxiv.org/abs/2006.04604
    """

    def __init__(self, n_dim: int, max_scale: float = 0.1, default_loss=None, name: str | None = None):
        parameters = dict(locals())
        check_counts(n_dim=n_dim)
        if not 0.0 < max_scale < np.inf:
            raise ValueError(f"Expected a finite scale of noise max_scale > 0; got {max_scale}.")
        super().__init__(parameters, event_shape=(n_dim,), is_constant_jacobian=True, name=name)
        self.max_scale = float(max_scale)
        self._default_loss = default_loss

    def scales(self, n_rows: tf.Tensor | int, power: float, seed: tf.Tensor) -> tf.Tensor:
        """Scales at random, `[n_rows]`: max_scale u^power with u uniform in [0, 1).

        Args:
          n_rows: how many.
          power: > 0.
          seed: two integers.
        """
        return self.max_scale * uniform([n_rows], seed, self.dtype) ** power

    def blur(self, x: tf.Tensor, scale: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """`x` `[n, D]` with normal noise of `scale` `[n]`, drawn by `seed`, two integers."""
        return x + scale[:, tf.newaxis] * normal(tf.shape(x), seed, x.dtype)

    def heard(self, context: tf.Tensor | None, scale: tf.Tensor | float = 0.0) -> tf.Tensor:
        """The context of parts after it: the users' and the scale of the noise, `[..., width + 1]`.

        Args:
          context: `[..., width]`, or None.
          scale: `[...]`, in [0, max_scale].
        """
        told = tf.cast(scale, self.dtype)[..., tf.newaxis] * (LOUDEST / self.max_scale)
        if context is None:
            return told
        return tf.concat([context, tf.broadcast_to(told, tf.concat([tf.shape(context)[:-1], [1]], axis=0))], axis=-1)

    def check_scale(self, scale: float | Sequence[float] | tf.Tensor) -> None:
        """Refuses a scale that was not trained with.

        Args:
          scale: a number, or any number of them.

        Raises:
          ValueError: unless all are in [0, max_scale].
        """
        if not np.all((np.asarray(scale) >= 0.0) & (np.asarray(scale) <= self.max_scale)):  # NaN is not
            raise ValueError(
                f"Expected noise_scale from 0 to {self.max_scale:g}, which it was trained with; got {scale}."
            )

    def _forward_and_log_det(self, z, context):
        return z, tf.zeros(tf.shape(z)[:-1], z.dtype)

    def _inverse_and_log_det(self, x, context):
        return x, tf.zeros(tf.shape(x)[:-1], x.dtype)

    def _inverse_and_log_dets(self, x, context):
        return x, tf.zeros_like(x)

    @property
    def is_elementwise(self):
        return True

    @property
    def noise(self):
        return self

    @property
    def default_loss(self):
        return self._default_loss

    def describe(self):
        return f"Noise of a scale up to {self.max_scale:g} in training"


def users_context_dim(bijector: Bijector) -> int | None:
    """Width of the context that users give: without the scale of the noise."""
    if bijector.noise is None:
        return bijector.context_dim
    if bijector.context_dim is None:
        raise ValueError("Expected parts that hear the scale of the noise, with a context_dim; got none.")
    return bijector.context_dim - 1 or None
