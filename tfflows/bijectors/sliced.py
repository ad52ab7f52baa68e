"""Sliced iterative normalizing flows: layers found one after another from data, without gradients."""

from __future__ import annotations

import math

import keras
import numpy as np
import tensorflow as tf

from tfflows import states
from tfflows.bijectors.base import Bijector
from tfflows.nets import Constant
from tfflows.nets.conditioning import as_rows
from tfflows.numerics import check_counts, in_graph, kernel_density, normal_quantile, weighted_quantile
from tfflows.products import matmul
from tfflows.serialization import register
from tfflows.transformers import FreeKnotSpline

MAX_ROWS = 10_000  # that a search for directions looks at


@register
class Sliced(Bijector):
    """Makes data normal, direction by direction: SINF's direction from data to latents, GIS.

    Layer after layer, x <- x + A (Psi(A^T x) - A^T x), with K orthonormal directions A and an increasing spline Psi for
    each;  log |det dz/dx| = sum of log Psi'.

    `adapt` finds the layers: the directions along which the data's distribution is farthest from a normal one, by the
    sum of squared differences of quantiles (max K-sliced Wasserstein distance), climbing on the Stiefel manifold; and
    for each the spline that makes it more normal, from a kernel estimate of its distribution. It holds rows out, stops
    when their likelihood has not risen for a while, and keeps the layers up to the best. Both directions then cost
    one pass through the layers that there are; before it the map is the identity. Ctrl-C keeps the layers found so far;
    `adapt` begins again.

    Args:
      n_dim: D.
      n_layers: the most layers there can be.
      n_directions: K; by default 8 log10(D), at least 1 and at most D.
      n_knots: knots of each spline.
      step: how far a layer goes towards the normal distribution, in (0, 1]: small steps need more layers, and fit
        better.
      patience: layers to wait for the held-out likelihood to rise.
      held_out: fraction of rows to hold out.
      seed: of the rows that are held out, and of where the searches start.
      fine_tune: whether `fit` trains the splines by gradient afterwards.

    Raises:
      ValueError: for numbers out of range.

    Reference:
      Dai & Seljak (2021), Sliced iterative normalizing flows, https://arxiv.org/abs/2007.00674
    """

    def __init__(
        self,
        n_dim: int,
        n_layers: int = 200,
        n_directions: int | None = None,
        n_knots: int = 48,
        *,
        step: float = 0.3,
        patience: int = 20,
        held_out: float = 0.2,
        seed: int = 0,
        fine_tune: bool = False,
        name: str | None = None,
    ):
        parameters = dict(locals())
        check_counts(n_dim=n_dim, n_layers=n_layers, patience=patience)
        if n_directions is None:
            n_directions = min(max(round(8.0 * math.log10(n_dim)), 1), n_dim)
        if not isinstance(n_directions, (int, np.integer)) or not 1 <= n_directions <= n_dim:
            raise ValueError(f"Expected an integer n_directions in 1 .. {n_dim}; got {n_directions}.")
        if not (0.0 < step <= 1.0 and 0.0 < held_out < 1.0):
            raise ValueError(f"Expected step in (0, 1] and held_out in (0, 1); got {step} and {held_out}.")
        super().__init__(parameters, event_shape=(n_dim,), name=name)
        self._spline = FreeKnotSpline(n_knots)
        self._n_layers, self._n_directions = n_layers, n_directions
        self._settings = {"step": step, "patience": patience, "held_out": held_out, "seed": seed}
        self._directions = Constant((n_layers, n_dim, n_directions))
        self._knots = Constant((n_layers, self._spline.n_parameters, n_directions))
        self._n_found = Constant((), keras.initializers.Constant(-1.0))
        self._directions.trainable = self._n_found.trainable = False
        self._knots.trainable = bool(fine_tune)
        self._pass_in_graph = in_graph(self._pass)

    @property
    def n_found(self) -> int:
        """How many layers `adapt` has found; -1 before it."""
        return int(self._n_found(None))

    @property
    def needs_adapt(self):
        return self.n_found < 0

    def adapt(self, x, context=None, *, sample_weight=None, verbose=0):
        """Finds the layers, each from what those before make of the data.

        Args:
          x: `[n, D]`, n >= 10.
          context: not heard.
          sample_weight: `[n]`, >= 0, or None for equal ones.
          verbose: whether it shows its progress.

        Raises:
          ValueError: for fewer than 10 rows of positive weight.
        """
        x = np.asarray(x, np.float64)
        weight = np.ones(len(x)) if sample_weight is None else np.asarray(sample_weight, np.float64)
        x, weight = x[weight > 0.0], weight[weight > 0.0]
        if len(x) < 10:
            raise ValueError(f"Expected at least 10 rows of positive weight; got {len(x)}.")
        found, sizes = [], (self._n_layers, self._n_directions)
        kept = states.search("Sliced", x, weight, sizes, self._spline.n_knots, dict(self._settings))
        try:
            _find_layers(found, kept, x, weight, self._spline, *sizes, verbose=verbose, **self._settings)
        except KeyboardInterrupt:
            if found:
                self._keep(found)
            raise
        self._keep(found)

    def _keep(self, found):
        directions, knots = np.zeros(self._directions.shape), np.zeros(self._knots.shape)
        for i, (a, params) in enumerate(found):
            directions[i], knots[i] = a, params
        self._directions.value.assign(directions)
        self._knots.value.assign(knots)
        self._n_found.value.assign(float(len(found)))

    def _forward_and_log_det(self, z, context):
        return self._on_rows(z, forward=True)

    def _inverse_and_log_det(self, x, context):
        return self._on_rows(x, forward=False)

    def _on_rows(self, value, *, forward):
        (rows,), batch = as_rows(value)
        weights = (tf.cast(self._directions(None), rows.dtype), tf.cast(self._knots(None), rows.dtype))
        n_found = tf.cast(self._n_found(None), tf.int32)
        rows, log_det = self._pass_in_graph(rows, *weights, n_found, forward)
        return tf.reshape(rows, tf.shape(value)), tf.reshape(log_det, batch)

    def _pass(self, rows, directions, knots, n_found, forward):
        method = self._spline.forward_and_log_det if forward else self._spline.inverse_and_log_det

        def body(i, rows, total):
            layer = n_found - 1 - i if forward else i
            a = directions[layer]
            projected = matmul(rows, a)
            mapped, log_slope = method(projected, knots[layer])
            rows = rows + matmul(mapped - projected, a, transpose_b=True)
            return i + 1, rows, total + tf.reduce_sum(log_slope, axis=-1)

        # The gradient of a loop under XLA needs to know how many steps there are at most.
        start = (tf.constant(0), rows, tf.zeros_like(rows[:, 0]))
        return tf.while_loop(lambda i, *_: i < n_found, body, start, maximum_iterations=self._n_layers)[1:]

    def describe(self):
        return f"Sliced: {max(self.n_found, 0)} of {self._n_layers} layers, {self._n_directions} directions each"


