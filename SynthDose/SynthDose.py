"""The guided case: CT, organs and activity in; absolute dose with its uncertainty out."""

from __future__ import annotations

import pathlib
import sys
from enum import Enum
from typing import Annotated, Any

import qt
import slicer
from slicer import vtkMRMLPlotChartNode, vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode, vtkMRMLTableNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import Choice, WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import ScriptedLoadableModule, ScriptedLoadableModuleTest

_HERE = pathlib.Path(__file__).resolve().parent
if not (_HERE / "SynthDoseLib").is_dir() and str(_HERE.parent) not in sys.path:
    sys.path.append(str(_HERE.parent))  # a checkout, added through the Extension Wizard: the library is beside this folder

from SynthDoseLib.mrml.forms import NUCLIDES  # noqa: E402
from SynthDoseLib.mrml.panel import JobLogic, JobPanel, showTable  # noqa: E402


class SynthDose(ScriptedLoadableModule):
    """What the application shows about the module."""

    def __init__(self, parent: Any) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = "SynthDose"
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Radiotherapy")]
        self.parent.dependencies = []
        self.parent.contributors = ["SynthDose developers"]
        self.parent.helpText = _(
            "Absorbed dose of radionuclides from a CT, organs and a SPECT or PET by Monte Carlo, per voxel and organ, with its "
            "uncertainty. Research software, not for clinical use."
        )
        self.parent.acknowledgementText = _("Decay data: ICRP Publication 107. See NOTICE for data and their licences.")


class ActivityKind(Enum):
    """What the voxels of the activity volume hold."""

    CONCENTRATION = "activity concentration at the scan, Bq/ml"
    TIME_INTEGRATED = "time-integrated activity, MBq s per voxel"

    def label(self) -> str:
        return self.value


@parameterNodeWrapper
class SynthDoseParameterNode:
    """Everything that the panel knows; saved with the scene."""

    ctVolume: vtkMRMLScalarVolumeNode
    segmentation: vtkMRMLSegmentationNode
    activityVolume: vtkMRMLScalarVolumeNode
    activityKind: ActivityKind = ActivityKind.CONCENTRATION
    nuclide: Annotated[str, Choice(list(NUCLIDES))] = "Lu-177"
    progeny: Annotated[str, Choice(["none", "all"])] = "none"
    administeredMBq: Annotated[float, WithinRange(0, 1e6)] = 7400.0
    hoursAfterAdministration: Annotated[float, WithinRange(0, 2000)] = 24.0
    restHalfLifeHours: Annotated[float, WithinRange(0, 1e6)] = 0.0
    organHalfLives: str = ""
    histories: Annotated[int, WithinRange(1000, 2_000_000_000)] = 10_000_000
    relativeSigmaPercent: Annotated[float, WithinRange(0, 100)] = 0.0
    precisionOrgans: str = ""
    maxMinutes: Annotated[float, WithinRange(0, 10000)] = 0.0
    voxelMm: Annotated[float, WithinRange(0, 20)] = 0.0
    seed: Annotated[int, WithinRange(0, 2_000_000_000)] = 1
    radiomics: bool = False
    outputFolder: pathlib.Path
    runFolder: str = ""
    doseVolume: vtkMRMLScalarVolumeNode
    organTable: vtkMRMLTableNode
    dvhChart: vtkMRMLPlotChartNode


class SynthDoseWidget(JobPanel):
    """The panel: enables buttons, shows progress and errors."""

    def makeLogic(self) -> SynthDoseLogic:
        return SynthDoseLogic()

    def buttons(self) -> dict[str, Any]:
        return {
            "listOrgansButton": self.onListOrgans,
            "showDoseButton": self.onShowDose,
            "showChartButton": self.onShowChart,
            "openReportButton": self.onOpenReport,
        }

    def updateButtons(self, parameters: Any) -> None:
        p = parameters
        self.ui.listOrgansButton.enabled = p is not None and p.segmentation is not None
        self.ui.showDoseButton.enabled = p is not None and p.doseVolume is not None
        self.ui.showChartButton.enabled = p is not None and p.dvhChart is not None
        self.ui.openReportButton.enabled = p is not None and self.logic.report(p) is not None
        showTable(self.ui.organTableView, p.organTable if p is not None else None)

    def onListOrgans(self) -> None:
        p = self._parameterNode
        p.organHalfLives = self.logic.withOrgansListed(p)

    def onShowDose(self) -> None:
        self.logic.showDose(self._parameterNode)

    def onShowChart(self) -> None:
        self.logic.showChart(self._parameterNode)

    def onOpenReport(self) -> None:
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(self.logic.report(self._parameterNode))))


