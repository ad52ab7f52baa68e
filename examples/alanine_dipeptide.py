"""The main job on real data: fit, compare, sample, draw, save and load a normalizing flow.

The data are the two backbone torsion angles of alanine dipeptide in three independent molecular-dynamics
runs: a density on a torus with several modes. A spline flow with circular splines is fitted to two runs
and judged on the third, beside a Gaussian and a kernel density estimate.

    python examples/alanine_dipeptide.py [--output DIR] [--quick]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import keras
import matplotlib
import numpy as np
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity

from tfflows import CouplingRQNSF, FlowModel, bases, datasets, load_model

matplotlib.use("Agg")
from matplotlib import pyplot as plt

BANDWIDTHS = np.radians([1.5, 2.5, 4.0, 6.0, 10.0])
MARGIN = np.radians(40.0)


def wrapped(x):
    """The points and their images across the seams, so that a kernel at one edge is seen at the other."""
    shifts = 2.0 * np.pi * np.array([[i, j] for i in (-1, 0, 1) for j in (-1, 0, 1)])
    images = (x[None] + shifts[:, None]).reshape(-1, 2)
    return images[np.all(np.abs(images) < np.pi + MARGIN, axis=1)]


def kernel_density(train, test):
    """Test log-densities of a Gaussian kernel on the torus; the bandwidth is chosen on a tenth of `train`."""
    held = np.random.default_rng(0).random(len(train)) < 0.1

    def log_density(bandwidth, data, points):
        images = wrapped(data)
        estimate = KernelDensity(bandwidth=bandwidth, rtol=1e-3).fit(images)
        return estimate.score_samples(points) + np.log(len(images) / len(data))

    scores = [log_density(b, train[~held], train[held][:1000]).mean() for b in BANDWIDTHS]
    best = BANDWIDTHS[int(np.argmax(scores))]
    return log_density(best, train, test), np.degrees(best)


def draw(flow, data, path):
    """Data, density and samples side by side, in degrees."""
    ticks = np.arange(-180, 181, 90)
    figure, axes = plt.subplots(1, 3, figsize=(13, 4.4), sharex=True, sharey=True, layout="constrained")
    side = np.linspace(-np.pi, np.pi, 201)
    centres = 0.5 * (side[1:] + side[:-1])
    grid = np.stack(np.meshgrid(centres, centres), axis=-1).reshape(-1, 2)
    # -ln p is the free energy in units of kT, up to a constant.
    energy = -flow.log_prob(grid).numpy().reshape(200, 200)
    energy -= energy.min()
    axes[0].plot(*np.degrees(data).T, ",k", alpha=0.3)
    axes[0].set_title(f"data: {len(data):,} frames, third run")
    shown = axes[1].pcolormesh(np.degrees(side), np.degrees(side), energy, vmax=10.0, cmap="magma", rasterized=True)
    figure.colorbar(shown, ax=axes[1], label="free energy  -ln p  [kT]", extend="max")
    axes[1].set_title("density of the flow")
    samples = flow.sample(len(data), seed=0).numpy()
    axes[2].plot(*np.degrees(samples).T, ",k", alpha=0.3)
    axes[2].set_title(f"samples: {len(samples):,}")
    for axis in axes:
        axis.set(xlabel="phi [degrees]", xlim=(-180, 180), ylim=(-180, 180), xticks=ticks, yticks=ticks, aspect="equal")
    axes[0].set_ylabel("psi [degrees]")
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main(output: Path, *, quick: bool) -> None:
    output.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)
    train, test = datasets.alanine_dipeptide()
    if quick:
        train, test = train[::20], test[::20]

    bijector = CouplingRQNSF(2, n_layers=4, hidden=(64, 64), circular=True)
    flow = FlowModel(bijector, base=bases.UniformBox(2, -np.pi, np.pi))
    flow.summary()
    start = time.perf_counter()
    flow.fit(train, batch_size=512, epochs=2 if quick else None)
    seconds = time.perf_counter() - start

    gaussian = GaussianMixture(1).fit(train).score_samples(test)
    kernels, bandwidth = kernel_density(train, test)
    scores = {
        "normalizing flow": flow.log_prob(test).numpy(),
        f"kernel density, {bandwidth:.1f} degrees": kernels,
        "Gaussian": gaussian,
    }
    print(f"\nFitted in {seconds:.0f} s. Held-out log-likelihood in nats ({len(test):,} frames of the third run):")
    for name, score in scores.items():
        print(f"  {name:<32}{score.mean():8.4f} +- {2 * score.std() / np.sqrt(len(score)):.4f}")

    picture = output / "alanine_dipeptide.png"
    draw(flow, test, picture)
    path = output / "alanine_dipeptide.keras"
    flow.save(path)
    again = load_model(path)
    difference = float(np.max(np.abs(again.log_prob(test) - flow.log_prob(test))))
    same_samples = np.array_equal(again.sample(100, seed=1), flow.sample(100, seed=1))
    print(f"Saved and loaded {path}: log-densities differ by {difference:g}, samples are equal: {same_samples}.")
    print(f"Picture: {picture}")
    if difference != 0.0 or not same_samples:
        raise SystemExit("The loaded flow differs from the saved one.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("output"), help="folder for the picture and the model")
    parser.add_argument("--quick", action="store_true", help="a twentieth of the data and two epochs")
    arguments = parser.parse_args()
    main(arguments.output, quick=arguments.quick)
