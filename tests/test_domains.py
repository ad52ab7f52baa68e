"""Flows that know where their columns live: bounds, circles, whole numbers, simplices, spheres."""

import functools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from cases import policy, randomise
from scipy import stats

from tfflows import (
    MAF,
    Chain,
    CouplingRQNSF,
    Domain,
    FlowMatching,
    FlowMixture,
    FlowModel,
    MaskedAutoregressiveRQNSF,
    MultiscaleRealNVP,
    RealNVP,
    bases,
    export,
)
from tfflows import bijectors as tfb
from tfflows.randomness import training_randomness

MIXED = [
    Domain.real(),
    Domain.circular(2.0 * np.pi, -np.pi),
    Domain.interval(0.0, 1.0),
    Domain.positive(),
    Domain.integer(0, 12),
    Domain.integer(0),
    Domain.categorical(3),
    Domain.simplex(3),
    Domain.sphere(3),
]
N_COLUMNS, N_LATENTS = 13, 11


def table(n, seed=0):
    """Columns of `MIXED` that depend on each other."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=n)
    angle = rng.vonmises(0.0, 3.0, n) + a
    fraction = 1.0 / (1.0 + np.exp(-rng.normal(size=n) - np.cos(angle)))
    positive = np.exp(0.5 * rng.normal(size=n) + fraction)
    grade = np.clip(rng.poisson(2.0 + 3.0 * fraction), 0, 12)
    count = rng.poisson(300.0 + 50.0 * a)
    category = (a > 0.5).astype(int) + (rng.uniform(size=n) < 0.2)
    shares = rng.dirichlet([2.0, 3.0, 4.0], n)
    direction = rng.normal(size=(n, 3)) + np.array([0.0, 0.0, 1.0])
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    columns = np.stack([a, angle, fraction, positive, grade, count, category], axis=1)
    return np.concatenate([columns, shares, direction], axis=1).astype(np.float32)


@pytest.fixture(params=[CouplingRQNSF, MaskedAutoregressiveRQNSF])
def flow(request):
    return mixed_flow(request.param)


@functools.cache
def mixed_flow(preset):
    """A flow of a mixed table, trained a little."""
    keras.utils.set_random_seed(0)
    flow = FlowModel(preset(N_LATENTS, n_layers=2, hidden=(24, 24)), domain=MIXED)
    flow.compile(jit_compile=False)  # compiling each verb and number of rows would be most of the time
    flow.fit(table(2000), epochs=2, verbose=0)
    return flow


def test_samples_never_leave_the_domain(flow):
    x = flow.sample(2000, seed=1).numpy()
    assert x.shape == (2000, N_COLUMNS)
    low = [-np.inf, -np.pi, 0.0, 0.0, 0, 0, 0, 0.0, 0.0, 0.0, -1.0, -1.0, -1.0]
    high = [np.inf, np.pi, 1.0, np.inf, 12, np.inf, 2, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    assert np.all(x >= low)
    assert np.all(x <= high)
    np.testing.assert_array_equal(x[:, 4:7], np.round(x[:, 4:7]))
    np.testing.assert_allclose(x[:, 7:10].sum(axis=1), 1.0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(x[:, 10:], axis=1), 1.0, atol=1e-6)
    assert np.all(np.isfinite(flow.log_prob(x)))
    hot = flow.sample(500, seed=2, temperature=3.0).numpy()
    assert np.all(hot[:, :10] >= low[:10])
    assert np.all(hot[:, :10] <= high[:10])


def test_it_comes_back_and_circles_close(flow):
    x = table(200, seed=3)
    back = flow.decode(flow.encode(x)).numpy()
    x[:, 1] = np.mod(x[:, 1] + np.pi, 2.0 * np.pi) - np.pi
    np.testing.assert_allclose(back, x, rtol=1e-4, atol=1e-4)
    around = x.copy()
    around[:, 1] += 2.0 * np.pi
    np.testing.assert_allclose(flow.log_prob(around), flow.log_prob(x), atol=1e-4)
    z, log_det = flow.encode(x, return_log_det=True)
    np.testing.assert_allclose(flow.decode(z, return_log_det=True)[1], -log_det, rtol=1e-4, atol=1e-3)


def test_kept_in_a_file(flow, tmp_path):
    x = table(100, seed=4)
    flow.save(tmp_path / "flow.keras")
    again = keras.saving.load_model(tmp_path / "flow.keras")
    np.testing.assert_allclose(again.log_prob(x), flow.log_prob(x), rtol=1e-5)
    np.testing.assert_allclose(again.sample(10, seed=5), flow.sample(10, seed=5), rtol=1e-5)


def test_an_export_gives_the_same_numbers(tmp_path):
    flow = mixed_flow(CouplingRQNSF)
    flow.export(tmp_path / "flow.tflite", "litert", verbose=False)
    for parity in export.verify(tmp_path / "flow.tflite", flow, table(30, seed=6)):
        assert parity.difference < 1e-4, parity


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        (2, 1.5, "numbers from 0 to 1 in column 2 of x; got 1.5 and the like in 1 rows: 7"),
        (3, -0.1, "numbers from 0 to inf in column 3"),
        (4, 13.0, "whole numbers from 0 to 12 in column 4"),
        (4, 2.5, "whole numbers from 0 to 12 in column 4"),
        (5, -1.0, "whole numbers from 0 to inf in column 5"),
        (6, 3.0, "whole numbers from 0 to 2 in column 6"),
        (8, 0.9, "fractions >= 0 that add up to 1 in columns"),
        (11, 2.0, "unit vectors in columns"),
    ],
)
def test_data_outside_are_refused(flow, column, value, expected):
    x = table(20)
    x[7, column] = value
    for verb in (flow.log_prob, flow.fit):
        with pytest.raises(ValueError, match=expected):
            verb(x)
    if value != 2.5:  # a point that stands for a whole number can be encoded
        with pytest.raises(ValueError, match=expected.split(" in ")[0].split("; ")[0].split(" from")[0]):
            flow.encode(x)


def test_errors_of_declarations():
    with pytest.raises(ValueError, match="bijector of 2 numbers, as many as the domain takes; got one of event shape"):
        FlowModel(RealNVP(3), domain=[Domain.simplex(3)])
    with pytest.raises(ValueError, match=r"Expected a spline of bound .* for circular columns; got Affine"):
        FlowModel(RealNVP(2), domain=[Domain.circular(1.0), Domain.real()])
    with pytest.raises(ValueError, match="no base for circular columns"):
        FlowModel(CouplingRQNSF(2), bases.VonMises(2), domain=[Domain.circular(1.0), Domain.real()])
    with pytest.raises(ValueError, match=r"one of .* got 'torus'"):
        Domain("torus")
    with pytest.raises(ValueError, match="list of Domains"):
        FlowModel(RealNVP(2), domain=[(0, 1), (0, 1)])
    for wrong in (
        lambda: Domain.interval(1.0, 0.0),
        lambda: Domain.circular(-1.0),
        lambda: Domain.integer(0, 2.5),
        lambda: Domain.categorical(1),
        lambda: Domain.simplex(1),
        lambda: Domain.sphere(1),
    ):
        with pytest.raises(ValueError, match="Expected"):
            wrong()


def torus_density(flow, n=200):
    """Log-density on a grid of the torus, and the area of its cells."""
    at = -np.pi + 2.0 * np.pi * np.arange(n) / n
    grid = np.stack(np.meshgrid(at, at, indexing="ij"), axis=-1).reshape(-1, 2).astype(np.float32)
    return flow.log_prob(grid).numpy().reshape(n, n), (2.0 * np.pi / n) ** 2


@pytest.mark.parametrize("preset", [CouplingRQNSF, MaskedAutoregressiveRQNSF])
def test_torus_is_closed_and_integrates_to_one(preset):
    keras.utils.set_random_seed(1)
    flow = FlowModel(preset(2, n_layers=3, hidden=(24, 24)), domain=[Domain.circular(2.0 * np.pi, -np.pi)] * 2)
    flow.compile(jit_compile=False)
    randomise(flow.bijector, 0.3)
    log_prob, area = torus_density(flow)
    assert np.std(log_prob) > 0.1
    assert abs(np.sum(np.exp(log_prob)) * area - 1.0) < 1e-3
    # Across the seam: values, and derivatives from both sides.
    step = 1e-3
    along = np.linspace(-3.0, 3.0, 50)
    for axis in (0, 1):
        values = []
        for place in (np.pi - 2.0 * step, np.pi - step, np.pi, np.pi + step):
            x = np.stack([np.full(50, place), along], axis=1)
            values.append(flow.log_prob((x if axis == 0 else x[:, ::-1]).astype(np.float32)).numpy())
        np.testing.assert_allclose(values[2], values[1], atol=0.1)
        np.testing.assert_allclose(values[3] - values[2], values[1] - values[0], atol=0.02)


def test_circles_close_to_the_last_digits_in_float64():
    with policy("float64"):
        circle = Domain.circular(2.0 * np.pi, -np.pi)
        flow = FlowModel(CouplingRQNSF(2, n_layers=3, hidden=(24, 24)), domain=[circle, circle])
        flow.compile(jit_compile=False)
        randomise(flow.bijector, 0.3)
        x = np.random.default_rng(0).uniform(-np.pi, np.pi, (200, 2))
        np.testing.assert_allclose(flow.log_prob(x + 2.0 * np.pi), flow.log_prob(x), atol=1e-10)
        edge = np.stack([np.full(200, np.pi), x[:, 1]], axis=1)
        np.testing.assert_allclose(flow.log_prob(edge - 1e-12), flow.log_prob(edge + 1e-12), atol=1e-8)


def test_questions_to_a_table_and_missing_numbers():
    """Of independent columns, fitted closely: what is known of one says nothing of the others."""
    rng = np.random.default_rng(0)
    x = np.stack([rng.normal(6.0, 1.0, 4000) % 24.0, rng.lognormal(size=4000)], axis=1).astype(np.float32)
    bijector = MaskedAutoregressiveRQNSF(2, n_layers=3, hidden=(16,), alternate=False)
    flow = FlowModel(bijector, domain=[Domain.circular(24.0), Domain.positive()])
    flow.compile(keras.optimizers.Adam(1e-2), jit_compile=False)
    flow.fit(x, epochs=40, verbose=0)
    gap = np.float32([[6.0, np.nan], [np.nan, 1.0], [6.0, 1.0]])
    found = flow.marginal_log_prob(gap, seed=0)
    np.testing.assert_allclose(found.value[0], stats.norm.logpdf(0.0), atol=0.25)
    np.testing.assert_allclose(found.value[1], stats.lognorm.logpdf(1.0, 1.0), atol=0.2)
    np.testing.assert_allclose(found.value[2], flow.log_prob(gap[2:])[0], atol=1e-4)
    assert found.error[0] == found.error[2] == 0.0
    amounts = flow.conditional({0: 6.0}).sample(2000, seed=0)
    assert abs(np.median(amounts) - 1.0) < 0.15
    with pytest.raises(ValueError, match="in column 1 of x; got -1"):
        flow.marginal_log_prob(np.float32([[np.nan, -1.0]]))


def test_one_circular_column_and_one_with_context():
    flow = FlowModel(CouplingRQNSF(1, n_layers=2), domain=[Domain.circular(24.0)])
    flow.compile(jit_compile=False)
    hours = np.mod(np.random.default_rng(0).normal(23.0, 2.0, (2000, 1)), 24.0).astype(np.float32)
    flow.fit(hours, epochs=20, verbose=0)
    found = flow.sample(2000, seed=0).numpy()[:, 0]
    assert np.all((found >= 0.0) & (found < 24.0))
    mean = np.angle(np.mean(np.exp(2j * np.pi * found / 24.0))) * 24.0 / (2.0 * np.pi)
    assert abs(np.mod(mean - 23.0 + 12.0, 24.0) - 12.0) < 0.3
    heard = FlowModel(CouplingRQNSF(1, n_layers=2, context_dim=2), domain=[Domain.circular(24.0)])
    assert heard.log_prob(hours[:5], np.ones((5, 2), np.float32)).shape == (5,)


def test_probabilities_of_whole_numbers_are_their_frequencies():
    """Of one column: after `adapt` alone they are those of the data; and all probabilities add up to 1."""
    rng = np.random.default_rng(0)
    shares = np.array([0.5, 0.02, 0.3, 0.0, 0.18])
    x = rng.choice(5, p=shares, size=(20_000, 1)).astype(np.float32)
    flow = FlowModel(CouplingRQNSF(1, n_layers=2), domain=[Domain.categorical(5)])
    flow.compile(jit_compile=False)
    flow.fit(x, epochs=8, verbose=0)
    found = np.exp(flow.log_prob(np.arange(5.0, dtype=np.float32)[:, np.newaxis]))
    assert abs(found.sum() - 1.0) < 0.01
    counted = np.bincount(x[:, 0].astype(int), minlength=5) / len(x)
    np.testing.assert_allclose(found, counted, atol=0.01)
    drawn = np.bincount(flow.sample(20_000, seed=1).numpy()[:, 0].astype(int), minlength=5) / 20_000
    np.testing.assert_allclose(drawn, counted, atol=0.015)


def test_integers_of_all_kinds_have_points_of_their_own():
    """Those of one column say nothing of another's; and the joint probability of two is right."""
    domain = [Domain.integer(0, 12), Domain.integer(0), Domain.integer(0, 10_000), Domain.categorical(2)]
    flow = FlowModel(CouplingRQNSF(4, n_layers=2, hidden=(8,)), domain=domain)
    x = tf.constant(np.full((4000, 4), 1.0, np.float32))
    with training_randomness(tf.constant([1, 2])):
        points = flow.bijector.dequantize(x, None)[0].numpy()
    assert np.max(np.abs(np.corrcoef(points.T) - np.eye(4))) < 0.1
    evaluated = flow.bijector.dequantize(x[:1], None)[0].numpy()
    assert evaluated.shape == (16, 1, 4)
    assert all(len(np.unique(evaluated[:, 0, i])) > 8 for i in range(4))
    assert np.max(np.abs(np.corrcoef(evaluated[:, 0].T) - np.eye(4))) < 0.9


