"""Samplers: right draws, right evidence, and errors that say what is wrong with a target."""

import functools
import io

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from scipy import stats

import tfflows as tff
from tfflows import inference, losses
from tfflows.inference import Result, Target, checkpoint, diagnostics, smc
from tfflows.inference.importance import bridge
from tfflows.inference.laplace import normal_draws

tfd = tfp.distributions


def box(n_dim, half_width):
    return tfd.Independent(tfd.Uniform(np.float32([-half_width] * n_dim), np.float32([half_width] * n_dim)), 1)


CENTRES = np.float32([[-3.0, -3.0], [3.0, 2.0]])


def two_modes(x):
    """Weights 0.3 and 0.7, deviations 0.3: an integral of 1."""
    squares = tf.reduce_sum(((x[:, tf.newaxis] - CENTRES) / 0.3) ** 2, axis=-1)
    log_weights = np.log(np.float32([0.3, 0.7])) - np.float32(2.0 * np.log(0.3) + np.log(2.0 * np.pi))
    return tf.reduce_logsumexp(log_weights - 0.5 * squares, axis=-1)


@pytest.fixture
def result():
    return result_of_two_modes()


@functools.cache
def result_of_two_modes():
    """By sequential Monte Carlo."""
    target = Target(two_modes, prior=box(2, 8.0), names=["a", "b"])
    return inference.preconditioned_smc(
        target, n_draws=1000, n_chains=2, seed=1, n_effective=256, n_active=128, verbose=False
    )


def test_smc_finds_modes_weights_and_evidence(result):
    assert result.draws.shape == (2, 1000, 2)
    assert result.log_prob.shape == (2, 1000)
    truth = -2.0 * np.log(16.0)
    assert result.log_evidence_error < 0.1
    assert abs(result.log_evidence - truth) < 4.0 * result.log_evidence_error
    by_weights, error = (result.diagnostics[f"log_evidence_of_weights{end}"] for end in ("", "_error"))
    assert abs(by_weights - truth) < 5.0 * error
    x = result.draws.reshape(-1, 2)
    right = x[:, 0] > 0.0
    assert np.mean(right) == pytest.approx(0.7, abs=0.1)
    np.testing.assert_allclose(x[right].mean(axis=0), CENTRES[1], atol=0.1)
    np.testing.assert_allclose(x[right].std(axis=0), 0.3, rtol=0.2)
    np.testing.assert_allclose(result.log_prob.ravel(), two_modes(x) - 2.0 * np.log(16.0), atol=1e-3)
    # Each is moved once more at the end.
    assert len(np.unique(x, axis=0)) > 0.95 * len(x)
    assert result.diagnostics["remaining"] < 0.1


def test_importance_with_the_flow_of_another_sampler(result):
    target = Target(two_modes, prior=box(2, 8.0))
    found = inference.importance(target, result.flow, n_draws=2000, n_chains=2, seed=3)
    assert abs(found.log_evidence + 2.0 * np.log(16.0)) < 4.0 * found.log_evidence_error
    assert found.diagnostics["pareto_k"] < 0.7
    assert found.diagnostics["ess"] > 400.0
    assert found.weights.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(found.mean(), [1.2, 0.5], atol=0.3)
    assert np.mean(found.resampled(1000)[:, 0] > 0.0) == pytest.approx(0.7, abs=0.08)


def test_results_are_kept_and_convert(result, tmp_path):
    result.save(tmp_path / "result.npz")
    again = Result.load(tmp_path / "result.npz")
    np.testing.assert_array_equal(again.draws, result.draws)
    assert again.log_evidence == result.log_evidence
    assert again.diagnostics["betas"] == result.diagnostics["betas"]
    data = result.to_arviz()
    np.testing.assert_allclose(data.posterior["a"].mean(), result.mean()[0], rtol=1e-5)
    assert [row["name"] for row in result.summary()] == ["a", "b"]
    assert repr(result).startswith("Result(a = ")
    assert len(repr(result)) < 200


