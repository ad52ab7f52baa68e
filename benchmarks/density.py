"""Density estimation in a fixed time: each preset of tfflows beside zuko, nflows and normflows.

    python benchmarks/density.py --dataset power --data DIR --seconds 300

Every model has the same hidden widths and bins, the same number of layers as its peers, the same batches, optimiser,
wall time and threads; README.md beside this file says what remains different. Results: `results/<dataset>.md`, `.json`.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import os
import pathlib
import signal
import sys
import tempfile
import time

import data
import numpy as np
import peers

LOADERS = {"power": data.load_power, "bsds300": data.load_bsds300}
TITLES = {"power": "POWER in a fixed time", "bsds300": "BSDS300 patches in a fixed time"}
# Preset -> its layers here, and the peers' flows of its family. No layers: the preset has none.
N_LAYERS = {
    "NICE": 8,
    "RealNVP": 8,
    "CouplingRQNSF": 6,
    "CouplingLRS": 6,
    "CouplingUMNN": 5,
    "CouplingNAF": 5,
    "FlowPlusPlus": 5,
    "MAF": 6,
    "MaskedAutoregressiveRQNSF": 5,
    "MaskedAutoregressiveLRS": 5,
    "UMNNMAF": 5,
    "NAF": 3,
    "SOSPF": 3,
    "BPF": 3,
    "IAF": 6,
    "InverseAutoregressiveRQNSF": 5,
    "InverseAutoregressiveLRS": 5,
    "InverseUMNNMAF": 5,
    "InverseNAF": 3,
    "InverseSOSPF": 3,
    "InverseBPF": 3,
    "GaussianizationFlow": 6,
    "Planar": 16,
    "Radial": 16,
    "Sylvester": 8,
    "InvertibleResNet": 8,
    "ResidualFlow": 8,
    "FFJORD": None,
    "RNODE": None,
    "OTFlow": None,
    "FlowMatching": None,
    "SINF": 200,
}
PEERS = {
    "NICE": ("nflows",),
    "RealNVP": ("zuko", "nflows", "normflows"),
    "CouplingRQNSF": ("zuko", "nflows", "normflows"),
    "MAF": ("zuko", "nflows", "normflows"),
    "MaskedAutoregressiveRQNSF": ("zuko", "nflows", "normflows"),
    "IAF": ("zuko", "nflows"),
    "UMNNMAF": ("zuko",),
    "NAF": ("zuko",),
    "SOSPF": ("zuko",),
    "BPF": ("zuko",),
    "GaussianizationFlow": ("zuko",),
    "FFJORD": ("zuko",),
    "Planar": ("normflows",),
    "Radial": ("normflows",),
    "ResidualFlow": ("normflows",),
}
PUBLISHED = {  # nats: POWER, BSDS300; the source is in the notes
    "Gaussian": ("-7.74", "96.67"),
    "RealNVP": ("0.17", "153.28"),
    "CouplingRQNSF": ("0.64", "157.54"),
    "MAF": ("0.24 to 0.45", "154.93 to 156.95"),
    "MaskedAutoregressiveRQNSF": ("0.66", "157.31"),
    "UMNNMAF": ("0.63", "157.98"),
    "NAF": ("0.62", "157.73"),
    "SOSPF": ("0.60", "157.48"),
    "FFJORD": ("0.46", "157.40"),
}
BOUND = 5.0
CLIP_NORM = 5.0
ADAM_EPSILON = 1e-7
TEST_BATCH = 1024
EVALUATION_SECONDS = 20.0
STEPS_PER_CALL = 4  # of tfflows, after which the clock is read
SINF_ROWS = 100_000

COLUMNS = {
    "preset": "architecture",
    "library": "library",
    "weights": "weights",
    "steps": "steps",
    "first_step": "first step, s",
    "ms_per_step": "ms/step",
    "rows": "test rows",
    "published": "published",
    "result": "test log-likelihood, nats",
}
NOTES = """
+- is two standard errors over the test rows, which are fewer where evaluating all of them would take over 20 s. The
training time includes the first step, in which tfflows compiles; ms/step leaves it out. "published" is the best of
the papers' results of long training, often of larger nets: Kobyzev, Prince & Brubaker (survey), Papamakarios et al.
(MAF), Durkan et al. (NSF), Grathwohl et al. (FFJORD). Steps of SINF are layers, found on the first 100,000 rows.
Where a log-det is estimated (beyond 8 scalars: FFJORD, RNODE, FlowMatching, InvertibleResNet and ResidualFlow) so is
the log-likelihood, without bias but for InvertibleResNet's.
"""


def summarize(log_prob: np.ndarray) -> dict:
    """Mean and two standard errors, as numbers and as text."""
    mean = float(np.mean(log_prob, dtype=np.float64))
    two_errors = float(2.0 * np.std(log_prob, dtype=np.float64) / np.sqrt(len(log_prob)))
    if not np.isfinite(mean):
        raise FloatingPointError("the test log-likelihood is not finite")
    return {
        "rows": len(log_prob),
        "test_ll": mean,
        "two_errors": two_errors,
        "result": f"{mean:.3f} +- {two_errors:.3f}",
    }


def evaluate(log_prob, test) -> np.ndarray:
    """Log-densities of the test rows, or of as many as can be had in `EVALUATION_SECONDS`."""
    started, parts = time.perf_counter(), []
    for start in range(0, len(test), TEST_BATCH):
        parts.append(log_prob(test[start : start + TEST_BATCH]))
        if time.perf_counter() - started > EVALUATION_SECONDS:
            break
    return np.concatenate(parts)


def halves(n_layers: int, n_dim: int) -> list[np.ndarray]:
    """What the peers' coupling layers transform: a random half, then the other; like the presets of tfflows."""
    rng = np.random.default_rng(0)
    masks = []
    for i in range(n_layers):
        masks.append(rng.permutation(n_dim) < n_dim // 2 if i % 2 == 0 else ~masks[-1])
    return masks


def run_tfflows(settings: dict, budget: peers.Budget, train: np.ndarray, test: np.ndarray) -> tuple[int, np.ndarray]:
    """Fits a preset the way a user does. Returns the number of weights and the test log-densities."""
    import keras

    import tfflows

    class TimeBudget(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            rate = budget.step(STEPS_PER_CALL)
            if rate is None:
                self.model.stop_training = True
            else:
                self.model.optimizer.learning_rate = rate

    keras.utils.set_random_seed(settings["seed"])
    preset = settings["preset"]
    options = {"n_bins": settings["bins"], "bound": BOUND} if preset.endswith(("RQNSF", "LRS")) else {}
    if settings["layers"] is not None:
        options["n_layers"] = settings["layers"]
    if preset != "SINF":
        options["hidden"] = settings["hidden"]
    flow = tfflows.FlowModel(getattr(tfflows, preset)(train.shape[1], **options))
    if preset == "SINF":
        _fit_sinf(flow, train[:SINF_ROWS], budget)
    else:
        optimizer = keras.optimizers.Adam(budget.learning_rate, epsilon=ADAM_EPSILON, global_clipnorm=CLIP_NORM)
        flow.compile(optimizer, steps_per_execution=STEPS_PER_CALL)
        budget.start()
        flow.fit(train, batch_size=settings["batch_size"], epochs=10**9, callbacks=[TimeBudget()], verbose=0)
    n_weights = sum(math.prod(weight.shape) for weight in flow.trainable_weights)
    return n_weights, evaluate(lambda rows: flow.log_prob(rows).numpy(), test)


def _fit_sinf(flow, train: np.ndarray, budget: peers.Budget) -> None:
    """Its layers are found until time is up: Ctrl-C keeps what there is."""

    def interrupt(number, frame):
        raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, budget.seconds)
    budget.start()
    try:
        flow.fit(train, verbose=0)
    except KeyboardInterrupt:
        pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
    budget.step(flow.bijector.bijectors[1].n_found)


def run_torch(
    build, settings: dict, budget: peers.Budget, train: np.ndarray, test: np.ndarray
) -> tuple[int, np.ndarray]:
    """`run_tfflows` for a PyTorch module, its log-density and what must follow each step, as `build` returns them."""
    import torch

    torch.manual_seed(settings["seed"])
    module, log_prob, after_step = build(settings, train.shape[1])
    parameters = list(module.parameters())
    train, test = torch.from_numpy(train), torch.from_numpy(test)
    optimizer = torch.optim.Adam(parameters, lr=budget.learning_rate, eps=ADAM_EPSILON, fused=True)
    budget.start()
    rate = budget.learning_rate
    while rate is not None:
        for rows in torch.randperm(len(train)).split(settings["batch_size"]):
            loss = -log_prob(train[rows]).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, CLIP_NORM)
            optimizer.step()
            after_step()
            rate = budget.step()
            if rate is None:
                break
            optimizer.param_groups[0]["lr"] = rate
    module.eval()
    # Residual and continuous flows need gradients even to be evaluated.
    log_probs = evaluate(lambda rows: log_prob(rows).detach().numpy(), test)
    return sum(p.numel() for p in parameters), log_probs


