"""The toys' densities against their samples and independent oracles; the packaged data; point clouds."""

import dataclasses
import itertools
import sys
import tracemalloc

import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats
import sklearn.datasets
import trimesh

from tfflows import datasets

N = 20_000

# Toy, then the box that holds all of its mass but 1e-7 and the grid step that resolves it.
TOYS = {
    "gaussian": (datasets.Gaussian1D(), [-6.0], [6.0], 0.01),
    "gaussian_moved": (datasets.Gaussian1D(-3.0, 0.2), [-5.0], [-1.0], 0.01),
    "four_modes": (datasets.FourModes1D(), [-12.0], [12.0], 0.01),
    "four_modes_unnormalised": (datasets.FourModes1D((1, 2, 3, 4), (0, 1, 2, 3), (1, 1, 2, 0.5)), [-12], [16], 0.02),
    "two_moons": (datasets.TwoMoons(), [-1.6, -1.2], [2.6, 1.6], 0.02),
    "two_moons_sharp": (datasets.TwoMoons(0.02), [-1.2, -0.7], [2.2, 1.2], 0.01),
    "two_moons_wide": (datasets.TwoMoons(1.0), [-6.5, -6.5], [7.5, 7.0], 0.1),
    "rings": (datasets.Rings(), [-3.6, -3.6], [3.6, 3.6], 0.03),
    "rings_wide": (datasets.Rings((0.5, 2.0), 0.7), [-6.0, -6.0], [6.0, 6.0], 0.1),
    "checkerboard": (datasets.Checkerboard(), [-4.0, -4.0], [4.0, 4.0], 0.1),
    "checkerboard_small": (datasets.Checkerboard(6, 0.3), [-0.3, -0.3], [0.3, 0.3], 0.005),
    "pinwheel": (datasets.Pinwheel(), [-2.8, -2.8], [2.8, 2.8], 0.02),
    "pinwheel_three": (datasets.Pinwheel(3, 0.2, 0.3, -0.5), [-2.6, -2.6], [2.6, 2.6], 0.02),
}
toys = pytest.mark.parametrize("name", TOYS)


def grid(name):
    """The midpoints of the toy's box, [n, n_dim], and the edges along each axis."""
    _, low, high, step = TOYS[name]
    edges = [np.linspace(a, b, round((b - a) / step) + 1) for a, b in zip(low, high, strict=True)]
    axes = np.meshgrid(*[0.5 * (e[1:] + e[:-1]) for e in edges], indexing="ij")
    return np.stack([a.ravel() for a in axes], axis=1), edges


@toys
def test_density_agrees_with_draws(name):
    toy, _, _, step = TOYS[name]
    x, edges = grid(name)
    log_p = toy.log_prob(x)
    mass = np.exp(log_p) * step**toy.n_dim
    np.testing.assert_allclose(mass.sum(), 1.0, atol=2e-6)

    draws = toy.sample(N, seed=0)
    negative_log_p = -toy.log_prob(draws)
    error = negative_log_p.std() / np.sqrt(N)
    entropy = scipy.special.entr(np.exp(log_p)).sum() * step**toy.n_dim
    np.testing.assert_allclose(negative_log_p.mean(), entropy, atol=4.0 * error + 1e-5)

    # Where the draws are: cells of the grid, joined to blocks.
    n_joined = 40 if toy.n_dim == 1 else 10
    counts = np.histogramdd(draws, edges)[0]
    blocks = tuple(np.arange(len(e) - 1) // n_joined for e in edges)
    joined = [np.zeros([b[-1] + 1 for b in blocks]) for _ in range(2)]
    for total, values in zip(joined, (counts, N * mass.reshape(counts.shape)), strict=True):
        np.add.at(total, np.ix_(*blocks), values)
    counts, expected = joined
    is_filled = expected > 10.0
    statistic = ((counts - expected)[is_filled] ** 2 / expected[is_filled]).sum()
    assert scipy.stats.chi2.sf(statistic, is_filled.sum()) > 1e-4
    assert counts[~is_filled].sum() <= expected[~is_filled].sum() + 5.0 * np.sqrt(expected[~is_filled].sum()) + 1.0


@toys
def test_shapes_types_seeds(name):
    toy = TOYS[name][0]
    x = toy.sample(50, seed=1)
    assert x.shape == (50, toy.n_dim)
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x, toy.sample(50, seed=1))
    assert not np.array_equal(x, toy.sample(50, seed=2))
    assert not np.array_equal(toy.sample(50), toy.sample(50))

    log_p = toy.log_prob(x)
    assert log_p.shape == (50,)
    assert log_p.dtype == np.float64
    assert toy.log_prob(x[:0]).shape == (0,)
    np.testing.assert_allclose(log_p[7], toy.log_prob(x[7:8])[0], rtol=1e-12)
    assert toy == dataclasses.replace(toy)
    with pytest.raises(dataclasses.FrozenInstanceError):
        toy.noise = 1.0


