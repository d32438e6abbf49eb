"""Isodose surfaces of a dose volume, which slice views show as lines, and the scale of doses beside the picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import vtk
from vtk.util import numpy_support

from .display import doseColourNode, highDose
from .volumes import HIGH_DOSE_ATTRIBUTE, gridFromVolumeNode, vtkFromMatrix

ISODOSE_REFERENCE = "SynthDose.isodose"
PERCENT = (10, 25, 50, 75, 90)
"""Levels, per cent of the 99.9th percentile of the dose outside gas."""


def showDoseScale(dose: Any, shown: bool = True) -> Any:
    """Show the colours of a dose with numbers in Gy in every view that shows it; return the legend's node."""
    display = dose.GetDisplayNode()
    legend = _legend(dose)
    if legend is None:
        scene = dose.GetScene()
        legend = scene.AddNewNodeByClass("vtkMRMLColorLegendDisplayNode", f"{dose.GetName()} scale")
        legend.SetAndObservePrimaryDisplayNode(display)
        legend.SetAndObserveColorNodeID(display.GetColorNodeID())
        dose.AddAndObserveDisplayNodeID(legend.GetID())
    unit = dose.GetAttribute("SynthDose.unit") or "Gy"
    legend.SetTitleText(f"Dose [{unit}]")
    legend.SetNumberOfLabels(6)
    upper = display.GetWindowLevelMax()
    legend.SetLabelFormat("%.1f" if upper >= 2 else "%.2g")
    legend.SetSize(0.12, 0.5)
    legend.SetPosition(0.97, 0.5)
    legend.SetVisibility(shown)
    return legend


def _legend(dose: Any) -> Any:
    nodes = (dose.GetNthDisplayNode(index) for index in range(dose.GetNumberOfDisplayNodes()))
    return next((node for node in nodes if node is not None and node.IsA("vtkMRMLColorLegendDisplayNode")), None)


def isodosesOf(dose: Any) -> list[Any]:
    """Surfaces made for a dose volume that are still in the scene."""
    count = dose.GetNumberOfNodeReferences(ISODOSE_REFERENCE)
    return [node for node in (dose.GetNthNodeReference(ISODOSE_REFERENCE, index) for index in range(count)) if node is not None]


def showIsodoses(dose: Any, shown: bool = True, percent: Sequence[float] = PERCENT) -> list[Any]:
    """Draw lines of equal dose in the slice views, in the colours of the dose scale.

    The surfaces are made the first time; they can be switched on in the 3D view by their own display properties.

    Parameters
    ----------
    dose : vtkMRMLScalarVolumeNode
    shown : bool
    percent : sequence of float
        Levels, % of the 99.9th percentile of the dose; each surface's name says its dose in Gy.

    Returns
    -------
    list of vtkMRMLModelNode
        Those of levels that the dose reaches.
    """
    nodes = isodosesOf(dose)
    if shown and not nodes:
        nodes = _make(dose, percent)
    for node in nodes:
        node.GetDisplayNode().SetVisibility(shown)
        node.GetDisplayNode().SetVisibility2D(shown)
        node.GetDisplayNode().SetVisibility3D(False)
    return nodes


def _make(dose: Any, percent: Sequence[float]) -> list[Any]:
    scene, grid = dose.GetScene(), gridFromVolumeNode(dose)
    values = numpy_support.vtk_to_numpy(dose.GetImageData().GetPointData().GetScalars())
    top = float(dose.GetAttribute(HIGH_DOSE_ATTRIBUTE) or highDose(values))
    colours = doseColourNode(scene)
    to_ras = vtk.vtkTransform()
    matrix = vtk.vtkMatrix4x4()
    dose.GetIJKToRASMatrix(matrix)
    to_ras.SetMatrix(matrix if dose.GetParentTransformNode() is None else vtkFromMatrix(grid.ijk_to_ras))
    made = []
    for level in percent:
        contour = vtk.vtkFlyingEdges3D()
        contour.SetInputData(dose.GetImageData())
        contour.SetValue(0, top * level / 100)
        contour.ComputeNormalsOff()
        contour.ComputeScalarsOff()
        placed = vtk.vtkTransformPolyDataFilter()
        placed.SetInputConnection(contour.GetOutputPort())
        placed.SetTransform(to_ras)
        placed.Update()
        if placed.GetOutput().GetNumberOfPoints() == 0:
            continue
        node = scene.AddNewNodeByClass("vtkMRMLModelNode", f"{dose.GetName()} {top * level / 100:.3g} Gy ({level:g} %)")
        node.SetAndObserveMesh(placed.GetOutput())
        node.CreateDefaultDisplayNodes()
        colour = np.zeros(4)
        colours.GetColor(round(255 * min(level, 100) / 100), colour)
        node.GetDisplayNode().SetColor(*colour[:3])
        node.GetDisplayNode().SetSliceIntersectionThickness(2)
        dose.AddNodeReferenceID(ISODOSE_REFERENCE, node.GetID())
        made.append(node)
    return made
