"""The weights of a file, and that no more are made than it has."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterator

import h5py
import numpy as np
import tensorflow as tf

MOST_OBJECTS = 1_000_000
MOST_LEVELS = 64
TIMES = 6  # as many weights as in the file may be made: an optimizer has up to five for each
FREE_NUMBERS = 10_000  # that a model may have beside: counters of metrics, states of generators
FREE_ARRAYS = 200


def count(content: bytes) -> tuple[int, int]:
    """How many numbers an HDF5 file of weights has, and in how many arrays.

    Args:
      content: of the file.

    Raises:
      ValueError: for a file that is none, or has more in it than groups of numbers that are stored whole.
    """
    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            n_numbers, n_arrays, n_bytes = _walk(file)
    except _UnexpectedError as error:
        raise ValueError(str(error)) from error
    except Exception as error:  # HDF5's errors are of many kinds
        raise ValueError(f"Expected weights in an HDF5 file; got one that cannot be read: {error}") from error
    if n_bytes > len(content):
        raise ValueError(f"Expected weights that are stored whole; got {n_bytes:,} bytes in {len(content):,}.")
    return n_numbers, n_arrays


class _UnexpectedError(Exception):
    """Something is in the file that Keras does not write."""


def _walk(file) -> tuple[int, int, int]:
    n_numbers = n_arrays = n_bytes = n_objects = 0
    seen, left = set(), [("", file, 0)]
    while left:
        path, group, level = left.pop()
        address = h5py.h5o.get_info(group.id).addr
        if address in seen or level > MOST_LEVELS:
            raise _UnexpectedError(f"Expected a tree of groups of weights; got '{path[:200]}' in itself.")
        seen.add(address)
        for name in group:
            n_objects += 1
            if n_objects > MOST_OBJECTS:
                raise _UnexpectedError(f"Expected at most {MOST_OBJECTS:,} groups and arrays of weights; got more.")
            inner = f"{path}/{name}"
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                raise _UnexpectedError(f"Expected weights in the file itself; got a link at '{inner[:200]}'.")
            found = group[name]
            if isinstance(found, h5py.Group):
                left.append((inner, found, level + 1))
            elif isinstance(found, h5py.Dataset):
                _check_array(inner, found)
                n_numbers, n_arrays = n_numbers + found.size, n_arrays + 1
                n_bytes += found.size * found.dtype.itemsize
            else:
                raise _UnexpectedError(f"Expected groups and arrays of weights; got another thing at '{inner[:200]}'.")
    return n_numbers, n_arrays, n_bytes


def _check_array(path, array):
    if array.dtype.kind not in "biuf" or array.shape is None:
        raise _UnexpectedError(f"Expected numbers as weights; got {array.dtype} at '{path[:200]}'.")
    if array.external or array.is_virtual:
        raise _UnexpectedError(f"Expected weights in the file itself; got those of another at '{path[:200]}'.")
    if array.chunks is not None:  # a chunk may have filters, and be far larger than the array
        raise _UnexpectedError(f"Expected weights in one piece, not compressed; got chunks at '{path[:200]}'.")
    if array.size and array.id.get_storage_size() < array.size * array.dtype.itemsize:
        raise _UnexpectedError(f"Expected weights that are stored whole; got shape {array.shape} at '{path[:200]}'.")


@contextlib.contextmanager
def at_most(n_numbers: int, n_arrays: int) -> Iterator[None]:
    """Inside, TensorFlow makes not many more variables in this thread than a file has: a ValueError before they are.

    Args:
      n_numbers: in the file.
      n_arrays: that these are in.
    """
    left, n_left = TIMES * n_numbers + FREE_NUMBERS, TIMES * n_arrays + FREE_ARRAYS

    def counted(make, **arguments):
        nonlocal left, n_left
        shape = _shape(arguments["initial_value"])
        left, n_left = left - math.prod(shape), n_left - 1
        if min(left, n_left) < 0:
            raise ValueError(
                f"Expected a model of the {n_numbers:,} weights in the file, in {n_arrays:,} arrays; got more, the "
                f"last of shape {shape}."
            )
        return make(**arguments)

    with tf.variable_creator_scope(counted):
        yield


def _shape(value) -> tuple[int, ...]:
    """Of an initial value, or of what a function will give."""
    if not callable(value):
        return tuple(np.shape(value))
    with tf.Graph().as_default():  # where it has a shape, and takes no memory
        return tuple(value().shape.as_list())
