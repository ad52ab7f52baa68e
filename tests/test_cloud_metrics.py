"""Distances between clouds, and scores of sets of clouds, where the answer is known."""

import sys

import numpy as np
import pytest
import scipy.optimize
from scipy.spatial.distance import cdist

from tfflows import clouds

distances = pytest.mark.parametrize("distance", [clouds.chamfer, clouds.earth_movers])


def blobs(rng, n, centre=0.0, n_points=24):
    """Clouds whose centres and widths vary."""
    width = rng.uniform(0.5, 2.0, [n, 1, 3])
    return centre + rng.normal(size=[n, 1, 3]) + width * rng.normal(size=[n, n_points, 3])


@distances
def test_distance_of_a_cloud_to_itself_and_to_others(rng, distance):
    x, y = rng.normal(size=[40, 3]), rng.normal(size=[30, 3])
    assert distance(x, x) == 0.0
    assert distance(x, x[rng.permutation(40)]) == pytest.approx(0.0, abs=1e-12)
    assert distance(x, y) == pytest.approx(distance(y, x), rel=1e-12)
    assert distance(x[rng.permutation(40)], y) == pytest.approx(distance(x, y), rel=1e-12)
    assert distance(x.astype(np.float32), y.tolist()) == pytest.approx(distance(x, y), rel=1e-5)


def test_distances_of_translated_clouds(rng):
    x = rng.normal(size=[50, 3])
    assert clouds.earth_movers(x, x + np.array([3.0, 4.0, 0.0])) == pytest.approx(5.0)
    assert clouds.chamfer(x, x + np.array([1e-4, 0.0, 0.0])) == pytest.approx(2e-8)
    assert clouds.chamfer([[0.0, 0.0]], [[3.0, 4.0]]) == 50.0


def test_distances_of_two_points():
    x, y = [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]], [[1.0, 0.0, 0.0], [4.0, 0.0, 0.0]]
    assert clouds.earth_movers(x, y) == pytest.approx(2.0)  # 0 to 1, 1 to 4, or crossed: the same
    assert clouds.chamfer(x, y) == pytest.approx(0.5 * (1.0 + 0.0) + 0.5 * (0.0 + 9.0))
    # Half of the mass of one point goes to each of two.
    assert clouds.earth_movers([[0.0]], [[1.0], [3.0]]) == pytest.approx(2.0)
    assert clouds.chamfer([[0.0]], [[1.0], [3.0]]) == pytest.approx(1.0 + 5.0)


def test_distances_against_independent_oracles(rng):
    x, y = rng.normal(size=[70, 3]), rng.normal(size=[70, 3]) + 1.0
    d = cdist(x, y)
    row, column = scipy.optimize.linear_sum_assignment(d)
    assert clouds.earth_movers(x, y) == pytest.approx(d[row, column].mean())
    assert clouds.chamfer(x, y[:45]) == pytest.approx((d[:, :45].min(1) ** 2).mean() + (d[:, :45].min(0) ** 2).mean())


def test_pairwise_is_the_distance_of_each_pair(rng):
    a = [rng.normal(size=[n, 3]) for n in rng.integers(1, 20, size=70)]  # more than a block
    b = blobs(rng, 3)
    expected = [[clouds.chamfer(x, y) for y in b] for x in a]
    np.testing.assert_allclose(clouds.pairwise(a, b), expected, rtol=1e-12)
    for distance in (clouds.chamfer, clouds.earth_movers, lambda x, y: np.abs(x - y).sum()):
        own = clouds.pairwise(b, distance=distance)
        np.testing.assert_allclose(own, clouds.pairwise(b, b, distance), rtol=1e-12, atol=1e-12)
        np.testing.assert_array_equal(own, own.T)


def test_scores_by_hand():
    # Clouds of one point on a line; Chamfer is twice the squared distance.
    reference = np.array([0.0, 10.0, 20.0]).reshape(3, 1, 1)
    generated = np.array([1.0, 2.0, 9.0, 14.0]).reshape(4, 1, 1)
    scores = clouds.evaluate(generated, reference)
    assert scores.coverage == pytest.approx(2 / 3)  # 0 by 1 and 2; 10 by 9 and 14; 20 by none
    assert scores.minimum_matching_distance == pytest.approx((2.0 + 2.0 + 72.0) / 3)
    # Nearest others: 1 -> 0 or 2 (a tie), 2 -> 1, 9 -> 10, 14 -> 10; 0 -> 1, 10 -> 9, 20 -> 14.
    assert scores.nearest_neighbour_accuracy == pytest.approx(0.5 * (1.5 / 4 + 0.0 / 3))
    assert scores == (
        clouds.nearest_neighbour_accuracy(generated, reference),
        clouds.coverage(generated, reference),
        clouds.minimum_matching_distance(generated, reference),
    )
    assert clouds.minimum_matching_distance(generated[:1], reference, clouds.earth_movers) == pytest.approx(29 / 3)


