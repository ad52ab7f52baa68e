"""What the fuzz targets share: only ValueError may come out, and what is found is told."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

try:
    import atheris
except ImportError:  # the corpus is tested without it
    atheris = None


def instrumented(modules: list[str]):
    """A context: where these modules are imported, it is counted which of their lines an input reaches."""
    return contextlib.nullcontext() if atheris is None else atheris.instrument_imports(include=modules)


_count = itertools.count(1)


def forget() -> None:
    """Frees, from time to time, what Keras keeps of the models that were loaded."""
    import keras

    if next(_count) % 500 == 0:
        keras.utils.clear_session()
        gc.collect()


def run(target, mutate=None, max_length: int = 1 << 16) -> None:
    """Fuzzes `target`, a function of bytes, with libFuzzer's options of the command line.

    Args:
      target: returns, or raises a ValueError; anything else is a crash, and its input is written to a file.
      mutate: of (data, max_size, seed), new bytes; by default libFuzzer's own.
      max_length: of an input, in bytes.
    """

    def one(data):
        with contextlib.suppress(ValueError):
            target(data)

    limits = [
        "-timeout=300",
        "-rss_limit_mb=3000",
        "-reduce_inputs=0",
        "-print_final_stats=1",
        f"-max_len={max_length}",
    ]
    options = {} if mutate is None else {"custom_mutator": mutate}
    atheris.Setup([sys.argv[0], *limits, *sys.argv[1:]], one, **options)
    atheris.Fuzz()
