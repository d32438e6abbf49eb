"""One small patient from plan to report, as a user runs it."""

import csv
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from small_patient import PLAN, grid, hounsfield, write_patient

from SynthDoseLib.cli import BAD_INPUT, INTERRUPTED, main
from SynthDoseLib.core import Cancelled, ImageVolume, ProgressReport
from SynthDoseLib.io import read_volume, write_dicom_series, write_volume
from SynthDoseLib.pipeline import read_plan
from SynthDoseLib.pipeline.batch import _organ_lines
from SynthDoseLib.pipeline.report_pictures import grey_window
from SynthDoseLib.pipeline.run import run_patient

RUN_FOLDER = {
    "plan.toml", "provenance.json", "labels.seg.nrrd", "density.nrrd", "materials.nrrd", "tia_MBq_s.nrrd", "dose_Gy.nrrd",
    "sigma_Gy.nrrd", "organ_doses.csv", "dvh.csv", "dvh_metrics.csv", "constraints.csv", "bed.csv", "report.html", "ct.nrrd",
    "activity_fields.csv", "uncertainty_budget.csv", "results.json", "phantom.json",
}  # fmt: skip
HEADER = "organ,volume_ml,mass_g,mean_dose_Gy,sigma_Gy,min_Gy,max_Gy,d95_Gy,d50_Gy,d5_Gy,total_sigma_Gy"


MORE = PLAN.replace("histories = 4000", "histories = 8000")


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """Run folder of the small patient."""
    folder = tmp_path_factory.mktemp("patient")
    assert main(["run", str(write_patient(folder, MORE)), "--out", str(folder / "out")]) == 0
    return folder / "out"


def organ_rows(folder: Path) -> dict[str, dict[str, str]]:
    with open(folder / "organ_doses.csv", newline="", encoding="utf-8") as stream:
        return {row["organ"]: row for row in csv.DictReader(stream)}


def test_the_run_folder_is_complete_and_holds_nothing_else(finished):
    assert {p.name for p in finished.iterdir()} == RUN_FOLDER


def test_the_organ_table_has_the_promised_columns(finished):
    assert (finished / "organ_doses.csv").read_text(encoding="utf-8").splitlines()[0] == HEADER


def test_the_source_organ_gets_the_energy_of_its_decays(finished):
    """Lu-177 electrons stop in the liver: its dose lies between all electron energy and all energy, less what leaves it."""
    tia, where, _ = read_volume(finished / "tia_MBq_s.nrrd")
    row = organ_rows(finished)["liver"]
    organs, _, _ = read_volume(finished / "density.nrrd")
    assert organs.shape == where.shape
    k, j, i = np.indices(where.shape)
    ras = where.to_ras(np.stack([i, j, k], axis=-1))
    liver = np.linalg.norm(ras - (25, 0, 0), axis=-1) < 20
    decays = float(tia[liver].sum(dtype=np.float64)) * 1e6
    # 147 keV of electrons and 33 keV of photons per decay (ICRP 107); a 20 mm sphere keeps under 15 % of the photons' energy
    # and loses the electrons' 1 % at its rim
    expected_Gy = decays * 0.147 * 1.602176634e-13 / (float(row["mass_g"]) / 1000)
    assert expected_Gy * 0.97 < float(row["mean_dose_Gy"]) < expected_Gy * 1.06
    assert 0 < float(row["sigma_Gy"]) < 0.03 * float(row["mean_dose_Gy"])


def test_absolute_dose_follows_the_closed_form_of_the_kinetics(finished):
    tia, where, _ = read_volume(finished / "tia_MBq_s.nrrd")
    volume = where.voxel_volume_ml
    # 1e5 Bq/ml one day after administration, effective half-life 60 h: A 2^(24/60) * 60 h / ln 2
    expected = 0.1 * volume * 2 ** (24 / 60) * 60 * 3600 / np.log(2)
    assert float(tia.max()) == pytest.approx(expected, rel=1e-3)