def test_a_rare_category_is_learned():
    rng = np.random.default_rng(0)
    x = np.stack([rng.uniform(size=8000) < 0.01, rng.normal(size=8000)], axis=1).astype(np.float32)
    flow = FlowModel(CouplingRQNSF(2, n_layers=2, hidden=(8,)), domain=[Domain.categorical(2), Domain.real()])
    flow.compile(keras.optimizers.Adam(3e-3), jit_compile=False)
    flow.fit(x, epochs=4, verbose=0)
    assert 0.004 < np.mean(flow.sample(20_000, seed=0).numpy()[:, 0]) < 0.03


def test_bounds_are_in_the_interval_and_modes_too():
    rng = np.random.default_rng(0)
    x = np.round(rng.beta(1.0, 3.0, (2000, 1)) * 0.3, 2).astype(np.float32)
    flow = FlowModel(CouplingRQNSF(1, n_layers=2), domain=[Domain.interval(0.0, 0.3)])
    flow.compile(jit_compile=False)
    flow.fit(x, epochs=3, verbose=0)
    edges = np.float32([[0.0], [0.3]])
    assert np.all(np.isfinite(flow.log_prob(edges)))
    assert np.all(np.isfinite(flow.log_prob(flow.sample(2000, seed=1, temperature=5.0))))
    assert 0.0 <= flow.mode(seed=0, n_draws=200, n_steps=20).x[0] <= np.float32(0.3)
    real = FlowModel(CouplingRQNSF(1, n_layers=1))
    assert real.kl_to(flow, n=100, seed=0).value == np.inf


