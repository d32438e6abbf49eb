"""The guided case: CT, organs and activity in; absolute dose with its uncertainty out."""

from __future__ import annotations

import pathlib
import sys
from typing import Annotated, Any

import qt
import slicer
import vtk
from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode, vtkMRMLTableNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import Choice, WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import ScriptedLoadableModule

_HERE = pathlib.Path(__file__).resolve().parent
if not (_HERE / "SynthDoseLib").is_dir() and str(_HERE.parent) not in sys.path:
    sys.path.append(str(_HERE.parent))  # a checkout, added through the Extension Wizard: the library is beside this folder

from SynthDoseLib.mrml.forms import BEGIN, KINETICS, NUCLIDES, PLAN_WORDS, REGISTRATIONS, RESULT_TABLES, WHAT_CHANGED  # noqa: E402
from SynthDoseLib.mrml.jobs import BAD_INPUT  # noqa: E402
from SynthDoseLib.mrml.panel import JobLogic, JobPanel, ModuleTest, Requirements, showTable  # noqa: E402


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
        slicer.app.connect("startupCompleted()", self.onStartupCompleted)

    def onStartupCompleted(self) -> None:
        from SynthDoseLib.mrml.samples import registerSample

        registerSample(SynthDoseLogic.makeSample, str(_HERE / "Resources" / "Icons" / "SynthDose.png"))


@parameterNodeWrapper
class SynthDoseParameterNode:
    """Everything that the panel knows; saved with the scene."""

    ctVolume: vtkMRMLScalarVolumeNode
    segmentation: vtkMRMLSegmentationNode
    bundle: str = ""
    materials: Annotated[str, Choice(["hu", "labels"])] = "hu"
    timePoints: vtkMRMLTableNode
    nuclide: Annotated[str, Choice(list(NUCLIDES))] = "Lu-177"
    progeny: Annotated[str, Choice(["none", "all"])] = "none"
    administeredMBq: Annotated[float, WithinRange(0, 1e6)] = 7400.0
    administeredAt: str = ""
    kinetics: Annotated[str, Choice(list(KINETICS))] = "auto"
    restHalfLifeHours: Annotated[float, WithinRange(0, 1e6)] = 0.0
    organHalfLives: str = ""
    registration: Annotated[str, Choice(list(REGISTRATIONS))] = "auto"
    calibrationSigmaPercent: Annotated[float, WithinRange(0, 99)] = 0.0
    histories: Annotated[int, WithinRange(1000, 2_000_000_000)] = 10_000_000
    relativeSigmaPercent: Annotated[float, WithinRange(0, 100)] = 0.0
    precisionOrgans: str = ""
    maxMinutes: Annotated[float, WithinRange(0, 10000)] = 0.0
    voxelMm: Annotated[float, WithinRange(0, 20)] = 0.0
    seed: Annotated[int, WithinRange(0, 2_000_000_000)] = 1
    compareEngines: bool = False
    previousDose: vtkMRMLScalarVolumeNode
    radiomics: bool = False
    furtherKeys: str = ""
    begin: Annotated[str, Choice(list(BEGIN))] = WHAT_CHANGED
    outputFolder: pathlib.Path
    runFolder: str = ""
    doseVolume: vtkMRMLScalarVolumeNode
    shownTable: Annotated[str, Choice(list(RESULT_TABLES))] = "organ doses"
    isodoses: bool = False
    withIdentity: bool = False


