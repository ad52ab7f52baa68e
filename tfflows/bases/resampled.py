"""Resampled base: a simple distribution with a learned acceptance of its draws."""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from tfflows.bases.base import Base, as_vector, draw_uniform, split_seed
from tfflows.bases.normal import StandardNormal
from tfflows.nets import MLP, build_conditioner
from tfflows.randomness import RANDOM, seeded_uniform, training_seed
from tfflows.serialization import deserialize, register, serialize

# Sobol's sequence is more even than chance in so many dimensions, and its points are small enough for a file.
MAX_SOBOL = 64


@register
class Resampled(Base):
    """A proposal whose draws are accepted with a learned probability: latents with holes and several modes.

    A draw is the first of a row of proposals z that is accepted, with probability a(z) = sigmoid(net(z)), and after
    T - 1 refusals the T-th as it is. With Z the mean of a over the proposal's density pi,

      log p(z) = log pi(z) + log[(1 - alpha) a(z) / Z + alpha],  alpha = (1 - Z)^(T - 1).

    The flow need not tear a single bump into the pieces of the data, and leaves no filaments between them.

    Z is an estimate from `n_points` evenly spread points, computed again from the weights as they are in every call,
    so that it is never out of date, and always from the same points: densities repeat, and integrate to 1 within some
    1e-3 in two dimensions, 1e-2 in many. Each training step shifts a quarter of the points at random, so that the
    estimate has no bias, and a gradient; that is in place of the running mean of the papers. Sampling needs no Z.
    A temperature is that of the proposal, whose draws are accepted as before.

    Evaluation costs `n_points` rows of `net`, and a draw some 1 / Z of them; exported, a draw costs T.

    Args:
      event_shape: shape of an event; an int is one axis.
      net: Keras layer from all numbers of an event, `[n, D]`, to one, `[n, 1]`; by default an `MLP` of two layers.
      proposal: a base of that event shape whose draws are reparameterised; a standard normal by default.
      n_attempts: T, at least 2. A smaller one is cheaper, and leaves more of the proposal: at most a few times
        fewer than 1 / Z is a waste of the net.
      n_points: of the estimate of Z; a power of two is best, >= 16.

    Raises:
      ValueError: for counts that are too small, a net of another width, or a proposal that does not fit.

    References:
      Bauer & Mnih (2019), Resampled priors for variational autoencoders, https://arxiv.org/abs/1810.11428; Stimper,
      Schoelkopf & Hernandez-Lobato (2022), Resampling base distributions of normalizing flows,
      https://arxiv.org/abs/2110.15828
    """

    is_reparameterized = False

    def __init__(
        self,
        event_shape: int | Sequence[int],
        net: keras.layers.Layer | None = None,
        *,
        proposal: Base | None = None,
        n_attempts: int = 100,
        n_points: int = 4096,
        **kwargs,
    ):
        super().__init__(event_shape, **kwargs)
        if not (n_attempts >= 2 and n_points >= 16):
            raise ValueError(f"Expected n_attempts >= 2 and n_points >= 16; got {n_attempts} and {n_points}.")
        proposal = StandardNormal(self.event_shape) if proposal is None else proposal
        if not (isinstance(proposal, Base) and proposal.is_reparameterized):
            raise ValueError(f"Expected a base with reparameterised draws as proposal; got {proposal!r}.")
        if proposal.event_shape != self.event_shape:
            raise ValueError(f"Expected a proposal of event shape {self.event_shape}; got {proposal.event_shape}.")
        self.proposal = proposal
        self.net = build_conditioner(MLP(1) if net is None else net, self._n_dim, 1)
        self.n_attempts, self.n_points = int(n_attempts), int(n_points)
        self._points = _even_points(self.n_points, proposal.n_uniform)

    def log_prob(self, z, temperature=1.0):
        z = tf.convert_to_tensor(z)
        log_mean, log_rest = self._log_means(temperature, z.dtype)
        log_alpha = (self.n_attempts - 1) * log_rest
        accepted = tf.math.log(-tf.math.expm1(log_alpha)) + tf.math.log_sigmoid(self._logit(z)) - log_mean
        return self.proposal.log_prob(z, temperature) + _log_add(accepted, log_alpha)

    def acceptance(self, z: tf.Tensor) -> tf.Tensor:
        """The probability in (0, 1) that a proposal `z` `[..., *event_shape]` is accepted, `[...]`."""
        return tf.sigmoid(self._logit(tf.convert_to_tensor(z)))

    def mean_acceptance(self) -> tf.Tensor:
        """Z, the share of proposals that is accepted."""
        return tf.exp(self._log_means(1.0, tf.as_dtype(self.variable_dtype))[0])

    def sample(self, shape, seed, temperature=1.0):
        n = tf.reduce_prod(as_vector(shape))

        def propose(attempt):
            seeds = split_seed(tf.random.fold_in(seed, attempt, alg=RANDOM))
            z = self.proposal.sample([n], seeds[0], temperature)
            return z, draw_uniform([n], seeds[1], z.dtype)

        def unfinished(attempt, z, is_done):
            return (attempt < self.n_attempts) & ~tf.reduce_all(is_done)

        def body(attempt, z, is_done):
            proposed, uniform = propose(attempt)
            is_kept = tf.reshape(is_done, [-1] + [1] * len(self.event_shape))
            z = tf.where(is_kept, z, proposed)
            return attempt + 1, z, is_done | (uniform < self.acceptance(z))

        z, uniform = propose(0)
        start = (tf.constant(1), z, uniform < self.acceptance(z))
        # Which proposal is taken is a jump: no gradient says how that depends on the weights.
        _, z, _ = tf.while_loop(unfinished, body, start)
        return tf.stop_gradient(tf.reshape(z, self._full_shape(shape)))

    @property
    def n_uniform(self):
        return self.n_attempts * (self.proposal.n_uniform + 1)

    def from_uniform(self, uniform, temperature):
        each = tf.reshape(uniform, [-1, self.proposal.n_uniform + 1])
        z = self.proposal.from_uniform(each[:, 1:], tf.repeat(temperature, self.n_attempts))
        is_accepted = tf.reshape(each[:, 0] < self.acceptance(z), [-1, self.n_attempts])
        # The last one is taken in any case; of those that are, the first.
        taken = tf.concat([tf.cast(is_accepted[:, :-1], z.dtype), tf.ones_like(uniform[:, :1])], axis=1)
        is_first = tf.cast(tf.cumsum(taken, axis=1) < 1.5, z.dtype) * taken
        rows = tf.reshape(z, [-1, self.n_attempts, self._n_dim])
        return self._as_events(tf.reduce_sum(is_first[..., tf.newaxis] * rows, axis=1))

    def get_config(self):
        config = {**super().get_config(), "net": serialize(self.net), "proposal": serialize(self.proposal)}
        return {**config, "n_attempts": self.n_attempts, "n_points": self.n_points}

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        parts = {name: deserialize(config.pop(name)) for name in ("net", "proposal")}
        return cls(**config, **parts)

    def _logit(self, z):
        """The net's number of each event `[..., *event_shape]`: `[...]`."""
        batch = tf.shape(z)[: z.shape.rank - len(self.event_shape)]
        logit = tf.cast(self.net(tf.reshape(z, [-1, self._n_dim])), z.dtype)
        return tf.reshape(logit, batch)

    def _log_means(self, temperature, dtype):
        """log Z and log (1 - Z) of the proposal at a temperature."""
        temperature = tf.cast(temperature, dtype)
        if temperature.shape.rank != 0:
            raise ValueError(f"Expected one temperature of a Resampled base; got {temperature.shape[0]} of them.")
        seed = training_seed()
        points = tf.cast(self._uniform(), dtype)
        if seed is not None:
            points = points[: self.n_points // 4]
            shift = draw_uniform([1, points.shape[1]], seed, dtype)
            points = tf.math.floormod(points + shift, 1.0)
            # Neither 0 nor 1, where a quantile is infinite.
            points = tf.clip_by_value(points, 2.0**-24, 1.0 - 2.0**-24)
        rows = tf.fill([points.shape[0]], temperature)
        logit = self._logit(self.proposal.from_uniform(points, rows))
        log_count = math.log(points.shape[0])
        log_mean = tf.reduce_logsumexp(tf.math.log_sigmoid(logit)) - log_count
        return log_mean, tf.reduce_logsumexp(tf.math.log_sigmoid(-logit)) - log_count

    def _uniform(self):
        if self._points is not None:
            return tf.constant(self._points)
        return seeded_uniform(tf.range(self.n_points), self.proposal.n_uniform)


def _even_points(n_points, n_dim):
    """Points spread evenly over the unit cube, `[n_points, n_dim]`, or None in many dimensions."""
    if n_dim > MAX_SOBOL:
        return None
    with tf.init_scope():
        points = tf.math.sobol_sample(n_dim, n_points, dtype=tf.float64).numpy()
    shift = np.random.default_rng(0).random(n_dim)
    return np.clip((points + shift) % 1.0, 2.0**-24, 1.0 - 2.0**-24)


def _log_add(a, b):
    """log(exp(a) + exp(b)), of finite numbers."""
    high, low = tf.maximum(a, b), tf.minimum(a, b)
    return high + tf.math.log1p(tf.exp(low - high))
