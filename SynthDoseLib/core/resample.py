"""Bringing an array from one grid to another."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .errors import SynthDoseError
from .grid import VoxelGrid
from .volumes import LabelMap, require_shape

CUT_SHARE, MANY = 0.001, 12


def resample(
    values: NDArray[Any], source: VoxelGrid, target: VoxelGrid, *, linear: bool = True, fill: float = 0.0
) -> NDArray[Any]:
    """Sample an array of one grid at the voxel centres of another.

    Parameters
    ----------
    values : ndarray, (nk, nj, ni) of `source`
    source, target : VoxelGrid
    linear : bool
        Trilinear; otherwise nearest neighbour (for labels).
    fill : float
        Value outside `source`.

    Returns
    -------
    ndarray, shape of `target`
        float32 if linear, otherwise the type of `values`. Within half a voxel of the border of `source` the
        value of the border voxel is used.
    """
    require_shape("The array to resample", values, source.shape)
    if source.matches(target):
        return values.astype(np.float32) if linear else values.copy()
    dtype = np.dtype(np.float32) if linear else values.dtype
    order = 1 if linear else 0
    step = np.linalg.inv(source.ijk_to_ras[:3, :3]) @ target.ijk_to_ras[:3, :3]
    start = source.to_ijk(target.ijk_to_ras[:3, 3])
    along = np.diag(step)
    if np.abs(step - np.diag(along)).max() * max(target.shape) < 1e-3:
        return _resample_parallel(values, target.shape, along[::-1], start[::-1], dtype, order, fill)
    result = np.empty(target.shape, dtype)
    nk, nj, ni = target.shape
    rows, columns = np.mgrid[0:nj, 0:ni]
    upper = np.asarray(source.shape, dtype=np.float64)[:, None, None] - 0.5
    for k in range(nk):
        ijk = np.stack([columns, rows, np.full_like(rows, k)], axis=-1)
        kji = source.to_ijk(target.to_ras(ijk))[..., ::-1].transpose(2, 0, 1)
        inside = ((kji >= -0.5) & (kji <= upper)).all(axis=0)
        sampled = ndimage.map_coordinates(values, kji, output=dtype, order=order, mode="nearest")
        result[k] = np.where(inside, sampled, dtype.type(fill))
    return result


def _resample_parallel(
    values: NDArray[Any],
    shape: tuple[int, int, int],
    step: NDArray[np.float64],
    start: NDArray[np.float64],
    dtype: np.dtype[Any],
    order: int,
    fill: float,
) -> NDArray[Any]:
    """Sample where the axes of both grids are parallel: `step` and `start` are source voxels per axis (k, j, i)."""
    result = ndimage.affine_transform(values, step, offset=start, output_shape=shape, output=dtype, order=order, mode="nearest")
    for axis in range(3):
        place = start[axis] + step[axis] * np.arange(shape[axis])
        outside = (place < -0.5) | (place > values.shape[axis] - 0.5)
        if outside.any():
            result[tuple(outside if n == axis else slice(None) for n in range(3))] = dtype.type(fill)
    return result


def resample_mean(values: NDArray[Any], source: VoxelGrid, target: VoxelGrid, *, fill: float = 0.0) -> NDArray[np.float32]:
    """Average an intensity (activity concentration, density) over the voxels of a coarser or oblique grid.

    As `resample`, but each target voxel is sampled at the centres of equal parts no larger than a source voxel,
    and the mean of them is taken, so that sums over volume are kept where `target` covers `source`.
    """
    if source.matches(target):
        return values.astype(np.float32)
    parts = np.maximum(1, np.ceil(np.asarray(target.spacing_mm) / np.asarray(source.spacing_mm) - 1e-3)).astype(int)
    total = np.zeros(target.shape, np.float64)
    for offset in np.ndindex(*(int(n) for n in parts)):
        shift = (np.asarray(offset) + 0.5) / parts - 0.5
        matrix = target.ijk_to_ras.copy()
        matrix[:3, 3] = target.to_ras(shift)
        total += resample(values, source, VoxelGrid(target.shape, matrix), fill=fill)
    return (total / parts.prod()).astype(np.float32)


def resample_labels(labels: LabelMap, target: VoxelGrid) -> LabelMap:
    """Return the label map on another grid (nearest neighbour), with a note that says so.

    Raises
    ------
    SynthDoseError
        If labels exist but none of them falls inside `target`: the images are of different places.
    """
    if labels.grid.matches(target):
        return labels
    values = resample(np.asarray(labels.labels), labels.grid, target, linear=False)
    if labels.labels.any() and not values.any():
        raise SynthDoseError(
            f"The label map does not overlap the image: labels are around RAS {_middle(labels.grid)} mm, the image around "
            f"{_middle(target)} mm. Check that both belong to the same patient and frame of reference."
        )
    note = f"The label map was resampled from {_describe(labels.grid)} to {_describe(target)} (nearest neighbour)."
    return LabelMap(target, values, labels.organs, (*labels.notes, note, *_cut_notes(labels, target)))


def _cut_notes(labels: LabelMap, target: VoxelGrid) -> tuple[str, ...]:
    """A note that names the organs of which a share has no place on another grid."""
    inside = voxels_inside(labels.grid, target)
    if inside.all():
        return ()
    count = len(labels.organs) and 1 + max(organ.index for organ in labels.organs)
    total = np.bincount(labels.labels.ravel(), minlength=count)
    lost = np.bincount(labels.labels[~inside], minlength=count)
    cut = [
        f"{organ.name} {lost[organ.index] / total[organ.index]:.1%}"
        for organ in labels.organs
        if lost[organ.index] > CUT_SHARE * total[organ.index]
    ]
    if not cut:
        return ()
    listed = ", ".join(cut[:MANY]) + (f" and {len(cut) - MANY} more" if len(cut) > MANY else "")
    return (
        f"Cut by the border of the image, with so much of them outside: {listed}. Their doses are those of the part inside.",
    )


def voxels_inside(grid: VoxelGrid, other: VoxelGrid) -> NDArray[np.bool_]:
    """Boolean array (nk, nj, ni) of the voxels of `grid` whose centres lie inside another grid."""
    return resample(np.ones(other.shape, np.uint8), other, grid, linear=False) > 0


def overlap_fraction(first: VoxelGrid, second: VoxelGrid) -> float:
    """Fraction of the volume of `first` that lies inside `second` (sampled at up to 32 points per axis)."""
    axes = [np.unique(np.linspace(0, n - 1, min(n, 32))) for n in first.shape[::-1]]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    ijk = second.to_ijk(first.to_ras(points))
    size = np.asarray(second.shape[::-1])
    return float(((ijk >= -0.5) & (ijk <= size - 0.5)).all(axis=-1).mean())


def _middle(grid: VoxelGrid) -> tuple[int, ...]:
    return tuple(int(x) for x in grid.to_ras((np.asarray(grid.shape[::-1]) - 1) / 2).round())


def _describe(grid: VoxelGrid) -> str:
    sizes = " x ".join(str(n) for n in grid.shape[::-1])
    return f"{sizes} voxels of {' x '.join(f'{s:.3g}' for s in grid.spacing_mm)} mm"
