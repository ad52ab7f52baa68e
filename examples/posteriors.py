"""Posteriors of known answer by Monte Carlo with flows: Bayesian regression and the classical hard shapes.

    python examples/posteriors.py [--problem NAME ...] [--output DIR] [--quick]

Each problem is sampled by the samplers of `tfflows.inference` that fit it, and ends in numbers beside the truth, which
is exact (a formula or a quadrature) but for `credit`: there plain no-U-turn chains stand beside those of a flow.

    schools   eight schools, centred: a hierarchical regression whose posterior has a neck
    funnel    Neal's funnel in ten dimensions
    banana    a strongly twisted Gaussian
    modes4    4 separated modes of unequal weight in eight dimensions
    modes16   16 of them
    credit    logistic regression of German credit, 25 parameters

The picture `posteriors.png` has a panel for each: exact draws, or contours, beside the draws of a sampler.
"""

from __future__ import annotations

import argparse
import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import keras
import matplotlib
import numpy as np
from posterior_problems import (
    BANANA_DEVIATIONS,
    FUNNEL_LOG_EVIDENCE,
    Modes,
    banana_exact,
    banana_log_prob,
    credit_data,
    credit_target,
    funnel_log_prob,
    held_out,
    schools_exact,
    schools_target,
)
from scipy import stats

from tfflows import FlowModel, RealNVP
from tfflows.bijectors import Whiten
from tfflows.inference import Result, Target, flow_mh, importance, neutra_hmc, preconditioned_smc, variational

matplotlib.use("Agg")
from matplotlib import pyplot as plt

EXACT, DRAWN = "0.6", "tab:red"
N_SHOWN = 2000


class Row(NamedTuple):
    """One line of the table: what a sampler found of a quantity, beside the truth."""

    problem: str
    sampler: str
    quantity: str
    value: float
    truth: float
    trust: str  # the largest R-hat of all parameters, the Pareto k of the flow's weights
    evaluations: int
    gradients: int
    seconds: float


class Report(NamedTuple):
    """Rows of a problem, and what draws its panel on an axis."""

    rows: list[Row]
    panel: Callable


def rows(problem: str, sampler: str, result: Result, quantities: dict[str, tuple[float, float]]) -> list[Row]:
    """A row for each quantity: name to (value, truth)."""
    trust = []
    if "r_hat" in result.diagnostics:
        trust.append(f"R-hat {np.max(result.diagnostics['r_hat']):.3f}")
    if "pareto_k" in result.diagnostics:
        trust.append(f"k {result.diagnostics['pareto_k']:.2f}")
    cost = result.n_evaluations, result.n_gradients, result.seconds
    return [
        Row(problem, sampler, quantity, float(value), float(truth), ", ".join(trust), *cost)
        for quantity, (value, truth) in quantities.items()
    ]


def scatter(axis, exact, drawn, sampler, **labels):
    """Exact draws `[n, 2]` in grey below a sampler's."""
    axis.plot(*exact.T, ".", color=EXACT, markersize=3, label="exact draws", rasterized=True)
    axis.plot(*drawn.T, ".", color=DRAWN, markersize=1.5, label=sampler, rasterized=True)
    axis.margins(y=0.15)
    axis.set(**labels)
    axis.legend(loc="upper right", markerscale=4, fontsize=8)


def schools(quick: bool) -> Report:
    target = schools_target()
    exact, evidence = schools_exact(200_000, np.random.default_rng(0))

    def found(result):
        neck = np.sum(result.weights * (result.draws[..., 9] < 0.5))
        return {
            "mean of tau": (result.mean()[9], exact[:, 9].mean()),
            "P(tau < 0.5)": (neck, np.mean(exact[:, 9] < 0.5)),
            "mean of theta_1": (result.mean()[0], exact[:, 0].mean()),
        }

    # Where the fit begins: the prior without the far tail of its Cauchy, where gradients overflow.
    initial = target.sample_prior(4000, np.random.default_rng(1))
    initial = initial[initial[:, 9] < 20.0]
    # In the neck the scale of everything is tau: affine layers can follow, splines end somewhere.
    chains = neutra_hmc(
        target, flow=affine(10, quick), initial=initial, n_steps=100 if quick else 2000, **chain_budget(quick)
    )
    smc = preconditioned_smc(target, flow=affine(10, quick) if quick else None, **smc_budget(quick, 1024))
    table = rows("schools", "neutra_hmc", chains, found(chains))
    table += rows("schools", "preconditioned_smc", smc, found(smc) | {"log-evidence": (smc.log_evidence, evidence)})

    def panel(axis):
        pair = [np.stack([x[:N_SHOWN, 0], np.log(x[:N_SHOWN, 9])], axis=1) for x in (exact, chains.resampled(N_SHOWN))]
        scatter(axis, *pair, "neutra_hmc", title="eight schools", xlabel="effect in school 1", ylabel="log tau")

    return Report(table, panel)


