"""Which presets leave Python: a SavedModel of every verb, and a TFLite file of builtin operations only.

    python benchmarks/exports.py

Each preset, small, with random weights, is written with Keras' `ExportArchive` and converted verb by verb; what is
loaded again must give the flow's own numbers. Results: `results/exports.md`, `.json`, and two columns of the README.
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
VERBS = ("log_prob", "encode", "decode")
COLUMNS = {"preset": "preset", "saved_model": "SavedModel"} | {verb: f"TFLite {verb}" for verb in VERBS}
NOTES = """
"yes": loaded again, it gives the numbers of the flow (within 2e-3 of the largest or of 1; tested with 4 scalars, or
images of 4 x 4 x 3, and any number of rows).
Otherwise the operation that TFLite's builtin ones lack, or what else went wrong. Autoregressive directions are traced
inside `tfflows.nets.unrolled()`. SINF is fitted, all others have random weights.
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
    import keras
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    from tfflows import nets

    flow, x = build(settings["preset"])
    functions = {
        "log_prob": lambda x: flow._log_prob(x, None),
        "encode": lambda x: flow._encode(x, None)[0],
        "decode": lambda z: flow._decode(z, None)[0],
    }
    z = flow.encode(x).numpy()
    values = {"log_prob": x, "encode": x, "decode": z}
    expected = {"log_prob": flow.log_prob(x).numpy(), "encode": z, "decode": flow.decode(z).numpy()}
    specs = {verb: [tf.TensorSpec([None, *value.shape[1:]], tf.float32)] for verb, value in values.items()}
    found = {}

    def verdict(compute):
        try:
            errors = {
                verb: float(np.abs(result - expected[verb]).max() / max(1.0, np.abs(expected[verb]).max()))
                for verb, result in compute()
            }
        except Exception as error:
            return _reason(str(error))
        worst = max(errors.values())
        return "yes" if worst < TOLERANCE else f"differs by {worst:.1e}"

    def saved_model():
        archive = keras.export.ExportArchive()
        archive.track(flow)
        for verb, function in functions.items():
            archive.add_endpoint(verb, function, input_signature=specs[verb])
        with tempfile.TemporaryDirectory() as folder:
            archive.write_out(folder, verbose=False)
            loaded = tf.saved_model.load(folder)
            return [(verb, getattr(loaded, verb)(tf.constant(values[verb])).numpy()) for verb in functions]

    def tflite(verb):
        with nets.unrolled():
            concrete = tf.function(functions[verb], input_signature=specs[verb]).get_concrete_function()
        # Weights as constants: the converter leaves those inside loops as variables that nobody sets.
        frozen = convert_variables_to_constants_v2(concrete)
        converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen], flow)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        interpreter = tf.lite.Interpreter(model_content=converter.convert())
        (given,), (got,) = interpreter.get_input_details(), interpreter.get_output_details()
        interpreter.resize_tensor_input(given["index"], values[verb].shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(given["index"], values[verb])
        interpreter.invoke()
        return [(verb, interpreter.get_tensor(got["index"]))]

    found["saved_model"] = verdict(saved_model)
    for verb in VERBS:
        found[verb] = verdict(lambda verb=verb: tflite(verb))
    return found


def _reason(text: str) -> str:
    """The line of an error that names what is missing."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = [line for line in lines if line.startswith(("Flex ops", "Custom ops", "error: 'tf."))]
    return (named or lines or ["?"])[0][:120]


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
    for i, found in peers.run_workers(__file__, jobs, at_once=args.at_once, n_threads=1, timeout=600.0):
        chosen[i] |= found
        print(chosen[i], flush=True)
        done = [line for line in lines if len(line) > 1]
        peers.write_results(args.output, "Which presets leave Python", COLUMNS, done, facts, NOTES)


if __name__ == "__main__":
    main()
