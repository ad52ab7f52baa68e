"""Pictures of point clouds."""

import numpy as np
import pytest
from matplotlib import pyplot as plt
from PIL import Image

from tfflows import datasets, plot


@pytest.fixture(scope="module")
def clouds():
    return datasets.shapes(6, 200, seed=0)[0]


def canvas(figure):
    plt.close(figure)
    return np.asarray(figure.axes[0].images[0].get_array())


def test_clouds_are_a_grid(clouds, tmp_path):
    figure = plot.clouds(clouds, n_columns=3, title="six", path=tmp_path / "grid.png", size=40)
    assert (tmp_path / "grid.png").stat().st_size > 1000
    picture = canvas(figure)
    assert picture.dtype == np.uint8
    assert 2 * 40 < picture.shape[1] <= 3 * 40 + 8  # the longer side of a cell is 40 wide or high
    assert 0.02 < (picture < 250).any(axis=-1).mean() < 0.7
    different = plot.clouds([clouds[0], clouds[1, :50]], size=40)  # clouds of different sizes
    assert canvas(different).shape[1] > 40


def test_strips_and_views(clouds):
    strips = clouds.reshape(2, 3, 200, 3)
    views = ((20, -60), (90, -90))
    one, two = (
        canvas(plot.clouds(strips, rows=["a", "b"], views=v, colours=["r", "b"], size=32)) for v in (views[:1], views)
    )
    red, blue = np.split(one, 2)
    assert red[..., 0].mean() > red[..., 2].mean()
    assert blue[..., 0].mean() < blue[..., 2].mean()
    assert two.shape[1] > 1.5 * one.shape[1]
    assert len(plot.clouds(strips, rows=["a", "b"], size=32).axes[0].get_yticks()) == 2
    plt.close("all")


def test_directions_and_depth_of_a_picture():
    # A near point and a far one, one on the right, one on top, as seen from the first axis's far end.
    x = np.array([[3.0, 0.0, -3.0], [-3.0, 0.0, 3.0], [0.0, 3.0, 0.0], [0.0, -3.0, 0.0]])
    picture = canvas(plot.clouds(x[None], views=[(0, 0)], size=60, radius=0.05, colours="black")).astype(int)
    dark = 255 - picture.min(axis=-1)
    assert dark[30:, 20:40].max() > dark[:30, 20:40].max() + 50  # the near one is below, and darker
    assert dark[:, 45:].max() > 0
    assert dark[:, :15].max() > 0
    assert np.ptp(picture, axis=-1).max() == 0  # black stays grey

    # The nearer of two balls hides the other, whatever their order.
    x = np.array([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 2.0, 2.0], [0.0, -2.0, -2.0]])
    for cloud in (x, x[::-1]):
        picture = canvas(plot.clouds([cloud], views=[(0, 0)], size=60, radius=0.05, colours="black"))
        assert picture[30, 30].max() == 0


def test_a_point_far_away_leaves_the_rest_as_it_was(clouds):
    x = clouds[:1].repeat(5, axis=1)
    far = x.copy()
    far[0, 0] = 1e30
    far[0, 1] = -1e30
    assert (canvas(plot.clouds(far, size=40)) < 250).any(axis=-1).mean() > 0.05
    picture = canvas(plot.clouds(np.zeros([1, 3, 3]), size=40))  # one place
    assert (picture < 250).any()


def test_rotating_is_a_gif_written_whole(clouds, tmp_path):
    path = plot.rotating(clouds[:2], tmp_path / "turn.gif", n_frames=5, seconds=1.0, size=40)
    with Image.open(path) as image:
        assert image.n_frames == 5
        assert image.info["duration"] == 200
        assert image.info["loop"] == 0
        assert image.size[0] in range(41, 81)
        frames = []
        for i in range(5):
            image.seek(i)
            frames.append(np.asarray(image.convert("L"), int))
    assert all(np.abs(frames[0] - frame).mean() > 1.0 for frame in frames[1:])
    assert plot.rotating(clouds[0], str(path), n_frames=2, size=40) == path  # one cloud, over the file
    with pytest.raises(FileNotFoundError):
        plot.rotating(clouds[0], tmp_path / "nowhere" / "turn.gif", n_frames=2, size=40)
    assert [p.name for p in tmp_path.iterdir()] == ["turn.gif"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"x": np.zeros([5, 3])}, r"Expected clouds \[n, P, 3\] or strips .*; got a cloud of shape \(3,\)."),
        ({"x": np.zeros([2, 5, 2])}, r"got a cloud of shape \(5, 2\)."),
        ({"x": np.zeros([0, 5, 3])}, "Expected clouds"),
        ({"x": []}, "Expected clouds"),
        ({"x": np.zeros([2, 0, 3])}, r"got a cloud of shape \(0, 3\)."),
        ({"x": np.full([2, 5, 3], np.nan)}, "Expected finite points; got NaN or inf."),
        ({"rows": ["a"]}, "Expected a text for each of 2 rows; got 1."),
        ({"n_columns": 0}, "Expected n_columns >= 1, a whole number; got 0."),
        ({"views": ()}, "Expected views"),
        ({"views": (20, -60)}, r"Expected views \(elevation, azimuth\), in degrees; got \[20.0, -60.0\]."),
        ({"views": [(np.nan, 0)]}, "Expected views"),
        ({"colours": ["red"] * 3}, "Expected one colour, or one for each of 4; got"),
        ({"colours": ["nothing"]}, "Expected one colour"),
        ({"size": 4}, "Expected a whole size >= 8 and a radius between 0 and 0.5; got 4"),
        ({"radius": 0.0}, "Expected a whole size"),
    ],
)
def test_bad_arguments(arguments, text):
    with pytest.raises(ValueError, match=text):
        plot.clouds(**{"x": np.zeros([4, 5, 3]), "n_columns": 2, **arguments})


def test_bad_rotations(clouds, tmp_path):
    for arguments, text in (
        ({"n_frames": 1}, "Expected n_frames >= 2, .*; got 1"),
        ({"n_frames": 2.5}, "a whole number; got 2.5"),
        ({"seconds": 0.0}, "Expected seconds > 0"),
        ({"elevation": np.nan}, "a finite elevation"),
        ({"x": clouds[None]}, "Expected clouds .*; got strips"),
        ({"x": []}, "Expected clouds"),
        ({"path": tmp_path / "a.txt"}, "Expected a path ending in .gif; got .*a.txt"),
    ):
        with pytest.raises(ValueError, match=text):
            plot.rotating(**{"x": clouds, "path": tmp_path / "a.gif", **arguments})
    assert list(tmp_path.iterdir()) == []
