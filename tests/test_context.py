"""Contexts of any shape through a Keras net that is trained with the flow."""

import runpy
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import HIDDEN, randomise

import tfflows as tff
from tfflows import FlowMixture, FlowModel, export, losses, nets
from tfflows.bijectors import ContinuousFlow, Coupling, half_mask
from tfflows.nets.context import run_context_net
from tfflows.randomness import training_randomness
from tfflows.transformers import Affine

pytestmark = pytest.mark.usefixtures("without_xla")

RNG = np.random.default_rng(0)
N = 120
IMAGES = RNG.normal(size=(N, 6, 6, 1)).astype(np.float32)
WIDE = RNG.normal(size=(N, 4)).astype(np.float32)
LABELS = RNG.integers(0, 4, N)
X = (0.3 * RNG.normal(size=(N, 2)) + IMAGES.mean(axis=(1, 2)) * 6.0).astype(np.float32)
RULE = r"\(rows of context pair with rows of x; sample\(n, context \[batch, ...\]\) gives \[n, batch, ...\]\)"
layers = keras.layers
ROOT = Path(__file__).parents[1]


def bijector(width=3):
    return tff.RealNVP(2, n_layers=2, hidden=HIDDEN, context_dim=width)


def conv_net(width=3, **kwargs):
    middle = [layers.BatchNormalization(), layers.Dropout(0.3)]
    return keras.Sequential(
        [layers.Conv2D(2, 3, activation="tanh"), *middle, layers.Flatten(), layers.Dense(width)], **kwargs
    )


def image_flow():
    return FlowModel(bijector(), context_net=conv_net(), context_shape=(6, 6, 1))


@pytest.fixture(scope="module")
def flow():
    keras.utils.set_random_seed(0)
    flow = image_flow()
    flow.adapt(X, IMAGES)
    randomise(flow.bijector)
    return flow


def heard(flow, context):
    return flow.context_net(context, training=False)


# The verbs.


def test_every_verb_hears_what_the_net_makes_of_the_context(flow):
    """A second flow of the same bijector hears the net's output as its context."""
    plain = FlowModel(flow.bijector)
    c = heard(flow, IMAGES).numpy()
    np.testing.assert_allclose(flow.log_prob(X, IMAGES), plain.log_prob(X, c), atol=1e-4)
    np.testing.assert_allclose(flow.log_prob(X, IMAGES, batch_size=50), plain.log_prob(X, c), atol=1e-4)
    z = flow.encode(X, IMAGES)
    np.testing.assert_allclose(z, plain.encode(X, c), atol=1e-4)
    np.testing.assert_allclose(flow.decode(z, IMAGES), X, atol=1e-3)
    assert flow.evaluate(X, IMAGES, verbose=0) == pytest.approx(-np.mean(plain.log_prob(X, c)), abs=1e-4)
    np.testing.assert_allclose(flow(X, IMAGES), plain.log_prob(X, c), atol=1e-4)
    assert flow.log_prob(X[:0], IMAGES[:0]).shape == (0,)
    assert np.ptp(flow.log_prob(X[:1].repeat(N, axis=0), IMAGES)) > 1e-3
    contexts = IMAGES[:4]
    x, log_prob = flow.sample_and_log_prob(3, contexts, seed=1)
    assert x.shape == (3, 4, 2)
    np.testing.assert_allclose(x, plain.sample(3, c[:4], seed=1), atol=1e-4)
    for draws, density in zip(x, log_prob, strict=True):
        np.testing.assert_allclose(flow.log_prob(draws, contexts), density, atol=1e-4)
    assert flow.sample(5, IMAGES[0]).shape == (5, 2)
    drawn = tf.function(lambda context: flow.sample(3, context, seed=(1, 2)))(tf.constant(contexts))
    assert drawn.shape == (3, 4, 2)