@pytest.mark.usefixtures("without_xla", "quick_samplers")
def test_a_killed_run_goes_on(tmp_path, monkeypatch):
    """From its checkpoint, with the particles it had, and to the same draws."""
    calls = 0

    def run(path, stop_after=None):
        def log_prob(x):
            nonlocal calls
            calls += 1
            if stop_after is not None and calls > stop_after:
                raise KeyboardInterrupt
            return -0.5 * np.sum((x - 1.0) ** 2, axis=-1) / 0.1

        return inference.preconditioned_smc(
            Target(log_prob, prior=box(1, 5.0)),
            n_draws=100,
            n_chains=1,
            n_effective=64,
            n_active=32,
            flow=tff.FlowModel(tff.MAF(1, n_layers=1, hidden=(8,))),
            checkpoint=path,
            verbose=False,
        )

    path = tmp_path / "run.npz"
    with pytest.raises(Exception):  # noqa: B017, whatever TensorFlow makes of it
        run(path, stop_after=8)
    before = checkpoint.load(path)["z"]
    assert len(before) > 128
    again = run(path)
    np.testing.assert_array_equal(checkpoint.load(path)["z"][: len(before)], before)
    assert abs(again.log_evidence - 0.5 * np.log(2.0 * np.pi * 0.1) + np.log(10.0)) < 5.0 * again.log_evidence_error
    # While it settles the flow is trained, and more particles move than before: to the very same draws all the same.
    kept = []

    def save_and_keep(path, state):
        checkpoint.save(path, state)
        kept.append(path.read_bytes())

    monkeypatch.setattr(smc, "save", save_and_keep)
    whole = run(tmp_path / "whole.npz")
    killed = tmp_path / "killed.npz"
    states = [checkpoint.load(io.BytesIO(content)) for content in kept]
    i = next(i for i, state in enumerate(states) if "settling_0" in state)
    assert "rounds_0" not in states[i]
    killed.write_bytes(kept[i])
    after = run(killed)
    np.testing.assert_array_equal(whole.draws, after.draws)
    assert (whole.log_evidence, whole.n_evaluations) == (after.log_evidence, after.n_evaluations)
    with pytest.raises(ValueError, match="checkpoint of 2 parameters; got 1"):
        inference.preconditioned_smc(Target(two_modes, prior=box(2, 5.0)), checkpoint=path, verbose=False)
    other = Target(lambda x: -0.5 * np.sum(x**2, axis=-1), prior=box(1, 5.0))
    narrower = Target(lambda x: -0.5 * np.sum((x - 1.0) ** 2, axis=-1) / 0.1, prior=box(1, 4.0))
    for target in (other, narrower):
        with pytest.raises(ValueError, match="checkpoint of this target; at one of its points"):
            inference.preconditioned_smc(target, checkpoint=path, verbose=False)


def test_draws_behind_a_wall_lower_the_density_there():
    """Of a target whose gradient there is NaN."""
    flow = tiny_flow()

    def log_prob(x):
        return tf.reduce_sum(tf.math.log(tf.nn.relu(x)) - x, axis=-1)

    loss = losses.ReverseKL(log_prob, impossible=10.0)
    point = tf.constant([[-1.0, -1.0]])
    flow.compile(keras.optimizers.SGD(1e-3), loss, jit_compile=False)
    rows = np.random.default_rng(0).normal(size=(256, 2))  # say how many, and where to begin
    flow.adapt(rows)
    before = float(flow.log_prob(point)[0])
    history = flow.fit(rows, epochs=5, batch_size=256, verbose=0)
    assert np.all(np.isfinite(history.history["loss"]))
    assert float(flow.log_prob(point)[0]) < before
    for impossible in (0.0, -1.0, np.inf, np.nan):
        with pytest.raises(ValueError, match="Expected impossible > 0 and finite, or None"):
            losses.ReverseKL(log_prob, impossible=impossible)


