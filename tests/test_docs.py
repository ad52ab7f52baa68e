"""The documentation: its code runs, its site builds without a warning, its links and names exist."""

import importlib
import importlib.util
import inspect
import logging
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlparse

import griffe
import numpy as np
import pytest
from markdown.extensions.toc import slugify

import tfflows
from tfflows import FlowModel, RealNVP, training
from tfflows.inference import flows

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = [README, *sorted(DOCS.rglob("*.md"))]
LINKING = [
    *PAGES,
    ROOT / "CHANGELOG.md",
    ROOT / "CONTRIBUTING.md",
    *(
        path
        for folder in ("benchmarks", "examples", "saved_models")
        for path in sorted((ROOT / folder).rglob("*.md"))
        if "node_modules" not in path.parts
    ),
]
HOSTS = {"arxiv.org", "doi.org", "localhost"}
# One page each.
MODULES = [name for name in tfflows.__all__ if inspect.ismodule(getattr(tfflows, name))]
MODULES += ["distribution", "inference", "inference.calibration", "inference.diagnostics", "presets", "schema"]
MODULES += ["serialization", "sklearn"]
# Of extras that are not in `test`.
NEEDS = {"beam": "apache_beam"}
MODULES += [module for module, package in NEEDS.items() if importlib.util.find_spec(package)]
PAGE_NEEDS = {"score_at_scale.md": "apache_beam"}


def name(path):
    return str(path.relative_to(ROOT))


