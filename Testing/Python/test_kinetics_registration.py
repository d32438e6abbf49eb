"""Registration of time points: known displacements are found, frames of reference respected, failures said."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from SynthDoseLib.core import ImageVolume, LabelMap, SynthDoseError, VoxelGrid, organ_table
from SynthDoseLib.kinetics.registration import register, same_frame
from SynthDoseLib.kinetics.registration_quality import (
    checkerboard,
    dice,
    normalised_mutual_information,
    residual_displacement_mm,
)
from SynthDoseLib.kinetics.transforms import (
    SpatialTransform,
    from_to_parent,
    moved_image,
    moved_labels,
    read_transform,
    rotation_degrees,
    voxel_centres,
)

GRID = VoxelGrid.from_spacing((40, 36, 46), (6.0, 6.0, 6.0))
_RNG = np.random.default_rng(0)
BLOBS = [(*_RNG.uniform((-80, -55, -80), (80, 55, 80)), _RNG.uniform(12, 30), _RNG.uniform(-150, 250)) for _ in range(40)]


def scene(x):
    """CT numbers of a body with forty organs at positions x, RAS mm."""
    radius = np.sqrt((x[..., 0] / 125) ** 2 + (x[..., 1] / 90) ** 2)
    body = 1 / (1 + np.exp((radius - 1) * 60)) / (1 + np.exp((np.abs(x[..., 2]) - 105) / 4))
    values = -1000 + 1040 * body
    for a, b, c, s, h in BLOBS:
        values = values + h * body * np.exp(-((x[..., 0] - a) ** 2 + (x[..., 1] - b) ** 2 + (x[..., 2] - c) ** 2) / (2 * s * s))
    return values


def activity(x, hours):
    """Activity of the same body: each organ with its own clearance."""
    body = scene(x) > -300
    values = 200.0 * body
    for n, (a, b, c, s, _) in enumerate(BLOBS[:15]):
        height = 3000.0 * (1 + n % 4) * 2 ** (-hours / (30 + 8 * n))
        values = values + height * np.exp(-((x[..., 0] - a) ** 2 + (x[..., 1] - b) ** 2 + (x[..., 2] - c) ** 2) / (2 * s * s))
    return values


def image(values, modality="CT", noise=15.0, seed=1, frame="", grid=GRID):
    rng = np.random.default_rng(seed)
    unit = "HU" if modality == "CT" else "Bq/ml"
    noisy = values + noise * rng.standard_normal(values.shape)
    return ImageVolume(grid, noisy.astype(np.float32), modality, unit, None, {"frame_of_reference_uid": frame} if frame else {})


def known(degrees, shift):
    """Matrix from the reference to the other image."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(np.radians(degrees) * np.array([1, 2, 3]) / 14**0.5).as_matrix()
    matrix[:3, 3] = shift
    return matrix


def seen_after(matrix):
    """Where the points of the grid of the other image come from in the reference."""
    inverse = np.linalg.inv(matrix)
    return voxel_centres(GRID) @ inverse[:3, :3].T + inverse[:3, 3]


def errors(transform, truth):
    points = voxel_centres(GRID)[scene(voxel_centres(GRID)) > -300]
    return np.linalg.norm(transform.points(points) - truth(points), axis=-1)


@pytest.mark.parametrize(
    ("degrees", "shift", "method"),
    [(0.0, (1.0, 0.0, 0.0), "rigid"), (1.0, (0.0, 0.0, 0.0), "rigid"), (4.0, (8, -12, 10), "affine")],
)
def test_a_known_shift_of_1_mm_and_a_turn_of_1_degree_are_found(degrees, shift, method):
    matrix = known(degrees, shift)
    fixed, moving = image(scene(voxel_centres(GRID))), image(scene(seen_after(matrix)), seed=2)
    found = register(fixed, moving, method=method)
    assert found.accepted
    off = errors(found.transform, lambda x: x @ matrix[:3, :3].T + matrix[:3, 3])
    assert off.mean() < (0.2 if method == "rigid" else 0.6)  # of voxels of 6 mm
    assert rotation_degrees(found.transform) == pytest.approx(degrees, abs=0.15)
    assert found.quality.nmi_after > found.quality.nmi_before
    assert found.quality.body_dice_after > 0.98
    assert found.quality.folded_fraction == 0
    assert "was registered" in found.notes[0]
    if method == "rigid":
        again = moved_image(moving, found.transform)
        assert np.array_equal(again.values, moving.values)  # only the grid moved: nothing was interpolated
        np.testing.assert_allclose(
            again.grid.to_ras((20, 20, 20)), np.linalg.inv(matrix)[:3] @ [*GRID.to_ras((20, 20, 20)), 1], atol=0.5
        )


