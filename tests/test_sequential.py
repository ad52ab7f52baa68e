"""Autoregressive generation in one sweep: against D evaluations of the net, which need no sorting of units."""

import itertools
import warnings

import numpy as np
import pytest
import tensorflow as tf
from cases import policy

from tfflows.bijectors import MaskedAutoregressive
from tfflows.nets import MADE, unrolled
from tfflows.transformers import Affine, RationalQuadraticSpline

N = 7


def build(n_dim, transformer, *, hidden=(24, 24), residual=False, context_dim=None, order="random", activation="relu"):
    rng = np.random.default_rng(0)
    order = rng.permutation(n_dim) if order == "random" else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # narrow on purpose
        net = MADE(n_dim, transformer.n_parameters, hidden, activation, order=order, residual=residual)
        bijector = MaskedAutoregressive(transformer, net, context_dim)
    for weight in net.weights:
        weight.assign(rng.normal(size=weight.shape, scale=0.7 / np.sqrt(weight.shape[0])))
    return bijector, net


def d_passes(bijector, net, z, context):
    """x and log-det with one evaluation of the whole net for each scalar."""
    x = log_det = tf.zeros_like(z)
    for k in range(net.n_dim):
        params = net(x) if context is None else net(x, context)
        new_x, new_log_det = bijector._transformer.forward_and_log_det(z, params)
        now = net.order == k
        x, log_det = tf.where(now, new_x, x), tf.where(now, new_log_det, log_det)
    return x, tf.reduce_sum(log_det, axis=-1)


CASES = {
    "two": {"n_dim": 2, "transformer": Affine()},
    "affine": {"n_dim": 7, "transformer": Affine(), "order": None},
    "random_order": {"n_dim": 7, "transformer": Affine()},
    "spline": {"n_dim": 6, "transformer": RationalQuadraticSpline(4)},
    "context": {"n_dim": 6, "transformer": Affine(), "context_dim": 3},
    "residual": {"n_dim": 6, "transformer": Affine(), "residual": True, "hidden": (20, 20, 20)},
    "residual_context": {"n_dim": 6, "transformer": RationalQuadraticSpline(3), "residual": True, "context_dim": 2},
    "one_layer": {"n_dim": 6, "transformer": Affine(), "hidden": (9,)},
    "uneven": {"n_dim": 6, "transformer": Affine(), "hidden": (13, 31, 17), "activation": "tanh"},
    "narrow": {"n_dim": 12, "transformer": Affine(), "hidden": (5, 4)},
    "narrow_context": {
        "n_dim": 12,
        "transformer": Affine(),
        "hidden": (5, 8),
        "context_dim": 2,
        "activation": "sigmoid",
    },
}


