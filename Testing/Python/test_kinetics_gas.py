"""Activity that blur puts into gas goes back to tissue: closed forms on spheres of gas in organs of even activity."""

import math
from datetime import datetime, timedelta

import numpy as np
import pytest
from scipy import ndimage

from SynthDoseLib.core import Emission, ImageVolume, LabelMap, VoxelGrid, VoxelPhantom, organ_table
from SynthDoseLib.dosimetry import absolute_dose, dose_volume_histogram, gamma_index, label_histogram, organ_dose_table
from SynthDoseLib.kinetics import (
    OrganSource,
    TimeCourseOptions,
    fit_recovery,
    from_map,
    from_organs,
    integrate_time_points,
    out_of_gas,
    time_integrated_activity,
    tissue_share,
)
from SynthDoseLib.kinetics.recovery import blurred_sphere
from SynthDoseLib.physics import get_material
from SynthDoseLib.transport import VolumeSource, local_dose

SPACING_MM = 3.0
FWHM_MM = 12.0
BUBBLE_MM, STOMACH_MM = 18.0, 54.0
LU177_S = 6.647 * 86400
START = datetime(2024, 1, 31, 10)
AIR, LUNG, SOFT = (get_material(name) for name in ("air", "lung", "soft_tissue"))


def grid(size=45):
    return VoxelGrid.from_spacing((size,) * 3, (SPACING_MM,) * 3)


def radius_mm(where):
    k, j, i = np.indices(where.shape)
    return np.linalg.norm(where.to_ras(np.stack([i, j, k], axis=-1)), axis=-1)


def stomach(names=("stomach", "rest_of_body"), bubble_mm=BUBBLE_MM):
    """A sphere of soft tissue with a bubble of gas in its middle, in a cube of soft tissue."""
    where = grid()
    far = radius_mm(where)
    labels = LabelMap(where, np.where(far < STOMACH_MM, 1, 2), organ_table(names))
    density = np.where(far < bubble_mm, 0.0012, 1.0)
    return VoxelPhantom(where, (far >= bubble_mm).astype(np.uint8), density, (AIR, SOFT), labels)


def blurred(values, fwhm_mm=FWHM_MM):
    """As a camera sees an activity that goes on beyond the edges of the grid."""
    sigma = fwhm_mm / (2 * math.sqrt(2 * math.log(2))) / SPACING_MM
    return ndimage.gaussian_filter(np.asarray(values, np.float32), sigma, mode="nearest", truncate=6)


def seen(phantom, stomach_Bq_ml=1000.0, rest_Bq_ml=100.0, **kwargs):
    """Image of a stomach, even in its tissue, and a rest of the body; no activity in gas."""
    values = np.where(phantom.labels.labels == 1, stomach_Bq_ml, rest_Bq_ml)
    image = blurred(np.where(phantom.gas(), 0.0, values), **kwargs)
    return ImageVolume(phantom.grid, image, "NM", "Bq/ml", START + timedelta(hours=24))


def line_of(densities, names=("stomach",), labels=None):
    """A row of voxels."""
    where = VoxelGrid.from_spacing((1, 1, len(densities)), (SPACING_MM,) * 3)
    values = np.ones(len(densities), int) if labels is None else np.asarray(labels)
    organs = LabelMap(where, values.reshape(1, 1, -1), organ_table(names))
    return VoxelPhantom(where, np.zeros(where.shape), np.reshape(densities, where.shape), (SOFT,), organs)


def test_gas_is_what_is_lighter_than_a_tenth_and_in_lungs_than_a_fiftieth():
    phantom = line_of([0.0, 0.0012, 0.09, 0.11, 1.0, 0.09, 0.011], ("stomach", "lung_left"), [0, 1, 1, 1, 1, 2, 2])
    assert phantom.gas().ravel().tolist() == [False, True, True, False, False, False, True]
    assert phantom.lungs().ravel().tolist() == [False] * 5 + [True] * 2


