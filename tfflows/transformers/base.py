"""What every transformer is."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from tfflows.serialization import Record


class Transformer(Record):
    """An increasing map of one number, x = f(z; params), with its inverse.

    `forward` generates (latent z to data x) and `inverse` normalises, as in TFP. Its
    parameters come from a net or from a learned constant, and all-zero parameters mean the identity; weights of its
    own it has only in a net that all numbers share (`layers`). Concrete transformers are frozen dataclasses: the
    fields are the constructor's arguments.

    The parameters' axis comes before that of the numbers: one parameter of all numbers lies together in memory,
    and all arithmetic runs along it.
    """

    @property
    def n_parameters(self) -> int:
        """How many parameters one number needs."""
        raise NotImplementedError  # abstract

    def forward_and_log_det(self, z: tf.Tensor, params: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Maps `z` `[..., D]` with `params` `[..., n_parameters, D]` to x and log dx/dz, both `[..., D]`."""
        raise NotImplementedError  # abstract

    def inverse_and_log_det(self, x: tf.Tensor, params: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Maps `x` `[..., D]` with `params` `[..., n_parameters, D]` to z and log dz/dx, both `[..., D]`."""
        raise NotImplementedError  # abstract

    @property
    def circle_bound(self) -> float | None:
        """The b for which it maps circular numbers of period 2 b onto themselves, without a seam; None if for none."""
        return None

    @property
    def wraps(self) -> bool:
        """Whether it takes all numbers as circular ones."""
        return False

    def on_circles(self, circular: np.ndarray, bound: float) -> Transformer:
        """The map for numbers of which some are circular, of period 2 * bound.

        This one, which then keeps the seam where it is, with slope 1; or if all are circular, one with the freedom that
        a circle leaves.

        Args:
          circular: `[D]` booleans, which of the numbers are.
          bound: > 0, half the period.

        Raises:
          ValueError: if it has a seam, or turns all numbers round and some are not circular.
        """
        if self.wraps and not np.all(circular):
            raise ValueError(f"Expected a map that is not circular for columns that are not; got {self}.")
        if np.any(circular) and self.circle_bound != bound:
            raise ValueError(f"Expected a spline of bound {bound:g} for circular columns; got {self}.")
        return self._circular() if np.all(circular) else self

    def _circular(self) -> Transformer:
        return self

    @property
    def layers(self) -> list[keras.layers.Layer]:
        """Keras layers inside, which hold weights; none, but for an integrand net."""
        return []
