"""Small real data that ship with the package."""

from __future__ import annotations

from importlib import resources
from typing import NamedTuple

import numpy as np


class Split(NamedTuple):
    """Data to fit and data to judge by.

    Args:
      train: float32 `[n, n_dim]`.
      test: float32 `[m, n_dim]`.
    """

    train: np.ndarray
    test: np.ndarray


def alanine_dipeptide() -> Split:
    """Torsion angles phi, psi of alanine dipeptide from molecular dynamics.

    Three independent simulations of 20 ns in implicit solvent at 300 K, a frame each ps (so neighbouring
    rows are correlated). About 88 % of the frames are in the basin C7eq/extended, 12 % in alphaR, and
    0.3 % in alphaL (phi > 0), which is rarely entered.

    Returns:
      `Split`: train, float32 `[40000, 2]`, two of the simulations; test, float32 `[20000, 2]`, the third.
      The columns are phi and psi in radians, in [-pi, pi).

    Reference:
      https://github.com/davinh1/alanine-dipeptide-boltzmann-sampler, MIT licence, shipped as
      `data/alanine_dipeptide.LICENSE`.
    """
    path = resources.files("tfflows") / "data" / "alanine_dipeptide.npz"
    with path.open("rb") as file, np.load(file) as data:
        return Split(np.concatenate([data["trajectory1"], data["trajectory2"]]), data["trajectory3"])


class LabelledSplit(NamedTuple):
    """Images to fit and to judge by, with their labels.

    Args:
      train: uint8 `[n, H, W, C]`.
      train_labels: `[n]`.
      test: uint8 `[m, H, W, C]`.
      test_labels: `[m]`.
    """

    train: np.ndarray
    train_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray


def digits() -> LabelledSplit:
    """Handwritten digits: the first 6000 training and 1000 test images of MNIST.

    Returns:
      `LabelledSplit`: images uint8 `[n, 28, 28, 1]`, 0 is black paper, 255 white ink; labels uint8, 0 to 9.

    Reference:
      LeCun, Bottou, Bengio & Haffner (1998), Gradient-based learning applied to document recognition,
      https://doi.org/10.1109/5.726791; from https://github.com/rasbt/mnist-pngs, MIT licence, shipped as
      `data/digits.LICENSE`.
    """
    path = resources.files("tfflows") / "data" / "digits.npz"
    with path.open("rb") as file, np.load(file) as data:
        return LabelledSplit(
            data["train"][..., np.newaxis], data["train_labels"], data["test"][..., np.newaxis], data["test_labels"]
        )
