"""FlowModel: the verbs, training, files, and life inside other people's code."""

import itertools

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from cases import HIDDEN, CountedLoss, policy, randomise
from scipy import stats

import tfflows as tff
from tfflows import FlowModel, bases, batching, callbacks, inputs, losses, training

SMALL = {"n_layers": 2, "hidden": HIDDEN}
RNG = np.random.default_rng(0)
X = (RNG.normal(size=(300, 2)) * [1.0, 3.0] + [0.0, 5.0]).astype(np.float32)
CONTEXT = RNG.normal(size=(300, 3)).astype(np.float32)


def small_flow(context_dim=None, **kwargs):
    return FlowModel(tff.RealNVP(2, **SMALL, context_dim=context_dim), **kwargs)


@pytest.fixture(scope="module")
def fitted():
    keras.utils.set_random_seed(0)
    flow = small_flow()
    flow.fit(X, epochs=2, verbose=0)
    return flow


@pytest.fixture(scope="module")
def conditional():
    keras.utils.set_random_seed(0)
    flow = small_flow(context_dim=3)
    randomise(flow.bijector)
    return flow


# The verbs.


def test_verbs_agree_with_each_other(fitted):
    z, log_det = fitted.encode(X, return_log_det=True)
    np.testing.assert_allclose(fitted.log_prob(X), fitted.base.log_prob(z) + log_det, atol=1e-5)
    x, forward_log_det = fitted.decode(z, return_log_det=True)
    np.testing.assert_allclose(x, X, atol=1e-4)
    np.testing.assert_allclose(forward_log_det, -log_det, atol=1e-5)
    np.testing.assert_allclose(fitted(X), fitted.log_prob(X), atol=1e-5)
    np.testing.assert_allclose(fitted.predict(X, verbose=0), fitted.log_prob(X), atol=1e-5)
    assert fitted.encode(X).shape == X.shape
    assert fitted.decode(z).shape == X.shape


def test_samples_follow_the_density_and_the_seed(fitted):
    x, log_prob = fitted.sample_and_log_prob(2000, seed=3)
    np.testing.assert_allclose(fitted.log_prob(x), log_prob, atol=1e-4)
    # Of two programs that XLA compiles the last bits may differ.
    np.testing.assert_allclose(fitted.sample(2000, seed=3), x, rtol=1e-5, atol=1e-5)
    assert np.any(fitted.sample(2000, seed=4) != x)
    assert np.any(fitted.sample(5).numpy() != fitted.sample(5).numpy())
    # The latents of samples are a standard normal.
    assert stats.kstest(np.ravel(fitted.encode(x)), "norm").pvalue > 1e-3
    # Chunks of one draw differ from each other, and the temperature narrows.
    chunked = fitted.sample(64, seed=3, batch_size=16).numpy()
    assert len(np.unique(chunked, axis=0)) == 64
    cold, cold_log_prob = fitted.sample_and_log_prob(2000, seed=3, temperature=0.5)
    np.testing.assert_allclose(np.std(fitted.encode(cold), axis=0), 0.5, atol=0.05)
    tempered = fitted.base.log_prob(fitted.encode(cold), 0.5) + fitted.encode(cold, return_log_det=True)[1]
    np.testing.assert_allclose(cold_log_prob, tempered, atol=1e-4)
    assert np.ptp(fitted.sample(10, temperature=0.0), axis=0).max() < 1e-6


def test_context_shapes(conditional):
    assert conditional.sample(4, CONTEXT[0]).shape == (4, 2)
    x, log_prob = conditional.sample_and_log_prob(4, CONTEXT[:5], seed=1)
    assert x.shape == (4, 5, 2)
    assert log_prob.shape == (4, 5)
    for i in range(4):
        np.testing.assert_allclose(conditional.log_prob(x[i], CONTEXT[:5]), log_prob[i], atol=1e-4)
    small_chunks = conditional.sample(4, CONTEXT[:5], seed=1, batch_size=3)
    assert small_chunks.shape == (4, 5, 2)
    z = conditional.encode(X, CONTEXT)
    np.testing.assert_allclose(conditional.decode(z, CONTEXT), X, atol=1e-3)
    assert np.all(np.abs(conditional.log_prob(X, CONTEXT) - conditional.log_prob(X, -CONTEXT)) > 0.0)


