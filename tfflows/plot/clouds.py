"""Pictures of point clouds: small balls seen from far away, near ones dark, far ones pale."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tfflows.plot import canvas
from tfflows.plot.images import images

FINE = 2  # a picture's pixel is the mean of FINE x FINE, so that edges are smooth
LIGHT = np.array([-0.4, 0.55, 0.73])  # right, up, towards the eye; of length 1
PALEST = 0.35  # what is left of the colour of the farthest points


def clouds(
    x,
    *,
    n_columns: int | None = None,
    rows: Sequence[str] | None = None,
    views: Sequence[tuple[float, float]] = ((20.0, -60.0),),
    title: str | None = None,
    path: str | Path | None = None,
    colours=None,
    size: int = 200,
    radius: float = 0.01,
    ax=None,
):
    """A grid of point clouds, or one strip a row; all at one scale, each in the middle of its picture.

    The third coordinate is up. Nothing is in perspective. Of points far from all others some may be outside.

    Args:
      x: `[n, P, 3]`, or n clouds `[P_i, 3]`, laid out row by row; or `[n, k, P, 3]`, a strip of k clouds each.
      n_columns: clouds in a row, about as many as rows by default; of strips it is k.
      rows: a text before each row.
      views: from where each cloud is seen, side by side: elevation and azimuth in degrees, as matplotlib has them.
        (0, 0) looks from the first axis's far end, (0, -90) from the second's near end, (90, -90) from above.
      title: a text above.
      path: where the picture is written, as PNG or whatever its ending says; None writes nothing.
      colours: a matplotlib colour for all points, or one for each cloud of x (of strips, for each strip).
      size: pixels of a view, along its longer side.
      radius: of a ball, in such sides.
      ax: matplotlib's axes to draw in; by default those of a new figure.

    Returns:
      the matplotlib figure.

    Raises:
      ValueError: for anything but clouds, views, sizes or colours, or another number of texts than of rows.
    """
    strips, is_strips = _strips(x)
    views = np.asarray(views, np.float64)
    if views.ndim != 2 or views.shape[1:] != (2,) or len(views) == 0 or not np.all(np.isfinite(views)):
        raise ValueError(f"Expected views (elevation, azimuth), in degrees; got {views.tolist()}.")
    size, radius = _pixels(size, radius)
    frame = _frame(strips, views, size)
    pictures = [
        [np.concatenate([_render(cloud, *view, *frame, radius, colour) for view in views], axis=1) for cloud in strip]
        for strip, colour in zip(strips, _colours(colours, len(strips)), strict=True)
    ]
    pictures = np.asarray(pictures)
    pictures = pictures if is_strips else pictures[:, 0]
    return images(pictures, n_columns=n_columns, rows=rows, title=title, path=path, pixels=1.0, ax=ax)


def rotating(
    x,
    path: str | Path,
    *,
    n_frames: int = 36,
    seconds: float = 4.0,
    elevation: float = 20.0,
    colours=None,
    size: int = 200,
    radius: float = 0.01,
) -> Path:
    """A GIF of clouds that turn once about the vertical, side by side, over and over.

    The file appears whole or not at all.

    Args:
      x: one cloud `[P, 3]`, or `[n, P, 3]`, or n clouds `[P_i, 3]`.
      path: where it is written.
      n_frames: pictures of a turn, >= 2.
      seconds: time of a turn, > 0.
      elevation: of the eye, in degrees.
      colours: a matplotlib colour for all points, or one for each cloud.
      size: pixels of a cloud, along its picture's longer side.
      radius: of a ball, in such sides.

    Returns:
      the path.

    Raises:
      ValueError: for anything but clouds, or other sizes or colours.
    """
    path = canvas.gif_path(path)
    strips, is_strips = _strips([x] if len(x) and np.ndim(x[0]) == 1 else x)
    if is_strips:
        raise ValueError(f"Expected clouds [n, P, 3]; got strips {np.shape(x)}.")
    n_frames = canvas.check_count(n_frames, "n_frames", 2)
    if not (seconds > 0.0 and np.isfinite(elevation)):
        raise ValueError(f"Expected seconds > 0, a finite elevation; got {seconds}, {elevation}.")
    size, radius = _pixels(size, radius)
    views = [(elevation, -60.0 + 360.0 * i / n_frames) for i in range(n_frames)]
    frame = _frame(strips, views, size)
    colours = _colours(colours, len(strips))
    frames = []
    for view in views:
        row = [_render(strip[0], *view, *frame, radius, c) for strip, c in zip(strips, colours, strict=True)]
        frames.append(np.concatenate(row, axis=1))
    return canvas.write_gif(frames, path, [seconds / n_frames] * n_frames)


def _strips(x):
    """Lists of lists of clouds `[P, 3]`, each about its middle; and whether x held strips."""
    is_strips = np.ndim(x[0]) == 3 if len(x) else False
    strips = [[np.asarray(cloud, np.float64) for cloud in (strip if is_strips else [strip])] for strip in x]
    for cloud in [cloud for strip in strips for cloud in strip] or [np.zeros(0)]:
        if cloud.ndim != 2 or cloud.shape[1] != 3 or len(cloud) == 0:
            raise ValueError(f"Expected clouds [n, P, 3] or strips [n, k, P, 3]; got a cloud of shape {cloud.shape}.")
        if not np.all(np.isfinite(cloud)):
            raise ValueError("Expected finite points; got NaN or inf.")
    return [[cloud - np.mean(_range(cloud), axis=0) for cloud in strip] for strip in strips], is_strips


def _pixels(size, radius):
    if not (size >= 8 and size % 1 == 0 and 0.0 < radius < 0.5):
        raise ValueError(f"Expected a whole size >= 8 and a radius between 0 and 0.5; got {size} and {radius}.")
    return int(size), max(1.0, FINE * size * radius)


def _colours(colours, n):
    from matplotlib.colors import is_color_like, to_rgb

    colours = ["#2f6f9f"] if colours is None else [colours] if is_color_like(colours) else list(colours)
    colours = colours * n if len(colours) == 1 else colours
    if len(colours) != n or not all(is_color_like(c) for c in colours):
        raise ValueError(f"Expected one colour, or one for each of {n}; got {colours}.")
    return [np.array(to_rgb(c)) for c in colours]


def _range(x):
    """Least and largest of all but the outermost 0.2 %, which a flow may have thrown far away."""
    low, high = (np.quantile(side, 0.998, axis=0, method="inverted_cdf") for side in (-x, x))
    return [-low, high]


def _frame(strips, views, size):
    """Fine pixels for a unit of the coordinates, and a picture's height and width in them."""
    every = [_seen(cloud, *view)[:, :2] for strip in strips for cloud in strip for view in views]
    width, height = 1.08 * np.max([np.abs(_range(points)) for points in every], axis=(0, 1))
    width, height = (max(a, 0.3 * max(width, height)) or 1.0 for a in (width, height))
    scale = 0.5 * FINE * size / max(width, height)
    return scale, [FINE * round(2.0 * scale * a / FINE) for a in (height, width)]


