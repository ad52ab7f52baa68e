"""Flows whose scalar maps are inverted by bisection: neural, polynomial, mixtures of logistics."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from tfflows.architectures.stacks import autoregressions, couplings, inverted, standardized
from tfflows.bijectors import Bijector
from tfflows.transformers import UMNN, Bernstein, DeepSigmoid, MixtureOfLogistics, SumOfSquares


def UMNNMAF(
    n_dim: int,
    *,
    n_layers: int = 5,
    hidden: Sequence[int] = (128, 128),
    n_signal: int = 8,
    integrand: Sequence[int] = (32, 32),
    context_dim: int | None = None,
    alternate: bool = True,
) -> Bijector:
    """Masked autoregressive layers whose scalar maps are integrals of a positive net.

    Densities cost one evaluation of each net; samples cost bisections, in n_dim stages.

    Args:
      n_dim: number of scalars.
      n_layers: number of autoregressive layers.
      hidden: widths of each conditioner's hidden layers.
      n_signal: how many numbers a conditioner tells the integrand about a scalar.
      integrand: widths of each integrand's hidden layers.
      context_dim: width of the context, or None.
      alternate: whether every second layer goes from the last scalar to the first. With False all go from the first
        on: the flow is triangular, so that `flow.rosenblatt`, `conditional` and `marginal_log_prob` work.

    Raises:
      ValueError: for a count below 1.

    Reference:
      Wehenkel & Louppe (2019), Unconstrained monotonic neural networks, https://arxiv.org/abs/1908.05164
    """
    transformer = functools.partial(UMNN, n_signal, integrand)
    return standardized(n_dim, autoregressions(transformer, n_dim, n_layers, hidden, context_dim, alternate=alternate))


def InverseUMNNMAF(
    n_dim: int,
    *,
    n_layers: int = 5,
    hidden: Sequence[int] = (128, 128),
    n_signal: int = 8,
    integrand: Sequence[int] = (32, 32),
    context_dim: int | None = None,
) -> Bijector:
    """Inverse autoregressive layers whose scalar maps are integrals of a positive net.

    Samples cost one evaluation of each net; densities cost bisections, in n_dim stages.

    Args:
      n_dim, n_layers, hidden, n_signal, integrand, context_dim: as in `UMNNMAF`.

    Reference:
      Wehenkel & Louppe (2019), Unconstrained monotonic neural networks, https://arxiv.org/abs/1908.05164
    """
    transformer = functools.partial(UMNN, n_signal, integrand)
    return standardized(n_dim, inverted(autoregressions(transformer, n_dim, n_layers, hidden, context_dim)))


def CouplingUMNN(
    n_dim: int,
    *,
    n_layers: int = 5,
    hidden: Sequence[int] = (64, 64),
    n_signal: int = 8,
    integrand: Sequence[int] = (32, 32),
    context_dim: int | None = None,
) -> Bijector:
    """Coupling layers whose scalar maps are integrals of a positive net.

    Densities cost one evaluation of each net; samples cost bisections besides.

    Args:
      n_dim, hidden, n_signal, integrand, context_dim: as in `UMNNMAF`.
      n_layers: number of coupling layers.

    Reference:
      Wehenkel & Louppe (2019), Unconstrained monotonic neural networks, https://arxiv.org/abs/1908.05164
    """
    transformer = functools.partial(UMNN, n_signal, integrand)
    return standardized(n_dim, couplings(transformer, n_dim, n_layers, hidden, context_dim))


def NAF(
    n_dim: int,
    *,
    n_layers: int = 3,
    hidden: Sequence[int] = (128, 128),
    n_units: int = 8,
    n_sigmoid_layers: int = 1,
    dense: bool = False,
    context_dim: int | None = None,
    alternate: bool = True,
) -> Bijector:
    """Neural autoregressive flow: masked autoregressive layers of deep sigmoidal maps.

    Densities cost one evaluation of each net; samples cost bisections, in n_dim stages.

    Args:
      n_dim: number of scalars.
      n_layers: number of autoregressive layers.
      hidden: widths of each conditioner's hidden layers.
      n_units: sigmoids in a layer of a scalar map.
      n_sigmoid_layers: layers of a scalar map.
      dense: whether these layers pass on n_units numbers (with two layers or more).
      context_dim: width of the context, or None.
      alternate: as in `UMNNMAF`.

    Raises:
      ValueError: for a count below 1.

    Reference:
      Huang, Krueger, Lacoste & Courville (2018), Neural autoregressive flows, https://arxiv.org/abs/1804.00779
    """
    transformer = functools.partial(DeepSigmoid, n_units, n_sigmoid_layers, dense)
    return standardized(n_dim, autoregressions(transformer, n_dim, n_layers, hidden, context_dim, alternate=alternate))


def CouplingNAF(
    n_dim: int,
    *,
    n_layers: int = 5,
    hidden: Sequence[int] = (64, 64),
    n_units: int = 8,
    n_sigmoid_layers: int = 1,
    dense: bool = False,
    context_dim: int | None = None,
) -> Bijector:
    """Coupling layers of deep sigmoidal maps.

    Densities cost one evaluation of each net; samples cost bisections besides.

    Args:
      n_dim, hidden, n_units, n_sigmoid_layers, dense, context_dim: as in `NAF`.
      n_layers: number of coupling layers.

    Reference:
      Huang, Krueger, Lacoste & Courville (2018), Neural autoregressive flows, https://arxiv.org/abs/1804.00779
    """
    transformer = functools.partial(DeepSigmoid, n_units, n_sigmoid_layers, dense)
    return standardized(n_dim, couplings(transformer, n_dim, n_layers, hidden, context_dim))


def InverseNAF(
    n_dim: int,
    *,
    n_layers: int = 3,
    hidden: Sequence[int] = (128, 128),
    n_units: int = 8,
    n_sigmoid_layers: int = 1,
    dense: bool = False,
    context_dim: int | None = None,
) -> Bijector:
    """Inverse autoregressive layers of deep sigmoidal maps.

    Samples cost one evaluation of each net; densities cost bisections, in n_dim stages.

    Args:
      n_dim, n_layers, hidden, n_units, n_sigmoid_layers, dense, context_dim: as in `NAF`.

    Reference:
      Huang, Krueger, Lacoste & Courville (2018), Neural autoregressive flows, https://arxiv.org/abs/1804.00779
    """
    transformer = functools.partial(DeepSigmoid, n_units, n_sigmoid_layers, dense)
    return standardized(n_dim, inverted(autoregressions(transformer, n_dim, n_layers, hidden, context_dim)))


def SOSPF(
    n_dim: int,
    *,
    n_layers: int = 3,
    hidden: Sequence[int] = (128, 128),
    n_polynomials: int = 3,
    degree: int = 4,
    context_dim: int | None = None,
    alternate: bool = True,
) -> Bijector:
    """Sum-of-squares polynomial flow: masked autoregressive layers of integrated squares.

    Densities cost one evaluation of each net; samples cost bisections, in n_dim stages.

    Args:
      n_dim, n_layers, hidden, context_dim: as in `NAF`.
      n_polynomials: squares in a sum.
      degree: of each polynomial.
      alternate: as in `UMNNMAF`.

    Raises:
      ValueError: for a count below 1, or a negative degree.

    Reference:
      Jaini, Selby & Yu (2019), Sum-of-squares polynomial flow, https://arxiv.org/abs/1905.02325
    """
    transformer = functools.partial(SumOfSquares, n_polynomials, degree)
    return standardized(n_dim, autoregressions(transformer, n_dim, n_layers, hidden, context_dim, alternate=alternate))


def InverseSOSPF(
    n_dim: int,
    *,
    n_layers: int = 3,
    hidden: Sequence[int] = (128, 128),
    n_polynomials: int = 3,
    degree: int = 4,
    context_dim: int | None = None,
) -> Bijector:
    """Inverse autoregressive layers of integrated squares.

    Samples cost one evaluation of each net; densities cost bisections, in n_dim stages.

    Args:
      n_dim, n_layers, hidden, n_polynomials, degree, context_dim: as in `SOSPF`.

    Reference:
      Jaini, Selby & Yu (2019), Sum-of-squares polynomial flow, https://arxiv.org/abs/1905.02325
    """
    transformer = functools.partial(SumOfSquares, n_polynomials, degree)
    return standardized(n_dim, inverted(autoregressions(transformer, n_dim, n_layers, hidden, context_dim)))


def BPF(
    n_dim: int,
    *,
    n_layers: int = 3,
    hidden: Sequence[int] = (128, 128),
    degree: int = 16,
    context_dim: int | None = None,
    alternate: bool = True,
) -> Bijector:
    """Bernstein polynomial flow: masked autoregressive layers of increasing Bernstein polynomials.

    Densities cost one evaluation of each net; samples cost bisections, in n_dim stages.

    Args:
      n_dim, n_layers, hidden, context_dim: as in `NAF`.
      degree: of the polynomials.
      alternate: as in `UMNNMAF`.

    Raises:
      ValueError: for a count below 1.

    Reference:
      Ramasinghe, Fernando, Khan & Barnes (2021), Robust normalizing flows using Bernstein-type polynomials,
      https://arxiv.org/abs/2102.03509
    """
    transformer = functools.partial(Bernstein, degree)
    return standardized(n_dim, autoregressions(transformer, n_dim, n_layers, hidden, context_dim, alternate=alternate))


def InverseBPF(
    n_dim: int,
    *,
    n_layers: int = 3,
    hidden: Sequence[int] = (128, 128),
    degree: int = 16,
    context_dim: int | None = None,
) -> Bijector:
    """Inverse autoregressive layers of increasing Bernstein polynomials.

    Samples cost one evaluation of each net; densities cost bisections, in n_dim stages.

    Args:
      n_dim, n_layers, hidden, degree, context_dim: as in `BPF`.

    Reference:
      Ramasinghe, Fernando, Khan & Barnes (2021), Robust normalizing flows using Bernstein-type polynomials,
      https://arxiv.org/abs/2102.03509
    """
    transformer = functools.partial(Bernstein, degree)
    return standardized(n_dim, inverted(autoregressions(transformer, n_dim, n_layers, hidden, context_dim)))


def FlowPlusPlus(
    n_dim: int,
    *,
    n_layers: int = 5,
    hidden: Sequence[int] = (64, 64),
    n_components: int = 8,
    context_dim: int | None = None,
) -> Bijector:
    """Flow++ for vectors: coupling layers of logistic mixtures.

    Densities cost one evaluation of each net; samples cost bisections besides.

    Args:
      n_dim, n_layers, hidden, context_dim: as in `NAF`.
      n_components: logistic densities in a mixture.

    Raises:
      ValueError: for a count below 1.

    Reference:
      Ho, Chen, Srinivas, Duan & Abbeel (2019), Flow++, https://arxiv.org/abs/1902.00275
    """
    transformer = functools.partial(MixtureOfLogistics, n_components)
    return standardized(n_dim, couplings(transformer, n_dim, n_layers, hidden, context_dim))
