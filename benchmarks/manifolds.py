"""SoftFlow on curves without noise, beside the same flow trained without it.

    python benchmarks/manifolds.py

Both have the same preset, steps, batches of 256 and learning rates, and see points exactly on a curve. `sample` of
SoftFlow is without noise. Results: `results/manifolds.md`, `.json` and `.png`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import curves
import numpy as np
import peers

N_SAMPLES, N_DRAWN, BATCH, RATE = 2000, 1500, 256, 2e-3
PLENTY, FEW = 20_000, 1000
STEPS_PER_EPOCH = -(-PLENTY // BATCH)
CONSTANT = "constant rate"
COSINE, FIT = "cosine decay", "fit(x)"
# Points, how it is trained, preset, steps (None: it stops by itself), seeds.
RUNS = [
    (PLENTY, COSINE, "CouplingRQNSF", 3000, 2),
    (PLENTY, COSINE, "RealNVP", 3000, 2),
    (FEW, COSINE, "CouplingRQNSF", 3000, 2),
    (PLENTY, CONSTANT, "CouplingRQNSF", 12_000, 1),
    (PLENTY, CONSTANT, "RealNVP", 12_000, 1),
    (PLENTY, COSINE, "FFJORD", 800, 1),
    (FEW, FIT, "CouplingRQNSF", None, 1),
    (PLENTY, COSINE, "MAF", 3000, 1),
    (PLENTY, FIT, "CouplingRQNSF", None, 1),
]
PRESETS = ("CouplingRQNSF", "RealNVP", "MAF", "FFJORD")
PICTURED = ("CouplingRQNSF", "RealNVP", "FFJORD")
PAPERS, SHARP = "SoftFlow, uniform scales", "SoftFlow, power 3"  # the first in the first two runs only
FLOWS = {"plain": None, SHARP: {"power": 3.0}, PAPERS: {"power": 1.0}}
COLUMNS = {
    "points": "points",
    "training": "training",
    "preset": "preset",
    "curve": "curve",
    "flow": "flow",
    "mean": "mean distance",
    "median": "median",
    "ninety": "90 %",
    "ratio": "plain / SoftFlow",
    "coverage": "coverage",
    "fall": "change of loss, second half",
    "log_det": "log det at the data",
    "gradient": "norm of gradient",
    "diverged": "diverged",
    "lost": "x - decode(encode(x))",
    "steps": "steps",
}
KEYS = ("points", "training", "preset", "curve", "flow")
NOTES = """
Distances are in units of the curves, which are some 6 wide; coverage is the part of a curve within 0.03 of one of 2000
samples, by that of 2000 real points. Means over seeds: two with cosine decay, but one for FFJORD and MAF, and one with
the others. The ratio is of mean distances; above 1 SoftFlow is nearer. "Change of loss": from the middle of
training to the end. Log det (of the inverse map, SoftFlow's without noise) and the norm of the gradient (median over
batches, before clipping) are of the trained flow. The loss of the plain flow is that of the points themselves,
SoftFlow's that of blurred ones; they cannot be compared.

What it shows: SoftFlow is nowhere three times nearer. Half of the plain flow's samples are nearer than SoftFlow's, by a
factor of two with power 3 and of three to five with uniform scales, and splines' mean distance is smaller too, at the
same coverage. RealNVP's is larger without noise on most curves, by at most 1.6, through samples far out; power 3 lost
the spiral with both seeds, and two seeds differ by more than the flows do. No training diverged: scales are bounded in
every layer. But the loss of the plain flows falls by 1 to 2 nats in the second half of training, and their gradients
are 3 to 15 times as large as those of power 3, and 8 to 60 times as large as those of uniform scales.

