"""How exact the numbers are: every preset in every dtype, and what becomes of hostile data.

    python benchmarks/numerics.py

Errors: each preset, small and with random weights, is used with the same weights in every dtype. There and back again,
from data and from latents, and log-dets against the Jacobian that TensorFlow differentiates in float64. Results:
`results/numerics.md`, `.json`.

Inputs: each preset is fitted to tables that no textbook has, and must end with finite numbers, or refuse them by a
ValueError that says what it expected. Results: `results/numerics_inputs.md`, `.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import peers

N_DIM = 4
IMAGE_SHAPE = (4, 4, 3)
IMAGES = ("Glow", "MultiscaleRealNVP")
POLICIES = ("float32", "float64", "mixed_bfloat16", "mixed_float16")
FAR = 1e4  # standard deviations
N_POINTS = 256
N_ROWS = 200  # of a hostile table
BATCH_SIZE = 64
ROUND_TRIP = 1e-2  # of a standard deviation or the number itself, the most that a hostile table may lose

ERROR_COLUMNS = {
    "preset": "preset",
    "float32 x": "float32: x, z, x",
    "float32 z": "z, x, z",
    "float32 log-det": "log-det",
    "float32 far x": "far x, z, x",
    "float32 far log-det": "far log-det",
    "float64 x": "float64: x, z, x",
    "float64 log-det": "log-det",
    "mixed_bfloat16 x": "bfloat16 nets: x, z, x",
    "mixed_bfloat16 log-dets": "log-dets",
    "mixed_float16 x": "float16 nets: x, z, x",
    "mixed_float16 log-dets": "log-dets",
}
ERROR_NOTES = """
Errors are of 256 points, "median / largest". There and back: the largest difference of a row's numbers, in units of the
largest number of the row or of 1; at points like the data, and far: at 1 to 10,000 standard deviations. Log-det: of
float32 and float64 the difference from the logarithm of the determinant of the Jacobian of the same weights,
differentiated in float64, in nats, or of its own size where that is above 1. With nets in half precision the map is
another one, and no less invertible where both directions compute the nets alike: "log-dets" says by how much those of
the two directions differ. Each preset has 4 scalars (images 4 x 4 x 3 numbers) and small nets with random weights,
SINF is fitted. Differential equations are solved by the default solver, whose error this is, and not the dtype's.
"""

INPUT_COLUMNS = {"input": "data", "trials": "presets tried", "wrong": "wrong", "which": "which"}
INPUT_NOTES = """
Each preset of tables, small, is fitted for two epochs to 200 rows of 4 columns, but where the name says otherwise, and
scores, draws, encodes and decodes. Wrong is: an error that is not a ValueError "Expected ...; got ..."; weights,
log-densities or draws that are not finite; rows that come back from their latents with an error above 1 % of a standard
deviation or of the number itself; and data that should have been refused (NaN, infinity, a single row or none).
"""


def options(preset: str) -> dict:
    """Settings that make a preset small."""
    if preset in IMAGES:
        return {"levels": 2, "steps": 2, "hidden": (8, 8)}
    if preset == "SINF":
        return {"n_layers": 6, "n_knots": 8}
    if preset in ("FFJORD", "RNODE", "OTFlow", "FlowMatching"):
        return {"hidden": (8, 8)}
    return {"n_layers": 2, "hidden": (16, 16)}


def build(preset: str, n_dim: int = N_DIM, **settings):
    import tfflows

    shape = IMAGE_SHAPE if preset in IMAGES else n_dim
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nets that are narrower than 1000 columns
        flow = tfflows.FlowModel(getattr(tfflows, preset)(shape, **options(preset) | settings))
    flow.compile(jit_compile=False)
    return flow


def usual(n_rows: int, preset: str, seed: int = 0) -> np.ndarray:
    """A bent table of standard deviations near 2 and means near 1, or images."""
    rng = np.random.default_rng(seed)
    if preset in IMAGES:
        level = rng.integers(40, 200, (n_rows, 1, 1, 1))
        return np.clip(level + rng.integers(-40, 40, (n_rows, *IMAGE_SHAPE)), 0, 255).astype(np.float32)
    x = rng.normal(size=(n_rows, N_DIM))
    x[:, 1] += np.sin(2.0 * x[:, 0])
    x[:, 3] = np.where(rng.random(n_rows) < 0.5, x[:, 3] - 2.0, 0.5 * x[:, 3] + x[:, 2])
    return 1.0 + 2.0 * x


def far_out(shape, seed: int = 1) -> np.ndarray:
    """Numbers of both signs, 1 to 10,000 in size, all sizes equally often."""
    rng = np.random.default_rng(seed)
    return rng.choice([-1.0, 1.0], shape) * FAR ** rng.random(shape)


# Errors.


def errors(preset: str, policies=POLICIES) -> dict:
    """What is measured of one preset, by dtype and place."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(0)
    flow = build(preset)
    flow.adapt(usual(2000, preset).astype(np.float32))
    rng = np.random.default_rng(2)
    for weight in flow.trainable_weights:
        # At zero, where many start, wrong formulas may be right. A convolution sums nine times as many products.
        weight.assign(weight + rng.normal(0.0, 0.05 if preset in IMAGES else 0.2, weight.shape))
    weights = flow.get_weights()
    flows = {}
    for name in ("float64", *policies):
        keras.config.set_dtype_policy(name)
        flows[name] = build(preset)
        flows[name].set_weights(weights)
    keras.config.set_dtype_policy("float32")
    there_and_back = {name: tf.function(both_ways(flows[name].bijector), autograph=False) for name in policies}
    found = {}
    near = usual(N_POINTS, preset, seed=3)
    latent = rng.normal(size=(N_POINTS, *flow.bijector.latent_shape))
    points = {"": (near, latent)}
    if preset not in IMAGES:
        points["far "] = 1.0 + 2.0 * far_out(near.shape), far_out(latent.shape)
    for place, (x, z) in points.items():
        x, z = x.astype(np.float32), z.astype(np.float32)
        truth = jacobian_log_det(flows["float64"].bijector, x.astype(np.float64))
        for name in policies:
            dtype = "float64" if name == "float64" else "float32"
            results = [v.numpy() for v in there_and_back[name](tf.constant(x, dtype), tf.constant(z, dtype))]
            x_again, z_again, log_det, back_log_det = results
            found[f"{name} {place}x"] = summary(row_errors(x_again, x))
            found[f"{name} {place}z"] = summary(row_errors(z_again, z))
            found[f"{name} {place}log-det"] = summary(number_errors(log_det, truth))
            found[f"{name} {place}log-dets"] = summary(number_errors(back_log_det, -log_det))
            assert {v.dtype for v in results} == {np.dtype(dtype)}
    return found


