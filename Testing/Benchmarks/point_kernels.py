"""Energy around points in water beside PenRed and EGSnrc: shells and integrals for photons, R50 and R90 for electrons."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from SynthDoseLib.core import Emission, LabelMap, Material, Organ, VoxelGrid, VoxelPhantom
from SynthDoseLib.transport import PointSource, RunSettings, SimulationResult, simulate

from .comparison import Comparison, compare
from .precision import Effort, precise_run
from .reference_cases import PENRED_WATER_EV, REFERENCE
from .shells import fold, shell_labels

WATER = Material("water", 1.0, {"H": 0.111894, "O": 0.888106})
PENRED_WATER = replace(WATER, mean_excitation_eV=PENRED_WATER_EV)
PHOTON_KERNELS = ("b_photon_kernel_0.14MeV", "b_photon_kernel_0.662MeV")
ELECTRON_KERNELS = ("a_electron_kernel_0.1MeV", "a_electron_kernel_1MeV")
GRAY_GRAM_IN_MEV = 1 / 1.602176634e-10
SEEDS, HISTORIES = 16, 10_000
PARTS = (0.5, 0.9)


def water_phantom(
    labels: NDArray[np.uint16], inside: NDArray[np.bool_], voxel_cm: float, names: list[str], water: Material = WATER
) -> VoxelPhantom:
    """Water where `inside`, vacuum elsewhere."""
    grid = VoxelGrid.from_spacing((labels.shape[0], labels.shape[1], labels.shape[2]), (10 * voxel_cm,) * 3)
    organs = tuple(Organ(n, name) for n, name in enumerate(names, start=1))
    return VoxelPhantom(
        grid, np.zeros(grid.shape, np.uint8), inside.astype(np.float32), (water,), LabelMap(grid, labels, organs)
    )


def compare_photon_kernel(
    name: str, effort: Effort, *, voxel_cm: float = 0.5, shell_cm: float = 1.0, outer_cm: float = 50.0
) -> list[Comparison]:
    """Energy in shells of voxels around a point in a sphere of water, and within 20 cm."""
    data, second = np.load(REFERENCE / f"{name}.npz"), _second(name)
    edges = np.arange(0, 20 + shell_cm / 2, shell_cm)
    labels, inside = shell_labels(2 * round(outer_cm / voxel_cm) + 1, voxel_cm, edges, outer_cm)
    names = [f"{low:g} to {low + shell_cm:g} cm" for low in edges[:-1]]
    phantom = water_phantom(labels, inside, voxel_cm, names)
    energy_MeV = float(name.split("_")[-1].removesuffix("MeV"))
    emissions = [Emission.line("photon", energy_MeV, 1.0)]
    source = PointSource((0.0, 0.0, 0.0))
    result = precise_run(phantom, source, emissions, dict.fromkeys(names, 0.02), effort, seed=31)
    own = _energies(result, energy_MeV)
    whole = water_phantom((labels > 0).astype(np.uint16), inside, voxel_cm, ["within"])
    total = _energies(precise_run(whole, source, emissions, {"within": 0.01}, effort, seed=33), energy_MeV)
    values = []
    for found in [data] if second is None else [data, second]:
        frac, sigma, bins = _with_tail(found["frac"], found["sigma"], data["edges_cm"])
        energy, shares = fold(frac, bins, labels, voxel_cm)
        values.append((energy, np.sqrt(shares**2 @ sigma**2)))
    (expected, error), other = values[0], values[1] if len(values) > 1 else None
    rows = [
        compare(name, names[n], (own[0, n], own[1, n]), (expected[n + 1], error[n + 1]), 0.02, share=effort.share,
                second=None if other is None else (other[0][n + 1], other[1][n + 1]))
        for n in range(len(names))
    ]  # fmt: skip
    reference = float(expected[1:].sum()), float(np.sqrt((data["sigma"] ** 2).sum()))
    integral = float(total[0, 0]), float(total[1, 0])
    return [*rows, compare(name, "within 20 cm", integral, reference, 0.01, share=effort.share, second=_sum(other))]


def _energies(result: SimulationResult, energy_MeV: float) -> NDArray[np.float64]:
    """Energy in every organ and its standard error, (2, organs), as shares of what is emitted."""
    values = [[organ.dose_Gy * organ.mass_g, organ.sigma_Gy * organ.mass_g] for organ in result.organs]
    return np.array(values).T * GRAY_GRAM_IN_MEV / energy_MeV


def _with_tail(
    frac: NDArray[np.float64], sigma: NDArray[np.float64], edges: NDArray[np.float64], bins: int = 2, fit: int = 8
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Continue a kernel by two shells: voxels of the last shell reach a little beyond its edge."""
    middles = (edges[1:] + edges[:-1]) / 2
    slope, offset = np.polyfit(middles[-fit:], np.log(frac[-fit:]), 1)
    width = edges[-1] - edges[-2]
    beyond = middles[-1] + width * np.arange(1, bins + 1)
    tail = np.exp(offset + slope * beyond)
    more = np.append(edges, edges[-1] + width * np.arange(1, bins + 1))
    return np.append(frac, tail), np.append(sigma, tail * sigma[-fit:].mean() / frac[-fit:].mean()), more


