"""Cumulative probabilities: of flows of one number, and scalar after scalar of triangular ones."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfflows import checks

# Where it is seen whether a scalar rises or falls with its latent. A map that wraps round shows both.
LEVELS = (1e-3, 0.25, 0.5, 0.75, 1.0 - 1e-3)


def order_of(flow) -> np.ndarray:
    """The sequence of a triangular flow.

    Raises:
      ValueError: if it is none.
    """
    order = flow.bijector.triangular_order
    if order is None:
        raise ValueError(
            "Expected a triangular flow, such as MAF(n_dim, alternate=False), whose layers all have one order; got "
            f"{flow.bijector.describe()}, a map without."
        )
    return order


def _directions(flow, context) -> np.ndarray:
    """`[D]`: 1 where a scalar rises with its latent, -1 where it falls.

    Two increasing functions that are inverse to each other cannot change that from row to row: one row is asked.
    """
    (n_dim,), n_levels = flow.base.event_shape, len(LEVELS)
    levels = np.full((n_dim, n_levels, n_dim), 0.5)
    for i in range(n_dim):
        levels[i, :, i] = LEVELS
    with tf.init_scope():
        if context is not None:
            one = [1, *(n or 1 for n in flow.accepts.context_shape)]
            first = np.zeros(one, np.int32) if checks.is_symbolic(context) else np.asarray(context)[:1]
            context = np.repeat(first, n_dim * n_levels, axis=0)
        z = flow.base.quantile(tf.constant(levels.reshape(-1, n_dim), flow.accepts.dtype))
        x = np.asarray(flow.decode(z, context)).reshape(n_dim, n_levels, n_dim)
    steps = np.diff(np.stack([x[i, :, i] for i in range(n_dim)]), axis=1)
    rises, falls = np.any(steps > 0.0, axis=1), np.any(steps < 0.0, axis=1)
    if np.any(rises == falls) or np.any(np.isnan(steps)):
        bad = np.flatnonzero((rises == falls) | np.any(np.isnan(steps), axis=1)).tolist()
        raise ValueError(f"Expected scalars that rise or fall with their latents, everywhere; got others: {bad}.")
    return np.where(rises, 1, -1)


def _uniforms(flow, x, context):
    context = flow.accepts.context(context, None)
    z = flow.encode(x, context)
    below = flow.base.cdf(z)
    return tf.where(_directions(flow, context) > 0, below, 1.0 - below)


def _from_uniforms(flow, u, context):
    context = flow.accepts.context(context, u.shape[0])
    u = tf.where(_directions(flow, context) > 0, u, 1.0 - u)
    return flow.decode(flow.base.quantile(u), context)


def _check_uniform(flow, u, what: str):
    u = flow.accepts.value(u, what)
    if not checks.is_symbolic(u) and not np.all((np.asarray(u) > 0.0) & (np.asarray(u) < 1.0)):
        raise ValueError(f"Expected {what} in (0, 1); got {np.min(u)} to {np.max(u)}.")
    return tf.cast(u, flow.accepts.dtype)


def _check_one(flow) -> None:
    shape = flow.accepts.event_shape
    if shape != (1,) or flow.base.event_shape != (1,):
        raise ValueError(f"Expected a flow of one number, of event shape (1,); got {shape}. See `rosenblatt`.")
    if flow.accepts.is_discrete:
        raise ValueError("Expected a flow of continuous data; got one of integers.")


def cdf(flow, x, context):
    """See `FlowModel.cdf`."""
    _check_one(flow)
    return _uniforms(flow, x, context)[:, 0]


def quantile(flow, p, context):
    """See `FlowModel.quantile`."""
    _check_one(flow)
    if np.ndim(p) > 1:
        raise ValueError(f"Expected p of shape [n], or one number; got {list(np.shape(p))}.")
    if np.ndim(p) == 0:
        context = flow.accepts.context(context, None)
        p = np.full(1 if context is None else context.shape[0], p)
    p = _check_uniform(flow, tf.expand_dims(p, -1), "p")
    return _from_uniforms(flow, p, context)


def rosenblatt(flow, x, context):
    """See `FlowModel.rosenblatt`."""
    order_of(flow)
    u = _uniforms(flow, x, context)
    limits = np.finfo(u.dtype.as_numpy_dtype)
    return tf.clip_by_value(u, limits.tiny, 1.0 - limits.epsneg)


def inverse_rosenblatt(flow, u, context):
    """See `FlowModel.inverse_rosenblatt`."""
    order_of(flow)
    return _from_uniforms(flow, _check_uniform(flow, u, "u"), context)
