"""Matrices against NumPy and SciPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import randomise
from scipy import linalg

from tfflows import FlowModel
from tfflows import bijectors as tfb
from tfflows.numerics import expm_skew, orthogonal_from_reflections


def matrix_of(bijector):
    """A with z = A x."""
    return np.transpose(bijector.inverse(np.eye(bijector.event_shape[-1])))


@pytest.mark.parametrize("scale", [1e-8, 0.1, 3.0, 30.0])
def test_exponential_equals_scipy(scale, rng):
    skew = scale * rng.normal(size=(6, 6))
    skew = skew - skew.T
    found = expm_skew(tf.constant(skew)).numpy()
    np.testing.assert_allclose(found, linalg.expm(skew), atol=1e-10)
    single = expm_skew(tf.constant(skew, tf.float32)).numpy()
    np.testing.assert_allclose(single @ single.T, np.eye(6), atol=3e-6)


def test_exponential_of_anything_is_a_rotation(rng):
    skew = 1e6 * rng.normal(size=(4, 4))
    found = expm_skew(tf.constant(skew - skew.T, tf.float32)).numpy()
    np.testing.assert_allclose(found @ found.T, np.eye(4), atol=3e-6)


def test_reflections_equal_their_product(rng):
    directions = rng.normal(size=(4, 5))
    expected = np.eye(5)
    for v in directions:
        expected = expected @ (np.eye(5) - 2.0 * np.outer(v, v) / (v @ v))
    np.testing.assert_allclose(orthogonal_from_reflections(tf.constant(directions)), expected, atol=1e-12)
    directions[1] = 0.0  # reflects nothing, and is finite in value and gradient
    with tf.GradientTape() as tape:
        given = tf.constant(directions)
        tape.watch(given)
        found = orthogonal_from_reflections(given)
    np.testing.assert_allclose(found @ tf.transpose(found), np.eye(5), atol=1e-12)
    assert np.all(np.isfinite(tape.gradient(found, given)))


@pytest.mark.parametrize("cls", [tfb.Householder, tfb.MatrixExponential, tfb.RandomRotation])
@pytest.mark.parametrize("n_dim", [2, 3, 8])
def test_orthogonal_ones_are(float64, cls, n_dim):
    matrix = matrix_of(randomise(cls(n_dim), 3.0))
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(n_dim), atol=1e-12)
    assert np.max(np.abs(matrix - np.eye(n_dim))) > 0.1


def test_lu_is_the_product_of_its_factors(float64):
    bijector = randomise(tfb.LU(4))
    packed = bijector.layers[0].get_weights()[0]
    lower = np.tril(packed, -1) + np.eye(4)
    upper = np.triu(packed, 1) + np.diag(np.exp(np.diag(packed)))
    np.testing.assert_allclose(matrix_of(bijector), lower @ upper, atol=1e-12)


def test_qr_is_orthogonal_times_upper_with_positive_diagonal(float64):
    matrix = matrix_of(randomise(tfb.QR(4)))
    orthogonal, upper = np.linalg.qr(matrix)
    assert np.linalg.det(orthogonal * np.sign(np.diag(upper))) == pytest.approx(1.0)


def test_random_rotations_are_uniform():
    """The first entry's square of a uniform rotation in 3 dimensions has mean 1 / 3, of either sign as often."""
    entries = [tfb.RandomRotation(3, seed=i)._rotation[0, 0] for i in range(2000)]
    assert np.mean(np.square(entries)) == pytest.approx(1.0 / 3.0, abs=0.02)
    assert np.mean(entries) == pytest.approx(0.0, abs=0.05)


def test_matrix_fits_a_correlated_normal(rng):
    """The factor of a covariance is what maximum likelihood finds."""
    covariance = np.array([[2.0, 1.2], [1.2, 1.0]])
    x = rng.multivariate_normal([0.0, 0.0], covariance, size=4000).astype(np.float32)
    flow = FlowModel(tfb.LU(2))
    flow.compile(keras.optimizers.Adam(0.02))
    flow.fit(x, epochs=30, verbose=0)
    matrix = matrix_of(flow.bijector)
    np.testing.assert_allclose(matrix.T @ matrix, np.linalg.inv(np.cov(x.T)), rtol=0.1, atol=0.05)
