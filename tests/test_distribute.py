"""Under a distribution strategy a fit is that of one device with whole batches."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", "TF_NUM_INTRAOP_THREADS": "1"}
FITS = [sys.executable, str(ROOT / "tests" / "distributed.py")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With the fits of one device, and of two replicas."""
    folder = tmp_path_factory.mktemp("fits")
    subprocess.run([*FITS, "mirrored", str(folder)], check=True, timeout=300, env=dict(os.environ, **ENVIRONMENT))
    return folder


@pytest.fixture
def cluster(monkeypatch):
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    import cluster

    return cluster


def result(folder, name):
    return json.loads((folder / f"{name}.json").read_text())


def check_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, (history, weights) in found.items():
        for key, values in expected[name][0].items():
            np.testing.assert_allclose(history[key], values, rtol=1e-5, err_msg=f"{name}, {key}")
        for w, v in zip(weights, expected[name][1], strict=True):
            np.testing.assert_allclose(w, v, atol=1e-5, err_msg=name)


def test_mirrored_replicas(folder):
    check_equal(result(folder, "mirrored"), result(folder, "one"))


def test_two_workers(folder, cluster):
    assert cluster.launch(2, [*FITS, "worker", str(folder)]) == 0
    for index in range(2):
        check_equal(result(folder, f"worker{index}"), result(folder, "one"))


def test_a_dead_worker_ends_the_others(cluster):
    """They would wait for it."""
    code = "import json, os, time; time.sleep(600) if json.loads(os.environ['TF_CONFIG'])['task']['index'] else exit(3)"
    assert cluster.launch(2, [sys.executable, "-c", code]) == 3
    with pytest.raises(ValueError, match="Expected at least 1 worker; got 0"):
        cluster.launch(0, [sys.executable])
