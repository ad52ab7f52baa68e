"""`FlowDensity` is an estimator like others of scikit-learn, and takes tables of pandas."""

import pickle
from functools import partial

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from tfflows import SINF, CouplingRQNSF, Domain, RealNVP, training
from tfflows.sklearn import FlowDensity

SMALL = {"n_layers": 1, "hidden": (4,), "epochs": 1, "jit_compile": False}


def table(n=200):
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "hour": rng.uniform(0.0, 24.0, n),
            "count": rng.poisson(3.0, n),
            "kind": pd.Categorical(rng.choice(["a", "b", "c"], n)),
            "ok": rng.random(n) < 0.3,
            "size": rng.exponential(size=n).astype(np.float32),
        }
    )


@pytest.fixture(scope="module")
def of_table():
    domain = {"hour": Domain.circular(24.0), "size": Domain.positive()}
    return FlowDensity("crqnsf", domain=domain, random_state=0, **SMALL).fit(table())


@pytest.mark.filterwarnings("ignore:.*rows of 30 dimensions")
def test_scikit_learn_finds_no_fault():
    results = check_estimator(FlowDensity("realnvp", **SMALL), on_skip=None)
    assert {result["status"] for result in results} <= {"passed", "skipped"}
    assert sum(result["status"] == "passed" for result in results) > 40
    assert {result["check_name"] for result in results if result["status"] == "skipped"} <= {"check_array_api_input"}


def test_in_a_pipeline_and_a_grid_search():
    x = np.random.default_rng(0).normal(5.0, 3.0, (120, 2))
    pipeline = make_pipeline(StandardScaler(), FlowDensity(RealNVP, random_state=0, **SMALL))
    search = GridSearchCV(pipeline, {"flowdensity__learning_rate": [1e-3, 3e-2]}, cv=2, error_score="raise").fit(x)
    assert set(search.best_params_) == {"flowdensity__learning_rate"}
    scores = cross_val_score(search.best_estimator_, x, cv=2)
    assert scores.shape == (2,)
    assert np.all(np.isfinite(scores))


def test_random_state_repeats_fit_and_draws_and_leaves_numpys_generator_alone():
    x = np.random.default_rng(0).normal(size=(100, 2))
    np.random.seed(3)
    expected = np.random.random()
    np.random.seed(3)
    first = FlowDensity("realnvp", random_state=1, **SMALL).fit(x)
    assert np.random.random() == expected
    second = clone(first).fit(x)
    np.testing.assert_array_equal(first.score_samples(x), second.score_samples(x))
    np.testing.assert_array_equal(first.sample(5), second.sample(5))
    assert not np.array_equal(first.sample(5), first.sample(5, random_state=2))
    assert first.score(x) == pytest.approx(np.mean(first.score_samples(x)))
    again = pickle.loads(pickle.dumps(first))
    np.testing.assert_array_equal(again.score_samples(x), first.score_samples(x))


def test_it_decides_by_itself_when_to_stop(monkeypatch):
    monkeypatch.setattr(training, "MAX_EPOCHS", 30)
    x = np.random.default_rng(0).normal(size=(300, 1)) ** 3
    untrained = FlowDensity("rqnsf", random_state=0, **SMALL).fit(x)
    fitted = FlowDensity("rqnsf", random_state=0, **SMALL | {"epochs": None, "learning_rate": 3e-2}).fit(x)
    assert fitted.n_iter_ == 30
    assert len(fitted.history_["val_loss"]) == 30
    assert fitted.score(x) > untrained.score(x) + 0.2


def test_frames_keep_names_and_types(of_table):
    data = table()
    drawn = of_table.sample(50)
    assert list(drawn.columns) == list(data.columns)
    for name in data.columns:
        assert drawn[name].dtype == data[name].dtype, name
    assert drawn["hour"].between(0.0, 24.0).all()
    assert drawn["count"].min() >= 0
    assert drawn["size"].min() > 0.0
    np.testing.assert_array_equal(of_table.score_samples(drawn), of_table.score_samples(drawn.astype({"count": float})))
    assert np.all(np.isfinite(of_table.score_samples(drawn)))


def test_weights_count():
    x = np.concatenate([np.zeros((100, 1)), np.full((100, 1), 10.0)]) + np.random.default_rng(0).normal(size=(200, 1))
    weight = np.repeat([1.0, 0.0], 100)
    found = FlowDensity("realnvp", random_state=0, **SMALL).fit(x, sample_weight=weight)
    assert found.score(x[:100]) > found.score(x[100:]) + 10.0


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"preset": "realnpv"}, "Did you mean realnvp"),
        ({"preset": "sinf", "hidden": (8,)}, "Expected no hidden for SINF"),
        ({"preset": "glow"}, "which is of images"),
        ({"domain": {"none": Domain.real()}}, "Expected domains of columns"),
        ({"domain": {"hour": "circular"}}, "Expected a Domain of column 'hour'"),
        ({"domain": {"size": Domain.simplex(3)}}, "Expected 3 columns from 'size' on"),
        ({"validation_fraction": 1.5, "epochs": None}, "validation_split in"),
        ({"domain": [Domain.real()] * 5}, "by their names; got a list"),
        ({"preset": RealNVP(5)}, "Expected the name of a preset, or a function"),
        ({"preset": None}, "Expected the name of a preset, or a function of the number of columns; got None"),
        ({"hidden": 8}, r"such as \(64, 64\); got 8"),
        ({"preset": partial(SINF, n_layers=1), "hidden": (8,)}, "Expected no hidden for functools.partial"),
    ],
)
def test_wrong_settings(settings, text):
    with pytest.raises(ValueError, match=text):
        FlowDensity(**{"preset": "crqnsf"} | settings).fit(table())


def test_wrong_tables(of_table):
    data = table()
    with pytest.raises(ValueError, match="Expected a list of domains for an array"):
        FlowDensity(domain={"size": Domain.positive()}).fit(data[["size"]].to_numpy())
    with pytest.raises(ValueError, match="Expected one of 'a', 'b', 'c' in column 'kind'; got 'd'"):
        of_table.score_samples(data.assign(kind="d"))
    with pytest.raises(ValueError, match="feature names"):
        of_table.score_samples(data[["count", "hour", "kind", "ok", "size"]])
    with pytest.raises(ValueError, match="Text becomes categories by"):
        FlowDensity(CouplingRQNSF).fit(data.astype({"kind": str}))
    with pytest.raises(ValueError, match="NaN or inf in 1 rows: 7"):
        of_table.score_samples(data.assign(size=np.where(np.arange(len(data)) == 7, np.nan, data["size"])))
