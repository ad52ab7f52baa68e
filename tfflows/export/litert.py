"""TFLite files of builtin operations."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections import Counter

import numpy as np
import tensorflow as tf

from tfflows import atomic
from tfflows.export import verbs
from tfflows.nets import unrolled
from tfflows.nets.convolutional import uncompiled
from tfflows.products import undivided


def tflite(flow, *, batch_size: int | None = None, weights: str = "float32") -> bytes:
    """A TFLite file with the flow's signatures, of builtin operations only.

    Args:
      flow: a `FlowModel`, `FlowMixture` or `PointCloudFlow`, in float32.
      batch_size: a fixed number of rows, or None for any.
      weights: "float32", "float16" or "int8".

    Raises:
      ValueError: for a flow of another dtype, or if one needs an operation that TFLite has not; says which.
    """
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    if flow.accepts.dtype != np.float32:
        raise ValueError(f"Expected a float32 flow for TFLite; got {np.dtype(flow.accepts.dtype).name}.")

    module, functions = tf.Module(), {}
    for name, (function, inputs) in flow._signatures(batch_size).items():
        with unrolled(), uncompiled(), undivided():
            concrete = tf.function(function, input_signature=inputs, autograph=False).get_concrete_function()
        # Weights as constants: the converter leaves those inside loops as variables that nobody sets.
        functions[name] = _with_names(convert_variables_to_constants_v2(concrete), concrete, inputs)
    with tempfile.TemporaryDirectory() as folder, atomic.errors_of(folder, folder):
        tf.saved_model.save(module, folder, signatures=functions, options=verbs.save_options())
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=list(functions))
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        if weights != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if weights == "float16":
            converter.target_spec.supported_types = [tf.float16]
        with _quiet():
            try:
                content = converter.convert()
            except Exception as error:
                raise ValueError(f"Expected operations that TFLite has; got {_reason(str(error))}.") from error
    foreign = sorted(name for name in operations(content) if name not in _builtin().values())
    if foreign:  # the converter has let custom ones pass
        raise ValueError(f"Expected operations that TFLite has; got {', '.join(foreign)}.")
    return content


def operations(content: bytes) -> Counter[str]:
    """How often a TFLite file has each operation, in all its signatures; custom ones under their own name.

    Args:
      content: the file's bytes.
    """
    model = _schema().Model.GetRootAsModel(content, 0)
    codes = [model.OperatorCodes(i) for i in range(model.OperatorCodesLength())]
    graphs = [model.Subgraphs(i) for i in range(model.SubgraphsLength())]
    used = (codes[graph.Operators(i).OpcodeIndex()] for graph in graphs for i in range(graph.OperatorsLength()))
    names = _builtin()
    # A code below 127 may stand in the old field alone.
    numbers = ((code, max(code.BuiltinCode(), code.DeprecatedBuiltinCode())) for code in used)
    return Counter(names[n] if n in names else (code.CustomCode() or b"?").decode() for code, n in numbers)


def _builtin() -> dict[int, str]:
    kinds = vars(_schema().BuiltinOperator)
    return {number: name for name, number in kinds.items() if isinstance(number, int) and name != "CUSTOM"}


def _schema():
    # Private: the rest of the package must not need it.
    from tensorflow.lite.python import schema_py_generated

    return schema_py_generated


def _with_names(frozen, concrete, inputs):
    """A function whose inputs and outputs have their names again, which freezing lost."""

    @tf.function(input_signature=inputs, autograph=False)
    def named(*values):
        return tf.nest.pack_sequence_as(concrete.structured_outputs, tf.nest.flatten(frozen(*values)))

    return named


@contextlib.contextmanager
def _quiet():
    """Keeps the converter's C++ log from the screen."""
    error, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(error, 2)
        os.close(null)
        os.close(error)


def _reason(text: str) -> str:
    """The line of a converter's error that names what is missing."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = [line for line in lines if "ops:" in line or "error: 'tf." in line]
    return (named or lines or ["no reason"])[0][:200]
