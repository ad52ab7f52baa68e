"""Checkpoints of `fit`: with one, a run that was killed goes on, and ends as it would have ended.

The file has all that a fit has come to by itself: weights, the state of the optimizer, the seeds of its orders, what
the callbacks remember, and how far it is. What a fit is given is checked against the file.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfflows import atomic, replicas, states
from tfflows.inputs import TrainingData
from tfflows.serialization import serialize

SECONDS = 10.0  # from one writing to the next, at least
SETTINGS = ("min_delta",)  # whose sign Keras changes once, in each run


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a fit is.

    Args:
      facts: of the model, the optimizer, the data and the arguments, by name.
      seed: of the orders of the rows.
      step_seed: of the random numbers of losses.
      is_adapted: whether the fit has read the data before the first epoch, to adapt.
      epoch: the first one that is not over.
      step: steps of it that are made.
      is_over: whether a callback has stopped the training.
      is_done: whether `fit` has returned.
      history: Keras' history so far.
      epochs: the numbers of its epochs.
      memory: of each callback its class, and what it has come to remember, by name.
      arrays: all variables, and lists of arrays that callbacks remember, by name and number.
    """

    facts: dict
    seed: int
    step_seed: int
    is_adapted: bool
    epoch: int = 0
    step: int = 0
    is_over: bool = False
    is_done: bool = False
    history: dict = dataclasses.field(default_factory=dict)
    epochs: list = dataclasses.field(default_factory=list)
    memory: list = dataclasses.field(default_factory=list)
    arrays: dict = dataclasses.field(default_factory=dict, repr=False)

    def write(self, path: Path) -> None:
        """Puts it into the file, which is the old one or the new one at any moment."""
        rest = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "arrays"}
        states.save(path, self.arrays | {"progress": np.array(json.dumps(rest))})


def read(path: str | Path, strategy) -> Progress | None:
    """What a fit has written at `path`, or None if nothing is there.

    Raises:
      ValueError: for a file that is no checkpoint of a fit, a folder that is not there, or workers that read different
        ones.
    """
    path, found = Path(path), None
    if not path.parent.is_dir():
        raise ValueError(f"Expected a checkpoint in a folder that is there; got {path}.")
    if path.exists():
        arrays = states.load(path)
        if not states.is_search(arrays):  # which comes before the first epoch
            try:
                found = Progress(**json.loads(str(arrays.pop("progress"))), arrays=arrays)
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"Expected a checkpoint of fit; got {path}, which is none: {error}") from error
    here = -1 if found is None else found.epoch
    if here != replicas.agreed(here, strategy):
        raise ValueError(f"Expected a checkpoint that all workers can read; got one that the first alone has, {path}.")
    return found


def facts(model, data: TrainingData, **arguments) -> dict:
    """What must be the same for a fit to go on: of a compiled model, its data, and arguments by name."""
    # A learning rate that is a number is that of the moment, which the file has among the variables.
    optimizer = model.optimizer.get_config()
    optimizer = {k: v for k, v in optimizer.items() if k != "name" and not (k == "learning_rate" and np.ndim(v) == 0)}
    now = {
        "model": type(model).__name__,
        "checksum of the config": _checksum(model),
        "weights": [list(weight.shape) for weight in model.weights],
        "loss": serialize(model.flow_loss),
        "optimizer": [type(model.optimizer).__name__, optimizer],
        "rows": None if data.rows is None else [len(data.rows), states.fingerprint(*data.rows.columns().values())],
        "batch_size": data.batch_size,
        **arguments,
    }
    return json.loads(json.dumps(now, default=str))


def _checksum(model) -> str | None:
    """Of what a model is made of but its weights; None for one with parts that have no config."""
    try:
        config = json.loads(json.dumps(keras.saving.serialize_keras_object(model.get_config()), default=str))
    except Exception:  # of layers that users wrote
        return None
    # Keras names layers by how many there were before them in the process.
    numbers = {name: i for i, name in enumerate(dict.fromkeys(_names(config)))}
    return states.fingerprint(_numbered(config, numbers))


