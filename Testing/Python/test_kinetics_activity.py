import math
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from SynthDoseLib.core import ImageVolume, LabelMap, Organ, SynthDoseError, VoxelGrid, organ_table
from SynthDoseLib.kinetics import (
    OrganSource,
    activity_from_counts,
    activity_from_suv,
    from_map,
    from_organs,
    regrid,
    time_integrated_activity,
)
from SynthDoseLib.kinetics.values import Findings
from SynthDoseLib.phantom import synthetic_patient

START = datetime(2024, 1, 31, 10)
LU177_S = 6.647 * 86400
HOURS = 24.0


def oblique(angle_degree):
    c, s = np.cos(np.radians(angle_degree)), np.sin(np.radians(angle_degree))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def case(values=1000.0, unit="Bq/ml", when=START + timedelta(hours=HOURS)):
    """Liver and rest in a cube of air, and an activity image on the same grid."""
    grid = VoxelGrid.from_spacing((10, 10, 10), (10.0, 10.0, 10.0))
    labels = np.zeros(grid.shape, int)
    labels[1:9, 1:9, 1:9] = 2
    labels[3:6, 3:6, 3:6] = 1
    image = np.where(labels > 0, values, 0.0) if np.isscalar(values) else values
    return (
        ImageVolume(grid, image, "NM", unit, when),
        LabelMap(grid, labels, organ_table(["liver", "rest_of_body", "spleen"])),
    )


def integrate(activity, labels, **kwargs):
    kwargs = {"physical_half_life_s": LU177_S, "administered_at": START} | kwargs
    return time_integrated_activity(activity, labels, **kwargs)


def test_one_time_point_follows_the_closed_form_per_organ():
    activity, labels = case()
    result = integrate(
        activity, labels, effective_half_life_h={"liver": 70.0}, rest_effective_half_life_h=50.0, administered_MBq=7400
    )
    liver = next(row for row in result.organs if row.organ == "liver")
    rest = next(row for row in result.organs if row.organ == "rest_of_body")
    for row, voxels, half_life_h in ((liver, 27, 70.0), (rest, 512 - 27, 50.0)):
        at_scan_MBq = voxels * 1000.0 * 1e-6
        expected = at_scan_MBq * 2 ** (HOURS / half_life_h) * half_life_h * 3600 / math.log(2)  # A0 T / ln 2
        assert row.activity_at_scan_MBq == pytest.approx(at_scan_MBq, rel=1e-6)
        assert row.tia_MBq_s == pytest.approx(expected, rel=1e-6)
        assert row.residence_time_h == pytest.approx(expected / 7400 / 3600, rel=1e-6)
    assert result.total_MBq_s == pytest.approx(liver.tia_MBq_s + rest.tia_MBq_s, rel=1e-6)
    assert result.decays == pytest.approx(result.total_MBq_s * 1e6)
    text = " ".join(result.notes)
    assert "uptake" in text
    assert "spill" in text
    assert "administered" in text


def test_scan_at_administration_with_physical_decay_only():
    activity, labels = case(when=START)
    result = integrate(activity, labels)
    assert result.total_MBq_s == pytest.approx(512 * 1e-3 * LU177_S / math.log(2), rel=1e-6)
    assert {row.half_life_source for row in result.organs} == {"physical"}
    assert any("physical one" in note for note in result.notes)


def test_a_biological_half_life_adds_its_rate_to_the_decay():
    activity, labels = case(when=START)
    physical_h = LU177_S / 3600
    result = integrate(activity, labels, biological_half_life_h={"liver": physical_h})
    assert result.organs[0].effective_half_life_h == pytest.approx(physical_h / 2)
    assert result.organs[0].half_life_source == "biological"


def test_group_half_lives_hold_for_members_unless_they_have_their_own():
    activity, labels = case()
    groups = {"abdomen": ("liver", "spleen")}
    result = integrate(activity, labels, effective_half_life_h={"liver": 30.0, "abdomen": 60.0}, groups=groups)
    assert result.organs[0].effective_half_life_h == 30.0
    result = integrate(activity, labels, effective_half_life_h={"abdomen": 60.0, "rest_of_body": 40.0}, groups=groups)
    assert [row.effective_half_life_h for row in result.organs] == [60.0, 40.0]


