"""What commands say while they work, all on stderr, and what they report at the end."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
import warnings
from collections.abc import Iterator, Sequence

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from tfflows.checks import listed

stderr = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)


@dataclasses.dataclass(frozen=True)
class Report:
    """What a command found.

    Args:
      facts: for machines, JSON's types and NumPy's numbers.
      text: for people.
      code: the exit code.
    """

    facts: dict
    text: RenderableType
    code: int = 0


def note(text: str) -> None:
    """Says something that the user should know."""
    stderr.print(text)


@contextlib.contextmanager
def noted_warnings(names: Sequence[str] = ()) -> Iterator[None]:
    """The package's own warnings as notes; those of the libraries below say nothing to a user of commands.

    Args:
      names: of columns that the warnings count.
    """

    def show(message, *_, **__):
        note("Note: " + re.sub(r"Columns \[([\d, ]+)\]", lambda found: f"Columns {named(found[1])}", str(message)))

    def named(numbers):
        return listed(names[int(i)] if int(i) < len(names) else i for i in numbers.split(","))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("always", category=UserWarning, module="tfflows")
        warnings.showwarning = show
        yield


@contextlib.contextmanager
def progress(what: str, total: float | None = None) -> Iterator:
    """A bar on a terminal, nothing elsewhere; gives a function of (how much is done, what to say of it)."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[detail]}"), TimeElapsedColumn())
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as bar:
        task = bar.add_task(what, total=total, detail="")
        yield lambda done, detail="": bar.update(task, completed=done, detail=detail)


def mean_and_error(total: float, squares: float, weight: float, weight_squares: float) -> tuple[float, float]:
    """The mean and its standard error, of sums of w v, w v^2, w and w^2."""
    mean = total / weight
    n = weight**2 / weight_squares  # as many rows of equal weight would be as uncertain
    spread = max(squares / weight - mean**2, 0.0)
    return mean, math.sqrt(spread / (n - 1.0)) if n > 1.0 else math.nan


def counted(n: int, what: str) -> str:
    """Such as "1 row" and "2,000 rows"."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def nats(mean: float, error: float) -> str:
    """A log-likelihood as people read it."""
    return f"{mean:.4f}{'' if math.isnan(error) else f' +- {error:.4f}'} nats"
