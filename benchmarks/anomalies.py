"""Anomalies: a flow beside isolation forest, local outlier factor and ECOD, on ten labelled tables.

    python benchmarks/anomalies.py --data DIR

Semi-supervised: half of the normal rows to fit, the other half and all anomalies to test, in several random splits.
Nobody sees a label; all methods have the same rows and one setting for all tables. Results: `results/anomalies.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import peers

TABLES = (
    "breastw", "glass", "Stamps", "vowels", "thyroid", "PageBlocks", "satimage-2", "mammography", "magic.gamma",
    "shuttle",
)  # fmt: skip
SPLITS = (10, 11)
BASELINES = ("forest", "lof", "ecod")
NOISE = 0.3  # added to the flow's training rows, in standard deviations of each column
N_ROWS = 20_000  # that the training rows are repeated to, each with noise of its own
RATE = 0.05  # of false alarms asked for
MEANS = ("flow", *BASELINES, "density", "latent", "false", "forest_false", "found")
COLUMNS = {
    "table": "table",
    "rows": "normal rows",
    "anomalies": "anomalies",
    "columns": "columns",
    "flow": "flow",
    "forest": "isolation forest",
    "lof": "LOF",
    "ecod": "ECOD",
    "winner": "best",
    "density": "flow, density alone",
    "latent": "flow, latent alone",
    "false": "flow, false alarms at 0.05",
    "forest_false": "forest, false alarms",
    "found": "flow, anomalies flagged",
}
NOTES = """
ROC-AUC, mean over the splits +- their standard deviation. Of the rows to fit, a fifth is kept for calibration, by all
methods. The flow is `MAF(n_dim, n_layers=5, hidden=(64, 64))`, trained on rows with noise of 0.3 standard deviations of
each column, which smooths the density as a kernel does and makes repeated values continuous, with a tenth of the rows
kept to stop early. Its score is the mean of `questions.Density()` and `questions.Latent()` of standardised columns;
each alone is in the table too. Isolation forest and local outlier factor (20 neighbours, standardised columns) are
scikit-learn's with default arguments, ECOD is that of Li et al. (2022). "False alarms" are normal test rows flagged by
`outliers(rate=0.05)`, or with the same p-values by the forest; of 31 calibration rows 0.03 are expected, since p-values
are multiples of 1/32. Noise, layers and score were chosen on other splits of the same tables (0 and 1), with labels.
"""


def split(x: np.ndarray, y: np.ndarray, seed: int):
    """Rows to fit, to calibrate on, to test, and the labels of the last."""
    normal = np.random.default_rng(seed).permutation(x[y == 0])
    half = len(normal) // 2
    n_held = max(half // 5, 20)
    test = np.concatenate([normal[half:], x[y == 1]])
    labels = np.repeat([0, 1], [len(normal) - half, int(np.sum(y == 1))])
    return normal[n_held:half], normal[:n_held], test, labels


def ecod(train: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Minus the log of empirical tail probabilities, added up over columns: the largest of left, right, by skewness.

    Reference:
      Li et al. (2022), ECOD, https://arxiv.org/abs/2201.00382
    """
    ordered, n = np.sort(train, axis=0), len(train)
    columns = range(train.shape[1])
    left = np.stack([np.searchsorted(ordered[:, j], rows[:, j], side="right") for j in columns], axis=1)
    right = n - np.stack([np.searchsorted(ordered[:, j], rows[:, j], side="left") for j in columns], axis=1)
    left, right = (-np.log(np.maximum(count, 1) / (n + 1)) for count in (left, right))
    skew = np.mean((train - train.mean(axis=0)) ** 3, axis=0)
    return np.max([left.sum(axis=1), right.sum(axis=1), np.where(skew < 0.0, left, right).sum(axis=1)], axis=0)