def test_rows_of_any_number_compile_a_few_times(fitted):
    fitted.compile()
    twenty_sizes = [1, 2, 3, 7, 15, 16, 17, 30, 40, 64, 99, 100, 128, 130, 150, 200, 222, 256, 280, 299]
    for n in twenty_sizes:
        np.testing.assert_allclose(fitted.log_prob(X[:n]), fitted._log_prob(X[:n], None), atol=1e-4)
        np.testing.assert_allclose(fitted.decode(fitted.encode(X[:n])), X[:n], atol=1e-3)
        assert fitted.sample(n).shape == (n, 2)
    assert len(set(twenty_sizes)) == 20
    assert len(batching.BUCKETS) <= 4
    for verb in ("log_prob", "sample_only", "encode", "decode"):
        assert fitted._compiled(verb).experimental_get_tracing_count() <= len(batching.BUCKETS)
    np.testing.assert_allclose(fitted.log_prob(X, batch_size=7), fitted.log_prob(X), atol=1e-5)
    assert fitted.log_prob(X[:0]).shape == (0,)
    assert fitted.encode(X[:0]).shape == (0, 2)


def test_accepts_what_users_have(fitted):
    expected = fitted.log_prob(X)
    for same in (X.astype(np.float64), X.tolist(), pd.DataFrame(X, columns=["a", "b"]), tf.constant(X)):
        np.testing.assert_allclose(fitted.log_prob(same), expected, atol=1e-4)
    np.testing.assert_allclose(fitted.log_prob([[0, 5]]), fitted.log_prob([[0.0, 5.0]]))


def test_gradients_flow(fitted):
    x = tf.constant(X[:10])
    for function in (fitted.log_prob, lambda x: fitted.log_prob(x, batch_size=4)):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(x)
            log_prob = function(x)
        assert np.all(np.isfinite(tape.gradient(log_prob, x)))
        gradients = tape.gradient(log_prob, fitted.trainable_weights)
        assert all(np.any(g != 0.0) for g in gradients)
    with tf.GradientTape() as tape:
        x = fitted.sample(10, seed=1)
    assert all(g is not None for g in tape.gradient(x, fitted.trainable_weights))


def test_inside_a_tf_function(fitted, conditional):
    @tf.function
    def score(x):
        return fitted.log_prob(x), fitted.sample(3, seed=(1, 2)), fitted.encode(x)

    log_prob, draws, z = score(tf.constant(X))
    np.testing.assert_allclose(log_prob, fitted.log_prob(X), atol=1e-4)
    np.testing.assert_allclose(z, fitted.encode(X), atol=1e-4)
    assert draws.shape == (3, 2)
    draws = tf.function(lambda c: conditional.sample(3, c))(tf.constant(CONTEXT[:4]))
    assert draws.shape == (3, 4, 2)
    any_number = tf.function(fitted.log_prob, input_signature=[tf.TensorSpec([None, 2])])
    np.testing.assert_allclose(any_number(X[:11]), log_prob[:11], atol=1e-4)


def test_inside_another_keras_model(conditional, tmp_path):
    x = keras.Input([2])
    raw = keras.Input([4])
    context = keras.layers.Dense(3)(raw)
    model = keras.Model([x, raw], conditional(x, context))
    model.compile(loss=lambda y, log_prob: -log_prob)
    features = RNG.normal(size=(300, 4)).astype(np.float32)
    before = [w.numpy() for w in conditional.trainable_weights]
    model.fit([X, features], np.zeros(300), epochs=1, verbose=0)
    assert any(np.any(w.numpy() != b) for w, b in zip(conditional.trainable_weights, before, strict=True))
    model.save(tmp_path / "outer.keras")
    again = keras.saving.load_model(tmp_path / "outer.keras", compile=False)
    np.testing.assert_allclose(
        again.predict([X, features], verbose=0), model.predict([X, features], verbose=0), atol=1e-5
    )


