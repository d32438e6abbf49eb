"""The guided case beyond one scan: several scans and what they lack, results and their references, export, sample data."""

from __future__ import annotations

import sys
import tomllib

import numpy as np
import pytest
from surroundings import HERE, finished
from test_panel_synthdose import choose, patient, useWorker

from SynthDoseLib.core import ImageVolume
from SynthDoseLib.mrml import gridFromVolumeNode, imageFromVolumeNode, volumeNodeFromImage
from SynthDoseLib.mrml.case_inputs import planValues
from SynthDoseLib.mrml.run_tables import resultOf
from SynthDoseLib.mrml.time_points import COLUMNS, volumesOf


@pytest.fixture
def panel(host, scene, module, tmp_path):
    widget = host.show(module, 460, 1300)
    widget.ui.outputEdit.currentPath = str(tmp_path)
    useWorker(widget, "quick")
    return widget


def chooseInputs(widget, scene):
    ct, segmentation, spect = patient(scene, spacing=9.0)
    choose(widget.ui, ct, segmentation, spect)
    return ct, segmentation, spect


def typeInto(view, row: int, column: str, text: str) -> None:
    view.item(row, COLUMNS.index(column)).setText(text)


def cells(table, row: int) -> dict[str, str]:
    return {title: table.GetCellText(row, column) for column, title in enumerate(COLUMNS)}


def test_what_the_scans_lack_is_said_and_repaired_in_the_table(host, scene, panel, tmp_path, screenshots):
    _ct, _, spect = chooseInputs(panel, scene)
    ui, p = panel.ui, panel._parameterNode
    assert ui.runButton.enabled
    late = volumeNodeFromImage(
        ImageVolume(gridFromVolumeNode(spect), imageFromVolumeNode(spect).values / 2), "late scan", scene
    )
    ui.activitySelector.setCurrentNode(late)
    assert cells(p.timePoints, 1)["missing"] == "unit"
    assert ui.runButton.toolTip == "late scan: fill in unit in the table"
    typeInto(ui.timePointView, 1, "unit", "counts")
    assert cells(p.timePoints, 1)["missing"] == "when, cps_per_MBq, duration_s"
    host.screenshot(panel.parent, screenshots / "case_missing.png")
    typeInto(ui.timePointView, 1, "when", "96")
    typeInto(ui.timePointView, 1, "cps_per_MBq", "9.4")
    assert not ui.runButton.enabled
    typeInto(ui.timePointView, 1, "duration_s", "1200")
    assert ui.runButton.enabled
    late.SetName("renamed scan")
    p.timePoints.Modified()
    assert cells(p.timePoints, 1)["volume"] == "renamed scan"
    ui.runButton.click()
    host.waitUntil(finished(panel), 60)
    assert ui.statusLabel.text.startswith("Finished"), ui.statusLabel.text
    (folder,) = tmp_path.glob("SynthDose-2*")
    first, second = tomllib.loads((folder / "PLAN.toml").read_text(encoding="utf-8"))["activity"]
    assert (first["unit"], first["hours_after_administration"]) == ("Bq/ml", 24)
    assert (second["unit"], second["hours_after_administration"]) == ("counts", 96)
    assert (second["sensitivity_cps_per_MBq"], second["duration_s"]) == (9.4, 1200)
    assert second["path"].endswith("activity_2.nrrd")


def test_cells_that_cannot_be_understood_and_repeated_scans_are_refused(host, scene, panel, tmp_path):
    _, _, spect = chooseInputs(panel, scene)
    ui, p = panel.ui, panel._parameterNode
    ui.activitySelector.setCurrentNode(spect)
    assert "in the table already" in ui.statusLabel.text
    assert p.timePoints.GetNumberOfRows() == 1
    typeInto(ui.timePointView, 0, "when", "tomorrow")
    ui.runButton.click()
    assert "Write hours after administration" in ui.statusLabel.text
    typeInto(ui.timePointView, 0, "when", "24")
    typeInto(ui.timePointView, 0, "unit", "kBq")
    ui.runButton.click()
    assert "Allowed: Bq/ml" in ui.statusLabel.text
    assert list(tmp_path.iterdir()) == []
    ui.removeTimePointButton.click()
    assert p.timePoints.GetNumberOfRows() == 0
    assert not ui.removeTimePointButton.enabled


