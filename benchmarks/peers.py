"""What the benchmarks against other libraries share: their environment, worker processes, the written table.

The peers need PyTorch or JAX, tfflows needs TensorFlow. So each measurement is a worker, a process of its own in
its library's Python, which prints one line of JSON.
"""

from __future__ import annotations

import datetime
import json
import math
import os
import pathlib
import platform
import queue
import shutil
import subprocess
import time
import venv
from concurrent import futures

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = pathlib.Path(__file__).parent / "results"
# What each framework's environment holds. TFP needs none: tfflows' own has it.
REQUIREMENTS = {
    "torch": (
        "torch==2.13.0",
        "zuko==1.6.0",
        "nflows==0.14",
        "normflows==1.7.3",
        "torchflows==1.2.1",
        "numpy==2.4.6",
    ),
    "jax": (
        "jax==0.10.2",
        "jaxlib==0.10.2",
        "flowjax==19.1.2",
        "equinox==0.13.8",
        "distrax==0.1.9",
        "optax==0.2.8",
        "numpy==2.4.6",
    ),
    "posteriors": (
        "pocomc==1.2.6",
        "dynesty==3.1.0",
        "torch==2.13.0",
        "zuko==1.6.0",
        "numpy==2.4.6",
    ),
}
FRAMEWORKS = {
    "tfflows": "tensorflow",
    "tfp": "tensorflow",
    "flowjax": "jax",
    "distrax": "jax",
    "zuko": "torch",
    "nflows": "torch",
    "normflows": "torch",
    "torchflows": "torch",
}
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Budget:
    """A wall time to train in, over which the learning rate falls to zero as half a cosine.

    Args:
      seconds: the time, from `start` on.
      learning_rate: at its greatest.
      warm_up: the fraction of the time in which it rises from zero first, counted from the end of the first step, which
        may have compiled for longer than that.
    """

    def __init__(self, seconds: float, learning_rate: float, warm_up: float = 0.0):
        self.seconds, self.learning_rate, self.warm_up = seconds, learning_rate, warm_up
        self.n_steps = 0

    def start(self):
        self.started = time.perf_counter()

    def step(self, n_steps: int = 1) -> float | None:
        """Counts steps. Returns the learning rate of the next ones, or None when time is up."""
        self.elapsed = time.perf_counter() - self.started
        if self.n_steps == 0:
            self.first_step, self.n_first = self.elapsed, n_steps
        self.n_steps += n_steps
        fraction = self.elapsed / self.seconds
        if fraction >= 1.0:
            return None
        fall = 0.5 * (1.0 + math.cos(math.pi * fraction))
        risen = (self.elapsed - self.first_step) / self.seconds / self.warm_up if self.warm_up else 1.0
        return self.learning_rate * min(risen, fall)

    def report(self) -> dict:
        ms = 1e3 * (self.elapsed - self.first_step) / max(self.n_steps - self.n_first, 1)
        return {"steps": self.n_steps, "first_step": round(self.first_step, 2), "ms_per_step": round(ms, 2)}


def peer_python(path: str | None = None, framework: str = "torch") -> str:
    """The Python that has a framework's peers: `path`, or that in `.peers/`, which the first call makes with pip."""
    if path is not None:
        return path
    folder = ROOT / ".peers" / framework
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    requirements = REQUIREMENTS[framework]
    # Written last: an installation that was interrupted is begun again.
    installed = folder / "installed.txt"
    if not installed.exists() or installed.read_text().split() != list(requirements):
        print(f"Installing {', '.join(requirements)} into {folder}", flush=True)
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *requirements], check=True)
        installed.write_text("\n".join(requirements))
    return str(python)


def limit_threads(library: str, n_threads: int) -> None:
    """Called by a worker before its library computes anything; its environment has limited OpenMP already."""
    framework = FRAMEWORKS[library]
    if framework == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(n_threads)
        tf.config.threading.set_inter_op_parallelism_threads(n_threads)
    elif framework == "torch":
        import torch

        torch.set_num_threads(n_threads)
    elif hasattr(os, "sched_setaffinity"):  # JAX has no setting: it makes a thread for each core that it may use
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:n_threads])


