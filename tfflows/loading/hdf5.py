"""Looks through an HDF5 file of weights: a script for a process of its own, which imports nothing of tfflows.

    python hdf5.py N_BYTES < model.weights.h5

It prints, in JSON, how many numbers there are, in how many arrays and bytes, or the error that says what else is there.
A file that has more of HDF5 than Keras writes may make it go on without end, or end the process.
"""

from __future__ import annotations

import io
import json
import sys

import h5py

MOST_OBJECTS = 1_000_000
MOST_LEVELS = 64
MEMORY = 1 << 30  # that the process may take, beside three times the file


class UnexpectedError(Exception):
    """Something is in the file that Keras does not write."""


def walk(file: h5py.File) -> dict[str, int]:
    """Counts `n_numbers`, `n_arrays` and `n_bytes`.

    Raises:
      UnexpectedError: for more than groups of numbers that are stored whole.
    """
    n_numbers = n_arrays = n_bytes = n_objects = 0
    seen, left = set(), [("", file, 0)]
    while left:
        path, group, level = left.pop()
        address = h5py.h5o.get_info(group.id).addr
        if address in seen or level > MOST_LEVELS:
            raise UnexpectedError(f"Expected a tree of groups of weights; got '{path[:200]}' in itself.")
        seen.add(address)
        for name in group:
            n_objects += 1
            if n_objects > MOST_OBJECTS:
                raise UnexpectedError(f"Expected at most {MOST_OBJECTS:,} groups and arrays of weights; got more.")
            inner = f"{path}/{name}"
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                raise UnexpectedError(f"Expected weights in the file itself; got a link at '{inner[:200]}'.")
            found = group[name]
            dict(found.attrs)  # Keras reads them
            if isinstance(found, h5py.Group):
                left.append((inner, found, level + 1))
            elif isinstance(found, h5py.Dataset):
                _check_array(inner, found)
                n_numbers, n_arrays = n_numbers + found.size, n_arrays + 1
                n_bytes += found.size * found.dtype.itemsize
            else:
                raise UnexpectedError(f"Expected groups and arrays of weights; got another thing at '{inner[:200]}'.")
    return {"n_numbers": int(n_numbers), "n_arrays": n_arrays, "n_bytes": int(n_bytes)}


def _check_array(path, array):
    if array.dtype.kind not in "biuf" or array.shape is None:
        raise UnexpectedError(f"Expected numbers as weights; got {array.dtype} at '{path[:200]}'.")
    if array.external or array.is_virtual:
        raise UnexpectedError(f"Expected weights in the file itself; got those of another at '{path[:200]}'.")
    if array.chunks is not None:  # a chunk may have filters, and be far larger than the array
        raise UnexpectedError(f"Expected weights in one piece, not compressed; got chunks at '{path[:200]}'.")
    if array.size and array.id.get_storage_size() < array.size * array.dtype.itemsize:
        raise UnexpectedError(f"Expected weights that are stored whole; got shape {array.shape} at '{path[:200]}'.")


def _limit(n_bytes):
    """Of memory, where the system knows such a limit; the other process keeps that of time."""
    try:
        import resource

        with open("/proc/self/statm") as file:  # what NumPy has taken for threads, of as many as there are cores
            most = int(file.read().split()[0]) * resource.getpagesize() + MEMORY + 3 * n_bytes
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, OSError, ValueError):
        pass


def look(content: bytes) -> dict:
    """What is in a file, or the `error` that says what else is there."""
    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            return walk(file)
    except UnexpectedError as error:
        return {"error": str(error)}
    except Exception as error:  # HDF5's errors are of many kinds
        return {"error": f"Expected weights in an HDF5 file; got one that cannot be read: {error}"}


def main() -> None:
    _limit(int(sys.argv[1]))
    print(json.dumps(look(sys.stdin.buffer.read())))


if __name__ == "__main__":
    main()
