"""Domains: where the columns of a table live, and flows that know it."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

import keras
import numpy as np

from tfflows.bijectors import (
    Bijector,
    Blockwise,
    Bounded,
    Chain,
    Circle,
    Elementwise,
    Frequencies,
    Integers,
    Invert,
    Positive,
    Simplex,
    Sphere,
)
from tfflows.transformers import Shift

__all__ = ["Domain"]

KINDS = ("line", "circle", "integers", "simplex", "sphere")
MAX_COUNTED = 256  # so many different integers have frequencies of their own
CIRCLE_BOUND = 5.0  # half the period of latents where no layer says another


@dataclasses.dataclass(frozen=True)
class Domain:
    """Where a column of a table lives, or several columns together. Made by the functions below.

    Args:
      kind: "line", "circle", "integers", "simplex" or "sphere".
      low, high: bounds of a line or of integers; a circle goes from low to high.
      n_columns: of the table, that it is of.

    Raises:
      ValueError: for another kind.
    """

    kind: str
    low: float = -math.inf
    high: float = math.inf
    n_columns: int = 1

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"Expected a kind of domain, one of {KINDS}; got {self.kind!r}.")

    @classmethod
    def real(cls) -> Domain:
        """Any number."""
        return cls("line")

    @classmethod
    def interval(cls, low: float, high: float) -> Domain:
        """Numbers from low to high, the bounds included.

        Args:
          low, high: finite, low < high.

        Raises:
          ValueError: for others.
        """
        if not -math.inf < low < high < math.inf:
            raise ValueError(f"Expected finite bounds low < high; got {low} and {high}.")
        return cls("line", float(low), float(high))

    @classmethod
    def positive(cls) -> Domain:
        """Amounts, numbers > 0; large ones may be many times as large as most, and the unit does not matter.

        Zeros are let in, but have no density of their own: where many are, they are better a column of their own.
        """
        return cls("line", 0.0)

    @classmethod
    def circular(cls, period: float, start: float = 0.0) -> Domain:
        """Angles, hours of the day: numbers that come round again.

        Args:
          period: after which they do, > 0.
          start: samples are in [start, start + period); of data any number will do.

        Raises:
          ValueError: for a period or start that is not finite, or a period <= 0.
        """
        if not 0.0 < period < math.inf or not math.isfinite(start):
            raise ValueError(f"Expected a finite period > 0 and a finite start; got {period} and {start}.")
        return cls("circle", float(start), float(start + period))

    @classmethod
    def integer(cls, low: int | None = 0, high: int | None = None) -> Domain:
        """Whole numbers, whose order means something: counts, grades.

        Args:
          low, high: the least and the largest, low < high; None for no bound.

        Raises:
          ValueError: for bounds that are not whole, or not low < high.
        """
        low, high = -math.inf if low is None else float(low), math.inf if high is None else float(high)
        if not low < high or any(math.isfinite(v) and v != math.floor(v) for v in (low, high)):
            raise ValueError(f"Expected whole numbers low < high; got {low:g} and {high:g}.")
        return cls("integers", low, high)

    @classmethod
    def categorical(cls, n: int) -> Domain:
        """Categories, as whole numbers from 0 to n - 1.

        Args:
          n: how many, >= 2.

        Raises:
          ValueError: for fewer, or no whole number.
        """
        if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 2:
            raise ValueError(f"Expected n >= 2 categories; got {n!r}.")
        return cls("integers", 0.0, float(n - 1))

    @classmethod
    def simplex(cls, n: int) -> Domain:
        """n columns > 0 that add up to 1: shares, compositions. They take n - 1 numbers of the flow.

        Args:
          n: >= 2.

        Raises:
          ValueError: for fewer.
        """
        return cls("simplex", n_columns=Simplex(n).event_shape[0])

    @classmethod
    def sphere(cls, n: int = 3) -> Domain:
        """n columns that are a unit vector: directions. They take n - 1 numbers of the flow.

        Args:
          n: >= 2.

        Raises:
          ValueError: for fewer.
        """
        return cls("sphere", n_columns=Sphere(n, 1.0).event_shape[0])

    @property
    def text(self) -> str:
        """As the command line has it: `interval:0:1`."""
        if self.kind == "line" and math.isinf(self.high):
            return "real" if math.isinf(self.low) else "positive"
        name = {"line": "interval", "circle": "circular", "integers": "integer"}.get(self.kind, self.kind)
        if self.kind in ("simplex", "sphere"):
            return name
        bounds = ["" if math.isinf(bound) else f"{bound:g}" for bound in (self.low, self.high)]
        return ":".join([name, *bounds]).rstrip(":")

    @property
    def circular_latents(self) -> list[bool]:
        """For each number of the flow that it takes, whether that is circular."""
        if self.kind == "sphere":
            return [True] + [False] * (self.n_columns - 2)
        n = self.n_columns - 1 if self.kind == "simplex" else 1
        return [self.kind == "circle"] * n


def on_domain(bijector: Bijector, domain: Sequence[Domain]) -> tuple[Bijector, np.ndarray, float]:
    """A flow of data in a domain, from one of real numbers.

    Args:
      bijector: of events `[D]`; with circular columns a new one of the same settings takes its place.
      domain: of each column, or of several together.

    Returns:
      the bijector from data to latents; which of its latents are circular; and half their period.

    Raises:
      ValueError: if the bijector has another number of scalars than the domain takes, or no splines for circular ones.
    """
    domain = list(domain) if isinstance(domain, (list, tuple)) else [domain]
    if not domain or not all(isinstance(d, Domain) for d in domain):
        raise ValueError(f"Expected a list of Domains, one for each column or group of columns; got {domain}.")
    circular = np.array([c for d in domain for c in d.circular_latents])
    if bijector.event_shape != circular.shape:
        raise ValueError(
            f"Expected a bijector of {len(circular)} numbers, as many as the domain takes; got one of event shape "
            f"{bijector.event_shape}."
        )
    bound = bijector.circle_bound or CIRCLE_BOUND
    bijector, circular = on_circles(bijector, circular, bound)
    return Chain([table(domain, bound), bijector]), circular, bound


def table(domain: Sequence[Domain], bound: float) -> Blockwise:
    """The map of all columns of a table onto real numbers, and circular ones of half period `bound`."""
    starts = itertools.accumulate((d.n_columns for d in domain), initial=0)
    placed = list(zip(domain, starts, strict=False))
    blocks = []

    def all_of(make, which):
        chosen = [(d, start) for d, start in placed if which(d)]
        if chosen:
            low, high = (np.array([getattr(d, side) for d, _ in chosen]) for side in ("low", "high"))
            blocks.append((make(low, high), [start for _, start in chosen]))

    def is_above(d):
        return math.isfinite(d.low) and not math.isfinite(d.high)

    all_of(Bounded, lambda d: d.kind == "line" and math.isfinite(d.high))
    all_of(lambda low, high: Positive(low), lambda d: d.kind == "line" and is_above(d))
    all_of(lambda low, high: Circle(high - low, low, bound), lambda d: d.kind == "circle")
    # All integers in one block: their points are drawn together.
    all_of(integers, lambda d: d.kind == "integers")
    for d, start in placed:
        if d.kind in ("simplex", "sphere"):
            block = Simplex(d.n_columns) if d.kind == "simplex" else Sphere(d.n_columns, bound)
            blocks.append((block, list(range(start, start + d.n_columns))))
    return Blockwise(
        *([list(part) for part in zip(*blocks, strict=True)] or [[], []]), sum(d.n_columns for d in domain)
    )


def domain_of(bijector: Bijector) -> list[Domain] | None:
    """Where the columns of a flow's data live, as the maps next to the data say: what `on_domain` was given.

    Returns:
      a domain for each column, or group of columns, real where nothing says another; None if events are not vectors.
    """
    if bijector.event_shape is None or len(bijector.event_shape) != 1:
        return None
    n = bijector.event_shape[0]
    if isinstance(bijector, Chain):
        first = bijector.bijectors[0]
        return domain_of(first) if isinstance(first, Bijector) and first.event_shape is not None else _all_real(n)
    if isinstance(bijector, Blockwise):
        found = dict.fromkeys(range(n), Domain.real())
        for block, columns in zip(bijector.blocks, bijector.columns, strict=True):
            if isinstance(block, (Simplex, Sphere)):  # one of several columns
                found = {c: d for c, d in found.items() if c not in columns}
            found |= dict(zip(columns, domain_of(block), strict=False))
        return [found[c] for c in sorted(found)]
    arguments = bijector.parameters
    if isinstance(bijector, Bounded):
        return [Domain("line", low, high) for low, high in zip(arguments["low"], arguments["high"], strict=True)]
    if isinstance(bijector, Positive):
        return [Domain("line", float(low)) for low in arguments["low"]]
    if isinstance(bijector, Circle):
        return [Domain.circular(*pair) for pair in zip(arguments["period"], arguments["start"], strict=True)]
    if isinstance(bijector, Integers):
        return [Domain("integers", low, high) for low, high in zip(arguments["low"], arguments["high"], strict=True)]
    if isinstance(bijector, Simplex):
        return [Domain.simplex(n)]
    if isinstance(bijector, Sphere):
        return [Domain.sphere(n)]
    if isinstance(bijector, Elementwise) and arguments["transformer"].wraps:
        bound = arguments["transformer"].circle_bound
        return [Domain.circular(2.0 * bound, -bound)] * n
    return _all_real(n)


def _all_real(n: int) -> list[Domain]:
    return [Domain.real()] * n


def integers(low: np.ndarray, high: np.ndarray) -> Chain:
    """The map of integers from low to high `[n]`: few of them by their frequencies, others as amounts are."""
    counted, above = high - low < MAX_COUNTED, np.isfinite(low) & ~np.isfinite(high)
    kinds = (
        (counted, Frequencies),
        (above, lambda low, high: Positive(low - 0.5)),
        (~counted & ~above, lambda low, high: Bounded(low - 0.5, high + 0.5)),
    )
    blocks = [(make(low[which], high[which]), np.flatnonzero(which).tolist()) for which, make in kinds if which.any()]
    maps = Blockwise([block for block, _ in blocks], [columns for _, columns in blocks], len(low))
    return Chain([Integers(low, high), maps])


def on_circles(bijector: Bijector, circular: np.ndarray, bound: float) -> tuple[Bijector, np.ndarray]:
    """`Bijector.on_circles` of all parts of a flow, each that has a fixed seam after a learned rotation."""
    if not circular.any():
        return bijector, circular
    if isinstance(bijector, Chain):
        parts = []
        for part in bijector.bijectors:
            if not isinstance(part, Bijector):
                raise ValueError(f"Expected bijectors of tfflows for circular columns; got {part!r}.")
            part, circular = on_circles(part, circular, bound)
            parts.append(part)
        return Chain(parts, recompute=bijector.parameters["recompute"]), circular
    if isinstance(bijector, Invert):
        inside = bijector.parameters["bijector"]
        if not isinstance(inside, Bijector):
            raise ValueError(f"Expected bijectors of tfflows for circular columns; got {inside!r}.")
        inside, after = on_circles(inside, circular, bound)
        if not np.array_equal(after, circular):
            raise ValueError("Expected an inverted bijector that leaves the order of circular columns; got another.")
        return Invert(inside), circular
    new, after = bijector.on_circles(circular, bound)
    if bijector.circle_bound is None:
        return new, after
    return Chain([rotation(circular, bound), new]), after


def rotation(circular: np.ndarray, bound: float) -> Blockwise:
    """Turns each circular column by a learned angle, at random at first."""
    columns = np.flatnonzero(circular)
    start = keras.initializers.RandomUniform(-bound, bound)
    turn = Elementwise(Shift(circular_bound=bound), len(columns), initializer=start)
    return Blockwise([turn], [columns.tolist()], len(circular))
