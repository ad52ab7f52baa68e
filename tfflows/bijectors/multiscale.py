"""Multiscale: a bijector for each scale of an image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfflows.bijectors.base import Bijector
from tfflows.bijectors.parts import enough_rows, inverse_values, merge, some_rows
from tfflows.serialization import register


@register
class Multiscale(Bijector):
    """A bijector for each scale of an image; after each but the last, a half of the channels is done.

    Level 1 maps the image to h_1. Its first channels, half of them, are latents; the others go through level 2, and so
    on; what the last level returns are latents all. They come as one flat vector, the finest scale first, so the
    whole is a bijector like any other: nothing is thrown away or drawn again. Log-dets add up.

    A level begins with a `Squeeze`, or the image would run out of channels. Where it ends with a `Coupling` that
    transforms the first half of the channels given the other, that is Glow's prior for these given what stays, and the
    latents are the noise under it.

    Args:
      levels: bijectors of images `[H, W, C]`, each of the shape that the one before leaves, from the finest on.
      n_classes: number of classes, if the context that the levels hear is a class, as one-hot vector.

    Raises:
      ValueError: without levels, or where the shape of one does not fit, or it has an odd number of channels to halve.

    Reference:
      Dinh, Sohl-Dickstein & Bengio (2017), Density estimation using Real NVP, https://arxiv.org/abs/1605.08803
    """

    def __init__(self, levels: Sequence[Bijector], n_classes: int | None = None, name: str | None = None):
        parameters = dict(locals())
        levels = list(levels)
        if not levels:
            raise ValueError("Expected at least one level; got none.")
        for level in levels:
            if not isinstance(level, Bijector) or level.event_shape is None or len(level.event_shape) != 3:
                raise ValueError(f"Expected levels that are bijectors of images [H, W, C]; got {level!r}.")
        self._levels = levels
        self._shapes = [level.latent_shape for level in levels]
        for shape, level in zip(self._shapes, levels[1:], strict=False):
            if shape[-1] % 2:
                raise ValueError(f"Expected an even number of channels to halve; got {shape[-1]}.")
            if level.event_shape != _half(shape):
                raise ValueError(f"Expected a level of event shape {_half(shape)}; got {level.event_shape}.")
        self._n_classes = n_classes
        super().__init__(
            parameters,
            event_ndims=3,
            latent_ndims=1,
            event_shape=levels[0].event_shape,
            context_dim=merge("context width", [level.context_dim for level in levels]),
            is_constant_jacobian=all(level.is_constant_jacobian for level in levels),
            name=name,
        )
        if n_classes is not None and n_classes != self.context_dim:
            raise ValueError(
                f"Expected n_classes equal to the levels' context_dim {self.context_dim}; got {n_classes}."
            )

    @property
    def latent_shape(self):
        return (sum(self.level_sizes),)

    @property
    def level_sizes(self):
        *inner, last = self._shapes
        return tuple(math.prod(shape) for shape in (*map(_half, inner), last))

    @property
    def n_classes(self):
        return self._n_classes

    @property
    def needs_adapt(self):
        return any(level.needs_adapt for level in self._levels)

    @property
    def enough_rows(self):
        return enough_rows(self._levels)

    def adapt(self, x, context=None, *, sample_weight=None, verbose=0):
        x, context, sample_weight = some_rows(self.enough_rows, np.asarray(x), context, sample_weight)
        for level in self._levels:
            level.adapt(x, context, sample_weight=sample_weight, verbose=verbose)
            if level is not self._levels[-1]:
                x = inverse_values([level], [3], x, context)
                x = x[..., x.shape[-1] // 2 :]

    def _inverse_and_log_det(self, x, context):
        latents, total = [], 0.0
        for level in self._levels:
            x, log_det = level.inverse_and_log_det(x, context)
            total = total + log_det
            if level is not self._levels[-1]:
                done, x = tf.split(x, 2, axis=-1)
                latents.append(_flat(done))
        return tf.concat([*latents, _flat(x)], axis=-1), total

    def _forward_and_log_det(self, z, context):
        *latents, last = tf.split(z, self.level_sizes, axis=-1)
        batch = tf.shape(z)[:-1]
        x, total = tf.reshape(last, tf.concat([batch, self._shapes[-1]], axis=0)), 0.0
        for i, level in reversed(list(enumerate(self._levels))):
            if i < len(latents):
                done = tf.reshape(latents[i], tf.concat([batch, _half(self._shapes[i])], axis=0))
                if context is not None:  # it may have added batch axes
                    done = tf.broadcast_to(done, tf.shape(x))
                x = tf.concat([done, x], axis=-1)
            x, log_det = level.forward_and_log_det(x, context)
            total = total + log_det
        return x, total

    def describe(self):
        return f"Multiscale of {len(self._levels)} levels, {self.level_sizes} latents"


def _half(shape):
    return (*shape[:-1], shape[-1] // 2)


def _flat(image):
    """`[..., H, W, C]` as `[..., H W C]`."""
    n = math.prod(image.shape[-3:].as_list())
    return tf.reshape(image, tf.concat([tf.shape(image)[:-3], [n]], axis=0))
