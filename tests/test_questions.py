"""Questions to a distribution, beside closed forms of Gaussians, SciPy and numerical integrals."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from cases import BIJECTORS, HIDDEN, policy, randomise
from scipy import stats

import tfflows as tff
from tfflows import Chain, FlowMixture, FlowModel, bases, questions
from tfflows.bijectors import Bounded, Elementwise, MaskedAutoregressive, Permutation, Standardize, Whiten
from tfflows.nets import MADE, MLP
from tfflows.transformers import Affine, RationalQuadraticSpline, Shift

pytestmark = pytest.mark.usefixtures("without_xla")

MEAN = np.array([1.0, -2.0, 0.5, 3.0])
FACTOR = np.array([[1.0, 0, 0, 0], [0.8, 0.7, 0, 0], [-0.5, 0.9, 1.2, 0], [0.3, -0.6, 0.4, 0.5]])
COVARIANCE = FACTOR @ FACTOR.T
GAUSSIAN = stats.multivariate_normal(MEAN, COVARIANCE)


def gaussian_flow(mean=MEAN, factor=FACTOR):
    """A linear triangular flow: a Gaussian, of which everything is known."""
    whiten = Whiten(len(mean))
    whiten.layers[0].set(mean, factor)
    return FlowModel(Chain([whiten]))


@pytest.fixture(scope="module")
def gaussian():
    return gaussian_flow()


@pytest.fixture(scope="module")
def triangular():
    """Three numbers, not linear, in an order of its own, with a context."""
    keras.utils.set_random_seed(0)
    with policy("float64"):
        layers = [
            MaskedAutoregressive(f, MADE(3, f.n_parameters, HIDDEN, order=[1, 2, 0]), 2)
            for f in (Affine(), RationalQuadraticSpline(5, 3.0))
        ]
        return FlowModel(randomise(Chain([Standardize(3), *layers]), 0.4))


CONTEXT = np.array([0.3, -0.8])


def grid_of(low, high, n):
    points = np.linspace(low, high, n)
    return points, points[1] - points[0]


# Flows of one number.


@pytest.mark.parametrize("scale", [2.0, -0.5])
def test_cdf_and_quantile_of_one_number(scale):
    # x = sinh of a scaled normal number, rising or falling.
    flow = FlowModel(Chain([tfp.bijectors.Sinh(), tfp.bijectors.Scale(np.float32(scale)), Standardize(1)]))
    x = np.linspace(-8.0, 8.0, 21, dtype=np.float32)[:, None]
    truth = stats.norm.cdf(np.arcsinh(x[:, 0].astype(np.float64)) / abs(scale))
    np.testing.assert_allclose(flow.cdf(x), truth, atol=1e-6)
    p = np.array([1e-4, 0.1, 0.5, 0.9, 0.9999])
    np.testing.assert_allclose(flow.quantile(p)[:, 0], np.sinh(abs(scale) * stats.norm.ppf(p)), rtol=2e-3, atol=1e-5)
    np.testing.assert_allclose(flow.quantile(0.5), [[0.0]], atol=1e-6)
    np.testing.assert_allclose(tf.function(flow.cdf)(tf.constant(x)), truth, atol=1e-6)


def test_cdf_follows_the_context_and_the_density():
    net = MLP(RationalQuadraticSpline(5, 3.0).n_parameters, HIDDEN)
    flow = FlowModel(randomise(Chain([Standardize(1), Elementwise(RationalQuadraticSpline(5, 3.0), 1, net, 2)]), 0.5))
    contexts = np.array([[0.0, 1.0], [2.0, -1.0]], np.float32)
    points, step = grid_of(-30.0, 30.0, 20_001)
    for context in contexts:
        rows = np.repeat(context[None], len(points), axis=0)
        density = np.exp(flow.log_prob(points[:, None], rows).numpy().astype(np.float64))
        integral = np.cumsum(density) * step - 0.5 * step * density
        np.testing.assert_allclose(flow.cdf(points[:, None], rows), integral, atol=1e-3)
    median = flow.quantile(0.5, contexts)
    assert median.shape == (2, 1)
    np.testing.assert_allclose(flow.cdf(median, contexts), [0.5, 0.5], atol=1e-5)


def test_cdf_refuses_what_has_none(gaussian):
    with pytest.raises(ValueError, match=r"Expected a flow of one number, of event shape \(1,\); got \(4,\)"):
        gaussian.cdf(np.zeros((3, 4)))
    circle = Chain([Elementwise(Shift(circular_bound=np.pi), 1)])
    circle.layers[0].value.assign(np.full((1, 1), 2.0))
    with pytest.raises(ValueError, match="rise or fall"):
        FlowModel(circle).cdf(np.zeros((3, 1)))
    mixture = FlowModel(Chain([Standardize(1)]), bases.MixtureOfNormals(1, 2))
    with pytest.raises(ValueError, match="Expected"):
        FlowModel(mixture.bijector, tfp.distributions.Independent(tfp.distributions.Gumbel([0.0], 1.0), 1)).cdf([[0.0]])
    for p in (0.0, 1.0, [0.5, np.nan], [[0.5]]):
        with pytest.raises(ValueError, match="Expected"):
            FlowModel(Chain([Standardize(1)])).quantile(p)


# Triangular flows.


@pytest.mark.parametrize(
    "name",
    ["autoregressive_spline_residual_context", "elementwise_context", "standardize", "standardize_whiten", "actnorm",
     "bounded", "autoregressive_umnn"],
)  # fmt: skip
def test_log_dets_add_up_and_follow_the_order(name):
    with policy("float64"):
        bijector = randomise(BIJECTORS[name](), 0.4)
    n_dim, rng = bijector.event_shape[0], np.random.default_rng(0)
    x = tf.constant(rng.normal(size=(6, n_dim)))
    context = None if bijector.context_dim is None else tf.constant(rng.normal(size=(6, bijector.context_dim)))
    with tf.GradientTape() as tape:
        tape.watch(x)
        z, log_dets = bijector.inverse_and_log_dets(x, context)
    jacobian = tape.batch_jacobian(z, x).numpy()
    np.testing.assert_allclose(np.sum(log_dets, axis=1), bijector.inverse_and_log_det(x, context)[1], atol=1e-9)
    np.testing.assert_allclose(np.log(np.diagonal(jacobian, axis1=1, axis2=2)), log_dets, atol=1e-6)
    order = bijector.triangular_order
    assert np.all(jacobian[:, order[:, None] < order[None]] == 0.0)


def test_triangular_order_of_presets_and_chains():
    for preset in (tff.MAF, tff.MaskedAutoregressiveRQNSF, tff.MaskedAutoregressiveLRS, tff.NAF, tff.SOSPF, tff.BPF):
        small = {"n_layers": 2, "hidden": HIDDEN}
        assert preset(3, **small).triangular_order is None
        np.testing.assert_array_equal(preset(3, **small, alternate=False).triangular_order, [0, 1, 2])
    made = MADE(3, 2, HIDDEN, order=[2, 0, 1])
    chain = Chain([Bounded([0.0] * 3, [np.inf] * 3), MaskedAutoregressive(Affine(), made), tfp.bijectors.Sinh()])
    np.testing.assert_array_equal(chain.triangular_order, [2, 0, 1])
    x = np.array([[0.5, 1.0, 2.0]], np.float32)
    np.testing.assert_allclose(
        np.sum(chain.inverse_and_log_dets(x)[1], axis=1), chain.inverse_and_log_det(x)[1], rtol=1e-5
    )
    assert Chain([Permutation.reverse(3), tff.MAF(3, n_layers=1, hidden=HIDDEN)]).triangular_order is None
    assert Chain([Standardize((2, 2, 1))]).triangular_order is None
    with pytest.raises(ValueError, match="Expected a triangular bijector"):
        tff.RealNVP(3).inverse_and_log_dets(x)


def test_rosenblatt_of_a_gaussian(gaussian):
    x = GAUSSIAN.rvs(500, random_state=0)
    u = gaussian.rosenblatt(x).numpy()
    np.testing.assert_allclose(u, stats.norm.cdf(np.linalg.solve(FACTOR, (x - MEAN).T).T), atol=1e-5)
    np.testing.assert_allclose(gaussian.inverse_rosenblatt(u), x, atol=1e-3)
    assert np.all(gaussian.rosenblatt(np.full((1, 4), 1e3)).numpy() < 1.0)
    with pytest.raises(ValueError, match=r"Expected u in \(0, 1\)"):
        gaussian.inverse_rosenblatt(np.ones((1, 4)))


def test_rosenblatt_turns_falling_scalars_round(triangular):
    flow = FlowModel(Chain([tfp.bijectors.Scale(np.array([-1.0, 2.0, -3.0], np.float32)), Standardize(3)]))
    x = np.random.default_rng(0).normal(size=(50, 3))
    np.testing.assert_allclose(flow.rosenblatt(x), stats.norm.cdf(x / [1.0, 2.0, 3.0]), atol=1e-6)
    context = np.repeat(CONTEXT[None], 1000, axis=0)
    draws = triangular.sample(1000, CONTEXT, seed=0)
    u = triangular.rosenblatt(draws, context)
    assert stats.kstest(np.ravel(u), "uniform").pvalue > 1e-3
    np.testing.assert_allclose(triangular.inverse_rosenblatt(u, context), draws, atol=1e-6)


def gaussian_conditional(known):
    """Mean and covariance of the others."""
    a = np.array(sorted(known))
    b = np.array([i for i in range(4) if i not in known])
    gain = COVARIANCE[np.ix_(b, a)] @ np.linalg.inv(COVARIANCE[np.ix_(a, a)])
    mean = MEAN[b] + gain @ (np.array([known[i] for i in a]) - MEAN[a])
    return (
        mean,
        COVARIANCE[np.ix_(b, b)] - gain @ COVARIANCE[np.ix_(a, b)],
        stats.multivariate_normal(MEAN[a], COVARIANCE[np.ix_(a, a)]).logpdf([known[i] for i in a]),
    )


@pytest.mark.parametrize("known", [{0: 1.5}, {1: -1.0, 0: 1.5}, {0: 1.5, 2: 0.0}, {3: 3.5}, {1: -1.0, 3: 2.0}])
def test_conditionals_of_a_gaussian(gaussian, known):
    mean, covariance, log_evidence = gaussian_conditional(known)
    found = gaussian.conditional(known, n_draws=4000, seed=1)
    assert found.is_exact == (sorted(known) == list(range(len(known))))
    assert found.columns == tuple(i for i in range(4) if i not in known)
    draws = found.sample(4000, seed=2)
    error = np.sqrt(np.diag(covariance) / 4000)
    tolerance = 5.0 if found.is_exact else 15.0  # weighted draws count for fewer
    assert np.all(np.abs(draws.mean(axis=0) - mean) < tolerance * error)
    np.testing.assert_allclose(np.cov(draws.T), covariance, atol=0.15)
    x = np.random.default_rng(0).multivariate_normal(mean, covariance, 20)
    truth = np.atleast_1d(stats.multivariate_normal(mean, covariance).logpdf(x))
    value, error = found.log_evidence
    np.testing.assert_allclose(found.log_prob(x), truth, atol=1e-4 + 5.0 * error)
    assert abs(value - log_evidence) < 1e-5 + 5.0 * error
    assert (error == 0.0) == found.is_exact
    weighted = found.weighted(1000, seed=3)
    assert weighted.x.shape == (1000, len(found.columns))
    assert np.mean(np.exp(weighted.log_weights)) == pytest.approx(1.0)
    assert (weighted.effective == 1000.0) == found.is_exact


def test_conditionals_of_a_curved_flow(triangular):
    # The order is column 2, 0, 1. Column 0 alone is known: the third axis is drawn, the second follows.
    found = triangular.conditional({0: 0.4}, CONTEXT, n_draws=20_000, seed=0)
    assert not found.is_exact
    points, step = grid_of(-12.0, 12.0, 161)
    rows = np.stack(np.meshgrid([0.4], points, points, indexing="ij"), axis=-1).reshape(-1, 3)
    density = np.exp(triangular.log_prob(rows, np.repeat(CONTEXT[None], len(rows), axis=0)).numpy())
    norm = np.sum(density) * step**2
    assert np.exp(found.log_evidence.value) == pytest.approx(norm, rel=5.0 * found.log_evidence.error + 0.01)
    truth = np.sum(density[:, None] * rows[:, 1:], axis=0) / np.sum(density)
    drawn = found.sample(20_000, seed=1)
    error = drawn.std(axis=0) / np.sqrt(found.weighted(20_000, seed=1).effective)
    assert np.all(np.abs(drawn.mean(axis=0) - truth) < 5.0 * error + 0.01)
    # Columns 2 and 0 are exact, and a density of one number adds up to one.
    exact = triangular.conditional({2: 0.1, 0: 0.4}, CONTEXT)
    assert exact.is_exact
    assert np.sum(np.exp(exact.log_prob(points[:, None]))) * step == pytest.approx(1.0, abs=1e-2)
    draws = exact.sample(2000, seed=0)[:, 0]
    mass = np.cumsum(np.exp(exact.log_prob(points[:, None]))) * step
    assert stats.kstest(draws, lambda x: np.interp(x, points + 0.5 * step, mass)).pvalue > 1e-3


def test_resampling_keeps_many_known_numbers_apart():
    # A walk, every second place of which is known: without resampling nearly all weight would be on one draw.
    n = 24
    flow = gaussian_flow(np.zeros(n), np.tril(np.ones((n, n))))
    known = {i: 0.1 * i for i in range(1, n, 2)}
    found = flow.conditional(known, n_draws=2000, seed=0)
    steps = 0.2 * np.ones(n // 2)
    steps[0] = 0.1
    truth = stats.norm(0.0, np.sqrt(2.0)).logpdf(steps).sum()
    assert abs(found.log_evidence.value - truth) < 5.0 * found.log_evidence.error < 1.0
    middles = found.sample(2000, seed=1)
    np.testing.assert_allclose(middles[:, 1:].mean(axis=0), 0.1 * np.arange(2, n, 2), atol=0.2)
    assert len(np.unique(middles[:, -1])) > 200


def test_missing_numbers_are_integrated_out(gaussian):
    x = GAUSSIAN.rvs(40, random_state=0)
    x[5:10, 3] = x[10:15, 2:] = x[15:20, 0] = x[20:25, 1] = x[25, :] = np.nan
    value, error = gaussian.marginal_log_prob(x, n_draws=2000, seed=0)
    for row, (v, e) in enumerate(zip(value, error, strict=True)):
        known = ~np.isnan(x[row])
        truth = 0.0
        if known.any():
            truth = stats.multivariate_normal(MEAN[known], COVARIANCE[np.ix_(known, known)]).logpdf(x[row, known])
        assert abs(v - truth) < 2e-4 + 5.0 * e
        assert (e == 0.0) == (row < 15 or row >= 25)
    with pytest.raises(ValueError, match="NaN or inf"):
        gaussian.log_prob(x)
    with pytest.raises(ValueError, match="NaN or inf"):
        gaussian.marginal_log_prob(np.full((2, 4), np.inf))


def test_missing_numbers_are_integrated_without_bias(triangular):
    x = np.array([[np.nan, 0.2, np.nan]])
    estimates = [triangular.marginal_log_prob(x, CONTEXT[None], n_draws=100, seed=s) for s in range(150)]
    values = np.exp([e.value[0] for e in estimates])
    reference = np.exp(triangular.marginal_log_prob(x, CONTEXT[None], n_draws=50_000, seed=1).value[0])
    assert abs(np.mean(values) - reference) < 4.0 * np.std(values) / np.sqrt(150)
    # The error that each tells is that of the estimates.
    assert np.sqrt(np.mean([e.error[0] ** 2 for e in estimates])) == pytest.approx(np.std(np.log(values)), rel=0.3)


def test_triangular_errors(gaussian):
    flow = FlowModel(tff.RealNVP(4, n_layers=2, hidden=HIDDEN))
    x = np.zeros((2, 4))
    for ask in (
        lambda: flow.rosenblatt(x),
        lambda: flow.inverse_rosenblatt(x + 0.5),
        lambda: flow.conditional({0: 1.0}),
        lambda: flow.marginal_log_prob(x),
    ):
        with pytest.raises(ValueError, match="Expected a triangular flow"):
            ask()
    for known in ({}, {4: 0.0}, {0: np.nan}, dict.fromkeys(range(4), 0.0), [0.0]):
        with pytest.raises(ValueError, match="Expected"):
            gaussian.conditional(known)
    with pytest.raises(ValueError, match=r"Expected x of shape \[n, 3\]"):
        gaussian.conditional({0: 1.0}).log_prob(x)
    dependent = tfp.distributions.MultivariateNormalTriL(np.zeros(4, np.float32), np.eye(4, dtype=np.float32))
    with pytest.raises(ValueError, match="Expected a base of independent scalars"):
        FlowModel(Chain([Standardize(4)]), dependent).rosenblatt(x)


# Answers by draws.


def test_estimates_of_a_gaussian(gaussian):
    truth = 1.0 - stats.norm.cdf(2.0)
    inside = gaussian.probability(lambda x: x[:, 0] > 3.0, n=20_000, seed=0)
    box = gaussian.probability((3.0 * np.array([1.0, -np.inf, -np.inf, -np.inf]), np.inf), n=20_000, seed=0)
    assert inside == box
    assert abs(inside.value - truth) < 4.0 * inside.error < 0.01
    assert gaussian.probability(lambda x: x[:, 0] > 1e6, n=100, seed=0).error > 0.0
    entropy = gaussian.entropy(n=5000, seed=0)
    assert abs(entropy.value - GAUSSIAN.entropy()) < 4.0 * entropy.error < 0.1
    other = gaussian_flow(MEAN + 0.3, FACTOR * 1.2)
    shift = np.linalg.solve(1.2 * FACTOR, np.full(4, 0.3))
    truth = 0.5 * (4 / 1.44 - 4 + shift @ shift) + 4 * np.log(1.2)
    theirs = tfp.distributions.MultivariateNormalTriL(
        (MEAN + 0.3).astype(np.float32), (1.2 * FACTOR).astype(np.float32)
    )
    for q in (other, theirs):
        divergence = gaussian.kl_to(q, n=5000, seed=0)
        assert abs(divergence.value - truth) < 4.0 * divergence.error < 0.1
    assert gaussian.kl_to(gaussian, n=100).value == pytest.approx(0.0, abs=1e-5)
    assert gaussian.kl_to(FlowModel(Chain([Standardize(4)]), bases.UniformBox(4)), n=100) == (np.inf, np.inf)


def test_estimates_hear_a_context_and_mixtures_answer(triangular):
    assert triangular.probability((-9.0, 9.0), CONTEXT, n=100, seed=0).value > 0.0
    assert np.isfinite(triangular.entropy(CONTEXT, n=100).value)
    assert triangular.kl_to(triangular, CONTEXT, n=100).value == pytest.approx(0.0, abs=1e-9)
    with pytest.raises(ValueError, match="Expected one condition"):
        triangular.entropy(np.zeros((3, 2)), n=100)
    mixture = FlowMixture([gaussian_flow(MEAN + shift) for shift in (-20.0, 20.0)])
    entropy = mixture.entropy(n=4000, seed=0)
    assert abs(entropy.value - GAUSSIAN.entropy() - np.log(2.0)) < 4.0 * entropy.error
    assert mixture.kl_to(mixture.flows[0], n=100, seed=0).value > 100.0
    assert mixture.probability(lambda x: x[:, 0] > 0.0, n=1000, seed=0).value == pytest.approx(0.5, abs=0.07)
    x = mixture.sample(300, seed=1).numpy()
    found = mixture.outliers(np.zeros((1, 4)), calibration=x, rate=0.05)
    assert found.flags.all()
    with pytest.raises(ValueError, match="one latent space"):
        mixture.outliers(x, calibration=x, rate=0.05, score=questions.Latent())


def test_estimates_errors(gaussian):
    for n in (0, 1, 1.5):
        with pytest.raises(ValueError, match="n >= 2"):
            gaussian.entropy(n=n)
    for region in (3.0, (1.0, 0.0), (np.zeros(3), 1.0), lambda x: x, lambda x: True):
        with pytest.raises(ValueError, match="Expected"):
            gaussian.probability(region, n=10)
    with pytest.raises(ValueError, match="log_prob"):
        gaussian.kl_to(3.0)
    with pytest.raises(ValueError, match=r"event shape \(4,\); got \(3,\)"):
        gaussian.kl_to(gaussian_flow(MEAN[:3], FACTOR[:3, :3]), n=10)


def test_mode(gaussian, triangular):
    found = gaussian.mode(n_starts=2, n_draws=50, seed=0)
    np.testing.assert_allclose(found.x, MEAN, atol=1e-3)
    assert found.log_prob == pytest.approx(GAUSSIAN.logpdf(MEAN), abs=1e-4)
    mixture = FlowMixture([gaussian_flow(MEAN - 20.0, FACTOR), gaussian_flow(MEAN + 20.0, 0.5 * FACTOR)])
    np.testing.assert_allclose(mixture.mode(n_starts=3, n_draws=100, seed=0).x, MEAN + 20.0, atol=1e-3)
    given = triangular.mode(CONTEXT, n_starts=4, n_draws=200, n_steps=50, seed=0)
    assert given.log_prob >= np.max(triangular.sample_and_log_prob(200, CONTEXT, seed=0)[1])
    # A mode depends on the coordinates: that of a log-normal number is exp(-1), and its support has an end.
    lognormal = FlowModel(Chain([tfp.bijectors.Exp(), Standardize(1)]))
    np.testing.assert_allclose(lognormal.mode(n_starts=2, n_draws=20, seed=0).x, [np.exp(-1.0)], atol=1e-3)
    with pytest.raises(ValueError, match="n_starts"):
        gaussian.mode(n_starts=0)


# Outliers.


@pytest.mark.parametrize("score", [questions.Density(), questions.Typicality(n_draws=2000), questions.Latent()])
@pytest.mark.parametrize("rate", [0.01, 0.05])
def test_false_alarms_come_at_the_rate(score, rate):
    """Also of a flow that does not fit: the data are heavy-tailed."""
    rng, flow, found = np.random.default_rng(0), gaussian_flow(MEAN[:2], FACTOR[:2, :2]), []
    for _ in range(10):
        held_out, fresh = rng.standard_t(3, size=(2000, 2)), rng.standard_t(3, size=(2000, 2))
        found.append(flow.outliers(fresh, calibration=held_out, rate=rate, score=score).flags.mean())
    assert np.mean(found) == pytest.approx(rate, abs=0.005)


def test_outliers_of_ties_and_contexts(gaussian, triangular):
    calibration = GAUSSIAN.rvs(199, random_state=0)
    x = np.concatenate([GAUSSIAN.rvs(50, random_state=1), MEAN + 30.0 * np.ones((3, 4))])
    found = gaussian.outliers(x, calibration=calibration, rate=0.01)
    assert found.flags[-3:].all()
    np.testing.assert_allclose(found.p_values[-3:], 1.0 / 200.0)
    scores = -gaussian.log_prob(calibration).numpy()
    expected = [(1 + np.sum(scores >= s)) / 200.0 for s in found.scores]
    np.testing.assert_allclose(found.p_values, expected)
    np.testing.assert_array_equal(found.flags, found.scores > found.threshold)
    # All scores equal: nothing is strange.
    tied = gaussian.outliers(x, calibration=calibration, rate=0.5, score=lambda flow, x, context: np.zeros(len(x)))
    np.testing.assert_array_equal(tied.p_values, 1.0)
    assert not tied.flags.any()
    few, rng = np.random.default_rng(0).integers(0, 3, size=(4000, 4)), np.random.default_rng(1)
    again = rng.integers(0, 3, size=(4000, 4))
    for seed, low in ((0, 0.045), (None, 0.0)):
        alarms = gaussian.outliers(again, calibration=few, rate=0.05, score=lambda *rows: rows[1][:, 0], seed=seed)
        assert low <= alarms.flags.mean() <= 0.055
    # A point at the mode of a hundred dimensions is denser than any draw; typicality sees it.
    n = 100
    wide = FlowModel(Chain([Standardize(n)]))
    held_out = np.random.default_rng(0).normal(size=(500, n)).astype(np.float32)
    middle = np.zeros((1, n), np.float32)
    assert not wide.outliers(middle, calibration=held_out).flags[0]
    assert wide.outliers(middle, calibration=held_out, score=questions.Typicality()).flags[0]
    contexts = np.random.default_rng(0).normal(size=(120, 2))
    given = triangular.sample(1, contexts, seed=0)[0]
    for score in (None, questions.Typicality(n_draws_each=20), questions.Latent()):
        rows = triangular.outliers(
            given[:20], contexts[:20], calibration=(given[20:], contexts[20:]), rate=0.1, score=score
        )
        assert rows.p_values.shape == (20,)


def test_outliers_errors(gaussian):
    x = GAUSSIAN.rvs(98, random_state=0)
    few = r"Expected at least 99 calibration rows for a rate of 0\.01; got 98, enough for a rate of 0\.011\."
    with pytest.raises(ValueError, match=few):
        gaussian.outliers(x, calibration=x)
    gaussian.outliers(x, calibration=np.concatenate([x, x[:1]]))
    with pytest.raises(ValueError, match="held out from training; got none"):
        gaussian.outliers(x, calibration=None)
    for wrong in ({"rate": 0.0}, {"rate": 1.0}, {"score": "density"}, {"score": lambda *_: np.zeros(3)}):
        with pytest.raises(ValueError, match="Expected"):
            gaussian.outliers(x, calibration=x, **{"rate": 0.1, **wrong})
    with pytest.raises(ValueError, match="got weights too"):
        gaussian.outliers(x, calibration=(x, None, np.ones(98)), rate=0.1)
