"""The SynthDose panel as a user works with it: choose nodes, run, watch, cancel, look at the results."""

from __future__ import annotations

import json
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest
from surroundings import HERE, REPOSITORY, finished

from SynthDoseLib.core import ImageVolume, LabelMap, Organ, VoxelGrid
from SynthDoseLib.mrml import segmentationNodeFromLabelMap, volumeNodeFromImage
from SynthDoseLib.mrml.run_tables import resultOf
from SynthDoseLib.mrml.time_points import volumesOf

ORGANS = (
    Organ(1, "kidney_left", "18639004", (0.73, 0.40, 0.15)),
    Organ(2, "kidney_right", "9846003", (0.73, 0.40, 0.15)),
    Organ(3, "liver", "10200004", (0.87, 0.51, 0.40)),
)


def ellipsoid(grid: VoxelGrid, centre: tuple[float, float, float], axes: tuple[float, float, float]) -> np.ndarray:
    nk, nj, ni = grid.shape
    k, j, i = np.mgrid[0:nk, 0:nj, 0:ni]
    return (((grid.to_ras(np.stack([i, j, k], axis=-1)) - centre) / axes) ** 2).sum(axis=-1) <= 1


def patient(scene, spacing: float = 6.0):
    """Nodes of a torso with a liver and two kidneys that hold activity: CT, segmentation, SPECT on a coarser grid."""
    grid = VoxelGrid.from_spacing((int(220 / spacing), int(260 / spacing), int(360 / spacing)), (spacing,) * 3)
    body = ellipsoid(grid, (0, 0, 0), (165, 110, 400))
    values = np.zeros(grid.shape, np.uint16)
    for organ, centre, axes in (
        (3, (75, 15, 30), (65, 60, 50)),
        (1, (-60, -50, -20), (27, 25, 50)),
        (2, (60, -50, -40), (27, 25, 50)),
    ):
        values[ellipsoid(grid, centre, axes)] = organ
    rng = np.random.default_rng(3)
    hu = np.where(body, np.array([-20, 35, 35, 60])[values], -1000) + rng.normal(0, 8, grid.shape)
    ct = volumeNodeFromImage(ImageVolume(grid, np.rint(hu).astype(np.float32), modality="CT", unit="HU"), "CT", scene)
    segmentation = segmentationNodeFromLabelMap(LabelMap(grid, values, ORGANS), "Organs", scene)
    coarse = grid.with_spacing((9.0, 9.0, 9.0))
    activity = np.full(coarse.shape, 1e4, np.float32) * ellipsoid(coarse, (0, 0, 0), (160, 105, 400))
    activity[ellipsoid(coarse, (-60, -50, -20), (27, 25, 50))] = 9e5
    activity[ellipsoid(coarse, (60, -50, -40), (27, 25, 50))] = 8e5
    activity[ellipsoid(coarse, (75, 15, 30), (65, 60, 50))] = 1.5e5
    spect = volumeNodeFromImage(ImageVolume(coarse, activity, modality="NM", unit="Bq/ml"), "SPECT 24 h", scene)
    return ct, segmentation, spect


@pytest.fixture
def panel(host, scene, module, tmp_path):
    """The panel with its inputs chosen, and a quick fake worker in place of the calculation."""
    ct, segmentation, spect = patient(scene)
    widget = host.show(module, 460, 1250)
    choose(widget.ui, ct, segmentation, spect)
    widget.ui.outputEdit.currentPath = str(tmp_path)
    useWorker(widget, "quick")
    return widget


def choose(ui, ct, segmentation, spect) -> None:
    ui.ctSelector.setCurrentNode(ct)
    ui.segmentationSelector.setCurrentNode(segmentation)
    ui.activitySelector.setCurrentNode(spect)


def useWorker(widget, mode: str) -> None:
    widget.logic.command = lambda arguments: [sys.executable, str(HERE / "fake_worker.py"), mode, *arguments]
    widget.logic.installer = lambda requirements: True


