"""More shapes from few."""

from __future__ import annotations

import numpy as np

from tfflows.datasets.surfaces import check, normalized, whole


def augmented(
    clouds,
    copies: int = 1,
    seed: int | None = None,
    *,
    scale: tuple[float, float] = (0.8, 1.25),
    angle: float = 0.1,
    shear: float = 0.05,
    taper: float = 0.1,
    mirror: int | None = 1,
    n_points: int | None = None,
) -> np.ndarray:
    """Clouds changed at random, each point of a cloud alike, so that a small set of shapes becomes a large one.

    x, y, z -> sheared -> tapered -> scaled along each axis -> turned about z -> `normalized`

    The third coordinate is up. What is 0, (1, 1) or None is left out.

    Args:
      clouds: `[n, P, 3]`, `normalized`.
      copies: changed clouds of each, >= 1.
      seed: makes them reproducible; anything `np.random.default_rng` takes.
      scale: least and largest factor along each axis, 0 < least <= largest; their logarithms are uniform.
      angle: largest turn about the vertical to either side, in radians, 0 to pi.
      shear: largest slope by which x and y move with height, 0 to 1.
      taper: largest part by which x and y widen or narrow for each unit of height, 0 to 0.25.
      mirror: the axis whose sign half of the clouds change, on average: 1 for shapes alike on their left and right
        that face along x, as `planes` and `chairs`.
      n_points: points of a changed cloud, a part of the cloud's own drawn without replacement, 2 to P; all by default.

    Returns:
      float32 `[copies * n, n_points, 3]`: all clouds once, then all once more, ... Labels go with
      `np.tile(labels, copies)`.

    Raises:
      ValueError: for clouds of another shape, NaN or inf, or other arguments.
    """
    clouds = np.asarray(clouds, np.float64)
    check(clouds.ndim == 3 and clouds.shape[2] == 3 and clouds.size, "clouds [n, P, 3]", list(clouds.shape))
    check(0.0 < scale[0] <= scale[1] < np.inf, "scale (least, largest) with 0 < least <= largest", scale)
    for name, value, largest in (("angle", angle, np.pi), ("shear", shear, 1.0), ("taper", taper, 0.25)):
        check(0.0 <= value <= largest, f"{name} between 0 and {largest:.4g}", value)
    check(mirror in (None, 0, 1, 2), "a mirrored axis 0, 1, 2 or None", mirror)
    n_points = clouds.shape[1] if n_points is None else whole("n_points", n_points)
    check(2 <= n_points <= clouds.shape[1], f"2 to {clouds.shape[1]} points", n_points)
    rng = np.random.default_rng(seed)
    return np.concatenate(
        [_changed(clouds, rng, scale, angle, shear, taper, mirror, n_points) for _ in range(whole("copies", copies))]
    )


def _changed(clouds, rng, scale, angle, shear, taper, mirror, n_points):
    n = len(clouds)
    if n_points < clouds.shape[1]:
        clouds = np.stack([rng.choice(cloud, n_points, replace=False, shuffle=False) for cloud in clouds])
    across, up = clouds[..., :2], clouds[..., 2:]
    across = across + up * rng.uniform(-shear, shear, [n, 1, 2])
    # Far above or below, where the factor would change its sign, it is held.
    across = across * np.clip(1.0 + up * rng.uniform(-taper, taper, [n, 1, 1]), 0.1, None)
    x = np.concatenate([across, up], axis=-1) * np.exp(rng.uniform(*np.log(scale), [n, 1, 3]))
    if mirror is not None:
        x[..., mirror] *= rng.choice([-1.0, 1.0], [n, 1])
    turn = rng.uniform(-angle, angle, n)
    cos, sin, zero, one = np.cos(turn), np.sin(turn), np.zeros(n), np.ones(n)
    rotation = np.array([[cos, -sin, zero], [sin, cos, zero], [zero, zero, one]])
    return normalized(np.einsum("ijn,npj->npi", rotation, x))
