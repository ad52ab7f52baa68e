"""Images: what a trained flow of handwritten digits knows. How likely is an image, and what lies between two?

    python examples/gallery/images.py [--output DIR] [--quick]

The Glow of saved_models/digits was trained for 13 minutes of one processor by examples/images.py, which also does faces
and photographs. It gives probabilities of pixels, so bits: what a perfect compressor would make of an image with it.
Beside it stand LZMA, for each image alone and for a thousand in one file, where it finds again what it has seen, and a
histogram of each pixel, which knows no neighbours. As a classifier: examples/bayes_classifier.py.
"""

from __future__ import annotations

import lzma
from pathlib import Path

import numpy as np
from gallery import run, with_error

from tfflows import datasets, load_model, plot

FLOW = Path(__file__).parents[2] / "saved_models" / "digits" / "digits.keras"
RAW = {"format": lzma.FORMAT_RAW, "filters": [{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": 2**20}]}  # no header


def by_histogram(x, test) -> np.ndarray:
    """Bits per pixel of each test image, by how often each of the 784 pixels had each value, counted from one half."""
    counts = np.full((784, 256), 0.5)
    for image in x.reshape(-1, 784):
        counts[np.arange(784), image] += 1.0
    log_probability = np.log2(counts / counts.sum(axis=1, keepdims=True))
    return -log_probability[np.arange(784), test.reshape(-1, 784)].mean(axis=1)


def main(output: Path, *, quick: bool) -> None:
    flow, digits = load_model(FLOW), datasets.digits()
    n = 16 if quick else 1000
    test, labels = digits.test[:n], digits.test_labels[:n].astype(int)

    bits = -flow.log_prob(test.astype(np.float32), labels).numpy() / (784.0 * np.log(2.0))
    print(f"Bits per pixel of {n} images that the flow has not seen; as they are, 8:")
    print(f"  the flow                     {with_error(bits)}")
    print(f"  LZMA, each image alone       {with_error([len(lzma.compress(x.tobytes(), **RAW)) / 98.0 for x in test])}")
    print(f"  LZMA, all in one file        {len(lzma.compress(test.tobytes(), **RAW)) * 8.0 / test.size:.3f}")
    print(f"  a histogram of each pixel    {with_error(by_histogram(digits.train, test))}")

    some = test[:16].astype(np.float32)
    again = flow.decode(flow.encode(some, labels[:16]), labels[:16]).numpy()
    print(f"Encoded and decoded, pixels differ by {np.abs(again - some).max():.1e} at most, of 255.")

    samples = [flow.sample(1, np.arange(10), seed=seed, temperature=0.7).numpy()[0] for seed in (1, 2)]
    order = np.argsort(bits)
    (first,), (last,) = (np.flatnonzero(labels == digit)[:1] for digit in (7, 1))
    way = flow.interpolate(some[first], some[last], 10, (np.array(7), np.array(1))).numpy()
    blended = np.stack([(1.0 - t) * some[first] + t * some[last] for t in np.linspace(0.0, 1.0, 10)])
    plot.images(
        np.stack([*samples, way, blended, test[order[:10]], test[order[-10:]]]),
        rows=["each class, T = 0.7", "", "latent way", "blended", "likeliest", "least likely"],
        title=f"Glow of digits, {bits.mean():.2f} bits per pixel",
        path=output / "images.png",
    )
    print(f"Picture: {output / 'images.png'}")


if __name__ == "__main__":
    run(main, __doc__)