def test_a_light_voxel_is_tissue_by_its_density_where_it_is_thin_and_altogether_in_lungs_and_thick_parts():
    assert tissue_share(line_of([1.0, 0.45, 0.0012, 0.135, 0.85, 0.0])).ravel() == pytest.approx([1, 0.5, 0, 0.15, 1, 1])
    lung = tissue_share(line_of([0.3, 0.0012, 0.3], ("lung_right", "trachea"), [1, 2, 1]))
    assert lung.ravel().tolist() == [1.0, 0.0, 1.0]
    where = grid(12)
    density = np.ones(where.shape)
    density[2:6, 2:6, 2:6] = 0.3  # a lung without a label, of 4 voxels
    density[8:10, 8, 8] = 0.36  # what is left of a small bubble
    density[:, :, 11] = 0.45  # skin, half in the air
    labels = LabelMap(where, np.ones(where.shape), organ_table(["rest_of_body"]))
    share = tissue_share(VoxelPhantom(where, np.zeros(where.shape), density, (SOFT,), labels))
    expected = np.where(density == 0.36, 0.4, np.where(density == 0.45, 0.5, 1.0))
    np.testing.assert_allclose(share, expected, rtol=1e-6)


def test_what_a_voxel_of_gas_shows_is_shared_in_proportion_to_the_activity_at_equal_distances():
    phantom = line_of([1.0, 0.0012, 1.0])
    moved, share = out_of_gas(np.array([[[3, 4, 1]]], np.float32), phantom.grid, tissue_share(phantom))
    assert moved.ravel() == pytest.approx([3 + 3, 0, 1 + 1])  # K is the same for both neighbours: 3 : 1
    assert share == pytest.approx(4 / 8)


def test_a_half_filled_voxel_keeps_its_half_and_gives_the_rest():
    phantom = line_of([0.9, 0.45, 0.0012])
    moved, _ = out_of_gas(np.array([[[10, 10, 0]]], np.float32), phantom.grid, tissue_share(phantom))
    sigma = 15 / (2 * math.sqrt(2 * math.log(2)))
    own, next_ = 1.0, math.exp(-0.5 * (SPACING_MM / sigma) ** 2)
    # of the 5 that are too much, what comes from 10 next to it and from 5 in the voxel itself
    assert moved.ravel() == pytest.approx(
        [10 + 5 * 10 * next_ / (10 * next_ + 5 * own), 5 + 25 * own / (10 * next_ + 5 * own), 0]
    )
    assert moved.sum() == pytest.approx(20)


@pytest.mark.parametrize("filled", [0.15, 0.5, 0.85])
def test_an_even_wall_is_even_up_to_the_voxels_that_it_fills_in_part(filled):
    """Blur of a plane: what is seen is the error function, what was there is the share of tissue."""
    truth = np.where(np.arange(60) < 30, 0.0, 1.0)
    truth[30] = filled
    where = VoxelGrid.from_spacing((9, 9, 60), (SPACING_MM,) * 3)
    density = np.broadcast_to(np.maximum(0.9 * truth, 0.0012), where.shape)
    phantom = VoxelPhantom(
        where, np.zeros(where.shape), density, (SOFT,), LabelMap(where, np.ones(where.shape), organ_table(["a"]))
    )
    image = blurred(np.broadcast_to(truth, where.shape))
    moved, _ = out_of_gas(image, phantom.grid, tissue_share(phantom), fwhm_mm=FWHM_MM)
    per_tissue = moved[4, 4, 30:45] / truth[30:45]
    assert per_tissue[0] == pytest.approx(1.0, abs=0.2)  # where the image was up to 2.8 times too much for the mass
    assert per_tissue[1:] == pytest.approx(np.ones(14), abs=0.06)
    assert image[4, 4, 31:33].max() < 0.92


def test_without_gas_nothing_changes():
    values = np.arange(1, 5, dtype=np.float32).reshape(1, 1, 4)
    phantom = line_of([1.0, 0.26, 1.0, 0.95], ("stomach", "lung_left"), [1, 2, 1, 1])
    assert (tissue_share(phantom) == 1).all()
    assert out_of_gas(values, phantom.grid, tissue_share(phantom)) == (values, 0.0)


