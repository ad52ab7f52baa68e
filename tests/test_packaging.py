"""What users get: a package that imports without extras, whose types are those of its documents, of one version."""

import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import tfflows

ROOT = Path(__file__).parents[1]
# What no environment has without an extra.
OF_EXTRAS = (
    *(
        "ai_edge_litert",
        "apache_beam",
        "arviz",
        "corner",
        "keras_tuner",
        "matplotlib",
        "openmm",
        "ot",
        "pandas",
        "PIL",
        "pyarrow",
    ),
    *("scipy", "sklearn", "tensorflow_serving", "trimesh", "typer"),
)
WITHOUT_EXTRAS = """
import sys
for name in {names}:
    sys.modules[name] = None  # an import of it fails
import numpy as np
from tfflows import CouplingRQNSF, Domain, FlowModel, plot
x = np.random.default_rng(0).uniform(size=(200, 2))
flow = FlowModel(CouplingRQNSF(2, n_layers=1, hidden=(4,)), domain=[Domain.interval(0, 1)] * 2)
flow.compile(jit_compile=False)
flow.fit(x, epochs=1, verbose=0)
assert flow.sample(3).shape == (3, 2)
flow.save("flow.keras")
parts = ("tfflows.sklearn", "tfflows.inference")
calls = [lambda: plot.images(np.zeros((1, 4, 4, 1))), *(lambda name=name: __import__(name) for name in parts)]
for call in (*calls, lambda: __import__("tfflows.beam").beam.score):
    try:
        call()
    except ImportError as error:
        print("refused:", error)
"""


def test_version():
    assert tfflows.__version__ == metadata.version("tfflows")


def test_it_works_without_any_extra(tmp_path):
    code = WITHOUT_EXTRAS.format(names=OF_EXTRAS)
    settings = dict(os.environ, PYTHONPATH=str(ROOT), TF_CPP_MIN_LOG_LEVEL="3")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=settings, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "flow.keras").exists()
    refused = [line for line in done.stdout.splitlines() if line.startswith("refused")]
    assert [line.partition("pip install ")[2][:20] for line in refused] == [
        "'tfflows[plot]'",
        "'tfflows[sklearn]'; ",
        "'tfflows[inference]'",
        "'tfflows[beam]'; got",
    ]


def test_documents_are_well_typed(tmp_path):
    """The README's Python and the pages', as a user's project would check it."""
    pytest.importorskip("mypy")
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    for page in pages:
        blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)
        if blocks:  # one file a page: later blocks use what earlier ones made
            name = re.sub(r"\W", "_", str(page.relative_to(ROOT).with_suffix("")))
            (tmp_path / f"{name}.py").write_text("\n".join(blocks))
    options = ["--ignore-missing-imports", "--follow-imports=silent", "--check-untyped-defs", "--allow-redefinition"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "."],
        cwd=tmp_path,
        env=dict(os.environ, MYPYPATH=str(ROOT)),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert (ROOT / "tfflows" / "py.typed").exists()
