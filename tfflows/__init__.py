"""tfflows: normalizing flows for TensorFlow and Keras 3."""

from tfflows import bases, bijectors, datasets, losses, nets, transformers
from tfflows.architectures import (
    BPF,
    IAF,
    MAF,
    NAF,
    NICE,
    SOSPF,
    UMNNMAF,
    CouplingLRS,
    CouplingNAF,
    CouplingRQNSF,
    CouplingUMNN,
    FlowPlusPlus,
    InverseAutoregressiveLRS,
    InverseAutoregressiveRQNSF,
    InverseNAF,
    MaskedAutoregressiveLRS,
    MaskedAutoregressiveRQNSF,
    RealNVP,
)
from tfflows.bijectors import Chain, Invert
from tfflows.model import FlowModel

__version__ = "0.1.0"

__all__ = [
    "BPF",
    "IAF",
    "MAF",
    "NAF",
    "NICE",
    "SOSPF",
    "UMNNMAF",
    "Chain",
    "CouplingLRS",
    "CouplingNAF",
    "CouplingRQNSF",
    "CouplingUMNN",
    "FlowModel",
    "FlowPlusPlus",
    "InverseAutoregressiveLRS",
    "InverseAutoregressiveRQNSF",
    "InverseNAF",
    "Invert",
    "MaskedAutoregressiveLRS",
    "MaskedAutoregressiveRQNSF",
    "RealNVP",
    "bases",
    "bijectors",
    "datasets",
    "losses",
    "nets",
    "transformers",
]
