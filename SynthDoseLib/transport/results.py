"""From the sums over batches to doses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..core import DoseMap, OrganDose, VoxelPhantom
from .batches import Statistics
from .checkpoint import State
from .crop import Box
from .values import ComponentDose, RunSettings, SimulationResult

MEV_PER_G_IN_GY = 1.602176634e-10
FEW_BATCHES = 50


@dataclass(frozen=True)
class Times:
    """What a simulation took, s."""

    wall_s: float
    cpu_s: float


def collect(
    phantom: VoxelPhantom,
    box: Box,
    state: State,
    components: Sequence[str],
    settings: RunSettings,
    device: str,
    threads: int,
    per: str,
    times: Times,
) -> SimulationResult:
    """Turn the state of a run that is over into its result, on the grid of the phantom."""
    statistics = state.statistics
    scale = state.plan.scale
    per_batch = scale / statistics.done
    scored = float(np.array(statistics.organ_energy)[:, 0].sum())
    organs = organ_doses(phantom, statistics, scale)
    split = tuple(
        ComponentDose(
            name,
            dose_map(phantom, box, statistics, scale, per, part),
            organ_doses(phantom, statistics, scale, part),
        )
        for part, name in enumerate(components, start=1 if len(components) > 1 else 0)
        if settings.components
    )
    return SimulationResult(
        dose=dose_map(phantom, box, statistics, scale, per),
        organs=organs,
        histories=int(statistics.counts.sum()),
        histories_per_emission=tuple(int(n) for n in statistics.counts),
        cpu_s=times.cpu_s,
        wall_s=times.wall_s,
        transport_cpu_s=statistics.cpu_s,
        device=device,
        threads=threads,
        seed=settings.seed,
        energy_emitted_MeV=statistics.emitted * per_batch,
        energy_deposited_MeV=(scored + statistics.excess) * per_batch,
        energy_scored_MeV=scored * per_batch,
        energy_escaped_MeV=statistics.escaped * per_batch,
        batches=statistics.done,
        notes=_notes(settings, statistics, threads if device == "cpu" else settings.threads, organs),
        components=split,
    )


def _notes(settings: RunSettings, statistics: Statistics, threads: int, organs: tuple[OrganDose, ...]) -> tuple[str, ...]:
    notes = []
    if settings.threads > threads:
        notes.append(f"{threads} of {settings.threads} threads were used: free memory does not suffice for more tallies.")
    if statistics.done < FEW_BATCHES:
        uncertain = 100 / np.sqrt(2 * max(1, statistics.done - 1))
        notes.append(f"Sigma comes from {statistics.done} batches only, and is itself uncertain by {uncertain:.0f} %.")
    dark = [organ.organ for organ in organs if organ.organ in settings.organs and organ.dose_Gy == 0]
    if dark:
        notes.append(f"No history reached {', '.join(dark)}: the dose there is given as 0, without a sigma.")
    return tuple(notes)


def organ_doses(phantom: VoxelPhantom, statistics: Statistics, scale: float, part: int = 0) -> tuple[OrganDose, ...]:
    """Energy over mass of every organ that is not empty."""
    masses = phantom.mass_g()
    filled = [organ for organ in phantom.labels.organs if masses[organ.name] > 0]
    energies, errors = statistics.organ_means(np.array([organ.index for organ in filled], np.int64), part)
    return tuple(
        OrganDose(
            organ.name,
            masses[organ.name],
            float(energy * scale * MEV_PER_G_IN_GY / masses[organ.name]),
            float(error * scale * MEV_PER_G_IN_GY / masses[organ.name]),
        )
        for organ, energy, error in zip(filled, energies, errors, strict=True)
    )


def dose_map(phantom: VoxelPhantom, box: Box, statistics: Statistics, scale: float, per: str, part: int = 0) -> DoseMap:
    """Dose and standard error per voxel, Gy, slice by slice to spare memory."""
    batches = statistics.done
    shape = box.shape
    dose: NDArray[np.float32] = np.zeros(phantom.grid.shape, np.float32)
    sigma: NDArray[np.float32] = np.zeros(phantom.grid.shape, np.float32)
    sums, squares = statistics.energy[part].reshape(shape), statistics.energy_squared[part].reshape(shape)
    inner_dose, inner_sigma = dose[box.slices], sigma[box.slices]
    for k, density in enumerate(phantom.density_g_cm3[box.slices]):
        mass = density * np.float64(phantom.grid.voxel_volume_ml)
        to_gray = np.divide(scale * MEV_PER_G_IN_GY, mass, out=np.zeros_like(mass), where=mass > 0)
        mean = sums[k] / batches
        variance = np.maximum(squares[k] / batches - mean**2, 0.0) / max(1, batches - 1)
        inner_dose[k], inner_sigma[k] = mean * to_gray, np.sqrt(variance) * to_gray
    return DoseMap(phantom.grid, dose, sigma, per)