def test_interpolation_mixes_what_is_heard(flow):
    way = flow.interpolate(X[:5], X[5:10], 4, (IMAGES[:5], IMAGES[5:10]))
    assert way.shape == (5, 4, 2)
    np.testing.assert_allclose(way[:, 0], X[:5], atol=1e-3)
    np.testing.assert_allclose(way[:, -1], X[5:10], atol=1e-3)
    plain, c = FlowModel(flow.bijector), heard(flow, IMAGES).numpy()
    np.testing.assert_allclose(way, plain.interpolate(X[:5], X[5:10], 4, (c[:5], c[5:10])), atol=1e-4)
    assert flow.interpolate(X[0], X[5], 4, IMAGES[0]).shape == (4, 2)


def test_distribution_of_any_batch(flow):
    batch = flow.distribution(IMAGES[:6].reshape(2, 3, 6, 6, 1))
    assert batch.batch_shape == (2, 3)
    assert batch.sample(5, seed=1).shape == (5, 2, 3, 2)
    expected = np.reshape(flow.log_prob(X[:6], IMAGES[:6]), (2, 3))
    np.testing.assert_allclose(batch.log_prob(X[:6].reshape(2, 3, 2)), expected, atol=1e-4)
    assert flow.distribution(IMAGES[0]).batch_shape == ()


def test_sampling_runs_the_net_once_for_each_context():
    class Counted(layers.Layer):
        def call(self, context):
            tf.py_function(lambda n: rows.append(int(n)), [tf.shape(context)[0]], [])
            return context

    rows = []
    flow = FlowModel(bijector(), context_net=Counted(), context_shape=(3,))
    flow.compile(jit_compile=False)
    assert flow.sample(1000, np.zeros([2, 3], np.float32)).shape == (1000, 2, 2)
    assert sum(rows) <= 16  # the least number of rows that is compiled


# Training.


def test_gradients_reach_every_weight_of_the_net(flow):
    with tf.GradientTape(persistent=True) as tape:
        density, draws = flow.log_prob(X, IMAGES), flow.sample(2, IMAGES[:9], seed=1)
    weights = flow.context_net.trainable_weights
    assert len(weights) == 6
    # The convolution's bias goes through a normalisation that, outside training, does not take it away again.
    for value in (density, draws):
        assert all(np.any(g != 0.0) for g in tape.gradient(value, weights))
    assert {id(w) for w in flow.context_net.weights} <= {id(w) for w in flow.weights}


@pytest.mark.parametrize("jit_compile", [False, True])
def test_fit_trains_the_net_and_its_statistics(jit_compile):
    flow = image_flow()
    before = {w.path: w.numpy() for w in flow.context_net.weights}
    flow.compile(keras.optimizers.Adam(1e-2), jit_compile=jit_compile)
    history = flow.fit(X, IMAGES, batch_size=50, epochs=3, validation_split=0.2, verbose=0).history
    assert all(np.any(w.numpy() != before[w.path]) for w in flow.context_net.weights)
    # Nothing is dropped outside training.
    assert history["val_loss"][-1] == pytest.approx(-np.mean(flow.log_prob(X[-24:], IMAGES[-24:])), abs=1e-3)
    net = flow.context_net
    np.testing.assert_array_equal(run_context_net(net, IMAGES, 3), net(IMAGES, training=False))
    with training_randomness(tf.constant([1, 2])):
        assert np.any(run_context_net(net, IMAGES, 3) != net(IMAGES, training=False))


def test_it_learns_what_the_context_says():
    flow = FlowModel(
        bijector(), context_net=keras.Sequential([keras.Input([6, 6, 1]), layers.Flatten(), layers.Dense(3)])
    )
    flow.compile(keras.optimizers.Adam(2e-2))
    flow.fit(X, IMAGES, batch_size=60, epochs=60, verbose=0)
    unconditional = -0.5 * np.log(np.linalg.det(2.0 * np.pi * np.e * np.cov(X.T)))
    assert np.mean(flow.log_prob(X, IMAGES)) > unconditional + 0.3


