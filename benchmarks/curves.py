"""Curves in the plane, as the SoftFlow paper draws them, and how near to them samples come."""

from __future__ import annotations

import numpy as np
from scipy import spatial

DENSE = 200_000  # points that stand for a curve
RADIUS = 0.03  # of coverage, in units of the curves, which are some 6 wide


def circle(u):
    return 3.0 * _round(u)


def spiral(u):
    turn = 1.5 * np.pi * (1.0 + 2.0 * u)
    return turn[:, np.newaxis] * _round(turn / (2.0 * np.pi)) / 5.0


def sines(u):
    sign, x = np.where(u < 0.5, 1.0, -1.0), 2.0 * np.pi * (2.0 * u % 1.0) - np.pi
    return np.stack([x, 2.5 * sign * np.sin(x)], axis=-1)


def two_circles(u):
    return np.where(u < 0.5, 3.0, 1.5)[:, np.newaxis] * _round(2.0 * u)


def _round(turns):
    return np.stack([np.cos(2.0 * np.pi * turns), np.sin(2.0 * np.pi * turns)], axis=-1)


CURVES = {"circle": circle, "spiral": spiral, "sines": sines, "two circles": two_circles}


def points(name: str, n: int, seed: int) -> np.ndarray:
    """`n` points on a curve, `[n, 2]`, uniform in its parameter."""
    return CURVES[name](np.random.default_rng([1, seed]).uniform(size=n)).astype(np.float32)


class Judge:
    """Distances of samples to a curve, and how much of it they cover."""

    def __init__(self, name: str):
        u = (np.arange(DENSE) + 0.5) / DENSE
        self.curve = CURVES[name](u)
        self.grid = self.curve[:: DENSE // 4000]
        self.tree = spatial.cKDTree(self.curve)
        self.name = name

    def covered(self, x) -> float:
        """The part of the curve within the radius of one of `x`."""
        return float(np.mean(spatial.cKDTree(x).query(self.grid)[0] < RADIUS))

    def __call__(self, x: np.ndarray) -> dict[str, float]:
        distance = self.tree.query(x)[0]
        return {
            "mean": float(distance.mean()),
            "median": float(np.median(distance)),
            "ninety": float(np.quantile(distance, 0.9)),
            "coverage": self.covered(x) / self.covered(points(self.name, len(x), 10**6)),
        }
