"""Bases against SciPy: densities, samples, temperature, files."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from scipy import stats

from tfflows import bases

Z = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)


def randomised(base):
    rng = np.random.default_rng(1)
    for weight in base.trainable_weights:
        weight.assign(0.5 * rng.normal(size=weight.shape))
    return base


BASES = {
    "standard_normal": lambda: bases.StandardNormal(2),
    "diagonal_normal": lambda: randomised(bases.DiagonalNormal(2)),
    "student_t": lambda: bases.StudentT(2, df=3.0),
    "mixture": lambda: randomised(bases.MixtureOfNormals(2, n_components=3)),
    "uniform_box": lambda: bases.UniformBox(2, -3.0, 4.0),
}
ALL = pytest.mark.parametrize("name", BASES)


def oracle(name, base, z, temperature):
    if name == "standard_normal":
        return stats.norm(0.0, temperature).logpdf(z).sum(axis=-1)
    if name == "diagonal_normal":
        return stats.norm(base.location, temperature * np.exp(base.log_scale)).logpdf(z).sum(axis=-1)
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
    assert np.all(np.isfinite(log_prob)) or name == "uniform_box"


def test_uniform_box_ends():
    base = bases.UniformBox(1, -np.pi, np.pi)
    assert np.all(np.isfinite(base.log_prob(np.array([[-np.pi], [np.pi]], np.float32))))
    assert np.all(np.isneginf(base.log_prob(np.array([[-3.2], [3.2]], np.float32))))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: bases.StudentT(2, df=0.0), "df > 0"),
        (lambda: bases.MixtureOfNormals(2, n_components=0), "n_components >= 1"),
        (lambda: bases.UniformBox(2, 1.0, 1.0), "low < high"),
        (lambda: bases.FromTFP(tfp.distributions.Normal(tf.Variable(0.0), 1.0)), "without variables"),
        (lambda: bases.FromTFP(tfp.distributions.Normal([0.0, 1.0], 1.0)), "empty batch shape"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
