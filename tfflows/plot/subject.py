"""What is drawn: a distribution of few numbers, of tfflows or anybody's, with its columns."""

from __future__ import annotations

import functools

import numpy as np
import tensorflow as tf

from tfflows.domains import Domain
from tfflows.nets.context import Heard
from tfflows.plot.canvas import check_limits, names
from tfflows.questions import estimates


class Subject:
    """A distribution of events `[D]`, given one condition.

    Args:
      flow: a flow, a mixture, a TFP distribution, or anything with `log_prob`, and if it has one a `sample`.
      context: one condition, if it is conditional.
      width: of the events, where it does not say it itself.

    Raises:
      ValueError: for anything else, or events that are not vectors.
    """

    def __init__(self, flow, context=None, width: int | None = None):
        if not callable(getattr(flow, "log_prob", None)):
            raise ValueError(f"Expected a flow, or a distribution with a log_prob; got {flow!r}.")
        self.flow, self.context, self.accepts = flow, context, getattr(flow, "accepts", None)
        shape = _event_shape(flow, width)
        if len(shape) > 1 or None in shape:
            raise ValueError(f"Expected events of one axis; got event shape {shape}.")
        self._is_scalar = shape == ()
        self.n_dim = 1 if self._is_scalar else shape[0]
        self.row = None
        if self.accepts is not None:
            self.row = estimates.one_context(flow, context)
            self._heard = flow._listened(self.row, None)  # a context net runs once, not for each point
        elif context is not None:
            raise ValueError(f"Expected no context for {type(flow).__name__}; got one.")
        groups = getattr(flow, "domain", None) or [Domain.real()] * self.n_dim
        if any(d.n_columns > 1 for d in groups):
            kind = next(d.kind for d in groups if d.n_columns > 1)
            raise ValueError(f"Expected columns that do not depend on each other; got a {kind}, which has no area.")
        self.domain = list(groups)
        schema = getattr(flow, "schema", None)
        self._names = None if schema is None else [column.name for column in schema.columns]
        self.categories = [None if schema is None else column.categories for column in (schema or _Nothing).columns]

    def labels(self, labels) -> list[str]:
        """Names of the columns: as given, of the schema, or x0, x1, ..."""
        return names(labels, self.n_dim, self._names)

    def log_prob(self, x: np.ndarray) -> np.ndarray:
        """Log-densities `[n]` of x `[n, D]`; -inf where there is none."""
        if self.accepts is not None:
            found = self.flow.log_prob(x, self.repeated(len(x)))
        elif isinstance(getattr(self.flow, "dtype", None), tf.DType):
            found = self.flow.log_prob(tf.cast(x[:, 0] if self._is_scalar else x, self.flow.dtype))
        else:
            found = self.flow.log_prob(x)
        found = np.asarray(found, np.float64)
        if found.shape != (len(x),):
            raise ValueError(f"Expected log-densities of shape [{len(x)}]; got {list(found.shape)}.")
        return np.where(np.isnan(found), -np.inf, found)

    def repeated(self, n: int):
        """The condition for each of n rows, as verbs take it."""
        if isinstance(self._heard, Heard):
            repeat = functools.partial(tf.repeat, repeats=n, axis=0)
            return tf.nest.map_structure(lambda v: None if v is None else repeat(v), self._heard)
        return estimates.repeated(self._heard, n)

    def draws(self, n: int, seed: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Draws `[n, D]` and their log-densities `[n]`; None if it has none."""
        if not callable(getattr(self.flow, "sample", None)):
            return None
        if self.accepts is not None:
            drawn, log_prob = estimates.draws(self.flow, n, self.context, seed)
            return np.asarray(drawn, np.float64), log_prob
        drawn = np.asarray(self.flow.sample(n, seed=seed), np.float64).reshape(n, self.n_dim)
        return drawn, self.log_prob(drawn)

    def data(self, x) -> np.ndarray | None:
        """Data `[n, D]`, checked."""
        if x is None:
            return None
        if self.accepts is not None:
            x = self.accepts.value(x)
            self.accepts.check_domain(x)
        x = np.asarray(x, np.float64)
        x = x[:, np.newaxis] if x.ndim == 1 and self._is_scalar else x
        if x.ndim != 2 or x.shape[1] != self.n_dim or len(x) == 0 or not np.all(np.isfinite(x)):
            raise ValueError(f"Expected finite data of shape [n, {self.n_dim}]; got {list(x.shape)}, or NaN or inf.")
        return x

    def limits(self, limits, *points: np.ndarray | None) -> np.ndarray:
        """`[D, 2]`: the limits given, or those of nearly all points and a margin; never out of the domain."""
        if limits is not None:
            found = check_limits(limits, self.n_dim)
        else:
            points = [p for p in points if p is not None]
            if not points:
                raise ValueError("Expected limits, or data, for a distribution without sample; got neither.")
            # Each has a say, however many there are of the others.
            ends = [spread(p) for p in points]
            found = np.stack([np.min([e[0] for e in ends], axis=0), np.max([e[1] for e in ends], axis=0)], axis=1)
            for i, domain in enumerate(self.domain):
                if domain.kind == "circle":
                    found[i] = domain.low, domain.high
                elif domain.kind == "integers":  # each has room for all of its bar or cell
                    found[i] = np.ceil(found[i, 0]) - 0.5, np.floor(found[i, 1]) + 0.5
        low, high = (np.array([getattr(d, side) for d in self.domain]) for side in ("low", "high"))
        circular = np.array([d.kind == "circle" for d in self.domain])
        margin = np.array([0.5 * (d.kind == "integers") for d in self.domain])
        clipped = np.stack([np.maximum(found[:, 0], low - margin), np.minimum(found[:, 1], high + margin)], axis=1)
        found = np.where(circular[:, np.newaxis], found, clipped)
        if np.any(found[:, 0] >= found[:, 1]):
            raise ValueError(f"Expected limits with some of the domain between them; got {limits}.")
        return found


class _Nothing:
    columns = ()


def spread(points: np.ndarray) -> np.ndarray:
    """`[2, D]`: between which nearly all of points `[n, D]` are, and a little more."""
    low, high = np.quantile(points, [0.002, 0.998], axis=0)
    margin = np.where(high > low, 0.08 * (high - low), 0.5)
    return np.stack([low - margin, high + margin])


def _event_shape(flow, width) -> tuple:
    if hasattr(flow, "accepts"):
        return tuple(flow.accepts.event_shape)
    if hasattr(flow, "event_shape"):
        return tuple(flow.event_shape)
    width = getattr(flow, "n_dim", width)
    if width is None:
        raise ValueError(f"Expected data, limits, or a distribution that knows its event_shape; got {flow!r}.")
    return (int(width),)
