"""The `tfflows` command, as people use and misuse it."""

import errno
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from cases import room_for
from typer.testing import CliRunner

import tfflows_cli
from tfflows import FlowModel, RealNVP, presets
from tfflows.cli import console, fitting, tables
from tfflows.schema import Column, Schema
from tfflows.training import TrainableModel

ROOT = Path(__file__).parents[1]
SMALL = ["--flow", "realnvp", "--layers", "2", "--hidden", "8", "--epochs", "2", "--seed", "0"]


@pytest.fixture(autouse=True, scope="module")
def _without_xla():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainableModel, "use_xla", property(lambda model: bool(model.xla_wanted)))
        yield


def run(*arguments, code=0):
    """What a command prints, to stdout and to stderr."""
    result = CliRunner().invoke(tfflows_cli.app, [str(a) for a in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result.stdout, result.stderr


def refused(*arguments):
    """The one line that a command says when it cannot do what it was told, after its notes."""
    out, lines = run(*arguments, code=1)
    assert out == ""
    *notes, line = lines.splitlines()
    assert line.startswith("tfflows: ")
    assert len(notes) <= 1, lines
    assert "Traceback" not in lines
    return line


def table(n=200, seed=0):
    rng = np.random.default_rng(seed)
    colour = rng.integers(0, 3, n)
    return pd.DataFrame(
        {
            "size": rng.exponential(size=n) + 0.1,
            "größe": 5e3 + colour + rng.normal(size=n),
            "count": rng.poisson(3.0, n),
            "colour": np.array(["red", "green, dark", "blue"])[colour],
            "note": [f'row "{i}"' for i in range(n)],
        }
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with data and a flow that was fitted to them by the command."""
    folder = tmp_path_factory.mktemp("a folder ü")
    table().to_csv(folder / "data.csv", index=False)
    table().to_parquet(folder / "data.parquet")
    domain = ["--domain", "size=positive", "--domain", "colour=categorical"]
    columns = ["--columns", "size,größe", "--columns", "count,colour"]
    _, notes = run("fit", folder / "data.csv", "--out", folder / "model.keras", *columns, *domain, *SMALL)
    assert "'count' as integer" in notes
    given = ["--columns", "size,count", "--context", "größe,colour", *domain]
    run("fit", folder / "data.parquet", "--out", folder / "given.keras", *given, *SMALL)
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A flow of two columns that was saved from Python and knows no names."""
    path = tmp_path_factory.mktemp("plain") / "plain.keras"
    flow = FlowModel(RealNVP(2, n_layers=2, hidden=(8,)))
    flow.adapt(np.random.default_rng(0).normal(size=(50, 2)))
    flow.save(path)
    return path


def test_help_needs_no_tensorflow():
    code = "import sys, tfflows_cli; assert 'tfflows' not in sys.modules and 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    for arguments in (["--help"], ["info", "--help"]):
        assert "Usage: " in run(*arguments)[0]


def test_without_the_extra_it_says_so():
    code = "import sys; sys.modules['typer'] = None; import tfflows_cli"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "pip install 'tfflows[cli]'" in result.stderr


def test_a_missing_file_needs_no_tensorflow():
    code = (
        "import sys; sys.modules['tfflows'] = None; sys.argv[1:] = ['score', 'none.keras', 'none.csv']; "
        "import tfflows_cli; tfflows_cli.main()"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 1
    assert "Expected a model file; got none.keras, which does not exist." in result.stderr


def test_usage_errors_are_2():
    run("fit", code=2)
    run("sample", "model.keras", "--out", "x.csv", "-n", "0", code=2)


def test_schema_is_in_the_file(folder):
    flow = keras.saving.load_model(folder / "model.keras")
    assert flow.schema.columns == (
        Column("size", "float64", None, "positive"),
        Column("größe"),
        Column("count", "int64", None, "integer"),
        Column("colour", "str", ("blue", "green, dark", "red"), "categorical"),
    )
    out, _ = run("info", folder / "model.keras")
    assert "colour  str      categorical: 'blue', 'green, dark', 'red'" in out
    facts = json.loads(run("info", folder / "given.keras", "--json")[0])
    assert [c["part"] for c in facts["columns"]] == ["x", "x", "context", "context"]


def test_schema_of_python(tmp_path):
    flow = FlowModel(RealNVP(2, n_layers=2, hidden=(8,)))
    assert flow.schema is None
    flow.schema = Schema((Column("a"), Column("b", "int32")), (Column("c", "bool", (False, True)),))
    flow.save(tmp_path / "a.keras")
    assert keras.saving.load_model(tmp_path / "a.keras").schema == flow.schema


def test_score_keeps_the_table_to_the_letter(folder):
    out, _ = run("score", folder / "model.keras", folder / "data.csv", "--out", folder / "scored.csv", "--force")
    before, after = ((folder / name).read_text().splitlines() for name in ("data.csv", "scored.csv"))
    assert before == [line.rpartition(",")[0] for line in after]
    scored = pd.read_csv(folder / "scored.csv")
    flow = keras.saving.load_model(folder / "model.keras")
    data = table()
    data["colour"] = data["colour"].map({"blue": 0, "green, dark": 1, "red": 2})
    expected = flow.log_prob(data[["size", "größe", "count", "colour"]].to_numpy())
    np.testing.assert_allclose(scored["log_prob"], expected, rtol=1e-5)
    said = float(re.search(r"rows: (\S+) \+-", out)[1])
    np.testing.assert_allclose(said, scored["log_prob"].mean(), atol=6e-3)


def test_columns_are_taken_by_name(folder, tmp_path):
    mixed = table()[["note", "colour", "count", "größe", "size"]]
    mixed.to_parquet(tmp_path / "mixed.parquet")
    run("score", folder / "model.keras", tmp_path / "mixed.parquet", "--out", tmp_path / "a.parquet")
    run("score", folder / "model.keras", folder / "data.csv", "--out", tmp_path / "b.parquet")
    a, b = (pd.read_parquet(tmp_path / name) for name in ("a.parquet", "b.parquet"))
    assert list(a) == [*mixed, "log_prob"]
    assert b["count"].dtype == np.int64
    assert b["size"].dtype == np.float64
    np.testing.assert_allclose(a["log_prob"], b["log_prob"], rtol=1e-6)


def test_chunks_give_what_all_rows_at_once_give(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "CHUNK", 64)
    monkeypatch.setattr(tables, "BLOCK", 2000)
    run("score", folder / "model.keras", folder / "data.csv", "--out", folder / "whole.csv", "--force")
    for name in ("data.csv", "data.parquet"):
        run("score", folder / "model.keras", folder / name, "--out", tmp_path / f"{name}.csv")
        found, whole = pd.read_csv(tmp_path / f"{name}.csv"), pd.read_csv(folder / "whole.csv")
        np.testing.assert_allclose(found["log_prob"], whole["log_prob"], rtol=1e-4)
        assert list(found["note"]) == list(whole["note"])


def test_sample_keeps_types(folder, tmp_path):
    for name in ("a.parquet", "b.parquet", "c.csv"):
        run("sample", folder / "model.keras", "-n", "100", "--seed", "4", "--out", tmp_path / name)
    a, b = (pd.read_parquet(tmp_path / name) for name in ("a.parquet", "b.parquet"))
    pd.testing.assert_frame_equal(a, b)
    assert list(a) == ["size", "größe", "count", "colour"]
    assert a["count"].dtype == np.int64
    assert set(a["colour"]) <= {"red", "green, dark", "blue"}
    assert (a["size"] > 0).all()
    pd.testing.assert_frame_equal(a, pd.read_csv(tmp_path / "c.csv"), check_dtype=False)


def test_conditional_flow(folder, tmp_path):
    model = folder / "given.keras"
    run("score", model, folder / "data.csv", "--out", tmp_path / "scored.csv")
    given = ["--given", "größe=5000.5", "--given", "colour=red"]
    run("sample", model, "-n", "7", *given, "--out", tmp_path / "one.csv")
    one = pd.read_csv(tmp_path / "one.csv")
    assert one.shape == (7, 4)
    assert set(one["colour"]) == {"red"}
    table(5)[["größe", "colour"]].to_csv(tmp_path / "contexts.csv", index=False)
    run("sample", model, "-n", "3", "--context", tmp_path / "contexts.csv", "--out", tmp_path / "each.csv")
    each = pd.read_csv(tmp_path / "each.csv")
    assert list(each["colour"]) == list(np.repeat(table(5)["colour"], 3))
    assert "--context FILE" in refused("sample", model, "-n", "3", "--out", tmp_path / "x.csv")
    bad = [*given[:3], "colour=pink"]
    assert "got 'pink'" in refused("sample", model, "-n", "3", *bad, "--out", tmp_path / "x.csv")
    assert "without context" in refused(
        "sample", folder / "model.keras", "-n", "3", *given, "--out", tmp_path / "x.csv"
    )


def test_outliers(folder, tmp_path):
    strange = table(60, seed=1)
    strange.loc[7, "größe"] = 5100.0
    strange.to_csv(tmp_path / "new.csv", index=False)
    calibrated = ["--rate", "0.02", "--calibration", folder / "data.csv"]
    out, _ = run("outliers", folder / "model.keras", tmp_path / "new.csv", *calibrated, "--out", tmp_path / "o.csv")
    found = pd.read_csv(tmp_path / "o.csv")
    assert found["outlier"][7]
    assert found["p_value"][7] == pytest.approx(1 / 201)
    assert f"{found['outlier'].sum()} outliers in 60 rows" in out
    np.testing.assert_array_equal(found["outlier"], found["p_value"] <= 0.02)
    # Without calibration the halves judge each other.
    arguments = ["--rate", "0.05", "--by", "latent", "--only", "--seed", "0", "--out", tmp_path / "only.csv"]
    _, notes = run("outliers", folder / "model.keras", tmp_path / "new.csv", *arguments)
    assert "each half" in notes
    assert pd.read_csv(tmp_path / "only.csv")["outlier"].all()
    few = refused("outliers", folder / "model.keras", tmp_path / "new.csv", "--rate", "0.001")
    assert "calibration rows" in few


def test_encode(folder, tmp_path):
    run("encode", folder / "model.keras", folder / "data.parquet", "--out", tmp_path / "z.parquet")
    z = pd.read_parquet(tmp_path / "z.parquet")[["z0", "z1", "z2", "z3"]].to_numpy()
    assert np.all(np.isfinite(z))
    assert np.all(np.abs(z.mean(axis=0)) < 1.0)


def test_arrays(plain, tmp_path):
    x = np.random.default_rng(0).normal(size=(100, 2))
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "x.npz", x=x)
    pd.DataFrame(x, columns=["a", "b"]).to_csv(tmp_path / "x.csv", index=False)
    expected = keras.saving.load_model(plain).log_prob(x)
    for name in ("x.npy", "x.npz", "x.csv"):
        run("score", plain, tmp_path / name, "--out", tmp_path / "scored.npy", "--force")
        scored = np.load(tmp_path / "scored.npy")
        np.testing.assert_allclose(scored[:, :2], x)
        np.testing.assert_allclose(scored[:, 2], expected, rtol=1e-5)
    run("sample", plain, "-n", "50", "--out", tmp_path / "s.npy")
    assert np.load(tmp_path / "s.npy").shape == (50, 2)
    run("fit", tmp_path / "x.npy", "--context", "x1", "--out", tmp_path / "m.keras", *SMALL)
    assert keras.saving.load_model(tmp_path / "m.keras").schema.names == ["x0", "x1"]
    np.save(tmp_path / "three.npy", np.ones((5, 3)))
    assert "Expected 2 columns" in refused("score", plain, tmp_path / "three.npy")


def test_json_is_one_object(folder, tmp_path):
    out, _ = run("score", folder / "model.keras", folder / "data.csv", "--json")
    assert json.loads(out)["rows"] == 200
    out, _ = run("score", folder / "model.keras", tmp_path / "nothing.csv", "--json", code=1)
    assert "does not exist" in json.loads(out)["error"]


def test_weights_and_domains(tmp_path):
    rng = np.random.default_rng(0)
    shares = rng.dirichlet([1.0, 2.0, 3.0], 200)
    data = pd.DataFrame(shares, columns=["a", "b", "c"])
    data["hour"], data["w"], data["yes"] = rng.uniform(0, 24, 200), rng.uniform(size=200), rng.random(200) < 0.5
    data.to_csv(tmp_path / "d.csv", index=False)
    domain = ["--domain", "a,b,c=simplex", "--domain", "hour=circular:0:24", "--weights", "w"]
    small = ["--flow", "coupling-rqnsf", "--layers", "1", *SMALL[4:]]
    run("fit", tmp_path / "d.csv", *domain, *small, "--out", tmp_path / "m.keras", "--learning-rate", "1e-3")
    run("sample", tmp_path / "m.keras", "-n", "40", "--out", tmp_path / "s.parquet")
    s = pd.read_parquet(tmp_path / "s.parquet")
    assert list(s) == ["a", "b", "c", "hour", "yes"]
    np.testing.assert_allclose(s[["a", "b", "c"]].sum(axis=1), 1.0, rtol=1e-5)
    assert s["yes"].dtype == bool
    data.loc[3, "hour"] = -1.0
    for option, says in (
        ("hour=interval:0:24", "in column 'hour'; got -1. and the like in 1 rows: 3"),
        ("hour=interval", "interval:low:high"),
        ("hour=clock", "of a kind of real"),
        ("time=real", "got 'time'"),
        ("a,c=simplex", "side by side"),
        ("hour=categorical", "text or whole numbers"),
    ):
        data.to_csv(tmp_path / "bad.csv", index=False)
        assert says in refused("fit", tmp_path / "bad.csv", "--domain", option, *SMALL, "--out", tmp_path / "x.keras")


BAD_DATA = {
    "missing": (None, "does not exist"),
    "empty": (b"", "which is empty"),
    "header": ("size,größe,count,colour\n".encode(), "none below its header"),
    "ragged": (b"size,count,colour\n1,2,red\n1,2\n", "Expected 3 columns, got 2"),
    "text": ("size,größe,count,colour\n1,abc,2,red\n1,2,3,blue\n".encode(), "größe"),
    "nan": ("size,größe,count,colour\n1,,2,red\n1,nan,3,blue\n1,2,3,red\n".encode(), "got 2 in 'größe', of 3 rows"),
    "infinite": ("size,größe,count,colour\n1,inf,2,red\n1,2,3,blue\n".encode(), "got 1 in 'größe', of 2 rows"),
    "twice": (b"size,size,count,colour\n1,1,2,red\n", "'size' more than once"),
    "latin": ("size,größe,count,colour\n1,2,3,dü\n".encode("latin1"), ""),
}


@pytest.mark.parametrize("kind", BAD_DATA)
@pytest.mark.parametrize("command", ["fit", "score"])
def test_bad_data(kind, command, folder, tmp_path):
    content, says = BAD_DATA[kind]
    data, out = tmp_path / "bad.csv", tmp_path / ("out.keras" if command == "fit" else "out.csv")
    if content is not None:
        data.write_bytes(content)
    out.write_text("old")
    model = [] if command == "fit" else [folder / "model.keras"]
    options = ["--domain", "colour=categorical", *SMALL] if command == "fit" else []
    assert says in refused(command, *model, data, "--out", out, "--force", *options)
    assert out.read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} <= {"bad.csv", out.name}


@pytest.mark.parametrize("name", ["x.parquet", "x.npy", "x.npz", "x.xlsx"])
def test_files_that_are_not_what_they_are_called(name, plain, tmp_path):
    (tmp_path / name).write_text("hello")
    refused("score", plain, tmp_path / name)


def test_text_columns_and_dates(folder, tmp_path):
    assert "--domain colour=categorical" in refused(
        "fit", folder / "data.csv", "--columns", "size,colour", "--out", tmp_path / "x.keras"
    )
    pd.DataFrame({"a": [1.0, 2.0], "day": pd.to_datetime(["2020-01-01", "2020-01-02"])}).to_parquet(
        tmp_path / "d.parquet"
    )
    assert "'day'" in refused("fit", tmp_path / "d.parquet", "--out", tmp_path / "x.keras")


def test_odd_tables(plain, tmp_path):
    fit = ["fit", tmp_path / "d.csv", "--out", tmp_path / "m.keras", *SMALL]
    data = pd.DataFrame({"a": np.ones(20), "b": np.arange(20) / 7, "w": -np.ones(20)})
    data.to_csv(tmp_path / "d.csv", index=False, sep=";", encoding="utf-8-sig")
    assert "'a' are constant" in run(*fit, "--columns", "a,b")[1]
    assert "weights >= 0" in refused(*fit, "--columns", "b", "--weights", "w", "--force")
    assert "but categorical" in refused(*fit, "--columns", "b", "--context", "a", "--domain", "a=positive", "--force")
    assert "in two" in refused(*fit, "--columns", "b,w", "--weights", "w", "--force")
    assert "--validation-split" in refused(*fit, "--validation-split", "2", "--force")
    pd.DataFrame({"b": [0.5], "list": [[1, 2]], "a": [0.5]}).to_parquet(tmp_path / "l.parquet")
    run("score", tmp_path / "m.keras", tmp_path / "l.parquet", "--out", tmp_path / "o.parquet")
    assert "in 'list'" in refused("score", tmp_path / "m.keras", tmp_path / "l.parquet", "--out", tmp_path / "o.csv")


def test_no_row_is_whole(plain, tmp_path):
    data = pd.DataFrame({"a": [1.0, np.nan], "b": [np.nan, 1.0]})
    data.to_parquet(tmp_path / "d.parquet")
    for command in (["score", plain], ["outliers", plain], ["fit"]):
        options = ["--out", tmp_path / "m.keras", *SMALL] if command == ["fit"] else []
        line = refused(*command, tmp_path / "d.parquet", "--drop-missing", *options)
        assert "Expected rows without missing" in line


def test_no_outliers_at_all(plain, tmp_path):
    x = np.random.default_rng(0).normal(size=(200, 2))
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "middle.npy", x[np.argsort(np.sum(x**2, axis=1))][:3])
    for ending in ("csv", "parquet", "npy"):
        out = tmp_path / f"o.{ending}"
        run("outliers", plain, tmp_path / "middle.npy", "--calibration", tmp_path / "x.npy", "--only", "--out", out)
    assert (tmp_path / "o.csv").read_text() == "x0,x1,score,p_value,outlier\n"
    assert len(pd.read_parquet(tmp_path / "o.parquet")) == 0
    assert np.load(tmp_path / "o.npy").shape == (0, 5)


def test_missing_values(folder, tmp_path):
    data = table()
    data.loc[[3, 5], "size"] = np.nan
    data.loc[5, "colour"] = None
    data.to_csv(tmp_path / "d.csv", index=False)
    line = refused("score", folder / "model.keras", tmp_path / "d.csv", "--out", tmp_path / "o.csv")
    assert "got 2 in 'size', 1 in 'colour', of 200 rows. Use --drop-missing" in line
    out, notes = run("score", folder / "model.keras", tmp_path / "d.csv", "--drop-missing", "--json")
    assert json.loads(out)["dropped_rows"] == 2
    assert "2 in 'size'" in notes
    fit = ["fit", tmp_path / "d.csv", "--columns", "size", "--out", tmp_path / "m.keras", *SMALL]
    assert "--drop-missing" in refused(*fit)
    assert json.loads(run(*fit, "--drop-missing", "--json")[0])["rows"] == 198


def test_wrong_models(plain, tmp_path):
    np.save(tmp_path / "x.npy", np.ones((5, 2)))
    (tmp_path / "text.keras").write_text("hello")
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(tmp_path / "dense.keras")
    for name, says in (("none", "does not exist"), ("text", "which is none"), ("dense", "a Keras Sequential")):
        for command in (["score"], ["info"], ["sample", "-n", "3"], ["encode"], ["outliers"], ["export"], ["plot"]):
            data = [tmp_path / "x.npy"] if command[0] in ("score", "encode", "outliers") else []
            endings = {"info": None, "export": ".tflite", "plot": ".png"}
            ending = endings.get(command[0], ".csv")
            out = [] if ending is None else ["--out", tmp_path / f"o{ending}"]
            assert says in refused(*command, tmp_path / f"{name}.keras", *data, *out)
    assert not list(tmp_path.glob("o.*"))


def test_columns_missing_in_the_data(folder, tmp_path):
    table().drop(columns="count").to_csv(tmp_path / "d.csv", index=False)
    assert "without 'count'" in refused("score", folder / "model.keras", tmp_path / "d.csv")
    pd.DataFrame({"log_prob": [1.0]}).to_csv(tmp_path / "d.csv", index=False)
    assert "without columns 'log_prob'" in refused("score", folder / "model.keras", tmp_path / "d.csv")


def test_out_files(folder, plain, tmp_path):
    np.save(tmp_path / "x.npy", np.ones((5, 2)))
    (tmp_path / "old.csv").write_text("old")
    assert "--force" in refused("score", plain, tmp_path / "x.npy", "--out", tmp_path / "old.csv")
    assert "ending in .csv" in refused("score", plain, tmp_path / "x.npy", "--out", tmp_path / "o.xlsx")
    assert "a folder that exists" in refused("score", plain, tmp_path / "x.npy", "--out", tmp_path / "no" / "o.csv")
    assert "ending in .keras" in refused("fit", tmp_path / "x.npy", "--out", tmp_path / "o.h5")
    assert "string in 'colour'" in refused("sample", folder / "model.keras", "-n", 3, "--out", tmp_path / "o.npy")
    assert (tmp_path / "old.csv").read_text() == "old"
    run("score", plain, tmp_path / "x.npy", "--out", tmp_path / "old.csv", "--force")
    assert (tmp_path / "old.csv").read_text().startswith("x0,x1,log_prob\n1,1,")
    # In the place of the data, which are read to the end before they are replaced.
    run("encode", plain, tmp_path / "x.npy", "--out", tmp_path / "x.npy", "--force")
    assert np.load(tmp_path / "x.npy").shape == (5, 5)
    assert {path.name for path in tmp_path.iterdir()} == {"x.npy", "old.csv"}


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a folder that nobody can write to")
def test_folder_that_is_read_only(plain):
    refused("fit", plain, "--out", "/proc/self/m.keras")
    refused("sample", plain, "-n", "3", "--out", "/proc/self/o.csv")


@pytest.mark.parametrize("name", ["o.csv", "o.parquet", "o.npy", "m.keras", "p.png"])
def test_full_disk(name, plain, tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(2000, 2)))
    out = tmp_path / name
    out.write_text("old")
    command = {"m.keras": ["fit", tmp_path / "x.npy", *SMALL], "p.png": ["plot", plain]}
    with room_for(5000):
        line = refused(*command.get(name, ["sample", plain, "-n", "2000"]), "--out", out, "--force")
    assert "too large" in line
    assert "Expected room for" in line
    assert out.read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} == {"x.npy", name}