@toys
@pytest.mark.filterwarnings("error")
def test_far_away_and_at_the_centre(name):
    toy = TOYS[name][0]
    x = np.concatenate([np.outer([1e3, -1e3, 1e10, -1e10], np.ones(toy.n_dim)), np.zeros([1, toy.n_dim])])
    log_p = toy.log_prob(x)
    if isinstance(toy, datasets.Checkerboard):
        assert (log_p[:4] == -np.inf).all()
    else:
        assert np.isfinite(log_p).all()
        assert (log_p[:2] < -1e4).all()


@pytest.mark.parametrize("name", ["two_moons", "rings"])
def test_memory_is_bounded(name):
    toy = TOYS[name][0]
    x = toy.sample(100_000, seed=0)
    whole = np.concatenate([toy.log_prob(part) for part in np.array_split(x[:10_000], 3)])
    tracemalloc.start()
    log_p = toy.log_prob(x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6
    np.testing.assert_allclose(log_p[:10_000], whole, rtol=1e-12)


@toys
def test_bad_draws_and_rows(name):
    toy = TOYS[name][0]
    for n in (0, -1, 2.5, True, "3", np.nan):
        with pytest.raises(ValueError, match=r"Expected a number of draws n >= 1; got"):
            toy.sample(n)
    for shape in ([3], [3, toy.n_dim + 1], [3, toy.n_dim, 1], []):
        with pytest.raises(ValueError, match=rf"Expected x of shape \[n, {toy.n_dim}\]; got \["):
            toy.log_prob(np.zeros(shape))
    for value in (np.nan, np.inf):
        with pytest.raises(ValueError, match="Expected finite x; got NaN or inf"):
            toy.log_prob(np.full([3, toy.n_dim], value))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: datasets.Gaussian1D(np.nan, 1.0), "Expected a finite mean; got nan."),
        (lambda: datasets.Gaussian1D(0.0, 0.0), "Expected std > 0; got 0.0."),
        (lambda: datasets.FourModes1D(weights=(1, 1, 1, 0)), r"Expected weights > 0; got \(1, 1, 1, 0\)."),
        (lambda: datasets.FourModes1D(weights=(1, 1, 1)), r"Expected four weights, .*; got \[3, 4, 4\]."),
        (lambda: datasets.FourModes1D(stds=(1, 1, 1, -1)), "Expected stds > 0; got"),
        (lambda: datasets.FourModes1D(means=(1, 1, 1, np.inf)), "Expected finite means; got"),
        (lambda: datasets.TwoMoons(0.0), "Expected noise > 0; got 0.0."),
        (lambda: datasets.TwoMoons(np.nan), "Expected noise > 0; got nan."),
        (lambda: datasets.Rings(noise=-1.0), "Expected noise > 0; got -1.0."),
        (lambda: datasets.Rings(radii=(1.0, 0.0)), "Expected radii > 0; got"),
        (lambda: datasets.Rings(radii=()), r"Expected a tuple of radii; got \(\)."),
        (lambda: datasets.Checkerboard(3), "Expected an even number of cells >= 2; got 3."),
        (lambda: datasets.Checkerboard(half_width=0.0), "Expected half_width > 0; got 0.0."),
        (lambda: datasets.Pinwheel(0), "Expected a number of arms >= 1; got 0."),
        (lambda: datasets.Pinwheel(radial_std=0.0), "Expected radial_std > 0; got 0.0."),
        (lambda: datasets.Pinwheel(tangential_std=-0.1), "Expected tangential_std > 0; got -0.1."),
        (lambda: datasets.Pinwheel(rate=np.inf), "Expected a finite rate; got inf."),
    ],
)
def test_bad_arguments(make, text):
    with pytest.raises(ValueError, match=text):
        make()


