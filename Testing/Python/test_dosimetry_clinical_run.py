"""The clinical part of a run: limits, BED, red marrow and earlier cycles from a dose, without transport."""

import csv
import math
from dataclasses import dataclass

import numpy as np
import pytest

from SynthDoseLib.core import DoseMap, Emission, LabelMap, OrganDose, SynthDoseError, VoxelGrid, VoxelPhantom, organ_table
from SynthDoseLib.dosimetry import Contribution, DoseRate, OrganBudget
from SynthDoseLib.io import write_volume
from SynthDoseLib.kinetics import ActivityRow, TimeIntegratedActivity
from SynthDoseLib.physics import get_material
from SynthDoseLib.pipeline.clinical import assess
from SynthDoseLib.pipeline.clinical_plan import DosimetryPlan, PreviousPlan
from SynthDoseLib.pipeline.plan import SegmentationPlan

NAMES = ("kidney_left", "kidney_right", "vertebrae_L2", "tumour_1", "lung_left")
GRID = VoxelGrid.from_spacing((5, 10, 10), (5.0, 5.0, 5.0))
BETA = Emission.line("electron", 0.3, 1.0)


def case(dose_Gy=(20.0, 24.0, 1.5, 60.0, 0.5)):
    labels = np.repeat(np.arange(1, 6), 100).reshape(GRID.shape)
    density = np.repeat((1.05, 1.05, 1.2, 1.05, 0.3), 100).reshape(GRID.shape)
    materials = (get_material("soft_tissue"), get_material("spongiosa"))
    phantom = VoxelPhantom(GRID, (labels == 3).astype(np.uint8), density, materials, LabelMap(GRID, labels, organ_table(NAMES)))
    values = np.repeat(dose_Gy, 100).reshape(GRID.shape)
    dose = DoseMap(GRID, values, 0.01 * values)
    halves = {"kidney_left": 50.0, "kidney_right": 50.0, "tumour_1": 80.0}
    rows = [ActivityRow(n, None, halves.get(n), "given" if n in halves else "", 1e6, None) for n in NAMES]
    tia = TimeIntegratedActivity(GRID, np.ones(GRID.shape, np.float32), tuple(rows))
    organs = tuple(OrganDose(n, 10.0, d, 0.01 * d) for n, d in zip(NAMES, dose_Gy, strict=True))
    return phantom, dose, tia, organs


def run(folder, plan=None, emissions=(BETA,), **kwargs):
    phantom, dose, tia, organs = case(**kwargs)
    return assess(
        plan or DosimetryPlan(), folder, phantom, SegmentationPlan(), phantom.labels, dose, tia, emissions, organs, {}
    )


def table(path):
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_limits_and_bed_of_kidneys_and_tumours(tmp_path):
    found = run(tmp_path)
    bed = {row["organ"]: row for row in table(tmp_path / "bed.csv")}
    assert set(bed) == {"kidneys", "tumour_1"}
    kidneys = 22 * (1 + 22 * 2.8 / 52.8 / 2.6)
    assert float(bed["kidneys"]["bed_Gy"]) == pytest.approx(kidneys, rel=1e-4)
    assert float(bed["kidneys"]["effective_half_life_h"]) == pytest.approx(50.0, rel=1e-4)
    spread = 22 + (20**2 + 24**2) / 2 * 2.8 / 52.8 / 2.6
    assert float(bed["kidneys"]["voxel_bed_Gy"]) == pytest.approx(spread, rel=5e-3)
    assert float(bed["tumour_1"]["eqd2_Gy"]) == pytest.approx(60 * (1 + 60 * 1.5 / 81.5 / 10) / 1.2, rel=1e-4)
    limits = {(r["organ"], r["quantity"], float(r["limit_Gy"])): r for r in table(tmp_path / "constraints.csv")}
    assert limits["kidneys", "mean", 23.0]["status"] == "pass"
    assert limits["kidneys", "bed", 28.0]["status"] == "fail"
    assert limits["kidneys", "bed", 40.0]["status"] == "pass"
    assert limits["lungs", "mean", 30.0]["status"] == "pass"
    assert limits["red_marrow", "mean", 2.0]["status"] == "pass"
    assert limits["liver", "mean", 30.0]["status"] == "unknown"
    assert any("exceeded for: kidneys" in note for note in found.notes)
    assert found.effective is not None
    assert found.record()["effective_dose"]["value_Sv"] == pytest.approx(found.effective.value_Sv)


