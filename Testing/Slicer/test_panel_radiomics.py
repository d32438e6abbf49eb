"""The radiomics panel with the real command line: a ball of known size, the check against IBSI, bad parameter files."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
from surroundings import finished

from SynthDoseLib.core import ImageVolume, LabelMap, Organ, VoxelGrid
from SynthDoseLib.mrml import segmentationNodeFromLabelMap, volumeNodeFromImage

needs_pyradiomics = pytest.mark.skipif(importlib.util.find_spec("radiomics") is None, reason="needs pyradiomics")


MODULE = "SynthDoseRadiomics"


@pytest.fixture
def panel(host, scene, module, tmp_path):
    grid = VoxelGrid.from_spacing((20, 24, 24), (2.0, 2.0, 2.5))
    k, j, i = np.indices(grid.shape)
    ball = np.linalg.norm(grid.to_ras(np.stack([i, j, k], -1)), axis=-1) < 16
    values = np.random.default_rng(2).normal(40, 15, grid.shape).astype(np.float32)
    image = volumeNodeFromImage(ImageVolume(grid, values, "CT", "HU"), "CT", scene)
    organs = segmentationNodeFromLabelMap(LabelMap(grid, ball.astype(np.uint16), (Organ(1, "lesion"),)), "Lesions", scene)
    widget = host.show(module, 460, 1100)
    widget.logic.installer = lambda requirements: True
    widget.ui.imageSelector.setCurrentNode(image)
    widget.ui.segmentationSelector.setCurrentNode(organs)
    widget.ui.outputEdit.currentPath = str(tmp_path)
    return widget


def cells(table, column: str) -> list[str]:
    names = [table.GetColumnName(index) for index in range(table.GetNumberOfColumns())]
    return [table.GetCellText(row, names.index(column)) for row in range(table.GetNumberOfRows())]


@needs_pyradiomics
def test_features_of_a_ball_come_into_a_table_with_their_record(host, scene, panel, screenshots):
    import slicer

    ui, p = panel.ui, panel._parameterNode
    p.logSigmaMm, p.voxelMm = "3", 0.0
    assert ui.runButton.enabled
    ui.runButton.click()
    host.waitUntil(finished(panel), 120)
    assert ui.statusLabel.text.startswith("Finished"), ui.statusLabel.text + ui.logEdit.toPlainText()
    columns = [cells(p.featureTable, name) for name in ("filter", "feature", "value")]
    found = {(kind, feature): float(value) for kind, feature, value in zip(*columns, strict=True)}
    inside = slicer.util.arrayFromSegmentBinaryLabelmap(p.segmentation, "lesion", p.image)
    assert found["original", "shape_VoxelVolume"] == pytest.approx(10.0 * inside.sum())  # voxels of 2 x 2 x 2.5 mm
    assert ("log-sigma-3-0-mm-3D", "firstorder_Mean") in found
    record = json.loads(p.featureTable.GetNodeReference("SynthDose.record").GetText())
    assert record["settings"]["log_sigma_mm"] == [3.0]
    assert p.featureTable.GetNodeReference("SynthDose.image") is p.image
    assert ui.featureTableView.rowCount == len(found)
    assert ui.featureTableView.columnWidth(1) <= 210  # the longest name of a feature leaves room for its value
    host.screenshot(panel.parent, screenshots / "radiomics_panel.png")


@needs_pyradiomics
def test_a_dose_beside_the_ct_gives_rows_of_its_own(host, scene, panel):
    """Dose = 2 Gy + 0.01 Gy per mm to the left: the mean over a ball is that of its centre, as for any linear function."""
    import slicer

    ui, p = panel.ui, panel._parameterNode
    ui.secondImageSelector.setCurrentNode(p.image)
    assert "second image is the first" in ui.runButton.toolTip
    grid = VoxelGrid.from_spacing((30, 30, 30), (2.0, 2.0, 2.0))
    k, j, i = np.indices(grid.shape)
    x = grid.to_ras(np.stack([i, j, k], -1))[..., 0]
    dose = volumeNodeFromImage(ImageVolume(grid, (2 - 0.01 * x).astype(np.float32), unit="Gy"), "Dose", scene)
    ui.secondImageSelector.setCurrentNode(dose)
    p.voxelMm, p.wavelet = 0.0, False
    ui.runButton.click()
    host.waitUntil(finished(panel), 120)
    assert ui.statusLabel.text.endswith("features.csv"), ui.statusLabel.text + ui.logEdit.toPlainText()
    columns = [cells(p.featureTable, name) for name in ("image", "feature", "value")]
    found = {(image, feature): float(value) for image, feature, value in zip(*columns, strict=True)}
    assert {image for image, _ in found} == {"CT", "DOSE"}, ui.logEdit.toPlainText()
    assert found["DOSE", "firstorder_Mean"] == pytest.approx(2.0, abs=0.01)
    assert found["CT", "firstorder_Mean"] == pytest.approx(40, abs=1)
    assert p.featureTable.GetNthNodeReference("SynthDose.image", 1) is dose
    record = json.loads(p.featureTable.GetNodeReference("SynthDose.record").GetText())
    assert record["further_images"] == ["second_image.nrrd"]
    assert slicer.util.getNode("CT features") is p.featureTable


def test_an_image_says_what_it_is(panel, scene):
    import slicer

    from SynthDoseLib.core import DoseMap
    from SynthDoseLib.mrml import doseVolumeFromDose

    ui, p = panel.ui, panel._parameterNode
    grid = VoxelGrid.from_spacing((4, 4, 4), (2.0, 2.0, 2.0))
    values = np.ones(grid.shape, np.float32)
    dose = doseVolumeFromDose(DoseMap(grid, values, 0.1 * values, ""), "Dose", scene)
    scan = slicer.util.addVolumeFromArray(values, name="PET")
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    hierarchy.SetItemAttribute(hierarchy.GetItemByDataNode(scan), "DICOM.Modality", "PT")
    ct = p.image
    for node, modality in ((dose, "dose"), (scan, "PT"), (ct, "CT")):
        ui.imageSelector.setCurrentNode(node)
        assert p.modality == ui.modalityBox.currentText == modality
    ui.secondImageSelector.setCurrentNode(scan)
    assert p.secondModality == "PT"
    ui.modalityBox.currentIndex = ui.modalityBox.findText("MR")
    panel.exit()
    panel.enter()
    assert p.modality == "MR"  # what the user says outlives that


@needs_pyradiomics
def test_the_installed_version_is_checked_against_ibsi(host, panel):
    panel.ui.imageSelector.setCurrentNode(None)
    assert not panel.ui.runButton.enabled
    panel.ui.ibsiButton.click()
    host.waitUntil(finished(panel), 60)
    assert panel.ui.ibsiLabel.text == "102 of 102 features of IBSI's digital phantom agree."
    panel.ui.ibsiTableButton.click()
    import slicer

    table = panel._parameterNode.ibsiTable
    assert slicer.util.getNode("TableView1").GetTableNodeID() == table.GetID()
    assert table.GetNodeReference("SynthDose.record") is not None


@needs_pyradiomics
def test_a_bad_parameter_file_is_told_and_the_scene_stays(host, scene, panel, tmp_path):
    (tmp_path / "bad.yaml").write_text("setting: {binWidth: -1}")
    assert panel.ui.parameterFileEdit.currentPath == ""
    panel.ui.parameterFileEdit.currentPath = str(tmp_path / "bad.yaml")
    assert not panel.ui.voxelSpinBox.enabled
    nodes = scene.GetNumberOfNodes()
    panel.ui.runButton.click()
    host.waitUntil(finished(panel), 60)
    assert "refuses the parameters" in panel.ui.statusLabel.text
    assert scene.GetNumberOfNodes() == nodes


def test_without_pyradiomics_the_panel_says_how_to_get_it(panel, monkeypatch):
    ui = panel.ui
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    panel.updateGui()
    assert not ui.runButton.enabled
    assert not ui.ibsiButton.enabled
    for text in (ui.runButton.toolTip, ui.ibsiLabel.text):
        assert "SlicerRadiomics" in text
        assert Path(re.search(r'PythonSlicer "(.+)"', text)[1]).is_file()


def test_own_test_of_the_module(module):
    import slicer

    slicer.modules.SynthDoseRadiomicsInstance.runTest(msec=0)
