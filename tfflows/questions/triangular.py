"""Marginals and conditionals of triangular flows, whose density is a product of p(x_i | those before).

Where the known scalars come first in the order, both are exact. Elsewhere the unknown ones are drawn in turn, each
given all before it, and a draw is weighted by the densities of the known scalars, given what was drawn before them:
sequential importance sampling. Scalars that follow each other are drawn or weighted together.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfflows import batching
from tfflows.questions.estimates import Estimate, check_draws, one_context, repeated
from tfflows.questions.scalars import order_of

ROWS = 2**16  # of imputed data, in memory at a time
FEW = 10.0  # draws that count: their mean is hardly one


class WeightedDraws(NamedTuple):
    """Draws of unknown scalars, with weights.

    Args:
      x: `[n, k]`.
      log_weights: `[n]`, of mean weight 1.
      effective: how many draws they are worth: the least Kish number of all steps at which draws were weighted; n if
        they are exact.
    """

    x: np.ndarray
    log_weights: np.ndarray
    effective: float


class _Filled(NamedTuple):
    """What `_fill` makes of R rows: data `[R, n, D]`, and of each row log-weights, evidence, its error, effective n."""

    x: np.ndarray
    log_weights: np.ndarray
    log_evidence: np.ndarray
    error: np.ndarray
    effective: np.ndarray


def generator(seed) -> np.random.Generator:
    """Random numbers from a seed as the verbs take it."""
    return np.random.default_rng(np.asarray(batching.seed_pair(seed), np.int64) % 2**32)


def log_mean_exp(values: np.ndarray) -> np.ndarray:
    """log mean exp over the last axis."""
    top = np.max(values, axis=-1, keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        return np.log(np.mean(np.exp(values - top), axis=-1)) + top[..., 0]


def _runs(order: np.ndarray, is_known: np.ndarray) -> list[tuple[bool, np.ndarray]]:
    """(known?, columns) of scalars that follow each other in the order."""
    columns = np.argsort(order)
    ends = np.flatnonzero(np.diff(is_known[columns].astype(int))) + 1
    return [(bool(is_known[run[0]]), run) for run in np.split(columns, ends)]


def is_prefix(order: np.ndarray, is_known: np.ndarray) -> bool:
    """Whether the known scalars come before all others."""
    return bool(np.all(np.diff(is_known[np.argsort(order)].astype(int)) <= 0))


def _resampled(log_weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`[n]` indices, each about as often as its weight says: systematic resampling."""
    n = len(log_weights)
    ends = np.cumsum(np.exp(log_weights - np.max(log_weights)))
    places = (rng.random() + np.arange(n)) / n * ends[-1]
    return np.minimum(np.searchsorted(ends, places, side="right"), n - 1)


def _fill(flow, x: np.ndarray, is_known: np.ndarray, context, n: int, rng: np.random.Generator) -> _Filled:
    """`n` draws of the unknown scalars of each row of x `[R, D]`, weighted."""
    n_rows, n_dim = x.shape
    context = None if context is None else np.repeat(context, n, axis=0)
    known = np.repeat(x, n, axis=0)
    seed = rng.integers(2**31, size=2).astype(np.int32)
    z = np.array(flow.base.sample([n_rows * n], tf.constant(seed)), np.float64)
    # Draws fill the places of scalars whose turn has not come: any numbers of the support will do.
    filled = np.array(flow.decode(z, context), np.float64)
    log_weights = np.zeros((n_rows, n))
    log_evidence, variance, effective = np.zeros(n_rows), np.zeros(n_rows), np.full(n_rows, float(n))
    runs = _runs(flow.bijector.triangular_order, is_known)
    done = np.zeros(0, int)
    for i, (run_is_known, columns) in enumerate(runs):
        if run_is_known:
            filled[:, columns] = known[:, columns]
            latents, log_probs = flow._over_rows("scalar_log_probs", filled, context, None)
            z[:, columns] = latents.numpy()[:, columns]
            log_weights += np.sum(log_probs.numpy()[:, columns], axis=1, dtype=np.float64).reshape(n_rows, n)
            count = _effective(log_weights)
            effective = np.minimum(effective, count)
            for row in np.flatnonzero((count < 0.5 * n) & (count > 0.0)) if i + 1 < len(runs) else ():
                # What is drawn later stays: copies part ways again.
                log_evidence[row] += log_mean_exp(log_weights[row])
                variance[row] += 1.0 / count[row] - 1.0 / n
                chosen = row * n + _resampled(log_weights[row], rng)
                mine, past = slice(row * n, (row + 1) * n), np.concatenate([done, columns])
                for array in (z, filled):
                    kept = array[mine].copy()
                    kept[:, past] = array[chosen][:, past]
                    array[mine] = kept
                log_weights[row] = 0.0
        elif i > 0:  # the first run's draws are there already
            filled[:, columns] = flow.decode(z, context).numpy()[:, columns]
        done = np.concatenate([done, columns])
    last = log_mean_exp(log_weights)
    variance += 1.0 / np.maximum(_effective(log_weights), 1e-300) - 1.0 / n
    error = np.sqrt(np.maximum(variance, 0.0))
    shape = (n_rows, n, n_dim)
    return _Filled(filled.reshape(shape), log_weights - last[:, np.newaxis], log_evidence + last, error, effective)


def _effective(log_weights: np.ndarray) -> np.ndarray:
    """Kish's effective number over the last axis; 0 if none has weight."""
    top = np.max(log_weights, axis=-1, keepdims=True)
    weights = np.exp(log_weights - np.where(np.isfinite(top), top, 0.0))
    return np.sum(weights, axis=-1) ** 2 / np.maximum(np.sum(weights**2, axis=-1), 1e-300)


