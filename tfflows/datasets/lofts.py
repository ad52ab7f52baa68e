"""Solids as lofts: closed rings of points `[k, m, 3]`, each joined to the next, and the flat ends."""

from __future__ import annotations

import numpy as np

RING = 2.0 * np.pi * (np.arange(20) + 0.5) / 20
CHORD = 0.5 * (1.0 - np.cos(np.linspace(0.0, np.pi, 9)))  # dense where an aerofoil bends


def tube(centres, radii, axis, power=2.0):
    """Sections `[k, 20, 3]` across an axis: super-ellipses |u|^power + |v|^power = 1; 2 is round, 10 nearly square."""
    round_ = np.stack([np.cos(RING), np.sin(RING)], axis=1)
    ring = round_ / (np.abs(round_) ** power).sum(axis=1, keepdims=True) ** (1.0 / power)
    centres = np.asarray(centres, np.float64)
    sections = np.repeat(centres[:, None], len(ring), axis=1)
    across = [d for d in range(3) if d != axis]
    sections[..., across] += np.broadcast_to(radii, [len(centres), 2])[:, None] * ring
    return sections


def aerofoils(leading, chords, thickness, axis):
    """Sections whose chords point backwards from the leading edges, thick along an axis."""
    bulge = 0.2969 * np.sqrt(CHORD) - 0.126 * CHORD - 0.3516 * CHORD**2 + 0.2843 * CHORD**3 - 0.1036 * CHORD**4
    along, off = np.concatenate([[CHORD, 5.0 * bulge], [CHORD[-2:0:-1], -5.0 * bulge[-2:0:-1]]], axis=1)
    chords = np.asarray(chords)[:, None]
    sections = np.repeat(np.asarray(leading)[:, None], len(along), axis=1)
    sections[..., 0] -= chords * along
    sections[..., axis] += thickness * chords * off
    return sections


def upright(z):
    """Points on the vertical axis at heights z, `[k, 3]`."""
    z = np.asarray(z, np.float64)
    return np.stack([0 * z, 0 * z, z], axis=1)


def both(parts):
    """Parts, and what a mirror at y = 0 makes of them."""
    return [*parts, *(part * [1.0, -1.0, 1.0] for part in parts)]


def mesh(lofts):
    """Vertices and triangles: between the rings of each loft, and of the flat ends."""
    vertices, faces, first = [], [], 0
    for sections in lofts:
        k, m = sections.shape[:2]
        index = first + np.arange(k * m).reshape(k, m)
        a, b = index[:-1].ravel(), index[1:].ravel()
        c, d = np.roll(index[:-1], -1, axis=1).ravel(), np.roll(index[1:], -1, axis=1).ravel()
        fans = [np.stack([np.full(m - 2, ring[0]), ring[1:-1], ring[2:]], axis=1) for ring in index[[0, -1]]]
        vertices.append(sections.reshape(-1, 3))
        faces += [np.stack([a, b, c], axis=1), np.stack([c, b, d], axis=1), *fans]
        first += k * m
    return np.concatenate(vertices), np.concatenate(faces)
