"""Exported flows in Apache Beam: every row once, bad ones apart, and the same rows however often a run is stopped."""

import dataclasses
import functools
import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from cases import randomise
from pyarrow import parquet

from tfflows import MAF, Domain, FlowModel, RealNVP, export
from tfflows.beam import rows, served, shards
from tfflows.domains import table as domain_table
from tfflows.schema import Column, Schema

ROOT = Path(__file__).parents[1]
# apache-beam and the other extras want different versions of some packages, so CI may not have it.
HAS_BEAM = importlib.util.find_spec("apache_beam") is not None
needs_beam = pytest.mark.skipif(not HAS_BEAM, reason="needs apache-beam")

if HAS_BEAM:
    import apache_beam as beam
    from apache_beam.io.filesystems import FileSystems
    from apache_beam.ml.inference.base import RunInference
    from apache_beam.testing.util import assert_that

    from tfflows import beam as tfb
    from tfflows.beam import __main__ as command
    from tfflows.beam import jobs
    from tfflows.beam.jobs import RUNNER
    from tfflows.beam.storage import Folder

CATEGORIES = ("blue", "red")
DOMAIN = [Domain.real(), Domain.positive(), Domain.integer(0), Domain.categorical(2)]
SMALL = {"min_batch_size": 4, "max_batch_size": 16, "block_rows": 32}


def flow_of(bijector, schema, x, context=None, **settings):
    flow = FlowModel(bijector, **settings)
    flow.compile(jit_compile=False)
    flow.adapt(x, context)
    randomise(flow.bijector, scale=0.1)
    flow.schema = schema
    return flow


def frame(n, seed=0):
    """Rows of the model's columns and an id, as a table, and their numbers."""
    rng = np.random.default_rng(seed)
    x = np.stack([rng.normal(size=n), rng.gamma(2.0, size=n), rng.poisson(3.0, n), rng.integers(0, 2, n)], axis=1)
    text = pa.array(CATEGORIES).take(pa.array(x[:, 3].astype(int)))
    table = {"id": np.arange(n), "a": x[:, 0], "p": x[:, 1], "k": x[:, 2].astype(int), "c": text}
    return pa.table(table), x


@pytest.fixture(scope="module", autouse=True)
def _loaded_once():
    """Each run loads its model, which would take most of the tests' time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tf.saved_model, "load", functools.cache(tf.saved_model.load))
        yield


@pytest.fixture(scope="module")
def flow():
    columns = (Column("a"), Column("p"), Column("k", "int64"), Column("c", "str", CATEGORIES))
    return flow_of(RealNVP(4, n_layers=2, hidden=(8,)), Schema(columns), frame(500)[1], domain=DOMAIN)


@pytest.fixture(scope="module")
def model(flow, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "flow"
    flow.export(path, verbose=False)
    return str(path)


@pytest.fixture(scope="module")
def conditional(tmp_path_factory):
    """A flow of two columns given a number and one of three categories, and its export."""
    rng = np.random.default_rng(1)
    context = np.concatenate([rng.normal(size=(200, 1)), np.eye(3)[rng.integers(0, 3, 200)]], axis=1)
    schema = Schema((Column("u"), Column("v")), (Column("t"), Column("s", "str", ("x", "y", "z"))))
    flow = flow_of(MAF(2, n_layers=1, hidden=(8,), context_dim=4), schema, rng.normal(size=(200, 2)), context)
    path = tmp_path_factory.mktemp("conditional") / "flow"
    flow.export(path, verbose=False)
    return flow, str(path)


BAD = {"a": (3, 40), "p": (41,), "c": (90,)}  # rows of `one.parquet`


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Files of 100, 70 and no rows, in groups of 50; some rows of the first are bad."""
    folder = tmp_path_factory.mktemp("data")
    for name, n in (("one", 100), ("two", 70), ("none", 0)):
        found = frame(n, seed=n)[0].to_pydict()
        if name == "one":
            found["a"][3], found["a"][40], found["p"][41], found["c"][90] = None, np.inf, -1.0, "green"
        parquet.write_table(pa.table(found, frame(0)[0].schema), folder / f"{name}.parquet", row_group_size=50)
    return folder


def contents(out):
    """All rows of a run, good ones and bad ones."""
    return {str(path.relative_to(out)): parquet.read_table(path) for path in sorted(Path(out).rglob("*.parquet"))}


