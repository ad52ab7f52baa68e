"""Chain and Invert: bijectors made of bijectors, ours or stock ones of TFP."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfflows.bijectors.base import Bijector, any_order, describe
from tfflows.serialization import register
from tfflows.watch import watched

tfb = tfp.bijectors

ADAPT_ROWS = 8192  # worked on at a time, at most
ADAPT_NUMBERS = 2**20  # in them, at most: a convolutional net makes some fifty of each


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
    log_det = tf.broadcast_to(tf.cast(log_det, value.dtype), shape)
    return watched(part, value, None, getattr(part, method)(value), log_det)


def _log_dets(part, x, context):
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
            value = _one_pass(part, "inverse", value, context, rank)[0]
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


def merge(what: str, values: Sequence):
    """The one value that parts agree on, or None if they have none."""
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
        event_shape, self._latent_shape = self._event_shapes()
        super().__init__(
            parameters,
            event_ndims=self._ranks[0],
            latent_ndims=self._ranks[-1],
            event_shape=event_shape,
            context_dim=merge("context width", [b.context_dim for b in ours]),
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

    def _event_shapes(self) -> tuple[tuple | None, tuple | None]:
        """Shapes of the data's and the latent's events, or None if no part knows."""
        data_shape = shape = None
        for i, part in enumerate(self._parts):
            known = part.event_shape if isinstance(part, Bijector) else None
            if known is not None and shape is None:
                data_shape = shape = known
                for before in reversed(self._parts[:i]):
                    data_shape = tuple(before.forward_event_shape(data_shape))
            elif known is not None and known != shape:
                raise ValueError(f"Expected parts of one event shape; got {shape} and {known}.")
            if shape is not None:
                shape = tuple(part.inverse_event_shape(shape))
        return data_shape, shape

    @property
    def is_elementwise(self):
        return all(map(is_elementwise, self._parts))

    @property
    def triangular_order(self):
        orders = [getattr(part, "triangular_order", None) for part in self._parts if not is_elementwise(part)]
        if not orders:
            return any_order(self)
        agree = all(order is not None and np.array_equal(order, orders[0]) for order in orders)
        return orders[0] if agree else None

    def _inverse_and_log_dets(self, x, context):
        total = 0.0
        for part in self._parts:
            x, log_dets = _log_dets(part, x, context)
            total = total + log_dets
        return x, total

    @property
    def latent_shape(self):
        return self._latent_shape

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
        passed = []  # parts that the rows have yet to go through
        for i, part in enumerate(self._parts):
            if adapts(part):
                x, context, sample_weight = some_rows(enough_rows(self._parts[i:]), x, context, sample_weight)
                x = inverse_values([p for p, _ in passed], [r for _, r in passed], x, context)
                passed = []
                part.adapt(x, context, sample_weight=sample_weight, verbose=verbose)
            passed.append((part, self._ranks[i]))

    @property
    def enough_rows(self):
        return enough_rows(self._parts)

    def dequantize(self, x, context):
        first = self._parts[0]
        return first.dequantize(x, context) if isinstance(first, Bijector) else (x, None)

    def quantize(self, x):
        first = self._parts[0]
        return first.quantize(x) if isinstance(first, Bijector) else x

    @property
    def is_discrete(self):
        return getattr(self._parts[0], "is_discrete", False)

    def check(self, x, what, columns=None, *, exact=True):
        if isinstance(self._parts[0], Bijector):
            self._parts[0].check(x, what, columns, exact=exact)

    @property
    def circle_bound(self):
        bounds = (getattr(part, "circle_bound", None) for part in self._parts)
        return next((bound for bound in bounds if bound is not None), None)

    @property
    def n_classes(self):
        return merge("number of classes", [b.n_classes for b in self._parts if isinstance(b, Bijector)])

    @property
    def noise(self):
        """That of the parts.

        Raises:
          ValueError: if there are several.
        """
        found = [b.noise for b in self._parts if isinstance(b, Bijector) and b.noise is not None]
        if len(found) > 1:
            raise ValueError(f"Expected Noise once in a chain; got it {len(found)} times.")
        return found[0] if found else None

    @property
    def level_sizes(self):
        return getattr(self._parts[-1], "level_sizes", None)

    def describe(self):
        return f"Chain of {len(self._parts)}"


@register
class Invert(Bijector):
    """A bijector the other way round: forward(z) = bijector.inverse(z).

    Args:
      bijector: a bijector of tfflows, or a stock one of TFP without variables.

    Raises:
      ValueError: for what is neither.
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
            event_shape=bijector.latent_shape if ours else None,
            context_dim=bijector.context_dim if ours else None,
            is_constant_jacobian=bijector.is_constant_jacobian,
            name=name,
        )

    def _forward_and_log_det(self, z, context):
        return _one_pass(self._inverted, "inverse", z, context, self.forward_min_event_ndims)

    def _inverse_and_log_det(self, x, context):
        return _one_pass(self._inverted, "forward", x, context, self.inverse_min_event_ndims)

    @property
    def circle_bound(self):
        return getattr(self._inverted, "circle_bound", None)

    @property
    def is_elementwise(self):
        return not isinstance(self._inverted, Bijector) and is_elementwise(self._inverted)

    def _inverse_and_log_dets(self, x, context):
        return _log_dets(tfb.Invert(self._inverted), x, context)

    @property
    def latent_shape(self):
        return self._inverted.event_shape if isinstance(self._inverted, Bijector) else super().latent_shape

    def describe(self):
        return f"Invert of {describe(self._inverted)}"
