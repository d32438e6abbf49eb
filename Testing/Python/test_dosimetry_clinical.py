"""Constraints, effective dose, blood, microspheres, S values and cycles against closed forms and published numbers."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from SynthDoseLib.core import DoseMap, Emission, SynthDoseError, VoxelGrid
from SynthDoseLib.dosimetry import (
    Constraint,
    DoseVolumeHistogram,
    OrganDoseRow,
    Spongiosa,
    SValue,
    absorbed_fractions_of,
    activity_outside,
    check_constraints,
    constraint_table,
    cumulative_dose,
    dose_per_activity,
    effective_dose,
    equivalent_dose,
    lung_dose,
    lung_shunt_fraction,
    marrow_dose_from_blood,
    marrow_energy_J,
    marrow_to_blood_ratio,
    organ_doses_by_s_values,
    partition_model,
    tissue_weights,
    with_total_sigma,
)
from SynthDoseLib.physics import decay_emissions

WEIGHTS = Path(__file__).resolve().parents[3] / "shared" / "data" / "anatomy" / "tissue_weighting_factors.json"
MEV_J = 1.602176634e-13


def organ_row(name, mean, sigma=0.1, mass=300.0):
    return OrganDoseRow(name, mass, mass, mean, sigma, mean / 2, 2 * mean, 0.6 * mean, mean, 1.5 * mean)


def test_kidneys_pass_one_limit_and_fail_another_and_unsegmented_organs_are_unknown():
    rows = [organ_row("kidneys", 24.0), organ_row("red_marrow", 1.95, 0.1)]
    found = check_constraints(constraint_table(), rows, bed_Gy={"kidneys": (36.0, 2.0, 3.0)})
    status = {(r.constraint.organ, r.constraint.quantity, r.constraint.limit_Gy): (r.status, r.remark) for r in found}
    assert status["kidneys", "mean", 23.0][0] == "fail"
    assert status["kidneys", "bed", 28.0][0] == "fail"
    assert status["kidneys", "bed", 40.0] == ("pass", "limit and value differ by less than two standard uncertainties")
    assert status["kidneys", "bed", 28.0][1] == ""
    assert status["red_marrow", "mean", 2.0] == ("pass", "limit and value differ by less than one standard uncertainty")
    assert status["lungs", "mean", 30.0] == ("unknown", "the organ was not segmented")
    assert all(r.constraint.reference and r.constraint.condition for r in found)
    no_bed = check_constraints([Constraint("kidneys", "bed", 40.0)], rows)[0]
    assert (no_bed.status, no_bed.remark) == ("unknown", "no BED was calculated")


def test_constraints_on_volumes_use_the_histogram():
    ramp = DoseVolumeHistogram("liver", 100.0, (np.arange(10000) + 0.5) / 100)
    rows = with_total_sigma([organ_row("liver", 50.0, 0.5)], {"liver": 0.1})
    limits = [Constraint("liver", q, 60.0) for q in ("D2%", "D50%", "D10cc", "max", "D500cc")]
    found = check_constraints(limits, rows, histograms=[ramp])
    assert [r.value_Gy for r in found[:4]] == pytest.approx([98.0, 50.0, 90.0, 100.0], rel=1e-3)
    assert [r.status for r in found] == ["fail", "pass", "fail", "fail", "unknown"]
    assert (found[1].sigma_Gy, found[1].total_sigma_Gy) == pytest.approx((0.5, 5.0))
    assert found[2].total_sigma_Gy == pytest.approx(9.0, rel=1e-3)
    assert found[1].remark == ""
    assert "two standard uncertainties" in check_constraints([Constraint("liver", "mean", 59.0)], rows)[0].remark


def test_own_constraints_with_an_unknown_quantity_are_refused(tmp_path):
    own = tmp_path / "own.csv"
    own.write_text("organ,quantity,limit_Gy,condition,reference\nliver,median,30,,own\n")
    with pytest.raises(SynthDoseError, match="quantity 'median' is not known"):
        constraint_table(own)


def test_tissue_weights_are_those_of_icrp_103():
    table = tissue_weights()
    own = {t.name: t.weight for t in table if not t.remainder}
    rest = [t for t in table if t.remainder]
    assert sum(own.values()) + rest[0].weight == pytest.approx(1.0)
    for sex in ("male", "female"):
        assert len([t for t in rest if t.sex in ("both", sex)]) == 13
    if WEIGHTS.is_file():
        published = json.loads(WEIGHTS.read_text(encoding="utf-8"))["ICRP103"]
        assert {name: published[name] for name in own} == own
        assert published["remainder"] == rest[0].weight
        names = {n.split("(")[0] for n in published["remainder_tissues"]}
        assert names == {t.name for t in rest}


def all_organs(dose):
    return {organ: dose for tissue in tissue_weights() for organ in tissue.organs}


def test_uniform_irradiation_has_its_dose_as_effective_dose():
    found = effective_dose(all_organs(0.02), all_organs(0.02))
    assert found.value_Sv == pytest.approx(0.02)
    assert found.weight_present == pytest.approx(1.0)
    assert found.missing == ()
    assert len(found.notes) == 1


def test_sexes_are_averaged_and_the_remainder_is_an_arithmetic_mean():
    male, female = dict.fromkeys(all_organs(0.0), 0.0), dict.fromkeys(all_organs(0.0), 0.0)
    male["prostate"], female["uterus"], female["breasts"] = 0.13, 0.26, 0.1
    found = effective_dose(male, female)
    assert found.value_Sv == pytest.approx(0.12 * (0.13 / 13 + 0.26 / 13) / 2 + 0.12 * 0.05)


def test_tissues_that_are_missing_are_named_and_not_guessed():
    found = effective_dose({"lungs": (0.01, 0.001), "liver": 0.05, "kidneys": 0.2, "spleen": 0.4})
    assert found.value_Sv == pytest.approx(0.12 * 0.01 + 0.04 * 0.05 + 0.12 * 0.3)
    assert found.sigma_Sv == pytest.approx(0.12 * 0.001)
    assert found.weight_present == pytest.approx(0.28)
    assert "colon" in found.missing
    assert "2 of its 13 tissues" in " ".join(found.notes)
    assert "not the sex-averaged" in " ".join(found.notes)
    with pytest.raises(SynthDoseError, match="None of the organs"):
        effective_dose({"tumour_1": 1.0})
    assert equivalent_dose({"alpha": 0.01, "electron": 0.3}) == pytest.approx(0.5)
    with pytest.raises(SynthDoseError, match="'neutron'"):
        equivalent_dose({"neutron": 1.0})


def test_marrow_from_blood_in_closed_form():
    """Short-ranged particles leave all their energy: D = C ratio E; the ratio of Sgouros is 0.19 / (1 - hematocrit)."""
    assert marrow_to_blood_ratio(0.40) == pytest.approx(0.19 / 0.6)
    electron = Emission.line("electron", 0.005, 1.0)
    found = marrow_dose_from_blood(100.0, [electron, Emission.line("photon", 0.2, 1.0)], hematocrit=0.45, relative_sigma=0.1)
    expected = 100e6 / 1.06 * 1000 * 0.19 / 0.55 * 0.005 * MEV_J
    assert found.self_Gy == pytest.approx(expected, rel=1e-3)
    assert found.self_sigma_Gy == pytest.approx(0.1 * found.self_Gy)
    assert math.isnan(found.remainder_Gy)
    full = marrow_dose_from_blood(100.0, [electron], ratio=1.0, remainder_MBq_s=1e7, remainder_s_value_Gy_MBq_s=2e-10)
    assert full.total_Gy == pytest.approx(found.self_Gy / (0.19 / 0.55) + 2e-3)
    with pytest.raises(SynthDoseError, match="hematocrit"):
        marrow_dose_from_blood(1.0, [electron])
    with pytest.raises(SynthDoseError, match="between 0 and 1"):
        marrow_to_blood_ratio(45.0)


def test_marrow_keeps_more_of_short_ranges():
    """Lu-177 betas (mean range 0.2 mm) stay more in the marrow than Y-90's, which share their energy with the trabeculae."""
    kept = {}
    for nuclide in ("Lu-177", "Y-90"):
        emissions = [e for e in decay_emissions(nuclide) if e.particle != "photon"]
        kept[nuclide] = marrow_energy_J(emissions) / MEV_J / sum(e.yield_per_decay * e.mean_energy_MeV for e in emissions)
    assert 1 - Spongiosa().bone_mass_fraction < kept["Y-90"] < kept["Lu-177"] < 1


