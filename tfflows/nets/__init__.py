"""Nets: the Keras layers that hold a flow's weights. They know no Jacobian.

A conditioner is called as `net(x)` or `net(x, context)` and returns `[..., n_outputs]` numbers,
which a bijector hands to a transformer as parameters. Its last layer starts at zero and all-zero
parameters mean the identity, so every flow starts as the identity map.
"""

from tfflows.nets.conditioning import build_conditioner, conditioner
from tfflows.nets.convolutional import ConvNet
from tfflows.nets.feedforward import MLP
from tfflows.nets.integrand import Integrand
from tfflows.nets.lipschitz import LipschitzMLP
from tfflows.nets.made import MADE
from tfflows.nets.parameters import AffineMap, Constant, Shares, Statistics
from tfflows.nets.pointnet import PointNet
from tfflows.nets.sequential import unrolled
from tfflows.nets.velocity import Potential, Velocity

__all__ = [
    "MADE",
    "MLP",
    "AffineMap",
    "Constant",
    "ConvNet",
    "Integrand",
    "LipschitzMLP",
    "PointNet",
    "Potential",
    "Shares",
    "Statistics",
    "Velocity",
    "build_conditioner",
    "conditioner",
    "unrolled",
]
