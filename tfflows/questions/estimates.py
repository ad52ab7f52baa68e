"""Means over a flow's own draws: probabilities, entropy, divergence, each with its standard error."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf


class Estimate(NamedTuple):
    """A number and its standard error; arrays, if there are several.

    Args:
      value: the number.
      error: >= 0; infinite if it cannot be told.
    """

    value: float | np.ndarray
    error: float | np.ndarray


def of_mean(values) -> Estimate:
    """The mean of independent `values` `[n]`."""
    values = np.asarray(values, np.float64)
    if not np.all(np.isfinite(values)):  # a mean with an infinite term: no error can be told
        return Estimate(float(np.mean(values)), math.inf)
    return Estimate(float(np.mean(values)), float(np.std(values, ddof=1) / math.sqrt(len(values))))


def check_draws(n: int) -> None:
    """Raises unless a mean over `n` draws has a standard error."""
    if isinstance(n, bool) or int(n) != n or n < 2:
        raise ValueError(f"Expected a number of draws n >= 2; got {n}.")


def one_context(flow, context) -> np.ndarray | None:
    """The condition as one row `[1, *context_shape]`, or None without context."""
    contexts = flow.accepts.contexts
    if contexts is not None and contexts.is_one(context):
        context = np.asarray(context)[np.newaxis]
    context = flow.accepts.context(context, None)
    if context is None:
        return None
    if len(context) != 1:
        raise ValueError(f"Expected one condition, of shape {list(flow.accepts.context_shape)}; got {len(context)}.")
    return np.asarray(context)


def repeated(row: np.ndarray | None, n: int) -> np.ndarray | None:
    """`[1, ...]` as `[n, ...]`; None stays None."""
    return None if row is None else np.repeat(row, n, axis=0)


def draws(flow, n: int, context, seed):
    """Draws `[n, *event]` and log-densities `[n]`, given one condition."""
    check_draws(n)
    context = one_context(flow, context)
    x, log_prob = flow.sample_and_log_prob(int(n), None if context is None else context[0], seed=seed)
    return x, np.asarray(log_prob, np.float64)


def probability(flow, region: Callable | tuple, n: int, context, seed) -> Estimate:
    """See `Density.probability`."""
    inside = _indicator(region, flow.accepts.event_shape)
    x = np.asarray(draws(flow, n, context, seed)[0])
    found = np.asarray(inside(x))
    if found.shape != (len(x),) or found.dtype != bool:
        raise ValueError(f"Expected booleans of shape [{len(x)}] from region; got {found.dtype} {list(found.shape)}.")
    count = int(np.sum(found))
    # Of counts 0 and n the plain formula makes an error of zero.
    rate = (count + 1.0) / (n + 2.0)
    return Estimate(count / n, math.sqrt(rate * (1.0 - rate) / n))


def _indicator(region, event_shape) -> Callable:
    if callable(region):
        return region
    try:
        low, high = (np.broadcast_to(np.asarray(bound, np.float64), event_shape) for bound in region)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Expected a function of x or bounds (low, high) of {event_shape}; got {region!r}.") from error
    if not np.all(low <= high):
        raise ValueError(f"Expected bounds low <= high; got {low.tolist()} and {high.tolist()}.")
    axes = tuple(range(1, 1 + len(event_shape)))
    return lambda x: np.all((low <= x) & (x <= high), axis=axes)


def entropy(flow, n: int, context, seed) -> Estimate:
    """See `Density.entropy`."""
    return of_mean(-draws(flow, n, context, seed)[1])


def kl_to(flow, other, n: int, context, seed) -> Estimate:
    """See `Density.kl_to`."""
    if not callable(getattr(other, "log_prob", None)):
        raise ValueError(f"Expected a flow or a TFP distribution, with a log_prob; got {other!r}.")
    x, log_prob = draws(flow, n, context, seed)
    if hasattr(other, "accepts"):
        if other.accepts.event_shape != flow.accepts.event_shape:
            raise ValueError(
                f"Expected a flow of event shape {flow.accepts.event_shape}; got {other.accepts.event_shape}."
            )
        if other.accepts.is_discrete != flow.accepts.is_discrete:
            raise ValueError("Expected two densities, or two of integers; got one of each.")
        rows = None if other.context_dim is None else repeated(one_context(other, context), len(x))
        try:
            other.accepts.check_domain(x)
        except ValueError:  # a draw of this one is none of the other's
            return Estimate(np.inf, np.inf)
        theirs = other.log_prob(x, rows)
    else:
        theirs = other.log_prob(tf.cast(x, other.dtype))
    theirs = np.asarray(theirs, np.float64)
    if theirs.shape != log_prob.shape:
        raise ValueError(f"Expected log-densities of shape {list(log_prob.shape)}; got {list(theirs.shape)}.")
    return of_mean(log_prob - theirs)
