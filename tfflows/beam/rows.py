"""Rows of tables as an exported flow hears them; bad ones apart, each with the reason."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from tfflows.beam.served import Description
from tfflows.beam.values import is_number, note, too_large, values_of
from tfflows.bijectors.domain import NORM_TOLERANCE, SUM_TOLERANCE
from tfflows.checks import listed
from tfflows.domains import Domain
from tfflows.frames import heard
from tfflows.schema import Column

OPS = ("log_prob", "encode")
REASON, ROW = "reason", "row"


class Checked(NamedTuple):
    """A table's rows, looked through.

    Args:
      table: all of them, `n`.
      reasons: `[n]`, what is wrong with each; None where nothing is.
      inputs: of the signature, by name, only of the good rows.
    """

    table: pa.Table
    reasons: np.ndarray
    inputs: dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Rows:
    """How tables become a signature's inputs, and its outputs columns. Made by `rows_of`.

    Args:
      columns: of x, by their names in the tables, in the model's order.
      context: of the context, likewise; one with categories is heard as a one-hot vector.
      domain: of each column of x, or of several together; None if that is not known.
      x_dtype, context_dtype: NumPy's names of what the signature takes.
      context_shape: of one context.
      outputs: the columns that are added.
      keep: columns of the tables that are written again; None for all.
    """

    columns: tuple[Column, ...]
    context: tuple[Column, ...]
    domain: tuple[Domain, ...] | None
    x_dtype: str
    context_dtype: str | None
    context_shape: tuple[int, ...]
    outputs: tuple[str, ...]
    keep: tuple[str, ...] | None = None

    @property
    def names(self) -> list[str]:
        """Of the columns that are read."""
        return [column.name for column in (*self.columns, *self.context)]

    def check_has(self, names: Sequence[str], where: str) -> None:
        """Raises a ValueError unless a table of columns `names` has those that are read."""
        if missing := [name for name in self.names if name not in names]:
            raise ValueError(f"Expected columns {listed(missing)} in {where}; got {listed(names)}.")

    def check_free(self, names: Sequence[str], where: str) -> None:
        """Raises a ValueError if a table of columns `names` has or lacks what cannot be written then."""
        if twice := [name for name, count in collections.Counter(names).items() if count > 1]:
            raise ValueError(f"Expected columns of different names in {where}; got {listed(twice)} more than once.")
        kept = names if self.keep is None else self.keep
        if missing := [name for name in kept if name not in names]:
            raise ValueError(f"Expected columns {listed(missing)} in {where}; got {listed(names)}.")
        # Bad rows are written with all of their columns.
        added = [name for name in self.outputs if name in kept] + [name for name in (REASON, ROW) if name in names]
        if added:
            raise ValueError(f"Expected no columns {listed(added)} in {where}, which are added; got them.")

    def check(self, table: pa.Table) -> Checked:
        """Looks a table through. Columns that are missing or of another type are reasons too, and no errors."""
        reasons = np.full(len(table), None, object)
        x = self._numbers(table, self.columns, self.x_dtype, reasons).astype(self.x_dtype)
        if self.domain is not None:
            self._check_domain(x, reasons)
        inputs = {"x": x}
        if self.context:
            values = self._numbers(table, self.context, self.context_dtype, reasons)
            if np.dtype(self.context_dtype).kind in "iu":
                named = ", ".join(column.name for column in self.context)
                broken = (np.isfinite(values) & (values % 1 != 0)).any(axis=1)
                note(reasons, broken, named + " is {}, not whole", values)
            values = heard(self.context, values) if self.context_shape else values[:, 0]
            inputs["context"] = np.nan_to_num(values).astype(self.context_dtype)
        good = np.equal(reasons, None)
        return Checked(table, reasons, {name: value[good] for name, value in inputs.items()})

    def tables(
        self, checked: Checked, outputs: dict[str, np.ndarray], first: int | None = None
    ) -> tuple[pa.Table, pa.Table]:
        """The good rows with what the flow made of them, and the bad ones with a column `reason`.

        What the flow makes NaN of is bad too. Bad rows have all their columns, good ones those that are kept.

        Args:
          checked: from `check`.
          outputs: of the signature, `[n_good, ...]`.
          first: the number of the first row in its file; bad rows then have a column `row`, their numbers.
        """
        table, reasons = checked.table, checked.reasons
        ((signature, value),) = outputs.items()
        value = np.reshape(value, [len(value), len(self.outputs)])
        lost = np.isnan(value).any(axis=1)
        if lost.any():
            reasons = reasons.copy()
            reasons[np.flatnonzero(np.equal(reasons, None))[lost]] = f"{signature} is NaN"
            value = value[~lost]
        good = np.equal(reasons, None)
        scored = table if good.all() else table.filter(pa.array(good))
        scored = scored if self.keep is None else scored.select(self.keep)
        for name, column in zip(self.outputs, value.T, strict=True):
            scored = scored.append_column(name, pa.array(np.ascontiguousarray(column)))
        dead = table.filter(pa.array(~good))
        if first is not None:
            dead = dead.append_column(ROW, pa.array(first + np.flatnonzero(~good), pa.int64()))
        return scored, dead.append_column(REASON, pa.array(reasons[~good], pa.string()))

    def _numbers(self, table, columns, dtype, reasons) -> np.ndarray:
        """`[n, k]` of float64 that `dtype` can hold, NaN in bad rows, whose reasons are noted."""
        found = np.empty([len(table), len(columns)])
        for i, column in enumerate(columns):
            if column.name not in table.column_names:
                note(reasons, np.full(len(table), True), f"no column '{column.name}'")
                found[:, i] = np.nan
                continue
            values, wrong = values_of(column, table.column(column.name).combine_chunks(), reasons)
            large = too_large(values, dtype)
            note(reasons, ~np.isfinite(values) & ~wrong, column.name + " is {}", values)
            note(reasons, large, column.name + " is {}, too large for " + dtype, values)
            found[:, i] = np.where(np.isfinite(values) & ~large, values, np.nan)
        return found

    def _check_domain(self, x, reasons):
        start = 0
        for domain in self.domain:
            columns, values = self.columns[start : start + domain.n_columns], x[:, start : start + domain.n_columns]
            start += domain.n_columns
            names = ", ".join(column.name for column in columns)
            note(reasons, outside(domain, values), names + " is {}, outside of " + domain.text, values)


def outside(domain: Domain, values: np.ndarray) -> np.ndarray:
    """Which rows of `values` `[n, n_columns]` a domain has not, as `flow.log_prob` refuses them; NaN is let in."""
    if domain.kind == "simplex":
        return (values < 0.0).any(axis=1) | (np.abs(np.sum(values, axis=1, dtype=np.float64) - 1.0) > SUM_TOLERANCE)
    if domain.kind == "sphere":
        return np.abs(np.sum(np.square(values, dtype=np.float64), axis=1) - 1.0) > NORM_TOLERANCE
    if domain.kind == "circle":
        return np.zeros(len(values), bool)
    low, high = (np.asarray(bound, values.dtype) for bound in (domain.low, domain.high))
    found = (values < low) | (values > high)
    if domain.kind == "integers":
        found |= (values != np.floor(values)) & np.isfinite(values)
    return found.any(axis=1)


def rows_of(
    model: Description,
    op: str,
    columns: Sequence[str] | None = None,
    context: Sequence[str] | None = None,
    keep: Sequence[str] | None = None,
    table: pa.Schema | None = None,
) -> Rows:
    """How rows of tables go through a model.

    Args:
      model: which may know its columns' names.
      op: one of `OPS`.
      columns: names of x in the tables, in the model's order; by default the model's, or all columns of numbers of
        `table` that are not context.
      context: names of the context's, likewise by default the model's.
      keep: columns to write again; all by default.
      table: the columns of the first table, if that is known.

    Raises:
      ValueError: for an unknown op, one that the model has not, or columns that the model or the table cannot have.
    """
    if op not in OPS:
        raise ValueError(f"Expected an op of {OPS}; got {op!r}.")
    if op not in model.inputs:
        raise ValueError(f"Expected a model with the signature {op}; got {listed(model.inputs)}.")
    (_, n), x_dtype = model.inputs[op]["x"]
    known = (None, None) if model.schema is None else (model.schema.columns, model.schema.context)
    given = model.inputs[op].get("context")
    context_columns = _context(given, known[1], context)
    if columns is None and known[0] is None:
        if table is None:
            raise ValueError("Expected columns=, the names of x, because the model has no names for them; got None.")
        others = [*(column.name for column in context_columns), *(() if keep is None else keep)]
        columns = [f.name for f in table if is_number(f.type) and f.name not in others]
        if len(columns) != n:
            raise ValueError(
                f"Expected {n} columns of numbers, or columns=, because the model has no names for them; got "
                f"{len(columns)}: {listed(columns)}."
            )
    found = _named(known[0], columns, n, "columns")
    width = model.outputs[op]["z"][0][1] if op == "encode" else None
    outputs = ("log_prob",) if width is None else tuple(f"z{i}" for i in range(width))
    shape, dtype = ((), None) if given is None else (given[0][1:], given[1].name)
    keep = None if keep is None else tuple(keep)
    made = Rows(found, context_columns, model.domain, x_dtype.name, dtype, shape, outputs, keep)
    if len(set(made.names)) < len(made.names):
        raise ValueError(f"Expected each column once; got {listed(made.names)}.")
    return made


def _context(given, known, names) -> tuple[Column, ...]:
    if given is None:
        if names:
            raise ValueError(f"Expected no context, because the model has none; got {listed(names)}.")
        return ()
    if names is None and not known:
        raise ValueError("Expected context=, the names of its columns, because the model has none; got None.")
    shape = given[0][1:]
    if len(shape) > 1 or None in shape:
        raise ValueError(f"Expected a model whose context is columns of a table; got one of shape {list(shape)}.")
    n = shape[0] if shape else 1
    columns = _named(known or None, names, len(known) if known else n, "context")
    width = sum(1 if column.categories is None else len(column.categories) for column in columns)
    if width != n:
        raise ValueError(f"Expected context columns of {n} numbers; got {width} of {listed(c.name for c in columns)}.")
    return columns


def _named(known, names, n, what) -> tuple[Column, ...]:
    """The model's columns by the names that they have in the tables."""
    if isinstance(names, str):
        raise ValueError(f"Expected {what} as a list of names; got {names!r}.")
    if names is None:
        return tuple(known)
    if len(names) != n:
        raise ValueError(f"Expected {n} {what}, in the model's order; got {len(names)}: {listed(names)}.")
    if known is None:
        return tuple(map(Column, names))
    return tuple(dataclasses.replace(column, name=name) for column, name in zip(known, names, strict=True))
