"""Gas in a stomach that a blurred image shows active: a whole run, runs that are taken over, and single cases."""

from __future__ import annotations

import csv
import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from small_patient import PLAN, grid, hounsfield, labels, write_patient

from SynthDoseLib.cli import main
from SynthDoseLib.core import ImageVolume, LabelMap, SynthDoseError, organ_table
from SynthDoseLib.io import read_rtdose, read_volume, write_dicom_series, write_segmentation, write_volume
from SynthDoseLib.pipeline import read_plan, run, run_report
from SynthDoseLib.pipeline.case import read_case, run_case
from SynthDoseLib.pipeline.dicom_export import export_run
from SynthDoseLib.pipeline.run import run_patient
from SynthDoseLib.pipeline.stage_store import CALCULATED, TAKEN_OVER

LOCAL = PLAN.replace("histories = 4000", 'engine = "local"')
BUBBLE_MM = 8.0


def write_gassy_patient(folder: Path, plan: str = LOCAL) -> Path:
    """The small patient with a bubble of gas in the liver, which the image shows as active as the liver."""
    path, where = write_patient(folder, plan), grid()
    write_volume(folder / "ct.nrrd", np.where(bubble(), -1000.0, hounsfield(where)).astype(np.float32), where, unit="HU")
    return path


def bubble() -> np.ndarray:
    where = grid()
    k, j, i = np.indices(where.shape)
    return np.linalg.norm(where.to_ras(np.stack([i, j, k], axis=-1)) - (25, 0, 0), axis=-1) < BUBBLE_MM


@pytest.fixture
def quick_report(monkeypatch) -> None:
    """No pictures, which take most of the time of these runs."""
    for name in ("time_pictures", "outline_pictures"):
        monkeypatch.setattr(run_report, name, lambda *_, **__: ())
    monkeypatch.setattr(run, "write_report", lambda path, contents: path.write_text(contents.title, encoding="utf-8"))


def of_liver(folder: Path, table: str) -> dict[str, str]:
    with open(folder / table, newline="", encoding="utf-8") as stream:
        return next(row for row in csv.DictReader(stream) if row["organ"] == "liver")


@pytest.mark.usefixtures("quick_report")
def test_a_run_leaves_no_activity_in_gas_and_says_how_much_it_moved_and_keeps_it_if_told(tmp_path):
    plan = read_plan(write_gassy_patient(tmp_path))
    keep = dataclasses.replace(plan, kinetics=dataclasses.replace(plan.kinetics, activity_in_gas="keep"))
    tia, dose, mean, highest = {}, {}, {}, {}
    for name, wanted in (("move", plan), ("keep", keep)):
        result = run_patient(wanted, tmp_path / name, reuse=tmp_path / "store")
        tia[name] = np.asarray(read_volume(tmp_path / name / "tia_MBq_s.nrrd")[0], np.float64)
        dose[name] = np.asarray(read_volume(tmp_path / name / "dose_Gy.nrrd")[0])
        mean[name] = float(of_liver(tmp_path / name, "organ_doses.csv")["mean_dose_Gy"])
        highest[name] = float(of_liver(tmp_path / name, "dvh_metrics.csv")["max_Gy"])
        said = [note for note in result.notes if "was seen in gas" in note]
        assert len(said) == (name == "move")
        # the setting decides the activity and what follows from it, and nothing before
        assert result.stages["phantom"] == (CALCULATED if name == "move" else TAKEN_OVER)
        assert result.stages["transport"] == result.stages["results"] == CALCULATED
    gas = bubble()
    share = tia["keep"][gas].sum() / tia["keep"].sum()
    assert tia["move"][gas].max() == 0 < tia["keep"][gas].min()
    assert tia["move"].sum() == pytest.approx(tia["keep"].sum(), rel=1e-5)
    assert float(said_share(tmp_path / "move")) == pytest.approx(100 * share, abs=0.006)
    assert gas.ravel()[np.argmax(dose["keep"])]
    assert not gas.ravel()[np.argmax(dose["move"])]
    assert mean["move"] == pytest.approx(mean["keep"], rel=1e-4)  # local deposition: the organ's decays over its mass
    assert highest["move"] == pytest.approx(dose["move"][~gas].max(), rel=1e-4)
    again = run_patient(plan, tmp_path / "again", reuse=tmp_path / "store")
    assert again.stages["transport"] == TAKEN_OVER


def said_share(folder: Path) -> str:
    notes = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))["notes"]
    return next(note for note in notes if "was seen in gas" in note).partition("%")[0]


@pytest.mark.usefixtures("quick_report")
def test_time_courses_are_calculated_anew_when_the_setting_changes(tmp_path):
    second = '[[activity]]\npath = "spect.nrrd"\nunit = "Bq/ml"\nacquired_at = 2024-02-04T10:00:00\n[kinetics]'
    plan = read_plan(write_gassy_patient(tmp_path, LOCAL.replace("[kinetics]", second)))
    first = run_patient(plan, tmp_path / "move", reuse=tmp_path / "store")
    assert first.stages["activity"] == CALCULATED
    keep = dataclasses.replace(plan, kinetics=dataclasses.replace(plan.kinetics, activity_in_gas="keep"))
    assert run_patient(keep, tmp_path / "keep", reuse=tmp_path / "store").stages["activity"] == CALCULATED
    assert run_patient(plan, tmp_path / "same", reuse=tmp_path / "store").stages["activity"] == TAKEN_OVER
    assert read_volume(tmp_path / "move" / "tia_MBq_s.nrrd")[0][bubble()].max() == 0
    assert read_volume(tmp_path / "keep" / "tia_MBq_s.nrrd")[0][bubble()].min() > 0


