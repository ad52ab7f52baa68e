"""Scalar maps: independent oracles, identity at zero, edges and knots."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from cases import TRANSFORMERS
from scipy import integrate

from tfflows.transformers import Bernstein, RationalQuadraticSpline

ALL = pytest.mark.parametrize("name", TRANSFORMERS)


def random_inputs(transformer, n=2000, scale=1.0, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    params = scale * rng.normal(size=(transformer.n_parameters, n))
    x = np.clip(1.5 * rng.normal(size=n), -3.1, 3.1)
    return tf.constant(x, dtype), tf.constant(params, dtype)


def spline_knots(spline, logits):
    """Of `logits` `[K, n]`, in NumPy: `[n, K + 1]`."""
    logits = np.asarray(logits).T
    half = 0.5 * np.log(spline.max_bin_ratio)
    shares = np.exp(logits / (1.0 + np.abs(logits) / half))
    shares = shares / shares.sum(axis=1, keepdims=True)
    sizes = 2.0 * spline.bound * (spline.min_bin + (1.0 - spline.n_bins * spline.min_bin) * shares)
    knots = np.pad(np.cumsum(sizes, axis=1), [(0, 0), (1, 0)]) - spline.bound
    knots[:, -1] = spline.bound
    return knots.astype(logits.dtype)


@ALL
def test_round_trip_and_derivative(name):
    transformer = TRANSFORMERS[name]
    x, params = random_inputs(transformer, scale=2.0)
    with tf.GradientTape() as tape:
        tape.watch(x)
        z, log_det = transformer.inverse_and_log_det(x, params)
    np.testing.assert_allclose(log_det, np.log(tape.gradient(z, x)), atol=1e-8)
    again, forward_log_det = transformer.forward_and_log_det(z, params)
    np.testing.assert_allclose(again, x, atol=1e-9)
    np.testing.assert_allclose(forward_log_det, -log_det, atol=1e-8)
    with tf.GradientTape() as tape:
        tape.watch(z)
        x_of_z, forward_log_det = transformer.forward_and_log_det(z, params)
    np.testing.assert_allclose(forward_log_det, np.log(tape.gradient(x_of_z, z)), atol=1e-6)


@ALL
def test_zero_parameters_mean_identity(name):
    transformer = TRANSFORMERS[name]
    x, params = random_inputs(transformer, scale=0.0)
    for method in (transformer.forward_and_log_det, transformer.inverse_and_log_det):
        y, log_det = method(x, params)
        np.testing.assert_allclose(y, x, atol=1e-12)
        np.testing.assert_allclose(log_det, 0.0, atol=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float64, 1e-11)])
def test_spline_equals_tfp(dtype, tolerance):
    """The map from data to latent is TFP's forward direction, given the same knots."""
    spline = RationalQuadraticSpline(n_bins=6, bound=3.0)
    x, params = random_inputs(spline, dtype=dtype)
    k = spline.n_bins
    widths, heights = (np.diff(spline_knots(spline, p), axis=-1) for p in (params[:k], params[k : 2 * k]))
    bound = np.log(1.0 / spline.min_slope)
    raw = tf.transpose(params[2 * k :])
    theirs = tfp.bijectors.RationalQuadraticSpline(widths, heights, tf.exp(raw / (1.0 + tf.abs(raw) / bound)), -3.0)
    z, log_det = spline.inverse_and_log_det(x, params)
    np.testing.assert_allclose(z, theirs.forward(x), atol=tolerance)
    np.testing.assert_allclose(log_det, theirs.forward_log_det_jacobian(x, 0), atol=10 * tolerance)
    np.testing.assert_allclose(spline.forward_and_log_det(z, params)[0], x, atol=50 * tolerance)


@pytest.mark.parametrize("circular", [False, True])
def test_spline_is_smooth_at_knots_ends_and_seam(circular):
    spline = RationalQuadraticSpline(n_bins=4, bound=2.0, circular=circular)
    _, params = random_inputs(spline, n=1)
    inner = spline_knots(spline, params[:4])[0]
    step = 1e-7
    for knot in inner:
        (left, right), log_det = spline.inverse_and_log_det(
            tf.constant([knot - step, knot + step]), tf.repeat(params, 2, axis=1)
        )
        gap = float(right - left) % 4.0 if circular else float(right - left)
        assert 0.0 < gap < 1e-3
        assert abs(float(log_det[0] - log_det[1])) < 1e-3


@pytest.mark.parametrize("method", ["forward_and_log_det", "inverse_and_log_det"])
@pytest.mark.parametrize("n_bins", [1, 4])
@pytest.mark.parametrize("circular", [False, True])
def test_spline_gradients_equal_finite_differences(circular, n_bins, method):
    """They are written by hand: first ones of x and of every parameter, and second ones."""
    spline = RationalQuadraticSpline(n_bins=n_bins, bound=2.5, circular=circular)
    x, params = random_inputs(spline, n=5, seed=3)

    def first(x, params):
        with tf.GradientTape() as tape:
            tape.watch([x, params])
            y, log_det = getattr(spline, method)(x, params)
            total = tf.reduce_sum(tf.sin(y) + log_det**2)
        return tape.gradient(total, [x, params])

    functions = [
        lambda x, params: tf.stack(getattr(spline, method)(x, params)),
        lambda x, params: first(x, params)[0],
        lambda x, params: first(x, params)[1],
    ]
    # Points do not hear of each other, so one difference, or one gradient of a sum, does for all of them.
    inputs, step = tf.concat([x[tf.newaxis], params], axis=0), 1e-5
    for function in functions:

        def of(v, function=function):
            return tf.reshape(function(v[0], v[1:]), [-1, v.shape[1]])

        with tf.GradientTape(persistent=True) as tape:
            tape.watch(inputs)
            rows = tf.unstack(of(inputs))
        exact = np.stack([tape.gradient(row, inputs) for row in rows])
        pushes = step * np.eye(len(inputs))[:, :, np.newaxis]
        numerical = np.stack([(of(inputs + push) - of(inputs - push)) / (2.0 * step) for push in pushes], axis=1)
        np.testing.assert_allclose(exact, numerical, atol=2e-5, rtol=1e-5)


