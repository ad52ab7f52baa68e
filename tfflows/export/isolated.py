"""Runs exports of strangers in a process of their own."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from tfflows.export import isolated_process
from tfflows.export.checking import check_saved_model
from tfflows.export.checking_tflite import check_tflite
from tfflows.export.isolated_process import FAILED, pack, receive, send, unpack


@contextlib.contextmanager
def isolated_runner(path, *, max_seconds: float = 120.0, max_bytes: int = 4 * 2**30) -> Iterator[Callable]:
    """A context in which an export runs as with `runner`, but in a process of its own, for files from strangers.

        with export.isolated_runner("strange.tflite") as run:
            log_density = run("log_prob", x=x)["log_prob"]

    The file is looked through as by `runner`. What it does to the C++ of TensorFlow or LiteRT in spite of that, ends
    that process and raises a `ValueError` in this one. The process is no sandbox for code: an export has none.

    Args:
      path: a SavedModel's folder, or a `.tflite` file.
      max_seconds: > 0; of loading, the start of the process included, and of each call. After it, the process is ended.
      max_bytes: > 0, memory of the process; on Linux only. TensorFlow alone takes about half a gigabyte.

    Returns:
      a context manager of a function of (signature, **inputs), which returns arrays by name; threads take turns.

    Raises:
      ValueError: if there is no export, or it is refused, cannot be run, takes too long or too much, or ends its
        process: when it is loaded or called.
    """
    for name, value in (("max_seconds", max_seconds), ("max_bytes", max_bytes)):
        if not value > 0:
            raise ValueError(f"Expected {name} > 0; got {value}.")
    if Path(path).is_dir():
        check_saved_model(path)
        content = b""
    elif Path(path).is_file():
        # The same bytes are looked at and run, whatever happens to the file.
        content = Path(path).read_bytes()
        check_tflite(content)
    else:
        raise ValueError(f"Expected a SavedModel's folder or a TFLite file; got {path}, which is neither.")
    command = [sys.executable, isolated_process.__file__, str(path), str(int(max_bytes))]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL) as process:
        lock = threading.Lock()

        def ask(message: bytes) -> bytes:
            with lock:
                return _ask(process, message, path, max_seconds, max_bytes)

        def run(name, **inputs):
            answer = ask(pack(name, inputs))
            try:
                return unpack(answer)[1]
            except Exception as error:  # of any kind: whoever took over that process may answer anything
                raise ValueError(f"Expected arrays by name from {path}; got an answer that is none: {error}") from error

        try:
            ask(content)
            yield run
        finally:
            process.kill()
            with contextlib.suppress(OSError):  # of what could not be sent
                process.stdin.close()


def _ask(process, message: bytes, path, max_seconds: float, max_bytes: int) -> bytes:
    is_late = threading.Event()

    def end():
        is_late.set()
        process.kill()

    clock = threading.Timer(max_seconds, end)
    clock.daemon = True
    clock.start()
    try:
        send(process.stdin, message)
        answer = receive(process.stdout, max_bytes)
    except (EOFError, OSError):
        code = process.wait()
        with contextlib.suppress(ValueError):
            code = signal.Signals(-code).name
        reason = f"took more than {max_seconds:g} s" if is_late.is_set() else f"ended its process ({code})"
        raise ValueError(f"Expected an export that can be run; got {path}, which {reason}.") from None
    except BaseException:  # Ctrl-C too: its answer would be taken for that of the next call
        process.kill()
        raise
    finally:
        clock.cancel()
    if answer[:1] == FAILED:
        raise ValueError(f"Expected an export that can be run; got {path}: {answer[1:].decode(errors='replace')}")
    return answer[1:]
