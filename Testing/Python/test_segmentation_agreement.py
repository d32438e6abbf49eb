"""Two segmentations side by side, against closed forms of spheres; the dose of a smaller organ is larger by its mass."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from small_patient import grid, hounsfield, labels

from SynthDoseLib.cli import BAD_INPUT, main
from SynthDoseLib.core import LabelMap, Organ, SynthDoseError, VoxelGrid
from SynthDoseLib.io import write_segmentation, write_volume
from SynthDoseLib.segmentation import compare_labels

pytest.importorskip("monai")

GRID = VoxelGrid.from_spacing((60, 70, 70), (1.0, 1.0, 1.5))


def ball(radius_mm, centre=(0.0, 0.0, 0.0), where=GRID):
    k, j, i = np.meshgrid(*(np.arange(n) for n in where.shape), indexing="ij")
    return np.linalg.norm(where.to_ras(np.stack([i, j, k], axis=-1)) - centre, axis=-1) < radius_mm


def one(mask, name="liver", where=GRID) -> LabelMap:
    return LabelMap(where, mask.astype(np.uint16), (Organ(1, name),))


def test_a_ball_and_the_same_ball_moved_agree_as_geometry_says():
    r, d = 20.0, 8.0
    (row,) = compare_labels(one(ball(r)), one(ball(r, (d, 0, 0))))
    overlap = np.pi * (4 * r + d) * (2 * r - d) ** 2 / 12
    assert row.dice == pytest.approx(overlap / (4 / 3 * np.pi * r**3), abs=0.005)
    assert row.volume_a_ml == pytest.approx(4 / 3 * np.pi * r**3 / 1000, rel=0.01)
    assert abs(row.volume_difference_percent) < 0.1
    # a point at angle t is about d |cos t| from the other surface, with cos t even on a sphere: the 95th percentile is 0.95 d
    assert row.hd95_mm == pytest.approx(0.95 * d, abs=0.6)


@pytest.mark.parametrize(("tolerance", "expected"), [(0.9, 0.0), (5.1, 1.0)])  # 3 mm, and the diagonal of a voxel either way
def test_concentric_balls_are_a_constant_distance_apart(tolerance, expected):
    (row,) = compare_labels(one(ball(18.0)), one(ball(21.0)), tolerance_mm=tolerance)
    assert row.hd95_mm == pytest.approx(3.0, abs=0.6)
    assert row.surface_dice == pytest.approx(expected, abs=0.02)
    assert row.dice == pytest.approx(2 * 18**3 / (18**3 + 21**3), abs=0.01)
    assert row.volume_difference_percent == pytest.approx(100 * ((21 / 18) ** 3 - 1), abs=1.5)


def test_the_same_is_the_same_also_on_another_grid():
    (row,) = compare_labels(one(ball(20)), one(ball(20)))
    assert (row.dice, row.hd95_mm, row.surface_dice, row.volume_difference_percent) == (1.0, 0.0, 1.0, 0.0)
    fine = VoxelGrid.from_spacing((120, 100, 100), (0.7, 0.7, 0.75))
    (row,) = compare_labels(one(ball(20)), one(ball(20, where=fine), where=fine))
    assert row.dice > 0.98
    assert row.hd95_mm < 1.6


def test_what_one_side_lacks_is_a_zero_and_not_left_out():
    a = LabelMap(GRID, ball(10).astype(np.uint16), (Organ(1, "liver"), Organ(2, "spleen")))
    rows = {row.organ: row for row in compare_labels(a, one(ball(10), "kidney_left"))}
    assert set(rows) == {"liver", "kidney_left"}
    assert rows["liver"].dice == 0
    assert np.isnan(rows["liver"].hd95_mm)
    with pytest.raises(SynthDoseError, match="Neither segmentation has 'heart'"):
        compare_labels(a, a, ["heart"])


def test_groups_are_joined():
    left, right = ball(8, (-20, 0, 0)), ball(8, (20, 0, 0))
    both = LabelMap(GRID, (left + 2 * right).astype(np.uint16), (Organ(1, "kidney_left"), Organ(2, "kidney_right")))
    (row,) = compare_labels(one(left | right, "kidneys"), both, ["kidneys"])
    assert row.dice == 1.0


def run(tmp_path: Path, capsys, *options) -> tuple[int, list[dict], str]:
    out = tmp_path / "agreement.csv"
    status = main(
        ["compare", str(tmp_path / "a.seg.nrrd"), str(tmp_path / "b.seg.nrrd"), "--out", str(out), *map(str, options)]
    )
    printed = capsys.readouterr()
    if status:
        assert not out.exists()
        return status, [], printed.err.split("synthdose: ")[-1].strip()
    with open(out, newline="", encoding="utf-8") as stream:
        return status, list(csv.DictReader(stream)), printed.out


def write_pair(tmp_path: Path) -> tuple[float, float]:
    """Write labels whose livers are balls of two sizes in a water cylinder; return their voxels."""
    where = grid(size=24, spacing_mm=5.0)
    first = labels(where)
    larger = np.array(first.labels)
    larger[ball(25, (25, 0, 0), where) & (larger == 0)] = 1
    write_segmentation(tmp_path / "a.seg.nrrd", first)
    write_segmentation(tmp_path / "b.seg.nrrd", LabelMap(where, larger, first.organs))
    write_volume(tmp_path / "ct.nrrd", hounsfield(where), where, unit="HU")
    return float((first.labels == 1).sum()), float((larger == 1).sum())


@pytest.mark.parametrize("image", [True, False])
def test_alpha_particles_stay_where_they_are_so_that_dose_goes_with_the_inverse_of_mass(tmp_path, capsys, image):
    small, large = write_pair(tmp_path)
    options = ("--image", tmp_path / "ct.nrrd") if image else ()
    status, rows, out = run(
        tmp_path, capsys, "--nuclide", "Po-210", "--progeny", "none", "--source", "liver", "--threads", 1, *options
    )
    assert status == 0
    liver = next(row for row in rows if row["organ"] == "liver")
    expected, sigma = 100 * (small / large - 1), float(liver["dose_difference_sigma_percent"])
    # alphas of 5.3 MeV travel 0.04 mm: less than 0.2 % of the energy leaves a ball of 20 mm
    assert float(liver["dose_difference_percent"]) == pytest.approx(expected, abs=4 * sigma + 0.2)
    assert 0 < sigma < 1.5
    assert float(liver["volume_difference_percent"]) == pytest.approx(100 * (large / small - 1), abs=1e-3)
    record = json.loads((tmp_path / "agreement.json").read_text(encoding="utf-8"))
    assert record["organs"][0]["organ"] == "liver"
    assert ("reference tissue" in out) is not image


def test_a_phantom_folder_can_be_compared_with_itself(tmp_path, capsys):
    write_pair(tmp_path)
    assert main(["phantom", str(tmp_path / "ct.nrrd"), str(tmp_path / "a.seg.nrrd"), "--out", str(tmp_path / "phantom")]) == 0
    (tmp_path / "a.seg.nrrd").unlink()
    (tmp_path / "phantom").rename(tmp_path / "a.seg.nrrd")
    status, rows, _ = run(tmp_path, capsys, "--organs", "spleen")
    assert status == 0
    assert [row["organ"] for row in rows] == ["spleen"]
    assert float(rows[0]["dice"]) == 1.0
    assert rows[0]["dose_difference_percent"] == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--nuclide", "Lu-178"), "Lu-177"),
        (("--nuclide", "Lu-177", "--source", "heart"), "heart"),
        (("--nuclide", "Lu-177", "--source", "liver=much"), "ORGAN=DECAYS"),
        (("--nuclide", "Lu-177", "--source", "pancreas"), "pancreas"),
        (("--organs", "heart"), "Neither segmentation has 'heart'"),
        (("--tolerance", "-1"), "tolerance"),
        (("--labels", "nonsense"), "neither a known label table"),
        (("--image", "nothing.nrrd"), "nothing.nrrd"),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path, capsys, options, message):
    write_pair(tmp_path)
    status, _, found = run(tmp_path, capsys, *options)
    assert status == BAD_INPUT
    assert message in found
