"""A picture of a table: each column, and each pair of columns, of samples over data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tfflows.density import Density
from tfflows.plot import canvas
from tfflows.schema import Column

MOST_COLUMNS = 20
MOST_BINS = 40
ENOUGH = 500  # samples to draw contours of
SMOOTH = 1.2  # bins that a contour's histogram is blurred by


def corner(
    samples,
    data=None,
    *,
    labels: Sequence[str] | None = None,
    units: Sequence[str | None] | None = None,
    truths: Sequence[float | None] | None = None,
    weights=None,
    data_weights=None,
    columns: Sequence[Column] | None = None,
    limits=None,
    masses: Sequence[float] = (0.5, 0.9),
    names: tuple[str, str] = ("samples", "data"),
    bins: int | None = None,
    title: str | None = None,
    figure=None,
    path: str | Path | None = None,
):
    """Histograms of each column, and of each pair contours of the samples over points of the data.

    A pair with a column of whole numbers or categories, or of few samples, has points for both, whole numbers spread at
    random. Contours are those of the package `corner`: of a histogram, smoothed, around the stated masses.

    Args:
      samples: `[n, k]`, an array or a pandas frame, such as `flow.sample(5000)`; k at most 20.
      data: the same columns of something to compare with, or None.
      labels, units: of each column; by default those of `columns` or of a frame, or x0, x1, ...
      truths: a number to mark in each column, or None.
      weights, data_weights: of the samples and the data, `[n]`, >= 0; weighted points are drawn by resampling.
      columns: what each column holds, such as `flow.schema.columns`: names, categories, which are whole numbers.
      limits: (low, high), or one of them for each column; by default where nearly all samples and data are.
      masses: which contours hold, in (0, 1).
      names: what samples and data are called.
      bins: of each histogram; by default some, by how many rows there are.
      title: a text above.
      figure: matplotlib's figure to draw in; by default a new one.
      path: where the picture is written, as PNG or whatever its ending says; None writes nothing.

    Returns:
      the figure.

    Raises:
      ValueError: for samples, data, weights or limits that do not fit.

    Reference:
      Foreman-Mackey (2016), corner.py: scatterplot matrices in Python, https://doi.org/10.21105/joss.00024
    """
    default = None if columns is None else [column.name for column in columns]
    for frame in (samples, data):
        if default is None and hasattr(frame, "columns"):
            default = [str(name) for name in frame.columns]
    samples = _table(samples, "samples", None)
    k = samples.shape[1]
    if k > MOST_COLUMNS:
        raise ValueError(f"Expected at most {MOST_COLUMNS} columns to draw; got {k}. Choose some.")
    if columns is not None and len(columns) != k:
        raise ValueError(f"Expected a schema.Column for each of {k} columns; got {len(columns)}.")
    sets = [_Set(names[0], samples, _weight(weights, len(samples), "weights"), canvas.DRAWS, is_first=True)]
    if data is not None:
        data = _table(data, "data", k)
        sets.insert(0, _Set(names[1], data, _weight(data_weights, len(data), "data_weights"), canvas.DATA))
    shown = canvas.with_units(canvas.names(labels, k, default), units)
    columns = [Column(name) for name in shown] if columns is None else list(columns)
    if truths is not None and len(truths) != k:
        raise ValueError(f"Expected a number, or None, for each of {k} columns as truths; got {len(truths)}.")
    truths = [None] * k if truths is None else [None if truth is None else float(truth) for truth in truths]
    if not np.all(np.isfinite([truth for truth in truths if truth is not None])):
        raise ValueError(f"Expected finite truths, or None; got {truths}.")
    masses = canvas.check_masses(masses)
    bins = None if bins is None else canvas.check_count(bins, "bins")
    limits = _limits(limits, sets, columns, truths)
    size = 5.0 if k == 1 else max(2.0 * k, 5.0)
    figure = canvas.new_figure((size, size if k > 1 else 3.6), figure)
    axes = figure.subplots(k, k, squeeze=False)
    for i in range(k):
        for j in range(k):
            axis = axes[i, j]
            if j > i:
                axis.set_axis_off()
                continue
            if i == j:
                _histograms(axis, columns[i], [each.column(i) for each in sets], limits[i], bins, truths[i])
            else:
                pair = (columns[j], columns[i])
                _pair(axis, pair, [each.column([j, i]) for each in sets], limits[[j, i]], masses, bins)
                _mark(axis, truths[j], truths[i])
                axis.set_ylim(limits[i])
            axis.set_xlim(limits[j])
            _label(axis, columns, shown, i, j)
    handles, texts = axes[0, 0].get_legend_handles_labels()
    if k > 1:
        figure.legend(handles, texts, loc="upper right", frameon=False)
    elif len(sets) > 1 or truths[0] is not None:
        axes[0, 0].legend(frameon=False)
    if title:
        figure.suptitle(title)
    canvas.save(figure, path)
    return figure


class _Set:
    """Rows `[n, k]` of samples or data, their weights, and how they are drawn."""

    def __init__(self, name, rows, weights, colour, *, is_first=False):
        self.name, self.rows, self.weights, self.colour, self.is_first = name, rows, weights, colour, is_first

    def column(self, which) -> _Set:
        return _Set(self.name, self.rows[:, which], self.weights, self.colour, is_first=self.is_first)

    def points(self, n_most: int = 4000) -> np.ndarray:
        """Rows to draw one by one: by their weights, if they have some."""
        rng = np.random.default_rng(0)
        if self.weights is None:
            return self.rows[np.sort(rng.permutation(len(self.rows))[:n_most])]
        n = min(n_most, max(1, int(self.weights.sum() ** 2 / np.sum(self.weights**2))))
        return self.rows[np.sort(rng.choice(len(self.rows), n, p=self.weights / self.weights.sum()))]


def _histograms(axis, column, sets, limits, bins, truth):
    n_bins = bins or int(np.clip(1.5 * np.sqrt(len(sets[0].rows)), 10, MOST_BINS))
    edges = np.linspace(*limits, n_bins + 1)
    if _is_whole(column):
        step = max(1, round((limits[1] - limits[0]) / n_bins))
        edges = np.arange(np.ceil(limits[0]) - 0.5, np.floor(limits[1]) + 0.5 + 0.99 * step, step)
    for each in sets:
        heights = np.histogram(each.rows, edges, weights=each.weights)[0].astype(np.float64)
        heights /= max(np.sum(heights * np.diff(edges)), 1e-300)
        if each.is_first:
            axis.stairs(heights, edges, color=canvas.CURVE, linewidth=1.6, label=each.name)
        else:
            axis.stairs(heights, edges, fill=True, color=each.colour, alpha=0.45, label=each.name)
    if truth is not None:
        axis.axvline(truth, color="black", linestyle="--", linewidth=1.0, label="truth")
    axis.set_ylim(bottom=0.0)
    axis.set_yticks([])  # a histogram's height depends on its bins


def _pair(axis, columns, sets, limits, masses, bins):
    rng = np.random.default_rng(0)
    width = np.array([0.6 * _is_whole(column) for column in columns])
    for order, each in enumerate(sets):
        inside = np.all((each.rows >= limits[:, 0]) & (each.rows <= limits[:, 1]), axis=1)
        has_contours = each.is_first and not width.any() and np.sum(inside) >= ENOUGH
        if has_contours:
            canvas.module("corner").hist2d(
                *each.rows.T,
                bins=[n if bins is None else max(bins, 2) for n in _cells(each.points(), limits)],
                range=limits.tolist(),
                weights=each.weights,
                levels=masses,
                smooth=SMOOTH,
                ax=axis,
                quiet=True,
                plot_datapoints=len(sets) == 1,
                plot_density=False,
                no_fill_contours=True,
                data_kwargs={"color": each.colour, "alpha": 0.25},
                contour_kwargs={"colors": canvas.CURVE, "linewidths": 1.4, "zorder": 3},
            )
            continue
        points = each.points()
        points = points + width * rng.uniform(-0.5, 0.5, points.shape)
        axis.scatter(
            *points.T,
            s=9 if each.is_first else 7,
            marker="." if each.is_first else "o",
            color=each.colour,
            alpha=float(np.clip(700.0 / len(points), 0.2, 0.8)),
            linewidths=0,
            zorder=1 + order,
            rasterized=True,
        )


def _cells(points, limits) -> np.ndarray:
    """How many bins for a contour between limits: fine ones, where points `[n, 2]` take up little of these."""
    taken = np.diff(np.quantile(points, [0.002, 0.998], axis=0), axis=0)[0]
    wide = np.diff(limits, axis=1)[:, 0] / np.maximum(taken, 1e-300)
    return np.clip(MOST_BINS * wide, MOST_BINS, 5 * MOST_BINS).astype(int)


def _mark(axis, x, y):
    if x is not None:
        axis.axvline(x, color="black", linestyle="--", linewidth=1.0, zorder=4)
    if y is not None:
        axis.axhline(y, color="black", linestyle="--", linewidth=1.0, zorder=4)


def _label(axis, columns, shown, i, j):
    k = len(columns)
    _ticks(axis.xaxis, columns[j])
    if i == k - 1:
        axis.set_xlabel(shown[j])
        axis.tick_params(axis="x", rotation=45 if k > 1 else 0)
    else:
        axis.tick_params(labelbottom=False)
    if i == j:
        axis.set_ylabel("density" if k == 1 else "")
        return
    _ticks(axis.yaxis, columns[i])
    if j == 0:
        axis.set_ylabel(shown[i])
    else:
        axis.tick_params(labelleft=False)


def _ticks(axis, column):
    canvas.set_ticks(axis, column.categories, _is_whole(column), nbins=4, prune="both")


def _is_whole(column) -> bool:
    return column.categories is not None or column.domain.startswith("integer")


def _limits(limits, sets, columns, truths) -> np.ndarray:
    k = len(columns)
    if limits is not None:
        return canvas.check_limits(limits, k)
    found = []
    for i, (column, truth) in enumerate(zip(columns, truths, strict=True)):
        if column.categories is not None:
            found.append((-0.6, len(column.categories) - 0.4))
            continue
        # Each has a say, however many there are of the others.
        ends = [np.quantile(each.column(i).points(100_000), [0.002, 0.998]) for each in sets]
        ends = np.array(ends if truth is None else [*ends, [truth, truth]])
        low, high = ends[:, 0].min(), ends[:, 1].max()
        margin = 0.05 * (high - low) or 0.5
        found.append((low - margin, high + margin))
    return np.array(found)


def _table(rows, what, k) -> np.ndarray:
    if isinstance(rows, Density):
        raise ValueError(f"Expected {what} of shape [n, {k or 'k'}], such as flow.sample(5000); got a flow.")
    try:
        rows = np.asarray(rows, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Expected numbers as {what}; got others. Encode text as numbers first.") from error
    if rows.ndim != 2 or 0 in rows.shape or rows.shape[1] != (k or rows.shape[1]):
        raise ValueError(f"Expected {what} of shape [n, {k or 'k'}]; got {list(rows.shape)}.")
    if not np.all(np.isfinite(rows)):
        raise ValueError(f"Expected finite {what}; got NaN or inf.")
    return rows


def _weight(weights, n, what) -> np.ndarray | None:
    if weights is None:
        return None
    weights = np.asarray(weights, np.float64)
    if weights.shape != (n,) or not (np.all(weights >= 0.0) and 0.0 < weights.sum() < np.inf):
        raise ValueError(f"Expected {what} of shape [{n}], >= 0 and not all zero; got {list(weights.shape)}.")
    return weights
