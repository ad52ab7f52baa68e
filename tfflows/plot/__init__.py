"""Pictures, with matplotlib (the extra `tfflows[plot]`), but without its pyplot: no screen is needed."""

from tfflows.plot.callbacks import LatentDiagnostics, PlotDensity
from tfflows.plot.clouds import clouds, rotating
from tfflows.plot.corner import corner
from tfflows.plot.density import density
from tfflows.plot.diagnostics import calibration, coverage, latents
from tfflows.plot.images import images
from tfflows.plot.training import training
from tfflows.plot.warp import warp, warping

__all__ = [
    "LatentDiagnostics",
    "PlotDensity",
    "calibration",
    "clouds",
    "corner",
    "coverage",
    "density",
    "images",
    "latents",
    "rotating",
    "training",
    "warp",
    "warping",
]
