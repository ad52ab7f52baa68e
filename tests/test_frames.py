"""Data frames: columns by name, categories by number, and back."""

import keras
import numpy as np
import pandas as pd
import pytest

from tfflows import CouplingRQNSF, Domain, FlowModel, RealNVP, frames
from tfflows.schema import Column, Schema

pytestmark = pytest.mark.usefixtures("without_xla")


def frame(n=60):
    rng = np.random.default_rng(0)
    return pd.DataFrame({"u": rng.normal(size=n), "v": rng.normal(size=n), "w": rng.normal(size=n)})


@pytest.fixture(scope="module")
def fitted():
    data = frame()
    flow = FlowModel(RealNVP(2, n_layers=1, hidden=(4,), context_dim=1))
    flow.compile(jit_compile=False)
    flow.fit(data[["u", "v"]], data[["w"]], epochs=1, verbose=0)
    return flow


def test_fit_remembers_the_names(fitted, tmp_path):
    data = frame()
    assert fitted.schema == Schema((Column("u"), Column("v")), (Column("w"),))
    expected = fitted.log_prob(data[["u", "v"]].to_numpy(), data[["w"]].to_numpy())
    np.testing.assert_array_equal(fitted.log_prob(data[["v", "w", "u"]], data), expected)
    np.testing.assert_array_equal(fitted.encode(data, data), fitted.encode(data[["u", "v"]].to_numpy(), data[["w"]]))
    fitted.save(tmp_path / "flow.keras")
    again = keras.saving.load_model(tmp_path / "flow.keras")
    assert again.schema == fitted.schema
    np.testing.assert_allclose(again.log_prob(data, data), expected, rtol=1e-6)
    assert again.evaluate(data, data, verbose=0) == pytest.approx(-np.mean(expected), rel=1e-5)


def test_missing_columns_are_named(fitted):
    with pytest.raises(ValueError, match="Expected columns 'u', 'v'; got 'u', 'w', without 'v'"):
        fitted.log_prob(frame()[["u", "w"]], frame())
    with pytest.raises(ValueError, match="Expected columns 'w'; got 'u', without 'w'"):
        fitted.log_prob(frame(), frame()[["u"]])
    with pytest.raises(ValueError, match="Expected numbers in column 'u'; got"):
        fitted.log_prob(frame().assign(u="text"), frame())


def test_frames_without_names_are_arrays():
    data = pd.DataFrame(frame()[["u", "v"]].to_numpy())
    flow = FlowModel(RealNVP(2, n_layers=1, hidden=(4,)))
    flow.fit(data, epochs=1, verbose=0)
    assert flow.schema is None
    np.testing.assert_array_equal(flow.log_prob(data), flow.log_prob(data.to_numpy()))


def test_a_frame_of_another_width_leaves_no_names():
    flow = FlowModel(RealNVP(2, n_layers=1, hidden=(4,)))
    with pytest.raises(ValueError, match=r"Expected x of shape \[n, 2\]"):
        flow.fit(frame(), epochs=1)
    assert flow.schema is None
    with pytest.raises(ValueError, match="Expected a Schema or None"):
        flow.schema = ["u", "v"]


def test_describe_takes_columns_by_their_type():
    data = pd.DataFrame(
        {
            "real": [0.5, 1.5, 2.5],
            "count": [0, 2, 1],
            "below": pd.array([-1, 2, 1], dtype="Int64"),
            "large": [2**40, 0, 1],
            "kind": pd.Categorical(["b", "a", "b"], categories=["b", "a"]),
            "grade": pd.Categorical([3, 1, 3]),
            "flag": [True, False, True],
            "angle": [0.1, 0.2, 0.3],
        }
    )
    schema, domain = frames.describe(data, {"angle": Domain.circular(360.0, -180.0)})
    expected = [
        ("float64", None, "real", Domain.real()),
        ("int64", None, "integer:0", Domain.integer(0)),
        ("int64", None, "integer", Domain.integer(None)),
        ("int64", None, "real", Domain.real()),
        ("str", ("b", "a"), "categorical", Domain.categorical(2)),
        ("int64", (1, 3), "categorical", Domain.categorical(2)),
        ("bool", (False, True), "categorical", Domain.categorical(2)),
        ("float64", None, "circular:-180:180", Domain.circular(360.0, -180.0)),
    ]
    found = [(c.dtype, c.categories, c.domain, d) for c, d in zip(schema.columns, domain, strict=True)]
    assert found == expected
    numbers = frames.numbers(schema.columns, data[data.columns[::-1]])
    np.testing.assert_array_equal(numbers[:, 4:7], [[0, 1, 1], [1, 0, 0], [0, 1, 1]])
    back = frames.to_frame(schema, numbers)
    pd.testing.assert_frame_equal(back, data.astype({"below": "int64"}))


def test_columns_that_share_a_domain():
    data = frame().rename(columns={"u": "a", "v": "b", "w": "c"}).abs().assign(real=1.0)
    data[["a", "b", "c"]] = data[["a", "b", "c"]].div(data[["a", "b", "c"]].sum(axis=1), axis=0)
    schema, domain = frames.describe(data, {"a": Domain.simplex(3)})
    assert domain == [Domain.simplex(3), Domain.real()]
    assert [column.domain for column in schema.columns] == ["simplex"] * 3 + ["real"]
    flow = FlowModel(CouplingRQNSF(3, n_layers=1, hidden=(4,)), domain=domain)
    flow.fit(data.assign(real=np.arange(60.0)), epochs=1, verbose=0)
    drawn = frames.to_frame(flow.schema, flow.sample(10))
    np.testing.assert_allclose(drawn[["a", "b", "c"]].sum(axis=1), 1.0, rtol=1e-5)
    with pytest.raises(ValueError, match="Expected one domain for each column; got 'b' in two"):
        frames.describe(data, {"a": Domain.simplex(3), "b": Domain.real()})


def test_what_is_refused():
    with pytest.raises(ValueError, match="Expected a data frame whose columns have names"):
        frames.describe(np.zeros((3, 2)))
    with pytest.raises(ValueError, match="dates want to be numbers"):
        frames.describe(pd.DataFrame({"day": pd.to_datetime(["2020-01-01", "2020-01-02"])}))
    with pytest.raises(ValueError, match="Expected columns with different names; got 'a', 'a'"):
        frames.describe(pd.DataFrame(np.zeros((2, 2)), columns=["a", "a"]))
    with pytest.raises(ValueError, match=r"Expected x of shape \[n, 1\]; got \[3, 2\]"):
        frames.to_frame(Schema((Column("a"),)), np.zeros((3, 2)))
