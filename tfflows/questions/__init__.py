"""Questions to a distribution beyond densities and draws; `FlowModel` and `FlowMixture` have them as methods."""

from tfflows.questions.estimates import Estimate
from tfflows.questions.mode import Mode
from tfflows.questions.outliers import Density, Latent, Outliers, Typicality, judge, p_values
from tfflows.questions.triangular import Conditional, WeightedDraws

__all__ = [
    "Conditional",
    "Density",
    "Estimate",
    "Latent",
    "Mode",
    "Outliers",
    "Typicality",
    "WeightedDraws",
    "judge",
    "p_values",
]