def funnel(quick: bool) -> Report:
    target = Target(funnel_log_prob, 10)
    # One affine layer can be the funnel exactly: it scales the others by a function of v.
    chains = neutra_hmc(target, flow=affine(10, quick), n_steps=100 if quick else 3000, **chain_budget(quick))
    # The flow that the chains ran in, its draws weighted.
    weighted = importance(target, chains.flow, n_draws=500 if quick else 5000)
    table = []
    for name, result in (("neutra_hmc", chains), ("importance after it", weighted)):
        narrow = np.sum(result.weights * (result.draws[..., 0] < -3.0))
        found = {"deviation of v": (result.std()[0], 3.0), "P(v < -3)": (narrow, stats.norm.cdf(-1.0))}
        if result.log_evidence is not None:
            found["log-evidence"] = result.log_evidence, FUNNEL_LOG_EVIDENCE
        table += rows("funnel", name, result, found)
    rng = np.random.default_rng(0)
    v = rng.normal(0.0, 3.0, N_SHOWN)
    exact = np.stack([rng.normal(0.0, np.exp(v / 2.0)), v], axis=1)

    def panel(axis):
        scatter(axis, exact, chains.resampled(N_SHOWN)[:, 1::-1], "neutra_hmc", title="Neal's funnel", ylabel="v")
        axis.set(xlim=(-30, 30), ylim=(-12, 12), xlabel="first of the nine others")

    return Report(table, panel)


def banana(quick: bool) -> Report:
    target = Target(banana_log_prob, 2)
    rng = np.random.default_rng(0)
    flow = affine(2, quick)  # one layer can be the twist exactly
    weighted = variational(
        target,
        flow=flow,
        initial=rng.normal(0.0, 10.0, (2000, 2)),
        n_steps=100 if quick else 3000,
        n_rounds=1 if quick else 6,
        verbose=False,
    )
    # Chains in the latent space of the flow as it is: of tails that it has missed they know.
    chains = neutra_hmc(target, flow=flow, n_steps=0, **chain_budget(quick))
    table = []
    for name, result in (("variational", weighted), ("neutra_hmc after it", chains)):
        found = {f"deviation of x{i + 1}": (result.std()[i], BANANA_DEVIATIONS[i]) for i in range(2)}
        table += rows("banana", name, result, found)

    def panel(axis):
        pair = banana_exact(N_SHOWN, rng), chains.resampled(N_SHOWN)
        scatter(axis, *pair, "neutra_hmc", title="banana", xlabel="x1", ylabel="x2")

    return Report(table, panel)


def modes(n_modes: int, quick: bool) -> Report:
    problem = Modes(n_modes, 3 if quick else 8)
    target, name = problem.target(), f"modes{n_modes}"
    smc = preconditioned_smc(
        target, flow=affine(problem.n_dim, quick) if quick else None, **smc_budget(quick, 128 * n_modes)
    )
    # The flow knows all modes now, and chains that jump between them set the weights right.
    mixed = flow_mh(target, flow=smc.flow, initial=smc.resampled(1000), **mixed_budget(quick))
    evidence = {"log-evidence": (smc.log_evidence, problem.log_evidence)}
    table = []
    for sampler, result, more in (("preconditioned_smc", smc, evidence), ("flow_mh after it", mixed, {})):
        table += rows(name, sampler, result, {"weights' error [%]": (problem.error(result), 0.0)} | more)

    def panel(axis):
        title = f"{n_modes} modes in {problem.n_dim} dimensions"
        if n_modes <= 4:
            exact = problem.sample(N_SHOWN, np.random.default_rng(0))[:, :2]
            scatter(axis, exact, mixed.resampled(N_SHOWN)[:, :2], "flow_mh", title=title, xlabel="x1", ylabel="x2")
            return
        order = np.argsort(-problem.weights)
        axis.bar(range(n_modes), problem.weights[order], color=EXACT, label="exact weights")
        axis.plot(problem.shares(smc)[order], "o", color="tab:blue", fillstyle="none", label="preconditioned_smc")
        axis.plot(problem.shares(mixed)[order], ".", color=DRAWN, label="flow_mh")
        axis.set(title=title, xlabel="mode", ylabel="weight")
        axis.legend(loc="upper right", fontsize=8)

    return Report(table, panel)


