"""flowjax and distrax."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

import numpy as np

from contest.cases import BOUND, FIT_BATCH, FIT_EPOCHS, FIT_LAYERS, FIT_WIDTH, LEARNING_RATE, Case, Verbs


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
