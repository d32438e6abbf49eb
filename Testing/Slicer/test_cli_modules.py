"""Slicer's command line modules: their descriptions are what Slicer reads, and they give the numbers of panels and verbs."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from surroundings import REPOSITORY, finished

from SynthDoseLib.cli import build_parser, main
from SynthDoseLib.core import ImageVolume, LabelMap, Organ, VoxelGrid
from SynthDoseLib.io import read_labels, read_volume, write_segmentation, write_volume
from SynthDoseLib.mrml import (
    imageFromVolumeNode,
    labelMapFromSegmentationNode,
    loadPhantom,
    segmentationNodeFromLabelMap,
    volumeNodeFromImage,
)

FOLDER = REPOSITORY / "SynthDose" / "CLI"
VERBS = {"SynthDoseSegmentCLI": "segment", "SynthDosePhantomCLI": "phantom", "SynthDoseSimulateCLI": "simulate"}
KINDS = {"image", "file", "directory", "string", "string-vector", "string-enumeration", "integer", "boolean"}
GRID = VoxelGrid.from_spacing((14, 16, 20), (10.0, 10.0, 10.0), (-95.0, -75.0, -60.0))


@pytest.mark.parametrize("name", VERBS)
def test_the_description_has_the_options_of_the_verb(name):
    root = ElementTree.parse(FOLDER / f"{name}.xml").getroot()
    assert root.tag == "executable"
    found = [entry for group in root.findall("parameters") for entry in group if entry.tag not in ("label", "description")]
    assert {entry.tag for entry in found} <= KINDS
    words = [VERBS[name]]
    for entry in found:
        assert entry.findtext("name").isidentifier()
        assert entry.findtext("label")
        assert entry.findtext("description")
        value = entry.findtext("default") or "1"
        flag = [entry.findtext("longflag")] if entry.find("longflag") is not None else []
        words += flag if entry.tag == "boolean" else [*flag, value]
    build_parser().parse_args(words)  # ends the test if the verb has no such option
    indices = sorted(int(entry.findtext("index")) for entry in found if entry.find("index") is not None)
    assert indices == list(range(len(indices)))


def asSlicer(name: str, options: dict[str, str], *files: Path) -> subprocess.CompletedProcess[str]:
    """Run a command line module as Slicer's vtkSlicerCLIModuleLogic does: options that are not empty, files last."""
    root = ElementTree.parse(FOLDER / f"{name}.xml").getroot()
    words: list[str] = []
    for entry in (entry for group in root.findall("parameters") for entry in group):
        flag, key = entry.findtext("longflag"), entry.findtext("name") or ""
        if flag is not None and entry.tag != "boolean":
            value = options.pop(key, entry.findtext("default") or "")
            words += [flag, value] if value else []
    positions = {
        entry.findtext("name"): int(entry.findtext("index") or 0) for entry in root.iter() if entry.find("index") is not None
    }
    words += [options.pop(key) for key in sorted(positions, key=positions.__getitem__) if key in options]
    assert not options
    command = [sys.executable, str(FOLDER / f"{name}.py"), *words, *map(str, files)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=Path.home())


def patient() -> tuple[ImageVolume, LabelMap]:
    """A body of soft tissue with a liver and a lung."""
    _, j, i = np.indices(GRID.shape)
    body = ((i - 10) / 8) ** 2 + ((j - 8) / 6) ** 2 < 1
    values, labels = np.where(body, 20.0, -1000.0).astype(np.float32), np.zeros(GRID.shape, np.uint16)
    values[4:9, 5:11, 11:16], labels[4:9, 5:11, 11:16] = 60, 1
    values[3:12, 5:11, 4:9], labels[3:12, 5:11, 4:9] = -750, 2
    organs = (Organ(1, "liver", "10200004"), Organ(2, "lung_left", "39607008"))
    return ImageVolume(GRID, values, modality="CT", unit="HU"), LabelMap(GRID, labels, organs)


@pytest.fixture
def files(tmp_path) -> dict[str, Path]:
    """CT and organs as files."""
    ct, labels = patient()
    write_volume(tmp_path / "ct.nrrd", ct.values, GRID, unit="HU")
    write_segmentation(tmp_path / "organs.seg.nrrd", labels)
    return {"ct": tmp_path / "ct.nrrd", "organs": tmp_path / "organs.seg.nrrd"}


