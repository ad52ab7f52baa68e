"""What replicas of a distribution strategy do together: each has a part of every batch."""

from __future__ import annotations

import contextlib
import types
from collections.abc import Iterator

import numpy as np
import tensorflow as tf


def count() -> int:
    """Replicas that work on a batch: 1 without a strategy."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def are_workers(strategy=None) -> bool:
    """Whether those of a strategy, by default the current one, are in processes of their own."""
    return isinstance(strategy or tf.distribute.get_strategy(), tf.distribute.MultiWorkerMirroredStrategy)


def is_chief(strategy=None) -> bool:
    """Whether this process writes the files: the first of the workers of a strategy, or the only one."""
    return (strategy or tf.distribute.get_strategy()).extended.should_checkpoint


def index() -> tf.Tensor | int:
    """Which of the replicas this is, from 0."""
    context = tf.distribute.get_replica_context()
    return 0 if context is None else context.replica_id_in_sync_group


def agreed(number: int, strategy) -> int:
    """The number of the first worker of a strategy, for all; each calls it with one of its own."""
    return int(Gathering(strategy)([number])[0, 0]) if are_workers(strategy) else number


def check_alike(mark: str, what: str, strategy) -> None:
    """Raises on all workers of a strategy if marks of what each was given, 64 hexadecimal digits, are not the same."""
    if are_workers(strategy):
        each = Gathering(strategy)([int(mark[i : i + 8], 16) for i in range(0, 64, 8)])
        if np.any(each != each[0]):
            raise ValueError(f"Expected the same {what} on all workers, of which each takes its part; got others.")


def take_first(variables, strategy) -> None:
    """Gives variables, on all workers of a strategy, the values that the first one has."""

    def first(values):
        return total([tf.where(tf.equal(index(), 0), value, tf.zeros_like(value)) for value in values])

    if are_workers(strategy):
        found = strategy.run(tf.function(first, autograph=False), [[tf.convert_to_tensor(v) for v in variables]])
        for variable, value in zip(variables, strategy.experimental_local_results(found)[0], strict=True):
            variable.assign(value)


class Gathering:
    """The numbers of all workers of a strategy `[n_workers, n]`, for all; each calls it with n of its own."""

    def __init__(self, strategy):
        self._strategy = strategy
        self._function = tf.function(self._gathered, autograph=False, reduce_retracing=True)

    def _gathered(self, numbers):
        is_own = tf.range(count()) == index()
        return total(tf.where(is_own[:, tf.newaxis], numbers, tf.zeros_like(numbers)))  # a NaN stays in its row

    def __call__(self, numbers) -> np.ndarray:
        found = self._strategy.run(self._function, [tf.constant(numbers, tf.float64)])
        return self._strategy.experimental_local_results(found)[0].numpy()


def by_rows(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The dataset, of whose batches each worker takes its part. TensorFlow's own way would deal out files."""
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return dataset.with_options(options)


def total(values):
    """Sums of tensors over all replicas; those of one dtype travel as one, since each message takes its time."""
    if count() == 1:
        return values
    tensors = [tf.convert_to_tensor(value) for value in tf.nest.flatten(values)]
    sums = dict.fromkeys(range(len(tensors)))
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        places = [i for i in sums if tensors[i].dtype == dtype]
        flat = tf.concat([tf.reshape(tensors[i], [-1]) for i in places], axis=0)
        flat = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, flat)
        parts = tf.split(flat, [tf.size(tensors[i]) for i in places], num=len(places))
        sums |= {i: tf.reshape(part, tf.shape(tensors[i])) for i, part in zip(places, parts, strict=True)}
    return tf.nest.pack_sequence_as(values, list(sums.values()))


def heard(values, n_rows: tf.Tensor):
    """Tensors of this replica, or zeros if it has no rows, as of a last batch of few: what it computes may be NaN."""
    if count() == 1:
        return values
    return tf.nest.map_structure(lambda value: tf.where(n_rows > 0, value, tf.zeros_like(value)), values)


def mean(values: list[tf.Tensor], n_rows: tf.Tensor) -> list[tf.Tensor]:
    """Means of tensors over all replicas that have rows; `n_rows` is how many this one has."""
    if count() == 1 or not values:
        return values
    n_with = total(tf.cast(n_rows > 0, values[0].dtype))
    return [each / tf.cast(n_with, each.dtype) for each in total(heard(values, n_rows))]


def share(weight: tf.Tensor) -> tf.Tensor | float:
    """This replica's part of the weight of a batch; means of its rows, times this, add up to the mean of all."""
    if count() == 1:
        return 1.0
    own = tf.reduce_sum(weight)
    return tf.math.divide_no_nan(own, total(own))


def clipped(gradients: list[tf.Tensor], optimizer) -> list[tf.Tensor]:
    """Summed gradients, cut off as the optimizer does, which by itself would do so before it sums."""
    # They are those of the loss times this, by which the optimizer divides them before it cuts off.
    scale, optimizer = optimizer.scale_loss(1.0), _inner(optimizer)
    if optimizer.global_clipnorm is not None:
        return tf.clip_by_global_norm(gradients, scale * optimizer.global_clipnorm)[0]
    if optimizer.clipnorm is not None:
        return [tf.clip_by_norm(g, scale * optimizer.clipnorm) for g in gradients]
    if optimizer.clipvalue is not None:
        limit = scale * optimizer.clipvalue
        # What has overflowed must stay so, for the optimizer to see it.
        return [tf.where(tf.math.is_finite(g), tf.clip_by_value(g, -limit, limit), g) for g in gradients]
    return gradients


def _inner(optimizer):
    """What makes the steps: of mixed precision, the optimizer inside the one that scales the loss."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def check_optimizer(optimizer, strategy) -> None:
    """Raises for what Keras' optimizers cannot do on several replicas."""
    for name in ("gradient_accumulation_steps", "ema_overwrite_frequency"):
        n_steps = getattr(_inner(optimizer), name, None)
        if n_steps and strategy.num_replicas_in_sync > 1:
            raise ValueError(f"Expected no {name} on several replicas; got {n_steps}.")


@contextlib.contextmanager
def summed(optimizer) -> Iterator[int]:
    """Tells an optimizer that gradients are sums over all replicas; gives how many times it will add them up still.

    By itself it sends them round again, which doubles what goes over the network.
    """
    name = "_all_reduce_sum_gradients"  # of Keras, which has no public way
    is_plain = isinstance(getattr(type(optimizer), name, None), types.FunctionType)
    # Replicas of one process share the optimizer, and send nothing.
    is_alone = are_workers() and len(tf.distribute.get_strategy().extended.worker_devices) == 1
    if not is_alone or not is_plain or hasattr(optimizer, "inner_optimizer"):
        yield count()
        return
    setattr(optimizer, name, lambda pairs: pairs)
    try:
        yield 1
    finally:
        delattr(optimizer, name)
