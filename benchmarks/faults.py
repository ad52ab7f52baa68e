"""Kills runs at random moments, fills disks, and looks what is lost: `python benchmarks/faults.py`.

Each run is a process of its own, forked before TensorFlow has started anything, so that the moments are of work and
not of imports. Runs that have checkpoints are killed and started again until they end; what they end with must be, bit
by bit, what a run ends with that nobody disturbed. Others write over a file again and again until they are killed; what
is there then must load, as one of the two flows.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import inspect
import json
import os
import pathlib
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import zipfile

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["TF_NUM_INTRAOP_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import keras
import numpy as np
import peers
import tensorflow_probability as tfp

import tfflows as tff
import tfflows_cli
from tfflows import inference, states
from tfflows.cli import fitting  # noqa: F401, imported before the processes part
from tfflows.export.parity import runner
from tfflows.inference import Target, flows, smc
from tfflows.pipelines import write_tfrecord
from tfflows.plot import canvas
from tfflows.training import TrainableModel

tfd = tfp.distributions
X = np.random.default_rng(0).normal(size=(16, 2))


# Runs that end with arrays; those with a path keep checkpoints there.


def target():
    prior = tfd.Independent(tfd.Uniform(np.float32([-5.0, -5.0]), np.float32([5.0, 5.0])), 1)
    return Target(lambda x: -2.0 * (x[:, 0] - 1.0) ** 2 - 2.0 * (x[:, 1] - 0.3 * x[:, 0] ** 2) ** 2, prior=prior)


def sampled(sampler, path, **settings):
    keras.utils.set_random_seed(0)
    flow = tff.FlowModel(tff.RealNVP(2, n_layers=2, hidden=(8,)))
    found = sampler(target(), n_draws=150, n_chains=2, seed=1, flow=flow, checkpoint=path, verbose=False, **settings)
    counts = np.array([found.n_evaluations, found.n_gradients])
    evidence = np.array(np.nan if found.log_evidence is None else found.log_evidence)
    return [found.draws, found.log_prob, counts, evidence, *flow.get_weights()]


def sinf(path):
    keras.utils.set_random_seed(0)
    flow = tff.FlowModel(tff.SINF(3, n_layers=25, n_knots=16, patience=25))
    flow.adapt(np.random.default_rng(0).gamma(2.0, size=(2000, 3)), checkpoint=path)
    return flow.get_weights()


def fit(path):
    keras.utils.set_random_seed(0)
    flow = tff.FlowModel(tff.RealNVP(2, n_layers=2, hidden=(16,)))
    x = tff.datasets.TwoMoons().sample(2000, seed=0)
    history = flow.fit(x, epochs=40, verbose=0, checkpoint=path)
    return [np.array(history.history["loss"]), *flow.get_weights()]


def command_line(path):
    """`tfflows fit`, which has no checkpoint: what it has not ended is begun anew, over the file of before."""
    table, out = path.with_name("x.csv"), path.with_name("flow.keras")
    if not table.exists():
        np.savetxt(table, np.random.default_rng(0).normal(size=(500, 2)), delimiter=",", header="a,b", comments="")
    if not out.exists():
        out.write_text("old")
    options = ["--flow", "realnvp", "--layers", "2", "--hidden", "8", "--epochs", "8", "--seed", "0", "--force"]
    try:
        tfflows_cli.app(["fit", str(table), "--out", str(out), *options])
    except SystemExit as end:
        if end.code:
            raise
    return keras.saving.load_model(out).get_weights()


RESUMED = {
    "SINF": sinf,
    "preconditioned_smc": functools.partial(sampled, inference.preconditioned_smc, n_effective=64, n_active=32),
    "flow_mh": functools.partial(sampled, inference.flow_mh, n_walkers=32, n_rounds=4, n_local=3, n_global=2),
    "variational": functools.partial(sampled, inference.variational, n_steps=60, n_particles=32, n_rounds=3),
    "neutra_hmc": functools.partial(
        sampled, inference.neutra_hmc, n_steps=60, n_particles=32, n_adapt=100, jit_compile=False
    ),
}
if "checkpoint" in inspect.signature(tff.FlowModel.fit).parameters:
    RESUMED["fit(checkpoint=...)"] = fit
RESUMED["tfflows fit --force, begun anew"] = command_line


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


# Files that are written over again and again.


def two_flows():
    found = []
    for seed in (1, 2):
        keras.utils.set_random_seed(seed)
        found.append(tff.FlowModel(tff.RealNVP(2, n_layers=2, hidden=(64, 64))))
        found[-1].set_weights([w + 0.01 * seed for w in found[-1].get_weights()])
    return found


def exported(path):
    return runner(path)("log_prob", x=X.astype(np.float32))["log_prob"]


# Of each kind: the path, how a flow is written there, and the log-densities that a reader finds there.
WRITTEN = {
    "flow.save": (
        "x.keras",
        lambda flow, path: flow.save(path),
        lambda path: keras.saving.load_model(path).log_prob(X),
    ),
    "flow.export, SavedModel": (
        "x",
        lambda flow, path: flow.export(path, overwrite=True, verbose=False),
        exported,
    ),
    "flow.export, TFLite": (
        "x.tflite",
        lambda flow, path: flow.export(path, "litert", overwrite=True, verbose=False),
        exported,
    ),
}
# Of what else a full disk may stop: how it is written.
OTHERS = {
    "flow.save_weights": ("x.weights.h5", lambda flow, path: flow.save_weights(path)),
    "checkpoints": ("x.npz", lambda flow, path: states.save(path, {"flow": flow.get_weights()})),
    "pictures": ("x.png", lambda flow, path: canvas.save(canvas.new_axes(), path)),
    "write_tfrecord": ("0000.tfrecord", lambda flow, path: write_tfrecord(path.parent, np.tile(X, (50, 1)))),
}


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
        TrainableModel.use_xla = property(lambda model: False)
        flows.EPOCHS, smc.MAX_STEPS, smc.MAX_ROUNDS, states.SECONDS = 3, 20, 8, 0.2
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

    def work():
        flows = two_flows()
        write(flows[0], run / ending)
        started = time.monotonic()
        write(flows[1], run / ending)
        ready.write_text(str(time.monotonic() - started))
        while True:
            for flow in flows:
                write(flow, run / ending)

    for trial in range(n_trials):
        ready.unlink(missing_ok=True)
        child = start(work, run)
        while not (ready.exists() and ready.read_text()):
            time.sleep(0.01)
        seconds = float(ready.read_text())
        time.sleep(rng.uniform(0.0, max(2.0 * seconds, 0.2)))
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


def full(n_trials: int, rng, folder: pathlib.Path) -> list[dict]:
    """No file may grow beyond a random length, less than what is written has."""
    kinds = {name: (ending, write) for name, (ending, write, _) in WRITTEN.items()} | OTHERS

    def work():
        for name, (ending, write) in kinds.items():
            run = folder / name
            run.mkdir()
            flow, path = two_flows()[0], run / ending
            write(flow, path)
            old = contents(run)
            n_half = n_silent = 0
            for _ in range(n_trials):
                with room_for(int(rng.integers(max(map(len, old.values()))))):
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
        facts = {"trials": n_trials, "half": n_half, "other": f"{n_silent} without an error", "left": 0}
        rows.append({"fault": f"disk full in {name}", **facts})
    return rows


def contents(folder) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


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
log-densities must be exactly those of one of the two. A full disk is a limit to the length of files (RLIMIT_FSIZE) at
a random length below that of what is written: the old file must stay, byte by byte, and the error name its path (of
TFLite files, which are converted in the system's temporary folder first, it may name that). Runs are small, and not
compiled by XLA; SINF writes its checkpoint every 0.2 s here instead of every 5.
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--only", nargs="*", help="parts of the names of faults; the others' rows stay")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    tasks = {name: functools.partial(_one, resumed, name, work, args.trials, rng) for name, work in RESUMED.items()}
    tasks["disk full"] = lambda folder: full(args.trials, rng, folder)
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
