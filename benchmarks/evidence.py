"""Evidence: tfflows' `preconditioned_smc` beside pocoMC and dynesty, over ten seeds.

    python benchmarks/evidence.py --data DIR

Two targets have a known evidence; of the third, a posterior of posteriordb, the truth is dynesty's mean. All libraries
take the same function in NumPy. Each line is a process of its own. Results: `results/evidence.md`.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import os
import pathlib
import sys
import time

import numpy as np
import peers
from scipy.special import logsumexp

LIBRARIES = ("tfflows", "pocomc", "dynesty")
SEEDS_OF_DYNESTY = 3  # only the truth of one target depends on it
N_LIVE = 1000
COLUMNS = {
    "target": "target",
    "library": "library",
    "seeds": "seeds",
    "rmse": "error, root mean square",
    "reported": "error, reported",
    "worst": "largest error / reported",
    "calls": "likelihood calls",
    "calls_of_error": "calls for an error of 0.1",
    "seconds": "seconds",
}
NOTES = """
Arguments are the defaults of both libraries, which are the same where they mean the same: 512 effective and 256 active
particles, but 1536 effective ones for the 16 modes; 4096 draws are wanted of both; dynesty has 1000 live points. Errors
are of the natural logarithm of the evidence; calls and seconds are medians. "Calls for an error of 0.1" takes errors to
fall as 1 / sqrt(calls): calls x (error / 0.1)^2. Of the regression the truth is dynesty's, whose own error, 0.5, counts
in "largest error / reported": finer differences say nothing there.
"""


def mixture(_):
    """16 modes of unequal weight and deviation 0.4 in a box of 8 dimensions; log-evidence -8 log 20."""
    rng = np.random.default_rng(0)
    n_dim, width = 8, 0.4
    centres, weights = rng.uniform(-7.0, 7.0, (16, n_dim)), rng.dirichlet(np.full(16, 5.0))
    constant = np.log(weights) - n_dim * math.log(width * math.sqrt(2.0 * math.pi))

    def log_likelihood(x):
        # |x - c|^2 as a product of matrices: in float64 what is lost does not matter.
        x = np.asarray(x, np.float64)
        squares = np.sum(x**2, axis=1)[:, np.newaxis] - 2.0 * x @ centres.T + np.sum(centres**2, axis=1)
        return logsumexp(constant - 0.5 * squares / width**2, axis=1)

    return log_likelihood, [("uniform", -10.0, 10.0)] * n_dim, -n_dim * math.log(20.0)


def funnel(_):
    """Neal's funnel of 5 dimensions and deviation 1.5 as likelihood, in a box that cuts off next to nothing."""

    def log_likelihood(x):
        x = np.asarray(x, np.float64)
        v, rest = x[:, 0], x[:, 1:]
        of_v = -0.5 * (v / 1.5) ** 2 - math.log(1.5 * math.sqrt(2.0 * math.pi))
        return of_v + np.sum(-0.5 * rest**2 * np.exp(-v)[:, np.newaxis], axis=1) - 2.0 * (v + math.log(2.0 * math.pi))

    return log_likelihood, [("uniform", -10.0, 10.0)] + [("uniform", -60.0, 60.0)] * 4, -math.log(20.0 * 120.0**4)


def regression(folder):
    """`blr` of posteriordb: five correlated covariates, normal priors, half-normal of the noise."""
    with gzip.open(pathlib.Path(folder) / "posteriors" / "posteriordb_data.json.gz", "rt") as file:
        data = json.load(file)["sblrc"]
    design, y = np.asarray(data["X"], float), np.asarray(data["y"], float)

    def log_likelihood(x):
        x = np.asarray(x, np.float64)
        away = (y - x[:, :-1] @ design.T) / x[:, -1:]
        return -0.5 * np.sum(away**2, axis=1) - len(y) * (np.log(x[:, -1]) + 0.5 * math.log(2.0 * math.pi))

    return log_likelihood, [("normal", 0.0, 10.0)] * design.shape[1] + [("half_normal", 0.0, 10.0)], None


TARGETS = {"funnel, 5-D": funnel, "regression, 6-D": regression, "16 modes, 8-D": mixture}
N_EFFECTIVE = {"16 modes, 8-D": 1536}  # of both libraries; of 512 both lose modes


def of_scipy(prior):
    from scipy import stats

    make = {
        "uniform": lambda a, b: stats.uniform(a, b - a),
        "normal": stats.norm,
        "half_normal": stats.halfnorm,
    }
    return [make[kind](a, b) for kind, a, b in prior]


def of_tfflows(log_likelihood, prior, seed, n_effective):
    import tensorflow_probability as tfp

    from tfflows import inference

    tfd, groups = tfp.distributions, []
    for kind, a, b in prior:
        if groups and groups[-1][0] == kind:
            groups[-1][1].append((a, b))
        else:
            groups.append((kind, [(a, b)]))
    make = {
        "uniform": tfd.Uniform,
        "normal": tfd.Normal,
        "half_normal": lambda _, scale: tfd.HalfNormal(scale),
    }
    parts = [tfd.Independent(make[kind](*np.float32(numbers).T), 1) for kind, numbers in groups]
    target = inference.Target(log_likelihood, prior=parts[0] if len(parts) == 1 else tfd.Blockwise(parts))
    found = inference.preconditioned_smc(
        target, n_draws=1024, n_chains=4, n_effective=n_effective, seed=seed, verbose=False
    )
    return found.log_evidence, found.log_evidence_error, found.n_evaluations


