"""Circles: angles of a molecule with and without circular treatment and beside zuko, and mixtures of known density.

    python benchmarks/circles.py

Every flow has three layers with splines of 8 bins and nets of (64, 64), and takes the same number of steps of Adam at
the same learning rates on batches of the same size. Results: `results/circles.md`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import peers
from scipy import special

LAYERS, HIDDEN, BINS, BATCH, RATE = 3, (64, 64), 8, 512, 1e-3
STEPS = {"alanine dipeptide": 3000, "von Mises mixture": 6000}
N_ROWS, N_COMPONENTS, GRID = 50_000, 5, 300
FLOWS = {
    "coupling, circular": "tfflows",
    "autoregressive, circular": "tfflows",
    "coupling, not circular": "tfflows",
    "autoregressive, not circular": "tfflows",
    "NCSF": "zuko",
}
COLUMNS = {
    "data": "data",
    "library": "library",
    "flow": "flow",
    "log_prob": "held-out log-likelihood",
    "kl": "KL from the truth",
    "integral": "integral - 1",
    "seam": "change of log p after a turn",
    "seconds": "seconds of training",
}
NOTES = """
Means over seeds, +- the standard deviation between them, in nats. The molecule's angles are those of the third of three
runs, given the other two. The mixture has 5 components of 2 angles, 50,000 rows; its divergence is a sum over a grid of
300 x 300, as is the integral. "Not circular" are the same flows of standardised numbers that end at -pi and pi, whose
density beyond is no density of anything. zuko's flow is autoregressive; its density is defined on [-pi, pi) alone.
"""


def mixture():
    """Centres, concentrations and weights of a mixture of independent von Mises distributions of two angles."""
    rng = np.random.default_rng(0)
    centres = rng.uniform(-np.pi, np.pi, (N_COMPONENTS, 2))
    centres[0] = [3.1, -3.1]  # on the seam
    return centres, rng.uniform(2.0, 20.0, (N_COMPONENTS, 2)), rng.dirichlet(np.full(N_COMPONENTS, 5.0))


def log_mixture(x):
    centres, kappa, weights = mixture()
    each = kappa * np.cos(x[:, np.newaxis] - centres) - np.log(2.0 * np.pi * special.i0e(kappa)) - kappa
    return special.logsumexp(each.sum(axis=-1) + np.log(weights), axis=1)


def rows(data, seed):
    """Rows to train and to test on."""
    if data == "alanine dipeptide":
        folder = peers.ROOT / "tfflows" / "data"
        with np.load(folder / "alanine_dipeptide.npz") as arrays:
            first, second, third = (arrays[f"trajectory{i}"] for i in (1, 2, 3))
        return np.concatenate([first, second]), third
    centres, kappa, weights = mixture()
    rng = np.random.default_rng(seed + 1)
    which = rng.choice(N_COMPONENTS, 2 * N_ROWS, p=weights)
    x = rng.vonmises(centres[which], kappa[which]).astype(np.float32)
    return x[:N_ROWS], x[N_ROWS:]


def grid():
    at = -np.pi + 2.0 * np.pi * (np.arange(GRID) + 0.5) / GRID
    return np.stack(np.meshgrid(at, at), axis=-1).reshape(-1, 2).astype(np.float32)


def of_tfflows(name, train, n_epochs, n_steps, seed):
    import keras

    import tfflows

    peers.limit_threads("tfflows", 1)
    keras.utils.set_random_seed(seed)
    preset = tfflows.CouplingRQNSF if name.startswith("coupling") else tfflows.MaskedAutoregressiveRQNSF
    circle = tfflows.Domain.circular(2.0 * math.pi, -math.pi)
    bijector = preset(2, n_layers=LAYERS, hidden=HIDDEN, n_bins=BINS)
    flow = tfflows.FlowModel(bijector, domain=None if "not" in name else [circle] * 2)
    schedule = keras.optimizers.schedules.CosineDecay(RATE, n_steps, alpha=0.01)
    flow.compile(keras.optimizers.Adam(schedule, global_clipnorm=5.0))
    started = time.perf_counter()
    flow.fit(train, epochs=n_epochs, batch_size=BATCH, verbose=0)
    return (lambda x: flow.log_prob(x).numpy()), time.perf_counter() - started


def of_zuko(name, train, n_epochs, n_steps, seed):
    import torch
    import zuko

    peers.limit_threads("zuko", 1)
    torch.manual_seed(seed)
    flow = zuko.flows.NCSF(2, transforms=LAYERS, bins=BINS, hidden_features=HIDDEN)
    optimizer = torch.optim.Adam(flow.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps, eta_min=0.01 * RATE)
    data, rng = torch.tensor(train), np.random.default_rng(seed)
    started = time.perf_counter()
    batches = (data[order] for _ in range(n_epochs) for order in torch.tensor(rng.permutation(len(train))).split(BATCH))
    for batch in batches:
        loss = -flow().log_prob(batch).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 5.0)
        optimizer.step()
        schedule.step()
    seconds = time.perf_counter() - started

    def log_prob(x):
        with torch.no_grad():
            return torch.cat([flow().log_prob(part) for part in torch.tensor(x).split(8192)]).numpy()

    return log_prob, seconds


def work(settings: dict) -> dict:
    data, name = settings["data"], settings["flow"]
    train, test = rows(data, settings["seed"])
    per_epoch = -(-len(train) // BATCH)
    n_epochs = -(-settings["steps"] // per_epoch)
    make = of_zuko if FLOWS[name] == "zuko" else of_tfflows
    log_prob, seconds = make(name, train, n_epochs, n_epochs * per_epoch, settings["seed"])
    found = {"log_prob": float(np.mean(log_prob(test), dtype=np.float64)), "seconds": seconds}
    if "not" not in name:
        points, area = grid(), (2.0 * np.pi / GRID) ** 2
        on_grid = log_prob(points).astype(np.float64)
        found["integral"] = abs(float(np.sum(np.exp(on_grid)) * area) - 1.0)
        if data == "von Mises mixture":
            truth = log_mixture(points.astype(np.float64))
            found["kl"] = float(np.sum(np.exp(truth) * (truth - on_grid)) * area)
        if FLOWS[name] == "tfflows":
            some = points[:: len(points) // 1000]
            found["seam"] = float(np.max(np.abs(log_prob(some + np.float32(2.0 * np.pi)) - log_prob(some))))
    return found


def summary(runs: list[dict]) -> dict:
    found = [run for run in runs if "error" not in run]
    if not found:
        return {"error": runs[0]["error"]}
    line = {}
    for key in found[0]:
        values = [run[key] for run in found]
        if key in ("log_prob", "kl"):
            line[key] = f"{np.mean(values):.4f}" + (f" +- {np.std(values, ddof=1):.4f}" if len(values) > 1 else "")
        else:
            line[key] = f"{np.median(values):.0f}" if key == "seconds" else f"{np.max(values):.1e}"
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--flows", nargs="+", choices=FLOWS, default=list(FLOWS))
    parser.add_argument("--steps", type=int, help="of training, fewer to try it out")
    parser.add_argument("--at-once", type=int, default=2, help="runs at the same time, one processor each")
    parser.add_argument("--peer-python", help="Python with the peers; by default one is made in .peers/")
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker is not None:
        print(json.dumps(work(args.worker)))
        return
    peer = peers.peer_python(args.peer_python)
    lines = [
        {"data": data, "flow": name, "library": FLOWS[name]}
        for data in STEPS
        for name in args.flows
        if data == "alanine dipeptide" or "not" not in name
    ]
    chosen = [line | {"seed": seed} for seed in range(args.seeds) for line in lines]
    jobs = [
        (peer if line["library"] == "zuko" else sys.executable, line | {"steps": args.steps or STEPS[line["data"]]})
        for line in chosen
    ]
    runs = {(line["data"], line["flow"]): [] for line in lines}
    facts = peers.versions("tfflows", "tensorflow", "keras") | peers.machine()
    for i, found in peers.run_workers(__file__, jobs, at_once=args.at_once, n_threads=1, timeout=1800.0):
        print(chosen[i], found, flush=True)
        runs[chosen[i]["data"], chosen[i]["flow"]].append(found)
        done = [line | summary(of) for line in lines if (of := runs[line["data"], line["flow"]])]
        peers.write_results(peers.RESULTS / "circles", "Circles", COLUMNS, done, facts, NOTES)


if __name__ == "__main__":
    main()
