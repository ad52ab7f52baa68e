"""How exact numbers are, and stay: hostile tables, low precision, tensor cores, seeds, and who made a NaN."""

import re
import subprocess
import sys
import textwrap

import cases
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from cases import C, D, policy, randomise
from scipy import stats

import tfflows as tff
from tfflows import FlowMixture, FlowModel, PointCloudFlow, callbacks, products, randomness
from tfflows import bijectors as tfb
from tfflows.bases import DiagonalNormal
from tfflows.nets import LipschitzMLP

SMALL = {"n_layers": 2, "hidden": (8,)}
RNG = np.random.default_rng(0)
X = RNG.normal(1.0, 2.0, (60, 3)).astype(np.float32)


def with_column(column, dtype=np.float32):
    x = X.astype(dtype)
    x[:, 1] = column
    return x


def trained(x, preset=tff.RealNVP, **kwargs):
    """After a step by hand, which compiles nothing."""
    flow = FlowModel(preset(x.shape[1], n_layers=1, hidden=(8,), **kwargs))
    flow.adapt(x)
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        loss = -tf.reduce_mean(flow._log_prob(x, None))
    for weight, gradient in zip(flow.trainable_weights, tape.gradient(loss, flow.trainable_weights), strict=True):
        assert np.all(np.isfinite(gradient)), weight.path
        weight.assign_sub(1e-2 * gradient)
    return flow, x


# Hostile tables.


@pytest.mark.filterwarnings("ignore:Columns")
@pytest.mark.parametrize(
    "x",
    [
        with_column(1e-40 * X[:, 0]),
        1e-40 * X,
        1e-310 * X.astype(np.float64),
        with_column(0.0),
        np.full_like(X, 3.7),
        with_column(X[:, 0]),
        with_column(np.where(np.arange(60) == 7, 1e6, X[:, 1])),
        X.astype(np.float64) * [1e-30, 1e30, 1.0],
        X * np.float32([1e-36, 1e36, 1.0]),
        1e9 + X.astype(np.float64),
        1e15 + X.astype(np.float64),
    ],
    ids=[
        "a column of denormals",
        "all denormals",
        "denormals of float64",
        "a column of zeros",
        "all columns constant",
        "a column twice",
        "an outlier",
        "far scales in float64",
        "far scales",
        "1e9 + noise",
        "1e15 + noise",
    ],
)
def test_hostile_tables_train(x):
    flow, rows = trained(x)
    z, log_det = flow.bijector.inverse_and_log_det(rows)
    assert np.all(np.isfinite(flow.base.log_prob(z) + log_det))
    back, _ = flow.bijector.forward_and_log_det(z)
    spread = x.std(axis=0, dtype=np.float64)
    unit = np.maximum(np.abs(x.astype(np.float64)), np.where(spread < 1e-38, 1.0, spread))
    assert np.max(np.abs(back - x.astype(np.float64)) / unit) < 1e-3


def test_standardize_keeps_all_digits_of_data_far_from_zero():
    x = RNG.normal(1e9, 1.0, size=(1000, 2))
    with pytest.warns(UserWarning, match="resolves fewer than 8 steps"):
        (bijector := tfb.Standardize(2)).adapt(x)
    # A location in float32 alone would be off by up to 32 standard deviations.
    np.testing.assert_allclose(bijector.inverse(x), (x - x.mean(axis=0)) / x.std(axis=0), atol=1e-5)


def test_files_from_before_the_second_part_of_locations(tmp_path):
    layer = tff.nets.Statistics((2,))
    layer.set(np.array([1e9 + 7.0, 2.0]), np.array([1.0, 3.0]))
    store = {str(i): w.numpy() for i, w in enumerate(layer.weights)}
    assert store.pop("3")[0] != 0.0
    layer.load_own_variables(store)
    np.testing.assert_array_equal(layer.rest, 0.0)
    np.testing.assert_array_equal(layer.location, store["0"])
    with pytest.raises(ValueError, match="variables"):
        layer.load_own_variables({"0": store["0"]})