def test_circular_spline_wraps():
    spline = TRANSFORMERS["rq_spline_circular"]
    x, params = random_inputs(spline)
    turned, log_det = spline.inverse_and_log_det(x + 4.0 * np.pi, params)
    z, expected = spline.inverse_and_log_det(x, params)
    np.testing.assert_allclose(turned, z, atol=1e-9)
    np.testing.assert_allclose(log_det, expected, atol=1e-9)
    assert np.all((z >= -np.pi) & (z < np.pi))


@pytest.mark.parametrize("scale", [1.0, 3.0, 30.0])
@ALL
def test_float32_is_finite_at_knots_edges_and_far_out(name, scale):
    transformer = TRANSFORMERS[name]
    _, params = random_inputs(transformer, n=40, scale=scale, dtype=np.float32)
    far = np.array([0.0, 3.0, -3.0, np.pi, -np.pi, 1e4, -1e4, 1e-30], np.float32)
    values = np.tile(far, (40, 1))
    if isinstance(transformer, RationalQuadraticSpline):
        k = transformer.n_bins
        for logits in (params[:k], params[k : 2 * k]):
            edges = spline_knots(transformer, logits)
            values = np.concatenate([values, edges], axis=1)
    x = tf.constant(values)
    repeated = tf.repeat(tf.transpose(params)[..., None], x.shape[1], axis=2)
    for method in (transformer.forward_and_log_det, transformer.inverse_and_log_det):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch([x, repeated])
            y, log_det = method(x, repeated)
        for result in (y, log_det, *(tape.gradient(v, w) for v in (y, log_det) for w in (x, repeated))):
            assert result is None or np.all(np.isfinite(result))


@pytest.mark.parametrize(("scale", "tolerance"), [(1.0, 1e-4), (3.0, 1e-3)])
@ALL
def test_float32_round_trip_of_steep_and_flat_maps(name, scale, tolerance):
    transformer = TRANSFORMERS[name]
    x, params = random_inputs(transformer, n=5000, scale=scale, dtype=np.float32)
    again = transformer.forward_and_log_det(transformer.inverse_and_log_det(x, params)[0], params)[0]
    assert float(tf.reduce_max(tf.abs(again - x))) < tolerance


@pytest.mark.parametrize(("scale", "tolerance"), [(1.0, 3e-5), (3.0, 2e-3)])
def test_spline_float32_round_trip_beats_the_field(scale, tolerance):
    """zuko, the best of seven libraries, loses 3e-5 and 2e-2 on the same draws: 8 bins on [-5, 5], 20,000 points."""
    spline = RationalQuadraticSpline()
    rng = np.random.default_rng(0)
    params = tf.constant(rng.normal(0.0, scale, (spline.n_parameters, 20_000)), tf.float32)
    x = tf.constant(rng.uniform(-5.0, 5.0, 20_000), tf.float32)
    z, _ = spline.inverse_and_log_det(x, params)
    assert float(tf.reduce_max(tf.abs(spline.forward_and_log_det(z, params)[0] - x))) < tolerance


def test_spline_derivative_integrates_to_the_interval():
    spline = RationalQuadraticSpline(n_bins=5, bound=3.0)
    _, params = random_inputs(spline, n=1)
    x = np.linspace(-3.0, 3.0, 200_001)
    _, log_slope = spline.inverse_and_log_det(tf.constant(x), tf.repeat(params, len(x), axis=1))
    assert integrate.trapezoid(np.exp(log_slope), x) == pytest.approx(6.0, abs=1e-5)


@pytest.mark.parametrize("degree", [1, 2, 8])
def test_tails_of_bernstein_stretch_less_than_its_inside(degree):
    """Layers multiply them, and float32 does not bring back a number that was stretched by e^15."""
    polynomial = Bernstein(degree, bound=1.0)
    params = tf.constant(np.random.default_rng(0).choice([-1e4, 1e4], (degree + 1, 2_000)), tf.float32)
    params = tf.concat([params[:-1], 0.0 * params[-1:]], axis=0)
    for end in (-1.0, 1.0):
        for far in (1.0, 1e4):
            _, log_slope = polynomial.inverse_and_log_det(tf.fill([2_000], end * far), params)
            assert float(tf.reduce_max(tf.abs(log_slope))) == pytest.approx(2.0, abs=1e-2)
    _, inside = polynomial.inverse_and_log_det(tf.zeros([2_000]), params)
    assert degree < 3 or float(tf.reduce_max(inside)) > 2.1
    with pytest.raises(ValueError, match="Expected max_log_tail_slope > 0; got 0"):
        Bernstein(max_log_tail_slope=0.0)
