"""Flows for where Python is not: SavedModels with signatures, and TFLite files of builtin operations."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfflows import bases, latents
from tfflows.inputs import check_batch_size
from tfflows.nets import unrolled

FORMATS = ("tf_saved_model", "litert")
WEIGHTS = ("float32", "float16", "int8")


class Signature(NamedTuple):
    """What an exported file does under one name.

    Args:
      function: of tensors, in the order of `inputs`, to a dict of named tensors.
      inputs: a `tf.TensorSpec` each, named, with a dynamic leading axis of rows.
    """

    function: Callable
    inputs: list[tf.TensorSpec]


def signatures(flow, batch_size: int | None = None) -> dict[str, Signature]:
    """The signatures of a flow: log_prob and sample, for a `FlowModel` encode and decode, for images interpolate.

    Every input and output has the same leading axis, so a server may join requests: `sample` draws a row for each
    seed, given its temperature and context.

    Args:
      flow: a `FlowModel` or `FlowMixture`.
      batch_size: a fixed number of rows, or None for any.

    Raises:
      ValueError: for a stock TFP distribution as base.
    """
    if any(isinstance(part.base, bases.FromTFP) for part in flow._flows()):
        raise ValueError("Expected a base of tfflows.bases, whose draws can be exported; got a stock TFP distribution.")
    accepts, dtype = flow.accepts, tf.as_dtype(flow.accepts.dtype)

    def spec(name, shape=(), of=dtype):
        return tf.TensorSpec([batch_size, *shape], of, name=name)

    x = spec("x", accepts.event_shape)
    context = [] if flow.context_dim is None else [spec("context", (flow.context_dim,))]
    found = {
        "log_prob": Signature(lambda x, context=None: {"log_prob": flow._log_prob(x, context)}, [x, *context]),
        "sample": Signature(
            lambda seed, temperature, context=None: {"x": flow._sample_rows(_fresh(seed), context, temperature)},
            [spec("seed", of=tf.int32), spec("temperature"), *context],
        ),
    }
    if hasattr(flow, "bijector"):
        z = spec("z", flow.base.event_shape)
        found["encode"] = Signature(lambda x, context=None: {"z": flow._encode(x, context)[0]}, [x, *context])
        found["decode"] = Signature(lambda z, context=None: {"x": flow._decode(z, context)[0]}, [z, *context])
        if accepts.is_discrete:
            ends = [spec("x0", accepts.event_shape), spec("x1", accepts.event_shape), spec("t")]

            def interpolate(x0, x1, t, context=None):
                z0, z1 = (flow._encode(x, context)[0] for x in (x0, x1))
                mixed = latents.spherical(z0, z1, tf.reshape(t, [-1] + [1] * (z0.shape.rank - 1)))
                return {"x": flow._decode(mixed, context)[0]}

            found["interpolate"] = Signature(interpolate, [*ends, *context])
    return found


def _fresh(seeds):
    """Seeds as they are; where they are negative, new ones in each call and each process."""
    high, low = (tf.random.uniform(tf.shape(seeds)) for _ in range(2))
    drawn = tf.cast(high * 2.0**15, tf.int32) * 2**16 + tf.cast(low * 2.0**16, tf.int32)
    return tf.where(seeds < 0, drawn, seeds)


def export(flow, path, format: str, *, overwrite: bool, batch_size: int | None, weights: str, verbose: bool) -> None:
    """`FlowModel.export`, whose arguments these are."""
    if format not in FORMATS:
        raise ValueError(f"Expected a format of {FORMATS}; got {format!r}.")
    if weights not in WEIGHTS:
        raise ValueError(f"Expected weights of {WEIGHTS}; got {weights!r}.")
    if weights != "float32" and format != "litert":
        raise ValueError(f"Expected format 'litert' for weights as {weights}; got {format!r}.")
    check_batch_size(batch_size)
    path = Path(path)
    if path.exists() and not overwrite:
        raise ValueError(f"Expected a path that is free, or overwrite=True; got {path}, which exists.")
    path.parent.mkdir(parents=True, exist_ok=True)
    # Made beside it and then renamed, so that whoever reads sees the old one or the new one.
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as folder:
        made = Path(folder) / path.name
        if format == "litert":
            made.write_bytes(tflite(flow, batch_size=batch_size, weights=weights))
        else:
            _write_saved_model(flow, made, batch_size)
        _replace(made, path, Path(folder) / "old")
    if not verbose:
        return
    print(f"Exported {flow.name} to {path}: {', '.join(signatures(flow))}.")
    if weights != "float32" and batch_size is None:
        _print_loss(flow, path, weights)


def _print_loss(flow, path: Path, weights: str) -> None:
    """What smaller weights cost: the mean log-density of the flow's own draws, in nats."""
    n = 1000
    context = None
    if flow.context_dim is not None:
        context = np.zeros((n, flow.context_dim), flow.accepts.dtype)
    x = flow._sample_rows(tf.range(n), context, tf.ones([n])).numpy()
    given = {"x": x} if context is None else {"x": x, "context": context}
    change = runner(path)("log_prob", **given)["log_prob"] - flow.log_prob(x, context).numpy()
    print(
        f"With weights as {weights}, log_prob of {n} draws of the flow changes by {change.mean():+.2g} nats in the "
        f"mean, by {np.abs(change).max():.2g} at most."
    )


