"""`python -m tfflows.export EXPORT MODEL DATA`: how far an export is from the flow it was made from.

EXPORT is a SavedModel's folder or a `.tflite` file, MODEL the `.keras` file, DATA a `.npy` of rows. Ends with status 1
if a number differs by more than the tolerance.
"""

from __future__ import annotations

import argparse

import numpy as np

import tfflows

LOG_PROB_TOLERANCES = {"TensorFlow": 1e-5, "TensorFlow C library": 1e-5, "LiteRT": 1e-4}
TOLERANCE = 1e-4  # of encode and decode, which spread rounding errors where the flow is steep


def tolerance(runtime: str, signature: str) -> float:
    """How far an export of float32 weights may be from its flow."""
    return LOG_PROB_TOLERANCES[runtime] if signature == "log_prob" else TOLERANCE


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tfflows.export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("export", help="a SavedModel's folder, or a .tflite file")
    parser.add_argument("model", help="the flow, a .keras file")
    parser.add_argument("data", help="rows, a .npy file")
    parser.add_argument("--context", help="a row of context for each, a .npy file, if the flow is conditional")
    parser.add_argument(
        "--tolerance",
        type=float,
        help="of a difference relative to the largest number; by default 1e-5 for log_prob of a SavedModel, else 1e-4",
    )
    args = parser.parse_args()
    try:
        flow = tfflows.load_model(args.model)
        x, context = (None if path is None else np.load(path, allow_pickle=False) for path in (args.data, args.context))
        found = tfflows.export.verify(args.export, flow, x, context)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{error}\n")
    failed = False
    for runtime, signature, difference in found:
        most = tolerance(runtime, signature) if args.tolerance is None else args.tolerance
        failed |= not difference <= most
        verdict = "" if difference <= most else f"  MORE than {most:g}"
        print(f"{runtime:<22}{signature:<10}{difference:.1e}{verdict}")
    if failed:
        parser.exit(1, "The export is not the flow.\n")


if __name__ == "__main__":
    main()
