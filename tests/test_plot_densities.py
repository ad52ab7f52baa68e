"""Pictures of densities, tables, warps and training, by the numbers that they show."""

import sys
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow_probability as tfp
from cases import randomise
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from PIL import Image

from tfflows import (
    MAF,
    Chain,
    CouplingRQNSF,
    Domain,
    FlowMixture,
    FlowModel,
    Invert,
    RealNVP,
    bases,
    datasets,
    losses,
    plot,
)
from tfflows.bijectors import Permutation, Standardize
from tfflows.plot.stages import Stage, stages
from tfflows.schema import Column

warps = sys.modules["tfflows.plot.warp"]  # the module, whose name its function took


def plain(bijector, *args, x=None, context=None, spread=0.3, **kwargs):
    """A flow of random weights, adapted to x, and not compiled by XLA, which takes longer."""
    keras.utils.set_random_seed(0)
    flow = FlowModel(bijector, *args, **kwargs)
    flow.compile(jit_compile=False)
    flow.adapt(x, context)
    return randomise(flow.bijector, spread) and flow


RNG = np.random.default_rng(0)
X = RNG.normal([3.0, -1.0], [2.0, 0.5], size=(400, 2)).astype(np.float32)
C = RNG.normal(size=(400, 1)).astype(np.float32)


@pytest.fixture(scope="module")
def gaussian():
    """Without training a flow is the normal of its data's means and variances."""
    return plain(RealNVP(2, n_layers=2, hidden=(4,)), x=X, spread=0.0)


@pytest.fixture(scope="module")
def bent():
    return plain(MAF(2, n_layers=2, hidden=(4,)), x=X)


@pytest.fixture(scope="module")
def line():
    return plain(RealNVP(1, n_layers=1, hidden=(4,), context_dim=1), x=X[:, :1], context=C)


def contours(ax):
    return [c for c in ax.collections if hasattr(c, "levels") and len(c.levels) == 1]


# Densities.


def test_curve_is_the_density_and_the_histogram_has_mass_one(line):
    ax = plot.density(line, X[:, :1], context=[0.5], labels=["time"], units=["s"])
    (curve,) = ax.lines
    places, heights = curve.get_data()
    expected = np.exp(line.log_prob(places[:, None], np.full([len(places), 1], 0.5)))
    np.testing.assert_allclose(heights, expected, rtol=1e-4)
    assert np.sum(heights) * (places[1] - places[0]) == pytest.approx(1.0, abs=0.01)
    values, edges, _ = ax.patches[0].get_data()
    shown = np.mean((X[:, 0] > edges[0]) & (X[:, 0] < edges[-1]))
    assert np.sum(values * np.diff(edges)) == pytest.approx(shown)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("time [s]", "density [1/s]")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["data", "flow"]


def test_regions_hold_the_stated_masses(gaussian):
    """Of a normal in two dimensions the edge of mass m has the density (1 - m) of the mode."""
    masses = (0.9, 0.3)
    ax = plot.density(gaussian, X, masses=masses, n_grid=60)
    mode = gaussian.log_prob(gaussian.decode(np.zeros([1, 2])))[0]
    found = [float(c.levels[0]) for c in contours(ax)]
    np.testing.assert_allclose(found, mode + np.log1p(-np.sort(masses)), atol=0.06)
    # What is drawn encloses so many draws.
    drawn = gaussian.sample(4000, seed=5)
    for contour, mass in zip(contours(ax), sorted(masses), strict=True):
        (path,) = contour.get_paths()
        assert np.mean(path.contains_points(drawn)) == pytest.approx(mass, abs=0.03)
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts == ["data", "30 %", "90 % of the mass"]


def test_picture_of_two_numbers_is_the_density(bent):
    ax = plot.density(bent, limits=[(0, 6), (-3, 1)], n_grid=30, labels=["a", "b"], units=["m", "m"])
    image = ax.collections[0]
    places = np.stack(np.meshgrid(0.1 + 0.2 * np.arange(30), -3 + 4 * (np.arange(30) + 0.5) / 30), axis=-1)
    expected = np.exp(bent.log_prob(places.reshape(-1, 2)))
    np.testing.assert_allclose(np.ravel(image.get_array()), expected, rtol=1e-3)
    assert (ax.get_xlim(), ax.get_ylim()) == ((0, 6), (-3, 1))
    assert image.colorbar.ax.get_ylabel() == "density [1/m$^2$]"


