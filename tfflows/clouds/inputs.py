"""What users pass in as clouds of points, checked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfflows.checks import check_finite

MIN_POINTS = 2  # one point is no shape


def padded(clouds: Sequence) -> tuple[np.ndarray, np.ndarray]:
    """Clouds of unequal numbers of points as one array, and which of its points there are.

    Args:
      clouds: a list of arrays `[P_i, D]`.

    Returns:
      float32 points `[n, P, D]` with P the largest number, zeros where there are none; and a mask `[n, P]`, 0 there and
      1 elsewhere.

    Raises:
      ValueError: for an empty list, or what is no list of `[P_i, D]` of one D.
    """
    clouds = [np.asarray(cloud, np.float32) for cloud in clouds]
    if not clouds:
        raise ValueError("Expected at least one cloud; got none.")
    if any(cloud.ndim != 2 for cloud in clouds) or len({cloud.shape[1] for cloud in clouds}) > 1:
        raise ValueError(f"Expected clouds [P, D] of one D; got shapes {sorted({cloud.shape for cloud in clouds})}.")
    x = np.zeros((len(clouds), max(map(len, clouds)), clouds[0].shape[1]), np.float32)
    mask = np.zeros(x.shape[:2], np.float32)
    for i, cloud in enumerate(clouds):
        x[i, : len(cloud)] = cloud
        mask[i, : len(cloud)] = 1.0
    return x, mask


def joined(x, mask, n_dim: int) -> np.ndarray:
    """Checked clouds and their mask as one array `[n, P, n_dim + 1]`, the points that are there first.

    Args:
      x: `[n, P, n_dim]`.
      mask: `[n, P]`, 0 or False where there is no point, or None if all are there.

    Raises:
      ValueError: for ragged clouds, another number of coordinates, points that are not finite, fewer than two points
        in a cloud, or a mask of another shape or of other numbers.
    """
    if isinstance(x, (list, tuple)) and len({np.shape(cloud)[:1] for cloud in x}) > 1:
        sizes = sorted(len(cloud) for cloud in x)
        raise ValueError(
            f"Expected clouds of one number of points, or a mask; got {sizes[0]} to {sizes[-1]} points. "
            "`x, mask = clouds.padded(x)` makes both."
        )
    x = np.asarray(x)
    if x.dtype.kind not in "iuf":
        raise ValueError(f"Expected numbers as points; got dtype {x.dtype}.")
    if x.ndim != 3 or x.shape[-1] != n_dim:
        hint = " One cloud is x[None]." if x.ndim == 2 else ""
        raise ValueError(f"Expected clouds of shape [n, points, {n_dim}]; got {list(x.shape)}.{hint}")
    if mask is None:
        mask = np.ones(x.shape[:2], np.float32)
    else:
        mask = np.asarray(mask)
        if mask.shape != x.shape[:2] or not np.all((mask == 0) | (mask == 1)):
            raise ValueError(f"Expected a mask of zeros and ones of shape {list(x.shape[:2])}; got {list(mask.shape)}.")
    n_points = mask.sum(axis=1)
    if np.any(bad := n_points < MIN_POINTS):
        raise ValueError(
            f"Expected at least {MIN_POINTS} points in a cloud; got {int(n_points[bad][0])} in cloud {np.argmax(bad)}."
        )
    x = np.where(mask[..., np.newaxis] > 0, x, 0.0)
    check_finite(x, "clouds")
    both = np.concatenate([x, mask[..., np.newaxis]], axis=-1).astype(np.float32)
    order = np.argsort(-mask, axis=1, kind="stable")
    return np.take_along_axis(both, order[..., np.newaxis], axis=1)


def joined_batches(dataset: tf.data.Dataset, mask, n_dim: int) -> tf.data.Dataset:
    """A dataset of batches of clouds, as `joined` has them: all of their points are there.

    Raises:
      ValueError: for a mask, or batches of another shape.
    """
    if mask is not None:
        raise ValueError("Expected clouds of one number of points in a tf.data.Dataset; got a mask.")
    spec = dataset.element_spec
    first = spec[0] if isinstance(spec, tuple) else spec
    if not isinstance(first, tf.TensorSpec) or first.shape.rank != 3 or first.shape[-1] != n_dim:
        raise ValueError(f"Expected batches of clouds [n, points, {n_dim}]; got {first}.")

    def join(x, *others):
        x = tf.cast(x, tf.float32)
        x = tf.concat([x, tf.ones_like(x[..., :1])], axis=-1)
        return (x, *others) if others else x

    return dataset.map(join, num_parallel_calls=tf.data.AUTOTUNE)
