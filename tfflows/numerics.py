"""Maths that would still make sense without flows: bounds, event sums, permutations."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
from tensorflow.compiler.tf2xla.ops import gen_xla_ops
from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext

from tfflows import products as exact

MAX_DIM_EXACT = 8  # up to so many scalars a whole Jacobian is worth its derivatives, one for each

STEEPEST = 1e10  # gradient: the squares of more, summed over a batch, would be more than float32 has


def softclip(x: tf.Tensor, bound: float) -> tf.Tensor:
    """Squashes the real line into (-bound, bound), with slope 1 at zero.

    softclip(x) = x / (1 + |x| / bound). Its slope decays like 1/x^2 where tanh's decays
    exponentially, so an extreme value still gets a gradient and can come back.
    """
    return x / (1.0 + tf.abs(x) / bound)


def softclip_gradient(upstream: tf.Tensor, x: tf.Tensor, bound: float) -> tf.Tensor:
    """`upstream` times the derivative of `softclip`, which is in (0, 1]."""
    return upstream / tf.square(1.0 + tf.abs(x) / bound)


def sum_event(x: tf.Tensor, event_ndims: int) -> tf.Tensor:
    """Sums `x` over its last `event_ndims` axes."""
    if event_ndims == 0:
        return x
    return tf.reduce_sum(x, axis=list(range(-event_ndims, 0)))


def check_counts(**counts: int) -> None:
    """Raises a ValueError that names them if not all are integers >= 1."""
    if not all(isinstance(n, (int, np.integer)) and n >= 1 for n in counts.values()):
        wanted = " and ".join(f"{name} >= 1" for name in counts)
        got = ", ".join(f"{name}={n}" for name, n in counts.items())
        raise ValueError(f"Expected integers {wanted}; got {got}.")


def times(x: tf.Tensor, kernel: tf.Tensor, matmul: Callable = tf.matmul) -> tf.Tensor:
    """`x` `[..., n]` times `kernel` `[n, m]`, as a product of two matrices.

    Of more axes than two, `tf.matmul` is a batch of products. Where one has a length of 1 and a sum follows, TensorFlow
    2.21 on a CPU fuses the two into an operation (of oneDNN) that writes beyond its memory. `matmul` is that of
    `products` where `kernel` is part of a bijection.
    """
    if x.shape.rank == 2:
        return matmul(x, kernel)
    product = matmul(tf.reshape(x, [-1, x.shape[-1]]), kernel)
    batch = list(x.shape[:-1])
    if batch.count(None) > 1:
        return tf.reshape(product, tf.concat([tf.shape(x)[:-1], kernel.shape[1:]], axis=0))
    return tf.reshape(product, [-1 if n is None else n for n in batch] + [kernel.shape[1]])


def split_last(x: tf.Tensor, shape: Sequence[int]) -> tf.Tensor:
    """Reshapes the last axis of `x` into `shape`, known statically whatever the batch."""
    shape = list(shape)
    if x.shape.rank == 2 or x.shape[:-1].is_fully_defined():
        batch = [-1 if n is None else n for n in x.shape[:-1]]
        return tf.reshape(x, [*batch, *shape])
    split = tf.reshape(x, tf.concat([tf.shape(x)[:-1], shape], axis=0))
    split.set_shape(x.shape[:-1].concatenate(shape))  # no operation, which TFLite would not know
    return split


def safe_sqrt(x: tf.Tensor) -> tf.Tensor:
    """Square root with value and gradient zero where `x` <= 0 (rounding can put it there)."""
    positive = x > 0.0
    return tf.where(positive, tf.sqrt(tf.where(positive, x, tf.ones_like(x))), tf.zeros_like(x))


def solve_increasing(
    function: Callable[[tf.Tensor], tf.Tensor], target: tf.Tensor, low: tf.Tensor, high: tf.Tensor
) -> tf.Tensor:
    """The x in [low, high] with function(x) = target, to the last digits of the dtype. No gradient flows through it.

    By bisection: some 30 evaluations in float32, 60 in float64. Faster rules stop early only where every entry of a
    batch is easy, which in a large batch is never.

    Args:
      function: increasing in each entry of its argument, entry by entry.
      target, low, high: of one shape. Where the function does not reach the target, the nearer end is the answer.
    """
    target, low, high = (tf.stop_gradient(v) for v in (target, low, high))
    eps = np.finfo(target.dtype.as_numpy_dtype).eps

    def unfinished(low, high):
        return tf.reduce_any(high - low > eps * tf.maximum(tf.maximum(tf.abs(low), tf.abs(high)), 1.0))

    def body(low, high):
        middle = 0.5 * (low + high)
        below = tf.stop_gradient(function(middle)) < target
        return tf.where(below, middle, low), tf.where(below, high, middle)

    # From an interval as wide as 1e20 to neighbouring numbers of float64.
    low, high = tf.while_loop(unfinished, body, (low, high), maximum_iterations=120)
    return tf.stop_gradient(0.5 * (low + high))


def expm_skew(skew: tf.Tensor) -> tf.Tensor:
    """The exponential of a skew-symmetric matrix `[D, D]`, which is a rotation to the last digits.

    By a Taylor polynomial of a matrix halved so often that its norm is below 1/2, then squared as often. The rounding
    of ten squarings is taken away by a step of Newton's rule towards the nearest orthogonal matrix.
    """
    n_squarings, degree = 10, 12  # 0.5^13 / 13! = 2e-14
    identity = tf.eye(skew.shape[0], dtype=skew.dtype)
    norm = tf.stop_gradient(tf.reduce_max(tf.reduce_sum(tf.abs(skew), axis=0)))
    # Further than 2^10 / 2 no angle needs to go; there the matrix grows no more.
    skew = skew / tf.maximum(norm / 2.0 ** (n_squarings - 1), 1.0)
    needed = tf.math.ceil(tf.math.log(tf.maximum(2.0 * norm, 1.0)) / np.log(2.0))
    needed = tf.minimum(needed, float(n_squarings))
    scaled = skew * tf.pow(tf.constant(0.5, skew.dtype), needed)
    result = identity
    for k in range(degree, 0, -1):
        result = identity + exact.matmul(scaled, result) / k
    for i in range(n_squarings):
        result = tf.where(i < needed, exact.matmul(result, result), result)
    return 1.5 * result - 0.5 * exact.matmul(result, exact.matmul(result, result, transpose_a=True))


def orthogonal_from_reflections(directions: tf.Tensor) -> tf.Tensor:
    """The product H_1 ... H_K `[D, D]` of the reflections I - 2 v v^T / |v|^2 in `directions` v `[K, D]`.

    In the compact form I - V T V^T, where the inverse of T has half the squared lengths on its diagonal and the scalar
    products above it: Joffrain, Low, Quintana-Orti, van de Geijn & Van Zee (2006), Accumulating Householder
    transformations, revisited, https://doi.org/10.1145/1141885.1141886.
    """
    # The length of a direction means nothing; a vanished one stays finite.
    units = directions / tf.maximum(tf.norm(directions, axis=-1, keepdims=True), 1e-12)
    products = exact.matmul(units, units, transpose_b=True)
    upper = tf.linalg.set_diag(tf.linalg.band_part(products, 0, -1), 0.5 * tf.linalg.diag_part(products))
    # A vanished direction reflects nothing, but must not divide by zero.
    diagonal = tf.linalg.diag_part(upper)
    upper = tf.linalg.set_diag(upper, tf.where(diagonal > 0.25, diagonal, tf.ones_like(diagonal)))
    solved = tf.linalg.triangular_solve(upper, units, lower=False)
    return tf.eye(directions.shape[1], dtype=directions.dtype) - exact.matmul(units, solved, transpose_a=True)


def root_of_increasing(
    function: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]], target: tf.Tensor, low: tf.Tensor, high: tf.Tensor
) -> tf.Tensor:
    """The x in [low, high] with function(x) = target, with the gradient of the implicit function, of first order.

    Args:
      function: x to its value, which increases, and its slope, > 0, entry by entry.
      target, low, high: of one shape.
    """
    found = solve_increasing(lambda x: function(x)[0], target, low, high)
    return implicit_root(found, target, *function(found))


def implicit_root(found: tf.Tensor, target: tf.Tensor, value: tf.Tensor, slope: tf.Tensor) -> tf.Tensor:
    """The root `found`, where a function has `value` and `slope`, with the gradient of the implicit function.

    One step of Newton's rule: nothing but rounding in value.
    """
    return found + (target - value) / tf.stop_gradient(slope)


def in_graph(function: Callable) -> Callable:
    """A function of tensors that runs as a graph in eager mode too, where hundreds of operations would take seconds."""
    compiled = tf.function(function, autograph=False)

    def run(*args):
        return compiled(*args) if tf.executing_eagerly() else function(*args)

    return run


def spectral_norm_bound(matrix: tf.Tensor) -> tf.Tensor:
    """A number at least as large as the spectral norm of `matrix` `[n, m]`, and larger by at most min(n, m)^(1 / 64).

    The Schatten norm of order 64, (sum of singular values^64)^(1 / 64), by five squarings.
    """
    is_tall = matrix.shape[0] > matrix.shape[1]
    power = exact.matmul(matrix, matrix, transpose_a=is_tall, transpose_b=not is_tall)
    log_scale = tf.zeros([], matrix.dtype)
    tiny = np.finfo(matrix.dtype.as_numpy_dtype).tiny
    for _ in range(5):
        # Kept at a norm of 1, which squares without overflow.
        norm = tf.sqrt(tf.reduce_sum(tf.square(power)) + tiny)
        log_scale = 2.0 * (log_scale + tf.math.log(norm))
        power = power / norm
        power = exact.matmul(power, power)
    log_norm = log_scale + 0.5 * tf.math.log(tf.reduce_sum(tf.square(power)) + tiny)
    # The last factor covers the rounding of all that.
    return tf.exp(log_norm / 64.0) * (1.0 + 64.0 * np.finfo(matrix.dtype.as_numpy_dtype).eps)


def log_det_of_positive(matrix: tf.Tensor) -> tf.Tensor:
    """log det of matrices `[..., D, D]` whose symmetric part is positive definite, for small D.

    By elimination: for these all pivots are positive, in any order. XLA has no determinant.
    """
    total = 0.0
    for _ in range(matrix.shape[-1]):
        pivot = matrix[..., 0, 0]
        total = total + tf.math.log(pivot)
        outer = matrix[..., 1:, :1] * (matrix[..., :1, 1:] / pivot[..., tf.newaxis, tf.newaxis])
        matrix = matrix[..., 1:, 1:] - outer
    return total


def above_minus_one(x: tf.Tensor) -> tf.Tensor:
    """The real line into (-0.99, inf), increasing; zero at zero: for what is added to 1 and must stay positive."""
    least = -0.99  # slopes of a hundredth can be inverted in float32
    return least + tf.math.softplus(x + math.log(math.expm1(-least)))


def safe_norm(x: tf.Tensor) -> tf.Tensor:
    """Euclidean norm along the last axis, whose gradient at zero is zero."""
    return safe_sqrt(tf.reduce_sum(tf.square(x), axis=-1))


def normal_quantile(p: np.ndarray) -> np.ndarray:
    """Quantiles of the standard normal distribution at `p` in (0, 1)."""
    return tf.math.ndtri(tf.constant(p, tf.float64)).numpy()


def weighted_quantile(x: np.ndarray, weight: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Quantiles of numbers `x` `[n]` with weights `[n]` that sum to 1, at `levels` in [0, 1]."""
    order = np.argsort(x)
    middle = np.cumsum(weight[order]) - 0.5 * weight[order]
    return np.interp(levels, middle, x[order])


