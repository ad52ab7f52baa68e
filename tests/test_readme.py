"""The README's Python runs as printed, and the example it begins with."""

import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from tfflows import training

ROOT = Path(__file__).parents[1]
SNIPPETS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=range(len(SNIPPETS)))
def test_snippet_runs(snippet, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training, "MAX_EPOCHS", 5)  # the snippets show calls, not quality
    names = {}
    exec(snippet, names)
    if "log_prob" in names:
        assert names["log_prob"].shape == (1000,)
        assert np.all(np.isfinite(names["new"]))
        assert (tmp_path / "flow.keras").exists()


def test_alanine_example(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["alanine_dipeptide.py", "--quick", "--output", str(tmp_path)])
    runpy.run_path(str(ROOT / "examples" / "alanine_dipeptide.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert "log-densities differ by 0, samples are equal: True" in printed
    assert (tmp_path / "alanine_dipeptide.png").stat().st_size > 10_000
    assert (tmp_path / "alanine_dipeptide.keras").exists()
