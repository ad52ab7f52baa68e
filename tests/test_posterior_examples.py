"""The examples of posteriors: their exact answers, and that they run."""

import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from scipy import integrate, stats

EXAMPLES = Path(__file__).parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))

import neural_posterior  # noqa: E402
import posterior_problems  # noqa: E402
import posteriors  # noqa: E402

from tfflows.inference import Result, diagnostics  # noqa: E402


def test_schools_exact_draws_and_evidence(rng):
    """Against the definition: the prior's draws weighted by the likelihood."""
    exact, evidence = posterior_problems.schools_exact(50_000, rng)
    target = posterior_problems.schools_target()
    x = target.sample_prior(200_000, rng)
    log_weights = target.log_likelihood(tf.constant(x)).numpy().astype(np.float64)
    weights = np.exp(log_weights - log_weights.max())
    n_effective = diagnostics.effective_weights(log_weights)
    assert n_effective > 1000
    assert np.log(weights.mean()) + log_weights.max() == pytest.approx(evidence, abs=4.0 / np.sqrt(n_effective))
    # The means of effects and mu, and of log tau, whose own tail is long.
    exact, x = (np.concatenate([v[:, :9], np.log(v[:, 9:])], axis=1) for v in (exact, x))
    error = exact.std(axis=0) * np.sqrt(1.0 / n_effective + 1.0 / len(exact))
    np.testing.assert_array_less(np.abs(exact.mean(axis=0) - np.average(x, axis=0, weights=weights)), 4.0 * error)


def test_schools_target_is_centred(rng):
    target = posterior_problems.schools_target()
    x = np.float32([[3.0, 5.0, -1.0, 0.0, 2.0, 4.0, 6.0, 1.0, 2.0, 1.5]])
    prior = (
        stats.norm(2.0, 1.5).logpdf(x[0, :8]).sum() + stats.norm(0, 5).logpdf(2.0) + stats.halfcauchy(0, 5).logpdf(1.5)
    )
    likelihood = stats.norm(x[0, :8], posterior_problems.ERRORS).logpdf(posterior_problems.EFFECTS).sum()
    np.testing.assert_allclose(target.log_prob(tf.constant(x)), prior + likelihood, rtol=1e-5)
    np.testing.assert_allclose(target.unconstrain(x)[:, :9], x[:, :9])


def test_funnel_is_normal_in_v_and_its_integral_is_known():
    """The nine others integrate to sqrt(2 pi) e^(v/2) each: the log-density where they are zero gives that of v."""
    v = np.linspace(-9.0, 9.0, 7, dtype=np.float32)
    x = np.zeros([7, 10], np.float32)
    x[:, 0] = v
    volume = 4.5 * (v + np.log(2.0 * np.pi))
    found = posterior_problems.funnel_log_prob(tf.constant(x)).numpy() + volume
    truth = stats.norm(0.0, 3.0).logpdf(v) + posterior_problems.FUNNEL_LOG_EVIDENCE
    np.testing.assert_allclose(found, truth, atol=1e-4)
    x[:, 1] = np.exp(v / 2.0)  # one deviation away
    away = posterior_problems.funnel_log_prob(tf.constant(x)).numpy() + volume
    np.testing.assert_allclose(away - found, -0.5, atol=1e-4)


def test_banana_moments(rng):
    def moment(of):
        def density(x2, x1):
            return of(x1, x2) * np.exp(posterior_problems.banana_log_prob(np.array([[x1, x2]]))[0])

        def ridge(sign):
            return lambda x1: posterior_problems.TWIST * (x1**2 - 100.0) + sign * 8.0

        return integrate.dblquad(density, -80.0, 80.0, ridge(-1.0), ridge(1.0), epsabs=1e-4, epsrel=1e-6)[0]

    total = moment(lambda x1, x2: 1.0)
    deviations = posterior_problems.BANANA_DEVIATIONS
    assert moment(lambda x1, x2: x2) / total == pytest.approx(0.0, abs=1e-3)
    assert moment(lambda x1, x2: x1**2) / total == pytest.approx(deviations[0] ** 2, rel=1e-4)
    assert moment(lambda x1, x2: x2**2) / total == pytest.approx(deviations[1] ** 2, rel=1e-4)
    x = posterior_problems.banana_exact(100_000, rng)
    np.testing.assert_allclose(x.std(axis=0), deviations, rtol=0.02)


def test_modes_are_separated_and_shares_are_counted(rng):
    problem = posterior_problems.Modes(4)
    x = problem.sample(4000, rng)
    # Of the importance weights of a wide proposal around each centre the mean is the integral.
    proposal = rng.normal(problem.centres[np.arange(40_000) % 4], 0.6)
    density = np.mean([stats.norm(c, 0.6).pdf(proposal).prod(axis=1) for c in problem.centres], axis=0)
    log_prob = problem.log_likelihood(tf.constant(proposal, tf.float32)).numpy()
    assert np.mean(np.exp(log_prob) / density) == pytest.approx(1.0, abs=0.05)
    result = Result(x.reshape(2, 2000, 8), np.zeros([2, 2000]), [f"x{i}" for i in range(8)])
    np.testing.assert_allclose(problem.shares(result), problem.weights, atol=4.0 * 0.5 / np.sqrt(4000))
    assert 0.0 < problem.error(result) < 15.0
    half = Result(
        x.reshape(2, 2000, 8), np.zeros([2, 2000]), result.names, np.where(x[:, 0] > 0, 0.0, -np.inf).reshape(2, 2000)
    )
    assert problem.error(half) > problem.error(result)


