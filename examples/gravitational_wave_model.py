"""The likelihood of a binary black hole in the strain of two detectors, in TensorFlow, with gradients.

The waveform is IMRPhenomB (Ajith et al. 2011, https://arxiv.org/abs/0909.2867): inspiral, merger and ringdown of black
holes with one effective spin along the orbital angular momentum, and only the dominant (2, 2) mode. It is light; what
is published today has precession, higher modes and a better fit to numerical relativity.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

tfd = tfp.distributions

SUN = 4.925490947641267e-6  # G M / c^3 of the sun, in s
MEGAPARSEC = 1.0292712503e14  # over c, in s
LIGHT = 299792458.0  # m/s

# Vertex in m, and unit vectors along the arms, in Earth-fixed coordinates (LIGO-T980044).
DETECTORS = {
    "H1": (
        (-2.16141492636e6, -3.83469517889e6, 4.60035022664e6),
        (-0.22389266154, 0.79983062746, 0.55690487831),
        (-0.91397818574, 0.02609403989, -0.40492342125),
    ),
    "L1": (
        (-7.42760447238e4, -5.49628371971e6, 3.22425701744e6),
        (-0.95457412153, -0.14158077340, -0.26218911324),
        (0.29774156894, -0.48791033647, -0.82054461286),
    ),
}
LOCATIONS = np.array([DETECTORS[name][0] for name in ("H1", "L1")]) / LIGHT  # s
TENSORS = np.array([0.5 * (np.outer(x, x) - np.outer(y, y)) for _, x, y in DETECTORS.values()])
BASELINE = LOCATIONS[0] - LOCATIONS[1]  # from L1 to H1, in s

# Of table I: coefficients of eta, eta chi, eta chi^2, eta^2, eta^2 chi and eta^3, to be added to a limit for eta = 0.
FREQUENCIES = {  # times pi M
    "merger": (6.4365e-1, 8.2696e-1, -2.7063e-1, -5.8218e-2, -3.9346, -7.0916),
    "ring": (1.4690e-1, -1.2281e-1, -2.6091e-2, -2.4900e-2, 1.7013e-1, 2.3252),
    "width": (-4.0979e-1, -3.5226e-2, 1.0082e-1, 1.8286, -2.0169e-2, -2.8698),
    "cut": (-1.3313e-1, -8.1719e-2, 1.4512e-1, -2.7140e-1, 1.2788e-1, 4.9220),
}
# psi_k; psi_8 is left out: with its power of the frequency it is no more than a shift of the time.
PHASES = {
    2: (-9.2091e2, 4.9213e2, 1.3503e2, 6.7419e3, -1.0534e3, -1.3397e4),
    3: (1.7022e4, -9.5659e3, -2.1821e3, -1.2137e5, 2.0752e4, 2.3859e5),
    4: (-1.2544e5, 7.5066e4, 1.3382e4, 8.7354e5, -1.6573e5, -1.6936e6),
    6: (-8.8977e5, 6.3102e5, 5.0676e4, 5.9808e6, -1.4148e6, -1.1280e7),
    7: (8.6960e5, -6.7098e5, -3.0082e4, -5.8379e6, 1.5145e6, 1.0891e7),
}

NAMES = (
    "chirp_mass",  # of the detector frame, in solar masses
    "mass_ratio",  # lighter over heavier
    "effective_spin",  # along the orbital angular momentum, mean of both weighted by mass
    "distance",  # luminosity distance, in Mpc
    "cos_inclination",  # of the orbital angular momentum to the line of sight
    "time",  # of arrival at H1, in s after the reference
    "cos_baseline",  # of the angle between the source and the line from L1 to H1
    "azimuth",  # around that line, in rad
    "polarisation",  # in rad
)
RANGES = (
    (20.0, 45.0),
    (0.25, 1.0),  # and the next, where the waveform was fitted
    (-0.85, 0.85),
    (10.0, 2000.0),
    (-1.0, 1.0),
    (-0.05, 0.05),
    (-1.0, 1.0),
    (-np.pi, np.pi),
    (0.0, 0.5 * np.pi),  # without the phase, a quarter turn changes nothing
)


# Waveform.


def total_mass(chirp_mass, mass_ratio):
    """Total mass in s and symmetric mass ratio, of a chirp mass in solar masses."""
    eta = mass_ratio / (1.0 + mass_ratio) ** 2
    return SUN * chirp_mass * eta**-0.6, eta


def fitted(coefficients, eta, spin):
    a, b, c, d, e, f = coefficients
    return eta * (a + b * spin + c * spin**2 + eta * (d + e * spin + eta * f))


def characteristic_frequencies(total, eta, spin):
    """Those of merger, ringdown, ringdown's width and cut, in Hz."""
    rest = 1.0 - spin
    ring = 0.5 - 0.315 * rest**0.3
    limits = {
        "merger": 1.0 - 4.4547 * rest**0.217 + 3.521 * rest**0.26,
        "ring": ring,
        "width": 0.5 * ring * rest**0.45,
        "cut": 0.32361 + 0.048935 * spin + 0.013463 * spin**2,
    }
    return [(limits[k] + fitted(values, eta, spin)) / (np.pi * total) for k, values in FREQUENCIES.items()]


