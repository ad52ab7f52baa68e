"""Aeroplanes and chairs that are drawn at random: point clouds without end, for trying things out.

Each is a list of lofts, whose rings are the cross-sections of a leg, a wing, ...
"""

from __future__ import annotations

import numpy as np

from tfflows.datasets.lofts import aerofoils, both, mesh, tube, upright
from tfflows.datasets.surfaces import check, normalized, surface_points, whole

KINDS = ("airliner", "jet", "light", "fighter", "glider")
CHANCES = (0.4, 0.2, 0.2, 0.15, 0.05)
HIGH_WING, T_TAIL = (0.15, 0.0, 0.6, 0.0, 0.0), (0.1, 0.85, 0.0, 0.0, 1.0)  # chances
# Ranges for each kind: in lengths of the fuselage, angles in degrees.
RANGES = {
    "radius": ((0.05, 0.066), (0.055, 0.068), (0.06, 0.08), (0.045, 0.06), (0.04, 0.05)),
    "nose": ((0.12, 0.18), (0.12, 0.18), (0.12, 0.18), (0.28, 0.36), (0.12, 0.18)),
    "span": ((0.85, 1.1), (0.8, 1.0), (1.15, 1.45), (0.55, 0.75), (1.8, 2.2)),
    "chord": ((0.17, 0.23), (0.17, 0.22), (0.17, 0.22), (0.36, 0.48), (0.1, 0.13)),  # at the wing's root
    "taper": ((0.2, 0.35), (0.25, 0.45), (0.6, 1.0), (0.12, 0.3), (0.4, 0.6)),  # the tip's part of it
    "sweep": ((25, 36), (16, 30), (0, 5), (40, 54), (0, 4)),  # of the leading edge
    "dihedral": ((3, 7), (2, 6), (0, 5), (-3, 2), (2, 5)),
    "place": ((0.32, 0.38), (0.4, 0.47), (0.22, 0.28), (0.36, 0.42), (0.3, 0.35)),  # of the wing behind the nose
    "lean": ((30, 48), (30, 48), (10, 30), (30, 48), (10, 30)),  # of the fin
}


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
    n = whole("n", n)
    check(n >= 2, "n >= 2", n)
    n_chairs = n // 2
    clouds = np.concatenate([planes(n - n_chairs, n_points, rng), chairs(n_chairs, n_points, rng)])
    order = rng.permutation(n)
    return clouds[order], (order >= n - n_chairs).astype(np.int64)


def _clouds(make, n, n_points, seed):
    rng = np.random.default_rng(seed)
    return np.stack([normalized(surface_points(*mesh(make(rng)), n_points, rng)) for _ in range(whole("n", n))])


def _plane(rng):
    """Lofts of an aeroplane whose fuselage has length 1 and its middle at the origin."""
    kind = rng.choice(len(KINDS), p=CHANCES)
    name, is_fighter = KINDS[kind], KINDS[kind] == "fighter"
    radius, nose, span, chord, taper, sweep, dihedral, place, lean = (rng.uniform(*r[kind]) for r in RANGES.values())
    sweep, dihedral, lean = np.tan(np.radians([sweep, dihedral, lean]))  # slopes
    t_tail = rng.random() < T_TAIL[kind]
    parts = [_fuselage(radius, nose, rng.uniform(0.3, 0.42), 0.1 if is_fighter else rng.uniform(0.3, 0.6), rng)]

    height = 0.0 if is_fighter else 0.75 if rng.random() < HIGH_WING[kind] else -0.45
    root = np.array([0.5 - place, 0.0, height * radius])
    parts.append(_wing(root, 0.5 * span, chord, taper, sweep, dihedral, 0.12))
    parts += _tail(radius, sweep, lean, t_tail, is_fighter, rng)

    size = rng.uniform(0.024, 0.032)
    if name == "jet" or (name == "airliner" and t_tail):
        parts += both([_engine([-0.19, radius + 0.9 * size, 0.5 * radius], size, 0.16)])
    elif name == "airliner":
        for part in [0.34] if rng.random() < 0.7 else [0.3, 0.58]:
            at = root + 0.5 * span * part * np.array([-sweep, 1.0, dihedral])
            parts += both([_engine(np.add(at, [0.06, 0.0, -1.15 * size]), size, 0.14), _pylon(at, size)])
    else:
        parts.append(_canopy(0.5 - nose, radius))
    if name == "light":
        parts += _propeller(rng.uniform(0.1, 0.13), rng.uniform(0.0, np.pi))
    return parts


