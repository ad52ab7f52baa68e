"""Whether pictures of latents, calibration and coverage tell right flows from wrong ones; and callbacks."""

import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from matplotlib.figure import Figure
from scipy import stats

from tfflows import Domain, FlowMixture, FlowModel, RealNVP, bases, plot
from tfflows.bijectors import Standardize
from tfflows.callbacks import hears_batches
from tfflows.inference import calibration, diagnostics

RNG = np.random.default_rng(0)
X = RNG.normal([3.0, -1.0], [2.0, 0.5], size=(4000, 2))
HELD_OUT = RNG.normal([3.0, -1.0], [2.0, 0.5], size=(1200, 2))
MIDDLE = np.array([3.0, -1.0])


def normal(x, **kwargs):
    """A flow that is the normal of the means and variances of x, without training."""
    flow = FlowModel(Standardize(x.shape[1]), **kwargs)
    flow.compile(jit_compile=False)
    flow.adapt(x)
    return flow


@pytest.fixture(scope="module")
def right():
    return normal(X)


@pytest.fixture(scope="module")
def narrow():
    """Its standard deviations are 0.6 of the right ones."""
    return normal(MIDDLE + 0.6 * (X - MIDDLE))


# Numbers.


def test_uniformity_is_scipys(rng):
    u = rng.uniform(size=(200, 3)) ** [1.0, 1.1, 2.0]
    found = calibration.uniformity(u)
    for i, column in enumerate(u.T):
        expected = stats.kstest(column, "uniform", method="exact")
        assert found.distance[i] == pytest.approx(expected.statistic)
        assert found.p_value[i] == pytest.approx(expected.pvalue)


@pytest.mark.parametrize("level", [0.95, 0.7])
def test_band_holds_all_places_at_its_level(level, rng):
    n, at = 150, np.linspace(0.01, 0.99, 60)
    low, high = calibration.band(n, at, level)
    shares = np.mean(rng.uniform(size=(3000, n, 1)) <= at, axis=1)
    inside = np.all((low <= shares) & (shares <= high), axis=1)
    assert np.mean(inside) == pytest.approx(level, abs=0.025)
    assert np.all(np.diff(low) >= 0.0)
    wider = calibration.band(n, at, 0.999)
    assert np.all((wider[0] <= low) & (high <= wider[1]))


