"""Contours to masks keep the volume, whatever the voxels: spheres, ellipsoids and tori against closed forms; and back."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest

from SynthDoseLib.core import ImageVolume, LabelMap, Organ, VoxelGrid
from SynthDoseLib.io import read_image, read_labels, write_dicom_series, write_rtstruct
from SynthDoseLib.io.polygons import fill_polygons, outline_mask, polygon_area
from SynthDoseLib.io.rtstruct import Structure, read_structures
from SynthDoseLib.io.rtstruct_volume import rasterise_with_volume

CORNERS = 240
ANGLE = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)


def turned(*degrees: float) -> np.ndarray:
    """Rotation about x, then y, then z."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(degrees)):
        i, j = [a for a in range(3) if a != axis]
        step = np.eye(3)
        step[[i, j], [i, j]] = np.cos(angle)
        step[i, j], step[j, i] = -np.sin(angle), np.sin(angle)
        matrix = step @ matrix
    return matrix


def ring(a: float, b: float, z: float) -> np.ndarray:
    return np.column_stack([a * np.cos(ANGLE), b * np.sin(ANGLE), np.full(CORNERS, z)])


def ellipsoid(a, b, c):
    """Contours of the plane at height z, and half the height."""

    def at(z):
        f = np.sqrt(1 - (z / c) ** 2)
        return [ring(a * f, b * f, z)]

    return at, c


def torus(large, small):
    def at(z):
        w = np.sqrt(small**2 - z**2)
        return [ring(large + w, large + w, z), ring(large - w, large - w, z)]

    return at, small


def polygon_share(corners: int = CORNERS) -> float:
    """Area of a regular polygon over that of its circle."""
    return corners / (2 * np.pi) * np.sin(2 * np.pi / corners)


BODIES = {
    "sphere of 5.1 ml": ellipsoid(10.7, 10.7, 10.7),
    "sphere of 30 ml": ellipsoid(19.3, 19.3, 19.3),
    "ellipsoid of 11 ml": ellipsoid(25, 12, 9),
    "torus of 28 ml": torus(22, 8),
}
GRIDS = {
    "1 x 1 x 3 mm": ((1.0, 1.0, 3.0), np.eye(3)),
    "0.8 x 0.8 x 5 mm": ((0.8, 0.8, 5.0), np.eye(3)),
    "2 mm": ((2.0, 2.0, 2.0), np.eye(3)),
    "4 mm": ((4.0, 4.0, 4.0), np.eye(3)),
    "oblique 1 x 1.5 x 3 mm": ((1.0, 1.5, 3.0), turned(20, 0, 30)),
}


def contours(body, centre, directions, first_mm, step_mm) -> tuple[tuple[np.ndarray, ...], float]:
    """Contours on planes `step_mm` apart along the third direction, one of them `first_mm` above the centre; their volume."""
    at, half = body
    heights = np.arange(-40, 41) * step_mm + first_mm
    lines = [line for z in heights[np.abs(heights) < 0.995 * half] for line in at(z)]
    volume = 0.0
    for z in heights[np.abs(heights) < 0.995 * half]:
        areas = [polygon_area(line[:, :2]) for line in at(z)]
        volume += (areas[0] - sum(areas[1:])) * step_mm / 1000
    return tuple(line @ directions.T + centre for line in lines), volume


@pytest.mark.parametrize("grid_name", GRIDS)
@pytest.mark.parametrize("name", BODIES)
def test_contours_on_the_slices_keep_their_volume_within_one_per_cent(name, grid_name):
    spacing, directions = GRIDS[grid_name]
    rng = np.random.default_rng([list(BODIES).index(name), list(GRIDS).index(grid_name)])
    grid = VoxelGrid.from_spacing(tuple(int(90 / s) for s in reversed(spacing)), spacing, directions=directions)
    for _ in range(3):
        centre = rng.uniform(-3, 3, 3)
        height = grid.to_ijk(centre)[2]
        lines, volume = contours(BODIES[name], centre, directions, (round(height) - height) * spacing[2], spacing[2])
        mask, _ = rasterise_with_volume(Structure(1, name, lines), grid)
        assert mask.sum() * grid.voxel_volume_ml == pytest.approx(volume, rel=0.01)
        middle = grid.to_ras(np.argwhere(mask)[:, ::-1]).mean(axis=0)
        np.testing.assert_allclose(middle, np.concatenate(lines).mean(axis=0), atol=0.5 * max(spacing))