# Independent oracles.


def two_moons_by_quad(x, noise):
    t = np.linspace(0.0, np.pi, 100_001)
    log_moons = []
    for sign, centre in ((1.0, (0.0, 0.0)), (-1.0, (1.0, 0.5))):

        def exponent(t, sign=sign, centre=centre):
            dx, dy = x[0] - centre[0] - sign * np.cos(t), x[1] - centre[1] - sign * np.sin(t)
            return -0.5 * (dx**2 + dy**2) / noise**2

        peak = exponent(t).max()
        # The moon in pieces about the peak, so that quad cannot miss it.
        cuts = t[exponent(t).argmax()] + np.outer([-1.0, 1.0], 10.0 ** np.arange(-9.0, 1.0)).ravel()
        cuts = np.unique(np.clip([0.0, *cuts, np.pi], 0.0, np.pi))
        integrals = [
            scipy.integrate.quad(lambda t, f, peak: np.exp(f(t) - peak), a, b, args=(exponent, peak), epsabs=1e-13)[0]
            for a, b in itertools.pairwise(cuts)
        ]
        log_moons.append(peak + np.log(np.sum(integrals)))
    return np.logaddexp(*log_moons) - np.log(4.0 * np.pi**2 * noise**2)


@pytest.mark.parametrize("noise", [0.02, 0.1, 0.7, 5.0])
@pytest.mark.parametrize(
    "x",
    [(0, 0), (1, 0.5), (0, 1), (0.01, 0.99), (-1, 0), (1.0, -1e-9), (-1.01, -0.2), (0.3, -4.0), (2.2, 0.6), (40, -3)],
)
def test_two_moons_against_quad(noise, x):
    x = np.asarray(x, np.float64)
    oracle = two_moons_by_quad(x, noise)
    np.testing.assert_allclose(datasets.TwoMoons(noise).log_prob(x[None])[0], oracle, atol=1e-8, rtol=1e-12)


def test_two_moons_against_sklearn():
    n = 100_000
    theirs = sklearn.datasets.make_moons(n, noise=0.1, random_state=0)[0]
    toy = datasets.TwoMoons(0.1)
    ours = toy.sample(n, seed=0).astype(np.float64)
    np.testing.assert_allclose(ours.mean(axis=0), theirs.mean(axis=0), atol=4.0 / np.sqrt(n))
    np.testing.assert_allclose(np.cov(ours.T), np.cov(theirs.T), atol=4.0 / np.sqrt(n))
    # The entropy of two moons divided by their standard deviations, from a plain sum over 3200 points of the moons.
    log_p = toy.log_prob(theirs)
    entropy = -log_p.mean() - np.log(theirs.std(axis=0)).sum()
    np.testing.assert_allclose(entropy, 1.82964, atol=4.0 * log_p.std() / np.sqrt(n))


def test_two_moons_entropy():
    toy, _, _, step = TOYS["two_moons"]
    x, _ = grid("two_moons")
    p = np.exp(toy.log_prob(x)) * step**2
    variance = p @ (x - p @ x) ** 2
    entropy = scipy.special.entr(p / step**2).sum() * step**2 - 0.5 * np.log(variance).sum()
    np.testing.assert_allclose(entropy, 1.82964, atol=1e-5)


def test_rings_against_bessel():
    toy = datasets.Rings((0.5, 2.0), 0.3)
    x = np.random.default_rng(0).normal(size=[200, 2]) * 3.0
    radius, radii = np.linalg.norm(x, axis=1)[:, None], np.array([0.5, 2.0])
    p = np.exp(-0.5 * ((radius - radii) / 0.3) ** 2) * scipy.special.i0e(radius * radii / 0.09) / (2.0 * np.pi * 0.09)
    np.testing.assert_allclose(toy.log_prob(x), np.log(p.mean(axis=1)), rtol=1e-12)