def test_run_is_offered_only_when_the_inputs_are_chosen(host, scene, module):
    widget = host.show(module)
    ui = widget.ui
    assert not ui.runButton.enabled
    assert ui.runButton.toolTip == "Choose the CT"
    ct, segmentation, spect = patient(scene)
    ui.ctSelector.setCurrentNode(ct)
    assert ui.runButton.toolTip == "Choose the activity volume"
    ui.activitySelector.setCurrentNode(ct)
    assert "same volume" in ui.runButton.toolTip
    ui.removeTimePointButton.click()
    ui.activitySelector.setCurrentNode(spect)
    assert ui.activitySelector.currentNode() is None  # ready for the next scan
    assert ui.runButton.enabled
    ui.sigmaSpinBox.value = 1
    assert "precision" in ui.runButton.toolTip
    ui.precisionOrgansEdit.text = "kidney_left"
    assert ui.runButton.enabled
    assert not ui.cancelButton.enabled
    assert "not for clinical use" in ui.noticeLabel.text
    assert segmentation.GetName() in ui.segmentationSelector._combo.itemText(1)
    scene.RemoveNode(ct)
    assert not ui.runButton.enabled


def test_a_run_goes_from_nodes_to_nodes(host, scene, panel, tmp_path, screenshots):
    import slicer
    from slicerhost.views import SliceView

    ui, p = panel.ui, panel._parameterNode
    p.segmentation.GetSegmentation().GetSegment("kidney_left").SetName("Left Kidney")
    ui.restHalfLifeSpinBox.value = 40
    ui.listOrgansButton.click()
    assert p.organHalfLives == "kidney_left = 40\nkidney_right = 40\nliver = 40"
    p.organHalfLives = "kidney_left = 50\nkidney_right = 50\nliver = 60"
    assert "liver = 60" in ui.halfLivesEdit.toPlainText()
    p.segmentation.GetSegmentation().GetSegment("kidney_left").SetName("kidney_left")
    ui.runButton.click()
    assert ui.cancelButton.enabled
    assert not ui.runButton.enabled
    host.waitUntil(finished(panel), 60)
    assert ui.statusLabel.text.startswith("Finished"), ui.statusLabel.text
    assert ui.runButton.enabled
    assert not ui.cancelButton.enabled

    (run,) = tmp_path.glob("SynthDose-*")
    plan = tomllib.loads((run / "PLAN.toml").read_text(encoding="utf-8"))
    assert plan["therapy"]["nuclide"] == "Lu-177"
    assert plan["therapy"]["administered_MBq"] == 7400
    assert plan["kinetics"]["effective_half_life_h"] == {"kidney_left": 50, "kidney_right": 50, "liver": 60}
    assert plan["activity"][0]["unit"] == "Bq/ml"

    composites = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    assert {c.GetForegroundVolumeID() for c in composites} == {p.doseVolume.GetID()}
    assert {c.GetBackgroundVolumeID() for c in composites} == {p.ctVolume.GetID()}
    assert p.doseVolume.GetAttribute("DicomRtImport.DoseVolume") == "1"
    assert ui.organTableView.mrmlTableNode() is resultOf(p.doseVolume, "organTable")
    assert ui.organTableView.rowCount == 3
    assert ui.organTableView.item(0, 0).text() == "kidney_left"
    ui.showChartButton.click()
    assert slicer.util.getNode("PlotView1").GetPlotChartNodeID() == resultOf(p.doseVolume, "dvhChart").GetID()
    assert resultOf(p.doseVolume, "dvhChart").GetNumberOfPlotSeriesNodes() == 3
    assert ui.openReportButton.enabled
    SliceView(host.core, "Red").save(screenshots / "panel_dose_axial.png")
    assert host.screenshot(panel.parent, screenshots / "panel.png")

    ui.runButton.click()  # a second run adds a second study and keeps the first
    first = p.doseVolume
    host.waitUntil(finished(panel), 60)
    assert p.doseVolume is not first
    assert p.doseVolume.GetName() != first.GetName()
    assert first.GetScene() is scene


def test_progress_is_shown_and_cancel_ends_the_run_within_a_second(host, scene, panel, screenshots):
    useWorker(panel, "slow")
    nodes = scene.GetNumberOfNodes()
    panel.ui.runButton.click()
    host.waitUntil(lambda: "Transporting radiation" in panel.ui.statusLabel.text, 30)
    assert "left" in panel.ui.statusLabel.text
    assert "12000 histories/s" in panel.ui.statusLabel.text
    assert panel.ui.progressBar.value >= 0
    assert "reading ct.nrrd" in panel.ui.logEdit.toPlainText()
    host.screenshot(panel.parent, screenshots / "panel_running.png")
    process = panel.logic._job._process
    panel.ui.cancelButton.click()
    assert host.waitUntil(finished(panel), 5) < 1.0
    assert process.poll() is not None
    assert "Cancelled" in panel.ui.statusLabel.text
    assert scene.GetNumberOfNodes() == nodes
    assert panel.ui.runButton.enabled


