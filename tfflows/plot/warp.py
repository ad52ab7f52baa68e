"""How a flow bends its latent space into the data's, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfflows.plot import canvas
from tfflows.plot.stages import Stage, periods, stages, subject_of
from tfflows.plot.subject import spread

MOST_PANELS = 12
N_POINTS = 201  # of each line
N_DRAWS = 400


def warp(
    flow,
    *,
    context=None,
    limits=None,
    n_lines: int = 13,
    layers: Sequence[int] | int | None = None,
    labels: Sequence[str] | None = None,
    units: Sequence[str | None] | None = None,
    seed: int = 0,
    title: str | None = None,
    figure=None,
    path: str | Path | None = None,
):
    """How a flow bends a grid of its latent space into data, layer by layer.

    Of two numbers a panel for each layer, with the grid's lines, dark where the first latent stays the same, dashed
    where the second does, and some draws. Of one number the map x(z), with the densities of both on the margins.
    Permutations are no layers here: columns keep the place that they have in the data.

    Args:
      flow: a `FlowModel` of 1 or 2 numbers.
      context: one condition, if the flow is conditional.
      limits: (low, high) of the latents' grid, or one of them for each; by default where 99 % of the base are.
      n_lines: of the grid, in each direction, >= 2.
      layers: which panels, of the stages 0 (the latents) to the number of layers (the data); or how many, evenly chosen
        with the first and the last; by default all up to 12.
      labels, units: of the data's columns; by default those of `flow.schema`, or x0 and x1.
      seed: of the draws.
      title: a text above.
      figure: matplotlib's figure to draw in; by default a new one.
      path: where the picture is written, as PNG or whatever its ending says; None writes nothing.

    Returns:
      the figure.

    Raises:
      ValueError: for flows of more numbers, or without a single latent space; for other limits or layers.
    """
    subject = subject_of(flow, context)
    names = canvas.with_units(subject.labels(labels), units)
    if subject.n_dim == 1:
        figure = _one_number(flow, subject, limits, names[0], units, figure)
    else:
        lines = grid(_latent_limits(flow, subject, limits), canvas.check_count(n_lines, "n_lines", 2))
        way = _way(flow, lines, context, seed)
        chosen = _chosen(layers, len(way))
        n_columns = min(len(chosen), min((4, 3), key=lambda n: -len(chosen) % n))  # with the fewest gaps
        n_rows = -(-len(chosen) // n_columns)
        figure = canvas.new_figure((2.7 * n_columns, 2.8 * n_rows), figure)
        axes = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
        for axis in axes[len(chosen) :]:
            axis.set_axis_off()
        for axis, i in zip(axes, chosen, strict=False):
            pieces, points = _split(way[i], lines)
            _draw_lines(axis, pieces)
            axis.plot(*points.T, ".", color=canvas.DRAWS, markersize=2.5, zorder=1, rasterized=True)
            axis.set_xlim(*_limits_of(way[i])[0])
            axis.set_ylim(*_limits_of(way[i])[1])
            axis.set_title(_heading(i, way), fontsize="small")
        if len(way) - 1 in chosen:
            axes[chosen.index(len(way) - 1)].set(xlabel=names[0], ylabel=names[1])
    if title:
        figure.suptitle(title)
    canvas.save(figure, path)
    return figure


def warping(
    flow,
    path: str | Path,
    *,
    context=None,
    limits=None,
    n_lines: int = 13,
    n_frames: int = 60,
    seconds: float = 6.0,
    pause: float = 1.0,
    size: int = 320,
    seed: int = 0,
) -> Path:
    """A GIF of a latent grid of a flow of two numbers that becomes data, layer after layer, over and over.

    Between layers points go straight, or round their circles, slowly at both ends. The file appears whole
    or not at all.

    Args:
      flow, context, limits, n_lines, seed: as in `warp`.
      path: where it is written.
      n_frames: pictures of the way, >= 2; each layer has as many of them.
      seconds: time of the way, > 0.
      pause: seconds that the first and the last picture stay longer.
      size: pixels of each side, >= 64.

    Returns:
      the path.

    Raises:
      ValueError: as `warp` does; for other numbers of frames, times and sizes.
    """
    path = canvas.gif_path(path)
    subject = subject_of(flow, context)
    if subject.n_dim != 2:
        raise ValueError(f"Expected a flow of 2 numbers; got {subject.n_dim}.")
    if not (seconds > 0.0 and pause >= 0.0 and size >= 64 and size % 1 == 0):
        raise ValueError(f"Expected seconds > 0, pause >= 0, a whole size >= 64; got {seconds}, {pause}, {size}.")
    n_frames = canvas.check_count(n_frames, "n_frames", 2)
    lines = grid(_latent_limits(flow, subject, limits), canvas.check_count(n_lines, "n_lines", 2))
    way = _way(flow, lines, context, seed)
    n_steps = max(1, round((n_frames - 1) / max(len(way) - 1, 1)))
    figure = canvas.new_figure((size / 100, size / 100))
    figure.set_dpi(100)
    axis = figure.subplots()
    frames = []
    for i in range(len(way) - 1):
        for t in np.arange(n_steps) / n_steps:
            frames.append(_frame(axis, way, i, t, lines))
    frames.append(_frame(axis, way, len(way) - 2, 1.0, lines))
    times = np.full(len(frames), seconds / len(frames))
    times[[0, -1]] += pause
    return canvas.write_gif(frames, path, times)


def grid(limits: np.ndarray, n_lines: int) -> np.ndarray:
    """Lines of a grid over `limits` `[2, 2]`, `[2, n_lines, n_points, 2]`; the first have the first number fixed."""
    fixed, along = np.linspace(*limits.T, n_lines), np.linspace(*limits.T, N_POINTS)
    first = np.stack(np.meshgrid(fixed[:, 0], along[:, 1], indexing="ij"), axis=-1)
    second = np.stack(np.meshgrid(fixed[:, 1], along[:, 0], indexing="ij"), axis=-1)[..., ::-1]
    return np.stack([first, second])


def _latent_limits(flow, subject, limits) -> np.ndarray:
    if limits is not None:
        return canvas.check_limits(limits, flow.base.event_shape[0])
    shares = np.array([0.005, 0.995])
    try:
        ends = flow.base.quantile(np.tile(shares[:, np.newaxis], flow.base.event_shape))
    except ValueError:  # a base of dependent scalars
        ends = np.quantile(flow.base.sample([4000], np.array([0, 1], np.int32)), shares, axis=0)
    period = periods(flow, subject)[0]
    return np.where(np.isnan(period), np.asarray(ends, np.float64).T, np.cumsum(period, axis=1))


def _way(flow, lines, context, seed) -> list[Stage]:
    """Stages of a grid's points, and of draws after them."""
    drawn = np.asarray(flow.base.sample([N_DRAWS], np.array([seed, 0], np.int32)), np.float64)
    return stages(flow, np.concatenate([lines.reshape(-1, 2), drawn]), context)


