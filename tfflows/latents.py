"""Ways from one latent to another."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tfflows.nets.context import Heard

__all__ = ["linear", "spherical"]


def linear(z0: tf.Tensor, z1: tf.Tensor, t: float) -> tf.Tensor:
    """(1 - t) z0 + t z1: straight, past the middle of the latent space, where a normal has hardly any mass.

    Args:
      z0, z1: `[n, *latent]`, the ends.
      t: how far it is on the way, in [0, 1].
    """
    return (1.0 - t) * z0 + t * z1


def spherical(z0: tf.Tensor, z1: tf.Tensor, t: float) -> tf.Tensor:
    """From z0 to z1 along the arc between their directions, the length changing evenly.

    |z| (sin((1 - t) a) u0 + sin(t a) u1) / sin a with directions u0 and u1 at the angle a. Draws of a normal in many
    dimensions all have about the same length, and so has what is on this way.

    Args:
      z0, z1, t: as in `linear`.

    Reference:
      White (2016), Sampling generative networks, https://arxiv.org/abs/1609.04468
    """
    axes = list(range(1, z0.shape.rank))

    def length(z):
        return tf.sqrt(tf.reduce_sum(tf.square(z), axis=axes, keepdims=True))

    lengths = [tf.maximum(length(z), 1e-12) for z in (z0, z1)]
    u0, u1 = z0 / lengths[0], z1 / lengths[1]
    # Exact for angles near 0 and pi too, where the arc cosine of a product is not.
    angle = 2.0 * tf.atan2(length(u1 - u0), length(u1 + u0))
    sine = tf.sin(angle)
    # Between equal directions the arc is its chord; opposite ones span no plane, and the way goes through the middle.
    is_arc = sine > 1e-4
    divisor = tf.where(is_arc, sine, tf.ones_like(sine))
    weight0 = tf.where(is_arc, tf.sin((1.0 - t) * angle) / divisor, (1.0 - t) * tf.ones_like(sine))
    weight1 = tf.where(is_arc, tf.sin(t * angle) / divisor, t * tf.ones_like(sine))
    return ((1.0 - t) * lengths[0] + t * lengths[1]) * (weight0 * u0 + weight1 * u1)


def way(flow, x0, x1, n_steps: int, context, mode: str | Callable, batch_size: int | None) -> tf.Tensor:
    """See `FlowModel.interpolate`."""
    mix = _mixing(mode)
    if isinstance(n_steps, bool) or not isinstance(n_steps, (int, np.integer)) or n_steps < 2:
        raise ValueError(f"Expected n_steps >= 2; got {n_steps}.")
    if tuple(np.shape(x0)) != tuple(np.shape(x1)):
        raise ValueError(f"Expected x0 and x1 of one shape; got {np.shape(x0)} and {np.shape(x1)}.")
    is_single = np.ndim(x0) == len(flow.bijector.event_shape)
    contexts = context if isinstance(context, tuple) else (context, context)
    if is_single:
        x0, x1 = tf.convert_to_tensor(x0)[tf.newaxis], tf.convert_to_tensor(x1)[tf.newaxis]
        contexts = [None if c is None else np.asarray(c)[np.newaxis] for c in contexts]
    contexts = [flow._listened(flow.accepts.context(c, len(x0)), batch_size) for c in contexts]
    z0, z1 = (flow.encode(x, c, batch_size=batch_size) for x, c in zip((x0, x1), contexts, strict=True))
    times = np.linspace(0.0, 1.0, n_steps).tolist()
    z = tf.reshape(tf.stack([mix(z0, z1, t) for t in times], axis=1), [-1, *flow.base.event_shape])
    if flow.context_dim is None:
        mixed = None
    else:
        ends = [tf.cast(flow._hear(c), z.dtype) for c in contexts]
        mixed = tf.stack([linear(*ends, t) for t in times], axis=1)
        mixed = Heard(tf.reshape(mixed, [-1, mixed.shape[-1]]))
    x = flow.decode(z, mixed, batch_size=batch_size)
    x = tf.reshape(x, [-1, n_steps, *flow.bijector.event_shape])
    return x[0] if is_single else x


def _mixing(mode: str | Callable) -> Callable:
    """The way of that name, or the function itself.

    Raises:
      ValueError: for a name that is none.
    """
    ways = {"linear": linear, "spherical": spherical}
    if callable(mode):
        return mode
    if mode not in ways:
        raise ValueError(f"Expected a mode 'linear', 'spherical' or a function of (z0, z1, t); got {mode!r}.")
    return ways[mode]