def _tail(radius, sweep, lean, t_tail, is_fighter, rng):
    """A fin, or two of a fighter, and stabilisers beside it or on top."""
    height, chord = rng.uniform(0.13, 0.19), rng.uniform(0.14, 0.19)
    x, z = -0.5 + chord + rng.uniform(0.0, 0.03), 0.3 * radius
    twin = is_fighter and rng.random() < 0.5
    parts = [_fin([x, y * radius, z], height + z, chord, 0.45, lean) for y in ([-0.9, 0.9] if twin else [0.0])]
    stabiliser = rng.uniform(0.1, 0.13)
    low = [-0.47 + stabiliser, 0.0, 0.0 if is_fighter else 0.35 * radius]
    top = [x - height * lean - 0.05 * chord, 0.0, 0.95 * height + z]
    slopes = (0.7 if is_fighter else 0.9) * sweep, 0.0 if t_tail else 0.05
    return [*parts, _wing(top if t_tail else low, rng.uniform(0.15, 0.21), stabiliser, 0.5, *slopes, 0.1)]


def _fuselage(radius, nose, tail, upsweep, rng):
    along = np.concatenate([nose * (1.0 - np.cos(np.linspace(0.02, 0.5 * np.pi, 9))), np.linspace(1.0 - tail, 1.0, 9)])
    behind = np.maximum(along - (1.0 - tail), 0.0) / tail
    width = np.where(along < nose, 1.0 - (1.0 - along / nose) ** 2, 1.0 - 0.85 * behind**1.7)
    width = np.where(along < nose, np.sqrt(width), width)
    z = radius * upsweep * behind**1.7
    centres = np.stack([0.5 - along, 0.0 * along, z], axis=1)
    return tube(centres, radius * width[:, None] * [1.0, rng.uniform(1.0, 1.15)], 0)


def _wing(root, half_span, chord, taper, sweep, dihedral, thickness):
    """Both wings as one loft from tip to tip; sweep and dihedral are slopes."""
    part = np.array([-1.0, -0.985, -0.9, -0.5, 0.0, 0.5, 0.9, 0.985, 1.0])
    out = np.abs(part)
    chords = chord * (1.0 - (1.0 - taper) * out) * np.where(out == 1.0, 0.6, 1.0)
    leading = root + half_span * np.stack([-sweep * out, part, dihedral * out], axis=1)
    return aerofoils(leading, chords, thickness, 2)


def _fin(root, height, chord, taper, sweep):
    part = np.array([0.0, 0.5, 0.97, 1.0])
    chords = chord * (1.0 - (1.0 - taper) * part) * np.where(part == 1.0, 0.8, 1.0)
    return aerofoils(np.add(root, height * np.stack([-sweep * part, 0 * part, part], axis=1)), chords, 0.1, 1)


def _engine(front, radius, length):
    along = np.linspace(0.0, 1.0, 7)
    radii = radius * np.array([0.85, 0.98, 1.0, 0.98, 0.9, 0.75, 0.5])
    return tube(np.add(front, np.stack([-length * along, 0 * along, 0 * along], axis=1)), radii[:, None], 0)


def _canopy(x, radius):
    along = np.linspace(-1.0, 1.0, 9)
    bulge = np.sqrt(1.0 - along**2) + 0.02
    centres = np.stack([x - 0.06 - 0.12 * along, 0 * along, 0.7 * radius + 0 * along], axis=1)
    return tube(centres, 0.6 * radius * bulge[:, None], 0)


def _pylon(leading, size):
    """Between the wing's leading edge and the engine below."""
    ends = np.add(leading, [[0.03, 0.0, -0.5 * size], [-0.01, 0.0, 0.1 * size]])
    return aerofoils(ends, [0.08, 0.08], 0.1, 1)


def _propeller(length, angle):
    """Two blades and a spinner at the nose."""
    across = np.array([0.0, np.cos(angle), np.sin(angle)])
    along = np.array([-1.0, -0.6, 0.0, 0.6, 1.0])[:, None]
    blades = tube([0.505, 0.0, 0.0] + length * along * across, [0.006, 0.012], 1)
    # The ring of a tube lies across an axis; that of the blades is turned into their own frame.
    centres = blades.mean(axis=1, keepdims=True)
    shape = blades - centres
    turned = centres + shape[..., :1] * [1.0, 0.0, 0.0] + shape[..., 2:] * [0.0, -across[2], across[1]]
    x = np.linspace(0.535, 0.49, 6)
    spinner = np.sqrt(1.0 - np.linspace(0.98, 0.0, 6) ** 2)
    return [turned, tube(np.stack([x, 0 * x, 0 * x], axis=1), 0.02 * spinner[:, None], 0)]


