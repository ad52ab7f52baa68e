"""Monotonic splines."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfflows.numerics import bin_selector, knots, safe_sqrt, select, softclip, wrap
from tfflows.serialization import register
from tfflows.transformers.base import Transformer


class _Bin(NamedTuple):
    """The bin that holds a point: corners, sizes, the slopes at its ends and of its chord."""

    x: tf.Tensor
    width: tf.Tensor
    z: tf.Tensor
    height: tf.Tensor
    slope_left: tf.Tensor
    slope_right: tf.Tensor
    chord: tf.Tensor


@register
@dataclasses.dataclass(frozen=True)
class RationalQuadraticSpline(Transformer):
    """Monotonic rational-quadratic spline on [-bound, bound], the identity outside, or circular.

    In a bin of width w, height h, chord s = h / w and end slopes d0, d1, with t = (x - x0) / w:

      z = z0 + h (s t^2 + d0 t (1 - t)) / (s + (d0 + d1 - 2 s) t (1 - t))
      dz/dx = s^2 (d1 t^2 + 2 s t (1 - t) + d0 (1 - t)^2) / (s + (d0 + d1 - 2 s) t (1 - t))^2

    The rational map is the inverse (data to latent, the direction that training runs);
    `forward` solves it for t, a quadratic equation.

    Args:
      n_bins: K, the number of bins.
      bound: the spline acts on [-bound, bound] on both sides.
      min_bin: least width and height of a bin as a fraction of the interval. It decides the float32
        accuracy of the round trip: rounding an x near `bound` moves t by 6e-8 / min_bin.
      max_bin_ratio: no bin's free share is more than this times another's.
      min_slope: slopes at the knots stay in [min_slope, 1 / min_slope].
      circular: x and z are circular coordinates of period 2 * bound: values outside are
        wrapped in, and the slopes at both ends are one and the same parameter. Otherwise the slope
        there is 1, that of the tails, and the map has a continuous derivative everywhere.

    A number needs 3 K - 1 parameters, or 3 K if circular.

    Reference:
      Durkan, Bekasov, Murray & Papamakarios (2019), Neural spline flows,
      https://arxiv.org/abs/1906.04032; circular: Rezende et al. (2020), Normalizing flows on tori
      and spheres, https://arxiv.org/abs/2002.02428
    """

    n_bins: int = 8
    bound: float = 5.0
    min_bin: float = 1e-2
    max_bin_ratio: float = 1e2
    min_slope: float = 1e-2
    circular: bool = False

    def __post_init__(self):
        if self.n_bins < 1:
            raise ValueError(f"Expected n_bins >= 1; got {self.n_bins}.")
        if not self.bound > 0.0:
            raise ValueError(f"Expected bound > 0; got {self.bound}.")
        if not 0.0 <= self.min_bin * self.n_bins < 1.0:
            raise ValueError(f"Expected min_bin in [0, 1 / n_bins) = [0, {1 / self.n_bins:.4g}); got {self.min_bin}.")
        if not self.max_bin_ratio > 1.0:
            raise ValueError(f"Expected max_bin_ratio > 1; got {self.max_bin_ratio}.")
        if not 0.0 < self.min_slope < 1.0:
            raise ValueError(f"Expected min_slope in (0, 1); got {self.min_slope}.")

    @property
    def n_parameters(self) -> int:
        return 3 * self.n_bins - (0 if self.circular else 1)

    def inverse_and_log_det(self, x, params):
        inside, x_in = self._enter(x)
        b = self._locate(x_in, params, by_latent=False)
        t = tf.clip_by_value((x_in - b.x) / b.width, 0.0, 1.0)
        # denominator >= min(chord, (d0 + d1) / 2) > 0: it is linear in t (1 - t), which is in [0, 1/4].
        mixed = t * (1.0 - t)
        denominator = b.chord + (b.slope_left + b.slope_right - 2.0 * b.chord) * mixed
        z = b.z + b.height * (b.chord * t**2 + b.slope_left * mixed) / denominator
        log_det = self._log_slope(b, t, mixed, denominator)
        return self._leave(inside, x, z, log_det)

    def forward_and_log_det(self, z, params):
        inside, z_in = self._enter(z)
        b = self._locate(z_in, params, by_latent=True)
        # With r in [0, 1] the relative height in the bin, t solves a t^2 + c t - q = 0.
        r = tf.clip_by_value((z_in - b.z) / b.height, 0.0, 1.0)
        bend = b.slope_left + b.slope_right - 2.0 * b.chord
        c = b.slope_left - r * bend
        a = b.chord - c
        q = b.chord * r
        # t in [0, 1] is 2 q / (c + sqrt(c^2 + 4 a q)). Where c < 0 that sum cancels, so the equivalent
        # (sqrt(c^2 + 4 a q) - c) / 2 a is taken; there a > chord > 0.
        root = safe_sqrt(c**2 + 4.0 * a * q)
        falling = c < 0.0
        t = tf.where(
            falling,
            (root - c) / tf.where(falling, 2.0 * a, tf.ones_like(a)),
            2.0 * q / tf.where(falling, tf.ones_like(c), c + root),
        )
        t = tf.clip_by_value(t, 0.0, 1.0)
        mixed = t * (1.0 - t)
        denominator = b.chord + bend * mixed
        log_det = -self._log_slope(b, t, mixed, denominator)
        return self._leave(inside, z, b.x + b.width * t, log_det)

    def _enter(self, value):
        """Where the spline acts, and `value` moved to where it can be evaluated safely."""
        if self.circular:
            return None, wrap(value, self.bound)
        # Both branches of the `where` in _leave are computed: the unused one must stay finite,
        # in value and in gradient, so it sees a value inside.
        inside = tf.abs(value) < self.bound
        return inside, tf.where(inside, value, tf.zeros_like(value))

    def _leave(self, inside, value, mapped, log_det):
        if inside is None:
            return wrap(mapped, self.bound), log_det
        return tf.where(inside, mapped, value), tf.where(inside, log_det, tf.zeros_like(log_det))

    def _locate(self, value, params, *, by_latent) -> _Bin:
        k = self.n_bins
        edges_x = knots(params[..., :k], -self.bound, self.bound, self.min_bin, self.max_bin_ratio)
        edges_z = knots(params[..., k : 2 * k], -self.bound, self.bound, self.min_bin, self.max_bin_ratio)
        slopes = tf.exp(softclip(params[..., 2 * k :], float(-np.log(self.min_slope))))
        if self.circular:
            slopes = tf.concat([slopes, slopes[..., :1]], axis=-1)
        else:
            one = [[0, 0]] * (len(slopes.shape) - 1) + [[1, 1]]
            slopes = tf.pad(slopes, one, constant_values=1.0)
        chosen = bin_selector(value, edges_z if by_latent else edges_x)
        x, z = select(chosen, edges_x[..., :-1]), select(chosen, edges_z[..., :-1])
        width = select(chosen, edges_x[..., 1:] - edges_x[..., :-1])
        height = select(chosen, edges_z[..., 1:] - edges_z[..., :-1])
        left, right = select(chosen, slopes[..., :-1]), select(chosen, slopes[..., 1:])
        return _Bin(x, width, z, height, left, right, height / width)

    @staticmethod
    def _log_slope(b: _Bin, t, mixed, denominator):
        """log dz/dx as three logs: a quotient of powers would overflow first."""
        numerator = b.slope_right * t**2 + 2.0 * b.chord * mixed + b.slope_left * (1.0 - t) ** 2
        return 2.0 * tf.math.log(b.chord) + tf.math.log(numerator) - 2.0 * tf.math.log(denominator)
