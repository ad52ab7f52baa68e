"""Images: pixels and their probabilities, scales, labels, ways through the latent space, pictures."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import policy, randomise
from scipy import stats

import tfflows as tff
from tfflows import Chain, FlowModel, bases, latents, plot
from tfflows import bijectors as tfb
from tfflows.nets import ConvNet
from tfflows.nets.convolutional import convolve
from tfflows.randomness import training_randomness
from tfflows.transformers import Affine

SHAPE = (4, 4, 1)


def pixels(n, shape=SHAPE, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, *shape)).astype(np.uint8)


@pytest.fixture(scope="module")
def glow():
    """A small Glow of labelled images with random weights."""
    flow = FlowModel(tff.Glow(SHAPE, levels=2, steps=1, hidden=4, n_classes=3))
    randomise(flow.bijector, scale=0.1)
    flow.compile(jit_compile=False)  # compiles faster
    return flow


@pytest.mark.parametrize(("n_in", "n_out"), [(1, 7), (7, 2), (4, 5)])
def test_convolve_equals_tensorflows_convolution(n_in, n_out, rng):
    x, kernel = tf.constant(rng.normal(size=(2, 5, 4, n_in))), tf.constant(rng.normal(size=(3, 3, n_in, n_out)))
    results = []
    for function in (convolve, lambda x, kernel: tf.nn.conv2d(x, kernel, 1, "SAME")):
        with tf.GradientTape() as outer:
            outer.watch([x, kernel])
            with tf.GradientTape() as tape:
                tape.watch([x, kernel])
                value = function(x, kernel)
                total = tf.reduce_sum(tf.sin(value))
            gradients = tape.gradient(total, [x, kernel])
            second = tf.reduce_sum(tf.cos(gradients[0]))
        results.append([value, *gradients, *outer.gradient(second, [x, kernel])])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-11)


@pytest.mark.usefixtures("without_xla")
@pytest.mark.parametrize("bits", [8, 5, 1])
def test_uniform_model_has_exactly_as_many_bits_as_the_pixels(bits):
    flow = FlowModel(tfb.Dequantize(SHAPE, bits), base=bases.UniformBox(SHAPE))
    found = flow.evaluate(pixels(50), verbose=0, return_dict=True)
    assert found["bits_per_dim"] == pytest.approx(bits, abs=5e-6)  # float32
    assert found["loss"] == pytest.approx(16 * bits * np.log(2.0), abs=1e-4)


@pytest.mark.usefixtures("without_xla")
@pytest.mark.parametrize("bits", [8, 3])
@pytest.mark.parametrize("is_variational", [False, True])
def test_log_prob_is_a_bound_whose_exponential_has_the_right_mean(bits, is_variational):
    """Of independent normal pixels the probabilities are known."""
    shape = (2, 2, 1)
    with policy("float64"):
        noise = tff.variational_noise(shape, n_layers=2, hidden=4) if is_variational else None
        if is_variational:
            randomise(noise, scale=0.1)
        normalise = tfb.ActNorm(shape)
        flow = FlowModel(Chain([tfb.Dequantize(shape, bits, noise), normalise]))
    location, scale = 0.4, 0.05
    normalise.layers[0].set([location], [scale])
    x = np.array([[[[90]], [[100]]], [[[110]], [[131]]]], np.float64).reshape(1, *shape)
    width = 2 ** (8 - bits)
    low = np.floor(x / width) * width / 256.0
    mass = stats.norm.cdf(low + width / 256.0, location, scale) - stats.norm.cdf(low, location, scale)
    exact = float(np.sum(np.log(mass)))
    many = tf.constant(np.repeat(x, 20_000, axis=0))
    with training_randomness(tf.constant([1, 2])):
        draws = flow._log_prob(many, None).numpy()
    error = draws.std() / np.sqrt(len(draws))
    assert draws.mean() < exact + 3.0 * error
    assert np.exp(draws - exact).mean() == pytest.approx(1.0, abs=4.0 * np.exp(draws - exact).std() / len(draws) ** 0.5)
    # Outside training the points follow from the image.
    assert flow.log_prob(x).numpy() == flow.log_prob(np.concatenate([x, x + 1.0])).numpy()[0]


def test_learned_noise_lowers_the_bits_and_is_trained():
    """Where a level ends matters most for two levels."""
    x = np.where(pixels(256, (4, 4, 1)) > 127, 255, 0).astype(np.uint8)
    noise = tff.variational_noise((4, 4, 1), n_layers=2, hidden=8)
    flow = FlowModel(tff.Glow((4, 4, 1), levels=1, steps=1, hidden=4, bits=1, noise=noise))
    flow.adapt(x)
    flow.compile(keras.optimizers.Adam(1e-2), jit_compile=False)
    before = [w.numpy() for layer in noise.layers for w in layer.weights]
    history = flow.fit(x, batch_size=64, epochs=15, verbose=0).history["bits_per_dim"]
    assert history[-1] < history[0] - 0.03
    assert all(
        np.any(a != w) for a, w in zip(before, (w for layer in noise.layers for w in layer.weights), strict=True)
    )


@pytest.mark.usefixtures("without_xla")
def test_fit_reports_bits_per_dim_in_history_and_evaluate():
    x = pixels(40)
    flow = FlowModel(tff.MultiscaleRealNVP(SHAPE, levels=1, steps=1, hidden=(4, 4)))
    history = flow.fit(x, epochs=2, batch_size=10, validation_split=0.2, verbose=0).history
    for prefix in ("", "val_"):
        bits, loss = history[f"{prefix}bits_per_dim"], history[f"{prefix}loss"]
        np.testing.assert_allclose(bits, np.array(loss) / (16.0 * np.log(2.0)), rtol=1e-5)
    # By Keras' own loop too.
    history = flow.fit(tf.data.Dataset.from_tensor_slices(x).batch(10), epochs=1, verbose=0).history
    assert set(history) == {"loss", "bits_per_dim"}


def test_encode_and_decode_hear_no_noise_and_samples_are_pixels(glow):
    x, labels = pixels(5), np.arange(5) % 3
    z = glow.encode(x, labels)
    assert z.shape == (5, 16)
    np.testing.assert_allclose(glow.decode(z, labels), x, atol=1e-2)
    np.testing.assert_array_equal(glow.encode(x, labels), z)
    samples = glow.sample(20, 1, seed=0, temperature=3.0).numpy()
    assert samples.shape == (20, *SHAPE)
    np.testing.assert_array_equal(samples, np.floor(samples))
    assert samples.min() >= 0.0
    assert samples.max() <= 255.0
    drawn, log_prob = glow.sample_and_log_prob(20, 1, seed=0, temperature=3.0)
    np.testing.assert_array_equal(drawn, samples)
    assert np.all(np.isfinite(log_prob))
    np.testing.assert_array_equal(
        tfb.Dequantize(SHAPE, 5).quantize([[[[0.0], [7.4], [9.0], [300.0]]]]).numpy().ravel(), [4.0, 4.0, 12.0, 252.0]
    )


def test_labels_are_one_hot_vectors(glow):
    x, labels = pixels(6), np.array([0, 1, 2, 2, 1, 0])
    one_hot = np.eye(3)[labels]
    expected = glow.log_prob(x, one_hot)
    np.testing.assert_array_equal(glow.log_prob(x, labels), expected)
    np.testing.assert_array_equal(glow.log_prob(x, list(labels)), expected)
    assert np.all(np.abs(glow.log_prob(x, (labels + 1) % 3) - expected) > 1e-4)
    assert glow.sample(2, [0, 1, 2]).shape == (2, 3, *SHAPE)
    assert glow.sample(2, np.eye(3)[1]).shape == (2, *SHAPE)
    np.testing.assert_array_equal(glow.sample(2, 1, seed=3), glow.sample(2, np.eye(3)[1], seed=3))
    assert glow.distribution(labels).batch_shape == (6,)
    assert glow.distribution(2).sample(3).shape == (3, *SHAPE)
    data = tf.data.Dataset.from_tensor_slices((x, labels)).batch(3)
    assert np.isfinite(glow.evaluate(data, verbose=0)[0])
    for bad, message in (
        ([0, 3], "labels from 0 to 2; got 0 to 3"),
        ([0.5, 1.0], "whole numbers"),
        (None, "or labels"),
    ):
        with pytest.raises(ValueError, match=message):
            glow.log_prob(x[:2], bad)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (pixels(4) / 255.0, "whole pixel values from 0 to 255"),
        (pixels(4) + 1.0e3, "whole pixel values from 0 to 255"),
        (-pixels(4).astype(float), "whole pixel values from 0 to 255"),
        (np.full((4, *SHAPE), np.nan), "finite numbers"),
        (pixels(4, (4, 4, 3)), r"shape \[n, 4, 4, 1\]"),
        (pixels(4)[0], r"shape \[n, 4, 4, 1\]"),
    ],
)
def test_bad_images_are_refused(glow, x, message):
    for verb in (glow.log_prob, glow.fit):
        with pytest.raises(ValueError, match=message):
            verb(x, np.zeros(4, int))


def test_black_and_white_as_0_and_1_are_warned_of(glow):
    with pytest.warns(UserWarning, match="0 or 1, of 0 to 255"):
        glow.log_prob(pixels(4) // 128, np.zeros(4, int))


def test_temperature_of_each_level(glow):
    assert glow.bijector.level_sizes == (8, 8)
    finest_fixed = [glow.sample(5, 0, seed=s, temperature=[0.0, 1.0]) for s in (1, 2)]
    z = [glow.encode(x, np.zeros(5, int)) for x in finest_fixed]
    assert np.max(np.abs(z[0] - z[1])[:, 8:]) > 0.5  # what is left after rounding to pixels is small beside it
    np.testing.assert_array_equal(
        glow.sample(5, 0, seed=1, temperature=[0.7, 0.7]), glow.sample(5, 0, seed=1, temperature=0.7)
    )
    z = glow.base.sample([1000], tf.constant([0, 1]), np.repeat([0.0, 2.0], 8))
    np.testing.assert_allclose(np.std(z, axis=0), np.repeat([0.0, 2.0], 8), atol=0.2)
    for bad in ([1.0], [1.0, -1.0], [1.0, np.nan], [[1.0, 1.0]]):
        with pytest.raises(ValueError, match="Expected 2 finite temperatures"):
            glow.sample(2, 0, temperature=bad)
    vector = FlowModel(tff.RealNVP(2, n_layers=1, hidden=(4,)))
    with pytest.raises(ValueError, match="finite temperature"):
        vector.sample(2, temperature=[1.0, 1.0])


@pytest.mark.parametrize("mode", ["linear", latents.spherical, lambda z0, z1, t: z0 if t < 0.5 else z1])
def test_interpolation_starts_and_ends_at_the_data(glow, mode):
    x = pixels(4).astype(np.float32)
    strips = glow.interpolate(x[:2], x[2:], 5, [0, 1], mode=mode)
    assert strips.shape == (2, 5, *SHAPE)
    np.testing.assert_allclose(strips[:, 0], x[:2], atol=1e-2)
    np.testing.assert_allclose(strips[:, -1], x[2:], atol=1e-2)
    one = glow.interpolate(x[0], x[2], 5, 0, mode=mode)
    np.testing.assert_allclose(one, strips[0], atol=1e-2)


@pytest.mark.usefixtures("without_xla")
def test_interpolation_between_classes_and_without_any(glow):
    x = pixels(2).astype(np.float32)
    strip = glow.interpolate(x[0], x[1], 3, (0, 2))
    np.testing.assert_allclose(strip[0], x[0], atol=1e-2)
    np.testing.assert_allclose(strip[2], x[1], atol=1e-2)
    vectors = FlowModel(tff.RealNVP(2, n_layers=1, hidden=(4,)))
    np.testing.assert_allclose(vectors.interpolate([0.0, 1.0], [2.0, 5.0], 3, mode="linear")[1], [1.0, 3.0], atol=1e-5)
    for arguments, message in (
        ((x[0], x[1], 1, 0), "n_steps >= 2"),
        ((x[0], x, 3, 0), "one shape"),
        ((x[0], x[1], 3, None), "Expected a context"),
    ):
        with pytest.raises(ValueError, match=message):
            glow.interpolate(*arguments)
    with pytest.raises(ValueError, match="'linear', 'spherical'"):
        glow.interpolate(x[0], x[1], 3, 0, mode="cubic")


def test_spherical_way_keeps_the_length(rng):
    z0, z1 = (tf.constant(rng.normal(size=(3, 50))) for _ in range(2))
    for t in (0.0, 0.3, 1.0):
        z = latents.spherical(z0, z1, t)
        expected = (1.0 - t) * np.linalg.norm(z0, axis=1) + t * np.linalg.norm(z1, axis=1)
        np.testing.assert_allclose(np.linalg.norm(z, axis=1), expected)
        cosines = [np.sum(z * v, axis=1) / np.linalg.norm(z, axis=1) / np.linalg.norm(v, axis=1) for v in (z0, z1)]
        angles = np.arccos(np.clip(cosines, -1.0, 1.0))
        np.testing.assert_allclose(angles[0] * (1.0 - t), angles[1] * t, atol=1e-6)
    for a, b in ((z0, z0), (z0, 0.0 * z1), (z0, -z0)):  # no arc, no direction, no plane
        assert np.all(np.isfinite(latents.spherical(a, b, 0.5)))
    np.testing.assert_allclose(latents.spherical(z0, 2.0 * z0, 0.5), 1.5 * z0)


def test_attribute_vector_is_the_difference_of_mean_latents(glow):
    x, labels = pixels(7), np.zeros(7, int)
    vector = glow.attribute_vector(x[:3], x[3:], labels[:3], labels[3:])
    z = glow.encode(x, labels).numpy()
    np.testing.assert_allclose(vector, z[:3].mean(axis=0) - z[3:].mean(axis=0), atol=1e-5)


def test_checkerboard_is_one_of_pixels():
    with policy("float64"):
        net = ConvNet(4, 4)
        bijector = Chain([tfb.Squeeze(SHAPE), tfb.Coupling(Affine(), tfb.checkerboard_mask(1), net, None, (2, 2, 4))])
        randomise(bijector)
        bijector = Chain([bijector, tfb.Invert(tfb.Squeeze(SHAPE))])
    x = tf.random.stateless_normal([3, *SHAPE], [0, 1], dtype=tf.float64)
    moved = np.any(bijector.inverse(x) != x, axis=0)[..., 0]
    np.testing.assert_array_equal(moved, np.add.outer(np.arange(4), np.arange(4)) % 2 == 1)


def test_multiscale_latents_are_the_levels_in_order():
    flow = FlowModel(tff.Glow((8, 4, 3), levels=2, steps=1, hidden=4))
    assert flow.bijector.level_sizes == (48, 48)
    assert flow.base.event_shape == (96,)
    assert tuple(flow.bijector.inverse_event_shape((8, 4, 3))) == (96,)
    assert tuple(flow.bijector.forward_event_shape((96,))) == (8, 4, 3)
    assert "Multiscale of 2 levels" in str(tff.bijectors.base.describe(flow.bijector.bijectors[1]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tff.Glow((28, 28, 1), levels=3), "divisible by 2\\^levels = 8; got 28 x 28"),
        (lambda: tff.Glow((28, 28), levels=1), "Expected an image shape"),
        (lambda: tff.Glow(SHAPE, levels=0), "levels"),
        (lambda: tff.Glow(SHAPE, levels=1, context_dim=2, n_classes=3), "not both"),
        (lambda: tff.Glow(SHAPE, levels=1, bits=9), "bits from 1 to 8"),
        (lambda: tff.Glow(SHAPE, levels=1, noise=tff.variational_noise((2, 2, 1))), "noise of event shape"),
        (lambda: tfb.Squeeze((3, 4, 1)), "even height and width"),
        (lambda: tfb.Multiscale([]), "at least one level"),
        (lambda: tfb.Multiscale([tfb.ActNorm(3)]), "bijectors of images"),
        (lambda: tfb.Multiscale([tfb.ActNorm((2, 2, 4)), tfb.ActNorm((2, 2, 4))]), "a level of event shape"),
        (lambda: tfb.Multiscale([tfb.ActNorm((2, 2, 3)), tfb.ActNorm((2, 2, 1))]), "even number of channels"),
        (lambda: tfb.Multiscale([tfb.ActNorm((2, 2, 3))], n_classes=2), "n_classes equal to"),
        (lambda: tfb.Logit(2, margin=0.5), "margin in"),
        (lambda: tfb.Coupling(Affine(), tfb.half_mask(4), ConvNet(4), None, (2, 2, 3)), "last axis has the mask's"),
        (lambda: tfb.Coupling(Affine(), tfb.half_mask(4), ConvNet(3), None, (2, 2, 4)), "outputs for each pixel"),
        (lambda: ConvNet(4, (4, 5), residual=True), "one width"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_constant_channels_and_mixed_precision_train():
    x = pixels(32, (4, 4, 3))
    x[..., 2] = 0  # no blue at all
    with policy("mixed_bfloat16"):
        flow = FlowModel(tff.Glow((4, 4, 3), levels=1, steps=2, hidden=4))
    with pytest.warns(UserWarning, match="of 48 dimensions"):
        history = flow.fit(x, epochs=3, batch_size=16, verbose=0).history["loss"]
    assert np.all(np.isfinite(history))
    z = flow.encode(x)
    assert z.dtype == tf.float32
    # The nets' inputs, equal up to the last digit of float32, may be rounded to neighbouring numbers of bfloat16.
    np.testing.assert_allclose(flow.decode(z), x, atol=6.0)


def test_the_model_chooses_how_to_compile():
    assert FlowModel(tff.Glow(SHAPE, levels=1, steps=1, hidden=4)).use_xla
    residual = FlowModel(tff.Glow(SHAPE, levels=1, steps=1, hidden=(4, 4), residual=True))
    assert residual.use_xla == bool(tf.config.list_logical_devices("GPU"))
    residual.compile()
    assert residual.use_xla == bool(tf.config.list_logical_devices("GPU"))
    residual.compile(jit_compile=True)
    assert residual.use_xla


def test_adapt_takes_a_sample_of_many_images(monkeypatch):
    bijector = tff.Glow((16, 16, 1), levels=2, steps=1, hidden=4)
    seen, original = [], tfb.ActNorm.adapt

    def counted(self, x, *args, **kwargs):
        seen.append(len(x))
        return original(self, x, *args, **kwargs)

    monkeypatch.setattr(tfb.ActNorm, "adapt", counted)
    bijector.adapt(pixels(8000, (16, 16, 1)))
    # 100,000 values of a channel: of 64 pixels in an image on the first scale, of 16 on the second.
    assert seen == [1562, 6250]


def test_mixtures_of_image_flows_count_bits_and_hear_labels():
    flows = [FlowModel(tff.Glow(SHAPE, levels=1, steps=1, hidden=4, n_classes=2)) for _ in range(2)]
    mixture = tff.FlowMixture(flows)
    mixture.compile(jit_compile=False)
    x, labels = pixels(20), np.arange(20) % 2
    assert "bits_per_dim" in mixture.fit(x, labels, epochs=1, verbose=0).history
    np.testing.assert_array_equal(mixture.log_prob(x, labels), mixture.log_prob(x, np.eye(2)[labels]))
    assert mixture.sample(3, 1).shape == (3, *SHAPE)
    with pytest.raises(ValueError, match="whole pixel values"):
        mixture.log_prob(x / 255.0, labels)


def test_saved_model_gives_the_same_numbers(glow, tmp_path):
    archive = keras.export.ExportArchive()
    archive.track(glow)
    x, labels = pixels(3).astype(np.float32), np.eye(3, dtype=np.float32)
    specs = [tf.TensorSpec([None, *SHAPE]), tf.TensorSpec([None, 3])]
    archive.add_endpoint("encode", lambda x, c: {"z": glow._encode(x, c)[0]}, specs)
    archive.add_endpoint("decode", lambda z, c: {"x": glow._decode(z, c)[0]}, [tf.TensorSpec([None, 16]), specs[1]])
    archive.add_endpoint("log_prob", lambda x, c: {"log_prob": glow._log_prob(x, c)}, specs)
    archive.write_out(tmp_path / "glow", verbose=False)
    loaded = tf.saved_model.load(str(tmp_path / "glow"))
    z = glow.encode(x, labels)
    np.testing.assert_allclose(loaded.encode(x, labels)["z"], z, atol=1e-4)
    np.testing.assert_allclose(loaded.decode(z, labels)["x"], glow.decode(z, labels), atol=1e-2)
    np.testing.assert_allclose(loaded.log_prob(x, labels)["log_prob"], glow.log_prob(x, labels), rtol=1e-5)


def test_pictures_are_grids_and_strips(tmp_path):
    figure = plot.images(pixels(5, (6, 6, 3)), n_columns=3, title="five", path=tmp_path / "grid.png")
    assert (tmp_path / "grid.png").stat().st_size > 500
    canvas = figure.axes[0].images[0].get_array()
    assert canvas.shape == (6 + 1 + 6, 3 * 6 + 2, 3)
    assert np.all(canvas[7:, 14:] == 255)  # the sixth is missing
    x = pixels(6).reshape(2, 3, *SHAPE)
    strips = plot.images(x, rows=["a", "b"])
    np.testing.assert_array_equal(strips.axes[0].images[0].get_array()[:4, :4], x[0, 0, ..., 0])
    keras.backend.clear_session()
    for bad, message in (
        ({"x": np.zeros((2, 4, 4))}, "Expected images"),
        ({"x": np.full((2, 4, 4, 1), np.nan)}, "finite"),
        ({"x": x, "rows": ["a"]}, "a text for each of 2"),
        ({"x": x, "n_columns": 2}, "length of the strips"),
    ):
        with pytest.raises(ValueError, match=message):
            plot.images(**bad)


def test_digits_ship_with_the_package():
    data = tff.datasets.digits()
    assert data.train.shape == (6000, 28, 28, 1)
    assert data.test.shape == (1000, 28, 28, 1)
    assert data.train.dtype == np.uint8
    assert set(data.test_labels.tolist()) == set(range(10))
