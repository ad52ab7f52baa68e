"""Solvers of ordinary differential equations."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import tensorflow as tf
import tensorflow_probability as tfp

from tfflows.numerics import check_counts
from tfflows.serialization import Record, register

__all__ = ["DormandPrince", "RungeKutta4", "Solver"]

# (time, state, constants) -> d state / d time; state and constants are tuples of tensors.
Derivative = Callable[[tf.Tensor, tuple[tf.Tensor, ...], tuple[tf.Tensor, ...]], tuple[tf.Tensor, ...]]


class Solver(Record):
    """Follows dy/dt = f(t, y; constants). Concrete solvers are frozen dataclasses."""

    def solve(
        self,
        derivative: Derivative,
        state: tuple[tf.Tensor, ...],
        constants: tuple[tf.Tensor, ...],
        *,
        start: float,
        stop: float,
    ) -> tuple[tf.Tensor, ...]:
        """The state at time `stop`, given that at `start`, which may be the later one.

        Gradients flow to state and constants only, and to nothing that `derivative` closes over.

        Args:
          derivative: of (time, state, constants), returns the slope of each tensor of the state.
          state: tensors `[n, ...]` at `start`.
          constants: tensors that the derivative depends on.
          start, stop: times.

        Returns:
          The state's tensors at `stop`.
        """
        raise NotImplementedError  # abstract


@register
@dataclasses.dataclass(frozen=True)
class RungeKutta4(Solver):
    """The classical Runge-Kutta method in steps of equal length: an error of order 1 / n_steps^4.

    Its gradient is that of the steps, exactly. It runs under XLA.

    Args:
      n_steps: number of steps, of four evaluations each.
      recompute: whether the gradient computes each step again, so that only the states between the steps are kept:
        less memory, and in training less time. Then there are no second derivatives (a NotImplementedError).

    Raises:
      ValueError: if n_steps < 1.

    Reference:
      Kutta (1901), Beitrag zur naeherungsweisen Integration totaler Differentialgleichungen
    """

    n_steps: int = 20
    recompute: bool = True

    def __post_init__(self):
        check_counts(n_steps=self.n_steps)

    def solve(self, derivative, state, constants, *, start, stop):
        dtype = state[0].dtype
        step = tf.constant((stop - start) / self.n_steps, dtype)

        def advance(time, *values):
            state, constants = values[:n_values], values[n_values:]
            slopes = [derivative(time, state, constants)]
            for fraction in (0.5, 0.5, 1.0):
                there = _shifted(state, slopes[-1], fraction * step)
                slopes.append(derivative(time + fraction * step, there, constants))
            mean = [(k1 + 2.0 * (k2 + k3) + k4) / 6.0 for k1, k2, k3, k4 in zip(*slopes, strict=True)]
            return _shifted(state, mean, step)

        n_values = len(state)
        advance = tf.recompute_grad(advance) if self.recompute else advance

        def body(i, state):
            return i + 1, tuple(advance(start + tf.cast(i, dtype) * step, *state, *constants))

        # The gradient of a loop under XLA needs to know how many steps there are.
        _, state = tf.while_loop(
            lambda i, state: i < self.n_steps, body, (tf.constant(0), tuple(state)), maximum_iterations=self.n_steps
        )
        return state


@register
@dataclasses.dataclass(frozen=True)
class DormandPrince(Solver):
    """The Runge-Kutta method of order 5 that chooses its steps, one for all rows, to meet tolerances.

    Its gradient comes from the adjoint equation, solved backwards with the same tolerances, so memory does not grow
    with the number of steps. That number is not known in advance: XLA cannot compile it, so a `FlowModel` with
    it needs `compile(jit_compile=False)`.

    Args:
      rtol, atol: relative and absolute tolerance of a step's error, > 0.

    Raises:
      ValueError: for a tolerance that is not positive.

    Reference:
      Dormand & Prince (1980), A family of embedded Runge-Kutta formulae,
      https://doi.org/10.1016/0771-050X(80)90013-3; Chen, Rubanova, Bettencourt & Duvenaud (2018), Neural ordinary
      differential equations, https://arxiv.org/abs/1806.07366
    """

    rtol: float = 1e-5
    atol: float = 1e-5

    def __post_init__(self):
        if not (self.rtol > 0.0 and self.atol > 0.0):
            raise ValueError(f"Expected rtol > 0 and atol > 0; got rtol={self.rtol}, atol={self.atol}.")

    def solve(self, derivative, state, constants, *, start, stop):
        dtype = state[0].dtype
        names = [f"constant_{i}" for i in range(len(constants))]
        span = tf.constant(stop - start, dtype)

        def slopes(elapsed, state, **constants):
            # TFP's time only increases.
            change = derivative(start + span * elapsed, state, tuple(constants[name] for name in names))
            return tuple(span * c for c in change)

        solver = tfp.math.ode.DormandPrince(rtol=self.rtol, atol=self.atol)
        solution = solver.solve(
            slopes,
            initial_time=tf.zeros([], dtype),
            initial_state=tuple(state),
            solution_times=tf.ones([1], dtype),
            constants=dict(zip(names, constants, strict=True)),
        )
        return tuple(s[-1] for s in solution.states)


def _shifted(state, slope, step):
    return tuple(s + step * k for s, k in zip(state, slope, strict=True))
