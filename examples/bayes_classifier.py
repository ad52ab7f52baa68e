"""A Bayes classifier: the densities of one class-conditional flow decide, p(c | x) = p(x | c) p(c) / p(x).

The data are 6000 handwritten digits for training and 1000 for the test, described by 24 principal components and by how
much of the image these leave out. One masked autoregressive flow hears the class; it is judged beside quadratic
discriminant analysis (a Gaussian for each class), logistic regression and gradient boosting of the same numbers. Only
a density does more: it says which inputs belong to no class at all (digits turned by 90 degrees), and draws new ones
of each class. `--data breast_cancer` is a table of 30 measurements and two classes, which scikit-learn ships.

    python examples/bayes_classifier.py [--data digits] [--output DIR] [--quick]
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import keras
import matplotlib
import numpy as np
from scipy import ndimage, special
from sklearn.datasets import load_breast_cancer
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tfflows import MAF, FlowModel, datasets

matplotlib.use("Agg")
from matplotlib import pyplot as plt

N_COMPONENTS = 24
N_COPIES = 8  # of each training image, bent a little
LEAST = 1e-15  # a probability of zero would make the log score infinite


@dataclasses.dataclass(frozen=True)
class Problem:
    """Rows of numbers and their classes, 0 to n_classes - 1.

    Args:
      train, validation, test: x `[n, n_dim]` and labels `[n]` each.
      hidden: width of the flow's nets.
      epochs: of its fit, or None to let it decide.
      outliers: rows that belong to no class, or None.
      image: of rows, `[n, 28, 28]`, or None.
    """

    train: tuple
    validation: tuple
    test: tuple
    hidden: int
    epochs: int | None = None
    outliers: np.ndarray | None = None
    image: Callable | None = None


def bent(image, rng):
    """The image turned, slanted, stretched and moved a little, as another hand would have written it."""
    angle, slant = rng.uniform(-0.2, 0.2, 2)
    cosine, sine = np.cos(angle), np.sin(angle)
    matrix = np.array([[cosine, slant - sine], [sine, cosine]]) / rng.uniform(0.9, 1.1, (2, 1))
    centre = np.full(2, (len(image) - 1) / 2.0)
    return ndimage.affine_transform(image, matrix, centre + rng.uniform(-1.0, 1.0, 2) - matrix @ centre, order=1)


def digits(*, quick: bool) -> Problem:
    """Principal components of handwritten digits; training images are there in bent copies too."""
    data = datasets.digits()
    n, n_held = (1000, 100) if quick else (len(data.train), 600)
    images, labels = data.train[:n, ..., 0] / 255.0, data.train_labels[:n]
    test, test_labels = data.test[..., 0] / 255.0, data.test_labels
    rng, n_copies = np.random.default_rng(0), 1 if quick else N_COPIES
    copies = [[bent(image, rng) for image in images[n_held:]] for _ in range(n_copies)]
    many = np.concatenate([images[n_held:], *copies])
    components = PCA(N_COMPONENTS, random_state=0).fit(many.reshape(len(many), -1))

    def numbers(images):
        pixels = images.reshape(len(images), -1)
        scores = components.transform(pixels)
        rest = np.sum((pixels - components.inverse_transform(scores)) ** 2, axis=1)
        return np.concatenate([scores, np.log(rest)[:, None]], axis=1)

    # Of the others some are themselves again when turned.
    turned = np.rot90(test[np.isin(test_labels, (2, 3, 4, 5, 7))], axes=(1, 2))
    return Problem(
        (numbers(many), np.tile(labels[n_held:], 1 + n_copies)),
        (numbers(images[:n_held]), labels[:n_held]),
        (numbers(test), test_labels),
        hidden=64 if quick else 256,
        epochs=3 if quick else 16,
        outliers=numbers(turned),
        image=lambda x: components.inverse_transform(x[:, :-1]).reshape(-1, 28, 28),
    )


def breast_cancer(*, quick: bool) -> Problem:
    """Measurements of cell nuclei, their logarithms, of malignant (0) and benign (1) tumours."""
    x, labels = load_breast_cancer(return_X_y=True)
    x = np.log(x + 1e-3)
    rest, test, rest_labels, test_labels = train_test_split(x, labels, test_size=0.4, stratify=labels, random_state=0)
    split = train_test_split(rest, rest_labels, test_size=0.2, stratify=rest_labels, random_state=0)
    epochs = 10 if quick else None
    return Problem((split[0], split[2]), (split[1], split[3]), (test, test_labels), 32, epochs)


PROBLEMS = {"digits": digits, "breast_cancer": breast_cancer}


def fit_flow(problem: Problem) -> FlowModel:
    """One flow for all classes, which hears them as its context."""
    x, labels = problem.train
    n_classes = int(labels.max()) + 1
    bijector = MAF(x.shape[1], n_layers=5, hidden=(problem.hidden,), context_dim=n_classes)
    flow = FlowModel(bijector, n_classes=n_classes)
    if problem.epochs is not None:
        n_steps = problem.epochs * -(-len(x) // 256)
        flow.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(3e-3, n_steps), global_clipnorm=5.0))
    flow.fit(x, labels, epochs=problem.epochs, validation_data=problem.validation, verbose=0)
    return flow


def others(problem: Problem, *, quick: bool) -> dict:
    """scikit-learn's classifiers, fitted."""
    models = {
        "QDA (Gaussians)": QuadraticDiscriminantAnalysis(reg_param=0.05),
        "gradient boosting": HistGradientBoostingClassifier(max_iter=10 if quick else 100, random_state=0),
        "logistic regression": make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
    }
    return {name: model.fit(*problem.train) for name, model in models.items()}


