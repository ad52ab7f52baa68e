"""Two moons with default arguments: every preset, then the flows of the same family in zuko, normflows and torchflows.

    python benchmarks/moons.py

tfflows: `FlowModel(preset(2)).fit(x)`, nothing else. The peers have each library's default sizes and one training loop
that stops by the same rule as that `fit`: zuko and normflows have none, and torchflows' own stops at a worse density.
Results: `results/moons.md`, `.json`.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import os
import pathlib
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import data
import numpy as np
import peers

# Preset -> the peers' flows of its family. torchflows' planar, radial and Sylvester flows have no densities.
FAMILIES = {
    "NICE": {"torchflows": "NICE"},
    "RealNVP": {"zuko": "RealNVP", "normflows": "AffineCouplingBlock", "torchflows": "RealNVP"},
    "CouplingRQNSF": {
        "zuko": "NSF, passes=2",
        "normflows": "CoupledRationalQuadraticSpline",
        "torchflows": "CouplingRQNSF",
    },
    "CouplingLRS": {"torchflows": "CouplingLRS"},
    "CouplingUMNN": {},
    "CouplingNAF": {"torchflows": "CouplingDeepSF"},
    "FlowPlusPlus": {},
    "MAF": {"zuko": "MAF", "normflows": "MaskedAffineAutoregressive", "torchflows": "MAF"},
    "MaskedAutoregressiveRQNSF": {
        "zuko": "NSF",
        "normflows": "AutoregressiveRationalQuadraticSpline",
        "torchflows": "MaskedAutoregressiveRQNSF",
    },
    "MaskedAutoregressiveLRS": {"torchflows": "MaskedAutoregressiveLRS"},
    "UMNNMAF": {"zuko": "UNAF", "torchflows": "UMNNMAF"},
    "NAF": {"zuko": "NAF", "torchflows": "MaskedAutoregressiveDeepSF"},
    "SOSPF": {"zuko": "SOSPF"},
    "BPF": {"zuko": "BPF"},
    "IAF": {"torchflows": "IAF"},
    "InverseAutoregressiveRQNSF": {"torchflows": "InverseAutoregressiveRQNSF"},
    "InverseAutoregressiveLRS": {"torchflows": "InverseAutoregressiveLRS"},
    "InverseNAF": {"torchflows": "InverseAutoregressiveDeepSF"},
    "InverseUMNNMAF": {},
    "InverseSOSPF": {},
    "InverseBPF": {},
    "GaussianizationFlow": {"zuko": "GF"},
    "SINF": {},
    "Planar": {"normflows": "Planar"},
    "Radial": {"normflows": "Radial"},
    "Sylvester": {},
    "InvertibleResNet": {"torchflows": "InvertibleResNet"},
    "ResidualFlow": {"normflows": "Residual", "torchflows": "ResFlow"},
    "FFJORD": {"zuko": "CNF", "torchflows": "FFJORD"},
    "RNODE": {"torchflows": "RNODE"},
    "OTFlow": {"torchflows": "OTFlowBijection"},
    "FlowMatching": {},
}
NORMFLOWS_LAYERS = {"Planar": 16, "Radial": 16}  # else 8: normflows' layers come one by one
SEED = 0
# The rule of `fit(x)`: see `tfflows.callbacks`.
BATCH_SIZE = 256
HELD_OUT = 0.1
PATIENCE = 30  # epochs
MAX_EPOCHS = 1000
LEARNING_RATE = 1e-3
CLIP_NORM = 5.0

COLUMNS = {
    "preset": "family",
    "library": "library",
    "flow": "its name there",
    "weights": "weights",
    "seconds": "fit, s",
    "epochs": "epochs",
    "round_trip": "round trip",
    "nll": "test NLL, nats",
}
NOTES = """
4000 training and 10,000 test rows of scikit-learn's `make_moons` (noise 0.1, seeds 0 and 1), standardised by the
training rows. "fit, s" includes compiling. "round trip" is the greatest error of a test row after encode and decode,
in float32. The peers' flows have their library's default sizes (normflows has none: 8 layers and nets of 64-64, or 16
planar or radial ones), and train with Adam at 1e-3 on batches of 256, gradients clipped to a norm of 5, with 10 %
held out and the rule of `fit(x)`: the rate falls by 0.3 after 15 epochs without a better held-out likelihood,
training ends after 30 or at the time limit, and the best weights are restored. torchflows' planar, radial and
Sylvester flows have no density of data. An NLL far below the truth's, as torchflows' inverse deep sigmoidal flow has,
is not that of a density.
"""
LIBRARIES = ("tfflows", "zuko", "normflows", "torchflows")


def run_tfflows(settings: dict, train, test) -> dict:
    """A preset, fitted as a newcomer fits it."""
    import keras

    import tfflows

    keras.utils.set_random_seed(SEED)
    flow = tfflows.FlowModel(getattr(tfflows, settings["preset"])(2))
    started = time.perf_counter()
    history = flow.fit(train, verbose=0)
    seconds = time.perf_counter() - started
    log_prob = flow.log_prob(test).numpy()
    back = flow.decode(flow.encode(test)).numpy()
    return {
        "weights": flow.count_params(),
        "seconds": seconds,
        "epochs": len(history.epoch),
        "round_trip": f"{np.abs(back - test).max():.0e}",
        "log_prob": log_prob,
    }


def zuko_flow(preset: str):
    from zuko import flows

    if preset == "CouplingRQNSF":
        return flows.NSF(2, passes=2)
    name = {"MaskedAutoregressiveRQNSF": "NSF", "UMNNMAF": "UNAF", "GaussianizationFlow": "GF", "FFJORD": "CNF"}
    return getattr(flows, name.get(preset, preset))(2)


def normflows_flow(preset: str):
    import normflows as nf

    def layer(i):
        if preset == "RealNVP":
            return nf.flows.AffineCouplingBlock(nf.nets.MLP([1, 64, 64, 2], init_zeros=True))
        if preset == "CouplingRQNSF":
            return nf.flows.CoupledRationalQuadraticSpline(2, num_blocks=2, num_hidden_channels=64, reverse_mask=i % 2)
        if preset == "MaskedAutoregressiveRQNSF":
            return nf.flows.AutoregressiveRationalQuadraticSpline(2, num_blocks=2, num_hidden_channels=64)
        if preset == "MAF":
            return nf.flows.Reverse(nf.flows.MaskedAffineAutoregressive(2, hidden_features=64, num_blocks=2))
        if preset == "ResidualFlow":
            net = nf.nets.LipschitzMLP([2, 64, 64, 2], init_zeros=True, lipschitz_const=0.97)
            return nf.flows.Residual(net)
        return nf.flows.Reverse(getattr(nf.flows, preset)((2,)))  # as it is, it has no density

    mixes = preset in ("RealNVP", "MAF", "MaskedAutoregressiveRQNSF")
    layers = []
    for i in range(NORMFLOWS_LAYERS.get(preset, 8)):
        if i > 0 and mixes:
            layers.append(nf.flows.Permute(2, mode="swap"))
        layers.append(layer(i))
        if preset == "MAF":  # it scales by at most 1.001, which alone keeps densities below the base's maximum
            layers.append(nf.flows.ActNorm(2))
    return nf.NormalizingFlow(nf.distributions.DiagGaussian(2, trainable=False), layers)


def torchflows_flow(name: str):
    from torchflows import flows

    rooms = ("finite.autoregressive.architectures", "finite.residual.architectures")
    rooms += ("continuous.ffjord", "continuous.rnode", "continuous.otflow")
    rooms = [importlib.import_module(f"torchflows.bijections.{room}") for room in rooms]
    architecture = next(getattr(room, name) for room in rooms if hasattr(room, name))
    return flows.Flow(architecture((2,)))


def train_torch(module, log_prob, after_step, train, limit: float) -> int:
    """The loop for a peer, `after_step()` after each step, for at most `limit` seconds; returns the epochs."""
    import copy

    import torch

    rng = np.random.default_rng(SEED)
    order = rng.permutation(len(train))
    n_held = round(HELD_OUT * len(train))
    held, rows = (torch.from_numpy(train[index]) for index in (order[:n_held], order[n_held:]))
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=LEARNING_RATE)
    slower = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.3, patience=PATIENCE // 2, min_lr=1e-5)
    best, best_state, waited = np.inf, None, 0
    started = time.perf_counter()
    n_epochs = 0
    while n_epochs < MAX_EPOCHS:
        n_epochs += 1
        module.train()
        for index in torch.randperm(len(rows)).split(BATCH_SIZE):
            loss = -log_prob(rows[index]).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, CLIP_NORM)
            optimizer.step()
            after_step()
        module.eval()
        score = float(-log_prob(held).detach().mean())  # residual and continuous flows need gradients for it
        slower.step(score)
        waited = 0 if score < best - 1e-4 else waited + 1
        if score < best - 1e-4:
            best, best_state = score, copy.deepcopy(module.state_dict())
        if waited >= PATIENCE or time.perf_counter() - started > limit:
            break
    module.load_state_dict(best_state)
    module.eval()
    return n_epochs


def run_torch(settings: dict, train, test) -> dict:
    """A peer's flow."""
    import torch

    torch.manual_seed(SEED)
    library, preset = settings["library"], settings["preset"]
    if library == "zuko":
        module = zuko_flow(preset)
        log_prob = lambda x: module().log_prob(x)  # noqa: E731
    else:
        module = normflows_flow(preset) if library == "normflows" else torchflows_flow(settings["flow"])
        log_prob = module.log_prob
    after_step = lambda: None  # noqa: E731
    if (library, preset) == ("normflows", "ResidualFlow"):
        import normflows

        after_step = functools.partial(normflows.utils.update_lipschitz, module, 5)
    x = torch.from_numpy(test)
    log_prob(torch.from_numpy(train))  # some build themselves at the first call, or take their scale from it
    started = time.perf_counter()
    epochs = train_torch(module, log_prob, after_step, train, settings["limit"])
    seconds = time.perf_counter() - started
    log_probs = np.concatenate([log_prob(rows).detach().numpy() for rows in x.split(1000)])
    weights = sum(p.numel() for p in module.parameters() if p.requires_grad)
    return {"weights": weights, "seconds": seconds, "epochs": epochs, "log_prob": log_probs}