def test_draws_inside_another_keras_model(conditional):
    """As the posterior of a variational autoencoder: gradients reach the weights and the context, draws are new."""

    @tf.function
    def draw(context):
        with tf.GradientTape() as tape:
            tape.watch(context)
            z, log_prob = conditional.sample_and_log_prob(3, context)
            loss = tf.reduce_sum(z**2) + tf.reduce_sum(log_prob)
        return z, log_prob, tape.gradient(loss, [context, *conditional.trainable_weights])

    context = tf.constant(CONTEXT[:5])
    z, log_prob, gradients = draw(context)
    assert z.shape == (3, 5, 2)
    assert all(g is not None and np.any(g != 0.0) for g in gradients)
    expected = [conditional.log_prob(z[i], context) for i in range(3)]
    np.testing.assert_allclose(log_prob, expected, atol=1e-3)
    assert np.all(draw(context)[0] != z)


def test_distribution(fitted, conditional):
    distribution = fitted.distribution()
    np.testing.assert_allclose(distribution.log_prob(X), fitted.log_prob(X), atol=1e-4)
    assert distribution.sample([2, 3]).shape == (2, 3, 2)
    x, log_prob = distribution.experimental_sample_and_log_prob([5], seed=1)
    np.testing.assert_allclose(distribution.log_prob(x), log_prob, atol=1e-4)
    batch = conditional.distribution(CONTEXT[:4])
    assert batch.batch_shape == (4,)
    assert batch.event_shape == (2,)
    assert batch.sample(3).shape == (3, 4, 2)
    np.testing.assert_allclose(batch.log_prob(X[:4]), conditional.log_prob(X[:4], CONTEXT[:4]), atol=1e-4)
    joint = tfp.distributions.Independent(batch, 1)
    assert joint.log_prob(X[:4]).shape == ()
    with pytest.raises(ValueError, match="Expected a context"):
        conditional.distribution()
    with pytest.raises(ValueError, match="Expected no context"):
        fitted.distribution(CONTEXT)


# Training.


@pytest.mark.usefixtures("without_xla")
def test_history_and_evaluate_are_the_nll():
    flow = small_flow()
    history = flow.fit(X, epochs=3, validation_split=0.2, batch_size=64, verbose=0).history
    assert set(history) == {"loss", "val_loss"}
    assert len(history["loss"]) == 3
    # 300 rows make 60 held-out ones, the last: Keras' rule.
    nll = -np.mean(flow.log_prob(X[-60:]))
    assert history["val_loss"][-1] == pytest.approx(nll, abs=1e-4)
    assert flow.evaluate(X[-60:], verbose=0) == pytest.approx(nll, abs=1e-4)
    # The last, partly filled batch counts for its rows only.
    assert flow.evaluate(X, batch_size=128, verbose=0) == pytest.approx(-np.mean(flow.log_prob(X)), abs=1e-4)
    weight = np.linspace(0.0, 2.0, 300)
    weighted = -np.average(flow.log_prob(X), weights=weight)
    assert flow.evaluate(X, sample_weight=weight, batch_size=128, verbose=0) == pytest.approx(weighted, abs=1e-4)


@pytest.mark.usefixtures("without_xla")
def test_first_loss_is_that_of_the_standardised_identity():
    flow = small_flow()
    flow.compile(keras.optimizers.SGD(0.0))
    loss = flow.fit(X, epochs=1, batch_size=64, verbose=0).history["loss"][0]
    x = X.astype(np.float64)
    gaussian = stats.norm(x.mean(axis=0), x.std(axis=0)).logpdf(x).sum(axis=1).mean()
    assert loss == pytest.approx(-gaussian, abs=1e-4)


@pytest.mark.usefixtures("without_xla")
def test_automatic_fit_stops_and_restores_the_best(monkeypatch):
    monkeypatch.setattr(callbacks, "PATIENCE_EPOCHS", (5, 5))
    flow = small_flow()
    flow.compile(keras.optimizers.Adam(5e-3, use_ema=True, ema_momentum=0.5))
    x = tff.datasets.TwoMoons().sample(560, seed=0)
    history = flow.fit(x[:60], validation_data=x[60:], verbose=0).history
    best, last = int(np.argmin(history["val_loss"])), len(history["val_loss"]) - 1
    assert 0 < best < last < callbacks.MAX_EPOCHS - 1
    assert flow.evaluate(x[60:], verbose=0) == pytest.approx(history["val_loss"][best], abs=1e-3)
    assert history["val_loss"][last] > history["val_loss"][best] + 1e-3


