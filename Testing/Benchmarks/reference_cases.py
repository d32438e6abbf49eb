"""Comparing the engine with the reference cases of ../shared/reference (PenRed; see the README there)."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from SynthDoseLib.core import Emission, LabelMap, Material, Organ, VoxelGrid, VoxelPhantom
from SynthDoseLib.pipeline.case import read_case
from SynthDoseLib.transport import PointSource, RunSettings, SimulationResult, simulate

SHARED = Path(__file__).resolve().parents[3] / "shared"
REFERENCE = SHARED / "reference"
CASES = (
    "a_electron_1MeV_voxels", "b_photon_0.662MeV_voxels", "c_Svalue_3mm_Y-90_soft", "d_slabs_electron_2MeV",
    "d_slabs_gamma_0.5MeV", "e_6MV_10x10_slabs", "f_patient_Lu-177_kidneys",
)  # fmt: skip
S_VALUES = "c_Svalue_3mm_Y-90_beta"
PHOTON_KERNELS = ("b_photon_kernel_0.14MeV", "b_photon_kernel_0.662MeV")


@dataclass(frozen=True)
class Comparison:
    """One quantity beside its reference.

    Attributes
    ----------
    case, quantity : str
    ratio : float
        Ours over the reference.
    sigma, own_sigma : float
        Relative standard error of the ratio, and of ours alone.
    tolerance : float
        What the reference says two good codes may differ by.
    judged : bool
        False where the reference calls itself too noisy.
    """

    case: str
    quantity: str
    ratio: float
    sigma: float
    own_sigma: float
    tolerance: float
    judged: bool = True

    @property
    def passes(self) -> bool:
        """Within the tolerance, or within three standard errors."""
        return abs(self.ratio - 1) <= max(self.tolerance, 3 * self.sigma)


def compare_case(
    name: str, *, share: float = 1.0, threads: int = 0, estimator: str = "auto"
) -> tuple[list[Comparison], SimulationResult]:
    """Run a case file with `share` of its histories and compare every organ."""
    folder = REFERENCE / "cases" / name
    case = read_case(folder / "CASE.toml")
    histories = int(share * (case.settings.histories or 0))
    settings = replace(case.settings, histories=histories, threads=threads, estimator=estimator)
    result = simulate(case.phantom, case.source, case.emissions, settings)
    organs = {organ.organ: organ for organ in result.organs}
    rows = []
    for quantity in json.loads((folder / "expected.json").read_text(encoding="utf-8"))["quantities"]:
        own = organs[quantity["organ"]]
        judged = quantity["judged"]
        row = _compare(
            name, quantity["organ"], own.dose_Gy, own.sigma_Gy, quantity["dose_Gy"], quantity["sigma_Gy"], quantity["tolerance"]
        )
        rows.append(replace(row, judged=judged))
    return rows, result


def compare_s_values(*, share: float = 1.0, threads: int = 0) -> list[Comparison]:
    """Voxel S values of Y-90 in 3 mm voxels for all offsets up to five voxels, averaged over the symmetry of the cube."""
    data = np.load(REFERENCE / f"{S_VALUES}.npz")
    case = read_case(REFERENCE / "cases" / "c_Svalue_3mm_Y-90_soft" / "CASE.toml")
    offset = np.sort(np.abs(np.indices(case.phantom.grid.shape) - 20), axis=0)[::-1]
    labels = np.where(offset[0] <= 5, 1 + offset[0] * 36 + offset[1] * 6 + offset[2], 0).astype(np.uint16)
    organs = tuple(Organ(int(n), f"S{(n - 1) // 36}{(n - 1) // 6 % 6}{(n - 1) % 6}") for n in np.unique(labels) if n)
    phantom = replace(case.phantom, labels=LabelMap(case.phantom.grid, labels, organs))
    settings = RunSettings(histories=int(share * 2_000_000), seed=11, threads=threads, organs=("S000",))
    result = simulate(phantom, case.source, case.emissions, settings)
    rows = []
    for organ in result.organs:
        place = tuple(int(digit) for digit in organ.organ[1:])
        value, error = float(data["S"][place]), float(data["sigma"][place])  # mGy / (MBq s) is 1e-9 Gy per decay
        if value > 0 and error < 0.05 * value:
            tolerance = {0: 0.01, 1: 0.02}.get(sum(place), 0.05)
            rows.append(_compare(S_VALUES, organ.organ, organ.dose_Gy, organ.sigma_Gy, 1e-9 * value, 1e-9 * error, tolerance))
    return rows


def compare_photon_kernel(name: str, *, share: float = 1.0, threads: int = 0, spacing_mm: float = 5.0) -> list[Comparison]:
    """Energy in shells of voxels 2 cm thick around a point in water, up to 20 cm.

    The reference is given for ideal spheres; its density is integrated over the voxels of every shell.
    """
    data = np.load(REFERENCE / f"{name}.npz")
    edges = data["edges_cm"]
    energy_MeV = float(name.split("_")[-1].removesuffix("MeV"))
    size = 2 * int(np.ceil(350 / spacing_mm)) + 1
    grid = VoxelGrid.from_spacing((size,) * 3, (spacing_mm,) * 3)
    axis = (np.arange(size) - size // 2) * spacing_mm / 10
    distance = np.sqrt(axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2)
    labels = np.where(distance < 20, 1 + distance // 2, 0).astype(np.uint16)
    organs = tuple(Organ(n, f"{2 * n - 2} to {2 * n} cm") for n in range(1, 11))
    water = Material("water", 1.0, {"H": 0.111894, "O": 0.888106})
    phantom = VoxelPhantom(
        grid, np.zeros(grid.shape, np.uint8), np.ones(grid.shape, np.float32), (water,), LabelMap(grid, labels, organs)
    )
    settings = RunSettings(histories=int(share * 1_000_000), seed=12, threads=threads)
    result = simulate(phantom, PointSource((0.0, 0.0, 0.0)), [Emission.line("photon", energy_MeV, 1.0)], settings)
    middles = (edges[1:] + edges[:-1]) / 2
    per_cm = data["frac"] / np.diff(edges)
    rows = []
    for organ in result.organs[1:]:  # the first one holds the singularity
        label = phantom.labels.organ(organ.organ).index
        inside = np.argwhere(labels == label)[:, ::-1] - size // 2
        share_of_energy = 0.0
        parts = (np.arange(5) - 2) / 5
        for shift in np.stack(np.meshgrid(parts, parts, parts), axis=-1).reshape(-1, 3):
            radius = np.linalg.norm((inside + shift) * spacing_mm / 10, axis=1)
            share_of_energy += (np.interp(radius, middles, per_cm) / (4 * np.pi * radius**2)).sum()
        value = share_of_energy * (spacing_mm / 10) ** 3 / 125 * energy_MeV * 1.602176634e-10 / organ.mass_g
        bins = (middles > 2 * label - 2) & (middles < 2 * label)
        error = np.sqrt((data["sigma"][bins] ** 2).sum()) / data["frac"][bins].sum()
        rows.append(_compare(name, organ.organ, organ.dose_Gy, organ.sigma_Gy, value, error * value, 0.02))
    return rows


def _compare(
    case: str, quantity: str, own: float, own_error: float, value: float, error: float, tolerance: float
) -> Comparison:
    relative = own_error / own if own > 0 else np.inf
    return Comparison(case, quantity, own / value, float(np.hypot(relative, error / value)), relative, tolerance)
