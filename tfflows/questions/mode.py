"""The densest point of a flow, by climbing from its best draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tfflows.questions.estimates import check_draws, draws, one_context, repeated

MEMORY = 10  # steps that L-BFGS remembers
HALVINGS = 30  # of a step that does not go up, before its row is at its top, to the dtype's digits


class Mode(NamedTuple):
    """The densest point found.

    Args:
      x: `[*event]`.
      log_prob: its log-density in nats.
    """

    x: np.ndarray
    log_prob: float


def mode(flow, n_starts: int, n_draws: int, n_steps: int, context, seed) -> Mode:
    """See `Density.mode`."""
    check_draws(n_draws)
    if not 1 <= n_starts <= n_draws:
        raise ValueError(f"Expected n_starts from 1 to n_draws, {n_draws}; got {n_starts}.")
    if flow.accepts.is_discrete:
        raise ValueError("Expected a flow of continuous data; got one of integers.")
    x, log_prob = draws(flow, n_draws, context, seed)
    dtype = np.float64 if flow.accepts.keep_float64 else flow.accepts.dtype
    x = np.asarray(x, np.float64)
    starts = x[np.argsort(-log_prob)[:n_starts]]
    scale = x.std(axis=0)
    scale = np.where(scale > 0.0, scale, 1.0)
    rows = repeated(one_context(flow, context), n_starts)

    def height_and_slope(away):
        points = (starts + scale * away.reshape(starts.shape)).astype(dtype)
        # A step out of the domain is none: there the density is 0, whatever the map makes of it.
        inside = np.array([_is_inside(flow, point) for point in points])
        points = np.where(inside.reshape([-1] + [1] * (starts.ndim - 1)), points, starts.astype(dtype))
        height, slope = (np.asarray(v, np.float64) for v in flow._over_rows("log_prob_and_slope", points, rows, None))
        return np.where(inside, height, -np.inf), (slope * scale).reshape(n_starts, -1)

    away, height = climb(height_and_slope, np.zeros((n_starts, starts[0].size)), n_steps)
    i = int(np.argmax(height))
    return Mode((starts + scale * away.reshape(starts.shape))[i].astype(dtype), float(height[i]))


def climb(height_and_slope: Callable, x: np.ndarray, n_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows x `[n, d]` on their ways up, side by side, by L-BFGS with backtracking; never lower than they began.

    Args:
      height_and_slope: of `[n, d]`, returns `[n]` and `[n, d]`. A point without a finite height is never taken.
      n_steps: evaluations of it, at most.

    Returns:
      The highest points `[n, d]` and heights `[n]`.

    Reference:
      Liu & Nocedal (1989), On the limited memory BFGS method, https://doi.org/10.1007/BF01589116
    """
    height, slope = height_and_slope(x)
    memory = []  # (step, change of slope, 1 / their product or 0) of all rows
    direction, length, halvings = _direction(slope, memory), np.ones(len(x)), np.zeros(len(x))
    for _ in range(n_steps):
        step = length[:, np.newaxis] * direction
        new_height, new_slope = height_and_slope(x + step)
        gain = np.sum(step * slope, axis=1)
        with np.errstate(invalid="ignore"):
            better = (new_height >= height + 1e-4 * gain) & np.all(np.isfinite(new_slope), axis=1) & (gain > 0.0)
        if better.any():
            change = np.where(better[:, np.newaxis], slope - new_slope, 0.0)
            product = np.sum(step * change, axis=1)
            curves = better & (product > 1e-12 * np.sum(step**2, axis=1))
            memory = [
                *memory[1 - MEMORY :],
                (step, change, np.where(curves, 1.0 / np.where(curves, product, 1.0), 0.0)),
            ]
            x = np.where(better[:, np.newaxis], x + step, x)
            height, slope = np.where(better, new_height, height), np.where(better[:, np.newaxis], new_slope, slope)
        halvings = np.where(better, 0, halvings + 1)
        length = np.where(better, 1.0, 0.5 * length)
        direction = np.where(better[:, np.newaxis], _direction(slope, memory), direction)
        if np.all((halvings >= HALVINGS) | (np.max(np.abs(slope), axis=1) < 1e-6)):
            break
    return x, height


def _direction(slope: np.ndarray, memory: list) -> np.ndarray:
    """Where to go from a slope `[n, d]`, by the two loops of L-BFGS, each row for itself."""
    q, parts = slope.copy(), []
    for step, change, inverse in reversed(memory):
        parts.append((inverse * np.sum(step * q, axis=1))[:, np.newaxis])
        q -= parts[-1] * change
    # Before any curvature is known a step is as long as a draw's spread, at most.
    first = 1.0 / np.maximum(np.sqrt(np.sum(slope**2, axis=1)), 1.0)
    scale = first
    for step, change, inverse in memory:
        known = np.sum(step * change, axis=1) / np.maximum(np.sum(change**2, axis=1), 1e-300)
        scale = np.where(inverse > 0.0, known, scale)
    q *= scale[:, np.newaxis]
    for (step, change, inverse), part in zip(memory, reversed(parts), strict=True):
        q += (part - (inverse * np.sum(change * q, axis=1))[:, np.newaxis]) * step
    # A row whose memory leads down starts anew.
    return np.where((np.sum(q * slope, axis=1) > 0.0)[:, np.newaxis], q, slope * first[:, np.newaxis])


def _is_inside(flow, point: np.ndarray) -> bool:
    try:
        flow.accepts.check_domain(point[np.newaxis])
    except ValueError:
        return False
    return True