def _find_layers(found, kept, x, weight, spline, n_layers, n_directions, *, step, patience, held_out, seed, verbose):
    """Fills the list `found` with (directions `[D, K]`, parameters of their splines), layer after layer.

    However it ends, by Ctrl-C too, what is left there are the layers up to the best. Those that were `kept` before a
    crash are not searched for again: the rows pass through them as they did then.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(x))
    n_held_out = min(max(round(held_out * len(x)), 2), len(x) // 2)
    rows = {"fit": order[n_held_out:], "held out": order[:n_held_out]}
    values = {name: x[index] for name, index in rows.items()}
    weights = {name: weight[index] / np.sum(weight[index]) for name, index in rows.items()}
    log_dets = {name: np.zeros(len(index)) for name, index in rows.items()}
    scores = [_score(values["held out"], log_dets["held out"], weights["held out"])]
    shown = "held_out_log_prob"
    before = [] if kept.found is None else list(zip(kept.found["directions"], kept.found["knots"], strict=True))
    rng = rng if kept.found is None else kept.found["generator"]
    bar = keras.utils.Progbar(n_layers, unit_name="layer", stateful_metrics=[shown]) if verbose else None
    try:
        for i in range(n_layers):
            if i < len(before):
                directions, params = before[i]
            else:
                directions, params = _next_layer(values["fit"], weights["fit"], spline, n_directions, step, rng)
            for name in values:
                values[name], log_slope = _apply(spline, values[name], directions, params)
                log_dets[name] += log_slope
            found.append((directions, params))
            scores.append(_score(values["held out"], log_dets["held out"], weights["held out"]))
            is_last = i + 1 - np.nanargmax(scores) >= patience or not np.isfinite(scores[-1]) or i + 1 == n_layers
            if i >= len(before):
                directions, knots = (list(part) for part in zip(*found, strict=True))
                kept.keep({"directions": directions, "knots": knots, "generator": rng}, is_done=bool(is_last))
            if bar is not None:
                bar.update(i + 1, values=[(shown, scores[-1])], finalize=bool(is_last))
            if is_last:
                break
    finally:
        del found[int(np.nanargmax(scores)) :]


def _next_layer(x, weight, spline, n_directions, step, rng):
    some = rng.permutation(len(x))[:MAX_ROWS]
    share = weight[some] / np.sum(weight[some])
    # In one order in memory, as it is read from a file: products of matrices in another one differ in the last digits.
    directions = np.ascontiguousarray(_farthest_from_normal(x[some], share, n_directions, rng))
    return directions, _towards_normal(x @ directions, weight, spline, step)


def _score(z, log_det, weight):
    """The mean log-density in nats of what the layers are fitted to."""
    log_prob = log_det - 0.5 * np.sum(z**2 + math.log(2.0 * math.pi), axis=-1)
    return float(np.sum(weight * log_prob))


def _apply(spline, x, directions, params):
    projected = x @ directions
    mapped, log_slope = spline.inverse_and_log_det(tf.constant(projected), tf.constant(params))
    return x + (mapped.numpy() - projected) @ directions.T, np.sum(log_slope, axis=-1)


def _farthest_from_normal(x, weight, n_directions, rng, n_steps=60, tolerance=1e-4):
    """The orthonormal directions `[D, K]` that maximise the squared distance of quantiles from a normal's.

    Gradient ascent on the Stiefel manifold, with a QR factorisation to come back to it and step lengths that double
    after a success and halve after a failure.
    """
    n_dim = x.shape[1]
    a, _ = np.linalg.qr(rng.normal(size=(n_dim, n_directions)))
    if n_directions == n_dim == 1:
        return np.ones((1, 1))
    value, gradient = _distance(x, weight, a)
    length = 1.0
    for _ in range(n_steps):
        inner = a.T @ gradient
        tangent = gradient - a @ (0.5 * (inner + inner.T))
        norm = np.linalg.norm(tangent)
        while length * norm > 1e-6:
            new, upper = np.linalg.qr(a + length * tangent)
            new = new * np.where(np.diag(upper) < 0.0, -1.0, 1.0)
            new_value, new_gradient = _distance(x, weight, new)
            if new_value > value + 1e-4 * length * norm**2:
                break
            length *= 0.5
        else:
            break
        rise = new_value - value
        a, value, gradient = new, new_value, new_gradient
        length *= 2.0
        if rise < tolerance * abs(value):
            break
    return a


def _distance(x, weight, a):
    """sum_k integral (quantile of x . a_k - quantile of a normal)^2, and its gradient `[D, K]`."""
    projected = x @ a
    order = np.argsort(projected, axis=0)
    sorted_weight = weight[order]
    middle = np.cumsum(sorted_weight, axis=0) - 0.5 * sorted_weight
    differences = np.empty_like(projected)
    np.put_along_axis(differences, order, np.take_along_axis(projected, order, 0) - normal_quantile(middle), 0)
    weighted = weight[:, np.newaxis] * differences
    return np.sum(weighted * differences), 2.0 * x.T @ weighted


def _towards_normal(projected, weight, spline, step):
    """Parameters of splines that take a `step` of the way from the data's distribution `[n, K]` to a normal one."""
    n_effective = 1.0 / np.sum(weight**2)
    levels = np.linspace(0.0, 1.0, spline.n_knots)
    columns = []
    for column in projected.T:
        mean = np.sum(weight * column)
        deviation = max(np.sqrt(np.sum(weight * (column - mean) ** 2)), 1e-6)
        width = 1.06 * n_effective**-0.2  # Silverman's rule, in units of the deviation
        # Drawn together so that the kernels' width does not add to the variance.
        shrunk = mean + (column - mean) / np.sqrt(1.0 + width**2)
        x = weighted_quantile(column, weight, levels)
        x = spline.reachable(x[:, np.newaxis])[:, 0]
        density, cumulative = kernel_density(shrunk, weight, x, width * deviation / np.sqrt(1.0 + width**2))
        z = normal_quantile(np.clip(cumulative, 1e-9, 1.0 - 1e-9))
        slope = density / (np.exp(-0.5 * z**2) / math.sqrt(2.0 * math.pi))
        z, slope = (1.0 - step) * x + step * z, (1.0 - step) + step * slope
        # A slope unlike those of the chords beside it would make a nearly flat piece, where float32 cannot come back.
        chords = np.diff(z) / np.diff(x)
        beside = np.stack([np.r_[chords[0], chords], np.r_[chords, chords[-1]]])
        slope = np.minimum(np.maximum(slope, np.max(beside, axis=0) / 3.0), 3.0 * np.min(beside, axis=0))
        # Tails never stretch: where there are no data, layer upon layer would carry points off to infinity.
        slope[[0, -1]] = np.minimum(slope[[0, -1]], 1.0)
        columns.append((x, z, slope))
    return spline.parameters_of(*(np.stack(v, axis=1) for v in zip(*columns, strict=True)))
