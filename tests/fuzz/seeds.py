"""Writes the corpus: small inputs from which the fuzz targets start."""

from __future__ import annotations

import io
import json
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

sys.path.insert(0, str(Path(__file__).parents[1]))  # for the tables of all bijectors

CORPUS = Path(__file__).parent / "corpus"

CSV = b"a,b,hour,kind\n1.5,2,0.5,x\n-3,4,23.5,y\n0.25,7,12,x\n"


def parser_inputs() -> dict[str, bytes]:
    table = {"a": [1.5, -3.0, 0.25], "b": [2, 4, 7], "kind": ["x", "y", "x"], "share": [0.25, 0.5, 0.75]}
    parquet, npy, npz, fields = (io.BytesIO() for _ in range(4))
    pyarrow.parquet.write_table(pa.table(table), parquet)
    np.save(npy, np.arange(6.0).reshape(3, 2))
    np.savez(npz, x=np.arange(6.0).reshape(3, 2), y=np.arange(3))
    np.save(fields, np.array([(1, 2.0), (3, 4.5)], dtype=[("a", "i4"), ("b", "f8")]))
    every = ["hour=circular:0:24", "kind=categorical", "a=interval:-5:5", "b=integer:0:9"]
    return {
        "csv": _input({"suffix": ".csv", "domain": every}, CSV),
        "csv_options": _input(
            {"suffix": ".csv", "columns": ["a,hour"], "context": ["kind"], "weights": "b", "drop_missing": True},
            CSV.replace(b"12", b"NA"),
        ),
        "csv_together": _input(
            {"suffix": ".csv", "domain": ["a,b,c=simplex", "d,e=sphere", "f=positive", "g=real"]},
            b"a;b;c;d;e;f;g\n0.2;0.3;0.5;0.6;0.8;1;2\n",
        ),
        "tsv": _input({"suffix": ".tsv", "as_text": True}, b"a\tb\n1\t2\n3\t4\n"),
        "parquet": _input({"suffix": ".parquet", "domain": ["kind=categorical"]}, parquet.getvalue()),
        "npy": _input({"suffix": ".npy", "columns": ["x1"]}, npy.getvalue()),
        "npy_fields": _input({"suffix": ".npy"}, fields.getvalue()),
        "npz": _input({"suffix": ".npz"}, npz.getvalue()),
    }


CASES = [
    *("elementwise_spline", "coupling_affine_context", "coupling_some_circular", "coupling_keras_net"),
    *("coupling_umnn_context", "autoregressive_spline", "lu_random", "qr", "matrix_exponential", "random_rotation"),
    *("permutation", "planar_context", "sylvester", "residual", "sliced", "standardize_whiten", "actnorm_image"),
    *(
        "bounded",
        "positive",
        "circle",
        "blockwise_context",
        "logit",
        "dequantize",
        "chain_with_stock_tfp",
        "multiscale",
    ),
    *("continuous_potential_context", "squeeze_inverted"),
]


def models() -> dict:
    """Small models of many kinds, by name."""
    import keras
    import tensorflow_probability as tfp
    from cases import MAPS

    import tfflows as tff
    from tfflows import bases

    found = {}
    for name in CASES:
        found[name] = tff.FlowModel(MAPS[name]())
    small = {"n_layers": 1, "hidden": (3,)}
    x = keras.Input((4,))
    net = keras.Model(x, keras.layers.Dense(2)(keras.layers.Dropout(0.1)(keras.layers.Dense(3, "tanh")(x * 2.0))))
    found["context_net"] = tff.FlowModel(tff.MAF(2, **small, context_dim=2), context_net=net)
    net = keras.Sequential([keras.Input((None, 2)), keras.layers.GRU(2)])
    base = bases.MixtureOfNormals(2, 2)
    found["sequence_net"] = tff.FlowModel(tff.MAF(2, **small, context_dim=2), base, context_net=net)
    domain = [tff.Domain.integer(0, 5), tff.Domain.categorical(3), tff.Domain.simplex(2), tff.Domain.circular(24.0)]
    found["domain"] = tff.FlowModel(tff.CouplingRQNSF(4, **small), domain=domain)
    base = tfp.distributions.Sample(tfp.distributions.StudentT(3.0, 0.0, 1.0), [2])
    found["stock_base"] = tff.FlowModel(tff.NICE(2, **small), base)
    gate = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    flows = [tff.FlowModel(tff.RealNVP(2, **small, context_dim=2)) for _ in range(2)]
    found["mixture"] = tff.FlowMixture(flows, gate)
    fitted = tff.FlowModel(tff.RealNVP(2, **small))
    fitted.fit(np.random.default_rng(0).normal(size=(64, 2)), epochs=1, verbose=0)
    found["fitted"] = fitted
    return found


def model_files() -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Configs of models, and whole files of the smallest."""
    configs, files = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        for name, model in models().items():
            model.save(path)
            with zipfile.ZipFile(path) as archive:
                configs[name] = json.dumps(json.loads(archive.read("config.json")), separators=(",", ":")).encode()
            if name in ("positive", "fitted", "permutation"):
                files[name] = path.read_bytes()
    return configs, files


def _input(options: dict, content: bytes) -> bytes:
    return json.dumps(options).encode() + b"\n" + content


def write(inputs: dict[str, bytes], target: str) -> None:
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in inputs.items():
        (folder / name).write_bytes(content)


if __name__ == "__main__":
    write(parser_inputs(), "parsers")
    configs, files = model_files()
    write(configs, "configs")
    write(files, "archives")
