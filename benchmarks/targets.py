"""Posteriors of posteriordb as targets, with the draws that are their reference.

Each model is written anew in TensorFlow from what its parameters, priors and likelihood are; `positive` parameters that
Stan gives a Cauchy or normal prior have the half of it.
"""

from __future__ import annotations

import gzip
import json
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfflows.inference import Target

DTYPE = tf.float64


class Posterior(NamedTuple):
    """A model and what is known of it.

    Args:
      log_prob: of parameters `[n, n_dim]` to `[n]`, up to a constant.
      domain: (low, high) of each parameter.
      report: parameters `[..., n_dim]` to the quantities of the reference `[..., k]`, in NumPy.
      reference: `[10 * 1000, k]`, draws of the reference.
      names: of the quantities.
    """

    log_prob: Callable
    domain: list
    report: Callable
    reference: np.ndarray
    names: list[str]

    def target(self) -> Target:
        return Target(self.log_prob, len(self.domain), domain=self.domain)


FREE, POSITIVE, UNIT = (None, None), (0.0, None), (0.0, 1.0)


def normal(x, mean=0.0, scale=1.0):
    """Log-density up to a constant that does not depend on x, mean or scale."""
    scale = tf.convert_to_tensor(scale, DTYPE)
    return -0.5 * ((x - mean) / scale) ** 2 - tf.math.log(scale)


def cauchy(x, scale):
    return -tf.math.log1p((x / scale) ** 2)


def total(value):
    return tf.reduce_sum(value, axis=-1)


def ar(data):
    """An autoregressive series of order 5."""
    y, order = np.asarray(data["y"]), data["K"]
    lagged = np.stack([y[order - k - 1 : len(y) - k - 1] for k in range(order)], axis=1)

    def log_prob(x):
        alpha, beta, sigma = x[:, :1], x[:, 1:-1], x[:, -1:]
        likelihood = normal(y[order:], alpha + tf.matmul(beta, lagged, transpose_b=True), sigma)
        prior = total(normal(x[:, :-1], 0.0, 10.0)) + cauchy(sigma[:, 0], 2.5)
        return total(likelihood) + prior

    return log_prob, [FREE] * (order + 1) + [POSITIVE], None


def garch(data):
    """Volatility that depends on the last deviation and the last volatility; beta1 < 1 - alpha1."""
    y = np.asarray(data["y"])

    def log_prob(x):
        mu, alpha0, alpha1, share = (x[:, i] for i in range(4))
        # variance_t = beta1 variance_{t-1} + what it gains: a linear recursion, in log2(T) steps.
        gains = alpha0 + alpha1 * (y[:-1, np.newaxis] - mu) ** 2
        gains = tf.concat([tf.fill(tf.shape(mu), tf.constant(data["sigma1"] ** 2, DTYPE))[tf.newaxis], gains], axis=0)
        factors = tf.zeros_like(gains) + share * (1.0 - alpha1)

        def after(first, second):
            return first[0] * second[0], first[1] * second[0] + second[1]

        _, variance = tfp.math.scan_associative(after, (factors, gains))
        return tf.reduce_sum(normal(y[:, np.newaxis], mu, tf.sqrt(variance)), axis=0) + tf.math.log1p(-alpha1)

    def report(x):
        return np.concatenate([x[..., :3], x[..., 3:] * (1.0 - x[..., 2:3])], axis=-1)

    return log_prob, [FREE, POSITIVE, UNIT, UNIT], report


def regression(design, y, prior_of_beta, prior_of_sigma):
    def log_prob(x):
        beta, sigma = x[:, :-1], x[:, -1:]
        likelihood = normal(y, tf.matmul(beta, design, transpose_b=True), sigma)
        return total(likelihood) + prior_of_beta(beta) + prior_of_sigma(sigma[:, 0])

    return log_prob, [FREE] * design.shape[1] + [POSITIVE], None


def kidscore(data):
    """Children's scores by the mother's schooling and intelligence, and their product."""
    school, iq = np.asarray(data["mom_hs"], float), np.asarray(data["mom_iq"], float)
    design = np.stack([np.ones_like(iq), school, iq, school * iq], axis=1)
    y = np.asarray(data["kid_score"], float)
    return regression(design, y, lambda beta: 0.0, lambda sigma: cauchy(sigma, 2.5))


def correlated_regression(data):
    """Five correlated covariates."""
    design, y = np.asarray(data["X"], float), np.asarray(data["y"], float)
    return regression(design, y, lambda b: total(normal(b, 0.0, 10.0)), lambda s: normal(s, 0.0, 10.0))


def kilpisjarvi(data):
    """A trend of summer temperatures; intercept and slope are all but one number."""
    year, y = np.asarray(data["x"], float), np.asarray(data["y"], float)
    design = np.stack([np.ones_like(year), year], axis=1)
    mean = np.array([data["pmualpha"], data["pmubeta"]])
    scale = np.array([data["psalpha"], data["psbeta"]])
    return regression(design, y, lambda b: total(normal(b, mean, scale)), lambda s: 0.0)


