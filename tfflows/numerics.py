"""Maths that would still make sense without flows: bounds, event sums, permutations."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from tensorflow.compiler.tf2xla.ops import gen_xla_ops
from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext

# How random numbers are made. Named, because what TensorFlow chooses differs between devices, and on a CPU under
# XLA it is 15 times slower.
RANDOM = "philox"

_seed = contextvars.ContextVar("seed", default=None)


@contextlib.contextmanager
def training_randomness(seed: tf.Tensor):
    """Whatever estimates something from random numbers draws them from `seed` (two integers) inside.

    A training step takes a new seed each time, so that its estimates have no bias. Outside there is none, and the
    same numbers are drawn each time, so that densities and held-out losses can be repeated and compared.
    """
    token = _seed.set(seed)
    try:
        yield
    finally:
        _seed.reset(token)


def training_seed() -> tf.Tensor | None:
    """The two integers of `training_randomness`, or None outside it."""
    return _seed.get()


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


def split_last(x: tf.Tensor, shape: Sequence[int]) -> tf.Tensor:
    """Reshapes the last axis of `x` into `shape`, known statically whatever the batch."""
    shape = list(shape)
    if x.shape.rank == 2 or x.shape[:-1].is_fully_defined():
        batch = [-1 if n is None else n for n in x.shape[:-1]]
        return tf.reshape(x, [*batch, *shape])
    split = tf.reshape(x, tf.concat([tf.shape(x)[:-1], shape], axis=0))
    return tf.ensure_shape(split, x.shape[:-1].concatenate(shape))


def safe_sqrt(x: tf.Tensor) -> tf.Tensor:
    """Square root with value and gradient zero where `x` <= 0 (rounding can put it there)."""
    positive = x > 0.0
    return tf.where(positive, tf.sqrt(tf.where(positive, x, tf.ones_like(x))), tf.zeros_like(x))


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