@pytest.mark.skipif(sys.platform == "win32", reason="a Windows process is ended at once")
def test_a_worker_that_ignores_the_interrupt_is_killed_within_a_second(host, panel):
    useWorker(panel, "stubborn")
    panel.ui.runButton.click()
    host.waitUntil(lambda: "Transporting radiation" in panel.ui.statusLabel.text, 30)
    process = panel.logic._job._process
    panel.ui.cancelButton.click()
    assert host.waitUntil(finished(panel), 5) < 1.0
    assert process.poll() is not None


def test_bad_input_shows_the_message_and_a_crash_the_last_lines(host, scene, panel, screenshots):
    nodes = scene.GetNumberOfNodes()
    useWorker(panel, "bad-input")
    panel.ui.runButton.click()
    host.waitUntil(finished(panel), 30)
    assert panel.ui.statusLabel.text == "The organ 'kidney_left' is empty."
    useWorker(panel, "crash")
    panel.ui.runButton.click()
    host.waitUntil(finished(panel), 30)
    assert "ended unexpectedly" in panel.ui.statusLabel.text
    assert "about to crash" in panel.ui.statusLabel.text
    assert panel.ui.statusLabel.styleSheet != ""
    assert scene.GetNumberOfNodes() == nodes
    assert panel.ui.runButton.enabled
    host.screenshot(panel.parent, screenshots / "panel_crash.png")


def test_values_that_no_run_can_use_are_refused_before_anything_is_written(panel, tmp_path):
    panel._parameterNode.organHalfLives = "kidneys: 50"
    panel.ui.runButton.click()
    assert "kidneys = 50" in panel.ui.statusLabel.text
    assert not panel.logic.running
    assert panel.ui.runButton.enabled
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_cannot_be_started_is_an_error_not_a_hang(panel):
    panel.logic.command = lambda arguments: [str(HERE / "no-such-program")]
    panel.ui.runButton.click()
    assert "Cannot start" in panel.ui.statusLabel.text
    assert panel.ui.runButton.enabled


def test_declined_packages_start_nothing(panel, tmp_path):
    asked = []
    panel.logic.installer = lambda requirements: asked.append(requirements) or False
    panel.ui.runButton.click()
    assert asked[0].files[0].name == "requirements.txt"
    assert "packages are missing" in panel.ui.statusLabel.text
    assert list(tmp_path.iterdir()) == []


def test_closing_the_scene_stops_the_run(host, scene, panel):
    useWorker(panel, "slow")
    panel.ui.runButton.click()
    process = panel.logic._job._process
    scene.Clear()
    assert process.poll() is not None
    assert not panel.logic.running
    assert "scene was closed" in panel.ui.statusLabel.text
    host.app.processEvents()
    assert not panel.ui.runButton.enabled


def test_inputs_deleted_during_a_run_do_no_harm(host, scene, panel):
    p = panel._parameterNode
    panel.ui.runButton.click()
    for node in (p.ctVolume, p.segmentation, *volumesOf(p.timePoints)):
        scene.RemoveNode(node)
    host.waitUntil(finished(panel), 60)
    assert panel.ui.statusLabel.text.startswith("Finished"), panel.ui.statusLabel.text
    assert p.doseVolume is not None
    import slicer

    background = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")[0].GetBackgroundVolumeID()
    assert scene.GetNodeByID(background) is not None  # the CT of the run folder stands in


def test_results_deleted_after_a_run_disable_their_buttons(host, scene, panel):
    p = panel._parameterNode
    panel.ui.runButton.click()
    host.waitUntil(finished(panel), 60)
    for node in (resultOf(p.doseVolume, "organTable"), resultOf(p.doseVolume, "dvhChart"), p.doseVolume):
        scene.RemoveNode(node)
    assert not panel.ui.showDoseButton.enabled
    assert not panel.ui.showChartButton.enabled
    assert panel.ui.organTableView.mrmlTableNode() is None


def test_leaving_and_entering_the_panel_keeps_a_run_and_its_settings(host, panel):
    useWorker(panel, "slow")
    panel.ui.administeredSpinBox.value = 5500
    panel.ui.runButton.click()
    panel.exit()
    panel.enter()
    assert panel.logic.running
    assert panel.ui.administeredSpinBox.value == 5500
    panel.logic.close()


