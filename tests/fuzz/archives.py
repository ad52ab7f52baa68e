"""Fuzzes `load_model`: an input is a `.keras` file."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import harness
import mutations

with harness.instrumented(["tfflows.loading"]):
    from tfflows import load_model

PATH = Path(tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None)) / "model.keras"


def load(content: bytes) -> None:
    PATH.write_bytes(content)
    harness.forget()
    load_model(PATH)


if __name__ == "__main__":
    harness.run(load, mutations.mutate_archive)
