"""Time and memory of tfflows beside flowjax, distrax, zuko, nflows, normflows, torchflows and TFP's own bijectors.

    python benchmarks/speed.py

Same architecture, layers, widths, bins, batch and threads on all sides. A library's worker builds the flow, compiles
and warms up; then the libraries are timed in turn, round after round, so that a change of the machine's speed
meets all of them, and the median over the rounds counts. Three parts, which `--parts` chooses from:

- lines: a training step, log_prob, sample, the time to the first result and the memory, by number of scalars;
- fit: a small fit from nothing to the end, compilation included;
- scaling: how the cost grows with scalars, batch, layers and bins.

Results: `results/speed.md`, `.json`, `.png` and `speed_scaling.png`, written after each line; what a run does not
measure again stays as it was. `contest/` has the rest: the libraries, their processes, tables and pictures.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import pathlib
import sys
import time

import peers
from contest.cases import ARCHITECTURES, FACTORS, QUANTITIES, SCALING_ARCHITECTURES, Case
from contest.charts import draw_lines, draw_scaling
from contest.libraries import FITS, LIBRARIES, is_offered
from contest.report import Report, milliseconds
from contest.turns import START_LIMIT, Worker, WorkerError, measure

# The numbers of scalars of the lines.
DIMS = (2, 16, 64, 1000)
# From here on widths and times are others, and the workers live one after the other: together they need
# more memory than many a machine has.
LARGE_DIM = 256
SCALING_LIBRARIES = ("tfflows", "flowjax", "zuko")
SCALING_DIM = 16
# Besides the default of each. The batches are sizes that tfflows does not pad.
SCALING = {"n_dim": (4, 64), "batch_size": (128, 8192), "n_layers": (2, 20), "bins": (4, 32)}
# Cores. PyTorch's threads wait for one another in turning loops: with another process on one of two cores they took up
# to a hundred times longer.
BUSY = 0.1


def run_lines(report: Report, pythons: dict[str, str], args: argparse.Namespace) -> None:
    for architecture in args.architectures:
        offered = {k: python for k, python in pythons.items() if is_offered(k, architecture)}
        for n_dim in args.dims:
            case = make_case(args, architecture, n_dim=n_dim)
            together = [offered] if n_dim < LARGE_DIM else [{k: python} for k, python in offered.items()]
            for group in together:
                run_case(report, "lines", case, group, args)
                draw_lines(report.parts["lines"]["rows"], report.path.with_suffix(".png"))


def run_scaling(report: Report, pythons: dict[str, str], args: argparse.Namespace) -> None:
    base = {"n_dim": SCALING_DIM, "batch_size": args.batch_size, "n_layers": args.layers, "bins": args.bins}
    changes = [{}] + [{key: value} for key in args.factors for value in SCALING[key] if value != base[key]]
    chosen = {library: python for library, python in pythons.items() if library in SCALING_LIBRARIES}
    for architecture in [a for a in args.architectures if a in SCALING_ARCHITECTURES]:
        for change in changes:
            run_case(report, "scaling", make_case(args, architecture, **base | change), chosen, args)
            picture = report.path.with_name(f"{report.path.name}_scaling.png")
            draw_scaling(report.parts["scaling"]["rows"], base, picture)


def run_fit(report: Report, pythons: dict[str, str], args: argparse.Namespace) -> None:
    for library in [library for library in pythons if library in FITS]:
        with Worker(library, pythons[library], args.threads) as worker:
            try:
                worker.do("load", limit=START_LIMIT, threads=args.threads)
                found = worker.do("fit", limit=START_LIMIT)
            except WorkerError as error:
                found = {"error": str(error)}
        print("fit", library, found, flush=True)
        report.add("fit", {"library": library} | found)


def run_case(report: Report, part: str, case: Case, pythons: dict[str, str], args: argparse.Namespace) -> None:
    """Measures a case and adds its rows, with the number of cores that other processes kept busy meanwhile."""
    before, begun = foreign_seconds(), time.perf_counter()
    results = measure(case, pythons, args)
    others = None if before is None else (foreign_seconds() - before) / (time.perf_counter() - begun)
    print(part, case.architecture, *(f"{getattr(case, key)} {name}," for key, name in FACTORS.items()), flush=True)
    for library, found in results.items():
        row = {"library": library} | dataclasses.asdict(case) | found | {"others": others}
        cells = ", ".join(f"{name} {milliseconds(what)(row)}" for what, name in QUANTITIES.items())
        print(f"  {library}: {cells}", flush=True)
        report.add(part, row)
    if others is not None and others > BUSY:
        print(f"  Other processes used {others:.2f} cores meanwhile: these figures do not count.", flush=True)


def foreign_seconds() -> float | None:
    """Processor time that this machine has spent on other processes; None where the system does not tell.

    What this process and its workers took is known once they have ended.
    """
    try:
        with open("/proc/stat") as file:
            user, nice, system, _, _, *interrupts = map(int, file.readline().split()[1:9])
    except OSError:
        return None
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK") - sum(os.times()[:4])


def make_case(args: argparse.Namespace, architecture: str, *, n_dim: int, **changes) -> Case:
    is_large = n_dim >= LARGE_DIM
    defaults = {"n_layers": args.layers, "bins": args.bins, "batch_size": args.batch_size}
    return Case(
        architecture,
        n_dim,
        hidden=tuple(args.hidden or ((1024, 1024) if is_large else (128, 128))),
        n_steps=1 if is_large else 20,
        threads=args.threads,
        **defaults | changes,
    )


def find_versions(pythons: dict[str, str], threads: int) -> dict[str, str]:
    """The libraries' versions; and their files are read once, so that no line pays for a cold disk."""
    found = {}
    for library, python in pythons.items():
        with Worker(library, python, threads) as worker:
            try:
                answer = worker.do("load", limit=START_LIMIT, threads=threads)["versions"]
                found[f"{library} versions"] = ", ".join(f"{k} {v}" for k, v in answer.items())
            except WorkerError as error:
                found[f"{library} versions"] = f"missing: {error}"
    return found