@pytest.mark.parametrize("spacing", [(1.2, 1.2, 2.5), (3.0, 3.0, 3.0)])
@pytest.mark.parametrize("name", BODIES)
def test_contours_at_an_angle_to_the_grid_keep_the_volume_of_the_body(name, spacing):
    grid = VoxelGrid.from_spacing(tuple(int(80 / s) for s in reversed(spacing)), spacing, directions=turned(20, 15))
    lines, volume = contours(BODIES[name], np.array([1.3, -2.1, 0.7]), np.eye(3), 0.4, 1.0)
    closed = {"sphere of 5.1 ml": 4 / 3 * np.pi * 10.7**3, "sphere of 30 ml": 4 / 3 * np.pi * 19.3**3,
              "ellipsoid of 11 ml": 4 / 3 * np.pi * 25 * 12 * 9, "torus of 28 ml": 2 * np.pi**2 * 22 * 64}[name]  # fmt: skip
    assert volume == pytest.approx(closed * polygon_share() / 1000, rel=0.01)
    mask, _ = rasterise_with_volume(Structure(1, name, lines), grid)
    assert mask.sum() * grid.voxel_volume_ml == pytest.approx(volume, rel=0.01)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 2.0), (4.0, 4.0, 4.0), (1.2, 1.5, 5.0)])
def test_masks_become_contours_of_the_same_volume_and_the_same_masks_again(tmp_path, spacing):
    directions = turned(0, 0, 25)
    grid = VoxelGrid.from_spacing(tuple(int(80 / s) for s in reversed(spacing)), spacing, (5, -20, 100), directions)
    k, j, i = np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij")
    place = grid.to_ras(np.stack([i, j, k], axis=-1)) - grid.to_ras((np.array(grid.shape[::-1]) - 1) / 2)
    flat = np.hypot(place[..., 0], place[..., 1])
    values = np.zeros(grid.shape, np.uint16)
    values[np.hypot(flat - 22, place[..., 2]) < 8] = 1
    values[np.linalg.norm(place, axis=-1) < 11] = 2
    write_dicom_series(tmp_path / "ct", ImageVolume(grid, np.zeros(grid.shape, np.float32), modality="CT", unit="HU"))
    ct = read_image(tmp_path / "ct")
    labels = LabelMap(ct.grid, values, (Organ(1, "ring"), Organ(2, "ball")))
    write_rtstruct(tmp_path / "rs.dcm", labels, ct, deidentify=True)
    for structure in read_structures(tmp_path / "rs.dcm")[0]:
        areas = [polygon_area(ct.grid.to_ijk(line)[:, :2]) for line in structure.contours]
        assert sum(areas) == pytest.approx((values == {"ring": 1, "ball": 2}[structure.name]).sum(), rel=0.01)
    again = read_labels(tmp_path / "rs.dcm", reference_image=ct)
    np.testing.assert_array_equal(again.labels, values)


def test_xor_contours_leave_out_what_two_of_them_share(tmp_path):
    """CLOSEDPLANAR_XOR of the standard: a ring, an island in its hole, and a contour that cuts the ring."""
    grid = VoxelGrid.from_spacing((5, 120, 120), (0.5, 0.5, 3.0))
    rings = [ring(25, 25, 0.0), ring(18, 18, 0.0), ring(6, 6, 0.0)]
    dataset = pydicom.Dataset()
    write_dicom_series(tmp_path / "ct", ImageVolume(grid, np.zeros(grid.shape, np.float32), modality="CT", unit="HU"))
    ct = read_image(tmp_path / "ct")
    disc = np.zeros(grid.shape, np.uint16)
    disc[2, 60, 60] = 1
    write_rtstruct(tmp_path / "rs.dcm", LabelMap(ct.grid, disc, (Organ(1, "roi"),)), ct, deidentify=True)
    dataset = pydicom.dcmread(tmp_path / "rs.dcm")
    items = []
    for line in rings:
        item = pydicom.Dataset()
        item.ContourGeometricType, item.NumberOfContourPoints = "CLOSEDPLANAR_XOR", len(line)
        item.ContourData = [f"{v:.4f}" for v in (line * (-1, -1, 1)).ravel()]
        items.append(item)
    dataset.ROIContourSequence[0].ContourSequence = items
    dataset.save_as(tmp_path / "xor.dcm")
    found = read_labels(tmp_path / "xor.dcm", reference_image=ct)
    expected = np.pi * (25**2 - 18**2 + 6**2) * polygon_share() * 3 / 1000
    assert found.voxel_counts()["roi"] * grid.voxel_volume_ml == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("fill", [0.02, 0.3, 0.6, 0.9])
def test_outlines_enclose_the_area_of_their_pixels(fill):
    rng = np.random.default_rng(7)
    for _ in range(10):
        mask = rng.random((21, 27)) < fill
        mask[:2] = mask[-2:] = mask[:, :2] = mask[:, -2:] = False
        outlines = outline_mask(mask)
        np.testing.assert_array_equal(fill_polygons(outlines, mask.shape), mask)
        if fill <= 0.3:  # hardly a hole
            assert sum(map(polygon_area, outlines)) == pytest.approx(mask.sum(), rel=0.02)
