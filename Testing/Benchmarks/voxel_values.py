"""Voxel S values beside PenRed, EGSnrc and published tables; sphere dose factors."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations_with_replacement, permutations

import numpy as np

from SynthDoseLib.core import LabelMap, Material, Organ, VoxelGrid, VoxelPhantom
from SynthDoseLib.physics import decay_emissions, get_material
from SynthDoseLib.pipeline.case import read_case
from SynthDoseLib.transport import OrganSource, SimulationResult

from .comparison import Comparison, compare
from .precision import Effort, precise_run
from .reference_cases import REFERENCE

S_VALUES = "c_Svalue_3mm_Y-90_beta"
PUBLISHED = REFERENCE / "published"
REACH = 5  # voxels
NOISY = 0.05  # relative standard error of a reference above which it is not judged
# Densities: what the sum of the published values over all voxels says. Compact (ICRU) bone has the same as cortical (ICRP)
# bone; its S values are within 0.3 % (self) and 2 % (edge and corner neighbours).
LANCONELLI = {"soft": ("soft_tissue_icru_four_component", 1.04), "bone": ("bone_cortical_icrp", 1.85)}
LANCONELLI_CASES = (
    ("Y-90", 3.0, "soft"), ("Y-90", 4.8, "soft"), ("Y-90", 3.0, "bone"), ("Sr-89", 2.21, "soft"), ("Sr-89", 3.0, "soft"),
    ("Sr-89", 3.0, "bone"),
)  # fmt: skip
SHOWN_SHARE, JUDGED_SHARE = 1e-3, 1e-2  # of the self value
MIRD17_NUCLIDES = ("Y-90", "Sr-89", "I-131", "Tc-99m")


def voxel_phantom(material: Material, voxel_mm: float, size: int = 41) -> VoxelPhantom:
    """A cube with an organ "Sijk" for every offset from its middle, up to the symmetry of the cube."""
    grid = VoxelGrid.from_spacing((size,) * 3, (voxel_mm,) * 3)
    offset = np.sort(np.abs(np.indices(grid.shape) - size // 2), axis=0)[::-1]
    labels = np.where(offset[0] <= REACH, 1 + offset[0] * 36 + offset[1] * 6 + offset[2], 0).astype(np.uint16)
    organs = tuple(
        Organ(1 + i * 36 + j * 6 + k, f"S{i}{j}{k}") for k, j, i in combinations_with_replacement(range(REACH + 1), 3)
    )
    density = np.full(grid.shape, material.density_g_cm3, np.float32)
    return VoxelPhantom(grid, np.zeros(grid.shape, np.uint8), density, (material,), LabelMap(grid, labels, organs))


def tolerance_at(place: Sequence[int]) -> float:
    """Issue 3: self 1 %, the 26 neighbours 2 %, beyond 5 %."""
    return {0: 0.01, 1: 0.02}.get(max(place), 0.05)


def compare_s_values(effort: Effort) -> list[Comparison]:
    """Y-90 in 3 mm voxels beside PenRed, for all offsets up to five voxels that it knows well enough."""
    data, second = np.load(REFERENCE / f"{S_VALUES}.npz"), np.load(REFERENCE / f"{S_VALUES}_EGSnrc.npz")
    case = read_case(REFERENCE / "cases" / "c_Svalue_3mm_Y-90_soft" / "CASE.toml")
    phantom = voxel_phantom(case.phantom.materials[0], case.phantom.grid.spacing_mm[0])
    phantom = replace(
        phantom, grid=case.phantom.grid, labels=LabelMap(case.phantom.grid, phantom.labels.labels, phantom.labels.organs)
    )
    wanted = {}
    for organ in phantom.labels.organs:
        place = _place(organ.name)
        if 0 < data["sigma"][place] < NOISY * data["S"][place]:
            wanted[organ.name] = tolerance_at(place)
    result = precise_run(phantom, case.source, case.emissions, wanted, effort, seed=51)
    rows = []
    for name, tolerance in wanted.items():
        place, own = _place(name), _s_value(result, name)
        other = (float(second["S"][place]), float(second["sigma"][place]))
        reference = float(data["S"][place]), float(data["sigma"][place])
        rows.append(
            compare(S_VALUES, name, own, reference, tolerance, share=effort.share, second=other if other[0] > 0 else None)
        )
    return rows


def compare_lanconelli(effort: Effort) -> list[Comparison]:
    """Published voxel S values (DOSXYZnrc) with the project's decay data and tissues.

    Lanconelli et al., Phys. Med. Biol. 57 (2012) 517-533. Three digits are printed, no errors: those of rounding are taken.
    Tolerances: self 1 %, face neighbours 2 %, beyond 5 %. Values under 1 % of the self value come from the upper end of the
    spectrum, which is another edition than ours, and are shown only. So is the self value over the sum of all values, which
    knows nothing of the energy per decay and of the density: for Y-90 the published values add up to 0.4 to 0.6 % more energy
    than ICRP-107's betas leave in the tissue, which is half of what the self values differ by. PenRed's self value for Y-90 in
    this bone (3 mm, kept in ``electron_facts.json``) is 1.1 (0.3) % below the published one as well. Deviations come close to
    the tolerance, and the histories are few: twenty times those that it asks for are followed.
    """
    effort = replace(effort, share=20 * effort.share)
    rows = []
    for nuclide, voxel_mm, medium in LANCONELLI_CASES:
        name, density = LANCONELLI[medium]
        material = replace(get_material(name), density_g_cm3=density)
        values = _lanconelli(nuclide, voxel_mm, medium)
        within = [place for place, value in values.items() if value > SHOWN_SHARE * values[0, 0, 0]]
        wanted = {_name(place): {0: 0.01, 1: 0.02}.get(sum(place), 0.05) for place in within}
        phantom = voxel_phantom(material, voxel_mm)
        judged = {name: wanted[name] for name in wanted if values[_place(name)] > JUDGED_SHARE * values[0, 0, 0]}
        result = precise_run(phantom, OrganSource({"S000": 1.0}), decay_emissions(nuclide), judged, effort, seed=61)
        for organ, tolerance in wanted.items():
            value = values[_place(organ)]
            rounding = 0.29 * 10 ** (np.floor(np.log10(value)) - 2)
            title = f"{nuclide} {voxel_mm:g} mm {medium}"
            own = _s_value(result, organ)
            rows.append(compare(title, organ, own, (value, rounding), tolerance, judged=organ in judged, share=effort.share))
        sums = [sum(_count(place) * number for place, number in table.items()) for table in (
            {place: _s_value(result, _name(place))[0] for place in values}, values)]  # fmt: skip
        self_value, error = _s_value(result, "S000")
        part = (values[0, 0, 0] / sums[1], 0.0)
        rows.append(compare(title, "S000 over the sum", (self_value / sums[0], error / sums[0]), part, 0.01, judged=False))
    return rows


def compare_mird17(effort: Effort) -> list[Comparison]:
    """MIRD pamphlet 17 (EGS4), for orientation: older decay data, voxels of 3 and 6 mm."""
    rows = []
    for entry in _entries("mird17_voxel_svalues_subset.csv"):
        place = int(entry["i"]), int(entry["j"]), int(entry["k"])
        if entry["nuclide"] not in MIRD17_NUCLIDES or max(place) > 0:
            continue
        phantom = voxel_phantom(get_material("soft_tissue"), float(entry["voxel_mm"]), size=13)
        wanted = {_name(place): 0.01}
        result = precise_run(phantom, OrganSource({"S000": 1.0}), decay_emissions(entry["nuclide"]), wanted, effort, seed=71)
        value = float(entry["S_mGy_per_MBq_s"])
        title = f"{entry['nuclide']} {entry['voxel_mm']} mm"
        rows.append(compare(title, _name(place), _s_value(result, _name(place)), (value, 0.0), 0.05, judged=False))
    return rows


def compare_spheres(effort: Effort) -> list[Comparison]:
    """Self dose of unit-density spheres with Tb-152 beside OLINDA 2 and Geant4, for orientation: they differ by 2 to 11 %."""
    emissions = tuple(emission for emission in decay_emissions("Tb-152") if emission.particle != "alpha")
    rows = []
    for entry in _entries("sphere_dose_factors.csv"):
        radius_cm = (3 * float(entry["mass_g"]) / (4 * np.pi)) ** (1 / 3)
        phantom = _sphere(radius_cm, get_material("soft_tissue"))
        result = precise_run(phantom, OrganSource({"sphere": 1.0}), emissions, {"sphere": 0.01}, effort, seed=81)
        organ = result.organs[0]
        own = np.array([organ.dose_Gy, organ.sigma_Gy]) * 1e9 * 3600 * organ.mass_g / float(entry["mass_g"])
        title = f"Tb-152 {entry['mass_g']} g"
        rows.append(
            compare(title, entry["method"], (own[0], own[1]), (float(entry["DF_mGy_per_MBq_h"]), 0.0), 0.05, judged=False)
        )
    return rows


def _sphere(radius_cm: float, material: Material, voxels_per_radius: int = 10) -> VoxelPhantom:
    size = 4 * voxels_per_radius + 1
    grid = VoxelGrid.from_spacing((size,) * 3, (10 * radius_cm / voxels_per_radius,) * 3)
    squares = (np.arange(size) - size // 2) ** 2
    inside = squares[:, None, None] + squares[None, :, None] + squares[None, None, :] <= voxels_per_radius**2
    labels = LabelMap(grid, inside.astype(np.uint16), (Organ(1, "sphere"),))
    return VoxelPhantom(grid, np.zeros(grid.shape, np.uint8), np.ones(grid.shape, np.float32), (material,), labels)


def _name(place: Sequence[int]) -> str:
    return "S" + "".join(str(n) for n in sorted(place, reverse=True))


def _count(place: Sequence[int]) -> int:
    """Voxels at an offset, up to the symmetry of the cube."""
    return len(set(permutations(place))) * int(2 ** np.count_nonzero(place))


def _place(name: str) -> tuple[int, int, int]:
    return int(name[1]), int(name[2]), int(name[3])


def _s_value(result: SimulationResult, name: str) -> tuple[float, float]:
    """S value and its standard error, mGy / (MBq s), which is 1e-9 Gy per decay."""
    organ = next(organ for organ in result.organs if organ.organ == name)
    return 1e9 * organ.dose_Gy, 1e9 * organ.sigma_Gy


def _entries(file: str) -> list[dict[str, str]]:
    with (PUBLISHED / file).open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(line for line in stream if not line.startswith("#")))


def _lanconelli(nuclide: str, voxel_mm: float, medium: str) -> dict[tuple[int, ...], float]:
    """S values by offset, the largest index first."""
    key = nuclide, voxel_mm, medium
    return {
        tuple(sorted((int(row[n]) for n in "ijk"), reverse=True)): float(row["S_mGy_per_MBq_s"])
        for row in _entries("voxel_svalues_lanconelli2012.csv")
        if (row["nuclide"], float(row["voxel_mm"]), row["medium"]) == key
    }
