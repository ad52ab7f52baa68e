"""FlowMixture: several flows as one distribution, trained together or each by itself."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from tfflows.bijectors import Blockwise
from tfflows.density import Density
from tfflows.domains import Domain
from tfflows.model import FlowModel
from tfflows.nets import Constant
from tfflows.nets.conditioning import check_net_and_context
from tfflows.nets.context import Heard, build_context_net, run_context_net
from tfflows.numerics import k_means
from tfflows.randomness import RANDOM, categories, draw_categories, seeded_uniform
from tfflows.serialization import deserialize, register, serialize


@register
class FlowMixture(Density):
    """A weighted sum of flows, for data in several clusters, or, as an ensemble, for what one fit cannot be sure of.

    log p(x) = log sum_k w_k p_k(x), with w = softmax(logits).

    `fit` trains flows and weights together, by the likelihood of the sum, whatever the flows' own papers train with. If
    none of them has been adapted to data, the first `fit` begins with k-means: each is adapted to a cluster of its own,
    so that they start apart. `fit_each` trains every flow by itself on all the data instead: an ensemble of equal
    weights. Where its `log_probs` disagree, the data said little.

    Args:
      flows: `FlowModel`s of one event shape and one context shape, at least one. They may differ in everything else;
        each may have a context net of its own.
      net: with a context, a Keras layer called as `net(context)` that returns a logit for each flow, or None for
        weights that do not depend on it.

    Raises:
      ValueError: for flows that do not fit each other, for one flow given twice, or for a net without a context.

    References:
      Pires & Figueiredo (2020), Variational mixture of normalizing flows, https://arxiv.org/abs/2009.00585; ensembles:
      Lakshminarayanan, Pritzel & Blundell (2017), https://arxiv.org/abs/1612.01474
    """

    def __init__(self, flows: Sequence[FlowModel], net: keras.layers.Layer | None = None, **kwargs):
        flows = list(flows)
        if not flows or not all(isinstance(flow, FlowModel) for flow in flows):
            raise ValueError(f"Expected a list of FlowModels; got {flows!r}.")
        if len({id(flow.bijector) for flow in flows}) < len(flows):
            raise ValueError("Expected flows with a bijector each; got one of them twice.")
        nets = [flow.context_net for flow in flows if flow.context_net is not None]
        if len({id(net) for net in nets}) < len(nets):
            raise ValueError("Expected flows with a context net each; got one of them twice.")
        if len({_domain(flow) for flow in flows}) > 1:
            raise ValueError("Expected flows of one domain; got others.")
        for fact in ("event_shape", "context_shape", "dtype", "n_classes", "is_discrete", "contexts"):
            found = [getattr(flow.accepts, fact) for flow in flows]
            if any(value != found[0] for value in found):
                raise ValueError(f"Expected flows of one {fact}; got {found}.")
        if net is not None:
            check_net_and_context(net, flows[0].context_dim)
        super().__init__(**kwargs)
        self.flows = flows
        self.logits = Constant((len(flows),))
        if net is not None:
            build_context_net(net, flows[0].context_shape, len(flows))
        self.net = net
        # One of them is enough to keep float64: the others cast it.
        keep_float64 = any(flow.accepts.keep_float64 for flow in flows)
        self.accepts = dataclasses.replace(flows[0].accepts, keep_float64=keep_float64)
        self.built = True

    def log_weights(self, context=None) -> tf.Tensor:
        """log w_k: the shares of the flows.

        Args:
          context: `[n, *context_shape]`, if weights depend on it.

        Returns:
          `[K]`, or with a net `[n, K]`.

        Raises:
          ValueError: for a context without a net, or one that does not fit.
        """
        if self.net is None and context is not None:
            raise ValueError("Expected no context for weights that do not depend on it; got one.")
        return self._given(None if self.net is None else self.accepts.context(context, None))[0]

    def log_probs(self, x, context=None, *, batch_size: int | None = None) -> tf.Tensor:
        """Log-density in nats under each flow, `[n, K]`; `x`, `context` and `batch_size` as in `log_prob`."""
        return self._over_rows("log_probs", x, context, batch_size)

    def fit(self, x, context=None, sample_weight=None, **kwargs):
        """Trains flows and weights together; result and errors are those of `FlowModel.fit`.

        Args:
          x, context, sample_weight, **kwargs: as in `FlowModel.fit`.

        Raises:
          ValueError: for a flow with noise (`SoftFlow`), which `fit_each` trains.
        """
        if any(flow.bijector.noise is not None for flow in self.flows):
            raise ValueError("Expected flows without noise to train together; got a SoftFlow: `fit_each` trains it.")
        return super().fit(x, context, sample_weight, **kwargs)

    def fit_each(self, x, context=None, sample_weight=None, *, bootstrap: bool = False, **kwargs) -> list:
        """Fits every flow by itself, with `FlowModel.fit`, as an ensemble; their weights become equal.

        Args:
          x, context, sample_weight, **kwargs: as in `fit`.
          bootstrap: whether each flow counts every row as often as it comes up in n draws with replacement, n being the
            number of rows, so that their differences show what other data of the kind would have given, and not only
            what chance in training does.

        Returns:
          Keras' history of each flow.

        Raises:
          ValueError: as `fit` does; for bootstrap rows of a `tf.data.Dataset`; or if the weights depend on the context.
        """
        if self.net is not None:
            raise ValueError("Expected a mixture without a net, whose weights can be equal; got one with a net.")
        histories = []
        for flow in self.flows:
            weight = sample_weight
            if bootstrap:
                if isinstance(x, tf.data.Dataset):
                    raise ValueError("Expected arrays to draw bootstrap rows from; got a tf.data.Dataset.")
                counts = np.random.multinomial(len(x), np.full(len(x), 1.0 / len(x)))
                weight = counts if sample_weight is None else counts * np.asarray(sample_weight)
            histories.append(flow.fit(x, context, weight, **kwargs))
        self.logits.value.assign(np.zeros(len(self.flows)))
        return histories

    # What they compute, in graph.

    def _hear(self, context):
        """What each flow hears, and after it logits, if a net gives them."""
        if isinstance(context, Heard):
            return context.value
        if context is None:
            return (None,) * len(self.flows)
        heard = tuple(flow._hear(context) for flow in self.flows)
        if self.net is None:
            return heard
        logits = run_context_net(self.net, context, len(self.accepts.context_shape))
        return (*heard, tf.cast(logits, self.accepts.dtype))

    def _given(self, context):
        """log w_k, and the context for each flow."""
        heard = self._hear(context)
        logits = tf.cast(self.logits(None), self.accepts.dtype)
        if self.net is not None:
            logits += heard[-1]
        return tf.nn.log_softmax(logits), [None if h is None else Heard(h) for h in heard[: len(self.flows)]]

    def _log_probs(self, x, context, temperature=1.0):
        given = self._given(context)[1]
        return tf.stack([flow._log_prob(x, c, temperature) for flow, c in zip(self.flows, given, strict=True)], axis=-1)

    def _log_prob(self, x, context, temperature=1.0):
        context = None if context is None else Heard(self._hear(context))
        return tf.reduce_logsumexp(self._given(context)[0] + self._log_probs(x, context, temperature), axis=-1)

    def _sample_and_log_prob(self, shape, context, seed, temperature):
        context = None if context is None else Heard(self._hear(context))
        x = self._sample_only(shape, context, seed, temperature)
        return x, self._log_prob(x, context, temperature)

    def _sample_only(self, shape, context, seed, temperature):
        """Every flow draws every row, and one of them is kept: shapes that XLA knows, for K times the work."""
        seeds = tf.unstack(tf.random.split(seed, len(self.flows) + 1, alg=RANDOM))
        shape = tf.reshape(tf.cast(shape, tf.int32), [-1])
        log_weights, given = self._given(context)
        which = draw_categories(log_weights, shape, seeds[0])
        chosen = 0.0
        for k, flow in enumerate(self.flows):
            x = flow._sample_only(shape, given[k], seeds[k + 1], temperature)
            is_kth = tf.reshape(which == k, tf.concat([shape, [1] * len(self.accepts.event_shape)], axis=0))
            chosen = tf.where(is_kth, x, chosen)
        return chosen

    # What training asks for.

    def _sample_rows(self, seeds, context, temperature):
        uniform = tf.cast(seeded_uniform(seeds, 1)[:, 0], self.accepts.dtype)
        log_weights, given = self._given(context)
        which = categories(log_weights, uniform)
        chosen = 0.0
        for k, flow in enumerate(self.flows):
            is_kth = tf.reshape(which == k, [-1] + [1] * len(self.accepts.event_shape))
            chosen = tf.where(is_kth, flow._sample_rows(seeds, given[k], temperature, stream=k + 1), chosen)
        return chosen

    def _flows(self):
        return self.flows

    def _is_reparameterized(self):
        return False  # which flow draws a row is a jump

    def _adapt(self, rows, verbose):
        new = [flow for flow in self.flows if flow.bijector.needs_adapt] or list(self.flows)
        if len(new) < len(self.flows):  # the others are trained already, and stay
            for flow in new:
                flow._adapt(rows, verbose)
            return
        x = np.asarray(rows.x, np.float64).reshape(len(rows), -1)
        weight = np.ones(len(rows)) if rows.weight is None else np.asarray(rows.weight, np.float64)
        scale = x.std(axis=0)
        labels = k_means((x - x.mean(axis=0)) / np.where(scale > 0.0, scale, 1.0), weight, len(new))
        least = max(10, 2 * x.shape[1])  # fewer rows say nothing of a scale
        for k, flow in enumerate(new):
            mine = labels == k
            says = np.sum(mine) >= least and np.all((x[mine].std(axis=0) > 0.0) | (scale == 0.0))
            flow._adapt(rows.take(mine) if says else rows, verbose)
        shares = np.bincount(labels, weight, minlength=len(new)) / weight.sum()
        self.logits.value.assign(np.log(np.maximum(shares, min(least / len(x), 1.0 / len(new)))))

    # Facts and files.

    @property
    def domain(self) -> list[Domain] | None:
        """Where each column of the data lives, or several together; None if events are not vectors."""
        return self.flows[0].domain

    def get_config(self):
        return {
            "name": self.name,
            "trainable": self.trainable,
            "flows": [serialize(flow) for flow in self.flows],
            "net": serialize(self.net),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """A new mixture from the `config` of `get_config`; `custom_objects` is not looked at."""
        config = dict(config)
        flows = [deserialize(flow) for flow in config.pop("flows")]
        return cls(flows, deserialize(config.pop("net")), **config)

    def __repr__(self):
        return f"FlowMixture({list(self.flows)})"

    def summary(self, print_fn=print, **kwargs):
        """Prints by `print_fn` every flow part by part, as its own `summary` does, and the number of weights in all."""
        for flow in self.flows:
            flow.summary(print_fn, **kwargs)
        weights = "equal for all contexts" if self.net is None else f"given by a {type(self.net).__name__}"
        print_fn(
            f"{self.name}: {len(self.flows)} flows, their shares {weights}, {self.count_params():,} weights in all"
        )


def _domain(flow) -> str | None:
    """What its data are mapped by first, if that is a table's columns."""
    first = getattr(flow.bijector, "bijectors", [None])[0]
    return json.dumps(first.get_config(), default=str) if isinstance(first, Blockwise) else None
