"""Ends of the tables and thin voxels: energies that are taken keep their balance, others are refused in one sentence."""

from __future__ import annotations

import numpy as np
import pytest

from SynthDoseLib.core import Emission, LabelMap, Organ, SynthDoseError, VoxelGrid, VoxelPhantom
from SynthDoseLib.physics import decay_emissions, get_material
from SynthDoseLib.transport import OrganSource, RunSettings, simulate

SETTINGS = RunSettings(histories=8000, seed=3, threads=1, estimator="analog")


def bone_under_lung(voxel_mm: float) -> VoxelPhantom:
    grid = VoxelGrid.from_spacing((9, 9, 9), (voxel_mm,) * 3)
    labels, index = np.zeros(grid.shape, np.uint16), np.zeros(grid.shape, np.uint8)
    labels[4, 4, 4], index[5:] = 1, 1
    materials = (get_material("bone"), get_material("lung"))
    density = np.array([material.density_g_cm3 for material in materials], np.float32)[index]
    return VoxelPhantom(grid, index, density, materials, LabelMap(grid, labels, (Organ(1, "source"),)))


def balance(emissions, voxel_mm):
    result = simulate(bone_under_lung(voxel_mm), OrganSource({"source": 1.0}), emissions, SETTINGS)
    return (result.energy_deposited_MeV + result.energy_escaped_MeV) / result.energy_emitted_MeV - 1


@pytest.mark.parametrize("nuclide", ["In-111", "Ga-67", "Tl-201", "I-125"])
def test_auger_emitters_keep_their_energy_in_voxels_of_a_tenth_of_a_millimetre(nuclide):
    assert balance(decay_emissions(nuclide), 0.1) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("particle", "energy", "voxel_mm"),
    [("photon", 0.001, 0.1), ("photon", 20.0, 20.0), ("electron", 0.001, 0.1), ("electron", 20.0, 20.0),
     ("positron", 20.0, 20.0), ("alpha", 10.0, 0.1)],
)  # fmt: skip
def test_the_ends_of_the_tables_belong_to_them(particle, energy, voxel_mm):
    assert balance([Emission.line(particle, energy, 1.0)], voxel_mm) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("particle", "energy", "end"), [("photon", 20.5, 20), ("electron", 25.0, 20), ("positron", 20.1, 20), ("alpha", 12.0, 10)]
)
def test_what_lies_beyond_is_refused_with_what_was_found_and_where_the_tables_end(particle, energy, end):
    with pytest.raises(SynthDoseError, match=rf"{energy:g} MeV.*end at {end} MeV"):
        balance([Emission.line(particle, energy, 1.0)], 1.0)
