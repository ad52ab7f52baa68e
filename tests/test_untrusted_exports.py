"""Exports from strangers: what is no plain calculation, or damaged, ends in a ValueError before it is loaded."""

import importlib
import shutil
from pathlib import Path

import flatbuffers
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2, tensor_pb2, types_pb2
from tensorflow.core.protobuf import saved_model_pb2, tensor_bundle_pb2

from tfflows import export
from tfflows.export import checking, checking_variables

ROOT = Path(__file__).parents[1] / "saved_models" / "two_moons"
X = np.zeros((3, 2), np.float32)


@pytest.fixture
def refused(tmp_path):
    """A function that changes a SavedModel, whose graph is `change`'s argument, and returns the error."""

    def load(change=None, folder=None, match="Expected a SavedModel"):
        path = tmp_path / "export"
        shutil.copytree(ROOT / "1", path)
        if change is not None:
            model = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
            change(model.meta_graphs[0])
            (path / "saved_model.pb").write_bytes(model.SerializeToString())
        if folder is not None:
            folder(path)
        with pytest.raises(ValueError, match=match):
            export.runner(path)

    return load


def used(graph):
    """The nodes of a function that a signature calls."""
    name = next(node for node in graph.graph_def.node if node.op == "StatefulPartitionedCall").attr["f"].func.name
    return next(f for f in graph.graph_def.library.function if f.signature.name == name).node_def


def operation(name):
    def change(graph):
        used(graph).add(op=name, name="more")

    return change


def saving(graph):
    return next(node for node in graph.graph_def.node if node.name == graph.saver_def.save_tensor_name.split(":")[0])


def call_saving(graph):
    used(graph).add(op="PartitionedCall", name="more").attr["f"].func.name = saving(graph).attr["f"].func.name


def constant_path(graph):
    graph.graph_def.node.add(op="Const", name="path")
    saving(graph).input[0] = "path"


def save_as_signature(graph):
    next(iter(graph.signature_def["log_prob"].outputs.values())).name = graph.saver_def.save_tensor_name


def restored_path(graph):
    next(node for node in graph.graph_def.node if node.name == "saver_filename").op = "Const"


CHANGES = {
    **{
        name: operation(name)
        for name in (
            "ReadFile",
            "WriteFile",
            "MatchingFiles",
            "SaveV2",
            "PyFunc",
            "EagerPyFunc",
            "PyFuncStateless",
            "Abort",
        )
    },
    **{
        name: operation(name)
        for name in (
            "ImmutableConst",
            "DebugIdentityV2",
            "RpcCall",
            "TFRecordDataset",
            "HashTableV2",
            "PrintV2",
            "Nothing",
        )
    },
    "saving, called": call_saving,
    "saving elsewhere": constant_path,
    "saving, as a signature": save_as_signature,
    "restoring from elsewhere": restored_path,
    "an asset": lambda g: g.asset_file_def.add(filename="../../x"),
    "an object of a library": lambda g: setattr(
        g.object_graph_def.nodes[0].user_object, "identifier", "_tf_keras_model"
    ),
    "a table": lambda g: g.object_graph_def.nodes.add().resource.SetInParent(),
    "a constant as an object": lambda g: setattr(g.object_graph_def.nodes.add().constant, "operation", "x"),
    "a saver of its own": lambda g: setattr(g.object_graph_def.nodes[0], "registered_saver", "x"),
    "a large variable": lambda g: setattr(variable(g).shape.dim[0], "size", 10**12),
    "a negative variable": lambda g: setattr(variable(g).shape.dim[0], "size", -5),
}


def variable(graph):
    found = (node.variable for node in graph.object_graph_def.nodes if node.WhichOneof("kind") == "variable")
    return next(v for v in found if len(v.shape.dim))


@pytest.mark.parametrize("name", CHANGES)
def test_graphs_that_do_more_than_calculate(name, refused):
    refused(CHANGES[name])


