"""Draws the pictures of the documentation's first page and of the README, from one flow that is fitted to two moons.

    python docs/pictures.py [--output DIR] [--quick]

Some two minutes of two cores. The same seed gives the same pictures on the same machine and versions.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import keras
import matplotlib
import numpy as np
from matplotlib.figure import Figure

from tfflows import Chain, FlowModel, datasets, plot
from tfflows.bijectors import Coupling, Standardize, half_mask
from tfflows.nets import MLP
from tfflows.transformers import RationalQuadraticSpline

MOONS = datasets.TwoMoons()
N_GRID = 220
PALE = matplotlib.colormaps["Blues"]


def smooth_flow(n_layers: int = 4) -> FlowModel:
    """`CouplingRQNSF` with smooth nets: those of ReLU bend the grid with kinks."""
    spline = RationalQuadraticSpline()
    layers = [
        Coupling(spline, half_mask(2, flip=i % 2 == 1), MLP(spline.n_parameters, (64, 64), activation="silu"))
        for i in range(n_layers)
    ]
    return FlowModel(Chain([Standardize(2), *layers]))


def panels(n: int, height: float = 2.7):
    figure = Figure(figsize=(9.6, height * 3.0 / n), layout="constrained")
    return figure, figure.subplots(1, n, sharex=True, sharey=True)


def dots(axis, x, title: str, colour: str = "black") -> None:
    axis.plot(*x.T, ".", color=colour, markersize=2.0, rasterized=True)
    axis.set(title=title, xlabel="x0", aspect="equal")


def data(path: Path, x) -> None:
    figure, (left, right) = panels(2)
    dots(left, x[:2000], "2000 rows of data")
    places, grid = mesh(x)
    right.pcolormesh(*places, np.exp(MOONS.log_prob(grid)).reshape(N_GRID, N_GRID), cmap=PALE, rasterized=True)
    right.set(title="the density that they came from", xlabel="x0", aspect="equal")
    left.set_ylabel("x1")
    figure.savefig(path, dpi=150, bbox_inches="tight")


def mesh(x):
    """Places on both axes, and all pairs of them `[N_GRID^2, 2]`."""
    low, high = x.min(axis=0) - 0.3, x.max(axis=0) + 0.3
    places = [np.linspace(*ends, N_GRID) for ends in zip(low, high, strict=True)]
    return places, np.stack(np.meshgrid(*places), axis=-1).reshape(-1, 2).astype(np.float32)


def formula(path: Path, flow, x) -> None:
    """log p(x) = log p_Z(f(x)) + log |det J_f(x)|, the three of them as pictures."""
    places, grid = mesh(x)
    z, log_det = flow.encode(grid, return_log_det=True)
    base = flow.base.log_prob(z).numpy()
    figure, axes = panels(3, 3.5)
    shown = (
        (base, "log density of the base at f(x)", -8.0, 0.0),
        (log_det.numpy(), "+ log |det J| of f at x", -4.0, 6.0),
        (base + log_det.numpy(), "= log density of the data at x", -8.0, 2.0),
    )
    for axis, (values, title, low, high) in zip(axes, shown, strict=True):
        levels = np.arange(low, high + 1.0)
        field = np.clip(values, low, high).reshape(N_GRID, N_GRID)
        image = axis.contourf(*places, field, levels=levels, cmap=PALE)
        axis.contour(*places, field, levels=levels[1:-1:2], colors="black", linewidths=0.4, linestyles="solid")
        figure.colorbar(image, ax=axis, ticks=levels[::2], orientation="horizontal", label="nats", aspect=30)
        axis.set(xlabel="x0", aspect="equal")
        axis.set_title(title, fontsize="medium", pad=4)
    axes[0].set_ylabel("x1")
    figure.savefig(path, dpi=150, bbox_inches="tight")


def samples(path: Path, flow, x) -> None:
    figure, (left, right) = panels(2)
    drawn = flow.sample(2000, seed=0).numpy()
    grid = mesh(x)[1]
    low, high = grid.min(axis=0), grid.max(axis=0)
    n_outside = int(np.sum(np.any((drawn < low) | (drawn > high), axis=1)))
    dots(left, x[:2000], "2000 rows of data")
    dots(right, drawn, f"2000 draws from the flow, {n_outside} of them outside")
    left.set(ylabel="x1", xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    figure.savefig(path, dpi=150, bbox_inches="tight")


def outliers(path: Path, flow, x) -> None:
    rng = np.random.default_rng(3)
    places, grid = mesh(x)
    low, high = grid.min(axis=0), grid.max(axis=0)
    strange = rng.uniform(low, high, size=(60, 2)).astype(np.float32)
    rows = np.concatenate([MOONS.sample(400, seed=4), strange])
    found = flow.outliers(rows, calibration=MOONS.sample(2000, seed=5), rate=0.01, seed=0)
    figure = Figure(figsize=(9.6, 5.6), layout="constrained")
    axis = figure.subplots()
    log_prob = flow.log_prob(grid).numpy().reshape(N_GRID, N_GRID)
    axis.pcolormesh(*places, np.exp(log_prob), cmap=PALE, vmax=np.exp(log_prob).max() * 1.6, rasterized=True)
    axis.contour(*places, np.maximum(log_prob, -60.0), levels=[-found.threshold], colors="black", linewidths=0.8)
    axis.plot(*rows[~found.flags].T, ".", color="black", markersize=2.5, label="as usual")
    axis.plot(*rows[found.flags].T, "x", color="tab:red", markersize=5, label="flagged")
    axis.set(title="one use: which rows are strange, at 1 % false alarms", xlabel="x0", ylabel="x1", aspect="equal")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(path, dpi=150, bbox_inches="tight")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "pictures")
    parser.add_argument("--quick", action="store_true", help="show that it runs, in seconds")
    arguments = parser.parse_args()
    folder = arguments.output
    folder.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)
    x = MOONS.sample(2000 if arguments.quick else 20_000, seed=0)
    flow = smooth_flow()
    flow.fit(x, verbose=0, epochs=1 if arguments.quick else None)
    held_out = MOONS.sample(10_000, seed=1)
    truth = MOONS.log_prob(held_out).mean()
    print(f"held-out log-likelihood {flow.log_prob(held_out).numpy().mean():.3f} nats, of the truth {truth:.3f}")
    data(folder / "data.png", x)
    plot.warp(flow, layers=4, n_lines=15, path=folder / "warp.png")
    formula(folder / "formula.png", flow, x)
    samples(folder / "samples.png", flow, x)
    outliers(folder / "outliers.png", flow, x)


if __name__ == "__main__":
    main()
