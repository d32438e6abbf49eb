"""The harness behaves as PythonQt and Slicer do where module code relies on it."""

from __future__ import annotations

import enum
import pathlib
from typing import Annotated

import numpy as np
import pytest
from slicerhost import observerErrors


@pytest.fixture
def volume(scene):
    import slicer

    return slicer.util.addVolumeFromArray(np.zeros((4, 5, 6), np.int16), name="CT")


def test_properties_are_attributes_and_unknown_ones_are_errors(host):
    import qt

    button = qt.QPushButton("go")
    assert button.text == "go"
    button.toolTip = "tip"
    button.setObjectName("goButton")
    assert button.name == "goButton"
    with pytest.raises(TypeError):
        button.text()
    with pytest.raises(AttributeError):
        button.tooltip = "x"
    with pytest.raises(ValueError, match="does not accept int"):
        button.text = 3
    spin = qt.QSpinBox()
    spin.value = 3.0
    assert spin.value == 3


def test_signals_take_cpp_signatures_and_give_a_slot_what_it_accepts(host):
    import qt

    button, seen = qt.QPushButton(), []
    assert button.connect("clicked(bool)", lambda: seen.append("none"))
    assert button.connect("clicked(bool)", lambda checked: seen.append(checked))
    assert button.connect("clicked()", lambda *values: seen.append(values))
    button.click()
    assert seen == ["none", False, ()]
    with pytest.warns(RuntimeWarning, match="No such signal"):
        assert button.connect("clickd(bool)", lambda: None) is False
    slot = seen.clear
    button.connect("clicked()", slot)
    assert button.disconnect("clicked()", slot)
    assert not button.disconnect("clicked()", slot)


def test_a_property_that_hides_a_signal_can_still_be_connected(host):
    import qt

    edit, seen = qt.QLineEdit(), []
    assert edit.connect("textChanged(QString)", seen.append)
    edit.text = "kidneys"
    assert seen == ["kidneys"]


def test_errors_in_observers_and_slots_are_seen(scene):
    import qt
    import vtk

    node = scene.AddNewNodeByClass("vtkMRMLTextNode")
    node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: 1 / 0)
    with pytest.raises(AssertionError, match="ZeroDivisionError"), observerErrors():
        node.Modified()
    button = qt.QPushButton()
    button.connect("clicked()", lambda: 1 / 0)
    with pytest.raises(AssertionError, match="ZeroDivisionError"), observerErrors():
        button.click()
    node.RemoveAllObservers()


@pytest.mark.xfail(strict=True, raises=AssertionError, reason="shows that an error in a slot fails the test it happens in")
def test_an_error_in_a_slot_fails_the_test(host):
    import qt

    button = qt.QPushButton()
    button.connect("clicked()", lambda: 1 / 0)
    button.click()


def test_node_selector_follows_the_scene(scene, volume):
    import slicer

    selector = slicer.qMRMLNodeComboBox()
    selector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    selector.hideChildNodeTypes = ["vtkMRMLLabelMapVolumeNode"]
    selector.noneEnabled = True
    selector.addEnabled = selector.removeEnabled = False
    seen = []
    selector.connect("currentNodeChanged(vtkMRMLNode*)", lambda node: seen.append(node.GetName() if node else None))
    selector.setMRMLScene(scene)
    assert selector.nodeCount() == 1
    assert selector.currentNode() is None
    selector.setCurrentNode(volume)
    volume.SetName("CT 2")
    assert selector._combo.currentText == "CT 2"
    scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
    assert selector.nodeCount() == 1
    scene.RemoveNode(volume)
    assert seen == ["CT", None]


def test_a_selector_without_none_and_actions_takes_the_first_node(scene, volume):
    import slicer

    selector = slicer.qMRMLNodeComboBox()
    selector.addEnabled = selector.removeEnabled = False
    selector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    selector.setMRMLScene(scene)
    assert selector.currentNode() is volume
    selector.addEnabled = True
    made = selector.addNode()
    assert selector.currentNode() is made


def test_segment_selector_tree_and_table_show_real_nodes(scene, volume):
    import slicer

    segmentation = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Organs")
    segmentation.GetSegmentation().AddEmptySegment("liver", "liver")
    segments = slicer.qMRMLSegmentSelectorWidget()
    segments.setMRMLScene(scene)
    segments.setCurrentNode(segmentation)
    assert segments.currentSegmentID() == "liver"
    tree = slicer.qMRMLSubjectHierarchyTreeView()
    tree.setMRMLScene(scene)
    assert tree.displayedItemCount() == 2
    tree.setCurrentNode(volume)
    assert tree.currentNode() is volume
    table = scene.AddNewNodeByClass("vtkMRMLTableNode", "table")
    view = slicer.qMRMLTableView()
    view.setMRMLTableNode(table)
    slicer.util.updateTableFromArray(table, [np.array([1.0, 2.0])], ["dose"])
    assert view.rowCount == 2
    view.setMRMLScene(scene)
    with pytest.raises(RuntimeError, match="view node"):
        view.setMRMLTableNode(None)