def test_full_disk_loses_no_model(plain, tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(200, 2)))
    save, rescue = FlowModel.save, tmp_path / "rescue"

    def full(self, path):
        if rescue not in path.parents:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(self, path)

    rescue.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(rescue))
    monkeypatch.setattr(FlowModel, "save", full)
    line = refused("fit", tmp_path / "x.npy", *SMALL, "--out", tmp_path / "m.keras")
    rescued = Path(re.search(r"saved to (.*) instead", line)[1])
    assert keras.saving.load_model(rescued).schema.names == ["x0", "x1"]


def test_unknown_presets(folder, tmp_path):
    for name, says in (("realnpv", "Did you mean realnvp"), ("glow", "of images"), ("xyz", "such as rqnsf")):
        assert says in refused("fit", folder / "data.csv", "--flow", name, "--out", tmp_path / "m.keras")
    for name, preset in (("rqnsf", "MaskedAutoregressiveRQNSF"), ("Coupling-RQNSF", "CouplingRQNSF"), ("maf", "MAF")):
        assert presets.find(name).__name__ == preset
    assert all(hasattr(presets.architectures, preset) for preset in presets.ALIASES.values())
    assert "--layers" in refused(
        "fit",
        folder / "data.csv",
        "--columns",
        "size",
        "--flow",
        "ffjord",
        "--layers",
        3,
        "--out",
        tmp_path / "m.keras",
    )


