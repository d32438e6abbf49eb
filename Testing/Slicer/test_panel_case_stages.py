"""Running again from a stage, and which stages were taken over, in the guided case; a worker that dies is no harm."""

from __future__ import annotations

import os

import pytest
from surroundings import HERE, finished
from test_panel_synthdose import choose, patient, useWorker

from SynthDoseLib.mrml.forms import BEGIN, NO_BREAK, TAKEN_OVER, WHAT_CHANGED
from SynthDoseLib.mrml.run_tables import resultOf
from SynthDoseLib.mrml.time_points import volumesOf
from SynthDoseLib.pipeline import stage_store


@pytest.fixture
def panel(host, scene, module, tmp_path):
    """The panel with its inputs chosen, and a quick fake worker in place of the calculation."""
    ct, segmentation, spect = patient(scene, spacing=9.0)
    widget = host.show(module, 460, 1400)
    choose(widget.ui, ct, segmentation, spect)
    widget.ui.outputEdit.currentPath = str(tmp_path)
    useWorker(widget, "quick")
    return widget


def stagesOf(widget) -> str:
    return widget.ui.stagesLabel.text.replace(NO_BREAK, " ")


def nodesAndValues(scene) -> dict[str, int]:
    """Every node of the scene by ID, with the time of its last change."""
    nodes = [scene.GetNthNode(n) for n in range(scene.GetNumberOfNodes())]
    return {node.GetID(): node.GetMTime() for node in nodes if not node.IsA("vtkMRMLScriptedModuleNode")}


def test_the_panel_offers_the_stages_of_the_command_line_and_knows_its_words():
    assert BEGIN[WHAT_CHANGED] == ""
    stages = [stage for stage in BEGIN.values() if stage]
    assert stages == [stage for stage in stage_store.STAGES if stage in stages]
    assert stage_store.TAKEN_OVER == TAKEN_OVER


def test_a_run_can_start_again_from_a_stage_and_the_choice_is_for_one_run(host, panel):
    said = []
    quick = panel.logic.command
    panel.logic.command = lambda arguments: said.append(list(arguments)) or quick(arguments)
    panel.ui.beginBox.setCurrentText("transport and all after")
    panel.ui.runButton.click()
    assert said[0][-2:] == ["--from", "transport"]
    host.waitUntil(finished(panel), 60)
    assert panel.ui.statusLabel.text.startswith("Finished"), panel.ui.statusLabel.text
    assert panel.ui.beginBox.currentText == WHAT_CHANGED
    panel.ui.runButton.click()
    assert "--from" not in said[1]
    host.waitUntil(finished(panel), 60)


def test_stages_are_shown_while_they_go_on_and_when_they_were_taken_over(host, panel, screenshots):
    useWorker(panel, "slow")
    panel.ui.runButton.click()
    host.waitUntil(lambda: "Transporting" in stagesOf(panel), 30)
    assert "↺ Building the phantom (taken over)" in stagesOf(panel)
    assert "▶ Transporting radiation" in stagesOf(panel)
    host.screenshot(panel.parent, screenshots / "case_stages.png")
    panel.ui.cancelButton.click()
    host.waitUntil(finished(panel), 5)
    useWorker(panel, "quick")
    panel.ui.runButton.click()
    host.waitUntil(finished(panel), 60)
    assert "✓ Transporting radiation" in stagesOf(panel)


def test_a_worker_that_is_killed_leaves_the_scene_as_it_was_and_says_what_to_do(host, scene, panel):
    useWorker(panel, "slow")
    before = nodesAndValues(scene)
    panel.ui.runButton.click()
    host.waitUntil(lambda: "Transporting radiation" in panel.ui.statusLabel.text, 30)
    panel.logic._job._process.kill()  # as the system does for want of memory: SIGKILL
    host.waitUntil(finished(panel), 10)
    said = panel.ui.statusLabel.text
    assert "ended unexpectedly" in said
    assert "The scene is as it was" in said
    assert "larger voxels" in said
    assert "'Calculate dose' goes on from there" in said
    if os.name != "nt":
        assert "killed, often for want of memory" in said
    assert not panel.ui.logButton.collapsed
    assert nodesAndValues(scene) == before
    assert panel.ui.runButton.enabled
    useWorker(panel, "quick")
    panel.ui.runButton.click()
    host.waitUntil(finished(panel), 60)
    assert panel.ui.statusLabel.text.startswith("Finished"), panel.ui.statusLabel.text


def test_results_that_cannot_be_read_leave_the_scene_as_it_was(host, scene, panel):
    useWorker(panel, "half")
    before = set(nodesAndValues(scene))
    panel.ui.runButton.click()
    host.waitUntil(finished(panel), 60)
    assert "dose_Gy.nrrd" in panel.ui.statusLabel.text
    assert panel.ui.statusLabel.styleSheet != ""
    assert set(nodesAndValues(scene)) == before
    assert panel.ui.runButton.enabled


