"""Pictures of whether a flow is right: its latents, its calibration, its coverage, with bands of what chance does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tfflows.plot import canvas

MOST = 6  # scalars that are drawn unless told


def latents(
    flow,
    x,
    context=None,
    *,
    scalars: Sequence[int] | None = None,
    most: int = MOST,
    bins: int = 20,
    level: float = 0.95,
    seed: int = 0,
    title: str | None = None,
    figure=None,
    path: str | Path | None = None,
):
    """Whether the latents of held-out data are distributed as the base is: for each scalar two panels.

    Above, a histogram of the base's cumulative probability of the latent, which is flat if the flow is right; below,
    the latents' quantiles against the base's, which are then equal. Bands hold what chance does to all bins of a panel,
    or to all quantiles, together. A hump in the middle means latents too narrow, so a flow too wide; a valley the other
    way round. With `inference.calibration.latent_tests` the distances and p-values of the titles are at hand.

    Args:
      flow: a `FlowModel`. Of images latents are as `encode` gives them.
      x: `[n, *event]`, data that it has not been fitted to.
      context: `[n, *context_shape]`, if the flow is conditional.
      scalars: numbers of the latents to draw; by default those of the largest Kolmogorov-Smirnov distance.
      most: how many by default.
      bins: of the histograms.
      level: of the bands, in (0, 1).
      seed: of draws of a base that has no `cdf`.
      title: a text above.
      figure: matplotlib's figure to draw in; by default a new one.
      path: where the picture is written, as PNG or whatever its ending says; None writes nothing.

    Returns:
      the figure.

    Raises:
      ValueError: for a flow without a single latent space; for data or scalars that do not fit.

    Reference:
      bands of quantiles: Sailynoja, Burkner & Vehtari (2022), https://arxiv.org/abs/2103.10522
    """
    found = _found()
    level = canvas.check_level(level)
    canvas.check_count(bins, "bins", 2)
    z, u, n_draws = found.latent_pit(flow, x, context, seed=seed)
    tests = found.uniformity(u, n_draws)
    chosen = _chosen(scalars, tests, most)
    k = len(chosen)
    figure = canvas.new_figure((max(2.5 * k, 3.4), 5.0), figure)
    axes = figure.subplots(2, k, squeeze=False)
    quantile = _base_quantiles(flow, n_draws, seed)
    for i, (upper, lower) in zip(chosen, axes.T, strict=True):
        _histogram(upper, u[:, i], bins, level)
        upper.set_title(f"z{i}: {_verdict(tests, i)}", fontsize="small")
        upper.set_xlabel("base's probability below z", fontsize="small")
        _qq(lower, z[:, i], lambda p, i=i: quantile(p, i), level)
    axes[0, 0].set_ylabel("rows")
    axes[1, 0].set_ylabel("quantile of latents")
    _finish(figure, axes, title, k, z.shape[1], "latents", path)
    return figure


def calibration(
    flow,
    x,
    context=None,
    *,
    scalars: Sequence[int] | None = None,
    most: int = MOST,
    n_draws: int = 199,
    bins: int = 20,
    level: float = 0.95,
    labels: Sequence[str] | None = None,
    seed: int = 0,
    title: str | None = None,
    figure=None,
    path: str | Path | None = None,
):
    """Ranks of data among a flow's draws for their contexts, a histogram for each scalar: flat if the flow is right.

    A hump in the middle means draws too wide, a valley draws too narrow, a slope draws too high or too low. The band
    holds what chance does to all bins of a panel together. It looks at one scalar at a time; `coverage` at all.

    Args:
      flow: a flow or mixture, conditional or not.
      x: `[n, *event]`, data that it has not been fitted to.
      context: `[n, *context_shape]`, if the flow is conditional.
      scalars, most: which are drawn, as in `latents`.
      n_draws: for each row, >= 1.
      bins: of the histograms.
      level: of the band, in (0, 1).
      labels: of all scalars of x; by default those of `flow.schema`, or x0, x1, ...
      seed: of the draws.
      title, figure, path: as in `latents`.

    Returns:
      the figure.

    Raises:
      ValueError: for data, contexts or scalars that do not fit.

    Reference:
      Talts, Betancourt, Simpson, Vehtari & Gelman (2018), Validating Bayesian inference algorithms with
      simulation-based calibration, https://arxiv.org/abs/1804.06788
    """
    found = _found()
    level = canvas.check_level(level)
    canvas.check_count(bins, "bins", 2)
    u = found.places(flow, x, context, n_draws=canvas.check_count(n_draws, "n_draws"), seed=seed).scalars
    tests = found.uniformity(u)
    schema = getattr(flow, "schema", None)
    names = canvas.names(labels, u.shape[1], None if schema is None else [column.name for column in schema.columns])
    chosen = _chosen(scalars, tests, most)
    k = len(chosen)
    n_columns = min(k, 3)
    figure = canvas.new_figure((max(2.7 * n_columns, 3.4), 2.5 * -(-k // n_columns) + 0.2), figure)
    axes = figure.subplots(-(-k // n_columns), n_columns, squeeze=False)
    for i, axis in zip(chosen, axes.flat, strict=False):
        _histogram(axis, u[:, i], bins, level)
        axis.set_title(f"{names[i]}: {_verdict(tests, i)}", fontsize="small")
        axis.set_xlabel("share of draws below", fontsize="small")
    for axis in axes.flat[k:]:
        axis.set_axis_off()
    for axis in axes[:, 0]:
        axis.set_ylabel("rows")
    _finish(figure, axes, title, k, u.shape[1], "scalars", path)
    return figure


def coverage(
    flow,
    x,
    context=None,
    *,
    n_draws: int = 199,
    level: float = 0.95,
    label: str = "flow",
    seed: int = 0,
    title: str | None = None,
    ax=None,
    path: str | Path | None = None,
):
    """How often highest-density regions of a flow hold the data, against how often they promise to.

    On the diagonal the flow is right; below, it is too sure of itself; above, too wide. The band around the diagonal
    holds what chance does to all levels together.

    Args:
      flow, x, context, n_draws, seed: as in `calibration`.
      level: of the band, in (0, 1).
      label: the curve's; several flows may be drawn in one `ax`.
      title: a text above.
      ax: matplotlib's axes to draw in; by default those of a new figure.
      path: where the picture is written, as PNG or whatever its ending says; None writes nothing.

    Returns:
      the axes.

    Raises:
      ValueError: for data or contexts that do not fit.

    Reference:
      Hermans et al. (2022), A trust crisis in simulation-based inference? Your posterior approximations can be
      unfaithful, https://arxiv.org/abs/2110.06581
    """
    found = _found()
    level = canvas.check_level(level)
    u = found.places(flow, x, context, n_draws=canvas.check_count(n_draws, "n_draws"), seed=seed).regions
    at = np.linspace(0.005, 0.995, 199)
    low, high = found.band(len(u), at, level)
    is_new = ax is None or not ax.lines
    ax = canvas.new_axes(ax, (4.4, 4.2))
    if is_new:
        ax.fill_between(at, low, high, color=canvas.BAND, linewidth=0, label=f"{canvas.per_cent(level)} if right")
        ax.plot([0.0, 1.0], [0.0, 1.0], ":", color="black", linewidth=1.0)
    style = canvas.STYLES[max(0, len(ax.lines) - 1) % len(canvas.STYLES)]
    colour = (canvas.CURVE, "black", "tab:blue", "0.45")[max(0, len(ax.lines) - 1) % 4]
    levels = np.concatenate([[0.0], np.sort(u), [1.0]])
    ax.plot(levels, np.linspace(0.0, 1.0, len(levels)), style, color=colour, linewidth=1.8, label=label)
    ax.set(xlabel="mass of the highest-density region", ylabel="share of the data in it", xlim=(0, 1), ylim=(0, 1))
    ax.set_aspect("equal")
    ax.legend(loc="upper left", fontsize="small", frameon=False)
    if title:
        ax.set_title(title)
    canvas.save(ax, path)
    return ax


def _found():
    """The module of what is drawn here, which needs SciPy."""
    canvas.module("scipy")
    from tfflows.inference import calibration

    return calibration


def _chosen(scalars, tests, most: int) -> list[int]:
    n = len(tests.distance)
    if scalars is None:
        return sorted(np.argsort(-tests.distance)[: canvas.check_count(most, "most")].tolist())
    chosen = [int(i) for i in np.ravel(scalars)]
    if not chosen or not all(0 <= i < n for i in chosen):
        raise ValueError(f"Expected scalars from 0 to {n - 1}, at least one; got {chosen}.")
    return chosen


def _verdict(tests, i) -> str:
    p = tests.p_value[i]
    return f"KS {tests.distance[i]:.3f}, p " + (f"= {p:.2f}" if p >= 0.01 else f"= {p:.0e}" if p > 1e-99 else "= 0")


def _finish(figure, axes, title, k, n, what, path):
    for axis in axes.flat:
        axis.tick_params(labelsize="small")
    if k < n and title is None:
        title = f"{k} of {n} {what}"
    if title:
        figure.suptitle(title)
    canvas.save(figure, path)


def _histogram(axis, u, bins: int, level: float) -> None:
    """Counts of probabilities, and between what they all are with chance `level` if these are uniform (Bonferroni)."""
    from scipy import stats

    edges = np.linspace(0.0, 1.0, bins + 1)
    counts = np.histogram(np.clip(u, 0.0, 1.0), edges)[0]
    low, high = stats.binom.interval(1.0 - (1.0 - level) / bins, len(u), 1.0 / bins)
    axis.axhspan(low, high, color=canvas.BAND, linewidth=0, zorder=0)
    axis.axhline(len(u) / bins, color="black", linestyle=":", linewidth=1.0, zorder=1)
    axis.stairs(counts, edges, color=canvas.CURVE, linewidth=1.6, zorder=2)
    axis.set(xlim=(0.0, 1.0), ylim=(0.0, 1.08 * max(high, counts.max())))


def _base_quantiles(flow, n_draws, seed):
    """A function of (p, i): quantiles of the base's scalar i."""
    import tensorflow as tf

    shape = flow.base.event_shape
    if n_draws is not None:
        drawn = np.asarray(flow.base.sample([n_draws], np.array([seed, 0], np.int32)), np.float64).reshape(n_draws, -1)
        return lambda p, i: np.quantile(drawn[:, i], p)

    def quantile(p, i):
        every = tf.broadcast_to(tf.reshape(tf.cast(p, flow.accepts.dtype), [-1] + [1] * len(shape)), [len(p), *shape])
        return np.asarray(flow.base.quantile(every), np.float64).reshape(len(p), -1)[:, i]

    return quantile


