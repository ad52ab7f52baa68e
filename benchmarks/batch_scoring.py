"""Parquet files through Apache Beam: rows a second and peak memory, and what becomes of rows when runs are killed.

    python benchmarks/batch_scoring.py --rows 250000 1000000 --kills 24

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
import sys
import tempfile
import time

import numpy as np
from peers import RESULTS, machine, run_worker, versions, write_results

N_DIM, SHARD, GROUP = 4, 125_000, 50_000
KILL_ROWS, KILL_BLOCK = 240_000, 4_000
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


def kill_trials(settings: dict) -> dict:
    """Runs killed at random moments and begun again: what is not as it is undisturbed.

    Every other one is killed while parts are written, the others from the first file on. Each is a fork of this
    process, which has imported what they need and done nothing with it.
    """
    import multiprocessing

    from tfflows import beam

    folder, data, rng = pathlib.Path(settings["folder"]), settings["data"], random.Random(settings["seed"])
    columns, fork = [f"x{k}" for k in range(N_DIM)], multiprocessing.get_context("fork")

    def start(out, sign):
        arguments = (folder / "flow", f"{data}/*.parquet", out)
        process = fork.Process(target=beam.score, args=arguments, kwargs={"columns": columns, "block_rows": KILL_BLOCK})
        process.start()
        while process.is_alive() and not any(out.glob(sign)):
            time.sleep(0.005)
        return process, time.perf_counter()

    signs = ("_tfflows/settings.json", "_tfflows/begun/*/*.good.arrow")
    longest = {}
    for sign in signs:
        out = folder / f"undisturbed-{len(longest)}"
        process, started = start(out, sign)
        process.join()
        longest[sign] = time.perf_counter() - started
    expected = rows_of(out)
    counts = {"kills": 0, "amid parts": 0, "parts kept": 0, "lost": 0, "doubled": 0, "changed": 0}
    while counts["kills"] < settings["kills"]:
        out, sign = folder / "killed", signs[counts["kills"] % 2]
        process, _ = start(out, sign)
        time.sleep(rng.uniform(0.0, longest[sign]))
        if not process.is_alive():  # it was faster this time
            shutil.rmtree(out)
            continue
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        kept = len(list(out.glob(signs[1])))
        counts["kills"] += 1
        counts["amid parts"] += kept > 0
        counts["parts kept"] += kept
        process, _ = start(out, signs[0])
        process.join()
        if process.exitcode != 0:
            raise RuntimeError(f"Expected that a run goes on after a kill; got status {process.exitcode}.")
        found = rows_of(out)
        counts["lost"] += len(expected.keys() - found.keys())
        counts["doubled"] += sum(len(values) > 1 for values in found.values())
        counts["changed"] += sum(found.get(key) != values for key, values in expected.items())
        shutil.rmtree(out)
        print(json.dumps(counts), file=sys.stderr, flush=True)
    return counts | {"rows": len(expected)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[250_000, 1_000_000], help="in all files together")
    parser.add_argument("--kills", type=int, default=24, help="runs that are killed")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--output", type=pathlib.Path, default=RESULTS / "batch_scoring", help="without its ending")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        settings = json.loads(args.worker)
        print(json.dumps(kill_trials(settings) if "kills" in settings else worker(settings)))
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
        settings = {"folder": name, "data": str(make_data(folder, KILL_ROWS)), "kills": args.kills, "seed": args.seed}
        kills = run_worker(sys.executable, __file__, settings, n_threads=2, timeout=10_000)
        if "error" in kills:
            raise RuntimeError(f"Expected that the trials end; got {kills['error']}.")
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

{kills["kills"]} runs over {kills["rows"]:,} rows in {KILL_ROWS // KILL_BLOCK} parts were killed (SIGKILL) at random
moments, every other one while parts were written, and begun again: {kills["lost"]} rows were lost, {kills["doubled"]}
doubled, and {kills["changed"]} had another log-density, compared bit by bit, or another reason than in the undisturbed
run. {kills["amid parts"]} of the kills came when there were parts, {kills["parts kept"]:,} in all, which were not
computed again.
"""
    write_results(args.output, "Batch scoring", columns, lines, facts, notes)


if __name__ == "__main__":
    main()