def _names(config) -> Iterator[str]:
    if isinstance(config, dict) and isinstance(config.get("name"), str):
        yield config["name"]
    if isinstance(config, (dict, list)):
        for value in config.values() if isinstance(config, dict) else config:
            yield from _names(value)


def _numbered(config, numbers):
    """The config with numbers in place of names, and without the code of lambdas, which says on which line it was."""
    if isinstance(config, dict) and config.get("class_name") == "__lambda__":
        return "__lambda__"
    if isinstance(config, dict):
        return {key: _numbered(value, numbers) for key, value in config.items()}
    if isinstance(config, list):
        return [_numbered(value, numbers) for value in config]
    return numbers.get(config, config) if isinstance(config, str) else config


def _check_same(path, kept: dict, now: dict) -> None:
    """Raises a ValueError that says which facts are others."""
    if others := [name for name in now if kept.get(name) != now[name]]:
        each = "; ".join(f"{name} {_short(kept.get(name))} there, {_short(now[name])} here" for name in others)
        raise ValueError(f"Expected a checkpoint of this fit, or none; got {path}, which is of another: {each}.")


def _short(value) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


class Checkpoint(keras.callbacks.Callback):
    """Writes how far the fit of a model is, and begins where it was.

    It comes after the other callbacks, so that what they remember is of the same moment.

    Args:
      model: compiled, with an optimizer that is built.
      path: of the file.
      progress: how far it is.
      facts: of the fit that is to go on.

    Raises:
      ValueError: if the progress is that of another fit.
    """

    def __init__(self, model, path: str | Path, progress: Progress, facts: dict):
        super().__init__()
        _check_same(path, progress.facts, facts)
        self._path, self._progress, self._epochs_over = Path(path), progress, progress.epoch
        self._is_writer = replicas.is_chief(model.distribute_strategy)
        self._variables = _named("model", model.variables) | _named("optimizer", model.optimizer.variables)
        self._metrics = _named("metric", [variable for metric in model.metrics for variable in metric.variables])
        self._restore(self._variables)

    def _restore(self, variables):
        for name in variables.keys() & self._progress.arrays.keys():
            variables[name].assign(self._progress.arrays[name])

    def has_ended(self, n_epochs: int) -> bool:
        """Whether the fit has ended by itself, or after no fewer than `n_epochs`."""
        return self._progress.is_done and self.first_epoch(n_epochs) == n_epochs

    def check_writable(self) -> None:
        """Raises an OSError if the file cannot be written."""
        if self._is_writer:
            atomic.check_writable(self._path)

    def history(self) -> keras.callbacks.History:
        """Keras' history of what is over."""
        history = keras.callbacks.History()
        history.history, history.epoch = self._progress.history, self._progress.epochs
        return history

    def first_epoch(self, n_epochs: int) -> int:
        """The epoch to begin with, out of `n_epochs`: none of them if a callback has stopped the training."""
        return n_epochs if self._progress.is_over else min(self._progress.epoch, n_epochs)

    def rest_of(self, data: TrainingData, steps_per_epoch: int | None) -> tf.data.Dataset:
        """The batches of the epochs that are not over, in the order that they would have had."""
        stream = data.stream
        if self._progress.is_adapted:
            data.adapt_rows()  # after which a pipeline is in the order of the first epoch
        if steps_per_epoch is not None:  # one pass for all epochs
            return stream.skip(self._progress.epoch * steps_per_epoch)
        for _ in range(self._progress.epoch):
            next(iter(stream), None)
            if int(stream.cardinality()) >= 0:
                iter(stream)  # Keras knows their number, and makes another one after the last batch
        return stream

    def attach(self, callbacks: list[keras.callbacks.Callback], loop) -> None:
        """Tells it of the other callbacks, and of the compiled loop over the steps of an epoch, or None."""
        self._others, self._loop = callbacks, loop

    def on_train_begin(self, logs=None):
        self._at_first = [_memory(callback) for callback in self._others]
        kept = list(enumerate(self._progress.memory))
        for callback, at_first in zip(self._others, self._at_first, strict=True):
            # The next one of its class: there may be others before it now.
            found = next((each for each in kept if each[1][0] == type(callback).__name__), None)
            if found is None:
                continue
            kept.remove(found)
            i, (_, memory) = found
            for name, value in memory.items():
                if name not in at_first:
                    continue
                if isinstance(value, dict):
                    value = [self._progress.arrays[f"callback/{i}/{name}/{j}"] for j in range(value["n_arrays"])]
                setattr(callback, name, value)
        # Keras has made these new.
        self.model.history.history, self.model.history.epoch = dict(self._progress.history), [*self._progress.epochs]
        self._begins, self._last, self._n_skipped = True, time.monotonic(), 0
        # In the middle of an epoch it must know which step is next.
        self._counts = self._loop is not None or (
            self.model.steps_per_execution == 1 and self.model.distribute_strategy.num_replicas_in_sync == 1
        )

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch, begins, self._begins = epoch, self._begins, False
        self._n_skipped = 0
        if begins and self._progress.step:
            self._restore(self._metrics)
            if self._loop is None:
                self._n_skipped = self._progress.step
                _skip(self.model, self._n_skipped)
            else:
                self._loop.step = self._progress.step

    def on_train_batch_end(self, batch, logs=None):
        if batch + 1 > self._n_skipped and self._counts and time.monotonic() - self._last >= SECONDS:
            self._write(self._epoch, batch + 1 if self._loop is None else self._loop.step)

    def on_epoch_end(self, epoch, logs=None):
        self._epochs_over = epoch + 1
        if time.monotonic() - self._last >= SECONDS or self.model.stop_training:
            self._write(self._epochs_over)

    def done(self) -> None:
        """Writes that the fit has ended, and the weights that it has ended with."""
        self._write(self._epochs_over, is_done=True)

    def _write(self, epoch, step=0, *, is_done=False):
        self._last = time.monotonic()
        if not self._is_writer:
            return
        variables = self._variables | (self._metrics if step else {})
        arrays, memory = {name: np.asarray(keras.ops.convert_to_tensor(v)) for name, v in variables.items()}, []
        for i, (callback, first) in enumerate(zip(self._others, self._at_first, strict=True)):
            now = {name: value for name, value in _memory(callback).items() if value is not first.get(name, self)}
            for name, value in now.items():
                if isinstance(value, list):
                    arrays |= {f"callback/{i}/{name}/{j}": array for j, array in enumerate(value)}
                    now[name] = {"n_arrays": len(value)}
            memory.append([type(callback).__name__, now])
        done = dataclasses.replace(
            self._progress,
            epoch=epoch,
            step=step,
            is_over=bool(self.model.stop_training),
            is_done=is_done,
            history=self.model.history.history,
            epochs=self.model.history.epoch,
            memory=memory,
            arrays=arrays,
        )
        done.write(self._path)


def _skip(model, n_steps):
    """Makes the next `n_steps` calls of the model's train function read their batches and no more."""
    train = model.train_function

    def skip(iterator):
        nonlocal n_steps
        next(iterator)
        n_steps -= 1
        if n_steps == 0:
            model.train_function = train
        return model.get_metrics_result()

    model.train_function = skip


def _named(kind, variables):
    return {f"{kind}/{i}": variable for i, variable in enumerate(variables)}


def _memory(callback) -> dict:
    """The attributes of a callback that are numbers, truth values, None or lists of arrays."""
    found = {}
    for name, value in vars(callback).items():
        if name in SETTINGS:
            continue
        is_arrays = isinstance(value, list) and value and all(isinstance(v, (np.ndarray, np.generic)) for v in value)
        if is_arrays or value is None or isinstance(value, (bool, int, float)):
            found[name] = value
        elif isinstance(value, np.generic):
            found[name] = value.item()
    return found
