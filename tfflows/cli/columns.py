"""Columns of tables as the numbers that flows hear, and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfflows.checks import listed
from tfflows.frames import typed
from tfflows.schema import Column, Schema

MOST_CATEGORIES = 256  # that have frequencies of their own


def describe(name: str, values: pa.ChunkedArray, *, categorical: bool = False) -> Column:
    """The column that these values are of.

    Raises:
      ValueError: for text that is not to be categories, and for what is neither numbers nor text.
    """
    values = _plain(values)
    kind = values.type
    dtype = (
        "str" if is_text(kind) else "float64" if pa.types.is_decimal(kind) else np.dtype(kind.to_pandas_dtype()).name
    )
    if pa.types.is_null(kind) or values.null_count == len(values):
        raise ValueError(
            f"Expected numbers in column '{name}'; got nothing but missing values. Leave it out by --columns."
        )
    if categorical or kind == pa.bool_():
        return Column(name, dtype, _categories(name, values))
    if is_text(kind):
        example = pc.drop_null(values)[0].as_py()
        raise ValueError(
            f"Expected numbers in column '{name}'; got text such as '{example}'. Leave the column out by --columns, or "
            f"make it categories by --domain {name}=categorical."
        )
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        raise ValueError(f"Expected numbers in column '{name}'; got {kind}. Leave it out by --columns.")
    return Column(name, dtype)


def is_text(kind: pa.DataType) -> bool:
    """Whether values are strings."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def arrow_types(schema: Schema) -> dict[str, pa.DataType]:
    """What a CSV's columns are read as."""
    return {column.name: _arrow_type(column) for column in (*schema.columns, *schema.context)}


def numbers(column: Column, values) -> np.ndarray:
    """Values as float64 `[n]`: categories by their number, NaN where one is missing or infinite.

    Raises:
      ValueError: for values that are no numbers, or none of the categories.
    """
    values = _plain(values)
    if is_text(values.type):
        values = pc.utf8_trim_whitespace(values)
    if column.categories is not None:
        found = _numbered(column, values)
    else:
        try:
            if pa.types.is_boolean(values.type):
                values = values.cast(pa.uint8())
            found = values.cast(pa.float64(), safe=False)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            reason = str(error).removesuffix(" as a scalar of type double")
            raise ValueError(f"Expected numbers in column '{column.name}'; got others: {reason}") from error
    found = np.array(found.to_numpy(zero_copy_only=False) if isinstance(found, pa.Array) else found.to_numpy(), float)
    found[~np.isfinite(found)] = np.nan
    return found


def matrix(columns: Sequence[Column], table) -> np.ndarray:
    """Columns of a table, found by their names, as numbers `[n, k]`."""
    if not columns:
        return np.empty((table.num_rows, 0))
    return np.stack([numbers(column, table.column(column.name)) for column in columns], axis=1)


def values(columns: Sequence[Column], drawn: np.ndarray) -> dict[str, pa.Array]:
    """Numbers `[n, k]` as what stands in the table, of the types that were there."""
    found = {}
    for column, value in zip(columns, np.asarray(drawn).T, strict=True):
        if column.categories is not None:
            index = np.clip(np.rint(value), 0, len(column.categories) - 1).astype(np.int64)
            found[column.name] = pa.array(column.categories, _arrow_type(column)).take(pa.array(index))
        elif column.is_whole:
            found[column.name] = pa.array(typed(value, column))
        else:  # by way of text, so that float32's 0.1 is no 0.10000000149
            found[column.name] = pa.array(value).cast(pa.string()).cast(_arrow_type(column))
    return found


def _plain(values):
    """Without the encodings that mean nothing here."""
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    return values.cast(pa.string()) if pa.types.is_string_view(values.type) else values


def _arrow_type(column: Column) -> pa.DataType:
    return pa.string() if column.dtype == "str" else pa.from_numpy_dtype(np.dtype(column.dtype))


def _categories(name, values) -> tuple:
    if is_text(values.type):
        values = pc.utf8_trim_whitespace(values)
    if not (is_text(values.type) or pa.types.is_integer(values.type) or pa.types.is_boolean(values.type)):
        raise ValueError(f"Expected text or whole numbers as categories; got {values.type} in column '{name}'.")
    found = sorted(pc.drop_null(pc.unique(values)).to_pylist())
    if values.type == pa.bool_():
        return (False, True)
    if not 2 <= len(found) <= MOST_CATEGORIES:
        raise ValueError(f"Expected 2 to {MOST_CATEGORIES} categories in column '{name}'; got {len(found)}.")
    return tuple(found)


def _numbered(column: Column, values):
    known = pa.array(column.categories, _arrow_type(column))
    try:
        cast = values.cast(known.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ValueError(f"Expected {known.type} in column '{column.name}'; got others: {error}") from error
    index = pc.index_in(cast, known)
    unknown = pc.and_(pc.is_null(index), pc.is_valid(cast))
    if pc.any(unknown).as_py():
        strange = pc.unique(cast.filter(unknown)).to_pylist()
        raise ValueError(
            f"Expected one of {listed(column.categories)} in column '{column.name}'; got {listed(strange)}."
        )
    return index.cast(pa.float64())
