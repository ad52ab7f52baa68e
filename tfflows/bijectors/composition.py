"""Chain and Invert: bijectors made of bijectors, ours or stock ones of TFP."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfflows.bijectors.base import Bijector, any_order, describe
from tfflows.bijectors.parts import (
    adapts,
    enough_rows,
    inverse_values,
    is_elementwise,
    merge,
    one_pass,
    scalar_log_dets,
    some_rows,
)
from tfflows.serialization import register

tfb = tfp.bijectors


def _recomputed(step, value, context):
    # Gradients flow to arguments and weights only, and None is no argument to it.
    if context is None:
        return tf.recompute_grad(functools.partial(step, context=None))(value)
    return tf.recompute_grad(step)(value, context)


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
            x, log_dets = scalar_log_dets(part, x, context)
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
            step = functools.partial(one_pass, part, method, event_ndims=rank)
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

    def leading_parts(self):
        before = []
        for part, rank in zip(self._parts, self._ranks, strict=True):
            if adapts(part):
                inside, first = part.leading_parts()
                return before + inside, first
            before.append((part, rank))
        return before, None

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
        return one_pass(self._inverted, "inverse", z, context, self.forward_min_event_ndims)

    def _inverse_and_log_det(self, x, context):
        return one_pass(self._inverted, "forward", x, context, self.inverse_min_event_ndims)

    @property
    def circle_bound(self):
        return getattr(self._inverted, "circle_bound", None)

    @property
    def is_elementwise(self):
        return not isinstance(self._inverted, Bijector) and is_elementwise(self._inverted)

    def _inverse_and_log_dets(self, x, context):
        return scalar_log_dets(tfb.Invert(self._inverted), x, context)

    @property
    def latent_shape(self):
        return self._inverted.event_shape if isinstance(self._inverted, Bijector) else super().latent_shape

    def describe(self):
        return f"Invert of {describe(self._inverted)}"