The table was measured in two parts on a busy machine. Lines of `RUNS` that are missing were not measured: MAF,
`fit(x)`, RealNVP at a constant rate, and SoftFlow of FFJORD, whose plain flow is far from converged after 869 steps.
"""


class Worker:
    """One flow, compiled once, trained on any curve with any seed."""

    def __init__(self, settings: dict):
        import keras
        import tensorflow as tf
        from toys import TimeLimit

        import tfflows
        from tfflows.callbacks import default_optimizer

        peers.limit_threads("tfflows", 1)
        keras.utils.set_random_seed(0)  # `compile` draws what the noise comes from
        self.keras, self.tf, self.tfflows, self.limit = keras, tf, tfflows, TimeLimit
        self.preset, self.name, self.n_rows = settings["preset"], settings["flow"], settings["points"]
        n_steps = settings["steps"]
        self.n_epochs = n_steps and -(-n_steps // STEPS_PER_EPOCH)
        self.flow = self._fresh()
        if n_steps is None:
            optimizer = default_optimizer(averaged=True)  # that of `fit(x)`
        elif settings["training"] == CONSTANT:
            optimizer = default_optimizer(averaged=False)
        else:
            fall = keras.optimizers.schedules.CosineDecay(RATE, self.n_epochs * STEPS_PER_EPOCH, alpha=0.01)
            optimizer = keras.optimizers.Adam(fall, global_clipnorm=5.0)
        self.flow.compile(optimizer)
        optimizer.build(self.flow.trainable_variables)
        self.at_start = [np.array(variable) for variable in optimizer.variables]
        self.norm = tf.function(self._norm)

    def _fresh(self):
        preset, options = getattr(self.tfflows, self.preset), FLOWS[self.name]
        bijector = preset(2) if options is None else self.tfflows.SoftFlow(2, preset=preset, **options)
        return self.tfflows.FlowModel(bijector)

    def _norm(self, x, seed):
        """The norm of the gradient of the mean loss of `x`."""
        from tfflows.randomness import training_randomness

        with training_randomness(seed), self.tf.GradientTape() as tape:
            loss = self.tf.reduce_mean(self.flow.flow_loss(self.flow, x, None))
        return self.tf.linalg.global_norm(tape.gradient(loss, self.flow.trainable_weights))

    def __call__(self, curve: str, seed: int) -> dict:
        flow = self.flow
        self.keras.utils.set_random_seed(seed)
        flow.set_weights(self._fresh().get_weights())
        for variable, value in zip(flow.optimizer.variables, self.at_start, strict=True):
            variable.assign(value)
        x = curves.points(curve, self.n_rows, seed)
        # Few points come as often in an epoch as makes the steps the same.
        rows = x if self.n_epochs is None else np.resize(x, (PLENTY, 2))
        limit = [self.limit()] if self.n_epochs is None else []
        try:
            loss = flow.fit(rows, epochs=self.n_epochs, batch_size=BATCH, verbose=0, callbacks=limit).history["loss"]
        except FloatingPointError as error:
            return {"error": str(error).split(". ")[0]}
        samples = flow.sample(N_SAMPLES, seed=seed).numpy()
        z, log_det = flow.encode(x[:1000], return_log_det=True)
        batches = np.resize(x, (20, BATCH, 2))
        norms = [self.norm(batch, self.tf.constant([i, seed])) for i, batch in enumerate(batches)]
        middle = len(loss) // 2
        return curves.Judge(curve)(samples) | {
            "fall": float(np.mean(loss[-5:]) - np.mean(loss[middle - 3 : middle + 2])),
            "log_det": float(np.mean(log_det)),
            "gradient": float(np.median(norms)),
            "lost": float(np.max(np.abs(flow.decode(z) - x[:1000]))),
            "steps": int(flow.optimizer.iterations),
            "loss": [round(float(value), 3) for value in loss],
            "samples": samples[:N_DRAWN].round(3).tolist(),
        }


def of_worker(settings: dict) -> dict:
    train, seeds = Worker(settings), range(settings["seeds"])
    return {"runs": [(curve, train(curve, seed)) for curve in settings["curves"] for seed in seeds]}


def summary(runs: list[dict]) -> dict:
    """Means over seeds, as numbers; what failed is counted."""
    found = [run for run in runs if "error" not in run]
    if not found:
        return runs[0] if runs else {}
    keys = ("mean", "median", "ninety", "coverage", "fall", "log_det", "gradient", "lost", "steps")
    line = {key: float(np.mean([run[key] for run in found])) for key in keys}
    return line | {"diverged": len(runs) - len(found)}


def table(results: dict) -> list[dict]:
    """The lines of the table, of numbers."""
    lines = []
    for key, runs in results.items():
        line = dict(zip(KEYS, key, strict=True)) | summary(runs)
        of_plain = summary(results.get((*key[:-1], "plain"), []))
        if line["flow"] != "plain" and "mean" in line and "mean" in of_plain:
            line["ratio"] = of_plain["mean"] / line["mean"]
        lines.append(line)
    return lines


def shown(line: dict) -> dict:
    formats = dict.fromkeys(("mean", "median", "ninety"), ".4f") | {"ratio": ".2f", "coverage": ".3f", "fall": ".2f"}
    formats |= {"log_det": ".1f", "gradient": ".2g", "lost": ".0e", "steps": ".0f"}
    return line | {key: format(line[key], spec) for key, spec in formats.items() if key in line}


def draw(results: dict, path) -> None:
    """Samples beside the data; and losses at a constant rate, in `<path>_loss.png`."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    wanted = [(preset, flow) for preset in PICTURED for flow in ("plain", SHARP)]
    wanted = [key for key in wanted if (PLENTY, COSINE, key[0], "circle", key[1]) in results]
    names = list(curves.CURVES)
    figure, axes = plt.subplots(len(names), len(wanted) + 1, figsize=(2.2 * len(wanted) + 2.2, 8.8), squeeze=False)
    for row, name in zip(axes, names, strict=True):
        runs = [results.get((PLENTY, COSINE, preset, name, flow), [{}])[0] for preset, flow in wanted]
        clouds = [curves.points(name, N_DRAWN, 0), *(run.get("samples") for run in runs)]
        for axis, x in zip(row, clouds, strict=True):
            if x is not None:
                axis.plot(*np.array(x).T, ".", markersize=1.0, color="black")
            axis.set(xlim=(-3.7, 3.7), ylim=(-3.7, 3.7), aspect="equal", xticks=[], yticks=[])
    for axis, title in zip(axes[0], ["data", *(f"{preset}\n{flow}" for preset, flow in wanted)], strict=True):
        axis.set_title(title, fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
    curves_of_loss = {key: runs[0]["loss"] for key, runs in results.items() if CONSTANT in key and "loss" in runs[0]}
    if not curves_of_loss:
        return
    figure, axis = plt.subplots(figsize=(5.0, 3.2))
    for (_, _, preset, _, flow), loss in curves_of_loss.items():
        axis.plot(STEPS_PER_EPOCH * (1 + np.arange(len(loss))), loss, label=f"{preset}, {flow}", linewidth=0.8)
    axis.set(xscale="log", xlabel="steps", ylabel="loss, nats")
    axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path.with_name(f"{path.stem}_loss.png"), dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--presets", nargs="+", choices=PRESETS, default=list(PRESETS))
    parser.add_argument("--trainings", nargs="+", choices=(COSINE, CONSTANT, FIT), default=[COSINE, CONSTANT, FIT])
    parser.add_argument("--steps", type=int, help="of training, fewer to try it out")
    parser.add_argument("--at-once", type=int, default=1, help="runs at the same time, one processor each")
    parser.add_argument("--output", default="manifolds", help="name of the results")
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker is not None:
        print(json.dumps(of_worker(args.worker)))
        return
    jobs = []
    for n, (points, training, preset, steps, seeds) in enumerate(RUNS):
        if preset in args.presets and training in args.trainings:
            names = list(curves.CURVES) if training == COSINE else ["circle"]
            job = {"points": points, "training": training, "preset": preset, "steps": (steps and args.steps) or steps}
            job |= {"seeds": seeds, "curves": names}
            jobs += [job | {"flow": flow} for flow in FLOWS if flow != PAPERS or n < 2]
    facts = peers.versions("tfflows", "tensorflow", "keras") | peers.machine()
    results = {
        (job["points"], job["training"], job["preset"], curve, flow): []
        for job in jobs
        for curve in job["curves"]
        for flow in FLOWS
    }
    commands = [(sys.executable, job) for job in jobs]
    for i, found in peers.run_workers(__file__, commands, at_once=args.at_once, n_threads=1, timeout=1800.0):
        job = jobs[i]
        for curve, run in found.get("runs", [(curve, found) for curve in job["curves"]]):
            results[tuple({**job, "curve": curve}[key] for key in KEYS)].append(run)
            print(job, curve, {k: v for k, v in run.items() if k not in ("loss", "samples")}, flush=True)
        done = {key: runs for key, runs in results.items() if runs}
        lines = [shown(line) for line in table(done)]
        peers.write_results(peers.RESULTS / args.output, "Curves without noise", COLUMNS, lines, facts, NOTES)
        draw(done, peers.RESULTS / f"{args.output}.png")


if __name__ == "__main__":
    main()
