"""Context nets: Keras layers that turn what users condition on into the vectors that bijectors hear."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

from tfflows.randomness import training_seed


class Heard(NamedTuple):
    """What a context net made of contexts; taken in their place, so that the net need not run again."""

    value: tf.Tensor | tuple


class ContextInput(NamedTuple):
    """What a context net takes.

    Args:
      shape: of one context, with None for an axis of any length.
      is_integer: whether contexts are whole numbers, which it looks up.
      n_categories: how many whole numbers it knows, from 0 on, if it says so.
    """

    shape: tuple[int | None, ...]
    is_integer: bool
    n_categories: int | None


def build_context_net(
    net: keras.layers.Layer, context_shape: Sequence[int | None] | None, n_outputs: int
) -> ContextInput:
    """Builds `net`, so that all its weights exist before any data, and checks what it takes and gives.

    Args:
      net: called with contexts `[n, *context_shape]`, returns `[n, n_outputs]`.
      context_shape: None if the net says it: a model with an `Input`, or an `Embedding`, which takes labels `[n]`.
      n_outputs: the width that is heard.

    Raises:
      ValueError: for what is no Keras layer of one input, an unknown or another input shape, or another width.
    """
    if not isinstance(net, keras.layers.Layer):
        raise ValueError(f"Expected a Keras layer or model as context net; got {net!r}.")
    takes = _input_of(net, None if context_shape is None else tuple(context_shape))
    symbol = keras.KerasTensor((None, *takes.shape), dtype="int32" if takes.is_integer else keras.config.floatx())
    found = getattr(net(symbol), "shape", ())[1:]
    if found != (n_outputs,):
        raise ValueError(
            f"Expected a context net with {n_outputs} outputs, as many as are heard; got {net.name} with {found} for "
            f"contexts of shape {takes.shape}."
        )
    return takes


def run_context_net(net: keras.layers.Layer, context: tf.Tensor, event_ndims: int) -> tf.Tensor:
    """Calls `net` on contexts with `event_ndims` axes each and any number of batch axes, which it keeps.

    In training steps the net is told that it trains (`Dropout`, `BatchNormalization`); elsewhere it is not, unless a
    Keras model around it does.
    """
    context = tf.convert_to_tensor(context)
    training = None if training_seed() is None else True
    n_batch = context.shape.rank - event_ndims
    if n_batch == 1:
        return net(context, training=training)
    event = context.shape[n_batch:]
    rows = tf.reshape(context, tf.concat([[-1], tf.shape(context)[n_batch:]], axis=0))
    outputs = net(tf.ensure_shape(rows, [None, *event]), training=training)
    return tf.reshape(outputs, tf.concat([tf.shape(context)[:n_batch], tf.shape(outputs)[1:]], axis=0))


def _input_of(net, given: tuple | None) -> ContextInput:
    inputs = tf.nest.flatten(getattr(net, "inputs", None) or [])
    if len(inputs) > 1:
        raise ValueError(f"Expected a context net of one input; got {net.name} with {len(inputs)}: join them before.")
    first = net
    while isinstance(first, keras.Sequential) and first.layers:
        first = first.layers[0]
    tables = [first] if isinstance(first, keras.layers.Embedding) else []
    if not inputs:
        if (given is None and tables and first is not net) or (given is None and not tables):
            raise ValueError(
                f"Expected context_shape, the shape of one context, because {net.name} does not say what it takes; "
                "got none."
            )
        return ContextInput(given or (), bool(tables), tables[0].input_dim if tables else None)
    shape = tuple(inputs[0].shape[1:])
    if given is not None:
        if len(given) != len(shape) or any(None not in (a, b) and a != b for a, b in zip(given, shape, strict=True)):
            raise ValueError(f"Expected context_shape {shape}, which {net.name} takes; got {given}.")
        shape = tuple(b if a is None else a for a, b in zip(given, shape, strict=True))
    for layer in net.layers:
        with contextlib.suppress(ValueError, AttributeError):  # of layers that are used twice
            if isinstance(layer, keras.layers.Embedding) and layer.input is inputs[0]:
                tables.append(layer)
    is_integer = bool(tables) or "int" in inputs[0].dtype
    return ContextInput(shape, is_integer, min((table.input_dim for table in tables), default=None))
