"""Under a distribution strategy a fit is that of one device with whole batches."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent


def start(*arguments):
    settings = dict(os.environ, PYTHONPATH=str(HERE.parent), TF_CPP_MIN_LOG_LEVEL="3", TF_NUM_INTRAOP_THREADS="1")
    command = [sys.executable, HERE / "distributed.py", *map(str, arguments)]
    return subprocess.Popen(command, env=settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def result(process):
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, error[-3000:]
    return json.loads(out.splitlines()[-1])


@pytest.fixture(scope="module")
def one():
    return result(start("one"))


def check_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, (history, weights) in found.items():
        for key, values in expected[name][0].items():
            np.testing.assert_allclose(history[key], values, rtol=1e-5, err_msg=f"{name}, {key}")
        for w, v in zip(weights, expected[name][1], strict=True):
            np.testing.assert_allclose(w, v, atol=1e-5, err_msg=name)


def test_mirrored_replicas(one):
    check_equal(result(start("mirrored")), one)


def test_two_workers(one):
    sockets = [socket.create_server(("localhost", 0)) for _ in range(2)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    workers = [start("worker", i, json.dumps(ports)) for i in range(2)]
    found = [result(process) for process in workers]
    check_equal(found[0], found[1])
    check_equal(found[0], one)