def kernel_density(x: np.ndarray, weight: np.ndarray, at: np.ndarray, width: float) -> tuple[np.ndarray, np.ndarray]:
    """Density and distribution function at points `at` `[m]`, of weighted normals of one `width` around x `[n]`."""
    scaled = tf.constant((at[:, np.newaxis] - x) / width)
    density = tf.linalg.matvec(tf.exp(-0.5 * tf.square(scaled)), weight) / (width * math.sqrt(2.0 * math.pi))
    cumulative = tf.linalg.matvec(0.5 * tf.math.erfc(scaled * -math.sqrt(0.5)), weight)
    return density.numpy(), cumulative.numpy()


def k_means(x: np.ndarray, weight: np.ndarray, k: int, n_steps: int = 50, max_rows: int = 20_000) -> np.ndarray:
    """Labels 0 .. k - 1 of rows `x` `[n, D]` of weights `[n]` > 0.

    Lloyd's algorithm from k-means++ centres, found on `max_rows` of them.

    Reference:
      Arthur & Vassilvitskii (2007), k-means++: the advantages of careful seeding, SODA
    """
    rng = np.random.default_rng(0)
    chosen = rng.permutation(len(x))[:max_rows]
    some, weight = x[chosen], weight[chosen]

    def squared_distances(rows, centres):
        return np.stack([np.sum((rows - centre) ** 2, axis=1) for centre in centres], axis=1)

    centres = [some[rng.choice(len(some), p=weight / weight.sum())]]
    for _ in range(k - 1):
        nearest = weight * squared_distances(some, centres).min(axis=1)
        total = nearest.sum()
        centres.append(some[rng.choice(len(some), p=nearest / total) if total > 0.0 else rng.integers(len(some))])
    centres = np.stack(centres)
    for _ in range(n_steps):
        labels = squared_distances(some, centres).argmin(axis=1)
        means = centres.copy()
        for i in np.unique(labels):
            means[i] = np.average(some[labels == i], axis=0, weights=weight[labels == i])
        if np.array_equal(means, centres):
            break
        centres = means
    return squared_distances(x, centres).argmin(axis=1)