class SynthDoseWidget(JobPanel):
    """The panel: enables buttons, shows progress and errors."""

    def makeLogic(self) -> SynthDoseLogic:
        return SynthDoseLogic()

    def setup(self) -> None:
        self._shownTimePoints = self._timePointsTag = None
        JobPanel.setup(self)
        self.ui.activitySelector.connect("currentNodeChanged(vtkMRMLNode*)", self.onActivityChosen)

    def cleanup(self) -> None:
        self.watchTimePoints(None)
        JobPanel.cleanup(self)

    def buttons(self) -> dict[str, Any]:
        return {
            "sampleButton": self.onSample,
            "checkButton": self.onCheck,
            "removeTimePointButton": self.onRemoveTimePoint,
            "listOrgansButton": self.onListOrgans,
            "showDoseButton": self.onShowDose,
            "showChartButton": self.onShowChart,
            "showCoursesButton": self.onShowCourses,
            "openReportButton": self.onOpenReport,
            "exportButton": self.onExport,
            "saveSceneButton": self.onSaveScene,
        }

    def whileRunning(self) -> None:
        self.ui.stagesLabel.text = self.logic.stagesText()

    def updateButtons(self, parameters: Any) -> None:
        from SynthDoseLib.mrml.run_tables import resultOf

        p, ui = parameters, self.ui
        ui.stagesLabel.text = self.logic.stagesText()
        self.watchTimePoints(p.timePoints if p is not None else None)
        showTable(ui.timePointView, p.timePoints if p is not None else None)
        dose = p.doseVolume if p is not None else None
        ui.checkButton.enabled = not self.logic.running
        ui.listOrgansButton.enabled = p is not None and p.segmentation is not None
        ui.bundleEdit.enabled = p is not None and p.segmentation is None
        ui.removeTimePointButton.enabled = p is not None and p.timePoints is not None and p.timePoints.GetNumberOfRows() > 0
        ui.showDoseButton.enabled = dose is not None
        ui.exportButton.enabled = dose is not None and not self.logic.running
        ui.showChartButton.enabled = resultOf(dose, "dvhChart") is not None
        ui.showCoursesButton.enabled = resultOf(dose, "activityChart") is not None
        ui.openReportButton.enabled = p is not None and self.logic.report(p) is not None
        showTable(ui.organTableView, self.logic.shownTable(p) if p is not None else None)
        verdict = self.logic.verdict(p) if p is not None else ""
        ui.verdictLabel.text = verdict
        ui.verdictLabel.styleSheet = "color: #b00020" if "fail" in verdict else ""
        if dose is not None:
            self.logic.showIsodoses(p)

    def watchTimePoints(self, table: Any) -> None:
        """Follow the edits of a table of scans."""
        if table is self._shownTimePoints:
            return
        if self._shownTimePoints is not None:
            self._shownTimePoints.RemoveObserver(self._timePointsTag)
        self._shownTimePoints = table
        self._timePointsTag = table.AddObserver(vtk.vtkCommand.ModifiedEvent, self.onTimePointsEdited) if table else None

    def onTimePointsEdited(self, caller: Any, event: str) -> None:
        from SynthDoseLib.mrml.time_points import updateMissing

        updateMissing(caller)
        if not self.logic.running:
            self.updateGui()

    def onActivityChosen(self, node: Any) -> None:
        if node is None or self._parameterNode is None:
            return
        self.attempt(lambda: self.logic.addTimePoint(self._parameterNode, node), _("SynthDose could not add the scan"))
        self.ui.activitySelector.setCurrentNode(None)

    def onRemoveTimePoint(self) -> None:
        from SynthDoseLib.mrml.time_points import removeTimePoint

        table = self._parameterNode.timePoints
        row = self.ui.timePointView.currentIndex().row()
        removeTimePoint(table, row if 0 <= row < table.GetNumberOfRows() else table.GetNumberOfRows() - 1)

    def onSample(self) -> None:
        self.showStatus(_("Making a synthetic patient."))
        slicer.app.processEvents()
        if self.attempt(lambda: self.logic.loadSample(self._parameterNode), _("The synthetic patient could not be made")):
            self.showStatus(_("A synthetic patient is loaded. Press 'Calculate dose'."))

    def onCheck(self) -> None:
        self.ui.logButton.collapsed = False
        self.runTask("check")

    def onListOrgans(self) -> None:
        p = self._parameterNode
        p.organHalfLives = self.logic.withOrgansListed(p)

    def onShowDose(self) -> None:
        self.logic.showDose(self._parameterNode)

    def onShowChart(self) -> None:
        self.logic.showChart(self._parameterNode, "dvhChart")

    def onShowCourses(self) -> None:
        self.logic.showChart(self._parameterNode, "activityChart")

    def onOpenReport(self) -> None:
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(self.logic.report(self._parameterNode))))

    def onExport(self) -> None:
        self.runTask("export")

    def onSaveScene(self) -> None:
        path = self.attempt(lambda: self.logic.saveScene(self._parameterNode), _("The scene could not be saved"))
        if path:
            self.showStatus(_("Saved {path}").format(path=path))


