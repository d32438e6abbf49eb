"""Dose engines: the voxel Monte Carlo.

Photons from 1 keV to 20 MeV: photoelectric effect (K and L fluorescence above 5 keV is followed, other binding energy goes with
the electron), Compton scattering with the incoherent scattering function (no Doppler broadening), Rayleigh scattering with form
factors, pair and triplet production (as pairs) with the positron followed. Electrons and positrons: see `electrons`. Alphas:
straight lines with the stopping power of the voxel's material.

Kernels: `photons`, `electrons`, `alphas`, `geometry`, `random`, `sampling`, `histories`. Drivers, which hold no physics:
`sources`, `emission_groups`, `locality`, `problem`, `crop`, `allotment`, `limits`, `tallies`, `crew`, `batches`, `checkpoint`,
`preview`, `results`, `engine`.

`cuda_kernels` and `cuda_device` run the same kernels on NVIDIA GPUs. Kernels therefore keep to what numba compiles for both:
numbers and tuples by value, arrays passed in; nothing allocated, raised, printed or looked up by name; `np.int64` around
`math.floor`, which is a float there; and sums that histories share by `add_whole` alone.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from ..core import Emission, Progress, VoxelPhantom, silent
from .cache import prepare_kernel_cache
from .convolution import LUNG_SOFT_BONE, SOFT_TISSUE, KernelTissue, kernel_dose
from .kernel_store import VoxelKernel, read_kernel, write_kernel
from .kernels import voxel_s_kernel
from .local import local_dose
from .particle_lists import ParticleListSource
from .preview import Preview
from .sources import BeamSource, OrganSource, PointSource, Source, SphereSource, VolumeSource
from .values import CheckpointError, ComponentDose, RunSettings, SimulationResult, SValues, part_name

__all__ = [
    "LUNG_SOFT_BONE",
    "SOFT_TISSUE",
    "BeamSource",
    "CheckpointError",
    "ComponentDose",
    "KernelTissue",
    "OrganSource",
    "ParticleListSource",
    "PointSource",
    "Preview",
    "RunSettings",
    "SValues",
    "SimulationResult",
    "Source",
    "SphereSource",
    "VolumeSource",
    "VoxelKernel",
    "kernel_dose",
    "local_dose",
    "part_name",
    "read_kernel",
    "simulate",
    "simulate_s_values",
    "voxel_s_kernel",
    "write_kernel",
]

# before any kernel is defined, whoever imports it first
prepare_kernel_cache()


def simulate(
    phantom: VoxelPhantom,
    source: Source,
    emissions: Sequence[Emission],
    settings: RunSettings,
    progress: Progress = silent,
    checkpoint: str | os.PathLike[str] | None = None,
    preview: Preview | None = None,
) -> SimulationResult:
    """Dose per decay in every voxel and organ of a phantom: `engine.simulate`, which loads numba only when it is called."""
    from . import engine

    return engine.simulate(phantom, source, emissions, settings, progress, checkpoint, preview)


def simulate_s_values(
    phantom: VoxelPhantom,
    emissions: Sequence[Emission],
    settings: RunSettings,
    sources: Sequence[str] = (),
    progress: Progress = silent,
    checkpoint: str | os.PathLike[str] | None = None,
) -> tuple[SValues, ...]:
    """Doses per decay from each organ to each: `s_values.simulate_s_values`, which loads numba only when it is called."""
    from . import s_values

    return s_values.simulate_s_values(phantom, emissions, settings, sources, progress, checkpoint)
