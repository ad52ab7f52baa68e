"""Increasing polynomials."""

from __future__ import annotations

import dataclasses
import math

import tensorflow as tf

from tfflows.numerics import check_counts, softclip
from tfflows.serialization import register
from tfflows.transformers.monotonic import Monotonic, bracket_with_linear_tails


@register
@dataclasses.dataclass(frozen=True)
class Bernstein(Monotonic):
    """An increasing Bernstein polynomial on [-bound, bound], linear outside.

    From data to latent, with n the degree, B_k,n(u) = C(n, k) u^k (1 - u)^(n - k) and u = (x + bound) / (2 bound),

      z = sum_k c_k B_k,n(u);  dz/dx = sum_k s_k B_k,n-1(u),  c_k+1 - c_k = 2 bound s_k / n.

    The derivative is a mean of the s_k = exp(p_k), so bounds of these bound it; both sums have positive terms only.

    A number needs n + 1 parameters: the p_k, and the latent of the middle of the coefficients.

    Args:
      degree: n >= 1.
      bound: > 0; the polynomial acts on [-bound, bound] of the data.
      max_log_slope: > 0, bound of |p_k|.
      max_log_tail_slope: > 0, the same of the first and the last, the slopes of the tails. Layers multiply these, and
        each stretching costs a number far out its digits: with 5, float32 loses points at 300 deviations.

    Raises:
      ValueError: for arguments outside these ranges.

    Reference:
      Ramasinghe, Fernando, Khan & Barnes (2021), Robust normalizing flows using Bernstein-type polynomials,
      https://arxiv.org/abs/2102.03509
    """

    degree: int = 16
    bound: float = 5.0
    max_log_slope: float = 5.0
    max_log_tail_slope: float = 2.0

    def __post_init__(self):
        check_counts(degree=self.degree)
        if not self.bound > 0.0:
            raise ValueError(f"Expected bound > 0; got {self.bound}.")
        for name in ("max_log_slope", "max_log_tail_slope"):
            if not getattr(self, name) > 0.0:
                raise ValueError(f"Expected {name} > 0; got {getattr(self, name)}.")

    @property
    def n_parameters(self) -> int:
        return self.degree + 1

    def inverse_and_log_det(self, x, params):
        n = self.degree
        tail = min(self.max_log_slope, self.max_log_tail_slope)
        limits = [tail, *[self.max_log_slope] * (n - 2), tail][:n]
        slopes = [tf.exp(softclip(params[..., k, :], limit)) for k, limit in enumerate(limits)]
        steps = [2.0 * self.bound / n * s for s in slopes]
        coefficients = [params[..., n, :] - 0.5 * tf.add_n(steps)]
        for step in steps:
            coefficients.append(coefficients[-1] + step)
        inside = tf.clip_by_value(x, -self.bound, self.bound)
        # Both from the nearer end, so that neither loses digits.
        left, right = ((self.bound + inside) / (2.0 * self.bound), (self.bound - inside) / (2.0 * self.bound))
        slope = _bernstein(slopes, left, right)
        return _bernstein(coefficients, left, right) + (x - inside) * slope, tf.math.log(slope)

    def _bracket(self, z, params):
        return bracket_with_linear_tails(self, self.bound, z, params)


def _bernstein(coefficients, left, right):
    """sum_k c_k C(n, k) left^k right^(n - k), left + right = 1, by products only: powers have no gradient at 0."""
    n = len(coefficients) - 1
    powers = [tf.ones_like(left)]
    for _ in range(n):
        powers.append(powers[-1] * right)
    total, power = tf.zeros_like(left), tf.ones_like(left)
    for k, coefficient in enumerate(coefficients):
        total += float(math.comb(n, k)) * coefficient * power * powers[n - k]
        power *= left
    return total
