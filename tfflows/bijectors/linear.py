"""Linear maps of the last axis: permutations and matrices."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfflows.bijectors.base import Bijector
from tfflows.nets import Constant
from tfflows.numerics import expm_skew, inverse_permutation, orthogonal_from_reflections, permute, times
from tfflows.products import matmul
from tfflows.serialization import register


@register
class Permutation(Bijector):
    """Reorders the scalars.

    x_i = z_permutation[i];  log-det = 0.

    Args:
      permutation: a permutation of 0 .. D - 1. See also `Permutation.reverse` and `Permutation.random`.

    Raises:
      ValueError: for what is none.
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
        """Last of `n_dim` scalars first."""
        return cls(np.arange(n_dim)[::-1])

    @classmethod
    def random(cls, n_dim: int, seed: int) -> Permutation:
        """A random order of `n_dim` scalars that the `seed`, an integer, fixes."""
        return cls(np.random.default_rng(seed).permutation(n_dim))

    def _forward_and_log_det(self, z, context):
        return permute(z, self._permutation), tf.zeros(tf.shape(z)[:-1], z.dtype)

    def _inverse_and_log_det(self, x, context):
        return permute(x, self._undo), tf.zeros(tf.shape(x)[:-1], x.dtype)

    def on_circles(self, circular, bound):
        return self, np.asarray(circular)[self._undo]

    def describe(self):
        return f"Permutation of {len(self._permutation)}"


class _Matrix(Bijector):
    """What the matrices have in common: z = A x along the last axis, log |det dz/dx| = (other values) * log |det A|.

    Both A and its inverse are made from weights only, so each direction is one product with the data, and an
    exported flow holds them as constants.
    """

    def __init__(self, parameters, event_shape, *, name):
        shape = (event_shape,) if isinstance(event_shape, (int, np.integer)) else tuple(event_shape)
        if not shape or not all(isinstance(n, (int, np.integer)) and n >= 1 for n in shape):
            raise ValueError(f"Expected an event of at least one axis, of lengths >= 1; got {event_shape}.")
        super().__init__(parameters, event_ndims=len(shape), event_shape=shape, is_constant_jacobian=True, name=name)

    def _matrix(self) -> tf.Tensor:
        """A `[D, D]`."""
        raise NotImplementedError  # abstract

    def _inverse_matrix(self) -> tf.Tensor:
        """The inverse of A; of an orthogonal one the transpose."""
        return tf.transpose(self._matrix())

    def _matrix_log_det(self) -> tf.Tensor | float:
        """log |det A|."""
        return 0.0

    @property
    def _n_dim(self):
        return self.event_shape[-1]

    def _forward_and_log_det(self, z, context):
        return self._apply(z, self._inverse_matrix(), -1.0)

    def _inverse_and_log_det(self, x, context):
        return self._apply(x, self._matrix(), 1.0)

    def _apply(self, value, matrix, sign):
        log_det = sign * math.prod(self.event_shape[:-1]) * tf.cast(self._matrix_log_det(), value.dtype)
        batch = tf.shape(value)[: tf.rank(value) - len(self.event_shape)]
        return times(value, tf.transpose(tf.cast(matrix, value.dtype)), matmul), tf.broadcast_to(log_det, batch)

    def describe(self):
        return f"{type(self).__name__} of {self._n_dim}"