def test_flows_of_unlike_domains_and_losses_that_cannot_hear_integers_are_refused():
    with pytest.raises(ValueError, match="flows of one domain"):
        FlowMixture([FlowModel(RealNVP(1)), FlowModel(RealNVP(1), domain=[Domain.positive()])])
    flow = FlowModel(FlowMatching(2, hidden=(4,)), domain=[Domain.integer(), Domain.real()])
    with pytest.raises(ValueError, match="continuous data for this loss"):
        flow.fit(np.ones((20, 2)) + np.arange(20.0)[:, np.newaxis], epochs=1, verbose=0)
    with pytest.raises(ValueError, match="not circular for columns that are not"):
        FlowModel(CouplingRQNSF(2, circular=True), domain=[Domain.circular(1.0), Domain.real()])
    flow = FlowModel(RealNVP(1), domain=[Domain.positive()])
    batches = tf.data.Dataset.from_tensor_slices(-np.ones((20, 1), np.float32)).batch(10)
    with pytest.raises(ValueError, match="in column 0 of x"):
        flow.fit(batches, epochs=1, verbose=0)


def jacobian(bijector, z):
    z = tf.constant(z)
    with tf.GradientTape() as tape:
        tape.watch(z)
        x, log_det = bijector.forward_and_log_det(z)
    return tape.batch_jacobian(x, z).numpy(), log_det.numpy(), x.numpy()


