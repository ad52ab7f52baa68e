"""A posterior of two parameters: how deadly is the dose? Beside the exact answer, from a grid.

Of twenty animals, five at each of four doses, 0, 1, 3 and 5 died (Racine et al. 1986; Gelman et al. 2013, section 3.7).
The log-odds of death are alpha + beta * log dose. Two numbers can be integrated on a grid, so every answer is known:
posterior means, deviations, the evidence, and the dose that kills half, LD50 = -alpha / beta.

    python examples/gallery/posterior.py [--output DIR] [--quick]

`variational` fits a flow to the unnormalised density, then weights its draws. The density is not Gaussian: Laplace's
approximation, the Gaussian at the mode, stands beside it. Larger posteriors: examples/posteriors.py and
gravitational_waves.py.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from gallery import run, save
from matplotlib import pyplot as plt
from scipy import stats
from scipy.special import expit, logsumexp

from tfflows import FlowModel, RealNVP, inference

LOG_DOSE = np.array([-0.86, -0.30, -0.05, 0.73], np.float32)  # log g/ml
ANIMALS = np.full(4, 5.0, np.float32)
DEATHS = np.array([0.0, 1.0, 3.0, 5.0], np.float32)
DEVIATIONS = np.array([2.0, 10.0], np.float32)  # of the prior, a normal
PRIOR = tfp.distributions.MultivariateNormalDiag(np.zeros(2, np.float32), DEVIATIONS)


def log_likelihood(x):
    """Of rows (alpha, beta) `[n, 2]`: `[n]`, without the binomial coefficients."""
    log_odds = x[:, :1] + x[:, 1:] * LOG_DOSE
    return tf.reduce_sum(DEATHS * log_odds - ANIMALS * tf.nn.softplus(log_odds), axis=-1)


def on_grid(target):
    """The grid's axes, and the normalised density on it, `[len(beta), len(alpha)]`, and the log-evidence."""
    alpha, beta = np.linspace(-6.0, 10.0, 801), np.linspace(-30.0, 60.0, 900)
    points = np.stack(np.meshgrid(alpha, beta), axis=-1).reshape(-1, 2).astype(np.float32)
    log_joint = np.asarray(target.log_prob(points), np.float64).reshape(len(beta), len(alpha))
    cell = (alpha[1] - alpha[0]) * (beta[1] - beta[0])
    log_evidence = logsumexp(log_joint) + np.log(cell)
    return alpha, beta, np.exp(log_joint - log_evidence), log_evidence


def answers(x, weights) -> list[float]:
    """Mean and deviation of alpha, of beta, and P(LD50 > 1 g/ml) if beta > 0, of weighted points `[n, 2]`."""
    mean = np.average(x, axis=0, weights=weights)
    deviation = np.sqrt(np.average((x - mean) ** 2, axis=0, weights=weights))
    kills = x[:, 1] > 0.0
    above = np.average(x[kills, 0] < 0.0, weights=weights[kills])
    return [mean[0], deviation[0], mean[1], deviation[1], above]


def laplace() -> tuple[np.ndarray, np.ndarray]:
    """Mode and covariance of the Gaussian there, by Newton's method."""
    design, precision, x = np.stack([np.ones(4), LOG_DOSE], axis=1), np.diag(DEVIATIONS**-2.0), np.zeros(2)
    for _ in range(50):
        p = expit(design @ x)
        hessian = design.T @ (design * (ANIMALS * p * (1.0 - p))[:, None]) + precision
        x = x + np.linalg.solve(hessian, design.T @ (DEATHS - ANIMALS * p) - precision @ x)
    return x, np.linalg.inv(hessian)


def draw(alpha, beta, densities, drawn):
    """The grid's density and Laplace's, the flow's draws, and what each says of LD50."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.0, 4.0), layout="constrained")
    left.scatter(*drawn[:2000].T, s=2, color="tab:orange", linewidths=0, rasterized=True, label="draws of the flow")
    for (name, density), style in zip(densities.items(), ("-", ":"), strict=True):
        heights = np.sort(density, axis=None)[::-1]
        shares = np.cumsum(heights) / heights.sum()
        levels = [heights[np.searchsorted(shares, share)] for share in (0.99, 0.9, 0.5)]
        left.contour(alpha, beta, density, levels, colors="k", linewidths=1.2, linestyles=style)
        left.plot([], [], "k", linestyle=style, label=f"{name}: 50, 90, 99 %")
    left.set(xlabel="alpha", ylabel="beta", xlim=(-2.5, 4.5), ylim=(-5.0, 25.0), title="posterior")
    left.legend(frameon=False, loc="upper left", fontsize=9)
    edges = np.linspace(-0.5, 0.4, 61)
    points = np.stack(np.meshgrid(alpha, beta), axis=-1).reshape(-1, 2)
    for name, x, weights, style in (
        ("grid", points, densities["grid"].ravel(), {"color": "0.8", "histtype": "stepfilled"}),
        ("flow", drawn, np.ones(len(drawn)), {"color": "k", "histtype": "step"}),
        ("Laplace", points, densities["Laplace"].ravel(), {"color": "k", "histtype": "step", "linestyle": ":"}),
    ):
        kills = x[:, 1] > 0.0
        right.hist(-x[kills, 0] / x[kills, 1], edges, weights=weights[kills], density=True, label=name, **style)
    right.set(xlabel="LD50, log g/ml", ylabel="density", title="the dose that kills half")
    right.legend(frameon=False)
    return figure


def main(output: Path, *, quick: bool) -> None:
    target = inference.Target(log_likelihood, prior=PRIOR, names=["alpha", "beta"])
    flow = FlowModel(RealNVP(2, n_layers=2 if quick else 6, hidden=(32, 32)))
    sizes = {"n_draws": 250, "n_steps": 20, "n_rounds": 1} if quick else {"n_draws": 5000, "n_steps": 1000}
    result = inference.variational(target, flow=flow, verbose=False, **sizes)
    alpha, beta, density, log_evidence = on_grid(target)
    mode, covariance = laplace()
    points = np.stack(np.meshgrid(alpha, beta), axis=-1)
    normal = stats.multivariate_normal(mode, covariance)
    densities = {"grid": density, "Laplace": normal.pdf(points)}
    of_laplace = float(target.log_prob(mode[None].astype(np.float32))[0]) - normal.logpdf(mode)
    rows = [(name, answers(points.reshape(-1, 2), d.ravel())) for name, d in densities.items()]
    rows.insert(1, ("flow", answers(result.draws.reshape(-1, 2), result.weights.ravel())))
    of_flow = f"{result.log_evidence:.4f} +- {result.log_evidence_error:.4f}"
    print(f"{'':<9}{'alpha':>15}{'beta':>15}{'P(LD50 > 1 g/ml)':>18}{'log-evidence':>20}")
    for (name, found), evidence in zip(rows, (f"{log_evidence:.4f}", of_flow, f"{of_laplace:.4f}"), strict=True):
        pairs = [f"{found[i]:.3f} +- {found[i + 1]:.3f}" for i in (0, 2)]
        print(f"{name:<9}{pairs[0]:>15}{pairs[1]:>15}{found[4]:>18.4f}{evidence:>20}")
    print(f"Pareto k {result.diagnostics['pareto_k']:.2f}, {result.n_evaluations} log-densities.")
    save(draw(alpha, beta, densities, result.resampled(10_000)), output / "posterior.png")


if __name__ == "__main__":
    run(main, __doc__)
