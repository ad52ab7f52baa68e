"""Blocks of rows as batches, mixed in a buffer, in an order of each epoch; and what is asked of all kinds of files."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfflows import replicas
from tfflows.checks import listed

BLOCK = 65_536  # rows read at once where a file has no blocks of its own, or the buffer if that is smaller
BUFFER, BYTES = 2**19, 2**29  # the default is the smaller of so many rows and so many bytes


@dataclasses.dataclass(frozen=True)
class Block:
    """Some rows of a file.

    Args:
      read: gives their arrays, one of each part.
      n_rows: how many they are.
    """

    read: Callable[[], tuple[np.ndarray, ...]]
    n_rows: int


def batched(blocks, specs, batch_size, shuffle, seed, buffer) -> tf.data.Dataset:
    """Batches of blocks; `specs` are shape of a row and dtype of each part, and `buffer` is what `rows_held` gave."""
    if buffer < batch_size:
        raise ValueError(f"Expected a buffer of at least batch_size = {batch_size} rows; got {buffer}.")
    n = sum(block.n_rows for block in blocks)
    if n == 0:
        raise ValueError("Expected files with rows; got none.")
    epochs = iter(range(2**62))

    def epoch() -> Iterator:
        rng = np.random.default_rng([seed, next(epochs)]) if shuffle else None
        for batch in _batches(blocks, batch_size, rng, buffer):
            yield element(batch, list(specs))

    signature = [tf.TensorSpec((None, *shape), tf.as_dtype(dtype)) for shape, dtype in specs.values()]
    dataset = tf.data.Dataset.from_generator(epoch, output_signature=element(signature, list(specs)))
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(-(-n // batch_size)))
    return replicas.by_rows(dataset.prefetch(2))


def _batches(blocks, batch_size, rng, buffer) -> Iterator[list[np.ndarray]]:
    """Batches of all rows: mixed, with a generator of random numbers, else as they come."""
    order = np.arange(len(blocks)) if rng is None else rng.permutation(len(blocks))
    pool, left = [], 0
    for position, i in enumerate(order):
        pool.append(blocks[i].read())
        left += blocks[i].n_rows
        is_last = position == len(order) - 1
        if left < buffer and not is_last:
            continue
        rows = [np.concatenate(part) if len(part) > 1 else part[0] for part in zip(*pool, strict=True)]
        pool = []  # so that there are two copies of the rows at most
        if rng is not None:
            mixed = rng.permutation(left)
            rows = [part[mixed] for part in rows]
        # What fills no batch waits for the next rows.
        stop = left if is_last else left - left % batch_size
        # Copies: a slice would keep all rows in memory for as long as somebody has it.
        for start in range(0, stop, batch_size):
            yield [part[start : min(start + batch_size, stop)].copy() for part in rows]
        pool, left = ([[part[stop:].copy() for part in rows]] if stop < left else []), left - stop
        del rows


def element(parts, names):
    """A batch as `fit` takes it: x, (x, context), (x, (), weight) or (x, context, weight)."""
    found = dict(zip(names, parts, strict=True))
    if "weight" in found:
        return found["x"], found.get("context", ()), found["weight"]
    return (found["x"], found["context"]) if "context" in found else found["x"]


def files_of(paths, what) -> list[Path]:
    """The files of paths as users give them; `what` says of which part, for errors."""
    if isinstance(paths, (str, Path)):
        path = Path(paths)
        is_pattern = any(sign in path.name for sign in "*?[") and not path.is_file()
        paths = sorted(path.parent.glob(path.name)) if is_pattern else [path]
        if not paths:
            raise ValueError(f"Expected files of {what}; got none like {path}.")
    paths = [Path(path) for path in paths]
    if not paths or not all(path.is_file() for path in paths):
        raise ValueError(f"Expected files of {what}; got {listed(p for p in paths if not p.is_file()) or 'none'}.")
    return paths


def rows_held(buffer: int | None, specs, batch_size, seed) -> int:
    """The rows of `buffer`, by default as many as are good; raises for settings with which there are no batches."""
    check_whole("batch_size", batch_size, 1)
    check_whole("seed", seed, 0)
    if buffer is not None:
        check_whole("buffer", buffer, 1)
        return buffer
    size = sum(math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in specs.values())
    return max(batch_size, min(BUFFER, BYTES // max(size, 1)))


def check_whole(name: str, value, least: int) -> None:
    """Raises unless it is a whole number >= least."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"Expected a whole number {name} >= {least}; got {value!r}.")
