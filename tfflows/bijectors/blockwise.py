"""Blockwise: a table's columns, each group of them with a map of its own."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfflows.bijectors.base import Bijector
from tfflows.bijectors.parts import enough_rows, merge
from tfflows.numerics import inverse_permutation, permute
from tfflows.serialization import register


@register
class Blockwise(Bijector):
    """Maps groups of columns, each by a bijector of its own; columns of none pass unchanged.

    Latents have the order of the columns they come from; where a bijector has another number of latents than of
    columns, they stand where its first column was. Log-dets add up.

    Args:
      bijectors: of events of one axis.
      columns: for each bijector, the numbers of the columns that it maps.
      n_columns: of the table.

    Raises:
      ValueError: if columns are none of the table's, or are mapped twice, or a bijector has another number of them.
    """

    def __init__(
        self,
        bijectors: Sequence[Bijector],
        columns: Sequence[Sequence[int]],
        n_columns: int,
        name: str | None = None,
    ):
        parameters = dict(locals())
        columns = [[int(c) for c in group] for group in columns]
        mapped = [c for group in columns for c in group]
        if len(set(mapped)) < len(mapped) or not set(mapped) <= set(range(n_columns)):
            raise ValueError(f"Expected each of the columns 0 .. {n_columns - 1} at most once; got {columns}.")
        for bijector, group in zip(bijectors, columns, strict=True):
            if bijector.event_shape != (len(group),):
                raise ValueError(f"Expected a bijector of {len(group)} columns; got one of {bijector.event_shape}.")
        self._blocks = list(bijectors)
        self._columns = columns
        self._passed = [c for c in range(n_columns) if c not in mapped]
        widths = [*(b.latent_shape[0] for b in bijectors), len(self._passed)]
        self._data_sizes = [*map(len, columns), len(self._passed)]
        self._latent_sizes = widths
        places = [
            [(c, 0) for c in group] if width == len(group) else [(group[0], i) for i in range(width)]
            for group, width in zip([*columns, self._passed], widths, strict=True)
        ]
        flat = [place for group in places for place in group]
        self._data_order = np.asarray(mapped + self._passed)
        self._latent_order = np.asarray(sorted(range(len(flat)), key=flat.__getitem__))
        super().__init__(
            parameters,
            event_shape=(n_columns,),
            context_dim=merge("context width", [b.context_dim for b in bijectors]),
            is_constant_jacobian=all(b.is_constant_jacobian for b in bijectors),
            name=name,
        )

    @property
    def latent_shape(self):
        return (len(self._latent_order),)

    @property
    def accepts_float64(self):
        return True  # columns that pass unchanged keep their digits for what comes next

    @property
    def is_elementwise(self):
        return all(block.is_elementwise for block in self._blocks)

    def _forward_and_log_det(self, z, context):
        groups = tf.split(permute(z, inverse_permutation(self._latent_order)), self._latent_sizes, axis=-1)
        x, log_det = self._mapped("forward", groups, context)
        return permute(x, inverse_permutation(self._data_order)), log_det

    def _inverse_and_log_det(self, x, context):
        groups = tf.split(permute(x, self._data_order), self._data_sizes, axis=-1)
        z, log_det = self._mapped("inverse", groups, context)
        return permute(z, self._latent_order), log_det

    def _inverse_and_log_dets(self, x, context):
        *groups, passed = tf.split(permute(x, self._data_order), self._data_sizes, axis=-1)
        pairs = [b.inverse_and_log_dets(g, context) for b, g in zip(self._blocks, groups, strict=True)]
        pairs.append((passed, tf.zeros_like(passed)))
        z, log_dets = (_joined([tf.cast(v, passed.dtype) for v in part]) for part in zip(*pairs, strict=True))
        return permute(z, self._latent_order), tf.cast(permute(log_dets, self._latent_order), self.dtype)

    def _mapped(self, method, groups, context):
        *groups, passed = groups
        total, values = tf.zeros(tf.shape(passed)[:-1], self.dtype), []
        for block, group in zip(self._blocks, groups, strict=True):
            value, log_det = getattr(block, f"{method}_and_log_det")(group, context)
            values.append(tf.cast(value, passed.dtype))
            total += tf.cast(log_det, self.dtype)
        return _joined([*values, passed]), total

    # What blocks do with data.

    def _of_blocks(self, x):
        return [(block, columns, x[:, columns]) for block, columns in zip(self._blocks, self._columns, strict=True)]

    @property
    def blocks(self) -> list[Bijector]:
        """The bijectors of the groups."""
        return list(self._blocks)

    @property
    def columns(self) -> list[list[int]]:
        """Of each of them, the columns that it maps."""
        return [list(group) for group in self._columns]

    @property
    def enough_rows(self):
        return enough_rows(self._blocks)

    @property
    def needs_adapt(self):
        return any(block.needs_adapt for block in self._blocks)

    def adapt(self, x, context=None, *, sample_weight=None, verbose=0):
        for block, _, group in self._of_blocks(np.asarray(x)):
            block.adapt(group, context, sample_weight=sample_weight, verbose=verbose)

    def check(self, x, what, columns=None, *, exact=True):
        columns = range(x.shape[1]) if columns is None else columns
        for block, own, group in self._of_blocks(x):
            block.check(group, what, [columns[c] for c in own], exact=exact)

    @property
    def is_discrete(self):
        return any(block.is_discrete for block in self._blocks)

    def quantize(self, x):
        return self._changed(x, lambda block, group: block.quantize(group))

    def dequantize(self, x, context):
        if not self.is_discrete:
            return x, None
        total = 0.0

        def moved(block, group):
            nonlocal total
            group, log_weight = block.dequantize(group, context)
            total = total if log_weight is None else total + log_weight
            return group

        return self._changed(x, moved), total

    def _changed(self, x, change):
        if not self.is_discrete:
            return x
        *groups, passed = tf.split(permute(x, self._data_order), self._data_sizes, axis=-1)
        groups = [change(block, group) for block, group in zip(self._blocks, groups, strict=True)]
        groups = [tf.cast(group, passed.dtype) for group in [*groups, passed]]
        return permute(_joined(groups), inverse_permutation(self._data_order))

    def describe(self):
        parts = ", ".join(f"{b.describe()}" for b in self._blocks)
        return f"Blockwise: {parts or 'nothing'}"


def _joined(groups):
    """Groups of columns beside each other; a context, or several points of integers, may have given some more axes."""
    batches = [tf.shape(group)[:-1] for group in groups]
    if len({str(group.shape[:-1]) for group in groups}) > 1:
        batch = functools.reduce(tf.broadcast_dynamic_shape, batches)
        groups = [tf.broadcast_to(g, tf.concat([batch, [g.shape[-1]]], axis=0)) for g in groups]
    return tf.concat(groups, axis=-1)
