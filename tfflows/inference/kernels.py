"""Transition kernels of `tfp.mcmc`'s interface: proposals of a flow, and several kernels in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

TransitionKernel = tfp.mcmc.TransitionKernel


class ProposalResults(NamedTuple):
    """Of one step of `FlowProposal`, `[chains]` each.

    Args:
      target_log_prob: the target's log-density of where the chain is.
      flow_log_prob: the flow's.
      is_accepted: whether the last proposal was taken.
      log_accept_ratio: the logarithm of what decided that.
    """

    target_log_prob: tf.Tensor
    flow_log_prob: tf.Tensor
    is_accepted: tf.Tensor
    log_accept_ratio: tf.Tensor


class FlowProposal(TransitionKernel):
    """Metropolis-Hastings with draws of a flow as proposals, whatever the chain's state.

    Accepted with probability min(1, p(x') q(x) / (p(x) q(x'))), p the target and q the flow: p is left exactly as it
    is, however badly the flow fits, as long as the flow is not trained meanwhile. Where a chain sits in a place that
    the flow hardly knows, it waits long: mix it with local moves.

    Args:
      target_log_prob_fn: of x `[chains, n_dim]` to `[chains]`, up to a constant.
      flow: a `FlowModel` of events `[n_dim]`, without context.

    Reference:
      Gabrie, Rotskoff & Vanden-Eijnden (2022), Adaptive Monte Carlo augmented with normalizing flows,
      https://arxiv.org/abs/2105.12603
    """

    def __init__(self, target_log_prob_fn: Callable, flow):
        self._target_log_prob_fn, self._flow = target_log_prob_fn, flow
        self._parameters = {"target_log_prob_fn": target_log_prob_fn, "flow": flow}

    @property
    def is_calibrated(self):
        return True

    @property
    def parameters(self):
        """The constructor's arguments by name."""
        return self._parameters

    def bootstrap_results(self, init_state):
        target = self._target_log_prob_fn(init_state)
        flow = self._flow._log_prob(init_state, None)
        return ProposalResults(target, flow, tf.zeros_like(target, tf.bool), tf.zeros_like(target))

    def one_step(self, current_state, previous_kernel_results, seed=None):
        before = previous_kernel_results
        seeds = tfp.random.split_seed(tfp.random.sanitize_seed(seed), n=2)
        shape = [tf.shape(current_state)[0]]
        proposal, flow = self._flow._sample_and_log_prob(shape, None, seeds[0], 1.0)
        target = self._target_log_prob_fn(proposal)
        ratio = target - flow - (before.target_log_prob - before.flow_log_prob)
        ratio = tf.where(tf.math.is_nan(ratio), tf.constant(-np.inf, ratio.dtype), ratio)
        accepted = tf.math.log(tf.random.stateless_uniform(shape, seeds[1], dtype=ratio.dtype)) < ratio
        state = tf.where(accepted[:, tf.newaxis], proposal, current_state)
        results = ProposalResults(
            tf.where(accepted, target, before.target_log_prob),
            tf.where(accepted, flow, before.flow_log_prob),
            accepted,
            ratio,
        )
        return state, results


class InTurn(TransitionKernel):
    """Several kernels one after another, each some times: one step is all of them.

    Args:
      kernels: of one state, each of which leaves the target as it is; then so do all together.
      repeats: how often each is applied, >= 1.

    Raises:
      ValueError: for no kernel, another number of repeats, or one below 1.
    """

    def __init__(self, kernels: Sequence[TransitionKernel], repeats: Sequence[int]):
        if len(kernels) != len(repeats) or not kernels or min(repeats) < 1:
            raise ValueError(f"Expected repeats >= 1 for each of {len(kernels)} kernels; got {list(repeats)}.")
        self._kernels, self._repeats = list(kernels), [int(n) for n in repeats]
        self._parameters = {"kernels": self._kernels, "repeats": self._repeats}

    @property
    def is_calibrated(self):
        return all(kernel.is_calibrated for kernel in self._kernels)

    @property
    def parameters(self):
        """The constructor's arguments by name."""
        return self._parameters

    def bootstrap_results(self, init_state):
        return tuple(kernel.bootstrap_results(init_state) for kernel in self._kernels)

    def one_step(self, current_state, previous_kernel_results, seed=None):
        state, all_results = current_state, []
        seeds = tfp.random.split_seed(tfp.random.sanitize_seed(seed), n=len(self._kernels))
        parts = zip(self._kernels, self._repeats, seeds, strict=True)
        for kernel, n, its_seed in parts:
            # Another kernel has moved the chain: what this one knew of its place is stale.
            state, results = repeat(kernel, n, state, kernel.bootstrap_results(state), its_seed)
            all_results.append(results)
        return state, tuple(all_results)


def repeat(kernel: TransitionKernel, n: int, state, results, seed, count=None):
    """State and results after `n` steps of a kernel; with `count`, also the mean of it over the steps.

    Args:
      count: of results to a tensor, such as the share of chains that have moved.
    """
    seeds = tf.stack(tfp.random.split_seed(seed, n=n))
    counted = None if count is None else tf.zeros_like(count(results))

    def body(i, state, results, *total):
        state, results = kernel.one_step(state, results, seed=seeds[i])
        return (i + 1, state, results, *(t + count(results) / n for t in total))

    start = (0, state, results) if count is None else (0, state, results, counted)
    return tf.while_loop(lambda i, *_: i < n, body, start, maximum_iterations=n)[1:]
