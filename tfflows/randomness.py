"""Random numbers of training and of estimates: drawn anew in each step, repeatable elsewhere."""

from __future__ import annotations

import contextlib
import contextvars

import tensorflow as tf

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


def random_signs(x: tf.Tensor, n_probes: int) -> tf.Tensor:
    """Signs -1 or 1 at random for each row of `x` `[n, D]`: `[n_probes, n, D]`, for estimates of traces.

    Inside `training_randomness` they are drawn from its seed. Elsewhere they are a scrambled function of the numbers in
    the row, to the nearest 1/64: a row has the same ones every time, whichever rows are with it, unless it was rounded
    across such a step on its way here; and the errors of many rows average out.
    """
    seed = training_seed()
    if seed is None:
        return tf.cast(2 * _hashed_bits(x, n_probes) - 1, x.dtype)
    bits = tf.random.stateless_uniform([n_probes, *tf.unstack(tf.shape(x))], seed, maxval=2, dtype=tf.int32, alg=RANDOM)
    return tf.cast(2 * bits - 1, x.dtype)


def _hashed_bits(x, n_probes):
    """0 or 1 for each probe and scalar of each row `[n_probes, n, D]`, by MurmurHash3's mixing of the row's bits."""
    odd = 2654435761  # 2^32 over the golden ratio, and odd, so that no multiple of it is lost
    n_dim = x.shape[-1]

    def mixed(number):
        for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
            number = tf.bitwise.bitwise_xor(number, tf.bitwise.right_shift(number, tf.constant(shift, tf.uint32)))
            number *= tf.constant(factor, tf.uint32)
        return tf.bitwise.bitwise_xor(number, tf.bitwise.right_shift(number, tf.constant(16, tf.uint32)))

    def constants(count, first):
        return tf.constant([(first + i) * odd % 2**32 for i in range(count)], tf.uint32)

    # Compared with the last digits, in which a layer before may round differently elsewhere, the steps are wide.
    steps = tf.round(64.0 * tf.clip_by_value(tf.cast(tf.stop_gradient(x), tf.float32), -1e6, 1e6))
    bits = tf.bitcast(tf.cast(steps, tf.int32), tf.uint32)
    row = mixed(tf.reduce_sum(mixed(tf.bitwise.bitwise_xor(bits, constants(n_dim, 1))), axis=-1))
    cell = tf.reshape(constants(n_probes * n_dim, n_dim + 1), [n_probes, 1, n_dim])
    last = mixed(tf.bitwise.bitwise_xor(row[:, tf.newaxis], cell))
    return tf.cast(tf.bitwise.right_shift(last, tf.constant(31, tf.uint32)), tf.int32)


def draw_categories(log_weights: tf.Tensor, shape: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Numbers 0 .. K - 1 at random, of `shape`, with probabilities exp(log_weights) `[K]` or `[*shape, K]`."""
    cumulative = tf.cumsum(tf.exp(log_weights), axis=-1)[..., :-1]
    u = tf.random.stateless_uniform(shape, seed, dtype=cumulative.dtype, alg=RANDOM)
    return tf.reduce_sum(tf.cast(u[..., tf.newaxis] >= cumulative, tf.int32), axis=-1)
