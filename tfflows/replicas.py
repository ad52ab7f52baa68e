"""What replicas of a distribution strategy do together: each has a part of every batch."""

from __future__ import annotations

import tensorflow as tf


def count() -> int:
    """Replicas that work on a batch: 1 without a strategy."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def are_workers() -> bool:
    """Whether they are in processes of their own."""
    return isinstance(tf.distribute.get_strategy(), tf.distribute.MultiWorkerMirroredStrategy)


def is_chief(strategy) -> bool:
    """Whether this process is the one that writes files: the first of a strategy's workers, or the only one."""
    resolver = strategy.cluster_resolver
    return not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) or resolver.task_id in (0, None)


def index() -> tf.Tensor | int:
    """Which of the replicas this is, from 0."""
    context = tf.distribute.get_replica_context()
    return 0 if context is None else context.replica_id_in_sync_group


def agreed(number: int, strategy) -> int:
    """The number of the first worker of a strategy, for all; each calls it with one of its own."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return number

    @tf.function(autograph=False)
    def first():
        return total(tf.where(tf.equal(index(), 0), number, 0))

    return int(strategy.experimental_local_results(strategy.run(first))[0])


def by_rows(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The dataset, of whose batches each worker takes its part. TensorFlow's own way would deal out files."""
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return dataset.with_options(options)


def total(values):
    """Sums of tensors over all replicas."""
    if count() == 1:
        return values
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, values)


def share(weight: tf.Tensor) -> tf.Tensor | float:
    """This replica's part of the weight of a batch; means of its rows, times this, add up to the mean of all."""
    if count() == 1:
        return 1.0
    own = tf.reduce_sum(weight)
    return tf.math.divide_no_nan(own, total(own))


def clipped(gradients: list[tf.Tensor], optimizer) -> list[tf.Tensor]:
    """Summed gradients, cut off as the optimizer does, which by itself would do so before it sums."""
    if optimizer.global_clipnorm is not None:
        return tf.clip_by_global_norm(gradients, optimizer.global_clipnorm)[0]
    if optimizer.clipnorm is not None:
        return [tf.clip_by_norm(g, optimizer.clipnorm) for g in gradients]
    if optimizer.clipvalue is not None:
        return [tf.clip_by_value(g, -optimizer.clipvalue, optimizer.clipvalue) for g in gradients]
    return gradients
