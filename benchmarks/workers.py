"""Training on several replicas: the same steps and fits as on one device, rows a second, bytes, and what a crash does.

    python benchmarks/workers.py [--parts presets workers crash restart speed]

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

OF_WORKERS = {2: ("RealNVP", "FlowMatching", "Glow", "RealNVP, context net with BatchNormalization"), 4: ("RealNVP",)}
FITS = ("RealNVP", "CouplingRQNSF", "Glow", "SoftFlow")
EPOCHS = 6  # of automatic fits, at most
COUNTS, BATCH, N_DIM, ROUNDS = (1, 2, 4), 2048, 8, 2
KILLS = 8
SPEED_EPOCHS, SPEED_STEPS = 19, 20


def compared(strategy, names):
    """For each model: a step and an automatic fit of all replicas, beside the oracle and one device."""
    import cases
    import replicated
    import tensorflow as tf

    from tfflows import training

    training.MAX_EPOCHS = EPOCHS
    one, n = tf.distribute.get_strategy(), strategy.num_replicas_in_sync
    for name in names:
        started = time.perf_counter()
        with cases.policy("float64"):
            n_parts = 1 if "synchronized" in name else n
            found, expected = replicated.step(name, strategy), replicated.oracle(name, n_parts)
            row = {
                "model": name,
                "replicas": n,
                "step": replicated.difference(found["weights"], expected["weights"]),
                "loss": abs(found["loss"] - expected["loss"]),
                "draws": expected["draws"],
                "spread": found["spread"],
            }
            if name in FITS and n == 2:
                fits = [replicated.automatic(name, each) for each in (strategy, one)]
                row["fit"] = replicated.difference(*(fit["weights"] for fit in fits))
                row |= {"epochs": [fit["epochs"] for fit in fits], "val_loss": [fit["val_loss"] for fit in fits]}
        yield row | {"seconds": time.perf_counter() - started}


def in_process(job: dict) -> None:
    import distributed
    import tensorflow as tf

    make = distributed.mirrored if job["part"] == "presets" else tf.distribute.MultiWorkerMirroredStrategy
    strategy = make()
    index = json.loads(os.environ.get("TF_CONFIG", '{"task": {"index": 0}}'))["task"]["index"]
    if job["part"] == "crash":
        results = crashing(strategy, index, job["victim"])
    elif job["part"] == "restart":
        results = restarted(strategy, index, job)
    elif job["part"] == "speed":
        results = timed(strategy, job["seed"])
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


def restarted(strategy, index, job):
    """A fit with a checkpoint, killed a little later each time that it is begun; its weights, once it ends."""
    import signal

    import distributed
    import keras

    from tfflows import checkpoints

    folder, n_kills = pathlib.Path(job["output"]).parent, job["kills"]
    n_begun = len(list(folder.glob(f"begun-{index}-*")))
    (folder / f"begun-{index}-{n_begun}").touch()
    rng = np.random.default_rng(n_begun)  # all workers know who is killed, and when
    victim, n_left = rng.integers(2), rng.integers(2, 9)

    class Kill(keras.callbacks.Callback):
        n_batches = 0

        def on_train_batch_end(self, batch, logs=None):
            self.n_batches += 1
            if n_begun < n_kills and index == victim and self.n_batches == n_left:
                os.kill(os.getpid(), signal.SIGKILL)

    checkpoints.SECONDS = 0.0
    flow = distributed.small_flow(strategy, lambda: keras.optimizers.Adam(1e-2))
    x = distributed.data()[0]
    flow.fit(x, batch_size=100, epochs=job["epochs"], verbose=0, checkpoint=folder / "run.npz", callbacks=[Kill()])
    yield {"begun": n_begun + 1, "weights": [weight.tolist() for weight in flow.get_weights()]}


def timed(strategy, seed):
    """Seconds and bytes of the loopback interface for a step, epoch by epoch, and the NLL at the end."""
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
    n = SPEED_STEPS * BATCH
    x = np.concatenate([moons.sample(n + 20_000, seed=i) for i in range(N_DIM // 2)], axis=1)
    x = (x @ np.linalg.qr(rng.normal(size=(N_DIM, N_DIM)))[0]).astype(np.float32)
    keras.utils.set_random_seed(seed)
    with strategy.scope():
        flow = FlowModel(CouplingRQNSF(N_DIM, n_layers=4, hidden=(64, 64)))
        rate = keras.optimizers.schedules.CosineDecay(5e-3, SPEED_STEPS * (SPEED_EPOCHS + 1))
        flow.compile(keras.optimizers.Adam(rate, global_clipnorm=5.0), jit_compile=False)
    clock = Clock()
    flow.fit(x[:n], batch_size=BATCH, epochs=SPEED_EPOCHS + 1, verbose=0, callbacks=[clock])
    nll = -float(np.mean(flow.log_prob(x[n:])))
    sizes = [int(np.prod(weight.shape)) for weight in flow.trainable_weights]
    yield {"seconds": seconds[1:], "bytes": sent[1:], "nll": nll, "numbers": sum(sizes), "tensors": len(sizes)}


def loopback() -> int:
    """Bytes that the loopback interface has carried."""
    lines = pathlib.Path("/proc/net/dev").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.strip().startswith("lo:"))


# Around them.


def run(job: dict, n_workers: int = 0, timeout: float = 7200.0, *, restarts: int = 0, **variables) -> list[list[dict]]:
    """Runs a job in workers, or with 0 in one process without any; the lines that each has written."""
    import cluster

    with tempfile.TemporaryDirectory() as folder:
        job = job | {"output": str(pathlib.Path(folder) / "lines")}
        command = [sys.executable, __file__, "--worker", json.dumps(job)]
        os.environ.update(environment(1) | variables, PYTHONPATH=str(ROOT))
        if n_workers:
            cluster.launch(n_workers, command, restarts=restarts)
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


def restarts(n_kills: int) -> dict:
    """Two workers of which one is killed so often, and a run of which none is: whether they end alike."""
    ends = []
    for n in (0, n_kills):
        job = {"part": "restart", "kills": n, "epochs": 3 * n_kills}
        ends.append([lines[-1] for lines in run(job, 2, restarts=n)])
    return {
        "kills": ends[1][0]["begun"] - 1,
        "other": sum(end["weights"] != ends[0][0]["weights"] for end in ends[1]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=["presets", "workers", "crash", "restart", "speed"])
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
            import replicated

            new = run({"part": part, "names": chosen.models or list(replicated.MODELS)})[0]
            kept = {row["model"]: row for row in (found.get(part, []) if chosen.models else [])}
            found.pop("left out", None)
            found[part] = list((kept | {row["model"]: row for row in new}).values())
        elif part == "workers":
            found[part] = [row for n, some in OF_WORKERS.items() for row in run({"part": part, "names": some}, n)[0]]
        elif part == "crash":
            found[part] = [crash(victim) for victim in (1, 0)]
        elif part == "restart":
            found[part] = restarts(KILLS)
        else:
            rows = [(n, run({"part": part, "seed": seed}, n)[0][0]) for seed in range(ROUNDS) for n in COUNTS]
            found[part] = {n: [row for m, row in rows if m == n] for n in COUNTS}
        found.setdefault("machine", {})[part] = machine()
        path.write_text(json.dumps(found, indent=1) + "\n")
    chosen.output.with_suffix(".md").write_text(page(json.loads(path.read_text())))


# What is assumed of a network where it was not measured.
NETWORKS = {"10 Gbit/s": 1.25e9, "25 Gbit/s": 3.125e9}  # bytes a second
HOP = 1e-4  # seconds from one worker to the next: a message of gRPC in one data centre
LARGE = 10_000_000  # numbers in a large flow


def ring_seconds(n_workers: int, n_bytes: float, rate: float) -> float:
    """Of one all-reduce in a ring: 2 (N - 1) messages one after the other, of 1 / N of the bytes each."""
    return 2 * (n_workers - 1) * (HOP + n_bytes / n_workers / rate)


def table(headings: list[str], rows: list[list]) -> str:
    lines = [headings, ["---"] * len(headings), *([str(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def of_models(rows: list[dict]) -> str:
    cells = []
    for row in rows:
        fit = f"{row['fit']:.0e}" if "fit" in row else ""
        losses = " / ".join(f"{loss:.4f}" for loss in row.get("val_loss", []))
        epochs = " / ".join(map(str, row.get("epochs", [])))
        draws = "yes" if row["draws"] else ""
        cells.append(
            [row["model"], f"{row['replicas']} {row['kind']}", draws, f"{row['step']:.0e}", f"{row['spread']:.0e}"]
        )
        cells[-1] += [fit, epochs, losses]
    headings = [
        "model",
        "replicas",
        "draws",
        "one step",
        "between replicas",
        "automatic fit",
        "epochs",
        "held-out loss",
    ]
    return table(headings, cells)


def of_speed(found: dict) -> tuple[str, str]:
    rows, medians = [], {}
    for count, runs in found.items():
        n, first = int(count), runs[0]
        seconds = statistics.median(t for run in runs for t in run["seconds"])
        sent = statistics.median(b for run in runs for b in run["bytes"])
        due = 2 * (n - 1) * 4 * first["numbers"]
        medians[n] = seconds
        nll = " / ".join(f"{run['nll']:.4f}" for run in runs)
        ratio = f"{sent / due:.2f}" if due else ""
        cells = [n, f"{BATCH / seconds:,.0f}", f"{1e3 * seconds:.0f}", f"{medians[1] / seconds:.2f}"]
        rows.append([*cells, f"{sent / 1e3:,.0f}", f"{due / 1e3:,.0f}", ratio, nll])
    headings = ["workers", "rows/s", "ms a step", "speed", "kB a step", "of the ring", "ratio", "NLL, nats"]
    measured = table(headings, rows)
    here, size = medians[1], 4 * first["numbers"]
    rows = []
    for what, n_bytes, compute in (("this flow", size, here), ("10 million numbers", 4 * LARGE, 10 * here)):
        for network, rate in NETWORKS.items():
            each = [ring_seconds(n, n_bytes, rate) for n in (4, 16, 64)]
            efficiency = [f"{1e3 * t:.1f} ms, {compute / (compute + t):.0%}" for t in each]
            rows.append([what, f"{n_bytes / 1e6:.2f} MB", f"{1e3 * compute:.0f}", network, *efficiency])
    return measured, table(["", "gradient", "ms of computing", "network", *(f"{n} workers" for n in (4, 16, 64))], rows)


def page(found: dict) -> str:
    """The Markdown of all parts that were measured."""
    parts = ["# Workers", NOTES["models"].strip()]
    kinds = {"workers": "processes", "presets": "devices"}
    rows = [row | {"kind": kind} for part, kind in kinds.items() for row in found.get(part, [])]
    if rows:
        parts.append(of_models(rows))
        parts += [f"Not measured: {', '.join(found['left out'])}."] if found.get("left out") else []
    if "crash" in found:
        cells = [
            [
                ("the first", "the second")[row["victim"]],
                row["error"],
                f"{row['raised_s']:.1f}",
                f"{row['ended_s']:.1f}",
            ]
            for row in found["crash"]
        ]
        parts += [NOTES["crash"].strip(), table(["killed", "the other raised", "after s", "ended after s"], cells)]
    if "restart" in found:
        parts.append(NOTES["restart"].strip().format(**found["restart"]))
    if "speed" in found:
        measured, extrapolated = of_speed(found["speed"])
        parts += [NOTES["speed"].strip(), measured, NOTES["paper"].strip(), extrapolated]
    facts = found.get("machine", {})
    loads = ", ".join(f"{part} {each['load before']:.0f}" for part, each in facts.items())
    one = next(iter(facts.values()), {})
    lines = [f"- {key}: {one.get(key)}" for key in ("cpu", "cores", "system", "date")]
    parts.append("\n".join([*lines, f"- load before each part: {loads}"]))
    return "\n\n".join(parts) + "\n"


NOTES = {
    "models": f"""
