"""What users pass in, checked and made into batches. Every refusal of data is here."""

from __future__ import annotations

import dataclasses
import functools
import math
import warnings
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tfflows import batching, frames
from tfflows.bijectors.discrete import N_POINTS
from tfflows.checks import check_batch_size, check_event, check_finite, is_symbolic
from tfflows.contexts import Contexts
from tfflows.frames import is_frame
from tfflows.rows import Rows, batches, hold_out
from tfflows.schema import Schema

ADAPT_ROWS = 100_000  # of a tf.data pipeline; arrays are used whole
ADAPT_BYTES = 2**28  # that these take, about; of images and clouds there are fewer rows
EVALUATION_ROWS = 1024  # at a time, unless the user says another number


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """What `fit` trains on.

    Args:
      rows: the data in memory, or None for those of a pipeline.
      pipeline: batches as dicts of x, weight and perhaps context, or None for `rows`.
      held_out: batches to validate on, or None.
      batch_size: rows in a batch of `rows`.
      seed: of an order of the rows for each epoch, or None for the one they have.
    """

    rows: Rows | None
    pipeline: tf.data.Dataset | None
    held_out: tf.data.Dataset | None
    batch_size: int
    seed: int | None

    @functools.cached_property
    def stream(self) -> tf.data.Dataset:
        """Batches, from the rows or from the user's pipeline."""
        return self.pipeline or batches(self.rows, self.batch_size, self.seed)

    def adapt_rows(self) -> Rows:
        """The rows, of positive weight, to set data-dependent parts from."""
        if self.rows is None:
            return first_rows(self.stream, ADAPT_ROWS)
        return self.rows.positive()


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a flow accepts: the shapes, and the dtype it computes in.

    Args:
      event_shape: shape of one row of x, with None for an axis of any length.
      contexts: the contexts it accepts, or None for a flow without context.
      dtype: the flow's NumPy dtype; integers become it.
      keep_float64: whether float64 data stay float64, because the bijector uses all their digits.
      is_discrete: whether data, or columns of them, are integers.
      domain: raises where there are no data (`Bijector.check`).
      schema: of a table's columns; data frames then give them by name.
    """

    event_shape: tuple[int, ...]
    contexts: Contexts | None
    dtype: type
    keep_float64: bool
    is_discrete: bool = False
    domain: Callable = lambda x, what, *, exact: None
    schema: Schema | None = None

    def named(self, x, context=None) -> Inputs:
        """These, or where they know no columns yet, those that know the columns of the data frames they are given."""
        if self.schema is not None or not is_frame(x) or np.shape(x)[1:] != tuple(self.event_shape):
            return self
        return dataclasses.replace(self, schema=frames.schema_of(x, context))

    def check_domain(self, value, what: str = "x", *, exact: bool = True) -> None:
        """Raises if rows of `value` are where there are no data, and says which."""
        if not is_symbolic(value):
            self.domain(np.asarray(value), what, exact=exact)

    @property
    def context_shape(self) -> tuple[int | None, ...] | None:
        """Shape of one context, or None for a flow without context."""
        return None if self.contexts is None else self.contexts.shape

    @property
    def n_classes(self) -> int | None:
        """Number of classes, if the context is one: given as labels `[n]` or as one-hot vectors."""
        return None if self.contexts is None else self.contexts.n_classes

    @property
    def buckets(self) -> tuple[int, ...]:
        """The numbers of rows that verbs are compiled for, fewer where data or contexts are images."""
        size = math.prod(n or 1 for n in self.event_shape)
        if self.is_discrete and len(self.event_shape) == 1:
            size *= N_POINTS  # that each row becomes
        return batching.buckets(max(size, 0 if self.contexts is None else self.contexts.size))

    @property
    def evaluation_rows(self) -> int:
        """How many rows are evaluated at a time, fewer of images."""
        return min(EVALUATION_ROWS, self.buckets[-1])

    def value(self, value, what: str = "x", event_shape: tuple[int, ...] | None = None):
        """`value` `[n, *event_shape]` as floats: a tensor stays a tensor, all else becomes an array."""
        if self.schema is not None and what == "x" and is_frame(value):
            value = frames.numbers(self.schema.columns, value)
        value = _numbers(value, what)
        check_event(value, self.event_shape if event_shape is None else event_shape, what)
        check_finite(value, what, self.dtype)
        return self._floats(value)

    def context(self, context, n_rows: int | None):
        """`context` `[n_rows, *context_shape]` as numbers, or None where the flow hears none.

        Raises:
          ValueError: for a context that is missing, superfluous, of another shape or length, or not finite.
        """
        if self.contexts is not None:
            if self.schema is not None and self.schema.context and is_frame(context):
                context = frames.heard(self.schema.context, frames.numbers(self.schema.context, context))
            return self.contexts.rows(context, n_rows)
        if context is not None:
            raise ValueError(
                "Expected no context, because the flow was built without context_dim; got one of type "
                f"{type(context).__name__}."
            )
        return None

    def rows(self, x, context=None, weight=None) -> Rows:
        """Data in memory, for `fit`, `evaluate` and `adapt`."""
        if isinstance(x, tf.data.Dataset):
            raise ValueError(f"Expected rows in memory; got a dataset, {x}.")
        x = np.asarray(self.value(x))
        if len(x) == 0:
            raise ValueError("Expected at least one row of data; got none.")
        self.check_domain(x)
        context = self.context(context, len(x))
        weight = None if weight is None else self._weight(weight, len(x))
        return Rows(x, None if context is None else np.asarray(context), weight)

    def adapt_rows(self, x, context=None, weight=None, see: Callable | None = None) -> Rows:
        """The rows, of positive weight, to set data-dependent parts from.

        Of a pipeline they are a sample; `see` then gets x and the weights of all rows, batch by batch.
        """
        if not isinstance(x, tf.data.Dataset):
            return self.rows(x, context, weight).positive()
        return sampled_rows(self.dataset(x, context, weight, 1), ADAPT_ROWS, self.check_domain, see)

    def dataset(self, x, context, weight, batch_size: int) -> tf.data.Dataset:
        """Batches for `fit` and `evaluate`, unshuffled, from arrays or from a user's dataset."""
        check_batch_size(batch_size)
        if isinstance(x, tf.data.Dataset):
            if context is not None or weight is not None:
                raise ValueError("Expected context and weights inside the dataset; got them as arguments.")
            return self._from_dataset(x)
        rows = self.rows(x, context, weight)
        return batches(rows, min(batch_size, len(rows)))

    def training_data(
        self,
        x,
        context,
        weight,
        batch_size: int,
        *,
        validation_split: float | None,
        validation_data,
        validation_batch_size: int | None,
        hold_out_random: bool,
        shuffle: bool,
        seed: int,
    ) -> TrainingData:
        """`fit`'s arguments as what it trains on, in the sense of Keras' `fit`; all that is random follows the seed."""
        check_batch_size(batch_size)
        held_out, order_seed = None, seed if shuffle else None
        size = max(batch_size, self.evaluation_rows) if validation_batch_size is None else validation_batch_size
        if validation_data is not None:
            held_out = self.dataset(*unpack(validation_data), size)
        if isinstance(x, tf.data.Dataset):
            if validation_split and held_out is None:
                raise ValueError("Expected validation_data with a tf.data.Dataset; got none, or a validation_split.")
            return TrainingData(None, self.dataset(x, context, weight, batch_size), held_out, batch_size, order_seed)
        rows = self.rows(x, context, weight)
        check_enough(rows, None if None in self.event_shape else math.prod(self.event_shape))
        if validation_split and held_out is None:
            rows, held = hold_out(rows, validation_split, seed if hold_out_random else None)
            held_out = batches(held, min(size, len(held)))
        return TrainingData(rows, None, held_out, min(batch_size, len(rows)), order_seed)

    def _floats(self, value):
        dtype = np.dtype(value.dtype.as_numpy_dtype if tf.is_tensor(value) else value.dtype)
        if dtype == self.dtype or (dtype == np.float64 and self.keep_float64):
            return value
        return tf.cast(value, self.dtype) if tf.is_tensor(value) else value.astype(self.dtype)

    def _weight(self, weight, n_rows):
        weight = np.asarray(weight, dtype=np.float64)
        if weight.shape != (n_rows,):
            raise ValueError(f"Expected sample_weight of shape [{n_rows}]; got {list(weight.shape)}.")
        bad = np.flatnonzero(~(np.isfinite(weight) & (weight >= 0.0)))
        if len(bad):
            raise ValueError(
                f"Expected finite sample weights >= 0; got {weight[bad[0]]} in row {bad[0]}, and {len(bad)} "
                "such rows in all."
            )
        if not weight.any():
            raise ValueError("Expected at least one sample weight > 0; got only zeros.")
        return (weight / weight.mean()).astype(self.dtype)

    def _from_dataset(self, dataset):
        spec = dataset.element_spec
        parts = spec if isinstance(spec, tuple) else (spec,)
        tensors = [isinstance(part, tf.TensorSpec) for part in parts]
        if not 1 <= len(parts) <= 3 or not tensors[0] or not all(tensors[2:]):
            raise ValueError(f"Expected a dataset of batches x, (x, context) or (x, context, weight); got {spec}.")
        if parts[0].shape.rank is not None and parts[0].shape.rank == len(self.event_shape):
            raise ValueError(f"Expected a batched dataset, as from .batch(256); got elements {parts[0]}.")
        has_context = len(parts) > 1 and tensors[1]
        if has_context != (self.contexts is not None):
            expected, got = ("no", "one") if has_context else ("a", "none")
            raise ValueError(f"Expected a dataset with {expected} context; got {got}.")
        if parts[0].shape.rank is not None:
            check_event(parts[0], self.event_shape, "x")
        are_labels = has_context and self.n_classes is not None and parts[1].shape.rank == 1
        if has_context and not are_labels and parts[1].shape.rank is not None:
            self.contexts.check_shape(parts[1])

        def standardise(*element):
            x = self._floats(element[0])
            data = {"x": tf.ensure_shape(x, [None, *self.event_shape])}
            if has_context:
                context = self.contexts.one_hot(element[1]) if are_labels else self.contexts.numbers(element[1])
                data["context"] = tf.ensure_shape(context, [None, *self.context_shape])
            weight = tf.ones(tf.shape(x)[:1], self.dtype)
            if len(element) > 2:
                # Inside a pipeline nothing can be refused; as NaN it stops the fit, which then says why.
                given = tf.cast(element[2], self.dtype)
                weight = tf.where(given >= 0.0, given, np.nan * weight)
            return data | {"weight": weight}

        return dataset.map(standardise, num_parallel_calls=tf.data.AUTOTUNE)


