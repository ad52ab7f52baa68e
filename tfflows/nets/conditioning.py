"""How bijectors build and call a net."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

FLOAT16_INPUTS = 1000.0  # the largest


def build_conditioner(
    net: keras.layers.Layer, input_shape: int | Sequence[int], n_outputs: int, context_dim: int | None = None
) -> keras.layers.Layer:
    """Builds `net`, so that all its weights exist before any data, and checks its width.

    Args:
      net: called with rows of inputs, and of context if there is one.
      input_shape: of one row; an int is one axis. A net for an image `[H, W, n]` returns `[H, W, ...]`.
      n_outputs: how many numbers it must return, for each pixel if the inputs are an image.
      context_dim: width of the context, or None.

    Raises:
      ValueError: if net is no Keras layer, or returns another number of them.
    """
    if not isinstance(net, keras.layers.Layer):
        raise ValueError(f"Expected a Keras layer as net; got {net!r}.")
    shape = (input_shape,) if isinstance(input_shape, (int, np.integer)) else tuple(input_shape)
    shapes = [shape] if context_dim is None else [shape, (context_dim,)]
    found = net(*(keras.KerasTensor((None, *s)) for s in shapes)).shape[1:]
    pixels = shape[:-1]
    if found[: len(pixels)] != pixels or math.prod(found[len(pixels) :]) != n_outputs:
        of_what = f" for each pixel of {pixels}" if pixels else ""
        raise ValueError(f"Expected a net with {n_outputs} outputs{of_what}; got {type(net).__name__} with {found}.")
    return net


def check_net_and_context(net, context_dim: int | None) -> None:
    """Raises a ValueError for a net without a context to hear, or a context without a net."""
    if (net is None) != (context_dim is None):
        raise ValueError(f"Expected net and context_dim both or neither; got net={net} and context_dim={context_dim}.")


def net_on_circles(net: keras.layers.Layer, circular: np.ndarray, bound: float, n_outputs: int) -> keras.layers.Layer:
    """A new net of the same settings, some of whose inputs are circular (see `FeedForward.on_circles`).

    Raises:
      ValueError: for another net than MLP and MADE.
    """
    if not hasattr(net, "on_circles"):
        raise ValueError(f"Expected an MLP or MADE, which hears circular columns without a seam; got {net!r}.")
    return net.on_circles(np.asarray(circular), bound, n_outputs)


def conditioner(net: keras.layers.Layer, x: tf.Tensor, context: tf.Tensor | None, event_ndims: int = 1) -> tf.Tensor:
    """Calls `net` on any number of batch axes, in the dtype of `x`.

    Keras layers see rows, `[n, *event]` and `[n, context_dim]`; the batch axes of x and context are broadcast against
    each other, flattened before, and restored after.

    Args:
      net: built by `build_conditioner`.
      x: `[..., *event]`.
      context: `[..., context_dim]`, or None.
      event_ndims: axes of an event.

    Returns:
      What the net makes of each event, `[..., n_outputs]`, or `[..., *plane, n_outputs]` of images.
    """
    values = [_within_float16(v) if net.compute_dtype == "float16" else v for v in (x, context) if v is not None]
    if x.shape.rank == 1 + event_ndims and (context is None or _same_rows(x, context)):
        return tf.cast(net(*values), x.dtype)
    rows, batch = as_rows(*values, event_ndims=event_ndims)
    outputs = net(*rows)
    restored = tf.reshape(outputs, tf.concat([batch, outputs.shape[1:]], axis=0))
    return tf.cast(restored, x.dtype)


def _within_float16(value: tf.Tensor) -> tf.Tensor:
    # Sums overflow at 65,504, and what is beyond a thousand is far out all the same.
    return tf.clip_by_value(value, -FLOAT16_INPUTS, FLOAT16_INPUTS)


def as_rows(first: tf.Tensor, *others: tf.Tensor, event_ndims: int = 1) -> tuple[list[tf.Tensor], tf.Tensor]:
    """`[..., *event]` and each other `[..., width]` as `[n, *event]` and `[n, width]`, batch axes broadcast.

    Returns:
      the rows, and the shape of the batch axes.
    """
    values = [(first, event_ndims), *((v, 1) for v in others)]
    batch = functools.reduce(tf.broadcast_dynamic_shape, (tf.shape(v)[: tf.rank(v) - n] for v, n in values))
    rows = []
    for value, n in values:
        event = value.shape[value.shape.rank - n :].as_list()
        full = tf.broadcast_to(value, tf.concat([batch, event], axis=0))
        rows.append(tf.reshape(full, [-1, *event]))
    return rows, batch


def _same_rows(x, context):
    return x.shape[0] is not None and context.shape.rank == 2 and x.shape[0] == context.shape[0]


def describe_net(net: keras.layers.Layer) -> str:
    """One line about a conditioner."""
    widths = "-".join(str(n) for n in getattr(net, "hidden", ()))
    kind = "residual " if getattr(net, "residual", False) else ""
    return f"{kind}{type(net).__name__} {widths}".strip()
