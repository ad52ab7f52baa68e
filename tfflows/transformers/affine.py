"""Shift, and shift with scale."""

from __future__ import annotations

import dataclasses

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
      circular_bound: if given, x and z are circular coordinates in [-circular_bound,
        circular_bound) and the shift is a rotation.

    Reference:
      Dinh, Krueger & Bengio (2014), NICE, https://arxiv.org/abs/1410.8516
    """

    circular_bound: float | None = None

    @property
    def n_parameters(self) -> int:
        return 1

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
      max_log_scale: bound of |s|, in nats. One layer scales by at most exp(5) = 148 by default, so
        that a dozen of them stay far from float32's overflow at exp(88).

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
