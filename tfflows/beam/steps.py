"""The steps of a run: shards are planned, read block by block, put through the model, and written whole."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.ml.inference.base import RunInference
from pyarrow import parquet

from tfflows.beam import storage
from tfflows.beam.rows import Rows
from tfflows.beam.shards import Block, Shard, blocks, check_counts, seeds
from tfflows.beam.transforms import FlowHandler, Keyed
from tfflows.cli.columns import values
from tfflows.schema import Column

BLOCK = 65_536
UNREADABLE = (OSError, pa.ArrowException, storage.BeamIOError)


class Task(Protocol):
    """What is done with blocks of rows."""

    def groups(self, shard: Shard, size: int) -> list[int]:
        """How many rows each part of a shard has that is read at once, in blocks of `size`."""

    def read(self, group: list[Block]) -> Iterator[tuple[Block, Any, dict[str, np.ndarray]]]:
        """Blocks of a group, their rows, and the signature's inputs of those that are good."""

    def tables(self, block: Block, read: Any, outputs: dict[str, np.ndarray]) -> tuple[pa.Table, pa.Table]:
        """Good rows and bad ones."""


@dataclasses.dataclass(frozen=True)
class Scoring:
    """Rows of Parquet files through log_prob or encode."""

    rows: Rows

    def groups(self, shard, size):
        with storage.opened(shard.source) as file:
            return _groups(parquet.ParquetFile(file))

    def read(self, group):
        with storage.opened(group[0].shard.source) as opened:
            file = parquet.ParquetFile(opened)
            self.rows.check_free(file.schema_arrow.names, group[0].shard.source)
            for block, table in _tables(file, group):
                checked = self.rows.check(table)
                yield block, checked, checked.inputs

    def tables(self, block, read, outputs):
        return self.rows.tables(read, outputs, first=block.start)


@dataclasses.dataclass(frozen=True)
class Drawing:
    """Draws of a flow, a seed each."""

    columns: tuple[Column, ...]
    seed: int
    temperature: float
    context: np.ndarray | None

    def groups(self, shard, size):
        return [min(size, shard.n_rows - start) for start in range(0, shard.n_rows, size)]

    def read(self, group):
        for block in group:
            n = block.stop - block.start
            inputs = {"seed": seeds(self.seed, block.shard.first + block.start, n)}
            inputs["temperature"] = np.full(n, self.temperature)
            if self.context is not None:
                inputs["context"] = np.repeat(self.context, n, axis=0)
            yield block, None, inputs

    def tables(self, block, read, outputs):
        drawn = pa.table(values(self.columns, outputs["x"]))
        return drawn, drawn.slice(0, 0)


def _groups(file: parquet.ParquetFile) -> list[int]:
    return [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]


def _tables(file: parquet.ParquetFile, group: list[Block]) -> Iterator[tuple[Block, pa.Table]]:
    """Blocks that lie in one row group, read one after the other."""
    ends = np.cumsum([0, *_groups(file)])
    number = int(np.searchsorted(ends, group[0].start, side="right")) - 1
    at, left = int(ends[number]), file.schema_arrow.empty_table()
    batches = file.iter_batches(batch_size=BLOCK, row_groups=[number] if number < file.num_row_groups else [])
    for block in group:
        while at + len(left) < block.stop:  # Parquet cuts where it likes
            left = pa.concat_tables([left, pa.Table.from_batches([next(batches)])])
        yield block, left.slice(block.start - at, block.stop - block.start).combine_chunks()
        left, at = left.slice(block.stop - at), block.stop


@dataclasses.dataclass(frozen=True)
class Run:
    """What all steps of a run know.

    Args:
      folder: to write to.
      task: what is done.
      settings: a fingerprint of how rows are divided, which parts of an earlier run must have in common.
      size: rows of a block.
    """

    folder: storage.Folder
    task: Task
    settings: str
    size: int

    def pipeline(self, begin, shards: Sequence[Shard], handler: FlowHandler) -> None:
        """Adds all steps to a pipeline."""
        planned = (
            begin
            | "Shards" >> beam.Create(shards)
            | "Spread shards" >> beam.Reshuffle()
            | "Plan" >> beam.ParDo(_Plan(self)).with_outputs(main="ends")
        )
        written = (
            planned.todo
            | "Spread blocks" >> beam.Reshuffle()
            | "Read" >> beam.ParDo(_Read(self)).with_outputs(main="read")
        )
        parts = (
            written.read
            | RunInference(Keyed(handler).with_no_batching())
            | "Write parts" >> beam.Map(_write_part, self)
        )
        _ = (
            (planned.ends, written.ends, parts)
            | beam.Flatten()
            | "Of a shard" >> beam.GroupByKey()
            | "Write shards" >> beam.Map(_write_shard, self)
        )


class _Plan(beam.DoFn):
    """The groups of blocks that are still to do, and of each shard its name, so that it is written."""

    def __init__(self, run: Run):
        self._run = run

    def process(self, shard: Shard):
        run = self._run
        try:
            groups = run.task.groups(shard, run.size)
        except UNREADABLE as error:
            yield shard.name, (shard, _reason(error))
            return
        done = run.folder.parts(shard, run.settings)
        for group in blocks(shard, groups, run.size):
            left = [block for block in group if run.folder.part(block, run.settings, "good") not in done]
            if left:
                yield beam.pvalue.TaggedOutput("todo", left)
        yield shard.name, (shard, None)


class _Read(beam.DoFn):
    """Blocks and what the model is given of them, as batches of one."""

    def __init__(self, run: Run):
        self._run = run

    def process(self, group: list[Block]):
        try:
            for block, read, inputs in self._run.task.read(group):
                yield [((block, read), inputs)]
        except (*UNREADABLE, ValueError) as error:
            shard = group[0].shard
            yield beam.pvalue.TaggedOutput("ends", (shard.name, (shard, _reason(error))))


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]


def _write_part(element, run: Run):
    (block, read), result = element
    good, dead = run.task.tables(block, read, result.inference)
    run.folder.write_part(block, run.settings, good, dead)
    return block.shard.name, (block.shard, None)


def _write_shard(element, run: Run):
    """The parts of a shard as one file, another with the bad rows if there are any, and then that it is done."""
    name, ends = element[0], list(element[1])
    shard, errors = ends[0][0], [error for _, error in ends if error is not None]
    folder, facts = run.folder, {"name": name, "fingerprint": shard.fingerprint}
    if errors:
        folder.write_json(folder.manifest(name), facts | {"error": errors[0]})
        return
    groups = run.task.groups(shard, run.size)
    parts = [block for group in blocks(shard, groups, run.size) for block in group]
    dead = folder.join(parts, run.settings, "dead", folder.dead(name))
    scored = folder.join(parts, run.settings, "good", folder.good(name))
    check_counts(shard, sum(groups), scored, dead)
    folder.write_json(folder.manifest(name), facts | {"rows": sum(groups), "scored": scored, "dead": dead})


def first_schema(paths: Sequence[str]) -> tuple[str, pa.Schema]:
    """The first of some files that can be read as Parquet, and its columns.

    Raises:
      ValueError: if none can.
    """
    reasons = []
    for path in paths:
        try:
            with storage.opened(path) as file:
                return path, parquet.read_schema(file)
        except UNREADABLE as error:
            reasons.append(f"{path}: {_reason(error)}")
    raise ValueError(f"Expected Parquet files; got {reasons[0]}.")