def environment(n_threads: int) -> dict[str, str]:
    """A worker's environment variables."""
    return dict(os.environ, TF_CPP_MIN_LOG_LEVEL="3") | dict.fromkeys(THREAD_VARIABLES, str(n_threads))


def run_worker(
    python: str, script: str, settings: dict, *, n_threads: int, timeout: float, cores: list[int] | None = None
) -> dict:
    """Runs `python script --worker <settings>`, on `cores` if given, and reads the last line it prints, as JSON.

    A worker that fails, or outlasts `timeout` seconds, gives `{"error": ...}` instead of an exception.
    """
    command = [python, script, "--worker", json.dumps(settings)]
    if cores is not None and shutil.which("taskset"):
        command = ["taskset", "--cpu-list", ",".join(map(str, cores)), *command]
    try:
        done = subprocess.run(command, env=environment(n_threads), capture_output=True, text=True, timeout=timeout)
        if done.returncode == 0:
            return json.loads(done.stdout.splitlines()[-1])
        lines = done.stderr.strip().splitlines()
        return {"error": lines[-1] if lines else f"exit code {done.returncode}"}
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"error": str(error)}
    except (IndexError, json.JSONDecodeError):
        return {"error": "printed no line of JSON"}


def run_workers(script: str, jobs: list[tuple[str, dict]], *, at_once: int, n_threads: int, timeout: float):
    """`run_worker` for each of `jobs`, a Python and its settings, some `at_once`, each on processors of its own.

    Yields the number of a job and what it found, as they end.
    """
    free = queue.SimpleQueue()
    for slot in range(at_once):
        free.put(slot)

    def run(job):
        slot = free.get()
        python, settings = job
        cores = list(range(slot * n_threads, (slot + 1) * n_threads))
        try:
            return run_worker(python, script, settings, n_threads=n_threads, timeout=timeout, cores=cores)
        finally:
            free.put(slot)

    with futures.ThreadPoolExecutor(at_once) as pool:
        running = {pool.submit(run, job): i for i, job in enumerate(jobs)}
        for future in futures.as_completed(running):
            yield running[future], future.result()


def versions(*packages: str) -> dict[str, str]:
    """Installed versions, of Python too."""
    from importlib.metadata import version

    return {"python": platform.python_version()} | {package: version(package) for package in packages}


def machine() -> dict:
    """What the numbers of a table hold for: processor, cores, other load, system, date."""
    model = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
        model = names[0] if names else model
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "load before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.release()}",
        "date": datetime.date.today().isoformat(),
    }


def fill_from_last(path: pathlib.Path, lines: list[dict], keys: tuple[str, ...]) -> None:
    """Fills lines that are not measured in this run from those written before, which have the same values of `keys`."""
    path = path.with_suffix(".json")
    if not path.exists():
        return
    before = {tuple(row.get(key) for key in keys): row for row in json.loads(path.read_text())["rows"]}
    for line in lines:
        line |= before.get(tuple(line[key] for key in keys), {})


def write_results(path: pathlib.Path, title: str, columns: dict[str, str], rows: list[dict], facts: dict, notes: str):
    """Writes `<path>.md` and `<path>.json`.

    Args:
      columns: key of a row -> heading; the last column shows a row's error instead, if it has one.
      rows: one dict a line; what a row lacks is left empty.
      facts: settings, versions, machine: listed below the table.
      notes: Markdown that comes last.
    """
    *plain, last = columns
    lines = [f"# {title}", "", "| " + " | ".join(columns.values()) + " |", "|" + " --- |" * len(columns)]
    for row in rows:
        result = f"failed: {row['error']}".replace("|", "\\|") if "error" in row else row.get(last, "")
        lines.append("| " + " | ".join([*(str(row.get(key, "")) for key in plain), result]) + " |")
    lines += ["", *(f"- {key}: {value}" for key, value in facts.items()), "", notes.strip()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    path.with_suffix(".json").write_text(json.dumps({"facts": facts, "rows": rows}, indent=1) + "\n", encoding="utf-8")
