"""tfflows: normalizing flows for TensorFlow and Keras 3."""

from tfflows import bases, bijectors, datasets, losses, nets, transformers
from tfflows.architectures import IAF, MAF, NICE, CouplingRQNSF, MaskedAutoregressiveRQNSF, RealNVP
from tfflows.bijectors import Chain, Invert
from tfflows.model import FlowModel

__version__ = "0.1.0"

__all__ = [
    "IAF",
    "MAF",
    "NICE",
    "Chain",
    "CouplingRQNSF",
    "FlowModel",
    "Invert",
    "MaskedAutoregressiveRQNSF",
    "RealNVP",
    "bases",
    "bijectors",
    "datasets",
    "losses",
    "nets",
    "transformers",
]
