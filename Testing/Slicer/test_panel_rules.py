"""Rules that every panel keeps: a calculation can crash, be left, saved or lose its inputs, and the scene stays intact."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from surroundings import REPOSITORY, finished
from test_panel_montecarlo import writePhantomFolder

from SynthDoseLib.core import ImageVolume, LabelMap, Organ, VoxelGrid
from SynthDoseLib.io import write_segmentation, write_volume
from SynthDoseLib.mrml import loadPhantom, segmentationNodeFromLabelMap, volumeNodeFromImage

MODULES = ("SynthDoseMonteCarlo", "SynthDosePhantom", "SynthDoseRadiomics", "SynthDoseSegmentation")
GRID = VoxelGrid.from_spacing((8, 9, 10), (5.0, 5.0, 5.0))
LABELS = LabelMap(GRID, np.pad(np.ones((4, 4, 4), np.uint16), ((2, 2), (2, 3), (3, 3))), (Organ(1, "liver", "10200004"),))

WORKER = """
import pathlib, shutil, sys, time
made, go = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
arguments = sys.argv[3:]
out = pathlib.Path(arguments[arguments.index("--out") + 1])
print('{"stage": "transport", "fraction": 0.5, "seconds_left": 60, "message": "half"}', flush=True)
print("working", flush=True)
while not go.exists():
    time.sleep(0.02)
out.parent.mkdir(parents=True, exist_ok=True)
if made.is_dir() and out.suffix == "":
    shutil.copytree(made, out)
else:
    for file in made.iterdir():
        shutil.copy(file, out.parent / file.name)
