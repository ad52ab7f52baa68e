"""Bijector: one pass for value and log-det, and context everywhere."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfflows.numerics import sum_event
from tfflows.serialization import deserialize, serialize
from tfflows.watch import watched

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
      event_ndims: rank of the data's event.
      latent_ndims: rank of the latent's event, by default the same.
      event_shape: shape of the data's event, or None if any shape will do.
      context_dim: width of the context vectors it needs, or None if it hears no context.
      is_constant_jacobian: whether the log-det depends on neither data nor context.
      name: by default that of the class.
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
    def enough_rows(self) -> int | None:
        """How many rows of data, drawn at random, are enough for `adapt`; None if it makes use of all there are."""
        return None

    def leading_parts(self) -> tuple[list[tuple], Bijector | None]:
        """What data go through before the first part that `adapt` sets, each with its rank; and that, here itself."""
        return [], self

    def dequantize(self, x: tf.Tensor, context: tf.Tensor | None):
        """For data `x` that are integers, given the `context`: a point at random of what each stands for, and its gain.

        Returns:
          Points `[n, *event]`, and the gain log(volume / density of the point) `[n]`: added to the log-density there
          it is a lower bound, in the mean, of the log-probability of the integers. None for continuous data.
        """
        del context
        return x, None

    def quantize(self, x: tf.Tensor) -> tf.Tensor:
        """The integers that points `x` `[..., *event]` stand for; of continuous data the points."""
        return x

    @property
    def is_discrete(self) -> bool:
        """Whether data, or some of their columns, are integers, and densities are probabilities of them."""
        return False

    def check(self, x: np.ndarray, what: str, columns: Sequence[int] | None = None, *, exact: bool = True) -> None:
        """Refuses data that lie where there are none; by default all are welcome.

        Args:
          x: `[n, *event]`, finite.
          what: its name in the error.
          columns: the numbers of its columns there, if it is a part of a table.
          exact: whether integers must be integers; else points that stand for them will do.

        Raises:
          ValueError: that names rows, and columns of tables.
        """

    @property
    def circle_bound(self) -> float | None:
        """Half the period that circular scalars of its data must have; None if it does not say."""
        return None

    def on_circles(self, circular: np.ndarray, bound: float) -> tuple[Bijector, np.ndarray]:
        """A new one of these settings, of whose data some scalars are circular, and which of its latents are.

        Args:
          circular: `[D]` booleans.
          bound: circular scalars have the period 2 * bound.

        Raises:
          ValueError: if it is none that leaves circles as they are.
        """
        raise ValueError(
            f"Expected couplings or autoregressive maps with splines, Standardize and permutations for circular "
            f"columns; got {self.name}."
        )

    @property
    def default_loss(self):
        """What its paper trains it with: a loss of `tfflows.losses`, or None for the negative log-likelihood."""
        return None

    def describe(self) -> str:
        """One line for `FlowModel.summary`."""
        return type(self).__name__

    # Of maps of vectors whose Jacobian is triangular, scalar by scalar.

    @property
    def is_elementwise(self) -> bool:
        """Whether each scalar of the latent depends on that scalar of the data alone, and on the context."""
        return False

    @property
    def triangular_order(self) -> np.ndarray | None:
        """The position of each scalar in a sequence, `[D]`: its latent depends on it and those before it alone.

        None if there is no such sequence, or if events are not vectors.
        """
        return any_order(self) if self.is_elementwise else None

    def inverse_and_log_dets(self, x, context=None):
        """z = inverse(x) and the log dz_i/dx_i of each scalar, whose sum is the log-det; both `[..., D]`.

        Args:
          x: `[..., D]`.
          context: as in `forward_and_log_det`.

        Raises:
          ValueError: if the map is not triangular.
        """
        if not self.is_elementwise and self.triangular_order is None:
            raise ValueError(f"Expected a triangular bijector; got {self.describe()}.")
        return self._one_pass(self._inverse_and_log_dets, self._wide_tensor(x), context, 0)

    def _inverse_and_log_dets(self, x, context):
        raise NotImplementedError  # triangular bijectors have it

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
        """z = inverse(`x`) and log |det dz/dx|, together; `context` and `event_ndims` as in `forward_and_log_det`."""
        extra = 0 if event_ndims is None else event_ndims - self.inverse_min_event_ndims
        return self._one_pass(self._inverse_and_log_det, self._wide_tensor(x), context, extra)

    def _tensor(self, value):
        return tf.cast(tf.convert_to_tensor(value, dtype_hint=self.dtype), self.dtype)

    def _wide_tensor(self, x):
        is_wide = self.accepts_float64 and getattr(x, "dtype", None) in (np.float64, tf.float64)
        return tf.convert_to_tensor(x) if is_wide else self._tensor(x)

    def _one_pass(self, method, value, context, extra_ndims):
        if self._context_dim is None:
            context = None
        elif context is None:
            raise ValueError(f"Expected a context of width {self._context_dim} for {self.name}; got none.")
        else:
            context = tf.cast(context, self.dtype)
        result, log_det = method(value, context)
        return watched(self, value, context, result, sum_event(log_det, extra_ndims))

    # TFP's interface.

    def forward(self, x, name="forward", context=None):
        """Data of the latents `x` `[..., *event]`, as TFP calls them; `context` as in `forward_and_log_det`."""
        with tf.name_scope(name):
            return self.forward_and_log_det(x, context)[0]

    def inverse(self, y, name="inverse", context=None):
        """Latents of the data `y` `[..., *event]`; `context` as in `forward_and_log_det`."""
        with tf.name_scope(name):
            return self.inverse_and_log_det(y, context)[0]

    def forward_log_det_jacobian(self, x, event_ndims=None, name="forward_log_det_jacobian", context=None):
        """log |det dx/dz| `[...]` at the latents `x`; `event_ndims` and `context` as in `forward_and_log_det`."""
        with tf.name_scope(name):
            return self.forward_and_log_det(x, context, event_ndims)[1]

    def inverse_log_det_jacobian(self, y, event_ndims=None, name="inverse_log_det_jacobian", context=None):
        """log |det dz/dx| `[...]` at the data `y`; `event_ndims` and `context` as in `forward_and_log_det`."""
        with tf.name_scope(name):
            return self.inverse_and_log_det(y, context, event_ndims)[1]

    # Where data and latent have different shapes they are fixed ones.

    def _changes_shape(self):
        return self.latent_shape != self.event_shape

    def _forward_event_shape(self, latent_shape):
        return tf.TensorShape(self.event_shape) if self._changes_shape() else latent_shape

    def _inverse_event_shape(self, event_shape):
        return tf.TensorShape(self.latent_shape) if self._changes_shape() else event_shape

    def _forward_event_shape_tensor(self, latent_shape):
        return tf.constant(self.event_shape, tf.int32) if self._changes_shape() else latent_shape

    def _inverse_event_shape_tensor(self, event_shape):
        return tf.constant(self.latent_shape, tf.int32) if self._changes_shape() else event_shape

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
    def latent_shape(self) -> tuple[int, ...] | None:
        """Shape of the latent's event, or None if any shape will do."""
        return self._event_shape

    @property
    def level_sizes(self) -> tuple[int, ...] | None:
        """How many latents each scale has, the finest first, or None if there is only one scale."""
        return None

    @property
    def context_dim(self) -> int | None:
        """Width of the context it needs, or None."""
        return self._context_dim

    @property
    def n_classes(self) -> int | None:
        """Number of classes, if its context is one; None for any other context."""
        return None

    @property
    def noise(self) -> Bijector | None:
        """The `Noise` in it, the scale of which is the last number of the context; None if there is none."""
        return None

    @property
    def layers(self) -> list[keras.layers.Layer]:
        """Every Keras layer inside, in a fixed order: all the weights there are."""
        return list(self._flatten(predicate=lambda value: isinstance(value, keras.layers.Layer)))

    # Keras' configs.

    def get_config(self) -> dict:
        """The constructor's arguments, as a `.keras` file holds them."""
        return {k: serialize(v) for k, v in self.parameters.items()}

    @classmethod
    def from_config(cls, config: dict) -> Bijector:
        """A new one of these settings, from the `config` of `get_config`; its weights are not in there."""
        return cls(**{k: deserialize(v) for k, v in config.items()})


