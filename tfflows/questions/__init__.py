"""Questions to a distribution beyond densities and draws; `FlowModel` and `FlowMixture` have them as methods."""

from tfflows.questions.estimates import Estimate, entropy, kl_to, probability
from tfflows.questions.mode import Mode, mode
from tfflows.questions.outliers import Density, Latent, Outliers, Typicality, judge, outliers, p_values
from tfflows.questions.scalars import cdf, inverse_rosenblatt, quantile, rosenblatt
from tfflows.questions.triangular import Conditional, WeightedDraws, marginal_log_prob
from tfflows.questions.verbs import ByDraws, ByLatents

__all__ = [
    "ByDraws",
    "ByLatents",
    "Conditional",
    "Density",
    "Estimate",
    "Latent",
    "Mode",
    "Outliers",
    "Typicality",
    "WeightedDraws",
    "cdf",
    "entropy",
    "inverse_rosenblatt",
    "judge",
    "kl_to",
    "marginal_log_prob",
    "mode",
    "outliers",
    "p_values",
    "probability",
    "quantile",
    "rosenblatt",
]
