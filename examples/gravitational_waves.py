"""Parameters of the merging black holes GW150914 from the strain of both LIGO detectors, by two samplers.

Preconditioned sequential Monte Carlo goes from the prior to the posterior and finds the evidence; Markov chains with
proposals of its flow follow. Both are drawn over the posterior of the 2-OGC catalogue. The waveform is a light one,
IMRPhenomB: one effective spin along the orbital angular momentum, no precession. The spectrum of the noise counts as
known, from 32 s of it. So posteriors need not be the published ones.

    python examples/gravitational_waves.py [--output DIR] [--quick]

Data and published draws ship in `examples/data`; `--reduce DIR` made them, from two files there, of which
`data/gw150914.LICENSE` tells.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import keras
import matplotlib
import numpy as np
import scipy.signal
import tensorflow as tf
from gravitational_wave_model import NAMES, RANGES, Likelihood, prior, right_ascension_declination
from scipy.ndimage import gaussian_filter

from tfflows import FlowModel, RealNVP
from tfflows.inference import Target, flow_mh, preconditioned_smc

matplotlib.use("Agg")
from matplotlib import pyplot as plt

DATA = Path(__file__).resolve().parent / "data" / "gw150914.npz"
REFERENCE = 1126259462.4  # GPS time of the event, from which times are counted
SECONDS, START = 4, 14  # of the analysed segment, and when it begins in the file
TAPER = 0.2  # share of a segment that is tapered
BAND = (20.0, 512.0)  # Hz
UNIT = 1e-23  # of strain in the file, whose squares would be 0 in float32
N_PUBLISHED = 2000
SHOWN = {
    "chirp mass": r"$\mathcal{M}$ [$M_\odot$]",
    "mass ratio": r"$q$",
    "effective spin": r"$\chi_\mathrm{eff}$",
    "distance": r"$d_L$ [Mpc]",
    "inclination": r"$\iota$ [deg]",
    "right ascension": r"$\alpha$ [h]",
    "declination": r"$\delta$ [deg]",
}
COLOURS = {"2-OGC, published": "0.55", "SMC": "tab:blue", "flow MH": "tab:orange"}


# Data.


def spectrum(x, rate):
    """Fourier transform `[n_frequencies]` in 1/Hz and one-sided noise PSD in 1/Hz, of 32 s of strain.

    The PSD is the median of segments as long as the analysed one that do not touch the event. They have its window, so
    that what a window lets leak from the lines of the spectrum is alike in both.
    """
    x = scipy.signal.sosfiltfilt(scipy.signal.butter(8, 10.0, "highpass", fs=rate, output="sos"), x - x.mean())
    n = SECONDS * rate
    window = scipy.signal.windows.tukey(n, TAPER)
    event = REFERENCE - np.floor(REFERENCE) + 16.0
    starts = np.arange(0.0, len(x) / rate - SECONDS + 0.1, SECONDS / 2.0)
    starts = starts[(starts + SECONDS < event - 0.3) | (starts > event + 0.3)]
    starts = starts[len(starts) % 2 == 0 :]  # the bias of the median is known for odd numbers
    periodograms = [2.0 * np.abs(np.fft.rfft(window * x[i : i + n])) ** 2 for i in (starts * rate).astype(int)]
    bias = sum((-1.0) ** k / (k + 1.0) for k in range(len(starts)))
    psd = np.median(periodograms, axis=0) / (bias * rate * np.sum(window**2))
    return np.fft.rfft(window * x[START * rate : START * rate + n]) / rate, psd


def reduce(folder: Path) -> None:
    """Writes the file that ships: strain of the band, PSD, and some of the published draws."""
    with np.load(folder / "gw150914_strain.npz") as file:
        rate, start = int(file["sample_rate"]), int(file["gps_start"])
        parts = [spectrum(file[name].astype(np.float64) * float(file["scale"]), rate) for name in ("H1", "L1")]
    strain, psd = (np.stack(part) for part in zip(*parts, strict=True))
    frequencies = np.fft.rfftfreq(SECONDS * rate, 1.0 / rate)
    strain = strain * np.exp(2j * np.pi * frequencies * (REFERENCE - start - START))
    band = (frequencies >= BAND[0]) & (frequencies <= BAND[1])
    with np.load(folder / "gw150914_2ogc_posterior.npz") as file:
        draws = {name: file[name].astype(np.float64) for name in file.files}
    first, second = draws["mass1"], draws["mass2"]
    chirp_mass = (first * second) ** 0.6 * (first + second) ** -0.2 * (1.0 + draws["redshift"])
    angles = np.degrees(draws["inclination"]), np.degrees(draws["ra"]) / 15.0, np.degrees(draws["dec"])
    published = np.stack([chirp_mass, second / first, draws["chi_eff"], draws["distance"], *angles], axis=1)
    chosen = np.random.default_rng(0).choice(len(published), N_PUBLISHED, replace=False)
    DATA.parent.mkdir(exist_ok=True)
    np.savez_compressed(
        DATA,
        frequencies=frequencies[band].astype(np.float32),
        strain=(strain[:, band] / UNIT).astype(np.complex64),
        psd=(psd[:, band] / UNIT**2).astype(np.float32),
        published=published[chosen].astype(np.float32),
    )
    print(f"Wrote {DATA}: {DATA.stat().st_size / 1024:.0f} kB.")


def load() -> dict:
    with np.load(DATA) as file:
        data = {name: file[name] for name in file.files}
    data["strain"] = data["strain"].astype(np.complex128) * UNIT
    data["psd"] = data["psd"].astype(np.float64) * UNIT**2
    data["frequencies"] = data["frequencies"].astype(np.float64)
    return data


# Results.


def shown(draws):
    """Draws `[n, 9]` in the units of the published ones `[n, 7]`."""
    angles = right_ascension_declination(draws[:, 6], draws[:, 7], REFERENCE)
    inclination = np.degrees(np.arccos(draws[:, 4]))
    return np.column_stack([draws[:, :4], inclination, np.degrees(angles[0]) / 15.0, np.degrees(angles[1])])


def intervals(draws):
    """Median `[d]` and the ends of the 90 % interval, of draws `[n, d]`."""
    return np.percentile(draws, [50.0, 5.0, 95.0], axis=0)


def coalescence_phases(likelihood, draws, rng):
    """Draws of the phase that the likelihood has averaged over; given all else it is von Mises distributed."""
    overlap = likelihood.products(tf.constant(draws))[0].numpy()
    return rng.vonmises(np.angle(overlap), np.abs(overlap))


def report(sets):
    """Prints what the samplers found beside what is published, and how wide the chirp mass is."""
    print("\nMedian and 90 % interval; the chirp mass is that of the detector frame, in solar masses, distance in Mpc:")
    print(f"  {'':<14}" + "".join(f"{label:>28}" for label in sets))
    for i, name in enumerate(list(SHOWN)[:5]):
        cells = (f"{m:.4g} [{low:.4g}, {high:.4g}]" for m, low, high in (intervals(s)[:, i] for s in sets.values()))
        print(f"  {name:<14}" + "".join(f"{cell:>28}" for cell in cells))
    (_, low, high), *others = (intervals(draws)[:, 0] for draws in sets.values())
    for label, (middle, *ends) in zip(list(sets)[1:], others, strict=True):
        inside = "inside" if low < middle < high else "outside"
        width = (ends[1] - ends[0]) / (high - low)
        print(f"{label}: median of the chirp mass {inside} the published interval, {width:.2f} times as wide")


def signal_to_noise(likelihood, draws):
    """Network SNR `[n]`: what a filter of each draw's own waveform finds in the data."""
    overlap, squared = (v.numpy() for v in likelihood.products(tf.constant(draws)))
    return np.abs(overlap) / np.sqrt(squared)


