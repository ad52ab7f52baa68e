"""What the page needs of four flows: `.tflite` files, what to draw beside them, and Python's numbers for the test.

    python examples/web/build.py    # two or three minutes, into examples/web/models/

LiteRT.js takes no dynamic number of rows, so each file has a fixed one, and the page fills up the last batch.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from tfflows import FlowModel, PointCloudFlow, datasets, load_model

HERE = Path(__file__).resolve().parent
# Of a batch: the page asks for one point when it is dragged, for many to draw; a cloud is many rows by itself.
N_ROWS = {"plane": 256, "images": 8, "clouds": 1}
N_DRAWN = 800
N_COMPARED = 300  # more than one batch, and no multiple of one
N_STEPS = 41  # images or clouds on a way
IMAGES = [
    (0, 2),
    (1, 1),
    (2, 1),
    (3, 1),
    (4, 0),
    (4, 7),
    (5, 1),
    (6, 1),
    (7, 0),
    (7, 4),
    (8, 2),
    (9, 1),
]  # class, which
ENDS = (9, 3)  # the two images that the page starts with
FULL_TURN = {
    "low": [-np.pi] * 2,
    "high": [np.pi] * 2,
    "periodic": True,
    "degrees": True,
    "ticks": [-180, -90, 0, 90, 180],
}

# What is drawn and how far an arrow key goes. `guide` is what the page draws into latent space, to see it bent.
PLANES = {
    "two_moons": {
        "title": "Two moons",
        "about": "A RealNVP flow. It bends a round normal distribution into two half circles.",
        "latent": {
            "labels": ["z₁", "z₂"],
            "low": [-3.5, -3.5],
            "high": [3.5, 3.5],
            "periodic": False,
            "degrees": False,
            "ticks": [-3, -2, -1, 0, 1, 2, 3],
            "start": [0.8, 0.6],
            "step": 0.1,
            "guide": "rings",
            "note": "The strong rings hold 39, 86 and 99 % of a normal distribution; the dots are 400 draws.",
        },
        "data": {
            "labels": ["x₁", "x₂"],
            "low": [-1.8, -1.4],
            "high": [2.8, 1.9],
            "periodic": False,
            "degrees": False,
            "ticks": [-1, 0, 1, 2],
            "start": [0.5, 0.25],
            "step": 0.05,
        },
        "points": {"typical": [0.0, 1.0], "far": [2.5, 1.6]},
    },
    "alanine_dipeptide": {
        "title": "Alanine dipeptide",
        "about": "A spline flow on a torus. It moves a uniform distribution to the two backbone angles that a molecule "
        "likes. Left and right edge are the same, and so are top and bottom.",
        "latent": FULL_TURN
        | {
            "labels": ["z₁", "z₂"],
            "start": [0.0, 0.0],
            "step": np.pi / 36,
            "guide": "square",
            "note": "Every square is as probable as any other; the dots are 400 draws.",
        },
        "data": FULL_TURN | {"labels": ["φ", "ψ"], "start": [-np.pi / 2, 5 * np.pi / 6], "step": np.pi / 36},
        "points": {"typical": [-1.4, 2.7], "far": [2.2, -1.6]},
    },
}
DIGITS_ABOUT = (
    "A Glow flow of handwritten digits. It encodes both images, goes along an arc in latent space, and decodes. "
    "Mixing the pixels instead gives a double exposure, often an outlier. The model is small: some ways dissolve."
)
CLOUDS_ABOUT = (
    "A flow of shapes, each a cloud of {n} points in space. One flow draws what shape it is, another its points. They "
    "learned from planes and chairs that a program makes. Drag a shape to turn it."
)
SHAPES = ["plane", "chair"]  # by label
WAYS = [
    ("From one chair to another", (1, 0), (1, 1)),
    ("From one plane to another", (0, 5), (0, 6)),
    ("From a plane to a chair", (0, 0), (1, 0)),
]  # and the ends: label, which of those held out


def held_out(name: str) -> np.ndarray:
    """The rows that the flow has not seen; the same as in its model card."""
    if name == "two_moons":
        return datasets.TwoMoons().sample(10_000, seed=1).astype(np.float32)
    return datasets.alanine_dipeptide().test


def numbers(array, digits: int = 9) -> list:
    """Nested lists; 9 digits are enough for a float32 to come back as it was."""
    array = np.asarray(array, np.float64)
    return np.vectorize(lambda v: float(f"{v:.{digits}g}"), otypes=[float])(array).tolist()


def plane(name: str, flow: FlowModel) -> tuple[dict, dict]:
    """What models.json and expected.json say of a flow of two numbers."""
    looks, x = PLANES[name], held_out(name)
    scores = flow.log_prob(x).numpy()
    entry = {
        "kind": "plane",
        "rows": N_ROWS["plane"],
        "title": looks["title"],
        "about": looks["about"],
        "latent": looks["latent"],
        "data": looks["data"],
        "n_held_out": len(x),
        "quantiles": numbers(np.quantile(scores, np.linspace(0.0, 1.0, 101))),
        "held_out": numbers(x[:: len(x) // N_DRAWN], 5),
    }

    def presses(axes: dict, right: int, up: int) -> np.ndarray:
        return np.asarray(axes["start"]) + np.array([right, up]) * axes["step"]

    compared = x[:: len(x) // N_COMPARED][:N_COMPARED]
    z = flow.encode(compared).numpy()
    marks = np.array([*looks["points"].values(), presses(looks["data"], 4, -3)], np.float32)
    moved = presses(looks["latent"], 3, 2).astype(np.float32)
    expected = {
        "x": numbers(compared),
        "log_prob": numbers(flow.log_prob(compared)),
        "z": numbers(z),
        "decoded": numbers(flow.decode(z)),
        # Arrow keys in latent space: 3 to the right, 2 up.
        "drag": {"right": 3, "up": 2, "z": numbers(moved), "x": numbers(flow.decode(moved[np.newaxis])[0])},
        # In the plane of the data: 4 to the right, 3 down.
        "cursor": {"right": 4, "up": -3, "x": numbers(marks[2]), "log_prob": numbers(flow.log_prob(marks)[2])},
        "typical": {"x": numbers(marks[0]), "log_prob": numbers(flow.log_prob(marks)[0])},
        "far": {"x": numbers(marks[1]), "log_prob": numbers(flow.log_prob(marks)[1])},
    }
    return entry, expected


def images(flow: FlowModel) -> tuple[dict, dict]:
    """The same of the flow of digits."""
    data = datasets.digits()
    rows = [int(np.flatnonzero(data.test_labels == label)[which]) for label, which in IMAGES]
    x, labels = data.test[rows], data.test_labels[rows]
    one_hot = np.eye(10, dtype=np.float32)
    scores = flow.log_prob(data.test.astype(np.float32), one_hot[data.test_labels]).numpy()
    entry = {
        "kind": "images",
        "rows": N_ROWS["images"],
        "title": "Handwritten digits",
        "about": DIGITS_ABOUT,
        "n_held_out": len(scores),
        "outlier_below": float(np.quantile(scores, 0.01)),
        "shape": list(x.shape[1:]),
        "n_classes": 10,
        "n_steps": N_STEPS,
        "ends": list(ENDS),
        "images": [{"label": int(k), "pixels": pixels.ravel().tolist()} for k, pixels in zip(labels, x, strict=True)],
    }
    pixels, context = x.astype(np.float32), one_hot[labels]
    first, second = ENDS
    way = flow.interpolate(pixels[first], pixels[second], N_STEPS, (context[first], context[second])).numpy()
    middle = way[N_STEPS // 2]
    # The exported interpolate has one context for both ends.
    same = flow.interpolate(pixels[4], pixels[5], 3, context[4]).numpy()[1]
    expected = {
        "log_prob": numbers(flow.log_prob(pixels, context)),
        "z_first": numbers(flow.encode(pixels[:1], context[:1])[0]),
        "middle": numbers(middle.ravel()),
        "interpolated": {"ends": [4, 5], "t": 0.5, "x": numbers(same.ravel())},
    }
    return entry, expected


def shapes(flow: PointCloudFlow) -> tuple[dict, dict]:
    """The same of the flow of clouds."""
    n = 1 + max(which for _, *ends in WAYS for _, which in ends)
    x = np.stack([datasets.planes(n, seed=1), datasets.chairs(n, seed=1)])  # not the seeds it was trained with
    latents = np.stack([flow.encode(each) for each in x])
    ways = []
    for title, first, second in WAYS:
        way = flow.prior.interpolate(latents[first], latents[second], N_STEPS, (first[0], second[0]))
        ways.append({"title": title, "ends": [SHAPES[first[0]], SHAPES[second[0]]], "latents": numbers(way, 6)})
    entry = {
        "kind": "clouds",
        "rows": N_ROWS["clouds"],
        "title": "Planes and chairs",
        "about": CLOUDS_ABOUT.format(n=f"{flow.n_points:,}"),
        "shapes": SHAPES,
        "n_points": flow.n_points,
        "radius": float(np.median(np.linalg.norm(x, axis=-1).max(axis=-1))),
        "seed": 0,  # of the points on a way: one for all of it, so that each point moves smoothly
        "ways": ways,
    }

    # `flow.sample` and `flow.decode` draw otherwise than an export, whose rows have a seed each.
    exported = flow._signatures(N_ROWS["clouds"])

    def run(name, **inputs):
        return numbers(exported[name].function(**inputs)["x"][0])

    seed, temperature, label, step = 4, 0.8, 1, 15
    sample = run(
        "sample",
        seed=np.array([seed], np.int32),
        temperature=np.array([temperature], np.float32),
        context=np.eye(len(SHAPES), dtype=np.float32)[[label]],
    )
    latent = ways[0]["latents"][step]
    decoded = run("decode", latent=np.array([latent], np.float32), seed=np.array([entry["seed"]], np.int32))
    expected = {
        "sample": {"seed": seed, "temperature": temperature, "label": label, "x": sample},
        "decode": {"step": step, "latent": latent, "x": decoded},
    }
    return entry, expected


def main(saved_models: Path, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    models, expected = {}, {}
    others = {"digits": images, "point_clouds": shapes}
    for name in (*PLANES, *others):
        flow = load_model(saved_models / name / f"{name}.keras")
        entry, expected[name] = plane(name, flow) if name in PLANES else others[name](flow)
        models[name] = {"file": f"{name}.tflite", **entry}
        flow.export(output / f"{name}.tflite", "litert", batch_size=entry["rows"], overwrite=True)
    for file, content in (("models.json", models), ("expected.json", expected)):
        (output / file).write_text(json.dumps(content, separators=(",", ":")), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--saved-models", type=Path, default=HERE.parents[1] / "saved_models", help="folder of the flows' folders"
    )
    parser.add_argument("--output", type=Path, default=HERE / "models", help="where the page looks for them")
    arguments = parser.parse_args()
    main(arguments.saved_models, arguments.output)
