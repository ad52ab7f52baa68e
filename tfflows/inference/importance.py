"""Importance sampling with a flow: weights, evidence, and how far to trust them."""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from scipy.special import logsumexp

from tfflows.inference import diagnostics
from tfflows.inference.flows import check_flow
from tfflows.inference.result import Result
from tfflows.inference.target import Target
from tfflows.numerics import check_counts

ROWS = 8192  # evaluated at a time


class Evidence(NamedTuple):
    """What draws of a flow say about a target's integral.

    Args:
      log_evidence: its logarithm.
      error: the standard error of that.
      pareto_k: shape of the largest weights; above 0.7 the rest is not to be trusted.
      z: `[n, n_dim]`, the draws, unconstrained.
      x: `[n, n_dim]`, the same in the target's parameters.
      log_prob: `[n]`, the target's log-density of each.
      log_weights: `[n]`, target over flow.
      n_evaluations: of the target.
    """

    log_evidence: float
    error: float
    pareto_k: float
    z: np.ndarray
    x: np.ndarray
    log_prob: np.ndarray
    log_weights: np.ndarray
    n_evaluations: int


def evidence(target: Target, flow, n: int, rng: np.random.Generator) -> Evidence:
    """`n` draws of a flow of the unconstrained parameters, weighted by the target."""

    @tf.function(autograph=False, reduce_retracing=True)
    def densities(z):
        x, log_det = target.constrain(z)
        log_prob = target.log_prob(x)
        return x, log_prob, log_prob + log_det

    parts = []
    for start in range(0, n, ROWS):
        z, log_flow = flow.sample_and_log_prob(min(ROWS, n - start), seed=int(rng.integers(2**31 - 1)))
        x, log_prob, log_target = target.run(densities, z)
        weights = log_target.numpy().astype(np.float64) - log_flow.numpy()
        parts.append((z.numpy(), x.numpy(), log_prob.numpy(), weights))
    z, x, log_prob, log_weights = (np.concatenate(part) for part in zip(*parts, strict=True))
    log_weights = np.where(np.isnan(log_weights), -np.inf, log_weights)
    if not np.any(np.isfinite(log_weights)):
        raise ValueError(f"Expected a finite log_prob somewhere; it was not at any of {n} draws of the flow.")
    log_evidence = logsumexp(log_weights) - np.log(n)
    relative = np.exp(log_weights - log_evidence)
    # The error of a logarithm is the relative error.
    error = np.std(relative, ddof=1) / np.sqrt(n)
    _, k = diagnostics.pareto_smoothed(log_weights)
    return Evidence(float(log_evidence), float(error), k, z, x, log_prob, log_weights, n)


def bridge(
    log_weights_of_draws: np.ndarray, log_weights_of_flow: np.ndarray, n_effective: float
) -> tuple[float, float]:
    """Log-evidence and its standard error, by bridge sampling between draws of the target and draws of a flow.

    Unlike importance sampling it does not suffer where the flow's tails are too light: no draw has a weight beyond a
    bound. Draws must not be those the flow was trained on.

    Args:
      log_weights_of_draws: `[n]`, target over flow at draws of the target.
      log_weights_of_flow: `[m]`, the same at draws of the flow.
      n_effective: how many independent draws those of the target are worth.

    Returns:
      The error is infinite if flow and target have so little in common that no estimate is found.

    Raises:
      ValueError: if no weight of either kind is finite.

    References:
      Meng & Wong (1996), Simulating ratios of normalizing constants via a simple identity; Fruhwirth-Schnatter (2004),
      Estimating marginal likelihoods for mixture and Markov switching models using bridge sampling techniques (error)
    """
    ours, flows = (np.asarray(v, np.float64).ravel() for v in (log_weights_of_draws, log_weights_of_flow))
    if not np.any(np.isfinite(ours)) or not np.any(np.isfinite(flows)):
        raise ValueError(
            "Expected draws of the target and of the flow with finite weights; got "
            f"{np.isfinite(ours).sum()} of {len(ours)} and {np.isfinite(flows).sum()} of {len(flows)}."
        )
    n_effective = min(n_effective, len(ours))
    total = np.log(n_effective + len(flows))
    share, other = np.log(n_effective) - total, np.log(len(flows)) - total
    # At the first step importance sampling alone; a fixed point that is a contraction.
    log_evidence = logsumexp(flows) - np.log(len(flows))
    for _ in range(1000):
        numerators = flows - np.logaddexp(share + flows, other + log_evidence)
        denominators = -np.logaddexp(share + ours, other + log_evidence)
        new = logsumexp(numerators) - np.log(len(flows)) - logsumexp(denominators) + np.log(len(ours))
        change, log_evidence = abs(new - log_evidence), new
        if change < 1e-10:
            break
    else:
        return float(log_evidence), np.inf

    def relative_variance(logs):
        values = np.exp(logs - np.max(logs))
        return np.var(values) / np.mean(values) ** 2

    variance = relative_variance(numerators) / len(flows) + relative_variance(denominators) / n_effective
    return float(log_evidence), float(np.sqrt(variance))


def importance(
    target: Target, flow, *, n_draws: int = 2000, n_chains: int = 4, seed: int = 0, smoothed: bool = True
) -> Result:
    """Draws of a flow with the weights that make them draws of the target, and the evidence.

    Args:
      target: what is to be sampled; no gradients are needed.
      flow: a `FlowModel` of the unconstrained parameters, such as the one another sampler has trained.
      n_draws: of each chain; draws are independent, so chains are only a shape.
      n_chains: number of chains.
      seed: makes it reproducible.
      smoothed: whether the largest weights are replaced by what their Pareto tail expects.

    Raises:
      ValueError: for a flow of other parameters, n_draws < 1, or a target that is zero at all draws.

    Reference:
      Vehtari, Simpson, Gelman, Yao & Gabry (2024), Pareto smoothed importance sampling, https://arxiv.org/abs/1507.02646
    """
    check_counts(n_draws=n_draws, n_chains=n_chains)
    check_flow(target, flow)
    started = time.perf_counter()
    found = evidence(target, flow, n_draws * n_chains, np.random.default_rng(seed))
    log_weights = found.log_weights
    if smoothed:
        log_weights, _ = diagnostics.pareto_smoothed(log_weights)
    shape = (n_chains, n_draws)
    return Result(
        draws=found.x.reshape(*shape, -1),
        log_prob=found.log_prob.reshape(shape),
        names=target.names,
        log_weights=log_weights.reshape(shape),
        log_evidence=found.log_evidence,
        log_evidence_error=found.error,
        diagnostics={"ess": diagnostics.effective_weights(log_weights), "pareto_k": found.pareto_k},
        n_evaluations=found.n_evaluations,
        seconds=time.perf_counter() - started,
        flow=flow,
    )
