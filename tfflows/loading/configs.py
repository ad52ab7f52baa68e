"""What the config of a model may name: classes that are known, none that holds code, and sizes that fit."""

from __future__ import annotations

import inspect
import math
import re
import sys
from collections.abc import Iterator
from typing import Any

import keras

from tfflows.serialization import check_plain

MOST_LEVELS = 200
MOST_PARTS = 2_000_000  # lists, dicts, numbers and strings together
MOST_CLASSES = 10_000  # objects that are built: a flow of 100 layers has 500
MOST_TEXT = 1 << 20
MOST_SIZE = 1 << 16  # that a number in a config may be, or as many as there are weights
MOST_SHAPE = 1 << 24  # scalars of an event or the like
NOT_SIZES = {"seed", "shared_object_id", "low", "high", "array", "value", "categories", "start", "stop"}

# Of Keras, by where they are defined: layers and what layers have, no code. Left out are `Lambda`, what wraps models
# of other libraries, what reads vocabularies from files, and all functions that are not of numbers.
KERAS_ROOMS = re.compile(
    r"keras\.src\.(layers\.(activations|attention|convolutional|core|merging|normalization|pooling|regularization|"
    r"reshaping|rnn)|models\.(functional|sequential|model)|initializers|regularizers|constraints|optimizers|losses|"
    r"metrics|dtype_policies|layers\.preprocessing\.(normalization|rescaling|category_encoding))(\.|$)"
)
REFUSED = {"Lambda"}
OPERATIONS = {
    *("Absolute", "Add", "Cos", "Divide", "Exp", "Expm1", "GetItem", "Log", "Log1p", "Max", "Maximum", "Mean", "Min"),
    *("Minimum", "Multiply", "Negative", "Power", "Sin", "Sqrt", "Square", "Subtract", "Sum", "Tanh", "TrueDivide"),
    *("Concatenate", "ExpandDims", "Reshape", "Squeeze", "Stack", "Transpose", "Relu", "Sigmoid", "Silu", "Softmax"),
    *("Softplus", "LogSoftmax", "Gelu"),
}
FUNCTION_ROOMS = ("activations", "losses", "metrics")
PLAIN = {"__keras_tensor__", "__tensor__", "__numpy__", "__bytes__", "__slice__", "__ellipsis__"}


def check_config(config: Any, n_numbers: int) -> None:
    """Refuses a config that would build anything else than a model of known parts.

    Args:
      config: of a model, as JSON has it.
      n_numbers: that its file of weights has.

    Raises:
      ValueError: that says what is wrong with it, and where.
    """
    if not isinstance(config, dict) or "class_name" not in config:
        raise ValueError(f"Expected the config of a model; got {_shown(config)}.")
    largest, n_classes = max(MOST_SIZE, n_numbers), 0
    for n_parts, (key, value) in enumerate(_parts(config)):
        if n_parts > MOST_PARTS:
            raise ValueError(f"Expected a config of at most {MOST_PARTS:,} values; got more.")
        if isinstance(value, str) and len(value) > MOST_TEXT:
            raise ValueError(f"Expected texts of at most {MOST_TEXT:,} characters in a config; got {len(value):,}.")
        if isinstance(value, dict):
            check_plain(value)
            if "class_name" in value or "tfp_class" in value:
                n_classes += 1
                if n_classes > MOST_CLASSES:
                    raise ValueError(f"Expected a model of at most {MOST_CLASSES:,} parts; got more.")
            if "class_name" in value:
                _check_class(value)
            if "inbound_nodes" in value:
                _check_nodes(value["inbound_nodes"])
        if isinstance(value, int) and abs(value) > largest and key not in NOT_SIZES:
            raise ValueError(f"Expected sizes of at most {largest:,}, given the weights; got {key} of {value:,}.")
        is_shape = isinstance(value, list) and key.endswith("shape") and all(isinstance(n, int) for n in value)
        if is_shape and math.prod(map(abs, value)) > max(MOST_SHAPE, n_numbers):
            raise ValueError(f"Expected shapes of at most {MOST_SHAPE:,} scalars; got {key} of {value[:10]}.")


def _parts(config) -> Iterator[tuple[str, Any]]:
    """All values in it, each with the key that it is below, the config itself first."""
    left = [("", config, 0)]
    while left:
        key, value, level = left.pop()
        if level > MOST_LEVELS:
            raise ValueError(f"Expected a config of at most {MOST_LEVELS} levels; got more.")
        yield key, value
        if isinstance(value, dict):
            left.extend((k, v, level + 1) for k, v in value.items())
        elif isinstance(value, list):
            left.extend((key, v, level + 1) for v in value)


def _check_class(config):
    name, module = config["class_name"], config.get("module")
    if not isinstance(name, str) or not isinstance(module, (str, type(None))):
        raise ValueError(f"Expected the names of a class and its module; got {_shown(name)} and {_shown(module)}.")
    if name in PLAIN:
        return
    if name == "function":
        _check_function(config)
        return
    if "module" not in config:  # Keras would take it for one of an old version, and look for its class by name alone
        raise ValueError(f"Expected the module of each class in a config; got none of {_shown(name)}.")
    registered = config.get("registered_name", name)
    known = keras.saving.get_registered_object(registered) if isinstance(registered, str) else None
    # Keras gives some names with underscores a meaning of their own, whatever is registered.
    if inspect.isclass(known) and not name.startswith("__"):
        return
    found = _in_keras(module, name)
    allowed = inspect.isclass(found) and name not in REFUSED and found.__name__ not in REFUSED
    if allowed and found.__module__.startswith("keras.src.ops."):
        allowed = found.__name__ in OPERATIONS
    elif allowed:
        allowed = KERAS_ROOMS.match(found.__module__) is not None
    if not allowed:
        raise ValueError(
            f"Expected classes of tfflows, registered ones, or layers and the like of Keras that hold no code; got "
            f"{_shown(name)} of {_shown(module)}. If you trust the file, `keras.saving.load_model` may load it."
        )


def _check_function(config):
    name, module = config.get("config"), config.get("module")
    if isinstance(name, str):
        if keras.saving.get_registered_object(name) is not None:
            return
        rooms = FUNCTION_ROOMS if module == "builtins" else [r for r in FUNCTION_ROOMS if module == f"keras.{r}"]
        found = [getattr(getattr(keras, room), name, None) for room in rooms]
        if name not in ("get", "serialize", "deserialize") and any(map(inspect.isfunction, found)):
            return
    raise ValueError(
        f"Expected activations, losses or metrics of Keras, or registered ones, as functions; got {_shown(name)} of "
        f"{_shown(module)}."
    )


def _check_nodes(nodes):
    """Each call of a layer in a functional model is of symbols: of numbers it would be run."""
    for node in nodes if isinstance(nodes, list) else [None]:
        given = (value for _, value in _parts(node))
        if not any(isinstance(value, dict) and value.get("class_name") == "__keras_tensor__" for value in given):
            raise ValueError(f"Expected calls of layers with inputs in a config; got {_shown(node)}.")


def _in_keras(module, name):
    """What Keras would find, of modules that are imported."""
    if module is None or not (module == "keras" or module.startswith("keras.")):
        return None
    found = keras
    for part in module.split(".")[1:]:
        found = getattr(found, part, None)
    if found is None:
        found = sys.modules.get(module)
    return getattr(found, name, None)


def _shown(value) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."
