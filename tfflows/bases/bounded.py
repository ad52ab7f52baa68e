"""Bases on an interval or a circle."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfflows.bases.base import Base, draw_uniform, split_seed
from tfflows.bases.normal import StandardNormal
from tfflows.numerics import solve_increasing, wrap
from tfflows.serialization import register


@register
class UniformBox(Base):
    """Uniform on a box, and -inf outside: for data on an interval or a torus.

    Args:
      event_shape: shape of an event; an int is one axis.
      low, high: the box's bounds, low < high, the same for each scalar.

    Raises:
      ValueError: unless low < high.
    """

    def __init__(self, event_shape: int | Sequence[int], low: float = 0.0, high: float = 1.0, **kwargs):
        super().__init__(event_shape, **kwargs)
        if not low < high:
            raise ValueError(f"Expected low < high; got low={low}, high={high}.")
        self.low, self.high = float(low), float(high)

    def log_probs(self, z, temperature=1.0):
        z = tf.convert_to_tensor(z)
        temperature = tf.cast(temperature, z.dtype)
        middle, half = 0.5 * (self.low + self.high), 0.5 * (self.high - self.low)
        # An edge may be missed by the rounding of a wrap.
        inside = tf.abs(z - middle) <= temperature * half * (1.0 + 4.0 * np.finfo(z.dtype.as_numpy_dtype).eps)
        density = -tf.math.log(2.0 * half * temperature) * tf.ones_like(z)
        return tf.where(inside, density, -np.inf * tf.ones_like(z))

    def sample(self, shape, seed, temperature=1.0):
        u = draw_uniform(self._full_shape(shape), seed, self.variable_dtype, self.low, self.high)
        middle = 0.5 * (self.low + self.high)
        return middle + tf.cast(temperature, u.dtype) * (u - middle)

    @property
    def n_uniform(self):
        return self._n_dim

    def from_uniform(self, uniform, temperature):
        middle, width = 0.5 * (self.low + self.high), self.high - self.low
        return middle + self._for_each_row(temperature) * (self._as_events(uniform) - 0.5) * width

    def cdf(self, z):
        return tf.clip_by_value((tf.cast(z, self.variable_dtype) - self.low) / (self.high - self.low), 0.0, 1.0)

    def quantile(self, p):
        return self.low + (self.high - self.low) * tf.cast(p, self.variable_dtype)

    def get_config(self):
        return {**super().get_config(), "low": self.low, "high": self.high}


def UniformCircle(event_shape: int | Sequence[int], **kwargs) -> UniformBox:
    """Uniform angles on [-pi, pi): the `UniformBox` of flows on a torus, such as `CouplingRQNSF(circular=True)`.

    Args:
      event_shape: shape of an event; an int is one axis.
      **kwargs: of a Keras layer, such as its name.
    """
    return UniformBox(event_shape, -math.pi, math.pi, **kwargs)


# Terms of the series and nodes of its integrals: at any concentration the distribution function is right to 1e-8 in
# float32, and to 1e-14 in float64.
N_TERMS = {"float32": 16, "float64": 40}
N_NODES = {"float32": 24, "float64": 48}
MAX_CONCENTRATION = 1e10  # a point, to float32


@register
class VonMises(Base):
    """Independent von Mises variables on [-pi, pi) with learned locations and concentrations, for angles.

    p(z) = exp(concentration * cos(z - location)) / (2 pi I_0(concentration)) for z in [-pi, pi], and zero outside.

    Near zero concentration it is uniform, at large ones a normal of variance 1 / concentration. A temperature t divides
    the concentration by t^2, which multiplies the spread of a narrow one by t, and leaves a uniform one uniform. The
    gradients of draws are those of periodic functions: a draw that crosses the seam jumps.

    The learned weights are `location`, any number of radians, and `log_concentration`.

    Args:
      event_shape: shape of an event; an int is one axis.
      concentration: where all concentrations start, > 0.

    Raises:
      ValueError: for a concentration that is not a finite number > 0.

    Reference:
      Mardia & Jupp (2000), Directional statistics, section 3.5.4; the distribution function is a Fourier series in the
      angle of Best & Fisher (1979), Efficient simulation of the von Mises distribution,
      https://doi.org/10.2307/2346732, whose envelope has the width of the peak.
    """

    def __init__(self, event_shape: int | Sequence[int], concentration: float = 1.0, **kwargs):
        super().__init__(event_shape, **kwargs)
        if not 0.0 < concentration < math.inf:
            raise ValueError(f"Expected a finite concentration > 0; got {concentration}.")
        self.concentration = float(concentration)
        self.location = self.add_weight(shape=self.event_shape, initializer="zeros", name="location")
        self.log_concentration = self.add_weight(shape=self.event_shape, initializer="zeros", name="log_concentration")
        # Keras' constant initializer would round to float32.
        self.log_concentration.assign(np.full(self.event_shape, math.log(concentration)))

    def log_probs(self, z, temperature=1.0):
        z = tf.convert_to_tensor(z)
        kappa = self._tempered(tf.cast(temperature, z.dtype))
        log_normaliser = math.log(2.0 * math.pi) + tf.math.log(_series(kappa)[1][0])
        density = -2.0 * kappa * tf.square(tf.sin(0.5 * (z - self.location))) - log_normaliser
        # An edge may be missed by the rounding of a wrap.
        inside = tf.abs(z) <= math.pi * (1.0 + 4.0 * np.finfo(z.dtype.as_numpy_dtype).eps)
        return tf.where(inside, density, -np.inf * tf.ones_like(z))

    def sample(self, shape, seed, temperature=1.0):
        u = draw_uniform(self._full_shape(shape), seed, self.variable_dtype)
        return self._draws(u, tf.cast(temperature, u.dtype))

    @property
    def n_uniform(self):
        return self._n_dim

    def from_uniform(self, uniform, temperature):
        return self._draws(self._as_events(uniform), self._for_each_row(temperature))

    def cdf(self, z):
        z = tf.clip_by_value(tf.cast(z, self.variable_dtype), -math.pi, math.pi)
        series = _series(self._tempered(tf.ones([], z.dtype)))
        return tf.clip_by_value(_winding_cdf(z - self.location, series) - self._before(series), 0.0, 1.0)

    def quantile(self, p):
        p = tf.cast(p, self.variable_dtype)
        series = _series(self._tempered(tf.ones([], p.dtype)))
        target = p + self._before(series)
        turns = tf.floor(target)
        z = self.location + _centred_quantile(target - turns, series) + 2.0 * math.pi * turns
        return tf.clip_by_value(z, -math.pi, math.pi)

    def get_config(self):
        return {**super().get_config(), "concentration": self.concentration}

    def _tempered(self, temperature):
        log_kappa = self.log_concentration - 2.0 * tf.math.log(temperature)
        return tf.exp(tf.minimum(log_kappa, math.log(MAX_CONCENTRATION)))

    def _draws(self, u, temperature):
        return wrap(self.location + _centred_quantile(u, _series(self._tempered(temperature))), math.pi)

    def _before(self, series):
        """The distribution function around the location, counted from there, where the interval begins."""
        return _winding_cdf(-math.pi - self.location, series)


def _series(kappa):
    """The Fourier series of a von Mises density around zero, in an angle v in which it has no narrow peak.

    tan(t / 2) = scale * tan(v / 2), and the density exp(kappa (cos t - 1)) dt/dv = c_0 + 2 sum_n c_n cos(n v).

    Returns:
      The scale, the list of the c_n, and the logarithm of this density as a function of v. The integral is 2 pi c_0.
    """
    squared_scale = 1.0 / (1.0 + kappa / 4.0)
    scale = tf.sqrt(squared_scale)

    def log_density(v, expand=lambda x: x):
        sine = tf.square(tf.sin(0.5 * v))
        # sin^2(t / 2) is squared_scale * sine / ratio.
        ratio = 1.0 - sine + expand(squared_scale) * sine
        return -2.0 * expand(kappa * squared_scale) * sine / ratio + tf.math.log(expand(scale) / ratio)

    n_nodes, n_terms = N_NODES[kappa.dtype.name], N_TERMS[kappa.dtype.name]
    nodes = np.linspace(0.0, math.pi, n_nodes + 1)
    weight = np.r_[0.5, np.ones(n_nodes - 1), 0.5] / n_nodes
    waves = weight[:, np.newaxis] * np.cos(nodes[:, np.newaxis] * np.arange(n_terms + 1))
    density = tf.exp(log_density(tf.constant(nodes, kappa.dtype), lambda x: x[..., tf.newaxis]))
    waves = tf.constant(waves, kappa.dtype)
    # Of the trapezoid rule, which for a smooth periodic function is exact to rounding.
    terms = tf.reshape(tf.matmul(tf.reshape(density, [-1, n_nodes + 1]), waves), tf.concat([tf.shape(kappa), [-1]], 0))
    return scale, [terms[..., n] for n in range(n_terms + 1)], log_density


def _cdf_in_v(v, terms):
    """The integral of the series from -pi to v, over that of all."""
    twice_cosine = 2.0 * tf.cos(v)
    last, before = 0.0, 0.0  # Clenshaw's recurrence
    for n in range(len(terms) - 1, 0, -1):
        last, before = terms[n] / n + twice_cosine * last - before, last
    return 0.5 + v / (2.0 * math.pi) + tf.sin(v) * last / (math.pi * terms[0])


def _winding_cdf(t, series):
    """The distribution function around zero, from -pi on, of an angle of any size: one more for each turn."""
    scale, terms, _ = series
    turns = tf.floor((t + math.pi) / (2.0 * math.pi))
    t = t - 2.0 * math.pi * turns
    return turns + _cdf_in_v(2.0 * tf.atan2(tf.sin(0.5 * t), scale * tf.cos(0.5 * t)), terms)


def _centred_quantile(p, series):
    """The angle in [-pi, pi] that has `p` in [0, 1] before it, around zero."""
    scale, terms, log_density = series
    # Of one shape, as the solver wants.
    first = tf.zeros_like(terms[0])
    p, half_turn = p + first, math.pi * tf.ones_like(p + first)
    v = solve_increasing(lambda v: _cdf_in_v(v, terms), p, -half_turn, half_turn)
    # The implicit function's gradient; far out, where the density is nothing, neither is it.
    slope = tf.exp(log_density(v)) / (2.0 * math.pi * terms[0])
    step = (p - _cdf_in_v(v, terms)) / tf.stop_gradient(tf.maximum(slope, 1e-6))
    v += step - tf.stop_gradient(step)
    return 2.0 * tf.atan2(scale * tf.sin(0.5 * v), tf.cos(0.5 * v))


@register
class NormalAndCircular(Base):
    """Standard-normal numbers, and circular ones that are uniform.

    Args:
      circular: `[D]` booleans, which are circular.
      bound: > 0; these are in [-bound, bound), at any temperature.

    Raises:
      ValueError: for a bound <= 0.
    """

    def __init__(self, circular: Sequence[bool] | np.ndarray, bound: float, **kwargs):
        super().__init__(len(circular), **kwargs)
        if not bound > 0.0:
            raise ValueError(f"Expected bound > 0; got {bound}.")
        self.circular, self.bound = np.asarray(circular, bool), float(bound)
        self._normal = StandardNormal(self.event_shape)
        self._uniform = UniformBox(self.event_shape, -self.bound, self.bound)

    def log_probs(self, z, temperature=1.0):
        # Any number stands for one on the circle, whatever rounding made of it.
        uniform = tf.fill(tf.shape(z), tf.cast(-math.log(2.0 * self.bound), z.dtype))
        return tf.where(self.circular, uniform, self._normal.log_probs(z, temperature))

    def sample(self, shape, seed, temperature=1.0):
        seeds = split_seed(seed)
        normal = self._normal.sample(shape, seeds[0], temperature)
        return tf.where(self.circular, self._uniform.sample(shape, seeds[1]), normal)

    @property
    def n_uniform(self):
        return self._normal.n_uniform

    def from_uniform(self, uniform, temperature):
        flat = self._uniform.from_uniform(uniform[:, : self._n_dim], tf.ones_like(temperature))
        return tf.where(self.circular, flat, self._normal.from_uniform(uniform, temperature))

    def cdf(self, z):
        return tf.where(self.circular, self._uniform.cdf(z), self._normal.cdf(z))

    def quantile(self, p):
        return tf.where(self.circular, self._uniform.quantile(p), self._normal.quantile(p))

    def get_config(self):
        config = super().get_config()
        del config["event_shape"]
        return {**config, "circular": self.circular.tolist(), "bound": self.bound}