def test_statistics_are_those_of_the_data_whatever_the_fillers():
    """Five rows in batches of four: the fillers of the last one are rows like the others, not one over and over."""
    net = keras.Sequential([keras.Input([1]), layers.BatchNormalization(momentum=0.0), layers.Dense(3)])
    flow = FlowModel(bijector(), context_net=net)
    flow.compile(keras.optimizers.SGD(0.0))
    context = np.arange(5.0)[:, None]
    flow.fit(X[:5], context, batch_size=4, epochs=1, shuffle=False, verbose=0)
    np.testing.assert_allclose(net.layers[0].moving_mean, np.mean([4.0, 0.0, 1.0, 2.0]))
    flow.fit(
        tf.data.Dataset.from_tensor_slices((X[:4], context[:4])).batch(4), epochs=1, verbose=0
    )  # a pipeline's batches are as they are
    np.testing.assert_allclose(net.layers[0].moving_mean, 1.5)


def test_a_bad_step_leaves_the_statistics():
    class Explode(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                weight = self.model.context_net.trainable_weights[0]
                weight.assign(tf.fill(weight.shape, np.inf))

    flow = image_flow()
    with pytest.raises(FloatingPointError, match=r"The output of the context net .* is not finite"):
        flow.fit(X, IMAGES, batch_size=60, epochs=2, callbacks=[Explode()], verbose=0)
    assert all(np.all(np.isfinite(w)) for w in flow.context_net.non_trainable_weights)


def test_pipelines_and_files(tmp_path):
    flow = image_flow()
    dataset = tf.data.Dataset.from_tensor_slices((X, IMAGES)).batch(50)
    flow.fit(dataset, epochs=1, validation_data=dataset, verbose=0)
    assert flow.evaluate(dataset, verbose=0) == pytest.approx(flow.evaluate(X, IMAGES, verbose=0), abs=1e-4)
    flow.save(tmp_path / "flow.keras")
    again = keras.saving.load_model(tmp_path / "flow.keras")
    np.testing.assert_array_equal(again.log_prob(X, IMAGES), flow.log_prob(X, IMAGES))
    assert again.context_shape == (6, 6, 1)
    again.fit(X, IMAGES, epochs=1, verbose=0)
    flow.save_weights(tmp_path / "flow.weights.h5")
    other = image_flow()
    other.load_weights(tmp_path / "flow.weights.h5")
    np.testing.assert_array_equal(other.log_prob(X, IMAGES), flow.log_prob(X, IMAGES))
    wrong = tf.data.Dataset.from_tensor_slices((X, IMAGES[:, :5])).batch(50)
    with pytest.raises(ValueError, match=rf"\[n, 6, 6, 1\] {RULE}; got \[None, 5, 6, 1\]"):
        flow.fit(wrong, epochs=1, verbose=0)


def test_configs_from_before_context_nets_load():
    config = FlowModel(bijector()).get_config()
    for new in ("context_net", "context_shape", "n_classes"):
        del config[new]
    assert FlowModel.from_config(config).context_shape == (3,)


def test_losses_of_continuous_flows_hear_the_net():
    ode = ContinuousFlow(nets.Velocity(2, HIDDEN), 3)
    flow = FlowModel(ode, context_net=conv_net(), context_shape=(6, 6, 1))
    plain, c = FlowModel(ode), heard(flow, IMAGES)
    for loss in (losses.FlowMatching(), losses.RegularizedLikelihood()):
        np.testing.assert_allclose(loss(flow, X, IMAGES), loss(plain, X, c), rtol=1e-4)


# Other contexts than images.


def test_labels_through_an_embedding(tmp_path):
    flow = FlowModel(bijector(), context_net=layers.Embedding(4, 3))
    assert flow.accepts.context(LABELS, N).dtype == np.int32
    flow.fit(X, LABELS, epochs=1, verbose=0)
    table = flow.context_net.embeddings.numpy()
    np.testing.assert_allclose(flow.log_prob(X, LABELS), FlowModel(flow.bijector).log_prob(X, table[LABELS]), atol=1e-4)
    assert flow.sample(5, 2).shape == (5, 2)
    assert flow.sample(5, [0, 3]).shape == (5, 2, 2)
    assert flow.distribution(LABELS[:3]).batch_shape == (3,)
    np.testing.assert_array_equal(flow.log_prob(X, LABELS), flow.log_prob(X, LABELS.astype(np.float64)))
    for context, message in (
        (LABELS + 2, "Expected numbers in context from 0 to 3; got 2 to 5"),
        (LABELS + 0.5, "Expected whole numbers as context; got float64"),
        (LABELS[:, None], rf"Expected a context of shape \[n\] {RULE}; got \[120, 1\]"),
    ):
        with pytest.raises(ValueError, match=message):
            flow.log_prob(X, context)
    flow.save(tmp_path / "flow.keras")
    again = keras.saving.load_model(tmp_path / "flow.keras")
    np.testing.assert_array_equal(again.log_prob(X, LABELS), flow.log_prob(X, LABELS))


@pytest.mark.parametrize("says_its_input", [False, True])
def test_words_through_an_embedding(says_its_input):
    words = RNG.integers(0, 7, (N, 5))
    first = [keras.Input([5], dtype="int32")] if says_its_input else []
    net = keras.Sequential([*first, layers.Embedding(7, 2), layers.Flatten(), layers.Dense(3)])
    flow = FlowModel(bijector(), context_net=net, context_shape=None if says_its_input else [5])
    flow.fit(tf.data.Dataset.from_tensor_slices((X, words)).batch(60), epochs=1, verbose=0)
    assert flow.sample(2, words[:3]).shape == (2, 3, 2)
    with pytest.raises(ValueError, match="Expected numbers in context from 0 to 6; got 0 to 7"):
        flow.log_prob(X[:2], [[0, 1, 2, 3, 7]] * 2)


def test_sequences_of_any_length():
    net = keras.Sequential([keras.Input([None, 2]), layers.GRU(3)])
    flow = FlowModel(bijector(), context_net=net)
    series = RNG.normal(size=(N, 4, 2))
    flow.fit(X, series, epochs=1, verbose=0)
    assert flow.log_prob(X, series[:, :3]).shape == (N,)
    assert flow.distribution(series[:2]).sample(seed=1).shape == (2, 2)
    with pytest.raises(ValueError, match=r"\[n, any, 2\]"):
        flow.log_prob(X, series[..., :1])


def test_mixture_of_flows_with_nets(tmp_path):
    small = [tff.RealNVP(2, n_layers=1, hidden=HIDDEN, context_dim=3) for _ in range(2)]
    flows = [FlowModel(b, context_net=layers.Dense(3), context_shape=[4]) for b in small]
    for part in flows:
        randomise(part.bijector)
    mixture = FlowMixture(flows, layers.Dense(2))
    mixture.fit(X, WIDE, epochs=1, verbose=0)
    expected = tf.reduce_logsumexp(
        mixture.log_weights(WIDE) + tf.stack([f.log_prob(X, WIDE) for f in flows], axis=-1), axis=-1
    )
    np.testing.assert_allclose(mixture.log_prob(X, WIDE), expected, atol=1e-4)
    x, log_prob = mixture.sample_and_log_prob(2, WIDE[:3], seed=1)
    assert x.shape == (2, 3, 2)
    np.testing.assert_allclose(mixture.log_prob(x[1], WIDE[:3]), log_prob[1], atol=1e-4)
    mixture.save(tmp_path / "mixture.keras")
    again = keras.saving.load_model(tmp_path / "mixture.keras")
    np.testing.assert_array_equal(again.log_prob(X, WIDE), mixture.log_prob(X, WIDE))
    net = conv_net()
    flows = [FlowModel(bijector(), context_net=net, context_shape=(6, 6, 1)) for _ in range(2)]
    with pytest.raises(ValueError, match="a context net each"):
        FlowMixture(flows)


# Classes.


@pytest.mark.parametrize("kind", ["one-hot", "net", "embedding"])
def test_class_probabilities_are_bayes_rule(kind):
    if kind == "embedding":
        flow = FlowModel(bijector(), context_net=layers.Embedding(4, 3))
    elif kind == "net":
        flow = FlowModel(bijector(), context_net=layers.Dense(3), n_classes=4)
    else:
        flow = FlowModel(bijector(4), n_classes=4)
    randomise(flow.bijector)
    joint = np.stack([flow.log_prob(X, np.full(N, c)) for c in range(4)], axis=-1) + np.log([0.1, 0.2, 0.3, 0.4])
    probabilities, log_prob = flow.class_probabilities(X, [1, 2, 3, 4], return_log_prob=True)
    evidence = np.log(np.sum(np.exp(joint), axis=-1))
    np.testing.assert_allclose(log_prob, evidence, atol=1e-4)
    np.testing.assert_allclose(probabilities, np.exp(joint - evidence[:, None]), atol=1e-4)
    equal = flow.class_probabilities(X)
    np.testing.assert_allclose(np.sum(equal, axis=-1), 1.0, atol=1e-5)
    np.testing.assert_allclose(flow.class_probabilities(X, [1, 0, 0, 0])[:, 0], 1.0)
    if kind != "embedding":
        np.testing.assert_allclose(flow.log_prob(X, LABELS), flow.log_prob(X, np.eye(4)[LABELS]))
        assert FlowModel.from_config(flow.get_config()).accepts.n_classes == 4


@pytest.mark.parametrize("prior", [[1, 2, 3], [0, 0, 0, 0], [1, 1, 1, -1], [1, 1, 1, np.nan], 0.5])
def test_bad_priors(prior):
    with pytest.raises(ValueError, match="Expected a prior of 4 numbers >= 0"):
        FlowModel(bijector(4), n_classes=4).class_probabilities(X, prior)


def test_class_probabilities_need_classes(flow):
    with pytest.raises(ValueError, match="Expected a flow with n_classes"):
        flow.class_probabilities(X)


# What is refused.


@pytest.mark.parametrize(
    ("context", "message"),
    [
        (None, r"Expected a context of shape \[n, 6, 6, 1\]; got none"),
        (IMAGES[:, :5], rf"Expected a context of shape \[n, 6, 6, 1\] {RULE}; got \[120, 5, 6, 1\]"),
        (IMAGES[0], rf"{RULE}; got \[6, 6, 1\]. One row is context\[None\]"),
        (IMAGES[:10], rf"Expected as many rows of context as of x, 120; got 10 {RULE}"),
        (np.where(np.arange(N) == 5, np.nan, IMAGES.T).T, "NaN or inf in 1 rows: 5"),
        (IMAGES.astype(str), "Expected numbers in context; got dtype"),
    ],
)
@pytest.mark.parametrize("verb", ["fit", "log_prob", "decode"])
def test_bad_contexts(flow, verb, context, message):
    with pytest.raises(ValueError, match=message):
        getattr(flow, verb)(X, context)


def test_bad_contexts_of_draws(flow):
    for context in (IMAGES[None], IMAGES[:, 0], 3.0):
        with pytest.raises(ValueError, match=RULE):
            flow.sample(2, context)
    with pytest.raises(ValueError, match=RULE):
        flow.distribution(IMAGES[0, 0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"context_net": conv_net()}, "Expected context_shape, the shape of one context, because .* does not say"),
        ({"context_net": conv_net(4), "context_shape": (6, 6, 1)}, r"3 outputs, as many as are heard; got .* \(4,\)"),
        ({"context_net": layers.Dense(3), "context_shape": (4, 2)}, r"3 outputs, .*; got dense.* with \(4, 3\)"),
        ({"context_net": "conv"}, "Expected a Keras layer or model as context net; got 'conv'"),
        (
            {"context_net": keras.Sequential([keras.Input([2]), layers.Dense(3)]), "context_shape": (4,)},
            r"Expected context_shape \(2,\), which .* takes; got \(4,\)",
        ),
        ({"context_shape": (6, 6, 1)}, r"Expected a context_net for contexts of another shape than \(3,\)"),
        ({"n_classes": 4}, "Expected n_classes equal to the bijector's context_dim 3; got 4"),
        ({"context_net": layers.Dense(3), "n_classes": 4, "context_shape": (5,)}, r"\(4,\) of 4 classes"),
    ],
)
def test_nets_that_do_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        FlowModel(bijector(), **arguments)


