"""Bases against SciPy: densities, samples, temperature, files; and in flows."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from cases import policy
from scipy import special, stats

import tfflows as tff
from tfflows import FlowModel, bases
from tfflows.bijectors import Elementwise
from tfflows.transformers import Affine

Z = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)


def randomised(base):
    rng = np.random.default_rng(1)
    for weight in base.trainable_weights:
        weight.assign(0.5 * rng.normal(size=weight.shape))
    return base


def von_mises():
    base = bases.VonMises(2)
    base.location.assign([0.5, -2.5])
    base.log_concentration.assign(np.log([0.8, 20.0]))
    return base


BASES = {
    "standard_normal": lambda: bases.StandardNormal(2),
    "diagonal_normal": lambda: randomised(bases.DiagonalNormal(2)),
    "student_t": lambda: bases.StudentT(2, df=3.0),
    "student_t_each": lambda: bases.StudentT(2, df=[2.5, 8.0]),
    "student_t_learned": lambda: bases.StudentT(2, df=[2.5, 8.0], learned=True),
    "mixture": lambda: randomised(bases.MixtureOfNormals(2, n_components=3)),
    "uniform_box": lambda: bases.UniformBox(2, -3.0, 4.0),
    "von_mises": von_mises,
}
ALL = pytest.mark.parametrize("name", BASES)


def oracle(name, base, z, temperature):
    if name == "standard_normal":
        return stats.norm(0.0, temperature).logpdf(z).sum(axis=-1)
    if name == "diagonal_normal":
        return stats.norm(base.location, temperature * np.exp(base.log_scale)).logpdf(z).sum(axis=-1)
    if name in ("student_t_each", "student_t_learned"):
        return stats.t([2.5, 8.0], scale=temperature).logpdf(z).sum(axis=-1)
    if name == "von_mises":
        each = stats.vonmises(np.exp(base.log_concentration) / temperature**2, base.location).logpdf(z)
        return np.where(np.abs(z) <= np.pi, each, -np.inf).sum(axis=-1)
    if name == "student_t":
        return stats.t(3.0, scale=temperature).logpdf(z).sum(axis=-1)
    if name == "mixture":
        scale = temperature * np.exp(base.log_scale)
        each = stats.norm(base.location, scale).logpdf(z[..., None, :]).sum(axis=-1)
        weights = np.exp(base.logits) / np.sum(np.exp(base.logits))
        return np.log(np.sum(weights * np.exp(each), axis=-1))
    half = 3.5 * temperature
    return stats.uniform(0.5 - half, 2.0 * half).logpdf(z).sum(axis=-1)


@ALL
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_prob_and_samples(name, temperature):
    base = BASES[name]()
    np.testing.assert_allclose(base.log_prob(Z, temperature), oracle(name, base, Z, temperature), atol=2e-5)
    draw = tf.function(lambda: base.sample([20_000], [1, 2], temperature), jit_compile=True, autograph=False)
    z = draw().numpy()
    assert z.shape == (20_000, 2)
    # Each scalar's ranks against the density's own distribution function, by numerical integration.
    grid = np.linspace(-60.0, 60.0, 40_001)
    for i in range(2):
        if name == "mixture":
            scale = temperature * np.exp(base.log_scale)[:, i]
            weights = np.exp(base.logits) / np.sum(np.exp(base.logits))
            density = np.sum(weights * stats.norm(base.location.numpy()[:, i], scale).pdf(grid[:, None]), axis=1)
        else:
            pair = np.tile(np.median(z, axis=0), (len(grid), 1))
            pair[:, i] = grid
            density = np.exp(oracle(name, base, pair, temperature))
        cdf = np.cumsum(density) / np.sum(density)
        assert stats.kstest(z[:, i], lambda v, cdf=cdf: np.interp(v, grid, cdf)).pvalue > 1e-4
    np.testing.assert_array_equal(base.sample([3], [1, 2], temperature), base.sample([3], [1, 2], temperature))


@ALL
def test_shapes_and_files(name):
    base = BASES[name]()
    assert base.sample([], [0, 1]).shape == (2,)
    assert base.sample([4, 3], [0, 1]).shape == (4, 3, 2)
    assert base.log_prob(np.zeros([4, 3, 2], np.float32)).shape == (4, 3)
    config = keras.saving.serialize_keras_object(base)
    again = keras.saving.deserialize_keras_object(config)
    again.set_weights(base.get_weights())
    np.testing.assert_array_equal(again.log_prob(Z), base.log_prob(Z))


@ALL
def test_far_out_is_finite(name):
    base = BASES[name]()
    z = tf.constant([[1e4, -1e4], [0.0, 0.0]])
    with tf.GradientTape() as tape:
        tape.watch(z)
        log_prob = base.log_prob(z)
    gradient = tape.gradient(log_prob, z)
    assert gradient is None or np.all(np.isfinite(gradient))  # a uniform density has none
    assert np.all(np.isfinite(log_prob)) or name in ("uniform_box", "von_mises")


@ALL
def test_gradients_of_draws(name):
    """Where they are promised, they reach every weight."""
    base = BASES[name]()
    with tf.GradientTape() as tape:
        y = tf.reduce_mean(tf.cos(base.sample([100], [1, 2]) - 0.3))
    gradients = tape.gradient(y, base.trainable_weights)
    if base.is_reparameterized:
        assert all(g is not None and np.all(np.isfinite(g)) and np.any(g != 0.0) for g in gradients)


IN_FLOWS = BASES | {"resampled": lambda: bases.Resampled(2, n_attempts=10, n_points=256)}


@pytest.mark.parametrize("name", IN_FLOWS)
def test_in_a_flow(name, tmp_path, rng):
    """Every weight is trained, under XLA, and comes back from a file."""
    flow = FlowModel(Elementwise(Affine(), 2), IN_FLOWS[name]())
    for weight in flow.trainable_weights:  # kept at zero, the last layer of a net hides the others
        weight.assign_add(0.1 * rng.normal(size=weight.shape))
    before = [weight.numpy() for weight in flow.trainable_weights]
    x = rng.uniform(-1.5, 1.5, size=(512, 2)).astype(np.float32)
    flow.compile(keras.optimizers.Adam(1e-3), jit_compile=True)
    history = flow.fit(x, epochs=1, verbose=0).history
    assert np.all(np.isfinite(history["loss"]))
    for old, weight in zip(before, flow.trainable_weights, strict=True):
        assert np.any(old != weight.numpy()), weight.path
    flow.compile(jit_compile=False)  # compiles faster
    flow.save(tmp_path / "flow.keras")
    again = keras.saving.load_model(tmp_path / "flow.keras")
    np.testing.assert_array_equal(again.log_prob(x), flow.log_prob(x))
    np.testing.assert_array_equal(again.sample(50, seed=3), flow.sample(50, seed=3))
    drawn, log_prob = flow.sample_and_log_prob(50, seed=3)
    np.testing.assert_allclose(flow.log_prob(drawn), log_prob, atol=2e-3)


def test_files_from_before_bases_were_a_package():
    config = {"name": "t", "trainable": True, "dtype": "float32", "event_shape": [2], "df": 3.0}
    old = {"module": "tfflows.bases", "class_name": "StudentT", "config": config, "registered_name": "tfflows>StudentT"}
    base = keras.saving.deserialize_keras_object(old)
    np.testing.assert_allclose(base.log_prob(Z), stats.t(3.0).logpdf(Z).sum(axis=-1), rtol=1e-5)


def test_uniform_box_ends():
    base = bases.UniformBox(1, -np.pi, np.pi)
    assert np.all(np.isfinite(base.log_prob(np.array([[-np.pi], [np.pi]], np.float32))))
    assert np.all(np.isneginf(base.log_prob(np.array([[-3.2], [3.2]], np.float32))))


def test_uniform_circle_is_a_box():
    base = bases.UniformCircle((2, 3))
    assert (base.event_shape, base.low, base.high) == ((2, 3), -np.pi, np.pi)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_von_mises_of_any_concentration(dtype):
    """From uniform to as good as normal; SciPy has the density."""
    with policy(dtype):
        for concentration in (1e-8, 1e-3, 0.3, 5.0, 60.0, 1e3, 1e4):
            base = bases.VonMises(1, concentration)
            base.location.assign([1.0])
            z = 1.0 + np.linspace(-6.0, 6.0, 41) / np.sqrt(max(concentration, 9.0))
            with tf.GradientTape() as tape:
                log_prob = base.log_prob(z[:, None].astype(dtype))
            # In float32 the angles themselves are rounded: at six deviations the slope is that many times sqrt(kappa).
            error = 2e-12 if dtype == "float64" else 2e-6 + 4e-7 * 6.0 * np.sqrt(concentration)
            np.testing.assert_allclose(log_prob, stats.vonmises(concentration, 1.0).logpdf(z), atol=error, rtol=1e-6)
            assert all(np.all(np.isfinite(g)) for g in tape.gradient(log_prob, base.trainable_weights))


def test_von_mises_draws_know_their_concentration():
    """The gradient of a mean over draws, against that of its formula: of cos(z - location) it is I_1 / I_0."""
    base = bases.VonMises(1, 4.0)
    with tf.GradientTape() as tape:
        mean = tf.reduce_mean(tf.cos(base.sample([50_000], [1, 2])))
    ratio = special.i1e(4.0) / special.i0e(4.0)
    slope = 4.0 * (1.0 - ratio / 4.0 - ratio**2)  # by log kappa
    assert float(mean) == pytest.approx(ratio, abs=5e-3)
    assert float(tape.gradient(mean, base.log_concentration)[0]) == pytest.approx(slope, rel=0.05)


def test_student_t_learns_each_tail(rng):
    df = np.array([1.5, 4.0, 12.0])
    x = np.stack([rng.standard_t(v, size=20_000) for v in df], axis=1).astype(np.float32)
    flow = FlowModel(Elementwise(Affine(), 3), bases.StudentT(3, learned=True))
    flow.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.1, 400)), jit_compile=True)
    flow.fit(3.0 * x, batch_size=2000, epochs=40, verbose=0)
    # Four standard errors of an estimate with free location and scale.
    np.testing.assert_array_less(np.abs(flow.base.degrees_of_freedom() / df - 1.0), [0.1, 0.15, 0.5])
    assert np.all(flow.base.degrees_of_freedom() > 0.5)


def test_student_t_helps_on_heavy_tails(rng, without_xla):
    x = np.stack([rng.standard_t(1.5, size=8000), rng.standard_t(3.0, size=8000)], axis=1)
    x[:, 1] += 0.5 * np.sin(x[:, 0])
    x, held = x[:6000].astype(np.float32), x[6000:].astype(np.float32)
    scores = []
    for base in (bases.StandardNormal(2), bases.StudentT(2, learned=True)):
        keras.utils.set_random_seed(0)
        flow = FlowModel(tff.RealNVP(2, n_layers=2, hidden=(16,)), base)
        flow.compile(keras.optimizers.Adam(5e-3))
        flow.fit(x, epochs=15, verbose=0)
        scores.append(np.mean(flow.log_prob(held)))
    assert scores[1] > scores[0] + 0.1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: bases.StudentT(2, df=0.0), "df > 0"),
        (lambda: bases.StudentT(2, df=0.5, learned=True), "df > 0.5"),
        (lambda: bases.StudentT(2, df=[1.0, 2.0, 3.0]), r"as many as \(2,\)"),
        (lambda: bases.VonMises(2, 0.0), "concentration > 0"),
        (lambda: bases.Resampled(2, n_attempts=1), "n_attempts >= 2"),
        (lambda: bases.Resampled(2, tff.nets.MLP(3)), "1 outputs"),
        (lambda: bases.Resampled(2, proposal=bases.MixtureOfNormals(2)), "reparameterised"),
        (lambda: bases.Resampled(2, proposal=bases.StandardNormal(3)), "event shape"),
        (lambda: bases.MixtureOfNormals(2, n_components=0), "n_components >= 1"),
        (lambda: bases.UniformBox(2, 1.0, 1.0), "low < high"),
        (lambda: bases.FromTFP(tfp.distributions.Normal(tf.Variable(0.0), 1.0)), "without variables"),
        (lambda: bases.FromTFP(tfp.distributions.Normal([0.0, 1.0], 1.0)), "empty batch shape"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
