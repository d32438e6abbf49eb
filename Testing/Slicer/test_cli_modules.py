"""Slicer's command line modules: their descriptions are what Slicer reads, and they do what the verbs do."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from surroundings import REPOSITORY

from SynthDoseLib.cli import build_parser

FOLDER = REPOSITORY / "SynthDose" / "CLI"
VERBS = {"SynthDoseSegmentCLI": "segment", "SynthDosePhantomCLI": "phantom", "SynthDoseSimulateCLI": "simulate"}
KINDS = {"image", "file", "directory", "string", "string-enumeration", "integer"}


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
        value = entry.findtext("default") or "x"
        words += [entry.findtext("longflag"), value] if entry.find("longflag") is not None else [value]
    build_parser().parse_args(words)  # ends the test if the verb has no such option
    indices = sorted(int(entry.findtext("index")) for entry in found if entry.find("index") is not None)
    assert indices == list(range(len(indices)))


def test_a_module_run_as_slicer_does_gives_the_numbers_of_the_verb(tmp_path):
    from SynthDoseLib.core import ImageVolume, VoxelGrid
    from SynthDoseLib.io import read_labels, write_volume

    grid = VoxelGrid.from_spacing((12, 16, 20), (10.0, 10.0, 10.0))
    _, j, i = np.indices(grid.shape)
    body = ((i - 10) / 8) ** 2 + ((j - 8) / 6) ** 2 < 1
    image = ImageVolume(grid, np.where(body, 40.0, -1000.0).astype(np.float32), modality="CT", unit="HU")
    write_volume(tmp_path / "ct.nrrd", image.values, grid, unit="HU")
    out = tmp_path / "organs.seg.nrrd"
    command = [sys.executable, str(FOLDER / "SynthDoseSegmentCLI.py"), "--bundle", "", "--modality", "CT", "--out", str(out)]
    done = subprocess.run([*command, str(tmp_path / "ct.nrrd")], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    verb = [sys.executable, "-m", "SynthDoseLib", "segment", str(tmp_path / "ct.nrrd"), "--modality", "CT"]
    again = tmp_path / "again.seg.nrrd"
    subprocess.run([*verb, "--out", str(again)], capture_output=True, timeout=120, check=True, cwd=REPOSITORY)
    assert np.array_equal(read_labels(out).labels, read_labels(again).labels)
    missing = subprocess.run(
        [*command, str(tmp_path / "none.nrrd")], capture_output=True, text=True, timeout=120, check=False, cwd=Path.home()
    )
    assert missing.returncode == 2
    assert "none.nrrd" in missing.stderr
