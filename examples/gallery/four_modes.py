"""Four modes on the line: a Gaussian, a mixture of Gaussians, a kernel density estimate, and a flow.

The mixture has the right family and is told that there are four; even so its fit depends on where it starts. The flow
is told nothing: its map from a standard normal learns to be flat at the modes and steep between them.

    python examples/gallery/four_modes.py [--output DIR] [--quick]

Printed are the divergences KL(truth | model) in nats, by quadrature, and the probability of x < 0.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from gallery import falling, kernel_density, run, save
from matplotlib import pyplot as plt
from scipy import stats
from sklearn.mixture import GaussianMixture

from tfflows import CouplingRQNSF, FlowModel, datasets

TRUTH = datasets.FourModes1D()
GRID = np.linspace(-12.0, 12.0, 4801)[:, None]
STEP = GRID[1, 0] - GRID[0, 0]
N_STARTS = 20


def fit(x, *, quick: bool = False) -> FlowModel:
    """Four elementwise splines: what a coupling flow of one number is."""
    flow = FlowModel(CouplingRQNSF(1, n_layers=1 if quick else 4))
    epochs, batch_size = (2, 256) if quick else (300, 1024)
    flow.compile(falling(0.02, len(x), epochs, batch_size))
    flow.fit(x, epochs=epochs, batch_size=batch_size, verbose=0)
    return flow


def mixtures(x) -> list[GaussianMixture]:
    """Fits by expectation maximisation from different starts, the best first."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some do not converge
        found = [GaussianMixture(4, init_params="random_from_data", random_state=i).fit(x) for i in range(N_STARTS)]
    return sorted(found, key=lambda mixture: -mixture.score(x))


def divergence(log_density) -> float:
    """KL(truth | model) in nats, of log-densities on the grid."""
    log_truth = TRUTH.log_prob(GRID)
    return float(np.sum(np.exp(log_truth) * (log_truth - log_density)) * STEP)


def draw(x, flow, log_densities):
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.0), layout="constrained")
    left.hist(x[:, 0], bins=120, density=True, color="0.85", label="data")
    styles = {"Gaussian": ("0.4", ":", 1.5), "kernel density": ("0.4", "--", 1.2), "flow": ("k", "-", 1.5)}
    left.plot(GRID, np.exp(TRUTH.log_prob(GRID)), color="tab:orange", linewidth=5, alpha=0.5, label="truth")
    for name, (colour, style, width) in styles.items():
        left.plot(GRID, np.exp(log_densities[name]), color=colour, linestyle=style, linewidth=width, label=name)
    left.set(xlim=(-9.0, 8.5), xlabel="x", ylabel="density", title="densities")
    left.legend(frameon=False, fontsize=9)
    z = np.linspace(-3.5, 3.5, 1000)
    right.plot(z, flow.decode(z[:, None]).numpy()[:, 0], color="k")
    right.set(xlabel="latent z, standard normal", ylabel="x", title="the map from z to x, and draws through it")
    z = flow.base.sample([60], np.array([0, 1])).numpy()
    right.plot(z, np.full_like(z, -9.0), "|", color="k", markersize=10, clip_on=False)
    right.plot(np.full_like(z, -3.5), flow.decode(z), "_", color="k", markersize=10, clip_on=False)
    right.set(xlim=(-3.5, 3.5), ylim=(-9.0, 8.5))
    return figure


def main(output: Path, *, quick: bool) -> None:
    x = TRUTH.sample(500 if quick else 10_000, seed=0)
    flow = fit(x, quick=quick)
    every = mixtures(x)
    log_densities = {
        "Gaussian": stats.norm.logpdf(GRID[:, 0], x.mean(), x.std()),
        "kernel density": kernel_density(x)(GRID),
        "mixture, worst start": every[-1].score_samples(GRID),
        "mixture, best start": every[0].score_samples(GRID),
        "flow": flow.log_prob(GRID).numpy(),
    }
    below = np.exp(TRUTH.log_prob(GRID))[GRID[:, 0] < 0.0].sum() * STEP
    print(f"{'':<22}{'KL(truth | model)':>18}{'P(x < 0)':>10}\n{'truth':<22}{0.0:>18.4f}{below:>10.4f}")
    for name, log_density in log_densities.items():
        below = np.exp(log_density)[GRID[:, 0] < 0.0].sum() * STEP
        print(f"{name:<22}{divergence(log_density):>18.4f}{below:>10.4f}")
    print(f"The flow's own P(x < 0), by its cdf: {flow.cdf([[0.0]]).numpy()[0]:.4f}.")
    stuck = sum(mixture.score(x) < every[0].score(x) - 0.01 for mixture in every)
    print(f"{stuck} of {N_STARTS} starts of the mixture ended more than 0.01 nats below the best.")
    save(draw(x, flow, log_densities), output / "four_modes.png")


if __name__ == "__main__":
    run(main, __doc__)
