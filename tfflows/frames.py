"""Pandas frames as the numbers that flows hear, and back. Pandas is asked for only where a frame is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tfflows.checks import listed
from tfflows.domains import Domain
from tfflows.schema import Column, Schema

__all__ = ["describe", "is_frame", "schema_of", "to_frame"]

LARGEST_WHOLE = 2**19  # float32 tells apart the points of intervals of width 1 up to here


def is_frame(value) -> bool:
    """Whether `value` is a table of pandas whose columns have names; numbers in their place are none."""
    if not (hasattr(value, "columns") and hasattr(value, "dtypes")):
        return False
    return len(value.columns) > 0 and all(isinstance(name, str) for name in value.columns)


def describe(frame, domain: Mapping[str, Domain] | None = None) -> tuple[Schema, list[Domain]]:
    """What the columns of a frame are, and where each lives: `FlowModel(RealNVP(n), domain=domain)`.

    Columns are taken by their type: floats are real numbers, whole numbers of less than 2^19 integers (from 0, if none
    is below), booleans and pandas' categoricals categories.

    Args:
      frame: a `pandas.DataFrame`.
      domain: of columns that should be taken otherwise, by name. Domains of several columns together, simplex and
        sphere, stand under the name of the first.

    Returns:
      the schema, which belongs into `flow.schema`, and the domain of each column or group of columns.

    Raises:
      ValueError: for columns of text or dates, two of one name, a domain of a column that there is not, or a list.
    """
    columns = _columns(frame)
    if domain is not None and not isinstance(domain, Mapping):
        raise ValueError(f"Expected the domains of a frame's columns by their names; got a {type(domain).__name__}.")
    given = dict(domain or {})
    if unknown := [name for name in given if name not in {column.name for column in columns}]:
        raise ValueError(f"Expected domains of columns {listed(c.name for c in columns)}; got {listed(unknown)}.")
    domains, described, left = [], [], columns
    while left:
        name = left[0].name
        chosen = given.pop(name) if name in given else _by_type(left[0], frame[name])
        if not isinstance(chosen, Domain):
            raise ValueError(f"Expected a Domain of column '{name}'; got {chosen!r}.")
        if chosen.n_columns > len(left):
            raise ValueError(f"Expected {chosen.n_columns} columns from '{name}' on; got {len(left)}.")
        group, left = left[: chosen.n_columns], left[chosen.n_columns :]
        domains.append(chosen)
        text = "categorical" if group[0].categories is not None else chosen.text
        described += [Column(c.name, c.dtype, c.categories, text) for c in group]
    if given:
        raise ValueError(f"Expected one domain for each column; got {listed(given)} in two.")
    return Schema(tuple(described)), domains


def schema_of(x, context=None) -> Schema | None:
    """The schema of data and contexts whose columns have names.

    Args:
      x: anything; None is returned if it is no frame.
      context: likewise; it has no columns in the schema if it is no frame.

    Raises:
      ValueError: for columns of text or dates, or two of one name.
    """
    if not is_frame(x):
        return None
    return Schema(tuple(_columns(x)), tuple(_columns(context)) if is_frame(context) else ())


def numbers(columns: Sequence[Column], frame) -> np.ndarray:
    """Columns of a frame, found by their names, as float64 `[n, k]`: categories by their number, missing ones NaN.

    Raises:
      ValueError: for a column that is missing, or values that are no numbers or none of the categories.
    """
    names = [str(name) for name in frame.columns]
    if missing := [column.name for column in columns if column.name not in names]:
        raise ValueError(
            f"Expected columns {listed(c.name for c in columns)}; got {listed(names)}, without {listed(missing)}."
        )
    if not columns:
        return np.empty((len(frame), 0))
    return np.stack([_numbers(column, frame[column.name]) for column in columns], axis=1)


def heard(columns: Sequence[Column], values: np.ndarray) -> np.ndarray:
    """Context columns `[n, k]` of numbers as a flow hears them: categories as one-hot vectors."""
    parts = []
    for column, value in zip(columns, values.T, strict=True):
        if column.categories is None:
            parts.append(value[:, np.newaxis])
        else:
            parts.append((value[:, np.newaxis] == np.arange(len(column.categories))).astype(np.float64))
    return np.concatenate(parts, axis=1)


def to_frame(schema: Schema, x):
    """Draws of a flow as a `pandas.DataFrame`, with the columns and types of the data.

    Args:
      schema: `flow.schema`.
      x: `[n, k]`, a number for each of its columns.

    Raises:
      ValueError: for another number of columns.
    """
    import pandas as pd

    x = np.asarray(x)
    if x.ndim != 2 or x.shape[1] != len(schema.columns):
        raise ValueError(f"Expected x of shape [n, {len(schema.columns)}]; got {list(x.shape)}.")
    found = {}
    for column, value in zip(schema.columns, x.T, strict=True):
        if column.categories is not None:
            index = np.clip(np.rint(value), 0, len(column.categories) - 1).astype(np.int64)
            whole = pd.Categorical.from_codes(index, list(column.categories))
            found[column.name] = np.asarray(whole, bool) if column.dtype == "bool" else whole
        else:
            found[column.name] = typed(value, column)
    return pd.DataFrame(found)


def typed(value: np.ndarray, column: Column) -> np.ndarray:
    """Numbers `[n]` as the type of their column, rounded and cut off where that is whole."""
    if not column.is_whole:
        return value.astype(column.dtype)
    limits = np.iinfo(column.dtype)
    # The greatest of 64 bits is no float64, and would be one more.
    greatest = np.nextafter(float(limits.max), 0.0) if limits.bits == 64 else limits.max
    return np.clip(np.rint(value.astype(np.float64)), limits.min, greatest).astype(column.dtype)


def _columns(frame) -> list[Column]:
    if not is_frame(frame):
        raise ValueError(f"Expected a data frame whose columns have names; got a {type(frame).__name__}.")
    names = list(frame.columns)
    if len(set(names)) < len(names):
        raise ValueError(f"Expected columns with different names; got {listed(names)}.")
    return [_column(name, frame[name]) for name in names]


def _column(name, series) -> Column:
    if hasattr(series, "cat"):
        known = series.cat.categories
        kind = known.dtype
        return Column(name, kind.name if getattr(kind, "kind", "O") in "iub" else "str", tuple(known.tolist()))
    kind = getattr(series.dtype, "numpy_dtype", series.dtype)  # of pandas' own integers and floats
    if getattr(kind, "kind", "O") == "b":
        return Column(name, "bool", (False, True))
    if getattr(kind, "kind", "O") not in "iuf":
        raise ValueError(
            f"Expected numbers in column '{name}'; got {series.dtype}. Text becomes categories by "
            f"frame.astype({{'{name}': 'category'}}); dates want to be numbers."
        )
    return Column(name, kind.name)


def _by_type(column: Column, series) -> Domain:
    if column.categories is not None:
        return Domain.categorical(len(column.categories))
    if not column.is_whole or len(series) == 0 or np.abs(series).max() > LARGEST_WHOLE:
        return Domain.real()
    return Domain.integer(0 if series.min() >= 0 else None)


def _numbers(column: Column, series) -> np.ndarray:
    if column.categories is None:
        if hasattr(series, "cat") or getattr(series.dtype, "kind", "O") not in "biuf":
            raise ValueError(f"Expected numbers in column '{column.name}'; got {series.dtype}.")
        return series.to_numpy(np.float64, na_value=np.nan)
    known = {category: i for i, category in enumerate(column.categories)}
    values = series.astype(object).where(series.notna(), None)
    if strange := {value for value in values.unique() if value is not None and value not in known}:
        raise ValueError(
            f"Expected one of {listed(column.categories)} in column '{column.name}'; got {listed(strange)}."
        )
    return values.map(known).to_numpy(np.float64)
