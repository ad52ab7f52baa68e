"""Student's t distribution of several numbers, fitted by expectation-maximization."""

from __future__ import annotations

import numpy as np
from scipy.special import gammaln

N_FREEDOM = np.array([1.0, 2.0, 3.0, 5.0, 8.0, 15.0, 30.0, 100.0, 1000.0])


def fit(latent: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Mean `[d]`, Cholesky factor `[d, d]` and degrees of freedom of a t distribution, of rows `[n, d]`."""
    n, n_dim = latent.shape
    mean = np.median(latent, axis=0)
    best, found = -np.inf, None
    for freedom in N_FREEDOM:
        # A few steps of expectation-maximization for the factor.
        centre, covariance = mean, np.cov(latent.T).reshape(n_dim, n_dim) + 1e-6 * np.eye(n_dim)
        for _ in range(10):
            away = latent - centre
            squared = np.einsum("ni,ij,nj->n", away, np.linalg.inv(covariance), away)
            weight = (freedom + n_dim) / (freedom + squared)
            centre = np.average(latent, axis=0, weights=weight)
            away = latent - centre
            covariance = (away * weight[:, np.newaxis]).T @ away / n + 1e-6 * np.eye(n_dim)
        squared = np.einsum("ni,ij,nj->n", away, np.linalg.inv(covariance), away)
        log_prob = (
            gammaln(0.5 * (freedom + n_dim))
            - gammaln(0.5 * freedom)
            - 0.5 * n_dim * np.log(freedom * np.pi)
            - 0.5 * np.linalg.slogdet(covariance)[1]
            - 0.5 * (freedom + n_dim) * np.mean(np.log1p(squared / freedom))
        )
        if log_prob > best:
            best, found = log_prob, (centre, np.linalg.cholesky(covariance), freedom)
    return found