def test_one_dimension_against_scipy():
    x = np.linspace(-20.0, 20.0, 101)
    gaussian = scipy.stats.norm(1.5, 0.7)
    np.testing.assert_allclose(datasets.Gaussian1D(1.5, 0.7).log_prob(x[:, None]), gaussian.logpdf(x))
    toy = datasets.FourModes1D()
    p = scipy.stats.norm.pdf(x[:, None], toy.means, toy.stds) @ toy.weights
    np.testing.assert_allclose(np.exp(toy.log_prob(x[:, None])), p, atol=1e-300)


def test_checkerboard_draws_stay_in_their_cells_and_fill_them():
    for toy in (datasets.Checkerboard(), datasets.Checkerboard(10, 1.7)):
        x = toy.sample(1_000_000, seed=0)
        assert np.isfinite(toy.log_prob(x)).all()
        assert np.abs(x).max() > 0.999 * toy.half_width


# Packaged data.


def test_alanine_dipeptide():
    split = datasets.alanine_dipeptide()
    assert split.train.shape == (40_000, 2)
    assert split.test.shape == (20_000, 2)
    for part in split:
        assert part.dtype == np.float32
        assert np.isfinite(part).all()
        assert (part.astype(np.float64) >= -np.pi).all()
        assert (part.astype(np.float64) < np.pi).all()
    assert not np.array_equal(split.train[:20_000], split.train[20_000:])
    assert not np.array_equal(split.train[20_000:], split.test)


def test_alanine_dipeptide_basins_are_the_published_ones():
    published = [(0.87505, 0.12425, 0.0007), (0.8829, 0.1129, 0.0042), (0.8801, 0.1171, 0.0028)]
    train, test = datasets.alanine_dipeptide()
    for frames, populations in zip([train[:20_000], train[20_000:], test], published, strict=True):
        phi, psi = np.degrees(frames).T
        is_left = phi >= 0.0
        is_right = ~is_left & (psi > -125.0) & (psi < 50.0)
        found = (~is_left & ~is_right).mean(), is_right.mean(), is_left.mean()
        np.testing.assert_allclose(found, populations, atol=1e-6)


# Point clouds.


def test_surface_points_are_uniform_by_area():
    # A square of side 1 and, apart, a triangle of area 2.
    vertices = [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [5, 0, 0], [7, 0, 0], [5, 0, 2]]
    faces = [[0, 1, 2], [0, 2, 3], [4, 5, 6]]
    x = datasets.surface_points(vertices, faces, 30_000, np.random.default_rng(0))
    assert x.shape == (30_000, 3)
    is_square = x[:, 0] < 2.0
    np.testing.assert_allclose(is_square.mean(), 1 / 3, atol=0.01)
    square, triangle = x[is_square], x[~is_square]
    for i in (0, 1):
        assert scipy.stats.kstest(square[:, i], "uniform").pvalue > 1e-4
    assert (square[:, 2] == 0.0).all()
    # Within the triangle the distance from a side has density 2 (1 - t / 2) / 2.
    for t in (triangle[:, 0] - 5.0, triangle[:, 2]):
        assert scipy.stats.kstest(t / 2.0, scipy.stats.beta(1, 2).cdf).pvalue > 1e-4
    np.testing.assert_array_equal(x, datasets.surface_points(vertices, faces, 30_000, np.random.default_rng(0)))


@pytest.mark.parametrize(
    ("vertices", "faces", "text"),
    [
        (np.zeros([3, 2]), [[0, 1, 2]], r"Expected vertices \[V, 3\]; got \[3, 2\]."),
        (np.eye(3), np.zeros([0, 3], int), r"Expected faces \[F, 3\]; got \[0, 3\]."),
        (np.eye(3), [[0.0, 1.0, 2.0]], "Expected faces of whole numbers; got float64."),
        (np.eye(3), [[0, 1, 3]], r"Expected corners 0 to 2; got \[3\]."),
        (np.eye(3), [[0, 1, -1]], r"Expected corners 0 to 2; got \[-1\]."),
        (np.eye(3) * np.nan, [[0, 1, 2]], "Expected finite vertices; got NaN or inf."),
        (np.ones([3, 3]), [[0, 1, 2]], "Expected a surface with area > 0; got 0.0."),
    ],
)
def test_bad_surfaces(vertices, faces, text):
    with pytest.raises(ValueError, match=text):
        datasets.surface_points(vertices, faces, 5, np.random.default_rng(0))


