"""Point clouds: chairs that no one has built, by a flow of shapes and a flow of points.

    python examples/gallery/point_clouds.py [--output DIR] [--quick]

How real are they? A classifier that calls each cloud what its nearest other cloud is, new or held out, should do no
better than a coin: 1-NN accuracy 0.5. Beside the flow stand other generated chairs, which are as good as new
ones can be, and clouds of points drawn from a Gaussian with each held-out chair's covariance, which look like eggs.
Larger, with planes and meshes of yours: examples/point_clouds.py.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from gallery import falling, run

from tfflows import FlowModel, MaskedAutoregressiveRQNSF, PointCloudFlow, RealNVP, SoftFlow, clouds, datasets, plot

LATENT = 32
VIEWS = ((25, -55),)  # elevation and azimuth in degrees


def fit(x, *, quick: bool) -> PointCloudFlow:
    sizes = {"n_layers": 2, "hidden": (16,)} if quick else {"n_layers": 4, "hidden": (96, 96)}
    preset = RealNVP if quick else MaskedAutoregressiveRQNSF
    points = SoftFlow(3, preset=preset, max_noise=0.075, context_dim=LATENT, **sizes)
    flow = PointCloudFlow(FlowModel(points), FlowModel(RealNVP(LATENT, **sizes)), n_points=x.shape[1])
    epochs = 1 if quick else 12
    flow.compile(falling(2e-3, len(x), epochs, 32))
    flow.fit(x, batch_size=32, epochs=epochs, verbose=0)
    return flow


def eggs(x) -> np.ndarray:
    """For each cloud `[P, 3]` as many Gaussian points, with its mean and covariance."""
    rng = np.random.default_rng(0)
    return np.stack([rng.multivariate_normal(c.mean(axis=0), np.cov(c.T), len(c)) for c in x]).astype(np.float32)


def main(output: Path, *, quick: bool) -> None:
    n_points = 64 if quick else 512
    x, held_out = (
        datasets.chairs(32 if quick else 1500, n_points, seed=0),
        datasets.chairs(8 if quick else 60, n_points, seed=1),
    )
    flow = fit(x, quick=quick)
    sets = {
        "flow": flow.sample(len(held_out), n_points, seed=1).numpy(),
        "other chairs": datasets.chairs(len(held_out), n_points, seed=2),
        "Gaussians": eggs(held_out),
    }
    for name, new in sets.items():
        print(f"{name}: {clouds.evaluate(new, held_out)}", flush=True)
    again = flow.reconstruct(held_out[:7], seed=0).numpy()
    way = flow.interpolate(held_out[0], held_out[1], 7, seed=0).numpy()
    plot.clouds(
        np.stack([held_out[:7], again, sets["flow"][:7], way]),
        rows=["held out", "decoded", "new", "a way"],
        views=VIEWS,
        title="chairs",
        path=output / "point_clouds.png",
    )
    print(f"Picture: {output / 'point_clouds.png'}")


if __name__ == "__main__":
    run(main, __doc__)
