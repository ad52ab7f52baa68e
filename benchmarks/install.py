"""What a user gets: wheel and sdist, each installed in a clean environment, without extras and with each of them.

    python benchmarks/install.py [--extras cli,sklearn]

Each row of `results/install.md` is a new environment with the wheel and one extra, in which some lines run
that need it.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import venv

import tomllib
from peers import RESULTS, ROOT, fill_from_last, machine, write_results

FIT = """
import numpy as np
from tfflows import FlowModel, RealNVP
x = np.random.default_rng(0).normal(size=(500, 2))
flow = FlowModel(RealNVP(2, n_layers=2, hidden=(8,)))
flow.compile(jit_compile=False)
flow.fit(x, epochs=1, verbose=0)
assert flow.sample(3).shape == (3, 2)
"""
# What each extra is for. None: it is for examples or for tfflows' own development, and need only install.
# Beam's versions of some packages are older than those of constraints.txt.
UNCONSTRAINED = {"beam"}
USES = {
    "": FIT + "flow.save('flow.keras'); flow.export('flow')",
    "cli": FIT
    + "flow.save('flow.keras'); np.save('x.npy', x); import subprocess\n"
    + "subprocess.run([BIN + '/tfflows', 'score', 'flow.keras', 'x.npy', '--out', 'scored.csv'], check=True)\n"
    + "assert open('scored.csv').readline().strip().endswith('log_prob')",
    "clouds": "from tfflows import clouds, datasets, plot\nx, _ = datasets.shapes(8, n_points=32, seed=0)\n"
    "print(clouds.evaluate(x[:4], x[4:], clouds.earth_movers)); plot.clouds(x, path='x.png')",
    "plot": FIT + "from tfflows import plot\nplot.density(flow, x, path='x.png'); plot.corner(x, path='corner.png')",
    "litert": FIT + "from tfflows import export\nflow.export('f.tflite', 'litert')\n"
    "assert export.runner('f.tflite')('log_prob', x=x[:2].astype('float32'))['log_prob'].shape == (2,)",
    "inference": "import tensorflow as tf\nfrom tfflows import inference\n"
    "target = inference.Target(lambda x: -tf.reduce_sum(x**2, -1), n_dim=2)\n"
    "inference.variational(target, n_draws=100, n_steps=20).to_arviz()",
    "sklearn": "import pandas as pd, numpy as np\nfrom tfflows.sklearn import FlowDensity\n"
    "frame = pd.DataFrame({'a': np.random.normal(size=50), 'b': pd.Categorical(['x', 'y'] * 25)})\n"
    "print(FlowDensity('crqnsf', n_layers=1, hidden=(4,), epochs=1, jit_compile=False).fit(frame).sample(3))",
    "beam": FIT + "import pyarrow as pa\nfrom pyarrow import parquet\nfrom tfflows import beam\nflow.export('flow')\n"
    "parquet.write_table(pa.table({'a': x[:, 0], 'b': x[:, 1]}), 'x.parquet')\n"
    "assert beam.score('flow', 'x.parquet', 'out').scored == len(x)",
    "tuner": "import keras_tuner",
    "serving": "import tensorflow_serving.apis, requests",
    "examples": "import matplotlib, sklearn",
    "molecules": "import openmm",
    "web": "import selenium",
    "docs": "import mkdocs, material, mkdocstrings",
    "sketch": "import tensorflow as tf\nfrom tfflows import streaming\n"
    "print(streaming.describe(tf.data.Dataset.range(9).batch(2)))",
    "notebooks": "import nbclient, ipykernel",
    "fuzz": "import atheris",
}


def run(*command, cwd) -> float:
    """Runs a command to its end and returns the seconds it took."""
    started = time.perf_counter()
    settings = dict(os.environ, TF_CPP_MIN_LOG_LEVEL="3")
    settings.pop("PYTHONPATH", None)  # the package is the one that is installed
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=settings, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.stderr.strip().splitlines()[-1]}")
    return time.perf_counter() - started


def row(extra: str, package: pathlib.Path, folder: pathlib.Path) -> dict:
    """Installs the package with an extra in a new environment, and uses it."""
    venv.create(folder / "env", with_pip=True)
    python = folder / "env" / "bin" / "python"
    wanted = f"{package}[{extra}]" if extra else str(package)
    found = {"extra": extra or "none", "package": package.name}
    try:
        versions = [] if extra in UNCONSTRAINED else ["-c", ROOT / "constraints.txt"]
        install = run(python, "-m", "pip", "install", "-q", *versions, wanted, cwd=folder)
        code = f"BIN = {str(python.parent)!r}\n{USES[extra]}"
        use = run(python, "-c", code, cwd=folder)
    except RuntimeError as error:
        return found | {"error": str(error)[-300:]}
    size = sum(file.stat().st_size for file in (folder / "env").rglob("*") if file.is_file())
    return found | {"size": f"{size / 1e9:.1f} GB", "install": f"{install:.0f}", "use": f"{use:.0f}", "result": "works"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--extras", help="only these, with commas between")
    chosen = parser.parse_args().extras
    named = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    if named - {"test"} != set(USES) - {""}:
        raise SystemExit(f"Expected a use of each extra {sorted(named)}; got {sorted(USES)}.")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        run("git", "clone", "-q", ROOT, folder / "tfflows", cwd=folder)
        run(sys.executable, "-m", "build", "--outdir", folder / "dist", folder / "tfflows", cwd=folder)
        (wheel,), (sdist,) = (folder / "dist").glob("*.whl"), (folder / "dist").glob("*.tar.gz")
        every = [*((extra, wheel) for extra in USES), ("", sdist)]
        rows = [{"extra": extra or "none", "package": package.name} for extra, package in every]
        fill_from_last(RESULTS / "install", rows, ("extra", "package"))
        for i, (extra, package) in enumerate(every):
            if chosen is not None and extra not in chosen.split(","):
                continue
            place = folder / str(i)
            place.mkdir()
            rows[i] = row(extra, package, place)
            print(rows[i], flush=True)
            run("rm", "-rf", place, cwd=folder)
    columns = {
        "extra": "extra",
        "package": "package",
        "size": "environment",
        "install": "seconds to install",
        "use": "seconds of use, TensorFlow's import included",
        "result": "result",
    }
    notes = """
Each row is a new virtual environment with that extra and no other; `python benchmarks/install.py`. Of `tuner`,
`serving`, `examples`, `molecules`, `web`, `docs`, `notebooks` and `fuzz` it is only seen that they can be imported.
`beam` is installed without `constraints.txt`. Rows that were not measured at the last run stay as they were.
"""
    write_results(RESULTS / "install", "Installing tfflows", columns, rows, machine(), notes)


if __name__ == "__main__":
    main()
