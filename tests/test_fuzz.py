"""The corpus of the fuzz targets, and what fuzzing found, at the same doors."""

import sys
from pathlib import Path

import pytest

import tfflows as tff

FUZZ = Path(__file__).parent / "fuzz"
CORPUS = FUZZ / "corpus"


@pytest.fixture(autouse=True)
def _targets(monkeypatch):
    monkeypatch.syspath_prepend(FUZZ)
    yield
    for name in ("harness", "mutations", "parsers", "configs"):
        sys.modules.pop(name, None)


def test_tables_are_read_or_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "atheris", None)
    import parsers

    refused = []
    for path in sorted((CORPUS / "parsers").iterdir()):
        try:
            parsers.parse(path.read_bytes())
        except ValueError:
            refused.append(path.name)
    assert {name for name in refused if name.startswith("was_")} == {
        path.name for path in (CORPUS / "parsers").glob("was_*")
    }
    assert len(refused) < len(list((CORPUS / "parsers").iterdir()))


@pytest.mark.parametrize("path", sorted((CORPUS / "archives").iterdir()), ids=lambda path: path.name)
def test_seeds_of_archives_are_let_in(path, tmp_path):
    (tmp_path / "flow.keras").write_bytes(path.read_bytes())
    assert tff.load_model(tmp_path / "flow.keras").count_params() >= 0


@pytest.mark.parametrize(
    "name", ["context_net", "domain", "stock_base", "chain_with_stock_tfp", "multiscale", "planar_context"]
)
def test_seeds_of_configs_are_built(name, monkeypatch):
    """What stops them is that the weights are not theirs."""
    monkeypatch.setitem(sys.modules, "atheris", None)
    import configs

    content = (CORPUS / "configs" / name).read_bytes()
    with pytest.raises(ValueError, match="objects could not be loaded"):
        configs.build(content)
    with pytest.raises(ValueError, match="Expected"):
        configs.build(
            content.replace(b"Chain", b"Lambda").replace(b"Planar", b"Lambda").replace(b"Multiscale", b"Lambda")
        )