def no_context(bijector, x):
    """Zeros, for SoftFlow the noise that it scores with; None where nothing is heard."""
    import tensorflow as tf

    return None if bijector.context_dim is None else tf.zeros([tf.shape(x)[0], bijector.context_dim], x.dtype)


def both_ways(bijector):
    def run(x, z):
        context = no_context(bijector, x)
        z_of_x, log_det = bijector.inverse_and_log_det(x, context)
        x_again, back_log_det = bijector.forward_and_log_det(z_of_x, context)
        x_of_z, _ = bijector.forward_and_log_det(z, context)
        z_again, _ = bijector.inverse_and_log_det(x_of_z, context)
        return x_again, z_again, log_det, back_log_det

    return run


def jacobian_log_det(bijector, x: np.ndarray) -> np.ndarray:
    """log |det dz/dx| of each row; rows are repeated for each latent, so that one gradient has the whole Jacobian."""
    import tensorflow as tf

    n = x[0].size

    @tf.function(autograph=False)
    def gradient(rows, directions):
        with tf.GradientTape() as tape:
            tape.watch(rows)
            z, _ = bijector.inverse_and_log_det(rows, no_context(bijector, rows))
        return tape.gradient(z, rows, output_gradients=tf.reshape(directions, tf.shape(z)))

    rows = np.repeat(x, n, axis=0)
    matrix = gradient(tf.constant(rows), tf.constant(np.tile(np.eye(n), (len(x), 1)))).numpy()
    return np.linalg.slogdet(matrix.reshape(len(x), n, n))[1]


