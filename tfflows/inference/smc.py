"""Sequential Monte Carlo from the prior to the posterior, its moves made in the latent space of a flow."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import tensorflow as tf
from scipy import stats

from tfflows.inference import diagnostics, student
from tfflows.inference.checkpoint import N_CHECKED, check_kind, check_same
from tfflows.inference.flows import Trainer, flow_for
from tfflows.inference.importance import bridge, evidence
from tfflows.inference.particles import NEVER, Particles
from tfflows.inference.progress import Progress
from tfflows.inference.result import Result
from tfflows.inference.target import Target
from tfflows.numerics import check_counts
from tfflows.states import load, save

MOST_BEGINNINGS = 20  # times as many draws of the prior as wanted, where most are impossible
MAX_STEPS = 100  # of a move
REMAINING = 0.1  # a move ends when so much of where particles came from is left in where they are,
DRIFT = 0.2  # and their likelihoods have not risen or fallen meanwhile, at this level of significance,
N_WATCHED = 512  # particles looked at for that: of many more the least of drifts would be significant
ACCEPTANCE = 0.234  # wanted of short steps
MAX_ROUNDS = 20  # of moves at the end, until particles have settled:
SETTLED = 6  # rounds over which their likelihoods have not drifted


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
    have forgotten where they were and their likelihoods no longer drift: by short steps, and by steps so long that they
    forget it at once, which go from mode to mode where the flow fits.

    Particles lag behind beta where they move slowly. So at the end twice `n_active` are drawn at beta 1, and moved
    without weights, the flow trained on where they were, until a move changes their likelihoods no more. Then the flow
    is frozen, and what further moves give are the draws; next to none is twice in them. The evidence comes from bridge
    sampling between these draws and draws of the flow; its error includes the difference to what the flow's draws alone
    say. Of the diagnostics, `settled` says whether particles came to rest, `remaining` how much of where they were is
    left after the worst of all moves, which end after 100 steps at the latest, `ess` what all weighted particles are
    worth at beta 1, and `log_evidence_of_weights` what they say, with the spread between eight groups of particles as
    error, which knows nothing of a lag.

    Args:
      target: with a prior. No gradients are needed.
      n_draws: of each chain; draws are exchangeable, so chains are only a shape.
      n_chains: number of chains.
      seed: makes it reproducible.
      n_effective: number of draws that the particles of each beta are worth.
      n_active: particles moved at a time.
      flow: a `FlowModel` of the unconstrained parameters, which will be trained; a spline flow if None.
      max_iterations: of beta, at most.
      checkpoint: path of a `.npz`: written after each iteration and each round of moves at beta 1; if it is there, the
        run goes on from it.
      verbose: whether it shows its progress.

    Raises:
      ValueError: for a target without prior, one whose likelihood is zero wherever the prior drew, or a checkpoint of
        another target.
      RuntimeError: if beta is not 1 after `max_iterations`.

    References:
      Karamanis, Beutler, Peacock, Nabergoj & Seljak (2022), https://arxiv.org/abs/2207.05652 (preconditioning);
      Karamanis & Seljak (2024), Persistent sampling, https://arxiv.org/abs/2407.20722; Grumitt, Dai & Seljak (2022),
      https://arxiv.org/abs/2205.14240 (t-preconditioned proposals)
    """
    check_counts(
        n_draws=n_draws, n_chains=n_chains, n_effective=n_effective, n_active=n_active, max_iterations=max_iterations
    )
    if n_active < 2:
        raise ValueError(f"Expected n_active >= 2; got {n_active}.")
    diagnostics.arviz()  # now, not after hours
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
    with Progress("preconditioned_smc", verbose) as progress:
        for what in run.steps(n_effective, max_iterations, n_chains * n_draws):
            if checkpoint is not None:
                save(checkpoint, run.state())
            progress(f"{what}, {run.facts()}")
    return run.result((n_chains, n_draws), started)


