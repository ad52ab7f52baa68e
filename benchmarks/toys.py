"""How close `fit(x)` alone comes to densities that are known exactly.

    python benchmarks/toys.py

Nothing but `FlowModel(CouplingRQNSF(n_dim)).fit(x)`, with three seeds: two moons as scikit-learn draws them, where
published comparisons stand, and, with a limit of 60 s of training, the Kullback-Leibler divergence from
the truth on the lecture's four modes and on two moons. Results: `results/toys.md`, `.json`.
"""

from __future__ import annotations

import functools
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import peers
from sklearn.datasets import make_moons

from tfflows import CouplingRQNSF, FlowModel, datasets

SEEDS = (0, 1, 2)
TIME_LIMIT = 60.0  # s
N_TEST = 100_000

COLUMNS = {
    "data": "data",
    "rows": "rows",
    "seed": "seed",
    "seconds": "fit, s",
    "epochs": "epochs",
    "nll": "test NLL, nats",
    "truth": "NLL of the truth",
    "kl": "KL from the truth, nats",
}
NOTES = """
The fit's seconds include compiling. NLL of the truth: minus the mean exact log-density of the same test
rows; KL: the mean difference, +- two standard errors. Standardised: by mean and deviation of the training rows.
"""


class TimeLimit(keras.callbacks.Callback):
    """Ends a fit that would take longer; the best weights so far are kept."""

    def on_train_begin(self, logs=None):
        self.started = time.perf_counter()
        self.longest = 0.0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch_started = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        now = time.perf_counter()
        self.longest = now - self.epoch_started
        if now - self.started + self.longest > TIME_LIMIT:
            self.model.stop_training = True


def fit_and_score(train, test, exact, seed, callbacks=()) -> dict:
    """One line of the table; `exact` gives the true log-densities of `test`."""
    keras.utils.set_random_seed(seed)
    flow = FlowModel(CouplingRQNSF(train.shape[1]))
    started = time.perf_counter()
    history = flow.fit(train, verbose=0, callbacks=list(callbacks))
    seconds = time.perf_counter() - started
    truth = exact(test)
    excess = truth - flow.log_prob(test).numpy()
    two_errors = 2.0 * excess.std() / np.sqrt(len(excess))
    return {
        "rows": len(train),
        "seed": seed,
        "seconds": round(seconds, 1),
        "epochs": len(history.history["loss"]),
        "nll": round(float(np.mean(excess - truth)), 4),
        "truth": round(float(-truth.mean()), 4),
        "kl": f"{excess.mean():.4f} +- {two_errors:.4f}",
    }


def main() -> None:
    rows = []
    (train, _), (test, _) = (make_moons(n, noise=0.1, random_state=i) for i, n in enumerate((4000, 10_000)))
    location, scale = train.mean(axis=0), train.std(axis=0)

    def exact(z):
        return datasets.TwoMoons(0.1).log_prob(z * scale + location) + np.log(scale).sum()

    cases = [
        ("two moons of scikit-learn, standardised", (train - location) / scale, (test - location) / scale, exact, ())
    ]
    for toy in (datasets.FourModes1D(), datasets.TwoMoons(0.1)):
        name = f"{type(toy).__name__}, at most {TIME_LIMIT:.0f} s"
        cases.append((name, toy.sample(20_000, seed=0), toy.sample(N_TEST, seed=1), toy.log_prob, (TimeLimit,)))
    write = functools.partial(peers.write_results, peers.RESULTS / "toys", "Known densities", COLUMNS)
    facts = peers.machine() | {"versions": peers.versions("tfflows", "tensorflow", "keras")}
    for name, train_rows, test_rows, log_prob, callbacks in cases:
        lines = []
        for seed in SEEDS:
            lines.append(
                {"data": name} | fit_and_score(train_rows, test_rows, log_prob, seed, [c() for c in callbacks])
            )
            print(lines[-1], flush=True)
        mean = round(float(np.mean([line["nll"] for line in lines])), 4)
        kl = f"{np.mean([float(line['kl'].split()[0]) for line in lines]):.4f}"
        rows += [*lines, {"data": name, "seed": "mean", "nll": mean, "truth": lines[0]["truth"], "kl": kl}]
        write(rows, facts, NOTES)


if __name__ == "__main__":
    main()
