"""Segmentation nodes <-> label maps."""

from __future__ import annotations

import numpy as np
import pytest

from SynthDoseLib.core import LabelMap, Organ, SynthDoseError, VoxelGrid
from SynthDoseLib.mrml import labelMapFromSegmentationNode, segmentationNodeFromLabelMap
from SynthDoseLib.mrml.segmentations import snomedCode, terminologyTag
from SynthDoseLib.mrml.volumes import setVoxels, vtkFromMatrix

LIVER = Organ(5, "liver", "10200004", (0.8, 0.3, 0.2))
SPLEEN = Organ(9, "spleen", "78961009", (0.6, 0.1, 0.5))
EMPTY = Organ(300, "pancreas")


def labels(grid: VoxelGrid, organs=(LIVER, SPLEEN)) -> LabelMap:
    values = np.zeros(grid.shape, np.uint16)
    values[1:3, 2:5, :2] = 5
    values[4:6, 0:3, 3:] = 9
    return LabelMap(grid, values, organs)


def test_an_oblique_label_map_survives_the_round_trip_exactly(scene, obliqueGrid):
    truth = labels(obliqueGrid)
    node = segmentationNodeFromLabelMap(truth, "Organs", scene)
    back = labelMapFromSegmentationNode(node, obliqueGrid)
    assert [o.name for o in back.organs] == ["liver", "spleen"]
    assert [o.snomed_code for o in back.organs] == ["10200004", "78961009"]
    np.testing.assert_allclose([o.colour for o in back.organs], [LIVER.colour, SPLEEN.colour], atol=1e-6)
    for name in ("liver", "spleen"):
        np.testing.assert_array_equal(back.mask(name), truth.mask(name))
    assert back.grid.matches(obliqueGrid)
    assert back.notes == ()


def test_slicer_sees_the_same_segment_voxels(scene, obliqueGrid):
    import slicer

    truth = labels(obliqueGrid)
    node = segmentationNodeFromLabelMap(truth, "Organs", scene)
    volume = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    setVoxels(volume, np.zeros(obliqueGrid.shape, np.int16), obliqueGrid)
    mask = slicer.util.arrayFromSegmentBinaryLabelmap(node, "liver", volume)
    np.testing.assert_array_equal(mask > 0, truth.mask("liver"))


def test_labels_above_255_and_empty_organs_are_kept(scene, obliqueGrid):
    values = np.zeros(obliqueGrid.shape, np.uint16)
    values[2, 2, 2] = 1000
    node = segmentationNodeFromLabelMap(LabelMap(obliqueGrid, values, (EMPTY, Organ(1000, "tumour"))), "x", scene)
    back = labelMapFromSegmentationNode(node, obliqueGrid)
    assert back.voxel_counts() == {"pancreas": 0, "tumour": 1}


def test_left_stays_left(scene):
    """A segment drawn on a left-handed volume is found at the same place in the patient."""
    import slicer

    matrix = np.diag([2.0, 2.0, -3.0, 1.0])
    matrix[:3, 3] = (-20, 5, 40)
    mask = np.zeros((4, 5, 6), np.uint8)
    mask[1, 2, 0] = 1
    volume = slicer.util.addVolumeFromArray(mask.astype(np.int16), ijkToRAS=matrix, name="left-handed")
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    segmentID = node.GetSegmentation().AddEmptySegment("", "left kidney")
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, segmentID, volume)
    found = labelMapFromSegmentationNode(node, volume)
    (kji,) = np.argwhere(found.labels)
    np.testing.assert_allclose(found.grid.to_ras(kji[::-1]), (-20, 9, 37), atol=1e-12)


def test_segments_on_another_grid_are_resampled_with_a_note(scene):
    fine = VoxelGrid.from_spacing((20, 20, 20), (1, 1, 1))
    values = np.zeros(fine.shape, np.uint16)
    values[4:12, 4:12, 4:12] = 5
    node = segmentationNodeFromLabelMap(LabelMap(fine, values, (LIVER,)), "fine", scene)
    coarse = VoxelGrid.from_spacing((10, 10, 10), (2, 2, 2))
    found = labelMapFromSegmentationNode(node, coarse)
    assert found.voxel_counts() == {"liver": 64}
    assert "resampled" in found.notes[0]


def test_a_part_of_the_reference_on_the_same_lattice_is_copied_without_a_note(scene, obliqueGrid):
    part = obliqueGrid.crop((2, 1, 1), (4, 4, 3))
    node = segmentationNodeFromLabelMap(LabelMap(part, np.full(part.shape, 5, np.uint16), (LIVER,)), "part", scene)
    found = labelMapFromSegmentationNode(node, obliqueGrid)
    expected = np.zeros(obliqueGrid.shape, bool)
    expected[2:6, 1:5, 1:4] = True
    np.testing.assert_array_equal(found.mask("liver"), expected)
    assert found.notes == ()


def test_overlap_is_noted_and_the_later_segment_wins(scene, obliqueGrid):
    import slicer

    node = segmentationNodeFromLabelMap(labels(obliqueGrid), "Organs", scene)
    volume = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    setVoxels(volume, np.zeros(obliqueGrid.shape, np.int16), obliqueGrid)
    tumour = np.zeros(obliqueGrid.shape, np.uint8)
    tumour[1, 2, 0] = 1
    segmentID = node.GetSegmentation().AddEmptySegment("", "tumour")
    slicer.util.updateSegmentBinaryLabelmapFromArray(tumour, node, segmentID, volume)
    found = labelMapFromSegmentationNode(node, volume)
    assert found.voxel_counts()["tumour"] == 1
    assert found.voxel_counts()["liver"] == int(labels(obliqueGrid).mask("liver").sum()) - 1
    assert "liver by tumour" in found.notes[0]


