"""Residual flows: planar, radial, Sylvester, invertible ResNets."""

from __future__ import annotations

from collections.abc import Sequence

from tfflows import bijectors
from tfflows.architectures.stacks import standardized
from tfflows.bijectors import ActNorm, Bijector, PowerSeries, Residual, RussianRoulette
from tfflows.bijectors.residual import LogDet
from tfflows.nets import MLP, LipschitzMLP
from tfflows.numerics import MAX_DIM_EXACT, check_counts


def Planar(
    n_dim: int, *, n_layers: int = 16, hidden: Sequence[int] = (64, 64), context_dim: int | None = None
) -> Bijector:
    """Planar flow: ridges, one after another. Few weights, and as little expressive.

    Densities are closed forms; samples cost the root of a function of one number in each layer.

    Args:
      n_dim: number of scalars.
      n_layers: number of ridges.
      hidden: with a context, widths of the hidden layers of the nets that hear it.
      context_dim: width of the context, or None.

    Raises:
      ValueError: for a count below 1.

    Reference:
      Rezende & Mohamed (2015), Variational inference with normalizing flows, https://arxiv.org/abs/1505.05770
    """
    check_counts(n_dim=n_dim, n_layers=n_layers)
    nets = _nets(2 * n_dim + 1, n_layers, hidden, context_dim)
    return standardized(n_dim, [bijectors.Planar(n_dim, net, context_dim) for net in nets])


def Radial(
    n_dim: int, *, n_layers: int = 16, hidden: Sequence[int] = (64, 64), context_dim: int | None = None
) -> Bijector:
    """Radial flow: pushes from points and pulls to them, one after another.

    Both directions are closed forms.

    Args:
      n_dim, hidden, context_dim: as in `Planar`.
      n_layers: number of points.

    Raises:
      ValueError: as of `Planar`.

    Reference:
      Rezende & Mohamed (2015), Variational inference with normalizing flows, https://arxiv.org/abs/1505.05770
    """
    check_counts(n_dim=n_dim, n_layers=n_layers)
    nets = _nets(n_dim + 2, n_layers, hidden, context_dim)
    return standardized(n_dim, [bijectors.Radial(n_dim, net, context_dim) for net in nets])


def Sylvester(
    n_dim: int,
    *,
    n_layers: int = 8,
    n_ridges: int | None = None,
    hidden: Sequence[int] = (64, 64),
    context_dim: int | None = None,
) -> Bijector:
    """Sylvester flow: several ridges at once, along orthogonal directions.

    Densities are closed forms; samples cost n_ridges roots of functions of one number in each layer.

    Args:
      n_dim: number of scalars, >= 2.
      n_layers, hidden, context_dim: as in `Planar`.
      n_ridges: ridges of a layer; by default n_dim, at most 16.

    Raises:
      ValueError: for a count below 1, n_dim < 2, or more ridges than scalars.

    Reference:
      van den Berg, Hasenclever, Tomczak & Welling (2018), Sylvester normalizing flows for variational inference,
      https://arxiv.org/abs/1803.05649
    """
    check_counts(n_dim=n_dim, n_layers=n_layers)
    m = min(n_dim, 16) if n_ridges is None else n_ridges
    nets = _nets(m * (2 * m + 1), n_layers, hidden, context_dim)
    return standardized(n_dim, [bijectors.Sylvester(n_dim, m, net, context_dim) for net in nets])


def InvertibleResNet(
    n_dim: int,
    *,
    n_layers: int = 8,
    hidden: Sequence[int] = (64, 64),
    coefficient: float = 0.97,
    log_det: LogDet | None = None,
    context_dim: int | None = None,
) -> Bijector:
    """Invertible residual network: blocks that add a contraction, each after an `ActNorm`.

    Densities cost a pass and the log-dets; samples cost fixed-point iterations.

    Args:
      n_dim: number of scalars.
      n_layers: number of blocks.
      hidden: widths of each block's hidden layers.
      coefficient: Lipschitz constant of the contractions, in (0, 1).
      log_det: `bijectors.ExactLogDet()` (by default up to 8 scalars), or `bijectors.PowerSeries()`, the paper's
        (by default beyond).
      context_dim: width of the context, or None.

    Raises:
      ValueError: for a count below 1, or a coefficient outside (0, 1).

    Reference:
      Behrmann, Grathwohl, Chen, Duvenaud & Jacobsen (2019), Invertible residual networks,
      https://arxiv.org/abs/1811.00995
    """
    check_counts(n_dim=n_dim)
    if log_det is None and n_dim > MAX_DIM_EXACT:
        log_det = PowerSeries()
    return _residuals(n_dim, n_layers, hidden, coefficient, log_det, context_dim)


def ResidualFlow(
    n_dim: int,
    *,
    n_layers: int = 8,
    hidden: Sequence[int] = (64, 64),
    coefficient: float = 0.97,
    log_det: LogDet | None = None,
    context_dim: int | None = None,
) -> Bijector:
    """An invertible residual network trained with an unbiased estimate of its log-det.

    Densities cost a pass and the log-dets; samples cost fixed-point iterations.

    Args:
      n_dim, n_layers, hidden, coefficient, context_dim: as in `InvertibleResNet`.
      log_det: `bijectors.RussianRoulette()` by default.

    Reference:
      Chen, Behrmann, Duvenaud & Jacobsen (2019), Residual flows for invertible generative modeling,
      https://arxiv.org/abs/1906.02735
    """
    return _residuals(n_dim, n_layers, hidden, coefficient, log_det or RussianRoulette(), context_dim)


def _residuals(n_dim, n_layers, hidden, coefficient, log_det, context_dim) -> Bijector:
    check_counts(n_dim=n_dim, n_layers=n_layers)
    layers = []
    for _ in range(n_layers):
        net = LipschitzMLP(n_dim, hidden, coefficient)
        layers += [ActNorm(n_dim), Residual(net, context_dim, log_det=log_det)]
    return standardized(n_dim, layers)


def _nets(n_outputs, n_layers, hidden, context_dim):
    return [None if context_dim is None else MLP(n_outputs, hidden) for _ in range(n_layers)]
