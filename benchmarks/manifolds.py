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
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import curves
import numpy as np
import peers

N_SAMPLES, N_DRAWN, BATCH, RATE = 2000, 1500, 256, 2e-3
PLENTY, FEW = 20_000, 1000
STEPS_PER_EPOCH = -(-PLENTY // BATCH)
CONSTANT = "constant rate"
# Number of points, and of steps; None of steps is `fit(x)`, which stops by itself.
REGIMES = {
    "plenty": (PLENTY, 4000),
    "few": (FEW, 4000),
    "plenty, fit(x)": (PLENTY, None),
    "few, fit(x)": (FEW, None),
    CONSTANT: (PLENTY, 20_000),
}
PRESETS = {
    "CouplingRQNSF": tuple(REGIMES),
    "RealNVP": ("plenty", "few", CONSTANT),
    "MAF": ("plenty",),
    "NICE": ("plenty",),
    "FFJORD": ("plenty",),
}
PICTURED = ("CouplingRQNSF", "RealNVP", "FFJORD")
PAPERS = "SoftFlow, uniform scales"
FLOWS = {"plain": None, "SoftFlow": {}, PAPERS: {"power": 1.0}}
OF_PAPER = (("plenty", "CouplingRQNSF"), ("plenty", "RealNVP"))
COLUMNS = {
    "regime": "training",
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
    "lost": "x - decode(encode(x))",
    "seconds": "seconds",
}
NOTES = """
TODO
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
        self.keras, self.tf, self.tfflows, self.limit = keras, tf, tfflows, TimeLimit
        self.preset, self.name, regime = settings["preset"], settings["flow"], settings["regime"]
        self.n_rows, n_steps = REGIMES[regime]
        self.n_epochs = n_steps and -(-(settings["steps"] or n_steps) // STEPS_PER_EPOCH)
        self.flow = self._fresh()
        if n_steps is None:
            optimizer = default_optimizer(averaged=True)  # that of `fit(x)`
        elif regime == CONSTANT:
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
        started = time.perf_counter()
        try:
            loss = flow.fit(rows, epochs=self.n_epochs, batch_size=BATCH, verbose=0, callbacks=limit).history["loss"]
        except FloatingPointError as error:
            return {"error": str(error).split(". ")[0]}
        seconds = time.perf_counter() - started
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
            "seconds": seconds,
            "epochs": len(loss),
            "loss": [round(float(value), 3) for value in loss],
            "samples": samples[:N_DRAWN].round(3).tolist(),
        }


def of_worker(settings: dict) -> dict:
    train = Worker(settings)
    return {"runs": [[curve, seed, train(curve, seed)] for curve in settings["curves"] for seed in settings["seeds"]]}


def summary(runs: list[dict]) -> dict:
    """Means over seeds, as numbers; what failed is counted."""
    found = [run for run in runs if "error" not in run]
    if not found:
        return {"error": runs[0]["error"]}
    keys = ("mean", "median", "ninety", "coverage", "fall", "log_det", "gradient", "lost", "seconds", "epochs")
    line = {key: float(np.mean([run[key] for run in found])) for key in keys}
    return line | {"diverged": len(runs) - len(found)}


def table(results: dict) -> list[dict]:
    """The lines of the table, of numbers."""
    lines = []
    for (regime, preset, curve, flow), runs in results.items():
        line = {"regime": regime, "preset": preset, "curve": curve, "flow": flow} | summary(runs)
        plain = results.get((regime, preset, curve, "plain"))
        if flow != "plain" and plain and "mean" in line and "mean" in (of_plain := summary(plain)):
            line["ratio"] = of_plain["mean"] / line["mean"]
        lines.append(line)
    return lines


def shown(line: dict) -> dict:
    formats = dict.fromkeys(("mean", "median", "ninety"), ".4f") | {"ratio": ".2f", "coverage": ".3f", "fall": ".2f"}
    formats |= {"log_det": ".1f", "gradient": ".2g", "lost": ".0e", "seconds": ".0f", "epochs": ".0f"}
    return line | {key: format(line[key], spec) for key, spec in formats.items() if key in line}


def draw(results: dict, path) -> None:
    """Samples on the curves, data above; and losses as long as one trains."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    wanted = [("plenty", preset, flow) for preset in PICTURED for flow in ("plain", "SoftFlow")]
    wanted = [key for key in wanted if (*key[:2], "circle", key[2]) in results]
    names = list(curves.CURVES)
    figure, axes = plt.subplots(len(names), len(wanted) + 1, figsize=(2.2 * len(wanted) + 2.2, 8.8), squeeze=False)
    for row, name in zip(axes, names, strict=True):
        of_flows = [results.get((regime, preset, name, flow), [{}])[0] for regime, preset, flow in wanted]
        for axis, x in zip(
            row, [curves.points(name, N_DRAWN, 0), *(run.get("samples") for run in of_flows)], strict=True
        ):
            if x is not None:
                axis.plot(*np.array(x).T, ".", markersize=1.0, color="black")
            axis.set(xlim=(-3.7, 3.7), ylim=(-3.7, 3.7), aspect="equal", xticks=[], yticks=[])
    for axis, title in zip(axes[0], ["data", *(f"{preset}\n{flow}" for _, preset, flow in wanted)], strict=True):
        axis.set_title(title, fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
    figure, axis = plt.subplots(figsize=(5.0, 3.2))
    for (regime, preset, _, flow), runs in results.items():
        if regime == CONSTANT and "loss" in runs[0]:
            steps = STEPS_PER_EPOCH * (1 + np.arange(len(runs[0]["loss"])))
            axis.plot(steps, runs[0]["loss"], label=f"{preset}, {flow}", linewidth=0.8)
    axis.set(xscale="log", xlabel="steps", ylabel="loss, nats")
    axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path.with_name(path.stem + "_loss.png"), dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--presets", nargs="+", choices=PRESETS, default=list(PRESETS))
    parser.add_argument("--regimes", nargs="+", choices=REGIMES, default=list(REGIMES))
    parser.add_argument("--steps", type=int, help="of training, fewer to try it out")
    parser.add_argument("--at-once", type=int, default=1, help="runs at the same time, one processor each")
    parser.add_argument("--output", default="manifolds", help="name of the results")
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker is not None:
        print(json.dumps(of_worker(args.worker)))
        return
    jobs = []
    for preset in args.presets:
        for regime in PRESETS[preset]:
            for flow in FLOWS:
                if regime in args.regimes and (flow != PAPERS or (regime, preset) in OF_PAPER):
                    once = regime == CONSTANT or preset == "FFJORD"  # slow: one seed
                    job = {"regime": regime, "preset": preset, "flow": flow, "steps": args.steps}
                    job["curves"] = ["circle"] if regime == CONSTANT else list(curves.CURVES)
                    jobs.append(job | {"seeds": list(range(1 if once else args.seeds))})
    facts = peers.versions("tfflows", "tensorflow", "keras") | peers.machine()
    facts |= {"seeds": args.seeds}
    results = {(j["regime"], j["preset"], curve, j["flow"]): [] for j in jobs for curve in j["curves"]}
    results = dict(sorted(results.items(), key=lambda item: [list(REGIMES).index(item[0][0]), item[0][1:]]))
    for i, found in peers.run_workers(
        __file__, [(sys.executable, job) for job in jobs], at_once=args.at_once, n_threads=1, timeout=1800.0
    ):
        job = jobs[i]
        failed = [[curve, 0, found] for curve in job["curves"]]
        for curve, seed, run in found.get("runs", failed):
            results[job["regime"], job["preset"], curve, job["flow"]].append(run)
            brief = {key: value for key, value in run.items() if key not in ("loss", "samples")}
            print(job["regime"], job["preset"], curve, job["flow"], seed, brief, flush=True)
        done = {key: runs for key, runs in results.items() if runs}
        lines = [shown(line) for line in table(done)]
        peers.write_results(peers.RESULTS / args.output, "Curves without noise", COLUMNS, lines, facts, NOTES)
        draw(done, peers.RESULTS / f"{args.output}.png")


if __name__ == "__main__":
    main()