@pytest.mark.usefixtures("without_xla")
def test_what_is_not_finite_counts_as_impossible():
    def log_prob(x):
        value = -0.5 * np.sum(x**2, axis=-1)
        value[x[:, 0] > 0.0] = np.nan
        value[x[:, 1] > 2.0] = -np.inf
        return value

    target = Target(log_prob, prior=box(2, 4.0))
    assert not target.has_gradient
    found = inference.preconditioned_smc(
        target, n_draws=500, n_chains=1, n_effective=128, n_active=64, flow=tiny_flow(), verbose=False
    )
    assert np.all(found.draws[..., 0] <= 0.0)
    truth = np.log(np.pi * stats.norm.cdf(2.0)) - np.log(64.0)  # half of it; what is beyond 4 does not matter
    assert abs(found.log_evidence - truth) < max(4.0 * found.log_evidence_error, 0.1)
    assert found.diagnostics["n_invalid"] > 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Target(two_modes), "Expected n_dim or a prior"),
        (lambda: Target(two_modes, 0), "Expected n_dim >= 1"),
        (lambda: Target(two_modes, 3, prior=box(2, 1.0)), "that of the prior"),
        (lambda: Target(two_modes, prior=tfd.Normal(np.zeros(2), 1.0)), "event shape"),
        (lambda: Target(two_modes, 2, names=["a"]), "2 different names"),
        (lambda: Target(two_modes, 2, domain=[(0, 1)]), "domain of 2 pairs"),
        (lambda: Target(two_modes, 2, domain=[(0, 1), (2, 1)]), "low < high"),
        (lambda: Target(lambda x: np.sum(x), 2), r"that gives \[n\]"),
        (lambda: Target(lambda x: 1 / 0, 2), "ZeroDivisionError"),
        (lambda: inference.preconditioned_smc(Target(two_modes, 2)), "with a prior"),
        (lambda: inference.preconditioned_smc(Target(two_modes, prior=box(2, 8.0)), n_draws=0), "n_draws >= 1"),
        (lambda: inference.preconditioned_smc(Target(two_modes, prior=box(2, 8.0)), n_active=1), "n_active >= 2"),
        (lambda: inference.importance(Target(normal, 3), tiny_flow()), "FlowModel of 3 numbers"),
        (lambda: inference.flow_mh(Target(two_modes, 2), flow="spline"), "got 'spline'"),
        (
            lambda: inference.preconditioned_smc(Target(lambda x: np.full(len(x), -np.inf), prior=box(2, 8.0))),
            "not at any of 20480 draws",
        ),
    ],
)
def test_errors_say_what_is_wrong(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_an_error_in_log_prob_names_the_point():
    def log_prob(x):
        if np.any(x[:, 0] > 3.0):
            raise RuntimeError("the simulator broke")
        return np.zeros(len(x))

    target = Target(log_prob, prior=box(2, 4.0))
    with pytest.raises(ValueError, match=r"at \[ ?3\.\d+ .*the simulator broke") as caught:
        inference.preconditioned_smc(target, n_effective=64, n_active=32, verbose=False)
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_targets_know_their_domain():
    target = Target(lambda x: tf.reduce_sum(tf.math.log(x), axis=-1), 3, domain=[(0.0, 1.0), (0.0, None), (None, 5.0)])
    assert target.has_gradient
    x, log_det = target.constrain(tf.constant([[0.0, 0.0, 0.0], [30.0, -30.0, 30.0]]))
    assert np.all((x >= [0.0, 0.0, -1e9]) & (x <= [1.0, 1e9, 5.0]))
    np.testing.assert_allclose(log_det[0], 3.0 * np.log(0.5) + np.log(0.5), rtol=1e-5)
    np.testing.assert_allclose(target.unconstrain([[0.5, np.log(2.0), 5.0 - np.log(2.0)]]), 0.0, atol=1e-6)
    # A prior in float64, on its bound, and one that the domain cuts.
    wide = Target(lambda x: tf.reduce_sum(x, axis=-1), prior=tfd.Independent(tfd.Uniform(np.zeros(2), np.ones(2)), 1))
    x, log_det = wide.constrain(tf.constant(wide.unconstrain([[0.0, 0.5], [1.0, 0.25]])))
    assert x.dtype == log_det.dtype == tf.float32
    np.testing.assert_allclose(x, [[0.0, 0.5], [1.0, 0.25]], atol=1e-6)
    cut = Target(normal, prior=tfd.MultivariateNormalDiag(np.zeros(2, np.float32)), domain=[(0.0, None), (None, None)])
    with pytest.raises(ValueError, match="zero outside of the domain"):
        cut.sample_prior(100, np.random.default_rng(0))
    prior = tfd.Blockwise([tfd.Independent(tfd.HalfNormal([1.0, 2.0]), 1), tfd.Independent(tfd.Normal([0.0], 1.0), 1)])
    positive = Target(lambda x: -tf.reduce_sum(x, axis=-1), prior=prior)
    x, _ = positive.constrain(tf.constant([[-5.0, 5.0, -5.0]]))
    assert np.all(x[:, :2] > 0.0)
    assert float(x[0, 2]) == -5.0


def test_diagnostics():
    rng = np.random.default_rng(0)
    weights = np.array([0.5, 0.25, 0.25, 0.0])
    assert np.bincount(diagnostics.systematic(weights, 8, rng), minlength=4).tolist() == [4, 2, 2, 0]
    assert diagnostics.effective_weights(np.log([0.5, 0.5])) == pytest.approx(2.0)
    assert diagnostics.effective_weights(np.full(3, -np.inf)) == 0.0
    draws = rng.normal(size=(4, 500, 2))
    found = diagnostics.chains(draws)
    assert np.all(found["r_hat"] < 1.02)
    assert np.all(found["ess_bulk"] > 1000)
    draws[0] += 3.0
    assert np.all(diagnostics.chains(draws)["r_hat"] > 1.3)
    for k in (0.3, 0.9):
        heavy = np.log(stats.pareto(1.0 / k).rvs(20_000, random_state=0))
        assert diagnostics.pareto_smoothed(heavy)[1] == pytest.approx(k, abs=0.15)
    smoothed, _ = diagnostics.pareto_smoothed(np.append(heavy, -np.inf))
    assert smoothed[-1] == -np.inf
    same, other = rng.normal(size=(600, 2)), rng.normal(1.5, 1.0, size=(600, 2))
    assert diagnostics.two_sample(same, rng.normal(size=(600, 2))) < 0.58
    assert diagnostics.two_sample(same, other) > 0.75


def test_bridge_finds_the_evidence_with_a_flow_of_light_tails():
    """Target: 5 times a standard normal distribution. The narrower flow has weights without a variance."""
    rng = np.random.default_rng(0)
    scale, found = 0.6, []
    for _ in range(200):
        draws, of_flow = rng.normal(size=2000), scale * rng.normal(size=2000)
        weights = (np.log(5.0) + stats.norm.logpdf(x) - stats.norm.logpdf(x, 0.0, scale) for x in (draws, of_flow))
        found.append(bridge(*weights, n_effective=2000))
    estimates, errors = np.transpose(found)
    assert np.mean(estimates) == pytest.approx(np.log(5.0), abs=4.0 * np.std(estimates) / np.sqrt(200))
    assert np.median(errors) == pytest.approx(np.std(estimates), rel=0.2)
    with pytest.raises(ValueError, match="finite weights; got 0 of 0 and 3 of 3"):
        bridge(np.zeros(0), np.zeros(3), n_effective=5)


def test_calibration_finds_overconfidence():
    rng = np.random.default_rng(0)
    centre = rng.normal(size=(400, 1))
    truth = centre + rng.normal(size=(400, 1))
    right, narrow = (centre[:, np.newaxis] + scale * rng.normal(size=(400, 199, 1)) for scale in (1.0, 0.6))
    levels = np.array([0.5, 0.9])
    np.testing.assert_allclose(diagnostics.coverage(right, truth, levels)[:, 0], levels, atol=0.07)
    many = rng.normal(size=(20_000, 1))
    few = diagnostics.coverage(rng.normal(size=(20_000, 19, 1)), many, levels)[:, 0]
    np.testing.assert_allclose(few, levels, atol=0.012)  # of few draws, too
    assert np.all(diagnostics.coverage(narrow, truth, levels)[:, 0] < levels - 0.1)
    assert stats.kstest(diagnostics.ranks(right, truth).ravel() / 200.0, "uniform").pvalue > 1e-3
    assert stats.kstest(diagnostics.ranks(narrow, truth).ravel() / 200.0, "uniform").pvalue < 1e-3


# Kernels leave the target as it is, whatever the flow; a wrong acceptance does not.

N_CHAINS = 4000


def normal(z):
    return -0.5 * tf.reduce_sum(z**2, axis=-1)


@pytest.fixture(scope="module")
def small_flow():
    """Of two numbers, with random weights: it fits nothing."""
    from cases import randomise

    flow = tff.FlowModel(tff.RealNVP(2, n_layers=2, hidden=(8,)))
    randomise(flow.bijector, scale=0.3)
    return flow


def after_steps(kernel, n=5):
    """A function of a seed: where chains are that began at exact draws."""

    @tf.function(autograph=False)
    def run(z, seed):
        results = kernel.bootstrap_results(z)
        for now in tfp.random.split_seed(seed, n=n):
            z, results = kernel.one_step(z, results, seed=now)
        return z

    def compute(seed):
        z = np.random.default_rng(seed).normal(size=(N_CHAINS, 2)).astype(np.float32)
        return run(tf.constant(z), tf.constant([seed, 7])).numpy()

    return compute


def p_value(z):
    radius = np.sum(z**2, axis=-1)
    return min(
        stats.kstest(z[:, 0], "norm").pvalue,
        stats.kstest(z[:, 1], "norm").pvalue,
        stats.kstest(radius, "chi2", args=(2,)).pvalue,
    )


def kernels(flow):
    proposal = inference.FlowProposal(normal, flow)
    hamiltonian = tfp.mcmc.HamiltonianMonteCarlo(normal, step_size=0.5, num_leapfrog_steps=3)
    return {"FlowProposal": proposal, "InTurn": inference.InTurn([hamiltonian, proposal], [2, 3])}


@pytest.mark.parametrize("name", ["FlowProposal", "InTurn"])
def test_kernels_leave_the_target_as_it_is(small_flow, name):
    end = after_steps(kernels(small_flow)[name])
    values = [p_value(end(seed)) for seed in range(10)]
    assert min(values) > 0.01 / 30.0  # the least of thirty
    assert stats.kstest(values, lambda p: 1.0 - (1.0 - p) ** 3).pvalue > 0.001


def test_a_wrong_acceptance_is_caught(small_flow):
    class Wrong(inference.FlowProposal):
        """Forgets the flow's density of where the chain is."""

        def one_step(self, current_state, previous_kernel_results, seed=None):
            forgotten = previous_kernel_results._replace(
                flow_log_prob=tf.zeros_like(previous_kernel_results.flow_log_prob)
            )
            return super().one_step(current_state, forgotten, seed)

    assert p_value(after_steps(Wrong(normal, small_flow))(0)) < 1e-4


def test_kernels_stand_in_sample_chain(small_flow):
    kernel = kernels(small_flow)["InTurn"]

    @tf.function(autograph=False)
    def run():
        return tfp.mcmc.sample_chain(
            200, tf.zeros([50, 2]), kernel=kernel, num_burnin_steps=10, trace_fn=None, seed=(1, 2)
        )

    draws = run()
    assert draws.shape == (200, 50, 2)
    np.testing.assert_allclose(np.std(draws, axis=(0, 1)), 1.0, atol=0.05)


def banana(z):
    return -0.5 * z[:, 0] ** 2 - 0.5 * ((z[:, 1] - 0.5 * z[:, 0] ** 2) / 0.5) ** 2 - np.float32(np.log(np.pi))


def check_banana(found):
    """Of mean (0, 0.5) and deviations (1, sqrt(0.5 + 0.25)); its integral is 1."""
    np.testing.assert_allclose(found.mean(), [0.0, 0.5], atol=0.15)
    np.testing.assert_allclose(found.std(), [1.0, np.sqrt(0.75)], rtol=0.15)
    assert found.n_gradients > 0
    if found.log_evidence is not None:
        assert abs(found.log_evidence) < max(5.0 * found.log_evidence_error, 0.05)


def tiny_flow():
    return tff.FlowModel(tff.RealNVP(2, n_layers=4, hidden=(16,)))


def test_flow_mh(tmp_path):
    path = tmp_path / "run.npz"
    settings = {"n_chains": 8, "n_walkers": 64, "n_rounds": 4, "n_local": 3, "n_global": 2, "verbose": False}
    found = inference.flow_mh(Target(banana, 2), n_draws=500, flow=tiny_flow(), seed=1, checkpoint=path, **settings)
    assert found.draws.shape == (8, 500, 2)
    check_banana(found)
    assert np.all(found.diagnostics["r_hat"] < 1.05)
    assert np.all(found.diagnostics["ess_bulk"] > 400)
    np.testing.assert_allclose(found.log_prob.ravel(), banana(found.draws.reshape(-1, 2)), atol=1e-3)
    # From the checkpoint: what was drawn is kept, and 100 more are drawn.
    more = inference.flow_mh(Target(banana, 2), n_draws=600, flow=tiny_flow(), seed=1, checkpoint=path, **settings)
    np.testing.assert_array_equal(more.draws[:, :500], found.draws)
    fewer = inference.flow_mh(Target(banana, 2), n_draws=300, flow=tiny_flow(), seed=1, checkpoint=path, **settings)
    np.testing.assert_array_equal(fewer.draws, found.draws[:, :300])
    with pytest.raises(ValueError, match="checkpoint of 3 chains; got 8"):
        inference.flow_mh(Target(banana, 2), flow=tiny_flow(), checkpoint=path, **(settings | {"n_chains": 3}))
    with pytest.raises(ValueError, match=r"initial points \[n, 2\]"):
        inference.flow_mh(Target(banana, 2), flow=tiny_flow(), initial=np.zeros(2), **settings)


@pytest.mark.usefixtures("without_xla")
def test_flow_mh_without_gradients():
    """Random walks of a log_prob in NumPy."""

    def log_prob(x):
        return -0.5 * np.sum(((x - [1.0, -2.0]) / [0.5, 2.0]) ** 2, axis=-1)

    target = Target(log_prob, 2)
    assert not target.has_gradient
    found = inference.flow_mh(
        target,
        n_draws=400,
        n_chains=8,
        flow=tiny_flow(),
        n_walkers=64,
        n_rounds=4,
        n_local=5,
        n_global=2,
        verbose=False,
    )
    assert found.n_gradients == 0
    np.testing.assert_allclose(found.mean(), [1.0, -2.0], atol=0.25)
    np.testing.assert_allclose(found.std(), [0.5, 2.0], rtol=0.15)
    assert abs(found.log_evidence - np.log(2.0 * np.pi)) < max(5.0 * found.log_evidence_error, 0.05)
    assert 0.1 < found.diagnostics["acceptance_local"] < 0.8


def test_a_normal_distribution_to_begin_with():
    """That of a narrow ridge far away is found; of a funnel none at its mode, which has no mass."""
    rng, mean = np.random.default_rng(0), np.float32([300.0, -20.0])
    factor = np.float32([[10.0, 0.0], [0.5, 0.01]])

    def ridge(x):
        u = tf.linalg.matvec(np.linalg.inv(factor), x - mean)
        return -0.5 * tf.reduce_sum(u**2, axis=-1)

    starts = rng.normal(size=(2000, 2)).astype(np.float32)
    draws, n_gradients = normal_draws(Target(ridge, 2), starts, 4000, rng)
    np.testing.assert_allclose(draws.mean(axis=0), mean, atol=1.0)
    np.testing.assert_allclose(np.cov(draws.T), factor @ factor.T, rtol=0.1)
    assert n_gradients < 20_000

    def funnel(x):
        return -0.5 * (x[:, 0] / 3.0) ** 2 + tf.reduce_sum(-0.5 * x[:, 1:] ** 2 * tf.exp(-x[:, :1]), -1) - 2.0 * x[:, 0]

    draws, _ = normal_draws(Target(funnel, 5), rng.normal(size=(2000, 5)).astype(np.float32), 4000, rng)
    assert np.all(draws.std(axis=0) > 0.1)
    assert abs(draws[:, 0].mean()) < 3.0


def test_variational_and_what_follows():
    found = inference.variational(
        Target(banana, 2), n_draws=1000, flow=tiny_flow(), n_steps=600, n_particles=64, n_rounds=1, verbose=False
    )
    check_banana(found)
    assert found.diagnostics["pareto_k"] < 0.7
    assert found.diagnostics["elbo"] < 0.03  # in the mean at most 0, the log-evidence
    chains = inference.neutra_hmc(
        Target(banana, 2), n_draws=200, n_chains=8, flow=found.flow, n_steps=0, n_adapt=150, jit_compile=False,
        verbose=False,
    )  # fmt: skip
    check_banana(chains)
    assert chains.diagnostics["divergences"] <= 2
    in_numpy = Target(lambda x: -0.5 * np.sum(np.asarray(x) ** 2, axis=-1) * np.ones(len(np.asarray(x))), 2)
    for sampler in (inference.variational, inference.neutra_hmc):
        with pytest.raises(ValueError, match="in NumPy"):
            sampler(in_numpy, verbose=False)


def test_gradients_that_are_not_finite_stop_no_sampler():
    """sqrt of x < 0 is NaN, and so is its gradient: half of the plane is impossible."""

    def log_prob(x):
        return -x[:, 0] - 0.5 * x[:, 1] ** 2 + tf.sqrt(x[:, 0])

    target = Target(log_prob, 2)
    steep = Target(lambda x: -1e30 * tf.reduce_sum(x**2, axis=-1), 2)
    gradient = tfp.math.value_and_gradient(steep.unconstrained_log_prob, tf.ones([1, 2]))[1]
    np.testing.assert_array_equal(gradient, [[-1e10, -1e10]])
    gradient = tfp.math.value_and_gradient(target.unconstrained_log_prob, tf.constant([[-1.0, 0.0], [0.25, 1.0]]))[1]
    np.testing.assert_allclose(gradient, [[0.0, 0.0], [0.0, -1.0]], atol=1e-6)
    found = inference.variational(
        target, flow=tiny_flow(), n_draws=200, n_steps=100, n_particles=32, n_rounds=0, verbose=False
    )
    # Where the target is zero none of its gradient keeps the flow away; a loss that did not wandered off there.
    assert np.mean(found.flow.sample(500, seed=0)[:, 0] > 0.0) > 0.85
    np.testing.assert_allclose(found.log_evidence, 1.9233, atol=0.2)  # by quadrature
    chains = inference.neutra_hmc(
        target, flow=found.flow, n_draws=50, n_chains=4, n_steps=0, n_adapt=50, jit_compile=False, verbose=False
    )
    assert np.all(chains.draws[..., 0] > 0.0)


def test_proposals_of_smc_leave_the_target_as_it_is(small_flow):
    """From exact draws at beta = 0.5, with a reference distribution that fits nothing."""
    from tfflows.inference.smc import _Run

    # Prior N(0, 1), likelihood exp(-|x|^2): at beta 0.5 the density is normal of deviation 1 / sqrt(2).
    prior = tfd.MultivariateNormalDiag(np.zeros(2, np.float32), np.ones(2, np.float32))
    target = Target(lambda x: -tf.reduce_sum(x**2, axis=-1), prior=prior)
    run = _Run(target, small_flow, np.random.default_rng(0), N_CHAINS)
    mean, factor = tf.constant([0.3, -0.2]), tf.constant([[1.2, 0.0], [0.5, 0.8]])
    scale = tf.constant(np.random.default_rng(1).uniform(size=(N_CHAINS, 1)) > 0.3, tf.float32)  # far ones, too
    scale = tf.maximum(0.6, scale)

    def after(seed, factor_of_log_det=1.0):
        z = tf.constant(np.random.default_rng(seed).normal(0.0, np.sqrt(0.5), (N_CHAINS, 2)).astype(np.float32))
        latent, log_det = small_flow.bijector.inverse_and_log_det(z)
        likelihood, prior = run._densities(z)
        known = (z, likelihood, prior, -factor_of_log_det * log_det)
        for i in range(5):
            latent, known, *_ = run._step(
                latent, known, 0.5, scale, mean, factor, tf.constant(4.0), tf.constant([seed, i])
            )
        return known[0].numpy() * np.sqrt(2.0)

    values = [p_value(after(seed)) for seed in range(5)]
    assert min(values) > 0.01 / 15.0
    assert p_value(after(0, factor_of_log_det=-1.0)) < 1e-4
