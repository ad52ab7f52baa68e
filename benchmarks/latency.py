"""How fast an exported flow answers: in Python, in TensorFlow's C library as in a server, and in LiteRT.

    python benchmarks/latency.py

The flows are those of `saved_models/`. Each line is a process of its own, which imports what it needs and no more; all
lines of a flow are measured in turn, `--rounds` times. Results: `results/latency.md`, `.json`.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import runpy
import sys
import time

import numpy as np
import peers

RUNTIMES = {
    "FlowModel": {"threads": 2},
    "SavedModel, C library": {"threads": 2},
    "LiteRT, 1 thread": {"threads": 1},
    "LiteRT, 2 threads": {"threads": 2},
}
BATCHES = (1, 1024)
SIGNATURES = ("log_prob", "sample")
COLUMNS = {"flow": "flow", "runtime": "runtime", "load": "loading, s"}
for batch in BATCHES:
    for signature in SIGNATURES:
        COLUMNS[f"{signature}_{batch}"] = f"{signature} of {batch}: p50 / p95, ms"
        COLUMNS[f"{signature}_{batch}_rows"] = "rows/s"
NOTES = """
p50 and p95: medians and 95th percentiles of the calls of a round; shown is the median over the rounds. FlowModel is
`flow.log_prob(x).numpy()` and `flow.sample(n).numpy()`, compiled by XLA before; the others are called from Python with
NumPy arrays, after a first call. Loading is without starting Python, and for FlowModel with importing TensorFlow, but
without compiling. Flows: two_moons is a RealNVP of 2 scalars, alanine_dipeptide a circular RQ spline flow of 2, digits
a Glow of 28 x 28 images by class.
"""


def function(settings: dict):
    """A function of (signature, **inputs) in one of `RUNTIMES`."""
    folder = pathlib.Path(settings["models"]) / settings["flow"]
    name = settings["flow"]
    if settings["runtime"] == "FlowModel":
        import keras

        import tfflows  # noqa: F401, registers its classes

        flow = keras.saving.load_model(folder / f"{name}.keras")

        def run(signature, **inputs):
            context = inputs.get("context")
            if signature == "log_prob":
                return flow.log_prob(inputs["x"], context).numpy()
            return flow.sample(len(inputs["seed"]) if context is None else 1, context).numpy()

        return run
    if settings["runtime"].startswith("SavedModel"):
        script = peers.ROOT / "tfflows" / "export" / "c_session.py"
        return runpy.run_path(str(script))["CSession"](folder / "1")
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(folder / f"{name}.tflite"), num_threads=settings["threads"])
    runners = {signature: interpreter.get_signature_runner(signature) for signature in SIGNATURES}
    return lambda signature, **inputs: runners[signature](**inputs)


def work(settings: dict) -> dict:
    started = time.perf_counter()
    run = function(settings)
    found = {"load": round(time.perf_counter() - started, 2)}
    rng = np.random.default_rng(0)
    for n in BATCHES:
        inputs = {"log_prob": {"x": rng.normal(size=(n, 2)).astype(np.float32)}}
        inputs["sample"] = {"seed": np.arange(n, dtype=np.int32), "temperature": np.ones(n, np.float32)}
        if settings["flow"] == "digits":
            inputs["log_prob"] = {"x": rng.integers(0, 256, (n, 28, 28, 1)).astype(np.float32)}
            for given in inputs.values():
                given["context"] = np.eye(10, dtype=np.float32)[np.arange(n) % 10]
        for signature in SIGNATURES:
            run(signature, **inputs[signature])
            times = []
            while sum(times) < settings["seconds"] or len(times) < 3:
                started = time.perf_counter()
                run(signature, **inputs[signature])
                times.append(time.perf_counter() - started)
            found[f"{signature}_{n}"] = [1e3 * float(np.quantile(times, q)) for q in (0.5, 0.95)]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default=str(peers.ROOT / "saved_models"), help="folder of the exported flows")
    parser.add_argument("--flows", nargs="+", default=["two_moons", "alanine_dipeptide", "digits"])
    parser.add_argument("--seconds", type=float, default=1.0, help="of calls for each number")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker is not None:
        print(json.dumps(work(args.worker)))
        return
    rows = []
    for flow in args.flows:
        lines = {runtime: {"flow": flow, "runtime": runtime} for runtime in RUNTIMES}
        rounds = {runtime: [] for runtime in RUNTIMES}
        for _ in range(args.rounds):
            for runtime, limits in RUNTIMES.items():
                settings = {"flow": flow, "runtime": runtime, "models": args.models, "seconds": args.seconds, **limits}
                found = peers.run_worker(sys.executable, __file__, settings, n_threads=limits["threads"], timeout=600.0)
                print(flow, runtime, found, flush=True)
                if "error" in found:
                    lines[runtime]["error"] = found["error"]
                else:
                    rounds[runtime].append(found)
        for runtime, line in lines.items():
            if "error" in line:
                continue
            line["load"] = float(np.median([found["load"] for found in rounds[runtime]]))
            for batch in BATCHES:
                for signature in SIGNATURES:
                    key = f"{signature}_{batch}"
                    p50, p95 = np.median([found[key] for found in rounds[runtime]], axis=0)
                    line[key], line[f"{key}_rows"] = f"{p50:.3g} / {p95:.3g}", f"{1e3 * batch / p50:,.0f}"
            rows.append(line)
        rows += [line for line in lines.values() if "error" in line]
    versions = peers.versions("tfflows", "tensorflow", "keras", "ai-edge-litert")
    facts = {"seconds": args.seconds, "rounds": args.rounds} | versions | peers.machine()
    peers.write_results(peers.RESULTS / "latency", "Latency of exported flows", COLUMNS, rows, facts, NOTES)


if __name__ == "__main__":
    main()