@pytest.mark.parametrize("fwhm_mm", [6.0, 12.0, 18.0])
@pytest.mark.parametrize("bubble_mm", [9.0, 24.0])
def test_an_even_organ_around_a_bubble_is_even_again(bubble_mm, fwhm_mm):
    phantom = stomach(bubble_mm=bubble_mm)
    truth = np.where(phantom.gas(), 0.0, 1.0)
    image = blurred(truth, fwhm_mm)
    moved, share = out_of_gas(image, phantom.grid, tissue_share(phantom), fwhm_mm=fwhm_mm)
    assert moved.sum(dtype=np.float64) == pytest.approx(image.sum(dtype=np.float64), rel=1e-6)
    assert moved[phantom.gas()].max() == 0
    assert share == pytest.approx(image[phantom.gas()].sum() / image.sum(), rel=1e-4)
    near = (radius_mm(phantom.grid) < bubble_mm + 15) & ~phantom.gas()
    before, after = (float(np.sqrt(np.mean((x - truth)[near] ** 2))) for x in (image, moved))
    assert after < 0.25 * before  # the blur of the outer surface is none here: what is left is that of one step of EM
    assert moved.max() < 1.06


def test_an_organ_whose_gas_lies_deep_inside_keeps_its_sum_and_its_neighbour_too():
    phantom = stomach()
    image = seen(phantom).values
    moved, _ = out_of_gas(image, phantom.grid, tissue_share(phantom))
    for organ in ("stomach", "rest_of_body"):
        own = phantom.labels.mask(organ)
        assert moved[own].sum(dtype=np.float64) == pytest.approx(image[own].sum(dtype=np.float64), rel=1e-6)


def test_a_thin_wall_in_even_tissue_is_not_burdened_with_the_gas_inside():
    """Wall and surroundings hold the same: what is seen in the gas is mostly of the surroundings."""
    where = grid()
    far = radius_mm(where)
    values = np.where(far < 21, 1, 2)
    density = np.where(far < 18, 0.0012, 1.0)
    labels = LabelMap(where, values, organ_table(["colon", "rest_of_body"]))
    phantom = VoxelPhantom(where, (density > 0.5).astype(np.uint8), density, (AIR, SOFT), labels)
    image = blurred(density > 0.5)
    moved, _ = out_of_gas(image, where, tissue_share(phantom), fwhm_mm=FWHM_MM)
    wall = (values == 1) & (density > 0.5)
    assert moved[wall].sum() / wall.sum() == pytest.approx(1.0, abs=0.06)
    assert moved[wall].max() < 1.1
    assert image[values == 1].sum() / wall.sum() > 1.25  # what it would have if all that is seen in its gas were its own


def test_what_is_seen_between_a_hot_and_a_cold_half_goes_mostly_to_the_hot_one():
    where = grid(31)
    far, right = radius_mm(where), np.indices(where.shape)[2] > 15
    activity = np.where(right, 9.0, 1.0).astype(np.float32)
    activity[far < 12] = 2.0
    activity[:, :, 15] = 0  # both halves are mirror images
    density = np.where(far < 12, 0.0012, 1.0)
    labels = LabelMap(where, np.where(right, 1, 2), organ_table(["liver", "fat"]))
    phantom = VoxelPhantom(where, (density > 0.5).astype(np.uint8), density, (AIR, SOFT), labels)
    moved, _ = out_of_gas(activity, where, tissue_share(phantom))
    gained = [float((moved - activity)[(labels.labels == n) & (far >= 12)].sum(dtype=np.float64)) for n in (1, 2)]
    assert moved[far < 12].max() == 0
    assert sum(gained) == pytest.approx(activity[far < 12].sum(), rel=1e-5)
    # K of a voxel and of its mirror image change places on the other side: p and 1 - p of the hot half, which is given
    # 9 p/(9 p + 1 - p) there and 9 (1 - p)/(9 (1 - p) + p) here, together between 1 (p = 0, 1) and 1.8 (p = 1/2) of 2
    assert 1.0 <= gained[0] / gained[1] <= 9.0
    assert gained[0] > 2 * gained[1]