def test_a_transformed_segmentation_moves(scene, obliqueGrid):
    truth = labels(obliqueGrid)
    node = segmentationNodeFromLabelMap(truth, "Organs", scene)
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    shift = np.eye(4)
    shift[:3, 3] = obliqueGrid.ijk_to_ras[:3, 2]  # one slice up
    transform.SetMatrixTransformToParent(vtkFromMatrix(shift))
    node.SetAndObserveTransformNodeID(transform.GetID())
    found = labelMapFromSegmentationNode(node, obliqueGrid)
    np.testing.assert_array_equal(found.mask("liver")[1:], truth.mask("liver")[:-1])


def test_closed_surfaces_become_voxels_and_the_node_is_left_alone(scene):
    """A sphere of 10 mm radius: 4.19 ml, within the voxel size of 1 mm."""
    import slicer
    import vtk

    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "RT")
    sphere = vtk.vtkSphereSource()
    sphere.SetRadius(10)
    sphere.SetThetaResolution(60)
    sphere.SetPhiResolution(60)
    sphere.Update()
    node.GetSegmentation().SetSourceRepresentationName("Closed surface")
    segment = slicer.vtkSegment()
    segment.SetName("ball")
    segment.AddRepresentation("Closed surface", sphere.GetOutput())
    node.GetSegmentation().AddSegment(segment)
    found = labelMapFromSegmentationNode(node, VoxelGrid.from_spacing((40, 40, 40), (1, 1, 1)))
    assert abs(found.mask("ball").sum() / 1000 - 4.19) < 0.15
    assert not node.GetSegmentation().ContainsRepresentation("Binary labelmap")


def test_no_segments_and_no_overlap_are_refused(scene, obliqueGrid):
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "nothing")
    with pytest.raises(SynthDoseError, match="'nothing' has no segments"):
        labelMapFromSegmentationNode(node, obliqueGrid)
    far = segmentationNodeFromLabelMap(labels(obliqueGrid), "far", scene)
    with pytest.raises(SynthDoseError, match="does not overlap"):
        labelMapFromSegmentationNode(far, VoxelGrid.from_spacing((3, 3, 3), (1, 1, 1), (500, 500, 500)))


def test_repeated_names_get_a_number(scene, obliqueGrid):
    node = segmentationNodeFromLabelMap(labels(obliqueGrid), "Organs", scene)
    node.GetSegmentation().GetSegment("spleen").SetName("liver")
    back = labelMapFromSegmentationNode(node, obliqueGrid)
    assert [o.name for o in back.organs] == ["liver", "liver_2"]
    assert "2 segments are named 'liver'" in back.notes[0]


def test_terminology_is_in_slicers_own_form(scene):
    import slicer

    entry = slicer.vtkSlicerTerminologyEntry()
    entry.SetTerminologyContextName("Segmentation category and type - DICOM master list")
    entry.SetRegionContextName("Anatomic codes - DICOM master list")
    entry.GetCategoryObject().SetValueSchemeMeaning("123037004", "SCT", "Anatomical Structure")
    entry.GetTypeObject().SetValueSchemeMeaning("10200004", "SCT", "Liver")
    expected = slicer.vtkSlicerTerminologiesModuleLogic.SerializeTerminologyEntry(entry)
    assert terminologyTag(LIVER) == expected
    assert snomedCode(expected) == "10200004"
    assert snomedCode(expected.replace("SCT^10200004^Liver", "SRT^T-62000^Liver")) == "10200004"  # before SNOMED CT
    assert snomedCode(expected.replace("10200004", "85756007")) == ""  # tissue: what Slicer gives when nothing is known
    assert snomedCode("") == ""
    assert terminologyTag(EMPTY) == ""


def test_sides_and_colours_of_known_organs_are_the_standard_ones(scene, obliqueGrid):
    import slicer
    import vtk

    entry = slicer.vtkSlicerTerminologyEntry()
    entry.SetTerminologyContextName("Segmentation category and type - DICOM master list")
    entry.SetRegionContextName("Anatomic codes - DICOM master list")
    entry.GetCategoryObject().SetValueSchemeMeaning("123037004", "SCT", "Anatomical Structure")
    entry.GetTypeObject().SetValueSchemeMeaning("64033007", "SCT", "Kidney")
    entry.GetTypeModifierObject().SetValueSchemeMeaning("7771000", "SCT", "Left")  # DICOM PS3.16, CID 244
    expected = slicer.vtkSlicerTerminologiesModuleLogic.SerializeTerminologyEntry(entry)
    own = (0.1, 0.2, 0.3)
    organs = (Organ(1, "kidney_left"), Organ(2, "colon_wall"), Organ(3, "liver", colour=own), Organ(4, "GTV 1"))
    values = np.arange(obliqueGrid.shape[0])[:, None, None] % 5 + np.zeros(obliqueGrid.shape)
    node = segmentationNodeFromLabelMap(LabelMap(obliqueGrid, values.astype(np.uint16), organs), "Organs", scene)
    segments = [node.GetSegmentation().GetSegment(organ.name) for organ in organs]
    tag = vtk.reference("")
    assert segments[0].GetTag(segments[0].GetTerminologyEntryTagName(), tag)
    assert str(tag.get()) == expected
    assert snomedCode(expected) == "64033007"
    assert segments[1].GetColor() == pytest.approx((0.85, 0.74, 0.66))  # organs.csv: colon
    assert segments[2].GetColor() == pytest.approx(own)
    assert terminologyTag(organs[3]) == ""
