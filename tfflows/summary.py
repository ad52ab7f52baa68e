"""A flow as a table for readers."""

from __future__ import annotations

from tfflows.bijectors import Bijector, Chain
from tfflows.bijectors.base import describe


def table(flow) -> str:
    """The parts of a `FlowModel`, from the data to the latent, one a line, with numbers of weights."""
    bijector = flow.bijector
    parts = bijector.bijectors if isinstance(bijector, Chain) else [bijector]
    rows = [("data", f"shape {bijector.event_shape}", "weights")]
    for i, part in enumerate(parts):
        layers = part.layers if isinstance(part, Bijector) else []
        rows.append((str(i), describe(part), f"{sum(layer.count_params() for layer in layers):,}"))
    if flow.context_net is not None:
        shape = f"{flow.context_net.name}, shape {flow.context_shape} to {flow.context_dim}"
        rows.append(("context", shape, f"{flow.context_net.count_params():,}"))
    rows.append(("latent", type(flow.base).__name__, f"{flow.base.count_params():,}"))
    rows.append(("", "total", f"{flow.count_params():,}"))
    width = max(len(row[1]) for row in rows)
    return "\n".join([flow.name, *(f"{a:<8}{b:<{width}}{c:>12}" for a, b, c in rows)])
