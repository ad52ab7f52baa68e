"""What an exported flow does: named functions of named tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from tfflows import bases, latents


class Signature(NamedTuple):
    """What an exported file does under one name.

    Args:
      function: of tensors, in the order of `inputs`, to a dict of named tensors.
      inputs: a `tf.TensorSpec` each, named, with a dynamic leading axis of rows.
    """

    function: Callable
    inputs: list[tf.TensorSpec]


def signatures(flow, batch_size: int | None = None) -> dict[str, Signature]:
    """The signatures of a flow: log_prob and sample, for a `FlowModel` encode and decode, for images interpolate.

    Every input and output has the same leading axis, so a server may join requests: `sample` draws a row for each
    seed, given its temperature and context.

    Args:
      flow: a `FlowModel` or `FlowMixture`.
      batch_size: a fixed number of rows, or None for any.

    Raises:
      ValueError: for a stock TFP distribution as base.
    """
    if any(isinstance(part.base, bases.FromTFP) for part in flow._flows()):
        raise ValueError("Expected a base of tfflows.bases, whose draws can be exported; got a stock TFP distribution.")
    accepts, dtype = flow.accepts, tf.as_dtype(flow.accepts.dtype)

    def spec(name, shape=(), of=dtype):
        return tf.TensorSpec([batch_size, *shape], of, name=name)

    x = spec("x", accepts.event_shape)
    contexts = accepts.contexts
    context = [] if contexts is None else [spec("context", contexts.shape, tf.as_dtype(contexts.dtype))]
    found = {
        "log_prob": Signature(lambda x, context=None: {"log_prob": flow._log_prob(x, context)}, [x, *context]),
        "sample": Signature(
            lambda seed, temperature, context=None: {"x": flow._sample_rows(fresh(seed), context, temperature)},
            [spec("seed", of=tf.int32), spec("temperature"), *context],
        ),
    }
    if hasattr(flow, "bijector"):
        z = spec("z", flow.base.event_shape)
        found["encode"] = Signature(lambda x, context=None: {"z": flow._encode(x, context)[0]}, [x, *context])
        found["decode"] = Signature(lambda z, context=None: {"x": flow._decode(z, context)[0]}, [z, *context])
        if len(accepts.event_shape) == 3:  # an image
            ends = [spec("x0", accepts.event_shape), spec("x1", accepts.event_shape), spec("t")]

            def interpolate(x0, x1, t, context=None):
                contexts = None if context is None else tf.concat([context, context], axis=0)
                z, n = flow._encode(tf.concat([x0, x1], axis=0), contexts)[0], tf.shape(x0)[0]
                z0, z1 = z[:n], z[n:]  # of unequal numbers of rows the next line fails
                mixed = latents.spherical(z0, z1, tf.reshape(t, [-1] + [1] * (z0.shape.rank - 1)))
                return {"x": flow._decode(mixed, context)[0]}

            found["interpolate"] = Signature(interpolate, [*ends, *context])
    return found


def fresh(seeds):
    """Seeds as they are; where they are negative, new ones in each call and each process."""
    # Of this operation seeds of 0 mean none; `tf.random.uniform` would write the global seed into the file.
    high, low = (tf.raw_ops.RandomUniform(shape=tf.shape(seeds), dtype=tf.float32, seed=0, seed2=0) for _ in range(2))
    drawn = tf.cast(high * 2.0**15, tf.int32) * 2**16 + tf.cast(low * 2.0**16, tf.int32)
    return tf.where(seeds < 0, drawn, seeds)


def save_options():
    # Gradients of ours refer to tensors inside loops, and nobody trains an export.
    return tf.saved_model.SaveOptions(experimental_custom_gradients=False)
