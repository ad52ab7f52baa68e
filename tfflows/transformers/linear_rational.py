"""The linear rational spline."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import tensorflow as tf

from tfflows.numerics import softclip
from tfflows.serialization import register
from tfflows.transformers.spline import Bin, BinGradient, Spline


class _Piece(NamedTuple):
    """One of the two pieces in a bin, in the letters of the docstring below."""

    length: tf.Tensor  # l
    root: tf.Tensor  # a, of the slope at its end of the bin
    other_root: tf.Tensor  # b
    middle: tf.Tensor  # m
    rise: tf.Tensor  # q


@register
@dataclasses.dataclass(frozen=True)
class LinearRationalSpline(Spline):
    """Monotonic linear rational spline on [-bound, bound], the identity outside, or circular.

    In a bin of chord s and end slopes d0, d1 two linear rational pieces meet at the fraction l of its width. With
    a = sqrt(d0), b = sqrt(d1), t = (x - x0) / width and r = (z - z0) / height,

      m = (l a + (1 - l) b) / s,   q = l a / (l a + (1 - l) b),
      t <= l:  r = m q t / ((l - t) / a + m t),   dr/dt = m q l / (a ((l - t) / a + m t)^2),

    and for t > l the same seen from the other end: t, l, r, q and a become 1 - t, 1 - l, 1 - r, 1 - q and b. The
    inverse is of the same kind, no root is needed, and every sum has positive terms.

    A number needs 4 K - 1 parameters, or 4 K if circular: for the widths, the heights, the slopes, the fractions l.

    Args:
      n_bins, bound, min_bin, max_bin_ratio, min_slope, circular: as in `RationalQuadraticSpline`.
      min_fraction: in (0, 0.5); l stays in [min_fraction, 1 - min_fraction].

    Raises:
      ValueError: for arguments outside these ranges.

    Reference:
      Dolatabadi, Erfani & Leckie (2020), Invertible generative modeling using linear rational splines,
      https://arxiv.org/abs/2001.05168
    """

    min_fraction: float = 0.1

    def __post_init__(self):
        super().__post_init__()
        if not 0.0 < self.min_fraction < 0.5:
            raise ValueError(f"Expected min_fraction in (0, 0.5); got {self.min_fraction}.")

    @property
    def n_inner(self) -> int:
        return 1

    def _normalize_in_bin(self, b, x):
        pieces = self._pieces(b)
        t = tf.clip_by_value((x - b.x) / b.width, 0.0, 1.0)
        is_left = t <= pieces.length
        piece, t = _from_its_end(is_left, pieces), tf.where(is_left, t, 1.0 - t)
        denominator = (piece.length - t) / piece.root + pieces.middle * t
        r = pieces.middle * piece.rise * t / denominator
        return b.z + b.height * tf.where(is_left, r, 1.0 - r), _log_slope(b, piece, denominator), x

    def _generate_in_bin(self, b, z):
        pieces = self._pieces(b)
        r = tf.clip_by_value((z - b.z) / b.height, 0.0, 1.0)
        is_left = r <= pieces.rise
        piece, r = _from_its_end(is_left, pieces), tf.where(is_left, r, 1.0 - r)
        t = r * piece.length / (piece.root * pieces.middle * (piece.rise - r) + r)
        denominator = (piece.length - t) / piece.root + pieces.middle * t
        x = b.x + b.width * tf.where(is_left, t, 1.0 - t)
        return x, _log_slope(b, piece, denominator), x

    def _pieces(self, b) -> _Piece:
        """The left piece, and as `other_root` that of the right one."""
        left, right = (tf.sqrt(self._slope(raw)) for raw in (b.raw_left, b.raw_right))
        length = 0.5 + softclip(b.inner[0], 0.5 - self.min_fraction)
        weight = length * left + (1.0 - length) * right
        return _Piece(length, left, right, weight * b.width / b.height, length * left / weight)

    def _d_log_slope(self, b, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            log_slope = self._normalize_in_bin(b, x)[1]
        return tape.gradient(log_slope, x)

    def _pull_back(self, b: Bin, x, grad_z, grad_log_slope):
        sources = BinGradient(x, *b[: b._fields.index("number")])
        with tf.GradientTape() as tape:
            tape.watch(sources)
            z, log_slope, _ = self._normalize_in_bin(b, x)
        return tape.gradient((z, log_slope), sources, (grad_z, grad_log_slope))


def _from_its_end(is_left, left: _Piece) -> _Piece:
    """The piece that holds the point, as if its end of the bin were the left one."""
    return _Piece(
        length=tf.where(is_left, left.length, 1.0 - left.length),
        root=tf.where(is_left, left.root, left.other_root),
        other_root=tf.where(is_left, left.other_root, left.root),
        middle=left.middle,
        rise=tf.where(is_left, left.rise, 1.0 - left.rise),
    )


def _log_slope(b, piece, denominator):
    slope = piece.middle * piece.rise * piece.length / piece.root
    return tf.math.log(slope) + tf.math.log(b.height / b.width) - 2.0 * tf.math.log(denominator)
