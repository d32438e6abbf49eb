"""The machinery of ``make validate`` and ``make bench``: verdicts, shells of voxels, overlaps, spectra for the peer."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from SynthDoseLib.core import Emission
from Testing.Benchmarks.comparison import compare, summary, table
from Testing.Benchmarks.peer import spectrum_rows
from Testing.Benchmarks.point_kernels import radius_errors, radius_of
from Testing.Benchmarks.principles import cube_overlap
from Testing.Benchmarks.results import write_section
from Testing.Benchmarks.shells import fold, shell_labels


@pytest.mark.parametrize(
    ("own", "reference", "verdict"),
    [
        ((1.009, 0.003), (1.0, 0.001), "ok"),
        ((1.012, 0.003), (1.0, 0.001), "differs"),
        ((1.012, 0.003), (1.0, 0.004), "ok"),  # three standard errors are 1.5 %
        ((1.001, 0.006), (1.0, 0.001), "too noisy"),
    ],
)
def test_a_row_passes_within_tolerance_or_three_sigma_and_only_when_it_is_precise(own, reference, verdict):
    row = compare("case", "quantity", own, reference, 0.01)
    assert row.verdict == verdict
    assert summary([row])[:2] == (1, int(verdict == "ok"))
    assert verdict in table([row])


def test_fewer_histories_than_needed_excuse_their_noise_only():
    assert compare("c", "q", (1.0, 0.006), (1.0, 0.0), 0.01, share=0.25).verdict == "ok"
    assert compare("c", "q", (1.1, 0.006), (1.0, 0.0), 0.01, share=0.25).verdict == "differs"


def test_shells_of_voxels_get_all_energy_and_each_about_its_own():
    edges = np.linspace(0, 5, 11)
    labels, inside = shell_labels(23, 0.5, edges, 5.0)
    energy, shares = fold(np.ones(9), edges[:10], labels, 0.5)
    assert shares.sum(axis=0) == pytest.approx(np.ones(9))
    assert energy[1:].sum() == pytest.approx(9.0)
    # a shell a voxel thick lends as much to its neighbours as it borrows from them
    np.testing.assert_allclose(energy[3:9], 1.0, atol=0.12)
    assert inside[labels > 0].all()


def test_overlap_of_a_cube_starts_with_its_mean_chord():
    # Dirac: 1 - r S / (4 V) for small r, and nothing beyond the diagonal
    assert cube_overlap(np.array([0.01, 1.74]), 1.0) == pytest.approx([1 - 0.015, 0.0], abs=1e-4)


def test_spectra_for_the_peer_are_in_order_and_keep_their_shares():
    lines = [Emission.line("photon", 0.3, 0.2), Emission.line("photon", 0.1, 0.5)]
    rows = spectrum_rows(lines)
    energies = [energy for energy, _ in rows]
    assert energies == sorted(energies)
    assert [share for _, share in rows] == pytest.approx([0.5, 0.0, 0.2, -1.0])


def test_a_section_is_replaced_and_the_others_stay(tmp_path):
    path = tmp_path / "RESULTS.md"
    for heading, body in (("One", "first"), ("Two", "other"), ("One", "second")):
        write_section(heading, "make x", body, path)
    text = path.read_text(encoding="utf-8")
    assert "first" not in text
    assert text.index("second") < text.index("other")


def test_errors_of_radii_are_those_that_two_codes_scatter_with():
    """Electrons that lose their energy evenly up to a range of their own: 10 runs of 200 beside another code's run of 800.

    The difference over its error is Student's t with 9 degrees of freedom: mean 0, variance 9/7.
    """
    rng, edges = np.random.default_rng(5), np.linspace(0.0, 1.0, 41)

    def radii(histories):
        reach = rng.beta(6.0, 2.0, (histories, 1))
        energy = np.diff(np.minimum(edges / reach, 1.0), axis=1).sum(axis=0)
        return [radius_of(energy, edges, part) for part in (0.5, 0.9)]

    pulls = []
    for _ in range(400):
        own, other = np.array([radii(200) for _ in range(10)]), radii(800)
        own_error, error = radius_errors(own, 200, 800)
        pulls.append((own.mean(axis=0) - other) / np.hypot(own_error, error))
    expected = np.sqrt(9 / 7)
    for values in np.transpose(pulls):
        assert abs(values.mean()) < 4 * expected / np.sqrt(values.size)
        # fourth moment of t with 9 degrees of freedom: 4.2 variances squared
        assert abs(values.std() / expected - 1) < 4 * np.sqrt(3.2 / (4 * values.size))