def nodes(graph, op):
    """Those of functions, in order: (the function's nodes, the node)."""
    return ((f.node_def, node) for f in graph.graph_def.library.function for node in f.node_def if node.op == op)


def float_bounds(graph):
    """TensorFlow's functions that infer shapes end the process here."""
    for others, node in nodes(graph, "StridedSlice"):
        for constant in others:
            if constant.op == "Const" and constant.name == node.input[1].split(":")[0]:
                constant.attr["dtype"].type = constant.attr["value"].tensor.dtype = types_pb2.DT_FLOAT
                return


def half_constant(graph):
    next(nodes(graph, "Const"))[1].attr["dtype"].type = types_pb2.DT_HALF


def more(graph, **attributes):
    attributes = {name: attr_value_pb2.AttrValue(**value) for name, value in attributes.items()}
    return used(graph).add(op="Split", name="more", attr=attributes)


def constants(graph, n=1, shape=(), **values):
    """Adds `n` constants whose values are stored as said, one float by default."""
    for i in range(n):
        node = used(graph).add(op="Const", name=f"more{i}")
        tensor = node.attr["value"].tensor
        tensor.MergeFrom(tensor_pb2.TensorProto(**{"dtype": types_pb2.DT_FLOAT, "float_val": [1.0]} | values))
        for size in shape:
            tensor.tensor_shape.dim.add(size=size)
        node.attr["dtype"].type = tensor.dtype


def constant_in_a_list(graph):
    constants(graph, shape=[8 * 10**8])
    node = used(graph)[-1]
    node.attr["more"].list.tensor.add().CopyFrom(node.attr["value"].tensor)
    del node.attr["value"].tensor.tensor_shape.dim[:]


def constant_bound_of_an_argument(graph):
    """Far from all nodes: of the types of what a function takes."""
    node = next(n for n in graph.object_graph_def.nodes if n.WhichOneof("kind") == "bare_concrete_function")
    bound = node.bare_concrete_function.function_spec.fullargspec.bounded_tensor_spec_value.minimum
    bound.dtype = types_pb2.DT_FLOAT
    bound.tensor_shape.dim.add(size=8 * 10**8)


LARGE = [8 * 10**8]
TOO_LARGE = {
    "a constant of 3,200,000,000 bytes in": lambda g: constants(g, shape=LARGE),
    "a constant of 1,048,580 bytes in": lambda g: constants(g, shape=[2**18 + 1]),
    "constants of 71,": lambda g: constants(g, 68, shape=[2**18]),
    "a constant of 3,200,000,0": constant_in_a_list,
    "a constant of 3,200,000": constant_bound_of_an_argument,
    r"a constant of shape \[-1\]": lambda g: constants(g, shape=[-1]),
    r"a constant of shape \[1, 1, 1": lambda g: constants(g, shape=[1] * 255),
    "a constant of 85,070": lambda g: constants(g, shape=[0, 2**62, 2**62]),
    r"a constant of shape \[\]": lambda g: constants(g, tensor_shape={"unknown_rank": True}),
    "a constant of 1,024,000,000 bytes": lambda g: constants(
        g, shape=[10**6], dtype=types_pb2.DT_STRING, string_val=[b"x" * 1000]
    ),
    "a constant of type 999": lambda g: constants(g, dtype=999),
    "a constant of resource": lambda g: constants(g, dtype=types_pb2.DT_RESOURCE),
    "a constant of float32_ref": lambda g: constants(g, dtype=types_pb2.DT_FLOAT_REF),
}


@pytest.mark.parametrize("match", TOO_LARGE)
def test_constants_that_are_larger_than_what_is_stored_of_them(match, refused):
    refused(TOO_LARGE[match], match=f"whose parts fit each other; got {match}")