def test_hours_after_administration_stand_for_the_two_times(finished, tmp_path):
    plan = PLAN.replace("acquired_at = 2024-02-01T10:00:00", "hours_after_administration = 24")
    plan = plan.replace("administered_at = 2024-01-31T10:00:00", "").replace("histories = 4000", "histories = 400")
    assert main(["run", str(write_patient(tmp_path, plan)), "--out", str(tmp_path / "out")]) == 0
    first, _, _ = read_volume(finished / "tia_MBq_s.nrrd")
    second, _, _ = read_volume(tmp_path / "out" / "tia_MBq_s.nrrd")
    assert np.array_equal(first, second)


def test_energy_is_conserved(finished):
    transport = json.loads((finished / "provenance.json").read_text(encoding="utf-8"))["transport"]
    emitted = transport["energy_emitted_MeV"]
    balance = emitted - transport["energy_deposited_MeV"] - transport["energy_escaped_MeV"]
    assert abs(balance) < 1e-3 * emitted


def test_provenance_names_versions_inputs_and_times_but_no_paths(finished):
    text = (finished / "provenance.json").read_text(encoding="utf-8")
    record = json.loads(text)
    assert record["versions"]["SynthDose"]
    assert record["inputs"]["image"]["sha256"]
    assert {"read", "segment", "phantom", "activity", "transport", "report"} <= set(record["seconds"])
    assert str(finished.parent) not in text


def test_results_for_programs_are_those_of_the_tables_in_strict_json(finished):
    def refuse(constant):
        raise ValueError(constant)

    for name in ("results.json", "provenance.json"):
        record = json.loads((finished / name).read_text(encoding="utf-8"), parse_constant=refuse)
        assert record["schema" if name == "results.json" else "statement"]
    found = json.loads((finished / "results.json").read_text(encoding="utf-8"))
    for row in found["organ_doses"]:
        listed = organ_rows(finished)[row["organ"]]["mean_dose_Gy"]
        assert row["mean_dose_Gy"] is None if not listed else row["mean_dose_Gy"] == pytest.approx(float(listed), rel=1e-5)
    assert {entry["organ"] for entry in found["histograms"]} >= {"liver", "spleen"}
    assert found["uncertainty"][0]["parts"][0]["component"]


def test_the_report_says_what_it_is_and_needs_no_network(finished):
    html = (finished / "report.html").read_text(encoding="utf-8")
    assert "not for clinical use" in html
    assert "liver" in html
    assert not re.search(r"https?://|<script|<link", html)


def test_an_earlier_run_is_not_replaced_unasked(finished, capsys):
    plan = finished.parent / "plan.toml"
    before = (finished / "provenance.json").read_bytes()
    assert main(["run", str(plan), "--out", str(finished)]) == BAD_INPUT
    assert "--overwrite" in capsys.readouterr().err
    assert (finished / "provenance.json").read_bytes() == before


