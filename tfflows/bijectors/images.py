"""What images need: pixels as numbers, and space as channels."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfflows.bijectors.base import Bijector
from tfflows.numerics import sum_event
from tfflows.randomness import random_uniform
from tfflows.serialization import register

PIXEL_VALUES = 256  # 0 to 255


def check_image_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    """The shape of an image as a tuple; a ValueError if it is not (height, width, channels)."""
    shape = tuple(shape) if np.iterable(shape) else (shape,)
    if len(shape) != 3 or not all(isinstance(n, (int, np.integer)) and n >= 1 for n in shape):
        raise ValueError(f"Expected an image shape (height, width, channels) of whole numbers >= 1; got {shape}.")
    return tuple(int(n) for n in shape)


@register
class Squeeze(Bijector):
    """Four neighbouring pixels as the channels of one, from the data to the latent.

    `[H, W, C]` becomes `[H / 2, W / 2, 4 C]`, the pixels of a square row by row;  log-det = 0.

    Args:
      event_shape: (H, W, C) of the data, H and W even.

    Raises:
      ValueError: for another shape, or an odd height or width.

    Reference:
      Dinh, Sohl-Dickstein & Bengio (2017), Density estimation using Real NVP, https://arxiv.org/abs/1605.08803
    """

    def __init__(self, event_shape: Sequence[int], name: str | None = None):
        parameters = dict(locals())
        shape = check_image_shape(event_shape)
        if shape[0] % 2 or shape[1] % 2:
            raise ValueError(f"Expected an image of even height and width to squeeze; got {shape}.")
        super().__init__(parameters, event_ndims=3, event_shape=shape, is_constant_jacobian=True, name=name)

    @property
    def latent_shape(self):
        height, width, n_channels = self.event_shape
        return height // 2, width // 2, 4 * n_channels

    def _forward_and_log_det(self, z, context):
        return self._move(tf.nn.depth_to_space, z, self.event_shape)

    def _inverse_and_log_det(self, x, context):
        return self._move(tf.nn.space_to_depth, x, self.latent_shape)

    def _move(self, operation, value, shape):
        batch = tf.shape(value)[:-3]
        rows = tf.reshape(value, [-1, *value.shape[-3:].as_list()])
        moved = tf.reshape(operation(rows, 2), tf.concat([batch, shape], axis=0))
        moved.set_shape([*value.shape[:-3], *shape])  # no operation, which TFLite would not know
        return moved, tf.zeros(batch, value.dtype)

    def describe(self):
        return f"Squeeze to {self.latent_shape}"


@register
class Dequantize(Bijector):
    """Pixel values 0 to 255 as numbers in (0, 1), and their probabilities from a density.

    From data to latent, z = (x + 1/2) / 256;  log-det = -D log 256. Encoding and decoding are this map and no more.
    For log-probabilities each pixel x is first moved to a point at random of the interval [x - 1/2, x + 1/2) that it
    stands for: with q the density of the point, log p(point) - log q(point) is in the mean at most log P(x). In
    training the points are new in each step, elsewhere a function of the image, so that densities repeat.

    With fewer than 8 bits the pixels are told apart only up to 2^bits equally wide levels, and P is that of the level.

    Args:
      event_shape: (H, W, C) of the images.
      bits: 1 to 8.
      noise: None for uniform q; or a bijector of images (H, W, 2 C) that leaves the first C channels, which are the
        pixels in [-1, 1], as they are, and maps logits of uniform numbers in the others to the logits of the points
        within their intervals: variational dequantization. See `architectures.variational_noise`.

    Raises:
      ValueError: for another number of bits, or noise of another shape.

    References:
      Theis, van den Oord & Bethge (2016), A note on the evaluation of generative models,
      https://arxiv.org/abs/1511.01844; Ho, Chen, Srinivas, Duan & Abbeel (2019), Flow++,
      https://arxiv.org/abs/1902.00275
    """

    def __init__(
        self, event_shape: Sequence[int], bits: int = 8, noise: Bijector | None = None, name: str | None = None
    ):
        parameters = dict(locals())
        shape = check_image_shape(event_shape)
        if isinstance(bits, bool) or bits not in range(1, 9):
            raise ValueError(f"Expected bits from 1 to 8; got {bits}.")
        super().__init__(
            parameters,
            event_ndims=3,
            event_shape=shape,
            context_dim=None if noise is None else noise.context_dim,
            is_constant_jacobian=True,
            name=name,
        )
        both = (*shape[:2], 2 * shape[2])
        if noise is not None and noise.event_shape != both:
            raise ValueError(f"Expected noise of event shape {both}; got {noise.event_shape}.")
        self._noise = noise
        self._width = PIXEL_VALUES // 2**bits
        self._n_levels = 2**bits

    @property
    def is_discrete(self):
        return True

    def check(self, x, what, columns=None, *, exact=True):
        if exact:  # what is on its way between two images will do, else
            check_pixels(x, what)

    def _log_det(self, value, sign):
        log_det = -sign * math.prod(self.event_shape) * math.log(PIXEL_VALUES)
        return tf.fill(tf.shape(value)[:-3], tf.cast(log_det, value.dtype))

    def _inverse_and_log_det(self, x, context):
        return (x + 0.5) / PIXEL_VALUES, self._log_det(x, 1.0)

    def _forward_and_log_det(self, z, context):
        return z * PIXEL_VALUES - 0.5, self._log_det(z, -1.0)

    def _level(self, x):
        return tf.clip_by_value(tf.floor((x + 0.5) / self._width), 0.0, self._n_levels - 1.0)

    def quantize(self, x):
        return self._level(tf.cast(x, self.dtype)) * self._width + self._width // 2

    def dequantize(self, x, context):
        level = tf.stop_gradient(self._level(tf.cast(x, self.dtype)))
        log_weight = tf.fill(tf.shape(x)[:-3], tf.cast(math.prod(self.event_shape) * math.log(self._width), self.dtype))
        if self._noise is None:
            where = random_uniform(level, event_ndims=3)
        else:
            where, log_density = self._draw(level, context)
            log_weight -= log_density
        return (level + where) * self._width - 0.5, log_weight

    def _draw(self, level, context):
        """A point in (0, 1) for each pixel, and the log-density of all of them `[n]`."""
        uniform = random_uniform(level, event_ndims=3)
        before = tf.math.log(uniform) - tf.math.log1p(-uniform)
        seen = 2.0 * (level + 0.5) / self._n_levels - 1.0
        both, log_det = self._noise.forward_and_log_det(tf.concat([seen, before], axis=-1), context)
        after = both[..., self.event_shape[-1] :]
        return tf.sigmoid(after), sum_event(_log_logistic(before) - _log_logistic(after), 3) - log_det

    def describe(self):
        bits = f"{self._n_levels.bit_length() - 1} bits"
        return f"Dequantize: {bits}" + ("" if self._noise is None else ", variational")


@register
class Logit(Bijector):
    """Numbers in [0, 1] spread as if over the whole line, from data to latent.

    z = logit(u) with u = m + (1 - 2 m) x, m the margin;  dz/dx = (1 - 2 m) / (u (1 - u)). Beyond 0 and 1 it goes on as
    a straight line of the same slope, so that every latent has an image that leads back to it, where a logistic
    function would be flat to the last digit.

    Args:
      event_shape: shape of an event; an int is one axis.
      margin: m, in (0, 1/2); images with black and white parts need it to be well above 0.

    Raises:
      ValueError: for a margin outside (0, 1/2).

    Reference:
      Dinh, Sohl-Dickstein & Bengio (2017), Density estimation using Real NVP, https://arxiv.org/abs/1605.08803
    """

    def __init__(self, event_shape: int | Sequence[int], margin: float = 0.05, name: str | None = None):
        parameters = dict(locals())
        shape = (event_shape,) if isinstance(event_shape, int) else tuple(event_shape)
        if not 0.0 < margin < 0.5:
            raise ValueError(f"Expected a margin in (0, 0.5); got {margin}.")
        super().__init__(parameters, event_ndims=len(shape), event_shape=shape, name=name)
        self._margin = float(margin)

    def _log_slope(self, inside):
        log_slope = math.log1p(-2.0 * self._margin) - tf.math.log(inside) - tf.math.log1p(-inside)
        return sum_event(log_slope, len(self.event_shape))

    def _inverse_and_log_det(self, x, context):
        m = self._margin
        u = m + (1.0 - 2.0 * m) * x
        inside = tf.clip_by_value(u, m, 1.0 - m)
        z = tf.math.log(inside) - tf.math.log1p(-inside) + (u - inside) / (m * (1.0 - m))
        return z, self._log_slope(inside)

    def _forward_and_log_det(self, z, context):
        m = self._margin
        edge = math.log1p(-m) - math.log(m)
        nearest = tf.clip_by_value(z, -edge, edge)
        inside = tf.sigmoid(nearest)
        x = (inside + (z - nearest) * m * (1.0 - m) - m) / (1.0 - 2.0 * m)
        return x, -self._log_slope(inside)

    def describe(self):
        return f"Logit, margin {self._margin:g}"


def _log_logistic(x):
    """The logistic density's logarithm, which is that of the slope of the logistic function too."""
    return -tf.nn.softplus(x) - tf.nn.softplus(-x)


def check_pixels(array: np.ndarray, what: str) -> None:
    """Raises unless all are whole numbers from 0 to 255; warns where they look as if divided by 255."""
    if np.size(array) == 0:
        return
    low, high = float(array.min()), float(array.max())
    if low < 0.0 or high > 255.0 or not np.array_equal(array, np.floor(array)):
        raise ValueError(
            f"Expected whole pixel values from 0 to 255 in {what}; got numbers from {low:.4g} to {high:.4g}. "
            "Undo a division by 255, or round."
        )
    if high == 1.0 and array.size > 1:
        warnings.warn(f"The pixels in {what} are 0 or 1, of 0 to 255: multiply black and white by 255.", stacklevel=6)
