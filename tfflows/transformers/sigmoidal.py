"""Mixtures of sigmoids, seen through the logit."""

from __future__ import annotations

import dataclasses
import itertools
from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfflows.numerics import check_counts, softclip
from tfflows.serialization import register
from tfflows.transformers.monotonic import Monotonic

# Bound of the logits of mixture weights: none falls below exp(-10) of another.
MAX_LOGIT = 5.0
# Share of the identity in every map. Between two narrow sigmoids far apart a mixture is as good as flat, and no
# dtype has the digits to come back from there.
LEAK = 1e-2


class _Layer(NamedTuple):
    """Parameters of `_sigmoids`, with axes for the numbers passed on, the sigmoids, the numbers that come in."""

    log_scale: tf.Tensor  # [..., n_units, D]
    shift: tf.Tensor  # [..., n_units, D]
    log_mix: tf.Tensor  # [..., n_out, n_units, D]
    log_weights: tf.Tensor | None  # [..., n_units, n_in, D], None for one number


@register
@dataclasses.dataclass(frozen=True)
class DeepSigmoid(Monotonic):
    """Layers of sigmoid mixtures: the transformer of neural autoregressive flows.

    From data to latent, with h = x before the first layer and z = h after the last,

      h <- logit(W sigmoid(a (U h) + b)),  a > 0, rows of W and U points of simplices,

    and a hundredth of x added to 0.99 z, so that the derivative is at least 0.01. Without `dense` all h are single
    numbers, W has one row and there is no U. Far out the map is linear. Its log-derivative is computed along with it,
    all in logarithms, so that no tail of a sigmoid is rounded to 0 or 1.

    A layer needs 3 n_units parameters for a number, or n_units (2 + n_out + n_in) with W and U of those widths.

    Args:
      n_units: sigmoids in a layer, >= 1.
      n_layers: number of layers, >= 1.
      dense: whether layers pass on n_units numbers to the next.
      max_log_scale: > 0, bound of the sum over the layers of |log a|, so of the logarithm of the greatest derivative.

    Raises:
      ValueError: for arguments outside these ranges.

    Reference:
      Huang, Krueger, Lacoste & Courville (2018), Neural autoregressive flows, https://arxiv.org/abs/1804.00779
    """

    n_units: int = 8
    n_layers: int = 1
    dense: bool = False
    max_log_scale: float = 3.0

    def __post_init__(self):
        check_counts(n_units=self.n_units, n_layers=self.n_layers)
        if not self.max_log_scale > 0.0:
            raise ValueError(f"Expected max_log_scale > 0; got {self.max_log_scale}.")

    @property
    def n_parameters(self) -> int:
        return sum(sum(sizes) for sizes in self._sizes)

    @property
    def _sizes(self) -> list[list[int]]:
        """Of each layer: how many parameters are scales, shifts, W, and U where it has one."""
        n = self.n_units
        between = [n if self.dense else 1] * (self.n_layers - 1)
        widths = zip([1, *between], [*between, 1], strict=True)
        return [[n, n, n_out * n, *([n * n_in] if n_in > 1 else [])] for n_in, n_out in widths]

    def _layers(self, params):
        sizes = self._sizes
        parts = iter(tf.split(params, list(itertools.chain.from_iterable(sizes)), axis=-2))
        for size in sizes:
            log_scale, shift, mix, *weights = (next(parts) for _ in size)
            yield _Layer(
                softclip(log_scale, self.max_log_scale / self.n_layers),
                shift * _unlike(self.n_units, shift.dtype),
                _log_simplex(_split(mix, self.n_units)),
                _log_simplex(_split(weights[0], size[3] // self.n_units)) if weights else None,
            )

    def inverse_and_log_det(self, x, params):
        h, log_slope = x[..., tf.newaxis, :], tf.zeros_like(x)[..., tf.newaxis, :]
        for layer in self._layers(params):
            if layer.log_weights is not None:
                h = tf.reduce_sum(tf.exp(layer.log_weights) * h[..., tf.newaxis, :, :], axis=-2)
                log_slope = tf.reduce_logsumexp(layer.log_weights + log_slope[..., tf.newaxis, :, :], axis=-2)
            h = tf.exp(layer.log_scale) * h + layer.shift
            h, log_slope = _logit_of_mixture(h, log_slope + layer.log_scale, layer.log_mix)
        return _with_leak(x, h[..., 0, :], log_slope[..., 0, :])

    def _bracket(self, z, params):
        # A mixture's logit lies between the least and the greatest of its sigmoids' arguments, and what comes in from
        # a dense layer between its least and greatest number.
        low = high = z
        for layer in reversed(list(self._layers(params))):
            ends = [(end[..., tf.newaxis, :] - layer.shift) * tf.exp(-layer.log_scale) for end in (low, high)]
            low, high = tf.reduce_min(ends[0], axis=-2), tf.reduce_max(ends[1], axis=-2)
        return _bracket_with_leak(z, low, high)


@register
@dataclasses.dataclass(frozen=True)
class MixtureOfLogistics(Monotonic):
    """The distribution function of a mixture of logistic densities, through the logit, then scaled and shifted.

    From data to latent, z = 0.99 (exp(u) logit(sum_k w_k sigmoid((x - m_k) / s_k)) + t) + 0.01 x.

    A number needs 3 K + 2 parameters: for the weights, the locations, the scales; then t and u.

    Args:
      n_components: K >= 1, the number of logistic densities.
      max_log_scale: > 0, bound of |log s_k| and of |u|.

    Raises:
      ValueError: for arguments outside these ranges.

    Reference:
      Ho, Chen, Srinivas, Duan & Abbeel (2019), Flow++, https://arxiv.org/abs/1902.00275
    """

    n_components: int = 8
    max_log_scale: float = 3.0

    def __post_init__(self):
        check_counts(n_components=self.n_components)
        if not self.max_log_scale > 0.0:
            raise ValueError(f"Expected max_log_scale > 0; got {self.max_log_scale}.")

    @property
    def n_parameters(self) -> int:
        return 3 * self.n_components + 2

    def _mixture(self, params):
        k = self.n_components
        logits, location, log_scale, rest = tf.split(params, [k, k, k, 2], axis=-2)
        location *= _unlike(k, location.dtype)
        log_scale, log_gain = (softclip(s, self.max_log_scale) for s in (log_scale, rest[..., 1, :]))
        return _log_simplex(logits), location, log_scale, rest[..., 0, :], log_gain

    def inverse_and_log_det(self, x, params):
        log_mix, location, log_scale, shift, log_gain = self._mixture(params)
        u = (x[..., tf.newaxis, :] - location) * tf.exp(-log_scale)
        h, log_slope = _logit_of_mixture(u, -log_scale, log_mix[..., tf.newaxis, :, :])
        return _with_leak(x, tf.exp(log_gain) * h[..., 0, :] + shift, log_slope[..., 0, :] + log_gain)

    def _bracket(self, z, params):
        _, location, log_scale, shift, log_gain = self._mixture(params)
        h = (z - shift) * tf.exp(-log_gain)
        ends = location + tf.exp(log_scale) * h[..., tf.newaxis, :]  # between which it lies, as in `DeepSigmoid`
        return _bracket_with_leak(z, tf.reduce_min(ends, axis=-2), tf.reduce_max(ends, axis=-2))


def _with_leak(x, z, log_slope):
    """A map and its log-derivative with a share of the identity."""
    leak = tf.constant(np.log(LEAK), x.dtype)
    return (1.0 - LEAK) * z + LEAK * x, tfp.math.log_add_exp(float(np.log1p(-LEAK)) + log_slope, leak)


def _bracket_with_leak(z, low, high):
    """A bracket with the leak, given one without for the same `z`: the mean is z between that and the identity."""
    return tf.minimum(low, z), tf.maximum(high, z)


def _unlike(n, dtype):
    """`[n, 1]`: one factor for each unit, so that units that all start at zero learn at different speeds, and part."""
    return tf.constant(np.linspace(0.5, 2.0, n)[:, np.newaxis], dtype)


def _split(params, n):
    """`[..., m * n, D]` as `[..., m, n, D]`."""
    shape = tf.shape(params)
    m = params.shape[-2] // n
    split = tf.reshape(params, tf.concat([shape[:-2], [m, n], shape[-1:]], axis=0))
    return tf.ensure_shape(split, [*params.shape[:-2], m, n, params.shape[-1]])


def _log_simplex(logits):
    """Logarithms of positive numbers that sum to 1 over the axis before the last."""
    logits = softclip(logits, MAX_LOGIT)
    return logits - tf.reduce_logsumexp(logits, axis=-2, keepdims=True)


def _logit_of_mixture(u, log_du, log_mix):
    """logit(sum_j mix_ij sigmoid(u_j)) and its log-derivative, given those of u.

    Args:
      u, log_du: `[..., n_units, D]`.
      log_mix: `[..., n_out, n_units, D]`.

    Returns:
      Both `[..., n_out, D]`.
    """
    u, log_du = (v[..., tf.newaxis, :, :] for v in (u, log_du))
    log_below, log_above = -tf.nn.softplus(-u), -tf.nn.softplus(u)
    below = tf.reduce_logsumexp(log_mix + log_below, axis=-2)
    above = tf.reduce_logsumexp(log_mix + log_above, axis=-2)
    # p = sum mix sigmoid(u) has dp = sum mix sigmoid(u) sigmoid(-u) du, and the logit of p slope 1 / (p (1 - p)).
    log_slope = tf.reduce_logsumexp(log_mix + log_below + log_above + log_du, axis=-2)
    return below - above, log_slope - below - above
