"""Nets that contract: the residual branch of an invertible ResNet."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from tfflows.nets.feedforward import FeedForward, lipswish
from tfflows.nets.parameters import FullPrecision
from tfflows.numerics import spectral_norm_bound
from tfflows.serialization import register

# Their slopes are at most 1.
_LIPSCHITZ = {"lipswish": lipswish, "tanh": keras.activations.tanh, "softplus": keras.activations.softplus}


@register
class LipschitzMLP(FullPrecision, FeedForward):
    """A fully connected net, `[..., D]` and context `[..., n_context]` to `[..., D]`, that contracts in its input.

    |g(x) - g(y)| <= coefficient |x - y| for all x and y, whatever the weights: each kernel is divided by a bound of its
    spectral norm where that is larger than its share of the coefficient. The bound is a formula of the weights (a
    high Schatten norm, at most 7 % above the spectral norm for 64 columns), so it holds at every step of training, and
    there is no state of a power iteration to keep. What the context adds is not bounded, and need not be.

    Args:
      n_dim: D.
      hidden: widths of the hidden layers.
      coefficient: the Lipschitz constant, in (0, 1).
      activation: "lipswish", "tanh" or "softplus", whose slopes are at most 1.

    Raises:
      ValueError: for a coefficient outside (0, 1), or another activation.

    References:
      Behrmann, Grathwohl, Chen, Duvenaud & Jacobsen (2019), Invertible residual networks,
      https://arxiv.org/abs/1811.00995; Miyato, Kataoka, Koyama & Yoshida (2018), Spectral normalization,
      https://arxiv.org/abs/1802.05957
    """

    def __init__(
        self,
        n_dim: int,
        hidden: Sequence[int] = (64, 64),
        coefficient: float = 0.97,
        activation: str = "lipswish",
        **kwargs,
    ):
        if activation not in _LIPSCHITZ:
            raise ValueError(f"Expected one of {', '.join(_LIPSCHITZ)} as activation; got {activation!r}.")
        if not 0.0 < coefficient < 1.0:
            raise ValueError(f"Expected coefficient in (0, 1); got {coefficient}.")
        super().__init__(hidden, _LIPSCHITZ[activation], residual=False, **kwargs)
        self.n_dim = int(n_dim)
        self.coefficient = float(coefficient)
        self.activation_name = activation

    def _n_outputs(self):
        return self.n_dim

    def _degrees(self, n_inputs, with_context):
        return None

    def kernels(self):
        share = self.coefficient ** (1.0 / len(self.linears))
        kernels = []
        for layer in self.linears:
            kernel = layer.masked_kernel()
            kernels.append(kernel * (share / tf.maximum(spectral_norm_bound(kernel), share)))
        return kernels

    def get_config(self):
        config = {"n_dim": self.n_dim, "coefficient": self.coefficient, "activation": self.activation_name}
        config = {**super().get_config(), **config}
        del config["residual"]
        return config
