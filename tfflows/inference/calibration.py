"""Is a flow right? Probabilities of held-out data, which are uniform if it is, and how uniform they are."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from scipy import stats

from tfflows.inference.diagnostics import ranks
from tfflows.rows import Rows

BLOCK = 2**22  # numbers drawn at a time, at most
N_BASE = 20_000  # draws that stand for a base without a cdf
N_SIMULATED = 2000  # sets of uniform numbers that a band is found with


class Uniformity(NamedTuple):
    """How far numbers are from uniform: the Kolmogorov-Smirnov distance, in [0, 1], and its p-value; `[d]` each."""

    distance: np.ndarray
    p_value: np.ndarray


def uniformity(u: np.ndarray, n_reference: int | None = None) -> Uniformity:
    """Kolmogorov-Smirnov test of each column of `u` `[n, d]` in [0, 1] against the uniform distribution.

    Args:
      n_reference: if u are places among so many draws that all rows share, which are not exact either.
    """
    u = np.sort(np.asarray(u, np.float64), axis=0)
    n = len(u)
    steps = np.arange(n + 1)[:, np.newaxis] / n
    distance = np.maximum(np.max(steps[1:] - u, axis=0), np.max(u - steps[:-1], axis=0))
    n_effective = n if n_reference is None else max(1, round(n * n_reference / (n + n_reference)))
    return Uniformity(distance, stats.kstwo.sf(distance, n_effective))


def band(n: int, at: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Between what and what the share of n uniform numbers below each of `at` is, for all of them together.

    Each place has the same, smaller, chance to be left, found by simulation, so that all are kept with chance `level`.

    Args:
      n: how many numbers.
      at: `[k]`, ascending, in (0, 1).
      level: in (0, 1).

    Returns:
      low and high, `[k]` each.

    Reference:
      Sailynoja, Burkner & Vehtari (2022), Graphical test for discrete uniformity and its applications in
      goodness-of-fit evaluation and multiple sample comparison, https://arxiv.org/abs/2103.10522
    """
    at = np.asarray(at, np.float64)
    shares = np.diff(np.concatenate([[0.0], at, [1.0]]))
    counts = np.cumsum(np.random.default_rng(0).multinomial(n, shares, size=N_SIMULATED), axis=1)[:, :-1]
    tails = np.minimum(stats.binom.cdf(counts, n, at), stats.binom.sf(counts - 1, n, at))
    tail = np.quantile(np.min(tails, axis=1), 1.0 - level)
    return stats.binom.ppf(tail, n, at) / n, stats.binom.isf(tail, n, at) / n


def latent_pit(flow, x, context=None, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray, int | None]:
    """Latents of data, and the probability that the base gives to smaller ones: uniform if the flow is right.

    Args:
      flow: a `FlowModel`. Whole numbers of a table are moved to points at random first, as in training.
      x: `[n, *event]`, held-out data.
      context: `[n, *context_shape]`, if the flow is conditional.
      seed: of draws of bases without a `cdf`, whose scalars depend on each other.

    Returns:
      z and u, `[n, D]` each, and how many draws u are places among: None for a base's own cdf.

    Raises:
      ValueError: for a flow without a single latent space, or data that do not fit.
    """
    if not hasattr(flow, "encode") or not hasattr(flow, "base"):
        raise ValueError(f"Expected a FlowModel, with one latent space; got {flow!r}.")
    rows = flow.accepts.rows(x, context)
    z = flow.encode(flow._points(Rows(rows.x, None, None)), rows.context)
    flat = np.asarray(z, np.float64).reshape(len(rows), -1)
    try:
        return flat, np.asarray(flow.base.cdf(z), np.float64).reshape(flat.shape), None
    except ValueError:
        n_draws = max(1000, min(N_BASE, BLOCK // flat.shape[1]))
    drawn = np.asarray(flow.base.sample([n_draws], np.array([seed, 0], np.int32)), np.float64).reshape(n_draws, -1)
    below = np.stack([np.searchsorted(np.sort(d), column) for d, column in zip(drawn.T, flat.T, strict=True)], axis=1)
    spread = np.random.default_rng(seed).uniform(size=below.shape)
    return flat, (below + spread) / (n_draws + 1), n_draws


def latent_tests(flow, x, context=None, *, seed: int = 0) -> Uniformity:
    """Whether each latent scalar of held-out data has the base's distribution; arguments as in `latent_pit`."""
    _, u, n_draws = latent_pit(flow, x, context, seed=seed)
    return uniformity(u, n_draws)


class Places(NamedTuple):
    """Where data are among a flow's draws for their contexts; uniform in (0, 1) if the flow is right.

    Attributes:
      scalars: `[n, D]`: the share of draws with a smaller number, scalar by scalar.
      regions: `[n]`: the share of draws that are denser: the mass of the smallest highest-density region that has
        the row.
    """

    scalars: np.ndarray
    regions: np.ndarray


def places(flow, x, context=None, *, n_draws: int = 199, seed: int = 0) -> Places:
    """Ranks of data among draws of a flow, spread between (rank) and (rank + 1) of (n_draws + 1) at random.

    Args:
      flow: a flow or mixture.
      x: `[n, *event]`, data that it has not seen.
      context: `[n, *context_shape]`, if it is conditional.
      n_draws: for each row, >= 1.
      seed: of the draws.

    Raises:
      ValueError: for a flow of point clouds, or what is no flow; for data or contexts that do not fit.

    References:
      scalars: Talts, Betancourt, Simpson, Vehtari & Gelman (2018), https://arxiv.org/abs/1804.06788;
      regions: Hermans et al. (2022), A trust crisis in simulation-based inference? Your posterior approximations can be
      unfaithful, https://arxiv.org/abs/2110.06581
    """
    if not hasattr(flow, "accepts") or None in flow.accepts.event_shape:
        raise ValueError(f"Expected a flow or mixture of events of one shape; got {flow!r}.")
    rows = flow.accepts.rows(x, context)
    x = rows.x.reshape(len(rows), -1)
    log_prob = np.asarray(flow.log_prob(rows.x, rows.context), np.float64)
    rng = np.random.default_rng(seed)
    n_rows = max(1, BLOCK // (n_draws * max(x.shape[1], math.prod(n or 1 for n in flow.accepts.context_shape or (1,)))))
    found = []
    for start in range(0, len(rows), n_rows):
        part = slice(start, start + n_rows)
        pair = rng.integers(2**31, size=2).astype(np.int32)
        if rows.context is None:
            n = len(x[part])
            drawn, density = flow.sample_and_log_prob(n_draws * n, seed=pair)
            drawn, density = tf.reshape(drawn, [n_draws, n, -1]), tf.reshape(density, [n_draws, n])
        else:
            drawn, density = flow.sample_and_log_prob(n_draws, rows.context[part], seed=pair)
        drawn = np.swapaxes(np.asarray(drawn).reshape(n_draws, len(x[part]), -1), 0, 1)
        density = np.asarray(density, np.float64).T[..., np.newaxis]
        # Denser ones are those of a smaller minus log-density.
        found.append([_spread(drawn, x[part], rng), _spread(-density, -log_prob[part, np.newaxis], rng)[:, 0]])
    return Places(*(np.concatenate(each) for each in zip(*found, strict=True)))


def _spread(draws, truth, rng) -> np.ndarray:
    """Ranks as numbers in (0, 1), at random among those that they and ties stand for."""
    least = ranks(draws, truth)
    ties = np.sum(draws == truth[:, np.newaxis], axis=1)
    return (least + (ties + 1) * rng.uniform(size=least.shape)) / (draws.shape[1] + 1)