def fit_flow(train: np.ndarray, seed: int):
    """The flow, fitted to standardised rows with noise."""
    import keras

    import tfflows

    rng = np.random.default_rng(seed)
    keras.utils.set_random_seed(seed)

    def noisy(rows, n):
        rows = np.repeat(rows, -(-n // len(rows)), axis=0)
        return (rows + NOISE * rng.normal(size=rows.shape)).astype(np.float32)

    n_held = max(len(train) // 10, 5)
    flow = tfflows.FlowModel(tfflows.MAF(train.shape[1], n_layers=5, hidden=(64, 64)))
    stop = keras.callbacks.EarlyStopping("val_loss", patience=6, restore_best_weights=True)
    held_out = noisy(train[:n_held], N_ROWS // 10)
    flow.fit(
        noisy(train[n_held:], N_ROWS), validation_data=held_out, batch_size=512, epochs=40, callbacks=[stop], verbose=0
    )
    return flow


def work(settings: dict) -> dict:
    """All methods on one split of one table."""
    from sklearn.ensemble import IsolationForest
    from sklearn.metrics import roc_auc_score
    from sklearn.neighbors import LocalOutlierFactor

    from tfflows import questions

    peers.limit_threads("tfflows", 1)
    with np.load(settings["path"]) as file:
        x, y = (file[f"{settings['table']}__{key}"] for key in "xy")
    train, held_out, test, labels = split(x.astype(np.float64), y, settings["split"])
    scale = np.where(train.std(axis=0) > 0.0, train.std(axis=0), 1.0)
    train_z, held_z, test_z = ((rows - train.mean(axis=0)) / scale for rows in (train, held_out, test))
    forest = IsolationForest(random_state=settings["split"]).fit(train)
    neighbours = LocalOutlierFactor(novelty=True).fit(train_z)
    scores = {
        "forest": -forest.score_samples(test),
        "lof": -neighbours.score_samples(test_z),
        "ecod": ecod(train, test),
    }
    flow = fit_flow(train_z, settings["split"])
    density, latent = questions.Density(), questions.Latent()
    found = flow.outliers(
        test_z.astype(np.float32),
        calibration=held_z.astype(np.float32),
        rate=RATE,
        score=lambda *rows: 0.5 * (density(*rows) + latent(*rows)),
    )
    scores |= {"flow": found.scores}
    scores |= {k: s(flow, test_z.astype(np.float32), None) for k, s in (("density", density), ("latent", latent))}
    theirs = questions.p_values(scores["forest"], -forest.score_samples(held_out))
    return {key: float(roc_auc_score(labels, score)) for key, score in scores.items()} | {
        "false": float(found.flags[labels == 0].mean()),
        "found": float(found.flags[labels == 1].mean()),
        "forest_false": float(np.mean(theirs[labels == 0] <= RATE)),
    }


def summarize(found: list[dict]) -> dict:
    """One line of the table from its splits."""
    mean = {key: float(np.mean([each[key] for each in found])) for key in found[0]}
    line = {key: f"{value:.3f}" for key, value in mean.items()}
    if len(found) > 1:
        for key in ("flow", *BASELINES):
            line[key] += f" +- {np.std([each[key] for each in found], ddof=1):.3f}"
    return line | {"winner": max(("flow", *BASELINES), key=mean.get)}


def average(lines: list[dict]) -> dict:
    """The mean over tables, and on how many of them each of the flow's scores is at least as good as all baselines."""
    each = {key: [np.mean([found[key] for found in line["found_each"]]) for line in lines] for key in MEANS}
    best = np.max([each[key] for key in BASELINES], axis=0)
    means = {key: f"{np.mean(values):.3f}" for key, values in each.items()}
    for key in ("flow", "density", "latent"):
        means[key] += f", best on {np.sum(each[key] >= best)} of {len(lines)}"
    return {"table": "mean"} | means


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("TFFLOWS_DATA"), help="folder of the data, or TFFLOWS_DATA")
    parser.add_argument("--tables", nargs="+", default=list(TABLES))
    parser.add_argument("--splits", type=int, nargs="+", default=list(SPLITS))
    parser.add_argument("--output", type=pathlib.Path, default=peers.RESULTS / "anomalies", help="without a suffix")
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker is not None:
        print(json.dumps(work(args.worker)))
        return
    if args.data is None:
        sys.exit("Expected --data DIR or the environment variable TFFLOWS_DATA; see benchmarks/README.md.")
    path = pathlib.Path(args.data) / "anomalies" / "tables.npz"
    facts = {"splits": args.splits} | peers.versions("scikit-learn", "tensorflow") | peers.machine()
    lines = []
    with np.load(path) as file:
        for table in args.tables:
            labels = file[f"{table}__y"]
            sizes = {"rows": int(np.sum(labels == 0)), "anomalies": int(labels.sum())}
            lines.append({"table": table, **sizes, "columns": file[f"{table}__x"].shape[1], "found_each": []})
    for number in args.splits:
        for line in lines:
            settings = {"path": str(path), "table": line["table"], "split": number}
            found = peers.run_worker(sys.executable, __file__, settings, n_threads=1, timeout=1800.0)
            print(line["table"], number, found, flush=True)
            if "error" in found:
                line["error"] = found["error"]
            else:
                line["found_each"].append(found)
                line |= summarize(line["found_each"])
            done = [each for each in lines if each["found_each"] or "error" in each]
            complete = [each for each in done if each["found_each"]]
            rows = [*done, average(complete)] if complete else done
            peers.write_results(args.output, "Anomalies", COLUMNS, rows, facts, NOTES)


if __name__ == "__main__":
    main()
