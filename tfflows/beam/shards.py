"""What a run does: shards of rows, the blocks that these are computed in, and the files that say what is done."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping, Sequence

import numpy as np

from tfflows.checks import listed
from tfflows.states import fingerprint

N_SEEDS = 2**31  # that `sample` of an export tells apart


@dataclasses.dataclass(frozen=True)
class Shard:
    """A file of rows to write.

    Args:
      name: its path in the out folder.
      fingerprint: of all that decides what is in it; what was written under another one is written again.
      source: the file whose rows are scored, or None for draws.
      first, n_rows: of draws, the number of the first one and how many they are.
    """

    name: str
    fingerprint: str
    source: str | None = None
    first: int = 0
    n_rows: int = 0


@dataclasses.dataclass(frozen=True)
class Block:
    """Rows `start` to `stop` of a shard, which are computed together and written as one part of it."""

    shard: Shard
    number: int
    start: int
    stop: int


def blocks(shard: Shard, groups: Sequence[int], size: int) -> list[list[Block]]:
    """A shard's blocks, of `size` rows or the last ones of their group.

    Args:
      shard: whose rows they are.
      groups: how many rows each of its groups has, which are read together.
      size: rows.

    Returns:
      the blocks of each group; a shard without rows has one without rows.
    """
    found, number, first = [], 0, 0
    for n in [n for n in groups if n] or [0]:
        starts = range(first, first + max(n, 1), size)
        found.append([Block(shard, number + i, at, min(at + size, first + n)) for i, at in enumerate(starts)])
        number, first = number + len(starts), first + n
    return found


def shards_of_files(files: Sequence[tuple[str, int, float]], patterns: Sequence[str], settings: str) -> list[Shard]:
    """A shard for each file of data, of the same name.

    Files that a pattern such as `in/*/part-*.parquet` found have the name they have below its fixed folder, `in`;
    others their own.

    Args:
      files: path, bytes, and time of the last change.
      patterns: by which they were found; plain paths too.
      settings: a fingerprint of all else.

    Raises:
      ValueError: for two files of one name.
    """
    roots = [_root(pattern) for pattern in patterns]
    found = {}
    for path, size, changed in sorted(files):
        root = max((root for root in roots if path.startswith(root)), key=len, default="")
        name = path[len(root) :] if root else re.split(r"[/\\]", path)[-1]
        if name in found and found[name].source != path:
            raise ValueError(f"Expected files of different names; got {found[name].source} and {path}.")
        found[name] = Shard(name, fingerprint(settings, path, size, changed), path)
    if bad := [name for name in found if name.startswith(("_", "."))]:
        raise ValueError(f"Expected names of files that do not begin with _ or '.'; got {listed(bad)}.")
    return list(found.values())


def _root(pattern: str) -> str:
    """The folder of a pattern, up to its first sign that stands for others; nothing of a plain path."""
    fixed = re.split(r"[*?\[{]", pattern, maxsplit=1)[0]
    return "" if fixed == pattern else re.sub(r"[^/\\]*$", "", fixed)


def shards_of_draws(n: int, rows_per_shard: int, settings: str) -> list[Shard]:
    """Draws 0 to n - 1 in files `00000.parquet`, `00001.parquet` and so on."""
    starts = range(0, n, rows_per_shard)
    sizes = [min(rows_per_shard, n - start) for start in starts]
    return [
        Shard(f"{i:05}.parquet", fingerprint(settings, start, size), None, start, size)
        for i, (start, size) in enumerate(zip(starts, sizes, strict=True))
    ]


def seeds(seed: int, first: int, count: int) -> np.ndarray:
    """A seed >= 0 for each of the draws number `first` and on: int32 `[count]`.

    They follow from the run's seed and the draw's number alone, and are different for 2^31 draws. Those of a run are a
    stretch of a circle of 2^31 which begins at a place that the run's seed chooses, so that two runs of n draws have
    any in common with a probability of n / 2^30.
    """
    start = int(hashlib.sha256(str(seed).encode()).hexdigest()[:8], 16)
    return ((start + first + np.arange(count)) % N_SEEDS).astype(np.int32)


def check_counts(shard: Shard, rows: int, scored: int, dead: int) -> None:
    """Raises a RuntimeError unless each row is in one of two files."""
    if rows != scored + dead:
        raise RuntimeError(f"Expected {rows} rows of {shard.name}; got {scored} that are good and {dead} that are bad.")


def is_done(shard: Shard, manifest: Mapping | None) -> bool:
    """Whether a manifest, or None if there is none, says that the shard was written as it would be now."""
    return manifest is not None and manifest.get("fingerprint") == shard.fingerprint and "error" not in manifest
