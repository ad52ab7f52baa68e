"""Result: draws of a posterior, and what is known of how good they are."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
from scipy.special import logsumexp

from tfflows import atomic
from tfflows.inference import diagnostics


@dataclasses.dataclass(frozen=True)
class Result:
    """What every sampler of `tfflows.inference` returns.

    Args:
      draws: `[chain, draw, n_dim]`, in the target's own parameters.
      log_prob: `[chain, draw]`, the target's log-density of each, up to its constant.
      names: of the parameters.
      log_weights: `[chain, draw]`, of draws that are not equally probable, up to a constant; else None.
      log_evidence: the logarithm of the target's integral, or None if the sampler does not find it.
      log_evidence_error: its standard error.
      diagnostics: numbers that tell how far to trust the rest, by name.
      n_evaluations: how often the target's log_prob was evaluated, counted in rows.
      n_gradients: how often its gradient was.
      seconds: wall time.
      flow: the trained `FlowModel` of the unconstrained parameters, or None.
    """

    draws: np.ndarray
    log_prob: np.ndarray
    names: list[str]
    log_weights: np.ndarray | None = None
    log_evidence: float | None = None
    log_evidence_error: float | None = None
    diagnostics: dict = dataclasses.field(default_factory=dict)
    n_evaluations: int = 0
    n_gradients: int = 0
    seconds: float = 0.0
    flow: object = None

    @property
    def weights(self) -> np.ndarray:
        """`[chain, draw]`, adding up to 1."""
        if self.log_weights is None:
            return np.full(self.draws.shape[:2], 1.0 / (self.draws.shape[0] * self.draws.shape[1]))
        return np.exp(self.log_weights - logsumexp(self.log_weights))

    def __repr__(self):
        """A line for people, who want no arrays."""
        pairs = zip(self.names[:8], self.mean(), self.std(), strict=False)
        found = ", ".join(f"{name} = {mean:.3g} +- {std:.2g}" for name, mean, std in pairs)
        chains, draws, n_dim = self.draws.shape
        return f"Result({found}{', ...' if n_dim > 8 else ''}; {chains} chains of {draws:,} draws)"

    def mean(self) -> np.ndarray:
        """Posterior means `[n_dim]`."""
        return np.einsum("cd,cdi->i", self.weights, np.asarray(self.draws, np.float64))

    def std(self) -> np.ndarray:
        """Posterior standard deviations `[n_dim]`."""
        squares = (np.asarray(self.draws, np.float64) - self.mean()) ** 2
        return np.sqrt(np.einsum("cd,cdi->i", self.weights, squares))

    def resampled(self, n: int, seed: int = 0) -> np.ndarray:
        """`n` equally probable draws, `[n, n_dim]`, by systematic resampling with an integer `seed`."""
        flat = self.draws.reshape(-1, self.draws.shape[-1])
        return flat[diagnostics.systematic(self.weights.ravel(), n, np.random.default_rng(seed))]

    def summary(self) -> list[dict]:
        """For each parameter its name, mean, standard deviation, and where chains tell: R-hat, bulk and tail ESS."""
        rows = [
            {"name": name, "mean": mean, "std": std}
            for name, mean, std in zip(self.names, self.mean(), self.std(), strict=True)
        ]
        for key in ("r_hat", "ess_bulk", "ess_tail"):
            for row, value in zip(rows, self.diagnostics.get(key, []), strict=False):
                row[key] = float(value)
        return rows

    def to_arviz(self):
        """`arviz.InferenceData` with groups posterior and sample_stats; weighted draws are resampled first."""
        import arviz

        draws, log_prob = self.draws, self.log_prob
        if self.log_weights is not None:
            chains, n, n_dim = draws.shape
            chosen = diagnostics.systematic(self.weights.ravel(), chains * n, np.random.default_rng(0))
            draws = draws.reshape(-1, n_dim)[chosen].reshape(draws.shape)
            log_prob = log_prob.ravel()[chosen].reshape(chains, n)
        return arviz.from_dict(
            posterior={name: draws[..., i] for i, name in enumerate(self.names)}, sample_stats={"lp": log_prob}
        )

    def save(self, path) -> None:
        """Writes all but the flow as an `.npz` file at `path`."""
        arrays = {"draws": self.draws, "log_prob": self.log_prob}
        if self.log_weights is not None:
            arrays["log_weights"] = self.log_weights
        facts = {
            key: getattr(self, key)
            for key in ("names", "log_evidence", "log_evidence_error", "n_evaluations", "n_gradients", "seconds")
        }
        facts["diagnostics"] = {key: np.asarray(value).tolist() for key, value in self.diagnostics.items()}
        with atomic.replacing(path) as made, open(made, "wb") as file:
            np.savez(file, facts=np.array(json.dumps(facts)), **arrays)

    @classmethod
    def load(cls, path) -> Result:
        """What `save` wrote at `path`."""
        with np.load(path, allow_pickle=False) as arrays:
            facts = json.loads(str(arrays["facts"]))
            weights = arrays["log_weights"] if "log_weights" in arrays.files else None
            return cls(arrays["draws"], arrays["log_prob"], log_weights=weights, **facts)
