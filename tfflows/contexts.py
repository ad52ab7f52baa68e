"""What users pass in as context, checked."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import tensorflow as tf

from tfflows.bijectors import Bijector
from tfflows.bijectors.noise import users_context_dim
from tfflows.checks import check_finite, is_event, is_symbolic, rows_of
from tfflows.nets.context import build_context_net

RULE = "rows of context pair with rows of x; sample(n, context [batch, ...]) gives [n, batch, ...]"


@dataclasses.dataclass(frozen=True)
class Contexts:
    """Which contexts a flow accepts.

    Args:
      shape: of one context, with None for an axis of any length; () is a single number.
      dtype: their NumPy dtype: the flow's, or an integer one for a net that looks numbers up.
      n_classes: number of classes, if the context is one: given as labels `[n]` or as one-hot vectors.
      n_categories: for whole numbers that are looked up in a table, how many it has; None if that is not known.
    """

    shape: tuple[int | None, ...]
    dtype: type
    n_classes: int | None = None
    n_categories: int | None = None

    @property
    def size(self) -> int:
        """About how many numbers one context has; axes of any length do not count."""
        return math.prod(size or 1 for size in self.shape)

    @property
    def n_labels(self) -> int | None:
        """How many contexts there are in all, 0 to n_labels - 1, if each is a label; else None."""
        return self.n_categories if self.shape == () else self.n_classes

    def rows(self, context, n_rows: int | None):
        """`context` `[n_rows, *shape]` as numbers of `dtype`: a tensor stays a tensor, all else becomes an array.

        Raises:
          ValueError: for a context that is missing, of another shape, type or length, not finite, or out of range.
        """
        if context is None:
            raise ValueError(f"Expected a context of shape {self._expected()}; got none.")
        if self.n_classes is not None and len(np.shape(context)) == 1:
            context = self.one_hot(context)
        context = self.numbers(context)
        self.check_shape(context)
        check_finite(context, "context")
        if self.n_categories is not None:
            _check_range(context, self.n_categories, "numbers in context")
        if n_rows is not None and context.shape[0] not in (None, n_rows):
            raise ValueError(f"Expected as many rows of context as of x, {n_rows}; got {context.shape[0]} ({RULE}).")
        return context

    def any_batch(self, context):
        """`context` `[..., *shape]`, checked like rows of it; a label of a class may stand for its vector."""
        if self.are_labels(context):
            context = self.one_hot(context)
        shape = tuple(np.shape(context))
        n_batch = len(shape) - len(self.shape)
        if context is None or n_batch < 0 or not is_event(shape[n_batch:], self.shape):
            return self.rows(context, None)  # which says what is wrong
        rows = self.rows(tf.reshape(context, [-1, *shape[n_batch:]]), None)
        return tf.reshape(rows, shape)

    def check_shape(self, context) -> None:
        """Raises unless it has the shape `[n, *shape]`."""
        shape = tuple(context.shape)
        if not shape or not is_event(shape[1:], self.shape):
            hint = " One row is context[None]." if shape and is_event(shape, self.shape) else ""
            raise ValueError(f"Expected a context of shape {self._expected()} ({RULE}); got {list(shape)}.{hint}")

    def is_one(self, context) -> bool:
        """Whether it is one condition and not rows of them; with classes, also a label."""
        n_axes = -1 if context is None else len(np.shape(context))
        if self.n_classes is None:
            return n_axes == len(self.shape)
        return n_axes == 0 or (n_axes == 1 and not self.are_labels(context))

    def are_labels(self, context) -> bool:
        """Whether it is one class label, or a vector of them: whole numbers by type."""
        if self.n_classes is None or context is None or len(np.shape(context)) > 1:
            return False
        return np.dtype(tf.convert_to_tensor(context).dtype.as_numpy_dtype).kind in "iu"

    def one_hot(self, labels) -> tf.Tensor:
        """Class labels `[...]` as vectors `[..., n_classes]`."""
        labels = _whole(labels, "class labels")
        _check_range(labels, self.n_classes, "class labels")
        return tf.one_hot(tf.cast(labels, tf.int32), self.n_classes, dtype=self.dtype)

    def numbers(self, context):
        """`context` in the dtype that the flow hears."""
        if not tf.is_tensor(context):
            context = np.asarray(context)
            if context.dtype.kind not in "biuf":
                raise ValueError(
                    f"Expected numbers in context; got dtype {context.dtype}. Encode text and dates as numbers first."
                )
        if np.dtype(self.dtype).kind == "i":
            context = _whole(context, "context")
        return tf.cast(context, self.dtype) if tf.is_tensor(context) else context.astype(self.dtype, copy=False)

    def _expected(self) -> str:
        return rows_of(self.shape) + ("" if self.n_classes is None else ", or labels [n]")


def contexts_of(bijector: Bijector, net, context_shape, n_classes: int | None) -> Contexts | None:
    """The contexts that a flow of these accepts; builds the net."""
    width, dtype = users_context_dim(bijector), bijector.dtype.as_numpy_dtype
    context_shape = None if context_shape is None else tuple(context_shape)
    if width is None:
        if (net, context_shape, n_classes) != (None, None, None):
            raise ValueError(
                "Expected a bijector with context_dim for a context_net, context_shape or n_classes; got one that "
                "hears no context."
            )
        return None
    if n_classes is not None and context_shape not in (None, (n_classes,)):
        raise ValueError(f"Expected context_shape ({n_classes},) of {n_classes} classes, or none; got {context_shape}.")
    if net is not None:
        takes = build_context_net(net, context_shape if n_classes is None else (n_classes,), width)
        return Contexts(takes.shape, np.int32 if takes.is_integer else dtype, n_classes, takes.n_categories)
    if n_classes not in (None, width):
        raise ValueError(f"Expected n_classes equal to the bijector's context_dim {width}; got {n_classes}.")
    if context_shape not in (None, (width,)):
        raise ValueError(f"Expected a context_net for contexts of another shape than ({width},); got {context_shape}.")
    return Contexts((width,), dtype, bijector.n_classes if n_classes is None else n_classes)


def _whole(value, what: str):
    """`value`, if it has nothing but whole numbers."""
    if not is_symbolic(value):
        array = np.asarray(value)
        if array.dtype.kind not in "iufb" or not np.array_equal(array, np.floor(array)):
            raise ValueError(f"Expected whole numbers as {what}; got {array.dtype} {array[:3]}.")
    return value


def _check_range(value, n_values: int, what: str) -> None:
    if is_symbolic(value) or np.size(value) == 0:
        return
    low, high = np.min(value), np.max(value)
    if low < 0 or high >= n_values:
        raise ValueError(f"Expected {what} from 0 to {n_values - 1}; got {low} to {high}.")
