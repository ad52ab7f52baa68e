"""The questions as methods of flows."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from tfflows.questions import estimates, scalars, triangular
from tfflows.questions.mode import Mode
from tfflows.questions.mode import mode as find_mode
from tfflows.questions.outliers import Density, Outliers
from tfflows.questions.outliers import outliers as find_outliers


class ByDraws:
    """Questions that draws answer, with the standard errors of the answers."""

    def probability(self, region, context=None, *, n: int = 10_000, seed=None) -> estimates.Estimate:
        """The probability of a region, by draws.

        Args:
          region: a function of x `[n, *event]` that returns `[n]` booleans, or bounds (low, high) of a box, numbers or
            `[*event]`, infinite ones too.
          context: one condition `[*context_shape]` (or label), if the flow is conditional.
          n: number of draws, >= 2.
          seed: as in `sample`.

        Returns:
          `Estimate(value, error)`. The error is not 0 where all draws are in or out.

        Raises:
          ValueError: for a region of another kind or shape, n < 2, or a context that does not fit.
        """
        return estimates.probability(self, region, n, context, seed)

    def entropy(self, context=None, *, n: int = 10_000, seed=None) -> estimates.Estimate:
        """The differential entropy, -E log p, in nats, by draws.

        Args:
          context, n, seed: as in `probability`.

        Returns:
          `Estimate(value, error)`.

        Raises:
          ValueError: for n < 2, or a context that does not fit.
        """
        return estimates.entropy(self, n, context, seed)

    def kl_to(self, other, context=None, *, n: int = 10_000, seed=None) -> estimates.Estimate:
        """The Kullback-Leibler divergence E [log p - log q] to `other`, in nats, over draws of this flow.

        Args:
          other: a flow of the same data, which is given the same context if it is conditional, or a `tfd.Distribution`.
          context, n, seed: as in `probability`.

        Returns:
          `Estimate(value, error)`, both infinite if a draw is impossible under `other`.

        Raises:
          ValueError: if `other` has no log_prob, or is of other events; for n < 2, or a context that does not fit.
        """
        return estimates.kl_to(self, other, n, context, seed)

    def mode(self, context=None, *, n_starts: int = 8, n_draws: int = 1000, n_steps: int = 200, seed=None) -> Mode:
        """The densest point of continuous data: L-BFGS from the densest draws, in the coordinates of x.

        Args:
          context: as in `probability`.
          n_starts: draws to climb from. If these all lie on one hill, others are not seen.
          n_draws: draws that they are the densest of.
          n_steps: of each climb, at most.
          seed: as in `sample`.

        Returns:
          `Mode(x, log_prob)`, x `[*event]`; never less dense than the best draw.

        Raises:
          ValueError: for a flow of integers, n_starts that are not from 1 to n_draws, or a context that does not fit.
        """
        return find_mode(self, n_starts, n_draws, n_steps, context, seed)

    def outliers(
        self,
        x,
        context=None,
        *,
        calibration,
        rate: float = 0.01,
        score: Callable | None = None,
        seed: int | None = None,
    ) -> Outliers:
        """Which rows are strange, at a rate of false alarms that held-out data vouch for.

        Of rows that come from where the calibration rows come from, a fraction of `rate` is flagged in the mean over
        calibration data, or less if scores tie, whether the flow fits or not; conformal p-values. The density alone is
        known to mislead: it depends on the data's coordinates, and does not see rows that are too typical.

        Args:
          x: `[n, *event]`.
          context: `[n, *context_shape]`, if the flow is conditional.
          calibration: rows that it was not fitted to (validation data count as fitted to), or (rows, context); at
            least 1 / rate - 1 of them. The rate of one calibration scatters by sqrt(rate / their number).
          rate: of false alarms, in (0, 1).
          score: `questions.Density()`, the default, `Typicality()`, `Latent()`, or a function of (flow, x, context)
            that returns `[n]` numbers, large for strange rows.
          seed: lets chance decide between ties, so that data of few values are flagged at the full rate too.

        Returns:
          `Outliers(flags, p_values, scores, threshold)`.

        Raises:
          ValueError: for a rate outside (0, 1), too few calibration rows, or a score of another shape.

        References:
          Le Lan & Dinh (2021), https://arxiv.org/abs/2012.03808; Nalisnick et al. (2019),
          https://arxiv.org/abs/1906.02994; Bates et al. (2023), https://arxiv.org/abs/2104.08279
        """
        return find_outliers(self, x, context, calibration, rate, score or Density(), seed)


class ByLatents:
    """Questions to flows of one number, or whose Jacobian is triangular."""

    def cdf(self, x, context=None) -> tf.Tensor:
        """P(X <= x) for a flow of one number: exact, through its monotone map and the base's cdf.

        Args:
          x: `[n, 1]`.
          context: `[n, *context_shape]`, if the flow is conditional.

        Returns:
          `[n]`.

        Raises:
          ValueError: for events of another shape, a map that is not monotone (angles), or a base without a cdf.
        """
        return scalars.cdf(self, x, context)

    def quantile(self, p, context=None) -> tf.Tensor:
        """The x `[n, 1]` of which P(X <= x) = p, for a flow of one number: the inverse of `cdf`.

        Args:
          p: `[n]` in (0, 1), or one number, for all rows of the context.
          context: as in `cdf`.

        Raises:
          ValueError: as `cdf` does, and for p outside (0, 1).
        """
        return scalars.quantile(self, p, context)

    def rosenblatt(self, x, context=None) -> tf.Tensor:
        """u_i = P(X_i <= x_i | the scalars before it), `[n, D]`: independent uniform numbers, if the flow is right.

        Of triangular flows, such as `MAF(n_dim, alternate=False)`; "before" is in `bijector.triangular_order`. Numbers
        are kept inside (0, 1), where the dtype would round them to 1.

        Args:
          x: `[n, D]`.
          context: `[n, *context_shape]`, if the flow is conditional.

        Raises:
          ValueError: for a flow that is not triangular, scalars that are angles, or a base without a cdf.

        Reference:
          Rosenblatt (1952), Remarks on a multivariate transformation, https://doi.org/10.1214/aoms/1177729394
        """
        return scalars.rosenblatt(self, x, context)

    def inverse_rosenblatt(self, u, context=None) -> tf.Tensor:
        """The x `[n, D]` of which `rosenblatt` makes u; quasi-random u make even draws.

        Args:
          u: `[n, D]`, in (0, 1).
          context: as in `rosenblatt`.

        Raises:
          ValueError: as `rosenblatt` does, and for u outside (0, 1).
        """
        return scalars.inverse_rosenblatt(self, u, context)

    def conditional(self, known, context=None, *, n_draws: int = 1000, seed=None) -> triangular.Conditional:
        """The distribution of the other scalars, given some: `flow.conditional({0: 1.2, 2: 0.3}).sample(100)`.

        Of triangular flows, such as `MAF(n_dim, alternate=False)`. Draws and densities are exact if the known scalars
        come first in `bijector.triangular_order`; if not, by sequential importance sampling with resampling.

        Args:
          known: {column: value}, at least one, not all.
          context: one condition `[*context_shape]` (or label), if the flow is conditional.
          n_draws: weighted draws, where they are needed, >= 2.
          seed: of those for the norm of `log_prob`.

        Returns:
          An object with `columns`, those of the other scalars; `sample(n, seed=)`, `[n, k]`; `log_prob(x)` of values
          `[n, k]` of theirs; `log_evidence`, the log-density of the known values as an `Estimate`;
          `weighted(n, seed=)`, draws with weights and their effective number; and `is_exact`.

        Raises:
          ValueError: for a flow that is not triangular, or a base of dependent scalars.
        """
        return triangular.Conditional(self, known, context, n_draws, seed)

    def marginal_log_prob(self, x, context=None, *, n_draws: int = 1000, seed=None) -> estimates.Estimate:
        """Log-density in nats of the scalars that are known; those that are NaN in x are integrated out.

        Of triangular flows. Exact where the known scalars come first in `bijector.triangular_order`; elsewhere the
        density is estimated without bias by `n_draws` imputations of each row, so its logarithm is low by about half
        its squared error.

        Args:
          x: `[n, D]`, NaN where a number is missing.
          context: `[n, *context_shape]`, if the flow is conditional.
          n_draws, seed: as in `conditional`.

        Returns:
          `Estimate(value, error)`, `[n]` each; errors are 0 where values are exact.

        Raises:
          ValueError: as `conditional` does.
        """
        return triangular.marginal_log_prob(self, x, context, n_draws, seed)
