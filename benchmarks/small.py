"""Few rows: SINF, which needs no gradients, beside a spline flow that stops early, at 100, 300 and 1000 rows.

    python benchmarks/small.py --data DIR

Three real tables, two draws of training rows each; every flow is fitted by `FlowModel(preset(n_dim)).fit(x)` with
default arguments, which holds rows out of those it is given. Results: `results/small.md`, `.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import data
import numpy as np
import peers

PRESETS = ("SINF", "CouplingRQNSF")
SIZES = (100, 300, 1000)
DRAWS = (0, 1)
N_TEST = 20_000
COLUMNS = {"data": "data", "rows": "rows", "gaussian": "Gaussian"} | {
    f"{preset}{what}": f"{preset}{heading}"
    for preset in PRESETS
    for what, heading in (("", ""), ("_layers", " layers"), ("_seconds", ", s"))
    if what != "_layers" or preset == "SINF"
}
NOTES = """
Mean test log-likelihood in nats: the mean over draws of training rows, +- the standard deviation between them. The
Gaussian has a full covariance. "s": of `fit`, compiling included; layers: those that SINF kept. The columns of POWER
and of the telescope are standardised by all rows. No published figures for so few rows were at hand to stand beside.
"""


def load_tables(folder: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Rows to draw from and test rows of POWER, the gamma telescope's showers, and BSDS300 patches."""
    with np.load(pathlib.Path(folder) / "anomalies" / "tables.npz") as file:
        showers = file["magic.gamma__x"][file["magic.gamma__y"] == 0].astype(np.float64)
    showers = np.random.default_rng(0).permutation((showers - showers.mean(axis=0)) / showers.std(axis=0))
    power, patches = data.load_power(folder), data.load_bsds300(folder, 50_000, 1000, N_TEST)
    return {
        "POWER (6)": (power[0], power[2][:N_TEST]),
        "gamma telescope (10)": (showers[:4000], showers[4000:]),
        "BSDS300 (63)": (patches[0], patches[2]),
    }


def work(settings: dict) -> dict:
    """Every preset, fitted to one draw of rows."""
    import keras

    import tfflows

    peers.limit_threads("tfflows", settings["threads"])
    with np.load(settings["arrays"]) as arrays:
        rows, test = arrays["rows"], arrays["test"]
    rng = np.random.default_rng(settings["draw"])
    train = rows[rng.choice(len(rows), settings["rows"], replace=False)]
    found = {"gaussian": float(np.mean(data.gaussian_log_prob(train, test)))}
    for preset in PRESETS:
        keras.utils.set_random_seed(settings["draw"])
        flow = tfflows.FlowModel(getattr(tfflows, preset)(train.shape[1]))
        started = time.perf_counter()
        flow.fit(train, verbose=0)
        found[f"{preset}_seconds"] = time.perf_counter() - started
        found[preset] = float(np.mean(flow.log_prob(test), dtype=np.float64))
        if preset == "SINF":
            found["SINF_layers"] = flow.bijector.bijectors[1].n_found
    return found


def summarize(found: list[dict]) -> dict:
    """One line of the table from its draws."""
    line = {}
    for key in found[0]:
        values = np.array([each[key] for each in found])
        if key.endswith(("_seconds", "_layers")):
            line[key] = f"{values.mean():.0f}"
        else:
            line[key] = f"{values.mean():.2f} +- {values.std(ddof=1):.2f}" if len(values) > 1 else f"{values[0]:.2f}"
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("TFFLOWS_DATA"), help="folder of the data, or TFFLOWS_DATA")
    parser.add_argument("--draws", type=int, nargs="+", default=list(DRAWS))
    parser.add_argument("--threads", type=int, default=1, help="of each worker")
    parser.add_argument("--at-once", type=int, default=2, help="workers at the same time")
    parser.add_argument("--output", type=pathlib.Path, default=peers.RESULTS / "small", help="without a suffix")
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker is not None:
        print(json.dumps(work(args.worker)))
        return
    if args.data is None:
        sys.exit("Expected --data DIR or the environment variable TFFLOWS_DATA; see benchmarks/README.md.")
    facts = {"threads": args.threads, "workers at once": args.at_once, "draws": args.draws} | peers.machine()
    tables = load_tables(args.data)
    lines = [{"data": name, "rows": n, "found": []} for name in tables for n in SIZES]
    with tempfile.TemporaryDirectory() as folder:
        jobs, owners = [], []
        for name, (rows, test) in tables.items():
            path = pathlib.Path(folder) / f"{name}.npz"
            np.savez(path, rows=rows, test=test)
            for line in (line for line in lines if line["data"] == name):
                for draw in args.draws:
                    settings = {"arrays": str(path), "rows": line["rows"], "draw": draw, "threads": args.threads}
                    jobs.append((sys.executable, settings))
                    owners.append(line)
        for i, found in peers.run_workers(__file__, jobs, at_once=args.at_once, n_threads=args.threads, timeout=1800.0):
            line = owners[i]
            if "error" in found:
                line["error"] = found["error"]
            else:
                line["found"].append(found)
            print(line["data"], line["rows"], found, flush=True)
            done = [
                {k: v for k, v in line.items() if k != "found"} | (summarize(line["found"]) if line["found"] else {})
                for line in lines
                if line["found"] or "error" in line
            ]
            peers.write_results(args.output, "Few rows", COLUMNS, done, facts, NOTES)


if __name__ == "__main__":
    main()
