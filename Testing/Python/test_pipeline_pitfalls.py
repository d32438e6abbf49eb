"""What a user meets in practice: other shells, data that changed, keys that would do nothing, headers that do not fit."""

from __future__ import annotations

import csv
import io
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from small_patient import PLAN, grid, write_patient

from SynthDoseLib.cli import BAD_INPUT, main
from SynthDoseLib.core import ImageVolume, SynthDoseError
from SynthDoseLib.io import read_image, read_volume, write_dicom_series, write_volume
from SynthDoseLib.io.dicom_files import save_dataset
from SynthDoseLib.pipeline import read_plan
from SynthDoseLib.pipeline.activity import time_integrate
from SynthDoseLib.pipeline.case import FURTHER
from SynthDoseLib.pipeline.console import open_console
from SynthDoseLib.pipeline.nuclides import emissions_of
from SynthDoseLib.pipeline.run import run_patient
from SynthDoseLib.pipeline.stations import make_phantom, read_ct, segment

LOCAL = PLAN.replace("histories = 4000\nthreads = 1", 'engine = "local"').replace("[output]\n", "[output]\ndicom = false\n")


def write_case(folder: Path, density: float = 1.0) -> Path:
    """A cube of water with an organ that sends out electrons."""
    where = grid(6)
    write_volume(folder / "organs.nrrd", np.ones(where.shape, np.uint8), where)
    text = f"""
[phantom]
materials = "organs.nrrd"
organs = "organs.nrrd"
[[phantom.material]]
index = 1
name = "water"
density_g_cm3 = {density}
mass_fractions = {{ H = 0.111894, O = 0.888106 }}
[[phantom.organ]]
index = 1
name = "all"
[source]
kind = "organs"
weights = {{ all = 1 }}
[[source.emission]]
particle = "electron"
energy_MeV = 0.5
[run]
histories = 2000
threads = 1
"""
    (folder / "case.toml").write_text(text, encoding="utf-8")
    return folder / "case.toml"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_plan_that_a_windows_shell_wrote_is_read(tmp_path, encoding):
    path = write_patient(tmp_path, LOCAL)
    path.write_text(path.read_text(encoding="utf-8") + "# größer als ½\n", encoding=encoding)
    assert read_plan(path).therapy.nuclide == "Lu-177"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('recovery = "recovery.csv"', r"recovery needs several .*population"),
        ("voxelwise = true", "voxelwise needs several"),
        ('method = "trapezoid"', r'method = "trapezoid" needs several'),
    ],
)
def test_what_one_image_with_given_half_lives_cannot_use_is_refused(tmp_path, line, says):
    path = write_patient(tmp_path, LOCAL.replace("[kinetics]\n", f"[kinetics]\n{line}\n"))
    with pytest.raises(SynthDoseError, match=says):
        read_plan(path)


def test_an_organ_that_the_patient_does_not_have_is_told(tmp_path):
    text = f"{LOCAL}\n[dosimetry]\neud_exponent = {{ liver = 2, livver = 2 }}\n"
    text += "effective_half_life_h = { spleen = 50, splen = 50 }\n"
    notes = run_patient(read_plan(write_patient(tmp_path, text)), tmp_path / "out").notes
    told = [note for note in notes if "it was not used" in note]
    assert [note.split(",")[0] for note in told] == [
        "[dosimetry.eud_exponent] names livver", "[dosimetry.effective_half_life_h] names splen",
    ]  # fmt: skip


def test_a_density_of_zero_is_not_passed_over(tmp_path):
    path = write_patient(tmp_path, f'{LOCAL}\n[phantom.overrides.liver]\nmaterial = "water"\ndensity_g_cm3 = 0\n')
    with pytest.raises(SynthDoseError, match=r"density of 'liver' has to be above 0"):
        run_patient(read_plan(path), tmp_path / "out")


def test_hours_in_another_unit_are_refused(tmp_path):
    path = write_patient(tmp_path, LOCAL.replace("acquired_at = 2024-02-01T10:00:00", "hours_after_administration = 1e9"))
    with pytest.raises(SynthDoseError, match="hours_after_administration has to be 0 or more"):
        read_plan(path)


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ({"radionuclide": "F-18"}, "was acquired as F-18, the plan says Lu-177"),
        ({"radionuclide": "Lu-177", "half_life_s": 6586.0}, "half-life of 6586 s; that of Lu-177 is 574301 s"),
        ({"radionuclide": "Lu-177", "half_life_s": 574300.0}, ""),
        ({}, ""),
    ],
)
def test_a_nuclide_of_the_header_that_is_not_the_plans_is_told(tmp_path, header, says):
    path = write_patient(tmp_path, LOCAL.replace('"spect.nrrd"\nunit = "Bq/ml"', '"pet"'))
    values, where, _ = read_volume(tmp_path / "spect.nrrd")
    write_dicom_series(tmp_path / "pet", ImageVolume(where, values, "PT", "Bq/ml", metadata=header), modality="PT")
    plan = read_plan(path)
    ct = read_ct(plan.image)
    tia = time_integrate(plan, make_phantom(plan.phantom, ct, segment(plan.segmentation, ct)), ct).tia
    told = [note for note in tia.warnings if "The activity image was acquired" in note]
    assert len(told) == bool(says)
    assert says in "".join(told)
    assert set(told) <= set(tia.notes)


