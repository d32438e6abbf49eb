"""What a saved case is when it is loaded again: every node of it, with its contents, attributes, references and place."""

from __future__ import annotations

from typing import Any

import numpy as np
from surroundings import finished
from test_panel_synthdose import choose, patient, useWorker

from SynthDoseLib.mrml.hierarchy import MODALITY
from SynthDoseLib.mrml.run_tables import CHART_ROLES, ROLE_PREFIX, TABLES, resultOf
from SynthDoseLib.mrml.time_points import volumesOf
from SynthDoseLib.mrml.volumes import SIGMA_REFERENCE

VOLUMES = (SIGMA_REFERENCE, f"{ROLE_PREFIX}image", f"{ROLE_PREFIX}activity")


def volume(node: Any) -> dict[str, Any]:
    import slicer
    import vtk

    matrix, values = vtk.vtkMatrix4x4(), slicer.util.arrayFromVolume(node)
    node.GetIJKToRASMatrix(matrix)
    units = node.GetVoxelValueUnits()
    return {
        "name": node.GetName(),
        "values": (values.dtype.name, values.shape, float(values.sum(dtype=np.float64)), float(values.max())),
        "geometry": np.round(slicer.util.arrayFromVTKMatrix(matrix), 6).tolist(),
        "attributes": {name: node.GetAttribute(name) for name in node.GetAttributeNames()},
        "units": units.GetCodeValue() if units else "",
        "colours": node.GetDisplayNode().GetColorNode().GetName(),
        "window": np.round([node.GetDisplayNode().GetWindow(), node.GetDisplayNode().GetLevel()], 5).tolist(),
    }


def table(node: Any) -> dict[str, Any]:
    rows, columns = node.GetNumberOfRows(), node.GetNumberOfColumns()
    return {
        "name": node.GetName(),
        "columns": [node.GetColumnName(column) for column in range(columns)],
        "cells": [[node.GetCellText(row, column) for column in range(columns)] for row in range(rows)],
    }


def chart(node: Any) -> dict[str, Any]:
    series = [node.GetNthPlotSeriesNode(index) for index in range(node.GetNumberOfPlotSeriesNodes())]
    return {
        "titles": (node.GetTitle(), node.GetXAxisTitle(), node.GetYAxisTitle()),
        "series": [
            (s.GetName(), s.GetXColumnName(), s.GetYColumnName(), s.GetColor(), table(s.GetTableNode())) for s in series
        ],
    }


def segments(node: Any, reference: Any = None) -> dict[str, Any]:
    import slicer
    import vtk

    found = {}
    for segmentId in node.GetSegmentation().GetSegmentIDs():
        segment = node.GetSegmentation().GetSegment(segmentId)
        terminology = vtk.reference("")
        segment.GetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), terminology)
        voxels = int(slicer.util.arrayFromSegmentBinaryLabelmap(node, segmentId, reference).sum())
        found[segmentId] = (segment.GetName(), np.round(segment.GetColor(), 4).tolist(), str(terminology), voxels)
    return found


def place(node: Any) -> list[tuple[str, str, str]]:
    """Names, levels and modalities of the item of a node and of all items above it."""
    import slicer

    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(node.GetScene())
    item, found = hierarchy.GetItemByDataNode(node), []
    while item and item != hierarchy.GetSceneItemID():
        attributes = [hierarchy.GetItemAttribute(item, name) for name in ("Level", MODALITY, "DicomRtImport.DoseUnitName")]
        found.append((hierarchy.GetItemName(item), *attributes))
        item = hierarchy.GetItemParent(item)
    return found


def case(p: Any) -> dict[str, Any]:
    """Everything that a finished case consists of, without node IDs."""
    import slicer

    dose = p.doseVolume
    roles = {role: resultOf(dose, role) for role in (*TABLES, *CHART_ROLES, "segmentation", "provenance")}
    there = {role: node for role, node in roles.items() if node is not None}
    nodes = [dose, *(dose.GetNodeReference(role) for role in VOLUMES if dose.GetNodeReference(role)), *there.values()]
    parameters = {
        name: value.GetName() if isinstance(value, slicer.vtkMRMLNode) else value
        for name, value in ((name, getattr(p, name)) for name in p.allParameters)
    }
    return {
        "dose": volume(dose),
        "volumes": {role: volume(dose.GetNodeReference(role)) for role in VOLUMES if dose.GetNodeReference(role)},
        "tables": {role: table(node) for role, node in there.items() if role in TABLES},
        "charts": {role: chart(node) for role, node in there.items() if role in CHART_ROLES},
        "segments": segments(there["segmentation"]),
        "own segments": segments(p.segmentation, p.ctVolume),
        "provenance": there["provenance"].GetText(),
        "places": [place(node) for node in nodes],
        "scans": (table(p.timePoints), [volume(node) for node in volumesOf(p.timePoints)]),
        "parameters": parameters,
    }


def test_a_saved_case_is_the_same_when_it_is_loaded(host, scene, module, tmp_path):
    import slicer

    ct, segmentation, spect = patient(scene, spacing=9.0)
    widget = host.show(module, 460, 1300)
    useWorker(widget, "quick")
    ui, p = widget.ui, widget._parameterNode
    choose(ui, ct, segmentation, spect)
    ui.outputEdit.currentPath = str(tmp_path)
    ui.nuclideBox.setCurrentText("Y-90")
    p.organHalfLives, p.seed, p.materials = "liver = 60", 11, "hu"
    ui.runButton.click()
    host.waitUntil(finished(widget), 60)
    before = case(p)
    assert before["dose"]["attributes"]["DicomRtImport.DoseUnitName"] == "GY"
    assert before["dose"]["attributes"]["DicomRtImport.DoseUnitValue"] == "1.0"
    assert before["dose"]["attributes"]["DicomRtImport.DoseVolume"] == "1"
    assert before["dose"]["units"] == "Gy"
    assert set(before["tables"]) >= {"organTable", "budgetTable", "qualityTable"}
    assert set(before["charts"]) == set(CHART_ROLES)
    assert "10200004" in before["segments"]["liver"][2]  # SNOMED CT
    item, study, person = before["places"][0]
    assert (item[2], study[1], study[3], person[1]) == ("RTDOSE", "Study", "GY", "Patient")
    assert all(levels[-1] == person for levels in before["places"])  # one patient for image, dose, organs and tables
    assert before["parameters"]["nuclide"] == "Y-90"

    assert slicer.util.saveScene(str(tmp_path / "case.mrb"))
    scene.Clear()
    assert widget._parameterNode.doseVolume is None
    slicer.util.loadScene(str(tmp_path / "case.mrb"))
    widget.enter()
    after = case(widget._parameterNode)
    for what in before:
        assert after[what] == before[what], what
