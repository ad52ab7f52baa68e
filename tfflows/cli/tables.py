"""Tables in files, read as Arrow's batches of rows: CSV, Parquet, NumPy."""

from __future__ import annotations

import collections
import contextlib
import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from tfflows.checks import listed

CSV = "a CSV file of a header and rows of equal length"
PARQUET = "a Parquet file"
NUMPY = "a NumPy file of numbers"
FREE_BYTES = 1 << 28  # that a compressed array may have, however little is stored of it
MOST_COMPRESSED = 100  # times that a larger one may be what is stored of it
CHUNK = 65_536  # rows at a time, at most
BLOCK = 8 << 20  # bytes of a CSV at a time
# What counts as missing in text, beside nothing at all.
MISSING = ["", "NA", "N/A", "NaN", "nan", "-nan", "NULL", "null", "None", "none", "#N/A", "<NA>"]


class Table:
    """A table in a file.

    A subclass sets `path`, `names`, `total` (of what `batches` counts, to show progress) and `is_named`: whether the
    names are from the file, and not made up.
    """

    is_named = True

    def read(self, names: Sequence[str]) -> pa.Table:
        """Columns, whole, in memory."""
        raise NotImplementedError  # abstract

    def batches(self, types: Mapping[str, pa.DataType], *, as_text: bool) -> Iterator[tuple[pa.RecordBatch, float]]:
        """All columns, some rows at a time, and how much of `total` is done.

        Args:
          types: of columns of a CSV, where the caller knows them.
          as_text: whether those of a CSV are left as they are written.
        """
        raise NotImplementedError  # abstract


class CSVTable(Table):
    """Text with commas, semicolons or tabs, whichever the header has, in UTF-8."""

    def __init__(self, path: Path):
        self.path, self.total = path, path.stat().st_size
        with open(path, "rb") as file:
            header = file.readline()
        self.delimiter = next((d for d in (b",", b";", b"\t") if d in header), b",").decode()
        with _refused(CSV, path), self._open({}) as reader:
            names = reader.schema.names
        self.names = _distinct(names, path)

    def read(self, names):
        with _refused(CSV, self.path):
            options = self._conversion({}, names)
            return pyarrow.csv.read_csv(self.path, parse_options=self._layout(), convert_options=options)

    def batches(self, types, *, as_text):
        types = dict.fromkeys(self.names, pa.string()) if as_text else types
        with _refused(CSV, self.path), pa.OSFile(str(self.path)) as file, self._open(types, file) as reader:
            for batch in reader:
                done = file.tell()
                for part in _parts(batch):
                    yield part, done

    def _open(self, types, file=None):
        return pyarrow.csv.open_csv(
            self.path if file is None else file,
            read_options=pyarrow.csv.ReadOptions(block_size=BLOCK),
            parse_options=self._layout(),
            convert_options=self._conversion(types, None),
        )

    def _layout(self):
        return pyarrow.csv.ParseOptions(delimiter=self.delimiter, newlines_in_values=True)

    def _conversion(self, types, names):
        return pyarrow.csv.ConvertOptions(
            column_types=types, include_columns=names, null_values=MISSING, strings_can_be_null=True
        )


class ParquetTable(Table):
    """A Parquet file, read by its row groups."""

    def __init__(self, path: Path):
        self.path = path
        with _refused(PARQUET, path), pyarrow.parquet.ParquetFile(path) as file:
            names, self.total = file.schema_arrow.names, file.metadata.num_rows
        self.names = _distinct(names, path)

    def read(self, names):
        with _refused(PARQUET, self.path), pyarrow.parquet.ParquetFile(self.path) as file:
            return file.read(columns=list(names))

    def batches(self, types, *, as_text):
        done = 0
        with _refused(PARQUET, self.path), pyarrow.parquet.ParquetFile(self.path) as file:
            for batch in file.iter_batches(batch_size=CHUNK):
                done += len(batch)
                yield batch, done


