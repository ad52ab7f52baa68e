"""Data to fit flows to, in memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tfflows.checks import listed
from tfflows.cli import domains
from tfflows.cli.columns import describe, matrix
from tfflows.cli.console import note
from tfflows.cli.streams import check_missing
from tfflows.cli.tables import open_table
from tfflows.domains import Domain
from tfflows.frames import heard
from tfflows.schema import Schema


@dataclasses.dataclass(frozen=True)
class Data:
    """What a flow is fitted to, in memory.

    Args:
      schema: of its columns.
      domain: of each, or of several together; None if all are real.
      x, context, weight: rows, context and weight None if there is none.
    """

    schema: Schema
    domain: list[Domain] | None
    x: np.ndarray
    context: np.ndarray | None
    weight: np.ndarray | None

    def take(self, index: np.ndarray) -> Data:
        parts = (None if part is None else part[index] for part in (self.x, self.context, self.weight))
        return Data(self.schema, self.domain, *parts)

    def split(self, fraction: float, rng: np.random.Generator, what: str) -> tuple[Data, Data]:
        """Most of the rows, and a random fraction of them."""
        n_held = max(1, round(fraction * len(self.x)))
        if not 0.0 < fraction < 1.0 or n_held >= len(self.x):
            raise ValueError(
                f"Expected {what} in (0, 1), and rows on both sides; got {fraction} of {len(self.x)} rows."
            )
        order = rng.permutation(len(self.x))
        return self.take(order[n_held:]), self.take(order[:n_held])


def read(path: Path, columns, context, weights, domain, *, drop_missing: bool) -> Data:
    """The data in a file; the arguments are the command line's options."""
    table = open_table(path)
    context = _names(context, table.names)
    others = {*context, weights}
    columns = _names(columns, table.names) or [name for name in table.names if name not in others]
    if weights is not None:
        _names([weights], table.names)
    if twice := [name for name in columns if name in others]:
        raise ValueError(f"Expected each column in one part; got {listed(twice)} in two.")
    if not columns:
        raise ValueError(f"Expected columns to fit a flow to; got none beside {listed(filter(None, others))}.")
    given = domains.parse(domain, [*columns, *context])
    if useless := [o for names, o in given.items() if set(names) & set(context) and o != "categorical"]:
        raise ValueError(f"Expected no domain but categorical for a column of context; got {listed(useless)}.")
    found = table.read([*columns, *context, *([] if weights is None else [weights])])
    check_missing((), np.zeros(0), (found.num_rows, found.num_rows), path, drop=drop_missing)
    described = [
        describe(name, found.column(name), categorical=given.get((name,)) == "categorical")
        for name in (*columns, *context)
    ]
    extra = [] if weights is None else [describe(weights, found.column(weights))]
    values = matrix([*described, *extra], found)
    bad = np.isnan(values)
    whole = values[~bad.any(axis=1)]
    check_missing([*described, *extra], bad.sum(axis=0), (len(values), len(whole)), path, drop=drop_missing)
    values = whole
    if weights is not None and values[:, -1].min() < 0.0:
        raise ValueError(f"Expected weights >= 0 in column '{weights}'; got {values[:, -1].min():g}.")
    n = len(columns)
    domain, of_x = _domains(described[:n], given, values[:, :n])
    schema = Schema(tuple(of_x), tuple(described[n:]))
    return Data(
        schema,
        None if all(d.text == "real" for d in domain) else domain,
        values[:, :n],
        heard(schema.context, values[:, n : n + len(context)]) if context else None,
        None if weights is None else values[:, -1],
    )


def _names(options: Sequence[str] | None, known: Sequence[str]) -> list[str]:
    """Columns that options name, each one or several with commas between."""
    names = [name for o in options or () for name in ([o] if o in known else map(str.strip, o.split(",")))]
    if missing := [name for name in names if name not in known]:
        raise ValueError(f"Expected columns of {listed(known)}; got {listed(missing)}.")
    if len(set(names)) < len(names):
        raise ValueError(f"Expected each column once; got {listed(names)}.")
    return names


def _domains(columns, given, values) -> tuple[list[Domain], list]:
    """The domain of each group of columns, and the columns, which know its name."""
    made, described, chosen = [], [], []
    position = {column.name: i for i, column in enumerate(columns)}
    for group in domains.grouped(columns, given):
        first = values[:, position[group[0].name]]
        text = given.get(tuple(column.name for column in group))
        if text is None:
            text = domains.default(group[0], first)
            if text != "real":
                chosen.append(f"'{group[0].name}' as {text}")
        made.append(domains.make(text, group, first))
        described += [dataclasses.replace(column, domain=text) for column in group]
    if chosen:
        note(f"By their type, columns are taken so: {', '.join(chosen)}. --domain says otherwise.")
    return made, described
