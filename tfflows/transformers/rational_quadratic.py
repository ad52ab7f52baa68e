"""Rational-quadratic splines."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfflows.numerics import safe_sqrt, softclip, softclip_gradient
from tfflows.serialization import register
from tfflows.transformers.base import Transformer
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

    A number needs 3 K - 1 parameters, or 3 K if circular: for the widths, the heights, the slopes.

    Args:
      n_bins: K >= 1, the number of bins.
      bound: > 0; the spline acts on [-bound, bound] on both sides.
      min_bin: least width and height of a bin as a fraction of the interval, in [0, 1 / K). It decides the float32
        accuracy of the round trip: rounding an x near `bound` moves t by 6e-8 / min_bin.
      max_bin_ratio: > 1; no bin's free share is more than this times another's. Without this bound one bin can
        shrink every other one to `min_bin`, and float32 loses digits in them.
      min_slope: in (0, 1); slopes at the knots stay in [min_slope, 1 / min_slope].
      circular: x and z are circular coordinates of period 2 * bound: values outside are
        wrapped in, and the slopes at both ends are one and the same parameter. Otherwise the slope
        there is 1, that of the tails, and the map has a continuous derivative everywhere.

    Raises:
      ValueError: for arguments outside these ranges.

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


@register
@dataclasses.dataclass(frozen=True)
class FreeKnotSpline(Transformer):
    """Monotonic rational-quadratic spline with knots anywhere, and linear tails of the end knots' slopes.

    The map in a bin is that of `RationalQuadraticSpline`. A number needs 3 M parameters: where the first knot is and
    the logarithms of the gaps after it, in x and in z, and those of the slopes; zero for M equally spaced knots on
    [-bound, bound] of the identity. It is made for knots that were found from data (SINF).

    Args:
      n_knots: M >= 2.
      bound: > 0; knots lie on [-bound, bound] at zero parameters.
      max_gap_ratio: > 1; no gap is more than this times longer or shorter than at zero parameters.
      max_slope: > 1; slopes at the knots stay in [1 / max_slope, max_slope].

    Raises:
      ValueError: for arguments outside these ranges.
    """

    n_knots: int = 16
    bound: float = 3.0
    max_gap_ratio: float = 10.0
    max_slope: float = 100.0

    def __post_init__(self):
        if not isinstance(self.n_knots, (int, np.integer)) or self.n_knots < 2:
            raise ValueError(f"Expected an integer n_knots >= 2; got {self.n_knots}.")
        if not self.bound > 0.0:
            raise ValueError(f"Expected bound > 0; got {self.bound}.")
        if not (self.max_gap_ratio > 1.0 and self.max_slope > 1.0):
            raise ValueError(
                f"Expected max_gap_ratio > 1 and max_slope > 1; got {self.max_gap_ratio} and {self.max_slope}."
            )

    @property
    def n_parameters(self) -> int:
        return 3 * self.n_knots

    @property
    def _gap(self):
        return 2.0 * self.bound / (self.n_knots - 1)

    def reachable(self, knots: np.ndarray) -> np.ndarray:
        """The `knots`, NumPy `[M, D]`, with gaps that parameters can express, and the middle one where it was."""
        gaps = self._gap * np.exp(
            _within(np.log(np.maximum(np.diff(knots, axis=0) / self._gap, 1e-9)), self._max_log_gap)
        )
        reached = np.concatenate([np.zeros_like(knots[:1]), np.cumsum(gaps, axis=0)])
        middle = self.n_knots // 2
        return reached - reached[middle] + knots[middle]

    @property
    def _max_log_gap(self):
        return float(np.log(self.max_gap_ratio))

    @property
    def _max_log_slope(self):
        return float(np.log(self.max_slope))

    def parameters_of(self, x, z, slopes):
        """The parameters, NumPy `[3 M, D]`, of some knots.

        Args:
          x, z: increasing, `[M, D]` each.
          slopes: dz/dx > 0, `[M, D]`.
        """
        parts = []
        for knots in map(self.reachable, (x, z)):
            log_gaps = _unclip(np.log(np.diff(knots, axis=0) / self._gap), self._max_log_gap)
            parts += [knots[:1] + self.bound, log_gaps]
        return np.concatenate([*parts, _unclip(np.log(slopes), self._max_log_slope)], axis=0)

    def inverse_and_log_det(self, x, params):
        x = x + tf.zeros_like(params[..., 0, :])
        b, (left, right) = self._locate(x, params, by_latent=False)
        inside = (x >= left[0]) & (x < right[0])
        # Both branches of the `where` are computed: the unused one sees a value inside.
        curve = _curve(b[4:], tf.where(inside, (x - b[0]) / b[1], tf.zeros_like(x)))
        z = b[2] + b[3] * curve.rise / curve.denominator
        return _with_tails(x, inside, z, _log_slope(curve), left, right)

    def forward_and_log_det(self, z, params):
        z = z + tf.zeros_like(params[..., 0, :])
        b, (left, right) = self._locate(z, params, by_latent=True)
        inside = (z >= left[1]) & (z < right[1])
        slopes = b[4:]
        curve = _curve(slopes, _solve(slopes, tf.where(inside, (z - b[2]) / b[3], tf.zeros_like(z))))
        left, right = ((end[1], end[0], 1.0 / end[2]) for end in (left, right))
        return _with_tails(z, inside, b[0] + b[1] * curve.t, -_log_slope(curve), left, right)

    def _locate(self, value, params, *, by_latent):
        """Of the bin of `value`: x, width, z, height, slopes of chord and ends; and x, z and slope at both ends."""
        m = self.n_knots
        knots, sizes = [], []
        for part in (params[..., :m, :], params[..., m : 2 * m, :]):
            gaps = self._gap * tf.exp(softclip(part[..., 1:, :], self._max_log_gap))
            sizes.append([gaps[..., i, :] for i in range(m - 1)])
            edges = [part[..., 0, :] - self.bound]
            for size in sizes[-1]:
                edges.append(edges[-1] + size)
            # XLA computes sums anew, and rounds them anew, for each entry of the bin that is chosen below; then some
            # may come from the bin before. A quotient is computed once.
            knots.append([edge * gaps[..., 0, :] / gaps[..., 0, :] for edge in edges])
        slopes = tf.exp(softclip(params[..., 2 * m :, :], self._max_log_slope))
        slopes = [slopes[..., i, :] for i in range(m)]
        (xs, zs), (widths, heights) = knots, sizes
        bins = list(zip(xs, widths, zs, heights, slopes, slopes[1:], strict=False))
        chosen = bins[0]
        for edge, entries in zip((zs if by_latent else xs)[1:-1], bins[1:], strict=True):
            chosen = [tf.where(value >= edge, entry, before) for entry, before in zip(entries, chosen, strict=True)]
        x, width, z, height, left, right = chosen
        ends = [(xs[i], zs[i], slopes[i]) for i in (0, -1)]
        return (x, width, z, height, height / width, left, right), ends


def _within(value, bound):
    """Kept in +-0.9 bound, where the parameter that `softclip` maps there is not huge."""
    return np.clip(value, -0.9 * bound, 0.9 * bound)


def _unclip(value, bound):
    """The inverse of `softclip`."""
    value = _within(value, bound)
    return value / (1.0 - np.abs(value) / bound)


def _with_tails(value, inside, mapped, log_slope, left, right):
    """The map of `value`, linear beyond the ends (argument, value and slope at each)."""
    # Compared with the middle: XLA may compute an end twice, and once on either side of a value that lies on it.
    is_left = value < 0.5 * (left[0] + right[0])
    at, to, slope = (tf.where(is_left, low, high) for low, high in zip(left, right, strict=True))
    return tf.where(inside, mapped, to + slope * (value - at)), tf.where(inside, log_slope, tf.math.log(slope))
