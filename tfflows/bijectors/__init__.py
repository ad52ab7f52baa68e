"""Bijectors: invertible maps of whole events, all of them TFP bijectors."""

from tfflows.bijectors.autoregressive import MaskedAutoregressive
from tfflows.bijectors.base import Bijector
from tfflows.bijectors.blockwise import Blockwise
from tfflows.bijectors.composition import Chain, Invert
from tfflows.bijectors.continuous import ContinuousFlow, ExactTrace, HutchinsonTrace
from tfflows.bijectors.coupling import Coupling, alternating_mask, checkerboard_mask, half_mask
from tfflows.bijectors.discrete import Frequencies, Integers
from tfflows.bijectors.domain import Bounded, Circle, Positive, Simplex, Sphere
from tfflows.bijectors.elementwise import Elementwise
from tfflows.bijectors.images import Dequantize, Logit, Squeeze
from tfflows.bijectors.linear import LU, QR, Householder, MatrixExponential, Permutation, RandomRotation
from tfflows.bijectors.multiscale import Multiscale
from tfflows.bijectors.noise import Noise
from tfflows.bijectors.normalization import ActNorm, Standardize, Whiten
from tfflows.bijectors.planar import Planar, Radial, Sylvester
from tfflows.bijectors.residual import ExactLogDet, PowerSeries, Residual, RussianRoulette
from tfflows.bijectors.sliced import Sliced

__all__ = [
    "LU",
    "QR",
    "ActNorm",
    "Bijector",
    "Blockwise",
    "Bounded",
    "Chain",
    "Circle",
    "ContinuousFlow",
    "Coupling",
    "Dequantize",
    "Elementwise",
    "ExactLogDet",
    "ExactTrace",
    "Frequencies",
    "Householder",
    "HutchinsonTrace",
    "Integers",
    "Invert",
    "Logit",
    "MaskedAutoregressive",
    "MatrixExponential",
    "Multiscale",
    "Noise",
    "Permutation",
    "Planar",
    "Positive",
    "PowerSeries",
    "Radial",
    "RandomRotation",
    "Residual",
    "RussianRoulette",
    "Simplex",
    "Sliced",
    "Sphere",
    "Squeeze",
    "Standardize",
    "Sylvester",
    "Whiten",
    "alternating_mask",
    "checkerboard_mask",
    "half_mask",
]