def work(settings: dict) -> dict:
    """One line of the table, measured in this process."""
    peers.limit_threads(settings["library"], settings["threads"])
    with np.load(settings["data"]) as arrays:  # the peers' environment has no scikit-learn
        train, test = arrays["train"], arrays["test"]
    found = (run_tfflows if settings["library"] == "tfflows" else run_torch)(settings, train, test)
    log_prob = found.pop("log_prob").astype(np.float64)
    n_bad = int((~np.isfinite(log_prob)).sum())
    found["nll"] = f"not finite for {n_bad} rows" if n_bad else f"{-log_prob.mean():.4f}"
    found["seconds"] = round(found["seconds"], 1)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--presets", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--libraries", nargs="+", choices=LIBRARIES, default=list(LIBRARIES))
    parser.add_argument("--limit", type=float, default=300.0, help="seconds that a peer trains at most")
    parser.add_argument("--threads", type=int, default=1, help="of each model")
    parser.add_argument("--at-once", type=int, default=2, help="models that train at the same time")
    parser.add_argument("--peer-python", help="a Python with the peers; else one is installed into .peers/")
    parser.add_argument("--output", type=pathlib.Path, default=peers.RESULTS / "moons", help="without a suffix")
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker is not None:
        print(json.dumps(work(args.worker)))
        return
    train, test, exact = data.two_moons()
    gaussian = data.gaussian_log_prob(train, test)
    rows = [
        {"preset": "truth", "library": "closed form", "nll": f"{-exact.mean():.4f}"},
        {"preset": "Gaussian", "library": "closed form", "nll": f"{-gaussian.mean():.4f}"},
    ]
    lines = [
        {"preset": preset, "library": library, "flow": flow}
        for preset in FAMILIES
        for library, flow in ({"tfflows": preset} | FAMILIES[preset]).items()
    ]
    chosen = [line for line in lines if line["preset"] in args.presets and line["library"] in args.libraries]
    if len(chosen) < len(lines):
        peers.fill_from_last(args.output, [line for line in lines if line not in chosen], ("preset", "library"))
    pythons = {"tfflows": sys.executable}
    if set(args.libraries) != {"tfflows"}:
        pythons |= dict.fromkeys(LIBRARIES[1:], peers.peer_python(args.peer_python))
    settings = {"threads": args.threads, "limit": args.limit}
    facts = settings | {"seed": SEED, "models at once": args.at_once} | peers.machine()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "moons.npz"
        np.savez(path, train=train, test=test)
        jobs = [(pythons[line["library"]], settings | line | {"data": str(path)}) for line in chosen]
        timeout = args.limit + 600.0
        for i, found in peers.run_workers(
            __file__, jobs, at_once=args.at_once, n_threads=args.threads, timeout=timeout
        ):
            line = chosen[i]
            line |= found
            result = found.get("error") or (found["nll"], found["seconds"])
            print(line["preset"], line["library"], result, flush=True)
            done = [*rows, *(line for line in lines if "nll" in line or "error" in line)]
            peers.write_results(args.output, "Two moons by default", COLUMNS, done, facts, NOTES)


if __name__ == "__main__":
    main()
