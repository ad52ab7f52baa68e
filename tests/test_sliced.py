"""SINF: layers found without gradients."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

import tfflows as tff
from tfflows import FlowModel
from tfflows.bijectors import sliced
from tfflows.bijectors.sliced import _distance, _farthest_from_normal
from tfflows.numerics import kernel_density, weighted_quantile

MOONS = tff.datasets.TwoMoons()


def small(n_dim=2, **kwargs):
    return FlowModel(tff.SINF(n_dim, **{"n_layers": 40, "n_knots": 16, **kwargs}))


@pytest.mark.usefixtures("without_xla")
def test_fit_runs_it_and_beats_a_normal(tmp_path, capsys):
    x, test = MOONS.sample(1000, seed=0), MOONS.sample(4000, seed=1)
    flow = small()
    assert flow.bijector.needs_adapt
    history = flow.fit(x, verbose=0)
    assert capsys.readouterr().out == ""
    assert len(history.history["loss"]) == 1
    assert not flow.trainable_weights
    normal = 0.5 * np.linalg.slogdet(2.0 * np.pi * np.e * np.cov(test.T))[1]
    nll = flow.evaluate(test, verbose=0)
    assert nll < normal - 0.4
    assert flow.bijector.bijectors[1].n_found > 5
    z = flow.encode(test)
    np.testing.assert_allclose(flow.decode(z), test, atol=1e-3)
    flow.save(tmp_path / "sinf.keras")
    again = keras.saving.load_model(tmp_path / "sinf.keras")
    assert not again.bijector.needs_adapt
    np.testing.assert_array_equal(again.log_prob(test), flow.log_prob(test))
    draws = flow.sample(4000, seed=0)
    assert abs(-np.mean(MOONS.log_prob(draws.numpy())) + np.mean(MOONS.log_prob(test))) < 1.5


@pytest.mark.usefixtures("without_xla")
def test_ctrl_c_keeps_the_layers_that_are_found(monkeypatch):
    x = MOONS.sample(300, seed=0)
    flow, search, calls = small(), sliced._farthest_from_normal, []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return search(*args)

    monkeypatch.setattr(sliced, "_farthest_from_normal", interrupted)
    with pytest.raises(KeyboardInterrupt):
        flow.fit(x, verbose=0)
    assert 1 <= flow.bijector.bijectors[1].n_found <= 5
    assert not flow.bijector.needs_adapt
    assert flow.evaluate(x, verbose=0) < 0.5 * np.linalg.slogdet(2.0 * np.pi * np.e * np.cov(x.T))[1]


def test_ctrl_c_before_the_first_layer_leaves_all_to_the_next_fit(monkeypatch):
    flow = small()

    def interrupted(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(sliced, "_farthest_from_normal", interrupted)
        with pytest.raises(KeyboardInterrupt):
            flow.adapt(MOONS.sample(100, seed=0))
    assert flow.bijector.needs_adapt


@pytest.mark.usefixtures("without_xla")
def test_same_seed_same_layers_and_more_fits_change_nothing():
    x = MOONS.sample(300, seed=0)
    first, second = small(n_layers=5, seed=3), small(n_layers=5, seed=3)
    for flow in (first, second):
        flow.adapt(x)
    np.testing.assert_array_equal(first.log_prob(x), second.log_prob(x))
    before = first.log_prob(x)
    first.fit(x, verbose=0)
    np.testing.assert_array_equal(first.log_prob(x), before)


@pytest.mark.usefixtures("without_xla")
def test_normal_data_need_no_layers():
    x = np.random.default_rng(0).normal(size=(2000, 3)).astype(np.float32)
    flow = small(3, patience=5)
    flow.fit(x, verbose=0)
    truth = 1.5 * np.log(2.0 * np.pi * np.e)
    assert flow.evaluate(x, verbose=0) == pytest.approx(truth, abs=0.05)


@pytest.mark.usefixtures("without_xla")
def test_weights_count_as_repeated_rows():
    """Rows of weight zero are as if they were not there; the fit is drawn to where the weight is."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(-3.0, 0.5, 1500), rng.normal(3.0, 0.5, 1500)])[:, None].astype(np.float32)
    weight = np.where(x[:, 0] < 0.0, 0.25, 0.75)
    flow = small(1)
    flow.fit(x, sample_weight=weight, verbose=0)
    draws = flow.sample(5000, seed=0).numpy()
    assert np.mean(draws > 0.0) == pytest.approx(0.75, abs=0.04)
    only = small(1)
    only.fit(x, sample_weight=(x[:, 0] < 0.0).astype(float), verbose=0)
    assert np.mean(only.sample(2000, seed=0).numpy() < 0.0) > 0.99


