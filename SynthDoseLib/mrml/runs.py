"""The results of a run folder as nodes of a scene."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core import DoseMap, ImageVolume, LabelMap, SynthDoseError, VoxelGrid, gas_voxels, inner_point
from ..io import read_labels, read_volume
from .display import highDose
from .hierarchy import arrangeRun, noteModality
from .run_tables import QUALITY_ATTRIBUTE, activityChart, qualityVerdict, referTo, runTables
from .segmentations import segmentationNodeFromLabelMap
from .tables import dvhChartNode, dvhCurves, dvhTableNode, readCsv
from .volumes import SIGMA_REFERENCE, doseVolumeFromDose, modalityOf, sceneOrDefault, volumeNodeFromImage

REST = "rest_of_body"

CURVES_SHOWN = 10
"""Organs drawn in the chart: those with the highest mean dose. The table has all."""


@dataclass(frozen=True)
class RunNodes:
    """Nodes of one run folder; what the folder lacks is None.

    Attributes
    ----------
    dose, sigma : vtkMRMLScalarVolumeNode
    image : vtkMRMLScalarVolumeNode or None
        CT, or the density if the run has no CT.
    activity : vtkMRMLScalarVolumeNode or None
        Time-integrated activity per voxel, MBq s.
    segmentation : vtkMRMLSegmentationNode or None
    tables : dict of str to vtkMRMLTableNode
        By role, see `run_tables.TABLES`; "organTable" has the organ doses.
    dvhTable : vtkMRMLTableNode or None
    chart, activityChart : vtkMRMLPlotChartNode or None
        Histograms; activity over time.
    provenance : vtkMRMLTextNode or None
    hottestRas : tuple of 3 float
        Where the slice views are put: middle of the voxels with at least 80 % of the 99.9th percentile of the dose outside gas,
        RAS mm.
    notes : tuple of str
        What is missing or was done, for the user.
    """

    dose: Any
    sigma: Any
    image: Any = None
    activity: Any = None
    segmentation: Any = None
    tables: dict[str, Any] = field(default_factory=dict)
    dvhTable: Any = None
    chart: Any = None
    activityChart: Any = None
    provenance: Any = None
    hottestRas: tuple[float, float, float] = (0.0, 0.0, 0.0)
    notes: tuple[str, ...] = field(default_factory=tuple)

    @property
    def organTable(self) -> Any:
        """Table of organ doses, None if the run has none."""
        return self.tables.get("organTable")


def loadRun(run: str | Path, scene: Any = None, *, image: Any = None, title: str = "SynthDose") -> RunNodes:
    """Add the results of a run folder to a scene.

    Parameters
    ----------
    run : path-like
        Folder written by ``synthdose run`` or ``synthdose demo``.
    scene : vtkMRMLScene, optional
        The application's scene if not given.
    image : vtkMRMLScalarVolumeNode, optional
        CT of the patient that is already in the scene; otherwise ``ct.nrrd``, or without it ``density.nrrd``, is added.
    title : str
        Of the study in the Data module, and the beginning of the dose volume's name.

    Returns
    -------
    RunNodes

    Raises
    ------
    SynthDoseError
        If there is no such folder, it has no ``dose_Gy.nrrd``, or a file in it cannot be read. Then the scene is unchanged.
    """
    folder = Path(run)
    if not folder.is_dir():
        raise SynthDoseError(f"There is no run folder {folder}. Give the folder that was named with --out.")
    if not (folder / "dose_Gy.nrrd").is_file():
        raise SynthDoseError(f"{folder} has no dose_Gy.nrrd: it is not a run folder, or the run has not finished.")
    scene = sceneOrDefault(scene)
    before = _nodeIds(scene)
    scene.StartState(scene.BatchProcessState)  # selectors and views follow once, not node by node
    try:
        return _addNodes(folder, scene, image, title)
    except BaseException:
        for nodeId in _nodeIds(scene) - before:
            if node := scene.GetNodeByID(nodeId):
                scene.RemoveNode(node)
        raise
    finally:
        scene.EndState(scene.BatchProcessState)


def _nodeIds(scene: Any) -> set[str]:
    return {scene.GetNthNode(index).GetID() for index in range(scene.GetNumberOfNodes())}


def _addNodes(folder: Path, scene: Any, image: Any, title: str) -> RunNodes:
    notes: list[str] = []
    dose = _readDose(folder, notes)
    labels = read_labels(folder / "labels.seg.nrrd") if (folder / "labels.seg.nrrd").is_file() else None
    if image is None:
        image = _imageNode(folder, scene, notes)
    activity = None
    if (folder / "tia_MBq_s.nrrd").is_file():
        activity = volumeNodeFromImage(
            _read(folder / "tia_MBq_s.nrrd", unit="MBq s"), f"{title} time-integrated activity (MBq s)", scene
        )
    gas = _gas(folder, dose.grid, labels)
    doseNode = doseVolumeFromDose(dose, f"{title} dose (Gy)", scene, gas=gas)
    sigmaNode = doseNode.GetNodeReference(SIGMA_REFERENCE)
    segmentation = segmentationNodeFromLabelMap(labels, f"{title} organs", scene) if labels is not None else None
    if segmentation is not None:
        segmentation.SetReferenceImageGeometryParameterFromVolumeNode(doseNode)  # of the same voxels: the Segment Editor asks
        segmentation.GetDisplayNode().SetSegmentVisibility(REST, False)  # its outline would be drawn around every organ
    dvhTable = chart = courses = None
    details: list[Any] = []
    tables = runTables(folder, title, scene)
    if "organTable" not in tables:
        notes.append("The run has no organ_doses.csv.")
    if (folder / "dvh.csv").is_file():
        curves = dvhCurves(folder / "dvh.csv")
        dvhTable = dvhTableNode(curves, f"{title} dose volume histogram data", scene)
        chart = dvhChartNode(
            dvhTable, curves, _colours(labels), _hottestOrgans(folder, list(curves)), f"{title} dose volume histograms", scene
        )
    else:
        notes.append("The run has no dvh.csv.")
    if (folder / "time_activity.csv").is_file():
        courses, details = activityChart(folder / "time_activity.csv", f"{title} activity over time", scene, _colours(labels))
    provenance = _provenanceNode(folder, scene, title)
    doseNode.SetAttribute(QUALITY_ATTRIBUTE, qualityVerdict(folder) or None)
    referTo(
        doseNode,
        {
            **tables,
            "dvhChart": chart,
            "activityChart": courses,
            "segmentation": segmentation,
            "image": image,
            "activity": activity,
            "provenance": provenance,
        },
    )
    series = [chart.GetNthPlotSeriesNode(i) for i in range(chart.GetNumberOfPlotSeriesNodes())] if chart else []
    inputs = [segmentation, activity]
    arrangeRun(
        scene,
        title,
        inputs,
        [doseNode, sigmaNode, *tables.values(), chart, courses, provenance],
        [dvhTable, *series, *details],
        image,
    )
    noteModality(scene, [(doseNode, "RTDOSE"), (segmentation, "SEG"), (image, modalityOf(image))])
    return RunNodes(
        dose=doseNode,
        sigma=sigmaNode,
        image=image,
        activity=activity,
        segmentation=segmentation,
        tables=tables,
        dvhTable=dvhTable,
        chart=chart,
        activityChart=courses,
        provenance=provenance,
        hottestRas=_hottest(dose, gas),
        notes=tuple(notes),
    )


def _read(path: Path, unit: str = "") -> ImageVolume:
    values, grid, found = read_volume(path)
    return ImageVolume(grid, values, unit=unit or found)


def _readDose(folder: Path, notes: list[str]) -> DoseMap:
    dose = _read(folder / "dose_Gy.nrrd")
    sigma = np.zeros(dose.grid.shape, np.float32)
    if (folder / "sigma_Gy.nrrd").is_file():
        found = _read(folder / "sigma_Gy.nrrd")
        if not found.grid.matches(dose.grid):
            raise SynthDoseError(f"{folder}: sigma_Gy.nrrd is on another grid than dose_Gy.nrrd. Run the plan again.")
        sigma = np.asarray(found.values)
    else:
        notes.append("The run has no sigma_Gy.nrrd: the standard error is shown as 0.")
    return DoseMap(dose.grid, np.asarray(dose.values), sigma)


def _imageNode(folder: Path, scene: Any, notes: list[str]) -> Any:
    if (folder / "ct.nrrd").is_file():
        image = _read(folder / "ct.nrrd")
        if image.unit == "HU":
            return volumeNodeFromImage(replace(image, modality="CT"), "CT", scene)
        return volumeNodeFromImage(image, "Image", scene)  # an MR, with tissues assigned by label
    if (folder / "density.nrrd").is_file():
        notes.append("The run has no ct.nrrd: the dose is shown over the density.")
        return volumeNodeFromImage(_read(folder / "density.nrrd", unit="g/cm3"), "Density (g/cm3)", scene)
    notes.append("The run has neither ct.nrrd nor density.nrrd: the dose is shown alone.")
    return None


def _colours(labels: LabelMap | None) -> dict[str, tuple[float, float, float]]:
    return {organ.name: organ.colour for organ in labels.organs} if labels is not None else {}


def _hottestOrgans(folder: Path, organs: list[str]) -> list[str]:
    path = folder / "organ_doses.csv"
    columns = readCsv(path) if path.is_file() else {}
    try:
        mean = dict(zip(columns["organ"], map(float, columns["mean_dose_Gy"]), strict=True))
    except (KeyError, ValueError):
        return organs[:CURVES_SHOWN]
    chosen = sorted(organs, key=lambda organ: -mean.get(organ, 0.0))[:CURVES_SHOWN]
    return [organ for organ in organs if organ in chosen]


def _provenanceNode(folder: Path, scene: Any, title: str) -> Any:
    path = folder / "provenance.json"
    if not path.is_file():
        return None
    try:
        text = json.dumps(json.loads(path.read_text(encoding="utf-8")), indent=2)
    except ValueError as error:
        raise SynthDoseError(f"{path} is not valid JSON: {error}.") from error
    node = scene.AddNewNodeByClass("vtkMRMLTextNode", f"{title} provenance")
    node.SetText(text)
    return node


def _gas(folder: Path, grid: VoxelGrid, labels: LabelMap | None) -> NDArray[np.bool_] | None:
    """Voxels of gas of the run's phantom, None if the run has no phantom on the grid of its dose."""
    path = folder / "density.nrrd"
    if not path.is_file():
        return None
    density, found, _ = read_volume(path)
    if not found.matches(grid):
        return None
    return gas_voxels(density, labels if labels is not None and labels.labels.shape == grid.shape else None)


def _hottest(dose: DoseMap, gas: NDArray[np.bool_] | None) -> tuple[float, float, float]:
    values = np.asarray(dose.dose_Gy)
    hot = values >= 0.8 * highDose(values, gas)
    if gas is not None:
        hot &= ~gas
    if not values.any() or not hot.any():
        return _middle(dose.grid)
    right, anterior, superior = inner_point(hot, dose.grid)
    return float(right), float(anterior), float(superior)


def _middle(grid: VoxelGrid) -> tuple[float, float, float]:
    right, anterior, superior = grid.to_ras((np.asarray(grid.shape[::-1]) - 1) / 2)
    return float(right), float(anterior), float(superior)
