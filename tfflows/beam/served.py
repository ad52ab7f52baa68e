"""Exported flows as workers run them: SavedModels, by TensorFlow alone."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

from tfflows.checks import listed
from tfflows.domains import Domain
from tfflows.export.writing import TABLE
from tfflows.schema import Schema


class Description(NamedTuple):
    """What a SavedModel says of itself, without being loaded.

    Args:
      path: its folder, which workers have to reach too.
      inputs, outputs: for each signature, the shape `[None, ...]` and the dtype of each of its tensors, by name.
      schema: of the table's columns, or None if they have no names.
      domain: where columns live, or None if that is not known.
      fingerprint: of its files; another model has another one.
    """

    path: str
    inputs: dict[str, dict[str, tuple[tuple, np.dtype]]]
    outputs: dict[str, dict[str, tuple[tuple, np.dtype]]]
    schema: Schema | None
    domain: tuple[Domain, ...] | None
    fingerprint: str


def describe(path) -> Description:
    """Reads the description of the SavedModel in a folder, `flow.export`'s.

    Raises:
      ValueError: if there is none, or it has no signature `log_prob` of rows of numbers.
    """
    path = str(path).rstrip("/")
    file = f"{path}/saved_model.pb"
    if not tf.io.gfile.exists(file):
        raise ValueError(f"Expected the folder of a SavedModel, as `flow.export` writes it; got {path}.")
    try:
        graph = saved_model_pb2.SavedModel.FromString(_bytes(file)).meta_graphs[0]
    except (DecodeError, IndexError) as error:
        raise ValueError(f"Expected a SavedModel in {path}; got {file}, which is none.") from error
    found = {"inputs": {}, "outputs": {}}
    for name, signature in graph.signature_def.items():
        if name.startswith("__"):  # TensorFlow's own
            continue
        for part, tensors in found.items():
            tensors[name] = {key: _spec(info) for key, info in getattr(signature, part).items()}
    x = found["inputs"].get("log_prob", {}).get("x")
    if x is None or len(x[0]) != 2:
        raise ValueError(f"Expected a flow of a table, with log_prob of x [n, D]; got {path} with {found['inputs']}.")
    return Description(path, **found, **_table(path, x[0][1]), fingerprint=_fingerprint(path))


def _bytes(path: str) -> bytes:
    with tf.io.gfile.GFile(path, "rb") as file:
        return file.read()


def _spec(info):
    shape = tuple(None if axis.size < 0 else axis.size for axis in info.tensor_shape.dim)
    return shape, np.dtype(tf.as_dtype(info.dtype).as_numpy_dtype)


def _table(path: str, n_columns: int) -> dict:
    """The names and domains of columns, which exports of before had not."""
    if not tf.io.gfile.exists(f"{path}/{TABLE}"):
        return {"schema": None, "domain": None}
    try:
        table = json.loads(_bytes(f"{path}/{TABLE}"))
        schema = None if table["schema"] is None else Schema.from_config(table["schema"])
        domain = None if table["domain"] is None else tuple(_domain(**config) for config in table["domain"])
        if schema is not None and len(schema.columns) != n_columns:
            raise ValueError(f"{len(schema.columns)} columns")
        if domain is not None and sum(d.n_columns for d in domain) != n_columns:
            raise ValueError(f"domains of {sum(d.n_columns for d in domain)} columns")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"Expected {path}/{TABLE} of {n_columns} columns; got {error}.") from error
    return {"schema": schema, "domain": domain}


def _domain(kind, low, high, n_columns) -> Domain:
    return Domain(kind, -math.inf if low is None else low, math.inf if high is None else high, n_columns)


def _fingerprint(path: str) -> str:
    found = hashlib.sha256()
    for folder, _, names in sorted(tf.io.gfile.walk(path)):
        for name in sorted(names):
            found.update(f"{folder.removeprefix(path).strip('/')}/{name}\0".encode())
            found.update(hashlib.sha256(_bytes(f"{folder}/{name}")).digest())
    return found.hexdigest()


class Served:
    """A signature of a loaded SavedModel, run for few different numbers of rows.

    Rows beyond `most` go in several calls. The last of them is filled up with copies of its last row to `least` times a
    power of two, and the copies' results are left out: with XLA or on a GPU each number of rows costs time once.

    Args:
      path: the SavedModel's folder.
      signature: log_prob, encode, decode or sample.
      least, most: rows of a call.

    Raises:
      ValueError: if there is no such SavedModel or signature.
    """

    def __init__(self, path: str, signature: str, least: int, most: int):
        try:
            self._loaded = tf.saved_model.load(path)  # kept: its functions do not keep its weights
        except OSError as error:
            raise ValueError(f"Expected a SavedModel in {path}; got {error}") from error
        if signature not in self._loaded.signatures:
            raise ValueError(f"Expected a signature of {listed(self._loaded.signatures)}; got {signature!r}.")
        self._function = self._loaded.signatures[signature]
        self._dtypes = {name: spec.dtype for name, spec in self._function.structured_input_signature[1].items()}
        self._least, self._most = least, most

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs `[n, ...]` of inputs `[n, ...]`, by name."""
        n = len(next(iter(inputs.values())))
        if n == 0:
            specs = self._function.structured_outputs
            return {k: np.empty([0, *spec.shape[1:]], spec.dtype.as_numpy_dtype) for k, spec in specs.items()}
        parts = [self._call(inputs, start, min(start + self._most, n)) for start in range(0, n, self._most)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _call(self, inputs, start, stop):
        rows = np.minimum(np.arange(start, start + self.size(stop - start)), stop - 1)
        tensors = {name: tf.constant(value[rows], self._dtypes[name]) for name, value in inputs.items()}
        return {name: value.numpy()[: stop - start] for name, value in self._function(**tensors).items()}

    def size(self, n: int) -> int:
        """How many rows a call of n <= `most` rows has."""
        return min(self._least << max(0, math.ceil(math.log2(n / self._least))), self._most)
