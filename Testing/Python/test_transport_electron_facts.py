"""Some of the kept values of PenRed (`Testing/Benchmarks/electron_facts.json`) with fewer histories than `make validate`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from Testing.Benchmarks.electron_cases import compare_kernel, compare_slabs, compare_voxels, electron_facts
from Testing.Benchmarks.precision import Effort

EFFORT = Effort(share=0.5, threads=1, estimator="analog")


def chosen(kind, **wanted):
    found = [fact for fact in electron_facts()[kind] if all(fact.get(key) == value for key, value in wanted.items())]
    assert found
    return found


@pytest.mark.parametrize(
    ("material", "energy"), [("water", 0.05), ("lung", 0.1), ("bone", 0.3), ("lung", 3.0), ("water_icru90", 10.0)]
)
def test_radii_of_half_and_of_nine_tenths_of_the_energy_are_those_of_penred(material, energy):
    for fact in chosen("kernels", material=material, energy_MeV=energy):
        for row in compare_kernel(fact, EFFORT):
            assert row.agrees, row


@pytest.mark.parametrize(
    ("nuclide", "material", "voxel_mm"),
    [("Re-188", "lung_0.28", 3), ("Sm-153", "bone", 1), ("I-131", "soft", 1), ("F-18", "lung_0.28", 2), ("Ga-68", "soft", 3)],
)
def test_voxel_s_values_are_those_of_penred(nuclide, material, voxel_mm):
    for fact in chosen("voxels", nuclide=nuclide, material=material, voxel_mm=voxel_mm):
        for row in compare_voxels(fact, EFFORT):
            assert row.agrees, row


@pytest.mark.parametrize(
    ("first", "then", "energy"), [("soft", "air", 0.5), ("bone", "lung", 0.5), ("lung", "bone", 2.0), ("soft", "lung", 2.0)]
)
def test_energy_behind_and_before_interfaces_is_that_of_penred(first, then, energy):
    facts = [fact for fact in chosen("slabs", energy_MeV=energy) if [name for name, _ in fact["layers"]][:2] == [first, then]]
    assert facts
    for fact in facts:
        for row in compare_slabs(fact, EFFORT):
            assert row.agrees, row