def test_sliders_and_ranges_keep_their_limits(host):
    import ctk

    slider, seen = ctk.ctkSliderWidget(), []
    slider.connect("valueChanged(double)", seen.append)
    slider.minimum, slider.maximum = -1000, 3000
    slider.value = 450
    slider.value = 9999
    assert slider.value == 3000
    assert seen == [450, 3000]
    both = ctk.ctkRangeWidget()
    both.setRange(0, 10)
    both.setValues(2, 5)
    assert (both.minimumValue, both.maximumValue) == (2, 5)


def test_widgets_without_a_stand_in_may_be_named_but_not_made(host):
    import ctk
    import slicer

    assert isinstance(ctk.ctkThumbnailLabel, type)
    with pytest.raises(NotImplementedError, match="qMRMLPlotView"):
        slicer.qMRMLPlotView()
    with pytest.raises(AttributeError):
        slicer.noSuchName  # noqa: B018


class Mode(enum.Enum):
    ABOVE = 1
    BELOW = 2


@pytest.fixture
def parameters(scene):
    import slicer
    from slicer import vtkMRMLScalarVolumeNode
    from slicer.parameterNodeWrapper import Choice, WithinRange, parameterNodeWrapper

    class Parameters:
        pass

    Parameters.__annotations__ = {
        "volume": vtkMRMLScalarVolumeNode,
        "threshold": Annotated[float, WithinRange(-1000, 3000)],
        "mode": Mode,
        "nuclide": Annotated[str, Choice(["Lu-177", "Y-90"])],
        "free": str,
        "count": int,
        "folder": pathlib.Path,
    }
    Parameters.threshold = 200.0
    node = scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode")
    assert slicer.mrmlScene is scene
    return parameterNodeWrapper(Parameters)(node)


def test_parameters_live_in_the_node_and_refuse_wrong_values(parameters, volume):
    p = parameters
    assert (p.threshold, p.mode, p.nuclide, p.volume) == (200.0, Mode.ABOVE, "Lu-177", None)
    p.volume, p.mode, p.threshold = volume, Mode.BELOW, 3
    assert p.volume is volume
    assert p.parameterNode.GetParameter("mode") == "BELOW"
    assert p.parameterNode.GetParameter("threshold") == "3"  # as given; it is read as a number
    assert p.threshold == 3.0
    for name, value, error in (
        ("threshold", 4000.0, ValueError),
        ("count", "x", TypeError),
        ("nuclide", "X-1", ValueError),
        ("folder", "runs", TypeError),
        ("free", None, ValueError),
    ):
        with pytest.raises(error):
            setattr(p, name, value)


def test_values_are_kept_until_the_node_says_that_it_was_modified(parameters):
    """As `_CachedParameterWrapper` of Slicer's parameterNodeWrapper/wrapper.py."""
    node = parameters.parameterNode
    before = node.StartModify()
    node.SetParameter("threshold", "5")
    assert parameters.threshold == 200
    node.EndModify(before)
    assert parameters.threshold == 5


def test_widgets_and_parameters_follow_each_other_until_disconnected(parameters, host):
    import ctk
    import qt

    box, slider, folder = qt.QComboBox(), ctk.ctkSliderWidget(), ctk.ctkPathLineEdit()
    tag = parameters.connectParametersToGui({"mode": box, "threshold": slider, "folder": folder})
    assert (box.count, slider.maximum, slider.value) == (2, 3000, 200)
    box.currentIndex = 1
    slider.value = 300
    folder.currentPath = "runs"
    assert (parameters.mode, parameters.threshold, parameters.folder) == (Mode.BELOW, 300.0, pathlib.Path("runs"))
    parameters.threshold = 450.0
    assert slider.value == 450
    parameters.disconnectGui(tag)
    slider.value = 10
    assert parameters.threshold == 450


def test_pairs_of_widget_and_type_that_slicer_refuses_are_refused(parameters, host):
    import ctk
    import qt

    for name, widget in (("free", qt.QComboBox()), ("free", qt.QPlainTextEdit()), ("threshold", ctk.ctkDoubleSpinBox())):
        with pytest.raises(RuntimeError):
            parameters.connectParametersToGui({name: widget})


def test_files_of_slicer_util_go_through_real_storage_nodes(scene, volume, tmp_path):
    import slicer

    assert slicer.util.saveNode(volume, str(tmp_path / "ct.nrrd"))
    assert slicer.util.loadVolume(str(tmp_path / "ct.nrrd")).GetImageData().GetDimensions() == (6, 5, 4)
    with pytest.raises(RuntimeError):
        slicer.util.loadVolume(str(tmp_path / "nothing.nrrd"))


def test_ui_files_with_unknown_widgets_or_bad_connections_are_refused(host, tmp_path):
    import slicer

    path = tmp_path / "panel.ui"
    head = '<?xml version="1.0"?><ui version="4.0"><class>P</class><widget class="QWidget" name="P">'
    path.write_text(head + '<widget class="ctkThumbnailLabel" name="t"/></widget></ui>', encoding="utf-8")
    with pytest.raises(NotImplementedError, match="ctkThumbnailLabel"):
        slicer.util.loadUI(str(path))
    path.write_text(
        head + "</widget><connections><connection><sender>P</sender><signal>nothing()</signal><receiver>P</receiver>"
        "<slot>show()</slot></connection></connections></ui>",
        encoding="utf-8",
    )
    with pytest.raises(RuntimeError, match="bad connection"), pytest.warns(RuntimeWarning):
        slicer.util.loadUI(str(path))
