"""Shift, and shift with scale."""

from __future__ import annotations

import dataclasses
import math

import tensorflow as tf

from tfflows.numerics import softclip, wrap
from tfflows.serialization import register
from tfflows.transformers.base import Transformer


@register
@dataclasses.dataclass(frozen=True)
class Shift(Transformer):
    """Adds a number.

    x = z + t;  log dx/dz = 0.

    Args:
      circular_bound: if given, > 0, x and z are circular coordinates in [-circular_bound,
        circular_bound) and the shift is a rotation.

    Reference:
      Dinh, Krueger & Bengio (2014), NICE, https://arxiv.org/abs/1410.8516
    """

    circular_bound: float | None = None

    @property
    def n_parameters(self) -> int:
        return 1

    @property
    def circle_bound(self):
        return self.circular_bound

    @property
    def wraps(self):
        return self.circular_bound is not None

    def forward_and_log_det(self, z, params):
        return self._add(z, params[..., 0, :])

    def inverse_and_log_det(self, x, params):
        return self._add(x, -params[..., 0, :])

    def _add(self, value, shift):
        value = value + shift
        if self.circular_bound is not None:
            value = wrap(value, self.circular_bound)
        return value, tf.zeros_like(value)


@register
@dataclasses.dataclass(frozen=True)
class Affine(Transformer):
    """Scales and shifts.

    x = z exp(s) + t with s = softclip(u, max_log_scale);  log dx/dz = s.

    Args:
      max_log_scale: > 0, bound of |s|, in nats. One layer scales by at most exp(5) = 148 by default, so
        that a dozen of them stay far from float32's overflow at exp(88).

    Raises:
      ValueError: for max_log_scale <= 0.

    Reference:
      Dinh, Sohl-Dickstein & Bengio (2017), Density estimation using Real NVP,
      https://arxiv.org/abs/1605.08803
    """

    max_log_scale: float = 5.0

    def __post_init__(self):
        if not self.max_log_scale > 0.0:
            raise ValueError(f"Expected max_log_scale > 0; got {self.max_log_scale}.")

    @property
    def n_parameters(self) -> int:
        return 2

    def forward_and_log_det(self, z, params):
        log_scale = softclip(params[..., 1, :], self.max_log_scale)
        return z * tf.exp(log_scale) + params[..., 0, :], log_scale + tf.zeros_like(z)

    def inverse_and_log_det(self, x, params):
        log_scale = softclip(params[..., 1, :], self.max_log_scale)
        return (x - params[..., 0, :]) * tf.exp(-log_scale), tf.zeros_like(x) - log_scale


@register
@dataclasses.dataclass(frozen=True)
class SigmoidAffine(Transformer):
    """Scales and shifts, and hardly expands towards the latent, however many layers there are.

    z = (x - t) s with s = m + (M - m) sigmoid(u + c), m and M the bounds and c such that u = 0 gives 1;
    log dz/dx = log s. Where `Affine` may multiply by 148 in every layer, K of these stay below M^K: the loss of a deep
    flow has no spikes.

    Args:
      min_scale: m, in (0, 1): samples are spread by at most 1 / m in a layer. With 0.01 a trained Glow of 16 layers
        lost all digits of a few images on their way to the latent and back; with 0.25 it fits as well and loses 2e-5.
      max_scale: M, > 1.

    Raises:
      ValueError: for scales outside these ranges.

    Reference:
      Kingma & Dhariwal (2018), Glow, https://arxiv.org/abs/1807.03039, whose scale has no lower bound
    """

    min_scale: float = 0.25
    max_scale: float = 1.2

    def __post_init__(self):
        if not 0.0 < self.min_scale < 1.0 < self.max_scale:
            raise ValueError(f"Expected min_scale in (0, 1) and max_scale > 1; got {self.min_scale}, {self.max_scale}.")

    @property
    def n_parameters(self) -> int:
        return 2

    def _scale(self, u):
        at_zero = math.log((1.0 - self.min_scale) / (self.max_scale - 1.0))
        return self.min_scale + (self.max_scale - self.min_scale) * tf.sigmoid(u + at_zero)

    def forward_and_log_det(self, z, params):
        scale = self._scale(params[..., 1, :])
        return z / scale + params[..., 0, :], tf.zeros_like(z) - tf.math.log(scale)

    def inverse_and_log_det(self, x, params):
        scale = self._scale(params[..., 1, :])
        return (x - params[..., 0, :]) * scale, tf.math.log(scale) + tf.zeros_like(x)
