"""A normal distribution to begin with: where a target is, how wide, and how correlated."""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf
from scipy import optimize

from tfflows.inference.target import Target

N_STARTS = 4
N_PLACES = 8  # on each way up where a normal distribution is tried
N_DRAWS = 256  # that its lower bound of the evidence is the mean of
MAX_STEPS = 200  # of a way up
LEAST, MOST = 1e-8, 1e8  # curvatures


def normal_draws(target: Target, starts: np.ndarray, n: int, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """Draws of the normal distribution that is nearest to a target among those found on ways up to its modes.

    On the way of L-BFGS from each start the target's curvature gives a normal distribution at some places; that with
    the greatest lower bound of the evidence is taken. So a mode without mass, as funnels have it, misleads nobody, and
    the starts themselves, as they are spread, are among what is compared.

    Args:
      target: with gradients.
      starts: `[m, n_dim]`, unconstrained, draws of what is thought at first.
      n: number of draws.
      rng: what is drawn from.

    Returns:
      draws `[n, n_dim]`, unconstrained, and the number of gradients of the target that it took.

    Reference:
      Zhang, Carpenter, Gelman & Vehtari (2022), Pathfinder, https://arxiv.org/abs/2108.03782
    """
    count, n_dim, dtype = 0, target.n_dim, target.dtype

    @tf.function(autograph=False)
    def slope(z):
        with tf.GradientTape() as tape:
            tape.watch(z)
            value = target.unconstrained_log_prob(z)
        return value, tape.gradient(value, z)

    def negative(z):
        nonlocal count
        count += 1
        value, gradient = target.run(slope, tf.constant(z[np.newaxis], dtype))
        value, gradient = float(value[0]), gradient.numpy()[0].astype(np.float64)
        if not math.isfinite(value) or not np.all(np.isfinite(gradient)):
            return 1e30, np.zeros(n_dim)
        return -value, -gradient

    def curvature(z):
        """By differences of gradients, of all numbers in one call."""
        nonlocal count
        step = np.cbrt(np.finfo(dtype.as_numpy_dtype).eps) * np.maximum(np.abs(z), scale)
        rows = np.concatenate([z + np.diag(step), z - np.diag(step)])
        count += len(rows)
        _, gradients = target.run(slope, tf.constant(rows, dtype))
        up, down = np.split(gradients.numpy().astype(np.float64), 2)
        matrix = -(up - down) / (2.0 * step[:, np.newaxis])
        return 0.5 * (matrix + matrix.T)

    def bound(mean, factor):
        nonlocal count
        noise = rng.normal(size=(N_DRAWS, n_dim))
        count += N_DRAWS
        values, _ = target.run(slope, tf.constant(mean + noise @ factor.T, dtype))
        values = values.numpy().astype(np.float64)
        entropy = 0.5 * n_dim * (1.0 + math.log(2.0 * math.pi)) + np.linalg.slogdet(factor)[1]
        return float(np.mean(np.where(np.isfinite(values), values, -1e30)) + entropy)

    def way_up(start, factor):
        """Places on the way of L-BFGS in coordinates u of z = start + factor u."""
        way = [start]

        def negative_of(u):
            value, gradient = negative(start + factor @ u)
            return value, factor.T @ gradient

        optimize.minimize(
            negative_of,
            np.zeros(n_dim),
            jac=True,
            method="L-BFGS-B",
            callback=lambda u: way.append(start + factor @ u),
            options={"maxiter": MAX_STEPS},
        )
        return [way[i] for i in np.unique(np.linspace(0, len(way) - 1, N_PLACES).astype(int))]

    scale = np.maximum(np.std(starts, axis=0), 1e-6)
    best = (np.mean(starts, axis=0), np.diag(scale))
    greatest = bound(*best)
    some = starts[rng.choice(len(starts), N_STARTS, replace=len(starts) < N_STARTS)].astype(np.float64)
    for start in [*some, None]:
        # At last from the best, in whose coordinates a narrow ridge is round.
        for place in way_up(*best) if start is None else way_up(start, np.diag(scale)):
            matrix = curvature(place)
            if not np.all(np.isfinite(matrix)):
                continue
            values, vectors = np.linalg.eigh(matrix)
            factor = vectors / np.sqrt(np.clip(np.abs(values), LEAST, MOST))
            found = bound(place, factor)
            if found > greatest:
                greatest, best = found, (place, factor)
    mean, factor = best
    draws = mean + rng.normal(size=(n, n_dim)) @ factor.T
    return draws.astype(dtype.as_numpy_dtype), count
