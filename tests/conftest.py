"""Reproducible tests: every one starts from the same seed."""

import ctypes
import gc
import os
import resource
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

# What TensorFlow tells of itself would come out after pytest's last line.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
# Each process of pytest has a core; threads that wait for each other would spin on that of another.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
# XLA's own passes are all run; of machine code that is run for a moment, LLVM polishes nothing, and XLA writes it
# without the detour of MLIR, which makes faster code and takes twice as long. An unknown flag ends the process.
XLA_FLAGS = ["--xla_backend_optimization_level=0", "--xla_llvm_disable_expensive_passes=true"]
XLA_FLAGS += ["--xla_cpu_parallel_codegen_split_count=1"]
if tuple(map(int, version("tensorflow").split(".")[:2])) >= (2, 21):
    XLA_FLAGS += ["--xla_cpu_use_fusion_emitters=false"]
os.environ.setdefault("XLA_FLAGS", " ".join(XLA_FLAGS))

# TensorFlow is imported by fixtures: pytest-xdist's first process reads this file too, and need not wait for it.


def pytest_collection_finish():
    # What the imports made stays for good: no collection needs to look through it again.
    gc.freeze()
    # While a graph is built nearly all of what Python would look through is in use.
    gc.set_threshold(50_000, 20, 100)


@pytest.fixture(autouse=True)
def _seed():
    import keras

    keras.utils.set_random_seed(0)


_memory = {"kept": 0}  # bytes, after the last collection


@pytest.fixture(autouse=True)
def _free():
    """What is compiled hangs in cycles, 80 MB a model; Python alone collects them too late, and memory runs out.

    A collection looks through millions of objects, so it waits until there may be some models to free. The C library
    keeps most of what is freed, in pieces between what is not, until it is told to give it back.
    """
    yield
    if _resident() > _memory["kept"] + 600e6:
        gc.collect()
        if sys.platform == "linux":
            ctypes.CDLL(None).malloc_trim(0)
        _memory["kept"] = _resident()


def _resident() -> int:
    """Bytes of memory that this process has."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except FileNotFoundError:  # not on Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.fixture
def without_xla(monkeypatch):
    """Models are compiled by XLA only if told to: it takes longer than a short fit, and most tests are not about it.

    Nor are TensorFlow's own graphs improved before they run, which takes a third of the time they need to be made.
    """
    import tensorflow as tf

    from tfflows.training import TrainableModel

    default = TrainableModel.use_xla.fget
    monkeypatch.setattr(
        TrainableModel, "use_xla", property(lambda model: model.xla_wanted is not None and default(model))
    )
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    yield
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False})


@pytest.fixture
def quick_samplers(monkeypatch):
    """Samplers train and move less, whatever is left to do: for tests that ask whether they run, not how well."""
    from tfflows.inference import flows, smc

    monkeypatch.setattr(flows, "EPOCHS", 3)
    monkeypatch.setattr(smc, "MAX_STEPS", 20)
    monkeypatch.setattr(smc, "MAX_ROUNDS", 8)


@pytest.fixture
def float64():
    """New layers and bijectors compute in float64."""
    import cases

    with cases.policy("float64"):
        yield


@pytest.fixture
def rng():
    """Random numbers that do not depend on which tests ran before."""
    return np.random.default_rng(0)
