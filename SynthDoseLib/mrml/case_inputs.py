"""What the guided case hands to ``synthdose run``: the tables of its plan, and its nodes as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..core import ImageVolume, LabelMap
from ..io import write_segmentation
from .forms import halfLivesFromText, momentFromText, namesFromText, withFurtherKeys
from .segmentations import labelMapFromSegmentationNode
from .time_points import activityTables, volumesOf
from .volumes import imageFromVolumeNode, saveImage

CT, LABELS, PREVIOUS = "ct.nrrd", "labels.seg.nrrd", "previous_Gy.nrrd"


def planValues(p: Any) -> dict[str, Any]:
    """Tables of the plan file of the guided case's parameters; paths are relative to it.

    Raises
    ------
    SynthDoseError
        If a text cannot be understood.
    """
    therapy: dict[str, Any] = {"nuclide": p.nuclide, "progeny": p.progeny}
    if p.administeredMBq > 0:
        therapy["administered_MBq"] = p.administeredMBq
    activity = activityTables(p.timePoints)
    if any("acquired_at" in entry for entry in activity) and p.administeredAt.strip():
        therapy["administered_at"] = momentFromText(p.administeredAt, "Administered at")
    kinetics: dict[str, Any] = {"method": p.kinetics, "registration": p.registration}
    if p.restHalfLifeHours > 0:
        kinetics["rest_effective_half_life_h"] = p.restHalfLifeHours
    if organs := halfLivesFromText(p.organHalfLives):
        kinetics["effective_half_life_h"] = organs
    if p.calibrationSigmaPercent > 0:
        kinetics["calibration_relative_sigma"] = p.calibrationSigmaPercent / 100
    dose: dict[str, Any] = {"histories": p.histories, "seed": p.seed}
    if p.relativeSigmaPercent > 0:
        dose["relative_sigma"] = p.relativeSigmaPercent / 100
        dose["organs"] = namesFromText(p.precisionOrgans)
    if p.maxMinutes > 0:
        dose["max_seconds"] = 60 * p.maxMinutes
    if p.voxelMm > 0:
        dose["voxel_mm"] = p.voxelMm
    if p.compareEngines:
        dose["compare"] = ["kernel", "local"]
    segments: dict[str, Any] = {"bundle": p.bundle.strip()} if p.bundle.strip() else {"method": "tissue"}
    if p.segmentation is not None:
        segments = {"path": LABELS}
    values: dict[str, Any] = {
        "schema": 1,
        "image": {"path": CT, "modality": "CT" if p.materials == "hu" else "MR"},
        "segmentation": segments,
        "therapy": therapy,
        "activity": activity,
        "kinetics": kinetics,
        "phantom": {"materials": p.materials},
        "dose": dose,
        # the results are loaded straight into this scene; DICOM is written when it is asked for
        "output": {"scene": False, "dicom": False, "radiomics": p.radiomics, "title": p.ctVolume.GetName()},
    }
    if p.previousDose is not None:
        values["dosimetry"] = {"previous": [{"path": PREVIOUS}]}
    return withFurtherKeys(values, p.furtherKeys)


class CaseFiles:
    """The nodes of a case as they are now, to be written when all is well.

    Parameters
    ----------
    p : parameter node of the guided case
    values : dict
        See `planValues`.
    """

    def __init__(self, p: Any, values: dict[str, Any]) -> None:
        ct = imageFromVolumeNode(p.ctVolume, modality=values["image"]["modality"], unit="HU" if p.materials == "hu" else "")
        self.images: dict[str, ImageVolume] = {CT: ct}
        for entry, node in zip(values["activity"], volumesOf(p.timePoints), strict=True):
            self.images[entry.get("path") or entry["tia_MBq_s"]] = imageFromVolumeNode(node)
        if p.previousDose is not None:
            self.images[PREVIOUS] = imageFromVolumeNode(p.previousDose, unit="Gy")
        self.labels: LabelMap | None = None
        if p.segmentation is not None:
            self.labels = labelMapFromSegmentationNode(p.segmentation, ct.grid)

    def write(self, folder: Path) -> None:
        """Write images and labels into an existing folder."""
        for name, image in self.images.items():
            saveImage(image, folder / name)
        if self.labels is not None:
            write_segmentation(folder / LABELS, self.labels)
