"""The density of a real table: 442 people with diabetes, seven columns of three kinds.

    python examples/gallery/table.py [--output DIR] [--quick]

A `Domain` says where each column lives, so ages are whole years, and draws of blood pressures positive. Judged is every
row by a flow fitted to the other four fifths, beside a Gaussian and a kernel density estimate for each sex. Their
densities of whole years are taken as probabilities, as the flow's are. Seven numbers of 350 people is little: the flow
is small, and is the mean of three (`FlowMixture`), each fitted to another draw of the rows.
"""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
from gallery import kernel_density, run, with_error
from scipy import stats
from sklearn.datasets import load_diabetes
from sklearn.model_selection import KFold

from tfflows import Domain, FlowMixture, FlowModel, MaskedAutoregressiveRQNSF, plot
from tfflows.schema import Column

COLUMNS = {
    "sex": ("sex", None, Domain.categorical(2)),
    "age": ("age", "years", Domain.integer(0)),
    "bmi": ("body mass", "kg/m$^2$", Domain.positive()),
    "bp": ("blood pressure", "mm Hg", Domain.positive()),
    "s1": ("cholesterol", "mg/dL", Domain.positive()),
    "s3": ("HDL", "mg/dL", Domain.positive()),
    "s6": ("blood sugar", "mg/dL", Domain.positive()),
}  # as scikit-learn names them: what they are, their units, their domains


def people() -> np.ndarray:
    """Rows `[442, 7]`; sex is 0 or 1."""
    table = load_diabetes(scaled=False)
    x = table.data[:, [table.feature_names.index(name) for name in COLUMNS]]
    return (x - np.eye(len(COLUMNS))[0]).astype(np.float32)  # the table says 1 or 2


def fit(x, *, quick: bool) -> FlowMixture:
    domain = [domain for _, _, domain in COLUMNS.values()]

    def flow():
        preset = MaskedAutoregressiveRQNSF(len(COLUMNS), n_layers=2, hidden=(16,))
        return FlowModel(preset, domain=domain)

    flows = FlowMixture([flow() for _ in range(1 if quick else 3)])
    flows.fit_each(x, bootstrap=True, epochs=1 if quick else 30, batch_size=64, verbose=0)
    return flows


def by_sex(fit_density, train, test) -> np.ndarray:
    """log p(sex) + log p(the rest | sex) of the test rows, with a density fitted for each sex."""
    found = np.empty(len(test))
    for sex in (0, 1):
        ours, theirs = train[train[:, 0] == sex, 1:], test[:, 0] == sex
        found[theirs] = np.log(len(ours) / len(train)) + fit_density(ours)(test[theirs, 1:])
    return found


def gaussian(x):
    return stats.multivariate_normal(x.mean(axis=0), np.cov(x.T)).logpdf


def main(output: Path, *, quick: bool) -> None:
    x = people()
    found = {"flows": np.empty(len(x)), "Gaussian": np.empty(len(x)), "kernel density": np.empty(len(x))}
    folds = list(KFold(5, shuffle=True, random_state=0).split(x))[: 1 if quick else None]
    for train, test in folds:
        keras.utils.set_random_seed(0)
        found["flows"][test] = fit(x[train], quick=quick).log_prob(x[test])
        found["Gaussian"][test] = by_sex(gaussian, x[train], x[test])
        found["kernel density"][test] = by_sex(kernel_density, x[train], x[test])
    tested = np.concatenate([test for _, test in folds])
    for name, log_prob in found.items():
        more = "" if name == "flows" else f", {with_error((found['flows'] - log_prob)[tested])} less than the flows"
        print(f"{name:<16}{with_error(log_prob[tested])} nats a held-out row{more}")
    _, units, _ = zip(*COLUMNS.values(), strict=True)
    columns = [Column(name, domain=domain.kind) for name, _, domain in COLUMNS.values()]
    columns[0] = Column("sex", categories=("1", "2"))  # as the table says
    samples = fit(x, quick=quick).sample(200 if quick else 2000, seed=1).numpy()
    plot.corner(samples, x, columns=columns, units=units, path=output / "table.png")
    print(f"Picture: {output / 'table.png'}")


if __name__ == "__main__":
    run(main, __doc__)
