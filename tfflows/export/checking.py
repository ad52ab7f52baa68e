"""Looks through exports before they are loaded: they are programs, and these may only calculate."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tfflows.export.checking_variables import check_variables

MOST_BYTES = 1 << 28  # of the graph, which takes many times as much memory; weights are not in it

# Operations of TensorFlow that calculate, and nothing else: none that reads or writes files, calls Python, loads
# libraries, opens connections, prints, or ends the process.
CALCULATE = frozenset(
    re.findall(
        r"\w+",
        "Abs Acos Acosh AddN AddV2 Add All Any ArgMax ArgMin Asin Asinh Atan Atan2 Atanh AvgPool BatchMatMul "
        "BatchMatMulV2 BatchMatMulV3 BatchToSpaceND BesselI0e BesselI1e Betainc BiasAdd Bincount Bitcast BitwiseAnd "
        "BitwiseOr BitwiseXor BroadcastArgs BroadcastGradientArgs BroadcastTo Bucketize Cast Ceil Cholesky "
        "ClipByValue Complex ComplexAbs ConcatOffset ConcatV2 Conj Const Conv2D Conv2DBackpropInput Conv3D Cos Cosh "
        "Cross Cumprod Cumsum CumulativeLogsumexp DenseBincount DepthToSpace DepthwiseConv2dNative Diag DiagPart "
        "Digamma DivNoNan DynamicPartition DynamicStitch Einsum Elu EnsureShape Equal Erf Erfc Erfinv EuclideanNorm "
        "Exp ExpandDims Expm1 FFT Fill Floor FloorDiv FloorMod FusedBatchNormV3 Gather GatherNd GatherV2 Greater "
        "GreaterEqual IFFT IRFFT Identity IdentityN Igamma Igammac Imag InvertPermutation IsFinite IsInf IsNan L2Loss "
        "LeakyRelu LeftShift Less LessEqual Lgamma LinSpace Log Log1p LogMatrixDeterminant LogSoftmax LogicalAnd "
        "LogicalNot LogicalOr LowerBound Lu MatMul MatrixBandPart MatrixDeterminant MatrixDiagPartV3 MatrixDiagV3 "
        "MatrixExponential MatrixInverse MatrixSetDiagV3 MatrixSolve MatrixTriangularSolve Max MaxPool Maximum Mean "
        "Min Minimum MirrorPad Mod Mul MulNoNan Ndtri Neg NextAfter NoOp NotEqual OneHot OnesLike Pack Pad PadV2 "
        "Placeholder PlaceholderWithDefault Polygamma PopulationCount Pow PreventGradient Prod Qr RFFT Range Rank "
        "Real RealDiv Reciprocal Relu Relu6 Reshape ReverseSequence ReverseV2 RightShift Rint Roll Round Rsqrt "
        "ScatterNd SegmentSum Select SelectV2 SelfAdjointEigV2 Selu Shape ShapeN Sigmoid Sign Sin Sinh Size Slice "
        "Softmax Softplus Softsign SpaceToBatchND SpaceToDepth Split SplitV Sqrt Square SquaredDifference Squeeze "
        "StopGradient StridedSlice Sub Sum Svd Tan Tanh TensorScatterAdd TensorScatterUpdate Tile TopKV2 Transpose "
        "TruncateDiv TruncateMod Unique UniqueV2 Unpack UnravelIndex UnsortedSegmentSum UpperBound Where Xdivy "
        "Xlog1py Xlogy ZerosLike Zeta RandomGamma RandomPoissonV2 RandomShuffle RandomStandardNormal RandomUniform "
        "RandomUniformInt StatelessMultinomial StatelessRandomBinomial StatelessRandomGammaV2 StatelessRandomGammaV3 "
        "StatelessRandomGetAlg StatelessRandomGetKeyCounter StatelessRandomNormal StatelessRandomNormalV2 "
        "StatelessRandomPoisson StatelessRandomUniform StatelessRandomUniformFullInt StatelessRandomUniformFullIntV2 "
        "StatelessRandomUniformInt StatelessRandomUniformIntV2 StatelessRandomUniformV2 StatelessTruncatedNormal "
        "StatelessTruncatedNormalV2 Assert Case If PartitionedCall StatefulPartitionedCall StatelessCase StatelessIf "
        "StatelessWhile While AssignVariableOp DisableCopyOnRead ReadVariableOp ResourceGather VarHandleOp "
        "VarIsInitializedOp EmptyTensorList TensorListConcatV2 TensorListElementShape TensorListFromTensor "
        "TensorListGather TensorListGetItem TensorListLength TensorListPushBack TensorListReserve TensorListResize "
        "TensorListSetItem TensorListStack ",
    )
)
# Of the two functions that save and restore variables.
OF_FILES = frozenset(["MergeV2Checkpoints", "RestoreV2", "SaveV2"])
OF_NAMES = frozenset(["ShardedFilename", "StaticRegexFullMatch", "StringJoin"])
# None of kind "constant", which `flow.export` never writes: any number of them may be one constant of the graph, and
# each takes its room.
OBJECTS = {"variable", "function", "bare_concrete_function", "captured_tensor"}
PLAIN_OBJECTS = {
    *("_generic_user_object", "signature_map", "trackable_list_wrapper", "trackable_dict_wrapper"),
    "trackable_tuple_wrapper",
}
EXPECTED = "Expected a SavedModel of a flow"


def check_saved_model(path) -> None:
    """Refuses a SavedModel that does anything but calculate, or is damaged.

    Args:
      path: its folder.

    Raises:
      ValueError: that says what is in it and was not expected.
    """
    from tensorflow.core.protobuf import saved_model_pb2

    from tfflows.export.checking_tensors import check_tensors
    from tfflows.export.graph_types import check_types

    folder = Path(path)
    _check_files(folder)
    try:
        model = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    except Exception as error:  # protobuf's
        raise ValueError(f"{EXPECTED} in {path}; got one that cannot be read: {error}") from error
    if len(model.meta_graphs) != 1:
        raise ValueError(f"{EXPECTED} in {path}, of one graph; got {len(model.meta_graphs)}.")
    graph = model.meta_graphs[0]
    if graph.asset_file_def:
        raise ValueError(f"{EXPECTED} in {path}, without assets; got {graph.asset_file_def[0].filename[:80]!r}.")
    for node in graph.object_graph_def.nodes:
        kind = node.WhichOneof("kind")
        name = node.user_object.identifier if kind == "user_object" else kind
        if (name not in PLAIN_OBJECTS | OBJECTS) or node.registered_name or node.registered_saver:
            raise ValueError(f"{EXPECTED} in {path}, of variables and functions; got {name} {node.registered_name}.")
    _check_operations(graph, path)
    try:
        check_tensors(graph)
        check_types(graph.graph_def)
    except ValueError as error:
        raise ValueError(f"{EXPECTED} in {path}, whose parts fit each other; got {error}.") from error
    try:
        check_variables(folder, graph.object_graph_def)
    except Exception as error:  # of protobuf's too
        raise ValueError(f"{EXPECTED} in {path}, with its variables; got {error or type(error).__name__}.") from error


def _check_files(folder):
    whole = folder.resolve()
    for name in ("saved_model.pb", "variables/variables.index"):
        if not (folder / name).is_file():
            raise ValueError(f"Expected a SavedModel in {folder}; got no {name} in it.")
    n_bytes = (folder / "saved_model.pb").stat().st_size
    if n_bytes > MOST_BYTES:
        raise ValueError(f"{EXPECTED} in {folder}, with a graph of at most {MOST_BYTES:,} bytes; got {n_bytes:,}.")
    for name in ("saved_model.cpb", "saved_model.pbtxt"):  # TensorFlow might read these instead
        if (folder / name).exists():
            raise ValueError(f"{EXPECTED} in {folder}; got a {name} in it.")
    for found in [folder / "saved_model.pb", *folder.glob("variables/*"), *folder.glob("assets/*")]:
        if whole not in found.resolve().parents:
            raise ValueError(f"{EXPECTED} in {folder}, whole; got a link to elsewhere, {found.name}.")


def _check_operations(graph, path):
    functions = {function.signature.name: function.node_def for function in graph.graph_def.library.function}
    of_files = {name for name, nodes in functions.items() if any(node.op in OF_FILES for node in nodes)}
    ends = {_name(graph.saver_def.save_tensor_name), _name(graph.saver_def.restore_op_name)} - {""}
    for where, nodes in [("", graph.graph_def.node), *functions.items()]:
        allowed = CALCULATE | OF_FILES | OF_NAMES if where in of_files else CALCULATE
        for node in nodes:
            if node.op not in allowed:
                raise ValueError(f"{EXPECTED} in {path}, which only calculates; got the operation {node.op[:80]!r}.")
            is_end = where == "" and node.name in ends
            if of_files & set(_called(node)) and not is_end:
                raise ValueError(f"{EXPECTED} in {path}; got its saving or restoring called by {node.name[:80]!r}.")
            if where == "" and ends & {_name(name) for name in node.input}:
                raise ValueError(f"{EXPECTED} in {path}; got its saving or restoring as input of {node.name[:80]!r}.")
            if is_end and _name(next(iter(node.input), "")) != _name(graph.saver_def.filename_tensor_name):
                raise ValueError(f"{EXPECTED} in {path}, restored from where it is; got a path of its own in it.")
    named = {_name(tensor.name) for signature in graph.signature_def.values() for tensor in signature.outputs.values()}
    named |= {_name(name) for entry in graph.collection_def.values() for name in entry.node_list.value}
    if ends & named or of_files & set(graph.object_graph_def.concrete_functions):
        raise ValueError(f"{EXPECTED} in {path}; got saving or restoring among its signatures.")
    placeholders = {node.name for node in graph.graph_def.node if node.op == "Placeholder"}
    if ends and _name(graph.saver_def.filename_tensor_name) not in placeholders:
        raise ValueError(f"{EXPECTED} in {path}, restored from where it is; got a path of its own in it.")


def _name(tensor: str) -> str:
    return tensor.removeprefix("^").partition(":")[0]


def _called(node) -> Iterator[str]:
    for value in node.attr.values():
        if value.HasField("func"):
            yield value.func.name
        yield from (function.name for function in value.list.func)
