"""Densities of one or two numbers, exactly as a flow has them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tfflows.plot import canvas
from tfflows.plot.subject import Subject

N_DRAWS = 10_000  # that tell where a density is, and which contour has how much of it
MOST_VALUES = 400  # of a column of integers


def density(
    flow,
    x=None,
    *,
    context=None,
    limits=None,
    labels: Sequence[str] | None = None,
    units: Sequence[str | None] | None = None,
    masses: Sequence[float] = (0.5, 0.9, 0.99),
    n_grid: int | None = None,
    max_points: int = 2000,
    seed: int = 0,
    title: str | None = None,
    ax=None,
    path: str | Path | None = None,
):
    """The exact density of a distribution of one or two numbers, and data.

    Of one number a curve, and the data as a histogram. Of two numbers a picture, dark where it is dense, with the edges
    of the highest-density regions: the smallest ones that hold the stated masses, at levels that are quantiles of the
    log-densities of draws. Columns of whole numbers have a bar, or a cell, for each of their values, whose probability
    (with a column of real numbers: probability times density) it shows; regions are not drawn then.

    Args:
      flow: a flow or mixture, a TFP distribution, a toy of `datasets`, or anything with a `log_prob` of rows; of 1 or 2
        numbers. Its `domain` bounds the picture, circular columns are shown all round.
      x: data `[n, D]` (frames too), or None.
      context: one condition, if the flow is conditional.
      limits: (low, high), or one of them for each column; by default where nearly all draws and data are.
      labels, units: of each column; by default those of `flow.schema`, or x0 and x1.
      masses: of the regions, in (0, 1).
      n_grid: evaluations for each axis; by default 1000 of one number, 150 of two.
      max_points: of two numbers, so many rows of the data are drawn, at random.
      seed: of draws.
      title: a text above.
      ax: matplotlib's axes to draw in; by default those of a new figure.
      path: where the picture is written, as PNG or whatever its ending says; None writes nothing.

    Returns:
      the axes.

    Raises:
      ValueError: for a distribution of more numbers, or whose columns depend on each other; for data, limits or a
        context that do not fit.

    Reference:
      Hyndman (1996), Computing and graphing highest density regions, https://doi.org/10.2307/2684423
    """
    width = None if x is None else np.shape(x)[-1] if np.ndim(x) > 1 else 1
    subject = Subject(flow, context, width if limits is None or np.ndim(limits) < 2 else len(limits))
    if subject.n_dim > 2:
        raise ValueError(f"Expected a distribution of 1 or 2 numbers; got {subject.n_dim}. `plot.corner` shows draws.")
    masses = canvas.check_masses(masses)
    n_grid = canvas.check_count((1000, 150)[subject.n_dim - 1] if n_grid is None else n_grid, "n_grid", 2)
    max_points = canvas.check_count(max_points, "max_points")
    x = subject.data(x)
    drawn = subject.draws(N_DRAWS, seed)
    limits = subject.limits(limits, x, None if drawn is None else drawn[0])
    names = canvas.with_units(subject.labels(labels), units)
    grid = [_places(domain, ends, n_grid) for domain, ends in zip(subject.domain, limits, strict=True)]
    ax = canvas.new_axes(ax, (5.0, 3.6) if subject.n_dim == 1 else (5.4, 4.6))
    if subject.n_dim == 1:
        _draw_one(ax, subject, grid[0], x, units)
    else:
        _draw_two(ax, subject, grid, x, drawn, masses, max_points, units)
        ax.set_ylim(limits[1])
        ax.set_ylabel(names[1])
        _ticks(ax.yaxis, subject, 1)
    ax.set_xlim(limits[0])
    ax.set_xlabel(names[0])
    _ticks(ax.xaxis, subject, 0)
    if title:
        ax.set_title(title, pad=22 if subject.n_dim == 2 else None)
    canvas.save(ax, path)
    return ax


def is_whole(domain) -> bool:
    """Whether its columns are whole numbers."""
    return domain.kind == "integers"


def _places(domain, ends, n_grid: int) -> np.ndarray:
    """Where an axis is evaluated: middles of equal cells, which leaves the ends of a domain out; or whole numbers."""
    low, high = ends
    if not is_whole(domain):
        return low + (high - low) * (np.arange(n_grid) + 0.5) / n_grid
    values = np.arange(np.ceil(low), np.floor(high) + 1.0)
    if len(values) > MOST_VALUES:
        raise ValueError(f"Expected limits with at most {MOST_VALUES} whole numbers between; got {len(values)}.")
    return values


def _draw_one(ax, subject, places, x, units):
    found = np.exp(subject.log_prob(places[:, np.newaxis]))
    if is_whole(subject.domain[0]):
        ax.bar(places, found, 0.7, color=canvas.DRAWS, label="flow")
        if x is not None:
            shares = np.array([np.mean(x[:, 0] == place) for place in places])
            ax.plot(places, shares, "o", color=canvas.DATA, markersize=5, label="data")
        ax.set_ylabel("probability")
    else:
        if x is not None:
            ends = _cell(places)
            bins = np.linspace(*ends, int(np.clip(1.5 * np.sqrt(len(x)), 10, 60)) + 1)
            # Heights are those of all data, also of those outside.
            heights = np.histogram(_wrapped(x[:, 0], subject.domain[0]), bins)[0] / (len(x) * np.diff(bins))
            ax.stairs(heights, bins, fill=True, color=canvas.DATA, alpha=0.45, label="data")
        ax.plot(places, found, color=canvas.CURVE, linewidth=1.8, label="flow")
        ax.set_ylabel(_density_label(subject, units))
    ax.set_ylim(bottom=0.0)
    if x is not None:
        ax.legend(frameon=False)


def _draw_two(ax, subject, grid, x, drawn, masses, max_points, units):
    mesh = np.stack(np.meshgrid(*grid, indexing="ij"), axis=-1)
    log_prob = subject.log_prob(mesh.reshape(-1, 2)).reshape(mesh.shape[:2])
    found = np.exp(log_prob)
    edges = [np.append(places - 0.5 * _step(places), places[-1] + 0.5 * _step(places)) for places in grid]
    image = ax.pcolormesh(*edges, found.T, cmap=_pale(), vmin=0.0, rasterized=True)
    ax.figure.colorbar(image, ax=ax, label=_density_label(subject, units), pad=0.02)
    handles = []
    if x is not None:
        some = np.random.default_rng(0).permutation(len(x))[:max_points]
        spread = np.array([0.6 * is_whole(domain) for domain in subject.domain])
        points = np.stack([_wrapped(x[some, i], domain) for i, domain in enumerate(subject.domain)], axis=1)
        points += spread * np.random.default_rng(1).uniform(-0.5, 0.5, points.shape)
        alpha = float(np.clip(400.0 / len(points), 0.2, 0.8))
        ax.scatter(*points.T, s=4, color="black", alpha=alpha, linewidths=0, rasterized=True, zorder=2)
        handles.append(_handle("data", marker="o", linestyle="", markersize=3, color="black"))
    if not any(map(is_whole, subject.domain)):
        levels = region_levels(masses, drawn, log_prob, _step(grid[0]) * _step(grid[1]))
        for style, mass, level in zip(itertools.cycle(canvas.STYLES), masses, levels, strict=False):
            if np.min(log_prob) < level < np.max(log_prob):
                floor = np.maximum(log_prob, level - 50.0)  # contours cannot be told of -inf
                ax.contour(*grid, floor.T, levels=[level], colors="tab:red", linestyles=[style], linewidths=1.3)
                handles.append(_handle(canvas.per_cent(mass), color="tab:red", linestyle=style))
        if len(handles) > (x is not None):
            handles[-1].set_label(f"{handles[-1].get_label()} of the mass")
    if handles:
        # Above: inside it would hide what is dense.
        above = {"loc": "lower left", "bbox_to_anchor": (-0.02, 1.0), "borderaxespad": 0.1}
        ax.legend(
            handles=handles, ncols=4, columnspacing=1.0, handlelength=1.6, fontsize="small", frameon=False, **above
        )


def region_levels(masses, drawn, log_prob, cell: float) -> np.ndarray:
    """The log-densities at the edges of the highest-density regions that hold each of `masses`.

    Args:
      drawn: draws and their log-densities, whose quantiles they are, wherever the picture ends; None if there are none.
      log_prob: of a grid's cells, whose masses are added up without draws.
      cell: volume of a cell.
    """
    if drawn is not None:
        return np.quantile(drawn[1], 1.0 - np.asarray(masses))
    descending = np.sort(log_prob, axis=None)[::-1]
    held = np.cumsum(np.exp(descending) * cell)
    return np.append(descending, -np.inf)[np.searchsorted(held, masses)]


def _step(places) -> float:
    return places[1] - places[0] if len(places) > 1 else 1.0


def _cell(places) -> tuple[float, float]:
    return places[0] - 0.5 * _step(places), places[-1] + 0.5 * _step(places)


def _wrapped(values, domain):
    """Angles as those of their circle's one turn."""
    if domain.kind != "circle":
        return values
    return domain.low + np.mod(values - domain.low, domain.high - domain.low)


def _density_label(subject, units) -> str:
    whole = [is_whole(domain) for domain in subject.domain]
    if all(whole):
        return "probability"
    what = "probability x density" if any(whole) else "density"
    if units is None:
        return what
    of = [unit for unit, is_one in zip(units, whole, strict=True) if unit and not is_one]
    if len(of) == 2 and of[0] == of[1]:
        of = [f"{of[0]}$^2$"]
    return f"{what} [1/({' '.join(of)})]" if len(of) > 1 else f"{what} [1/{of[0]}]" if of else what


def _pale():
    """From white to a blue on which black is still seen."""
    colors = canvas.module("matplotlib.colors")
    whole = canvas.module().colormaps["Blues"]
    return colors.LinearSegmentedColormap.from_list("pale", whole(np.linspace(0.0, 0.65, 64)))


def _handle(label, **style):
    return canvas.module("matplotlib.lines").Line2D([], [], label=label, **style)


def _ticks(axis, subject, i):
    categories = subject.categories[i] if subject.categories else None
    canvas.set_ticks(axis, categories, is_whole(subject.domain[i]))
