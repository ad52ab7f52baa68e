"""The archive that a `.keras` file is."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path

CONFIG, WEIGHTS, METADATA = "config.json", "model.weights.h5", "metadata.json"
MEMBERS = {CONFIG, WEIGHTS, METADATA}
MOST_TEXT = 1 << 24  # bytes of a config: that of a flow of 100 layers has 100 kB
FREE_BYTES = 1 << 20  # that a compressed member may have, however little is stored of it
MOST_COMPRESSED = 20  # times that a larger one may be what is stored of it; Keras compresses nothing


def read_members(path: Path, max_bytes: int) -> tuple[bytes, bytes]:
    """The config and the weights of a `.keras` file.

    Raises:
      ValueError: if it is not the archive of three members that Keras writes, or is larger than `max_bytes`.
    """
    if path.stat().st_size > max_bytes:
        raise ValueError(f"Expected a file of at most {max_bytes:,} bytes; got {path}, of {path.stat().st_size:,}.")
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check(members, path, max_bytes)
            archive.read(METADATA)  # for its checksum
            return archive.read(CONFIG), archive.read(WEIGHTS)
    except ValueError:
        raise
    except Exception as error:  # zipfile's own, zlib's, EOFError, NotImplementedError, ...
        if isinstance(error, PermissionError):
            raise
        reason = str(error) or type(error).__name__
        raise ValueError(f"Expected a .keras file that `save` wrote; got {path}, which is none: {reason}.") from error


def _check(members, path, max_bytes):
    names = [member.orig_filename for member in members]
    if sorted(names) != sorted(MEMBERS):
        shown = ", ".join(repr(name[:80]) for name in names[:10])
        raise ValueError(f"Expected {', '.join(sorted(MEMBERS))} in {path}, each once; got {shown or 'nothing'}.")
    for member in members:
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise ValueError(f"Expected files in {path}; got {member.filename}, a link or the like.")
        if member.flag_bits & 0x1:
            raise ValueError(f"Expected members that are not encrypted in {path}; got {member.filename}.")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"Expected members stored or deflated in {path}; got {member.filename}.")
        most = max_bytes if member.filename == WEIGHTS else min(MOST_TEXT, max_bytes)
        most = min(most, max(FREE_BYTES, MOST_COMPRESSED * member.compress_size))
        if member.file_size > most:
            raise ValueError(
                f"Expected at most {most:,} bytes in {member.filename} of {path}; got {member.file_size:,}, in "
                f"{member.compress_size:,} that are stored."
            )
