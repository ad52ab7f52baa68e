"""PointCloudFlow: shapes as clouds of points, whose order says nothing."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfflows import CouplingRQNSF, FlowMatching, FlowModel, PointCloudFlow, RealNVP, SoftFlow, clouds, export
from tfflows.bijectors import Elementwise
from tfflows.clouds.inputs import joined
from tfflows.nets import PointNet
from tfflows.randomness import training_randomness
from tfflows.transformers import Shift

pytestmark = pytest.mark.usefixtures("without_xla")
LATENT = 2


def rings(n, n_points, rng):
    """Circles (label 0) and the outlines of squares (1) of any size: clouds in the plane."""
    labels = np.arange(n) % 2
    angle = rng.uniform(-np.pi, np.pi, (n, n_points))
    way = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    square = way / np.abs(way).max(axis=-1, keepdims=True)
    size = rng.uniform(0.5, 2.0, (n, 1, 1))
    return (size * np.where(labels[:, None, None] == 0, way, square)).astype(np.float32), labels


def flow_of(bijector=None, **kwargs):
    """A small one of points in the plane."""
    if bijector is None:
        bijector = SoftFlow(2, n_layers=3, hidden=(24, 24), context_dim=LATENT)
    prior = FlowModel(RealNVP(LATENT, n_layers=4, hidden=(16,), context_dim=2), n_classes=2)
    flow = PointCloudFlow(FlowModel(bijector), prior, PointNet(2 * LATENT, (16, 32), (16,)), n_points=64, **kwargs)
    flow.compile(keras.optimizers.Adam(5e-3, global_clipnorm=5.0), clouds.VariationalBound(n_points=48))
    return flow


@pytest.fixture(scope="module")
def fitted():
    keras.utils.set_random_seed(0)
    flow = flow_of()
    flow.fit(*rings(400, 96, np.random.default_rng(0)), epochs=25, batch_size=16, verbose=0)
    return flow


def roundness(x):
    """Of clouds `[..., P, 2]`: 0 for circles about the origin, 0.13 for squares."""
    radius = np.linalg.norm(x, axis=-1)
    return radius.std(axis=-1) / radius.mean(axis=-1)


def test_new_shapes_are_of_their_class_and_of_all_sizes(fitted):
    x = fitted.sample(60, 256, np.array([0, 1]), seed=0).numpy()
    assert x.shape == (60, 2, 256, 2)
    round_, square = np.median(roundness(x), axis=0)
    assert round_ < 0.08 < square
    sizes = np.linalg.norm(x[:, 0], axis=-1).mean(axis=-1)
    assert sizes.min() < 0.9
    assert sizes.max() > 1.6
    one = fitted.sample(3, context=1, seed=0)
    assert one.shape == (3, 64, 2)


def test_reconstructions_are_like_their_cloud(fitted, rng):
    x, _ = rings(10, 200, rng)
    again = fitted.reconstruct(x, seed=0).numpy()
    assert again.shape == x.shape
    own = [clouds.chamfer(a, b) for a, b in zip(again, x, strict=True)]
    other = [clouds.chamfer(a, b) for a, b in zip(again, x[::-1], strict=True)]
    assert np.median(own) < 0.03
    assert np.median(own) < 0.2 * np.median(other)


def test_way_between_two_shapes(fitted, rng):
    x, _ = rings(20, 100, rng)
    radius = np.linalg.norm(x[::2], axis=-1).mean(axis=-1)
    small, large = 2 * np.argmin(radius), 2 * np.argmax(radius)
    way = fitted.interpolate(x[small], x[large], 5, 300, context=0, seed=1).numpy()
    assert way.shape == (5, 300, 2)
    sizes = np.linalg.norm(way, axis=-1).mean(axis=-1)
    assert sizes[0] + 0.2 < sizes[2] < sizes[-1] - 0.2  # of 0.6 and 2
    assert np.all(np.diff(sizes) > -0.1)
    np.testing.assert_allclose(sizes[[0, -1]], [radius.min(), radius.max()], rtol=0.15)
    # Each point moves by a part of the way in each step: none jumps.
    steps = np.linalg.norm(np.diff(way, axis=0), axis=-1)
    assert np.quantile(steps, 0.99) < 0.7 * np.linalg.norm(way[-1] - way[0], axis=-1).mean() + 0.3


def test_order_copies_and_padding_change_nothing(fitted, rng):
    x, _ = rings(6, 50, rng)
    z = fitted.encode(x).numpy()
    assert z.shape == (6, LATENT)
    np.testing.assert_allclose(fitted.encode(x[:, rng.permutation(50)]), z, atol=1e-5)
    np.testing.assert_allclose(fitted.encode(np.concatenate([x, x[:, :7]], axis=1)), z, atol=1e-5)
    ragged = [cloud[: 50 - i] for i, cloud in enumerate(x)]
    padded, mask = clouds.padded(ragged)
    assert padded.shape == (6, 50, 2)
    each = np.concatenate([fitted.encode(cloud[None]) for cloud in ragged])
    for shift in (0, 3):  # wherever the points are that are not there, and whatever they say
        moved, there = np.roll(padded, shift, axis=1), np.roll(mask, shift, axis=1)
        moved = np.where(there[..., None] > 0, moved, np.nan)
        np.testing.assert_allclose(fitted.encode(moved, mask=there), each, atol=1e-5)
    assert np.max(np.abs(fitted.encode(1.3 * x) - z)) > 1e-2


def test_bound_of_unequal_numbers_of_points(fitted, rng):
    """Points that are not there count for nothing: a cloud's bound is that of the cloud alone."""
    x, labels = rings(4, 40, rng)
    padded, mask = clouds.padded([x[0, :30], x[1], x[2, :12], x[3]])
    joint, context = joined(padded, mask, 2), tf.one_hot(labels, 2)
    bound = clouds.VariationalBound()
    values = bound(fitted, joint, context).numpy()
    assert values.shape == (4,)
    moved = joint.copy()
    moved[..., :2][joint[..., 2] == 0.0] = 7.0
    np.testing.assert_allclose(bound(fitted, moved, context), values, rtol=1e-5)
    np.testing.assert_array_equal(bound(fitted, joint, context), values)  # evaluation repeats
    with training_randomness(tf.constant([3, 4])):
        assert np.max(np.abs(bound(fitted, joint, context) - values)) > 1e-3


