"""Densities that are known exactly, and draws from them."""

from __future__ import annotations

import abc
import numbers
from dataclasses import dataclass

import numpy as np

CHUNK = 4096  # rows; the widest temporary, of TwoMoons, then takes 5 MB
NODES, WEIGHTS = (0.5 * a for a in np.polynomial.legendre.leggauss(40))
NODES = NODES + 0.5  # on [0, 1]
DROP = 40.0  # nats below its peak where an integrand is cut off; exp(-40) is under float64's resolution


class Toy(abc.ABC):
    """A density with a sampler and an exact log-density.

    Attributes:
      n_dim: width of a draw.
    """

    n_dim = 2

    def sample(self, n: int, seed: int | None = None) -> np.ndarray:
        """Independent draws, float32 `[n, n_dim]`.

        Args:
          n: number of draws, >= 1.
          seed: makes the draws reproducible; anything `np.random.default_rng` takes.

        Raises:
          ValueError: if n is not a whole number >= 1.
        """
        is_whole = isinstance(n, numbers.Real) and not isinstance(n, bool) and n >= 1 and n % 1 == 0
        _check(is_whole, "a number of draws n >= 1", n)
        return self._sample(int(n), np.random.default_rng(seed)).astype(np.float32)

    def log_prob(self, x) -> np.ndarray:
        """Log-density in nats, float64 `[n]`, of rows `x` `[n, n_dim]`.

        Raises:
          ValueError: if x has another shape, NaN or inf.
        """
        x = np.asarray(x, np.float64)
        _check(x.ndim == 2 and x.shape[1] == self.n_dim, f"x of shape [n, {self.n_dim}]", list(x.shape))
        _check(np.isfinite(x).all(), "finite x", "NaN or inf")
        result = np.empty(len(x))
        for i in range(0, len(x), CHUNK):
            result[i : i + CHUNK] = self._log_prob(x[i : i + CHUNK])
        return result

    @abc.abstractmethod
    def _sample(self, n, rng):
        """Draws `[n, n_dim]`."""

    @abc.abstractmethod
    def _log_prob(self, x):
        """Log-density `[n]` of finite float64 x `[n, n_dim]`, n <= CHUNK."""


@dataclass(frozen=True)
class Gaussian1D(Toy):
    """A normal distribution on the line.

    Args:
      mean: its mean.
      std: its standard deviation, > 0.

    Raises:
      ValueError: for other arguments.
    """

    mean: float = 0.0
    std: float = 1.0
    n_dim = 1

    def __post_init__(self):
        _check(np.isfinite(self.mean), "a finite mean", self.mean)
        _check_positive("std", self.std)

    def _sample(self, n, rng):
        return rng.normal(self.mean, self.std, [n, 1])

    def _log_prob(self, x):
        return _log_normal(x[:, 0], self.mean, self.std)


@dataclass(frozen=True)
class FourModes1D(Toy):
    """A mixture of four normals on the line; by default well apart, with unequal weights and widths.

    k ~ Categorical(weights),  x | k ~ Normal(means[k], stds[k])

    Args:
      weights: four weights, > 0; only their ratios matter.
      means: the four means.
      stds: the four standard deviations, > 0.

    Raises:
      ValueError: for other arguments.
    """

    weights: tuple[float, ...] = (0.15, 0.4, 0.15, 0.3)
    means: tuple[float, ...] = (-6.0, -2.0, 1.5, 5.0)
    stds: tuple[float, ...] = (0.4, 0.8, 0.25, 0.6)
    n_dim = 1

    def __post_init__(self):
        lengths = [len(self.weights), len(self.means), len(self.stds)]
        _check(lengths == [4, 4, 4], "four weights, four means and four stds", lengths)
        _check_positive("weights", self.weights)
        _check(np.isfinite(self.means).all(), "finite means", self.means)
        _check_positive("stds", self.stds)

    def _sample(self, n, rng):
        k = rng.choice(4, n, p=self._probabilities())
        return rng.normal(np.take(self.means, k), np.take(self.stds, k))[:, None]

    def _log_prob(self, x):
        terms = _log_normal(x, np.asarray(self.means), np.asarray(self.stds)) + np.log(self._probabilities())
        return np.logaddexp.reduce(terms, axis=1)

    def _probabilities(self):
        return np.asarray(self.weights, np.float64) / np.sum(self.weights)