def test_contexts_of_nets_and_classes():
    net = keras.layers.Dense(2)
    three = np.concatenate([C, C**2, C], axis=1)
    flow = plain(RealNVP(1, n_layers=1, context_dim=2), context_net=net, context_shape=(3,), x=X[:, :1], context=three)
    places, heights = plot.density(flow, context=three[7]).lines[0].get_data()
    expected = np.exp(flow.log_prob(places[:, None], np.repeat(three[7:8], len(places), axis=0)))
    np.testing.assert_allclose(heights, expected, rtol=1e-4)
    assert plot.warp(flow, context=three[7]).axes
    labels = np.arange(400) % 3
    flow = plain(RealNVP(1, n_layers=1, context_dim=3), n_classes=3, x=X[:, :1], context=labels)
    places, heights = plot.density(flow, context=2).lines[0].get_data()
    np.testing.assert_allclose(heights, np.exp(flow.log_prob(places[:, None], np.full(len(places), 2))), rtol=1e-4)
    with pytest.raises(ValueError, match="Expected one condition"):
        plot.density(flow, context=[0, 1])


def test_distributions_of_others():
    toy = datasets.Gaussian1D(2.0, 0.5)
    places, heights = plot.density(toy).lines[0].get_data()
    assert places[np.argmax(heights)] == pytest.approx(2.0, abs=0.01)

    class OnlyDensity:
        def log_prob(self, x):
            return -0.5 * np.sum(x**2, axis=1) - np.log(2.0 * np.pi)

    (contour,) = contours(plot.density(OnlyDensity(), limits=[(-6, 6), (-6, 6)], masses=[0.5]))
    assert contour.levels[0] == pytest.approx(np.log(0.5 / (2.0 * np.pi)), abs=0.02)
    places, heights = plot.density(tfp.distributions.Gamma(3.0, 1.0), limits=(1e-3, 20.0)).lines[0].get_data()
    assert places[np.argmax(heights)] == pytest.approx(2.0, abs=0.03)
    with pytest.raises(ValueError, match="Expected data, limits, or a distribution that knows its event_shape"):
        plot.density(OnlyDensity())
    OnlyDensity.event_shape = (2,)
    with pytest.raises(ValueError, match="Expected limits, or data, for a distribution without sample; got neither"):
        plot.density(OnlyDensity())


def test_mixtures_and_given_axes(gaussian, tmp_path):
    mixture = FlowMixture([gaussian, plain(RealNVP(2, n_layers=2, hidden=(4,)), x=X + 9.0, spread=0.0)])
    mixture.compile(jit_compile=False)
    figure = Figure()
    ax = figure.subplots()
    assert plot.density(mixture, ax=ax, n_grid=20, title="two", path=tmp_path / "a.png") is ax
    assert ax.get_title() == "two"
    assert ax.get_xlim()[1] - ax.get_xlim()[0] > 12.0  # both are in sight
    assert Image.open(tmp_path / "a.png").size == tuple(round(150 * s) for s in figure.get_size_inches())