def test_latents_of_a_right_flow_are_uniform_and_of_a_wrong_one_not(right, narrow):
    z, u, n_draws = calibration.latent_pit(right, HELD_OUT)
    np.testing.assert_allclose(z, (HELD_OUT - X.mean(axis=0)) / X.std(axis=0), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(u, stats.norm.cdf(z), atol=1e-5)
    assert n_draws is None
    assert np.all(calibration.latent_tests(right, HELD_OUT).p_value > 0.01)
    wrong = calibration.latent_tests(narrow, HELD_OUT)
    assert np.all(wrong.p_value < 1e-6)
    # Of normals of standard deviations 1 and 1 / 0.6 the distance is that of their distribution functions.
    z = np.linspace(0, 5, 2000)
    expected = np.max(stats.norm.cdf(z) - stats.norm.cdf(0.6 * z))
    np.testing.assert_allclose(wrong.distance, expected, atol=0.05)


def test_bases_without_a_cdf_are_known_by_their_draws(rng):
    flow = FlowModel(Standardize(2), base=bases.MixtureOfNormals(2, 3))
    flow.compile(jit_compile=False)
    flow.adapt(rng.normal(size=(500, 2)))
    x = flow.sample(500, seed=3).numpy()
    _, u, n_draws = calibration.latent_pit(flow, x)
    assert n_draws >= 10_000
    assert np.all(calibration.uniformity(u, n_draws).p_value > 0.005)
    assert np.all(calibration.latent_tests(flow, x + 3.0).p_value < 1e-6)
    assert len(plot.latents(flow, x).axes) == 4


def test_whole_numbers_are_points_at_random(rng):
    counts = rng.poisson(3.0, size=(2000, 1))
    flow = FlowModel(RealNVP(1, n_layers=1, hidden=(2,)), domain=[Domain.integer(0, 40)])
    flow.compile(jit_compile=False)
    flow.adapt(counts)
    _, u, _ = calibration.latent_pit(flow, counts)
    assert len(np.unique(u)) > 1900
    places = calibration.places(flow, counts[:300], n_draws=50)
    assert len(np.unique(places.scalars)) == 300  # ties are spread


def test_places_are_the_ranks_among_draws(right, narrow):
    flow = normal(X)
    found = calibration.places(flow, HELD_OUT, n_draws=99)
    assert found.scalars.shape == (1200, 2)
    assert found.regions.shape == (1200,)
    u = np.column_stack([found.scalars, found.regions])
    assert np.all(calibration.uniformity(u).p_value > 0.005)
    again = calibration.places(flow, HELD_OUT, n_draws=99)
    np.testing.assert_array_equal(found.regions, again.regions)
    # For any row: as many draws are lower as its place says.
    exact = stats.norm.cdf((HELD_OUT - X.mean(axis=0)) / X.std(axis=0))
    assert np.corrcoef(exact[:, 0], found.scalars[:, 0])[0, 1] > 0.98
    squared = np.sum(((HELD_OUT - X.mean(axis=0)) / X.std(axis=0)) ** 2, axis=1)
    assert np.corrcoef(1.0 - np.exp(-0.5 * squared), found.regions)[0, 1] > 0.97


def test_ties_and_blocks_of_ranks(monkeypatch, right):
    draws = np.array([[[0.0], [1.0], [1.0], [2.0]]])
    spread = [calibration._spread(draws, np.array([[1.0]]), np.random.default_rng(i))[0, 0] for i in range(200)]
    assert min(spread) >= 1 / 5
    assert max(spread) <= 4 / 5
    assert max(spread) - min(spread) > 0.5
    assert diagnostics.ranks(draws, np.array([[1.0]])) == 1
    monkeypatch.setattr(calibration, "BLOCK", 2000)  # 20 rows at a time
    found = calibration.places(right, HELD_OUT[:90], n_draws=49)
    assert len(np.unique(found.scalars)) == 180
    assert np.all((found.scalars > 0.0) & (found.scalars < 1.0))


# Pictures.


def band_of(axis):
    (band,) = [patch for patch in axis.patches if hasattr(patch, "get_height")]
    return band.get_y(), band.get_y() + band.get_height()


def counts_of(axis):
    return next(patch for patch in axis.patches if hasattr(patch, "get_data")).get_data().values


def test_bands_hold_right_latents_and_no_wrong_ones(right, narrow, tmp_path):
    figure = plot.latents(right, HELD_OUT, path=tmp_path / "l.png")
    (first, second), (quantiles, _) = np.reshape(figure.axes, [2, 2])
    for axis in (first, second):
        low, high = band_of(axis)
        counts = counts_of(axis)
        assert counts.sum() == len(HELD_OUT)
        assert np.all((low <= counts) & (counts <= high))
    assert "p = 0." in first.get_title()
    wrong = plot.latents(narrow, HELD_OUT)
    low, high = band_of(wrong.axes[0])
    assert counts_of(wrong.axes[0])[0] > 1.5 * high

    def leaves(axis):
        """Whether the line of quantiles leaves its band, which is between x at each y."""
        edge = axis.collections[0].get_paths()[0].vertices
        x, y = axis.lines[1].get_data()
        half = len(edge) // 2
        ends = [part[np.argsort(part[:, 1])] for part in (edge[1:half], edge[half + 1 : -1])]
        sides = np.sort([np.interp(y, part[:, 1], part[:, 0]) for part in ends], axis=0)
        return np.any((x < sides[0] - 0.05) | (x > sides[1] + 0.05))

    assert not leaves(quantiles)
    assert leaves(wrong.axes[2])
    assert (tmp_path / "l.png").stat().st_size > 5000


def test_the_worst_scalars_are_drawn(rng):
    flow = normal(rng.normal(size=(500, 9)))
    x = rng.normal(size=(300, 9)) + np.where(np.arange(9) == 7, 1.0, 0.0)
    figure = plot.latents(flow, x, most=2)
    assert any(axis.get_title().startswith("z7: KS 0.") for axis in figure.axes)
    assert figure.get_suptitle() == "2 of 9 latents"
    assert len(plot.calibration(flow, x, scalars=[0, 3, 7, 8], n_draws=19, figure=Figure()).axes) == 6
    for arguments, text in (({"scalars": [9]}, "Expected scalars from 0 to 8"), ({"most": 0}, "Expected most >= 1")):
        with pytest.raises(ValueError, match=text):
            plot.latents(flow, x, **arguments)


@pytest.fixture(scope="module")
def conditional():
    """x is normal around the context; the flow says so, of standard deviation 1."""
    flow = FlowModel(RealNVP(2, n_layers=2, hidden=(2,), context_dim=1))
    flow.compile(jit_compile=False)
    flow.adapt(np.array([[-1.0, -1.0], [1.0, 1.0]]), np.zeros([2, 1]))
    return flow


def test_calibration_of_a_conditional_flow(conditional, rng, tmp_path):
    context = rng.normal(size=(500, 1))
    x = rng.normal(size=(500, 2)) * [1.0, 2.0]
    figure = plot.calibration(conditional, x, context, labels=["a", "b"], path=tmp_path / "c.png")
    good, bad = figure.axes
    low, high = band_of(good)
    assert np.all((low <= counts_of(good)) & (counts_of(good) <= high))
    assert counts_of(bad)[[0, -1]].min() > 1.5 * high
    assert good.get_title().startswith("a: KS")
    with pytest.raises(ValueError, match="Expected a context"):
        plot.calibration(conditional, x)
    with pytest.raises(ValueError, match="Expected a label for each of 2"):
        plot.calibration(conditional, x, context, labels=["a"])


def test_coverage_of_flows_that_are_too_narrow(right, narrow, tmp_path):
    """In two dimensions regions of mass m of a normal hold 1 - (1 - m)^(s^2) of one that is 1 / s times as wide."""
    ax = plot.coverage(right, HELD_OUT, label="right")
    band = ax.collections[0].get_paths()[0].vertices

    def outside(line):
        x, y = line.get_data()
        at = np.unique(np.round(band[:, 0], 6))
        low, high = (np.array([pick(band[np.abs(band[:, 0] - a) < 1e-6, 1]) for a in at]) for pick in (np.min, np.max))
        return (y < np.interp(x, at, low) - 0.005) | (y > np.interp(x, at, high) + 0.005)

    assert not np.any(outside(ax.lines[1]))
    assert plot.coverage(narrow, HELD_OUT, label="narrow", ax=ax, path=tmp_path / "c.png") is ax
    m, share = ax.lines[2].get_data()
    np.testing.assert_allclose(share, 1.0 - (1.0 - m) ** 0.36, atol=0.08)
    assert np.mean(outside(ax.lines[2])) > 0.8
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["95 % if right", "right", "narrow"]
    assert ax.lines[1].get_linestyle() != ax.lines[2].get_linestyle()
    for arguments, text in (
        ({"level": 1.0}, r"Expected level in \(0, 1\)"),
        ({"n_draws": 0}, "Expected n_draws >= 1"),
        ({"x": np.zeros([3, 3])}, "Expected x of shape"),
    ):
        with pytest.raises(ValueError, match=text):
            plot.coverage(**{"flow": right, "x": HELD_OUT, **arguments})


def test_mixtures_have_no_latents_but_coverage(right):
    mixture = FlowMixture([right])
    mixture.compile(jit_compile=False)
    with pytest.raises(ValueError, match="Expected a FlowModel, with one latent space"):
        plot.latents(mixture, HELD_OUT)
    assert plot.coverage(mixture, HELD_OUT[:50]).lines
    with pytest.raises(ValueError, match="Expected a flow or mixture of events of one shape; got 3"):
        plot.calibration(3, HELD_OUT)


# Callbacks.


def fit(callbacks, x=X[:512], **kwargs):
    keras.utils.set_random_seed(0)
    flow = FlowModel(RealNVP(2, n_layers=2, hidden=(4,)))
    flow.compile(keras.optimizers.Adam(1e-2, use_ema=True, ema_momentum=0.9), jit_compile=False)
    return flow, flow.fit(x, callbacks=callbacks, verbose=0, validation_data=HELD_OUT, batch_size=512, **kwargs).history


def test_callbacks_draw_and_log(tmp_path):
    seen = []

    def picture(flow):
        seen.append(-float(np.mean(flow.log_prob(HELD_OUT))))
        return plot.density(flow, n_grid=5)

    callbacks = [
        plot.PlotDensity(HELD_OUT[:50], folder=tmp_path / "a", log_dir=tmp_path / "b", every=2, n_grid=10),
        plot.PlotDensity(picture=picture, folder=tmp_path / "a", name="mine"),
        plot.LatentDiagnostics(HELD_OUT, log_dir=tmp_path / "b", folder=tmp_path / "a", every=2),
    ]
    assert not any(map(hears_batches, callbacks))
    flow, logs = fit(callbacks, epochs=2)
    names = ["density_0002.png", "latents_0002.png", "mine_0001.png", "mine_0002.png"]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == names
    # The averaged weights, which are validated.
    np.testing.assert_allclose(seen, logs["val_loss"], atol=1e-4)
    for name in ("latent_ks", "latent_ks_mean", "latent_ks_0", "latent_ks_1"):
        assert np.isnan(logs[name]).tolist() == [True, False]
    assert logs["latent_ks"][1] == max(logs["latent_ks_0"][1], logs["latent_ks_1"][1])
    (events,) = ((tmp_path / "b").glob("*"),)
    tags = [
        value.tag
        for file in events
        for event in tf.compat.v1.train.summary_iterator(str(file))
        for value in event.summary.value
    ]
    assert {"density", "latents", "latent_ks"} <= set(tags)
    # Pictures take no random numbers from the training.
    plain, again = fit([], epochs=2)
    np.testing.assert_allclose(again["loss"], logs["loss"], rtol=1e-6)
    for a, b in zip(flow.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_callbacks_stop_with_the_fit(tmp_path):
    callbacks = [
        plot.LatentDiagnostics(HELD_OUT),
        keras.callbacks.EarlyStopping("latent_ks", mode="min", patience=0),
        plot.PlotDensity(folder=tmp_path, n_grid=5),
    ]
    _, logs = fit(callbacks, epochs=30, x=X)
    n = len(logs["loss"])
    assert n < 30
    assert len(list(tmp_path.iterdir())) == n


def test_bad_callbacks(monkeypatch, tmp_path):
    for make, text in (
        (lambda: plot.PlotDensity(), "Expected a folder or a log_dir"),
        (lambda: plot.PlotDensity(X, folder=tmp_path, picture=len), "options in the picture's function"),
        (lambda: plot.PlotDensity(folder=tmp_path, every=0), "Expected every >= 1"),
    ):
        with pytest.raises(ValueError, match=text):
            make()
    with pytest.raises(ValueError, match=r"Expected x of shape \[n, 2\]; got \[1200, 1\]"):
        fit([plot.LatentDiagnostics(HELD_OUT[:, :1])], epochs=1)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ImportError, match="Expected TensorBoard for log_dir"):
        plot.LatentDiagnostics(X, log_dir=tmp_path)
