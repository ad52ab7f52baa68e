"""PointCloudFlow: shapes as clouds of points."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from tfflows import bases, batching, export, latents
from tfflows.architectures import MaskedAutoregressiveRQNSF, RealNVP, SoftFlow
from tfflows.bijectors import Standardize
from tfflows.clouds.bound import VariationalBound
from tfflows.clouds.inputs import joined, joined_batches
from tfflows.export.verbs import fresh
from tfflows.inputs import Inputs
from tfflows.model import FlowModel
from tfflows.nets import PointNet
from tfflows.numerics import check_counts, softclip
from tfflows.rows import Rows
from tfflows.serialization import deserialize, register, serialize
from tfflows.training import TrainableModel

ADAPT_POINTS = 100_000  # are enough for a scale
BATCH_SIZE = 16
BUCKETS = (1, 16)  # clouds encoded at a time
SEED_STEP = 0x3504F333  # odd: seeds of neighbouring shapes have points of other seeds
LOG_SCALE_BOUND = 10.0  # of the latents of one cloud: between exp(-10) and exp(10)


@register
class PointCloudFlow(export.Exportable, TrainableModel):
    """A distribution of shapes, each a cloud of any number of points: a latent for each shape, and a flow of points.

    w ~ prior(w | context);  x_i ~ points(x_i | w), independent given w.

    Both are `FlowModel`s. An encoder that does not see the order of the points says which latents a cloud may have; the
    three are trained together by the variational bound.

    Args:
      points: a `FlowModel` of one point `[D]`, whose context is the latent `[latent_dim]`; by default a `SoftFlow` of
        splines for D = 3, which surfaces need: they have no volume, and no density.
      prior: a `FlowModel` of latents `[latent_dim]`; its context is the users' (`n_classes`); a `RealNVP` by default.
      encoder: a Keras layer, called with points `[n, P, D]`, standardised as the flow of points does it, and a mask
        `[n, P]`, that returns `[n, 2 latent_dim]`: means and log-deviations; a `nets.PointNet` by default.
      latent_dim: of the default ones.
      n_classes: of the default prior, if shapes have labels; None if not.
      n_points: of a cloud that is drawn, unless another number is asked for; it is fixed in exports.

    Raises:
      ValueError: for parts that do not fit each other.

    References:
      Yang et al. (2019), PointFlow, https://arxiv.org/abs/1906.12320; with noise: Kim, Lee, Kang & Kim (2020),
      SoftFlow, https://arxiv.org/abs/2006.04604
    """

    def __init__(
        self,
        points: FlowModel | None = None,
        prior: FlowModel | None = None,
        encoder: keras.layers.Layer | None = None,
        *,
        latent_dim: int = 32,
        n_classes: int | None = None,
        n_points: int = 2048,
        **kwargs,
    ):
        if points is None:
            bijector = SoftFlow(
                3, preset=MaskedAutoregressiveRQNSF, n_layers=6, hidden=(128, 128), context_dim=latent_dim
            )
            points = FlowModel(bijector)
        if prior is None:
            prior = FlowModel(RealNVP(latent_dim, n_layers=6, context_dim=n_classes), n_classes=n_classes)
        _check_flows(points, prior)
        latent_dim = prior.accepts.event_shape[0]
        n_dim = points.accepts.event_shape[0]
        encoder = PointNet(2 * latent_dim) if encoder is None else encoder
        if not isinstance(encoder, keras.layers.Layer):
            raise ValueError(f"Expected a Keras layer as encoder; got {encoder!r}.")
        found = encoder(keras.KerasTensor((None, None, n_dim)), keras.KerasTensor((None, None))).shape[1:]
        if found != (2 * latent_dim,):
            raise ValueError(f"Expected an encoder of {2 * latent_dim} outputs, twice the latent's; got {found}.")
        super().__init__(**kwargs)
        check_counts(n_points=n_points)
        self.points, self.prior, self.encoder, self.n_points = points, prior, encoder, int(n_points)
        self.normal = bases.StandardNormal(latent_dim)
        self.accepts = Inputs((None, n_dim + 1), prior.accepts.contexts, prior.accepts.dtype, False)
        self.built = True

    # Training.

    @property
    def default_loss(self):
        return VariationalBound()

    def fit(self, x, context=None, sample_weight=None, *, mask=None, validation_data=None, **kwargs):
        """Fits the flow to clouds, as `FlowModel.fit` does, in batches of 16 clouds.

        Args:
          x: `[n, P, D]`, at least two points in each cloud; or a `tf.data.Dataset` of batches of clouds of one number
            of points, or of (x, context) or (x, context, weight).
          context: `[n]` labels or `[n, *context_shape]`, if the prior is conditional.
          sample_weight: `[n]`, >= 0.
          mask: `[n, P]`, 0 where there is no point (`clouds.padded` makes it), or None if all are there.
          validation_data: x, (x, context), or (x, context, mask), context None if there is none.
          **kwargs: the others of `FlowModel.fit`.

        Raises:
          ValueError: for clouds that do not fit the flow, before anything is trained.
          FloatingPointError: as `FlowModel.fit`.
        """
        x = self._joined(x, mask)
        if validation_data is not None:
            held = validation_data if isinstance(validation_data, (tuple, list)) else (validation_data,)
            held_x, held_context, held_mask = (*held, None, None)[:3]
            held_x = self._joined(held_x, held_mask)
            validation_data = held_x if isinstance(held_x, tf.data.Dataset) else (held_x, held_context)
        kwargs = {"batch_size": BATCH_SIZE, **kwargs}
        kwargs = {"validation_batch_size": kwargs["batch_size"], **kwargs}
        return super().fit(x, context, sample_weight, validation_data=validation_data, **kwargs)

    def evaluate(self, x, context=None, sample_weight=None, *, mask=None, **kwargs):
        """The mean of minus the variational bound, in nats for each point.

        Args:
          x, context, sample_weight, mask: as in `fit`.
          **kwargs: of `FlowModel.evaluate`.
        """
        if kwargs.get("_use_cached_eval_dataset"):  # Keras' fit, validating
            return super().evaluate(x, context, sample_weight, **kwargs)
        return super().evaluate(self._joined(x, mask), context, sample_weight, **{"batch_size": BATCH_SIZE, **kwargs})

    def adapt(self, x, context=None, sample_weight=None, *, mask=None, verbose=0, checkpoint=None):
        """Sets standardisation from clouds; the first `fit` does it.

        Args:
          x, context, sample_weight, mask, verbose, checkpoint: as in `fit` and `FlowModel.adapt`.
        """
        super().adapt(self._joined(x, mask), context, sample_weight, verbose=verbose, checkpoint=checkpoint)

    def _joined(self, x, mask):
        return (joined_batches if isinstance(x, tf.data.Dataset) else joined)(x, mask, self.n_dim)

    def _flows(self):
        return []  # that are fitted to rows of the data themselves

    def _needs_adapt(self):
        return self.points.bijector.needs_adapt or self.prior.bijector.needs_adapt

    def _adapt(self, rows, verbose):
        rng = np.random.default_rng(0)
        x = rows.x[rows.x[..., -1] > 0.0][:, :-1]
        x = x[rng.permutation(len(x))[:ADAPT_POINTS]]
        # Latents there are only once the encoder is trained. The flows begin where it does, at a standard normal.
        z = rng.normal(size=(len(x), self.latent_dim)).astype(x.dtype)
        contexts = self.prior.accepts.contexts
        blank = None if contexts is None else np.zeros((len(z), *(n or 1 for n in contexts.shape)), contexts.dtype)
        known = {self.points: Rows(x, z, None), self.prior: Rows(z, blank, None)}
        new = [flow for flow in known if flow.bijector.needs_adapt] or list(known)  # one that is trained already stays
        for flow in new:
            flow._adapt(known[flow], verbose)

    # What it computes, in graph.

    def _encode(self, x, mask):
        """Means and log-deviations of the latents that clouds may have, `[n, latent_dim]` each."""
        first = getattr(self.points.bijector, "bijectors", [None])[0]
        seen = first.inverse(x) if isinstance(first, Standardize) else x
        parameters = tf.cast(self.encoder(seen, mask), self.accepts.dtype)
        mean, log_scale = tf.split(parameters, 2, axis=-1)
        return mean, softclip(log_scale, LOG_SCALE_BOUND)

    def _encode_mean(self, x):
        return self._encode(x[..., :-1], x[..., -1])[0]

    # The verbs.

    def encode(self, x, *, mask=None, batch_size: int | None = None) -> tf.Tensor:
        """The latents `[n, latent_dim]` of clouds: means of what the encoder allows.

        Args:
          x, mask: as in `fit`.
          batch_size: clouds worked on at a time.

        Raises:
          ValueError: for clouds that do not fit the flow.
        """
        x = self._joined(x, mask)
        return batching.map_rows(self._compiled_encoder(), [x], batch_size, BUCKETS)

    def decode(self, latents, n_points: int | None = None, *, seed=None, temperature=1.0) -> tf.Tensor:
        """Clouds `[n, n_points, D]` of latents `[n, latent_dim]`.

        Args:
          latents: as `encode` gives them, or draws of `prior`.
          n_points: of each cloud, >= 1; the flow's own by default.
          seed: an integer or a pair of them makes the points reproducible.
          temperature: multiplies the spread of the points' latents; below 1 they are from denser places.

        Raises:
          ValueError: for latents of another shape, or n_points < 1.
        """
        latents = self.prior.accepts.value(latents, "latents")
        n_points = self.n_points if n_points is None else n_points
        x = self.points.sample(n_points, latents, seed=seed, temperature=temperature)
        return tf.transpose(x, [1, 0, 2])

    def sample(
        self, n: int, n_points: int | None = None, context=None, *, seed=None, temperature=1.0, points_temperature=1.0
    ) -> tf.Tensor:
        """New shapes.

        Args:
          n: number of shapes, > 0.
          n_points: points of each, >= 1; the flow's own number by default.
          context: None; a label or `[*context_shape]` for one condition; or `[batch]` labels or
            `[batch, *context_shape]`.
          seed: an integer or a pair of them makes the draws reproducible.
          temperature: multiplies the spread of the prior's latents; below 1 shapes are more usual ones.
          points_temperature: likewise of the points.

        Returns:
          `[n, n_points, D]`, or `[n, batch, n_points, D]` for a batch of contexts.
        """
        pair = batching.seed_pair(seed)
        latent = self.prior.sample(n, context, seed=pair, temperature=temperature)
        rows = tf.reshape(latent, [-1, self.latent_dim])
        x = self.decode(rows, n_points, seed=pair + np.array([0, 1], np.int32), temperature=points_temperature)
        return tf.reshape(x, [*latent.shape[:-1], *x.shape[1:]])

    def reconstruct(self, x, n_points: int | None = None, *, mask=None, seed=None, temperature=1.0) -> tf.Tensor:
        """Clouds as the flow sees them: encoded and decoded, `[n, n_points, D]`.

        Args:
          x, mask: as in `fit`.
          n_points: of each cloud; as many as in x by default.
          seed, temperature: as in `decode`.
        """
        n_points = np.shape(x)[1] if n_points is None else n_points
        return self.decode(self.encode(x, mask=mask), n_points, seed=seed, temperature=temperature)

    def interpolate(
        self, x0, x1, n_steps: int = 9, n_points: int | None = None, context=None, *, mode=latents.spherical, seed=None
    ) -> tf.Tensor:
        """The way from one shape to another, through the latents of the prior.

        The points have the same latents on all of the way, so that each moves smoothly.

        Args:
          x0, x1: clouds `[P, D]` and `[Q, D]`.
          n_steps: clouds on the way, the two ends (reconstructed) included, >= 2.
          n_points: of each cloud; the flow's own by default.
          context, mode: as in `FlowModel.interpolate`.
          seed: of the points.

        Returns:
          `[n_steps, n_points, D]`.
        """
        ends = [self.encode(np.asarray(x)[np.newaxis])[0] for x in (x0, x1)]
        n_points = self.n_points if n_points is None else n_points
        way = self.prior.interpolate(*ends, n_steps, context, mode=mode)
        z = self.points.base.sample([n_points], batching.seed_pair(seed))
        x = self.points.decode(tf.tile(z, [n_steps, 1]), tf.repeat(way, n_points, axis=0))
        return tf.reshape(x, [n_steps, n_points, self.n_dim])

    def _signatures(self, batch_size):
        """sample, encode, and decode, which makes a cloud of a latent; latents between two give the shapes between."""
        accepts, dtype = self.accepts, tf.as_dtype(self.accepts.dtype)

        def spec(name, shape=(), of=dtype):
            return tf.TensorSpec([batch_size, *shape], of, name=name)

        x, latent, seed = (
            spec("x", (self.n_points, self.n_dim)),
            spec("latent", (self.latent_dim,)),
            spec("seed", of=tf.int32),
        )
        contexts = accepts.contexts
        context = [] if contexts is None else [spec("context", contexts.shape, tf.as_dtype(contexts.dtype))]

        def sample(seed, temperature, context=None):
            seed = fresh(seed)
            return {"x": self._decode_rows(self.prior._sample_rows(seed, context, temperature), seed)}

        return {
            "sample": export.Signature(sample, [seed, spec("temperature"), *context]),
            "encode": export.Signature(lambda x: {"latent": self._encode(x, tf.ones_like(x[..., 0]))[0]}, [x]),
            "decode": export.Signature(
                lambda latent, seed: {"x": self._decode_rows(latent, fresh(seed))}, [latent, seed]
            ),
        }

    def _decode_rows(self, latent, seeds):
        """A cloud for each latent `[n, latent_dim]`, which follows from its seed `[n]` alone."""
        each = tf.reshape(seeds[:, tf.newaxis] * SEED_STEP + tf.range(self.n_points), [-1])
        told = tf.reshape(tf.tile(latent[:, tf.newaxis], [1, self.n_points, 1]), [-1, self.latent_dim])
        x = self.points._sample_rows(each, told, tf.ones_like(told[:, 0]), stream=1)
        return tf.reshape(x, [-1, self.n_points, self.n_dim])

    def _compiled_encoder(self):
        if "encode" not in self._functions:
            self._functions["encode"] = tf.function(
                self._encode_mean, jit_compile=self.use_xla, autograph=False, reduce_retracing=True
            )
        return self._functions["encode"]

    # Facts and files.

    @property
    def n_dim(self) -> int:
        """Number of coordinates of a point."""
        return self.points.accepts.event_shape[0]

    @property
    def latent_dim(self) -> int:
        """Width of a shape's latent."""
        return self.prior.accepts.event_shape[0]

    def get_config(self):
        parts = {name: serialize(getattr(self, name)) for name in ("points", "prior", "encoder")}
        return {"name": self.name, "trainable": self.trainable, "n_points": self.n_points, **parts}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """A new flow from the `config` of `get_config`; `custom_objects` is not looked at."""
        config = dict(config)
        parts = {name: deserialize(config.pop(name)) for name in ("points", "prior", "encoder")}
        return cls(**parts, **config)

    def __repr__(self):
        return f"PointCloudFlow(points={self.points!r}, prior={self.prior!r}, encoder={self.encoder.name})"

    def summary(self, print_fn=print, **kwargs):
        """Prints the flow of points and the prior part by part, and the number of weights."""
        self.points.summary(print_fn, **kwargs)
        self.prior.summary(print_fn, **kwargs)
        print_fn(f"{self.name}: {self.encoder.name} {self.encoder.count_params():,}, {self.count_params():,} in all")


def _check_flows(points, prior) -> None:
    if not isinstance(points, FlowModel) or not isinstance(prior, FlowModel):
        raise ValueError(f"Expected FlowModels as points and prior; got {points!r} and {prior!r}.")
    for what, flow in (("points", points), ("prior", prior)):
        if len(flow.accepts.event_shape) != 1 or flow.accepts.is_discrete:
            raise ValueError(f"Expected {what} of vectors of real numbers; got {flow!r}.")
    if points.context_shape != prior.accepts.event_shape or points.context_net is not None:
        raise ValueError(
            f"Expected points whose context is the latent, {prior.accepts.event_shape}; got {points.context_shape}."
        )
