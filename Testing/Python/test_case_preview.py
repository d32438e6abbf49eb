"""``synthdose simulate --preview``: the dose so far, while the simulation runs."""

from __future__ import annotations

import numpy as np
import pytest

from SynthDoseLib.cli import main
from SynthDoseLib.core import VoxelGrid
from SynthDoseLib.io import read_volume, write_volume
from SynthDoseLib.pipeline.case import run_case

GRID = VoxelGrid.from_spacing((8, 8, 8), (5.0, 5.0, 5.0))
CASE = """
[phantom]
materials = "materials.nrrd"
[[phantom.material]]
index = 1
name = "water"
density_g_cm3 = 1.0
mass_fractions = { H = 0.111894, O = 0.888106 }
[source]
kind = "sphere"
centre_mm_ras = [0, 0, 0]
radius_mm = 10
[[source.emission]]
particle = "electron"
energy_MeV = 0.5
[run]
max_seconds = 3
threads = 1
"""


@pytest.fixture
def case(tmp_path):
    write_volume(tmp_path / "materials.nrrd", np.ones(GRID.shape, np.uint8), GRID)
    (tmp_path / "CASE.toml").write_text(CASE)
    return tmp_path / "CASE.toml"


def test_the_dose_so_far_is_there_while_it_runs_and_gone_at_the_end(case, tmp_path):
    out, seen = tmp_path / "out", []

    def look(report):
        if (out / "preview_dose_Gy.nrrd").exists() and (out / "preview_sigma_Gy.nrrd").exists():
            dose, grid, unit = read_volume(out / "preview_dose_Gy.nrrd")
            seen.append((dose, read_volume(out / "preview_sigma_Gy.nrrd")[0], grid, unit))

    run_case(case, out, look, preview_seconds=0.3)
    final, grid, _ = read_volume(out / "dose_Gy.nrrd")
    assert seen, "no preview was seen in three seconds"
    dose, sigma, preview_grid, unit = seen[len(seen) // 2]  # the first is of few batches, and its sigma uncertain
    assert preview_grid.matches(grid)
    assert unit == "Gy"
    hot = final > 0.3 * final.max()
    assert (sigma[hot] > 0).all()
    pulls = (dose[hot] - final[hot]) / sigma[hot]  # the final dose holds the preview, so they spread less than independent ones
    assert np.abs(pulls).max() < 5
    assert not (dose == final).all()
    assert sorted(file.name for file in out.iterdir()) == ["dose_Gy.nrrd", "organs.csv", "run.json", "sigma_Gy.nrrd"]


def test_previews_need_a_time_between_them(case, tmp_path, capsys):
    assert main(["simulate", str(case), "--out", str(tmp_path / "out"), "--preview", "0"]) == 2
    assert "between previews" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
