"""What is refused of single values: shapes, numbers that are not finite, pixels that are none."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import tensorflow as tf


def is_symbolic(value) -> bool:
    """Whether `value` is a tensor of a graph that is being traced, without numbers to check."""
    return tf.is_tensor(value) and not hasattr(value, "numpy")


def check_event(value, event_shape: tuple[int, ...], what: str) -> None:
    """Raises if `value` is not of shape `[n, *event_shape]`."""
    shape = tuple(value.shape)
    if is_event(shape[1:], event_shape) and shape:
        return
    hint = ""
    if len(shape) == len(event_shape) == 1:
        hint = f" A column is {what}[:, None]." if event_shape == (1,) else f" One row is {what}[None]."
    raise ValueError(f"Expected {what} of shape {rows_of(event_shape)}; got {list(shape)}.{hint}")


def is_event(shape, event_shape) -> bool:
    """Whether `shape` may be `event_shape`: of either, None is an axis of any length."""
    return len(shape) == len(event_shape) and all(
        None in (a, b) or a == b for a, b in zip(shape, event_shape, strict=True)
    )


def rows_of(event_shape) -> str:
    """The shape of rows of events as errors print it: `[n, 28, 28, 1]`, with `any` for an axis of any length."""
    return f"[{', '.join(['n', *('any' if size is None else str(size) for size in event_shape)])}]"


def check_finite(value, what: str, dtype: type | None = None) -> None:
    """Raises if rows of `value` hold NaN or inf, or numbers that are beyond a `dtype` of floats, and says which."""
    if is_symbolic(value):
        return
    array = np.asarray(value)
    if array.size == 0:
        return
    if dtype is not None and array.dtype.kind == "f" and array.dtype.itemsize > np.dtype(dtype).itemsize:
        _check_range(array, what, dtype)
    # The sum is finite unless an entry is not, or it overflows, which the second look settles.
    with np.errstate(all="ignore"):
        if np.isfinite(array.sum(dtype=np.float64)):
            return
    bad = np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(axis=1))
    if len(bad):
        first = ", ".join(map(str, bad[:5])) + (", ..." if len(bad) > 5 else "")
        raise ValueError(f"Expected finite numbers in {what}; got NaN or inf in {len(bad)} rows: {first}.")


def _check_range(array: np.ndarray, what: str, dtype: type) -> None:
    largest = np.finfo(dtype).max
    bad = np.flatnonzero((np.isfinite(array) & (np.abs(array) > largest)).reshape(len(array), -1).any(axis=1))
    if len(bad):
        name = np.dtype(dtype).name
        raise ValueError(
            f"Expected numbers in {what} within +-{largest:.2g}, which {name} holds; got larger ones in {len(bad)} "
            f"rows, such as {bad[0]}. Divide them, or begin with keras.config.set_dtype_policy('float64')."
        )


def check_batch_size(batch_size: int | None) -> None:
    """Raises unless `batch_size` is None or a positive number."""
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"Expected batch_size >= 1; got {batch_size}.")


def listed(names: Iterable[str], most: int = 8) -> str:
    """Names for an error or a note, not more than anybody reads."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(f"'{name}'" for name in names[:most]) + more