def _sum(other: tuple[NDArray[np.float64], NDArray[np.float64]] | None) -> tuple[float, float] | None:
    return None if other is None else (float(other[0][1:].sum()), float(np.sqrt((other[1][1:] ** 2).sum())))


def _second(name: str) -> Any:
    path = REFERENCE / f"{name}_EGSnrc.npz"
    return np.load(path) if path.exists() else None


def compare_electron_kernel(name: str, effort: Effort) -> list[Comparison]:
    """Radii within which 50 % and 90 % of the energy is deposited, in voxels of 0.025 CSDA ranges.

    The shells of the references are folded into those of voxels, so that all radii come from the same kind of shells. Judged is
    water with PenRed's mean excitation energy; what the engine's own, 75 eV, makes of it is shown.
    """
    data, second = np.load(REFERENCE / f"{name}.npz"), _second(name)
    edges = data["edges_cm"]
    labels, inside = shell_labels(2 * edges.size + 1, float(edges[1]), edges, np.inf)
    energy_MeV = float(name.split("_")[-1].removesuffix("MeV"))
    rows = []
    for water, added in ((PENRED_WATER, ", 69 eV as in PenRed"), (WATER, ", 75 eV")):
        phantom = water_phantom(labels, inside, float(edges[1]), [str(n) for n in range(edges.size - 1)], water)
        histories = int(HISTORIES * effort.share)
        radii = np.array([_own_radii(phantom, energy_MeV, edges, effort, histories, seed) for seed in range(SEEDS)])
        for n, part in enumerate(PARTS):
            values = []
            for which, found in (("", data), ("_EGSnrc", second)):
                if found is not None:
                    own_error, error = radius_errors(radii[:, n], histories, _histories(name + which))
                    values.append((_reference_radius(found, labels, float(edges[1]), part), float(error)))
            rows.append(
                compare(name, f"R{round(100 * part)}{added}", (radii[:, n].mean(), float(own_error)), values[0], 0.01,
                        share=effort.share, judged=water is PENRED_WATER, second=values[1] if len(values) > 1 else None)
            )  # fmt: skip
    return rows


def _histories(name: str) -> int:
    return int(json.loads((REFERENCE / f"{name}.json").read_text(encoding="utf-8"))["histories"])


def _own_radii(
    phantom: VoxelPhantom, energy_MeV: float, edges: NDArray[np.float64], effort: Effort, histories: int, seed: int
) -> list[float]:
    settings = RunSettings(
        histories=histories,
        seed=41 + seed,
        device=effort.device,
        threads=effort.threads,
        estimator=effort.estimator,
    )
    result = simulate(phantom, PointSource((0.0, 0.0, 0.0)), [Emission.line("electron", energy_MeV, 1.0)], settings)
    energy = np.array([organ.dose_Gy * organ.mass_g for organ in result.organs])
    return [radius_of(energy, edges, part) for part in PARTS]


def _reference_radius(data: Any, labels: NDArray[np.uint16], voxel_cm: float, part: float) -> float:
    energy, _ = fold(data["frac"], data["edges_cm"], labels, voxel_cm)
    return radius_of(energy[1:], data["edges_cm"], part)


def radius_errors(radii: NDArray[np.float64], histories: int, other: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Standard errors of radii: of the mean of runs (runs, radii) with `histories` each, and of another code's with `other`.

    The errors of single shells do not give that of a radius: what a history leaves inside is missing outside, and adding shells
    up as if they were independent makes it 2.5 times too small. Two analog codes that follow the same physics spread alike from
    history to history, so that the spread of one's runs serves both.
    """
    spread = radii.std(axis=0, ddof=1)
    return spread / np.sqrt(len(radii)), spread * np.sqrt(histories / other)


def radius_of(energy: NDArray[np.float64], edges: NDArray[np.float64], part: float) -> float:
    """Radius within which `part` of the energy of shells (n,) lies."""
    inside = np.concatenate([[0.0], np.cumsum(energy)]) / energy.sum()
    return float(np.interp(part, inside, edges))
