"""Compiled functions over any number of rows: few shapes, so few compilations, and bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

# Rows are padded to one of these numbers, so each verb is compiled at most this many times; the largest
# bounds the memory of one call.
BUCKETS = (16, 128, 1024, 8192)
# Of images, whose rows are dear, and take some hundred times their own memory in a convolutional net.
IMAGE_BUCKETS = (16, 32, 64, 128, 256)
IMAGE_NUMBERS = 512  # in a row, at least


def buckets(n_numbers: int) -> tuple[int, ...]:
    """The numbers of rows that functions of rows of `n_numbers` are compiled for."""
    return BUCKETS if n_numbers < IMAGE_NUMBERS else IMAGE_BUCKETS


def round_up(n: int) -> int:
    """The least of 1, 1.25, 1.5 and 1.75 times a power of two that is >= n: few sizes, at most a quarter wasted."""
    step = max(1, 2 ** max(int(n - 1).bit_length() - 3, 0))
    return -(-n // step) * step


def _chunks(n_rows: int, batch_size: int | None, buckets: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """(start, stop, padded number of rows) of the chunks that cover `n_rows` rows."""
    limit = batch_size or buckets[-1]
    for start in range(0, n_rows, limit):
        stop = min(start + limit, n_rows)
        yield start, stop, next((size for size in buckets if stop - start <= size <= limit), limit)


def _pad(value, size: int):
    """`value` with its first row repeated at the end up to `size` rows: numbers as harmless as the data."""
    missing = size - value.shape[0]
    if missing == 0:
        return value
    if tf.is_tensor(value):
        return tf.concat([value, tf.repeat(value[:1], missing, axis=0)], axis=0)
    return np.concatenate([value, np.repeat(value[:1], missing, axis=0)], axis=0)


def _join(results: list):
    if len(results) == 1:
        return results[0]
    return tf.nest.map_structure(lambda *parts: tf.concat(parts, axis=0), *results)


def _keep(results, n_rows: int, size: int):
    """The first `n_rows` of the `size` rows of each result."""
    return results if n_rows == size else tf.nest.map_structure(lambda r: r[:n_rows], results)


def seed_pair(seed) -> np.ndarray | tf.Tensor:
    """Two integers that stand for `seed`: an integer, a pair of them, or None for fresh ones at every call."""
    if seed is None:
        return tf.random.uniform([2], maxval=2**31 - 1, dtype=tf.int32)
    if tf.is_tensor(seed) or np.ndim(seed):
        if tuple(np.shape(seed)) != (2,):
            raise ValueError(f"Expected a seed that is an integer or a pair of them; got shape {np.shape(seed)}.")
        return tf.cast(seed, tf.int32)
    # TFP would take an integer as the seed of a stateful generator, which goes on from call to call.
    high, low = divmod(int(seed), 2**31)
    return np.array([high % 2**31, low], np.int32)


def map_rows(function: Callable, arrays: Sequence, batch_size: int | None, buckets: Sequence[int] = BUCKETS):
    """Calls a compiled `function` on chunks of rows of `arrays` and joins the results.

    Args:
      function: from tensors with leading axis [rows] to a tensor or a tuple of them, likewise.
      arrays: NumPy arrays or tensors of equal length, tuples of them, or None; gradients flow through tensors.
      batch_size: rows in a chunk, at most; None for the largest bucket.
      buckets: numbers of rows that `function` is called with.
    """
    structure, arrays = arrays, tf.nest.flatten(arrays)
    n_rows = arrays[0].shape[0]
    if n_rows == 0:  # one row of zeros, cut off again, gives the shapes and dtypes of the results
        arrays = [None if a is None else np.zeros((1, *a.shape[1:]), np.dtype(a.dtype.name)) for a in arrays]
    results = []
    for start, stop, size in _chunks(max(n_rows, 1), batch_size, buckets):
        padded = [None if a is None else tf.convert_to_tensor(_pad(a[start:stop], size)) for a in arrays]
        padded = tf.nest.pack_sequence_as(structure, padded)
        results.append(_keep(function(*padded), min(stop, n_rows) - start, size))
    return _join(results)


def draw_rows(
    function: Callable,
    n_rows: int,
    context,
    n_contexts: int,
    seed,
    batch_size: int | None,
    buckets: Sequence[int] = BUCKETS,
):
    """Calls a compiled sampler on chunks of `n_rows` rows and joins the results.

    Args:
      function: of (number of rows, context rows or None, seed).
      context: `[n_contexts, ...]`, a tuple of them, or None; row r is given context r modulo n_contexts.
      n_contexts: how many there are.
      seed: two integers; each chunk gets a seed of its own.
      batch_size: rows in a chunk, at most; None for the largest bucket.
      buckets: numbers of rows that `function` is called with.
    """
    results = []
    for i, (start, stop, size) in enumerate(_chunks(n_rows, batch_size, buckets)):
        rows = None
        if context is not None:
            index = np.arange(start, start + size) % n_contexts
            rows = tf.nest.map_structure(lambda c, index=index: tf.gather(c, index), context)
        # In NumPy: a handful of TensorFlow's operations, called one by one, takes as long as a small flow's draws.
        state = np.random.SeedSequence([*np.asarray(seed, np.int64) % 2**32, i]).generate_state(2)
        results.append(_keep(function(size, rows, (state % 2**31).astype(np.int32)), stop - start, size))
    return _join(results)
