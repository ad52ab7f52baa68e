"""Looks through TFLite files before they are loaded: TFLite itself believes what they say of themselves."""

from __future__ import annotations

import functools
import importlib.util
import math
import re
from pathlib import Path

MOST_BYTES = (1 << 31) - 1  # that a flatbuffer can have
# Of TFLite's, those that need no other resource than tensors.
REFUSED = re.compile(
    r"CUSTOM|DELEGATE|CALL|CALL_ONCE|HASHTABLE.*|VAR_HANDLE|READ_VARIABLE|ASSIGN_VARIABLE|STABLEHLO_.*|PLACEHOLDER_.*|"
    r"CONCAT_EMBEDDINGS|EMBEDDING_LOOKUP.*|LSH_PROJECTION|SKIP_GRAM|UNIDIRECTIONAL_.*|BIDIRECTIONAL_.*|RNN|LSTM|SVDF|"
    r"NON_MAX_SUPPRESSION_.*|DETECTION_.*"
)
BYTES = {
    **dict.fromkeys(("FLOAT64", "INT64", "UINT64", "COMPLEX64"), 8),
    **dict.fromkeys(("FLOAT32", "INT32", "UINT32"), 4),
    **dict.fromkeys(("FLOAT16", "INT16", "UINT16"), 2),
    **dict.fromkeys(("INT8", "UINT8", "BOOL"), 1),
}
# Of all lists together: they may be one list, at many places of a file.
MOST_PARTS = 4_000_000

# How many inputs operations have; TFLite looks at some only when it is too late.
INPUTS = {
    (1, 1): "ABS BITCAST CAST CEIL COS DEPTH_TO_SPACE DEQUANTIZE ELU EXP FLOOR GELU HARD_SWISH LEAKY_RELU LOG LOGISTIC "
    "LOGICAL_NOT LOG_SOFTMAX NEG QUANTIZE RANDOM_STANDARD_NORMAL RANDOM_UNIFORM RANK RELU RELU6 ROUND RSQRT SHAPE SIGN "
    "SIN SOFTMAX SPACE_TO_DEPTH SQRT SQUARE SQUEEZE TANH UNPACK WHERE ZEROS_LIKE",
    (1, 2): "RESHAPE",
    (2, 2): "ADD ARG_MAX ARG_MIN ATAN2 BATCH_MATMUL BITWISE_XOR BROADCAST_ARGS BROADCAST_TO CUMSUM DIV EQUAL "
    "EXPAND_DIMS FILL FLOOR_DIV FLOOR_MOD GATHER GATHER_ND GREATER GREATER_EQUAL LESS LESS_EQUAL LOGICAL_AND "
    "LOGICAL_OR MATRIX_SET_DIAG MAXIMUM MEAN MINIMUM MIRROR_PAD MUL NOT_EQUAL PAD POW PRELU REDUCE_ALL REDUCE_ANY "
    "REDUCE_MAX REDUCE_MIN REDUCE_PROD REVERSE_V2 RIGHT_SHIFT SPLIT SQUARED_DIFFERENCE SUB SUM TILE TOPK_V2 TRANSPOSE",
    (2, 3): "CONV_2D DEPTHWISE_CONV_2D FULLY_CONNECTED",
    (3, 3): "BATCH_TO_SPACE_ND PADV2 RANGE SCATTER_ND SELECT SELECT_V2 SLICE SPACE_TO_BATCH_ND SPLIT_V",
    (4, 4): "ONE_HOT STRIDED_SLICE",
}
N_INPUTS = {name: counts for counts, names in INPUTS.items() for name in names.split()}
N_OUTPUTS = {"SPLIT": (1, MOST_PARTS), "SPLIT_V": (1, MOST_PARTS), "UNPACK": (1, MOST_PARTS), "TOPK_V2": (2, 2)}
# Settings that are not called like their operation.
SETTINGS = {
    **dict.fromkeys(("MEAN", "SUM", "REDUCE_PROD", "REDUCE_MAX", "REDUCE_MIN"), "ReducerOptions"),
    **dict.fromkeys(("REDUCE_ALL", "REDUCE_ANY"), "ReducerOptions"),
    **dict.fromkeys(("MAXIMUM", "MINIMUM"), "MaximumMinimumOptions"),
    **dict.fromkeys(("RANDOM_UNIFORM", "RANDOM_STANDARD_NORMAL", "MULTINOMIAL"), "RandomOptions"),
    **dict.fromkeys(("AVERAGE_POOL_2D", "MAX_POOL_2D", "L2_POOL_2D"), "Pool2DOptions"),
    **dict.fromkeys(("CONV_3D", "CONV_3D_TRANSPOSE"), "Conv3DOptions"),
    "BATCH_MATMUL": "BatchMatMulOptions",
    "BATCH_TO_SPACE_ND": "BatchToSpaceNDOptions",
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "L2_NORMALIZATION": "L2NormOptions",
    "PADV2": "PadV2Options",
    "SPACE_TO_BATCH_ND": "SpaceToBatchNDOptions",
    "TOPK_V2": "TopKV2Options",
}
# Settings that count inputs or outputs, which TFLite then reads to that number.
COUNTED_OUTPUTS = {"SPLIT": "NumSplits", "SPLIT_V": "NumSplits", "UNPACK": "Num"}
COUNTED_INPUTS = {"PACK": "ValuesCount"}


