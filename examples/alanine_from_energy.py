"""Free energy of alanine dipeptide from its energy function alone: no simulation, no data to learn from.

OpenMM gives the energy of a conformation, in implicit solvent at 300 K. Sequential Monte Carlo anneals a broad prior of
48 bonds, angles and torsions to the Boltzmann distribution, its moves made in the latent space of a flow, without
gradients. The distribution of the two backbone torsion angles, phi and psi, is compared with that of molecular dynamics
which has as many evaluations of the energy, and of 60 ns of it, the reference, which nothing here has seen before.

    pip install tfflows[molecules,examples,inference]
    python examples/alanine_from_energy.py [--output DIR] [--quick]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import matplotlib
import numpy as np
import openmm
import tensorflow as tf
import tensorflow_probability as tfp
from peptide import KT, TEMPERATURE, Peptide
from scipy.ndimage import gaussian_filter

from tfflows import CouplingRQNSF, FlowModel, datasets, inference, load_model

matplotlib.use("Agg")
from matplotlib import pyplot as plt

REFERENCE_FLOW = Path(__file__).parents[1] / "saved_models" / "alanine_dipeptide" / "alanine_dipeptide.keras"
BINS = 60
SMOOTHING = 0.7  # bins, of the surfaces that are drawn
JS_BINS = 36
STEPS_PER_FRAME = 50  # of molecular dynamics, 2 fs each
# Draws wanted, draws that particles are worth at each temperature, and particles moved at a time.
FULL = {"pilot": (512, 512, 256), "main": (8192, 2048, 1024)}
QUICK = {"main": (128, 64, 32)}
HEIGHT = 6.0  # kT: up to here the free energy along phi is levelled
KERNEL = np.radians(10.0)


class Angles:
    """phi and psi in radians, `[n, 2]`, with weights `[n]`; what they say, and what it took.

    Args:
      angles, weights: None for the weights are equal.
      blocks: whether neighbouring rows are correlated, as in molecular dynamics: errors are then of ten blocks.
    """

    def __init__(self, name, angles, weights=None, *, blocks=False, n_evaluations=None, seconds=None):
        self.name, self.angles, self.n_evaluations, self.seconds = name, np.asarray(angles), n_evaluations, seconds
        self.weights = np.full(len(angles), 1.0 / len(angles)) if weights is None else weights / np.sum(weights)
        self._blocks = blocks

    def histogram(self, n_bins):
        """Probabilities `[n_bins, n_bins]`, phi along the rows."""
        edges = np.linspace(-np.pi, np.pi, n_bins + 1)
        return np.histogram2d(*self.angles.T, bins=(edges, edges), weights=self.weights)[0]

    def basins(self):
        """{name: (population, standard error)}."""
        found = {}
        for name, inside in basins(self.angles).items():
            population = float(np.sum(self.weights * inside))
            if self._blocks:
                error = np.std([block.mean() for block in np.array_split(inside, 10)], ddof=1) / np.sqrt(10)
            else:
                error = np.sqrt(np.sum(self.weights**2 * (inside - population) ** 2))
            found[name] = population, float(error)
        return found


def basins(angles):
    """{name: bool `[n]`}; the edges that give the populations published with the reference."""
    phi, psi = np.degrees(angles).T
    right = (phi <= 0.0) & (psi > -125.0) & (psi < 50.0)
    return {"C7eq/ext": (phi <= 0.0) & ~right, "alphaR": right, "alphaL": phi > 0.0}


def jensen_shannon(p, q):
    """Divergence of two histograms, in nats: 0 for equal ones, log 2 for disjoint ones."""
    middle = 0.5 * (p + q)
    with np.errstate(divide="ignore", invalid="ignore"):
        return 0.5 * sum(np.nansum(np.where(h > 0.0, h * np.log(h / middle), 0.0)) for h in (p, q))


def levelling(phi):
    """The free energy along phi in kT, up to HEIGHT, as a function of angles: from draws `[n]` by a circular kernel.

    Added to the log-density, it makes rare values of phi as frequent as common ones. Where there are no draws it is
    HEIGHT: what a short run has missed becomes frequent too, if it is there.
    """
    grid = np.linspace(-np.pi, np.pi, 361)
    density = np.mean(np.exp((np.cos(grid[:, np.newaxis] - phi) - 1.0) / KERNEL**2), axis=1)
    energy = np.minimum(-np.log(density / density.max() + 1e-30), HEIGHT)
    return lambda angle: np.interp(angle, grid, energy)


def from_energy(peptide, settings, seed=0):
    """phi and psi of weighted draws, by annealing with a flow.

    A rare basin would have a handful of particles, of which no flow learns it. So a short pilot run estimates the free
    energy along phi, the main run has it levelled, and weights undo that exactly.
    """
    started = time.process_time()
    zeros = tf.zeros(48)
    prior = tfp.distributions.MultivariateNormalDiag(zeros, tf.ones_like(zeros))

    def anneal(name, bias):
        target = inference.Target(lambda z: peptide.log_likelihood(z) + bias(peptide.angles(z)[:, 0]), prior=prior)
        flow = FlowModel(CouplingRQNSF(48, n_layers=2, hidden=(32,))) if settings is QUICK else None
        n_draws, n_effective, n_active = settings[name]
        result = inference.preconditioned_smc(
            target, n_draws=n_draws // 4, n_effective=n_effective, n_active=n_active, flow=flow, seed=seed
        )
        facts = result.diagnostics
        print(
            f"  {name}: {len(facts['betas'])} temperatures, particles worth {facts['ess']:,.0f} draws, Pareto k of the "
            f"flow's draws {facts['pareto_k']:.2f}, log-evidence {result.log_evidence:.2f} +- "
            f"{result.log_evidence_error:.2f}"
        )
        return peptide.angles(result.draws.reshape(-1, 48))

    bias = levelling(anneal("pilot", np.zeros_like)[:, 0]) if "pilot" in settings else np.zeros_like
    angles = anneal("main", bias)
    return Angles(
        "flow, from the energy",
        angles,
        np.exp(-bias(angles[:, 0])),
        n_evaluations=peptide.n_evaluations,
        seconds=time.process_time() - started,
    )


def molecular_dynamics(peptide, n_steps, seed=0):
    """phi and psi along a Langevin trajectory that starts from the minimum of the energy."""
    started = time.process_time()
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 1.0, 0.002)
    integrator.setRandomNumberSeed(seed + 1)
    context = openmm.Context(peptide.system, integrator, openmm.Platform.getPlatformByName("CPU"), {"Threads": "1"})
    context.setPositions(peptide.minimum)
    context.setVelocitiesToTemperature(TEMPERATURE, seed + 1)
    frames = []
    for _ in range(n_steps // STEPS_PER_FRAME):
        integrator.step(STEPS_PER_FRAME)
        frames.append(context.getState(positions=True).getPositions(asNumpy=True)._value)
    angles = peptide.zmatrix.internal(np.array(frames))[2][:, :2]
    return Angles(
        f"molecular dynamics, {2e-6 * n_steps:.3g} ns",
        angles,
        blocks=True,
        n_evaluations=n_steps,
        seconds=time.process_time() - started,
    )


def draw(shown, path):
    """Free-energy surfaces of four kinds of draws, and their free energies along phi and along psi."""
    names = "abcd"
    figure, axes = plt.subplot_mosaic(
        [list(names), list("ppss")], figsize=(15, 8.4), layout="constrained", height_ratios=[1.0, 0.85]
    )
    edges, ticks = np.linspace(-180.0, 180.0, BINS + 1), np.arange(-180, 181, 90)
    # Where nothing was drawn is like what is above the scale.
    colours = matplotlib.colormaps["magma"].with_extremes(over="0.9")
    for name, draws in zip(names, shown, strict=True):
        axis = axes[name]
        energy = free_energy(gaussian_filter(draws.histogram(BINS), SMOOTHING, mode="wrap"))
        image = axis.pcolormesh(edges, edges, energy.T, vmin=0.0, vmax=9.0, cmap=colours, rasterized=True)
        axis.set(xlim=(-180, 180), ylim=(-180, 180), xticks=ticks, yticks=ticks, aspect="equal", facecolor="0.9")
        axis.set(title=draws.name, xlabel="phi [degrees]", ylabel="psi [degrees]" if name == "a" else None)
        for phi, psi, label in ((-20, 150, "C7eq, extended"), (-20, -50, "alphaR"), (75, 50, "alphaL")):
            axis.text(phi, psi, label, fontsize=9, va="center")
    figure.colorbar(image, ax=[axes[name] for name in names], label="free energy  -ln p  [kT]", extend="max", pad=0.01)
    centres = 0.5 * (edges[1:] + edges[:-1])
    styles = [("C3", "o-"), ("C0", "s-"), ("k", "-"), ("0.6", "--")]
    for column, (name, angle) in enumerate((("p", "phi"), ("s", "psi"))):
        for draws, (colour, style) in zip(shown, styles, strict=True):
            energy = free_energy(draws.histogram(BINS).sum(axis=1 - column))
            axes[name].plot(centres, energy, style, color=colour, label=draws.name, markersize=3.5, linewidth=1.4)
        axes[name].set(xlim=(-180, 180), ylim=(-0.3, 12.0), xticks=np.arange(-180, 181, 60))
        axes[name].set(xlabel=f"{angle} [degrees]", ylabel=f"-ln p({angle})  [kT]")
        axes[name].grid(alpha=0.3)
    axes["s"].legend(fontsize=9)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def free_energy(histogram):
    """-ln p in kT, 0 at the minimum; NaN where nothing was drawn."""
    with np.errstate(divide="ignore"):
        energy = -np.log(histogram / histogram.max())
    return np.where(np.isfinite(energy), energy, np.nan)


def report(rows, reference, runs):
    """The table: evaluations, time, populations in per cent with two standard errors, divergence to the reference.

    Errors of weighted draws are those of independent ones: their common ancestors make the truth larger.
    """
    target = reference.histogram(JS_BINS)
    print(f"\n{'':<36}{'energies':>10}{'CPU [s]':>9}   C7eq/ext [%]     alphaR [%]      alphaL [%]    JS [nats]")
    for row in rows:
        cost = f"{row.n_evaluations or '':>10}{'' if row.seconds is None else round(row.seconds):>9}"
        parts = [f"{100 * p:7.3f} +- {200 * error:<5.3f}" for p, error in row.basins().values()]
        js = "" if row is reference else f"{jensen_shannon(row.histogram(JS_BINS), target):9.4f}"
        print(f"{row.name:<36}{cost}  {' '.join(parts)}{js}")
    pairs = [(0, 1), (0, 2), (1, 2)]
    between = [jensen_shannon(runs[i].histogram(JS_BINS), runs[j].histogram(JS_BINS)) for i, j in pairs]
    n = int(1.0 / np.sum(rows[0].weights ** 2))
    fewer = Angles("", np.random.default_rng(0).choice(reference.angles, n)).histogram(JS_BINS)
    print(
        f"Two 20 ns runs of the reference have a divergence of {np.mean(between):.4f} between them, and {n:,} "
        f"independent draws, the most that those of the flow are worth, have {jensen_shannon(fewer, target):.4f}."
    )


def main(output: Path, *, quick: bool) -> None:
    output.mkdir(parents=True, exist_ok=True)
    settings = QUICK if quick else FULL
    peptide = Peptide()
    print(f"From the energy, at {TEMPERATURE:.0f} K (kT = {KT:.4f} kJ/mol), 48 coordinates:")
    weighted = from_energy(peptide, settings)
    np.savez(output / "alanine_from_energy.npz", angles=weighted.angles, weights=weighted.weights)
    dynamics = molecular_dynamics(peptide, weighted.n_evaluations)
    turned = basins(dynamics.angles)["alphaL"]
    print(f"Molecular dynamics entered phi > 0 {np.sum(~turned[:-1] & turned[1:])} times.")

    train, test = datasets.alanine_dipeptide()
    runs = [Angles("", angles, blocks=True) for angles in (*np.split(train, 2), test)]
    reference = Angles("molecular dynamics, 60 ns reference", np.concatenate([train, test]), blocks=True)
    fitted = load_model(REFERENCE_FLOW).sample(20_000 if quick else 200_000, seed=0).numpy()
    fitted = Angles("circular flow of the reference", fitted)
    report([weighted, dynamics, reference, fitted], reference, runs)
    picture = output / "alanine_from_energy.png"
    draw([weighted, dynamics, reference, fitted], picture)
    print(f"Picture: {picture}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("output"), help="folder for the picture and the draws")
    parser.add_argument(
        "--quick", action="store_true", help="few energies, a small flow and no pilot run: a rough picture"
    )
    arguments = parser.parse_args()
    main(arguments.output, quick=arguments.quick)
