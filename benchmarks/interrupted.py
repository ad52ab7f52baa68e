"""What `faults.py` interrupts: small runs of all that has checkpoints, and writers of all kinds of files."""

from __future__ import annotations

import functools
import inspect

import keras
import numpy as np
import tensorflow_probability as tfp

import tfflows as tff
import tfflows_cli
from tfflows import inference, states
from tfflows.cli import fitting  # noqa: F401, imported before the command runs, in a process that is killed
from tfflows.export.parity import runner
from tfflows.inference import Target
from tfflows.pipelines import write_tfrecord
from tfflows.plot import canvas

tfd = tfp.distributions
X = np.random.default_rng(0).normal(size=(16, 2))


# Runs that end with arrays; those with a path keep checkpoints there.


def target():
    prior = tfd.Independent(tfd.Uniform(np.float32([-5.0, -5.0]), np.float32([5.0, 5.0])), 1)
    return Target(lambda x: -2.0 * (x[:, 0] - 1.0) ** 2 - 2.0 * (x[:, 1] - 0.3 * x[:, 0] ** 2) ** 2, prior=prior)


def sampled(sampler, path, **settings):
    keras.utils.set_random_seed(0)
    flow = tff.FlowModel(tff.RealNVP(2, n_layers=1, hidden=(8,)))
    found = sampler(target(), n_draws=150, n_chains=2, seed=1, flow=flow, checkpoint=path, verbose=False, **settings)
    counts = np.array([found.n_evaluations, found.n_gradients])
    evidence = np.array(np.nan if found.log_evidence is None else found.log_evidence)
    return [found.draws, found.log_prob, counts, evidence, *flow.get_weights()]


def sinf(path):
    keras.utils.set_random_seed(0)
    flow = tff.FlowModel(tff.SINF(3, n_layers=25, n_knots=16, patience=25))
    flow.adapt(np.random.default_rng(0).gamma(2.0, size=(2000, 3)), checkpoint=path)
    return flow.get_weights()


def fit(path):
    keras.utils.set_random_seed(0)
    flow = tff.FlowModel(tff.RealNVP(2, n_layers=2, hidden=(16,)))
    x = tff.datasets.TwoMoons().sample(2000, seed=0)
    history = flow.fit(x, epochs=40, verbose=0, checkpoint=path)
    return [np.array(history.history["loss"]), *flow.get_weights()]


def command_line(path):
    """`tfflows fit`, which has no checkpoint: what it has not ended is begun anew, over the file of before."""
    table, out = path.with_name("x.csv"), path.with_name("flow.keras")
    if not table.exists():
        np.savetxt(table, np.random.default_rng(0).normal(size=(500, 2)), delimiter=",", header="a,b", comments="")
    if not out.exists():
        out.write_text("old")
    options = ["--flow", "realnvp", "--layers", "2", "--hidden", "8", "--epochs", "8", "--seed", "0", "--force"]
    try:
        tfflows_cli.app(["fit", str(table), "--out", str(out), *options])
    except SystemExit as end:
        if end.code:
            raise
    return keras.saving.load_model(out).get_weights()


RESUMED = {
    "SINF": sinf,
    "preconditioned_smc": functools.partial(sampled, inference.preconditioned_smc, n_effective=64, n_active=32),
    "flow_mh": functools.partial(sampled, inference.flow_mh, n_walkers=32, n_rounds=4, n_local=3, n_global=2),
    "variational": functools.partial(sampled, inference.variational, n_steps=60, n_particles=32, n_rounds=3),
    "neutra_hmc": functools.partial(
        sampled, inference.neutra_hmc, n_steps=60, n_particles=32, n_adapt=100, jit_compile=False
    ),
}
if "checkpoint" in inspect.signature(tff.FlowModel.fit).parameters:
    RESUMED["fit(checkpoint=...)"] = fit
RESUMED["tfflows fit --force, begun anew"] = command_line


# Files that are written over again and again.


def two_flows():
    found = []
    for seed in (1, 2):
        keras.utils.set_random_seed(seed)
        found.append(tff.FlowModel(tff.RealNVP(2, n_layers=1, hidden=(32,))))
        found[-1].set_weights([w + 0.01 * seed for w in found[-1].get_weights()])
    return found


def exported(path):
    return runner(path)("log_prob", x=X.astype(np.float32))["log_prob"]


# Of each kind: the path, how a flow is written there, and the log-densities that a reader finds there.
WRITTEN = {
    "flow.save": (
        "x.keras",
        lambda flow, path: flow.save(path),
        lambda path: keras.saving.load_model(path).log_prob(X),
    ),
    "flow.export, SavedModel": (
        "x",
        lambda flow, path: flow.export(path, overwrite=True, verbose=False),
        exported,
    ),
    "flow.export, TFLite": (
        "x.tflite",
        lambda flow, path: flow.export(path, "litert", overwrite=True, verbose=False),
        exported,
    ),
}
# Of what else a full disk may stop: how it is written.
OTHERS = {
    "flow.save_weights": ("x.weights.h5", lambda flow, path: flow.save_weights(path)),
    "checkpoints": ("x.npz", lambda flow, path: states.save(path, {"flow": flow.get_weights()})),
    "pictures": ("x.png", lambda flow, path: canvas.save(canvas.new_axes(), path)),
    "write_tfrecord": ("0000.tfrecord", lambda flow, path: write_tfrecord(path.parent, np.tile(X, (50, 1)))),
}
