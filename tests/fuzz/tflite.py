"""Fuzzes `export.IsolatedRunner`: an input says how a small TFLite file is changed, before it is loaded and run."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import harness
import mutations
import numpy as np

with harness.instrumented(["tfflows.export"]):
    import keras

    import tfflows as tff
    from tfflows import export
    from tfflows.export.checking_tflite import read_tflite

FOLDER = Path(tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
X = np.array([[0.5, -0.5], [0.0, 2.0], [1.0, 1.0]], np.float32)

keras.utils.set_random_seed(0)
flow = tff.FlowModel(tff.RealNVP(2, n_layers=1, hidden=(3,)))
flow.bijector.adapt(X)
flow.export(FOLDER / "whole.tflite", format="litert")
WHOLE = (FOLDER / "whole.tflite").read_bytes()


def run(script: bytes) -> None:
    path = FOLDER / "changed.tflite"
    path.write_bytes(mutations.edited(WHOLE, script))
    read_tflite(path)  # most are refused here, which is faster than a process
    with export.IsolatedRunner(path) as call:
        call("log_prob", x=X)


if __name__ == "__main__":
    harness.run(run, max_length=64)
