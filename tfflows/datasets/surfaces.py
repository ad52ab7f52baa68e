"""Points on surfaces, and clouds of one place and scale."""

from __future__ import annotations

import numbers

import numpy as np


def surface_points(vertices, faces, n_points: int, rng: np.random.Generator) -> np.ndarray:
    """Independent points on a surface of triangles, uniform by area.

    A triangle is drawn by its area; then, of u, v ~ U(0, 1) folded to u + v <= 1, x = a + u (b - a) + v (c - a).

    Args:
      vertices: `[V, 3]`.
      faces: `[F, 3]`, whole numbers 0 to V - 1: the corners of the triangles.
      n_points: number of points, >= 1.
      rng: a generator, or anything `np.random.default_rng` takes.

    Returns:
      float64 `[n_points, 3]`.

    Raises:
      ValueError: for no faces, corners that are no vertices, NaN or inf, or a surface without area.

    Reference:
      Osada et al. (2002), Shape distributions, https://doi.org/10.1145/571647.571648
    """
    n_points, rng = whole("n_points", n_points), np.random.default_rng(rng)
    vertices, faces = np.asarray(vertices, np.float64), np.asarray(faces)
    check(vertices.ndim == 2 and vertices.shape[1] == 3, "vertices [V, 3]", list(vertices.shape))
    check(faces.ndim == 2 and faces.shape[1] == 3 and len(faces) > 0, "faces [F, 3]", list(faces.shape))
    check(np.issubdtype(faces.dtype, np.integer), "faces of whole numbers", faces.dtype)
    check(np.isfinite(vertices).all(), "finite vertices", "NaN or inf")
    is_corner = (faces >= 0) & (faces < len(vertices))
    check(is_corner.all(), f"corners 0 to {len(vertices) - 1}", faces[~is_corner][:5].tolist())
    origin, *sides = np.moveaxis(vertices[faces], 1, 0)
    sides = np.stack(sides, axis=1) - origin[:, None]
    areas = np.linalg.norm(np.cross(sides[:, 0], sides[:, 1]), axis=1)
    check(areas.sum() > 0.0, "a surface with area > 0", areas.sum())
    face = rng.choice(len(faces), n_points, p=areas / areas.sum())
    weights = rng.random([n_points, 2])
    weights = np.where(weights.sum(axis=1, keepdims=True) > 1.0, 1.0 - weights, weights)
    return origin[face] + np.einsum("ns,nsd->nd", weights, sides[face])


def from_voxels(occupancy, n_points: int, seed: int | None = None) -> np.ndarray:
    """Clouds on the surfaces of voxel grids: on the faces between a full voxel and an empty one or the outside.

    Args:
      occupancy: full or empty, `[n, X, Y, Z]` or one grid `[X, Y, Z]`; the axes become the coordinates.
      n_points: points of a cloud, >= 1.
      seed: makes the points reproducible; anything `np.random.default_rng` takes.

    Returns:
      float32 `[n, n_points, 3]` or `[n_points, 3]`, each cloud `normalized`.

    Raises:
      ValueError: for other shapes, numbers but 0 and 1, or a grid without a full voxel.
    """
    n_points, rng = whole("n_points", n_points), np.random.default_rng(seed)
    occupancy = np.asarray(occupancy)
    check(occupancy.ndim in (3, 4) and occupancy.size > 0, "grids [n, X, Y, Z] or [X, Y, Z]", list(occupancy.shape))
    check(np.isin(occupancy, (0, 1)).all(), "voxels of 0 or 1", "others")
    grids = occupancy.astype(bool).reshape(-1, *occupancy.shape[-3:])
    empty = np.flatnonzero(~grids.any(axis=(1, 2, 3)))
    check(len(empty) == 0, "a full voxel in each grid", f"none in {empty.tolist()}")
    clouds = np.stack([_on_faces(grid, n_points, rng) for grid in grids])
    return normalized(clouds.reshape(*occupancy.shape[:-3], n_points, 3))


def normalized(clouds) -> np.ndarray:
    """Clouds moved to mean 0 and scaled to mean square coordinate 1, each by itself; one factor for all axes.

    Args:
      clouds: `[..., P, D]`, P >= 2.

    Returns:
      float32 `[..., P, D]`.

    Raises:
      ValueError: for other shapes, NaN or inf, or a cloud whose points are all the same.
    """
    clouds = np.asarray(clouds, np.float64)
    check(clouds.ndim >= 2 and clouds.shape[-2] >= 2, "clouds [..., P, D] of 2 points or more", list(clouds.shape))
    check(np.isfinite(clouds).all(), "finite points", "NaN or inf")
    centred = clouds - clouds.mean(axis=-2, keepdims=True)
    scale = np.sqrt(np.mean(centred**2, axis=(-2, -1), keepdims=True))
    # Equal points leave the rounding errors of their mean.
    differ = scale > 1e-12 * np.abs(clouds).max(axis=(-2, -1), keepdims=True, initial=0.0)
    check(differ.all(), "clouds whose points differ", "points all the same")
    return (centred / scale).astype(np.float32)


def whole(name, value) -> int:
    """A whole number >= 1."""
    is_whole = isinstance(value, numbers.Real) and not isinstance(value, bool) and value >= 1 and value % 1 == 0
    check(is_whole, f"{name} >= 1, a whole number", value)
    return int(value)


def check(is_right, expected, got):
    if not is_right:
        raise ValueError(f"Expected {expected}; got {got}.")


def _on_faces(full, n_points, rng):
    padded = np.pad(full, 1)
    corners, axes = [], []
    for axis in range(3):
        # A face of lower corner (i, j, k) lies between voxel (i, j, k) and the one before it along the axis.
        change = np.diff(padded.astype(np.int8), axis=axis) != 0
        inner = [slice(1, -1)] * 3
        inner[axis] = slice(None)
        found = np.argwhere(change[tuple(inner)])
        corners.append(found)
        axes.append(np.full(len(found), axis))
    corners, axes = np.concatenate(corners), np.concatenate(axes)
    face = rng.integers(len(corners), size=n_points)
    return corners[face] + np.where(np.arange(3) == axes[face, None], 0.0, rng.random([n_points, 3]))
