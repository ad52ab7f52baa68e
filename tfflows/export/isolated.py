"""Runs exports of strangers in a process of their own."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import sys
import threading

import numpy as np

from tfflows.export import isolated_process
from tfflows.export.isolated_process import FAILED, REFUSED, pack, receive, send, unpack


class IsolatedRunner:
    """Runs an export as `runner` does, but in a process of its own, for files from strangers.

        with export.IsolatedRunner("strange.tflite") as run:
            log_density = run("log_prob", x=x)["log_prob"]

    The file is looked through as by `runner`, in that process too and within its limits: this one does not read it.
    Whatever it does to TensorFlow or LiteRT in spite of that ends its own process, and is a `ValueError` in this one. A
    call is `run(signature, **inputs)` and returns arrays by name; threads take turns. `close()`, or the end of a
    `with`, ends the process.

    Args:
      path: a SavedModel's folder, or a `.tflite` file.
      max_seconds: > 0, of the start of the process, with looking through the file and loading it; and of each call.
        After it, the process is ended.
      max_bytes: > 0, of the memory that is the process' own, stacks of threads included, on Linux only; TensorFlow
        alone takes more than half a gigabyte. And of an answer, everywhere.

    Raises:
      ValueError: if there is no export, or it is refused, cannot be run, takes too long or too much, or ends its
        process, at the start or at a call; and for arguments outside these ranges.
    """

    def __init__(self, path, *, max_seconds: float = 120.0, max_bytes: int = 4 * 2**30):
        for name, value in (("max_seconds", max_seconds), ("max_bytes", max_bytes)):
            if not 0 < value < math.inf:
                raise ValueError(f"Expected {name} > 0, and finite; got {value}.")
        self._path, self._max_seconds, self._max_bytes = path, max_seconds, int(max_bytes)
        self._lock, self._end = threading.Lock(), ""
        command = [sys.executable, isolated_process.__file__, path, self._max_bytes, os.getpid()]
        self._process = subprocess.Popen(
            list(map(str, command)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},  # NumPy's would take memory for each of many cores
            start_new_session=True,  # Ctrl-C is for this process
        )
        try:
            self._ask(None)
        except BaseException:
            self.close()
            raise

    def __call__(self, name: str, /, **inputs) -> dict[str, np.ndarray]:
        answer = self._ask(pack(name, inputs))
        try:
            return unpack(answer)[1]
        except Exception as error:  # of any kind: a process that was taken over may answer anything
            self._kill("gave an answer that is none")
            raise self._error() from error

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def close(self) -> None:
        """Ends the process; it may be called twice."""
        self._kill("was closed")
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):  # of what could not be sent
                stream.close()
        self._process.wait()

    def _ask(self, message: bytes | None) -> bytes:
        """The answer to a message; to None the first one, which comes by itself."""
        with self._lock:
            if self._end:
                raise self._error()
            clock = threading.Timer(self._max_seconds, self._kill, [f"took more than {self._max_seconds:g} s"])
            clock.daemon = True
            clock.start()
            try:
                if message is not None:
                    send(self._process.stdin, message)
                answer = receive(self._process.stdout, self._max_bytes)
            except (EOFError, OSError):
                self._kill(self._last_words())
                raise self._error() from None
            except (ValueError, MemoryError):
                self._kill("gave an answer that is too long")
                raise self._error() from None
            except BaseException:  # Ctrl-C: the answer would be taken for that of the next call
                self._kill("was interrupted")
                raise
            finally:
                clock.cancel()
        if answer[:1] == REFUSED:
            raise ValueError(answer[1:].decode(errors="replace"))
        if answer[:1] == FAILED:
            raise ValueError(
                f"Expected an export that can be run; got {self._path}: {answer[1:].decode(errors='replace')}"
            )
        return answer[1:]

    def _error(self) -> ValueError:
        return ValueError(f"Expected an export that can be run; got {self._path}, which {self._end}.")

    def _last_words(self) -> str:
        """How the process ended, if it is about to by itself."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
        code = self._process.returncode
        with contextlib.suppress(ValueError, TypeError):
            code = signal.Signals(-code).name
        return f"ended its process ({code})"

    def _kill(self, reason: str) -> None:
        """Ends the process, and what it started; of reasons the first is kept."""
        self._end = self._end or reason
        if self._process.poll() is None:
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()