def log_score(probabilities, labels) -> float:
    """Mean log-probability of what is true, in nats: 0 is perfect, and being sure of what is false is dear."""
    return float(np.mean(np.log(np.maximum(probabilities[np.arange(len(labels)), labels], LEAST))))


def tempered(probabilities, validation, labels):
    """Probabilities to the power that scores best on held-out rows: what a model is too sure of is taken back.

    Reference: Guo, Pleiss, Sun & Weinberger (2017), On calibration of modern neural networks.
    """

    def power(p, exponent):
        logits = exponent * np.log(np.maximum(p, LEAST))
        return special.softmax(logits, axis=1)

    exponents = np.geomspace(0.1, 3.0, 60)
    best = max(exponents, key=lambda exponent: log_score(power(validation, exponent), labels))
    return power(probabilities, best)


def reliability(probabilities, labels, n_bins: int = 8):
    """Mean confidence and share of right answers in bins of equally many rows, and the mean gap between the two."""
    confidence, is_right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.array_split(np.argsort(confidence), n_bins)
    confidence, is_right = (np.array([values[index].mean() for index in bins]) for values in (confidence, is_right))
    return confidence, is_right, float(np.mean(np.abs(confidence - is_right)))


def evidence(model, x, prior):
    """log p(x), up to a constant, of a flow or of Gaussians; of any other classifier, how sure it is."""
    if isinstance(model, FlowModel):
        return model.class_probabilities(x, prior, return_log_prob=True)[1].numpy()
    if isinstance(model, QuadraticDiscriminantAnalysis):
        return np.logaddexp.reduce(model.decision_function(x), axis=1)
    return model.predict_proba(x).max(axis=1)


def report(problem: Problem, models: dict, prior) -> dict:
    """Prints how good every model is on the test rows; returns their tempered probabilities."""

    def probabilities(model, x):
        return model.class_probabilities(x, prior).numpy() if isinstance(model, FlowModel) else model.predict_proba(x)

    x, labels = problem.test
    found = {}
    title = f"{len(x)} test rows"
    print(f"\n{title:<24}{'right':>9}{'log score':>12}{'tempered':>11}{'calibration':>14}{'outliers':>11}")
    for name, model in models.items():
        raw = probabilities(model, x)
        found[name] = tempered(raw, probabilities(model, problem.validation[0]), problem.validation[1])
        right = np.mean(raw.argmax(axis=1) == labels)
        line = f"  {name:<22}{right:9.1%}{log_score(raw, labels):12.3f}{log_score(found[name], labels):11.3f}"
        line += f"{reliability(found[name], labels)[2]:14.3f}"
        if problem.outliers is not None:
            known = [evidence(model, rows, prior) for rows in (problem.outliers, x)]
            line += f"{roc_auc_score(np.repeat([0, 1], [len(k) for k in known]), np.concatenate(known)):11.3f}"
        print(line)
    print("log score: mean log-probability of the true class, in nats; tempered: with probabilities to a power that is")
    print("chosen on held-out rows; calibration: mean gap between their confidence and the truth; outliers: area under")
    print("the ROC curve of log p(x), of classifiers without a density of how sure they are.")
    return found


