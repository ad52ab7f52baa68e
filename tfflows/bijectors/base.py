"""Bijector, Chain and Invert: one pass for value and log-det, and context everywhere."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfflows.numerics import sum_event
from tfflows.serialization import deserialize, register, serialize

tfb = tfp.bijectors


class Bijector(tfb.Bijector):
    """An invertible map of whole events: a TFP bijector whose weights are Keras weights.

    `forward` generates (latent z to data x), `inverse` normalises. A subclass implements

      `_forward_and_log_det(z, context)` and `_inverse_and_log_det(x, context)`,

    each returning the value and the log-det, summed over the event and of the full batch shape; TFP's
    methods and the one-pass methods below follow from them. Unlike stock TFP bijectors these keep no cache,
    because a cached value would be stale after a training step.

    Args:
      parameters: the subclass's constructor arguments (`dict(locals())`), from which `.keras` files
        rebuild it.
      event_ndims: rank of an event.
      event_shape: shape of the data's event, or None if any shape will do.
      context_dim: width of the context vectors it needs, or None if it hears no context.
    """

    def __init__(
        self,
        parameters: dict,
        *,
        event_ndims: int = 1,
        latent_ndims: int | None = None,
        event_shape: Sequence[int] | None = None,
        context_dim: int | None = None,
        is_constant_jacobian: bool = False,
        name: str | None = None,
    ):
        super().__init__(
            forward_min_event_ndims=event_ndims if latent_ndims is None else latent_ndims,
            inverse_min_event_ndims=event_ndims,
            is_constant_jacobian=is_constant_jacobian,
            dtype=tf.as_dtype(keras.config.dtype_policy().variable_dtype),
            parameters={k: v for k, v in parameters.items() if k not in ("self", "__class__", "name")},
            name=name or type(self).__name__,
        )
        self._event_shape = None if event_shape is None else tuple(int(n) for n in event_shape)
        self._context_dim = None if context_dim is None else int(context_dim)

    # What a subclass implements.

    def _forward_and_log_det(self, z: tf.Tensor, context: tf.Tensor | None):
        raise NotImplementedError  # abstract

    def _inverse_and_log_det(self, x: tf.Tensor, context: tf.Tensor | None):
        raise NotImplementedError  # abstract

    def adapt(self, x: tf.Tensor, context: tf.Tensor | None = None, *, sample_weight=None, verbose: int = 0) -> None:
        """Sets from data `x` `[n, ...]` whatever is not trained by gradients; nothing by default.

        Args:
          x: `[n, *event]`.
          context: `[n, context_dim]` or None.
          sample_weight: `[n]`, >= 0, or None for equal ones.
          verbose: whether it shows its progress, if it takes long.
        """

    @property
    def needs_adapt(self) -> bool:
        """Whether `adapt` would set something that was never set."""
        return False

    @property
    def default_loss(self):
        """What its paper trains it with: a loss of `tfflows.losses`, or None for the negative log-likelihood."""
        return None

    def describe(self) -> str:
        """One line for `FlowModel.summary`."""
        return type(self).__name__

    # One pass.

    def forward_and_log_det(self, z, context=None, event_ndims: int | None = None):
        """x = forward(z) and log |det dx/dz|, computed together.

        Args:
          z: `[..., *event]`.
          context: `[..., context_dim]`, whose leading axes broadcast with z's, or None.
          event_ndims: rank of z's events, if they have more axes than this bijector needs.
        """
        extra = 0 if event_ndims is None else event_ndims - self.forward_min_event_ndims
        return self._one_pass(self._forward_and_log_det, self._tensor(z), context, extra)

    def inverse_and_log_det(self, x, context=None, event_ndims: int | None = None):
        """z = inverse(x) and log |det dz/dx|, computed together; arguments as in the forward pass."""
        extra = 0 if event_ndims is None else event_ndims - self.inverse_min_event_ndims
        is_wide = self.accepts_float64 and getattr(x, "dtype", None) in (np.float64, tf.float64)
        x = tf.convert_to_tensor(x) if is_wide else self._tensor(x)
        return self._one_pass(self._inverse_and_log_det, x, context, extra)

    def _tensor(self, value):
        return tf.cast(tf.convert_to_tensor(value, dtype_hint=self.dtype), self.dtype)

    def _one_pass(self, method, value, context, extra_ndims):
        if self._context_dim is None:
            context = None
        elif context is None:
            raise ValueError(f"Expected a context of width {self._context_dim} for {self.name}; got none.")
        else:
            context = tf.cast(context, self.dtype)
        value, log_det = method(value, context)
        return value, sum_event(log_det, extra_ndims)

    # TFP's interface.

    def forward(self, x, name="forward", context=None):
        with tf.name_scope(name):
            return self.forward_and_log_det(x, context)[0]

    def inverse(self, y, name="inverse", context=None):
        with tf.name_scope(name):
            return self.inverse_and_log_det(y, context)[0]

    def forward_log_det_jacobian(self, x, event_ndims=None, name="forward_log_det_jacobian", context=None):
        with tf.name_scope(name):
            return self.forward_and_log_det(x, context, event_ndims)[1]

    def inverse_log_det_jacobian(self, y, event_ndims=None, name="inverse_log_det_jacobian", context=None):
        with tf.name_scope(name):
            return self.inverse_and_log_det(y, context, event_ndims)[1]

    @classmethod
    def _parameter_properties(cls, dtype, num_classes=None):
        return {}  # weights have no batch shape

    @property
    def accepts_float64(self) -> bool:
        """Whether `inverse` takes float64 data although the weights are float32 (see `Standardize`)."""
        return False

    @property
    def event_shape(self) -> tuple[int, ...] | None:
        """Shape of the data's event, or None if any shape will do."""
        return self._event_shape

    @property
    def context_dim(self) -> int | None:
        """Width of the context it needs, or None."""
        return self._context_dim

    @property
    def layers(self) -> list[keras.layers.Layer]:
        """Every Keras layer inside, in a fixed order: all the weights there are."""
        return list(self._flatten(predicate=lambda value: isinstance(value, keras.layers.Layer)))

    # Keras' configs.

    def get_config(self) -> dict:
        return {k: serialize(v) for k, v in self.parameters.items()}

    @classmethod
    def from_config(cls, config: dict) -> Bijector:
        return cls(**{k: deserialize(v) for k, v in config.items()})


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


def describe(part) -> str:
    """One line about any bijector."""
    return part.describe() if isinstance(part, Bijector) else f"tfb.{type(part).__name__.lstrip('_')}"


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
        for i, (part, rank) in enumerate(zip(self._parts, self._ranks, strict=False)):
            if isinstance(part, Bijector):
                part.adapt(x, context, sample_weight=sample_weight, verbose=verbose)
            if any(isinstance(b, Bijector) and b.needs_adapt for b in self._parts[i + 1 :]):
                x = _one_pass(part, "inverse", x, context, rank)[0]

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