### The same steps and fits

Every model that trains by gradient, small, in float64. "One step": plain gradient descent on one batch, the largest
difference of a weight, relative to its largest number or 1, from an oracle that adds up the gradients of the replicas'
parts, each drawing its random numbers from a seed of its own. Where nothing is drawn that is the gradient of the whole
batch, but for `BatchNormalization`, which looks at its part alone, unless it is synchronized. "Between replicas": the
largest difference of their copies. "Automatic fit": `fit` without a number of epochs (at most {EPOCHS} here) on all
replicas and on one device; where numbers are drawn the two draw others.
""",
    "crash": """
### A worker that is killed

One of two workers is killed by SIGKILL in the middle of a fit, without the launcher, which would end the other at once.
The time to the end of the other's process includes TensorFlow's own shutdown.
""",
    "restart": """
With the launcher, which begins both anew, and a checkpoint, one of two workers, taken at random, was killed {kills}
times, after 2 to 8 steps each time. Workers that ended with other weights, bit by bit, than those of a run that nobody
killed: {other} of 2.
""",
    "speed": f"""
### Speed of workers

A `CouplingRQNSF` of {N_DIM} columns, 4 layers, nets of (64, 64), batches of {BATCH} rows for all workers together,
Adam with a cosine decay; each worker a process with one thread. Medians over {ROUNDS} runs of {SPEED_EPOCHS} epochs of
{SPEED_STEPS} steps, the numbers of workers in turn, each run with a seed of its own. The machine has two cores, little
else to do, and the loopback interface as its network: a step of two workers computes half as much in each, and what
it takes beyond half of one worker's is the overhead of waiting for each other and of TensorFlow's collectives; four
workers share two cores. Bytes are what the interface carried, beside what a ring carries in all, 2 (N - 1) times the
gradient. The NLL, of 20,000 rows held out after {SPEED_STEPS * (SPEED_EPOCHS + 1)} steps in float32, is of each seed:
numbers of workers differ as seeds do. In float64 the fits in the table above agree to the end.
""",
    "paper": f"""
### On paper

More machines, from the bytes and the time of one worker's step above. Each worker keeps its {BATCH} rows, nothing is
computed while gradients travel, a message takes {1e6 * HOP:.0f} microseconds from one worker to the next, and the
gradient is sent as one: 2 (N - 1) messages of 1 / N of it. The large flow is taken to compute ten times as long. Time
of an all-reduce, and the share of a step that is left to computing:
""",
}


if __name__ == "__main__":
    main()