def nothing() -> None:
    """What most modules need after a step."""


def build_zuko(settings: dict, n_dim: int):
    """zuko's flow of the preset's architecture, its log-density, and what must follow a step."""
    import torch
    from zuko import flows
    from zuko.distributions import DiagNormal
    from zuko.transforms import MonotonicRQSTransform

    preset, n_layers, bins = settings["preset"], settings["layers"], settings["bins"]
    hidden = {"hidden_features": settings["hidden"]}
    stacked = {"transforms": n_layers}
    if preset == "MaskedAutoregressiveRQNSF":
        flow = flows.NSF(n_dim, bins=bins, **stacked, **hidden)
    elif preset in ("MAF", "IAF"):
        flow = flows.MAF(n_dim, **stacked, **hidden)
        if preset == "IAF":
            flow = flows.Flow(flow.transform.inv, flow.base)
    elif preset in ("NAF", "UMNNMAF", "SOSPF", "BPF"):
        options = {"signal": 8, "network": {"hidden_features": (32, 32)}} if preset == "UMNNMAF" else {}
        flow = getattr(flows, "UNAF" if preset == "UMNNMAF" else preset)(n_dim, **stacked, **hidden, **options)
    elif preset == "GaussianizationFlow":
        flow = flows.GF(n_dim, components=12, **stacked)
    elif preset == "FFJORD":
        flow = flows.CNF(n_dim, exact=n_dim <= 8, **hidden)
    else:
        # The classes RealNVP and NSF(passes=2) never pair a half with its complement *and* mix the halves.
        spline = {"univariate": MonotonicRQSTransform, "shapes": [(bins,), (bins,), (bins - 1,)]}
        options = hidden | (spline if preset == "CouplingRQNSF" else {})
        layers = [flows.GeneralCouplingTransform(n_dim, mask=~mask, **options) for mask in halves(n_layers, n_dim)]
        base = flows.UnconditionalDistribution(DiagNormal, torch.zeros(n_dim), torch.ones(n_dim), buffer=True)
        flow = flows.Flow(layers, base)
    return flow, lambda x: flow().log_prob(x), nothing


