"""Flows for where Python is not: SavedModels with signatures, and TFLite files of builtin operations."""

from tfflows.export.isolated import IsolatedRunner
from tfflows.export.litert import operations, tflite
from tfflows.export.parity import Parity, batch_size, runner, verify
from tfflows.export.verbs import Signature, signatures
from tfflows.export.writing import Exportable

__all__ = [
    "Exportable",
    "IsolatedRunner",
    "Parity",
    "Signature",
    "batch_size",
    "operations",
    "runner",
    "signatures",
    "tflite",
    "verify",
]
