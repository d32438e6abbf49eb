import numpy as np
import pytest

from SynthDoseLib.core import (
    LabelMap,
    SynthDoseError,
    VoxelGrid,
    organ_table,
    overlap_fraction,
    resample,
    resample_labels,
    resample_mean,
)


def oblique(angle_degree: float) -> np.ndarray:
    c, s = np.cos(np.radians(angle_degree)), np.sin(np.radians(angle_degree))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def test_ras_and_ijk_are_inverse_on_an_oblique_grid():
    grid = VoxelGrid.from_spacing((5, 6, 7), (1.0, 2.0, 3.0), (10, -20, 30), oblique(25))
    ijk = np.array([[0, 0, 0], [6, 5, 4], [1.5, 2.25, 3.75]])
    assert np.allclose(grid.to_ijk(grid.to_ras(ijk)), ijk, atol=1e-12)


def test_a_sheared_grid_is_refused():
    matrix = np.eye(4)
    matrix[0, 1] = 0.01
    with pytest.raises(SynthDoseError, match="not orthogonal"):
        VoxelGrid((2, 2, 2), matrix)


def test_linear_resampling_reproduces_a_linear_field_on_an_oblique_grid():
    source = VoxelGrid.from_spacing((20, 20, 20), (2.0, 2.0, 2.0))
    target = VoxelGrid.from_spacing((6, 6, 6), (2.5, 2.5, 2.5), directions=oblique(30))
    field = np.array([1.0, -2.0, 0.5])

    def values(grid):
        k, j, i = np.indices(grid.shape)
        return (grid.to_ras(np.stack([i, j, k], -1)) @ field).astype(np.float32)

    assert np.allclose(resample(values(source), source, target), values(target), atol=1e-4)


@pytest.mark.parametrize("linear", [True, False])
def test_parallel_grids_give_what_a_slightly_turned_grid_gives(linear):
    """The fast way for parallel axes agrees with the general one, inside and outside, also for reversed axes."""
    rng = np.random.default_rng(5)
    source = VoxelGrid.from_spacing((9, 8, 7), (2.0, 3.0, 4.0), (1.0, 2.0, 3.0))
    values = rng.random(source.shape, dtype=np.float32)
    directions = np.diag([-1.0, 1.0, -1.0])
    target = VoxelGrid.from_spacing((14, 13, 12), (2.7, 2.3, 3.1), (18.1, -3.2, 33.3), directions)
    turned = VoxelGrid.from_spacing((14, 13, 12), (2.7, 2.3, 3.1), (18.1, -3.2, 33.3), directions @ oblique(0.01))
    fast = resample(values, source, target, linear=linear, fill=-7)
    general = resample(values, source, turned, linear=linear, fill=-7)
    assert np.mean(np.abs(fast - general) < 5e-3) > 0.98
    assert (fast == -7).mean() == pytest.approx((general == -7).mean(), abs=0.01)


def test_mean_resampling_keeps_the_sum_over_volume():
    source = VoxelGrid.from_spacing((16, 16, 16), (1.0, 1.0, 1.0))
    values = np.zeros(source.shape, np.float32)
    values[5:11, 4:12, 6:9] = np.random.default_rng(1).random((6, 8, 3))
    target = source.with_spacing((4.0, 4.0, 4.0))
    coarse = resample_mean(values, source, target)
    assert coarse.sum() * target.voxel_volume_ml == pytest.approx(values.sum() * source.voxel_volume_ml, rel=1e-6)


def test_labels_of_another_place_are_refused_and_of_another_grid_noted():
    grid = VoxelGrid.from_spacing((4, 4, 4), (2.0, 2.0, 2.0))
    labels = LabelMap(grid, np.ones(grid.shape, np.uint16), organ_table(["liver"]))
    finer = resample_labels(labels, grid.with_spacing((1.0, 1.0, 1.0)))
    assert finer.labels.all()
    assert "resampled" in finer.notes[-1]
    with pytest.raises(SynthDoseError, match="does not overlap"):
        resample_labels(labels, VoxelGrid.from_spacing((4, 4, 4), (2.0, 2.0, 2.0), (500, 0, 0)))


def test_organs_that_another_grid_cuts_are_named_with_what_is_lost():
    grid = VoxelGrid.from_spacing((10, 10, 10), (2.0, 2.0, 2.0))
    values = np.zeros(grid.shape, np.uint16)
    values[4:6, 4:6, :5], values[4:6, 4:6, 5:7] = 1, 2
    labels = LabelMap(grid, values, organ_table(["liver", "spleen"]))
    half = resample_labels(labels, grid.crop((0, 0, 3), (10, 10, 7)))  # three of the five columns of the liver are gone
    assert "outside: liver 60.0%." in half.notes[-1]
    assert "Cut" not in " ".join(resample_labels(labels, grid.crop((1, 1, 0), (8, 8, 10))).notes)


def test_overlap_is_the_fraction_of_the_first_grid():
    small = VoxelGrid.from_spacing((8, 8, 8), (1.0, 1.0, 1.0))
    large = VoxelGrid.from_spacing((16, 16, 16), (1.0, 1.0, 1.0))
    assert overlap_fraction(small, large) == 1.0
    assert overlap_fraction(large, small) == pytest.approx(1 / 8, abs=0.03)


def test_a_label_that_the_table_does_not_list_is_refused():
    grid = VoxelGrid.from_spacing((1, 1, 2), (1.0, 1.0, 1.0))
    with pytest.raises(SynthDoseError, match=r"does not list: \[7\]"):
        LabelMap(grid, np.array([[[1, 7]]], np.uint16), organ_table(["liver"]))