@pytest.mark.usefixtures("without_xla")
def test_fine_tuning_goes_on_by_gradient():
    x = MOONS.sample(1000, seed=0)
    flow = small(n_layers=8, fine_tune=True)
    flow.adapt(x)
    before = flow.evaluate(x, verbose=0)
    flow.compile(keras.optimizers.Adam(3e-3))
    flow.fit(x, epochs=10, verbose=0)
    assert flow.evaluate(x, verbose=0) < before - 0.02
    np.testing.assert_allclose(flow.decode(flow.encode(x)), x, atol=1e-3)


@pytest.mark.usefixtures("without_xla")
def test_progress_is_shown(capsys):
    small(n_layers=3).fit(MOONS.sample(100, seed=0), verbose=1)
    assert "held_out_log_prob" in capsys.readouterr().out


def test_direction_of_a_hidden_bimodal_axis_is_found():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4000, 6))
    axis = np.array([1.0, -2.0, 0.5, 0.0, 1.0, 3.0])
    axis /= np.linalg.norm(axis)
    along = np.sign(rng.normal(size=4000)) + 0.3 * rng.normal(size=4000)
    x += np.outer(along / np.sqrt(1.09) - x @ axis, axis)
    weight = np.full(4000, 1 / 4000)
    found = _farthest_from_normal(x, weight, 1, rng)
    assert abs(found[:, 0] @ axis) > 0.95
    np.testing.assert_allclose(np.linalg.norm(found), 1.0)


def test_gradient_of_the_distance():
    rng = np.random.default_rng(0)
    x, a = rng.exponential(size=(50, 3)), np.linalg.qr(rng.normal(size=(3, 2)))[0]
    weight = rng.uniform(size=50)
    weight /= weight.sum()
    push = 1e-6 * rng.normal(size=a.shape)
    slope = (_distance(x, weight, a + push)[0] - _distance(x, weight, a - push)[0]) / 2.0
    assert slope == pytest.approx(np.sum(_distance(x, weight, a)[1] * push), rel=1e-4)


def test_quantiles_and_kernels_equal_numpy_and_scipy():
    rng = np.random.default_rng(0)
    x = rng.normal(size=400)
    equal = np.full(400, 1 / 400)
    levels = np.linspace(0.1, 0.9, 9)
    np.testing.assert_allclose(weighted_quantile(x, equal, levels), np.quantile(x, levels, method="hazen"), atol=1e-12)
    at = np.linspace(-2.0, 2.0, 7)
    density, cumulative = kernel_density(x, equal, at, 0.3)
    np.testing.assert_allclose(density, stats.norm.pdf(at[:, None], x, 0.3).mean(axis=1), atol=1e-12)
    np.testing.assert_allclose(cumulative, stats.norm.cdf(at[:, None], x, 0.3).mean(axis=1), atol=1e-12)


@pytest.mark.usefixtures("without_xla")  # for what is compared with
def test_runs_in_a_gradient_tape_of_xla():
    """The way through the layers is a loop whose length is a weight."""
    flow = small(n_layers=4)
    flow.adapt(MOONS.sample(200, seed=0))

    @tf.function(jit_compile=True)
    def score(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = flow.log_prob(x)
        return tape.gradient(value, x)

    x = tf.constant(MOONS.sample(5, seed=2), tf.float32)
    step = np.array([1e-2, 0.0], np.float32)
    expected = (flow.log_prob(x + step) - flow.log_prob(x - step)) / 2e-2
    np.testing.assert_allclose(score(x)[:, 0], expected, rtol=0.15, atol=0.3)


def test_too_few_rows():
    with pytest.raises(ValueError, match="at least 10 rows"):
        small().fit(np.zeros([5, 2]) + np.arange(5)[:, None], epochs=1, verbose=0)
