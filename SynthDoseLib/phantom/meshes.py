"""Organ surfaces: from labels to closed meshes, from meshes to masks, and their files (STL, VTP)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from SynthDoseLib.core import MissingPackageError, SynthDoseError, VoxelGrid, atomic_path
from SynthDoseLib.core.volumes import require_shape

SUFFIXES = (".stl", ".vtp", ".ply", ".obj")
WRITTEN_SUFFIXES = (".stl", ".vtp")
BLUR_VOXELS = 0.6
VOLUME_TOLERANCE = 0.002
LARGEST_HOLE = 0.05  # of the mesh's diagonal: smaller holes are filled
RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])


@dataclass(frozen=True, eq=False)
class SurfaceMesh:
    """A surface of triangles in the patient.

    Attributes
    ----------
    points_ras_mm : ndarray of float64, (n, 3)
    triangles : ndarray of int64, (m, 3)
        Places in `points_ras_mm`, anticlockwise seen from outside.
    notes : tuple of str
        What was assumed and repaired when it was read.
    """

    points_ras_mm: NDArray[np.float64]
    triangles: NDArray[np.int64]
    notes: tuple[str, ...] = ()

    @property
    def volume_ml(self) -> float:
        """Enclosed volume, ml; negative if the triangles are turned inside out."""
        a, b, c = (self.points_ras_mm[self.triangles[:, n]] for n in range(3))
        return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum()) / 6000

    def edge_faults(self) -> tuple[int, int, int]:
        """Number of edges with one triangle (holes), with more than two, and with two that disagree about the outside."""
        edges = np.concatenate([self.triangles[:, [a, b]] for a, b in ((0, 1), (1, 2), (2, 0))])
        forward = edges[:, 0] < edges[:, 1]
        ends = np.sort(edges, axis=1)
        key = ends[:, 0] * (self.points_ras_mm.shape[0] + 1) + ends[:, 1]
        _, place, count = np.unique(key, return_inverse=True, return_counts=True)
        balance = np.bincount(place, weights=np.where(forward, 1, -1))
        return int((count == 1).sum()), int((count > 2).sum()), int(((count == 2) & (balance != 0)).sum())


def organ_mesh(mask: NDArray[np.bool_], grid: VoxelGrid) -> SurfaceMesh:
    """Closed surface of a mask, smoothed over half a voxel, with the volume of its voxels.

    Parameters
    ----------
    mask : ndarray of bool, (nk, nj, ni)
    grid : VoxelGrid

    Returns
    -------
    SurfaceMesh
        Closed, outward, its volume within 1 % of the voxels'. Organs at the border of the image are closed there.

    Raises
    ------
    SynthDoseError
        If the mask is empty or of another shape.
    MissingPackageError
        If VTK is not installed.

    Notes
    -----
    The mask is blurred by a Gaussian and cut at the level that keeps the volume, found by bisection.
    """
    require_shape("The mask", mask, grid.shape)
    boxes = ndimage.find_objects(np.asarray(mask, dtype=np.uint8))
    if not boxes:
        raise SynthDoseError("The mask is empty: it has no surface.")
    box = boxes[0]
    part = np.pad(mask[box], 3).astype(np.float32)
    smooth = ndimage.gaussian_filter(part, BLUR_VOXELS)
    corner = np.array([s.start for s in box][::-1], np.float64) - 3
    wanted = float(np.count_nonzero(mask[box])) * grid.voxel_volume_ml
    low, high, mesh = 0.0, float(smooth.max()), None
    for _ in range(24):
        level = (low + high) / 2
        mesh = _contour(smooth, level, corner, grid)
        if mesh is not None and abs(mesh.volume_ml / wanted - 1) <= VOLUME_TOLERANCE:
            break
        if mesh is None or mesh.volume_ml < wanted:
            high = level
        else:
            low = level
    assert mesh is not None
    return mesh


def _contour(smooth: NDArray[np.float32], level: float, corner: NDArray[np.float64], grid: VoxelGrid) -> SurfaceMesh | None:
    """Isosurface in RAS; None if nothing reaches the level."""
    vtk, numpy_support = _vtk()
    image = vtk.vtkImageData()
    image.SetDimensions(*smooth.shape[::-1])
    image.GetPointData().SetScalars(numpy_support.numpy_to_vtk(smooth.ravel(), deep=True))
    contour = vtk.vtkFlyingEdges3D()
    contour.SetInputData(image)
    contour.SetValue(0, level)
    contour.ComputeNormalsOff()
    contour.ComputeScalarsOff()
    contour.Update()
    points, triangles = _arrays(contour.GetOutput())
    if not triangles.size:
        return None
    return _outward(SurfaceMesh(grid.to_ras(points + corner), triangles))


def _outward(mesh: SurfaceMesh) -> SurfaceMesh:
    turned = mesh.triangles[:, ::-1] if mesh.volume_ml < 0 else mesh.triangles
    return SurfaceMesh(mesh.points_ras_mm, np.ascontiguousarray(turned), mesh.notes)


def write_mesh(path: str | os.PathLike[str], mesh: SurfaceMesh) -> None:
    """Write a mesh as ``.stl`` (binary) or ``.vtp``, in LPS mm as 3D Slicer expects; the file says so (``SPACE=LPS``).

    Raises
    ------
    SynthDoseError
        For another suffix, or if the file cannot be written.
    """
    target = Path(path)
    if target.suffix.lower() not in WRITTEN_SUFFIXES:
        raise SynthDoseError(f"A mesh is written as {' or '.join(WRITTEN_SUFFIXES)}; found {target.name}.")
    vtk, _ = _vtk()
    data = _polydata(mesh.points_ras_mm * RAS_TO_LPS, mesh.triangles)
    with atomic_path(target) as temporary:
        if target.suffix.lower() == ".stl":
            writer = vtk.vtkSTLWriter()
            writer.SetFileTypeToBinary()
            header = vtk.vtkUnsignedCharArray()
            for character in b"SynthDose SPACE=LPS".ljust(80):
                header.InsertNextValue(character)
            writer.SetBinaryHeader(header)
        else:
            space = vtk.vtkStringArray()
            space.SetName("SPACE")
            space.InsertNextValue("LPS")
            data.GetFieldData().AddArray(space)
            writer = vtk.vtkXMLPolyDataWriter()
        writer.SetInputData(data)
        writer.SetFileName(str(temporary))
        if not writer.Write() or not temporary.is_file():
            raise SynthDoseError(f"Cannot write {target}. Check the free space and the permissions of the folder.")


def read_mesh(path: str | os.PathLike[str]) -> SurfaceMesh:
    """Read a closed surface from STL, VTP, PLY or OBJ, mm.

    Parameters
    ----------
    path : path-like
        In LPS unless the file says ``SPACE=RAS``.

    Returns
    -------
    SurfaceMesh
        Closed and outward. Doubled triangles are dropped, holes of up to 5 % of its diagonal filled, triangles turned the
        same way; notes say what was done.

    Raises
    ------
    SynthDoseError
        If it is no mesh, or still not closed or not manifold after that.
    MissingPackageError
        If VTK is not installed.
    """
    source = Path(path)
    if source.suffix.lower() not in SUFFIXES:
        raise SynthDoseError(f"{source.name} is no mesh that can be read. Known: {', '.join(SUFFIXES)}.")
    if not source.is_file():
        raise SynthDoseError(f"There is no file {source}.")
    data, space = _read_polydata(source)
    points, triangles = _arrays(data)
    if not triangles.size or not np.isfinite(points).all():
        raise SynthDoseError(f"{source.name} holds no triangles with finite corners. Export the surface again.")
    signs = RAS_TO_LPS if space == "LPS" else np.ones(3)
    mesh, notes = _without_doubles(SurfaceMesh(points * signs, triangles))
    open_edges, crowded, turned = mesh.edge_faults()
    if open_edges:
        mesh = _filled(mesh)
        still_open, crowded, turned = mesh.edge_faults()
        if still_open:
            middle = _open_place(mesh)
            raise SynthDoseError(
                f"The mesh {source.name} is not closed: {still_open} edges belong to one triangle only (around RAS "
                f"{', '.join(f'{x:.0f}' for x in middle)} mm). Holes larger than {LARGEST_HOLE:.0%} of its size are not "
                "filled: close it in the program it comes from."
            )
        notes.append(f"Holes with {open_edges} edges were filled.")
    if crowded:
        raise SynthDoseError(
            f"The mesh {source.name} is not manifold: {crowded} edges belong to more than two triangles, so inside and outside "
            "cannot be told apart. Remove inner walls and doubled surfaces in the program it comes from."
        )
    if turned or mesh.volume_ml < 0:
        mesh = _consistent(mesh)
        notes.append("Triangles were turned to face outward.")
    return SurfaceMesh(mesh.points_ras_mm, mesh.triangles, tuple(f"{source.name}: {note}" for note in notes))


def mesh_mask(mesh: SurfaceMesh, grid: VoxelGrid) -> NDArray[np.bool_]:
    """Voxels whose centre lies inside a closed mesh, (nk, nj, ni).

    Raises
    ------
    SynthDoseError
        If the mesh lies outside the grid, or is smaller than a voxel.
    """
    vtk, numpy_support = _vtk()
    ijk = grid.to_ijk(mesh.points_ras_mm)
    if (ijk.max(axis=0) < -0.5).any() or (ijk.min(axis=0) > np.asarray(grid.shape[::-1]) - 0.5).any():
        low, high = mesh.points_ras_mm.min(axis=0), mesh.points_ras_mm.max(axis=0)
        ends = grid.to_ras([(0, 0, 0), tuple(n - 1 for n in grid.shape[::-1])])
        raise SynthDoseError(
            f"The mesh lies outside the image: it reaches from RAS {low.round(0).tolist()} to {high.round(0).tolist()} mm, the "
            f"image from {ends.min(axis=0).round(0).tolist()} to {ends.max(axis=0).round(0).tolist()} mm. Check its unit (mm) "
            "and whether it is in LPS or RAS."
        )
    stencil = vtk.vtkPolyDataToImageStencil()
    stencil.SetInputData(_polydata(ijk, mesh.triangles))
    stencil.SetOutputOrigin(0, 0, 0)
    stencil.SetOutputSpacing(1, 1, 1)
    stencil.SetOutputWholeExtent(*(bound for n in grid.shape[::-1] for bound in (0, n - 1)))
    stencil.SetTolerance(0)
    image = vtk.vtkImageStencilToImage()
    image.SetInputConnection(stencil.GetOutputPort())
    image.SetInsideValue(1)
    image.SetOutsideValue(0)
    image.SetOutputScalarTypeToUnsignedChar()
    image.Update()
    values = numpy_support.vtk_to_numpy(image.GetOutput().GetPointData().GetScalars())
    mask = values.reshape(grid.shape) > 0
    if not mask.any():
        raise SynthDoseError(
            f"The mesh encloses {mesh.volume_ml:.3g} ml but no voxel centre. Use smaller voxels, or check its unit (mm)."
        )
    return mask


def _vtk() -> tuple[Any, Any]:
    try:
        import vtk
        from vtk.util import numpy_support
    except ImportError:
        raise MissingPackageError("vtk", "Reading and writing meshes") from None
    vtk.vtkObject.GlobalWarningDisplayOff()
    return vtk, numpy_support


def _polydata(points: NDArray[np.float64], triangles: NDArray[np.int64]) -> Any:
    vtk, numpy_support = _vtk()
    data = vtk.vtkPolyData()
    corners = vtk.vtkPoints()
    corners.SetDataTypeToDouble()
    corners.SetData(numpy_support.numpy_to_vtk(np.ascontiguousarray(points, np.float64), deep=True))
    cells = vtk.vtkCellArray()
    offsets = np.arange(0, 3 * len(triangles) + 1, 3, dtype=np.int64)
    cells.SetData(
        numpy_support.numpy_to_vtkIdTypeArray(offsets, deep=True),
        numpy_support.numpy_to_vtkIdTypeArray(np.ascontiguousarray(triangles.ravel(), np.int64), deep=True),
    )
    data.SetPoints(corners)
    data.SetPolys(cells)
    return data


def _arrays(data: Any) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Points and triangles of a polydata; triangles with two equal corners are dropped."""
    _, numpy_support = _vtk()
    if data is None or not data.GetNumberOfPolys():
        return np.zeros((0, 3)), np.zeros((0, 3), np.int64)
    points = numpy_support.vtk_to_numpy(data.GetPoints().GetData()).astype(np.float64)
    triangles = numpy_support.vtk_to_numpy(data.GetPolys().GetConnectivityArray()).astype(np.int64).reshape(-1, 3)
    a, b, c = triangles.T
    return points, triangles[(a != b) & (b != c) & (c != a)]


