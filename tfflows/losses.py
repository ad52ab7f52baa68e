"""Losses: what `fit` minimises."""

from __future__ import annotations

import math
from collections.abc import Callable

import keras
import tensorflow as tf

from tfflows.bijectors import Chain, ContinuousFlow, Noise
from tfflows.bijectors.continuous import bending, hamilton_jacobi, kinetic_energy
from tfflows.numerics import finite_gradient
from tfflows.randomness import step_seeds, uniform
from tfflows.serialization import register

__all__ = ["FlowMatching", "Loss", "NegativeLogLikelihood", "NoisyLikelihood", "RegularizedLikelihood", "ReverseKL"]


class Loss:
    """An objective, one number for each row of data; `fit` minimises its weighted mean.

    A subclass implements `__call__`, has a `get_config` with its constructor's arguments, and is registered
    with `keras.saving.register_keras_serializable`.
    """

    def __call__(self, flow, x: tf.Tensor, context: tf.Tensor | None) -> tf.Tensor:
        """The loss of each row, `[n]`.

        Args:
          flow: the `FlowModel` or `FlowMixture`; its verbs, such as `log_prob`, may be called, and gradients
            flow through them to its weights.
          x: `[n, *event]`.
          context: `[n, *context_shape]` or None.

        Raises:
          ValueError: for a flow that it is not made for.
        """
        raise NotImplementedError  # abstract

    def get_config(self) -> dict:
        """The constructor's arguments, as a `.keras` file holds them."""
        return {}

    @classmethod
    def from_config(cls, config: dict) -> Loss:
        """The same loss again, from the `config` of `get_config`."""
        return cls(**config)


@register
class NegativeLogLikelihood(Loss):
    """-log p(x | context), in nats: maximum likelihood, the default."""

    def __call__(self, flow, x, context):
        return -flow.log_prob(x, context)


@register
class RegularizedLikelihood(Loss):
    """-log p(x | context), in nats, with a price on the ways of a continuous flow, so that they are easy to follow.

    -log p + integral over t of (kinetic |v|^2 + jacobian |dv/dx|^2 + hjb |dPhi/dt - |grad Phi|^2 / 2|), with the
    Frobenius norm, and Phi the potential whose slope v is; where there are several `ContinuousFlow`s in a chain, summed
    over them. With all weights zero it is the negative log-likelihood.

    Args:
      kinetic: weight of the kinetic energy, >= 0: short and straight ways.
      jacobian: weight of the Jacobian's norm, >= 0: neighbours stay neighbours.
      hjb: weight of the Hamilton-Jacobi-Bellman equation, >= 0, for flows with a `nets.Potential`: ways of least
        energy.

    Raises:
      ValueError: for a negative weight.

    References:
      Finlay, Jacobsen, Nurbekyan & Oberman (2020), How to train your neural ODE: the world of Jacobian and kinetic
      regularization, https://arxiv.org/abs/2002.02798; Onken, Wu Fung, Li & Ruthotto (2021), OT-Flow,
      https://arxiv.org/abs/2006.00104
    """

    def __init__(self, kinetic: float = 0.01, jacobian: float = 0.01, hjb: float = 0.0):
        if not (kinetic >= 0.0 and jacobian >= 0.0 and hjb >= 0.0):
            raise ValueError(f"Expected kinetic >= 0, jacobian >= 0 and hjb >= 0; got {kinetic}, {jacobian} and {hjb}.")
        self.kinetic, self.jacobian, self.hjb = float(kinetic), float(jacobian), float(hjb)

    def __call__(self, flow, x, context):
        _check_continuous(flow)
        prices = {kinetic_energy: self.kinetic, bending: self.jacobian, hamilton_jacobi: self.hjb}
        prices = {cost: price for cost, price in prices.items() if price > 0.0}
        total = 0.0
        parts, context = _parts_of(flow), flow._hear(context)
        for part in parts:
            if isinstance(part, ContinuousFlow):
                x, log_det, *costs = part.inverse_with_costs(x, context, costs=tuple(prices))
                total = total + sum(price * cost for price, cost in zip(prices.values(), costs, strict=True))
            else:
                x, log_det = _inverse([part], x, context)
            total = total - log_det
        return total - flow.base.log_prob(x)

    def get_config(self):
        return {"kinetic": self.kinetic, "jacobian": self.jacobian, "hjb": self.hjb}


