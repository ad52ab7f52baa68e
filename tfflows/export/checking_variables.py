"""Looks through the variables of a SavedModel: TensorFlow's reader ends the process where their index is odd."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf

# The index is a table of LevelDB: blocks of sorted entries, of whose keys only what differs from the last is written;
# at the end the place of the block of blocks, and a magic number.
MAGIC = bytes.fromhex("57fb808b247547db")
FOOTER, TRAILER = 48, 5
MOST_INDEX_BYTES, MOST_KEY_BYTES = 1 << 26, 1 << 12
OBJECT_GRAPH = b"_CHECKPOINTABLE_OBJECT_GRAPH"


def check_variables(folder: Path, object_graph) -> None:
    """Refuses variables that are not there, whole and once.

    Args:
      folder: of the SavedModel.
      object_graph: its `SavedObjectGraph`.

    Raises:
      ValueError: that says what is wrong.
    """
    prefix = folder / "variables" / "variables"
    index = prefix.with_suffix(".index")
    _expect(index.stat().st_size <= MOST_INDEX_BYTES, f"an index of {index.stat().st_size:,} bytes")
    shards, stored = _check_entries(index.read_bytes(), prefix)
    size = sum(path.stat().st_size for path in shards)
    _expect(stored <= size, f"variables of {stored:,} bytes in {size:,}")
    for node in object_graph.nodes:
        if node.WhichOneof("kind") == "variable":
            n = math.prod(dim.size for dim in node.variable.shape.dim)
            _expect(0 <= n <= size, f"a variable of {n:,} numbers in {size:,} bytes")


def _check_entries(content: bytes, prefix: Path) -> tuple[list[Path], int]:
    """Returns the files of values, and how many bytes all values take."""
    from tensorflow.core.framework import types_pb2
    from tensorflow.core.protobuf import tensor_bundle_pb2 as bundle

    entries = read_table(content)
    key, value = next(entries, (None, b""))
    _expect(key == b"", "an index without a header")
    header = bundle.BundleHeaderProto.FromString(value)
    _expect(header.endianness == bundle.BundleHeaderProto.LITTLE, "variables of another order of bytes")
    _expect(1 <= header.num_shards <= 10_000, f"{header.num_shards:,} files of values")
    shards = [
        prefix.with_name(f"{prefix.name}.data-{i:05d}-of-{header.num_shards:05d}") for i in range(header.num_shards)
    ]
    for path in shards:
        _expect(path.is_file(), f"no {path.name}")
    sizes, total = [path.stat().st_size for path in shards], 0
    for key, value in entries:
        entry = bundle.BundleEntryProto.FromString(value)
        shape = [dim.size for dim in entry.shape.dim]
        is_right = not entry.slices and not entry.shape.unknown_rank and min(shape, default=0) >= 0
        _expect(is_right and len(shape) <= 254, f"slices, or a shape of {shape[:10]}")
        _expect(0 <= entry.shard_id < len(shards) and entry.offset >= 0 and entry.size >= 0, "values that are nowhere")
        _expect(entry.offset + entry.size <= sizes[entry.shard_id], "values beyond the end of their file")
        if entry.dtype == tf.string.as_datatype_enum:
            _expect(key == OBJECT_GRAPH and shape == [], "texts")
            _check_text(shards[entry.shard_id], entry.offset, entry.size)
        else:
            dtype = tf.as_dtype(entry.dtype)
            is_plain = dtype.is_floating or dtype.is_integer or dtype.is_bool or dtype.is_complex
            _expect(is_plain and entry.dtype < types_pb2.DT_FLOAT_REF, f"variables of {dtype.name}")
            needed = math.prod(shape) * dtype.size
            _expect(needed == entry.size, f"a variable of {needed:,} bytes in {entry.size:,}")
        total += entry.size
    return shards, total


def _check_text(path: Path, offset: int, size: int) -> None:
    """Its length, a checksum of that, and so many bytes: TensorFlow takes memory for what the length says."""
    with open(path, "rb") as file:
        file.seek(offset)
        length, at = _varint(file.read(min(size, 10)), 0)
    _expect(at + 4 + length == size, f"a text of {length:,} bytes in {size:,}")


def read_table(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The keys and values of a table."""
    footer = content[-FOOTER:]
    _expect(len(footer) == FOOTER and footer.endswith(MAGIC), "an index that is no table")
    at, places = 0, []
    for _ in range(4):
        number, at = _varint(footer, at)
        places.append(number)
    end, last = 0, None
    for _, handle in _block(content, *places[2:]):
        offset, at = _varint(handle, 0)
        size, _ = _varint(handle, at)
        # None twice, which would take a square of the time.
        _expect(offset >= end, "an index whose blocks lie over each other")
        end = offset + size
        for key, value in _block(content, offset, size):
            _expect(last is None or key > last, "names of variables that are not sorted")
            last = key
            yield key, value


def _block(content: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    _expect(size >= 4 and offset + size + TRAILER <= len(content), "a block beyond the end of the index")
    _expect(content[offset + size] == 0, "a compressed index")
    block = content[offset : offset + size]
    limit = size - 4 * (1 + int.from_bytes(block[-4:], "little"))
    _expect(limit >= 0, "a block without entries")
    at, key = 0, b""
    while at < limit:
        shared, at = _varint(block, at)
        n_new, at = _varint(block, at)
        n_value, at = _varint(block, at)
        is_right = shared <= len(key) and shared + n_new <= MOST_KEY_BYTES and at + n_new + n_value <= limit
        _expect(is_right, "an entry beyond the end of its block")
        key = key[:shared] + block[at : at + n_new]
        yield key, block[at + n_new : at + n_new + n_value]
        at += n_new + n_value


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, and where it ends."""
    number = 0
    for shift in range(0, 64, 7):
        _expect(at < len(content), "an index that is cut off")
        byte = content[at]
        number, at = number | (byte & 0x7F) << shift, at + 1
        if byte < 0x80:
            return number, at
    raise ValueError("a number that does not end")


def _expect(is_right, found) -> None:
    if not is_right:
        raise ValueError(found)
