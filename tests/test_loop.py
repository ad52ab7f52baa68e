"""Many steps in one compiled call: the same fit as step by step, with all that Keras promises of `fit`."""

import io
from contextlib import redirect_stdout

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import CountedLoss

import tfflows as tff
from tfflows import FlowModel, batching, loop, losses

X = np.random.default_rng(0).normal(3.0, 2.0, size=(300, 2)).astype(np.float32)


def small_flow(**kwargs):
    return FlowModel(tff.RealNVP(2, n_layers=2, hidden=(8,), **kwargs))


def fit(steps_per_execution, jit_compile=True, **kwargs):
    keras.utils.set_random_seed(3)
    flow = small_flow()
    optimizer = keras.optimizers.Adam(1e-2, global_clipnorm=5.0)
    flow.compile(optimizer, steps_per_execution=steps_per_execution, jit_compile=jit_compile)
    history = flow.fit(X, epochs=3, batch_size=32, verbose=0, **kwargs).history
    return flow, history


@pytest.mark.parametrize("weight", [None, np.linspace(0.0, 2.0, 300)], ids=["plain", "weighted"])
def test_the_same_fit_whatever_the_steps_of_a_call(weight):
    flow, history = fit(1, sample_weight=weight, validation_split=0.1)
    for other, other_history in (
        fit(4, sample_weight=weight, validation_split=0.1),
        fit(None, sample_weight=weight, validation_split=0.1),
        fit(None, jit_compile=False, sample_weight=weight, validation_split=0.1),
    ):
        for name in ("loss", "val_loss"):
            np.testing.assert_allclose(other_history[name], history[name], rtol=1e-4)
        for a, b in zip(other.weights, flow.weights, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4)
        assert int(other.optimizer.iterations) == int(flow.optimizer.iterations) == 3 * 9


def test_the_same_fit_as_keras_on_a_pipeline():
    """In order and without filled batches, a dataset of the same batches must give the same weights."""
    rows = X[:288]
    keras.utils.set_random_seed(3)
    flow = small_flow()
    flow.fit(rows, epochs=3, batch_size=32, shuffle=False, verbose=0)
    keras.utils.set_random_seed(3)
    other = small_flow()
    other.fit(tf.data.Dataset.from_tensor_slices(rows).batch(32), epochs=3, verbose=0)
    for a, b in zip(other.weights, flow.weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


class Batches(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(batch)
        assert np.isfinite(logs["loss"])


@pytest.mark.usefixtures("without_xla")
def test_batch_callbacks_hear_every_step_unless_told_otherwise():
    batches = Batches()
    flow = small_flow()
    flow.fit(X, epochs=2, batch_size=100, callbacks=[batches], verbose=0)
    assert batches.seen == [0, 1, 2] * 2
    seen = []
    flow.fit(
        X,
        epochs=1,
        batch_size=100,
        callbacks=[keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(batch))],
        verbose=0,
    )
    assert seen == [0, 1, 2]
    flow.compile(steps_per_execution=2)
    batches.seen.clear()
    flow.fit(X, epochs=1, batch_size=50, callbacks=[batches], verbose=0)
    assert batches.seen == [1, 3, 5]


@pytest.mark.usefixtures("without_xla")
def test_progress_bar_counts_steps():
    text = io.StringIO()
    with redirect_stdout(text):
        small_flow().fit(X, epochs=1, batch_size=50, verbose=2)
        flow = small_flow()
        flow.compile(steps_per_execution=4)
        flow.fit(X, epochs=1, batch_size=50, verbose=1)
    assert text.getvalue().count("6/6") >= 2
    assert "4/6" in text.getvalue()
    assert "8/6" not in text.getvalue()


def test_a_bad_step_ends_the_call_and_is_left_out():
    """One row far outside what float32 can square stands in the last batch of an epoch made in one call."""

    class OnlySmall(losses.NegativeLogLikelihood):
        def __call__(self, flow, x, context):
            return tf.where(x[:, 0] > 100.0, np.nan, super().__call__(flow, x, context))

    x = np.concatenate([X[:250], [[1e3, 0.0]]]).astype(np.float32)
    flow = small_flow()
    flow.compile(keras.optimizers.Adam(1e-2), OnlySmall())
    with pytest.raises(FloatingPointError, match=r"in epoch 1 of 2, batch 3\."):
        flow.fit(x, epochs=2, batch_size=100, shuffle=False, verbose=0)
    assert int(flow.optimizer.iterations) == 2
    assert all(np.all(np.isfinite(w)) for w in flow.weights)


def test_fits_of_similar_size_compile_once():
    loss = CountedLoss()
    flow = small_flow()
    flow.compile(loss=loss)
    for n in (260, 270, 290, 300):
        flow.fit(X[:n], epochs=1, batch_size=64, verbose=0)
    assert loss.n_traces == 1


@pytest.mark.usefixtures("without_xla")
def test_changed_learning_rate_is_heard():
    flow = small_flow()
    flow.compile(keras.optimizers.SGD(0.0))
    before = [w.numpy() for w in flow.trainable_weights]
    flow.fit(X, epochs=1, verbose=0)
    for a, b in zip(flow.trainable_weights, before, strict=True):
        np.testing.assert_array_equal(a, b)
    schedule = keras.callbacks.LearningRateScheduler(lambda epoch, rate: 1e-2)
    flow.fit(X, epochs=1, callbacks=[schedule], verbose=0)
    assert any(np.any(a.numpy() != b) for a, b in zip(flow.trainable_weights, before, strict=True))


def test_steps_of_a_call():
    assert loop.default_steps(100, 256, 10) == 100
    assert loop.default_steps(100_000, 256, 10) == loop.MAX_STEPS_PER_CALL
    assert loop.default_steps(1000, 8192, 10_000_000) == 1
    assert 1 <= loop.default_steps(7, 512, 200_000) <= 7
    for bad in (0, "auto"):
        with pytest.raises(ValueError, match=f"Expected a whole number steps_per_execution >= 1; got {bad!r}"):
            small_flow().compile(steps_per_execution=bad)


def test_round_up():
    sizes = {batching.round_up(n) for n in range(1, 100_000)}
    assert all(n <= batching.round_up(n) <= max(n + 1, 1.25 * n) for n in range(1, 5000))
    assert len(sizes) < 70
