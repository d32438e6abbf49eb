"""Contours of RTSTRUCT to voxels: volumes by geometry, holes, planes between slices and at an angle, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from SynthDoseLib.core import ImageVolume, SynthDoseError, VoxelGrid
from SynthDoseLib.io import read_image, read_labels, write_dicom_series
from SynthDoseLib.io.dicom_files import save_dataset
from SynthDoseLib.io.polygons import fill_polygons, outline_mask, polygon_area

TURN = np.radians(25)
OBLIQUE = np.array([[1, 0, 0], [0, np.cos(TURN), -np.sin(TURN)], [0, np.sin(TURN), np.cos(TURN)]])
GRID = VoxelGrid.from_spacing((12, 40, 44), (1.0, 1.2, 2.5), (5, 6, 7), OBLIQUE)


@pytest.fixture
def ct(tmp_path):
    values = np.random.default_rng(0).integers(-100, 100, GRID.shape).astype(np.float32)
    write_dicom_series(tmp_path / "ct", ImageVolume(GRID, values, modality="CT", unit="HU"))
    return read_image(tmp_path / "ct")


def rtstruct(path: Path, contours, *, frame="1.2.3", names=("roi",), kind="CLOSED_PLANAR"):
    """An RTSTRUCT as other programs write it; `contours` per structure, RAS mm."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.481.3", "1.2.3.4"
    dataset.Modality, dataset.StructureSetROISequence, dataset.ROIContourSequence = "RTSTRUCT", [], []
    for n, (name, lines) in enumerate(zip(names, contours, strict=True), start=1):
        roi, item = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName, roi.ReferencedFrameOfReferenceUID = n, name, frame
        item.ReferencedROINumber, item.ContourSequence = n, []
        for line in lines:
            contour = Dataset()
            contour.ContourGeometricType, contour.NumberOfContourPoints = kind, len(line)
            contour.ContourData = [f"{v:.4f}" for v in (np.asarray(line) * (-1, -1, 1)).ravel()]
            item.ContourSequence.append(contour)
        dataset.StructureSetROISequence.append(roi)
        dataset.ROIContourSequence.append(item)
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID, dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, "1.2.3.4"
    if int(pydicom.__version__.split(".")[0]) < 3:
        dataset.is_little_endian = dataset.is_implicit_VR = True
    save_dataset(dataset, path)
    return path


def circle(radius, z, centre=(0.0, 0.0), points=200):
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return np.column_stack([centre[0] + radius * np.cos(angle), centre[1] + radius * np.sin(angle), np.full(points, z)])


def ball(radius, heights):
    return [circle(np.sqrt(radius**2 - z**2), z) for z in heights if abs(z) < radius]


STRAIGHT = VoxelGrid.from_spacing((60, 80, 80), (1, 1, 1))


def volume_ml(labels, name="roi"):
    return labels.voxel_counts()[name] * labels.grid.voxel_volume_ml


@pytest.mark.parametrize("step", [1.0, 2.0, 3.0])
def test_contours_further_apart_than_the_slices_fill_their_slab(tmp_path, step):
    heights = np.arange(-24, 24.1, step) + 0.5
    lines = ball(25, heights)
    labels = read_labels(rtstruct(tmp_path / "rs.dcm", [lines]), reference=STRAIGHT)
    # volume of the slabs that the contours stand for, and of the ball within what slabs can tell
    slabs = sum(polygon_area(line[:, :2]) for line in lines) * step / 1000
    assert volume_ml(labels) == pytest.approx(slabs, rel=0.01)
    assert volume_ml(labels) == pytest.approx(4 / 3 * np.pi * 25**3 / 1000, rel=0.02)


def test_contours_between_the_slices_are_told_of(tmp_path):
    labels = read_labels(rtstruct(tmp_path / "rs.dcm", [ball(20, np.arange(-18, 19, 2.0))]), reference=STRAIGHT)
    assert "between the slices" in labels.notes[0]
    assert volume_ml(labels) == pytest.approx(4 / 3 * np.pi * 20**3 / 1000, rel=0.02)


