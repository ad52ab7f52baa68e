"""Under a distribution strategy a fit is that of one device with whole batches."""

import itertools
import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import yaml

from tfflows import replicas

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", "TF_NUM_INTRAOP_THREADS": "1"}
FITS = [sys.executable, str(ROOT / "tests" / "distributed.py")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With the fits of one device, and of two replicas."""
    folder = tmp_path_factory.mktemp("fits")
    subprocess.run([*FITS, "mirrored", str(folder)], check=True, timeout=900, env=dict(os.environ, **ENVIRONMENT))
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


def test_a_step_is_that_of_the_parts_gradients(folder):
    """Also where replicas draw random numbers of their own, and where context nets have state."""
    steps = result(folder, "steps")
    assert len(steps) == 4
    for name, found in steps.items():
        assert found["weights"] < 1e-9, (name, found)
        assert found["spread"] == 0.0, (name, found)
        assert abs(found["loss"]) < 1e-4, (name, found)  # Keras' metrics are float32
    assert abs(steps["Glow"]["bits_per_dim"]) < 1e-5


def test_a_replica_without_rows_is_not_heard(folder):
    losses, is_finite = result(folder, "few")
    assert np.all(np.isfinite(losses))
    assert is_finite


@pytest.fixture(scope="module")
def workers(folder):
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name, value in ENVIRONMENT.items():
            monkeypatch.setenv(name, value)
        monkeypatch.syspath_prepend(str(ROOT / "examples"))
        import cluster

        assert cluster.launch(2, [*FITS, "worker", str(folder)]) == 0
    return [result(folder, f"together{index}") for index in range(2)]


def test_two_workers(folder, workers):
    for index in range(2):
        check_equal(result(folder, f"worker{index}"), result(folder, "one"))


def test_workers_agree(workers):
    """On the rows held out, on logs that differ, on when to stop, on the weights that were best, and on what failed."""
    for each in workers:
        history, weights = each["automatic"]
        assert (history, weights) == tuple(workers[0]["automatic"])
        assert history["own"] == [0.5] * 3
        assert "not finite in epoch 1 of 3" in each["error"]
        assert each["others"].startswith("Expected the same rows on all workers")
        assert each["adapted"] == workers[0]["adapted"]
        assert each["own pipelines"] == workers[0]["own pipelines"]
        assert each["is finite"]


def test_the_first_worker_writes(folder, workers):
    names = ["checkpoint-0.keras", "export-0", "model-0.keras", "model-0.weights.h5", "pictures-0"]
    assert sorted(path.name for path in folder.glob("*-?*") if not path.name.startswith("rows")) == names
    assert [path.name for path in (folder / "pictures-0").iterdir()] == ["density_0003.png"]


def test_each_row_of_a_pipeline_is_one_workers(workers):
    orders = []
    for first, second in zip(*(each["epochs"] for each in workers), strict=True):
        assert [len(a) + len(b) for a, b in zip(first, second, strict=True)] == [64, 64, 2]
        orders.append(list(itertools.chain(*first, *second)))
        assert sorted(orders[-1]) == list(range(130))
    assert orders[0] != orders[1]


def test_recipes_say_who_the_workers_are(tmp_path, monkeypatch):
    """Those of the documentation, with stand-ins for what a cluster has."""
    page = (ROOT / "docs" / "how_to" / "distribute.md").read_text()
    slurm = re.search(r"^```bash\n(port=.*?)^```", page, flags=re.DOTALL | re.MULTILINE)[1]
    service, job = yaml.safe_load_all(re.search(r"^```yaml\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)[1])
    pod = job["spec"]["template"]["spec"]
    assert service["metadata"]["name"] == pod["subdomain"]
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    [container], n = pod["containers"], job["spec"]["completions"]
    assert {volume["name"] for volume in pod["volumes"]} == {mount["name"] for mount in container["volumeMounts"]}
    for name, says in {"python": 'echo "$TF_CONFIG"', "scontrol": r"printf 'a1\na2\n'"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{says}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for name, value in {"SLURM_JOB_ID": 123456, "SLURM_JOB_NODELIST": "a[1-2]", "SLURM_PROCID": 1}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "3")
    commands = (["bash", "-c", slurm], [*container["command"], *container["args"]])
    found = [json.loads(subprocess.run(c, capture_output=True, text=True, check=True).stdout) for c in commands]
    assert found[0] == {"cluster": {"worker": ["a1:23456", "a2:23456"]}, "task": {"type": "worker", "index": 1}}
    port = container["ports"][0]["containerPort"]
    assert found[1]["cluster"]["worker"] == [f"flow-{i}.flow:{port}" for i in range(n)]
    assert found[1]["task"] == {"type": "worker", "index": 3}


@pytest.mark.parametrize(
    "setting", [{"gradient_accumulation_steps": 2}, {"use_ema": True, "ema_overwrite_frequency": 2}]
)
def test_what_optimizers_cannot_do_is_refused(setting):
    plain = keras.optimizers.SGD(**setting)
    for optimizer in (plain, keras.optimizers.LossScaleOptimizer(plain)):
        replicas.check_optimizer(optimizer, types.SimpleNamespace(num_replicas_in_sync=1))
        with pytest.raises(ValueError, match=f"Expected no {list(setting)[-1]} on several replicas; got 2"):
            replicas.check_optimizer(optimizer, types.SimpleNamespace(num_replicas_in_sync=2))


@pytest.mark.parametrize("setting", ["clipvalue", "clipnorm", "global_clipnorm"])
def test_what_overflows_is_not_cut_off(setting):
    """The optimizer, which halves the scale then, must see it."""
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(**{setting: 0.5}), initial_scale=4.0)
    assert not np.all(np.isfinite(replicas.clipped([tf.constant([np.inf, 3.0])], optimizer)[0]))
    np.testing.assert_allclose(replicas.clipped([tf.constant([3.0])], optimizer)[0], [2.0])


def test_a_dead_worker_ends_the_others(cluster, tmp_path, capfd):
    """They would wait for it; with restarts all begin anew."""
    code = "import json, os, time; time.sleep(600) if json.loads(os.environ['TF_CONFIG'])['task']['index'] else exit(3)"
    assert cluster.launch(2, [sys.executable, "-c", code]) == 3
    assert "Worker 0 of 2 ended with exit code 3: the others were ended." in capfd.readouterr().err
    # Each try leaves a file; in the first two the second worker kills itself.
    code = f"""
import json, os, pathlib, signal
index, folder = json.loads(os.environ["TF_CONFIG"])["task"]["index"], pathlib.Path({str(tmp_path)!r})
if index == 1:
    (folder / str(os.getpid())).touch()
    if len(list(folder.iterdir())) < 3:
        os.kill(os.getpid(), signal.SIGKILL)
"""
    assert cluster.launch(2, [sys.executable, "-c", code], restarts=1) == -9
    said = capfd.readouterr().err
    assert "Worker 1 of 2 ended with exit code -9: all begin anew; 0 restarts are left." in said
    assert "Worker 1 of 2 ended with exit code -9: the others were ended." in said
    assert cluster.launch(2, [sys.executable, "-c", code], restarts=1) == 0
    with pytest.raises(ValueError, match="Expected at least 1 worker and 0 restarts; got 0 and 0"):
        cluster.launch(0, [sys.executable])
