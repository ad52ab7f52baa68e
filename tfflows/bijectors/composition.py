"""Chain and Invert: bijectors made of bijectors, ours or stock ones of TFP."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfflows.bijectors.base import Bijector, describe
from tfflows.serialization import register

tfb = tfp.bijectors

ADAPT_CHUNK = 8192  # rows


def _recomputed(step, value, context):
    # Gradients flow to arguments and weights only, and None is no argument to it.
    if context is None:
        return tf.recompute_grad(functools.partial(step, context=None))(value)
    return tf.recompute_grad(step)(value, context)


def _one_pass(part, method, value, context, event_ndims):
    """Runs a part of a chain, ours or stock TFP's; event_ndims is the rank of `value`'s events."""
    if isinstance(part, Bijector):
        return getattr(part, f"{method}_and_log_det")(value, context, event_ndims)
    # A new tensor misses the stock bijector's cache, which may be stale.
    value = tf.identity(value)
    log_det = getattr(part, f"{method}_log_det_jacobian")(value, event_ndims=event_ndims)
    # Stock bijectors with a constant Jacobian return a scalar.
    shape = tf.shape(value)[: tf.rank(value) - event_ndims]
    return getattr(part, method)(value), tf.broadcast_to(tf.cast(log_det, value.dtype), shape)


def _adapts(part) -> bool:
    """Whether a part of a chain sets anything in `adapt`."""
    if isinstance(part, Chain):
        return any(map(_adapts, part.bijectors))
    return isinstance(part, Bijector) and type(part).adapt is not Bijector.adapt


def _inverse_values(part, x: np.ndarray, context: np.ndarray | None, event_ndims: int) -> np.ndarray:
    """Rows as a part of a chain passes them on towards the latent, without log-dets, in bounded memory."""

    @tf.function(reduce_retracing=True)  # a graph leaves out what only the log-det needs
    def values(*rows):
        return _one_pass(part, "inverse", rows[0], rows[1] if len(rows) > 1 else None, event_ndims)[0]

    arrays = [v for v in (x, context) if v is not None]
    starts = range(0, len(x), ADAPT_CHUNK)
    return np.concatenate([values(*(tf.constant(v[i : i + ADAPT_CHUNK]) for v in arrays)) for i in starts])


def _check_part(part) -> None:
    if not isinstance(part, tfb.Bijector):
        raise ValueError(f"Expected bijectors of tfflows or TFP; got {part!r}.")
    if not isinstance(part, Bijector) and part.trainable_variables:
        names = ", ".join(v.name for v in part.trainable_variables)
        raise ValueError(
            f"Expected stock TFP bijectors without variables, which Keras cannot train or save; "
            f"got {type(part).__name__} with {names}. Use `Elementwise` for learned parameters."
        )
    inner = [] if isinstance(part, Bijector) else part.submodules
    if any(isinstance(m, Bijector) for m in inner):
        raise ValueError(
            f"Expected tfflows' own Chain and Invert around tfflows bijectors, because TFP's pass no context "
            f"on; got {type(part).__name__}."
        )


def _merge(what: str, values: Sequence):
    known = {v for v in values if v is not None}
    if len(known) > 1:
        raise ValueError(f"Expected parts of one {what}; got {sorted(known)}.")
    return known.pop() if known else None


@register
class Chain(Bijector):
    """Bijectors one after another, listed from the data to the latent as in `tfb.Chain`.

    forward(z) = b[0].forward(b[1].forward(... z)); log-dets add up.

    Args:
      bijectors: bijectors of tfflows, or stock ones of TFP without variables.
      recompute: whether a gradient computes again what happened inside each part, so that training keeps in memory
        the values between the parts only: for deep flows and large batches. A step takes about a fifth longer.

    Raises:
      ValueError: if the list is empty, or the parts differ in event shape or context width.
    """

    def __init__(self, bijectors: Sequence[tfb.Bijector], *, recompute: bool = False, name: str | None = None):
        parameters = dict(locals())
        if not bijectors:
            raise ValueError("Expected at least one bijector in a Chain; got none.")
        for part in bijectors:
            _check_part(part)
        ours = [b for b in bijectors if isinstance(b, Bijector)]
        self._parts = list(bijectors)
        self._ranks = self._event_ranks()
        self._recompute = bool(recompute)
        super().__init__(
            parameters,
            event_ndims=self._ranks[0],
            latent_ndims=self._ranks[-1],
            event_shape=_merge("event shape", [b.event_shape for b in ours]),
            context_dim=_merge("context width", [b.context_dim for b in ours]),
            is_constant_jacobian=all(b.is_constant_jacobian for b in bijectors),
            name=name,
        )

    def _event_ranks(self) -> list[int]:
        """Ranks of the event before, between and after the parts, from the data on: the least that fit."""
        for rank in range(9):
            ranks = [rank]
            for part in self._parts:
                if ranks[-1] < part.inverse_min_event_ndims:
                    break
                ranks.append(part.inverse_event_ndims(ranks[-1]))
            else:
                return ranks
        raise ValueError("Expected bijectors whose event ranks fit together.")

    @property
    def bijectors(self) -> list[tfb.Bijector]:
        """The parts, from the data to the latent."""
        return list(self._parts)

    @property
    def accepts_float64(self) -> bool:
        return getattr(self._parts[0], "accepts_float64", False)

    @property
    def needs_adapt(self) -> bool:
        return any(isinstance(b, Bijector) and b.needs_adapt for b in self._parts)

    @property
    def default_loss(self):
        named = [b.default_loss for b in self._parts if isinstance(b, Bijector)]
        return next((loss for loss in named if loss is not None), None)

    def _forward_and_log_det(self, z, context):
        return self._pass(reversed(self._parts), reversed(self._ranks), "forward", z, context)

    def _inverse_and_log_det(self, x, context):
        return self._pass(self._parts, self._ranks, "inverse", x, context)

    def _pass(self, parts, ranks, method, value, context):
        total = 0.0
        for part, rank in zip(parts, ranks, strict=False):
            step = functools.partial(_one_pass, part, method, event_ndims=rank)
            if self._recompute:
                value, log_det = _recomputed(step, value, context)
            else:
                value, log_det = step(value, context)
            total = total + log_det
        return value, total

    def adapt(self, x, context=None, *, sample_weight=None, verbose=0):
        x, context, sample_weight = (None if v is None else np.asarray(v) for v in (x, context, sample_weight))
        for i, (part, rank) in enumerate(zip(self._parts, self._ranks, strict=False)):
            if isinstance(part, Bijector):
                part.adapt(x, context, sample_weight=sample_weight, verbose=verbose)
            later = [b for b in self._parts[i + 1 :] if _adapts(b)]
            if not later:
                return
            enough = max(len(x) if b.enough_rows is None else b.enough_rows for b in later)
            if enough < len(x):
                some = np.random.default_rng(0).choice(len(x), enough, replace=False)
                x, context, sample_weight = (None if v is None else v[some] for v in (x, context, sample_weight))
            x = _inverse_values(part, x, context, rank)

    @property
    def enough_rows(self):
        each = [b.enough_rows for b in self._parts if _adapts(b)]
        return None if None in each else max(each)

    def describe(self):
        return f"Chain of {len(self._parts)}"


@register
class Invert(Bijector):
    """A bijector the other way round: forward(z) = bijector.inverse(z).

    Args:
      bijector: a bijector of tfflows, or a stock one of TFP without variables.
    """

    def __init__(self, bijector: tfb.Bijector, name: str | None = None):
        parameters = dict(locals())
        _check_part(bijector)
        self._inverted = bijector
        ours = isinstance(bijector, Bijector)
        super().__init__(
            parameters,
            event_ndims=bijector.forward_min_event_ndims,
            latent_ndims=bijector.inverse_min_event_ndims,
            event_shape=bijector.event_shape if ours else None,
            context_dim=bijector.context_dim if ours else None,
            is_constant_jacobian=bijector.is_constant_jacobian,
            name=name,
        )

    def _forward_and_log_det(self, z, context):
        return _one_pass(self._inverted, "inverse", z, context, self.forward_min_event_ndims)

    def _inverse_and_log_det(self, x, context):
        return _one_pass(self._inverted, "forward", x, context, self.inverse_min_event_ndims)

    def describe(self):
        return f"Invert of {describe(self._inverted)}"
