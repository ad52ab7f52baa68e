"""Flows as an estimator of scikit-learn (the extra `tfflows[sklearn]`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

try:
    from sklearn.base import BaseEstimator, DensityMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(f"Expected scikit-learn >= 1.6: pip install 'tfflows[sklearn]'; got: {error}") from error

from tfflows import frames, presets
from tfflows.bijectors import Bijector
from tfflows.callbacks import default_optimizer
from tfflows.domains import Domain
from tfflows.model import FlowModel
from tfflows.randomness import seeded

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FlowDensity"]


class FlowDensity(DensityMixin, BaseEstimator):
    """A density estimator like `sklearn.neighbors.KernelDensity`: for pipelines, grid searches, cross-validation.

    All that flows do beyond it, `estimator.flow_` does: it is the fitted `FlowModel`.

    Args:
      preset: the name of a preset, as of the command line (`rqnsf`, `realnvp`, `maf`), or a function that takes the
        number of columns and returns a bijector. By default autoregressive rational-quadratic splines, which fit best;
        where many samples are wanted, coupling ones (`crqnsf`) make them faster.
      n_layers, hidden: number of layers and widths of their nets, such as `(64, 64)`; None are the preset's own.
      domain: where columns live, a `Domain` each: a list of all, or of data frames a mapping by name, where the other
        columns are taken by their type as `frames.describe` does. By default all columns of arrays are real.
      epochs: over the data; None stops by itself and keeps the best weights.
      batch_size: rows in a training step, 256 by default.
      learning_rate: of Adam; None is tfflows' own.
      validation_fraction: of the rows, in (0, 1), that `epochs=None` holds out to see when to stop.
      jit_compile: whether XLA compiles training and densities, which takes some seconds and makes them faster; None
        compiles as `FlowModel.compile` does by itself.
      random_state: an integer, or a generator of NumPy, makes `fit` and draws reproducible.
      verbose: as in Keras' `fit`.

    Attributes:
      flow_: the fitted `FlowModel`.
      history_: Keras' history of the fit, a dict of lists.
      n_iter_: epochs that it took.
      n_features_in_: columns.
      feature_names_in_: their names, if data frames have them.
    """

    def __init__(
        self,
        preset: str | Callable = "rqnsf",
        *,
        n_layers: int | None = None,
        hidden: Sequence[int] | None = None,
        domain: Sequence[Domain] | Mapping[str, Domain] | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        validation_fraction: float = 0.1,
        jit_compile: bool | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int | str = 0,
    ):
        self.preset = preset
        self.n_layers = n_layers
        self.hidden = hidden
        self.domain = domain
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.validation_fraction = validation_fraction
        self.jit_compile = jit_compile
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X, y=None, sample_weight=None) -> FlowDensity:  # noqa: N803, scikit-learn's name
        """Fits a new flow.

        Args:
          X: `[n, D]`, n >= 2; an array, or a data frame whose columns may be categories, booleans and whole numbers.
          y: nothing, for pipelines.
          sample_weight: `[n]`, >= 0.

        Raises:
          ValueError: for data that are no table of finite numbers, or settings that the preset has not.
        """
        del y
        schema, domain = None, self.domain
        if frames.is_frame(X):
            validate_data(self, X, skip_check_array=True)
            schema, domain = frames.describe(X, domain)
        else:
            if isinstance(domain, Mapping):
                raise ValueError(f"Expected a list of domains for an array, whose columns have no names; got {domain}.")
            X = validate_data(self, X, dtype=[np.float64, np.float32], ensure_min_samples=2)  # noqa: N806
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, X if schema is None else np.empty(len(X)))
        n_dim = self.n_features_in_ if domain is None else sum(len(d.circular_latents) for d in domain)
        preset = presets.find(self.preset) if isinstance(self.preset, str) else self.preset
        if not callable(preset) or isinstance(preset, Bijector):
            raise ValueError(f"Expected the name of a preset, or a function of the number of columns; got {preset!r}.")
        if self.hidden is not None and np.ndim(self.hidden) != 1:
            raise ValueError(f"Expected hidden as a width for each layer, such as (64, 64); got {self.hidden}.")
        state = check_random_state(self.random_state)
        rng = np.random.default_rng(state.randint(2**31 - 1))
        with seeded(rng):
            hidden = None if self.hidden is None else tuple(self.hidden)
            bijector = presets.build(preset, n_dim, n_layers=self.n_layers, hidden=hidden)
            flow = FlowModel(bijector, domain=domain)
            flow.schema = schema
            optimizer = default_optimizer(averaged=self.epochs is None, learning_rate=self.learning_rate)
            flow.compile(optimizer, jit_compile=self.jit_compile)
            history = flow.fit(
                X,
                sample_weight=sample_weight,
                epochs=self.epochs,
                batch_size=self.batch_size,
                validation_split=self.validation_fraction if self.epochs is None else None,
                verbose=self.verbose,
            )
        self.flow_, self.history_, self.n_iter_ = flow, history.history, len(history.epoch)
        return self

    def score_samples(self, X) -> np.ndarray:  # noqa: N803
        """Log-densities in nats, `[n]`.

        Args:
          X: `[n, D]`, as in `fit`.

        Raises:
          ValueError: for data that are no table of finite numbers, or of other columns.
          NotFittedError: before `fit`.
        """
        return np.asarray(self._fitted().log_prob(self._checked(X)))

    def score(self, X, y=None) -> float:  # noqa: N803
        """The mean log-density of rows, in nats; greater is better.

        Args:
          X: `[n, D]`, as in `fit`.
          y: nothing, for pipelines.
        """
        del y
        return float(np.mean(self.score_samples(X), dtype=np.float64))

    def sample(self, n_samples: int = 1, random_state=None) -> np.ndarray | pd.DataFrame:
        """Draws `[n_samples, D]`: a data frame with the columns and types of the data, if `fit` had one.

        Args:
          n_samples: >= 1.
          random_state: as in the constructor, whose own it is if None.

        Raises:
          ValueError: for n_samples < 1, or another random_state.
          NotFittedError: before `fit`.
        """
        flow = self._fitted()
        state = check_random_state(self.random_state if random_state is None else random_state)
        x = flow.sample(n_samples, seed=int(state.randint(2**31 - 1))).numpy()
        return x if flow.schema is None else frames.to_frame(flow.schema, x)

    def _fitted(self) -> FlowModel:
        check_is_fitted(self)
        return self.flow_

    def _checked(self, X):  # noqa: N803
        if frames.is_frame(X) and self.flow_.schema is not None:
            validate_data(self, X, reset=False, skip_check_array=True)
            return X
        return validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
