"""Images and doses as volume nodes. MRML arrays are [k, j, i] and geometry is RAS mm, as in the library."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import slicer
import vtk
from numpy.typing import NDArray
from vtk.util import numpy_support

from ..core import DoseMap, ImageVolume, SynthDoseError, VoxelGrid
from .display import doseColourNode, doseDisplayRange, highDose

SIGMA_REFERENCE = "SynthDose.sigmaVolume"
"""Role of the node reference from a dose volume to the volume of its standard error."""

HIGH_DOSE_ATTRIBUTE = "SynthDose.highDose"
"""Set on a dose volume: the highest dose of the colour scale when it was made, Gy; per cent of isodoses refer to it."""

DOSE_VOLUME_ATTRIBUTE = "DicomRtImport.DoseVolume"
DOSE_UNIT_NAME_ATTRIBUTE = "DicomRtImport.DoseUnitName"
DOSE_UNIT_VALUE_ATTRIBUTE = "DicomRtImport.DoseUnitValue"
DICOM_GRAY = "GY"
"""Gray as DICOM writes it (3004,0002): what SlicerRT's import stores, and what its isodose module compares with."""

PHANTOM_ATTRIBUTE = "SynthDose.phantom"
"""Set on the density volume of a phantom: node selectors filter by it."""

UNIT_ATTRIBUTE = "SynthDose.unit"
MODALITY_ATTRIBUTE = "SynthDose.modality"


def sceneOrDefault(scene: Any = None) -> Any:
    """Return `scene`, or the application's own one."""
    found = scene if scene is not None else getattr(slicer, "mrmlScene", None)
    if found is None:
        raise SynthDoseError("There is no MRML scene: give one, or call this inside Slicer.")
    return found


def matrixFromVtk(matrix: Any) -> NDArray[np.float64]:
    """Copy a ``vtkMatrix4x4`` into a (4, 4) array."""
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def vtkFromMatrix(matrix: NDArray[np.float64]) -> Any:
    """Copy a (4, 4) array into a ``vtkMatrix4x4``."""
    result = vtk.vtkMatrix4x4()
    for row in range(4):
        for column in range(4):
            result.SetElement(row, column, float(matrix[row, column]))
    return result


def worldMatrix(node: Any) -> NDArray[np.float64]:
    """Return the (4, 4) matrix from a transformable node's own RAS to world RAS, identity without a transform.

    Raises
    ------
    SynthDoseError
        If the node is under a transform that is not linear.
    """
    transform = node.GetParentTransformNode()
    if transform is None:
        return np.eye(4)
    if not transform.IsTransformToWorldLinear():
        raise SynthDoseError(
            f"'{node.GetName()}' is under the non-linear transform '{transform.GetName()}'. Harden the transform first "
            "(Data module, right click on the transform of the node)."
        )
    matrix = vtk.vtkMatrix4x4()
    transform.GetMatrixTransformToWorld(matrix)
    return matrixFromVtk(matrix)


def rightHanded(values: NDArray[Any], ijk_to_ras: NDArray[np.float64]) -> tuple[NDArray[Any], VoxelGrid]:
    """Return array and grid with i, j, k turning as R, A, S do: slices are stored in reverse order if they do not.

    Every voxel keeps its place in the patient; nothing is mirrored.
    """
    grid = VoxelGrid(values.shape, ijk_to_ras)
    if grid.is_right_handed:
        return values, grid
    matrix = ijk_to_ras.copy()
    matrix[:3, 2] = -matrix[:3, 2]
    matrix[:3, 3] = grid.to_ras((0, 0, values.shape[0] - 1))
    return values[::-1], VoxelGrid(grid.shape, matrix)


def _voxels(node: Any) -> NDArray[Any]:
    image = node.GetImageData() if node is not None else None
    name = node.GetName() if node is not None else "none"
    if image is None or image.GetPointData() is None or image.GetPointData().GetScalars() is None:
        raise SynthDoseError(f"The volume '{name}' has no voxels. Choose a volume that is loaded.")
    if image.GetNumberOfScalarComponents() != 1:
        raise SynthDoseError(
            f"The volume '{name}' has {image.GetNumberOfScalarComponents()} values per voxel; one is needed. "
            "Choose a scalar volume."
        )
    ni, nj, nk = image.GetDimensions()
    return numpy_support.vtk_to_numpy(image.GetPointData().GetScalars()).reshape(nk, nj, ni)


def _nodeGeometry(node: Any) -> NDArray[np.float64]:
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return worldMatrix(node) @ matrixFromVtk(matrix)


