"""Internal coordinates and their Jacobian, alanine dipeptide's geometry, and the example that samples its energy."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
CHAIN = [(0,), (1, 0), (2, 1, 0), (3, 2, 1, 0), (4, 2, 3, 1)]  # branched: atoms 3 and 4 are both bonded to 2


@pytest.fixture(scope="module", autouse=True)
def _path():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        yield


@pytest.fixture(scope="module")
def peptide(_path):
    pytest.importorskip("openmm")
    from peptide import Peptide

    return Peptide()


def coordinates(rng, n, n_atoms):
    return (
        rng.uniform(0.8, 1.6, (n, n_atoms - 1)),
        rng.uniform(0.3, 2.8, (n, n_atoms - 2)),
        rng.uniform(-np.pi, np.pi, (n, n_atoms - 3)),
    )


@pytest.mark.parametrize("rows", [CHAIN, [(2,), (0, 2), (1, 2, 0), (3, 1, 2, 0)]], ids=["chain", "centre first"])
def test_internal_coordinates_are_found_again(rows, rng):
    from internal_coordinates import ZMatrix

    zmatrix, wanted = ZMatrix(rows), coordinates(rng, 100, len(rows))
    positions, _ = zmatrix.cartesian(*wanted)
    for found, value in zip(zmatrix.internal(positions), wanted, strict=True):
        np.testing.assert_allclose(found, value, atol=1e-12)


def test_torsion_has_the_sign_of_iupac():
    from internal_coordinates import torsion

    # Seen along the middle bond, away from the eye: from the first bond (up) clockwise to the last (right) is positive.
    a, b, c, d = np.array([[0.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 1.0, 0.0]])
    assert torsion(a, b, c, d) == pytest.approx(np.pi / 2.0)


def test_log_jacobian_equals_the_determinant(rng):
    """Of all Cartesian coordinates by the internal ones and six of shifts and small rotations."""
    from internal_coordinates import ZMatrix

    zmatrix, (bonds, angles, torsions) = ZMatrix(CHAIN), coordinates(rng, 1, 5)
    internal = np.concatenate([bonds, angles, torsions], axis=1)[0]

    def positions(numbers):
        # To first order, `turn` rotates about the origin, where the first atom is.
        q, shift, turn = numbers[:9], numbers[9:12], numbers[12:]
        places = zmatrix.cartesian(q[np.newaxis, :4], q[np.newaxis, 4:7], q[np.newaxis, 7:])[0][0]
        return (places + np.cross(turn, places) + shift).ravel()

    start, step = np.concatenate([internal, np.zeros(6)]), 1e-6
    columns = [(positions(start + step * e) - positions(start - step * e)) / (2.0 * step) for e in np.eye(15)]
    _, expected = np.linalg.slogdet(np.stack(columns))
    _, log_jacobian = zmatrix.cartesian(bonds, angles, torsions)
    assert log_jacobian[0] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        ([(0,), (1, 0)], "Expected rows of 1, 2, 3"),
        ([(0,), (1, 0), (2, 1, 0), (3, 2, 1)], "Expected rows of 1, 2, 3"),
        ([(0,), (1, 0), (2, 3, 0), (3, 2, 1, 0)], "Expected a new atom placed by"),
        ([(0,), (1, 0), (2, 1, 0), (2, 2, 1, 0)], "Expected a new atom placed by"),
        ([(0,), (1, 0), (2, 1, 0), (4, 2, 1, 0)], "Expected the atoms 0 to 3"),
    ],
)
def test_errors_of_z_matrices(rows, match):
    from internal_coordinates import ZMatrix

    with pytest.raises(ValueError, match=match):
        ZMatrix(rows)


def test_prior_keeps_the_molecule(peptide, rng):
    """All draws are L-alanine with trans peptide bonds, its angles where z says, its hydrogens at rigid distances."""
    z = rng.normal(size=(500, 48))
    positions, log_jacobian = peptide.positions(z)
    assert np.all(np.isfinite(log_jacobian))
    bonds, _, torsions = peptide.zmatrix.internal(positions)
    np.testing.assert_allclose(bonds[:, ~peptide.varied], np.tile(peptide.bonds[~peptide.varied], (500, 1)), atol=1e-12)
    away = torsions[:, :2] - peptide.angles(z)
    np.testing.assert_allclose(np.mod(away + 1.0, 2.0 * np.pi) - 1.0, 0.0, atol=1e-9)
    assert np.all(np.abs(torsions[:, 2:4]) > np.radians(90.0))
    # CORN: with the hydrogen towards the eye, CO, R and N follow each other clockwise.
    nitrogen, alpha, hydrogen, beta, carbonyl = (positions[:, i] for i in (6, 8, 9, 10, 14))
    turn = np.cross(carbonyl - alpha, beta - alpha) + np.cross(beta - alpha, nitrogen - alpha)
    assert np.all(np.sum(turn * (hydrogen - alpha), axis=1) < 0.0)


def test_likelihood_times_prior_is_boltzmann_factor_times_jacobian(peptide, rng):
    z = 0.3 * rng.normal(size=(20, 48))  # far from where phi and psi are laid out twice
    positions, log_jacobian = peptide.positions(z)
    energies = peptide.energy(positions) / 2.4943387854
    # The stiff coordinates are linear in z; of the free ones the prior is that of numbers that are uniform.
    log_prior = -0.5 * np.sum(z[:, 5:] ** 2, axis=1)
    found = peptide.log_likelihood(z) + log_prior - (log_jacobian - energies)
    np.testing.assert_allclose(found, found[0], atol=1e-3)


def test_shares_of_angles_that_are_laid_out_twice_add_up_to_one(peptide, rng):
    z = rng.normal(size=(1000, 48))
    angles = peptide.angles(z)
    turns = 2.0 * np.pi * np.array([[i, j] for i in (-1, 0, 1) for j in (-1, 0, 1)])
    shares = np.stack([peptide.share(angles + turn) for turn in turns])
    assert np.any((shares > 0.0) & (shares < 1.0))
    np.testing.assert_allclose(shares.sum(axis=0), 1.0, atol=1e-12)
    # It is this share that the likelihood has: of two molecules, one of them in the overlap of psi.
    z = np.zeros([2, 48])
    z[1, 1] = 1.4
    positions, log_jacobian = peptide.positions(z)
    found = peptide.log_likelihood(z) - log_jacobian + peptide.energy(positions) / 2.4943387854
    laid_out = np.mod(peptide.angles(z), 2.0 * np.pi)
    laid_out[1, 1] += 2.0 * np.pi
    share = peptide.share(laid_out)
    assert share[0] == 1.0
    assert 0.0 < share[1] < 1.0
    assert found[1] - found[0] == pytest.approx(np.log(share[1]), abs=1e-3)


def test_permuting_a_methyl_group_turns_it_by_a_third(peptide):
    from peptide import METHYLS, TORSIONS

    torsions = peptide.zmatrix.internal(peptide.minimum[np.newaxis])[2][0]
    start = peptide.reduced(torsions)
    for place, methyl in enumerate(METHYLS):
        rows = [TORSIONS.index(row) for row in methyl]
        permuted = torsions.copy()
        permuted[rows] = torsions[rows][[1, 2, 0]]
        turned = peptide.reduced(permuted)[2 + place] - start[2 + place]
        assert np.cos(turned) == pytest.approx(-0.5, abs=1e-9)


def test_example(tmp_path, monkeypatch, capsys, without_xla, quick_samplers):
    pytest.importorskip("openmm")
    monkeypatch.setattr(sys, "argv", ["alanine_from_energy.py", "--quick", "--output", str(tmp_path)])
    runpy.run_path(str(EXAMPLES / "alanine_from_energy.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert "Two 20 ns runs of the reference" in printed
    assert (tmp_path / "alanine_from_energy.png").stat().st_size > 50_000
    with np.load(tmp_path / "alanine_from_energy.npz") as draws:
        assert draws["angles"].shape == (128, 2)
        assert np.all(np.abs(draws["angles"]) <= np.pi)
        assert draws["weights"].sum() == pytest.approx(1.0)
