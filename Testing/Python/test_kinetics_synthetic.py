"""The whole way from scans of a synthetic patient to time-integrated activity, against what is true of that patient."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import integrate

from SynthDoseLib.core import SynthDoseError, resample_mean
from SynthDoseLib.kinetics import (
    SpatialTransform,
    TimeCourseOptions,
    fit_recovery,
    integrate_time_points,
    moved_image,
    tissue_share,
)
from SynthDoseLib.phantom import build_phantom, synthetic_patient
from SynthDoseLib.phantom.synthetic_time import Camera, sphere_phantom, synthetic_time_points

LU177_S = 574300.0
# blur that grows to the edge and scatter that the analysis does not know of: it has the phantom's recovery curve
CAMERA = Camera(centre_fwhm_mm=9.0, edge_fwhm_mm=12.0, scatter_fraction=0.02)


@pytest.fixture(scope="module")
def patient():
    return synthetic_patient(3, spacing_mm=(6.0, 6.0, 6.0), tumours=1)


@pytest.fixture(scope="module")
def recovery():
    phantom = sphere_phantom(1, camera=CAMERA)
    seen = resample_mean(phantom.image.values, phantom.image.grid, phantom.labels.grid)
    found = [float(seen[phantom.labels.mask(name)].mean()) / phantom.concentration_Bq_ml for name in phantom.volumes_ml]
    assert found == sorted(found)
    return fit_recovery(list(phantom.volumes_ml.values()), found, np.full(len(found), 0.02), form="sphere+scatter")


def test_the_courses_of_the_patient_integrate_to_their_truth(patient):
    points = synthetic_time_points(patient, hours=(24.0,))
    for name in ("kidney_left", "liver", "tumour_1", "rest_of_body"):
        course = points.courses[name]
        area = integrate.quad(course.activity_MBq, 0, 3000, limit=400, points=[1, 10, 100])[0]
        assert course.time_integrated_activity_MBq_h == pytest.approx(area, rel=1e-6)
    whole = points.spects[0].values.sum(dtype=np.float64) * points.spects[0].grid.voxel_volume_ml * 1e-6
    assert whole == pytest.approx(sum(c.activity_MBq(24.0) for c in points.courses.values()), rel=0.01)
    json.dumps(points.truth)


def test_organs_over_50_ml_get_their_decays_back_with_recovery_correction(patient, recovery):
    points = synthetic_time_points(patient, camera=CAMERA)
    options = TimeCourseOptions(recovery=recovery, relative_sigma=0.03)
    phantom = build_phantom(patient.ct, points.labels)
    result = integrate_time_points(
        points.spects, points.hours, points.labels, physical_half_life_s=LU177_S, options=options, administered_MBq=7400.0,
        body=phantom.density_g_cm3 > 0, tissue=tissue_share(phantom),
    )  # fmt: skip
    off = {
        curve.region: curve.integral.tia_MBq_h / points.courses[curve.region].time_integrated_activity_MBq_h - 1
        for curve in result.curves
        if curve.volume_ml > 50
    }
    assert len(off) > 12
    for name in ("liver", "spleen", "kidney_left", "kidney_right", "urinary_bladder", "rest_of_body"):
        assert abs(off[name]) < 0.05, (name, off[name])
    assert abs(float(np.median(list(off.values())))) < 0.05
    kidney = next(curve for curve in result.curves if curve.region == "kidney_left")
    assert kidney.recovery < 0.85  # without the correction a sixth is missing
    total = result.tia.total_MBq_s / 3600
    assert total == pytest.approx(sum(c.time_integrated_activity_MBq_h for c in points.courses.values()), rel=0.05)


def test_a_patient_who_lies_elsewhere_is_imaged_elsewhere(patient):
    move = np.eye(4)
    move[:3, 3] = (12.0, -8.0, 5.0)
    there = synthetic_time_points(patient, hours=(24.0, 72.0), displacements_ras=[np.eye(4), move])
    still = synthetic_time_points(patient, hours=(24.0, 72.0))
    assert np.array_equal(there.spects[1].values, still.spects[1].values)
    assert "frame_of_reference_uid" in there.spects[1].metadata
    back = moved_image(there.spects[1], SpatialTransform(move))
    assert back.grid.matches(still.spects[1].grid)
    with pytest.raises(SynthDoseError, match="needs a time"):
        synthetic_time_points(patient, hours=(24.0,), displacements_ras=[move, move])
