"""Runs an export in this process, for another one that asks through pipes: a script, and how the two write arrays.

    python isolated_process.py PATH MAX_BYTES PARENT

Of tfflows it imports only what looks through exports, and for a TFLite file not TensorFlow either, where LiteRT is
installed. A message is its length and its content. The first one from here says whether there is something to run;
each from the other side is a call. PARENT is the number of the process that asks: `tfflows.export.IsolatedRunner`.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import sys
import threading
import time
import types

import numpy as np

RAN, FAILED, REFUSED = b"\0", b"\1", b"\2"
LENGTH = 8  # bytes


def native(value) -> np.ndarray:
    """An array of numbers as C++ reads it; of Python's numbers float32 and int32, as TensorFlow makes them.

    Raises:
      ValueError: if it is something else.
    """
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"Expected numbers; got {array.dtype}.")
    dtype = array.dtype.newbyteorder("=")
    if not hasattr(value, "dtype") and array.dtype.kind in "fiu":
        dtype = np.dtype(np.float32 if array.dtype.kind == "f" else np.int32)
        if dtype == np.int32 and not np.array_equal(array.astype(dtype), array):
            raise ValueError(f"Expected whole numbers of 32 bits, or an array that says its own; got {value}.")
    return array.astype(dtype, copy=False)


def pack(text: str, arrays: dict) -> bytes:
    """A text and arrays by name, as bytes."""
    arrays = {name: native(value) for name, value in arrays.items()}
    about = [text, [[name, value.dtype.str, list(value.shape)] for name, value in arrays.items()]]
    head = json.dumps(about).encode()
    return b"".join([len(head).to_bytes(LENGTH, "little"), head, *(value.tobytes() for value in arrays.values())])


def unpack(content: bytes) -> tuple[str, dict[str, np.ndarray]]:
    """What `pack` was given. Nothing in the bytes is run, or believed before it is there.

    Raises:
      ValueError: if they are not of `pack`.
    """
    start = LENGTH + int.from_bytes(content[:LENGTH], "little")
    text, about = json.loads(content[LENGTH:start])
    arrays = {}
    for name, dtype, shape in about:
        dtype = np.dtype(dtype)
        # Few and short, so that their product is.
        is_shape = len(shape) <= 32 and all(isinstance(n, int) and 0 <= n < 2**63 for n in shape)
        if dtype.kind not in "biuf" or not is_shape:
            raise ValueError(f"Expected arrays of numbers; got {dtype} of shape {shape}.")
        size = dtype.itemsize * math.prod(shape)
        # `frombuffer` refuses what is too short; a copy may be written to.
        arrays[name] = np.frombuffer(content[start : start + size], dtype).reshape(shape).copy()
        start += size
    return text, arrays


def send(stream, content: bytes) -> None:
    stream.write(len(content).to_bytes(LENGTH, "little"))
    stream.write(content)
    stream.flush()


def receive(stream, most: int) -> bytes:
    """The next message.

    Raises:
      EOFError: if the other process has ended.
      ValueError: if it is longer than `most`.
    """
    length = stream.read(LENGTH)
    n_bytes = int.from_bytes(length, "little")
    if n_bytes > most:
        raise ValueError(f"Expected at most {most:,} bytes of an answer; got {n_bytes:,}.")
    content = stream.read(n_bytes)
    if len(length) < LENGTH or len(content) < n_bytes:
        raise EOFError
    return content


def main(path: str, max_bytes: int, parent: int) -> None:
    # The folder of this script has modules whose names others may look for.
    if sys.path[:1] == [os.path.dirname(os.path.abspath(__file__))]:
        del sys.path[0]
    stdin = sys.stdin.buffer
    # What C++ prints must not be read as an answer.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    try:
        check, load = _saved_model(path) if os.path.isdir(path) else _tflite(path)
        _limit(max_bytes)
        try:
            content = check(path)
        except ValueError as error:
            send(answers, REFUSED + _text(error))
            return
        call = load(content)
        send(answers, RAN)
        while True:
            message = receive(stdin, sys.maxsize)
            try:
                name, inputs = unpack(message)
                answer = RAN + pack("", call(name, inputs))
            except Exception as error:
                answer = FAILED + _text(error)
            send(answers, answer)
    except (EOFError, BrokenPipeError):
        pass
    except Exception as error:
        send(answers, FAILED + _text(error))


def _text(error: Exception) -> bytes:
    return (str(error) or type(error).__name__)[:2000].encode(errors="replace")


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def _limit(max_bytes: int) -> None:
    """From here on, where the system knows such limits; what was imported counts."""
    try:
        import resource
    except ImportError:  # Windows
        return
    for limit, most in ((resource.RLIMIT_DATA, max_bytes), (resource.RLIMIT_CORE, 0)):
        hard = resource.getrlimit(limit)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        with contextlib.suppress(ValueError, OSError):  # macOS
            resource.setrlimit(limit, (most, most))


def _tflite(path: str):
    """What looks through a TFLite file and returns its content, and what makes that a function."""
    module = litert()
    _only_checks()
    from tfflows.export.checking_tflite import read_tflite

    def load(content):
        interpreter = module.Interpreter(model_content=content)
        return lambda name, inputs: interpreter.get_signature_runner(name)(**inputs)

    return read_tflite, load


def _saved_model(path: str):
    """What looks through a SavedModel, and what makes its folder a function."""
    import tensorflow as tf

    _only_checks()
    from tfflows.export.checking import check_saved_model

    return check_saved_model, lambda _: functools.partial(call_signature, tf.saved_model.load(path))


def _only_checks() -> None:
    """Makes tfflows packages without their `__init__`, which imports all of it: that takes seconds, and memory."""
    folder = os.path.dirname(os.path.abspath(__file__))
    for name, place in (("tfflows", os.path.dirname(folder)), ("tfflows.export", folder)):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [place]


def litert():
    """The module of LiteRT's `Interpreter`; TensorFlow's own where LiteRT is not installed."""
    try:
        from ai_edge_litert import interpreter
    except ImportError:
        from tensorflow import lite as interpreter
    return interpreter


def call_signature(loaded, name: str, inputs: dict) -> dict[str, np.ndarray]:
    """What a signature of a loaded SavedModel makes of inputs by name."""
    import tensorflow as tf

    outputs = loaded.signatures[name](**{key: tf.constant(value) for key, value in inputs.items()})
    return {key: value.numpy() for key, value in outputs.items()}


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
