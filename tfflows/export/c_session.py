"""Runs a SavedModel with TensorFlow's C library alone, the loader of TensorFlow Serving: a script and a class.

    python c_session.py SAVED_MODEL INPUTS.npz OUTPUTS.npz

The arrays are called "call/signature/input", and "call/signature/output"; calls are numbered from 0. It needs ctypes,
NumPy and the shared library of the TensorFlow wheel, whose Python it never imports; nor does it import tfflows.
`tfflows.export.verify` runs it as a process of its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

LIBRARY = "libtensorflow_cc.so.2"
# tensorflow/c/tf_datatype.h: TF_DataType
DTYPES = {1: np.float32, 2: np.float64, 3: np.int32, 9: np.int64, 10: np.bool_}
NUMBERS = {np.dtype(dtype): number for number, dtype in DTYPES.items()}

Pointer = ctypes.c_void_p


class _Buffer(ctypes.Structure):
    _fields_ = (("data", Pointer), ("length", ctypes.c_size_t), ("deallocator", Pointer))


class _Output(ctypes.Structure):
    _fields_ = (("operation", Pointer), ("index", ctypes.c_int))


def library_path() -> Path | None:
    """The shared library in the TensorFlow wheel of this Python, or None; nothing is imported."""
    found = importlib.util.find_spec("tensorflow")
    for folder in (found and found.submodule_search_locations) or []:
        path = Path(folder) / LIBRARY
        if path.exists():
            return path
    return None


def _load(path: Path):
    tf = ctypes.CDLL(str(path))
    # Without their types ctypes would cut pointers to 32 bits.
    made = ("NewSessionOptions", "NewGraph", "NewStatus", "NewBuffer", "LoadSessionFromSavedModel")
    for name in (*made, "GraphOperationByName", "AllocateTensor", "TensorData"):
        getattr(tf, f"TF_{name}").restype = Pointer
    deleting = ("Tensor", "Status", "Buffer", "Graph", "SessionOptions")
    for name in ("TensorData", "NumDims", "TensorType", "GetCode", "Message", *(f"Delete{what}" for what in deleting)):
        getattr(tf, f"TF_{name}").argtypes = [Pointer]
    tf.TF_AllocateTensor.argtypes = [ctypes.c_int, Pointer, ctypes.c_int, ctypes.c_size_t]
    tf.TF_GraphOperationByName.argtypes = [Pointer, ctypes.c_char_p]
    tf.TF_Dim.argtypes, tf.TF_Dim.restype = [Pointer, ctypes.c_int], ctypes.c_int64
    tf.TF_Message.restype = ctypes.c_char_p
    tf.TF_DeleteSession.argtypes = [Pointer, Pointer]
    where = [ctypes.c_char_p, Pointer, ctypes.c_int]
    tf.TF_LoadSessionFromSavedModel.argtypes = [Pointer, Pointer, *where, Pointer, Pointer, Pointer]
    tensors = [Pointer, Pointer, ctypes.c_int]
    tf.TF_SessionRun.argtypes = [Pointer, Pointer, *tensors, *tensors, Pointer, ctypes.c_int, Pointer, Pointer]
    return tf


class CSession:
    """A loaded SavedModel; call it with a signature's name and its inputs by name, get its outputs by name.

    Several threads may call it at the same time. `signatures` has two dicts for each name, of the inputs and of the
    outputs: to each name its tensor's name in the graph and its number in TensorFlow's `DataType`.

    Args:
      path: the SavedModel's folder.
      library: TensorFlow's shared library; that of the installed wheel if None.

    Raises:
      ValueError: without a library, for what is no SavedModel, or an unknown signature or input.
    """

    def __init__(self, path, library: Path | None = None):
        library = library or library_path()
        if library is None:
            raise ValueError(f"Expected {LIBRARY} in an installed TensorFlow; found none.")
        self._tf = tf = _load(library)
        self._session, self._graph = None, tf.TF_NewGraph()
        options, meta_graph, tags = tf.TF_NewSessionOptions(), tf.TF_NewBuffer(), (ctypes.c_char_p * 1)(b"serve")
        try:
            with self._status(f"Expected a SavedModel in {path}") as status:
                self._session = tf.TF_LoadSessionFromSavedModel(
                    options, None, str(path).encode(), tags, 1, self._graph, meta_graph, status
                )
            buffer = _Buffer.from_address(meta_graph)
            self.signatures = dict(_signatures(ctypes.string_at(buffer.data, buffer.length)))
        finally:
            tf.TF_DeleteSessionOptions(options)
            tf.TF_DeleteBuffer(meta_graph)

    def __del__(self):
        graph = getattr(self, "_graph", None)
        if graph is None:
            return
        if self._session is not None:
            with contextlib.suppress(ValueError), self._status("Expected that a session closes") as status:
                self._tf.TF_DeleteSession(self._session, status)
        self._tf.TF_DeleteGraph(graph)

    @contextlib.contextmanager
    def _status(self, what):
        """A status for one call of the library, and an error if it ends badly."""
        status = self._tf.TF_NewStatus()
        try:
            yield status
            if self._tf.TF_GetCode(status) != 0:
                raise ValueError(f"{what}: {self._tf.TF_Message(status).decode(errors='replace')}")
        finally:
            self._tf.TF_DeleteStatus(status)

    def __call__(self, signature: str, **values) -> dict[str, np.ndarray]:
        if signature not in self.signatures:
            raise ValueError(f"Expected a signature of {sorted(self.signatures)}; got {signature!r}.")
        inputs, outputs = self.signatures[signature]
        if set(inputs) != set(values):
            raise ValueError(f"Expected inputs {sorted(inputs)}; got {sorted(values)}.")
        unknown = {dtype for _, dtype in [*inputs.values(), *outputs.values()]} - set(DTYPES)
        if unknown:
            raise ValueError(f"Expected tensors of the types {sorted(DTYPES)} of DataType; got {sorted(unknown)}.")
        arrays = [np.ascontiguousarray(values[name], DTYPES[dtype]) for name, (_, dtype) in inputs.items()]
        places = self._places(inputs), self._places(outputs)
        given = (Pointer * len(inputs))(*map(self._tensor, arrays))
        got = (Pointer * len(outputs))()
        sides = (places[0], given, len(inputs)), (places[1], got, len(outputs))
        try:
            with self._status(f"Expected that {signature} runs") as status:
                self._tf.TF_SessionRun(self._session, None, *sides[0], *sides[1], None, 0, None, status)
        finally:
            for tensor in given:
                self._tf.TF_DeleteTensor(tensor)
        return dict(zip(outputs, map(self._array, got), strict=True))

    def _places(self, tensors):
        places = (_Output * len(tensors))()
        for place, (name, _) in zip(places, tensors.values(), strict=True):
            operation, _, index = name.partition(":")
            place.operation = self._tf.TF_GraphOperationByName(self._graph, operation.encode())
            if not place.operation:
                raise ValueError(f"Expected an operation {operation} in the graph; there is none.")
            place.index = int(index or 0)
        return places

    def _tensor(self, array):
        shape = (ctypes.c_int64 * array.ndim)(*array.shape)
        tensor = self._tf.TF_AllocateTensor(NUMBERS[array.dtype], shape, array.ndim, array.nbytes)
        ctypes.memmove(self._tf.TF_TensorData(tensor), array.ctypes.data, array.nbytes)
        return tensor

    def _array(self, tensor):
        tf = self._tf
        array = np.empty([tf.TF_Dim(tensor, i) for i in range(tf.TF_NumDims(tensor))], DTYPES[tf.TF_TensorType(tensor)])
        ctypes.memmove(array.ctypes.data, tf.TF_TensorData(tensor), array.nbytes)
        tf.TF_DeleteTensor(tensor)
        return array


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Numbers and values of a protocol buffer's fields, as they are on the wire."""
    at = 0

    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at, value, shift = at + 1, value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value

    while at < len(message):
        key = number()
        kind = key & 7
        if kind == 0:
            yield key >> 3, number()
            continue
        n_bytes = {1: 8, 5: 4}[kind] if kind != 2 else number()
        yield key >> 3, message[at : at + n_bytes]
        at += n_bytes


