"""What Glow makes of real images: reconstructions, samples, and the way from one image to another.

    python examples/images.py digits                    # handwritten digits by class; they ship with tfflows
    python examples/images.py faces --data FILE.npz     # two people, and a direction: turning the head
    python examples/images.py natural --data FILE.zip   # colour photographs

`faces` takes the ORL faces (AT&T Laboratories Cambridge) as an array x `[400, 112, 92]` of grey pixels; `natural`
CIFAR-10's images as `train/<class>/*.jpg` and `test/<class>/*.jpg` in a zip. Every one trains for `--minutes`, then
writes its pictures and the model into `--output`; `--quick` does it all in seconds, with nothing to look at.
"""

from __future__ import annotations

import argparse
import io
import zipfile
from pathlib import Path

import keras
import matplotlib
import numpy as np
import tensorflow as tf
from minutes import Minutes

from tfflows import FlowModel, Glow, datasets, load_model, plot

matplotlib.use("Agg")

N_STEPS = 9  # of a way
TEMPERATURES = (0.5, 0.7, 1.0)


def digits(path: Path | None) -> dict:
    """Training and test images, labels, and Glow's settings; also from a `.npz` of the whole of MNIST."""
    if path is None:
        data = datasets.digits()
    else:
        with np.load(path) as arrays:
            x_train, x_test = (arrays[name][..., np.newaxis] for name in ("x_train", "x_test"))
            data = datasets.LabelledSplit(x_train, arrays["y_train"], x_test, arrays["y_test"])
    glow = {"levels": 2, "steps": 8, "hidden": 64, "n_classes": 10}
    return {"train": data.train, "test": data.test, "labels": (data.train_labels, data.test_labels), "glow": glow}


