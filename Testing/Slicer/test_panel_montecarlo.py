"""The Monte Carlo panel with the real engine: phantom and source in, dose, preview, S values and comparison out."""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from surroundings import finished

from SynthDoseLib.core import LabelMap, Organ, VoxelGrid
from SynthDoseLib.io import write_segmentation, write_volume
from SynthDoseLib.mrml import imageFromVolumeNode, isPhantom, loadPhantom, volumeNodeFromImage, writePhantom

GRID = VoxelGrid.from_spacing((14, 14, 16), (6.0, 6.0, 6.0))
LIVER_G = 5 * 6 * 6 * 0.216 * 1.05


def writePhantomFolder(folder: Path) -> Path:
    """A box of water with a liver on the patient's right and a spleen on the left, as ``synthdose phantom`` writes it."""
    folder.mkdir()
    labels = np.zeros(GRID.shape, np.uint16)
    labels[4:9, 4:10, 9:15] = 1  # i grows to the right of RAS
    labels[4:9, 4:10, 1:5] = 2
    density = np.where(labels == 1, 1.05, 1.0).astype(np.float32)
    organs = (Organ(1, "liver", "10200004", (0.87, 0.51, 0.40)), Organ(2, "spleen", "78961009", (0.61, 0.42, 0.82)))
    write_volume(folder / "density.nrrd", density, GRID, unit="g/cm3")
    write_volume(folder / "materials.nrrd", np.ones(GRID.shape, np.uint8), GRID)
    write_segmentation(folder / "labels.seg.nrrd", LabelMap(GRID, labels, organs))
    water = {"index": 1, "name": "water", "density_g_cm3": 1.0, "mass_fractions": {"H": 0.111894, "O": 0.888106}}
    (folder / "phantom.json").write_text(json.dumps({"schema": 1, "materials": [water], "notes": []}))
    return folder


MODULE = "SynthDoseMonteCarlo"


@pytest.fixture
def phantom(scene, tmp_path):
    return loadPhantom(writePhantomFolder(tmp_path / "phantom"), scene, title="Box")


@pytest.fixture
def panel(host, module, phantom, tmp_path):
    widget = host.show(module, 460, 1400)
    widget.logic.installer = lambda requirements: True
    widget.ui.phantomSelector.setCurrentNode(phantom)
    widget.ui.outputEdit.currentPath = str(tmp_path / "out")
    (tmp_path / "out").mkdir()
    return widget


def names(scene) -> set[str]:
    return {scene.GetNthNode(index).GetName() for index in range(scene.GetNumberOfNodes())}


def test_a_phantom_goes_through_nodes_and_a_saved_scene_unchanged(scene, phantom, tmp_path):
    import slicer

    assert isPhantom(phantom)
    slicer.util.saveScene(str(tmp_path / "phantom.mrb"))
    scene.Clear()
    slicer.util.loadScene(str(tmp_path / "phantom.mrb"))
    again = slicer.util.getNode("Box density (g/cm3)")
    assert isPhantom(again)
    values = writePhantom(again, tmp_path)
    assert values["material"][0]["mass_fractions"] == {"H": 0.111894, "O": 0.888106}
    assert [organ["name"] for organ in values["organ"]] == ["liver", "spleen"]
    assert imageFromVolumeNode(again).grid.matches(GRID)
    assert np.unique(imageFromVolumeNode(again).values).tolist() == pytest.approx([1.0, 1.05])
    scene.RemoveNode(again.GetNodeReference("SynthDose.materialsVolume"))
    assert not isPhantom(again)


def test_what_is_missing_is_said_before_a_run(panel, scene, phantom):
    ui, p = panel.ui, panel._parameterNode
    assert "source organs" in ui.runButton.toolTip
    ui.listOrgansButton.click()
    assert p.organWeights == "liver = 1\nspleen = 1"
    assert ui.runButton.enabled
    ui.historiesSpinBox.value = 0
    assert "when to stop" in ui.runButton.toolTip
    ui.historiesSpinBox.value = 1000
    ui.sourceKindBox.currentIndex = 0
    assert "activity volume" in ui.runButton.toolTip
    assert not ui.listOrgansButton.enabled
    ui.sourceKindBox.currentIndex = 2
    ui.compareCheckBox.checked = True
    assert "not a beam" in ui.runButton.toolTip
    ui.compareCheckBox.checked = False
    assert ui.beamButton.enabled
    assert ui.runButton.enabled
    scene.RemoveNode(phantom.GetNodeReference("SynthDose.materialsVolume"))
    panel.updateGui()
    assert "build it again" in ui.runButton.toolTip


