"""Data larger than memory: rows a second and peak memory of `fit` on shards of files, against `fit` in memory.

    python benchmarks/scale.py --rows 2000000 10000000 50000000 --folder DIR

DIR takes 16 bytes a row. Each row of `results/scale.md` is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
import tempfile

import numpy as np
from peers import RESULTS, machine, run_worker, write_results

N_DIM, BATCH = 4, 4096
SHARD = 2_000_000
SOURCES = ("npy", "parquet", "memory")
LARGEST = {"npy": 10**9, "parquet": 10**7, "memory": 10**7}  # rows; of the others memory or disk is the limit


def generated(rng, n: int) -> np.ndarray:
    """A spiral in two columns, and two that depend on it: float32 `[n, 4]`."""
    angle = 3.0 * np.pi * np.sqrt(rng.random(n, dtype=np.float32))
    noise = rng.normal(size=(n, N_DIM)).astype(np.float32)
    plane = np.stack([angle * np.cos(angle), angle * np.sin(angle)], axis=1)
    return np.concatenate([plane + 0.3 * noise[:, :2], np.abs(plane) * noise[:, 2:] * 0.2 + plane], axis=1)


def shards(folder: pathlib.Path, n: int, source: str) -> list[pathlib.Path]:
    """Files of n rows, written if they are not there."""
    paths = []
    for i in range(-(-n // SHARD)):
        path = folder / f"{i:03}.{source}"
        paths.append(path)
        if path.exists():
            continue
        x = generated(np.random.default_rng(i), SHARD)
        if source == "npy":
            np.save(path, x)
        else:
            import pyarrow as pa
            from pyarrow import parquet

            parquet.write_table(pa.table({f"x{k}": x[:, k] for k in range(N_DIM)}), path, row_group_size=2**17)
    return paths


def worker(settings: dict) -> dict:
    """One epoch; seconds without compiling, from a first fit of some batches."""
    import resource
    import time

    import keras

    from tfflows import CouplingRQNSF, FlowModel, pipelines

    keras.utils.set_random_seed(0)
    n, source = settings["rows"], settings["source"]
    paths = [pathlib.Path(path) for path in settings["paths"]]
    flow = FlowModel(CouplingRQNSF(N_DIM, n_layers=4, hidden=(64, 64)))
    if source == "memory":
        x = np.concatenate([np.load(path) for path in paths])[:n]
        few = x[: 100 * BATCH]
    else:
        x = getattr(pipelines, source)(paths, batch_size=BATCH)
        few = x.take(100)
    seconds = {}
    if source != "memory":
        started = time.perf_counter()
        flow.adapt(x)
        seconds["adapt"] = time.perf_counter() - started
    settings = {"epochs": 1, "batch_size": BATCH if source == "memory" else None, "verbose": 0}
    flow.fit(few, **settings)
    started = time.perf_counter()
    history = flow.fit(x, **settings)
    seconds["fit"] = time.perf_counter() - started
    test = generated(np.random.default_rng(10**6), 20_000)
    return {
        "adapt": round(seconds["adapt"], 1) if "adapt" in seconds else "",
        "fit": round(seconds["fit"], 1),
        "rate": f"{n / seconds['fit']:,.0f}",
        "memory": f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f}",
        "loss": f"{history.history['loss'][-1]:.4f}",
        "held_out": f"{flow.evaluate(test, verbose=0):.4f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[2_000_000, 10_000_000, 50_000_000])
    parser.add_argument("--folder", type=pathlib.Path, help="of the shards; by default a temporary one")
    parser.add_argument("--sources", nargs="+", default=list(SOURCES), help="only these; the others' rows stay")
    arguments = parser.parse_args()
    path = (RESULTS / "scale").with_suffix(".json")
    found = json.loads(path.read_text())["rows"] if path.exists() else []
    rows = {(row["rows"], row["source"]): row for row in found}
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or pathlib.Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for n in arguments.rows:
            for source in arguments.sources:
                if n > LARGEST[source]:
                    continue
                paths = shards(folder, n, "npy" if source == "memory" else source)
                settings = {"rows": n, "source": source, "paths": list(map(str, paths))}
                found = run_worker(sys.executable, __file__, settings, n_threads=2, timeout=3000)
                row = {"rows": f"{n:,}", "source": source} | found
                rows[row["rows"], source] = row
                print(row, flush=True)
    columns = {
        "rows": "rows",
        "source": "read from",
        "adapt": "adapt, s",
        "fit": "fit, an epoch, s",
        "rate": "rows/s",
        "loss": "mean loss of the epoch",
        "held_out": "held-out loss after it",
        "memory": "peak memory of the process, GiB",
    }
    notes = f"""
Rows of {N_DIM} float32 numbers in shards of {SHARD:,}, batches of {BATCH}, splines in 4 layers of width 64. `memory`
holds all rows and trains in tfflows' compiled loop; its peak includes them. Seconds of a fit are those of an epoch
whose steps are compiled already.
"""
    write_results(RESULTS / "scale", "Data larger than memory", columns, list(rows.values()), machine(), notes)


if __name__ == "__main__":
    if len(sys.argv) > 2 and sys.argv[1] == "--worker":
        print(json.dumps(worker(json.loads(sys.argv[2]))))
    else:
        main()
