"""Runs exports, and compares them with their flow."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfflows.export import c_session
from tfflows.export.checking import check_saved_model
from tfflows.export.checking_tflite import read_tflite
from tfflows.export.isolated_process import call_signature, litert, native

Call = tuple[str, dict[str, np.ndarray]]  # a signature's name, and its inputs by name


class Parity(NamedTuple):
    """How far an export is from the flow.

    Args:
      runtime: what ran it: "TensorFlow", "TensorFlow C library" or "LiteRT".
      signature: log_prob, encode or decode.
      difference: largest difference, divided by the largest number (or 1, if that is larger); infinite where a number
        is NaN.
    """

    runtime: str
    signature: str
    difference: float


def verify(path, flow, x, context=None) -> list[Parity]:
    """Compares an export with the flow it was made from, number by number, for 1, 7 and all rows.

    A SavedModel is run by TensorFlow's Python, and by its C library in a process of its own, which is how a server
    runs it; the second is left out where the installed TensorFlow has no such library.

    Args:
      path: a SavedModel's folder, or a `.tflite` file.
      flow: the `FlowModel` or `FlowMixture`.
      x: `[n, *event]`, data to try.
      context: `[n, *context_shape]`, if the flow is conditional.

    Returns:
      one `Parity` for each runtime, and each of log_prob, encode and decode that the flow has.

    Raises:
      ValueError: if there is no export at the path, or it has a fixed number of rows and x has fewer.
    """
    x = np.asarray(flow.accepts.value(x), flow.accepts.dtype)
    context = flow.accepts.context(context, len(x))
    given = {} if context is None else {"context": np.asarray(context)}
    values = {"log_prob": ("log_prob", {"x": x}, flow.log_prob(x, context))}
    if hasattr(flow, "bijector"):
        z = flow.encode(x, context)
        values["encode"] = ("z", {"x": x}, z)
        values["decode"] = ("x", {"z": z.numpy()}, flow.decode(z, context))

    calls, expected = [], []
    for n in _batch_sizes(path, len(x)):
        for name, (output, inputs, value) in values.items():
            calls.append((name, {k: v[:n] for k, v in (inputs | given).items()}))
            expected.append((output, np.asarray(value)))
    found = {}
    for runtime, run in _runtimes(path).items():
        for (name, inputs), (output, value), outputs in zip(calls, expected, run(calls), strict=True):
            n = len(next(iter(inputs.values())))
            found[runtime, name] = max(found.get((runtime, name), 0.0), _difference(outputs[output], value[:n]))
    return [Parity(*key, difference) for key, difference in found.items()]


def _difference(got, expected) -> float:
    """The largest difference, relative to the largest number or 1; infinite if one alone is not finite somewhere."""
    finite = np.isfinite(expected)
    if got.shape != expected.shape or not np.array_equal(got[~finite], expected[~finite]):
        return np.inf  # NaN is not equal to itself either: no flow should give it
    difference = np.abs(got[finite] - expected[finite])
    if not np.all(np.isfinite(difference)):
        return np.inf
    return float(difference.max(initial=0.0) / max(1.0, np.abs(expected[finite]).max(initial=0.0)))


def _batch_sizes(path, n_rows: int) -> list[int]:
    fixed = batch_size(path)
    if fixed is None:
        return sorted({1, min(7, n_rows), n_rows})
    if fixed > n_rows:
        raise ValueError(f"Expected at least {fixed} rows, which is what {path} takes; got {n_rows}.")
    return [fixed]


def _runtimes(path) -> dict[str, Callable[[list[Call]], list[dict]]]:
    run = runner(path)

    def here(calls):
        return [run(name, **inputs) for name, inputs in calls]

    if not Path(path).is_dir():
        return {"LiteRT": here}
    runtimes = {"TensorFlow": here}
    if c_session.library_path() is not None:
        runtimes["TensorFlow C library"] = lambda calls: _in_c_library(path, calls)
    return runtimes


def _in_c_library(path, calls: list[Call]) -> list[dict[str, np.ndarray]]:
    with tempfile.TemporaryDirectory() as folder:
        inputs, outputs = Path(folder) / "inputs.npz", Path(folder) / "outputs.npz"
        np.savez(inputs, **{f"{i}/{s}/{name}": v for i, (s, given) in enumerate(calls) for name, v in given.items()})
        command = [sys.executable, c_session.__file__, str(path), str(inputs), str(outputs)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"Expected that TensorFlow's C library runs {path}; got {done.stderr.strip()[-500:]}")
        found = [{} for _ in calls]
        with np.load(outputs) as arrays:
            for key in arrays.files:
                i, _, name = key.split("/")
                found[int(i)][name] = arrays[key]
    return found


def runner(path) -> Callable:
    """A function of (signature, **inputs) that runs an export and returns its outputs as arrays, by name.

    Args:
      path: a SavedModel's folder, or a `.tflite` file; the latter is run by `ai_edge_litert` if it is installed, else
        by TensorFlow's own interpreter.

    A file is looked through first; one from a stranger that passes may still end this process: `IsolatedRunner`.

    Raises:
      ValueError: if there is none, or it is refused.
    """
    if Path(path).is_dir():
        loaded = _saved_model(path)

        def run(name, **inputs):
            return call_signature(loaded, name, inputs)

        return run
    interpreter = _interpreter(path)

    def run(name, **inputs):
        lengths = {key: np.shape(value)[:1] for key, value in inputs.items()}
        if len(set(lengths.values())) > 1:  # LiteRT ends the process
            raise ValueError(f"Expected inputs with equally many rows; got {lengths}.")
        return interpreter.get_signature_runner(name)(**{key: native(value) for key, value in inputs.items()})

    return run


def batch_size(path) -> int | None:
    """The number of rows that an export takes, or None if it takes any.

    Args:
      path: a SavedModel's folder, or a `.tflite` file.

    Raises:
      ValueError: if there is none.
    """
    if Path(path).is_dir():
        inputs = _saved_model(path).signatures["log_prob"].structured_input_signature[1]
        return inputs["x"].shape[0]
    details = _interpreter(path).get_signature_runner("log_prob").get_input_details()
    n = int(details["x"]["shape_signature"][0])
    return None if n < 0 else n


def _saved_model(path):
    check_saved_model(path)
    try:
        return tf.saved_model.load(str(path))
    except Exception as error:  # of any kind: what is in the folder decides
        raise ValueError(f"Expected a SavedModel in {path}; got {str(error)[:500]}") from error


def _interpreter(path):
    content = read_tflite(path)
    try:
        # The same bytes as were looked at, whatever happens to the file.
        return litert().Interpreter(model_content=content)
    except Exception as error:
        raise ValueError(f"Expected a TFLite file; got {path}, which is none: {str(error)[:500]}") from error