def row_errors(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    found, truth = (v.reshape(len(v), -1).astype(np.float64) for v in (found, truth))
    return np.abs(found - truth).max(axis=1) / np.maximum(np.abs(truth).max(axis=1), 1.0)


def number_errors(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return np.abs(found.astype(np.float64) - truth) / np.maximum(np.abs(truth), 1.0)


def summary(each: np.ndarray) -> str:
    return f"{np.median(each):.0e} / {np.max(each):.0e}"


# Hostile inputs.


def tables() -> dict[str, dict]:
    """Name of an input -> x to fit, and what else is wanted of it."""
    rng = np.random.default_rng(5)
    base = usual(N_ROWS, "")
    normal = rng.normal(size=(N_ROWS, N_DIM))

    def with_column(column, i=1):
        x = base.copy()
        x[:, i] = column
        return x

    one_outlier = base.copy()
    one_outlier[7, 1] = 1e6
    outlier_rows = base.copy()
    outlier_rows[[3, 50]] = 2e6 * np.array([[1.0], [-1.0]])
    offset = 1e9 + normal
    float32 = np.float32
    return {
        "one number 1e6 deviations out": {"x": one_outlier.astype(float32)},
        "two rows 1e6 deviations out": {"x": outlier_rows.astype(float32)},
        "scores of rows 1e6 deviations out": {"x": base.astype(float32), "also": (2e6 * base[:20]).astype(float32)},
        "a column of denormals": {"x": with_column(1e-40 * normal[:, 0]).astype(float32)},
        "all denormals": {"x": (1e-40 * normal).astype(float32)},
        "denormals of float64": {"x": 1e-310 * normal},
        "a constant column": {"x": with_column(3.7).astype(float32)},
        "a column of zeros": {"x": with_column(0.0).astype(float32)},
        "all columns constant": {"x": np.full((N_ROWS, N_DIM), 3.7, float32)},
        "a column of two values": {"x": with_column(normal[:, 0] > 0.0).astype(float32)},
        "a column twice": {"x": with_column(base[:, 0]).astype(float32)},
        "all columns the same": {"x": np.repeat(base[:, :1], N_DIM, axis=1).astype(float32)},
        "1 column": {"x": base[:, :1].astype(float32)},
        "2 columns": {"x": base[:, :2].astype(float32)},
        "1,000 columns": {"x": rng.normal(size=(64, 1000)).astype(float32), "wide": True},
        "a batch of 1": {"x": base[:20].astype(float32), "batch_size": 1},
        "a batch larger than the data": {"x": base.astype(float32), "batch_size": 5000},
        "2 rows": {"x": base[:2].astype(float32)},
        "1 row": {"x": base[:1].astype(float32), "refused": True},
        "no row": {"x": base[:0].astype(float32), "refused": True},
        "the same row again": {"x": np.repeat(base[:1], N_ROWS, axis=0).astype(float32)},
        "integers": {"x": np.round(10.0 * base).astype(np.int64)},
        "integers of 60 bits": {"x": (2.0**58 * normal).astype(np.int64)},
        "booleans": {"x": normal > 0.0},
        "1e9 + noise, float32": {"x": offset.astype(float32)},
        "1e9 + noise, float64": {"x": offset},
        "1e15 + noise, float64": {"x": 1e15 + normal},
        "columns of 1e-30 and 1e30": {"x": (base * [1e-30, 1.0, 1e30, 1.0]).astype(float32)},
        "the same in float64": {"x": base * [1e-30, 1.0, 1e30, 1.0]},
        "columns of 1e-36 and 1e36": {"x": (base * [1e-36, 1.0, 1e36, 1.0]).astype(float32)},
        "numbers near float32's largest": {"x": (base * [1.0, 1.0, 2e37, 1.0]).astype(float32)},
        "float64 beyond float32": {"x": base * [1.0, 1.0, 1e60, 1.0]},
        "heavy tails (Cauchy)": {"x": (normal / rng.normal(size=normal.shape)).astype(float32)},
        "float16 data": {"x": base.astype(np.float16)},
        "NaN": {"x": with_column(np.nan), "refused": True},
        "infinity": {"x": with_column(np.inf), "refused": True},
    }


def inputs(preset: str, names) -> list[str]:
    """What is wrong with each of the hostile tables; empty if nothing is."""
    import keras

    outcomes, flows = [], {}
    for trial in (tables()[name] for name in names):
        keras.utils.set_random_seed(0)
        try:
            outcomes.append(outcome(preset, flows, trial))
        except Exception as error:
            text = str(error).strip().splitlines()
            outcomes.append(f"{type(error).__name__}: {text[0][:300] if text else ''}")
    return outcomes


def outcome(preset: str, flows: dict, trial: dict) -> str:
    """Empty if all is well, else what is not."""
    x = trial["x"]
    flow = fresh(preset, flows, x.shape[1], trial.get("wide", False))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            flow.fit(x, epochs=2, batch_size=trial.get("batch_size", BATCH_SIZE), verbose=0)
        except ValueError as error:
            return "" if str(error).startswith("Expected") else f"ValueError: {str(error).splitlines()[0][:300]}"
    if trial.get("refused"):
        return "is not refused"
    if not all(np.all(np.isfinite(weight)) for weight in flow.get_weights()):
        return "weights are not finite"
    seen = np.concatenate([x, trial["also"]]) if "also" in trial else x
    bad = []
    if not np.all(np.isfinite(flow.log_prob(seen))):
        bad.append("log_prob is not finite")
    if "batch_size" in trial and not np.isfinite(flow.log_prob(x[:1])[0]):
        bad.append("log_prob of one row is not finite")
    if not np.all(np.isfinite(flow.sample(50, seed=0))):
        bad.append("samples are not finite")
    back = flow.decode(flow.encode(x)).numpy().astype(np.float64)
    wide = np.asarray(x, np.float64)
    spread = wide.std(axis=0)
    # A column that is constant in float32 is left unscaled.
    unit = np.maximum(np.abs(wide), np.where(spread < np.finfo(np.float32).tiny, 1.0, spread))
    error = np.max(np.abs(back - wide) / unit)
    if not error < ROUND_TRIP:
        bad.append(f"round trip is off by {error:.0e}")
    return ", ".join(bad)


def write_inputs(folder: pathlib.Path, outcomes: list[dict], facts: dict) -> None:
    """The table of all trials, by input, and all of them as JSON."""
    done = [trial for trial in outcomes if "wrong" in trial]
    lines = []
    for name in tables():
        mine = [trial for trial in done if trial["input"] == name]
        wrong = [f"{trial['preset']} ({trial['wrong']})" for trial in mine if trial["wrong"]]
        lines.append({"input": name, "trials": len(mine), "wrong": len(wrong), "which": "; ".join(wrong)})
    lines.append({"input": "all", **{k: sum(line[k] for line in lines) for k in ("trials", "wrong")}})
    peers.write_results(folder / "numerics_inputs", "Hostile data", INPUT_COLUMNS, lines, facts, INPUT_NOTES)
    content = {"facts": facts, "rows": done}
    (folder / "numerics_inputs_all.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def fresh(preset: str, flows: dict, n_dim: int, wide: bool):
    """A flow with the weights of before any fit: of one number of columns it is compiled once."""
    if n_dim in flows:
        flow, weights, state = flows[n_dim]
        flow.set_weights(weights)
        for variable, value in zip(flow.optimizer.variables, state, strict=True):
            variable.assign(value)
        return flow
    settings = {}
    if wide:
        settings = {name: value for name, value in {"n_layers": 1}.items() if name in options(preset)}
    flow = build(preset, n_dim, **settings)
    flow.optimizer.build(flow.trainable_variables)
    flows[n_dim] = flow, flow.get_weights(), [np.array(v) for v in flow.optimizer.variables]
    return flow


def main() -> None:
    import keras

    import tfflows

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    presets = [name for name in tfflows.architectures.__all__ if not name.islower()]
    parser.add_argument("--presets", nargs="+", choices=presets, default=presets, help="the others stay as they were")
    parser.add_argument("--parts", nargs="+", choices=["errors", "inputs"], default=["errors", "inputs"])
    parser.add_argument("--tables", nargs="+", choices=list(tables()), default=list(tables()), help="of hostile data")
    parser.add_argument("--output", type=pathlib.Path, default=peers.RESULTS, help="a folder")
    args = parser.parse_args()
    facts = peers.versions("tfflows", "tensorflow", "keras") | peers.machine()
    lines = [{"preset": preset} for preset in presets]
    outcomes = [{"input": name, "preset": preset} for name in tables() for preset in presets if preset not in IMAGES]
    peers.fill_from_last(args.output / "numerics", lines, ("preset",))
    peers.fill_from_last(args.output / "numerics_inputs_all", outcomes, ("input", "preset"))
    for preset in args.presets:
        if "errors" in args.parts:
            line = next(line for line in lines if line["preset"] == preset)
            line |= errors(preset)
            print(line, flush=True)
            done = [line for line in lines if len(line) > 1]
            peers.write_results(
                args.output / "numerics", "How exact presets are", ERROR_COLUMNS, done, facts, ERROR_NOTES
            )
        if "inputs" in args.parts and preset not in IMAGES:
            mine = [trial for trial in outcomes if trial["preset"] == preset and trial["input"] in args.tables]
            for trial, found in zip(mine, inputs(preset, [trial["input"] for trial in mine]), strict=True):
                trial["wrong"] = found
                if found:
                    print(preset, trial["input"], found, sep=": ", flush=True)
            write_inputs(args.output, outcomes, facts)
        keras.backend.clear_session()


if __name__ == "__main__":
    main()
