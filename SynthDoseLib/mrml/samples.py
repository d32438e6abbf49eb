"""The synthetic patient as nodes: sample data that need no network and are nobody's."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from .segmentations import segmentationNodeFromLabelMap
from .time_points import noteHeader
from .volumes import sceneOrDefault, volumeNodeFromImage

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


def loadSample(scene: Any = None, *, seed: int = 1, spacingMm: float = SPACING_MM) -> SampleNodes:
    """Make a synthetic patient with CT, organs and three SPECT after Lu-177-DOTATATE; takes seconds, no network.

    Parameters
    ----------
    scene : vtkMRMLScene, optional
    seed : int
        Which patient.
    spacingMm : float
        Voxels of the CT.
    """
    from ..phantom import synthetic_patient
    from ..phantom.synthetic_time import synthetic_time_points

    scene = sceneOrDefault(scene)
    patient = synthetic_patient(seed, spacing_mm=(spacingMm,) * 3, noise_hu=5.0)
    scans = synthetic_time_points(patient, SAMPLE_HOURS)
    ct = volumeNodeFromImage(patient.ct, "Synthetic patient CT", scene)
    segmentation = segmentationNodeFromLabelMap(patient.organ_labels, "Synthetic patient organs", scene)
    spects = []
    for hours, image in zip(scans.hours, scans.spects, strict=True):
        node = volumeNodeFromImage(image, f"Synthetic patient SPECT {hours:g} h", scene)
        noteHeader(node, image)
        spects.append(node)
    return SampleNodes(ct, segmentation, tuple(spects), patient.nuclide, patient.administered_MBq)


def registerSample(iconPath: str = "") -> None:
    """Offer the synthetic patient in the module Sample Data, where that module exists."""
    try:
        module = import_module("SampleData")
    except ImportError:
        return

    def load(source: Any) -> list[Any]:
        return loadSample().nodes

    module.SampleDataLogic.registerCustomSampleDataSource(
        category="SynthDose",
        sampleName=SAMPLE_NAME,
        thumbnailFileName=iconPath,
        uris=None,
        fileNames=None,
        nodeNames=None,
        customDownloader=load,
    )
