"""Distribution functions and quantiles of bases, against SciPy."""

import numpy as np
import pytest
import tensorflow as tf
from cases import policy
from scipy import special, stats

from tfflows import bases

# Lower tails keep their digits; upper ones end where 1 - p rounds.
P = np.array([1e-30, 1e-12, 1e-5, 0.01, 0.2, 0.5, 0.7, 0.99, 0.9999])


def diagonal():
    base = bases.DiagonalNormal(2)
    base.location.assign([1.0, -3.0])
    base.log_scale.assign([0.5, -1.0])
    return base


CASES = {
    "standard_normal": (lambda: bases.StandardNormal(2), lambda base: stats.norm([0.0, 0.0], 1.0)),
    "diagonal_normal": (diagonal, lambda base: stats.norm(base.location, np.exp(base.log_scale))),
    "student_t": (lambda: bases.StudentT(2, [1.5, 40.0]), lambda base: stats.t([1.5, 40.0])),
    "uniform_box": (lambda: bases.UniformBox(2, -3.0, 4.0), lambda base: stats.uniform([-3.0, -3.0], 7.0)),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-5), ("float64", 1e-12)])
def test_against_scipy(name, dtype, tolerance):
    with policy(dtype):
        make, oracle = CASES[name]
        base = make()
        truth = oracle(base)
        # Of Student-t, 1e-30 is where float32 cannot square the number.
        p = P[1 if name == "student_t" else 0 :, None] * np.ones(2)
        z = truth.ppf(p).astype(dtype)
        cdf = tf.function(base.cdf, jit_compile=True)
        quantile = tf.function(base.quantile, jit_compile=True)
        # How far a probability moves when the number is rounded.
        rounding = 2.0 * np.finfo(dtype).eps * np.abs(z.astype(np.float64)) * truth.pdf(z.astype(np.float64))
        error = np.abs(cdf(z) - truth.cdf(z.astype(np.float64)))
        assert np.all(error <= tolerance * truth.cdf(z.astype(np.float64)) + rounding)
        inner = p[-7:].astype(dtype)
        # In units of the probability: one rounding of p near 1 is a long way in z.
        found = quantile(inner).numpy()
        assert found.dtype == dtype
        found = found.astype(np.float64)
        rounding = np.finfo(dtype).eps * np.maximum(np.abs(found), 3.0) * truth.pdf(found)
        assert np.all(np.abs(truth.cdf(found) - inner) <= tolerance * inner + rounding)
        assert base.cdf(tf.zeros([4, 3, 2], dtype)).shape == (4, 3, 2)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 3e-6), ("float64", 1e-13)])
def test_von_mises(dtype, tolerance):
    """Against quadrature: SciPy's own function is right to 1e-6."""
    concentration, location = np.meshgrid([1e-6, 1.0, 9.0, 300.0, 1e4], [0.0, 2.5, -20.0])
    concentration, location = concentration.ravel(), location.ravel()
    with policy(dtype):
        base = bases.VonMises(len(location))
        base.location.assign(location)
        base.log_concentration.assign(np.log(concentration))
        centre = np.remainder(location + np.pi, 2.0 * np.pi) - np.pi
        step = np.linspace(-7.0, 7.0, 15)[:, None]
        z = np.clip(centre + step / np.sqrt(np.maximum(concentration, 4.0)), -np.pi, np.pi)
        z = np.concatenate([0.0 * z[:1] - np.pi, z, 0.0 * z[:1] + np.pi])
        nodes, weights = np.polynomial.legendre.leggauss(80)
        half, middle = 0.5 * np.diff(z, axis=0), 0.5 * (z[1:] + z[:-1])
        at = middle[..., None] + half[..., None] * nodes
        density = np.exp(-2.0 * concentration[:, None] * np.sin(0.5 * (at - centre[:, None])) ** 2)
        truth = np.cumsum(half * np.sum(weights * density, axis=-1), axis=0)
        truth = np.concatenate([0.0 * z[:1], truth]) / (2.0 * np.pi * special.i0e(concentration))
        # Angles are rounded, those of a far location most.
        tolerance = tolerance + np.finfo(dtype).eps * (np.abs(location) + np.pi) * np.sqrt(concentration)
        assert np.all(np.abs(base.cdf(z.astype(dtype)) - truth) <= tolerance)
        p = (np.linspace(0.0, 1.0, 21)[:, None] * np.ones(len(location))).astype(dtype)
        found = tf.function(base.quantile, jit_compile=True, autograph=False)(p)
        assert np.all(np.abs(found) <= np.pi + 1e-6)
        assert np.all(np.abs(base.cdf(found) - p) <= tolerance)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_mixture_of_one_number(dtype):
    with policy(dtype):
        base = bases.MixtureOfNormals(1, n_components=3)
        base.location.assign([[-4.0], [0.0], [30.0]])
        base.log_scale.assign([[0.0], [-2.0], [1.0]])
        base.logits.assign(np.log([0.2, 0.5, 0.3]))
        p = np.array([0.0, 1e-20, 1e-4, 0.1, 0.2, 0.3, 0.7, 0.9, 0.999, 1.0], dtype)[:, None]
        z = base.quantile(p).numpy()
        assert z[0] == -np.inf
        assert z[-1] == np.inf
        scales = np.exp([0.0, -2.0, 1.0])
        truth = np.sum([0.2, 0.5, 0.3] * stats.norm([-4.0, 0.0, 30.0], scales).cdf(z.astype(np.float64)), axis=1)
        np.testing.assert_allclose(truth, p[:, 0], rtol=1e-4 if dtype == "float32" else 1e-12)
        np.testing.assert_allclose(base.cdf(z), p, rtol=1e-4 if dtype == "float32" else 1e-12)


@pytest.mark.parametrize("name", ["diagonal_normal", "student_t", "von_mises", "mixture"])
def test_slopes_are_the_density(name, float64):
    """The gradient of the distribution function, and one over it that of the quantile."""
    makes = {name: make for name, (make, _) in CASES.items()}
    makes["von_mises"] = lambda: bases.VonMises(1, 3.0)
    makes["mixture"] = lambda: bases.MixtureOfNormals(1)
    base = makes[name]()
    z = base.quantile(np.linspace(0.01, 0.99, 9)[:, None] * np.ones(base.event_shape))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(z)
        p = base.cdf(z)
        again = base.quantile(p)
        log_prob = base.log_prob(z)
    np.testing.assert_allclose(again, z, atol=1e-9)
    np.testing.assert_allclose(tf.reduce_prod(tape.gradient(p, z), axis=-1), np.exp(log_prob), rtol=1e-9)
    np.testing.assert_allclose(tape.gradient(again, z), np.ones_like(z), rtol=1e-7)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: bases.Resampled(2), "independent scalars"),
        (lambda: bases.MixtureOfNormals(2), "events of one number"),
    ],
)
def test_bases_without_one_say_so(make, message):
    base = make()
    for method in (base.cdf, base.quantile):
        with pytest.raises(ValueError, match=message):
            method(np.full([1, 2], 0.5, np.float32))
