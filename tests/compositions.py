"""Random compositions of bijectors: what hypothesis draws, and what is asked of each."""

from __future__ import annotations

import functools
import json

import keras
import numpy as np
import tensorflow as tf
from cases import BIJECTORS, TRANSFORMERS, C, context, points, policy, randomise
from hypothesis import strategies as st

import tfflows as tff
from tfflows import bases
from tfflows import bijectors as tfb
from tfflows.nets import MADE, MLP
from tfflows.serialization import deserialize, serialize
from tfflows.transformers import UMNN

# They take data of one kind, and so stand at the data's end of a chain.
AT_DATA = {"bounded", "positive", "circle", "logit", "dequantize"}
# A solver's hundreds of steps, one by one, take seconds: these are tested elsewhere.
SLOW = {name for name in BIJECTORS if name.startswith("continuous")}
SCALARS = {name: t for name, t in TRANSFORMERS.items() if "circular" not in name and name != "rotation"}
SCALARS["umnn"] = None  # has weights, and so is made each time
# What searches, step by step, and images take a hundred times as long as formulas: they are drawn less often.
SEARCHES = {
    *("sliced", "residual", "residual_tanh_context", "autoregressive_umnn", "coupling_umnn_context", "multiscale"),
    *("multiscale_context", "coupling_image", "coupling_image_residual_context", "coupling_checkerboard_context"),
}
FORMULAS = ["affine", "lr_spline", "rq_spline", "shift", "sigmoid_affine", "rq_spline_one_bin", "lr_spline_one_bin"]
BASES = {
    "standard": bases.StandardNormal,
    "diagonal": bases.DiagonalNormal,
    "mixture": lambda shape: bases.MixtureOfNormals(shape, 2),
    "student": lambda shape: bases.StudentT(shape, 3.0, learned=True),
}
DOMAINS = {
    "real": (tff.Domain.real(), 1, lambda rng: rng.normal(size=1)),
    "positive": (tff.Domain.positive(), 1, lambda rng: np.exp(rng.normal(size=1))),
    "interval": (tff.Domain.interval(-2.0, 5.0), 1, lambda rng: rng.uniform(-2.0, 5.0, 1)),
    "circular": (tff.Domain.circular(24.0), 1, lambda rng: rng.uniform(0.0, 24.0, 1)),
    "integer": (tff.Domain.integer(0, 6), 1, lambda rng: rng.integers(0, 7, 1)),
    "count": (tff.Domain.integer(0), 1, lambda rng: rng.poisson(3.0, 1)),
    "categorical": (tff.Domain.categorical(3), 1, lambda rng: rng.integers(0, 3, 1)),
    "simplex": (tff.Domain.simplex(3), 2, lambda rng: rng.dirichlet([1.0] * 3)),
    "sphere": (tff.Domain.sphere(3), 2, lambda rng: (v := rng.normal(size=3)) / np.linalg.norm(v)),
}


@functools.cache
def shapes() -> dict[str, tuple[tuple, tuple]]:
    """The shapes of data and latents of each entry of the table."""
    made = {name: make() for name, make in BIJECTORS.items() if name not in SLOW}
    return {name: (part.event_shape, part.latent_shape) for name, part in made.items()}


def generated(kind: str, transformer: str, n: int, with_context: bool, residual: bool, seed: int) -> tfb.Bijector:
    """A map of `n` scalars that is not in the table."""
    scalar, width = SCALARS[transformer] or UMNN(3, (5,), bound=3.0), C if with_context else None
    rng = np.random.default_rng(seed)
    hidden = (max(6, n),) * 2
    if kind == "autoregressive":
        net = MADE(n, scalar.n_parameters, hidden, residual=residual, order=rng.permutation(n))
        return tfb.MaskedAutoregressive(scalar, net, width)
    if kind == "coupling" and n > 1:
        mask = rng.permutation(n) < rng.integers(1, n)
        net = MLP(int(mask.sum()) * scalar.n_parameters, hidden, residual=residual)
        return tfb.Coupling(scalar, mask, net, width)
    net = MLP(n * scalar.n_parameters, hidden, residual=residual) if with_context else None
    return tfb.Elementwise(scalar, n, net, width)


