"""The out folder of a run, on any file system that Beam knows. Files come whole or not at all."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import uuid
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import pyarrow as pa
from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems
from pyarrow import parquet

from tfflows.beam.shards import Block, Shard, is_done
from tfflows.checks import listed

OURS = "_tfflows"


@dataclasses.dataclass(frozen=True)
class Folder:
    """Where a run writes: `<name>` good rows, `_dead/<name>` bad ones, `_tfflows/` what is done and what is begun.

    Args:
      path: of the folder.
    """

    path: str

    def good(self, name: str) -> str:
        return FileSystems.join(self.path, *name.split("/"))

    def dead(self, name: str) -> str:
        return FileSystems.join(self.path, "_dead", *name.split("/"))

    def manifest(self, name: str) -> str:
        return FileSystems.join(self.path, OURS, "done", *f"{name}.json".split("/"))

    @property
    def settings(self) -> str:
        return FileSystems.join(self.path, OURS, "settings.json")

    @property
    def begun(self) -> str:
        return FileSystems.join(self.path, OURS, "begun")

    def part(self, block: Block, settings: str, kind: str) -> str:
        """A file of a block's rows, "good" or "dead"; the good ones, written last, say that it is done."""
        shard = f"{block.shard.fingerprint}-{settings}"
        return FileSystems.join(self.begun, shard, f"{block.number:07}.{kind}.arrow")

    @contextlib.contextmanager
    def replacing(self, path: str) -> Iterator[BinaryIO]:
        """A file to write, which becomes `path` if all goes well: twice the same if a worker does it again."""
        made = FileSystems.join(self.begun, f"{uuid.uuid4().hex}.tmp")
        with FileSystems.create(made, compression_type=CompressionTypes.UNCOMPRESSED) as file:
            yield file
        folder = FileSystems.split(path)[0]
        with contextlib.suppress(OSError):  # it exists
            FileSystems.mkdirs(folder)
        try:
            FileSystems.rename([made], [path])
        except BeamIOError:  # some file systems replace nothing
            if not FileSystems.exists(path):
                raise
            remove([path])
            FileSystems.rename([made], [path])

    def write_json(self, path: str, content: dict) -> None:
        with self.replacing(path) as file:
            file.write((json.dumps(content, indent=1) + "\n").encode())

    def write_part(self, block: Block, settings: str, good: pa.Table, dead: pa.Table) -> None:
        for kind, table in (("dead", dead), ("good", good)):
            if kind == "dead" and not len(table):
                continue
            with self.replacing(self.part(block, settings, kind)) as file, pa.ipc.new_file(file, table.schema) as to:
                to.write_table(table)

    def parts(self, shard: Shard, settings: str) -> set[str]:
        """Paths of the shard's parts that are done."""
        folder = FileSystems.split(self.part(Block(shard, 0, 0, 0), settings, "good"))[0]
        return {path for path, *_ in files([FileSystems.join(folder, "*.good.arrow")])}

    def join(self, blocks: Sequence[Block], settings: str, kind: str, path: str) -> int:
        """Writes parts one after the other as a Parquet file, if there are any. Returns how many rows they are."""
        parts = [self.part(block, settings, kind) for block in blocks]
        parts = [part for part in parts if kind == "good" or FileSystems.exists(part)]
        if not parts:
            remove([path])  # of an earlier run
            return 0
        n_rows, writer = 0, None
        with self.replacing(path) as file:
            for part in parts:
                with opened(part) as source:
                    table = pa.ipc.open_file(source).read_all()
                writer = parquet.ParquetWriter(file, table.schema) if writer is None else writer
                writer.write_table(table)
                n_rows += len(table)
            writer.close()
        return n_rows

    def has(self, shard: Shard) -> bool:
        """Whether a shard is done."""
        return is_done(shard, read_json(self.manifest(shard.name))) and FileSystems.exists(self.good(shard.name))

    def manifests(self) -> list[str]:
        return [path for path, *_ in files([FileSystems.join(self.path, OURS, "done", "**")])]

    def keep_only(self, names: set[str]) -> None:
        """Removes the files of shards with other names."""
        for path in self.manifests():
            name = (read_json(path) or {}).get("name", "")
            if name and name not in names:
                remove([path, self.good(name), self.dead(name)])

    def prepare(self, settings: dict, *, overwrite: bool) -> None:
        """Makes the folder one of these settings, or goes on in one that is.

        Raises:
          ValueError: if it holds anything else than what a run has begun, unless it may be overwritten; then only files
            of ours go.
        """
        before = read_json(self.settings)
        if before == settings:
            return
        if not overwrite:
            if before is not None:
                changed = [name for name in settings if before.get(name) != settings[name]]
                raise ValueError(
                    f"Expected an out folder of the same model and settings, or overwrite=True; got {self.path}, which "
                    f"is of others: {listed(changed)}."
                )
            # A run that was killed before it had written its settings leaves what it had begun.
            inside, begun = (files([FileSystems.join(folder, "**")]) for folder in (self.path, self.begun))
            if {path for path, *_ in inside} - {path for path, *_ in begun}:
                raise ValueError(f"Expected an out folder that is empty or of an earlier run; got {self.path}.")
        manifests = self.manifests()
        for path in manifests:
            name = (read_json(path) or {}).get("name", "")
            remove([path, *([self.good(name), self.dead(name)] if name else [])])
        self.write_json(self.settings, settings)

    def clear(self) -> None:
        """Removes what was begun, when all is done."""
        remove([self.begun])
        remove([path for path, *_ in files([FileSystems.join(self.begun, "**")])])  # where there are no folders


def files(patterns: Sequence[str], *, some: bool = False) -> list[tuple[str, int, float]]:
    """Path, bytes and time of the last change of files, `**` for any number of folders.

    Args:
      patterns: or paths.
      some: whether each of them must find some.
    """
    found = []
    for pattern, match in zip(patterns, FileSystems.match(list(patterns)), strict=True):
        if some and not match.metadata_list:
            raise ValueError(f"Expected files; got none by {pattern}.")
        found += [(file.path, file.size_in_bytes, file.last_updated_in_seconds) for file in match.metadata_list]
    return found


def absolute(path) -> str:
    """A path that means the same for all processes of this machine; an address with :// stays."""
    return str(path).rstrip("/") if "://" in str(path) else os.path.abspath(path)


def opened(path: str) -> BinaryIO:
    return FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)


def read_json(path: str) -> dict | None:
    """What a file of ours says; None if there is none, or it is none of ours."""
    if not FileSystems.exists(path):
        return None
    with opened(path) as file:
        try:
            found = json.loads(file.read())
        except ValueError:
            return None
    return found if isinstance(found, dict) else None


def remove(paths: Sequence[str]) -> None:
    """Deletes those that exist."""
    for path in paths:
        if FileSystems.exists(path):
            with contextlib.suppress(BeamIOError):  # another worker was faster
                FileSystems.delete([path])
