"""A phantom on other voxels: every organ keeps its mass, and its volume to the rounding of one voxel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from SynthDoseLib.core import LabelMap, SynthDoseError, VoxelGrid, VoxelPhantom

from .builder import compact_materials

ROUNDS = 60
SETTLED = 0.002
TIE_BREAK = 0.05
REMARKABLE = 0.1  # an organ whose densities had to be changed by more is mentioned
VACUUM, UNLABELLED = 0, 1

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class _Parts:
    """What each organ (`owner`) contributes to each new voxel (`target`), ordered by target: volume, mm3, mass, material."""

    target: Integers
    owner: Integers
    volume: Floats
    mass: Floats
    material: Integers


def regrid_phantom(phantom: VoxelPhantom, grid: VoxelGrid) -> VoxelPhantom:
    """Bring a phantom to voxels of another size.

    Each new voxel is given to one of the organs that have a share in it, so that every organ (and the air around) ends with
    the volume it had: those with the largest share win, and thin organs, which never have the largest one, get a bonus until
    their volume is right. A voxel has the density of its organ's own part in it and the material that most of that part is
    made of; last, the densities of an organ are scaled so that its mass is exactly what it was.

    Parameters
    ----------
    phantom : VoxelPhantom
    grid : VoxelGrid
        With axes parallel to the phantom's (see `VoxelGrid.with_spacing`).

    Returns
    -------
    VoxelPhantom
        On `grid`. An organ of less than half a new voxel vanishes, which a note says.

    Raises
    ------
    SynthDoseError
        If the axes are not parallel, or nothing of the phantom lies in `grid`.
    """
    if phantom.grid.matches(grid):
        return phantom
    if np.abs(phantom.grid.directions - grid.directions).max() > 1e-4:
        raise SynthDoseError(
            "The new voxels of a phantom have to be parallel to the old ones. Choose another voxel size of the same axes."
        )
    parts = _parts(phantom, grid)
    if not (parts.owner != VACUUM).any():
        raise SynthDoseError("Nothing of the phantom lies in the new grid. Give a grid that covers the patient.")
    owners = len(phantom.labels.organs) + 2
    voxel_mm3 = 1000 * grid.voxel_volume_ml
    chosen = _share_out(parts, owners, voxel_mm3)
    owner, target = parts.owner[chosen], parts.target[chosen]
    density = parts.mass[chosen] / np.maximum(parts.volume[chosen], 1e-12)
    wanted: Floats = np.bincount(parts.owner, weights=parts.mass, minlength=owners).astype(np.float64)
    reached: Floats = np.bincount(owner, weights=density * voxel_mm3, minlength=owners).astype(np.float64)
    factor = np.divide(wanted, reached, out=np.ones(owners), where=reached > 0)
    notes = _notes(phantom, grid, wanted, reached, factor)

    body = owner != VACUUM
    here, values = target[body], (density * factor[owner])[body].astype(np.float32)
    number, materials = compact_materials(parts.material[chosen][body].astype(np.uint8), values, phantom.materials)
    new_density, new_material = np.zeros(grid.size, np.float32), np.zeros(grid.size, np.uint8)
    new_density[here], new_material[here] = values, number
    indices = np.array([0, 0, *(organ.index for organ in phantom.labels.organs)], np.uint16)
    labels = np.zeros(grid.size, np.uint16)
    labels[target] = indices[owner]
    label_map = LabelMap(grid, labels.reshape(grid.shape), phantom.labels.organs, phantom.labels.notes)
    return VoxelPhantom(
        grid,
        new_material.reshape(grid.shape),
        new_density.reshape(grid.shape),
        materials,
        label_map,
        (*phantom.notes, *notes),
    )


def _overlaps(source: VoxelGrid, target: VoxelGrid, axis: int) -> tuple[Integers, Integers, Floats]:
    """Pieces into which the voxel borders of both grids cut one axis (i, j, k): source index, target index, length, mm."""
    offset = float((target.ijk_to_ras[:3, 3] - source.ijk_to_ras[:3, 3]) @ source.directions[:, axis])
    sizes = source.spacing_mm[axis], target.spacing_mm[axis]
    borders = [
        (np.arange(grid.shape[2 - axis] + 1) - 0.5) * size + start
        for grid, size, start in ((source, sizes[0], 0.0), (target, sizes[1], offset))
    ]
    low, high = max(b[0] for b in borders), min(b[-1] for b in borders)
    cuts = np.unique(np.clip(np.concatenate(borders), low, high)) if low < high else np.zeros(1)
    lengths = np.diff(cuts)
    middles = (cuts[1:] + cuts[:-1])[lengths > 1e-6] / 2
    places = [np.clip(np.searchsorted(b, middles, side="right") - 1, 0, b.size - 2).astype(np.int64) for b in borders]
    return places[0], places[1], lengths[lengths > 1e-6]


def _parts(phantom: VoxelPhantom, grid: VoxelGrid) -> _Parts:
    """Volumes and masses that old and new voxels share, summed per new voxel and organ; slice by slice to save memory."""
    (si, ti, li), (sj, tj, lj), (sk, tk, lk) = (_overlaps(phantom.grid, grid, axis) for axis in range(3))
    count = len(phantom.materials)
    owner_of = np.zeros(max((o.index for o in phantom.labels.organs), default=0) + 1, np.int64)
    owner_of[[o.index for o in phantom.labels.organs]] = np.arange(2, len(phantom.labels.organs) + 2)
    kinds = (len(phantom.labels.organs) + 2) * count
    in_slice = tj[:, None] * grid.shape[2] + ti
    area = lj[:, None] * li
    collected = []
    for k in range(grid.shape[0]):
        keys, volumes, masses = [], [], []
        for place in np.flatnonzero(tk == k):
            density = phantom.density_g_cm3[sk[place]][sj][:, si].astype(np.float64)
            label = phantom.labels.labels[sk[place]][sj][:, si]
            material = phantom.material_index[sk[place]][sj][:, si]
            owner = owner_of[label]
            owner[(owner == 0) & (density > 0)] = UNLABELLED
            body = owner != VACUUM
            volume = (area * lk[place])[body]
            keys.append(in_slice[body] * kinds + owner[body] * count + material[body])
            volumes.append(volume)
            masses.append(volume * density[body])
        collected.append(_slice_parts(grid, k, kinds, count, keys, volumes, masses))
    return _Parts(*(np.concatenate(column) for column in zip(*collected, strict=True)))


def _slice_parts(
    grid: VoxelGrid, k: int, kinds: int, count: int, keys: list[Integers], volumes: list[Floats], masses: list[Floats]
) -> tuple[Integers, Integers, Floats, Floats, Integers]:
    """Sum the pieces of one new slice, and add the vacuum that fills its voxels up."""
    pixels = grid.shape[1] * grid.shape[2]
    found, place = np.unique(np.concatenate(keys) if keys else np.zeros(0, np.int64), return_inverse=True)
    volume = np.bincount(place, weights=np.concatenate(volumes) if keys else None, minlength=found.size)
    mass = np.bincount(place, weights=np.concatenate(masses) if keys else None, minlength=found.size)
    pixel, kind = found // kinds, found % kinds
    group = found // count  # pixel and organ; the materials of one organ stand together
    start = np.flatnonzero(np.concatenate([[True], group[1:] != group[:-1]])) if found.size else np.zeros(0, np.int64)
    if found.size:
        which = np.repeat(np.arange(start.size), np.diff([*start, found.size]))
        order = np.lexsort((volume, which))
        main = order[np.concatenate([start[1:], [found.size]]) - 1]
        material = (kind % count)[main]
        volume, mass = np.add.reduceat(volume, start), np.add.reduceat(mass, start)
    else:
        material = np.zeros(0, np.int64)
    pixel, owner = pixel[start], (kind // count)[start]
    voxel_mm3 = 1000 * grid.voxel_volume_ml
    empty = voxel_mm3 - np.bincount(pixel, weights=volume, minlength=pixels)
    bare = np.flatnonzero(empty > 1e-6 * voxel_mm3)
    zeros = np.zeros(bare.size)
    everything = (
        np.concatenate([pixel, bare]) + k * pixels,
        np.concatenate([owner, np.full(bare.size, VACUUM)]),
        np.concatenate([volume, empty[bare]]),
        np.concatenate([mass, zeros]),
        np.concatenate([material, zeros.astype(np.int64)]),
    )
    order = np.argsort(everything[0], kind="stable")
    return tuple(column[order] for column in everything)  # type: ignore[return-value]


def _share_out(parts: _Parts, owners: int, voxel_mm3: float) -> Integers:
    """Place in `parts` of the organ that gets each new voxel."""
    start = np.flatnonzero(np.concatenate([[True], parts.target[1:] != parts.target[:-1]]))
    candidates = np.diff([*start, parts.target.size])
    settled = start[candidates == 1]
    mixed = np.repeat(candidates > 1, candidates)
    pieces = np.flatnonzero(mixed)
    if not pieces.size:
        return settled
    # voxels of commensurable sizes share in a few steps only: chance decides between equal shares, or none could get its volume
    chance = TIE_BREAK * np.random.default_rng(0).random(pieces.size)
    owner, share = parts.owner[pieces], parts.volume[pieces] / voxel_mm3 + chance
    first = np.flatnonzero(np.concatenate([[True], parts.target[pieces][1:] != parts.target[pieces][:-1]]))
    length = np.diff([*first, pieces.size])
    volume = np.bincount(parts.owner, weights=parts.volume, minlength=owners) / voxel_mm3
    quota = np.rint(volume) - np.bincount(parts.owner[settled], minlength=owners)
    rivals = np.maximum(np.bincount(owner, minlength=owners), 1)
    bonus, step, best, chosen = np.zeros(owners), np.ones(owners), np.inf, first
    before: Floats = np.zeros(owners)
    for _ in range(ROUNDS):
        score = share + bonus[owner]
        top = np.repeat(np.maximum.reduceat(score, first), length)
        winners = np.flatnonzero(score >= top)
        missing: Floats = (quota - np.bincount(owner[winners], minlength=owners)).astype(np.float64)
        off = float((np.abs(missing) / np.maximum(volume, 10)).sum())
        if off < best:
            best, chosen = off, winners
        if (np.abs(missing) <= np.maximum(1, SETTLED * volume)).all():
            break
        # steps grow while an organ stays short of its volume, and halve when it passes it
        step *= np.where(missing * before < 0, 0.5, 1.2)
        before = missing
        bonus += step * missing / rivals
    return np.concatenate([settled, pieces[chosen]])


def _notes(phantom: VoxelPhantom, grid: VoxelGrid, wanted: Floats, reached: Floats, factor: Floats) -> list[str]:
    sizes = " x ".join(f"{s:.3g}" for s in grid.spacing_mm)
    notes = [f"The phantom was brought to voxels of {sizes} mm; every organ kept its mass."]
    names = [organ.name for organ in phantom.labels.organs]
    lost = [f"{name} ({wanted[n] / 1000:.2g} g)" for n, name in enumerate(names, start=2) if wanted[n] > 0 and not reached[n]]
    if lost:
        notes.append(f"Organs smaller than half a new voxel vanished: {', '.join(lost)}.")
    changed = [
        f"{name} by {100 * (factor[n] - 1):+.0f} %"
        for n, name in enumerate(names, start=2)
        if reached[n] and abs(factor[n] - 1) > REMARKABLE
    ]
    if changed:
        notes.append(f"Densities had to be changed to keep the mass in few voxels: {', '.join(changed)}.")
    return notes
