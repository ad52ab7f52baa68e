"""Looks through the constants of a SavedModel: one number in it may stand for as many as a shape says."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

import tensorflow as tf
from google.protobuf.message import Message
from tensorflow.core.framework import tensor_pb2, types_pb2

# What TensorFlow makes of constants, in multiples of what is stored of them; or so many bytes, for small ones.
MOST_TIMES = 20
MOST_BYTES_OF_ONE, MOST_BYTES = 1 << 20, 1 << 26
MOST_AXES = 254
TEXT_BYTES = 24  # of a short one, or of the place of a longer one


def check_tensors(meta_graph) -> None:
    """Refuses constants that would take far more memory than they are stored in, one by one and together.

    Args:
      meta_graph: a `MetaGraphDef`: all tensors in it are looked at, wherever they are.

    Raises:
      ValueError: that says what is wrong.
    """
    needed, stored = 0, 0
    for tensor in _tensors(meta_graph):
        one, in_file = _size(tensor), tensor.ByteSize()
        _expect(one <= max(MOST_BYTES_OF_ONE, MOST_TIMES * in_file), f"a constant of {one:,} bytes in {in_file:,}")
        needed, stored = needed + one, stored + in_file
    _expect(needed <= max(MOST_BYTES, MOST_TIMES * stored), f"constants of {needed:,} bytes in {stored:,}")


def _size(tensor) -> int:
    """How many bytes a `TensorProto` takes; axes of length 0 count as 1, so that the others are bounded too."""
    shape = [axis.size for axis in tensor.tensor_shape.dim]
    is_shape = not tensor.tensor_shape.unknown_rank and len(shape) <= MOST_AXES and min(shape, default=0) >= 0
    _expect(is_shape, f"a constant of shape {shape[:10]}")
    return math.prod(max(n, 1) for n in shape) * _item_size(tensor)


def _item_size(tensor) -> int:
    if tensor.dtype == types_pb2.DT_STRING:
        return TEXT_BYTES + max(map(len, tensor.string_val), default=0)
    try:
        dtype = tf.as_dtype(tensor.dtype)
    except TypeError:
        raise ValueError(f"a constant of type {tensor.dtype}") from None
    is_plain = dtype.is_floating or dtype.is_integer or dtype.is_bool or dtype.is_complex
    _expect(is_plain and tensor.dtype < types_pb2.DT_FLOAT_REF, f"a constant of {dtype.name}")
    return dtype.size


def _tensors(message: Message) -> Iterator[Message]:
    """All tensors of a message: of nodes, in lists, as defaults, in the types of arguments."""
    holding = _holding(type(message))
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.full_name not in holding:
            continue
        parts = [value] if isinstance(value, Message) else value.values() if hasattr(value, "values") else value
        for part in parts:
            if isinstance(part, tensor_pb2.TensorProto):
                yield part
            else:
                yield from _tensors(part)


@functools.cache
def _holding(kind: type[Message]) -> frozenset[str]:
    """Names of the kinds of messages in one of a kind that hold tensors, or others that do."""
    known, left = {}, [kind.DESCRIPTOR]
    while left:
        one = left.pop()
        known[one.full_name] = {field.message_type.full_name for field in one.fields if field.message_type}
        left += [field.message_type for field in one.fields if field.message_type]
        left = [other for other in left if other.full_name not in known]
    found, n_before = {tensor_pb2.TensorProto.DESCRIPTOR.full_name}, 0
    while len(found) > n_before:
        n_before = len(found)
        found |= {name for name, parts in known.items() if parts & found}
    return frozenset(found)


def _expect(is_right, found):
    if not is_right:
        raise ValueError(found)
