"""Voxel phantoms: of a patient from image and organs, or of a stylised person; checked, and exported."""

from __future__ import annotations

import json
import math
import pathlib
import sys
from collections.abc import Sequence
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

from SynthDoseLib.mrml.panel import IMAGE_PACKAGES, JobLogic, JobPanel, showTable  # noqa: E402

SCHNEIDER, OWN = "Schneider 2000", "own table"


class SynthDosePhantom(ScriptedLoadableModule):
    """What the application shows about the module."""

    def __init__(self, parent: Any) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = "SynthDose Phantom"
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Radiotherapy")]
        self.parent.dependencies = []
        self.parent.contributors = ["SynthDose developers"]
        self.parent.helpText = _(
            "Voxel phantoms with materials, densities and a quality verdict, of a patient from image and organs, or of a "
            "stylised person of any age; exports for GATE, PenRed and meshes. Research software, not for clinical use."
        )
        self.parent.acknowledgementText = _(
            "HU calibration: Schneider et al., Phys. Med. Biol. 45 (2000) 459. Reference masses: ICRP Publications 89 and 110."
        )


@parameterNodeWrapper
class SynthDosePhantomParameterNode:
    """Everything that the panel knows; saved with the scene."""

    image: vtkMRMLScalarVolumeNode
    modality: Annotated[str, Choice(["CT", "MR"])] = "CT"
    segmentation: vtkMRMLSegmentationNode
    materials: Annotated[str, Choice(["hu", "labels"])] = "hu"
    density: Annotated[str, Choice(["ct", "reference"])] = "ct"
    contrast: Annotated[str, Choice(["keep", "override"])] = "keep"
    metalMaterial: str = ""
    overrides: str = ""
    voxelMm: Annotated[float, WithinRange(0, 20)] = 0.0
    calibration: Annotated[str, Choice([SCHNEIDER, OWN])] = SCHNEIDER
    knots: str = ""
    sex: Annotated[str, Choice(["female", "male"])] = "female"
    age: Annotated[float, WithinRange(0, 90)] = 35.0
    heightCm: Annotated[float, WithinRange(0, 220)] = 0.0
    weightKg: Annotated[float, WithinRange(0, 200)] = 0.0
    compareWithPerson: bool = False
    personVoxelMm: Annotated[float, WithinRange(1, 8)] = 4.0
    personSeed: Annotated[int, WithinRange(1, 1_000_000)] = 1
    exports: str = ""
    outputFolder: pathlib.Path
    resultFolder: str = ""
    phantom: vtkMRMLScalarVolumeNode
    qualityTable: vtkMRMLTableNode
    curveChart: vtkMRMLPlotChartNode
    verdict: str = ""


class SynthDosePhantomWidget(JobPanel):
    """The panel: choices, verdict, tables."""

    def makeLogic(self) -> SynthDosePhantomLogic:
        return SynthDosePhantomLogic()

    def setup(self) -> None:
        JobPanel.setup(self)
        self.ui.qualityTableView.connect("clicked(QModelIndex)", self.onGoTo)

    def buttons(self) -> dict[str, Any]:
        return {
            "schneiderButton": self.onSchneider,
            "curveButton": self.onCurve,
            "personButton": lambda: self.runTask("person"),
            "show3DButton": self.onShow3D,
            "goToButton": self.onGoTo,
            "pageButton": self.onPage,
        }

    def updateButtons(self, parameters: Any) -> None:
        p, ui = parameters, self.ui
        ui.knotsEdit.enabled = p is not None and p.calibration == OWN
        ui.personButton.enabled = p is not None and not self.logic.running
        ui.show3DButton.enabled = p is not None and p.phantom is not None
        ui.goToButton.enabled = p is not None and p.phantom is not None and p.qualityTable is not None
        ui.pageButton.enabled = p is not None and self.logic.page(p) is not None
        ui.verdictLabel.text = p.verdict if p is not None else ""
        showTable(ui.qualityTableView, p.qualityTable if p is not None else None)

    def onSchneider(self) -> None:
        self._parameterNode.calibration = OWN
        self._parameterNode.knots = self.logic.schneiderKnots()

    def onCurve(self) -> None:
        self.attempt(lambda: self.logic.showCurve(self._parameterNode), "SynthDosePhantom could not draw the calibration")

    def onShow3D(self) -> None:
        self.attempt(lambda: self.logic.show3D(self._parameterNode), "SynthDosePhantom could not show surfaces")

    def onGoTo(self) -> None:
        rows = self.ui.qualityTableView.selectionModel().selectedIndexes()
        if rows:
            self.logic.goTo(self._parameterNode, rows[0].row())

    def onPage(self) -> None:
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(self.logic.page(self._parameterNode))))


