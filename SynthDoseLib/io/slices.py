"""From parallel slices at measured positions to one regular grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..core import SynthDoseError
from .geometry import LPS_TO_RAS, matrix_from

ORIENTATION_TOLERANCE = 1e-3
# DICOM writes positions with about 6 digits, and scanners round table positions to 0.01 mm
POSITION_TOLERANCE_MM = 0.01
POSITION_TOLERANCE = 0.005  # of the spacing
SHIFT_TOLERANCE = 0.05  # of a pixel, across the slices
GAP_OF_MISSING_SLICE = 1.5


@dataclass(frozen=True)
class Placement:
    """Where one slice is: LPS, mm.

    Attributes
    ----------
    position : tuple of 3 float
        Centre of the first pixel.
    row, column : tuple of 3 float
        Directions in which the column and the row index increase (DICOM's first and second triple).
    spacing : tuple of 2 float
        Between columns, between rows.
    number : int or None
        InstanceNumber.
    name : str
        For messages.
    """

    position: tuple[float, float, float]
    row: tuple[float, float, float]
    column: tuple[float, float, float]
    spacing: tuple[float, float]
    number: int | None
    name: str


def order_slices(path: Path, placements: Sequence[Placement]) -> list[int]:
    """Return the order along row x column; refuse mixed orientations, pixel sizes, and slices at one place."""
    first = placements[0]
    for other in placements[1:]:
        apart = np.abs(np.subtract((first.row, first.column), (other.row, other.column))).max()
        if apart > ORIENTATION_TOLERANCE:
            raise SynthDoseError(
                f"{path}: the slices have different orientations ({first.name}: {_direction(first)}; {other.name}: "
                f"{_direction(other)}). Put the slices of one orientation into a folder of their own."
            )
        if not np.allclose(first.spacing, other.spacing, rtol=1e-3):
            raise SynthDoseError(
                f"{path}: the slices have different pixel sizes ({first.name}: {first.spacing} mm; {other.name}: "
                f"{other.spacing} mm). Put the slices of one size into a folder of their own."
            )
    heights = _heights(placements)
    order = [int(n) for n in np.argsort(heights, kind="stable")]
    gaps = np.diff(heights[order])
    same = np.flatnonzero(gaps < 1e-3)
    if same.size:
        pairs = [f"{placements[order[n]].name} and {placements[order[n + 1]].name}" for n in same[:3]]
        at = ", ".join(f"{heights[order[n]]:.2f}" for n in same[:3])
        raise SynthDoseError(
            f"{path}: {same.size} slice position{'s are' if same.size > 1 else ' is'} there more than once (at {at} mm: "
            f"{'; '.join(pairs)}). The folder holds a slice twice, or several time points, echoes or "
            "reconstructions in one series: keep one of each position."
        )
    return order


def require_no_gap(path: Path, placements: Sequence[Placement], order: Sequence[int]) -> None:
    """Refuse a series in which a slice is missing, saying where."""
    heights = _heights(placements)[list(order)]
    gaps = np.diff(heights)
    if gaps.size < 2:
        return
    numbers = [placements[n].number for n in order]
    usual = float(np.median(gaps))
    missing = []
    for n, gap in enumerate(gaps):
        neighbours = [gaps[m] for m in (n - 1, n + 1) if 0 <= m < gaps.size]
        alone = gap > GAP_OF_MISSING_SLICE * max(neighbours)
        before, after = numbers[n], numbers[n + 1]
        skipped = before is not None and after is not None and abs(after - before) > 1 and gap > GAP_OF_MISSING_SLICE * usual
        if alone or skipped:
            missing.append(n)
    if not missing:
        return
    places = ", ".join(f"between {heights[n]:.2f} and {heights[n + 1]:.2f} mm" for n in missing[:4])
    raise SynthDoseError(
        f"{path}: slices are missing {places} along the slice direction (slices are {usual:.2f} mm apart elsewhere). "
        "Export the series again, complete."
    )


def regular_volume(
    stack: NDArray[np.float32], placements: Sequence[Placement], thickness_mm: float, fill: float
) -> tuple[NDArray[np.float32], NDArray[np.float64], tuple[str, ...]]:
    """Bring ordered slices to a regular, orthogonal grid.

    Parameters
    ----------
    stack : ndarray of float32, (nk, nj, ni)
        Slices in order.
    placements : sequence of Placement
        Of the slices, in the same order.
    thickness_mm : float
        Spacing to use for a single slice.
    fill : float
        Value where a shifted slice leaves the grid empty: air, or no activity.

    Returns
    -------
    values : ndarray of float32, (nk, nj, ni)
    ijk_to_ras : ndarray, (4, 4)
    notes : tuple of str
        What was resampled.
    """
    first = placements[0]
    row, column, normal = _axes(first)
    positions = np.array([p.position for p in placements], dtype=np.float64)
    local = (positions - positions[0]) @ np.stack([row, column, normal]).T
    spacing = np.asarray(first.spacing, dtype=np.float64)
    notes: list[str] = []
    shifts = local[:, :2] / spacing
    if np.abs(shifts).max() > SHIFT_TOLERANCE:
        stack, lowest = _straighten(stack, shifts, fill)
        positions[0] += lowest[0] * spacing[0] * row + lowest[1] * spacing[1] * column
        angle = np.degrees(np.arctan2(np.linalg.norm(local[-1, :2]), abs(local[-1, 2])))
        notes.append(
            f"The slices are shifted against each other (sheared by {angle:.1f} degrees, as with a tilted gantry): "
            "they were resampled (linearly, within the slices) to a straight grid."
        )
    heights = local[:, 2]
    stack, step, note = _even_out(stack, heights, thickness_mm)
    matrix = matrix_from(np.stack([row, column, normal], axis=1), (spacing[0], spacing[1], step), positions[0])
    return stack, LPS_TO_RAS @ matrix, (*notes, *note)


def _even_out(
    stack: NDArray[np.float32], heights: NDArray[np.float64], thickness_mm: float
) -> tuple[NDArray[np.float32], float, tuple[str, ...]]:
    """Interpolate to even slice spacing if the slices are not evenly spaced."""
    count = len(heights)
    if count == 1:
        return stack, thickness_mm, ()
    gaps = np.diff(heights)
    mean = float(heights[-1] - heights[0]) / (count - 1)
    apart = np.abs(heights - heights[0] - mean * np.arange(count)).max()
    if apart <= max(POSITION_TOLERANCE_MM, POSITION_TOLERANCE * mean):
        return stack, mean, ()
    # little jitter keeps the number of slices; really different gaps take the finest
    step = mean if gaps.max() < 1.1 * gaps.min() else float(gaps.min())
    wanted = np.arange(int(np.floor((heights[-1] - heights[0]) / step + 1e-6)) + 1) * step
    place = np.interp(wanted, heights - heights[0], np.arange(count))
    lower = np.minimum(place.astype(int), count - 2)
    weight = (place - lower).astype(np.float32)[:, None, None]
    even = stack[lower] * (1 - weight) + stack[lower + 1] * weight
    note = (
        f"The slices are not evenly spaced ({gaps.min():.3f} to {gaps.max():.3f} mm): they were resampled (linearly) "
        f"to {len(wanted)} slices every {step:.4f} mm."
    )
    return even, step, (note,)


def _straighten(
    stack: NDArray[np.float32], shifts: NDArray[np.float64], fill: float
) -> tuple[NDArray[np.float32], NDArray[np.int_]]:
    """Shift every slice by its own fraction of pixels onto a common grid that covers them all."""
    lowest = np.floor(shifts.min(axis=0) + 1e-6).astype(int)
    highest = np.ceil(shifts.max(axis=0) - 1e-6).astype(int)
    nk, nj, ni = stack.shape
    size = (nj + highest[1] - lowest[1], ni + highest[0] - lowest[0])
    result = np.full((nk, *size), fill, dtype=np.float32)
    for k in range(nk):
        across, down = shifts[k] - lowest
        matrix_offset = (-down, -across)
        ndimage.affine_transform(
            stack[k], np.ones(2), offset=matrix_offset, output_shape=size, output=result[k], order=1, mode="constant", cval=fill
        )
    return result, lowest


def _axes(placement: Placement) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    row, column = np.asarray(placement.row, dtype=np.float64), np.asarray(placement.column, dtype=np.float64)
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if min(lengths) < 0.5 or abs(row @ column) > ORIENTATION_TOLERANCE:
        raise SynthDoseError(
            f"{placement.name}: its rows and columns are not at right angles ({_direction(placement)}); "
            "the header is damaged or the image sheared. Resample the image to a regular grid first."
        )
    row = row / lengths[0]
    # six written digits leave an angle of some 1e-6; make it exact so that the grid is orthogonal
    column = column - (column @ row) * row
    column /= np.linalg.norm(column)
    return row, column, np.cross(row, column)


def _heights(placements: Sequence[Placement]) -> NDArray[np.float64]:
    normal = _axes(placements[0])[2]
    return np.array([p.position for p in placements], dtype=np.float64) @ normal


def _direction(placement: Placement) -> str:
    return (
        "rows along ("
        + ", ".join(f"{x:.3f}" for x in placement.row)
        + "), columns along ("
        + ", ".join(f"{x:.3f}" for x in placement.column)
        + ")"
    )
