"""From CT and labels to material, density and organs."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from SynthDoseLib.core import ImageVolume, LabelMap, Organ, SynthDoseError, VoxelGrid
from SynthDoseLib.phantom import CalibrationRangeError, HUCalibration, add_box, body, build_phantom, find_body, organ_masses
from SynthDoseLib.physics import get_material

SHARED = Path(__file__).resolve().parents[3] / "shared"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared")
RADIUS_MM = 60.0


def water_sphere(spacing_mm=(2.0, 2.0, 2.5), directions=None):
    """Sphere of 0 HU in air, its upper half labelled, with partial volume at its surface."""
    shape = tuple(int(150 / s) for s in spacing_mm[::-1])
    grid = VoxelGrid.from_spacing(shape, spacing_mm, directions=directions)
    k, j, i = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    ras = grid.to_ras(np.stack([i, j, k], axis=-1))
    distance = np.linalg.norm(ras, axis=-1)
    inside = np.clip((RADIUS_MM - distance) / 2.2 + 0.5, 0, 1)
    ct = ImageVolume(grid, (-1000 + 1000 * inside).astype(np.float32), "CT", "HU")
    labels = ((distance < RADIUS_MM) & (ras[..., 2] > 0)).astype(np.uint16)
    return ct, LabelMap(grid, labels, (Organ(1, "upper"),))


LINEAR = HUCalibration((-1000, 0, 1000), (0.0012, 1.0, 1.6), (-1050, -900), (get_material("air"), get_material("water")))


def patient(noise=15.0):
    """Elliptic cylinder with two lungs and a bowel gas bubble on a thin curved couch with a mattress edge."""
    grid = VoxelGrid.from_spacing((24, 140, 180), (2.5, 2.5, 5.0))
    _, j, i = np.ogrid[:24, :140, :180]
    x, y = (i - 89.5) * 2.5, (j - 69.5) * 2.5
    hu = np.full(grid.shape, -1000.0, np.float32)
    body = np.broadcast_to((x / 170) ** 2 + (y / 110) ** 2 < 1, grid.shape)
    hu[body] = 30
    lungs = np.broadcast_to(((np.abs(x) - 80) / 55) ** 2 + (y / 75) ** 2 < 1, grid.shape)
    hu[lungs] = -780
    gas = np.broadcast_to((x / 20) ** 2 + ((y + 70) / 15) ** 2 < 1, grid.shape)
    hu[gas] = -990
    couch = np.broadcast_to((np.abs(y - 122) < 2.6) & (np.abs(x) < 210), grid.shape)
    hu[couch] = -50
    rng = np.random.default_rng(4)
    hu += rng.normal(0, noise, grid.shape).astype(np.float32)
    labels = np.where(lungs & (x > 0), 1, np.where(lungs, 2, 0)).astype(np.uint16)
    ct = ImageVolume(grid, hu, "CT", "HU")
    return ct, LabelMap(grid, labels, (Organ(1, "lung_right"), Organ(2, "lung_left"))), body, gas, couch


@pytest.mark.parametrize("oblique", [False, True])
def test_a_water_sphere_has_its_mass(oblique):
    c, s = np.cos(0.3), np.sin(0.3)
    ct, labels = water_sphere(directions=np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) if oblique else None)
    phantom = build_phantom(ct, labels, calibration=LINEAR)
    masses = {row.organ: row for row in organ_masses(phantom)}
    expected = 4 / 3 * np.pi * (RADIUS_MM / 10) ** 3
    assert masses["upper"].mass_g + masses["rest_of_body"].mass_g == pytest.approx(expected, rel=0.01)
    assert masses["upper"].mass_g == pytest.approx(expected / 2, rel=0.03)
    assert masses["upper"].density_g_cm3 == pytest.approx(1.0, abs=0.02)
    assert phantom.density_g_cm3[0, 0, 0] == 0


def test_couch_and_room_are_vacuum_and_air_inside_stays():
    ct, labels, body, gas, couch = patient()
    phantom = build_phantom(ct, labels)
    inside = phantom.density_g_cm3 > 0
    assert not inside[couch].any()
    assert inside[body].mean() > 0.995
    assert (inside & ~body).sum() < 0.005 * body.sum()
    assert phantom.density_g_cm3[gas].mean() == pytest.approx(0.01, abs=0.012)
    rows = {row.organ: row for row in organ_masses(phantom)}
    # Schneider: lung line between (-1000, 0.00121) and (-98, 0.93)
    assert rows["lung_right"].density_g_cm3 == pytest.approx(0.00121 + 220 / 902 * 0.92879, rel=0.01)
    # gas of the bowel is air, not rest of the body
    assert phantom.labels.mask("rest_of_body")[gas].mean() < 0.2
    assert any("left out" in note for note in phantom.notes)


def test_every_dense_body_voxel_belongs_to_an_organ_and_masses_add_up():
    ct, labels, *_ = patient()
    phantom = build_phantom(ct, labels)
    unlabelled = phantom.density_g_cm3[phantom.labels.labels == 0]
    assert unlabelled.max() < 0.05
    total = phantom.density_g_cm3.sum(dtype=np.float64) * phantom.grid.voxel_volume_ml
    assert sum(row.mass_g for row in organ_masses(phantom)) == pytest.approx(total, rel=1e-3)


def test_materials_are_few_and_carry_the_mean_density_of_their_voxels():
    ct, labels, *_ = patient()
    phantom = build_phantom(ct, labels)
    used = np.unique(phantom.material_index[phantom.density_g_cm3 > 0])
    assert len(used) == len(phantom.materials) <= 25
    for number in used:
        voxels = (phantom.material_index == number) & (phantom.density_g_cm3 > 0)
        mean = phantom.density_g_cm3[voxels].mean(dtype=np.float64)
        assert phantom.materials[number].density_g_cm3 == pytest.approx(mean, rel=1e-4)


def test_metal_without_a_name_is_refused_with_count_place_and_remedy():
    ct, labels, *_ = patient()
    values = np.array(ct.values)
    values[10:12, 60:63, 100:103] = 3071
    ct = ImageVolume(ct.grid, values, "CT", "HU")
    with pytest.raises(CalibrationRangeError, match=r"18 voxels of the body .*up to 3071 HU, at RAS \[2\d, -2\d, .*titanium"):
        build_phantom(ct, labels)
    phantom = build_phantom(ct, labels, metal="titanium")
    assert phantom.materials[phantom.material_index[10, 61, 101]].mass_fractions == {"Ti": 1.0}
    assert phantom.density_g_cm3[10, 61, 101] == pytest.approx(4.54)
    assert any("18 voxels" in note and "titanium" in note for note in phantom.notes)


def test_dense_bone_above_the_calibration_is_not_taken_for_metal():
    ct, labels, *_ = patient()
    values = np.array(ct.values)
    values[10:12, 60:63, 100:103] = 1900
    ct = ImageVolume(ct.grid, values, "CT", "HU")
    phantom = build_phantom(ct, labels)
    assert phantom.density_g_cm3[10, 61, 101] == pytest.approx(1.9642)  # the last knot: HU 1600
    assert any(
        note.startswith("18 voxels of the body") and "up to 1900 HU" in note and "dense bone" in note for note in phantom.notes
    )
    phantom = build_phantom(ct, labels, metal="titanium")  # the user knows better
    assert phantom.density_g_cm3[10, 61, 101] == pytest.approx(4.54)
    values = np.array(values)
    values[10:12, 40:42, 100:102] = 3071
    values[10:12, 42, 100:102] = 1700  # the blurred edge of the implant
    phantom = build_phantom(ImageVolume(ct.grid, values, "CT", "HU"), labels, metal="titanium")
    assert phantom.density_g_cm3[10, 40:43, 100] == pytest.approx([4.54] * 3)
    assert phantom.density_g_cm3[10, 61, 101] == pytest.approx(1.9642)


def test_metal_outside_the_body_does_not_matter():
    ct, labels, *_ = patient()
    values = np.array(ct.values)
    values[:, 138:140, :5] = 3071
    assert build_phantom(ImageVolume(ct.grid, values, "CT", "HU"), labels).density_g_cm3.max() < 1.2


def test_numbers_below_the_calibration_are_air_counted_and_reported():
    ct, labels, _, gas, _ = patient(noise=0.0)
    values = np.array(ct.values)
    values[gas] = -1024
    phantom = build_phantom(ImageVolume(ct.grid, values, "CT", "HU"), labels)
    assert any(note.startswith(f"{int(gas.sum())} voxels of the body are below") for note in phantom.notes)
    assert phantom.density_g_cm3[gas].max() == pytest.approx(0.00121)


def test_overrides_by_material_density_or_both():
    ct, labels, *_ = patient()
    phantom = build_phantom(
        ct,
        labels,
        overrides={"lung_right": {"material": "lung", "density_g_cm3": 0.3}, "lung_left": 0.25},
    )
    right, left = phantom.labels.mask("lung_right"), phantom.labels.mask("lung_left")
    assert np.unique(phantom.density_g_cm3[right]).tolist() == pytest.approx([0.3])
    assert np.unique(phantom.density_g_cm3[left]).tolist() == pytest.approx([0.25])
    lung = phantom.materials[phantom.material_index[right][0]]
    assert lung.mass_fractions == pytest.approx(get_material("lung").mass_fractions)
    named = build_phantom(ct, labels, overrides={"lung_left": "muscle"})
    assert named.density_g_cm3[left].min() == pytest.approx(1.05)
    kept = build_phantom(ct, labels, overrides={"lung_left": {"material": "muscle", "density_g_cm3": "ct"}})
    assert kept.density_g_cm3[left].mean() == pytest.approx(0.228, rel=0.02)
    assert sum("(override)" in note for note in phantom.notes) == 2


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"liver": 1.0}, "no organ 'liver'"),
        ({"lung_left": "lungg"}, "no material 'lungg'"),
        ({"lung_left": -1.0}, "above 0"),
        ({"lung_left": {"densty": 1}}, "keys material and density_g_cm3"),
        ({"lung_left": True}, "override of 'lung_left'"),
    ],
)
def test_bad_overrides_are_refused(overrides, message):
    ct, labels, *_ = patient()
    with pytest.raises(SynthDoseError, match=message):
        build_phantom(ct, labels, overrides=overrides)


def test_a_given_body_wins_and_labels_outside_it_are_taken_in_and_noted():
    ct, labels, body, _, _ = patient()
    half = body & (np.arange(180) < 90)
    phantom = build_phantom(ct, labels, body=half)
    assert ((phantom.density_g_cm3 > 0) == (half | (labels.labels > 0))).all()
    assert any("labelled voxels outside the body" in note for note in phantom.notes)
    with pytest.raises(SynthDoseError, match="shape"):
        build_phantom(ct, labels, body=half[1:])
    with pytest.raises(SynthDoseError, match="empty"):
        build_phantom(ct, labels, body=np.zeros_like(half))


def test_labels_on_another_grid_are_resampled_with_a_note_and_refused_elsewhere():
    ct, labels = water_sphere()
    _, other = water_sphere(spacing_mm=(3.0, 3.0, 3.0))
    phantom = build_phantom(ct, other, calibration=LINEAR)
    assert any("resampled" in note for note in phantom.labels.notes)
    expected = {row.organ: row.mass_g for row in organ_masses(build_phantom(ct, labels, calibration=LINEAR))}
    assert organ_masses(phantom)[0].mass_g == pytest.approx(expected["upper"], rel=0.03)
    matrix = other.grid.ijk_to_ras.copy()
    matrix[:3, 3] += 1000
    with pytest.raises(SynthDoseError, match="does not overlap"):
        build_phantom(ct, LabelMap(VoxelGrid(other.grid.shape, matrix), other.labels, other.organs))


def test_an_empty_organ_is_noted():
    ct, labels, *_ = patient()
    more = LabelMap(labels.grid, labels.labels, (*labels.organs, Organ(7, "spleen")))
    phantom = build_phantom(ct, more)
    assert any("without a voxel: spleen" in note for note in phantom.notes)
    assert next(row for row in organ_masses(phantom) if row.organ == "spleen").mass_g == 0


@pytest.mark.parametrize(("value", "message"), [(np.nan, "not finite"), (-1000.0, "no body")])
def test_images_without_a_body_or_with_holes_are_refused(value, message):
    ct, labels, *_ = patient()
    values = np.full(ct.grid.shape, -1000.0, np.float32)
    values[0, 0, 0] = value
    with pytest.raises(SynthDoseError, match=message):
        build_phantom(ImageVolume(ct.grid, values, "CT", "HU"), labels)


def test_an_mr_image_is_refused():
    ct, labels, *_ = patient()
    with pytest.raises(SynthDoseError, match="modality 'MR'"):
        build_phantom(ImageVolume(ct.grid, ct.values, "MR", ""), labels)


def test_legs_and_arms_are_part_of_the_body():
    grid = VoxelGrid.from_spacing((10, 100, 160), (2.5, 2.5, 5.0))
    _, j, i = np.ogrid[:10, :100, :160]
    legs = [np.broadcast_to((i - centre) ** 2 + (j - 50) ** 2 < 28**2, grid.shape) for centre in (45, 115)]
    hu = np.where(legs[0] | legs[1], 20.0, -1000.0).astype(np.float32)
    assert (find_body(ImageVolume(grid, hu, "CT", "HU")) == (legs[0] | legs[1])).all()


def test_a_box_is_a_source_region():
    ct, labels = water_sphere()
    boxed = add_box(labels, "lesion", (-10, -10, 5), (10, 10, 25))
    assert boxed.voxel_counts()["lesion"] * boxed.grid.voxel_volume_ml == pytest.approx(8.0, rel=0.15)
    ras = boxed.grid.to_ras(np.argwhere(boxed.mask("lesion"))[:, ::-1])
    assert ras.min(axis=0) == pytest.approx([-10, -10, 5], abs=2.6)
    assert boxed.voxel_counts()["upper"] == labels.voxel_counts()["upper"] - boxed.voxel_counts()["lesion"]
    assert "takes" in boxed.notes[-1]
    spared = add_box(labels, "lesion", (-10, -10, -25), (10, 10, 25), only_background=True)
    assert spared.voxel_counts()["upper"] == labels.voxel_counts()["upper"]
    assert build_phantom(ct, boxed, calibration=LINEAR).mass_g()["lesion"] == pytest.approx(8.0, rel=0.15)


@pytest.mark.parametrize(
    ("name", "lower", "upper", "message"),
    [
        ("upper", (0, 0, 0), (1, 1, 1), "already"),
        ("box", (5, 0, 0), (-5, 1, 1), "first below the second"),
        ("box", (900, 900, 900), (950, 950, 950), "No voxel centre lies in the box 'box'.*reaches"),
        ("box", (0, 0), (1, 1), "two corners"),
    ],
)
def test_bad_boxes_are_refused(name, lower, upper, message):
    _, labels = water_sphere()
    with pytest.raises(SynthDoseError, match=message):
        add_box(labels, name, lower, upper)


def test_a_whole_trunk_ct_is_built_in_seconds():
    small, *_ = patient()
    values = np.repeat(np.repeat(np.repeat(small.values, 3, axis=1), 2, axis=2), 3, axis=0)
    grid = VoxelGrid.from_spacing(values.shape, (1.25, 0.83, 1.67))
    labels = LabelMap(grid, np.zeros(grid.shape, np.uint16), ())
    start = time.process_time()
    build_phantom(ImageVolume(grid, values, "CT", "HU"), labels)
    # 10.9 million voxels: 0.8 s on a quiet core; 512 x 512 x 100 in 2 s
    assert time.process_time() - start < 8


@needs_shared
def test_a_real_torso_loses_its_couch_and_asks_for_the_metal_of_its_hip():
    from SynthDoseLib.io import read_image

    ct = read_image(SHARED / "data" / "images" / "ct_torso_totalseg" / "example_ct.nii.gz")
    labels = LabelMap(ct.grid, np.zeros(ct.grid.shape, np.uint16), ())
    with pytest.raises(CalibrationRangeError, match=r"580 voxels of the body \(15.7 ml\).*3382 HU"):
        build_phantom(ct, labels)
    phantom = build_phantom(ct, labels, metal="titanium_grade5")
    body = phantom.density_g_cm3 > 0
    # the couch lies in the first rows of the image, apart from the back
    column = np.flatnonzero(body[60, :, 60])
    assert column[0] >= 5
    outside = ((ct.values > -300) & ~body).sum() * ct.grid.voxel_volume_ml
    assert 100 < outside < 300
    (rest,) = organ_masses(phantom)
    assert 0.95 < rest.density_g_cm3 < 1.05  # a trunk of an adult with much fat and some bowel gas


@needs_shared
def test_real_organs_have_the_volumes_of_the_tool_that_made_them_and_plausible_masses():
    from SynthDoseLib.io import read_image

    folder = SHARED / "data" / "images" / "ct_torso_totalseg"
    ct, fast = read_image(folder / "example_ct_sm.nii.gz"), read_image(folder / "example_seg_fast.nii.gz")
    names = {1: "spleen", 2: "kidney_right", 3: "kidney_left", 4: "gallbladder", 5: "liver"}
    values = np.where(np.isin(fast.values, list(names)), fast.values, 0).astype(np.uint16)
    phantom = build_phantom(ct, LabelMap(fast.grid, values, tuple(Organ(n, name) for n, name in names.items())))
    statistics = json.loads((folder / "example_seg_fast_statistics.json").read_text())
    for row in organ_masses(phantom)[:-1]:
        assert row.volume_ml == pytest.approx(statistics[row.organ]["volume"] / 1000, rel=1e-6)
        # the tool's mean HU on Schneider's soft-tissue line; ICRU 44 has 1.05 for kidney, 1.06 for liver and spleen
        assert row.density_g_cm3 == pytest.approx(1.003 + 1.169e-3 * statistics[row.organ]["intensity"], rel=0.015)
        assert row.density_g_cm3 == pytest.approx(1.05, rel=0.04)


@pytest.mark.parametrize("spacing", [(3.0, 3.0, 3.0), (1.7, 2.9, 2.6), (4.8, 1.5, 2.0)])
@pytest.mark.parametrize("radius", [3.0, 7.5])
def test_a_ball_around_a_mask_is_what_the_distance_to_it_says(spacing, radius):
    random = np.random.default_rng(5)
    mask = ndimage.gaussian_filter(random.standard_normal((20, 25, 30)), 2) > 0.1
    expected = ndimage.distance_transform_edt(~mask, sampling=spacing) <= radius
    np.testing.assert_array_equal(body._within(mask, radius, np.array(spacing)), expected)
    assert not body._within(np.zeros_like(mask), radius, np.array(spacing)).any()


def test_the_body_of_a_large_image_takes_seconds():
    """A cylinder with a lung and a couch in 512 x 512 x 100 voxels: a quarter of a whole body, for which 5 s are allowed."""
    j, i = np.ogrid[:512, :512]
    radius = np.hypot(j - 230.0, i - 256.0)
    plane = np.where(radius < 180, np.where(radius < 60, -850.0, 0.0), -1000.0).astype(np.float32)
    plane[440:443, 60:450] = 200.0
    grid = VoxelGrid.from_spacing((100, 512, 512), (0.9, 0.9, 2.0))
    ct = ImageVolume(grid, np.broadcast_to(plane, grid.shape), "CT", "HU")
    begun = time.process_time()
    found = find_body(ct)
    assert time.process_time() - begun < 4  # 1 s, and more on a busy computer
    np.testing.assert_array_equal(found[50], radius < 180)