def test_constants_of_moderate_size_are_let_in(tmp_path):
    """TensorFlow stores zeros as one number too."""
    values = np.arange(400_000, dtype=np.float32)

    def f(x):
        small, large = tf.constant(1.0, shape=[500, 500]), tf.constant(values)
        return {"y": x + tf.reduce_sum(small) + large[1]}

    module = tf.Module()
    module.weight = tf.Variable(1.0)
    function = tf.function(f, input_signature=[tf.TensorSpec([None], tf.float32, name="x")], autograph=False)
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures=function)
    found = export.runner(tmp_path / "saved")("serving_default", x=np.zeros(2, np.float32))
    np.testing.assert_array_equal(found["y"], 250_001.0)


MISFITS = {
    "of type 1 in '.*', which takes 3": float_bounds,
    "is said to be of": half_constant,
    "'nothing', which is not there": lambda g: next(nodes(g, "StridedSlice"))[1].input.__setitem__(0, "nothing"),
    "0 inputs of 'more', which takes 2": lambda g: more(g, T={"type": 1}, num_split={"i": 2}),
    "a Split 'more' without T": lambda g: more(g, num_split={"i": 2}),
    "-1 values": lambda g: more(g, T={"type": 1}, num_split={"i": -1}),
    "1000001 values": lambda g: more(g, T={"type": 1}, num_split={"i": 10**6 + 1}),
    "999999 values": lambda g: [more(g, T={"type": 1}, num_split={"i": 999_999}) for _ in range(2)],
    "which takes 9": lambda g: setattr(g.graph_def.library.function[0].signature.output_arg[0], "type", 9),
}


@pytest.mark.parametrize("match", MISFITS)
def test_graphs_whose_parts_do_not_fit(match, refused):
    refused(MISFITS[match], match=f"whose parts fit each other; got .*{match}")


FOLDERS = {
    "no graph": lambda f: (f / "saved_model.pb").unlink(),
    "an empty graph": lambda f: (f / "saved_model.pb").write_bytes(b""),
    "no protocol buffer": lambda f: (f / "saved_model.pb").write_bytes(b"\xff" * 100),
    "a graph cut off": lambda f: (f / "saved_model.pb").write_bytes((f / "saved_model.pb").read_bytes()[:100_000]),
    "another graph": lambda f: (f / "saved_model.cpb").write_bytes(b"x"),
    "no variables": lambda f: shutil.rmtree(f / "variables"),
    "variables cut off": lambda f: cut(next((f / "variables").glob("*data*")), 1000),
    "their index cut off": lambda f: cut(f / "variables" / "variables.index", 100),
    "a link": lambda f: link(f / "variables" / "variables.index"),
}


def test_graphs_of_any_length_are_not_read(refused, monkeypatch):
    monkeypatch.setattr(checking, "MOST_BYTES", 1000)
    refused(match="with a graph of at most 1,000 bytes; got 426,270")


def cut(path, n):
    path.write_bytes(path.read_bytes()[:n])


def link(path):
    path.unlink()
    path.symlink_to(ROOT / "1" / "variables" / "variables.index")


