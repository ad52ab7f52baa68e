"""FlowMixture: one distribution of several flows, and ensembles."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from cases import HIDDEN, policy, randomise
from scipy import stats

import tfflows as tff
from tfflows import FlowMixture, FlowModel, losses
from tfflows.nets import MLP
from tfflows.numerics import k_means

RNG = np.random.default_rng(0)
# Two clusters, a quarter and three quarters, of unlike scales.
X = np.concatenate([RNG.normal([0.0, 0.0], [1.0, 0.1], (500, 2)), RNG.normal([30.0, 5.0], [0.1, 2.0], (1500, 2))])
CONTEXT = RNG.normal(size=(2000, 3)).astype(np.float32)


def member(context_dim=None):
    return FlowModel(tff.RealNVP(2, n_layers=2, hidden=HIDDEN, context_dim=context_dim))


@pytest.fixture(scope="module")
def fitted():
    keras.utils.set_random_seed(0)
    mixture = FlowMixture([member(), member()])
    mixture.fit(X, epochs=3, verbose=0)
    return mixture


@pytest.fixture(scope="module")
def conditional():
    keras.utils.set_random_seed(0)
    mixture = FlowMixture([member(3), member(3)], MLP(2, HIDDEN))
    mixture.compile(jit_compile=False)  # compiles faster; the other one is compiled by XLA
    for flow in mixture.flows:
        randomise(flow.bijector)
    for weight in mixture.net.trainable_weights:
        weight.assign(0.5 * RNG.normal(size=weight.shape))
    return mixture


def test_its_density_is_the_weighted_sum(fitted):
    weights = np.exp(fitted.log_weights())
    assert np.sum(weights) == pytest.approx(1.0, abs=1e-6)
    x = X[::50]
    expected = np.log(
        sum(w * np.exp(np.float64(flow.log_prob(x))) for w, flow in zip(weights, fitted.flows, strict=True))
    )
    np.testing.assert_allclose(fitted.log_prob(x), expected, atol=1e-4)
    np.testing.assert_allclose(fitted.log_probs(x)[:, 1], fitted.flows[1].log_prob(x), rtol=1e-5, atol=1e-4)
    assert float(fitted.evaluate(X, verbose=0)) == pytest.approx(-np.mean(fitted.log_prob(X)), abs=1e-4)
    np.testing.assert_allclose(fitted.distribution().log_prob(tf.constant(x, tf.float32)), expected, atol=1e-3)


@pytest.mark.usefixtures("without_xla")
def test_its_density_integrates_to_one():
    """Which a wrong normalisation of the weights, or a sum of log-densities, would not."""
    mixture = FlowMixture([FlowModel(tff.CouplingRQNSF(1, n_layers=1, hidden=HIDDEN)) for _ in range(3)])
    for i, flow in enumerate(mixture.flows):
        randomise(flow.bijector, seed=i)
    mixture.logits.value.assign([0.3, -1.0, 2.0])
    grid = np.linspace(-40.0, 40.0, 20_001, dtype=np.float32)
    assert np.trapezoid(np.exp(mixture.log_prob(grid[:, None])), grid) == pytest.approx(1.0, abs=1e-3)


def test_samples_come_with_the_density_of_the_mixture(fitted):
    x, log_prob = fitted.sample_and_log_prob(4000, seed=1)
    np.testing.assert_allclose(fitted.log_prob(x), log_prob, atol=1e-3)
    # Of two programs that XLA compiles the last bits may differ.
    np.testing.assert_allclose(fitted.sample(4000, seed=1), x, rtol=1e-5, atol=1e-5)
    assert np.any(fitted.sample(10).numpy() != fitted.sample(10).numpy())
    first = int(np.sum(x[:, 0] < 15.0))
    weight = float(
        np.exp(fitted.log_weights())[np.argmin([flow.sample(50, seed=0)[:, 0].numpy().mean() for flow in fitted.flows])]
    )
    assert stats.binomtest(first, 4000, weight).pvalue > 1e-3
    # A cold mixture is one of cold flows, with the same weights.
    cold, cold_log_prob = fitted.sample_and_log_prob(4000, seed=1, temperature=0.5)
    each = [flow._log_prob(cold, None, 0.5) for flow in fitted.flows]
    np.testing.assert_allclose(cold_log_prob, np.logaddexp(*(each + fitted.log_weights()[:, None])), atol=1e-3)
    right = x.numpy()[:, 0] > 15.0
    assert np.std(cold.numpy()[right, 1]) < 0.7 * np.std(x.numpy()[right, 1])
    drawn = fitted.distribution().sample(7, seed=1)
    assert drawn.shape == (7, 2)


def test_flows_start_on_clusters_of_their_own(fitted):
    """Both clusters are found, and the fit is near the truth, which one Gaussian is far from."""
    mixture = FlowMixture([member(), member()])
    mixture.adapt(X)
    np.testing.assert_allclose(np.sort(np.exp(mixture.log_weights())), [0.25, 0.75], atol=1e-6)
    truth = np.logaddexp(
        np.log(0.25) + stats.norm([0.0, 0.0], [1.0, 0.1]).logpdf(X).sum(axis=1),
        np.log(0.75) + stats.norm([30.0, 5.0], [0.1, 2.0]).logpdf(X).sum(axis=1),
    )
    assert np.mean(fitted.log_prob(X)) > np.mean(truth) - 0.05


@pytest.mark.usefixtures("without_xla")
def test_a_cluster_of_few_rows_does_not_set_a_scale():
    mixture = FlowMixture([member(), member()])
    mixture.adapt(np.concatenate([X[:500], [[1e4, 1e4]]]))
    assert np.all(np.isfinite(mixture.log_prob(X)))
    assert np.exp(mixture.log_weights()).min() > 0.01


def test_context_is_heard_by_flows_and_weights(conditional):
    weights = np.exp(conditional.log_weights(CONTEXT[:5]))
    assert weights.shape == (5, 2)
    assert np.ptp(weights[:, 0]) > 0.01
    x, log_prob = conditional.sample_and_log_prob(4, CONTEXT[:5], seed=1)
    assert x.shape == (4, 5, 2)
    for i in range(4):
        np.testing.assert_allclose(conditional.log_prob(x[i], CONTEXT[:5]), log_prob[i], atol=1e-3)
    conditional.fit(X, CONTEXT, epochs=1, verbose=0)
    distribution = conditional.distribution(CONTEXT[:5])
    np.testing.assert_allclose(distribution.log_prob(X[:5]), conditional.log_prob(X[:5], CONTEXT[:5]), atol=1e-3)


def test_files_and_gradients(fitted, conditional, tmp_path):
    for mixture, context in ((fitted, None), (conditional, CONTEXT)):
        mixture.save(tmp_path / "mixture.keras")
        loaded = keras.saving.load_model(tmp_path / "mixture.keras")
        np.testing.assert_array_equal(loaded.log_prob(X, context), mixture.log_prob(X, context))
        assert len(loaded.trainable_weights) == len(mixture.trainable_weights)
    with tf.GradientTape() as tape:
        loss = -tf.reduce_mean(conditional.log_prob(X, CONTEXT))
    gradients = tape.gradient(loss, conditional.trainable_weights)
    assert all(g is not None and np.all(np.isfinite(g)) for g in gradients)
    assert "Coupling" in _printed(fitted.summary)


def _printed(function):
    lines = []
    function(print_fn=lines.append)
    return "\n".join(lines)


@pytest.mark.usefixtures("without_xla")
def test_ensemble():
    keras.utils.set_random_seed(0)
    ensemble = FlowMixture([member(), member()])
    ensemble.logits.value.assign([1.0, -1.0])
    with pytest.raises(ValueError, match="Expected finite numbers"):
        ensemble.fit_each(X * np.nan, epochs=1, verbose=0)
    assert ensemble.logits(None)[0] == 1.0  # a refused call changes nothing
    histories = ensemble.fit_each(X[:500], epochs=2, verbose=0)
    assert [len(history.epoch) for history in histories] == [2, 2]
    np.testing.assert_allclose(np.exp(ensemble.log_weights()), [0.5, 0.5])
    # Each knows all the data, not a cluster.
    assert all(np.mean(flow.log_prob(X[:500])) > -0.5 for flow in ensemble.flows)
    np.testing.assert_array_equal(*(_location(flow) for flow in ensemble.flows))
    ensemble = FlowMixture([member(), member()])
    ensemble.fit_each(X[:500], epochs=1, verbose=0, bootstrap=True)
    first, second = (_location(flow) for flow in ensemble.flows)
    assert np.all(first != second)
    with pytest.raises(ValueError, match="got a tf"):
        ensemble.fit_each(tf.data.Dataset.from_tensor_slices(X).batch(9), bootstrap=True)


def _location(flow):
    return flow.bijector.bijectors[0].layers[0].location.numpy()


@pytest.mark.usefixtures("without_xla")
def test_trained_flows_keep_what_they_were_adapted_to():
    trained, new = member(), member()
    trained.adapt(X[:500])
    before = _location(trained)
    mixture = FlowMixture([trained, new])
    mixture.fit(X, epochs=1, verbose=0)
    np.testing.assert_array_equal(_location(trained), before)
    np.testing.assert_allclose(_location(new), X.mean(axis=0), rtol=1e-5)


def test_weights_of_rows_count_in_clusters():
    weight = np.where(X[:, 0] > 15.0, 1.0, 9.0)
    mixture = FlowMixture([member(), member()])
    mixture.adapt(X, sample_weight=weight)
    np.testing.assert_allclose(np.sort(np.exp(mixture.log_weights())), [0.25, 0.75], atol=1e-6)
    mixture.adapt(X, sample_weight=np.where(X[:, 0] > 15.0, 0.0, 1.0))
    assert all(abs(_location(flow)[0]) < 3.0 for flow in mixture.flows)


def test_a_cluster_without_spread_does_not_set_a_scale(rng):
    x = np.stack([np.repeat([0.0, 5.0], 100), rng.normal(size=200)], axis=1)
    mixture = FlowMixture([member(), member()])
    mixture.adapt(x)  # a warning would be an error
    np.testing.assert_allclose(_location(mixture.flows[0]), _location(mixture.flows[1]))


@pytest.mark.usefixtures("without_xla")
def test_mixed_precision_and_stock_bases():
    with policy("mixed_bfloat16"):
        mixture = FlowMixture([member(), member()])
        mixture.fit(X, epochs=1, verbose=0)
        assert mixture.log_prob(X).dtype == tf.float32
        assert np.all(np.isfinite(mixture.log_prob(X)))
    base = tfp.distributions.MultivariateNormalDiag(tf.zeros(2), tf.ones(2))
    flows = [FlowModel(tff.NICE(2, n_layers=2, hidden=HIDDEN), base), member()]
    for density in (flows[0], FlowMixture(flows)):
        x, log_prob = density.sample_and_log_prob(5, seed=0)
        np.testing.assert_allclose(density.log_prob(x), log_prob, atol=1e-4)
        with pytest.raises(ValueError, match="Expected temperature 1"):
            density.sample(5, temperature=0.5)


def test_only_flows_without_jumps_are_reparameterized(fitted):
    is_full = tfp.distributions.FULLY_REPARAMETERIZED
    assert fitted.flows[0].distribution().reparameterization_type == is_full
    assert fitted.distribution().reparameterization_type != is_full
    jumping = FlowModel(tff.NICE(2, n_layers=1, hidden=HIDDEN), tff.bases.MixtureOfNormals(2))
    assert jumping.distribution().reparameterization_type != is_full


@pytest.mark.usefixtures("without_xla")
def test_a_bad_number_is_explained():
    mixture = FlowMixture([member(), member()])
    data = tf.data.Dataset.from_tensors(np.array([[1.0, np.nan], [0.0, 1.0], [2.0, 0.5]], np.float32)).repeat(2)
    mixture.adapt(X)
    with pytest.raises(FloatingPointError, match="The x of the data is not finite"):
        mixture.fit(data, epochs=1, verbose=0)


def test_refuses_what_does_not_fit():
    flow = member()
    with pytest.raises(ValueError, match="Expected a list of FlowModels"):
        FlowMixture([])
    with pytest.raises(ValueError, match="Expected a list of FlowModels"):
        FlowMixture([tff.RealNVP(2)])
    with pytest.raises(ValueError, match="one of them twice"):
        FlowMixture([flow, flow])
    with pytest.raises(ValueError, match="one event_shape"):
        FlowMixture([flow, FlowModel(tff.NICE(3, n_layers=2, hidden=HIDDEN))])
    with pytest.raises(ValueError, match="one context_shape"):
        FlowMixture([flow, member(3)])
    with policy("float64"):
        other = member()
    with pytest.raises(ValueError, match="one dtype"):
        FlowMixture([flow, other])
    with pytest.raises(ValueError, match="both or neither"):
        FlowMixture([flow, member()], MLP(2, HIDDEN))
    with pytest.raises(ValueError, match="2 outputs"):
        FlowMixture([member(3), member(3)], MLP(3, HIDDEN))
    with pytest.raises(ValueError, match="without a net"):
        FlowMixture([member(3), member(3)], MLP(2, HIDDEN)).fit_each(X, CONTEXT)
    mixture = FlowMixture([flow, member()])
    with pytest.raises(ValueError, match="Expected no context"):
        mixture.log_weights(CONTEXT)
    mixture.compile(loss=losses.FlowMatching())
    with pytest.raises(ValueError, match="Expected a FlowModel"):
        mixture.fit(X, epochs=1, verbose=0)


def test_k_means_finds_clusters_that_are_apart(rng):
    centres = np.array([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]])
    truth = rng.integers(0, 3, 300)
    labels = k_means(centres[truth] + rng.normal(size=(300, 2)), np.ones(300), 3)
    assert len(set(zip(truth, labels, strict=True))) == 3
    np.testing.assert_array_equal(np.unique(k_means(np.zeros((5, 2)), np.ones(5), 3)), [0])
