"""What splines have in common: knots, the search for the bin, and the gradient of both."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfflows.numerics import softclip, softclip_gradient, wrap
from tfflows.transformers.base import Transformer


class Bin(NamedTuple):
    """The bin that holds a point, each entry shaped like the point."""

    x: tf.Tensor
    width: tf.Tensor
    z: tf.Tensor
    height: tf.Tensor
    raw_left: tf.Tensor  # the parameters of the slopes at its ends
    raw_right: tf.Tensor
    inner: tuple[tf.Tensor, ...]  # its own parameters, if the spline has such
    number: tf.Tensor  # 0 .. K - 1
    x_total: tf.Tensor  # of the exponentials that share out the widths, and the heights
    z_total: tf.Tensor


class BinGradient(NamedTuple):
    """Gradients with respect to the data point and to the entries of its `Bin`."""

    value: tf.Tensor
    x: tf.Tensor
    width: tf.Tensor
    z: tf.Tensor
    height: tf.Tensor
    raw_left: tf.Tensor
    raw_right: tf.Tensor
    inner: tuple[tf.Tensor, ...]


@dataclasses.dataclass(frozen=True)
class Spline(Transformer):
    """A monotonic spline on [-bound, bound], the identity outside, or circular; arguments: `RationalQuadraticSpline`.

    Its pieces map data to latents: that is the direction that training runs. Everything runs along the numbers, bin
    after bin, and the gradient of the search is written by hand: of each number it keeps the bin that holds it, where
    differentiating each operation would keep every bin several times.

    A subclass implements the map in a bin. Of each number it is given 2 K parameters for widths and heights, K - 1
    (K if circular) for the slopes at the knots, and `n_inner` K of its own.
    """

    n_bins: int = 8
    bound: float = 5.0
    min_bin: float = 1e-2
    max_bin_ratio: float = 1e2
    min_slope: float = 1e-2
    circular: bool = False

    def __post_init__(self):
        if self.n_bins < 1:
            raise ValueError(f"Expected n_bins >= 1; got {self.n_bins}.")
        if not self.bound > 0.0:
            raise ValueError(f"Expected bound > 0; got {self.bound}.")
        if not 0.0 <= self.min_bin * self.n_bins < 1.0:
            raise ValueError(f"Expected min_bin in [0, 1 / n_bins) = [0, {1 / self.n_bins:.4g}); got {self.min_bin}.")
        if not self.max_bin_ratio > 1.0:
            raise ValueError(f"Expected max_bin_ratio > 1; got {self.max_bin_ratio}.")
        if not 0.0 < self.min_slope < 1.0:
            raise ValueError(f"Expected min_slope in (0, 1); got {self.min_slope}.")

    # What a subclass implements.

    def _normalize_in_bin(self, b: Bin, x: tf.Tensor):
        """z and log dz/dx of x in its bin, and whatever the two methods below need of it."""
        raise NotImplementedError  # abstract

    def _generate_in_bin(self, b: Bin, z: tf.Tensor):
        """x and log dz/dx of z in its bin, and whatever the two methods below need of it."""
        raise NotImplementedError  # abstract

    def _d_log_slope(self, b: Bin, curve) -> tf.Tensor:
        """The derivative of log dz/dx with respect to x."""
        raise NotImplementedError  # abstract

    def _pull_back(self, b: Bin, curve, grad_z: tf.Tensor, grad_log_slope: tf.Tensor) -> BinGradient:
        """The gradients that those of z and log dz/dx, as functions of x, mean for the bin."""
        raise NotImplementedError  # abstract

    @property
    def n_inner(self) -> int:
        """Parameters of a bin besides sizes and slopes."""
        return 0

    # What follows from it.

    @property
    def circle_bound(self):
        return self.bound

    @property
    def wraps(self):
        return self.circular

    def _circular(self):
        return dataclasses.replace(self, circular=True)

    @property
    def n_parameters(self) -> int:
        return (3 + self.n_inner) * self.n_bins - (0 if self.circular else 1)

    def inverse_and_log_det(self, x, params):
        x, params = _broadcast(x, params)
        inside, x_in = self._enter(x)
        z, log_det = self._normalize(x_in, params)
        return self._leave(inside, x, z, log_det)

    def forward_and_log_det(self, z, params):
        z, params = _broadcast(z, params)
        inside, z_in = self._enter(z)
        x, log_det = self._generate(z_in, params)
        return self._leave(inside, z, x, log_det)

    def _enter(self, value):
        """Where the spline acts, and `value` moved to where it can be evaluated safely."""
        if self.circular:
            return None, wrap(value, self.bound)
        # Both branches of the `where` in _leave are computed: the unused one must stay finite,
        # in value and in gradient, so it sees a value inside.
        inside = tf.abs(value) < self.bound
        return inside, tf.where(inside, value, tf.zeros_like(value))

    def _leave(self, inside, value, mapped, log_det):
        if inside is None:
            return wrap(mapped, self.bound), log_det
        return tf.where(inside, mapped, value), tf.where(inside, log_det, tf.zeros_like(log_det))

    def _normalize(self, x, params):
        @tf.custom_gradient
        def normalize(x, params):
            b = self._locate(x, params, by_latent=False)
            z, log_slope, curve = self._normalize_in_bin(b, x)

            def gradient(grad_z, grad_log_det):
                by_bin = self._pull_back(b, curve, grad_z, grad_log_det)
                return by_bin.value, self._scatter(b, params, by_bin)

            return (z, log_slope), gradient

        return normalize(x, params)

    def _generate(self, z, params):
        @tf.custom_gradient
        def generate(z, params):
            b = self._locate(z, params, by_latent=True)
            x, log_slope, curve = self._generate_in_bin(b, z)

            def gradient(grad_x, grad_log_det):
                # z(x) = z and log dx/dz = -log z'(x), differentiated: a small step of the parameters moves x by
                # -(dz/dparams) / z'.
                total = grad_x - grad_log_det * self._d_log_slope(b, curve)
                by_z = total * tf.exp(-log_slope)
                return by_z, self._scatter(b, params, self._pull_back(b, curve, -by_z, -grad_log_det))

            return (x, -log_slope), gradient

        return generate(z, params)

    def _locate(self, value, params, *, by_latent) -> Bin:
        """The bin of `value`, by comparing it with every knot: for so few, faster than a search."""
        k = self.n_bins
        shares = tf.exp(softclip(params[..., : 2 * k, :], self._max_logit))
        x_edges, widths, x_total = self._knots(shares[..., :k, :])
        z_edges, heights, z_total = self._knots(shares[..., k:, :])
        n_slopes = self.n_parameters - (2 + self.n_inner) * k
        raw = [params[..., 2 * k + i, :] for i in range(n_slopes)]
        end = tf.zeros_like(x_total)  # slope 1
        raw = [*raw, raw[0]] if self.circular else [end, *raw, end]
        inner = [[params[..., (2 + j) * k + n_slopes + i, :] for i in range(k)] for j in range(self.n_inner)]
        number = [tf.constant(i, value.dtype) for i in range(k)]
        bins = zip(x_edges, widths, z_edges, heights, raw, raw[1:], *inner, number, strict=False)
        *first, zero = next(bins)
        chosen = [*first, tf.fill(tf.shape(value), zero)]
        for edge, entries in zip((z_edges if by_latent else x_edges)[1:], bins, strict=True):
            reached = value >= edge
            chosen = [tf.where(reached, entry, before) for entry, before in zip(entries, chosen, strict=True)]
        *corner_and_slopes, number = chosen
        return Bin(*corner_and_slopes[:6], tuple(corner_and_slopes[6:]), number, x_total, z_total)

    def _knots(self, shares):
        """Left ends of the bins, their sizes, and the sum of their shares `[..., K, D]`."""
        shares = [shares[..., i, :] for i in range(self.n_bins)]
        total = tf.add_n(shares)
        least, free = self._least_and_free()
        sizes = [least + free / total * share for share in shares]
        edges = [tf.fill(tf.shape(total), tf.constant(-self.bound, total.dtype))]
        for size in sizes[:-1]:
            edges.append(edges[-1] + size)
        # The last end is set, not summed: rounding must not open a gap between spline and tail.
        return edges, [*sizes[:-1], self.bound - edges[-1]], total

    def _least_and_free(self):
        """The least size of a bin, and what all of them share beyond it."""
        least = 2.0 * self.bound * self.min_bin
        return least, 2.0 * self.bound - self.n_bins * least

    @property
    def _max_logit(self):
        # Two logits within this differ by less than log(max_bin_ratio).
        return 0.5 * float(np.log(self.max_bin_ratio))

    @property
    def _max_log_slope(self):
        return float(-np.log(self.min_slope))

    def _slope(self, raw):
        """The slope at a knot from its parameter."""
        return tf.exp(softclip(raw, self._max_log_slope))

    def _scatter(self, b: Bin, params, by_bin: BinGradient):
        """The gradient of all parameters from that of the bin."""
        # The arrays below have a row for each bin. XLA computes in every row anew whatever ends in cheap arithmetic,
        # for the bin's number the whole way back to the knots: K times K operations. An exponential, like the
        # quotients of _grad_shares, is computed once and kept.
        k = self.n_bins
        number = tf.exp(b.number / k)[..., tf.newaxis, :]
        rows = tf.constant(np.exp(np.arange(k)[:, np.newaxis] / k), number.dtype)
        here, before = tf.abs(rows - number) < 0.5 / k, rows < number
        widths = (b.x_total, (b.x, by_bin.x), (b.width, by_bin.width))
        heights = (b.z_total, (b.z, by_bin.z), (b.height, by_bin.height))
        grads = [
            self._grad_shares(logits, here, before, b.number, *sizes)
            for logits, sizes in ((params[..., :k, :], widths), (params[..., k : 2 * k, :], heights))
        ]
        if self.circular:
            left, right = here, tf.concat([here[..., -1:, :], here[..., :-1, :]], axis=-2)
        else:
            left, right = here[..., 1:, :], here[..., :-1, :]
        zero = tf.zeros_like(number)
        grads.append(
            tf.where(left, by_bin.raw_left[..., tf.newaxis, :], zero)
            + tf.where(right, by_bin.raw_right[..., tf.newaxis, :], zero)
        )
        grads += [tf.where(here, by_inner[..., tf.newaxis, :], zero) for by_inner in by_bin.inner]
        return tf.concat(grads, axis=-2)

    def _grad_shares(self, logits, here, before, number, total, low, size):
        """The gradient of the logits of sizes, given (value, gradient) of the chosen bin's lower end and size.

        The lower end sums the sizes of all bins before.
        """
        least, free = self._least_and_free()
        (low, grad_low), (size, grad_size) = low, size
        # Softmax: d size_i / d logit_j = (size_i - least) ((i == j) - share_j / total).
        mean = grad_low * (low + self.bound - number * least) + grad_size * (size - least)
        of_before, of_here, of_rest = (
            (value / total)[..., tf.newaxis, :] for value in (free * grad_low - mean, free * grad_size - mean, -mean)
        )
        grad = tf.where(here, of_here, tf.where(before, of_before, of_rest))
        return softclip_gradient(grad * tf.exp(softclip(logits, self._max_logit)), logits, self._max_logit)


def _broadcast(value, params):
    """Both with the same leading axes."""
    if value.shape[:-1].is_fully_defined() and value.shape[:-1] == params.shape[:-2]:
        return value, params
    return value + tf.zeros_like(params[..., 0, :]), params + tf.zeros_like(value)[..., tf.newaxis, :]
