"""Fuzzes `load_model`: an input is a `.keras` file."""

from __future__ import annotations

import gc
import itertools
import os
import tempfile
from pathlib import Path

import harness
import mutations

with harness.instrumented(["tfflows.loading"]):
    import keras

    from tfflows import load_model

PATH = Path(tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None)) / "model.keras"
count = itertools.count(1)


def load(content: bytes) -> None:
    PATH.write_bytes(content)
    if next(count) % 500 == 0:
        keras.utils.clear_session()
        gc.collect()
    load_model(PATH)


if __name__ == "__main__":
    harness.run(load, mutations.mutate_archive)
