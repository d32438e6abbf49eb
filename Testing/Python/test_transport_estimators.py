"""The estimator that is chosen beside the analog referee, where it must agree; forced where it must not hold, it fails."""

from __future__ import annotations

import numpy as np
import pytest

from SynthDoseLib.core import Emission, LabelMap, Organ, VoxelGrid, VoxelPhantom
from SynthDoseLib.physics import get_material
from SynthDoseLib.transport import OrganSource, RunSettings, locality, simulate

MATERIALS = ("soft tissue", "lung", "cortical bone", "air", "Ti")
DENSITY = (1.06, 0.26, 1.92, 0.0012, 4.5)
PARTS = ("source", "lung", "soft", "bone", "cavity", "beside metal")


def layers(spacing_mm: float) -> VoxelPhantom:
    """Soft tissue with an air cavity, lung with the source in it, bone with a titanium rod: 5 voxels each."""
    grid = VoxelGrid.from_spacing((15, 11, 11), (spacing_mm,) * 3)
    index = np.repeat(np.array([0, 1, 2], np.uint8), 5)[:, None, None] * np.ones(grid.shape, np.uint8)
    labels = np.choose(index, [3, 2, 4]).astype(np.uint16)
    index[1:3, 3:8, 3:8] = 3
    labels[1:3, 3:8, 3:8] = 5
    index[12, 5, :] = 4
    labels[12, 4, :] = labels[12, 6, :] = 6
    labels[12, 5, :] = 0
    labels[7, 5, 5] = 1
    density = np.array(DENSITY, np.float32)[index]
    organs = tuple(Organ(n, name) for n, name in enumerate(PARTS, start=1))
    return VoxelPhantom(grid, index, density, tuple(get_material(name) for name in MATERIALS), LabelMap(grid, labels, organs))


def doses(phantom, energy_MeV, estimator, histories, seed=3):
    settings = RunSettings(histories=histories, threads=1, seed=seed, estimator=estimator)
    result = simulate(phantom, OrganSource({"source": 1.0}), [Emission.line("photon", energy_MeV, 1.0)], settings)
    return {organ.organ: (organ.dose_Gy, organ.sigma_Gy) for organ in result.organs}, result


@pytest.mark.parametrize(
    ("energy_MeV", "spacing_mm"),
    [(0.03, 1.0), (0.03, 5.0), (0.14, 3.0), (0.364, 1.0), (0.364, 4.0), (0.637, 4.0), (0.662, 3.0), (1.25, 5.0), (6.0, 5.0)],
)
def test_the_estimator_agrees_with_the_analog_referee(energy_MeV, spacing_mm):
    phantom = layers(spacing_mm)
    auto, run = doses(phantom, energy_MeV, "auto", 300_000)
    analog, _ = doses(phantom, energy_MeV, "analog", 600_000, seed=4)
    for part in PARTS:
        (one, error_one), (two, error_two) = auto[part], analog[part]
        # 1 %: what the rule of locality allows (see `locality`)
        assert abs(one - two) < 4 * np.hypot(error_one, error_two) + 0.01 * two, part
    balance = run.energy_deposited_MeV + run.energy_escaped_MeV
    assert balance == pytest.approx(run.energy_emitted_MeV, rel=1e-6)


def test_tracks_scored_where_electrons_are_not_local_are_far_off(monkeypatch):
    """Lung beside a source of 0.5 MeV: the collision kerma there is tens of percent above the dose."""
    phantom = layers(3.0)
    referee, _ = doses(phantom, 0.5, "analog", 200_000)
    chosen, _ = doses(phantom, 0.5, "auto", 200_000)
    near = referee["source"][0]
    assert chosen["source"][0] == pytest.approx(near, abs=4 * np.hypot(referee["source"][1], chosen["source"][1]))
    monkeypatch.setattr(locality, "SHARE", 1e6)
    monkeypatch.setattr(locality, "SHARE_AT_SOURCE", 1e6)
    forced, _ = doses(phantom, 0.5, "auto", 200_000)
    assert forced["source"][0] > 1.2 * near


def test_two_organs_in_water_give_each_other_the_same_absorbed_fraction():
    """Reciprocity in a uniform medium: dose to A per decay in B equals dose to B per decay in A (MIRD pamphlet 12 revised)."""
    grid = VoxelGrid.from_spacing((40, 40, 40), (10.0, 10.0, 10.0))
    labels = np.zeros(grid.shape, np.uint16)
    labels[16:20, 16:22, 14:18] = 1
    labels[22:24, 18:20, 23:26] = 2
    organs = (Organ(1, "one"), Organ(2, "two"))
    phantom = VoxelPhantom(
        grid, np.zeros(grid.shape, np.uint8), np.ones(grid.shape, np.float32), (get_material("water"),),
        LabelMap(grid, labels, organs),
    )  # fmt: skip
    for energy_MeV in (0.06, 0.364):
        found = {}
        for source, target in (("one", "two"), ("two", "one")):
            settings = RunSettings(histories=600_000, threads=1, seed=7)
            result = simulate(phantom, OrganSource({source: 1.0}), [Emission.line("photon", energy_MeV, 1.0)], settings)
            found[source] = next((o.dose_Gy, o.sigma_Gy) for o in result.organs if o.organ == target)
        (one, error_one), (two, error_two) = found.values()
        assert abs(one - two) < 4 * np.hypot(error_one, error_two)
        assert error_one < 0.03 * one
