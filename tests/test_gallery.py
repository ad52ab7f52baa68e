"""The gallery: every script runs, says what it found, and draws its picture; the notebooks run top to bottom."""

import os
import runpy
import sys
from pathlib import Path

import pytest

GALLERY = Path(__file__).parents[1] / "examples" / "gallery"
PAGE = (GALLERY.parents[1] / "docs" / "gallery.md").read_text()
SCRIPTS = {
    "gaussian": "sample",
    "four_modes": "starts of the mixture",
    "shapes": "two moons",
    "table": "less than the flows",
    "conditional": "nats from the truth",
    "outliers": "isolation forest",
    "images": "Bits per pixel",
    "point_clouds": "nearest_neighbour_accuracy",
    "posterior": "log-evidence",
    "deployment": "differs from the flow by",
    "tuning": "The best of 2",
    "vae": "flow prior",
}  # and what they print


@pytest.mark.usefixtures("without_xla")
@pytest.mark.filterwarnings("ignore:64 rows of")
@pytest.mark.parametrize("name", SCRIPTS)
def test_script(name, tmp_path, monkeypatch, capsys):
    if name == "tuning":
        pytest.importorskip("keras_tuner")
    monkeypatch.syspath_prepend(GALLERY)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--quick", "--output", str(tmp_path)])
    runpy.run_path(str(GALLERY / f"{name}.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert SCRIPTS[name] in printed
    assert "nan" not in printed
    assert [path.name for path in tmp_path.iterdir()] == [f"{name}.png"]
    assert (tmp_path / f"{name}.png").stat().st_size > 10_000


def test_every_script_is_short_and_shown():
    """In the list of tests, on the page with its picture, and under 120 lines."""
    scripts = {path.stem for path in GALLERY.glob("*.py")} - {"gallery"}
    assert scripts == set(SCRIPTS)
    for name in scripts:
        assert len((GALLERY / f"{name}.py").read_text().splitlines()) < 120, name
        assert f"gallery/{name}.png" in PAGE, name
        assert (GALLERY.parents[1] / "docs" / "gallery" / f"{name}.png").exists(), name


@pytest.fixture(scope="module")
def kernel():
    """A kernel for all notebooks, which imports TensorFlow once and compiles nothing by XLA."""
    jupyter = pytest.importorskip("jupyter_client.manager")
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(GALLERY), *sys.path])}
    manager, client = jupyter.start_new_kernel(kernel_name="python3", env=environment)
    client.stop_channels()
    yield manager
    manager.shutdown_kernel(now=True)


WITHOUT_XLA = """quick = True
from tfflows.training import TrainableModel
TrainableModel.use_xla = False
"""


@pytest.mark.parametrize("name", ["first_flow", "conditional"])
def test_notebook(name, kernel):
    import nbclient
    import nbformat

    notebook = nbformat.read(GALLERY / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code), "outputs are not stored"
    (parameters,) = (cell for cell in code if "parameters" in cell.metadata.get("tags", []))
    parameters.source = parameters.source.replace("quick = False", WITHOUT_XLA)
    assert "quick = True" in parameters.source
    nbclient.NotebookClient(notebook, km=kernel, timeout=120).execute(cleanup_kc=False)
    outputs = [output for cell in code for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3
    printed = "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")
    assert "nats" in printed
    assert "nan" not in printed
