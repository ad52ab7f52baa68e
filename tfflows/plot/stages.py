"""What each layer of a flow makes of latents, on their way to the data."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfflows.bijectors import Blockwise, Chain, Invert, Permutation
from tfflows.bijectors.base import Bijector, describe
from tfflows.plot.subject import Subject


class Stage(NamedTuple):
    """Points on their way from the latent to the data.

    Args:
      name: of the layer that they come out of.
      values: `[n, D]`, in the order of the data's columns.
      period: of circular columns where they begin and how long they are, `[D, 2]`; NaN for the others.
    """

    name: str
    values: np.ndarray
    period: np.ndarray


def stages(flow, z, context=None) -> list[Stage]:
    """Latents `[n, D]` as each layer of a flow passes them on: the latents first, the data last.

    Permutations are no stages: they name the columns anew, and here every column keeps the place it has in the data.

    Args:
      flow: a `FlowModel` of vectors, whose latents are as wide.
      context: one condition, if it is conditional.
    """
    subject = subject_of(flow, context)
    heard = flow._hear(None if subject.row is None else tf.convert_to_tensor(subject.row))
    value = tf.convert_to_tensor(z, flow.accepts.dtype)
    if heard is not None:
        heard = tf.broadcast_to(heard, [len(z), heard.shape[-1]])
    parts = _parts(flow.bijector)
    # Of each part's latents, which column of the data they stand for.
    orders = [np.arange(subject.n_dim)]
    for part in parts:
        order = orders[-1]
        if isinstance(part, Permutation):
            order = np.asarray(part.inverse(tf.constant(order[np.newaxis], part.dtype)))[0].astype(int)
        orders.append(order)
    inside, outside = periods(flow, subject)

    def stage(name, order, period):
        place = np.argsort(order)
        return Stage(name, np.asarray(value, np.float64)[:, place], period)

    found = [stage("latent", orders[-1], inside if parts else outside)]
    for i in reversed(range(len(parts))):
        value = Chain([parts[i]]).forward_and_log_det(value, heard)[0]
        if not isinstance(parts[i], Permutation):
            found.append(stage(_name(parts[i]), orders[i], inside if i else outside))
    return found


def subject_of(flow, context) -> Subject:
    if not hasattr(flow, "encode") or not isinstance(getattr(flow, "bijector", None), Bijector):
        raise ValueError(f"Expected a FlowModel, with one latent space; got {flow!r}.")
    subject = Subject(flow, context)
    if subject.n_dim > 2 or flow.base.event_shape != (subject.n_dim,):
        raise ValueError(f"Expected a flow of 1 or 2 numbers; got {subject.n_dim}, latents {flow.base.event_shape}.")
    return subject


def _parts(bijector) -> list:
    """The parts of a chain, from the data to the latent, those of chains in it too."""
    if isinstance(bijector, Chain):
        return [part for inner in bijector.bijectors for part in _parts(inner)]
    if isinstance(bijector, Invert):
        return [_inverted(part) for part in reversed(_parts(bijector.parameters["bijector"]))]
    return [bijector]


def _inverted(part):
    if isinstance(part, Permutation):
        return Permutation(np.argsort(part.parameters["permutation"]))
    return Invert(part)


def periods(flow, subject) -> tuple[np.ndarray, np.ndarray]:
    """Of circular columns, where they begin and their period, `[D, 2]`: in the latent space, and as data."""
    inside = np.full((subject.n_dim, 2), np.nan)
    outside = inside.copy()
    for i, domain in enumerate(subject.domain):
        if domain.kind == "circle":
            bound = getattr(flow.base, "bound", None) or flow.bijector.circle_bound
            inside[i] = -bound, 2.0 * bound
            outside[i] = domain.low, domain.high - domain.low
    return inside, outside


def _name(part) -> str:
    """Of a layer in one or two words; of columns' maps theirs."""
    if isinstance(part, Blockwise):
        return ", ".join(dict.fromkeys(_name(block) for block in part.blocks)) or "columns"
    if isinstance(part, Invert):
        return f"inverse {_name(part.parameters['bijector'])}"
    if isinstance(part, Chain):
        return _name(part.bijectors[0])
    return describe(part).split(":")[0].split(",")[0].split("(")[0]