def test_credit_is_standardised_and_split():
    (x, y), (x_test, y_test) = posterior_problems.credit_data()
    assert x.shape == (800, 25)
    assert x_test.shape == (200, 25)
    every = np.concatenate([x, x_test])
    np.testing.assert_allclose(every[:, 1:].mean(axis=0), 0.0, atol=1e-5)
    np.testing.assert_allclose(every[:, 1:].std(axis=0), 1.0, atol=1e-5)
    assert y.sum() + y_test.sum() == 300
    # Of no coefficient but the intercept's nothing is known but the share.
    accuracy, score = posterior_problems.held_out(np.eye(25)[:1] * np.log(0.3 / 0.7), x_test, y_test)
    assert accuracy == pytest.approx(1.0 - y_test.mean())
    assert score == pytest.approx(y_test.mean() * np.log(0.3) + (1.0 - y_test.mean()) * np.log(0.7))


def test_posteriors_example(tmp_path, capsys, without_xla, quick_samplers):
    table = posteriors.main(tmp_path, ["banana", "modes4"], quick=True)
    assert (tmp_path / "posteriors.png").stat().st_size > 20_000
    assert [row.problem for row in table] == ["banana"] * 4 + ["modes4"] * 3
    printed = capsys.readouterr().out
    for row in table:
        assert np.isfinite(row.value)
        assert row.evaluations > 0
        assert row.seconds > 0.0
        assert posteriors.line(row) in printed
    by = {(row.sampler, row.quantity): row for row in table}
    assert by["variational", "deviation of x1"].value == pytest.approx(10.0, abs=5.0)
    evidence = by["preconditioned_smc", "log-evidence"]
    assert evidence.value == pytest.approx(evidence.truth, abs=3.0)
    with pytest.raises(ValueError, match=r"Expected problems of .*; got \['apple'\]"):
        posteriors.main(tmp_path, ["apple"])


def test_two_moons_posterior_is_that_of_its_simulator(rng):
    """Joint draws, theta first or x first, are the same: theta given x must be the posterior."""
    task = neural_posterior.TwoMoons()
    theta = task.prior(400, rng)
    x = task.simulate(theta, rng)
    again = np.stack([task.posterior(row, 100, rng) for row in x])
    ranks = diagnostics.ranks(again[:, :99], theta)
    assert np.all(neural_posterior.rank_p_values(ranks, 99, 10) > 1e-3)
    assert np.all(np.abs(again) <= 1.0)
    # The crescent that theta leaves of x: radius 0.1 +- 0.01, the right half.
    total, difference = (again.sum(axis=2) / np.sqrt(2.0), (again[..., 1] - again[..., 0]) / np.sqrt(2.0))
    crescent = x[:, np.newaxis] - np.stack([-np.abs(total), difference], axis=-1) - [0.25, 0.0]
    radius = np.linalg.norm(crescent, axis=-1)
    assert radius.mean() == pytest.approx(0.1, abs=5e-4)
    assert radius.std() == pytest.approx(0.01, rel=0.05)
    assert crescent[..., 0].min() > 0.0
    with pytest.raises(ValueError, match="Expected x that the simulator gives"):
        task.posterior(np.array([5.0, 0.0]), 10, rng)


def test_two_moons_posterior_has_both_signs_alike(rng):
    """By brute force: prior draws whose simulation falls next to x."""
    task = neural_posterior.TwoMoons()
    x = np.array([-0.6, 0.2])
    theta = task.prior(2_000_000, rng)
    theta = theta[np.linalg.norm(task.simulate(theta, rng) - x, axis=1) < 0.02]
    assert len(theta) > 200
    assert diagnostics.two_sample(theta, task.posterior(x, len(theta), rng)) < 0.56


def test_gaussian_posterior_is_conjugate(rng):
    task = neural_posterior.GaussianLinear()
    theta = task.prior(20_000, rng)
    x = task.simulate(theta, rng)
    again = np.concatenate([task.posterior(row, 1, rng) for row in x])
    np.testing.assert_allclose(again.T @ x / len(x), theta.T @ x / len(x), atol=0.01)
    np.testing.assert_allclose(np.cov(again.T), np.cov(theta.T), atol=0.01)


def test_rank_p_values(rng):
    flat = rng.integers(0, 100, (2000, 3))
    assert np.all(neural_posterior.rank_p_values(flat, 99) > 1e-3)
    narrow = np.clip(flat * 2 - 50, 0, 99)  # what a posterior that is too narrow gives
    assert np.all(neural_posterior.rank_p_values(narrow, 99) < 1e-6)
    with pytest.raises(ValueError, match="Expected a number of bins that divides 100 ranks; got 7"):
        neural_posterior.rank_p_values(flat, 99, 7)


def test_neural_posterior_example(tmp_path, capsys, without_xla):
    reports = neural_posterior.main(tmp_path, quick=True)
    assert (tmp_path / "neural_posterior.png").stat().st_size > 20_000
    assert list(reports) == ["two moons", "Gaussian linear"]
    for report in reports.values():
        (c2st,) = report.c2st.values()
        assert c2st.shape == (2,)
        assert np.all((c2st > 0.3) & (c2st <= 1.0))
        assert report.ranks.min() >= 0
        assert report.ranks.max() <= report.m
        assert np.all(np.diff(report.covered, axis=0) >= 0.0)
        # A flow that knew no more than the prior would have this too; what is below it would not.
        assert abs(report.covered.mean(axis=1) - neural_posterior.LEVELS).max() < 0.3
    shown, _ = reports["Gaussian linear"].shown[0]
    assert shown.std(axis=0).mean() < 0.9 * np.sqrt(0.1)  # narrower than the prior: it has learned from x
    assert "published" in capsys.readouterr().out
