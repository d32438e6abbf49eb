"""The synthetic patient: a CT and a SPECT that say what the truth says."""

from __future__ import annotations

import json
import math
from datetime import datetime, timedelta

import numpy as np
import pytest
from scipy import ndimage

from SynthDoseLib.core import SynthDoseError, VoxelGrid
from SynthDoseLib.phantom import (
    SyntheticPatient,
    build_phantom,
    synthetic_images,
    synthetic_patient,
)

COUNTS_PER_MBQ = 10_000.0


@pytest.fixture(scope="module")
def patient() -> SyntheticPatient:
    return synthetic_patient(1)


@pytest.mark.parametrize(
    ("organ", "tissue"),
    [("liver", "liver"), ("spleen", "spleen"), ("kidney_left", "kidney"), ("urinary_bladder", "urine"), ("lung_right", "lung")],
)
def test_ct_shows_the_tissue_inside_an_organ(patient, organ, tissue):
    tissue_hu = {tissue.name: tissue.hu for tissue in patient.person.tissue_table}
    inside = ndimage.binary_erosion(patient.labels.mask(organ), iterations=2)
    values = patient.ct.values[inside]
    # the mean's own spread, the grain of the noise included (about 30 voxels share a grain), and edge effects in the lung
    spread = 4 * values.std() / math.sqrt(values.size / 30)
    assert abs(values.mean() - tissue_hu[tissue]) < spread + (20 if tissue == "lung" else 1)


def test_ct_noise_is_the_noise_asked(patient):
    inside = ndimage.binary_erosion(patient.labels.mask("urinary_bladder"), iterations=2)
    assert patient.ct.values[inside].std() == pytest.approx(15.0, rel=0.1)
    silent = synthetic_patient(1, spacing_mm=(6, 6, 6), noise_hu=0, tumours=0)
    loud = synthetic_patient(1, spacing_mm=(6, 6, 6), noise_hu=18, tumours=0)
    difference = loud.ct.values - silent.ct.values
    assert difference[loud.ct.values > -1000].std() == pytest.approx(18, rel=0.05)


def test_ct_has_whole_numbers_of_hu_and_mixed_voxels_at_edges(patient):
    values = patient.ct.values
    np.testing.assert_array_equal(values, np.rint(values))
    assert values.min() >= -1024
    lung = patient.labels.mask("lung_right")
    edge = lung & ~ndimage.binary_erosion(lung)
    core = ndimage.binary_erosion(lung, iterations=3)
    assert values[edge].mean() > values[core].mean() + 50  # between lung and what is beside it


def test_phantom_built_from_the_ct_weighs_what_was_asked(patient):
    """Through CT numbers, partial volume, noise and the calibration, not only by counting labels."""
    masses = build_phantom(patient.ct, patient.labels).mass_g()
    for organ, asked in patient.target_mass_g.items():
        if asked >= 20:
            assert masses[organ] == pytest.approx(asked, rel=0.03), organ


def test_couch_lies_behind_the_patient_without_touching(patient):
    grid = patient.ct.grid
    outside = ~ndimage.binary_dilation(patient.person.tissues > 0, iterations=2)
    dense = np.argwhere(outside & (patient.ct.values > -400))
    assert len(dense) > 1000
    assert (
        grid.to_ras(dense[:, ::-1])[:, 1].max() < grid.to_ras(np.argwhere(patient.person.tissues > 0)[:, ::-1])[:, 1].min() + 20
    )
    bare = synthetic_patient(1, spacing_mm=(6, 6, 6), couch=False)
    around = ~ndimage.binary_dilation(bare.person.tissues > 0, iterations=2)
    assert bare.ct.values[around].max() < -800


def test_spect_holds_the_true_activity(patient):
    truth_MBq = sum(region.activity_MBq for region in patient.activity.values())
    seen_MBq = float(patient.spect.values.sum(dtype=np.float64)) * patient.spect.grid.voxel_volume_ml * 1e-6
    sigma_MBq = math.sqrt(truth_MBq / COUNTS_PER_MBQ)
    # blur beyond the first and last slice loses less than 0.1 %
    assert -0.001 * truth_MBq - 4 * sigma_MBq < seen_MBq - truth_MBq < 4 * sigma_MBq


def test_activity_is_plausible_for_a_therapy(patient):
    truth_MBq = sum(region.activity_MBq for region in patient.activity.values())
    decayed = patient.administered_MBq * 2 ** (-24 / 159.5)
    assert 0.05 * decayed < truth_MBq < 0.6 * decayed
    regions = patient.activity
    for tumour in ("tumour_1", "tumour_2", "tumour_3"):
        assert regions[tumour].concentration_Bq_ml > 3 * regions["liver"].concentration_Bq_ml
    assert (
        regions["spleen"].concentration_Bq_ml
        > regions["liver"].concentration_Bq_ml
        > regions["rest_of_body"].concentration_Bq_ml
    )
    for region in regions.values():
        assert region.effective_half_life_h < 159.5  # never slower than the physical decay


def test_time_integrated_activity_follows_from_the_half_life(patient):
    kidney = patient.activity["kidney_left"]
    at_administration = kidney.activity_MBq * math.exp(math.log(2) * 24 / kidney.effective_half_life_h)
    expected = at_administration * kidney.effective_half_life_h * 3600 / math.log(2)
    assert kidney.time_integrated_activity_MBq_s == pytest.approx(expected)
    assert kidney.activity_MBq == pytest.approx(kidney.concentration_Bq_ml * kidney.volume_ml * 1e-6, rel=1e-5)


