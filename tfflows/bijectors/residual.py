"""Invertible ResNets: the data plus a contraction of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from tfflows.bijectors.base import Bijector
from tfflows.nets import LipschitzMLP
from tfflows.nets.conditioning import as_rows, describe_net
from tfflows.numerics import MAX_DIM_EXACT, check_counts, in_graph, log_det_of_positive
from tfflows.randomness import random_signs, training_seed, uniform
from tfflows.serialization import Record, register

Push = Callable[[tf.Tensor], tf.Tensor]  # directions [K, n or 1, D] to their products with a Jacobian, [K, n, D]


class LogDet(Record):
    """How log |det (I + J)| of a contraction's Jacobian J is found. Concrete ones are frozen dataclasses."""

    def __call__(self, push: Push, x: tf.Tensor) -> tf.Tensor:
        """log |det (I + J)| `[n]`.

        Args:
          push: of directions `[K, n or 1, D]`, returns their products with J, `[K, n, D]`.
          x: where J is taken, `[n, D]`.
        """
        raise NotImplementedError  # abstract


@register
@dataclasses.dataclass(frozen=True)
class ExactLogDet(LogDet):
    """From the whole Jacobian: D derivatives and an elimination."""

    def __call__(self, push, x):
        identity = tf.eye(x.shape[-1], dtype=x.dtype)
        columns = push(identity[:, tf.newaxis, :])  # [D, n, D]
        return log_det_of_positive(identity + tf.transpose(columns, [1, 0, 2]))


@register
@dataclasses.dataclass(frozen=True)
class PowerSeries(LogDet):
    """sum_k (-1)^(k+1) trace(J^k) / k, cut off, with traces as means of e^T J^k e over random signs e.

    The signs are new in each step of `fit`; elsewhere they follow from the row's numbers. With a Lipschitz coefficient
    c, cutting off after n terms leaves an error of at most D c^(n+1) / ((n + 1) (1 - c)).

    Args:
      n_terms: terms of the series, >= 1.
      n_probes: sign vectors, >= 1.

    Raises:
      ValueError: for a number below 1.

    Reference:
      Behrmann, Grathwohl, Chen, Duvenaud & Jacobsen (2019), Invertible residual networks,
      https://arxiv.org/abs/1811.00995
    """

    n_terms: int = 10
    n_probes: int = 1

    def __post_init__(self):
        check_counts(n_terms=self.n_terms, n_probes=self.n_probes)

    def __call__(self, push, x):
        return _series(push, x, self.n_probes, tf.ones([self.n_terms], x.dtype), self.n_terms)


@register
@dataclasses.dataclass(frozen=True)
class RussianRoulette(LogDet):
    """The same series, cut off at random and reweighted: its mean is that of the first n_terms terms.

    A step of `fit` takes n_exact terms and then N more, N >= j with probability decay^j, new in each step. Elsewhere
    densities can be repeated: they are exact up to 8 scalars, and those of `n_terms` terms beyond.

    Args:
      n_exact: terms always taken, >= 1.
      n_terms: terms outside training, and the most in it; at least n_exact.
      n_probes: sign vectors, >= 1.
      decay: in (0, 1); decay / (1 - decay) terms more are taken on average. Terms shrink at worst like the powers of
        the Lipschitz coefficient c, and the variance stays small if decay is not far below c^2. With c = 0.97, two
        moons are learned with 0.8, and hardly with the paper's 1/2.

    Raises:
      ValueError: for numbers that do not fit.

    Reference:
      Chen, Behrmann, Duvenaud & Jacobsen (2019), Residual flows for invertible generative modeling,
      https://arxiv.org/abs/1906.02735
    """

    n_exact: int = 2
    n_terms: int = 20
    n_probes: int = 1
    decay: float = 0.8

    def __post_init__(self):
        check_counts(n_exact=self.n_exact, n_terms=self.n_terms, n_probes=self.n_probes)
        if self.n_exact > self.n_terms:
            raise ValueError(f"Expected n_exact <= n_terms; got {self.n_exact} and {self.n_terms}.")
        if not 0.0 < self.decay < 1.0:
            raise ValueError(f"Expected decay in (0, 1); got {self.decay}.")

    def __call__(self, push, x):
        seed = training_seed()
        if seed is None and x.shape[-1] <= MAX_DIM_EXACT:
            return ExactLogDet()(push, x)
        if seed is None:
            return _series(push, x, self.n_probes, tf.ones([self.n_terms], x.dtype), self.n_terms)
        beyond = np.maximum(np.arange(1, self.n_terms + 1) - self.n_exact, 0)
        at_least = self.decay**beyond  # the probability that a term is taken
        # Another seed than that of the signs.
        u = uniform([], seed + tf.constant([1, 0], seed.dtype), x.dtype)
        n_taken = self.n_exact + tf.reduce_sum(tf.cast(u < self.decay ** np.arange(1, self.n_terms + 1), tf.int32))
        weights = tf.constant(1.0 / at_least, x.dtype)
        return _series(push, x, self.n_probes, weights, tf.minimum(n_taken, self.n_terms))


