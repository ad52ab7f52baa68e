"""Outliers at a known rate of false alarms: handwritten digits of a kind that the flow has not seen.

    python examples/gallery/outliers.py [--output DIR] [--quick]

A flow learns odd digits, as 20 numbers each (principal components). `flow.outliers` flags images whose score is rare
among odd digits that the flow was not fitted to, so 5 % of new odd digits are flagged: whatever the score, however good
the flow. What the score decides is how many even digits are found. Beside the flow stand, by the same rule, a
Gaussian's distance (Mahalanobis) and an isolation forest; then odd and even change places. Tables:
benchmarks/anomalies.py, where forests are ahead on half of them; pictures that are turned:
examples/bayes_classifier.py.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from gallery import falling, run, save
from matplotlib import pyplot as plt
from sklearn.covariance import EmpiricalCovariance
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score

from tfflows import MAF, FlowModel, datasets, questions

RATE = 0.05
N_COLUMNS = 20
N_FITTED, N_HELD_OUT = 4000, 1500  # images of both kinds; the other 1500 are tested
NOISE, N_COPIES = 0.1, 10  # each row is repeated with noise, which smooths the density


def fit(x, *, quick: bool) -> FlowModel:
    epochs = 1 if quick else 15
    copies = np.repeat(x, 1 if quick else N_COPIES, axis=0)
    copies += NOISE * np.random.default_rng(0).normal(size=copies.shape)
    flow = FlowModel(MAF(N_COLUMNS, n_layers=2 if quick else 5, hidden=(128,)))
    flow.compile(falling(1e-3, len(copies), epochs))
    flow.fit(copies, epochs=epochs, verbose=0)
    return flow


def scores(x) -> dict:
    """What makes a row strange, as functions of (flow, x, context): the larger the stranger."""
    gaussian = EmpiricalCovariance().fit(x)
    forest = IsolationForest(random_state=0).fit(x)
    return {
        "flow, density": questions.Density(),
        "flow, latent": questions.Latent(),
        "Gaussian": lambda flow, x, context: gaussian.mahalanobis(x),
        "isolation forest": lambda flow, x, context: -forest.score_samples(x),
    }


def draw(found, is_strange, images, rates):
    """Scores of one flow, the images that it is most wrong about, and the rates of all."""
    figure, axes = plt.subplots(1, 3, figsize=(13.5, 3.9), layout="constrained", width_ratios=(1.1, 1, 1.1))
    low, high = np.quantile(found.scores, [0.0, 0.98])
    for which, name, style in ((~is_strange, "odd, held out", "-"), (is_strange, "even", "--")):
        axes[0].hist(found.scores[which], np.linspace(low, high, 50), histtype="step", color="k", linestyle=style,
                     density=True, label=name)  # fmt: skip
    axes[0].axvline(found.threshold, color="tab:orange", linewidth=4, alpha=0.6, label="flagged from here on")
    axes[0].set(xlabel="-log p(x), nats", ylabel="density", title="scores of the flow fitted to odd digits")
    axes[0].legend(frameon=False, loc="upper right")
    axes[0].set_ylim(0.0, 1.35 * axes[0].get_ylim()[1])
    order = np.argsort(found.scores)
    shown = [order[~is_strange[order]][::-1][:12], order[is_strange[order]][:12]]  # the strangest, the most ordinary
    tiles = np.concatenate([images[i].reshape(2, 6, 28, 28).transpose(0, 2, 1, 3).reshape(56, 168) for i in shown])
    axes[1].imshow(np.insert(255 - tiles, 56, np.full((4, 168), 255), axis=0), cmap="gray")
    axes[1].set(xticks=[], title="what it is most wrong about")
    axes[1].set_yticks([28, 88], ["strangest\nodd", "least strange\neven"])
    axes[1].spines[:].set_visible(False)
    names = list(rates["odd"])
    for (kind, of), shift in zip(rates.items(), (-0.13, 0.13), strict=True):
        for i, marker, what in ((0, "o", "false alarms"), (1, "^", "found")):
            values = [100 * of[name][i] for name in names]
            fill = "full" if kind == "odd" else "none"
            label = f"{what}, fitted to {kind}"
            axes[2].plot(values, np.arange(len(names)) + shift, marker, color="k", fillstyle=fill, label=label)
    axes[2].axvline(100 * RATE, color="tab:orange", linewidth=4, alpha=0.6, zorder=0)
    axes[2].set_yticks(range(len(names)), names)
    axes[2].set(
        xlabel="% flagged", title=f"{RATE:.0%} false alarms asked for", xlim=(0.0, 95.0), ylim=(len(names) - 0.5, -0.5)
    )
    axes[2].legend(frameon=False, fontsize=8, loc="center right")
    return figure


def main(output: Path, *, quick: bool) -> None:
    digits = datasets.digits()
    order = np.random.default_rng(0).permutation(7000)  # MNIST's first test images are cleaner than its others
    images = np.concatenate([digits.train, digits.test])[order]
    is_odd = np.concatenate([digits.train_labels, digits.test_labels])[order] % 2 == 1
    pixels, place = images.reshape(7000, 784) / 255.0, np.arange(7000)
    to_fit = place < (500 if quick else N_FITTED)
    to_hold, to_test = (place >= N_FITTED) & (place < N_FITTED + N_HELD_OUT), place >= N_FITTED + N_HELD_OUT
    rates = {}
    for kind, normal in (("odd", is_odd), ("even", ~is_odd)):
        x = PCA(N_COLUMNS, whiten=True, random_state=0).fit(pixels[to_fit & normal]).transform(pixels)
        flow = fit(x[to_fit & normal], quick=quick)
        is_strange, rates[kind] = ~normal[to_test], {}
        print(f"{'fitted to ' + kind:<18}{'false alarms':>13}{'found':>8}{'ROC-AUC':>9}")
        for name, score in scores(x[to_fit & normal]).items():
            found = flow.outliers(x[to_test], calibration=x[to_hold & normal], rate=RATE, score=score)
            rates[kind][name] = found.flags[~is_strange].mean(), found.flags[is_strange].mean()
            area = roc_auc_score(is_strange, found.scores)
            print(f"{name:<18}{rates[kind][name][0]:>13.1%}{rates[kind][name][1]:>8.1%}{area:>9.3f}", flush=True)
            if (kind, name) == ("odd", "flow, density"):
                shown = found, is_strange, images[to_test]
    save(draw(*shown, rates), output / "outliers.png")


if __name__ == "__main__":
    run(main, __doc__)
