"""PointNet: what a cloud of points looks like, in whatever order they come."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from tfflows.numerics import check_counts
from tfflows.serialization import register


@register
class PointNet(keras.layers.Layer):
    """Numbers that describe a cloud and depend neither on the order of its points nor on which are there twice.

    net(max over points of point_net(x_i)), the largest of each feature; `net(x)` or `net(x, present)`, from points
    `[n, P, D]`, any number of them, and `[n, P]`, 0 where there is none, to `[n, n_outputs]`.

    Args:
      n_outputs: how many numbers.
      hidden: widths of the net of each point, whose last one is the number of features.
      after: widths of the hidden layers after the maximum.

    Raises:
      ValueError: for a width that is not positive.

    Reference:
      Qi, Su, Mo & Guibas (2017), PointNet: deep learning on point sets for 3D classification and segmentation,
      https://arxiv.org/abs/1612.00593
    """

    def __init__(self, n_outputs: int, hidden: Sequence[int] = (64, 128, 256), after: Sequence[int] = (128,), **kwargs):
        super().__init__(**kwargs)
        hidden, after = tuple(hidden), tuple(after)
        check_counts(n_outputs=n_outputs, features=len(hidden), **{f"hidden[{i}]": n for i, n in enumerate(hidden)})
        check_counts(**{f"after[{i}]": n for i, n in enumerate(after)})
        self.n_outputs, self.hidden, self.after = int(n_outputs), hidden, after
        self.point_net = keras.Sequential([keras.layers.Dense(n, "silu") for n in hidden])
        self.net = keras.Sequential(
            [*(keras.layers.Dense(n, "silu") for n in after), keras.layers.Dense(n_outputs)], name="after"
        )

    def build(self, x_shape, present_shape=None):
        """Makes the weights, given the shapes that Keras has of the arguments of a call.

        Args:
          x_shape: `(n, P, D)`.
          present_shape: `(n, P)` or None.
        """
        self.point_net.build((None, x_shape[-1]))
        self.net.build((None, self.hidden[-1]))
        self.built = True

    def call(self, x, present=None):
        """The outputs, `[n, n_outputs]`.

        Args:
          x: `[n, P, D]`.
          present: `[n, P]`, 0 where there is no point; None if all are there.
        """
        # As rows: of more axes products are batches of small ones, which are slower.
        rows = self.point_net(tf.reshape(x, [-1, x.shape[-1]]))
        features = tf.reshape(rows, tf.concat([tf.shape(x)[:-1], [self.hidden[-1]]], axis=0))
        if present is not None:
            features = tf.where(present[..., tf.newaxis] > 0.0, features, features.dtype.min)
        return self.net(tf.reduce_max(features, axis=-2))

    def compute_output_shape(self, x_shape, present_shape=None):
        """`(n, n_outputs)`; `x_shape` and `present_shape` as in `build`."""
        return (x_shape[0], self.n_outputs)

    def get_config(self):
        return {**super().get_config(), "n_outputs": self.n_outputs, "hidden": self.hidden, "after": self.after}
