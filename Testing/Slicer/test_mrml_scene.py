"""The scene of a run folder: written by a process, read back in a fresh scene, and looked at."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from SynthDoseLib.core import LabelMap, Organ, SynthDoseError, VoxelGrid
from SynthDoseLib.io import write_segmentation, write_volume
from SynthDoseLib.mrml import imageFromVolumeNode, labelMapFromSegmentationNode, loadRun
from SynthDoseLib.mrml.scene import main

ORGANS = (
    Organ(1, "kidney_left", "18639004", (0.73, 0.40, 0.15)),
    Organ(2, "kidney_right", "9846003", (0.73, 0.40, 0.15)),
    Organ(7, "liver", "10200004", (0.87, 0.51, 0.40)),
    Organ(8, "rest_of_body", "", (0.9, 0.8, 0.7)),
)


def ellipsoid(grid: VoxelGrid, centre: tuple[float, float, float], axes: tuple[float, float, float]) -> np.ndarray:
    nk, nj, ni = grid.shape
    k, j, i = np.mgrid[0:nk, 0:nj, 0:ni]
    ras = grid.to_ras(np.stack([i, j, k], axis=-1))
    return (((ras - centre) / axes) ** 2).sum(axis=-1) <= 1


def makeRun(folder: Path, directions: np.ndarray | None = None) -> tuple[VoxelGrid, np.ndarray, LabelMap]:
    """A run folder with a body, a liver on the right and two kidneys; the left kidney has the highest dose."""
    folder.mkdir(parents=True, exist_ok=True)
    grid = VoxelGrid.from_spacing((40, 60, 80), (4.5, 4.5, 6.0), directions=directions)
    body = ellipsoid(grid, (0, 0, 0), (165, 110, 400))
    values = np.zeros(grid.shape, np.uint16)
    values[ellipsoid(grid, (75, 15, 40), (70, 60, 55))] = 7
    values[ellipsoid(grid, (-60, -50, -20), (27, 25, 50))] = 1
    values[ellipsoid(grid, (60, -50, -40), (27, 25, 50))] = 2
    values[body & (values == 0)] = 8
    labels = LabelMap(grid, values, ORGANS)
    rng = np.random.default_rng(1)
    ct = np.where(body, np.where(values == 7, 60, np.where(values < 7, 35, -60)), -1000) + rng.normal(0, 8, grid.shape)
    dose = (np.array([0, 12, 9, 0, 0, 0, 0, 4, 0.3])[values] * body).astype(np.float32)
    write_volume(folder / "ct.nrrd", np.rint(ct).astype(np.float32), grid, unit="HU")
    write_volume(folder / "dose_Gy.nrrd", dose, grid, unit="Gy")
    write_volume(folder / "sigma_Gy.nrrd", (0.02 * dose).astype(np.float32), grid, unit="Gy")
    write_volume(folder / "tia_MBq_s.nrrd", (values > 0).astype(np.float32), grid, unit="MBq s")
    write_segmentation(folder / "labels.seg.nrrd", labels)
    (folder / "organ_doses.csv").write_text(
        "organ,volume_ml,mass_g,mean_dose_Gy,sigma_Gy,min_Gy,max_Gy,d95_Gy,d50_Gy,d5_Gy\n"
        "kidney_left,141,148,12,0.03,12,12,12,12,12\n"
        "kidney_right,141,148,9,0.03,9,9,9,9,9\n"
        "liver,967,1025,4,0.01,4,4,4,4,4\n",
        encoding="utf-8",
    )
    rows = ["organ,dose_Gy,volume_fraction"]
    for organ, mean in (("kidney_left", 12.0), ("kidney_right", 9.0), ("liver", 4.0)):
        steps = 5 if organ == "liver" else 7
        rows += [f"{organ},{d:.3f},{1 / (1 + np.exp((d - mean) * 2)):.4f}" for d in np.linspace(0, mean * 1.5, steps)]
    (folder / "dvh.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (folder / "provenance.json").write_text(json.dumps({"schema": 1, "seed": 1}), encoding="utf-8")
    return grid, dose, labels


def writeByCommand(*arguments: object, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "SynthDoseLib.mrml.scene", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=folder)


def tilted() -> np.ndarray:
    angle = np.radians(10)
    return np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])


def test_a_relative_run_folder_is_taken(tmp_path):
    makeRun(tmp_path / "run", tilted())
    done = writeByCommand(Path("run"), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "scene.mrb").exists()


def test_the_scene_written_by_the_command_opens_with_everything_in_place(host, scene, tmp_path, screenshots):
    import slicer
    from slicerhost.views import SliceView

    run = tmp_path / "run"
    grid, dose, labels = makeRun(run, tilted())
    before = {path.name for path in run.iterdir()}
    done = writeByCommand(run)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in run.iterdir()} == {*before, "scene.mrb"}  # nothing left behind

    slicer.util.loadScene(str(run / "scene.mrb"), {"clear": True})
    doseNode = slicer.util.getNode("SynthDose dose (Gy)")
    back = imageFromVolumeNode(doseNode)
    np.testing.assert_array_equal(back.values, dose)
    np.testing.assert_allclose(back.grid.ijk_to_ras, grid.ijk_to_ras, atol=1e-9)
    assert back.unit == "Gy"
    sigma = doseNode.GetNodeReference("SynthDose.sigmaVolume")
    np.testing.assert_allclose(imageFromVolumeNode(sigma).values, 0.02 * dose, rtol=1e-6)
    ct = slicer.util.getNode("CT")
    segmentation = slicer.util.getNode("SynthDose organs")
    found = labelMapFromSegmentationNode(segmentation, ct)
    assert [o.name for o in found.organs] == [o.name for o in ORGANS]
    assert [o.snomed_code for o in found.organs] == [o.snomed_code for o in ORGANS]
    shown = [segmentation.GetDisplayNode().GetSegmentVisibility(o.name) for o in ORGANS]
    assert shown == [True, True, True, False]
    for organ in ORGANS:
        np.testing.assert_array_equal(found.mask(organ.name), labels.mask(organ.name))

    composites = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    assert len(composites) == 3
    for composite in composites:
        assert composite.GetBackgroundVolumeID() == ct.GetID()
        assert composite.GetForegroundVolumeID() == doseNode.GetID()
        assert composite.GetForegroundOpacity() == 0.5
    orientations = {node.GetName(): node.GetOrientation() for node in slicer.util.getNodesByClass("vtkMRMLSliceNode")}
    assert orientations == {"Red": "Axial", "Yellow": "Sagittal", "Green": "Coronal"}
    left, anterior, superior = (slicer.util.getNode(name).GetSliceOffset() for name in ("Yellow", "Green", "Red"))
    assert ellipsoid(grid, (-left, anterior, superior), (6, 6, 6))[labels.mask("kidney_left")].any()  # the hottest organ
    colours = doseNode.GetDisplayNode().GetColorNode()
    assert colours.GetName() == "SynthDose dose"
    top = [0.0] * 4
    colours.GetColor(255, top)
    assert top[0] > 0.7
    assert top[2] < 0.1
    assert doseNode.GetDisplayNode().GetApplyThreshold() == 1

    table = slicer.util.getNode("SynthDose organ doses")
    assert [table.GetCellText(row, 0) for row in range(3)] == ["kidney_left", "kidney_right", "liver"]
    assert list(slicer.util.arrayFromTableColumn(table, "mean_dose_Gy")) == [12, 9, 4]
    chart = slicer.util.getNode("SynthDose dose volume histograms")
    assert chart.GetNumberOfPlotSeriesNodes() == 3
    series = chart.GetNthPlotSeriesNode(0)
    data = series.GetTableNode()
    fraction = slicer.util.arrayFromTableColumn(data, series.GetYColumnName())
    assert (np.diff(fraction) <= 0).all()
    styles = [chart.GetNthPlotSeriesNode(index).GetLineStyle() for index in range(3)]
    assert styles[0] != styles[1]  # both kidneys have one colour
    layout = slicer.util.getNodesByClass("vtkMRMLLayoutNode")[0]
    assert layout.GetViewArrangement() == slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpPlotTableView
    assert slicer.util.getNode("PlotView1").GetPlotChartNodeID() == chart.GetID()
    assert slicer.util.getNode("TableView1").GetTableNodeID() == table.GetID()
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    study = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(doseNode))
    assert hierarchy.GetItemName(study) == "SynthDose"
    assert hierarchy.GetItemAttribute(study, "DicomRtImport.DoseUnitName") == "GY"
    assert json.loads(slicer.util.getNode("SynthDose provenance").GetText())["seed"] == 1

    for name in ("Red", "Green"):
        picture = SliceView(host.core, name).save(screenshots / f"scene_{name}.png")
        pixels = _pixels(picture)
        red, blue = pixels[..., 0].astype(int), pixels[..., 2].astype(int)
        # hot kidneys over a grey body: there is red dose, and most of the picture is grey or black
        assert (red - blue > 60).sum() > 300
        assert (abs(red - blue) < 12).mean() > 0.3


def _pixels(path: Path) -> np.ndarray:
    import vtk
    from vtk.util.numpy_support import vtk_to_numpy

    reader = vtk.vtkPNGReader()
    reader.SetFileName(str(path))
    reader.Update()
    width, height, _ = reader.GetOutput().GetDimensions()
    return vtk_to_numpy(reader.GetOutput().GetPointData().GetScalars()).reshape(height, width, -1)


def test_left_is_on_the_right_of_the_picture(host, scene, tmp_path, screenshots):
    """Radiological view: the patient's left kidney, the hotter one, is on the right hand side of axial slices."""
    from slicerhost.views import SliceView

    from SynthDoseLib.mrml import showDoseOverImage

    makeRun(tmp_path / "run")
    nodes = loadRun(tmp_path / "run", scene)
    assert nodes.hottestRas[0] < 0
    showDoseOverImage(scene, nodes.dose, nodes.image, opacity=1.0)
    nodes.segmentation.GetDisplayNode().SetVisibility(False)
    view = SliceView(host.core, "Red")
    view.fit(offset=-20)
    pixels = _pixels(view.save(screenshots / "left_right.png")).astype(int)
    hottest = (pixels[..., 0] > 180) & (pixels[..., 1] < 60) & (pixels[..., 2] < 60)
    assert hottest.sum() > 50
    assert np.argwhere(hottest)[:, 1].mean() > pixels.shape[1] / 2


