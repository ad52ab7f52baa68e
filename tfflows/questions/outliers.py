"""Outliers: how strange a row is, as a p-value that held-out data vouch for.

The density alone is known to mislead: it depends on the coordinates, so that a change of units per scalar, or any
smooth one, reorders the rows (Le Lan & Dinh 2021), and rows that lie in no place where data are may be denser than all
data, as a point at the mode in many dimensions is (Nalisnick et al. 2019). So there are three scores, and anybody's own
will do; which is best depends on what the outliers are like.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tfflows.inputs import unpack


class Outliers(NamedTuple):
    """What `outliers` finds of n rows.

    Attributes:
      flags: `[n]` booleans, whether p_values <= rate.
      p_values: `[n]`: how often a row like those of the calibration data would be as strange.
      scores: `[n]`, the larger the stranger.
      threshold: rows of larger scores are flagged; at it, with a seed, some are.
    """

    flags: np.ndarray
    p_values: np.ndarray
    scores: np.ndarray
    threshold: float


@dataclasses.dataclass(frozen=True)
class Density:
    """Minus the log-density: rows are strange where data are rare.

    It depends on the coordinates of x, and does not see rows that are too dense.

    Reference:
      Le Lan & Dinh (2021), Perfect density models cannot guarantee anomaly detection, https://arxiv.org/abs/2012.03808
    """

    def __call__(self, flow, x, context) -> np.ndarray:
        """Scores `[n]`; `flow`, `x` and `context` as in `FlowModel.log_prob`."""
        return -np.asarray(flow.log_prob(x, context), np.float64)


@dataclasses.dataclass(frozen=True)
class Typicality:
    """|log p(x) - E log p|: rows are strange if their density is not that of most data, lower or higher.

    The expectation is over the flow's own draws, given a row's context, so that calibration data stay fresh.

    Args:
      n_draws: draws for it, those of one context; of each row's own context there are `n_draws_each`.
      n_draws_each: as above.
      seed: of these draws.

    Reference:
      Nalisnick, Matsukawa, Teh & Lakshminarayanan (2019), Detecting out-of-distribution inputs to deep generative
      models using typicality, https://arxiv.org/abs/1906.02994; here of single rows.
    """

    n_draws: int = 10_000
    n_draws_each: int = 100
    seed: int = 0

    def __call__(self, flow, x, context) -> np.ndarray:
        """Scores `[n]`; `flow`, `x` and `context` as in `FlowModel.log_prob`."""
        log_prob = np.asarray(flow.log_prob(x, context), np.float64)
        n = self.n_draws if context is None else self.n_draws_each
        drawn = flow.sample_and_log_prob(n, context, seed=self.seed)[1]
        return np.abs(log_prob - np.mean(np.asarray(drawn, np.float64), axis=0))


@dataclasses.dataclass(frozen=True)
class Latent:
    """Minus the base's log-density of the latent: of a normal base, its distance from the centre.

    Unlike the density it does not depend on the data's coordinates; but it is blind to rows that a flow stretches into
    the middle of the latent space. Flows with one latent space have it, mixtures not.
    """

    def __call__(self, flow, x, context) -> np.ndarray:
        """Scores `[n]`; `x` and `context` as in `FlowModel.log_prob`.

        Args:
          flow: a `FlowModel`.
          x: `[n, *event]`.
          context: `[n, *context_shape]`, if the flow is conditional.

        Raises:
          ValueError: for a mixture.
        """
        if not hasattr(flow, "encode"):
            raise ValueError(f"Expected a FlowModel, with one latent space; got {flow!r}.")
        return -np.asarray(flow.base.log_prob(flow.encode(x, context)), np.float64)


def p_values(scores: np.ndarray, calibration: np.ndarray, *, seed: int | None = None) -> np.ndarray:
    """(1 + how many calibration scores are as large or larger) / (1 + their number): conformal p-values.

    For a row drawn like the calibration rows, P(p <= rate) <= rate at every rate: a tie counts for the row. With a seed
    chance decides how many of the ties count, and P(p <= rate) = rate.

    Args:
      scores: `[n]`, the larger the stranger.
      calibration: `[m]`, those of rows held out from training.
      seed: an integer, or None.

    Reference:
      Vovk, Gammerman & Shafer (2005), Algorithmic learning in a random world; for outliers: Bates, Candes, Lei, Romano
      & Sesia (2023), https://arxiv.org/abs/2104.08279
    """
    calibration = np.sort(calibration)
    at_least = 1.0 + len(calibration) - np.searchsorted(calibration, scores, side="left")
    if seed is not None:
        ties = 1.0 + np.searchsorted(calibration, scores, side="right") - np.searchsorted(calibration, scores)
        at_least -= ties * np.random.default_rng(seed).random(len(scores))
    return at_least / (1.0 + len(calibration))


def outliers(flow, x, context, calibration, rate: float, score: Callable, seed: int | None) -> Outliers:
    """See `Density.outliers`."""
    if not callable(score):
        raise ValueError(f"Expected a score, a function of (flow, x, context); got {score!r}.")
    if calibration is None:
        raise ValueError("Expected calibration data, held out from training; got none.")
    held_out, held_context, weight = unpack(calibration)
    if weight is not None:
        raise ValueError("Expected calibration data x or (x, context); got weights too.")
    held_out, x = flow.accepts.value(held_out, "calibration"), flow.accepts.value(x)
    check_enough(len(held_out), rate)
    ours = _scores(score, flow, held_out, flow.accepts.context(held_context, len(held_out)))
    return judge(_scores(score, flow, x, flow.accepts.context(context, len(x))), ours, rate, seed=seed)


def check_enough(n: int, rate: float) -> None:
    """Raises unless n calibration rows can flag any row at a rate, which is checked too."""
    if not 0.0 < rate < 1.0:
        raise ValueError(f"Expected a rate in (0, 1); got {rate}.")
    # A p-value is at least 1 / (n + 1). The product of rates such as 0.01 and 100 may miss one by a rounding.
    if (n + 1) * rate < 1.0 - 1e-9:
        digits = 10.0 ** (np.ceil(np.log10(n + 1)) + 1.0)
        enough = f", enough for a rate of {np.ceil(digits / (n + 1)) / digits:g}" if n > 0 else ""
        raise ValueError(
            f"Expected at least {int(np.ceil(1.0 / rate - 1e-9)) - 1} calibration rows for a rate of {rate}; got {n}"
            f"{enough}."
        )


def judge(scores: np.ndarray, calibration: np.ndarray, rate: float, *, seed: int | None = None) -> Outliers:
    """What `FlowModel.outliers` finds, of scores at hand.

    Args:
      scores: `[n]`, the larger the stranger.
      calibration: `[m]`, those of rows held out from training; m >= 1 / rate - 1.
      rate: of false alarms, in (0, 1).
      seed: lets chance decide between ties.

    Raises:
      ValueError: for another rate, or too few calibration rows.
    """
    n = len(calibration)
    check_enough(n, rate)
    found = p_values(scores, calibration, seed=seed)
    n_above = int(np.floor((n + 1) * rate + 1e-9)) - 1  # calibration scores that a flagged row may have above it
    return Outliers(found <= rate * (1.0 + 1e-9), found, scores, float(np.sort(calibration)[n - 1 - n_above]))


def _scores(score, flow, x, context) -> np.ndarray:
    scores = np.asarray(score(flow, x, context), np.float64)
    if scores.shape != (len(x),) or np.any(np.isnan(scores)):
        raise ValueError(f"Expected scores of shape [{len(x)}], none of them NaN; got {list(scores.shape)}.")
    return scores
