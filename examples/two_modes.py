"""Two separate modes, and what a flow leaves between them: the same small flow on three bases.

A flow is continuous: from one normal it can draw two modes only with a filament of probability between them, thin but
never gone. With modes in the base (`MixtureOfNormals`), or a hole that it learns (`Resampled`), it vanishes: after the
same training as many draws are in the gap as of the truth, next to none.

    python examples/two_modes.py [--output DIR] [--quick]

Printed are the share of draws in the gap between the modes, where the truth has next to none, and the divergence
KL(truth | flow) in nats. The picture shows log10 of the densities, in which the filament is seen.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import NamedTuple

import keras
import matplotlib
import numpy as np
from scipy import special, stats

from tfflows import FlowModel, RealNVP, bases

matplotlib.use("Agg")
from matplotlib import pyplot as plt

DISTANCE, DEVIATION = 2.0, 0.3  # of the two modes from the origin, and of each of them
GAP = 0.8  # the strip |x| < 0.8, where the truth has 0.00003 of its draws
N_TEST = 20_000


class Row(NamedTuple):
    """What one base led to."""

    name: str
    in_gap: float
    divergence: float
    seconds: float


def draw_truth(n: int, rng) -> np.ndarray:
    """Draws `[n, 2]` of two round normals, left and right."""
    sign = rng.choice([-1.0, 1.0], size=n)
    x = rng.normal(0.0, DEVIATION, (n, 2))
    x[:, 0] += DISTANCE * sign
    return x.astype(np.float32)


def true_log_prob(x: np.ndarray) -> np.ndarray:
    each = [stats.norm.logpdf(x[:, 0], sign * DISTANCE, DEVIATION) for sign in (-1.0, 1.0)]
    return special.logsumexp(each, axis=0) - math.log(2.0) + stats.norm.logpdf(x[:, 1], 0.0, DEVIATION)


BASES = {
    "normal": lambda: bases.StandardNormal(2),
    "mixture of normals": lambda: bases.MixtureOfNormals(2, n_components=4),
    "resampled normal": lambda: bases.Resampled(2, proposal=bases.DiagonalNormal(2)),
}


def fit(base, x: np.ndarray, *, quick: bool) -> FlowModel:
    keras.utils.set_random_seed(0)
    flow = FlowModel(RealNVP(2, n_layers=3, hidden=(32, 32)), base)
    n_epochs = 2 if quick else 600
    n_steps = n_epochs * -(-len(x) // 256)
    flow.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(3e-3, n_steps), global_clipnorm=5.0))
    flow.fit(x, epochs=n_epochs, verbose=0)
    return flow


def draw(flows: dict[str, FlowModel], rows: list[Row], path: Path) -> None:
    """The truth's density and those of the flows side by side."""
    side = np.linspace(-4.0, 4.0, 161)
    centres = 0.5 * (side[1:] + side[:-1])
    grid = np.stack(np.meshgrid(centres, centres), axis=-1).reshape(-1, 2).astype(np.float32)
    densities = {"truth": true_log_prob(grid)} | {name: flow.log_prob(grid).numpy() for name, flow in flows.items()}
    notes = [f"in the gap: {gap_of_truth():.3%}"] + [
        f"in the gap: {row.in_gap:.3%}, KL {row.divergence:.3f}" for row in rows
    ]
    figure, axes = plt.subplots(1, len(densities), figsize=(14, 3.9), sharex=True, sharey=True, layout="constrained")
    for axis, (name, log_prob), note in zip(axes, densities.items(), notes, strict=True):
        shown = axis.pcolormesh(
            side, side, log_prob.reshape(160, 160) / math.log(10.0), vmin=-4.0, vmax=0.0, cmap="magma", rasterized=True
        )
        axis.axvspan(-GAP, GAP, fill=False, linestyle=":", color="w", linewidth=0.8)
        axis.set(title=f"{name}\n{note}", aspect="equal", xlabel="x1")
    axes[0].set_ylabel("x2")
    figure.colorbar(shown, ax=axes, label="log10 of the density", extend="both")
    figure.savefig(path, dpi=90)
    plt.close(figure)


def gap_of_truth() -> float:
    upper, lower = (stats.norm.cdf(edge, DISTANCE, DEVIATION) for edge in (GAP, -GAP))
    return upper - lower  # the other mode has as much on its side, and each has half of all draws


def main(output: Path, *, quick: bool = False) -> list[Row]:
    """Fits the three flows, prints a row for each, and writes the picture; returns the rows."""
    output.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    x, test = draw_truth(1000 if quick else 10_000, rng), draw_truth(N_TEST, rng)
    print(f"{'base':<24}{'share in the gap':>18}{'KL(truth | flow)':>18}{'seconds':>9}")
    print(f"{'(truth)':<24}{gap_of_truth():>18.5f}{0.0:>18.4f}")
    flows, rows = {}, []
    for name, base in BASES.items():
        start = time.perf_counter()
        flows[name] = fit(base(), x, quick=quick)
        seconds = time.perf_counter() - start
        divergence = float(np.mean(true_log_prob(test) - flows[name].log_prob(test).numpy()))
        drawn = flows[name].sample(N_TEST, seed=0).numpy()
        rows.append(Row(name, float(np.mean(np.abs(drawn[:, 0]) < GAP)), divergence, seconds))
        print(f"{name:<24}{rows[-1].in_gap:>18.5f}{divergence:>18.4f}{seconds:>9.0f}", flush=True)
    picture = output / "two_modes.png"
    draw(flows, rows, picture)
    print(f"Picture: {picture}")
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("output"), help="folder for the picture")
    parser.add_argument("--quick", action="store_true", help="few data and two epochs, whose numbers mean little")
    arguments = parser.parse_args()
    main(arguments.output, quick=arguments.quick)
