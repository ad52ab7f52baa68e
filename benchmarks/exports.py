"""Which presets leave Python: a SavedModel, and a TFLite file of builtin operations only.

    python benchmarks/exports.py

Each preset, small, with random weights, is written by `flow.export`, and compared by `tfflows.export.verify`: log_prob,
encode and decode of 1, 7 and 200 rows, the SavedModel also in TensorFlow's C library, the server's loader. Results:
`results/exports.md`, `.json`; a test compares two columns of the README with them.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import peers

N_DIM = 4
IMAGE_SHAPE = (4, 4, 3)
IMAGES = ("Glow", "MultiscaleRealNVP")
TOLERANCE = 2e-3  # of the largest number, or of 1, after bisections and solvers in float32
COLUMNS = {
    "preset": "preset",
    "SavedModel": "SavedModel",
    "difference": "largest difference",
    "operations": "TFLite operations",
    "kilobytes": "TFLite, kB",
    "tflite_difference": "largest difference",
    "TFLite": "TFLite",
}
NOTES = """
"yes": the export gives the numbers of the flow, within 2e-3 of the largest or of 1 (4 scalars, or images of 4 x 4 x 3;
1, 7 and 200 rows), and `sample` draws finite rows. Otherwise the operation that is missing, or what else went wrong.
Differences are the largest of log_prob, encode and decode, and of TensorFlow's Python and C library. Presets that
invert by bisection or solver differ by what these leave. SINF is fitted, all others have random weights.
"""


def build(preset: str):
    import keras

    import tfflows

    keras.utils.set_random_seed(0)
    if preset in IMAGES:
        flow = tfflows.FlowModel(getattr(tfflows, preset)(IMAGE_SHAPE, levels=2, steps=2, hidden=(8, 8)))
        x = np.random.default_rng(0).integers(0, 256, (200, *IMAGE_SHAPE)).astype(np.float32)
        return _randomised(flow, x)
    options = {"SINF": {"n_layers": 4, "n_knots": 8}}
    for name in ("FFJORD", "RNODE", "OTFlow", "FlowMatching"):
        options[name] = {"hidden": (8, 8)}
    options = options.get(preset, {"n_layers": 2, "hidden": (8, 8)})
    flow = tfflows.FlowModel(getattr(tfflows, preset)(N_DIM, **options))
    x = np.random.default_rng(0).normal(1.0, 2.0, (200, N_DIM)).astype(np.float32)
    x[:, 1] += np.sin(x[:, 0])
    return _randomised(flow, x)


def _randomised(flow, x):
    flow.adapt(x)
    rng = np.random.default_rng(1)
    for weight in flow.trainable_weights:
        # A convolution sums nine times as many products.
        weight.assign(weight + rng.normal(0.0, 0.05 if flow.accepts.is_discrete else 0.2, weight.shape))
    return flow, x


def work(settings: dict) -> dict:
    """Both formats of one preset."""
    from tfflows import export

    flow, x = build(settings["preset"])
    found = {}
    seeds = {"seed": np.arange(20, dtype=np.int32), "temperature": np.ones(20, np.float32)}
    with tempfile.TemporaryDirectory() as folder:
        for format, column, prefix in (("tf_saved_model", "SavedModel", ""), ("litert", "TFLite", "tflite_")):
            path = pathlib.Path(folder) / format
            try:
                flow.export(path, format, verbose=False)
                worst = max(parity.difference for parity in export.verify(path, flow, x))
                drawn = export.runner(path)("sample", **seeds)["x"]
            except Exception as error:
                found[column] = str(error).strip().splitlines()[0][:160]
                continue
            found[f"{prefix}difference"] = f"{worst:.1e}"
            is_right = worst < TOLERANCE and np.all(np.isfinite(drawn))
            found[column] = "yes" if is_right else "differs"
            if format == "litert":
                content = path.read_bytes()
                found |= {"operations": len(export.operations(content)), "kilobytes": round(len(content) / 1000)}
    return found


def main() -> None:
    import tfflows

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    presets = [name for name in tfflows.architectures.__all__ if not name.islower()]
    parser.add_argument("--presets", nargs="+", choices=presets, default=presets)
    parser.add_argument("--at-once", type=int, default=2, help="presets at the same time")
    parser.add_argument("--output", type=pathlib.Path, default=peers.RESULTS / "exports", help="without a suffix")
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker is not None:
        print(json.dumps(work(args.worker)))
        return
    lines = [{"preset": preset} for preset in presets]
    chosen = [line for line in lines if line["preset"] in args.presets]
    if len(chosen) < len(lines):
        peers.fill_from_last(args.output, [line for line in lines if line not in chosen], ("preset",))
    jobs = [(sys.executable, line) for line in chosen]
    facts = peers.versions("tfflows", "tensorflow", "keras") | peers.machine()
    for i, found in peers.run_workers(__file__, jobs, at_once=args.at_once, n_threads=1, timeout=1200.0):
        chosen[i] |= found
        print(chosen[i], flush=True)
        done = [line for line in lines if len(line) > 1]
        peers.write_results(args.output, "Which presets leave Python", COLUMNS, done, facts, NOTES)


if __name__ == "__main__":
    main()