class SynthDosePhantomLogic(JobLogic):
    """Nodes to files, ``synthdose phantom`` or ``people`` in the background, phantom and verdict to nodes; no widgets."""

    neededPackages = IMAGE_PACKAGES | {"matplotlib", "Jinja2"}

    def __init__(self, command: Any = None, installer: Any = None) -> None:
        JobLogic.__init__(self, command, installer)
        self._folder: pathlib.Path | None = None

    def getParameterNode(self) -> SynthDosePhantomParameterNode:
        return SynthDosePhantomParameterNode(super().getParameterNode())

    def problem(self, parameters: SynthDosePhantomParameterNode) -> str:
        """What keeps the phantom of a patient from being built, "" if nothing."""
        p = parameters
        if p.image is None:
            return _("Choose the image")
        if p.segmentation is None:
            return _("Choose the organs")
        if p.modality != "CT" and p.materials == "hu":
            return _("Tissues from HU need a CT; take one tissue per organ")
        if p.calibration == OWN and not p.knots.strip():
            return _("The table of the calibration is empty")
        return ""

    def schneiderKnots(self) -> str:
        """The knots of Schneider et al. as text."""
        from SynthDoseLib.phantom.calibration import schneider_calibration

        curve = schneider_calibration()
        return "\n".join(f"{hu:g}, {density:.5g}" for hu, density in zip(curve.hu, curve.density_g_cm3, strict=True))

    def calibrationOf(self, parameters: SynthDosePhantomParameterNode, folder: pathlib.Path) -> Any:
        """The calibration that the parameters stand for; `folder` receives the table of an own one."""
        from SynthDoseLib.phantom.calibration import read_calibration, schneider_calibration

        if parameters.calibration == SCHNEIDER:
            return schneider_calibration()
        lines = [line.strip() for line in parameters.knots.splitlines() if line.strip()]
        columns = max(line.count(",") for line in lines) + 1
        header = "hu,density_g_cm3,material"[: None if columns > 2 else len("hu,density_g_cm3")]
        padded = [line + "," * (columns - 1 - line.count(",")) for line in lines]
        file = folder / "calibration.csv"
        file.write_text("\n".join([header, *padded]) + "\n", encoding="utf-8")
        return read_calibration(file)

    def prepare(self, parameters: SynthDosePhantomParameterNode, folder: pathlib.Path) -> list[str]:
        """Write the inputs of the task; bad values are refused before anything is kept."""
        return self._preparePerson(parameters, folder) if self.task == "person" else self._preparePatient(parameters, folder)

    def _preparePerson(self, p: SynthDosePhantomParameterNode, folder: pathlib.Path) -> list[str]:
        folder.mkdir(parents=True)
        self._folder = folder / "people"
        size = ["--height", f"{p.heightCm / 100:g}"] if p.heightCm > 0 else []
        size += ["--weight", f"{p.weightKg:g}"] if p.weightKg > 0 else []
        if not size:
            size = ["--percentile", "50"]
        facts = ["--sex", p.sex, "--age", f"{p.age:g}", "--seed", str(p.personSeed), "--voxel", f"{p.personVoxelMm:g}"]
        return ["people", "--count", "1", *facts, *size, "--out", str(self._folder)]

    def _preparePatient(self, p: SynthDosePhantomParameterNode, folder: pathlib.Path) -> list[str]:
        import tempfile

        from SynthDoseLib.io import write_segmentation
        from SynthDoseLib.mrml import imageFromVolumeNode, labelMapFromSegmentationNode, saveImage
        from SynthDoseLib.mrml.forms import namesFromText

        with tempfile.TemporaryDirectory() as trial:
            self.calibrationOf(p, pathlib.Path(trial))
        image = imageFromVolumeNode(p.image, modality=p.modality, unit="HU" if p.modality == "CT" else "")
        labels = labelMapFromSegmentationNode(p.segmentation, image.grid)
        folder.mkdir(parents=True)
        saveImage(image, folder / "image.nrrd")
        write_segmentation(folder / "labels.seg.nrrd", labels)
        self._folder = folder / "phantom"
        arguments = ["phantom", str(folder / "image.nrrd"), str(folder / "labels.seg.nrrd"), "--modality", p.modality]
        arguments += ["--materials", p.materials, "--density", p.density, "--contrast", p.contrast]
        if p.calibration == OWN:
            self.calibrationOf(p, folder)
            arguments += ["--calibration", str(folder / "calibration.csv")]
        if p.metalMaterial.strip():
            arguments += ["--metal-material", p.metalMaterial.strip()]
        for line in filter(str.strip, p.overrides.splitlines()):
            arguments += ["--override", "=".join(part.strip() for part in line.split("=", 1))]
        if p.voxelMm > 0:
            arguments += ["--voxel", f"{p.voxelMm:g}"]
        if p.compareWithPerson:
            arguments += ["--sex", p.sex, "--age", f"{p.age:g}"]
            arguments += ["--height", f"{p.heightCm / 100:g}"] if p.heightCm > 0 else []
            arguments += ["--weight", f"{p.weightKg:g}"] if p.weightKg > 0 else []
        if exports := namesFromText(p.exports):
            arguments += ["--export", *exports]
        return [*arguments, "--out", str(self._folder)]

    def loadResults(self, parameters: SynthDosePhantomParameterNode) -> Sequence[str]:
        """Add the phantom and its verdict to the scene and show them; return notes for the user."""
        from SynthDoseLib.mrml import loadPhantom

        p, scene = parameters, slicer.mrmlScene
        folder, organs = self._folder, p.segmentation
        name = f"{p.image.GetName()} phantom" if p.image is not None else "Phantom"
        if self.task == "person":
            (record,) = self._folder.glob("*/phantom.json")
            folder, organs = record.parent, None
            name = f"{p.sex} {p.age:g} y"
        title = scene.GenerateUniqueName(name)
        phantom = loadPhantom(folder, scene, title=title, organs=organs)
        found = json.loads((folder / "phantom.json").read_text(encoding="utf-8"))
        table = self._qualityTable(found, f"{title} quality")
        with slicer.util.NodeModify(p.parameterNode):
            p.phantom, p.qualityTable, p.resultFolder = phantom, table, str(folder)
            p.verdict = self._verdict(found)
        slicer.util.setSliceViewerLayers(background=phantom, foreground=None)
        slicer.app.applicationLogic().FitSliceToAll()
        return found.get("notes", ())

    def _verdict(self, record: dict[str, Any]) -> str:
        from SynthDoseLib.phantom.quality_values import Finding

        if "verdict" not in record:
            return _("A stylised person: organ masses as stated in its phantom.json")
        grave = [f for f in record["findings"] if f["severity"] == record["verdict"]]
        lines = [_("Verdict: {verdict}").format(verdict=record["verdict"])]
        return "\n".join([*lines, *(Finding(**finding).sentence() for finding in grave[:6])])

    def _qualityTable(self, record: dict[str, Any], name: str) -> Any:
        """One row per organ, the worst first."""
        from SynthDoseLib.mrml.tables import tableNode

        rows = sorted(record.get("organs", ()), key=lambda row: ["fail", "warning", "pass"].index(row.get("verdict", "pass")))
        columns = {name: [row[name] for row in rows] for name in ("organ", "verdict") if all(name in row for row in rows)}
        for column in ("volume_ml", "mass_g", "reference_mass_g", "density_g_cm3"):
            values = [row.get(column) for row in rows]
            if any(value is not None for value in values):
                columns[column] = [math.nan if value is None else round(float(value), 3) for value in values]
        return tableNode(columns, name)

    def page(self, parameters: SynthDosePhantomParameterNode) -> pathlib.Path | None:
        """The page with table and pictures of the last phantom, if it is still there."""
        path = pathlib.Path(parameters.resultFolder) / "quality.html"
        return path if parameters.resultFolder and path.is_file() else None

    def goTo(self, parameters: SynthDosePhantomParameterNode, row: int) -> None:
        """Move the slice views to the organ of a row of the table."""
        from SynthDoseLib.core import inner_point
        from SynthDoseLib.mrml import jumpSlices, labelMapFromSegmentationNode, organsOfPhantom

        organ = parameters.qualityTable.GetCellText(row, 0)
        segmentation = organsOfPhantom(parameters.phantom)
        if segmentation is None:
            return
        labels = labelMapFromSegmentationNode(segmentation, parameters.phantom)
        if labels.voxel_counts().get(organ):
            jumpSlices(slicer.mrmlScene, inner_point(labels.mask(organ), labels.grid))

    def show3D(self, parameters: SynthDosePhantomParameterNode) -> None:
        """Show the organs as closed surfaces in the 3D view."""
        from SynthDoseLib.mrml import organsOfPhantom

        segmentation = organsOfPhantom(parameters.phantom)
        if segmentation is not None:
            segmentation.CreateClosedSurfaceRepresentation()
            segmentation.GetDisplayNode().SetVisibility3D(True)
            segmentation.GetDisplayNode().SetOpacity3D(0.6)

    def showCurve(self, parameters: SynthDosePhantomParameterNode) -> None:
        """Draw HU against density in the plot view."""
        import tempfile

        import vtk

        from SynthDoseLib.mrml import showTableAndChart

        with tempfile.TemporaryDirectory() as folder:
            curve = self.calibrationOf(parameters, pathlib.Path(folder))
        scene = slicer.mrmlScene
        if parameters.curveChart is None:
            table = scene.AddNewNodeByClass("vtkMRMLTableNode", "HU calibration")
            series = scene.AddNewNodeByClass("vtkMRMLPlotSeriesNode", "HU calibration")
            series.SetAndObserveTableNodeID(table.GetID())
            series.SetPlotType(series.PlotTypeScatter)
            series.SetXColumnName("hu")
            series.SetYColumnName("density_g_cm3")
            chart = scene.AddNewNodeByClass("vtkMRMLPlotChartNode", "HU calibration")
            chart.AddAndObservePlotSeriesNodeID(series.GetID())
            chart.SetXAxisTitle("CT number / HU")
            chart.SetYAxisTitle("density / (g/cm3)")
            parameters.curveChart = chart
        table = parameters.curveChart.GetNthPlotSeriesNode(0).GetTableNode()
        table.RemoveAllColumns()
        for name, values in (("hu", curve.hu), ("density_g_cm3", curve.density_g_cm3)):
            array = vtk.vtkDoubleArray()
            array.SetName(name)
            for value in values:
                array.InsertNextValue(float(value))
            table.AddColumn(array)
        slicer.app.layoutManager().setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpPlotView)
        showTableAndChart(slicer.app.applicationLogic(), chart=parameters.curveChart)


class SynthDosePhantomTest(ScriptedLoadableModuleTest):
    """A small test that also runs inside Slicer; the larger ones are in Testing/Slicer."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()

    def test_theCalibrationTableIsRead(self) -> None:
        import tempfile

        logic = SynthDosePhantomLogic()
        parameters = logic.getParameterNode()
        assert logic.problem(parameters) == "Choose the image"
        parameters.calibration, parameters.knots = OWN, "-1000, 0.001\n0, 1.0, water\n1000, 1.6"
        with tempfile.TemporaryDirectory() as folder:
            curve = logic.calibrationOf(parameters, pathlib.Path(folder))
        assert [float(x) for x in curve.hu] == [-1000.0, 0.0, 1000.0]
        assert [material.name for material in curve.materials] == ["water"]
        assert logic.schneiderKnots().splitlines()[0].startswith("-1000, ")