def _read_polydata(path: Path) -> tuple[Any, str]:
    """Triangles with equal corners merged, and the frame the file says."""
    vtk, _ = _vtk()
    readers = {
        ".stl": vtk.vtkSTLReader, ".vtp": vtk.vtkXMLPolyDataReader, ".ply": vtk.vtkPLYReader, ".obj": vtk.vtkOBJReader,
    }  # fmt: skip
    reader = readers[path.suffix.lower()]()
    reader.SetFileName(str(path))
    reader.Update()
    data = reader.GetOutput()
    said = ""
    if path.suffix.lower() == ".stl":
        with open(path, "rb") as stream:
            said = stream.read(200).decode("latin-1")
    elif data is not None and (array := data.GetFieldData().GetAbstractArray("SPACE")) is not None:
        said = f"SPACE={array.GetValue(0)}"
    triangles = vtk.vtkTriangleFilter()
    triangles.SetInputData(data)
    triangles.PassLinesOff()
    triangles.PassVertsOff()
    clean = vtk.vtkCleanPolyData()
    clean.SetInputConnection(triangles.GetOutputPort())
    clean.PointMergingOn()
    clean.SetTolerance(0.0)
    clean.ConvertPolysToLinesOff()
    clean.Update()
    return clean.GetOutput(), "RAS" if "SPACE=RAS" in said else "LPS"


