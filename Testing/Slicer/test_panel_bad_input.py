"""What an unlucky user chooses: every module says in one message what is wrong and with what; nothing is left behind."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from surroundings import REPOSITORY
from test_panel_montecarlo import writePhantomFolder

from SynthDoseLib.core import ImageVolume, LabelMap, Organ, VoxelGrid
from SynthDoseLib.mrml import loadPhantom, organsFromSegmentationNode, segmentationNodeFromLabelMap, volumeNodeFromImage

GRID = VoxelGrid.from_spacing((12, 14, 16), (5.0, 5.0, 5.0))


def volume(scene: Any, name: str = "CT") -> Any:
    values = np.full(GRID.shape, -1000, np.float32)
    values[2:-2, 2:-2, 2:-2] = 40
    return volumeNodeFromImage(ImageVolume(GRID, values, "CT", "HU"), name, scene)


def organs(scene: Any, *names: str) -> Any:
    """Boxes one above the other."""
    labels = np.zeros(GRID.shape, np.uint16)
    for number in range(len(names)):
        labels[2 + 3 * number : 4 + 3 * number, 3:9, 3:9] = number + 1
    listed = tuple(Organ(number, name) for number, name in enumerate(names, start=1))
    return segmentationNodeFromLabelMap(LabelMap(GRID, labels, listed), "Organs", scene)


def odd(scene: Any, size: tuple[int, int, int] | None, components: int = 1) -> Any:
    import vtk

    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode" if components == 1 else "vtkMRMLVectorVolumeNode", "odd")
    if size is not None:
        image = vtk.vtkImageData()
        image.SetDimensions(*size)
        image.AllocateScalars(vtk.VTK_FLOAT, components)
        node.SetAndObserveImageData(image)
    return node


def sheared(scene: Any) -> Any:
    import vtk

    node, matrix = volume(scene, "odd"), vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    matrix.SetElement(0, 1, 2.0)
    node.SetIJKToRASMatrix(matrix)
    return node


def flattened(scene: Any) -> Any:
    import vtk

    node, matrix = volume(scene, "odd"), vtk.vtkMatrix4x4()
    matrix.SetElement(0, 0, 0.0)
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    transform.SetMatrixTransformToParent(matrix)
    node.SetAndObserveTransformNodeID(transform.GetID())
    return node


def broken(scene: Any) -> Any:
    import slicer

    node = volumeNodeFromImage(ImageVolume(GRID, np.full(GRID.shape, 0.5, np.float32)), "odd", scene)
    slicer.util.arrayFromVolume(node)[3, 3, 3] = np.nan
    return node


IMAGES = {
    "has no voxels": lambda scene: odd(scene, None),
    "3 values per voxel": lambda scene: odd(scene, (6, 6, 6), 3),
    "three positive sizes": lambda scene: odd(scene, (0, 0, 0)),
    "not orthogonal": sheared,
    "spacing has to be positive": flattened,
    "1 of 2688 voxels that are not finite": broken,
}


def chooseImage(name: str, p: Any, scene: Any, node: Any, folder: Path) -> None:
    """Fill a panel, with this node where an image belongs."""
    if name == "SynthDoseMonteCarlo":
        p.phantom = loadPhantom(writePhantomFolder(folder / "phantom"), scene, title="Box")
        p.sourceKind, p.activityVolume = sys.modules[name].SourceKind.ACTIVITY, node
        return
    p.image = node
    if name == "SynthDoseSegmentation":
        p.method = sys.modules[name].Method.TISSUES
    else:
        p.segmentation = organs(scene, "liver")


@pytest.fixture(params=("SynthDoseMonteCarlo", "SynthDosePhantom", "SynthDoseRadiomics", "SynthDoseSegmentation"))
def panel(request, host, scene, monkeypatch, tmp_path):
    yield from opened(request.param, host, monkeypatch, tmp_path)


def opened(name: str, host: Any, monkeypatch: Any, folder: Path):
    module = host.loadModule(REPOSITORY / "SynthDose" / f"{name}.py")
    widget = host.show(module)
    widget.logic.installer = lambda requirements: True
    widget.logic.command = lambda arguments: [sys.executable, "-c", "import sys; sys.exit(1)"]
    if name == "SynthDoseRadiomics":
        monkeypatch.setattr(type(widget.logic), "missingPyradiomics", lambda self: "")
    (folder / "out").mkdir()
    widget.ui.outputEdit.currentPath = str(folder / "out")
    yield widget
    module.discard()


@pytest.fixture
def segmentation(host, scene, monkeypatch, tmp_path):
    yield from opened("SynthDoseSegmentation", host, monkeypatch, tmp_path)


@pytest.fixture
def phantomPanel(host, scene, monkeypatch, tmp_path):
    yield from opened("SynthDosePhantom", host, monkeypatch, tmp_path)


def refused(panel: Any, scene: Any, message: str) -> None:
    """Press the run button, and expect this message and nothing else."""
    nodes = scene.GetNumberOfNodes()
    assert panel.ui.runButton.enabled, panel.ui.runButton.toolTip
    panel.ui.runButton.click()
    assert message in panel.ui.statusLabel.text
    assert not panel.logic.running
    assert scene.GetNumberOfNodes() == nodes
    assert list(Path(panel._parameterNode.outputFolder).iterdir()) == []


@pytest.mark.parametrize("message", IMAGES)
def test_an_image_that_is_none_is_refused_by_its_name(panel, scene, tmp_path, message):
    chooseImage(panel.moduleName, panel._parameterNode, scene, IMAGES[message](scene), tmp_path)
    refused(panel, scene, message)
    assert "'odd'" in panel.ui.statusLabel.text


def test_a_folder_that_cannot_be_written_is_told(panel, scene, tmp_path):
    chooseImage(panel.moduleName, panel._parameterNode, scene, volume(scene), tmp_path)
    (tmp_path / "file").write_text("")
    panel.ui.outputEdit.currentPath = str(tmp_path / "file")
    panel.ui.runButton.click()
    assert panel.ui.statusLabel.text.startswith("Cannot write into")
    assert "Choose another folder" in panel.ui.statusLabel.text
    assert not panel.logic.running


def test_what_is_missing_stands_in_the_status_line(panel, scene, tmp_path):
    hint = panel.ui.statusLabel.text
    assert hint == panel.ui.runButton.toolTip
    assert hint.startswith("Choose")
    chooseImage(panel.moduleName, panel._parameterNode, scene, volume(scene), tmp_path)
    assert panel.ui.statusLabel.text == ""


def test_names_of_nodes_are_no_html(panel, scene, tmp_path):
    import qt

    for label in (panel.ui.statusLabel, getattr(panel.ui, "verdictLabel", panel.ui.statusLabel)):
        assert label.textFormat == qt.Qt.PlainText
    node = sheared(scene)
    node.SetName("<img src=x>\nCT/1")
    chooseImage(panel.moduleName, panel._parameterNode, scene, node, tmp_path)
    refused(panel, scene, "'<img src=x>\nCT/1'")


def test_a_segmentation_without_segments_is_told(phantomPanel, scene):
    p = phantomPanel._parameterNode
    p.image, p.segmentation = volume(scene), scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "nothing")
    refused(phantomPanel, scene, "'nothing' has no segments")


def test_words_are_not_taken_for_options(segmentation, scene):
    p = segmentation._parameterNode
    p.image = volume(scene)
    for bundle, names in (("--trust-bundle", ""), ("synthetic_torso_ct", "liver, --trust-bundle")):
        p.bundle, p.organs = bundle, names
        refused(segmentation, scene, "cannot begin with a hyphen")


def test_a_scene_cannot_say_that_a_bundle_is_trusted(segmentation, scene, tmp_path):
    import slicer

    segmentation.ui.trustCheckBox.click()
    segmentation.ui.downloadCheckBox.click()
    assert segmentation.logic.trusted
    assert segmentation.logic.download
    segmentation._parameterNode.bundle = "theirs"
    assert slicer.util.saveScene(str(tmp_path / "theirs.mrb"))
    scene.Clear()
    slicer.util.loadScene(str(tmp_path / "theirs.mrb"))
    assert segmentation._parameterNode.bundle == "theirs"
    assert not segmentation.ui.trustCheckBox.checked
    assert not segmentation.ui.downloadCheckBox.checked
    assert not segmentation.logic.trusted
    assert not segmentation.logic.download


def test_nor_does_a_scene_speak_for_the_user_to_a_script_or_to_a_panel_that_is_opened_later(host, scene, tmp_path):
    """A scene of an earlier version, or one made by hand, has the words as parameters of its node."""
    module = host.loadModule(REPOSITORY / "SynthDose" / "SynthDoseSegmentation.py")
    logic = module.pythonModule.SynthDoseSegmentationLogic()
    p = logic.getParameterNode()
    for name in ("trusted", "download"):
        p.parameterNode.SetParameter(name, "True")
    p.image, p.bundle = volume(scene), "theirs"
    arguments = logic.prepare(p, tmp_path / "job")
    assert "theirs" in arguments
    assert not {"--trust-bundle", "--download"} & set(arguments)
    logic.trusted = True
    assert "--trust-bundle" in logic.prepare(p, tmp_path / "second")
    widget = host.show(module)
    assert not widget.ui.trustCheckBox.checked
    assert not widget.logic.trusted
    module.discard()


@pytest.mark.parametrize("key", ["trusted", "download"])
def test_nor_do_the_further_keys_of_a_plan_that_came_with_a_scene(host, scene, key):
    from SynthDoseLib.core import SynthDoseError
    from SynthDoseLib.mrml.forms import withFurtherKeys

    with pytest.raises(SynthDoseError, match=f"{key}.*SynthDose Segmentation"):
        withFurtherKeys({"segmentation": {"bundle": "theirs"}}, f"[segmentation]\n{key} = true")
    assert withFurtherKeys({}, f"[segmentation]\n{key} = false") == {"segmentation": {key: False}}


def test_names_of_segments_come_as_they_are_in_files(scene):
    node = organs(scene, "a\nb", "=SUM(1)", "x" * 300)
    assert [organ.name for organ in organsFromSegmentationNode(node)] == ["a b", "SUM(1)", "x" * 64]


def test_organs_with_odd_or_other_names_keep_their_tissue_and_their_place(phantomPanel, scene):
    """``Liver`` becomes liver in the table; a row still leads to its segment. What is set for 'a=b' is not set for 'a'."""
    import slicer

    from SynthDoseLib.cli import main

    p, logic = phantomPanel._parameterNode, phantomPanel.logic
    p.image, p.segmentation = volume(scene), organs(scene, "Liver", "a=b\nc")
    phantomPanel.ui.listOrgansButton.click()
    p.tissueTable.SetCellText(1, 2, "1.5")
    assert main(logic.prepare(p, Path(p.outputFolder) / "job")) == 0
    logic.loadResults(p)
    table = p.qualityTable
    columns = [table.GetColumnName(index) for index in range(table.GetNumberOfColumns())]
    rows = {table.GetCellText(row, 0): row for row in range(table.GetNumberOfRows())}
    assert float(table.GetCellText(rows["a=b c"], columns.index("density_g_cm3"))) == 1.5
    assert "tissue" in table.GetCellText(rows["liver"], columns.index("tissue"))
    for organ, slices in (("liver", slice(2, 4)), ("a=b c", slice(5, 7))):
        logic.goTo(p, rows[organ])
        shown = slicer.util.getNode("vtkMRMLSliceNodeRed").GetSliceToRAS().GetElement(2, 3)
        low, high = (GRID.to_ras((0, 0, k))[2] for k in (slices.start, slices.stop - 1))
        assert low - 2.5 <= shown <= high + 2.5, organ


def test_choices_about_ct_numbers_are_not_asked_of_an_mr(phantomPanel, scene):
    from SynthDoseLib.cli import main

    ui, p = phantomPanel.ui, phantomPanel._parameterNode
    p.image, p.segmentation, p.metalMaterial = volume(scene), organs(scene, "liver"), "titanium"
    ui.densityBox.currentIndex, ui.contrastBox.currentIndex = 1, 1
    ui.modalityBox.currentIndex, ui.materialsBox.currentIndex = 1, 1
    for name in ("densityBox", "contrastBox", "metalEdit", "calibrationBox"):
        assert not getattr(ui, name).enabled, name
    assert ui.runButton.enabled
    assert main(phantomPanel.logic.prepare(p, Path(p.outputFolder) / "job")) == 0
