"""Writes exports; a reader of the path sees the old one or the new one."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfflows.export.litert import tflite
from tfflows.export.parity import runner
from tfflows.export.signatures import save_options, signatures
from tfflows.inputs import check_batch_size
from tfflows.nets import uncompiled

FORMATS = ("tf_saved_model", "litert")
WEIGHTS = ("float32", "float16", "int8")


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
        functions[name] = tf.function(_checked(function, specs), input_signature=specs, autograph=False)
    functions["serving_default"] = functions["log_prob"]
    with uncompiled():  # TensorFlow traces as it saves
        tf.saved_model.save(module, str(path), signatures=functions, options=save_options())


def _checked(function, specs):
    """A server feeds whatever shape it is sent: a row of one number would else be spread over all columns."""

    def checked(*values):
        return function(*(tf.ensure_shape(value, spec.shape) for value, spec in zip(values, specs, strict=True)))

    return checked