"""
"""Says that it is half done, waits for a file, and then has the results that were made before."""


class Situation(NamedTuple):
    """A panel that is ready to run, on a worker that waits.

    Attributes
    ----------
    widget : JobPanel
    inputs : list of nodes
    go : path
        Makes the worker go on when it appears.
    result : str
        Name of the parameter that the results come into.
    """

    widget: Any
    inputs: list[Any]
    go: Path
    result: str


def writeResults(name: str, folder: Path) -> None:
    """What the command line of a panel leaves behind."""
    values = np.full(GRID.shape, 0.5, np.float32)
    if name == "SynthDosePhantom":
        writePhantomFolder(folder)
        return
    folder.mkdir()
    if name == "SynthDoseMonteCarlo":
        write_volume(folder / "dose_Gy.nrrd", values, GRID, unit="Gy")
        write_volume(folder / "sigma_Gy.nrrd", 0.01 * values, GRID, unit="Gy")
        (folder / "organs.csv").write_text("organ,mass_g,dose_Gy,sigma_Gy\nliver,8,0.5,0.005\n")
        (folder / "run.json").write_text(json.dumps({"notes": []}))
    elif name == "SynthDoseRadiomics":
        (folder / "features.csv").write_text("organ,image,feature,value,filter\nliver,CT,firstorder_Mean,40,original\n")
        (folder / "features.json").write_text("{}")
    else:
        write_segmentation(folder / "labels.seg.nrrd", LABELS)


def prepareInputs(name: str, widget: Any, scene: Any, folder: Path) -> list[Any]:
    """Fill the panel as a user would, and return the nodes that were chosen."""
    p = widget._parameterNode
    if name == "SynthDoseMonteCarlo":
        p.phantom = loadPhantom(writePhantomFolder(folder / "input"), scene, title="Box")
        p.organWeights = "liver = 1"
        return [p.phantom]
    image = ImageVolume(GRID, np.full(GRID.shape, 40, np.float32), modality="CT", unit="HU")
    p.image = volumeNodeFromImage(image, "CT", scene)
    if name == "SynthDoseSegmentation":
        p.method = sys.modules[name].Method.TISSUES
        return [p.image]
    p.segmentation = segmentationNodeFromLabelMap(LABELS, "Organs", scene)
    return [p.image, p.segmentation]


RESULTS = {
    "SynthDoseMonteCarlo": "doseVolume",
    "SynthDosePhantom": "phantom",
    "SynthDoseRadiomics": "featureTable",
    "SynthDoseSegmentation": "segmentation",
}


ROLES = {
    "doseVolume": ("SynthDose.sigmaVolume", "SynthDose.organs", "SynthDose.record"),
    "phantom": ("SynthDose.materialsVolume", "SynthDose.materialTable", "SynthDose.organs", "SynthDose.record"),
    "featureTable": ("SynthDose.image", "SynthDose.record"),
    "segmentation": ("SynthDose.record",),
}


@pytest.fixture(params=MODULES)
def situation(request, host, scene, tmp_path, monkeypatch):
    name = request.param
    module = host.loadModule(REPOSITORY / "SynthDose" / f"{name}.py")
    widget = host.show(module, 460, 1200)
    if name == "SynthDoseRadiomics":
        monkeypatch.setattr(type(widget.logic), "missingPyradiomics", lambda self: "")
    made, go, work = tmp_path / "made", tmp_path / "go", tmp_path / "work"
    work.mkdir()
    writeResults(name, made)
    widget.logic.installer = lambda requirements: True
    widget.logic.command = lambda arguments: [sys.executable, "-c", WORKER, str(made), str(go), *arguments]
    inputs = prepareInputs(name, widget, scene, tmp_path)
    widget.ui.outputEdit.currentPath = str(work)
    yield Situation(widget, inputs, go, RESULTS[name])
    module.discard()


def start(host: Any, situation: Situation) -> Any:
    """Press the run button and wait until the worker works; return its process."""
    widget = situation.widget
    assert widget.ui.runButton.enabled, widget.ui.runButton.toolTip
    widget.ui.runButton.click()
    host.waitUntil(lambda: "50 %" in widget.ui.statusLabel.text or not widget.logic.running, 60)
    assert widget.logic.running, widget.ui.statusLabel.text
    return widget.logic._job._process


def finish(host: Any, situation: Situation) -> None:
    """Let the worker go on, and wait for the results."""
    situation.go.touch()
    host.waitUntil(finished(situation.widget), 60)
    text = situation.widget.ui.statusLabel.text
    assert text.startswith("Finished"), text + situation.widget.ui.logEdit.toPlainText()
    assert getattr(situation.widget._parameterNode, situation.result) is not None


def names(scene: Any) -> list[str]:
    return sorted(scene.GetNthNode(index).GetName() or "" for index in range(scene.GetNumberOfNodes()))


def test_a_worker_that_is_killed_is_an_error_with_what_to_do(host, scene, situation):
    ui = situation.widget.ui
    process = start(host, situation)
    assert "working" in ui.logEdit.toPlainText()
    before = names(scene)
    process.kill()  # SIGKILL, as the system does when memory runs out
    host.waitUntil(finished(situation.widget), 30)
    assert "ended unexpectedly" in ui.statusLabel.text
    assert "larger voxels" in ui.statusLabel.text
    log = Path(ui.statusLabel.text.rsplit("Log: ", 1)[1])
    assert "working" in log.read_text(encoding="utf-8")
    assert not ui.logButton.collapsed
    assert names(scene) == before
    assert ui.runButton.enabled
    assert not ui.cancelButton.enabled
    start(host, situation)  # and again, without anything left over
    finish(host, situation)


def test_closing_the_scene_ends_the_run(host, scene, situation):
    process = start(host, situation)
    scene.Clear()
    assert process.poll() is not None
    assert not situation.widget.logic.running
    assert "scene was closed" in situation.widget.ui.statusLabel.text
    situation.go.touch()
    host.app.processEvents()
    assert not situation.widget.timer.active
    assert getattr(situation.widget._parameterNode, situation.result) is None


def test_inputs_that_are_deleted_during_a_run_do_no_harm(host, scene, situation):
    start(host, situation)
    for node in situation.inputs:
        scene.RemoveNode(node)
    finish(host, situation)
    assert not situation.widget.ui.runButton.enabled  # the inputs are gone
    assert situation.widget.ui.runButton.toolTip.startswith("Choose")


def test_a_run_goes_on_behind_another_module(host, scene, situation):
    start(host, situation)
    situation.widget.exit()
    situation.go.touch()
    host.waitUntil(finished(situation.widget), 60)
    situation.widget.enter()
    assert situation.widget.ui.statusLabel.text.startswith("Finished")
    assert getattr(situation.widget._parameterNode, situation.result) is not None


def test_a_scene_saved_during_a_run_opens_without_it_and_the_run_ends_well(host, scene, situation, tmp_path):
    import slicer

    widget = situation.widget
    start(host, situation)
    assert slicer.util.saveScene(str(tmp_path / "meanwhile.mrb"))
    finish(host, situation)
    chosen = [node.GetName() for node in situation.inputs]
    scene.Clear()
    slicer.util.loadScene(str(tmp_path / "meanwhile.mrb"))
    widget.enter()
    assert not widget.logic.running
    assert all(slicer.util.getNode(name) is not None for name in chosen)
    if situation.result != "segmentation":  # there it is an input as well as a result
        assert getattr(widget._parameterNode, situation.result) is None
    assert widget.ui.runButton.enabled, widget.ui.runButton.toolTip


def test_results_keep_their_references_record_and_place_in_a_saved_scene(host, scene, situation, tmp_path):
    import slicer

    start(host, situation)
    finish(host, situation)
    widget = situation.widget
    result = getattr(widget._parameterNode, situation.result)
    name = result.GetName()
    assert slicer.util.saveScene(str(tmp_path / "results.mrb"))
    scene.Clear()
    slicer.util.loadScene(str(tmp_path / "results.mrb"))
    widget.enter()
    again = getattr(widget._parameterNode, situation.result)
    assert again.GetName() == name
    for role in ROLES[situation.result]:
        assert again.GetNodeReference(role) is not None, role
    record = json.loads(again.GetNodeReference("SynthDose.record").GetText())
    assert record["versions"]
    assert again.GetAttribute("SynthDose.version")
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    item = hierarchy.GetItemByDataNode(again)
    assert hierarchy.GetItemAncestorAtLevel(item, "Study")
    study = hierarchy.GetItemAncestorAtLevel(item, "Study")
    if situation.result == "doseVolume":  # as SlicerRT wants it, see its vtkSlicerRtCommon
        for name, value in (("DoseUnitName", "GY"), ("DoseUnitValue", "1.0")):
            assert again.GetAttribute(f"DicomRtImport.{name}") == value
            assert hierarchy.GetItemAttribute(study, f"DicomRtImport.{name}") == value
        assert again.GetAttribute("DicomRtImport.DoseVolume") == "1"
        assert again.GetVoxelValueUnits().GetCodeValue() == "Gy"
        assert again.GetAttribute("SynthDose.unit") == "Gy per decay"
        assert again.GetNodeReference("SynthDose.sigmaVolume").GetAttribute("SynthDose.unit") == "Gy per decay"
    if situation.result == "phantom":
        assert again.GetAttribute("SynthDose.unit") == "g/cm3"
    if situation.result != "doseVolume":  # the phantom of that test belongs to nobody
        patient = hierarchy.GetItemAncestorAtLevel(item, "Patient")
        assert hierarchy.GetItemName(patient) == "Patient of CT"


def test_cancel_ends_the_worker_within_a_second(host, scene, situation):
    before = names(scene)
    process = start(host, situation)
    situation.widget.ui.cancelButton.click()
    assert host.waitUntil(finished(situation.widget), 5) < 1.0
    assert process.poll() is not None
    assert "Cancelled" in situation.widget.ui.statusLabel.text
    assert names(scene) == before
