import csv
import math

import numpy as np
import pytest

from SynthDoseLib.core import DoseMap, LabelMap, Material, OrganDose, SynthDoseError, VoxelGrid, VoxelPhantom, organ_table
from SynthDoseLib.dosimetry import (
    DoseVolumeHistogram,
    absolute_dose,
    absolute_organ_doses,
    dose_volume_histogram,
    dose_volume_histograms,
    noise_notes,
    organ_dose_table,
    write_dvh_csv,
    write_organ_doses_csv,
)

WATER = Material("water", 1.0, {"H": 0.1119, "O": 0.8881})


def phantom_with_two_organs(density=1.0):
    """A column of 100 voxels of 2 ml: left half organ 1, right half organ 2; a third organ is empty."""
    grid = VoxelGrid.from_spacing((1, 1, 100), (20.0, 10.0, 10.0))
    labels = np.repeat([1, 2], 50).reshape(grid.shape)
    organs = organ_table(["kidney_left", "kidney_right", "spleen"])
    rho = np.full(grid.shape, density, np.float32) if np.isscalar(density) else np.asarray(density, np.float32)
    return VoxelPhantom(grid, np.zeros(grid.shape, np.uint8), rho, (WATER,), LabelMap(grid, labels, organs))


def dose_on(phantom, dose, sigma=0.0, per=""):
    shape = phantom.grid.shape
    return DoseMap(phantom.grid, np.broadcast_to(dose, shape).copy(), np.full(shape, sigma), per)


def test_linear_gradient_has_the_textbook_histogram():
    phantom = phantom_with_two_organs()
    dose = dose_on(phantom, (np.arange(100) % 50 + 0.5) / 50)  # voxel centres of a ramp from 0 to 1 Gy in each organ
    dvh = dose_volume_histogram(dose, phantom.labels, "kidney_left")
    assert dvh.volume_ml == pytest.approx(100.0)
    levels = np.linspace(0.02, 0.98, 13)
    assert np.allclose(dvh.volume_fraction_at(levels), 1 - levels, atol=1e-6)
    assert np.allclose(dvh.dose_at(levels), 1 - levels, atol=1e-6)
    row = organ_dose_table(dose, phantom)[0]
    assert (row.d95_Gy, row.d50_Gy, row.d5_Gy) == pytest.approx((0.05, 0.5, 0.95), abs=1e-6)
    assert (row.min_Gy, row.max_Gy, row.mean_dose_Gy) == pytest.approx((0.01, 0.99, 0.5), abs=1e-6)


def test_uniform_dose_is_a_step():
    dvh = DoseVolumeHistogram("liver", 1.0, np.full(7, 2.0))
    assert dvh.volume_fraction_at([0.0, 1.99, 2.0, 2.0001]).tolist()[::3] == [1.0, 0.0]
    assert dvh.volume_fraction_at(2.0) == 1.0
    assert dvh.dose_at([0.0, 0.05, 0.5, 0.95, 1.0]).tolist() == [2.0] * 5


def test_a_dose_shared_by_half_of_the_organ_makes_a_plateau():
    dvh = DoseVolumeHistogram("liver", 1.0, np.repeat([1.0, 3.0], 50))
    assert dvh.volume_fraction_at([1.0001, 2.0, 2.9999]) == pytest.approx([0.5, 0.5, 0.5], abs=0.011)


def test_mean_dose_is_energy_over_mass_not_the_mean_of_voxels():
    density = np.where(np.arange(100) % 2, 3.0, 1.0).reshape(1, 1, 100)
    phantom = phantom_with_two_organs(density)
    dose = dose_on(phantom, np.where(np.arange(100) % 2, 4.0, 2.0))
    row = organ_dose_table(dose, phantom)[0]
    assert row.mass_g == pytest.approx(200.0)  # 50 voxels of 2 ml, 2 g/ml on average
    assert row.mean_dose_Gy == pytest.approx((3 * 4.0 + 1 * 2.0) / 4)


