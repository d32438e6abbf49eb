"""A voxel phantom as nodes: a density volume that refers to its materials and organs, and back to the files of a case."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import slicer

from ..core import ImageVolume, SynthDoseError, VoxelGrid
from ..io import read_labels, read_volume, write_volume
from .segmentations import labelMapFromSegmentationNode, organsFromSegmentationNode, segmentationNodeFromLabelMap
from .volumes import (
    PHANTOM_ATTRIBUTE,
    gridFromVolumeNode,
    imageFromVolumeNode,
    saveImage,
    sceneOrDefault,
    setVoxels,
    volumeNodeFromImage,
)

MATERIALS_REFERENCE = "SynthDose.materialsVolume"
MATERIAL_TABLE_REFERENCE = "SynthDose.materialTable"
ORGANS_REFERENCE = "SynthDose.organs"
SEGMENTS_ATTRIBUTE = "SynthDose.segments"
"""JSON on the density volume: the segment of each organ, as organs of known names are called by their standard name."""


def loadPhantom(
    folder: str | Path,
    scene: Any = None,
    *,
    title: str = "Phantom",
    organs: Any = None,
    segmentIDs: Sequence[str] | None = None,
) -> Any:
    """Add the phantom of a folder to the scene.

    Parameters
    ----------
    folder : path-like
        Written by ``synthdose phantom``.
    scene : vtkMRMLScene, optional
        The application's scene if not given.
    title : str
        Beginning of the names of the nodes.
    organs : vtkMRMLSegmentationNode, optional
        Its organs, if they are in the scene already; read from the folder otherwise.
    segmentIDs : sequence of str, optional
        Segments of `organs` when the phantom was made, in the order of their labels; those it has now if not given.

    Returns
    -------
    vtkMRMLScalarVolumeNode
        Density, g/cm3, with `PHANTOM_ATTRIBUTE` and references to a volume of material indices, a text node with the materials
        (JSON) and the segmentation.

    Raises
    ------
    SynthDoseError
        If a file is missing or cannot be read. Then the scene is unchanged.
    """
    folder = Path(folder)
    scene = sceneOrDefault(scene)
    record = folder / "phantom.json"
    try:
        materials = json.loads(record.read_text(encoding="utf-8"))["materials"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SynthDoseError(f"{folder} is not a phantom: its phantom.json cannot be read. Build the phantom again.") from error
    density, grid, _ = read_volume(folder / "density.nrrd")
    indices, index_grid, _ = read_volume(folder / "materials.nrrd")
    if not index_grid.matches(grid):
        raise SynthDoseError(f"{folder}: materials.nrrd is on another grid than density.nrrd. Build the phantom again.")
    labels = read_labels(folder / "labels.seg.nrrd")
    image = ImageVolume(grid, np.asarray(density, np.float32), unit="g/cm3")
    node = volumeNodeFromImage(image, f"{title} density (g/cm3)", scene, attributes={PHANTOM_ATTRIBUTE: "1"})
    node.GetDisplayNode().SetWindowLevelMinMax(0.0, 2.0)
    index = scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", f"{title} materials")
    setVoxels(index, np.asarray(indices).astype(np.uint8), grid)
    table = scene.AddNewNodeByClass("vtkMRMLTextNode", f"{title} material table")
    table.SetText(json.dumps(materials, indent=1))
    if organs is None:
        organs = segmentationNodeFromLabelMap(labels, f"{title} organs", scene)
        segments = {organ.name: organ.name for organ in labels.organs}
    else:
        ids = organs.GetSegmentation().GetSegmentIDs() if segmentIDs is None else segmentIDs
        segments = {organ.name: ids[organ.index - 1] for organ in labels.organs if organ.index <= len(ids)}
    node.SetAttribute(SEGMENTS_ATTRIBUTE, json.dumps(segments))
    node.SetNodeReferenceID(MATERIALS_REFERENCE, index.GetID())
    node.SetNodeReferenceID(MATERIAL_TABLE_REFERENCE, table.GetID())
    node.SetNodeReferenceID(ORGANS_REFERENCE, organs.GetID())
    return node


def organsOfPhantom(node: Any) -> Any:
    """Return the segmentation node of a phantom's organs, None if it has been deleted."""
    return node.GetNodeReference(ORGANS_REFERENCE)