@register
class FlowMatching(Loss):
    """Regresses the velocity of a continuous flow on straight lines between data and latents, without solving it.

    |v(x_t, t; context) - (z - x)|^2 with x_t = (1 - t) x + t z, t uniform on [0, 1], z a draw from the base. Its
    least value is not zero; the velocity that has it carries the data's density to the base's.

    What stands before the `ContinuousFlow` in a chain is applied to the data first, without training it (that
    is what `Standardize` needs), and what stands after it to the draws. In training steps t and z are new
    each time; in evaluation they are always the same, so that held-out losses can be compared.

    Raises:
      ValueError: when called for a flow without exactly one `ContinuousFlow`.

    Reference:
      Lipman, Chen, Ben-Hamu, Nickel & Le (2023), Flow matching for generative modeling,
      https://arxiv.org/abs/2210.02747
    """

    def __call__(self, flow, x, context):
        _check_continuous(flow)
        parts, context = _parts_of(flow), flow._hear(context)
        at = [i for i, part in enumerate(parts) if isinstance(part, ContinuousFlow)]
        if len(at) != 1:
            raise ValueError(f"Expected a bijector with one ContinuousFlow for flow matching; got {len(at)} of them.")
        before, ode, after = parts[: at[0]], parts[at[0]], parts[at[0] + 1 :]
        x = tf.cast(x if not before else _inverse(before, x, context)[0], ode.dtype)
        n_rows = tf.shape(x)[0]
        seeds = step_seeds(2)
        z = flow.base.sample([n_rows], seeds[0])
        if after:
            z = Chain(after).forward_and_log_det(z, context)[0]
        x, z = tf.stop_gradient(x), tf.stop_gradient(z)
        # One time in each of n equal pieces, and each still uniform: the mean over the rows varies less.
        first = uniform([], seeds[1], x.dtype)
        time = tf.math.floormod(first + tf.range(n_rows, dtype=x.dtype) / tf.cast(n_rows, x.dtype), 1.0)[:, tf.newaxis]
        velocity = ode.velocity((1.0 - time) * x + time * z, time, context)
        return tf.reduce_sum(tf.square(velocity - (z - x)), axis=-1)


@register
class NoisyLikelihood(Loss):
    """-log p(x + c e | context, c) with noise e and a random scale c in each row, in nats: for data on thin manifolds.

    Their density is infinite there, so the likelihood has no maximum. Blurred by noise they have a proper density; and
    since the flow is told how wide the noise was, it can be asked for none when it samples. The scale is max_scale
    u^power, with u uniform and max_scale that of the flow's `Noise`, where the noise is added. In training steps u and
    e are new each time; in evaluation they are always the same.

    Args:
      power: > 0; 1 for uniform scales, as in the paper; with more there are more small ones, and samples come nearer to
        the data.

    Raises:
      ValueError: for a power that is not positive, and when called for a flow without `Noise`.

    Reference:
      Kim, Lee, Kang & Kim (2020), SoftFlow: probabilistic framework for normalizing flow on manifolds,
      https://arxiv.org/abs/2006.04604
    """

    def __init__(self, power: float = 1.0):
        if not 0.0 < power < float("inf"):
            raise ValueError(f"Expected a finite power > 0; got {power}.")
        self.power = float(power)

    def __call__(self, flow, x, context):
        _check_continuous(flow)
        parts = _parts_of(flow)
        at = [i for i, part in enumerate(parts) if isinstance(part, Noise)]
        if not at:
            raise ValueError(f"Expected a flow with Noise, such as SoftFlow, for this loss; got {flow!r}.")
        before, noise, after = parts[: at[0]], parts[at[0]], parts[at[0] + 1 :]
        seeds = step_seeds(2)
        scale = noise.scales(tf.shape(x)[0], self.power, seeds[0])
        context = flow._hear(context, scale)
        x, log_det = _inverse([*before, noise], x, context)
        z, log_det_after = _inverse(after, noise.blur(x, scale, seeds[1]), context)
        return -flow.base.log_prob(z) - log_det - log_det_after

    def get_config(self):
        return {"power": self.power}


