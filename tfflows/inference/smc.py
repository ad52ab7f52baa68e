"""Sequential Monte Carlo from the prior to the posterior, its moves made in the latent space of a flow."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import tensorflow as tf
from scipy.special import logsumexp

from tfflows.inference import diagnostics, student
from tfflows.inference.checkpoint import load, save
from tfflows.inference.flows import Trainer, flow_for
from tfflows.inference.importance import evidence
from tfflows.inference.progress import Progress
from tfflows.inference.result import Result
from tfflows.inference.target import Target
from tfflows.numerics import check_counts

NEVER = -1e30  # log-likelihood of what is impossible: times an inverse temperature of 0 it is still 0
MOST_BEGINNINGS = 20  # times as many draws of the prior as wanted, where most are impossible
MAX_STEPS = 100  # of a move
REMAINING = 0.1  # a move ends when so much of where particles came from is left in where they are
ACCEPTANCE = 0.234


def preconditioned_smc(
    target: Target,
    *,
    n_draws: int = 2000,
    n_chains: int = 4,
    seed: int = 0,
    n_effective: int = 512,
    n_active: int = 256,
    flow=None,
    max_iterations: int = 200,
    checkpoint: str | Path | None = None,
    verbose: bool = True,
) -> Result:
    """Draws and evidence by annealing: prior times likelihood^beta, beta rising from 0 to 1.

    Every particle of every beta is kept and weighted against the mixture of all betas so far (persistent sampling).
    The next beta is the greatest for which these are worth `n_effective` draws. Then the flow is trained on them,
    `n_active` are drawn, and moved in the flow's latent space by t-preconditioned Crank-Nicolson proposals until they
    have forgotten where they were. The evidence comes from importance sampling with the flow of the end, if its Pareto
    k is at most 0.7 and the weights of all particles agree with it; else from these, with the spread between eight
    groups of particles as error, or the difference of both, if that is larger. Groups share their ancestors: where
    modes are unlike each other their spread is up to half of the error.

    Args:
      target: with a prior. No gradients are needed.
      n_draws: of each chain; they are drawn from the weighted particles, so chains are only a shape.
      n_chains: number of chains.
      seed: makes it reproducible.
      n_effective: number of draws that the particles of each beta are worth.
      n_active: particles moved at a time.
      flow: a `FlowModel` of the unconstrained parameters, which will be trained; a spline flow if None.
      max_iterations: of beta, at most.
      checkpoint: path of a `.npz`: written after each iteration; if it is there, the run goes on from it.
      verbose: whether it shows its progress.

    Raises:
      ValueError: for a target without prior, or one whose likelihood is zero wherever the prior drew.

    References:
      Karamanis, Beutler, Peacock, Nabergoj & Seljak (2022), https://arxiv.org/abs/2207.05652 (preconditioning);
      Karamanis & Seljak (2024), Persistent sampling, https://arxiv.org/abs/2407.20722; Grumitt, Dai & Seljak (2022),
      https://arxiv.org/abs/2205.14240 (t-preconditioned proposals)
    """
    check_counts(
        n_draws=n_draws, n_chains=n_chains, n_effective=n_effective, n_active=n_active, max_iterations=max_iterations
    )
    if target.prior is None:
        raise ValueError("Expected a target with a prior, Target(log_likelihood, prior=...); got one without.")
    started = time.perf_counter()
    rng = np.random.default_rng(seed)
    flow = flow_for(target, flow, rng)
    run = _Run(target, flow, rng, n_active)
    if checkpoint is not None and Path(checkpoint).exists():
        run.restore(load(checkpoint))
    else:
        run.begin(2 * n_effective)
    enough = max(n_effective, min(n_draws * n_chains, 4 * n_effective))
    with Progress("preconditioned_smc", verbose) as progress:
        beta, worth = run.next_beta(n_effective)
        while beta < 1.0 or worth < enough:
            if run.n_iterations >= max_iterations:
                raise RuntimeError(
                    f"Expected to be done after {max_iterations} iterations; beta is {beta:.3g}, and all particles are "
                    f"worth {worth:.0f} of {enough} draws."
                )
            run.iterate(beta)
            if checkpoint is not None:
                save(checkpoint, run.state())
            progress(f"beta {beta:.3g}, acceptance {run.acceptance:.2f}, {run.n_evaluations:,} evaluations")
            beta, worth = run.next_beta(n_effective)
    return run.result(n_chains, n_draws, started)


class _Run:
    """Particles of all iterations, and the flow."""

    def __init__(self, target, flow, rng, n_active):
        self.target, self.flow, self.rng, self.n_active = target, flow, rng, n_active
        self.n_evaluations, self.scale, self.acceptance = 0, 0.6, 1.0
        self.betas, self.log_evidences, self.sizes = [0.0], [0.0], []
        self._train = Trainer(flow, 4 * n_active)
        self._evaluate = tf.function(self._densities, autograph=False, reduce_retracing=True)
        self._step = tf.function(self._propose, autograph=False)

    # In graph.

    def _densities(self, z):
        """log-likelihood, and log-prior with the Jacobian, of unconstrained numbers."""
        x, log_det = self.target.constrain(z)
        return self.target.log_likelihood(x), self.target.log_prior(x) + log_det

    def _propose(self, latent, known, beta, scale, mean, factor, freedom, seed):
        """One t-preconditioned Crank-Nicolson move of all particles.

        The proposal alone would leave a t distribution of this mean, factor and degrees of freedom as it is; so only
        the ratio of target and t decides. `known` is (z, log-likelihood, log-prior, log-det) of the latents.
        """
        n_dim, dtype = self.target.n_dim, latent.dtype
        seeds = tf.random.experimental.stateless_split(seed, 3)

        def distance(u):
            return tf.reduce_sum(tf.linalg.triangular_solve(factor, tf.transpose(u - mean)) ** 2, axis=0)

        def log_t(squared):
            return -0.5 * (freedom + n_dim) * tf.math.log1p(squared / freedom)

        squared = distance(latent)
        shape = 0.5 * (n_dim + freedom) * tf.ones_like(squared)
        precision = tf.random.stateless_gamma([self.n_active], seeds[0], shape, 0.5 * (freedom + squared), dtype)
        noise = tf.random.stateless_normal(tf.shape(latent), seeds[1], dtype=dtype) @ tf.transpose(factor)
        kept = tf.sqrt(1.0 - scale**2)
        proposal = mean + kept * (latent - mean) + scale * noise / tf.sqrt(precision)[:, tf.newaxis]
        z, log_det = self.flow.bijector.forward_and_log_det(proposal)
        likelihood, prior = self._densities(z)
        new = (z, tf.maximum(likelihood, NEVER), prior, log_det)

        def log_target(of):
            return beta * of[1] + of[2] + of[3]

        gain = log_target(new) - log_t(distance(proposal)) - (log_target(known) - log_t(squared))
        # What is impossible is left, whatever is proposed that is possible.
        gain = tf.where(tf.math.is_nan(gain) | ~tf.math.is_finite(log_target(new)), -np.inf, gain)
        accepted = tf.math.log(tf.random.stateless_uniform([self.n_active], seeds[2], dtype=dtype)) < gain

        def choose(a, b):
            return tf.where(accepted[:, tf.newaxis] if a.shape.rank == 2 else accepted, a, b)

        known = tuple(map(choose, new, known))
        return choose(proposal, latent), known, tf.reduce_mean(tf.exp(tf.minimum(gain, 0.0)))

    # Outside.

    def begin(self, n):
        """Draws from the prior, until the likelihood of `n` is not zero."""
        parts, n_drawn, n_possible = [], 0, 0
        while n_possible < n and n_drawn < MOST_BEGINNINGS * n:
            z = self.target.unconstrain(self.target.sample_prior(n, self.rng))
            likelihood, prior = self._evaluated(z)
            parts.append((z, likelihood, prior))
            n_drawn, n_possible = n_drawn + n, n_possible + int(np.sum(likelihood > NEVER))
        if not n_possible:
            raise ValueError(
                f"Expected a finite log_prob somewhere; it was not at any of {n_drawn} draws of the prior."
            )
        self.z, self.likelihood, self.prior = (np.concatenate(part) for part in zip(*parts, strict=True))
        self.sizes = [n_drawn]

    def _evaluated(self, z):
        likelihood, prior = (v.numpy().astype(np.float64) for v in self.target.run(self._evaluate, tf.constant(z)))
        self.n_evaluations += len(z)
        return np.maximum(likelihood, NEVER), prior

    @property
    def n_iterations(self):
        return len(self.sizes) - 1

    def log_weights(self, beta, rows=slice(None), evidences=None):
        """Of all particles at `beta`: likelihood^beta over the density of the mixture they were drawn from."""
        evidences = self.log_evidences if evidences is None else evidences
        shares = np.log(np.asarray(self.sizes) / np.sum(self.sizes))
        likelihood = self.likelihood[rows]
        mixture = logsumexp(
            [s + b * likelihood - e for s, b, e in zip(shares, self.betas, evidences, strict=True)], axis=0
        )
        return beta * likelihood - mixture

    def next_beta(self, n_effective):
        """The greatest beta for which all particles are worth `n_effective` draws, and what they are worth."""

        def worth(beta):
            return diagnostics.effective_weights(self.log_weights(beta))

        if worth(1.0) >= n_effective:
            return 1.0, worth(1.0)
        low, high = self.betas[-1], 1.0
        for _ in range(60):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if worth(middle) >= n_effective else (low, middle)
        return low, worth(low)

    def iterate(self, beta):
        log_weights = self.log_weights(beta)
        evidence_here = logsumexp(log_weights) - np.log(len(log_weights))
        weights = np.exp(log_weights - logsumexp(log_weights))
        self._train(self.z, weights, self.rng)
        chosen = diagnostics.systematic(weights, self.n_active, self.rng)
        z, likelihood, prior = self._move(chosen, beta)
        self.z = np.concatenate([self.z, z])
        self.likelihood = np.concatenate([self.likelihood, likelihood])
        self.prior = np.concatenate([self.prior, prior])
        self.betas.append(beta)
        self.log_evidences.append(evidence_here)
        self.sizes.append(len(z))

    def _move(self, chosen, beta):
        dtype = self.z.dtype
        z = tf.constant(self.z[chosen])
        latent, log_det = self.flow.bijector.inverse_and_log_det(z)
        mean, factor, freedom = student.fit(latent.numpy().astype(np.float64))
        known = (z, *(tf.constant(v[chosen], dtype) for v in (self.likelihood, self.prior)), -log_det)
        reference = [tf.constant(v, dtype) for v in (mean, factor, freedom)]
        left, acceptances = 1.0, []
        for i in range(MAX_STEPS):
            seed = tf.constant(self.rng.integers(0, 2**31 - 1, 2), tf.int32)
            arguments = (latent, known, tf.constant(beta, dtype), tf.constant(self.scale, dtype), *reference, seed)
            latent, known, acceptance = self.target.run(self._step, *arguments)
            self.n_evaluations += self.n_active
            acceptances.append(float(acceptance))
            # What an accepted proposal keeps of the latent is sqrt(1 - scale^2).
            left *= 1.0 - acceptances[-1] * (1.0 - np.sqrt(1.0 - self.scale**2))
            self.scale = float(np.clip(self.scale * np.exp((acceptances[-1] - ACCEPTANCE) / (i + 1.0)), 0.01, 0.99))
            if left < REMAINING and i > 0:
                break
        self.acceptance = float(np.mean(acceptances))
        z, likelihood, prior, _ = (v.numpy() for v in known)
        return z, likelihood.astype(np.float64), prior.astype(np.float64)

    def result(self, n_chains, n_draws, started):
        log_weights = self.log_weights(1.0)
        weights = np.exp(log_weights - logsumexp(log_weights))
        chosen = diagnostics.systematic(weights, n_chains * n_draws, self.rng)
        shape = (n_chains, n_draws)
        x = self.target.constrain(tf.constant(self.z[chosen]))[0].numpy()
        jacobian = self.target.constrain(tf.constant(self.z[chosen]))[1].numpy()
        log_prob = (self.likelihood + self.prior)[chosen] - jacobian
        found = evidence(self.target, self.flow, 2 * self.n_active * 4, self.rng)
        self.n_evaluations += found.n_evaluations
        log_evidence, error = self._evidence_of_weights()
        facts = {
            "ess": diagnostics.effective_weights(log_weights),
            "pareto_k": found.pareto_k,
            "acceptance": self.acceptance,
            "betas": list(self.betas),
            "log_evidence_of_weights": log_evidence,
            "log_evidence_of_weights_error": error,
            "n_invalid": self.target.n_invalid,
        }
        # The flow's own draws do not show what it has missed: the weights must agree.
        difference = abs(found.log_evidence - log_evidence)
        if difference > 3.0 * np.hypot(found.error, error):
            error = max(error, difference)
        elif found.pareto_k <= 0.7 and found.error < error:
            log_evidence, error = found.log_evidence, found.error
        return Result(
            draws=x.reshape(*shape, -1),
            log_prob=log_prob.reshape(shape),
            names=self.target.names,
            log_evidence=float(log_evidence),
            log_evidence_error=float(error),
            diagnostics=facts,
            n_evaluations=self.n_evaluations,
            seconds=time.perf_counter() - started,
            flow=self.flow,
        )

    def _evidence_of_weights(self, n_groups: int = 8):
        """The log-evidence of the weights, and its standard error from groups of particles alone."""
        log_weights = self.log_weights(1.0)
        whole = logsumexp(log_weights) - np.log(len(log_weights))
        each = []
        starts = np.concatenate([[0], np.cumsum(self.sizes)])
        for group in range(n_groups):
            # Each group finds its own evidences, one beta after another.
            evidences, rows = [0.0], np.zeros(len(self.z), bool)
            for t in range(1, len(self.betas) + 1):
                rows[np.arange(starts[t - 1], starts[t])[group::n_groups]] = True
                shares = np.log(np.asarray(self.sizes[:t]) / np.sum(self.sizes[:t]))
                likelihood = self.likelihood[rows]
                terms = zip(shares, self.betas[:t], evidences, strict=True)
                mixture = logsumexp([s + b * likelihood - e for s, b, e in terms], axis=0)
                beta = self.betas[t] if t < len(self.betas) else 1.0
                evidences.append(logsumexp(beta * likelihood - mixture) - np.log(rows.sum()))
            each.append(evidences[-1])
        return whole, float(np.std(each, ddof=1) / np.sqrt(n_groups))

    # Checkpoints.

    def state(self):
        return {
            "z": self.z,
            "likelihood": self.likelihood,
            "prior": self.prior,
            "steps": np.array([self.betas, self.log_evidences, self.sizes]),
            "numbers": np.array([self.n_evaluations, self.scale, self.acceptance]),
            "generator": self.rng,
            "flow": self.flow,
        }

    def restore(self, state):
        if state["z"].shape[1] != self.target.n_dim:
            raise ValueError(f"Expected a checkpoint of {self.target.n_dim} parameters; got {state['z'].shape[1]}.")
        self.z, self.likelihood, self.prior = state["z"], state["likelihood"], state["prior"]
        betas, evidences, sizes = state["steps"]
        self.betas, self.log_evidences, self.sizes = list(betas), list(evidences), [int(n) for n in sizes]
        n_evaluations, self.scale, self.acceptance = state["numbers"].tolist()
        self.n_evaluations = int(n_evaluations)
        self.rng = state["generator"]
        self.flow.set_weights(state["flow"])
