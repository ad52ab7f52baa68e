"""Planar, radial and Sylvester flows: the data plus a few smooth ridges or bumps."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from tfflows.bijectors.base import Bijector
from tfflows.nets import Constant, build_conditioner, conditioner
from tfflows.nets.conditioning import check_net_and_context
from tfflows.numerics import above_minus_one, orthogonal_from_reflections, root_of_increasing, safe_norm, softclip
from tfflows.products import matvec
from tfflows.serialization import register

MAX_LOG_SCALE = 3.0  # of what must stay positive


class _FewParameters(Bijector):
    """What the three have in common: some numbers, the same for all data, or given by the context as well.

    They start, the first `n_random` at random, so that two layers differ, and the others, the heights, at zero.
    """

    def __init__(self, parameters, n_dim, n_random, n_heights, net, context_dim, *, name):
        if not isinstance(n_dim, (int, np.integer)) or n_dim < 1:
            raise ValueError(f"Expected an integer n_dim >= 1; got {n_dim}.")
        check_net_and_context(net, context_dim)
        super().__init__(parameters, event_shape=(n_dim,), context_dim=context_dim, name=name)
        self._n_dim = int(n_dim)
        self._constants = Constant((n_random + n_heights,), _NormalThenZero(n_random))
        self._net = None if net is None else build_conditioner(net, context_dim, n_random + n_heights)

    def _params(self, context, sizes):
        """Pieces of the parameters, of the given sizes, `[..., size]`."""
        params = self._constants(None)
        if context is not None:
            params = params + conditioner(self._net, context, None)
        return tf.split(tf.cast(params, self.dtype), sizes, axis=-1)


@register
class _NormalThenZero(keras.initializers.Initializer):
    """Standard normal numbers, and then zeros."""

    def __init__(self, n_normal: int):
        self.n_normal = n_normal

    def __call__(self, shape, dtype=None):
        draws = keras.initializers.RandomNormal(stddev=1.0)((self.n_normal,), dtype=dtype)
        return tf.pad(tf.convert_to_tensor(draws), [[0, shape[0] - self.n_normal]])

    def get_config(self):
        return {"n_normal": self.n_normal}


@register
class Planar(_FewParameters):
    """Adds a ridge: all data move along one direction, by an amount that depends on one projection of theirs.

    z = x + u tanh(w . x + b);  log |det dz/dx| = log(1 + w . u (1 - tanh^2(w . x + b))).

    w . u is kept above -1, so the map is invertible; samples cost the root of one increasing function of one number.
    It starts as the identity.

    Args:
      n_dim: D.
      net: with a context, a Keras layer called as `net(context)` that returns `[..., 2 D + 1]`; else None.
      context_dim: width of the context, or None.

    Raises:
      ValueError: for n_dim < 1, a net without a context, or a context without a net.

    Reference:
      Rezende & Mohamed (2015), Variational inference with normalizing flows, https://arxiv.org/abs/1505.05770
    """

    def __init__(
        self, n_dim: int, net: keras.layers.Layer | None = None, context_dim: int | None = None, name: str | None = None
    ):
        super().__init__(dict(locals()), n_dim, n_dim + 1, n_dim, net, context_dim, name=name)

    def _ridge(self, context):
        w, b, u = self._params(context, [self._n_dim, 1, self._n_dim])
        product = tf.reduce_sum(w * u, axis=-1)
        allowed = above_minus_one(product)
        # Along w only. |allowed - product| <= |w| |u| + 1, and w = 0 needs no correction.
        square = tf.reduce_sum(tf.square(w), axis=-1)
        correction = (allowed - product) / tf.maximum(square, 1e-6)
        u = u + correction[..., tf.newaxis] * w
        return w, u, b[..., 0], tf.reduce_sum(w * u, axis=-1)

    def _inverse_and_log_det(self, x, context):
        w, u, b, product = self._ridge(context)
        height = tf.tanh(tf.reduce_sum(w * x, axis=-1) + b)
        z = x + u * height[..., tf.newaxis]
        return z, tf.math.log1p(product * (1.0 - tf.square(height)))

    def _forward_and_log_det(self, z, context):
        w, u, b, product = self._ridge(context)
        target = tf.reduce_sum(w * z, axis=-1) + b

        def function(a):
            height = tf.tanh(a)
            return a + product * height, 1.0 + product * (1.0 - tf.square(height))

        argument = root_of_increasing(function, target, target - tf.abs(product), target + tf.abs(product))
        height = tf.tanh(argument)
        return z - u * height[..., tf.newaxis], -tf.math.log1p(product * (1.0 - tf.square(height)))


@register
class Radial(_FewParameters):
    """Pushes the data away from a point, or draws them towards it.

    z = x + beta / (alpha + r) (x - c), r = |x - c|;
    log |det dz/dx| = (D - 1) log(1 + beta / (alpha + r)) + log(1 + alpha beta / (alpha + r)^2).

    beta is kept above -alpha, so the map is invertible, in closed form. It starts as the identity.

    Args:
      n_dim, context_dim: as in `Planar`.
      net: as in `Planar`; it returns `[..., D + 2]`.

    Raises:
      ValueError: as `Planar` does.

    Reference:
      Rezende & Mohamed (2015), Variational inference with normalizing flows, https://arxiv.org/abs/1505.05770
    """

    def __init__(
        self, n_dim: int, net: keras.layers.Layer | None = None, context_dim: int | None = None, name: str | None = None
    ):
        super().__init__(dict(locals()), n_dim, n_dim + 1, 1, net, context_dim, name=name)

    def _bump(self, context):
        """c, alpha, and beta / alpha > -1."""
        centre, log_alpha, ratio = self._params(context, [self._n_dim, 1, 1])
        return centre, tf.exp(softclip(log_alpha, MAX_LOG_SCALE))[..., 0], above_minus_one(ratio)[..., 0]

    def _log_det(self, radius, alpha, ratio):
        closeness = alpha / (alpha + radius)  # in (0, 1]
        stretch = tf.math.log1p(ratio * closeness)
        return (self._n_dim - 1) * stretch + tf.math.log1p(ratio * tf.square(closeness))

    def _inverse_and_log_det(self, x, context):
        centre, alpha, ratio = self._bump(context)
        away = x - centre
        radius = safe_norm(away)
        moved = away * (ratio * alpha / (alpha + radius))[..., tf.newaxis]
        return x + moved, self._log_det(radius, alpha, ratio)

    def _forward_and_log_det(self, z, context):
        centre, alpha, ratio = self._bump(context)
        away = z - centre
        # The radius of z is r (r + alpha + beta) / (r + alpha): a quadratic equation for r >= 0.
        radius_z = safe_norm(away)
        half = 0.5 * (radius_z - alpha * (1.0 + ratio))
        product = alpha * radius_z
        root = tf.sqrt(tf.square(half) + product + np.finfo(z.dtype.as_numpy_dtype).tiny)
        # The form without cancellation, for either sign.
        radius = tf.where(half > 0.0, half + root, product / (root + tf.abs(half)))
        shrunk = (alpha + radius) / (alpha * (1.0 + ratio) + radius)
        return centre + away * shrunk[..., tf.newaxis], -self._log_det(radius, alpha, ratio)


@register
class Sylvester(_FewParameters):
    """Adds M ridges at once, along orthogonal directions.

    z = x + Q R tanh(S Q^T x + b), Q with M orthonormal columns, R and S upper triangular;
    log |det dz/dx| = sum_i log(1 + R_ii S_ii (1 - tanh^2(...)_i)).

    R_ii S_ii is kept above -1, so the map is invertible; samples cost the roots of M increasing functions, one after
    the other. It starts as the identity. Q is a product of reflections, the same for all contexts.

    Args:
      n_dim: D >= 2.
      n_ridges: M, at most D.
      net: with a context, a Keras layer called as `net(context)` that returns `[..., M (2 M + 1)]`; else None.
      context_dim: width of the context, or None.

    Raises:
      ValueError: for n_dim < 2, n_ridges not in 1 .. D, a net without a context, or a context without a net.

    Reference:
      van den Berg, Hasenclever, Tomczak & Welling (2018), Sylvester normalizing flows for variational inference,
      https://arxiv.org/abs/1803.05649
    """

    def __init__(
        self,
        n_dim: int,
        n_ridges: int,
        net: keras.layers.Layer | None = None,
        context_dim: int | None = None,
        name: str | None = None,
    ):
        parameters = dict(locals())
        if not isinstance(n_ridges, (int, np.integer)) or not 1 <= n_ridges <= n_dim or n_dim < 2:
            raise ValueError(f"Expected n_dim >= 2 and n_ridges in 1 .. n_dim; got {n_dim} and {n_ridges}.")
        self._n_ridges = int(n_ridges)
        super().__init__(parameters, n_dim, n_ridges * (n_ridges + 1), n_ridges * n_ridges, net, context_dim, name=name)
        self._directions = Constant((n_dim, n_dim), keras.initializers.RandomNormal(stddev=1.0))

    def _ridges(self, context):
        """Q `[D, M]`, R and S `[..., M, M]`, b `[..., M]`, and R_ii S_ii `[..., M]`."""
        m = self._n_ridges
        slopes, b, heights = self._params(context, [m * m, m, m * m])
        shape = tf.concat([tf.shape(b), [m]], axis=0)
        slopes, heights = (tf.linalg.band_part(tf.reshape(v, shape), 0, -1) for v in (slopes, heights))
        positive = tf.exp(softclip(tf.linalg.diag_part(slopes), MAX_LOG_SCALE))
        slopes = tf.linalg.set_diag(slopes / m, positive)
        product = above_minus_one(tf.linalg.diag_part(heights))
        heights = tf.linalg.set_diag(heights, product / positive)
        orthogonal = orthogonal_from_reflections(self._directions(None))[:, :m]
        return orthogonal, heights, slopes, b, product

    def _inverse_and_log_det(self, x, context):
        orthogonal, heights, slopes, b, product = self._ridges(context)
        projected = matvec(orthogonal, x, transpose_a=True)
        bent = tf.tanh(matvec(slopes, projected) + b)
        z = x + matvec(orthogonal, matvec(heights, bent))
        return z, tf.reduce_sum(tf.math.log1p(product * (1.0 - tf.square(bent))), axis=-1)

    def _forward_and_log_det(self, z, context):
        orthogonal, heights, slopes, b, product = self._ridges(context)
        target = matvec(orthogonal, z, transpose_a=True)
        target = target + tf.zeros_like(b)
        projected, bent = [], []  # from the last on
        for i in reversed(range(self._n_ridges)):
            rest, shift = target[..., i], b[..., i] + tf.zeros_like(target[..., i])
            for j, (y, height) in enumerate(zip(projected, bent, strict=True)):
                rest = rest - heights[..., i, self._n_ridges - 1 - j] * height
                shift = shift + slopes[..., i, self._n_ridges - 1 - j] * y
            y, height = _one_ridge(rest, shift, heights[..., i, i], slopes[..., i, i])
            projected.append(y)
            bent.append(height)
        bent = tf.stack(bent[::-1], axis=-1)
        x = z - matvec(orthogonal, matvec(heights, bent))
        return x, -tf.reduce_sum(tf.math.log1p(product * (1.0 - tf.square(bent))), axis=-1)

    def describe(self):
        return f"Sylvester: {self._n_ridges} ridges"


def _one_ridge(target, shift, height, slope):
    """The y with y + height tanh(slope y + shift) = target, and the tanh."""

    def function(y):
        bent = tf.tanh(slope * y + shift)
        return y + height * bent, 1.0 + height * slope * (1.0 - tf.square(bent))

    y = root_of_increasing(function, target, target - tf.abs(height), target + tf.abs(height))
    return y, tf.tanh(slope * y + shift)
