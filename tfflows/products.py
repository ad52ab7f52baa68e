"""Products of matrices in all digits of float32, also where a GPU rounds them to TensorFloat-32."""

from __future__ import annotations

import contextlib
import contextvars
import functools

import tensorflow as tf

FIRST_BITS = -(2**13)  # of float32 the sign, the exponent and the first 10 bits of the fraction: a TensorFloat-32

_undivided = contextvars.ContextVar("undivided", default=False)


@contextlib.contextmanager
def undivided():
    """What is traced inside is to run elsewhere: a product is one, whatever this machine has."""
    token = _undivided.set(True)
    try:
        yield
    finally:
        _undivided.reset(token)


def uses_tf32() -> bool:
    """Whether TensorFlow rounds what it multiplies in float32 to TensorFloat-32, 10 bits: on NVIDIA GPUs since Ampere.

    `tf.config.experimental.enable_tensor_float_32_execution(False)` turns that off.
    """
    return tf.config.experimental.tensor_float_32_execution_enabled() and _has_tensor_cores()


@functools.cache
def _has_tensor_cores() -> bool:
    details = (tf.config.experimental.get_device_details(gpu) for gpu in tf.config.list_physical_devices("GPU"))
    return any(detail.get("compute_capability", (0, 0)) >= (8, 0) for detail in details)


def matmul(a: tf.Tensor, b: tf.Tensor, *, transpose_a: bool = False, transpose_b: bool = False) -> tf.Tensor:
    """`tf.matmul` of matrices that are part of a bijection: with 3 digits of them, it would lose all but 3 of the data.

    With TensorFloat-32, each factor is cut into one and a rest, which makes three products (of the two rests none: it
    is below the digits of float32). Gradients keep the precision of the device. Nets need none of this: whatever they
    compute, both directions of a coupling compute the same.

    Args:
      a, b, transpose_a, transpose_b: as of `tf.matmul`.
    """
    product = functools.partial(tf.matmul, transpose_a=transpose_a, transpose_b=transpose_b)
    if a.dtype != tf.float32 or _undivided.get() or not uses_tf32():
        return product(a, b)
    (a_first, a_rest), (b_first, b_rest) = _parts(a), _parts(b)
    return product(a_first, b_first) + (product(a_first, b_rest) + product(a_rest, b_first))


def matvec(matrix: tf.Tensor, vector: tf.Tensor, *, transpose_a: bool = False) -> tf.Tensor:
    """`tf.linalg.matvec`, as `matmul`.

    Args:
      matrix, vector, transpose_a: as of `tf.linalg.matvec`.
    """
    return matmul(matrix, vector[..., tf.newaxis], transpose_a=transpose_a)[..., 0]


def _parts(x):
    """Two summands of `x`, the first of which is a TensorFloat-32; all of the gradient flows through it."""
    cut = tf.bitcast(tf.bitwise.bitwise_and(tf.bitcast(x, tf.int32), FIRST_BITS), tf.float32)
    first = x + tf.stop_gradient(cut - x)
    return first, tf.stop_gradient(x - first)
