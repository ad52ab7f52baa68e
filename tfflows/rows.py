"""Data in memory, and batches of them."""

from __future__ import annotations

import dataclasses
import functools
import itertools

import numpy as np
import tensorflow as tf

from tfflows import replicas


@dataclasses.dataclass(frozen=True)
class Rows:
    """Checked data: x `[n, *event]`, context `[n, *context_shape]` or None, weight `[n]` of mean 1 or None."""

    x: np.ndarray
    context: np.ndarray | None
    weight: np.ndarray | None

    @classmethod
    def of(cls, columns: dict[str, np.ndarray]) -> Rows:
        """From `columns()`."""
        weight = columns["weight"]
        return cls(columns["x"], columns.get("context"), weight if np.any(weight != 1.0) else None)

    def take(self, index) -> Rows:
        parts = (self.x, self.context, self.weight)
        return Rows(*(None if a is None else a[index] for a in parts))

    def columns(self) -> dict[str, np.ndarray]:
        """What a training step gets of each row: x, weight and, if there is one, context."""
        weight = np.ones(len(self), np.float32) if self.weight is None else self.weight
        columns = {"x": self.x, "weight": weight, "context": self.context}
        return {name: value for name, value in columns.items() if value is not None}

    def positive(self) -> Rows:
        """The rows of positive weight."""
        return self if self.weight is None else self.take(self.weight > 0.0)

    def nbytes(self) -> int:
        """Memory that the columns take."""
        return sum(value.nbytes for value in self.columns().values())

    def __len__(self) -> int:
        return len(self.x)


def order_of_epoch(n_rows: int, seed: int, epoch: int) -> np.ndarray:
    """The numbers of the rows in the order of an epoch, which follows from these three alone."""
    return np.random.default_rng([seed, epoch]).permutation(n_rows)


def hold_out(rows: Rows, fraction: float, seed: int | None) -> tuple[Rows, Rows]:
    """Splits rows into training and validation: the last ones, as Keras does, or with a seed random ones.

    Random ones are of positive weight, and so are those to train with: of others the loss would be a mean of nothing.
    """
    if not 0.0 < fraction < 1.0:
        raise ValueError(f"Expected validation_split in (0, 1); got {fraction}.")
    if seed is not None:
        rows = rows.positive()
    n_held = max(1, round(fraction * len(rows)))
    if n_held >= len(rows):
        raise ValueError(f"Expected more rows than the {n_held} to hold out; got {len(rows)}.")
    order = np.arange(len(rows)) if seed is None else np.random.default_rng(seed).permutation(len(rows))
    parts = rows.take(order[:-n_held]), rows.take(order[-n_held:])
    if any(part.weight is not None and not part.weight.any() for part in parts):
        raise ValueError(
            f"Expected sample weights > 0 among the last {n_held} rows, held out, and the others; got none."
        )
    return parts


def batches(rows: Rows, batch_size: int, seed: int | None = None) -> tf.data.Dataset:
    """Batches of exactly `batch_size` rows, as dicts of x, weight and, if there is one, context.

    The last batch is filled up with rows of weight zero, so that every step has one shape and XLA compiles
    once. With a seed the order is a new one in each epoch, that of `order_of_epoch`.
    """
    n = len(rows)
    n_batches = -(-n // batch_size)
    data = {name: tf.constant(value) for name, value in rows.columns().items()}
    epochs = itertools.count()

    def order_of_next():
        yield np.arange(n) if seed is None else order_of_epoch(n, seed, next(epochs))

    def epoch(order):
        fillers = tf.gather(order, tf.range(n_batches * batch_size - n) % n)
        index = tf.concat([order, -1 - fillers], axis=0)
        return tf.data.Dataset.from_tensor_slices(tf.reshape(index, [n_batches, batch_size]))

    dataset = tf.data.Dataset.from_generator(order_of_next, output_signature=tf.TensorSpec((n,), tf.int64))
    dataset = dataset.flat_map(epoch)
    dataset = dataset.map(functools.partial(gather, data), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(n_batches))
    return replicas.by_rows(dataset.prefetch(tf.data.AUTOTUNE))


def gather(data: dict[str, tf.Tensor], index: tf.Tensor) -> dict[str, tf.Tensor]:
    """The rows `index` of `Rows.columns()`; where it is negative, row -1 - index as a filler of weight zero.

    Fillers are rows like all others, so that what a `BatchNormalization` sees of a batch is not made of one of them.
    """
    batch = {name: tf.gather(value, tf.where(index < 0, -1 - index, index)) for name, value in data.items()}
    return batch | {"weight": tf.where(index < 0, tf.zeros_like(batch["weight"]), batch["weight"])}
