"""POWER density estimation in a fixed time: each preset of tfflows beside zuko and nflows.

    python benchmarks/power.py --data DIR --seconds 300

Every model has the same number of layers, hidden widths and bins, the same batches, optimiser, wall time
and threads; README.md beside this file says what remains different. Results: `results/power.md`, `.json`.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import os
import pathlib
import sys
import time

import numpy as np
import peers

N_LAYERS = {"NICE": 8, "RealNVP": 8, "MAF": 6, "IAF": 6, "CouplingRQNSF": 6, "MaskedAutoregressiveRQNSF": 5}
N_DIM = 6
BOUND = 5.0
CLIP_NORM = 5.0
ADAM_EPSILON = 1e-7
TEST_BATCH = 8192
STEPS_PER_CALL = 4  # of tfflows, after which the clock is read

COLUMNS = {
    "preset": "architecture",
    "library": "library",
    "weights": "weights",
    "steps": "steps",
    "first_step": "first step, s",
    "ms_per_step": "ms/step",
    "result": "test log-likelihood, nats",
}
NOTES = """
+- is two standard errors over the test rows. The training time includes the first step, in which tfflows
compiles; ms/step leaves it out. The Gaussian has a full covariance and closed form: published -7.74 +- 0.02.
Published results of long training: Real NVP (5) -0.02, MAF (5) 0.14, RQ-NSF coupling 0.64, autoregressive 0.66.
"""


class Budget:
    """A wall time to train in, over which the learning rate falls to zero as half a cosine."""

    def __init__(self, seconds: float, learning_rate: float):
        self.seconds = seconds
        self.learning_rate = learning_rate
        self.n_steps = 0

    def start(self):
        self.started = time.perf_counter()

    def step(self, n_steps: int = 1) -> float | None:
        """Counts steps. Returns the learning rate of the next ones, or None when time is up."""
        self.elapsed = time.perf_counter() - self.started
        if self.n_steps == 0:
            self.first_step, self.n_first = self.elapsed, n_steps
        self.n_steps += n_steps
        fraction = self.elapsed / self.seconds
        return None if fraction >= 1.0 else self.learning_rate * 0.5 * (1.0 + math.cos(math.pi * fraction))

    def report(self) -> dict:
        ms = 1e3 * (self.elapsed - self.first_step) / max(self.n_steps - self.n_first, 1)
        return {"steps": self.n_steps, "first_step": round(self.first_step, 2), "ms_per_step": round(ms, 2)}


def load_power(folder: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """POWER as the MAF paper prepares it: float32 training (1,659,917), validation and test rows of 6 scalars.

    The published array held a time of day with noise that nobody can draw again; here it is one uniform
    minute. Everything else, the order of the rows and of the random draws included, is as published.
    """
    path = pathlib.Path(folder) / "power" / "power_raw_int.npz"
    if not path.exists():
        raise FileNotFoundError(f"Expected the POWER data in {path}; see benchmarks/README.md for how to make it.")
    raw = np.load(path)
    columns = [
        raw["gap_milli_kw"] / 1000.0,
        raw["voltage_centi_v"] / 100.0,
        *(raw[key].astype(np.float64) for key in ("sub1", "sub2", "sub3", "minute_of_day")),
    ]
    n = len(columns[0])
    rng = np.random.RandomState(42)
    order = np.arange(n)
    rng.shuffle(order)
    x = np.stack(columns, axis=1)[order]
    # Drawn in this order, which is not that of the columns.
    voltage, active_power, sub_meters = 0.01 * rng.rand(n, 1), 0.001 * rng.rand(n, 1), rng.rand(n, 3)
    minute = np.random.RandomState(0).rand(n, 1)
    x += np.hstack([active_power, voltage, sub_meters, minute])
    n_test = n // 10
    n_validation = (n - n_test) // 10
    rest, test = np.split(x, [n - n_test])
    location, scale = rest.mean(axis=0), rest.std(axis=0)
    parts = (*np.split(rest, [len(rest) - n_validation]), test)
    return tuple(((part - location) / scale).astype(np.float32) for part in parts)


def gaussian_log_prob(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Log-densities of the test rows under a Gaussian fitted to the training rows."""
    train, test = train.astype(np.float64), test.astype(np.float64)
    factor = np.linalg.cholesky(np.cov(train.T))
    z = np.linalg.solve(factor, (test - train.mean(axis=0)).T)
    return -0.5 * (z**2).sum(axis=0) - np.log(np.diag(factor)).sum() - 0.5 * len(z) * np.log(2.0 * np.pi)