def test_activity_of_two_days_is_registered_in_spite_of_clearance():
    matrix = known(2.0, (5.0, -4.0, 3.0))
    fixed = image(activity(voxel_centres(GRID), 24), "NM", noise=30.0)
    moving = image(activity(seen_after(matrix), 120), "NM", noise=30.0, seed=2)
    found = register(fixed, moving, what="time point 2")
    assert found.accepted
    off = errors(found.transform, lambda x: x @ matrix[:3, :3].T + matrix[:3, 3])
    assert off.mean() < 1.0  # a sixth of a voxel
    assert found.notes[0].startswith("time point 2 was registered")


def test_a_smooth_deformation_is_mostly_undone_without_folding():
    def shift(x):
        along = 5 * np.sin(x[..., 1] / 50) * np.cos(x[..., 2] / 60), 4 * np.sin(x[..., 2] / 45)
        return np.stack([*along, 6 * np.cos(x[..., 0] / 55) * np.sin(x[..., 1] / 60)], -1)

    y = voxel_centres(GRID)
    x = y.copy()
    for _ in range(30):  # x + shift(x) = y
        x = y - shift(x)
    fixed, moving = image(scene(y), noise=5.0), image(scene(x), noise=5.0, seed=2)
    found = register(fixed, moving, method="deformable")
    assert found.accepted
    assert found.quality.smallest_jacobian > 0.3
    before = errors(SpatialTransform(), lambda p: p + shift(p))
    after = errors(found.transform, lambda p: p + shift(p))
    assert before.mean() > 4.0
    assert after.mean() < 0.6 * before.mean()


def test_images_of_one_frame_of_reference_stay_where_they_are():
    fixed, moving = image(scene(voxel_centres(GRID)), frame="1.2.3"), image(scene(voxel_centres(GRID)), frame="1.2.3")
    found = register(fixed, moving, method="deformable", what="time point 2")
    assert found.transform.is_identity
    assert "shares the frame of reference" in found.notes[0]
    assert not same_frame(image(scene(voxel_centres(GRID))), moving)


def test_a_registration_that_fails_says_so_and_keeps_the_image():
    elsewhere = VoxelGrid.from_spacing((4, 4, 4), (3.0, 3.0, 3.0), (5000.0, 0.0, 0.0))
    small = image(np.full((4, 4, 4), 5.0), noise=0.0, grid=elsewhere)
    found = register(image(scene(voxel_centres(GRID))), small, what="time point 3")
    assert not found.accepted
    assert "registration of time point 3 failed" in found.warnings[0]
    assert found.transform.is_identity


@pytest.mark.parametrize("seen", ["one voxel", "nothing but background"])
def test_an_image_that_does_not_tell_how_the_body_lies_is_not_moved(seen):
    values = np.zeros(GRID.shape)
    if seen == "one voxel":
        values[10, 10, 12] = 1e6
    else:
        values += 7.0
    fixed = image(activity(voxel_centres(GRID), 24), "NM", noise=30.0)
    for a, b in ((fixed, image(values, "NM", noise=0.0)), (image(values, "NM", noise=0.0), fixed)):
        found = register(a, b, what="time point 2")
        assert not found.accepted
        assert found.transform.is_identity
        assert ("activity in" if seen == "one voxel" else "one value everywhere") in found.warnings[0]


def test_a_given_matrix_moves_the_image_as_slicer_shows_it():
    moving = image(scene(voxel_centres(GRID)))
    to_parent = np.linalg.inv(known(10.0, (20.0, 0.0, -7.0)))
    transform = from_to_parent(to_parent.tolist())
    moved = moved_image(moving, transform)
    np.testing.assert_allclose(moved.grid.ijk_to_ras, to_parent @ GRID.ijk_to_ras, atol=1e-9)
    found = register(moving, moving, given=transform)
    assert found.method == "given"
    assert found.accepted


@pytest.mark.parametrize("ending", ["tfm", "h5"])
def test_transform_files_of_itk_are_read_into_ras(tmp_path, ending):
    sitk = pytest.importorskip("SimpleITK")
    matrix = known(7.0, (3.0, -5.0, 2.0))
    flip = np.diag([-1.0, -1.0, 1.0, 1.0])
    lps = flip @ matrix @ flip
    affine = sitk.AffineTransform(3)
    affine.SetMatrix(lps[:3, :3].ravel().tolist())
    affine.SetTranslation(lps[:3, 3].tolist())
    sitk.WriteTransform(affine, str(tmp_path / f"t.{ending}"))
    found = read_transform(tmp_path / f"t.{ending}", GRID)
    np.testing.assert_allclose(found.matrix_ras, matrix, atol=1e-6)
    assert found.is_rigid
    spline = sitk.BSplineTransform(3)
    spline.SetTransformDomainOrigin((-200.0, -200.0, -200.0))
    spline.SetTransformDomainPhysicalDimensions((400.0, 400.0, 400.0))
    spline.SetTransformDomainMeshSize((4, 4, 4))
    spline.SetParameters(np.random.default_rng(1).normal(0, 5, len(spline.GetParameters())).tolist())
    sitk.WriteTransform(spline, str(tmp_path / f"b.{ending}"))
    bent = read_transform(tmp_path / f"b.{ending}", GRID)
    for point in ((0.0, 10.0, -20.0), (30.0, -40.0, 50.0)):
        expected = np.array(spline.TransformPoint((-point[0], -point[1], point[2]))) * (-1, -1, 1)
        np.testing.assert_allclose(bent.points(point), expected, atol=0.1)  # linear between voxels of 6 mm


