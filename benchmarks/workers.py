"""Training on several replicas: the same steps and fits as on one device, rows a second, bytes, and what a crash does.

    python benchmarks/workers.py [--parts presets workers crash speed]

Everything runs on this machine: two logical processors, or up to four processes that talk over the loopback interface.
Results: `results/workers.md`, `.json`; parts that a run leaves out stay as the last run had them.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
from peers import RESULTS, environment, machine

ROOT = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "examples")]

OF_WORKERS = {2: ("RealNVP", "CouplingRQNSF", "Glow", "FlowMatching", "FlowMixture", "PointCloudFlow"), 4: ("RealNVP",)}
OF_WORKERS[2] += ("RealNVP, context net with BatchNormalization",)
EPOCHS = 6  # of automatic fits, at most
COUNTS, BATCH, N_DIM, ROUNDS = (1, 2, 4), 2048, 8, 3
SPEED_EPOCHS, SPEED_STEPS = 5, 20


# In the processes.


def compared(strategy, names):
    """For each model: a step and an automatic fit of all replicas, beside the oracle and one device."""
    import cases
    import replicated
    import tensorflow as tf

    from tfflows import training

    training.MAX_EPOCHS = EPOCHS
    one, n = tf.distribute.OneDeviceStrategy("CPU:0"), strategy.num_replicas_in_sync
    for name in names:
        started = time.perf_counter()
        with cases.policy("float64"):
            found, expected = replicated.step(name, strategy), replicated.oracle(name, n)[0]
            whole = replicated.oracle(name, 1)[0]
            fits = [replicated.automatic(name, each) for each in (strategy, one)]
        yield {
            "model": name,
            "replicas": n,
            "step": replicated.difference(found["weights"], expected),
            "whole": replicated.difference(expected, whole),
            "spread": found["spread"],
            "fit": replicated.difference(fits[0]["weights"], fits[1]["weights"]),
            "epochs": [fit["epochs"] for fit in fits],
            "val_loss": [fit["loss"] for fit in fits],
            "seconds": time.perf_counter() - started,
        }


def in_process(job: dict) -> None:
    import distributed
    import tensorflow as tf

    if job["part"] == "presets":
        strategy = distributed.mirrored()
    else:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    index = json.loads(os.environ.get("TF_CONFIG", '{"task": {"index": 0}}'))["task"]["index"]
    if job["part"] == "crash":
        results = crashing(strategy, index, job["victim"])
    elif job["part"] == "speed":
        results = timed(strategy)
    else:
        results = compared(strategy, job["names"])
    for result in results:
        with open(f"{job['output']}-{index}", "a") as file:
            file.write(json.dumps(result) + "\n")


def crashing(strategy, index, victim):
    """A fit in which one worker is killed; says when, or what the other raised, and when."""
    import signal

    import distributed
    import keras
    import tensorflow as tf

    class Kill(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if index == victim and epoch == 2:
                with open(os.environ["CRASH"], "w") as file:
                    file.write(repr(time.time()))
                os.kill(os.getpid(), signal.SIGKILL)

    flow = distributed.small_flow(strategy)
    try:
        flow.fit(distributed.data()[0], batch_size=100, epochs=10_000, verbose=0, callbacks=[Kill()])
    except tf.errors.OpError as error:
        yield {"error": type(error).__name__, "time": time.time(), "message": error.message.splitlines()[0]}


def timed(strategy):
    """Seconds and bytes of the loopback interface for a step, epoch by epoch."""
    import keras

    from tfflows import CouplingRQNSF, FlowModel, datasets

    class Clock(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.started = time.perf_counter(), loopback()

        def on_epoch_end(self, epoch, logs=None):
            seconds.append((time.perf_counter() - self.started[0]) / SPEED_STEPS)
            sent.append((loopback() - self.started[1]) / SPEED_STEPS)

    rng, seconds, sent = np.random.default_rng(0), [], []
    moons = datasets.TwoMoons()
    x = np.concatenate([moons.sample(SPEED_STEPS * BATCH, seed=i) for i in range(N_DIM // 2)], axis=1)
    x = (x @ np.linalg.qr(rng.normal(size=(N_DIM, N_DIM)))[0]).astype(np.float32)
    keras.utils.set_random_seed(0)
    with strategy.scope():
        flow = FlowModel(CouplingRQNSF(N_DIM, n_layers=4, hidden=(64, 64)))
        flow.compile(keras.optimizers.Adam(2e-3, global_clipnorm=5.0), jit_compile=False)
    clock = Clock()
    flow.fit(x, batch_size=BATCH, epochs=SPEED_EPOCHS + 1, verbose=0, callbacks=[clock])
    nll = -float(np.mean(flow.log_prob(x[:10_000])))
    sizes = [int(np.prod(weight.shape)) for weight in flow.trainable_weights]
    yield {"seconds": seconds[1:], "bytes": sent[1:], "nll": nll, "numbers": sum(sizes), "tensors": len(sizes)}


def loopback() -> int:
    """Bytes that the loopback interface has carried."""
    lines = pathlib.Path("/proc/net/dev").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.strip().startswith("lo:"))


# Around them.


def run(job: dict, n_workers: int = 0, timeout: float = 7200.0, **variables) -> list[list[dict]]:
    """Runs a job in workers, or with 0 in one process without any; the lines that each has written."""
    import cluster

    with tempfile.TemporaryDirectory() as folder:
        job = job | {"output": str(pathlib.Path(folder) / "lines")}
        command = [sys.executable, __file__, "--worker", json.dumps(job)]
        os.environ.update(environment(1) | variables, PYTHONPATH=str(ROOT))
        if n_workers:
            cluster.launch(n_workers, command)
        else:
            subprocess.run(command, timeout=timeout, check=False)
        paths = [pathlib.Path(f"{job['output']}-{i}") for i in range(max(n_workers, 1))]
        texts = [path.read_text() if path.exists() else "" for path in paths]
        return [[json.loads(line) for line in text.splitlines()] for text in texts]


def crash(victim: int) -> dict:
    """Two workers without the launcher, of which one is killed: how long the other takes to end, and with what."""
    import cluster

    with tempfile.TemporaryDirectory() as folder:
        marker = pathlib.Path(folder) / "killed"
        job = {"part": "crash", "victim": victim, "output": str(pathlib.Path(folder) / "lines")}
        os.environ.update(environment(1), PYTHONPATH=str(ROOT), CRASH=str(marker))
        processes = cluster.start(2, [sys.executable, __file__, "--worker", json.dumps(job)])
        processes[victim].wait(600)
        processes[1 - victim].wait(600)
        ended = time.time()
        killed = float(marker.read_text())
        found = json.loads(pathlib.Path(f"{job['output']}-{1 - victim}").read_text())
        return {
            "victim": victim,
            "error": found["error"],
            "message": found["message"],
            "raised_s": found["time"] - killed,
            "ended_s": ended - killed,
        }


def names() -> list[str]:
    import replicated

    return list(replicated.MODELS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=["presets", "workers", "crash", "speed"])
    parser.add_argument("--models", nargs="+", help="of the part presets; by default all")
    parser.add_argument("--output", type=pathlib.Path, default=RESULTS / "workers")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.worker:
        in_process(json.loads(chosen.worker))
        return
    path = chosen.output.with_suffix(".json")
    found = json.loads(path.read_text()) if path.exists() else {}
    for part in chosen.parts:
        if part == "presets":
            new = run({"part": part, "names": chosen.models or names()})[0]
            kept = {row["model"]: row for row in (found.get(part, []) if chosen.models else [])}
            found[part] = list((kept | {row["model"]: row for row in new}).values())
        elif part == "workers":
            found[part] = [row for n, some in OF_WORKERS.items() for row in run({"part": part, "names": some}, n)[0]]
        elif part == "crash":
            found[part] = [crash(victim) for victim in (1, 0)]
        else:
            rows = [(n, run({"part": part}, n)[0][0]) for _ in range(ROUNDS) for n in COUNTS]
            found[part] = {n: [row for m, row in rows if m == n] for n in COUNTS}
        found.setdefault("machine", {})[part] = machine()
        path.write_text(json.dumps(found, indent=1) + "\n")
    chosen.output.with_suffix(".md").write_text(page(json.loads(path.read_text())))


def page(found: dict) -> str:
    return "# Workers\n"


if __name__ == "__main__":
    main()
