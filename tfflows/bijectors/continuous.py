"""Continuous normalizing flows: the data flow along a learned velocity field."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from tfflows.bijectors.base import Bijector
from tfflows.nets import Potential, Velocity
from tfflows.nets.conditioning import as_rows, describe_net
from tfflows.numerics import MAX_DIM_EXACT, check_counts, in_graph
from tfflows.ode import RungeKutta4, Solver
from tfflows.randomness import random_signs, training_seed
from tfflows.serialization import Record, register


class Trace(Record):
    """How the trace of a Jacobian is found. Concrete ones are frozen dataclasses."""

    def directions(self, x: tf.Tensor) -> tf.Tensor:
        """K directions e for each row of `x` `[n, D]`, or the same for all, `[K, n or 1, D]`.

        The sum of e e^T over them is the identity, at least on average.
        """
        raise NotImplementedError  # abstract


@register
@dataclasses.dataclass(frozen=True)
class ExactTrace(Trace):
    """The sum of the diagonal, from the derivatives along all D axes."""

    def directions(self, x):
        return tf.eye(x.shape[-1], dtype=x.dtype)[:, tf.newaxis, :]


@register
@dataclasses.dataclass(frozen=True)
class HutchinsonTrace(Trace):
    """The mean of e^T J e over random signs e: the trace of J on average.

    A step of `fit` draws new signs for every row, so the gradient has no bias. Elsewhere the signs follow from the
    row's numbers: log-densities can be repeated, but remain estimates, whose errors average out over rows. As a
    function of x they jump, so what moves along their slope, such as HMC, needs `ExactTrace`.

    Args:
      n_probes: K, the number of sign vectors.

    Raises:
      ValueError: if n_probes < 1.

    Reference:
      Hutchinson (1990), A stochastic estimator of the trace of the influence matrix for Laplacian smoothing
      splines, https://doi.org/10.1080/03610919008812866
    """

    n_probes: int = 1

    def __post_init__(self):
        check_counts(n_probes=self.n_probes)

    def directions(self, x):
        return random_signs(x, self.n_probes) / self.n_probes**0.5


@dataclasses.dataclass(frozen=True)
class Rates:
    """What is known of a velocity field v at one time, for what is integrated along the way.

    Args:
      velocity: v `[n, D]`.
      changes: dv/dx times the directions, `[K, n, D]`.
      directions: `[K, n or 1, D]`, as in `Trace.directions`.
      net, inputs: the net that was asked, and x, time and context that it was asked at.
    """

    velocity: tf.Tensor
    changes: tf.Tensor
    directions: tf.Tensor
    net: keras.layers.Layer
    inputs: tuple[tf.Tensor, tf.Tensor, tf.Tensor | None]


Cost = Callable[[Rates], tf.Tensor]


def divergence(rates: Rates) -> tf.Tensor:
    """trace dv/dx `[n]`."""
    return tf.reduce_sum(rates.changes * rates.directions, axis=[0, -1])


def kinetic_energy(rates: Rates) -> tf.Tensor:
    """|v|^2 `[n]`."""
    return tf.reduce_sum(tf.square(rates.velocity), axis=-1)


def bending(rates: Rates) -> tf.Tensor:
    """The squared Frobenius norm of dv/dx `[n]`, as exact as the trace."""
    return tf.reduce_sum(tf.square(rates.changes), axis=[0, -1])


def hamilton_jacobi(rates: Rates) -> tf.Tensor:
    """|dPhi/dt - |grad Phi|^2 / 2| `[n]` of a `Potential`: zero on ways of least energy."""
    if not isinstance(rates.net, Potential):
        raise ValueError(f"Expected a flow whose net is a Potential; got {type(rates.net).__name__}.")
    return tf.abs(rates.net.hamilton_jacobi(*rates.inputs))


@register
class ContinuousFlow(Bijector):
    """Moves the data along a velocity field v for one unit of time: a neural ordinary differential equation.

    dx/dt = v(x, t; context), from the data at t = 0 to the latent at t = 1;
    log |det dz/dx| = integral over t of trace dv/dx.

    Both directions are the same equation, solved one way or the other, and inverse to each other up to the
    solver's error. Either costs some tens of evaluations of the net; it starts as the identity.

    Args:
      net: a `Velocity` or a `Potential`.
      context_dim: width of the context, or None.
      trace: `ExactTrace()` (the default up to 8 scalars) or `HutchinsonTrace()` (the default beyond).
      solver: of `tfflows.ode`; `RungeKutta4()` by default.
      default_loss: a loss of `tfflows.losses` that `fit` minimises unless `compile` names another;
        None for the negative log-likelihood.

    Raises:
      ValueError: if net, trace or solver is of another kind.

    Reference:
      Chen, Rubanova, Bettencourt & Duvenaud (2018), Neural ordinary differential equations,
      https://arxiv.org/abs/1806.07366; Grathwohl, Chen, Bettencourt, Sutskever & Duvenaud (2019), FFJORD,
      https://arxiv.org/abs/1810.01367
    """

    def __init__(
        self,
        net: Velocity | Potential,
        context_dim: int | None = None,
        *,
        trace: Trace | None = None,
        solver: Solver | None = None,
        default_loss=None,
        name: str | None = None,
    ):
        parameters = dict(locals())
        if not isinstance(net, (Velocity, Potential)):
            raise ValueError(f"Expected a Velocity or a Potential as net; got {net!r}.")
        if trace is None:
            trace = ExactTrace() if net.n_dim <= MAX_DIM_EXACT else HutchinsonTrace()
        if not isinstance(trace, Trace):
            raise ValueError(f"Expected ExactTrace() or HutchinsonTrace() as trace; got {trace!r}.")
        solver = RungeKutta4() if solver is None else solver
        if not isinstance(solver, Solver):
            raise ValueError(f"Expected a solver of tfflows.ode; got {solver!r}.")
        super().__init__(parameters, event_shape=(net.n_dim,), context_dim=context_dim, name=name)
        self._trace, self._solver, self._default_loss = trace, solver, default_loss
        widths = [net.n_dim, 1] if context_dim is None else [net.n_dim, 1, context_dim]
        net(*(keras.KerasTensor((None, width)) for width in widths))
        self._net = net
        self._solve_in_graph = in_graph(self._solve)

    @property
    def default_loss(self):
        return self._default_loss

    def _forward_and_log_det(self, z, context):
        if isinstance(self._trace, ExactTrace) or training_seed() is not None:
            return self._flow(z, context, 1.0, 0.0, (divergence,))
        # The estimate depends on where it is made: at x both directions make the same.
        (x,) = self._flow(z, context, 1.0, 0.0, ())
        return x, -self._flow(x, context, 0.0, 1.0, (divergence,))[1]

    def _inverse_and_log_det(self, x, context):
        return self._flow(x, context, 0.0, 1.0, (divergence,))

    def inverse_with_costs(self, x, context=None, *, costs: Sequence[Cost] = ()) -> tuple[tf.Tensor, ...]:
        """z, log |det dz/dx|, and what the way there costs.

        Args:
          x: `[..., D]`.
          context: `[..., context_dim]`, or None.
          costs: functions of `Rates`, such as `kinetic_energy`, `bending` and `hamilton_jacobi`.

        Returns:
          z `[..., D]`, log |det dz/dx| `[...]`, and the integral over time of each cost, `[...]`.
        """
        context = None if self.context_dim is None else tf.cast(context, self.dtype)
        return self._flow(tf.cast(x, self.dtype), context, 0.0, 1.0, (divergence, *costs))

    def velocity(self, x, time, context=None) -> tf.Tensor:
        """The velocity v at some positions and times, `[n, D]`.

        Args:
          x: positions `[n, D]`.
          time: `[n, 1]`, in [0, 1]: 0 is the data's end, 1 the latents'.
          context: `[n, context_dim]`, or None.
        """
        inputs = (x, time) if self.context_dim is None else (x, time, context)
        return tf.cast(self._net(*inputs), x.dtype)

    def _flow(self, x, context, start, stop, integrands):
        """x at time `stop`, and the integrals over time on the way there."""
        rows, batch = as_rows(*(v for v in (x, context) if v is not None))
        x, *context = rows
        # Directions are drawn once for the whole way: with new ones at every step this were no differential equation.
        x, *integrals = self._solve_in_graph(x, self._trace.directions(x), context, start, stop, integrands)
        x = tf.reshape(x, tf.concat([batch, [x.shape[-1]]], axis=0))
        return x, *(tf.reshape(integral, batch) for integral in integrals)

    def _solve(self, x, directions, context, start, stop, integrands):
        n_weights = len(self._net.weights)

        def derivative(time, state, constants):
            weights, (directions, *context) = constants[:n_weights], constants[n_weights:]
            with keras.StatelessScope(zip(self._net.weights, weights, strict=True)):
                inputs = (state[0], tf.reshape(time, [1, 1]), context[0] if context else None)
                velocity, changes = self._net.with_derivatives(*inputs, directions)
                rates = Rates(velocity, changes, directions, self._net, inputs)
                return velocity, *(integrand(rates) for integrand in integrands)

        # Read here, because gradients do not reach variables from inside a solver's loop.
        weights = [tf.convert_to_tensor(weight) for weight in self._net.weights]
        state = (x, *(tf.zeros_like(x[:, 0]) for _ in integrands))
        return self._solver.solve(derivative, state, (*weights, directions, *context), start=start, stop=stop)

    def describe(self):
        return f"ContinuousFlow: {describe_net(self._net)}, {self._trace}, {self._solver}"
