"""Variational inference: a flow fitted to a target by its own draws, without a sampler."""

from __future__ import annotations

import time
from pathlib import Path

import keras
import numpy as np
from scipy.special import logsumexp

from tfflows.inference import diagnostics
from tfflows.inference.checkpoint import Checkpoint
from tfflows.inference.flows import Trainer, flow_for
from tfflows.inference.importance import evidence, importance
from tfflows.inference.laplace import normal_draws
from tfflows.inference.progress import Progress
from tfflows.inference.result import Result
from tfflows.inference.target import Target
from tfflows.losses import ReverseKL
from tfflows.numerics import check_counts
from tfflows.randomness import seeded

IMPOSSIBLE = 10.0  # nats that draws where the target is zero cost
LEARNING_RATE = 3e-3
ROWS_OF_A_ROUND = 4096
N_BEGINNING = 2000  # draws that set location, scale and correlation of the flow
N_BOUND = 2048  # draws that the evidence's lower bound is the mean of


def variational(
    target: Target,
    *,
    n_draws: int = 2000,
    n_chains: int = 4,
    seed: int = 0,
    flow=None,
    initial=None,
    n_steps: int = 2000,
    n_particles: int = 256,
    n_rounds: int = 4,
    checkpoint: str | Path | None = None,
    verbose: bool = True,
) -> Result:
    """A flow fitted to the target, and its draws with the weights that make them draws of the target.

    First by the reverse divergence KL(flow | target), whose gradient goes through the draws (`losses.ReverseKL`): fast,
    but the flow ends up too narrow rather than too wide. Then, `n_rounds` times, by the forward one: the flow draws,
    the draws are weighted by the target (Pareto-smoothed), and the flow is fitted to them by maximum likelihood, which
    widens it where it was too narrow; a round that makes the weights worse is taken back. The result's draws are
    importance-weighted; `pareto_k` above 0.7 says that they are not to be trusted.

    Args:
      target: with gradients.
      n_draws: of each chain; draws are independent, so chains are only a shape.
      n_chains: number of chains.
      seed: makes it reproducible.
      flow: a `FlowModel` of the unconstrained parameters, which will be trained; a spline flow if None.
      initial: `[n, n_dim]`, draws in the target's parameters that say where and how wide the flow begins; None looks
        for the best normal distribution of the unconstrained parameters on ways up from some draws of the prior, or
        without one of a standard normal distribution.
      n_steps: of the reverse divergence.
      n_particles: draws in each of them.
      n_rounds: of the forward divergence; 0 leaves them out.
      checkpoint: path of a `.npz`: written after the reverse divergence and after each round; if it is there, the run
        goes on from it.
      verbose: whether it shows its progress.

    Raises:
      ValueError: for a target without gradients, or a checkpoint of another target, seed, n_steps or n_particles.

    References:
      Rezende & Mohamed (2015), https://arxiv.org/abs/1505.05770; Roeder, Wu & Duvenaud (2017),
      https://arxiv.org/abs/1703.09194; Naesseth, Lindsten & Blei (2020), Markovian score climbing,
      https://arxiv.org/abs/2003.10374 (forward)
    """
    check_counts(n_draws=n_draws, n_chains=n_chains, n_steps=n_steps, n_particles=n_particles)
    check_gradient(target)
    started = time.perf_counter()
    rng = np.random.default_rng(seed)
    flow = flow_for(target, flow, rng)
    kept = Checkpoint(checkpoint, target, rng, seed=seed, n_steps=n_steps, n_particles=n_particles)
    with Progress("variational", verbose) as progress:
        n_gradients = fit_reverse(target, flow, initial, n_steps, n_particles, rng, progress, kept)
        n_evaluations = _fit_forward(target, flow, n_rounds, rng, progress, kept)
    found = importance(target, flow, n_draws=n_draws, n_chains=n_chains, seed=int(rng.integers(2**31 - 1)))
    bound = float(np.mean(evidence(target, flow, N_BOUND, rng).log_weights))
    return Result(
        draws=found.draws,
        log_prob=found.log_prob,
        names=target.names,
        log_weights=found.log_weights,
        log_evidence=found.log_evidence,
        log_evidence_error=found.log_evidence_error,
        diagnostics=found.diagnostics | {"elbo": bound},
        n_evaluations=n_gradients + n_evaluations + found.n_evaluations + N_BOUND,
        n_gradients=n_gradients,
        seconds=time.perf_counter() - started,
        flow=flow,
    )


