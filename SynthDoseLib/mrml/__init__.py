"""Values of the library as MRML nodes and back, the scene of a run folder, and background runs; names as in Slicer.

The modules below import ``slicer`` and ``vtk`` when they are first used, so that `scene` can say in one line what is missing
and `jobs` works without them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .display import DoseRange, doseColourNode, doseDisplayRange, jumpSlices, showDoseOverImage, showTableAndChart
    from .jobs import BackgroundRun, RunState, failureText, verbCommand
    from .phantoms import isPhantom, loadPhantom, organsOfPhantom, writePhantom
    from .runs import RunNodes, loadRun
    from .segmentations import labelMapFromSegmentationNode, organsFromSegmentationNode, segmentationNodeFromLabelMap
    from .tables import dvhChartNode, dvhTableNode, tableNodeFromCsv
    from .volumes import (
        doseVolumeFromDose,
        gridFromVolumeNode,
        imageFromVolumeNode,
        removeDoseVolume,
        saveImage,
        updateDoseVolume,
        updateVolumeFromImage,
        volumeNodeFromImage,
    )

__all__ = [
    "BackgroundRun",
    "DoseRange",
    "RunNodes",
    "RunState",
    "doseColourNode",
    "doseDisplayRange",
    "doseVolumeFromDose",
    "dvhChartNode",
    "dvhTableNode",
    "failureText",
    "gridFromVolumeNode",
    "imageFromVolumeNode",
    "isPhantom",
    "jumpSlices",
    "labelMapFromSegmentationNode",
    "loadPhantom",
    "loadRun",
    "organsFromSegmentationNode",
    "organsOfPhantom",
    "removeDoseVolume",
    "saveImage",
    "segmentationNodeFromLabelMap",
    "showDoseOverImage",
    "showTableAndChart",
    "tableNodeFromCsv",
    "updateDoseVolume",
    "updateVolumeFromImage",
    "verbCommand",
    "volumeNodeFromImage",
    "writePhantom",
]

_HOMES = {
    "display": ("DoseRange", "doseColourNode", "doseDisplayRange", "jumpSlices", "showDoseOverImage", "showTableAndChart"),
    "jobs": ("BackgroundRun", "RunState", "failureText", "verbCommand"),
    "phantoms": ("isPhantom", "loadPhantom", "organsOfPhantom", "writePhantom"),
    "runs": ("RunNodes", "loadRun"),
    "segmentations": ("labelMapFromSegmentationNode", "organsFromSegmentationNode", "segmentationNodeFromLabelMap"),
    "tables": ("dvhChartNode", "dvhTableNode", "tableNodeFromCsv"),
    "volumes": (
        "doseVolumeFromDose",
        "gridFromVolumeNode",
        "imageFromVolumeNode",
        "removeDoseVolume",
        "saveImage",
        "updateDoseVolume",
        "updateVolumeFromImage",
        "volumeNodeFromImage",
    ),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
