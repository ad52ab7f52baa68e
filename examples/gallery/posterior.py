"""A posterior of two parameters: how deadly is the dose? Beside the exact answer, from a grid.

Of twenty animals, five at each of four doses, 0, 1, 3 and 5 died (Racine et al. 1986). The log-odds of death are
alpha + beta * log dose. Two numbers can be integrated on a grid, so every answer is known: posterior means, deviations,
the evidence, and the dose that kills half, LD50 = -alpha / beta.

    python examples/gallery/posterior.py [--output DIR] [--quick]

`variational` fits a flow to the unnormalised density, then weights its draws. The density is not Gaussian: Laplace's
approximation, the Gaussian at the mode, stands beside it. Larger posteriors: examples/posteriors.py and
gravitational_waves.py.

Reference:
  Gelman et al. (2013), Bayesian data analysis, section 3.7
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from gallery import run, save
from matplotlib import pyplot as plt
from scipy import optimize
from scipy.special import logsumexp

from tfflows import CouplingRQNSF, FlowModel, inference

LOG_DOSE = np.array([-0.86, -0.30, -0.05, 0.73], np.float32)  # log g/ml
ANIMALS = np.full(4, 5.0, np.float32)
DEATHS = np.array([0.0, 1.0, 3.0, 5.0], np.float32)
PRIOR = tfp.distributions.MultivariateNormalDiag(np.zeros(2, np.float32), np.array([2.0, 10.0], np.float32))


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
    """Means and deviations of alpha and beta, and of LD50 where beta > 0, of weighted points `[n, 2]`."""
    kills = x[:, 1] > 0.0
    found = []
    for values, w in ((x[:, 0], weights), (x[:, 1], weights), (-x[kills, 0] / x[kills, 1], weights[kills])):
        mean = np.average(values, weights=w)
        found += [mean, np.sqrt(np.average((values - mean) ** 2, weights=w))]
    return found


def laplace(target):
    """Mode and covariance of the Gaussian there, and its log-evidence."""

    def loss_and_slope(x):
        value, slope = tfp.math.value_and_gradient(lambda y: -target.log_prob(y[None])[0], tf.constant(x, tf.float32))
        return float(value), slope.numpy().astype(np.float64)

    mode = optimize.minimize(loss_and_slope, np.array([0.5, 5.0]), jac=True).x
    with tf.GradientTape() as tape:
        x = tf.constant(mode, tf.float32)
        tape.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            loss = -target.log_prob(x[None])[0]
        slope = inner.gradient(loss, x)
    covariance = np.linalg.inv(tape.jacobian(slope, x).numpy())
    return mode, covariance, -float(loss) + 0.5 * np.linalg.slogdet(2.0 * np.pi * covariance)[1]


def draw(alpha, beta, density, drawn, normal):
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.0, 4.0), layout="constrained")
    heights = np.sort(density.ravel())[::-1]
    shares = np.cumsum(heights) / heights.sum()
    levels = [heights[np.searchsorted(shares, share)] for share in (0.99, 0.9, 0.5)]
    left.scatter(*drawn[:2000].T, s=2, color="tab:orange", linewidths=0, rasterized=True, label="draws of the flow")
    left.contour(alpha, beta, density, levels, colors="k", linewidths=1.2)
    angle = np.linspace(0.0, 2.0 * np.pi, 200)
    factor = np.linalg.cholesky(np.cov(normal.T)) @ np.stack([np.cos(angle), np.sin(angle)])
    for share in (0.5, 0.9, 0.99):
        left.plot(*(normal.mean(axis=0)[:, None] + np.sqrt(-2.0 * np.log(1.0 - share)) * factor), "k:", linewidth=1)
    left.plot([], [], "k-", label="grid: 50, 90, 99 %")
    left.plot([], [], "k:", label="Laplace")
    left.set(xlabel="alpha", ylabel="beta", xlim=(-2.5, 4.5), ylim=(-5.0, 25.0), title="posterior")
    left.legend(frameon=False, loc="upper left", fontsize=9)
    edges = np.linspace(-0.5, 0.4, 61)
    points = np.stack(np.meshgrid(alpha, beta), axis=-1).reshape(-1, 2)
    kinds = (
        ("grid", points, density.ravel(), {"color": "0.8", "histtype": "stepfilled"}),
        ("flow", drawn, None, {"color": "k", "histtype": "step"}),
        ("Laplace", normal, None, {"color": "k", "histtype": "step", "linestyle": ":"}),
    )
    for name, x, weights, style in kinds:
        kills = x[:, 1] > 0.0
        weights = None if weights is None else weights[kills]
        right.hist(-x[kills, 0] / x[kills, 1], edges, weights=weights, density=True, label=name, **style)
    right.set(xlabel="LD50, log g/ml", ylabel="density", title="the dose that kills half")
    right.legend(frameon=False)
    return figure


def main(output: Path, *, quick: bool) -> None:
    target = inference.Target(log_likelihood, prior=PRIOR, names=["alpha", "beta"])
    alpha, beta, density, log_evidence = on_grid(target)
    sizes = {"n_draws": 250, "n_steps": 20, "n_rounds": 1} if quick else {"n_draws": 5000, "n_steps": 1000, "n_rounds": 2}
    flow = FlowModel(CouplingRQNSF(2, n_layers=2 if quick else 4, hidden=(32, 32)))
    result = inference.variational(target, flow=flow, verbose=False, **sizes)
    mode, covariance, laplace_evidence = laplace(target)
    points = np.stack(np.meshgrid(alpha, beta), axis=-1).reshape(-1, 2)
    normal = np.random.default_rng(0).multivariate_normal(mode, covariance, 20_000)
    print(f"{'':<10}{'alpha':>14}{'beta':>15}{'LD50, log g/ml':>18}{'log-evidence':>18}")
    for name, found, evidence in (
        ("grid", answers(points, density.ravel()), f"{log_evidence:.3f}"),
        ("flow", answers(result.draws.reshape(-1, 2), result.weights.ravel()),
         f"{result.log_evidence:.3f} +- {result.log_evidence_error:.3f}"),
        ("Laplace", answers(normal, np.ones(len(normal))), f"{laplace_evidence:.3f}"),
    ):  # fmt: skip
        pairs = [f"{found[i]:.2f} +- {found[i + 1]:.2f}" for i in (0, 2, 4)]
        print(f"{name:<10}{pairs[0]:>14}{pairs[1]:>15}{pairs[2]:>18}{evidence:>18}")
    save(draw(alpha, beta, density, result.resampled(10_000), normal), output / "posterior.png")
    print(f"Pareto k {result.diagnostics['pareto_k']:.2f}, {result.n_evaluations} log-densities in {result.seconds:.0f} s.")


if __name__ == "__main__":
    run(main, __doc__)