def test_domains_bound_the_picture():
    rng = np.random.default_rng(0)
    table = np.stack([rng.uniform(20.0, 28.0, 400) % 24.0, rng.exponential(size=400)], axis=1)
    domain = [Domain.circular(24.0), Domain.positive()]
    flow = plain(CouplingRQNSF(2, n_layers=1, hidden=(4,), n_bins=3), domain=domain, x=table)
    assert flow.domain == domain
    ax = plot.density(flow, table, n_grid=30)
    assert ax.get_xlim() == (0.0, 24.0)
    assert ax.get_ylim()[0] == 0.0
    turned = plot.density(flow, table + np.array([48.0, 0.0]), n_grid=30)  # two days later
    assert turned.get_xlim() == (0.0, 24.0)
    points = next(c for c in turned.collections if len(c.get_offsets()) == 400).get_offsets()
    np.testing.assert_allclose(np.sort(points[:, 0]), np.sort(table[:, 0]), atol=1e-4)
    with pytest.raises(ValueError, match=r"in column 1 of x; got -1"):
        plot.density(flow, [[3.0, -1.0]])
    with pytest.raises(ValueError, match="Expected limits with some of the domain between them"):
        plot.density(flow, limits=[(0, 24), (-3, -1)])
    simplex = FlowModel(RealNVP(1, n_layers=1, hidden=(4,)), domain=[Domain.simplex(2)])
    with pytest.raises(ValueError, match="Expected columns that do not depend on each other; got a simplex"):
        plot.density(simplex)
    torus = FlowModel(CouplingRQNSF(2, n_layers=1, hidden=(4,), circular=True), base=bases.UniformCircle(2))
    assert torus.domain == [Domain.circular(2.0 * np.pi, -np.pi)] * 2
    assert FlowModel(RealNVP(2)).domain == [Domain.real()] * 2


def test_whole_numbers_have_bars_and_cells():
    rng = np.random.default_rng(0)
    counts = rng.poisson(2.0, size=(300, 1))
    domain = [Domain.integer(0, 30)]
    flow = plain(RealNVP(1, n_layers=1, hidden=(4,)), domain=domain, x=counts, spread=0.0)
    ax = plot.density(flow, counts, limits=(-5, 12))
    heights = np.array([bar.get_height() for bar in ax.patches])
    np.testing.assert_allclose(heights, np.exp(flow.log_prob(np.arange(13)[:, None])), rtol=1e-5)
    assert heights.sum() == pytest.approx(1.0, abs=0.02)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [np.mean(counts == k) for k in range(13)])
    assert ax.get_ylabel() == "probability"
    left, right = plot.density(flow, counts).get_xlim()
    assert (left, right % 1.0) == (-0.5, 0.5)  # no bar is cut
    table = np.concatenate([counts, rng.normal(size=(300, 1))], axis=1)
    domain = [*domain, Domain.real()]
    flow = plain(RealNVP(2, n_layers=1, hidden=(4,)), domain=domain, x=table, spread=0.0)
    ax = plot.density(flow, table, n_grid=40, limits=[(0, 12), (-5, 5)])
    cells = ax.collections[0]
    assert np.sum(cells.get_array()) * 10.0 / 40 == pytest.approx(1.0, abs=0.03)
    assert cells.get_coordinates()[0, [0, 1], 0].tolist() == [-0.5, 0.5]
    assert contours(ax) == []
    assert cells.colorbar.ax.get_ylabel() == "probability x density"
    with pytest.raises(ValueError, match="at most 400 whole numbers"):
        plot.density(FlowModel(RealNVP(1, n_layers=1), domain=[Domain.integer(0)]), limits=(0, 1000))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"flow": 3}, "Expected a flow, or a distribution with a log_prob; got 3"),
        ({"flow": FlowModel(RealNVP(3, n_layers=1))}, "Expected a distribution of 1 or 2 numbers; got 3"),
        ({"x": np.zeros([5, 3])}, r"Expected x of shape \[n, 2\]; got \[5, 3\]"),
        ({"x": np.full([5, 2], np.nan)}, "Expected finite numbers in x"),
        ({"context": [1.0]}, "Expected no context"),
        ({"limits": (1, 0)}, "Expected limits"),
        ({"limits": [(0, 1)] * 3}, "Expected limits"),
        ({"labels": ["a"]}, "Expected a label for each of 2 columns"),
        ({"units": ["a"]}, "Expected a unit, or None, for each of 2 columns"),
        ({"masses": [1.0]}, r"Expected masses in \(0, 1\); got 1.0"),
        ({"n_grid": 1}, "Expected n_grid >= 2"),
        ({"max_points": 0}, "Expected max_points >= 1"),
        ({"ax": np.array([None])}, "Expected one matplotlib axes; got ndarray"),
        (
            {"flow": SimpleNamespace(log_prob=np.sum), "x": np.zeros(5)},
            r"data of shape \[n, 1\]; got \[5\]",
        ),
    ],
)
def test_bad_densities(gaussian, arguments, text):
    with pytest.raises(ValueError, match=text):
        plot.density(**{"flow": gaussian, **arguments})