def evaluate(function, z, context, weights):
    """Results, and gradients of a sum that weighs every number differently."""
    sources = [z, *weights] if context is None else [z, context, *weights]
    with tf.GradientTape() as tape:
        tape.watch([v for v in (z, context) if v is not None])
        x, log_det = function(z, context)
        total = tf.reduce_sum(tf.sin(3.0 * x)) + tf.reduce_sum(log_det * tf.range(1.0, N + 1.0, dtype=z.dtype))
    return x, log_det, *tape.gradient(total, [tf.convert_to_tensor(s) if s is z else s for s in sources])


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", CASES)
def test_one_sweep_equals_d_passes(name):
    bijector, net = build(**CASES[name])
    rng = np.random.default_rng(1)
    z = tf.constant(rng.normal(size=[N, net.n_dim]))
    context = None if bijector.context_dim is None else tf.constant(rng.normal(size=[N, bijector.context_dim]))
    weights = [w.value for w in net.trainable_weights]

    def sweep(z, context):
        return evaluate(bijector.forward_and_log_det, z, context, weights)

    oracle = evaluate(lambda z, context: d_passes(bijector, net, z, context), z, context, weights)
    for jit_compile in (False, True):
        found = tf.function(sweep, jit_compile=jit_compile, autograph=False)(z, context)
        for a, b in zip(found, oracle, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("xla", [False, True], ids=["graph", "xla"])
def test_second_derivatives(xla):
    """Hamiltonian samplers on latents need gradients of densities, whose training needs two."""
    bijector, net = build(**CASES["random_order"])
    z = tf.constant(np.random.default_rng(1).normal(size=[N, net.n_dim]))

    def hessian_times_cosine(function, z):
        with tf.GradientTape() as outer:
            outer.watch(z)
            with tf.GradientTape() as inner:
                inner.watch(z)
                x, log_det = function(z)
                total = tf.reduce_sum(tf.sin(x)) + tf.reduce_sum(log_det**2)
            gradient = inner.gradient(total, z)
        return outer.gradient(gradient, z, output_gradients=tf.cos(z))

    sweep = tf.function(
        lambda z: hessian_times_cosine(bijector.forward_and_log_det, z), jit_compile=xla, autograph=False
    )
    oracle = hessian_times_cosine(lambda z: d_passes(bijector, net, z, None), z)
    np.testing.assert_allclose(sweep(z), oracle, rtol=1e-8, atol=1e-9)


def test_mixed_precision_keeps_scalars_in_full():
    with policy("mixed_bfloat16"):
        bijector, net = build(**CASES["context"])
    rng = np.random.default_rng(1)
    z, context = (rng.normal(size=[N, n]).astype(np.float32) for n in (net.n_dim, bijector.context_dim))
    x, _ = bijector.forward_and_log_det(z, context)
    assert x.dtype == tf.float32
    back, _ = bijector.inverse_and_log_det(x, context)
    np.testing.assert_allclose(back, z, atol=0.1)  # the nets of the way back run in bfloat16


def test_graph_does_not_grow_with_dimensions():
    sizes = []
    for n_dim in (8, 32):
        bijector, _ = build(n_dim, Affine(), hidden=(32,))
        function = tf.function(bijector.forward_and_log_det, autograph=False)
        graph = function.get_concrete_function(tf.TensorSpec([N, n_dim])).graph
        sizes.append(len(graph.get_operations()))
    assert sizes[0] == sizes[1]


# Without loops each scalar has a spline of its own, which the converter takes seconds for.
@pytest.mark.parametrize(("name", "n_dim"), [("random_order", 7), ("spline", 3), ("residual_context", 3)])
def test_converts_to_builtin_tflite(name, n_dim):
    bijector, net = build(**(CASES[name] | {"n_dim": n_dim}))
    rng = np.random.default_rng(1)
    z = rng.normal(size=[N, net.n_dim]).astype(np.float32)
    widths = [net.n_dim] if bijector.context_dim is None else [net.n_dim, bijector.context_dim]
    arrays = [z, *(rng.normal(size=[N, w]).astype(np.float32) for w in widths[1:])]
    with unrolled():
        module = tf.Module()
        module.net = net
        function = tf.function(bijector.forward_and_log_det, autograph=False).get_concrete_function(
            *(tf.TensorSpec([N, w], tf.float32) for w in widths)
        )
        model = tf.lite.TFLiteConverter.from_concrete_functions([function], module).convert()
    interpreter = tf.lite.Interpreter(model_content=model)
    interpreter.allocate_tensors()
    for detail, array in itertools.product(interpreter.get_input_details(), arrays):
        if list(detail["shape"]) == list(array.shape):
            interpreter.set_tensor(detail["index"], array)
    interpreter.invoke()
    results = [interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()]
    x, log_det = sorted(results, key=lambda r: -r.ndim)
    expected_x, expected_log_det = bijector.forward_and_log_det(*arrays)
    np.testing.assert_allclose(x, expected_x, atol=1e-4)
    np.testing.assert_allclose(log_det, expected_log_det, atol=1e-4)
