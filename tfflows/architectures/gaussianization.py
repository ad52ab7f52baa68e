"""Flows that make data normal, direction by direction."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from tfflows.architectures.stacks import standardized
from tfflows.bijectors import Bijector, Elementwise, Householder, Sliced
from tfflows.nets import MLP
from tfflows.numerics import check_counts
from tfflows.transformers import MixtureOfLogistics


def GaussianizationFlow(
    n_dim: int,
    *,
    n_layers: int = 6,
    hidden: Sequence[int] = (64, 64),
    n_components: int = 12,
    context_dim: int | None = None,
) -> Bijector:
    """Trained scalar maps in turns with trained rotations; no scalar is conditioned on another.

    Densities cost no net at all; samples cost bisections. The scalar maps are the distribution functions of mixtures of
    logistic densities, followed by the logistic's quantile, where the paper has the normal's.

    Args:
      n_dim: number of scalars.
      n_layers: number of scalar maps, with a rotation between two of them.
      hidden: with a context, widths of the hidden layers of the nets that hear it.
      n_components: logistic densities in a mixture.
      context_dim: width of the context, or None.

    Raises:
      ValueError: for a count below 1.

    Reference:
      Meng, Song, Song & Ermon (2020), Gaussianization flows, https://arxiv.org/abs/2003.01941
    """
    check_counts(n_dim=n_dim, n_layers=n_layers)
    layers = []
    for i in range(n_layers):
        f = MixtureOfLogistics(n_components)
        net = None if context_dim is None else MLP(n_dim * f.n_parameters, hidden)
        if i > 0 and n_dim > 1:
            layers.append(Householder(n_dim))
        # With all components equal the gradient of standardised data is zero, and nearly equal ones part slowly.
        layers.append(Elementwise(f, n_dim, net, context_dim, keras.initializers.RandomNormal(stddev=0.5)))
    return standardized(n_dim, layers)


def SINF(
    n_dim: int,
    *,
    n_layers: int = 200,
    n_directions: int | None = None,
    n_knots: int = 48,
    step: float = 0.3,
    patience: int = 20,
    held_out: float = 0.2,
    seed: int = 0,
    fine_tune: bool = False,
) -> Bijector:
    """Sliced iterative normalizing flow (its form for densities, GIS): layers found from data, without gradients.

    Both directions cost one pass through the layers. The first `fit` finds them. Meant for small data.

    Args:
      n_dim: number of scalars.
      n_layers, n_directions, n_knots, step, patience, held_out, seed, fine_tune: as in `bijectors.Sliced`.

    Raises:
      ValueError: as `bijectors.Sliced` does.

    Reference:
      Dai & Seljak (2021), Sliced iterative normalizing flows, https://arxiv.org/abs/2007.00674
    """
    layers = Sliced(
        n_dim,
        n_layers,
        n_directions,
        n_knots,
        step=step,
        patience=patience,
        held_out=held_out,
        seed=seed,
        fine_tune=fine_tune,
    )
    return standardized(n_dim, [layers])