def check_gradient(target):
    if not target.has_gradient:
        raise ValueError("Expected a log_prob in TensorFlow, which has gradients; got one in NumPy.")


def fit_reverse(target, flow, initial, n_steps, n_particles, rng, progress, kept):
    """Fits a flow by the reverse divergence; returns how many gradients of the target that took."""
    if "flow" in kept.found:  # by the run that was killed
        flow.set_weights(kept.found["flow"])
        return int(kept.found["n_gradients"])
    beginning, n_gradients = _beginning(target, initial, rng)
    flow.adapt(beginning)

    schedule = keras.optimizers.schedules.CosineDecay(
        0.1 * LEARNING_RATE, n_steps, alpha=0.01, warmup_target=LEARNING_RATE, warmup_steps=n_steps // 20
    )
    rows = np.zeros([n_particles, target.n_dim], target.dtype.as_numpy_dtype)

    class Report(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch % 50 == 0:
                progress(f"step {epoch} of {n_steps}, evidence above {-logs['loss']:.3f}")

    with seeded(rng):
        flow.compile(
            keras.optimizers.Adam(schedule, global_clipnorm=10.0),
            ReverseKL(target.unconstrained_log_prob, impossible=IMPOSSIBLE),
        )
        flow.fit(rows, batch_size=n_particles, epochs=n_steps, callbacks=[Report()], verbose=0)
    n_gradients += n_steps * n_particles
    kept.keep(flow=flow.get_weights(), n_gradients=n_gradients)
    return n_gradients


def _beginning(target, initial, rng):
    """Draws that say where and how wide the flow begins, and how many gradients they took."""
    if initial is not None:
        return target.unconstrain(initial), 0
    if target.prior is not None:
        starts = target.unconstrain(target.sample_prior(N_BEGINNING, rng))
    else:
        starts = rng.normal(size=(N_BEGINNING, target.n_dim)).astype(target.dtype.as_numpy_dtype)
    return normal_draws(target, starts, N_BEGINNING, rng)


def _fit_forward(target, flow, n_rounds, rng, progress, kept):
    trainer, n_done, best, weights = None, 0, None, None
    if "round" in kept.found:
        n_done, best, weights = int(kept.found["round"]), tuple(kept.found["best"]), kept.found["best_flow"]
        trainer = Trainer(flow, ROWS_OF_A_ROUND, np.random.default_rng(0))
        trainer.restore(kept.found)
    for i in range(n_done, n_rounds + 1):
        found = evidence(target, flow, ROWS_OF_A_ROUND, rng)
        worth = diagnostics.effective_weights(found.log_weights)
        progress(f"round {i} of {n_rounds}, {ROWS_OF_A_ROUND} draws worth {worth:.0f}, Pareto k {found.pareto_k:.2f}")
        quality = (found.pareto_k <= 0.7, worth)
        if best is None or quality > best:
            best, weights = quality, flow.get_weights()
        else:
            flow.set_weights(weights)
        if i == n_rounds:
            break
        smoothed, _ = diagnostics.pareto_smoothed(found.log_weights)
        trainer = trainer or Trainer(flow, ROWS_OF_A_ROUND, rng)
        trainer(found.z, np.exp(smoothed - logsumexp(smoothed)), rng)
        kept.keep(round=i + 1, best=best, best_flow=weights, **trainer.state())
    flow.set_weights(weights)
    return (n_rounds + 1) * ROWS_OF_A_ROUND