def test_voxels_have_points_on_their_outer_faces():
    occupancy = np.zeros([3, 4, 5], np.uint8)
    occupancy[1, 1:3, 2] = 1  # a block of 1 x 2 x 1 voxels
    x = datasets.from_voxels(occupancy, 30_000, seed=0).astype(np.float64)
    assert x.shape == (30_000, 3)
    x = (x - x.min(axis=0)) / np.ptp(x, axis=0)
    on_side = [(np.minimum(x[:, i], 1.0 - x[:, i]) < 1e-6) for i in range(3)]
    assert np.any(on_side, axis=0).all()
    np.testing.assert_allclose([side.mean() for side in on_side], [0.4, 0.2, 0.4], atol=0.01)
    # No point between the two voxels but on the rim.
    assert not ((np.abs(x[:, 1] - 0.5) < 1e-9) & ~on_side[0] & ~on_side[2]).any()

    batch = datasets.from_voxels(np.stack([occupancy, np.ones_like(occupancy)]).astype(bool), 50, seed=0)
    assert batch.shape == (2, 50, 3)
    assert batch.dtype == np.float32
    for bad, text in (
        (np.ones([3, 3]), r"Expected grids \[n, X, Y, Z\] or \[X, Y, Z\]; got \[3, 3\]."),
        (np.full([2, 2, 2], 0.5), "Expected voxels of 0 or 1; got others."),
        (np.stack([occupancy, 0 * occupancy]), r"Expected a full voxel in each grid; got none in \[1\]."),
    ):
        with pytest.raises(ValueError, match=text):
            datasets.from_voxels(bad, 50)


def test_normalized(rng):
    x = datasets.normalized(100.0 + [1.0, 2.0, 5.0] * rng.normal(size=[2, 4, 50, 3]))
    np.testing.assert_allclose(x.mean(axis=-2), 0.0, atol=1e-5)
    np.testing.assert_allclose((x**2).mean(axis=(-2, -1)), 1.0, rtol=1e-5)
    assert (x.std(axis=-2)[..., 2] > 3.0 * x.std(axis=-2)[..., 0]).all()  # one factor for all axes
    for bad, text in (
        (np.full([5, 3], 0.1), "Expected clouds whose points differ"),
        (np.zeros([1, 3]), "Expected clouds .* of 2 points or more; got"),
        (np.full([5, 3], np.inf), "Expected finite points"),
    ):
        with pytest.raises(ValueError, match=text):
            datasets.normalized(bad)


@pytest.mark.parametrize("make", [datasets.planes, datasets.chairs])
def test_planes_and_chairs(make):
    x = make(40, 500, seed=3)
    assert x.shape == (40, 500, 3)
    assert x.dtype == np.float32
    np.testing.assert_allclose(datasets.normalized(x), x, atol=1e-5)
    np.testing.assert_array_equal(x, make(40, 500, seed=3))
    assert not np.array_equal(x, make(40, 500, seed=4))
    # The left is as the right.
    reach = np.abs(np.stack([x[..., 1].min(axis=1), x[..., 1].max(axis=1)]))
    np.testing.assert_allclose(reach[0], reach[1], rtol=0.2)
    # Each is another one: shapes differ by more than the points drawn on one.
    extents = np.ptp(x, axis=1)
    assert (extents.std(axis=0) > 0.1).all()
    for n in (0, -1, 2.5, "3"):
        with pytest.raises(ValueError, match="Expected n >= 1, a whole number; got"):
            make(n, 50)
        with pytest.raises(ValueError, match="Expected n_points >= 1, a whole number; got"):
            make(1, n)
    with pytest.raises(ValueError, match="2 points or more"):
        make(1, 1)


def test_directions_of_planes_and_chairs():
    planes, chairs = datasets.planes(40, 500, seed=0), datasets.chairs(40, 500, seed=0)
    for plane, chair in zip(planes, chairs, strict=True):
        assert (np.ptp(plane, axis=0)[:2] > 1.5 * np.ptp(plane, axis=0)[2]).all()
        assert plane[plane[:, 2].argmax(), 0] < -0.5  # the fin is behind
        top = chair[chair[:, 2] > np.quantile(chair[:, 2], 0.9)]
        assert top[:, 0].mean() < -0.3  # the back's top is behind
        assert np.ptp(chair[:, 2]) > np.ptp(chair[:, 1])