@st.composite
def recipes(draw) -> dict:
    """How a composition is made: plain numbers and names, which hypothesis can make smaller and print."""
    known = shapes()
    seed = draw(st.integers(0, 2**16))
    parts, shape = [], None
    for i in range(draw(st.sampled_from([1, 2, 2, 3, 3, 4]))):
        fitting = [name for name, (data, _) in known.items() if (i == 0 or (data == shape and name not in AT_DATA))]
        fitting = [name for name in fitting if i == 0 or "circular" not in name]
        if fitting and draw(st.booleans()):
            often = [name for name in fitting if name not in SEARCHES]
            name = draw(st.sampled_from(8 * often + fitting))
            part = {"table": name}
            data, latent = known[name]
        elif shape is None or len(shape) == 1:
            n = draw(st.integers(1, 4)) if shape is None else shape[0]
            kind = draw(st.sampled_from(["elementwise", "coupling", "autoregressive"]))
            scalar = draw(st.sampled_from(12 * FORMULAS + sorted(SCALARS)))
            part = {"kind": kind, "transformer": scalar, "n": n, "seed": seed + i}
            part |= {"with_context": draw(st.booleans()), "residual": draw(st.booleans())}
            data = latent = (n,)
        else:
            break
        name = part.get("table", "")
        free = data == latent and name not in AT_DATA and "circular" not in name
        part["inverted"] = free and draw(st.booleans())
        parts.append(part)
        shape = latent
    return {
        "parts": parts,
        "nested": draw(st.booleans()),
        "recompute": draw(st.booleans()),
        "dtype": draw(st.sampled_from(["float64", "float64", "float64", "float32"])),
        "batch_shape": draw(st.sampled_from([(), (1,), (3,), (2, 2)])),
        "base": draw(st.sampled_from(sorted(BASES))),
        "seed": seed,
    }


def make(recipe: dict) -> tfb.Bijector:
    """The bijector of a recipe, with random weights; under the dtype policy of now."""
    parts = []
    for i, how in enumerate(recipe["parts"]):
        how = dict(how)
        inverted, name = how.pop("inverted"), how.pop("table", None)
        part = BIJECTORS[name]() if name else generated(**how)
        randomise(part, 0.1 if len(part.event_shape) > 1 else 0.3, recipe["seed"] + i)
        parts.append(tfb.Invert(part) if inverted else part)
    if recipe["nested"] and len(parts) > 2:
        parts = [parts[0], tfb.Chain(parts[1:])]
    return tfb.Chain(parts, recompute=recipe["recompute"])


def check(recipe: dict) -> None:
    """Round trip, log-det against autodiff and both ways, gradients, density, and the same numbers from its config."""
    with policy(recipe["dtype"]):
        bijector = make(recipe)
        flow = tff.FlowModel(bijector, BASES[recipe["base"]](bijector.latent_shape))
        x, c = points(bijector, recipe["batch_shape"], recipe["seed"]), context(bijector, recipe["batch_shape"])
        if not bijector.is_discrete:
            x = np.clip(x, -2.9, 2.9)
        z, log_det = (np.asarray(v) for v in bijector.inverse_and_log_det(x, c))
        assert z.shape == (*recipe["batch_shape"], *bijector.latent_shape)
        assert log_det.shape == recipe["batch_shape"]
        assert np.all(np.isfinite(z)), "latents are not finite"
        assert np.all(np.isfinite(log_det)), "log-dets are not finite"
        n = len(recipe["batch_shape"])
        matrix, expected = jacobian(bijector, x[(0,) * n], None if c is None else c[(0,) * n])
        # Rounding grows with the condition of the map; a bisection has an error of its own.
        unit = 1e-9 if recipe["dtype"] == "float64" else 2e-5
        values = np.linalg.svd(matrix, compute_uv=False)
        unit *= 1.0 + values.max() / values.min()
        if recipe["batch_shape"] in ((), (1,)):  # of one row the Jacobian is known
            back, forward_log_det = bijector.forward_and_log_det(z, c)
            scale = 256.0 if bijector.is_discrete else 1.0
            away = np.max(np.abs(np.asarray(back) - x)) / (scale * (1.0 + np.max(np.abs(z)) / values.min()))
            assert away < unit, f"round trip: {away:.2g}, of {unit:.2g}"
            away = np.max(np.abs(np.asarray(forward_log_det) + log_det))
            assert away < 10.0 * unit * (1.0 + np.abs(log_det).max()), f"log-dets of both ways: {away:.2g}"
        away = abs(np.linalg.slogdet(matrix)[1] - expected) / (1.0 + abs(expected))
        assert away < 10.0 * unit, f"log-det: {away:.2g}, of {10.0 * unit:.2g}"
        if recipe["batch_shape"] == (3,):
            check_density(flow, x, c, z, log_det)
        if recipe["seed"] % 2:
            check_config(bijector, x, c, z, log_det)