def test_the_right_volume_leaves_with_its_row(scene, panel):
    _, _, spect = chooseInputs(panel, scene)
    grid = gridFromVolumeNode(spect)
    others = [
        volumeNodeFromImage(ImageVolume(grid, np.ones(grid.shape), unit="Bq/ml"), f"SPECT {h} h", scene) for h in (48, 96)
    ]
    for node in others:
        panel.ui.activitySelector.setCurrentNode(node)
    panel.ui.timePointView.setCurrentCell(1, 0)
    panel.ui.removeTimePointButton.click()
    assert volumesOf(panel._parameterNode.timePoints) == [spect, others[1]]
    scene.RemoveNode(spect)
    panel._parameterNode.timePoints.Modified()
    assert "fill in the volume" in panel.ui.runButton.toolTip


def test_the_header_of_a_scan_decides_where_it_speaks(scene, panel):
    from datetime import datetime, timedelta

    from SynthDoseLib.mrml.time_points import noteHeader

    _ct, _, spect = patient(scene, spacing=9.0)
    injected = datetime(2024, 1, 31, 10)
    known = {"radionuclide": "I-131", "injected_activity_MBq": 3700.0, "injected_at": injected, "patient_name": "Nobody^Really"}
    image = ImageVolume(
        gridFromVolumeNode(spect),
        imageFromVolumeNode(spect).values,
        modality="NM",
        unit="Bq/ml",
        acquired_at=injected + timedelta(hours=30),
        metadata=known,
    )
    noteHeader(spect, image)
    panel.ui.activitySelector.setCurrentNode(spect)
    p = panel._parameterNode
    assert cells(p.timePoints, 0) | {"volume": ""} == {
        **dict.fromkeys(COLUMNS, ""),
        "when": "30",  # of the header, not the 24 h of the name
        "unit": "Bq/ml",
        "known_from": "header",
    }
    assert (p.nuclide, p.administeredMBq, p.administeredAt) == ("I-131", 3700.0, "2024-01-31 10:00:00")
    assert "Nobody" not in spect.GetAttribute("SynthDose.header")


def test_results_are_tables_charts_scale_and_lines_that_survive_a_bundle(host, scene, panel, tmp_path, screenshots):
    import slicer
    from slicerhost.views import SliceView

    chooseInputs(panel, scene)
    ui, p = panel.ui, panel._parameterNode
    ui.runButton.click()
    host.waitUntil(finished(panel), 60)
    view = ui.organTableView
    headers = [view.horizontalHeaderItem(c).text() for c in range(4)]
    assert headers == ["organ", "dose ± total [Gy]", "mean_dose_Gy", "total_sigma_Gy"]
    means = [float(view.item(row, 2).text()) for row in range(3)]
    assert means == sorted(means, reverse=True)
    assert float(view.item(2, 3).text()) == pytest.approx(0.1 * means[2], rel=1e-3)
    value, _, sigma = view.item(0, 1).text().split()
    assert float(value) == pytest.approx(means[0], rel=0.01)
    assert float(sigma) == pytest.approx(0.1 * means[0], rel=0.05)
    assert ui.verdictLabel.text == "Quality of the phantom: warning"
    for words, header in (("uncertainty budget", "component"), ("quality", "verdict")):
        ui.shownTableBox.setCurrentText(words)
        assert view.mrmlTableNode().GetColumnName(1) == header or view.mrmlTableNode().GetColumnIndex(header) > 0
    assert view.item(0, 0).text() == "" or view.mrmlTableNode().GetNumberOfRows() == 3
    ui.showCoursesButton.click()
    chart = resultOf(p.doseVolume, "activityChart")
    assert slicer.util.getNode("PlotView1").GetPlotChartNodeID() == chart.GetID()
    assert chart.GetNumberOfPlotSeriesNodes() == 6  # three organs, measured and fitted
    ui.isodosesCheckBox.click()
    lines = [node for node in slicer.util.getNodesByClass("vtkMRMLModelNode") if "Gy (" in node.GetName()]
    assert len(lines) == 5
    assert all(node.GetDisplayNode().GetVisibility() for node in lines)
    picture = SliceView(host.core, "Green", (400, 400))
    picture.save(screenshots / "case_isodoses.png")
    ui.isodosesCheckBox.click()
    assert not any(node.GetDisplayNode().GetVisibility() for node in lines)

    ui.saveSceneButton.click()
    (bundle,) = tmp_path.glob("*.mrb")
    name = p.doseVolume.GetName()
    scene.Clear()
    slicer.util.loadScene(str(bundle))
    panel.enter()
    dose = panel._parameterNode.doseVolume
    assert dose.GetName() == name
    sigma = dose.GetNodeReference("SynthDose.sigmaVolume")
    assert np.allclose(slicer.util.arrayFromVolume(sigma), 0.01 * slicer.util.arrayFromVolume(dose), rtol=1e-4)
    assert dose.GetAttribute("DicomRtImport.DoseUnitName") == "GY"
    assert dose.GetAttribute("DicomRtImport.DoseUnitValue") == "1.0"
    assert resultOf(dose, "image").GetName() == "CT"
    assert resultOf(dose, "segmentation").GetSegmentation().GetNumberOfSegments() == 3
    assert resultOf(dose, "budgetTable").GetNumberOfRows() == 3
    assert "versions" in resultOf(dose, "provenance").GetText()
    assert resultOf(dose, "activityChart").GetNumberOfPlotSeriesNodes() == 6
    assert volumesOf(panel._parameterNode.timePoints)[0].GetName() == "SPECT 24 h"
    assert ui.runButton.enabled  # the loaded case can be run again
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    study = hierarchy.GetItemAncestorAtLevel(hierarchy.GetItemByDataNode(dose), "Study")
    assert study
    assert hierarchy.GetItemAncestorAtLevel(study, "Patient")
    ct = hierarchy.GetItemByDataNode(resultOf(dose, "image"))
    assert hierarchy.GetItemAncestorAtLevel(ct, "Patient") == hierarchy.GetItemAncestorAtLevel(study, "Patient")


