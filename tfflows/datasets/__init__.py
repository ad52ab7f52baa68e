"""Toy densities with known answers, small real data that ships with the package, and point clouds.

A toy draws with `sample` and knows the exact log-density of its draws, so a flow fitted to it can be
judged: the mean of `toy.log_prob(x) - flow.log_prob(x)` over draws is their Kullback-Leibler divergence.

    toy = TwoMoons(noise=0.05)
    x = toy.sample(10_000, seed=0)  # float32 [10000, 2]
    toy.log_prob(x)  # float64 [10000], nats

Point clouds: `planes` and `chairs` without end, `point_clouds` from a folder of meshes, `from_voxels`.
"""

from tfflows.datasets.augmentation import augmented
from tfflows.datasets.meshes import PointClouds, point_clouds
from tfflows.datasets.real import LabelledSplit, Split, alanine_dipeptide, digits
from tfflows.datasets.shapes import chairs, planes, shapes
from tfflows.datasets.surfaces import from_voxels, normalized, surface_points
from tfflows.datasets.toys import Checkerboard, FourModes1D, Gaussian1D, Pinwheel, Rings, Toy, TwoMoons

__all__ = [
    "Checkerboard",
    "FourModes1D",
    "Gaussian1D",
    "LabelledSplit",
    "Pinwheel",
    "PointClouds",
    "Rings",
    "Split",
    "Toy",
    "TwoMoons",
    "alanine_dipeptide",
    "augmented",
    "chairs",
    "digits",
    "from_voxels",
    "normalized",
    "planes",
    "point_clouds",
    "shapes",
    "surface_points",
]
