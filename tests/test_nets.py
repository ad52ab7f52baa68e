"""Nets: which output hears which input, start at zero, context, configs."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfflows.nets import MADE, MLP, build_conditioner, conditioner


def randomise(net):
    rng = np.random.default_rng(0)
    for weight in net.weights:
        weight.assign(rng.normal(size=weight.shape))


def dependencies(function, x):
    """Which outputs `[..., n]` change with which inputs, as a matrix `[outputs, inputs]`."""
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
        y = tf.reshape(y, [x.shape[0], -1])
    return np.any(tape.batch_jacobian(y, x) != 0.0, axis=0)


@pytest.mark.parametrize(
    ("n_dim", "hidden", "residual", "context_dim"),
    [
        (1, (4,), False, None),
        (1, (4, 4), False, 2),
        *itertools.product([2, 5], [(8,), (8, 9)], [False], [None, 2]),
        *itertools.product([2, 5], [(8, 8, 8)], [True], [None, 2]),
    ],
)
def test_made_hears_all_before_and_the_context(n_dim, hidden, residual, context_dim):
    order = np.random.default_rng(3).permutation(n_dim)
    net = MADE(n_dim, 2, hidden, "tanh", order=order, residual=residual)
    build_conditioner(net, n_dim, 2 * n_dim, context_dim)
    x = np.random.default_rng(1).normal(size=(20, n_dim)).astype(np.float32)
    context = None if context_dim is None else tf.ones([20, context_dim])
    assert np.all(conditioner(net, tf.constant(x), context) == 0.0)
    randomise(net)
    heard = dependencies(lambda v: net(v) if context is None else net(v, context), x)
    expected = np.tile(order[:, None] > order[None, :], (2, 1))
    np.testing.assert_array_equal(heard, expected)
    if context_dim is not None:
        assert np.all(dependencies(lambda c: net(x, c), context))


def test_narrow_made_warns_and_stays_autoregressive():
    with pytest.warns(UserWarning, match="narrower than D - 1 = 9"):
        net = MADE(10, 1, (4,), "tanh")
    net(np.zeros([2, 10], np.float32))
    randomise(net)
    heard = dependencies(net, np.random.default_rng(1).normal(size=(20, 10)).astype(np.float32))
    assert not np.any(np.triu(heard))
    assert np.all(heard[-1, :-1])  # the last scalar hears all others


@pytest.mark.parametrize("residual", [False, True])
def test_mlp_hears_everything(residual):
    net = MLP(4, (6, 6), "tanh", residual=residual)
    build_conditioner(net, 3, 4, 2)
    randomise(net)
    x, context = np.ones([5, 3], np.float32), np.ones([5, 2], np.float32)
    assert np.all(dependencies(lambda v: net(v, context), x))
    assert np.all(dependencies(lambda c: net(x, c), context))


def test_circular_mlp_has_no_seam():
    net = MLP(4, (6,), circular=True)
    x = np.array([[-np.pi, 0.3], [np.pi, 0.3]], np.float32)
    net(x)
    randomise(net)
    y = net(x)
    np.testing.assert_allclose(y[0], y[1], atol=1e-5)


def test_conditioner_takes_any_batch_axes():
    net = MLP(4, (6,))
    build_conditioner(net, 3, 4, 2)
    randomise(net)
    x = tf.ones([3])
    context = tf.random.normal([5, 7, 2])
    y = conditioner(net, x, context)
    assert y.shape == (5, 7, 4)
    np.testing.assert_allclose(y[2, 3], net(x[None], context[2, 3][None])[0], atol=1e-5)


def test_files():
    net = MADE(4, 3, (8, 8), "silu", order=[3, 1, 0, 2], residual=True)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(net))
    assert again.get_config() == net.get_config()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MLP(3, ()), "at least one hidden layer"),
        (lambda: MLP(3, (4, 5), residual=True), "one width"),
        (lambda: MADE(3, 1, order=[0, 1, 1]), "Expected an order that permutes"),
        (lambda: MADE(3, 1)(np.zeros([2, 4], np.float32)), "Expected 3 scalars"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
