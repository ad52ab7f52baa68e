"""Pictures, with matplotlib (the extras `tfflows[examples]` and `tfflows[clouds]`)."""

from tfflows.plot.clouds import clouds, rotating
from tfflows.plot.images import images

__all__ = ["clouds", "images", "rotating"]