def test_the_export_is_dicom_that_says_nothing_of_the_patient(host, scene, panel, tmp_path):
    import pydicom

    chooseInputs(panel, scene)
    panel.ui.runButton.click()
    host.waitUntil(finished(panel), 60)
    from SynthDoseLib.mrml import verbCommand

    panel.logic.command = verbCommand
    panel.ui.exportButton.click()
    assert not panel.ui.exportButton.enabled
    host.waitUntil(finished(panel), 120)
    assert "RTDOSE" in panel.ui.statusLabel.text, panel.ui.logEdit.toPlainText()
    (folder,) = tmp_path.glob("SynthDose-*/dicom")
    dose = pydicom.dcmread(folder / "rtdose.dcm")
    assert dose.DoseUnits == "GY"
    assert not dose.PatientName
    assert {path.name for path in folder.iterdir()} == {"ct", "rtdose.dcm", "rtstruct.dcm", "seg.dcm"}
    highest = dose.pixel_array.max() * float(dose.DoseGridScaling)
    import slicer

    assert highest == pytest.approx(slicer.util.arrayFromVolume(panel._parameterNode.doseVolume).max(), rel=1e-4)


def test_further_keys_win_over_the_panel_and_are_checked(host, scene, panel, tmp_path):
    chooseInputs(panel, scene)
    p = panel._parameterNode
    p.furtherKeys = "[dose]\nthreads = 2\nhistories = 5000\n[dosimetry]\nboundary_sigma_voxels = 0.3"
    values = planValues(p)
    assert values["dose"]["threads"] == 2
    assert values["dose"]["histories"] == 5000
    assert values["dose"]["seed"] == 1
    p.furtherKeys = "[dose]\nthreds = 2"
    panel.ui.runButton.click()
    assert "threads" in panel.ui.statusLabel.text
    p.furtherKeys = "[dose"
    panel.ui.runButton.click()
    assert "not TOML" in panel.ui.statusLabel.text
    assert list(tmp_path.iterdir()) == []


def test_check_my_setup_shows_what_the_command_line_says(host, panel):
    import subprocess

    from SynthDoseLib.mrml import verbCommand

    done = subprocess.run(
        [sys.executable, "-m", "SynthDoseLib", "check"], capture_output=True, text=True, cwd=HERE.parents[1], check=False
    )
    panel.logic.command = verbCommand
    panel.ui.checkButton.click()
    assert panel.logic.running  # in a process of its own: the interface stays alive
    assert not panel.ui.checkButton.enabled
    host.waitUntil(finished(panel), 120)

    def still(text):  # free memory and disk change from second to second
        return [line for line in text.splitlines() if line.strip() and "GB free" not in line]

    assert still(panel.ui.logEdit.toPlainText()) == still(done.stdout)
    assert not panel.ui.logButton.collapsed
    assert panel.ui.checkButton.enabled