# Tables.


def test_corner_has_contours_of_the_stated_mass(tmp_path):
    rng = np.random.default_rng(1)
    samples = rng.multivariate_normal([1.0, 2.0], [[1.0, 0.8], [0.8, 2.0]], 20_000)
    figure = plot.corner(
        samples, X, labels=["a", "b"], units=["m", None], truths=[1.0, None], masses=[0.8], path=tmp_path / "c.png"
    )
    axes = np.reshape(figure.axes, [2, 2])
    (contour,) = contours(axes[1, 0])
    assert np.mean(contour.get_paths()[0].contains_points(samples)) == pytest.approx(0.8, abs=0.02)
    data, drawn = axes[0, 0].patches
    for patch, rows in ((data, X), (drawn, samples)):
        heights, edges, _ = patch.get_data()
        assert np.sum(heights * np.diff(edges)) == pytest.approx(1.0)
        assert np.average(0.5 * (edges[1:] + edges[:-1]), weights=heights) == pytest.approx(rows[:, 0].mean(), abs=0.1)
    points = axes[1, 0].collections[0].get_offsets()
    np.testing.assert_allclose(np.sort(points[:, 0]), np.sort(X[:, 0]))
    assert (axes[1, 0].get_xlabel(), axes[1, 0].get_ylabel()) == ("a [m]", "b")
    assert axes[0, 0].lines[0].get_xdata() == [1.0, 1.0]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["data", "samples", "truth"]
    assert (tmp_path / "c.png").stat().st_size > 5000


def test_corner_has_the_names_of_a_frame():
    figure = plot.corner(X, pd.DataFrame(X, columns=["a", "b"]))
    assert figure.axes[2].get_ylabel() == "b"


def test_corner_of_a_flow_says_what_it_takes(gaussian):
    with pytest.raises(ValueError, match=r"such as flow\.sample\(5000\); got a flow"):
        plot.corner(gaussian, X)


def test_corner_of_weighted_samples():
    """Uniform samples weighted by a normal density are normal."""
    rng = np.random.default_rng(2)
    samples = rng.uniform(-4.0, 4.0, size=(40_000, 2))
    weights = np.exp(-0.5 * np.sum(samples**2, axis=1))
    figure = plot.corner(samples, weights=weights, masses=[0.5], limits=[(-4, 4)] * 2)
    axes = np.reshape(figure.axes, [2, 2])
    (contour,) = contours(axes[1, 0])
    inside = contour.get_paths()[0].contains_points(samples)
    assert np.average(inside, weights=weights) == pytest.approx(0.5, abs=0.05)
    heights, edges, _ = axes[0, 0].patches[0].get_data()
    middles = 0.5 * (edges[1:] + edges[:-1])
    assert np.average(middles**2, weights=heights) == pytest.approx(1.0, abs=0.05)


def test_corner_of_a_table():
    rng = np.random.default_rng(0)
    columns = [Column("size"), Column("kind", "str", ("red", "blue")), Column("count", "int64", domain="integer 0..")]
    table = np.stack([rng.normal(size=600), rng.integers(0, 2, 600), rng.integers(0, 5, 600)], axis=1)
    figure = plot.corner(table, columns=columns, figure=Figure())
    axes = np.reshape(figure.axes, [3, 3])
    assert [text.get_text() for text in axes[1, 0].get_yticklabels()] == ["red", "blue"]
    heights, edges, _ = axes[1, 1].patches[0].get_data()
    np.testing.assert_allclose(heights, np.bincount(table[:, 1].astype(int)) / 600)
    assert edges.tolist() == [-0.5, 0.5, 1.5]
    assert all(not contours(axis) for axis in axes.flat)  # each pair has whole numbers, which are points
    points = axes[2, 1].collections[0].get_offsets()
    assert np.abs(points - np.round(points)).max() <= 0.3
    assert np.array_equal(np.round(points), table[:, 1:])
    frame = plot.corner(pd.DataFrame(table[:, :2], columns=["u", "v"]))
    assert frame.axes[2].get_ylabel() == "v"


