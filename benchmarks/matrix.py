"""The tests on other versions: the lowest that pyproject.toml allows, the newest there are, and TFP's nightly.

    python benchmarks/matrix.py                        # lists the parts, and which Pythons are here
    python benchmarks/matrix.py lowest-3.11 highest-3.12
    python benchmarks/matrix.py nightly-3.11 --full    # all tests instead of the telling ones

A part is one row of `results/matrix.md`: a new environment in which some versions are installed and tests run. CI can
run parts on different machines, and beside each other; the script itself needs Python 3.11. A failure ends with status
1; those of a nightly are only told.
"""

from __future__ import annotations

import argparse
import datetime
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import time

import tomllib
from peers import RESULTS, ROOT, fill_from_last, machine, write_results

PYTHONS = ("3.10", "3.11", "3.12", "3.13")
KINDS = ("lowest", "highest", "nightly")
# Of the lowest TensorFlow there is no wheel for Python 3.13.
PARTS = [f"{kind}-{python}" for kind in KINDS for python in PYTHONS if (kind, python) != ("lowest", "3.13")]
PACKAGES = ("tensorflow", "keras", "tensorflow-probability", "tf-keras", "numpy")
# The maths of every part, the model, its files and exports, and what stands between it and other packages.
TESTS = (
    "bijectors.py::test_round_trip_both_ways",
    "bijectors.py::test_keras_file_every_weight_and_gradient",
    "bijectors.py::test_stands_in_tfp",
    "bijectors.py::test_stands_in_tfp_mcmc",
    "export.py::test_numbers_are_the_flows",
    "packaging.py::test_it_works_without_any_extra",
    *(f"{name}.py" for name in ("bases", "distribute", "frames", "inputs", "interoperability", "loop", "model")),
    *(f"{name}.py" for name in ("nets", "sklearn", "structure", "transformers")),
)

NOTES = """
Each row is a new virtual environment in which the telling tests ran: `python benchmarks/matrix.py PART`. `lowest` has
of every package the lowest version that `pyproject.toml` allows, `highest` what pip finds without constraints, and
`nightly` the same with TFP's nightly in place of its release. Pythons differ because new packages drop old ones.
"""


def interpreter(python: str) -> pathlib.Path | None:
    """A Python of this version, on the path or among pyenv's."""
    on_path = shutil.which(f"python{python}")
    pyenv = pathlib.Path(os.environ.get("PYENV_ROOT", pathlib.Path.home() / ".pyenv"))
    found = [pathlib.Path(on_path)] if on_path else []
    for path in (*found, *sorted(pyenv.glob(f"versions/{python}.*/bin/python"))):
        # pyenv puts a command on the path for each of its versions, which fails for all but the chosen one.
        done = subprocess.run([path, "-c", "import sys; print(sys.version)"], capture_output=True, text=True)
        if done.stdout.startswith(f"{python}."):
            return path
    return None


