"""Particles of all temperatures between prior and posterior, weighted against the mixture they come from."""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp

from tfflows.inference import diagnostics

NEVER = -1e30  # log-likelihood of what is impossible: times an inverse temperature of 0 it is still 0
N_GROUPS = 8


class Particles:
    """What persistent sampling keeps: every particle of every inverse temperature beta, 0 at first.

    Args:
      z: `[n, n_dim]`, draws of the prior, unconstrained.
      likelihood: `[n]`, log-likelihoods, at least `NEVER`.
      prior: `[n]`, log-priors with the Jacobian of z.

    Reference:
      Karamanis & Seljak (2024), Persistent sampling, https://arxiv.org/abs/2407.20722
    """

    def __init__(self, z: np.ndarray, likelihood: np.ndarray, prior: np.ndarray):
        self.z, self.likelihood, self.prior = z, likelihood, prior
        self.betas, self.log_evidences, self.sizes = [0.0], [0.0], [len(z)]

    def add(self, beta: float, z: np.ndarray, likelihood: np.ndarray, prior: np.ndarray) -> None:
        """Particles of another beta."""
        self.log_evidences.append(self.log_evidence(beta))
        self.z, self.likelihood, self.prior = (
            np.concatenate(pair) for pair in ((self.z, z), (self.likelihood, likelihood), (self.prior, prior))
        )
        self.betas.append(beta)
        self.sizes.append(len(z))

    def log_weights(self, beta: float) -> np.ndarray:
        """Of all particles at `beta`: likelihood^beta over the density of the mixture they were drawn from."""
        return beta * self.likelihood - self._log_mixture(self.likelihood, len(self.betas), self.log_evidences)

    def _log_mixture(self, likelihood, n_betas, evidences):
        shares = np.log(np.asarray(self.sizes[:n_betas]) / np.sum(self.sizes[:n_betas]))
        parts = zip(shares, self.betas[:n_betas], evidences, strict=True)
        return logsumexp([share + beta * likelihood - e for share, beta, e in parts], axis=0)

    def weights(self, beta: float) -> np.ndarray:
        """The same, adding up to 1."""
        log_weights = self.log_weights(beta)
        return np.exp(log_weights - logsumexp(log_weights))

    def worth(self, beta: float) -> float:
        """How many draws all particles are worth at `beta`."""
        return diagnostics.effective_weights(self.log_weights(beta))

    def log_evidence(self, beta: float) -> float:
        return float(logsumexp(self.log_weights(beta)) - np.log(len(self.z)))

    def next_beta(self, n_effective: int) -> float:
        """The greatest beta for which all particles are worth `n_effective` draws."""
        if self.worth(1.0) >= n_effective:
            return 1.0
        low, high = self.betas[-1], 1.0
        for _ in range(60):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if self.worth(middle) >= n_effective else (low, middle)
        return low

    def log_evidence_error(self) -> float:
        """Standard error of the log-evidence at beta 1: from the spread of groups, each by its own particles alone.

        Groups share the ancestors of their particles, so where moves do not go between modes it is too small.
        """
        n_groups = min(N_GROUPS, *self.sizes)  # each has a particle of every beta
        starts, each = np.concatenate([[0], np.cumsum(self.sizes)]), []
        for group in range(n_groups):
            # Each group finds its own evidences, one beta after another.
            evidences, rows = [0.0], np.zeros(len(self.z), bool)
            for t, beta in enumerate([*self.betas[1:], 1.0], start=1):
                rows[np.arange(starts[t - 1], starts[t])[group::n_groups]] = True
                likelihood = self.likelihood[rows]
                log_weights = beta * likelihood - self._log_mixture(likelihood, t, evidences)
                evidences.append(logsumexp(log_weights) - np.log(rows.sum()))
            each.append(evidences[-1])
        return float(np.std(each, ddof=1) / np.sqrt(n_groups))

    # Checkpoints.

    def state(self) -> dict[str, np.ndarray]:
        steps = np.array([self.betas, self.log_evidences, self.sizes])
        return {"z": self.z, "likelihood": self.likelihood, "prior": self.prior, "steps": steps}

    @classmethod
    def restored(cls, state: dict[str, np.ndarray]) -> Particles:
        particles = cls(state["z"], state["likelihood"], state["prior"])
        betas, evidences, sizes = state["steps"].tolist()
        particles.betas, particles.log_evidences, particles.sizes = betas, evidences, [int(n) for n in sizes]
        return particles
