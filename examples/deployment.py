"""Trained flows for where Python is not: what a server, a phone and a page need, and a picture and a card of each.

    python examples/deployment.py                                    # all three into saved_models/
    python examples/deployment.py two_moons --quick --output DIR     # one, hardly trained, in seconds

Each folder gets version 1 of a SavedModel as TensorFlow Serving wants it (`1/`), a `.tflite` file, the flow as
`.keras`, a PNG of what it models and a model card. Both exports are compared with the flow, number by number.
`two_moons` is trained here; the others were by their own examples, and are loaded.
"""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import keras
import matplotlib
import numpy as np

from tfflows import FlowModel, RealNVP, atomic, datasets, export, load_model, plot

matplotlib.use("Agg")
from matplotlib import pyplot as plt

SAVED_MODELS = Path(__file__).parents[1] / "saved_models"
N_VERIFIED = 1000
N_JOINED = 8  # ways from a digit to another in the picture


class Exhibit(NamedTuple):
    """A flow to deploy.

    Args:
      flow: of the `.keras` file's path and of whether it must be quick; returns the `FlowModel`.
      data: held-out rows, and their context or None.
      draw: of the flow, the held-out rows and the path, writes the picture.
      what: the card's first paragraph.
      made: how the flow was made.
      source: where the data are from, and their licence.
      limits: what it is not for.
    """

    flow: Callable
    data: Callable
    draw: Callable
    what: str
    made: str
    source: str
    limits: str


def moons(path: Path, quick: bool) -> FlowModel:
    keras.utils.set_random_seed(0)
    flow = FlowModel(RealNVP(2))
    flow.fit(datasets.TwoMoons().sample(500 if quick else 20_000, seed=0), epochs=2 if quick else None, verbose=0)
    FlowModel(flow.bijector, name="two_moons").save(path)  # without the optimizer's state
    return flow


def loaded(path: Path, quick: bool) -> FlowModel:
    flow = load_model(SAVED_MODELS / path.parent.name / path.name)
    FlowModel(flow.bijector, flow.base, name=path.stem).save(path)  # without the optimizer's state
    return flow


def digits_data():
    data = datasets.digits()
    return data.test.astype(np.float32), np.eye(10, dtype=np.float32)[data.test_labels]


def draw_plane(flow, x, path, *, labels, limits, degrees=False):
    """Held-out rows, the log-density and samples, side by side."""
    unit = np.degrees if degrees else np.asarray
    figure, axes = plt.subplots(1, 3, figsize=(12, 4.2), sharex=True, sharey=True, layout="constrained")
    sides = [np.linspace(*limit, 201) for limit in limits]
    centres = [0.5 * (side[1:] + side[:-1]) for side in sides]
    grid = np.stack(np.meshgrid(*centres), axis=-1).reshape(-1, 2)
    log_density = flow.log_prob(grid).numpy().reshape(200, 200)
    shown = axes[1].pcolormesh(
        *map(unit, sides), log_density, vmin=log_density.max() - 10.0, cmap="viridis", rasterized=True
    )
    figure.colorbar(shown, ax=axes[1], label="log-density [nats]", extend="min")
    for axis, points, title in ((axes[0], x, "held-out data"), (axes[2], flow.sample(len(x), seed=0), "samples")):
        axis.plot(*unit(np.asarray(points)).T, ".k", markersize=1.5, alpha=0.4)
        axis.set_title(f"{title}: {len(x):,}")
    axes[1].set_title("the flow")
    for axis in axes:
        axis.set(xlabel=labels[0], xlim=unit(limits[0]), ylim=unit(limits[1]))
    axes[0].set_ylabel(labels[1])
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_moons(flow, x, context, path):
    draw_plane(flow, x[:2000], path, labels=("x", "y"), limits=((-1.8, 2.8), (-1.4, 1.9)))