def lowest() -> list[str]:
    """Constraints: of each package the greatest lower bound that pyproject.toml states, with its patches."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    stated = sum(project["optional-dependencies"].values(), project["dependencies"])
    bounds: dict[str, tuple[int, ...]] = {}
    for name, version in (re.fullmatch(r"([\w-]+)>=([\d.]+)", one).groups() for one in stated if "[" not in one):
        bounds[name] = max(bounds.get(name, ()), tuple(map(int, version.split("."))))
    return [f"{name}=={'.'.join(map(str, version))}.*" for name, version in bounds.items()]


def run(*command, check: bool = False) -> str:
    """Runs a command from the root and returns what it printed, whatever its status."""
    settings = {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", **os.environ}
    settings.pop("PYTHONDONTWRITEBYTECODE", None)  # else every process compiles all of TensorFlow, as nothing is kept
    done = subprocess.run(
        list(map(str, command)),
        cwd=ROOT,
        env=settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=5400,
        check=check,
    )
    return done.stdout


def install(part: str, folder: pathlib.Path) -> pathlib.Path:
    """Makes the environment of a part and returns its Python."""
    kind, version = part.split("-")
    run(interpreter(version), "-m", "venv", folder, check=True)
    python = folder / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    constraints = folder / "constraints.txt"
    constraints.write_text("\n".join(lowest() if kind == "lowest" else []))
    run(*pip, "--upgrade", "pip", check=True)
    run(*pip, "-c", constraints, "-e", f"{ROOT}[test]", check=True)
    if kind == "nightly":  # in the same folder as the release
        run(python, "-m", "pip", "uninstall", "--quiet", "--yes", "tensorflow-probability", check=True)
        run(*pip, "tfp-nightly", check=True)
    return python


def row(part: str, folder: pathlib.Path, *, full: bool) -> dict:
    """Installs a part and runs its tests."""
    found, started = {"part": part}, time.perf_counter()
    try:
        python = install(part, folder)
    except subprocess.CalledProcessError as error:
        return found | {"error": f"not installed, {error.output.strip().splitlines()[-1][:200]}"}
    installed = time.perf_counter()
    names = [name.replace("tensorflow-probability", "tfp-nightly") if "nightly" in part else name for name in PACKAGES]
    code = f"import platform, importlib.metadata as m; print(platform.python_version(), *map(m.version, {names!r}))"
    found |= dict(zip(("python", *PACKAGES), run(python, "-c", code, check=True).split(), strict=True))
    tests = ["tests"] if full else [f"tests/test_{name}" for name in TESTS]
    try:
        printed = run(python, "-m", "pytest", "-n", "2", "--dist", "loadfile", "-rfE", *tests)
    except subprocess.TimeoutExpired as error:
        return found | {"error": f"ended after {error.timeout:.0f} s"}
    lines = printed.splitlines()
    last = next((line for line in reversed(lines) if re.search(r"\d+ passed", line)), None)
    if last is None:
        return found | {"error": f"no tests ran, {lines[-1][:200]}"}
    counts = {word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|error|skipped|warning)", last)}
    print("\n".join(line for line in lines if line.startswith(("FAILED", "ERROR"))), flush=True)
    found |= {word: str(counts.get(word, 0)) for word in ("passed", "skipped", "warning")}
    found |= {"failed": str(counts.get("failed", 0) + counts.get("error", 0))}
    found |= {"install": f"{installed - started:.0f}", "tests": f"{time.perf_counter() - installed:.0f}"}
    return found | {"date": datetime.date.today().isoformat()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help="none: the parts are listed")
    parser.add_argument("--full", action="store_true", help="all tests instead of the telling ones")
    parser.add_argument("--folder", type=pathlib.Path, help="where environments of 3 GB are made, one at a time")
    args = parser.parse_args()
    if unknown := set(args.parts) - set(PARTS):
        raise SystemExit(f"Expected parts of {PARTS}; got {sorted(unknown)}.")
    if not args.parts:
        for part in PARTS:
            print(part, interpreter(part.split("-")[1]) or "no interpreter here")
        return
    rows = []
    for part in args.parts:
        if interpreter(part.split("-")[1]) is None:
            rows.append({"part": part, "error": "not run, no such Python here"})
        else:
            with tempfile.TemporaryDirectory(dir=args.folder, prefix=f"{part}-") as folder:
                rows.append(row(part, pathlib.Path(folder), full=args.full))
        print(rows[-1], flush=True)
        write(rows)
    bad = [new["part"] for new in rows if new.get("failed") != "0" and not new["part"].startswith("nightly")]
    if bad:
        raise SystemExit(f"Failed: {', '.join(bad)}.")


def write(rows: list[dict]) -> None:
    """Puts rows into the table, in which those of other parts stay."""
    lines = [{"part": part, "failed": "not run"} for part in PARTS]
    fill_from_last(RESULTS / "matrix", lines, ("part",))
    lines = [next((new for new in rows if new["part"] == old["part"]), old) for old in lines]
    columns = {
        "part": "part",
        "python": "Python",
        "tensorflow": "TensorFlow",
        "keras": "Keras",
        "tensorflow-probability": "TFP",
        "tf-keras": "tf-keras",
        "numpy": "NumPy",
        "date": "date",
        "install": "seconds to install",
        "tests": "of tests",
        "passed": "passed",
        "skipped": "skipped",
        "warning": "warnings",
        "failed": "failed",
    }
    write_results(RESULTS / "matrix", "Versions", columns, lines, machine(), NOTES)


if __name__ == "__main__":
    main()