@pytest.mark.usefixtures("without_xla")
def test_automatic_fit_averages_the_weights(monkeypatch):
    monkeypatch.setattr(training, "MAX_EPOCHS", 3)
    flow = small_flow()
    history = flow.fit(X, verbose=0).history
    assert flow.optimizer.use_ema
    assert len(history["val_loss"]) == 3


@pytest.mark.usefixtures("without_xla")
def test_weights_of_rows_matter():
    """Rows of weight zero are as good as absent, even where they are wild."""
    outliers = np.full((100, 2), 1e3, np.float32)
    weight = np.concatenate([np.ones(300), np.zeros(100)])
    flow = small_flow()
    flow.fit(np.concatenate([X, outliers]), sample_weight=weight, epochs=30, batch_size=64, verbose=0)
    statistics = flow.bijector.bijectors[0].layers[0]
    np.testing.assert_allclose(statistics.location, X.mean(axis=0), rtol=1e-4)
    gaussian = stats.multivariate_normal(X.mean(axis=0), np.cov(X.T)).logpdf(X).mean()
    assert np.mean(flow.log_prob(X)) > gaussian - 0.1


@pytest.mark.usefixtures("without_xla")
def test_all_of_keras_fit(tmp_path):
    flow = small_flow(context_dim=3)
    dataset = tf.data.Dataset.from_tensor_slices((X, CONTEXT)).batch(100)
    weighted = tf.data.Dataset.from_tensor_slices((X, CONTEXT, np.ones(300, np.float32))).batch(100)
    seen = []
    flow.fit(
        dataset.repeat(),
        epochs=2,
        steps_per_epoch=3,
        validation_data=weighted,
        validation_steps=2,
        callbacks=[
            keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(logs["val_loss"])),
            keras.callbacks.ModelCheckpoint(tmp_path / "best.keras", monitor="val_loss"),
        ],
        verbose=0,
    )
    assert len(seen) == 2
    again = keras.saving.load_model(tmp_path / "best.keras")
    np.testing.assert_allclose(again.log_prob(X, CONTEXT), flow.log_prob(X, CONTEXT), atol=1e-5)
    flow.fit(X, CONTEXT, validation_data=(X, CONTEXT, np.ones(300)), epochs=3, initial_epoch=2, verbose=0)
    flow.fit(pd.DataFrame(X), pd.DataFrame(CONTEXT), epochs=1, verbose=0)
    assert flow.evaluate(weighted, verbose=0) == pytest.approx(-np.mean(flow.log_prob(X, CONTEXT)), abs=1e-4)
    unconditional = small_flow()
    unconditional.fit(tf.data.Dataset.from_tensor_slices((X, (), np.ones(300))).batch(100), epochs=1, verbose=0)
    unconditional.fit(tf.data.Dataset.from_tensor_slices(X).batch(100), epochs=1, verbose=0)


@pytest.mark.usefixtures("without_xla")
def test_partial_batches_compile_once():
    loss = CountedLoss()
    flow = small_flow()
    flow.compile(loss=loss)
    flow.fit(X, epochs=2, batch_size=128, validation_split=0.1, verbose=0)
    assert loss.n_traces == 2  # one for training, one for validation


@pytest.mark.parametrize(
    ("mean", "std", "jit_compile"), [(5e3, 2e-2, True), (0.0, 1e-8, False), (0.0, 1e8, False), (1e8, 1e7, False)]
)
def test_any_scale(mean, std, jit_compile):
    x = np.random.default_rng(1).normal(mean, std, size=(2000, 2))
    flow = small_flow()
    flow.compile(jit_compile=jit_compile)
    flow.fit(x, epochs=3, verbose=0)
    truth = stats.norm(mean, std).logpdf(x).sum(axis=1).mean()
    assert np.mean(flow.log_prob(x)) == pytest.approx(truth, abs=0.05)
    draws = flow.sample(2000, seed=0).numpy().astype(np.float64)
    np.testing.assert_allclose(draws.mean(axis=0), mean, atol=0.2 * std)
    np.testing.assert_allclose(draws.std(axis=0), std, rtol=0.1)


def test_the_seed_fixes_the_fit():
    results = []
    for _ in range(2):
        keras.utils.set_random_seed(5)
        flow = small_flow()
        flow.fit(X, epochs=2, batch_size=64, validation_split=0.1, verbose=0)
        results.append(flow.log_prob(X).numpy())
    np.testing.assert_array_equal(*results)


