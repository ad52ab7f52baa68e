"""Presets: the architectures of the papers, each a short function that returns a bijector.

Every preset begins with `Standardize`, so data of any scale will do. With one dimension there is
nothing to condition on, so the layers become elementwise (given the context, if there is one).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfflows import losses
from tfflows.bijectors import (
    Bijector,
    Chain,
    ContinuousFlow,
    Coupling,
    Elementwise,
    Invert,
    MaskedAutoregressive,
    Permutation,
    Standardize,
    half_mask,
)
from tfflows.bijectors.continuous import Trace
from tfflows.nets import MADE, MLP, Velocity
from tfflows.ode import Solver
from tfflows.transformers import Affine, RationalQuadraticSpline, Shift, Transformer


def NICE(
    n_dim: int, *, n_layers: int = 8, hidden: Sequence[int] = (128, 128), context_dim: int | None = None
) -> Bijector:
    """Additive coupling layers and one learned scale per scalar.

    Both directions cost one evaluation of each net.

    Args:
      n_dim: number of scalars.
      n_layers: number of coupling layers.
      hidden: widths of each net's hidden layers.
      context_dim: width of the context, or None.

    Reference:
      Dinh, Krueger & Bengio (2014), NICE, https://arxiv.org/abs/1410.8516
    """
    layers = _couplings(Shift(), n_dim, n_layers, hidden, context_dim)
    return _standardized(n_dim, [*layers, Elementwise(Affine(), n_dim)])


def RealNVP(
    n_dim: int, *, n_layers: int = 8, hidden: Sequence[int] = (128, 128), context_dim: int | None = None
) -> Bijector:
    """Affine coupling layers. Both directions cost one evaluation of each net; arguments as in `NICE`.

    Reference:
      Dinh, Sohl-Dickstein & Bengio (2017), Density estimation using Real NVP,
      https://arxiv.org/abs/1605.08803
    """
    return _standardized(n_dim, [*_couplings(Affine(), n_dim, n_layers, hidden, context_dim)])


def CouplingRQNSF(
    n_dim: int,
    *,
    n_layers: int = 5,
    hidden: Sequence[int] = (64, 64),
    n_bins: int = 8,
    bound: float = 5.0,
    context_dim: int | None = None,
    circular: bool = False,
) -> Bijector:
    """Coupling layers with rational-quadratic splines. Both directions cost one evaluation of each net.

    Args:
      n_dim, n_layers, hidden, context_dim: as in `NICE`.
      n_bins: bins of each spline.
      bound: the splines act on [-bound, bound] of the standardised data. Ignored if circular.
      circular: the scalars are angles in radians, in [-pi, pi): circular splines, nets without a seam,
        a learned rotation before each layer, and no standardisation. Its base is
        `bases.UniformBox(n_dim, -pi, pi)`.

    Reference:
      Durkan, Bekasov, Murray & Papamakarios (2019), Neural spline flows,
      https://arxiv.org/abs/1906.04032
    """
    if not circular:
        spline = RationalQuadraticSpline(n_bins, bound)
        return _standardized(n_dim, [*_couplings(spline, n_dim, n_layers, hidden, context_dim)])
    spline = RationalQuadraticSpline(n_bins, float(np.pi), circular=True)
    layers = []
    for layer in _couplings(spline, n_dim, n_layers, hidden, context_dim, circular=True):
        layers += [Elementwise(Shift(circular_bound=float(np.pi)), n_dim), layer]
    return Chain(layers)


def MAF(
    n_dim: int, *, n_layers: int = 6, hidden: Sequence[int] = (128, 128), context_dim: int | None = None
) -> Bijector:
    """Affine masked autoregressive layers, every second one in reverse order.

    Densities cost one evaluation of each net; samples cost as much, in n_dim stages; arguments as in `NICE`.

    Reference:
      Papamakarios, Pavlakou & Murray (2017), Masked autoregressive flow for density estimation,
      https://arxiv.org/abs/1705.07057
    """
    return _standardized(n_dim, [*_autoregressions(Affine(), n_dim, n_layers, hidden, context_dim)])


def IAF(
    n_dim: int, *, n_layers: int = 6, hidden: Sequence[int] = (128, 128), context_dim: int | None = None
) -> Bijector:
    """Inverse autoregressive flow: MAF's layers the other way round.

    Samples cost one evaluation of each net; densities cost as much, in n_dim stages; arguments as in `NICE`.

    Reference:
      Kingma et al. (2016), Improved variational inference with inverse autoregressive flow,
      https://arxiv.org/abs/1606.04934
    """
    layers = _autoregressions(Affine(), n_dim, n_layers, hidden, context_dim)
    return _standardized(n_dim, [*(Invert(layer) for layer in layers)])


def MaskedAutoregressiveRQNSF(
    n_dim: int,
    *,
    n_layers: int = 5,
    hidden: Sequence[int] = (128, 128),
    n_bins: int = 8,
    bound: float = 5.0,
    context_dim: int | None = None,
) -> Bijector:
    """Masked autoregressive layers with rational-quadratic splines.

    Densities cost one evaluation of each net; samples cost as much, in n_dim stages; arguments as in `CouplingRQNSF`.

    Reference:
      Durkan, Bekasov, Murray & Papamakarios (2019), Neural spline flows,
      https://arxiv.org/abs/1906.04032
    """
    spline = RationalQuadraticSpline(n_bins, bound)
    return _standardized(n_dim, [*_autoregressions(spline, n_dim, n_layers, hidden, context_dim)])


def _standardized(n_dim, layers) -> Chain:
    return Chain([Standardize(n_dim), *layers])


def _check(n_dim, n_layers):
    if n_dim < 1 or n_layers < 1:
        raise ValueError(f"Expected n_dim >= 1 and n_layers >= 1; got n_dim={n_dim}, n_layers={n_layers}.")


def _elementwise(transformer: Transformer, n_dim, n_layers, hidden, context_dim) -> list[Bijector]:
    def net():
        return None if context_dim is None else MLP(n_dim * transformer.n_parameters, hidden)

    return [Elementwise(transformer, n_dim, net(), context_dim) for _ in range(n_layers)]


def _couplings(transformer, n_dim, n_layers, hidden, context_dim, *, circular=False) -> list[Bijector]:
    """Half couplings; halves are swapped in turns, and more than two scalars mixed after each two layers."""
    _check(n_dim, n_layers)
    if n_dim == 1:
        return _elementwise(transformer, n_dim, n_layers, hidden, context_dim)
    layers = []
    for i in range(n_layers):
        mask = half_mask(n_dim, flip=i % 2 == 1)
        if i > 0 and i % 2 == 0 and n_dim > 2:
            layers.append(Permutation.random(n_dim, seed=i))
        net = MLP(int(mask.sum()) * transformer.n_parameters, hidden, circular=circular)
        layers.append(Coupling(transformer, mask, net, context_dim))
    return layers


def _autoregressions(transformer, n_dim, n_layers, hidden, context_dim) -> list[Bijector]:
    """Masked autoregressive layers, left to right and right to left in turns."""
    _check(n_dim, n_layers)
    layers = []
    for i in range(n_layers):
        order = np.arange(n_dim) if i % 2 == 0 else np.arange(n_dim)[::-1]
        net = MADE(n_dim, transformer.n_parameters, hidden, order=order)
        layers.append(MaskedAutoregressive(transformer, net, context_dim))
    return layers


# Continuous flows.


def FFJORD(
    n_dim: int,
    *,
    hidden: Sequence[int] = (64, 64),
    trace: Trace | None = None,
    solver: Solver | None = None,
    context_dim: int | None = None,
) -> Bijector:
    """A continuous flow, trained by maximum likelihood through the solver.

    Both directions cost one solution of its differential equation.

    Args:
      n_dim: number of scalars.
      hidden: widths of the velocity's hidden layers.
      trace: `bijectors.ExactTrace()` (by default up to 8 scalars) or `bijectors.HutchinsonTrace()`.
      solver: of `tfflows.ode`; `RungeKutta4()` by default. `DormandPrince()` needs `compile(jit_compile=False)`.
      context_dim: width of the context, or None.

    Reference:
      Grathwohl, Chen, Bettencourt, Sutskever & Duvenaud (2019), FFJORD: free-form continuous dynamics for scalable
      reversible generative models, https://arxiv.org/abs/1810.01367
    """
    return _continuous(n_dim, hidden, trace, solver, context_dim, None)


def RNODE(
    n_dim: int,
    *,
    hidden: Sequence[int] = (64, 64),
    kinetic: float = 0.01,
    jacobian: float = 0.01,
    trace: Trace | None = None,
    solver: Solver | None = None,
    context_dim: int | None = None,
) -> Bijector:
    """FFJORD with a price on the length and the bending of its ways, which a solver then follows in few steps.

    Both directions cost one solution of its differential equation.

    Args:
      n_dim, hidden, trace, solver, context_dim: as in `FFJORD`.
      kinetic, jacobian: the prices, as in `losses.RegularizedLikelihood`.

    Reference:
      Finlay, Jacobsen, Nurbekyan & Oberman (2020), How to train your neural ODE: the world of Jacobian and kinetic
      regularization, https://arxiv.org/abs/2002.02798
    """
    return _continuous(n_dim, hidden, trace, solver, context_dim, losses.RegularizedLikelihood(kinetic, jacobian))


def FlowMatching(
    n_dim: int,
    *,
    hidden: Sequence[int] = (128, 128, 128),
    trace: Trace | None = None,
    solver: Solver | None = None,
    context_dim: int | None = None,
) -> Bijector:
    """A continuous flow, trained by regression on its velocity: no equation is solved in training.

    Both directions cost one solution of its differential equation; arguments as in `FFJORD`. The loss that `fit`
    and `evaluate` show is that of the regression, not a likelihood; for that see `log_prob`.

    Reference:
      Lipman, Chen, Ben-Hamu, Nickel & Le (2023), Flow matching for generative modeling,
      https://arxiv.org/abs/2210.02747
    """
    return _continuous(n_dim, hidden, trace, solver, context_dim, losses.FlowMatching())


def _continuous(n_dim, hidden, trace, solver, context_dim, default_loss) -> Bijector:
    _check(n_dim, 1)
    flow = ContinuousFlow(Velocity(n_dim, hidden), context_dim, trace=trace, solver=solver, default_loss=default_loss)
    return _standardized(n_dim, [flow])
