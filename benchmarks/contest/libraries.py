"""The libraries that take part.

Each builder gets the case and the training rows `[n_steps * batch_size, n_dim]` and returns the flow's `Verbs`.
"""

from __future__ import annotations

from contest.with_jax import build_distrax, build_flowjax, fit_flowjax
from contest.with_tensorflow import build_tfflows, build_tfp, fit_tfflows
from contest.with_torch import build_nflows, build_normflows, build_torchflows, build_zuko, fit_zuko

# Of each library: how it is built, and the packages whose versions the results name.
LIBRARIES = {
    "tfflows": (build_tfflows, ("tfflows", "tensorflow", "keras")),
    "flowjax": (build_flowjax, ("flowjax", "equinox", "jax")),
    "distrax": (build_distrax, ("distrax", "jax")),
    "zuko": (build_zuko, ("zuko", "torch")),
    "nflows": (build_nflows, ("nflows", "torch")),
    "normflows": (build_normflows, ("normflows", "torch")),
    "torchflows": (build_torchflows, ("torchflows", "torch")),
    "tfp": (build_tfp, ("tensorflow-probability", "tf_keras", "tensorflow")),
}
# The small fit, by the training loop that a library's users call.
FITS = {"tfflows": fit_tfflows, "flowjax": fit_flowjax, "zuko": fit_zuko}


def is_offered(library: str, architecture: str) -> bool:
    return library != "distrax" or architecture in ("RealNVP", "CouplingRQNSF")
