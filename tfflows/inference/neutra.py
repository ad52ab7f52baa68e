"""Hamiltonian Monte Carlo where a flow has made the target round."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfflows.bijectors import Chain
from tfflows.inference import diagnostics
from tfflows.inference.checkpoint import Checkpoint
from tfflows.inference.flows import flow_for
from tfflows.inference.progress import Progress
from tfflows.inference.result import Result
from tfflows.inference.target import Target
from tfflows.inference.variational import check_gradient, fit_reverse
from tfflows.numerics import check_counts

tfb = tfp.bijectors

MAX_TREE_DEPTH = 8
ACCEPTANCE = 0.8
GAIN = 2.0  # of the logarithm of the step size
AT_A_TIME = 50


def neutra_hmc(
    target: Target,
    *,
    n_draws: int = 2000,
    n_chains: int = 4,
    seed: int = 0,
    flow=None,
    initial=None,
    n_steps: int = 2000,
    n_particles: int = 256,
    n_adapt: int = 500,
    jit_compile: bool = True,
    checkpoint: str | Path | None = None,
    verbose: bool = True,
) -> Result:
    """No-U-turn chains in the latent space of a flow that was fitted to the target by variational inference.

    Where the flow fits, the target is nearly a standard normal there, and chains mix quickly; where it does not they
    are exact all the same. Step size and the mass of each latent are adapted in `n_adapt` steps, and then frozen.

    Args:
      target: with gradients, and with one mode, or modes that chains can go between.
      n_draws: of each chain.
      n_chains: number of chains, which start at draws of the flow.
      seed: makes it reproducible.
      flow: a `FlowModel` of the unconstrained parameters: one that is fitted already is taken as it is if n_steps=0; a
        spline flow if None.
      initial: see `variational`.
      n_steps, n_particles: of the fit, see `variational`.
      n_adapt: steps of adaptation.
      jit_compile: whether the chains are compiled by XLA, which knows not every operation that a log_prob may have.
      checkpoint: path of a `.npz`: written after the fit and after each 50 steps of the chains; if it is there, the run
        goes on from it.
      verbose: whether it shows its progress.

    Raises:
      ValueError: for a target without gradients, or a checkpoint of another target, seed or other settings.

    References:
      Hoffman, Sountsov, Dillon, Langmore, Tran & Vasudevan (2019), NeuTra-lizing bad geometry in Hamiltonian Monte
      Carlo using neural transport, https://arxiv.org/abs/1903.03704; Hoffman & Gelman (2014), The no-U-turn sampler,
      https://arxiv.org/abs/1111.4246; kernels by TensorFlow Probability
    """
    check_counts(n_draws=n_draws, n_chains=n_chains, n_adapt=n_adapt, n_particles=n_particles)
    check_gradient(target)
    if n_steps == 0 and flow is None:
        raise ValueError("Expected a fitted flow for n_steps=0; got none.")
    started = time.perf_counter()
    rng = np.random.default_rng(seed)
    flow = flow_for(target, flow, rng)
    sizes = {"n_chains": n_chains, "n_steps": n_steps, "n_particles": n_particles, "n_adapt": n_adapt}
    kept = Checkpoint(checkpoint, target, rng, seed=seed, **sizes)
    with Progress("neutra_hmc", verbose) as progress:
        n_gradients = 0
        if n_steps:
            n_gradients = fit_reverse(target, flow, initial, n_steps, n_particles, rng, progress, kept)
        chains = _Chains(target, flow, n_chains, jit_compile, rng, kept)
        while chains.n_adapted < n_adapt:
            progress(f"{chains.n_adapted} of {n_adapt} steps of adaptation, accepted {chains.adapt():.2f}")
        while chains.n_drawn < n_draws:
            chains.draw()
            progress(f"{chains.n_drawn} of {n_draws} draws, {chains.n_divergences} divergences")
    x, log_prob = (np.swapaxes(np.concatenate(part)[:n_draws], 0, 1) for part in (chains.x, chains.log_prob))
    n_gradients += chains.n_leapfrogs
    n_others = n_chains * (16 + n_draws + AT_A_TIME)  # where chains start, and the density of what is returned
    return Result(
        draws=x,
        log_prob=log_prob,
        names=target.names,
        diagnostics={
            "step_size": chains.step_size,
            "divergences": chains.n_divergences,
            "leapfrogs": chains.n_leapfrogs / (n_chains * (chains.n_adapted + chains.n_drawn)),
        }
        | diagnostics.chains(x),
        n_evaluations=n_gradients + n_others,
        n_gradients=n_gradients,
        seconds=time.perf_counter() - started,
        flow=flow,
    )


class _Chains:
    """Chains in the latent space, some steps at a time."""

    def __init__(self, target, flow, n_chains, jit_compile, rng, kept):
        self.target, self.flow, self.rng, self._kept = target, flow, rng, kept
        self.step_size, self.scale = 0.3, np.ones(target.n_dim)
        self.n_leapfrogs = self.n_divergences = self.n_adapted = 0
        self.x, self.log_prob = [], []  # draws that count, some steps each
        if "z" in kept.found:
            self._restore(kept.found)
        else:
            self.z = self._start(n_chains)
        self._run = tf.function(self._steps, autograph=False, jit_compile=jit_compile)

    def _start(self, n_chains):
        """Draws of the flow at which the target is not zero."""
        z = self.flow.sample(16 * n_chains, seed=int(self.rng.integers(2**31 - 1)))
        log_prob = self.target.run(tf.function(self.target.unconstrained_log_prob, autograph=False), z).numpy()
        finite = np.flatnonzero(np.isfinite(log_prob))
        if not len(finite):
            raise ValueError(f"Expected a finite log_prob somewhere; it was not at any of {len(z)} draws of the flow.")
        return tf.gather(z, self.rng.choice(finite, n_chains, replace=len(finite) < n_chains))

    def _steps(self, z, step_size, scale, seed):
        # The scale of each latent stands for its mass.
        bijector = Chain([self.flow.bijector, tfb.Scale(scale)])
        inner = tfp.mcmc.NoUTurnSampler(
            self.target.unconstrained_log_prob, step_size=step_size, max_tree_depth=MAX_TREE_DEPTH
        )
        z, (leapfrogs, ratio, divergent) = tfp.mcmc.sample_chain(
            AT_A_TIME,
            z,
            kernel=tfp.mcmc.TransformedTransitionKernel(inner, bijector),
            trace_fn=lambda _, results: _traced(results.inner_results),
            seed=seed,
        )
        rows = tf.reshape(z, [-1, self.target.n_dim])
        x, _ = self.target.constrain(rows)
        return (
            z,
            tf.reshape(x, tf.shape(z)),
            tf.reshape(self.target.log_prob(x), tf.shape(z)[:2]),
            self.flow.bijector.inverse_and_log_det(rows)[0],
            tf.reduce_mean(tf.exp(tf.minimum(ratio, 0.0))),
            tf.reduce_sum(leapfrogs),
            tf.reduce_sum(tf.cast(divergent, tf.int32)),
        )

    def advance(self):
        """`AT_A_TIME` steps: x and log-density `[steps, chains]`, all latents, and the mean acceptance."""
        dtype = self.target.dtype
        sizes = tf.constant(self.step_size, dtype), tf.constant(self.scale, dtype)
        seed = tf.constant(self.rng.integers(0, 2**31 - 1, 2), tf.int32)
        z, x, log_prob, latents, acceptance, leapfrogs, divergences = self.target.run(self._run, self.z, *sizes, seed)
        self.z = z[-1]
        self.n_leapfrogs += int(leapfrogs)
        self.n_divergences += int(divergences)
        return x.numpy(), log_prob.numpy(), latents.numpy(), float(acceptance)

    def adapt(self):
        """Steps whose draws do not count, after which step size and scales are set anew."""
        _, _, latents, acceptance = self.advance()
        self.step_size *= float(np.exp(np.clip(GAIN * (acceptance - ACCEPTANCE), -1.0, 1.0)))
        scale = np.std(latents, axis=0)
        self.scale = np.clip(np.sqrt(self.scale * scale), 1e-6, 1e6)  # half way: few draws, and correlated
        self.n_adapted += AT_A_TIME
        self.n_divergences = 0  # of the draws that count
        self._keep()
        return acceptance

    def draw(self):
        """Steps whose draws count."""
        x, log_prob, _, _ = self.advance()
        self.x.append(x)
        self.log_prob.append(log_prob)
        self._keep()

    @property
    def n_drawn(self):
        return AT_A_TIME * len(self.x)

    # Checkpoints.

    def _keep(self):
        numbers = np.array([self.n_leapfrogs, self.n_divergences, self.n_adapted, self.step_size])
        self._kept.keep(z=self.z, numbers=numbers, scale=self.scale, x=self.x, log_prob=self.log_prob)

    def _restore(self, found):
        self.z, self.scale = tf.constant(found["z"], self.target.dtype), found["scale"]
        *counts, self.step_size = found["numbers"].tolist()
        self.n_leapfrogs, self.n_divergences, self.n_adapted = map(int, counts)
        self.x, self.log_prob = found["x"], found["log_prob"]


def _traced(nuts):
    return nuts.leapfrogs_taken, nuts.log_accept_ratio, nuts.has_divergence