# Without Beam: models, rows, plans.


def test_a_model_says_what_its_columns_are(flow, model, conditional):
    found = served.describe(model)
    assert found.schema == flow.schema
    assert list(found.domain) == flow.domain
    assert found.inputs["log_prob"]["x"] == ((None, 4), np.float32)
    assert found.fingerprint != served.describe(conditional[1]).fingerprint
    assert served.describe(conditional[1]).domain == (Domain.real(),) * 2


def test_what_is_no_model_is_refused(tmp_path, model):
    for content in (None, b"no model"):
        if content is not None:
            (tmp_path / "saved_model.pb").write_bytes(content)
        with pytest.raises(ValueError, match="Expected"):
            served.describe(tmp_path)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "saved_model.pb").write_bytes(Path(model, "saved_model.pb").read_bytes())
    (broken / "assets.extra").mkdir()
    for text in ("{", "[]", '{"schema": null, "domain": [{"kind": "line"}]}', '{"schema": {"columns": []}}'):
        (broken / "assets.extra" / "table.json").write_text(text)
        with pytest.raises(ValueError, match=r"Expected .*table\.json of 4 columns"):
            served.describe(broken)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"a": None}, "a is missing"),
        ({"a": np.nan}, "a is nan"),
        ({"a": -np.inf}, "a is -inf"),
        ({"a": 1e300}, "a is 1.e+300, too large for float32"),
        ({"a": "7.5 m"}, "a is '7.5 m', no number"),
        ({"a": [1.0]}, "a is of type list<item: double>"),
        ({"p": -2.0}, "p is -2., outside of positive"),
        ({"k": 2.5}, "k is 2.5, outside of integer:0"),
        ({"c": "green"}, "c is 'green', none of its categories"),
        ({"c": 3.5}, "c is '3.5', none of its categories"),
        ({"a": "7.5", "p": True}, None),
    ],
)
def test_rows_are_looked_through(model, change, reason):
    row = {"id": 5, "a": 0.5, "p": 1.0, "k": 2, "c": "red"} | change
    checked = rows.rows_of(served.describe(model), "log_prob").check(pa.table({k: [v] for k, v in row.items()}))
    assert checked.reasons.tolist() == [reason]
    assert checked.inputs["x"].shape == (reason is None, 4)


def test_labels_as_context_are_whole(model):
    read = rows.rows_of(served.describe(model), "log_prob")
    read = dataclasses.replace(read, context=(Column("label"),), context_dtype="int32")
    table = frame(4)[0].append_column("label", pa.array([0.0, 1.5, None, 2.0]))
    checked = read.check(table)
    assert checked.reasons.tolist() == [None, "label is 1.5, not whole", "label is missing", None]
    assert checked.inputs["context"].tolist() == [0, 2]


NAN = float("nan")


@pytest.mark.parametrize(
    ("categories", "values", "expected"),
    [
        ((1, 2, 3), ["1", "2", "3"], [0, 1, 2]),
        ((1, 2, 3), ["1", "2", "?"], [0, 1, "k is '?', none of its categories"]),
        ((1, 2, 3), [1.0, 2.0, NAN], [0, 1, "k is missing"]),
        ((1, 2, 3), [3, None, 0], [2, "k is missing", "k is '0', none of its categories"]),
        ((1, 2, 3), [2.0, 2.5], [1, "k is '2.5', none of its categories"]),
        ((1, 2, 3), pa.array(["3", "?", "3"]).dictionary_encode(), [2, "k is '?', none of its categories", 2]),
        (("1", "x"), [1, 2], [0, "k is '2', none of its categories"]),
        ((False, True), [True, None, False], [1, "k is missing", 0]),
        ((False, True), [1, 2, 0], [1, "k is '2', none of its categories", 0]),
        ((False, True), ["true", "2"], [1, "k is '2', none of its categories"]),
        ((1, "x"), ["x", "1", "y"], [1, 0, "k is 'y', none of its categories"]),
        ((1, 2), [[1], None], ["k is of type list<item: int64>", "k is missing"]),
    ],
)
def test_a_category_that_is_none_changes_no_other_row(categories, values, expected):
    column = Column("k", "int64", categories)
    read = rows.Rows((), (column,), None, "float32", "float32", (len(categories),), ("log_prob",))
    checked = read.check(pa.table({"k": values}))
    assert checked.reasons.tolist() == [one if isinstance(one, str) else None for one in expected]
    heard = np.argmax(checked.inputs["context"], axis=1)
    assert heard.tolist() == [one for one in expected if not isinstance(one, str)]
    np.testing.assert_array_equal(checked.inputs["context"].sum(axis=1), 1.0)


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        ("int32", [3e9, 1e300, 1.0, -(2.0**31) - 1, 2.0**31 - 1, -(2.0**31)], [0, 0, 1, 0, 1, 1]),
        ("int64", [2.0**63, 2.0**62, -(2.0**63)], [0, 1, 1]),
        ("uint8", [256.0, 255.0, -1.0], [0, 1, 0]),
        ("float32", [3e9, 1e300, -1e39], [1, 0, 0]),
        ("float64", [3e9, 1e300], [1, 1]),
    ],
)
def test_contexts_that_their_type_cannot_hold_are_bad(dtype, values, expected):
    read = rows.Rows((), (Column("k"),), None, "float32", dtype, (), ("log_prob",))
    checked = read.check(pa.table({"k": values}))
    assert [reason is None for reason in checked.reasons] == [bool(is_good) for is_good in expected]
    assert {reason.split(", ")[1] for reason in checked.reasons if reason is not None} <= {f"too large for {dtype}"}
    good = [value for value, is_good in zip(values, expected, strict=True) if is_good]
    assert checked.inputs["context"].tolist() == np.array(good, dtype).tolist()