def _split(stage, lines):
    """A stage's lines `[2, n, n_points, 2]`, and its draws.

    Lines that cross the seam of a circle go on beyond it, and are there once more for each turn that shows a part.
    """
    n = lines.size // 2
    curves = stage.values[:n].reshape(lines.shape).copy()
    for i, (start, length) in enumerate(stage.period):
        if np.isfinite(length):
            curves[..., i] = np.unwrap(curves[..., i], period=length, axis=2)
            turns = np.floor((curves[..., i] - start) / length)
            shifts = np.arange(-turns.max(), 1.0 - turns.min())
            curves = np.concatenate([curves + length * shift * np.eye(2)[i] for shift in shifts], axis=1)
    return curves, stage.values[n:]


def _limits_of(stage) -> np.ndarray:
    found = spread(stage.values[np.all(np.isfinite(stage.values), axis=1)]).T
    return np.where(np.isnan(stage.period), found, np.cumsum(np.nan_to_num(stage.period), axis=1))


def _draw_lines(axis, curves):
    collections = canvas.module("matplotlib.collections")
    for part, style, colour in zip(curves, ("-", "--"), ("black", "tab:blue"), strict=True):
        lines = collections.LineCollection(list(part), linestyles=style, colors=colour, linewidths=0.9, zorder=2)
        axis.add_collection(lines)


def _heading(i, way) -> str:
    last = len(way) - 1
    if i == 0:
        return "latent"
    return f"data, after {way[i].name}" if i == last else f"{i}: {way[i].name}"


def _chosen(layers, n: int) -> list[int]:
    if layers is None:
        layers = min(n, MOST_PANELS)
    if np.ndim(layers) == 0:
        count = canvas.check_count(layers, "layers", 1)
        return sorted(set(np.rint(np.linspace(0, n - 1, min(count, n)) if count > 1 else [n - 1]).astype(int).tolist()))
    chosen = [int(i) for i in layers]
    if not chosen or not all(0 <= i < n for i in chosen):
        raise ValueError(f"Expected layers from 0 to {n - 1}; got {list(layers)}.")
    return chosen


