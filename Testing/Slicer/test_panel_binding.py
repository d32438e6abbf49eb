"""Parameters and widgets keep up with each other in the ways in which Slicer's own connection does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from surroundings import REPOSITORY

MODULES = ("SynthDose", "SynthDoseMonteCarlo", "SynthDosePhantom", "SynthDoseRadiomics", "SynthDoseSegmentation")


@pytest.fixture(params=MODULES)
def panel(request, host, scene):
    module = host.loadModule(REPOSITORY / "SynthDose" / f"{request.param}.py")
    yield host.show(module, 460, 1200)
    module.discard()


def texts(panel) -> dict[str, object]:
    """Widgets of the panel that users can type into now, by parameter."""
    import qt

    found = {
        w.property("SlicerParameterName"): w for w in vars(panel.ui).values() if isinstance(w, (qt.QLineEdit, qt.QTextEdit))
    }
    return {name: widget for name, widget in found.items() if name and widget.enabled}


def typed(widget, keys: str) -> None:
    """Press keys in the middle of a text of two letters."""
    from PySide6.QtCore import Qt
    from PySide6.QtTest import QTest

    QTest.keyClicks(widget, "ae")
    QTest.keyClick(widget, Qt.Key.Key_Left)
    QTest.keyClicks(widget, keys)


def test_letters_stay_where_they_are_typed(panel):
    assert texts(panel)
    for name, widget in texts(panel).items():
        panel._parameterNode.setValue(name, "")
        typed(widget, "bcd")
        assert panel._parameterNode.getValue(name) == "abcde", name
        panel._parameterNode.setValue(name, "other")
        assert (widget.toPlainText() if hasattr(widget, "toPlainText") else widget.text) == "other"


def test_choices_outlive_a_visit_to_another_module(panel):
    import qt

    p = panel._parameterNode
    boxes = [w for w in vars(panel.ui).values() if isinstance(w, qt.QComboBox) and w.property("SlicerParameterName")]
    assert boxes or panel.moduleName == "SynthDose"
    for box in boxes:
        box.currentIndex = box.count - 1
    chosen = [box.currentText for box in boxes]
    for name in texts(panel):
        p.setValue(name, "kept")
    for _ in range(3):
        panel.exit()
        panel.enter()
    assert [box.currentText for box in boxes] == chosen
    assert all(panel._parameterNode.getValue(name) == "kept" for name in texts(panel))
    assert panel._parameterNode is p  # each wrapper observes the node for good


def test_a_new_scene_brings_defaults_and_widgets_follow(panel, scene):
    import qt

    boxes = [w for w in vars(panel.ui).values() if isinstance(w, qt.QComboBox) and w.property("SlicerParameterName")]
    before = [box.currentIndex for box in boxes]
    for box in boxes:
        box.currentIndex = box.count - 1
    scene.Clear()
    assert [box.currentIndex for box in boxes] == before


def test_a_scene_of_another_computer_gets_a_folder_that_exists(panel, scene, tmp_path):
    import slicer

    panel._parameterNode.outputFolder = tmp_path / "elsewhere"
    slicer.util.addVolumeFromArray(np.zeros((2, 2, 2), np.int16), name="CT")
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    scene.Clear()
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    assert Path(panel._parameterNode.outputFolder).is_dir()
    assert Path(panel.ui.outputEdit.currentPath).is_dir()


def test_a_module_without_tests_of_its_own_is_told(host):
    from slicer.ScriptedLoadableModule import ScriptedLoadableModuleTest

    with pytest.raises(AssertionError, match="No test is defined"):
        ScriptedLoadableModuleTest().runTest()
