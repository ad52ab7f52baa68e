"""Files that come whole or not at all, and the flows in them."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tfflows import atomic
from tfflows.density import Density
from tfflows.loading import load_model


@contextlib.contextmanager
def replacing(path: Path | None, endings: Sequence[str], *, force: bool) -> Iterator[Path | None]:
    """A path to write to, which becomes `path` if all goes well; if not, `path` stays as it was.

    It is entered before the work begins, so that a folder that cannot be written to is found before and not after it.

    Args:
      path: None for nothing to write.
      endings: that the path may have.
      force: whether what is there may be replaced.
    """
    if path is None:
        yield None
        return
    path = free(path, endings, force=force)
    try:
        with contextlib.ExitStack() as stack:
            try:
                made = stack.enter_context(atomic.replacing(path))
            except OSError as error:
                raise ValueError(
                    f"Expected a folder that can be written to; got {path.parent}: {os.strerror(error.errno)}."
                ) from error
            yield made
    except OSError as error:
        if error.errno not in atomic.FULL:
            raise
        raise ValueError(
            f"Expected room for {path}; got: {os.strerror(error.errno)}. What was there is as it was; make room, "
            "or choose another --out."
        ) from error


def free(path: Path, endings: Sequence[str], *, force: bool) -> Path:
    """The absolute path, if it has one of the endings and may be written.

    Raises:
      ValueError: if not.
    """
    path = Path(os.path.abspath(path))
    if endings and path.suffix.lower() not in endings:
        raise ValueError(f"Expected an out file ending in {' or '.join(endings)}; got {path.name}.")
    if not path.parent.is_dir():
        raise ValueError(f"Expected a folder that exists, to write {path.name} in; got {path.parent}.")
    if path.is_dir() and endings:
        raise ValueError(f"Expected a file to write; got the folder {path}.")
    if path.exists() and not force:
        raise ValueError(f"Expected a path that is free, or --force to replace it; got {path}, which exists.")
    return path


def save_flow(flow: Density, path: Path) -> None:
    """Writes a `.keras` file; elsewhere if there is no room, because what took hours to fit must not be lost."""
    try:
        flow.save(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            rescued = Path(tempfile.mkdtemp(prefix="tfflows-")) / path.name
            flow.save(rescued)
            raise ValueError(
                f"Expected room for {path.name}; got: {error.strerror or error}. It is saved to {rescued} instead."
            ) from error
        raise


def load_flow(path: Path) -> Density:
    """The flow in a `.keras` file.

    Raises:
      ValueError: for a file that is missing, none of Keras, or no flow of tfflows.
    """
    flow = load_model(path, compile=False)
    if not isinstance(flow, Density):
        raise ValueError(f"Expected a flow of tfflows; got {path}, a Keras {type(flow).__name__}.")
    if len(flow.accepts.event_shape) != 1:
        raise ValueError(f"Expected a flow of a table's rows; got one of events {flow.accepts.event_shape}.")
    return flow