class _Run:
    """Particles, the flow, and how to move them."""

    def __init__(self, target, flow, rng, n_active):
        self.target, self.flow, self.rng, self.n_active = target, flow, rng, n_active
        self.particles = None
        self.settling, self.rounds, self.settled = [], [], False  # at beta 1: rounds of moves before and after the flow
        self.n_evaluations, self.scale, self.remaining = 0, 0.6, 0.0
        self.acceptance = [1.0, 1.0]  # of the last move: short steps and far ones
        self._train = Trainer(flow, 4 * n_active, rng)
        # Of any number of rows from the start: a graph of one number rounds otherwise than one of any, and which one
        # there is would depend on where a run was killed.
        rows, each, one = (tf.TensorSpec(shape, target.dtype) for shape in ([None, target.n_dim], [None], []))
        shapes = [None, 1], [target.n_dim], [target.n_dim, target.n_dim]
        column, mean, factor = (tf.TensorSpec(shape, target.dtype) for shape in shapes)
        seed = tf.TensorSpec([2], tf.int32)
        signature = [rows, (rows, each, each, each), one, column, mean, factor, one, seed]
        self._evaluate = tf.function(self._densities, autograph=False, input_signature=[rows])
        self._latent = tf.function(
            lambda z: flow.bijector.inverse_and_log_det(z), autograph=False, input_signature=[rows]
        )
        self._step = tf.function(self._propose, autograph=False, input_signature=signature)

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
        n, is_far = tf.shape(latent)[:1], scale[:, 0] == 1.0
        # The t is a normal of random precision: of which, given the latent, or for a far step as if there were none.
        shape = 0.5 * (freedom + tf.where(is_far, tf.zeros_like(squared), tf.cast(n_dim, dtype)))
        rate = 0.5 * (freedom + tf.where(is_far, tf.zeros_like(squared), squared))
        precision = tf.random.stateless_gamma(n, seeds[0], shape, rate, dtype)
        noise = tf.random.stateless_normal(tf.shape(latent), seeds[1], dtype=dtype) @ tf.transpose(factor)
        kept = tf.sqrt(1.0 - scale**2)  # of the latent, by an accepted proposal
        proposal = mean + kept * (latent - mean) + scale * noise / tf.sqrt(precision)[:, tf.newaxis]
        z, log_det = self.flow.bijector.forward_and_log_det(proposal)
        likelihood, prior = self._densities(z)
        new = (z, tf.maximum(likelihood, NEVER), prior, log_det)

        def log_target(of):
            return beta * of[1] + of[2] + of[3]

        gain = log_target(new) - log_t(distance(proposal)) - (log_target(known) - log_t(squared))
        # What is impossible is left, whatever is proposed that is possible.
        gain = tf.where(tf.math.is_nan(gain) | ~tf.math.is_finite(log_target(new)), tf.constant(-np.inf, dtype), gain)
        accepted = tf.math.log(tf.random.stateless_uniform(n, seeds[2], dtype=dtype)) < gain

        def choose(a, b):
            return tf.where(accepted[:, tf.newaxis] if a.shape.rank == 2 else accepted, a, b)

        known = tuple(map(choose, new, known))
        probability = tf.exp(tf.minimum(gain, 0.0))
        return choose(proposal, latent), known, tf.reduce_mean(probability), probability * (1.0 - kept[:, 0])

    # Outside.

    def begin(self, n):
        """Draws from the prior, until the likelihood of `n` is not zero."""
        parts, n_drawn, n_possible = [], 0, 0
        while n_possible < n and n_drawn < MOST_BEGINNINGS * n:
            z = self.target.unconstrain(self.target.sample_prior(n, self.rng))
            likelihood, prior = (v.numpy().astype(np.float64) for v in self.target.run(self._evaluate, tf.constant(z)))
            parts.append((z, np.maximum(likelihood, NEVER), prior))
            n_drawn, n_possible = n_drawn + n, n_possible + int(np.sum(likelihood > NEVER))
        self.n_evaluations += n_drawn
        if not n_possible:
            raise ValueError(
                f"Expected a finite log_prob somewhere; it was not at any of {n_drawn} draws of the prior."
            )
        self.particles = Particles(*(np.concatenate(part) for part in zip(*parts, strict=True)))

    def steps(self, n_effective, max_iterations, n_wanted):
        """All that is left to do until there are `n_wanted` draws; after each step it says which it was."""
        while not self.settling and (beta := self.particles.next_beta(n_effective)) < 1.0:
            if len(self.particles.betas) > max_iterations:
                raise RuntimeError(f"Expected beta 1 after {max_iterations} iterations; it is {beta:.3g}.")
            self._iterate(beta)
            yield f"beta {beta:.3g}"
        if not self.settling:
            self.settling = [self._chosen(self.particles.weights(1.0), 2 * self.n_active)]
        while not self.settled and len(self.settling) <= MAX_ROUNDS:
            self._settle()
            yield f"round {len(self.settling) - 1} at beta 1"
        while (n := sum(len(z) for z, _, _ in self.rounds)) < n_wanted:
            self.rounds.append(self._moved((self.rounds or self.settling)[-1], 1.0))
            yield f"{n + 2 * self.n_active} of {n_wanted} draws"

    def _iterate(self, beta):
        weights = self.particles.weights(beta)
        self._train(self.particles.z, weights, self.rng)
        self.particles.add(beta, *self._moved(self._chosen(weights, self.n_active), beta))

    def _chosen(self, weights, n):
        rows = diagnostics.systematic(weights, n, self.rng)
        return tuple(v[rows] for v in (self.particles.z, self.particles.likelihood, self.particles.prior))

    def _moved(self, particles, beta):
        """z, log-likelihood and log-prior of particles, after a move that leaves those of `beta` as they are.

        Nearly: the reference distribution, the lengths of short steps and the number of steps depend on the particles.
        """
        z, dtype = tf.constant(particles[0]), particles[0].dtype
        latent, log_det = self._latent(z)
        reference = [tf.constant(v, dtype) for v in student.fit(latent.numpy().astype(np.float64))]
        state = (z, *(tf.constant(v, dtype) for v in particles[1:]), -log_det)
        acceptances, forgotten = {False: [], True: []}, {False: 0.0, True: 0.0}
        # Of each particle: in all, and since drift was last looked for.
        whole, left, before = np.ones(len(z)), np.ones(len(z)), state[1].numpy()
        for i in range(MAX_STEPS):
            # Both kinds again and again; between them that which forgets more.
            far = (False, True)[i % 4] if i % 4 < 2 else forgotten[True] > forgotten[False]
            # Short steps have every length up to the greatest: some for where the flow fits, some for where not.
            scales = np.ones(len(z)) if far else self.scale * self.rng.random(len(z))
            seed = tf.constant(self.rng.integers(0, 2**31 - 1, 2), tf.int32)
            arguments = (tf.constant(beta, dtype), tf.constant(scales[:, np.newaxis], dtype), *reference, seed)
            latent, state, acceptance, share = self.target.run(self._step, latent, state, *arguments)
            self.n_evaluations += len(z)
            share = share.numpy()
            acceptances[far].append(float(acceptance))
            forgotten[far] = float(np.mean(share))
            whole, left = whole * (1.0 - share), left * (1.0 - share)
            if not far:
                step = (acceptances[far][-1] - ACCEPTANCE) / len(acceptances[far])
                self.scale = float(np.clip(self.scale * np.exp(step), 0.01, 0.99))
            if np.mean(left) < REMAINING and i > 0:
                now = state[1].numpy()
                if _drift(before, now) > DRIFT:
                    break
                left, before = np.ones(len(z)), now
        self.acceptance = [float(np.mean(acceptances[far])) for far in (False, True)]
        self.remaining = max(self.remaining, float(np.mean(whole)))
        z, likelihood, prior, _ = (v.numpy() for v in state)
        return z, likelihood.astype(np.float64), prior.astype(np.float64)

    def _settle(self):
        """Moves particles at beta 1, trains the flow on them, and looks whether their likelihoods stay as they are."""
        self.settling.append(self._moved(self.settling[-1], 1.0))
        last = self.settling[-SETTLED - 1 :]
        rows = np.concatenate([z for z, _, _ in last[1:]])
        self._train(rows, np.full(len(rows), 1.0 / len(rows)), self.rng)
        self.settled = len(last) > SETTLED and _drift(last[0][1], last[-1][1]) > DRIFT

    def facts(self):
        short, far = self.acceptance
        return f"accepted {short:.2f}, {far:.2f} far, {self.n_evaluations:,} evaluations"

    def result(self, shape, started):
        # Of the last round as many as are missing, whichever.
        rows = self.rng.permutation(sum(len(z) for z, _, _ in self.rounds))[: np.prod(shape)]
        z, likelihood, prior = (np.concatenate(part)[rows] for part in zip(*self.rounds, strict=True))
        x, jacobian = (v.numpy() for v in self.target.constrain(tf.constant(z)))
        found = evidence(self.target, self.flow, max(len(z), 8 * self.n_active), self.rng)
        of_draws = likelihood + prior - self.flow.log_prob(z).numpy()
        # Which modes walkers are in they keep from draw to draw, where the flow does not fit, and have from so many.
        n_independent = min(self.n_active, self.particles.worth(1.0))
        log_evidence, error = bridge(of_draws[likelihood > NEVER], found.log_weights, n_independent)
        of_weights = self.particles.log_evidence(1.0)
        # Where draws or the flow have yet to reach, the two estimates with the flow differ.
        error = float(np.hypot(error, log_evidence - found.log_evidence))
        if not self.settled:
            error = max(error, abs(log_evidence - of_weights))
        facts = {
            "ess": self.particles.worth(1.0),
            "pareto_k": found.pareto_k,
            "acceptance": self.acceptance[0],
            "acceptance_far": self.acceptance[1],
            "remaining": self.remaining,
            "settled": self.settled,
            "betas": list(self.particles.betas),
            "log_evidence_of_flow": found.log_evidence,
            "log_evidence_of_weights": of_weights,
            "log_evidence_of_weights_error": self.particles.log_evidence_error(),
            "n_invalid": self.target.n_invalid,
        }
        return Result(
            draws=x.reshape(*shape, -1),
            log_prob=(likelihood + prior - jacobian).reshape(shape),
            names=self.target.names,
            log_evidence=log_evidence,
            log_evidence_error=error,
            diagnostics=facts,
            n_evaluations=self.n_evaluations + found.n_evaluations,
            seconds=time.perf_counter() - started,
            flow=self.flow,
        )

    # Checkpoints.

    def state(self):
        counts = [self.n_evaluations, self.target.n_invalid, self.settled]
        numbers = np.array([*counts, self.scale, self.remaining, *self.acceptance])
        state = self.particles.state() | self._train.state() | {"numbers": numbers, "generator": self.rng}
        for name, rounds in (("settling", self.settling), ("rounds", self.rounds)):
            if rounds:
                parts = zip(*rounds, strict=True)
                state |= {f"{name}_{i}": np.stack(part) for i, part in enumerate(parts)}
        return state

    def restore(self, state):
        check_kind(state, "steps", "preconditioned_smc")
        if state["z"].shape[1] != self.target.n_dim:
            raise ValueError(f"Expected a checkpoint of {self.target.n_dim} parameters; got {state['z'].shape[1]}.")
        state["z"] = state["z"].astype(self.target.dtype.as_numpy_dtype)
        now = self.target.run(self._evaluate, tf.constant(state["z"][-N_CHECKED:]))
        for kept, value in zip((state["likelihood"], state["prior"]), now, strict=True):
            check_same(kept[-N_CHECKED:], value.numpy())
        self.particles = Particles.restored(state)
        n_evaluations, n_invalid, settled, self.scale, self.remaining, *self.acceptance = state["numbers"].tolist()
        self.n_evaluations, self.target.n_invalid, self.settled = int(n_evaluations), int(n_invalid), bool(settled)
        self.settling, self.rounds = (
            list(zip(*(state[f"{name}_{i}"] for i in range(3)), strict=True)) if f"{name}_0" in state else []
            for name in ("settling", "rounds")
        )
        self.rng = state["generator"]
        self._train.restore(state)


def _drift(before, now):
    """Significance of likelihoods that have risen or fallen, in [0, 1]; small if they have."""
    before, now = before[:N_WATCHED], now[:N_WATCHED]
    return 1.0 if np.array_equal(before, now) else float(stats.wilcoxon(now, before).pvalue)