def test_activity_outside_is_given_less_decay_excretion_and_what_is_seen():
    found = activity_outside(7400.0, 2000.0, 159.5, 159.5, excreted_MBq=1000.0)
    assert found.activity_MBq == pytest.approx(3700 - 1000 - 2000)
    assert found.fraction == pytest.approx(700 / 3700)
    assert found.sigma_MBq == pytest.approx(0.05 * 2700)
    counted = activity_outside(7400.0, 2000.0, 159.5, 159.5, whole_body_fraction=0.6)
    assert counted.activity_MBq == pytest.approx(0.6 * 3700 - 2000)
    assert "whole-body counts" in counted.note
    assert activity_outside(100.0, 102.0, 0.0, 10.0).activity_MBq == 0.0
    with pytest.raises(SynthDoseError, match="more than the 100 MBq that the body can hold"):
        activity_outside(100.0, 150.0, 0.0, 10.0)


def test_y90_gives_about_50_gray_kilogram_per_gigabecquerel():
    """49.67 Gy kg/GBq is what most centres use (mean beta energy 0.93 MeV, 64.1 h)."""
    assert dose_per_activity() * 1000 == pytest.approx(49.67, rel=0.005)
    assert lung_dose(3000.0, 0.1, lung_mass_g=1000.0) == pytest.approx(14.9, rel=0.005)


