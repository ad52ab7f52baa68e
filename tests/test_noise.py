"""SoftFlow: noise of random scale in training, none elsewhere."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import special

import tfflows as tff
from tfflows import Chain, Domain, FlowMixture, FlowModel, SoftFlow, bijectors, export, losses
from tfflows.randomness import training_randomness

pytestmark = pytest.mark.usefixtures("without_xla")
RADIUS = 3.0
SCALE = RADIUS / np.sqrt(2.0)  # the standard deviation of each coordinate: what noise is measured in


def circle(n, rng):
    angle = rng.uniform(-np.pi, np.pi, n)
    return RADIUS * np.stack([np.cos(angle), np.sin(angle)], axis=-1).astype(np.float32)


def blurred_circle(x, noise_scale):
    """The exact log-density of points on the circle with normal noise."""
    sigma = noise_scale * SCALE
    r = np.linalg.norm(x, axis=-1)
    bessel = np.log(special.ive(0, r * RADIUS / sigma**2))  # times exp(-r R / sigma^2)
    return -np.log(2.0 * np.pi * sigma**2) - (r - RADIUS) ** 2 / (2.0 * sigma**2) + bessel


@pytest.fixture(scope="module")
def fitted():
    rng = np.random.default_rng(0)
    keras.utils.set_random_seed(0)
    flow = FlowModel(SoftFlow(2, hidden=(32, 32), max_noise=0.3))
    flow.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(5e-3, 800)), jit_compile=False)
    flow.fit(circle(5000, rng), epochs=40, batch_size=256, verbose=0)
    return flow


@pytest.mark.parametrize("noise_scale", [0.3, 0.1])
def test_density_is_that_of_the_blurred_data(fitted, rng, noise_scale):
    x = circle(4000, rng) + noise_scale * SCALE * rng.normal(size=(4000, 2))
    exact = blurred_circle(x, noise_scale)
    divergence = np.mean(exact - fitted.log_prob(x, noise_scale=noise_scale))
    assert abs(divergence) < 0.06  # of the circle with another scale it is above 0.2
    other = np.mean(exact - fitted.log_prob(x, noise_scale=0.2))
    assert other > abs(divergence) + 0.1


def test_samples_lie_on_the_circle_and_all_round_it(fitted):
    x = fitted.sample(2000, seed=0).numpy()
    distance = np.abs(np.linalg.norm(x, axis=-1) - RADIUS)
    assert np.mean(distance) < 0.15 * 0.3 * SCALE  # a small part of the noise it was trained with
    shares = np.histogram(np.arctan2(x[:, 1], x[:, 0]), bins=12, range=(-np.pi, np.pi))[0] / len(x)
    assert shares.min() > 0.5 / 12


def test_no_noise_is_the_default_of_every_verb(fitted, rng):
    x = circle(50, rng)
    np.testing.assert_allclose(fitted.log_prob(x), fitted.log_prob(x, noise_scale=0.0), rtol=1e-3, atol=1e-4)
    each = np.linspace(0.0, 0.3, 50)
    by_row = fitted.log_prob(x, noise_scale=each)
    for i in (0, 20, 49):
        alone = fitted.log_prob(x[i : i + 1], noise_scale=each[i])
        np.testing.assert_allclose(by_row[i], alone[0], rtol=1e-4, atol=1e-4)
    z, log_det = fitted.encode(x, return_log_det=True)
    np.testing.assert_allclose(fitted.base.log_prob(z) + log_det, fitted.log_prob(x), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(fitted.decode(z), x, atol=1e-3)
    drawn, log_prob = fitted.sample_and_log_prob(20, seed=1)
    np.testing.assert_allclose(fitted.log_prob(drawn), log_prob, rtol=1e-3, atol=1e-2)


def test_files_are_the_flow(fitted, rng, tmp_path):
    x = circle(40, rng)
    fitted.save(tmp_path / "flow.keras")
    loaded = keras.saving.load_model(tmp_path / "flow.keras")
    np.testing.assert_array_equal(loaded.sample(10, seed=0), fitted.sample(10, seed=0))
    np.testing.assert_array_equal(loaded.log_prob(x, noise_scale=0.1), fitted.log_prob(x, noise_scale=0.1))
    assert isinstance(loaded.default_loss, losses.NoisyLikelihood)


@pytest.mark.parametrize(("format", "name"), [("tf_saved_model", "flow"), ("litert", "flow.tflite")])
def test_exports_are_the_flow_without_noise(format, name, rng, tmp_path):
    flow = FlowModel(SoftFlow(2, preset=tff.RealNVP, n_layers=2, hidden=(4,)))
    for weight in flow.trainable_weights:
        weight.assign(0.3 * rng.normal(size=weight.shape))
    flow.export(tmp_path / name, format, verbose=False)
    for one in export.verify(tmp_path / name, flow, circle(40, rng)):
        assert one.difference < 1e-5, one


@pytest.mark.parametrize("power", [1.0, 3.0])
def test_loss_is_the_mean_over_noise_of_every_scale(power):
    """For points at the centre and the identity it is log 2 pi + E scale^2; E scale^2 = 0.25 / (2 power + 1)."""
    flow = FlowModel(SoftFlow(2, max_noise=0.5, power=power, n_layers=2, hidden=(4,)))
    x = np.zeros((200_000, 2), np.float32)
    with training_randomness(tf.constant([1, 2])):
        values = flow.default_loss(flow, x, None).numpy()
    expected = np.log(2.0 * np.pi) + 0.25 / (2.0 * power + 1.0)
    assert abs(values.mean() - expected) < 5.0 * values.std() / np.sqrt(len(x))
    again = flow.default_loss(flow, x, None).numpy()
    np.testing.assert_array_equal(again, flow.default_loss(flow, x, None))  # evaluation repeats
    assert abs(again.mean() - values.mean()) < 7.0 * values.std() / np.sqrt(len(x))


def test_noise_is_measured_in_deviations_of_each_column(rng):
    flow = FlowModel(SoftFlow(2, n_layers=2, hidden=(4,)))
    x = rng.normal(size=(1000, 2)) * [1e-3, 1e4] + [5.0, 0.0]
    flow.adapt(x)
    loss = flow.default_loss(flow, tf.constant(x), None)
    exact = 0.5 * np.mean(((x - x.mean(0)) / x.std(0)) ** 2) * 2 + np.log(2 * np.pi) + np.log(x.std(0)).sum()
    assert abs(np.mean(loss) - exact) < 0.02  # 0.1^2 / 3 of the noise


PRESETS = {
    "MAF": lambda c: SoftFlow(2, preset=tff.MAF, n_layers=2, hidden=(8,), context_dim=c),
    "FFJORD": lambda c: SoftFlow(2, preset=tff.FFJORD, hidden=(8,), context_dim=c),
}


@pytest.mark.parametrize("preset", PRESETS)
def test_users_contexts_go_beside_the_scale(preset, rng):
    flow = FlowModel(PRESETS[preset](3), context_net=keras.layers.Dense(3), context_shape=(5,))
    assert (flow.context_dim, flow.context_shape) == (3, (5,))
    x, context = circle(64, rng), rng.normal(size=(64, 5)).astype(np.float32)
    before = [w.numpy() for w in flow.context_net.weights]
    flow.fit(x, context, epochs=2, batch_size=16, verbose=0)
    assert any(np.any(a != b) for a, b in zip(before, flow.context_net.weights, strict=True))
    for weight in flow.trainable_weights:
        weight.assign(weight + 0.3 * rng.normal(size=weight.shape))
    values = [flow.log_prob(x, context, noise_scale=s).numpy() for s in (None, 0.0, 0.05)]
    np.testing.assert_allclose(values[0], values[1], rtol=1e-5)
    assert np.max(np.abs(values[2] - values[0])) > 1e-3
    assert np.max(np.abs(flow.log_prob(x, context[::-1].copy()) - values[0])) > 1e-3
    assert flow.sample(4, context[:6]).shape == (4, 6, 2)
    way = flow.interpolate(x[0], x[1], 5, (context[0], context[1]))
    np.testing.assert_allclose(way.numpy()[[0, -1]], x[:2], atol=1e-3)


def test_classes_domains_and_mixtures(rng):
    labels = np.arange(64) % 2
    flow = FlowModel(SoftFlow(2, n_layers=2, hidden=(8,), context_dim=2), domain=[Domain.positive()] * 2, n_classes=2)
    x = np.exp(0.3 * circle(64, rng))
    flow.fit(x, labels, epochs=1, verbose=0)
    assert flow.class_probabilities(x).shape == (64, 2)
    assert np.all(flow.sample(100, 1).numpy() > 0.0)
    flows = [FlowModel(SoftFlow(2, n_layers=2, hidden=(8,))) for _ in range(2)]
    mixture = FlowMixture(flows)
    mixture.fit_each(circle(64, rng), epochs=1, verbose=0)
    assert np.all(np.isfinite(mixture.log_prob(mixture.sample(10))))


def plain(**kwargs):
    return FlowModel(tff.RealNVP(2, n_layers=2, hidden=(4,)), **kwargs)


def soft(**kwargs):
    return FlowModel(SoftFlow(2, n_layers=2, hidden=(4,)), **kwargs)


X = np.ones((4, 2), np.float32)


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        (lambda: SoftFlow(2, max_noise=0.0), "max_scale > 0; got 0"),
        (lambda: SoftFlow(2, max_noise=np.nan), "max_scale > 0; got nan"),
        (lambda: SoftFlow(2, power=0.0), "power > 0; got 0"),
        (lambda: SoftFlow(2, preset=3), "a preset with a context_dim, such as RealNVP; got 3"),
        (lambda: SoftFlow(2, preset=tff.SINF), "a preset with a context_dim, such as RealNVP; got .*SINF"),
        (
            lambda: FlowMixture([soft(), soft()]).fit(X, verbose=0),
            "flows without noise to train together; got a SoftFlow",
        ),
        (lambda: plain().log_prob(X, noise_scale=0.1), "flow with noise, such as SoftFlow; got 0.1"),
        (lambda: soft().log_prob(X, noise_scale=0.2), "from 0 to 0.1.*; got 0.2"),
        (lambda: soft().log_prob(X, noise_scale=np.nan), "from 0 to 0.1.*; got nan"),
        (lambda: soft().log_prob(X, noise_scale=[0.1, 0.0]), r"all 4 rows or each; got \(2,\)"),
        (lambda: soft().log_prob(X, X), "Expected no context"),
        (lambda: losses.NoisyLikelihood()(plain(), X, None), "flow with Noise.*; got FlowModel"),
        (lambda: FlowModel(bijectors.Noise(2)), "hear the scale of the noise.*; got none"),
        (lambda: FlowModel(Chain([bijectors.Noise(2), SoftFlow(2)])), "Noise once in a chain; got it 2 times"),
        (lambda: soft(domain=[Domain.circular(1.0), Domain.real()]), "for circular columns; got Noise"),
        (
            lambda: soft(domain=[Domain.integer(), Domain.real()]).fit([[0, 1], [2, 3], [0, 2]], epochs=1, verbose=0),
            "continuous data for this loss",
        ),
    ],
)
def test_errors(bad, match):
    with pytest.raises(ValueError, match=match):
        bad()