@pytest.mark.usefixtures("without_xla")
def test_frozen_layers_stay():
    flow = small_flow()
    layer = flow.bijector.bijectors[1].layers[0]
    layer.trainable = False
    before = [w.numpy() for w in layer.weights]
    flow.fit(X, epochs=1, verbose=0)
    for weight, b in zip(layer.weights, before, strict=True):
        np.testing.assert_array_equal(weight, b)


@keras.saving.register_keras_serializable("tests")
class Tempered(losses.Loss):
    """A loss of a user's own."""

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, flow, x, context):
        return -self.factor * flow.log_prob(x, context)

    def get_config(self):
        return {"factor": self.factor}


def test_compile_with_a_loss_and_save_it(tmp_path):
    flow = small_flow()
    flow.compile(keras.optimizers.Adam(3e-3), Tempered(2.0), jit_compile=False)
    flow.fit(X, epochs=1, verbose=0)
    assert flow.evaluate(X, verbose=0) == pytest.approx(-2.0 * np.mean(flow.log_prob(X)), abs=1e-3)
    flow.save(tmp_path / "flow.keras")
    again = keras.saving.load_model(tmp_path / "flow.keras")
    assert again.flow_loss.factor == 2.0
    assert again.use_xla is False
    assert float(again.optimizer.learning_rate) == pytest.approx(3e-3)
    assert int(again.optimizer.iterations) == int(flow.optimizer.iterations)
    with pytest.raises(ValueError, match=r"Expected a loss of tfflows\.losses"):
        flow.compile(loss="mse")
    with pytest.raises(ValueError, match="Expected no metrics"):
        flow.compile(metrics=["mae"])


class Explode(keras.callbacks.Callback):
    """Poisons one weight, as an overflow would."""

    def on_train_batch_begin(self, batch, logs=None):
        if batch == 1:
            weight = self.model.trainable_weights[-1]
            weight.assign(np.full(weight.shape, np.nan))


@pytest.mark.usefixtures("without_xla")
def test_a_nan_stops_the_fit_and_says_where():
    flow = small_flow()
    with pytest.raises(FloatingPointError, match=r"in epoch 1 of 5, batch 2.*Coupling: Affine.* is not finite"):
        flow.fit(X, epochs=5, batch_size=64, callbacks=[Explode()], verbose=0)


@pytest.mark.usefixtures("without_xla")
@pytest.mark.parametrize(
    ("x", "weight", "message"),
    [
        (X, np.where(np.arange(300) == 250, -1.0, 1.0), "batch 3.*sample weights are negative or NaN"),
        (np.where(np.arange(600).reshape(300, 2) == 500, np.nan, X), np.ones(300), "batch 3.*x of the data is not"),
    ],
)
def test_bad_rows_of_a_pipeline_stop_the_fit(x, weight, message, monkeypatch):
    monkeypatch.setattr(inputs, "ADAPT_ROWS", 100)
    dataset = tf.data.Dataset.from_tensor_slices((x, (), weight)).batch(100)
    with pytest.raises(FloatingPointError, match=message):
        small_flow().fit(dataset, epochs=2, verbose=0)


@pytest.mark.usefixtures("without_xla")
def test_bad_rows_held_out_stop_the_fit():
    """Else the first epoch would be the best one."""
    bad = np.where(np.arange(600).reshape(300, 2) == 500, np.nan, X)
    held_out = tf.data.Dataset.from_tensor_slices(bad).batch(100)
    with pytest.raises(
        FloatingPointError, match=r"validation loss is NaN after epoch 1 of 2\. The x of the data is not"
    ):
        small_flow().fit(X, epochs=2, validation_data=held_out, verbose=0)


@pytest.mark.usefixtures("without_xla")
def test_a_nan_held_out_leaves_the_best_weights():
    passes = itertools.count()

    def rows():
        yield X[:50] * (1.0 if next(passes) < 3 else np.nan)

    held_out = tf.data.Dataset.from_generator(rows, output_signature=tf.TensorSpec((None, 2), tf.float32))
    flow, seen = small_flow(), {}
    keep = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.setdefault(logs["val_loss"], flow.get_weights())
    )
    flow.compile(keras.optimizers.Adam(0.3), jit_compile=False)
    with pytest.raises(FloatingPointError, match="validation loss is NaN after epoch 4"):
        flow.fit(X, validation_data=held_out, callbacks=[keep], verbose=0)
    assert len(seen) == 3
    for weight, best in zip(flow.get_weights(), seen[min(seen)], strict=True):
        np.testing.assert_array_equal(weight, best)


