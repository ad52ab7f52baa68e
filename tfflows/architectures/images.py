"""Flows of images."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import keras
import numpy as np

from tfflows.bijectors import (
    LU,
    ActNorm,
    Bijector,
    Chain,
    Coupling,
    Dequantize,
    Elementwise,
    Invert,
    Logit,
    Multiscale,
    Squeeze,
    checkerboard_mask,
    half_mask,
)
from tfflows.bijectors.images import check_image_shape
from tfflows.nets import MLP, ConvNet
from tfflows.numerics import check_counts
from tfflows.transformers import Affine, SigmoidAffine, Transformer


def Glow(
    image_shape: Sequence[int],
    *,
    levels: int = 3,
    steps: int = 8,
    hidden: int | Sequence[int] = 64,
    residual: bool = False,
    transformer: Callable[[], Transformer] = SigmoidAffine,
    context_dim: int | None = None,
    n_classes: int | None = None,
    bits: int = 8,
    noise: Bijector | None = None,
    logit: bool = False,
    recompute: bool = False,
) -> Bijector:
    """Glow: on each scale, steps of activation norm, a 1x1 convolution and a coupling of half the channels.

    Data are pixel values 0 to 255; both directions cost one evaluation of each net. On each scale but the last a half
    of the channels leaves, its prior conditioned on the other half; the last one's prior has a learned mean and scale
    for each number, or with a context a net of it. Latents are the standard-normal noise under all these.

    Args:
      image_shape: (height, width, channels), height and width divisible by 2^levels.
      levels: number of scales, >= 1.
      steps: on each, >= 1.
      hidden: widths of each `ConvNet`'s hidden layers; an int stands for two of that width.
      residual: residual nets in place of Glow's.
      transformer: makes the scalar map of each coupling: `SigmoidAffine`, or for splines
        `lambda: RationalQuadraticSpline(8, bound=4.0)`.
      context_dim: width of the context, or None.
      n_classes: number of classes, where the context is one: `fit(x, labels)`, `sample(n, label)`.
      bits: 1 to 8: how finely pixels are told apart (see `Dequantize`).
      noise: of variational dequantization (`variational_noise`), or None for uniform.
      logit: whether pixels are spread over the real line by a `Logit` first, as Real NVP does.
      recompute: whether gradients compute activations again: depth then costs time, a fifth more, and no memory.

    Raises:
      ValueError: for a count below 1, an image that cannot be halved so often, or both context_dim and n_classes.

    Reference:
      Kingma & Dhariwal (2018), Glow, https://arxiv.org/abs/1807.03039
    """
    context_dim = _context_dim(context_dim, n_classes)

    seeds = itertools.count()

    def step(shape, i):
        f = transformer()
        mask = half_mask(shape[-1], flip=i % 2 == 1)
        net = ConvNet(int(mask.sum()) * f.n_parameters, hidden, residual=residual)
        return [ActNorm(shape), LU(shape, next(seeds)), Coupling(f, mask, net, context_dim, shape)]

    def level(shape, is_last):
        squeeze = Squeeze(shape)
        inner = squeeze.latent_shape
        parts = [part for i in range(steps) for part in step(inner, i)]
        return Chain([squeeze, *parts, _prior(inner, hidden, context_dim, is_last=is_last)], recompute=recompute)

    return _multiscale(image_shape, levels, steps, level, n_classes, bits, noise, logit=logit)


def MultiscaleRealNVP(
    image_shape: Sequence[int],
    *,
    levels: int = 2,
    steps: int = 3,
    hidden: int | Sequence[int] = (64, 64, 64),
    residual: bool = True,
    transformer: Callable[[], Transformer] = SigmoidAffine,
    context_dim: int | None = None,
    n_classes: int | None = None,
    bits: int = 8,
    noise: Bijector | None = None,
    logit: bool = True,
    recompute: bool = False,
) -> Bijector:
    """Real NVP for images: on each scale, couplings of a chessboard's pixels, then couplings of channels.

    Data are pixel values 0 to 255; both directions cost one evaluation of each net. All latents leave half by half, as
    they are; the last scale has chessboards only, and one more of them.

    Args:
      image_shape, levels, transformer, context_dim, n_classes, bits, noise, recompute: as in `Glow`.
      steps: couplings of either kind on each scale, >= 1; the last has steps + 1 of pixels.
      hidden: as in `Glow`.
      residual: residual nets, by default.
      logit: as in `Glow`, by default True.

    Raises:
      ValueError: as `Glow` does.

    Reference:
      Dinh, Sohl-Dickstein & Bengio (2017), Density estimation using Real NVP, https://arxiv.org/abs/1605.08803
    """
    context_dim = _context_dim(context_dim, n_classes)

    def couplings(shape, masks):
        parts = []
        for mask in masks:
            f = transformer()
            net = ConvNet(int(mask.sum()) * f.n_parameters, hidden, residual=residual)
            parts += [ActNorm(shape), Coupling(f, mask, net, context_dim, shape)]
        return parts

    def level(shape, is_last):
        squeeze = Squeeze(shape)
        inner = squeeze.latent_shape
        masks = [checkerboard_mask(shape[-1], flip=i % 2 == 1) for i in range(steps + is_last)]
        if not is_last:
            masks += [half_mask(inner[-1], flip=i % 2 == 1) for i in range(steps)]
        return Chain([squeeze, *couplings(inner, masks)], recompute=recompute)

    return _multiscale(image_shape, levels, steps, level, n_classes, bits, noise, logit=logit)


def variational_noise(
    image_shape: Sequence[int],
    *,
    n_layers: int = 4,
    hidden: int | Sequence[int] = 32,
    transformer: Callable[[], Transformer] = Affine,
) -> Bijector:
    """The noise of variational dequantization: coupling layers that see the image, for `Glow(noise=...)`.

    Both directions cost one evaluation of each net. Densities of images need one of them, samples of images neither.

    Args:
      image_shape: (height, width, channels), height and width even.
      n_layers: number of couplings, >= 1.
      hidden: widths of each `ConvNet`'s hidden layers; an int stands for two of that width.
      transformer: makes the scalar map of each.

    Raises:
      ValueError: for an odd height or width, or a count below 1.

    Reference:
      Ho, Chen, Srinivas, Duan & Abbeel (2019), Flow++, https://arxiv.org/abs/1902.00275
    """
    check_counts(n_layers=n_layers)
    *plane, n_channels = check_image_shape(image_shape)
    squeeze = Squeeze((*plane, 2 * n_channels))
    shape = squeeze.latent_shape
    # After the squeeze the image is the first half of each of four groups of channels, and only conditions.
    is_noise = np.tile(np.repeat([False, True], n_channels), 4)
    layers = []
    for i in range(n_layers):
        f = transformer()
        mask = is_noise & checkerboard_mask(2 * n_channels, flip=i % 2 == 1)
        layers.append(Coupling(f, mask, ConvNet(int(mask.sum()) * f.n_parameters, hidden), None, shape))
    return Chain([squeeze, *layers, Invert(squeeze)])


def _prior(shape, hidden, context_dim, *, is_last):
    """Means and scales of the latents that leave: given what stays, or of the last scale, given the context."""
    if not is_last:
        net = ConvNet(shape[-1], hidden)
        return Coupling(Affine(), half_mask(shape[-1], flip=True), net, context_dim, shape)
    f = Affine()
    net = None if context_dim is None else MLP(f.n_parameters * int(np.prod(shape)), (64,))
    return Elementwise(f, shape, net, context_dim, keras.initializers.Zeros())


def _multiscale(image_shape, levels, steps, level, n_classes, bits, noise, *, logit):
    check_counts(levels=levels, steps=steps)
    image_shape = check_image_shape(image_shape)
    if image_shape[0] % 2**levels or image_shape[1] % 2**levels:
        raise ValueError(
            f"Expected a height and width divisible by 2^levels = {2**levels}; got {image_shape[0]} x "
            f"{image_shape[1]}. Pad or crop the images, or take fewer levels."
        )
    parts, shape = [], image_shape
    for i in range(levels):
        parts.append(level(shape, i == levels - 1))
        *plane, n_channels = parts[-1].latent_shape
        shape = (*plane, n_channels // 2)
    first = [Dequantize(image_shape, bits, noise)]
    if logit:
        first.append(Logit(image_shape))
    return Chain([*first, Multiscale(parts, n_classes)])


def _context_dim(context_dim, n_classes):
    if context_dim is not None and n_classes is not None:
        raise ValueError(f"Expected context_dim or n_classes, not both; got {context_dim} and {n_classes}.")
    return context_dim if n_classes is None else n_classes
