"""Label maps as segmentation nodes and back, with names, colours and terminology."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import vtk
from numpy.typing import NDArray
from vtk.util import numpy_support

from ..core import LabelMap, Organ, SynthDoseError, VoxelGrid, resample
from ..io.coding import snomed_of
from ..io.text import clean_name, same_name_notes, unique_names
from .anatomy import codedType, standardised
from .volumes import gridFromVolumeNode, matrixFromVtk, sceneOrDefault, vtkFromMatrix, worldMatrix

_CONTEXT = "Segmentation category and type - DICOM master list"
_REGION_CONTEXT = "Anatomic codes - DICOM master list"
_CATEGORY = "SCT^123037004^Anatomical Structure"
_LATTICE_TOLERANCE = 1e-3  # of a voxel: grids whose voxels coincide are copied, not resampled


def terminologyTag(organ: Organ) -> str:
    """Return Slicer's text form of an anatomical structure with the organ's SNOMED CT code, "" without a code."""
    if not organ.snomed_code:
        return ""
    kind, side = codedType(organ)
    return f"{_CONTEXT}~{_CATEGORY}~{kind}~{side}~{_REGION_CONTEXT}~^^~^^"


def snomedCode(tag: str) -> str:
    """Return the SNOMED CT code of the type in Slicer's text form of a terminology entry, "" if there is none."""
    parts = tag.split("~")
    scheme, _, rest = parts[2].partition("^") if len(parts) > 2 else ("", "", "")
    return snomed_of(rest.partition("^")[0], scheme)


def segmentationNodeFromLabelMap(labels: LabelMap, name: str = "Organs", scene: Any = None) -> Any:
    """Add a label map to the scene as a segmentation: one segment per organ, all in one shared label map.

    Segment IDs and names are the organ names; an empty organ becomes an empty segment. Organs of known names get the standard
    colour and code where they have none.

    Parameters
    ----------
    labels : LabelMap
    name : str
        Of the node.
    scene : vtkMRMLScene, optional

    Returns
    -------
    vtkMRMLSegmentationNode
        Shown as outlines in slice views.
    """
    node = sceneOrDefault(scene).AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()  # first, so that views never meet a segment without display properties
    segmentation = node.GetSegmentation()
    representation = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
    segmentation.SetSourceRepresentationName(representation)
    image = slicer.vtkOrientedImageData()
    nk, nj, ni = labels.grid.shape
    image.SetDimensions(ni, nj, nk)
    image.SetImageToWorldMatrix(vtkFromMatrix(labels.grid.ijk_to_ras))
    _setReferenceGeometry(segmentation, labels.grid)
    largest = max((organ.index for organ in labels.organs), default=0)
    # Slicer keeps segments as 8-bit if it can; numpy views of read-only arrays are copied by deep=True
    values = labels.labels.astype(np.uint8 if largest < 256 else np.int16)
    image.GetPointData().SetScalars(numpy_support.numpy_to_vtk(values.ravel(), deep=True))
    for organ in map(standardised, labels.organs):
        segment = slicer.vtkSegment()
        segment.SetName(organ.name)
        segment.SetColor(*organ.colour)
        segment.SetLabelValue(organ.index)
        segment.AddRepresentation(representation, image)
        if tag := terminologyTag(organ):
            segment.SetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), tag)
        segmentation.AddSegment(segment, organ.name)
    display = node.GetDisplayNode()
    display.SetVisibility2DFill(False)
    display.SetSliceIntersectionThickness(2)
    return node


def organsFromSegmentationNode(node: Any) -> tuple[Organ, ...]:
    """Return the segments of a segmentation node as organs, numbered from 1, with unique names, colours and SNOMED codes."""
    segmentation = node.GetSegmentation()
    return tuple(_organs(segmentation, segmentation.GetSegmentIDs()).values())


