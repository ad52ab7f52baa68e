"""What is done with the parts of a bijector, ours or stock ones of TFP."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from tfflows.bijectors.base import Bijector
from tfflows.watch import watched

ADAPT_ROWS = 8192  # worked on at a time, at most
ADAPT_NUMBERS = 2**20  # in them, at most: a convolutional net makes some fifty of each


def one_pass(part, method, value, context, event_ndims):
    """Runs a part of a chain, ours or stock TFP's; event_ndims is the rank of `value`'s events."""
    if isinstance(part, Bijector):
        return getattr(part, f"{method}_and_log_det")(value, context, event_ndims)
    # A new tensor misses the stock bijector's cache, which may be stale.
    value = tf.identity(value)
    log_det = getattr(part, f"{method}_log_det_jacobian")(value, event_ndims=event_ndims)
    # Stock bijectors with a constant Jacobian return a scalar.
    shape = tf.shape(value)[: tf.rank(value) - event_ndims]
    log_det = tf.broadcast_to(tf.cast(log_det, value.dtype), shape)
    return watched(part, value, None, getattr(part, method)(value), log_det)


def scalar_log_dets(part, x, context):
    """z and the log dz_i/dx_i of a part of a triangular chain, ours or stock TFP's."""
    if isinstance(part, Bijector):
        return part.inverse_and_log_dets(x, context)
    x = tf.identity(x)
    log_dets = part.inverse_log_det_jacobian(x, event_ndims=0)
    return part.inverse(x), tf.broadcast_to(tf.cast(log_dets, x.dtype), tf.shape(x))


def is_elementwise(part) -> bool:
    """Whether a part of a chain, ours or stock TFP's, maps each scalar on its own."""
    return part.is_elementwise if isinstance(part, Bijector) else part.inverse_min_event_ndims == 0


def adapts(part) -> bool:
    """Whether a part of a chain sets anything in `adapt`."""
    inside = getattr(part, "blocks", None) or getattr(part, "bijectors", None)
    if isinstance(part, Bijector) and inside is not None:
        return any(map(adapts, inside))
    return isinstance(part, Bijector) and type(part).adapt is not Bijector.adapt


def enough_rows(parts) -> int | None:
    """How many rows are enough for all parts' `adapt`; None if one makes use of all there are."""
    each = [part.enough_rows for part in parts if adapts(part)]
    return None if None in each else max(each, default=0)


def some_rows(n: int | None, x: np.ndarray, *others: np.ndarray | None) -> tuple[np.ndarray | None, ...]:
    """`n` rows drawn at random of each array, the same of all, if there are more; None stays None."""
    if n is None or n >= len(x):
        return x, *others
    some = np.random.default_rng(0).choice(len(x), n, replace=False)
    return tuple(None if v is None else v[some] for v in (x, *others))


def latent_map(parts, ranks) -> Callable:
    """A compiled function of rows, and perhaps their context: what parts of a chain make of them, without log-dets."""

    @tf.function(reduce_retracing=True, autograph=False)  # a graph leaves out what only the log-det needs
    def values(*rows):
        value, context = rows if len(rows) > 1 else (rows[0], None)
        for part, rank in zip(parts, ranks, strict=True):
            value = one_pass(part, "inverse", value, context, rank)[0]
        return value

    return values


def inverse_values(parts, ranks, x: np.ndarray, context: np.ndarray | None) -> np.ndarray:
    """Rows as parts of a chain pass them on towards the latent, without log-dets, in bounded memory."""
    if not parts:
        return x
    values = latent_map(parts, ranks)
    arrays = [v for v in (x, context) if v is not None]
    n_rows = int(np.clip(ADAPT_NUMBERS // max(x[0].size, 1), 1, ADAPT_ROWS))
    starts = range(0, len(x), n_rows)
    return np.concatenate([values(*(tf.constant(v[i : i + n_rows]) for v in arrays)) for i in starts])


def merge(what: str, values: Sequence):
    """The one value that parts agree on, or None if they have none."""
    known = {v for v in values if v is not None}
    if len(known) > 1:
        raise ValueError(f"Expected parts of one {what}; got {sorted(known)}.")
    return known.pop() if known else None
