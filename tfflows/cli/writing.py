"""Tables written to files, some rows at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

ENDINGS = (".csv", ".parquet", ".npy")


class Writer:
    """Writes batches of rows, which all have the columns of the first, to a file of the kind that its ending says."""

    def __init__(self, path: Path):
        self._kind = {".csv": CSVFile, ".parquet": ParquetFile, ".npy": ArrayFile}[path.suffix.lower()]
        self._path, self._file = path, None

    def __enter__(self):
        return self.write

    def write(self, batch: pa.RecordBatch) -> None:
        if self._file is None:
            self._file = self._kind(self._path, batch.schema)
        self._file.write(batch)

    def __exit__(self, *exception):
        if self._file is not None:
            self._file.close()


class CSVFile:
    """Commas, UTF-8; quotes only where they are needed, so that a table of text comes out as it went in."""

    def __init__(self, path, schema):
        self._file = open(path, "wb")  # noqa: SIM115, closed by `close`
        header = pa.RecordBatch.from_pydict({f"{i}": [name] for i, name in enumerate(schema.names)})
        self.write(header)

    def write(self, batch):
        cells = [_quoted(batch.column(name), name) for name in batch.schema.names]
        lines = pc.binary_join_element_wise(*cells, ",")
        lines = pc.binary_join_element_wise(lines, pa.scalar("\n"), "")
        self._file.write(_bytes(lines))

    def close(self):
        self._file.close()


class ParquetFile:
    """Columns of the types that they have."""

    def __init__(self, path, schema):
        self._file = pyarrow.parquet.ParquetWriter(path, schema)

    def write(self, batch):
        self._file.write_batch(batch)

    def close(self):
        self._file.close()


class ArrayFile:
    """A matrix of float64 `[n, columns]`."""

    def __init__(self, path, schema):
        for field in schema:
            if not (pa.types.is_integer(field.type) or pa.types.is_floating(field.type) or field.type == pa.bool_()):
                raise ValueError(
                    f"Expected columns of numbers for a .npy file; got {field.type} in '{field.name}'. Write a .csv."
                )
        self._file, self._rows, self._n_columns = open(path, "wb"), 0, len(schema)  # noqa: SIM115
        self._write_header()

    def _write_header(self):
        # NumPy leaves room in it for any number of rows, so that it can be written again.
        shape = (self._rows, self._n_columns)
        np.lib.format.write_array_header_1_0(self._file, {"descr": "<f8", "fortran_order": False, "shape": shape})

    def write(self, batch):
        columns = [c.cast(pa.uint8()) if c.type == pa.bool_() else c for c in batch.columns]
        matrix = np.stack([c.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False) for c in columns], axis=1)
        self._file.write(matrix.astype("<f8").tobytes())
        self._rows += len(batch)

    def close(self):
        self._file.seek(0)
        self._write_header()
        self._file.close()


def _quoted(column, name) -> pa.Array:
    """A column as CSV's cells."""
    is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    try:
        cells = column if column.type == pa.string() else column.cast(pa.string())
    except pa.ArrowNotImplementedError as error:
        raise ValueError(f"Expected numbers and text for a .csv; got {column.type} in '{name}'.") from error
    if is_text or pa.types.is_dictionary(column.type):
        special = pc.match_substring_regex(cells, '[",\r\n]')
        if pc.any(special).as_py():
            doubled = pc.binary_join_element_wise('"', pc.replace_substring(cells, '"', '""'), '"', "")
            cells = pc.if_else(special, doubled, cells)
    return pc.fill_null(cells, "")


def _bytes(lines: pa.Array) -> bytes:
    """All of the strings, one after the other."""
    _, offsets, data = lines.buffers()
    ends = np.frombuffer(offsets, np.int32)[lines.offset : lines.offset + len(lines) + 1]
    return data.to_pybytes()[ends[0] : ends[-1]] if data is not None else b""