def read_tflite(path) -> bytes:
    """A TFLite file, whose parts fit each other, and whose operations need nothing but tensors.

    Raises:
      ValueError: that says what is wrong.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"Expected a SavedModel's folder or a TFLite file; got {path}, which is neither.")
    try:
        _expect(path.stat().st_size <= MOST_BYTES, f"{path.stat().st_size:,} bytes")
        content = path.read_bytes()
        _expect(content[4:8] == b"TFL3", "no file of TFLite")
        schema = _schema()
        _check_graphs(schema.Model.GetRootAsModel(content, 0), len(content), schema)
        return content  # the same bytes are looked at and run, whatever happens to the file
    except Exception as error:  # of any kind: numbers in the file are places to look at
        reason = str(error) or type(error).__name__
        raise ValueError(f"Expected a TFLite file of a flow in {path}; got one that is damaged: {reason}.") from error


@functools.cache
def _schema():
    """A private module of TensorFlow's, without importing the rest, which a process that runs only LiteRT has not."""
    folder = importlib.util.find_spec("tensorflow").submodule_search_locations[0]
    place = Path(folder, "lite", "python", "schema_py_generated.py")
    spec = importlib.util.spec_from_file_location("tfflows_tflite_schema", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _check_graphs(model, n_bytes, schema):
    operators = {number: name for name, number in vars(schema.BuiltinOperator).items() if isinstance(number, int)}
    types = {number: name for name, number in vars(schema.TensorType).items() if isinstance(number, int)}
    settings = {number: name for name, number in vars(schema.BuiltinOptions).items() if isinstance(number, int)}
    left = min(n_bytes, MOST_PARTS)

    def places(length):
        nonlocal left
        left -= length
        _expect(left >= 0, "more parts than bytes")
        return range(length)

    codes = []
    for i in places(model.OperatorCodesLength()):
        code = model.OperatorCodes(i)
        codes.append(operators[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())])
        _expect(not REFUSED.fullmatch(codes[-1]), f"the operation {codes[-1]}")
    buffers = []
    for i in places(model.BuffersLength()):
        buffer = model.Buffers(i)
        _expect(buffer.Offset() + buffer.Size() <= n_bytes, "a buffer beyond its end")
        buffers.append(max(buffer.DataLength(), buffer.Size()))
        _expect(buffers[-1] <= n_bytes, "a buffer beyond its end")
    n_graphs = model.SubgraphsLength()
    for i in places(n_graphs):
        graph = model.Subgraphs(i)
        n_tensors = graph.TensorsLength()
        for j in places(n_tensors):
            _check_tensor(graph.Tensors(j), buffers, types, n_bytes)
        places(graph.InputsLength() + graph.OutputsLength())
        _check_indices(graph.InputsAsNumpy(), 0, n_tensors)
        _check_indices(graph.OutputsAsNumpy(), 0, n_tensors)
        for j in places(graph.OperatorsLength()):
            operator = graph.Operators(j)
            _expect(operator.OpcodeIndex() < len(codes), "an operation of no code")
            places(operator.InputsLength() + operator.OutputsLength() + operator.IntermediatesLength())
            _check_indices(operator.InputsAsNumpy(), -1, n_tensors)
            _check_indices(operator.OutputsAsNumpy(), 0, n_tensors)
            _check_indices(operator.IntermediatesAsNumpy(), 0, n_tensors)
            _check_operator(operator, codes[operator.OpcodeIndex()], settings, schema)
            if codes[operator.OpcodeIndex()] in ("WHILE", "IF"):
                _check_branches(operator, schema, n_graphs, i)
    for i in places(model.SignatureDefsLength()):
        signature = model.SignatureDefs(i)
        _expect(signature.SubgraphIndex() < n_graphs, "a signature of no graph")
        n_tensors = model.Subgraphs(signature.SubgraphIndex()).TensorsLength()
        for j in places(signature.InputsLength()):
            _expect(signature.Inputs(j).TensorIndex() < n_tensors, "an input that is no tensor")
        for j in places(signature.OutputsLength()):
            _expect(signature.Outputs(j).TensorIndex() < n_tensors, "an output that is no tensor")


