"""Posteriors: Monte Carlo with flows. Needs the extra `tfflows[inference]`."""

from tfflows.inference import diagnostics
from tfflows.inference.importance import importance
from tfflows.inference.result import Result
from tfflows.inference.smc import preconditioned_smc
from tfflows.inference.target import Target

__all__ = ["Result", "Target", "diagnostics", "importance", "preconditioned_smc"]
