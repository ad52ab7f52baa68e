"""Fuzzes the command line's parsers: options, and the files that rows are read from.

An input is a line of options in JSON, such as `{"suffix": ".csv", "domain": ["a=positive"]}`, and the bytes of a file.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path

import harness

with harness.instrumented(["tfflows.cli", "tfflows.domains", "tfflows.frames", "tfflows.schema"]):
    from tfflows.cli import console, data, tables
    from tfflows.cli.columns import arrow_types, describe, matrix
    from tfflows.schema import Schema

FOLDER = Path(tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
console.stderr.quiet = True
SUFFIXES = sorted(tables.KINDS)


def texts(value) -> list[str]:
    return [v for v in value if isinstance(v, str)] if isinstance(value, list) else []


def parse(content: bytes) -> None:
    line, _, rest = content.partition(b"\n")
    try:
        options = json.loads(line)
    except (ValueError, RecursionError):
        options = {}
    if not isinstance(options, dict):
        options = {}
    suffix = options.get("suffix")
    path = FOLDER / f"table{suffix if suffix in SUFFIXES else '.csv'}"
    path.unlink(missing_ok=True)  # a map of the last one may still be open
    path.write_bytes(rest)
    weights = options.get("weights")
    with contextlib.suppress(ValueError):
        table = tables.open_table(path)
        for batch, _ in table.batches({}, as_text=bool(options.get("as_text"))):
            schema = Schema(tuple(describe(name, batch.column(name)) for name in batch.schema.names))
            arrow_types(schema)
            matrix(schema.columns, batch)
    data.read(
        path,
        texts(options.get("columns")) or None,
        texts(options.get("context")) or None,
        weights if isinstance(weights, str) else None,
        texts(options.get("domain")),
        drop_missing=bool(options.get("drop_missing")),
    )


if __name__ == "__main__":
    harness.run(parse)