def test_the_users_own_folder_is_no_run_folder(tmp_path, capsys):
    plan = write_patient(tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert main(["run", str(plan), "--out", str(tmp_path), "--overwrite"]) == BAD_INPUT
    assert "other files" in capsys.readouterr().err
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_overwriting_leaves_nothing_of_the_earlier_run(tmp_path):
    plan = write_patient(tmp_path, PLAN.replace("histories = 4000", "histories = 400"))
    out = tmp_path / "out"
    assert main(["run", str(plan), "--out", str(out)]) == 0
    (out / "radiomics.csv").write_text("of an earlier plan")
    (out / "dicom").mkdir()
    (out / "dicom" / "rtdose.dcm").write_bytes(b"of an earlier plan")
    (out / "remarks.txt").write_text("the user's")
    assert main(["run", str(plan), "--out", str(out), "--overwrite"]) == 0
    assert {p.name for p in out.iterdir()} == RUN_FOLDER | {"remarks.txt"}


def test_threads_do_not_change_the_dose(finished, tmp_path):
    plan = write_patient(tmp_path, MORE.replace("threads = 1", "threads = 2"))
    assert main(["run", str(plan), "--out", str(tmp_path / "out")]) == 0
    first, _, _ = read_volume(finished / "dose_Gy.nrrd")
    second, _, _ = read_volume(tmp_path / "out" / "dose_Gy.nrrd")
    assert np.array_equal(first, second)


def test_ctrl_c_ends_with_130_and_resume_takes_over_the_transported_dose(tmp_path, capsys):
    plan = write_patient(tmp_path)
    out = tmp_path / "out"

    def stop_at_report(state: ProgressReport) -> None:
        if state.stage == "report":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_patient(read_plan(plan), out, progress=stop_at_report)
    assert (out / "organ_doses.csv").exists()
    assert not (out / "provenance.json").exists()
    (out / "radiomics.csv").write_text("of an earlier run", encoding="utf-8")
    transported: list[str] = []
    run_patient(read_plan(plan), out, resume=True, progress=lambda s: transported.append(s.message))
    assert not any("histories" in message for message in transported)
    assert {p.name for p in out.iterdir()} == RUN_FOLDER


def test_a_sigma_that_was_not_reached_is_told_on_the_terminal_and_in_every_result(tmp_path, capsys):
    text = PLAN.replace("histories = 4000", 'histories = 2000\nrelative_sigma = 0.0001\norgans = ["liver"]')
    assert main(["run", str(write_patient(tmp_path, text)), "--out", str(tmp_path / "out")]) == 0
    said = re.search(
        r"The relative sigma asked for, 0\.01 %, was not reached: liver [0-9.]+ %\.[^\n]*", capsys.readouterr().out
    )
    assert said
    record = json.loads((tmp_path / "out" / "provenance.json").read_text(encoding="utf-8"))
    assert record["notes"].count(said[0]) == 1
    assert record["transport"]["memory_forecast_GiB"] > 0.29  # 300 MiB without any voxel
    assert record["transport"]["memory_peak_GiB"] >= 0
    assert said[0] in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_a_keyboard_interrupt_becomes_exit_130(tmp_path, monkeypatch, capsys):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("SynthDoseLib.pipeline.run.run_patient", interrupted)
    assert main(["run", str(write_patient(tmp_path)), "--out", str(tmp_path / "out")]) == INTERRUPTED
    assert "--resume" in capsys.readouterr().err


def test_a_verb_without_resume_does_not_offer_it(tmp_path, monkeypatch, capsys):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("SynthDoseLib.pipeline.phantom_folder.write_phantom_folder", interrupted)
    assert main(["phantom", "ct", "labels.nrrd", "--out", str(tmp_path / "out")]) == INTERRUPTED
    assert "--resume" not in capsys.readouterr().err


@pytest.mark.parametrize("voxel_mm", [0.001, 10000.0])
def test_voxels_that_do_not_suit_the_image_are_refused(tmp_path, capsys, voxel_mm):
    plan = write_patient(tmp_path, PLAN.replace("threads = 1", f"threads = 1\nvoxel_mm = {voxel_mm}"))
    assert main(["run", str(plan), "--out", str(tmp_path / "out")]) == BAD_INPUT
    assert "shortest side" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_table_of_a_batch_keeps_names_with_commas_whole(tmp_path):
    row = '"kidney, left",1,2,3,4,5,6,7,8,9'
    (tmp_path / "organ_doses.csv").write_text(f"{HEADER}\n{row}\n", encoding="utf-8")
    assert _organ_lines(tmp_path) == [("kidney, left", "1", "2", "3", "4")]


def test_the_provenance_states_its_schema(finished):
    assert json.loads((finished / "provenance.json").read_text(encoding="utf-8"))["schema"] == 1


@pytest.mark.parametrize(
    ("old", "new"),
    [('nuclide = "Lu-177"', 'nuclide = "Y-90"'), ("threads = 1", "threads = 1\nseed = 2")],
)
def test_resume_does_not_take_the_dose_of_another_plan(tmp_path, old, new):
    def stop_at_report(state: ProgressReport) -> None:
        if state.stage == "report":
            raise KeyboardInterrupt

    assert old in PLAN
    with pytest.raises(KeyboardInterrupt):
        run_patient(read_plan(write_patient(tmp_path)), tmp_path / "out", progress=stop_at_report)
    changed = write_patient(tmp_path, PLAN.replace(old, new))
    messages: list[str] = []
    run_patient(read_plan(changed), tmp_path / "out", resume=True, progress=lambda s: messages.append(s.message))
    assert any("histories" in message for message in messages)


def test_progress_as_json_lines(tmp_path, capsys):
    assert main(["run", str(write_patient(tmp_path)), "--out", str(tmp_path / "out"), "--progress", "json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert {"stage", "fraction", "seconds_left", "message"} == set(lines[0])
    stages = list(dict.fromkeys(line["stage"] for line in lines))
    assert stages[:5] == ["read", "segment", "phantom", "activity", "results"]
    assert stages[-1] == "report"


def test_dicom_in_gives_dicom_out(tmp_path):
    import pydicom

    folder = tmp_path
    write_dicom_series(folder / "ct", ImageVolume(grid(), hounsfield(grid()), modality="CT", unit="HU"))
    plan = write_patient(folder, PLAN.replace('"ct.nrrd"', '"ct"'))
    assert main(["run", str(plan), "--out", str(folder / "out")]) == 0
    dicom = folder / "out" / "dicom"
    assert {p.name for p in dicom.iterdir()} == {"rtdose.dcm", "seg.dcm", "rtstruct.dcm"}
    rtdose = pydicom.dcmread(dicom / "rtdose.dcm")
    dose, _, _ = read_volume(folder / "out" / "dose_Gy.nrrd")
    assert rtdose.DoseUnits == "GY"
    stored = rtdose.pixel_array * float(rtdose.DoseGridScaling)
    assert np.sort(stored.ravel()) == pytest.approx(np.sort(dose.ravel()), abs=1e-4 * float(dose.max()))


def test_a_batch_goes_on_after_a_bad_patient(tmp_path, capsys):
    cohort = tmp_path / "cohort"
    for name in ("a_good", "b_bad", "c_good"):
        (cohort / name).mkdir(parents=True)
        write_patient(cohort / name)
    (cohort / "b_bad" / "ct.nrrd").write_bytes(b"NRRD0004\n")
    plan = tmp_path / "plan.toml"
    plan.write_text(PLAN, encoding="utf-8")
    assert main(["batch", str(cohort), "--plan", str(plan), "--out", str(tmp_path / "runs")]) == 1
    with open(tmp_path / "runs" / "batch.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [r["patient"] for r in rows if r["state"] == "failed"] == ["b_bad"]
    assert {r["patient"] for r in rows if r["organ"] == "liver"} == {"a_good", "c_good"}
    assert "1 failed" in capsys.readouterr().out
    with open(tmp_path / "runs" / "batch_times.csv", newline="", encoding="utf-8") as stream:
        times = list(csv.DictReader(stream))
    assert {row["patient"] for row in times} == {"a_good", "c_good"}
    assert {"read", "segment", "transport", "report"} <= {row["stage"] for row in times}
    assert all(float(row["seconds"]) >= 0 for row in times)
    stamps = {name: (tmp_path / "runs" / name / "provenance.json").stat().st_mtime_ns for name in ("a_good", "c_good")}
    main(["batch", str(cohort), "--plan", str(plan), "--out", str(tmp_path / "runs")])
    for name, stamp in stamps.items():  # the same plan: left alone
        assert (tmp_path / "runs" / name / "provenance.json").stat().st_mtime_ns == stamp
    plan.write_text(PLAN.replace("60.0", "30.0"), encoding="utf-8")
    main(["batch", str(cohort), "--plan", str(plan), "--out", str(tmp_path / "runs")])
    for name, stamp in stamps.items():  # another plan: another result
        assert (tmp_path / "runs" / name / "provenance.json").stat().st_mtime_ns > stamp


@pytest.mark.parametrize("verb", ["demo", "run", "batch", "segment", "phantom", "simulate", "check"])
def test_every_verb_explains_itself_with_an_example(verb, capsys):
    with pytest.raises(SystemExit) as stop:
        main([verb, "--help"])
    assert stop.value.code == 0
    assert f"synthdose {verb}" in capsys.readouterr().out.split("Example:")[1]


def test_the_template_is_printed(capsys):
    assert main(["run", "--template"]) == 0
    assert "schema = 1" in capsys.readouterr().out


def test_phantom_and_segment_work_on_files(tmp_path, capsys):
    write_patient(tmp_path)
    ct, labels = str(tmp_path / "ct.nrrd"), str(tmp_path / "labels.seg.nrrd")
    assert main(["phantom", ct, labels, "--out", str(tmp_path / "phantom")]) == 0
    assert "liver" in capsys.readouterr().out
    assert {p.name for p in (tmp_path / "phantom").iterdir()} == {
        "density.nrrd", "materials.nrrd", "labels.seg.nrrd", "masses.csv", "phantom.json", "quality.html",
    }  # fmt: skip
    assert main(["segment", ct, "--out", str(tmp_path / "tissue.seg.nrrd")]) == 0
    assert "soft_tissue" in capsys.readouterr().out


def test_a_transport_that_was_interrupted_goes_on_with_resume(tmp_path):
    plan = write_patient(tmp_path, PLAN.replace("histories = 4000", "histories = 300000"))
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    run_patient(read_plan(plan), straight)

    def stop_in_the_middle(state: ProgressReport) -> None:
        words = state.message.split()
        if len(words) > 1 and words[1].startswith("histories") and int(words[0]) > 50_000:
            raise Cancelled

    with pytest.raises(Cancelled):
        run_patient(read_plan(plan), broken, progress=stop_in_the_middle)
    assert (broken / ".transport-state.npz").exists()
    run_patient(read_plan(plan), broken, resume=True)
    assert {p.name for p in broken.iterdir()} == RUN_FOLDER
    for name in ("dose_Gy.nrrd", "sigma_Gy.nrrd", "organ_doses.csv"):
        assert (broken / name).read_bytes() == (straight / name).read_bytes()
    with pytest.raises(Cancelled):
        run_patient(read_plan(plan), broken, overwrite=True, progress=stop_in_the_middle)
    other = write_patient(tmp_path, PLAN.replace("histories = 4000", "histories = 3000"))
    result = run_patient(read_plan(other), broken, resume=True)
    assert any("began anew" in note for note in result.notes)
    assert {p.name for p in broken.iterdir()} == RUN_FOLDER


def test_an_mr_with_tissues_by_label_goes_from_plan_to_report(tmp_path):
    plan = PLAN.replace('modality = "CT"', 'modality = "MR"').replace(
        "[dose]\nhistories = 4000", '[phantom]\nmaterials = "labels"\n[dose]\nengine = "local"'
    )
    path = write_patient(tmp_path, plan)
    where = grid()
    bright = np.where(hounsfield(where) == 0, 300.0, 0.0) + np.abs(np.random.default_rng(1).normal(0, 5, where.shape))
    write_volume(tmp_path / "ct.nrrd", bright.astype(np.float32), where)
    assert main(["run", str(path), "--out", str(tmp_path / "out")]) == 0
    # decays per ml as in the closed form of the kinetics; 147 keV of electrons stay where they start, in liver of 1.05 g/ml
    decays_per_ml = 1e5 * 2 ** (24 / 60) * 60 * 3600 / np.log(2)
    expected_Gy = decays_per_ml * 0.147 * 1.602176634e-13 / 1.05e-3
    assert float(organ_rows(tmp_path / "out")["liver"]["mean_dose_Gy"]) == pytest.approx(expected_Gy, rel=0.02)
    record = json.loads((tmp_path / "out" / "phantom.json").read_text(encoding="utf-8"))
    assert all(organ["mean_HU"] is None for organ in record["organs"])
    shown, _, unit = read_volume(tmp_path / "out" / "ct.nrrd")
    assert unit != "HU"
    black, white, around = grey_window(ImageVolume(where, shown, modality="MR"))
    assert -10 < black < 20
    assert around == black
    assert 290 < white < 330


def test_a_ct_is_shown_in_the_window_of_soft_tissue():
    assert grey_window(ImageVolume(grid(), hounsfield(grid()), modality="CT", unit="HU")) == (-160.0, 240.0, -1000.0)