def test_columns_that_bad_rows_cannot_have(model):
    read = rows.rows_of(served.describe(model), "log_prob", keep=["id"])
    names = ["id", "a", "p", "k", "c"]
    read.check_free([*names, "log_prob"], "in")  # bad rows have none, good ones not theirs
    for name in ("row", "reason"):
        with pytest.raises(ValueError, match=f"Expected no columns '{name}' in in, which are added"):
            read.check_free([*names, name], "in")


def test_a_column_that_is_not_there(model):
    read = rows.rows_of(served.describe(model), "log_prob")
    assert read.check(pa.table({"a": [1.0, None]})).reasons.tolist() == ["no column 'p'", "a is missing"]


def test_what_the_flow_makes_nan_is_bad(model):
    read = rows.rows_of(served.describe(model), "log_prob", keep=["id"])
    checked = read.check(frame(4)[0].set_column(1, "a", pa.array([0.0, None, 1.0, 2.0])))
    good, dead = read.tables(checked, {"log_prob": np.array([1.0, np.nan, 3.0])}, first=10)
    assert good.to_pylist() == [{"id": 0, "log_prob": 1.0}, {"id": 3, "log_prob": 3.0}]
    assert dead["row"].to_pylist() == [11, 12]
    assert dead["reason"].to_pylist() == ["a is missing", "log_prob is NaN"]


@pytest.mark.parametrize(
    "domain",
    [
        *(Domain.real(), Domain.positive(), Domain.interval(-1, 1), Domain.integer(), Domain.integer(-1, 2)),
        *(Domain.categorical(3), Domain.circular(1.0), Domain.simplex(3), Domain.sphere(3)),
    ],
    ids=lambda d: d.text,
)
def test_bad_rows_are_those_that_flows_refuse(domain, rng):
    x = rng.choice([-1.0, -0.5, 0.0, 0.6, 0.8, 1.0, 2.0, 3.0], (100, domain.n_columns))
    if domain.n_columns > 1:
        x[::2] = np.abs(x[::2]) / np.sum(np.abs(x[::2]) ** (1 + (domain.kind == "sphere")), axis=1, keepdims=True)
    x, block = x.astype(np.float32), domain_table([domain], 5.0)
    for row, is_outside in zip(x, rows.outside(domain, x), strict=True):
        try:
            block.check(row[np.newaxis], "x")
        except ValueError:
            assert is_outside
        else:
            assert not is_outside


def test_few_numbers_of_rows_and_the_flows_numbers(flow, model, monkeypatch):
    signature = served.Served(model, "log_prob", 4, 16)
    x, sizes = frame(60)[1].astype(np.float32), []
    call = signature._function
    monkeypatch.setattr(signature, "_function", lambda x: sizes.append(len(x)) or call(x=x))
    for n in (1, 5, 16, 17, 60):
        found = signature({"x": x[:n]})["log_prob"]
        np.testing.assert_allclose(found, flow.log_prob(x[:n]), rtol=1e-5, atol=1e-5)
    assert set(sizes) == {4, 8, 16}
    monkeypatch.undo()
    assert signature({"x": x[:0]})["log_prob"].shape == (0,)
    with pytest.raises(ValueError, match="Expected a signature"):
        served.Served(model, "interpolate", 1, 1)