def test_bad_text_is_refused_before_anything_is_written(panel, tmp_path):
    p = panel._parameterNode
    p.organWeights = "liver = many"
    panel.ui.runButton.click()
    assert "kidneys = 3" in panel.ui.statusLabel.text
    p.organWeights = "liver"
    p.emissions = "gamma 0.14"
    panel.ui.runButton.click()
    assert "photon 0.1405 0.885" in panel.ui.statusLabel.text
    assert list((tmp_path / "out").iterdir()) == []


def test_a_simulation_goes_from_nodes_to_nodes(host, scene, panel, phantom, tmp_path, screenshots):
    """0.1 MeV electrons in the liver stay there: dose = energy / mass; the hot voxels are on the patient's right."""
    import slicer
    from slicerhost.views import SliceView

    ui, p = panel.ui, panel._parameterNode
    p.organWeights, p.emissions, p.histories, p.decaysMBqs = "liver = 1", "electron 0.1", 20000, 50.0
    p.sValues = p.compare = True
    p.outputFolder = tmp_path / "out"
    ui.runButton.click()
    host.waitUntil(finished(panel), 120)
    assert ui.statusLabel.text.startswith("Finished"), ui.statusLabel.text + ui.logEdit.toPlainText()
    (run,) = (tmp_path / "out").iterdir()
    case = tomllib.loads((run / "CASE.toml").read_text(encoding="utf-8"))
    assert case["source"]["weights"] == {"liver": 1}
    expected = 0.1 * 1.602176634e-13 / (LIVER_G * 1e-3) * 50e6
    inLiver = float(slicer.util.arrayFromVolume(p.doseVolume)[5:8, 5:9, 10:14].mean())
    assert inLiver == pytest.approx(expected, rel=0.02)  # 0.14 mm of range, 20000 histories
    sigma = p.doseVolume.GetNodeReference("SynthDose.sigmaVolume")
    assert sigma is not None
    assert p.doseVolume.GetAttribute("SynthDose.unit") == "Gy"
    dose = imageFromVolumeNode(p.doseVolume)
    hottest = np.unravel_index(np.argmax(dose.values), dose.values.shape)[::-1]
    assert dose.grid.to_ras(hottest)[0] > 0
    columns = [p.organTable.GetColumnName(index) for index in range(p.organTable.GetNumberOfColumns())]
    assert columns == ["organ", "mass_g", "dose_Gy", "sigma_Gy"]
    assert p.organTable.GetCellText(0, 0) == "liver"
    assert float(p.organTable.GetCellText(0, 2)) == pytest.approx(expected, rel=0.01)  # like the volume, times the decays
    assert p.sValueTable.GetColumnName(3) == "dose_Gy_per_decay"
    assert p.doseVolume.GetNodeReference("SynthDose.organs") is p.organTable
    assert "own emissions" in p.doseVolume.GetName()
    ui.showSValuesButton.click()
    assert slicer.util.getNode("TableView1").GetTableNodeID() == p.sValueTable.GetID()
    sources = [p.sValueTable.GetCellText(row, 0) for row in range(p.sValueTable.GetNumberOfRows())]
    assert sources == ["liver", "liver", "spleen", "spleen"] or sources == ["liver", "liver"]
    ui.showEnginesButton.click()
    engines = {p.engineTable.GetCellText(row, 1) for row in range(p.engineTable.GetNumberOfRows())}
    assert engines == {"monte-carlo", "kernel", "local"}
    assert {c.GetBackgroundVolumeID() for c in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")} == {phantom.GetID()}
    SliceView(host.core, "Red").save(screenshots / "montecarlo_axial.png")
    assert (ui.organTableView.rowCount, ui.organTableView.item(0, 0).text()) == (2, "liver")
    host.screenshot(panel.parent, screenshots / "montecarlo_panel.png")


def test_results_are_those_of_what_was_asked(host, scene, panel, phantom, tmp_path):
    """What is changed while a calculation runs is for the next one."""
    import slicer

    ui, p = panel.ui, panel._parameterNode
    p.organWeights, p.emissions, p.histories = "liver = 1", "electron 0.1", 1000
    p.outputFolder = tmp_path / "out"
    ui.runButton.click()
    assert panel.logic.running, ui.statusLabel.text
    p.decaysMBqs, p.emissions, p.phantom = 1000.0, "", None
    host.waitUntil(finished(panel), 300)
    assert p.doseVolume.GetAttribute("SynthDose.unit") == "Gy per decay"
    assert p.doseVolume.GetName() == "Box Monte Carlo own emissions dose (Gy)"
    assert p.organTable.GetColumnName(2) == "dose_Gy_per_decay"
    assert slicer.util.arrayFromVolume(p.doseVolume).max() < 1e-10


def test_the_dose_so_far_is_shown_and_cancel_takes_it_away(host, scene, panel, phantom, tmp_path):
    p = panel._parameterNode
    p.organWeights, p.emissions, p.histories, p.previewSeconds = "liver = 1", "photon 0.3", 30_000_000, 0.5
    p.outputFolder = tmp_path / "out"
    nodes = names(scene)
    panel.ui.runButton.click()
    host.waitUntil(lambda: p.previewVolume is not None or not panel.logic.running, 120)
    assert panel.logic.running, panel.ui.statusLabel.text
    import slicer

    assert slicer.util.arrayFromVolume(p.previewVolume).max() > 0
    composite = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")[0]
    assert composite.GetForegroundVolumeID() == p.previewVolume.GetID()
    panel.ui.shownMapBox.currentIndex = 1
    sigma = p.previewVolume.GetNodeReference("SynthDose.sigmaVolume")
    assert composite.GetForegroundVolumeID() == sigma.GetID()
    assert slicer.util.arrayFromVolume(sigma).max() > 0
    host.waitUntil(lambda: "where it is high" in panel.ui.statusLabel.text or not panel.logic.running, 30)
    assert "Dose so far ± " in panel.ui.statusLabel.text
    panel.ui.cancelButton.click()
    assert host.waitUntil(finished(panel), 5) < 1.5
    assert p.previewVolume is None
    assert names(scene) - nodes <= {"SynthDose dose", "LUT"}, names(scene) - nodes  # colours of doses stay in the scene


def test_console_panel_and_command_line_give_the_same_dose(module, scene, phantom, tmp_path):
    import slicer

    from SynthDoseLib.cli import main
    from SynthDoseLib.io import read_volume

    logic = module.pythonModule.SynthDoseMonteCarloLogic(installer=lambda requirements: True)
    settings = {"histories": 5000, "seed": 3, "threads": 1}
    emissions = [{"particle": "electron", "energy_MeV": 0.3}]
    dose = logic.simulate(phantom, {"liver": 1, "spleen": 2}, emissions=emissions, **settings)
    case = logic.writeCase(
        tmp_path, phantom, None, {"kind": "organs", "weights": {"liver": 1, "spleen": 2}, "emission": emissions}, settings
    )
    assert main(["simulate", str(case), "--out", str(tmp_path / "cli")]) == 0
    expected, grid, _ = read_volume(tmp_path / "cli" / "dose_Gy.nrrd")
    found = imageFromVolumeNode(dose)
    assert found.grid.matches(grid)
    np.testing.assert_array_equal(found.values, expected)
    activity = np.zeros(GRID.shape, np.float32)
    activity[6, 6, 12] = 1
    from SynthDoseLib.core import ImageVolume

    node = volumeNodeFromImage(ImageVolume(GRID, activity), "activity", scene)
    byMap = logic.simulate(phantom, node, emissions=[{"particle": "electron", "energy_MeV": 0.05}], **settings)
    voxel = slicer.util.arrayFromVolume(byMap)[6, 6, 12]
    assert voxel == pytest.approx(0.05 * 1.602176634e-13 / (0.216 * 1.05e-3), rel=0.05)  # range 0.04 of 6 mm


def test_every_nuclide_of_the_decay_data_is_offered_once():
    from SynthDoseLib.mrml.forms import FURTHER_NUCLIDES, NUCLIDES
    from SynthDoseLib.physics import nuclides

    assert sorted((*NUCLIDES, *FURTHER_NUCLIDES)) == sorted(nuclides())


def test_own_test_of_the_module(module):
    import slicer

    slicer.modules.SynthDoseMonteCarloInstance.runTest(msec=0)


def test_closing_the_scene_stops_the_run(host, scene, panel):
    p = panel._parameterNode
    p.organWeights, p.emissions, p.histories = "liver = 1", "photon 0.3", 2_000_000_000
    panel.logic.command = lambda arguments: [sys.executable, "-c", "import time; time.sleep(60)"]
    panel.ui.runButton.click()
    process = panel.logic._job._process
    scene.Clear()
    assert process.poll() is not None
    assert not panel.logic.running
