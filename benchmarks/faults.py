"""Kills runs at random moments, fills disks, and looks what is lost: `python benchmarks/faults.py`.

Each run is a process of its own, forked before TensorFlow has started anything, so that the moments are of work and
not of imports. Runs that have checkpoints are killed and started again until they end; what they end with must be, bit
by bit, what a run ends with that nobody disturbed. Others write over a file again and again until they are killed; what
is there then must load, as one of the two flows.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import functools
import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["TF_NUM_INTRAOP_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
import peers
from interrupted import OTHERS, RESUMED, WRITTEN, two_flows

from tfflows import checkpoints, states
from tfflows.inference import flows, smc
from tfflows.training import TrainableModel

CLONE_NEWNS = 0x20000  # of Linux' unshare

# Processes.


def start(work, folder: pathlib.Path) -> int:
    """Runs `work()` in another process; what it prints goes to a file beside `folder`."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        log = os.open(folder.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        # As tests do: little is trained, and nothing compiled by XLA, because each process would do it again.
        sys.dont_write_bytecode = True  # which would be cut off where there is no room
        TrainableModel.use_xla = property(lambda model: False)
        flows.EPOCHS, smc.MAX_STEPS, smc.MAX_ROUNDS = 3, 20, 8
        states.SECONDS = checkpoints.SECONDS = 0.2
        work()
        code = 0
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def ends_within(child: int, seconds: float) -> bool:
    """Whether a process ends by itself within that time; an error of its own is raised."""
    until = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            if status:
                raise RuntimeError(f"Expected a run without errors; got status {status}.")
            return True
        if time.monotonic() >= until:
            return False
        time.sleep(0.002)


def stop(child: int, number: int) -> None:
    os.kill(child, number)
    os.waitpid(child, 0)


def keep_result(work, path, result):
    arrays = work(path)
    np.savez(result, *arrays)


def same(one, other) -> bool:
    with np.load(one) as a, np.load(other) as b:
        return a.files == b.files and all(np.array_equal(a[k], b[k], equal_nan=True) for k in a.files)


# Trials.


def is_whole(folder: pathlib.Path) -> bool:
    """Whether what a killed run left under its name can be read."""
    for path in (folder / "run.npz", folder / "flow.keras"):
        if path.exists() and path.read_bytes() != b"old":
            with zipfile.ZipFile(path) as file:
                if file.testzip() is not None:
                    return False
    if (folder / "run.npz").exists():
        states.load(folder / "run.npz")
    return True


def resumed(name: str, work, n_trials: int, rng, folder: pathlib.Path) -> dict:
    """Kills a run `n_trials` times, at moments uniform in the time that it takes undisturbed."""
    run, result, whole = folder / "run", folder / "result.npz", folder / "whole.npz"
    run.mkdir()
    started = time.monotonic()
    ends_within(start(functools.partial(keep_result, work, run / "run.npz", whole), run), np.inf)
    seconds = time.monotonic() - started
    n_kills = n_ended = n_half = n_other = n_left = 0
    shutil.rmtree(run)
    run.mkdir()
    while True:
        child = start(functools.partial(keep_result, work, run / "run.npz", result), run)
        if not ends_within(child, rng.uniform(0.0, seconds) if n_kills < n_trials else np.inf):
            stop(child, signal.SIGKILL)
            n_kills += 1
            try:
                n_half += not is_whole(run)
            except (ValueError, OSError, zipfile.BadZipFile):
                n_half += 1
            continue
        n_ended += 1
        n_other += not same(result, whole)
        n_left += sum(path.name.startswith(".") for path in run.iterdir())
        shutil.rmtree(run)
        run.mkdir()
        if n_kills >= n_trials:
            break
    return {
        "fault": f"SIGKILL of {name}",
        "trials": n_kills,
        "half": n_half,
        "other": f"{n_other} of {n_ended} runs",
        "left": n_left,
        "seconds": f"{seconds:.1f}",
    }


def written(name: str, number: int, n_trials: int, rng, folder: pathlib.Path) -> dict:
    """Stops a process that writes two flows in turn to the same path."""
    ending, write, read = WRITTEN[name]
    run, ready, seen = folder / "run", folder / "ready", folder / "seen"
    run.mkdir()
    seen.mkdir()

    def begin():
        old, new = two_flows()
        write(old, run / ending)
        started = time.monotonic()
        write(new, run / ending)
        ready.write_text(str(time.monotonic() - started))

    def work():
        flows = two_flows()
        ready.touch()
        while True:
            for flow in flows:
                write(flow, run / ending)

    ends_within(start(begin, run), np.inf)
    seconds = float(ready.read_text())
    for trial in range(n_trials):
        ready.unlink()
        child = start(work, run)
        while not ready.exists():
            time.sleep(0.005)
        time.sleep(rng.uniform(0.0, 2.0 * seconds))
        stop(child, number)
        (shutil.copytree if (run / ending).is_dir() else shutil.copy)(run / ending, seen / f"{trial}_{ending}")

    def look():
        flows = two_flows()
        for kind, flow in zip(("old", "new"), flows, strict=True):
            write(flow, folder / f"{kind}_{ending}")
        known = [np.asarray(read(folder / f"{kind}_{ending}")) for kind in ("old", "new")]
        n_other = 0
        for path in seen.iterdir():
            try:
                found = np.asarray(read(path))
                n_other += not any(np.array_equal(found, k) for k in known)
            except Exception:
                traceback.print_exc()
                n_other += 1
        write(flows[0], run / ending)
        np.savez(folder / "looked.npz", n_other)

    ends_within(start(look, run), np.inf)
    with np.load(folder / "looked.npz") as looked:
        n_other = int(looked["arr_0"])
    kind = {signal.SIGKILL: "SIGKILL", signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}[number]
    facts = {"trials": n_trials, "half": n_other, "other": "", "left": len(list(run.iterdir())) - 1}
    return {"fault": f"{kind} in {name}", **facts, "seconds": f"{seconds:.2f}"}


