"""Masks of contours whose volume is that of the contours, also where voxels are coarse."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..core import VoxelGrid
from .polygons import polygon_area
from .rtstruct import Structure, contour_slabs, rasterise

MANY_VOXELS = 50_000  # of that many, those at the boundary err by far less than 1 % together
SMALL_ML = 1.0
FINE_VOXELS = 100_000  # a structure is looked at in about as many
MOST_PARTS = 8  # of a voxel along an axis
ALLOWED = 0.005  # of the volume
ALLOWED_VOXELS = 0.5
PLAIN = 0.03  # areas and samples differ by less, unless contours cross or the image cuts the structure


def rasterise_with_volume(
    structure: Structure, grid: VoxelGrid, apart_mm: float | None = None
) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """As `rasterise`, but a small structure on coarse voxels keeps its volume too.

    Voxels whose centres lie inside may be too many or too few by several per cent if there are only some hundred. The share of
    each voxel that lies inside is then measured on voxels that are finer in all directions; where the volume is off by more
    than 0.5 %, those with the largest share are taken in, or those with the smallest share left out, until it is right.

    Parameters
    ----------
    structure, grid, apart_mm
        See `rasterise`.

    Returns
    -------
    mask : ndarray of bool, (nk, nj, ni)
    notes : tuple of str
    """
    mask, notes = rasterise(structure, grid, apart_mm)
    count = int(mask.sum())
    if not structure.contours or count > MANY_VOXELS or count * grid.voxel_volume_ml < SMALL_ML / 2:
        return mask, notes
    box, shares = _shares(structure, grid, apart_mm, count)
    wanted = _volume_in_voxels(structure, grid, apart_mm, float(shares.sum()))
    if wanted * grid.voxel_volume_ml < SMALL_ML or abs(count - wanted) <= max(ALLOWED_VOXELS + 1e-6, ALLOWED * wanted):
        return mask, notes
    inner = mask[box]
    change = round(wanted) - count
    if change > 0:
        free = np.flatnonzero(~inner & (shares > 0))
        chosen = free[np.argsort(-shares.ravel()[free], kind="stable")[:change]]
    else:
        own = np.flatnonzero(inner)
        chosen = own[np.argsort(shares.ravel()[own], kind="stable")[:-change]]
    inner.flat[chosen] = change > 0
    return mask, notes


def _shares(
    structure: Structure, grid: VoxelGrid, apart_mm: float | None, count: int
) -> tuple[tuple[slice, slice, slice], NDArray[np.float64]]:
    """Box around a structure and the share of each of its voxels that lies inside."""
    corners = np.concatenate([grid.to_ijk(contour) for contour in structure.contours])[:, ::-1]
    reach = 2.0 + (apart_mm or 0.0) / min(grid.spacing_mm)
    low = np.clip(np.floor(corners.min(axis=0) - reach), 0, np.array(grid.shape) - 1).astype(int)
    high = np.clip(np.ceil(corners.max(axis=0) + reach) + 1, low + 1, grid.shape).astype(int)
    fine_mm = (count * grid.voxel_volume_ml * 1000 / FINE_VOXELS) ** (1 / 3)
    # odd: outlines of pixels run diagonally through the centres of 2 x 2 or 4 x 4 parts, which would all count
    parts = np.clip(np.ceil(np.array(grid.spacing_mm[::-1]) / fine_mm), 1, MOST_PARTS).astype(int) // 2 * 2 + 1
    shape = (high - low) * parts
    matrix = grid.ijk_to_ras.copy()
    matrix[:3, :3] /= parts[::-1]
    matrix[:3, 3] = grid.to_ras(low[::-1] - 0.5 + 0.5 / parts[::-1])
    fine = VoxelGrid((int(shape[0]), int(shape[1]), int(shape[2])), matrix)
    # a single plane is as thick as it is for `rasterise` on the grid itself
    alone = len(contour_slabs(structure, 1.0)[0]) == 1
    mask, _ = rasterise(structure, fine, (apart_mm or grid.spacing_mm[2]) if alone else apart_mm)
    blocks = mask.reshape([n for size, part in zip(high - low, parts, strict=True) for n in (size, part)])
    k, j, i = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return (k, j, i), blocks.mean(axis=(1, 3, 5))


def _volume_in_voxels(structure: Structure, grid: VoxelGrid, apart_mm: float | None, sampled: float) -> float:
    """Area times distance of the contours, in voxels; `sampled` where that is something else than what was sampled.

    Samples alone are biased where contours run along the edges of voxels, as those of masks do.
    """
    members, thickness_mm = contour_slabs(structure, apart_mm or grid.spacing_mm[2])
    largest = max(structure.contours, key=len)
    axes = np.linalg.svd(largest - largest.mean(axis=0), full_matrices=False)[2][:2]
    flat = [contour @ axes.T for contour in structure.contours]
    total_mm3 = 0.0
    for group, thickness in zip(members, thickness_mm, strict=True):
        for number in group:
            around = sum(_encloses(flat[other], flat[number][0]) for other in group if other != number)
            total_mm3 += (-1) ** around * polygon_area(flat[number]) * float(thickness)
    exact = total_mm3 / 1000 / grid.voxel_volume_ml
    return exact if abs(exact - sampled) <= PLAIN * sampled else sampled


def _encloses(polygon: NDArray[np.float64], point: NDArray[np.float64]) -> bool:
    """Whether a point lies inside a polygon (even-odd rule)."""
    start, end = polygon, np.roll(polygon, -1, axis=0)
    across = (start[:, 1] > point[1]) != (end[:, 1] > point[1])
    with np.errstate(divide="ignore", invalid="ignore"):
        at = start[:, 0] + (point[1] - start[:, 1]) * (end[:, 0] - start[:, 0]) / (end[:, 1] - start[:, 1])
    return bool((across & (point[0] < at)).sum() % 2)
