"""Pipelines of data larger than memory: shards of Parquet, NPY or TFRecord files as batches for `fit`.

Files are read block by block. An epoch takes the blocks in an order of its own, mixes as many at a time as `buffer`
rows hold, and cuts them into batches: rows that lie side by side in a file meet different ones each epoch, and no more
than the buffer is in memory. The order depends on the seed and the epoch alone.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfflows import atomic, replicas
from tfflows.checks import listed

__all__ = ["npy", "parquet", "tfrecord", "write_tfrecord"]

BLOCK = 65_536  # rows read at once where a file has no blocks of its own
BUFFER = 2**19


@dataclasses.dataclass(frozen=True)
class Block:
    """Some rows of a file.

    Args:
      read: gives their arrays, one of each part.
      n_rows: how many they are.
    """

    read: Callable[[], tuple[np.ndarray, ...]]
    n_rows: int


def npy(
    paths,
    *,
    context=None,
    weight=None,
    batch_size: int = 1024,
    shuffle: bool = True,
    seed: int = 0,
    buffer: int = BUFFER,
) -> tf.data.Dataset:
    """Batches of arrays in `.npy` files, which are never read whole.

    Args:
      paths: of the files of x `[n_i, *event]`: one path, a pattern such as `data/x-*.npy`, or a list in order.
      context, weight: likewise, if there are any, of as many rows in each file.
      batch_size: rows in a batch; the last one of an epoch has those that are left.
      shuffle: whether each epoch has an order of its own.
      seed: of these orders.
      buffer: rows that are mixed at a time, >= batch_size.

    Returns:
      a dataset of batches x, (x, context), (x, (), weight) or (x, context, weight), as `fit` takes them, float32 or
      as the files have them. Its order in epoch k is the same whenever the program runs.

    Raises:
      ValueError: for paths without files, or files that differ in shape, type or number of rows.
    """
    parts = {"x": paths, "context": context, "weight": weight}
    files = {name: _mapped(path, name) for name, path in parts.items() if path is not None}
    if len({len(arrays) for arrays in files.values()}) > 1:
        raise ValueError(f"Expected as many files of each part; got { ({k: len(v) for k, v in files.items()}) }.")
    blocks = []
    for arrays in zip(*files.values(), strict=True):
        if len({len(array) for array in arrays}) > 1:
            raise ValueError(f"Expected as many rows in each part of a shard; got {[len(a) for a in arrays]}.")
        for start in range(0, len(arrays[0]), BLOCK):
            stop = min(start + BLOCK, len(arrays[0]))
            names = [array.filename for array in arrays]
            blocks.append(Block(functools.partial(_slices, names, start, stop), stop - start))
    specs = {name: (arrays[0].shape[1:], arrays[0].dtype) for name, arrays in files.items()}
    return _dataset(blocks, specs, batch_size, shuffle, seed, buffer)


def parquet(
    paths,
    columns: Sequence[str] | None = None,
    *,
    context: Sequence[str] = (),
    weight: str | None = None,
    batch_size: int = 1024,
    shuffle: bool = True,
    seed: int = 0,
    buffer: int = BUFFER,
) -> tf.data.Dataset:
    """Batches of columns of numbers in Parquet files, read by their row groups (needs pyarrow, the extra `cli`).

    Args:
      paths: one path, a pattern such as `data/*.parquet`, or a list in order.
      columns: of x; by default all that are neither context nor weight.
      context: columns of the context.
      weight: the column of weights.
      batch_size, shuffle, seed, buffer: as in `npy`. Row groups of more rows than the buffer are held whole.

    Returns:
      as `npy`; x is float64 if one of its columns needs it, else float32. Missing values are NaN, which `fit` refuses.

    Raises:
      ValueError: for paths without files, files that are no Parquet, or columns that are missing or no numbers.
    """
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    paths, opened = _paths(paths, "x"), []
    for path in paths:
        try:
            opened.append(ParquetFile(path))
        except pa.ArrowInvalid as error:
            raise ValueError(f"Expected a Parquet file; got {path}: {error}") from error
    schema = opened[0].schema_arrow
    others = [*context, *([] if weight is None else [weight])]
    columns = [name for name in schema.names if name not in others] if columns is None else list(columns)
    for path, file in zip(paths, opened, strict=True):
        found = file.schema_arrow
        if missing := [name for name in (*columns, *others) if name not in found.names]:
            raise ValueError(f"Expected columns {listed((*columns, *others))} in {path}; got none {listed(missing)}.")
        if wrong := [name for name in (*columns, *others) if not _is_number(found.field(name).type)]:
            raise ValueError(f"Expected columns of numbers in {path}; got others: {listed(wrong)}.")
    if not columns:
        raise ValueError(f"Expected at least one column of x; got none beside {listed(others)}.")
    names = {"x": columns, "context": list(context), "weight": None if weight is None else [weight]}
    names = {part: chosen for part, chosen in names.items() if chosen}
    kinds = {name: schema.field(name).type.to_pandas_dtype() for each in names.values() for name in each}
    dtypes = {part: _dtype([kinds[name] for name in each]) for part, each in names.items()}

    def read(path, group):
        with ParquetFile(path) as file:
            table = file.read_row_group(group, columns=[name for each in names.values() for name in each])
        arrays = []
        for part, each in names.items():
            values = [table.column(name).cast(pa.float64()).to_numpy().astype(dtypes[part]) for name in each]
            arrays.append(values[0] if part == "weight" else np.stack(values, axis=1))
        return tuple(arrays)

    blocks = []
    for path, file in zip(paths, opened, strict=True):
        groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        blocks += [Block(functools.partial(read, path, i), n) for i, n in enumerate(groups) if n]
        file.close()
    specs = {part: (() if part == "weight" else (len(each),), np.dtype(dtypes[part])) for part, each in names.items()}
    return _dataset(blocks, specs, batch_size, shuffle, seed, buffer)


def tfrecord(
    paths,
    event_shape: int | Sequence[int],
    *,
    context_shape: Sequence[int] | None = None,
    weight: bool = False,
    batch_size: int = 1024,
    shuffle: bool = True,
    seed: int = 0,
    buffer: int = BUFFER,
) -> tf.data.Dataset:
    """Batches of rows in TFRecord files: an `Example` a row, with float features `x`, `context` and `weight`.

    Args:
      paths: one path, a pattern such as `data/*.tfrecord`, or a list in order.
      event_shape: of x.
      context_shape: of one context; None if there is none.
      weight: whether there are weights.
      batch_size, shuffle, seed: as in `npy`.
      buffer: rows of which the next one is drawn; files come in an order of their own, several at a time.

    Returns:
      as `npy`; float32, of a number of batches that only the first epoch finds out.

    Raises:
      ValueError: for paths without files. A record of another kind stops the epoch that reads it.
    """
    _check_order(batch_size, seed, buffer)
    names = [str(path) for path in _paths(paths, "x")]
    shape = (event_shape,) if isinstance(event_shape, int) else tuple(event_shape)
    features = {"x": tf.io.FixedLenFeature(shape, tf.float32)}
    if context_shape is not None:
        features["context"] = tf.io.FixedLenFeature(tuple(context_shape), tf.float32)
    if weight:
        features["weight"] = tf.io.FixedLenFeature((), tf.float32)
    files = tf.data.Dataset.from_tensor_slices(names)
    if shuffle:
        files = files.shuffle(len(names), seed=seed, reshuffle_each_iteration=True)
    rows = files.interleave(tf.data.TFRecordDataset, cycle_length=min(8, len(names)))
    if shuffle:
        rows = rows.shuffle(buffer, seed=seed + 1, reshuffle_each_iteration=True)

    def parsed(records):
        found = tf.io.parse_example(records, features)
        return _element([found[name] for name in features], list(features))

    batches = rows.batch(batch_size).map(parsed, num_parallel_calls=tf.data.AUTOTUNE)
    return replicas.by_rows(batches.prefetch(tf.data.AUTOTUNE))


def write_tfrecord(folder: str | Path, x, context=None, weight=None, *, n_shards: int = 1) -> list[Path]:
    """Writes rows as TFRecord files that `tfrecord` reads: `0000.tfrecord` and so on, each whole or not at all.

    Args:
      folder: made if there is none.
      x, context, weight: arrays `[n, ...]`, the last two None if there are none.
      n_shards: files, from 1 to n; row i is in file i % n_shards.

    Returns:
      their paths.

    Raises:
      ValueError: for arrays of different lengths, or another number of files.
    """
    parts = {"x": x, "context": context, "weight": weight}
    parts = {name: np.asarray(value, np.float32) for name, value in parts.items() if value is not None}
    n = len(parts["x"])
    if any(len(value) != n for value in parts.values()):
        raise ValueError(f"Expected arrays of {n} rows; got { ({k: len(v) for k, v in parts.items()}) }.")
    if not 1 <= n_shards <= n:
        raise ValueError(f"Expected n_shards from 1 to {n}; got {n_shards}.")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for shard in range(n_shards):
        path = folder / f"{shard:04}.tfrecord"
        with atomic.replacing(path) as made, tf.io.TFRecordWriter(str(made)) as writer:
            for i in range(shard, n, n_shards):
                features = {
                    name: tf.train.Feature(float_list=tf.train.FloatList(value=value[i].ravel()))
                    for name, value in parts.items()
                }
                writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
        paths.append(path)
    return paths


def _dataset(blocks, specs, batch_size, shuffle, seed, buffer) -> tf.data.Dataset:
    """Batches of blocks; `specs` are shape of a row and dtype of each part."""
    _check_order(batch_size, seed, buffer)
    if buffer < batch_size:
        raise ValueError(f"Expected a buffer of at least batch_size = {batch_size} rows; got {buffer}.")
    n = sum(block.n_rows for block in blocks)
    if n == 0:
        raise ValueError("Expected files with rows; got none.")
    epochs = iter(range(2**62))

    def epoch() -> Iterator:
        rng = np.random.default_rng([seed, next(epochs)]) if shuffle else None
        for batch in _batches(blocks, batch_size, rng, buffer):
            yield _element(batch, list(specs))

    signature = [tf.TensorSpec((None, *shape), tf.as_dtype(dtype)) for shape, dtype in specs.values()]
    dataset = tf.data.Dataset.from_generator(epoch, output_signature=_element(signature, list(specs)))
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
        if rng is not None:
            mixed = rng.permutation(left)
            rows = [part[mixed] for part in rows]
        # What fills no batch waits for the next rows.
        stop = left if is_last else left - left % batch_size
        for start in range(0, stop, batch_size):
            yield [part[start : min(start + batch_size, stop)] for part in rows]
        pool, left = ([[part[stop:] for part in rows]] if stop < left else []), left - stop


def _element(parts, names):
    """A batch as `fit` takes it: x, (x, context), (x, (), weight) or (x, context, weight)."""
    found = dict(zip(names, parts, strict=True))
    if "weight" in found:
        return found["x"], found.get("context", ()), found["weight"]
    return (found["x"], found["context"]) if "context" in found else found["x"]


def _mapped(paths, what) -> list[np.ndarray]:
    arrays = []
    for path in _paths(paths, what):
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ValueError(f"Expected a .npy file of numbers; got {path}: {error}") from error
        if array.ndim == 0 or array.dtype.kind not in "biuf":
            raise ValueError(f"Expected rows of numbers in {path}; got {array.dtype} of shape {array.shape}.")
        arrays.append(array)
    if len({(array.shape[1:], array.dtype) for array in arrays}) > 1:
        raise ValueError(f"Expected files of one shape and type of {what}; got {[(a.shape, a.dtype) for a in arrays]}.")
    return arrays


def _slices(paths, start, stop):
    # Each time mapped anew: what a map has shown stays in memory until it is closed.
    return tuple(np.array(np.load(path, mmap_mode="r")[start:stop]) for path in paths)


def _paths(paths, what) -> list[Path]:
    if isinstance(paths, (str, Path)):
        path = Path(paths)
        is_pattern = any(sign in path.name for sign in "*?[")
        paths = sorted(path.parent.glob(path.name)) if is_pattern else [path]
        if not paths:
            raise ValueError(f"Expected files of {what}; got none like {path}.")
    paths = [Path(path) for path in paths]
    if not paths or not all(path.is_file() for path in paths):
        raise ValueError(f"Expected files of {what}; got {listed(p for p in paths if not p.is_file()) or 'none'}.")
    return paths


def _check_order(batch_size, seed, buffer):
    for name, value, least in (("batch_size", batch_size, 1), ("seed", seed, 0), ("buffer", buffer, 1)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise ValueError(f"Expected a whole number {name} >= {least}; got {value!r}.")


def _is_number(kind) -> bool:
    return np.dtype(kind.to_pandas_dtype()).kind in "biuf"


def _dtype(each) -> str:
    """float32 if that holds every number of these types, else float64."""
    return "float32" if all(np.can_cast(kind, np.float32) for kind in map(np.dtype, each)) else "float64"