class SynthDoseLogic(JobLogic):
    """Nodes to the files of a plan, and the results of its run folder to nodes; no widgets."""

    parametersClass = SynthDoseParameterNode
    planWords = PLAN_WORDS

    def __init__(self, command: Any = None, installer: Any = None) -> None:
        JobLogic.__init__(self, command, installer)
        self._folder: pathlib.Path | None = None
        self._exported = pathlib.Path()
        self._stages: tuple[Any, ...] = ()

    def requirements(self, parameters: SynthDoseParameterNode) -> Requirements:
        """A bundle that is to find the organs needs torch and MONAI."""
        base = JobLogic.requirements(self, parameters)
        network = not self.task and parameters.segmentation is None and bool(parameters.bundle.strip())
        return self.withNetworks(base) if network else base

    def problem(self, parameters: SynthDoseParameterNode) -> str:
        """What keeps a run from starting, "" if nothing."""
        from SynthDoseLib.mrml.forms import namesFromText
        from SynthDoseLib.mrml.time_points import missingValues, volumesOf

        p = parameters
        if p.ctVolume is None:
            return _("Choose the CT")
        volumes = volumesOf(p.timePoints) if p.timePoints is not None else []
        if not volumes:
            return _("Choose the activity volume")
        if any(volume is p.ctVolume for volume in volumes):
            return _("CT and activity are the same volume")
        if missing := missingValues(p.timePoints):
            return missing
        if p.relativeSigmaPercent > 0 and not namesFromText(p.precisionOrgans):
            return _("Name the organs that are to reach the precision")
        return ""

    def addTimePoint(self, parameters: SynthDoseParameterNode, node: Any) -> None:
        """Add an activity volume to the scans; nuclide, activity and time of administration follow its header."""
        from SynthDoseLib.mrml.time_points import addTimePoint, timePointTable

        p = parameters
        if p.timePoints is None:
            p.timePoints = timePointTable(slicer.mrmlScene)
        known = addTimePoint(p.timePoints, node)
        with slicer.util.NodeModify(p.parameterNode):
            if known.nuclide in NUCLIDES:
                p.nuclide = known.nuclide
            if known.administered_MBq:
                p.administeredMBq = known.administered_MBq
            if known.administered_at is not None:
                p.administeredAt = known.administered_at.isoformat(sep=" ")

    @staticmethod
    def makeSample() -> Any:
        """Add the synthetic patient to the scene: CT, organs, three SPECT; takes seconds, no network."""
        from SynthDoseLib.mrml.samples import SAMPLE_HOURS, SPACING_MM, sampleNodes
        from SynthDoseLib.phantom import synthetic_patient
        from SynthDoseLib.phantom.synthetic_time import synthetic_time_points

        patient = synthetic_patient(1, spacing_mm=(SPACING_MM,) * 3, noise_hu=5.0)
        return sampleNodes(patient, synthetic_time_points(patient, SAMPLE_HOURS), slicer.mrmlScene)

    def loadSample(self, parameters: SynthDoseParameterNode) -> Any:
        """Add the synthetic patient to the scene, choose it as input, and return its nodes; needs no network."""
        from SynthDoseLib.mrml.display import showImage

        sample = self.makeSample()
        p = parameters
        with slicer.util.NodeModify(p.parameterNode):
            p.ctVolume, p.segmentation, p.timePoints = sample.ct, sample.segmentation, None
        for spect in sample.spects:
            self.addTimePoint(p, spect)
        showImage(slicer.mrmlScene, sample.ct)
        slicer.app.applicationLogic().FitSliceToAll()
        return sample

    def start(self, parameters: SynthDoseParameterNode) -> bool:
        """As of all panels; what `synthdose check` says about this computer needs no packages and leaves no folder."""
        if self.task != "check":
            return JobLogic.start(self, parameters)
        from SynthDoseLib.mrml import BackgroundRun

        if self.running:
            raise RuntimeError(_("A calculation is running already."))
        self._logFile = pathlib.Path(slicer.app.temporaryPath) / "SynthDose-check.txt"
        self._job = BackgroundRun(self.command(["check"]), self._logFile)
        return True

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

    def prepare(self, parameters: SynthDoseParameterNode, folder: pathlib.Path) -> list[str]:
        """Write the inputs of a run; bad values are refused before anything is written."""
        if self.task == "export":
            return self.prepareExport(parameters, folder)
        from SynthDoseLib.mrml.case_inputs import CaseFiles, planValues
        from SynthDoseLib.pipeline.plan import plan_from_values, write_plan

        values = planValues(parameters)
        plan_from_values(values, pathlib.Path())
        files = CaseFiles(parameters, values)
        folder.mkdir(parents=True)
        files.write(folder)
        plan = folder / "PLAN.toml"
        write_plan(plan_from_values(values, folder), plan)
        self._folder = folder / "run"
        store = pathlib.Path(parameters.outputFolder) / "SynthDose-unchanged-stages"
        arguments = ["run", str(plan), "--out", str(self._folder), "--reuse", str(store)]
        return [*arguments, "--from", begin] if (begin := BEGIN[parameters.begin]) else arguments

    def prepareExport(self, parameters: SynthDoseParameterNode, folder: pathlib.Path) -> list[str]:
        """The verb that writes the last run as DICOM, in the study of its CT if that came from Slicer's DICOM database."""
        from SynthDoseLib.mrml.run_tables import resultOf
        from SynthDoseLib.mrml.time_points import dicomSeries

        run, image = pathlib.Path(parameters.runFolder), resultOf(parameters.doseVolume, "image")
        if not parameters.runFolder or not run.is_dir():
            raise RuntimeError(_("The folder of the run is gone: calculate the dose again."))
        folder.mkdir(parents=True)
        self._exported = folder / "dicom"
        arguments = ["export", str(run), "--out", str(self._exported)]
        if image is not None and (found := dicomSeries(image)) is not None:
            arguments += ["--ct", str(found[0]), "--series", found[1]]
        return [*arguments, "--with-identity"] if parameters.withIdentity else arguments

    def poll(self) -> Any:
        """State of the run; returns at once."""
        state = JobLogic.poll(self)
        self._stages = state.stages
        return state

    def stagesText(self) -> str:
        """The stages of the run that is under way or was the last, and which of them were taken over from an earlier one."""
        from SynthDoseLib.mrml.forms import stagesText

        return stagesText(self._stages)

    def failure(self, state: Any) -> str:
        """Why a run failed; what it had finished is not lost."""
        if self.task == "check" and self._lines:
            return self._lines[-1]
        text = JobLogic.failure(self, state)
        if self.task or not state.stages or state.exitCode == BAD_INPUT:
            return text
        return f"{text}\n" + _("Stages that were finished are kept: 'Calculate dose' goes on from there.")

    def done(self) -> str:
        """What to say when the results are there."""
        if self.task == "export":
            return str(_("RTDOSE, RTSTRUCT and SEG are in {folder}").format(folder=self._exported))
        if self.task == "check":
            return str(_("This computer was checked: see the log below."))
        return JobLogic.done(self)

    def loadResults(self, parameters: SynthDoseParameterNode) -> tuple[str, ...]:
        """Add the results of the last run to the scene and show them; return notes for the user."""
        if self.task:
            return ()
        from SynthDoseLib.mrml import jumpSlices, loadRun

        ct = parameters.ctVolume
        name = f"{ct.GetName()} {parameters.nuclide}" if ct is not None else f"SynthDose {parameters.nuclide}"
        nodes = loadRun(self._folder, slicer.mrmlScene, image=ct, title=slicer.mrmlScene.GenerateUniqueName(name))
        if nodes.segmentation is not None and parameters.segmentation is not None:
            nodes.segmentation.GetDisplayNode().SetVisibility(False)  # the user's own segments are shown already
        with slicer.util.NodeModify(parameters.parameterNode):
            parameters.runFolder = str(self._folder)
            parameters.doseVolume = nodes.dose
            parameters.begin = WHAT_CHANGED  # the choice is for one run
        self.showDose(parameters)
        jumpSlices(slicer.mrmlScene, nodes.hottestRas)
        return nodes.notes

    def showDose(self, parameters: SynthDoseParameterNode) -> None:
        """Show the dose over the CT in the slice views, with its scale."""
        from SynthDoseLib.mrml import showDoseOverImage
        from SynthDoseLib.mrml.isodoses import showDoseScale
        from SynthDoseLib.mrml.run_tables import resultOf

        dose = parameters.doseVolume
        showDoseOverImage(slicer.mrmlScene, dose, resultOf(dose, "image") or parameters.ctVolume)
        showDoseScale(dose)
        slicer.app.applicationLogic().FitSliceToAll()

    def showIsodoses(self, parameters: SynthDoseParameterNode) -> None:
        """Draw lines of equal dose in the slice views, or hide them."""
        from SynthDoseLib.mrml.isodoses import isodosesOf, showIsodoses

        if parameters.isodoses or isodosesOf(parameters.doseVolume):
            showIsodoses(parameters.doseVolume, parameters.isodoses)

    def shownTable(self, parameters: SynthDoseParameterNode) -> Any:
        """Table of the last run that the panel is to show, None if the run has none."""
        from SynthDoseLib.mrml.run_tables import resultOf

        return resultOf(parameters.doseVolume, RESULT_TABLES[parameters.shownTable])

    def verdict(self, parameters: SynthDoseParameterNode) -> str:
        """The quality of the phantom of the last run, for people."""
        from SynthDoseLib.mrml.run_tables import QUALITY_ATTRIBUTE

        dose = parameters.doseVolume
        found = dose.GetAttribute(QUALITY_ATTRIBUTE) if dose is not None else None
        return _("Quality of the phantom: {verdict}").format(verdict=found) if found else ""

    def showChart(self, parameters: SynthDoseParameterNode, role: str = "dvhChart") -> None:
        """Change to a layout with table and chart, and show those of the run."""
        from SynthDoseLib.mrml.display import setLayout, showTableAndChart
        from SynthDoseLib.mrml.run_tables import resultOf

        setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpPlotTableView)
        table, chart = self.shownTable(parameters), resultOf(parameters.doseVolume, role)
        showTableAndChart(slicer.app.applicationLogic(), table, chart)

    def saveScene(self, parameters: SynthDoseParameterNode) -> pathlib.Path:
        """Save the scene as one file beside the results."""
        name = parameters.ctVolume.GetName() if parameters.ctVolume is not None else "SynthDose"
        path = pathlib.Path(parameters.outputFolder) / f"{name.replace(' ', '_')}.mrb"
        if not slicer.util.saveScene(str(path)):
            raise RuntimeError(_("Slicer could not write {path}.").format(path=path))
        return path

    def report(self, parameters: SynthDoseParameterNode) -> pathlib.Path | None:
        """The report of the last run, if it is still there."""
        path = pathlib.Path(parameters.runFolder) / "report.html"
        return path if parameters.runFolder and path.is_file() else None


class SynthDoseTest(ModuleTest):
    """A small test that also runs inside Slicer; the larger ones are in Testing/Slicer."""

    def test_planFollowsTheParameters(self) -> None:
        import numpy as np

        from SynthDoseLib.mrml.case_inputs import planValues

        logic = SynthDoseLogic()
        parameters = logic.getParameterNode()
        assert logic.problem(parameters) == "Choose the CT"
        parameters.ctVolume = slicer.util.addVolumeFromArray(np.zeros((3, 3, 3), np.int16), name="CT")
        spect = slicer.util.addVolumeFromArray(np.ones((3, 3, 3), np.float32), name="SPECT 24 h")
        logic.addTimePoint(parameters, spect)
        assert logic.problem(parameters) == "SPECT 24 h: fill in unit in the table"
        parameters.timePoints.SetCellText(0, 2, "Bq/ml")
        assert logic.problem(parameters) == ""
        parameters.organHalfLives = "kidneys = 50\nliver = 60.5"
        plan = planValues(parameters)
        assert plan["kinetics"]["effective_half_life_h"] == {"kidneys": 50.0, "liver": 60.5}
        assert plan["segmentation"] == {"method": "tissue"}
        assert plan["activity"][0]["hours_after_administration"] == 24
