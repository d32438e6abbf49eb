"""``[run] compare`` of a case: kernel convolution and local deposition beside the Monte Carlo."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from SynthDoseLib.cli import main
from SynthDoseLib.core import VoxelGrid
from SynthDoseLib.io import write_volume
from SynthDoseLib.pipeline.case import run_case

GRID = VoxelGrid.from_spacing((12, 12, 12), (5.0, 5.0, 5.0))
CASE = """
[phantom]
materials = "materials.nrrd"
organs = "organs.nrrd"
[[phantom.material]]
index = 1
name = "water"
density_g_cm3 = 1.0
mass_fractions = { H = 0.111894, O = 0.888106 }
[[phantom.organ]]
index = 1
name = "liver"
[source]
kind = "organs"
weights = { liver = 1 }
[[source.emission]]
particle = "electron"
energy_MeV = 0.15
[run]
histories = 20000
threads = 1
compare = ["kernel", "local"]
"""


@pytest.fixture
def case(tmp_path):
    write_volume(tmp_path / "materials.nrrd", np.ones(GRID.shape, np.uint8), GRID)
    organs = np.zeros(GRID.shape, np.uint8)
    organs[3:9, 3:9, 3:9] = 1
    write_volume(tmp_path / "organs.nrrd", organs, GRID)
    (tmp_path / "CASE.toml").write_text(CASE)
    return tmp_path / "CASE.toml"


def test_engines_stand_side_by_side(case, tmp_path):
    run_case(case, tmp_path / "out")
    with (tmp_path / "out" / "engines.csv").open(newline="") as stream:
        rows = {row["engine"]: row for row in csv.DictReader(stream)}
    # all of 0.15 MeV stays in 27 ml of water, but for what leaves through the surface (range 0.28 mm of 30 mm: below 1 %)
    expected = 0.15 * 1.602176634e-13 / 27e-3
    assert float(rows["local"]["dose_Gy"]) == pytest.approx(expected, rel=1e-5)
    assert float(rows["kernel"]["dose_Gy"]) == pytest.approx(expected, rel=0.015)
    assert float(rows["monte-carlo"]["dose_Gy"]) == pytest.approx(expected, rel=0.015)
    notes = json.loads((tmp_path / "out" / "run.json").read_text())["notes"]
    assert any("Engine local beside monte-carlo" in note for note in notes)
    assert (tmp_path / "out" / "difference_kernel_Gy.nrrd").exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('["kernel", "local"]', '["analytic"]', "compare takes kernel and local"),
        ('kind = "organs"\nweights = { liver = 1 }', 'kind = "point"\nposition_mm_ras = [0, 0, 0]', "needs a source of kind"),
    ],
)
def test_what_cannot_be_compared_is_refused(case, tmp_path, capsys, old, new, message):
    case.write_text(case.read_text().replace(old, new))
    assert main(["simulate", str(case), "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
