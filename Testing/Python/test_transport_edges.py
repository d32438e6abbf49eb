"""Ends of the tables, thin voxels, and numbers that make no sense: what is taken keeps its energy, the rest is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from SynthDoseLib.core import Emission, LabelMap, Organ, SynthDoseError, VoxelGrid, VoxelPhantom
from SynthDoseLib.physics import decay_emissions, get_material
from SynthDoseLib.transport import OrganSource, RunSettings, simulate, simulate_s_values, voxel_s_kernel

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


WHOLE, SOURCE, BETA = bone_under_lung(5.0), OrganSource({"source": 1.0}), Emission.line("electron", 0.6, 0.8)


def test_a_phantom_without_matter_is_refused():
    empty = replace(WHOLE, density_g_cm3=0 * WHOLE.density_g_cm3)
    for run in (simulate, simulate_s_values):
        with pytest.raises(SynthDoseError, match="density is 0 everywhere"):
            run(empty, *([SOURCE] if run is simulate else []), [BETA], SETTINGS)


@pytest.mark.parametrize("value", [256, -1, 0.5])
def test_material_indices_that_one_byte_does_not_hold_are_refused(value):
    index = np.zeros(WHOLE.grid.shape)
    index[0, 0, 0] = value
    with pytest.raises(SynthDoseError, match=f"whole numbers from 0 to 255; found .*{value}"):
        replace(WHOLE, material_index=index)


def test_densities_in_kg_per_m3_are_refused():
    with pytest.raises(SynthDoseError, match=r"reach 1920 g/cm3.*kg/m3"):
        replace(WHOLE, density_g_cm3=1000 * WHOLE.density_g_cm3)


@pytest.mark.parametrize("bad", [{"histories": 1000.5}, {"seed": 1.5}, {"threads": 1.5}, {"threads": True}])
def test_numbers_that_have_to_be_whole_are(bad):
    with pytest.raises(SynthDoseError, match=f"{next(iter(bad))} has to be a whole number"):
        RunSettings(**{"histories": 1000, **bad})
    assert RunSettings(histories=1e6).histories == 1_000_000
    assert RunSettings(histories=1000, organs="kidney").organs == ("kidney",)


def test_what_is_no_source_or_emits_nothing_is_refused():
    with pytest.raises(SynthDoseError, match="found str"):
        simulate(WHOLE, "source", [BETA], SETTINGS)
    for emissions in ([], [Emission.line("photon", 0.3, 0.0)]):
        with pytest.raises(SynthDoseError, match="emits nothing"):
            voxel_s_kernel(emissions, (3.0, 3.0, 3.0), get_material("water"), cached=False)