@pytest.mark.usefixtures("without_xla")
def test_rows_held_out_have_weight():
    weight = np.where(np.arange(300) % 30 == 0, 1.0, 0.0)
    flow = small_flow()
    flow.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    history = flow.fit(X, sample_weight=weight, verbose=0).history
    assert history["val_loss"][0] > 0.5
    with pytest.raises(ValueError, match="Expected sample weights > 0 among the last 30 rows"):
        flow.fit(X, sample_weight=np.arange(300) < 200, validation_split=0.1, epochs=1, verbose=0)


@pytest.mark.usefixtures("without_xla")
def test_nothing_to_train_is_a_fit_too():
    flow = FlowModel(tff.Chain([tff.bijectors.Standardize(2)]))
    history = flow.fit(X, epochs=1, batch_size=300, verbose=0).history
    gaussian = stats.norm(X.mean(axis=0), X.std(axis=0)).logpdf(X).sum(axis=1).mean()
    assert history["loss"][0] == pytest.approx(-gaussian, abs=1e-4)


@pytest.mark.usefixtures("without_xla")
def test_a_diverging_fit_keeps_finite_weights():
    flow = small_flow()
    flow.compile(keras.optimizers.SGD(1e30))
    with pytest.raises(FloatingPointError, match="smaller learning rate"):
        flow.fit(X, epochs=5, batch_size=64, verbose=0)
    assert all(np.all(np.isfinite(w)) for w in flow.weights)


@pytest.mark.usefixtures("without_xla")
def test_interrupt_keeps_the_best_weights():
    class Interrupt(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            losses_seen.append(logs["val_loss"])
            if epoch == 4:
                self.model.trainable_weights[0].assign_add(tf.ones_like(self.model.trainable_weights[0]))
            if epoch == 5:
                raise KeyboardInterrupt

    losses_seen = []
    flow = small_flow()
    held = X[:50]
    with pytest.raises(KeyboardInterrupt):
        flow.fit(X[50:], validation_data=held, callbacks=[Interrupt()], verbose=0)
    assert flow.evaluate(held, verbose=0) == pytest.approx(min(losses_seen[:5]), abs=1e-4)


# Files, text, dtypes, bases.


def test_saved_model_is_the_same_and_trains_on(fitted, tmp_path):
    fitted.save(tmp_path / "flow.keras")
    again = keras.saving.load_model(tmp_path / "flow.keras")
    np.testing.assert_array_equal(again.log_prob(X), fitted.log_prob(X))
    np.testing.assert_array_equal(again.sample(5, seed=1), fitted.sample(5, seed=1))
    before = again.evaluate(X, verbose=0)
    assert not again.bijector.needs_adapt
    again.fit(X, epochs=3, verbose=0)
    assert again.evaluate(X, verbose=0) < before
    fitted.save_weights(tmp_path / "flow.weights.h5")
    other = small_flow()
    other.load_weights(tmp_path / "flow.weights.h5")
    np.testing.assert_array_equal(other.log_prob(X), fitted.log_prob(X))


def test_wrong_files(fitted, tmp_path):
    fitted.save_weights(tmp_path / "flow.weights.h5")
    other = FlowModel(tff.RealNVP(2, n_layers=2, hidden=(9, 9)))
    before = other.get_weights()
    with pytest.raises(ValueError, match="Expected the weights of FlowModel"):
        other.load_weights(tmp_path / "flow.weights.h5")
    for weight, b in zip(other.weights, before, strict=True):
        np.testing.assert_array_equal(weight, b)
    (tmp_path / "text.keras").write_text("no flow")
    with pytest.raises(ValueError, match=r"\.keras"):
        keras.saving.load_model(tmp_path / "text.keras")
    with pytest.raises(ValueError, match="File not found"):
        keras.saving.load_model(tmp_path / "missing.keras")


def test_stock_tfp_parts_are_saved(tmp_path):
    tfb, tfd = tfp.bijectors, tfp.distributions
    chain = tff.Chain([tfb.Chain([tfb.Shift(1.0), tfb.Invert(tfb.Softplus())]), *tff.RealNVP(2, **SMALL).bijectors[1:]])
    base = tfd.MultivariateNormalTriL(np.zeros(2, np.float32), np.array([[1.0, 0.0], [0.5, 2.0]], np.float32))
    flow = FlowModel(chain, base)
    x = np.abs(X) + 0.1
    flow.save(tmp_path / "flow.keras")
    again = keras.saving.load_model(tmp_path / "flow.keras")
    np.testing.assert_array_equal(again.log_prob(x), flow.log_prob(x))
    theirs = tfd.TransformedDistribution(base, chain)
    np.testing.assert_allclose(theirs.log_prob(x), flow.log_prob(x), rtol=1e-4)
    with pytest.raises(ValueError, match="Expected temperature 1"):
        flow.sample(3, temperature=0.5)


def test_summary_and_repr(fitted, capsys):
    fitted.summary()
    text = capsys.readouterr().out
    assert "Standardize" in text
    assert "Coupling: Affine" in text
    assert "StandardNormal" in text
    assert f"{fitted.count_params():,}" in text
    assert repr(fitted).startswith("FlowModel(")
    assert "event_shape=(2,)" in repr(fitted)


@pytest.mark.parametrize(
    ("name", "jit_compile"), [("float64", False), ("mixed_float16", True), ("mixed_bfloat16", False)]
)
def test_dtype_policies(name, jit_compile):
    with policy(name):
        flow = small_flow()
        flow.compile(jit_compile=jit_compile)
        flow.fit(X, epochs=2, verbose=0)
        expected = tf.float64 if name == "float64" else tf.float32
        assert flow.log_prob(X).dtype == flow.sample(2).dtype == expected
        assert np.all(np.isfinite(flow.log_prob(X)))
        z = flow.encode(X)
        np.testing.assert_allclose(flow.decode(z), X, atol=1e-9 if name == "float64" else 0.1)


def test_a_loss_scale_that_is_too_large_is_halved():
    """By the optimizer, which leaves the step out: no reason to end the fit."""
    with policy("mixed_float16"):
        flow = small_flow()
        flow.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1e-2), 2.0**30), jit_compile=False)
        loss = flow.fit(X, epochs=15, verbose=0).history["loss"]
        assert loss[-1] < loss[0]
        assert 1.0 < float(flow.optimizer.dynamic_scale) < 2.0**25
        flow.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1e9)), jit_compile=False)
        with pytest.raises(FloatingPointError, match="not finite in epoch"):
            flow.fit(X, epochs=10, verbose=0)