def test_nets_that_nobody_hears():
    for arguments in ({"context_net": layers.Dense(3)}, {"n_classes": 3}):
        with pytest.raises(ValueError, match="Expected a bijector with context_dim for a context_net"):
            FlowModel(tff.RealNVP(2, n_layers=1, hidden=HIDDEN), **arguments)
    a, b = keras.Input([2]), keras.Input([2])
    two = keras.Model([a, b], layers.Dense(3)(layers.Concatenate()([a, b])))
    with pytest.raises(ValueError, match=r"Expected a context net of one input; got .* with 2"):
        FlowModel(bijector(), context_net=two)


# Files for where Python is not, and text.


def tiny(context_net, context_shape=None):
    coupling = Coupling(Affine(), half_mask(2), nets.MLP(2, (4,)), 3)
    flow = FlowModel(coupling, context_net=context_net, context_shape=context_shape)
    randomise(flow.bijector)
    return flow


def test_saved_model_takes_images(tmp_path):
    flow = tiny(conv_net(), (6, 6, 1))
    flow.export(tmp_path / "flow", verbose=False)
    found = export.verify(tmp_path / "flow", flow, X, IMAGES)
    assert {parity.signature for parity in found} == {"log_prob", "encode", "decode"}
    assert max(parity.difference for parity in found) < 1e-4
    run = export.runner(tmp_path / "flow")
    drawn = run("sample", seed=np.arange(3, dtype=np.int32), temperature=np.ones(3, np.float32), context=IMAGES[:3])
    assert drawn["x"].shape == (3, 2)


