"""Rows of tables of any size through a flow, some at a time."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from tfflows.checks import listed
from tfflows.cli.columns import arrow_types, matrix
from tfflows.cli.console import note, progress
from tfflows.cli.tables import CSVTable, Table
from tfflows.density import Density
from tfflows.frames import heard
from tfflows.schema import Column, Schema


class Stream:
    """The rows of a table as a flow hears them.

    Args:
      flow: whose rows they are.
      table: columns are taken by name, whichever their order, if the flow knows names; if not, or if the table has
        none, there must be as many as the flow takes, the context's last.
      drop_missing: whether rows that lack a value are left out; if not, they are an error.
      only_context: whether the table need have no other columns than those of the context.
    """

    def __init__(self, flow: Density, table: Table, *, drop_missing: bool = False, only_context: bool = False):
        schema = schema_of(flow, table.names if flow.schema is None and not only_context else None)
        self.schema = Schema((), schema.context) if only_context else schema
        self.flow, self.table, self.drop_missing = flow, table, drop_missing
        self.names = _renamed(self.schema.names, table)
        self.n_rows = self.n_dropped = 0

    def evaluate(
        self, function: Callable, what: str, *, as_text: bool = True, quiet: bool = False
    ) -> Iterator[tuple[pa.RecordBatch, object]]:
        """Batches of rows, all columns of theirs, each with what the function makes of it.

        Args:
          function: of (x, context, context's numbers), for the rows of a batch.
          what: is being done, as the progress bar says it.
          as_text: whether the columns of a CSV stay as they are written.
          quiet: whether nothing is said of rows that are left out.
        """
        self.n_rows = self.n_dropped = start = 0
        columns = (*self.schema.columns, *self.schema.context)
        missing = np.zeros(len(columns), np.int64)
        with progress(what, self.table.total) as show:
            for batch, done in self.table.batches(arrow_types(self.schema), as_text=as_text):
                if self.names != self.table.names:
                    batch = batch.rename_columns(self.names)
                with self._located(start):
                    found = matrix(columns, batch)
                start += len(batch)
                bad = np.isnan(found)
                missing += bad.sum(axis=0)
                if missing.any() and not self.drop_missing:
                    continue  # what is left is only counted, for the error
                if bad.any():
                    keep = ~bad.any(axis=1)
                    batch, found = batch.filter(pa.array(keep)), found[keep]
                if len(batch):
                    self.n_rows += len(batch)
                    n = len(self.schema.columns)
                    with self._located(start - len(bad)):
                        result = function(found[:, :n], hears(self.flow, self.schema, found[:, n:]), found[:, n:])
                    yield batch, result
                show(done, f"{self.n_rows:,} rows")
        self.n_dropped = start - self.n_rows
        n_rows = (start, self.n_rows if self.drop_missing else start)
        check_missing(columns, missing, n_rows, self.table.path, drop=self.drop_missing, quiet=quiet)

    def scores(self, function: Callable, what: str) -> np.ndarray:
        """What a function of (x, context) makes of all rows."""
        return np.concatenate([found for _, found in self.evaluate(lambda x, context, _: function(x, context), what)])

    def collect(self) -> tuple[np.ndarray, np.ndarray]:
        """All rows and their context's numbers, in memory."""
        parts = [found for _, found in self.evaluate(lambda x, _, context: (x, context), "Reading")]
        x, context = zip(*parts, strict=True)
        return np.concatenate(x), np.concatenate(context)

    def as_text(self, out: Path | None) -> bool:
        """Whether a table may stay text on its way: to another CSV it stays to the letter."""
        return isinstance(self.table, CSVTable) and (out is None or out.suffix.lower() == ".csv")

    @contextlib.contextmanager
    def _located(self, start):
        """Errors that count a batch's rows tell where in the table these are."""
        try:
            with by_name(self.schema):
                yield
        except ValueError as error:
            if not start or "row" not in str(error):
                raise
            raise ValueError(f"{error} Rows are counted from row {start:,} of {self.table.path}.") from error


@contextlib.contextmanager
def by_name(schema: Schema) -> Iterator[None]:
    """Errors that count the flow's columns tell what these are called."""
    try:
        yield
    except ValueError as error:
        names = [column.name for column in schema.columns]
        text = re.sub(r"column (\d+) of x", lambda found: f"column '{names[int(found[1])]}'", str(error))
        raise ValueError(text) from error


def schema_of(flow: Density, names: Sequence[str] | None = None) -> Schema:
    """A flow's schema, or one of as many columns as it takes, called `names`, or x0, x1, ... and those of c."""
    if flow.schema is not None:
        return flow.schema
    n, n_context = flow.accepts.event_shape[0], _context_width(flow)
    made = [f"x{i}" for i in range(n)] + [f"c{i}" for i in range(n_context)]
    names = made if names is None else list(names)
    if len(names) != len(made):
        raise ValueError(
            f"Expected {n} columns{f' and {n_context} of context' * bool(n_context)}, in the model's order, because it "
            f"has no names for them; got {len(names)}: {listed(names)}."
        )
    return Schema(tuple(map(Column, names[:n])), tuple(map(Column, names[n:])))


def hears(flow: Density, schema: Schema, values: np.ndarray) -> np.ndarray | None:
    """The context's numbers `[n, k]` as the flow hears them, or None."""
    contexts = flow.accepts.contexts
    if contexts is None:
        return None
    if flow.schema is None and (contexts.n_labels is not None or contexts.shape == ()):
        return values[:, 0] if contexts.n_labels is None else np.rint(values[:, 0]).astype(np.int64)
    return heard(schema.context, values)


def check_missing(
    columns: Sequence[Column],
    missing: np.ndarray,
    n_rows: tuple[int, int],
    path: Path,
    *,
    drop: bool,
    quiet: bool = False,
) -> None:
    """Says how many values each column lacks; raises unless their rows are dropped and others are left.

    Args:
      columns: that rows are looked through for.
      missing: how many values each lacks.
      n_rows: of the table, and without those that lack a value.
      path: of the table.
      drop: whether to go on without them.
      quiet: whether to say nothing.
    """
    n_all, n_whole = n_rows
    if n_all == 0:
        raise ValueError(f"Expected rows of data; got {path}, which has none below its header.")
    if not missing.any():
        return
    counts = ", ".join(f"{n:,} in '{c.name}'" for c, n in zip(columns, missing, strict=True) if n)
    if not drop:
        raise ValueError(
            f"Expected no missing or infinite values; got {counts}, of {n_all:,} rows. Use --drop-missing to go on "
            "without these rows."
        )
    if n_whole == 0:
        raise ValueError(f"Expected rows without missing or infinite values; got {counts}, of {n_all:,} rows.")
    if not quiet:
        note(f"Missing or infinite values: {counts}. Their rows are left out.")


def _renamed(wanted: list[str], table: Table) -> list[str]:
    """The table's columns by the flow's names."""
    missing = [name for name in wanted if name not in table.names]
    if not missing:
        return table.names
    if not table.is_named and len(table.names) == len(wanted):
        return wanted
    raise ValueError(
        f"Expected the model's columns {listed(wanted)}; got {table.path} without {listed(missing)}: it has "
        f"{listed(table.names)}."
    )


def _context_width(flow: Density) -> int:
    contexts = flow.accepts.contexts
    if contexts is None:
        return 0
    if contexts.n_labels is not None or contexts.shape == ():
        return 1
    if len(contexts.shape) != 1 or contexts.shape[0] is None:
        raise ValueError(f"Expected a flow whose context is columns of a table; got one of shape {contexts.shape}.")
    return contexts.shape[0]
