"""Plan keys for what no image shows: the remainder of the body, marrow by blood samples, lungs by their shunt."""

from __future__ import annotations

import csv
import math
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from small_patient import PLAN, grid, labels, write_patient

from SynthDoseLib.cli import main
from SynthDoseLib.core import SynthDoseError
from SynthDoseLib.dosimetry import marrow_dose_from_blood
from SynthDoseLib.pipeline.clinical_plan import BloodPlan, LungShuntPlan, WholeBodyPlan
from SynthDoseLib.pipeline.nuclides import emissions_of

BAD_INPUT = 2
Y90_H = 64.1
EXTRA = """
[dosimetry.whole_body]
hours = [24, 88.1]
fraction = [0.8, 0.4]
[dosimetry.blood]
hours = [1, 11, 21, 31]
MBq_ml = [0.08, 0.04, 0.02, 0.01]
ratio = 1.0
remainder_MBq_s = 1e8
remainder_s_value_Gy_MBq_s = 1e-10
[dosimetry.lung_shunt]
lung_counts = 80000
liver_counts = 20000
lung_mass_g = 800
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("beyond")
    text = PLAN.replace('"Lu-177"', '"Y-90"').replace("histories = 4000", "histories = 500") + EXTRA
    assert main(["run", str(write_patient(folder, text)), "--out", str(folder / "out")]) == 0
    return folder / "out"


def table(path):
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_the_remainder_is_what_the_body_holds_less_the_image(finished):
    rows = table(finished / "beyond_image.csv")
    outside = [row for row in rows if row["quantity"] == "activity_outside_image"]
    image_MBq = 1e5 * int(labels(grid()).mask("liver").sum()) * 0.125e-6
    assert float(outside[0]["value"]) == pytest.approx(1000 * 0.8 * 2 ** (-24 / Y90_H) - image_MBq, rel=1e-3)
    # two points make one exponential: half is left of 0.8 after 64.1 h, and half of that by decay
    half_h = Y90_H / 2
    body_h = 0.8 * 2 ** (-24 / Y90_H) * 2 ** (24 / half_h) * half_h / math.log(2)
    residence = next(row for row in rows if row["quantity"] == "residence_time_outside_image")
    assert float(residence["value"]) == pytest.approx(body_h, rel=0.01)
    assert float(residence["sigma"]) > 0


def test_marrow_by_blood_is_the_integral_of_its_samples(finished):
    rows = {row["quantity"]: row for row in table(finished / "beyond_image.csv")}
    area = 0.08 * 2 ** (1 / 10) * 10 / math.log(2)
    assert float(rows["blood_time_integrated_concentration"]["value"]) == pytest.approx(area, rel=0.01)
    emissions, _ = emissions_of("Y-90", None)
    alone = marrow_dose_from_blood(area * 3600, emissions, ratio=1.0)
    assert float(rows["red_marrow_self_dose"]["value"]) == pytest.approx(alone.self_Gy, rel=0.01)
    assert float(rows["red_marrow_remainder_dose"]["value"]) == pytest.approx(0.01)
    assert float(rows["red_marrow_dose"]["value"]) == pytest.approx(alone.self_Gy + 0.01, rel=0.01)


def test_lungs_by_their_shunt_are_compared_with_their_limits(finished):
    rows = {row["quantity"]: row for row in table(finished / "beyond_image.csv")}
    assert float(rows["lung_shunt_fraction"]["value"]) == pytest.approx(0.8)
    assert float(rows["lung_shunt_fraction"]["sigma"]) == pytest.approx(math.sqrt(0.8 * 0.2 / 1e5), rel=1e-4)
    # 49.67 Gy kg/GBq is what most centres use for Y-90 (0.93 MeV, 64.1 h)
    assert float(rows["lung_dose"]["value"]) == pytest.approx(49.67 * 0.8 / 0.8, rel=0.01)
    limits = [row for row in table(finished / "constraints.csv") if row["dose"] == "by shunt"]
    assert {row["status"] for row in limits if float(row["limit_Gy"]) <= 30} == {"fail"}
    report = (finished / "report.html").read_text(encoding="utf-8")
    assert "Lungs by their shunt" in report
    assert "outside the image" in report


def test_without_counts_the_body_holds_all_that_was_given(tmp_path):
    text = PLAN.replace("histories = 4000", "histories = 500") + "[dosimetry.whole_body]\n"
    assert main(["run", str(write_patient(tmp_path, text)), "--out", str(tmp_path / "out")]) == 0
    (row,) = table(tmp_path / "out" / "beyond_image.csv")
    assert 850 < float(row["value"]) < 1000 * 2 ** (-24 / 159.6)
    assert "no excretion" in row["basis"]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: WholeBodyPlan((1.0, 2.0), (0.9,)), "as many hours as fraction; found 2 and 1"),
        (lambda: WholeBodyPlan((1.0,), (90.0,)), "between 0 and 1; found"),
        (lambda: BloodPlan((1.0,), (0.1,), hematocrit=0.4), "two or more samples"),
        (lambda: BloodPlan((1.0, 2.0), (0.1, 0.05)), "either hematocrit or ratio"),
        (lambda: LungShuntPlan(lung_counts=9.0), "either fraction, or both"),
        (lambda: LungShuntPlan(fraction=6.0), "between 0 and 1; found 6"),
    ],
)
def test_what_makes_no_sense_is_refused(make, says):
    with pytest.raises(SynthDoseError, match=says):
        make()


def test_a_shunt_without_administered_activity_is_refused_before_the_transport(tmp_path, capsys):
    text = PLAN.replace("administered_MBq = 1000\n", "") + "[dosimetry.lung_shunt]\nfraction = 0.05\n"
    assert main(["run", str(write_patient(tmp_path, text)), "--out", str(tmp_path / "out")]) == BAD_INPUT
    assert "needs [therapy] administered_MBq" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
