"""The densities that `posteriors.py` samples, and their exact answers."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from scipy.special import expit, logsumexp

from tfflows.inference import Result, Target

tfd, tfb = tfp.distributions, tfp.bijectors
CREDIT = Path(__file__).parent / "data" / "german_credit.npz"

# Eight schools: estimated effects of coaching on a test's score, in points, and their standard errors.

EFFECTS = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERRORS = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


def schools_target() -> Target:
    """Effects theta of coaching in eight schools, their mean mu and spread tau, `[n, 10]`; centred.

    theta ~ normal(mu, tau), mu ~ normal(0, 5), tau ~ half-Cauchy(5); data ~ normal(theta, ERRORS).

    Reference:
      Rubin (1981), Estimation in parallel randomized experiments; Betancourt & Girolami (2013), Hamiltonian Monte Carlo
      for hierarchical models, https://arxiv.org/abs/1312.0906
    """
    effects, errors = EFFECTS.astype(np.float32), ERRORS.astype(np.float32)
    spread = tfb.Inline(
        forward_fn=lambda u: tf.concat([u[..., 8:9] + u[..., 9:] * u[..., :8], u[..., 8:]], axis=-1),
        inverse_fn=lambda x: tf.concat([(x[..., :8] - x[..., 8:9]) / x[..., 9:], x[..., 8:]], axis=-1),
        inverse_log_det_jacobian_fn=lambda x: -8.0 * tf.math.log(x[..., 9]),
        forward_min_event_ndims=1,
    )
    parts = [tfd.Normal(np.zeros(8, np.float32), 1.0), tfd.Normal([0.0], 5.0), tfd.HalfCauchy([0.0], 5.0)]
    prior = tfd.TransformedDistribution(tfd.Blockwise([tfd.Independent(part, 1) for part in parts]), spread)

    def log_likelihood(x):
        return tf.reduce_sum(tfd.Normal(x[:, :8], errors).log_prob(effects), axis=-1)

    # The prior's own bijector would undo the neck.
    domain = [(None, None)] * 9 + [(0.0, None)]
    names = [f"theta_{i}" for i in range(1, 9)] + ["mu", "tau"]
    return Target(log_likelihood, prior=prior, domain=domain, names=names)


def schools_exact(n: int, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """`n` exact draws `[n, 10]` and the log-evidence: given tau all is Gaussian, and tau is one number."""
    angle = (np.arange(20_000) + 0.5) / 20_000 * np.pi / 2.0  # uniform under the prior of tau
    tau = 5.0 * np.tan(angle)[:, np.newaxis]
    precision = 1.0 / (ERRORS**2 + tau**2)
    total = np.sum(precision, axis=1) + 1.0 / 25.0
    mean = np.sum(precision * EFFECTS, axis=1) / total
    # The data's density given tau: normal, mu integrated out.
    squares = np.sum(precision * EFFECTS**2, axis=1) - total * mean**2
    log_prob = 0.5 * (
        np.sum(np.log(precision), axis=1) - 8.0 * math.log(2.0 * math.pi) - np.log(25.0 * total) - squares
    )
    evidence = logsumexp(log_prob) - math.log(len(tau))
    chosen = rng.choice(len(tau), n, p=np.exp(log_prob - logsumexp(log_prob)))
    mu = rng.normal(mean[chosen], 1.0 / np.sqrt(total[chosen]))[:, np.newaxis]
    tau = tau[chosen]
    precision = 1.0 / ERRORS**2 + 1.0 / tau**2
    theta = rng.normal((EFFECTS / ERRORS**2 + mu / tau**2) / precision, 1.0 / np.sqrt(precision))
    return np.concatenate([theta, mu, tau], axis=1), float(evidence)


# Neal's funnel.

FUNNEL_LOG_EVIDENCE = math.log(3.0) + 5.0 * math.log(2.0 * math.pi)


def funnel_log_prob(x):
    """v ~ normal(0, 3), nine more ~ normal(0, e^(v/2)): `[n, 10]` to `[n]` (Neal 2003, Slice sampling)."""
    v, others = x[:, :1], x[:, 1:]
    return -(v[:, 0] ** 2) / 18.0 - 0.5 * tf.reduce_sum(others**2 * tf.exp(-v) + v, axis=-1)


# Banana.

TWIST = 0.1
BANANA_DEVIATIONS = (10.0, math.sqrt(1.0 + 2.0 * (TWIST * 100.0) ** 2))


def banana_log_prob(x):
    """x1 ~ normal(0, 10), x2 ~ normal(TWIST (x1^2 - 100), 1): means 0 and `BANANA_DEVIATIONS`; `[n, 2]` to `[n]`.

    Reference:
      Haario, Saksman & Tamminen (1999), Adaptive proposal distribution for random walk Metropolis algorithm
    """
    return -0.5 * ((x[:, 0] / 10.0) ** 2 + (x[:, 1] - TWIST * (x[:, 0] ** 2 - 100.0)) ** 2)


def banana_exact(n: int, rng: np.random.Generator) -> np.ndarray:
    x1 = rng.normal(0.0, 10.0, n)
    return np.stack([x1, rng.normal(TWIST * (x1**2 - 100.0), 1.0)], axis=1)


# Separated modes.

HALF_BOX, CENTRES_WITHIN, WIDTH = 10.0, 7.0, 0.4


class Modes:
    """Gaussian modes of deviation `WIDTH` and unequal weight in a box of eight dimensions, with a uniform prior.

    Args:
      n_modes: how many; centres and weights are drawn from a seed.
    """

    def __init__(self, n_modes: int, n_dim: int = 8):
        rng = np.random.default_rng(n_modes)
        self.n_dim = n_dim
        self.centres = rng.uniform(-CENTRES_WITHIN, CENTRES_WITHIN, (n_modes, n_dim)).astype(np.float32)
        self.weights = rng.dirichlet(np.full(n_modes, 5.0))
        self.log_evidence = -n_dim * math.log(2.0 * HALF_BOX)

    def log_likelihood(self, x):
        constant = np.log(self.weights) - self.n_dim * math.log(WIDTH * math.sqrt(2.0 * math.pi))
        squares = tf.reduce_sum(((x[:, tf.newaxis] - self.centres) / WIDTH) ** 2, axis=-1)
        return tf.reduce_logsumexp(constant.astype(np.float32) - 0.5 * squares, axis=-1)

    def target(self) -> Target:
        half = np.full(self.n_dim, HALF_BOX, np.float32)
        return Target(self.log_likelihood, prior=tfd.Independent(tfd.Uniform(-half, half), 1))

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """`n` exact draws `[n, n_dim]`."""
        return rng.normal(self.centres[rng.choice(len(self.weights), n, p=self.weights)], WIDTH)

    def shares(self, result: Result) -> np.ndarray:
        """The share of draws nearest to each centre, `[n_modes]`: the modes do not overlap."""
        x = result.draws.reshape(-1, self.n_dim)
        nearest = np.argmin(((x[:, np.newaxis] - self.centres) ** 2).sum(axis=-1), axis=1)
        return np.bincount(nearest, result.weights.ravel(), len(self.weights))

    def error(self, result: Result) -> float:
        """How far the shares are from the weights, on the mean, in percent of these."""
        return float(100.0 * np.mean(np.abs(self.shares(result) / self.weights - 1.0)))


# Logistic regression of German credit.


def credit_data() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """(x `[n, 25]`, y `[n]`) to fit and held out, 800 and 200 rows; y is 1 for bad credit, the first column is 1."""
    with np.load(CREDIT) as arrays:
        x, y = arrays["x"], arrays["is_bad"].astype(np.float32)
    order = np.random.default_rng(0).permutation(len(x))
    x = np.concatenate([np.ones([len(x), 1], np.float32), x], axis=1)[order]
    return (x[:800], y[order][:800]), (x[800:], y[order][800:])


def credit_target(x: np.ndarray, y: np.ndarray) -> Target:
    """Coefficients `[n, 25]` of a logistic regression of y on x, with standard normal priors."""

    def log_likelihood(beta):
        logits = tf.matmul(beta, x, transpose_b=True)
        return tf.reduce_sum(y * logits - tf.math.softplus(logits), axis=-1)

    prior = tfd.MultivariateNormalDiag(np.zeros(25, np.float32))
    return Target(log_likelihood, prior=prior, names=[f"beta_{i}" for i in range(25)])


def held_out(draws: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Accuracy, and mean log-probability of the outcomes [nats], of the posterior predictive of draws `[n, 25]`."""
    probability = np.mean(expit(draws @ x.T), axis=0)
    return float(np.mean((probability > 0.5) == y)), float(np.mean(np.log(np.where(y, probability, 1.0 - probability))))
