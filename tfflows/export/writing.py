"""Writes exports; what was there before stays if one fails."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfflows import atomic, replicas
from tfflows.checks import check_batch_size
from tfflows.export import verbs
from tfflows.export.litert import tflite
from tfflows.export.parity import runner
from tfflows.nets.convolutional import uncompiled

FORMATS = ("tf_saved_model", "litert")
WEIGHTS = ("float32", "float16", "int8")
N_DRAWS = 1000  # that measure what smaller weights cost
# Beside the graph, where SavedModels keep what TensorFlow does not read: what columns are called and where they live.
TABLE = "assets.extra/table.json"


def export(flow, path, format: str, *, overwrite: bool, batch_size: int | None, weights: str, verbose: bool) -> None:
    """`FlowModel.export`, whose arguments these are."""
    if not replicas.is_chief(flow.distribute_strategy):
        return
    if format not in FORMATS:
        raise ValueError(f"Expected a format of {FORMATS}; got {format!r}.")
    if weights not in WEIGHTS:
        raise ValueError(f"Expected weights of {WEIGHTS}; got {weights!r}.")
    if format != "litert" and (weights != "float32" or batch_size is not None):
        raise ValueError(f"Expected format 'litert' for other weights or a fixed batch_size; got {format!r}.")
    check_batch_size(batch_size)
    path = _checked_path(path, format, overwrite=overwrite)
    # Refused before anything is written.
    names = list(flow._signatures(batch_size))
    content = tflite(flow, batch_size=batch_size, weights=weights) if format == "litert" else None
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic.replacing(path) as made:
        if content is None:
            _write_saved_model(flow, made)
        else:
            made.write_bytes(content)
        loss = (
            _loss(flow, made, weights, batch_size) if verbose and weights != "float32" and "log_prob" in names else ""
        )
    if verbose:
        print(f"Exported {flow.name} to {path}: {', '.join(names)}.{loss}")


def _checked_path(path, format: str, *, overwrite: bool) -> Path:
    if "://" in str(path):
        raise ValueError(f"Expected a path of this machine; got {path}. Export there, then copy it.")
    path = Path(os.path.abspath(path))
    if format != "litert" and path.suffix == ".tflite":
        raise ValueError(f"Expected format='litert' for a .tflite file; got {format!r}.")
    if path.exists():
        if not overwrite:
            raise ValueError(f"Expected a path that is free, or overwrite=True; got {path}, which exists.")
        # What looks like something else is nobody's export.
        is_same = path.is_file() if format == "litert" else (path / "saved_model.pb").is_file()
        if not is_same:
            raise ValueError(f"Expected an export of format {format!r} to overwrite; got {path}, which is none.")
    return path


def _loss(flow, path: Path, weights: str, batch_size: int | None) -> str:
    """What smaller weights cost: the mean log-density of the flow's own draws, in nats."""
    n = N_DRAWS if batch_size is None else batch_size * max(1, N_DRAWS // batch_size)
    context, given = None, ""
    contexts = flow.accepts.contexts
    if contexts is not None:
        labels = None if contexts.n_labels is None else np.arange(n) % contexts.n_labels
        context = np.zeros([n, *(size or 1 for size in contexts.shape)]) if labels is None else labels
        context = np.asarray(contexts.rows(context, n))
        given = " given a context of zeros" if labels is None else " of all classes"
    x = flow._sample_rows(tf.range(n), context, tf.ones([n])).numpy()
    run, step = runner(path), batch_size or n
    parts = []
    for i in range(0, n, step):
        rows = {"x": x[i : i + step]} | ({} if context is None else {"context": context[i : i + step]})
        parts.append(run("log_prob", **rows)["log_prob"])
    change = np.concatenate(parts) - flow.log_prob(x, context).numpy()
    return (
        f" With weights as {weights}, log_prob of {n} draws of the flow{given} changes by {change.mean():+.2g} nats in "
        f"the mean, by {np.abs(change).max():.2g} at most."
    )


def _write_saved_model(flow, path: Path) -> None:
    # Not Keras' ExportArchive, which reaches each variable on two ways and writes it twice.
    module, functions = tf.Module(), {}
    module.weights = [weight.value for weight in flow.weights]
    for name, (function, specs) in flow._signatures(None).items():
        functions[name] = tf.function(_checked(function, specs), input_signature=specs, autograph=False)
    functions["serving_default"] = next(iter(functions.values()))
    with uncompiled():  # TensorFlow traces as it saves
        tf.saved_model.save(module, str(path), signatures=functions, options=verbs.save_options())
    if len(flow.accepts.event_shape) == 1:
        (path / TABLE).parent.mkdir()
        (path / TABLE).write_text(json.dumps(_table(flow), indent=1) + "\n")


def _table(flow) -> dict:
    """What a table of the flow's rows is: its schema, and each column's domain, whose missing bounds are null."""
    domains = [dataclasses.asdict(domain) for domain in getattr(flow, "domain", None) or ()]
    for domain in domains:
        domain |= {side: domain[side] if math.isfinite(domain[side]) else None for side in ("low", "high")}
    return {"schema": None if flow.schema is None else flow.schema.get_config(), "domain": domains or None}


def _checked(function, specs):
    """A server feeds whatever it is sent: a row of one number would else be spread over all columns or rows."""

    def checked(*values):
        values = [tf.ensure_shape(value, spec.shape) for value, spec in zip(values, specs, strict=True)]
        n = tf.shape(values[0])[0]
        equal = [
            tf.debugging.assert_equal(
                tf.shape(value)[0], n, f"Expected as many rows of {spec.name} as of {specs[0].name}."
            )
            for value, spec in zip(values[1:], specs[1:], strict=True)
        ]
        with tf.control_dependencies(equal):
            return function(*map(tf.identity, values))

    return checked


class Exportable:
    """What can be exported: models with `_signatures(batch_size)`, named `verbs.Signature`s."""

    def export(
        self,
        filepath,
        format: str = "tf_saved_model",
        verbose: bool = True,
        *,
        overwrite: bool = False,
        batch_size: int | None = None,
        weights: str = "float32",
    ) -> None:
        """Writes the flow for where Python is not: a SavedModel for TF Serving, or a TFLite file.

        Signatures are log_prob (also serving_default), sample, encode, decode, and for images interpolate; of point
        clouds sample (`x` `[n, n_points, D]`), encode (`x` to `latent`) and decode (`latent` and `seed` to `x`). Inputs
        and outputs are named, and all have rows as their leading axis. `sample` draws a row for each `seed` (int32, a
        negative one is new in each call) and `temperature`; the same seed gives the same row everywhere.
        Standardisation and base are inside; a SavedModel of a table has its columns' names and domains in
        `assets.extra/table.json`.

        Args:
          filepath: a folder for the SavedModel, a file for TFLite.
          format: "tf_saved_model", or "litert".
          verbose: whether it says what was written.
          overwrite: whether what is there is replaced; it stays as it was if the export fails.
          batch_size: of "litert", a fixed number of rows, which the browser needs; None for any number.
          weights: of "litert", "float32", "float16", or "int8", where activations are quantised on their way too; what
            that changes is measured on draws of the flow and printed.

        Exports check shapes and nothing else: of data with NaN they give NaN. `sample` has seeds of its own, whose rows
        are not those of `flow.sample(seed=...)`; `interpolate` has one context for both ends. Of several workers the
        first one writes.

        Raises:
          ValueError: for a path that exists (with `overwrite`, one that holds no export of the format), an unknown
            format, a float64 flow or operations that TFLite has not; nothing is written.
        """
        export(self, filepath, format, overwrite=overwrite, batch_size=batch_size, weights=weights, verbose=verbose)
