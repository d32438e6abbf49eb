"""Calibration from phantom scans, recovery by volume, SUV both ways, image noise: against closed forms."""

from __future__ import annotations

import math
from datetime import datetime

import numpy as np
import pytest
from scipy import integrate, ndimage

from SynthDoseLib.core import ImageVolume, SynthDoseError, VoxelGrid
from SynthDoseLib.kinetics import (
    CalibrationScan,
    activity_from_counts,
    activity_from_suv,
    fit_calibration,
    fit_recovery,
    lean_body_mass_kg,
    phantom_scan,
    recovery_note,
    retention_warnings,
    suv_from_activity,
    to_scan_time,
)
from SynthDoseLib.kinetics.noise import region_noise_MBq

LU177_S = 574300.0
NOW = datetime(2024, 1, 31, 10)


def volume(values, unit="counts", spacing=(4.0, 4.0, 5.0), **metadata):
    values = np.asarray(values, np.float32)
    return ImageVolume(VoxelGrid.from_spacing(values.shape, spacing), values, "NM", unit, NOW, metadata)


def test_a_calibration_is_the_weighted_mean_of_its_scans():
    scans = [CalibrationScan(60_000, 600, 10, 600), CalibrationScan(1_230_000, 1200, 100, 12_300)]
    result = fit_calibration(scans, assay_relative_sigma=0.02)
    rates, sigmas = np.array([10.0, 10.25]), np.array([0.1, 0.1025])
    mean = (rates / sigmas**2).sum() / (1 / sigmas**2).sum()
    assert result.sensitivity_cps_per_MBq == pytest.approx(mean)
    assert result.relative_sigma == pytest.approx(math.hypot(1 / math.sqrt((1 / sigmas**2).sum()) / mean, 0.02))
    assert result.chi_squared == pytest.approx((((rates - mean) / sigmas) ** 2).sum())
    assert result.degrees_of_freedom == 1


def test_scans_that_disagree_enlarge_the_sigma_and_say_so():
    scans = [CalibrationScan(60_000, 600, 10, 60), CalibrationScan(63_000, 600, 10, 63)]
    result = fit_calibration(scans)
    assert "differ by more than their noise" in result.notes[0]
    assert result.sigma_cps_per_MBq == pytest.approx(0.25, rel=0.05)  # standard error of 10.0 and 10.5
    assert "one scan" in fit_calibration(scans[:1]).notes[0]


def test_the_calibration_recovers_the_factor_over_repeated_scans():
    rng = np.random.default_rng(8)
    factor, activities = 9.4, np.array([50.0, 100.0, 200.0])
    pulls = []
    for _ in range(300):
        counts = rng.poisson(factor * activities * 900)
        result = fit_calibration([CalibrationScan(float(c), 900, a) for c, a in zip(counts, activities, strict=True)])
        pulls.append((result.sensitivity_cps_per_MBq - factor) / result.sigma_cps_per_MBq)
    assert abs(np.mean(pulls)) < 4 / math.sqrt(300)
    assert np.std(pulls) == pytest.approx(1.0, abs=0.15)


def test_a_phantom_scan_is_corrected_for_background_and_decay():
    counts = np.full((10, 20, 20), 2.0)
    counts[3:7, 5:15, 5:15] += 100.0
    region, background = np.zeros(counts.shape, bool), np.zeros(counts.shape, bool)
    region[2:8, 4:16, 4:16] = True
    background[:, :3] = True
    half_life = 6586.2  # F-18
    image = volume(counts)
    scan = phantom_scan(
        image,
        region,
        activity_MBq=50.0,
        hours_since_assay=half_life / 3600,
        physical_half_life_s=half_life,
        duration_s=1800.0,
        background=background,
    )
    exponent = math.log(2) * 1800 / half_life
    assert scan.activity_MBq == pytest.approx(25.0)
    assert scan.counts == pytest.approx(400 * 100 * exponent / (1 - math.exp(-exponent)), rel=1e-6)
    corrected = phantom_scan(
        volume(counts, corrections="DECY ATTN"),
        region,
        activity_MBq=50.0,
        hours_since_assay=0.0,
        physical_half_life_s=half_life,
        duration_s=1800.0,
        background=background,
    )
    assert corrected.counts == pytest.approx(400 * 100, rel=1e-6)
    # the factor found in the phantom gives the phantom's activity back
    sensitivity = fit_calibration([scan]).sensitivity_cps_per_MBq
    again = activity_from_counts(
        volume(counts - 2), sensitivity_cps_per_MBq=sensitivity, duration_s=1800.0, physical_half_life_s=half_life
    )
    assert again.values.sum() * again.grid.voxel_volume_ml * 1e-6 == pytest.approx(25.0, rel=1e-5)