@pytest.mark.parametrize("kind", ["images", "labels"])
def test_tflite_takes_contexts_as_they_are(kind, tmp_path):
    flow = tiny(layers.Embedding(4, 3)) if kind == "labels" else tiny(conv_net(), (6, 6, 1))
    context = LABELS if kind == "labels" else IMAGES
    flow.export(tmp_path / "flow.tflite", "litert", verbose=False)
    assert max(p.difference for p in export.verify(tmp_path / "flow.tflite", flow, X, context)) < 1e-4


def test_summary_and_repr_name_the_net(flow, capsys):
    flow.summary()
    text = capsys.readouterr().out
    assert f"{flow.context_net.name}, shape (6, 6, 1) to 3" in text
    assert f"{flow.count_params():,}" in text
    assert f"context_net={flow.context_net.name} of (6, 6, 1)" in repr(flow)


@pytest.mark.parametrize("data", ["digits", "breast_cancer"])
def test_bayes_classifier_example(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bayes_classifier.py", "--quick", "--data", data, "--output", str(tmp_path)])
    runpy.run_path(str(ROOT / "examples" / "bayes_classifier.py"), run_name="__main__")
    printed = capsys.readouterr().out
    right = {
        line.split("  ")[1]: float(line.split("%")[0].split()[-1]) for line in printed.splitlines() if "%  " in line
    }
    assert len(right) == 4
    assert right["normalizing flow"] > (50.0 if data == "digits" else 80.0)
    assert (tmp_path / "bayes_classifier.png").stat().st_size > 10_000
