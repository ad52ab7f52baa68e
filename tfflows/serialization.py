"""Configs for `.keras` files: constructor arguments out, the same object back in.

Our transformers, bijectors and bases are rebuilt from the arguments they were made with. Stock TFP objects,
which keep those too (`.parameters`), can stand in a chain or as a base and go the same way.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

__all__ = ["Record", "check_plain", "deserialize", "register", "serialize"]

PACKAGE = "tfflows"

# Only these modules' public names can be rebuilt from a file: a config names a class, never code.
_TFP_MODULES = {"tfb": tfp.bijectors, "tfd": tfp.distributions}
_TFP_KINDS = (tfp.bijectors.Bijector, tfp.distributions.Distribution)
# Of these, those that are made from functions, or make nets of TFP's own.
_TFP_REFUSED = re.compile(
    r"AutoComposite.*|Autoregressive|BatchNormalization|Bijector|CholeskyOuterProduct|Distribution|FFJORD|Glow|Inline|"
    r"JointDistribution.*|MarkovChain|Masked|MaskedAutoregressiveFlow|PixelCNN|RealNVP|.*Process(RegressionModel)?"
)
_DTYPES = re.compile(r"bool|u?int(8|16|32|64)|b?float(16|32|64)|float8_\w+|complex(64|128)")


def register(cls: type) -> type:
    """Class decorator: Keras can save and load the class without `custom_objects`.

    Args:
      cls: a class with `get_config` and `from_config`; its name is unique among those registered.
    """
    return keras.saving.register_keras_serializable(PACKAGE)(cls)


class Record:
    """Something without weights whose settings are the fields of a frozen dataclass: that is all a file needs."""

    def __str__(self) -> str:
        fields = [f for f in dataclasses.fields(self) if getattr(self, f.name) != f.default]
        values = [(f.name, getattr(self, f.name)) for f in fields]
        arguments = ", ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in values)
        return f"{type(self).__name__}({arguments})" if arguments else type(self).__name__

    def get_config(self) -> dict:
        """The fields by name, as a `.keras` file holds them."""
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict):
        """The same record again, from the `config` of `get_config`."""
        return cls(**config)


def serialize(value: Any) -> Any:
    """A JSON-ready description of a constructor argument.

    Args:
      value: None, a number, string, array, dtype, Keras layer, tfflows or TFP object, or a list of them.

    Raises:
      ValueError: for anything else, and for classes of TFP that are not public.
    """
    if isinstance(value, (list, tuple)):
        return [serialize(v) for v in value]
    if isinstance(value, (tf.Tensor, np.ndarray, np.generic)):
        value = np.asarray(value)
        return {"array": value.tolist(), "dtype": value.dtype.name}
    if isinstance(value, tf.DType):
        return {"dtype_name": value.name}
    if hasattr(value, "get_config"):
        return keras.saving.serialize_keras_object(value)
    if isinstance(value, _TFP_KINDS):
        return _serialize_tfp(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ValueError(
        "Expected arguments that a file can hold (numbers, strings, arrays, Keras layers, tfflows "
        f"or TFP objects); got {value!r}."
    )


def deserialize(config: Any) -> Any:
    """The inverse of `serialize`.

    Args:
      config: what that returned.

    Raises:
      ValueError: if it names a class of TFP that is not public or is made from functions, or has arrays of another type
        than numbers.
    """
    if isinstance(config, (list, tuple)):
        return [deserialize(c) for c in config]
    if not isinstance(config, dict):
        return config
    check_plain(config)
    if "array" in config:
        return np.asarray(config["array"], dtype=config["dtype"])
    if "dtype_name" in config:
        return tf.as_dtype(config["dtype_name"])
    if "tfp_class" in config:
        cls = _tfp_class(config["tfp_class"])
        return cls(**{k: deserialize(v) for k, v in config["parameters"].items()})
    return keras.saving.deserialize_keras_object(config)


def check_plain(config: dict) -> None:
    """Refuses a dict of a config that stands for an array, a type or a part of TFP, but for none that a file may have.

    Args:
      config: any dict in the config.

    Raises:
      ValueError: if it does.
    """
    if "array" in config or config.get("class_name") in ("__numpy__", "__tensor__"):
        given = config if "array" in config else config.get("config")
        dtype = given.get("dtype") if isinstance(given, dict) else None
        if not (isinstance(dtype, str) and _DTYPES.fullmatch(dtype)):
            raise ValueError(f"Expected an array of numbers in a config; got one of type {str(dtype)[:80]!r}.")
    elif "dtype_name" in config:
        if not (isinstance(config["dtype_name"], str) and _DTYPES.fullmatch(config["dtype_name"])):
            raise ValueError(f"Expected a type of numbers in a config; got {str(config['dtype_name'])[:80]!r}.")
    elif "tfp_class" in config:
        _tfp_class(config["tfp_class"])
        if not isinstance(config.get("parameters"), dict):
            raise ValueError(f"Expected parameters of {config['tfp_class']}; got {str(config.get('parameters'))[:80]}.")


def _tfp_class(path) -> type:
    module, _, name = str(path).partition(".")
    cls = getattr(_TFP_MODULES.get(module), name, None)
    if not (inspect.isclass(cls) and issubclass(cls, _TFP_KINDS)) or _TFP_REFUSED.fullmatch(name):
        raise ValueError(f"Expected a public class of TFP that is not made from functions; got {str(path)[:80]!r}.")
    return cls


def _serialize_tfp(value: Any) -> dict:
    # The private classes that `tfb.Invert(...)` and friends build derive from or are named after a public one.
    for cls in type(value).__mro__:
        name = cls.__name__.lstrip("_")
        for alias, module in _TFP_MODULES.items():
            public = getattr(module, name, None)
            if inspect.isclass(public) and public.__module__ == cls.__module__:
                accepted = inspect.signature(public.__init__).parameters
                parameters = {k: serialize(v) for k, v in value.parameters.items() if k in accepted and k != "name"}
                return {"tfp_class": f"{alias}.{name}", "parameters": parameters}
    raise ValueError(f"Expected a public class of TFP; got {type(value).__name__}.")