def test_shunt_and_partition_model_keep_the_activity():
    fraction, sigma = lung_shunt_fraction(10_000.0, 90_000.0)
    assert fraction == pytest.approx(0.1)
    counts = np.random.default_rng(3).poisson([10_000, 90_000], (20_000, 2))
    assert sigma == pytest.approx((counts[:, 0] / counts.sum(axis=1)).std(), rel=0.03)
    found = partition_model(2000.0, 0.1, 4.0, 150.0, 1250.0, residual_fraction=0.02)
    assert found.tumour_MBq + found.normal_liver_MBq + found.lung_MBq == pytest.approx(1960.0)
    assert found.lung_MBq == pytest.approx(196.0)
    concentrations = (found.tumour_MBq / 150) / (found.normal_liver_MBq / 1250)
    assert concentrations == pytest.approx(4.0)
    assert found.tumour_Gy / found.normal_liver_Gy == pytest.approx(4.0)
    assert found.lung_Gy == pytest.approx(lung_dose(1960.0, 0.1))
    with pytest.raises(SynthDoseError, match="shunt fraction"):
        lung_dose(1000.0, 1.5)
    with pytest.raises(SynthDoseError, match="tumour_mass_g"):
        partition_model(1000.0, 0.1, 3.0, 0.0, 1000.0)
    with pytest.raises(SynthDoseError, match="background"):
        lung_shunt_fraction(10, 20, background_corrected=False)


