"""Every kind of model that trains by gradient, and one step of plain gradient descent on replicas beside the oracle's.

`test_distribute.py` runs some of them in processes of their own, `benchmarks/workers.py` all.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import cases
import keras
import numpy as np
import tensorflow as tf

import tfflows as tff
from tfflows import clouds, domains, losses
from tfflows.callbacks import default_optimizer
from tfflows.nets import PointNet
from tfflows.ode import RungeKutta4
from tfflows.randomness import training_randomness

ROWS = 60
RATE = 2.0**-7  # exact in every dtype
FEW_STEPS = RungeKutta4(n_steps=4)
SMALL = {"n_layers": 1, "hidden": (8,)}
IMAGE = (8, 8, 1)


def preset(name: str, n_dim: int = 2, **kwargs) -> Callable[[], keras.Model]:
    return lambda: tff.FlowModel(getattr(tff, name)(n_dim, **kwargs))


def normalised(**kwargs) -> keras.Model:
    """With a context net that has state, which moves as it trains."""
    normalization = keras.layers.BatchNormalization(**kwargs)
    net = keras.Sequential([keras.layers.Dense(6), normalization, keras.layers.ReLU(), keras.layers.Dense(3)])
    return tff.FlowModel(tff.RealNVP(2, **SMALL, context_dim=3), context_net=net, context_shape=(4,))


def image_net() -> keras.Model:
    layers = [keras.layers.Conv2D(4, 3, activation="relu"), keras.layers.GlobalAveragePooling2D()]
    return keras.Sequential([keras.Input(IMAGE), *layers, keras.layers.Dense(3)])


def mixture() -> keras.Model:
    return tff.FlowMixture([tff.FlowModel(tff.RealNVP(2, **SMALL)) for _ in range(2)])


def cloud() -> keras.Model:
    points = tff.FlowModel(tff.SoftFlow(2, n_layers=2, hidden=(8,), context_dim=2))
    prior = tff.FlowModel(tff.RealNVP(2, **SMALL, context_dim=2), n_classes=2)
    return tff.PointCloudFlow(points, prior, PointNet(4, (8,), (8,)), n_points=16)


def unit_log_prob(x):
    return -0.5 * tf.reduce_sum(tf.square(x - 1.0), axis=-1)


def _of_tables() -> dict[str, Callable[[], keras.Model]]:
    continuous = {"FFJORD", "RNODE_context", "OTFlow", "FlowMatching_context"}  # below, with fewer steps
    few = {name for name in cases.PRESETS if name.removesuffix("_context") in cases.PRESETS} - set(cases.IMAGE_PRESETS)
    few -= {name for name in few if not name.endswith("_context")} | {"RealNVP_context", "MAF_context"}
    makers = {name: maker for name, maker in cases.PRESETS.items() if name not in {"SINF", *continuous, *few}}
    return {name: functools.partial(lambda maker: tff.FlowModel(maker()), maker) for name, maker in makers.items()}


MODELS: dict[str, Callable[[], keras.Model]] = _of_tables() | {
    name: preset(name.split("_")[0], hidden=(8,), solver=FEW_STEPS, **kwargs)
    for name, kwargs in {
        "FFJORD": {},
        "RNODE_context": {"context_dim": 3},
        "OTFlow": {},
        "FlowMatching": {},
        "FlowMatching_context": {"context_dim": 3},
    }.items()
}
MODELS |= {
    "SoftFlow": preset("SoftFlow", **SMALL),
    "ResidualFlow": preset("ResidualFlow", 3, **SMALL),
    "RealNVP of a mixed table": lambda: tff.FlowModel(
        tff.RealNVP(3, **SMALL), domain=[domains.Domain.integer(0, 9), domains.Domain.positive(), domains.Domain.real()]
    ),
    "RealNVP, context net": lambda: tff.FlowModel(
        tff.RealNVP(2, **SMALL, context_dim=3), context_net=image_net(), context_shape=IMAGE
    ),
    "RealNVP, context net with BatchNormalization": normalised,
    "RealNVP, context net with synchronized BatchNormalization": lambda: normalised(synchronized=True),
    "RealNVP of classes": lambda: tff.FlowModel(tff.RealNVP(2, **SMALL, context_dim=3), n_classes=3),
    "FlowMixture": mixture,
    "PointCloudFlow": cloud,
    "ReverseKL": preset("RealNVP", **SMALL),
}
LOSSES = {"ReverseKL": lambda: losses.ReverseKL(unit_log_prob), "PointCloudFlow": lambda: clouds.VariationalBound(8)}


def make(name: str, optimizer=None) -> keras.Model:
    """A new model of the table, the same each time, compiled."""
    keras.utils.set_random_seed(0)
    model = MODELS[name]()
    loss = LOSSES[name]() if name in LOSSES else None
    model.compile(optimizer or keras.optimizers.SGD(RATE), loss, jit_compile=False)
    return model


def data(model, n: int = ROWS) -> dict[str, np.ndarray]:
    """x, weights and perhaps a context for `fit`, of no use but to compare fits."""
    rng = np.random.default_rng(1)
    found = {"sample_weight": rng.uniform(0.5, 1.5, n)}
    contexts, event = model.accepts.contexts, model.accepts.event_shape
    if contexts is not None:
        labels, numbers = np.arange(n) % (contexts.n_classes or 1), rng.normal(size=(n, *contexts.shape))
        found["context"] = numbers if contexts.n_classes is None else labels
    if isinstance(model, tff.PointCloudFlow):
        return found | {"x": rng.normal(size=(n, 12, 2)) * 2.0 + 1.0}
    if model.accepts.is_discrete:  # images, or the mixed table
        x = rng.integers(0, 10, size=(n, *event)).astype(float)
        return found | {"x": x if len(event) > 1 else x + np.array([0.0, 0.3, 0.6])}
    scales = np.linspace(0.5, 2.0, event[-1])
    return found | {"x": np.clip(rng.normal(size=(n, *event)) * scales + 0.5, -3.0, 3.0)}


def oracle(name: str, n_parts: int) -> dict:
    """One step on all rows by the sum of the gradients of `n_parts` parts: weights, loss, and whether it draws numbers.

    Part r is the r-th piece of the rows, and draws its random numbers from a seed of its own, as replica r does. Where
    nothing is drawn, and no layer looks at a batch as a whole, the sum is the gradient of the whole batch.
    """
    model = make(name)
    given = data(model)
    model.adapt(**given)
    x = model._joined(given["x"], None) if isinstance(model, tff.PointCloudFlow) else given["x"]
    rows = model.accepts.rows(x, given.get("context"), given["sample_weight"])
    batch = {key: tf.constant(value) for key, value in rows.columns().items()}
    total = tf.cast(tf.reduce_sum(batch["weight"]), tf.float64)

    @tf.function(autograph=False)
    def of_part(own, seed):
        with training_randomness(seed):
            with tf.GradientTape() as tape:
                each = model.flow_loss(model, own["x"], own.get("context"))
                share = tf.reduce_sum(each * tf.cast(own["weight"], each.dtype)) / tf.cast(total, each.dtype)
            return share, tape.gradient(
                share, model.trainable_weights, unconnected_gradients=tf.UnconnectedGradients.ZERO
            )

    size = -(-ROWS // n_parts)
    loss, gradients = 0.0, [tf.zeros_like(w.value) for w in model.trainable_weights]
    state, states = model.non_trainable_weights, []
    before = [weight.numpy() for weight in state]
    for part in range(n_parts):
        own = {key: value[part * size : (part + 1) * size] for key, value in batch.items()}
        share, found = of_part(own, tf.constant([model._seed + part, 0]))
        gradients = [a + b for a, b in zip(gradients, found, strict=True)]
        loss += float(share)
        states.append([weight.numpy() for weight in state])
        again = of_part(own, tf.constant([model._seed + part, 1]))
        draws = float(again[0]) != float(share) or difference(again[1], found) > 0.0
        for weight, value in zip(state, before, strict=True):
            weight.assign(value)
    for weight, gradient in zip(model.trainable_weights, gradients, strict=True):
        weight.assign(weight.value - RATE * tf.cast(gradient, weight.dtype))
    for weight, *values in zip(state, *states, strict=True):
        weight.assign(np.mean(values, axis=0))
    return {"weights": model.get_weights(), "loss": loss, "draws": draws}


def step(name: str, strategy) -> dict:
    """What one step of `fit` under a strategy ends with: weights, loss, and whether all replicas here are equal."""
    with strategy.scope():
        model = make(name)
    history = model.fit(**data(model), batch_size=ROWS, epochs=1, shuffle=False, verbose=0).history
    return {"weights": model.get_weights(), "loss": history["loss"][0], "spread": spread(model)}


def automatic(name: str, strategy) -> dict:
    """What `fit` that decides by itself ends with."""
    with strategy.scope():
        model = make(name, default_optimizer(averaged=True))
    history = model.fit(**data(model, 3 * ROWS), batch_size=ROWS, verbose=0)
    return {"weights": model.get_weights(), "val_loss": min(history.history["val_loss"]), "epochs": len(history.epoch)}


def spread(model) -> float:
    """The largest difference between the copies that replicas of this process have of a weight."""
    copies = [getattr(weight.value, "values", [weight.value]) for weight in model.weights]
    return max((float(np.max(np.abs(c[0].numpy() - c[-1].numpy()), initial=0.0)) for c in copies), default=0.0)


def difference(found: list, expected: list) -> float:
    """The largest difference of weights, relative to the largest of a weight's numbers or to 1."""
    found, expected = ([np.asarray(each) for each in some] for some in (found, expected))
    scales = [max(1.0, float(np.max(np.abs(e), initial=0.0))) for e in expected]
    each = zip(found, expected, scales, strict=True)
    return max(float(np.max(np.abs(f - e), initial=0.0)) / scale for f, e, scale in each)
