"""Parquet files through Apache Beam: rows a second and peak memory, and what becomes of rows when runs are killed.

    python benchmarks/batch_scoring.py --rows 500000 2000000 --kills 20

Needs the extra `beam`. Each measurement is a process of its own, the files are in a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np
from peers import RESULTS, machine, run_worker, versions, write_results

N_DIM, SHARD, GROUP = 4, 125_000, 50_000
KILL_ROWS, KILL_BLOCK = 200_000, 10_000
WAYS = {
    "beam": "Beam, one process",
    "beam 2": "Beam, two processes",
    "command": "`tfflows score`",
    "loop": "a loop over `export.runner`",
}
BEAM_OPTIONS = {"beam": [], "beam 2": ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]}


def make_model(folder: pathlib.Path) -> None:
    from tfflows import CouplingRQNSF, FlowModel

    flow = FlowModel(CouplingRQNSF(N_DIM, n_layers=4, hidden=(64, 64)))
    flow.compile(jit_compile=False)
    flow.adapt(np.random.default_rng(0).normal(size=(10_000, N_DIM)))
    flow.save(folder / "flow.keras")
    flow.export(folder / "flow", verbose=False)


def make_data(folder: pathlib.Path, n: int) -> pathlib.Path:
    """Files of n rows, one in ten thousand of them without a value."""
    import pyarrow as pa
    from pyarrow import parquet

    folder = folder / f"rows-{n}"
    folder.mkdir()
    for i, start in enumerate(range(0, n, SHARD)):
        count = min(SHARD, n - start)
        x = np.random.default_rng(i).normal(size=(count, N_DIM))
        x[::10_000, 0] = np.nan
        columns = {"id": np.arange(start, start + count)} | {f"x{k}": x[:, k] for k in range(N_DIM)}
        parquet.write_table(pa.table(columns), folder / f"{i:03}.parquet", row_group_size=GROUP)
    return folder


def worker(settings: dict) -> dict:
    """Seconds from the call to the last file, models loaded and compiled in them; imports are not."""
    import resource

    way, data, folder = settings["way"], pathlib.Path(settings["data"]), pathlib.Path(settings["folder"])
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    columns = [f"x{k}" for k in range(N_DIM)]
    started = time.perf_counter()
    if way in BEAM_OPTIONS:
        from tfflows import beam

        started = time.perf_counter()
        result = beam.score(folder / "flow", f"{data}/*.parquet", out, columns=columns, options=BEAM_OPTIONS[way])
        n = result.scored
    elif way == "command":
        n, started = _command(folder, data, out, columns)
    else:
        n, started = _loop(folder, data, out, columns)
    seconds = time.perf_counter() - started
    usage = [resource.getrusage(who).ru_maxrss / 2**20 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {"scored": n, "seconds": seconds, "memory": max(usage)}


def _command(folder, data, out, columns):
    """All files, one after the other, in one process; a flow without names takes columns as they come."""
    import pyarrow as pa
    from pyarrow import parquet

    from tfflows.cli import using

    out.mkdir()
    merged = folder / "merged.parquet"
    if not merged.exists():
        table = pa.concat_tables([parquet.read_table(path, columns=columns) for path in sorted(data.iterdir())])
        parquet.write_table(table, merged, row_group_size=GROUP)
    started = time.perf_counter()
    report = using.score(folder / "flow.keras", merged, out / "scored.parquet", True, True)
    return report.facts["rows"], started


def _loop(folder, data, out, columns):
    from pyarrow import parquet

    from tfflows import export

    out.mkdir()
    started, n = time.perf_counter(), 0
    run = export.runner(folder / "flow")
    for path in sorted(data.iterdir()):
        table = parquet.read_table(path)
        x = np.stack([table[name].to_numpy() for name in columns], axis=1).astype(np.float32)
        good = np.isfinite(x).all(axis=1)
        x = x[good]
        parts = [run("log_prob", x=x[i : i + 4096])["log_prob"] for i in range(0, len(x), 4096)]
        table = table.filter(good).append_column("log_prob", [np.concatenate(parts)])
        parquet.write_table(table, out / path.name)
        n += len(x)
    return n, started


def rows_of(out: pathlib.Path) -> dict[int, tuple]:
    """How often each id is there, and its log-density or the reason why it has none."""
    from pyarrow import parquet

    found = {}
    for path in sorted(out.rglob("*.parquet")):
        table = parquet.read_table(path)
        values = table["log_prob" if "log_prob" in table.column_names else "reason"].to_pylist()
        for key, value in zip(table["id"].to_pylist(), values, strict=True):
            found.setdefault(key, []).append(value)
    return found


def kill_trials(folder: pathlib.Path, n_trials: int, seed: int) -> dict:
    """Runs killed at random moments after their first file is there, and begun again: what is not as undisturbed."""
    data, rng = make_data(folder, KILL_ROWS), random.Random(seed)

    def start(out):
        command = [sys.executable, "-m", "tfflows.beam", "score", "--model", folder / "flow", "--data"]
        command += [f"{data}/*.parquet", "--out", out, "--columns", ",".join(f"x{k}" for k in range(N_DIM))]
        command += ["--block-rows", str(KILL_BLOCK)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and not (out / "_tfflows" / "settings.json").exists():
            time.sleep(0.005)
        return process, time.perf_counter()

    process, started = start(folder / "undisturbed")
    process.wait()
    seconds = time.perf_counter() - started
    expected = rows_of(folder / "undisturbed")
    counts = {"kills": 0, "parts kept": 0, "lost": 0, "doubled": 0, "changed": 0}
    for trial in range(n_trials):
        out = folder / f"killed-{trial}"
        while True:
            process, _ = start(out)
            time.sleep(rng.uniform(0.0, seconds))
            if process.poll() is None:
                break
            shutil.rmtree(out)  # it was faster this time
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        counts["kills"] += 1
        counts["parts kept"] += len(list((out / "_tfflows" / "begun").rglob("*.good.arrow")))
        process, _ = start(out)
        if process.wait() != 0:
            raise RuntimeError(f"Expected that a run goes on after a kill; got status {process.returncode}.")
        found = rows_of(out)
        counts["lost"] += len(expected.keys() - found.keys())
        counts["doubled"] += sum(len(values) > 1 for values in found.values())
        counts["changed"] += sum(found.get(key) != values for key, values in expected.items())
        shutil.rmtree(out)
        print(json.dumps(counts), flush=True)
    return counts | {"rows": len(expected), "seconds": round(seconds, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[500_000, 2_000_000], help="in all files together")
    parser.add_argument("--kills", type=int, default=20, help="runs that are killed")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--output", type=pathlib.Path, default=RESULTS / "batch_scoring", help="without its ending")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(worker(json.loads(args.worker))))
        return
    facts, lines = machine(), []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        make_model(folder)
        for n in args.rows:
            data = make_data(folder, n)
            for way in WAYS if n == max(args.rows) else ("beam",):
                settings = {"way": way, "data": str(data), "folder": name}
                found = run_worker(sys.executable, __file__, settings, n_threads=2, timeout=3000)
                line = {"way": WAYS[way], "rows": f"{n:,}"} | found
                if "error" not in found:
                    speed = n / found["seconds"]
                    line |= {"speed": f"{speed:,.0f}", "seconds": round(found["seconds"], 1)}
                    line |= {"scored": f"{found['scored']:,}", "memory": f"{found['memory']:.2f} GB"}
                lines.append(line)
                print(json.dumps(line), flush=True)
        kills = kill_trials(folder, args.kills, args.seed)
    facts |= versions("tensorflow", "apache-beam", "pyarrow", "numpy")
    facts |= {"flow": f"CouplingRQNSF of {N_DIM} columns, 4 layers, (64, 64)", "files": f"of {SHARD:,} rows"}
    columns = {
        "way": "way",
        "rows": "rows",
        "scored": "good rows",
        "seconds": "s",
        "speed": "rows/s",
        "memory": "peak memory",
    }
    notes = f"""
Peak memory is that of the largest process. Seconds are from the call to the last file, with loading the model, and for
`tfflows score`, which runs the flow itself under XLA, with compiling it; imports are left out. The loop holds a file in
memory and checks nothing but NaN.

{kills["kills"]} runs over {kills["rows"]:,} rows were killed (SIGKILL) at moments uniform between their first file and
the time that an undisturbed run ends, {kills["seconds"]} s later, and begun again: {kills["lost"]} rows were lost,
{kills["doubled"]} doubled, and {kills["changed"]} had another log-density (compared bit by bit) or reason than in the
undisturbed run. {kills["parts kept"]:,} parts of {KILL_BLOCK:,} rows were there at the kills and not computed again.
"""
    write_results(args.output, "Batch scoring", columns, lines, facts, notes)


if __name__ == "__main__":
    main()
