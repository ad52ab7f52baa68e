"""SoftFlow."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from tfflows import losses
from tfflows.architectures.splines import CouplingRQNSF
from tfflows.bijectors import Bijector, Chain, Noise, Standardize


def SoftFlow(
    n_dim: int,
    *,
    preset: Callable[..., Bijector] = CouplingRQNSF,
    max_noise: float = 0.1,
    power: float = 1.0,
    context_dim: int | None = None,
    **arguments,
) -> Bijector:
    """Another preset, trained with noise of random scale that it hears of: for data on thin manifolds.

    The density of data on a curve or a surface is infinite, and what a flow that is fitted to them learns last is ever
    narrower. This one learns the data blurred by noise of every scale up to max_noise, which are proper densities,
    samples at none, and is otherwise a flow like all others.

    Both directions cost what they cost in that preset.

    Args:
      n_dim: number of scalars.
      preset: of this package, with a context: the layers.
      max_noise: the largest scale, in standard deviations of each scalar, > 0. Twice as large reaches twice as far from
        the manifold; much larger blurs what is to be seen.
      power: scales are max_noise u^power, u uniform, as in `losses.NoisyLikelihood`. 1 is the paper's. With 3 half of
        the scales are below a tenth of max_noise, not a tenth of them: most samples come twice as near to a curve,
        the densities of the blurred data are worse by a tenth of a nat and more, and `RealNVP` trains less steadily.
      context_dim: width of the users' context, or None; the scale comes on top.
      **arguments: of the preset.

    Raises:
      ValueError: for a scale or power that is not positive, or a preset without a context.

    Reference:
      Kim, Lee, Kang & Kim (2020), SoftFlow: probabilistic framework for normalizing flow on manifolds,
      https://arxiv.org/abs/2006.04604
    """
    noise = Noise(n_dim, max_noise, losses.NoisyLikelihood(power))
    takes = inspect.signature(preset).parameters if callable(preset) else {}
    if "context_dim" not in takes and all(p.kind is not p.VAR_KEYWORD for p in takes.values()):
        raise ValueError(f"Expected a preset with a context_dim, such as RealNVP; got {preset!r}.")
    bijector = preset(n_dim, context_dim=(context_dim or 0) + 1, **arguments)
    parts = bijector.bijectors if isinstance(bijector, Chain) else [bijector]
    first = parts[:1] if isinstance(parts[0], Standardize) else []
    return Chain([*first, noise, *parts[len(first) :]])
