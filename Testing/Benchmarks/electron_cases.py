"""Electrons, positrons and photons beside values of PenRed kept as facts: kernels, voxels and slabs of several tissues.

``electron_facts.json`` says how they were made. Materials get PenRed's mean excitation energies, so that the physics is
compared. One difference is left: PenRed takes the outermost electrons of adipose tissue and bone for conduction electrons,
whose density effect makes its ranges 0.4 to 0.8 % longer there (in water and lung the CSDA ranges are equal to 0.03 %). With
its stopping power for bone the engine's self value of Re-188 in 1 mm goes from +0.65 (0.16) to +0.21 (0.15) %.
Photons below 0.1 MeV may differ by 3 %: PENELOPE's photoelectric cross sections are 2 to 2.5 % below those of XCOM.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from SynthDoseLib.core import Emission, LabelMap, Material, Organ, VoxelGrid, VoxelPhantom
from SynthDoseLib.physics import decay_emissions, get_material
from SynthDoseLib.transport import BeamSource, OrganSource, PointSource, RunSettings, simulate
from SynthDoseLib.transport.sources import Source

from .comparison import Comparison, compare
from .point_kernels import GRAY_GRAM_IN_MEV, radius_errors, radius_of
from .precision import Effort, precise_run
from .shells import shell_labels
from .voxel_values import tolerance_at

FACTS = Path(__file__).with_name("electron_facts.json")
REACH = 1.3  # CSDA ranges that a kernel's shells cover
VOXELS_PER_RANGE = 40
WIDE_MM = 200_000.0  # slabs: what leaves sideways is 0.1 % of what photons of 1 MeV deposit
SOFT_PHOTONS_MEV, SOFT_PHOTON_TOLERANCE = 0.1, 0.03
SEEDS = 10
Row = Mapping[str, Any]


@cache
def electron_facts() -> dict[str, Any]:
    """What PenRed said."""
    return dict(json.loads(FACTS.read_text(encoding="utf-8")))


def fact_material(name: str) -> Material:
    """A material with the density and mean excitation energy that PenRed gave it."""
    given = electron_facts()["materials"][name]
    return replace(
        get_material(given["name"]), density_g_cm3=given["density_g_cm3"], mean_excitation_eV=given["mean_excitation_eV"]
    )


def compare_electron_facts(effort: Effort) -> list[Comparison]:
    """All of them."""
    facts = electron_facts()
    return [
        *(row for kernel in facts["kernels"] for row in compare_kernel(kernel, effort)),
        *(row for voxels in facts["voxels"] for row in compare_voxels(voxels, effort)),
        *(row for slabs in facts["slabs"] for row in compare_slabs(slabs, effort)),
    ]


def compare_kernel(fact: Row, effort: Effort) -> list[Comparison]:
    """Radii of 50 % and 90 % of the energy, 1 %."""
    edges = np.arange(round(REACH * VOXELS_PER_RANGE) + 1) * fact["voxel_cm"]
    labels, _ = shell_labels(2 * edges.size + 1, fact["voxel_cm"], edges, np.inf)
    organs = tuple(Organ(n, str(n)) for n in range(1, edges.size))
    phantom = _phantom(labels, (10 * fact["voxel_cm"],) * 3, (fact_material(fact["material"]),), organs)
    emission = Emission.line(fact.get("particle", "electron"), fact["energy_MeV"], 1.0)
    radii = []
    for seed in range(SEEDS):
        histories = max(200, int(10_000 * effort.share * max(1.0, fact["energy_MeV"] ** 0.2)))
        settings = RunSettings(histories=histories, seed=91 + seed, threads=effort.threads, estimator="analog")
        result = simulate(phantom, PointSource((0.0, 0.0, 0.0)), [emission], settings)
        energy = np.array([organ.dose_Gy * organ.mass_g for organ in result.organs])
        radii.append([radius_of(energy, edges, part) for part in (0.5, 0.9)])
    mean, (own_error, error) = np.mean(radii, axis=0), radius_errors(np.array(radii), histories, fact["histories"])
    title = f"{_line_name(fact)} in {fact['material']}"
    return [
        compare(title, f"R{name}", (mean[n], own_error[n]), (fact[f"R{name}_cm"], error[n]), 0.01, share=effort.share)
        for n, name in enumerate(("50", "90"))
    ]


def compare_voxels(fact: Row, effort: Effort) -> list[Comparison]:
    """Voxel S values: self 1 %, neighbours 2 %, beyond 5 %."""
    size = 15
    offset = np.sort(np.abs(np.indices((size,) * 3) - size // 2), axis=0)[::-1]
    labels = np.zeros((size,) * 3, np.uint16)
    tolerances = {}
    for n, name in enumerate(fact["mGy_per_MBq_s"], start=1):
        place = [int(digit) for digit in name[1:]]
        labels[np.all(offset == np.reshape(place, (3, 1, 1, 1)), axis=0)] = n
        tolerances[name] = max(tolerance_at(place), _tolerance(fact, 0.0))
    organs = tuple(Organ(n, name) for n, name in enumerate(tolerances, start=1))
    phantom = _phantom(labels, (fact["voxel_mm"],) * 3, (fact_material(fact["material"]),), organs)
    if "nuclide" in fact:
        (emission,) = (e for e in decay_emissions(fact["nuclide"]) if e.label == fact["emission"])
        emission, what = replace(emission, yield_per_decay=1.0), f"{fact['nuclide']} {fact['emission']}"
    else:
        emission, what = Emission.line(fact["particle"], fact["energy_MeV"], 1.0), _line_name(fact)
    result = precise_run(phantom, OrganSource({"S000": 1.0}), [emission], tolerances, effort, seed=92)
    own = {organ.organ: (1e9 * organ.dose_Gy, 1e9 * organ.sigma_Gy) for organ in result.organs}
    title = f"{what} {fact['voxel_mm']:g} mm {fact['material']}"
    return [
        compare(title, name, own[name], tuple(value), tolerances[name], share=effort.share)
        for name, value in fact["mGy_per_MBq_s"].items()
    ]


def compare_slabs(fact: Row, effort: Effort) -> list[Comparison]:
    """Energy in the layers of slabs, vacuum outside: 1.5 %. The source is even in one, or a beam onto the first."""
    kinds = list(dict.fromkeys(name for name, _ in fact["layers"]))
    index = np.repeat([kinds.index(name) for name, _ in fact["layers"]], [count for _, count in fact["layers"]])
    regions = {f"layers {low} to {high - 1}": (low, high) for (low, high), _, _ in fact["shares"]}
    labels = np.zeros((index.size, 1, 1), np.uint16)
    for n, (low, high) in enumerate(regions.values(), start=1):
        labels[low:high] = n
    is_beam = fact.get("beam", False)
    if not is_beam:
        labels[fact["source"]] = 1  # the first region is the source
    organs = tuple(Organ(n, name) for n, name in enumerate(regions, start=1))
    phantom = _phantom(
        labels, (WIDE_MM, WIDE_MM, 10 * fact["thickness_cm"]), tuple(fact_material(name) for name in kinds), organs, index
    )
    emission = Emission.line(fact.get("particle", "electron"), fact["energy_MeV"], 1.0)
    source = _beam(phantom.grid) if is_beam else OrganSource({organs[0].name: 1.0})
    tolerance = _tolerance(fact, 0.015)
    result = precise_run(phantom, source, [emission], dict.fromkeys(regions, tolerance), effort, seed=93, most=1_000_000)
    scale = GRAY_GRAM_IN_MEV / fact["energy_MeV"]
    title = f"{_line_name(fact)}{', beam' * is_beam}, {' | '.join(name for name, _ in fact['layers'])}"
    return [
        compare(title, organ.organ, (scale * organ.mass_g * organ.dose_Gy, scale * organ.mass_g * organ.sigma_Gy),
                (value, error), tolerance, share=effort.share)
        for organ, (_, value, error) in zip(result.organs, fact["shares"], strict=True)
    ]  # fmt: skip


def _beam(grid: VoxelGrid) -> Source:
    """A pencil along k onto the middle of the first slab."""
    start, end = (grid.to_ras((0.0, 0.0, k)) for k in (-0.5, 0.5))
    x, y, z = (float(value) for value in start)
    u, v, w = (float(value) for value in end - start)
    return BeamSource((x, y, z), (u, v, w), (1.0, 1.0))


def _line_name(fact: Row) -> str:
    """Energy and particle, electrons unnamed."""
    particle = fact.get("particle", "electron")
    return f"{fact['energy_MeV']:g} MeV" + (f" {particle}s" if particle != "electron" else "")


def _tolerance(fact: Row, usual: float) -> float:
    """Wider for soft photons."""
    is_soft = fact.get("particle") == "photon" and fact["energy_MeV"] < SOFT_PHOTONS_MEV
    return SOFT_PHOTON_TOLERANCE if is_soft else usual


def _phantom(
    labels: np.ndarray, spacing_mm: tuple[float, float, float], materials: tuple[Material, ...], organs: tuple[Organ, ...],
    index: np.ndarray | None = None,
) -> VoxelPhantom:  # fmt: skip
    grid = VoxelGrid.from_spacing(labels.shape, spacing_mm)
    places = np.zeros(grid.shape, np.uint8) if index is None else index.astype(np.uint8).reshape(grid.shape)
    densities = np.array([material.density_g_cm3 for material in materials], np.float32)[places]
    return VoxelPhantom(grid, places, densities, materials, LabelMap(grid, labels, organs))
