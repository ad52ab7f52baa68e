"""Where in a model a bijector or a weight is, in words."""

from __future__ import annotations

from collections.abc import Iterator

import tensorflow as tf

from tfflows.bijectors import Bijector
from tfflows.bijectors.base import describe

# What the parts of a bijector are called, by the argument that it is given them as.
CALLED = {"bijectors": "layer", "levels": "level"}


def place(model, bijector) -> str:
    """The bijector and where it is, counted from the data: "layer 3 of 9, 'Coupling: Affine of 2 given 2, MLP 8'"."""
    for position, part in _everywhere(model):
        if part is bijector:
            return ", ".join([*position, f"'{describe(bijector)}'"])
    return f"'{describe(bijector)}'"


def place_of_weight(model, weight) -> str:
    """The path of a weight, and the place of the bijector that it belongs to, if there is one."""
    holders = [
        (position, part)
        for position, part in _everywhere(model)
        if isinstance(part, Bijector) and any(weight is w for layer in part.layers for w in layer.weights)
    ]
    if not holders:
        return weight.path
    position, part = holders[-1]  # the innermost
    return ", ".join([f"{weight.path} in {' '.join(position[:1])}", *position[1:], f"'{describe(part)}'"])


def _everywhere(model) -> Iterator[tuple[list[str], tf.Module]]:
    """All bijectors of a model, the outer ones first, each after the words for where it is."""
    if hasattr(model, "bijector"):
        yield from _inside(model.bijector, [])
        return
    flows = model._flows()
    for i, flow in enumerate(flows, start=1):
        yield from _inside(flow.bijector, [f"flow {i} of {len(flows)}"])
    for name, part in vars(model).items():
        if hasattr(part, "bijector"):
            yield from _inside(part.bijector, [f"the flow of '{name}'"])


def _inside(bijector, position):
    yield position, bijector
    arguments = bijector.parameters.items() if isinstance(bijector, Bijector) else ()
    for name, value in arguments:
        parts = [part for part in tf.nest.flatten(value) if hasattr(part, "inverse_event_ndims")]
        for i, part in enumerate(parts, start=1):
            here = [f"{CALLED.get(name, 'part')} {i} of {len(parts)}"] if len(parts) > 1 else []
            yield from _inside(part, [*position, *here])