def labelMapFromSegmentationNode(node: Any, reference: Any) -> LabelMap:
    """Copy the segments of a segmentation node into a label map on the grid of `reference`.

    Parameters
    ----------
    node : vtkMRMLSegmentationNode
        Any master representation; it is not changed. Linear parent transforms are applied.
    reference : vtkMRMLVolumeNode or VoxelGrid
        Where the labels are wanted. Segments on another grid are taken by nearest neighbour.

    Returns
    -------
    LabelMap
        Organs numbered in the order of the segments, with their names (a repeated name gets a number), colours and SNOMED
        codes. Where segments overlap the later one wins; a note says which.

    Raises
    ------
    SynthDoseError
        If there are no segments, they cannot be turned into voxels, or none reaches into the reference grid.
    """
    grid = reference if isinstance(reference, VoxelGrid) else gridFromVolumeNode(reference)
    segmentation = slicer.vtkSegmentation()
    segmentation.DeepCopy(node.GetSegmentation())
    if segmentation.GetNumberOfSegments() == 0:
        raise SynthDoseError(
            f"The segmentation '{node.GetName()}' has no segments. Segment organs first, or choose another one."
        )
    representation = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
    if segmentation.GetSourceRepresentationName() != representation:
        _voxelise(segmentation, representation, grid, node.GetName())
    ids = segmentation.GetSegmentIDs()
    organs = _organs(segmentation, ids)
    values = np.zeros(grid.shape, np.uint16)
    overlaps: set[str] = set()
    resampled = found = False
    world = worldMatrix(node)
    names = {organ.index: organ.name for organ in organs.values()}
    for layer in range(segmentation.GetNumberOfLayers(representation)):
        block, block_grid = _block(segmentation.GetLayerDataObject(layer, representation), world)
        if block is None or block_grid is None:
            continue
        index_of = np.zeros(int(block.max()) + 1, np.uint16)
        for segmentID in segmentation.GetSegmentIDsForLayer(layer, representation):
            value = segmentation.GetSegment(segmentID).GetLabelValue()
            if value < index_of.size:
                index_of[value] = organs[segmentID].index
        found = found or bool(index_of[block].any())
        placed, exact = _onGrid(index_of[block], block_grid, grid)
        resampled = resampled or not exact
        both = (placed > 0) & (values > 0)
        for under, over in np.unique(np.stack([values[both], placed[both]]), axis=1).T:
            overlaps.add(f"{names[int(under)]} by {names[int(over)]}")
        values = np.where(placed > 0, placed, values)
    if found and not values.any():
        raise SynthDoseError(
            f"The segmentation '{node.GetName()}' does not overlap the reference volume. Check that both belong to the same "
            "patient and frame of reference."
        )
    notes = list(same_name_notes(_givenNames(segmentation, ids), [organ.name for organ in organs.values()], "segments"))
    if resampled:
        notes.append(f"The segmentation '{node.GetName()}' was resampled to the image (nearest neighbour).")
    if overlaps:
        notes.append(f"Segments overlap; covered in part: {', '.join(sorted(overlaps))}.")
    return LabelMap(grid, values, tuple(organs.values()), tuple(notes))


def gridOfSegmentation(node: Any) -> VoxelGrid:
    """Return the grid that a segmentation was drawn on: its reference geometry, in world RAS.

    Raises
    ------
    SynthDoseError
        If it has none, as after an import of surfaces.
    """
    segmentation = node.GetSegmentation()
    text = segmentation.DetermineCommonLabelmapGeometry(slicer.vtkSegmentation.EXTENT_REFERENCE_GEOMETRY, None)
    image = slicer.vtkOrientedImageData()
    if not text or not slicer.vtkSegmentationConverter.DeserializeImageGeometry(text, image, False) or image.IsEmpty():
        raise SynthDoseError(
            f"The segmentation '{node.GetName()}' has no geometry of an image. Choose the image it belongs to, or set its "
            "source geometry in the Segmentations module."
        )
    extent = image.GetExtent()
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    ijk_to_ras = worldMatrix(node) @ matrixFromVtk(matrix)
    ijk_to_ras[:3, 3] += ijk_to_ras[:3, :3] @ np.array([extent[0], extent[2], extent[4]], dtype=np.float64)
    shape = (extent[5] - extent[4] + 1, extent[3] - extent[2] + 1, extent[1] - extent[0] + 1)
    if np.linalg.det(ijk_to_ras[:3, :3]) < 0:
        ijk_to_ras[:3, 3] += ijk_to_ras[:3, 2] * (shape[0] - 1)
        ijk_to_ras[:3, 2] *= -1
    return VoxelGrid(shape, ijk_to_ras)


