"""Point clouds: sets of points, whose order says nothing.

`chamfer` and `earth_movers` compare two clouds; `evaluate` compares a set of generated clouds with a set of real ones.
"""

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

__all__ = [
    "Scores",
    "chamfer",
    "coverage",
    "earth_movers",
    "evaluate",
    "minimum_matching_distance",
    "nearest_neighbour_accuracy",
    "pairwise",
]
