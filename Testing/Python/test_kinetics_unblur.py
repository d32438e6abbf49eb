"""Blur undone between all regions at once: against the closed form of a sphere, and where the width is not what was told."""

from __future__ import annotations

import math
from datetime import datetime

import numpy as np
import pytest
from scipy import integrate, ndimage

from SynthDoseLib.core import ImageVolume, LabelMap, SynthDoseError, VoxelGrid, organ_table
from SynthDoseLib.kinetics.recovery import RecoveryCurve
from SynthDoseLib.kinetics.spill import recovered
from SynthDoseLib.kinetics.unblur import BlurredRegions, region_shares, unblurred_activity
from SynthDoseLib.kinetics.values import Findings

FWHM_TO_SIGMA = 1 / (2 * math.sqrt(2 * math.log(2)))
FINE = VoxelGrid.from_spacing((60, 60, 84), (2.0, 2.0, 2.0))
IMAGE = VoxelGrid.from_spacing((32, 32, 44), (4.0, 4.0, 4.0), (-86.0, -62.0, -62.0))


def distance(grid, centre):
    k, j, i = np.indices(grid.shape)
    return np.linalg.norm(grid.to_ras(np.stack([i, j, k], axis=-1)) - np.asarray(centre), axis=-1)


@pytest.fixture(scope="module")
def organs():
    """A large hot organ, a cool one pressed into it, a small very hot one far off, and the rest of a cylinder."""
    k, j, i = np.indices(FINE.shape)
    ras = FINE.to_ras(np.stack([i, j, k], axis=-1))
    middle = FINE.to_ras((np.asarray(FINE.shape[::-1]) - 1) / 2)
    values = np.where(np.linalg.norm((ras - middle)[..., 1:], axis=-1) < 54, 4, 0)
    for number, away, radius in ((1, (-26, 0, 0), 32), (2, (14, 0, 0), 20), (3, (64, 10, 5), 11)):
        values[distance(FINE, np.add(middle, away)) < radius] = number
    return LabelMap(FINE, values, organ_table(["liver", "gallbladder", "tumour", "rest_of_body"]))


TRUE_BQ_ML = np.array([1e5, 1e4, 8e5, 3e3])


def imaged(labels, concentration, fwhm_mm, noise=0.0, seed=1):
    """A scan on 4 mm voxels, blurred by a width per voxel of a 2 mm grid (one number, or one per column)."""
    sharp = np.concatenate([[0.0], concentration])[labels.labels]
    widths = np.broadcast_to(np.asarray(fwhm_mm, float), FINE.shape[2])
    blurred = np.empty(FINE.shape)
    for width in np.unique(widths):
        chosen = widths == width
        blurred[..., chosen] = ndimage.gaussian_filter(sharp, width * FWHM_TO_SIGMA / 2.0, mode="constant")[..., chosen]
    kji = np.indices(IMAGE.shape).reshape(3, -1)
    start = FINE.to_ijk(IMAGE.to_ras(kji[::-1].T))[:, ::-1].T
    total = np.zeros(IMAGE.size)
    for corner in np.ndindex(2, 2, 2):  # 4 mm voxels hold eight of 2 mm
        total += ndimage.map_coordinates(blurred, np.round(start + np.asarray(corner)[:, None] - 0.5), order=0, mode="constant")
    values = (total / 8).reshape(IMAGE.shape)
    values = values * (1 + noise * np.random.default_rng(seed).standard_normal(values.shape))
    return ImageVolume(IMAGE, values.astype(np.float32), "NM", "Bq/ml", datetime(2024, 1, 31, 10))


def sphere_recovery(volume_ml, fwhm_mm):
    """Overlap of a sphere with itself, displaced as the Gaussian says."""
    radius = 10 * (3 * volume_ml / (4 * math.pi)) ** (1 / 3) / (fwhm_mm * FWHM_TO_SIGMA)
    return integrate.quad(
        lambda x: (1 - x / radius / 2) ** 2 * (1 + x / radius / 4) * math.sqrt(2 / math.pi) * x**2 * math.exp(-(x**2) / 2),
        0,
        2 * radius,
    )[0]


def test_shares_of_voxels_add_up_to_the_volume(organs):
    shares = region_shares(organs, ["liver", "tumour"], IMAGE)
    counts = organs.voxel_counts()
    for name, (_, share) in zip(("liver", "tumour"), shares, strict=True):
        assert float(share.sum()) * IMAGE.voxel_volume_ml == pytest.approx(counts[name] * FINE.voxel_volume_ml, rel=0.01)
        assert 0 <= share.min() < 1 == share.max()


def test_a_blurred_sphere_keeps_its_closed_recovery_and_loses_nothing(organs):
    names = [organ.name for organ in organs.organs]
    blurred = BlurredRegions(organs, names, IMAGE, 9.0, 1.0)
    matrix, _, _ = blurred.equations([np.ones(share.shape, np.float32) for _, share in blurred.own], np.zeros(blurred.shape))
    voxel = 2 * 4.0**2 / 12 / FWHM_TO_SIGMA**2  # filled once, read once
    whole = organs.voxel_counts()["gallbladder"] * FINE.voxel_volume_ml  # a whole sphere, large enough for its voxels
    assert matrix[1, 1] / blurred.voxels[1] == pytest.approx(sphere_recovery(whole, math.hypot(9.0, voxel**0.5)), abs=0.01)
    assert matrix[:, 0].sum() / blurred.voxels[0] == pytest.approx(1.0, abs=0.005)


