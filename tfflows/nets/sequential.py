"""A MADE fed with its own results, at the cost of one evaluation.

A masked autoregressive map generates x_i = f(z_i; p_i(x_<i)): scalar after scalar. Calling the net for each of
them costs D evaluations, of which all but a few numbers are thrown away. Here the hidden units are grouped by
degree, the number of scalars they hear. Stage s computes the units of degree s in each layer, from what earlier
stages left, then the parameters of scalar s, then the scalar. Every unit is computed once.

The gradient is another sweep, from the last stage to the first: what a unit feeds comes after it. Both keep one
copy of the units, where differentiating the loop itself would keep D.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfflows.numerics import set_rows

# Up to so many stages are written out one after another: less overhead than a loop, and no zeros multiplied.
MAX_UNROLLED = 4

_unroll_all = False


class Layer(NamedTuple):
    """A masked linear layer, its units grouped by stage; a group short of units is filled up with zeros.

    Args:
      kernel: `[n_stages, n_group, n_inputs]`, the inputs in the order of their stages too.
      shift: `[n_stages, n_group, n]` or `[n_stages, n_group, 1]`, bias and context.
    """

    kernel: tf.Tensor
    shift: tf.Tensor


class Circles(NamedTuple):
    """Which scalars are circular: of these the net hears cosine and sine.

    Args:
      circular: `[n_stages]` booleans, in the order of the stages.
      bound: half the period.
    """

    circular: np.ndarray
    bound: float

    def heard(self, x: tf.Tensor, stage=slice(None)) -> tf.Tensor:
        """Two numbers of each scalar x, the scalars of all stages `[n_stages, n]` or of one `[n]`: a new axis before n.

        Of a scalar that is not circular it is the first; no kernel takes the second.
        """
        rate = np.pi / self.bound
        first = tf.where(self._of(stage, x), tf.cos(rate * x), x)
        return tf.stack([first, tf.sin(rate * x)], axis=-2)

    def slopes(self, x: tf.Tensor, stage) -> tf.Tensor:
        """The derivatives of the two, `[2, n]`, of scalars x `[n]` of a stage."""
        rate = np.pi / self.bound
        first = tf.where(self._of(stage, x), -rate * tf.sin(rate * x), tf.ones_like(x))
        return tf.stack([first, rate * tf.cos(rate * x)], axis=-2)

    def _of(self, stage, x):
        circular = tf.constant(self.circular)[stage]
        return circular[:, tf.newaxis] if x.shape.rank == 2 else circular


class Stages(NamedTuple):
    """A MADE, as the sweeps need it.

    Args:
      layers: the hidden layers, and last the outputs, whose groups are the parameters of one scalar.
      skips: for each hidden layer, whether the values of two layers before are added to it.
      activation: of the hidden layers.
      circles: which scalars are circular; None if there are none.
    """

    layers: tuple[Layer, ...]
    skips: tuple[bool, ...]
    activation: Callable
    circles: Circles | None = None

    def heard(self, x: tf.Tensor) -> tf.Tensor:
        """What the net hears of all scalars x `[n_stages, n]`: `[n_stages * n_group, n]`."""
        return x if self.circles is None else tf.reshape(self.circles.heard(x), [2 * x.shape[0], -1])


@contextlib.contextmanager
def unrolled():
    """Within it, graphs are traced without loops: longer, but every converter knows their operations."""
    global _unroll_all
    before, _unroll_all = _unroll_all, True
    try:
        yield
    finally:
        _unroll_all = before


def run_sequentially(scalar_map: Callable, stages: Stages, z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """x_s, l_s = scalar_map(z_s, p_s(x_<s)) for all stages s.

    Args:
      scalar_map: of z `[..., n]` and its parameters `[..., n_parameters, n]`; works on each entry alone.
      stages: the net.
      z: `[n_stages, n]`, in the order of the stages.

    Returns:
      x and l, `[n_stages, n]`.
    """
    n_stages = z.shape[0]
    if _unroll_all or n_stages <= MAX_UNROLLED:
        return _unrolled(scalar_map, stages, z)

    @tf.custom_gradient
    def run(z, *arrays):
        layers = [Layer(*arrays[i : i + 2]) for i in range(0, len(arrays), 2)]
        x, log_det, params, values, units = _sweep_forward(scalar_map, stages, layers, z)

        def gradient(grad_x, grad_log_det, variables=None):
            upstream = (grad_x, grad_log_det)
            back = _sweep_back(scalar_map, stages, layers, (z, x, params), values, upstream, variables or ())
            grad_z, grad_layers, grad_variables = _gradients(layers, (stages.heard(x), *units), *back)
            grads = (grad_z, *grad_layers)
            return grads if variables is None else (grads, grad_variables)

        return (x, log_det), gradient

    return run(z, *(array for layer in stages.layers for array in layer))


def _unrolled(scalar_map, stages, z):
    *hidden, outputs = stages.layers
    x, heard, log_det, units = [], [], [], [[] for _ in hidden]

    def linear(layer, stage, source):
        shift = layer.shift[stage]
        if not source:
            return shift + tf.zeros_like(z[:1])
        source = tf.concat(source, axis=0)
        return tf.matmul(layer.kernel[stage, :, : source.shape[0]], source) + shift

    for stage in range(z.shape[0]):
        source, values = heard, []
        for layer, skip, own in zip(hidden, stages.skips, units, strict=True):
            value = linear(layer, stage, source)
            values.append(value + values[-2] if skip else value)
            own.append(stages.activation(values[-1]))
            source = own
        new_x, new_log_det = scalar_map(z[stage], linear(outputs, stage, source))
        x.append(new_x)
        heard = [*heard, new_x[tf.newaxis] if stages.circles is None else stages.circles.heard(new_x, stage)]
        log_det.append(new_log_det)
    return tf.stack(x), tf.stack(log_det)


def _sweep_forward(scalar_map, stages, layers, z):
    """x, log-dets, parameters, and of each hidden layer the values before and after the activation.

    Arrays are `[n_stages * n_group, n]`; stage s owns the rows from s * n_group on.
    """
    *hidden, outputs = layers
    n_stages, n = z.shape[0], tf.shape(z)[1]
    groups = [layer.kernel.shape[1] for layer in layers]

    def body(s, x, log_det, params, values, units):
        source, now = stages.heard(x), []
        values, units = list(values), list(units)
        for i, (layer, skip) in enumerate(zip(hidden, stages.skips, strict=True)):
            value = tf.matmul(layer.kernel[s], source) + layer.shift[s]
            now.append(value + now[-2] if skip else value)
            values[i] = set_rows(values[i], now[-1], s * groups[i])
            source = units[i] = set_rows(units[i], stages.activation(now[-1]), s * groups[i])
        p = tf.matmul(outputs.kernel[s], source) + outputs.shift[s]
        new_x, new_log_det = scalar_map(z[s], p)
        x, log_det = set_rows(x, new_x[tf.newaxis], s), set_rows(log_det, new_log_det[tf.newaxis], s)
        return s + 1, x, log_det, set_rows(params, p, s * groups[-1]), tuple(values), tuple(units)

    empty = [tf.zeros([n_stages * g, n], z.dtype) for g in groups]
    _, x, log_det, params, values, units = tf.while_loop(
        lambda s, *arrays: s < n_stages,
        body,
        (tf.constant(0), tf.zeros_like(z), tf.zeros_like(z), empty[-1], tuple(empty[:-1]), tuple(empty[:-1])),
        maximum_iterations=n_stages,
    )
    return x, log_det, params, values, units


def _sweep_back(scalar_map, stages, layers, arguments, values, upstream, variables):
    """Gradients with respect to z, to the values of all layers (the outputs last), and to variables.

    The map works on each scalar alone, so its derivatives are known before the sweep.
    """
    z, x, params = arguments
    grad_x, grad_log_det = upstream
    n_stages, n = z.shape[0], tf.shape(z)[1]
    groups = [layer.kernel.shape[1] for layer in layers]
    per_scalar = tf.reshape(params, [n_stages, groups[-1], n])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([z, per_scalar])
        mapped, log_det = scalar_map(z, per_scalar)
        ones = tf.ones_like(mapped)
    zero = tf.UnconnectedGradients.ZERO
    x_by_z, x_by_params = tape.gradient(mapped, [z, per_scalar], ones, unconnected_gradients=zero)
    l_by_z, l_by_params = tape.gradient(log_det, [z, per_scalar], grad_log_det, unconnected_gradients=zero)
    slopes = [tf.reshape(_slope(stages.activation, v), [n_stages, -1, n]) for v in values]
    # Entry s of what follows: from everything that a layer feeds to the units of its stage s.
    feeds = [_fed_by_stage(layer.kernel, n_stages) for layer in layers]

    def body(s, total_x, grads):
        grads = list(grads)
        fed = tf.matmul(feeds[0][s], grads[0])
        if stages.circles is not None:
            fed *= stages.circles.slopes(x[s], s)
        grad = grad_x[s] + tf.reduce_sum(fed, axis=0)
        total_x = set_rows(total_x, grad[tf.newaxis], s)
        grads[-1] = set_rows(grads[-1], grad * x_by_params[s] + l_by_params[s], s * groups[-1])
        now = [None] * len(values)
        for i in reversed(range(len(values))):
            now[i] = tf.matmul(feeds[i + 1][s], grads[i + 1]) * slopes[i][s]
            if i + 2 < len(values) and stages.skips[i + 2]:
                now[i] += now[i + 2]
            grads[i] = set_rows(grads[i], now[i], s * groups[i])
        return s - 1, total_x, tuple(grads)

    empty = tuple(tf.zeros([n_stages * g, n], z.dtype) for g in groups)
    _, total_x, grads = tf.while_loop(
        lambda s, *arrays: s >= 0,
        body,
        (tf.constant(n_stages - 1), tf.zeros_like(z), empty),
        maximum_iterations=n_stages,
    )
    grad_variables = tape.gradient([mapped, log_det], list(variables), [total_x, grad_log_det]) if variables else []
    return total_x * x_by_z + l_by_z, grads, grad_variables


def _fed_by_stage(kernel, n_stages):
    """`[n_stages, n_group_in, n_stages * n_group]`: the kernel seen from its inputs."""
    rows = tf.reshape(kernel, [-1, kernel.shape[2]])
    return tf.reshape(tf.transpose(rows), [n_stages, kernel.shape[2] // n_stages, rows.shape[0]])


def _slope(activation, value):
    with tf.GradientTape() as tape:
        tape.watch(value)
        result = activation(value)
    return tape.gradient(result, value)


def _gradients(layers, sources, grad_z, grad_values, grad_variables):
    """Gradients with respect to z, to each layer's kernel and shift, and to variables."""
    grad_layers = []
    for layer, source, grad in zip(layers, sources, grad_values, strict=True):
        grad_layers.append(tf.reshape(tf.matmul(grad, source, transpose_b=True), layer.kernel.shape))
        is_constant = layer.shift.shape[2] == 1
        shift = tf.reduce_sum(grad, axis=1, keepdims=True) if is_constant else grad
        grad_layers.append(tf.reshape(shift, tf.shape(layer.shift)))
    return grad_z, grad_layers, grad_variables