def full(n_trials: int, rng, folder: pathlib.Path, *, is_disk: bool) -> list[dict]:
    """Writes where there is less room than it takes: on a small file system, or by a limit to the length of files."""
    kinds = {name: (ending, write) for name, (ending, write, _) in WRITTEN.items()} | OTHERS

    def work():
        if is_disk:
            own_mounts()
        for name, (ending, write) in kinds.items():
            disk, run = folder / name, folder / name / "run"
            disk.mkdir()
            if is_disk:
                mount(disk)
            run.mkdir()
            flow, path, free = two_flows()[0], run / ending, n_free(disk)
            write(flow, path)
            old = contents(run)
            n_taken = free - n_free(disk) if is_disk else max(map(len, old.values()))
            n_half = n_silent = 0
            for _ in range(n_trials):
                n_left = int(rng.integers(n_taken))
                with blocks_for(n_left, disk) if is_disk else room_for(n_left):
                    try:
                        write(flow, path)
                        n_silent += 1
                    except OSError as error:
                        n_silent += str(path) not in str(error) and name != "flow.export, TFLite"
                n_half += contents(run) != old
            np.savez(folder / f"{name}.npz", n_half, n_silent)

    ends_within(start(work, folder), np.inf)
    rows = []
    for name in kinds:
        with np.load(folder / f"{name}.npz") as found:
            n_half, n_silent = int(found["arr_0"]), int(found["arr_1"])
        facts = {"trials": n_trials, "half": n_half, "other": f"{n_silent} without an error"}
        rows.append({"fault": f"{'disk full' if is_disk else 'file too long'} in {name}", **facts})
    return rows


def contents(folder) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def own_mounts() -> None:
    """From here on nobody else sees what this process mounts, and it goes when the process does."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "Expected to run as root on Linux, to mount a small file system.")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)


def mount(folder: pathlib.Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], check=True)


def n_free(disk: pathlib.Path) -> int:
    return os.statvfs(disk).f_bavail


@contextlib.contextmanager
def blocks_for(n_blocks: int, disk: pathlib.Path):
    """Fills a file system until that many blocks are left."""
    with open(disk / "filling", "wb") as file:
        os.posix_fallocate(file.fileno(), 0, (n_free(disk) - n_blocks) * os.statvfs(disk).f_frsize)
    try:
        yield
    finally:
        (disk / "filling").unlink()


@contextlib.contextmanager
def room_for(n_bytes: int):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


COLUMNS = {
    "fault": "fault",
    "trials": "trials",
    "half": "files neither old nor new",
    "other": "ended otherwise than undisturbed",
    "left": "left behind after the next write",
    "seconds": "seconds of work undisturbed",
}
NOTES = """
A run is started in a process of its own and stopped at a moment uniform in the time that it takes undisturbed, after
the imports; then it is started again, and so on until it has been stopped so often, and last until it ends. "Ended
otherwise" compares, bit by bit, draws, log-densities, evidence, counts of evaluations and all weights of the flow.
Writers write two flows in turn over the same path; what is there when they are stopped is loaded, and its
log-densities must be exactly those of one of the two. A full disk is a file system of 8 MiB (tmpfs), filled but for a
random number of blocks, fewer than what is written takes; "file too long" is a limit to the length of files
(RLIMIT_FSIZE) at a random length below that of what is written. The old file must stay, byte by byte, and the error
name its path (of TFLite files, which are converted in the system's temporary folder first, it may name that). Runs are
small, and not compiled by XLA. Of preconditioned_smc two of three runs had ended with other last digits at first:
graphs of a fixed number of rows round otherwise than graphs of any; now it has the latter alone, and this table's
trials are of that. SINF and fit write their checkpoints every 0.2 s here instead of every 5 and 10.
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--only", nargs="*", help="parts of the names of faults; the others' rows stay")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    tasks = {name: functools.partial(_one, resumed, name, work, args.trials, rng) for name, work in RESUMED.items()}
    for fault, is_disk in (("disk full", True), ("file too long", False)):
        tasks[fault] = functools.partial(full, args.trials, rng, is_disk=is_disk)
    for number, name in [
        (signal.SIGKILL, "flow.save"),
        (signal.SIGTERM, "flow.save"),
        (signal.SIGINT, "flow.save"),
        (signal.SIGKILL, "flow.export, SavedModel"),
        (signal.SIGKILL, "flow.export, TFLite"),
    ]:
        tasks[f"{number.name} {name}"] = functools.partial(_one, written, name, number, args.trials, rng)
    path = peers.RESULTS / "faults"
    rows = json.loads(path.with_suffix(".json").read_text())["rows"] if path.with_suffix(".json").exists() else []
    for name, task in tasks.items():
        if args.only and not any(part in name for part in args.only):
            continue
        with tempfile.TemporaryDirectory() as folder:
            new = task(pathlib.Path(folder))
        for row in new:
            print(row, flush=True)
        faults = {row["fault"] for row in new}
        rows = [row for row in rows if row["fault"] not in faults] + new
        facts = peers.versions("tensorflow", "keras", "tensorflow-probability") | peers.machine()
        peers.write_results(path, "Faults", COLUMNS, rows, facts, NOTES)


def _one(function, *arguments):
    *arguments, folder = arguments
    return [function(*arguments, folder)]


if __name__ == "__main__":
    main()