def _placed(node: Any) -> tuple[NDArray[Any], VoxelGrid]:
    """Voxels and grid of a volume node; what is wrong with either names the node."""
    values, matrix = _voxels(node), _nodeGeometry(node)
    try:
        return rightHanded(values, matrix)
    except SynthDoseError as error:
        raise SynthDoseError(f"The volume '{node.GetName()}' cannot be used. {error}") from error


def gridFromVolumeNode(node: Any) -> VoxelGrid:
    """Return the grid of a volume node in world RAS, right-handed (see `rightHanded`).

    Raises
    ------
    SynthDoseError
        If the node has no voxels, is sheared, or is under a non-linear transform.
    """
    return _placed(node)[1]


def imageFromVolumeNode(node: Any, *, modality: str = "", unit: str = "") -> ImageVolume:
    """Copy a scalar volume node into an image; linear parent transforms are applied to its geometry.

    Parameters
    ----------
    node : vtkMRMLScalarVolumeNode
    modality, unit : str
        As in `ImageVolume`; if empty, what `updateVolumeFromImage` once noted on the node.

    Returns
    -------
    ImageVolume
        Right-handed grid, float32 (nk, nj, ni).

    Raises
    ------
    SynthDoseError
        If the node has no voxels or several values per voxel, one that is not finite, is sheared, or is under a non-linear
        transform.
    """
    values, grid = _placed(node)
    if values.dtype.kind == "f" and (bad := int(np.count_nonzero(~np.isfinite(values)))):
        raise SynthDoseError(
            f"The volume '{node.GetName()}' has {bad} of {values.size} voxels that are not finite numbers (NaN or infinite). "
            "Load it again, or replace them with the value of air or of no activity."
        )
    return ImageVolume(
        grid,
        np.array(values, dtype=np.float32),
        modality=modality or node.GetAttribute(MODALITY_ATTRIBUTE) or "",
        unit=unit or node.GetAttribute(UNIT_ATTRIBUTE) or "",
    )


def setVoxels(node: Any, values: NDArray[Any], grid: VoxelGrid) -> None:
    """Give a volume node a copy of `values` (nk, nj, ni) and the geometry of `grid`."""
    nk, nj, ni = values.shape
    image = vtk.vtkImageData()
    image.SetDimensions(ni, nj, nk)
    flat = np.ascontiguousarray(values).ravel()
    image.GetPointData().SetScalars(numpy_support.numpy_to_vtk(flat, deep=True))
    node.SetIJKToRASMatrix(vtkFromMatrix(grid.ijk_to_ras))
    node.SetAndObserveImageData(image)


def updateVolumeFromImage(node: Any, image: ImageVolume) -> None:
    """Put an image into a volume node: values, geometry, unit and modality.

    CT numbers that are all whole are stored as int16, which is what scanners write; other values as float32.
    """
    values: NDArray[Any] = image.values
    if image.modality == "CT" and np.abs(values).max() < 32768 and np.array_equal(values, np.rint(values)):
        values = values.astype(np.int16)
    setVoxels(node, values, image.grid)
    node.SetAttribute(MODALITY_ATTRIBUTE, image.modality or None)
    node.SetAttribute(UNIT_ATTRIBUTE, image.unit or None)


def volumeNodeFromImage(
    image: ImageVolume, name: str, scene: Any = None, *, attributes: Mapping[str, str] | None = None
) -> Any:
    """Add an image to the scene as a ``vtkMRMLScalarVolumeNode`` with a display node; CT gets a soft tissue window.

    `attributes` are on the node when the scene, and so every node selector, gets it.
    """
    scene = sceneOrDefault(scene)
    node = scene.CreateNodeByClass("vtkMRMLScalarVolumeNode")
    node.UnRegister(None)
    node.SetName(scene.GenerateUniqueName(name))
    for key, value in (attributes or {}).items():
        node.SetAttribute(key, value)
    scene.AddNode(node)
    display = _display(node)
    if image.modality == "CT":
        display.SetWindowLevel(400, 40)
    else:
        display.SetWindowLevelMinMax(min(0.0, float(image.values.min())), highDose(image.values))
    updateVolumeFromImage(node, image)
    return node


def _display(node: Any) -> Any:
    """Add a grey display node without automatic window: made before the voxels, it spares Slicer their histogram."""
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    if display.GetColorNode() is None:
        display.SetAndObserveColorNodeID("vtkMRMLColorTableNodeGrey")
    display.SetAutoWindowLevel(0)
    return display


def modalityOf(node: Any) -> str:
    """DICOM modality of a volume made by this library, "" if there is no node or it does not say."""
    return (node.GetAttribute(MODALITY_ATTRIBUTE) or "") if node is not None else ""


