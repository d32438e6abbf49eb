"""Segmentations in every format: the same voxels, names and codes, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK

from SynthDoseLib.core import DoseMap, ImageVolume, LabelMap, Organ, SynthDoseError, VoxelGrid
from SynthDoseLib.io import (
    read_image,
    read_labels,
    read_rtdose,
    write_dicom_seg,
    write_dicom_series,
    write_rtdose,
    write_rtstruct,
    write_segmentation,
    write_volume,
)
from SynthDoseLib.io.dicom_files import save_dataset

SHAPE = (12, 40, 44)
TURN = np.radians(25)
OBLIQUE = np.array([[1, 0, 0], [0, np.cos(TURN), -np.sin(TURN)], [0, np.sin(TURN), np.cos(TURN)]])
GRID = VoxelGrid.from_spacing(SHAPE, (1.0, 1.2, 2.5), (5, 6, 7), OBLIQUE)
ORGANS = (
    Organ(1, "liver", "10200004", (0.8, 0.4, 0.2)),
    Organ(4, "tumour"),
    Organ(9, "kidney_left", "64033007"),
    Organ(300, "nothing"),
)


@pytest.fixture
def labels():
    values = np.zeros(SHAPE, np.uint16)
    values[1:11, 3:35, 4:30] = 1
    values[3:9, 10:20, 10:18] = 4  # a hole in the liver …
    values[5:7, 14:16, 12:15] = 1  # … with an island
    values[4:12, 25:39, 32:44] = 9  # touching the border
    values[0, 0, 0] = 9  # one voxel of its own
    return LabelMap(GRID, values, ORGANS)


@pytest.fixture
def ct(tmp_path):
    values = np.random.default_rng(0).integers(-100, 100, SHAPE).astype(np.float32)
    write_dicom_series(tmp_path / "ct", ImageVolume(GRID, values, modality="CT", unit="HU"))
    return read_image(tmp_path / "ct")


def edit(path: Path, change) -> None:
    dataset = pydicom.dcmread(path)
    change(dataset)
    save_dataset(dataset, path)


def assert_same_masks(found: LabelMap, expected: LabelMap) -> None:
    assert found.grid.matches(expected.grid, 1e-3)
    for organ in found.organs:
        np.testing.assert_array_equal(found.mask(organ.name), expected.mask(organ.name), err_msg=organ.name)
        assert organ.snomed_code == expected.organ(organ.name).snomed_code
        assert organ.colour == pytest.approx(expected.organ(organ.name).colour, abs=0.01)


def test_a_slicer_segmentation_comes_back_as_it_was(tmp_path, labels):
    write_segmentation(tmp_path / "a.seg.nrrd", labels)
    again = read_labels(tmp_path / "a.seg.nrrd")
    assert_same_masks(again, labels)
    assert [(o.index, o.name) for o in again.organs] == [(o.index, o.name) for o in ORGANS]
    assert again.notes == ()


@pytest.mark.slicer
def test_slicer_reads_the_segmentation_with_names_codes_colours_and_place(tmp_path, labels):
    slicer = pytest.importorskip("slicer")
    vtk = pytest.importorskip("vtk")
    write_segmentation(tmp_path / "a.seg.nrrd", labels)
    scene, logic = slicer.vtkMRMLScene(), slicer.vtkSlicerSegmentationsModuleLogic()
    logic.SetMRMLScene(scene)
    node = logic.LoadSegmentationFromFile(str(tmp_path / "a.seg.nrrd"), True, "organs", None)
    segmentation = node.GetSegmentation()
    assert segmentation.GetNumberOfSegments() == 4
    assert segmentation.GetNumberOfLayers() == 1
    for n, organ in enumerate(ORGANS):
        segment = segmentation.GetNthSegment(n)
        assert segment.GetName() == organ.name
        assert segment.GetColor() == pytest.approx(organ.colour, abs=1e-3)
        tag = vtk.reference("")
        segment.GetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), tag)
        entry = slicer.vtkSlicerTerminologyEntry()
        assert slicer.vtkSlicerTerminologiesModuleLogic.DeserializeTerminologyEntry(str(tag), entry)
        assert entry.GetTypeObject().GetCodeValue() == (organ.snomed_code or "85756007")
        assert entry.GetTypeModifierObject().GetCodeMeaning() == ("Left" if "left" in organ.name else None)
        image = slicer.vtkOrientedImageData()
        node.GetBinaryLabelmapRepresentation(segmentation.GetNthSegmentID(n), image)
        if organ.name == "nothing":
            continue
        extent, matrix = image.GetExtent(), vtk.vtkMatrix4x4()
        image.GetImageToWorldMatrix(matrix)
        from vtk.util.numpy_support import vtk_to_numpy

        array = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(
            [b - a + 1 for a, b in zip(extent[4::-2], extent[5::-2], strict=True)]
        )
        inside = np.argwhere(array > 0)[:, ::-1] + np.array(extent[::2])
        here = np.array([matrix.MultiplyPoint((*map(float, p), 1.0))[:3] for p in inside[:: max(1, len(inside) // 50)]])
        there = GRID.to_ijk(here)
        np.testing.assert_allclose(there, there.round(), atol=1e-3)
        i, j, k = there.round().astype(int).T
        assert labels.mask(organ.name)[k, j, i].all()
        assert len(inside) == labels.mask(organ.name).sum()


def test_segments_on_several_layers_that_overlap_are_merged_the_smaller_one_first(tmp_path):
    body = np.zeros((4, 6, 8), np.uint8)
    body[:, 1:5, 1:7] = 1
    inner = np.zeros_like(body)
    inner[1:3, 2:4, 2:5] = 1
    image = SimpleITK.GetImageFromArray(np.stack([body, inner], axis=-1), isVector=True)
    for n, name in enumerate(("body", "lesion")):
        keys = {"ID": f"S{n}", "Name": name, "LabelValue": "1", "Layer": str(n), "Extent": "0 7 0 5 0 3"}
        for key, value in keys.items():
            image.SetMetaData(f"Segment{n}_{key}", value)
    SimpleITK.WriteImage(image, tmp_path / "a.seg.nrrd")
    labels = read_labels(tmp_path / "a.seg.nrrd")
    assert labels.voxel_counts() == {"body": int(body.sum() - inner.sum()), "lesion": int(inner.sum())}
    assert "'body' and 'lesion' share 12 voxels" in labels.notes[-1]


def test_segments_of_slicer_4_without_layers_or_values_are_read(tmp_path):
    first, second = np.zeros((2, 4, 6, 8), np.uint8)
    first[1:3, 1:3, 1:3], second[1:3, 3:5, 4:7] = 1, 1
    image = SimpleITK.GetImageFromArray(np.stack([first, second], axis=-1), isVector=True)
    for n, name in enumerate(("a", "b")):
        image.SetMetaData(f"Segment{n}_ID", f"S{n}")
        image.SetMetaData(f"Segment{n}_Name", name)
    SimpleITK.WriteImage(image, tmp_path / "a.seg.nrrd")
    labels = read_labels(tmp_path / "a.seg.nrrd")
    assert labels.voxel_counts() == {"a": 8, "b": 12}


@pytest.mark.slicer
def test_overlapping_segments_saved_by_slicer_are_read(tmp_path, monkeypatch):
    slicer, util = pytest.importorskip("slicer"), pytest.importorskip("slicer.util")
    scene, logic = slicer.vtkMRMLScene(), slicer.vtkSlicerSegmentationsModuleLogic()
    monkeypatch.setattr(slicer, "mrmlScene", scene, raising=False)
    logic.SetMRMLScene(scene)
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "s")
    segmentation = node.GetSegmentation()
    masks = {name: np.zeros(SHAPE, np.uint8) for name in ("body", "lesion", "Kidney")}
    masks["body"][2:9, 5:30, 6:30] = 1
    masks["lesion"][4:7, 10:20, 10:20] = 1
    masks["Kidney"][2:4, 32:38, 30:40] = 1
    for n, (name, mask) in enumerate(masks.items()):
        volume = util.addVolumeFromArray(mask, ijkToRAS=GRID.ijk_to_ras, nodeClassName="vtkMRMLLabelMapVolumeNode")
        logic.ImportLabelmapToSegmentationNode(volume, node)
        segmentation.GetNthSegment(n).SetName(name)
    tissue = "SCT^123037004^Anatomical Structure"
    segmentation.GetNthSegment(2).SetTag("TerminologyEntry", f"x~{tissue}~SCT^64033007^Kidney~SCT^24028007^Right~y~^^~^^")
    storage = node.CreateDefaultStorageNode()
    storage.SetFileName(str(tmp_path / "s.seg.nrrd"))
    assert storage.WriteData(node)
    labels = read_labels(tmp_path / "s.seg.nrrd", reference=GRID)
    np.testing.assert_array_equal(labels.mask("lesion"), masks["lesion"])
    np.testing.assert_array_equal(labels.mask("body"), masks["body"] > masks["lesion"])
    np.testing.assert_array_equal(labels.mask("Kidney right"), masks["Kidney"])
    assert labels.organ("Kidney right").snomed_code == "64033007"


def test_older_codes_of_slicer_become_snomed(tmp_path, labels):
    write_segmentation(tmp_path / "a.seg.nrrd", labels)
    image = SimpleITK.ReadImage(str(tmp_path / "a.seg.nrrd"))
    image.SetMetaData("Segment0_Tags", "TerminologyEntry:x~SRT^T-D0050^Tissue~SRT^T-62000^Liver~^^~y~^^~^^|")
    SimpleITK.WriteImage(image, tmp_path / "b.seg.nrrd")
    assert read_labels(tmp_path / "b.seg.nrrd").organ("liver").snomed_code == "10200004"


def test_a_segmentation_without_segments_or_with_another_ending_is_refused(tmp_path, labels):
    write_volume(tmp_path / "a.seg.nrrd", labels.labels, GRID)
    with pytest.raises(SynthDoseError, match="lists no segments"):
        read_labels(tmp_path / "a.seg.nrrd")
    with pytest.raises(SynthDoseError, match=r"\.seg\.nrrd"):
        write_segmentation(tmp_path / "a.nrrd", labels)


@pytest.mark.parametrize("suffix", [".nrrd", ".nii.gz", ".mha"])
@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_label_maps_of_any_type_are_read_with_plain_names(tmp_path, labels, suffix, dtype):
    write_volume(tmp_path / f"a{suffix}", labels.labels.astype(dtype), GRID)
    again = read_labels(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(again.labels, labels.labels)
    assert [o.name for o in again.organs] == ["label_1", "label_4", "label_9"]
    named = read_labels(tmp_path / f"a{suffix}", labels={1: Organ(1, "liver", "10200004"), 4: "lesion"})
    assert [o.name for o in named.organs] == ["liver", "lesion", "label_9"]
    assert named.organ("liver").snomed_code == "10200004"


@pytest.mark.parametrize(
    ("value", "says"), [(1.5, "not whole numbers"), (-1, "label values from -1"), (70000, "to 70000"), (0, "empty")]
)
def test_what_is_no_label_map_is_refused(tmp_path, value, says):
    write_volume(tmp_path / "a.nrrd", np.full((2, 3, 4), value, np.float32), VoxelGrid.from_spacing((2, 3, 4), (1, 1, 1)))
    with pytest.raises(SynthDoseError, match=says):
        read_labels(tmp_path / "a.nrrd")


def test_labels_on_another_grid_are_resampled_with_a_note_or_refused(tmp_path, labels):
    write_volume(tmp_path / "a.nrrd", labels.labels, GRID)
    finer = GRID.with_spacing((0.5, 0.6, 1.25))
    again = read_labels(tmp_path / "a.nrrd", reference=finer)
    assert again.voxel_counts()["label_1"] == 8 * labels.voxel_counts()["liver"]
    assert "resampled" in again.notes[-1]
    far = VoxelGrid.from_spacing(SHAPE, (1, 1, 1), (1000, 0, 0))
    with pytest.raises(SynthDoseError, match="does not overlap"):
        read_labels(tmp_path / "a.nrrd", reference=far)


def test_dicom_seg_comes_back_with_names_codes_and_colours(tmp_path, ct, labels):
    write_dicom_seg(tmp_path / "seg.dcm", labels, ct, deidentify=False)
    again = read_labels(tmp_path / "seg.dcm", reference_image=ct)
    assert_same_masks(again, labels)
    assert [o.name for o in again.organs] == ["liver", "tumour", "kidney_left"]
    only = read_labels(tmp_path / "seg.dcm", reference_image=ct, segments=["tumour"])
    assert_same_masks(only, labels)
    assert [o.name for o in only.organs] == ["tumour"]
    with pytest.raises(SynthDoseError, match=r"no segment 'spleen'\. Segments: liver, tumour, kidney_left"):
        read_labels(tmp_path / "seg.dcm", segments=["spleen"])


def test_overlapping_segments_of_a_dicom_seg_are_merged_the_smaller_one_first(tmp_path, ct, labels):
    import highdicom

    body, liver = labels.labels > 0, labels.labels == 1
    tissue = highdicom.sr.CodedConcept("85756007", "SCT", "Tissue")
    matrix = np.diag([-1, -1, 1, 1]) @ GRID.ijk_to_ras
    dataset = highdicom.seg.Segmentation(
        source_images=[pydicom.dcmread(f) for f in ct.source_files],
        pixel_array=highdicom.Volume(
            np.stack([body, liver], axis=-1).astype(np.uint8),
            matrix[:, [2, 1, 0, 3]],
            "PATIENT",
            frame_of_reference_uid=ct.metadata["frame_of_reference_uid"],
            channels={"SegmentNumber": [1, 2]},
        ),
        segmentation_type="BINARY",
        segment_descriptions=[
            highdicom.seg.SegmentDescription(n, name, tissue, tissue, "MANUAL") for n, name in ((1, "body"), (2, "liver"))
        ],
        series_instance_uid="1.2.3",
        series_number=1,
        sop_instance_uid="1.2.3.4",
        instance_number=1,
        manufacturer="x",
        manufacturer_model_name="x",
        software_versions="1",
        device_serial_number="1",
    )
    save_dataset(dataset, tmp_path / "o.dcm")
    again = read_labels(tmp_path / "o.dcm", reference_image=ct)
    np.testing.assert_array_equal(again.mask("liver"), liver)
    np.testing.assert_array_equal(again.mask("body"), body & ~liver)
    assert "'body' and 'liver' share" in again.notes[0]


def test_dicom_seg_on_a_finer_grid_than_the_ct(tmp_path, ct, labels):
    finer = GRID.with_spacing((0.5, 0.6, 1.25))
    values = labels.labels.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    write_dicom_seg(tmp_path / "seg.dcm", LabelMap(finer, values, ORGANS), ct, deidentify=True)
    again = read_labels(tmp_path / "seg.dcm", reference=finer)
    np.testing.assert_array_equal(again.mask("liver"), values == 1)


def test_segments_told_apart_by_the_side_of_their_code_alone_get_it_in_their_names(tmp_path, ct, labels):
    values = np.where(labels.labels == 1, 8, labels.labels).astype(np.uint16)
    pair = LabelMap(GRID, values, (Organ(8, "kidney_right", "64033007"), *ORGANS[1:]))
    write_dicom_seg(tmp_path / "seg.dcm", pair, ct, deidentify=False)
    edit(
        tmp_path / "seg.dcm",
        lambda d: [setattr(s, "SegmentLabel", "Kidney") for s in (d.SegmentSequence[0], d.SegmentSequence[2])],
    )
    again = read_labels(tmp_path / "seg.dcm", reference_image=ct)
    assert [o.name for o in again.organs] == ["Kidney right", "tumour", "Kidney left"]
    np.testing.assert_array_equal(again.mask("Kidney left"), pair.mask("kidney_left"))


def test_an_empty_dicom_seg_is_not_written(tmp_path, ct):
    with pytest.raises(SynthDoseError, match="empty"):
        write_dicom_seg(tmp_path / "seg.dcm", LabelMap(GRID, np.zeros(SHAPE, np.uint16), ORGANS), ct, deidentify=True)
    assert not (tmp_path / "seg.dcm").exists()


def test_rtstruct_comes_back_as_the_same_mask_holes_and_islands_included(tmp_path, ct, labels):
    write_rtstruct(tmp_path / "rs.dcm", labels, ct, deidentify=False)
    again = read_labels(tmp_path / "rs.dcm", reference_image=ct)
    assert_same_masks(again, labels)
    assert [o.name for o in again.organs] == [o.name for o in ORGANS]
    # other readers take every contour for itself, so a hole must be part of its outline
    dataset = pydicom.dcmread(tmp_path / "rs.dcm")
    liver = dataset.ROIContourSequence[0].ContourSequence
    middle = [c for c in liver if abs(GRID.to_ijk(points_of(c))[0, 2] - 5) < 0.1]
    assert len(middle) == 2  # the outline with its hole, and the island


def points_of(contour):
    return np.array([float(v) for v in contour.ContourData]).reshape(-1, 3) * (-1, -1, 1)


@pytest.mark.parametrize("deidentify", [True, False])
def test_written_objects_belong_to_the_study_of_the_ct_with_or_without_who_it_is(tmp_path, ct, labels, deidentify):
    source = pydicom.dcmread(ct.source_files[0])
    dose = DoseMap(GRID, np.ones(SHAPE, np.float32), np.zeros(SHAPE, np.float32))
    write_rtdose(tmp_path / "rd.dcm", dose, ct, deidentify=deidentify)
    write_rtstruct(tmp_path / "rs.dcm", labels, ct, deidentify=deidentify)
    write_dicom_seg(tmp_path / "sg.dcm", labels, ct, deidentify=deidentify)
    for name in ("rd", "rs", "sg"):
        dataset = pydicom.dcmread(tmp_path / f"{name}.dcm")
        assert dataset.StudyInstanceUID == source.StudyInstanceUID
        assert dataset.FrameOfReferenceUID == source.FrameOfReferenceUID
        assert dataset.SeriesInstanceUID != source.SeriesInstanceUID
        assert str(dataset.PatientName) == ("" if deidentify else "SynthDose^Synthetic")
        assert dataset.PatientID == ("" if deidentify else "SYNTHDOSE-SYNTHETIC")
        assert dataset.get("PatientIdentityRemoved") == ("YES" if deidentify else None)
    assert {p.name for p in tmp_path.iterdir()} == {"ct", "rd.dcm", "rs.dcm", "sg.dcm"}


def test_export_needs_a_dicom_image(tmp_path, labels):
    image = ImageVolume(GRID, np.zeros(SHAPE, np.float32), modality="CT")
    for write in (write_dicom_seg, write_rtstruct):
        with pytest.raises(SynthDoseError, match="not read from DICOM"):
            write(tmp_path / "a.dcm", labels, image, deidentify=True)
    assert not list(tmp_path.iterdir())


def test_rtdose_holds_the_dose_to_seven_digits_in_its_place(tmp_path, ct):
    values = np.random.default_rng(0).gamma(1.0, 5.0, SHAPE).astype(np.float32)
    write_rtdose(tmp_path / "rd.dcm", DoseMap(GRID, values, values), ct, deidentify=True)
    again = read_rtdose(tmp_path / "rd.dcm")
    assert again.grid.matches(GRID, 1e-4)
    np.testing.assert_allclose(again.values, values, rtol=1e-5, atol=values.max() * 1e-9)
    dataset = pydicom.dcmread(tmp_path / "rd.dcm")
    assert (dataset.DoseUnits, dataset.DoseType, dataset.BitsAllocated) == ("GY", "PHYSICAL", 32)
    stored = dataset.pixel_array * float(dataset.DoseGridScaling)
    np.testing.assert_allclose(stored, values, rtol=1e-5, atol=values.max() * 1e-9)
    assert [float(v) for v in dataset.GridFrameOffsetVector] == pytest.approx([2.5 * k for k in range(12)])
    with pytest.raises(SynthDoseError, match="per decay"):
        write_rtdose(tmp_path / "x.dcm", DoseMap(GRID, values, values, per="decay"), ct, deidentify=True)


def test_a_folder_with_one_segmentation_among_images_will_do(tmp_path, ct, labels):
    write_rtstruct(tmp_path / "ct" / "rs.dcm", labels, ct, deidentify=True)
    assert_same_masks(read_labels(tmp_path / "ct", reference_image=ct), labels)
    write_dicom_seg(tmp_path / "ct" / "sg.dcm", labels, ct, deidentify=True)
    with pytest.raises(SynthDoseError, match="one DICOM SEG or RTSTRUCT is needed; found 2"):
        read_labels(tmp_path / "ct", reference_image=ct)
