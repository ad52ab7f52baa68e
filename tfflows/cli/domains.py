"""Domains as they are written on the command line: `hour=circular:0:24`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tfflows.checks import listed
from tfflows.domains import Domain
from tfflows.frames import LARGEST_WHOLE
from tfflows.schema import Column

KINDS = ("real", "positive", "interval", "circular", "integer", "categorical", "simplex", "sphere")


def parse(options: Sequence[str], names: Sequence[str]) -> dict[tuple[str, ...], str]:
    """Of options `column=kind[:low:high]`, or `a,b,c=simplex`, the domain of each column or group of them.

    Raises:
      ValueError: for an option of another form, a column that is not in `names`, or one with two domains.
    """
    found = {}
    for option in options:
        name, equals, domain = option.rpartition("=")
        if not equals or domain.split(":")[0] not in KINDS:
            raise ValueError(
                f"Expected --domain column=kind[:low:high], of a kind of {', '.join(KINDS)}; got '{option}'."
            )
        group = (name,) if name in names else tuple(part.strip() for part in name.split(","))
        if missing := [part for part in group if part not in names]:
            raise ValueError(f"Expected columns of {listed(names)} in --domain; got {listed(missing)}.")
        if twice := [part for part in group if any(part in other for other in found)]:
            raise ValueError(f"Expected one --domain for each column; got two for '{twice[0]}'.")
        if len(group) > 1 and domain not in ("simplex", "sphere"):
            raise ValueError(f"Expected simplex or sphere for columns together; got '{option}'.")
        found[group] = domain
    return found


def default(column: Column, values: np.ndarray) -> str:
    """The domain of a column that the user says nothing of: whole numbers where they are so by type, else real ones."""
    if column.categories is not None:
        return "categorical"
    if not column.is_whole or np.nanmax(np.abs(values)) > LARGEST_WHOLE:
        return "real"
    return "integer"


def make(text: str, columns: Sequence[Column], values: np.ndarray) -> Domain:
    """The `Domain` of one column, or of several together.

    Args:
      text: such as `interval:0:1`.
      columns: that it is of.
      values: of the first one, `[n]`.
    """
    kind, *bounds = text.split(":")
    try:
        low, high = [None if bound == "" else float(bound) for bound in [*bounds, "", ""][:2]]
        if len(bounds) > 2:
            raise ValueError("more than two bounds")
        if kind in ("interval", "circular") and None in (low, high):
            raise ValueError("no low and high bound")
        if kind not in ("interval", "circular", "integer") and bounds:
            raise ValueError("bounds where there are none")
    except ValueError as error:
        raise ValueError(f"Expected {kind} as {_form(kind)}; got '{text}', with {error}.") from error
    if kind == "integer":
        if low is None and np.nanmin(values) >= 0.0:
            low = 0.0
        return Domain.integer(low, high)
    return {
        "real": Domain.real,
        "positive": Domain.positive,
        "interval": lambda: Domain.interval(low, high),
        "circular": lambda: Domain.circular(high - low, low),
        "categorical": lambda: Domain.categorical(len(columns[0].categories)),
        "simplex": lambda: Domain.simplex(len(columns)),
        "sphere": lambda: Domain.sphere(len(columns)),
    }[kind]()


def grouped(columns: Sequence[Column], given: Mapping[tuple[str, ...], str]) -> list[tuple[Column, ...]]:
    """The columns, those that share a domain together.

    Raises:
      ValueError: if columns of one group are not side by side.
    """
    groups, left = [], {column.name: column for column in columns}
    for column in columns:
        if column.name not in left:
            continue
        names = next((group for group in given if column.name in group), (column.name,))
        start = columns.index(column)
        if tuple(c.name for c in columns[start : start + len(names)]) != names:
            raise ValueError(f"Expected {listed(names)} side by side and in this order; put them so by --columns.")
        groups.append(tuple(left.pop(name) for name in names))
    return groups


def _form(kind: str) -> str:
    return {
        "interval": "interval:low:high",
        "circular": "circular:low:high, such as hour=circular:0:24,",
        "integer": "integer, integer:low or integer:low:high",
    }.get(kind, kind)