def blocks(path, *languages):
    """The fenced blocks of a page in these languages, each after as many empty lines as stand before it."""
    text = path.read_text()
    found = re.finditer(r"^```(\w+)[^\n]*\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    return ["\n" * text[: b.start(2)].count("\n") + b[2] for b in found if b[1] in languages]


def prose(path):
    """A page without its blocks and code."""
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", "", text)


RUN_ELSEWHERE = {"write_your_own_bijector"}  # in `test_testing.py`, which reads what it prints


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python") and p.stem not in RUN_ELSEWHERE], ids=name)
def test_code_runs(page, tmp_path, monkeypatch, quick_samplers, request):
    """Top to bottom in one namespace, as a reader runs it who starts at the top."""
    if page.name in PAGE_NEEDS:
        pytest.importorskip(PAGE_NEEDS[page.name])
    if page != README:  # compiled as a user's once
        request.getfixturevalue("without_xla")
    monkeypatch.chdir(tmp_path)
    # The pages show calls, not quality.
    monkeypatch.setattr(training, "MAX_EPOCHS", 5)
    monkeypatch.setattr(flows, "default_flow", lambda n_dim, rng: FlowModel(RealNVP(n_dim, n_layers=2, hidden=(16,))))
    names = {"__name__": "page"}
    for block in blocks(page, "python"):
        exec(compile(block, name(page), "exec"), names)
    if page == README:
        assert names["log_prob"].shape == (1000,)
        assert np.all(np.isfinite(names["new"]))
        assert (tmp_path / "flow.keras").exists()


def test_commands_are_those_that_run():
    """`tests/test_cli.py` runs the README's session; pages have its lines, scripts that exist, and make's targets."""
    session = {line for block in blocks(README, "sh") for line in block.splitlines()}
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    for page in PAGES:
        for line in "\n".join(blocks(page, "sh")).replace("\\\n", " ").splitlines():
            program, *arguments = shlex.split(line, comments=True) or [""]
            if program == "tfflows":
                assert page == README or line in session, line
            elif program == "make":
                assert set(arguments) <= targets, line
            else:
                scripts = [word for word in (program, *arguments) if re.fullmatch(r"[\w/]+\.py", word)]
                assert all((ROOT / script).exists() for script in scripts), line


@pytest.mark.usefixtures("without_xla")
def test_pictures_of_the_idea(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["pictures.py", "--quick", "--output", str(tmp_path)])
    runpy.run_path(str(DOCS / "pictures.py"), run_name="__main__")
    assert "held-out log-likelihood" in capsys.readouterr().out
    drawn = {path.name for path in tmp_path.iterdir()}
    assert drawn == {path.name for path in (DOCS / "pictures").iterdir()}
    assert all((tmp_path / picture).stat().st_size > 10_000 for picture in drawn)


# Links.


def anchors(path):
    """What a link into a page may name: its headings, and ids written by hand."""
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*?)(?: \{#[\w-]+\})?$", text, flags=re.MULTILINE)
    by_hand = re.findall(r"\{#([\w-]+)\}", text) + re.findall(r'id="([^"]+)"', text)
    return {slugify(re.sub(r"[`*]", "", heading), "-") for heading in headings} | set(by_hand)


def links(path):
    text = prose(path)
    return re.findall(r"\]\(<?([^)\s>]+)>?[^)]*\)", text) + re.findall(r'(?:href|src)="([^"]+)"', text)


@pytest.mark.parametrize("page", LINKING, ids=name)
def test_links(page):
    for link in links(page):
        url = urlparse(link)
        if url.scheme:
            assert url.scheme == "https" or url.hostname == "localhost", link
            assert url.hostname in HOSTS, link
            continue
        target = (page.parent / url.path).resolve() if url.path else page
        assert target.exists(), link
        assert ROOT in target.parents, link
        if url.fragment:
            assert url.fragment in anchors(target), link


# The site.


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stderr
    return folder


def test_site_needs_no_network_and_has_its_tables(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > len(PAGES) - 1
    for page in pages:
        html = page.read_text()
        loaded = re.findall(r'<(?:script|img)[^>]*src="([^"]*)"', html)
        loaded += re.findall(r'<link[^>]*rel="(?:stylesheet|preconnect|icon)"[^>]*href="([^"]*)"', html)
        assert not [link for link in loaded if urlparse(link).scheme or link.startswith("//")], page
        assert "|---" not in html, f"a table of {page} is broken"


def test_every_table_of_the_benchmarks_is_there():
    pages = (DOCS / "benchmarks.md").read_text() + (DOCS / "numerics.md").read_text()
    included = set(re.findall(r'--8<-- "(\w+\.md):2"', pages))
    assert included == {path.name for path in (ROOT / "benchmarks" / "results").glob("*.md")}


def public_names(module):
    if hasattr(module, "__all__"):
        return set(module.__all__)
    return {
        key
        for key, value in vars(module).items()
        if not key.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == module.__name__
    }


def test_api_is_complete(site):
    pages = {
        path: set(re.findall(r'id="(tfflows[\w.]+)"', path.read_text())) for path in site.rglob("api/*/index.html")
    }
    for module in MODULES:
        full = f"tfflows.{module}"
        for key in public_names(importlib.import_module(full)):
            # A function may have the name of its file, which hides it from who reads the files only.
            names = {f"{full}.{key}", f"{full}.{key}.{key}"}
            found = [path.parent.name for path, ids in pages.items() if names & ids]
            assert found == [module.split(".")[0]], f"{full}.{key} is on the pages {found}"
    for page, full in (("model", "tfflows.model.FlowModel"), ("mixture", "tfflows.mixture.FlowMixture")):
        found = [path.parent.name for path, ids in pages.items() if full in ids]
        assert found == [page]
    # What `import tfflows` offers is one of these.
    shown = {key for ids in pages.values() for key in ids}
    for key in set(tfflows.__all__) - set(MODULES):
        value = getattr(tfflows, key)
        rooms = {".".join(value.__module__.split(".")[:2]), "tfflows.architectures"}
        assert any(f"{room}.{key}" in shown for room in rooms), key


def documented():
    """Every public function, class and method, by its full name."""
    modules = [*MODULES, "model", "mixture"]
    for module in map(importlib.import_module, (f"tfflows.{m}" for m in modules)):
        for key in sorted(public_names(module)):
            value = getattr(module, key)
            yield f"{module.__name__}.{key}", value
            if inspect.isclass(value):
                for method, function in inspect.getmembers(value, inspect.isfunction):
                    if not method.startswith("_") and function.__module__.startswith("tfflows."):
                        yield f"{module.__name__}.{key}.{method}", function


def test_arguments_in_docstrings_exist():
    """An entry of `Args` may be of several arguments, "low, high: ..."."""
    logging.getLogger("griffe").setLevel(logging.CRITICAL)
    n_checked = 0
    for full, value in documented():
        if not callable(value) or not value.__doc__:
            continue
        known = set(inspect.signature(value).parameters)
        for section in griffe.Docstring(inspect.cleandoc(value.__doc__)).parse("google"):
            if section.kind is not griffe.DocstringSectionKind.parameters:
                continue
            for entry in section.value:
                stated = {word.strip(" *") for word in entry.name.split(",")}
                assert stated <= known, f"{full}: {stated - known}"
                n_checked += len(stated)
    assert n_checked > 500


def test_names_for_users_of_other_libraries_exist():
    """The last columns of the tables name things of tfflows, and arguments of theirs: "FlowModel.fit(epochs=)"."""
    n_names = 0
    rows = re.findall(r"^\|.*\|$", (DOCS / "from_other_libraries.md").read_text(), flags=re.MULTILINE)
    for row in rows:
        cell = re.split(r"(?<!\\)\|", row)[-2]
        for dotted, arguments in re.findall(r"`([A-Za-z][\w.]*)(?:\(([^)`]*)\))?`", cell):
            value = tfflows
            for part in dotted.split("."):
                if inspect.ismodule(value) and not hasattr(value, part):
                    value = importlib.import_module(f"{value.__name__}.{part}")
                else:
                    value = getattr(value, part)
            known = inspect.signature(value).parameters if callable(value) else {}
            assert set(re.findall(r"(\w+)=", arguments)) <= set(known), row
            n_names += 1
    assert n_names > 100
