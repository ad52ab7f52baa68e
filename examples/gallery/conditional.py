"""A conditional density: the distribution of y given x, where it spreads, splits in two and joins again.

    python examples/gallery/conditional.py [--output DIR] [--quick]

The truth is known, so the flow's distance from it is a number, in nats for each y. Beside it stands what is used most:
a Gaussian whose mean and deviation are functions of x, by the same nets (one affine layer). Both are then asked what
can be asked without a truth: whether 50 % of the held-out y lie in the central 50 % of what is predicted, and so on
(coverage), and whether P(Y <= y | x) is uniform (calibration). Both can be right on average over x and wrong at each.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from gallery import falling, run, save, with_error
from matplotlib import pyplot as plt
from scipy import stats

from tfflows import CouplingRQNSF, FlowModel, RealNVP, plot


def truth(x):
    """Two normals of equal weight: half their distance `[n, 1]`, their centre, and their deviation."""
    return 2.0 * np.maximum(0.0, np.sin(x)), 0.5 * x, 0.15 + 0.3 * np.cos(0.5 * x) ** 2


def draw_truth(n: int, seed: int):
    """x uniform in [-6, 6] and y, float32 `[n, 1]` each."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-6.0, 6.0, (n, 1))
    half, centre, deviation = truth(x)
    y = centre + half * rng.choice([-1.0, 1.0], (n, 1)) + deviation * rng.normal(size=(n, 1))
    return x.astype(np.float32), y.astype(np.float32)


def true_log_prob(y, x) -> np.ndarray:
    half, centre, deviation = truth(x.astype(np.float64))
    each = [stats.norm.logpdf(y, centre + sign * half, deviation) for sign in (-1.0, 1.0)]
    return (np.logaddexp(*each) - np.log(2.0))[:, 0]


def fit(bijector, y, x, *, quick: bool = False) -> FlowModel:
    """The flow of y with context x."""
    flow = FlowModel(bijector)
    epochs = 1 if quick else 60
    flow.compile(falling(3e-3, len(y), epochs))
    flow.fit(y, x, epochs=epochs, verbose=0)
    return flow


def below(flow, y, x) -> np.ndarray:
    """P(Y <= y | x), `[n]`: uniform if the flow is right."""
    return flow.cdf(y, x).numpy()


def draw(x, y, flows, uniforms):
    figure, axes = plt.subplots(1, 4, figsize=(15, 3.9), layout="constrained", width_ratios=(1.2, 1.2, 1, 1))
    xs, ys = np.linspace(-6.0, 6.0, 161), np.linspace(-6.5, 6.5, 161)
    grid = np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2).astype(np.float32)
    for axis, (name, flow) in zip(axes, flows.items(), strict=False):
        density = np.exp(flow.log_prob(grid[:, 1:], grid[:, :1]).numpy()).reshape(161, 161)
        axis.pcolormesh(xs, ys, density, cmap="Greys", vmax=1.2, rasterized=True)
        axis.scatter(x[:1000], y[:1000], s=2, color="tab:orange", linewidths=0, rasterized=True)
        axis.set(xlabel="x", ylabel="y", title=f"p(y | x) of the {name}, and data")
    for (name, u), style in zip(uniforms.items(), ("-", "--"), strict=True):
        axes[2].hist(u, 25, density=True, histtype="step", color="k", linestyle=style, label=name)
    axes[2].axhline(1.0, color="tab:orange", linewidth=4, alpha=0.5, zorder=0)
    axes[2].set(xlabel="P(Y <= y | x) of held-out y", ylabel="density", title="calibration", ylim=(0.0, None))
    for name, flow in flows.items():
        plot.coverage(flow, y[:2000], x[:2000], label=name, title="coverage", ax=axes[3])
    axes[2].legend(frameon=False, loc="lower center")
    axes[3].legend(frameon=False)
    return figure


def main(output: Path, *, quick: bool) -> None:
    x, y = draw_truth(500 if quick else 20_000, seed=0)
    x_test, y_test = draw_truth(500 if quick else 20_000, seed=1)
    hidden = (16,) if quick else (64, 64)
    flows = {
        "flow": fit(CouplingRQNSF(1, n_layers=1 if quick else 2, hidden=hidden, context_dim=1), y, x, quick=quick),
        "Gaussian": fit(RealNVP(1, n_layers=1, hidden=hidden, context_dim=1), y, x, quick=quick),
    }
    print(f"{'':<10}{'nats from the truth':>20}{'in the 50 % interval':>22}{'90 %':>8}{'KS of P(Y <= y | x)':>21}")
    uniforms = {}
    for name, flow in flows.items():
        away = true_log_prob(y_test, x_test) - flow.log_prob(y_test, x_test).numpy()
        u = uniforms[name] = below(flow, y_test, x_test)
        half, most = (np.mean(np.abs(u - 0.5) < 0.5 * level) for level in (0.5, 0.9))
        ks = stats.kstest(u, "uniform").statistic
        print(f"{name:<10}{with_error(away):>20}{half:>22.1%}{most:>8.1%}{ks:>21.4f}")
    save(draw(x_test, y_test, flows, uniforms), output / "conditional.png")


if __name__ == "__main__":
    run(main, __doc__)
