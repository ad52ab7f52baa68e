"""Which flow, how many layers, how wide? A search by KerasTuner, whose models are flows.

A flow is a Keras model, `fit` takes Keras' callbacks and reports `val_loss`, the held-out negative log-likelihood: so a
tuner needs a function that builds a compiled flow, and no more. (KerasTuner: the extra `tfflows[tuner]`.)

    python examples/gallery/tuning.py [--output DIR] [--quick]

The search sees 2,000 points of a pinwheel, and 1,000 held out. The density of the toy is known, so what it finds can be
judged beside the truth and the same preset's default arguments, on points that no fit and no choice has seen.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import keras
import keras_tuner
from gallery import run, save, with_error
from matplotlib import pyplot as plt

import tfflows
from tfflows import FlowModel, datasets, plot

TRUTH = datasets.Pinwheel()
PRESETS = {"RealNVP": "o", "MAF": "^", "CouplingRQNSF": "s", "MaskedAutoregressiveRQNSF": "D"}


def flow_of(hp, presets=tuple(PRESETS)) -> FlowModel:
    """A flow with the tuner's hyperparameters `hp`."""
    preset = getattr(tfflows, hp.Choice("preset", list(presets)))
    width = hp.Int("width", 16, 128, step=2, sampling="log")
    return FlowModel(preset(2, n_layers=hp.Int("layers", 2, 8, step=2), hidden=(width,) * hp.Int("depth", 1, 2)))


def search(x, held_out, folder: str, *, quick: bool):
    """The tuner after its search; a fit ends when the held-out loss has not fallen for ten epochs."""

    def build(hp):
        flow = flow_of(hp, list(PRESETS)[: 1 if quick else None])
        learning_rate = hp.Float("learning_rate", 5e-4, 5e-3, sampling="log")
        # Without XLA, whose compiling takes longer than so short a fit, and is done anew for each trial.
        flow.compile(keras.optimizers.Adam(learning_rate, global_clipnorm=5.0), jit_compile=False)
        return flow

    tuner = keras_tuner.BayesianOptimization(
        build, objective="val_loss", max_trials=2 if quick else 12, seed=0, directory=folder, project_name="flows"
    )
    stop = keras.callbacks.EarlyStopping("val_loss", patience=10)
    epochs = 1 if quick else 40
    tuner.search(x, validation_data=held_out, epochs=epochs, batch_size=128, callbacks=[stop], verbose=0)
    return tuner


def draw(trials, n_weights, held_out, flow):
    figure, (left, right) = plt.subplots(1, 2, figsize=(11.0, 4.4), layout="constrained", width_ratios=(1, 1.15))
    for preset, marker in PRESETS.items():
        of = [i for i, trial in enumerate(trials) if trial.hyperparameters.get("preset") == preset]
        scores = [trials[i].score for i in of]
        left.plot([n_weights[i] for i in of], scores, marker, color="k", fillstyle="none", label=preset)
    left.axhline(-TRUTH.log_prob(held_out).mean(), color="tab:orange", linewidth=4, alpha=0.5, label="truth")
    left.set(xscale="log", xlabel="weights", ylabel="held-out NLL, nats", title="the trials")
    left.legend(frameon=False, fontsize=9, loc="upper right")
    plot.density(flow, held_out, limits=(-2.5, 2.5), title="the best flow, and the held-out data", ax=right)
    return figure


def main(output: Path, *, quick: bool) -> None:
    n = 200 if quick else 2000
    x, held_out, test = TRUTH.sample(n, seed=0), TRUTH.sample(n // 2, seed=1), TRUTH.sample(20_000, seed=2)
    with tempfile.TemporaryDirectory() as folder:
        tuner = search(x, held_out, folder, quick=quick)
    trials = tuner.oracle.get_best_trials(1000)
    settings = trials[0].hyperparameters.values
    n_weights = [flow_of(trial.hyperparameters).count_params() for trial in trials]
    print(f"The best of {len(trials)}: " + ", ".join(f"{name} {value}" for name, value in settings.items()))
    log_truth = TRUTH.log_prob(test)
    preset = getattr(tfflows, settings["preset"])
    flows = {"its settings": flow_of(trials[0].hyperparameters), "default arguments": FlowModel(preset(2))}
    for name, flow in flows.items():  # both fitted to the end, which the search's fits are not
        keras.utils.set_random_seed(0)
        flow.fit(x, validation_data=held_out, epochs=1 if quick else None, verbose=0)
        away = with_error(log_truth - flow.log_prob(test).numpy())
        print(f"{preset.__name__}, {name}: {away} nats from the truth on new points.", flush=True)
    best = flows["its settings"]
    save(draw(trials, n_weights, held_out, best), output / "tuning.png")


if __name__ == "__main__":
    run(main, __doc__)
