"""`tfflows fit` and `tfflows compare`."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
from rich.table import Table

from tfflows import presets
from tfflows.callbacks import default_optimizer, restore_best
from tfflows.cli import files
from tfflows.cli.console import Report, counted, mean_and_error, nats, note, noted_warnings, progress
from tfflows.cli.data import Data, read
from tfflows.cli.streams import by_name
from tfflows.model import FlowModel

N_DRAWS = 10_000  # that the time of sampling is measured of
FEW = 50  # rows, fewer than which are hardly held out and hardly fitted


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a flow is built and trained: the options that `fit` and `compare` share."""

    epochs: int | None
    validation_split: float
    batch_size: int | None
    learning_rate: float | None
    hidden: str | None
    layers: int | None
    checkpoint: Path | None = None


def build(preset: Callable, data: Data, settings: Settings) -> FlowModel:
    """The untrained flow of a preset."""
    n_dim = data.x.shape[1] if data.domain is None else sum(len(d.circular_latents) for d in data.domain)
    width = None if data.context is None else data.context.shape[1]
    words = {"context_dim": "context columns", "n_layers": "--layers", "hidden": "--hidden"}
    hidden = None if settings.hidden is None else _widths(settings.hidden)
    bijector = presets.build(preset, n_dim, words, context_dim=width, n_layers=settings.layers, hidden=hidden)
    net, shape = None, None
    if width is not None:  # nets want numbers near 1, of any unit
        variance = data.context.var(axis=0)
        net = keras.layers.Normalization(
            mean=data.context.mean(axis=0), variance=np.where(variance > 0.0, variance, 1.0)
        )
        shape = (width,)
    flow = FlowModel(bijector, domain=data.domain, context_net=net, context_shape=shape, name=preset.__name__)
    flow.schema = data.schema
    with by_name(data.schema):  # before rows are split, which loses their numbers
        flow.accepts.check_domain(data.x)
    return flow


def _widths(text: str) -> tuple[int, ...]:
    """Of "64,64"."""
    try:
        widths = tuple(int(width) for width in text.split(","))
    except ValueError:
        widths = ()
    if not widths or min(widths) < 1:
        raise ValueError(f"Expected --hidden as whole numbers >= 1, such as 64,64; got '{text}'.")
    return widths


class Epochs(keras.callbacks.Callback):
    """Shows how training goes, and counts its epochs."""

    def __init__(self, show: Callable):
        super().__init__()
        self.show, self.count, self.best = show, 0, np.inf

    def on_epoch_end(self, epoch, logs=None):
        self.count, held_out = epoch + 1, (logs or {}).get("val_loss", np.nan)
        self.best = np.fmin(self.best, held_out)
        self.show(self.count, f"epoch {self.count}, held-out loss {held_out:.4f}, best {self.best:.4f}")


def train(flow: FlowModel, data: Data, held_out: Data, settings: Settings) -> tuple[int, bool]:
    """Fits a flow, which is left with its best weights; returns the epochs, and whether Ctrl-C ended it.

    Raises:
      KeyboardInterrupt: if it came before there were any weights to keep.
    """
    if settings.learning_rate is not None:
        flow.compile(default_optimizer(averaged=settings.epochs is None, learning_rate=settings.learning_rate))
    keep = []
    if settings.epochs is not None:  # `fit` alone keeps the best weights, Keras' number of epochs does not
        keep = [keras.callbacks.EarlyStopping("val_loss", patience=settings.epochs, restore_best_weights=True)]
    # Of a simplex or a sphere the flow's numbers are not the table's.
    names = [c.name for c in data.schema.columns] if data.x.shape[1] == flow.base.event_shape[0] else []
    with noted_warnings(names), progress(f"Fitting {flow.name}", settings.epochs) as show:
        epochs = Epochs(show)
        try:
            history = flow.fit(
                data.x,
                data.context,
                data.weight,
                batch_size=settings.batch_size,
                epochs=settings.epochs,
                validation_data=(held_out.x, held_out.context, held_out.weight),
                callbacks=[epochs, *keep],
                verbose=0,
                checkpoint=settings.checkpoint,
            )
        except KeyboardInterrupt:
            is_untrained = flow.trainable_weights or flow.bijector.needs_adapt  # SINF has the layers found so far
            if epochs.count == 0 and is_untrained:
                raise
            restore_best(keep)
            return epochs.count, True
    return len(history.epoch), False


def log_likelihood(flow: FlowModel, data: Data) -> tuple[np.ndarray, np.ndarray]:
    """Of each row, in nats, and its weight."""
    log_prob = np.asarray(flow.log_prob(data.x, data.context), np.float64)
    return log_prob, np.ones(len(log_prob)) if data.weight is None else data.weight