def test_total_sigmas_of_the_budget_reach_doses_bed_and_limits(tmp_path):
    def budgets(rows, groups):
        assert "kidneys" in groups
        return tuple(OrganBudget(row.organ, row.mean_dose_Gy, (Contribution("fit", 0.1),)) for row in rows if row.mass_g > 0)

    phantom, dose, tia, organs = case()
    found = assess(
        DosimetryPlan(),
        tmp_path,
        phantom,
        SegmentationPlan(),
        phantom.labels,
        dose,
        tia,
        [BETA],
        organs,
        {},
        budgets_of=budgets,
    )
    rows = {row["organ"]: row for row in table(tmp_path / "organ_doses.csv")}
    assert float(rows["kidney_left"]["sigma_Gy"]) == pytest.approx(0.2)
    assert float(rows["kidney_left"]["total_sigma_Gy"]) == pytest.approx(2.0)
    kidneys = next(row for row in found.bed if row.organ == "kidneys")
    slope = 1 + 2 * 22 * 2.8 / 52.8 / 2.6  # of D (1 + G D/(α/β))
    assert kidneys.total_sigma_Gy == pytest.approx(2.2 * slope, rel=1e-3)
    assert kidneys.eqd2_total_sigma_Gy == pytest.approx(2.2 * slope / (1 + 2 / 2.6), rel=1e-3)
    limit = next(r for _, r in found.constraints if r.constraint.organ == "kidneys" and r.constraint.limit_Gy == 23.0)
    assert limit.total_sigma_Gy == pytest.approx(2.2, rel=1e-3)
    assert "one standard uncertainty" in limit.remark
    assert {budget.organ for budget in found.budgets} >= {"kidney_left", "tumour_1"}
    assert "kidneys" not in {budget.organ for budget in found.budgets}


def test_the_uncertainty_of_alpha_beta_and_repair_is_part_of_the_total_if_the_table_states_it(tmp_path):
    silent = run(tmp_path)
    assert any("no uncertainty of alpha/beta and repair" in note and "kidneys" in note for note in silent.notes)
    own = tmp_path / "own.csv"
    columns = "organ,alpha_beta_Gy,repair_half_life_h,reference,alpha_beta_sigma_Gy,repair_half_life_sigma_h"
    own.write_text(f"{columns}\nkidneys,2.6,2.8,own,0.5,0.7\n", encoding="utf-8")
    stated = run(tmp_path, DosimetryPlan(radiobiology=own))
    before, after = (next(row for row in found.bed if row.organ == "kidneys") for found in (silent, stated))
    by_ratio = 2.8 / 52.8 * (22 / 2.6) ** 2 * 0.5
    by_repair = 22**2 / 2.6 * 50 / 52.8**2 * 0.7  # dG/dT of T/(T + 50 h)
    assert after.biology_sigma_Gy == pytest.approx(np.hypot(by_ratio, by_repair), rel=1e-3)
    assert np.isnan(before.biology_sigma_Gy)
    assert after.sigma_Gy == before.sigma_Gy
    assert not any("no uncertainty of alpha/beta" in note for note in stated.notes)


def test_red_marrow_is_a_row_of_the_organ_table_and_groups_are_not(tmp_path):
    run(tmp_path)
    rows = {row["organ"]: row for row in table(tmp_path / "organ_doses.csv")}
    assert list(rows) == [*NAMES, "red_marrow", "endosteum"]
    assert 1.5 < float(rows["red_marrow"]["mean_dose_Gy"]) < 1.65  # the dose of the bone times a ratio of stopping powers
    assert {row["organ"] for row in table(tmp_path / "dvh.csv")} == set(NAMES)


def test_indices_of_histograms_are_a_table_of_their_own(tmp_path):
    run(tmp_path, DosimetryPlan(volumes_at_Gy=(20.0, 30.0), eud_exponent={"tumour_1": -10.0}))
    rows = {row["organ"]: row for row in table(tmp_path / "dvh_metrics.csv")}
    assert float(rows["kidney_left"]["mean_Gy"]) == pytest.approx(20.0, rel=2e-3)
    assert float(rows["tumour_1"]["v30Gy_fraction"]) == 1.0
    assert float(rows["tumour_1"]["geud_Gy"]) == pytest.approx(60.0, rel=2e-3)
    assert rows["kidney_left"]["geud_Gy"] == ""
    assert float(rows["tumour_1"]["d1cc_Gy"]) == pytest.approx(60.0, rel=2e-3)


def test_earlier_cycles_are_added_where_their_transform_puts_them(tmp_path):
    earlier = np.repeat((5.0, 5.0, 0.2, 10.0, 0.1), 100).reshape(GRID.shape).astype(np.float32)
    moved = VoxelGrid(GRID.shape, np.array([[1, 0, 0, 7], [0, 1, 0, -3], [0, 0, 1, 2], [0, 0, 0, 1.0]]) @ GRID.ijk_to_ras)
    write_volume(tmp_path / "cycle1.nrrd", earlier, moved, unit="Gy")
    back = (1, 0, 0, -7, 0, 1, 0, 3, 0, 0, 1, -2, 0, 0, 0, 1)
    found = run(tmp_path, DosimetryPlan(previous=(PreviousPlan(tmp_path / "cycle1.nrrd", back),)))
    rows = {row["organ"]: row for row in table(tmp_path / "cumulative_organ_doses.csv")}
    assert float(rows["kidneys"]["mean_dose_Gy"]) == pytest.approx(27.0, rel=1e-3)
    results = {(which, r.constraint.organ, r.constraint.quantity): r.status for which, r in found.constraints}
    assert results["this cycle", "kidneys", "mean"] == "pass"
    assert results["all cycles", "kidneys", "mean"] == "fail"
    assert (tmp_path / "cumulative_dose_Gy.nrrd").exists()


