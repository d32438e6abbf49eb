"""From what files say about place (LPS, letters, left-handed axes) to the grids of the library (RAS, right-handed)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..core import SynthDoseError, VoxelGrid

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_LETTERS = {
    "R": (1.0, 0.0, 0.0),
    "L": (-1.0, 0.0, 0.0),
    "A": (0.0, 1.0, 0.0),
    "P": (0.0, -1.0, 0.0),
    "S": (0.0, 0.0, 1.0),
    "I": (0.0, 0.0, -1.0),
}


def directions_of(orientation: str) -> NDArray[np.float64]:
    """Unit vectors of i, j, k in RAS, as columns (3, 3), of three letters: where each axis increases to.

    Raises
    ------
    SynthDoseError
        Unless there is one letter of each pair R/L, A/P, S/I.

    Examples
    --------
    >>> directions_of("LPS").diagonal()
    array([-1., -1.,  1.])
    """
    letters = str(orientation).strip().upper()
    axes = [{"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}.get(letter) for letter in letters]
    if len(letters) != 3 or sorted(a for a in axes if a is not None) != [0, 1, 2]:
        raise SynthDoseError(
            f"orientation = '{orientation}' is not understood. Give three letters, one of each pair R/L, A/P, S/I, that say "
            "towards where the columns, rows and slices increase; 'LPS' is usual in DICOM, 'RAS' in NIfTI."
        )
    return np.array([_LETTERS[letter] for letter in letters]).T


def orientation_of(matrix: NDArray[np.float64]) -> str:
    """Three letters of the nearest patient axes of an ``ijk_to_ras`` matrix (oblique ones are rounded)."""
    letters = []
    for column in matrix[:3, :3].T:
        axis = int(np.abs(column).argmax())
        letters.append(("RL", "AP", "SI")[axis][0 if column[axis] > 0 else 1])
    return "".join(letters)


def matrix_from(directions: ArrayLike, spacing_mm: ArrayLike, origin: ArrayLike) -> NDArray[np.float64]:
    """4 x 4 matrix from unit vectors (3, 3, as columns), spacing (3,) and origin (3,)."""
    matrix = np.eye(4)
    matrix[:3, :3] = np.asarray(directions, dtype=np.float64) * np.asarray(spacing_mm, dtype=np.float64)
    matrix[:3, 3] = np.asarray(origin, dtype=np.float64)
    return matrix


def centred_matrix(shape: tuple[int, int, int], spacing_mm: Sequence[float], orientation: str) -> NDArray[np.float64]:
    """``ijk_to_ras`` of an image (nk, nj, ni) whose file gives no position: its middle is at RAS (0, 0, 0)."""
    matrix = matrix_from(directions_of(orientation), spacing_mm, np.zeros(3))
    matrix[:3, 3] = -matrix[:3, :3] @ ((np.asarray(shape[::-1], dtype=np.float64) - 1) / 2)
    return matrix


def right_handed(
    values: NDArray[Any], ijk_to_ras: NDArray[np.float64]
) -> tuple[NDArray[Any], NDArray[np.float64], tuple[str, ...]]:
    """Re-order a left-handed array so that i, j, k turn as R, A, S do; every voxel keeps its place in the patient.

    Slices are reversed if they run towards the feet, columns otherwise. The third value is a note, or nothing.
    """
    if np.linalg.det(ijk_to_ras[:3, :3]) > 0:
        return values, ijk_to_ras, ()
    name = orientation_of(ijk_to_ras)
    axis = 2 if name[2] == "I" else 0
    matrix = ijk_to_ras.copy()
    count = values.shape[2 - axis]
    matrix[:3, 3] += matrix[:3, axis] * (count - 1)
    matrix[:3, axis] *= -1
    note = (
        f"The file's axes are left-handed ({name}); the {'slices' if axis == 2 else 'columns'} were put in reverse order "
        f"({orientation_of(matrix)}), without moving or mirroring anything in the patient."
    )
    return np.ascontiguousarray(np.flip(values, axis=2 - axis)), matrix, (note,)


def grid_of(path: Path, values: NDArray[Any], ijk_to_ras: NDArray[np.float64]) -> VoxelGrid:
    """Grid of an array (nk, nj, ni, ...) read from a file; what is wrong with it is told with the file's name."""
    try:
        return VoxelGrid((values.shape[0], values.shape[1], values.shape[2]), ijk_to_ras)
    except SynthDoseError as error:
        raise SynthDoseError(f"{path}: {error}") from error


def require_spacing(spacing_mm: Sequence[float]) -> tuple[float, float, float]:
    """Check a spacing (i, j, k) given by the caller, mm."""
    try:
        spacing = tuple(float(s) for s in spacing_mm)
    except (TypeError, ValueError):
        spacing = ()
    if len(spacing) != 3 or not all(np.isfinite(s) and 0 < s < 1000 for s in spacing):
        raise SynthDoseError(
            f"spacing_mm = {spacing_mm!r} is not understood. Give three positive numbers in mm: between columns, rows, slices."
        )
    return spacing[0], spacing[1], spacing[2]


def lps_matrix(grid: VoxelGrid) -> NDArray[np.float64]:
    """4 x 4 matrix from voxel (i, j, k, 1) to LPS, mm: what DICOM and ITK write."""
    return LPS_TO_RAS @ grid.ijk_to_ras