def eight_schools(data):
    """Effects of coaching in eight schools, non-centred."""
    y, sigma = np.asarray(data["y"], float), np.asarray(data["sigma"], float)

    def log_prob(x):
        raw, mu, tau = x[:, :8], x[:, 8:9], x[:, 9:]
        prior = total(normal(raw)) + normal(mu, 0.0, 5.0)[:, 0] + cauchy(tau, 5.0)[:, 0]
        return total(normal(y, mu + tau * raw, sigma)) + prior

    def report(x):
        return np.concatenate([x[..., 8:9] + x[..., 9:] * x[..., :8], x[..., 8:]], axis=-1)

    return log_prob, [FREE] * 9 + [POSITIVE], report


def hidden_markov(data):
    """Two hidden states with normal emissions of deviation 1; 0 < mu1 < mu2."""
    y = np.asarray(data["y"], float)

    def log_prob(x):
        stay, leave, mu1, gap = (x[:, i] for i in range(4))
        mu = tf.stack([mu1, mu1 + gap], axis=-1)
        move = tf.math.log(tf.stack([tf.stack([stay, 1.0 - stay], -1), tf.stack([leave, 1.0 - leave], -1)], axis=1))
        # A product of matrices, of which two and two are multiplied at a time: log2(T) steps.
        parts = move[:, tf.newaxis] + normal(y[1:, np.newaxis, np.newaxis], mu[:, tf.newaxis, tf.newaxis])
        while (n := parts.shape[1]) > 1:
            pairs = parts[:, : n // 2 * 2]
            product = tf.reduce_logsumexp(pairs[:, ::2, :, :, tf.newaxis] + pairs[:, 1::2, tf.newaxis], axis=-2)
            parts = tf.concat([product, parts[:, n // 2 * 2 :]], axis=1)
        last = tf.reduce_logsumexp(normal(y[0], mu)[:, :, tf.newaxis] + parts[:, 0], axis=[1, 2])
        return last + normal(mu[:, 0], 3.0) + normal(mu[:, 1], 10.0)

    def report(x):
        stay, leave, mu1, gap = np.moveaxis(x, -1, 0)
        return np.stack([stay, 1.0 - stay, leave, 1.0 - leave, mu1, mu1 + gap], axis=-1)

    return log_prob, [UNIT, UNIT, POSITIVE, POSITIVE], report


def gaussian_process(data):
    """Counts with a Gaussian process as logarithm of their rate."""
    place, counts = np.asarray(data["x"], float), np.asarray(data["k"], float)
    squares, n = (place[:, np.newaxis] - place) ** 2, len(place)

    def factor(rho, alpha, of=tf):
        if of is tf:
            covariance = (alpha**2)[:, None, None] * tf.exp(-0.5 * squares / (rho**2)[:, None, None])
            return tf.linalg.cholesky(covariance + 1e-8 * tf.eye(n, dtype=DTYPE))
        covariance = (alpha**2)[..., None, None] * np.exp(-0.5 * squares / (rho**2)[..., None, None])
        return np.linalg.cholesky(covariance + 1e-8 * np.eye(n))

    def log_prob(x):
        rho, alpha, raw = x[:, 0], x[:, 1], x[:, 2:]
        f = tf.linalg.matvec(factor(rho, alpha), raw)
        prior = 24.0 * tf.math.log(rho) - 4.0 * rho + normal(alpha, 0.0, 2.0) + total(normal(raw))
        return total(counts * f - tf.exp(f)) + prior

    def report(x):
        f = np.einsum("...ij,...j->...i", factor(x[..., 0], x[..., 1], np), x[..., 2:])
        return np.concatenate([x[..., :2], f], axis=-1)

    return log_prob, [POSITIVE, POSITIVE] + [FREE] * n, report


MODELS = {
    "arK": ("arK", "arK-arK", ar),
    "garch11": ("garch", "garch-garch11", garch),
    "kidscore_interaction": ("kidiq", "kidiq-kidscore_interaction", kidscore),
    "blr": ("sblrc", "sblrc-blr", correlated_regression),
    "kilpisjarvi": ("kilpisjarvi_mod", "kilpisjarvi_mod-kilpisjarvi", kilpisjarvi),
    "eight_schools_noncentered": ("eight_schools", "eight_schools-eight_schools_noncentered", eight_schools),
    "hmm_example": ("hmm_example", "hmm_example-hmm_example", hidden_markov),
    "gp_pois_regr": ("gp_pois_regr", "gp_pois_regr-gp_pois_regr", gaussian_process),
}


def posterior(name: str, folder) -> Posterior:
    """One of `MODELS`, with the data and reference draws in `folder`/posteriors."""
    folder = pathlib.Path(folder) / "posteriors"
    data_name, draws_name, make = MODELS[name]
    with gzip.open(folder / "posteriordb_data.json.gz", "rt") as file:
        log_prob, domain, report = make(json.load(file)[data_name])
    with np.load(folder / "posteriordb_draws.npz") as arrays:
        draws, names = arrays[f"{draws_name}__draws"], [str(n) for n in arrays[f"{draws_name}__names"]]
    return Posterior(log_prob, domain, report or (lambda x: x), draws.reshape(-1, draws.shape[-1]), names)