# Pictures.


def corner(sets):
    """Marginals, and contours that hold 50 and 90 % of each pair's draws."""
    d = len(SHOWN)
    limits = [np.percentile(np.concatenate([s[:, i] for s in sets.values()]), [0.2, 99.8]) for i in range(d)]
    edges = [np.linspace(low - 0.05 * (high - low), high + 0.05 * (high - low), 49) for low, high in limits]
    figure, axes = plt.subplots(d, d, figsize=(11, 11))
    for i in range(d):
        for j in range(d):
            axis = axes[i, j]
            if j > i:
                axis.axis("off")
                continue
            for label, draws in sets.items():
                filled = label.startswith("2-OGC")
                if i == j:
                    counts = np.histogram(draws[:, i], edges[i], density=True)[0]
                    axis.stairs(gaussian_filter(counts, 1.0), edges[i], color=COLOURS[label], fill=filled, lw=1.4)
                    continue
                counts = np.histogram2d(draws[:, j], draws[:, i], (edges[j], edges[i]))[0].T
                counts = gaussian_filter(counts, 1.5)
                ranked = np.sort(counts.ravel())[::-1]
                levels = [ranked[np.searchsorted(np.cumsum(ranked), p * ranked.sum())] for p in (0.9, 0.5)]
                x, y = (0.5 * (e[1:] + e[:-1]) for e in (edges[j], edges[i]))
                if filled:
                    axis.contourf(x, y, counts, [*levels, np.inf], colors=["0.85", "0.65"])
                else:
                    axis.contour(x, y, counts, levels, colors=COLOURS[label], linewidths=1.2)
            axis.set_xlim(edges[j][0], edges[j][-1])
            if i != j:
                axis.set_ylim(edges[i][0], edges[i][-1])
            axis.locator_params(nbins=4, prune="both")
            labels = list(SHOWN.values())
            axis.set_xlabel(labels[j] if i == d - 1 else "")
            axis.set_ylabel(labels[i] if j == 0 and i else "")
            axis.tick_params(labelbottom=i == d - 1, labelleft=j == 0 and i > 0, labelrotation=30, labelsize=8)
            if i == j:
                axis.set_yticks([])
    handles = [plt.Line2D([], [], color=c, lw=6 if c == "0.55" else 2) for c in COLOURS.values()]
    figure.legend(handles, COLOURS, loc="upper right", bbox_to_anchor=(0.9, 0.87), fontsize=13, frameon=False)
    figure.suptitle("GW150914: contours of 50 and 90 %", x=0.68, y=0.9, fontsize=14)
    figure.align_labels()
    figure.subplots_adjust(wspace=0.06, hspace=0.06, left=0.09, right=0.98, bottom=0.08, top=0.98)
    return figure


