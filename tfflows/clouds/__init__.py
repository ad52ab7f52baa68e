"""Point clouds: shapes as sets of points."""

from tfflows.clouds.bound import VariationalBound
from tfflows.clouds.inputs import padded
from tfflows.clouds.model import PointCloudFlow

__all__ = ["PointCloudFlow", "VariationalBound", "padded"]