def _signatures(meta_graph: bytes) -> Iterator[tuple[str, tuple[dict, dict]]]:
    """Name of each signature, with (tensor's name, dtype) of its inputs and of its outputs by name."""
    for field, value in _fields(meta_graph):
        if field == 5:  # MetaGraphDef.signature_def, a map: key 1, value 2
            name, signature = _entry(value)
            tensors = {1: {}, 2: {}}  # SignatureDef.inputs, .outputs: maps too
            for side, entry in _fields(signature):
                if side in tensors:
                    key, info = _entry(entry)
                    parts = dict(_fields(info))  # TensorInfo.name 1, .dtype 2
                    tensors[side][key] = (parts.get(1, b"").decode(), parts.get(2, 0))  # a sparse one has no name
            if not name.startswith("__"):  # such as __saved_model_init_op
                yield name, (tensors[1], tensors[2])


def _entry(entry: bytes) -> tuple[str, bytes]:
    parts = dict(_fields(entry))
    return parts[1].decode(), parts.get(2, b"")


def _main(saved_model, inputs_path, outputs_path):
    run, calls, outputs = CSession(saved_model), {}, {}
    with np.load(inputs_path) as arrays:
        for key in arrays.files:
            call, name = key.rsplit("/", 1)
            calls.setdefault(call, {})[name] = arrays[key]
    for call, inputs in calls.items():
        for name, value in run(call.split("/", 1)[1], **inputs).items():
            outputs[f"{call}/{name}"] = value
    np.savez(outputs_path, **outputs)


if __name__ == "__main__":
    try:
        _main(*sys.argv[1:])
    except ValueError as error:
        raise SystemExit(str(error)) from error