class ArrayTable(Table):
    """Arrays of a `.npy` file, mapped into memory as they are needed, or of a `.npz`, which are read whole.

    A matrix `[n, D]` is columns x0, x1, ..., in a `.npz` by its own name; one of structured dtype has names of its own.
    """

    def __init__(self, path: Path):
        self.path, self.columns = path, {}
        with _refused(NUMPY, path):
            if zipfile.is_zipfile(path):
                _check_sizes(path)
            found = np.load(path, mmap_mode="r", allow_pickle=False)
            arrays = {"x": found} if isinstance(found, np.ndarray) else dict(found.items())
        self.is_named = not isinstance(found, np.ndarray) or found.dtype.names is not None
        for name, array in arrays.items():
            self._add(name, array)
        lengths = {name: len(column) for name, column in self.columns.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"Expected arrays of equally many rows; got {path} with {lengths}.")
        self.names, self.total = list(self.columns), next(iter(lengths.values()))

    def _add(self, name, array):
        if array.dtype.names is not None and array.ndim == 1:
            for field in array.dtype.names:
                self._add(field, array[field])
        elif array.ndim == 1 and self.is_named:
            self.columns[name] = array
        elif array.ndim in (1, 2):
            columns = array[:, np.newaxis] if array.ndim == 1 else array
            self.columns |= {f"{name}{i}": columns[:, i] for i in range(columns.shape[1])}
        else:
            raise ValueError(f"Expected arrays [n] or [n, D]; got '{name}' of shape {array.shape} in {self.path}.")

    def read(self, names):
        with _refused(NUMPY, self.path):
            return pa.table({name: pa.array(np.ascontiguousarray(self.columns[name])) for name in names})

    def batches(self, types, *, as_text):
        for start in range(0, self.total, CHUNK):
            with _refused(NUMPY, self.path):
                rows = {n: np.ascontiguousarray(c[start : start + CHUNK]) for n, c in self.columns.items()}
                batch = pa.RecordBatch.from_pydict(rows)
            yield batch, start + CHUNK


KINDS = {".csv": CSVTable, ".tsv": CSVTable, ".parquet": ParquetTable, ".npy": ArrayTable, ".npz": ArrayTable}


def open_table(path: Path) -> Table:
    """The table in a file.

    Raises:
      ValueError: for a file that is missing, empty, of another kind, or not what its ending says.
    """
    if not path.is_file():
        raise ValueError(
            f"Expected a file of data; got {path}, which {'is none' if path.exists() else 'does not exist'}."
        )
    if path.suffix.lower() not in KINDS:
        raise ValueError(f"Expected data in a file ending in {', '.join(KINDS)}; got {path.name}.")
    if path.stat().st_size == 0:
        raise ValueError(f"Expected a table; got {path}, which is empty.")
    return KINDS[path.suffix.lower()](path)


def _distinct(names, path):
    twice = [name for name, count in collections.Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"Expected columns of different names; got {listed(twice)} more than once in {path}.")
    return list(names)


@contextlib.contextmanager
def _refused(expected, path):
    """What libraries say of a file that they cannot read: of any kind, because what is in the file decides."""
    try:
        yield
    except Exception as error:
        if isinstance(error, (FileNotFoundError, PermissionError)):
            raise
        hint = " Save it as UTF-8." if "UTF8" in str(error) else ""
        raise ValueError(f"Expected {expected}; got {path}: {error or type(error).__name__}.{hint}") from error


def _check_sizes(path):
    """Refuses a `.npz` that says it is far more than it holds: NumPy would take the memory before it looks."""
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.file_size > max(FREE_BYTES, MOST_COMPRESSED * member.compress_size):
                raise ValueError(f"'{member.filename}' of {member.file_size:,} bytes in {member.compress_size:,}")
            with archive.open(member) as file:
                shape, _, dtype = _header(file)
            if math.prod(shape) * dtype.itemsize > member.file_size:
                raise ValueError(f"'{member.filename}' of shape {shape} in {member.file_size:,} bytes")


def _header(file):
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"version {version} of NumPy's format")
    return read(file)


def _parts(batch):
    return (batch.slice(start, CHUNK) for start in range(0, len(batch), CHUNK))