def of_pocomc(log_likelihood, prior, seed, n_effective):
    import pocomc

    prior = pocomc.Prior(of_scipy(prior))
    sampler = pocomc.Sampler(
        prior=prior, likelihood=log_likelihood, n_effective=n_effective, n_active=256, vectorize=True, random_state=seed
    )
    sampler.run(n_total=4096, n_evidence=4096, progress=False)
    log_evidence, error = sampler.evidence()
    return log_evidence, error, sampler.calls


def of_dynesty(log_likelihood, prior, seed, _):
    import dynesty

    parts = of_scipy(prior)
    sampler = dynesty.NestedSampler(
        lambda x: float(log_likelihood(x[np.newaxis])[0]),
        lambda u: np.array([part.ppf(v) for part, v in zip(parts, u, strict=True)]),
        len(prior),
        nlive=N_LIVE,
        rstate=np.random.default_rng(seed),
    )
    sampler.run_nested(print_progress=False)
    found = sampler.results
    return found.logz[-1], found.logzerr[-1], int(np.sum(found.ncall))


def work(settings: dict) -> dict:
    log_likelihood, prior, _ = TARGETS[settings["target"]](settings["data"])
    run = {"tfflows": of_tfflows, "pocomc": of_pocomc, "dynesty": of_dynesty}[settings["library"]]
    started = time.perf_counter()
    log_evidence, error, calls = run(log_likelihood, prior, settings["seed"], N_EFFECTIVE.get(settings["target"], 512))
    seconds = time.perf_counter() - started
    return {"log_evidence": float(log_evidence), "reported": float(error), "calls": int(calls), "seconds": seconds}


def line(target: str, library: str, runs: list[dict], truth: float, uncertainty: float) -> dict:
    found = [run for run in runs if "error" not in run]
    errors = np.array([run["log_evidence"] - truth for run in found])
    reported = np.array([run["reported"] for run in found])
    calls, rmse = float(np.median([run["calls"] for run in found])), float(np.sqrt(np.mean(errors**2)))
    return {
        "target": target,
        "library": library,
        "seeds": len(found) if len(found) == len(runs) else f"{len(found)} of {len(runs)}",
        "rmse": f"{rmse:.3f}",
        "reported": f"{np.median(reported):.3f}",
        "worst": f"{np.max(np.abs(errors) / np.hypot(reported, uncertainty)):.1f}",
        "calls": round(calls),
        "calls_of_error": round(calls * (rmse / 0.1) ** 2),
        "seconds": f"{np.median([run['seconds'] for run in found]):.0f}",
        "runs": runs,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("TFFLOWS_DATA"), help="folder of the data, or TFFLOWS_DATA")
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--libraries", nargs="+", choices=LIBRARIES, default=list(LIBRARIES))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--at-once", type=int, default=2, help="runs at the same time, one processor each")
    parser.add_argument("--peer-python", help="Python with the peers; by default one is made in .peers/")
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker is not None:
        print(json.dumps(work(args.worker)))
        return
    if args.data is None:
        parser.error("give the folder of the data with --data")
    peer = peers.peer_python(args.peer_python, "posteriors")
    seeds = {"tfflows": args.seeds, "pocomc": args.seeds, "dynesty": min(args.seeds, SEEDS_OF_DYNESTY)}
    chosen = [
        {"target": target, "library": library, "seed": seed, "data": args.data}
        for target in args.targets
        for seed in range(args.seeds)
        for library in args.libraries
        if seed < seeds[library]
    ]
    path = peers.RESULTS / "evidence"
    before = json.loads(path.with_suffix(".json").read_text())["rows"] if path.with_suffix(".json").exists() else []
    runs = {(row["target"], row["library"]): row["runs"] for row in before}
    for target in args.targets:
        runs |= {(target, library): [] for library in args.libraries}
    jobs = [(sys.executable if job["library"] == "tfflows" else peer, job) for job in chosen]
    facts = peers.versions("tfflows", "tensorflow", "keras") | peers.machine()
    for i, found in peers.run_workers(__file__, jobs, at_once=args.at_once, n_threads=1, timeout=1800.0):
        print(chosen[i]["target"], chosen[i]["library"], found, flush=True)
        runs[chosen[i]["target"], chosen[i]["library"]].append(found | {"seed": chosen[i]["seed"]})
        peers.write_results(path, "Evidence", COLUMNS, lines(runs, args.data), facts, NOTES)


def lines(runs: dict, folder) -> list[dict]:
    result = []
    for target, make in TARGETS.items():
        truth, uncertainty = make(folder)[2], 0.0
        if truth is None:
            of_dynesty = [run for run in runs.get((target, "dynesty"), []) if "error" not in run]
            if of_dynesty:
                truth = np.mean([run["log_evidence"] for run in of_dynesty])
                uncertainty = np.sqrt(np.mean([run["reported"] ** 2 for run in of_dynesty]) / len(of_dynesty))
        for library in LIBRARIES:
            found = runs.get((target, library), [])
            if truth is not None and any("error" not in run for run in found):
                result.append(line(target, library, found, truth, uncertainty))
    return result


if __name__ == "__main__":
    main()