@register
class ReverseKL(Loss):
    """log q(x) - log p(x) at draws x of the flow q: variational inference of a target p that is known up to a factor.

    One draw for each row; the rows themselves only set how many. Its mean is the divergence KL(q | p) less the
    logarithm of p's integral: minus the evidence lower bound. In training steps the draws are new each time; in
    evaluation they are always the same.

    Args:
      log_prob: of x `[n, *event]` to `[n]`, in TensorFlow; to save a model that is compiled with it, register it with
        `keras.saving.register_keras_serializable`.
      path_derivative: whether the gradient goes through the draws alone, and not through the density of where they
        fell, whose part of the gradient is zero in the mean: near the optimum it has far less noise, for one more pass
        through the flow.
      impossible: the loss of a draw whose log_prob is not finite, > 0, in nats. Its gradient lowers the flow's density
        there (the score function's), since none of the target says where to go. None ends the fit with an error.

    Raises:
      ValueError: for a log_prob that is no function, an `impossible` not above 0, and when called with a context.

    References:
      Rezende & Mohamed (2015), Variational inference with normalizing flows, https://arxiv.org/abs/1505.05770; Roeder,
      Wu & Duvenaud (2017), Sticking the landing, https://arxiv.org/abs/1703.09194
    """

    def __init__(self, log_prob: Callable, path_derivative: bool = True, impossible: float | None = None):
        if not callable(log_prob):
            raise ValueError(f"Expected a function as log_prob; got {log_prob!r}.")
        if impossible is not None and not 0.0 < impossible < math.inf:
            raise ValueError(f"Expected impossible > 0 and finite, or None; got {impossible}.")
        self.log_prob, self.path_derivative, self.impossible = log_prob, bool(path_derivative), impossible

    def __call__(self, flow, x, context):
        if context is not None:
            raise ValueError("Expected a flow without context for the reverse divergence; got one with.")
        draws, log_flow = flow._sample_and_log_prob([tf.shape(x)[0]], None, step_seeds(1)[0], 1.0)
        if self.path_derivative:
            stopped = [(weight, tf.stop_gradient(weight.value)) for weight in flow.trainable_variables]
            with keras.StatelessScope(state_mapping=stopped):
                log_flow = flow._log_prob(draws, None)
        if self.impossible is None:
            return log_flow - self.log_prob(draws)
        log_prob = self.log_prob(finite_gradient(draws))
        is_possible = tf.math.is_finite(log_prob)

        def away():
            density = flow._log_prob(tf.stop_gradient(draws), None)
            return self.impossible * (1.0 + density - tf.stop_gradient(density))

        # Another pass through the flow, which most targets never need.
        walls = tf.cond(tf.reduce_all(is_possible), lambda: tf.zeros_like(log_flow), away)
        return tf.where(is_possible, log_flow - tf.where(is_possible, log_prob, tf.zeros_like(log_prob)), walls)

    def get_config(self):
        return {
            "log_prob": keras.saving.serialize_keras_object(self.log_prob),
            "path_derivative": self.path_derivative,
            "impossible": self.impossible,
        }

    @classmethod
    def from_config(cls, config):
        return cls(**config | {"log_prob": keras.saving.deserialize_keras_object(config["log_prob"])})


def _parts_of(flow) -> list:
    """The parts of a flow's bijector, from the data to the latent."""
    if not hasattr(flow, "bijector"):
        raise ValueError(f"Expected a FlowModel for a loss of continuous flows; got a {type(flow).__name__}.")
    return _parts(flow.bijector)


def _parts(bijector) -> list:
    """The parts of a bijector, those of chains inside chains too."""
    if not isinstance(bijector, Chain):
        return [bijector]
    return [inner for part in bijector.bijectors for inner in _parts(part)]


def _inverse(parts, x, context):
    return Chain(parts).inverse_and_log_det(x, context)


def _check_continuous(flow) -> None:
    if flow.accepts.is_discrete:
        raise ValueError(
            "Expected continuous data for this loss; got a flow of integers. NegativeLogLikelihood() hears what they "
            "stand for: compile(loss=...)."
        )


def weighted_mean(values: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """The mean of losses `[n]` of rows of weights `[n]` >= 0."""
    weight = tf.cast(weight, values.dtype)
    # A row of weight zero (a filler of the last batch) must not turn into NaN.
    total = tf.reduce_sum(tf.where(weight > 0.0, values * weight, tf.zeros_like(values)))
    return tf.math.divide_no_nan(total, tf.reduce_sum(weight))