@dataclass(frozen=True)
class TwoMoons(Toy):
    """Two interleaved half circles with Gaussian noise, each with half of the mass.

    upper: (cos t, sin t) + noise e;  lower: (1 - cos t, 1/2 - sin t) + noise e;  t ~ U(0, pi), e ~ Normal(0, I)

    This is the law of `sklearn.datasets.make_moons`, which spaces t evenly, for many points. The density is a
    quadrature over t, good to better than 1e-6 nats.

    Args:
      noise: standard deviation of the noise, > 0.

    Raises:
      ValueError: for another noise.
    """

    noise: float = 0.1

    def __post_init__(self):
        _check_positive("noise", self.noise)

    def _sample(self, n, rng):
        t = rng.uniform(0.0, np.pi, n)
        arc = np.stack([np.cos(t), np.sin(t)], axis=1)
        is_upper = rng.integers(2, size=[n, 1]) == 0
        return np.where(is_upper, arc, [1.0, 0.5] - arc) + self.noise * rng.normal(size=[n, 2])

    def _log_prob(self, x):
        # A half turn takes the lower moon to the upper one, whose centre is the origin.
        x = np.stack([x, [1.0, 0.5] - x], axis=1)
        radius, angle = np.hypot(x[..., 0], x[..., 1]), np.abs(np.arctan2(x[..., 1], x[..., 0]))
        # The angles u between x and the moon's points fall into two pieces, as seen from the moon's two
        # ends: they begin at u = 0 if x is on the moon's side of the centre, else they stop at u = pi.
        ends = np.stack([angle, np.pi - angle], axis=-1)
        faces = x[..., 1, None] >= 0.0
        kappa = radius[..., None] / self.noise**2
        arcs = _log_arc(kappa, np.where(faces, 0.0, ends), np.where(faces, ends, np.pi))
        moons = np.logaddexp.reduce(arcs, axis=-1) - 0.5 * ((radius - 1.0) / self.noise) ** 2
        return np.logaddexp.reduce(moons, axis=-1) - np.log(4.0 * (np.pi * self.noise) ** 2)


@dataclass(frozen=True)
class Rings(Toy):
    """Concentric circles with Gaussian noise in the plane, each with the same mass.

    x = radii[k] (cos t, sin t) + noise e;  k and t uniform, e ~ Normal(0, I)

    With R = |x|, a ring of radius r has p(x) = exp(-(R^2 + r^2) / (2 noise^2)) I0(R r / noise^2) / (2 pi noise^2),
    smooth at the centre too. The defaults are those of FFJORD.

    Args:
      radii: the radii, > 0.
      noise: standard deviation of the noise, > 0.

    Raises:
      ValueError: for other arguments.

    Reference:
      Grathwohl et al., FFJORD, 2019, https://arxiv.org/abs/1810.01367
    """

    radii: tuple[float, ...] = (0.75, 1.5, 2.25, 3.0)
    noise: float = 0.08

    def __post_init__(self):
        _check(np.ndim(self.radii) == 1 and len(self.radii) > 0, "a tuple of radii", self.radii)
        _check_positive("radii", self.radii)
        _check_positive("noise", self.noise)

    def _sample(self, n, rng):
        t = rng.uniform(0.0, 2.0 * np.pi, n)
        circle = np.stack([np.cos(t), np.sin(t)], axis=1)
        return rng.choice(self.radii, [n, 1]) * circle + self.noise * rng.normal(size=[n, 2])

    def _log_prob(self, x):
        radius, radii = np.hypot(x[:, :1], x[:, 1:]), np.asarray(self.radii, np.float64)
        rings = _log_arc(radius * radii / self.noise**2, 0.0, np.pi) - 0.5 * ((radius - radii) / self.noise) ** 2
        return np.logaddexp.reduce(rings, axis=1) - np.log(2.0 * len(radii) * (np.pi * self.noise) ** 2)


