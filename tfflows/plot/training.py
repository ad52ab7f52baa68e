"""Curves of what `fit` returns."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tfflows.losses import FlowMatching
from tfflows.plot import canvas

UNITS = {"loss": "loss [nats]", "bits_per_dim": "bits per dimension"}


def training(
    history,
    *,
    metric: str | None = None,
    learning_rate: bool = False,
    limits: tuple[float, float] | None = None,
    title: str | None = None,
    ax=None,
    path: str | Path | None = None,
):
    """Training curves: a metric of the training data dashed, of held-out data solid, and the best epoch marked.

    Without held-out data the best epoch is that of the training data.

    Args:
      history: what `fit` returns, or its `history`; or a dict of several of them by name.
      metric: "loss", or another of its keys; by default "bits_per_dim" where all have it, else "loss".
      learning_rate: whether the learning rate is drawn too, where the history has it (`fit` without `epochs` does).
      limits: (low, high) of the metric; by default early epochs far above the others are cut off.
      title: a text above.
      ax: matplotlib's axes to draw in; by default those of a new figure.
      path: where the picture is written, as PNG or whatever its ending says; None writes nothing.

    Returns:
      the axes.

    Raises:
      ValueError: for anything but histories, or a metric or learning rate that they do not have.
    """
    runs = _runs(history)
    if metric is None:
        metric = "bits_per_dim" if all("bits_per_dim" in logs for _, logs, _ in runs.values()) else "loss"
    for name, (_, logs, _) in runs.items():
        for key in [metric] + ["learning_rate"] * learning_rate:
            if key not in logs:
                of = f" of {name}" if name else ""
                raise ValueError(f"Expected '{key}' in the history{of}; got {', '.join(logs) or 'nothing'}.")
    ax = canvas.new_axes(ax, (5.6, 3.8))
    colours = ["black", "tab:orange", "tab:blue", "0.6", "tab:green", "tab:red"]
    seen, rate_axis = [], None
    for i, (name, (epochs, logs, _)) in enumerate(runs.items()):
        colour, prefix = colours[i % len(colours)], f"{name}, " if name else ""
        train, held_out = np.asarray(logs[metric]), logs.get(f"val_{metric}")
        has_held_out = held_out is not None and len(held_out) == len(train)  # with validation_freq they are fewer
        style = {"linestyle": "--", "linewidth": 1.2} if has_held_out else {"linewidth": 1.6}
        ax.plot(epochs, train, color=colour, label=f"{prefix}training", **style)
        judged = train
        if has_held_out:
            judged = np.asarray(held_out)
            ax.plot(epochs, judged, color=colour, linewidth=1.6, label=f"{prefix}held out")
        seen += [train, judged]
        if np.any(np.isfinite(judged)):
            best = int(np.nanargmin(judged))
            text = f"{prefix}best: {judged[best]:.4g}, epoch {epochs[best]}"
            ax.plot(epochs[best], judged[best], "o", color=colour, markerfacecolor="white", markersize=7, label=text)
        if learning_rate:
            rate_axis = ax.twinx() if rate_axis is None else rate_axis
            rate_axis.plot(epochs, logs["learning_rate"], ":", color=colour, linewidth=1.2)
    ax.set(xlabel="epoch", ylabel=_unit(metric, runs))
    ax.xaxis.set_major_locator(canvas.module("matplotlib.ticker").MaxNLocator(integer=True))
    ax.set_ylim(*(_focus(seen) if limits is None else limits))
    if rate_axis is not None:
        rate_axis.set(ylabel="learning rate (dotted)", yscale="log")
    ax.legend(fontsize="small", framealpha=0.8)
    if title:
        ax.set_title(title)
    canvas.save(ax, path)
    return ax


def _runs(history) -> dict:
    """Names to (epochs from 1 on, logs, the model or None)."""
    several = isinstance(history, Mapping) and any(_is_history(value) for value in history.values())
    runs = {}
    for name, each in (history if several else {"": history}).items():
        if not _is_history(each):
            raise ValueError(f"Expected what `fit` returns, or several of them by name; got {type(each).__name__}.")
        logs = each if isinstance(each, Mapping) else each.history
        n = len(logs.get("loss", next(iter(logs.values()), ())))
        if n == 0:
            raise ValueError("Expected a history of at least one epoch; got none.")
        epochs = 1 + np.asarray(getattr(each, "epoch", range(n)))
        runs[str(name)] = (epochs, logs, getattr(each, "model", None))
    if not runs:
        raise ValueError("Expected at least one history; got none.")
    return runs


def _is_history(value) -> bool:
    logs = getattr(value, "history", value)
    return isinstance(logs, Mapping) and all(np.ndim(values) == 1 for values in logs.values())


def _unit(metric: str, runs) -> str:
    """What the axis says: of flow matching the loss is no number of nats."""
    losses = [getattr(model, "flow_loss", None) for _, _, model in runs.values()]
    if metric == "loss" and any(isinstance(loss, FlowMatching) for loss in losses):
        return "loss"
    return UNITS.get(metric, metric)


def _focus(curves) -> tuple[float, float]:
    """Limits that leave out what is far above nearly all of the curves, as first epochs are."""
    values = np.concatenate(curves)
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return 0.0, 1.0
    low, high = values.min(), values.max()
    usual = np.quantile(values, 0.9)
    if high - low > 3.0 * (usual - low):
        high = usual + 0.5 * (usual - low)
    margin = 0.05 * (high - low) or 0.05
    return low - margin, high + margin