def test_saving_in_the_middle_of_a_run_is_safe(host, scene, panel, tmp_path):
    import slicer

    useWorker(panel, "slow")
    panel.ui.runButton.click()
    host.waitUntil(lambda: "Transporting radiation" in panel.ui.statusLabel.text, 30)
    assert slicer.util.saveScene(str(tmp_path / "meanwhile.mrb"))
    assert panel.logic.running
    panel.ui.saveSceneButton.click()  # the panel's own button, too
    assert panel.logic.running
    panel.ui.cancelButton.click()
    host.waitUntil(finished(panel), 5)
    scene.Clear()
    slicer.util.loadScene(str(tmp_path / "meanwhile.mrb"))
    panel.enter()
    assert not panel.logic.running
    assert panel.ui.runButton.enabled
    assert not panel.ui.showDoseButton.enabled
    assert volumesOf(panel._parameterNode.timePoints)[0].GetName() == "SPECT 24 h"


def test_another_scene_loaded_in_the_middle_of_a_run_stops_it(host, scene, panel, tmp_path):
    import slicer

    assert slicer.util.saveScene(str(tmp_path / "other.mrb"))
    useWorker(panel, "slow")
    panel.ui.runButton.click()
    process = panel.logic._job._process
    slicer.util.loadScene(str(tmp_path / "other.mrb"), {"clear": True})
    assert process.poll() is not None
    assert not panel.logic.running
    host.app.processEvents()
    assert panel.ui.runButton.enabled


def test_the_table_of_scans_deleted_in_the_middle_of_a_run_is_no_harm(host, scene, panel):
    panel.ui.runButton.click()
    scene.RemoveNode(panel._parameterNode.timePoints)
    host.waitUntil(finished(panel), 60)
    assert panel.ui.statusLabel.text.startswith("Finished"), panel.ui.statusLabel.text
    assert panel.ui.timePointView.mrmlTableNode() is None
    assert panel.ui.runButton.toolTip == "Choose the activity volume"


def test_results_deleted_in_the_middle_of_the_next_run_are_no_harm(host, scene, panel):
    p = panel._parameterNode
    panel.ui.runButton.click()
    host.waitUntil(finished(panel), 60)
    panel.ui.runButton.click()
    for node in (resultOf(p.doseVolume, "segmentation"), resultOf(p.doseVolume, "organTable"), p.doseVolume):
        scene.RemoveNode(node)
    host.waitUntil(finished(panel), 60)
    assert panel.ui.statusLabel.text.startswith("Finished"), panel.ui.statusLabel.text
    assert p.doseVolume is not None


def test_a_run_ends_while_another_module_is_shown(host, scene, panel, module):
    other = host.loadModule(HERE.parents[1] / "SynthDose" / "SynthDoseRadiomics.py")
    try:
        panel.ui.runButton.click()
        panel.exit()
        shown = host.show(other)
        shown.enter()
        host.waitUntil(finished(panel), 60)
        assert panel._parameterNode.doseVolume is not None
        shown.exit()
        panel.enter()
        assert panel.ui.statusLabel.text.startswith("Finished"), panel.ui.statusLabel.text
        assert panel.ui.showDoseButton.enabled
    finally:
        other.discard()


@pytest.mark.slow
def test_a_killed_calculation_goes_on_and_gives_the_dose_of_one_that_was_not(host, scene, module, tmp_path):
    """The real worker, killed in the middle: the next run of the same inputs takes over what was finished."""
    import slicer

    ct, segmentation, spect = patient(scene, spacing=12.0)
    widget = host.show(module)
    p, ui = widget._parameterNode, widget.ui
    choose(ui, ct, segmentation, spect)
    ui.outputEdit.currentPath = str(tmp_path)
    p.histories = 20_000
    ui.runButton.click()
    host.waitUntil(lambda: "Transporting radiation" in ui.statusLabel.text or not widget.logic.running, 300)
    widget.logic._job._process.kill()
    host.waitUntil(finished(widget), 20)
    assert "goes on from there" in ui.statusLabel.text
    doses = []
    for _ in range(2):
        ui.runButton.click()
        host.waitUntil(finished(widget), 400)
        assert ui.statusLabel.text.startswith("Finished"), ui.logEdit.toPlainText()
        doses.append(slicer.util.arrayFromVolume(p.doseVolume).copy())
        assert "↺ Building the phantom (taken over)" in stagesOf(widget)
    assert "↺ Transporting radiation (taken over)" in stagesOf(widget)
    assert (doses[0] == doses[1]).all()