@pytest.mark.parametrize("groups", [[], [0], [5], [3, 0, 7, 1], [4, 4]])
def test_blocks_have_every_row_once(groups):
    shard = shards.Shard("a", "1")
    found = [block for group in shards.blocks(shard, groups, 4) for block in group]
    assert [block.number for block in found] == list(range(max(1, len(found))))
    assert [row for block in found for row in range(block.start, block.stop)] == list(range(sum(groups)))
    ends = {0, *np.cumsum(groups).tolist()}
    assert all(b.stop - b.start == 4 or b.stop in ends for b in found)


def test_shards_are_called_like_their_files():
    files = [("/in/day=1/p.parquet", 10, 1.0), ("/in/day=2/p.parquet", 10, 1.0)]
    found = shards.shards_of_files(files, ["/in/*/p.parquet"], "s")
    assert [shard.name for shard in found] == ["day=1/p.parquet", "day=2/p.parquet"]
    assert [s.name for s in shards.shards_of_files(files[:1], ["/in/day=1/p.parquet"], "s")] == ["p.parquet"]
    with pytest.raises(ValueError, match="Expected files of different names"):
        shards.shards_of_files(files, [path for path, *_ in files], "s")
    with pytest.raises(ValueError, match="do not begin with _"):
        shards.shards_of_files([("/in/_a", 1, 1.0)], ["/in/*"], "s")
    facts = [(10, 1.0, "s"), (11, 1.0, "s"), (10, 2.0, "s"), (10, 1.0, "t")]
    prints = [shards.shards_of_files([("/a", n, t)], ["/a"], s)[0].fingerprint for n, t, s in facts]
    assert len(set(prints)) == 4


def test_a_shard_is_done_when_its_manifest_says_so():
    shard = shards.Shard("a", "1")
    manifest = {"fingerprint": "1", "rows": 3}
    assert shards.is_done(shard, manifest)
    for other in (None, {}, manifest | {"fingerprint": "2"}, manifest | {"error": "gone"}):
        assert not shards.is_done(shard, other)
    shards.check_counts(shard, 3, 2, 1)
    with pytest.raises(RuntimeError, match="Expected 3 rows"):
        shards.check_counts(shard, 3, 2, 2)


