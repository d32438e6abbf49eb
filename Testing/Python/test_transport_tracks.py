"""Copies of electron tracks beside electrons that are followed one by one, across the faces of unlike materials."""

from __future__ import annotations

import numpy as np
import pytest

from SynthDoseLib.core import Emission, LabelMap, Organ, VoxelGrid, VoxelPhantom
from SynthDoseLib.physics import get_material
from SynthDoseLib.transport import BeamSource, RunSettings, simulate

MATERIALS = ("water", "lung", "cortical bone", "air", "Ti")
DENSITY = (1.0, 0.26, 1.92, 0.0012, 4.5)
SLABS = (0, 1, 2, 1, 0, 3, 0, 4, 0)
THICK = 4


def slabs(spacing_mm: float) -> VoxelPhantom:
    """Water, lung, bone, lung, water, air, water, titanium, water: four voxels each, an organ for each pair of voxels."""
    grid = VoxelGrid.from_spacing((THICK * len(SLABS), 12, 12), (spacing_mm,) * 3)
    index = np.repeat(np.array(SLABS, np.uint8), THICK)[:, None, None] * np.ones(grid.shape, np.uint8)
    density = np.array(DENSITY, np.float32)[index]
    density[:, :, ::3] *= 0.9  # the same material in two densities side by side
    labels = np.zeros(grid.shape, np.uint16)
    labels[:, 3:9, 3:9] = (1 + np.arange(grid.shape[0]) // 2)[:, None, None]
    organs = tuple(Organ(n, f"{MATERIALS[SLABS[(n - 1) // 2]]} {n}") for n in range(1, 2 * len(SLABS) + 1))
    return VoxelPhantom(grid, index, density, tuple(get_material(name) for name in MATERIALS), LabelMap(grid, labels, organs))


def beam(phantom: VoxelPhantom, energy_MeV: float, estimator: str, histories: int, seed: int, threads: int = 1):
    """A parallel beam of 8 x 8 voxels along the slabs."""
    spacing = phantom.grid.spacing_mm[0]
    start = phantom.grid.to_ras((5.5, 5.5, -3.0))
    ahead = phantom.grid.to_ras((5.5, 5.5, -2.0)) - start
    source = BeamSource(
        tuple(start), tuple(ahead / np.linalg.norm(ahead)), size_mm=(8 * spacing, 8 * spacing), source_distance_mm=None
    )
    settings = RunSettings(histories=histories, threads=threads, seed=seed, estimator=estimator, device="cpu")
    return simulate(phantom, source, [Emission.line("photon", energy_MeV, 1.0)], settings)


@pytest.mark.parametrize(("energy_MeV", "spacing_mm"), [(1.5, 3.0), (4.0, 5.0), (15.0, 2.0), (15.0, 6.0)])
def test_copied_tracks_give_the_dose_of_followed_electrons_at_faces(energy_MeV, spacing_mm):
    phantom = slabs(spacing_mm)
    auto = beam(phantom, energy_MeV, "auto", 60_000, seed=11)
    analog = beam(phantom, energy_MeV, "analog", 200_000, seed=12)
    pulls = [
        (one.dose_Gy - two.dose_Gy) / np.hypot(one.sigma_Gy, two.sigma_Gy)
        for one, two in zip(auto.organs, analog.organs, strict=True)
    ]
    assert np.abs(pulls).max() < 4, dict(zip([organ.organ for organ in auto.organs], pulls, strict=True))
    assert np.mean([one.sigma_Gy / one.dose_Gy for one in auto.organs]) < 0.03
    assert auto.energy_deposited_MeV + auto.energy_escaped_MeV == pytest.approx(auto.energy_emitted_MeV, rel=1e-6)


def test_copies_do_not_depend_on_the_number_of_threads():
    phantom = slabs(4.0)
    one, two = (beam(phantom, 6.0, "auto", 5_000, seed=3, threads=threads) for threads in (1, 2))
    assert np.array_equal(one.dose.dose_Gy, two.dose.dose_Gy)
    assert np.array_equal(one.dose.sigma_Gy, two.dose.sigma_Gy)