@pytest.mark.parametrize("make", [np.asarray, tf.constant])
def test_numbers_beyond_the_dtype_are_refused(make):
    flow = FlowModel(tff.RealNVP(3, **SMALL))
    x = make(np.where(np.arange(60)[:, None] == 7, 1e60, X.astype(np.float64)))
    with pytest.raises(ValueError, match=r"within \+-3.4e\+38, which float32 holds; got larger ones in 1 rows, .* 7"):
        flow.fit(x, verbose=0)
    with policy("float64"):
        trained(np.asarray(x))


# Mixed precision: nets compute in half precision, bijections in float32.


VARIANTS = re.compile(r".*_(one_scalar.*|rotated|circular|recomputed)")
EACH = [name for name in cases.PRESETS if not VARIANTS.fullmatch(name)]
EACH = [name for name in EACH if not name.endswith("_context") or name.removesuffix("_context") not in EACH]


@pytest.mark.parametrize(
    ("name", "dtype"),
    [(name, "mixed_float16") for name in EACH]
    + [(name, "mixed_bfloat16") for name in ("RealNVP", "CouplingRQNSF_context", "MAF_context", "FFJORD", "Glow")],
)
def test_half_precision_is_for_nets_only(name, dtype):
    """Every preset: in float32 outside its nets, finite far out, and as invertible as ever."""
    bijector = cases.build(name, dtype)
    x, c = cases.points(bijector), cases.context(bijector)
    if not bijector.is_discrete:
        x[4:6] = 1e4 * np.sign(x[4:6])
        x[6:] *= 1e5
    z, log_det = bijector.inverse_and_log_det(x, c)
    back, back_log_det = bijector.forward_and_log_det(z, c)
    for value in (z, log_det, back, back_log_det):
        assert value.dtype == tf.float32
        assert np.all(np.isfinite(value))
    assert {w.dtype for layer in bijector.layers for w in layer.weights} == {"float32"}
    np.testing.assert_allclose(back[:4], x[:4], atol=2e-3)
    np.testing.assert_allclose(back_log_det[:4], -log_det[:4], rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("make", [tfb.LU, tfb.QR, tfb.MatrixExponential, tfb.Sylvester, tfb.Planar, tfb.Standardize])
def test_parameters_of_bijections_are_not_rounded(make):
    x = (5e3 + 2e-2 * RNG.normal(size=(20, D))) if make is tfb.Standardize else RNG.normal(size=(20, D))
    found = []
    for name in ("float64", "mixed_bfloat16"):
        with policy(name):
            bijector = make(D, 2) if make is tfb.Sylvester else make(D)
            bijector.adapt(x)
            for layer in bijector.layers:
                for weight in layer.trainable_weights:
                    weight.assign(np.random.default_rng(1).normal(size=weight.shape))
        found.append(bijector.inverse_and_log_det(x))
    for full, mixed in zip(*found, strict=True):
        assert mixed.dtype == tf.float32
        np.testing.assert_allclose(mixed, full, atol=1e-4)


def test_called_as_a_layer_a_flow_does_not_round_its_data():
    with policy("mixed_bfloat16"):
        flow = FlowModel(tff.Chain([tfb.Standardize(3), tfb.Residual(LipschitzMLP(3, (8,)))]), DiagonalNormal(3))
        flow.adapt(X)
        randomise(flow.bijector)
        flow.base.location.assign(1.0 + 1e-3 * np.arange(3))
        np.testing.assert_allclose(flow(tf.constant(X)), flow._log_prob(tf.constant(X), None), rtol=1e-6)


# Tensor cores.


def on_tensor_cores(monkeypatch, *, protected):
    """Products as such a GPU makes them: of factors with 10 bits, the sums in float32."""
    multiply = tf.matmul

    def rounded(x):
        bits = tf.bitcast(x, tf.int32) + 2**12
        return tf.bitcast(tf.bitwise.bitwise_and(bits, products.FIRST_BITS), tf.float32)

    def matmul(a, b, **kwargs):
        return multiply(rounded(tf.convert_to_tensor(a)), rounded(tf.convert_to_tensor(b)), **kwargs)

    monkeypatch.setattr(tf, "matmul", matmul)
    monkeypatch.setattr(products, "uses_tf32", lambda: protected)


@pytest.mark.parametrize("protected", [False, True])
@pytest.mark.parametrize(
    "make",
    [tfb.LU, tfb.QR, tfb.Householder, tfb.MatrixExponential, tfb.Whiten, lambda n: tfb.Sliced(n, 2, n_knots=6)],
    ids=["LU", "QR", "Householder", "MatrixExponential", "Whiten", "Sliced"],
)
def test_matrices_keep_their_digits_on_tensor_cores(make, protected, monkeypatch):
    bijector = randomise(make(D))
    x = RNG.normal(size=(50, D)).astype(np.float32)
    truth = bijector.inverse(x).numpy()
    on_tensor_cores(monkeypatch, protected=protected)
    z, _ = bijector.inverse_and_log_det(x)
    error = max(np.abs(z - truth).max(), np.abs(bijector.forward(z) - x).max())
    assert (error < 2e-5) if protected else (error > 1e-4)


def test_products_of_tensor_cores_have_gradients(monkeypatch):
    a, b = (tf.constant(RNG.normal(size=(4, 4)).astype(np.float32)) for _ in range(2))

    def gradients():
        with tf.GradientTape() as tape:
            tape.watch([a, b])
            value = tf.reduce_sum(tf.sin(products.matmul(a, b, transpose_b=True)))
        return tape.gradient(value, [a, b])

    expected = gradients()
    monkeypatch.setattr(products, "uses_tf32", lambda: True)
    for ours, theirs in zip(gradients(), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)

    def n_products():
        graph = tf.function(products.matmul).get_concrete_function(a, b).graph
        return sum(operation.type == "MatMul" for operation in graph.get_operations())

    assert n_products() == 3
    with products.undivided():  # for a file that runs elsewhere
        assert n_products() == 1


def test_tensor_cores_are_asked_for(monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind])
    details = {"compute_capability": (8, 6)}
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: details)
    products._has_tensor_cores.cache_clear()
    assert products.uses_tf32()
    monkeypatch.setattr(tf.config.experimental, "tensor_float_32_execution_enabled", lambda: False)
    assert not products.uses_tf32()
    details["compute_capability"] = (7, 5)
    products._has_tensor_cores.cache_clear()
    assert not products._has_tensor_cores()
    products._has_tensor_cores.cache_clear()