def test_corner_of_what_has_no_contours():
    samples = np.random.default_rng(0).normal(size=(600, 2))
    for options in ({"limits": [(50.0, 60.0)] * 2}, {"bins": 1}, {"masses": 0.5}, {"masses": (0.5, 0.5)}):
        plot.corner(samples, **options)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"samples": np.zeros(5)}, r"Expected samples of shape \[n, k\]; got \[5\]"),
        ({"samples": [["a", "b"]]}, "Expected numbers as samples"),
        ({"samples": np.full([3, 2], np.inf)}, "Expected finite samples"),
        ({"samples": np.zeros([3, 21])}, "Expected at most 20 columns"),
        ({"data": np.zeros([3, 3])}, r"Expected data of shape \[n, 2\]; got \[3, 3\]"),
        ({"weights": [1.0]}, r"Expected weights of shape \[9\]"),
        ({"data": np.zeros([3, 2]), "data_weights": -np.ones(3)}, "Expected data_weights"),
        ({"columns": [Column("a")]}, "Expected a schema.Column for each of 2 columns; got 1"),
        ({"truths": [1.0]}, "as truths; got 1"),
        ({"limits": [(0, 1)]}, "Expected limits"),
        ({"masses": [0.0]}, "Expected masses"),
        ({"truths": [np.nan, None]}, "Expected finite truths"),
        ({"bins": 0}, "Expected bins >= 1, a whole number; got 0"),
        ({"figure": Figure().subplots()}, "Expected a matplotlib figure; got Axes"),
    ],
)
def test_bad_corners(arguments, text):
    with pytest.raises(ValueError, match=text):
        plot.corner(**{"samples": np.zeros([9, 2]), **arguments})


# Warps.


def drawn_lines(ax):
    return np.array([path.vertices for c in ax.collections for path in c.get_paths()])


def test_grid_ends_where_decode_puts_it(bent):
    figure = plot.warp(bent, limits=[(-2, 2), (-1, 1)], n_lines=3)
    *first, last = figure.axes
    grid = np.array([[[a, b] for b in np.linspace(-1, 1, warps.N_POINTS)] for a in (-2, 0, 2)])
    other = np.array([[[a, b] for a in np.linspace(-2, 2, warps.N_POINTS)] for b in (-1, 0, 1)])
    every = np.concatenate([grid, other])
    np.testing.assert_allclose(drawn_lines(first[0]), every, atol=1e-5)
    expected = bent.decode(every.reshape(-1, 2).astype(np.float32)).numpy().reshape(every.shape)
    np.testing.assert_allclose(drawn_lines(last), expected, atol=1e-4)
    assert "Standardize" in last.get_title()
    assert len(figure.axes) == 4  # the latents, two layers, the data
    assert len(plot.warp(bent, layers=2).axes) == 2
    assert plot.warp(bent, layers=[0, 3], title="t", figure=Figure()).axes[1].get_xlabel() == "x0"


def test_stages_keep_the_columns_in_their_places():
    """Of a chain with permutations each stage's column is made of that column of the data, and of no other."""
    flow = FlowModel(Chain([Permutation([2, 0, 1]), Standardize(3), Chain([Permutation([0, 2, 1])])]))
    with pytest.raises(ValueError, match="Expected a flow of 1 or 2 numbers; got 3"):
        plot.warp(flow)
    x = RNG.normal(size=(50, 2)) * [1.0, 100.0]
    turned = Invert(Chain([Standardize(2), Permutation.reverse(2)]))
    flow = FlowModel(Chain([Permutation.reverse(2), Standardize(2), turned]))
    flow.compile(jit_compile=False)
    flow.adapt(x)
    z = flow.encode(x).numpy()
    way = stages(flow, z)
    assert [stage.name for stage in way] == ["latent", "inverse Standardize", "Standardize"]
    for stage in way:
        for i in range(2):
            assert abs(np.corrcoef(stage.values[:, i], x[:, i])[0, 1]) == pytest.approx(1.0, abs=1e-4)
    np.testing.assert_allclose(way[-1].values, x, rtol=1e-3, atol=1e-3)


