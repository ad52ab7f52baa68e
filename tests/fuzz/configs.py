"""Fuzzes what `load_model` builds: an input is the config of a model in JSON, in a file with weights enough."""

from __future__ import annotations

import io
import os
import tempfile
import zipfile
from pathlib import Path

import h5py
import harness
import mutations
import numpy as np

with harness.instrumented(["tfflows.loading", "tfflows.serialization", "tfflows.bijectors"]):
    from tfflows import load_model

PATH = Path(tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None)) / "model.keras"
WEIGHTS = io.BytesIO()
with h5py.File(WEIGHTS, "w") as file:
    file["vars/0"] = np.zeros(5_000, np.float32)


def build(config: bytes) -> None:
    with zipfile.ZipFile(PATH, "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", config)
        archive.writestr("model.weights.h5", WEIGHTS.getvalue())
    harness.forget()
    load_model(PATH)


if __name__ == "__main__":
    harness.run(build, mutations.mutate_config)
