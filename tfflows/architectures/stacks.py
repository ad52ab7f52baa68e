"""What presets are stacked from."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tfflows.bijectors import (
    Bijector,
    Chain,
    Coupling,
    Elementwise,
    Invert,
    MaskedAutoregressive,
    Permutation,
    Standardize,
    half_mask,
)
from tfflows.nets import MADE, MLP
from tfflows.numerics import check_counts
from tfflows.transformers import Transformer


def standardized(n_dim: int, layers: Sequence[Bijector]) -> Chain:
    """The layers after a `Standardize`, so that data of any scale will do."""
    return Chain([Standardize(n_dim), *layers])


def couplings(
    transformer: Callable[[], Transformer],
    n_dim: int,
    n_layers: int,
    hidden: Sequence[int],
    context_dim: int | None,
    *,
    circular: bool = False,
    linear: Callable[[int], Bijector] | None = None,
) -> list[Bijector]:
    """Half couplings; halves are swapped in turns, and more than two scalars mixed after each two layers.

    Args:
      transformer: makes the transformer of each layer.
      n_dim, n_layers, hidden, context_dim: as the presets have them. With one scalar the layers are elementwise.
      circular: whether the nets see angles.
      linear: makes the map of n_dim scalars that mixes them between all layers, in place of permutations.
    """
    check_counts(n_dim=n_dim, n_layers=n_layers)
    if n_dim == 1:
        return _elementwise(transformer, n_layers, hidden, context_dim)
    layers = []
    for i in range(n_layers):
        mask = half_mask(n_dim, flip=i % 2 == 1)
        if i > 0 and linear is not None:
            layers.append(linear(n_dim))
        elif i > 0 and i % 2 == 0 and n_dim > 2:
            layers.append(Permutation.random(n_dim, seed=i))
        f = transformer()
        net = MLP(int(mask.sum()) * f.n_parameters, hidden, circular=circular)
        layers.append(Coupling(f, mask, net, context_dim))
    return layers


def autoregressions(
    transformer: Callable[[], Transformer],
    n_dim: int,
    n_layers: int,
    hidden: Sequence[int],
    context_dim: int | None,
    *,
    alternate: bool = True,
) -> list[Bijector]:
    """Masked autoregressive layers; arguments as in `couplings`.

    Args:
      alternate: whether they go left to right and right to left in turns. If all go left to right, the Jacobian stays
        triangular, and marginals and conditionals in that order are exact; layers in turns fit joint densities better.
    """
    check_counts(n_dim=n_dim, n_layers=n_layers)
    layers = []
    for i in range(n_layers):
        order = np.arange(n_dim) if i % 2 == 0 or not alternate else np.arange(n_dim)[::-1]
        f = transformer()
        layers.append(MaskedAutoregressive(f, MADE(n_dim, f.n_parameters, hidden, order=order), context_dim))
    return layers


def inverted(layers: Sequence[Bijector]) -> list[Bijector]:
    """Each layer the other way round, which makes autoregressive ones inverse autoregressive."""
    return [Invert(layer) for layer in layers]


def _elementwise(transformer, n_layers, hidden, context_dim):
    """Layers for one scalar, which has nothing to be conditioned on but the context."""
    layers = []
    for _ in range(n_layers):
        f = transformer()
        net = None if context_dim is None else MLP(f.n_parameters, hidden)
        layers.append(Elementwise(f, 1, net, context_dim))
    return layers
