"""The verb phantom: bad input has one clear message and leaves nothing behind; cohorts can be taken up again."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from small_patient import grid, hounsfield, labels

from SynthDoseLib.cli import BAD_INPUT, FAILURE, main
from SynthDoseLib.core import LabelMap, VoxelGrid, VoxelPhantom, organ_table
from SynthDoseLib.io import write_segmentation, write_volume
from SynthDoseLib.phantom import material_of
from SynthDoseLib.physics import get_material, mean_excitation_energy
from SynthDoseLib.pipeline.case_file import read_case
from SynthDoseLib.pipeline.phantom_exports import export_phantom
from SynthDoseLib.pipeline.quality_report import grid_and_materials


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """They take a second each, and are tested where the verdict is."""
    monkeypatch.setattr("SynthDoseLib.pipeline.quality_report.outline_pictures", lambda *_: [])


def patient(folder: Path, hu: np.ndarray | None = None, where: VoxelGrid | None = None) -> list[str]:
    folder.mkdir(exist_ok=True)
    where = where or grid()
    write_volume(folder / "ct.nrrd", hounsfield(where) if hu is None else hu, where, unit="HU")
    write_segmentation(folder / "labels.seg.nrrd", labels(grid()))
    return [str(folder / "ct.nrrd"), str(folder / "labels.seg.nrrd")]


def refused(capsys: pytest.CaptureFixture[str], arguments: list[str], out: Path) -> str:
    status = main(["phantom", *arguments, "--out", str(out)])
    message = capsys.readouterr().err.split("synthdose: ")[-1].strip()
    assert status == BAD_INPUT, message
    assert not out.exists()
    assert "Traceback" not in message
    return message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda hu: hu + 1024, "hu_offset = -1000 or -1024"),
        (lambda hu: (hu + 1000) * 1e-4, "too close together for Hounsfield units"),
        (lambda hu: np.abs(hu) / 4 + 30, "not in Hounsfield units: no value is below 0"),
        (lambda hu: np.where(hu == 0, np.nan, hu), "not finite"),
        (lambda hu: np.full_like(hu, -1000), "no body"),
        (lambda hu: np.where(np.arange(24) == 12, np.where(hu == 0, 3000, hu), hu), "Name the metal"),
    ],
)
def test_images_that_are_no_ct_in_hounsfield_units(tmp_path, capsys, change, message):
    files = patient(tmp_path / "p", change(hounsfield(grid())).astype(np.float32))
    assert message in refused(capsys, files, tmp_path / "out")


def test_an_offset_that_is_stated_makes_it_a_ct(tmp_path, capsys):
    files = patient(tmp_path / "p", hounsfield(grid()) + 1024)
    assert main(["phantom", *files, "--hu-offset", "-1024", "--out", str(tmp_path / "out")]) == 0
    assert "liver" in capsys.readouterr().out


def test_an_image_that_shows_nothing_fails_the_verdict(tmp_path):
    files = patient(tmp_path / "p", np.zeros(grid().shape, np.float32))
    assert main(["phantom", *files, "--out", str(tmp_path / "out")]) == 0
    record = json.loads((tmp_path / "out" / "phantom.json").read_text())
    assert record["verdict"] == "fail"
    assert "the image has the value 0 everywhere" in [finding["found"] for finding in record["findings"]]


def test_a_single_slice(tmp_path, capsys):
    one = VoxelGrid.from_spacing((1, 24, 24), (5.0, 5.0, 5.0))
    files = patient(tmp_path / "p", hounsfield(one), one)
    assert "single slice" in refused(capsys, files, tmp_path / "out")


def test_an_mr_image_is_refused_unless_tissues_come_from_labels(tmp_path, capsys):
    rng = np.random.default_rng(1)
    values = np.where(hounsfield(grid()) == 0, 300.0, 0.0) + np.abs(rng.normal(0, 5, grid().shape))
    files = patient(tmp_path / "p", values.astype(np.float32))
    assert "[phantom] materials" in refused(capsys, [*files, "--modality", "MR"], tmp_path / "out")
    assert "no value is below 0" in refused(capsys, files, tmp_path / "out")
    assert main(["phantom", *files, "--materials", "labels", "--modality", "MR", "--out", str(tmp_path / "out")]) == 0
    record = json.loads((tmp_path / "out" / "phantom.json").read_text())
    liver = next(row for row in record["organs"] if row["organ"] == "liver")
    assert liver["density_g_cm3"] == pytest.approx(1.05)
    assert liver["mean_HU"] is None
    bad = [*files, "--materials", "labels", "--metal-material", "gold"]
    assert "is about CT numbers" in refused(capsys, bad, tmp_path / "more")


def test_a_label_map_alone(tmp_path, capsys):
    patient(tmp_path / "p")
    only = [str(tmp_path / "p" / "labels.seg.nrrd")]
    assert "--materials labels" in refused(capsys, only, tmp_path / "out")
    assert main(["phantom", *only, "--materials", "labels", "--out", str(tmp_path / "out")]) == 0


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("-1000,0.001\n0,-1.0\n", "densities have to not decrease"),
        ("-1000,-0.5\n0,1.0\n", "positive"),
        ("0,1.0\n-1000,0.001\n", "CT numbers have to increase"),
        ("-1000,0.001\n-1000,0.002\n", "CT numbers have to increase"),
        ("-1000,air\n0,1.0\n", "line 2: density_g_cm3 has to be a number"),
    ],
)
def test_a_calibration_that_is_no_curve(tmp_path, capsys, rows, message):
    curve = tmp_path / "curve.csv"
    curve.write_text(f"hu,density_g_cm3\n{rows}")
    assert message in refused(capsys, [*patient(tmp_path / "p"), "--calibration", str(curve)], tmp_path / "out")


def test_labels_out_of_the_table_empty_and_elsewhere(tmp_path, capsys):
    files = patient(tmp_path / "p")
    table = tmp_path / "table.csv"
    table.write_text("index,name\n1,liver\n")
    write_volume(tmp_path / "map.nrrd", labels(grid()).labels, grid())
    assert "does not list: 2" in refused(
        capsys, [files[0], str(tmp_path / "map.nrrd"), "--labels", str(table)], tmp_path / "out"
    )
    again = [files[0], str(tmp_path / "map.nrrd"), "--labels", str(table), "--unlisted", "background"]
    assert main(["phantom", *again, "--out", str(tmp_path / "listed")]) == 0
    write_volume(tmp_path / "empty.nrrd", np.zeros(grid().shape, np.uint16), grid())
    assert "empty" in refused(capsys, [files[0], str(tmp_path / "empty.nrrd")], tmp_path / "out")
    far = VoxelGrid.from_spacing((10, 10, 10), (5.0,) * 3, (900, 900, 900))
    write_segmentation(tmp_path / "far.seg.nrrd", LabelMap(far, np.ones(far.shape, np.uint16), organ_table(["liver"])))
    assert "does not overlap" in refused(capsys, [files[0], str(tmp_path / "far.seg.nrrd")], tmp_path / "out")


def test_a_label_map_on_another_grid_is_taken_with_a_note(tmp_path, capsys):
    files = patient(tmp_path / "p")
    fine = VoxelGrid.from_spacing((40, 40, 40), (3.0, 3.0, 3.0))
    write_segmentation(tmp_path / "fine.seg.nrrd", labels(fine))
    assert main(["phantom", files[0], str(tmp_path / "fine.seg.nrrd"), "--out", str(tmp_path / "out")]) == 0
    assert "resampled" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--override", "liver"], "ORGAN=MATERIAL"),
        (["--override", "kidney_left=muscle"], "no organ 'kidney_left'"),
        (["--override", "liver=unobtainium"], "no material 'unobtainium'"),
        (["--voxel", "0"], "does not suit"),
        (["--height", "176"], "height_m has to be from"),
        (["--segmentation-name", "x"], "goes with --image-name"),
    ],
)
def test_options_that_make_no_sense(tmp_path, capsys, options, message):
    assert message in refused(capsys, [*patient(tmp_path / "p"), *options], tmp_path / "out")


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path, capsys):
    files = patient(tmp_path / "p")
    out = tmp_path / "mine"
    out.mkdir()
    (out / "thesis.txt").write_text("ten years of work")
    assert main(["phantom", *files, "--out", str(out), "--overwrite"]) == BAD_INPUT
    assert "other files" in capsys.readouterr().err
    assert [entry.name for entry in out.iterdir()] == ["thesis.txt"]


def test_coarser_voxels_keep_the_masses(tmp_path):
    files = patient(tmp_path / "p")
    assert main(["phantom", *files, "--out", str(tmp_path / "a")]) == 0
    assert main(["phantom", *files, "--voxel", "7.5", "--out", str(tmp_path / "b")]) == 0
    masses = []
    for name in "ab":
        with open(tmp_path / name / "masses.csv", newline="") as stream:
            masses.append({row["organ"]: float(row["mass_g"]) for row in csv.DictReader(stream)})
    assert masses[1] == pytest.approx(masses[0], rel=0.005)


def index(out: Path) -> dict[str, dict[str, str]]:
    with open(out / "cohort.csv", newline="") as stream:
        return {row["patient"]: row for row in csv.DictReader(stream)}


def test_a_cohort_has_an_index_survives_bad_patients_and_is_taken_up_again(tmp_path, capsys):
    (tmp_path / "all").mkdir()
    for name in ("anna", "bert", "carl"):
        patient(tmp_path / "all" / name)
    (tmp_path / "all" / "bert" / "ct.nrrd").write_bytes(b"broken")
    out = tmp_path / "cohort"
    command = [
        "phantom",
        str(tmp_path / "all"),
        "--image-name",
        "ct.nrrd",
        "--segmentation-name",
        "*.seg.nrrd",
        "--out",
        str(out),
    ]
    assert main(command) == FAILURE
    rows = index(out)
    assert {name: row["state"] for name, row in rows.items()} == {"anna": "finished", "bert": "failed", "carl": "finished"}
    assert "ct.nrrd" in rows["bert"]["message"]
    assert not (out / "bert").exists()
    assert len(rows["anna"]["image_sha256"]) == len(rows["anna"]["segmentation_sha256"]) == 64
    made = (out / "anna" / "phantom.json").stat().st_mtime_ns
    patient(tmp_path / "all" / "bert")
    assert main(command) == 0
    assert "2 finished before" in capsys.readouterr().out
    assert (out / "anna" / "phantom.json").stat().st_mtime_ns == made
    assert index(out)["bert"]["state"] == "finished"
    record = json.loads((out / "cohort.json").read_text())
    assert (record["schema"], len(record["patients"])) == (1, 3)
    with open(out / "cohort_masses.csv", newline="") as stream:
        assert {row["patient"] for row in csv.DictReader(stream)} == {"anna", "bert", "carl"}
    # other settings or another image make a patient anew
    assert main([*command, "--override", "liver=1.1"]) == 0
    assert (out / "anna" / "phantom.json").stat().st_mtime_ns != made
    write_segmentation(tmp_path / "all" / "carl" / "second.seg.nrrd", labels(grid()))
    assert main([*command, "--override", "liver=1.1"]) == FAILURE
    assert "one file or folder of carl" in index(out)["carl"]["message"]


def test_materials_come_back_as_they_were_written(tmp_path):
    """Waters of ICRU 37 and 90 differ only in their mean excitation energy, 75 and 78 eV."""
    where = VoxelGrid.from_spacing((4, 4, 4), (5.0, 5.0, 5.0))
    kinds = (get_material("water"), get_material("water_icru90"), replace(get_material("air"), mean_excitation_eV=90.0))
    index = np.zeros(where.shape, np.uint8)
    index[1], index[2] = 1, 2
    organs = LabelMap(where, np.where(index > 0, 0, 1), organ_table(["liver"]))
    phantom = VoxelPhantom(where, index, np.ones(where.shape, np.float32), kinds, organs)
    entries = json.loads(json.dumps(grid_and_materials(phantom)))["materials"]
    assert [entry["mean_excitation_eV"] for entry in entries] == [75.0, 78.0, 90.0]
    back = [material_of(entry) for entry in entries]
    assert [mean_excitation_energy(replace(material, name="other")) for material in back] == [75.0, 78.0, 90.0]
    for material, known in zip(back, kinds, strict=True):
        assert material.mass_fractions == pytest.approx(known.mass_fractions)
        assert (material.name, material.density_g_cm3) == (known.name, known.density_g_cm3)
    old = {key: value for key, value in entries[1].items() if key != "mean_excitation_eV"}
    assert mean_excitation_energy(material_of(old)) == 78.0
    export_phantom(tmp_path, ["case"], phantom, None, organs)
    case = read_case(tmp_path / "case" / "case.toml")
    assert [m.mean_excitation_eV for m in case.phantom.materials] == [75.0, 78.0, 90.0]