def test_sigma_comes_from_the_engine_and_a_group_takes_the_upper_bound():
    phantom = phantom_with_two_organs(np.repeat([1.0, 3.0], 50).reshape(1, 1, 100))
    dose = dose_on(phantom, np.repeat([1.0, 2.0], 50), sigma=0.5)
    engine = (OrganDose("kidney_left", 100.0, 1.0, 0.01), OrganDose("kidney_right", 300.0, 2.0, 0.02))
    groups = {"kidneys": ("kidney_left", "kidney_right"), "lungs": ("lung_left",)}
    rows = {row.organ: row for row in organ_dose_table(dose, phantom, engine, groups=groups)}
    assert list(rows) == ["kidney_left", "kidney_right", "spleen", "kidneys"]
    assert rows["kidney_left"].sigma_Gy == 0.01
    assert rows["kidneys"].mean_dose_Gy == pytest.approx((100 * 1.0 + 300 * 2.0) / 400)
    assert rows["kidneys"].sigma_Gy == pytest.approx((100 * 0.01 + 300 * 0.02) / 400)
    assert rows["kidneys"].volume_ml == pytest.approx(200.0)
    assert rows["spleen"].volume_ml == 0.0
    assert math.isnan(rows["spleen"].mean_dose_Gy)
    assert math.isnan(organ_dose_table(dose, phantom)[0].sigma_Gy)
    scored = organ_dose_table(dose, phantom, {"kidneys": 0.003}, groups=groups)[-1]
    assert scored.sigma_Gy == 0.003


def test_decays_scale_dose_and_sigma_alike():
    phantom = phantom_with_two_organs()
    per_decay = dose_on(phantom, 3e-16, sigma=1.5e-17, per="decay")
    dose = absolute_dose(per_decay, 1e15)
    assert dose.per == ""
    assert np.allclose(dose.dose_Gy, 0.3)
    assert np.allclose(dose.sigma_Gy, 0.015)
    organ = absolute_organ_doses([OrganDose("liver", 1.0, 3e-16, 1e-18)], 1e15)[0]
    assert (organ.dose_Gy, organ.sigma_Gy, organ.mass_g) == pytest.approx((0.3, 0.001, 1.0))
    with pytest.raises(SynthDoseError, match="per decay"):
        absolute_dose(dose, 1e15)
    with pytest.raises(SynthDoseError, match="number of decays"):
        absolute_dose(per_decay, math.nan)


def test_noise_that_widens_the_histogram_is_said():
    phantom = phantom_with_two_organs()
    noisy = 1 + 0.1 * np.random.default_rng(1).standard_normal(100)
    assert "kidney_left" in noise_notes(dose_on(phantom, noisy, sigma=0.1), phantom)[0]
    assert noise_notes(dose_on(phantom, np.linspace(1, 2, 100), sigma=0.001), phantom) == ()


def test_tables_have_the_promised_headers(tmp_path):
    phantom = phantom_with_two_organs()
    dose = dose_on(phantom, np.linspace(0.1, 1, 100))
    write_organ_doses_csv(tmp_path / "organ_doses.csv", organ_dose_table(dose, phantom))
    with open(tmp_path / "organ_doses.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    header = "organ,volume_ml,mass_g,mean_dose_Gy,sigma_Gy,min_Gy,max_Gy,d95_Gy,d50_Gy,d5_Gy,total_sigma_Gy"
    assert ",".join(rows[0]) == header
    assert rows[2] == dict.fromkeys(header.split(","), "") | {"organ": "spleen", "volume_ml": "0", "mass_g": "0"}
    write_dvh_csv(tmp_path / "dvh.csv", dose_volume_histograms(dose, phantom.labels), points=50)
    lines = (tmp_path / "dvh.csv").read_text().splitlines()
    assert lines[0] == "organ,dose_Gy,volume_fraction,volume_fraction_low,volume_fraction_high"
    assert lines[1] == "kidney_left,0,1,,"
    assert len(lines) == 1 + 2 * 50
    assert lines[-1].endswith(",0,,")


def test_wrong_grids_and_empty_organs_are_refused():
    phantom = phantom_with_two_organs()
    other = VoxelGrid.from_spacing((1, 1, 100), (10.0, 10.0, 10.0))
    elsewhere = DoseMap(other, np.ones(other.shape), np.ones(other.shape))
    with pytest.raises(SynthDoseError, match="different grids"):
        dose_volume_histogram(elsewhere, phantom.labels, "spleen")
    with pytest.raises(SynthDoseError, match="another grid"):
        organ_dose_table(elsewhere, phantom)
    with pytest.raises(SynthDoseError, match="needs voxels"):
        dose_volume_histogram(dose_on(phantom, 1.0), phantom.labels, "spleen")
