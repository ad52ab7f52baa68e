"""NPY files, mapped into memory and read slice by slice."""

from __future__ import annotations

import functools

import numpy as np
import tensorflow as tf

from tfflows.pipelines.blocks import BLOCK, Block, batched, files_of, rows_held


def npy(
    paths,
    *,
    context=None,
    weight=None,
    batch_size: int = 1024,
    shuffle: bool = True,
    seed: int = 0,
    buffer: int | None = None,
) -> tf.data.Dataset:
    """Batches of arrays in `.npy` files, which are never read whole.

    Args:
      paths: of the files of x `[n_i, *event]`: one path, a pattern such as `data/x-*.npy`, or a list in order.
      context, weight: likewise, if there are any, of as many rows in each file.
      batch_size: rows in a batch; the last one of an epoch has those that are left.
      shuffle: whether each epoch has an order of its own.
      seed: of these orders.
      buffer: rows that are mixed at a time, >= batch_size; by default 2**19, or as many as 512 MB hold if these are
        fewer. Up to twice the rows of a buffer and of a block, which is what is read at once, are in memory: with
        blocks of 65,536 rows, or of the buffer's if that has fewer, this is 2.25 buffers of 2**19 rows, and at most 4.

    Returns:
      a dataset of batches x, (x, context), (x, (), weight) or (x, context, weight), as `fit` takes them, float32 or
      as the files have them. Its order in epoch k is the same whenever the program runs.

    Raises:
      ValueError: for paths without files, files of anything but numbers of at most 64 bits, or files that differ in
        shape, type or number of rows.
    """
    parts = {"x": paths, "context": context, "weight": weight}
    files = {name: _mapped(path, name) for name, path in parts.items() if path is not None}
    if len({len(arrays) for arrays in files.values()}) > 1:
        raise ValueError(f"Expected as many files of each part; got { ({k: len(v) for k, v in files.items()}) }.")
    specs = {name: (arrays[0].shape[1:], arrays[0].dtype) for name, arrays in files.items()}
    buffer = rows_held(buffer, specs, batch_size, seed)
    size, blocks = min(BLOCK, buffer), []
    for arrays in zip(*files.values(), strict=True):
        if len({len(array) for array in arrays}) > 1:
            raise ValueError(f"Expected as many rows in each part of a shard; got {[len(a) for a in arrays]}.")
        for start in range(0, len(arrays[0]), size):
            stop = min(start + size, len(arrays[0]))
            names = [array.filename for array in arrays]
            blocks.append(Block(functools.partial(_slices, names, start, stop), stop - start))
    return batched(blocks, specs, batch_size, shuffle, seed, buffer)


def _mapped(paths, what) -> list[np.ndarray]:
    arrays = []
    for path in files_of(paths, what):
        try:
            array = np.lib.format.open_memmap(path, mode="r")
        except ValueError as error:
            raise ValueError(f"Expected a .npy file of numbers; got {path}: {error}") from error
        if array.ndim == 0 or array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
            got = f"{array.dtype} of shape {array.shape}"
            raise ValueError(f"Expected rows of numbers of at most 64 bits in {path}; got {got}.")
        arrays.append(array)
    if len({(array.shape[1:], array.dtype) for array in arrays}) > 1:
        raise ValueError(f"Expected files of one shape and type of {what}; got {[(a.shape, a.dtype) for a in arrays]}.")
    return arrays


def _slices(paths, start, stop):
    # Each time mapped anew: what a map has shown stays in memory until it is closed.
    return tuple(np.array(np.load(path, mmap_mode="r")[start:stop]) for path in paths)