def credit(quick: bool) -> Report:
    (x, y), test = credit_data()
    target = credit_target(x, y)
    chains = neutra_hmc(target, flow=affine(25, quick), n_steps=100 if quick else 1500, **chain_budget(quick))
    # The same chains with the identity as flow.
    plain = neutra_hmc(target, flow=FlowModel(Whiten(25)), n_steps=0, **chain_budget(quick))
    table, scores = [], held_out(plain.resampled(2000), *test)
    for name, result, truth in (("NUTS", plain, (np.nan, np.nan)), ("neutra_hmc", chains, scores)):
        accuracy, score = held_out(result.resampled(2000), *test)
        found = {"held-out accuracy": (accuracy, truth[0]), "held-out log score": (score, truth[1])}
        found["smallest bulk ESS"] = (np.min(result.diagnostics["ess_bulk"]), np.nan)
        table += rows("credit", name, result, found)
    distance = np.max(np.abs(chains.mean() - plain.mean()) / plain.std())
    table += rows("credit", "neutra_hmc", chains, {"largest difference of means [sd]": (distance, 0.0)})

    def panel(axis):
        axis.errorbar(range(25), plain.mean(), 2.0 * plain.std(), fmt="s", color=EXACT, elinewidth=4, label="NUTS")
        axis.errorbar(range(25), chains.mean(), 2.0 * chains.std(), fmt=".", color=DRAWN, label="neutra_hmc")
        axis.axhline(0.0, color="k", linewidth=0.5)
        axis.margins(y=0.2)
        axis.set(title="German credit, mean +- 2 sd", xlabel="coefficient", ylabel="log-odds of bad credit per sd")
        axis.legend(loc="upper right", fontsize=8)

    return Report(table, panel)


# Flows and budgets.


def affine(n_dim: int, quick: bool) -> FlowModel:
    return FlowModel(RealNVP(n_dim, n_layers=2 if quick else 4, hidden=(16,) if quick else (48, 48)))


def chain_budget(quick: bool) -> dict:
    n_draws, n_adapt = (50, 50) if quick else (1000, 500)
    # For so few draws compilation by XLA would take longer than they do.
    return {"n_draws": n_draws, "n_adapt": n_adapt, "n_chains": 4, "jit_compile": not quick, "verbose": False}


def mixed_budget(quick: bool) -> dict:
    n_walkers, n_rounds, n_draws = (32, 2, 50) if quick else (256, 15, 1000)
    counts = {"n_walkers": n_walkers, "n_rounds": n_rounds, "n_draws": n_draws, "n_chains": 8}
    return counts | {"n_local": 5, "n_global": 5, "verbose": False}


def smc_budget(quick: bool, n_effective: int) -> dict:
    n_effective, n_draws = (64, 32) if quick else (n_effective, 1000)
    return {"n_effective": n_effective, "n_active": n_effective // 2, "n_draws": n_draws, "verbose": False}


PROBLEMS = {
    "schools": schools,
    "funnel": funnel,
    "banana": banana,
    "modes4": functools.partial(modes, 4),
    "modes16": functools.partial(modes, 16),
    "credit": credit,
}


def main(output: Path, names: list[str] | None = None, *, quick: bool = False) -> list[Row]:
    """Samples the problems, prints their rows, and writes the picture; returns the rows."""
    names = names or list(PROBLEMS)
    unknown = sorted(set(names) - set(PROBLEMS))
    if unknown:
        raise ValueError(f"Expected problems of {list(PROBLEMS)}; got {unknown}.")
    output.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)
    n_columns = min(3, len(names))
    shape = -(-len(names) // n_columns), n_columns
    figure, axes = plt.subplots(*shape, figsize=(4.6 * shape[1], 4.2 * shape[0]), squeeze=False, layout="constrained")
    table = []
    print(HEADER)
    for name, axis in zip(names, axes.flat, strict=False):
        report = PROBLEMS[name](quick)
        report.panel(axis)
        table += report.rows
        for row in report.rows:
            print(line(row), flush=True)
    for axis in axes.flat[len(names) :]:
        axis.axis("off")
    picture = output / "posteriors.png"
    figure.savefig(picture, dpi=110)
    plt.close(figure)
    print(f"Picture: {picture}")
    return table


HEADER = (
    f"{'problem':<9}{'sampler':<20}{'quantity':<34}{'found':>9}{'truth':>9}  {'trust':<20}"
    f"{'evaluations':>12}{'gradients':>11}{'seconds':>8}"
)


def line(row: Row) -> str:
    truth = "-" if math.isnan(row.truth) else f"{row.truth:.3f}"
    return (
        f"{row.problem:<9}{row.sampler:<20}{row.quantity:<34}{row.value:>9.3f}{truth:>9}  {row.trust:<20}"
        f"{row.evaluations:>12,}{row.gradients:>11,}{row.seconds:>8.0f}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problem", nargs="+", choices=list(PROBLEMS), help="by default all")
    parser.add_argument("--output", type=Path, default=Path("output"), help="folder for the picture")
    parser.add_argument("--quick", action="store_true", help="tiny budgets, whose numbers mean little")
    arguments = parser.parse_args()
    main(arguments.output, arguments.problem, quick=arguments.quick)