def test_what_the_activity_does_not_say_can_be_given(tmp_path):
    phantom, dose, _, organs = case()
    tia = TimeIntegratedActivity(GRID, np.ones(GRID.shape, np.float32), ())
    none = assess(DosimetryPlan(), tmp_path, phantom, SegmentationPlan(), phantom.labels, dose, tia, [BETA], organs, {})
    assert none.bed == ()
    plan = DosimetryPlan(effective_half_life_h={"kidneys": 30.0})
    given = assess(plan, tmp_path, phantom, SegmentationPlan(), phantom.labels, dose, tia, [BETA], organs, {})
    assert [row.organ for row in given.bed] == ["kidneys"]
    assert given.bed[0].protraction == pytest.approx(2.8 / 32.8)


@dataclass
class Course:
    """A fitted time course of two phases with uptake, MBq."""

    rate: DoseRate
    effective_half_life_h: float

    def activity_MBq(self, times_h):
        return self.rate.at(times_h)


def test_bed_follows_a_fitted_time_course_of_several_phases(tmp_path):
    """The closed form for three exponentials; the slowest half-life alone would miss the fast phase."""
    rate = DoseRate((3.0, 1.0, -4.0), (8.0, 60.0, 0.5))
    phantom, dose, tia, organs = case()
    courses = {name: Course(rate, 60.0) for name in ("kidney_left", "kidney_right")}
    found = assess(
        DosimetryPlan(), tmp_path, phantom, SegmentationPlan(), phantom.labels, dose, tia, [BETA], organs, {}, None, courses
    )
    kidneys = {row.organ: row for row in found.bed}["kidneys"]
    assert kidneys.protraction == pytest.approx(rate.protraction(2.8), rel=1e-3)
    assert kidneys.protraction > 1.3 * DoseRate.fading(1.0, 60.0).protraction(2.8)
    assert kidneys.effective_half_life_h == 60.0


def test_alpha_emitters_get_no_effective_dose(tmp_path):
    found = run(tmp_path, emissions=(Emission.line("alpha", 6.0, 1.0), BETA))
    assert found.effective is None
    assert "alpha particles count 20 times" in found.notes[-1]


def test_alpha_components_are_weighted_with_their_rbe(tmp_path):
    phantom, dose, tia, organs = case()
    alpha = tuple(OrganDose(o.organ, o.mass_g, 0.25 * o.dose_Gy, 0.1) for o in organs)
    other = tuple(OrganDose(o.organ, o.mass_g, 0.75 * o.dose_Gy, 0.2) for o in organs)
    emissions = (Emission.line("alpha", 6.0, 1.0), BETA)
    plan = DosimetryPlan(rbe_alpha=5.0)
    components = {"alpha": alpha, "electron": other}
    found = assess(plan, tmp_path, phantom, SegmentationPlan(), phantom.labels, dose, tia, emissions, organs, {}, components)
    rows = {row["organ"]: row for row in table(tmp_path / "rbe_doses.csv")}
    assert float(rows["kidney_left"]["rbe_weighted_GyRBE"]) == pytest.approx(5 * 5.0 + 15.0)
    assert float(rows["kidney_left"]["sigma_GyRBE"]) == pytest.approx(math.hypot(0.5, 0.2), rel=1e-5)
    assert any("Gy(RBE)" in note for note in found.notes)


def test_a_distribution_of_active_marrow_of_ones_own(tmp_path):
    own = tmp_path / "child.csv"
    own.write_text("bone,share\nlumbar_spine,0.2\ncranium,0.8\n")
    found = run(tmp_path, DosimetryPlan(marrow_distribution=own))
    assert any("20% of the active marrow (distribution of the plan)" in note for note in found.notes)
    own.write_text("bone,share\nlumbar_spine,0.2\ntail,0.8\n")
    with pytest.raises(SynthDoseError, match="'tail' is no bone"):
        run(tmp_path, DosimetryPlan(marrow_distribution=own))


def test_a_wrong_plan_is_refused_by_name(tmp_path):
    with pytest.raises(SynthDoseError, match=r"sex is 'femal'\. Did you mean 'female'"):
        DosimetryPlan(sex="femal")
    with pytest.raises(SynthDoseError, match="needs 16 numbers"):
        DosimetryPlan(previous=(PreviousPlan(tmp_path / "x.nrrd", (1.0, 2.0)),))
    with pytest.raises(SynthDoseError, match="has to be positive"):
        DosimetryPlan(effective_half_life_h={"kidneys": math.inf})
    own = tmp_path / "own.csv"
    own.write_text("organ,limit_Gy\nliver,30\n")
    with pytest.raises(SynthDoseError, match="lacks the column quantity"):
        run(tmp_path, DosimetryPlan(constraints=own))
