"""Transformers: invertible maps of one number, given parameters."""

from tfflows.transformers.affine import Affine, Shift
from tfflows.transformers.base import Transformer
from tfflows.transformers.spline import RationalQuadraticSpline

__all__ = ["Affine", "RationalQuadraticSpline", "Shift", "Transformer"]