@pytest.mark.parametrize(
    ("spacing", "angle"), [((4.4, 4.4, 4.4), 0), ((7.0, 5.0, 13.0), 0), ((25.0, 25.0, 25.0), 0), ((6.0, 6.0, 9.0), 20)]
)
def test_resampling_keeps_the_activity(spacing, angle):
    _, labels = case()
    size = tuple(math.ceil(200 / s) for s in spacing[::-1])
    grid = VoxelGrid.from_spacing(size, spacing, directions=oblique(angle))
    k, j, i = np.indices(grid.shape)
    r2 = (grid.to_ras(np.stack([i, j, k], -1)) ** 2).sum(-1)
    values = 1e4 * np.exp(-r2 / (2 * 12.0**2))
    activity = ImageVolume(grid, values, "NM", "Bq/ml", START)
    result = integrate(activity, labels, body=np.ones(labels.grid.shape, bool))
    expected = values.sum() * grid.voxel_volume_ml * 1e-6 * LU177_S / math.log(2)
    assert result.total_MBq_s == pytest.approx(expected, rel=1e-3)


def test_activity_outside_the_body_is_dropped_and_said():
    activity, labels = case(values=np.ones((10, 10, 10)))
    result = integrate(activity, labels)
    assert sum(row.activity_at_scan_MBq for row in result.organs) == pytest.approx(512e-6)
    assert any("48.80% of the activity inside the CT lies outside the body" in note for note in result.notes)
    body = np.zeros((10, 10, 10), bool)
    body[:5] = True
    kept = integrate(activity, labels, body=body)
    assert sum(row.activity_at_scan_MBq for row in kept.organs) == pytest.approx(500e-6)


def test_partial_overlap_is_noted_with_the_organs_it_cuts():
    activity, labels = case()
    lower = ImageVolume(activity.grid.crop((0, 0, 0), (5, 10, 10)), activity.values[:5], "NM", "Bq/ml", START)
    notes = " ".join(integrate(lower, labels).notes)
    assert "covers 50% of the body" in notes
    assert "liver 67%" in notes
    bigger = VoxelGrid.from_spacing((20, 10, 10), (10.0, 10.0, 10.0))
    wide = ImageVolume(bigger, np.ones(bigger.shape), "NM", "Bq/ml", START)
    assert "50.00% of the activity in the image lies outside the CT" in " ".join(integrate(wide, labels).notes)


def test_images_that_do_not_overlap_are_refused():
    activity, labels = case()
    far = VoxelGrid.from_spacing((10, 10, 10), (10.0, 10.0, 10.0), origin_ras_mm=(500, 0, 0))
    with pytest.raises(SynthDoseError, match="do not overlap"):
        integrate(ImageVolume(far, activity.values, "NM", "Bq/ml", START), labels)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"effective_half_life_h": {"liver": 200.0}}, "longer than the physical"),
        ({"rest_effective_half_life_h": 200.0}, "longer than the physical"),
        ({"effective_half_life_h": {"livre": 20.0}}, "not in the segmentation"),
        ({"effective_half_life_h": {"spleen": 20.0}}, "empty"),
        ({"effective_half_life_h": {"liver": -1.0}}, "above 0"),
        ({"effective_half_life_h": {"liver": 20.0}, "biological_half_life_h": {"liver": 20.0}}, "Both"),
        ({"effective_half_life_h": {"rest_of_body": 20.0}, "rest_effective_half_life_h": 30.0}, "Two half-lives"),
        ({"administered_at": START + timedelta(days=3)}, "before the administration"),
        ({"administered_at": START.replace(tzinfo=UTC)}, "time zone"),
        ({"administered_MBq": 0.0}, "above 0"),
        ({"physical_half_life_s": math.nan}, "above 0"),
        ({"body": np.zeros((10, 10, 10), bool)}, "inside the body"),
    ],
)
def test_what_makes_no_sense_is_refused(change, message):
    activity, labels = case()
    with pytest.raises(SynthDoseError, match=message):
        integrate(activity, labels, **change)


