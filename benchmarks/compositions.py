"""Tries random compositions of bijectors, domains, contexts and dtypes, and tells which fail: a long run of
`tests/test_compositions.py` that goes on after a failure."""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
import time
import warnings

from hypothesis import HealthCheck, Phase, given, seed, settings

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "tests"))

import compositions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=5000, help="compositions of bijectors")
    parser.add_argument("--tables", type=int, default=1000, help="flows of tables")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=pathlib.Path, help="a file of JSON lines; by default they are printed")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    started, counts = time.time(), {"compositions": 0, "tables": 0, "failures": 0}

    def tell(**facts):
        line = json.dumps({"seconds": round(time.time() - started), **counts, **facts}, default=str)
        print(line, flush=True)
        if args.out is not None:
            with open(args.out, "a") as file:
                file.write(line + "\n")

    def tried(check, recipe, what):
        try:
            check(recipe)
        except Exception as error:
            counts["failures"] += 1
            tell(failed=recipe, error=f"{type(error).__name__}: {str(error)[:500]}")
        counts[what] += 1
        if counts[what] % 100 == 0:
            compositions.forget()
            tell()

    def run(strategy, check, what, n):
        how = settings(
            max_examples=n,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        seed(args.seed)(how(given(strategy)(lambda recipe: tried(check, recipe, what))))()

    run(compositions.tables(), compositions.check_table, "tables", args.tables)
    run(compositions.recipes(), compositions.check, "compositions", args.examples)
    tell(done=True)


if __name__ == "__main__":
    main()
