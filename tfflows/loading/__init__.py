"""Loads models from files that need not be trusted."""

from __future__ import annotations

import json
import os
from pathlib import Path

import keras
from keras.src.saving.serialization_lib import SafeModeScope

from tfflows.loading.archive import read_members
from tfflows.loading.configs import check_config
from tfflows.loading.weights import at_most, count

__all__ = ["load_model"]

MOST_BYTES = 1 << 32


def load_model(path: str | os.PathLike, *, compile: bool = True, max_bytes: int = MOST_BYTES) -> keras.Model:
    """The model in a `.keras` file, whoever wrote it: nothing in it runs as code.

    As `keras.saving.load_model`, but before anything of the file is built it is looked through: the archive has the
    three members that Keras writes and none that is far larger than what is stored of it; the config names only classes
    of tfflows, layers, optimizers and the like of Keras that hold no code and read no files, and what the user
    registered by `keras.saving.register_keras_serializable`; sizes in it fit the weights that are there; and these are
    plain numbers, stored whole, without links to other files; another process looks through them, since HDF5 itself may
    be led astray. While it is built, it may not make more weights than six times those in the file, which is what an
    optimizer adds. `keras.config.enable_unsafe_deserialization()` changes none of this.

    Args:
      path: of a `.keras` file that `save` wrote.
      compile: whether the optimizer and its state are restored, so that `fit` goes on where it was.
      max_bytes: the largest size of the file and of what is in it, > 0; 4 GiB by default.

    Returns:
      a `FlowModel`, `FlowMixture`, `PointCloudFlow`, or a Keras model of which these may be parts.

    Raises:
      ValueError: for a file that is missing, damaged, larger than `max_bytes`, or has something else in it than what is
        said above; with what was expected and what was found.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(
            f"Expected a model file; got {path}, which {'is none' if path.exists() else 'does not exist'}."
        )
    if path.suffix.lower() != ".keras":
        raise ValueError(f"Expected a .keras file that `save` wrote; got {path}, which is none.")
    if not max_bytes > 0:
        raise ValueError(f"Expected max_bytes > 0; got {max_bytes}.")
    config, weights = read_members(path, max_bytes)
    n_numbers, n_arrays = count(weights)
    del weights
    try:
        config = json.loads(config)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"Expected config.json of a model in {path}; got no JSON: {error}") from error
    check_config(config, n_numbers)
    try:
        # The scope, because what `enable_unsafe_deserialization` set is stronger than the argument.
        with at_most(n_numbers, n_arrays), SafeModeScope(True):
            return keras.saving.load_model(path, compile=compile, safe_mode=True)
    except Exception as error:  # of any kind: what is in the file decides
        reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
        raise ValueError(f"Expected a model that Keras can build; got {path}, where it cannot: {reason}") from error