# Seeds.

FIT = """
import keras, numpy as np, tensorflow as tf
import tfflows as tff
keras.utils.set_random_seed(3)
x = np.random.default_rng(0).normal(size=(80, 3)).astype(np.float32)
flow = tff.FlowModel(tff.CouplingRQNSF(3, n_layers=1, hidden=(8,)))
flow.compile(jit_compile=False)
flow.fit(x, epochs=2, batch_size=32, validation_split=0.2, verbose=0)
numbers = np.concatenate([np.ravel(w) for w in flow.get_weights()] + [np.ravel(flow.sample(20, seed=1))])
"""


def test_another_process_with_deterministic_operations_gives_the_same_bits(tmp_path):
    script = FIT.replace("keras.utils", "tf.config.experimental.enable_op_determinism()\nkeras.utils", 1)
    script += f"np.save({str(tmp_path / 'numbers.npy')!r}, numbers)"
    other = subprocess.Popen([sys.executable, "-c", script])
    scope = {}
    exec(textwrap.dedent(FIT), scope)
    assert other.wait(timeout=300) == 0
    np.testing.assert_array_equal(scope["numbers"], np.load(tmp_path / "numbers.npy"))


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_draws_are_the_same_under_xla_and_follow_their_laws(dtype):
    def draws():
        seed = tf.constant([1, 2])
        return randomness.normal([20_000, 2], seed, dtype), randomness.uniform([20_000], seed, dtype)

    plain, compiled = (tf.function(draws, jit_compile=jit, autograph=False)() for jit in (False, True))
    for a, b in zip(plain, compiled, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 if dtype == tf.float32 else 1e-13)
    assert stats.kstest(np.ravel(plain[0]), "norm").pvalue > 0.01
    assert stats.kstest(plain[1], "uniform").pvalue > 0.01
    assert abs(np.corrcoef(plain[0], rowvar=False)[0, 1]) < 0.02
    assert plain[0].dtype == plain[1].dtype == dtype