def _numbers(value, what):
    """A tensor as it is, all else as an array of numbers."""
    if tf.is_tensor(value):
        return value
    value = np.asarray(value)
    if value.dtype.kind not in "biuf":
        raise ValueError(
            f"Expected numbers in {what}; got dtype {value.dtype}. Encode text and dates as numbers first."
        )
    return value


def first_rows(dataset: tf.data.Dataset, n_rows: int) -> Rows:
    """Rows of positive weight from the front of a dataset of dicts: at least `n_rows`, if it has them and they fit."""
    parts, count, n_bytes = [], 0, 0
    for i, batch in enumerate(dataset.as_numpy_iterator()):
        parts.append(_positive(batch, i))
        count += len(parts[-1]["x"])
        n_bytes += sum(v.nbytes for v in parts[-1].values())
        if count >= n_rows or n_bytes >= ADAPT_BYTES:
            break
    if count == 0:
        raise ValueError("Expected at least one row of data in the dataset; got none.")
    merged = {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}
    for name in merged.keys() & {"x", "context"}:
        check_finite(merged[name], f"the dataset's {name}")
    return Rows.of(merged)


def _positive(batch, i):
    """The rows of positive weight of a dataset's batch number `i`."""
    weight = batch["weight"]
    if not np.all(np.isfinite(weight)):  # negative ones have become NaN
        raise ValueError(
            f"Expected finite sample weights >= 0; got an infinite, negative or NaN one in the dataset's batch {i}."
        )
    return {name: value[weight > 0.0] for name, value in batch.items()}