def draw_angles(flow, x, context, path):
    circle = (-np.pi, np.pi)
    labels = ("phi [degrees]", "psi [degrees]")
    draw_plane(flow, x[:4000], path, labels=labels, limits=(circle, circle), degrees=True)


def draw_digits(flow, x, context, path):
    """Samples by class above, ways between images below."""
    asked = np.repeat(np.arange(10), 3)
    samples = flow.sample(1, asked, seed=1, temperature=0.7).numpy().reshape(10, 3, *x.shape[1:])
    second = N_JOINED + 1 + np.arange(3)
    ways = flow.interpolate(x[:3], x[second], 10, (context[:3], context[second])).numpy()
    strips = np.concatenate([samples.swapaxes(0, 1), ways])
    plot.images(strips, rows=["sample"] * 3 + ["way"] * 3, title="samples of 0 to 9; between two images", path=path)


EXHIBITS = {
    "two_moons": Exhibit(
        moons,
        lambda: (datasets.TwoMoons().sample(10_000, seed=1).astype(np.float32), None),
        draw_moons,
        "Two half circles with noise: a toy density, known everywhere. Of the held-out rows its own log_prob is "
        f"{datasets.TwoMoons().log_prob(datasets.TwoMoons().sample(10_000, seed=1)).mean():.4f} nats on average.",
        "`RealNVP` with default arguments, fitted to 20,000 points by `fit(x)` with default arguments.",
        "`tfflows.datasets.TwoMoons`, drawn by a formula.",
        "A toy: to try a server with, and to measure how fast one is.",
    ),
    "alanine_dipeptide": Exhibit(
        loaded,
        lambda: (datasets.alanine_dipeptide().test, None),
        draw_angles,
        "The two backbone torsion angles (phi, psi), in radians in [-pi, pi), of alanine dipeptide in water-like "
        "surroundings at room temperature: -log_prob is its free energy in units of kT, up to a constant.",
        "`CouplingRQNSF` with circular splines on the torus, by `examples/alanine_dipeptide.py`, fitted to two runs of "
        "molecular dynamics; the numbers here are of the third.",
        "`tfflows.datasets.alanine_dipeptide`; source and licence are in `tfflows/data/`.",
        "Barriers that three runs of molecular dynamics have not crossed are unknown to the flow too.",
    ),
    "digits": Exhibit(
        loaded,
        digits_data,
        draw_digits,
        "Handwritten digits, 28 x 28 grey pixels from 0 to 255, by class: the context is the class, one-hot `[n, 10]`. "
        "log_prob of an image is in nats; divided by -784 log 2 it is bits per dimension.",
        "`Glow` with two scales of 8 steps, by `examples/images.py digits`, trained on all of MNIST for 13 minutes of "
        "one processor.",
        "`tfflows.datasets.digits`, images of MNIST (Y. LeCun, C. Cortes, C. Burges); licence in `tfflows/data/`.",
        "Small enough to ship: samples show what a short training gives. A low log_prob says that an image is rare "
        "pixel by pixel, not that it shows no digit.",
    ),
}

CARD = """# {name}

![what {name} models]({name}.png)

{what}

| | |
|---|---|
| made by | {made} |
| data | {source} |
| held-out log_prob | {score:.4f} nats on average; 1 % of the rows are below {threshold:.2f}: outliers |
| weights | {n_weights:,} numbers of float32 |
| files | `1/` SavedModel (variables {variables} kB), `{name}.tflite` {tflite} kB, `{name}.keras` {keras} kB |
| not for | {limits} |

## Signatures

Rows are any number, `n`, and equal in all inputs and outputs of a call. A `seed` below 0 draws anew each time.

{signatures}

## Parity with the flow

Largest difference over 1, 7 and {n} held-out rows, relative to the largest number:

{parity}

## Use

With TensorFlow Serving (`examples/serving/` has the rest):

```
curl -d '{request}' http://localhost:8501/v1/models/{name}:predict
```

In Python and on phones the `.tflite` file has the same signatures (for browsers export one with `batch_size=`):

```
from ai_edge_litert.interpreter import Interpreter
log_prob = Interpreter("{name}.tflite").get_signature_runner("log_prob")
```
"""