def test_variables_are_looked_at_without_tensorflow(tmp_path, monkeypatch):
    """Its reader ends the process where an entry of the index is odd."""
    monkeypatch.syspath_prepend(Path(__file__).parent / "fuzz")
    table = importlib.import_module("index_of_variables").written
    shutil.copytree(ROOT / "1" / "variables", tmp_path / "variables")
    graph = saved_model_pb2.SavedModel.FromString((ROOT / "1" / "saved_model.pb").read_bytes())
    graph = graph.meta_graphs[0].object_graph_def
    index = tmp_path / "variables" / "variables.index"
    entries = dict(checking_variables.read_table(index.read_bytes()))
    name = next(key for key in entries if key.startswith(b"weights"))
    index.write_bytes(table(entries))
    checking_variables.check_variables(tmp_path, graph)  # what `table` writes is let in, and TensorFlow reads it
    assert tf.train.load_checkpoint(str(tmp_path / "variables" / "variables")).get_variable_to_shape_map()

    whole = tensor_bundle_pb2.BundleEntryProto.FromString(entries[name])
    for match, change in {
        r"a shape of \[-1\]": {"shape": {"dim": [{"size": -1}]}},
        "a variable of .* bytes in": {"shape": {"dim": [{"size": 2**40}]}},
        "variables of resource": {"dtype": types_pb2.DT_RESOURCE},
        "variables of float32_ref": {"dtype": types_pb2.DT_FLOAT_REF},
        "texts": {"dtype": types_pb2.DT_STRING},
        "values that are nowhere": {"shard_id": 1},
        "values beyond the end": {"offset": 2**62},
    }.items():
        entry = tensor_bundle_pb2.BundleEntryProto()
        entry.CopyFrom(whole)
        for field in change:
            entry.ClearField(field)
        entry.MergeFrom(tensor_bundle_pb2.BundleEntryProto(**change))
        index.write_bytes(table(entries | {name: entry.SerializeToString()}))
        with pytest.raises(ValueError, match=match):
            checking_variables.check_variables(tmp_path, graph)
    index.write_bytes(table({key: value for key, value in entries.items() if key}))
    with pytest.raises(ValueError, match="without a header"):
        checking_variables.check_variables(tmp_path, graph)
    index.write_bytes(table(entries | {b"z": b"\xff" * 20}))
    with pytest.raises(Exception, match="pars"):  # protobuf's; `check_saved_model` makes it a ValueError
        checking_variables.check_variables(tmp_path, graph)

    index.write_bytes(table(entries))
    values = tmp_path / "variables" / "variables.data-00000-of-00001"
    text = tensor_bundle_pb2.BundleEntryProto.FromString(entries[checking_variables.OBJECT_GRAPH])
    content = bytearray(values.read_bytes())
    content[text.offset + 1] ^= 0x40  # of the length
    values.write_bytes(content)
    with pytest.raises(ValueError, match="a text of"):
        checking_variables.check_variables(tmp_path, graph)
    for content in (b"", bytes(100), *(table(entries)[:n] for n in (10, 500)), table(entries)[:-8] + bytes(8)):
        index.write_bytes(content)
        with pytest.raises(ValueError, match="an index"):
            checking_variables.check_variables(tmp_path, graph)


@pytest.mark.parametrize("name", FOLDERS)
def test_damaged_folders(name, refused):
    refused(folder=FOLDERS[name])


def test_damaged_tflite_files(tmp_path):
    whole, path = (ROOT / "two_moons.tflite").read_bytes(), tmp_path / "x.tflite"
    rng = np.random.default_rng(0)
    for content in [b"", b"TFL3", bytes(100), *(whole[:n] for n in rng.integers(0, len(whole), 10))]:
        path.write_bytes(content)
        with pytest.raises(ValueError, match="Expected a TFLite file"):
            export.runner(path)
    for _ in range(10):
        changed = bytearray(whole)
        for at in rng.integers(0, 3000, 4):
            changed[at] ^= 0xFF
        path.write_bytes(bytes(changed))
        with pytest.raises(ValueError, match="Expected a TFLite file"):
            export.runner(path)


def test_operations_of_tflite_get_what_they_take(tmp_path):
    """The wrong number of inputs, and the settings of another operation, have ended the process."""
    path = tmp_path / "changed.tflite"
    for name, match in (("STRIDED_SLICE", "2 inputs of STRIDED_SLICE"), ("POW", "the settings SubOptions of POW")):
        model = _unpacked(ROOT / "two_moons.tflite")
        code = next(c for c in model.operatorCodes if c.builtinCode == _schema().BuiltinOperator.SUB)
        code.builtinCode = code.deprecatedBuiltinCode = getattr(_schema().BuiltinOperator, name)
        _pack(model, path)
        with pytest.raises(ValueError, match=match):
            export.runner(path)