def test_the_slope_with_the_width_is_that_of_two_widths(organs):
    names = [organ.name for organ in organs.organs]
    blurred = BlurredRegions(organs, names, IMAGE, 9.0, 1.0)
    wider = BlurredRegions(organs, names, IMAGE, 9.9, 1.0)
    flat = np.zeros(blurred.shape, np.float32)
    image, _ = blurred.model(TRUE_BQ_ML, flat + np.float32(0.1))
    direct, _ = wider.model(TRUE_BQ_ML, np.zeros(wider.shape, np.float32))
    place = tuple(slice(a.start - b.start, a.stop - b.start) for a, b in zip(blurred.crop, wider.crop, strict=True))
    assert np.abs(image - direct[place]).max() < 0.01 * direct.max()


def test_concentrations_come_back_though_the_width_was_told_wrongly_and_changes_across_the_image(organs):
    names = [organ.name for organ in organs.organs]
    column = np.arange(FINE.shape[2])
    image = imaged(organs, TRUE_BQ_ML, np.where(column < 30, 8.0, np.where(column < 55, 9.0, 10.5)), noise=0.05)
    volumes = np.array([organs.voxel_counts()[name] for name in names]) * FINE.voxel_volume_ml
    found = unblurred_activity([image], organs, names, fwhm_mm=11.5, width_sigma=0.1)
    off = found.activity_MBq[0] * 1e6 / volumes / TRUE_BQ_ML - 1
    assert np.abs(off).max() < 0.05, off
    assert found.fwhm_mm[0] < found.fwhm_mm[2]
    assert found.fwhm_mm[0] == pytest.approx(8.4, rel=0.08)
    assert (found.effect < 0.2).all()
    # as measured, the cool organ holds far more, by what spilled in
    box, share = region_shares(organs, names, IMAGE)[1]
    assert float((share * image.values[box]).sum() / share.sum()) > 1.3 * TRUE_BQ_ML[1]


def test_what_is_scattered_widely_is_brought_back(organs):
    names = [organ.name for organ in organs.organs]
    blurred = BlurredRegions(organs, names, IMAGE, 9.0, 0.9)
    image, _ = blurred.model(TRUE_BQ_ML, np.zeros(blurred.shape, np.float32))
    values = np.zeros(IMAGE.shape, np.float32)
    values[blurred.crop] = image
    scan = ImageVolume(IMAGE, values, "NM", "Bq/ml", datetime(2024, 1, 31, 10))
    told = math.hypot(9.0, math.sqrt(2 * 4.0**2 / 12) / FWHM_TO_SIGMA)
    found = unblurred_activity([scan], organs, names, fwhm_mm=told, retained=0.9)
    concentration = found.activity_MBq[0] * 1e6 / blurred.voxels / IMAGE.voxel_volume_ml
    np.testing.assert_allclose(concentration, TRUE_BQ_ML, rtol=0.005)


def test_the_noise_stated_is_the_scatter_of_repeated_scans(organs):
    names = [organ.name for organ in organs.organs]
    scans = [imaged(organs, TRUE_BQ_ML, 9.0, noise=0.2, seed=seed) for seed in range(12)]
    found = unblurred_activity(scans, organs, names, fwhm_mm=10.3)
    scatter = found.activity_MBq.std(axis=0, ddof=1)
    stated = np.sqrt((found.noise_MBq**2).mean(axis=0))
    # chi-squared of 11 degrees of freedom, 4 sigma; the cool organ carries noise of its neighbour at its border
    assert (stated[[0, 2]] / scatter[[0, 2]] < 2.5).all()
    assert (stated / scatter > 0.5).all()


def test_a_region_too_small_or_outside_the_image_stays_as_measured(organs):
    names = ["liver", "tumour", "rest_of_body"]
    image = imaged(organs, TRUE_BQ_ML, 9.0)
    left = IMAGE.crop((0, 0, 0), (32, 32, 22))
    half = ImageVolume(left, image.values[..., :22], "NM", "Bq/ml", image.acquired_at)
    inside = "tumour" if region_shares(organs, ["tumour"], IMAGE)[0][0][2].stop <= 22 else "liver"
    outside = "liver" if inside == "tumour" else "tumour"
    found = unblurred_activity([half], organs, names, fwhm_mm=10.3)
    assert outside in found.lost
    assert found.activity_MBq[0][names.index(outside)] == pytest.approx(0.0)
    far = ImageVolume(VoxelGrid.from_spacing((4, 4, 4), (4.0,) * 3, (900.0, 0, 0)), np.ones((4, 4, 4)), "NM", "Bq/ml")
    with pytest.raises(SynthDoseError, match="No voxel of the activity image"):
        unblurred_activity([far], organs, names, fwhm_mm=10.3)


def test_how_surely_scatter_is_known_counts_where_the_curve_found_none_too(organs):
    """A phantom whose noise makes the share that is not scattered 1 or more leaves it as unsure as one with 0.999."""
    names = [organ.name for organ in organs.organs]
    scan = imaged(organs, TRUE_BQ_ML, 9.0)
    sums = [{name: 1.0 for name in names}]
    effects = {}
    for retained, sigma in ((0.999, 0.02), (1.02, 0.02), (1.02, 1e-6)):
        parameters = {"fwhm_mm": 9.6, "retained": retained}
        curve = RecoveryCurve("sphere+scatter", parameters, np.diag([1e-6, sigma**2]), 1.0, 400.0, 0.0, 5)
        found = recovered([scan], sums, names, organs, curve, 0.0, Findings())
        effects[retained, sigma] = np.array([found.factors[name][2] for name in names])
        assert (np.array(list(found.activity_MBq[0].values())) >= 0).all()
    assert effects[1.02, 0.02] == pytest.approx(effects[0.999, 0.02], rel=0.05)
    assert (effects[1.02, 0.02] > 1.2 * effects[1.02, 1e-6]).any()
