"""A library's process: `python -m contest.worker LIBRARY` answers each line of JSON with another."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time

import numpy as np
import peers

from contest.cases import FIT_BATCH, FIT_EPOCHS, FIT_ROWS, Case
from contest.libraries import FITS, LIBRARIES


def peak_memory() -> float | None:
    """Megabytes that this process has held at most so far; None where the system does not tell."""
    try:
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return None


class Subject:
    """What a worker does with its library; each public method answers a command."""

    def __init__(self, library: str):
        self.library = library
        self.n_calls = 0
        self.idle_cpu = 0.0  # s of processor time between the commands

    def load(self, threads: int) -> dict:
        """Imports the library."""
        started = time.perf_counter()
        peers.limit_threads(self.library, threads)
        __import__("tensorflow_probability" if self.library == "tfp" else self.library)
        self.imports = peak_memory()
        versions = peers.versions(*LIBRARIES[self.library][1])
        return {"seconds": time.perf_counter() - started, "versions": versions}

    def build(self, case: dict) -> dict:
        """Builds the flow and computes the first log-densities."""
        self.case = Case(**case | {"hidden": tuple(case["hidden"])})
        n_rows = self.case.n_steps * self.case.batch_size
        x = np.random.default_rng(0).normal(size=(n_rows, self.case.n_dim)).astype(np.float32)
        self.verbs = LIBRARIES[self.library][0](self.case, x)
        self.rows = x[: self.case.batch_size]
        return {"seconds": self._call("log_prob"), "weights": self.verbs.n_weights}

    def warm(self, what: str) -> dict:
        """The first call of a verb, compilation included."""
        started = time.perf_counter()
        self._call(what)
        return {"seconds": time.perf_counter() - started}

    def time(self, what: str, seconds: float) -> dict:
        """Seconds of a call, or of a training step: the median of the calls that fit into some seconds."""
        stop = time.perf_counter() + seconds
        calls = []
        while not calls or time.perf_counter() < stop:
            calls.append(self._call(what))
        memory = None if self.imports is None else peak_memory() - self.imports
        return {"seconds": statistics.median(calls), "memory": memory, "idle_cpu": self.idle_cpu}

    def fit(self) -> dict:
        """The small fit."""
        x = np.random.default_rng(0).normal(size=(FIT_ROWS, 2)).astype(np.float32)
        started = time.perf_counter()
        ends = FITS[self.library](x)
        total = time.perf_counter() - started
        n_steps = (FIT_EPOCHS - 1) * (FIT_ROWS // FIT_BATCH)
        return {"total": total, "first_epoch": ends[0] - started, "step": (ends[-1] - ends[0]) / n_steps}

    def _call(self, what: str) -> float:
        """Calls a verb once and looks whether its result makes sense. Returns the seconds, of one training step."""
        self.n_calls += 1
        if what == "step":
            seconds, loss = self.verbs.train()
            if not np.isfinite(loss):
                raise FloatingPointError(f"the loss is {loss}")
            return seconds / self.case.n_steps
        shape = (self.case.batch_size, self.case.n_dim)
        started = time.perf_counter()
        result = self.verbs.log_prob(self.rows) if what == "log_prob" else self.verbs.sample(self.n_calls)
        seconds = time.perf_counter() - started
        if result.shape != (shape[:1] if what == "log_prob" else shape):
            raise ValueError(f"{what} has the shape {result.shape}")
        if not np.isfinite(result).all():
            raise FloatingPointError(f"{what} is not finite")
        return seconds


def work(library: str) -> None:
    """Answers commands until there are no more."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    subject = Subject(library)
    answered = time.process_time()
    for line in sys.stdin:
        subject.idle_cpu += time.process_time() - answered
        command = json.loads(line)
        try:
            found = getattr(subject, command.pop("do"))(**command)
        except Exception as error:  # of any library; it is a line of the results
            # TensorFlow's begin with the whole way there.
            found = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[-200:]}"}
        answered = time.process_time()
        print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    work(sys.argv[1])