@dataclass(frozen=True)
class Checkerboard(Toy):
    """Uniform on every other cell of a square board: p = 1 / (2 half_width^2) there, 0 elsewhere.

    The cell at the lower left is one of those with mass.

    Args:
      n_cells: cells along a side, even.
      half_width: the board is [-half_width, half_width]^2.

    Raises:
      ValueError: for other arguments.
    """

    n_cells: int = 4
    half_width: float = 4.0

    def __post_init__(self):
        is_even = not isinstance(self.n_cells, bool) and self.n_cells >= 2 and self.n_cells % 2 == 0
        _check(is_even, "an even number of cells >= 2", self.n_cells)
        _check_positive("half_width", self.half_width)

    def _sample(self, n, rng):
        column = rng.integers(self.n_cells, size=n)
        row = 2 * rng.integers(self.n_cells // 2, size=n) + column % 2
        # Rounding to float32 moves a draw by less than this part of a cell: none leaves its cell.
        margin = self.n_cells * 2.0**-24
        cell = np.stack([column, row], axis=1) + np.clip(rng.random([n, 2]), margin, 1.0 - margin)
        return self.half_width * (2.0 * cell / self.n_cells - 1.0)

    def _log_prob(self, x):
        cell = np.floor(0.5 * self.n_cells * (x / self.half_width + 1.0))
        has_mass = (np.abs(x) < self.half_width).all(axis=1) & (cell.sum(axis=1) % 2.0 == 0.0)
        return np.where(has_mass, -np.log(2.0 * self.half_width**2), -np.inf)


@dataclass(frozen=True)
class Pinwheel(Toy):
    """Normal blobs at distance 1 around the origin, twisted into arms.

    f ~ Normal((1, 0), diag(radial_std^2, tangential_std^2)),  k uniform,
    x = f turned by 2 pi k / n_arms + rate exp(min(|f|, 10))

    The usual pinwheel turns f by an angle that depends on f's first coordinate; this one's depends on |f|,
    which turning preserves. So the map has an inverse, with determinant 1, and the density is exact:
    p(x) is the mean over k of the density of x turned back. The bound 10 keeps the angle finite.

    Args:
      n_arms: number of arms, >= 1.
      radial_std: standard deviation along an arm, > 0.
      tangential_std: standard deviation across an arm, > 0.
      rate: how much the arms are twisted; radians at distance 0.

    Raises:
      ValueError: for other arguments.

    Reference:
      Johnson et al., Composing graphical models with neural networks for structured representations and
      fast inference, 2016, https://arxiv.org/abs/1603.06277
    """

    n_arms: int = 5
    radial_std: float = 0.3
    tangential_std: float = 0.1
    rate: float = 0.25

    def __post_init__(self):
        is_whole = not isinstance(self.n_arms, bool) and self.n_arms >= 1 and self.n_arms % 1 == 0
        _check(is_whole, "a number of arms >= 1", self.n_arms)
        _check_positive("radial_std", self.radial_std)
        _check_positive("tangential_std", self.tangential_std)
        _check(np.isfinite(self.rate), "a finite rate", self.rate)

    def _sample(self, n, rng):
        f = rng.normal(1.0, self.radial_std, n) + 1j * rng.normal(0.0, self.tangential_std, n)
        x = f * self._turn(rng.integers(self.n_arms, size=n), np.abs(f))
        return np.stack([x.real, x.imag], axis=1)

    def _log_prob(self, x):
        x = x[:, :1] + 1j * x[:, 1:]
        f = x * self._turn(np.arange(self.n_arms), np.abs(x)).conj()
        arms = _log_normal(f.real, 1.0, self.radial_std) + _log_normal(f.imag, 0.0, self.tangential_std)
        return np.logaddexp.reduce(arms, axis=1) - np.log(self.n_arms)

    def _turn(self, k, radius):
        return np.exp(1j * (2.0 * np.pi * k / self.n_arms + self.rate * np.exp(np.minimum(radius, 10.0))))


def _log_normal(x, mean, std):
    return -0.5 * ((x - mean) / std) ** 2 - np.log(std) - 0.5 * np.log(2.0 * np.pi)


def _log_arc(kappa, start, stop):
    """log of the integral of exp(-kappa (1 - cos u)) over [start, stop], a part of [0, pi]; kappa >= 0."""
    with np.errstate(divide="ignore"):
        # The integrand falls, and has fallen by DROP nats `width` after the start. It is the difference of
        # two angles, written as below because they may agree to all digits.
        fall = 0.5 * DROP / kappa
        end = 2.0 * np.arcsin(np.sqrt(np.minimum(np.sin(0.5 * start) ** 2 + fall, 1.0)))
        width = 2.0 * np.arcsin(np.minimum(fall / np.sin(0.5 * (start + end)), 1.0))
        width = np.minimum(width, stop - start)
        # cos(start) - cos(start + 2 h) = 2 sin(start + h) sin(h), without cancellation.
        h = 0.5 * width[..., None] * NODES
        exponent = -2.0 * kappa[..., None] * np.sin(np.asarray(start)[..., None] + h) * np.sin(h)
        return np.log(width * (np.exp(exponent) @ WEIGHTS)) - 2.0 * kappa * np.sin(0.5 * start) ** 2


def _check(is_right, expected, got):
    if not is_right:
        raise ValueError(f"Expected {expected}; got {got}.")


def _check_positive(name, value):
    _check(np.all(np.isfinite(value)) and np.all(np.asarray(value) > 0), f"{name} > 0", value)
