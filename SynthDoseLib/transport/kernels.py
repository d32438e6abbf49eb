"""Voxel S-kernels: dose around one voxel of a uniform, endless medium, per decay in that voxel.

Made by the Monte Carlo in a block of the medium that reaches a margin beyond the kernel, so that photons are scattered back.
Voxels that mirror planes (and exchanges of equal axes) carry into each other have the same value, and are scored together as
one region, whose batches give its standard error; nothing is added from voxel to voxel. Beyond NEAR voxels from the source a
voxel is small against its distance, so that its value depends on the distance alone: there thin shells are scored, and the
value times the distance squared is interpolated between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..core import (
    Emission,
    LabelMap,
    Material,
    Organ,
    Progress,
    SynthDoseError,
    VoxelGrid,
    VoxelPhantom,
    silent,
    versions,
)
from ..physics import alpha_csda_range, csda_range, photon_cross_sections
from .kernel_store import VoxelKernel, keep_kernel, kernel_path, kernel_recipe, mirrored, read_kernel
from .sources import VolumeSource
from .values import RunSettings

NEAR = 10  # voxels
SHELLS_PER_VOXEL = 2
MARGIN_G_CM2 = 10.0  # of medium behind the kernel: with 4, 0.66 MeV photons gave 2.4 % too little at its end, with 12 0.6 %
MOST_MARGIN_MM = 200.0
MOST_VOXELS = 111  # from the source to the end of the block, along one axis
MOST_REACH_MM = 300.0
FAR_MM = 50.0  # where photons have to be known as well as the voxel itself
_FREE_PATHS = 6.0  # a sphere of this radius keeps all but 1 % of the energy of photons, build-up included
_PHOTONS_COUNT = 0.01  # of the emitted energy: fewer do not decide how far the kernel goes, and how long is run


def voxel_s_kernel(
    emissions: Sequence[Emission],
    voxel_mm: tuple[float, float, float],
    material: Material,
    *,
    density_g_cm3: float | None = None,
    radius_mm: float | None = None,
    most_radius_mm: float = MOST_REACH_MM,
    relative_sigma: float = 0.005,
    histories: int | None = None,
    seed: int = 1,
    estimator: str = "auto",
    threads: int = 0,
    device: str = "auto",
    cached: bool = True,
    progress: Progress = silent,
) -> VoxelKernel:
    """Return the S-kernel of a voxel in a medium, from the user's cache or made by the Monte Carlo.

    Parameters
    ----------
    emissions : sequence of Emission
        Per decay, with those of the progeny if need be: see `physics.decay_emissions`.
    voxel_mm : tuple of 3 float
        Voxel size along i, j, k.
    material : Material
    density_g_cm3 : float, optional
        Of the medium; that of the material if not given.
    radius_mm : float, optional
        How far the kernel reaches; as far as the radiation counts if not given, and as 111 voxels with their margin allow.
    most_radius_mm : float
        What a radius that is not given goes up to.
    relative_sigma : float
        To be reached by the source voxel, its nearest neighbours and, if photons count, 50 mm away.
    histories : int, optional
        In place of `relative_sigma`.
    seed, estimator, threads, device
        See `RunSettings`.
    cached : bool
        Whether the kernel may come from, and is kept in, the user's cache.
    progress : callable

    Returns
    -------
    VoxelKernel

    Raises
    ------
    SynthDoseError
        If nothing is emitted, a number is out of range, or the kernel would have more than 111 voxels to a side of its source.

    References
    ----------
    MIRD Pamphlet No. 17, J. Nucl. Med. 40 (1999) 11S: S-values of voxels.
    """
    spacing = tuple(float(x) for x in voxel_mm)
    if len(spacing) != 3 or not np.isfinite(spacing).all() or min(spacing) <= 0:
        raise SynthDoseError(f"voxel_mm has to be three positive lengths (along i, j, k); found {voxel_mm!r}.")
    if not _energy_of_all(emissions) > 0:
        raise SynthDoseError("The source emits nothing: every yield_per_decay is 0.")
    if density_g_cm3 is not None:
        material = replace(material, density_g_cm3=density_g_cm3)
    reach = min(kernel_reach_mm(emissions, material), most_radius_mm) if radius_mm is None else float(radius_mm)
    if not (np.isfinite(reach) and reach > 0):
        raise SynthDoseError(f"radius_mm of a kernel has to be positive; found {radius_mm}.")
    counts, whole = _sizes(emissions, spacing, material, reach)
    if max(whole) > MOST_VOXELS and radius_mm is not None:
        raise SynthDoseError(
            f"A kernel of {reach:g} mm in voxels of {min(spacing):g} mm would have {max(whole)} voxels to each side with its "
            f"margin; {MOST_VOXELS} are allowed. Use a smaller radius or larger voxels."
        )
    while max(whole) > MOST_VOXELS:
        reach *= 0.9
        if reach < max(spacing):
            raise SynthDoseError(f"Voxels of {min(spacing):g} mm are too small for a kernel of this radiation.")
        counts, whole = _sizes(emissions, spacing, material, reach)
    settings = RunSettings(
        histories=histories, relative_sigma=relative_sigma if histories is None else None, organs=("self", "next"), seed=seed,
        threads=threads, estimator=estimator, device=device,
    )  # fmt: skip
    recipe = kernel_recipe(emissions, spacing, material, reach, settings)
    if cached and (kept := read_kernel(kernel_path(recipe), recipe)) is not None:
        return kept
    made = _make(emissions, spacing, material, reach, (counts, whole), settings, progress)
    made = replace(made, provenance={**made.provenance, "recipe": recipe})
    if cached:
        keep_kernel(made, kernel_path(recipe))
    return made


def kernel_reach_mm(emissions: Sequence[Emission], material: Material) -> float:
    """Radius, mm, that holds nearly all of the energy: ranges of charged particles, six free paths of photons that count."""
    reach = charged_reach_mm(emissions, material)
    if _photon_share(emissions) <= _PHOTONS_COUNT:
        return reach
    energies = [max(e.mean_energy_MeV, 1e-3) for e in emissions if e.particle == "photon" and e.yield_per_decay > 0]
    energies += [0.51099895 for e in emissions if e.particle == "positron"]
    per_cm = material.density_g_cm3 * photon_cross_sections(material, np.array(energies)).total
    return max(reach, min(MOST_REACH_MM, 10 * _FREE_PATHS / float(per_cm.min())))


def charged_reach_mm(emissions: Sequence[Emission], material: Material) -> float:
    """Longest range of the charged particles, mm."""
    reach = 0.0
    for emission in emissions:
        energy = np.clip(emission.max_energy_MeV, 1e-3, 10.0 if emission.particle == "alpha" else 20.0)
        if emission.particle != "photon" and emission.yield_per_decay > 0:
            ranges = alpha_csda_range if emission.particle == "alpha" else csda_range
            reach = max(reach, 10 * float(ranges(material, energy)) / material.density_g_cm3)
    return reach


def _sizes(
    emissions: Sequence[Emission], spacing: tuple[float, ...], material: Material, reach_mm: float
) -> tuple[list[int], list[int]]:
    """Voxels from the source to the end of the kernel, and of the block around it, along i, j, k."""
    block = max(reach_mm, charged_reach_mm(emissions, material))
    if _photon_share(emissions) > _PHOTONS_COUNT:
        block += min(MOST_MARGIN_MM, 10 * MARGIN_G_CM2 / material.density_g_cm3, 0.4 * MOST_VOXELS * min(spacing))
    counts = [max(1, int(np.ceil(reach_mm / size - 1e-9))) for size in spacing]
    return counts, [max(count, int(np.ceil(block / size - 1e-9))) for count, size in zip(counts, spacing, strict=True)]


def _photon_share(emissions: Sequence[Emission]) -> float:
    """Share of photons, annihilation quanta included, in the emitted energy."""
    total = _energy_of_all(emissions)
    photons = sum(e.yield_per_decay * (e.mean_energy_MeV if e.particle == "photon" else 1.02199790) for e in emissions
                  if e.particle in ("photon", "positron"))  # fmt: skip
    return photons / total if total > 0 else 0.0


def _energy_of_all(emissions: Sequence[Emission]) -> float:
    return sum(_energy(e) for e in emissions)


def _energy(emission: Emission) -> float:
    rest = 1.02199790 if emission.particle == "positron" else 0.0
    return emission.yield_per_decay * (emission.mean_energy_MeV + rest)


def _make(
    emissions: Sequence[Emission],
    spacing: tuple[float, ...],
    material: Material,
    reach_mm: float,
    sizes: tuple[list[int], list[int]],
    settings: RunSettings,
    progress: Progress,
) -> VoxelKernel:
    from .engine import simulate

    counts, whole = sizes
    voxel = (spacing[0], spacing[1], spacing[2])
    shape = (2 * whole[2] + 1, 2 * whole[1] + 1, 2 * whole[0] + 1)
    grid = VoxelGrid.from_spacing(shape, voxel)
    octant = _regions(tuple(whole), voxel, reach_mm)
    labels = mirrored(octant)
    highest = int(labels.max())
    far = _far_region(octant, voxel) if _photon_share(emissions) > _PHOTONS_COUNT and reach_mm > FAR_MM else 0
    names = {1: "self", int(octant[0, 0, 1]): "next", **({far: "far"} if far else {})}
    organs = tuple(Organ(n, names.get(n, str(n))) for n in range(1, highest + 1))
    phantom = VoxelPhantom(
        grid, np.zeros(shape, np.uint8), np.full(shape, material.density_g_cm3, np.float32), (material,),
        LabelMap(grid, labels, organs),
    )  # fmt: skip
    weights = np.zeros(shape, np.float32)
    weights[whole[2], whole[1], whole[0]] = 1.0
    settings = replace(settings, organs=tuple(names.values()))
    result = simulate(phantom, VolumeSource(grid, weights), emissions, settings, progress)
    index = {organ.name: organ.index for organ in organs}
    dose, sigma = np.zeros(highest + 1), np.zeros(highest + 1)
    for organ in result.organs:
        dose[index[organ.organ]], sigma[index[organ.organ]] = organ.dose_Gy, organ.sigma_Gy
    part = octant[: counts[2] + 1, : counts[1] + 1, : counts[0] + 1]
    values, errors = _values(part, voxel, dose, sigma, reach_mm)
    provenance = {
        "histories": result.histories, "histories_per_emission": list(result.histories_per_emission),
        "batches": result.batches, "transport_cpu_s": result.transport_cpu_s, "device": result.device, "seed": result.seed,
        "energy_emitted_MeV": _energy_of_all(emissions), "radius_mm": reach_mm, "versions": versions(),
    }  # fmt: skip
    return VoxelKernel(values, errors, voxel, material, provenance)


def _offsets_mm(shape: Sequence[int], voxel: tuple[float, float, float]) -> tuple[NDArray[np.float64], ...]:
    """Offsets along k, j, i of an octant's voxels from its source, broadcast to each other."""
    return tuple(
        (np.arange(n, dtype=np.float64) * size).reshape([-1 if m == axis else 1 for m in range(3)])
        for axis, (n, size) in enumerate(zip(shape, voxel[::-1], strict=True))
    )


