"""Posteriors: Monte Carlo with flows. Needs the extra `tfflows[inference]`."""

import importlib.util

if importlib.util.find_spec("scipy") is None:
    raise ImportError("Expected SciPy for posteriors: pip install 'tfflows[inference]'")

from tfflows.inference import calibration, diagnostics
from tfflows.inference.importance import importance
from tfflows.inference.kernels import FlowProposal, InTurn
from tfflows.inference.metropolis import flow_mh
from tfflows.inference.neutra import neutra_hmc
from tfflows.inference.result import Result
from tfflows.inference.smc import preconditioned_smc
from tfflows.inference.target import Target
from tfflows.inference.variational import variational

__all__ = [
    "FlowProposal",
    "InTurn",
    "Result",
    "Target",
    "calibration",
    "diagnostics",
    "flow_mh",
    "importance",
    "neutra_hmc",
    "preconditioned_smc",
    "variational",
]