def _chair(rng):
    """Lofts of a chair whose seat is about 0.45 wide and as high above the floor, z = 0."""
    width, depth, height = rng.uniform(0.4, 0.54), rng.uniform(0.38, 0.5), rng.uniform(0.4, 0.5)
    thick, power = rng.uniform(0.025, 0.08), rng.choice([2.6, 4.0, 10.0])
    half = 0.5 * np.array([depth, width])
    z = height + thick * np.array([-1.0, -0.8, -0.2, 0.0])
    parts = [tube(upright(z), half * np.array([[0.95], [1.0], [1.0], [0.95]]), 2, power)]

    pedestal = rng.random() < 0.25
    under = height - thick
    parts += _pedestal(under, rng) if pedestal else _legs(half, under, power, rng)
    parts += _back(half, height, thick, rng)
    if rng.random() < 0.4:
        arm, bar = height + rng.uniform(0.18, 0.26), rng.uniform(0.012, 0.024)
        y = half[1] + bar
        front = half[0] * rng.uniform(0.4, 0.9)
        rest = tube(np.array([[-half[0] - 0.02, y, arm], [front + 0.03, y, arm]]), [1.5 * bar, 0.8 * bar], 0, 4.0)
        post = tube(np.array([[front, y, arm], [front, y, height - thick]]), [bar, bar], 2, 4.0)
        parts += both([rest, post])
    return parts


def _legs(half, top, power, rng):
    bar, foot, splay = rng.uniform(0.014, 0.03), rng.uniform(0.5, 1.0), rng.choice([0.0, 1.0]) * rng.uniform(0.0, 0.07)
    section = rng.choice([2.0, 10.0])
    inset = (0.72 if power < 3.0 else 0.95) * half - bar
    feet = inset + splay
    parts = []
    for x in (-1.0, 1.0):
        leg = np.array([[x * inset[0], inset[1], top], [x * feet[0], feet[1], 0.0]])
        parts += both([tube(leg, bar * np.array([[1.0], [foot]]), 2, section)])
    if rng.random() < 0.35:
        rise = rng.uniform(0.25, 0.5)
        at = feet + rise * (inset - feet)
        thin = 0.6 * bar
        parts += both([tube(np.array([[-at[0], at[1], rise * top], [at[0], at[1], rise * top]]), [thin, thin], 0)])
        x = rng.choice([0.0, -1.0, 1.0]) * at[0]
        parts.append(tube(np.array([[x, -at[1], rise * top], [x, at[1], rise * top]]), [thin, thin], 1))
    return parts


def _pedestal(top, rng):
    column, reach = rng.uniform(0.022, 0.04), rng.uniform(0.22, 0.29)
    if rng.random() < 0.4:
        radii = np.array([[reach], [reach], [0.9 * reach], [2.0 * column]])
        return [tube(upright([0.0, 0.015, 0.025, 0.05]), radii, 2), tube(upright([0.05, top]), [column, column], 2)]
    parts = [tube(upright([0.06, top]), [column, column], 2)]
    for angle in 2.0 * np.pi * (np.arange(5) + 0.5) / 5:
        spoke = tube(np.array([[0.0, 0.0, 0.085], [reach, 0.0, 0.045]]), np.array([[0.022], [0.015]]), 0, 4.0)
        wheel = tube(np.array([[reach, -0.012, 0.028], [reach, 0.012, 0.028]]), [0.028, 0.028], 1)
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
        return tube(centres, np.stack([flat + 0 * ends, reach + 0 * ends], axis=1), 1, 8.0)

    def post(y, size, end=top):
        z = np.linspace(bottom, end, 5)
        return tube(np.stack([0 * z, y + 0 * z, z], axis=1), [size, size], 2, 4.0)

    kind = rng.choice(["solid", "panel", "bars", "rungs", "frame"], p=[0.25, 0.2, 0.25, 0.2, 0.1])
    if kind == "solid":
        parts = [panel(bottom, top, crest)]
    else:
        parts = [post(-wide, bar), post(wide, bar)]
        rail = rng.uniform(0.04, 0.09)
        if kind == "panel":
            parts.append(panel(top - tall * rng.uniform(0.4, 0.75), top, crest))
        else:
            parts.append(panel(top - rail, top, crest))
        if kind == "bars":
            n = rng.integers(2, 7)
            size = rng.uniform(0.008, 0.014)
            parts += [post(y, size, top - 0.5 * rail) for y in wide * np.linspace(-1, 1, n + 2)[1:-1]]
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
