"""Alanine dipeptide in implicit solvent: its energy by OpenMM, of unconstrained numbers that a flow can sample."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openmm
from internal_coordinates import ZMatrix
from openmm import app
from scipy.special import ndtr

TEMPERATURE = 300.0  # K
KT = 0.00831446261815324 * TEMPERATURE  # kJ/mol
PDB = Path(__file__).parent / "data" / "alanine_dipeptide.pdb"

# Atoms by their places in the file: ACE 0-5, ALA 6-15, NME 16-21. The chain N, CA, C comes first.
BACKBONE = [(6,), (8, 6), (14, 8, 6)]
PHI, PSI, OMEGA_1, OMEGA_2 = (4, 6, 8, 14), (16, 14, 8, 6), (1, 4, 6, 8), (18, 16, 14, 8)
# Neighbours of an atom already placed turn with it: their torsions count from its.
SIBLINGS = {
    (7, 6, 8, 14): PHI,
    (10, 8, 6, 4): PHI,
    (9, 8, 6, 4): PHI,
    (15, 14, 8, 6): PSI,
    (5, 4, 6, 8): OMEGA_1,
    (17, 16, 14, 8): OMEGA_2,
}
METHYLS = [
    [(0, 1, 4, 6), (2, 1, 4, 6), (3, 1, 4, 6)],
    [(11, 10, 8, 6), (12, 10, 8, 6), (13, 10, 8, 6)],
    [(19, 18, 16, 14), (20, 18, 16, 14), (21, 18, 16, 14)],
]
TORSIONS = [PHI, PSI, OMEGA_1, OMEGA_2, *SIBLINGS, *(row for methyl in METHYLS for row in methyl)]
# Where the circles of phi and psi are cut, hardly populated angles; their ends overlap by as much on either side.
CUTS, OVERLAPS = np.radians([0.0, 10.0]), np.radians([15.0, 30.0])
THIRD = 2.0 * np.pi / 3.0


class Peptide:
    """Energies of ACE-ALA-NME, and the numbers z by which they are sampled.

    The bonds to hydrogen are rigid, as they are in molecular dynamics with steps of 2 fs. What is left are 9 bonds, 20
    angles and 19 torsions. Of these phi, psi and the turns of the three methyl groups are free: a uniform prior, for a
    methyl group on a third of the circle, since its hydrogens are alike. The circles of phi and psi are laid out a bit
    longer than they are; what is there twice has shares that add up to one, and fades towards the ends, where a flow
    would fit an edge badly. The other 43 are stiff: a normal prior around
    the minimum of the energy, its covariance from the second derivatives there, `widening` times as wide. It leaves out
    cis peptide bonds and the mirror image of alanine, neither of which molecular dynamics reaches.

    z `[n, 48]`, of which the prior is standard normal: phi, psi, three methyl turns, 43 stiff ones.

    Args:
      pdb: path of the molecule.
      force_field: names of OpenMM's files. Amber ff96 with OBC1 is what the reference's simulations used.
      widening: of the stiff coordinates' prior, so that its tails hold the target's.
    """

    def __init__(self, pdb: Path = PDB, force_field=("amber96.xml", "implicit/obc1.xml"), widening: float = 1.3):
        file = app.PDBFile(str(pdb))
        self.system = app.ForceField(*force_field).createSystem(
            file.topology, nonbondedMethod=app.NoCutoff, constraints=app.HBonds
        )
        # One thread is the fastest for so few atoms.
        platform, options = openmm.Platform.getPlatformByName("CPU"), {"Threads": "1"}
        self._context = openmm.Context(self.system, openmm.VerletIntegrator(0.001), platform, options)
        self.n_evaluations = 0
        self.zmatrix = ZMatrix(BACKBONE + TORSIONS)
        hydrogen = [atom.element.symbol == "H" for atom in file.topology.atoms()]
        self.varied = np.array([not hydrogen[row[0]] for row in self.zmatrix.rows[1:]])

        self._context.setPositions(file.positions)
        openmm.LocalEnergyMinimizer.minimize(self._context)
        state = self._context.getState(positions=True, energy=True)
        self.minimum = np.array(state.getPositions(asNumpy=True)._value)
        self._lowest = state.getPotentialEnergy()._value
        self._set_prior(widening)

    def energy(self, positions: np.ndarray) -> np.ndarray:
        """Potential energies `[n]` in kJ/mol of positions `[n, 22, 3]` in nm."""
        energies = np.empty(len(positions))
        for i, position in enumerate(positions):
            self._context.setPositions(position)
            energies[i] = self._context.getState(energy=True).getPotentialEnergy()._value
        self.n_evaluations += len(positions)
        return energies

    def log_likelihood(self, z: np.ndarray) -> np.ndarray:
        """Log of Boltzmann factor and Jacobian over the prior, `[n]` of z `[n, 48]`, up to a constant."""
        positions, log_jacobian = self.positions(z)
        possible = np.isfinite(log_jacobian)
        energies = np.full(len(z), np.inf)
        energies[possible] = self.energy(positions[possible]) - self._lowest
        stiff = np.asarray(z, np.float64)[:, 5:]
        # Of the free coordinates the prior is constant.
        with np.errstate(divide="ignore"):
            value = (
                -energies / KT + log_jacobian + 0.5 * np.sum(stiff**2, axis=1) + np.log(self.share(self._laid_out(z)))
            )
        return np.where(possible, value, -np.inf)

    def positions(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions `[n, 22, 3]` in nm and the log-Jacobian `[n]` of the internal coordinates, of z `[n, 48]`."""
        z = np.asarray(z, np.float64)
        free = self._low + ndtr(z[:, :5]) * self._width
        stiff = self._centre + z[:, 5:] @ self._factor.T
        return self._from_coordinates(np.concatenate([free, stiff], axis=1))

    def angles(self, z: np.ndarray) -> np.ndarray:
        """phi and psi in [-pi, pi), `[n, 2]`."""
        return wrap(self._laid_out(z))

    def share(self, angles: np.ndarray) -> np.ndarray:
        """What of a molecule counts at phi and psi as they are laid out, `[n]` of `[n, 2]`; 1 but in the overlaps."""
        begun = np.clip((angles - self._low[:2]) / (2.0 * OVERLAPS), 0.0, 1.0)
        ended = np.clip((angles - self._low[:2] - 2.0 * np.pi) / (2.0 * OVERLAPS), 0.0, 1.0)
        return np.prod(_smooth(begun) - _smooth(ended), axis=1)

    def _laid_out(self, z):
        return self._low[:2] + ndtr(np.asarray(z, np.float64)[:, :2]) * self._width[:2]

    def _from_coordinates(self, q):
        """Positions and log-Jacobian of phi, psi, methyl turns, other torsions, bonds and angles, `[n, 48]`."""
        n = len(q)
        torsions = q[:, :19] @ self._map[0].T + self._map[1]
        bonds = np.tile(self.bonds, [n, 1])
        bonds[:, self.varied] = q[:, 19:28]
        angles = q[:, 28:]
        positions, log_jacobian = self.zmatrix.cartesian(bonds, angles, torsions)
        outside = np.any((angles <= 0.0) | (angles >= np.pi), axis=1) | np.any(bonds <= 0.0, axis=1)
        return positions, np.where(outside, -np.inf, log_jacobian)

    def reduced(self, torsions):
        """phi, psi, methyl turns and 14 differences in [-pi, pi) of the 19 torsions of one molecule."""
        siblings = [torsions[TORSIONS.index(row)] for row in SIBLINGS.values()]
        turns, others = [], []
        for methyl, sign in zip(torsions[10:].reshape(3, 3), self._signs, strict=True):
            away = wrap(methyl - methyl[0] - THIRD * sign)
            turns.append(methyl[0] + away.mean())
            others.extend((away - away.mean())[:2])
        return np.array([*torsions[:2], *turns, *torsions[2:4], *wrap(torsions[4:10] - siblings), *others])

    def _set_prior(self, widening):
        """A normal of the stiff coordinates, from the second derivatives of the energy at its minimum."""
        self.bonds, angles, torsions = (part[0] for part in self.zmatrix.internal(self.minimum[np.newaxis]))
        self._signs = [np.round(wrap(turns - turns[0]) / THIRD) for turns in torsions[10:].reshape(3, 3)]
        self._map = _torsion_map(self._signs)
        start = np.concatenate([self.reduced(torsions), self.bonds[self.varied], angles])
        self._low = np.concatenate([CUTS - OVERLAPS, np.full(3, -0.5 * THIRD)])
        self._width = np.concatenate([2.0 * np.pi + 2.0 * OVERLAPS, np.full(3, THIRD)])
        self._centre = start[5:]

        step = np.where(np.arange(48) < 19, 0.05, np.where(np.arange(48) < 28, 0.002, 0.03))[5:]
        pairs = [(i, j) for i in range(43) for j in range(i + 1)]
        shifts = np.zeros([len(pairs), 2, 2, 48])
        for place, (i, j) in enumerate(pairs):
            for a, b in ((0, 0), (0, 1), (1, 0), (1, 1)):
                shifts[place, a, b, 5 + i] += (0.5 - a) * step[i]
                shifts[place, a, b, 5 + j] += (0.5 - b) * step[j]
        u = self.energy(self._from_coordinates(start + shifts.reshape(-1, 48))[0]).reshape(-1, 2, 2)
        hessian = np.zeros([43, 43])
        for (i, j), second in zip(pairs, u[:, 0, 0] - u[:, 0, 1] - u[:, 1, 0] + u[:, 1, 1], strict=True):
            hessian[i, j] = hessian[j, i] = second / (step[i] * step[j])
        self._factor = widening * np.linalg.cholesky(KT * np.linalg.inv(hessian))


