"""Posteriors of posteriordb: each sampler's means and deviations beside the reference, and draws per gradient.

    python benchmarks/posteriors.py --data DIR

`DIR`/posteriors has posteriordb's data and reference draws. Each line is a process of its own, in float64. "nuts" is
the no-U-turn sampler in the unconstrained parameters as they are, without a flow. Results: `results/posteriors.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import peers

METHODS = ("nuts", "neutra_hmc", "flow_mh", "variational")
MODELS = (
    "arK", "garch11", "kidscore_interaction", "blr", "kilpisjarvi", "eight_schools_noncentered", "hmm_example",
    "gp_pois_regr",
)  # fmt: skip
COLUMNS = {
    "model": "model",
    "method": "method",
    "mean": "largest error of a mean, deviations",
    "std": "largest error of a deviation",
    "r_hat": "R-hat",
    "k": "Pareto k",
    "ess": "least ESS",
    "gradients": "gradients",
    "per_gradient": "ESS per 1000 gradients",
    "seconds": "seconds",
}
NOTES = """
Errors are against 10,000 reference draws of posteriordb: of means in posterior standard deviations (0.1 wanted), of
standard deviations relative to them (0.1 wanted). ESS is the least of all quantities, bulk, over all chains; of
weighted draws it is Kish's. Gradients include training and adaptation.
"""


def work(settings: dict) -> dict:
    import keras

    keras.config.set_dtype_policy("float64")
    import targets

    from tfflows import FlowModel, inference
    from tfflows.bijectors import Whiten

    keras.utils.set_random_seed(settings["seed"])
    posterior = targets.posterior(settings["model"], settings["data"])
    target, common = posterior.target(), {"n_draws": 2000, "n_chains": 4, "seed": settings["seed"], "verbose": False}
    method = settings["method"]
    if method == "nuts":
        flow = FlowModel(Whiten(target.n_dim))  # never adapted: it changes nothing
        found = inference.neutra_hmc(target, flow=flow, n_steps=0, n_adapt=2000, jit_compile=False, **common)
    elif method == "neutra_hmc":
        found = inference.neutra_hmc(target, jit_compile=False, **common)
    else:
        found = getattr(inference, method)(target, **common)
    quantities = posterior.report(np.asarray(found.draws, np.float64))
    weights = found.weights[..., np.newaxis]
    mean = np.sum(weights * quantities, axis=(0, 1))
    std = np.sqrt(np.sum(weights * (quantities - mean) ** 2, axis=(0, 1)))
    right_mean, right_std = posterior.reference.mean(axis=0), posterior.reference.std(axis=0)
    if found.log_weights is None:
        chains = inference.diagnostics.chains(quantities)
        ess, r_hat = float(chains["ess_bulk"].min()), f"{chains['r_hat'].max():.3f}"
    else:
        ess, r_hat = found.diagnostics["ess"], ""
    k = found.diagnostics.get("pareto_k")
    return {
        "mean": f"{np.max(np.abs(mean - right_mean) / right_std):.3f}",
        "std": f"{np.max(np.abs(std / right_std - 1.0)):.3f}",
        "r_hat": r_hat,
        "k": "" if k is None else f"{k:.2f}",
        "ess": round(ess),
        "gradients": found.n_gradients,
        "per_gradient": f"{1000.0 * ess / max(found.n_gradients, 1):.2f}",
        "seconds": f"{found.seconds:.0f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("TFFLOWS_DATA"), help="folder of the data, or TFFLOWS_DATA")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--at-once", type=int, default=2, help="lines at the same time, one processor each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker is not None:
        print(json.dumps(work(args.worker)))
        return
    if args.data is None:
        parser.error("give the folder of the data with --data")
    lines = [{"model": model, "method": method} for model in MODELS for method in METHODS]
    chosen = [line for line in lines if line["model"] in args.models and line["method"] in args.methods]
    path = peers.RESULTS / "posteriors"
    peers.fill_from_last(path, [line for line in lines if line not in chosen], ("model", "method"))
    jobs = [(sys.executable, line | {"data": args.data, "seed": args.seed}) for line in chosen]
    facts = {"seed": args.seed} | peers.versions("tfflows", "tensorflow", "keras") | peers.machine()
    for i, found in peers.run_workers(__file__, jobs, at_once=args.at_once, n_threads=1, timeout=1800.0):
        chosen[i] |= found
        print(chosen[i], flush=True)
        done = [line for line in lines if len(line) > 2]
        peers.write_results(path, "Posteriors of posteriordb", COLUMNS, done, facts, NOTES)


if __name__ == "__main__":
    main()
