"""The phantom panel with the real command line: patient to phantom with verdict, stylised person, calibration, bad input."""

from __future__ import annotations

import numpy as np
import pytest
from surroundings import REPOSITORY, finished

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


@pytest.fixture
def module(host, scene):
    loaded = host.loadModule(REPOSITORY / "SynthDose" / "SynthDosePhantom.py")
    yield loaded
    loaded.discard()


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


def run(host, panel, button: str) -> None:
    getattr(panel.ui, button).click()
    host.waitUntil(finished(panel), 180)
    text = panel.ui.statusLabel.text
    assert text.startswith("Finished"), text + panel.ui.logEdit.toPlainText()


def test_a_patient_becomes_a_phantom_with_a_verdict(host, scene, panel, tmp_path, screenshots):
    import slicer

    ui, p = panel.ui, panel._parameterNode
    p.exports = "case"
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
    row = rows.index("liver")
    panel.logic.goTo(p, row)
    views = {"Yellow": 0, "Green": 1, "Red": 2}  # sagittal, coronal, axial
    shown = [slicer.util.getNode(f"vtkMRMLSliceNode{name}").GetSliceToRAS().GetElement(axis, 3) for name, axis in views.items()]
    middle = labels.grid.to_ras(np.argwhere(labels.mask("liver")).mean(axis=0)[::-1])
    assert shown == pytest.approx(middle, abs=6.1)
    assert list(tmp_path.rglob("case.toml"))
    ui.show3DButton.click()
    assert p.segmentation.GetDisplayNode().GetVisibility3D()
    host.screenshot(panel.parent, screenshots / "phantom_panel.png")


def test_a_stylised_child_is_made_to_measure(host, scene, panel):
    p = panel._parameterNode
    panel.ui.imageSelector.setCurrentNode(None)
    assert not panel.ui.runButton.enabled
    p.age, p.sex, p.personVoxelMm = 5.0, "male", 8.0
    run(host, panel, "personButton")
    assert isPhantom(p.phantom)
    density = imageFromVolumeNode(p.phantom)
    mass_kg = density.values.sum(dtype=np.float64) * density.grid.voxel_volume_ml / 1000
    assert mass_kg == pytest.approx(18.5, rel=0.1)  # median of boys of 5 years, CDC 2000: 18.4 kg; WHO 2007: 18.3 kg
    labels = labelMapFromSegmentationNode(organsOfPhantom(p.phantom), density.grid)
    assert len(labels.organs) >= 30
    liver = labels.grid.to_ras(np.argwhere(labels.mask("liver")).mean(axis=0)[::-1])
    assert liver[0] > 0
    assert "stylised" in panel.ui.verdictLabel.text


def test_the_calibration_is_a_table_with_a_curve(host, panel):
    ui, p = panel.ui, panel._parameterNode
    assert not ui.knotsEdit.enabled
    ui.schneiderButton.click()
    assert ui.knotsEdit.enabled
    ui.curveButton.click()
    table = p.curveChart.GetNthPlotSeriesNode(0).GetTableNode()
    assert float(table.GetCellText(0, 0)) == -1000
    p.knots = "0, 1.0\n-100, 0.9"
    ui.curveButton.click()
    assert "CT numbers" in ui.statusLabel.text
    ui.runButton.click()
    assert "CT numbers" in ui.statusLabel.text
    assert not panel.logic.running


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
