"""Images: a small Glow of handwritten digits, asked for each class, and for the way from one image to another.

    python examples/gallery/images.py [--output DIR] [--quick]

A flow of images gives bits for each pixel, log p(x) of the integers 0 to 255. So do compressors: beside it stand LZMA,
which knows no images, and a pixel-wise histogram, which knows no neighbours. Larger ones, faces and photographs:
examples/images.py; as a classifier: examples/bayes_classifier.py.
"""

from __future__ import annotations

import lzma
from pathlib import Path

import numpy as np
from gallery import falling, run

from tfflows import FlowModel, Glow, datasets, plot

ROUNDS = 5  # through 6000 images; the study goes through 17
BATCH = 64


def fit(x, labels, *, quick: bool) -> FlowModel:
    sizes = {"levels": 1, "steps": 1, "hidden": 8} if quick else {"levels": 2, "steps": 4, "hidden": 48}
    flow = FlowModel(Glow((28, 28, 1), n_classes=10, **sizes))
    epochs = 1 if quick else ROUNDS
    flow.compile(falling(3e-3, len(x), epochs, BATCH))
    flow.fit(x, labels, epochs=epochs, batch_size=BATCH, verbose=0)
    return flow


def by_histogram(x, test) -> np.ndarray:
    """Bits per pixel of each test image, by how often each of the 784 pixels had each value, counted from one half."""
    counts = np.full((784, 256), 0.5)
    for image in x.reshape(-1, 784):
        counts[np.arange(784), image] += 1.0
    log_probability = np.log2(counts / counts.sum(axis=1, keepdims=True))
    return -log_probability[np.arange(784), test.reshape(-1, 784)].mean(axis=1)


def main(output: Path, *, quick: bool) -> None:
    digits = datasets.digits()
    n, n_test = (64, 16) if quick else (6000, 1000)
    test, labels = digits.test[:n_test], digits.test_labels[:n_test]
    flow = fit(digits.train[:n], digits.train_labels[:n], quick=quick)

    bits = -flow.log_prob(test.astype(np.float32), labels).numpy() / (784.0 * np.log(2.0))
    packed = len(lzma.compress(test.tobytes(), preset=9 | lzma.PRESET_EXTREME)) * 8.0 / test.size
    print("Bits per pixel of images that no model has seen:")
    print(f"flow {bits.mean():.3f} +- {bits.std() / np.sqrt(n_test):.3f}; LZMA, all images in one file, {packed:.3f}; "
          f"histograms of each pixel {by_histogram(digits.train[:n], test).mean():.3f}; none 8.")  # fmt: skip

    some = test[:16].astype(np.float32)
    again = flow.decode(flow.encode(some, labels[:16]), labels[:16]).numpy()
    print(f"Encoded and decoded, pixels differ by {np.abs(again - some).max():.1e} at most, of 255.")

    samples = [flow.sample(1, np.arange(10), seed=seed, temperature=0.7).numpy()[0] for seed in (1, 2, 3)]
    first, last = [np.flatnonzero(labels == digit)[:1] for digit in (7, 1)]
    way = flow.interpolate(test[first], test[last], 10, (np.array([7]), np.array([1]))).numpy()[0]
    blended = [(1.0 - t) * test[first[0]] + t * test[last[0]] for t in np.linspace(0.0, 1.0, 10)]
    plot.images(
        np.stack([*samples, way, blended]),
        rows=["samples", "at T = 0.7", "by class", "latent way", "blended"],
        title=f"Glow of digits, {bits.mean():.2f} bits per pixel",
        path=output / "images.png",
    )
    print(f"Picture: {output / 'images.png'}")


if __name__ == "__main__":
    run(main, __doc__)
