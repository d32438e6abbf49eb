"""From points of the reference image to points of another one: matrices, displacement fields, and files of other programs."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from ..core import ImageVolume, LabelMap, SynthDoseError, VoxelGrid, resample, resample_labels

Floats = NDArray[np.float64]
FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])  # RAS to LPS and back
RIGID_TOLERANCE = 1e-6


@dataclass(frozen=True, eq=False)
class SpatialTransform:
    """Where a point x of the reference is in the other image: y = M (x + u(x)), RAS mm.

    Attributes
    ----------
    matrix_ras : ndarray, (4, 4)
        M.
    displacement_mm : ndarray of float32, (nk, nj, ni, 3), or None
        u at the voxel centres of `grid`; linear in between, 0 outside.
    grid : VoxelGrid or None
    """

    matrix_ras: Floats = field(default_factory=lambda: np.eye(4))
    displacement_mm: NDArray[np.float32] | None = None
    grid: VoxelGrid | None = None

    def __post_init__(self) -> None:
        matrix = np.array(self.matrix_ras, dtype=np.float64)
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or not np.allclose(matrix[3], (0, 0, 0, 1)):
            raise SynthDoseError(
                f"A transform is a finite 4 x 4 affine matrix with a last row of 0 0 0 1; found {matrix.tolist()}."
            )
        if not np.linalg.det(matrix[:3, :3]) > 0:
            raise SynthDoseError("A transform that mirrors or flattens the patient is refused (determinant not above 0).")
        matrix.setflags(write=False)
        object.__setattr__(self, "matrix_ras", matrix)
        if (self.displacement_mm is None) != (self.grid is None):
            raise SynthDoseError("A displacement field needs its grid, and a grid its field.")
        if self.displacement_mm is not None and self.grid is not None and self.displacement_mm.shape != (*self.grid.shape, 3):
            raise SynthDoseError(f"The displacement field has shape {self.displacement_mm.shape}, its grid {self.grid.shape}.")

    @property
    def is_identity(self) -> bool:
        """Whether nothing moves."""
        return self.displacement_mm is None and bool(np.allclose(self.matrix_ras, np.eye(4), atol=1e-9))

    @property
    def is_rigid(self) -> bool:
        """Whether it is a rotation and a shift alone."""
        rotation = self.matrix_ras[:3, :3]
        return self.displacement_mm is None and bool(np.allclose(rotation.T @ rotation, np.eye(3), atol=RIGID_TOLERANCE))

    def points(self, ras_mm: ArrayLike) -> Floats:
        """Points (..., 3) of the other image for points of the reference."""
        x = np.asarray(ras_mm, np.float64)
        if self.displacement_mm is not None and self.grid is not None:
            kji = self.grid.to_ijk(x)[..., ::-1].reshape(-1, 3).T
            moved = [ndimage.map_coordinates(self.displacement_mm[..., n], kji, order=1, mode="constant") for n in range(3)]
            x = x + np.stack(moved, axis=-1).reshape(x.shape)
        return x @ self.matrix_ras[:3, :3].T + self.matrix_ras[:3, 3]

    def jacobian(self, grid: VoxelGrid) -> NDArray[np.float32]:
        """Determinant of the derivative by the point, (nk, nj, ni): how volumes change; 0 or less where space folds."""
        if self.displacement_mm is None:
            return np.full(grid.shape, np.linalg.det(self.matrix_ras[:3, :3]), np.float32)
        places = self.points(voxel_centres(grid))
        along = [np.gradient(places, axis=axis) if grid.shape[axis] > 1 else np.zeros_like(places) for axis in (2, 1, 0)]
        by_ijk = np.stack(along, axis=-1)
        return np.asarray(np.linalg.det(by_ijk @ np.linalg.inv(grid.ijk_to_ras[:3, :3])), np.float32)


def voxel_centres(grid: VoxelGrid) -> Floats:
    """RAS positions of all voxel centres, (nk, nj, ni, 3)."""
    nk, nj, ni = grid.shape
    k, j, i = np.meshgrid(np.arange(nk), np.arange(nj), np.arange(ni), indexing="ij")
    return grid.to_ras(np.stack([i, j, k], axis=-1))


def moved_image(image: ImageVolume, transform: SpatialTransform) -> ImageVolume:
    """Bring an image to the reference.

    A rigid transform moves the grid and leaves the voxels as they are; others sample the image linearly at a grid of its
    own spacing (concentrations are kept, not totals).
    """
    if transform.is_identity:
        return image
    if transform.is_rigid:
        return replace(image, grid=_moved_grid(image.grid, transform))
    return replace(image, values=sampled(image.values, image.grid, transform, image.grid))


def moved_labels(labels: LabelMap, transform: SpatialTransform, target: VoxelGrid) -> LabelMap:
    """Carry the organs of another image to a grid of the reference, by nearest neighbour."""
    if transform.is_identity:
        return resample_labels(labels, target)
    if transform.is_rigid:
        return resample_labels(replace(labels, grid=_moved_grid(labels.grid, transform)), target)
    return replace(labels, grid=target, labels=sampled(labels.labels, labels.grid, transform, target, linear=False))


def sampled(
    values: NDArray[Any],
    grid: VoxelGrid,
    transform: SpatialTransform,
    target: VoxelGrid,
    *,
    linear: bool = True,
    fill: float = 0.0,
) -> NDArray[Any]:
    """Sample an array of the other image at the voxel centres of a grid of the reference; `fill` outside."""
    if transform.is_rigid:
        return resample(values, _moved_grid(grid, transform), target, linear=linear, fill=fill)
    dtype = np.dtype(np.float32) if linear else values.dtype
    result = np.empty(target.shape, dtype)
    for k in range(target.shape[0]):
        slab = VoxelGrid((1, *target.shape[1:]), target.crop((k, 0, 0), (1, *target.shape[1:])).ijk_to_ras)
        kji = grid.to_ijk(transform.points(voxel_centres(slab)[0]))[..., ::-1].transpose(2, 0, 1)
        upper = np.asarray(grid.shape, np.float64)[:, None, None] - 0.5
        inside = ((kji >= -0.5) & (kji <= upper)).all(axis=0)
        found = ndimage.map_coordinates(values, kji, output=dtype, order=1 if linear else 0, mode="nearest")
        result[k] = np.where(inside, found, dtype.type(fill))
    return result


def _moved_grid(grid: VoxelGrid, transform: SpatialTransform) -> VoxelGrid:
    """Grid of the other image seen from the reference."""
    matrix = np.linalg.inv(transform.matrix_ras) @ grid.ijk_to_ras
    u, _, v = np.linalg.svd(matrix[:3, :3] / np.asarray(grid.spacing_mm))
    matrix[:3, :3] = (u @ v) * np.asarray(grid.spacing_mm)  # rounding leaves axes that are not quite orthogonal
    return VoxelGrid(grid.shape, matrix)


def from_to_parent(matrix_ras: Sequence[Sequence[float]]) -> SpatialTransform:
    """Transform from a matrix that moves the other image onto the reference, as Slicer shows it (RAS, to parent).

    Examples
    --------
    >>> shift = from_to_parent([[1, 0, 0, 5], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])  # the image moves 5 mm to the right
    >>> print(shift.points([5.0, 0.0, 0.0]))
    [0. 0. 0.]
    """
    moved = SpatialTransform(np.array(matrix_ras, dtype=np.float64))
    return SpatialTransform(np.asarray(np.linalg.inv(moved.matrix_ras), np.float64))


def read_transform(path: str | os.PathLike[str], reference: VoxelGrid) -> SpatialTransform:
    """Read a transform file of ITK, Slicer, elastix or ANTs (.tfm, .txt, .mat, .h5, .hdf5), or a displacement field image.

    Such files map points of the reference (fixed) image to the other (moving) one, in LPS. Linear ones are taken as they
    are; others are sampled at the voxels of `reference`.

    Raises
    ------
    SynthDoseError
        If the file cannot be read as a transform, or mirrors or folds the patient.
    """
    import SimpleITK

    source = Path(path)
    if not source.is_file():
        raise SynthDoseError(f"{source} does not exist. Give a transform file (.tfm, .txt, .h5) or a matrix.")
    try:
        loaded = SimpleITK.ReadTransform(str(source))
        if loaded.GetDimension() != 3:
            raise SynthDoseError(f"{source} is a transform in {loaded.GetDimension()} dimensions; needed are 3.")
    except RuntimeError as error:
        raise SynthDoseError(
            f"{source} cannot be read as a transform of ITK, which Slicer, elastix and ANTs write: {str(error)[-160:].strip()}"
        ) from error
    return from_sitk(loaded, reference)


def from_sitk(transform: Any, reference: VoxelGrid) -> SpatialTransform:
    """Take over a transform of SimpleITK (LPS); see `read_transform`."""
    if transform.IsLinear():
        zero = np.array(transform.TransformPoint((0.0, 0.0, 0.0)))
        matrix = np.eye(4)
        matrix[:3, :3] = np.stack([np.array(transform.TransformPoint(tuple(e))) - zero for e in np.eye(3)], axis=1)
        matrix[:3, 3] = zero
        return SpatialTransform(FLIP @ matrix @ FLIP)
    import SimpleITK

    sampler = SimpleITK.TransformToDisplacementFieldFilter()
    sampler.SetReferenceImage(to_sitk(np.zeros(reference.shape, np.float32), reference))
    sampler.SetOutputPixelType(SimpleITK.sitkVectorFloat64)
    field_lps = SimpleITK.GetArrayFromImage(sampler.Execute(transform))
    return SpatialTransform(np.eye(4), (field_lps * np.array([-1.0, -1.0, 1.0])).astype(np.float32), reference)


def to_sitk(values: NDArray[Any], grid: VoxelGrid) -> Any:
    """Image of SimpleITK (LPS) from an array on a grid."""
    import SimpleITK

    image = SimpleITK.GetImageFromArray(values)
    matrix = FLIP @ grid.ijk_to_ras
    image.SetSpacing(grid.spacing_mm)
    image.SetOrigin(tuple(matrix[:3, 3]))
    image.SetDirection(tuple((matrix[:3, :3] / np.asarray(grid.spacing_mm)).ravel()))
    return image


def rotation_degrees(transform: SpatialTransform) -> float:
    """Angle of the rotation in the matrix part, degrees."""
    u, _, v = np.linalg.svd(transform.matrix_ras[:3, :3])
    return math.degrees(math.acos(float(np.clip((np.trace(u @ v) - 1) / 2, -1, 1))))