def _without_doubles(mesh: SurfaceMesh) -> tuple[SurfaceMesh, list[str]]:
    _, first = np.unique(np.sort(mesh.triangles, axis=1), axis=0, return_index=True)
    doubled = len(mesh.triangles) - len(first)
    if not doubled:
        return mesh, []
    kept = mesh.triangles[np.sort(first)]
    return SurfaceMesh(mesh.points_ras_mm, kept), [f"{doubled} triangles that were there twice were dropped."]


def _filled(mesh: SurfaceMesh) -> SurfaceMesh:
    vtk, _ = _vtk()
    fill = vtk.vtkFillHolesFilter()
    fill.SetInputData(_polydata(mesh.points_ras_mm, mesh.triangles))
    fill.SetHoleSize(LARGEST_HOLE * float(np.ptp(mesh.points_ras_mm, axis=0).max()) / 2)
    fill.Update()
    return SurfaceMesh(*_arrays(fill.GetOutput()))


def _consistent(mesh: SurfaceMesh) -> SurfaceMesh:
    vtk, _ = _vtk()
    normals = vtk.vtkPolyDataNormals()
    normals.SetInputData(_polydata(mesh.points_ras_mm, mesh.triangles))
    normals.ConsistencyOn()
    normals.AutoOrientNormalsOn()
    normals.SplittingOff()
    normals.Update()
    return _outward(SurfaceMesh(*_arrays(normals.GetOutput())))


def _open_place(mesh: SurfaceMesh) -> NDArray[np.float64]:
    edges = np.sort(np.concatenate([mesh.triangles[:, [a, b]] for a, b in ((0, 1), (1, 2), (2, 0))]), axis=1)
    ends, count = np.unique(edges, axis=0, return_counts=True)
    return mesh.points_ras_mm[ends[count == 1].ravel()].mean(axis=0)
