"""Base distributions: where the latents come from."""

from tfflows.bases.base import Base
from tfflows.bases.bounded import NormalAndCircular, UniformBox, UniformCircle, VonMises
from tfflows.bases.normal import DiagonalNormal, MixtureOfNormals, StandardNormal
from tfflows.bases.resampled import Resampled
from tfflows.bases.stock import FromTFP
from tfflows.bases.student import StudentT

__all__ = [
    "Base",
    "DiagonalNormal",
    "FromTFP",
    "MixtureOfNormals",
    "NormalAndCircular",
    "Resampled",
    "StandardNormal",
    "StudentT",
    "UniformBox",
    "UniformCircle",
    "VonMises",
]