def test_simplex_has_dirichlets_volume():
    with policy("float64"):
        bijector = tfb.Simplex(4)
    z = np.random.default_rng(0).normal(size=(20, 3))
    matrix, log_det, x = jacobian(bijector, z)
    np.testing.assert_allclose(log_det, np.linalg.slogdet(matrix[:, :3])[1], atol=1e-10)
    again, inverse_log_det = bijector.inverse_and_log_det(x)
    np.testing.assert_allclose(again, z, atol=1e-10)
    np.testing.assert_allclose(inverse_log_det, -log_det, atol=1e-10)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_sphere_has_the_area_of_its_surface(n):
    with policy("float64"):
        bijector = tfb.Sphere(n, bound=3.0)
    z = np.random.default_rng(0).normal(size=(20, n - 1))
    matrix, log_det, x = jacobian(bijector, z)
    gram = np.swapaxes(matrix, 1, 2) @ matrix
    np.testing.assert_allclose(log_det, 0.5 * np.linalg.slogdet(gram)[1], atol=1e-8)
    np.testing.assert_allclose(np.sum(x**2, axis=1), 1.0, atol=1e-12)
    again, inverse_log_det = bijector.inverse_and_log_det(x)
    np.testing.assert_allclose(again, z, atol=1e-8)
    np.testing.assert_allclose(inverse_log_det, -log_det, atol=1e-8)
    # At the poles nothing is infinite.
    poles = np.zeros((2, n), np.float32)
    poles[:, -1] = [1.0, -1.0]
    assert all(np.all(np.isfinite(v)) for v in tfb.Sphere(n, bound=3.0).inverse_and_log_det(poles))


