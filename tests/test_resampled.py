"""The resampled base: a density, its sampler, training and exports."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

import tfflows as tff
from tfflows import FlowModel, bases, export
from tfflows.bijectors import Elementwise
from tfflows.randomness import seeded_uniform, training_randomness
from tfflows.transformers import Affine

# Midpoints of a grid in 12 x 12 cells of 10 x 10 points.
SIDE = np.linspace(-3.0, 3.0, 121)
CENTRES = 0.5 * (SIDE[1:] + SIDE[:-1])
AREA = (SIDE[1] - SIDE[0]) ** 2


def resampled(rng, **kwargs):
    """One whose acceptance differs a lot from place to place."""
    base = bases.Resampled(2, tff.nets.MLP(1, (16, 16)), **kwargs)
    for weight in base.net.trainable_weights:
        weight.assign(rng.normal(size=weight.shape) * (0.7 if len(weight.shape) == 2 else 1.0))
    return base


def grid(side):
    return np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1).reshape(-1, 2).astype(np.float32)


def chi_squared(draws, density):
    """The p-value of counts in cells, against the density on the finer grid."""
    counts = np.histogram2d(*draws.T, [SIDE[::10]] * 2)[0]
    expected = len(draws) * AREA * density.reshape(12, 10, 12, 10).sum(axis=(1, 3))
    outside = len(draws) - counts.sum(), len(draws) - expected.sum()
    enough = expected > 5.0
    counts, expected = np.r_[counts[enough], outside[0]], np.r_[expected[enough], outside[1]]
    return stats.chi2.sf(np.sum((counts - expected) ** 2 / expected), len(counts))


@pytest.mark.parametrize(("n_attempts", "temperature"), [(3, 1.0), (100, 1.0), (100, 0.7)])
def test_density_and_draws(n_attempts, temperature, rng):
    base = resampled(rng, n_attempts=n_attempts)
    acceptance = base.acceptance(grid(SIDE)).numpy()
    assert acceptance.min() < 0.05
    assert acceptance.max() > 0.7
    wide = np.linspace(-6.0, 6.0, 241)
    density = np.exp(base.log_prob(grid(wide), temperature))
    assert density.sum() * (wide[1] - wide[0]) ** 2 == pytest.approx(1.0, abs=5e-3)
    density = np.exp(base.log_prob(grid(CENTRES), temperature))
    # No more draws: the normalising constant is an estimate, and this is not to notice its error.
    n = 4000
    draw = tf.function(lambda seed: base.sample([n], seed, temperature), jit_compile=True, autograph=False)
    z = draw(tf.constant([1, 2])).numpy()
    np.testing.assert_array_equal(draw(tf.constant([1, 2])), z)
    assert chi_squared(z, density) > 1e-3
    # What exports do.
    exported = base.from_uniform(seeded_uniform(tf.range(n), base.n_uniform), tf.fill([n], temperature)).numpy()
    assert chi_squared(exported, density) > 1e-3
    # The test would notice the base without its acceptance.
    assert chi_squared(rng.normal(0.0, temperature, (n, 2)), density) < 1e-6


def test_starts_as_its_proposal():
    base = bases.Resampled(2)
    z = grid(np.linspace(-2.0, 2.0, 5))
    np.testing.assert_allclose(base.log_prob(z), bases.StandardNormal(2).log_prob(z), atol=1e-5)
    assert float(base.mean_acceptance()) == pytest.approx(0.5)


def test_training_has_new_points_each_step(rng):
    """Their estimates differ, and agree in the mean with that of evaluation."""
    base = resampled(rng)
    z = np.zeros([1, 2], np.float32)

    @tf.function(autograph=False)
    def in_training(seed):
        with training_randomness(seed):
            return base.log_prob(z)

    found = [float(in_training(tf.constant([0, i]))[0]) for i in range(50)]
    assert len(set(found)) > 40
    assert np.mean(found) == pytest.approx(float(base.log_prob(z)[0]), abs=5e-3)


def test_events_of_any_shape_and_number(rng):
    for shape in ((2, 3, 1), (40,)):  # the second has too many scalars for Sobol's sequence
        base = bases.Resampled(shape, n_attempts=4, n_points=64)
        assert base.sample([5, 2], [0, 1]).shape == (5, 2, *shape)
        z = rng.normal(size=(5, 2, *shape)).astype(np.float32)
        np.testing.assert_allclose(base.log_prob(z), bases.StandardNormal(shape).log_prob(z), atol=1e-3)
        assert base.from_uniform(tf.fill([3, base.n_uniform], 0.4), tf.ones([3])).shape == (3, *shape)


def test_one_temperature():
    with pytest.raises(ValueError, match="one temperature"):
        bases.Resampled(2).log_prob(np.zeros([1, 2], np.float32), np.float32([1.0, 0.5]))


@pytest.mark.parametrize("format", ["tf_saved_model", "litert"])
@pytest.mark.parametrize("name", ["resampled", "von_mises", "student_t"])
def test_exports(name, format, rng, tmp_path):
    makes = {
        "resampled": lambda: resampled(rng, n_attempts=8, n_points=256),
        "von_mises": lambda: bases.VonMises(2, 3.0),
        "student_t": lambda: bases.StudentT(2, [2.0, 9.0], learned=True),
    }
    flow = FlowModel(Elementwise(Affine(), 2), makes[name]())
    flow.compile(jit_compile=False)
    path = tmp_path / ("flow.tflite" if format == "litert" else "flow")
    flow.export(path, format, verbose=False)
    x = rng.uniform(-3.0, 3.0, (200, 2)).astype(np.float32)
    assert max(one.difference for one in export.verify(path, flow, x)) < 1e-4
    n = 2000
    run = export.runner(path)
    drawn = run("sample", seed=np.arange(n, dtype=np.int32), temperature=np.ones(n, np.float32))["x"]
    ours = flow.sample(n, seed=1).numpy()
    for theirs, own in zip(drawn.T, ours.T, strict=True):
        assert stats.ks_2samp(theirs, own).pvalue > 1e-3
