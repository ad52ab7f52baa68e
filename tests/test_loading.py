"""Files from strangers: what is known against Keras' loader, and what else one may try, ends in a ValueError."""

import contextlib
import copy
import io
import json
import os
import pickle
import resource
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

import tfflows as tff
from tfflows.loading.weights import count
from tfflows.serialization import deserialize, serialize

ROOT = Path(__file__).parents[1]
LOOK = ROOT / "tfflows" / "loading" / "hdf5.py"
NOT_A_PLACE = "/nowhere/secret"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The members of a small file of a flow with a context net."""
    x = keras.Input((4,))
    net = keras.Model(x, keras.layers.Dense(2)(keras.layers.Dense(3, "tanh")(x * 2.0)))
    flow = tff.FlowModel(tff.RealNVP(2, n_layers=1, hidden=(3,), context_dim=2), context_net=net)
    flow.compile()
    path = tmp_path_factory.mktemp("saved") / "flow.keras"
    flow.save(path)
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}, flow


def written(path, members, how=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", how) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


@pytest.fixture
def refused(saved, tmp_path):
    """A function that writes a file with another config or other weights, and returns the error."""

    def load(config=None, weights=None, match="Expected", net=None):
        members = dict(saved[0])
        if net is not None:
            config = json.loads(members["config.json"])
            config["config"]["context_net"] = net
        if config is not None:
            members["config.json"] = config if isinstance(config, (bytes, str)) else json.dumps(config)
        if weights is not None:
            members["model.weights.h5"] = weights
        path = written(tmp_path / "changed.keras", members.items())
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(ValueError, match=match):
            tff.load_model(path)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 1_000_000  # kB; what was asked for is more

    return load


def test_the_same_flow_comes_back(saved, tmp_path):
    members, flow = saved
    again = tff.load_model(written(tmp_path / "flow.keras", members.items()))
    x, c = np.zeros((3, 2), np.float32), np.ones((3, 4), np.float32)
    np.testing.assert_array_equal(again.log_prob(x, c), flow.log_prob(x, c))
    assert again.compiled
    assert not tff.load_model(tmp_path / "flow.keras", compile=False).compiled
    deflated = written(tmp_path / "small.keras", members.items(), zipfile.ZIP_DEFLATED)
    np.testing.assert_array_equal(tff.load_model(deflated).log_prob(x, c), flow.log_prob(x, c))


@pytest.mark.parametrize("name", ["two_moons", "point_clouds", "alanine_dipeptide"])
def test_files_that_ship_are_loaded(name):
    path = ROOT / "saved_models" / name / f"{name}.keras"
    for ours, theirs in zip(tff.load_model(path).weights, keras.saving.load_model(path).weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_optimizers_may_have_many_variables(tmp_path):
    """Five for each weight, which the file of a model that was never fitted has not."""
    flow = tff.FlowModel(tff.RealNVP(2, n_layers=1, hidden=(200, 200)))
    optimizer = keras.optimizers.Adam(amsgrad=True, use_ema=True, gradient_accumulation_steps=2)
    flow.compile(optimizer, jit_compile=False)
    flow.save(tmp_path / "flow.keras")
    assert len(tff.load_model(tmp_path / "flow.keras").optimizer.variables) > 5 * len(flow.trainable_weights)


def test_registered_parts_of_users_are_loaded(saved, tmp_path):
    @keras.saving.register_keras_serializable("test_loading")
    class Doubled(keras.layers.Layer):
        def call(self, x):
            return 2.0 * x

    flow = tff.FlowModel(tff.NICE(2, n_layers=1, hidden=(3,), context_dim=2), context_net=Doubled(), context_shape=(2,))
    flow.save(tmp_path / "flow.keras")
    assert isinstance(tff.load_model(tmp_path / "flow.keras").context_net, Doubled)


# What has been found against `keras.saving.load_model`, whatever version of Keras is installed.


def layer(kind, room="keras.layers", /, **config):
    return {"module": room, "class_name": kind, "config": config, "registered_name": None}


def function(name, module):
    return {"module": module, "class_name": "function", "config": name, "registered_name": name}


CODE = {"class_name": "__lambda__", "config": {"value": "4wEAAAAAAAAA"}}
# Keras looks at some names before what is registered, and at nothing else in layers without a module.
DISGUISE = {"registered_name": "tfflows>FlowModel"}
OLD = {"class_name": "Lambda", "config": {"name": "l", "function": ["4wEAAAAAAAAA", None, None], "arguments": {}}}
NETS = {
    "CVE-2024-3660, a lambda": layer("Lambda", function=CODE, name="l"),
    "CVE-2025-1550, a module": {
        "module": "os",
        "class_name": "function",
        "config": "system",
        "registered_name": "system",
    },
    "CVE-2025-1550, in a layer": layer("Dense", units=2, activation=function("run", "subprocess")),
    "CVE-2025-8747, a download": layer(
        "Lambda", function=function("get_file", "keras.utils"), arguments={"origin": "x"}
    ),
    "CVE-2025-8747, as activation": layer("Dense", units=2, activation=function("get_file", "keras.utils")),
    "CVE-2025-9906, safe mode off": function("enable_unsafe_deserialization", "keras.config"),
    "CVE-2025-49655, pickled torch": layer("TorchModuleWrapper", module={"class_name": "x", "config": {}}),
    "CVE-2025-12058, a vocabulary": layer("StringLookup", vocabulary=NOT_A_PLACE),
    "CVE-2026-1462, a SavedModel": layer("TFSMLayer", filepath=NOT_A_PLACE, call_endpoint="serve"),
    "a vocabulary of numbers": layer("IntegerLookup", vocabulary=NOT_A_PLACE),
    "a vocabulary of text": layer("TextVectorization", vocabulary=NOT_A_PLACE),
    "a SavedModel's graph": layer("TFSMLayer", filepath=NOT_A_PLACE),
    "code of jax": layer("JaxLayer", call_fn=CODE),
    "an initializer's loader": layer("Dense", units=2, activation=function("deserialize", "builtins")),
    "eval": layer("Dense", units=2, activation=function("eval", "builtins")),
    "a private class": layer("SafeModeScope", "keras.src.saving.serialization_lib", safe_mode=False),
    "a class of a class": layer("_LayerMetaclass", "keras.src.layers.layer"),
    "a layer of another package": layer("Layer", "keras_hub.layers"),
    "a type of TensorFlow": {
        "class_name": "__typespec__",
        "config": [],
        "spec_name": "x",
        "module": "os",
        "registered_name": None,
    },
    "in the weights' start": layer("Dense", units=2, kernel_initializer=layer("Lambda", function=CODE)),
    "in a list of layers": layer("Sequential", "keras", layers=[layer("Lambda", function=CODE)]),
    "a lambda by a registered name": {**CODE, **DISGUISE, "module": None},
    "a lambda by a registered name, as activation": layer("Dense", units=2, activation={**CODE, **DISGUISE}),
    "a layer of old, by a registered name": layer("Sequential", "keras", layers=[{**OLD, **DISGUISE}]),
    "a vocabulary of old": layer(
        "Sequential",
        "keras",
        layers=[{**DISGUISE, "class_name": "StringLookup", "config": {"vocabulary": NOT_A_PLACE}}],
    ),
    "a type by a registered name": {"class_name": "__typespec__", "config": [], "module": None, **DISGUISE},
    "an array of objects": layer("Dense", units={"array": ["x"], "dtype": "object"}),
    "an array of long texts": layer("Dense", units={"array": ["x"], "dtype": "S1000000000"}),
    "a tensor of texts": layer(
        "Dense", units={"class_name": "__tensor__", "config": {"value": ["x"], "dtype": "string"}}
    ),
    "functions of TFP": {"tfp_class": "tfb.Inline", "parameters": {}},
    "a model of TFP": {"tfp_class": "tfd.JointDistributionCoroutine", "parameters": {"model": CODE}},
    "not TFP": {"tfp_class": "tfb.os.system", "parameters": {}},
}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("unsafe", [False, True])
def test_code_in_configs_is_refused(name, unsafe, refused, monkeypatch):
    if unsafe:
        keras.config.enable_unsafe_deserialization()
    try:
        refused(net=NETS[name], match="Expected (classes|activations|an array|a public class|the names|the module)")
    finally:
        keras.src.saving.serialization_lib.SafeModeScope(None).__enter__()


def test_keras_own_loader_refuses_what_is_in_our_parts():
    for config in (NETS["an array of objects"], NETS["an array of long texts"], NETS["functions of TFP"]):
        with pytest.raises(ValueError, match="Expected"):
            deserialize(config["config"]["units"] if "config" in config else config)
    with pytest.raises(ValueError, match="Expected"):
        deserialize({"dtype_name": "resource"})


def changed(saved, change):
    config = json.loads(saved[0]["config.json"])
    config = copy.deepcopy(config)
    change(config["config"], config["config"]["bijector"]["config"]["bijectors"])
    return config


SIZES = {
    "a wide net": lambda c, b: coupling_net(b).update(hidden=[10**9]),
    "a product of widths": lambda c, b: coupling_net(b).update(hidden=[60_000, 60_000]),
    "many outputs": lambda c, b: coupling_net(b).update(n_outputs=2**40),
    "a base": lambda c, b: c["base"]["config"].update(event_shape=[65_000, 65_000]),
    "a rotation": lambda c, b: b.append(ours("RandomRotation", "linear", event_shape=50_000, seed=0)),
    "a matrix": lambda c, b: b.append(ours("LU", "linear", event_shape=50_000)),
    "a Student base": lambda c, b: c.update(
        base={**ours("StudentT", "student", event_shape=[16, 1_000_000], df=3.0, learned=True)}
    ),
    "many layers": lambda c, b: b.extend([b[-1]] * 2000),
    "very many layers": lambda c, b: b.extend([ours("Permutation", "linear", permutation=[1, 0])] * 20_000),
    "a batch": lambda c, b: c["context_net"]["config"]["layers"][0]["config"].update(batch_shape=[10**12, 4]),
    "an embedding": lambda c, b: c.update(context_net=layer("Embedding", input_dim=60_000, output_dim=60_000)),
}
TYPES = {
    "a text for widths": lambda c, b: coupling_net(b).update(hidden="many"),
    "a number for a net": lambda c, b: b[-1]["config"].update(net=3),
    "a list for a model": lambda c, b: c.update(bijector=[1, 2]),
    "nothing for a bijector": lambda c, b: c.update(bijector=None),
    "another argument": lambda c, b: c.update(anything=3),
    "none left": lambda c, b: b.clear(),
    "a negative width": lambda c, b: coupling_net(b).update(hidden=[-3]),
    "no number": lambda c, b: coupling_net(b).update(n_outputs=float("nan")),
    "a schema of numbers": lambda c, b: c.update(schema={"a": 1}),
    "a call of no input": lambda c, b: c["context_net"]["config"]["layers"][-1].update(inbound_nodes=[{"args": [3]}]),
}


def ours(name, module, **config):
    package = "bases" if module == "student" else "bijectors"
    names = {"module": f"tfflows.{package}.{module}", "class_name": name, "registered_name": f"tfflows>{name}"}
    return {**names, "config": config}


def coupling_net(parts):
    return next(part["config"]["net"]["config"] for part in parts if part["class_name"] == "Coupling")


@pytest.mark.parametrize("name", [*SIZES, *TYPES])
def test_absurd_sizes_and_types_are_refused_before_they_take_memory(name, saved, refused):
    refused(config=changed(saved, (SIZES | TYPES)[name]))


@pytest.mark.parametrize(
    "config",
    ["", "{", "[]", "null", "3", '"x"', "[" * 100_000, '{"class_name":' * 5_000, b"\xff\xfe", "{}"],
    ids=range(10),
)
def test_configs_that_are_none(config, refused):
    refused(config=config)


def hdf5(write):
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        write(file)
    return content.getvalue()


def _virtual(file):
    layout = h5py.VirtualLayout(shape=(4,), dtype="f4")
    layout[:] = h5py.VirtualSource(NOT_A_PLACE, "x", shape=(4,))
    file.create_virtual_dataset("x", layout)


WEIGHTS = {
    "CVE-2026-1669, another file's": lambda f: f.create_dataset("x", (4,), "f4", external=[(NOT_A_PLACE, 0, 16)]),
    "a link to another file": lambda f: f.__setitem__("x", h5py.ExternalLink(NOT_A_PLACE, "/")),
    "a link": lambda f: f.__setitem__("x", h5py.SoftLink("/y")),
    "itself": lambda f: f.__setitem__("x", f["/"]),
    "a virtual one": _virtual,
    "CVE-2026-0897, a shape": lambda f: f.create_dataset(
        "x", (10**6, 10**6), "f4", chunks=(1, 10**6), compression="gzip"
    ),
    "compressed zeros": lambda f: f.create_dataset("x", data=np.zeros(10**6), compression="gzip"),
    "a chunk far larger": lambda f: f.create_dataset(
        "x", data=np.zeros(4), maxshape=(None,), chunks=(2**20,), compression="gzip"
    ),
    "a shape alone": lambda f: f.create_dataset("x", (10**6, 10**6), "f4"),
    "texts": lambda f: f.__setitem__("x", ["a", "b"]),
    "pickles": lambda f: f.__setitem__("x", np.void(pickle.dumps(os.system))),
    "a type": lambda f: f.__setitem__("x", np.dtype("f4")),
    "an empty one": lambda f: f.create_dataset("x", dtype="f4"),
    "none": lambda f: None,
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_that_are_not_plain_numbers(name, refused):
    refused(weights=hdf5(WEIGHTS[name]))


@pytest.mark.parametrize("content", [b"", b"no HDF5", pickle.dumps([1])])
def test_weights_that_are_none(content, refused):
    refused(weights=content, match="HDF5")


def test_weights_that_lead_hdf5_in_circles(refused):
    """Found by fuzzing: a group without end, which HDF5 lists until it has all memory."""
    refused(weights=(ROOT / "tests" / "fuzz" / "corpus" / "weights_in_circles.h5").read_bytes(), match="(memory|fails)")


def test_weights_are_looked_through_wherever_python_runs(saved, monkeypatch, refused):
    weights = saved[0]["model.weights.h5"]
    expected = count(weights)
    bad = hdf5(WEIGHTS["a shape alone"])
    for name, value in (("executable", None), ("executable", ""), ("frozen", True)):
        with monkeypatch.context() as patch:
            patch.setattr(sys, name, value, raising=False)
            assert count(weights) == expected
            refused(weights=bad, match="stored whole")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/nowhere/python")
        with pytest.raises(ValueError, match=r"fails.*/nowhere/python"):
            count(weights)
    # A limit that a system does not know, and what takes more than the limit before there is one.
    code = "import numpy, resource, runpy, sys; kept = numpy.ones(2**28); {}; sys.argv = ['x', sys.argv[1]]; "
    code += f"runpy.run_path({str(LOOK)!r}, run_name='__main__')"
    fails = "def fails(*a): raise ValueError\nresource.setrlimit = fails"
    for line in ("pass", f"exec({fails!r})"):
        command = [sys.executable, "-c", code.format(line), str(len(weights))]
        done = subprocess.run(command, input=weights, capture_output=True, check=True)
        assert json.loads(done.stdout)["n_numbers"] == expected[0]


def _link(name):
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


ARCHIVES = {
    "a way out": lambda m: [*m.items(), ("../../evil", b"x")],
    "an absolute way": lambda m: [*m.items(), ("/etc/evil", b"x")],
    "assets": lambda m: [*m.items(), ("assets/a/b", b"x")],
    "a link": lambda m: [(_link("config.json"), b"/etc/passwd"), *[x for x in m.items() if x[0] != "config.json"]],
    "none of the weights": lambda m: [x for x in m.items() if "h5" not in x[0]],
    "arrays of NumPy": lambda m: [("model.weights.npz", b"") if "h5" in x[0] else x for x in m.items()],
    "nothing": lambda m: [],
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_archives_with_something_else_in_them(saved, tmp_path):
    members = saved[0]
    for other in [*(make(members) for make in ARCHIVES.values()), [*members.items(), ("config.json", b"{}")]]:
        with pytest.raises(ValueError, match="Expected"):
            tff.load_model(written(tmp_path / "a.keras", other))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.keras"]


@pytest.mark.parametrize("member", ["config.json", "model.weights.h5", "metadata.json"])
def test_bombs(member, saved, tmp_path):
    members = {**saved[0], member: b" " * 20_000_000}
    with pytest.raises(ValueError, match=r"Expected at most .* bytes"):
        tff.load_model(written(tmp_path / "bomb.keras", members.items(), zipfile.ZIP_DEFLATED))


def test_cut_off_and_damaged_files(saved, tmp_path):
    path = written(tmp_path / "flow.keras", saved[0].items())
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for n in rng.integers(0, len(whole), 40):
        path.write_bytes(whole[:n])
        with pytest.raises(ValueError, match="Expected"):
            tff.load_model(path)
    for at in rng.integers(0, len(whole), 40):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        with contextlib.suppress(ValueError):  # and no other error; a date in the archive may be any
            tff.load_model(path)


def test_paths_and_limits(saved, tmp_path):
    path = written(tmp_path / "flow.keras", saved[0].items())
    with pytest.raises(ValueError, match="at most 1,000 bytes"):
        tff.load_model(path, max_bytes=1000)
    with pytest.raises(ValueError, match="max_bytes > 0"):
        tff.load_model(path, max_bytes=0)
    with pytest.raises(ValueError, match="does not exist"):
        tff.load_model(tmp_path / "none.keras")
    with pytest.raises(ValueError, match="is none"):
        tff.load_model(tmp_path)
    for name in ("flow.h5", "flow.pkl", "flow"):  # CVE-2025-9905: the old format, where safe mode meant nothing
        (tmp_path / name).write_bytes(path.read_bytes())
        with pytest.raises(ValueError, match=r"\.keras file"):
            tff.load_model(tmp_path / name)


def test_stock_parts_that_take_functions_are_not_saved_either():
    import tensorflow_probability as tfp

    with pytest.raises(ValueError, match="Expected"):
        serialize(tfp.bijectors.Inline(forward_fn=np.exp, inverse_fn=np.log, forward_min_event_ndims=0))