def test_shapes_are_half_planes_half_chairs():
    x, labels = datasets.shapes(21, 100, seed=0)
    assert x.shape == (21, 100, 3)
    assert labels.dtype == np.int64
    assert labels.sum() == 10
    assert (np.diff(labels) != 0).sum() > 3  # in random order
    height = np.ptp(x[..., 2], axis=1)
    assert height[labels == 1].min() > height[labels == 0].max()
    with pytest.raises(ValueError, match="Expected n >= 2; got 1"):
        datasets.shapes(1, 100)


def test_augmented_changes_what_it_is_told(rng):
    x = datasets.normalized(rng.normal(size=[4, 60, 3]) * [3.0, 2.0, 1.0])
    off = {"scale": (1, 1), "angle": 0.0, "shear": 0.0, "taper": 0.0, "mirror": None}
    np.testing.assert_allclose(datasets.augmented(x, 2, 0, **off), np.tile(x, (2, 1, 1)), atol=1e-5)

    y = datasets.augmented(x, 50, 0, **{**off, "mirror": 1})
    signs = (y / np.tile(x, (50, 1, 1))).mean(axis=1)
    np.testing.assert_allclose(signs[:, [0, 2]], 1.0, rtol=1e-3)
    np.testing.assert_allclose(np.abs(signs[:, 1]), 1.0, rtol=1e-3)
    assert abs(signs[:, 1].mean()) < 0.3

    y = datasets.augmented(x[:1], 200, 0, **{**off, "angle": 0.2})
    angle = np.angle(y[:, 0, 0] + 1j * y[:, 0, 1]) - np.angle(x[0, 0, 0] + 1j * x[0, 0, 1])
    angle = (angle + np.pi) % (2.0 * np.pi) - np.pi
    assert 0.18 < np.abs(angle).max() <= 0.2 + 1e-5
    np.testing.assert_allclose(y[..., 2], np.tile(x[0, :, 2], (200, 1)), atol=1e-5)

    # All changes but the taper are linear.
    y = datasets.augmented(x, 3, 0, taper=0.0)
    for a, b in zip(np.tile(x, (3, 1, 1)), y, strict=True):
        assert np.linalg.lstsq(a, b)[1].max() < 1e-4
    y = datasets.augmented(x, 3, 0)
    np.testing.assert_allclose(datasets.normalized(y), y, atol=1e-5)
    np.testing.assert_array_equal(y, datasets.augmented(x, 3, 0))
    assert not np.array_equal(y[:4], y[4:8])

    part = datasets.augmented(x, 3, 0, **off, n_points=20)
    assert part.shape == (12, 20, 3)
    for cloud in part:
        assert len(np.unique(cloud, axis=0)) == 20


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"clouds": np.zeros([5, 3])}, r"Expected clouds \[n, P, 3\]; got \[5, 3\]."),
        ({"clouds": np.zeros([0, 5, 3])}, r"Expected clouds \[n, P, 3\]; got \[0, 5, 3\]."),
        ({"clouds": np.full([1, 5, 3], np.nan)}, "Expected finite points"),
        ({"copies": 0}, "Expected copies >= 1, a whole number; got 0."),
        ({"scale": (0.0, 1.0)}, r"Expected scale \(least, largest\) with 0 < least <= largest; got"),
        ({"scale": (2.0, 1.0)}, "Expected scale"),
        ({"angle": -0.1}, "Expected angle between 0 and 3.142; got -0.1."),
        ({"shear": np.nan}, "Expected shear between 0 and 1; got nan."),
        ({"taper": 0.5}, "Expected taper between 0 and 0.25; got 0.5."),
        ({"mirror": 3}, "Expected a mirrored axis 0, 1, 2 or None; got 3."),
        ({"n_points": 6}, "Expected 2 to 5 points; got 6."),
    ],
)
def test_bad_augmentation(arguments, text):
    with pytest.raises(ValueError, match=text):
        datasets.augmented(**{"clouds": np.random.default_rng(0).normal(size=[2, 5, 3]), **arguments})


