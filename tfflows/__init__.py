"""tfflows: normalizing flows for TensorFlow and Keras 3."""

from tfflows import bases, bijectors, datasets, losses, nets, ode, transformers
from tfflows.architectures import (
    FFJORD,
    IAF,
    MAF,
    NICE,
    RNODE,
    CouplingRQNSF,
    FlowMatching,
    MaskedAutoregressiveRQNSF,
    RealNVP,
)
from tfflows.bijectors import Chain, Invert
from tfflows.model import FlowModel

__version__ = "0.1.0"

__all__ = [
    "FFJORD",
    "IAF",
    "MAF",
    "NICE",
    "RNODE",
    "Chain",
    "CouplingRQNSF",
    "FlowMatching",
    "FlowModel",
    "Invert",
    "MaskedAutoregressiveRQNSF",
    "RealNVP",
    "bases",
    "bijectors",
    "datasets",
    "losses",
    "nets",
    "ode",
    "transformers",
]