def amplitude(frequencies, chirp_mass, mass_ratio, spin, distance):
    """Of the optimally oriented source, in 1/Hz: `[n, n_frequencies]` of frequencies in Hz and parameters `[n]`."""
    total, eta = total_mass(chirp_mass, mass_ratio)
    merger, ring, width, cut = characteristic_frequencies(total, eta, spin)
    scale = tf.sqrt(5.0 * eta / 24.0) * total ** (5.0 / 6.0) / (np.pi ** (2.0 / 3.0) * MEGAPARSEC * distance)
    v = (np.pi * total) ** (1.0 / 3.0)  # times the cubic root of the frequency
    inspiral = (tf.ones_like(v), (451.0 / 168.0 * eta - 323.0 / 224.0) * v**2, (3.375 - 11.0 / 6.0 * eta) * spin * v**3)
    merging = (tf.ones_like(v), (1.4547 * spin - 1.8897) * v, (1.6557 - 1.8153 * spin) * v**2)

    def at(f, terms, powers):
        return sum(term * f**power for term, power in zip(terms, powers, strict=True))

    early, late = (-7.0 / 6.0, -0.5, -1.0 / 6.0), (-2.0 / 3.0, -1.0 / 3.0, 0.0)
    scale_late = scale * at(merger, inspiral, early) / at(merger, merging, late)
    scale_last = scale_late * at(ring, merging, late)
    # Powers of what is constant are constants; else they were most of the work.
    parts = [
        (scale[:, tf.newaxis] * tf.stack(inspiral, axis=1)) @ np.stack([frequencies**p for p in early]),
        (scale_late[:, tf.newaxis] * tf.stack(merging, axis=1)) @ np.stack([frequencies**p for p in late]),
    ]
    merger, ring, width, cut, scale_last = (v[:, tf.newaxis] for v in (merger, ring, width, cut, scale_last))
    last = scale_last / (1.0 + (2.0 * (frequencies - ring) / width) ** 2)
    whole = tf.where(frequencies < merger, parts[0], tf.where(frequencies < ring, parts[1], last))
    return tf.where(frequencies < cut, whole, 0.0)


def phase(frequencies, chirp_mass, mass_ratio, spin):
    """Psi of h(f) = A exp(-i Psi) in rad, `[n, n_frequencies]`, its time such that the ringdown frequency is at 0."""
    total, eta = total_mass(chirp_mass, mass_ratio)
    limits = {
        2: 3715.0 / 756.0,
        3: 113.0 / 3.0 * spin - 16.0 * np.pi,
        4: 15293365.0 / 508032.0 - 405.0 / 8.0 * spin**2,
        6: 0.0,
        7: 0.0,
    }
    orders = np.array([-5.0 / 3.0, *((k - 5.0) / 3.0 for k in PHASES)])
    series = [tf.ones_like(eta), *(limits[k] + fitted(values, eta, spin) for k, values in PHASES.items())]
    scale = 3.0 / (128.0 * eta[:, tf.newaxis]) * (np.pi * total[:, tf.newaxis]) ** orders
    coefficients = tf.stack(series, axis=1) * scale
    # The time a frequency is at is dPsi/df / 2 pi. At 0 of the fit nothing happens, and of no two masses the same.
    ring = characteristic_frequencies(total, eta, spin)[1][:, tf.newaxis]
    slope = tf.reduce_sum(coefficients * orders * ring ** (orders - 1.0), axis=1, keepdims=True)
    powers = np.concatenate([frequencies ** orders[:, np.newaxis], frequencies[np.newaxis]])
    return tf.concat([coefficients, -slope], axis=1) @ powers


# Detectors.


