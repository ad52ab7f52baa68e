"""Weights that depend on nothing: learned, or set from data."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from tfflows.serialization import register


class FullPrecision(keras.layers.Layer):
    """A layer that is part of a bijection itself: it computes in all digits where mixed precision rounds other nets."""

    @property
    def compute_dtype(self):
        """That of the weights."""
        return self.variable_dtype

    @property
    def input_dtype(self):
        """That of the weights."""
        return self.variable_dtype


@register
class Constant(FullPrecision):
    """One weight, returned whatever the input: parameters that depend on nothing.

    Args:
      shape: shape of the weight.
      initializer: a Keras initializer; zeros by default.
    """

    def __init__(self, shape: Sequence[int], initializer="zeros", **kwargs):
        super().__init__(**kwargs)
        self.shape = tuple(int(n) for n in shape)
        self.initializer = keras.initializers.get(initializer)
        self.value = self.add_weight(shape=self.shape, initializer=self.initializer, name="value")
        self.built = True

    def call(self, x=None):
        """The weight, of `shape`; `x` is not looked at."""
        return tf.convert_to_tensor(self.value)

    def get_config(self):
        initializer = keras.initializers.serialize(self.initializer)
        return {**super().get_config(), "shape": self.shape, "initializer": initializer}


class SetFromData(FullPrecision):
    """Weights that are set from data, and whether that has happened."""

    def add_adapted(self) -> None:
        """Adds the weight that says so: a Python attribute would be lost in files."""
        self.adapted = self.add_weight(shape=(), initializer="zeros", trainable=False, name="adapted")
        self.built = True

    @property
    def is_adapted(self) -> bool:
        """Whether the weights have been set from data."""
        return bool(keras.ops.convert_to_numpy(self.adapted))  # under a strategy a variable is no number


@register
class Statistics(SetFromData):
    """Location and scale of each scalar, set from data, and whether that has happened.

    The scale is kept as its logarithm, so it stays positive whatever the optimizer does. A location that is not trained
    has a second part, what rounding took from the first: together they hold twice the digits, for data far from zero.

    Args:
      shape: shape of location and scale.
      trainable: whether training goes on changing them (ActNorm) or not (Standardize).
    """

    def __init__(self, shape: Sequence[int], trainable: bool = False, **kwargs):
        super().__init__(trainable=trainable, **kwargs)
        self.shape = tuple(int(n) for n in shape)
        self.location = self.add_weight(shape=self.shape, initializer="zeros", trainable=trainable, name="location")
        self.log_scale = self.add_weight(shape=self.shape, initializer="zeros", trainable=trainable, name="log_scale")
        self.add_adapted()
        if not trainable:
            self.rest = self.add_weight(shape=self.shape, initializer="zeros", trainable=False, name="rest")

    def call(self, x=None):
        """The location, the logarithm of the scale, and what is to be added to the location, each of `shape`.

        `x` is not looked at.
        """
        rest = self.rest if hasattr(self, "rest") else tf.zeros_like(self.location)
        return tuple(tf.convert_to_tensor(weight) for weight in (self.location, self.log_scale, rest))

    def set(self, location: np.ndarray, scale: np.ndarray) -> None:
        """Assigns `location` and `scale` (> 0), both of `shape`, and marks them as adapted."""
        self.location.assign(location)
        if hasattr(self, "rest"):
            self.rest.assign(location - np.asarray(location).astype(self.variable_dtype))
        self.log_scale.assign(np.log(scale))
        self.adapted.assign(1.0)

    def load_own_variables(self, store):
        """Keras' own, and of files from before there was a `rest`."""
        if hasattr(self, "rest") and len(store) == len(self.weights) - 1:
            numbers = [str(i) for i in range(len(store) + 1)]  # Keras' store cannot be iterated over
            store = {i: store[i] if i in store.keys() else np.zeros(self.shape) for i in numbers}  # noqa: SIM118
        super().load_own_variables(store)

    def get_config(self):
        return {**super().get_config(), "shape": self.shape}


@register
class AffineMap(SetFromData):
    """A mean and a lower triangular matrix, set from data, with its inverse; not trained.

    Args:
      n_dim: number of scalars.
    """

    def __init__(self, n_dim: int, **kwargs):
        super().__init__(trainable=False, **kwargs)
        self.n_dim = int(n_dim)
        square = (self.n_dim, self.n_dim)
        self.mean = self.add_weight(shape=(self.n_dim,), initializer="zeros", trainable=False, name="mean")
        self.factor = self.add_weight(shape=square, initializer="identity", trainable=False, name="factor")
        self.inverse = self.add_weight(shape=square, initializer="identity", trainable=False, name="inverse")
        self.add_adapted()

    def call(self, x=None):
        """The mean `[n_dim]`, the factor and its inverse, both `[n_dim, n_dim]`; `x` is not looked at."""
        return tuple(tf.convert_to_tensor(weight) for weight in (self.mean, self.factor, self.inverse))

    def set(self, mean: np.ndarray, factor: np.ndarray) -> None:
        """Assigns `mean` `[n_dim]` and `factor` `[n_dim, n_dim]` (of positive diagonal), and marks them as adapted."""
        self.mean.assign(mean)
        self.factor.assign(factor)
        self.inverse.assign(np.linalg.inv(factor))
        self.adapted.assign(1.0)

    def get_config(self):
        return {**super().get_config(), "n_dim": self.n_dim}


@register
class Shares(SetFromData):
    """Shares of the categories of several columns, set from data, and whether that has happened.

    Args:
      sizes: number of categories of each column; all are equal at first.
    """

    def __init__(self, sizes: Sequence[int], **kwargs):
        super().__init__(trainable=False, **kwargs)
        self.sizes = tuple(int(n) for n in sizes)
        self.value = self.add_weight(
            shape=(len(self.sizes), max(self.sizes)), initializer="zeros", trainable=False, name="value"
        )
        self.add_adapted()
        self._assign([np.full(n, 1.0 / n) for n in self.sizes])

    def _assign(self, shares):
        self.value.assign(np.stack([np.pad(share, (0, max(self.sizes) - len(share))) for share in shares]))

    def set(self, shares: Sequence[np.ndarray]) -> None:
        """Assigns the `shares`, for each column one of each category, adding up to 1, and marks them as adapted."""
        self._assign(shares)
        self.adapted.assign(1.0)

    def call(self, x=None):
        """The shares `[n_columns, most categories]`, zeros where a column has fewer; `x` is not looked at."""
        return tf.convert_to_tensor(self.value)

    def get_config(self):
        return {**super().get_config(), "sizes": self.sizes}