def build_normflows(settings: dict, n_dim: int):
    """normflows' flow of the preset's architecture, each layer so that densities are the cheap direction."""
    import normflows as nf
    import torch
    from contest.with_torch import made_options, torch_net
    from normflows.flows.neural_spline.autoregressive import MaskedPiecewiseRationalQuadraticAutoregressive
    from normflows.flows.neural_spline.coupling import PiecewiseRationalQuadraticCoupling

    preset, n_layers, hidden = settings["preset"], settings["layers"], tuple(settings["hidden"])
    spline = {"num_bins": settings["bins"], "tails": "linear", "tail_bound": BOUND}

    def layer(mask):
        if preset == "CouplingRQNSF":
            mask = torch.from_numpy(mask.astype(np.int64))
            return nf.flows.Reverse(PiecewiseRationalQuadraticCoupling(mask, torch_net(hidden), **spline))
        if preset == "RealNVP":  # its layers transform the second half
            net = nf.nets.MLP([n_dim - n_dim // 2, *hidden, 2 * (n_dim // 2)], init_zeros=True)
            return nf.flows.AffineCouplingBlock(net)
        if preset == "MAF":
            return nf.flows.Reverse(nf.flows.MaskedAffineAutoregressive(n_dim, **made_options(hidden)))
        if preset == "MaskedAutoregressiveRQNSF":
            made = MaskedPiecewiseRationalQuadraticAutoregressive(n_dim, **made_options(hidden), **spline)
            return nf.flows.Reverse(made)
        if preset == "ResidualFlow":
            net = nf.nets.LipschitzMLP([n_dim, *hidden, n_dim], init_zeros=True, lipschitz_const=0.97)
            return nf.flows.Residual(net)
        return nf.flows.Reverse(getattr(nf.flows, preset)((n_dim,)))

    layers = []
    for i, mask in enumerate(halves(n_layers, n_dim)):
        if i > 0 and preset in ("RealNVP", "MAF", "MaskedAutoregressiveRQNSF"):
            mode = "swap" if preset == "RealNVP" and i % 2 == 1 else "shuffle"
            layers.append(nf.flows.Permute(n_dim, mode=mode))
        layers.append(layer(mask))
        if preset == "MAF":  # it scales by at most 1.001, which alone keeps densities below the base's maximum
            layers.append(nf.flows.ActNorm(n_dim))
    flow = nf.NormalizingFlow(nf.distributions.DiagGaussian(n_dim, trainable=False), layers)
    after_step = functools.partial(nf.utils.update_lipschitz, flow, 5) if preset == "ResidualFlow" else nothing
    return flow, flow.log_prob, after_step


def build_nflows(settings: dict, n_dim: int):
    """nflows' flow of the preset's architecture."""
    from nflows import transforms
    from nflows.distributions import StandardNormal
    from nflows.flows import Flow
    from nflows.nn.nets import MLP

    preset, n_layers, hidden = settings["preset"], settings["layers"], settings["hidden"]
    spline = {"num_bins": settings["bins"], "tails": "linear", "tail_bound": BOUND}

    class Net(MLP):
        """nflows' own MLP with the two things that its coupling layers ask of a net."""

        hidden_features = hidden[-1]

        def __init__(self, n_inputs, n_outputs):
            super().__init__([n_inputs], [n_outputs], hidden)

        def forward(self, inputs, context=None):
            return super().forward(inputs)

    layers = []
    if preset in ("MAF", "IAF", "MaskedAutoregressiveRQNSF"):
        if len(set(hidden)) > 1:
            raise ValueError("nflows' MADE has hidden layers of one width")
        made = {"hidden_features": hidden[0], "num_blocks": len(hidden) - 1, "use_residual_blocks": False}
        for i in range(n_layers):
            if i > 0:
                layers.append(transforms.ReversePermutation(n_dim))
            if preset == "MaskedAutoregressiveRQNSF":
                layer = transforms.MaskedPiecewiseRationalQuadraticAutoregressiveTransform(n_dim, **made, **spline)
            else:
                layer = transforms.MaskedAffineAutoregressiveTransform(n_dim, **made)
            layers.append(transforms.InverseTransform(layer) if preset == "IAF" else layer)
    else:
        couplings = {
            "NICE": transforms.AdditiveCouplingTransform,
            "RealNVP": transforms.AffineCouplingTransform,
            "CouplingRQNSF": functools.partial(transforms.PiecewiseRationalQuadraticCouplingTransform, **spline),
        }
        layers += [couplings[preset](mask, Net) for mask in halves(n_layers, n_dim)]
        if preset == "NICE":
            layers.append(transforms.ActNorm(n_dim))  # the paper's one scale per scalar
        elif preset == "RealNVP":
            # Its couplings scale by at most 1.001, which alone keeps densities below the base's maximum.
            layers = [part for layer in layers for part in (layer, transforms.ActNorm(n_dim))]
    flow = Flow(transforms.CompositeTransform(layers), StandardNormal([n_dim]))
    return flow, flow.log_prob, nothing


LIBRARIES = {
    "tfflows": (run_tfflows, ("tfflows", "tensorflow", "keras")),
    "zuko": (functools.partial(run_torch, build_zuko), ("zuko", "torch")),
    "nflows": (functools.partial(run_torch, build_nflows), ("nflows", "torch")),
    "normflows": (functools.partial(run_torch, build_normflows), ("normflows", "torch")),
}


def work(settings: dict) -> dict:
    """One line of the table, measured in this process."""
    run, packages = LIBRARIES[settings["library"]]
    peers.limit_threads(settings["library"], settings["threads"])
    with np.load(settings["arrays"]) as arrays:
        train, test = arrays["train"], arrays["test"]
    budget = peers.Budget(settings["seconds"], settings["learning_rate"])
    n_weights, log_prob = run(settings, budget, train, test)
    found = {"weights": n_weights, "versions": peers.versions(*packages)}
    return found | budget.report() | summarize(log_prob)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", choices=LOADERS, default="power")
    parser.add_argument("--data", default=os.environ.get("TFFLOWS_DATA"), help="folder of the data, or TFFLOWS_DATA")
    parser.add_argument("--seconds", type=float, default=300.0, help="training time of each model")
    parser.add_argument("--presets", nargs="+", choices=N_LAYERS, default=list(N_LAYERS))
    parser.add_argument("--libraries", nargs="+", choices=LIBRARIES, default=list(LIBRARIES))
    parser.add_argument("--layers", type=int, help="the default of each preset if not given")
    parser.add_argument("--hidden", type=int, nargs="+", default=[128, 128])
    parser.add_argument("--bins", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=1, help="of each model")
    parser.add_argument("--at-once", type=int, default=2, help="models that train at the same time")
    parser.add_argument("--test-rows", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peer-python", help="a Python with the peers; else one is installed into .peers/")
    parser.add_argument("--output", type=pathlib.Path, help="without a suffix; results/<dataset> if not given")
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = parse()
    if args.worker is not None:
        print(json.dumps(work(args.worker)))
        return
    if args.data is None:
        sys.exit("Expected --data DIR or the environment variable TFFLOWS_DATA; see benchmarks/README.md.")
    try:
        train, _, test = LOADERS[args.dataset](args.data)
    except FileNotFoundError as error:
        sys.exit(str(error))
    test = test[: args.test_rows]
    published = {name: values[list(LOADERS).index(args.dataset)] for name, values in PUBLISHED.items()}
    gaussian = {"preset": "Gaussian", "library": "closed form", "published": published["Gaussian"]}
    gaussian |= summarize(data.gaussian_log_prob(train, test))
    shared = ("seconds", "hidden", "bins", "batch_size", "learning_rate", "threads", "seed")
    settings = {key: getattr(args, key) for key in shared}
    output = args.output or peers.RESULTS / args.dataset
    lines = [
        {"preset": preset, "library": library, "layers": args.layers or N_LAYERS[preset]}
        for preset in N_LAYERS
        for library in ("tfflows", *PEERS.get(preset, ()))
    ]
    chosen = [line for line in lines if line["preset"] in args.presets and line["library"] in args.libraries]
    if len(chosen) < len(lines):
        peers.fill_from_last(output, [line for line in lines if line not in chosen], ("preset", "library", "layers"))
    facts = settings | {"models at once": args.at_once, "test_rows": len(test), **peers.machine()}
    peer_python = None
    if set(args.libraries) != {"tfflows"}:
        peer_python = peers.peer_python(args.peer_python)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "arrays.npz"
        np.savez(path, train=train, test=test)
        del train
        jobs = [
            (sys.executable if line["library"] == "tfflows" else peer_python, settings | line | {"arrays": str(path)})
            for line in chosen
        ]
        done = peers.run_workers(
            __file__, jobs, at_once=args.at_once, n_threads=args.threads, timeout=args.seconds + 400
        )
        for i, found in done:
            line = chosen[i]
            if "versions" in found:
                facts[f"{line['library']} versions"] = ", ".join(f"{k} {v}" for k, v in found.pop("versions").items())
            line |= found | {"published": published.get(line["preset"], "")}
            print(line["preset"], line["library"], found.get("error") or found["result"], flush=True)
            rows = [gaussian, *(line for line in lines if "result" in line or "error" in line)]
            peers.write_results(output, TITLES[args.dataset], COLUMNS, rows, facts, NOTES)


if __name__ == "__main__":
    main()
