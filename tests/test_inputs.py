"""Bad input gets a clear error before anything is trained or lost; odd but usable input is taken."""

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from cases import HIDDEN

import tfflows as tff
from tfflows import FlowModel

X = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
C = np.random.default_rng(1).normal(size=(50, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def flow():
    return FlowModel(tff.RealNVP(2, n_layers=1, hidden=HIDDEN))


@pytest.fixture(scope="module")
def conditional():
    return FlowModel(tff.RealNVP(2, n_layers=1, hidden=HIDDEN, context_dim=3))


def bad_rows(x, *rows, value=np.nan):
    x = np.array(x)
    x[list(rows), 0] = value
    return x


DATA = [
    (X[0], r"Expected x of shape \[n, 2\]; got \[2\]. One row is x\[None\]"),
    (X[:, :1], r"Expected x of shape \[n, 2\]; got \[50, 1\]"),
    (X[None], r"Expected x of shape \[n, 2\]; got \[1, 50, 2\]"),
    (bad_rows(X, 3, 7), "got NaN or inf in 2 rows: 3, 7"),
    (bad_rows(X, 4, value=np.inf), "got NaN or inf in 1 rows: 4"),
    (bad_rows(X, *range(9)), "got NaN or inf in 9 rows: 0, 1, 2, 3, 4, ..."),
    (tf.constant(bad_rows(X, 3)), "got NaN or inf in 1 rows: 3"),
    (X.astype(str), "Expected numbers in x; got dtype"),
    (X + 1j, "Expected numbers in x; got dtype complex"),
    (pd.DataFrame({"a": X[:, 0], "b": ["text"] * 50}), "Expected numbers in (x|column 'b')"),
]


@pytest.mark.parametrize(("x", "message"), DATA)
@pytest.mark.parametrize("verb", ["fit", "evaluate", "log_prob", "encode", "adapt"])
def test_bad_data(flow, verb, x, message):
    before = [w.numpy() for w in flow.weights]
    with pytest.raises(ValueError, match=message):
        getattr(flow, verb)(x)
    for weight, b in zip(flow.weights, before, strict=True):
        np.testing.assert_array_equal(weight, b)


@pytest.mark.parametrize(
    ("context", "message"),
    [
        (None, r"Expected a context of shape \[n, 3\]; got none"),
        (C[:10], "Expected as many rows of context as of x, 50; got 10"),
        (C[:, :2], r"a context of shape \[n, 3\] \(rows of context pair with rows of x; .*\); got \[50, 2\]"),
        (bad_rows(C, 5), "Expected finite numbers in context; got NaN or inf in 1 rows: 5"),
    ],
)
@pytest.mark.parametrize("verb", ["fit", "evaluate", "log_prob", "encode", "decode", "adapt"])
def test_bad_context(conditional, verb, context, message):
    with pytest.raises(ValueError, match=message):
        getattr(conditional, verb)(X, context)


def test_superfluous_context(flow):
    for call in (lambda: flow.fit(X, C), lambda: flow.log_prob(X, C), lambda: flow.sample(3, C)):
        with pytest.raises(ValueError, match="Expected no context, because the flow was built without context_dim"):
            call()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"x": X[:0]}, "Expected at least one row of data; got none"),
        ({"x": X[:1]}, "Expected at least 2 rows to fit a density; got 1"),
        ({"x": X, "sample_weight": -np.ones(50)}, r"Expected finite sample weights >= 0; got -1.0 in row 0"),
        ({"x": X, "sample_weight": np.full(50, np.nan)}, "Expected finite sample weights >= 0; got nan"),
        ({"x": X, "sample_weight": np.zeros(50)}, "got only zeros"),
        ({"x": X, "sample_weight": np.ones(49)}, r"Expected sample_weight of shape \[50\]; got \[49\]"),
        ({"x": X, "batch_size": 0}, "Expected batch_size >= 1; got 0"),
        ({"x": X, "validation_split": 1.5}, r"Expected validation_split in \(0, 1\)"),
        ({"x": X, "epochs": 1, "validation_data": X[:, :1]}, r"Expected x of shape \[n, 2\]; got \[50, 1\]"),
        ({"x": tf.data.Dataset.from_tensor_slices(X).batch(9)}, "Expected validation_data with a tf.data.Dataset"),
        ({"x": tf.data.Dataset.from_tensor_slices(X), "epochs": 1}, "Expected a batched dataset"),
        ({"x": tf.data.Dataset.from_tensor_slices((X, C)).batch(9), "epochs": 1}, "a dataset with no context; got one"),
        ({"x": tf.data.Dataset.from_tensor_slices({"a": X}).batch(9), "epochs": 1}, "Expected a dataset of batches x"),
        ({"x": tf.data.Dataset.from_tensor_slices(X[:, :1]).batch(9), "epochs": 1}, r"Expected x of shape \[n, 2\]"),
        ({"x": tf.data.Dataset.from_tensor_slices(bad_rows(X, 3)).batch(9), "epochs": 1}, "the dataset's x; got NaN"),
        ({"x": tf.data.Dataset.from_tensor_slices(X).batch(9), "context": C, "epochs": 1}, "inside the dataset"),
        ({"x": tf.data.Dataset.from_tensor_slices(X).batch(9).take(0), "epochs": 1}, "at least one row of data in the"),
    ],
)
def test_bad_fit_arguments(kwargs, message):
    flow = FlowModel(tff.RealNVP(2, n_layers=1, hidden=HIDDEN))
    with pytest.raises(ValueError, match=message):
        flow.fit(**kwargs, verbose=0)
    assert flow.bijector.needs_adapt  # nothing was set