def test_a_run_without_ct_shows_the_density_and_one_without_tables_says_so(scene, tmp_path):
    grid, _, _ = makeRun(tmp_path / "run")
    for name in ("ct.nrrd", "organ_doses.csv", "dvh.csv", "sigma_Gy.nrrd", "provenance.json", "tia_MBq_s.nrrd"):
        (tmp_path / "run" / name).unlink()
    write_volume(tmp_path / "run" / "density.nrrd", np.ones(grid.shape, np.float32), grid, unit="g/cm3")
    nodes = loadRun(tmp_path / "run", scene)
    assert nodes.image.GetName() == "Density (g/cm3)"
    assert nodes.chart is None
    assert nodes.organTable is None
    assert any("over the density" in note for note in nodes.notes)
    assert any("sigma" in note for note in nodes.notes)


def test_folders_that_are_no_runs_are_refused_in_one_line(tmp_path, capsys):
    for folder, text in ((tmp_path / "nowhere", "no run folder"), (tmp_path, "no dose_Gy.nrrd")):
        assert main([str(folder)]) == 1
        message = capsys.readouterr().err.strip().splitlines()[-1]
        assert message.startswith("error: ")
        assert text in message
    assert list(tmp_path.iterdir()) == []


def test_a_broken_file_leaves_the_scene_as_it_was(scene, tmp_path):
    makeRun(tmp_path / "run")
    (tmp_path / "run" / "dvh.csv").write_text("organ,dose_Gy,volume_fraction\nliver,1\n", encoding="utf-8")
    scene.AddNewNodeByClass("vtkMRMLTextNode", "note")  # and with it the subject hierarchy
    before = scene.GetNumberOfNodes()
    with pytest.raises(SynthDoseError, match="row 2"):
        loadRun(tmp_path / "run", scene)
    assert scene.GetNumberOfNodes() == before


def test_without_slicer_core_the_message_says_how_to_get_it(tmp_path):
    """Python's -S and an empty path for site packages stand for an environment without it."""
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "slicer.py").write_text("raise ModuleNotFoundError(\"No module named 'slicer'\", name='slicer')\n")
    code = f"import sys; sys.path.insert(0, {str(blocked)!r}); from SynthDoseLib.mrml.scene import main; sys.exit(main(['x']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert 'pip install "slicer-core' in done.stderr
    assert "Traceback" not in done.stderr