def test_frequencies_are_a_bijection_and_logistic():
    rng = np.random.default_rng(0)
    with policy("float64"):
        bijector = tfb.Frequencies([0, 3], [4, 5])
    x = np.stack([rng.choice(5, p=[0.5, 0.1, 0.1, 0.1, 0.2], size=5000), rng.integers(3, 6, 5000)], axis=1)
    bijector.adapt(x.astype(float))
    points = x + rng.uniform(-0.5, 0.5, x.shape)
    z, log_det = bijector.inverse_and_log_det(points)
    for column in z.numpy().T:
        assert stats.kstest(column, stats.logistic.cdf).pvalue > 0.01
    again, forward_log_det = bijector.forward_and_log_det(z)
    np.testing.assert_allclose(again, points, atol=1e-9)
    np.testing.assert_allclose(forward_log_det, -log_det, atol=1e-9)
    matrix, forward_log_det, _ = jacobian(bijector, z[:20].numpy())
    np.testing.assert_allclose(forward_log_det, np.linalg.slogdet(matrix)[1], atol=1e-9)


def test_blockwise_refuses_columns_twice():
    one = tfb.Circle([1.0], [0.0], 1.0)
    with pytest.raises(ValueError, match="at most once"):
        tfb.Blockwise([one, one], [[0], [0]], 2)
    with pytest.raises(ValueError, match="bijector of 2 columns"):
        tfb.Blockwise([one], [[0, 1]], 2)


def test_a_domain_keeps_what_has_nothing_to_do_with_circles():
    """Without circular columns the bijector is the same object; with them, its settings and the order of MADEs."""
    bijector = RealNVP(2, n_layers=2)
    flow = FlowModel(bijector, domain=[Domain.positive(), Domain.real()])
    assert flow.bijector.bijectors[1] is bijector
    assert math.isfinite(flow.log_prob(np.float32([[1e4, 0.0]]))[0])
    with pytest.raises(ValueError, match="spline"):
        FlowModel(MAF(2), domain=[Domain.circular(1.0)] * 2)


def test_a_flow_knows_its_domain():
    domain = [
        Domain.sphere(3),
        Domain.real(),
        Domain.interval(-1.0, 2.0),
        Domain.circular(24.0, 6.0),
        Domain.positive(),
        Domain.simplex(3),
        Domain.integer(0),
        Domain.integer(None, 5),
        Domain.categorical(4),
        Domain.integer(0, 1000),
    ]
    flow = FlowModel(CouplingRQNSF(12, n_layers=1, hidden=(4,)), domain=domain)
    assert flow.domain == domain
    assert FlowModel.from_config(flow.get_config()).domain == domain
    assert FlowMixture([flow]).domain == domain
    assert FlowModel(Chain([tfb.Bounded([0.0, 1.0], [1.0, np.inf]), RealNVP(2)])).domain == [
        Domain.interval(0.0, 1.0),
        Domain("line", 1.0),
    ]
    assert FlowModel(Chain([tfp.bijectors.Exp(), RealNVP(1)])).domain == [Domain.real()]  # TFP's say nothing
    assert FlowModel(MultiscaleRealNVP((4, 4, 1), levels=1, steps=1, hidden=4)).domain is None
