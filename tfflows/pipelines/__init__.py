"""Pipelines of data larger than memory: shards of Parquet, NPY or TFRecord files as batches for `fit`.

Files are read block by block. An epoch takes the blocks in an order of its own, mixes as many at a time as `buffer`
rows hold, and cuts them into batches: rows that lie side by side in a file meet different ones each epoch, and what is
in memory follows from the buffer, not from the files. The order depends on the seed and the epoch alone.
"""

from tfflows.pipelines.arrays import npy
from tfflows.pipelines.records import tfrecord, write_tfrecord
from tfflows.pipelines.tables import parquet

__all__ = ["npy", "parquet", "tfrecord", "write_tfrecord"]