def sphere_recovery(volume_ml, fwhm_mm):
    """Mean over a sphere of its own image, blurred by a Gaussian: its overlap with itself, displaced as the Gaussian says."""
    radius_mm = 10 * (3 * volume_ml / (4 * math.pi)) ** (1 / 3)
    radius = radius_mm / (fwhm_mm / (2 * math.sqrt(2 * math.log(2))))  # in standard deviations

    def integrand(shift):
        d = shift / radius  # two unit spheres at the distance d share this fraction of their volume
        return (1 - d / 2) ** 2 * (1 + d / 4) * math.sqrt(2 / math.pi) * shift**2 * math.exp(-(shift**2) / 2)

    return integrate.quad(integrand, 0, 2 * radius)[0]


def test_recovery_of_blurred_spheres_is_described_by_the_curve():
    volumes = np.array([0.5, 1.15, 2.57, 5.57, 11.5, 26.5, 113.0])  # NEMA spheres, and a bottle
    true = np.array([sphere_recovery(v, 9.0) for v in volumes])
    curve = fit_recovery(volumes, true, np.full(volumes.size, 0.02))
    exact = fit_recovery(volumes, true, np.full(volumes.size, 0.02), form="sphere")
    assert exact.parameters["fwhm_mm"] == pytest.approx(9.0, rel=1e-6)
    scattered = fit_recovery(volumes, 0.96 * true, np.full(volumes.size, 0.02), form="sphere+scatter")
    assert (scattered.parameters["fwhm_mm"], scattered.parameters["retained"]) == pytest.approx((9.0, 0.96), rel=1e-6)
    assert exact.at(300.0)[0] == pytest.approx(sphere_recovery(300.0, 9.0), rel=1e-6)
    for check in (0.8, 3.5, 8.0, 20.0, 60.0):
        recovery, sigma = curve.at(check)
        assert recovery == pytest.approx(sphere_recovery(check, 9.0), abs=0.03)
        assert 0 < sigma < 0.03
    assert curve.at(1e6)[0] == pytest.approx(1.0, abs=2e-3)
    assert "extrapolated" in recovery_note(curve, "liver", 1500.0)
    assert "extrapolated" not in recovery_note(curve, "tumour", 5.0)


def test_the_uncertainty_of_a_recovery_coefficient_covers_repeated_phantoms():
    rng = np.random.default_rng(12)
    volumes = np.array([0.5, 1.0, 2.0, 5.0, 11.0, 26.0])
    true = 1 - 1 / (1 + (volumes / 1.8) ** 0.9)
    truth = 1 - 1 / (1 + (3.0 / 1.8) ** 0.9)
    pulls = []
    for _ in range(300):
        recovery, sigma = fit_recovery(volumes, true + 0.02 * rng.standard_normal(6), np.full(6, 0.02)).at(3.0)
        pulls.append((recovery - truth) / sigma)
    assert abs(np.mean(pulls)) < 4 / math.sqrt(300)
    assert np.std(pulls) == pytest.approx(1.0, abs=0.15)


