"""Presets by the names that people type."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping

from tfflows import architectures

__all__ = ["build", "find"]

# Of spline flows the autoregressive ones: of mixed tables they are nearer to the truth (docs/which_flow.md). Their
# samples come in stages, which coupling ones need not.
ALIASES = {
    "rqnsf": "MaskedAutoregressiveRQNSF",
    "nsf": "MaskedAutoregressiveRQNSF",
    "spline": "MaskedAutoregressiveRQNSF",
    "lrs": "MaskedAutoregressiveLRS",
    "marqnsf": "MaskedAutoregressiveRQNSF",
    "iarqnsf": "InverseAutoregressiveRQNSF",
    "crqnsf": "CouplingRQNSF",
    "umnn": "UMNNMAF",
    "bernstein": "BPF",
    "sos": "SOSPF",
    "gaussianization": "GaussianizationFlow",
    "residual": "ResidualFlow",
    "flowpp": "FlowPlusPlus",
    "iresnet": "InvertibleResNet",
}
OF_IMAGES = ("Glow", "MultiscaleRealNVP", "variational_noise")


def find(name: str) -> Callable:
    """The preset of a name: in any case, with dashes or without, or an alias.

    Raises:
      ValueError: for an unknown name, with the nearest known ones, or a preset of images.
    """
    known = {_plain(preset): preset for preset in architectures.__all__}
    plain = _plain(name)
    preset = ALIASES.get(plain) or known.get(plain)
    if preset in OF_IMAGES:
        raise ValueError(f"Expected a flow of tables; got '{name}', which is of images: fit a FlowModel to them.")
    if preset is None:
        names = [*ALIASES, *(key for key, value in known.items() if value not in OF_IMAGES)]
        near = difflib.get_close_matches(plain, names, n=3, cutoff=0.4)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(f"Expected the name of a preset, such as rqnsf, maf or realnvp; got '{name}'.{hint}")
    return getattr(architectures, preset)


def build(preset: Callable, n_dim: int, words: Mapping[str, str] | None = None, **settings):
    """The bijector of a preset.

    Args:
      preset: as `find` gives it.
      n_dim: number of scalars.
      words: what the user calls a setting, where that is not its name.
      **settings: such as `n_layers`; None is the preset's own default.

    Raises:
      ValueError: for a setting that the preset has not.
    """
    settings = {name: value for name, value in settings.items() if value is not None}
    accepted = inspect.signature(preset).parameters
    if unknown := [(words or {}).get(name, name) for name in settings if name not in accepted]:
        raise ValueError(
            f"Expected no {' or '.join(unknown)} for {getattr(preset, '__name__', preset)}, which has none; got some."
        )
    return preset(n_dim, **settings)


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")
