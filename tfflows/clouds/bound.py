"""What a flow of point clouds is trained with."""

from __future__ import annotations

import tensorflow as tf

from tfflows.losses import Loss
from tfflows.randomness import normal, step_seeds, training_randomness, training_seed, uniform
from tfflows.serialization import register


@register
class VariationalBound(Loss):
    """Minus the evidence lower bound of a `PointCloudFlow`, in nats for each point of a cloud.

    -mean_i log p(x_i | w) + weight / P (log q(w | x) - log p(w | context)), with w a draw from the encoder's normal
    distribution q, and P the number of points of the cloud. What stands for -log p(x_i | w) is the loss that the flow
    of points trains with: with noise, for a `SoftFlow`. In training steps w and the noise are new each time; in
    evaluation they are always the same.

    Args:
      weight: of the latents' part, > 0. At 1 it is the bound. Larger ones leave less in the latents than there is to
        see in thousands of points, so that those of few shapes lie less scattered, and the prior has less to learn.
      n_points: of each cloud, that a step looks at, drawn at random; all if there are fewer.

    Raises:
      ValueError: for a weight that is not positive, or fewer than two points.

    Reference:
      Yang, Huang, Hao, Liu, Belongie & Hariharan (2019), PointFlow: 3D point cloud generation with continuous
      normalizing flows, https://arxiv.org/abs/1906.12320
    """

    def __init__(self, weight: float = 1.0, n_points: int = 512):
        if not 0.0 < weight < float("inf"):
            raise ValueError(f"Expected a finite weight > 0; got {weight}.")
        if n_points < 2:
            raise ValueError(f"Expected n_points >= 2; got {n_points}.")
        self.weight, self.n_points = float(weight), int(n_points)

    def __call__(self, flow, x, context):
        """The bound of each cloud, `[n]`.

        Args:
          flow: a `PointCloudFlow`.
          x: clouds `[n, P, D + 1]`, the mask of the points in their last number.
          context: of the prior, or None.
        """
        seeds = step_seeds(3)
        count = tf.reduce_sum(x[..., -1], axis=1)
        x = _some_points(x, count, self.n_points, seeds[0])
        points, mask = x[..., :-1], x[..., -1]
        mean, log_scale = flow._encode(points, mask)
        noise = normal(tf.shape(mean), seeds[1], mean.dtype)
        latent = mean + tf.exp(log_scale) * noise
        log_posterior = flow.normal.log_prob(noise) - tf.reduce_sum(log_scale, axis=-1)
        log_prior = flow.prior._log_prob(latent, context)
        n, n_points = tf.shape(points)[0], tf.shape(points)[1]
        told = tf.reshape(tf.repeat(latent[:, tf.newaxis], n_points, axis=1), [-1, latent.shape[-1]])
        rows = tf.reshape(points, [-1, points.shape[-1]])
        # Of the points' own loss seeds of its own, which must not be those of the latents.
        with training_randomness(None if training_seed() is None else seeds[2]):
            each = flow.points.default_loss(flow.points, rows, told)
        each = tf.reshape(each, [n, n_points])
        of_points = tf.reduce_sum(tf.where(mask > 0.0, each, 0.0), axis=1) / tf.reduce_sum(mask, axis=1)
        return of_points + self.weight * (log_posterior - log_prior) / count

    def get_config(self):
        return {"weight": self.weight, "n_points": self.n_points}


def _some_points(x, count, n_points, seed):
    """`n_points` of each cloud, drawn at random from those that are there, which come first; all if there are fewer."""
    if x.shape[1] is not None and x.shape[1] <= n_points:
        return x
    places = uniform([tf.shape(x)[0], n_points], seed, x.dtype)
    index = tf.cast(tf.minimum(places * count[:, tf.newaxis], count[:, tf.newaxis] - 1.0), tf.int32)
    return tf.gather(x, index, batch_dims=1)