def waveforms(data, strain, band=(30.0, 350.0)):
    """Whitened data, and the band of 90 % of the whitened signals `strain` `[n, 2, n_frequencies]`."""
    f = data["frequencies"]
    inside = (f >= band[0]) & (f <= band[1])
    t = np.linspace(-0.13, 0.07, 801)
    waves = np.exp(2j * np.pi * f[inside, np.newaxis] * t)
    # Noise has E |strain|^2 = psd * seconds / 2; so that of what is drawn has variance 1.
    scale = np.sqrt(2.0 / (0.5 * SECONDS * data["psd"][:, inside] * inside.sum()))
    figure, axes = plt.subplots(2, 1, figsize=(10, 6.4), sharex=True, sharey=True, layout="constrained")
    for i, (axis, name) in enumerate(zip(axes, ("Hanford (H1)", "Livingston (L1)"), strict=True)):
        measured = np.real((data["strain"][i, inside] * scale[i]) @ waves)
        low, middle, high = np.percentile(np.real((strain[:, i, inside] * scale[i]) @ waves), [5, 50, 95], axis=0)
        axis.plot(t, measured, color="0.6", lw=1.0, label="whitened strain")
        axis.fill_between(t, low, high, color="tab:blue", alpha=0.4, lw=0, label="signal, 90 % band")
        axis.plot(t, middle, color="tab:blue", lw=1.2, label="signal, median")
        axis.set(ylabel="strain / noise deviation", xlim=(t[0], t[-1]))
        axis.set_title(f"{name}, {band[0]:.0f} to {band[1]:.0f} Hz", loc="left")
    axes[0].legend(loc="upper left", frameon=False)
    axes[1].set_xlabel(f"time after GPS {REFERENCE} [s]")
    return figure