def test_a_bubble_far_from_all_activity_gives_it_to_what_there_is():
    where = VoxelGrid.from_spacing((4, 4, 200), (SPACING_MM,) * 3)
    values = np.zeros(where.shape, np.float32)
    values[..., 0], values[..., 199] = 5.0, 1.0
    density = np.where(np.indices(where.shape)[2] > 150, 0.0012, 1.0)
    labels = LabelMap(where, np.ones(where.shape), organ_table(["colon"]))
    phantom = VoxelPhantom(where, np.zeros(where.shape), density, (SOFT,), labels)
    moved, _ = out_of_gas(values, where, tissue_share(phantom))
    assert moved[..., 199].max() == 0
    assert moved[..., 0] == pytest.approx(np.full((4, 4), 6.0), rel=1e-5)


def test_time_integrated_activity_has_none_in_gas_for_maps_and_one_and_several_times():
    phantom = stomach()
    image, labels, tissue = seen(phantom), phantom.labels, tissue_share(phantom)
    body = phantom.density_g_cm3 > 0
    per_voxel = ImageVolume(phantom.grid, image.values, unit="MBq*s")
    later = ImageVolume(phantom.grid, image.values * np.float32(0.5), "NM", "Bq/ml")
    kept, moved = {}, {}
    for found, share in ((kept, None), (moved, tissue)):
        found["map"] = from_map(per_voxel, labels, body=body, tissue=share)
        found["one"] = time_integrated_activity(
            image, labels, physical_half_life_s=LU177_S, administered_at=START, body=body, tissue=share
        )
        for voxelwise in (False, True):
            found[f"voxelwise {voxelwise}"] = integrate_time_points(
                [image, later], [24.0, 72.0], labels, physical_half_life_s=LU177_S, body=body, tissue=share,
                options=TimeCourseOptions(method="mono", voxelwise=voxelwise),
            ).tia  # fmt: skip
    for name, tia in moved.items():
        assert kept[name].tia_MBq_s[phantom.gas()].min() > 0, name
        assert tia.tia_MBq_s[phantom.gas()].max() == 0, name
        assert tia.total_MBq_s == pytest.approx(kept[name].total_MBq_s, rel=1e-5), name
        assert [row.tia_MBq_s for row in tia.organs] == pytest.approx([r.tia_MBq_s for r in kept[name].organs], rel=1e-5), name
        assert [row.tia_sigma_MBq_s for row in tia.organs] == [
            sigma if sigma is None else pytest.approx(sigma, rel=1e-5)
            for sigma in (r.tia_sigma_MBq_s for r in kept[name].organs)
        ], name
        said = " ".join(tia.notes)
        assert "% of the activity in the body was seen in gas" in said
        assert "seen in gas" not in " ".join(kept[name].notes)


def test_numbers_per_organ_are_spread_over_tissue_alone():
    phantom = stomach(("stomach", "rest_of_body"))
    row = OrganSource("stomach", tia_MBq_s=1000.0)
    tia = from_organs([row], phantom.labels, physical_half_life_s=LU177_S, tissue=tissue_share(phantom)).tia_MBq_s
    solid = (phantom.labels.labels == 1) & ~phantom.gas()
    assert tia[phantom.gas()].max() == 0
    assert tia[solid] == pytest.approx(np.full(solid.sum(), 1000.0 / solid.sum()), rel=1e-6)
    bubble = LabelMap(phantom.grid, np.where(phantom.gas(), 1, 2), organ_table(["gas", "rest_of_body"]))
    given = from_organs([OrganSource("gas", tia_MBq_s=7.0)], bubble, physical_half_life_s=LU177_S, tissue=tissue_share(phantom))
    assert given.total_MBq_s == pytest.approx(7.0)  # an organ that is nothing else


