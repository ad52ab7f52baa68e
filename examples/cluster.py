"""One flow trained by several processes, on one machine or many, each with a part of every batch.

    python examples/cluster.py --workers 2

starts two processes here; each of them is what a machine of a cluster runs, where `TF_CONFIG` says who the others are
(docs/how_to/distribute.md has recipes for Slurm and Kubernetes). All workers end with the same weights; the first one
writes the file. The data are shards of files that are written before, and read block by block.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

BATCH = 2048  # rows of all workers together


def launch(n_workers: int, command: list[str], *, restarts: int = 0) -> int:
    """Runs the command in each of some workers, here.

    Without one of them the others would end, or wait for it, so if one fails they are ended at once.

    Args:
      n_workers: >= 1.
      command: what a worker runs, with `TF_CONFIG` in its environment.
      restarts: how often all begin anew after a failure, >= 0. They go on where they were if they keep checkpoints.

    Returns:
      0, or the exit code of the worker that failed last: below 0 the signal that killed it.

    Raises:
      ValueError: for fewer than one worker, or fewer than no restarts.
    """
    if n_workers < 1 or restarts < 0:
        raise ValueError(f"Expected at least 1 worker and 0 restarts; got {n_workers} and {restarts}.")
    for left in reversed(range(restarts + 1)):
        index, code = outcome(start(n_workers, command))
        if code == 0:
            return 0
        then = f"all begin anew; {left - 1} restarts are left" if left else "the others were ended"
        print(f"Worker {index} of {n_workers} ended with exit code {code}: {then}.", file=sys.stderr)
    return code


def start(n_workers: int, command: list[str]) -> list[subprocess.Popen]:
    """The processes of workers that find each other at free ports of this machine."""
    listening = [socket.create_server(("localhost", 0)) for _ in range(n_workers)]
    addresses = [f"localhost:{server.getsockname()[1]}" for server in listening]
    for server in listening:
        server.close()
    processes = []
    for index in range(n_workers):
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        processes.append(subprocess.Popen(command, env=dict(os.environ, TF_CONFIG=json.dumps(config))))
    return processes


def outcome(processes: list[subprocess.Popen]) -> tuple[int, int]:
    """Waits for all to end, or one to fail: its index and exit code, else zeros. None is left running."""
    try:
        while True:
            codes = [process.poll() for process in processes]
            if failed := [(i, code) for i, code in enumerate(codes) if code]:
                return min(failed, key=lambda each: each[1])  # who was killed, not who noticed
            if None not in codes:
                return 0, 0
            time.sleep(0.2)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def write_data(folder: Path, n_rows: int, n_shards: int) -> None:
    """Shards of two moons, if they are not there."""
    from tfflows import datasets

    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n_shards):
        path = folder / f"{i:02}.npy"
        if not path.exists():
            np.save(path, datasets.TwoMoons().sample(n_rows // n_shards, seed=i))


def work(output: Path, *, quick: bool, checkpoint: Path | None) -> None:
    """What each worker does."""
    import tensorflow as tf

    strategy = tf.distribute.MultiWorkerMirroredStrategy()  # before anything else of TensorFlow
    import keras

    from tfflows import CouplingRQNSF, FlowModel, datasets, pipelines

    index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
    keras.utils.set_random_seed(0)  # the same everywhere
    rows = pipelines.npy(output / "shards" / "*.npy", batch_size=BATCH)
    test = datasets.TwoMoons().sample(10_000, seed=10**6)
    with strategy.scope():
        flow = FlowModel(CouplingRQNSF(2, n_layers=2 if quick else 4, hidden=(32, 32)))
        flow.compile(keras.optimizers.Adam(2e-3))
    flow.adapt(rows)
    started = time.perf_counter()
    stop = keras.callbacks.EarlyStopping("val_loss", patience=2, restore_best_weights=True)
    settings = {"epochs": 1 if quick else 10, "callbacks": [stop], "checkpoint": checkpoint, "verbose": 0}
    history = flow.fit(rows, validation_data=test, **settings)
    seconds = time.perf_counter() - started
    truth = -np.mean(datasets.TwoMoons().log_prob(test))
    loss = history.history["val_loss"][-1]
    print(
        f"worker {index}: held-out NLL {loss:.4f} nats, truth {truth:.4f}, {len(history.epoch)} epochs, {seconds:.0f} s"
    )
    flow.save(output / "cluster.keras")  # the first one writes


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2, help="processes to start here")
    parser.add_argument("--restarts", type=int, default=0, help="how often all go on if one of them fails")
    parser.add_argument("--output", type=Path, default=Path("output"), help="folder for the shards and the model")
    parser.add_argument("--quick", action="store_true", help="few rows, one epoch")
    chosen = parser.parse_args()
    checkpoint = chosen.output / "cluster.npz"
    if "TF_CONFIG" in os.environ:
        work(chosen.output, quick=chosen.quick, checkpoint=checkpoint if chosen.restarts else None)
    else:
        checkpoint.unlink(missing_ok=True)  # of a run before
        write_data(chosen.output / "shards", 8_192 if chosen.quick else 400_000, 4)
        sys.exit(launch(chosen.workers, [sys.executable, *sys.argv], restarts=chosen.restarts))
