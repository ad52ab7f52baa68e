"""`python -m tfflows.beam score` and `sample`: Parquet files through an exported flow.

Options that are not listed are Beam's own, such as --runner=FlinkRunner --flink_master=localhost:8081, or on one
machine --direct_num_workers=4 --direct_running_mode=multi_processing. Ends with status 1 if a file could not be read, 2
for wrong arguments.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tfflows.beam",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    score = commands.add_parser("score", help="log-densities or latents of rows", allow_abbrev=False)
    score.add_argument("--data", required=True, nargs="+", help="Parquet files, or patterns such as 'in/*.parquet'")
    score.add_argument("--op", default="log_prob", help="log_prob (default) or encode")
    score.add_argument("--columns", type=_names, help="of x, in the model's order, if it does not know them: a,b,c")
    score.add_argument("--context", type=_names, help="columns of the context, likewise")
    score.add_argument("--keep", type=_names, help="columns to write again; all by default")
    sample = commands.add_parser("sample", help="new rows", allow_abbrev=False)
    sample.add_argument("-n", required=True, type=int, help="how many")
    sample.add_argument("--seed", required=True, type=int, help=">= 0; draw i follows from it and i alone")
    sample.add_argument("--given", nargs="+", metavar="COLUMN=VALUE", help="the context, if the flow is conditional")
    sample.add_argument("--temperature", type=float, default=1.0, help="below 1 rows come from denser regions")
    sample.add_argument("--rows-per-shard", type=int, default=1_000_000, help="rows of a file")
    for command in (score, sample):
        command.add_argument("--model", required=True, help="the folder that `flow.export` wrote")
        command.add_argument("--out", required=True, help="a folder, empty or of an earlier run, which then goes on")
        command.add_argument("--overwrite", action="store_true", help="replace files of another model or settings")
        command.add_argument("--min-batch-size", type=int, help="rows that the model is run for, at least")
        command.add_argument("--max-batch-size", type=int, help="and at most")
        command.add_argument("--block-rows", type=int, help="rows that are read and written at a time")
    return parser


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _value(text: str):
    """A context's value: a number if it reads so."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def _given(pairs: Sequence[str]) -> dict:
    if bad := [pair for pair in pairs if "=" not in pair]:
        raise ValueError(f"Expected --given COLUMN=VALUE; got {bad[0]}.")
    return {name: _value(value) for name, _, value in (pair.partition("=") for pair in pairs)}


def _check_options(options: Sequence[str]) -> None:
    """Raises a ValueError for options that Beam has not: it would leave them out in silence."""
    from apache_beam.options.pipeline_options import PipelineOptions

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for kind in PipelineOptions.__subclasses__():
        kind._add_argparse_args(parser)
    if unknown := parser.parse_known_args(list(options))[1]:
        raise ValueError(f"Expected options of tfflows.beam or of Beam; got {' '.join(unknown)}.")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns its status."""
    args, options = _parser().parse_known_args(arguments)
    settings = {key: value for key, value in vars(args).items() if value is not None and key != "command"}
    logging.getLogger().setLevel(logging.ERROR)  # Beam warns of the packages of clouds that are not there
    from tfflows import beam

    try:
        _check_options(options)
        if "given" in settings:
            settings["given"] = _given(settings["given"])
        result = getattr(beam, args.command)(**settings, options=options)
    except ValueError as error:
        print(f"tfflows.beam: {error}", file=sys.stderr)
        return 2
    skipped = f", {result.skipped} of them done before" * (result.skipped > 0)
    print(f"{result.shards} files{skipped}: {result.scored:,} good rows and {result.dead:,} bad ones in {args.out}")
    for name, reason in result.failed.items():
        print(f"tfflows.beam: {name} could not be read: {reason}", file=sys.stderr)
    return 1 if result.failed else 0


if __name__ == "__main__":
    sys.exit(main())
