"""Alpha stopping powers composed from parts against ASTAR's own tables of tissues."""

from __future__ import annotations

import numpy as np
import pytest

from SynthDoseLib.physics import alpha_csda_range, alpha_stopping_power, get_material
from SynthDoseLib.physics.tables import load_table


@pytest.mark.parametrize(
    ("name", "astar", "tolerance"),
    [
        ("water", "WATER_LIQUID", 1e-4),
        ("muscle_icrp", "MUSCLE_SKELETAL_ICRP", 0.025),
        ("adipose_icrp", "ADIPOSE_TISSUE_ICRP", 0.035),
        ("bone_compact_icru", "BONE_COMPACT_ICRU", 0.025),
        ("bone_cortical_icrp", "BONE_CORTICAL_ICRP", 0.03),
    ],
)
def test_tissues_agree_with_astar(name, astar, tolerance):
    table = load_table("alphas")
    electronic, nuclear, csda = table["table"][list(table["material"]).index(astar)]
    energy = table["energy_MeV"]
    checked = (energy >= 0.5) & (energy <= 10)
    computed = alpha_stopping_power(get_material(name), energy)
    assert computed[checked] == pytest.approx((electronic + nuclear)[checked], rel=tolerance)
    therapeutic = (energy >= 5) & (energy <= 9)
    assert alpha_csda_range(get_material(name), energy)[therapeutic] == pytest.approx(csda[therapeutic], rel=0.01)


def test_range_in_water_of_the_alpha_of_polonium_213():
    # ASTAR's range in water, interpolated between its nodes, against the integral of the stopping power
    table = load_table("alphas")
    csda = table["table"][list(table["material"]).index("WATER_LIQUID"), 2]
    expected = np.exp(np.interp(np.log(8.376), np.log(table["energy_MeV"]), np.log(csda)))
    assert alpha_csda_range(get_material("water"), 8.376) == pytest.approx(expected, rel=1e-3)
    assert 7e-3 < expected < 9e-3
