"""How bijectors build and call a net."""

from __future__ import annotations

import functools
import math

import keras
import tensorflow as tf


def build_conditioner(
    net: keras.layers.Layer, n_inputs: int, n_outputs: int, context_dim: int | None = None
) -> keras.layers.Layer:
    """Builds `net`, so that all its weights exist before any data, and checks its width.

    Raises:
      ValueError: if the last axes of its output do not multiply to `n_outputs`.
    """
    if not isinstance(net, keras.layers.Layer):
        raise ValueError(f"Expected a Keras layer as net; got {net!r}.")
    widths = [n_inputs] if context_dim is None else [n_inputs, context_dim]
    shape = net(*(keras.KerasTensor((None, width)) for width in widths)).shape
    if math.prod(shape[1:]) != n_outputs:
        raise ValueError(f"Expected a net with {n_outputs} outputs; got {type(net).__name__} with {shape[1:]}.")
    return net


def check_net_and_context(net, context_dim: int | None) -> None:
    """Raises a ValueError for a net without a context to hear, or a context without a net."""
    if (net is None) != (context_dim is None):
        raise ValueError(f"Expected net and context_dim both or neither; got net={net} and context_dim={context_dim}.")


def conditioner(net: keras.layers.Layer, x: tf.Tensor, context: tf.Tensor | None) -> tf.Tensor:
    """Calls `net` on any number of batch axes, in the dtype of `x`.

    Keras layers see rows, `[n, n_inputs]` and `[n, context_dim]`; the batch axes of x and context are
    broadcast against each other, flattened before, and restored after.
    """
    if x.shape.rank == 2 and (context is None or _same_rows(x, context)):
        return tf.cast(net(x) if context is None else net(x, context), x.dtype)
    rows, batch = as_rows(*(v for v in (x, context) if v is not None))
    outputs = net(*rows)
    restored = tf.reshape(outputs, tf.concat([batch, outputs.shape[1:]], axis=0))
    return tf.cast(restored, x.dtype)


def as_rows(*values: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Each `[..., width]` as `[n, width]`, batch axes broadcast against each other; and the shape of those axes."""
    batch = functools.reduce(tf.broadcast_dynamic_shape, (tf.shape(v)[:-1] for v in values))
    return [
        tf.reshape(tf.broadcast_to(v, tf.concat([batch, [v.shape[-1]]], axis=0)), [-1, v.shape[-1]]) for v in values
    ], batch


def _same_rows(x, context):
    return x.shape[0] is not None and context.shape.rank == 2 and x.shape[0] == context.shape[0]


def describe_net(net: keras.layers.Layer) -> str:
    """One line about a conditioner."""
    widths = "-".join(str(n) for n in getattr(net, "hidden", ()))
    kind = "residual " if getattr(net, "residual", False) else ""
    return f"{kind}{type(net).__name__} {widths}".strip()
