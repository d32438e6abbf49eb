"""Several time points from plan to report: time courses with known integrals come back, with their uncertainty."""

from __future__ import annotations

import csv
import json
import math
import sys
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pydicom
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from small_patient import body_mask, grid, hounsfield, labels, write_patient

from SynthDoseLib.cli import BAD_INPUT, main
from SynthDoseLib.core import ImageVolume, SynthDoseError, VoxelGrid, VoxelPhantom
from SynthDoseLib.core.materials import Material
from SynthDoseLib.io import DicomStudy, read_volume, write_dicom_series, write_volume
from SynthDoseLib.io.dicom_files import save_dataset
from SynthDoseLib.kinetics import TimeCourseOptions, integrate_time_points
from SynthDoseLib.pipeline import read_plan
from SynthDoseLib.pipeline.activity import read_recovery, time_integrate
from SynthDoseLib.pipeline.stations import read_ct

HOURS = (4.0, 24.0, 72.0, 168.0)
LU177_S = 574300.0
HALF_LIVES = {"liver": 60.0, "spleen": 80.0, "rest_of_body": 40.0}
START = {"liver": 2e5, "spleen": 1e5, "rest_of_body": 1e4}  # Bq/ml at administration
HEAD = """
[image]
path = "ct.nrrd"
modality = "CT"
[segmentation]
path = "labels.seg.nrrd"
[therapy]
nuclide = "Lu-177"
administered_MBq = 7400
administered_at = 2024-01-31T10:00:00
[dose]
histories = 400
threads = 1
[output]
radiomics = false
scene = false
"""


def concentration(hours: float) -> np.ndarray:
    where, organs = grid(), labels(grid())
    values = np.where(body_mask(where), START["rest_of_body"] * 2 ** (-hours / HALF_LIVES["rest_of_body"]), 0.0)
    for name in ("liver", "spleen"):
        values[organs.mask(name)] = START[name] * 2 ** (-hours / HALF_LIVES[name])
    return values.astype(np.float32)


def write_course(folder: Path, extra: str = "", hours=HOURS, moved: int | None = None) -> Path:
    """Images of every time point and their plan; image number `moved` lies 15 mm further to the right."""
    tables = []
    for number, time in enumerate(hours):
        where = grid()
        if number == moved:
            matrix = where.ijk_to_ras.copy()
            matrix[0, 3] += 15.0
            where = VoxelGrid(where.shape, matrix)
        write_volume(folder / f"spect{number}.nrrd", concentration(time), where, unit="Bq/ml")
        tables.append(f'[[activity]]\npath = "spect{number}.nrrd"\nhours_after_administration = {time}\n')
        if number == moved:
            tables[-1] += "transform_ras = [1, 0, 0, -15,  0, 1, 0, 0,  0, 0, 1, 0,  0, 0, 0, 1]\n"
    return write_patient(folder, HEAD + "".join(tables) + extra)