def test_recovery_finds_the_activity_of_an_organ_around_a_bubble():
    """The model of even organs puts activity into the gas unless it is told where that is."""
    phantom = stomach()
    volumes = np.array([2.0, 8.0, 30.0, 120.0])
    curve = fit_recovery(volumes, blurred_sphere(volumes, FWHM_MM), np.full(4, 0.01), form="sphere")
    options = TimeCourseOptions(method="mono", recovery=curve)
    early = seen(phantom, rest_Bq_ml=0.0)
    images = [early, ImageVolume(phantom.grid, early.values * np.float32(0.5), "NM", "Bq/ml")]
    right = 1000.0 * ((phantom.labels.labels == 1) & ~phantom.gas()).sum() * phantom.grid.voxel_volume_ml * 1e-6
    off = {}
    for name, tissue in (("with gas", tissue_share(phantom)), ("without", None)):
        course = integrate_time_points(
            images, [24.0, 72.0], phantom.labels, physical_half_life_s=LU177_S, options=options, tissue=tissue
        )
        off[name] = course.curves[0].integral.data.activity_MBq[0] / right - 1
    assert abs(off["with gas"]) < 1e-3
    assert abs(off["without"]) > 0.01


def test_the_highest_dose_lies_in_tissue_and_the_organ_has_its_energy():
    """Local deposition: dose is energy over mass, voxel by voxel, and an organ's mean dose is its decays over its mass."""
    phantom = stomach()
    tissue, beta = tissue_share(phantom), (Emission.line("electron", 0.1, 1.0),)
    values = seen(phantom).values
    doses, rows = {}, {}
    for name, activity in (("kept", values), ("moved", out_of_gas(values, phantom.grid, tissue)[0])):
        result = local_dose(phantom, VolumeSource(phantom.grid, activity), beta)
        doses[name] = absolute_dose(result.dose, float(values.sum(dtype=np.float64)))
        rows[name] = organ_dose_table(doses[name], phantom)
    gas = phantom.gas()
    assert gas.ravel()[np.argmax(doses["kept"].dose_Gy)]
    assert not gas.ravel()[np.argmax(doses["moved"].dose_Gy)]
    joule_per_g = 0.1 * 1.602176634e-13 * 1000
    for kept, moved, organ in zip(*rows.values(), ("stomach", "rest_of_body"), strict=True):
        own = phantom.labels.mask(organ)
        expected = values[own].sum(dtype=np.float64) * joule_per_g / phantom.mass_g()[organ]
        assert kept.mean_dose_Gy == pytest.approx(expected, rel=1e-4)
        assert moved.mean_dose_Gy == pytest.approx(expected, rel=1e-4)
    # at 1 g/cm3 the highest dose is that of the highest concentration of tissue, with or without activity in gas
    hottest = doses["moved"].dose_Gy[~gas].max()
    assert rows["moved"][0].max_Gy == pytest.approx(hottest)
    assert rows["kept"][0].max_Gy == pytest.approx(doses["kept"].dose_Gy[~gas].max())
    assert rows["kept"][0].max_Gy < doses["kept"].dose_Gy.max() / 100


def test_histograms_and_gamma_leave_gas_out():
    phantom = stomach()
    gas, labels = phantom.gas(), phantom.labels
    joule = np.where(gas, 500.0, 2.0).astype(np.float32)
    dose = absolute_dose(
        local_dose(phantom, VolumeSource(phantom.grid, joule), (Emission.line("electron", 0.1, 1.0),)).dose, 1e12
    )
    flat = float(dose.dose_Gy[0, 0, 0])
    solid_ml = ((labels.labels == 1) & ~gas).sum() * phantom.grid.voxel_volume_ml
    for histogram in (
        dose_volume_histogram(dose, labels, "stomach", gas=gas),
        label_histogram(dose, labels, "stomach", smooth=False, gas=gas),
    ):
        assert histogram.volume_ml == pytest.approx(solid_ml, rel=1e-6)
        assert histogram.dose_at([0.98, 0.02]) == pytest.approx([flat, flat], rel=1e-5)
        assert histogram.max_Gy == pytest.approx(flat, rel=1e-5)
    assert dose_volume_histogram(dose, labels, "stomach").max_Gy > 100 * flat
    only_gas = LabelMap(phantom.grid, gas.astype(int), organ_table(["trachea"]))
    assert dose_volume_histogram(dose, only_gas, "trachea", gas=gas).volume_ml == pytest.approx(gas.sum() * 0.027)
    pytest.importorskip("pymedphys")
    index = gamma_index(dose, dose, gas=gas, points=200)
    assert np.isnan(index.values[gas]).all()
    assert index.pass_rate == 1.0
