"""Location and scale from data: Standardize and Whiten (fixed), and ActNorm (then trained)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfflows.bijectors.base import Bijector, any_order
from tfflows.bijectors.parts import latent_map
from tfflows.nets import AffineMap, Statistics
from tfflows.numerics import check_counts, sum_event, times
from tfflows.products import matmul
from tfflows.serialization import register
from tfflows.streaming import Moments

ENOUGH_VALUES = 100_000  # of a channel, where training goes on from there anyway


class _FromMoments(Bijector):
    """A bijector that takes nothing but moments from data."""

    _given = None  # moments of more rows than `adapt` gets
    _products = False


class MomentsOfAll:
    """Gives the first part of a flow that `adapt` sets the moments of all rows, while the others see some of them.

    As a context it hands over the moments of the rows that were added, if any were; `bijector.adapt` then uses them.

    Args:
      bijector: of the flow, or None. It gets nothing where the first part to be set takes other things from data than
        moments, is trained afterwards, or comes after one that is trained.
    """

    def __init__(self, bijector: Bijector | None = None):
        before, first = ([], None) if bijector is None else bijector.leading_parts()
        takes = isinstance(first, _FromMoments) and first.enough_rows is None
        self._part = first if takes and not any(part.variables for part, _ in before) else None
        self._moments = Moments(products=takes and first._products)
        self._map = latent_map(*zip(*before, strict=True)) if before else np.asarray

    def add(self, x: np.ndarray, weight: np.ndarray | None = None) -> None:
        """Takes in rows `[n, *event]` of weights `[n]`."""
        if self._part is not None:
            self._moments.add(np.asarray(self._map(x)), weight)

    def __enter__(self):
        if self._moments.weight:
            self._part._given = self._moments

    def __exit__(self, *_):
        if self._part is not None:
            self._part._given = None


class _Normalization(_FromMoments):
    """What both have in common: x = location + scale z, one location and scale for each channel."""

    def __init__(self, parameters, event_shape, channels, *, trainable, name):
        super().__init__(
            parameters,
            event_ndims=len(event_shape),
            event_shape=event_shape,
            is_constant_jacobian=True,
            name=name,
        )
        self._statistics = Statistics(channels, trainable=trainable)
        # Each channel's log-scale counts once for every value of the event that it scales.
        self._repeats = math.prod(event_shape) // math.prod(channels)

    @property
    def needs_adapt(self):
        return not self._statistics.is_adapted

    @property
    def enough_rows(self):
        if not self._statistics.trainable:
            return None
        return max(ENOUGH_VALUES // self._repeats, 256)  # images differ more than their pixels

    def adapt(self, x, context=None, *, sample_weight=None, verbose=0):
        x = np.asarray(x).reshape(-1, *self._statistics.shape)
        weight = None if sample_weight is None else np.repeat(sample_weight, self._repeats)
        moments = self._given or Moments.of(x, weight)
        location, scale = moments.mean, np.sqrt(moments.variance)
        if (alone := self._left_alone()) is not None:
            location, scale = np.where(alone, 0.0, location), np.where(alone, 1.0, scale)
        self._statistics.set(location, _resolved(location, scale, self.dtype))

    def _left_alone(self):
        """Which scalars are not scaled; None for all that are."""
        return None

    def _forward_and_log_det(self, z, context):
        location, log_scale, rest = (tf.cast(s, z.dtype) for s in self._statistics(None))
        return (z * tf.exp(log_scale) + rest) + location, self._log_det(z, log_scale)

    def _inverse_and_log_det(self, x, context):
        location, log_scale, rest = (tf.cast(s, x.dtype) for s in self._statistics(None))
        z, log_det = ((x - location) - rest) * tf.exp(-log_scale), self._log_det(x, -log_scale)
        return tf.cast(z, self.dtype), tf.cast(log_det, self.dtype)

    def _inverse_and_log_dets(self, x, context):
        z, _ = self._inverse_and_log_det(x, context)
        log_scale = tf.cast(self._statistics(None)[1], z.dtype)
        return z, tf.broadcast_to(-log_scale, tf.shape(z))

    @property
    def is_elementwise(self):
        return True

    def _log_det(self, value, log_scale):
        total = self._repeats * sum_event(log_scale, log_scale.shape.rank)
        return tf.broadcast_to(total, tf.shape(value)[: tf.rank(value) - len(self.event_shape)])


@register
class Standardize(_Normalization):
    """Gives every scalar of the data mean 0 and standard deviation 1, as found by `adapt`; not trained.

    x = location + scale z;  log-det = sum_i log scale_i.

    float64 data may come in although the weights are float32: the subtraction is then done in
    float64, so that data far from zero (mean 5e3, deviation 2e-2) keep their digits.

    Args:
      event_shape: shape of an event; an int is one axis.
      circular: which scalars of `[D]` are circular and stay as they are; by default none.

    Raises:
      ValueError: for circular of another shape.
    """

    def __init__(
        self,
        event_shape: int | Sequence[int],
        circular: Sequence[bool] | np.ndarray | None = None,
        name: str | None = None,
    ):
        parameters = dict(locals())
        shape = (event_shape,) if isinstance(event_shape, int) else tuple(event_shape)
        if circular is not None and np.shape(circular) != shape:
            raise ValueError(f"Expected circular of shape {shape}; got {np.shape(circular)}.")
        super().__init__(parameters, shape, channels=shape, trainable=False, name=name)
        self._circular = None if circular is None else np.asarray(circular, bool)

    @property
    def accepts_float64(self):
        return True

    def _left_alone(self):
        return self._circular

    def on_circles(self, circular, bound):
        return Standardize(self.event_shape, np.asarray(circular).tolist()), circular


@register
class ActNorm(_Normalization):
    """Location and scale of each channel: `adapt` standardises what comes in, training goes on from there.

    x = location + scale z;  log-det = (values per channel) * sum_c log scale_c.

    Args:
      event_shape: shape of an event; an int is one axis. The last axis holds the channels.

    Reference:
      Kingma & Dhariwal (2018), Glow, https://arxiv.org/abs/1807.03039
    """

    def __init__(self, event_shape: int | Sequence[int], name: str | None = None):
        parameters = dict(locals())
        shape = (event_shape,) if isinstance(event_shape, int) else tuple(event_shape)
        super().__init__(parameters, shape, channels=shape[-1:], trainable=True, name=name)


@register
class Whiten(_FromMoments):
    """Gives the data mean 0 and covariance 1, as found by `adapt`; not trained.

    x = mean + L z, L the Cholesky factor of the covariance;  log-det = sum_i log L_ii. Where scalars are strongly
    correlated a flow of a few layers needs this more than `Standardize`. float64 data may come in, as there.

    Args:
      n_dim: number of scalars.

    Raises:
      ValueError: for n_dim < 1.
    """

    _products = True

    def __init__(self, n_dim: int, name: str | None = None):
        parameters = dict(locals())
        check_counts(n_dim=n_dim)
        super().__init__(parameters, event_shape=(n_dim,), is_constant_jacobian=True, name=name)
        self._map = AffineMap(n_dim)

    @property
    def needs_adapt(self):
        return not self._map.is_adapted

    @property
    def accepts_float64(self):
        return True

    def adapt(self, x, context=None, *, sample_weight=None, verbose=0):
        moments = self._given or Moments.of(np.asarray(x), sample_weight, products=True)
        scale = _resolved(moments.mean, np.sqrt(moments.variance), self.dtype)
        correlation = moments.covariance / scale / scale[:, np.newaxis]
        # With 1e-6 no direction is scaled by more than 1000, which is as much as float32 inverts to three digits.
        correlation += 1e-6 * np.eye(len(scale)) + np.diag(np.diag(correlation) == 0.0)
        self._map.set(moments.mean, scale[:, np.newaxis] * np.linalg.cholesky(correlation))

    def _forward_and_log_det(self, z, context):
        mean, factor, _ = (tf.cast(v, z.dtype) for v in self._map(None))
        return mean + times(z, tf.transpose(factor), matmul), self._log_det(z, factor)

    def _inverse_and_log_det(self, x, context):
        mean, factor, inverse = (tf.cast(v, x.dtype) for v in self._map(None))
        z, log_det = times(x - mean, tf.transpose(inverse), matmul), -self._log_det(x, factor)
        return tf.cast(z, self.dtype), tf.cast(log_det, self.dtype)

    def _inverse_and_log_dets(self, x, context):
        z, _ = self._inverse_and_log_det(x, context)
        diagonal = tf.cast(tf.linalg.diag_part(self._map()[1]), z.dtype)
        return z, tf.broadcast_to(-tf.math.log(diagonal), tf.shape(z))

    @property
    def triangular_order(self):
        return any_order(self)  # the factor is lower triangular

    def _log_det(self, value, factor):
        total = tf.reduce_sum(tf.math.log(tf.linalg.diag_part(factor)))
        return tf.broadcast_to(total, tf.shape(value)[:-1])


def _resolved(location: np.ndarray, scale: np.ndarray, dtype: tf.DType) -> np.ndarray:
    """The scales, 1 where a column is constant in `dtype`; names those, and columns whose spread is not resolved."""
    # Below that the reciprocal overflows, and TensorFlow's kernels compute with denormal numbers as with zeros.
    is_constant = scale < np.finfo(dtype.as_numpy_dtype).tiny
    constant = np.flatnonzero(is_constant.ravel()).tolist()
    if constant:
        warnings.warn(
            f"Columns {constant} are constant in the data: their density is not finite. They are left "
            "unscaled; drop them, or add noise of the size of their resolution.",
            stacklevel=4,
        )
    # Below 8 steps the samples, and input of that dtype, are visibly quantised.
    step = np.spacing(np.abs(location).astype(dtype.as_numpy_dtype)).astype(np.float64)
    coarse = np.flatnonzero((scale < 8.0 * step).ravel() & ~is_constant.ravel()).tolist()
    if coarse:
        hint = " in float64 first, or use float64: keras.config.set_dtype_policy('float64')"
        warnings.warn(
            f"Columns {coarse} spread so little around their mean that {dtype.name} resolves fewer than 8 steps of "
            f"a standard deviation. Subtract the mean{hint if dtype == tf.float32 else ' first'}.",
            stacklevel=4,
        )
    return np.where(is_constant, 1.0, scale)