def _distance_mm(shape: Sequence[int], voxel: tuple[float, float, float]) -> NDArray[np.float64]:
    k, j, i = _offsets_mm(shape, voxel)
    return np.asarray(np.sqrt(k * k + j * j + i * i))


def _regions(whole: tuple[int, ...], voxel: tuple[float, float, float], reach_mm: float) -> NDArray[np.uint16]:
    """Region of each voxel of an octant: 1 the source, then classes of equal voxels, then shells; 0 beyond the kernel."""
    shape = (whole[2] + 1, whole[1] + 1, whole[0] + 1)
    distance = _distance_mm(shape, voxel)
    near = distance <= NEAR * max(voxel) * (1 + 1e-9)
    place = np.argwhere(near)
    # equal axes may be exchanged: their offsets in order name the class
    for a, b in ((0, 1), (1, 2), (0, 1)):
        if np.isclose(voxel[2 - a], voxel[2 - b], rtol=1e-6):
            swap = place[:, a] < place[:, b]
            place[swap, a], place[swap, b] = place[swap, b], place[swap, a]
    if np.isclose(voxel[0], voxel[2], rtol=1e-6) and not np.isclose(voxel[0], voxel[1], rtol=1e-6):
        swap = place[:, 0] < place[:, 2]
        place[swap, 0], place[swap, 2] = place[swap, 2], place[swap, 0]
    _, classes = np.unique(place, axis=0, return_inverse=True)
    regions = np.zeros(shape, np.int64)
    regions[near] = classes.ravel() + 1
    shells = (~near) & (distance <= reach_mm + max(voxel))
    number = np.floor((distance[shells] / max(voxel) - NEAR) * SHELLS_PER_VOXEL).astype(np.int64)
    _, number = np.unique(number, return_inverse=True)
    regions[shells] = number + regions.max() + 1
    return regions.astype(np.uint16)


