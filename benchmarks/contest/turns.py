"""The libraries' processes as their parent sees them, timed in turn."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import threading
import time

import numpy as np
import peers

from contest.cases import QUANTITIES, Case

START_LIMIT = 900.0  # s, of importing and building; for a whole fit too


class WorkerError(Exception):
    """A worker that failed or took too long; the text goes into the results."""


class Worker:
    """A library's process, as the parent sees it. It sleeps between two commands."""

    def __init__(self, library: str, python: str, threads: int):
        self.started = time.perf_counter()
        # A worker's Python is to find this package and `peers`.
        path = os.pathsep.join([str(pathlib.Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed in __exit__)
        self._process = subprocess.Popen(
            [python, "-m", "contest.worker", library],
            env=peers.environment(threads) | {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu", "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            with contextlib.suppress(BrokenPipeError):
                stream.close()

    def do(self, command: str, *, limit: float, **arguments) -> dict:
        """Has a command done and returns the answer. A worker that takes longer than `limit` seconds is ended."""
        timer = threading.Timer(limit, self._process.kill)
        timer.start()
        begun = time.perf_counter()
        try:
            self._process.stdin.write(json.dumps({"do": command} | arguments) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            timer.cancel()
        if line:
            answer = json.loads(line)
            if "error" in answer:
                raise WorkerError(answer["error"])
            return answer
        if time.perf_counter() - begun >= limit:
            raise WorkerError(f"over {limit:.0f} s")
        code = self._process.wait()
        self._errors.seek(0)
        # A worker that was killed, as for want of memory, has not said why.
        reason = self._errors.read().strip().splitlines()[-1:] if code >= 0 else []
        raise WorkerError(" ".join([f"ended with code {code}", *reason]))


def measure(case: Case, pythons: dict[str, str], args: argparse.Namespace) -> dict[str, dict]:
    """Times the libraries on a case, in turn.

    Returns: for each library a dict of

      - first_result: seconds from the start of the process to the first log-densities;
      - first_call: of each quantity, the seconds of the first call on top of a usual one, so of compiling;
      - log_prob, step, sample: ms, their quartiles over the rounds, and rounds; or error;
      - memory: the peak in MB on top of the imports;
      - weights, idle_cpu, or error.
    """
    results = {}
    with contextlib.ExitStack() as stack:
        workers = {}
        for library, python in pythons.items():
            worker = stack.enter_context(Worker(library, python, case.threads))
            try:
                worker.do("load", limit=START_LIMIT, threads=case.threads)
                built = worker.do("build", limit=START_LIMIT, case=dataclasses.asdict(case))
            except WorkerError as error:
                results[library] = {"error": str(error)}
                continue
            workers[library] = worker
            results[library] = {
                "first_result": time.perf_counter() - worker.started,
                "first_call": {"log_prob": built["seconds"]},
                "weights": built["weights"],
            }
        for what in QUANTITIES:
            time_in_turn(what, case, workers, results, args)
    return results


def time_in_turn(what: str, case: Case, workers: dict[str, Worker], results: dict[str, dict], args) -> None:
    """Times one quantity, `args.rounds` times with each worker, and adds it to the results."""
    seconds = {library: [] for library in workers}
    spent = dict.fromkeys(workers, 0.0)
    for i in range(-1, args.rounds):  # before the first round they warm up
        for library in list(seconds):
            if spent[library] > args.limit:  # so slow that fewer rounds will do
                continue
            worker, result = workers[library], results[library]
            begun = time.perf_counter()
            try:
                if i < 0:
                    result["first_call"].setdefault(what, worker.do("warm", limit=args.limit, what=what)["seconds"])
                answer = worker.do("time", limit=args.limit, what=what, seconds=args.seconds if i >= 0 else 0.0)
                seconds[library].append(answer["seconds"])
                result["memory"], result["idle_cpu"] = answer["memory"], answer["idle_cpu"]
            except WorkerError as error:
                result[what] = {"error": str(error)}
                del seconds[library]
            spent[library] += time.perf_counter() - begun
    for library, values in seconds.items():
        values = values[1:] or values
        usual = statistics.median(values)
        calls = case.n_steps if what == "step" else 1
        first = results[library]["first_call"]
        first[what] = max(0.0, first[what] - calls * usual)
        quartiles = [1e3 * float(q) for q in np.percentile(values, [25, 75])]
        results[library][what] = {"ms": 1e3 * usual, "quartiles": quartiles, "rounds": len(values)}
