"""A fit that is killed and goes on from its checkpoint ends as one that is not killed, to the last bit."""

import dataclasses
import os

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfflows import SINF, FlowModel, RealNVP, atomic, callbacks, checkpoints
from tfflows.bases import StudentT
from tfflows.bijectors import ActNorm, Chain

X = np.random.default_rng(0).normal(size=(300, 2)).astype(np.float32) * [1.0, 3.0] + 5.0
CONTEXT = np.random.default_rng(1).normal(size=(300, 4)).astype(np.float32)


class Killed(BaseException):
    """As nothing catches a SIGKILL."""


def pipeline(*, is_counted=True):
    rows = tf.data.Dataset.from_tensor_slices(X.astype(np.float32)).shuffle(300, seed=3)
    return rows.batch(50) if is_counted else rows.filter(lambda row: row[0] < 7.5).batch(50)


def flow(context_net=None, context_dim=None):
    return FlowModel(
        Chain([ActNorm(2), RealNVP(2, n_layers=2, hidden=(4,), context_dim=context_dim)]), context_net=context_net
    )


def adapted():
    # To adapt, a pipeline that repeats itself would be read ahead, by a number of rounds that differs.
    model = flow()
    model.adapt(X)
    return model


def hearing():
    # Noise and moving statistics, which are neither trained nor the optimizer's.
    net = keras.Sequential([keras.layers.Dense(3), keras.layers.BatchNormalization(), keras.layers.Dropout(0.5)])
    return FlowModel(RealNVP(2, n_layers=2, hidden=(4,), context_dim=3), context_net=net, context_shape=(4,))


# The model, its data, arguments of fit, and the number of the writing after which it is killed.
FITS = {
    "by itself": (flow, lambda: (X,), {"batch_size": 64}, 9),
    "in the middle of an epoch": (flow, lambda: (X,), {"epochs": 4, "batch_size": 16, "validation_split": 0.1}, 8),
    "pipeline": (flow, lambda: (pipeline(),), {"epochs": 4, "validation_data": X}, 17),
    "batches unknown": (flow, lambda: (pipeline(is_counted=False),), {"epochs": 4}, 14),
    "one pass": (adapted, lambda: (pipeline().repeat(),), {"epochs": 4, "steps_per_epoch": 4}, 11),
    "after the last epoch": (adapted, lambda: (X,), {"epochs": 2, "batch_size": 64}, 4),
    "noise": (hearing, lambda: (X, CONTEXT), {"epochs": 4, "batch_size": 16, "validation_split": 0.1}, 8),
}


@pytest.fixture(autouse=True)
def _without_xla(without_xla):
    """Nothing here depends on it."""


def fit(make, data, arguments, path=None):
    """What a program does: the model, and the fit."""
    keras.utils.set_random_seed(7)
    model = make()
    model.compile(keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.9), steps_per_execution=7)
    if data()[0] is not X:
        model.compile(keras.optimizers.Adam(0.01))
    plateau = [keras.callbacks.ReduceLROnPlateau("loss", min_delta=0.05, patience=1, min_lr=1e-4)]
    history = model.fit(*data(), checkpoint=path, callbacks=plateau, verbose=0, **arguments)
    return model, history


