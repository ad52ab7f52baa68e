"""Monotonic splines."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfflows.numerics import safe_sqrt, softclip, softclip_gradient, wrap
from tfflows.serialization import register
from tfflows.transformers.base import Transformer


class _Bin(NamedTuple):
    """The bin that holds a point, each entry shaped like the point."""

    x: tf.Tensor
    width: tf.Tensor
    z: tf.Tensor
    height: tf.Tensor
    raw_left: tf.Tensor  # the parameters of the slopes at its ends
    raw_right: tf.Tensor
    number: tf.Tensor  # 0 .. K - 1
    x_total: tf.Tensor  # of the exponentials that share out the widths, and the heights
    z_total: tf.Tensor


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
      max_bin_ratio: no bin's free share is more than this times another's. Without this bound one bin can
        shrink every other one to `min_bin`, and float32 loses digits in them.
      min_slope: slopes at the knots stay in [min_slope, 1 / min_slope].
      circular: x and z are circular coordinates of period 2 * bound: values outside are
        wrapped in, and the slopes at both ends are one and the same parameter. Otherwise the slope
        there is 1, that of the tails, and the map has a continuous derivative everywhere.

    A number needs 3 K - 1 parameters, or 3 K if circular: for the widths, the heights, the slopes.

    Everything runs along the numbers, bin after bin, and the gradient is written by hand: of each number it keeps the
    bin that holds it, where differentiating each operation would keep every bin several times.

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
        x, params = _broadcast(x, params)
        inside, x_in = self._enter(x)
        z, log_det = self._normalize(x_in, params)
        return self._leave(inside, x, z, log_det)

    def forward_and_log_det(self, z, params):
        z, params = _broadcast(z, params)
        inside, z_in = self._enter(z)
        x, log_det = self._generate(z_in, params)
        return self._leave(inside, z, x, log_det)

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

    def _normalize(self, x, params):
        @tf.custom_gradient
        def normalize(x, params):
            b = self._locate(x, params, by_latent=False)
            curve = _curve(self._slopes(b), tf.clip_by_value((x - b.x) / b.width, 0.0, 1.0))

            def gradient(grad_z, grad_log_det):
                return self._gradients(b, curve, params, grad_z, grad_log_det)

            return (b.z + b.height * curve.rise / curve.denominator, _log_slope(curve)), gradient

        return normalize(x, params)

    def _generate(self, z, params):
        @tf.custom_gradient
        def generate(z, params):
            b = self._locate(z, params, by_latent=True)
            slopes = self._slopes(b)
            curve = _curve(slopes, _solve(slopes, tf.clip_by_value((z - b.z) / b.height, 0.0, 1.0)))
            log_slope = _log_slope(curve)

            def gradient(grad_x, grad_log_det):
                # z(x) = z and log dx/dz = -log z'(x), differentiated: a small step of the parameters moves x by
                # -(dz/dparams) / z'.
                total = grad_x - grad_log_det * _d_log_slope(curve) / b.width
                by_z = total * tf.exp(-log_slope)
                return by_z, self._gradients(b, curve, params, -by_z, -grad_log_det)[1]

            return (b.x + b.width * curve.t, -log_slope), gradient

        return generate(z, params)

    def _locate(self, value, params, *, by_latent) -> _Bin:
        """The bin of `value`, by comparing it with every knot: for so few, faster than a search."""
        k = self.n_bins
        shares = tf.exp(softclip(params[..., : 2 * k, :], self._max_logit))
        x_edges, widths, x_total = self._knots(shares[..., :k, :])
        z_edges, heights, z_total = self._knots(shares[..., k:, :])
        raw = [params[..., i, :] for i in range(2 * k, self.n_parameters)]
        end = tf.zeros_like(x_total)  # slope 1
        raw = [*raw, raw[0]] if self.circular else [end, *raw, end]
        number = [tf.constant(i, value.dtype) for i in range(k)]
        bins = zip(x_edges, widths, z_edges, heights, raw, raw[1:], number, strict=False)
        *first, zero = next(bins)
        chosen = [*first, tf.fill(tf.shape(value), zero)]
        for edge, entries in zip((z_edges if by_latent else x_edges)[1:], bins, strict=True):
            reached = value >= edge
            chosen = [tf.where(reached, entry, before) for entry, before in zip(entries, chosen, strict=True)]
        return _Bin(*chosen, x_total, z_total)

    def _knots(self, shares):
        """Left ends of the bins, their sizes, and the sum of their shares `[..., K, D]`."""
        shares = [shares[..., i, :] for i in range(self.n_bins)]
        total = tf.add_n(shares)
        least, free = self._least_and_free()
        sizes = [least + free / total * share for share in shares]
        edges = [tf.fill(tf.shape(total), tf.constant(-self.bound, total.dtype))]
        for size in sizes[:-1]:
            edges.append(edges[-1] + size)
        # The last end is set, not summed: rounding must not open a gap between spline and tail.
        return edges, [*sizes[:-1], self.bound - edges[-1]], total

    def _least_and_free(self):
        """The least size of a bin, and what all of them share beyond it."""
        least = 2.0 * self.bound * self.min_bin
        return least, 2.0 * self.bound - self.n_bins * least

    @property
    def _max_logit(self):
        # Two logits within this differ by less than log(max_bin_ratio).
        return 0.5 * float(np.log(self.max_bin_ratio))

    @property
    def _max_log_slope(self):
        return float(-np.log(self.min_slope))

    def _slopes(self, b):
        """Of the chord and at both ends of a bin."""
        left, right = (tf.exp(softclip(raw, self._max_log_slope)) for raw in (b.raw_left, b.raw_right))
        return b.height / b.width, left, right

    def _gradients(self, b: _Bin, curve: _Curve, params, grad_z, grad_log_slope):
        """From the gradients of z and log dz/dx, those of x and the parameters."""
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
        # In terms of the parameters. The arrays below have a row for each bin. XLA computes in every row anew whatever
        # ends in cheap arithmetic, for the bin's number the whole way back to the knots: K times K operations. An
        # exponential, like the quotients of _grad_shares, is computed once and kept.
        k = self.n_bins
        number = tf.exp(b.number / k)[..., tf.newaxis, :]
        rows = tf.constant(np.exp(np.arange(k)[:, np.newaxis] / k), number.dtype)
        here, before = tf.abs(rows - number) < 0.5 / k, rows < number
        grad_params = [
            self._grad_shares(params[..., :k, :], here, before, b.number, b.x_total, (b.x, -by_x), (b.width, by_width)),
            self._grad_shares(
                params[..., k : 2 * k, :], here, before, b.number, b.z_total, (b.z, grad_z), (b.height, by_height)
            ),
        ]
        if self.circular:
            left, right = here, tf.concat([here[..., -1:, :], here[..., :-1, :]], axis=-2)
        else:
            left, right = here[..., 1:, :], here[..., :-1, :]
        zero = tf.zeros_like(number)
        grad_params.append(
            tf.where(left, raw_left[..., tf.newaxis, :], zero) + tf.where(right, raw_right[..., tf.newaxis, :], zero)
        )
        return by_x, tf.concat(grad_params, axis=-2)

    def _grad_shares(self, logits, here, before, number, total, low, size):
        """The gradient of the logits of sizes, given (value, gradient) of the chosen bin's lower end and size.

        The lower end sums the sizes of all bins before.
        """
        least, free = self._least_and_free()
        (low, grad_low), (size, grad_size) = low, size
        # Softmax: d size_i / d logit_j = (size_i - least) ((i == j) - share_j / total).
        mean = grad_low * (low + self.bound - number * least) + grad_size * (size - least)
        of_before, of_here, of_rest = (
            (value / total)[..., tf.newaxis, :] for value in (free * grad_low - mean, free * grad_size - mean, -mean)
        )
        grad = tf.where(here, of_here, tf.where(before, of_before, of_rest))
        return softclip_gradient(grad * tf.exp(softclip(logits, self._max_logit)), logits, self._max_logit)


def _broadcast(value, params):
    """Both with the same leading axes."""
    if value.shape[:-1].is_fully_defined() and value.shape[:-1] == params.shape[:-2]:
        return value, params
    return value + tf.zeros_like(params[..., 0, :]), params + tf.zeros_like(value)[..., tf.newaxis, :]


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