def test_bound_is_below_the_likelihood_of_a_known_model():
    """Points z + w with one latent w, all normal: the marginal density is known, and so is the best encoder."""

    class Exact(keras.layers.Layer):
        """Mean and log-deviation of w given points of variance 1 about it, and w of variance 1."""

        def call(self, x, present):
            n = tf.reduce_sum(present, axis=1)
            mean = tf.reduce_sum(x[..., 0] * present, axis=1) / (n + 1.0)
            return tf.stack([mean, -0.5 * tf.math.log(n + 1.0)], axis=-1)

    # A net that says the shift is the context itself: x = z + w.
    shift = Elementwise(Shift(), 1, keras.layers.Identity(), 1)
    flow = PointCloudFlow(FlowModel(shift), FlowModel(RealNVP(1, n_layers=1)), Exact())
    rng = np.random.default_rng(0)
    n_points = 9
    x = (rng.normal(size=(4000, 1, 1)) + rng.normal(size=(4000, n_points, 1))).astype(np.float32)
    covariance = np.eye(n_points) + 1.0
    exact = -0.5 * np.einsum("ni,ij,nj->n", x[..., 0], np.linalg.inv(covariance), x[..., 0])
    exact -= 0.5 * (n_points * np.log(2.0 * np.pi) + np.log(n_points + 1.0))
    joint = joined(x, None, 1)
    values = -n_points * clouds.VariationalBound()(flow, joint, None).numpy()
    error = (values - exact).std() / np.sqrt(len(x))
    assert abs(np.mean(values - exact)) < 5.0 * error + 1e-3


def test_files_and_exports_are_the_flow(fitted, rng, tmp_path):
    fitted.save(tmp_path / "flow.keras")
    loaded = keras.saving.load_model(tmp_path / "flow.keras")
    np.testing.assert_array_equal(loaded.sample(2, 16, 1, seed=0), fitted.sample(2, 16, 1, seed=0))
    x, _ = rings(5, 64, rng)
    latent = fitted.encode(x).numpy()
    seed = np.arange(5, dtype=np.int32)
    context = np.eye(2, dtype=np.float32)[seed % 2]
    drawn = {}
    for format, name in (("tf_saved_model", "flow"), ("litert", "flow.tflite")):
        fitted.export(tmp_path / name, format, verbose=False)
        run = export.runner(tmp_path / name)
        np.testing.assert_allclose(run("encode", x=x)["latent"], latent, atol=1e-4)
        cloud = run("decode", latent=latent, seed=seed)["x"]
        assert np.median([clouds.chamfer(a, b) for a, b in zip(cloud, x, strict=True)]) < 0.08  # of 64 points
        new = run("sample", seed=seed, temperature=np.ones(5, np.float32), context=context)["x"]
        assert new.shape == (5, 64, 2)
        drawn[format] = cloud, new
    for a, b in zip(*drawn.values(), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3)
    with pytest.raises(ValueError, match="overwrite"):
        fitted.export(tmp_path / "flow", verbose=False)


@pytest.mark.parametrize("preset", ["plain", "matching"])
def test_any_flow_of_points_will_do(preset, rng):
    makes = {
        "plain": lambda: CouplingRQNSF(2, n_layers=2, hidden=(8,), context_dim=LATENT),
        "matching": lambda: FlowMatching(2, hidden=(8,), context_dim=LATENT),
    }
    flow = flow_of(makes[preset]())
    x, labels = rings(32, 20, rng)
    history = flow.fit(x, labels, mask=np.ones((32, 20)), validation_data=(x, labels), epochs=2, verbose=0).history
    assert np.all(np.isfinite(history["loss"] + history["val_loss"]))
    np.testing.assert_allclose(flow.evaluate(x, labels, verbose=0), history["val_loss"][-1], rtol=1e-5)
    assert np.all(np.isfinite(flow.sample(2, 10, 0)))


