"""The weights of a file, and that no more are made than it has."""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from tfflows.loading import hdf5

TIMES = 6  # as many weights as in the file may be made: an optimizer has up to five for each
FREE_NUMBERS = 10_000  # that a model may have beside: counters of metrics, states of generators
FREE_ARRAYS = 200
SECONDS, BYTES_A_SECOND = 60, 20_000_000  # to look through a file: of an MB it takes 0.1 s, and Python's start


def count(content: bytes) -> tuple[int, int]:
    """How many numbers an HDF5 file of weights has, and in how many arrays.

    Another process looks through it, with limits of time and memory: HDF5 itself may be led round in circles by a file,
    until it has all memory. (In a program that is frozen there is no other process, and no limit.)

    Args:
      content: of the file.

    Raises:
      ValueError: for a file that is none, or has more in it than groups of numbers that are stored whole.
    """
    found = _looked_through(content)
    if "error" in found:
        raise ValueError(found["error"])
    if found["n_bytes"] > len(content):
        raise ValueError(f"Expected weights that are stored whole; got {found['n_bytes']:,} bytes in {len(content):,}.")
    return found["n_numbers"], found["n_arrays"]


def _looked_through(content):
    if not sys.executable or getattr(sys, "frozen", False):  # a program with Python in it, which would start itself
        return hdf5.look(content)
    paths = os.pathsep.join(path for path in sys.path if path)
    threads = {f"{library}_NUM_THREADS": "1" for library in ("OPENBLAS", "OMP", "MKL")}
    seconds = SECONDS + len(content) / BYTES_A_SECOND
    try:
        done = subprocess.run(
            [sys.executable, hdf5.__file__, str(len(content))],
            input=content,
            env=os.environ | threads | {"PYTHONPATH": paths},
            capture_output=True,
            timeout=seconds,
            check=True,
        )
        return json.loads(done.stdout)
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"Expected weights in an HDF5 file; got one that takes more than {seconds:.0f} s.") from error
    except (subprocess.CalledProcessError, OSError, ValueError) as error:
        said = getattr(error, "stderr", b"") or str(error).encode()
        reason = said.decode(errors="replace").strip().split("\n")[-1][:200]
        raise ValueError(f"Expected weights in an HDF5 file; got one on which HDF5 fails: {reason}") from error


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
