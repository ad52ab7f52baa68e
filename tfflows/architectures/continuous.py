"""Continuous flows."""

from __future__ import annotations

from collections.abc import Sequence

from tfflows import losses
from tfflows.architectures.stacks import standardized
from tfflows.bijectors import Bijector, ContinuousFlow, ExactTrace
from tfflows.bijectors.continuous import Trace
from tfflows.nets import Potential, Velocity
from tfflows.numerics import check_counts
from tfflows.ode import Solver


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

    Raises:
      ValueError: for a count below 1, or a trace or solver of another kind.

    Reference:
      Grathwohl, Chen, Bettencourt, Sutskever & Duvenaud (2019), FFJORD: free-form continuous dynamics for scalable
      reversible generative models, https://arxiv.org/abs/1810.01367
    """
    return _continuous(Velocity(n_dim, hidden), trace, solver, context_dim, None)


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

    Raises:
      ValueError: as of `FFJORD`, and for a negative price.

    Reference:
      Finlay, Jacobsen, Nurbekyan & Oberman (2020), How to train your neural ODE: the world of Jacobian and kinetic
      regularization, https://arxiv.org/abs/2002.02798
    """
    return _continuous(
        Velocity(n_dim, hidden), trace, solver, context_dim, losses.RegularizedLikelihood(kinetic, jacobian)
    )


def OTFlow(
    n_dim: int,
    *,
    hidden: Sequence[int] = (64, 64),
    kinetic: float = 0.01,
    hjb: float = 0.01,
    trace: Trace | None = None,
    solver: Solver | None = None,
    context_dim: int | None = None,
) -> Bijector:
    """A continuous flow down the slope of a potential, trained with a price on length: optimal transport.

    Both directions cost one solution of its differential equation, whose trace is exact in any dimension.

    Args:
      n_dim, solver, context_dim: as in `FFJORD`.
      hidden: widths of the potential's hidden layers, all equal.
      kinetic, hjb: the prices, as in `losses.RegularizedLikelihood`.
      trace: `bijectors.ExactTrace()` by default, as in the paper.

    Raises:
      ValueError: as of `FFJORD`, for hidden widths that differ, and for a negative price.

    Reference:
      Onken, Wu Fung, Li & Ruthotto (2021), OT-Flow: fast and accurate continuous normalizing flows via optimal
      transport, https://arxiv.org/abs/2006.00104
    """
    loss = losses.RegularizedLikelihood(kinetic, jacobian=0.0, hjb=hjb)
    return _continuous(Potential(n_dim, hidden), trace or ExactTrace(), solver, context_dim, loss)


def FlowMatching(
    n_dim: int,
    *,
    hidden: Sequence[int] = (128, 128, 128),
    trace: Trace | None = None,
    solver: Solver | None = None,
    context_dim: int | None = None,
) -> Bijector:
    """A continuous flow, trained by regression on its velocity: no equation is solved in training.

    Both directions cost one solution of its differential equation. The loss that `fit` and `evaluate` show is that of
    the regression, not a likelihood; for that see `log_prob`.

    Args:
      n_dim, hidden, trace, solver, context_dim: as in `FFJORD`.

    Reference:
      Lipman, Chen, Ben-Hamu, Nickel & Le (2023), Flow matching for generative modeling,
      https://arxiv.org/abs/2210.02747
    """
    return _continuous(Velocity(n_dim, hidden), trace, solver, context_dim, losses.FlowMatching())


def _continuous(net, trace, solver, context_dim, default_loss) -> Bijector:
    check_counts(n_dim=net.n_dim)
    flow = ContinuousFlow(net, context_dim, trace=trace, solver=solver, default_loss=default_loss)
    return standardized(net.n_dim, [flow])
