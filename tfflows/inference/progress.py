"""One line that says how far a sampler is."""

from __future__ import annotations

import sys
import time


class Progress:
    """A line on the screen that is written over; nothing if it is not wanted."""

    def __init__(self, name: str, verbose: bool):
        self._name, self._verbose = name, verbose

    def __enter__(self):
        self._started = time.perf_counter()
        return self

    def __call__(self, text: str) -> None:
        if self._verbose:
            seconds = time.perf_counter() - self._started
            sys.stdout.write(f"\r{self._name}: {text}, {seconds:.0f} s".ljust(100))
            sys.stdout.flush()

    def __exit__(self, *_):
        if self._verbose:
            sys.stdout.write("\n")
