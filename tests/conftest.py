"""Reproducible tests: every one starts from the same seed."""

import cases
import keras
import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _seed():
    keras.utils.set_random_seed(0)


@pytest.fixture
def float64():
    """New layers and bijectors compute in float64."""
    with cases.policy("float64"):
        yield


@pytest.fixture
def rng():
    """Random numbers that do not depend on which tests ran before."""
    return np.random.default_rng(0)