def segmentNames(node: Any) -> dict[str, str]:
    """Return how the segment of each organ of a phantom is called in its segmentation; organs without one are left out."""
    organs = organsOfPhantom(node)
    if organs is None:
        return {}
    ids = organs.GetSegmentation().GetSegmentIDs()
    names = {segmentID: organ.name for segmentID, organ in zip(ids, organsFromSegmentationNode(organs), strict=True)}
    segments = json.loads(node.GetAttribute(SEGMENTS_ATTRIBUTE) or "{}")
    return {organ: names[segmentID] for organ, segmentID in segments.items() if segmentID in names}


def writePhantom(node: Any, folder: Path) -> dict[str, Any]:
    """Write a phantom's density, materials and organs for a case file.

    Parameters
    ----------
    node : vtkMRMLScalarVolumeNode
        From `loadPhantom`.
    folder : Path
        Exists. Gets ``density.nrrd``, ``materials.nrrd`` and, if the phantom has organs, ``organs.nrrd``.

    Returns
    -------
    dict
        The table ``[phantom]`` of the case.

    Raises
    ------
    SynthDoseError
        If the volume is not a phantom, or a part of it is missing or on another grid.
    """
    index, table = node.GetNodeReference(MATERIALS_REFERENCE), node.GetNodeReference(MATERIAL_TABLE_REFERENCE)
    if index is None or table is None:
        raise SynthDoseError(
            f"The volume '{node.GetName()}' is not a phantom: it has no materials. Build one in the module SynthDose Phantom."
        )
    grid = gridFromVolumeNode(node)
    indices = imageFromVolumeNode(index)
    if not indices.grid.matches(grid):
        raise SynthDoseError(f"The materials of '{node.GetName()}' are on another grid than its density. Build it again.")
    saveImage(imageFromVolumeNode(node, unit="g/cm3"), folder / "density.nrrd")
    write_volume(folder / "materials.nrrd", indices.values.astype(np.uint8), grid)
    values: dict[str, Any] = {"materials": "materials.nrrd", "density": "density.nrrd", "material": _materials(table)}
    organs = organsOfPhantom(node)
    if organs is not None and organs.GetSegmentation().GetNumberOfSegments():
        values |= _writeOrgans(organs, grid, folder)
    return values


def _materials(table: Any) -> list[dict[str, Any]]:
    keys = ("index", "name", "density_g_cm3", "mass_fractions", "mean_excitation_eV")
    try:
        return [{key: entry[key] for key in keys if entry.get(key) is not None} for entry in json.loads(table.GetText())]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SynthDoseError(f"'{table.GetName()}' does not hold a table of materials. Build the phantom again.") from error


def _writeOrgans(organs: Any, grid: VoxelGrid, folder: Path) -> dict[str, Any]:
    labels = labelMapFromSegmentationNode(organs, grid)
    write_volume(folder / "organs.nrrd", labels.labels, grid)
    counts = labels.voxel_counts()
    return {
        "organs": "organs.nrrd",
        "organ": [{"index": organ.index, "name": organ.name} for organ in labels.organs if counts[organ.name]],
    }


def isPhantom(node: Any) -> bool:
    """Whether a node is the density volume of a phantom whose materials are still there."""
    return (
        isinstance(node, slicer.vtkMRMLScalarVolumeNode)
        and node.GetAttribute(PHANTOM_ATTRIBUTE) == "1"
        and node.GetNodeReference(MATERIALS_REFERENCE) is not None
    )
