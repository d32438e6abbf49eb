"""The synthetic patient as nodes: sample data that need no network and are nobody's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

SAMPLE_NAME = "SynthDose synthetic patient"
SAMPLE_HOURS = (4.0, 24.0, 96.0)
SPACING_MM = 6.0


@dataclass(frozen=True)
class SampleNodes:
    """Nodes of the synthetic patient.

    Attributes
    ----------
    ct : vtkMRMLScalarVolumeNode
    segmentation : vtkMRMLSegmentationNode
    spects : tuple of vtkMRMLScalarVolumeNode
        Bq/ml, in the order of time.
    nuclide : str
    administered_MBq : float
    """

    ct: Any
    segmentation: Any
    spects: tuple[Any, ...]
    nuclide: str
    administered_MBq: float

    @property
    def nodes(self) -> list[Any]:
        """All of them, as SampleData wants them."""
        return [self.ct, self.segmentation, *self.spects]


def sampleNodes(patient: Any, scans: Any, scene: Any = None) -> SampleNodes:
    """Add a synthetic patient with CT, organs and SPECT after Lu-177-DOTATATE to the scene.

    Parameters
    ----------
    patient : phantom.SyntheticPatient
    scans : phantom.synthetic_time.SyntheticTimePoints
    scene : vtkMRMLScene, optional
    """
    from .segmentations import segmentationNodeFromLabelMap  # readers of images come with these: not when Slicer starts
    from .time_points import noteHeader
    from .volumes import sceneOrDefault, volumeNodeFromImage

    scene = sceneOrDefault(scene)
    ct = volumeNodeFromImage(patient.ct, "Synthetic patient CT", scene)
    segmentation = segmentationNodeFromLabelMap(patient.organ_labels, "Synthetic patient organs", scene)
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(ct)
    spects = []
    for hours, image in zip(scans.hours, scans.spects, strict=True):
        node = volumeNodeFromImage(image, f"Synthetic patient SPECT {hours:g} h", scene)
        noteHeader(node, image)
        spects.append(node)
    return SampleNodes(ct, segmentation, tuple(spects), patient.nuclide, patient.administered_MBq)


def registerSample(load: Callable[[], SampleNodes], iconPath: str = "") -> None:
    """Offer the synthetic patient, as `load` makes it, in the module Sample Data, where that module exists."""
    try:
        module = import_module("SampleData")
    except ImportError:
        return

    module.SampleDataLogic.registerCustomSampleDataSource(
        category="SynthDose",
        sampleName=SAMPLE_NAME,
        thumbnailFileName=iconPath,
        uris=[],  # nothing is downloaded; SampleData counts the entries of all three lists
        fileNames=[],
        nodeNames=[],
        customDownloader=lambda source: load().nodes,
    )
