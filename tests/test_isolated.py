"""`export.IsolatedRunner`: whatever its process does, the one that asked gets arrays or a ValueError."""

import json
import os
import resource
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from tfflows import export
from tfflows.export import isolated_process

ROOT = Path(__file__).parents[1] / "saved_models" / "two_moons"
FILE = ROOT / "two_moons.tflite"
X = np.array([[0.0, 0.0], [1.0, 0.5]], np.float32)


@pytest.mark.parametrize("path", [ROOT / "1", FILE], ids=["SavedModel", "TFLite"])
def test_runs_like_runner(path):
    here = export.runner(path)
    with export.IsolatedRunner(path) as run:
        for _ in range(2):
            np.testing.assert_array_equal(run("log_prob", x=X)["log_prob"], here("log_prob", x=X)["log_prob"])
        assert run("log_prob", x=X[:0])["log_prob"].shape == (0,)
        z = run("encode", x=X)["z"]
        z += 0.0  # is the caller's own
        np.testing.assert_allclose(run("decode", z=z)["x"], X, atol=1e-5)
        with pytest.raises(ValueError, match=f"can be run; got {path}: .*nothing"):
            run("nothing", x=X)
        with pytest.raises(ValueError, match="can be run"):
            run("log_prob", y=X)
        # After a wrong call the process is still there.
        assert run("log_prob", x=X)["log_prob"].shape == (2,)
    with pytest.raises(ValueError, match="was closed"):
        run("log_prob", x=X)
    run.close()


def test_inputs_of_other_kinds():
    here, seed = export.runner(FILE), np.array([1, 2], np.int32)
    expected = here("log_prob", x=X)["log_prob"]
    drawn = here("sample", seed=seed, temperature=np.ones(2, np.float32))["x"]
    with export.IsolatedRunner(FILE) as run:
        for each in (run, here):
            for x in (X.tolist(), X.astype(">f4"), np.repeat(X, 2, axis=1)[:, ::2]):
                np.testing.assert_array_equal(each("log_prob", x=x)["log_prob"], expected)
            np.testing.assert_array_equal(each("sample", seed=[1, 2], temperature=[1.0, 1.0])["x"], drawn)
            for wrong in ("text", X.astype(object), X.astype(complex), None):
                with pytest.raises(ValueError, match="Expected numbers; got"):
                    each("log_prob", x=wrong)
            with pytest.raises(ValueError, match=r"Expected whole numbers of 32 bits.*got \[1, 4294967297\]"):
                each("sample", seed=[1, 2**32 + 1], temperature=[1.0, 1.0])
        assert run("log_prob", x=X)["log_prob"].shape == (2,)


def test_ctrl_c_is_for_this_process():
    with export.IsolatedRunner(FILE) as run:
        assert os.getpgid(run._process.pid) != os.getpgid(0)


def test_without_litert_tensorflow_runs_the_file(tmp_path, monkeypatch):
    (tmp_path / "ai_edge_litert").mkdir()
    (tmp_path / "ai_edge_litert" / "__init__.py").write_text("raise ImportError")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with export.IsolatedRunner(FILE) as run:
        assert run("log_prob", x=X)["log_prob"].shape == (2,)


def test_memory_is_bounded():
    with export.IsolatedRunner(FILE, max_bytes=400_000_000) as run:
        assert run("log_prob", x=X)["log_prob"].shape == (2,)
        with pytest.raises(ValueError, match="can be run"):
            run("log_prob", x=np.zeros((5_000_000, 2), np.float32))


def test_time_is_bounded():
    started = time.perf_counter()
    with pytest.raises(ValueError, match=r"took more than 0\.05 s"), export.IsolatedRunner(FILE, max_seconds=0.05):
        pass
    assert time.perf_counter() - started < 20


def test_files_are_refused_as_by_runner(tmp_path):
    (tmp_path / "x.tflite").write_bytes(b"TFL3" * 10)
    for name in ("x.tflite", "y"):
        with pytest.raises(ValueError) as here:
            export.runner(tmp_path / name)
        with pytest.raises(ValueError) as there:
            export.IsolatedRunner(tmp_path / name)
        assert str(there.value) == str(here.value)


def test_the_limits_are_of_looking_through_the_file_too(tmp_path):
    """20 MB of graphs with nothing in them take a gigabyte as soon as they are read."""
    shutil.copytree(ROOT / "1", tmp_path / "export")
    (tmp_path / "export" / "saved_model.pb").write_bytes(b"\x12\x00" * 10_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for match, setting in {
        "cannot be read": {"max_bytes": 1_000_000_000},
        "took more than": {"max_seconds": 0.05},
    }.items():
        with pytest.raises(ValueError, match=match):
            export.IsolatedRunner(tmp_path / "export", **setting)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 100_000  # kB


def test_nothing_is_started_for_limits_that_are_none(tmp_path, monkeypatch):
    monkeypatch.setattr(isolated_process, "__file__", str(tmp_path / "nothing.py"))
    for setting in ("max_seconds", "max_bytes"):
        for value in (0, float("inf"), float("nan")):
            with pytest.raises(ValueError, match=f"Expected {setting} > 0, and finite; got {value}"):
                export.IsolatedRunner(FILE, **{setting: value})


LOADED = "import os, sys; out = sys.stdout.buffer; out.write((1).to_bytes(8, 'little') + bytes(1)); out.flush();"
WAIT = "out.flush(); sys.stdin.read()"
HIJACKED = {
    "dies at once": ("import os; os.kill(os.getpid(), 11)", "SIGSEGV"),
    "stops at once": ("", r"ended its process \(0\)"),
    "dies when called": (LOADED + "sys.stdin.read(99); os.kill(os.getpid(), 6)", "SIGABRT"),
    "prints": ("import sys; out = sys.stdout; out.write('x' * 100);" + WAIT, "answer that is too long"),
    "answers too much": (LOADED + "out.write(bytes([255]) * 8);" + WAIT, "answer that is too long"),
    "answers less than it says": (LOADED + "out.write((99).to_bytes(8, 'little'))", "ended its process"),
    "answers noise": (LOADED + "out.write((9).to_bytes(8, 'little') + bytes(9));" + WAIT, "an answer that is none"),
}


@pytest.mark.parametrize("name", HIJACKED)
def test_a_process_that_was_taken_over(name, tmp_path, monkeypatch):
    code, match = HIJACKED[name]
    (tmp_path / "process.py").write_text(code)
    monkeypatch.setattr(isolated_process, "__file__", str(tmp_path / "process.py"))
    with pytest.raises(ValueError, match=match), export.IsolatedRunner(FILE, max_seconds=30) as run:
        # Larger than a pipe holds: it must not hang where nobody reads.
        run("log_prob", x=np.zeros((100_000, 2), np.float32))


def test_messages_are_read_without_belief():
    arrays = {"x": X, "seed": np.array(3), "none": np.zeros((0, 4), np.int64), "is": np.array([True])}
    name, found = isolated_process.unpack(isolated_process.pack("log_prob", arrays))
    assert (name, set(found)) == ("log_prob", set(arrays))
    for key, value in arrays.items():
        assert found[key].dtype == value.dtype
        np.testing.assert_array_equal(found[key], value)
    started = time.perf_counter()
    for dtype, shape in (("<f4", [10**12]), ("|O", [1]), ("<f4", [-1]), ("<f4", [10**4000] * 400), ("<f4", [0] * 99)):
        about = json.dumps(["", [["x", dtype, shape]]])
        with pytest.raises(ValueError):
            isolated_process.unpack(len(about).to_bytes(8, "little") + about.encode() + bytes(8))
    assert time.perf_counter() - started < 5
