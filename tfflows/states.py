"""What long runs keep of themselves, so that they can go on after a crash: `.npz` files of numbers, no code."""

from __future__ import annotations

import contextlib
import contextvars
import copy
import hashlib
import json
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tfflows import atomic

SECONDS = 5.0  # between two writes of a search, at least

_searches = contextvars.ContextVar("searches", default=None)


def save(path: str | Path, state: dict) -> None:
    """Writes a state; a reader sees the old or the new one.

    Args:
      path: of a `.npz`.
      state: by name, arrays, `numpy.random.Generator`s, and lists of arrays, such as a model's weights.
    """
    arrays = {}
    for key, value in state.items():
        if isinstance(value, np.random.Generator):
            arrays[f"{key}:generator"] = np.array(json.dumps(value.bit_generator.state))
        elif isinstance(value, list):
            arrays[f"{key}:list"] = np.array(len(value))
            arrays |= {f"{key}:list:{i}": entry for i, entry in enumerate(value)}
        else:
            arrays[key] = value
    with atomic.replacing(path) as made, open(made, "wb") as file:
        np.savez(file, **arrays)


def load(path: str | Path) -> dict:
    """What `save` wrote at `path`.

    Raises:
      ValueError: for a file that is none of these, or damaged.
    """
    try:
        with np.load(path) as file:
            arrays = {key: file[key] for key in file.files}
        state = {}
        for key, value in arrays.items():
            name, *kind = key.split(":")
            if not kind:
                state[name] = value
            elif kind == ["generator"]:
                state[name] = np.random.default_rng()
                state[name].bit_generator.state = json.loads(str(value))
            elif kind == ["list"]:
                state[name] = [arrays[f"{name}:list:{i}"] for i in range(int(value))]
        return state
    except (zipfile.BadZipFile, EOFError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"Expected a checkpoint of tfflows; got {path}, which is none or damaged: {error}") from error


@contextlib.contextmanager
def kept(path: str | Path | None) -> Iterator[None]:
    """Inside, the long searches of `adapt` keep at `path` what they have found, and go on from what is there.

    Args:
      path: of a `.npz`; None keeps nothing.

    Raises:
      ValueError: if the file has what a search has found, and inside was none.
    """
    searches = None if path is None else _Searches(Path(path))
    token = _searches.set(searches)
    try:
        yield
    finally:
        _searches.reset(token)
    if searches is not None and searches.state and searches.count == 0:
        raise ValueError(f"Expected a checkpoint of this run, or none; got {path}, of a search that is no part of it.")


def search(*facts) -> Search:
    """The next search of those inside `kept`, which is the same one each time that all of it is run.

    Args:
      *facts: arrays and settings (what JSON holds) that its result follows from.

    Raises:
      ValueError: if what was kept is of a search with other facts.
    """
    searches = _searches.get()
    return Search(None, "", "") if searches is None else searches.next(facts)


class _Searches:
    def __init__(self, path):
        self.path, self.count = path, 0
        self.state = load(path) if path.exists() else {}
        self._written = time.monotonic()

    def next(self, facts):
        self.count += 1
        return Search(self, f"search {self.count - 1}", fingerprint(*facts))

    def is_due(self):
        return time.monotonic() - self._written >= SECONDS

    def write(self, parts):
        self.state |= parts
        save(self.path, self.state)
        self._written = time.monotonic()


class Search:
    """What one search has found so far.

    Attributes:
      found: arrays and generators by name, as they were kept, or None if nothing was.
    """

    def __init__(self, searches: _Searches | None, name: str, fingerprint: str):
        self._searches, self._name, self._fingerprint = searches, name, fingerprint
        self.found = None
        if searches is not None and (f"{name}/of" in searches.state or not is_search(searches.state)):
            if str(searches.state.get(f"{name}/of")) != fingerprint:
                raise ValueError(f"Expected a checkpoint of these data and settings; got {searches.path}, of others.")
            parts = {
                key.partition("/")[2]: value for key, value in searches.state.items() if key.startswith(f"{name}/")
            }
            self.found = {key: value for key, value in parts.items() if key != "of"}

    def keep(self, found: dict, *, is_done: bool = False) -> None:
        """Keeps what was found instead of what was before: at once if it `is_done`, else every few seconds."""
        if self._searches is not None and (is_done or self._searches.is_due()):
            # Copied: the search goes on with what it has, and another one may be the next to write.
            parts = {f"{self._name}/{key}": value for key, value in copy.deepcopy(found).items()}
            self._searches.write(parts | {f"{self._name}/of": np.array(self._fingerprint)})


def is_search(state):
    """Whether a state is empty as yet, or one of searches."""
    return all(key.startswith("search ") for key in state)


def fingerprint(*facts) -> str:
    """64 hexadecimal digits that follow from facts: arrays, and what JSON can hold."""
    found = hashlib.sha256()
    for fact in facts:
        if isinstance(fact, np.ndarray):
            found.update(f"{fact.dtype}{fact.shape}".encode())
            found.update(np.ascontiguousarray(fact))
        else:
            found.update(json.dumps(fact, sort_keys=True, default=float).encode())
    return found.hexdigest()
