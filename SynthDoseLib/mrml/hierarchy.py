"""Where the nodes of a run stand in the Data module: one study with a folder of results."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import slicer

from .volumes import DICOM_GRAY, DOSE_UNIT_NAME_ATTRIBUTE, DOSE_UNIT_VALUE_ATTRIBUTE

PATIENT_LEVEL = "Patient"
MODALITY = "DICOM.Modality"
"""Attribute of an item by which Slicer's Data module and SlicerRT know what a series is."""


def arrangeRun(
    scene: Any, title: str, inputs: Iterable[Any], results: Iterable[Any], details: Iterable[Any], image: Any = None
) -> int:
    """Put the nodes of a run under a study called `title`; details, such as plot series, go into a sub-folder.

    The study carries the dose unit, which is where SlicerRT looks for it. A node that already stands elsewhere than at
    the top keeps its place. With an image the study belongs to that image's patient, who is made if there is none.

    Returns
    -------
    int
        Item ID of the study.
    """
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    study = hierarchy.CreateStudyItem(_patient(hierarchy, image), title)
    hierarchy.SetItemAttribute(study, DOSE_UNIT_NAME_ATTRIBUTE, DICOM_GRAY)
    hierarchy.SetItemAttribute(study, DOSE_UNIT_VALUE_ATTRIBUTE, "1.0")
    for node in (*inputs, *results):
        _place(hierarchy, study, node)
    details = list(details)
    if details:
        folder = hierarchy.CreateFolderItem(study, "Curves")
        hierarchy.SetItemExpanded(folder, False)
        for node in details:
            _place(hierarchy, folder, node)
    return int(study)


def arrangeResults(scene: Any, title: str, results: Iterable[Any], image: Any = None) -> int:
    """Put results that are no dose under a study called `title` of the patient of an image; return the item ID of the study."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    study = hierarchy.CreateStudyItem(_patient(hierarchy, image), title)
    for node in results:
        _place(hierarchy, study, node)
    return int(study)


def hasPatient(scene: Any, node: Any) -> bool:
    """Whether a node stands under a patient in the Data module."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    item = hierarchy.GetItemByDataNode(node) if node is not None else 0
    return bool(item and hierarchy.GetItemAncestorAtLevel(item, PATIENT_LEVEL))


def noteModality(scene: Any, modalities: Iterable[tuple[Any, str]]) -> None:
    """Say of nodes what series they are, by DICOM modality; those that came from DICOM know it already."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    for node, modality in modalities:
        item = hierarchy.GetItemByDataNode(node) if node is not None else 0
        if item and modality and not hierarchy.GetItemAttribute(item, MODALITY):
            hierarchy.SetItemAttribute(item, MODALITY, modality)


def _patient(hierarchy: Any, image: Any) -> int:
    """Item of the patient of an image, or of the scene itself without an image."""
    top = int(hierarchy.GetSceneItemID())
    if image is None:
        return top
    item = hierarchy.GetItemByDataNode(image)
    found = hierarchy.GetItemAncestorAtLevel(item, PATIENT_LEVEL) if item else 0
    if found:
        return int(found)
    patient = hierarchy.CreateSubjectItem(top, f"Patient of {image.GetName()}")
    images = hierarchy.CreateStudyItem(patient, "Images")
    _place(hierarchy, images, image)
    return int(patient)


def _place(hierarchy: Any, parent: int, node: Any) -> None:
    if node is None:
        return
    item = hierarchy.GetItemByDataNode(node)
    if not item:
        hierarchy.CreateItem(parent, node)
    elif hierarchy.GetItemParent(item) == hierarchy.GetSceneItemID():
        hierarchy.SetItemParent(item, parent)
