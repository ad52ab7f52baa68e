"""Fuzzes `export.runner`: an input says how a small SavedModel is changed, before it is loaded and run.

The first byte is the kind of change; the others are offsets and new bytes, or the seed of changes to the graph or to
the index of the variables.
"""

from __future__ import annotations

import gc
import itertools
import os
import random
import shutil
import tempfile
from pathlib import Path

import harness
import index_of_variables
import mutations
import numpy as np

with harness.instrumented(["tfflows.export"]):
    import keras
    import tensorflow as tf
    from tensorflow.core.protobuf import saved_model_pb2, tensor_bundle_pb2

    import tfflows as tff
    from tfflows import export
    from tfflows.export.checking_variables import read_table

FOLDER = Path(tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
OPERATIONS = sorted(name for name in dir(tf.raw_ops) if name[0] != "_")
NUMBERS = [0, 1, -1, 2, 3, 1000, 2**31 - 1, 2**40, -(2**31)]
X = np.array([[0.5, -0.5], [0.0, 2.0], [1.0, 1.0]], np.float32)
count = itertools.count(1)

keras.utils.set_random_seed(0)
flow = tff.FlowModel(tff.RealNVP(2, n_layers=1, hidden=(3,)))
flow.bijector.adapt(X)
flow.export(FOLDER / "whole")
FILES = {f.relative_to(FOLDER / "whole"): f.read_bytes() for f in (FOLDER / "whole").rglob("*") if f.is_file()}
NAMES = sorted(FILES, key=str)
GRAPH, INDEX = Path("saved_model.pb"), Path("variables/variables.index")


def run(data: bytes) -> None:
    if len(data) < 2:
        return
    if next(count) % 200 == 0:
        keras.utils.clear_session()
        gc.collect()
    kind, script = data[0] % 4, data[1:]
    path, files = FOLDER / "changed", dict(FILES)
    if kind == 0:
        name = NAMES[script[0] % len(NAMES)]
        files[name] = mutations.edited(files[name], script[1:])
    elif kind == 1:
        files[INDEX] = other_index(files[INDEX], random.Random(script))
    else:
        files[GRAPH] = other_graph(files[GRAPH], random.Random(script))
    shutil.rmtree(path, ignore_errors=True)
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    call = export.runner(path)
    try:
        call("log_prob", x=X)
    except Exception:  # what a graph that may run calculates is not ours
        return


def other_index(content: bytes, rng: random.Random) -> bytes:
    """An index with a few numbers, names or bytes of its entries changed, and right checksums."""
    entries = dict(read_table(content))
    for _ in range(rng.choice((1, 1, 2, 4))):
        key, kind = rng.choice(list(entries)), rng.randrange(5)
        if kind == 0:
            entries[key] = mutations.edited(entries[key] or b"x", rng.randbytes(rng.choice((4, 7, 8))))
        elif kind == 1:
            entries[rng.choice([b"x", key + b"x", key[:-1], rng.choice(list(entries))])] = entries.pop(key)
        elif kind == 2:
            entries[key] = entries[rng.choice(list(entries))]
        else:
            made = tensor_bundle_pb2.BundleEntryProto()
            try:
                made.ParseFromString(entries[key])
            except Exception:  # the header is another message, or it was changed before
                continue
            field = rng.choice(["dtype", "shard_id", "offset", "size", "crc32c", "shape", "slices"])
            number = rng.choice([n for n in NUMBERS if -(2**31) <= n < 2**31])
            if field == "shape":
                made.shape.dim.add(size=rng.choice(NUMBERS))
                made.shape.unknown_rank = rng.random() < 0.2
            elif field == "slices":
                made.slices.add()
            elif field == "crc32c":
                made.crc32c = abs(number)
            elif field == "dtype":
                made.dtype = rng.randrange(30)
            else:
                setattr(made, field, number)
            entries[key] = made.SerializeToString()
    return index_of_variables.written(dict(sorted(entries.items())) if rng.random() < 0.8 else entries)


def other_graph(content: bytes, rng: random.Random) -> bytes:
    """A SavedModel with a few nodes, attributes, names or objects changed."""
    model = saved_model_pb2.SavedModel.FromString(content)
    graph = model.meta_graphs[0]
    for _ in range(rng.choice((1, 1, 2, 4))):
        nodes = rng.choice([graph.graph_def.node, *(f.node_def for f in graph.graph_def.library.function)])
        node, kind = rng.choice(nodes), rng.randrange(9)
        if kind == 0:
            node.op = rng.choice(OPERATIONS)
        elif kind == 1 and node.input:
            node.input[rng.randrange(len(node.input))] = rng.choice(
                ["x", "nothing", "^x", nodes[0].name, node.name, "x:7"]
            )
        elif kind == 2 and node.attr:
            del node.attr[rng.choice(list(node.attr))]
        elif kind == 3 and node.attr:
            change(node.attr[rng.choice(list(node.attr))], rng)
        elif kind == 4:
            del nodes[rng.randrange(len(nodes))]
        elif kind == 5:
            nodes.add().CopyFrom(node)
        elif kind == 6:
            found = rng.choice(graph.object_graph_def.nodes)
            for child in found.children:
                child.node_id = rng.choice((0, 1, child.node_id, 10**6))
            if found.WhichOneof("kind") == "variable":
                found.variable.dtype = rng.randrange(24)
                for dim in found.variable.shape.dim:
                    dim.size = rng.choice((dim.size, *NUMBERS))
        elif kind == 7:
            del graph.object_graph_def.nodes[rng.randrange(len(graph.object_graph_def.nodes))]
        elif kind == 8 and graph.graph_def.library.function:
            function = rng.choice(graph.graph_def.library.function)
            first = graph.graph_def.library.function[0].signature.name
            function.signature.name = rng.choice((function.signature.name + "x", first))
    return model.SerializeToString()


def change(value, rng: random.Random) -> None:
    """Another value of the attribute of a node."""
    kind = value.WhichOneof("value")
    if kind == "type":
        value.type = rng.randrange(30)
    elif kind == "i":
        value.i = rng.choice(NUMBERS)
    elif kind == "b":
        value.b = not value.b
    elif kind == "s":
        value.s = rng.choice([b"", b"x", b"../../x", b"NCHW", value.s + b"\xff"])
    elif kind == "func":
        value.func.name = rng.choice(["nothing", "__inference__traced_save_1", value.func.name + "x"])
    elif kind == "shape":
        value.shape.unknown_rank = rng.random() < 0.3
        for dim in value.shape.dim:
            dim.size = rng.choice(NUMBERS)
    elif kind == "tensor":
        for dim in value.tensor.tensor_shape.dim:
            dim.size = rng.choice(NUMBERS)
        value.tensor.dtype = rng.choice((value.tensor.dtype, rng.randrange(24)))
        if rng.random() < 0.3:
            value.tensor.tensor_content = value.tensor.tensor_content[:3]
        if rng.random() < 0.3:
            value.tensor.tensor_shape.dim.add().size = rng.choice(NUMBERS)


if __name__ == "__main__":
    harness.run(run, max_length=64)
