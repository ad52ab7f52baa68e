"""The examples run, and the README's table is what was measured; `test_docs.py` runs the README's code."""

import io
import json
import re
import runpy
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tfflows import architectures

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
EXAMPLES = str(ROOT / "examples")


def test_alanine_example(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["alanine_dipeptide.py", "--quick", "--output", str(tmp_path)])
    runpy.run_path(str(ROOT / "examples" / "alanine_dipeptide.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert "log-densities differ by 0, samples are equal: True" in printed
    assert (tmp_path / "alanine_dipeptide.png").stat().st_size > 10_000
    assert (tmp_path / "alanine_dipeptide.keras").exists()


def test_two_modes_example(tmp_path, monkeypatch, capsys, without_xla):
    monkeypatch.setattr(sys, "argv", ["two_modes.py", "--quick", "--output", str(tmp_path)])
    runpy.run_path(str(ROOT / "examples" / "two_modes.py"), run_name="__main__")
    assert "resampled normal" in capsys.readouterr().out
    assert (tmp_path / "two_modes.png").stat().st_size > 10_000


def _example_data(name, folder):
    """Arguments with data of the layout that the example asks for: noise."""
    rng = np.random.default_rng(0)
    if name == "faces":
        np.savez(folder / "faces.npz", x=rng.integers(0, 256, (400, 112, 92), dtype=np.uint8))
        return ["--data", str(folder / "faces.npz")]
    if name == "natural":
        from PIL import Image

        with zipfile.ZipFile(folder / "natural.zip", "w") as archive:
            for split, n in (("train", 64), ("test", 32)):
                for i in range(n):
                    file = io.BytesIO()
                    Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(file, "JPEG")
                    archive.writestr(f"{split}/cat/{i:04}.jpg", file.getvalue())
        return ["--data", str(folder / "natural.zip")]
    return []


@pytest.mark.parametrize(
    ("name", "pictures"),
    [
        ("digits", ("reconstructions", "samples", "interpolation")),
        ("faces", ("reconstructions", "samples", "interpolation", "attribute")),
        ("natural", ("reconstructions", "samples", "interpolation")),
    ],
)
@pytest.mark.filterwarnings("ignore:64 rows of")
def test_image_example(name, pictures, tmp_path, monkeypatch, capsys, request):
    if name != "digits":  # compiled as a user's once; that takes longer than all the rest
        request.getfixturevalue("without_xla")
    arguments = _example_data(name, tmp_path)
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setattr(sys, "argv", ["images.py", name, "--quick", "--output", str(tmp_path), *arguments])
    runpy.run_path(str(ROOT / "examples" / "images.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert "bits per dimension on 32 test images" in printed
    assert "latents differ by 0." in printed
    for picture in pictures:
        assert (tmp_path / f"{name}_{picture}.png").stat().st_size > 2_000
    assert (tmp_path / f"{name}.keras").exists()


def test_image_example_says_what_data_it_needs(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setattr(sys, "argv", ["images.py", "faces", "--output", str(tmp_path)])
    with pytest.raises(SystemExit, match="Expected the data of 'faces'"):
        runpy.run_path(str(ROOT / "examples" / "images.py"), run_name="__main__")


def test_point_cloud_example(tmp_path, monkeypatch, capsys, without_xla):
    """On meshes; the gallery's test has generated shapes."""
    trimesh = pytest.importorskip("trimesh")
    for name, make in (("box", trimesh.creation.box), ("ball", trimesh.creation.icosphere)):
        (tmp_path / "meshes" / name).mkdir(parents=True)
        for i in range(4):
            make().apply_scale([1.0, 1.0, 1.0 + 0.2 * i]).export(tmp_path / "meshes" / name / f"{i}.off")
    monkeypatch.syspath_prepend(EXAMPLES)
    arguments = ["--quick", "--output", str(tmp_path), "--meshes", str(tmp_path / "meshes")]
    monkeypatch.setattr(sys, "argv", ["point_clouds.py", *arguments])
    runpy.run_path(str(ROOT / "examples" / "point_clouds.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert "draws differ by 0." in printed
    assert "ball: 2 new" in printed
    for picture in ("_reconstructions.png", "_samples.png", "_interpolation.png", ".gif"):
        assert (tmp_path / f"point_clouds{picture}").stat().st_size > 10_000
    assert (tmp_path / "point_clouds.keras").exists()


@pytest.mark.usefixtures("without_xla")
def test_deployment_example(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["deployment.py", "two_moons", "--quick", "--output", str(tmp_path)])
    runpy.run_path(str(ROOT / "examples" / "deployment.py"), run_name="__main__")
    differences = [float(line.split()[-1]) for line in capsys.readouterr().out.splitlines() if "differs by" in line]
    assert len(differences) == 9
    assert max(differences) < 1e-4
    folder = tmp_path / "two_moons"
    assert (folder / "1" / "saved_model.pb").exists()
    assert (folder / "two_moons.png").stat().st_size > 10_000
    made = {path.name for path in folder.iterdir()}
    assert made == {path.name for path in (ROOT / "saved_models" / "two_moons").iterdir()}
    assert "| `sample` | `seed` [n] int32, `temperature` [n] float32 | `x` |" in (folder / "README.md").read_text()


def test_export_columns_are_the_measured_ones():
    """`benchmarks/exports.py` exports every preset and compares it with the flow."""
    measured = json.loads((ROOT / "benchmarks" / "results" / "exports.json").read_text())["rows"]
    table = re.findall(r"^\| `(\w+)` \|.*\| ([^|]+) \| ([^|]+) \| [^|]+ \|$", README, flags=re.MULTILINE)
    presets = {name for name in architectures.__all__ if not name.islower()}
    stated = {name: (saved_model, tflite) for name, saved_model, tflite in table if name in presets}
    assert stated == {row["preset"]: (row["SavedModel"], row["TFLite"]) for row in measured}
    assert set(stated) == presets