def _organs(segmentation: Any, ids: tuple[str, ...]) -> dict[str, Organ]:
    organs: dict[str, Organ] = {}
    names = unique_names(_givenNames(segmentation, ids))
    for index, (segmentID, name) in enumerate(zip(ids, names, strict=True), start=1):
        segment = segmentation.GetSegment(segmentID)
        tag = vtk.reference("")
        code = snomedCode(str(tag.get())) if segment.GetTag(segment.GetTerminologyEntryTagName(), tag) else ""
        red, green, blue = segment.GetColor()
        organs[segmentID] = Organ(index, name, code, (red, green, blue))
    return organs


def _givenNames(segmentation: Any, ids: tuple[str, ...]) -> list[str]:
    """Names as they come out of a file again: one line, and nothing that a spreadsheet takes for a formula."""
    return [clean_name(segmentation.GetSegment(segmentID).GetName()) or segmentID for segmentID in ids]


def _setReferenceGeometry(segmentation: Any, grid: VoxelGrid) -> None:
    nk, nj, ni = grid.shape
    geometry = slicer.vtkSegmentationConverter.SerializeImageGeometry(
        vtkFromMatrix(grid.ijk_to_ras), (0, ni - 1, 0, nj - 1, 0, nk - 1)
    )
    segmentation.SetConversionParameter(slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName(), geometry)


def _voxelise(segmentation: Any, representation: str, grid: VoxelGrid, name: str) -> None:
    # voxels made earlier for display may be coarser than the reference
    segmentation.RemoveRepresentation(representation)
    _setReferenceGeometry(segmentation, grid)
    if not segmentation.CreateRepresentation(representation):
        raise SynthDoseError(
            f"The segmentation '{name}' ({segmentation.GetSourceRepresentationName()}) cannot be turned into voxels. "
            "Create its binary labelmap representation in the Segmentations module."
        )


def _block(image: Any, world: NDArray[np.float64]) -> tuple[NDArray[Any] | None, VoxelGrid | None]:
    """Array and grid of the allocated part of one layer, which may be smaller than the reference geometry."""
    if image is None or image.IsEmpty() or image.GetPointData().GetScalars() is None:
        return None, None
    extent = image.GetExtent()
    shape = (extent[5] - extent[4] + 1, extent[3] - extent[2] + 1, extent[1] - extent[0] + 1)
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    ijk_to_ras = matrixFromVtk(matrix)
    ijk_to_ras[:3, 3] += ijk_to_ras[:3, :3] @ np.array([extent[0], extent[2], extent[4]], dtype=np.float64)
    values = numpy_support.vtk_to_numpy(image.GetPointData().GetScalars()).reshape(shape)
    return values, VoxelGrid(shape, world @ ijk_to_ras)


def _onGrid(block: NDArray[Any], source: VoxelGrid, target: VoxelGrid) -> tuple[NDArray[Any], bool]:
    """Bring labels to `target`; also say whether voxels coincided, so that nothing was interpolated."""
    steps = np.linalg.inv(target.ijk_to_ras[:3, :3]) @ source.ijk_to_ras[:3, :3]
    offset = target.to_ijk(source.to_ras((0, 0, 0)))
    far = np.abs(steps - np.rint(steps)).max() * max(source.shape)
    signs = np.rint(np.diag(steps))
    aligned = (
        far < _LATTICE_TOLERANCE and (np.abs(signs) == 1).all() and np.abs(offset - np.rint(offset)).max() < _LATTICE_TOLERANCE
    )
    if not aligned or np.abs(np.rint(steps)).sum() != 3:
        return resample(block, source, target, linear=False), False
    start_kji = np.rint(offset)[::-1].astype(int)
    for axis, sign in enumerate(signs[::-1]):
        if sign < 0:
            block = np.flip(block, axis)
            start_kji[axis] -= block.shape[axis] - 1
    result = np.zeros(target.shape, block.dtype)
    lower = np.maximum(start_kji, 0)
    upper = np.minimum(start_kji + block.shape, target.shape)
    if (upper > lower).all():
        inside = tuple(slice(a, b) for a, b in zip(lower, upper, strict=True))
        taken = tuple(slice(a - s, b - s) for a, b, s in zip(lower, upper, start_kji, strict=True))
        result[inside] = block[taken]
    return result, True