def test_warp_of_one_number_and_of_a_context(line):
    figure = plot.warp(line, context=[0.5], labels=["time"], units=["s"])
    left, middle = figure.axes[:2]
    z, x = middle.lines[0].get_data()
    np.testing.assert_allclose(
        x, line.decode(z[:, None].astype(np.float32), np.full([len(z), 1], 0.5))[:, 0], rtol=1e-4
    )
    assert left.get_ylabel() == "time [s]"
    edge = left.collections[0].get_paths()[0].vertices  # the area under the density of x
    assert edge[:, 0].max() == pytest.approx(
        np.exp(line.log_prob(x[:, None], np.full([len(x), 1], 0.5))).max(), rel=1e-3
    )


def test_warping_is_a_gif_whose_circles_have_no_seam(tmp_path):
    keras.utils.set_random_seed(0)
    domain = [Domain.circular(24.0), Domain.real()]
    flow = plain(CouplingRQNSF(2, n_layers=2, hidden=(4,), n_bins=3), domain=domain, x=np.abs(X))
    path = plot.warping(flow, tmp_path / "w.gif", n_frames=13, seconds=1.2, pause=0.5, size=64, n_lines=3)
    with Image.open(path) as image:
        way = stages(flow, np.zeros([1, 2]))
        assert image.n_frames == (len(way) - 1) * round(12 / (len(way) - 1)) + 1
        assert image.size == (64, 64)
        durations = []
        for i in range(image.n_frames):
            image.seek(i)
            durations.append(image.info["duration"])
    assert durations[0] == durations[-1] == durations[1] + 500
    assert [p.name for p in tmp_path.iterdir()] == ["w.gif"]
    # What a layer turns by more than half a circle, it turns together.
    lines = warps.grid(np.array([[-5.0, 5.0], [-1.0, 1.0]]), 3)
    period = np.array([[-5.0, 10.0], [np.nan, np.nan]])
    before = Stage("", lines.reshape(-1, 2), period)
    moved = 4.0 + 3.0 * np.sin(2.0 * np.pi * before.values[:, 0] / 10.0)  # from 1 to 7 of 10
    after = np.stack([np.mod(before.values[:, 0] + moved + 5.0, 10.0) - 5.0, before.values[:, 1]], axis=1)
    turns = warps.turned(before, Stage("", after, period), 3)
    np.testing.assert_allclose(turns[:, 0], moved / 10.0, atol=1e-12)
    # A line that crosses the seam goes on beyond it, and comes in on the other side.
    figure = plot.warp(flow, n_lines=3)
    last = next(axis for axis in figure.axes if axis.get_title().startswith("data"))
    assert last.get_xlim() == (0.0, 24.0)
    steps = np.abs(np.diff(drawn_lines(last)[..., 0], axis=1))
    assert steps.max() < 12.0
    assert drawn_lines(last)[..., 0].min() < 0.0
    assert drawn_lines(last)[..., 0].max() > 24.0
    for arguments, text in (
        ({"path": tmp_path / "a.png"}, "ending in .gif"),
        ({"seconds": 0.0}, "Expected seconds > 0"),
        ({"n_frames": 1}, "Expected n_frames >= 2"),
        ({"size": 10}, "a whole size >= 64"),
        ({"limits": (1, 1)}, "Expected limits"),
    ):
        with pytest.raises(ValueError, match=text):
            plot.warping(**{"flow": flow, "path": tmp_path / "a.gif", **arguments})
    assert [p.name for p in tmp_path.iterdir()] == ["w.gif"]


def test_inverted_chains_are_taken_apart(bent):
    flow = FlowModel(Invert(bent.bijector))
    z = RNG.normal(size=(20, 2)).astype(np.float32)
    way = stages(flow, z)
    assert len(way) == 4
    np.testing.assert_allclose(way[-1].values, flow.bijector.forward(z), atol=1e-4)
    with pytest.raises(ValueError, match="Expected layers from 0 to 3; got"):
        plot.warp(flow, layers=[4])
    with pytest.raises(ValueError, match="Expected a FlowModel, with one latent space"):
        plot.warp(FlowMixture([bent]))
    assert len(stages(FlowModel(Chain([Standardize(2)])), z)) == 2


