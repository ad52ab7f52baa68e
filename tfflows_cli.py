"""The `tfflows` command: names, options and errors; what the commands do is in `tfflows.cli`.

It is outside the package and imports it only when a command runs, because TensorFlow takes seconds to import, which
nobody who asks for help wants to wait for.
"""

from __future__ import annotations

import functools
import importlib.metadata
import json
import logging
import math
import os
import sys
from pathlib import Path
from typing import Annotated

try:
    import typer
    from rich.console import Console
except ModuleNotFoundError as error:
    sys.exit(f"Expected the packages of the command line; got none called {error.name}. pip install 'tfflows[cli]'")

app = typer.Typer(
    help="Normalizing flows of tables: fit a density, score rows, draw new ones, find outliers.",
    epilog="Data are .csv, .tsv, .parquet, .npy or .npz files, columns by name; out files .csv, .parquet or .npy.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# The options that commands share.
Model = Annotated[Path, typer.Argument(help="A flow: the .keras file that `fit` or `flow.save` wrote.")]
Data = Annotated[Path, typer.Argument(help="A table: .csv, .tsv, .parquet, .npy or .npz.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="The file to write: .csv, .parquet or .npy.")]
MaybeOut = Annotated[Path | None, typer.Option("--out", "-o", help="The file to write: .csv, .parquet or .npy.")]
Columns = Annotated[
    list[str] | None, typer.Option(help="Columns to fit, such as a,b,c; all but context and weights by default.")
]
Context = Annotated[list[str] | None, typer.Option(help="Columns that the others are conditional on, such as d,e.")]
Weights = Annotated[str | None, typer.Option(help="The column of the rows' weights, >= 0.")]
Domains = Annotated[
    list[str] | None,
    typer.Option(
        metavar="COLUMN=KIND[:LOW:HIGH]",
        help="Where a column lives: real, positive, interval:0:1, circular:0:24, integer, integer:0:10, categorical; "
        "or several together, a,b,c=simplex or a,b=sphere. By default whole numbers are integers, all else is real.",
    ),
]
DropMissing = Annotated[bool, typer.Option("--drop-missing", help="Leave out rows that lack a value.")]
Epochs = Annotated[
    int | None, typer.Option(min=1, help="Times through the data; by default until held-out rows get no better.")
]
ValidationSplit = Annotated[float, typer.Option(help="The fraction of rows held out to stop by.")]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Rows in a training step; 256 by default.")]
LearningRate = Annotated[float | None, typer.Option(min=0.0, help="Of Adam; 0.002 by default, 0.001 with --epochs.")]
Hidden = Annotated[str | None, typer.Option(help="Widths of the nets' hidden layers, such as 64,64.")]
Layers = Annotated[int | None, typer.Option(min=1, help="Number of the flow's layers.")]
Given = Annotated[
    list[str] | None, typer.Option(metavar="COLUMN=VALUE", help="A value of the context, one for each of its columns.")
]
Seed = Annotated[int | None, typer.Option(min=0, help="Makes what is random repeat.")]
Force = Annotated[bool, typer.Option("--force", "-f", help="Replace a file that exists.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks, and what TensorFlow says.")]
FLOWS = (
    "A preset in any case, with dashes or without, such as realnvp, maf, naf, coupling-rqnsf, sinf (for few rows). "
    "rqnsf is MaskedAutoregressiveRQNSF, on tables the nearest to the truth of splines; coupling-rqnsf samples faster."
)


def command(function):
    """A command whose report is printed, and whose errors are one line on stderr and an exit code."""

    @functools.wraps(function)
    def run(**options):
        as_json, debug = options["as_json"], options["debug"]
        try:
            report = _report(function, options)
        except KeyboardInterrupt:
            _fail("Stopped by Ctrl-C; nothing was written.", 130, as_json=as_json)
        except Exception as error:
            if debug:
                raise
            _fail(_line(error), 1, as_json=as_json)
        if as_json:
            print(json.dumps(_plain(report.facts), allow_nan=False))
        else:
            width = None if sys.stdout.isatty() else 120  # no terminal, no reason to fold tables
            Console(width=width, highlight=False, markup=False, soft_wrap=True).print(report.text)
        raise typer.Exit(report.code)

    return app.command(no_args_is_help=True)(run)


def _report(function, options):
    for name, what in (("model", "a model file"), ("data", "a file of data")):  # a typing error need not wait
        path = options.get(name)
        if path is not None and not path.exists():
            raise ValueError(f"Expected {what}; got {path}, which does not exist.")
    with Console(stderr=True).status("Loading TensorFlow ..."):
        from tfflows.cli.console import noted_warnings
    with noted_warnings():
        return function(**options)


def _line(error: Exception) -> str:
    """What went wrong, and what to do, in a line."""
    text = " ".join(str(error).split())
    if isinstance(error, (ValueError, OSError, FloatingPointError)):
        return text or type(error).__name__
    if "No space left" in text:  # in TensorFlow's words
        return "Expected room for the out file; got: No space left on device. What was there is as it was."
    if isinstance(error, ImportError):
        return f"Expected the packages of the command line: pip install 'tfflows[cli]'. {text}"
    if isinstance(error, MemoryError):
        return "Expected more memory than there is: take fewer rows, or a smaller --batch-size or --hidden."
    return f"Unexpected {type(error).__name__}: {text[:300]} (--debug shows where)"


def _fail(text: str, code: int, *, as_json: bool):
    if as_json:
        print(json.dumps({"error": text}))
    Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print(f"tfflows: {text}")
    raise typer.Exit(code)


def _plain(value):
    """Facts as JSON has them: no NumPy, and null for what is not finite."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _version(wanted: bool):
    if wanted:
        print(importlib.metadata.version("tfflows"))
        raise typer.Exit


@app.callback()
def _options(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False):
    """What `tfflows` itself takes."""


@command
def fit(
    data: Data,
    out: Annotated[Path, typer.Option("--out", "-o", help="The model's file to write, .keras.")],
    flow: Annotated[str, typer.Option(help=FLOWS)] = "rqnsf",
    columns: Columns = None,
    context: Context = None,
    weights: Weights = None,
    domain: Domains = None,
    drop_missing: DropMissing = False,
    epochs: Epochs = None,
    validation_split: ValidationSplit = 0.1,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    hidden: Hidden = None,
    layers: Layers = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="An .npz file, written as it goes: the same command goes on from it. --seed is then 0."),
    ] = None,
    seed: Seed = None,
    force: Force = False,
    as_json: Json = False,
    debug: Debug = False,
):
    """Fit a flow to a table, and save it with the names of the columns. Ctrl-C keeps the best weights so far.

    The columns that are used have to fit into memory.
    """
    from tfflows.cli import fitting

    settings = fitting.Settings(epochs, validation_split, batch_size, learning_rate, hidden, layers, checkpoint)
    seed = 0 if seed is None and checkpoint is not None else seed  # the same rows must be held out each time
    return fitting.fit(data, out, flow, columns, context, weights, domain or [], drop_missing, settings, seed, force)


@command
def compare(
    data: Data,
    flow: Annotated[list[str], typer.Option(help="Presets, such as maf,realnvp. " + FLOWS)] = (
        "rqnsf",
        "maf",
        "realnvp",
    ),
    columns: Columns = None,
    context: Context = None,
    weights: Weights = None,
    domain: Domains = None,
    drop_missing: DropMissing = False,
    test_split: Annotated[float, typer.Option(help="The fraction of rows that flows are compared on.")] = 0.2,
    epochs: Epochs = None,
    validation_split: ValidationSplit = 0.1,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    hidden: Hidden = None,
    layers: Layers = None,
    seed: Seed = None,
    as_json: Json = False,
    debug: Debug = False,
):
    """Fit several presets to the same rows, and compare them on others: likelihood, time to fit, time to sample."""
    from tfflows.cli import fitting

    settings = fitting.Settings(epochs, validation_split, batch_size, learning_rate, hidden, layers)
    return fitting.compare(
        data, flow, columns, context, weights, domain or [], drop_missing, test_split, settings, seed
    )


@command
def score(
    model: Model,
    data: Data,
    out: MaybeOut = None,
    drop_missing: DropMissing = False,
    force: Force = False,
    as_json: Json = False,
    debug: Debug = False,
):
    """The log-density of each row in nats: the mean, and with --out the table with a column log_prob."""
    from tfflows.cli import using

    return using.score(model, data, out, drop_missing, force)


@command
def sample(
    model: Model,
    out: Out,
    n: Annotated[int, typer.Option("-n", min=1, help="How many rows; of a conditional flow, for each context.")],
    context: Annotated[Path | None, typer.Option(help="A table of contexts, if the flow is conditional.")] = None,
    given: Given = None,
    temperature: Annotated[float, typer.Option(help="Below 1 rows come from denser regions.")] = 1.0,
    seed: Seed = None,
    force: Force = False,
    as_json: Json = False,
    debug: Debug = False,
):
    """Draw new rows, in columns of the names and types that the flow was fitted to."""
    from tfflows.cli import using

    return using.sample(model, n, out, context, given or [], temperature, seed, force)


@command
def outliers(
    model: Model,
    data: Data,
    out: MaybeOut = None,
    rate: Annotated[float, typer.Option(help="Of false alarms.")] = 0.01,
    calibration: Annotated[
        Path | None, typer.Option(help="A table of rows that are not strange and that the flow was not fitted to.")
    ] = None,
    by: Annotated[str, typer.Option(help="What is strange: a low density, typicality, or latent.")] = "density",
    only: Annotated[bool, typer.Option("--only", help="Write the outliers only.")] = False,
    drop_missing: DropMissing = False,
    seed: Seed = None,
    force: Force = False,
    as_json: Json = False,
    debug: Debug = False,
):
    """Find strange rows: adds columns score, p_value and outlier. Without --calibration DATA calibrate themselves."""
    from tfflows.cli import using

    return using.outliers(model, data, out, rate, calibration, by, only, drop_missing, seed, force)


@command
def encode(
    model: Model,
    data: Data,
    out: Out,
    drop_missing: DropMissing = False,
    force: Force = False,
    as_json: Json = False,
    debug: Debug = False,
):
    """The latents of each row: adds columns z0, z1, ... and log_det."""
    from tfflows.cli import using

    return using.encode(model, data, out, drop_missing, force)


@command
def export(
    model: Model,
    out: Annotated[Path, typer.Option("--out", "-o", help="A .tflite file, or a folder for a SavedModel.")],
    format: Annotated[
        str | None, typer.Option(help="litert or tf_saved_model; by default litert for a .tflite file.")
    ] = None,
    weights: Annotated[str, typer.Option(help="Of litert: float32, float16 or int8.")] = "float32",
    force: Force = False,
    as_json: Json = False,
    debug: Debug = False,
):
    """Write the flow for where Python is not."""
    from tfflows.cli import using

    return using.export(model, out, format, weights, force)


@command
def info(model: Model, as_json: Json = False, debug: Debug = False):
    """Say what a model's file has: the flow's layers, and the columns."""
    from tfflows.cli import using

    return using.info(model)


@command
def plot(
    model: Model,
    out: Annotated[Path, typer.Option("--out", "-o", help="The picture to write: .png, .pdf or .svg.")],
    data: Annotated[Path | None, typer.Argument(help="A table to draw below.")] = None,
    n: Annotated[int, typer.Option("-n", min=1, help="How many draws, and how many rows of DATA.")] = 2000,
    columns: Annotated[
        list[str] | None, typer.Option(help="Columns to show, such as a,b; six at most fit well.")
    ] = None,
    given: Given = None,
    drop_missing: DropMissing = False,
    seed: Seed = 0,
    force: Force = False,
    as_json: Json = False,
    debug: Debug = False,
):
    """Draw the flow's rows over data: each column, and each pair of columns."""
    from tfflows.cli import using

    return using.plot(model, data, out, n, columns, given or [], drop_missing, seed, force)


def main() -> None:
    """The command, with TensorFlow's log where nobody has to read it."""
    if "--debug" not in sys.argv:
        _silence()
    app(prog_name="tfflows")


def _silence() -> None:
    """Lets through to stderr what Python writes there, and nothing of what TensorFlow's libraries do."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.disable(logging.WARNING)
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), 2)
    sys.stderr = open(kept, "w", buffering=1, encoding=sys.stderr.encoding, errors="replace")  # noqa: SIM115


if __name__ == "__main__":
    main()
