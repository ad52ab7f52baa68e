"""Local moves and proposals of a flow in turn, the flow trained on where the chains have been."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfflows.inference import diagnostics
from tfflows.inference.checkpoint import N_CHECKED, check_kind, check_same
from tfflows.inference.flows import Trainer, flow_for
from tfflows.inference.importance import bridge, evidence
from tfflows.inference.kernels import FlowProposal, InTurn, repeat
from tfflows.inference.laplace import normal_draws
from tfflows.inference.progress import Progress
from tfflows.inference.result import Result
from tfflows.inference.target import Target
from tfflows.numerics import check_counts
from tfflows.states import load, save

LEAPFROGS = 5
ACCEPTANCE = {True: 0.7, False: 0.3}  # wanted of local moves, with gradients and without
GAIN = 2.0  # of the logarithm of the step size
REMEMBERED = 8  # places of each walker that the flow is trained on: of four rounds, after either kind of moves
DRAWS_AT_A_TIME = 250
N_EVIDENCE = 4096


def flow_mh(
    target: Target,
    *,
    n_draws: int = 2000,
    n_chains: int = 4,
    seed: int = 0,
    flow=None,
    initial=None,
    n_walkers: int = 128,
    n_rounds: int = 20,
    n_local: int = 20,
    n_global: int = 5,
    checkpoint: str | Path | None = None,
    verbose: bool = True,
) -> Result:
    """Markov chains that move locally, and jump where a flow knows the target to be.

    First `n_walkers` chains adapt everything: in each round they make local moves (Hamiltonian where the target has
    gradients, else random walks), the flow is trained on where all were in the last rounds, and its draws are proposed.
    Then step size and flow are frozen, so that the chains that count leave the target exactly as it is; each of their
    draws is `n_local` local moves and `n_global` proposals after the one before. The evidence is by bridge sampling
    between draws of the chains and of the flow.

    Args:
      target: what is to be sampled.
      n_draws: of each chain.
      n_chains: number of chains that count.
      seed: makes it reproducible.
      flow: a `FlowModel` of the unconstrained parameters, which will be trained; a spline flow if None.
      initial: `[n, n_dim]`, where walkers start, in the target's parameters; None draws from the prior, or without
        one from a normal distribution of deviation 3 of the unconstrained parameters, and half of them, if there are
        gradients, from the normal distribution that is nearest to the target on ways up from there. A mode that none of
        them reaches stays unknown.
      n_walkers: chains of the adaptation.
      n_rounds: of the adaptation.
      n_local, n_global: moves of each kind in a round, and between draws.
      checkpoint: path of a `.npz`: written as it goes; if it is there, the run goes on from it.
      verbose: whether it shows its progress.

    Raises:
      ValueError: if log_prob is finite at no place where walkers start.

    References:
      Gabrie, Rotskoff & Vanden-Eijnden (2022), https://arxiv.org/abs/2105.12603; Wong, Gabrie & Foreman-Mackey (2023),
      flowMC, https://arxiv.org/abs/2211.06397
    """
    check_counts(
        n_draws=n_draws, n_chains=n_chains, n_walkers=n_walkers, n_rounds=n_rounds, n_local=n_local, n_global=n_global
    )
    diagnostics.arviz()  # now, not after hours
    started = time.perf_counter()
    rng = np.random.default_rng(seed)
    flow = flow_for(target, flow, rng)
    run = _Run(target, flow, rng, n_walkers, n_local, n_global)
    if checkpoint is not None and Path(checkpoint).exists():
        run.restore(load(checkpoint), n_chains)
    else:
        run.begin(initial)
    with Progress("flow_mh", verbose) as progress:
        while run.n_rounds < n_rounds and not run.drawn:  # what has drawn stays frozen
            run.adapt()
            progress(f"round {run.n_rounds} of {n_rounds}, {run.facts()}")
            if checkpoint is not None:
                save(checkpoint, run.state())
        run.freeze(n_chains)
        while run.n_drawn < n_draws:
            run.draw(min(DRAWS_AT_A_TIME, n_draws - run.n_drawn))
            progress(f"{run.n_drawn} of {n_draws} draws, {run.facts()}")
            if checkpoint is not None:
                save(checkpoint, run.state())
    return run.result(n_draws, started)


class _Run:
    """Walkers, then chains, and the flow."""

    def __init__(self, target, flow, rng, n_walkers, n_local, n_global):
        self.target, self.flow, self.rng = target, flow, rng
        self.n_walkers, self.n_local, self.n_global = n_walkers, n_local, n_global
        self.step, self.accepted = 0.3, np.zeros(2)
        self.n_rounds = self.n_evaluations = self.n_gradients = 0
        self.history, self.chains = np.zeros([0, n_walkers, target.n_dim]), None
        self.drawn = []
        # The sizes are arguments of a graph: they change.
        self._step, self._scale = (tf.Variable(v, dtype=target.dtype) for v in (0.0, np.ones(target.n_dim)))
        self._train = Trainer(flow, min(4096, REMEMBERED * n_walkers), rng)
        self._unconstrained = tf.function(target.unconstrained_log_prob, autograph=False, reduce_retracing=True)
        self._local = tf.function(self._move_locally, autograph=False, reduce_retracing=True)
        self._global = tf.function(self._move_globally, autograph=False, reduce_retracing=True)
        self._chain = tf.function(self._draw, autograph=False, reduce_retracing=True)

    # In graph.

    def _local_kernel(self):
        density, size = self.target.unconstrained_log_prob, self._step * self._scale
        if self.target.has_gradient:
            return tfp.mcmc.HamiltonianMonteCarlo(density, step_size=size, num_leapfrog_steps=LEAPFROGS)

        def random_walk(parts, seed):
            noise = tf.random.stateless_normal(tf.shape(parts[0]), tfp.random.sanitize_seed(seed), dtype=parts[0].dtype)
            return [parts[0] + size * noise]

        return tfp.mcmc.RandomWalkMetropolis(density, new_state_fn=random_walk)

    def _global_kernel(self):
        return FlowProposal(self.target.unconstrained_log_prob, self.flow)

    def _move_locally(self, z, seed):
        return self._moved(self._local_kernel(), self.n_local, z, seed)

    def _move_globally(self, z, seed):
        return self._moved(self._global_kernel(), self.n_global, z, seed)

    def _moved(self, kernel, n, z, seed):
        """Where walkers are after `n` steps of a kernel, and the share of steps that were accepted."""

        def accepted(results):
            return tf.reduce_mean(tf.cast(results.is_accepted, z.dtype))

        z, _, share = repeat(kernel, n, z, kernel.bootstrap_results(z), seed, accepted)
        return z, share

    def _draw(self, z, n, seed):
        kernel = InTurn([self._local_kernel(), self._global_kernel()], [self.n_local, self.n_global])
        dtype, n_chains = z.dtype, z.shape[0]
        draws = tf.TensorArray(dtype, size=n, element_shape=z.shape)
        accepted = tf.TensorArray(tf.bool, size=n, element_shape=[2, n_chains])

        def body(i, z, draws, accepted, seed):
            seed, now = tfp.random.split_seed(seed, n=2)
            z, results = kernel.one_step(z, None, seed=now)
            taken = tf.stack([part.is_accepted for part in results])
            return i + 1, z, draws.write(i, z), accepted.write(i, taken), seed

        _, z, draws, accepted, _ = tf.while_loop(lambda i, *_: i < n, body, (0, z, draws, accepted, seed))
        draws = draws.stack()
        x, _ = self.target.constrain(tf.reshape(draws, [-1, self.target.n_dim]))
        log_prob = self.target.log_prob(x)
        share = tf.reduce_mean(tf.cast(accepted.stack(), dtype), axis=[0, 2])
        return z, tf.reshape(x, tf.shape(draws)), tf.reshape(log_prob, [n, n_chains]), share

    # Outside.

    def begin(self, initial):
        target, n = self.target, self.n_walkers
        if initial is not None:
            initial = np.asarray(initial)
            if initial.ndim != 2 or initial.shape[1] != target.n_dim or not len(initial):
                raise ValueError(f"Expected initial points [n, {target.n_dim}]; got shape {initial.shape}.")
            z = target.unconstrain(initial)
        elif target.prior is not None:
            z = target.unconstrain(target.sample_prior(8 * n, self.rng))
        else:
            z = self.rng.normal(0.0, 3.0, (8 * n, target.n_dim)).astype(target.dtype.as_numpy_dtype)
        log_prob = self._density(z)
        finite = np.flatnonzero(np.isfinite(log_prob))
        if not len(finite):
            raise ValueError(f"Expected a finite log_prob somewhere; it was not at any of {len(z)} points.")
        self.walkers = z[self.rng.choice(finite, n, replace=len(finite) < n)]
        if initial is None and target.has_gradient:
            # Half of them in the nearest mode, whose shape the others would take long to find; they see to the rest.
            draws, n_gradients = normal_draws(target, z[finite], n, self.rng)
            self.n_gradients += n_gradients
            draws = draws[np.isfinite(self._density(draws))][: n // 2]
            self.walkers[: len(draws)] = draws

    def _density(self, z):
        self.n_evaluations += len(z)
        return self.target.run(self._unconstrained, tf.constant(z)).numpy()

    def _seed(self):
        return tf.constant(self.rng.integers(0, 2**31 - 1, 2), tf.int32)

    def _count(self, n_chains, n_local, n_global):
        self.n_evaluations += n_chains * (n_local * (LEAPFROGS if self.target.has_gradient else 1) + n_global + 2)
        if self.target.has_gradient:
            self.n_gradients += n_chains * (n_local * LEAPFROGS + 1)

    def adapt(self):
        self._set_sizes(self.walkers)
        moved, local = self.target.run(self._local, tf.constant(self.walkers), self._seed())
        wanted = ACCEPTANCE[self.target.has_gradient]
        self.step = float(np.clip(self.step * np.exp(GAIN * (float(local) - wanted)), 1e-4, 2.0))
        self._remember(moved.numpy())
        rows = self.history.reshape(-1, self.target.n_dim)
        self._train(rows, np.full(len(rows), 1.0 / len(rows)), self.rng)
        moved, share = self.target.run(self._global, moved, self._seed())
        self.walkers = moved.numpy()
        self._remember(self.walkers)
        self.accepted = np.array([float(local), float(share)])
        self._count(self.n_walkers, self.n_local, self.n_global)
        self.n_rounds += 1

    def _set_sizes(self, z):
        self._step.assign(self.step)
        self._scale.assign(np.maximum(np.std(z, axis=0), 1e-6))

    def _remember(self, z):
        self.history = np.concatenate([self.history, z[np.newaxis]])[-REMEMBERED:].astype(z.dtype)

    def freeze(self, n_chains):
        """From here on nothing is adapted."""
        self._set_sizes(self.history.reshape(-1, self.target.n_dim))
        if self.chains is None:
            replace = n_chains > len(self.walkers)
            self.chains = self.walkers[self.rng.choice(len(self.walkers), n_chains, replace=replace)]

    @property
    def n_drawn(self):
        return sum(draws.shape[1] for draws, _ in self.drawn)

    def draw(self, n):
        chains, x, log_prob, share = self.target.run(
            self._chain, tf.constant(self.chains), tf.constant(n), self._seed()
        )
        # The mean of all draws so far.
        self.accepted = (self.n_drawn * self.accepted + n * share.numpy()) / (self.n_drawn + n)
        self.chains = chains.numpy()
        self.drawn.append((np.swapaxes(x.numpy(), 0, 1), log_prob.numpy().T))
        self._count(n * len(self.chains), self.n_local, self.n_global)
        self.n_evaluations += n * len(self.chains)  # of what is returned

    def facts(self):
        return f"accepted {self.accepted[0]:.2f} local, {self.accepted[1]:.2f} of the flow"

    def result(self, n_draws, started):
        draws, log_prob = (np.concatenate(part, axis=1)[:, :n_draws] for part in zip(*self.drawn, strict=True))
        chains = diagnostics.chains(draws)
        found = evidence(self.target, self.flow, N_EVIDENCE, self.rng)
        log_evidence, error = bridge(self._log_weights(draws, log_prob), found.log_weights, _least(chains["ess_bulk"]))
        facts = {
            "acceptance_local": float(self.accepted[0]),
            "acceptance_flow": float(self.accepted[1]),
            "step_size": self.step,
            "pareto_k": found.pareto_k,
            "log_evidence_of_flow": found.log_evidence,
            "n_invalid": self.target.n_invalid,
        }
        return Result(
            draws=draws,
            log_prob=log_prob,
            names=self.target.names,
            log_evidence=log_evidence,
            log_evidence_error=error,
            diagnostics=facts | chains,
            n_evaluations=self.n_evaluations + found.n_evaluations,
            n_gradients=self.n_gradients,
            seconds=time.perf_counter() - started,
            flow=self.flow,
        )

    def _log_weights(self, draws, log_prob):
        """Target over flow, unconstrained, at some of the draws."""
        every = -(-log_prob.size // N_EVIDENCE)
        x, log_prob = draws.reshape(-1, self.target.n_dim)[::every], log_prob.ravel()[::every]
        z = tf.constant(self.target.unconstrain(x))
        return log_prob + self.target.constrain(z)[1].numpy() - self.flow.log_prob(z).numpy()

    # Checkpoints.

    def state(self):
        state = {"walkers": self.walkers, "history": self.history, "generator": self.rng} | self._train.state()
        state["known"] = self._checked(self.walkers)
        counts = [self.n_rounds, self.n_evaluations, self.n_gradients, self.target.n_invalid]
        state["numbers"] = np.array([*counts, self.step, *self.accepted], np.float64)
        if self.drawn:
            state["chains"] = self.chains
            state["draws"], state["log_prob"] = (np.concatenate(part, axis=1) for part in zip(*self.drawn, strict=True))
        return state

    def _checked(self, walkers):
        """The target at some walkers; uncounted, so that results say the same with and without checkpoints."""
        n_invalid = self.target.n_invalid
        known = self.target.run(self._unconstrained, tf.constant(walkers[:N_CHECKED])).numpy()
        self.target.n_invalid = n_invalid
        return known

    def restore(self, state, n_chains):
        check_kind(state, "walkers", "flow_mh")
        if state["walkers"].shape != (self.n_walkers, self.target.n_dim):
            got = state["walkers"].shape
            raise ValueError(
                f"Expected a checkpoint of {self.n_walkers} walkers, {self.target.n_dim} numbers; got {got}."
            )
        dtype = self.target.dtype.as_numpy_dtype
        check_same(state["known"], self._checked(state["walkers"].astype(dtype)))
        self.walkers, self.history = state["walkers"].astype(dtype), state["history"].astype(dtype)
        self.rng = state["generator"]
        *counts, self.step, local, share = state["numbers"].tolist()
        self.n_rounds, self.n_evaluations, self.n_gradients, self.target.n_invalid = map(int, counts)
        self.accepted = np.array([local, share])
        self._train.restore(state)
        if "draws" in state:
            if len(state["chains"]) != n_chains:
                raise ValueError(f"Expected a checkpoint of {n_chains} chains; got {len(state['chains'])}.")
            self.chains, self.drawn = state["chains"].astype(dtype), [(state["draws"], state["log_prob"])]


def _least(ess):
    """The smallest effective number of draws; of chains that never moved it is NaN."""
    return float(np.nanmax([1.0, np.min(ess)]))