def test_contours_at_an_angle_to_the_image_give_the_same_volume(tmp_path):
    grid = VoxelGrid.from_spacing((70, 70, 70), (1, 1, 1), directions=OBLIQUE)
    labels = read_labels(rtstruct(tmp_path / "rs.dcm", [ball(25, np.arange(-24, 25, 1.0))]), reference=grid)
    assert "at an angle" in labels.notes[0]
    assert volume_ml(labels) == pytest.approx(4 / 3 * np.pi * 25**3 / 1000, rel=0.01)
    inside = grid.to_ras(np.argwhere(labels.mask("roi"))[:, ::-1])
    np.testing.assert_allclose(inside.mean(axis=0), 0, atol=0.1)


def test_sagittal_contours_on_axial_slices_are_placed_right(tmp_path):
    lines = [line[:, [2, 0, 1]] for line in ball(15, np.arange(-14, 15, 1.0))]
    labels = read_labels(rtstruct(tmp_path / "rs.dcm", [[np.add(line, (10.5, 5, -3)) for line in lines]]), reference=STRAIGHT)
    assert volume_ml(labels) == pytest.approx(4 / 3 * np.pi * 15**3 / 1000, rel=0.02)
    inside = STRAIGHT.to_ras(np.argwhere(labels.mask("roi"))[:, ::-1])
    np.testing.assert_allclose(inside.mean(axis=0), (10.5, 5, -3), atol=0.1)


def test_holes_are_left_out_whether_drawn_as_a_second_contour_or_as_a_keyhole(tmp_path):
    outer, inner = circle(20, 0.5), circle(8, 0.5)
    keyhole = np.concatenate([outer, outer[:1], inner[::-1][-1:], inner[::-1], outer[:1]])
    expected = np.pi * (20**2 - 8**2) / 1000
    for lines in ([outer, inner], [keyhole]):
        labels = read_labels(rtstruct(tmp_path / "rs.dcm", [lines]), reference=STRAIGHT)
        assert volume_ml(labels) == pytest.approx(expected, rel=0.01)


def test_a_contour_written_twice_does_not_cancel_itself(tmp_path):
    labels = read_labels(rtstruct(tmp_path / "rs.dcm", [[circle(20, 0.5)] * 2]), reference=STRAIGHT)
    assert volume_ml(labels) == pytest.approx(np.pi * 0.4, rel=0.01)
    assert "written twice" in labels.notes[0]


def test_a_structure_in_two_pieces_is_not_filled_between_them(tmp_path):
    lines = [circle(10, z) for z in (-20.5, -19.5, -18.5, 10.5, 11.5, 12.5)]
    labels = read_labels(rtstruct(tmp_path / "rs.dcm", [lines]), reference=STRAIGHT)
    assert volume_ml(labels) == pytest.approx(6 * np.pi * 0.1, rel=0.02)
    assert "2 pieces" in labels.notes[0]


def test_names_are_cleaned_and_repeated_ones_numbered(tmp_path):
    path = rtstruct(tmp_path / "rs.dcm", [[circle(5, 0.5)], [circle(5, 9.5)], []], names=("GTV\x1b", "GTV", "../../x"))
    labels = read_labels(path, reference=STRAIGHT)
    assert [o.name for o in labels.organs] == ["GTV", "GTV_2", "../../x"]
    assert any("2 structures are named 'GTV': they are called GTV, GTV_2." in note for note in labels.notes)
    assert any("'../../x' has no closed contour" in note for note in labels.notes)


@pytest.mark.parametrize("centre", [(30.0, 0.0), (0.0, -40.0), (0.0, 0.0)], ids=["to the right", "to the back", "inside"])
def test_a_structure_cut_by_the_border_is_told_of_with_its_share(tmp_path, centre):
    lines = [circle(20, z + 0.5, centre) for z in range(-5, 5)]
    # the image ends 40 mm from the middle; a chord at u radii cuts (acos u - u sqrt(1 - u^2)) / pi off a disc
    u = min(1.0, (40 - max(abs(c) for c in centre)) / 20)
    share = (np.arccos(u) - u * np.sqrt(1 - u**2)) / np.pi
    notes = " ".join(read_labels(rtstruct(tmp_path / "rs.dcm", [lines]), reference=STRAIGHT).notes)
    assert ("cut by the border of the image" in notes) == (share > 0)
    if share > 0:
        found = float(notes.split("border of the image: ")[1].split("%")[0]) / 100
        assert found == pytest.approx(share, abs=0.015)