def test_settings_survive_saving_the_scene(host, scene, panel, tmp_path):
    import slicer

    panel.ui.nuclideBox.currentIndex = panel.ui.nuclideBox.findText("Y-90")
    panel.ui.seedSpinBox.value = 7
    slicer.util.saveScene(str(tmp_path / "settings.mrb"))
    scene.Clear()
    assert panel._parameterNode.nuclide == "Lu-177"
    slicer.util.loadScene(str(tmp_path / "settings.mrb"))
    panel.enter()
    assert panel._parameterNode.nuclide == "Y-90"
    assert panel.ui.seedSpinBox.value == 7
    assert panel._parameterNode.ctVolume.GetName() == "CT"


def test_the_module_loads_without_the_heavy_packages():
    """What a user sees at Slicer's start must not depend on numba, torch or monai."""
    import subprocess

    code = (
        f"import sys; sys.path.insert(0, {str(HERE)!r})\n"
        "from slicerhost import install\n"
        "host = install()\n"
        f"module = host.loadModule({str(REPOSITORY / 'SynthDose' / 'SynthDose.py')!r})\n"
        "host.show(module)\n"
        "import json; print(json.dumps([n for n in ('numba', 'torch', 'monai', 'radiomics', 'matplotlib', 'pydicom')"
        " if n in sys.modules]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.strip().splitlines()[-1]) == []


def test_every_nuclide_of_the_panel_is_in_the_decay_data(module):
    from SynthDoseLib.physics import nuclides

    assert set(module.pythonModule.NUCLIDES) <= set(nuclides())


def test_requirements_of_the_extension_are_those_of_the_library():
    lines = (REPOSITORY / "SynthDose" / "Resources" / "requirements.txt").read_text(encoding="utf-8").split()
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert lines == project["dependencies"]
    assert not [line for line in lines if "==" in line]


def test_own_test_of_the_module(module):
    import slicer

    slicer.modules.SynthDoseInstance.runTest(msec=0)


@pytest.mark.slow
def test_the_real_calculation_ends_in_doses_over_the_ct(host, scene, module, tmp_path, screenshots):
    """The same panel with the real command line: kidneys get the dose that their activity implies."""
    from slicerhost.views import SliceView

    ct, segmentation, spect = patient(scene, spacing=8.0)
    widget = host.show(module, 460, 1250)
    ui, p = widget.ui, widget._parameterNode
    choose(ui, ct, segmentation, spect)
    ui.outputEdit.currentPath = str(tmp_path)
    p.histories = 200_000
    p.maxMinutes = 0.5
    p.organHalfLives = "kidneys = 50\nliver = 70"
    start = time.monotonic()
    ui.runButton.click()
    host.waitUntil(finished(widget), 110)
    log = ui.logEdit.toPlainText()
    assert ui.statusLabel.text.startswith("Finished"), f"{ui.statusLabel.text}\n{log}"
    print(f"real run through the panel: {time.monotonic() - start:.1f} s")
    host.screenshot(widget.parent, screenshots / "panel_real.png")
    for view in ("Red", "Green"):
        SliceView(host.core, view).save(screenshots / f"panel_real_{view}.png")
    import slicer

    table = resultOf(p.doseVolume, "organTable")
    organs = [table.GetCellText(row, 0) for row in range(table.GetNumberOfRows())]
    dose = dict(zip(organs, slicer.util.arrayFromTableColumn(table, "mean_dose_Gy"), strict=True))
    # 0.9 MBq/ml carried back 24 h at 50 h, integrated: 0.9e6 * 2**(24/50) * 50 h / ln 2; 0.147 MeV of electrons per decay
    # (MIRD decay schemes) at 1.05 g/ml, less what leaves the blurred edge
    decays_per_ml = 0.9e6 * 2 ** (24 / 50) * 50 * 3600 / np.log(2)
    expected = decays_per_ml * 0.147 * 1.602e-13 / 1.05e-3
    assert 0.75 * expected < dose["kidney_left"] < 1.1 * expected
    assert dose["kidney_left"] > dose["kidney_right"] > dose["liver"] > 0


def test_pictures_for_the_readme_are_small():
    for path in (Path(REPOSITORY) / "Docs" / "Pictures").glob("*.png"):
        assert path.stat().st_size < 200_000, path.name