def _series(push, x, n_probes, weights, n_taken):
    """sum over k <= n_taken of weights_k (-1)^(k+1) e^T J^k e / k, for the mean over signs e."""
    signs = random_signs(x, n_probes)

    def body(k, powers, total):
        powers = push(powers)
        number = tf.cast(k + 1, x.dtype)
        sign = tf.cast(1 - 2 * (k % 2), x.dtype)
        trace = tf.reduce_mean(tf.reduce_sum(powers * signs, axis=-1), axis=0)
        return k + 1, powers, total + weights[k] * sign / number * trace

    # The gradient of a loop under XLA needs to know how many steps there are at most.
    most = weights.shape[0]
    start = (tf.constant(0), signs, tf.zeros_like(x[:, 0]))
    return tf.while_loop(lambda k, *_: k < n_taken, body, start, maximum_iterations=most)[2]


@register
class Residual(Bijector):
    """Adds a contraction: a block of a ResNet that can be inverted.

    z = x + g(x; context), |g(x) - g(y)| <= c |x - y| with c < 1;  log |det dz/dx| = log det(I + dg/dx).

    The way from data to latents costs one evaluation of the net, and what the log-det costs; the way back is a
    fixed-point iteration, x <- z - g(x), until nothing moves. It starts as the identity.

    Args:
      net: a `LipschitzMLP`.
      context_dim: width of the context, or None.
      log_det: `ExactLogDet()` (the default up to 8 scalars), `PowerSeries()` or `RussianRoulette()` (the default
        beyond).
      tolerance: where the iteration stops: the last step's largest entry, in units of the largest |z|, or of 1. By
        default 8 rounding errors.

    Raises:
      ValueError: if net or log_det is of another kind, or the tolerance not positive.

    References:
      Behrmann, Grathwohl, Chen, Duvenaud & Jacobsen (2019), Invertible residual networks,
      https://arxiv.org/abs/1811.00995; Chen, Behrmann, Duvenaud & Jacobsen (2019), Residual flows for invertible
      generative modeling, https://arxiv.org/abs/1906.02735
    """

    def __init__(
        self,
        net: LipschitzMLP,
        context_dim: int | None = None,
        *,
        log_det: LogDet | None = None,
        tolerance: float | None = None,
        name: str | None = None,
    ):
        parameters = dict(locals())
        if not isinstance(net, LipschitzMLP):
            raise ValueError(f"Expected a LipschitzMLP as net; got {net!r}.")
        if log_det is None:
            log_det = ExactLogDet() if net.n_dim <= MAX_DIM_EXACT else RussianRoulette()
        if not isinstance(log_det, LogDet):
            raise ValueError(f"Expected ExactLogDet(), PowerSeries() or RussianRoulette(); got {log_det!r}.")
        if tolerance is not None and not tolerance > 0.0:
            raise ValueError(f"Expected tolerance > 0; got {tolerance}.")
        super().__init__(parameters, event_shape=(net.n_dim,), context_dim=context_dim, name=name)
        self._log_det, self._tolerance = log_det, tolerance
        widths = [net.n_dim] if context_dim is None else [net.n_dim, context_dim]
        net(*(keras.KerasTensor((None, width)) for width in widths))
        self._net = net
        self._forward_in_graph = in_graph(self._forward_rows)
        self._inverse_in_graph = in_graph(self._inverse_rows)

    def _forward_and_log_det(self, z, context):
        return _on_rows(self._forward_in_graph, z, context)

    def _inverse_and_log_det(self, x, context):
        return _on_rows(self._inverse_in_graph, x, context)

    def _inverse_rows(self, x, context=None):
        change, push = self._net.linearize(x, context)
        return x + change, self._log_det(push, x)

    def _forward_rows(self, z, context=None):
        found = self._fixed_point(lambda x: z - self._net(x, context), z)
        change, push = self._net.linearize(found, context)

        # dx = (I + J)^-1 dz: what is left over is nothing in value, and has the gradient of the implicit function.
        @tf.custom_gradient
        def refined(left_over):
            def gradient(upstream):
                return self._fixed_point(lambda v: upstream - _pull(push, v), upstream)

            return found + left_over, gradient

        x = refined(z - found - change)
        return x, -self._log_det(self._net.linearize(x, context)[1], x)

    def _fixed_point(self, contraction, start):
        """The x with contraction(x) = x. No gradient flows through it."""
        start = tf.stop_gradient(start)
        scale = tf.maximum(tf.reduce_max(tf.abs(start)), 1.0)
        # Rounding keeps the last digits from coming to rest.
        least = 8.0 * np.finfo(start.dtype.as_numpy_dtype).eps
        tolerance = max(self._tolerance or 0.0, float(least))
        most = int(np.ceil(np.log(tolerance) / np.log(self._net.coefficient)))

        def body(value, moved):
            new = tf.stop_gradient(contraction(value))
            return new, tf.reduce_max(tf.abs(new - value))

        moving = (start, np.inf * tf.ones_like(scale))
        value, _ = tf.while_loop(lambda _, moved: moved > tolerance * scale, body, moving, maximum_iterations=most)
        return tf.stop_gradient(value)

    def describe(self):
        return f"Residual: {describe_net(self._net)}, {self._log_det}"


def _on_rows(method, value, context):
    rows, batch = as_rows(*(v for v in (value, context) if v is not None))
    value, log_det = method(*rows)
    return tf.reshape(value, tf.concat([batch, [value.shape[-1]]], axis=0)), tf.reshape(log_det, batch)


def _pull(push, values):
    """J^T times `values` `[n, D]`: the derivative of what `push` does, which is linear."""
    with tf.GradientTape() as tape:
        nothing = tf.zeros_like(values)
        tape.watch(nothing)
        pushed = push(nothing[tf.newaxis])[0]
    return tape.gradient(pushed, nothing, values)
