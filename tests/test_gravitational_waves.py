"""The gravitational-wave example: waveform, detectors, likelihood and prior, and that it runs."""

import importlib.util
import runpy
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.stats import kstest

EXAMPLES = Path(__file__).parents[1] / "examples"


def _load():
    spec = importlib.util.spec_from_file_location("gravitational_wave_model", EXAMPLES / "gravitational_wave_model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


gw = _load()
# In the order of gw.NAMES; the first is near the event.
TRUTH = np.array(
    [[30.6, 0.7, 0.0, 570.0, -0.8, 0.028, -0.7, 1.2, 0.6], [27.0, 0.5, 0.3, 600.0, 0.3, -0.01, 0.2, -2.0, 1.1]]
)


def _vector(*values):
    return tf.constant(values, tf.float64)


@pytest.fixture(scope="module")
def data():
    with np.load(EXAMPLES / "data" / "gw150914.npz") as file:
        return {name: file[name].astype(np.complex128 if name == "strain" else np.float64) for name in file.files}


@pytest.fixture(scope="module")
def likelihood(data):
    return gw.Likelihood(data["frequencies"], data["strain"] * 1e-23, data["psd"] * 1e-46, spacing=0.25)


# Waveform.


def test_the_newtonian_limit():
    f = np.array([1e-5, 2e-5, 4e-5])  # Hz
    source = _vector(30.0, 25.0), _vector(0.9, 0.4), _vector(0.2, -0.3)
    found = gw.amplitude(f, *source, _vector(400.0, 800.0)).numpy()
    np.testing.assert_allclose(found[:, 1:] / found[:, :-1], 2.0 ** (-7.0 / 6.0), rtol=1e-4)
    # Of the chirp mass alone, in SI units.
    chirp_mass = 6.6743e-11 * 1.98841e30 * np.array([30.0, 25.0])
    distance = 3.0856775814913673e22 * np.array([400.0, 800.0])
    expected = np.sqrt(5.0 / 24.0) * np.pi ** (-2.0 / 3.0) * chirp_mass ** (5.0 / 6.0) / gw.LIGHT**1.5 / distance
    np.testing.assert_allclose(found[:, 0], expected * 1e-5 ** (-7.0 / 6.0), rtol=2e-4)
    seconds = 6.6743e-11 * 1.98841e30 / gw.LIGHT**3 * np.array([30.0, 25.0])
    expected = 3.0 / 128.0 * (np.pi * seconds[:, np.newaxis] * f) ** (-5.0 / 3.0)
    np.testing.assert_allclose(gw.phase(f, *source).numpy(), expected, rtol=5e-3)


@pytest.mark.parametrize("spin", [-0.6, 0.0, 0.6])
@pytest.mark.parametrize("mass_ratio", [1.0, 0.4])
def test_amplitude_is_continuous_until_the_cut(mass_ratio, spin):
    source = _vector(30.0), _vector(mass_ratio), _vector(spin), _vector(400.0)
    total, eta = gw.total_mass(*source[:2])
    merger, ring, _, cut = (float(f[0]) for f in gw.characteristic_frequencies(total, eta, source[2]))
    assert 20.0 < merger < ring < cut < 600.0
    for edge in (merger, ring):
        below, above = gw.amplitude(np.array([edge * (1.0 - 1e-9), edge * (1.0 + 1e-9)]), *source).numpy()[0]
        assert abs(below / above - 1.0) < 1e-6
    below, above = gw.amplitude(np.array([cut - 0.01, cut + 0.01]), *source).numpy()[0]
    assert below > 0.0
    assert above == 0.0


@pytest.mark.parametrize("mass_ratio", [1.0, 0.7, 0.5])
def test_the_inspiral_chirps_as_post_newtonian_theory_says(mass_ratio):
    # The second derivative of the phase is 2 pi over the chirp rate; 3.5PN phase of Buonanno et al. (2009), eq. 3.18.
    f = np.linspace(7.0, 40.0, 400)
    total, eta = (float(v) for v in gw.total_mass(30.0, mass_ratio))
    v = (np.pi * total * f) ** (1.0 / 3.0)
    series = 1.0 + (3715 / 756 + 55 / 9 * eta) * v**2 - 16 * np.pi * v**3
    series += (15293365 / 508032 + 27145 / 504 * eta + 3085 / 72 * eta**2) * v**4
    series += np.pi * (38645 / 756 - 65 / 9 * eta) * (1 + 3 * np.log(v)) * v**5
    sixth = 11583231236531 / 4694215680 - 640 / 3 * np.pi**2 - 6848 / 21 * (np.euler_gamma + np.log(4 * v))
    sixth += (-15737765635 / 3048192 + 2255 / 12 * np.pi**2) * eta + 76055 / 1728 * eta**2 - 127825 / 1296 * eta**3
    series += sixth * v**6 + np.pi * (77096675 / 254016 + 378515 / 1512 * eta - 74045 / 756 * eta**2) * v**7
    expected = np.gradient(np.gradient(3.0 / (128.0 * eta) * series / v**5, f), f)
    phase = gw.phase(f, _vector(30.0), _vector(mass_ratio), _vector(0.0)).numpy()[0]
    found = np.gradient(np.gradient(phase, f), f)
    np.testing.assert_allclose(found[5:-5] / expected[5:-5], 1.0, atol=0.04)


def test_time_is_that_of_the_ringdown_frequency():
    source = _vector(30.0, 22.0), _vector(0.9, 0.4), _vector(0.1, -0.2)
    ring = gw.characteristic_frequencies(*gw.total_mass(*source[:2]), source[2])[1].numpy()
    for i in range(2):
        ends = gw.phase(ring[i] + np.array([-1e-3, 1e-3]), *source).numpy()[i]
        assert abs(ends[1] - ends[0]) / 2e-3 / (2.0 * np.pi) < 1e-6  # s
        # Lower frequencies come before.
        early = gw.phase(np.array([30.0, 30.1, 60.0, 60.1]), *source).numpy()[i]
        times = np.diff(early)[[0, 2]] / 0.1 / (2.0 * np.pi)
        assert times[0] < times[1] < 0.0


# Detectors.


def test_antenna_patterns_are_those_of_right_angled_arms(rng):
    _, west, north = gw.sky_vectors(_vector(*rng.uniform(-1, 1, 50)), _vector(*rng.uniform(-3, 3, 50)))
    source = np.cross(north, west)
    powers = []
    for polarisation in (0.0, 0.4, 2.0):
        plus, cross = gw.antenna_patterns(west, north, tf.fill([50], tf.constant(polarisation, tf.float64)))
        powers.append(plus.numpy() ** 2 + cross.numpy() ** 2)
    np.testing.assert_allclose(powers[1], powers[0], rtol=1e-10)
    np.testing.assert_allclose(powers[2], powers[0], rtol=1e-10)
    # In the frame of each detector, theta from the zenith and phi from an arm.
    for i, (_, x, y) in enumerate(gw.DETECTORS.values()):
        x, y = np.asarray(x), np.asarray(y)
        cos = source @ np.cross(x, y)
        double = 2.0 * np.arctan2(source @ y, source @ x)
        expected = (0.5 * (1.0 + cos**2) * np.cos(double)) ** 2 + (cos * np.sin(double)) ** 2
        np.testing.assert_allclose(powers[0][:, i], expected, atol=2e-4)


def test_sky_vectors_are_right_angled_and_delays_those_of_light():
    cos, azimuth = np.linspace(-1.0, 1.0, 21), np.linspace(-3.0, 3.0, 21)
    source, west, north = (v.numpy() for v in gw.sky_vectors(_vector(*cos), _vector(*azimuth)))
    frame = np.stack([source, west, north], axis=1)
    np.testing.assert_allclose(frame @ frame.transpose(0, 2, 1), np.tile(np.eye(3), (21, 1, 1)), atol=1e-12)
    delays = gw.delays(tf.constant(source)).numpy()
    assert np.all(delays[:, 0] == 0.0)
    np.testing.assert_allclose(delays[:, 1], cos * delays[-1, 1], atol=1e-15)
    assert 0.0100 < delays[-1, 1] < 0.01003  # 3002 km


def test_the_ring_of_the_measured_delay_goes_through_the_published_place(data):
    azimuth = np.linspace(-np.pi, np.pi, 721)
    ascension, declination = gw.right_ascension_declination(np.full(721, -0.7), azimuth, 1126259462.4)
    place = np.radians(np.median(data["published"][:, 5:], axis=0) * [15.0, 1.0])
    cos = np.sin(declination) * np.sin(place[1])
    cos += np.cos(declination) * np.cos(place[1]) * np.cos(ascension - place[0])
    assert np.degrees(np.arccos(cos.max())) < 4.0


# Likelihood.


def test_a_signal_without_noise_has_half_its_squared_snr(likelihood, data):
    x, angle = tf.constant(TRUTH), _vector(0.7, 2.1)
    strain = likelihood.strain(x, angle).numpy()
    for i in range(2):
        here, there = x[i : i + 1], angle[i : i + 1]
        injected = gw.Likelihood(data["frequencies"], strain[i], data["psd"] * 1e-46, spacing=0.25)
        squared = np.sum(4.0 * 0.25 * np.abs(strain[i]) ** 2 / (data["psd"] * 1e-46))
        assert squared > 25.0
        np.testing.assert_allclose(injected.log_ratio(here, there).numpy(), 0.5 * squared, rtol=1e-10)
        with tf.GradientTape() as tape:
            tape.watch([here, there])
            value = injected.log_ratio(here, there)
        # There is its maximum.
        gradients = tape.gradient(value, [here, there])
        scale = np.sqrt(squared) * np.array([10.0, 10.0, 10.0, 1.0, 10.0, 1e4, 100.0, 10.0, 10.0])
        assert np.all(np.abs(gradients[0].numpy()[0]) < 1e-8 * scale)
        assert abs(gradients[1].numpy()[0]) < 1e-8 * np.sqrt(squared)


def test_the_phase_is_averaged(likelihood):
    angles = np.linspace(0.0, 2.0 * np.pi, 400, endpoint=False)
    for row in TRUTH:
        ratios = likelihood.log_ratio(tf.constant(np.tile(row, (400, 1))), tf.constant(angles)).numpy()
        expected = ratios.max() + np.log(np.mean(np.exp(ratios - ratios.max())))
        np.testing.assert_allclose(likelihood(tf.constant(row[np.newaxis])).numpy()[0], expected, atol=1e-8)


def test_gradients_are_those_of_finite_differences(likelihood):
    x = tf.constant(TRUTH)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = likelihood(x)
    gradient = tape.gradient(value, x).numpy()
    assert np.all(np.isfinite(gradient))
    for i, step in enumerate([1e-6, 1e-7, 1e-7, 1e-4, 1e-6, 1e-9, 1e-8, 1e-7, 1e-6]):
        move = step * np.eye(9)[i]
        difference = (likelihood(tf.constant(TRUTH + move)) - likelihood(tf.constant(TRUTH - move))) / (2.0 * step)
        np.testing.assert_allclose(gradient[:, i], difference.numpy(), rtol=1e-4, atol=1e-3)


def test_the_event_is_in_the_strain(likelihood):
    overlap, squared = likelihood.products(tf.constant(TRUTH[:1]))
    assert 22.0 < abs(overlap.numpy()[0]) / np.sqrt(squared.numpy()[0]) < 27.0
    assert likelihood(tf.constant(TRUTH[:1])).numpy()[0] > 250.0
    elsewhere = TRUTH[:1].copy()
    elsewhere[:, 5] += 0.4  # s
    assert likelihood(tf.constant(elsewhere)).numpy()[0] < 0.0


def test_shapes_of_the_likelihood_are_checked(data):
    with pytest.raises(ValueError, match=r"Expected strain and psd \[2, 1969\]; got \(1, 1969\)"):
        gw.Likelihood(data["frequencies"], data["strain"][:1], data["psd"], spacing=0.25)


# Prior.


def test_prior_is_uniform_in_masses_and_volume(rng):
    prior = gw.prior()
    x = prior.sample(4000, seed=[0, 1]).numpy()
    low, high = np.transpose(gw.RANGES)
    assert np.all((x >= low) & (x <= high))
    chosen = tf.constant(x[:200])
    log_prob = prior.log_prob(chosen).numpy()
    with tf.GradientTape() as tape:
        tape.watch(chosen)
        eta_power = (chosen[:, 1] / (1.0 + chosen[:, 1]) ** 2) ** -0.6
        heavier = chosen[:, 0] * eta_power / (1.0 + chosen[:, 1])
        both = tf.stack([heavier, heavier * chosen[:, 1]], axis=1)
    jacobian = np.linalg.det(tape.batch_jacobian(both, chosen).numpy()[:, :, :2])
    flat = log_prob - np.log(np.abs(jacobian)) - 2.0 * np.log(x[:200, 3]) + 9.0 * x[:200, 2] ** 2
    np.testing.assert_allclose(flat, flat[0], atol=1e-9)
    # Draws are of that density.
    cubes = (x[:, 3] ** 3 - low[3] ** 3) / (high[3] ** 3 - low[3] ** 3)
    assert kstest(cubes, "uniform").pvalue > 1e-3
    squares = (x[:, 0] ** 2 - low[0] ** 2) / (high[0] ** 2 - low[0] ** 2)
    assert kstest(squares, "uniform").pvalue > 1e-3
    grid = np.linspace(low[1], high[1], 2001)
    density = np.exp(prior.distributions[1].log_prob(grid).numpy())
    cumulative = np.concatenate([[0.0], np.cumsum(0.5 * (density[1:] + density[:-1]) * np.diff(grid))])
    assert abs(cumulative[-1] - 1.0) < 1e-6
    assert kstest(x[:, 1], lambda q: np.interp(q, grid, cumulative)).pvalue > 1e-3


# The example.


def test_example(tmp_path, monkeypatch, capsys, float64, without_xla, quick_samplers):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setattr(sys, "argv", ["gravitational_waves.py", "--quick", "--output", str(tmp_path)])
    runpy.run_path(str(EXAMPLES / "gravitational_waves.py"), run_name="__main__")
    assert keras.config.dtype_policy().name == "float64"
    printed = capsys.readouterr().out
    row = next(line for line in printed.splitlines() if line.strip().startswith("chirp mass"))
    assert row.count("[") == 3
    for picture in ("corner", "strain"):
        assert (tmp_path / f"gravitational_waves_{picture}.png").stat().st_size > 20_000
