"""Aeroplanes and chairs that are drawn at random: point clouds without end, for trying things out.

Their parts are lofts: closed rings of points, each joined to the next, such as a leg's or a wing's cross-sections.
"""

from __future__ import annotations

import numpy as np

from tfflows.datasets.surfaces import normalized, surface_points, whole

RING = 2.0 * np.pi * (np.arange(20) + 0.5) / 20
CHORD = 0.5 * (1.0 - np.cos(np.linspace(0.0, np.pi, 9)))  # dense where an aerofoil bends


def planes(n: int, n_points: int = 2048, seed: int | None = None) -> np.ndarray:
    """Aeroplanes: airliners, business jets, light aircraft, fighters and gliders, each another one.

    x points forward, y to the left wing, z up. Points are uniform by area on the surfaces of the parts.

    Args:
      n: number of aeroplanes, >= 1.
      n_points: points of each, >= 2.
      seed: makes them reproducible; anything `np.random.default_rng` takes.

    Returns:
      float32 `[n, n_points, 3]`, each cloud `normalized`.

    Raises:
      ValueError: for other numbers.
    """
    return _clouds(_plane, n, n_points, seed)


def chairs(n: int, n_points: int = 2048, seed: int | None = None) -> np.ndarray:
    """Chairs with solid, barred or framed backs, on four legs or on a pedestal, some with arms, each another one.

    x points to where the sitter looks, y to the sitter's left, z up. Points are uniform by area on the surfaces of
    the parts.

    Args:
      n: number of chairs, >= 1.
      n_points: points of each, >= 2.
      seed: makes them reproducible; anything `np.random.default_rng` takes.

    Returns:
      float32 `[n, n_points, 3]`, each cloud `normalized`.

    Raises:
      ValueError: for other numbers.
    """
    return _clouds(_chair, n, n_points, seed)


