"""Simulation-based inference: a conditional flow learns a posterior from simulations alone, and is checked.

Neural posterior estimation draws parameters theta from the prior, simulates data x from each, and fits a flow of theta
with x as context by maximum likelihood. No likelihood is evaluated, and the fitted flow answers for any x at once. Two
tasks whose exact posterior can be drawn from tell how right it is: "two moons", and a Gaussian with a Gaussian prior.

    python examples/neural_posterior.py [--output DIR] [--quick]

It prints the classifier two-sample test against exact draws (0.5: no classifier tells them apart) beside published
figures, the p-values of simulation-based calibration, and how often central intervals hold the truth.

References:
  Papamakarios & Murray (2016), https://arxiv.org/abs/1605.06376 (neural posterior estimation);
  Lueckmann, Boelts, Greenberg, Goncalves & Macke (2021), https://arxiv.org/abs/2101.04653 (tasks and figures);
  Talts, Betancourt, Simpson, Vehtari & Gelman (2018), https://arxiv.org/abs/1804.06788 (calibration)
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import NamedTuple

import keras
import matplotlib
import numpy as np
from scipy import stats

from tfflows import Chain, CouplingRQNSF, FlowModel
from tfflows.bijectors import Bounded
from tfflows.inference import diagnostics

matplotlib.use("Agg")
from matplotlib import pyplot as plt

LEVELS = np.array([0.5, 0.8, 0.95])
# Mean C2ST of neural posterior estimation over the ten observations of each task, by number of simulations:
# github.com/sbi-benchmark/results, benchmarking_sbi/results/main_paper.csv (MIT licence).
PUBLISHED = {
    "two moons": {1_000: 0.725, 10_000: 0.606, 100_000: 0.542},
    "Gaussian linear": {1_000: 0.694, 10_000: 0.552, 100_000: 0.506},
}


class TwoMoons:
    """theta uniform in [-1, 1]^2; x a point of a thin crescent, shifted by theta: `[n, 2]` both.

    The posterior is two crescents, one for each sign of theta_1 + theta_2, cut off where the prior ends.
    """

    name, n_dim, bounds = "two moons", 2, ([-1.0, -1.0], [1.0, 1.0])

    def prior(self, n, rng):
        return rng.uniform(-1.0, 1.0, (n, 2))

    def simulate(self, theta, rng):
        total, difference = _turned(theta)
        return self._crescent(len(theta), rng) + np.stack([-np.abs(total), difference], axis=1)

    def posterior(self, x, n, rng):
        """`n` exact draws for one x `[2]`.

        Shift and theta are one to one but for the sign of theta_1 + theta_2, with a Jacobian of 1, and the prior is
        flat: so the shift is x minus a point of the crescent, if some theta of the prior has that shift.
        """
        parts, n_found, n_tried = [], 0, 0
        while n_found < n:
            shift = x - self._crescent(4 * n, rng)
            total, difference = -shift[:, 0] * rng.choice([-1.0, 1.0], 4 * n), shift[:, 1]
            theta = np.stack([total - difference, total + difference], axis=1) / np.sqrt(2.0)
            parts.append(theta[(shift[:, 0] <= 0.0) & np.all(np.abs(theta) <= 1.0, axis=1)])
            n_found, n_tried = n_found + len(parts[-1]), n_tried + 4 * n
            if n_tried >= 400 * n > 200 * n_found:
                raise ValueError(f"Expected x that the simulator gives; got {np.asarray(x).tolist()}.")
        return np.concatenate(parts)[:n]

    def _crescent(self, n, rng):
        angle, radius = rng.uniform(-np.pi / 2.0, np.pi / 2.0, n), rng.normal(0.1, 0.01, n)
        return np.stack([radius * np.cos(angle) + 0.25, radius * np.sin(angle)], axis=1)


def _turned(theta):
    """(theta_1 + theta_2) / sqrt 2 and (theta_2 - theta_1) / sqrt 2."""
    return (theta[:, 0] + theta[:, 1]) / np.sqrt(2.0), (theta[:, 1] - theta[:, 0]) / np.sqrt(2.0)


class GaussianLinear:
    """theta normal with variance 0.1, x normal around theta with variance 0.1: `[n, 10]` both.

    The posterior is normal around x / 2, with variance 0.05.
    """

    name, n_dim, bounds = "Gaussian linear", 10, None

    def prior(self, n, rng):
        return rng.normal(0.0, np.sqrt(0.1), (n, self.n_dim))

    def simulate(self, theta, rng):
        return theta + rng.normal(0.0, np.sqrt(0.1), theta.shape)

    def posterior(self, x, n, rng):
        """`n` exact draws for one x `[10]`."""
        return x / 2.0 + rng.normal(0.0, np.sqrt(0.05), (n, self.n_dim))


class Budget(NamedTuple):
    """What is spent on a task.

    Args:
      n_simulations: to learn from, several numbers one after another; the last flow is calibrated and drawn.
      epochs: of each fit; the learning rate falls to zero over them.
      n_observations: on which draws are compared with exact ones.
      n_draws: of each side of that comparison.
      n_calibration: simulations that calibration is tested on.
      n_layers: of the flow.
    """

    n_simulations: tuple[int, ...]
    epochs: tuple[int, ...]
    n_observations: int
    n_draws: int
    n_calibration: int
    n_layers: int = 6


class Report(NamedTuple):
    """What was found of a task.

    Args:
      c2st: number of simulations to the C2ST of each observation.
      p_values: `[d]`, chi-squared test that the ranks of each parameter are uniform.
      ranks: `[n_calibration, d]`, of the truth among draws.
      m: how many draws; ranks are in 0 .. m.
      covered: `[levels, d]`, how often central intervals of `LEVELS` hold the truth.
      seconds: number of simulations to the wall time of the fit.
      shown: for each observation (draws of the flow, exact draws).
    """

    c2st: dict[int, np.ndarray]
    p_values: np.ndarray
    ranks: np.ndarray
    m: int
    covered: np.ndarray
    seconds: dict[int, float]
    shown: list[tuple[np.ndarray, np.ndarray]]


def fit(task, n: int, epochs: int, n_layers: int, rng) -> FlowModel:
    """A flow of theta given x, of `n` simulations; a tenth is held out to choose the best epoch."""
    theta = task.prior(n, rng)
    x = task.simulate(theta, rng)
    n_dim, batch_size, n_held_out = task.n_dim, 256, n // 10
    layers = CouplingRQNSF(n_dim, n_layers=n_layers, hidden=(64, 64), context_dim=n_dim)
    # Where the prior has bounds the flow has them too: no draw leaks out, and an edge in theta is a tail of the logit.
    flow = FlowModel(layers if task.bounds is None else Chain([Bounded(*task.bounds), layers]))
    n_steps = epochs * -(-(n - n_held_out) // batch_size)
    schedule = keras.optimizers.schedules.CosineDecay(0.0, n_steps, warmup_target=2e-3, warmup_steps=n_steps // 20)
    flow.compile(keras.optimizers.Adam(schedule, global_clipnorm=5.0))
    best = keras.callbacks.EarlyStopping(patience=epochs, restore_best_weights=True)
    flow.fit(
        theta[n_held_out:],
        x[n_held_out:],
        validation_data=(theta[:n_held_out], x[:n_held_out]),
        batch_size=batch_size,
        epochs=epochs,
        callbacks=[best],
        verbose=0,
    )
    return flow


def rank_p_values(ranks: np.ndarray, m: int, n_bins: int = 20) -> np.ndarray:
    """p-values `[d]` of a chi-squared test that ranks `[n, d]` in 0 .. m are uniform; n_bins divides m + 1."""
    if (m + 1) % n_bins:
        raise ValueError(f"Expected a number of bins that divides {m + 1} ranks; got {n_bins}.")
    bins = ranks * n_bins // (m + 1)
    return np.array([stats.chisquare(np.bincount(column, minlength=n_bins)).pvalue for column in bins.T])


def study(task, budget: Budget, seed: int = 0) -> Report:
    """Fits flows to simulations, and compares their draws with the exact posterior and with their own promise."""
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    observations = task.simulate(task.prior(budget.n_observations, rng), rng)
    c2st, seconds = {}, {}
    for n, epochs in zip(budget.n_simulations, budget.epochs, strict=True):
        start = time.perf_counter()
        flow = fit(task, n, epochs, budget.n_layers, rng)
        seconds[n] = time.perf_counter() - start
        draws = flow.sample(budget.n_draws, observations, seed=seed).numpy()
        shown = [(draws[:, i], task.posterior(x, budget.n_draws, rng)) for i, x in enumerate(observations)]
        c2st[n] = np.array([diagnostics.two_sample(*pair, seed=seed) for pair in shown])
    truth, m = task.prior(budget.n_calibration, rng), 999
    draws = np.swapaxes(flow.sample(m, task.simulate(truth, rng), seed=seed + 1).numpy(), 0, 1)
    ranks = diagnostics.ranks(draws, truth)
    covered = diagnostics.coverage(draws, truth, LEVELS)
    return Report(c2st, rank_p_values(ranks, m), ranks, m, covered, seconds, shown)


def draw(reports: dict[str, Report], path: Path) -> None:
    """The four narrowest posteriors of two moons beside exact draws; for each task ranks and coverage."""
    figure, axes = plt.subplots(2, 4, figsize=(15, 7), layout="constrained")
    moons = reports[TwoMoons.name]
    found = [(*pair, c2st) for pair, c2st in zip(moons.shown, list(moons.c2st.values())[-1], strict=True)]
    found.sort(key=lambda each: np.ptp(each[1], axis=0).max())  # where the moons are close more can be seen of them
    for axis, (drawn, exact, c2st) in zip(axes[:, :2].flat, found, strict=False):
        axis.plot(*exact[:2000].T, ".", color="0.6", markersize=3, label="exact", rasterized=True)
        axis.plot(*drawn[:2000].T, ".", color="tab:red", markersize=1.5, label="flow", rasterized=True)
        axis.set(title=f"two moons: C2ST {c2st:.3f}", xlabel="theta 1", ylabel="theta 2")
        axis.legend(markerscale=4)
    for axis, (name, report) in zip(axes[:, 2], reports.items(), strict=True):
        n_bins, n = 20, len(report.ranks)
        edges = np.linspace(0, report.m + 1, n_bins + 1)
        low, high = stats.binom.interval(0.95, n, 1.0 / n_bins)
        axis.axhspan(low, high, color="0.85", label="95 % of a uniform")
        for i, column in enumerate(report.ranks.T):
            axis.stairs(np.histogram(column, edges)[0], edges, alpha=0.7, label=f"theta {i + 1}" if i < 2 else None)
        axis.set(title=f"{name}: ranks of the truth", xlabel=f"rank among {report.m} draws", ylabel="simulations")
        axis.set(ylim=(0, 2.2 * n / n_bins))
        axis.legend(loc="lower right", fontsize=8)
    for axis, (name, report) in zip(axes[:, 3], reports.items(), strict=True):
        axis.plot([0, 1], [0, 1], color="0.6", label="right")
        levels = np.linspace(0.0, 1.0, 41)
        # The share of central intervals that hold the truth, from how far its rank is from the middle.
        away = np.abs(2.0 * (report.ranks + 0.5) / (report.m + 1) - 1.0)
        axis.plot(levels, np.mean(away < levels[:, None, None], axis=1), color="tab:red", alpha=0.5)
        axis.plot(LEVELS, report.covered.mean(axis=1), "ok", label="mean of parameters")
        axis.set(title=f"{name}: coverage", xlabel="level of the central interval", ylabel="holds the truth")
        axis.legend(loc="lower right", fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(output: Path, *, quick: bool = False) -> dict[str, Report]:
    """Studies both tasks, prints what was found, and writes the picture; returns a report of each task by its name."""
    output.mkdir(parents=True, exist_ok=True)
    if quick:
        budgets = [Budget((1_000,), (20,), 2, 80, 100, n_layers=2)] * 2
    else:
        moons = Budget((10_000, 100_000), (40, 25), 10, 3000, 1000)
        # Fewer layers: of 10,000 simulations more learn some by heart.
        budgets = [moons, Budget((10_000, 100_000), (12, 8), 5, 2000, 1000, n_layers=2)]
    reports = {}
    for task, budget in zip((TwoMoons(), GaussianLinear()), budgets, strict=True):
        report = reports[task.name] = study(task, budget)
        print(
            f"\n{task.name}: C2ST against {budget.n_draws:,} exact draws, mean of {budget.n_observations} observations"
        )
        for n, each in report.c2st.items():
            horizon = f"published {PUBLISHED[task.name][n]:.3f}"
            print(f"  {n:>7,} simulations  {each.mean():.3f} ({each.min():.3f} to {each.max():.3f})  {horizon}", end="")
            print(f"  fitted in {report.seconds[n]:.0f} s")
        n_tests = len(report.p_values)
        print(f"  calibration, {budget.n_calibration:,} simulations: ranks are uniform with p = ", end="")
        print(f"{min(1.0, n_tests * report.p_values.min()):.3f} (Bonferroni, {n_tests} parameters)")
        for level, covered in zip(LEVELS, report.covered, strict=True):
            print(f"  central {level:.0%} intervals hold the truth in {covered.mean():.1%}")
    picture = output / "neural_posterior.png"
    draw(reports, picture)
    print(f"\nPicture: {picture}")
    return reports


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("output"), help="folder for the picture")
    parser.add_argument("--quick", action="store_true", help="few simulations, whose numbers mean little")
    arguments = parser.parse_args()
    main(arguments.output, quick=arguments.quick)
