"""Flows in pipelines of a user's own: a handler for Beam's RunInference, and rows through it, bad ones apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.ml.inference.base import KeyedModelHandler, ModelHandler, PredictionResult, RunInference

from tfflows.beam.rows import REASON, Checked, Rows, rows_of
from tfflows.beam.served import Description, Served, describe
from tfflows.beam.storage import absolute
from tfflows.checks import listed

LEAST, MOST = 256, 4096  # rows of a call
GOOD, DEAD = "good", "dead"


class FlowHandler(ModelHandler[Mapping[str, np.ndarray], PredictionResult, Served]):
    """An exported flow for Beam's `RunInference`, loaded once in each process of a worker, by TensorFlow alone.

    An example is a dict of the signature's inputs by name, `[n, ...]` each, of one row or of many: `{"x": [n, D]}`, or
    `{"seed": [n], "temperature": [n]}` for draws. Its inference are the outputs by name, `[n, ...]`. Beam joins
    examples into batches of `min_batch_size` to `max_batch_size` rows; the model runs `max_batch_size` rows at a time,
    and fewer filled up to `min_batch_size` times a power of two.

    Beam's own handlers of TensorFlow call a Keras model as a function of one array: Keras 3 loads no SavedModel, and
    they know no signatures.

    Args:
      model: the folder that `flow.export` wrote, where all workers can read it.
      signature: log_prob, encode, decode or sample.
      min_batch_size, max_batch_size: rows.

    Raises:
      ValueError: if there is no such model or signature, or not 1 <= min_batch_size <= max_batch_size.
    """

    def __init__(self, model, signature: str = "log_prob", *, min_batch_size: int = LEAST, max_batch_size: int = MOST):
        check_sizes(min_batch_size, max_batch_size)
        description = model if isinstance(model, Description) else describe(absolute(model))
        if signature not in description.inputs:
            raise ValueError(f"Expected a signature of {listed(description.inputs)}; got {signature!r}.")
        super().__init__(min_batch_size=min_batch_size, max_batch_size=max_batch_size, element_size_fn=_n_rows)
        self._path, self._signature, self._sizes = description.path, signature, (min_batch_size, max_batch_size)

    def load_model(self) -> Served:
        return Served(self._path, self._signature, *self._sizes)

    def run_inference(self, batch, model, inference_args=None) -> Iterable[PredictionResult]:
        if not batch:  # Beam begins with one, where an example is larger than a batch
            return
        joined = {name: np.concatenate([example[name] for example in batch]) for name in batch[0]}
        outputs, stops = model(joined), np.cumsum([_n_rows(example) for example in batch])
        parts = {name: np.split(value, stops[:-1]) for name, value in outputs.items()}
        for i, example in enumerate(batch):
            yield PredictionResult(example, {name: part[i] for name, part in parts.items()}, self._path)

    def get_num_bytes(self, batch) -> int:
        """Of the examples of a `batch`."""
        return sum(value.nbytes for example in batch for value in example.values())

    def get_metrics_namespace(self) -> str:
        return "tfflows"

    def validate_inference_args(self, inference_args) -> None:
        """Refuses `inference_args`: all inputs come with the examples.

        Raises:
          ValueError: for any.
        """
        if inference_args:
            raise ValueError(f"Expected no inference_args; got {inference_args}.")


class Keyed(KeyedModelHandler):
    """Examples with something that goes along with them; Beam's own takes no batch without any."""

    def run_inference(self, batch, model, inference_args=None):
        return super().run_inference(batch, model, inference_args) if batch else ()

    def get_num_bytes(self, batch) -> int:
        return super().get_num_bytes(batch) if batch else 0


