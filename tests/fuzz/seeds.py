"""Writes the corpus: small inputs from which the fuzz targets start."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

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


def _input(options: dict, content: bytes) -> bytes:
    return json.dumps(options).encode() + b"\n" + content


def write(inputs: dict[str, bytes], target: str) -> None:
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in inputs.items():
        (folder / name).write_bytes(content)


if __name__ == "__main__":
    write(parser_inputs(), "parsers")