def main(output: Path, *, quick: bool) -> None:
    output.mkdir(parents=True, exist_ok=True)
    # Weights are differences of log-likelihoods of some hundred, and phases of hundreds of radians.
    keras.config.set_dtype_policy("float64")
    rng = np.random.default_rng(0)
    data = load()
    step = 16 if quick else 1
    used = (data["frequencies"][::step], data["strain"][:, ::step], data["psd"][:, ::step])
    likelihood = Likelihood(*used, spacing=1.0 / SECONDS)
    target = Target(likelihood, prior=prior(), domain=RANGES, names=NAMES)

    if quick:
        flow = FlowModel(RealNVP(len(NAMES), n_layers=2, hidden=(16,)))
        smc = preconditioned_smc(target, flow=flow, n_draws=25, n_effective=64, n_active=32)
        settings = {"n_draws": 20, "n_walkers": 32, "n_rounds": 1, "n_local": 2, "n_global": 2}
    else:
        smc = preconditioned_smc(target, n_draws=1000, n_effective=2048, n_active=1024)
        settings = {"n_draws": 500, "n_chains": 8, "n_rounds": 8, "n_local": 8, "n_global": 8}
    mh = flow_mh(target, flow=smc.flow, initial=smc.resampled(1000), seed=1, **settings)

    draws = {"SMC": smc.draws.reshape(-1, len(NAMES)), "flow MH": mh.draws.reshape(-1, len(NAMES))}
    sets = {"2-OGC, published": data["published"].astype(np.float64)} | {k: shown(v) for k, v in draws.items()}
    report(sets)
    snr = signal_to_noise(likelihood, draws["SMC"])
    print(f"\nSignal-to-noise ratio of both detectors: {np.median(snr):.1f}, of the best draw {snr.max():.1f}")
    for label, result in (("SMC", smc), ("flow MH", mh)):
        print(f"{label}: log-evidence over noise alone {result.log_evidence:.2f} +- {result.log_evidence_error:.2f};")
        print(f"  {result.n_evaluations:,} likelihoods, {result.n_gradients:,} gradients, {result.seconds:.0f} s")
    facts = smc.diagnostics
    print(f"SMC: {len(facts['betas'])} inverse temperatures, effective draws {facts['ess']:.0f}")
    facts = mh.diagnostics
    print(f"flow MH: accepted {facts['acceptance_local']:.2f} local moves, {facts['acceptance_flow']:.2f} of the flow;")
    print(f"  R-hat at most {np.max(facts['r_hat']):.3f}, effective draws at least {np.min(facts['ess_bulk']):.0f}")

    chosen = smc.resampled(300)
    phases = tf.constant(coalescence_phases(likelihood, chosen, rng))
    strain = likelihood.strain(tf.constant(chosen), phases, data["frequencies"]).numpy()
    for name, picture in (("corner", corner(sets)), ("strain", waveforms(data, strain))):
        path = output / f"gravitational_waves_{name}.png"
        picture.savefig(path, dpi=120)
        plt.close(picture)
        print(f"Picture: {path}")
    for name, result in (("smc", smc), ("flow_mh", mh)):
        result.save(output / f"gravitational_waves_{name}.npz")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("output"), help="folder for the pictures")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="an eighth of the data and few draws, in less than 60 s",
    )
    parser.add_argument("--reduce", type=Path, metavar="DIR", help="make the file that ships, and end")
    arguments = parser.parse_args()
    if arguments.reduce is not None:
        reduce(arguments.reduce)
    else:
        main(arguments.output, quick=arguments.quick)
