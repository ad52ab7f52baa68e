"""The pictures of the results."""

from __future__ import annotations

import pathlib

from contest.cases import ARCHITECTURES, FACTORS, QUANTITIES, SCALING_ARCHITECTURES
from contest.libraries import LIBRARIES
from contest.report import value


def draw_lines(rows: list[dict], path: pathlib.Path) -> None:
    """Time against the number of scalars: a row of panels for each quantity, a column for each architecture."""
    from matplotlib.figure import Figure

    quantities = {"step": "training step, ms", "log_prob": "log_prob, ms", "sample": "sample, ms"}
    quantities |= {"first_result": "first result, s", "memory": "memory, MB"}
    figure = Figure(figsize=(12.0, 13.0), layout="constrained")
    panels = figure.subplots(len(quantities), len(ARCHITECTURES), sharex="col", sharey="row", squeeze=False)
    for i, (what, name) in enumerate(quantities.items()):
        for panel, (architecture, title) in zip(panels[i], ARCHITECTURES.items(), strict=True):
            for library in LIBRARIES:
                chosen = [r for r in rows if (r["library"], r["architecture"]) == (library, architecture)]
                draw_line(panel, [(row["n_dim"], value(what)(row)) for row in chosen], library)
            if i == 0:
                panel.set_title(title)
        panels[i, 0].set_ylabel(name)
    for panel in panels[-1]:
        panel.set_xlabel("scalars")
    finish(figure, panels, path)


def draw_scaling(rows: list[dict], base: dict, path: pathlib.Path) -> None:
    """Time against each factor, the others as in `base`: a row of panels for each architecture and quantity."""
    from matplotlib.figure import Figure

    names = [(a, what) for a in SCALING_ARCHITECTURES for what in QUANTITIES]
    figure = Figure(figsize=(12.0, 15.0), layout="constrained")
    panels = figure.subplots(len(names), len(FACTORS), sharex="col", sharey="row", squeeze=False)
    for i, (architecture, what) in enumerate(names):
        for panel, (factor, title) in zip(panels[i], FACTORS.items(), strict=True):
            fixed = base | {"architecture": architecture}
            fixed.pop(factor)
            for library in LIBRARIES:
                chosen = [r for r in rows if r["library"] == library and all(r[k] == v for k, v in fixed.items())]
                draw_line(panel, [(row[factor], value(what)(row)) for row in chosen], library)
            if i == len(names) - 1:
                panel.set_xlabel(title)
        panels[i, 0].set_ylabel(f"{ARCHITECTURES[architecture]}\n{QUANTITIES[what]}, ms")
    finish(figure, panels, path)


def draw_line(panel, points: list[tuple[float, float | None]], library: str) -> None:
    """tfflows' line is thick and black; points that are missing are left out."""
    points = [point for point in points if point[1] is not None]
    if points:
        i = list(LIBRARIES).index(library)
        style = {"color": "black", "linewidth": 2.5, "zorder": 3} if i == 0 else {"color": f"C{i}", "linewidth": 1.2}
        panel.plot(*zip(*sorted(points), strict=True), marker="o", markersize=4, label=library, **style)


def finish(figure, panels, path: pathlib.Path) -> None:
    """Axes, legend, file."""
    from matplotlib.ticker import LogFormatter

    handles = {}
    for panel in panels.flat:
        panel.set_xscale("log", base=2)
        panel.set_yscale("log")
        panel.xaxis.set_major_formatter("{x:.0f}")
        panel.yaxis.set_major_formatter(LogFormatter())
        panel.yaxis.set_minor_formatter(LogFormatter())
        panel.grid(alpha=0.3)
        handles |= dict(zip(*panel.get_legend_handles_labels()[::-1], strict=True))
    for column in panels.T:
        ticks = sorted({x for panel in column for line in panel.lines for x in line.get_xdata()})
        column[0].set_xticks(ticks)
        column[0].minorticks_off()
    ordered = [library for library in LIBRARIES if library in handles]
    figure.legend([handles[name] for name in ordered], ordered, loc="outside upper center", ncols=len(ordered))
    figure.savefig(path, dpi=110)