def test_counts_in_settings_of_tflite_are_those_of_the_tensors(tmp_path):
    """A split into more parts than it has outputs has ended the process."""
    path, found = tmp_path / "changed.tflite", set()
    model = _unpacked(ROOT.parent / "digits" / "digits.tflite")
    names = {n: name for name, n in vars(_schema().BuiltinOperator).items()}
    for operator in [operator for graph in model.subgraphs for operator in graph.operators]:
        name = names[model.operatorCodes[operator.opcodeIndex].builtinCode]
        counted = {"SPLIT": "numSplits", "SPLIT_V": "numSplits", "UNPACK": "num", "PACK": "valuesCount"}.get(name)
        if counted is None or name in found:
            continue
        found.add(name)
        right = getattr(operator.builtinOptions, counted)
        setattr(operator.builtinOptions, counted, 131_074)
        _pack(model, path)
        setattr(operator.builtinOptions, counted, right)
        with pytest.raises(ValueError, match=f"{name} of 131074 tensors with"):
            export.runner(path)
    assert len(found) >= 2, found


def _schema():
    from tensorflow.lite.python import schema_py_generated

    return schema_py_generated


def _unpacked(path):
    return _schema().ModelT.InitFromObj(_schema().Model.GetRootAsModel(path.read_bytes(), 0))


def _pack(model, path):
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(builder.Output())


def test_lists_of_tflite_that_lie_on_each_other(tmp_path):
    """10,000 operations that are one, of 10,000 inputs: 100,000,000 of 80 KB."""
    n = 10_000
    builder = flatbuffers.Builder(1024)
    inputs = builder.CreateNumpyVector(np.zeros(n, np.int32))
    outputs = builder.CreateNumpyVector(np.zeros(1, np.int32))
    schema = _schema()
    schema.TensorStart(builder)
    tensor = schema.TensorEnd(builder)
    schema.OperatorStart(builder)
    schema.OperatorAddInputs(builder, inputs)
    schema.OperatorAddOutputs(builder, outputs)
    operator = schema.OperatorEnd(builder)

    def many(start, part, n):
        start(builder, n)
        for _ in range(n):
            builder.PrependUOffsetTRelative(part)
        return builder.EndVector()

    operators = many(schema.SubGraphStartOperatorsVector, operator, n)
    tensors = many(schema.SubGraphStartTensorsVector, tensor, 1)
    schema.SubGraphStart(builder)
    schema.SubGraphAddTensors(builder, tensors)
    schema.SubGraphAddOperators(builder, operators)
    graphs = many(schema.ModelStartSubgraphsVector, schema.SubGraphEnd(builder), 1)
    schema.OperatorCodeStart(builder)
    schema.OperatorCodeAddBuiltinCode(builder, schema.BuiltinOperator.CONCATENATION)
    codes = many(schema.ModelStartOperatorCodesVector, schema.OperatorCodeEnd(builder), 1)
    schema.BufferStart(builder)
    buffers = many(schema.ModelStartBuffersVector, schema.BufferEnd(builder), 1)
    schema.ModelStart(builder)
    schema.ModelAddOperatorCodes(builder, codes)
    schema.ModelAddSubgraphs(builder, graphs)
    schema.ModelAddBuffers(builder, buffers)
    builder.Finish(schema.ModelEnd(builder), b"TFL3")
    (tmp_path / "many.tflite").write_bytes(builder.Output())
    with pytest.raises(ValueError, match="more parts than bytes"):
        export.runner(tmp_path / "many.tflite")


def test_exports_that_ship_are_let_in():
    expected = export.runner(ROOT / "1")("log_prob", x=X)["log_prob"]
    np.testing.assert_allclose(
        export.runner(ROOT / "two_moons.tflite")("log_prob", x=X)["log_prob"], expected, rtol=1e-4
    )
