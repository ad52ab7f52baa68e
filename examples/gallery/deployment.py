"""From a fitted flow to files that run without it: a SavedModel for servers, a TFLite file for phones.

    python examples/gallery/deployment.py [--output DIR] [--quick]

Both are compared with the flow, number by number; then the TFLite file alone draws and judges, as it would on a phone.
The TFLite file is also written with weights of 16 and of 8 bits, and what that costs is measured: in nats on held-out
data. Serving by Docker, a browser and model cards: examples/deployment.py, examples/serving, examples/web.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
from gallery import falling, run, save, with_error
from matplotlib import pyplot as plt

from tfflows import FlowModel, RealNVP, datasets, export

TRUTH = datasets.TwoMoons()


def fit(x, *, quick: bool) -> FlowModel:
    flow = FlowModel(RealNVP(2, n_layers=2 if quick else 8, hidden=(64, 64)))
    epochs = 1 if quick else 60
    flow.compile(falling(3e-3, len(x), epochs))
    flow.fit(x, epochs=epochs, verbose=0)
    return flow


def kilobytes(path: Path) -> float:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file()) / 1000.0


def microseconds(function, rows, n_calls: int = 200) -> float:
    """Of one call with one row, the median."""
    times = []
    for i in range(n_calls):
        start = time.perf_counter()
        function(rows[i % len(rows)][None])
        times.append(time.perf_counter() - start)
    return 1e6 * float(np.median(times))


def draw(run_file, x, drawn, differences):
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.0, 4.0), layout="constrained", width_ratios=(1.2, 1))
    xs, ys = np.linspace(-2.0, 3.0, 151), np.linspace(-1.5, 2.0, 106)
    grid = np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2).astype(np.float32)
    log_prob = run_file("log_prob", x=grid)["log_prob"].reshape(106, 151)
    left.pcolormesh(xs, ys, np.exp(log_prob), cmap="Greys", rasterized=True)
    left.scatter(*drawn[:1500].T, s=3, color="tab:orange", linewidths=0, rasterized=True, label="draws")
    left.set(xlabel="x1", ylabel="x2", title="density and draws of the TFLite file", aspect="equal")
    left.legend(frameon=False)
    bins = np.geomspace(1e-8, 1.0, 60)
    for (name, values), style in zip(differences.items(), ("-", "--", ":"), strict=True):
        right.hist(np.clip(np.abs(values), 1e-8, 1.0), bins, histtype="step", color="k", linestyle=style, label=name)
    right.set(xscale="log", xlabel="difference to the flow's log-density, nats", ylabel="held-out rows",
              title="what fewer bits cost")  # fmt: skip
    right.legend(frameon=False)
    return figure


def main(output: Path, *, quick: bool) -> None:
    x, test = TRUTH.sample(500 if quick else 20_000, seed=0), TRUTH.sample(500 if quick else 5000, seed=1)
    flow = fit(x, quick=quick)
    log_prob = flow.log_prob(test).numpy()
    away = TRUTH.log_prob(test) - log_prob
    print(f"The flow, {flow.count_params():,} weights: {with_error(away)} nats from the truth.")
    differences = {}
    with tempfile.TemporaryDirectory() as folder:
        saved_model = Path(folder) / "1"
        flow.export(saved_model)
        lite = {bits: Path(folder) / f"{bits}.tflite" for bits in ("float32", "float16", "int8")}
        for bits, path in lite.items():
            flow.export(path, "litert", **({} if bits == "float32" else {"weights": bits}))
        for path in (saved_model, lite["float32"]):
            worst = max(export.verify(path, flow, test[:100]), key=lambda parity: parity.difference)
            print(f"{path.name}: {kilobytes(path):.0f} kB, differs from the flow by {worst.difference:.0e} at most.")
        for bits, path in lite.items():
            found = export.runner(path)("log_prob", x=test)["log_prob"]
            differences[f"{bits}, {kilobytes(path):.0f} kB"] = found - log_prob
            print(
                f"{bits:<8}{kilobytes(path):>6.0f} kB, {with_error(TRUTH.log_prob(test) - found)} nats from the truth."
            )
        run_file = export.runner(lite["float32"])
        seeds = np.arange(len(test), dtype=np.int32)
        drawn = run_file("sample", seed=seeds, temperature=np.ones(len(test), np.float32))["x"]
        of_file = microseconds(lambda row: run_file("log_prob", x=row), test)
        of_flow = microseconds(flow.log_prob, test)
        print(f"One row's log-density: {of_file:.0f} us by the TFLite file, {of_flow:.0f} us by the flow in Python.")
        save(draw(run_file, x, drawn, differences), output / "deployment.png")


if __name__ == "__main__":
    run(main, __doc__)