def test_ctrl_c_keeps_the_best_weights(folder, tmp_path, monkeypatch):
    seen = []
    on_epoch_end = fitting.Epochs.on_epoch_end

    def interrupting(self, epoch, logs=None):
        on_epoch_end(self, epoch, logs)
        seen.append(logs["val_loss"])
        if epoch == self.last:
            raise KeyboardInterrupt

    monkeypatch.setattr(fitting.Epochs, "on_epoch_end", interrupting)
    for last, options in ((3, []), (3, ["--epochs", "50"])):
        seen.clear()
        monkeypatch.setattr(fitting.Epochs, "last", last, raising=False)
        fit = ["fit", folder / "data.csv", "--columns", "size,größe", *SMALL[:6], "--seed", "0", *options]
        out, _ = run(*fit, "--out", tmp_path / "m.keras", "--force", "--json", code=130)
        assert json.loads(out)["interrupted"]
        assert -json.loads(out)["held_out_log_prob"] == pytest.approx(min(seen), abs=1e-3)
        assert len(seen) == 4
        assert keras.saving.load_model(tmp_path / "m.keras").schema is not None
    (tmp_path / "m.keras").write_text("old")
    monkeypatch.setattr(FlowModel, "fit", _interrupted)
    _, line = run(
        "fit", folder / "data.csv", "--columns", "size", *SMALL, "--out", tmp_path / "m.keras", "-f", code=130
    )
    assert line == "tfflows: Stopped by Ctrl-C; nothing was written.\n"
    assert (tmp_path / "m.keras").read_text() == "old"


