"""Linear maps of the whole event."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfflows.bijectors.base import Bijector
from tfflows.numerics import inverse_permutation, permute
from tfflows.serialization import register


@register
class Permutation(Bijector):
    """Reorders the scalars.

    x_i = z_permutation[i];  log-det = 0.

    Args:
      permutation: a permutation of 0 .. D - 1. See also `Permutation.reverse` and `Permutation.random`.
    """

    def __init__(self, permutation: Sequence[int], name: str | None = None):
        parameters = dict(locals())
        permutation = np.asarray(permutation)
        if permutation.ndim != 1 or sorted(permutation.tolist()) != list(range(len(permutation))):
            raise ValueError(f"Expected a permutation of 0 .. D - 1; got {permutation.tolist()}.")
        super().__init__(parameters, event_shape=permutation.shape, is_constant_jacobian=True, name=name)
        self._permutation = permutation
        self._undo = inverse_permutation(permutation)

    @classmethod
    def reverse(cls, n_dim: int) -> Permutation:
        """Last scalar first."""
        return cls(np.arange(n_dim)[::-1])

    @classmethod
    def random(cls, n_dim: int, seed: int) -> Permutation:
        """A random order that the seed fixes."""
        return cls(np.random.default_rng(seed).permutation(n_dim))

    def _forward_and_log_det(self, z, context):
        return permute(z, self._permutation), tf.zeros(tf.shape(z)[:-1], z.dtype)

    def _inverse_and_log_det(self, x, context):
        return permute(x, self._undo), tf.zeros(tf.shape(x)[:-1], x.dtype)

    def describe(self):
        return f"Permutation of {len(self._permutation)}"
