"""What the scripts of the gallery share: their two options, and how numbers and pictures come out."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import keras
import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity


def run(main: Callable, doc: str) -> None:
    """Calls `main(output, quick=...)` with what the command line says; every run starts from the same seed."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("output"), help="folder for the picture")
    parser.add_argument("--quick", action="store_true", help="seconds, with numbers that mean little")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    matplotlib.use("Agg")  # here, not above: notebooks import this module too
    keras.utils.set_random_seed(0)
    main(arguments.output, quick=arguments.quick)


def with_error(values) -> str:
    """The mean of independent values, with its standard error."""
    values = np.asarray(values, np.float64)
    return f"{values.mean():.3f} +- {values.std(ddof=1) / np.sqrt(len(values)):.3f}"


def save(figure, path: Path) -> None:
    """Writes and closes a figure."""
    figure.savefig(path, dpi=100)
    plt.close(figure)
    print(f"Picture: {path}")


def kernel_density(x) -> Callable:
    """The log-density of a Gaussian kernel estimate of rows `[n, D]`, its bandwidth chosen by cross-validation."""
    mean, deviation = x.mean(axis=0), x.std(axis=0)
    widths = {"bandwidth": np.geomspace(0.02, 1.0, 12)}
    model = GridSearchCV(KernelDensity(rtol=1e-4), widths).fit((x - mean) / deviation).best_estimator_
    return lambda rows: model.score_samples((rows - mean) / deviation) - np.log(deviation).sum()


def falling(learning_rate: float, n_rows: int, epochs: int, batch_size: int = 256) -> keras.optimizers.Optimizer:
    """Adam whose learning rate falls to zero over the epochs, along a cosine."""
    n_steps = epochs * -(-n_rows // batch_size)
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, n_steps)
    return keras.optimizers.Adam(schedule, global_clipnorm=5.0)