def test_an_uncertain_volume_makes_its_recovery_uncertain():
    curve = fit_recovery([0.5, 1, 2, 5, 11, 26], [0.24, 0.37, 0.52, 0.71, 0.84, 0.92], np.full(6, 0.005))
    _, sigma = curve.at(2.0, volume_sigma_ml=0.4)
    shifted = curve.at(2.04)[0] - curve.at(1.96)[0]
    assert sigma == pytest.approx(math.hypot(curve.at(2.0)[1], shifted / 0.08 * 0.4), rel=1e-3)
    with pytest.raises(SynthDoseError, match="less than 5%"):
        curve.at(0.005)


@pytest.mark.parametrize("kind", ["bw", "lbm-james", "lbm-janmahasatian"])
def test_suv_there_and_back_is_the_same_image(kind):
    facts = {
        "injected_MBq": 350.0,
        "weight_kg": 80.0,
        "height_m": 1.8,
        "sex": "M",
        "seconds_since_injection": 3600.0,
        "physical_half_life_s": 6586.2,
        "kind": kind,
    }
    activity = volume(np.arange(1.0, 61.0).reshape(3, 4, 5) * 1000, "Bq/ml")
    suv = suv_from_activity(activity, **facts)
    mass_kg = {"bw": 80.0, "lbm-james": 62.7160, "lbm-janmahasatian": 61.7317}[kind]
    assert suv.values[0, 0, 0] == pytest.approx(1000 * mass_kg * 1000 / (350e6 * 2 ** (-3600 / 6586.2)), rel=1e-5)
    np.testing.assert_allclose(activity_from_suv(suv, **facts).values, activity.values, rtol=1e-6)
    assert suv.metadata["suv_type"] in ("BW", "LBMJAMES128", "LBMJANMA")


def test_lean_body_mass_of_women_by_hand():
    james = lean_body_mass_kg("lbm-james", weight_kg=60, height_m=1.65, sex="F")
    assert james == pytest.approx(1.07 * 60 - 148 * (60 / 165) ** 2)
    other = lean_body_mass_kg("lbm-janmahasatian", weight_kg=60, height_m=1.65, sex="F")
    assert other == pytest.approx(9270 * 60 / (8780 + 244 * 60 / 1.65**2))


def test_a_correction_to_administration_is_taken_back_once_and_not_twice():
    image = volume(np.full((2, 2, 2), 8.0), "Bq/ml")
    once = to_scan_time(image, correction="ADMIN", seconds_since_injection=LU177_S, physical_half_life_s=LU177_S)
    assert np.allclose(once.values, 4.0)
    assert once.metadata["decay_correction"] == "START"
    with pytest.raises(SynthDoseError, match="second decay correction is refused"):
        to_scan_time(once, correction="ADMIN", seconds_since_injection=LU177_S, physical_half_life_s=LU177_S)
    assert to_scan_time(once, correction="START", seconds_since_injection=9.0, physical_half_life_s=LU177_S) is once


