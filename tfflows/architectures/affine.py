"""NICE, Real NVP, MAF and IAF."""

from __future__ import annotations

from collections.abc import Sequence

from tfflows.architectures.stacks import autoregressions, couplings, inverted, standardized
from tfflows.bijectors import Bijector, Elementwise
from tfflows.transformers import Affine, Shift


def NICE(
    n_dim: int, *, n_layers: int = 8, hidden: Sequence[int] = (128, 128), context_dim: int | None = None
) -> Bijector:
    """Additive coupling layers and one learned scale per scalar.

    Both directions cost one evaluation of each net.

    Args:
      n_dim: number of scalars, >= 1.
      n_layers: number of coupling layers, >= 1.
      hidden: widths of each net's hidden layers, >= 1 each.
      context_dim: width of the context, `[n, context_dim]`, or None for a flow without.

    Raises:
      ValueError: for a count below 1.

    Reference:
      Dinh, Krueger & Bengio (2014), NICE, https://arxiv.org/abs/1410.8516
    """
    layers = couplings(Shift, n_dim, n_layers, hidden, context_dim)
    return standardized(n_dim, [*layers, Elementwise(Affine(), n_dim)])


def RealNVP(
    n_dim: int, *, n_layers: int = 8, hidden: Sequence[int] = (128, 128), context_dim: int | None = None
) -> Bijector:
    """Affine coupling layers. Both directions cost one evaluation of each net.

    Args:
      n_dim, n_layers, hidden, context_dim: as in `NICE`.

    Reference:
      Dinh, Sohl-Dickstein & Bengio (2017), Density estimation using Real NVP,
      https://arxiv.org/abs/1605.08803
    """
    return standardized(n_dim, couplings(Affine, n_dim, n_layers, hidden, context_dim))


def MAF(
    n_dim: int,
    *,
    n_layers: int = 6,
    hidden: Sequence[int] = (128, 128),
    context_dim: int | None = None,
    alternate: bool = True,
) -> Bijector:
    """Affine masked autoregressive layers, every second one in reverse order.

    Densities cost one evaluation of each net; samples cost as much, in n_dim stages.

    Args:
      n_dim, hidden, context_dim: as in `NICE`.
      n_layers: number of autoregressive layers, >= 1.
      alternate: whether every second layer goes from the last scalar to the first. With False all go from the first
        on: the flow is triangular, so that `flow.rosenblatt`, `conditional` and `marginal_log_prob` work.

    Reference:
      Papamakarios, Pavlakou & Murray (2017), Masked autoregressive flow for density estimation,
      https://arxiv.org/abs/1705.07057
    """
    return standardized(n_dim, autoregressions(Affine, n_dim, n_layers, hidden, context_dim, alternate=alternate))


def IAF(
    n_dim: int, *, n_layers: int = 6, hidden: Sequence[int] = (128, 128), context_dim: int | None = None
) -> Bijector:
    """Inverse autoregressive flow: MAF's layers the other way round.

    Samples cost one evaluation of each net; densities cost as much, in n_dim stages.

    Args:
      n_dim, n_layers, hidden, context_dim: as in `MAF`.

    Reference:
      Kingma et al. (2016), Improved variational inference with inverse autoregressive flow,
      https://arxiv.org/abs/1606.04934
    """
    return standardized(n_dim, inverted(autoregressions(Affine, n_dim, n_layers, hidden, context_dim)))
