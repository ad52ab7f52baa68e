"""Random numbers of training and of estimates: drawn anew in each step, repeatable elsewhere."""

from __future__ import annotations

import contextlib
import contextvars
import math
import random

import keras
import numpy as np
import tensorflow as tf

# How random numbers are made. Named, because what TensorFlow chooses differs between devices, and on a CPU under
# XLA it is 15 times slower.
RANDOM = "philox"

_seed = contextvars.ContextVar("seed", default=None)


@contextlib.contextmanager
def seeded(rng: np.random.Generator):
    """Inside, Keras draws from a seed of `rng`; the generators of Python and NumPy are afterwards as they were."""
    states = random.getstate(), np.random.get_state()
    keras.utils.set_random_seed(int(rng.integers(2**31 - 1)))
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


@contextlib.contextmanager
def training_randomness(seed: tf.Tensor | None):
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


def step_seeds(n: int) -> list[tf.Tensor]:
    """`n` seeds for random numbers of a loss: new in each training step, the same each time elsewhere."""
    seed = training_seed()
    return tf.unstack(tf.random.split(tf.zeros([2], tf.int32) if seed is None else seed, n, alg=RANDOM))


def uniform(shape, seed: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Numbers uniform in (0, 1), of `shape`, from a `seed` of two integers.

    The generator's bits are the same under XLA and without it, but not what TensorFlow makes of them: hence this.
    """
    is_double = dtype == tf.float64
    whole = tf.uint64 if is_double else tf.uint32
    bits = tf.random.stateless_uniform(shape, seed, minval=None, maxval=None, dtype=whole, alg=RANDOM)
    if not is_double:
        return _to_uniform(_shifted(bits, 9), dtype)
    first = tf.cast(tf.bitwise.right_shift(bits, tf.constant(12, tf.uint64)), tf.int64)
    return (tf.cast(first, dtype) + 0.5) / 2.0**52


def normal(shape, seed: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Standard-normal numbers, as `uniform`."""
    shape = tf.reshape(tf.cast(shape, tf.int32), [-1])
    u, v = tf.unstack(uniform(tf.concat([shape, [2]], axis=0), seed, dtype), axis=-1)
    return box_muller(u, v)


def box_muller(u: tf.Tensor, v: tf.Tensor) -> tf.Tensor:
    """Standard-normal numbers of uniform ones: Box & Muller (1958)."""
    return tf.sqrt(-2.0 * tf.math.log(u)) * tf.cos(2.0 * math.pi * v)


def random_signs(x: tf.Tensor, n_probes: int) -> tf.Tensor:
    """Signs -1 or 1 at random for each row of `x` `[n, D]`: `[n_probes, n, D]`, for estimates of traces.

    Inside `training_randomness` they are drawn from its seed. Elsewhere they are a scrambled function of the numbers in
    the row, to the nearest 1/64: a row has the same ones every time, whichever rows are with it, unless it was rounded
    across such a step on its way here; and the errors of many rows average out.
    """
    seed = training_seed()
    if seed is None:
        bits = _shifted(_scrambled(x, n_probes), 31)
    else:
        shape = [n_probes, *tf.unstack(tf.shape(x))]
        bits = tf.random.stateless_uniform(shape, seed, maxval=2, dtype=tf.int32, alg=RANDOM)
    return tf.cast(2 * bits - 1, x.dtype)


def random_uniform(x: tf.Tensor, event_ndims: int) -> tf.Tensor:
    """Numbers uniform in (0, 1), of the shape of `x` `[..., *event]`, drawn for each event as in `random_signs`."""
    seed = training_seed()
    if seed is None:
        n_dim = math.prod(x.shape[x.shape.rank - event_ndims :].as_list())
        bits = _shifted(_scrambled(tf.reshape(x, [-1, n_dim]), 1), 9)
    else:
        bits = tf.random.stateless_uniform(tf.shape(x), seed, maxval=2**23, dtype=tf.int32, alg=RANDOM)
    return _to_uniform(tf.reshape(bits, tf.shape(x)), x.dtype)


def seeded_uniform(seeds: tf.Tensor, n_numbers: int, stream: int = 0) -> tf.Tensor:
    """Numbers uniform in (0, 1) that follow from a row's seed alone, whichever rows are with it: `[n, n_numbers]`.

    The same in a SavedModel and in TFLite, where TensorFlow's generators are missing; by MurmurHash3's mixing.

    Args:
      seeds: int32 `[n]`.
      n_numbers: for each.
      stream: another one gives numbers independent of these.
    """
    first = tf.bitcast(seeds, tf.uint32) * tf.constant(_ODD, tf.uint32) + tf.constant(stream, tf.uint32)
    row = _mixed(_mixed(first) + tf.constant(0x9E3779B9, tf.uint32))
    # Mixed twice, so that neighbouring seeds and neighbouring places have nothing in common.
    bits = _mixed(_mixed(tf.bitwise.bitwise_xor(row[:, tf.newaxis], _multiples(n_numbers, 1))))
    return _to_uniform(_shifted(bits, 9), tf.float32)


def _to_uniform(bits, dtype):
    """23 bits as a number in (0, 1): a half more than they say, which float32 holds too."""
    return (tf.cast(bits, dtype) + 0.5) / 2.0**23


# 2^32 over the golden ratio, and odd, so that no multiple of it is lost.
_ODD = 2654435761


def _multiples(count, first):
    # Counted in the graph: as a constant they would be as large as the row, in every file.
    return tf.cast(tf.range(first, first + count), tf.uint32) * tf.constant(_ODD, tf.uint32)


def _mixed(number):
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        number = tf.bitwise.bitwise_xor(number, tf.bitwise.right_shift(number, tf.constant(shift, tf.uint32)))
        number *= tf.constant(factor, tf.uint32)
    return tf.bitwise.bitwise_xor(number, tf.bitwise.right_shift(number, tf.constant(16, tf.uint32)))


def _shifted(bits, n):
    return tf.cast(tf.bitwise.right_shift(bits, tf.constant(n, tf.uint32)), tf.int32)


def _scrambled(x, n_copies):
    """32 bits for each copy and scalar of each row `[n_copies, n, D]`, from the row's numbers."""
    n_dim = x.shape[-1]
    # Compared with the last digits, in which a layer before may round differently elsewhere, the steps are wide.
    steps = tf.round(64.0 * tf.clip_by_value(tf.cast(tf.stop_gradient(x), tf.float32), -1e6, 1e6))
    bits = tf.bitcast(tf.cast(steps, tf.int32), tf.uint32)
    # Added as signed numbers, whose overflow is the same, because TFLite has no sum of others.
    each = tf.bitcast(_mixed(tf.bitwise.bitwise_xor(bits, _multiples(n_dim, 1))), tf.int32)
    row = _mixed(tf.bitcast(tf.reduce_sum(each, axis=-1), tf.uint32))
    cell = tf.reshape(_multiples(n_copies * n_dim, n_dim + 1), [n_copies, 1, n_dim])
    return _mixed(tf.bitwise.bitwise_xor(row[:, tf.newaxis], cell))


def draw_categories(log_weights: tf.Tensor, shape: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Numbers 0 .. K - 1 at random, of `shape`, with probabilities exp(log_weights) `[K]` or `[*shape, K]`."""
    return categories(log_weights, uniform(shape, seed, log_weights.dtype))


def categories(log_weights: tf.Tensor, uniform: tf.Tensor) -> tf.Tensor:
    """`draw_categories` as a function of numbers uniform in (0, 1), one for each."""
    cumulative = tf.cumsum(tf.exp(log_weights), axis=-1)[..., :-1]
    return tf.reduce_sum(tf.cast(uniform[..., tf.newaxis] >= cumulative, tf.int32), axis=-1)