def sky_vectors(cos_baseline, azimuth):
    """Unit vectors `[n, 3]` to the source, and there to the west and to the north, in Earth-fixed coordinates."""
    axis = BASELINE / np.linalg.norm(BASELINE)
    first = np.cross(axis, [0.0, 0.0, 1.0])
    first /= np.linalg.norm(first)
    across = tf.sqrt(1.0 - cos_baseline**2)
    parts = (across * tf.cos(azimuth), across * tf.sin(azimuth), cos_baseline)
    source = tf.stack(parts, axis=1) @ np.stack([first, np.cross(axis, first), axis])
    x, y, z = tf.unstack(source, axis=1)
    horizontal = tf.sqrt(x**2 + y**2)
    west = tf.stack([y, -x, tf.zeros_like(x)], axis=1) / horizontal[:, tf.newaxis]
    north = tf.stack([-x * z, -y * z, horizontal**2], axis=1) / horizontal[:, tf.newaxis]
    return source, west, north


def antenna_patterns(west, north, polarisation):
    """F+ and Fx `[n, 2]` of H1 and L1 (Anderson et al. 2001, https://arxiv.org/abs/gr-qc/0008066)."""
    cos, sin = tf.cos(polarisation)[:, tf.newaxis], tf.sin(polarisation)[:, tf.newaxis]
    x, y = cos * west + sin * north, cos * north - sin * west

    def response(a, b):
        return tf.einsum("ni,dij,nj->nd", a, TENSORS, b)

    return response(x, x) - response(y, y), response(x, y) + response(y, x)


def delays(source):
    """Of arrival after that at H1 `[n, 2]`, in s."""
    return source @ (LOCATIONS[:1] - LOCATIONS).T


def right_ascension_declination(cos_baseline, azimuth, gps):
    """In rad, `[n]` each."""
    x, y, z = np.transpose(sky_vectors(*(tf.constant(v, tf.float64) for v in (cos_baseline, azimuth)))[0])
    # Greenwich mean sidereal time; in 2015 GPS time was 17 s ahead of UTC, and J2000 was at UTC - 630763213 s.
    days = (gps - 17.0 - (630763213.0 - 13.0)) / 86400.0
    sidereal = np.radians(280.46061837 + 360.98564736629 * days)
    return (np.arctan2(y, x) + sidereal) % (2.0 * np.pi), np.arcsin(z)


# Likelihood.


class Likelihood:
    """Gaussian, relative to that of noise alone, the phase at coalescence marginalised (Veitch et al. 2015, eq. 20).

    Args:
      frequencies: in Hz `[n_frequencies]`.
      strain: its Fourier transform `[2, n_frequencies]` in 1/Hz at H1 and L1, with times counted from the reference.
      psd: one-sided power spectral density of the noise `[2, n_frequencies]`, in 1/Hz.
      spacing: of the frequencies, in Hz.

    References: https://arxiv.org/abs/1409.7215
    """

    def __init__(self, frequencies, strain, psd, spacing):
        frequencies, strain, psd = np.asarray(frequencies), np.asarray(strain), np.asarray(psd)
        if strain.shape != (2, len(frequencies)) or psd.shape != strain.shape:
            raise ValueError(f"Expected strain and psd [2, {len(frequencies)}]; got {strain.shape} and {psd.shape}.")
        self.frequencies = frequencies.astype(np.float64)
        weight = 4.0 * spacing / psd.astype(np.float64)
        self._data = np.conj(strain.astype(np.complex128)) * weight
        self._weight = weight.T

    def response(self, x):
        """Of parameters `[n, 9]` in the order of `NAMES`: complex gains and times of arrival, `[n, 2]` each."""
        cos, time, cos_baseline, azimuth, polarisation = tf.unstack(x[:, 4:], axis=1)
        source, west, north = sky_vectors(cos_baseline, azimuth)
        plus, cross = antenna_patterns(west, north, polarisation)
        gain = tf.complex(0.5 * (1.0 + cos[:, tf.newaxis] ** 2) * plus, -cos[:, tf.newaxis] * cross)
        return gain, time[:, tf.newaxis] + delays(source)

    def strain(self, x, coalescence_phase, frequencies=None):
        """Fourier transform of the signal in both detectors `[n, 2, n_frequencies]`, in 1/Hz."""
        frequencies = self.frequencies if frequencies is None else frequencies
        gain, times = self.response(x)
        angle = phase(frequencies, x[:, 0], x[:, 1], x[:, 2])[:, tf.newaxis]
        angle += coalescence_phase[:, tf.newaxis, tf.newaxis]
        angle += 2.0 * np.pi * frequencies * times[:, :, tf.newaxis]
        size = amplitude(frequencies, *tf.unstack(x[:, :4], axis=1))[:, tf.newaxis]
        return gain[:, :, tf.newaxis] * tf.complex(size * tf.cos(angle), -size * tf.sin(angle))

    def products(self, x):
        """<d|h> for phase 0 (complex) and <h|h>, `[n]` each; of the inner product 4 Re sum a* b df / S."""
        gain, times = self.response(x)
        size = amplitude(self.frequencies, *tf.unstack(x[:, :4], axis=1))
        common = phase(self.frequencies, x[:, 0], x[:, 1], x[:, 2])
        overlap = []
        for i in range(2):
            angle = common + 2.0 * np.pi * self.frequencies * times[:, i : i + 1]
            cos, sin = size * tf.cos(angle), size * tf.sin(angle)
            real, imaginary = self._data[i].real[:, np.newaxis], self._data[i].imag[:, np.newaxis]
            overlap.append(tf.complex(cos @ real + sin @ imaginary, cos @ imaginary - sin @ real)[:, 0])
        squared = tf.reduce_sum(tf.abs(gain) ** 2 * (size**2 @ self._weight), axis=1)
        return tf.reduce_sum(gain * tf.stack(overlap, axis=1), axis=1), squared

    def log_ratio(self, x, coalescence_phase):
        """log-likelihood of a signal with this phase `[n]` over that of noise alone."""
        overlap, squared = self.products(x)
        turned = tf.complex(tf.cos(coalescence_phase), -tf.sin(coalescence_phase))
        return tf.math.real(overlap * turned) - 0.5 * squared

    def __call__(self, x):
        """log-likelihood ratio `[n]`, averaged over the phase."""
        overlap, squared = self.products(x)
        # Of an overlap of zero the gradient would not be finite.
        size = tf.sqrt(tf.math.real(overlap) ** 2 + tf.math.imag(overlap) ** 2 + 1e-30)
        return size + tf.math.log(tf.math.bessel_i0e(size)) - 0.5 * squared


