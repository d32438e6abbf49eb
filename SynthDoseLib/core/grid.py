"""Where voxels are: a regular grid and its place in the patient (RAS, mm)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import SynthDoseError

SHEAR_TOLERANCE = 1e-4  # cosine between axes; DICOM cosines carry 6 digits, NIfTI headers float32


@dataclass(frozen=True, eq=False)
class VoxelGrid:
    """A regular voxel grid in the patient.

    Parameters
    ----------
    shape : tuple of 3 int
        Number of voxels ``(nk, nj, ni)``: slices, rows, columns, the order of the arrays.
    ijk_to_ras : array_like, (4, 4)
        Maps the centre of voxel ``(i, j, k, 1)`` to RAS, mm. The axes have to be orthogonal.

    Raises
    ------
    SynthDoseError
        If a size is not positive, a number is not finite, or the axes are sheared.

    Examples
    --------
    >>> grid = VoxelGrid.from_spacing((4, 3, 2), spacing_mm=(1.0, 2.0, 5.0))
    >>> grid.spacing_mm, grid.voxel_volume_ml
    ((1.0, 2.0, 5.0), 0.01)
    """

    shape: tuple[int, int, int]
    ijk_to_ras: NDArray[np.float64]

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape)
        if len(shape) != 3 or min(shape) < 1:
            raise SynthDoseError(f"A grid needs three positive sizes (slices, rows, columns); found {self.shape}.")
        matrix = np.array(self.ijk_to_ras, dtype=np.float64)
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or not np.allclose(matrix[3], (0, 0, 0, 1)):
            raise SynthDoseError(f"ijk_to_ras has to be a finite 4 x 4 affine matrix; found {matrix.tolist()}.")
        spacing = np.linalg.norm(matrix[:3, :3], axis=0)
        if spacing.min() <= 0:
            raise SynthDoseError(f"The voxel spacing has to be positive; found {tuple(spacing.tolist())} mm.")
        axes = matrix[:3, :3] / spacing
        shear = np.abs(axes.T @ axes - np.eye(3)).max()
        if shear > SHEAR_TOLERANCE:
            raise SynthDoseError(
                f"The image axes are not orthogonal (largest cosine between axes {shear:.4f}, allowed {SHEAR_TOLERANCE}). "
                "Resample the image to a regular grid first."
            )
        matrix.setflags(write=False)
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "ijk_to_ras", matrix)

    @classmethod
    def from_spacing(
        cls,
        shape: tuple[int, int, int],
        spacing_mm: tuple[float, float, float],
        origin_ras_mm: ArrayLike | None = None,
        directions: ArrayLike | None = None,
    ) -> VoxelGrid:
        """Build a grid from its spacing ``(i, j, k)``; without an origin its middle is at RAS (0, 0, 0).

        Parameters
        ----------
        shape : tuple of 3 int
            ``(nk, nj, ni)``.
        spacing_mm : tuple of 3 float
            Along i, j, k, mm.
        origin_ras_mm : array_like, (3,), optional
            Centre of voxel (0, 0, 0), RAS mm.
        directions : array_like, (3, 3), optional
            Columns are the unit vectors of i, j, k in RAS; identity if not given.
        """
        axes = np.eye(3) if directions is None else np.asarray(directions, dtype=np.float64)
        matrix = np.eye(4)
        matrix[:3, :3] = axes * np.asarray(spacing_mm, dtype=np.float64)
        centre = (np.asarray(shape[::-1], dtype=np.float64) - 1) / 2
        matrix[:3, 3] = -matrix[:3, :3] @ centre if origin_ras_mm is None else np.asarray(origin_ras_mm)
        return cls(shape, matrix)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size along i, j, k, mm."""
        i, j, k = np.linalg.norm(self.ijk_to_ras[:3, :3], axis=0)
        return float(i), float(j), float(k)

    @property
    def directions(self) -> NDArray[np.float64]:
        """Unit vectors of i, j, k in RAS, as columns (3, 3)."""
        return self.ijk_to_ras[:3, :3] / np.asarray(self.spacing_mm)

    @property
    def voxel_volume_ml(self) -> float:
        """Volume of one voxel, ml."""
        i, j, k = self.spacing_mm
        return i * j * k / 1000.0

    @property
    def size(self) -> int:
        """Number of voxels."""
        nk, nj, ni = self.shape
        return nk * nj * ni

    @property
    def is_right_handed(self) -> bool:
        """Whether i, j, k turn as R, A, S do."""
        return bool(np.linalg.det(self.ijk_to_ras[:3, :3]) > 0)

    def to_ras(self, ijk: ArrayLike) -> NDArray[np.float64]:
        """RAS positions, mm, (..., 3) of voxel coordinates ``(i, j, k)``, (..., 3)."""
        return np.asarray(ijk, dtype=np.float64) @ self.ijk_to_ras[:3, :3].T + self.ijk_to_ras[:3, 3]

    def to_ijk(self, ras_mm: ArrayLike) -> NDArray[np.float64]:
        """Voxel coordinates ``(i, j, k)``, (..., 3), not rounded, of RAS positions, mm, (..., 3)."""
        inverse = np.linalg.inv(self.ijk_to_ras)
        return np.asarray(ras_mm, dtype=np.float64) @ inverse[:3, :3].T + inverse[:3, 3]

    def matches(self, other: VoxelGrid, tolerance_mm: float = 1e-3) -> bool:
        """Whether both grids have the same voxels: equal shape, corners within `tolerance_mm`."""
        if self.shape != other.shape:
            return False
        ni, nj, nk = self.shape[::-1]
        corners = [(i, j, k) for i in (0, ni) for j in (0, nj) for k in (0, nk)]
        return bool(np.abs(self.to_ras(corners) - other.to_ras(corners)).max() < tolerance_mm)

    def crop(self, lower_kji: tuple[int, int, int], shape: tuple[int, int, int]) -> VoxelGrid:
        """Return the sub-grid of `shape` (nk, nj, ni) whose first voxel is `lower_kji` of this one."""
        matrix = self.ijk_to_ras.copy()
        matrix[:3, 3] = self.to_ras(lower_kji[::-1])
        return VoxelGrid(shape, matrix)

    def with_spacing(self, spacing_mm: tuple[float, float, float]) -> VoxelGrid:
        """Return a grid of the same axes that covers this one with voxels of `spacing_mm` (i, j, k)."""
        old, new = np.asarray(self.spacing_mm), np.asarray(spacing_mm, dtype=np.float64)
        size_ijk = np.asarray(self.shape[::-1])
        # the tolerance keeps 100 voxels of 1.5 mm at 75 of 2 mm in spite of float32 headers
        count = np.maximum(1, np.ceil(size_ijk * old / new - 1e-4)).astype(int)
        matrix = np.eye(4)
        matrix[:3, :3] = self.directions * new
        middle = self.to_ras((size_ijk - 1) / 2)
        matrix[:3, 3] = middle - matrix[:3, :3] @ ((count - 1) / 2)
        return VoxelGrid((int(count[2]), int(count[1]), int(count[0])), matrix)


def inner_point(inside: NDArray[np.bool_], grid: VoxelGrid) -> NDArray[np.float64]:
    """Return the voxel of a region that is nearest to its middle, RAS mm, shape (3,): a bent organ may not hold its middle.

    Parameters
    ----------
    inside : ndarray of bool, (nk, nj, ni)
        At least one voxel.
    grid : VoxelGrid

    Examples
    --------
    >>> grid = VoxelGrid.from_spacing((1, 1, 3), (2.0, 2.0, 2.0))
    >>> inner_point(np.array([[[True, False, True]]]), grid).tolist()
    [-2.0, 0.0, 0.0]
    """
    kji = np.argwhere(inside)
    nearest = kji[np.argmin(((kji - kji.mean(axis=0)) ** 2).sum(axis=1))]
    return grid.to_ras(nearest[::-1])
