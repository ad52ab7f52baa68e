"""Point clouds: a flow of shapes, and how alike clouds and sets of them are."""

from tfflows.clouds.bound import VariationalBound
from tfflows.clouds.inputs import padded
from tfflows.clouds.metrics import (
    Scores,
    chamfer,
    coverage,
    earth_movers,
    evaluate,
    minimum_matching_distance,
    nearest_neighbour_accuracy,
    pairwise,
)
from tfflows.clouds.model import PointCloudFlow

__all__ = [
    "PointCloudFlow",
    "Scores",
    "VariationalBound",
    "chamfer",
    "coverage",
    "earth_movers",
    "evaluate",
    "minimum_matching_distance",
    "nearest_neighbour_accuracy",
    "padded",
    "pairwise",
]