def sampled_rows(
    dataset: tf.data.Dataset, n_rows: int, check: Callable, see: Callable | None = None, seed: int = 0
) -> Rows:
    """`n_rows` rows of positive weight, each as likely as any other, of a dataset of dicts, which is read once.

    Args:
      check: raises for x that is where there are no data.
      see: called with x and the weights of each batch, if given.
    """
    rng, kept, keys, limit = np.random.default_rng(seed), None, np.empty(0), 1.0
    if dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise ValueError("Expected a dataset with an end; got an endless one. Pass what it was before .repeat().")
    for i, batch in enumerate(dataset.as_numpy_iterator()):
        batch = _positive(batch, i)
        for name in batch.keys() & {"x", "context"}:
            check_finite(batch[name], f"{name} of the dataset's batch {i}")
        check(batch["x"], f"x of the dataset's batch {i}")
        if see is not None:
            see(batch["x"], batch["weight"])
        # Rows of the least random keys are a sample without replacement, however they come in batches.
        new = rng.random(len(batch["x"]))
        near = new < limit
        if not near.any():
            continue
        batch, keys = {name: value[near] for name, value in batch.items()}, np.concatenate([keys, new[near]])
        if kept is None:
            n_rows = max(1, min(n_rows, ADAPT_BYTES // sum(value[0].nbytes for value in batch.values())))
        kept = batch if kept is None else {name: np.concatenate([kept[name], batch[name]]) for name in kept}
        if len(keys) > n_rows:
            least = np.sort(np.argpartition(keys, n_rows)[:n_rows])
            kept, keys = {name: value[least] for name, value in kept.items()}, keys[least]
            limit = keys.max()
    if len(keys) == 0:
        raise ValueError("Expected at least one row of data in the dataset; got none.")
    return Rows.of(kept)


def check_enough(rows: Rows, n_dim: int | None) -> None:
    """Raises for a single row; warns where rows are too few to determine a density of `n_dim` numbers."""
    if len(rows) < 2:
        raise ValueError(f"Expected at least 2 rows to fit a density; got {len(rows)}.")
    if n_dim is not None and len(rows) <= n_dim:
        warnings.warn(
            f"{len(rows)} rows of {n_dim} dimensions: the fit will describe these rows and little else.",
            stacklevel=3,
        )


def unpack(data) -> tuple:
    """x, (x, context) or (x, context, weight) as three, with None for what is missing."""
    if not isinstance(data, (tuple, list)):
        return data, None, None
    if not 1 <= len(data) <= 3:
        raise ValueError(f"Expected x, (x, context) or (x, context, weight); got {len(data)} entries.")
    return (*data, None, None)[:3]