def knownModality(node: Any) -> str:
    """What a volume says that it is: a DICOM modality, "dose", or "" if it does not say."""
    if node is None:
        return ""
    if node.GetAttribute(DOSE_VOLUME_ATTRIBUTE) == "1" or (node.GetAttribute(UNIT_ATTRIBUTE) or "").startswith("Gy"):
        return "dose"
    if noted := modalityOf(node):
        return noted
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(node.GetScene())
    item = hierarchy.GetItemByDataNode(node)
    found = hierarchy.GetItemAttribute(item, "DICOM.Modality") if item else ""
    return "dose" if found == "RTDOSE" else str(found)


def doseVolumeFromDose(dose: DoseMap, name: str = "Dose", scene: Any = None, *, gas: NDArray[np.bool_] | None = None) -> Any:
    """Add an absorbed dose to the scene as a coloured volume, and its standard error as a second one.

    The dose volume carries the attributes by which SlicerRT knows a dose, hides what is below its display range and gas that
    is hotter than any tissue, and refers to the volume of its standard error by the role `SIGMA_REFERENCE`.

    Parameters
    ----------
    dose : DoseMap
        Gy.
    name : str
        Of the dose volume; the other one is called ``"<name> sigma"``.
    scene : vtkMRMLScene, optional
        The application's scene if not given.
    gas : ndarray of bool, (nk, nj, ni) of `dose`, optional
        Voxels of gas, see `core.gas_voxels`; the values are not changed.

    Returns
    -------
    vtkMRMLScalarVolumeNode
        The dose volume.
    """
    scene = sceneOrDefault(scene)
    nodes = []
    colours = doseColourNode(scene)
    for title, values in ((name, dose.dose_Gy), (f"{name} sigma", dose.sigma_Gy)):
        node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", title)
        node.SetAttribute(UNIT_ATTRIBUTE, "Gy" if not dose.per else f"Gy per {dose.per}")
        display = _display(node)
        setVoxels(node, values, dose.grid)
        display.SetAndObserveColorNodeID(colours.GetID())
        _showRange(node, values, gas)
        display.SetApplyThreshold(1)
        nodes.append(node)
    volume, sigma = nodes
    volume.SetNodeReferenceID(SIGMA_REFERENCE, sigma.GetID())
    volume.SetAttribute(DOSE_VOLUME_ATTRIBUTE, "1")
    volume.SetAttribute(DOSE_UNIT_NAME_ATTRIBUTE, DICOM_GRAY)
    volume.SetAttribute(DOSE_UNIT_VALUE_ATTRIBUTE, "1.0")
    units = slicer.vtkCodedEntry()
    units.SetValueSchemeMeaning("Gy", "UCUM", "Gray")
    volume.SetVoxelValueUnits(units)
    return volume


def updateDoseVolume(volume: Any, dose: DoseMap, *, gas: NDArray[np.bool_] | None = None) -> None:
    """Give a dose volume of `doseVolumeFromDose`, and its standard error, new values; colours keep up with them."""
    for node, values in ((volume, dose.dose_Gy), (volume.GetNodeReference(SIGMA_REFERENCE), dose.sigma_Gy)):
        if node is not None:
            setVoxels(node, values, dose.grid)
            _showRange(node, values, gas)


def removeDoseVolume(volume: Any) -> None:
    """Take a dose volume of `doseVolumeFromDose` out of its scene, with its standard error and the display of both."""
    scene = volume.GetScene()
    for node in filter(None, (volume.GetNodeReference(SIGMA_REFERENCE), volume)):
        display = node.GetDisplayNode()
        scene.RemoveNode(node)
        scene.RemoveNode(display)


def _showRange(node: Any, values: NDArray[Any], gas: NDArray[np.bool_] | None) -> None:
    shown, display = doseDisplayRange(values, gas), node.GetDisplayNode()
    highest = values.max() if gas is None else values.max(where=~gas, initial=0.0)
    display.SetWindowLevelMinMax(0.0, shown.upper)
    display.SetThreshold(shown.lower, max(float(highest), shown.upper))
    node.SetAttribute(HIGH_DOSE_ATTRIBUTE, repr(shown.upper))


def saveImage(image: ImageVolume, path: str | Path) -> None:
    """Write an image as an uncompressed NRRD file with Slicer's own writer: fast, for handing it to another process.

    Raises
    ------
    SynthDoseError
        If the file cannot be written.
    """
    scene = slicer.vtkMRMLScene()
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "image")
    updateVolumeFromImage(node, image)
    storage = slicer.vtkMRMLNRRDStorageNode()
    storage.SetFileName(str(path))
    storage.SetUseCompression(0)
    if not storage.WriteData(node):
        raise SynthDoseError(f"Cannot write {path}. Check the free space and the permissions of the folder.")
