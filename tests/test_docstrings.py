"""Every public name says what it does, what each of its parameters is, and what it raises."""

import ast
import functools
import importlib
import importlib.util
import inspect
import re
import textwrap
import types

import tfflows

MODULES = ["tfflows", *(f"tfflows.{name}" for name in tfflows.__all__ if inspect.ismodule(getattr(tfflows, name)))]
MODULES += [f"tfflows.{name}" for name in ("distribution", "inference", "loading", "inference.diagnostics")]
MODULES += [f"tfflows.{name}" for name in ("presets", "schema", "serialization", "sklearn")]
MODULES += ["tfflows.beam"] * (importlib.util.find_spec("apache_beam") is not None)
UNNAMED = {"self", "cls", "name"}  # and *args, **kwargs
CONSTRUCTORS = ("__init__", "__post_init__", "__new__")


def members(cls):
    """The public members of a class that tfflows wrote, and the classes that have them: its own and its bases'."""
    for name in dir(cls):
        if name == "__call__" or not name.startswith("_"):
            owner = next((c for c in cls.__mro__ if name in vars(c)), object)
            # What decorators such as dataclass make is called after the class, but written nowhere.
            if owner.__module__.startswith("tfflows") and not is_field(owner, name):
                yield name, vars(owner)[name]


def is_field(cls, name):
    """Whether an attribute is a constructor's argument, which is described there, or data."""
    value = vars(cls)[name]
    return not (inspect.isroutine(value) or isinstance(value, (property, functools.cached_property, type)))


def public():
    """(full name, object, class that it is a member of), each object once."""
    seen = set()
    for module in map(importlib.import_module, MODULES):
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.ismodule(value) or id(value) in seen:
                continue
            seen.add(id(value))
            full = f"{module.__name__}.{name}"
            yield full, value, None
            if inspect.isclass(value):
                yield from ((f"{full}.{key}", member, value) for key, member in members(value))


PUBLIC = list(public())


def function_of(value):
    """The function behind a method or property, which for a class is its constructor; None if there is none."""
    if isinstance(value, (classmethod, staticmethod)):
        return value.__func__
    if isinstance(value, property):
        return value.fget
    if isinstance(value, functools.cached_property):
        return value.func
    return value


def docstring(full, value, cls):
    """Of a member also what its bases say of it, since an override's arguments are theirs."""
    if cls is None:
        return vars(value).get("__doc__") or "" if inspect.isclass(value) else value.__doc__ or ""
    name = full.rpartition(".")[2]
    bases = [vars(c)[name] for c in cls.__mro__ if name in vars(c)]
    return "\n".join(inspect.getdoc(function_of(base)) or "" for base in bases).strip()


def parameters(value):
    try:
        found = inspect.signature(function_of(value)).parameters.values()
    except (TypeError, ValueError):  # of a property that is no Python function
        return []
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in found if p.kind not in kinds and p.name not in UNNAMED and not p.name.startswith("_")]


def raises_value_error(function):
    """Whether its own body, and no function inside, raises a ValueError, or calls what does nothing else."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    except (OSError, TypeError, SyntaxError):  # made by a decorator
        return False
    nodes = list(ast.iter_child_nodes(tree))
    while nodes:
        node = nodes.pop()
        if (
            isinstance(node, ast.Raise)
            and isinstance(node.exc, ast.Call)
            and ast.unparse(node.exc.func) == "ValueError"
        ):
            return True
        if not isinstance(node, (ast.FunctionDef, ast.Lambda, ast.ClassDef)):
            nodes += ast.iter_child_nodes(node)
    return False


def sources(value):
    """The functions that run when it is called."""
    if inspect.isclass(value):
        return [vars(value)[name] for name in CONSTRUCTORS if name in vars(value)]
    return [function_of(value)]


def ids(found):
    return [full.removeprefix("tfflows.") for full, *_ in found]


def test_public_modules_say_what_is_public():
    for module in map(importlib.import_module, MODULES):
        assert inspect.getdoc(module), f"Expected a docstring of {module.__name__}."
        assert sorted(module.__all__, key=str) == sorted(set(module.__all__), key=str)
        assert all(hasattr(module, name) for name in module.__all__), module.__name__


def test_names_have_docstrings():
    assert [full for full, value, cls in PUBLIC if not docstring(full, value, cls)] == []


def named(text):
    """The names that entries such as "low, high: ..." begin with, and those in backticks that are no shape."""
    entries = re.findall(r"^ *((?:\*{0,2}\w+, )*\*{0,2}\w+):", text, re.M)
    code = [part for part in text.split("`")[1::2] if not part.startswith("[")]
    return set(re.findall(r"\w+", " ".join([*entries, *code])))


def test_parameters_are_named():
    lack = {full: set(parameters(value)) - named(docstring(full, value, cls)) for full, value, cls in PUBLIC}
    assert {full: names for full, names in lack.items() if names} == {}


def test_raises_sections():
    raising = [item for item in PUBLIC if any(raises_value_error(f) for f in sources(item[1]))]
    assert len(raising) > 50
    assert [full for full, *item in raising if not re.search(r"^ *Raises:", docstring(full, *item), re.M)] == []


def test_presets_say_their_year_and_which_direction_is_fast():
    presets = [getattr(tfflows, name) for name in tfflows.architectures.__all__]
    assert all(isinstance(preset, types.FunctionType) for preset in presets)
    for preset in presets:
        text = preset.__doc__
        assert re.search(r"^ *References?:", text, re.M), preset.__name__
        assert re.search(r"\((19|20)\d\d\)", text), preset.__name__
        assert re.search(r"[Bb]oth directions", text) or re.search(
            r"(?i)densities.*samples|samples.*densities", text
        ), preset.__name__
