"""The phantom panel with the real command line: patient to phantom with verdict, stylised person, calibration, bad input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from surroundings import finished

from SynthDoseLib.core import ImageVolume, LabelMap, Organ, VoxelGrid
from SynthDoseLib.mrml import (
    imageFromVolumeNode,
    isPhantom,
    labelMapFromSegmentationNode,
    organsOfPhantom,
    segmentationNodeFromLabelMap,
    updateVolumeFromImage,
    volumeNodeFromImage,
)

MODULE = "SynthDosePhantom"


@pytest.fixture
def panel(host, scene, module, tmp_path):
    """A box of soft tissue with a liver on the right and half a spleen in the wrong place."""
    grid = VoxelGrid.from_spacing((30, 30, 40), (6.0, 6.0, 6.0))
    values = np.full(grid.shape, -1000, np.float32)
    values[2:28, 4:26, 4:36] = 40
    labels = np.zeros(grid.shape, np.uint16)
    labels[8:22, 8:22, 22:34] = 1
    labels[10:14, 8:12, 6:10] = 2
    organs = (Organ(1, "liver", "10200004"), Organ(2, "spleen", "78961009"))
    image = volumeNodeFromImage(ImageVolume(grid, values, "CT", "HU"), "CT", scene)
    widget = host.show(module, 460, 1300)
    widget.logic.installer = lambda requirements: True
    widget.ui.imageSelector.setCurrentNode(image)
    widget.ui.segmentationSelector.setCurrentNode(segmentationNodeFromLabelMap(LabelMap(grid, labels, organs), "Organs", scene))
    widget.ui.outputEdit.currentPath = str(tmp_path)
    return widget


def clickRow(view, row: int) -> None:
    """Click a row with the mouse."""
    from PySide6.QtCore import Qt
    from PySide6.QtTest import QTest

    view.scrollToItem(view.item(row, 0))
    where = view.visualItemRect(view.item(row, 0)).center()
    QTest.mouseClick(view.viewport(), Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, where)


def massOf(phantom) -> float:
    """Mass of a phantom, kg."""
    density = imageFromVolumeNode(phantom)
    return density.values.sum(dtype=np.float64) * density.grid.voxel_volume_ml / 1000


def picture(path) -> np.ndarray:
    """Pixels of a PNG, (rows, columns, 3)."""
    import vtk
    from vtk.util import numpy_support

    reader = vtk.vtkPNGReader()
    reader.SetFileName(str(path))
    reader.Update()
    image = reader.GetOutput()
    columns, rows, _ = image.GetDimensions()
    values = numpy_support.vtk_to_numpy(image.GetPointData().GetScalars())
    return values.reshape(rows, columns, -1)[..., :3].astype(float)


def run(host, panel, button: str) -> None:
    getattr(panel.ui, button).click()
    host.waitUntil(finished(panel), 180)
    text = panel.ui.statusLabel.text
    assert text.startswith("Finished"), text + panel.ui.logEdit.toPlainText()


def test_a_patient_becomes_a_phantom_with_a_verdict(host, scene, panel, tmp_path, screenshots):
    import slicer

    ui, p = panel.ui, panel._parameterNode
    ui.caseCheckBox.click()
    run(host, panel, "runButton")
    assert isPhantom(p.phantom)
    assert organsOfPhantom(p.phantom) is p.segmentation
    density = imageFromVolumeNode(p.phantom)
    labels = labelMapFromSegmentationNode(p.segmentation, density.grid)
    assert density.values[labels.mask("liver")].mean() == pytest.approx(1.05, abs=0.03)  # 40 HU
    assert "spleen" in ui.verdictLabel.text  # 14 ml, of 150
    assert "(expected: " in ui.verdictLabel.text  # what is right, and then what to do
    rows = [p.qualityTable.GetCellText(row, 0) for row in range(p.qualityTable.GetNumberOfRows())]
    assert {"liver", "spleen"} <= set(rows)
    assert ui.pageButton.enabled
    columns = [p.qualityTable.GetColumnName(column) for column in range(p.qualityTable.GetNumberOfColumns())]
    tissue = p.qualityTable.GetCellText(rows.index("liver"), columns.index("tissue"))
    assert "tissue" in tissue  # 40 HU: soft tissue of Schneider et al.
    row = rows.index("liver")
    clickRow(ui.qualityTableView, row)
    views = {"Yellow": 0, "Green": 1, "Red": 2}  # sagittal, coronal, axial
    shown = [slicer.util.getNode(f"vtkMRMLSliceNode{name}").GetSliceToRAS().GetElement(axis, 3) for name, axis in views.items()]
    middle = labels.grid.to_ras(np.argwhere(labels.mask("liver")).mean(axis=0)[::-1])
    assert shown == pytest.approx(middle, abs=6.1)
    assert list(tmp_path.rglob("case.toml"))
    ui.show3DButton.click()
    assert p.segmentation.GetDisplayNode().GetVisibility3D()
    host.screenshot(panel.parent, screenshots / "phantom_panel.png")


def test_a_stylised_child_is_made_with_sliders_and_shown_in_3d(host, scene, panel, screenshots):
    from slicerhost.views import ThreeDView

    ui, p = panel.ui, panel._parameterNode
    ui.imageSelector.setCurrentNode(None)
    assert not ui.runButton.enabled
    ui.ageSlider.value, p.sex, p.personVoxelMm = 5.0, "male", 8.0
    assert not ui.heightSlider.enabled
    assert ui.heightSlider.value == pytest.approx(109.2, abs=0.6)  # median of boys of 5 years, CDC 2000
    assert ui.weightSlider.value == pytest.approx(18.5, abs=0.3)
    run(host, panel, "personButton")
    assert isPhantom(p.phantom)
    mass_kg = massOf(p.phantom)
    assert mass_kg == pytest.approx(18.5, rel=0.1)  # median of boys of 5 years, CDC 2000: 18.4 kg; WHO 2007: 18.3 kg
    organs = organsOfPhantom(p.phantom)
    labels = labelMapFromSegmentationNode(organs, p.phantom)
    assert len(labels.organs) >= 30
    liver = labels.grid.to_ras(np.argwhere(labels.mask("liver")).mean(axis=0)[::-1])
    assert liver[0] > 0
    assert "stylised" in ui.verdictLabel.text
    assert organs.GetDisplayNode().GetVisibility3D()
    view = ThreeDView(host.core)
    view.look(azimuth=20, elevation=10)
    pixels = picture(view.save(screenshots / "phantom_child_3d.png"))
    drawn = np.abs(pixels - pixels[:, :1]).max(axis=-1) > 30  # the background is the same all along a row
    rows, columns = np.nonzero(drawn)
    assert drawn.mean() > 0.02
    assert np.ptp(rows) > 2 * np.ptp(columns)  # a standing child is taller than wide
    ui.medianCheckBox.click()
    assert ui.heightSlider.enabled
    ui.weightSlider.value = 24.0
    run(host, panel, "personButton")
    assert massOf(p.phantom) == pytest.approx(24.0, rel=0.1)


def test_a_stylised_person_is_exported_as_the_command_does_it(host, scene, panel, tmp_path):
    import pydicom
    import vtk

    from SynthDoseLib.cli import main
    from SynthDoseLib.io import read_labels

    ui, p = panel.ui, panel._parameterNode
    ui.ageSlider.value, p.personVoxelMm = 1.0, 8.0
    formats = ("case", "gate", "penred", "stl", "vtp", "dicom")
    for name in formats:
        getattr(ui, f"{name}CheckBox").click()
    run(host, panel, "personButton")
    assert str(p.resultFolder) in ui.statusLabel.text
    made = Path(p.resultFolder)
    words = ["people", "--count", "1", "--sex", "female", "--age", "1", "--seed", "1", "--voxel", "8", "--percentile", "50"]
    assert main([*words, "--export", *formats, "--out", str(tmp_path / "verb")]) == 0
    again = tmp_path / "verb" / made.name
    for name in formats:
        files = sorted(path.relative_to(made) for path in (made / name).rglob("*") if path.is_file())
        assert files == sorted(path.relative_to(again) for path in (again / name).rglob("*") if path.is_file())
        for file in files if name != "dicom" else ():  # whose UIDs and times are new each time
            assert (made / file).read_bytes() == (again / file).read_bytes(), file
    segments = pydicom.dcmread(made / "dicom" / "seg.dcm").SegmentSequence
    labels = read_labels(made / "labels.seg.nrrd")
    counts = labels.voxel_counts()
    assert len(segments) == sum(count > 0 for count in counts.values())
    reader = vtk.vtkSTLReader()
    reader.SetFileName(str(made / "stl" / "liver.stl"))
    mesh = vtk.vtkMassProperties()
    mesh.SetInputConnection(reader.GetOutputPort())
    mesh.Update()
    assert mesh.GetVolume() / 1000 == pytest.approx(counts["liver"] * labels.grid.voxel_volume_ml, rel=0.05)


def test_sliders_show_the_medians_until_they_are_moved(host, scene, panel):
    ui, p = panel.ui, panel._parameterNode
    shown = (ui.heightSlider.value, ui.weightSlider.value)
    assert shown == pytest.approx((163.3, 60.3), abs=0.06)  # CDC 2000 at 20 years; 22.6 kg/m2 at that height
    ui.medianCheckBox.click()
    ui.heightSlider.value, ui.weightSlider.value = 180.0, 90.0
    ui.ageSlider.value = 40.0
    assert (p.heightCm, p.weightKg) == (180.0, 90.0)
    ui.medianCheckBox.click()
    assert (ui.heightSlider.value, ui.weightSlider.value) == pytest.approx(shown)
    ui.sexBox.currentIndex = 1
    assert p.heightCm == pytest.approx(176.8, abs=0.1)
    scene.Clear()
    assert (panel._parameterNode.heightCm, panel.ui.sexBox.currentIndex) == (163.3, 0)


def test_the_calibration_is_a_table_with_a_curve_that_follows_it(host, panel):
    ui, p = panel.ui, panel._parameterNode
    assert not ui.knotsView.enabled
    ui.schneiderButton.click()
    assert ui.knotsView.enabled
    ui.curveButton.click()
    own, published = (p.curveChart.GetNthPlotSeriesNode(n).GetTableNode() for n in (0, 1))
    assert own is p.calibrationTable
    assert float(published.GetCellText(0, 0)) == float(own.GetCellText(0, 0)) == -1000
    chart = p.curveChart
    ui.knotsView.item(1, 1).setText("0.3")  # as typed into the cell
    assert own.GetCellText(1, 1) == "0.3"
    ui.curveButton.click()
    assert p.curveChart is chart
    assert ui.runButton.enabled
    rows = own.GetNumberOfRows()
    ui.knotsView.setCurrentCell(0, 0)
    ui.addKnotButton.click()
    assert own.GetNumberOfRows() == rows + 1
    low, middle, high = (float(own.GetCellText(row, 0)) for row in range(3))
    assert middle == pytest.approx((low + high) / 2, abs=0.01)
    ui.knotsView.setCurrentCell(1, 0)
    ui.removeKnotButton.click()
    assert [float(own.GetCellText(row, 0)) for row in range(2)] == [low, high]
    ui.knotsView.item(1, 0).setText("-2000")
    for text in (ui.curveLabel.text, ui.runButton.toolTip):
        assert "CT numbers" in text  # have to increase
    assert not ui.runButton.enabled


def test_a_calibration_is_read_from_a_file(panel, monkeypatch, tmp_path):
    import qt

    ui, p = panel.ui, panel._parameterNode
    file = tmp_path / "scanner.csv"
    monkeypatch.setattr(qt.QFileDialog, "getOpenFileName", lambda *_: str(file))
    file.write_text("hu,density_g_cm3,material\n-1000,0.001,\n0,1.0,water\n1000,1.6,bone\n")
    ui.loadCurveButton.click()
    table = p.calibrationTable
    assert [table.GetCellText(row, 2) for row in range(3)] == ["", "water", "bone"]
    assert ui.runButton.enabled
    file.write_text("hu,rho\n0,1\n")
    ui.loadCurveButton.click()
    assert "hu,density_g_cm3" in ui.statusLabel.text
    assert table.GetNumberOfRows() == 3


def test_tissues_by_hand_reach_the_phantom(host, scene, panel):
    ui, p = panel.ui, panel._parameterNode
    ui.listOrgansButton.click()
    table = p.tissueTable
    rows = {table.GetCellText(row, 0): row for row in range(table.GetNumberOfRows())}
    assert set(rows) == {"liver", "spleen"}
    ui.tissueView.item(rows["liver"], 2).setText("1.2")
    ui.tissueView.item(rows["spleen"], 1).setText("titanium")
    ui.tissueView.item(rows["spleen"], 2).setText("4.4")
    ui.listOrgansButton.click()
    assert table.GetNumberOfRows() == 2
    run(host, panel, "runButton")
    density = imageFromVolumeNode(p.phantom)
    labels = labelMapFromSegmentationNode(p.segmentation, density.grid)
    assert density.values[labels.mask("liver")] == pytest.approx(1.2)
    assert density.values[labels.mask("spleen")] == pytest.approx(4.4)
    columns = [p.qualityTable.GetColumnName(column) for column in range(p.qualityTable.GetNumberOfColumns())]
    cells = {p.qualityTable.GetCellText(row, 0): row for row in range(p.qualityTable.GetNumberOfRows())}
    assert p.qualityTable.GetCellText(cells["spleen"], columns.index("tissue")) == "titanium"
    ui.tissueView.item(rows["liver"], 2).setText("heavy")
    ui.runButton.click()
    assert "density of liver" in ui.statusLabel.text


def test_metal_without_a_name_is_told_and_the_scene_stays(host, scene, panel):
    p = panel._parameterNode
    image = imageFromVolumeNode(p.image)
    values = image.values.copy()
    values[12:15, 12:15, 12:15] = 12000
    updateVolumeFromImage(p.image, ImageVolume(image.grid, values, "CT", "HU"))
    nodes = scene.GetNumberOfNodes()
    panel.ui.runButton.click()
    host.waitUntil(finished(panel), 120)
    assert "metal" in panel.ui.statusLabel.text.lower()
    assert scene.GetNumberOfNodes() == nodes
    assert panel.ui.runButton.enabled


def test_own_test_of_the_module(module):
    import slicer

    slicer.modules.SynthDosePhantomInstance.runTest(msec=0)
