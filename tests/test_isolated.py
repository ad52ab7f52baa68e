"""`export.isolated_runner`: whatever its process does, the one that asked gets arrays or a ValueError."""

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
    with export.isolated_runner(path) as run:
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
    with pytest.raises(ValueError):
        run("log_prob", x=X)


def test_memory_is_bounded():
    with export.isolated_runner(FILE, max_bytes=400_000_000) as run:
        assert run("log_prob", x=X)["log_prob"].shape == (2,)
        with pytest.raises(ValueError, match="can be run"):
            run("log_prob", x=np.zeros((5_000_000, 2), np.float32))


def test_time_is_bounded():
    started = time.perf_counter()
    with pytest.raises(ValueError, match=r"took more than 0\.05 s"), export.isolated_runner(FILE, max_seconds=0.05):
        pass
    assert time.perf_counter() - started < 20


def test_refused_before_a_process_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(isolated_process, "__file__", str(tmp_path / "nothing.py"))
    (tmp_path / "x.tflite").write_bytes(b"TFL3" * 10)
    for path, match in [(tmp_path / "x.tflite", "got one that is damaged"), (tmp_path / "y", "which is neither")]:
        with pytest.raises(ValueError, match=match), export.isolated_runner(path):
            pass
    for setting in ("max_seconds", "max_bytes"):
        runner = export.isolated_runner(FILE, **{setting: 0})
        with pytest.raises(ValueError, match=f"Expected {setting} > 0; got 0"), runner:
            pass


LOADED = "import os, sys; out = sys.stdout.buffer; out.write((1).to_bytes(8, 'little') + bytes(1)); out.flush();"
WAIT = "out.flush(); sys.stdin.read()"
HIJACKED = {
    "dies at once": ("import os; os.kill(os.getpid(), 11)", "SIGSEGV"),
    "stops at once": ("", r"ended its process \(0\)"),
    "dies when called": (LOADED + "sys.stdin.read(99); os.kill(os.getpid(), 6)", "SIGABRT"),
    "prints": ("import sys; out = sys.stdout; out.write('x' * 100);" + WAIT, "Expected at most"),
    "answers too much": (LOADED + "out.write(bytes([255]) * 8);" + WAIT, "Expected at most"),
    "answers less than it says": (LOADED + "out.write((99).to_bytes(8, 'little'))", "ended its process"),
    "answers noise": (LOADED + "out.write((9).to_bytes(8, 'little') + bytes(9));" + WAIT, "an answer that is none"),
}


@pytest.mark.parametrize("name", HIJACKED)
def test_a_process_that_was_taken_over(name, tmp_path, monkeypatch):
    code, match = HIJACKED[name]
    (tmp_path / "process.py").write_text(code)
    monkeypatch.setattr(isolated_process, "__file__", str(tmp_path / "process.py"))
    with pytest.raises(ValueError, match=match), export.isolated_runner(FILE, max_seconds=30) as run:
        # Larger than a pipe holds: it must not hang where nobody reads.
        run("log_prob", x=np.zeros((100_000, 2), np.float32))


def test_messages_are_read_without_belief():
    arrays = {"x": X, "seed": np.array(3), "none": np.zeros((0, 4), np.int64), "is": np.array([True])}
    name, found = isolated_process.unpack(isolated_process.pack("log_prob", arrays))
    assert (name, set(found)) == ("log_prob", set(arrays))
    for key, value in arrays.items():
        assert found[key].dtype == value.dtype
        np.testing.assert_array_equal(found[key], value)
    for about in ('["", [["x", "<f4", [1000000000000]]]]', '["", [["x", "|O", [1]]]]', '["", [["x", "<f4", [-1]]]]'):
        with pytest.raises(ValueError):
            isolated_process.unpack(len(about).to_bytes(8, "little") + about.encode() + bytes(8))
