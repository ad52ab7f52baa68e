"""Bonds, angles and torsions of a molecule to Cartesian coordinates and back, in batches, with the Jacobian."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class ZMatrix:
    """Each atom placed by its distance, angle and torsion to three atoms that are placed before it.

    Args:
      rows: for each of m >= 3 atoms, in the order they are placed, (atom, bonded, angle, torsion): the atom, the one
        its bond leads to, the one that closes the angle atom-bonded-angle, and the one at the far end of the torsion
        atom-bonded-angle-torsion. The first three rows have 1, 2 and 3 of these numbers.

    Raises:
      ValueError: if an atom is placed twice, or by atoms that are not yet there.
    """

    def __init__(self, rows: Sequence[Sequence[int]]):
        lengths = [min(i + 1, 4) for i in range(len(rows))]
        if len(rows) < 3 or [len(row) for row in rows] != lengths:
            raise ValueError(f"Expected rows of 1, 2, 3 and then 4 atoms; got {[len(row) for row in rows]}.")
        placed = set()
        for row in rows:
            if len(set(row)) != len(row) or row[0] in placed or not placed.issuperset(row[1:]):
                raise ValueError(f"Expected a new atom placed by different ones before it; got {tuple(row)}.")
            placed.add(row[0])
        if placed != set(range(len(rows))):
            raise ValueError(f"Expected the atoms 0 to {len(rows) - 1}; got {sorted(placed)}.")
        self.rows = [tuple(row) for row in rows]
        self.n_atoms = len(rows)

    def cartesian(self, bonds: np.ndarray, angles: np.ndarray, torsions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions, and the log of the volume in Cartesian coordinates per volume in internal ones.

        The first atom is at the origin, the second on the x axis, the third in the xy plane. The volume is that of
        all positions over that of rigid motions: r^2 sin(angle) for each atom, without the sine where no angle is.

        Args:
          bonds: `[n, m - 1]`, in the order of the rows.
          angles: `[n, m - 2]`, in radians, between 0 and pi.
          torsions: `[n, m - 3]`, in radians.

        Returns:
          positions `[n, m, 3]` in the unit of `bonds`, and the log-Jacobian `[n]`.
        """
        n = len(bonds)
        # [m, 3, n]: what belongs together lies together.
        places = np.zeros([self.n_atoms, 3, n])
        bonds, angles, torsions = bonds.T, angles.T, torsions.T
        sines, cosines = np.sin(angles), np.cos(angles)
        across, up = np.cos(torsions), np.sin(torsions)
        first, second, third = (row[0] for row in self.rows[:3])
        places[second, 0] = bonds[0]
        toward = 1.0 if self.rows[2][1] == first else -1.0
        places[third] = places[self.rows[2][1]]
        places[third, 0] += toward * bonds[1] * cosines[0]
        places[third, 1] += bonds[1] * sines[0]
        for i, (atom, bonded, angle, torsion) in enumerate(self.rows[3:]):
            axis = _unit(places[bonded] - places[angle])
            normal = _unit(_cross(places[angle] - places[torsion], axis))
            sideways = across[i] * _cross(normal, axis) + up[i] * normal
            places[atom] = places[bonded] + bonds[i + 2] * (sines[i + 1] * sideways - cosines[i + 1] * axis)
        with np.errstate(invalid="ignore", divide="ignore"):
            log_jacobian = 2.0 * np.log(bonds).sum(axis=0) + np.log(sines).sum(axis=0)
        return np.ascontiguousarray(np.moveaxis(places, 2, 0)), log_jacobian

    def internal(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Bonds, angles and torsions (in [-pi, pi]) of positions `[n, m, 3]`; the inverse of `cartesian`."""
        columns = [[positions[:, i] for i in row] for row in self.rows]
        bonds = [np.linalg.norm(atoms[0] - atoms[1], axis=-1) for atoms in columns[1:]]
        angles = [angle(*atoms[:3]) for atoms in columns[2:]]
        torsions = [torsion(*atoms) for atoms in columns[3:]]
        empty = np.zeros([len(positions), 0])
        return tuple(np.stack(part, axis=-1) if part else empty for part in (bonds, angles, torsions))


def angle(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """The angle a-b-c in radians, of points `[..., 3]`."""
    u, v = a - b, c - b
    return np.arctan2(np.linalg.norm(np.cross(u, v), axis=-1), np.sum(u * v, axis=-1))


def torsion(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
    """The torsion angle a-b-c-d in radians, in [-pi, pi], of points `[..., 3]`; 0 is cis (IUPAC's sign)."""
    first, second, third = b - a, c - b, d - c
    across = np.cross(second, third)
    length = np.linalg.norm(second, axis=-1)
    return np.arctan2(length * np.sum(first * across, axis=-1), np.sum(np.cross(first, second) * across, axis=-1))


def _cross(a, b):
    """Cross product over the first axis."""
    return np.stack([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])


def _unit(a):
    return a / np.sqrt(np.sum(a * a, axis=0))
