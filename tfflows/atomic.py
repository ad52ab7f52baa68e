"""Files and folders that come whole or not at all: a reader finds what was there before, or all that is new."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf

from tfflows import replicas

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

HEADER = 2048  # bytes that a file has of each variable beside its numbers, about
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of Linux' renameat2


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A path to write a file or folder to, which takes the place of `path` if all goes well; else that stays as it was.

    What is written lies in a hidden folder beside `path`, goes to the disk, and is renamed. After a crash the folder is
    left behind; the next write to the same path that succeeds removes it. Links are followed, and a file's permissions
    stay. A folder is exchanged for the new one in one step, where the system can do that (Linux); elsewhere a crash
    between two steps leaves the old one beside as `.<name>.part-old`, and the next write puts it back first.

    Args:
      path: in a folder that exists. Devices and pipes are written to directly.

    Raises:
      OSError: of `path`, if it cannot be written or the disk is full, whatever library has found that out.
    """
    name, path = Path(path).name, Path(os.path.realpath(path))
    if path.exists() and not (path.is_file() or path.is_dir()):
        yield path
        return
    with errors_of(path, path.parent):
        _restore(path)
        folder, lock = _beside(path)
    try:
        with errors_of(path, folder):
            made = folder / name  # with the ending that the caller means, if a link has another
            yield made
            _flush(made)
            _swap(made, path)
            _flush_names(path.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)
    _remove_left_behind(path)


def check_writable(path: str | Path) -> None:
    """Raises the OSError that `replacing` would, for a path that cannot be written: before there is much to lose."""
    path = Path(os.path.realpath(path))
    with errors_of(path, path.parent):
        folder, lock = _beside(path)
    os.close(lock)
    folder.rmdir()


@contextlib.contextmanager
def errors_of(path: str | Path, folder: str | Path) -> Iterator[None]:
    """Inside, errors of what is in `folder`, and of full disks, become errors of `path`.

    Raises:
      OSError: for these.
    """
    try:
        yield
    except Exception as error:  # of h5py and of TensorFlow's writers too
        code = getattr(error, "errno", None)
        if code not in FULL and not isinstance(error, ValueError):
            code = next((number for number in FULL if os.strerror(number) in str(error)), code)
        if code in FULL:
            raise OSError(code, f"{os.strerror(code)}; what was there is as it was", str(path)) from error
        if isinstance(error, OSError) and str(error.filename or "").startswith(str(folder)):
            raise OSError(code, os.strerror(code), str(path)) from error
        raise


class SavedWhole:
    """A Keras model whose files come whole or not at all. Of several workers the first one writes, others do not."""

    def save(self, filepath, overwrite: bool = True, zipped: bool | None = None, **kwargs) -> None:
        """Writes the model to a file, whole or not at all: what was there stays if it fails.

        `keras.saving.save_model(flow, path)` writes the same without that care.

        Args:
          filepath: ending in `.keras`, or a folder with zipped=False.
          overwrite: whether what is there may be replaced.
          zipped, **kwargs: as in Keras.

        Raises:
          ValueError: for another ending, or without `overwrite` for a path that exists.
          OSError: if it cannot be written, or the disk is full.
        """
        if not replicas.is_chief(self.distribute_strategy):
            return
        is_known = zipped is False or str(filepath).endswith((".keras", ".h5", ".hdf5"))
        with _made_for_keras(self, filepath, overwrite, is_known) as made:
            super().save(made, overwrite=True, zipped=zipped, **kwargs)

    def save_weights(self, filepath, overwrite: bool = True, max_shard_size: float | None = None) -> None:
        """Writes the weights to a file, whole or not at all.

        Args:
          filepath: ending in `.weights.h5`.
          overwrite: whether what is there may be replaced.
          max_shard_size: as in Keras; several files are each written in place.

        Raises:
          ValueError, OSError: as `save` does.
        """
        if not replicas.is_chief(self.distribute_strategy):
            return
        is_one = max_shard_size is None and str(filepath).endswith(".weights.h5")
        with _made_for_keras(self, filepath, overwrite, is_one) as made:
            super().save_weights(made, overwrite=True, max_shard_size=max_shard_size)


@contextlib.contextmanager
def _made_for_keras(model, filepath, overwrite, is_whole):
    if "://" in str(filepath):  # of another machine
        yield filepath
        return
    if not overwrite and os.path.exists(filepath):
        raise ValueError(f"Expected a path that is free, or overwrite=True; got {filepath}, which exists.")
    if not is_whole:
        yield filepath
        return
    variables = [*model.variables, *getattr(getattr(model, "optimizer", None), "variables", [])]
    with replacing(filepath) as made:
        _check_room(made.parent, sum(HEADER + tf.as_dtype(v.dtype).size * math.prod(v.shape) for v in variables))
        yield str(made)


def _check_room(folder, n_bytes):
    """Raises an OSError if the disk has no room: HDF5, finding it full, ends Python by a segmentation fault."""
    if hasattr(os, "posix_fallocate"):
        with tempfile.TemporaryFile(dir=folder) as file:
            try:
                os.posix_fallocate(file.fileno(), 0, n_bytes)
            except OSError as error:
                if error.errno in FULL:  # else a file system that cannot tell
                    raise


def _prefix(path):
    return f".{path.name}.part-"


def _beside(path):
    """A new folder beside `path`, and the lock that says that somebody is at work in it."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_prefix(path), dir=path.parent))
        lock = os.open(folder, os.O_RDONLY) if fcntl else os.open(os.devnull, os.O_RDONLY)
        if fcntl:
            with contextlib.suppress(OSError):  # a file system without locks: nothing is ever removed there
                fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():  # else taken for one that was left behind, before it was locked
            return folder, lock
        os.close(lock)


def _remove_left_behind(path):
    """Removes what killed writers of `path` left; the folders of those at work are locked."""
    if not fcntl:
        return
    with contextlib.suppress(OSError):  # a folder that may be written to, but not be listed
        for folder in path.parent.iterdir():
            if folder.name.startswith(_prefix(path)) and folder != _aside(path):
                _remove_unless_locked(folder)


def _remove_unless_locked(folder):
    with contextlib.suppress(OSError):
        lock = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)


def _flush(path):
    """Everything to the disk: what is renamed before its content is written may be empty after a power cut."""
    if not path.is_dir():
        with open(path, "rb+") as file:
            os.fsync(file)
        return
    for inside in path.iterdir():
        _flush(inside)
    _flush_names(path)


def _flush_names(folder):
    with contextlib.suppress(OSError):  # where folders cannot be opened, or not be flushed
        file = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)


def _swap(made, path):
    if path.is_file() and made.is_file():
        shutil.copymode(path, made)
    if not (path.is_dir() and made.is_dir()):
        os.replace(made, path)
    elif not _exchange(made, path):
        os.replace(path, _aside(path))
        try:
            os.replace(made, path)
        finally:  # after Ctrl-C too
            _restore(path)


def _exchange(one, other) -> bool:
    """Exchanges the names of two folders in one step, if the system can do that."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None) if os.name == "posix" else None
    names = os.fsencode(one), os.fsencode(other)
    return rename is not None and rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0


def _aside(path):
    return path.with_name(f"{_prefix(path)}old")


def _restore(path):
    """Ends what a writer of a folder began, who was killed between moving the old one away and the new one in."""
    aside = _aside(path)
    if aside.is_dir() and path.exists():
        shutil.rmtree(aside, ignore_errors=True)
    elif aside.is_dir():
        os.replace(aside, path)