def test_bad_voxels_are_counted_and_refused():
    activity, labels = case()
    values = activity.values.copy()
    values[5, 5, 5] = np.nan
    with pytest.raises(SynthDoseError, match="1 of 1000 voxels"):
        integrate(ImageVolume(activity.grid, values, "NM", "Bq/ml", START), labels, negative="zero")
    values[5, 5, 4:6] = -2.0
    bad = ImageVolume(activity.grid, values, "NM", "Bq/ml", START)
    with pytest.raises(SynthDoseError, match=r'2 of 1000 voxels of the activity are negative.*negative = "zero"'):
        integrate(bad, labels)
    assert any("set to zero" in note for note in integrate(bad, labels, negative="zero").notes)
    with pytest.raises(SynthDoseError, match="zero everywhere"):
        integrate(ImageVolume(activity.grid, values * 0, "NM", "Bq/ml", START), labels)


def test_units_and_times_have_to_be_known():
    activity, labels = case(unit="counts")
    with pytest.raises(SynthDoseError, match="calibration"):
        integrate(activity, labels)
    activity, labels = case(when=None)
    with pytest.raises(SynthDoseError, match="acquired_at"):
        integrate(activity, labels)
    assert integrate(activity, labels, acquired_at=START).total_MBq_s > 0


def test_more_activity_than_administered_is_said():
    activity, labels = case()
    result = integrate(activity, labels, administered_MBq=0.1, rest_effective_half_life_h=60.0)
    assert "more than all of it" in result.warnings[0]
    assert set(result.warnings) < set(result.notes)
    assert integrate(activity, labels, administered_MBq=100.0, rest_effective_half_life_h=60.0).warnings == ()


def test_a_given_map_is_taken_over_and_its_sum_kept_on_another_grid():
    activity, labels = case()
    grid = activity.grid.with_spacing((5.0, 5.0, 4.0))
    values = np.zeros(grid.shape)
    values[8:16, 8:12, 8:12] = 3.0
    result = from_map(ImageVolume(grid, values, unit="MBq*s"), labels, administered_MBq=100)
    assert result.total_MBq_s == pytest.approx(values.sum(), rel=1e-5)
    per_ml = from_map(ImageVolume(grid, values / grid.voxel_volume_ml, unit="MBq*s/ml"), labels)
    assert np.allclose(per_ml.tia_MBq_s, result.tia_MBq_s)
    assert sum(row.residence_time_h for row in result.organs) == pytest.approx(values.sum() / 100 / 3600, rel=1e-5)
    with pytest.raises(SynthDoseError, match="allowed are"):
        from_map(ImageVolume(grid, values, unit="Bq/ml"), labels)


def test_organ_activities_fill_organs_evenly():
    _, labels = case()
    sources = [
        OrganSource("liver", activity_MBq=100.0, hours_after_administration=10.0, effective_half_life_h=50.0),
        OrganSource("rest_of_body", residence_time_h=2.0),
    ]
    result = from_organs(sources, labels, physical_half_life_s=LU177_S, administered_MBq=200.0)
    liver = 100 * 2 ** (10 / 50) * 50 * 3600 / math.log(2)
    assert result.tia_MBq_s[4, 4, 4] == pytest.approx(liver / 27, rel=1e-6)
    assert result.total_MBq_s == pytest.approx(liver + 2 * 3600 * 200, rel=1e-6)
    both = from_organs(
        [OrganSource("all", tia_MBq_s=512.0)], labels, physical_half_life_s=1e5, groups={"all": ("liver", "rest_of_body")}
    )
    assert np.unique(both.tia_MBq_s).tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ([], "No organ activity"),
        ([OrganSource("liver")], "one way"),
        ([OrganSource("liver", tia_MBq_s=1, activity_MBq=2)], "one way"),
        ([OrganSource("liver", tia_MBq_s=-1)], "above 0"),
        ([OrganSource("liver", residence_time_h=1)], "administered_MBq"),
        ([OrganSource("spleen", tia_MBq_s=1)], "empty"),
        ([OrganSource("heart", tia_MBq_s=1)], "no organ 'heart'"),
        ([OrganSource("liver", tia_MBq_s=1)] * 2, "twice"),
        ([OrganSource("liver", activity_MBq=1, hours_after_administration=-1)], "after administration"),
        ([OrganSource("liver", activity_MBq=1, effective_half_life_h=500)], "longer than the physical"),
    ],
)
def test_organ_activities_that_make_no_sense_are_refused(sources, message):
    _, labels = case()
    with pytest.raises(SynthDoseError, match=message):
        from_organs(sources, labels, physical_half_life_s=LU177_S)


