"""Volume nodes <-> images and doses."""

from __future__ import annotations

import numpy as np
import pytest

from SynthDoseLib.core import DoseMap, ImageVolume, LabelMap, Organ, SynthDoseError, VoxelGrid, gas_voxels
from SynthDoseLib.mrml import (
    doseColourNode,
    doseVolumeFromDose,
    imageFromVolumeNode,
    updateDoseVolume,
    updateVolumeFromImage,
    volumeNodeFromImage,
)
from SynthDoseLib.mrml.volumes import vtkFromMatrix


def ramp(grid: VoxelGrid) -> np.ndarray:
    return (np.arange(grid.size, dtype=np.float32).reshape(grid.shape) - 50) * 0.25


def test_an_oblique_image_survives_the_round_trip_exactly(scene, obliqueGrid):
    image = ImageVolume(obliqueGrid, ramp(obliqueGrid), modality="CT", unit="HU")
    back = imageFromVolumeNode(volumeNodeFromImage(image, "CT", scene))
    np.testing.assert_array_equal(back.values, image.values)
    np.testing.assert_allclose(back.grid.ijk_to_ras, obliqueGrid.ijk_to_ras, atol=1e-12)
    assert (back.modality, back.unit) == ("CT", "HU")


def test_a_voxel_of_the_node_is_where_the_image_says(scene, obliqueGrid):
    values = np.zeros(obliqueGrid.shape, np.float32)
    values[2, 4, 1] = 9
    node = volumeNodeFromImage(ImageVolume(obliqueGrid, values), "one voxel", scene)
    assert node.GetImageData().GetScalarComponentAsDouble(1, 4, 2, 0) == 9
    matrix = vtkFromMatrix(np.eye(4))
    node.GetIJKToRASMatrix(matrix)
    np.testing.assert_allclose(matrix.MultiplyPoint((1, 4, 2, 1))[:3], obliqueGrid.to_ras((1, 4, 2)), atol=1e-12)


def test_left_stays_left_for_a_left_handed_node(scene):
    """A node whose axes turn the other way is read with its slices in reverse order: no voxel moves in the patient."""
    import slicer

    matrix = np.diag([2.0, 2.0, -3.0, 1.0])
    matrix[:3, 3] = (-20, 5, 40)
    array = np.zeros((4, 5, 6), np.int16)
    array[1, 2, 0] = 700  # i = 0 is the leftmost (R = -20)
    node = slicer.util.addVolumeFromArray(array, ijkToRAS=matrix, name="left-handed")
    image = imageFromVolumeNode(node)
    assert image.grid.is_right_handed
    (kji,) = np.argwhere(image.values == 700)
    np.testing.assert_allclose(image.grid.to_ras(kji[::-1]), (-20, 5 + 2 * 2, 40 - 3), atol=1e-12)


def test_a_linear_transform_moves_the_image_and_a_non_linear_one_is_refused(scene, obliqueGrid):
    import slicer

    node = volumeNodeFromImage(ImageVolume(obliqueGrid, ramp(obliqueGrid)), "moved", scene)
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    shift = np.eye(4)
    shift[:3, 3] = (5, -7, 11)
    transform.SetMatrixTransformToParent(vtkFromMatrix(shift))
    node.SetAndObserveTransformNodeID(transform.GetID())
    np.testing.assert_allclose(imageFromVolumeNode(node).grid.ijk_to_ras, shift @ obliqueGrid.ijk_to_ras, atol=1e-12)
    warp = scene.AddNewNodeByClass("vtkMRMLBSplineTransformNode", "warp")
    warp.SetAndObserveTransformFromParent(slicer.vtkOrientedBSplineTransform())
    node.SetAndObserveTransformNodeID(warp.GetID())
    with pytest.raises(SynthDoseError, match="'warp'"):
        imageFromVolumeNode(node)


def test_nodes_without_one_value_per_voxel_are_refused(scene):
    empty = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty")
    with pytest.raises(SynthDoseError, match="'empty' has no voxels"):
        imageFromVolumeNode(empty)
    import vtk

    colour = vtk.vtkImageData()
    colour.SetDimensions(2, 2, 2)
    colour.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 3)
    empty.SetAndObserveImageData(colour)
    with pytest.raises(SynthDoseError, match="3 values per voxel"):
        imageFromVolumeNode(empty)


def test_a_sheared_node_is_refused(scene):
    import slicer

    matrix = np.eye(4)
    matrix[0, 1] = 0.1
    node = slicer.util.addVolumeFromArray(np.zeros((3, 3, 3), np.int16), ijkToRAS=matrix)
    node.SetIJKToRASMatrix(vtkFromMatrix(matrix))
    with pytest.raises(SynthDoseError, match="not orthogonal"):
        imageFromVolumeNode(node)