def wrap(angle):
    """An angle in radians, to [-pi, pi)."""
    return np.mod(np.asarray(angle) + np.pi, 2.0 * np.pi) - np.pi


def _smooth(x):
    """From 0 to 1 as x does, level at both ends."""
    return x * x * (3.0 - 2.0 * x)


def _torsion_map(signs):
    """Matrix and offset that make the 19 torsions of the Z-matrix from phi, psi, methyl turns and 14 differences.

    The turn of a methyl group is the mean of its hydrogens' torsions, 120 degrees apart but for two differences: it
    changes by exactly 120 degrees where they are permuted. `signs` tell their order.
    """
    matrix, offset = np.zeros([19, 19]), np.zeros(19)
    matrix[[0, 1, 2, 3], [0, 1, 5, 6]] = 1.0
    for i, sibling in enumerate(SIBLINGS.values()):
        matrix[4 + i] = matrix[TORSIONS.index(sibling)]
        matrix[4 + i, 7 + i] = 1.0
    for methyl in range(3):
        rows, first = slice(10 + 3 * methyl, 13 + 3 * methyl), 13 + 2 * methyl
        matrix[rows, 2 + methyl] = 1.0
        matrix[rows, first : first + 2] = [[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]]
        offset[rows] = THIRD * signs[methyl]
    return matrix, offset
