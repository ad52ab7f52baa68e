"""Real and toy data for the benchmarks, prepared as the papers prepare them, and closed forms to stand beside."""

from __future__ import annotations

import io
import pathlib
import zipfile

import numpy as np

GREY = (0.298936, 0.587043, 0.114021)  # of red, green and blue, as the published BSDS300 patches have it


def two_moons() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """4000 training and 10,000 test rows of scikit-learn's moons, standardised; the test rows' true log-densities."""
    from sklearn.datasets import make_moons

    from tfflows import datasets

    (train, _), (test, _) = (make_moons(n, noise=0.1, random_state=i) for i, n in enumerate((4000, 10_000)))
    location, scale = train.mean(axis=0), train.std(axis=0)
    exact = datasets.TwoMoons(0.1).log_prob(test) + np.log(scale).sum()
    return *(((x - location) / scale).astype(np.float32) for x in (train, test)), exact


def load_power(folder: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """POWER as the MAF paper prepares it: float32 training (1,659,917), validation and test rows of 6 scalars.

    The published array held a time of day with noise that nobody can draw again; here it is one uniform
    minute. Everything else, the order of the rows and of the random draws included, is as published.
    """
    path = pathlib.Path(folder) / "power" / "power_raw_int.npz"
    if not path.exists():
        raise FileNotFoundError(f"Expected the POWER data in {path}; see benchmarks/README.md for how to make it.")
    raw = np.load(path)
    columns = [
        raw["gap_milli_kw"] / 1000.0,
        raw["voltage_centi_v"] / 100.0,
        *(raw[key].astype(np.float64) for key in ("sub1", "sub2", "sub3", "minute_of_day")),
    ]
    n = len(columns[0])
    rng = np.random.RandomState(42)
    order = np.arange(n)
    rng.shuffle(order)
    x = np.stack(columns, axis=1)[order]
    # Drawn in this order, which is not that of the columns.
    voltage, active_power, sub_meters = 0.01 * rng.rand(n, 1), 0.001 * rng.rand(n, 1), rng.rand(n, 3)
    minute = np.random.RandomState(0).rand(n, 1)
    x += np.hstack([active_power, voltage, sub_meters, minute])
    n_test = n // 10
    n_validation = (n - n_test) // 10
    rest, test = np.split(x, [n - n_test])
    location, scale = rest.mean(axis=0), rest.std(axis=0)
    parts = (*np.split(rest, [len(rest) - n_validation]), test)
    return tuple(((part - location) / scale).astype(np.float32) for part in parts)


def load_bsds300(folder: str, n_train: int = 1_000_000, n_validation: int = 50_000, n_test: int = 250_000):
    """BSDS300 as the MAF paper prepares it, from random patches of our own: float32 rows of 63 scalars.

    8 x 8 patches of grey images, dequantised, between 0 and 1, less their mean, without the last pixel. Training and
    validation patches are of different images.
    """
    from PIL import Image

    path = pathlib.Path(folder) / "bsds300" / "bsds300_jpeg.zip"
    if not path.exists():
        raise FileNotFoundError(f"Expected the BSDS300 images in {path}; see benchmarks/README.md.")
    images = {"train": [], "test": []}
    with zipfile.ZipFile(path) as file:
        for name in sorted(file.namelist()):
            if name.endswith(".jpg"):
                rgb = np.asarray(Image.open(io.BytesIO(file.read(name))).convert("RGB"), np.float64)
                images[name.split("/")[0]].append(np.rint(rgb @ GREY).astype(np.uint8))
    sources = (images["train"][:180], n_train), (images["train"][180:], n_validation), (images["test"], n_test)
    return tuple(_patches(*source, np.random.default_rng(seed)) for seed, source in enumerate(sources, start=1))


def _patches(images: list[np.ndarray], n: int, rng: np.random.Generator) -> np.ndarray:
    which = rng.integers(0, len(images), n)
    rows = []
    for i, image in enumerate(images):
        windows = np.lib.stride_tricks.sliding_window_view(image, (8, 8))
        count = int(np.sum(which == i))
        row, column = rng.integers(0, windows.shape[0], count), rng.integers(0, windows.shape[1], count)
        rows.append(windows[row, column].reshape(count, 64))
    x = rng.permutation(np.concatenate(rows)).astype(np.float32)
    x = (x + rng.random(x.shape, dtype=np.float32)) / 256.0
    return (x - x.mean(axis=1, keepdims=True))[:, :-1]


def gaussian_log_prob(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Log-densities of the test rows under a Gaussian fitted to the training rows."""
    train, test = train.astype(np.float64), test.astype(np.float64)
    factor = np.linalg.cholesky(np.cov(train.T))
    z = np.linalg.solve(factor, (test - train.mean(axis=0)).T)
    return -0.5 * (z**2).sum(axis=0) - np.log(np.diag(factor)).sum() - 0.5 * len(z) * np.log(2.0 * np.pi)


def summarize(log_prob: np.ndarray) -> dict:
    """Mean and two standard errors, as numbers and as text."""
    mean = float(np.mean(log_prob, dtype=np.float64))
    two_errors = float(2.0 * np.std(log_prob, dtype=np.float64) / np.sqrt(len(log_prob)))
    if not np.isfinite(mean):
        raise FloatingPointError("the test log-likelihood is not finite")
    return {"test_ll": mean, "two_errors": two_errors, "result": f"{mean:.3f} +- {two_errors:.3f}"}