def _replace(new: Path, path: Path, aside: Path) -> None:
    if path.exists():
        os.replace(path, aside)
    try:
        os.replace(new, path)
    except OSError:
        if aside.exists():
            os.replace(aside, path)
        raise


def _write_saved_model(flow, path: Path, batch_size: int | None) -> None:
    # Not Keras' ExportArchive, which reaches each variable on two ways and writes it twice.
    module, functions = tf.Module(), {}
    module.weights = [weight.value for weight in flow.weights]
    for name, (function, specs) in signatures(flow, batch_size).items():
        functions[name] = tf.function(function, input_signature=specs, autograph=False)
    functions["serving_default"] = functions["log_prob"]
    tf.saved_model.save(module, str(path), signatures=functions, options=_options())


def _options():
    # Gradients of ours refer to tensors inside loops, and nobody trains an export.
    return tf.saved_model.SaveOptions(experimental_custom_gradients=False)


def tflite(flow, *, batch_size: int | None = None, weights: str = "float32") -> bytes:
    """A TFLite file with the signatures of `signatures`, of builtin operations only.

    Raises:
      ValueError: if one needs an operation that TFLite has not; says which.
    """
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    module, functions = tf.Module(), {}
    for name, (function, inputs) in signatures(flow, batch_size).items():
        with unrolled():
            concrete = tf.function(function, input_signature=inputs, autograph=False).get_concrete_function()
        # Weights as constants: the converter leaves those inside loops as variables that nobody sets.
        functions[name] = _with_names(convert_variables_to_constants_v2(concrete), concrete, inputs)
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures=functions, options=_options())
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
    return content


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


class Parity(NamedTuple):
    """How far an export is from the flow.

    Args:
      signature: log_prob, encode or decode.
      difference: largest difference, divided by the largest number (or 1, if that is larger).
    """

    signature: str
    difference: float


def verify(path, flow, x, context=None) -> list[Parity]:
    """Compares an export with the flow it was made from, number by number.

    Args:
      path: a SavedModel's folder, or a `.tflite` file.
      flow: the `FlowModel` or `FlowMixture`.
      x: `[n, *event]`, data to try.
      context: `[n, context_dim]`, if the flow is conditional.

    Returns:
      one `Parity` for each of log_prob, encode and decode that the flow has.
    """
    x = np.asarray(flow.accepts.value(x), flow.accepts.dtype)
    context = flow.accepts.context(context, len(x))
    given = {} if context is None else {"context": np.asarray(context, flow.accepts.dtype)}
    expected = {"log_prob": ("log_prob", {"x": x}, flow.log_prob(x, context))}
    if hasattr(flow, "bijector"):
        z = flow.encode(x, context)
        expected["encode"] = ("z", {"x": x}, z)
        expected["decode"] = ("x", {"z": z.numpy()}, flow.decode(z, context))
    run = runner(path)
    found = []
    for name, (output, inputs, value) in expected.items():
        value = np.asarray(value)
        difference = np.abs(run(name, **inputs, **given)[output] - value).max() / max(1.0, np.abs(value).max())
        found.append(Parity(name, float(difference)))
    return found


def runner(path) -> Callable:
    """A function of (signature, **inputs) that runs an export and returns its outputs as arrays, by name."""
    if Path(path).is_dir():
        loaded = tf.saved_model.load(str(path))

        def run(name, **inputs):
            outputs = loaded.signatures[name](**{k: tf.constant(v) for k, v in inputs.items()})
            return {k: v.numpy() for k, v in outputs.items()}

        return run
    interpreter = _interpreter(path)

    def run(name, **inputs):
        return interpreter.get_signature_runner(name)(**inputs)

    return run


def _interpreter(path):
    try:
        from ai_edge_litert import interpreter as litert
    except ImportError:
        litert = tf.lite
    return litert.Interpreter(model_path=str(path))