def summarize(log_prob: np.ndarray) -> dict:
    """Mean and two standard errors, as numbers and as text."""
    mean = float(np.mean(log_prob, dtype=np.float64))
    two_errors = float(2.0 * np.std(log_prob, dtype=np.float64) / np.sqrt(len(log_prob)))
    if not np.isfinite(mean):
        raise FloatingPointError("the test log-likelihood is not finite")
    return {"test_ll": mean, "two_errors": two_errors, "result": f"{mean:.3f} +- {two_errors:.3f}"}


def halves(n_layers: int) -> list[np.ndarray]:
    """What the peers' coupling layers transform: a random half, then the other; like the presets of tfflows."""
    rng = np.random.default_rng(0)
    masks = []
    for i in range(n_layers):
        masks.append(rng.permutation(N_DIM) < N_DIM // 2 if i % 2 == 0 else ~masks[-1])
    return masks


def run_tfflows(settings: dict, budget: Budget, train: np.ndarray, test: np.ndarray) -> tuple[int, np.ndarray]:
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
    options = {"n_bins": settings["bins"], "bound": BOUND} if "RQNSF" in preset else {}
    options |= {"n_layers": settings["layers"], "hidden": settings["hidden"]}
    flow = tfflows.FlowModel(getattr(tfflows, preset)(N_DIM, **options))
    optimizer = keras.optimizers.Adam(budget.learning_rate, epsilon=ADAM_EPSILON, global_clipnorm=CLIP_NORM)
    flow.compile(optimizer, steps_per_execution=STEPS_PER_CALL)
    budget.start()
    flow.fit(train, batch_size=settings["batch_size"], epochs=10**9, callbacks=[TimeBudget()], verbose=0)
    n_weights = sum(math.prod(weight.shape) for weight in flow.trainable_weights)
    return n_weights, flow.log_prob(test, batch_size=TEST_BATCH).numpy()


def run_torch(build, settings: dict, budget: Budget, train: np.ndarray, test: np.ndarray) -> tuple[int, np.ndarray]:
    """`run_tfflows` for a PyTorch module and its log-density, as `build(settings)` returns them."""
    import torch

    torch.manual_seed(settings["seed"])
    module, log_prob = build(settings)
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
            rate = budget.step()
            if rate is None:
                break
            optimizer.param_groups[0]["lr"] = rate
    module.eval()
    with torch.no_grad():
        log_probs = torch.cat([log_prob(rows) for rows in test.split(TEST_BATCH)])
    return sum(p.numel() for p in parameters), log_probs.numpy()


def build_zuko(settings: dict):
    """zuko's flow of the preset's architecture, and its log-density."""
    import torch
    from zuko import flows
    from zuko.distributions import DiagNormal
    from zuko.transforms import MonotonicRQSTransform

    preset, n_layers, bins = settings["preset"], settings["layers"], settings["bins"]
    hidden = {"hidden_features": settings["hidden"]}
    if preset == "MaskedAutoregressiveRQNSF":
        flow = flows.NSF(N_DIM, transforms=n_layers, bins=bins, **hidden)
    elif preset in ("MAF", "IAF"):
        flow = flows.MAF(N_DIM, transforms=n_layers, **hidden)
        if preset == "IAF":
            flow = flows.Flow(flow.transform.inv, flow.base)
    else:
        # The classes RealNVP and NSF(passes=2) never pair a half with its complement *and* mix the halves.
        spline = {"univariate": MonotonicRQSTransform, "shapes": [(bins,), (bins,), (bins - 1,)]}
        options = hidden | (spline if preset == "CouplingRQNSF" else {})
        layers = [flows.GeneralCouplingTransform(N_DIM, mask=~mask, **options) for mask in halves(n_layers)]
        base = flows.UnconditionalDistribution(DiagNormal, torch.zeros(N_DIM), torch.ones(N_DIM), buffer=True)
        flow = flows.Flow(layers, base)
    return flow, lambda x: flow().log_prob(x)


def build_nflows(settings: dict):
    """nflows' flow of the preset's architecture, and its log-density."""
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
                layers.append(transforms.ReversePermutation(N_DIM))
            if preset == "MaskedAutoregressiveRQNSF":
                layer = transforms.MaskedPiecewiseRationalQuadraticAutoregressiveTransform(N_DIM, **made, **spline)
            else:
                layer = transforms.MaskedAffineAutoregressiveTransform(N_DIM, **made)
            layers.append(transforms.InverseTransform(layer) if preset == "IAF" else layer)
    else:
        couplings = {
            "NICE": transforms.AdditiveCouplingTransform,
            "RealNVP": transforms.AffineCouplingTransform,
            "CouplingRQNSF": functools.partial(transforms.PiecewiseRationalQuadraticCouplingTransform, **spline),
        }
        layers += [couplings[preset](mask, Net) for mask in halves(n_layers)]
        if preset == "NICE":
            layers.append(transforms.ActNorm(N_DIM))  # the paper's one scale per scalar
        elif preset == "RealNVP":
            # Its couplings scale by at most 1.001, which alone keeps densities below the base's maximum.
            layers = [part for layer in layers for part in (layer, transforms.ActNorm(N_DIM))]
    flow = Flow(transforms.CompositeTransform(layers), StandardNormal([N_DIM]))
    return flow, flow.log_prob


LIBRARIES = {
    "tfflows": (run_tfflows, ("tfflows", "tensorflow", "keras")),
    "zuko": (functools.partial(run_torch, build_zuko), ("zuko", "torch")),
    "nflows": (functools.partial(run_torch, build_nflows), ("nflows", "torch")),
}


def work(settings: dict) -> dict:
    """One line of the table, measured in this process."""
    run, packages = LIBRARIES[settings["library"]]
    peers.limit_threads(settings["library"], settings["threads"])
    train, _, test = load_power(settings["data"])
    budget = Budget(settings["seconds"], settings["learning_rate"])
    n_weights, log_prob = run(settings, budget, train, test[: settings["test_rows"]])
    found = {"weights": n_weights, "versions": peers.versions(*packages)}
    return found | budget.report() | summarize(log_prob)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("TFFLOWS_DATA"), help="folder of the data, or TFFLOWS_DATA")
    parser.add_argument("--seconds", type=float, default=300.0, help="training time of each model")
    parser.add_argument("--presets", nargs="+", choices=N_LAYERS, default=list(N_LAYERS))
    parser.add_argument("--peers", nargs="*", choices=["zuko", "nflows"], default=["zuko", "nflows"])
    parser.add_argument("--layers", type=int, help="the default of each preset if not given")
    parser.add_argument("--hidden", type=int, nargs="+", default=[128, 128])
    parser.add_argument("--bins", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--test-rows", type=int, help="all if not given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peer-python", help="a Python with the peers; else one is installed into .peers/")
    parser.add_argument("--output", type=pathlib.Path, default=peers.RESULTS / "power", help="without a suffix")
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
        train, _, test = load_power(args.data)
    except FileNotFoundError as error:
        sys.exit(str(error))
    test = test[: args.test_rows]
    rows = [{"preset": "Gaussian", "library": "closed form"} | summarize(gaussian_log_prob(train, test))]
    del train
    pythons = {"tfflows": sys.executable}
    if args.peers:
        pythons |= dict.fromkeys(args.peers, peers.peer_python(args.peer_python))
    shared = ("data", "seconds", "hidden", "bins", "batch_size", "learning_rate", "threads", "test_rows", "seed")
    settings = {key: getattr(args, key) for key in shared}
    facts = {key: value for key, value in settings.items() if key != "data"}
    facts |= {"test_rows": len(test), "layers": args.layers or N_LAYERS, **peers.machine()}
    for preset in args.presets:
        for library, python in pythons.items():
            if (preset, library) == ("NICE", "zuko"):
                continue  # its NICE is affine
            line = {"preset": preset, "library": library, "layers": args.layers or N_LAYERS[preset]}
            found = peers.run_worker(
                python, __file__, settings | line, n_threads=args.threads, timeout=args.seconds + 1800
            )
            if "versions" in found:
                facts[f"{library} versions"] = ", ".join(f"{k} {v}" for k, v in found.pop("versions").items())
            rows.append(line | found)
            print(preset, library, found.get("error") or found["result"], flush=True)
            peers.write_results(args.output, "POWER in a fixed time", COLUMNS, rows, facts, NOTES)


if __name__ == "__main__":
    main()
