"""Imports go one way, so a reader can learn the package from the bottom up."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "tfflows"

# Each room may import from rooms before it in this list, and from itself.
ORDER = [
    "serialization",
    "schema",
    "replicas",
    "atomic",
    "states",
    "products",
    "loading",
    "numerics",
    "randomness",
    "ode",
    "datasets",
    "watch",
    "nets",
    "transformers",
    "streaming",
    "bijectors",
    "domains",
    "bases",
    "losses",
    "latents",
    "rows",
    "batching",
    "checks",
    "frames",
    "pipelines",
    "contexts",
    "inputs",
    "distribution",
    "summary",
    "loop",
    "places",
    "callbacks",
    "checkpoints",
    "steps",
    "training",
    "export",
    "questions",
    "density",
    "model",
    "mixture",
    "architectures",
    "presets",
    "clouds",
    "inference",
    "testing",
    "sklearn",
    "plot",
    "cli",
    "beam",
    "__init__",
    "__main__",
]


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Modules of tfflows that a file imports, such as "bijectors.base"."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "tfflows":
            inner = node.module.split(".")[1:]
            modules |= {".".join([*inner, alias.name]) for alias in node.names} if not inner else {".".join(inner)}
        elif isinstance(node, ast.Import):
            modules |= {a.name.removeprefix("tfflows.") for a in node.names if a.name.startswith("tfflows.")}
    return modules


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way(path):
    here = ORDER.index(room(path))
    for module in imported(path):
        assert ORDER.index(module.split(".")[0]) <= here, f"{path.name} imports {module}"
        siblings = room(path) in ("bijectors", "transformers") and path.name != "__init__.py"
        if siblings and module.split(".")[0] == room(path):
            shared = {f"{room(path)}.{name}" for name in ("base", "parts", "monotonic", "spline")}
            assert module in shared, f"{path.name} imports its sibling {module}"


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_bijectors_and_transformers_name_no_dtype(path):
    """The dtype comes from the Keras policy."""
    if room(path) in ("transformers",) or path.name in ("elementwise.py", "coupling.py", "autoregressive.py"):
        text = path.read_text()
        assert "tf.float32" not in text
        assert "tf.float64" not in text