def averaged(values: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """The weighted mean and its standard error."""
    return mean_and_error(np.sum(weight * values), np.sum(weight * values**2), np.sum(weight), np.sum(weight**2))


def fit(data, out, flow, columns, context, weights, domain, drop_missing, settings, seed, force) -> Report:
    """Fits a flow to a table and saves it."""
    preset = presets.find(flow)
    if seed is not None:
        keras.utils.set_random_seed(seed)
    with files.replacing(out, (".keras",), force=force) as path:
        rows = read(data, columns, context, weights, domain, drop_missing=drop_missing)
        if len(rows.x) < FEW:
            note(f"Note: {counted(len(rows.x), 'row')} say little about a density: use it with care.")
        rng = np.random.default_rng(seed)
        training, held_out = rows.split(settings.validation_split, rng, "--validation-split")
        model = build(preset, rows, settings)
        started = time.perf_counter()
        epochs, is_interrupted = train(model, training, held_out, settings)
        seconds = time.perf_counter() - started
        mean, error = averaged(*log_likelihood(model, held_out))
        files.save_flow(model, path)
    facts = {
        "model": str(out),
        "flow": preset.__name__,
        "rows": len(rows.x),
        "held_out_rows": len(held_out.x),
        "columns": [column.name for column in rows.schema.columns],
        "context": [column.name for column in rows.schema.context],
        "held_out_log_prob": mean,
        "error": error,
        "epochs": epochs,
        "seconds": round(seconds, 1),
        "weights": model.count_params(),
        "interrupted": is_interrupted,
    }
    text = f"{preset.__name__} of {counted(len(rows.x), 'row')}, {counted(epochs, 'epoch')} in {seconds:.0f} s\n"
    text += f"log-likelihood of {counted(len(held_out.x), 'held-out row')}: {nats(mean, error)}\n"
    text += f"stopped by Ctrl-C: the best weights so far are in {out}" if is_interrupted else f"saved to {out}"
    return Report(facts, text, 130 if is_interrupted else 0)


def compare(data, flows, columns, context, weights, domain, drop_missing, test_split, settings, seed) -> Report:
    """Fits several presets to the same rows and compares them on the same others."""
    chosen = {preset.__name__: preset for preset in map(presets.find, _listed_flows(flows))}
    rows = read(data, columns, context, weights, domain, drop_missing=drop_missing)
    rng = np.random.default_rng(seed)
    rest, test = rows.split(test_split, rng, "--test-split")
    training, held_out = rest.split(settings.validation_split, rng, "--validation-split")
    results, is_interrupted = [], False
    try:
        for name, preset in chosen.items():
            if seed is not None:
                keras.utils.set_random_seed(seed)
            results.append({"flow": name} | _result(preset, rows, (training, held_out, test), settings))
    except KeyboardInterrupt:
        is_interrupted = True
    done = [result for result in results if "values" in result]
    if not done:
        if is_interrupted:
            raise KeyboardInterrupt
        raise ValueError(f"Expected a flow that fits; got none: {results[0]['failed']}")
    weight = np.ones(len(test.x)) if test.weight is None else test.weight
    best = max(done, key=lambda result: result["test_log_prob"])
    for result in done:
        result["behind"], result["behind_error"] = averaged(best["values"] - result["values"], weight)
    done.sort(key=lambda result: result["behind"])
    for result in results:
        result.pop("values", None)
    ordered = done + [result for result in results if "failed" in result]
    facts = {"rows": len(rows.x), "test_rows": len(test.x), "flows": ordered, "interrupted": is_interrupted}
    return Report(facts, _table(ordered, len(test.x)), 130 if is_interrupted else 0)


def _listed_flows(options):
    return [name.strip() for option in options for name in option.split(",")]


def _result(preset, rows, parts, settings) -> dict:
    training, held_out, test = parts
    started = time.perf_counter()
    try:
        flow = build(preset, rows, settings)
        epochs, is_interrupted = train(flow, training, held_out, settings)
        if is_interrupted:
            raise KeyboardInterrupt
        seconds = time.perf_counter() - started
        values, weight = log_likelihood(flow, test)
    except (ValueError, FloatingPointError) as error:  # others may do
        note(f"{preset.__name__}: {error}")
        return {"failed": str(error)}
    mean, error = averaged(values, weight)
    return {
        "test_log_prob": mean,
        "error": error,
        "epochs": epochs,
        "weights": flow.count_params(),
        "fit_seconds": round(seconds, 1),
        "sample_seconds": _sampling_seconds(flow, test),
        "values": values,
    }


def _sampling_seconds(flow, data) -> float:
    """Of `N_DRAWS` draws, compiled before."""
    contexts, n = None, N_DRAWS
    if data.context is not None:
        contexts = data.context[np.arange(N_DRAWS) % len(data.context)]
        n = 1
    flow.sample(n, contexts)
    started = time.perf_counter()
    np.asarray(flow.sample(n, contexts))
    return round(time.perf_counter() - started, 4)


def _table(results, n_rows) -> Table:
    title = f"log-likelihood of {n_rows:,} test rows, nats; seconds to fit, and of {N_DRAWS:,} draws"
    table = Table(box=None, pad_edge=False, title=title, title_justify="left")
    table.add_column("flow", no_wrap=True)
    for head in ("mean", "behind the best", "epochs", "fit, s", "draws, s"):
        table.add_column(head, justify="right", no_wrap=True)
    for r in results:
        if "failed" in r:
            table.add_row(r["flow"], "failed")
            continue
        behind = "" if r["behind"] == 0.0 else f"{r['behind']:.3f} +- {r['behind_error']:.3f}"
        numbers = (str(r["epochs"]), f"{r['fit_seconds']:.1f}", f"{r['sample_seconds']:.3f}")
        table.add_row(r["flow"], f"{r['test_log_prob']:.3f} +- {r['error']:.3f}", behind, *numbers)
    return table