class Score(beam.PTransform):
    """Rows with what an exported flow says of them, and apart from them the bad ones.

    Takes a PCollection of dicts, one a row, or of `pyarrow.Table`s, as `beam.io.ReadFromParquetBatched` reads them,
    which is many times as fast. Gives a dict of two: `"good"`, the same with `log_prob`, or `z0`, `z1`, ..., and
    `"dead"`, rows as they came with a `reason`: a value that is missing, no finite number, none of the categories or
    outside of the column's domain. Every row is in one of them, once.

    Args:
      model: the folder that `flow.export` wrote, where all workers can read it.
      op: "log_prob" or "encode".
      columns: names of x in the rows, in the model's order. By default those that the model knows, from a fit to a
        data frame or by the command line.
      context: those of the context, likewise, if the flow is conditional.
      min_batch_size, max_batch_size: rows that the model is run for, see `FlowHandler`.

    Raises:
      ValueError: for a model, op or columns that are none.
    """

    def __init__(
        self,
        model,
        op: str = "log_prob",
        *,
        columns: Sequence[str] | None = None,
        context: Sequence[str] | None = None,
        min_batch_size: int = LEAST,
        max_batch_size: int = MOST,
    ):
        super().__init__()
        description = describe(absolute(model))
        self._rows = rows_of(description, op, columns, context)
        self._handler = FlowHandler(description, op, min_batch_size=min_batch_size, max_batch_size=max_batch_size)

    def expand(self, pcoll):
        """The two PCollections of the rows of `pcoll`."""
        found = (
            pcoll
            | "Check" >> beam.Map(_checked, self._rows)
            | RunInference(Keyed(self._handler))
            | "Part" >> beam.ParDo(_Part(self._rows)).with_outputs(GOOD, DEAD)
        )
        return {GOOD: found[GOOD], DEAD: found[DEAD]}


def _checked(row, rows: Rows):
    """A row or table and what is found of it, with the inputs of those rows that are good."""
    if isinstance(row, Mapping):
        rows.check_free(list(row), "rows")
        try:
            table = pa.table({name: [row[name]] for name in rows.names if name in row})
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):  # of values that are no column's
            table = pa.table({name: [str(row[name])] for name in rows.names if name in row})
        table = table if table.num_columns else pa.table({"": [None]})
        checked = rows.check(table)
        return (dict(row), checked), checked.inputs
    if isinstance(row, pa.RecordBatch):
        row = pa.Table.from_batches([row])
    if not isinstance(row, pa.Table):
        raise ValueError(f"Expected dicts or Arrow tables as rows; got a {type(row).__name__}.")
    rows.check_free(row.column_names, "tables")
    checked = rows.check(row)
    return (None, checked), checked.inputs


class _Part(beam.DoFn):
    """Good rows and bad ones."""

    def __init__(self, rows: Rows):
        self._rows = rows

    def process(self, element: tuple[tuple[dict | None, Checked], PredictionResult]):
        (row, checked), result = element
        good, dead = self._rows.tables(checked, result.inference)
        if row is None:
            parts = {GOOD: [good] * (len(good) > 0), DEAD: [dead] * (len(dead) > 0)}
        else:
            added = good.select(self._rows.outputs).to_pylist()
            parts = {GOOD: [row | a for a in added], DEAD: [row | {REASON: r} for r in dead[REASON].to_pylist()]}
        for tag, found in parts.items():
            yield from (beam.pvalue.TaggedOutput(tag, part) for part in found)


def check_sizes(least: int, most: int, block_rows: int = 1) -> None:
    """Raises a ValueError unless 1 <= least <= most, and 1 <= block_rows, all whole numbers."""
    whole = all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) for n in (least, most, block_rows))
    if not whole or not 1 <= least <= most or block_rows < 1:
        raise ValueError(
            f"Expected whole numbers 1 <= min_batch_size <= max_batch_size and block_rows >= 1; got {least}, {most} "
            f"and {block_rows}."
        )


def _n_rows(example) -> int:
    """Of an example, or of a key and an example."""
    example = example[1] if isinstance(example, tuple) else example
    return len(next(iter(example.values())))