def jacobian(bijector, x, c):
    """d inverse / dx at one event, `[n, n]`, and the log-det there: a row for each latent, and one gradient."""
    n = x.size
    rows = tf.constant(np.repeat(x[np.newaxis], n, axis=0))
    with tf.GradientTape() as tape:
        tape.watch(rows)
        z, log_det = bijector.inverse_and_log_det(rows, None if c is None else np.repeat(c[np.newaxis], n, axis=0))
    each = tf.constant(np.reshape(np.eye(n), z.shape), z.dtype)
    return np.reshape(tape.gradient(z, rows, output_gradients=each), (n, n)).astype(np.float64), float(log_det[0])


def check_density(flow, x, c, z, log_det):
    """The density is that of the latents and the log-det, and every weight has a finite gradient."""
    with tf.GradientTape() as tape:
        log_prob = flow._log_prob(tf.constant(x), None if c is None else tf.constant(c))
        loss = tf.reduce_mean(log_prob)
    if not flow.bijector.is_discrete:
        np.testing.assert_allclose(log_prob, flow.base.log_prob(z) + log_det, rtol=1e-5, atol=1e-4)
    weights = [weight.value for weight in flow.trainable_weights]
    for weight, gradient in zip(flow.trainable_weights, tape.gradient(loss, weights), strict=True):
        assert gradient is None or np.all(np.isfinite(gradient)), f"gradient of {weight.path}"


def check_config(bijector, x, c, z, log_det):
    """The same numbers from the bijector that its config, as a file has it, makes."""
    again = deserialize(json.loads(json.dumps(serialize(bijector))))
    for layer, whole in zip(again.layers, bijector.layers, strict=True):
        if not layer.built:
            layer.build_from_config(whole.get_build_config())
        layer.set_weights(whole.get_weights())
    same = again.inverse_and_log_det(x, c)
    np.testing.assert_array_equal(same[0], z)
    np.testing.assert_array_equal(same[1], log_det)


@st.composite
def tables(draw) -> dict:
    """How a flow of a table's rows is made."""
    return {
        "domain": draw(st.lists(st.sampled_from(sorted(DOMAINS)), min_size=1, max_size=4)),
        "preset": draw(st.sampled_from(["CouplingRQNSF", "MaskedAutoregressiveRQNSF"])),
        "with_context": draw(st.booleans()),
        "seed": draw(st.integers(0, 2**16)),
    }


def check_table(recipe: dict) -> None:
    """Finite densities, rows back from their latents, and draws that are in the domain, of any columns together."""
    rng = np.random.default_rng(recipe["seed"])
    chosen = [DOMAINS[name] for name in recipe["domain"]]
    width = sum(n for _, n, _ in chosen)
    preset = getattr(tff, recipe["preset"])
    bijector = preset(width, n_layers=1, hidden=(6, 6), context_dim=C if recipe["with_context"] else None)
    flow = tff.FlowModel(bijector, domain=[domain for domain, _, _ in chosen])
    x = np.array([np.concatenate([draw(rng) for _, _, draw in chosen]) for _ in range(6)], np.float32)
    c = rng.normal(size=(6, C)).astype(np.float32) if recipe["with_context"] else None
    randomise_weights(flow, rng)
    flow.accepts.check_domain(x)
    log_prob = np.asarray(flow._log_prob(tf.constant(x), c))
    assert np.all(np.isfinite(log_prob)), "densities are not finite"
    z, _ = flow.bijector.inverse_and_log_det(x, c)
    back = np.asarray(flow.bijector.quantize(flow.bijector.forward_and_log_det(z, c)[0]))
    circular = np.concatenate([[domain.kind == "circle"] * domain.n_columns for domain, _, _ in chosen])
    away = np.abs(back - x)
    away = np.where(circular, np.minimum(away, 24.0 - away), away) / (1.0 + np.abs(x))
    assert away.max() < 2e-2, f"round trip: {away.max():.2g}"
    drawn = flow._sample_only([6], None if c is None else tf.constant(c), tf.constant([0, recipe["seed"]]), 1.0)
    flow.accepts.check_domain(np.asarray(drawn))


def randomise_weights(flow, rng) -> None:
    """Random values for what is trained."""
    for weight in flow.trainable_weights:
        weight.assign(0.3 * rng.normal(size=weight.shape))


def forget() -> None:
    """Lets go of what Keras keeps of the compositions before."""
    keras.utils.clear_session()
