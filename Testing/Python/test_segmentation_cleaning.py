"""Islands, holes, sides and cut organs: what is mended, what is only told, and what is left alone."""

from __future__ import annotations

import numpy as np
import pytest

from SynthDoseLib.core import ImageVolume, LabelMap, Organ, VoxelGrid
from SynthDoseLib.segmentation import canonical_organs, clean_labels, cut_organs, organ_shapes

GRID = VoxelGrid.from_spacing((40, 50, 60), (2.0, 2.0, 2.0))
NAMES = ("liver", "kidney_left", "kidney_right", "lung_left", "body", "lesion")


def ball(centre_ras, radius_mm, grid=GRID):
    k, j, i = np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij")
    return np.linalg.norm(grid.to_ras(np.stack([i, j, k], axis=-1)) - centre_ras, axis=-1) < radius_mm


def label_map(masks, grid=GRID, notes=()) -> LabelMap:
    values = np.zeros(grid.shape, np.uint16)
    for name, mask in masks:
        values[mask] = NAMES.index(name) + 1
    return LabelMap(grid, values, tuple(Organ(n, name) for n, name in enumerate(NAMES, start=1)), notes)


def test_every_shape_is_of_a_known_organ():
    assert set(organ_shapes()) <= set(canonical_organs())
    assert organ_shapes()["liver"].one_piece
    assert organ_shapes()["body"].container
    assert not organ_shapes()["lung_left"].solid
    assert "ribs" not in organ_shapes()


def test_islands_go_to_what_is_around_them():
    body, liver = ball((0, 0, 0), 38), ball((20, 0, 0), 14)
    inner, outer = ball((-20, 0, 0), 4), ball((55, 45, 30), 4)
    mended = clean_labels(label_map([("body", body), ("liver", liver | inner | outer)]))
    np.testing.assert_array_equal(mended.mask("liver"), liver)
    assert (mended.labels[inner] == NAMES.index("body") + 1).all()
    assert (mended.labels[outer & ~body] == 0).all()
    assert any("Islands" in note and "liver" in note for note in mended.notes)


def test_couch_and_cables_apart_from_the_body_are_taken_away_and_an_arm_stays():
    body, arm, couch = ball((10, 0, 0), 30), ball((-45, 0, 0), 13), ball((-40, -40, -30), 4)
    mended = clean_labels(label_map([("body", body | arm | couch)]))
    np.testing.assert_array_equal(mended.mask("body"), body | arm)
    assert any("apart from the body" in note for note in mended.notes)
    liver, far = ball((10, 0, 0), 30), ball((-45, 0, 0), 6)
    alone = clean_labels(label_map([("liver", liver), ("lesion", far)]))  # without the body nobody knows what is between
    assert alone.mask("lesion").sum() == far.sum()


def test_two_parts_of_like_size_stay_as_they_are():
    both = ball((20, 0, 0), 12) | ball((-20, 0, 0), 11)
    assert clean_labels(label_map([("liver", both)])).mask("liver").sum() == both.sum()


def test_holes_of_nothing_are_filled_but_a_lesion_and_the_vessels_of_a_lung_stay():
    liver, hole, lesion = ball((20, 0, 0), 16), ball((16, 0, 0), 4), ball((26, 0, 0), 4)
    lung, vessel = ball((-25, 0, 0), 16), ball((-25, 0, 0), 4)
    mended = clean_labels(label_map([("liver", liver & ~hole), ("lesion", lesion), ("lung_left", lung & ~vessel)]))
    assert mended.mask("liver")[hole].all()
    assert mended.mask("lesion").sum() == lesion.sum()
    assert not mended.mask("lung_left")[vessel].any()
    assert any("Holes were filled: liver" in note for note in mended.notes)


def test_a_large_hole_is_no_slip():
    liver, hole = ball((20, 0, 0), 16), ball((20, 0, 0), 9)
    assert not clean_labels(label_map([("liver", liver & ~hole)])).mask("liver")[hole].any()


AXES = {"RAS": np.eye(3), "LPS": np.diag([-1.0, -1.0, 1.0]), "sagittal": np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])}


@pytest.mark.parametrize("axes", AXES)
def test_parts_on_the_wrong_side_go_to_the_partner(axes):
    grid = VoxelGrid.from_spacing((60, 60, 60), (2.0, 2.0, 2.0), directions=AXES[axes])
    left, right = ball((-30, 0, 0), 14, grid), ball((30, 0, 0), 14, grid)
    piece = ball((30, 0, 25), 7, grid)
    mended = clean_labels(label_map([("kidney_right", right), ("kidney_left", left | piece)], grid))
    assert (mended.labels[piece & ~right] != NAMES.index("kidney_left") + 1).all()
    np.testing.assert_array_equal(mended.mask("kidney_left"), left)
    assert any("wrong side" in note and "kidney_left" in note for note in mended.notes)


@pytest.mark.parametrize("axes", AXES)
def test_swapped_sides_are_told_of_and_not_mended(axes):
    grid = VoxelGrid.from_spacing((60, 60, 60), (2.0, 2.0, 2.0), directions=AXES[axes])
    masks = [("kidney_left", ball((30, 0, 0), 14, grid)), ("kidney_right", ball((-30, 0, 0), 14, grid))]
    found = clean_labels(label_map(masks, grid))
    assert any("Left lies to the right of right: kidney" in note for note in found.notes)
    np.testing.assert_array_equal(found.labels, label_map(masks, grid).labels)
    right_way = [("kidney_left", masks[1][1]), ("kidney_right", masks[0][1])]
    assert not clean_labels(label_map(right_way, grid)).notes


@pytest.mark.parametrize("axes", AXES)
def test_organs_that_the_image_cuts_are_named_with_the_place(axes):
    grid = VoxelGrid.from_spacing((60, 60, 60), (2.0, 2.0, 2.0), directions=AXES[axes])
    masks = [
        ("body", np.ones(grid.shape, bool)),
        ("liver", ball((20, 0, 55), 12, grid)),
        ("kidney_right", ball((58, 0, -58), 10, grid)),
        ("lesion", ball((0, 0, 0), 9, grid)),
    ]
    labels = label_map(masks, grid)
    found = {name: set(places) for name, places in cut_organs(labels).items()}
    assert found == {"liver": {"superior"}, "kidney_right": {"right", "inferior"}}
    note = clean_labels(labels).notes[-1]
    assert "liver (superior)" in note
    assert "body" not in note


def test_the_scanners_circle_cuts_organs_too():
    liver = ball((20, 0, 0), 14)
    values = np.zeros(GRID.shape, np.float32)
    k, j, i = np.meshgrid(*(np.arange(n) for n in GRID.shape), indexing="ij")
    values[GRID.to_ras(np.stack([i, j, k], axis=-1))[..., 0] > 28] = -3024
    found = cut_organs(label_map([("liver", liver & (values > -3000))]), ImageVolume(GRID, values, modality="CT"))
    assert found == {"liver": ("beyond the scanner's circle",)}
    assert not cut_organs(label_map([("liver", ball((0, 0, 0), 9))]), ImageVolume(GRID, values, modality="CT"))
