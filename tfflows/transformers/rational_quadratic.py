"""The rational-quadratic spline."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import tensorflow as tf

from tfflows.numerics import safe_sqrt, softclip_gradient
from tfflows.serialization import register
from tfflows.transformers.spline import Bin, BinGradient, Spline


class _Curve(NamedTuple):
    """The rational map in a bin, at t in [0, 1]: what value, slope and gradients are made of."""

    t: tf.Tensor
    mixed: tf.Tensor
    chord: tf.Tensor
    slope_left: tf.Tensor
    slope_right: tf.Tensor
    bend: tf.Tensor
    rise: tf.Tensor
    numerator: tf.Tensor
    denominator: tf.Tensor


@register
@dataclasses.dataclass(frozen=True)
class RationalQuadraticSpline(Spline):
    """Monotonic rational-quadratic spline on [-bound, bound], the identity outside, or circular.

    In a bin of width w, height h, chord s = h / w and end slopes d0, d1, with t = (x - x0) / w:

      z = z0 + h (s t^2 + d0 t (1 - t)) / (s + (d0 + d1 - 2 s) t (1 - t))
      dz/dx = s^2 (d1 t^2 + 2 s t (1 - t) + d0 (1 - t)^2) / (s + (d0 + d1 - 2 s) t (1 - t))^2

    The rational map is the inverse (data to latent, the direction that training runs);
    `forward` solves it for t, a quadratic equation.

    The arguments are those of every `Spline`: n_bins, bound, min_bin, max_bin_ratio, min_slope, circular. A number
    needs 3 K - 1 parameters, or 3 K if circular: for the widths, the heights, the slopes.

    Reference:
      Durkan, Bekasov, Murray & Papamakarios (2019), Neural spline flows,
      https://arxiv.org/abs/1906.04032; circular: Rezende et al. (2020), Normalizing flows on tori
      and spheres, https://arxiv.org/abs/2002.02428
    """

    def _normalize_in_bin(self, b, x):
        curve = _curve(self._slopes(b), tf.clip_by_value((x - b.x) / b.width, 0.0, 1.0))
        return b.z + b.height * curve.rise / curve.denominator, _log_slope(curve), curve

    def _generate_in_bin(self, b, z):
        slopes = self._slopes(b)
        curve = _curve(slopes, _solve(slopes, tf.clip_by_value((z - b.z) / b.height, 0.0, 1.0)))
        return b.x + b.width * curve.t, _log_slope(curve), curve

    def _d_log_slope(self, b, curve):
        return _d_log_slope(curve) / b.width

    def _slopes(self, b):
        """Of the chord and at both ends of a bin."""
        return b.height / b.width, self._slope(b.raw_left), self._slope(b.raw_right)

    def _pull_back(self, b: Bin, curve: _Curve, grad_z, grad_log_slope):
        t, m, s, d0, d1, _, rise, n, d = curve
        # In terms of t, chord, height and end slopes; z = z0 + height rise / d, slope = s^2 n / d^2.
        by_z = grad_z * b.height / d**2
        by_n, by_d = grad_log_slope / n, 2.0 * grad_log_slope / d
        by_t = by_z * s * n + grad_log_slope * _d_log_slope(curve)
        by_s = by_z * (t**2 * d - rise * (1.0 - 2.0 * m)) + 2.0 * grad_log_slope / s
        by_s += 2.0 * by_n * m - by_d * (1.0 - 2.0 * m)
        by_left = by_z * m * (d - rise) + by_n * (1.0 - t) ** 2 - by_d * m
        by_right = by_n * t**2 - by_z * m * rise - by_d * m
        # In terms of the bin's corner and sizes: t = (x - x0) / width, s = height / width.
        by_x = by_t / b.width
        by_width = -(by_t * t + by_s * s) / b.width
        by_height = grad_z * rise / d + by_s / b.width
        raw_left, raw_right = (
            softclip_gradient(by * slope, raw, self._max_log_slope)
            for by, slope, raw in ((by_left, d0, b.raw_left), (by_right, d1, b.raw_right))
        )
        return BinGradient(by_x, -by_x, by_width, grad_z, by_height, raw_left, raw_right, ())


def _curve(slopes, t) -> _Curve:
    chord, left, right = slopes
    mixed = t * (1.0 - t)
    bend = left + right - 2.0 * chord
    return _Curve(
        t,
        mixed,
        chord,
        left,
        right,
        bend,
        rise=chord * t**2 + left * mixed,
        numerator=right * t**2 + 2.0 * chord * mixed + left * (1.0 - t) ** 2,
        # >= min(chord, (left + right) / 2) > 0: it is linear in t (1 - t), which is in [0, 1/4].
        denominator=chord + bend * mixed,
    )


def _solve(slopes, r):
    """The t in [0, 1] at which the curve of a bin is at `r` in [0, 1], the relative height."""
    chord, left, right = slopes
    # t solves a t^2 + c t - q = 0.
    c = left - r * (left + right - 2.0 * chord)
    a = chord - c
    q = chord * r
    # t in [0, 1] is 2 q / (c + sqrt(c^2 + 4 a q)). Where c < 0 that sum cancels, so the equivalent
    # (sqrt(c^2 + 4 a q) - c) / 2 a is taken; there a > chord > 0.
    root = safe_sqrt(c**2 + 4.0 * a * q)
    falling = c < 0.0
    t = tf.where(
        falling,
        (root - c) / tf.where(falling, 2.0 * a, tf.ones_like(a)),
        2.0 * q / tf.where(falling, tf.ones_like(c), c + root),
    )
    return tf.clip_by_value(t, 0.0, 1.0)


def _log_slope(curve: _Curve):
    """log dz/dx as three logs: a quotient of powers would overflow first."""
    return 2.0 * tf.math.log(curve.chord) + tf.math.log(curve.numerator) - 2.0 * tf.math.log(curve.denominator)


def _d_log_slope(curve: _Curve):
    """Its derivative with respect to t."""
    t, _, chord, left, right, bend, _, numerator, denominator = curve
    lean = 1.0 - 2.0 * t
    return 2.0 * (right * t + chord * lean - left * (1.0 - t)) / numerator - 2.0 * bend * lean / denominator