def test_loops_of_ones_own():
    flow = small_flow()
    before = flow.test_on_batch(X)
    assert before != flow.train_on_batch(X, sample_weight=np.ones(len(X)))  # has adapted
    losses = [flow.train_on_batch(X, return_dict=True)["loss"] for _ in range(20)]
    assert losses[-1] < losses[0]
    assert flow.test_on_batch(X) == pytest.approx(flow.evaluate(X, verbose=0), rel=1e-5)
    weights = flow.get_weights()
    flow.compile(keras.optimizers.SGD(1e30))
    flow.train_on_batch(X)
    assert np.isnan(flow.train_on_batch(X))
    assert all(np.all(np.isfinite(w)) for w in flow.get_weights())
    assert not all(map(np.array_equal, flow.get_weights(), weights))
    with pytest.raises(ValueError, match="finite"):
        flow.train_on_batch(np.full_like(X, np.nan))


def test_constructor_errors():
    with pytest.raises(ValueError, match="Expected a bijector of tfflows"):
        FlowModel(tfp.bijectors.Exp())
    with pytest.raises(ValueError, match=r"such as RealNVP\(3\) for 3 columns; got 'realnvp'"):
        FlowModel("realnvp")
    with pytest.raises(ValueError, match="event shape"):
        FlowModel(tff.Chain([tfp.bijectors.Exp()]))
    with pytest.raises(ValueError, match=r"Expected a base of event shape \(2,\); got \(3,\)"):
        FlowModel(tff.RealNVP(2, **SMALL), bases.StandardNormal(3))
    with pytest.raises(ValueError, match="Expected a base"):
        FlowModel(tff.RealNVP(2, **SMALL), "normal")
    with pytest.raises(ValueError, match="n_dim >= 1"):
        tff.MAF(0)