def runPanel(host: Any, name: str, folder: Path, **parameters: Any) -> Any:
    """Press the run button of a panel with these parameters; return its parameter node."""
    module = host.loadModule(REPOSITORY / "SynthDose" / f"{name}.py")
    widget = host.show(module)
    widget.logic.installer = lambda requirements: True
    folder.mkdir()
    for key, value in {**parameters, "outputFolder": folder}.items():
        known = getattr(widget._parameterNode, key)
        setattr(widget._parameterNode, key, type(known)[value] if isinstance(known, Enum) else value)
    widget.ui.runButton.click()
    host.waitUntil(finished(widget), 300)
    assert widget.ui.statusLabel.text.startswith("Finished"), widget.ui.statusLabel.text + widget.ui.logEdit.toPlainText()
    found = widget._parameterNode
    module.discard()
    return found


@pytest.mark.slow
def test_panel_module_and_verb_segment_alike(host, scene, files, tmp_path):
    ct = volumeNodeFromImage(patient()[0], "CT", scene)
    found = runPanel(host, "SynthDoseSegmentation", tmp_path / "panel", image=ct, method="TISSUES")
    inPanel = labelMapFromSegmentationNode(found.segmentation, ct)
    out, again = tmp_path / "module.seg.nrrd", tmp_path / "verb.seg.nrrd"
    done = asSlicer("SynthDoseSegmentCLI", {"modality": "CT", "image": str(files["ct"]), "out": str(out)})
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # Slicer shows it as an error
    assert "<filter-progress>1.0000</filter-progress>" in done.stdout
    assert main(["segment", str(files["ct"]), "--modality", "CT", "--out", str(again)]) == 0
    byModule, byVerb = (read_labels(file, reference=GRID) for file in (out, again))
    assert [organ.name for organ in byModule.organs] == [organ.name for organ in byVerb.organs]
    for organ in byVerb.organs:
        assert np.array_equal(byModule.mask(organ.name), byVerb.mask(organ.name)), organ.name
        assert np.array_equal(inPanel.mask(organ.name), byVerb.mask(organ.name)), organ.name
    assert byVerb.mask("soft_tissue").any()


@pytest.mark.slow
def test_panel_module_and_verb_make_the_same_phantom(host, scene, files, tmp_path):
    ct, labels = patient()
    nodes = {
        "image": volumeNodeFromImage(ct, "CT", scene),
        "segmentation": segmentationNodeFromLabelMap(labels, "Organs", scene),
    }
    found = runPanel(host, "SynthDosePhantom", tmp_path / "panel", **nodes)
    inputs = {"image": str(files["ct"]), "segmentation": str(files["organs"])}
    asked = {**inputs, "modality": "CT", "export": "case,stl", "out": str(tmp_path / "module")}
    done = asSlicer("SynthDosePhantomCLI", asked)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "module").iterdir() if path.is_dir()} == {"case", "stl"}
    assert main(["phantom", *inputs.values(), "--modality", "CT", "--out", str(tmp_path / "verb")]) == 0
    for part in ("density", "materials"):
        byModule, byVerb = (read_volume(tmp_path / way / f"{part}.nrrd")[0] for way in ("module", "verb"))
        np.testing.assert_array_equal(byModule, byVerb)
    np.testing.assert_array_equal(imageFromVolumeNode(found.phantom).values, read_volume(tmp_path / "verb" / "density.nrrd")[0])


@pytest.mark.slow
def test_panel_module_and_verb_simulate_the_same_dose(host, scene, files, tmp_path):
    phantom = tmp_path / "phantom"
    inputs = [str(files["ct"]), str(files["organs"])]
    assert main(["phantom", *inputs, "--modality", "CT", "--export", "case", "--out", str(phantom)]) == 0
    node = loadPhantom(phantom, scene, title="Box")
    settings = {"organWeights": "liver = 1", "emissions": "electron 0.3", "histories": 3000, "seed": 5}
    found = runPanel(host, "SynthDoseMonteCarlo", tmp_path / "panel", phantom=node, previewSeconds=0.0, **settings)
    (case,) = (tmp_path / "panel").glob("*/CASE.toml")
    done = asSlicer("SynthDoseSimulateCLI", {"case": str(case), "out": str(tmp_path / "module")})
    assert done.returncode == 0, done.stderr
    assert main(["simulate", str(case), "--out", str(tmp_path / "verb")]) == 0
    byModule, byVerb = (read_volume(tmp_path / way / "dose_Gy.nrrd")[0] for way in ("module", "verb"))
    assert byVerb.max() > 0
    np.testing.assert_array_equal(byModule, byVerb)
    np.testing.assert_array_equal(imageFromVolumeNode(found.doseVolume).values, byVerb)


def test_bad_input_of_a_module_is_exit_status_2_and_one_message(tmp_path):
    missing = tmp_path / "none.nrrd"
    done = asSlicer("SynthDoseSegmentCLI", {"modality": "CT", "image": str(missing), "out": str(tmp_path / "out.seg.nrrd")})
    assert done.returncode == 2
    assert "none.nrrd" in done.stderr
    assert list(tmp_path.iterdir()) == []
