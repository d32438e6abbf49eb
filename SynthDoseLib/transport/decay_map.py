"""Decays per voxel of a phantom, and the result of a dose engine that follows no histories: what local deposition and kernel
convolution share."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..core import DoseMap, Emission, OrganDose, SynthDoseError, VoxelPhantom, resample_mean
from .sources import OrganSource, Source, VolumeSource, build_source
from .values import SimulationResult

MEV_PER_G_IN_GY = 1.602176634e-10
ANNIHILATION_MEV = 1.02199790


def decay_map(source: Source, phantom: VoxelPhantom) -> NDArray[np.float64]:
    """Share of the decays in each voxel of the phantom, (nk, nj, ni), summing to 1.

    Parameters
    ----------
    source : VolumeSource or OrganSource
        A map on another grid is averaged over the phantom's voxels, volume by volume.

    Raises
    ------
    SynthDoseError
        If the source is another one, or lies outside the phantom or in vacuum.
    """
    if isinstance(source, OrganSource):
        source = source.as_volume(phantom.labels)
    if not isinstance(source, VolumeSource):
        raise SynthDoseError(
            "Local deposition and kernel convolution need activity per voxel or organ; a point, sphere, beam or list of "
            'particles takes engine = "monte-carlo".'
        )
    build_source(source, phantom)  # its checks: nothing outside the grid or in vacuum
    if source.grid.matches(phantom.grid):
        shares = source.weights.astype(np.float64)
    else:
        shares = resample_mean(source.weights, source.grid, phantom.grid).astype(np.float64)
        shares[phantom.density_g_cm3 <= 0] = 0.0
    total = shares.sum()
    if not total > 0:
        raise SynthDoseError("The activity map falls between the voxels of the phantom: give it on the phantom's grid.")
    return shares / total


def emitted_MeV(emissions: Sequence[Emission]) -> float:
    """Energy per decay; a positron counts 1.022 MeV more."""
    return sum(
        e.yield_per_decay * (e.mean_energy_MeV + (ANNIHILATION_MEV if e.particle == "positron" else 0)) for e in emissions
    )


def result_of(
    phantom: VoxelPhantom,
    dose_Gy: NDArray[np.float64],
    sigma_Gy: NDArray[np.float64],
    emissions: Sequence[Emission],
    begun: tuple[float, float],
    notes: tuple[str, ...],
    seed: int = 0,
) -> SimulationResult:
    """A result without histories, with organ means; `sigma_Gy` counts as common to all voxels. `begun`: wall and CPU clock."""
    mass = phantom.density_g_cm3 * np.float64(phantom.grid.voxel_volume_ml)
    flat = phantom.labels.labels.ravel()
    length = max((organ.index for organ in phantom.labels.organs), default=0) + 1
    masses, energies, errors = (
        np.bincount(flat, weights=(mass * values).ravel(), minlength=length) for values in (1.0, dose_Gy, sigma_Gy)
    )
    organs = tuple(
        OrganDose(
            o.name, float(masses[o.index]), float(energies[o.index] / masses[o.index]), float(errors[o.index] / masses[o.index])
        )
        for o in phantom.labels.organs
        if masses[o.index] > 0
    )
    emitted, deposited = emitted_MeV(emissions), float((dose_Gy * mass).sum()) / MEV_PER_G_IN_GY
    cpu_s = time.process_time() - begun[1]
    return SimulationResult(
        dose=DoseMap(phantom.grid, dose_Gy.astype(np.float32), sigma_Gy.astype(np.float32), "decay"),
        organs=organs,
        histories=0,
        histories_per_emission=(0,) * len(emissions),
        cpu_s=cpu_s,
        wall_s=time.monotonic() - begun[0],
        transport_cpu_s=cpu_s,
        device="cpu",
        threads=1,
        seed=seed,
        energy_emitted_MeV=emitted,
        energy_deposited_MeV=deposited,
        energy_escaped_MeV=emitted - deposited,
        energy_scored_MeV=deposited,
        batches=0,
        notes=notes,
    )
