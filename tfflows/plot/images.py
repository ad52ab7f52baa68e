"""Grids of images."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tfflows.plot import canvas


def images(
    x,
    *,
    n_columns: int | None = None,
    rows: Sequence[str] | None = None,
    title: str | None = None,
    path: str | Path | None = None,
    pixels: float = 2.0,
    ax=None,
):
    """A grid of images, or one strip a row.

    Args:
      x: pixel values 0 to 255, rounded and cut off there: `[n, H, W, C]`, laid out row by row; or `[n, k, H, W, C]`, a
        strip of k images each, as `FlowModel.interpolate` returns them. C is 1 (grey) or 3 (red, green, blue).
      n_columns: images in a row, about as many as rows by default; of strips it is k.
      rows: a text before each row.
      title: a text above.
      path: where the picture is written, as PNG or whatever its ending says; None writes nothing.
      pixels: the picture's pixels for each of an image, in a figure of its own.
      ax: matplotlib's axes to draw in; by default those of a new figure.

    Returns:
      the matplotlib figure.

    Raises:
      ValueError: for anything but images, or another number of texts than of rows.
    """
    grid = _grid(np.asarray(x), n_columns)
    n_rows, n_columns, height, width, n_channels = grid.shape
    if rows is not None and len(rows) != n_rows:
        raise ValueError(f"Expected a text for each of {n_rows} rows; got {len(rows)}.")
    gap = max(1, min(height, width) // 14)
    sheet = np.full((n_rows * (height + gap) - gap, n_columns * (width + gap) - gap, n_channels), 255, np.uint8)
    for i in range(n_rows):
        for j in range(n_columns):
            top, left = i * (height + gap), j * (width + gap)
            sheet[top : top + height, left : left + width] = np.clip(np.rint(grid[i, j]), 0, 255)
    dpi = 100
    inches = [pixels * n / dpi for n in sheet.shape[1::-1]]
    axis = canvas.new_axes(ax, (inches[0] + (1.2 if rows else 0.1), inches[1] + 0.4))
    # Nothing is smoothed: what is seen is what the flow made.
    shown = sheet if n_channels == 3 else sheet[..., 0]
    axis.imshow(shown, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axis.set_xticks([])
    axis.set_yticks([(i + 0.5) * height + i * gap for i in range(n_rows)] if rows else [], rows or [])
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    if title:
        axis.set_title(textwrap.fill(title, max(20, round(10.0 * inches[0]))))  # some ten letters to the inch
    canvas.save(axis, path, dpi)
    return axis.figure


def _grid(x, n_columns):
    """`[n_rows, n_columns, H, W, C]`; what is missing in the last row is white."""
    if x.ndim not in (4, 5) or x.shape[-1] not in (1, 3) or 0 in x.shape:
        raise ValueError(f"Expected images [n, H, W, C] or strips [n, k, H, W, C] with C = 1 or 3; got {x.shape}.")
    if not np.all(np.isfinite(x)):
        raise ValueError("Expected finite pixels; got NaN or inf.")
    if x.ndim == 5:
        if n_columns not in (None, x.shape[1]):
            raise ValueError(f"Expected n_columns {x.shape[1]}, the length of the strips, or None; got {n_columns}.")
        return x
    n_columns = int(np.ceil(np.sqrt(len(x)))) if n_columns is None else canvas.check_count(n_columns, "n_columns")
    missing = -len(x) % n_columns
    x = np.concatenate([x, np.full((missing, *x.shape[1:]), 255.0)]) if missing else x
    return x.reshape(-1, n_columns, *x.shape[1:])
