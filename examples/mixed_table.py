"""A table of mixed columns in one flow: real, circular, positive, between bounds, whole numbers, categories.

The rows come from a generator whose density is known: taxi rides that never took place. So the flow's distance from
the truth is a number, the Kullback-Leibler divergence in nats, of continuous columns and probabilities together.

    python examples/mixed_table.py [--output DIR] [--quick]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import keras
import matplotlib
import numpy as np
from scipy import stats
from scipy.special import expit

from tfflows import CouplingRQNSF, Domain, FlowModel, MaskedAutoregressiveRQNSF

matplotlib.use("Agg")
from matplotlib import pyplot as plt

COLUMNS = {
    "temperature": Domain.real(),
    "hour": Domain.circular(24.0),
    "kilometres": Domain.positive(),
    "tip, share": Domain.interval(0.0, 1.0),
    "passengers": Domain.integer(1, 6),
    "payment": Domain.categorical(4),
}
N_ROWS, N_TEST = 20_000, 20_000
PAYMENTS = np.array([0.55, 0.3, 0.1, 0.05])


def parts(payment, temperature, hour):
    """The conditional distributions of a ride, in the order in which they are drawn."""
    angle = 2.0 * np.pi * hour / 24.0
    return {
        "temperature": lambda: stats.norm(np.array([15.0, 12.0, 5.0, 20.0])[payment], 5.0),
        "hour": lambda: stats.vonmises(2.0, loc=2.0 * np.pi * 18.0 / 24.0 + 0.05 * (temperature - 15.0)),
        "kilometres": lambda: stats.lognorm(0.6, scale=np.exp(1.0 + 0.6 * np.cos(angle))),
        "tip, share": lambda: stats.beta(np.array([4.0, 1.5, 2.0, 6.0])[payment], 6.0),
        "passengers": lambda: stats.binom(5, expit(-1.5 + 0.8 * np.sin(angle) + 0.06 * (temperature - 15.0)), loc=1),
    }


def draw(n, seed):
    """Rows `[n, 6]`."""
    rng = np.random.default_rng(seed)
    payment = rng.choice(4, n, p=PAYMENTS)
    temperature = parts(payment, None, 0.0)["temperature"]().rvs(random_state=rng)
    angle = parts(payment, temperature, 0.0)["hour"]().rvs(random_state=rng)
    hour = np.mod(angle * 24.0 / (2.0 * np.pi), 24.0)
    rest = parts(payment, temperature, hour)
    rest = [rest[name]().rvs(size=n, random_state=rng) for name in ("kilometres", "tip, share", "passengers")]
    return np.stack([temperature, hour, *rest, payment], axis=1).astype(np.float32)


def log_truth(x):
    """The logarithm of density times probability of rows `[n, 6]`."""
    temperature, hour, kilometres, tip, passengers, payment = x.astype(np.float64).T
    payment = payment.astype(int)
    of = parts(payment, temperature, hour)
    angle = 2.0 * np.pi * hour / 24.0
    return (
        np.log(PAYMENTS[payment])
        + of["temperature"]().logpdf(temperature)
        + of["hour"]().logpdf(angle)
        + np.log(2.0 * np.pi / 24.0)
        + of["kilometres"]().logpdf(kilometres)
        + of["tip, share"]().logpdf(tip)
        + of["passengers"]().logpmf(passengers)
    )


def features(x):
    """Numbers whose correlations mean something: of the hour cosine and sine, of payments one column each."""
    angle = 2.0 * np.pi * x[:, 1] / 24.0
    one_hot = x[:, 5:] == np.arange(4)
    names = ["temperature", "cos hour", "sin hour", "log km", "tip", "passengers", *(f"payment {i}" for i in range(4))]
    columns = [x[:, 0], np.cos(angle), np.sin(angle), np.log(x[:, 2] + 1e-3), x[:, 3], x[:, 4]]
    return names, np.concatenate([np.stack(columns, axis=1), one_hot], axis=1)


def picture(data, samples, path):
    """Marginals of data and samples, and the correlations of both."""
    figure, axes = plt.subplots(2, 4, figsize=(15, 7), layout="constrained")
    for i, (name, domain) in enumerate(COLUMNS.items()):
        axis = axes.flat[i + (i > 2)]
        if domain.kind == "integers":
            edges = np.arange(domain.low - 0.5, domain.high + 1.0)
        else:
            edges = np.linspace(*np.quantile(data[:, i], [0.0, 0.998]), 50)
        axis.hist(data[:, i], edges, density=True, alpha=0.4, label="data")
        axis.hist(samples[:, i], edges, density=True, histtype="step", linewidth=1.5, color="k", label="samples")
        axis.set(title=name, yticks=[])
    axes[0, 0].legend()
    names, of_data = features(data)
    found = [np.corrcoef(of_data.T), np.corrcoef(features(samples)[1].T)]
    for axis, matrix, title in zip(axes[:, 3], found, ("correlations of the data", "of the samples"), strict=True):
        shown = axis.imshow(matrix, vmin=-1.0, vmax=1.0, cmap="RdBu_r")
        axis.set(title=title, xticks=[], yticks=range(len(names)), yticklabels=names)
    figure.colorbar(shown, ax=axes[:, 3])
    figure.savefig(path, dpi=90)
    plt.close(figure)
    return float(np.max(np.abs(found[0] - found[1])))


def main(output: Path, *, quick: bool) -> None:
    output.mkdir(parents=True, exist_ok=True)
    train, test = draw(N_ROWS, 0), draw(2000 if quick else N_TEST, 1)
    truth = log_truth(test)
    print(f"The generator's own log-likelihood: {truth.mean():.3f} nats.")
    for preset in (CouplingRQNSF, MaskedAutoregressiveRQNSF):
        keras.utils.set_random_seed(0)
        flow = FlowModel(preset(len(COLUMNS), n_layers=3, hidden=(64, 64)), domain=list(COLUMNS.values()))
        started = time.perf_counter()
        flow.fit(train, epochs=3 if quick else None, verbose=0)
        seconds = time.perf_counter() - started
        away = truth - flow.log_prob(test, batch_size=1024).numpy()
        error = away.std() / np.sqrt(len(away))
        print(f"{preset.__name__}: KL(truth | flow) {away.mean():.4f} +- {error:.4f} nats, fitted in {seconds:.0f} s.")
    samples = flow.sample(len(test), seed=0).numpy()
    path = output / "mixed_table.png"
    worst = picture(test, samples, path)
    print(f"Correlations of samples and data differ by at most {worst:.3f}. Picture: {path}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("output"), help="folder for the picture")
    parser.add_argument("--quick", action="store_true", help="three epochs, fewer rows to test on")
    arguments = parser.parse_args()
    main(arguments.output, quick=arguments.quick)
