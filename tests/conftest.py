"""Reproducible tests: every one starts from the same seed."""

import ctypes
import gc
import itertools
import os
import sys

# What TensorFlow tells of itself would come out after pytest's last line.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")

import cases
import keras
import numpy as np
import pytest

from tfflows.training import TrainableModel

# What the imports made stays for good: no collection needs to look through it again.
gc.freeze()


@pytest.fixture(autouse=True)
def _seed():
    keras.utils.set_random_seed(0)


_count = itertools.count(1)


@pytest.fixture(autouse=True)
def _free():
    """What is compiled hangs in cycles, 80 MB a model; Python alone collects them too late, and memory runs out.

    The C library keeps most of what is freed, in pieces between what is not, until it is told to give it back.
    """
    yield
    if next(_count) % 40 == 0:
        gc.collect()
        if sys.platform == "linux":
            ctypes.CDLL(None).malloc_trim(0)


@pytest.fixture
def without_xla(monkeypatch):
    """Models are compiled by XLA only if told to: it takes longer than a short fit, and most tests are not about it."""
    default = TrainableModel.use_xla.fget
    monkeypatch.setattr(
        TrainableModel, "use_xla", property(lambda model: model.xla_wanted is not None and default(model))
    )


@pytest.fixture
def float64():
    """New layers and bijectors compute in float64."""
    with cases.policy("float64"):
        yield


@pytest.fixture
def rng():
    """Random numbers that do not depend on which tests ran before."""
    return np.random.default_rng(0)
