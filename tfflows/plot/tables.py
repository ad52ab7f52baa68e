"""A picture of a flow's draws, over data if there are any."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tfflows.schema import Column

MOST_COLUMNS = 6
MOST_BINS = 40
DATA, DRAWS = "0.35", "tab:orange"  # a dark and a light grey in black and white


class Curve:
    """A density over the range of `values` `[n, 1]`: at `x` it is `density`."""

    def __init__(self, values: np.ndarray):
        # No farther: where there are no data, as below 0 of amounts, a flow may have no density.
        self.x, self.density = np.linspace(values.min(), values.max(), 500), None


def corner(columns: list[Column], drawn: np.ndarray, data: np.ndarray | None, curve: Curve | None, path: Path) -> None:
    """Draws each column's histogram, and each pair's points.

    Args:
      columns: k of them.
      drawn, data: `[n, k]`; data or None.
      curve: of one column, its exact density, or None.
      path: where the picture is written.
    """
    from matplotlib.figure import Figure  # not pyplot, which wants a screen

    k = len(columns)
    size = 5.0 if k == 1 else max(2.0 * k, 5.0)
    figure = Figure(figsize=(size, size if k > 1 else 3.6), layout="constrained")
    axes = figure.subplots(k, k, squeeze=False)
    both = drawn if data is None else np.concatenate([drawn, data])
    limits = [_range(both[:, i], column) for i, column in enumerate(columns)]
    for i in range(k):
        for j in range(k):
            axis = axes[i, j]
            if j > i:
                axis.set_axis_off()
                continue
            axis.set_xlim(limits[j])
            if i == j:
                _histograms(axis, columns[i], drawn[:, i], None if data is None else data[:, i], limits[i], curve)
            else:
                axis.set_ylim(limits[i])
                _points(axis, drawn[:, [j, i]], None if data is None else data[:, [j, i]], (columns[j], columns[i]))
            _label(axis, columns, i, j)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    if k > 1:
        figure.legend(handles, labels, loc="upper right", frameon=False)
    else:
        axes[0, 0].legend(frameon=False)
    figure.savefig(path, dpi=150)


def _histograms(axis, column, drawn, data, limits, curve):
    n_bins = int(np.clip(1.5 * np.sqrt(len(drawn if data is None else data)), 10, MOST_BINS))
    bins = np.linspace(*limits, n_bins + 1)
    if _is_whole(column):
        step = max(1, round((limits[1] - limits[0]) / n_bins))
        bins = np.arange(np.ceil(limits[0]) - 0.5, limits[1] + step, step)
    if data is not None:
        axis.hist(data, bins, density=True, histtype="stepfilled", color=DATA, alpha=0.45, label="data")
    if curve is None:
        axis.hist(drawn, bins, density=True, histtype="step", color=DRAWS, linewidth=1.6, label="draws")
    else:
        axis.plot(curve.x, curve.density, color=DRAWS, linewidth=1.6, label="density")
    if curve is None:  # a histogram's height depends on its bins
        axis.set_yticks([])


def _points(axis, drawn, data, columns):
    rng = np.random.default_rng(0)

    def spread(points):
        """Whole numbers would lie on top of each other."""
        width = [0.6 * _is_whole(column) for column in columns]
        return (points + width * rng.uniform(-0.5, 0.5, points.shape)).T

    for points, colour, marker, order in ((data, DATA, "o", 1), (drawn, DRAWS, ".", 2)):
        if points is not None:
            alpha = float(np.clip(700.0 / len(points), 0.2, 0.8))
            size = 7 if marker == "o" else 9
            axis.scatter(
                *spread(points),
                s=size,
                marker=marker,
                color=colour,
                alpha=alpha,
                linewidths=0,
                zorder=order,
                rasterized=True,
            )


def _label(axis, columns, i, j):
    k = len(columns)
    _ticks(axis.xaxis, columns[j])
    if i == k - 1:
        axis.set_xlabel(columns[j].name)
        axis.tick_params(axis="x", rotation=45 if k > 1 else 0)
    else:
        axis.tick_params(labelbottom=False)
    if i == j:
        axis.set_ylabel("density" if k == 1 else "")
        return
    _ticks(axis.yaxis, columns[i])
    if j == 0:
        axis.set_ylabel(columns[i].name)
    else:
        axis.tick_params(labelleft=False)


def _ticks(axis, column):
    if column.categories is not None and len(column.categories) <= 12:
        axis.set_ticks(range(len(column.categories)), [str(c) for c in column.categories])


def _is_whole(column) -> bool:
    return column.categories is not None or column.domain.startswith("integer")


def _range(values, column: Column | None = None) -> tuple[float, float]:
    """Where nearly all values are, and a little more."""
    if column is not None and column.categories is not None:
        return -0.6, len(column.categories) - 0.4
    low, high = np.quantile(values, [0.002, 0.998])
    margin = 0.05 * (high - low) or 0.5
    return low - margin, high + margin
