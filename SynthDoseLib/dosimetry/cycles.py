"""Dose of several treatment cycles together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from ..core import DoseMap, SynthDoseError, VoxelGrid


def cumulative_dose(
    doses: Sequence[DoseMap], transforms: Sequence[ArrayLike | None] | None = None, *, reference: VoxelGrid | None = None
) -> tuple[DoseMap, tuple[str, ...]]:
    """Add the doses of several cycles on the grid of one of them.

    Parameters
    ----------
    doses : sequence of DoseMap
        Absolute doses, or BED maps.
    transforms : sequence of (4, 4) array_like or None, one per dose, optional
        RAS mm of the cycle to RAS mm of the reference (registration of its CT); None where they agree.
    reference : VoxelGrid, optional
        Grid of the sum; that of the first dose if not given.

    Returns
    -------
    DoseMap
        Standard errors are added in quadrature: cycles are independent.
    tuple of str
        What was resampled, and how much of it lies outside the reference.

    Raises
    ------
    SynthDoseError
        If a dose is per decay, there is none, or a transform is no invertible affine matrix.
    """
    if not doses:
        raise SynthDoseError("There is no dose to add up.")
    moves = [None] * len(doses) if transforms is None else list(transforms)
    if len(moves) != len(doses):
        raise SynthDoseError(f"{len(doses)} doses need as many transforms (or None); found {len(moves)}.")
    grid = doses[0].grid if reference is None else reference
    total = np.zeros(grid.shape, np.float64)
    variance = np.zeros(grid.shape, np.float64)
    notes: list[str] = []
    for cycle, (dose, move) in enumerate(zip(doses, moves, strict=True), start=1):
        if dose.per:
            raise SynthDoseError(f"Dose {cycle} is per {dose.per}; only absolute doses add up.")
        if move is None and dose.grid.matches(grid):
            total += dose.dose_Gy
            variance += dose.sigma_Gy.astype(np.float64) ** 2
            continue
        matrix = _checked(move, cycle)
        moved = _resampled(dose.dose_Gy, dose.grid, grid, matrix)
        total += moved
        variance += _resampled(dose.sigma_Gy, dose.grid, grid, matrix) ** 2
        inside = float(moved.sum()) * grid.voxel_volume_ml
        before = (
            float(dose.dose_Gy.sum(dtype=np.float64)) * dose.grid.voxel_volume_ml * abs(float(np.linalg.det(matrix[:3, :3])))
        )
        kept = f"; {inside / before:.0%} of its dose integral lie in the sum" if before > 0 else ""
        notes.append(f"Cycle {cycle} was resampled to the grid of the sum (trilinear){kept}.")
    return DoseMap(grid, total.astype(np.float32), np.sqrt(variance).astype(np.float32)), tuple(notes)


def _checked(move: ArrayLike | None, cycle: int) -> NDArray[np.float64]:
    matrix = np.eye(4) if move is None else np.asarray(move, dtype=np.float64)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or not np.allclose(matrix[3], (0, 0, 0, 1)):
        raise SynthDoseError(f"The transform of cycle {cycle} has to be a finite 4 x 4 affine matrix (RAS mm).")
    if abs(np.linalg.det(matrix[:3, :3])) < 1e-3:
        raise SynthDoseError(f"The transform of cycle {cycle} squeezes the body flat; check its matrix.")
    return matrix


def _resampled(
    values: NDArray[np.float32], source: VoxelGrid, target: VoxelGrid, matrix: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Values at the voxel centres of `target`, 0 outside; `matrix` takes RAS of the source to RAS of the target."""
    to_source = np.linalg.inv(source.ijk_to_ras) @ np.linalg.inv(matrix) @ target.ijk_to_ras
    # scipy counts k, j, i
    turned = to_source[:3, :3][::-1, ::-1]
    return np.asarray(
        ndimage.affine_transform(
            values.astype(np.float64), turned, to_source[:3, 3][::-1], target.shape, order=1, mode="constant", cval=0.0
        )
    )