@register
class LU(_Matrix):
    """A general matrix of positive determinant, as the product of two triangular ones.

    z = L U Q x, with ones on the diagonal of L, positive numbers on that of U, and Q a fixed rotation;
    log |det dz/dx| = (other values) * sum_i log U_ii. L and U start as the identity.

    Args:
      event_shape: shape of an event, whose last axis is mapped; an int is one axis. With channels last this is
        Glow's 1x1 convolution.
      seed: None for Q = I; an integer makes Q a random orthogonal matrix, as in `RandomRotation`: in deep flows scalars
        are then mixed from the first step on.

    Raises:
      ValueError: for an event without axes, or of a length below 1.

    Reference:
      Kingma & Dhariwal (2018), Glow, https://arxiv.org/abs/1807.03039
    """

    def __init__(self, event_shape: int | Sequence[int], seed: int | None = None, name: str | None = None):
        super().__init__(dict(locals()), event_shape, name=name)
        self._seed = seed
        # Below the diagonal L, above it U, on it the logarithm of U's: as many weights as a matrix has numbers.
        self._packed = Constant((self._n_dim, self._n_dim))

    @functools.cached_property
    def _rotation(self):
        return None if self._seed is None else random_rotation(self._n_dim, self._seed)

    def _factors(self):
        packed = self._packed(None)
        lower = tf.linalg.set_diag(tf.linalg.band_part(packed, -1, 0), tf.ones_like(packed[0]))
        upper = tf.linalg.set_diag(tf.linalg.band_part(packed, 0, -1), tf.exp(tf.linalg.diag_part(packed)))
        return lower, upper

    def _matrix(self):
        lower, upper = self._factors()
        matrix = matmul(lower, upper)
        return matrix if self._rotation is None else matmul(matrix, tf.cast(self._rotation, matrix.dtype))

    def _inverse_matrix(self):
        lower, upper = self._factors()
        undone = tf.linalg.triangular_solve(lower, tf.eye(self._n_dim, dtype=lower.dtype))
        undone = tf.linalg.triangular_solve(upper, undone, lower=False)
        if self._rotation is None:
            return undone
        return matmul(tf.cast(self._rotation, undone.dtype), undone, transpose_a=True)

    def _matrix_log_det(self):
        return tf.linalg.trace(self._packed(None))


@register
class Householder(_Matrix):
    """An orthogonal matrix, as the product of reflections in learned directions.

    z = H_1 ... H_K x, H_k = I - 2 v_k v_k^T / |v_k|^2;  log-det = 0. It starts as the identity: the directions come in
    equal pairs, which training parts.

    Args:
      event_shape: shape of an event, whose last axis, of length D >= 2, is mapped; an int is one axis.
      n_reflections: K, even; by default D, or D + 1 where that is odd: enough for every rotation.

    Raises:
      ValueError: for an odd or non-positive K, or D = 1.

    Reference:
      Tomczak & Welling (2016), Improving variational auto-encoders using Householder flow,
      https://arxiv.org/abs/1611.09630
    """

    def __init__(self, event_shape: int | Sequence[int], n_reflections: int | None = None, name: str | None = None):
        super().__init__(dict(locals()), event_shape, name=name)
        self._directions = _directions(self._n_dim, n_reflections)

    def _matrix(self):
        return orthogonal_from_reflections(self._directions(None))


