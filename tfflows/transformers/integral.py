"""Integrals of positive functions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfflows.nets import Integrand
from tfflows.numerics import check_counts, softclip
from tfflows.serialization import register
from tfflows.transformers.monotonic import Monotonic, bracket_with_linear_tails


class _Integral(Monotonic):
    """z = c + integral of g from 0 to x, with g > 0 on [-bound, bound] and constant beyond.

    By Gauss-Legendre quadrature, all nodes in one call. The derivative is g itself, whatever the error of the
    quadrature. A subclass has the fields `bound` and `n_nodes`, and `_log_slope`; the first parameter is c.
    """

    def _log_slope(self, t: tf.Tensor, params: tf.Tensor) -> tf.Tensor:
        """log g at `t` `[..., n, D]`, given `params` `[..., n_parameters - 1, D]`."""
        raise NotImplementedError  # abstract

    def inverse_and_log_det(self, x, params):
        shift, params = params[..., 0, :], params[..., 1:, :]
        inside = tf.clip_by_value(x, -self.bound, self.bound)
        nodes, weights = np.polynomial.legendre.leggauss(self.n_nodes)
        nodes, weights = (tf.constant(v[:, np.newaxis], x.dtype) for v in ((nodes + 1.0) / 2.0, weights / 2.0))
        end = tf.stop_gradient(inside)[..., tf.newaxis, :]
        log_slope = self._log_slope(tf.concat([nodes * end, inside[..., tf.newaxis, :]], axis=-2), params)
        mean = tf.reduce_sum(weights * tf.exp(log_slope[..., :-1, :]), axis=-2)
        log_slope = log_slope[..., -1, :]
        # The last term is the linear tail; inside it is zero, and has the derivative of the integral by its end.
        z = shift + end[..., 0, :] * mean + (x - end[..., 0, :]) * tf.exp(log_slope)
        return z, log_slope

    def _bracket(self, z, params):
        return bracket_with_linear_tails(self, self.bound, z, params)


@register
@dataclasses.dataclass(frozen=True)
class SumOfSquares(_Integral):
    """The integral of a sum of squared polynomials on [-bound, bound], linear outside.

    From data to latent, z = c + integral_0^x (e + sum_k p_k(t)^2) / (e + 1) dt, with K polynomials p_k of degree r.
    The quadrature is exact.

    A number needs K (r + 1) + 1 parameters: c, and the coefficients in Chebyshev's polynomials of t / bound.

    Args:
      n_polynomials: K >= 1.
      degree: r >= 0.
      bound: > 0; the polynomials act on [-bound, bound] of the data.
      min_slope: e > 0, about the least derivative.

    Raises:
      ValueError: for arguments outside these ranges.

    Reference:
      Jaini, Selby & Yu (2019), Sum-of-squares polynomial flow, https://arxiv.org/abs/1905.02325
    """

    n_polynomials: int = 3
    degree: int = 4
    bound: float = 5.0
    min_slope: float = 1e-2

    def __post_init__(self):
        check_counts(n_polynomials=self.n_polynomials)
        if not isinstance(self.degree, int) or self.degree < 0:
            raise ValueError(f"Expected an integer degree >= 0; got {self.degree}.")
        if not (self.bound > 0.0 and self.min_slope > 0.0):
            raise ValueError(f"Expected bound > 0 and min_slope > 0; got {self.bound} and {self.min_slope}.")

    @property
    def n_parameters(self) -> int:
        return self.n_polynomials * (self.degree + 1) + 1

    @property
    def n_nodes(self) -> int:
        """Nodes of the quadrature."""
        return self.degree + 1  # exact up to degree 2 n - 1

    def _log_slope(self, t, params):
        u = t / self.bound
        basis = [tf.ones_like(u), u]
        for _ in range(self.degree - 1):
            basis.append(2.0 * u * basis[-1] - basis[-2])
        start = self.n_polynomials**-0.5
        total = tf.zeros_like(u)
        for k in range(self.n_polynomials):
            # At different speeds, or polynomials that start equal would stay so.
            speed = (k + 1.0) / self.n_polynomials
            value = start + tf.zeros_like(u)
            for j in range(self.degree + 1):
                # Coefficients bounded by 3 keep g below 3 K (r + 1)^2 or so, and the round trip its digits.
                coefficient = softclip(params[..., k * (self.degree + 1) + j, :], 3.0)
                value += speed * coefficient[..., tf.newaxis, :] * basis[j]
            total += value**2
        return tf.math.log((total + self.min_slope) / (1.0 + self.min_slope))


@register
@dataclasses.dataclass(frozen=True)
class UMNN(_Integral):
    """The integral of a positive neural net on [-bound, bound], linear outside: an unconstrained monotonic net.

    From data to latent, z = c + integral_0^x exp(softclip(net(t, signal))) dt. The net has weights of its own, one for
    all scalars; the signal that each scalar gets makes it another function. One instance belongs into one bijector.

    A number needs n_signal + 1 parameters: c and the signal.

    Args:
      n_signal: width of the signal, >= 1.
      hidden: widths of the integrand's hidden layers.
      bound: > 0; the net acts on [-bound, bound] of the data.
      n_nodes: nodes of the quadrature, >= 1.
      max_log_slope: > 0, bound of |log dz/dx|.

    Raises:
      ValueError: for arguments outside these ranges.

    Reference:
      Wehenkel & Louppe (2019), Unconstrained monotonic neural networks, https://arxiv.org/abs/1908.05164
    """

    n_signal: int = 8
    hidden: Sequence[int] = (32, 32)
    bound: float = 5.0
    n_nodes: int = 32
    max_log_slope: float = 3.0

    def __post_init__(self):
        check_counts(n_signal=self.n_signal, n_nodes=self.n_nodes)
        if not (self.bound > 0.0 and self.max_log_slope > 0.0):
            raise ValueError(f"Expected bound > 0 and max_log_slope > 0; got {self.bound} and {self.max_log_slope}.")
        object.__setattr__(self, "hidden", tuple(self.hidden))
        object.__setattr__(self, "_net", Integrand(self.n_signal, self.hidden))

    @property
    def n_parameters(self) -> int:
        return self.n_signal + 1

    @property
    def layers(self):
        return [self._net]

    def _log_slope(self, t, params):
        return softclip(self._net(t, params), self.max_log_slope)
