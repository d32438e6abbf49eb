"""Activity route and dose-rate route: the same closed form where one organ does not reach the other."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from small_patient import PLAN, write_patient
from test_pipeline_time_points import write_course

from SynthDoseLib.cli import BAD_INPUT, main
from SynthDoseLib.core import Emission, ImageVolume, LabelMap, SynthDoseError, VoxelGrid, VoxelPhantom, organ_table
from SynthDoseLib.kinetics import TimeCourseOptions
from SynthDoseLib.physics import get_material
from SynthDoseLib.pipeline.dose_rate import compare_routes
from SynthDoseLib.transport import RunSettings

GRID = VoxelGrid.from_spacing((8, 8, 8), (4.0, 4.0, 4.0))
HOURS = (48.0, 4.0, 24.0, 96.0)
BETA = [Emission.line("electron", 0.2, 1.0)]
PHYSICAL_S = 160 * 3600.0
COURSE = TimeCourseOptions(models=("mono", "bi"), relative_sigma=0.02)


def phantom_and_images(half_life_h: dict[str, float]) -> tuple[VoxelPhantom, list[ImageVolume]]:
    labels = np.ones(GRID.shape, np.uint16)
    labels[4:] = 2
    density = np.where(labels == 1, 1.0, 1.2).astype(np.float32)
    organs = LabelMap(GRID, labels, organ_table(["down", "up"]))
    phantom = VoxelPhantom(GRID, np.zeros(GRID.shape, np.uint8), density, (get_material("water"),), organs)
    images = []
    for hour in HOURS:
        values = np.where(labels == 1, 5e4 * 0.5 ** (hour / half_life_h["down"]), 2e4 * 0.5 ** (hour / half_life_h["up"]))
        images.append(ImageVolume(GRID, values, "NM", "Bq/ml"))
    return phantom, images


def test_both_routes_give_the_closed_form_of_local_deposition():
    half_life_h = {"down": 60.0, "up": 35.0}
    phantom, images = phantom_and_images(half_life_h)
    rows = compare_routes(
        phantom, images, HOURS, BETA, RunSettings(relative_sigma=0.05), physical_half_life_s=PHYSICAL_S, engine="local",
        course=COURSE,
    )  # fmt: skip
    assert [row.organ for row in rows] == ["down", "up"]
    for row, start, density in zip(rows, (5e4, 2e4), (1.0, 1.2), strict=True):
        decays_per_ml = start * half_life_h[row.organ] * 3600 / np.log(2)
        expected = decays_per_ml * 0.2 * 1.602176634e-10 / density
        assert row.activity_route_Gy == pytest.approx(expected, rel=0.01)
        assert row.dose_rate_route_Gy == pytest.approx(expected, rel=0.01)
        assert abs(row.difference_percent) < 1
        assert row.note == ""


def test_bad_input_is_refused():
    phantom, images = phantom_and_images({"down": 60.0, "up": 35.0})
    with pytest.raises(SynthDoseError, match="two or more images"):
        compare_routes(phantom, images[:1], HOURS[:1], BETA, RunSettings(relative_sigma=0.05), physical_half_life_s=PHYSICAL_S)


def test_a_plan_writes_both_routes(tmp_path):
    engine = '[dose]\nengine = "local"\ndose_rate_route = true\n'
    plan = write_course(tmp_path, '[kinetics]\nmodels = ["mono"]\n')
    plan.write_text(plan.read_text().replace("[dose]\n", engine, 1))
    assert main(["run", str(plan), "--out", str(tmp_path / "out")]) == 0
    with (tmp_path / "out" / "dose_rate_route.csv").open(newline="") as stream:
        rows = {row["organ"]: row for row in csv.DictReader(stream)}
    with (tmp_path / "out" / "organ_doses.csv").open(newline="") as stream:
        doses = {row["organ"]: float(row["mean_dose_Gy"] or "nan") for row in csv.DictReader(stream)}
    for organ in ("liver", "spleen"):
        assert float(rows[organ]["activity_route_Gy"]) == pytest.approx(doses[organ], rel=1e-4)
        assert float(rows[organ]["dose_rate_route_Gy"]) == pytest.approx(doses[organ], rel=0.02)
    assert "dose-rate route" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_one_image_has_no_dose_rate_to_fit(tmp_path, capsys):
    path = write_patient(tmp_path, PLAN.replace("[dose]", "[dose]\ndose_rate_route = true"))
    assert main(["run", str(path), "--out", str(tmp_path / "out")]) == BAD_INPUT
    assert "two or more [[activity]] images; found 1" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