# Who made a NaN.


def explained(model, weight, x, context=None):
    """What is said of data `x` when a weight is NaN."""
    weight.assign(np.full(weight.shape, np.nan))
    batch = {"x": x, "weight": np.ones(len(x), np.float32)}
    batch |= {} if context is None else {"context": context}
    return callbacks.explain(model, model._flows(), tf.data.Dataset.from_tensors(batch))


def flow_of(preset=tff.RealNVP, **kwargs):
    return FlowModel(preset(3, **SMALL, **kwargs))


def last_weight(bijector):
    return bijector.layers[-1].trainable_weights[-1]


def test_the_layer_is_named():
    flow = flow_of()
    said = explained(flow, last_weight(flow.bijector), X)
    assert said.startswith(
        "The value of layer 3 of 3, 'Coupling: Affine of 1 given 2, MLP 8' is not finite for 60 rows"
    )
    flow = flow_of(tff.IAF, context_dim=C)
    said = explained(flow, last_weight(flow.bijector), X, np.zeros((60, C), np.float32))
    assert "The value of layer 3 of 3, 'MaskedAutoregressive: Affine, MADE 8' is" in said


def test_the_level_is_named():
    flow = FlowModel(tff.Glow((4, 4, 1), levels=2, steps=1, hidden=4))
    images = RNG.integers(0, 256, (6, 4, 4, 1)).astype(np.float32)
    said = explained(flow, last_weight(flow.bijector), images)
    assert "layer 2 of 2, level 2 of 2, layer" in said
    assert "\n" not in said


def test_the_flow_of_a_mixture_is_named():
    mixture = FlowMixture([flow_of(), flow_of()])
    said = explained(mixture, last_weight(mixture.flows[1].bijector), X)
    assert "The value of flow 2 of 2, layer 3 of 3, 'Coupling" in said


def test_the_flow_of_a_cloud_is_named():
    flow = PointCloudFlow(flow_of(context_dim=2), FlowModel(tff.RealNVP(2, **SMALL)))
    flow.compile()
    cloud = np.concatenate([RNG.normal(size=(3, 5, 3)), np.ones((3, 5, 1))], axis=-1).astype(np.float32)
    weight = last_weight(flow.prior.bijector)
    before = weight.numpy()
    assert "The value of the flow of 'prior', layer 3 of 3, 'Coupling" in explained(flow, weight, cloud)
    weight.assign(before)
    said = explained(flow, flow.encoder.trainable_weights[0], cloud)
    assert "is refused: Expected finite numbers in context; got NaN" in said


def test_stock_parts_are_named():
    flow = FlowModel(tfb.Chain([tfp.bijectors.Exp(), *flow_of().bijector.bijectors]))
    x = np.where(np.arange(60)[:, None] == 7, -1.0, np.abs(X) + 0.1).astype(np.float32)
    said = explained(flow, tf.Variable(0.0), x)
    assert said.startswith("The value of layer 1 of 4, 'tfb.Exp' is not finite for 1 rows of a batch, such as x = [-1.")


def test_a_gradient_too_large_to_square_is_named():
    flow = flow_of()
    flow.compile(loss=TooSteep())
    said = explained(flow, tf.Variable(0.0), X)
    assert said.startswith("The norm of the gradient overflows; it is largest, ")
    assert "in layer 3 of 3, 'Coupling: Affine of 1 given 2, MLP 8'" in said


class TooSteep(tff.losses.Loss):
    def __call__(self, flow, x, context):
        return 1e25 * flow._log_prob(x, context)