def test_updating_a_node_replaces_values_and_geometry_and_copies_them(scene, obliqueGrid):
    node = volumeNodeFromImage(ImageVolume(obliqueGrid, ramp(obliqueGrid)), "x", scene)
    smaller = VoxelGrid.from_spacing((2, 3, 4), (1, 1, 1))
    values = np.full(smaller.shape, 3.0, np.float32)
    updateVolumeFromImage(node, ImageVolume(smaller, values, modality="CT"))
    values[:] = 0
    back = imageFromVolumeNode(node)
    assert back.values.min() == 3
    assert back.grid.matches(smaller)
    assert node.GetImageData().GetScalarTypeAsString() == "short"


def test_a_dose_volume_is_told_as_one_by_slicerrt_and_knows_its_standard_error(scene, obliqueGrid):
    dose = np.linspace(0, 10, obliqueGrid.size, dtype=np.float32).reshape(obliqueGrid.shape)
    node = doseVolumeFromDose(DoseMap(obliqueGrid, dose, 0.01 * dose), "Dose", scene)
    assert node.GetAttribute("DicomRtImport.DoseVolume") == "1"
    assert node.GetAttribute("DicomRtImport.DoseUnitName") == "GY"
    assert node.GetAttribute("DicomRtImport.DoseUnitValue") == "1.0"
    sigma = node.GetNodeReference("SynthDose.sigmaVolume")
    assert sigma.GetName() == "Dose sigma"
    np.testing.assert_array_equal(imageFromVolumeNode(sigma).values, 0.01 * dose)
    display = node.GetDisplayNode()
    assert display.GetApplyThreshold() == 1
    assert 0.4 < display.GetLowerThreshold() < 0.6  # 5 % of nearly 10 Gy
    assert display.GetUpperThreshold() >= 10
    assert display.GetAutoWindowLevel() == 0
    assert abs(display.GetWindowLevelMax() - 10) < 0.1


def test_gas_sets_no_colours_and_is_hidden_where_it_is_hotter_than_any_tissue(scene):
    """A voxel of air takes nearly no energy, but divided by its mass that can be a dose beyond that of every organ."""
    from SynthDoseLib.mrml.isodoses import PERCENT, showIsodoses

    grid = VoxelGrid.from_spacing((20, 20, 20), (2.0, 2.0, 2.0))
    _, j, i = np.indices(grid.shape)
    density = np.where(i < 2, 0.0, np.where((i - 10) ** 2 + (j - 10) ** 2 < 9, 0.0012, 1.0)).astype(np.float32)
    density[:, :3, 12:] = 0.05  # a thin lung
    gas = gas_voxels(density)
    assert gas.sum() == (density == np.float32(0.0012)).sum()
    lung = np.zeros(grid.shape, np.uint16)
    lung[:, :3, 12:] = 1
    for name, more in (("lung_left", 0), ("colon", lung.sum())):
        assert gas_voxels(density, LabelMap(grid, lung, (Organ(1, name),))).sum() == gas.sum() + more
    dose = np.where(gas, 500.0, np.linspace(1, 2, 20)[i]).astype(np.float32)
    node = doseVolumeFromDose(DoseMap(grid, dose, 0.1 * dose), "Dose", scene, gas=gas)
    display = node.GetDisplayNode()
    assert display.GetWindowLevelMax() == pytest.approx(2.0, abs=0.01)
    assert display.GetUpperThreshold() == pytest.approx(2.0)
    assert display.GetLowerThreshold() == pytest.approx(0.1, abs=0.01)
    np.testing.assert_array_equal(imageFromVolumeNode(node).values, dose)  # the dose itself is as it was
    names = [surface.GetName() for surface in showIsodoses(node)]
    assert names[-1] == f"Dose 1.8 Gy ({PERCENT[-1]} %)"
    updateDoseVolume(node, DoseMap(grid, 3 * dose, 0.1 * dose), gas=gas)
    assert display.GetUpperThreshold() == pytest.approx(6.0)


def test_dose_colours_run_from_blue_to_red_and_there_is_one_table(scene):
    colours = doseColourNode(scene)
    assert doseColourNode(scene) is colours
    low, high = [0.0] * 4, [0.0] * 4
    colours.GetColor(20, low)
    colours.GetColor(255, high)
    assert low[2] > low[0] + 0.3
    assert high[0] > high[2] + 0.3


def test_a_zero_dose_can_be_shown(scene, obliqueGrid):
    zero = np.zeros(obliqueGrid.shape, np.float32)
    assert doseVolumeFromDose(DoseMap(obliqueGrid, zero, zero), "nothing", scene).GetDisplayNode().GetWindowLevelMax() == 1
