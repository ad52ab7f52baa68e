"""Shards of any number scored or drawn by a pipeline of Beam's, which can be stopped at any moment and begun again."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import apache_beam as beam
import numpy as np
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

from tfflows.beam import storage
from tfflows.beam.rows import rows_of
from tfflows.beam.served import Description, describe
from tfflows.beam.shards import N_SEEDS, Shard, shards_of_draws, shards_of_files
from tfflows.beam.steps import BLOCK, Drawing, Run, Scoring, first_schema
from tfflows.beam.transforms import LEAST, MOST, FlowHandler, check_sizes
from tfflows.beam.values import too_large
from tfflows.checks import listed
from tfflows.frames import heard
from tfflows.schema import Column
from tfflows.states import fingerprint

# In the memory of this process; "DirectRunner" would first look for a program to load from the network.
RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"


class Result(NamedTuple):
    """What became of a run.

    Args:
      shards: how many there are.
      skipped: how many of them an earlier run had written.
      rows: in all of those that can be read, `scored` + `dead`.
      scored: good rows, or draws.
      dead: bad rows.
      failed: of shards that cannot be read, the reason by their name. A later run tries them again.
    """

    shards: int
    skipped: int
    rows: int
    scored: int
    dead: int
    failed: dict[str, str]


def score(
    model,
    data: str | Sequence[str],
    out,
    *,
    op: str = "log_prob",
    columns: Sequence[str] | None = None,
    context: Sequence[str] | None = None,
    keep: Sequence[str] | None = None,
    overwrite: bool = False,
    min_batch_size: int = LEAST,
    max_batch_size: int = MOST,
    block_rows: int = BLOCK,
    options: PipelineOptions | Sequence[str] | None = None,
) -> Result:
    """Scores or encodes the rows of Parquet files with an exported flow: for each file one of the same name.

    `out/<name>` has the good rows, in their order, and a column `log_prob` (or `z0`, `z1`, ...), `out/_dead/<name>` the
    bad ones, with their `row` in the file and the `reason`: a value that is missing, no finite number, none of the
    categories or outside of its column's domain. A run that was stopped, or killed, goes on where it was if it is begun
    again: files that are done with this model and have not changed since are left as they are.

    Args:
      model: the folder that `flow.export` wrote, where all workers can read it.
      data: a pattern such as `in/*.parquet` (`**` for any folders), or a list of paths or patterns.
      out: a folder that is empty or of an earlier run.
      op: "log_prob" or "encode".
      columns: names of x in the files, in the model's order. By default those that the model knows, from a fit to a
        data frame or by the command line; if it knows none, all columns of numbers that are neither context nor kept.
      context: those of the context, likewise, if the flow is conditional.
      keep: columns of the files to write again, such as `["id"]`; all by default.
      overwrite: whether files of an earlier run with another model or other settings may be replaced.
      min_batch_size, max_batch_size: rows that the model is run for, see `FlowHandler`.
      block_rows: rows that are read and written at a time; what is lost by a stop.
      options: of Beam: `--runner=FlinkRunner` and so on. By default the rows go through this process.

    Returns:
      a `Result`, when the pipeline has ended.

    Raises:
      ValueError: for a model, files, columns, sizes or a folder that will not do, before anything is computed.
    """
    check_sizes(min_batch_size, max_batch_size, block_rows)
    description = describe(storage.absolute(model))
    patterns = [storage.absolute(path) for path in ([data] if isinstance(data, (str, os.PathLike)) else data)]
    found = storage.files(patterns, some=True)
    where, schema = first_schema([path for path, *_ in sorted(found)])
    rows = rows_of(description, op, columns, context, keep, schema)
    rows.check_has(schema.names, where)
    rows.check_free(schema.names, where)
    settings = {
        "model": description.fingerprint,
        "op": op,
        "columns": [column.name for column in rows.columns],
        "context": [column.name for column in rows.context],
        "keep": None if keep is None else list(keep),
    }
    shards = shards_of_files(found, patterns, fingerprint(settings))
    handler = FlowHandler(description, op, min_batch_size=min_batch_size, max_batch_size=max_batch_size)
    sizes = (min_batch_size, max_batch_size, block_rows)
    return _run(Scoring(rows), shards, handler, out, settings, sizes, overwrite, options)


def sample(
    model,
    n: int,
    out,
    *,
    seed: int,
    given: Mapping | None = None,
    temperature: float = 1.0,
    rows_per_shard: int = 1_000_000,
    overwrite: bool = False,
    min_batch_size: int = LEAST,
    max_batch_size: int = MOST,
    block_rows: int = BLOCK,
    options: PipelineOptions | Sequence[str] | None = None,
) -> Result:
    """Draws rows from an exported flow into Parquet files `out/00000.parquet`, `out/00001.parquet` and so on.

    Draw number i follows from the seed and i alone, whatever the number of files and workers, and no two of a run have
    the same random numbers. A larger n adds to a run of a smaller one, a smaller n takes files away. Runs can be
    stopped and begun again, as in `score`.

    Args:
      model: the folder that `flow.export` wrote, where all workers can read it.
      n: how many draws, 1 to 2^31.
      out: a folder that is empty or of an earlier run.
      seed: >= 0. Draws of runs with different seeds have nothing in common, but for a probability of about n / 2^30
        that stretches of them are the same: an export tells 2^31 seeds of rows apart.
      given: of a conditional flow, the value of each of its context's columns by name, `{"c0": 1.5}` if they have none.
      temperature: below 1 rows come from denser regions, > 0.
      rows_per_shard: rows of a file.
      overwrite: whether files of an earlier run with another model or other settings may be replaced.
      min_batch_size, max_batch_size: rows that the model is run for, see `FlowHandler`.
      block_rows: rows that are written at a time; what is lost by a stop.
      options: of Beam: `--runner=FlinkRunner` and so on. By default the rows go through this process.

    Returns:
      a `Result`, when the pipeline has ended.

    Raises:
      ValueError: for a model, numbers or a folder that will not do, before anything is computed.
    """
    check_sizes(min_batch_size, max_batch_size, block_rows)
    if not all(isinstance(value, (int, np.integer)) for value in (n, seed, rows_per_shard)):
        raise ValueError(f"Expected whole numbers n, seed and rows_per_shard; got {n}, {seed} and {rows_per_shard}.")
    if not 1 <= n <= N_SEEDS or seed < 0 or rows_per_shard < 1:
        raise ValueError(
            f"Expected n from 1 to 2^31, seed >= 0 and rows_per_shard >= 1; got {n}, {seed} and {rows_per_shard}."
        )
    if not 0.0 < temperature < math.inf:
        raise ValueError(f"Expected a finite temperature > 0; got {temperature}.")
    description = describe(storage.absolute(model))
    handler = FlowHandler(description, "sample", min_batch_size=min_batch_size, max_batch_size=max_batch_size)
    heard_context = _given(description, dict(given or {}))
    if description.schema is None:
        columns = tuple(Column(f"x{i}", "float32") for i in range(description.outputs["sample"]["x"][0][1]))
    else:
        columns = description.schema.columns
    settings = {"model": description.fingerprint, "op": "sample", "seed": int(seed), "temperature": float(temperature)}
    settings["given"] = None if heard_context is None else heard_context.tolist()
    settings["rows_per_shard"] = int(rows_per_shard)
    shards = shards_of_draws(int(n), int(rows_per_shard), fingerprint(settings))
    task = Drawing(columns, int(seed), float(temperature), heard_context)
    return _run(task, shards, handler, out, settings, (min_batch_size, max_batch_size, block_rows), overwrite, options)


def _given(model: Description, given: dict) -> np.ndarray | None:
    """One context `[1, ...]` of its columns' values."""
    context = model.inputs["sample"].get("context")
    known = () if model.schema is None else model.schema.context
    if context is not None and not known:
        known = tuple(Column(f"c{i}") for i in range(context[0][1] if len(context[0]) > 1 else 1))
    names = [column.name for column in known]
    if set(given) != set(names):
        raise ValueError(f"Expected given= values of {listed(names) or 'no columns'}; got {listed(given) or 'none'}.")
    if context is None:
        return None
    numbers = []
    for column in known:
        value = given[column.name]
        if column.categories is not None and value not in column.categories:
            raise ValueError(f"Expected one of {listed(column.categories)} as '{column.name}'; got {value!r}.")
        numbers.append(value if column.categories is None else column.categories.index(value))
    try:
        row = np.array([numbers], np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Expected numbers as given; got {given}.") from error
    if not np.isfinite(row).all():
        raise ValueError(f"Expected finite numbers as given; got {given}.")
    if too_large(row, context[1]).any() or (context[1].kind in "iu" and (row % 1 != 0).any()):
        raise ValueError(f"Expected numbers that {context[1].name} can hold as given; got {given}.")
    return (heard(known, row) if len(context[0]) > 1 else row[:, 0]).astype(context[1])


def _run(task, shards: Sequence[Shard], handler, out, settings: dict, sizes, overwrite: bool, options) -> Result:
    options = options if isinstance(options, PipelineOptions) else PipelineOptions(list(options or ()))
    folder = storage.Folder(storage.absolute(out))
    folder.prepare(settings, overwrite=overwrite)
    if settings["op"] == "sample":
        folder.keep_only({shard.name for shard in shards})  # of a run that drew more
    todo = [shard for shard in shards if not folder.has(shard)]
    if todo:
        runner = None if options.view_as(StandardOptions).runner else RUNNER
        run = Run(folder, task, fingerprint(sizes), sizes[-1])
        with beam.Pipeline(runner, options) as pipeline:
            run.pipeline(pipeline, todo, handler)
    folder.clear()
    found = {shard.name: storage.read_json(folder.manifest(shard.name)) or {} for shard in shards}
    totals = (sum(manifest.get(key, 0) for manifest in found.values()) for key in ("rows", "scored", "dead"))
    failed = {name: manifest["error"] for name, manifest in found.items() if "error" in manifest}
    return Result(len(shards), len(shards) - len(todo), *totals, failed)
