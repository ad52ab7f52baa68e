"""Shapes in the plane: what one spline flow makes of each, and how far it is from the truth.

    python examples/gallery/shapes.py [--output DIR] [--quick]

The densities are known, so the distance is a number: KL(truth | flow) in nats, the mean of log p(x) - log q(x) over
fresh draws of the truth. A Gaussian with the right mean and covariance stands beside it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from gallery import falling, run, save, with_error
from matplotlib import pyplot as plt
from scipy import stats

from tfflows import CouplingRQNSF, FlowModel, datasets

TOYS = {
    "two moons": (datasets.TwoMoons(), 2.6),
    "rings": (datasets.Rings(), 4.0),
    "pinwheel": (datasets.Pinwheel(), 2.6),
    "checkerboard": (datasets.Checkerboard(), 5.0),
}  # and half the side of each picture


def fit(x, *, quick: bool = False) -> FlowModel:
    flow = FlowModel(CouplingRQNSF(2, n_layers=2 if quick else 6, hidden=(64, 64)))
    epochs = 1 if quick else 40
    flow.compile(falling(3e-3, len(x), epochs))
    flow.fit(x, epochs=epochs, verbose=0)
    return flow


def draw(toys, flows, titles):
    """A column for each shape: data, density, draws."""
    figure, axes = plt.subplots(3, len(flows), figsize=(2.9 * len(flows), 8.8), layout="constrained", squeeze=False)
    for column, (name, (toy, side)) in zip(axes.T, toys.items(), strict=True):
        edges = np.linspace(-side, side, 151)
        centres = 0.5 * (edges[1:] + edges[:-1])
        middle = toy.sample(10_000, seed=3).mean(axis=0)
        grid = np.stack(np.meshgrid(centres + middle[0], centres + middle[1]), axis=-1).reshape(-1, 2)
        density = np.exp(flows[name].log_prob(grid.astype(np.float32)).numpy()).reshape(150, 150)
        shown = {"cmap": "Greys", "vmax": np.quantile(density, 0.99), "rasterized": True}
        column[1].pcolormesh(edges + middle[0], edges + middle[1], density, **shown)
        for axis, points in ((column[0], toy.sample(3000, seed=2)), (column[2], flows[name].sample(3000, seed=2))):
            axis.scatter(*np.asarray(points).T, s=1.5, color="k", alpha=0.5, linewidths=0, rasterized=True)
        for axis in column:
            axis.set(xlim=middle[0] + np.array([-side, side]), ylim=middle[1] + np.array([-side, side]), aspect="equal")
            axis.tick_params(labelsize=8)
        column[0].set_title(titles[name], fontsize=11)
    for axis, text in zip(axes[:, 0], ("data", "density of the flow", "draws of the flow"), strict=True):
        axis.set_ylabel(text, fontsize=12)
    return figure


def main(output: Path, *, quick: bool) -> None:
    toys = dict(list(TOYS.items())[: 1 if quick else None])
    n = 500 if quick else 20_000
    flows, titles = {}, {}
    print(f"{'KL(truth | model), nats':<24}{'flow':>18}{'Gaussian':>18}")
    for name, (toy, _) in toys.items():
        x, test = toy.sample(n, seed=0), toy.sample(n, seed=1)
        flows[name] = fit(x, quick=quick)
        log_truth = toy.log_prob(test)
        away = log_truth - flows[name].log_prob(test).numpy()
        gaussian = stats.multivariate_normal(x.mean(axis=0), np.cov(x.T))
        print(f"{name:<24}{with_error(away):>18}{with_error(log_truth - gaussian.logpdf(test)):>18}", flush=True)
        titles[name] = f"{name}\n{away.mean():.3f} nats from the truth"
    save(draw(toys, flows, titles), output / "shapes.png")


if __name__ == "__main__":
    run(main, __doc__)