def marginal_log_prob(flow, x, context, n_draws: int, seed) -> Estimate:
    """See `FlowModel.marginal_log_prob`."""
    order = order_of(flow)
    check_draws(n_draws)
    x = np.array(x, np.float64)
    is_missing = np.isnan(x)
    flow.accepts.value(np.where(is_missing, 0.0, x))  # raises for another shape, and for inf
    flow.accepts.check_domain(x)
    context = flow.accepts.context(context, len(x))
    context = None if context is None else np.asarray(context)
    rng = generator(seed)
    value, error = np.zeros(len(x)), np.zeros(len(x))
    patterns, which = np.unique(is_missing, axis=0, return_inverse=True)
    for k, pattern in enumerate(patterns):
        if pattern.all():
            continue  # nothing is known: the probability of anything is 1
        is_exact = is_prefix(order, ~pattern)
        n = 1 if is_exact else int(n_draws)
        rows = np.flatnonzero(which.reshape(-1) == k)
        for some in np.array_split(rows, max(1, -(-len(rows) * n // ROWS))):
            found = _fill(flow, x[some], ~pattern, None if context is None else context[some], n, rng)
            value[some], error[some] = found.log_evidence, 0.0 if is_exact else found.error
    return Estimate(value, error)


class Conditional:
    """The distribution of a triangular flow's unknown scalars, given the others: `FlowModel.conditional`.

    Args:
      flow: a triangular `FlowModel`.
      known, context, n_draws, seed: as in `FlowModel.conditional`.

    Attributes:
      columns: of the unknown scalars, in rising order.
      is_exact: whether the known scalars come first in the flow's order. If not, draws are resampled ones out of
        weighted ones, and log-densities are of estimated norm.

    Raises:
      ValueError: for a flow that is not triangular, other columns than it has, or values that are not finite.
    """

    def __init__(self, flow, known: Mapping[int, float], context, n_draws: int, seed):
        order = order_of(flow)
        n_dim = len(order)
        if not isinstance(known, Mapping) or not 0 < len(known) < n_dim:
            raise ValueError(f"Expected from 1 to {n_dim - 1} known scalars, as {{column: value}}; got {known!r}.")
        for column, value in known.items():
            if isinstance(column, bool) or not isinstance(column, (int, np.integer)) or not 0 <= column < n_dim:
                raise ValueError(f"Expected columns from 0 to {n_dim - 1}; got {column!r}.")
            if np.ndim(value) != 0 or not np.isfinite(value):
                raise ValueError(f"Expected one finite number for column {column}; got {value}.")
        check_draws(n_draws)
        self._flow, self._n_draws, self._seed = flow, int(n_draws), seed
        self._context = one_context(flow, context)
        self._row = np.array([[known.get(i, np.nan) for i in range(n_dim)]], np.float64)
        self.columns = tuple(i for i in range(n_dim) if i not in known)
        self.is_exact = is_prefix(order, ~np.isnan(self._row[0]))

    def _fill(self, n, seed):
        found = _fill(self._flow, self._row, ~np.isnan(self._row[0]), self._context, n, generator(seed))
        if found.effective[0] < min(FEW, n):
            warnings.warn(
                f"Of {n} weighted draws only {found.effective[0]:.1f} count: a larger n, or an order of the flow with "
                "the known scalars first, gives more.",
                stacklevel=3,
            )
        return found

    def weighted(self, n: int, *, seed=None) -> WeightedDraws:
        """Draws with their weights, which are equal if `is_exact`.

        Args:
          n: >= 2.
          seed: an integer or a pair of them makes the draws reproducible.

        Raises:
          ValueError: for n < 2.
        """
        check_draws(n)
        found = self._fill(int(n), seed)
        return WeightedDraws(found.x[0][:, self.columns], found.log_weights[0], float(found.effective[0]))

    def sample(self, n: int, *, seed=None) -> np.ndarray:
        """Draws of the unknown scalars, `[n, len(columns)]`; if not `is_exact`, some of them may be equal.

        Args:
          n: >= 1.
          seed: as in `weighted`.

        Raises:
          ValueError: for n < 1.
        """
        if n < 1:
            raise ValueError(f"Expected a number of draws n >= 1; got {n}.")
        if self.is_exact:
            return self._fill(int(n), seed).x[0][:, self.columns]
        found = self._fill(max(int(n), self._n_draws), seed)
        rng = generator(seed)
        chosen = rng.permutation(_resampled(found.log_weights[0], rng))[: int(n)]
        return found.x[0][chosen][:, self.columns]

    @functools.cached_property
    def log_evidence(self) -> Estimate:
        """The log-density of the known scalars, by `n_draws` draws if not `is_exact`."""
        value, error = marginal_log_prob(self._flow, self._row, self._context, self._n_draws, self._seed)
        return Estimate(float(value[0]), float(error[0]))

    def log_prob(self, x) -> np.ndarray:
        """Log-densities in nats of unknown scalars, given the known ones, `[n]`.

        Args:
          x: `[n, len(columns)]`.

        Raises:
          ValueError: for another shape.
        """
        x = np.asarray(x, np.float64)
        if x.ndim != 2 or x.shape[1] != len(self.columns):
            raise ValueError(f"Expected x of shape [n, {len(self.columns)}]; got {list(x.shape)}.")
        rows = np.repeat(self._row, len(x), axis=0)
        rows[:, self.columns] = x
        context = repeated(self._context, len(x))
        if not self.is_exact:
            return np.asarray(self._flow.log_prob(rows, context), np.float64) - self.log_evidence.value
        log_probs = self._flow._over_rows("scalar_log_probs", rows, context, None)[1]
        return np.sum(np.asarray(log_probs, np.float64)[:, self.columns], axis=1)