def wrap(x: tf.Tensor, bound: float) -> tf.Tensor:
    """Wraps a circular coordinate of period 2 * `bound` into [-bound, bound)."""
    wrapped = x - 2.0 * bound * tf.floor((x + bound) / (2.0 * bound))
    # Rounding can leave a value on or just beyond an edge.
    return tf.where(wrapped >= bound, -bound * tf.ones_like(wrapped), wrapped)


def permute(x: tf.Tensor, permutation: Sequence[int]) -> tf.Tensor:
    """`x` with the entries of its last axis reordered: y[..., i] = x[..., permutation[i]].

    The gradient is the permutation back, where that of `tf.gather` would be a scatter, and a few contiguous
    pieces are cut and joined.
    """
    permutation = np.asarray(permutation)
    if np.array_equal(permutation, np.arange(len(permutation))):
        return x

    @tf.custom_gradient
    def reorder(x):
        return _reorder(x, permutation), lambda upstream: permute(upstream, inverse_permutation(permutation))

    return reorder(x)


def _reorder(x, permutation):
    if np.array_equal(permutation, np.arange(len(permutation))[::-1]):
        return tf.reverse(x, axis=[-1])
    pieces = np.split(permutation, np.flatnonzero(np.diff(permutation) != 1) + 1)
    if len(pieces) <= 4:
        return tf.concat([x[..., piece[0] : piece[-1] + 1] for piece in pieces], axis=-1)
    return tf.gather(x, permutation, axis=-1)