def test_a_killed_fit_goes_on(tmp_path, monkeypatch):
    from tfflows import checkpoints

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(checkpoints, "SECONDS", 0.0)
    np.save("x.npy", np.random.default_rng(0).normal(size=(100, 2)))
    options = ["--flow", "nice", "--layers", "1", "--hidden", "4", "--epochs", "3", "--batch-size", "32", "--json"]
    whole, _ = run("fit", "x.npy", "-o", "a.keras", "--seed", "0", *options)
    write = checkpoints.Progress.write

    def write_once(self, path):
        write(self, path)
        raise KeyboardInterrupt  # before there are weights to keep

    monkeypatch.setattr(checkpoints.Progress, "write", write_once)
    run("fit", "x.npy", "-o", "b.keras", "--checkpoint", "run.npz", *options, code=130)
    monkeypatch.setattr(checkpoints.Progress, "write", write)
    again, _ = run("fit", "x.npy", "-o", "b.keras", "--checkpoint", "run.npz", *options)
    assert json.loads(again)["held_out_log_prob"] == json.loads(whole)["held_out_log_prob"]
    assert json.loads(again)["epochs"] == 3
    _, lines = run("fit", "x.npy", "-o", "c.keras", "--checkpoint", "run.npz", *options, "--batch-size", "16", code=1)
    assert "run.npz, which is of another: batch_size 32 there, 16 here" in str(lines)


