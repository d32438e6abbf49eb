"""The segmentation panel with the real command line: a bundle whose answer is known, preview, uncertainty, comparison."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from surroundings import REPOSITORY, finished

pytest.importorskip("torch")
pytest.importorskip("monai")

sys.path.insert(0, str(REPOSITORY / "Testing" / "Python"))
from small_bundles import ball, write_linear, write_thresholds

from SynthDoseLib.core import LabelMap, Organ
from SynthDoseLib.mrml import labelMapFromSegmentationNode, segmentationNodeFromLabelMap, volumeNodeFromImage
from SynthDoseLib.mrml.segmentations import gridOfSegmentation


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_thresholds(tmp_path_factory.mktemp("thresholds") / "bundle")


@pytest.fixture(scope="module")
def second(tmp_path_factory):
    """Its bone begins at 1000 HU, not at 500."""
    folder = tmp_path_factory.mktemp("second") / "a folder, with a comma"
    return write_linear(folder, ["background", "Liver", "bone"], (0.0, 8.0, 24.0), (0.0, 0.0, -16.0))


MODULE = "SynthDoseSegmentation"


@pytest.fixture
def panel(host, scene, module, tmp_path, bundle):
    widget = host.show(module, 460, 1200)
    widget.logic.installer = lambda requirements: True
    widget.ui.imageSelector.setCurrentNode(volumeNodeFromImage(ball(), "CT", scene))
    widget.ui.outputEdit.currentPath = str(tmp_path)
    widget.ui.bundleEdit.text = str(bundle)
    return widget


def run(host, panel, button: str) -> None:
    getattr(panel.ui, button).click()
    host.waitUntil(finished(panel), 300)
    text = panel.ui.statusLabel.text
    assert text.startswith(("Finished", "The bundle")), text + panel.ui.logEdit.toPlainText()


def test_a_shipped_bundle_is_offered_and_choices_follow_the_method(host, scene, module):
    from SynthDoseLib.segmentation import shipped_bundles

    widget = host.show(module)
    ui = widget.ui
    assert ui.bundleEdit.text == shipped_bundles()[0]
    assert ui.runButton.toolTip == "Choose the image"
    ui.imageSelector.setCurrentNode(volumeNodeFromImage(ball(), "CT", scene))
    assert ui.runButton.enabled
    ui.bundleEdit.text = ""
    assert ui.runButton.toolTip == "Name a bundle"
    ui.methodBox.currentIndex = 1
    assert ui.runButton.enabled
    assert not ui.bundleEdit.enabled
    ui.modalityBox.currentIndex = 1
    assert "need a CT" in ui.runButton.toolTip


def test_bundles_are_chosen_from_a_list_a_folder_or_by_name(host, panel, monkeypatch, tmp_path):
    import qt

    ui, p, box = panel.ui, panel._parameterNode, panel.ui.bundleBox
    other = box.count - 1
    assert box.currentIndex == other  # the folder of the fixture
    texts = [box.itemText(index) for index in range(box.count)]
    assert texts[0] == "synthetic_torso_ct"
    zoo = next(index for index, text in enumerate(texts) if text.startswith("wholeBody_ct_segmentation (Model Zoo"))
    box.setCurrentIndex(zoo)
    box.activated.emit(zoo)
    assert (p.bundle, panel.logic.download, ui.downloadCheckBox.checked) == ("wholeBody_ct_segmentation", True, True)
    arguments = panel.logic.prepare(p, tmp_path / "job")
    assert "--download" in arguments
    assert arguments[arguments.index("--bundle") + 1] == "wholeBody_ct_segmentation"
    box.setCurrentIndex(0)
    box.activated.emit(0)
    assert (p.bundle, ui.bundleEdit.text, panel.logic.download) == ("synthetic_torso_ct", "synthetic_torso_ct", False)
    monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path))
    ui.browseButton.click()
    assert p.bundle == str(tmp_path)
    assert box.currentIndex == other


def test_organs_come_with_volumes_uncertainty_and_terminology(host, scene, panel, screenshots):
    import slicer

    p = panel._parameterNode
    chooseByKeys(panel.ui.uncertaintyBox, 1)
    panel.ui.inferencesSpinBox.value = 2
    run(host, panel, "runButton")
    labels = labelMapFromSegmentationNode(p.segmentation, p.image)
    expected = ball().values
    liver = labels.mask("liver")
    assert liver.any()
    assert (expected[liver] > expected.min()).all()
    assert gridOfSegmentation(p.segmentation).matches(labels.grid)
    segment = p.segmentation.GetSegmentation().GetSegment("liver")
    import vtk

    tag = vtk.reference("")
    assert segment.GetTag(segment.GetTerminologyEntryTagName(), tag)
    assert "10200004" in str(tag.get())
    assert p.entropyVolume is p.segmentation.GetNodeReference("SynthDose.entropyVolume")
    names = [p.volumeTable.GetColumnName(index) for index in range(p.volumeTable.GetNumberOfColumns())]
    assert {"volume_ml", "low_ml", "high_ml"} <= set(names)
    panel.ui.showEntropyButton.click()
    composite = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")[0]
    assert composite.GetForegroundVolumeID() == p.entropyVolume.GetID()
    host.screenshot(panel.parent, screenshots / "segmentation_panel.png")


def chooseByKeys(box, index: int) -> None:
    """Go to an entry of a combo box with the arrow keys."""
    from PySide6.QtCore import Qt
    from PySide6.QtTest import QTest

    for _ in range(abs(index - box.currentIndex)):
        QTest.keyClick(box, Qt.Key.Key_Down if index > box.currentIndex else Qt.Key.Key_Up)
    assert box.currentIndex == index


def test_what_an_ensemble_lacks_is_said(panel, second, monkeypatch):
    import qt
    from PySide6.QtCore import Qt
    from PySide6.QtTest import QTest

    ui, p = panel.ui, panel._parameterNode
    assert not ui.ensembleEdit.enabled
    assert not ui.inferencesSpinBox.enabled
    chooseByKeys(ui.uncertaintyBox, 2)
    assert ui.ensembleEdit.enabled
    assert not ui.inferencesSpinBox.enabled
    assert not ui.runButton.enabled
    assert "further bundles" in ui.runButton.toolTip
    QTest.keyClicks(ui.ensembleEdit, p.bundle)
    assert "twice" in ui.runButton.toolTip
    ui.ensembleEdit.setPlainText("")
    QTest.keyClick(ui.memberBox, Qt.Key.Key_Down)  # the shipped one
    assert ui.memberBox.currentIndex == 0  # the list shows its title again
    monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", lambda *_: str(second))
    ui.memberFolderButton.click()
    assert p.ensemble.splitlines() == ["synthetic_torso_ct", str(second)]
    assert ui.runButton.enabled
    chooseByKeys(ui.uncertaintyBox, 3)
    assert ui.inferencesSpinBox.enabled
    chooseByKeys(ui.methodBox, 1)
    assert not ui.ensembleEdit.enabled
    assert ui.runButton.enabled


def test_an_ensemble_in_the_panel_is_that_of_the_command(host, scene, panel, bundle, second, tmp_path):
    """In the core of 800 HU one bundle sees bone and the other liver: 0.515 to 0.485, so it is bone, and in doubt."""
    from PySide6.QtTest import QTest

    from SynthDoseLib.cli import main
    from SynthDoseLib.io import read_labels, read_volume
    from SynthDoseLib.mrml import imageFromVolumeNode, saveImage

    ui, p = panel.ui, panel._parameterNode
    chooseByKeys(ui.uncertaintyBox, 2)
    QTest.keyClicks(ui.ensembleEdit, str(second))
    run(host, panel, "runButton")
    image = imageFromVolumeNode(p.image, modality="CT", unit="HU")
    saveImage(image, tmp_path / "ct.nrrd")
    words = ["segment", tmp_path / "ct.nrrd", "--modality", "CT", "--bundle", bundle, "--ensemble", second]
    assert main([str(word) for word in [*words, "--out", tmp_path / "verb.seg.nrrd"]]) == 0
    byVerb = read_labels(tmp_path / "verb.seg.nrrd", reference=image.grid)
    inPanel = labelMapFromSegmentationNode(p.segmentation, p.image)
    assert {organ.name for organ in byVerb.organs} == {"liver", "bone"}
    for organ in byVerb.organs:
        np.testing.assert_array_equal(inPanel.mask(organ.name), byVerb.mask(organ.name))
    entropy = read_volume(tmp_path / "verb.entropy.nrrd")[0]
    np.testing.assert_array_equal(imageFromVolumeNode(p.entropyVolume).values, entropy)
    core = byVerb.mask("bone")
    assert np.median(entropy[core]) > 0.6  # 0.69 for two that are equally likely
    rows = {p.volumeTable.GetCellText(row, 0): row for row in range(p.volumeTable.GetNumberOfRows())}
    columns = [p.volumeTable.GetColumnName(index) for index in range(p.volumeTable.GetNumberOfColumns())]
    cells = {name: float(p.volumeTable.GetCellText(rows["bone"], columns.index(name))) for name in columns[1:]}
    assert cells["inferences"] == 2
    assert cells["sigma_ml"] > 0.5 * cells["volume_ml"]  # one bundle finds it, the other does not
    assert p.segmentation.GetAttribute("SynthDose.bundle") == f"{bundle}, {second}"


def test_a_member_that_does_not_fit_is_told_and_the_scene_stays(host, scene, panel, tmp_path):
    other = write_linear(tmp_path / "other", ["background", "Liver", "heart"], (0.0, 8.0, 24.0), (0.0, 0.0, -8.0))
    chooseByKeys(panel.ui.uncertaintyBox, 2)
    panel._parameterNode.ensemble = str(other)
    nodes = scene.GetNumberOfNodes()
    panel.ui.runButton.click()
    host.waitUntil(finished(panel), 60)
    assert "do not segment the same organs" in panel.ui.statusLabel.text
    assert scene.GetNumberOfNodes() == nodes


def test_a_preview_is_coarser_and_about_as_large(host, scene, panel):
    p = panel._parameterNode
    p.previewMm = 6.0
    run(host, panel, "previewButton")
    preview = p.segmentation
    assert gridOfSegmentation(preview).spacing_mm == pytest.approx((6.0, 6.0, 6.0))
    assert "preview" in preview.GetName()
    assert [p.volumeTable.GetCellText(row, 0) for row in range(p.volumeTable.GetNumberOfRows())] == ["liver", "bone"]


def test_a_bundle_is_described_and_a_bad_one_is_told(host, scene, panel, tmp_path):
    run(host, panel, "aboutButton")
    log = panel.ui.logEdit.toPlainText()
    assert "SHA-256" in log
    assert "liver" in log
    chooseByKeys(panel.ui.uncertaintyBox, 2)
    panel._parameterNode.ensemble = "synthetic_torso_ct"
    run(host, panel, "aboutButton")
    both = panel.ui.logEdit.toPlainText()
    assert both.count("SHA-256") == 2  # every bundle that the run would take
    assert "synthetic_torso_ct" in both
    panel.ui.bundleEdit.text = str(tmp_path / "nowhere")
    nodes = scene.GetNumberOfNodes()
    panel.ui.runButton.click()
    host.waitUntil(finished(panel), 60)
    assert "nowhere" in panel.ui.statusLabel.text
    assert scene.GetNumberOfNodes() == nodes


def test_two_segmentations_are_compared(host, scene, panel):
    image = ball()
    values = np.zeros(image.grid.shape, np.uint16)
    values[10:20, 10:20, 10:20] = 1
    shifted = np.zeros_like(values)
    shifted[10:20, 10:20, 15:25] = 1
    organ = (Organ(1, "liver", "10200004"),)
    first, second = (segmentationNodeFromLabelMap(LabelMap(image.grid, v, organ), "s", scene) for v in (values, shifted))
    ui, p = panel.ui, panel._parameterNode
    assert not ui.compareButton.enabled
    p.segmentation = p.reference = first
    assert "different" in ui.compareButton.toolTip
    p.reference = second
    run(host, panel, "compareButton")
    table = p.comparisonTable
    names = [table.GetColumnName(index) for index in range(table.GetNumberOfColumns())]
    row = {name: table.GetCellText(0, index) for index, name in enumerate(names)}
    assert row["organ"] == "liver"
    assert float(row["dice"]) == pytest.approx(0.5)
    assert [table.GetNthNodeReference("SynthDose.segmentation", index) for index in (0, 1)] == [first, second]
    assert table.GetNodeReference("SynthDose.record") is not None


def test_own_test_of_the_module(module):
    import slicer

    slicer.modules.SynthDoseSegmentationInstance.runTest(msec=0)