def _qq(axis, z, quantile, level: float) -> None:
    """Quantiles of latents `[n]` against the base's, and a band around the diagonal."""
    found = _found()
    n = len(z)
    # Evenly spread where a normal's quantiles are, so that tails have places too.
    at = 1.0 / (1.0 + np.exp(-np.linspace(-np.log(2.0 * n), np.log(2.0 * n), 101)))
    low, high = found.band(n, at, level)
    expected = quantile(at)
    edge = np.array([0.25 / n, 1.0 - 0.25 / n])
    ends = quantile(edge)
    left, right = (quantile(np.clip(share, *edge)) for share in (low, high))
    shown = np.unique(np.rint(np.append(at * (n - 1), [0, n - 1])).astype(int))
    p = (shown + 0.5) / n
    values = np.sort(z)[shown]
    margin = 0.15 * (ends[1] - ends[0])
    window = ends[0] - 2.0 * margin, ends[1] + 2.0 * margin
    axis.fill_betweenx(expected, left, right, color=canvas.BAND, linewidth=0, zorder=0)
    axis.plot(ends, ends, ":", color="black", linewidth=1.0, zorder=1)
    inside = np.clip(values, *window)
    axis.plot(quantile(p), inside, "-", color=canvas.CURVE, linewidth=1.6, zorder=2)
    far = values != inside  # what is farther out, at the edge
    axis.plot(quantile(p)[far], inside[far], "^", color=canvas.CURVE, markersize=4, zorder=3)
    axis.set(xlim=(ends[0] - 0.2 * margin, ends[1] + 0.2 * margin))
    axis.set_ylim(min(ends[0], inside.min()) - 0.3 * margin, max(ends[1], inside.max()) + 0.3 * margin)
    axis.set_xlabel("quantile of the base", fontsize="small")