def test_pipelines(rng):
    flow = flow_of(CouplingRQNSF(2, n_layers=1, hidden=(4,), context_dim=LATENT))
    x, labels = rings(48, 20, rng)
    pipeline = tf.data.Dataset.from_tensor_slices((x, labels)).batch(16)
    history = flow.fit(pipeline, validation_data=pipeline, epochs=2, verbose=0).history
    np.testing.assert_allclose(flow.evaluate(pipeline, verbose=0), history["val_loss"][-1], rtol=1e-5)
    np.testing.assert_allclose(flow.evaluate(x, labels, verbose=0), history["val_loss"][-1], rtol=0.05)
    anyhow = tf.data.Dataset.from_generator(
        lambda: iter([(x[:16], labels[:16]), (x[16:, :15], labels[16:])]),
        output_signature=(tf.TensorSpec([None, None, 2]), tf.TensorSpec([None], tf.int64)),
    )
    assert np.isfinite(flow.evaluate(anyhow, verbose=0))
    with pytest.raises(ValueError, match="got a mask"):
        flow.fit(pipeline, mask=np.ones((48, 20)))
    with pytest.raises(ValueError, match=r"batches of clouds \[n, points, 2\]; got"):
        flow.fit(tf.data.Dataset.from_tensor_slices(x))


X = np.ones((4, 8, 3), np.float32) + np.arange(8, dtype=np.float32)[:, None]
BROKEN = np.where(np.arange(96).reshape(4, 8, 3) == 40, np.nan, X)


@pytest.fixture(scope="module")
def unfitted():
    bijector = SoftFlow(3, n_layers=1, hidden=(4,), context_dim=2)
    return PointCloudFlow(FlowModel(bijector), FlowModel(RealNVP(2, n_layers=1, hidden=(4,))), PointNet(4, (4,), ()))


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        (lambda f: f.fit([X[0], X[1][:5]]), "one number of points, or a mask; got 5 to 8 points"),
        (lambda f: f.fit(X[:, :1]), "at least 2 points in a cloud; got 1 in cloud 0"),
        (
            lambda f: f.fit(X, mask=np.arange(8) < np.array([[8], [3], [1], [0]])),
            "2 points in a cloud; got 1 in cloud 2",
        ),
        (lambda f: f.fit(BROKEN), "finite numbers in clouds; got NaN or inf in 1 rows: 1"),
        (lambda f: f.fit(X[..., :2]), r"clouds of shape \[n, points, 3\]; got \[4, 8, 2\]"),
        (lambda f: f.encode(X[0]), r"One cloud is x\[None\]"),
        (lambda f: f.encode(X, mask=np.ones(8)), r"a mask of zeros and ones of shape \[4, 8\]; got \[8\]"),
        (lambda f: f.encode(X, mask=2 * np.ones((4, 8))), "a mask of zeros and ones"),
        (lambda f: f.fit(X, np.zeros(4)), "Expected no context"),
        (lambda f: f.fit(np.array([["a"]])), "Expected numbers as points"),
        (lambda f: f.decode(np.ones((3, 5))), r"latents of shape \[n, 2\]; got \[3, 5\]"),
        (lambda f: f.sample(0), "n >= 1; got 0"),
        (lambda f: f.sample(2, 0), "n >= 1; got 0"),
        (lambda f: f.interpolate(X[0], X[1], 1), "n_steps >= 2; got 1"),
        (lambda f: PointCloudFlow(f.prior, f.points), "whose context is the latent"),
        (lambda f: PointCloudFlow(f.points, f.prior, PointNet(5)), "an encoder of 4 outputs.*; got .*5"),
        (lambda f: PointCloudFlow(f.points, f.prior, n_points=0), "n_points >= 1; got n_points=0"),
        (lambda f: PointCloudFlow(f.points, f.prior, 3), "a Keras layer as encoder; got 3"),
        (lambda f: PointCloudFlow(3), "FlowModels as points and prior; got 3"),
        (lambda f: clouds.VariationalBound(0.0), "weight > 0; got 0"),
        (lambda f: clouds.VariationalBound(n_points=1), "n_points >= 2; got 1"),
        (lambda f: clouds.padded([]), "at least one cloud; got none"),
        (lambda f: clouds.padded([X[0], X[0, :, :2]]), "of one D; got shapes"),
        (lambda f: PointNet(0), "n_outputs >= 1.*; got n_outputs=0"),
    ],
)
def test_errors(bad, match, unfitted):
    with pytest.raises(ValueError, match=match):
        bad(unfitted)
    assert unfitted.points.bijector.needs_adapt  # nothing was touched