def test_unknown_keyword(flow):
    with pytest.raises(TypeError, match="epoch"):
        flow.fit(X, epoch=3)


@pytest.mark.parametrize("n", [0, -1, 2.5, True])
def test_bad_number_of_draws(flow, n):
    with pytest.raises(ValueError, match="Expected a number of draws n >= 1"):
        flow.sample(n)


@pytest.mark.parametrize("kwargs", [{"temperature": -1.0}, {"temperature": np.nan}, {"seed": [1, 2, 3]}])
def test_bad_sampling_arguments(flow, kwargs):
    with pytest.raises(ValueError, match="Expected a"):
        flow.sample(3, **kwargs)


def test_warnings_name_the_column(flow):
    constant = np.concatenate([X[:, :1], np.full((50, 1), 3.0, np.float32)], axis=1)
    with pytest.warns(UserWarning, match=r"Columns \[1\] are constant"):
        flow.adapt(constant)
    unresolved = np.concatenate([X[:, :1], 1e6 + 1e-3 * X[:, 1:].astype(np.float64)], axis=1)
    with pytest.warns(UserWarning, match=r"Columns \[1\] spread so little"):
        flow.adapt(unresolved)


@pytest.mark.usefixtures("without_xla")
def test_few_rows_warn():
    flow = FlowModel(tff.RealNVP(2, n_layers=1, hidden=HIDDEN))
    with pytest.warns(UserWarning, match="2 rows of 2 dimensions"):
        flow.fit(X[:2], epochs=1, verbose=0)


def test_integers_become_floats(flow):
    counts = np.arange(20).reshape(10, 2)
    flow.adapt(counts)
    np.testing.assert_allclose(flow.log_prob(counts), flow.log_prob(counts.astype(np.float32)))
    np.testing.assert_allclose(flow.log_prob(tf.constant(counts)), flow.log_prob(counts))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_rows(dtype):
    flow, none = FlowModel(tff.RealNVP(2, n_layers=1, hidden=HIDDEN)), np.zeros((0, 2), dtype)
    assert flow.log_prob(none).shape == (0,)
    with pytest.raises(ValueError, match="Expected at least one row"):
        flow.fit(none)