def card(name: str, exhibit: Exhibit, flow, x, context, folder: Path, reports: list[export.Parity]) -> str:
    scores = flow.log_prob(x, context).numpy()
    lines = ["| signature | inputs | outputs |", "|---|---|---|"]
    for signature, (_, inputs) in export.signatures(flow).items():
        outputs = ", ".join(f"`{key}`" for key in OUTPUTS[signature])
        shapes = ", ".join(f"`{s.name}` {_shape(s)} {s.dtype.name}" for s in inputs)
        lines.append(f"| `{signature}` | {shapes} | {outputs} |")
    parity = ["| runtime | signature | difference |", "|---|---|---|"]
    parity += [f"| {r} | {s} | {d:.1e} |" for r, s, d in reports]
    instance = {"x": np.round(x[0].astype(np.float64), 3).tolist()} | (
        {} if context is None else {"context": context[0].tolist()}
    )
    request = json.dumps({"signature_name": "log_prob", "instances": [instance]})
    if len(request) > 200:
        request = (
            '{"signature_name": "log_prob", "instances": [{"x": [[[0.0], ...], ...], "context": [0.0, 1.0, ...]}]}'
        )
    kilobytes = {p: round(p.stat().st_size / 1000) for p in folder.rglob("*") if p.is_file()}
    return CARD.format(
        name=name,
        what=textwrap.fill(exhibit.what, 120),
        made=exhibit.made,
        source=exhibit.source,
        limits=exhibit.limits,
        score=scores.mean(),
        threshold=np.quantile(scores, 0.01),
        n_weights=sum(int(np.prod(w.shape)) for w in flow.weights),
        variables=kilobytes[folder / "1" / "variables" / "variables.data-00000-of-00001"],
        tflite=kilobytes[folder / f"{name}.tflite"],
        keras=kilobytes[folder / f"{name}.keras"],
        signatures="\n".join(lines),
        n=N_VERIFIED,
        parity="\n".join(parity),
        request=request,
    )


OUTPUTS = {"log_prob": ["log_prob"], "sample": ["x"], "encode": ["z"], "decode": ["x"], "interpolate": ["x"]}


def _shape(spec):
    return "[" + ", ".join("n" if n is None else str(n) for n in spec.shape) + "]"


def main(names: list[str], output: Path, *, quick: bool) -> None:
    for name in names:
        exhibit, folder = EXHIBITS[name], output / name
        folder.mkdir(parents=True, exist_ok=True)
        flow = exhibit.flow(folder / f"{name}.keras", quick)
        x, context = exhibit.data()
        paths = {"tf_saved_model": folder / "1", "litert": folder / f"{name}.tflite"}
        reports = []
        for format, path in paths.items():
            flow.export(path, format, overwrite=True)
            reports += export.verify(path, flow, x[:N_VERIFIED], None if context is None else context[:N_VERIFIED])
        for report in reports:
            print(f"{name}: {report.runtime}, {report.signature}: differs by {report.difference:.1e}")
        exhibit.draw(flow, x, context, folder / f"{name}.png")
        text = card(name, exhibit, flow, x, context, folder, reports)
        with atomic.replacing(folder / "README.md") as made:
            made.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*EXHIBITS, []], default=list(EXHIBITS), help="which; all if none")
    parser.add_argument("--output", type=Path, help="folder of the flows' folders, saved_models/ by default")
    parser.add_argument("--quick", action="store_true", help="hardly any training")
    arguments = parser.parse_args()
    if arguments.quick and arguments.output is None:
        parser.error("give an --output with --quick, which would replace good flows")
    main(arguments.names or list(EXHIBITS), arguments.output or SAVED_MODELS, quick=arguments.quick)
