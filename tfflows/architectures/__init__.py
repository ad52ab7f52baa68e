"""Presets: the architectures of the papers, each a short function that returns a bijector.

Every preset for vectors begins with `Standardize`, so data of any scale will do. With one dimension there is
nothing to condition on, so the layers become elementwise (given the context, if there is one). Those for images
take pixel values. All raise a ValueError for counts below 1, and what their transformers and nets raise.
"""

from tfflows.architectures.affine import IAF, MAF, NICE, RealNVP
from tfflows.architectures.continuous import FFJORD, RNODE, FlowMatching, OTFlow
from tfflows.architectures.gaussianization import SINF, GaussianizationFlow
from tfflows.architectures.images import Glow, MultiscaleRealNVP, variational_noise
from tfflows.architectures.monotonic import (
    BPF,
    NAF,
    SOSPF,
    UMNNMAF,
    CouplingNAF,
    CouplingUMNN,
    FlowPlusPlus,
    InverseBPF,
    InverseNAF,
    InverseSOSPF,
    InverseUMNNMAF,
)
from tfflows.architectures.noisy import SoftFlow
from tfflows.architectures.residual import InvertibleResNet, Planar, Radial, ResidualFlow, Sylvester
from tfflows.architectures.splines import (
    CouplingLRS,
    CouplingRQNSF,
    InverseAutoregressiveLRS,
    InverseAutoregressiveRQNSF,
    MaskedAutoregressiveLRS,
    MaskedAutoregressiveRQNSF,
)

__all__ = [
    "BPF",
    "FFJORD",
    "IAF",
    "MAF",
    "NAF",
    "NICE",
    "RNODE",
    "SINF",
    "SOSPF",
    "UMNNMAF",
    "CouplingLRS",
    "CouplingNAF",
    "CouplingRQNSF",
    "CouplingUMNN",
    "FlowMatching",
    "FlowPlusPlus",
    "GaussianizationFlow",
    "Glow",
    "InverseAutoregressiveLRS",
    "InverseAutoregressiveRQNSF",
    "InverseBPF",
    "InverseNAF",
    "InverseSOSPF",
    "InverseUMNNMAF",
    "InvertibleResNet",
    "MaskedAutoregressiveLRS",
    "MaskedAutoregressiveRQNSF",
    "MultiscaleRealNVP",
    "OTFlow",
    "Planar",
    "Radial",
    "RealNVP",
    "ResidualFlow",
    "SoftFlow",
    "Sylvester",
    "variational_noise",
]