class SynthDoseLogic(JobLogic):
    """Nodes to the files of a plan, and the results of its run folder to nodes; no widgets."""

    def __init__(self, command: Any = None, installer: Any = None) -> None:
        JobLogic.__init__(self, command, installer)
        self._folder: pathlib.Path | None = None

    def getParameterNode(self) -> SynthDoseParameterNode:
        return SynthDoseParameterNode(super().getParameterNode())

    def problem(self, parameters: SynthDoseParameterNode) -> str:
        """What keeps a run from starting, "" if nothing."""
        from SynthDoseLib.mrml.forms import namesFromText

        if parameters.ctVolume is None:
            return _("Choose the CT")
        if parameters.activityVolume is None:
            return _("Choose the activity volume")
        if parameters.activityVolume is parameters.ctVolume:
            return _("CT and activity are the same volume")
        if parameters.relativeSigmaPercent > 0 and not namesFromText(parameters.precisionOrgans):
            return _("Name the organs that are to reach the precision")
        return ""

    def withOrgansListed(self, parameters: SynthDoseParameterNode) -> str:
        """The half-life text with a line for every organ of the segmentation that it does not name yet."""
        import numpy as np

        from SynthDoseLib.core import LabelMap, VoxelGrid
        from SynthDoseLib.mrml import organsFromSegmentationNode
        from SynthDoseLib.mrml.forms import withOrganLines
        from SynthDoseLib.pipeline.stations import match_organs

        # the run finds organs by other names too ("Left Kidney"): write those that it will use
        nothing = np.zeros((1, 1, 1), np.uint16)
        organs = LabelMap(VoxelGrid(nothing.shape, np.eye(4)), nothing, organsFromSegmentationNode(parameters.segmentation))
        names = [organ.name for organ in match_organs(organs).organs]
        return withOrganLines(parameters.organHalfLives, names, parameters.restHalfLifeHours)

    def planValues(self, parameters: SynthDoseParameterNode) -> dict[str, Any]:
        """Tables of the plan file; paths are relative to it."""
        from SynthDoseLib.mrml.forms import halfLivesFromText, namesFromText

        activity: dict[str, Any] = {"tia_MBq_s": "activity.nrrd"}
        if parameters.activityKind is ActivityKind.CONCENTRATION:
            hours = parameters.hoursAfterAdministration
            activity = {"path": "activity.nrrd", "unit": "Bq/ml", "hours_after_administration": hours}
        therapy: dict[str, Any] = {"nuclide": parameters.nuclide, "progeny": parameters.progeny}
        if parameters.administeredMBq > 0:
            therapy["administered_MBq"] = parameters.administeredMBq
        kinetics: dict[str, Any] = {}
        if parameters.restHalfLifeHours > 0:
            kinetics["rest_effective_half_life_h"] = parameters.restHalfLifeHours
        if organs := halfLivesFromText(parameters.organHalfLives):
            kinetics["effective_half_life_h"] = organs
        dose: dict[str, Any] = {"histories": parameters.histories, "seed": parameters.seed}
        if parameters.relativeSigmaPercent > 0:
            dose["relative_sigma"] = parameters.relativeSigmaPercent / 100
            dose["organs"] = namesFromText(parameters.precisionOrgans)
        if parameters.maxMinutes > 0:
            dose["max_seconds"] = 60 * parameters.maxMinutes
        if parameters.voxelMm > 0:
            dose["voxel_mm"] = parameters.voxelMm
        segments = {"path": "labels.seg.nrrd"} if parameters.segmentation is not None else {"method": "tissue"}
        return {
            "schema": 1,
            "image": {"path": "ct.nrrd", "modality": "CT"},
            "segmentation": segments,
            "therapy": therapy,
            "activity": [activity],
            "kinetics": kinetics,
            "dose": dose,
            # the results are loaded straight into this scene, and there is no DICOM series to refer to
            "output": {
                "scene": False,
                "dicom": False,
                "radiomics": parameters.radiomics,
                "title": parameters.ctVolume.GetName(),
            },
        }

    def prepare(self, parameters: SynthDoseParameterNode, folder: pathlib.Path) -> list[str]:
        """Write the inputs of a run; bad values are refused before anything is written."""
        from SynthDoseLib.io import write_segmentation
        from SynthDoseLib.mrml import imageFromVolumeNode, labelMapFromSegmentationNode, saveImage
        from SynthDoseLib.pipeline.plan import plan_from_values, write_plan

        values = self.planValues(parameters)
        plan_from_values(values, pathlib.Path())
        ct = imageFromVolumeNode(parameters.ctVolume, modality="CT", unit="HU")
        activity = imageFromVolumeNode(parameters.activityVolume)
        labels = labelMapFromSegmentationNode(parameters.segmentation, ct.grid) if parameters.segmentation is not None else None
        folder.mkdir(parents=True)
        saveImage(ct, folder / "ct.nrrd")
        saveImage(activity, folder / "activity.nrrd")
        if labels is not None:
            write_segmentation(folder / "labels.seg.nrrd", labels)
        plan = folder / "PLAN.toml"
        write_plan(plan_from_values(values, folder), plan)
        self._folder = folder / "run"
        return ["run", str(plan), "--out", str(self._folder)]

    def loadResults(self, parameters: SynthDoseParameterNode) -> tuple[str, ...]:
        """Add the results of the last run to the scene and show them; return notes for the user."""
        from SynthDoseLib.mrml import loadRun

        ct = parameters.ctVolume
        name = f"{ct.GetName()} {parameters.nuclide}" if ct is not None else f"SynthDose {parameters.nuclide}"
        nodes = loadRun(self._folder, slicer.mrmlScene, image=ct, title=slicer.mrmlScene.GenerateUniqueName(name))
        if nodes.segmentation is not None and parameters.segmentation is not None:
            nodes.segmentation.GetDisplayNode().SetVisibility(False)  # the user's own segments are shown already
        with slicer.util.NodeModify(parameters.parameterNode):
            parameters.runFolder = str(self._folder)
            parameters.doseVolume = nodes.dose
            parameters.organTable = nodes.organTable
            parameters.dvhChart = nodes.chart
        self.showDose(parameters)
        for index in range(slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSliceNode")):
            slicer.mrmlScene.GetNthNodeByClass(index, "vtkMRMLSliceNode").JumpSliceByOffsetting(*nodes.hottestRas)
        return nodes.notes

    def showDose(self, parameters: SynthDoseParameterNode) -> None:
        """Show the dose over the CT in the slice views."""
        from SynthDoseLib.mrml import showDoseOverImage

        showDoseOverImage(slicer.mrmlScene, parameters.doseVolume, parameters.ctVolume)
        slicer.app.applicationLogic().FitSliceToAll()

    def showChart(self, parameters: SynthDoseParameterNode) -> None:
        """Change to a layout with table and chart, and show those of the run."""
        from SynthDoseLib.mrml import showTableAndChart

        slicer.app.layoutManager().setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpPlotTableView)
        showTableAndChart(slicer.app.applicationLogic(), parameters.organTable, parameters.dvhChart)

    def report(self, parameters: SynthDoseParameterNode) -> pathlib.Path | None:
        """The report of the last run, if it is still there."""
        path = pathlib.Path(parameters.runFolder) / "report.html"
        return path if parameters.runFolder and path.is_file() else None


class SynthDoseTest(ScriptedLoadableModuleTest):
    """A small test that also runs inside Slicer; the larger ones are in Testing/Slicer."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()

    def test_planFollowsTheParameters(self) -> None:
        import numpy as np

        logic = SynthDoseLogic()
        parameters = logic.getParameterNode()
        assert logic.problem(parameters) == "Choose the CT"
        parameters.ctVolume = slicer.util.addVolumeFromArray(np.zeros((3, 3, 3), np.int16), name="CT")
        parameters.activityVolume = slicer.util.addVolumeFromArray(np.ones((3, 3, 3), np.float32), name="SPECT")
        assert logic.problem(parameters) == ""
        parameters.organHalfLives = "kidneys = 50\nliver = 60.5"
        plan = logic.planValues(parameters)
        assert plan["kinetics"]["effective_half_life_h"] == {"kidneys": 50.0, "liver": 60.5}
        assert plan["segmentation"] == {"method": "tissue"}
        assert plan["activity"][0]["hours_after_administration"] == 24
