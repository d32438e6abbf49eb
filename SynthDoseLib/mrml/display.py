"""How a dose is shown: colours, range, and slice views with the dose over the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import slicer
from numpy.typing import NDArray

from .anatomy import COVERING

COLOUR_NODE_NAME = "SynthDose dose"

_COLOUR_STOPS = (
    (0.00, (0.00, 0.00, 0.55)),
    (0.15, (0.00, 0.20, 1.00)),
    (0.38, (0.00, 0.90, 1.00)),
    (0.55, (0.20, 0.90, 0.20)),
    (0.72, (1.00, 0.95, 0.00)),
    (0.88, (1.00, 0.45, 0.00)),
    (1.00, (0.80, 0.00, 0.00)),
)
"""Low dose blue, high dose red: the order of treatment planning, opposite to Slicer's Rainbow."""


class DoseRange(NamedTuple):
    """Doses between which colours run, Gy; below `lower` nothing is shown."""

    lower: float
    upper: float


def doseDisplayRange(values: NDArray[np.floating[Any]], gas: NDArray[np.bool_] | None = None) -> DoseRange:
    """Return the range in which to show a dose: up to its 99.9th percentile, hidden below 5 % of that.

    The percentile is of the voxels with a dose that are not `gas`, so that noisy voxels of thin air do not set the scale.
    """
    upper = highDose(values, gas)
    return DoseRange(0.05 * upper, upper)


def highDose(values: NDArray[np.floating[Any]], gas: NDArray[np.bool_] | None = None) -> float:
    """Return the 99.9th percentile of the values above 0, 1 if there are none; of every n-th voxel of a large volume.

    Parameters
    ----------
    values : ndarray
    gas : ndarray of bool, same shape, optional
        Voxels that do not count.
    """
    step = max(1, values.size // 4_000_000)
    chosen = values.ravel()[::step]
    positive = chosen[chosen > 0 if gas is None else (chosen > 0) & ~gas.ravel()[::step]]
    return float(np.percentile(positive, 99.9)) if positive.size else 1.0


def doseColourNode(scene: Any) -> Any:
    """Return the dose colour table of the scene (256 colours, blue to red), made on first use and saved with the scene."""
    found = scene.GetFirstNode(COLOUR_NODE_NAME, "vtkMRMLColorTableNode")
    if found is not None:
        return found
    node = slicer.vtkMRMLColorTableNode()
    node.SetName(COLOUR_NODE_NAME)
    node.SetTypeToUser()
    node.SetNumberOfColors(256)
    positions = [position for position, _ in _COLOUR_STOPS]
    for index in range(256):
        red, green, blue = (
            float(np.interp(index / 255, positions, [colour[channel] for _, colour in _COLOUR_STOPS])) for channel in range(3)
        )
        node.SetColor(index, f"{index / 255:.3f}", red, green, blue, 1.0)
    node.GetLookupTable().SetTableRange(0, 255)
    node.SetAttribute("Category", "SynthDose")
    return scene.AddNode(node)


def showImage(scene: Any, image: Any) -> None:
    """Show an image volume, and nothing over it, in every slice view of the scene."""
    showDoseOverImage(scene, image)


def showDoseOverImage(scene: Any, dose: Any, image: Any = None, *, opacity: float = 0.5) -> None:
    """Show a dose volume over an image volume in every slice view of the scene.

    Parameters
    ----------
    scene : vtkMRMLScene
    dose, image : vtkMRMLScalarVolumeNode
        Without an image the dose is the background.
    opacity : float
        Of the dose.
    """
    for index in range(scene.GetNumberOfNodesByClass("vtkMRMLSliceCompositeNode")):
        composite = scene.GetNthNodeByClass(index, "vtkMRMLSliceCompositeNode")
        composite.SetBackgroundVolumeID((image or dose).GetID())
        composite.SetForegroundVolumeID(dose.GetID() if image is not None else None)
        composite.SetForegroundOpacity(opacity)


def setLayout(arrangement: int) -> None:
    """Change to a view arrangement; without a main window (``--no-main-window``) Slicer has no layout manager and no views."""
    manager = slicer.app.layoutManager()
    if manager is not None:
        manager.setLayout(arrangement)


def resetThreeDViews() -> None:
    """Fit what is shown into the 3D views, if there are any."""
    manager = slicer.app.layoutManager()
    if manager is not None:
        manager.resetThreeDViews()


def showSurfaces(segmentation: Any) -> None:
    """Show the segments of a segmentation node in 3D views, those that cover others nearly transparent."""
    segmentation.CreateClosedSurfaceRepresentation()
    display = segmentation.GetDisplayNode()
    for segmentID in segmentation.GetSegmentation().GetSegmentIDs():
        name = segmentation.GetSegmentation().GetSegment(segmentID).GetName()
        display.SetSegmentOpacity3D(segmentID, 0.08 if name in COVERING else 1.0)
    display.SetVisibility3D(True)


def jumpSlices(scene: Any, pointRas: Sequence[float]) -> None:
    """Move every slice view of the scene through a point, RAS mm."""
    for index in range(scene.GetNumberOfNodesByClass("vtkMRMLSliceNode")):
        scene.GetNthNodeByClass(index, "vtkMRMLSliceNode").JumpSliceByOffsetting(*(float(x) for x in pointRas))


def showTableAndChart(applicationLogic: Any, table: Any = None, chart: Any = None) -> None:
    """Show a table node and a chart node in the views of the current layout that can show them.

    Parameters
    ----------
    applicationLogic : vtkMRMLApplicationLogic
    table : vtkMRMLTableNode, optional
    chart : vtkMRMLPlotChartNode, optional
    """
    selection = applicationLogic.GetSelectionNode()
    if table is not None:
        selection.SetActiveTableID(table.GetID())
        applicationLogic.PropagateTableSelection()
    if chart is not None:
        selection.SetActivePlotChartID(chart.GetID())
        applicationLogic.PropagatePlotChartSelection()
