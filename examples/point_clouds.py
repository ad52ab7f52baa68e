"""Planes and chairs as clouds of points: reconstructions, new shapes, and the way from one chair to another.

    python examples/point_clouds.py                        # shapes that tfflows generates
    python examples/point_clouds.py --meshes FOLDER        # .off, .ply, .obj or .stl files, a folder for each class
    python examples/point_clouds.py --data FILE.npz        # arrays [n, points, 3], one for each class

A `PointCloudFlow` trains for `--minutes`, then writes its pictures and the model into `--output`: every shape from two
sides, and two new ones turning round. It is scored beside held-out shapes: 1-NN accuracy (0.5 is best), coverage (1 is
best) and minimum matching distance. `--quick` does it all in seconds, with nothing to look at.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import keras
import matplotlib
import numpy as np
from minutes import Minutes

from tfflows import (
    FlowModel,
    MaskedAutoregressiveRQNSF,
    PointCloudFlow,
    RealNVP,
    SoftFlow,
    clouds,
    datasets,
    load_model,
    plot,
)

matplotlib.use("Agg")

N_POINTS = 2048
N_SHAPES = 4000  # generated to train on; fewer shapes of files are augmented to as many
N_SCORED = 100  # of each class
VIEWS = ((25, -55), (70, -90))  # elevation and azimuth in degrees
LATENT = 64


def shapes(arguments: argparse.Namespace, n: int, n_points: int):
    """Clouds to train on, held-out ones, their labels, and the names of the classes."""
    if arguments.meshes is None and arguments.data is None:
        train, test = (datasets.shapes(k, n_points, seed=i) for i, k in enumerate((n, max(2 * N_SCORED, 8))))
        return train, test, ["plane", "chair"]
    if arguments.meshes is not None:
        read = datasets.point_clouds(arguments.meshes, n_points, seed=0)
        x, labels, names = read.clouds, read.labels, list(read.class_names)
    else:
        with np.load(arguments.data) as arrays:
            found = {name: arrays[name] for name in arrays.files if arrays[name].ndim == 3}
        names = list(found)
        x = datasets.normalized(np.concatenate([v.astype(np.float32) for v in found.values()]))
        labels = np.repeat(np.arange(len(names)), [len(v) for v in found.values()])
    rng = np.random.default_rng(0)
    of_class = [rng.permutation(np.flatnonzero(labels == label)) for label in range(len(names))]
    held = np.concatenate([index[: max(2, len(index) // 5)] for index in of_class])
    rest = np.setdiff1d(np.arange(len(x)), held)
    copies = -(-n // len(rest))
    train = datasets.augmented(x[rest], copies, seed=1, n_points=n_points)
    return (train, np.tile(labels[rest], copies)), (x[held][:, :n_points], labels[held]), names


def model(n_classes: int, quick: bool, noise: bool = True) -> PointCloudFlow:
    layers, width, latent = (2, 16, 4) if quick else (6, 128, LATENT)
    arguments = {"n_layers": layers, "hidden": (width, width)}
    if noise:
        bijector = SoftFlow(
            3, preset=MaskedAutoregressiveRQNSF, max_noise=0.075, power=1.0, context_dim=latent, **arguments
        )
    else:
        bijector = MaskedAutoregressiveRQNSF(3, context_dim=latent, **arguments)
    prior = FlowModel(RealNVP(latent, context_dim=n_classes, **arguments), n_classes=n_classes)
    return PointCloudFlow(FlowModel(bijector), prior, n_points=N_POINTS)


def train(flow: PointCloudFlow, x, labels, minutes: float, learning_rate: float = 2e-3, verbose=1) -> float:
    """Trains for some minutes and returns the seconds of an epoch."""
    flow.compile(keras.optimizers.Adam(1e-5, global_clipnorm=5.0))
    started = time.perf_counter()
    history = flow.fit(x, labels, epochs=10_000, callbacks=[Minutes(minutes, learning_rate)], verbose=verbose)
    return (time.perf_counter() - started) / len(history.epoch)


def scores(flow: PointCloudFlow, x, labels, names) -> dict:
    """How new shapes compare with held-out ones, class by class."""
    found = {}
    for label, name in enumerate(names):
        real = x[labels == label][:N_SCORED]
        new = flow.sample(len(real), real.shape[1], label, seed=label).numpy()
        found[name] = clouds.evaluate(new, real)
        print(f"{name}: {len(real)} new beside {len(real)} held-out ones: {found[name]}")
    return found


def pictures(flow, x, labels, names, output: Path) -> None:
    some = np.concatenate([x[labels == label][:3] for label in range(len(names))])
    again = flow.reconstruct(some, seed=0).numpy()
    strips = np.stack([some, again[:, : some.shape[1]]])
    plot.clouds(
        strips,
        rows=["held out", "decoded"],
        views=VIEWS,
        path=output / "point_clouds_reconstructions.png",
        title="held-out shapes, and what the flow makes of them",
    )
    new = np.stack([flow.sample(6, None, label, seed=1).numpy() for label in range(len(names))])
    plot.clouds(new, rows=names, views=VIEWS, path=output / "point_clouds_samples.png", title="new shapes")
    last = x[labels == len(names) - 1]
    pairs = [(last[0], last[1 % len(last)]), (last[2 % len(last)], last[3 % len(last)])]
    context = (len(names) - 1,) * 2
    ways = np.stack([flow.interpolate(a, b, 7, context=context, seed=0).numpy() for a, b in pairs])
    plot.clouds(
        ways,
        views=VIEWS[:1],
        path=output / "point_clouds_interpolation.png",
        title=f"from one held-out {names[-1]} to another, through the latent space",
    )
    plot.rotating(new[:, 0], output / "point_clouds.gif")


def main(arguments: argparse.Namespace) -> None:
    output, quick = arguments.output, arguments.quick
    output.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)
    (x, labels), (held, held_labels), names = shapes(arguments, 64 if quick else N_SHAPES, 256 if quick else N_POINTS)
    if quick:
        held, held_labels = held[:8], held_labels[:8]
    print(f"{len(x)} shapes to train on, {len(held)} held out: {', '.join(names)}.")
    flow = model(len(names), quick)
    flow.summary()
    seconds = train(flow, x, labels, 0.02 if quick else arguments.minutes, verbose=2 if quick else 1)
    bound = flow.evaluate(held, held_labels, verbose=0)
    print(f"{seconds:.1f} s an epoch; bound {-bound:.3f} nats for each point of held-out shapes.")
    found = scores(flow, held, held_labels, names)
    pictures(flow, held, held_labels, names, output)
    # Without the optimizer's state, which is twice as large as the weights.
    flow = PointCloudFlow(flow.points, flow.prior, flow.encoder, n_points=N_POINTS, name="point_clouds")
    flow.save(output / "point_clouds.keras")
    drawn = flow.sample(2, 100, 0, seed=0)
    loaded = load_model(output / "point_clouds.keras").sample(2, 100, 0, seed=0)
    print(f"Saved and loaded: draws differ by {np.abs(loaded - drawn).max():g}. Pictures: {output}/point_clouds*")
    if not quick:
        flow.export(output / "1", overwrite=True)
        flow.export(output / "point_clouds.tflite", "litert", overwrite=True)
    figures = {name: score._asdict() for name, score in found.items()} | {"bound": -bound, "seconds": seconds}
    (output / "point_clouds.json").write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--meshes", type=Path, help="folder of meshes, subfolders are classes")
    parser.add_argument("--data", type=Path, help=".npz of arrays [n, points, 3]")
    parser.add_argument("--output", type=Path, default=Path("output"), help="folder for pictures and model")
    parser.add_argument("--minutes", type=float, default=20.0, help="training time")
    parser.add_argument("--quick", action="store_true", help="a few shapes, a small net and a second")
    main(parser.parse_args())
