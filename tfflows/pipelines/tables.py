"""Parquet files, read by their row groups."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfflows.checks import listed
from tfflows.pipelines.blocks import Block, batched, files_of, rows_held


def parquet(
    paths,
    columns: Sequence[str] | str | None = None,
    *,
    context: Sequence[str] | str = (),
    weight: str | None = None,
    batch_size: int = 1024,
    shuffle: bool = True,
    seed: int = 0,
    buffer: int | None = None,
) -> tf.data.Dataset:
    """Batches of columns of numbers in Parquet files, read by their row groups (needs pyarrow, the extra `cli`).

    Args:
      paths: one path, a pattern such as `data/*.parquet`, or a list in order.
      columns: of x; by default all that are neither context nor weight.
      context: columns of the context `[n, columns]`; or one name, not in a list, for numbers `[n]` such as the labels
        of classes.
      weight: the column of weights.
      batch_size, shuffle, seed, buffer: as in `npy`. Blocks are row groups, held whole even if they have more
        rows than the buffer.

    Returns:
      as `npy`; x is float64 if one of its columns needs it in one of the files, else float32. Missing values are NaN,
      which `fit` refuses.

    Raises:
      ValueError: for paths without files, files that are no Parquet, or columns that are missing, that are no numbers,
        or of which a file has several of one name.
    """
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    paths, schemas, groups = files_of(paths, "x"), [], []
    for path in paths:
        try:
            with ParquetFile(path) as file:
                schemas.append(file.schema_arrow)
                groups.append([file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)])
        except pa.ArrowInvalid as error:
            raise ValueError(f"Expected a Parquet file; got {path}: {error}") from error
    # One name alone gives a number a row, except for x, whose events have an axis.
    are_numbers = {"weight", *(["context"] if isinstance(context, str) else [])}
    others = {"context": _names(context), "weight": [] if weight is None else [weight]}
    taken = others["context"] + others["weight"]
    columns = [name for name in schemas[0].names if name not in taken] if columns is None else _names(columns)
    wanted = columns + taken
    for path, schema in zip(paths, schemas, strict=True):
        if missing := [name for name in wanted if name not in schema.names]:
            raise ValueError(f"Expected columns {listed(wanted)} in {path}; got none {listed(missing)}.")
        if twice := [name for name in dict.fromkeys(wanted) if schema.names.count(name) > 1]:
            raise ValueError(f"Expected one column of each name in {path}; got several {listed(twice)}.")
        if wrong := [name for name in wanted if not _is_number(schema.field(name).type)]:
            raise ValueError(f"Expected columns of numbers in {path}; got others: {listed(wrong)}.")
    if not columns:
        raise ValueError(f"Expected at least one column of x; got none beside {listed(taken)}.")
    names = {part: chosen for part, chosen in ({"x": columns} | others).items() if chosen}
    # One shard may have whole numbers, or floats of 64 bits, where the first one has smaller ones.
    kinds = {part: [schema.field(name).type for schema in schemas for name in each] for part, each in names.items()}
    dtypes = {part: _dtype(each) for part, each in kinds.items()}

    def read(path, group):
        with ParquetFile(path) as file:
            table = file.read_row_group(group, columns=wanted)
        arrays = []
        for part, each in names.items():
            values = [table.column(name).cast(pa.float64()).to_numpy().astype(dtypes[part]) for name in each]
            arrays.append(values[0] if part in are_numbers else np.stack(values, axis=1))
        return tuple(arrays)

    blocks = [
        Block(functools.partial(read, path, i), n)
        for path, sizes in zip(paths, groups, strict=True)
        for i, n in enumerate(sizes)
        if n
    ]
    shapes = {part: () if part in are_numbers else (len(each),) for part, each in names.items()}
    specs = {part: (shapes[part], np.dtype(dtypes[part])) for part in names}
    return batched(blocks, specs, batch_size, shuffle, seed, rows_held(buffer, specs, batch_size, seed))


def _names(names) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


def _is_number(kind) -> bool:
    from pyarrow import types

    return types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)


def _dtype(kinds) -> str:
    """float32 if that holds every number of these types of Arrow, else float64."""
    return "float32" if all(np.can_cast(kind.to_pandas_dtype(), np.float32) for kind in kinds) else "float64"