def _interrupted(*args, **kwargs):
    raise KeyboardInterrupt


def test_surprises_are_one_line_unless_debugged(plain, monkeypatch):
    def broken(*args):
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr("tfflows.cli.using.info", broken)
    assert refused("info", plain) == "tfflows: Unexpected RuntimeError: first line second line (--debug shows where)"
    result = CliRunner().invoke(tfflows_cli.app, ["info", str(plain), "--debug"])
    assert isinstance(result.exception, RuntimeError)


def test_compare(folder, monkeypatch):
    monkeypatch.setattr(fitting, "N_DRAWS", 100)
    options = ["--columns", "size,größe", "--flow", "realnvp,ffjord", "--flow", "nice", "--layers", "1", *SMALL[4:]]
    out, notes = run("compare", folder / "data.csv", *options, "--json")
    assert "Expected no --layers for FFJORD" in notes
    facts = json.loads(out)
    assert facts["test_rows"] == 40
    first, second, failed = facts["flows"]
    assert first["behind"] == 0.0
    assert second["behind"] == pytest.approx(first["test_log_prob"] - second["test_log_prob"])
    assert "failed" in failed


def test_pictures(folder, plain, tmp_path):
    def size(*arguments):
        run("plot", *arguments, "--out", tmp_path / "p.png", "--force")
        return (tmp_path / "p.png").stat().st_size

    assert size(folder / "model.keras", folder / "data.csv", "-n", "100", "--columns", "size,colour") > 10_000
    assert size(folder / "given.keras", folder / "data.csv", "-n", "100") > 10_000
    assert size(plain) > 10_000
    positive = ["--columns", "size", "--domain", "size=positive"]
    run("fit", folder / "data.csv", *positive, "--out", tmp_path / "one.keras", *SMALL)
    assert size(tmp_path / "one.keras", folder / "data.csv") > 10_000