def faces(path: Path | None) -> dict:
    """ORL faces at a third of their size, 36 x 28; of each of 40 people nine images to train on and one to test.

    Of so few images a flow learns each by heart. So each is taken 80 times: moved by a few pixels, mirrored, and
    brighter or darker.
    """
    with np.load(_needed(path, "faces")) as arrays:
        x = arrays["x"].astype(np.float32)
    height, width = 108, 84
    down, right = x.shape[1] - height, x.shape[2] - width

    def seen(x, i, j):
        cut = x[:, i : i + height, j : j + width]
        return cut.reshape(len(x), height // 3, 3, width // 3, 3).mean(axis=(2, 4))[..., np.newaxis]

    is_test = np.arange(len(x)) % 10 == 9
    train, rng, many = x[~is_test], np.random.default_rng(0), []
    for _ in range(80):
        some = seen(train, rng.integers(down + 1), rng.integers(right + 1))
        some = some[:, :, :: rng.choice([-1, 1])]
        many.append(np.clip(some * rng.uniform(0.85, 1.15, (len(some), 1, 1, 1)) + rng.uniform(-8.0, 8.0), 0.0, 255.0))
    train = np.rint(np.concatenate(many)).astype(np.uint8)
    test = np.rint(seen(x[is_test], down // 2, right // 2)).astype(np.uint8)
    return {"train": train, "test": test, "labels": None, "glow": {"levels": 2, "steps": 12, "hidden": 96, "bits": 5}}


def natural(path: Path | None) -> dict:
    """CIFAR-10's images, 32 x 32 in colour."""
    from PIL import Image

    sets = {"train": [], "test": []}
    with zipfile.ZipFile(_needed(path, "natural")) as archive:
        for name in sorted(archive.namelist()):
            if name.endswith(".jpg"):
                sets[name.split("/")[0]].append(np.asarray(Image.open(io.BytesIO(archive.read(name)))))
    x = {name: np.stack(images) for name, images in sets.items()}
    return {"train": x["train"], "test": x["test"], "labels": None, "glow": {"levels": 3, "steps": 8, "hidden": 96}}


def _needed(path, name):
    if path is None or not path.exists():
        raise SystemExit(
            f"Expected the data of {name!r} with --data; got {path}. The first lines of this file say what."
        )
    return path


def ways(flow, x0, x1, context, title, path, mode):
    """The way through the latent space, and below each the two images blended."""
    latent = flow.interpolate(x0, x1, N_STEPS, context, mode=mode).numpy()
    blended = np.stack([(1.0 - t) * x0 + t * x1 for t in np.linspace(0.0, 1.0, N_STEPS)], axis=1)
    strips = np.stack([latent, blended], axis=1).reshape(-1, *latent.shape[1:])
    plot.images(strips, rows=["latent", "blended"] * len(latent), title=title, path=path)


def turning(flow, x, path):
    """Faces along the mean difference of those that are brighter on one side and those that are on the other."""
    middle = x.shape[2] // 2
    side = x[:, :, :middle].mean(axis=(1, 2, 3)) - x[:, :, middle:].mean(axis=(1, 2, 3))
    order = np.argsort(side)
    n = len(x) // 5
    vector = flow.attribute_vector(x[order[-n:]], x[order[:n]])
    some = x[order[len(x) // 2 - 2 : len(x) // 2 + 2]]
    z = flow.encode(some)
    strips = np.stack([flow.decode(z + t * vector).numpy() for t in np.linspace(-1.5, 1.5, N_STEPS)], axis=1)
    plot.images(strips, title="along the direction of light and pose, the faces themselves in the middle", path=path)


def main(arguments: argparse.Namespace) -> None:
    name, output, quick = arguments.name, arguments.output, arguments.quick
    output.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)
    data = {"digits": digits, "faces": faces, "natural": natural}[name](arguments.data)
    train, test, labels, glow = data["train"], data["test"], data["labels"], data["glow"]
    minutes = arguments.minutes
    if quick:
        train, test, minutes = train[:64], test[:32], 0.02
        labels = None if labels is None else (labels[0][:64], labels[1][:32])
        glow |= {"levels": 1, "steps": 1, "hidden": 8}

    flow = FlowModel(Glow(train.shape[1:], **glow))
    flow.summary()
    train_context, test_context = labels or (None, None)
    flow.compile(keras.optimizers.Adam(1e-5, global_clipnorm=50.0))
    callback = Minutes(minutes, arguments.learning_rate)
    batch_size = 32
    flow.fit(
        train, train_context, batch_size=batch_size, epochs=10_000, callbacks=[callback], verbose=2 if quick else 1
    )
    bits = flow.evaluate(test, test_context, return_dict=True, verbose=0, batch_size=batch_size)["bits_per_dim"]
    print(f"{bits:.3f} bits per dimension on {len(test)} test images, after {minutes:g} minutes.")

    some = test[:16].astype(np.float32)
    context = None if labels is None else test_context[:16]
    again = flow.decode(flow.encode(some, context), context).numpy()
    print(f"Decoded again, the pixels (0 to 255) differ by at most {np.abs(again - some).max():.1e}.")
    plot.images(np.stack([some, again]), rows=["test", "decoded"], path=output / f"{name}_reconstructions.png")

    asked = None if labels is None else np.arange(10)
    samples = [flow.sample(1 if labels else 10, asked, seed=1, temperature=t).numpy() for t in TEMPERATURES]
    strips = np.stack([s.reshape(-1, *train.shape[1:]) for s in samples])
    rows = [f"T = {t:g}" for t in TEMPERATURES]
    plot.images(strips, rows=rows, title="samples at three temperatures", path=output / f"{name}_samples.png")

    half = len(test) // 2
    first, second = test[:4].astype(np.float32), test[half : half + 4].astype(np.float32)
    context = (
        None if labels is None else tuple(tf.one_hot(c, 10) for c in (test_context[:4], test_context[half : half + 4]))
    )
    # A straight way keeps to likelier latents: one of 20 pairs of photographs broke up midway on the great circle.
    mode = "linear" if name == "natural" else "spherical"
    ways(flow, first, second, context, "from one test image to another", output / f"{name}_interpolation.png", mode)
    if name == "faces":
        turning(flow, train.astype(np.float32), output / f"{name}_attribute.png")

    path = output / f"{name}.keras"
    FlowModel(flow.bijector).save(path)  # without the optimizer's state, which is twice as large as the weights
    difference = float(
        np.abs(
            load_model(path).encode(some[:4], None if labels is None else test_context[:4])
            - flow.encode(some[:4], None if labels is None else test_context[:4])
        ).max()
    )
    print(f"Saved and loaded {path}: latents differ by {difference:g}. Pictures: {output}/{name}_*.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=["digits", "faces", "natural"])
    parser.add_argument("--data", type=Path, help="file of the images; not needed for digits")
    parser.add_argument("--output", type=Path, default=Path("output"), help="folder for pictures and model")
    parser.add_argument("--minutes", type=float, default=20.0, help="training time")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--quick", action="store_true", help="a few images, a small net and a second")
    main(parser.parse_args())