# Training.


def history(**logs):
    found = keras.callbacks.History()
    found.history, found.epoch = logs, list(range(len(logs["loss"])))
    return found


def test_training_marks_the_best_epoch():
    logs = {"loss": [90.0, 3.0, 2.0, 1.5, 1.2] + [1.0] * 20, "val_loss": [95.0, 3.1, 1.7, 2.2, 2.5] + [2.6] * 20}
    ax = plot.training(logs)
    train, held_out, best = ax.lines
    np.testing.assert_array_equal(train.get_ydata(), logs["loss"])
    np.testing.assert_array_equal(held_out.get_xdata(), np.arange(1, 26))
    assert (best.get_xdata()[0], best.get_ydata()[0]) == (3, 1.7)
    assert "best: 1.7, epoch 3" in [text.get_text() for text in ax.get_legend().get_texts()]
    assert ax.get_ylabel() == "loss [nats]"
    assert ax.get_ylim()[0] < 1.0
    assert 2.6 < ax.get_ylim()[1] < 10.0  # the first epoch is out of sight
    same = plot.training(history(**logs), limits=(0, 100))
    assert same.get_ylim() == (0, 100)


def test_training_of_several_and_of_images(tmp_path):
    first = history(loss=[3.0, 2.0], bits_per_dim=[2.0, np.nan], learning_rate=[1e-3, 1e-4])
    first.epoch = [5, 6]  # went on from another fit
    ax = plot.training({"a": first, "b": {"loss": [1.0], "bits_per_dim": [0.9], "learning_rate": [1e-3]}})
    assert ax.get_ylabel() == "bits per dimension"
    assert len({line.get_color() for line in ax.lines}) == 2
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["a, training", "a, best: 2, epoch 6", "b, training", "b, best: 0.9, epoch 1"]
    ax = plot.training(first, metric="loss", learning_rate=True, title="t", path=tmp_path / "t.png")
    (twin,) = [other for other in ax.figure.axes if other is not ax]
    assert twin.get_yscale() == "log"
    np.testing.assert_array_equal(twin.lines[0].get_ydata(), [1e-3, 1e-4])
    first.set_model(FlowModel(RealNVP(1, n_layers=1)))
    first.model.flow_loss = losses.FlowMatching()
    assert plot.training(first, metric="loss").get_ylabel() == "loss"
    for bad, arguments, text in (
        ({"loss": [1.0]}, {"metric": "speed"}, "Expected 'speed' in the history; got loss"),
        ({"loss": [1.0]}, {"learning_rate": True}, "Expected 'learning_rate' in the history; got loss"),
        ({"a": first, "b": 3}, {}, "Expected what `fit` returns"),
        (7, {}, "Expected what `fit` returns"),
        ({}, {}, "Expected a history of at least one epoch"),
        ({"loss": []}, {}, "Expected a history of at least one epoch"),
    ):
        with pytest.raises(ValueError, match=text):
            plot.training(bad, **arguments)


# All of them.


def test_no_screen_and_no_pyplot(gaussian):
    plt.close("all")
    plot.density(gaussian, n_grid=5)
    plot.corner(X)
    plot.warp(gaussian, figure=Figure().subfigures(1, 2)[0])
    plot.training({"loss": [1.0]})
    axis = Figure().subplots()
    assert plot.images(np.zeros([1, 4, 4, 1]), ax=axis) is axis.figure
    assert plot.clouds(np.zeros([1, 5, 3]), ax=Figure().subplots(), size=20).axes[0].images
    assert plt.get_fignums() == []


def test_missing_packages_are_named(monkeypatch, gaussian):
    for name, make in (
        ("matplotlib", lambda: plot.density(gaussian)),
        ("matplotlib.figure", lambda: plot.images(np.zeros([1, 4, 4, 1]))),
        ("corner", lambda: plot.corner(np.random.default_rng(0).normal(size=(600, 2)))),
    ):
        with monkeypatch.context() as context:
            context.setitem(sys.modules, name, None)
            with pytest.raises(ImportError, match=rf"Expected {name} for pictures: pip install 'tfflows\[plot\]'"):
                make()
