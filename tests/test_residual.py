"""Contractions: their bound, their log-dets, gradients through the fixed point; planar flows that fit and sample."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import HIDDEN, C, context, points, randomise

import tfflows as tff
from tfflows import FlowModel
from tfflows import bijectors as tfb
from tfflows.bijectors import normalization
from tfflows.nets import LipschitzMLP
from tfflows.numerics import log_det_of_positive, spectral_norm_bound
from tfflows.randomness import random_signs, training_randomness


@pytest.mark.parametrize("shape", [(5, 5), (3, 40), (40, 3), (64, 64), (1, 7)])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e6])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_norm_bound_is_above_the_norm_and_near(shape, scale, dtype, rng):
    matrix = (scale * rng.normal(size=shape)).astype(dtype)
    norm = np.linalg.norm(matrix.astype(np.float64), 2)
    found = float(spectral_norm_bound(tf.constant(matrix)))
    assert norm <= found <= 1.07 * norm
    orthogonal = np.linalg.qr(rng.normal(size=(64, 64)))[0]  # the worst case
    assert 1.0 <= float(spectral_norm_bound(tf.constant(orthogonal))) <= 1.07


@pytest.mark.parametrize("activation", ["lipswish", "tanh", "softplus"])
def test_contraction_is_enforced_whatever_the_weights(float64, activation, rng):
    net = LipschitzMLP(4, (16, 16), 0.9, activation)
    randomise(tfb.Residual(net), 10.0)
    x = tf.constant(rng.normal(size=(500, 4)))
    _, push = net.linearize(x)
    jacobians = np.transpose(push(tf.eye(4, dtype=tf.float64)[:, tf.newaxis, :]), [1, 2, 0])
    largest = np.max(np.linalg.norm(jacobians, 2, axis=(1, 2)))
    assert largest <= 0.9
    y = tf.constant(rng.normal(size=(500, 4)))
    ratio = np.linalg.norm(net(x) - net(y), axis=1) / np.linalg.norm(x - y, axis=1)
    assert np.max(ratio) <= 0.9


def test_contraction_is_enforced_during_a_fit():
    x = tff.datasets.TwoMoons().sample(500, seed=0)
    flow = FlowModel(tff.InvertibleResNet(2, n_layers=2, hidden=(16, 16)))
    flow.compile(keras.optimizers.Adam(0.1))  # so fast that an unenforced bound would break
    flow.fit(x, epochs=10, verbose=0)
    z = flow.encode(x)
    np.testing.assert_allclose(flow.decode(z), x, atol=1e-3)


def test_log_det_by_elimination(rng):
    matrix = rng.normal(size=(20, 6, 6))
    matrix = np.eye(6) + 0.9 * matrix / np.linalg.norm(matrix, 2, axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(log_det_of_positive(tf.constant(matrix)), np.linalg.slogdet(matrix)[1], atol=1e-12)


def residual(log_det, coefficient=0.95):
    keras.utils.set_random_seed(1)
    return randomise(tfb.Residual(LipschitzMLP(3, (8, 8), coefficient), log_det=log_det), 3.0)


def test_series_converges_to_the_exact_log_det():
    matrix = np.array([[0.6, 0.3, 0.0], [0.1, 0.5, -0.2], [0.0, 0.2, -0.4]])
    matrix *= 0.8 / np.linalg.norm(matrix, 2)
    x = tf.zeros([4, 3], tf.float64)

    def push(directions):
        return tf.einsum("knd,ed->kne", directions, matrix) + tf.zeros_like(x)

    exact = np.linalg.slogdet(np.eye(3) + matrix)[1]
    np.testing.assert_allclose(tfb.ExactLogDet()(push, x), exact, atol=1e-12)
    # With signs drawn for many probes the trace is nearly exact; what is left is their noise.
    np.testing.assert_allclose(tfb.PowerSeries(60, n_probes=100_000)(push, x), exact, atol=0.01)
    trace, square = np.trace(matrix), np.trace(matrix @ matrix)
    np.testing.assert_allclose(tfb.PowerSeries(2, n_probes=100_000)(push, x), trace - square / 2.0, atol=0.01)
    assert abs(exact - trace + square / 2.0) > 0.03


@pytest.mark.parametrize("log_det", [tfb.RussianRoulette(1, 30), tfb.PowerSeries(60)], ids=str)
def test_estimators_have_the_right_mean_and_repeat_outside_training(float64, log_det):
    exact, estimate = residual(tfb.ExactLogDet()), residual(log_det)
    x = tf.constant(points(exact, (50,)))
    np.testing.assert_array_equal(estimate.inverse_and_log_det(x)[1], estimate.inverse_and_log_det(x)[1])
    np.testing.assert_allclose(estimate.inverse_and_log_det(x[3:5])[1], estimate.inverse_and_log_det(x)[1][3:5])

    @tf.function(jit_compile=True, autograph=False)
    def draw(seed):
        with training_randomness(seed):
            return tf.reduce_mean(estimate.inverse_and_log_det(x)[1])

    draws = np.array([draw(tf.constant([7, i])) for i in range(1500)])
    truth = np.mean(exact.inverse_and_log_det(x)[1])
    assert np.std(draws) > 0.0
    assert abs(np.mean(draws) - truth) < 4.0 * np.std(draws) / np.sqrt(len(draws))


def test_roulette_is_exact_outside_training_in_few_dimensions_only(float64):
    few = [tff.ResidualFlow(3, n_layers=1, hidden=(6,), log_det=log_det) for log_det in (None, tfb.ExactLogDet())]
    for bijector in few:
        randomise(bijector)
    x = points(few[0], (20,))
    estimate, exact = (bijector.inverse_and_log_det(x)[1] for bijector in few)
    np.testing.assert_allclose(estimate, exact, rtol=1e-12)
    many = [tff.ResidualFlow(12, n_layers=1, hidden=(12,), log_det=log_det) for log_det in (None, tfb.ExactLogDet())]
    for bijector in many:
        randomise(bijector)
    x = points(many[0], (3000,))
    error = many[0].inverse_and_log_det(x)[1].numpy() - many[1].inverse_and_log_det(x)[1].numpy()
    # An error of its own for each row, which averages out.
    assert np.std(error) > 0.01
    assert abs(np.mean(error)) < 4.0 * np.std(error) / np.sqrt(len(error))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_signs_of_rows_are_their_own_and_unrelated(rng, dtype):
    for x in (rng.normal(size=(20_000, 3)), np.linspace(-300.0, 300.0, 20_000)[:, None] * np.ones(3)):
        x = tf.constant(x, dtype)
        signs = random_signs(x, 2).numpy()
        assert signs.shape == (2, 20_000, 3)
        assert set(np.unique(signs)) == {-1.0, 1.0}
        np.testing.assert_array_equal(random_signs(x[5:9], 2), signs[:, 5:9])
        np.testing.assert_array_equal(tf.function(random_signs, jit_compile=True)(x[:9], 2), signs[:, :9])
        columns = signs.transpose(0, 2, 1).reshape(6, -1)
        assert np.abs(np.mean(columns, axis=1)).max() < 0.04
        assert np.abs(np.corrcoef(columns) - np.eye(6)).max() < 0.04


def test_gradients_through_the_fixed_point_equal_differences(float64, rng):
    bijector = randomise(tfb.Residual(LipschitzMLP(3, (6,), 0.8), C))
    z, c = tf.constant(points(bijector, (4,))), tf.constant(context(bijector, (4,)))
    weight = bijector.layers[0].trainable_weights[0]

    @tf.function(jit_compile=True, autograph=False)
    def objective(z, c):
        x, log_det = bijector.forward_and_log_det(z, c)
        return tf.reduce_sum(tf.sin(x)) + tf.reduce_sum(log_det)

    with tf.GradientTape() as tape:
        tape.watch([z, c])
        value = objective(z, c)
    found = tape.gradient(value, [z, c, weight.value])
    pushes = [1e-6 * rng.normal(size=v.shape) for v in (z, c, weight)]
    expected = [objective(z + pushes[0], c) - objective(z - pushes[0], c)]
    expected.append(objective(z, c + pushes[1]) - objective(z, c - pushes[1]))
    before = weight.numpy()
    values = []
    for sign in (1.0, -1.0):
        weight.assign(before + sign * pushes[2])
        values.append(objective(z, c))
    expected.append(values[0] - values[1])
    for gradient, push, difference in zip(found, pushes, expected, strict=True):
        assert 2.0 * np.sum(gradient * push) == pytest.approx(float(difference), rel=1e-5)


@pytest.mark.parametrize(
    ("preset", "n_layers", "jit_compile"),
    [(tff.Planar, 8, True), (tff.Radial, 8, False), (tff.Sylvester, 4, False), (tff.GaussianizationFlow, 2, False)],
)
def test_small_flows_fit_and_sample(preset, n_layers, jit_compile, rng):
    """Two lumps, which no normal fits."""
    x = np.concatenate([rng.normal([-2.0, 0.0], 0.5, (500, 2)), rng.normal([2.0, 1.0], 0.5, (500, 2))])
    x = x.astype(np.float32)
    keras.utils.set_random_seed(0)
    flow = FlowModel(preset(2, n_layers=n_layers))
    flow.compile(keras.optimizers.Adam(1e-2), jit_compile=jit_compile)
    flow.fit(x, epochs=40, verbose=0)
    normal = 0.5 * np.linalg.slogdet(2.0 * np.pi * np.e * np.cov(x.T))[1]
    assert flow.evaluate(x, verbose=0) < normal - 0.15
    draws, log_prob = flow.sample_and_log_prob(2000, seed=0)
    np.testing.assert_allclose(log_prob, flow.log_prob(draws), atol=1e-3)
    np.testing.assert_allclose(np.mean(draws, axis=0), np.mean(x, axis=0), atol=0.35)


@pytest.mark.usefixtures("without_xla")
def test_adapting_twice_is_adapting_once_and_enough_rows_are_passed_on(rng, monkeypatch):
    x = rng.normal(2.0, 3.0, (5000, 3)).astype(np.float32)
    flow = FlowModel(tff.InvertibleResNet(3, n_layers=2, hidden=HIDDEN))
    randomise(flow.bijector)
    flow.adapt(x)
    first = flow.log_prob(x)
    z = flow.bijector.bijectors[1].inverse(flow.bijector.bijectors[0].inverse(x))
    np.testing.assert_allclose(np.std(z, axis=0), 1.0, rtol=1e-4)  # of the first ActNorm
    flow.adapt(x)
    np.testing.assert_allclose(flow.log_prob(x), first, atol=1e-4)
    seen = []
    monkeypatch.setattr(normalization, "ENOUGH_VALUES", 1000)
    adapt = normalization.ActNorm.adapt
    monkeypatch.setattr(normalization.ActNorm, "adapt", lambda self, x, *a, **k: (seen.append(len(x)), adapt(self, x)))
    flow.adapt(x)
    assert seen == [1000, 1000]
    np.testing.assert_allclose(np.mean(flow.log_prob(x)), np.mean(first), atol=0.2)