def _seen(cloud, elevation, azimuth):
    """Coordinates to the right, up, and towards the eye."""
    e, a = np.radians([elevation, azimuth])
    right = [-np.sin(a), np.cos(a), 0.0]
    up = [-np.sin(e) * np.cos(a), -np.sin(e) * np.sin(a), np.cos(e)]
    eye = [np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)]
    return cloud @ np.transpose([right, up, eye])


def _render(cloud, elevation, azimuth, scale, shape, radius, colour):
    """A picture uint8 `[H, W, 3]` of balls of `radius` fine pixels, of which `shape` are drawn."""
    x, y, depth = scale * _seen(cloud, elevation, azimuth).T
    height, width = shape
    reach = int(np.ceil(radius))
    dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1)
    inside = dx**2 + dy**2 <= radius**2
    dx, dy = dx[inside], dy[inside]
    bulge = np.sqrt(np.maximum(radius**2 - dx**2 - dy**2, 0.0))
    shade = 0.35 + 0.65 * np.maximum(np.stack([dx, dy, bulge], axis=1) @ LIGHT / radius, 0.0)
    # Points far outside would be too large for whole numbers.
    column = np.rint(np.clip(0.5 * width + x, -width, 2 * width)).astype(int)[:, None] + dx
    row = np.rint(np.clip(0.5 * height - y, -height, 2 * height)).astype(int)[:, None] - dy
    near = depth[:, None] + bulge
    low, high = _range(depth)
    strength = PALEST + (1.0 - PALEST) * np.clip((depth - low) / max(high - low, 1.0), 0.0, 1.0)
    values = 1.0 - strength[:, None, None] * (1.0 - shade[:, None] * colour)
    seen = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    # Written from far to near: of a pixel's balls the nearest is the last.
    order = np.argsort(near[seen])
    canvas = np.ones([height * width, 3])
    canvas[(row * width + column)[seen][order]] = values[seen][order]
    canvas = canvas.reshape(height // FINE, FINE, width // FINE, FINE, 3).mean(axis=(1, 3))
    return np.rint(255.0 * canvas).astype(np.uint8)
