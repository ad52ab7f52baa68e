"""Transformers: invertible maps of one number, given parameters."""

from tfflows.transformers.affine import Affine, Shift, SigmoidAffine
from tfflows.transformers.base import Transformer
from tfflows.transformers.integral import UMNN, SumOfSquares
from tfflows.transformers.linear_rational import LinearRationalSpline
from tfflows.transformers.polynomial import Bernstein
from tfflows.transformers.rational_quadratic import FreeKnotSpline, RationalQuadraticSpline
from tfflows.transformers.sigmoidal import DeepSigmoid, MixtureOfLogistics

__all__ = [
    "UMNN",
    "Affine",
    "Bernstein",
    "DeepSigmoid",
    "FreeKnotSpline",
    "LinearRationalSpline",
    "MixtureOfLogistics",
    "RationalQuadraticSpline",
    "Shift",
    "SigmoidAffine",
    "SumOfSquares",
    "Transformer",
]