def test_planes_beyond_the_image_are_lost_with_their_share(tmp_path):
    lines = [circle(15, z + 0.5) for z in range(20, 40)]  # the image ends at 30 mm
    notes = " ".join(read_labels(rtstruct(tmp_path / "rs.dcm", [lines]), reference=STRAIGHT).notes)
    assert re.search(r"border of the image: (49|50|51)% of it, up to 10 mm", notes)


def test_a_hostile_contour_far_away_takes_no_memory(tmp_path):
    lines = [circle(15, 0.5), np.array([[-5, -5, 1.5], [9e6, -5, 1.5], [9e6, 9e6, 1.5]])]
    notes = " ".join(read_labels(rtstruct(tmp_path / "rs.dcm", [lines]), reference=STRAIGHT).notes)
    assert "border of the image: part of it" in notes


def test_another_frame_of_reference_is_refused_unless_accepted(tmp_path, ct):
    centre = GRID.to_ras((22, 20, 6))
    path = rtstruct(tmp_path / "rs.dcm", [[circle(8, centre[2] + z, centre[:2]) for z in (-1, 0, 1)]])
    with pytest.raises(SynthDoseError, match=r"another frame of reference \(1\.2\.3\)"):
        read_labels(path, reference_image=ct)
    labels = read_labels(path, reference_image=ct, accept_other_frame=True)
    assert labels.mask("roi").any()
    assert "another frame of reference" in labels.notes[0]


def test_contours_elsewhere_open_or_damaged_are_refused_or_told_of(tmp_path):
    with pytest.raises(SynthDoseError, match="no structure has a voxel in the image"):
        read_labels(rtstruct(tmp_path / "a.dcm", [[circle(5, 500)]]), reference=STRAIGHT)
    labels = read_labels(rtstruct(tmp_path / "b.dcm", [[circle(5, 0.5)]], kind="OPEN_PLANAR"), reference=STRAIGHT)
    assert "of type OPEN_PLANAR were left out" in labels.notes[0]
    path = rtstruct(tmp_path / "c.dcm", [[circle(5, 0.5)]])
    dataset = pydicom.dcmread(path)
    dataset.ROIContourSequence[0].ContourSequence[0].ContourData = ["1", "2"]
    save_dataset(dataset, path)
    with pytest.raises(SynthDoseError, match="not triples"):
        read_labels(path, reference=STRAIGHT)
    with pytest.raises(SynthDoseError, match="contours, not voxels"):
        read_labels(path)


def test_outlines_of_random_masks_enclose_just_their_pixels():
    rng = np.random.default_rng(5)
    for fill in (0.2, 0.5, 0.8, 0.95):
        for _ in range(20):
            mask = rng.random((25, 31)) < fill
            np.testing.assert_array_equal(fill_polygons(outline_mask(mask), mask.shape), mask)


def test_filling_agrees_with_matplotlib_for_random_polygons():
    path = pytest.importorskip("matplotlib.path")
    rng = np.random.default_rng(6)
    rows, columns = np.mgrid[:30, :40]
    centres = np.column_stack([columns.ravel(), rows.ravel()])
    for _ in range(20):
        angle = np.sort(rng.random(12)) * 2 * np.pi
        radius = rng.uniform(3, 14, 12)
        polygon = np.column_stack([20 + radius * np.cos(angle), 15 + radius * np.sin(angle)]) + rng.random(2)
        inside = path.Path(polygon).contains_points(centres).reshape(30, 40)
        np.testing.assert_array_equal(fill_polygons([polygon], (30, 40)), inside)
