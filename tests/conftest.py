"""Reproducible tests: every one starts from the same seed."""

import gc
import itertools

import cases
import keras
import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _seed():
    keras.utils.set_random_seed(0)


_count = itertools.count(1)


@pytest.fixture(autouse=True)
def _free():
    """What is compiled hangs in cycles, 80 MB a model; Python alone collects them too late, and memory runs out."""
    yield
    if next(_count) % 40 == 0:
        gc.collect()


@pytest.fixture
def float64():
    """New layers and bijectors compute in float64."""
    with cases.policy("float64"):
        yield


@pytest.fixture
def rng():
    """Random numbers that do not depend on which tests ran before."""
    return np.random.default_rng(0)