def _check_tensor(tensor, buffers, types, n_bytes):
    kind = types[tensor.Type()]
    _expect(kind in BYTES, f"a tensor of {kind}")
    _expect(tensor.Sparsity() is None, "a sparse tensor")
    _expect(tensor.ShapeLength() <= 8, f"a tensor of {tensor.ShapeLength():,} axes")
    shape = [tensor.Shape(k) for k in range(tensor.ShapeLength())]
    _expect(all(n >= 0 for n in shape), f"a tensor of shape {shape}")
    size = math.prod(shape) * BYTES[kind]
    _expect(size <= MOST_BYTES, f"a tensor of {size:,} bytes")
    _expect(tensor.Buffer() < len(buffers), "a tensor of no buffer")
    stored = buffers[tensor.Buffer()]
    _expect(stored in (0, size), f"a tensor of {size:,} bytes in {stored:,}")


def _check_operator(operator, name, settings, schema):
    """What an operation is given, in number and settings, is what it takes."""
    if name in N_INPUTS:
        low, high = N_INPUTS[name]
        _expect(low <= operator.InputsLength() <= high, f"{operator.InputsLength()} inputs of {name}")
        low, high = N_OUTPUTS.get(name, (1, 1))
        _expect(low <= operator.OutputsLength() <= high, f"{operator.OutputsLength()} outputs of {name}")
    own = SETTINGS.get(name, "".join(word.capitalize() for word in name.split("_")) + "Options")
    found = settings[operator.BuiltinOptionsType()]
    _expect(found in ("NONE", own), f"the settings {found} of {name}")
    for counted, length in ((COUNTED_OUTPUTS, operator.OutputsLength()), (COUNTED_INPUTS, operator.InputsLength())):
        if name in counted:
            n = getattr(_settings(operator, own, schema), counted[name])()
            _expect(n == length, f"{name} of {n} tensors with {length}")


def _settings(operator, kind, schema):
    options = operator.BuiltinOptions()
    _expect(options is not None, f"no {kind}")
    made = getattr(schema, kind)()
    made.Init(options.Bytes, options.Pos)
    return made


def _check_branches(operator, schema, n_graphs, here):
    is_while = operator.BuiltinOptionsType() == schema.BuiltinOptions.WhileOptions
    made = _settings(operator, "WhileOptions" if is_while else "IfOptions", schema)
    if is_while:
        found = [made.CondSubgraphIndex(), made.BodySubgraphIndex()]
    else:
        found = [made.ThenSubgraphIndex(), made.ElseSubgraphIndex()]
    # Forwards only: so that no graph is in itself.
    _expect(all(here < index < n_graphs for index in found), "a loop whose body is no other graph")


def _check_indices(indices, low, n_tensors):
    if isinstance(indices, int):  # there are none
        return
    _expect(all(low <= index < n_tensors for index in indices.tolist()), "a number of no tensor")


def _expect(is_right, found):
    if not is_right:
        raise ValueError(found)
