"""Dose by convolution of the activity with voxel S-kernels."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import psutil
from numpy.typing import NDArray
from scipy.fft import irfftn, next_fast_len, rfftn

from ..core import Emission, Material, Progress, ProgressReport, SynthDoseError, VoxelPhantom, silent
from ..physics import get_material
from .decay_map import ANNIHILATION_MEV, decay_map, result_of
from .kernel_store import VoxelKernel
from .kernels import voxel_s_kernel
from .sources import Source
from .values import SimulationResult

NEGLIGIBLE_DENSITY = 0.05  # g/cm3: air takes the dose of the tissue around it, not energy over its own mass
PHOTON_SIGMA = 2.0
RADIUS_STEP_MM = 25.0  # kernels for phantoms of nearly the same size are the same one
_BYTES_PER_ELEMENT = 40  # of the padded arrays: the transforms of activity and kernel, and their product
_MEMORY_SHARE = 0.8


@dataclass(frozen=True)
class KernelTissue:
    """A tissue with a kernel of its own: voxels of `lowest_g_cm3` and above, up to the next one's.

    Attributes
    ----------
    material : str
        Named tissue; see `physics.get_material`.
    """

    material: str
    lowest_g_cm3: float = 0.0


SOFT_TISSUE = (KernelTissue("soft_tissue"),)
LUNG_SOFT_BONE = (KernelTissue("lung"), KernelTissue("soft_tissue", 0.6), KernelTissue("bone", 1.2))


def kernel_dose(
    phantom: VoxelPhantom,
    source: Source,
    emissions: Sequence[Emission],
    *,
    tissues: Sequence[KernelTissue] = SOFT_TISSUE,
    density_scaling: bool = True,
    relative_sigma: float = 0.005,
    radius_mm: float | None = None,
    seed: int = 1,
    threads: int = 0,
    device: str = "auto",
    progress: Progress = silent,
) -> SimulationResult:
    """Dose per decay by kernels that the engine makes (once; they are kept in the user's cache).

    Charged particles and photons have kernels of their own, because density acts on them differently. What charged particles
    leave in a voxel goes to its mass; photons leave energy in proportion to the mass they meet, so that their dose does not
    depend on it, and most of their way leads through soft tissue.

    Parameters
    ----------
    phantom : VoxelPhantom
    source : VolumeSource or OrganSource
    emissions : sequence of Emission
        Per decay.
    tissues : sequence of KernelTissue
        By increasing density, for charged particles. Each kernel is made at the mean density of its voxels (two digits), and
        serves the voxels that receive the dose, whatever lies between. Photons take the one that water falls into.
    density_scaling : bool
        See `convolve`; of charged particles.
    relative_sigma, seed, threads, device
        Of the kernels: see `voxel_s_kernel`.
    radius_mm : float, optional
        As far as the radiation counts and the phantom goes, if not given.
    progress : callable

    Returns
    -------
    SimulationResult
        Without histories of its own; see `convolve` for its sigma.

    Raises
    ------
    SynthDoseError
        If the source has no activity per voxel, a tissue is unknown, or memory does not suffice.

    References
    ----------
    Dieudonné et al., J. Nucl. Med. 54 (2013) 236: density scaling. Lee et al., J. Nucl. Med. 59 (2018) 1133: kernels of several
    tissues.
    """
    begun = time.monotonic(), time.process_time()
    shares = decay_map(source, phantom)
    classes = tissue_classes(phantom, tissues)

    def kernel(n: int, sent: Sequence[Emission], sigma: float) -> VoxelKernel:
        size = phantom.grid.spacing_mm
        return voxel_s_kernel(
            sent, (round(size[0], 4), round(size[1], 4), round(size[2], 4)), _medium(phantom, tissues[n], classes == n),
            radius_mm=radius_mm, most_radius_mm=_diagonal_mm(phantom), relative_sigma=sigma, seed=seed,
            threads=threads, device=device, progress=progress,
        )  # fmt: skip

    charged, photons = split_emissions(emissions)
    dose, sigma, notes = np.zeros(phantom.grid.shape), np.zeros(phantom.grid.shape), []
    if charged:
        kernels = {int(n): kernel(int(n), charged, relative_sigma) for n in np.unique(classes)}
        dose, sigma = convolve(phantom, shares, kernels, classes, density_scaling=density_scaling)
        notes.append(_note("charged particles", kernels.values(), density_scaling))
    if photons:
        # beside charged particles they matter less near the source, where they take longest to be known
        share = PHOTON_SIGMA * relative_sigma if charged else relative_sigma
        one = {0: kernel(_class_of(1.0, tissues), photons, share)}
        progress(ProgressReport("convolution", 0.5, None, "Convolving with the kernel of photons"))
        more, error = convolve(phantom, shares, one, np.zeros(phantom.grid.shape, np.uint8), density_scaling=False)
        dose, sigma = dose + more, np.hypot(sigma, error)
        notes.append(_note("photons", one.values(), False))
    notes.append(
        "Sigma is that of the kernels alone, as if all elements of one erred together: an upper bound. What convolution leaves "
        "out at borders of tissue and body is not in it."
    )
    return result_of(phantom, dose, sigma, emissions, begun, tuple(notes), seed)


def split_emissions(emissions: Sequence[Emission]) -> tuple[tuple[Emission, ...], tuple[Emission, ...]]:
    """Charged particles and photons: a positron becomes an electron of its energy and two quanta of 511 keV."""
    charged, photons = [], []
    for emission in emissions:
        if emission.yield_per_decay == 0:
            continue
        if emission.particle == "photon":
            photons.append(emission)
        elif emission.particle == "positron":
            charged.append(replace(emission, particle="electron"))
            photons.append(Emission.line("photon", ANNIHILATION_MEV / 2, 2 * emission.yield_per_decay, "annihilation"))
        else:
            charged.append(emission)
    return tuple(charged), tuple(photons)


def _medium(phantom: VoxelPhantom, tissue: KernelTissue, where: NDArray[np.bool_]) -> Material:
    """The tissue at the mean density of its voxels, air apart."""
    material = get_material(tissue.material)
    dense = where & (phantom.density_g_cm3 >= NEGLIGIBLE_DENSITY)
    if not dense.any():
        return material
    return replace(material, density_g_cm3=float(f"{phantom.density_g_cm3[dense].mean(dtype=np.float64):.2g}"))


def tissue_classes(phantom: VoxelPhantom, tissues: Sequence[KernelTissue]) -> NDArray[np.uint8]:
    """Place in `tissues` of each voxel, by density; air is in the place of water.

    Raises
    ------
    SynthDoseError
        If there are no tissues, or their densities do not increase.
    """
    limits = [tissue.lowest_g_cm3 for tissue in tissues]
    if not limits or any(b <= a for a, b in itertools.pairwise(limits)):
        raise SynthDoseError(f"The tissues of the kernels have to be given by increasing density; found {limits}.")
    density = np.where(phantom.density_g_cm3 < NEGLIGIBLE_DENSITY, np.float32(1.0), phantom.density_g_cm3)
    return np.maximum(np.searchsorted(limits, density, side="right") - 1, 0).astype(np.uint8)


def _class_of(density_g_cm3: float, tissues: Sequence[KernelTissue]) -> int:
    return max(0, sum(tissue.lowest_g_cm3 <= density_g_cm3 for tissue in tissues) - 1)


def convolve(
    phantom: VoxelPhantom,
    shares: NDArray[np.float64],
    kernels: Mapping[int, VoxelKernel],
    classes: NDArray[np.uint8],
    *,
    density_scaling: bool = True,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Convolve decays with the kernel of the tissue that receives the dose.

    Arrays are padded with zeros, so that nothing comes in again at the opposite border; what lies outside the grid is taken as
    the kernel's medium, but keeps no dose.

    Parameters
    ----------
    phantom : VoxelPhantom
    shares : ndarray of float64, (nk, nj, ni)
        Decays per voxel.
    kernels : mapping of int to VoxelKernel
        Of each class that occurs; with the voxels of the phantom.
    classes : ndarray of uint8, (nk, nj, ni)
    density_scaling : bool
        Whether the energy that the kernel gives a voxel goes to the voxel's own mass (not in air, below 0.05 g/cm3).

    Returns
    -------
    dose_Gy, sigma_Gy : ndarray of float64, (nk, nj, ni)
        Sigma is that of the kernels, as if all their elements erred together: an upper bound. It is 0 where the density is.
    """
    dose, sigma = np.zeros(phantom.grid.shape), np.zeros(phantom.grid.shape)
    reach = {n: _trimmed(kernel, phantom) for n, kernel in kernels.items()}
    half = [max(part[0].shape[axis] for part in reach.values()) - 1 for axis in range(3)]
    shape = tuple(next_fast_len(size + edge, real=True) for size, edge in zip(phantom.grid.shape, half, strict=True))
    needed, free = _BYTES_PER_ELEMENT * math.prod(shape), psutil.virtual_memory().available * _MEMORY_SHARE
    if needed > free:
        raise SynthDoseError(
            f"The convolution needs {needed / 2**30:.1f} GiB of memory; {free / 2**30:.1f} GiB are free. Use larger voxels."
        )
    decays = rfftn(shares, shape)
    inner = tuple(slice(size) for size in phantom.grid.shape)
    for n, kernel in kernels.items():
        scale = _density_scale(phantom, kernel, density_scaling)
        where = classes == n
        for target, octant in ((dose, reach[n][0]), (sigma, reach[n][1])):
            spread = irfftn(decays * rfftn(_wrapped(octant, shape)), shape)[inner]
            # what the transforms round off may lie below 0
            target[where] = (np.maximum(spread, 0.0) * scale)[where]
    return dose, sigma


def _trimmed(kernel: VoxelKernel, phantom: VoxelPhantom) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Octants of value and sigma, no longer than the phantom."""
    if not np.allclose(kernel.voxel_mm, phantom.grid.spacing_mm, rtol=1e-4):
        raise SynthDoseError(f"The kernel is for voxels of {kernel.voxel_mm} mm, the phantom has {phantom.grid.spacing_mm} mm.")
    part = tuple(slice(size) for size in phantom.grid.shape)
    return kernel.octant_Gy[part], kernel.octant_sigma_Gy[part]


def _wrapped(octant: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """The eight octants around element 0 of an array of `shape`, as a circular convolution wants them."""
    places = [np.minimum(np.arange(size), size - np.arange(size)) for size in shape]
    clipped = [np.minimum(place, n - 1) for place, n in zip(places, octant.shape, strict=True)]
    values = octant[np.ix_(*clipped)]
    for axis, (place, n) in enumerate(zip(places, octant.shape, strict=True)):
        values[tuple(place >= n if m == axis else slice(None) for m in range(3))] = 0.0
    return values


def _density_scale(phantom: VoxelPhantom, kernel: VoxelKernel, density_scaling: bool) -> NDArray[np.float64]:
    density = phantom.density_g_cm3.astype(np.float64)
    if not density_scaling:
        return (density > 0).astype(np.float64)
    scale = np.divide(kernel.material.density_g_cm3, density, out=np.zeros_like(density), where=density > 0)
    scale[(density > 0) & (density < NEGLIGIBLE_DENSITY)] = 1.0
    return scale


def _diagonal_mm(phantom: VoxelPhantom) -> float:
    """Longest way in a phantom, in whole steps."""
    diagonal = float(np.linalg.norm(np.asarray(phantom.grid.shape[::-1]) * phantom.grid.spacing_mm))
    return RADIUS_STEP_MM * math.ceil(diagonal / RADIUS_STEP_MM)


def _note(radiation: str, kernels: Iterable[VoxelKernel], density_scaling: bool) -> str:
    made = [
        f"{kernel.material.name} {kernel.material.density_g_cm3:g} g/cm3 ({100 * kernel.absorbed_fraction:.1f} % of the energy "
        f"within {float(kernel.provenance['radius_mm']):.0f} mm)"
        for kernel in kernels
    ]
    scaled = "scaled by the density of the voxel" if density_scaling else "not scaled by density"
    return f"Kernel convolution, {radiation}: endless {', '.join(made)}; {scaled}."