def inverse_permutation(permutation: Sequence[int]) -> np.ndarray:
    """The permutation that undoes `permutation`."""
    return np.argsort(np.asarray(permutation))


@tf.custom_gradient
def set_rows(array: tf.Tensor, rows: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
    """`array` `[n, m]` with `rows` `[k, m]` in the place of its rows from `start` on.

    In a loop that XLA compiles this writes in place. The operation for that has no public name; a scatter,
    which has one, copies the array.
    """
    if not tf.executing_eagerly() and GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()):
        result = gen_xla_ops.xla_dynamic_update_slice(array, rows, tf.stack([start, 0]))
    else:
        index = start + tf.range(rows.shape[0])
        result = tf.tensor_scatter_nd_update(array, index[:, tf.newaxis], rows)

    def gradient(upstream):
        size = tf.shape(rows)
        return set_rows(upstream, tf.zeros_like(rows), start), tf.slice(upstream, [start, 0], size), None

    return result, gradient


@tf.custom_gradient
def finite_gradient(z):
    """z; the gradient that comes back is zero where it is not finite, as beyond an edge of the density, and bounded."""

    def backward(gradient):
        finite = tf.reduce_all(tf.math.is_finite(gradient), axis=-1, keepdims=True)
        return tf.where(finite, tf.clip_by_value(gradient, -STEEPEST, STEEPEST), tf.zeros_like(gradient))

    return tf.identity(z), backward
