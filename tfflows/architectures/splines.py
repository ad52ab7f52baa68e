"""Neural spline flows."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np

from tfflows.architectures.stacks import autoregressions, couplings, inverted, standardized
from tfflows.bijectors import Bijector, Chain, Elementwise
from tfflows.transformers import LinearRationalSpline, RationalQuadraticSpline, Shift


def CouplingRQNSF(
    n_dim: int,
    *,
    n_layers: int = 5,
    hidden: Sequence[int] = (64, 64),
    n_bins: int = 8,
    bound: float = 5.0,
    context_dim: int | None = None,
    circular: bool = False,
    linear: Callable[[int], Bijector] | None = None,
) -> Bijector:
    """Coupling layers with rational-quadratic splines. Both directions cost one evaluation of each net.

    Args:
      n_dim, n_layers, hidden, context_dim: as in `NICE`.
      n_bins: bins of each spline, >= 1.
      bound: > 0; the splines act on [-bound, bound] of the standardised data. Ignored if circular.
      circular: the scalars are angles in radians, in [-pi, pi): circular splines, nets without a seam,
        a learned rotation before each layer, and no standardisation. Its base is
        `bases.UniformBox(n_dim, -pi, pi)`.
      linear: makes the map that mixes the scalars between layers, such as `bijectors.MatrixExponential`; by default
        they are permuted. Angles cannot be mixed.

    Raises:
      ValueError: for a count below 1, a bound <= 0, or a linear map of angles.

    Reference:
      Durkan, Bekasov, Murray & Papamakarios (2019), Neural spline flows,
      https://arxiv.org/abs/1906.04032
    """
    if not circular:
        spline = functools.partial(RationalQuadraticSpline, n_bins, bound)
        return standardized(n_dim, couplings(spline, n_dim, n_layers, hidden, context_dim, linear=linear))
    if linear is not None:
        raise ValueError(f"Expected no linear map of angles; got linear={linear}.")
    spline = functools.partial(RationalQuadraticSpline, n_bins, float(np.pi), circular=True)
    layers = []
    for layer in couplings(spline, n_dim, n_layers, hidden, context_dim, circular=True):
        layers += [Elementwise(Shift(circular_bound=float(np.pi)), n_dim), layer]
    return Chain(layers)


def MaskedAutoregressiveRQNSF(
    n_dim: int,
    *,
    n_layers: int = 5,
    hidden: Sequence[int] = (128, 128),
    n_bins: int = 8,
    bound: float = 5.0,
    context_dim: int | None = None,
    alternate: bool = True,
) -> Bijector:
    """Masked autoregressive layers with rational-quadratic splines.

    Densities cost one evaluation of each net; samples cost as much, in n_dim stages.

    Args:
      n_dim, n_layers, hidden, context_dim, alternate: as in `MAF`.
      n_bins, bound: as in `CouplingRQNSF`.

    Reference:
      Durkan, Bekasov, Murray & Papamakarios (2019), Neural spline flows,
      https://arxiv.org/abs/1906.04032
    """
    spline = functools.partial(RationalQuadraticSpline, n_bins, bound)
    return standardized(n_dim, autoregressions(spline, n_dim, n_layers, hidden, context_dim, alternate=alternate))


def InverseAutoregressiveRQNSF(
    n_dim: int,
    *,
    n_layers: int = 5,
    hidden: Sequence[int] = (128, 128),
    n_bins: int = 8,
    bound: float = 5.0,
    context_dim: int | None = None,
) -> Bijector:
    """Inverse autoregressive layers with rational-quadratic splines.

    Samples cost one evaluation of each net; densities cost as much, in n_dim stages.

    Args:
      n_dim, n_layers, hidden, context_dim: as in `MAF`.
      n_bins, bound: as in `CouplingRQNSF`.

    References:
      Durkan et al. (2019), Neural spline flows, https://arxiv.org/abs/1906.04032; Kingma et al. (2016), Improved
      variational inference with inverse autoregressive flow, https://arxiv.org/abs/1606.04934
    """
    spline = functools.partial(RationalQuadraticSpline, n_bins, bound)
    return standardized(n_dim, inverted(autoregressions(spline, n_dim, n_layers, hidden, context_dim)))


def CouplingLRS(
    n_dim: int,
    *,
    n_layers: int = 5,
    hidden: Sequence[int] = (64, 64),
    n_bins: int = 8,
    bound: float = 5.0,
    context_dim: int | None = None,
) -> Bijector:
    """Coupling layers with linear rational splines, whose inverse needs no root.

    Both directions cost one evaluation of each net.

    Args:
      n_dim, n_layers, hidden, n_bins, bound, context_dim: as in `CouplingRQNSF`.

    Reference:
      Dolatabadi, Erfani & Leckie (2020), Invertible generative modeling using linear rational splines,
      https://arxiv.org/abs/2001.05168
    """
    spline = functools.partial(LinearRationalSpline, n_bins, bound)
    return standardized(n_dim, couplings(spline, n_dim, n_layers, hidden, context_dim))


def MaskedAutoregressiveLRS(
    n_dim: int,
    *,
    n_layers: int = 5,
    hidden: Sequence[int] = (128, 128),
    n_bins: int = 8,
    bound: float = 5.0,
    context_dim: int | None = None,
    alternate: bool = True,
) -> Bijector:
    """Masked autoregressive layers with linear rational splines.

    Densities cost one evaluation of each net; samples cost as much, in n_dim stages.

    Args:
      n_dim, n_layers, hidden, context_dim, alternate: as in `MAF`.
      n_bins, bound: as in `CouplingRQNSF`.

    Reference:
      Dolatabadi, Erfani & Leckie (2020), Invertible generative modeling using linear rational splines,
      https://arxiv.org/abs/2001.05168
    """
    spline = functools.partial(LinearRationalSpline, n_bins, bound)
    return standardized(n_dim, autoregressions(spline, n_dim, n_layers, hidden, context_dim, alternate=alternate))


def InverseAutoregressiveLRS(
    n_dim: int,
    *,
    n_layers: int = 5,
    hidden: Sequence[int] = (128, 128),
    n_bins: int = 8,
    bound: float = 5.0,
    context_dim: int | None = None,
) -> Bijector:
    """Inverse autoregressive layers with linear rational splines.

    Samples cost one evaluation of each net; densities cost as much, in n_dim stages.

    Args:
      n_dim, n_layers, hidden, context_dim: as in `MAF`.
      n_bins, bound: as in `CouplingRQNSF`.

    Reference:
      Dolatabadi, Erfani & Leckie (2020), Invertible generative modeling using linear rational splines,
      https://arxiv.org/abs/2001.05168
    """
    spline = functools.partial(LinearRationalSpline, n_bins, bound)
    return standardized(n_dim, inverted(autoregressions(spline, n_dim, n_layers, hidden, context_dim)))
