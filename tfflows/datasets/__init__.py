"""Toy densities with known answers, and small real data that ships with the package.

A toy draws with `sample` and knows the exact log-density of its draws, so a flow fitted to it can be
judged: the mean of `toy.log_prob(x) - flow.log_prob(x)` over draws is their Kullback-Leibler divergence.

    toy = TwoMoons(noise=0.05)
    x = toy.sample(10_000, seed=0)  # float32 [10000, 2]
    toy.log_prob(x)  # float64 [10000], nats
"""

from tfflows.datasets.real import LabelledSplit, Split, alanine_dipeptide, digits
from tfflows.datasets.toys import Checkerboard, FourModes1D, Gaussian1D, Pinwheel, Rings, Toy, TwoMoons

__all__ = [
    "Checkerboard",
    "FourModes1D",
    "Gaussian1D",
    "LabelledSplit",
    "Pinwheel",
    "Rings",
    "Split",
    "Toy",
    "TwoMoons",
    "alanine_dipeptide",
    "digits",
]
