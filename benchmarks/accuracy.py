"""How well float32 brings data back: the round trip through each transformer, with random parameters.

    python benchmarks/accuracy.py

20,000 points uniform on [-5, 5], each with parameters of its own, normal with a deviation of 1 and of 3.
Results: `results/accuracy.md`, `.json`.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import peers
import tensorflow as tf

from tfflows import transformers

keras.utils.set_random_seed(0)  # of the net in a UMNN, which is made here
TRANSFORMERS = {
    "Affine": transformers.Affine(),
    "RationalQuadraticSpline": transformers.RationalQuadraticSpline(),
    "FreeKnotSpline": transformers.FreeKnotSpline(),
    "LinearRationalSpline": transformers.LinearRationalSpline(),
    "UMNN": transformers.UMNN(),
    "DeepSigmoid": transformers.DeepSigmoid(),
    "DeepSigmoid, 2 dense layers": transformers.DeepSigmoid(n_layers=2, dense=True),
    "MixtureOfLogistics": transformers.MixtureOfLogistics(),
    "Bernstein": transformers.Bernstein(),
    "SumOfSquares": transformers.SumOfSquares(),
}
SCALES = (1.0, 3.0)
N_POINTS = 20_000
COLUMNS = {"name": "transformer, default arguments", "parameters": "parameters"} | {
    f"error_{scale:g}": f"scale {scale:g}: greatest error, 99.9 % of errors below" for scale in SCALES
}
NOTES = """
The error is that of x after x -> z -> x. The best of seven other libraries' rational-quadratic splines (zuko's) has
greatest errors of 3e-5 and 2e-2 in this test.
"""


def round_trip_errors(transformer: transformers.Transformer, scale: float) -> np.ndarray:
    rng = np.random.default_rng(0)
    params = tf.constant(rng.normal(0.0, scale, (transformer.n_parameters, N_POINTS)), tf.float32)
    x = tf.constant(rng.uniform(-5.0, 5.0, N_POINTS), tf.float32)

    @tf.function(jit_compile=True)
    def there_and_back(x, params):
        z, _ = transformer.inverse_and_log_det(x, params)
        return transformer.forward_and_log_det(z, params)[0]

    return np.abs(there_and_back(x, params) - x)


def main() -> None:
    rows = []
    for name, transformer in TRANSFORMERS.items():
        row = {"name": name, "parameters": transformer.n_parameters}
        for scale in SCALES:
            errors = round_trip_errors(transformer, scale)
            row[f"error_{scale:g}"] = f"{errors.max():.1e}, {np.quantile(errors, 0.999):.1e}"
        print(row, flush=True)
        rows.append(row)
    facts = peers.versions("tfflows", "tensorflow") | peers.machine()
    peers.write_results(peers.RESULTS / "accuracy", "Round trips in float32", COLUMNS, rows, facts, NOTES)


if __name__ == "__main__":
    main()