def any_order(bijector: Bijector) -> np.ndarray | None:
    """Left to right, if events are vectors: an order of maps for which any is right."""
    shape = bijector.event_shape
    return np.arange(shape[0]) if shape is not None and len(shape) == 1 else None


def describe(part) -> str:
    """One line about any bijector."""
    return part.describe() if isinstance(part, Bijector) else f"tfb.{type(part).__name__.lstrip('_')}"


def check_range(
    x: np.ndarray, low: Sequence[float], high: Sequence[float], what: str, columns: Sequence[int] | None, bad=None
) -> None:
    """Raises a ValueError for numbers of `x` `[n, D]` out of [low, high], or `bad`: of the first such column."""
    # Bounds as the data's dtype has them. What is missing, NaN, is not outside.
    outside = (x < np.asarray(low, x.dtype)) | (x > np.asarray(high, x.dtype))
    if bad is not None:
        outside |= bad
    for i in np.flatnonzero(outside.any(axis=0)):
        column = i if columns is None else columns[i]
        kind = "numbers" if bad is None else "whole numbers"
        refuse(outside[:, i], f"{kind} from {low[i]:g} to {high[i]:g} in column {column}", x[:, i], what)


def refuse(bad: np.ndarray, expected: str, x: np.ndarray, what: str) -> None:
    """Raises a ValueError that names rows where `bad` `[n]` is true, if there are any."""
    rows = np.flatnonzero(bad)
    if len(rows):
        first = ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "")
        value = np.array2string(np.asarray(x[rows[0]]), precision=6, threshold=6)
        raise ValueError(f"Expected {expected} of {what}; got {value} and the like in {len(rows)} rows: {first}.")
