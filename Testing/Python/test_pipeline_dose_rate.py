"""Activity route and dose-rate route: the same closed form where one organ does not reach the other."""

from __future__ import annotations

import numpy as np
import pytest

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
