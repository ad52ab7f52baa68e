"""Time and memory of tfflows beside flowjax, distrax, zuko, nflows, normflows, torchflows and TFP's own bijectors.

    python benchmarks/speed.py

Same architecture, layers, widths, bins, batch and threads on all sides. A library's worker builds the flow, compiles
and warms up; then the libraries are timed in turn, round after round, so that a change of the machine's speed
meets all of them, and the median over the rounds counts. Three parts, which `--parts` chooses from:

- lines: a training step, log_prob, sample, the time to the first result and the memory, by number of scalars;
- fit: a small fit from nothing to the end, compilation included;
- scaling: how the cost grows with scalars, batch, layers and bins.

Results: `results/speed.md`, `.json`, `.png` and `speed_scaling.png`, written after each line; what a run does not
measure again stays as it was.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import ClassVar

import numpy as np
import peers

BOUND = 5.0
LEARNING_RATE = 1e-3
ARCHITECTURES = {
    "RealNVP": "RealNVP",
    "MAF": "MAF",
    "CouplingRQNSF": "RQ coupling",
    "MaskedAutoregressiveRQNSF": "RQ autoregressive",
}
DIMS = (2, 16, 64, 1000)
# From here on widths and times are others, and the workers live one after the other: together they need
# more memory than many a machine has.
LARGE_DIM = 256

# Quantities in the order of measuring. Sampling comes last: who exceeds the limit is stopped there.
QUANTITIES = {"log_prob": "log_prob", "step": "training step", "sample": "sample"}

SCALING_LIBRARIES = ("tfflows", "flowjax", "zuko")
SCALING_ARCHITECTURES = ("CouplingRQNSF", "MaskedAutoregressiveRQNSF")
SCALING_DIM = 16
# Besides the default of each. The batches are sizes that tfflows does not pad.
SCALING = {"n_dim": (4, 64), "batch_size": (128, 8192), "n_layers": (2, 20), "bins": (4, 32)}
FACTORS = {"n_dim": "scalars", "batch_size": "batch", "n_layers": "layers", "bins": "bins"}

FIT_ROWS, FIT_BATCH, FIT_EPOCHS, FIT_LAYERS, FIT_WIDTH = 25_600, 256, 20, 8, 50

# Cores. PyTorch's threads wait for one another in turning loops: with another process on one of two cores they took up
# to a hundred times longer.
BUSY = 0.1

START_LIMIT = 900.0  # s, of importing and building; for a whole fit too

INTRODUCTION = """
Medians over rounds in which the libraries take turns, ± half the distance of the quartiles. A call of log_prob or
sample gets or gives one batch and ends with an array on the host; a training step is one step of Adam. The last
column is the fastest peer's figure divided by tfflows'. "-": the library does not offer it. "over N s": one call,
compilation included, took longer.
"""


@dataclasses.dataclass(frozen=True)
class Case:
    """What is built and timed. `n_steps` training steps are made in one timed call."""

    architecture: str
    n_dim: int
    n_layers: int
    hidden: tuple[int, ...]
    bins: int
    batch_size: int
    n_steps: int
    threads: int

    @property
    def is_spline(self) -> bool:
        return "RQNSF" in self.architecture

    @property
    def is_coupling(self) -> bool:
        return self.architecture in ("RealNVP", "CouplingRQNSF")

    def halves(self) -> list[np.ndarray]:
        """What each coupling layer of a library that takes masks transforms: a random half, then the other."""
        rng = np.random.default_rng(0)
        masks = []
        for i in range(self.n_layers):
            masks.append(rng.permutation(self.n_dim) < self.n_dim // 2 if i % 2 == 0 else ~masks[-1])
        return masks


@dataclasses.dataclass
class Verbs:
    """A library's flow as its users call it; everything ends with an array on the host, or waits for the result.

    Attributes:
      log_prob: from rows `[n, n_dim]` to log-densities `[n]`.
      sample: from a seed to `[batch_size, n_dim]`.
      train: makes `n_steps` training steps. Returns their seconds and the last loss.
      n_weights: trainable numbers.
    """

    log_prob: Callable[[np.ndarray], np.ndarray]
    sample: Callable[[int], np.ndarray]
    train: Callable[[], tuple[float, float]]
    n_weights: int


# The libraries. Each builder gets the case and the training rows [n_steps * batch_size, n_dim].


def build_tfflows(case: Case, x: np.ndarray) -> Verbs:
    """tfflows; training is `fit`, timed from the beginning to the end of its compiled loop."""
    import keras

    import tfflows

    class Stopwatch(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            self.started = time.perf_counter()

        def on_train_batch_end(self, batch, logs=None):
            self.seconds = time.perf_counter() - self.started

    options = {"n_bins": case.bins, "bound": BOUND} if case.is_spline else {}
    preset = getattr(tfflows, case.architecture)
    flow = tfflows.FlowModel(preset(case.n_dim, n_layers=case.n_layers, hidden=case.hidden, **options))
    flow.compile(keras.optimizers.Adam(LEARNING_RATE), steps_per_execution=case.n_steps)
    stopwatch = Stopwatch()

    def train():
        history = flow.fit(x, batch_size=case.batch_size, epochs=1, verbose=0, callbacks=[stopwatch])
        return stopwatch.seconds, history.history["loss"][-1]

    return Verbs(
        lambda rows: flow.log_prob(rows).numpy(),
        lambda seed: flow.sample(case.batch_size, seed=seed).numpy(),
        train,
        sum(int(np.prod(weight.shape)) for weight in flow.trainable_weights),
    )


def build_tfp(case: Case, x: np.ndarray) -> Verbs:
    """TFP's own bijectors with Keras 2 nets, every verb one XLA-compiled function."""
    import tensorflow as tf
    import tensorflow_probability as tfp
    import tf_keras

    tfb, tfd = tfp.bijectors, tfp.distributions
    n_parameters = 3 * case.bins - 1 if case.is_spline else 2

    def transformer(parameters):
        """A bijector of each scalar, `[..., n_dim, n_parameters]`; its inverse is the cheap direction of a spline."""
        if not case.is_spline:
            shift, log_scale = tf.unstack(parameters, axis=-1)
            return tfb.Shift(shift)(tfb.Scale(log_scale=log_scale))
        widths, heights, slopes = tf.split(parameters, [case.bins, case.bins, case.bins - 1], axis=-1)
        widths, heights = (
            1e-3 + (2.0 * BOUND - 1e-3 * case.bins) * tf.nn.softmax(sizes) for sizes in (widths, heights)
        )
        return tfb.Invert(tfb.RationalQuadraticSpline(widths, heights, 1e-3 + tf.nn.softplus(slopes), -BOUND))

    def coupling():
        n_out = case.n_dim - case.n_dim // 2
        net = tf_keras.Sequential([tf_keras.layers.Dense(width, "relu") for width in case.hidden])
        net.add(tf_keras.layers.Dense(n_out * n_parameters))
        net.add(tf_keras.layers.Reshape((n_out, n_parameters)))
        net.build((None, case.n_dim // 2))
        return net, tfb.RealNVP(case.n_dim // 2, bijector_fn=lambda inputs, n_out: transformer(net(inputs)))

    def autoregressive():
        net = tfb.AutoregressiveNetwork(n_parameters, [case.n_dim], hidden_units=list(case.hidden), activation="relu")
        net.build((None, case.n_dim))
        return net, tfb.MaskedAutoregressiveFlow(bijector_fn=lambda inputs: transformer(net(inputs)))

    nets, layers = [], []
    for i in range(case.n_layers):
        if i > 0:
            layers.append(tfb.Permute(list(range(case.n_dim))[::-1]))
        net, layer = coupling() if case.is_coupling else autoregressive()
        nets.append(net)
        layers.append(layer)
    base = tfd.Sample(tfd.Normal(0.0, 1.0), [case.n_dim])
    flow = tfd.TransformedDistribution(base, tfb.Chain(layers))
    weights = [weight for net in nets for weight in net.trainable_variables]
    optimizer = tf_keras.optimizers.Adam(LEARNING_RATE)
    optimizer.build(weights)
    batches = tf.split(tf.constant(x), case.n_steps)

    @tf.function(jit_compile=True)
    def step(rows):
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(flow.log_prob(rows))
        optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return loss

    log_prob = tf.function(flow.log_prob, jit_compile=True)
    sample = tf.function(lambda seed: flow.sample(case.batch_size, seed=seed), jit_compile=True)

    def train():
        started = time.perf_counter()
        for rows in batches:
            loss = step(rows)
        loss = float(loss)
        return time.perf_counter() - started, loss

    return Verbs(
        lambda rows: log_prob(tf.constant(rows)).numpy(),
        lambda seed: sample(tf.constant([0, seed])).numpy(),
        train,
        sum(int(np.prod(weight.shape)) for weight in weights),
    )


def flowjax_flow(n_dim: int, n_layers: int, width: int, depth: int, *, coupling: bool = True, bins: int | None = None):
    """flowjax's ready-made flow, affine or with `bins` bins."""
    import jax
    import jax.numpy as jnp
    from flowjax.bijections import RationalQuadraticSpline
    from flowjax.distributions import Normal
    from flowjax.flows import coupling_flow, masked_autoregressive_flow

    # It counts the inner knots. Without a transformer it takes its affine one.
    spline = None if bins is None else RationalQuadraticSpline(knots=bins - 1, interval=BOUND)
    return (coupling_flow if coupling else masked_autoregressive_flow)(
        jax.random.key(0),
        base_dist=Normal(jnp.zeros(n_dim)),
        transformer=spline,
        flow_layers=n_layers,
        nn_width=width,
        nn_depth=depth,
    )


def jax_verbs(log_prob: Callable, sample: Callable, train: Callable, params: Callable) -> Verbs:
    """The verbs of a JAX library, from functions of (parameters, rows) and (parameters, key); `params` tells them."""
    import jax
    import jax.numpy as jnp

    return Verbs(
        lambda rows: np.asarray(log_prob(params(), jnp.asarray(rows))),
        lambda seed: np.asarray(sample(params(), jax.random.key(seed))),
        train,
        sum(leaf.size for leaf in jax.tree.leaves(params())),
    )


def build_flowjax(case: Case, x: np.ndarray) -> Verbs:
    """flowjax; training is the inside of an epoch of its `fit_to_data`: its own batches, keys and `step`."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import optax
    import paramax
    from flowjax.train.losses import MaximumLikelihoodLoss
    from flowjax.train.train_utils import get_batches, step

    if len(set(case.hidden)) > 1:
        raise ValueError("flowjax's nets have hidden layers of one width")
    bins = case.bins if case.is_spline else None
    flow = flowjax_flow(
        case.n_dim, case.n_layers, case.hidden[0], len(case.hidden), coupling=case.is_coupling, bins=bins
    )
    params, static = eqx.partition(
        flow, eqx.is_inexact_array, is_leaf=lambda leaf: isinstance(leaf, paramax.NonTrainable)
    )
    optimizer, loss_fn = optax.adam(LEARNING_RATE), MaximumLikelihoodLoss()
    state, key, data = optimizer.init(params), jax.random.key(1), (jnp.asarray(x),)
    log_prob = eqx.filter_jit(lambda params, rows: eqx.combine(params, static).log_prob(rows))
    sample = eqx.filter_jit(lambda params, key: eqx.combine(params, static).sample(key, (case.batch_size,)))

    def train():
        nonlocal params, state, key
        started = time.perf_counter()
        for batch in zip(*get_batches(data, case.batch_size), strict=True):
            key, subkey = jax.random.split(key)
            params, state, loss = step(
                params, static, *batch, optimizer=optimizer, opt_state=state, loss_fn=loss_fn, key=subkey
            )
        loss = loss.item()
        return time.perf_counter() - started, loss

    return jax_verbs(log_prob, sample, train, lambda: params)


def build_distrax(case: Case, x: np.ndarray) -> Verbs:
    """distrax's couplings around nets in plain JAX, as it has none of its own, nor anything autoregressive."""
    import distrax
    import jax
    import jax.numpy as jnp
    import optax

    half = case.n_dim // 2
    # Its splines have slopes at both ends, even where those are held at one.
    n_parameters = 3 * case.bins + 1 if case.is_spline else 2

    def init(key):
        widths = [half, *case.hidden, (case.n_dim - half) * n_parameters]
        keys = jax.random.split(key, len(widths) - 1)
        shapes = list(itertools.pairwise(widths))
        kernels = [jax.random.normal(k, shape) * np.sqrt(2.0 / shape[0]) for k, shape in zip(keys, shapes, strict=True)]
        kernels[-1] *= 0.01
        return [(kernel, jnp.zeros(kernel.shape[1])) for kernel in kernels]

    def net(weights, inputs):
        for kernel, bias in weights[:-1]:
            inputs = jax.nn.relu(inputs @ kernel + bias)
        kernel, bias = weights[-1]
        return (inputs @ kernel + bias).reshape(*inputs.shape[:-1], -1, n_parameters)

    def transformer(parameters):
        if case.is_spline:
            return distrax.RationalQuadraticSpline(parameters, -BOUND, BOUND, boundary_slopes="identity")
        return distrax.ScalarAffine(shift=parameters[..., 0], log_scale=parameters[..., 1])

    def distribution(params):
        layers = [
            distrax.SplitCoupling(half, 1, lambda inputs, w=w: net(w, inputs), transformer, swap=i % 2 == 1)
            for i, w in enumerate(params)
        ]
        base = distrax.Independent(distrax.Normal(jnp.zeros(case.n_dim), jnp.ones(case.n_dim)), 1)
        # Turned round, as in its own example: the density takes the forward direction.
        return distrax.Transformed(base, distrax.Inverse(distrax.Chain(layers)))

    if case.n_dim % 2:
        raise ValueError("the halves are swapped in turns, so n_dim must be even")
    params = [init(key) for key in jax.random.split(jax.random.key(0), case.n_layers)]
    optimizer = optax.adam(LEARNING_RATE)
    state = optimizer.init(params)
    batches = list(jnp.asarray(x).reshape(case.n_steps, case.batch_size, case.n_dim))

    @jax.jit
    def step(params, state, rows):
        loss, gradients = jax.value_and_grad(lambda p: -distribution(p).log_prob(rows).mean())(params)
        updates, state = optimizer.update(gradients, state)
        return optax.apply_updates(params, updates), state, loss

    log_prob = jax.jit(lambda params, rows: distribution(params).log_prob(rows))
    sample = jax.jit(lambda params, key: distribution(params).sample(seed=key, sample_shape=case.batch_size))

    def train():
        nonlocal params, state
        started = time.perf_counter()
        for rows in batches:
            params, state, loss = step(params, state, rows)
        loss = loss.item()
        return time.perf_counter() - started, loss

    return jax_verbs(log_prob, sample, train, lambda: params)


def torch_verbs(case: Case, x: np.ndarray, module, log_prob, sample) -> Verbs:
    """A PyTorch module, run eagerly, as all four libraries' documentation does, with the fused Adam.

    Args:
      case, x: as in the builders.
      module: what has the parameters.
      log_prob: from rows to log-densities.
      sample: from a number to so many rows.
    """
    import torch

    parameters = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=LEARNING_RATE, fused=True)
    data = torch.from_numpy(x)

    def train():
        module.train()
        started = time.perf_counter()
        for rows in torch.randperm(len(data)).split(case.batch_size):
            loss = -log_prob(data[rows]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        loss = loss.item()
        return time.perf_counter() - started, loss

    def evaluate(rows):
        module.eval()
        with torch.no_grad():
            return log_prob(torch.from_numpy(rows)).numpy()

    def draw(seed):
        module.eval()
        torch.manual_seed(seed)
        with torch.no_grad():
            return sample(case.batch_size).numpy()

    return Verbs(evaluate, draw, train, sum(p.numel() for p in parameters))


def zuko_couplings(n_dim: int, masks: list[np.ndarray], hidden, **options):
    """zuko's coupling flow with these halves, which its RealNVP and NSF(passes=2) cannot be given."""
    import torch
    from zuko import flows
    from zuko.distributions import DiagNormal

    layers = [
        flows.GeneralCouplingTransform(n_dim, mask=torch.from_numpy(~mask), hidden_features=hidden, **options)
        for mask in masks
    ]
    base = flows.UnconditionalDistribution(DiagNormal, torch.zeros(n_dim), torch.ones(n_dim), buffer=True)
    return flows.Flow(layers, base)


def build_zuko(case: Case, x: np.ndarray) -> Verbs:
    """zuko; its splines act on [-5, 5]."""
    from zuko import flows
    from zuko.transforms import MonotonicRQSTransform

    bins = case.bins
    if case.is_coupling:
        spline = {"univariate": MonotonicRQSTransform, "shapes": [(bins,), (bins,), (bins - 1,)]}
        flow = zuko_couplings(case.n_dim, case.halves(), case.hidden, **(spline if case.is_spline else {}))
    else:
        options = {"transforms": case.n_layers, "hidden_features": case.hidden}
        flow = flows.NSF(case.n_dim, bins=bins, **options) if case.is_spline else flows.MAF(case.n_dim, **options)
    return torch_verbs(case, x, flow, lambda rows: flow().log_prob(rows), lambda n: flow().sample((n,)))


def torch_net(hidden: tuple[int, ...]):
    """A class of plain nets, made from the numbers of inputs and outputs, for the couplings of nflows and normflows."""
    from torch import nn

    class Net(nn.Sequential):
        hidden_features = hidden[-1]  # the splines scale their bins' parameters by it

        def __init__(self, n_inputs, n_outputs):
            layers = []
            for width in hidden:
                layers += [nn.Linear(n_inputs, width), nn.ReLU()]
                n_inputs = width
            super().__init__(*layers, nn.Linear(n_inputs, n_outputs))

        def forward(self, inputs, context=None):
            return super().forward(inputs)

    return Net


def made_options(hidden: tuple[int, ...]) -> dict:
    """A plain MADE of nflows, or of normflows, which is the same code."""
    if len(set(hidden)) > 1:
        raise ValueError("the MADE of nflows and normflows has hidden layers of one width")
    return {"hidden_features": hidden[0], "num_blocks": len(hidden) - 1, "use_residual_blocks": False}


def build_nflows(case: Case, x: np.ndarray) -> Verbs:
    """nflows, with plain nets, not the residual ones of its ready-made flows."""
    from nflows import transforms
    from nflows.distributions import StandardNormal
    from nflows.flows import Flow

    spline = {"num_bins": case.bins, "tails": "linear", "tail_bound": BOUND} if case.is_spline else {}
    if case.is_coupling:
        coupling = (
            transforms.PiecewiseRationalQuadraticCouplingTransform
            if case.is_spline
            else transforms.AffineCouplingTransform
        )
        net = torch_net(case.hidden)
        layers = [coupling(mask, net, **spline) for mask in case.halves()]
    else:
        autoregressive = (
            transforms.MaskedPiecewiseRationalQuadraticAutoregressiveTransform
            if case.is_spline
            else transforms.MaskedAffineAutoregressiveTransform
        )
        layers = [autoregressive(case.n_dim, **made_options(case.hidden), **spline)]
        for _ in range(case.n_layers - 1):
            layers += [transforms.ReversePermutation(case.n_dim)]
            layers += [autoregressive(case.n_dim, **made_options(case.hidden), **spline)]
    flow = Flow(transforms.CompositeTransform(layers), StandardNormal([case.n_dim]))
    return torch_verbs(case, x, flow, flow.log_prob, flow.sample)


def build_normflows(case: Case, x: np.ndarray) -> Verbs:
    """normflows, each layer the way round that makes densities the cheap direction.

    Its samples come with their log-densities; there are none without.
    """
    import normflows as nf
    import torch
    from normflows.flows.neural_spline.autoregressive import MaskedPiecewiseRationalQuadraticAutoregressive
    from normflows.flows.neural_spline.coupling import PiecewiseRationalQuadraticCoupling

    n_dim, half = case.n_dim, case.n_dim // 2
    spline = {"num_bins": case.bins, "tails": "linear", "tail_bound": BOUND}

    def layer(mask):
        if case.architecture == "CouplingRQNSF":
            mask = torch.from_numpy(mask.astype(np.int64))
            return nf.flows.Reverse(PiecewiseRationalQuadraticCoupling(mask, torch_net(case.hidden), **spline))
        if case.architecture == "RealNVP":
            net = nf.nets.MLP([n_dim - half, *case.hidden, 2 * half], init_zeros=True)
            return nf.flows.AffineCouplingBlock(net)
        if case.is_spline:
            made = MaskedPiecewiseRationalQuadraticAutoregressive(n_dim, **made_options(case.hidden), **spline)
        else:
            made = nf.flows.MaskedAffineAutoregressive(n_dim, **made_options(case.hidden))
        return nf.flows.Reverse(made)

    layers = []
    for i, mask in enumerate(case.halves()):
        if i > 0 and case.architecture != "CouplingRQNSF":  # which has its masks
            layers.append(nf.flows.Permute(n_dim, mode="swap" if case.is_coupling else "shuffle"))
        layers.append(layer(mask))
    flow = nf.NormalizingFlow(nf.distributions.DiagGaussian(n_dim, trainable=False), layers)
    return torch_verbs(case, x, flow, flow.log_prob, lambda n: flow.sample(n)[0])


def build_torchflows(case: Case, x: np.ndarray) -> Verbs:
    """torchflows' ready-made flows, which have the presets' names, and elementwise affine layers besides.

    The nets of its couplings are given ReLUs; its MADE has tanh and nothing else.
    """
    import torch
    from torchflows import flows
    from torchflows.bijections.finite.autoregressive import architectures

    if len(set(case.hidden)) > 1:
        raise ValueError("torchflows' nets have hidden layers of one width")
    # It counts the output as a layer.
    net = {"n_hidden": case.hidden[0], "n_layers": len(case.hidden) + 1}
    if case.is_coupling:
        net["nonlinearity"] = torch.nn.ReLU
    spline = {"transformer_kwargs": {"boundary": BOUND, "n_bins": case.bins}} if case.is_spline else {}
    architecture = getattr(architectures, case.architecture)
    bijection = architecture((case.n_dim,), n_layers=case.n_layers, conditioner_kwargs=net, **spline)
    flow = flows.Flow(bijection)
    return torch_verbs(case, x, flow, flow.log_prob, lambda n: flow.sample((n,), no_grad=True))


# Of each library: how it is built, and the packages whose versions the results name.
LIBRARIES = {
    "tfflows": (build_tfflows, ("tfflows", "tensorflow", "keras")),
    "flowjax": (build_flowjax, ("flowjax", "equinox", "jax")),
    "distrax": (build_distrax, ("distrax", "jax")),
    "zuko": (build_zuko, ("zuko", "torch")),
    "nflows": (build_nflows, ("nflows", "torch")),
    "normflows": (build_normflows, ("normflows", "torch")),
    "torchflows": (build_torchflows, ("torchflows", "torch")),
    "tfp": (build_tfp, ("tensorflow-probability", "tf_keras", "tensorflow")),
}


def is_offered(library: str, architecture: str) -> bool:
    return library != "distrax" or architecture in ("RealNVP", "CouplingRQNSF")


# The small fit: a library's users' own training loop.


def fit_tfflows(x: np.ndarray) -> list[float]:
    """Fits in a fresh process. Returns the time at the end of each epoch."""
    import keras

    from tfflows import FlowModel, RealNVP

    ends = []

    class Clock(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            ends.append(time.perf_counter())

    flow = FlowModel(RealNVP(2, n_layers=FIT_LAYERS, hidden=(FIT_WIDTH,)))
    flow.fit(x, epochs=FIT_EPOCHS, batch_size=FIT_BATCH, verbose=0, callbacks=[Clock()])
    return ends


def fit_flowjax(x: np.ndarray) -> list[float]:
    """`fit_tfflows` for flowjax's `fit_to_data`, with the one row of validation that it insists on."""
    import jax
    from flowjax.train import loops

    ends = []

    class Clock(loops.tqdm):
        """Its progress bar, which alone hears of the epochs."""

        def __iter__(self):
            for epoch in range(FIT_EPOCHS):
                yield epoch
                ends.append(time.perf_counter())

    loops.tqdm = Clock
    loops.fit_to_data(
        jax.random.key(0),
        flowjax_flow(2, FIT_LAYERS, FIT_WIDTH, 1),
        np.concatenate([x, x[:1]]),
        learning_rate=LEARNING_RATE,
        max_epochs=FIT_EPOCHS,
        max_patience=FIT_EPOCHS,
        batch_size=FIT_BATCH,
        val_prop=1.0 / (len(x) + 1),
        return_best=False,
        show_progress=False,
    )
    return ends


def fit_zuko(x: np.ndarray) -> list[float]:
    """`fit_tfflows` for zuko, in a plain loop as in its documentation."""
    import torch

    flow = zuko_couplings(2, [np.arange(2) == i % 2 for i in range(FIT_LAYERS)], (FIT_WIDTH,))
    optimizer = torch.optim.Adam(flow.parameters(), lr=LEARNING_RATE, fused=True)
    data = torch.from_numpy(x)
    ends = []
    for _ in range(FIT_EPOCHS):
        for rows in torch.randperm(len(data)).split(FIT_BATCH):
            loss = -flow().log_prob(data[rows]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        ends.append(time.perf_counter())
    return ends


FITS = {"tfflows": fit_tfflows, "flowjax": fit_flowjax, "zuko": fit_zuko}


# The worker: a process in its library's Python that answers each line of JSON with another.


def peak_memory() -> float | None:
    """Megabytes that this process has held at most so far; None where the system does not tell."""
    try:
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return None


class Subject:
    """What a worker does with its library; each public method answers a command."""

    def __init__(self, library: str):
        self.library = library
        self.n_calls = 0
        self.idle_cpu = 0.0  # s of processor time between the commands

    def load(self, threads: int) -> dict:
        """Imports the library."""
        started = time.perf_counter()
        peers.limit_threads(self.library, threads)
        __import__("tensorflow_probability" if self.library == "tfp" else self.library)
        self.imports = peak_memory()
        versions = peers.versions(*LIBRARIES[self.library][1])
        return {"seconds": time.perf_counter() - started, "versions": versions}

    def build(self, case: dict) -> dict:
        """Builds the flow and computes the first log-densities."""
        self.case = Case(**case | {"hidden": tuple(case["hidden"])})
        n_rows = self.case.n_steps * self.case.batch_size
        x = np.random.default_rng(0).normal(size=(n_rows, self.case.n_dim)).astype(np.float32)
        self.verbs = LIBRARIES[self.library][0](self.case, x)
        self.rows = x[: self.case.batch_size]
        return {"seconds": self._call("log_prob"), "weights": self.verbs.n_weights}

    def warm(self, what: str) -> dict:
        """The first call of a verb, compilation included."""
        started = time.perf_counter()
        self._call(what)
        return {"seconds": time.perf_counter() - started}

    def time(self, what: str, seconds: float) -> dict:
        """Seconds of a call, or of a training step: the median of the calls that fit into some seconds."""
        stop = time.perf_counter() + seconds
        calls = []
        while not calls or time.perf_counter() < stop:
            calls.append(self._call(what))
        memory = None if self.imports is None else peak_memory() - self.imports
        return {"seconds": statistics.median(calls), "memory": memory, "idle_cpu": self.idle_cpu}

    def fit(self) -> dict:
        """The small fit."""
        x = np.random.default_rng(0).normal(size=(FIT_ROWS, 2)).astype(np.float32)
        started = time.perf_counter()
        ends = FITS[self.library](x)
        total = time.perf_counter() - started
        n_steps = (FIT_EPOCHS - 1) * (FIT_ROWS // FIT_BATCH)
        return {"total": total, "first_epoch": ends[0] - started, "step": (ends[-1] - ends[0]) / n_steps}

    def _call(self, what: str) -> float:
        """Calls a verb once and looks whether its result makes sense. Returns the seconds, of one training step."""
        self.n_calls += 1
        if what == "step":
            seconds, loss = self.verbs.train()
            if not np.isfinite(loss):
                raise FloatingPointError(f"the loss is {loss}")
            return seconds / self.case.n_steps
        shape = (self.case.batch_size, self.case.n_dim)
        started = time.perf_counter()
        result = self.verbs.log_prob(self.rows) if what == "log_prob" else self.verbs.sample(self.n_calls)
        seconds = time.perf_counter() - started
        if result.shape != (shape[:1] if what == "log_prob" else shape):
            raise ValueError(f"{what} has the shape {result.shape}")
        if not np.isfinite(result).all():
            raise FloatingPointError(f"{what} is not finite")
        return seconds


def work(library: str) -> None:
    """Answers commands until there are no more."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    subject = Subject(library)
    answered = time.process_time()
    for line in sys.stdin:
        subject.idle_cpu += time.process_time() - answered
        command = json.loads(line)
        try:
            found = getattr(subject, command.pop("do"))(**command)
        except Exception as error:  # of any library; it is a line of the results
            # TensorFlow's begin with the whole way there.
            found = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[-200:]}"}
        answered = time.process_time()
        print(json.dumps(found), file=answers, flush=True)


# The parent: keeps the workers, has them timed in turn.


class WorkerError(Exception):
    """A worker that failed or took too long; the text goes into the results."""


class Worker:
    """A library's process, as the parent sees it. It sleeps between two commands."""

    def __init__(self, library: str, python: str, threads: int):
        self.started = time.perf_counter()
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed in __exit__)
        self._process = subprocess.Popen(
            [python, __file__, "--worker", library],
            env=peers.environment(threads) | {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            with contextlib.suppress(BrokenPipeError):
                stream.close()

    def do(self, command: str, *, limit: float, **arguments) -> dict:
        """Has a command done and returns the answer. A worker that takes longer than `limit` seconds is ended."""
        timer = threading.Timer(limit, self._process.kill)
        timer.start()
        begun = time.perf_counter()
        try:
            self._process.stdin.write(json.dumps({"do": command} | arguments) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            timer.cancel()
        if line:
            answer = json.loads(line)
            if "error" in answer:
                raise WorkerError(answer["error"])
            return answer
        if time.perf_counter() - begun >= limit:
            raise WorkerError(f"over {limit:.0f} s")
        code = self._process.wait()
        self._errors.seek(0)
        # A worker that was killed, as for want of memory, has not said why.
        reason = self._errors.read().strip().splitlines()[-1:] if code >= 0 else []
        raise WorkerError(" ".join([f"ended with code {code}", *reason]))


def measure(case: Case, pythons: dict[str, str], args: argparse.Namespace) -> dict[str, dict]:
    """Times the libraries on a case, in turn.

    Returns: for each library a dict of

      - first_result: seconds from the start of the process to the first log-densities;
      - first_call: of each quantity, the seconds of the first call on top of a usual one, so of compiling;
      - log_prob, step, sample: ms, their quartiles over the rounds, and rounds; or error;
      - memory: the peak in MB on top of the imports;
      - weights, idle_cpu, or error.
    """
    results = {}
    with contextlib.ExitStack() as stack:
        workers = {}
        for library, python in pythons.items():
            worker = stack.enter_context(Worker(library, python, case.threads))
            try:
                worker.do("load", limit=START_LIMIT, threads=case.threads)
                built = worker.do("build", limit=START_LIMIT, case=dataclasses.asdict(case))
            except WorkerError as error:
                results[library] = {"error": str(error)}
                continue
            workers[library] = worker
            results[library] = {
                "first_result": time.perf_counter() - worker.started,
                "first_call": {"log_prob": built["seconds"]},
                "weights": built["weights"],
            }
        for what in QUANTITIES:
            time_in_turn(what, case, workers, results, args)
    return results


def time_in_turn(what: str, case: Case, workers: dict[str, Worker], results: dict[str, dict], args) -> None:
    """Times one quantity, `args.rounds` times with each worker, and adds it to the results."""
    seconds = {library: [] for library in workers}
    spent = dict.fromkeys(workers, 0.0)
    for i in range(-1, args.rounds):  # before the first round they warm up
        for library in list(seconds):
            if spent[library] > args.limit:  # so slow that fewer rounds will do
                continue
            worker, result = workers[library], results[library]
            begun = time.perf_counter()
            try:
                if i < 0:
                    result["first_call"].setdefault(what, worker.do("warm", limit=args.limit, what=what)["seconds"])
                answer = worker.do("time", limit=args.limit, what=what, seconds=args.seconds if i >= 0 else 0.0)
                seconds[library].append(answer["seconds"])
                result["memory"], result["idle_cpu"] = answer["memory"], answer["idle_cpu"]
            except WorkerError as error:
                result[what] = {"error": str(error)}
                del seconds[library]
            spent[library] += time.perf_counter() - begun
    for library, values in seconds.items():
        values = values[1:] or values
        usual = statistics.median(values)
        calls = case.n_steps if what == "step" else 1
        first = results[library]["first_call"]
        first[what] = max(0.0, first[what] - calls * usual)
        quartiles = [1e3 * float(q) for q in np.percentile(values, [25, 75])]
        results[library][what] = {"ms": 1e3 * usual, "quartiles": quartiles, "rounds": len(values)}


class Report:
    """The results so far, of earlier runs too, and the files that they are written to.

    Args:
      path: of the files, without a suffix.
    """

    # What tells the rows of a part apart.
    identities: ClassVar = {
        "lines": ("architecture", "n_dim", "library"),
        "fit": ("library",),
        "scaling": ("architecture", *FACTORS, "library"),
    }

    def __init__(self, path: pathlib.Path):
        self.path = path
        file = path.with_suffix(".json")
        self.parts = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}

    def begin(self, part: str, settings: dict, facts: dict) -> None:
        """Keeps what the part has so far if it was measured with the same settings."""
        old = self.parts.get(part, {})
        rows = old["rows"] if old.get("settings") == settings else []
        facts = (old["facts"] if rows else {}) | facts
        self.parts[part] = {"settings": settings, "facts": facts, "rows": rows}

    def add(self, part: str, row: dict) -> None:
        """Adds a row, in place of an earlier one for the same, and writes the files."""

        def identity(row):
            return [row[key] for key in self.identities[part]]

        rows = [other for other in self.parts[part]["rows"] if identity(other) != identity(row)]
        self.parts[part]["rows"] = sorted([*rows, row], key=self._place)
        self.write()

    @staticmethod
    def _place(row):
        architecture = [list(ARCHITECTURES).index(row["architecture"])] if "architecture" in row else []
        return [*architecture, *(row.get(key, 0) for key in FACTORS), list(LIBRARIES).index(row["library"])]

    def write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.with_suffix(".json").write_text(json.dumps(self.parts, indent=1) + "\n", encoding="utf-8")
        sections = {"lines": self._lines, "fit": self._fit, "scaling": self._scaling}
        text = ["# Speed", INTRODUCTION.strip()]
        for part, section in sections.items():
            if part in self.parts:
                rows = self.parts[part]["rows"]
                facts = self.parts[part]["settings"] | self.parts[part]["facts"]
                others = [row["others"] for row in rows if row.get("others") is not None]
                if others:
                    facts["cores that other processes used meanwhile, at most"] = f"{max(others):.2f}"
                text += [*section(rows), "\n".join(f"- {k}: {v}" for k, v in facts.items())]
        self.path.with_suffix(".md").write_text("\n\n".join(text) + "\n", encoding="utf-8")

    def _lines(self, rows) -> list[str]:
        def label(row):
            return f"{ARCHITECTURES[row['architecture']]}, {row['n_dim']}"

        text = ["## By architecture and number of scalars"]
        for what, name in QUANTITIES.items():
            text += [f"{name}, ms", table(rows, label, milliseconds(what), best=value(what))]
        text += ["time to the first result, s", table(rows, label, number("first_result"), best=value("first_result"))]
        text += [
            "first call on top of a usual one: log_prob / training step / sample, s",
            table(rows, label, first_calls),
        ]
        text += ["peak memory on top of the imports, MB", table(rows, label, number("memory"), best=value("memory"))]
        return text

    def _fit(self, rows) -> list[str]:
        text = (
            f"## Small fit\n\nRealNVP of 2 scalars, {FIT_LAYERS} layers with one hidden layer of {FIT_WIDTH}; "
            f"{FIT_EPOCHS} epochs of {FIT_ROWS} rows in batches of {FIT_BATCH}, in a fresh process, after the imports."
        )
        lines = ["| library | whole fit, s | first epoch, s | ms/step after it |", "| --- | --- | --- | --- |"]
        for row in rows:
            cells = [short(row["total"]), short(row["first_epoch"]), short(1e3 * row["step"])] if "total" in row else []
            lines.append("| " + " | ".join([row["library"], *(cells or [row["error"], "", ""])]) + " |")
        return [text, "\n".join(lines)]

    def _scaling(self, rows) -> list[str]:
        def label(row):
            factors = ", ".join(f"{row[key]} {name}" for key, name in FACTORS.items())
            return f"{ARCHITECTURES[row['architecture']]}: {factors}"

        text = ["## How the cost grows"]
        for what, name in QUANTITIES.items():
            text += [f"{name}, ms", table(rows, label, milliseconds(what), best=value(what))]
        return text


# Cells and tables.


def short(number: float) -> str:
    """Three significant digits."""
    return f"{number:.0f}" if abs(number) >= 100.0 else f"{number:.3g}"


def value(what: str) -> Callable[[dict], float | None]:
    """How to find a quantity in a row; None where it is missing."""

    def find(row):
        found = row.get(what)
        return found.get("ms") if isinstance(found, dict) else found

    return find


def number(what: str) -> Callable[[dict], str]:
    return lambda row: short(row[what]) if row.get(what) is not None else row.get("error", "-")


def milliseconds(what: str) -> Callable[[dict], str]:
    """Median and half the distance of the quartiles."""

    def cell(row):
        found = row.get(what, row)
        if "ms" not in found:
            return found.get("error", "-")
        low, high = found["quartiles"]
        return f"{short(found['ms'])} ± {(high - low) / 2.0:.2g}"

    return cell


def first_calls(row: dict) -> str:
    first = row.get("first_call", {})
    return " / ".join(f"{first[what]:.1f}" if what in first else "-" for what in QUANTITIES)


def table(rows: list[dict], label, cell, best=None) -> str:
    """Rows by label, a column for each library and, with `best`, how many times less tfflows takes than the best peer.

    Args:
      rows: in the order of the table.
      label, cell: from a row to text.
      best: from a row to the number to compare, or None.
    """
    libraries = [library for library in LIBRARIES if any(row["library"] == library for row in rows)]
    groups: dict[str, dict[str, dict]] = {}
    for row in rows:
        groups.setdefault(label(row), {})[row["library"]] = row
    head = ["", *libraries, *(["best peer / tfflows"] if best else [])]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for name, group in groups.items():
        cells = [cell(group[library]).replace("|", "\\|") if library in group else "-" for library in libraries]
        if best:
            numbers = {library: best(row) for library, row in group.items() if best(row) is not None}
            ours = numbers.pop("tfflows", None)
            peer = min(numbers, key=numbers.get, default=None)
            cells.append(f"{numbers[peer] / ours:.2f} ({peer})" if ours and peer else "-")
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join(lines)


# Charts.


def draw_lines(rows: list[dict], path: pathlib.Path) -> None:
    """Time against the number of scalars: a row of panels for each quantity, a column for each architecture."""
    from matplotlib.figure import Figure

    quantities = {"step": "training step, ms", "log_prob": "log_prob, ms", "sample": "sample, ms"}
    quantities |= {"first_result": "first result, s", "memory": "memory, MB"}
    figure = Figure(figsize=(12.0, 13.0), layout="constrained")
    panels = figure.subplots(len(quantities), len(ARCHITECTURES), sharex="col", sharey="row", squeeze=False)
    for i, (what, name) in enumerate(quantities.items()):
        for panel, (architecture, title) in zip(panels[i], ARCHITECTURES.items(), strict=True):
            for library in LIBRARIES:
                chosen = [r for r in rows if (r["library"], r["architecture"]) == (library, architecture)]
                draw_line(panel, [(row["n_dim"], value(what)(row)) for row in chosen], library)
            if i == 0:
                panel.set_title(title)
        panels[i, 0].set_ylabel(name)
    for panel in panels[-1]:
        panel.set_xlabel("scalars")
    finish(figure, panels, path)


def draw_scaling(rows: list[dict], base: dict, path: pathlib.Path) -> None:
    """Time against each factor, the others as in `base`: a row of panels for each architecture and quantity."""
    from matplotlib.figure import Figure

    names = [(a, what) for a in SCALING_ARCHITECTURES for what in QUANTITIES]
    figure = Figure(figsize=(12.0, 15.0), layout="constrained")
    panels = figure.subplots(len(names), len(FACTORS), sharex="col", sharey="row", squeeze=False)
    for i, (architecture, what) in enumerate(names):
        for panel, (factor, title) in zip(panels[i], FACTORS.items(), strict=True):
            fixed = base | {"architecture": architecture}
            fixed.pop(factor)
            for library in LIBRARIES:
                chosen = [r for r in rows if r["library"] == library and all(r[k] == v for k, v in fixed.items())]
                draw_line(panel, [(row[factor], value(what)(row)) for row in chosen], library)
            if i == len(names) - 1:
                panel.set_xlabel(title)
        panels[i, 0].set_ylabel(f"{ARCHITECTURES[architecture]}\n{QUANTITIES[what]}, ms")
    finish(figure, panels, path)


def draw_line(panel, points: list[tuple[float, float | None]], library: str) -> None:
    """tfflows' line is thick and black; points that are missing are left out."""
    points = [point for point in points if point[1] is not None]
    if points:
        i = list(LIBRARIES).index(library)
        style = {"color": "black", "linewidth": 2.5, "zorder": 3} if i == 0 else {"color": f"C{i}", "linewidth": 1.2}
        panel.plot(*zip(*sorted(points), strict=True), marker="o", markersize=4, label=library, **style)


def finish(figure, panels, path: pathlib.Path) -> None:
    """Axes, legend, file."""
    from matplotlib.ticker import LogFormatter

    handles = {}
    for panel in panels.flat:
        panel.set_xscale("log", base=2)
        panel.set_yscale("log")
        panel.xaxis.set_major_formatter("{x:.0f}")
        panel.yaxis.set_major_formatter(LogFormatter())
        panel.yaxis.set_minor_formatter(LogFormatter())
        panel.grid(alpha=0.3)
        handles |= dict(zip(*panel.get_legend_handles_labels()[::-1], strict=True))
    for column in panels.T:
        ticks = sorted({x for panel in column for line in panel.lines for x in line.get_xdata()})
        column[0].set_xticks(ticks)
        column[0].minorticks_off()
    ordered = [library for library in LIBRARIES if library in handles]
    figure.legend([handles[name] for name in ordered], ordered, loc="outside upper center", ncols=len(ordered))
    figure.savefig(path, dpi=110)


# The parts.


def run_lines(report: Report, pythons: dict[str, str], args: argparse.Namespace) -> None:
    for architecture in args.architectures:
        offered = {k: python for k, python in pythons.items() if is_offered(k, architecture)}
        for n_dim in args.dims:
            case = make_case(args, architecture, n_dim=n_dim)
            together = [offered] if n_dim < LARGE_DIM else [{k: python} for k, python in offered.items()]
            for group in together:
                run_case(report, "lines", case, group, args)
                draw_lines(report.parts["lines"]["rows"], report.path.with_suffix(".png"))


def run_scaling(report: Report, pythons: dict[str, str], args: argparse.Namespace) -> None:
    base = {"n_dim": SCALING_DIM, "batch_size": args.batch_size, "n_layers": args.layers, "bins": args.bins}
    changes = [{}] + [{key: value} for key, values in SCALING.items() for value in values if value != base[key]]
    chosen = {library: python for library, python in pythons.items() if library in SCALING_LIBRARIES}
    for architecture in [a for a in args.architectures if a in SCALING_ARCHITECTURES]:
        for change in changes:
            run_case(report, "scaling", make_case(args, architecture, **base | change), chosen, args)
            picture = report.path.with_name(f"{report.path.name}_scaling.png")
            draw_scaling(report.parts["scaling"]["rows"], base, picture)


def run_fit(report: Report, pythons: dict[str, str], args: argparse.Namespace) -> None:
    for library in [library for library in pythons if library in FITS]:
        with Worker(library, pythons[library], args.threads) as worker:
            try:
                worker.do("load", limit=START_LIMIT, threads=args.threads)
                found = worker.do("fit", limit=START_LIMIT)
            except WorkerError as error:
                found = {"error": str(error)}
        print("fit", library, found, flush=True)
        report.add("fit", {"library": library} | found)


def run_case(report: Report, part: str, case: Case, pythons: dict[str, str], args: argparse.Namespace) -> None:
    """Measures a case and adds its rows, with the number of cores that other processes kept busy meanwhile."""
    before, begun = foreign_seconds(), time.perf_counter()
    results = measure(case, pythons, args)
    others = None if before is None else (foreign_seconds() - before) / (time.perf_counter() - begun)
    print(part, case.architecture, *(f"{getattr(case, key)} {name}," for key, name in FACTORS.items()), flush=True)
    for library, found in results.items():
        row = {"library": library} | dataclasses.asdict(case) | found | {"others": others}
        cells = ", ".join(f"{name} {milliseconds(what)(row)}" for what, name in QUANTITIES.items())
        print(f"  {library}: {cells}", flush=True)
        report.add(part, row)
    if others is not None and others > BUSY:
        print(f"  Other processes used {others:.2f} cores meanwhile: these figures do not count.", flush=True)


def foreign_seconds() -> float | None:
    """Processor time that this machine has spent on other processes; None where the system does not tell.

    What this process and its workers took is known once they have ended.
    """
    try:
        with open("/proc/stat") as file:
            user, nice, system, _, _, *interrupts = map(int, file.readline().split()[1:9])
    except OSError:
        return None
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK") - sum(os.times()[:4])


def make_case(args: argparse.Namespace, architecture: str, *, n_dim: int, **changes) -> Case:
    is_large = n_dim >= LARGE_DIM
    defaults = {"n_layers": args.layers, "bins": args.bins, "batch_size": args.batch_size}
    return Case(
        architecture,
        n_dim,
        hidden=tuple(args.hidden or ((1024, 1024) if is_large else (128, 128))),
        n_steps=1 if is_large else 20,
        threads=args.threads,
        **defaults | changes,
    )


def find_versions(pythons: dict[str, str], threads: int) -> dict[str, str]:
    """The libraries' versions; and their files are read once, so that no line pays for a cold disk."""
    found = {}
    for library, python in pythons.items():
        with Worker(library, python, threads) as worker:
            try:
                answer = worker.do("load", limit=START_LIMIT, threads=threads)["versions"]
                found[f"{library} versions"] = ", ".join(f"{k} {v}" for k, v in answer.items())
            except WorkerError as error:
                found[f"{library} versions"] = f"missing: {error}"
    return found


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--libraries", nargs="+", choices=LIBRARIES, default=list(LIBRARIES))
    parser.add_argument("--architectures", nargs="+", choices=ARCHITECTURES, default=list(ARCHITECTURES))
    parser.add_argument("--dims", type=int, nargs="+", default=list(DIMS), help="numbers of scalars of the lines")
    parser.add_argument("--layers", type=int, default=5)
    parser.add_argument("--hidden", type=int, nargs="+", help=f"128 128; 1024 1024 from {LARGE_DIM} scalars on")
    parser.add_argument("--bins", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each library's turn")
    parser.add_argument("--limit", type=float, default=120.0, help="seconds that one call may take, compiling included")
    parser.add_argument("--peer-python", help="a Python with the PyTorch peers; else one is installed into .peers/")
    parser.add_argument("--jax-python", help="a Python with the JAX peers; else one is installed into .peers/")
    parser.add_argument("--output", type=pathlib.Path, default=peers.RESULTS / "speed", help="without a suffix")
    parser.add_argument("--worker", choices=LIBRARIES, help=argparse.SUPPRESS)
    return parser.parse_args()


PARTS = {"lines": run_lines, "fit": run_fit, "scaling": run_scaling}


def main() -> None:
    args = parse()
    if args.worker is not None:
        work(args.worker)
        return
    paths = {"torch": args.peer_python, "jax": args.jax_python}
    pythons = {}
    for library in args.libraries:
        framework = peers.FRAMEWORKS[library]
        pythons[library] = (
            sys.executable if framework == "tensorflow" else peers.peer_python(paths[framework], framework)
        )
    facts = find_versions(pythons, args.threads) | peers.machine()
    shared = {key: getattr(args, key) for key in ("layers", "hidden", "bins", "batch_size", "threads")}
    report = Report(args.output)
    for part in args.parts:
        settings = {"threads": args.threads} if part == "fit" else shared | {"rounds": args.rounds}
        report.begin(part, settings, facts)
        PARTS[part](report, pythons, args)


if __name__ == "__main__":
    main()