@register
class QR(_Matrix):
    """A general matrix of positive determinant, as an orthogonal and a triangular one.

    z = Q R x, with Q a product of reflections, and R upper triangular with a positive diagonal;
    log |det dz/dx| = (other values) * sum_i log R_ii. It starts as the identity.

    Args:
      event_shape, n_reflections: as in `Householder`.

    Raises:
      ValueError: as in `Householder`.

    Reference:
      Hoogeboom, van den Berg & Welling (2019), Emerging convolutions for generative normalizing flows,
      https://arxiv.org/abs/1901.11137
    """

    def __init__(self, event_shape: int | Sequence[int], n_reflections: int | None = None, name: str | None = None):
        super().__init__(dict(locals()), event_shape, name=name)
        self._directions = _directions(self._n_dim, n_reflections)
        self._packed = Constant((self._n_dim * (self._n_dim + 1) // 2,))

    @functools.cached_property
    def _rotation(self):
        return None if self._seed is None else random_rotation(self._n_dim, self._seed)

    def _factors(self):
        packed = tfp.math.fill_triangular(self._packed(None), upper=True)
        log_diagonal = tf.linalg.diag_part(packed)
        upper = tf.linalg.set_diag(packed, tf.exp(log_diagonal))
        return orthogonal_from_reflections(self._directions(None)), upper, log_diagonal

    def _matrix(self):
        orthogonal, upper, _ = self._factors()
        return matmul(orthogonal, upper)

    def _inverse_matrix(self):
        orthogonal, upper, _ = self._factors()
        return tf.linalg.triangular_solve(upper, tf.transpose(orthogonal), lower=False)

    def _matrix_log_det(self):
        return tf.reduce_sum(self._factors()[2])


@register
class MatrixExponential(_Matrix):
    """A rotation, as the exponential of a learned skew-symmetric matrix.

    z = exp(S) x, S^T = -S;  log-det = 0. Every rotation is one of these; it starts as the identity.

    Args:
      event_shape: shape of an event, whose last axis, of length D >= 2, is mapped; an int is one axis.

    Raises:
      ValueError: if D = 1.

    Reference:
      Lezcano-Casado & Martinez-Rubio (2019), Cheap orthogonal constraints in neural networks,
      https://arxiv.org/abs/1901.08428
    """

    def __init__(self, event_shape: int | Sequence[int], name: str | None = None):
        super().__init__(dict(locals()), event_shape, name=name)
        _check_rotates(self._n_dim)
        self._packed = Constant((self._n_dim * (self._n_dim - 1) // 2,))

    def _matrix(self):
        lower = tf.pad(tfp.math.fill_triangular(self._packed(None)), [[1, 0], [0, 1]])
        return expm_skew(lower - tf.transpose(lower))


@register
class RandomRotation(_Matrix):
    """A random orthogonal matrix that the seed fixes, and training leaves alone.

    z = Q x;  log-det = 0. All orthogonal matrices are equally probable.

    Args:
      event_shape: shape of an event, whose last axis is mapped; an int is one axis.
      seed: an integer.

    Raises:
      ValueError: as of `LU`.

    Reference:
      Mezzadri (2007), How to generate random matrices from the classical compact groups,
      https://arxiv.org/abs/math-ph/0609050
    """

    def __init__(self, event_shape: int | Sequence[int], seed: int = 0, name: str | None = None):
        super().__init__(dict(locals()), event_shape, name=name)
        self._seed = seed

    @functools.cached_property
    def _rotation(self):  # once it is needed: a file may be of any size
        return random_rotation(self._n_dim, self._seed)

    def _matrix(self):
        return tf.constant(self._rotation, self.dtype)


def random_rotation(n_dim: int, seed: int) -> np.ndarray:
    """A random orthogonal matrix `[n_dim, n_dim]`."""
    orthogonal, upper = np.linalg.qr(np.random.default_rng(seed).normal(size=(n_dim, n_dim)))
    # The signs that make the factors unique, and the same on every machine.
    return orthogonal * np.sign(np.diag(upper))


def _check_rotates(n_dim):
    if n_dim < 2:
        raise ValueError("Expected a last axis of length >= 2, to have something to rotate; got 1.")


def _directions(n_dim, n_reflections) -> Constant:
    """The directions `[K, D]` of K reflections, in equal pairs."""
    _check_rotates(n_dim)
    n = n_dim + n_dim % 2 if n_reflections is None else n_reflections
    if not isinstance(n, (int, np.integer)) or n < 2 or n % 2 == 1:
        raise ValueError(f"Expected an even n_reflections >= 2; got {n_reflections}.")
    return Constant((int(n), n_dim), _Pairs())


@register
class _Pairs(keras.initializers.Initializer):
    """Rows in equal pairs, of standard normal numbers."""

    def __call__(self, shape, dtype=None):
        draws = keras.initializers.RandomNormal(stddev=1.0)((shape[0] // 2, *shape[1:]), dtype=dtype)
        return tf.repeat(draws, 2, axis=0)