def _far_region(octant: NDArray[np.uint16], voxel: tuple[float, float, float]) -> int:
    """Region nearest to FAR_MM from the source that is neither the source nor beside it."""
    distance = np.where(octant > 0, _distance_mm(octant.shape, voxel), np.inf)
    place = np.unravel_index(np.argmin(np.abs(distance - FAR_MM)), octant.shape)
    far = int(octant[place])
    return 0 if far in (1, int(octant[0, 0, 1])) else far


def _values(
    octant: NDArray[np.uint16],
    voxel: tuple[float, float, float],
    dose: NDArray[np.float64],
    sigma: NDArray[np.float64],
    reach_mm: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Dose and standard error per voxel of an octant: those of its class, or interpolated between shells."""
    distance = _distance_mm(octant.shape, voxel)
    near = distance <= NEAR * max(voxel) * (1 + 1e-9)
    values, errors = dose[octant], sigma[octant]
    far = ~near & (distance <= reach_mm * (1 + 1e-9)) & (octant > 0)
    if far.any():
        shells = ~near & (octant > 0)
        count = np.bincount(octant[shells])
        first = int(octant[shells].min())
        middle = (np.bincount(octant[shells], weights=distance[shells])[first:] / count[first:]).astype(np.float64)
        for target, source in ((values, dose), (errors, sigma)):
            target[far] = np.interp(distance[far], middle, source[first : first + middle.size] * middle**2) / distance[far] ** 2
    beyond = ~near & ~far
    values[beyond], errors[beyond] = 0.0, 0.0
    return values, errors
