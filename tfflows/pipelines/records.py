"""TFRecord files, read row by row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfflows import atomic, replicas
from tfflows.pipelines.blocks import check_whole, element, files_of, rows_held


def tfrecord(
    paths,
    event_shape: int | Sequence[int],
    *,
    context_shape: Sequence[int] | None = None,
    weight: bool = False,
    n_rows: int | None = None,
    batch_size: int = 1024,
    shuffle: bool = True,
    seed: int = 0,
    buffer: int | None = None,
) -> tf.data.Dataset:
    """Batches of rows in TFRecord files: an `Example` a row, with float features `x`, `context` and `weight`.

    Args:
      paths: one path, a pattern such as `data/*.tfrecord`, or a list in order.
      event_shape: of x.
      context_shape: of one context; None if there is none.
      weight: whether there are weights.
      n_rows: rows of all files together, which the files do not say. Without it the number of batches is unknown, and
        `fit(epochs=None)` waits for 30 epochs without progress, however many steps these are.
      batch_size, shuffle, seed: as in `npy`.
      buffer: rows of which the next one is drawn, by default as in `npy`; files come in an order of their own, several
        at a time.

    Returns:
      as `npy`; float32.

    Raises:
      ValueError: for paths without files. A record of another kind stops the epoch that reads it, and so do more or
        fewer rows than `n_rows`; but if that is a multiple of `batch_size`, `fit` stops there and leaves out what is
        beyond it.
    """
    if n_rows is not None:
        check_whole("n_rows", n_rows, 1)
    names = [str(path) for path in files_of(paths, "x")]
    shape = (event_shape,) if isinstance(event_shape, int) else tuple(event_shape)
    features = {"x": tf.io.FixedLenFeature(shape, tf.float32)}
    if context_shape is not None:
        features["context"] = tf.io.FixedLenFeature(tuple(context_shape), tf.float32)
    if weight:
        features["weight"] = tf.io.FixedLenFeature((), tf.float32)
    specs = {name: (feature.shape, np.float32) for name, feature in features.items()}
    buffer = rows_held(buffer, specs, batch_size, seed)
    rows = _mixed(names, seed, buffer) if shuffle else _opened(names)
    if n_rows is not None:
        rows = rows.apply(tf.data.experimental.assert_cardinality(n_rows))

    def parsed(records):
        found = tf.io.parse_example(records, features)
        return element([found[name] for name in features], list(features))

    batches = rows.batch(batch_size).map(parsed, num_parallel_calls=tf.data.AUTOTUNE)
    return replicas.by_rows(batches.prefetch(tf.data.AUTOTUNE))


def _opened(names) -> tf.data.Dataset:
    """The records of files, several of which are read at a time."""
    files = tf.data.Dataset.from_tensor_slices(names)
    return files.interleave(tf.data.TFRecordDataset, cycle_length=8)


def _mixed(names, seed, buffer) -> tf.data.Dataset:
    """The records of files, each epoch in an order that follows from `seed` and nothing else."""
    epochs = iter(range(2**62))

    def draw():
        rng = np.random.default_rng([seed, next(epochs)])
        yield rng.permutation(len(names)), rng.integers(1, 2**62, size=2)

    def mixed(order, seeds):
        rows = _opened(tf.gather(names, order))
        # What `rows.shuffle(buffer, seed)` makes would follow the program's seed of TensorFlow as well.
        variant = tf.raw_ops.ShuffleDataset(
            input_dataset=tf.data.experimental.to_variant(rows),
            buffer_size=buffer,
            seed=seeds[0],
            seed2=seeds[1],
            output_types=[tf.string],
            output_shapes=[[]],
            reshuffle_each_iteration=False,
        )
        return tf.data.experimental.from_variant(variant, rows.element_spec)

    signature = (tf.TensorSpec([len(names)], tf.int64), tf.TensorSpec([2], tf.int64))
    return tf.data.Dataset.from_generator(draw, output_signature=signature).flat_map(mixed)


def write_tfrecord(folder: str | Path, x, context=None, weight=None, *, n_shards: int = 1) -> list[Path]:
    """Writes rows as TFRecord files that `tfrecord` reads: `0000.tfrecord` and so on, each whole or not at all.

    Args:
      folder: made if there is none.
      x, context, weight: arrays `[n, ...]`, the last two None if there are none.
      n_shards: files, from 1 to n; row i is in file i % n_shards.

    Returns:
      their paths.

    Raises:
      ValueError: for arrays of different lengths, another number of files, or a folder with shards that these would
        not replace, and which `*.tfrecord` would find beside them.
    """
    parts = {"x": x, "context": context, "weight": weight}
    parts = {name: np.asarray(value, np.float32) for name, value in parts.items() if value is not None}
    n = len(parts["x"])
    if any(len(value) != n for value in parts.values()):
        raise ValueError(f"Expected arrays of {n} rows; got { ({k: len(v) for k, v in parts.items()}) }.")
    if not 1 <= n_shards <= n:
        raise ValueError(f"Expected n_shards from 1 to {n}; got {n_shards}.")
    folder = Path(folder)
    paths = [folder / f"{shard:04}.tfrecord" for shard in range(n_shards)]
    if others := sorted(path for path in folder.glob("*.tfrecord") if path.stem.isdigit() and path not in paths):
        raise ValueError(f"Expected a folder without other shards than these {n_shards}; got one with {others[0]}.")
    folder.mkdir(parents=True, exist_ok=True)
    for shard, path in enumerate(paths):
        with atomic.replacing(path) as made, tf.io.TFRecordWriter(str(made)) as writer:
            for i in range(shard, n, n_shards):
                features = {
                    name: tf.train.Feature(float_list=tf.train.FloatList(value=value[i].ravel()))
                    for name, value in parts.items()
                }
                writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
    return paths
