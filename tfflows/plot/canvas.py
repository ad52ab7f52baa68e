"""What pictures share: axes that need no screen, colours that differ in grey too, files that are whole."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tfflows import atomic

DATA, DRAWS = "0.35", "tab:orange"  # a dark and a light grey in black and white
CURVE = "#b04a00"  # of draws and flows too: a line on the pale grey that areas of data and bands have
BAND = "0.85"
DPI = 150
STYLES = ("-", "--", ":", "-.")


def module(name: str = "matplotlib"):
    """A package that pictures need, imported when the first of them is drawn.

    Raises:
      ImportError: that says how to install it.
    """
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"Expected {name} for pictures: pip install 'tfflows[plot]'") from error


def new_figure(size: tuple[float, float], figure=None):
    """A figure of that size in inches, without pyplot, which would keep it and may want a screen; or the one given."""
    if figure is None:
        return module("matplotlib.figure").Figure(figsize=size, layout="constrained")
    if not hasattr(figure, "suptitle"):
        raise ValueError(f"Expected a matplotlib figure; got {type(figure).__name__}.")
    return figure


def new_axes(ax=None, size: tuple[float, float] = (5.0, 4.0)):
    """Axes of a new figure, or the ones given."""
    module()
    if ax is None:
        return new_figure(size).subplots()
    if not hasattr(ax, "set_xlim"):
        raise ValueError(f"Expected one matplotlib axes; got {type(ax).__name__}.")
    return ax


def save(drawn, path: str | Path | None, dpi: int = DPI) -> None:
    """Writes the whole figure of `drawn`, a figure or axes; the path's ending says how, None writes nothing."""
    if path is None:
        return
    figure = (getattr(drawn, "figure", None) or drawn).canvas.figure
    if hasattr(path, "write"):
        figure.savefig(path, dpi=dpi)
        return
    with atomic.replacing(path) as made:
        figure.savefig(made, dpi=dpi)


def pixels(drawn) -> np.ndarray:
    """The whole figure of `drawn` as uint8 `[H, W, 3]`."""
    figure = (getattr(drawn, "figure", None) or drawn).canvas.figure
    canvas = module("matplotlib.backends.backend_agg").FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def write_gif(frames: Sequence[np.ndarray], path: str | Path, seconds: Sequence[float]) -> Path:
    """A GIF of frames uint8 `[H, W, 3]`, each shown so long, over and over. The file appears whole or not at all."""
    from PIL import Image

    path = gif_path(path)
    pictures = [Image.fromarray(frame) for frame in frames]
    # One palette for all frames, else still parts flicker.
    palette = pictures[0].quantize(128)
    pictures = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    milliseconds = [round(1000.0 * s) for s in seconds]
    with atomic.replacing(path) as made:
        pictures[0].save(made, save_all=True, append_images=pictures[1:], duration=milliseconds, loop=0)
    return path


def gif_path(path: str | Path) -> Path:
    """The path of a GIF.

    Raises:
      ValueError: if it has another ending.
    """
    path = Path(path)
    if path.suffix.lower() != ".gif":
        raise ValueError(f"Expected a path ending in .gif; got {path}.")
    return path


def with_units(labels: Sequence[str], units: Sequence[str | None] | None) -> list[str]:
    """Labels with units in brackets, where there are any."""
    if units is None:
        return list(labels)
    if isinstance(units, str) or len(units) != len(labels):
        raise ValueError(f"Expected a unit, or None, for each of {len(labels)} columns; got {units!r}.")
    return [f"{label} [{unit}]" if unit else label for label, unit in zip(labels, units, strict=True)]


def names(labels: Sequence[str] | None, n: int, default: Sequence[str] | None = None) -> list[str]:
    """Labels of n columns: as given, by default, or x0, x1, ..."""
    if labels is None:
        return [f"x{i}" for i in range(n)] if default is None else list(default)
    labels = [labels] if isinstance(labels, str) else [str(label) for label in labels]
    if len(labels) != n:
        raise ValueError(f"Expected a label for each of {n} columns; got {labels}.")
    return labels


def per_cent(share: float) -> str:
    """0.5 as '50 %'."""
    return f"{100.0 * share:.4g} %"


def check_level(level: float, what: str = "level") -> float:
    """Raises unless it is in (0, 1)."""
    if not 0.0 < level < 1.0:
        raise ValueError(f"Expected {what} in (0, 1); got {level}.")
    return float(level)


def check_masses(masses: Sequence[float] | float) -> list[float]:
    """Each once, ascending; raises unless all are in (0, 1)."""
    return [check_level(mass, "masses") for mass in np.unique(np.asarray(masses, np.float64)).tolist()]


def check_limits(limits, n: int) -> np.ndarray:
    """`[n, 2]`: as given, or one pair for all.

    Raises:
      ValueError: for anything but finite (low, high) with low < high.
    """
    found = np.asarray(limits, np.float64)
    found = np.tile(found, (n, 1)) if found.shape == (2,) else found
    if found.shape != (n, 2) or not np.all(np.isfinite(found)) or np.any(found[:, 0] >= found[:, 1]):
        raise ValueError(f"Expected limits (low, high), low < high, of each of {n} numbers; got {limits}.")
    return found


def set_ticks(axis, categories: Sequence | None, is_whole: bool, **options) -> None:
    """Ticks at categories that are not too many, else where `MaxNLocator` puts them, at whole numbers if they are."""
    if categories is not None and len(categories) <= 12:
        axis.set_ticks(range(len(categories)), [str(category) for category in categories])
    elif options or is_whole:
        axis.set_major_locator(module("matplotlib.ticker").MaxNLocator(integer=is_whole, **options))


def check_count(n: int, what: str, least: int = 1) -> int:
    """Raises unless it is a whole number, at least `least`."""
    is_whole = isinstance(n, numbers.Real) and not isinstance(n, bool) and float(n).is_integer()
    if not is_whole or n < least:
        raise ValueError(f"Expected {what} >= {least}, a whole number; got {n}.")
    return int(n)
