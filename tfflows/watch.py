"""What each bijector was given and what it made of it, shown to who asks: where the first bad number comes from."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

import tensorflow as tf

_watchers = []


@dataclasses.dataclass
class Culprit:
    """A bijector one of whose results is not finite, though what it was given was.

    Args:
      bijector: the innermost such one.
      what: "value" or "log-det"; or "context", if it is what the bijector was told that is not finite.
      numbers: those.
    """

    bijector: tf.Module
    what: str
    numbers: tf.Tensor


def watched(bijector, given: tf.Tensor, context: tf.Tensor | None, value: tf.Tensor, log_det: tf.Tensor):
    """`value` and `log_det`, what a `bijector` made of what it was `given`, shown to those that are `watching`."""
    for watcher in _watchers:
        watcher(bijector, given, context, value, log_det)
    return value, log_det


@contextlib.contextmanager
def watching() -> Iterator[list[Culprit]]:
    """What bijectors compute inside, eagerly, is looked at: the first culprit is then in the list, if there is one."""
    found = []

    def look(bijector, given, context, value, log_det):
        if found or not tf.executing_eagerly():
            return
        if context is not None and not is_finite(context):
            found.append(Culprit(bijector, "context", context))
        elif is_finite(given):
            results = {"value": value, "log-det": log_det}
            found.extend(Culprit(bijector, k, v) for k, v in results.items() if not is_finite(v))

    _watchers.append(look)
    try:
        yield found
    finally:
        _watchers.remove(look)


def is_finite(value: tf.Tensor) -> bool:
    """Whether all numbers of a tensor are finite."""
    return bool(tf.reduce_all(tf.math.is_finite(value)))