@distances
def test_sets_far_apart_halves_and_copies(rng, distance):
    n = 60 if distance is clouds.chamfer else 20
    reference = blobs(rng, n)
    far = clouds.evaluate(blobs(rng, n, centre=100.0), reference, distance)
    assert far.nearest_neighbour_accuracy == 1.0
    half = clouds.evaluate(blobs(rng, n), reference, distance)
    assert 0.25 < half.nearest_neighbour_accuracy < 0.75
    assert half.coverage > 0.4
    copies = clouds.evaluate(reference[::-1], reference, distance)
    assert copies.nearest_neighbour_accuracy == 0.0
    assert copies.coverage == 1.0
    assert copies.minimum_matching_distance == pytest.approx(0.0, abs=1e-12)
    assert half.minimum_matching_distance < far.minimum_matching_distance


def test_unequal_halves_of_one_distribution_still_give_a_half(rng):
    accuracy = clouds.nearest_neighbour_accuracy(blobs(rng, 30), blobs(rng, 240))
    assert 0.3 < accuracy < 0.7


def test_one_shape_over_and_over_covers_little(rng):
    reference = blobs(rng, 50)
    same = np.repeat(blobs(rng, 1), 50, axis=0)
    scores = clouds.evaluate(same, reference)
    assert scores.coverage == 1 / 50
    assert scores.nearest_neighbour_accuracy > 0.8
    # Where every cloud is the same in both sets, all are ties.
    assert clouds.nearest_neighbour_accuracy(same, same) == 0.5


@pytest.mark.parametrize(
    ("generated", "reference", "text"),
    [
        (np.zeros([0, 5, 3]), np.zeros([2, 5, 3]), "Expected one cloud or more; got none."),
        ([], np.zeros([2, 5, 3]), "Expected one cloud or more; got none."),
        (np.zeros([5, 3]), np.zeros([2, 5, 3]), r"Expected clouds \[n, P, D\], or .*; got one of shape \(3,\)."),
        (np.zeros([2, 0, 3]), np.zeros([2, 5, 3]), r"got one of shape \(0, 3\)."),
        (np.zeros([2, 5, 3]), np.full([2, 5, 3], np.nan), "Expected finite points; got NaN or inf."),
        (np.full([2, 5, 3], np.inf), np.zeros([2, 5, 3]), "Expected finite points; got NaN or inf."),
        (np.zeros([2, 5, 2]), np.zeros([2, 5, 3]), r"Expected clouds with one number of coordinates; got \[2, 3\]."),
        ([np.zeros([5, 3]), np.zeros([5, 4])], np.zeros([2, 5, 3]), r"one number of coordinates; got \[3, 4\]."),
    ],
)
def test_bad_sets(generated, reference, text):
    for score in (clouds.evaluate, clouds.coverage, clouds.minimum_matching_distance, clouds.pairwise):
        with pytest.raises(ValueError, match=text):
            score(generated, reference)


def test_a_distance_is_a_function():
    with pytest.raises(ValueError, match="a function of two clouds as distance; got 3"):
        clouds.pairwise(np.zeros([2, 5, 3]), distance=3)


def test_one_cloud_alone_has_no_other_to_be_near(rng):
    one, many = blobs(rng, 1), blobs(rng, 4)
    for sets in ((one, many), (many, one)):
        with pytest.raises(ValueError, match="Expected 2 clouds or more in each set; got"):
            clouds.nearest_neighbour_accuracy(*sets)
        assert clouds.coverage(*sets) > 0.0


def test_what_is_missing_is_named(monkeypatch):
    x = np.zeros([2, 3])
    monkeypatch.setitem(sys.modules, "ot", None)
    with pytest.raises(ImportError, match=r"Expected POT .*: pip install 'tfflows\[clouds\]'"):
        clouds.earth_movers(x, x)
    monkeypatch.setitem(sys.modules, "scipy.spatial", None)
    with pytest.raises(ImportError, match=r"Expected SciPy .*: pip install 'tfflows\[clouds\]'"):
        clouds.chamfer(x, x)
