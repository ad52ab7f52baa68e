"""How far apart clouds are, and sets of clouds (the extra `tfflows[clouds]`).

Sets are compared by distances between their clouds alone:

    scores = evaluate(generated, reference)
    scores.nearest_neighbour_accuracy  # 0.5 is best

All scores move with the number of clouds, of points, and with the scale of the coordinates: compare only what was
computed alike, and beside the scores of real clouds held out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

Clouds = np.ndarray | Sequence[np.ndarray]
Distance = Callable[[np.ndarray, np.ndarray], float]

BLOCK = 64  # clouds looked up at once; of 8192 points they take 20 MB
ITERATIONS = 10_000_000  # of the network simplex; POT's own bound stops it at some thousand points


class Scores(NamedTuple):
    """How generated clouds compare with real ones: see the functions of these names.

    Args:
      nearest_neighbour_accuracy: 0 to 1; 0.5 is best.
      coverage: 0 to 1; large is good.
      minimum_matching_distance: >= 0, in units of the distance; small is good.
    """

    nearest_neighbour_accuracy: float
    coverage: float
    minimum_matching_distance: float


def chamfer(x, y) -> float:
    """Chamfer distance: mean squared distance to the nearest point, there and back.

    d(x, y) = mean_i min_j |x_i - y_j|^2 + mean_j min_i |x_i - y_j|^2

    Args:
      x: a cloud `[P, D]`.
      y: another, `[Q, D]`.

    Returns:
      the distance, >= 0, in squared units of the coordinates.

    Raises:
      ValueError: for other shapes, NaN or inf.
      ImportError: without SciPy.

    Reference:
      Yang et al. (2019), PointFlow, https://arxiv.org/abs/1906.12320, whose CD this is.
    """
    return float(pairwise([x], [y])[0, 0])


def earth_movers(x, y) -> float:
    """Earth mover's distance: mean Euclidean way when the mass of x is carried to y at least cost.

    d(x, y) = min_T sum_ij T_ij |x_i - y_j|  over T >= 0 whose rows sum to 1 / P and columns to 1 / Q

    It is exact, by the network simplex; for P = Q it is the best one-to-one assignment. Time grows somewhat faster
    than P Q: 30 ms for 512 points each, 0.5 s for 2048.

    Args:
      x: a cloud `[P, D]`.
      y: another, `[Q, D]`.

    Returns:
      the distance, >= 0, in units of the coordinates.

    Raises:
      ValueError: for other shapes, NaN or inf.
      ImportError: without POT.

    Reference:
      Yang et al. (2019), PointFlow, https://arxiv.org/abs/1906.12320, whose EMD approximates this.
    """
    try:
        import ot
        from scipy.spatial.distance import cdist
    except ImportError as error:
        raise ImportError("Expected POT for the earth mover's distance: pip install 'tfflows[clouds]'") from error
    (x,), (y,) = _pair([x], [y])
    a, b = (np.full(len(cloud), 1.0 / len(cloud)) for cloud in (x, y))
    return float(ot.emd2(a, b, cdist(x, y), numItermax=ITERATIONS))


def pairwise(clouds_a: Clouds, clouds_b: Clouds | None = None, distance: Distance = chamfer) -> np.ndarray:
    """Distances between all clouds of two sets, or of one.

    Chamfer distances are computed together, by trees, on all cores: 2 to 3 ms a pair of 2048 points on one.

    Args:
      clouds_a: `[n, P, D]`, or n clouds `[P_i, D]`.
      clouds_b: `[m, Q, D]`, or m clouds `[Q_j, D]`; None means clouds_a, for half of the work.
      distance: a function of two clouds, symmetric, and 0 between a cloud and itself.

    Returns:
      float64 `[n, m]`.

    Raises:
      ValueError: for other shapes, empty sets or clouds, NaN or inf.
      ImportError: without SciPy for `chamfer`.
    """
    if not callable(distance):
        raise ValueError(f"Expected a function of two clouds as distance; got {distance!r}.")
    if clouds_b is None:
        a = b = _pair(clouds_a, clouds_a)[0]
    else:
        a, b = _pair(clouds_a, clouds_b)
    if distance is chamfer:
        there = _to_nearest(a, b)
        return there + (there if b is a else _to_nearest(b, a)).T
    result = np.zeros([len(a), len(b)])
    for i, x in enumerate(a):
        for j in range(i + 1 if b is a else 0, len(b)):
            result[i, j] = distance(x, b[j])
    return result + result.T if b is a else result


def nearest_neighbour_accuracy(generated: Clouds, reference: Clouds, distance: Distance = chamfer) -> float:
    """Leave-one-out accuracy of a nearest neighbour that tells generated from real clouds (1-NNA).

    Each cloud is guessed to be of the set where its nearest other cloud is; a tie counts half. 0.5 is best: the sets
    cannot be told apart. Near 1 they are well apart. Below 0.5 the generated are too close to single real clouds, and
    0 are copies. It is the mean of the two sets' accuracies, so 0.5 is best for sets of unequal size too.

    Args:
      generated: `[n, P, D]`, or n clouds `[P_i, D]`; n >= 2.
      reference: real clouds `[m, Q, D]`, or m clouds `[Q_j, D]`; m >= 2.
      distance: a function of two clouds, symmetric.

    Returns:
      the accuracy, 0 to 1.

    Raises:
      ValueError: for other shapes, one cloud alone in a set, NaN or inf.

    Reference:
      Lopez-Paz & Oquab (2017), Revisiting classifier two-sample tests, https://arxiv.org/abs/1610.06545;
      Yang et al. (2019), PointFlow, https://arxiv.org/abs/1906.12320
    """
    return evaluate(generated, reference, distance).nearest_neighbour_accuracy


def coverage(generated: Clouds, reference: Clouds, distance: Distance = chamfer) -> float:
    """Part of the real clouds that are the nearest one of some generated cloud.

    Large is good; a generator that makes one shape over and over covers few. Draws from the same distribution
    as the real ones, as many, cover about a half. Coverage does not see bad clouds among good ones.

    Args:
      generated: `[n, P, D]`, or n clouds `[P_i, D]`.
      reference: real clouds `[m, Q, D]`, or m clouds `[Q_j, D]`.
      distance: a function of two clouds.

    Returns:
      the part, 0 to min(n / m, 1).

    Raises:
      ValueError: for other shapes, empty sets, NaN or inf.

    Reference:
      Achlioptas et al. (2018), Learning representations and generative models for 3D point clouds,
      https://arxiv.org/abs/1707.02392
    """
    return _coverage(pairwise(generated, reference, distance))


def minimum_matching_distance(generated: Clouds, reference: Clouds, distance: Distance = chamfer) -> float:
    """Mean over the real clouds of the distance to the nearest generated one (MMD).

    Small is good. It does not see bad clouds among good ones.

    Args:
      generated: `[n, P, D]`, or n clouds `[P_i, D]`.
      reference: real clouds `[m, Q, D]`, or m clouds `[Q_j, D]`.
      distance: a function of two clouds.

    Returns:
      the mean, >= 0, in units of `distance`.

    Raises:
      ValueError: for other shapes, empty sets, NaN or inf.

    Reference:
      Achlioptas et al. (2018), Learning representations and generative models for 3D point clouds,
      https://arxiv.org/abs/1707.02392
    """
    return _matching(pairwise(generated, reference, distance))


def evaluate(generated: Clouds, reference: Clouds, distance: Distance = chamfer) -> Scores:
    """All scores of generated clouds, from one computation of the distances.

    Args:
      generated: `[n, P, D]`, or n clouds `[P_i, D]`; n >= 2.
      reference: real clouds `[m, Q, D]`, or m clouds `[Q_j, D]`; m >= 2.
      distance: a function of two clouds, symmetric: `chamfer`, `earth_movers`, or another.

    Returns:
      `Scores`: accuracy and coverage, 0 to 1; the matching distance, in units of `distance`.

    Raises:
      ValueError: for other shapes, one cloud alone in a set, NaN or inf.
    """
    generated, reference = _pair(generated, reference)
    if min(len(generated), len(reference)) < 2:
        raise ValueError(f"Expected 2 clouds or more in each set; got {len(generated)} and {len(reference)}.")
    across = pairwise(generated, reference, distance)
    within = [pairwise(clouds, distance=distance) for clouds in (generated, reference)]
    return Scores(_accuracy(*within, across), _coverage(across), _matching(across))


def _accuracy(within_generated, within_reference, across):
    parts = []
    for within, others in ((within_generated, across), (within_reference, across.T)):
        own = np.min(within + np.diag(np.full(len(within), np.inf)), axis=1)
        other = np.min(others, axis=1)
        parts.append(np.mean((own < other) + 0.5 * (own == other)))
    return float(np.mean(parts))


def _coverage(across):
    return len(set(np.argmin(across, axis=1).tolist())) / across.shape[1]


def _matching(across):
    return float(np.mean(np.min(across, axis=0)))


def _to_nearest(a, b):
    """Mean squared distance from the points of each cloud of a to the nearest ones of each of b, `[n, m]`."""
    try:
        from scipy.spatial import cKDTree
    except ImportError as error:
        raise ImportError("Expected SciPy for the Chamfer distance: pip install 'tfflows[clouds]'") from error
    # Points that are looked up in the order of a tree are near the one before: a tenth faster.
    trees_a, trees_b = ([cKDTree(x, leafsize=32, compact_nodes=False, balanced_tree=False) for x in s] for s in (a, b))
    a = [x[tree.indices] for x, tree in zip(a, trees_a, strict=True)]
    result = np.empty([len(a), len(b)])
    for start in range(0, len(a), BLOCK):
        block = a[start : start + BLOCK]
        sizes = np.array([len(x) for x in block])
        points = np.concatenate(block)
        for j, tree in enumerate(trees_b):
            squares = tree.query(points, workers=-1)[0] ** 2
            result[start : start + BLOCK, j] = np.add.reduceat(squares, np.cumsum(sizes) - sizes) / sizes
    return result


def _pair(a, b):
    """Two sets as lists of float64 clouds `[P_i, D]`."""
    sets = [_checked(clouds) for clouds in (a, b)]
    widths = sorted({x.shape[1] for clouds in sets for x in clouds})
    if len(widths) > 1:
        raise ValueError(f"Expected clouds with one number of coordinates; got {widths}.")
    return sets


def _checked(clouds):
    clouds = [np.asarray(x, np.float64) for x in clouds]
    if not clouds:
        raise ValueError("Expected one cloud or more; got none.")
    for x in clouds:
        if x.ndim != 2 or 0 in x.shape:
            raise ValueError(f"Expected clouds [n, P, D], or a list of clouds [P, D]; got one of shape {x.shape}.")
        if not np.all(np.isfinite(x)):
            raise ValueError("Expected finite points; got NaN or inf.")
    return clouds