def test_labels_are_carried_along():
    labels = np.zeros(GRID.shape, np.uint16)
    labels[15:20, 15:20, 15:20] = 1
    moving = LabelMap(GRID, labels, organ_table(["liver"]))
    shift = from_to_parent([[1, 0, 0, 12], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    carried = moved_labels(moving, shift, GRID)
    expected = np.roll(labels, 2, axis=2)  # two voxels of 6 mm to the right
    assert np.array_equal(carried.labels, expected)
    field = np.zeros((*GRID.shape, 3), np.float32)
    field[..., 0] = -12.0
    bent = SpatialTransform(np.eye(4), field, GRID)
    assert dice(moved_labels(moving, bent, GRID).labels > 0, expected > 0) == 1.0
    assert bent.jacobian(GRID)[20, 18, 20] == pytest.approx(1.0)


def test_organs_that_scatter_between_scans_tell_how_far():
    grid = VoxelGrid.from_spacing((40, 40, 40), (4.0, 4.0, 4.0))
    k, j, i = np.indices(grid.shape)
    ras = grid.to_ras(np.stack([i, j, k], axis=-1))
    values = np.where(np.linalg.norm(ras - (30, 0, 0), axis=-1) < 22, 1, 0)
    values[np.linalg.norm(ras - (-30, 0, 0), axis=-1) < 20] = 2
    organs = LabelMap(grid, values, organ_table(["kidney_left", "kidney_right"]))
    moves = np.array([(0.0, 0.0, 0.0), (3.0, -1.0, 2.0), (-2.0, 2.0, -3.0), (1.0, 0.0, 4.0)])
    scans = []
    for n, move in enumerate(moves):  # clearing, blurred, and elsewhere
        place = np.asarray(move)
        sharp = 8.0 * 0.5**n * sum(np.linalg.norm(ras - place - (x, 0, 0), axis=-1) < r for x, r in ((30, 22), (-30, 20))) + 0.1
        scans.append(ImageVolume(grid, ndimage.gaussian_filter(sharp, 1.2).astype(np.float32), "NM", "Bq/ml"))
    found = residual_displacement_mm(scans, organs)
    assert found is not None
    assert found[1] == 2
    assert found[0] == pytest.approx(math.sqrt(moves.var(axis=0, ddof=1).mean()), rel=0.1)
    assert residual_displacement_mm(scans[:1], organs) is None
    flat = [ImageVolume(grid, np.ones(grid.shape, np.float32), "NM", "Bq/ml")] * 2
    assert residual_displacement_mm(flat, organs) is None


def test_a_stretch_has_its_jacobian():
    x = voxel_centres(GRID)
    field = np.zeros((*GRID.shape, 3), np.float32)
    field[..., 1] = 0.1 * x[..., 1]
    assert np.median(SpatialTransform(np.eye(4), field, GRID).jacobian(GRID)) == pytest.approx(1.1, abs=1e-4)


def test_mutual_information_is_2_for_equal_images_and_1_for_unrelated_ones():
    rng = np.random.default_rng(4)
    a, b = rng.random((60, 60, 60)), rng.random((60, 60, 60))
    everywhere = np.ones(a.shape, bool)
    assert normalised_mutual_information(a, a, everywhere) == pytest.approx(2.0)
    assert normalised_mutual_information(a, b, everywhere) == pytest.approx(1.0, abs=0.01)


def test_a_checkerboard_shows_both_images():
    board = checkerboard(np.zeros((16, 16)), np.ones((16, 16)), fields=4)
    assert board[0, 0] == 0
    assert board[0, 4] == 1
    assert board.mean() == 0.5


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: register(image(np.zeros(GRID.shape)), image(np.zeros(GRID.shape)), method="magic"), "no registration 'magic'"),
        (lambda: register(image(np.zeros(GRID.shape)), image(np.zeros(GRID.shape), "NM")), "cannot be registered"),
        (lambda: from_to_parent(np.diag([-1.0, 1, 1, 1]).tolist()), "mirrors"),
        (lambda: SpatialTransform(np.ones((3, 3))), "4 x 4"),
        (lambda: read_transform("nowhere.tfm", GRID), "does not exist"),
    ],
)
def test_what_makes_no_sense_is_refused(call, says):
    with pytest.raises(SynthDoseError, match=says):
        call()


def test_a_file_that_is_no_transform_is_refused(tmp_path):
    (tmp_path / "t.tfm").write_text("nothing", encoding="utf-8")
    with pytest.raises(SynthDoseError, match="cannot be read as a transform"):
        read_transform(tmp_path / "t.tfm", GRID)
