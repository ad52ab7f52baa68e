"""Exports: the same numbers, names and shapes where Python is not; and nothing lost when one fails."""

import runpy
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import policy, randomise
from scipy import stats

import tfflows as tff
from tfflows import FlowMixture, FlowModel, atomic, bases, export
from tfflows.export import __main__ as command
from tfflows.export import c_session, litert, parity
from tfflows.export.c_session import CSession
from tfflows.randomness import seeded_uniform

pytestmark = pytest.mark.usefixtures("without_xla")  # nothing to an export
D, C = 4, 2


def flow_of(bijector, base=None):
    flow = FlowModel(bijector, base)
    rng = np.random.default_rng(0)
    if bijector.is_discrete:
        x = rng.integers(0, 256, (1000, *bijector.event_shape))
    else:
        x = rng.normal(3.0, 2.0, (1000, *bijector.event_shape))
    flow.adapt(x, None if flow.context_dim is None else rng.normal(size=(1000, flow.context_dim)))
    randomise(bijector, scale=0.1)
    return flow, x.astype(np.float32)


FLOWS = {
    "RealNVP": lambda: flow_of(tff.RealNVP(D, n_layers=2, hidden=(8,))),
    "MAF_context": lambda: flow_of(tff.MAF(D, n_layers=2, hidden=(8,), context_dim=C)),
    "StudentT": lambda: flow_of(tff.CouplingRQNSF(D, n_layers=2, hidden=(8,)), bases.StudentT(D)),
    "Glow": lambda: flow_of(tff.Glow((4, 4, 1), levels=1, steps=1, hidden=4, n_classes=C)),
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Each flow, its data, its context and the paths of its exports, made once."""
    made = {}

    def get(name):
        if name not in made:
            flow, x = FLOWS[name]()
            context = None if flow.context_dim is None else np.eye(C, dtype=np.float32)[np.arange(len(x)) % C]
            paths = {}
            for format, ending in (("tf_saved_model", ""), ("litert", ".tflite")):
                paths[format] = tmp_path_factory.mktemp(name) / f"flow{ending}"
                flow.export(paths[format], format, verbose=False)
            made[name] = (flow, x, context, paths)
        return made[name]

    return get


def rows(value, n):
    return None if value is None else value[:n]


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize(("format", "tolerance"), [("tf_saved_model", 1e-5), ("litert", 1e-4)])
def test_numbers_are_the_flows(exported, name, format, tolerance):
    flow, x, context, paths = exported(name)
    found = export.verify(paths[format], flow, x, context)  # for 1, 7 and 1000 rows
    runtimes = {"litert": ["LiteRT"], "tf_saved_model": ["TensorFlow", "TensorFlow C library"]}[format]
    signatures = ["log_prob", "encode", "decode"]
    assert [one[:2] for one in found] == [(r, s) for r in runtimes for s in signatures]
    for one in found:
        assert one.difference <= tolerance, one


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize("format", ["tf_saved_model", "litert"])
def test_samples_follow_from_the_seed_alone(exported, name, format):
    flow, _, context, paths = exported(name)
    run, again = export.runner(paths[format]), export.runner(paths[format])
    n = 500
    inputs = {"seed": np.arange(n, dtype=np.int32), "temperature": np.ones(n, np.float32)}
    if context is not None:
        inputs["context"] = context[:n]
    first = run("sample", **inputs)["x"]
    assert first.shape == (n, *flow.bijector.event_shape)
    np.testing.assert_allclose(again("sample", **inputs)["x"], first, atol=1e-5)
    some = np.array([400, 3, 77])
    np.testing.assert_allclose(run("sample", **{k: v[some] for k, v in inputs.items()})["x"], first[some], atol=1e-3)
    # A negative seed is a new one each time.
    inputs["seed"] = np.full(n, -1, np.int32)
    fresh = [r("sample", **inputs)["x"].reshape(n, -1) for r in (run, run, again)]
    assert np.max(np.abs(fresh[0] - fresh[1])) > 1e-3
    assert np.max(np.abs(fresh[0] - fresh[2])) > 1e-3
    assert len(np.unique(fresh[0], axis=0)) > 0.9 * n
    inputs["temperature"] = np.zeros(n, np.float32)
    cold = run("sample", **inputs)["x"]
    expected = flow.bijector.quantize(flow.decode(np.zeros((n, *flow.base.event_shape), np.float32), rows(context, n)))
    np.testing.assert_allclose(cold, expected, atol=1.0 if flow.bijector.is_discrete else 1e-3)


@pytest.mark.parametrize("format", ["tf_saved_model", "litert"])
def test_samples_have_the_flows_distribution(exported, format):
    """Each number, and the log_prob of all together."""
    flow, _, _, paths = exported("StudentT")
    run = export.runner(paths[format])
    n = 4000
    ones = np.ones(n, np.float32)

    def p_value(theirs, ours):
        columns = [stats.ks_2samp(a, b).pvalue for a, b in zip(theirs.T, ours.T, strict=True)]
        together = stats.ks_2samp(flow.log_prob(theirs), flow.log_prob(ours)).pvalue
        return min(*columns, together)

    for seed in range(5):
        theirs = run("sample", seed=np.arange(n, dtype=np.int32) + n * seed, temperature=ones)["x"]
        ours = flow.sample(n, seed=seed).numpy()
        assert p_value(theirs, ours) > 0.01 / (D + 1)
    wrong = run("sample", seed=np.arange(n, dtype=np.int32), temperature=1.2 * ones)["x"]
    assert p_value(wrong, ours) < 1e-4


def test_without_a_seed_every_process_draws_anew(tmp_path):
    keras.utils.set_random_seed(0)  # which an export must not keep
    flow, _ = flow_of(tff.RealNVP(D, n_layers=1, hidden=(4,)))
    flow.export(tmp_path / "flow", verbose=False)
    flow.export(tmp_path / "flow.tflite", "litert", verbose=False)
    code = {
        "flow": "from c_session import CSession\nrun = CSession(sys.argv[1])\n",
        "flow.tflite": "from ai_edge_litert.interpreter import Interpreter\n"
        "one = Interpreter(sys.argv[1]).get_signature_runner('sample')\nrun = lambda _, **inputs: one(**inputs)\n",
    }
    for name, load in code.items():
        draw = (
            f"import sys, numpy as np\nsys.path.insert(0, {str(Path(c_session.__file__).parent)!r})\n{load}"
            "print(run('sample', seed=np.full(3, -1, np.int32), temperature=np.ones(3, np.float32))['x'].tolist())"
        )
        command = [sys.executable, "-c", draw, str(tmp_path / name)]
        first, second = (subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2))
        assert first.startswith("[[")
        assert first != second


@pytest.mark.parametrize(("name", "n"), [("two_moons", 1000), ("alanine_dipeptide", 1000), ("digits", 50)])
def test_what_is_committed_is_what_was_trained(name, n):
    """`saved_models/`, on real data where there are."""
    folder = Path(__file__).parents[1] / "saved_models" / name
    flow = keras.saving.load_model(folder / f"{name}.keras")
    flow.compile(jit_compile=False)  # compiles faster
    context = None
    if name == "two_moons":
        x = tff.datasets.TwoMoons().sample(n, seed=1)
    elif name == "digits":
        data = tff.datasets.digits()
        x, context = data.test[:n], data.test_labels[:n]
    else:
        x = tff.datasets.alanine_dipeptide().test[:n]
    for path in ("1", f"{name}.tflite"):
        for runtime, signature, difference in export.verify(folder / path, flow, x, context):
            assert difference <= command.tolerance(runtime, signature), (runtime, signature)


def test_signatures_are_named(exported):
    loaded = tf.saved_model.load(str(exported("Glow")[3]["tf_saved_model"]))
    names = {
        "log_prob": ({"x", "context"}, {"log_prob"}),
        "serving_default": ({"x", "context"}, {"log_prob"}),
        "sample": ({"seed", "temperature", "context"}, {"x"}),
        "encode": ({"x", "context"}, {"z"}),
        "decode": ({"z", "context"}, {"x"}),
        "interpolate": ({"x0", "x1", "t", "context"}, {"x"}),
    }
    assert set(loaded.signatures) == set(names)
    for name, (inputs, outputs) in names.items():
        signature = loaded.signatures[name]
        specs = signature.structured_input_signature[1]
        assert set(specs) == inputs
        assert all(spec.shape[0] is None for spec in specs.values())
        assert set(signature.structured_outputs) == outputs
        assert all(spec.shape[0] is None for spec in signature.structured_outputs.values())


def test_interpolation_ends_at_the_images(exported):
    _, x, context, paths = exported("Glow")
    run = export.runner(paths["litert"])
    ends = {"x0": x[[0, 0]], "x1": x[[2, 2]], "t": np.float32([0.0, 1.0]), "context": context[[0, 0]]}
    np.testing.assert_allclose(run("interpolate", **ends)["x"], x[[0, 2]], atol=2e-2)


def test_needs_neither_tfflows_nor_tfp(exported):
    _, x, _, paths = exported("RealNVP")
    code = (
        "import sys, numpy as np, tensorflow as tf\n"
        "sys.modules['tfflows'] = sys.modules['tensorflow_probability'] = sys.modules['keras'] = None\n"
        f"flow = tf.saved_model.load({str(paths['tf_saved_model'])!r})\n"
        f"print(float(flow.signatures['log_prob'](x=tf.constant({x[:1].tolist()!r}))['log_prob'][0]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout.split()[-1]) == pytest.approx(float(exported("RealNVP")[0].log_prob(x[:1])[0]), rel=1e-5)


def test_the_c_library_loads_what_python_wrote(exported):
    """In a process that never imports tensorflow: every signature, in several threads."""
    paths = exported("StudentT")[3]
    code = (
        "import sys, numpy as np\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        f"sys.path.insert(0, {str(Path(c_session.__file__).parent)!r})\n"
        "from c_session import CSession\n"
        f"run = CSession({str(paths['tf_saved_model'])!r})\n"
        "seeds, ones = np.arange(50, dtype=np.int32), np.ones(50, np.float32)\n"
        "drawn = run('sample', seed=seeds, temperature=ones)['x']\n"
        "for values in ThreadPoolExecutor(8).map(lambda _: run('encode', x=drawn)['z'], range(50)):\n"
        "    assert np.abs(run('decode', z=values)['x'] - drawn).max() < 1e-3\n"
        "assert 'tensorflow' not in sys.modules and 'tfflows' not in sys.modules\n"
        "print(sorted(run.signatures), float(drawn.sum()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *names, total = done.stdout.split()
    assert len(names) == 5
    inputs = {"seed": np.arange(50, dtype=np.int32), "temperature": np.ones(50, np.float32)}
    assert float(total) == pytest.approx(
        export.runner(paths["tf_saved_model"])("sample", **inputs)["x"].sum(), rel=1e-4
    )


@pytest.mark.parametrize(
    ("signature", "inputs", "message"),
    [
        ("density", {"x": np.zeros((2, D))}, "Expected a signature of"),
        ("log_prob", {"y": np.zeros((2, D))}, r"Expected inputs \['x'\]"),
        ("log_prob", {"x": np.zeros((2, D + 1))}, r"\[2,5\]"),
        ("log_prob", {"x": np.zeros((2, 1))}, r"\[2,1\]"),  # it would be spread over the columns
    ],
)
def test_the_c_library_refuses(exported, signature, inputs, message):
    run = CSession(exported("RealNVP")[3]["tf_saved_model"])
    with pytest.raises(ValueError, match=message):
        run(signature, **inputs)


def test_verify_finds_what_differs(exported, tmp_path, monkeypatch, capsys):
    flow, x, _, paths = exported("RealNVP")
    flow.save(tmp_path / "flow.keras")
    np.save(tmp_path / "x.npy", x)

    def status(path, *more):
        names = ["tfflows.export", str(path), str(tmp_path / "flow.keras"), str(tmp_path / "x.npy"), *more]
        monkeypatch.setattr(sys, "argv", names)
        try:
            runpy.run_module("tfflows.export", run_name="__main__")
        except SystemExit as end:
            return end.code
        return 0

    assert status(paths["litert"]) == 0
    assert capsys.readouterr().out.count("LiteRT") == 3
    assert status(paths["litert"], "--tolerance", "0") == 1
    assert "MORE than 0" in capsys.readouterr().out
    assert status(tmp_path / "nothing") == 2
    assert "Expected a SavedModel's folder or a TFLite file" in capsys.readouterr().err
    other, _ = flow_of(tff.RealNVP(D, n_layers=2, hidden=(8,)))
    randomise(other.bijector, scale=0.11)
    for path in paths.values():
        assert all(one.difference > 1e-3 for one in export.verify(path, other, x))
    np.save(tmp_path / "x.npy", x[:, :2])
    assert status(paths["litert"]) == 2


def test_only_builtin_operations(exported, monkeypatch):
    content = exported("RealNVP")[3]["litert"].read_bytes()
    used = export.operations(content)
    assert used["FULLY_CONNECTED"] >= 3 * 2 * 2  # log_prob, encode, decode: two nets of two layers
    assert set(used) <= set(litert._builtin().values())
    # A converter that let one pass.
    monkeypatch.setattr(litert, "operations", lambda content: {"ADD": 1, "FlexErfinv": 1})
    with pytest.raises(ValueError, match=r"got FlexErfinv\."):
        export.tflite(exported("RealNVP")[0])


def test_each_weight_is_stored_once(tmp_path):
    flow, _ = flow_of(tff.RealNVP(D, n_layers=2, hidden=(128, 128)))
    flow.export(tmp_path / "flow", verbose=False)
    stored = sum(file.stat().st_size for file in (tmp_path / "flow" / "variables").glob("*.data*"))
    assert stored <= 1.1 * 4 * flow.count_params()


def test_nothing_is_lost_when_an_export_fails(tmp_path, monkeypatch):
    flow, x = flow_of(tff.RealNVP(D, n_layers=1, hidden=(4,)))
    path = tmp_path / "flow"
    flow.export(path, verbose=False)
    before = sorted(p.name for p in tmp_path.rglob("*"))
    with pytest.raises(ValueError, match="overwrite=True"):
        flow.export(path)

    def crash(*args):
        raise RuntimeError("out of disk")

    with monkeypatch.context() as patch:
        patch.setattr(export.writing, "_write_saved_model", crash)
        with pytest.raises(RuntimeError):
            flow.export(path, overwrite=True)
    assert sorted(p.name for p in tmp_path.rglob("*")) == before
    assert export.verify(path, flow, x)[0].difference < 1e-5
    randomise(flow.bijector, scale=0.2, seed=5)
    flow.export(path, overwrite=True, verbose=False)
    assert export.verify(path, flow, x)[0].difference < 1e-5
    for arguments, message in (
        ({"format": "onnx"}, "Expected a format"),
        ({"format": "litert", "weights": "int4"}, "Expected weights"),
        ({"format": "litert", "batch_size": 0}, "batch_size >= 1"),
    ):
        with pytest.raises(ValueError, match=message):
            flow.export(tmp_path / "other", **arguments)
    assert not (tmp_path / "other").exists()


def test_a_refused_export_leaves_nothing_behind(tmp_path, monkeypatch):
    flow, x = flow_of(tff.RealNVP(D, n_layers=1, hidden=(4,)))
    thesis = tmp_path / "folder" / "thesis.tex"
    thesis.parent.mkdir()
    thesis.write_text("years of work")
    refused = [
        (tmp_path / "folder", "litert", "which is none"),
        (tmp_path / "folder", "tf_saved_model", "which is none"),
        (tmp_path / "new" / "flow.tflite", "tf_saved_model", "for a .tflite file"),
        ("gs://bucket/flow", "tf_saved_model", "path of this machine"),
    ]
    for path, format, message in refused:
        with pytest.raises(ValueError, match=message):
            flow.export(path, format, overwrite=True)
    with policy("float64"):
        wide, _ = flow_of(tff.RealNVP(D, n_layers=1, hidden=(4,)))
    with pytest.raises(ValueError, match="Expected a float32 flow"):
        wide.export(tmp_path / "new" / "flow.tflite", "litert")
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "thesis.tex"]

    flow.export(tmp_path / "flow", verbose=False)

    def interrupted(*paths):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(atomic, "_swap", interrupted)
        with pytest.raises(KeyboardInterrupt):
            flow.export(tmp_path / "flow", overwrite=True)
    assert export.verify(tmp_path / "flow", flow, x)[0].difference < 1e-5


def test_rows_must_be_equally_many(exported):
    run = CSession(exported("RealNVP")[3]["tf_saved_model"])
    with pytest.raises(ValueError, match="as many rows of temperature as of seed"):
        run("sample", seed=[1], temperature=np.ones(5))
    _, x, context, paths = exported("Glow")
    ends = {"x0": x[:5], "x1": x[:3], "t": np.zeros(4, np.float32), "context": context[:5]}
    for path in paths.values():
        with pytest.raises((ValueError, RuntimeError, tf.errors.InvalidArgumentError)):
            export.runner(path)("interpolate", **ends)


@pytest.mark.parametrize(
    ("got", "expected", "difference"),
    [
        ([1.0, np.nan], [1.0, 2.0], np.inf),
        ([1.0, np.nan], [1.0, np.nan], np.inf),
        ([1.0, -np.inf], [1.0, -np.inf], 0.0),
        ([1.0, np.inf], [1.0, -np.inf], np.inf),
        ([1.0, 102.0], [1.0, 100.0], 0.02),
        ([1.0], [1.0, 1.0], np.inf),
    ],
)
def test_nan_is_a_difference(got, expected, difference):
    assert parity._difference(np.array(got), np.array(expected)) == pytest.approx(difference)


def test_smaller_weights_and_a_fixed_batch(tmp_path, capsys):
    flow, x = flow_of(tff.RealNVP(D, n_layers=1, hidden=(256, 256)))
    sizes = {}
    for weights in ("float32", "float16", "int8"):
        flow.export(tmp_path / weights, "litert", weights=weights)
        sizes[weights] = (tmp_path / weights).stat().st_size
        assert export.verify(tmp_path / weights, flow, x)[0].difference < 0.05
    printed = capsys.readouterr().out
    assert printed.count("nats") == 2
    assert sizes["float16"] < 0.75 * sizes["float32"]
    assert sizes["int8"] < 0.6 * sizes["float32"]
    flow.export(tmp_path / "fixed.tflite", "litert", batch_size=3, weights="float16")
    assert "log_prob of 999 draws of the flow changes by" in capsys.readouterr().out
    flow.export(tmp_path / "fixed.tflite", "litert", batch_size=3, verbose=False, overwrite=True)
    assert export.verify(tmp_path / "fixed.tflite", flow, x[:3])[0].difference < 1e-4


def test_mixtures_are_exported_too(tmp_path):
    flows = [FlowModel(tff.RealNVP(2, n_layers=1, hidden=(4,))) for _ in range(2)]
    mixture = FlowMixture(flows)
    rng = np.random.default_rng(0)
    for flow, centre in zip(flows, (-20.0, 20.0), strict=True):
        flow.adapt(rng.normal(centre, 1.0, (500, 2)))
    mixture.logits.value.assign([np.log(3.0), 0.0])
    mixture.export(tmp_path / "mixture", verbose=False)
    x = rng.normal(-20.0, 1.0, (50, 2)).astype(np.float32)
    assert export.verify(tmp_path / "mixture", mixture, x)[0].difference < 1e-5
    n = 4000
    draws = export.runner(tmp_path / "mixture")(
        "sample", seed=np.arange(n, dtype=np.int32), temperature=np.ones(n, np.float32)
    )["x"]
    assert np.mean(draws[:, 0] < 0.0) == pytest.approx(0.75, abs=0.03)
    np.testing.assert_allclose(np.std(draws[draws[:, 0] < 0.0], axis=0), 1.0, atol=0.1)


def test_a_stock_base_is_refused(tmp_path):
    import tensorflow_probability as tfp

    base = tfp.distributions.MultivariateNormalDiag(np.zeros(2, np.float32), np.ones(2, np.float32))
    flow = FlowModel(tff.RealNVP(2, n_layers=1, hidden=(4,)), base)
    with pytest.raises(ValueError, match="got a stock TFP"):
        flow.export(tmp_path / "flow")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "base",
    [
        lambda: bases.StandardNormal(3),
        lambda: bases.DiagonalNormal((3, 1)),
        lambda: bases.StudentT(3, df=4.0),
        lambda: bases.MixtureOfNormals(3, n_components=2),
        lambda: bases.UniformBox(3, -1.0, 4.0),
    ],
)
def test_draws_from_uniform_numbers_have_the_bases_distribution(base):
    base = base()
    n = 20_000
    temperature = tf.fill([n], 0.8)
    z = base.from_uniform(seeded_uniform(tf.range(n), base.n_uniform), temperature)
    expected = base.sample([n], tf.constant([3, 4]), 0.8)
    assert z.shape == expected.shape
    for a, b in zip(np.reshape(z, (n, -1)).T, np.reshape(expected, (n, -1)).T, strict=True):
        assert stats.ks_2samp(a, b).pvalue > 1e-3


def test_seeded_numbers_are_uniform_and_independent():
    u = seeded_uniform(tf.range(20_000), 8).numpy()
    assert u.min() > 0.0
    assert u.max() < 1.0
    assert stats.kstest(u.ravel(), "uniform").pvalue > 1e-3
    # Between places, between neighbouring seeds, and between streams: 160,000 products of variance 1 / 144.
    v = u - 0.5
    other = seeded_uniform(tf.range(20_000), 8, stream=1).numpy() - 0.5
    for product in (v[:, :-1] * v[:, 1:], v[:-1] * v[1:], v * other):
        assert abs(product.mean()) < 4.0 / 12.0 / np.sqrt(product.size)


def test_float64_flows_are_exported_as_such(tmp_path):
    with policy("float64"):
        flow, x = flow_of(tff.RealNVP(2, n_layers=1, hidden=(4,)))
    flow.export(str(tmp_path / "flow"), format="tf_saved_model", verbose=False)
    assert export.verify(tmp_path / "flow", flow, x)[0].difference < 1e-12