# Prior.


class Tabulated(tfd.Distribution):
    """Density on an interval, known up to a constant; draws are from a table of its cumulative distribution."""

    def __init__(self, log_density, low, high, n: int = 4097, name: str = "Tabulated"):
        parameters = {"log_density": log_density, "low": low, "high": high}
        grid = np.linspace(low, high, n)
        density = np.exp(log_density(tf.constant(grid, tf.float64)).numpy())
        cumulative = np.concatenate([[0.0], np.cumsum(0.5 * (density[1:] + density[:-1]) * np.diff(grid))])
        self._log_density, self._low, self._high = log_density, low, high
        self._log_total = np.log(cumulative[-1])
        self._quantiles = np.interp(np.linspace(0.0, cumulative[-1], n), cumulative, grid)
        super().__init__(tf.float64, tfd.FULLY_REPARAMETERIZED, True, False, parameters=parameters, name=name)

    def _event_shape(self):
        return tf.TensorShape([])

    def _event_shape_tensor(self):
        return tf.constant([], tf.int32)

    def _batch_shape(self):
        return tf.TensorShape([])

    def _log_prob(self, value):
        inside = (value >= self._low) & (value <= self._high)
        return tf.where(inside, self._log_density(tf.where(inside, value, self._high)) - self._log_total, -np.inf)

    def _sample_n(self, n, seed=None):
        u = tf.random.stateless_uniform([n], tfp.random.sanitize_seed(seed), dtype=tf.float64)
        return tfp.math.interp_regular_1d_grid(u, 0.0, 1.0, tf.constant(self._quantiles))


def prior():
    """Of the parameters in the order of `NAMES`, in float64.

    Uniform in the masses of both black holes, in the volume of (Euclidean) space, in directions of the orbit and on the
    sky, and in time and polarisation. Time at H1 differs from that at the centre of the Earth by a function of the
    direction alone, so that it is uniform, too. The spin is normal, with the variance 1/18 of the effective spin of
    two equal masses whose spins have uniform magnitudes and any direction.
    """
    # dm1 dm2 = chirp_mass (1 + q)^(2/5) q^(-6/5) dchirp_mass dq
    masses = [
        Tabulated(tf.math.log, *RANGES[0]),
        Tabulated(lambda q: 0.4 * tf.math.log1p(q) - 1.2 * tf.math.log(q), *RANGES[1]),
    ]
    spin = tfd.TruncatedNormal(*(tf.constant(v, tf.float64) for v in (0.0, 18.0**-0.5, *RANGES[2])))
    distance = Tabulated(lambda d: 2.0 * tf.math.log(d), *RANGES[3])
    uniform = [tfd.Uniform(*(tf.constant(v, tf.float64) for v in ends)) for ends in RANGES[4:]]
    return tfd.Blockwise([*masses, spin, distance, *uniform])
