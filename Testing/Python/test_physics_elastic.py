"""Transport cross sections of electrons."""

from __future__ import annotations

import numpy as np
import pytest

from SynthDoseLib.core import Material
from SynthDoseLib.physics import elastic_moments, elastic_total, get_material
from SynthDoseLib.physics.elastic import element_moment
from SynthDoseLib.physics.tables import load_table


def test_tabulated_elements_come_back_at_their_nodes():
    table = load_table("elastic")
    oxygen = list(table["atomic_number"]).index(8)
    for particle in (0, 1):
        for order in (0, 1, 2):
            expected = table["cross_section_cm2"][particle, order, oxygen]
            assert element_moment(8, table["energy_MeV"], bool(particle), order) == pytest.approx(expected, rel=1e-9)


def test_water_at_high_energy_follows_the_screened_rutherford_cross_section():
    # nuclei only; Moliere screening, spin neglected: within 10 % where the Born approximation holds
    energy = np.array([5.0, 20.0])
    sigma1, sigma2 = elastic_moments(get_material("water"), energy)
    tau = energy / 0.51099895
    momentum2, beta2 = tau * (tau + 2), tau * (tau + 2) / (tau + 1) ** 2
    expected = np.zeros(2)
    for z, per_gram in ((1, 0.111898 / 1.008), (8, 0.888102 / 15.999)):
        radius = 0.88534 * 137.036 * z ** (-1 / 3)
        eta = (1.13 + 3.76 * (z / 137.036) ** 2 / beta2) / (4 * momentum2 * radius**2)
        transport = np.log1p(1 / eta) - 1 / (1 + eta)
        classical_radius2 = (2.8179403e-13) ** 2
        expected += 6.02214076e23 * per_gram * 2 * np.pi * classical_radius2 * z**2 * transport / (momentum2 * beta2)
    assert sigma1 == pytest.approx(expected, rel=0.1)
    assert (sigma2 > 2 * sigma1).all()
    assert (sigma2 < 3 * sigma1).all()


def test_elements_left_out_come_back_within_the_stated_error(monkeypatch):
    table = dict(load_table("elastic"))
    energy = table["energy_MeV"][table["energy_MeV"] >= 0.01]
    truth = {z: element_moment(z, energy, False, 1) for z in (6, 7, 8, 12, 15, 17, 20, 26)}
    for z, expected in truth.items():
        others = table["atomic_number"] != z
        reduced = {**table, "atomic_number": table["atomic_number"][others]}
        reduced["cross_section_cm2"] = table["cross_section_cm2"][:, :, others]
        monkeypatch.setattr("SynthDoseLib.physics.elastic.load_table", lambda _, reduced=reduced: reduced)
        assert element_moment(z, energy, False, 1) == pytest.approx(expected, rel=0.027 if z == 6 else 0.008)


def test_a_mixture_adds_its_elements_and_positrons_scatter_less():
    energy = np.geomspace(0.001, 20, 30)
    sigma1, _ = elastic_moments(get_material("water"), energy)
    hydrogen, _ = elastic_moments(Material("", 1, {"H": 1.0}), energy)
    oxygen, _ = elastic_moments(Material("", 1, {"O": 1.0}), energy)
    assert sigma1 == pytest.approx(0.111898 * hydrogen + 0.888102 * oxygen, rel=1e-5)
    assert (elastic_moments(get_material("cortical bone"), energy, positron=True)[0] < elastic_moments(
        get_material("cortical bone"), energy
    )[0]).all()  # fmt: skip
    assert (elastic_total(get_material("water"), energy) > sigma1).all()