def test_numbers_per_organ_go_to_tissue_alone(tmp_path):
    start, end = LOCAL.index("[[activity]]"), LOCAL.index("[kinetics]")
    rows = '[[organ_activity]]\norgan = "liver"\ntia_MBq_s = 1.0e6\n'
    plan = read_plan(write_gassy_patient(tmp_path, LOCAL[:start] + rows + LOCAL[end:]))
    run_patient(plan, tmp_path / "run")
    tia = np.asarray(read_volume(tmp_path / "run" / "tia_MBq_s.nrrd")[0], np.float64)
    assert tia[bubble()].max() == 0
    assert tia.sum() == pytest.approx(1e6, rel=1e-5)


def test_a_plan_with_another_word_is_refused(tmp_path, capsys):
    path = write_gassy_patient(tmp_path, LOCAL.replace("[kinetics]", '[kinetics]\nactivity_in_gas = "drop"'))
    assert main(["run", str(path), "--out", str(tmp_path / "run")]) != 0
    assert "Allowed: move, keep" in capsys.readouterr().err


def write_case(folder: Path, key: str = "") -> Path:
    where, organs = grid(), labels(grid())
    body = hounsfield(where) > -500
    materials = np.where(bubble(), 2, np.where(body, 1, 0)).astype(np.uint8)
    write_volume(folder / "materials.nrrd", materials, where)
    write_segmentation(folder / "organs.seg.nrrd", LabelMap(where, organs.labels, organ_table(["liver", "spleen"])))
    write_volume(folder / "organs.nrrd", organs.labels.astype(np.uint8), where)
    write_volume(folder / "source.nrrd", (organs.labels == 1).astype(np.float32), where)
    water = "mass_fractions = { H = 0.111894, O = 0.888106 }"
    air = "mass_fractions = { N = 0.76, O = 0.24 }"
    entries = [(0, "vacuum", 1e-6, air), (1, "water", 1.0, water), (2, "air", 0.0012, air)]
    table = "".join(
        f'[[phantom.material]]\nindex = {n}\nname = "{name}"\ndensity_g_cm3 = {density}\n{of}\n'
        for n, name, density, of in entries
    )
    text = f"""schema = 1
[phantom]
materials = "materials.nrrd"
organs = "organs.nrrd"
{table}[[phantom.organ]]
index = 1
name = "liver"
[[phantom.organ]]
index = 2
name = "spleen"
[source]
kind = "volume"
distribution = "source.nrrd"
{key}
[[source.emission]]
particle = "electron"
energy_MeV = 0.02
[run]
histories = 20000
threads = 1
"""
    path = folder / "CASE.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_case_keeps_activity_where_its_file_has_it_and_says_so_or_moves_it(tmp_path):
    share = bubble().sum() / (labels(grid()).labels == 1).sum()
    kept = read_case(write_case(tmp_path))
    assert any(note.startswith(f"{share:.2%} of the activity lies in gas") for note in kept.notes)
    assert kept.source.weights[bubble()].min() > 0
    moved = read_case(write_case(tmp_path, 'activity_in_gas = "move"'))
    assert moved.source.weights[bubble()].max() == 0
    assert moved.source.weights.sum() == pytest.approx(kept.source.weights.sum(), rel=1e-5)
    assert not any("lies in gas" in note for note in moved.notes)
    in_gas = [
        float(run_case(write_case(tmp_path, key), tmp_path / "out").dose.dose_Gy[bubble()].mean())
        for key in ("", 'activity_in_gas = "move"')
    ]
    assert in_gas[0] > 100 * in_gas[1]  # of the order of the densities' ratio, 833: what electrons from tissue give is left
    with pytest.raises(SynthDoseError, match="Allowed: move, keep"):
        read_case(write_case(tmp_path, 'activity_in_gas = "drop"'))


def test_rtdose_holds_nothing_in_gas_and_says_so_and_the_map_of_the_run_keeps_it(tmp_path):
    where = grid()
    plan = LOCAL.replace('"ct.nrrd"', '"ct"')
    path = write_gassy_patient(tmp_path, plan.replace("[kinetics]", '[kinetics]\nactivity_in_gas = "keep"'))
    hu = np.where(bubble(), -1000.0, hounsfield(where)).astype(np.float32)
    write_dicom_series(tmp_path / "ct", ImageVolume(where, hu, "CT", "HU"))
    out = tmp_path / "out"
    result = run_patient(read_plan(path), out)
    kept, there, _ = read_volume(out / "dose_Gy.nrrd")
    gas = np.asarray(read_volume(out / "density.nrrd")[0] < 0.1) & np.asarray(kept > 0)
    assert gas.any()
    assert kept[gas].max() > 100 * np.median(kept[kept > 0])  # a thousandth of the mass
    assert any("ml of the body are gas" in note and "RTDOSE holds 0" in note for note in result.notes)
    export_run(out, tmp_path / "exported")
    for written in (out / "dicom" / "rtdose.dcm", tmp_path / "exported" / "rtdose.dcm"):
        read = read_rtdose(written)
        assert read.grid.matches(there, 1e-3)
        np.testing.assert_allclose(read.values, np.where(gas, 0, kept), atol=1e-6 * float(kept[~gas].max()))
        assert pydicom.dcmread(written).DoseComment == "Research software, not for clinical use; 0 in gas"
