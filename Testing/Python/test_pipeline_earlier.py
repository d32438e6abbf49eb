"""Earlier and external doses beside that of a run: as maps of other systems, and as mean doses of organs."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from small_patient import PLAN, grid, hounsfield, write_patient

from SynthDoseLib.cli import BAD_INPUT, main
from SynthDoseLib.core import DoseMap, ImageVolume, LabelMap, SynthDoseError, VoxelGrid, organ_table
from SynthDoseLib.dosimetry import OrganDoseRow, cumulative_dose
from SynthDoseLib.io import DicomStudy, read_image, read_rtdose, write_dicom_series, write_rtdose
from SynthDoseLib.io.dicom_files import save_dataset
from SynthDoseLib.pipeline.clinical_plan import PreviousPlan
from SynthDoseLib.pipeline.earlier import earlier_doses, with_earlier_means
from SynthDoseLib.pipeline.run_folder import RESULTS

SHARED = Path(__file__).parents[3] / "shared" / "data" / "images" / "rt"
GRID = VoxelGrid.from_spacing((4, 8, 8), (5.0, 5.0, 5.0))
LABELS = LabelMap(
    GRID, np.repeat(np.uint16([1, 2]), 128).reshape(GRID.shape), organ_table(["liver", "spleen"])
)  # spleen above liver
NOW = DoseMap(GRID, np.full(GRID.shape, 2.0, np.float32), np.full(GRID.shape, 0.1, np.float32))
SAME = (1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1)


def other_dose(folder: Path, where: VoxelGrid, gray: float, name: str = "external") -> Path:
    """An RTDOSE in a frame of reference of its own."""
    ct = ImageVolume(where, np.zeros(where.shape, np.float32), "CT", "HU")
    write_dicom_series(folder / f"{name}_ct", ct, DicomStudy())
    dose = DoseMap(where, np.full(where.shape, gray, np.float32), np.zeros(where.shape, np.float32))
    write_rtdose(folder / f"{name}.dcm", dose, read_image(folder / f"{name}_ct"), deidentify=True)
    return folder / f"{name}.dcm"


def test_an_external_dose_is_added_with_its_factor_and_what_it_does_not_reach_is_named(tmp_path):
    lower_half = VoxelGrid.from_spacing((2, 8, 8), (5.0, 5.0, 5.0), GRID.ijk_to_ras[:3, 3])
    path = other_dose(tmp_path, lower_half, 1.5)
    total, notes = earlier_doses([PreviousPlan(path, factor=20)], NOW, LABELS, "")
    np.testing.assert_allclose(total.dose_Gy[:2], 32.0, rtol=1e-5)
    np.testing.assert_allclose(total.dose_Gy[2:], 2.0, rtol=1e-5)
    np.testing.assert_allclose(total.sigma_Gy, 0.1, rtol=1e-5)
    said = " ".join(notes)
    assert "multiplied by 20" in said
    assert "covered are spleen 0%" in said
    assert "trilinear" in said


def test_another_frame_of_reference_needs_its_transform(tmp_path):
    path = other_dose(tmp_path, GRID, 1.0)
    with pytest.raises(SynthDoseError, match=r"another frame of reference .* Give its transform"):
        earlier_doses([PreviousPlan(path)], NOW, LABELS, "1.2.3")
    total, _ = earlier_doses([PreviousPlan(path, SAME)], NOW, LABELS, "1.2.3")
    np.testing.assert_allclose(total.dose_Gy, 3.0, rtol=1e-5)


@pytest.mark.parametrize(
    ("keyword", "value", "says"),
    [("DoseUnits", "RELATIVE", "RELATIVE"), ("DoseType", "ERROR", "difference of doses"), ("Modality", "RTPLAN", "no RTDOSE")],
)
def test_what_is_no_dose_is_refused_before_the_transport(tmp_path, capsys, keyword, value, says):
    path = other_dose(tmp_path, grid(), 1.0)
    dataset = pydicom.dcmread(path)
    setattr(dataset, keyword, value)
    save_dataset(dataset, path)
    plan = write_patient(tmp_path, PLAN + f'[[dosimetry.previous]]\npath = "{path.name}"\n')
    assert main(["run", str(plan), "--out", str(tmp_path / "out")]) == BAD_INPUT
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ('path = "nowhere.dcm"', "does not exist"),
        ("factor = 2.0", "needs either path"),
        ('path = "ct.nrrd"', "is in HU"),
        ('path = "ct.nrrd"\nfactor = -1', "factor has to be positive"),
        ("organ_mean_Gy = { pancreatitis = 3.0 }", "pancreatitis"),
        ("organ_mean_Gy = { liver = -3.0 }", "0 or more"),
        ('path = "ct.nrrd"\ntransform = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]', "HU|squeezes"),
    ],
)
def test_a_wrong_table_is_refused_before_the_transport(tmp_path, capsys, table, says):
    plan = write_patient(tmp_path, PLAN + f"[[dosimetry.previous]]\n{table}\n")
    assert main(["run", str(plan), "--out", str(tmp_path / "out")]) == BAD_INPUT
    message = capsys.readouterr().err
    assert any(part in message for part in says.split("|")), message
    assert not (tmp_path / "out").exists()


def test_a_bad_table_of_limits_is_refused_before_the_transport(tmp_path, capsys):
    (tmp_path / "limits.csv").write_text("organ,limit\nliver,3\n", encoding="utf-8")
    plan = write_patient(tmp_path, PLAN + '[dosimetry]\nconstraints = "limits.csv"\n')
    assert main(["run", str(plan), "--out", str(tmp_path / "out")]) == BAD_INPUT
    assert "limits.csv" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_mean_doses_of_organs_are_added_to_organs_and_their_groups():
    organs = (("kidney_left", 100.0, 3.0), ("kidney_right", 150.0, 4.0), ("kidneys", 250.0, 3.6), ("liver", 1500.0, 1.0))
    rows = [OrganDoseRow(name, mass, mass, dose, 0.1, dose, dose, dose, dose, dose) for name, mass, dose in organs]
    groups = {"kidneys": ("kidney_left", "kidney_right")}
    plans = [PreviousPlan(organ_mean_Gy={"kidney_left": 10.0}), PreviousPlan(organ_mean_Gy={"kidney_left": 1.0}, factor=2.0)]
    found, notes = with_earlier_means(rows, plans, groups)
    assert [row.mean_dose_Gy for row in found] == pytest.approx([15.0, 4.0, 3.6 + 12 * 100 / 250, 1.0])
    assert np.isnan([found[0].d95_Gy, found[2].max_Gy]).all()
    assert found[1].d95_Gy == 4.0
    assert "kidney_left 12 Gy" in notes[0]
    both, _ = with_earlier_means(rows, [PreviousPlan(organ_mean_Gy={"kidneys": 5.0})], groups)
    assert [row.mean_dose_Gy for row in both] == pytest.approx([8.0, 9.0, 8.6, 1.0])


def test_a_run_writes_the_sum_with_an_external_dose_per_organ_and_as_a_map(tmp_path):
    write_dicom_series(tmp_path / "ct", ImageVolume(grid(), hounsfield(grid()), "CT", "HU"))
    dose = DoseMap(grid(), np.full(grid().shape, 3.0, np.float32), np.zeros(grid().shape, np.float32))
    write_rtdose(tmp_path / "external.dcm", dose, read_image(tmp_path / "ct"), deidentify=True)
    tables = '[[dosimetry.previous]]\npath = "external.dcm"\n[[dosimetry.previous]]\norgan_mean_Gy = { liver = 7.0 }\n'
    plan = write_patient(tmp_path, PLAN.replace('"ct.nrrd"', '"ct"') + tables)
    assert main(["run", str(plan), "--out", str(tmp_path / "out")]) == 0
    rows = {}
    for name in ("organ_doses.csv", "cumulative_organ_doses.csv"):
        with open(tmp_path / "out" / name, newline="", encoding="utf-8") as stream:
            rows[name] = {row["organ"]: row for row in csv.DictReader(stream)}
    for organ, added in (("liver", 10.0), ("spleen", 3.0)):
        own, total = (float(rows[name][organ]["mean_dose_Gy"]) for name in rows)
        assert total - own == pytest.approx(added, rel=1e-4)
    total = read_image(tmp_path / "out" / "cumulative_dose_Gy.nrrd")
    own = read_image(tmp_path / "out" / "dose_Gy.nrrd")
    np.testing.assert_allclose(total.values - own.values, 3.0, rtol=1e-4)
    exported = read_rtdose(tmp_path / "out" / "dicom" / "rtdose_all_cycles.dcm")
    assert exported.grid.matches(total.grid)
    np.testing.assert_allclose(exported.values, total.values, rtol=1e-4)
    header = pydicom.dcmread(tmp_path / "out" / "dicom" / "rtdose_all_cycles.dcm")
    assert header.SeriesDescription == "SynthDose absorbed dose of all cycles"
    written = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert written <= set(RESULTS)  # so that a later run in this folder leaves none of them
    assert header.SeriesInstanceUID != pydicom.dcmread(tmp_path / "out" / "dicom" / "rtdose.dcm").SeriesInstanceUID


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data/images/rt")
def test_a_beam_of_a_real_plan_adds_up_on_a_common_grid():
    beam = read_rtdose(SHARED / "dcpt_plan06")
    dose = DoseMap(beam.grid, beam.values, np.zeros(beam.grid.shape, np.float32))
    twice, _ = cumulative_dose([dose, dose])
    np.testing.assert_allclose(twice.dose_Gy, 2 * beam.values, rtol=1e-6)
    coarse = VoxelGrid(tuple(n // 2 for n in beam.grid.shape), beam.grid.ijk_to_ras @ np.diag([2.0, 2.0, 2.0, 1.0]))
    total, notes = cumulative_dose([dose, dose], reference=coarse)
    np.testing.assert_allclose(total.dose_Gy, 2 * beam.values[::2, ::2, ::2][tuple(slice(n) for n in coarse.shape)], rtol=1e-4)
    assert len(notes) == 2