def rows(path: Path) -> dict[str, dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as stream:
        return {row["organ"]: row for row in csv.DictReader(stream)}


def phantom() -> VoxelPhantom:
    where, organs = grid(), labels(grid())
    water = Material("water", 1.0, {"H": 0.112, "O": 0.888})
    density = np.where(hounsfield(where) > -500, 1.0, 0.001).astype(np.float32)
    return VoxelPhantom(where, np.zeros(where.shape, np.uint8), density, (water,), organs)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("course")
    plan = write_course(folder, "[kinetics]\nrelative_sigma = 0.03\nvoxelwise = true\n", moved=2)
    assert main(["run", str(plan), "--out", str(folder / "out")]) == 0
    return folder / "out"


def test_the_integrals_of_all_regions_are_those_of_their_exponentials(finished):
    found = rows(finished / "kinetics.csv")
    for organ, half_life in HALF_LIVES.items():
        row = found[organ]
        expected = START[organ] * float(row["volume_ml"]) * 1e-6 * half_life / math.log(2)
        # voxels at the rim of the water belong to the body where their CT number says so
        assert float(row["tia_MBq_h"]) == pytest.approx(expected, rel=0.02 if organ == "rest_of_body" else 1e-3)
        assert float(row["effective_half_life_h"]) == pytest.approx(half_life, rel=1e-3)
        assert row["model"] == "mono"
        assert 0.005 < float(row["tia_sigma_MBq_h"]) / float(row["tia_MBq_h"]) < 0.03
        assert float(row["residence_time_h"]) == pytest.approx(float(row["tia_MBq_h"]) / 7400, rel=1e-4)
        assert "half_life_1_h" in row["parameters"]


def test_the_map_holds_the_integral_of_every_region(finished):
    tia, where, _ = read_volume(finished / "tia_MBq_s.nrrd")
    found = rows(finished / "kinetics.csv")
    for organ in ("liver", "spleen"):
        inside = labels(where).mask(organ)
        assert float(tia[inside].sum(dtype=np.float64)) == pytest.approx(float(found[organ]["tia_MBq_s"]), rel=1e-4)


def test_tables_and_report_tell_the_whole_course(finished):
    measured = (finished / "time_activity.csv").read_text(encoding="utf-8").splitlines()
    assert measured[0] == "organ,time_h,activity_MBq,sigma_MBq,fitted_MBq,fitted_sigma_MBq"
    assert sum(line.startswith("liver,") for line in measured) == 4
    with open(finished / "registration.csv", newline="", encoding="utf-8") as stream:
        moved = list(csv.DictReader(stream))
    assert [row["method"] for row in moved] == ["reference", "none", "given", "none"]
    assert moved[2]["matrix_ras"].split()[3] == "15"
    fields = (finished / "activity_fields.csv").read_text(encoding="utf-8")
    assert "3,injected_activity_MBq,7400,MBq,plan" in fields
    html = (finished / "report.html").read_text(encoding="utf-8")
    assert "Activity over time" in html
    assert "Voxel-wise mono fits" in html
    record = json.loads((finished / "provenance.json").read_text(encoding="utf-8"))
    liver = next(entry for entry in record["kinetics"] if entry["organ"] == "liver")
    assert len(liver["covariance_of_amplitudes_and_ln_rates"]) == 2


def test_one_time_point_with_a_population_states_its_error(tmp_path):
    extra = (
        '[kinetics]\nmethod = "population"\nrest_effective_half_life_h = 40\n'
        "[kinetics.effective_half_life_h]\nliver = 60\nspleen = 80\n[kinetics.half_life_sigma_h]\nliver = 10\n"
    )
    result = time_integrate(read_plan(write_course(tmp_path, extra, hours=(24.0,))), phantom())
    liver = next(curve for curve in result.course.curves if curve.region == "liver")
    assert liver.integral.tia_MBq_h == pytest.approx(START["liver"] * liver.volume_ml * 1e-6 * 60 / math.log(2), rel=1e-4)
    assert 0.05 < liver.integral.method_error < 0.2
    assert any("error of the method" in note for note in result.tia.notes)


def test_other_methods_reach_the_same_integral_as_far_as_they_can(tmp_path):
    exact = START["liver"] * 60 / math.log(2)
    for extra, tolerance in (
        ('method = "mono"\nshared = ["half_life_1_h"]\nshared_organs = ["liver"]\n', 1e-4),
        ('method = "trapezoid"\ntail = "fitted"\n', 0.12),
    ):
        plan = read_plan(write_course(tmp_path, f"[kinetics]\n{extra}"))
        result = time_integrate(plan, phantom())
        liver = next(curve for curve in result.course.curves if curve.region == "liver")
        assert liver.integral.tia_MBq_h / (liver.volume_ml * 1e-6) == pytest.approx(exact, rel=tolerance)


def test_recovery_coefficients_of_a_file_correct_the_organs(tmp_path):
    (tmp_path / "recovery.csv").write_text(
        "volume_ml,recovery,sigma\n1,0.25,0.01\n5,0.5,0.01\n20,0.67,0.01\n100,0.82,0.01\n", encoding="utf-8"
    )
    plan = read_plan(write_course(tmp_path, '[kinetics]\nrecovery = "recovery.csv"\n'))
    curve = read_recovery(plan.kinetics.recovery, "logistic")
    result = time_integrate(plan, phantom())
    liver = next(c for c in result.course.curves if c.region == "liver")
    assert (liver.recovery, liver.recovery_sigma) == pytest.approx(curve.at(liver.volume_ml))
    assert liver.parts["recovery"] == pytest.approx(liver.recovery_sigma / liver.recovery, rel=0.1)
    plain = time_integrate(read_plan(write_course(tmp_path)), phantom())
    uncorrected = next(c for c in plain.course.curves if c.region == "liver")
    gain = liver.integral.tia_MBq_h / uncorrected.integral.tia_MBq_h
    assert 0.95 / liver.recovery < gain < 1 / liver.recovery  # less what spills in from the body around


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: text.replace("hours_after_administration = 24.0", "hours_after_administration = 4.0"), "are equal"),
        (
            lambda text: text.replace("hours_after_administration = 24.0", ""),
            r"acquired_at or hours_after_administration of time point 2",
        ),
        (lambda text: text + '[kinetics]\nmethod = "hanscheid"\n', "uses one time point; the plan has 4"),
        (lambda text: text + '[kinetics]\nmethod = "tetra"\n', "method. is 'tetra'|method is 'tetra'"),
        (lambda text: text + '[kinetics]\nshared = ["half_life_1_h"]\n', "Shared parameters need one model"),
        (lambda text: text + '[kinetics]\nmethod = "bi-uptake"\n', "5 free parameters, the data have 4"),
        (lambda text: text + '[[activity]]\ntia_MBq_s = "tia.nrrd"\n', "stands alone"),
        (lambda text: text + '[kinetics]\nrecovery = "nowhere.csv"\n', "Cannot read the recovery coefficients"),
        (lambda text: text.replace('path = "spect1.nrrd"', 'path = "spect1.nrrd"\ntransform_ras = [1, 0]'), "needs 16 numbers"),
    ],
)
def test_a_course_that_makes_no_sense_is_refused_before_anything_is_written(tmp_path, change, says):
    plan = write_course(tmp_path)
    plan.write_text(change(plan.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(SynthDoseError, match=says):
        time_integrate(read_plan(plan), phantom())
    assert main(["run", str(plan), "--out", str(tmp_path / "out")]) == BAD_INPUT
    assert not (tmp_path / "out").exists()


def test_images_and_times_have_to_match():
    image = ImageVolume(grid(), concentration(4.0), "NM", "Bq/ml")
    with pytest.raises(SynthDoseError, match="1 images and 2 times"):
        integrate_time_points([image], [4.0, 24.0], labels(grid()), physical_half_life_s=LU177_S)
    with pytest.raises(SynthDoseError, match="no time-activity model"):
        TimeCourseOptions(method="quad")


def write_dicom_course(folder: Path, zones=("", "")) -> Path:
    """CT and two SPECT as DICOM; the patient of the second lies 12 mm to the right and 8 mm lower, in a frame of its own."""
    administered = datetime(2024, 1, 31, 10)
    first = DicomStudy(started_at=administered)
    write_dicom_series(folder / "ct", ImageVolume(grid(), hounsfield(grid()), "CT", "HU", administered), first)
    matrix = grid().ijk_to_ras.copy()
    matrix[:3, 3] += (12.0, 0.0, -8.0)
    tables = ""
    for number, (hours, where, study) in enumerate(
        ((24.0, grid(), first), (120.0, VoxelGrid(grid().shape, matrix), DicomStudy(started_at=administered)))
    ):
        values = concentration(hours) * np.random.default_rng(number).normal(1, 0.02, where.shape).astype(np.float32)
        image = ImageVolume(where, values, "NM", "Bq/ml", administered + timedelta(hours=hours), {"radionuclide": "Lu-177"})
        [path] = write_dicom_series(folder / f"spect{number}", image, study)
        if zones[number]:
            dataset = pydicom.dcmread(path)
            dataset.TimezoneOffsetFromUTC = zones[number]
            save_dataset(dataset, path)
        tables += f'[[activity]]\npath = "spect{number}"\n'
    return write_patient(folder, HEAD.replace('"ct.nrrd"\nmodality = "CT"', '"ct"') + tables)


def test_a_second_scan_in_another_frame_of_reference_is_registered_by_itself(tmp_path):
    plan = read_plan(write_dicom_course(tmp_path))
    result = time_integrate(plan, phantom(), read_ct(plan.image))
    first, second = (point.registration for point in result.points)
    assert first.method == "same frame of reference"
    assert (second.method, second.accepted) == ("rigid", True)
    shift = second.transform.points([0.0, 0.0, 0.0])
    np.testing.assert_allclose(shift, (12.0, 0.0, -8.0), atol=1.0)  # a fifth of a voxel
    assert "Time point 2 was registered (rigid" in " ".join(result.tia.notes)
    liver = next(curve for curve in result.course.curves if curve.region == "liver")
    expected = START["liver"] * liver.volume_ml * 1e-6 * HALF_LIVES["liver"] / math.log(2)
    assert liver.integral.tia_MBq_h == pytest.approx(expected, rel=0.04)


def test_times_of_different_zones_are_compared_as_instants_or_refused(tmp_path):
    path = write_dicom_course(tmp_path, zones=("+0100", "+0200"))
    with pytest.raises(SynthDoseError, match=r"different time zones \(\+0100, \+0200"):
        time_integrate(read_plan(path), phantom())
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("2024-01-31T10:00:00", "2024-01-31T10:00:00+01:00"), encoding="utf-8")
    result = time_integrate(read_plan(path), phantom())
    assert [point.hours for point in result.points] == [24.0, 119.0]


def test_a_time_point_is_moved_as_its_own_ct_is(tmp_path):
    path = write_course(tmp_path, hours=(24.0, 120.0))
    matrix = grid().ijk_to_ras.copy()
    matrix[0, 3] += 10.0
    where = VoxelGrid(grid().shape, matrix)
    bone = np.where(labels(grid()).mask("liver"), 300.0, np.where(labels(grid()).mask("spleen"), -300.0, 0.0))
    inside = (hounsfield(grid()) + bone).astype(np.float32)  # something to hold on to
    write_volume(tmp_path / "ct1.nrrd", inside, where, unit="HU")
    write_volume(tmp_path / "spect1.nrrd", concentration(120.0), where, unit="Bq/ml")
    text = path.read_text(encoding="utf-8").replace('path = "spect1.nrrd"', 'path = "spect1.nrrd"\nct = "ct1.nrrd"')
    path.write_text(text, encoding="utf-8")
    ct = ImageVolume(grid(), inside, "", "HU")
    result = time_integrate(read_plan(path), phantom(), ct)
    found = result.points[1].registration
    assert found.accepted
    assert "by its CT" in found.notes[0]
    np.testing.assert_allclose(found.transform.points([0.0, 0.0, 0.0]), (10.0, 0.0, 0.0), atol=1.0)
