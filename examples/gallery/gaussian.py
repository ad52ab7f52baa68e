"""The simplest flow: a Gaussian on the line, fitted by maximum likelihood.

One affine layer, x = mean + deviation * z, on a standard-normal base is a Gaussian with two weights. Gradient descent
on the negative log-likelihood must end where the formula says: at the sample's mean and its (biased) deviation.

    python examples/gallery/gaussian.py [--output DIR] [--quick]
"""

from __future__ import annotations

import math
from pathlib import Path

import keras
import numpy as np
from gallery import run, save
from matplotlib import pyplot as plt

from tfflows import FlowModel, datasets
from tfflows.bijectors import Elementwise
from tfflows.transformers import Affine

TRUTH = datasets.Gaussian1D(mean=3.0, std=0.5)
SHOWN = (0, 5, 20)  # steps whose densities are drawn, beside the last


def mean_and_deviation(flow) -> tuple[float, float]:
    """Of an affine flow, from where two latents go."""
    at_zero, at_one = flow.decode([[0.0], [1.0]]).numpy()[:, 0]
    return float(at_zero), float(at_one - at_zero)


class Way(keras.callbacks.Callback):
    """Where mean and deviation are before each step."""

    def on_train_begin(self, logs=None):
        self.steps = [mean_and_deviation(self.model)]

    def on_epoch_end(self, epoch, logs=None):
        self.steps.append(mean_and_deviation(self.model))


def fit(x, n_steps: int) -> tuple[FlowModel, np.ndarray]:
    """The flow, and mean and deviation `[n_steps + 1, 2]` on the way: one step is one look at all the data."""
    flow = FlowModel(Elementwise(Affine(), 1))  # no Standardize before it, which would know the answer
    schedule = keras.optimizers.schedules.CosineDecay(0.3, n_steps)
    flow.compile(keras.optimizers.Adam(schedule))
    way = Way()
    flow.fit(x, batch_size=len(x), epochs=n_steps, callbacks=[way], verbose=0)
    return flow, np.array(way.steps)


def draw(x, path):
    """Densities on the way, and the way of both weights."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.6), layout="constrained")
    left.hist(x[:, 0], bins=30, density=True, color="0.85", label="data")
    grid = np.linspace(-2.5, 5.5, 400)
    for step, style in zip([*SHOWN, len(path) - 1], (":", "--", "-.", "-"), strict=True):
        mean, deviation = path[min(step, len(path) - 1)]
        density = np.exp(-0.5 * ((grid - mean) / deviation) ** 2) / (deviation * math.sqrt(2.0 * math.pi))
        left.plot(grid, density, color="k", linestyle=style, label=f"step {step}")
    left.set(xlabel="x", ylabel="density", title="the flow's density on the way")
    left.legend(frameon=False)
    for i, (name, style) in enumerate((("mean", "-"), ("deviation", "--"))):
        right.plot(path[:, i], color="k", linestyle=style, label=f"the flow's {name}")
        right.axhline((x.mean(), x.std())[i], color="tab:orange", linewidth=4, alpha=0.5, zorder=0)
        right.annotate(f"sample {name}", (len(path) - 1, (x.mean(), x.std())[i]), (0, 6), ha="right",
                       textcoords="offset points")  # fmt: skip
    right.set(xlabel="step", title="gradient descent on the negative log-likelihood", ylim=(0.0, None))
    right.legend(frameon=False, loc="center right")
    return figure


def main(output: Path, *, quick: bool) -> None:
    x = TRUTH.sample(1000, seed=0)
    flow, path = fit(x, 5 if quick else 200)
    mean, deviation = path[-1]
    print(f"{'':<10}{'mean':>10}{'deviation':>12}{'NLL, nats':>12}")
    of_sample = 0.5 * math.log(2.0 * math.pi * math.e * x.var())  # the least that any Gaussian can have here
    print(f"{'flow':<10}{mean:>10.5f}{deviation:>12.5f}{-flow.log_prob(x).numpy().mean():>12.5f}")
    print(f"{'sample':<10}{x.mean():>10.5f}{x.std():>12.5f}{of_sample:>12.5f}")
    print(f"{'truth':<10}{TRUTH.mean:>10.5f}{TRUTH.std:>12.5f}{-TRUTH.log_prob(x).mean():>12.5f}")
    save(draw(x, path), output / "gaussian.png")


if __name__ == "__main__":
    run(main, __doc__)