def test_counts_and_suv_become_concentrations():
    activity, _ = case()
    counts = ImageVolume(activity.grid, np.full(activity.grid.shape, 600.0), "NM", "counts", START)
    converted = activity_from_counts(counts, sensitivity_cps_per_MBq=10.0, duration_s=1200.0)
    assert converted.unit == "Bq/ml"
    assert np.allclose(converted.values, 600 / 1200 / 10 * 1e6)  # voxels of 1 ml
    suv = ImageVolume(activity.grid, np.ones(activity.grid.shape), "PT", "g/ml", START)
    # one half-life after 400 MBq in 80 kg, SUV 1 is 200 MBq / 80 kg
    half = activity_from_suv(suv, injected_MBq=400, weight_kg=80, seconds_since_injection=6586.2, physical_half_life_s=6586.2)
    assert np.allclose(half.values, 200e6 / 80e3)
    with pytest.raises(SynthDoseError, match="after the injection"):
        activity_from_suv(suv, injected_MBq=400, weight_kg=80, seconds_since_injection=-1, physical_half_life_s=6586.2)


def test_the_synthetic_patient_gets_back_the_decays_it_was_made_with():
    patient = synthetic_patient(3)
    truth = patient.truth["regions"]
    half_lives = {name: region["effective_half_life_h"] for name, region in truth.items() if name != "rest_of_body"}
    labels = fill_rest(patient)
    result = integrate(
        patient.spect,
        labels,
        effective_half_life_h=half_lives,
        rest_effective_half_life_h=truth["rest_of_body"]["effective_half_life_h"],
        administered_at=datetime.fromisoformat(patient.truth["administered_at"]),
    )
    at_scan = sum(row.activity_at_scan_MBq for row in result.organs)
    assert at_scan == pytest.approx(sum(region["activity_MBq"] for region in truth.values()), rel=0.02)  # Poisson noise, blur
    for row in result.organs:
        known = truth[row.organ]
        expected = known["time_integrated_activity_MBq_s"] / known["activity_MBq"]
        assert row.tia_MBq_s / row.activity_at_scan_MBq == pytest.approx(expected, rel=1e-5)


def fill_rest(patient):
    """Labels of the patient with everything denser than air as the rest of the body."""
    organs = (*patient.labels.organs, Organ(max(o.index for o in patient.labels.organs) + 1, "rest_of_body"))
    labels = patient.labels.labels.copy()
    labels[(labels == 0) & (patient.ct.values > -500)] = organs[-1].index
    return LabelMap(patient.labels.grid, labels, organs)


def test_scans_on_one_grid_are_compared_with_the_phantom_once_and_on_another_again(monkeypatch):
    looked = []
    plain = regrid._covered
    monkeypatch.setattr(regrid, "_covered", lambda *grids: looked.append(1) or plain(*grids))
    _, labels = case()
    body = labels.labels > 0
    wide, narrow = (VoxelGrid.from_spacing((n, 20, 20), (7.0, 7.0, 7.0)) for n in (20, 8))
    for grids, expected in (((wide,) * 4, 1), ((narrow,) * 4, 2), ((narrow, wide, narrow), 2 + 1 + 1)):
        covered = regrid.Covered()
        looked.clear()
        for grid in grids:
            shared, alone = Findings(), Findings()
            values = np.full(grid.shape, 1000.0, np.float32)
            with_others = regrid.onto_phantom(values, grid, labels, body, shared, covered=covered)
            count = len(looked)
            np.testing.assert_array_equal(with_others, regrid.onto_phantom(values, grid, labels, body, alone))
            assert shared.notes == alone.notes
            del looked[count:]
        assert len(looked) == expected