def draw(problem: Problem, flow: FlowModel, found: dict, prior, path: Path) -> None:
    """Draws of each class, calibration, and what the density says of outliers."""
    has_images = problem.image is not None
    widths = [1.6, 1.0, 1.0] if has_images else [1.0, 1.0]
    figure, axes = plt.subplots(
        1, len(widths), figsize=(4.0 * sum(widths), 4.0), width_ratios=widths, layout="constrained"
    )
    if has_images:
        x, labels = problem.train
        n_rows = 7
        draws = flow.sample(n_rows - 1, np.arange(len(prior)), seed=3, temperature=0.8).numpy()
        real = np.stack([x[labels == c][0] for c in range(len(prior))])
        rows = np.concatenate([real[None], draws])
        tiles = problem.image(rows.reshape(-1, x.shape[1])).reshape(n_rows, -1, 28, 28)
        picture = np.concatenate([np.concatenate(list(row), axis=1) for row in tiles])
        axes[0].imshow(picture, cmap="gray_r", vmin=0.0, vmax=1.0)
        axes[0].axhline(27.5, color="tab:blue")
        axes[0].set(xticks=[], yticks=[], title="data (above), draws of the flow by class")
    calibration, density = axes[-2:]
    calibration.plot([0, 1], [0, 1], ":", color="gray")
    for name, probabilities in found.items():
        confidence, is_right, _ = reliability(probabilities, problem.test[1])
        calibration.plot(confidence, is_right, "o-", label=name, markersize=4)
    low = min(reliability(p, problem.test[1])[i].min() for p in found.values() for i in (0, 1))
    calibration.set(xlabel="confidence", ylabel="share that is right", xlim=(low - 0.02, 1.01), ylim=(low - 0.02, 1.01))
    calibration.set_title("calibration on test data")
    calibration.legend(frameon=False)
    shown = {"test data": problem.test[0]}
    if problem.outliers is not None:
        shown["digits turned by 90 degrees"] = problem.outliers
    values = {name: evidence(flow, rows, prior) for name, rows in shown.items()}
    least, most = np.percentile(np.concatenate(list(values.values())), [2, 100])
    for name, value in values.items():
        density.hist(np.maximum(value, least), np.linspace(least, most, 50), alpha=0.6, label=name)
    density.set(xlabel="log p(x) [nats]", ylabel="rows", title="what belongs to no class")
    density.set_ylim(0.0, 1.25 * density.get_ylim()[1])
    density.legend(frameon=False, loc="upper right")
    figure.savefig(path, dpi=80)
    plt.close(figure)


def main(output: Path, data: str = "digits", *, quick: bool) -> None:
    output.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)
    problem = PROBLEMS[data](quick=quick)
    start = time.perf_counter()
    flow = fit_flow(problem)
    print(f"Fitted in {time.perf_counter() - start:.0f} s.")
    prior = np.bincount(problem.train[1])
    models = {"normalizing flow": flow, **others(problem, quick=quick)}
    found = report(problem, models, prior)
    picture = output / "bayes_classifier.png"
    draw(problem, flow, found, prior, picture)
    print(f"Picture: {picture}")
    right = np.mean(found["normalizing flow"].argmax(axis=1) == problem.test[1])
    print(f"The flow's densities put {right:.1%} of the test rows into their class.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=PROBLEMS, default="digits")
    parser.add_argument("--output", type=Path, default=Path("output"), help="folder for the picture")
    parser.add_argument("--quick", action="store_true", help="a sixth of the digits and a few epochs")
    arguments = parser.parse_args()
    main(arguments.output, arguments.data, quick=arguments.quick)
