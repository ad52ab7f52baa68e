"""Diagnostics of Monte Carlo: how many draws are worth, and whether they may be trusted."""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp

__all__ = ["chains", "coverage", "effective_weights", "pareto_smoothed", "ranks", "systematic", "two_sample"]


def systematic(weights: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """`n` indices, each about n times its weight often, in random order: systematic resampling.

    Args:
      weights: `[m]`, >= 0, adding up to 1.
      n: number of indices, >= 1.
      rng: NumPy's generator.
    """
    ends = np.cumsum(weights)
    places = (rng.random() + np.arange(n)) / n * ends[-1]
    return rng.permutation(np.minimum(np.searchsorted(ends, places, side="right"), len(weights) - 1))


def effective_weights(log_weights: np.ndarray) -> float:
    """Kish's effective number of weighted draws, (sum w)^2 / sum w^2, in [1, n]; 0 if none has weight.

    Args:
      log_weights: of any shape, up to a constant.
    """
    log_weights = np.ravel(log_weights)
    total = logsumexp(log_weights)
    if not np.isfinite(total):
        return 0.0
    return float(np.exp(2.0 * total - logsumexp(2.0 * log_weights)))


def chains(draws: np.ndarray) -> dict[str, np.ndarray]:
    """Split R-hat, and bulk and tail effective sample sizes, `[n_dim]` each, of several chains.

    Args:
      draws: `[chain, draw, n_dim]`.

    Reference:
      Vehtari, Gelman, Simpson, Carpenter & Burkner (2021), Rank-normalization, folding, and localization: an improved
      R-hat, https://arxiv.org/abs/1903.08008; computed by ArviZ.
    """
    module = arviz()
    each = np.moveaxis(np.asarray(draws, np.float64), -1, 0)
    return {
        "r_hat": np.array([module.rhat(d) for d in each]),
        "ess_bulk": np.array([module.ess(d, method="bulk") for d in each]),
        "ess_tail": np.array([module.ess(d, method="tail") for d in each]),
    }


def pareto_smoothed(log_weights: np.ndarray) -> tuple[np.ndarray, float]:
    """Log-weights whose largest are replaced by what a generalized Pareto distribution expects, and its shape k.

    Above k = 0.7 weighted means do not converge at a useful rate.

    Args:
      log_weights: of any shape, -inf where a draw has none.

    Reference:
      Vehtari, Simpson, Gelman, Yao & Gabry (2024), Pareto smoothed importance sampling, https://arxiv.org/abs/1507.02646;
      computed by ArviZ.
    """
    log_weights = np.asarray(log_weights, np.float64)
    possible = np.isfinite(log_weights)
    finite = np.where(possible, log_weights, np.min(log_weights[possible]) - 50.0)
    smoothed, k = arviz().psislw(finite.ravel())
    return np.where(possible, np.asarray(smoothed).reshape(log_weights.shape), -np.inf), float(k)


def two_sample(x: np.ndarray, y: np.ndarray, *, seed: int = 0) -> float:
    """Classifier two-sample test: how often a net tells draws of `x` from those of `y`; 0.5 is never.

    Cross-validated accuracy of scikit-learn's `MLPClassifier`, as in the benchmark of simulation-based inference.

    Args:
      x, y: `[n, d]` and `[m, d]`; as many of each are compared as there are in the smaller set.
      seed: of the folds and the net.

    Reference:
      Lueckmann, Boelts, Greenberg, Goncalves & Macke (2021), https://arxiv.org/abs/2101.04653
    """
    from sklearn.model_selection import KFold, cross_val_score
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = (np.asarray(v, np.float64).reshape(len(v), -1) for v in (x, y))
    n = min(len(x), len(y))
    rows, labels = np.concatenate([x[:n], y[:n]]), np.repeat([0, 1], n)
    width = 10 * rows.shape[1]
    net = MLPClassifier((width, width), max_iter=1000, solver="adam", random_state=seed)
    folds = KFold(5, shuffle=True, random_state=seed)
    return float(np.mean(cross_val_score(make_pipeline(StandardScaler(), net), rows, labels, cv=folds)))


def ranks(draws: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Simulation-based calibration: how many of each simulation's draws are below its truth, `[n, d]` in 0 .. m.

    Args:
      draws: `[n, m, d]`, posterior draws for each of n simulated data sets.
      truth: `[n, d]`, the parameters of each. If all is right, ranks are uniform.

    Reference:
      Talts, Betancourt, Simpson, Vehtari & Gelman (2018), https://arxiv.org/abs/1804.06788
    """
    return np.sum(draws < truth[:, np.newaxis], axis=1)


def coverage(draws: np.ndarray, truth: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """How often central intervals of the levels hold the truth, `[len(levels), d]`.

    Args:
      draws, truth: as in `ranks`.
      levels: probabilities in (0, 1).
    """
    found = []
    for level in np.atleast_1d(levels):
        # Weibull's quantiles: of m exact draws the interval holds the truth as often as it should, whatever m.
        low, high = np.quantile(draws, [0.5 - level / 2.0, 0.5 + level / 2.0], axis=1, method="weibull")
        found.append(np.mean((low <= truth) & (truth <= high), axis=0))
    return np.stack(found)


def arviz():
    """The module.

    Raises:
      ImportError: that says how to install it.
    """
    try:
        import arviz as module
    except ImportError as error:
        raise ImportError("Expected ArviZ for diagnostics: pip install 'tfflows[inference]'") from error
    return module