# Meshes.

BOX = trimesh.creation.box((1.0, 2.0, 3.0))


def test_meshes_of_a_folder_become_clouds(tmp_path):
    for i, ending in enumerate(("off", "ply", "obj", "stl")):
        folder = tmp_path / ("box" if i < 2 else "brick/deep")
        folder.mkdir(parents=True, exist_ok=True)
        BOX.export(folder / f"{i}.{ending}")
    (tmp_path / "OTHER.OFF").write_text("OFF4 1 0\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n4 0 1 2 3\n")  # as some data has it
    (tmp_path / "notes.txt").write_text("not a mesh")
    (tmp_path / "link.off").symlink_to(tmp_path / "box" / "0.off")
    data = datasets.point_clouds(tmp_path, 300, seed=0)
    assert data.files == ["OTHER.OFF", "box/0.off", "box/1.ply", "brick/deep/2.obj", "brick/deep/3.stl"]
    assert [data.class_names[i] for i in data.labels] == [tmp_path.name, "box", "box", "brick", "brick"]
    assert data.clouds.shape == (5, 300, 3)
    assert data.clouds.dtype == np.float32
    np.testing.assert_allclose(datasets.normalized(data.clouds), data.clouds, atol=1e-5)
    for cloud in data.clouds[1:]:
        np.testing.assert_allclose(np.ptp(cloud, axis=0) / np.ptp(cloud[:, 0]), [1, 2, 3], rtol=0.05)
    np.testing.assert_array_equal(data.clouds, datasets.point_clouds(tmp_path, 300, seed=0).clouds)


def test_a_file_of_several_meshes_is_one_cloud_and_refers_to_nothing(tmp_path):
    square = "v 0 0 {z}\nv 1 0 {z}\nv 1 1 {z}\nv 0 1 {z}\n"
    text = "mtllib ../secret.mtl\no a\n" + square.format(z=0) + "usemtl s\nf 1 2 3 4\no b\n" + square.format(z=9)
    (tmp_path / "two.obj").write_text(text + "f 5 6 7 8\n")
    cloud = datasets.point_clouds(tmp_path, 400, seed=0).clouds[0]
    np.testing.assert_allclose((cloud[:, 2] > 0.0).mean(), 0.5, atol=0.1)
    assert len(np.unique(cloud[:, 2].round(4))) == 2


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.off", "", "Expected a mesh; got an empty file .*a.off"),
        ("a.off", "OFF\n3 0 0\n0 0 0\n1 0 0\n0 1 0\n", "Expected a mesh with faces; got none in .*a.off"),
        (
            "a.off",
            "OFF\n3 1 0\nnan 0 0\n1 0 0\n0 1 0\n3 0 1 2\n",
            "finite vertices; got NaN or inf in .*a.off",
        ),
        ("a.off", "OFF\n3 1 0\n0 0 0\n1 0 0\n2 0 0\n3 0 1 2\n", "area > 0; got 0.0 in .*a.off"),
        ("a.off", "OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 7\n", "a.off"),
        ("a.off", "hello", "Expected a mesh; got .*a.off, which cannot be read"),
        ("a.ply", "hello", "Expected a mesh; got .*a.ply, which cannot be read"),
        ("a.obj", "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n", "a.obj"),
        ("a.stl", "hello", "a.stl"),
        ("a.txt", "hello", r"Expected meshes \(.off, .ply, .obj, .stl\) in .*; got none."),
    ],
)
def test_bad_meshes_are_named(tmp_path, name, text, message):
    BOX.export(tmp_path / "good.off") if name != "a.txt" else None
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        datasets.point_clouds(tmp_path, 10)


def test_a_folder_that_is_none(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="Expected a folder; got"):
        datasets.point_clouds(tmp_path / "nowhere", 10)
    BOX.export(tmp_path / "good.off")
    monkeypatch.setitem(sys.modules, "trimesh", None)
    with pytest.raises(ImportError, match=r"Expected trimesh to read meshes: pip install 'tfflows\[clouds\]'"):
        datasets.point_clouds(tmp_path, 10)