def test_later_scan_shows_less_activity_and_the_same_integral():
    early = synthetic_patient(2, spacing_mm=(6, 6, 6))
    late = synthetic_patient(2, spacing_mm=(6, 6, 6), imaged_after_h=96)
    assert late.spect.acquired_at - late.administered_at == timedelta(hours=96)
    for name, region in early.activity.items():
        assert late.activity[name].activity_MBq < region.activity_MBq
        assert late.activity[name].time_integrated_activity_MBq_s == pytest.approx(region.time_integrated_activity_MBq_s)


def test_tumours_are_cut_out_of_their_organs(patient):
    names = [organ.name for organ in patient.labels.organs]
    tumours = [name for name in names if name.startswith("tumour_")]
    assert len(tumours) >= 3
    hosts = patient.organ_labels
    masses = patient.truth["regions"]
    for tumour in tumours:
        mask = patient.labels.mask(tumour)
        assert mask.any()
        assert len(np.unique(hosts.labels[mask])) == 1
        assert hosts.labels[mask].min() > 0
        asked = patient.target_mass_g[tumour]
        assert masses[tumour]["mass_g"] == pytest.approx(asked, rel=0.05 if asked < 20 else 0.02)
    same = ~np.isin(patient.labels.labels, [patient.labels.organ(name).index for name in tumours])
    np.testing.assert_array_equal(patient.labels.labels[same], hosts.labels[same])
    assert masses["liver"]["mass_g"] == pytest.approx(patient.target_mass_g["liver"], rel=0.02)


def test_images_say_what_later_stages_need(patient):
    assert (patient.ct.modality, patient.ct.unit) == ("CT", "HU")
    assert (patient.spect.modality, patient.spect.unit) == ("NM", "Bq/ml")
    assert patient.spect.acquired_at == datetime(2024, 2, 1, 10, 0, 0)
    assert patient.spect.metadata["injected_activity_MBq"] == 7400
    assert patient.spect.metadata["injected_at"] == patient.administered_at
    assert patient.spect.metadata["radionuclide"] == "Lu-177"
    assert patient.ct.metadata["patient_sex"] in {"F", "M"}
    assert 35 < patient.ct.metadata["patient_weight_kg"] < 140
    assert 1.4 < patient.ct.metadata["patient_height_m"] < 2.1
    json.dumps(patient.truth)


def test_spect_has_a_grid_of_its_own(patient):
    ct, spect = patient.ct.grid, patient.spect.grid
    assert spect.spacing_mm == pytest.approx((4.8, 4.8, 4.8))
    offset = ct.to_ijk(spect.to_ras((0, 0, 0)))
    assert np.abs(offset - np.rint(offset)).max() > 0.1
    corners = [(i, j, k) for i in (0, ct.shape[2] - 1) for j in (0, ct.shape[1] - 1) for k in (0, ct.shape[0] - 1)]
    inside = spect.to_ijk(ct.to_ras(corners))
    assert inside.min() >= 0
    assert (inside <= np.asarray(spect.shape[::-1]) - 1).all()
    assert ct.size <= 4_500_000


def test_same_seed_same_patient_other_seed_another():
    first, again = synthetic_patient(3, spacing_mm=(6, 6, 6)), synthetic_patient(3, spacing_mm=(6, 6, 6))
    np.testing.assert_array_equal(first.ct.values, again.ct.values)
    np.testing.assert_array_equal(first.spect.values, again.spect.values)
    assert first.truth == again.truth
    other = synthetic_patient(4, spacing_mm=(6, 6, 6), sex=first.person.plan.sex)
    assert other.target_mass_g["spleen"] != first.target_mass_g["spleen"]


def test_averaging_on_another_grid_keeps_every_becquerel():
    rng = np.random.default_rng(0)
    source = VoxelGrid.from_spacing((7, 9, 11), (3.0, 2.5, 4.0), directions=np.diag([-1.0, -1.0, 1.0]))
    target = VoxelGrid.from_spacing(
        (9, 10, 12), (4.8, 4.1, 5.2), origin_ras_mm=(26.0, 21.0, -23.0), directions=source.directions
    )
    values = rng.random(source.shape, dtype=np.float32)
    result = synthetic_images.average_on_grid(values, source, target)
    assert result.sum() * target.voxel_volume_ml == pytest.approx(values.sum() * source.voxel_volume_ml, rel=1e-5)
    uniform = synthetic_images.average_on_grid(np.ones(source.shape, np.float32), source, target)
    assert uniform.max() == pytest.approx(1, abs=1e-5)


def test_spect_blurs_a_point_to_its_resolution():
    """Second moment of the image of one voxel that lies inside a single SPECT voxel: the Gaussian's."""
    source = VoxelGrid.from_spacing((41, 41, 41), (2.0, 2.0, 2.0))
    target = VoxelGrid.from_spacing((33, 33, 33), (3.0, 3.0, 3.0))
    activity = np.zeros(source.shape, np.float32)
    activity[20, 20, 20] = 1e9
    image = synthetic_images.spect_image(activity, source, target, np.random.default_rng(1), fwhm_mm=10.0, counts_per_MBq=1e5)
    x = (np.arange(33) - 16) * 3.0
    profile = image.sum(axis=(0, 1), dtype=np.float64)
    variance = float((profile * x**2).sum() / profile.sum())
    assert variance == pytest.approx((10.0 / 2.3548) ** 2, rel=0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, "0 or more"),
        ({"seed": 1, "tumours": 9}, "0 to 6"),
        ({"seed": 1, "administered_MBq": 0}, "positive"),
        ({"seed": 1, "sex": "x"}, "female or male"),
        ({"seed": 1, "field_of_view": "foot"}, "torso, head_to_thigh"),
        ({"seed": 1, "variation": 2}, "1.5"),
        ({"seed": 1, "spacing_mm": (9, 3, 3)}, "0.5 to 8 mm"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(SynthDoseError, match=message):
        synthetic_patient(**arguments)