def shapes(n: int, n_points: int = 2048, seed: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Planes and chairs in random order, half of each, of an odd number one plane more.

    Args:
      n: number of shapes, >= 2.
      n_points: points of each, >= 2.
      seed: makes them reproducible; anything `np.random.default_rng` takes.

    Returns:
      clouds, float32 `[n, n_points, 3]`, and labels, int64 `[n]`: 0 is a plane, 1 a chair.

    Raises:
      ValueError: for other numbers.
    """
    rng = np.random.default_rng(seed)
    n_chairs = whole("n", n) // 2
    clouds = np.concatenate([planes(n - n_chairs, n_points, rng), chairs(n_chairs, n_points, rng)])
    order = rng.permutation(n)
    return clouds[order], (order >= n - n_chairs).astype(np.int64)


def _clouds(make, n, n_points, seed):
    rng = np.random.default_rng(seed)
    return np.stack([normalized(surface_points(*_mesh(make(rng)), n_points, rng)) for _ in range(whole("n", n))])


def _plane(rng):
    """Lofts of an aeroplane whose fuselage has length 1 and its middle at the origin."""
    kind = rng.choice(["airliner", "jet", "light", "fighter", "glider"], p=[0.4, 0.2, 0.2, 0.15, 0.05])
    # Each pair is a range: fuselage radius, wing span, chord at the root, tip's part of it, sweep of the leading edge
    # and dihedral in degrees, place of the root's leading edge behind the nose.
    radius, span, chord, taper, sweep, dihedral, place = (
        rng.uniform(*r)
        for r in {
            "airliner": ((0.05, 0.066), (0.85, 1.1), (0.17, 0.23), (0.2, 0.35), (25, 36), (3, 7), (0.32, 0.38)),
            "jet": ((0.055, 0.068), (0.8, 1.0), (0.17, 0.22), (0.25, 0.45), (16, 30), (2, 6), (0.4, 0.47)),
            "light": ((0.06, 0.08), (1.15, 1.45), (0.17, 0.22), (0.6, 1.0), (0, 5), (0, 5), (0.22, 0.28)),
            "fighter": ((0.045, 0.06), (0.55, 0.75), (0.36, 0.48), (0.12, 0.3), (40, 54), (-3, 2), (0.36, 0.42)),
            "glider": ((0.04, 0.05), (1.8, 2.2), (0.1, 0.13), (0.4, 0.6), (0, 4), (2, 5), (0.3, 0.35)),
        }[kind]
    )
    high = rng.random() < {"light": 0.6, "airliner": 0.15}.get(kind, 0.0)
    t_tail = rng.random() < {"airliner": 0.1, "jet": 0.85, "glider": 1.0}.get(kind, 0.0)
    nose = rng.uniform(0.12, 0.18) if kind != "fighter" else rng.uniform(0.28, 0.36)
    parts = [_fuselage(radius, nose, rng.uniform(0.3, 0.42), rng.uniform(0.3, 0.6) if kind != "fighter" else 0.1, rng)]

    root = np.array([0.5 - place, 0.0, {True: 0.75, False: -0.45}[bool(high)] * radius])
    root[2] *= kind != "fighter"
    slope = np.tan(np.radians([sweep, dihedral]))
    parts.append(_wing(root, 0.5 * span, chord, taper, *slope, 0.12))

    # Fin and stabilisers, at the tail; those of a T-tail are on top of the fin.
    height, fin = rng.uniform(0.13, 0.19), rng.uniform(0.14, 0.19)
    lean = np.tan(np.radians(rng.uniform(30, 48) if kind not in ("light", "glider") else rng.uniform(10, 30)))
    back = -0.5 + fin + rng.uniform(0.0, 0.03)
    twin = kind == "fighter" and rng.random() < 0.5
    for y in [-0.9 * radius, 0.9 * radius] if twin else [0.0]:
        parts.append(_fin([back, y, 0.3 * radius], height + 0.3 * radius, fin, 0.45, lean))
    tail_chord = rng.uniform(0.1, 0.13)
    half_tail = rng.uniform(0.16, 0.21) if kind != "fighter" else rng.uniform(0.15, 0.2)
    top = [back - height * lean - 0.05 * fin, 0.0, 0.95 * height + 0.3 * radius]
    low = [-0.5 + tail_chord + 0.03, 0.0, 0.35 * radius if kind != "fighter" else 0.0]
    tail_slope = 0.9 * slope[0] if kind != "fighter" else 0.7 * slope[0]
    parts.append(_wing(top if t_tail else low, half_tail, tail_chord, 0.5, tail_slope, 0.05 * (not t_tail), 0.1))

    if kind == "airliner" and not t_tail:
        size = rng.uniform(0.024, 0.033)
        for part in [0.34] if rng.random() < 0.7 else [0.3, 0.58]:
            at = root + 0.5 * span * part * np.array([-slope[0], 1.0, slope[1]])
            parts += _both([_engine(at + [0.06, 0.0, -1.15 * size], size, 0.14), _pylon(at, size)])
    elif kind == "jet" or (kind == "airliner" and t_tail):
        size = rng.uniform(0.024, 0.03)
        parts += _both([_engine([-0.19, radius + 0.9 * size, 0.5 * radius], size, 0.16)])
    elif kind == "light":
        parts += _propeller(rng.uniform(0.1, 0.13), rng.uniform(0.0, np.pi))
    if kind in ("fighter", "glider", "light"):
        x = 0.5 - nose + np.linspace(0.06, -0.18, 9)
        bulge = np.sqrt(1.0 - np.linspace(-1, 1, 9) ** 2) + 0.02
        parts.append(_tube(np.stack([x, 0 * x, 0 * x + 0.7 * radius], 1), 0.6 * radius * bulge[:, None], 0))
    return parts


def _fuselage(radius, nose, tail, upsweep, rng):
    along = np.concatenate([nose * (1.0 - np.cos(np.linspace(0.02, 0.5 * np.pi, 9))), np.linspace(1.0 - tail, 1.0, 9)])
    behind = np.maximum(along - (1.0 - tail), 0.0) / tail
    width = np.where(along < nose, 1.0 - (1.0 - along / nose) ** 2, 1.0 - 0.85 * behind**1.7)
    width = np.where(along < nose, np.sqrt(width), width)
    z = radius * upsweep * behind**1.7
    centres = np.stack([0.5 - along, 0.0 * along, z], axis=1)
    return _tube(centres, radius * width[:, None] * [1.0, rng.uniform(1.0, 1.15)], 0)


def _wing(root, half_span, chord, taper, sweep, dihedral, thickness):
    """Both wings as one loft from tip to tip; sweep and dihedral are slopes."""
    part = np.array([-1.0, -0.985, -0.9, -0.5, 0.0, 0.5, 0.9, 0.985, 1.0])
    out = np.abs(part)
    chords = chord * (1.0 - (1.0 - taper) * out) * np.where(out == 1.0, 0.6, 1.0)
    leading = root + half_span * np.stack([-sweep * out, part, dihedral * out], axis=1)
    return _aerofoils(leading, chords, thickness, 2)


def _fin(root, height, chord, taper, sweep):
    part = np.array([0.0, 0.5, 0.97, 1.0])
    chords = chord * (1.0 - (1.0 - taper) * part) * np.where(part == 1.0, 0.8, 1.0)
    return _aerofoils(np.add(root, height * np.stack([-sweep * part, 0 * part, part], axis=1)), chords, 0.1, 1)


def _engine(front, radius, length):
    along = np.linspace(0.0, 1.0, 7)
    radii = radius * np.array([0.85, 0.98, 1.0, 0.98, 0.9, 0.75, 0.5])
    return _tube(np.add(front, np.stack([-length * along, 0 * along, 0 * along], axis=1)), radii[:, None], 0)


def _pylon(leading, size):
    top = np.asarray(leading)
    return _aerofoils(np.stack([top + [0.03, 0.0, -0.5 * size], top + [-0.01, 0.0, 0.1 * size]]), [0.08, 0.08], 0.1, 1)


def _propeller(length, angle):
    """Two blades and a spinner at the nose."""
    across = np.array([0.0, np.cos(angle), np.sin(angle)])
    along = np.array([-1.0, -0.6, 0.0, 0.6, 1.0])[:, None]
    blades = _tube([0.505, 0.0, 0.0] + length * along * across, [0.006, 0.012], 1)
    # The ring of a tube lies across an axis; that of the blades is turned into their own frame.
    centres = blades.mean(axis=1, keepdims=True)
    shape = blades - centres
    turned = centres + shape[..., :1] * [1.0, 0.0, 0.0] + shape[..., 2:] * [0.0, -across[2], across[1]]
    x = np.linspace(0.535, 0.49, 6)
    spinner = np.sqrt(1.0 - np.linspace(0.98, 0.0, 6) ** 2)
    return [turned, _tube(np.stack([x, 0 * x, 0 * x], axis=1), 0.02 * spinner[:, None], 0)]


def _chair(rng):
    """Lofts of a chair whose seat is about 0.45 wide and as high above the floor, z = 0."""
    width, depth, height = rng.uniform(0.4, 0.54), rng.uniform(0.38, 0.5), rng.uniform(0.4, 0.5)
    thick, power = rng.uniform(0.025, 0.08), rng.choice([2.6, 4.0, 10.0])
    half = 0.5 * np.array([depth, width])
    z = height + thick * np.array([-1.0, -0.8, -0.2, 0.0])
    parts = [_tube(_at(z), half * np.array([[0.95], [1.0], [1.0], [0.95]]), 2, power)]

    pedestal = rng.random() < 0.25
    under = height - thick
    parts += _pedestal(under, rng) if pedestal else _legs(half, under, power, rng)
    parts += _back(half, height, thick, rng)
    if rng.random() < 0.4:
        arm, bar = height + rng.uniform(0.18, 0.26), rng.uniform(0.012, 0.024)
        y = half[1] + bar
        front = half[0] * rng.uniform(0.4, 0.9)
        rest = _tube(np.array([[-half[0] - 0.02, y, arm], [front + 0.03, y, arm]]), [1.5 * bar, 0.8 * bar], 0, 4.0)
        post = _tube(np.array([[front, y, arm], [front, y, height - thick]]), [bar, bar], 2, 4.0)
        parts += _both([rest, post])
    return parts


def _legs(half, top, power, rng):
    bar, foot, splay = rng.uniform(0.014, 0.03), rng.uniform(0.5, 1.0), rng.choice([0.0, 1.0]) * rng.uniform(0.0, 0.07)
    section = rng.choice([2.0, 10.0])
    inset = (0.72 if power < 3.0 else 0.95) * half - bar
    feet = inset + splay
    parts = []
    for x in (-1.0, 1.0):
        leg = np.array([[x * inset[0], inset[1], top], [x * feet[0], feet[1], 0.0]])
        parts += _both([_tube(leg, bar * np.array([[1.0], [foot]]), 2, section)])
    if rng.random() < 0.35:
        rise = rng.uniform(0.25, 0.5)
        at = feet + rise * (inset - feet)
        thin = 0.6 * bar
        parts += _both([_tube(np.array([[-at[0], at[1], rise * top], [at[0], at[1], rise * top]]), [thin, thin], 0)])
        x = rng.choice([0.0, -1.0, 1.0]) * at[0]
        parts.append(_tube(np.array([[x, -at[1], rise * top], [x, at[1], rise * top]]), [thin, thin], 1))
    return parts


def _pedestal(top, rng):
    column, reach = rng.uniform(0.022, 0.04), rng.uniform(0.22, 0.29)
    if rng.random() < 0.4:
        radii = np.array([[reach], [reach], [0.9 * reach], [2.0 * column]])
        return [_tube(_at([0.0, 0.015, 0.025, 0.05]), radii, 2), _tube(_at([0.05, top]), [column, column], 2)]
    parts = [_tube(_at([0.06, top]), [column, column], 2)]
    for angle in 2.0 * np.pi * (np.arange(5) + 0.5) / 5:
        spoke = _tube(np.array([[0.0, 0.0, 0.085], [reach, 0.0, 0.045]]), np.array([[0.022], [0.015]]), 0, 4.0)
        wheel = _tube(np.array([[reach, -0.012, 0.028], [reach, 0.012, 0.028]]), [0.028, 0.028], 1)
        turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
        parts += [spoke @ turn.T, wheel @ turn.T]
    return parts


def _back(half, height, thick, rng):
    """Bars and panels in a plane of y and z, then leant and bent."""
    tall, bar, flat = rng.uniform(0.36, 0.58), rng.uniform(0.014, 0.028), rng.uniform(0.01, 0.02)
    wide, bottom = half[1] * rng.uniform(0.82, 1.0) - bar, height - 0.5 * thick
    top = height + tall
    ends = np.array([-1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0])
    crest = rng.choice([0.0, 1.0]) * rng.uniform(0.0, 0.05) * (1.0 - ends**2)

    def panel(low, high, arch=0.0):
        middle, reach = 0.5 * (low + high + arch), 0.5 * (high + arch - low)
        centres = np.stack([0 * ends, wide * ends, middle + 0 * ends], axis=1)
        return _tube(centres, np.stack([flat + 0 * ends, reach + 0 * ends], axis=1), 1, 8.0)

    def upright(y, size, end=top):
        z = np.linspace(bottom, end, 5)
        return _tube(np.stack([0 * z, y + 0 * z, z], axis=1), [size, size], 2, 4.0)

    kind = rng.choice(["solid", "panel", "bars", "rungs", "frame"], p=[0.25, 0.2, 0.25, 0.2, 0.1])
    if kind == "solid":
        parts = [panel(bottom, top, crest)]
    else:
        parts = [upright(-wide, bar), upright(wide, bar)]
        rail = rng.uniform(0.04, 0.09)
        if kind == "panel":
            parts.append(panel(top - tall * rng.uniform(0.4, 0.75), top, crest))
        else:
            parts.append(panel(top - rail, top, crest))
        if kind == "bars":
            n = rng.integers(2, 7)
            size = rng.uniform(0.008, 0.014)
            parts += [upright(y, size, top - 0.5 * rail) for y in wide * np.linspace(-1, 1, n + 2)[1:-1]]
        if kind == "rungs":
            n = rng.integers(1, 4)
            gaps = np.linspace(height, top - rail, n + 2)[1:-1]
            parts += [panel(z - 0.35 * rail, z + 0.35 * rail) for z in gaps]
        if kind == "frame":
            parts.append(panel(height + 0.1, height + 0.1 + 0.7 * rail))
    lean, bend = np.tan(np.radians(rng.uniform(2.0, 16.0))), rng.choice([0.0, 1.0]) * rng.uniform(0.02, 0.06)
    for part in parts:
        hollow = bend * (1.0 - (part[..., 1] / half[1]) ** 2)
        part[..., 0] += flat - half[0] - (part[..., 2] - height) * lean - hollow
    return parts


def _tube(centres, radii, axis, power=2.0):
    """Sections `[k, 20, 3]` across an axis: super-ellipses |u|^power + |v|^power = 1; 2 is round, 10 nearly square."""
    round_ = np.stack([np.cos(RING), np.sin(RING)], axis=1)
    ring = round_ / (np.abs(round_) ** power).sum(axis=1, keepdims=True) ** (1.0 / power)
    centres = np.asarray(centres, np.float64)
    sections = np.repeat(centres[:, None], len(ring), axis=1)
    across = [d for d in range(3) if d != axis]
    sections[..., across] += np.broadcast_to(radii, [len(centres), 2])[:, None] * ring
    return sections


def _aerofoils(leading, chords, thickness, axis):
    """Sections whose chords point backwards from the leading edges, thick along an axis."""
    bulge = 0.2969 * np.sqrt(CHORD) - 0.126 * CHORD - 0.3516 * CHORD**2 + 0.2843 * CHORD**3 - 0.1036 * CHORD**4
    along, off = np.concatenate([[CHORD, 5.0 * bulge], [CHORD[-2:0:-1], -5.0 * bulge[-2:0:-1]]], axis=1)
    chords = np.asarray(chords)[:, None]
    sections = np.repeat(np.asarray(leading)[:, None], len(along), axis=1)
    sections[..., 0] -= chords * along
    sections[..., axis] += thickness * chords * off
    return sections


def _at(z):
    z = np.asarray(z, np.float64)
    return np.stack([0 * z, 0 * z, z], axis=1)


def _both(parts):
    """Parts, and what a mirror at y = 0 makes of them."""
    return [*parts, *(part * [1.0, -1.0, 1.0] for part in parts)]


def _mesh(lofts):
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