def test_export(folder, plain, tmp_path):
    out, _ = run("export", plain, "--out", tmp_path / "m.tflite", "--json")
    assert json.loads(out)["columns"] == ["x0", "x1"]
    assert "--force" in refused("export", plain, "--out", tmp_path / "m.tflite")
    run("export", plain, "--out", tmp_path / "saved")
    assert (tmp_path / "saved" / "saved_model.pb").exists()
    assert "or a folder for a SavedModel" in refused("export", plain, "--out", tmp_path / "m.onnx")
    assert "tf_saved_model" in refused("export", plain, "--out", tmp_path / "m2.tflite", "--format", "onnx")


def test_errors_of_the_mean():
    values, weight = np.array([1.0, 2.0, 4.0]), np.ones(3)
    mean, error = fitting.averaged(values, weight)
    assert mean == pytest.approx(values.mean())
    assert error == pytest.approx(values.std(ddof=1) / np.sqrt(3))
    assert np.isnan(console.mean_and_error(1.0, 1.0, 1.0, 1.0)[1])


def test_readme_session(tmp_path, monkeypatch):
    section = (ROOT / "README.md").read_text().split("## Command line\n")[1]
    session = re.search(r"```sh\n(.*?)```", section, flags=re.DOTALL)[1]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fitting, "N_DRAWS", 100)
    quick = ["--layers", "1", "--hidden", "8", "--epochs", "1"]
    for line in session.replace("\\\n", " ").splitlines():
        program, *arguments = shlex.split(line, comments=True)
        if program == "python":
            exec(arguments[1], {})
        elif program == "tfflows":
            out, _ = run(*arguments, *(quick if arguments[0] in ("fit", "compare") else []))
            if arguments[0] == "compare":
                heads = {line.split()[0] for line in out.splitlines()[2:]}
                assert heads == {"MaskedAutoregressiveRQNSF", "MAF", "RealNVP"}