@pytest.mark.parametrize(("element", "says"), [("DecayCorrection", "decay-corrected to"), ("RescaleSlope", "no rescale slope")])
def test_what_a_pet_header_lacks_is_told(tmp_path, element, says):
    values, where, _ = read_volume(write_patient(tmp_path, LOCAL).with_name("spect.nrrd"))
    for path in write_dicom_series(tmp_path / "pet", ImageVolume(where, values, "PT", "Bq/ml"), modality="PT"):
        dataset = pydicom.dcmread(path)
        if element in dataset:
            del dataset[element]
        save_dataset(dataset, path)
    assert says in " ".join(read_image(tmp_path / "pet").notes)


def test_a_batch_looks_at_data_that_changed_and_not_at_hidden_folders(tmp_path):
    cohort = tmp_path / "cohort"
    for name in ("a", "b", ".snapshots", "__MACOSX"):
        (cohort / name).mkdir(parents=True)
    plan = write_patient(cohort / "a", LOCAL)
    shutil.copytree(cohort / "a", cohort / "b", dirs_exist_ok=True)
    verb = ["batch", str(cohort), "--plan", str(shutil.copy(plan, tmp_path)), "--out", str(tmp_path / "runs")]

    def doses() -> dict[str, float]:
        assert main(verb) == 0
        with open(tmp_path / "runs" / "batch.csv", newline="", encoding="utf-8") as stream:
            return {row["patient"]: float(row["mean_dose_Gy"]) for row in csv.DictReader(stream) if row["organ"] == "liver"}

    first = doses()
    assert set(first) == {"a", "b"}
    values, where, _ = read_volume(cohort / "b" / "spect.nrrd")
    write_volume(cohort / "b" / "spect.nrrd", 2 * values, where)
    second = doses()
    assert second == pytest.approx({"a": first["a"], "b": 2 * first["b"]}, rel=1e-5)
    # tables that somebody edited, and records that were cut off, are not handed on
    table, record = tmp_path / "runs" / "a" / "organ_doses.csv", tmp_path / "runs" / "b" / "provenance.json"
    table.write_text(re.sub(r"(?m)^(liver,[^,]*,[^,]*),[^,]*", r"\1,99", table.read_text()), encoding="utf-8")
    record.write_text("[1, 2]", encoding="utf-8")
    assert doses() == second
    table.unlink()
    record.write_bytes(record.read_bytes()[:200])
    assert doses() == second


def test_a_case_leaves_nothing_of_an_earlier_one_beside_its_results(tmp_path):
    case = write_case(tmp_path)
    for name in (*FURTHER, "mine.csv"):
        (tmp_path / name).write_text("of an earlier case", encoding="utf-8")
    assert main(["simulate", str(case), "--out", str(tmp_path)]) == 0
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"case.toml", "organs.nrrd", "mine.csv", "dose_Gy.nrrd", "sigma_Gy.nrrd", "organs.csv", "run.json"}


@pytest.mark.parametrize("per_voxel", [False, True])
def test_densities_in_other_units_are_refused(tmp_path, capsys, per_voxel):
    case = write_case(tmp_path, density=1.0 if per_voxel else 1000.0)
    if per_voxel:
        write_volume(tmp_path / "density.nrrd", np.full(grid(6).shape, 1060.0, np.float32), grid(6))
        text = case.read_text(encoding="utf-8")
        case.write_text(text.replace("[phantom]\n", '[phantom]\ndensity = "density.nrrd"\n'), encoding="utf-8")
    assert main(["simulate", str(case), "--out", str(tmp_path / "out")]) == BAD_INPUT
    assert "Is it in kg/m3?" in capsys.readouterr().err


@pytest.mark.parametrize("days", [-1.0, 0.0, float("nan"), float("inf")])
def test_a_half_life_that_bounds_progeny_is_a_time(days):
    with pytest.raises(SynthDoseError, match="progeny_max_half_life_d has to be positive"):
        emissions_of("Ra-223", "all", progeny_max_half_life_d=days)


def test_no_message_fails_for_its_letters_or_for_a_closed_stream(monkeypatch):
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", None)
    open_console("text")
    sys.stdout.write("1.0 ± 0.1")
    sys.stderr.write("nobody reads this")
    out.flush()
    assert out.buffer.getvalue() == rb"1.0 \xb1 0.1"
