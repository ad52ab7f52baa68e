"""Glow on handwritten digits: tfflows beside normflows and nflows, in bits per dimension and in speed.

    python benchmarks/images.py --data DIR --minutes 60      # quality: `results/images.md`
    python benchmarks/images.py --data DIR --speed           # speed and memory: `results/images_speed.md`

All have the same scales, steps, hidden channels, batches, optimiser, wall time and threads. MNIST is 28 x 28 as it is;
README.md beside this file says what remains different.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import pathlib
import resource
import sys
import time

import numpy as np
import peers

SHAPE = (28, 28, 1)
N_DIM = math.prod(SHAPE)
CLIP_NORM = 50.0
ADAM_EPSILON = 1e-7
EVALUATION_BATCH = 250
SECONDS_PER_TIMING = 6.0
STEPS_PER_CALL = 4  # of tfflows, after which the clock is read
PUBLISHED = """
Published, from long training on GPUs: 1.06 (Real NVP) and 1.05 (Glow), as quoted by Grathwohl et al. (2019), FFJORD,
https://arxiv.org/abs/1810.01367.
"""
COLUMNS = {
    "library": "library",
    "weights": "weights",
    "steps": "steps",
    "first_step": "first step, s",
    "ms_per_step": "ms/step",
    "rows": "test images",
    "result": "test bits per dimension",
}
SPEED_COLUMNS = {
    "library": "library",
    "weights": "weights",
    "train_ms": "training step, ms",
    "sample_ms": "sampling a batch, ms",
    "megabytes": "peak memory, MB",
    "train_ratio": "training, times tfflows'",
    "sample_ratio": "sampling, times tfflows'",
}
NOTES = """
+- is two standard errors over the test images, each with one draw of the dequantizing noise. The training time includes
the first step, in which tfflows compiles. In pilot runs of 90 s a learning rate of 3e-3 was better than 1e-3
for all. The priors of the peers' scales are normals (normflows: with learned means and scales); those of tfflows are
conditioned on what stays, as in Glow.
"""
SPEED_NOTES = """
Medians; libraries took turns. Memory is the peak resident set of the process that trains with this batch.
"""


def load(folder: str) -> tuple[np.ndarray, np.ndarray]:
    """Training and test images `[n, 28, 28, 1]`, uint8."""
    path = pathlib.Path(folder) / "images" / "mnist.npz"
    if not path.exists():
        raise FileNotFoundError(f"Expected MNIST in {path}, as arrays x_train and x_test.")
    with np.load(path) as arrays:
        return tuple(arrays[name].reshape(-1, *SHAPE) for name in ("x_train", "x_test"))


class Tfflows:
    """Builds, trains, evaluates and times the way a user does."""

    packages = ("tfflows", "tensorflow", "keras")

    def __init__(self, settings: dict):
        import keras

        import tfflows

        keras.utils.set_random_seed(settings["seed"])
        self.keras, self.settings = keras, settings
        bijector = tfflows.Glow(SHAPE, levels=settings["levels"], steps=settings["steps"], hidden=settings["hidden"])
        self.flow = tfflows.FlowModel(bijector)
        self.n_weights = sum(math.prod(weight.shape) for weight in self.flow.trainable_weights)

    def train(self, x: np.ndarray, clock: peers.Budget) -> None:
        class Watch(self.keras.callbacks.Callback):
            def on_train_batch_end(self, batch, logs=None):
                rate = clock.step(STEPS_PER_CALL)
                if rate is None:
                    self.model.stop_training = True
                else:
                    self.model.optimizer.learning_rate = rate

        optimizer = self.keras.optimizers.Adam(1e-5, epsilon=ADAM_EPSILON, global_clipnorm=CLIP_NORM)
        self.flow.compile(optimizer, steps_per_execution=STEPS_PER_CALL)
        clock.start()
        batch_size = self.settings["batch_size"]
        self.flow.fit(x, batch_size=batch_size, epochs=10**9, callbacks=[Watch()], verbose=0)

    def bits(self, x: np.ndarray) -> np.ndarray:
        return -self.flow.log_prob(x, batch_size=EVALUATION_BATCH).numpy() / (N_DIM * math.log(2.0))

    def sample(self, n: int) -> None:
        self.flow.sample(n).numpy()


class Torch:
    """What the two peers have in common; a subclass sets `module` and has `log_prob` and `draw`."""

    def __init__(self, settings: dict):
        import torch

        torch.manual_seed(settings["seed"])
        self.torch, self.settings = torch, settings
        self.build(settings)
        self.n_weights = sum(p.numel() for p in self.module.parameters())

    def _noisy(self, x):
        x = self.torch.from_numpy(x.transpose(0, 3, 1, 2)).float()
        return (x + self.torch.rand_like(x)) / 256.0

    def train(self, x: np.ndarray, clock: peers.Budget) -> None:
        torch = self.torch
        parameters = list(self.module.parameters())
        optimizer = torch.optim.Adam(parameters, lr=1e-5, eps=ADAM_EPSILON, fused=True)
        self.module.train()
        clock.start()
        rate = 1e-5
        while rate is not None:
            for rows in np.array_split(np.random.permutation(len(x)), len(x) // self.settings["batch_size"]):
                loss = -self.log_prob(self._noisy(x[rows])).mean()
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(parameters, CLIP_NORM)
                optimizer.step()
                rate = clock.step()
                if rate is None:
                    break
                optimizer.param_groups[0]["lr"] = rate

    def bits(self, x: np.ndarray) -> np.ndarray:
        self.module.eval()
        with self.torch.no_grad():
            parts = [
                self.log_prob(self._noisy(x[i : i + EVALUATION_BATCH])).numpy()
                for i in range(0, len(x), EVALUATION_BATCH)
            ]
        return (math.log(256.0) - np.concatenate(parts) / N_DIM) / math.log(2.0)

    def sample(self, n: int) -> None:
        self.module.eval()
        with self.torch.no_grad():
            self.draw(n)
        self.module.train()


class Normflows(Torch):
    packages = ("normflows", "torch")

    def build(self, settings):
        import normflows as nf

        levels, (height, width, n_channels) = settings["levels"], SHAPE
        bases, flows, merges = [], [], []
        for i in range(levels):  # from the coarsest scale on
            channels = n_channels * 2 ** (levels + 1 - i)
            blocks = [nf.flows.GlowBlock(channels, settings["hidden"]) for _ in range(settings["steps"])]
            flows.append([*blocks, nf.flows.Squeeze()])
            if i > 0:
                merges.append(nf.flows.Merge())
            latent = channels // 2 if i > 0 else channels
            factor = 2 ** (levels - i)
            bases.append(nf.distributions.DiagGaussian((latent, height // factor, width // factor)))
        self.module = nf.MultiscaleFlow(bases, flows, merges, class_cond=False)

    def log_prob(self, x):
        return self.module.log_prob(x, None)

    def draw(self, n):
        return self.module.sample(n)


class Nflows(Torch):
    packages = ("nflows", "torch")

    def build(self, settings):
        from nflows import transforms
        from nflows.distributions import StandardNormal
        from nflows.flows import Flow

        nn = self.torch.nn
        hidden = settings["hidden"]

        class Net(nn.Sequential):
            """Glow's, with what nflows' couplings ask of a net; nflows has residual ones only."""

            def __init__(self, n_inputs, n_outputs):
                super().__init__(
                    nn.Conv2d(n_inputs, hidden, 3, padding=1),
                    nn.ReLU(),
                    nn.Conv2d(hidden, hidden, 1),
                    nn.ReLU(),
                    nn.Conv2d(hidden, n_outputs, 3, padding=1),
                )
                nn.init.zeros_(self[-1].weight)
                nn.init.zeros_(self[-1].bias)

            def forward(self, x, context=None):
                return super().forward(x)

        height, width, n_channels = SHAPE
        shape = (n_channels, height, width)
        multiscale = transforms.MultiscaleCompositeTransform(settings["levels"])
        for _ in range(settings["levels"]):
            squeeze = transforms.SqueezeTransform()
            channels, *plane = squeeze.get_output_shape(*shape)
            parts = [squeeze]
            for i in range(settings["steps"]):
                mask = (np.arange(channels) < channels // 2) ^ (i % 2 == 1)
                parts += [
                    transforms.ActNorm(channels),
                    transforms.OneByOneConvolution(channels),
                    transforms.AffineCouplingTransform(self.torch.from_numpy(mask.astype(np.int64)), Net),
                ]
            shape = multiscale.add_transform(transforms.CompositeTransform(parts), (channels, *plane))
        self.module = Flow(multiscale, StandardNormal([N_DIM]))

    def log_prob(self, x):
        return self.module.log_prob(x)

    def draw(self, n):
        return self.module.sample(n)


LIBRARIES = {"tfflows": Tfflows, "normflows": Normflows, "nflows": Nflows}


def work(settings: dict) -> dict:
    """One line of a table, measured in this process."""
    library = LIBRARIES[settings["library"]]
    peers.limit_threads(settings["library"], settings["threads"])
    train, test = load(settings["data"])
    model = library(settings)
    found = {"weights": model.n_weights, "versions": peers.versions(*library.packages)}
    clock = peers.Budget(settings["seconds"], settings["learning_rate"], warm_up=0.02)
    if settings["speed"]:
        model.train(train[:2048], clock)
        model.sample(settings["batch_size"])
        times = []
        while sum(times) < SECONDS_PER_TIMING or len(times) < 5:
            started = time.perf_counter()
            model.sample(settings["batch_size"])
            times.append(time.perf_counter() - started)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0
        return found | clock.report() | {"sample_ms": round(1e3 * float(np.median(times)), 1), "megabytes": round(peak)}
    model.train(train, clock)
    bits = model.bits(test)
    mean, two_errors = float(np.mean(bits)), float(2.0 * np.std(bits) / math.sqrt(len(bits)))
    if not math.isfinite(mean):
        raise FloatingPointError("the test bits per dimension are not finite")
    result = {"rows": len(bits), "bits": mean, "result": f"{mean:.4f} +- {two_errors:.4f}"}
    return found | clock.report() | result


def measure_speed(args, jobs) -> None:
    rows = {name: {"library": name, "train": [], "sample": [], "megabytes": []} for name in args.libraries}
    for _ in range(args.rounds):
        for name, (python, settings) in jobs.items():
            found = peers.run_worker(
                python, __file__, settings, n_threads=args.threads, timeout=600.0, cores=list(range(args.threads))
            )
            print(name, found, flush=True)
            if "error" in found:
                rows[name]["error"] = found["error"]
                continue
            rows[name]["weights"] = found["weights"]
            for key, value in (("train", "ms_per_step"), ("sample", "sample_ms"), ("megabytes", "megabytes")):
                rows[name][key].append(found[value])
    for row in rows.values():
        if "error" in row:
            continue
        for key in ("train", "sample"):
            row[f"{key}_ms"] = round(float(np.median(row[key])), 1)
            row[f"{key}_ratio"] = f"{np.median(row[key]) / np.median(rows['tfflows'][key]):.2f}"
        row["megabytes"] = int(np.median(row["megabytes"]))
    title = f"Glow on {SHAPE[0]} x {SHAPE[1]} images: speed"
    facts = vars(args) | peers.machine()
    with contextlib.suppress(KeyError):
        del facts["data"]
    peers.write_results(peers.RESULTS / "images_speed", title, SPEED_COLUMNS, list(rows.values()), facts, SPEED_NOTES)


def measure_quality(args, jobs) -> None:
    keys = ("library", "minutes", "threads")
    rows = [{"library": name, "minutes": args.minutes, "threads": args.threads} for name in LIBRARIES]
    chosen = [row for row in rows if row["library"] in jobs]
    path = peers.RESULTS / "images"
    timeout = 60.0 * args.minutes + 1200.0
    for i, found in peers.run_workers(
        __file__, list(jobs.values()), at_once=args.at_once, n_threads=args.threads, timeout=timeout
    ):
        chosen[i] |= found
        print(chosen[i], flush=True)
    peers.fill_from_last(path, [row for row in rows if row not in chosen], keys)
    title = f"MNIST in {args.minutes:g} minutes: Glow"
    facts = vars(args) | peers.machine()
    del facts["data"]
    peers.write_results(path, title, COLUMNS, rows, facts, NOTES + PUBLISHED)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("TFFLOWS_DATA"), help="folder of the data, or TFFLOWS_DATA")
    parser.add_argument("--speed", action="store_true", help="measure speed and memory in place of quality")
    parser.add_argument("--minutes", type=float, default=60.0, help="training time of each model")
    parser.add_argument("--libraries", nargs="+", choices=LIBRARIES, default=list(LIBRARIES))
    parser.add_argument("--levels", type=int, default=2)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--at-once", type=int, default=1, help="models that train at the same time, for quality")
    parser.add_argument("--rounds", type=int, default=3, help="of the timings")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peer-python", help="a Python with the peers; else one is installed into .peers/")
    args = parser.parse_args()
    if args.data is None:
        parser.error("give the folder of the data with --data")
    jobs = {}
    for name in args.libraries:
        python = sys.executable if name == "tfflows" else peers.peer_python(args.peer_python)
        settings = vars(args) | {"library": name, "seconds": 45.0 if args.speed else 60.0 * args.minutes}
        jobs[name] = (python, settings)
    del args.peer_python
    (measure_speed if args.speed else measure_quality)(args, jobs)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        print(json.dumps(work(json.loads(sys.argv[2]))))
    else:
        main()