def test_the_noise_of_an_organ_is_that_of_repeated_images():
    rng = np.random.default_rng(21)
    shape, spacing, fwhm = (30, 40, 40), 4.0, 10.0
    grid = VoxelGrid.from_spacing(shape, (spacing,) * 3)
    k, j, i = np.indices(shape)
    mask = (k - 15) ** 2 + (j - 20) ** 2 + (i - 20) ** 2 < 11**2
    sigma = fwhm / 2.3548 / spacing
    sums, stated = [], []
    for n in range(60):
        noise = ndimage.gaussian_filter(rng.standard_normal(shape), sigma, mode="wrap")
        values = (1e5 + 2e4 * noise / noise.std()).astype(np.float32)
        image = ImageVolume(grid, values, "NM", "Bq/ml")
        sums.append(float(values[mask].sum()) * grid.voxel_volume_ml * 1e-6)
        if n < 5:
            stated.append(region_noise_MBq(image, mask, noise_fwhm_mm=fwhm))
    # 60 repeats know the standard deviation to 9 %; the border of the sphere lowers the number of whole grains
    assert np.mean(stated) == pytest.approx(np.std(sums), rel=0.35)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: fit_calibration([]), "at least one scan"),
        (lambda: fit_calibration([CalibrationScan(0, 600, 10)]), "above 0"),
        (lambda: fit_recovery([1, 2], [0.5, 0.6]), "3 or more volumes"),
        (lambda: fit_recovery([1, 2, 4], [50, 60, 70]), "not per cent"),
        (lambda: fit_recovery([100, 200, 400], [1.0, 1.0, 1.0]), "span small and large"),
        (lambda: lean_body_mass_kg("lbm-james", weight_kg=80, height_m=1.8, sex=""), "needs the sex"),
        (lambda: lean_body_mass_kg("lbm-james", weight_kg=80, height_m=180, sex="M"), "in metres"),
        (lambda: lean_body_mass_kg("lbm-james", weight_kg=250, height_m=1.6, sex="F"), "does not hold"),
        (lambda: lean_body_mass_kg("lbm-hume", weight_kg=80, height_m=1.8, sex="M"), "no lean body mass"),
        (
            lambda: phantom_scan(
                volume(np.ones((2, 2, 2)), "Bq/ml"),
                None,
                activity_MBq=1,
                hours_since_assay=0,
                physical_half_life_s=1,
                duration_s=1,
            ),
            "has to be in counts",
        ),
        (
            lambda: to_scan_time(
                volume(np.ones((2, 2, 2)), "Bq/ml"), correction="YES", seconds_since_injection=1, physical_half_life_s=1
            ),
            "decay_correction has to be",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(call, says):
    with pytest.raises(SynthDoseError, match=says):
        call()


def even_scans(*activities_MBq: float, slices: tuple[int, ...] = ()) -> list[ImageVolume]:
    """Images with so much activity each, evenly in a body of 20 slices, of which the image may show fewer."""
    images = []
    for activity, count in zip(activities_MBq, slices or (20,) * len(activities_MBq), strict=True):
        whole = VoxelGrid.from_spacing((20, 10, 10), (10, 10, 10))
        per_ml = np.full((count, 10, 10), activity * 1e6 / whole.size, np.float32)
        images.append(ImageVolume(whole.crop((0, 0, 0), per_ml.shape), per_ml, "NM", "Bq/ml"))
    return images


@pytest.mark.parametrize(
    ("percent", "slices", "says"),
    [
        ((95, 70, 40), (), []),
        ((60, 70, 40), (), ["rises: 4 h 60%, 24 h 70%, 72 h 40% of the administered activity"]),
        ((60, 62, 40), (), []),  # within what calibrations are known to
        ((110, 70, 40), (), ["more activity than was administered (4 h 110%, 24 h 70%, 72 h 40%"]),
        ((110, 120, 40), (), ["rises", "more activity than"]),
        ((60, 55, 54), (10, 20, 20), []),  # 30 % in the half of the body that the first image shows, 27.5 % there later
        ((60, 80, 40), (10, 20, 20), ["rises"]),
        ((60, 80, 40), (20, 20, 10), ["rises"]),
    ],
)
def test_activity_that_comes_back_or_exceeds_what_was_given_is_told_of(percent, slices, says):
    hours, half_life_s = (4.0, 24.0, 72.0), 574300.0
    left = [7400 * p / 100 * 2 ** (-h * 3600 / half_life_s) for p, h in zip(percent, hours, strict=True)]
    images = even_scans(*left, slices=slices)
    found = retention_warnings(images, hours, physical_half_life_s=half_life_s, administered_MBq=7400)
    assert len(found) == len(says)
    for text, words in zip(found, says, strict=True):
        assert words in text


def test_activity_that_comes_back_is_told_without_knowing_what_was_given_and_in_any_order():
    images = even_scans(500, 100)  # at 72 h and at 1 h
    (found,) = retention_warnings(images, (72.0, 1.0), physical_half_life_s=1e9)
    assert "rises: 1 h 100 MBq, 72 h 500" in found
