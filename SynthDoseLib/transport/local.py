"""Local deposition: every voxel keeps the energy that the charged particles of its own decays carry."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from ..core import Emission, VoxelPhantom
from .decay_map import ANNIHILATION_MEV, MEV_PER_G_IN_GY, decay_map, result_of
from .sources import Source
from .values import SimulationResult


def local_dose(
    phantom: VoxelPhantom, source: Source, emissions: Sequence[Emission], *, photons: bool = False
) -> SimulationResult:
    """Dose per decay if energy stays in the voxel where it is emitted.

    Parameters
    ----------
    phantom : VoxelPhantom
        Each voxel has its own density.
    source : VolumeSource or OrganSource
    emissions : sequence of Emission
        Per decay.
    photons : bool
        Whether photons (and the annihilation quanta of positrons) are kept as well: then all energy is; otherwise they leave.

    Returns
    -------
    SimulationResult
        Without histories; its sigma is 0, because nothing is drawn.

    References
    ----------
    Ljungberg & Sjögreen-Gleisner, Acta Oncol. 50 (2011) 981: how far local deposition holds for Lu-177 and Y-90 images.
    """
    begun = time.monotonic(), time.process_time()
    kept = sum(e.yield_per_decay * e.mean_energy_MeV for e in emissions if photons or e.particle != "photon")
    if photons:
        kept += ANNIHILATION_MEV * sum(e.yield_per_decay for e in emissions if e.particle == "positron")
    mass = phantom.density_g_cm3 * np.float64(phantom.grid.voxel_volume_ml)
    energy = kept * MEV_PER_G_IN_GY * decay_map(source, phantom)
    dose = np.divide(energy, mass, out=np.zeros_like(mass), where=mass > 0)
    what = "all emitted energy" if photons else "the energy of charged particles, without photons,"
    note = f"Local deposition: {what} stays in the voxel of the decay; sigma is 0 because nothing is drawn."
    return result_of(phantom, dose, np.zeros_like(dose), emissions, begun, (note,))