def _frame(axis, way, i, t, lines):
    """A picture between stages i and i + 1."""
    t = t * t * (3.0 - 2.0 * t)  # slow at both ends
    a, b = way[i], way[i + 1]
    period = (1.0 - t) * a.period + t * b.period
    start, length = period.T
    turns = np.mod((a.values - a.period[:, 0]) / a.period[:, 1] + t * turned(a, b, lines.shape[1]), 1.0)
    straight = (1.0 - t) * a.values + t * b.values
    values = np.where(np.isnan(length), straight, start + length * turns)
    curves, points = _split(Stage("", values, period), lines)
    axis.clear()
    _draw_lines(axis, curves)
    axis.plot(*points.T, ".", color=canvas.DRAWS, markersize=2.5, zorder=1)
    limits = (1.0 - t) * _limits_of(a) + t * _limits_of(b)
    axis.set_xlim(*limits[0])
    axis.set_ylim(*limits[1])
    last = len(way) - 1
    name = {0: "latent", last: "data"}.get(i + t, f"layer {i + 1} of {last}")
    axis.set_title(name, fontsize="small")
    axis.tick_params(labelsize="x-small")
    return canvas.pixels(axis)


def turned(a: Stage, b: Stage, n_lines: int) -> np.ndarray:
    """By how many turns circular columns go from one stage to the next, `[n, D]`: neighbours in the grid alike.

    Each on its own could go either way round; where a layer turns some by more than half a circle, lines would tear.
    """
    away = np.subtract(*((stage.values - stage.period[:, 0]) / stage.period[:, 1] for stage in (b, a)))
    n = 2 * n_lines * N_POINTS
    along = np.unwrap(away[:n].reshape(2, n_lines, N_POINTS, -1), period=1.0, axis=2)
    ends = np.unwrap(along[:, :, 0], period=1.0, axis=1)
    along += (ends - along[:, :, 0])[:, :, np.newaxis]
    along -= np.rint(along[:, :1, :1] - along[:1, :1, :1])  # both families begin in one corner
    middle = np.median(along, axis=(0, 1, 2))
    along, middle = along - np.rint(middle), middle - np.rint(middle)
    others = middle + np.mod(away[n:] - middle + 0.5, 1.0) - 0.5
    return np.concatenate([along.reshape(n, -1), others])


def _one_number(flow, subject, limits, name, units, figure):
    """The map x(z), and both densities on its margins."""
    low, high = _latent_limits(flow, subject, limits)[0]
    z = np.linspace(low, high, 1000)
    x, log_det = _decoded(flow, subject, z[:, np.newaxis])
    log_base = np.asarray(flow.base.log_prob(tf.constant(z[:, np.newaxis], flow.accepts.dtype)), np.float64)
    figure = canvas.new_figure((5.4, 5.0), figure)
    axes = figure.subplots(2, 2, width_ratios=[1, 3], height_ratios=[3, 1], sharex="col", sharey="row")
    left, middle, below = axes[0, 0], axes[0, 1], axes[1, 1]
    axes[1, 0].set_axis_off()
    jumps = np.abs(np.diff(x)) > 0.5 * np.ptp(x) if subject.domain[0].kind == "circle" else np.zeros(len(x) - 1, bool)
    x_shown = np.where(np.append(False, jumps), np.nan, x)
    middle.plot(z, x_shown, color="black", linewidth=1.6)
    middle.set_title("x = forward(z)", fontsize="medium")
    below.fill_between(z, np.exp(log_base), color=canvas.DATA, alpha=0.45, linewidth=0)
    below.set(xlabel="z", ylabel="density", xlim=(low, high))
    below.set_ylim(bottom=0.0)
    order = np.argsort(x)
    left.fill_betweenx(x[order], np.exp(log_base - log_det)[order], color=canvas.DRAWS, alpha=0.7, linewidth=0)
    unit = f" [1/{units[0]}]" if units and units[0] else ""
    left.set(ylabel=name, xlabel=f"density{unit}")
    left.set_xlim(left=0.0)
    left.invert_xaxis()
    left.tick_params(labelbottom=True)
    return figure


def _decoded(flow, subject, z):
    x, log_det = flow.decode(z, subject.repeated(len(z)), return_log_det=True)
    return np.asarray(x, np.float64)[:, 0], np.asarray(log_det, np.float64)