def test_absorbed_fractions_and_mird_sums():
    emissions = [Emission.line("electron", 0.4, 0.5), Emission.line("positron", 0.3, 0.5)]
    emitted = 0.5 * 0.4 + 0.5 * (0.3 + 2 * 0.51099895)
    values = [
        SValue("kidneys", "kidneys", 300.0, 0.6 * emitted * MEV_J / 0.3, 1e-16),
        SValue("kidneys", "liver", 1500.0, 1e-16, 1e-18),
        SValue("liver", "kidneys", 300.0, 2e-16, 2e-18),
        SValue("liver", "liver", 1500.0, 4e-15, 1e-17),
    ]
    fractions = absorbed_fractions_of(values, emissions)
    assert fractions[0].absorbed_fraction == pytest.approx(0.6)
    assert fractions[0].specific_per_kg == pytest.approx(2.0)
    assert fractions[0].sigma == pytest.approx(1e-16 * 0.3 / (emitted * MEV_J))
    doses = {d.organ: d for d in organ_doses_by_s_values(values, {"kidneys": (1e6, 1e5), "liver": 5e5})}
    assert doses["liver"].dose_Gy == pytest.approx(1e12 * 1e-16 + 5e11 * 4e-15)
    sigma = math.sqrt((1e11 * 1e-16) ** 2 + (1e12 * 1e-18) ** 2 + (5e11 * 1e-17) ** 2)
    assert doses["liver"].sigma_Gy == pytest.approx(sigma)
    with pytest.raises(SynthDoseError, match="source 'spleen'"):
        organ_doses_by_s_values(values, {"spleen": 1.0})
    with pytest.raises(SynthDoseError, match="no energy"):
        absorbed_fractions_of(values, [])


def smooth_dose(grid, centre):
    k, j, i = np.indices(grid.shape)
    ras = grid.to_ras(np.stack([i, j, k], axis=-1))
    dose = np.exp(-((ras - centre) ** 2).sum(axis=-1) / (2 * 12.0**2))
    return DoseMap(grid, dose.astype(np.float32), np.full(grid.shape, 0.03, np.float32))


def test_cycles_add_up_on_one_grid_and_through_a_transform():
    grid = VoxelGrid.from_spacing((30, 30, 30), (3.0, 3.0, 3.0))
    first = smooth_dose(grid, (0.0, 0.0, 0.0))
    total, notes = cumulative_dose([first, first])
    assert notes == ()
    assert total.dose_Gy == pytest.approx(2 * first.dose_Gy)
    assert total.sigma_Gy == pytest.approx(np.full(grid.shape, 0.03 * np.sqrt(2)), rel=1e-5)
    # the second cycle lay elsewhere, turned by 30 degrees and moved; its transform brings it back
    angle = np.pi / 6
    move = np.eye(4)
    move[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    move[:3, 3] = (4.0, -6.0, 5.0)
    elsewhere = np.linalg.inv(move) @ np.array([0.0, 0.0, 0.0, 1.0])
    coarser = VoxelGrid.from_spacing((36, 34, 32), (2.9, 3.1, 2.8))
    second = smooth_dose(coarser, elsewhere[:3])
    total, notes = cumulative_dose([first, second], [None, move])
    assert np.abs(total.dose_Gy - 2 * first.dose_Gy)[8:22, 8:22, 8:22].max() < 0.025  # trilinear in a peak of 12 mm sigma
    assert "Cycle 2 was resampled" in notes[0]
    integral = second.dose_Gy.sum() * coarser.voxel_volume_ml
    assert (total.dose_Gy.sum() - first.dose_Gy.sum()) * grid.voxel_volume_ml == pytest.approx(integral, rel=0.02)


def test_what_cannot_be_added_is_refused():
    grid = VoxelGrid.from_spacing((3, 3, 3), (3.0, 3.0, 3.0))
    dose = DoseMap(grid, np.ones(grid.shape), np.zeros(grid.shape), per="decay")
    with pytest.raises(SynthDoseError, match="per decay"):
        cumulative_dose([dose])
    with pytest.raises(SynthDoseError, match="no dose"):
        cumulative_dose([])
    absolute = DoseMap(grid, np.ones(grid.shape), np.zeros(grid.shape))
    with pytest.raises(SynthDoseError, match="4 x 4"):
        cumulative_dose([absolute], [np.eye(3)])
    with pytest.raises(SynthDoseError, match="as many transforms"):
        cumulative_dose([absolute], [None, None])
