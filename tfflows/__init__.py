"""tfflows: normalizing flows for TensorFlow and Keras 3."""

from tfflows import (
    architectures,
    bases,
    bijectors,
    clouds,
    datasets,
    domains,
    export,
    frames,
    latents,
    losses,
    nets,
    ode,
    pipelines,
    plot,
    questions,
    testing,
    transformers,
)
from tfflows.architectures import *  # noqa: F403
from tfflows.bijectors import Chain, Invert
from tfflows.clouds import PointCloudFlow
from tfflows.domains import Domain
from tfflows.loading import load_model
from tfflows.mixture import FlowMixture
from tfflows.model import FlowModel

__version__ = "0.1.0"

__all__ = [
    *architectures.__all__,
    "Chain",
    "Domain",
    "FlowMixture",
    "FlowModel",
    "Invert",
    "PointCloudFlow",
    "architectures",
    "bases",
    "bijectors",
    "clouds",
    "datasets",
    "domains",
    "export",
    "frames",
    "latents",
    "load_model",
    "losses",
    "nets",
    "ode",
    "pipelines",
    "plot",
    "questions",
    "testing",
    "transformers",
]