@pytest.mark.parametrize("name", FITS)
def test_goes_on_as_if_nothing_had_happened(name, tmp_path, monkeypatch):
    make, data, arguments, n_writes = FITS[name]
    path = tmp_path / "run.npz"
    monkeypatch.setattr(checkpoints, "SECONDS", 0.0)
    monkeypatch.setattr(callbacks, "PATIENCE_EPOCHS", (6, 6))
    model, history = fit(make, data, arguments)

    written, write = [], checkpoints.Progress.write

    def write_and_die(self, path):
        write(self, path)
        written.append((self.epoch, self.step))
        if len(written) == n_writes:
            raise Killed

    monkeypatch.setattr(checkpoints.Progress, "write", write_and_die)
    with pytest.raises(Killed):
        fit(make, data, arguments, path)
    again, history_again = fit(make, data, arguments, path)
    assert written[n_writes - 1] > (0, 0), "nothing was to be remembered"
    assert min(epoch for epoch, _ in written[n_writes:]) >= written[n_writes - 1][0]
    assert history_again.history == history.history
    assert history_again.epoch == history.epoch
    for ours, theirs in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_fit_that_is_over_makes_no_step(tmp_path, monkeypatch):
    path = tmp_path / "run.npz"
    model, history = fit(flow, lambda: (X,), {"epochs": 3}, path)
    assert history.history["learning_rate"][-1] < history.history["learning_rate"][0]
    weights = model.get_weights()
    monkeypatch.setattr(FlowModel, "train_step", None)
    again = model.fit(X, epochs=3, checkpoint=path, verbose=0)  # with the learning rate that it has come to
    other, third = fit(flow, lambda: (X,), {"epochs": 3}, path)
    for found, kept in ((again, model), (third, other)):
        assert found.history == history.history
        for ours, theirs in zip(kept.get_weights(), weights, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_more_epochs(tmp_path):
    path = tmp_path / "run.npz"
    _, whole = fit(flow, lambda: (X,), {"epochs": 3})
    fit(flow, lambda: (X,), {"epochs": 2}, path)
    _, history = fit(flow, lambda: (X,), {"epochs": 3}, path)
    assert history.epoch == [0, 1, 2]
    assert history.history["loss"][:2] == whole.history["loss"][:2]


def test_refuses_what_is_not_its_own(tmp_path):
    path = tmp_path / "run.npz"
    fit(flow, lambda: (X,), {"epochs": 1}, path)
    other = X.copy()
    other[17, 1] += 1.0
    for data, arguments, message in (
        ((other,), {"epochs": 1}, r"rows .*there, .* here"),
        ((X[:-1],), {"epochs": 1}, r"rows .*there, .* here"),
        ((X,), {"epochs": 1, "batch_size": 32}, "batch_size 256 there, 32 here"),
        ((X,), {"epochs": None}, "automatic false there, true here"),
    ):
        with pytest.raises(ValueError, match=rf"Expected a checkpoint of this fit, or none; got .*{message}"):
            fit(flow, lambda data=data: data, arguments, path)
    with pytest.raises(ValueError, match=r"weights .*there"):
        fit(lambda: FlowModel(RealNVP(2, n_layers=1)), lambda: (X,), {"epochs": 1}, path)
    # With the same weights another density.
    with pytest.raises(ValueError, match=r"checksum of the config .*there"):
        fit(lambda: FlowModel(flow().bijector, StudentT(2, df=3.0)), lambda: (X,), {"epochs": 1}, path)
    whole = path.read_bytes()
    for content in (b"", b"text", whole[:-100], whole[:50]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"Expected a checkpoint of .*; got .*run\.npz, which is none"):
            fit(flow, lambda: (X,), {"epochs": 1}, path)
        assert path.read_bytes() == content
    np.savez(path, x=X)
    with pytest.raises(ValueError, match="Expected a checkpoint of fit"):
        fit(flow, lambda: (X,), {"epochs": 1}, path)
    FlowModel(SINF(2, n_layers=1)).adapt(X, checkpoint=tmp_path / "search.npz")
    kept = (tmp_path / "search.npz").read_bytes()
    for make in (flow, adapted):
        with pytest.raises(ValueError, match="of a search that is no part of it"):
            fit(make, lambda: (X,), {"epochs": 1}, tmp_path / "search.npz")
    assert (tmp_path / "search.npz").read_bytes() == kept
    with pytest.raises(ValueError, match="Expected a checkpoint in a folder that is there"):
        fit(flow, lambda: (X,), {"epochs": 1}, tmp_path / "none" / "run.npz")


def test_callbacks_take_up_what_their_class_remembered(tmp_path):
    """Others may have come before them."""

    class Other(keras.callbacks.EarlyStopping):
        pass

    def stopping(kind=keras.callbacks.EarlyStopping):
        return kind(monitor="loss", min_delta=1e3, patience=100)

    first, again = stopping(), stopping()
    flow().fit(X, epochs=2, callbacks=[first], checkpoint=tmp_path / "run.npz", verbose=0)
    flow().fit(X, epochs=3, callbacks=[stopping(Other), again], checkpoint=tmp_path / "run.npz", verbose=0)
    assert again.best == first.best
    assert again.wait == first.wait + 1


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a folder that nobody can write to")
def test_a_path_that_cannot_be_written_is_refused_before_training():
    model = flow()
    with pytest.raises(OSError, match=f"/proc/{os.getpid()}/run.npz"):
        model.fit(X, epochs=1, checkpoint="/proc/self/run.npz", verbose=0)
    assert model.optimizer.iterations == 0


def test_a_result_is_read_where_nobody_can_write(tmp_path, monkeypatch):
    whole = flow().fit(X, epochs=1, checkpoint=tmp_path / "run.npz", verbose=0)

    def refuses(path):
        raise PermissionError

    monkeypatch.setattr(atomic, "check_writable", refuses)
    assert flow().fit(X, epochs=1, checkpoint=tmp_path / "run.npz", verbose=0).history == whole.history


def test_a_progress_is_whole_in_its_file(tmp_path):
    progress = checkpoints.Progress(
        {"a": [1]}, 1, 2, True, epoch=3, history={"loss": [float("nan"), 1.0]}, arrays={"model/0": X}
    )
    progress.write(tmp_path / "run.npz")
    again = checkpoints.read(tmp_path / "run.npz", tf.distribute.get_strategy())
    np.testing.assert_array_equal(again.arrays["model/0"], X)
    assert str(dataclasses.replace(again, arrays={})) == str(dataclasses.replace(progress, arrays={}))
    assert checkpoints.read(tmp_path / "other.npz", tf.distribute.get_strategy()) is None
    assert [path.name for path in tmp_path.iterdir()] == ["run.npz"]
