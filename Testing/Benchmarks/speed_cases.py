"""The cases of the speed table of issue 3."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from SynthDoseLib.core import Emission, LabelMap, Material, VoxelGrid, VoxelPhantom, organ_table
from SynthDoseLib.physics import decay_emissions, get_material
from SynthDoseLib.pipeline.case import Case
from SynthDoseLib.transport import OrganSource

from .efficiency import Contest, with_emissions
from .peer import BEAM_SETTINGS, FAST_BEAM_SETTINGS, FAST_SETTINGS, REFERENCE_SETTINGS, PeerSettings
from .reference_cases import load_case

DISTANT = ("lungs", "liver", "spleen", "spine")
LOWEST_GAMMA_MEV = 0.05
IMPLANT_VOXELS, IMPLANT_SPACING_MM = 3, 4.0  # 12 mm


@dataclass(frozen=True, eq=False)
class Row:
    """A row of the table: what to run and what is asked for.

    Attributes
    ----------
    least, aim : float
        Ratios against the settings of the references.
    fast_least : float or None
        Ratio against the fast settings.
    judged : str
        "all", or "voxels" where the means of organs are shown beside.
    """

    contest: Contest
    least: float
    aim: float
    fast_least: float | None = None
    judged: str = "all"
    settings: PeerSettings = REFERENCE_SETTINGS
    fast: PeerSettings = FAST_SETTINGS


def rows() -> list[Row]:
    """All rows that compare with PenRed."""
    patient = load_case("f_patient_Lu-177_kidneys")
    beta, *gammas = patient.emissions
    voxels = load_case("c_Svalue_3mm_Y-90_soft")
    slabs = with_emissions(load_case("d_slabs_gamma_0.5MeV"), [Emission.line("photon", 0.14, 1.0)])
    beam = load_case("e_6MV_10x10_slabs")
    boxes = tuple(organ.name for organ in slabs.phantom.labels.organs)
    regions = tuple(organ.name for organ in beam.phantom.labels.organs if "beside" not in organ.name)
    both = (((beta,), 20_000.0), (tuple(gammas), 25_000.0))
    kidneys = ("kidneys",)
    s_values = ("S000", "S100", "S110", "S111", "S200")
    y90, gamma = ((tuple(case.emissions), rate) for case, rate in ((voxels, 6000.0), (slabs, 45_000.0)))
    result = [
        Row(Contest("Lu-177 in the kidneys, beta and gamma", patient, 1_500_000, kidneys, kidneys, both), 40, 120, 12),
        Row(Contest("Y-90 S values, 3 mm", voxels, 400_000, s_values, (), (y90,)), 15, 50, 5),
        Row(Contest("140 keV photons in slabs, analog", slabs, 800_000, boxes, boxes, (gamma,), "analog"), 25, 60, 5),
    ]
    for nuclide in ("Lu-177", "Tc-99m", "I-131"):
        found = gamma_lines(nuclide)
        contest = Contest(
            f"photon cross-dose to distant organs, {nuclide}", with_emissions(patient, found), 800_000, DISTANT, DISTANT,
            ((found, 20_000.0),),
        )  # fmt: skip
        result.append(Row(contest, 300, 2000, judged="voxels"))
    contest = Contest("6 MV on slabs", beam, 400_000, regions, regions, ((tuple(beam.emissions), 45_000.0),))
    return [*result, Row(contest, 10, 30, settings=BEAM_SETTINGS, fast=FAST_BEAM_SETTINGS)]


def gamma_lines(nuclide: str) -> tuple[Emission, ...]:
    """Gammas of a nuclide above 50 keV, each line an emission of its own."""
    (gamma,) = (emission for emission in decay_emissions(nuclide) if emission.label == "gamma")
    lines = []
    for low, high, share in zip(gamma.edges_MeV, gamma.edges_MeV[1:], gamma.probability, strict=False):
        if share > 0 and low >= LOWEST_GAMMA_MEV:
            energy_MeV = float(low + high) / 2
            lines.append(
                Emission.line("photon", energy_MeV, float(share) * gamma.yield_per_decay, f"{1000 * energy_MeV:.0f} keV")
            )
    return tuple(lines)


def beam_with_cube(material: Material | None) -> Case:
    """The reference beam on its slabs in voxels of 4 mm, with a cube of 12 mm in the water in front, or without."""
    case = load_case("e_6MV_10x10_slabs")
    coarse = case.phantom
    size = round(coarse.grid.shape[0] * coarse.grid.spacing_mm[0] / IMPLANT_SPACING_MM)
    grid = VoxelGrid.from_spacing(
        (size,) * 3, (IMPLANT_SPACING_MM,) * 3, directions=coarse.grid.directions, origin_ras_mm=_corner(coarse)
    )
    index = ((np.arange(size) + 0.5) * IMPLANT_SPACING_MM / coarse.grid.spacing_mm[0]).astype(int)
    kinds = coarse.material_index[np.ix_(index, index, index)].copy()
    density = coarse.density_g_cm3[np.ix_(index, index, index)].copy()
    labels = np.zeros(grid.shape, np.uint16)
    labels[size // 2 :] = 1
    middle = slice(size // 2 - 1, size // 2 - 1 + IMPLANT_VOXELS)
    materials = coarse.materials
    if material is not None:
        cube = (slice(5, 5 + IMPLANT_VOXELS), middle, middle)
        kinds[cube], density[cube] = len(materials), material.density_g_cm3
        materials = (*materials, material)
    phantom = VoxelPhantom(grid, kinds, density, materials, LabelMap(grid, labels, organ_table(["behind"])))
    return replace(case, phantom=phantom)


def _corner(phantom: VoxelPhantom) -> tuple[float, float, float]:
    """Centre of the first voxel of 4 mm in the corner of a phantom, RAS."""
    ras = phantom.grid.to_ras((IMPLANT_SPACING_MM / phantom.grid.spacing_mm[0] / 2 - 0.5,) * 3)
    return float(ras[0]), float(ras[1]), float(ras[2])


def titanium() -> Material:
    """Pure."""
    return get_material("titanium")


def resampled_patient(shape: tuple[int, int, int]) -> Case:
    """The patient phantom of the references in other voxels."""
    case = load_case("f_patient_Lu-177_kidneys")
    coarse = case.phantom
    index = np.ix_(*[((np.arange(n) + 0.5) * old / n).astype(int) for n, old in zip(shape, coarse.grid.shape, strict=True)])
    spacing = [old * mm / n for n, old, mm in zip(shape, coarse.grid.shape, coarse.grid.spacing_mm[::-1], strict=True)]
    grid = VoxelGrid.from_spacing(shape, (spacing[2], spacing[1], spacing[0]))
    labels = LabelMap(grid, coarse.labels.labels[index], coarse.labels.organs)
    phantom = VoxelPhantom(grid, coarse.material_index[index], coarse.density_g_cm3[index], coarse.materials, labels)
    return replace(case, phantom=phantom, source=OrganSource({"kidneys": 1.0}))