PARTS = {"lines": run_lines, "fit": run_fit, "scaling": run_scaling}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--libraries", nargs="+", choices=LIBRARIES, default=list(LIBRARIES))
    parser.add_argument("--architectures", nargs="+", choices=ARCHITECTURES, default=list(ARCHITECTURES))
    parser.add_argument("--dims", type=int, nargs="+", default=list(DIMS), help="numbers of scalars of the lines")
    parser.add_argument("--factors", nargs="+", choices=SCALING, default=list(SCALING), help="what scaling varies")
    parser.add_argument("--layers", type=int, default=5)
    parser.add_argument("--hidden", type=int, nargs="+", help=f"128 128; 1024 1024 from {LARGE_DIM} scalars on")
    parser.add_argument("--bins", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each library's turn")
    parser.add_argument("--limit", type=float, default=120.0, help="seconds that one call may take, compiling included")
    parser.add_argument("--peer-python", help="a Python with the PyTorch peers; else one is installed into .peers/")
    parser.add_argument("--jax-python", help="a Python with the JAX peers; else one is installed into .peers/")
    parser.add_argument("--output", type=pathlib.Path, default=peers.RESULTS / "speed", help="without a suffix")
    return parser.parse_args()


def main() -> None:
    args = parse()
    paths = {"torch": args.peer_python, "jax": args.jax_python}
    pythons = {}
    for library in args.libraries:
        framework = peers.FRAMEWORKS[library]
        pythons[library] = (
            sys.executable if framework == "tensorflow" else peers.peer_python(paths[framework], framework)
        )
    facts = find_versions(pythons, args.threads) | peers.machine()
    shared = {key: getattr(args, key) for key in ("layers", "hidden", "bins", "batch_size", "threads")}
    report = Report(args.output)
    for part in args.parts:
        settings = {"threads": args.threads} if part == "fit" else shared | {"rounds": args.rounds}
        report.begin(part, settings, facts)
        PARTS[part](report, pythons, args)


if __name__ == "__main__":
    main()
