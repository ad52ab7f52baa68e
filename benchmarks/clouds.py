"""Point clouds: SoftFlow beside the same model without noise, a normal distribution for each shape, and real shapes.

    python benchmarks/clouds.py
    python benchmarks/clouds.py --voxels FILE.npz    # and chairs of ModelNet10

Data: planes and chairs that tfflows generates; and 32^3 occupancy grids of chairs, packed bits of shape `shape`, as
points on their surfaces. The model is that of `examples/point_clouds.py`. Results: `results/clouds.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

import keras
import numpy as np
import peers
import point_clouds

from tfflows import clouds, datasets

N_POINTS, N_SCORED, N_TRAIN = 2048, 1024, 4000
COLUMNS = {
    "data": "data",
    "clouds": "clouds",
    "accuracy": "1-NN accuracy (0.5 is best)",
    "coverage": "coverage",
    "distance": "minimum matching distance x 1000",
    "epoch": "seconds an epoch",
    "draw": "ms for 1,000 points",
}
NOTES = """
New shapes beside as many held-out ones, 1,024 points each, by the Chamfer distance; every shape has mean square
coordinate 1. "Real" are shapes of the training set: what a perfect model would score. "Normal" are clouds from the mean
and covariance of the points of training shapes. With and without noise are the same layers, widths, steps and seed;
one seed, so a difference of 0.05 in accuracy or coverage means little (its deviation is about 0.035 of 200 shapes).

Scores published for ShapeNet cannot be compared: those are other shapes, scaled and split in another way, of 2,048
points, and 1-NN accuracy depends on how many shapes there are.

In the recorded run seconds were taken beside other work on both cores, more of it beside some lines than beside others.
"""


def generated():
    """Training clouds and labels, held-out ones, names of the classes."""
    return datasets.shapes(N_TRAIN, N_POINTS, seed=0), datasets.shapes(400, N_POINTS, seed=1), ["plane", "chair"]


def voxels(path: Path):
    """Chairs of occupancy grids, turned so that up is z and the front x; 200 of them held out."""
    with np.load(path) as arrays:
        grids = np.unpackbits(arrays["packed"], axis=1).reshape(tuple(arrays["shape"])).astype(bool)
    x = datasets.from_voxels(grids[grids.any(axis=(1, 2, 3))], N_POINTS, seed=0)
    x = datasets.normalized(np.stack([-x[..., 1], x[..., 0], x[..., 2]], axis=-1))
    x = x[np.random.default_rng(0).permutation(len(x))]
    held, rest = x[:200], x[200:]
    copies = N_TRAIN // len(rest)
    many = datasets.augmented(rest, copies, seed=1, angle=0.03)
    zeros = np.zeros(len(many), int)
    return (many, zeros), (held, np.zeros(len(held), int)), ["chair"], rest


def normals(x, n, rng):
    """Clouds `[n, N_SCORED, 3]` from means and covariances of some of clouds `x`."""
    some = x[rng.choice(len(x), n, replace=len(x) < n)]
    return np.stack([rng.multivariate_normal(c.mean(axis=0), np.cov(c.T), N_SCORED) for c in some])


class Seconds(keras.callbacks.Callback):
    """Of each epoch."""

    def on_train_begin(self, logs=None):
        self.epochs = []

    def on_epoch_begin(self, epoch, logs=None):
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(time.perf_counter() - self.started)


def train(flow, x, labels, steps) -> float:
    """Trains at a rate that rises and falls to zero; returns the median seconds of an epoch."""
    rate = keras.optimizers.schedules.CosineDecay(1e-5, steps, warmup_target=2e-3, warmup_steps=steps // 50)
    flow.compile(keras.optimizers.Adam(rate, global_clipnorm=5.0))
    seconds = Seconds()
    flow.fit(x, labels, epochs=max(1, steps // (len(x) // 16)), callbacks=[seconds], verbose=2)
    return float(np.median(seconds.epochs))


def line(found, **more):
    return {
        "accuracy": f"{found.nearest_neighbour_accuracy:.3f}",
        "coverage": f"{found.coverage:.3f}",
        "distance": f"{1000.0 * found.minimum_matching_distance:.1f}",
    } | more


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=3000, help="of training each model, in batches of 16 shapes")
    parser.add_argument("--voxels", type=Path, help=".npz of packed occupancy grids")
    parser.add_argument("--data", nargs="+", choices=["generated", "voxels"], default=["generated", "voxels"])
    parser.add_argument("--keep", type=Path, help="folder for pictures")
    args = parser.parse_args()
    path = peers.RESULTS / "clouds"
    rows = []
    if path.with_suffix(".json").exists():  # lines that this run leaves out stay
        rows = json.loads(path.with_suffix(".json").read_text())["rows"]
    facts = peers.versions("tfflows", "tensorflow", "keras") | peers.machine() | {"steps of training": args.steps}
    rng = np.random.default_rng(0)

    def record(row):
        nonlocal rows
        rows = [r for r in rows if (r["data"], r["clouds"]) != (row["data"], row["clouds"])] + [row]
        print(row, flush=True)
        peers.write_results(path, "Point clouds", COLUMNS, rows, facts, NOTES)

    for source in args.data:
        if source == "voxels" and args.voxels is None:
            continue
        (x, labels), (held, held_labels), names, *rest = generated() if source == "generated" else voxels(args.voxels)
        real, real_labels = (x, labels) if not rest else (rest[0], np.zeros(len(rest[0]), int))
        flows = {}
        for name in names:
            of, mine = names.index(name), f"{source}: {name}"
            wanted = held[held_labels == of][:, :N_SCORED]
            own = real[real_labels == of]
            record({"data": mine, "clouds": "real"} | line(clouds.evaluate(own[: len(wanted), :N_SCORED], wanted)))
            record({"data": mine, "clouds": "normal"} | line(clouds.evaluate(normals(own, len(wanted), rng), wanted)))
        for what, noise in (("SoftFlow", True), ("without noise", False)):
            keras.utils.set_random_seed(0)
            flow = flows[what] = point_clouds.model(len(names), quick=False, noise=noise)
            try:
                seconds = train(flow, x, labels, args.steps)
            except FloatingPointError as error:
                for name in names:
                    record({"data": f"{source}: {name}", "clouds": what, "error": str(error).split(". ")[0]})
                continue
            for of, name in enumerate(names):
                wanted = held[held_labels == of][:, :N_SCORED]
                flow.sample(len(wanted), N_SCORED, of, seed=0)  # compiles
                started = time.perf_counter()
                new = flow.sample(len(wanted), N_SCORED, of, seed=1).numpy()
                draw = (time.perf_counter() - started) / (len(wanted) * N_SCORED) * 1e6
                found = clouds.evaluate(new, wanted)
                row = line(found, epoch=f"{seconds:.1f}", draw=f"{draw:.2f}")
                record({"data": f"{source}: {name}", "clouds": what} | row)
            if args.keep:
                args.keep.mkdir(parents=True, exist_ok=True)
                from tfflows import plot

                new = np.stack([flow.sample(6, None, of, seed=1).numpy() for of in range(len(names))])
                plot.clouds(new, rows=names, path=args.keep / f"{source}_{what.replace(' ', '_')}.png")


if __name__ == "__main__":
    main()
