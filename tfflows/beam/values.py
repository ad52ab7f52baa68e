"""Values of one column of a table as numbers; what is none is noted as the reason why its row is bad."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfflows.schema import Column

LONGEST = 80  # characters of a value that a reason repeats


def values_of(column: Column, values: pa.Array, reasons) -> tuple[np.ndarray, np.ndarray]:
    """A column as float64 `[n]`, and where it is none, which is noted: categories by their number, text as it reads."""
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    # Libraries of tables write NaN where a category is missing.
    wrong = np.asarray(pc.is_null(values, nan_is_null=column.categories is not None))
    note(reasons, wrong, f"{column.name} is missing")
    found = _read(values) if column.categories is None else _positions(column.categories, values)
    if found is None:
        note(reasons, ~wrong, f"{column.name} is of type {values.type}")
        return np.full(len(values), np.nan), np.full(len(values), True)
    strange = np.asarray(pc.is_null(found)) & ~wrong
    if strange.any():
        expected = "no number" if column.categories is None else "none of its categories"
        note(reasons, strange, column.name + " is '{}', " + expected, values)
    found = found.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return found, wrong | strange


def _read(values: pa.Array) -> pa.Array | None:
    """Values as numbers, null where they are none; None of a type that has none."""
    if pa.types.is_boolean(values.type):
        return values.cast(pa.uint8())
    if is_number(values.type):
        return values
    if not _is_text(values.type):
        return None
    try:
        return values.cast(pa.float64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):  # of one text that is no number, or a type of text
        return pa.array(map(_number, values.to_pylist()), pa.float64())


def _positions(categories: Sequence, values: pa.Array) -> pa.Array | None:
    """Where values are among the categories, null where they are not; None of a type that has no equal values.

    Each distinct value is cast by itself: what is none of the categories must change nothing of other rows.
    """
    try:
        known = pa.array(categories)
    except (pa.ArrowInvalid, pa.ArrowTypeError):  # of several types, which a column of a table has as text
        known = pa.array(map(str, categories))
    try:
        values = values.dictionary_encode()
    except pa.ArrowNotImplementedError:
        return None
    return pa.array([_position(value, known) for value in values.dictionary], pa.float64()).take(values.indices)


def _position(value: pa.Scalar, known: pa.Array) -> int | None:
    try:
        found = value.cast(known.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None
    # The cast makes True of any number but 0.
    if pa.types.is_boolean(known.type) and not _is_text(value.type) and value.as_py() != found.as_py():
        return None
    at = known.index(found).as_py()
    return None if at < 0 else at


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _number(text) -> float | None:
    try:
        return float(text)
    except (TypeError, ValueError):
        return None


def note(reasons: np.ndarray, bad: np.ndarray, text: str, values=None) -> None:
    """Gives rows that are bad and have no reason yet this one, with their values in its braces."""
    for i in np.flatnonzero(bad & np.equal(reasons, None)):
        if values is None:
            reasons[i] = text
        else:
            value = values[int(i)]
            value = value.as_py() if isinstance(value, pa.Scalar) else np.squeeze(value)
            value = value if isinstance(value, str) else np.array2string(np.asarray(value), precision=6)
            reasons[i] = value[:LONGEST].join(text.rsplit("{}", 1))


def is_number(kind: pa.DataType) -> bool:
    """Whether a column of this type is one of numbers."""
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)


def too_large(values: np.ndarray, dtype) -> np.ndarray:
    """Which float64 `values` a dtype of NumPy's cannot hold: a cast would make something else of them in silence."""
    if np.dtype(dtype).kind in "iu":
        limits = np.iinfo(dtype)
        # The greatest of 64 bits is no float64; one more always is.
        return (values < float(limits.min)) | (values >= float(limits.max) + 1.0)
    return np.abs(values) > np.finfo(dtype).max
