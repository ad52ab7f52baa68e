"""Killed runs: files are old or new, never half, and what has checkpoints goes on to the same result."""

import errno
import os
import shutil
import signal

import keras
import numpy as np
import pytest
from cases import room_for

import tfflows as tff
from tfflows import atomic, inference, states
from tfflows.bijectors import sliced
from tfflows.pipelines import write_tfrecord
from tfflows.plot import canvas


def killed_at(n, write):
    """The status of a child process that is killed at its n-th call of the file system which `atomic` makes."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    calls = 0

    def killing(function):
        def call(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls == n:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return call

    try:
        for name in ("fsync", "replace", "open", "close", "mkdir"):
            setattr(os, name, killing(getattr(os, name)))
        atomic._exchange = killing(atomic._exchange)
        shutil.rmtree = killing(shutil.rmtree)
        write()
        os._exit(0)
    except BaseException:
        os._exit(1)


def write_text(text):
    def write(path):
        with atomic.replacing(path) as made:
            made.write_text(text)

    return write


def write_folder(text):
    def write(path):
        with atomic.replacing(path) as made:
            made.mkdir()
            (made / "a").write_text(text)
            (made / "b").mkdir()
            (made / "b" / "c").write_text(text)

    return write


def text_of(path):
    return path.read_text() if path.is_file() else (path / "a").read_text() + (path / "b" / "c").read_text()


def without_exchange(monkeypatch):
    monkeypatch.setattr(atomic, "_exchange", lambda one, other: False)


@pytest.mark.parametrize("kind", ["file", "folder", "folder of two steps"])
def test_a_kill_between_any_two_calls_leaves_the_old_or_the_new(kind, tmp_path, monkeypatch):
    if kind == "folder of two steps":
        without_exchange(monkeypatch)
    path = tmp_path / "x.txt"
    kill, n_missing = 0, 0
    make = write_text if kind == "file" else write_folder
    times = 1 if kind == "file" else 2
    make("old")(path)
    while True:
        kill += 1
        status = killed_at(kill, lambda: make("new")(path))
        if status == 0:
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        if not path.exists():  # between its two steps
            n_missing += 1
            with pytest.raises(RuntimeError), atomic.replacing(path):
                raise RuntimeError  # the next write, even one that fails, puts the old one back
        assert text_of(path) in ("old" * times, "new" * times)
        make("old")(path)
        assert os.listdir(tmp_path) == ["x.txt"]
        assert text_of(path) == "old" * times
    assert kill > 5
    assert n_missing == (1 if kind == "folder of two steps" else 0)
    assert text_of(path) == "new" * times


def test_an_error_leaves_the_old_one_and_nothing_else(tmp_path):
    path = tmp_path / "x.txt"
    write_text("old")(path)

    def failing(error):
        with atomic.replacing(path) as made:
            made.write_text("new")
            raise error

    for error in (KeyboardInterrupt(), ValueError("No space left on device")):
        with pytest.raises(type(error)):
            failing(error)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["x.txt"]
    with pytest.raises(FileNotFoundError, match=str(path)), atomic.replacing(path):
        pass  # writes nothing
    with pytest.raises(FileNotFoundError, match=r"none/x\.txt"), atomic.replacing(tmp_path / "none" / "x.txt"):
        pass


def test_ctrl_c_between_two_steps_puts_the_old_one_back(tmp_path, monkeypatch):
    without_exchange(monkeypatch)
    path, replace, calls = tmp_path / "x", os.replace, []
    write_folder("old")(path)

    def interrupted(*paths):
        calls.append(paths)
        if len(calls) == 2:
            raise KeyboardInterrupt
        replace(*paths)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_folder("new")(path)
    assert len(calls) == 3
    assert text_of(path) == "oldold"
    assert os.listdir(tmp_path) == ["x"]


def test_writers_at_work_are_left_alone(tmp_path):
    path = tmp_path / "x.txt"
    with atomic.replacing(path) as made:
        made.write_text("slow")
        write_text("quick")(path)
        assert path.read_text() == "quick"
        assert made.read_text() == "slow"
    assert path.read_text() == "slow"
    assert os.listdir(tmp_path) == ["x.txt"]


def test_links_permissions_and_devices_stay(tmp_path):
    (tmp_path / "x.txt").write_text("old")
    (tmp_path / "x.txt").chmod(0o640)
    (tmp_path / "link").symlink_to("x.txt")
    write_text("new")(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "x.txt").read_text() == "new"
    assert (tmp_path / "x.txt").stat().st_mode & 0o777 == 0o640
    (tmp_path / "latest.png").symlink_to("x.txt")
    with atomic.replacing(tmp_path / "latest.png") as made:
        assert made.suffix == ".png"  # what a writer goes by
        made.write_text("newer")
    assert (tmp_path / "x.txt").read_text() == "newer"
    with atomic.replacing(os.devnull) as made:
        assert str(made) == os.devnull


@pytest.fixture(scope="module")
def flow():
    return tff.FlowModel(tff.RealNVP(2, n_layers=1, hidden=(8,)))


def rows():
    return np.random.default_rng(0).normal(size=(1000, 2))


WRITERS = {
    "x.keras": lambda flow, path: flow.save(path),
    "x.weights.h5": lambda flow, path: flow.save_weights(path),
    "x": lambda flow, path: flow.export(path, overwrite=True, verbose=False),
    "x.tflite": lambda flow, path: flow.export(path, "litert", overwrite=True, verbose=False),
    "x.npz": lambda flow, path: states.save(path, {"x": rows()}),
    "x.png": lambda flow, path: canvas.save(canvas.new_axes(), path),
    "0000.tfrecord": lambda flow, path: write_tfrecord(path.parent, rows()),
}


@pytest.mark.usefixtures("without_xla")
@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_keeps_the_old_one(name, flow, tmp_path):
    path = tmp_path / name
    WRITERS[name](flow, path)
    old = {str(p): p.read_bytes() for p in [path, *path.rglob("*")] if p.is_file()}
    # TFLite's converter writes elsewhere first.
    says = "too large; what was there is as it was: " + ("" if name == "x.tflite" else f".*{name}")
    with room_for(1000), pytest.raises(OSError, match=says) as raised:
        WRITERS[name](flow, path)
    assert raised.value.errno == errno.EFBIG
    assert old == {str(p): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a folder that nobody can write to")
@pytest.mark.parametrize("name", ["x.keras", "x.npz"])
def test_a_folder_that_is_read_only(name, flow):
    with pytest.raises(OSError, match=f"/proc/{os.getpid()}/{name}"):
        WRITERS[name](flow, f"/proc/self/{name}")


def test_saves_ask_nothing(flow, tmp_path):
    path = tmp_path / "x.weights.h5"
    flow.save_weights(path)
    with pytest.raises(ValueError, match="Expected a path that is free, or overwrite=True"):
        flow.save_weights(path, overwrite=False)
    flow.save(tmp_path / "unzipped", zipped=False)
    flow.save(tmp_path / "unzipped", zipped=False)
    assert (tmp_path / "unzipped" / "config.json").is_file()
    with pytest.raises(ValueError, match="extension"):
        flow.save(tmp_path / "x.txt")
    assert {p.name for p in tmp_path.iterdir()} == {"x.weights.h5", "unzipped"}


def test_keras_writes_its_checkpoints_whole(tmp_path, monkeypatch):
    """By `save` of the model; so a kill in the middle leaves the last one."""
    flow, path = tff.FlowModel(tff.RealNVP(2, n_layers=1, hidden=(8,))), tmp_path / "best.keras"
    keep = keras.callbacks.ModelCheckpoint(path, monitor="loss")
    keep.set_model(flow)
    keep.on_epoch_end(0, {"loss": 1.0})
    old = path.read_bytes()

    def failing(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(atomic, "_swap", failing)
    with pytest.raises(KeyboardInterrupt):
        keep.on_epoch_end(1, {"loss": 0.5})
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == ["best.keras"]


def test_states_that_are_none(tmp_path):
    path = tmp_path / "x.npz"
    rng = np.random.default_rng(3)
    states.save(path, {"generator": rng, "weights": [np.ones(2), np.zeros((2, 1))], "none": [], "x": np.arange(3)})
    found = states.load(path)
    assert found["generator"].random() == rng.random()
    assert [a.shape for a in found["weights"]] == [(2,), (2, 1)]
    assert found["none"] == []
    whole = path.read_bytes()
    np.savez(tmp_path / "objects.npz", x=np.array([print], dtype=object))
    for content in (b"", b"none", whole[:300], whole[:-30], (tmp_path / "objects.npz").read_bytes()):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"Expected a checkpoint of tfflows; got .*x\.npz"):
            states.load(path)


# SINF.


def two_searches(x, path, **kwargs):
    """Weights of a mixture of two SINF flows, whose layers are found one after the other."""
    keras.utils.set_random_seed(0)
    flows = [tff.FlowModel(tff.SINF(2, n_layers=3, n_knots=8, patience=9, **kwargs)) for _ in range(2)]
    flow = tff.FlowMixture(flows)
    flow.adapt(x, checkpoint=path)
    return flow.get_weights()


@pytest.mark.usefixtures("without_xla")
def test_sinf_goes_on_to_the_same_layers(tmp_path, monkeypatch):
    x, path, search = tff.datasets.TwoMoons().sample(200, seed=0), tmp_path / "run.npz", sliced._farthest_from_normal
    whole = two_searches(x, None)
    calls, n_kills = 0, 0

    def killed(*args):
        nonlocal calls
        calls += 1
        if calls in (2, 5, 6):
            raise RuntimeError
        return search(*args)

    monkeypatch.setattr(states, "SECONDS", 0.0)
    monkeypatch.setattr(sliced, "_farthest_from_normal", killed)
    while True:
        try:
            found = two_searches(x, path)
            break
        except RuntimeError:
            n_kills += 1
    assert n_kills == 3
    assert calls == 6 + 3  # none is searched for twice
    for a, b in zip(whole, found, strict=True):
        np.testing.assert_array_equal(a, b)
    # All that it found is there still; and it is of these data and settings.
    two_searches(x, path)
    assert calls == 9
    for other, kwargs in ((x[::-1], {}), (x, {"step": 0.5})):
        with pytest.raises(ValueError, match="Expected a checkpoint of these data and settings"):
            two_searches(other, path, **kwargs)
    states.save(path, {"z": np.zeros(2)})
    with pytest.raises(ValueError, match="Expected a checkpoint of these data and settings"):
        two_searches(x, path)


# Samplers; `preconditioned_smc` is in test_inference.py.


def banana(z):
    return -0.5 * z[:, 0] ** 2 - 2.0 * (z[:, 1] - 0.5 * z[:, 0] ** 2) ** 2


SAMPLERS = {
    "flow_mh": {"n_walkers": 32, "n_rounds": 3, "n_local": 2, "n_global": 1},
    "variational": {"n_steps": 3, "n_particles": 16, "n_rounds": 2},
    "neutra_hmc": {"n_steps": 3, "n_particles": 16, "n_adapt": 100, "jit_compile": False},
}


def sampled(sampler, path, log_prob=banana, **kwargs):
    keras.utils.set_random_seed(0)
    flow = tff.FlowModel(tff.RealNVP(2, n_layers=2, hidden=(4,)))
    settings = {"n_draws": 60, "n_chains": 2, "flow": flow, "verbose": False, **SAMPLERS[sampler], **kwargs}
    return getattr(inference, sampler)(inference.Target(log_prob, 2), checkpoint=path, **settings)


@pytest.mark.usefixtures("without_xla", "quick_samplers")
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samplers_go_on_to_the_same_draws(sampler, tmp_path, monkeypatch):
    path, killed, kept = tmp_path / "run.npz", tmp_path / "killed.npz", []
    swap = atomic._swap

    def keeping(made, path):
        kept.append(made.read_bytes())
        swap(made, path)

    monkeypatch.setattr(atomic, "_swap", keeping)
    whole = sampled(sampler, path)
    killed.write_bytes(kept[1])
    assert len(kept) >= 3
    after = sampled(sampler, killed)
    np.testing.assert_array_equal(whole.draws, after.draws)
    np.testing.assert_array_equal(whole.log_prob, after.log_prob)
    counts = [(r.log_evidence, r.n_evaluations, r.n_gradients) for r in (whole, after)]
    assert counts[0] == counts[1]
    for a, b in zip(whole.flow.get_weights(), after.flow.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="Expected a checkpoint of this target"):
        sampled(sampler, killed, lambda z: 2.0 * banana(z))
    if sampler != "flow_mh":
        with pytest.raises(ValueError, match=r"Expected a checkpoint of seed=5; got .*, of 0"):
            sampled(sampler, killed, seed=5)
    states.save(killed, {"x": np.zeros(2)})
    with pytest.raises(ValueError, match="Expected a checkpoint of"):
        sampled(sampler, killed)