def test_seeds_follow_from_the_draws_number():
    whole = shards.seeds(7, 0, 1000)
    assert len(set(whole.tolist())) == 1000
    assert whole.min() >= 0
    np.testing.assert_array_equal(whole[300:400], shards.seeds(7, 300, 100))
    assert not set(whole.tolist()) & set(shards.seeds(8, 0, 1000).tolist())
    assert [s.first for s in shards.shards_of_draws(25, 10, "s")] == [0, 10, 20]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"op": "decode"}, "Expected an op of"),
        ({"columns": ["a"]}, "Expected 4 columns"),
        ({"columns": "abcd"}, "Expected columns as a list"),
        ({"columns": ["a", "a", "k", "c"]}, "Expected each column once"),
        ({"context": ["id"]}, "Expected no context"),
    ],
)
def test_columns_that_a_model_cannot_have(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        rows.rows_of(served.describe(model), **{"op": "log_prob"} | arguments)


def test_columns_of_a_model_that_knows_no_names(model, conditional):
    nameless = served.describe(model)._replace(schema=None)
    table = pa.schema([("id", pa.int64()), *((name, pa.float64()) for name in "apkc"), ("note", pa.string())])
    assert rows.rows_of(nameless, "encode", table=table, keep=["id"]).names == list("apkc")
    with pytest.raises(ValueError, match="Expected 4 columns of numbers, or columns="):
        rows.rows_of(nameless, "log_prob", table=table)
    with pytest.raises(ValueError, match="Expected columns="):
        rows.rows_of(nameless, "log_prob")
    nameless = served.describe(conditional[1])._replace(schema=None)
    with pytest.raises(ValueError, match="Expected context="):
        rows.rows_of(nameless, "log_prob", ["u", "v"])
    assert rows.rows_of(nameless, "log_prob", ["u", "v"], list("abcd")).names == list("uvabcd")


# With Beam.


@pytest.fixture(scope="module")
def scored(model, data, tmp_path_factory):
    out = tmp_path_factory.mktemp("scored") / "out"
    return out, tfb.score(model, f"{data}/*.parquet", out, **SMALL)


@needs_beam
def test_every_row_once_and_the_flows_numbers(flow, data, scored):
    out, result = scored
    assert result == tfb.Result(shards=3, skipped=0, rows=170, scored=166, dead=4, failed={})
    found = contents(out)
    assert sorted(found) == ["_dead/one.parquet", "none.parquet", "one.parquet", "two.parquet"]
    assert sorted(path.name for path in (out / "_tfflows").iterdir()) == ["done", "settings.json"]
    bad = sorted(row for of_column in BAD.values() for row in of_column)
    for name, n in (("one", 100), ("two", 70), ("none", 0)):
        table, x = frame(n, seed=n)
        good = np.setdiff1d(np.arange(n), bad if name == "one" else [])
        assert found[f"{name}.parquet"].drop_columns("log_prob").equals(table.take(pa.array(good)))
        log_prob = found[f"{name}.parquet"]["log_prob"].to_numpy()
        np.testing.assert_allclose(log_prob, flow.log_prob(x[good]) if n else [], rtol=1e-5, atol=1e-5)
    dead = found["_dead/one.parquet"].to_pylist()
    assert [row["row"] for row in dead] == [row["id"] for row in dead] == bad
    assert [row["reason"].split()[0] for row in dead] == ["a", "a", "p", "c"]


@needs_beam
def test_results_depend_on_no_batch(model, data, scored, tmp_path):
    out, settings = tmp_path / "out", {"min_batch_size": 1, "max_batch_size": 7, "block_rows": 9}
    assert tfb.score(model, f"{data}/*.parquet", out, **settings) == scored[1]
    expected = contents(scored[0])
    for name, table in contents(out).items():
        for column in table.column_names:
            ours, theirs = table[column], expected[name][column]
            if column == "log_prob":
                np.testing.assert_allclose(ours.to_numpy(), theirs.to_numpy(), rtol=1e-5, atol=1e-5)
            else:
                assert str(ours.to_pylist()) == str(theirs.to_pylist())


@needs_beam
@pytest.mark.parametrize("step", [4, 9, 11])
def test_a_run_that_stops_goes_on(model, data, scored, tmp_path, monkeypatch, step):
    """It stops before a file gets its name: of a part, of a shard, or that it is done."""
    rename, n_renamed = FileSystems.rename, 0

    def failing(*paths):
        nonlocal n_renamed
        n_renamed += 1
        if n_renamed == step + 1:
            raise KeyboardInterrupt
        rename(*paths)

    monkeypatch.setattr(FileSystems, "rename", failing)
    with pytest.raises(BaseException, match=r"KeyboardInterrupt|^$"):
        tfb.score(model, f"{data}/*.parquet", tmp_path / "out", **SMALL)
    monkeypatch.undo()
    assert len(contents(tmp_path / "out")) < 4
    begun = list((tmp_path / "out" / "_tfflows" / "begun").rglob("*.good.arrow"))
    write, written = Folder.write_part, []
    monkeypatch.setattr(Folder, "write_part", lambda *args: written.append(args) or write(*args))
    result = tfb.score(model, f"{data}/*.parquet", tmp_path / "out", **SMALL)
    assert result[2:] == scored[1][2:]
    assert begun
    assert len(begun) + len(written) == 8
    assert {name: repr(t.to_pylist()) for name, t in contents(tmp_path / "out").items()} == {
        name: repr(t.to_pylist()) for name, t in contents(scored[0]).items()
    }


KILLED = """
import os, signal, sys
from apache_beam.io.filesystems import FileSystems
from tfflows.beam.__main__ import main
rename, n = FileSystems.rename, 0
def killed(*paths):
    global n
    n += 1
    rename(*paths)
    if n == 5:
        os.kill(os.getpid(), signal.SIGKILL)
FileSystems.rename = killed
main(sys.argv[1:])
"""


@needs_beam
def test_a_run_that_is_killed_goes_on(model, data, scored, tmp_path):
    out = tmp_path / "out"
    arguments = ["score", "--model", model, "--data", f"{data}/*.parquet", "--out", str(out)]
    arguments += ["--min-batch-size", "4", "--max-batch-size", "16", "--block-rows", "32"]
    settings = dict(os.environ, PYTHONPATH=str(ROOT), TF_CPP_MIN_LOG_LEVEL="3")
    done = subprocess.run([sys.executable, "-c", KILLED, *arguments], env=settings, capture_output=True, timeout=100)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    assert list((out / "_tfflows" / "begun").rglob("*.good.arrow"))
    assert command.main(arguments) == 0
    assert {name: repr(t.to_pylist()) for name, t in contents(out).items()} == {
        name: repr(t.to_pylist()) for name, t in contents(scored[0]).items()
    }
    assert not (out / "_tfflows" / "begun").exists()


@needs_beam
def test_only_what_changed_is_done_again(model, data, tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in ("one", "two"):
        (folder / f"{name}.parquet").write_bytes((data / f"{name}.parquet").read_bytes())
    (folder / "three.parquet").write_bytes(b"PAR1 no, it is not")
    settings = {"keep": ["id"], "op": "encode", **SMALL}
    first = tfb.score(model, folder / "*.parquet", out, **settings)
    assert first[:5] == (3, 0, 170, 166, 4)
    assert list(first.failed) == ["three.parquet"]
    times = {path: path.stat().st_mtime_ns for path in out.glob("*.parquet")}
    assert parquet.read_schema(out / "one.parquet").names == ["id", "z0", "z1", "z2", "z3"]

    parquet.write_table(frame(20)[0], folder / "one.parquet")
    parquet.write_table(frame(5)[0], folder / "three.parquet")
    assert tfb.score(model, folder / "*.parquet", out, **settings) == (3, 1, 95, 95, 0, {})
    assert (out / "two.parquet").stat().st_mtime_ns == times[out / "two.parquet"]
    assert not (out / "_dead" / "one.parquet").exists()
    (out / "two.parquet").unlink()
    assert tfb.score(model, folder / "*.parquet", out, **settings).skipped == 2

    with pytest.raises(ValueError, match="Expected an out folder of the same model"):
        tfb.score(model, folder / "*.parquet", out, **SMALL)
    again = tfb.score(model, folder / "one.parquet", out, overwrite=True, **SMALL)
    assert again.scored == 20
    assert list(contents(out)) == ["one.parquet"]


@needs_beam
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "nowhere"}, "Expected the folder of a SavedModel"),
        ({"data": "nowhere/*.parquet"}, "Expected files; got none by"),
        ({"data": [str(ROOT / "README.md")]}, "Expected Parquet files"),
        ({"op": "sample"}, "Expected an op"),
        ({"columns": ["a", "p", "k", "d"]}, "Expected columns 'd' in"),
        ({"keep": ["e"]}, "Expected columns 'e' in"),
        ({"min_batch_size": 0}, "Expected whole numbers 1 <= min_batch_size"),
        ({"max_batch_size": 2.0}, "Expected whole numbers 1 <= min_batch_size"),
        ({"out": str(ROOT / "tests")}, "Expected an out folder that is empty"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_starts(model, data, tmp_path, arguments, message):
    settings = {"model": model, "data": f"{data}/*.parquet", "out": tmp_path / "out"} | SMALL | arguments
    with pytest.raises(ValueError, match=message):
        tfb.score(**settings)
    assert not (tmp_path / "out").exists()


@needs_beam
def test_a_run_killed_before_its_settings_were_there_is_begun_again(tmp_path):
    folder = Folder(str(tmp_path / "out"))
    begun = tmp_path / "out" / "_tfflows" / "begun"
    begun.mkdir(parents=True)
    (begun / "0.tmp").write_text("{")
    folder.prepare({"op": "encode"}, overwrite=False)
    assert json.loads(Path(folder.settings).read_text()) == {"op": "encode"}
    Path(folder.settings).unlink()
    (tmp_path / "out" / "begun").write_text("of somebody else")
    with pytest.raises(ValueError, match="Expected an out folder that is empty"):
        folder.prepare({"op": "encode"}, overwrite=False)


@needs_beam
def test_a_given_context_that_its_type_cannot_hold(model):
    labels = {"sample": {"context": ((None,), np.dtype("int32"))}}
    labelled = served.describe(model)._replace(inputs=labels, schema=None)
    assert jobs._given(labelled, {"c0": 7}).tolist() == [7]
    for value in (3e9, 1.5):
        with pytest.raises(ValueError, match="Expected numbers that int32 can hold as given; got"):
            jobs._given(labelled, {"c0": value})


@needs_beam
def test_a_column_that_is_there_already(model, tmp_path):
    parquet.write_table(frame(3)[0].append_column("log_prob", pa.array([1, 2, 3])), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="Expected no columns 'log_prob'"):
        tfb.score(model, tmp_path / "a.parquet", tmp_path / "out")
    assert tfb.score(model, tmp_path / "a.parquet", tmp_path / "out", keep=["id"]).scored == 3


@needs_beam
@pytest.mark.parametrize("kind", ["dicts", "tables"])
def test_in_a_pipeline_of_ones_own(flow, model, kind):
    table, x = frame(30)
    made = table.to_pylist() if kind == "dicts" else [table.slice(0, 13), table.slice(13), table.slice(0, 0)]
    if kind == "dicts":
        made += [{"id": 90, "a": "far", "p": 1.0, "k": 1, "c": "red"}, {"id": 91}, {"id": 92, "a": object(), "c": 1j}]
    expected = dict(enumerate(np.asarray(flow.log_prob(x))))

    def rows_of(found):
        return [row for part in found for row in (part.to_pylist() if kind == "tables" else [part])]

    def are_scored(found):
        found = rows_of(found)
        assert sorted(row["id"] for row in found) == list(range(30))
        for row in found:
            np.testing.assert_allclose(row.pop("log_prob"), expected[row["id"]], rtol=1e-5, atol=1e-5)
            assert row == table.slice(row["id"], 1).to_pylist()[0]

    def are_dead(found):
        reasons = {row["id"]: row["reason"] for row in rows_of(found)}
        if kind == "dicts":
            assert reasons[90] == "a is 'far', no number"
            assert reasons[91] == "no column 'a'"
            assert reasons[92].startswith("a is '<object object at")
        assert len(reasons) == 3 * (kind == "dicts")

    with beam.Pipeline(RUNNER) as pipeline:
        found = pipeline | beam.Create(made) | tfb.Score(model, min_batch_size=4, max_batch_size=16)
        assert_that(found["good"], are_scored, label="good")
        assert_that(found["dead"], are_dead, label="dead")


@needs_beam
def test_a_handler_of_any_signature_is_loaded_once(flow, model, monkeypatch):
    load, n_loads = tf.saved_model.load, []
    monkeypatch.setattr(tf.saved_model, "load", lambda path: n_loads.append(path) or load(path))
    z = np.asarray(flow.encode(frame(8)[1])).astype(np.float32)
    expected = np.asarray(flow.decode(z))

    def are_decoded(found):
        assert len(found) == 8
        for result in found:
            i = int(np.argmin(np.abs(z - result.example["z"]).sum(axis=1)))
            np.testing.assert_allclose(result.inference["x"][0], expected[i], rtol=1e-4, atol=1e-4)

    with beam.Pipeline(RUNNER) as pipeline:
        examples = pipeline | beam.Create([{"z": row[np.newaxis]} for row in z]) | beam.Reshuffle()
        found = examples | RunInference(tfb.FlowHandler(model, "decode", min_batch_size=2, max_batch_size=4))
        assert_that(found, are_decoded)
    assert n_loads == [model]
    for arguments in ({"signature": "interpolate"}, {"min_batch_size": 8, "max_batch_size": 4}):
        with pytest.raises(ValueError, match="Expected"):
            tfb.FlowHandler(model, **arguments)
    with pytest.raises(ValueError, match="Expected no inference_args"):
        tfb.FlowHandler(model).validate_inference_args({"a": 1})


@needs_beam
def test_draws_follow_from_their_number(flow, model, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert tfb.sample(model, 50, whole, seed=3, **SMALL) == (1, 0, 50, 50, 0, {})
    settings = {"rows_per_shard": 20, "min_batch_size": 1, "max_batch_size": 8, "block_rows": 10}
    assert tfb.sample(model, 30, parts, seed=3, **settings).shards == 2
    # The first file stays; the second had 10 rows and now has 20.
    assert tfb.sample(model, 50, parts, seed=3, **settings) == (3, 1, 50, 50, 0, {})
    found = pa.concat_tables(contents(parts).values())
    assert found.column_names == ["a", "p", "k", "c"]
    with pytest.raises(ValueError, match="which is of others: 'rows_per_shard'"):
        tfb.sample(model, 50, parts, seed=3, **settings | {"rows_per_shard": 25})
    expected = parquet.read_table(whole / "00000.parquet")
    assert found.schema.equals(expected.schema)
    assert found["c"].to_pylist() == expected["c"].to_pylist()
    np.testing.assert_allclose(found["a"].to_numpy(), expected["a"].to_numpy(), rtol=1e-5, atol=1e-5)
    seeds = shards.seeds(3, 0, 50)
    drawn = export.runner(model)("sample", seed=seeds, temperature=np.ones(50, np.float32))["x"]
    np.testing.assert_allclose(expected["a"].to_numpy(), drawn[:, 0], rtol=1e-5, atol=1e-5)
    assert len(set(expected["a"].to_pylist())) == 50
    assert tfb.sample(model, 30, parts, seed=3, **settings).rows == 30
    assert contents(parts).keys() == {"00000.parquet", "00001.parquet"}  # what is beyond 30 went
    for arguments in ({"n": 0}, {"n": 1.5}, {"seed": -1}, {"temperature": 0.0}, {"given": {"c": 1}}):
        with pytest.raises(ValueError, match="Expected"):
            tfb.sample(**{"model": model, "n": 5, "out": tmp_path / "new", "seed": 1} | arguments)
    assert not (tmp_path / "new").exists()


@needs_beam
def test_conditional_flows(conditional, tmp_path):
    flow, model = conditional
    table = pa.table({"s": ["x", "z", "w"], "t": [0.5, 1.0, 1.0], "v": [1.0, 2.0, 2.0], "u": [0.0, 1.0, 1.0]})
    parquet.write_table(table, tmp_path / "in.parquet")
    result = tfb.score(model, tmp_path / "in.parquet", tmp_path / "out", **SMALL)
    assert (result.scored, result.dead) == (2, 1)
    x, context = [[0.0, 1.0], [1.0, 2.0]], [[0.5, 1, 0, 0], [1.0, 0, 0, 1]]
    log_prob = parquet.read_table(tmp_path / "out" / "in.parquet")["log_prob"].to_numpy()
    np.testing.assert_allclose(log_prob, flow.log_prob(x, context), rtol=1e-5, atol=1e-5)
    arguments = ["sample", "--model", model, "-n", "5", "--seed", "0", "--out", str(tmp_path / "drawn")]
    assert command.main([*arguments, "--given", "t=1", "s=z"]) == 0
    drawn = export.runner(model)(
        *("sample",),
        seed=shards.seeds(0, 0, 5),
        temperature=np.ones(5, np.float32),
        context=np.repeat([np.float32([1, 0, 0, 1])], 5, axis=0),
    )["x"]
    found = parquet.read_table(tmp_path / "drawn" / "00000.parquet")
    np.testing.assert_allclose(found["u"].to_numpy(), drawn[:, 0], rtol=1e-5, atol=1e-5)
    for given in ([], ["t=1"], ["t=1", "s=w"], ["t=one", "s=z"], ["t", "s=z"]):
        assert command.main([*arguments, *(["--given", *given] if given else []), "--overwrite"]) == 2


@needs_beam
def test_the_command(model, data, tmp_path, capsys):
    parquet.write_table(frame(3)[0], tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(b"no")
    arguments = ["score", "--model", model, "--data", str(tmp_path / "*.parquet"), "--out", str(tmp_path / "out")]
    assert command.main([*arguments, "--keep", "id", "--op", "encode"]) == 1
    out, errors = capsys.readouterr()
    assert out.startswith("2 files: 3 good rows and 0 bad ones")
    assert "b.parquet could not be read" in errors
    for wrong in (["--colums", "a"], ["--columns", "a,b"], ["--op", "log_prob"]):
        assert command.main([*arguments, *wrong]) == 2
        assert "tfflows.beam: Expected" in capsys.readouterr().err
    manifest = json.loads((tmp_path / "out" / "_tfflows" / "done" / "a.parquet.json").read_text())
    assert (manifest["rows"], manifest["scored"], manifest["dead"]) == (3, 3, 0)
