"""Voxel phantoms: of a patient from image and organs, or of a stylised person; checked, and exported."""

from __future__ import annotations

import json
import pathlib
import sys
import tempfile
from collections.abc import Sequence
from enum import Enum
from typing import Annotated, Any, ClassVar

import qt
import slicer
import vtk
from slicer import vtkMRMLPlotChartNode, vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode, vtkMRMLTableNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import Choice, WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import ScriptedLoadableModule

_HERE = pathlib.Path(__file__).resolve().parent
if not (_HERE / "SynthDoseLib").is_dir() and str(_HERE.parent) not in sys.path:
    sys.path.append(str(_HERE.parent))  # a checkout, added through the Extension Wizard: the library is beside this folder

from SynthDoseLib.mrml.panel import IMAGE_PACKAGES, JobLogic, JobPanel, ModuleTest, showTable  # noqa: E402

EXPORTS = {
    "exportCase": "case",
    "exportGate": "gate",
    "exportPenred": "penred",
    "exportStl": "stl",
    "exportVtp": "vtp",
    "exportDicom": "dicom",
}
"""Formats of ``synthdose phantom`` and ``people --export``, by the parameter that asks for them."""

MEDIAN_OF = ("female", 35.0)  # sex, and age in years, whose median height and weight are the parameters' defaults


class Curve(Enum):
    """Where density and tissue of a CT number come from."""

    SCHNEIDER = "Schneider 2000"
    OWN = "own table"

    def label(self) -> str:
        return {"SCHNEIDER": _("Schneider et al. 2000"), "OWN": _("the table below")}[self.name]


class Tissues(Enum):
    """How tissues are assigned, with the words of the command line."""

    BY_HU = "hu"
    BY_ORGAN = "labels"

    def label(self) -> str:
        return {"BY_HU": _("from the CT number of each voxel"), "BY_ORGAN": _("one per organ (MR)")}[self.name]


class Densities(Enum):
    """Where the densities of labelled organs come from."""

    OF_CT = "ct"
    REFERENCE = "reference"

    def label(self) -> str:
        return {"OF_CT": _("from the CT number of each voxel"), "REFERENCE": _("reference value of the organ")}[self.name]


class Contrast(Enum):
    """What becomes of organs with contrast agent."""

    KEEP = "keep"
    OVERRIDE = "override"

    def label(self) -> str:
        return {"KEEP": _("keep what the CT says"), "OVERRIDE": _("reference tissue instead")}[self.name]


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
    materials: Tissues = Tissues.BY_HU
    density: Densities = Densities.OF_CT
    contrast: Contrast = Contrast.KEEP
    metalMaterial: str = ""
    tissueTable: vtkMRMLTableNode
    voxelMm: Annotated[float, WithinRange(0, 20)] = 0.0
    calibration: Curve = Curve.SCHNEIDER
    calibrationTable: vtkMRMLTableNode
    sex: Annotated[str, Choice(["female", "male"])] = "female"
    age: Annotated[float, WithinRange(0, 100)] = 35.0
    medianSize: bool = True
    heightCm: Annotated[float, WithinRange(30, 220)] = 163.3
    weightKg: Annotated[float, WithinRange(1, 200)] = 60.3
    compareWithPerson: bool = False
    personVoxelMm: Annotated[float, WithinRange(1, 8)] = 4.0
    personSeed: Annotated[int, WithinRange(1, 1_000_000)] = 1
    exportCase: bool = False
    exportGate: bool = False
    exportPenred: bool = False
    exportStl: bool = False
    exportVtp: bool = False
    exportDicom: bool = False
    outputFolder: pathlib.Path
    resultFolder: str = ""
    phantom: vtkMRMLScalarVolumeNode
    qualityTable: vtkMRMLTableNode
    curveChart: vtkMRMLPlotChartNode
    verdict: str = ""
    failed: bool = False


class SynthDosePhantomWidget(JobPanel):
    """The panel: choices, verdict, tables."""

    modalities: ClassVar = {"imageSelector": ("image", "modality")}

    def makeLogic(self) -> SynthDosePhantomLogic:
        return SynthDosePhantomLogic()

    def setup(self) -> None:
        self._followed: Any = None
        JobPanel.setup(self)
        self.ui.qualityTableView.connect("clicked(QModelIndex)", self.onGoTo)
        for slider in (self.ui.ageSlider, self.ui.heightSlider, self.ui.weightSlider):
            slider.tracking = False  # medians are looked up when a slider is let go

    def cleanup(self) -> None:
        self.followCalibration(None)
        JobPanel.cleanup(self)

    def buttons(self) -> dict[str, Any]:
        return {
            "listOrgansButton": self.onListOrgans,
            "schneiderButton": self.onSchneider,
            "loadCurveButton": self.onLoadCurve,
            "addKnotButton": self.onAddKnot,
            "removeKnotButton": self.onRemoveKnot,
            "curveButton": self.onCurve,
            "personButton": lambda: self.runTask("person"),
            "show3DButton": self.onShow3D,
            "goToButton": self.onGoTo,
            "pageButton": self.onPage,
        }

    def updateButtons(self, parameters: Any) -> None:
        p, ui = parameters, self.ui
        self.followCalibration(p.calibrationTable if p is not None else None)
        if p is not None:
            self.logic.keepMedianSize(p)
        byHU = p is not None and p.materials is Tissues.BY_HU
        for name in ("densityBox", "contrastBox", "metalEdit", "calibrationBox", "schneiderButton", "loadCurveButton"):
            getattr(ui, name).enabled = byHU
        own = byHU and p.calibration is Curve.OWN
        for name in ("knotsView", "addKnotButton", "removeKnotButton"):
            getattr(ui, name).enabled = own
        ui.removeKnotButton.enabled = own and p.calibrationTable is not None
        ui.curveLabel.text = self.logic.calibrationProblem(p) if own else ""
        ui.heightSlider.enabled = ui.weightSlider.enabled = p is not None and not p.medianSize
        ui.listOrgansButton.enabled = p is not None and p.segmentation is not None
        ui.personButton.enabled = p is not None and not self.logic.running
        ui.show3DButton.enabled = p is not None and p.phantom is not None
        ui.goToButton.enabled = p is not None and p.phantom is not None and p.qualityTable is not None
        ui.pageButton.enabled = p is not None and self.logic.page(p) is not None
        ui.verdictLabel.text = p.verdict if p is not None else ""
        ui.verdictLabel.styleSheet = "color: #b00020" if p is not None and p.failed else ""
        showTable(ui.knotsView, p.calibrationTable if p is not None else None)
        showTable(ui.tissueView, p.tissueTable if p is not None else None)
        showTable(ui.qualityTableView, p.qualityTable if p is not None else None)

    def followCalibration(self, table: Any) -> None:
        """Check the knots whenever they are edited."""
        if table is self._followed:
            return
        if self._followed is not None:
            self.removeObserver(self._followed, vtk.vtkCommand.ModifiedEvent, self.updateGui)
        self._followed = table
        if table is not None:
            self.addObserver(table, vtk.vtkCommand.ModifiedEvent, self.updateGui)

    def onListOrgans(self) -> None:
        self.attempt(lambda: self.logic.listOrgans(self._parameterNode), "SynthDosePhantom could not list the organs")

    def onSchneider(self) -> None:
        self.attempt(lambda: self.logic.startFromSchneider(self._parameterNode), "SynthDosePhantom could not fill the table")

    def onLoadCurve(self) -> None:
        title, kinds = _("Calibration of a scanner"), _("CSV file (*.csv)")
        file = qt.QFileDialog.getOpenFileName(slicer.util.mainWindow(), title, "", kinds)
        if file:
            self.attempt(lambda: self.logic.loadKnots(self._parameterNode, file), "SynthDosePhantom could not read the table")

    def onAddKnot(self) -> None:
        self.attempt(
            lambda: self.logic.addKnot(self._parameterNode, self.chosenKnot()), "SynthDosePhantom could not add a knot"
        )

    def onRemoveKnot(self) -> None:
        from SynthDoseLib.mrml.phantom_tables import removeKnot

        removeKnot(self._parameterNode.calibrationTable, self.chosenKnot())

    def chosenKnot(self) -> int:
        """Row of the calibration that the user has selected, -1 without."""
        return int(self.ui.knotsView.currentIndex().row())

    def onCurve(self) -> None:
        self.attempt(lambda: self.logic.showCurve(self._parameterNode), "SynthDosePhantom could not draw the calibration")

    def onShow3D(self) -> None:
        self.attempt(lambda: self.logic.show3D(self._parameterNode), "SynthDosePhantom could not show surfaces")

    def onGoTo(self) -> None:
        row = self.ui.qualityTableView.currentIndex().row()
        if row >= 0:
            self.logic.goTo(self._parameterNode, row)

    def onPage(self) -> None:
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(self.logic.page(self._parameterNode))))


class SynthDosePhantomLogic(JobLogic):
    """Nodes to files, ``synthdose phantom`` or ``people`` in the background, phantom and verdict to nodes; no widgets."""

    neededPackages = IMAGE_PACKAGES | {"matplotlib", "Jinja2"}
    parametersClass = SynthDosePhantomParameterNode

    def __init__(self, command: Any = None, installer: Any = None) -> None:
        JobLogic.__init__(self, command, installer)
        self._folder: pathlib.Path | None = None
        self._segmentIDs: tuple[str, ...] = ()
        self._medianOf: tuple[str, float] | None = MEDIAN_OF

    def problem(self, parameters: SynthDosePhantomParameterNode) -> str:
        """What keeps the phantom of a patient from being built, "" if nothing."""
        p = parameters
        if p.image is None:
            return _("Choose the image")
        if p.segmentation is None:
            return _("Choose the organs")
        if p.materials is Tissues.BY_ORGAN:
            return ""
        if p.modality != "CT":
            return _("Tissues from CT numbers need a CT; take one tissue per organ")
        return self.calibrationProblem(p) if p.calibration is Curve.OWN else ""

    def keepMedianSize(self, parameters: SynthDosePhantomParameterNode) -> None:
        """Let height and weight follow sex and age, if they are to be the medians."""
        p = parameters
        person = (p.sex, p.age) if p.medianSize else None
        known, self._medianOf = self._medianOf, person  # first, as setting a parameter comes back here
        if person is None or person == known:
            return
        from SynthDoseLib.phantom.people_growth import growth_value

        height, weight = (round(growth_value(p.sex, p.age, quantity, 0.0), 1) for quantity in ("height", "weight"))
        with slicer.util.NodeModify(p.parameterNode):
            p.heightCm, p.weightKg = height, weight

    def listOrgans(self, parameters: SynthDosePhantomParameterNode) -> None:
        """Add a row for every organ to the table of tissues."""
        from SynthDoseLib.mrml import organsFromSegmentationNode
        from SynthDoseLib.mrml.phantom_tables import tissueTable

        names = [organ.name for organ in organsFromSegmentationNode(parameters.segmentation)]
        parameters.tissueTable = tissueTable(slicer.mrmlScene, names, parameters.tissueTable)

    def ownTable(self, parameters: SynthDosePhantomParameterNode) -> Any:
        """The table of the user's own calibration, made and chosen if there is none."""
        from SynthDoseLib.mrml.phantom_tables import calibrationTable

        with slicer.util.NodeModify(parameters.parameterNode):
            if parameters.calibrationTable is None:
                parameters.calibrationTable = calibrationTable(slicer.mrmlScene)
            parameters.calibration = Curve.OWN
        return parameters.calibrationTable

    def startFromSchneider(self, parameters: SynthDosePhantomParameterNode) -> None:
        """Fill the table of the calibration with the knots of Schneider et al."""
        from SynthDoseLib.mrml.phantom_tables import setKnots
        from SynthDoseLib.phantom.calibration import schneider_calibration

        curve = schneider_calibration()
        setKnots(self.ownTable(parameters), curve.hu, curve.density_g_cm3)

    def loadKnots(self, parameters: SynthDosePhantomParameterNode, file: str) -> None:
        """Fill the table of the calibration from a CSV file."""
        from SynthDoseLib.mrml.phantom_tables import readKnots

        readKnots(self.ownTable(parameters), pathlib.Path(file))

    def addKnot(self, parameters: SynthDosePhantomParameterNode, after: int) -> None:
        """Add a knot to the table of the calibration."""
        from SynthDoseLib.mrml.phantom_tables import addKnot

        addKnot(self.ownTable(parameters), after)

    def calibrationProblem(self, parameters: SynthDosePhantomParameterNode) -> str:
        """What is wrong with the table of the calibration, "" if nothing."""
        from SynthDoseLib.core import SynthDoseError

        if parameters.calibrationTable is None or not parameters.calibrationTable.GetNumberOfRows():
            return _("The table of the calibration is empty: start from Schneider, load a table, or add knots")
        with tempfile.TemporaryDirectory() as folder:
            try:
                self.calibrationOf(parameters, pathlib.Path(folder))
            except SynthDoseError as error:
                return str(error)
        return ""

    def calibrationOf(self, parameters: SynthDosePhantomParameterNode, folder: pathlib.Path) -> Any:
        """The calibration of the table; `folder` receives it as a file."""
        from SynthDoseLib.mrml.phantom_tables import knotsAsCsv
        from SynthDoseLib.phantom.calibration import read_calibration

        file = folder / "calibration.csv"
        file.write_text(knotsAsCsv(parameters.calibrationTable), encoding="utf-8")
        return read_calibration(file)

    def prepare(self, parameters: SynthDosePhantomParameterNode, folder: pathlib.Path) -> list[str]:
        """Write the inputs of the task; bad values are refused before anything is kept."""
        return self._preparePerson(parameters, folder) if self.task == "person" else self._preparePatient(parameters, folder)

    def _preparePerson(self, p: SynthDosePhantomParameterNode, folder: pathlib.Path) -> list[str]:
        folder.mkdir(parents=True)
        self._folder = folder / "people"
        size = ["--percentile", "50"] if p.medianSize else self._size(p)
        facts = ["--sex", p.sex, "--age", f"{p.age:g}", "--seed", str(p.personSeed), "--voxel", f"{p.personVoxelMm:g}"]
        return ["people", "--count", "1", *facts, *size, *self._exports(p), "--out", str(self._folder)]

    def _exports(self, p: SynthDosePhantomParameterNode) -> list[str]:
        names = [name for parameter, name in EXPORTS.items() if getattr(p, parameter)]
        return ["--export", *names] if names else []

    def _size(self, p: SynthDosePhantomParameterNode) -> list[str]:
        return ["--height", f"{p.heightCm / 100:g}", "--weight", f"{p.weightKg:g}"]

    def _preparePatient(self, p: SynthDosePhantomParameterNode, folder: pathlib.Path) -> list[str]:
        from SynthDoseLib.io import write_segmentation
        from SynthDoseLib.mrml import imageFromVolumeNode, labelMapFromSegmentationNode, saveImage
        from SynthDoseLib.mrml.forms import option
        from SynthDoseLib.mrml.phantom_tables import overridesOf

        metal = p.metalMaterial.strip() if p.materials is Tissues.BY_HU else ""
        tissues = option("--metal-material", *filter(None, [metal]))
        tissues += [f"--override={entry}" for entry in overridesOf(p.tissueTable)]
        image = imageFromVolumeNode(p.image, modality=p.modality, unit="HU" if p.modality == "CT" else "")
        labels = labelMapFromSegmentationNode(p.segmentation, image.grid)
        folder.mkdir(parents=True)
        saveImage(image, folder / "image.nrrd")
        write_segmentation(folder / "labels.seg.nrrd", labels)
        self._folder, self._segmentIDs = folder / "phantom", tuple(p.segmentation.GetSegmentation().GetSegmentIDs())
        arguments = ["phantom", str(folder / "image.nrrd"), str(folder / "labels.seg.nrrd"), "--modality", p.modality]
        arguments += ["--materials", p.materials.value, *tissues]
        if p.materials is Tissues.BY_HU:
            arguments += ["--density", p.density.value, "--contrast", p.contrast.value]
            if p.calibration is Curve.OWN:
                self.calibrationOf(p, folder)
                arguments += ["--calibration", str(folder / "calibration.csv")]
        if p.voxelMm > 0:
            arguments += ["--voxel", f"{p.voxelMm:g}"]
        if p.compareWithPerson:
            arguments += ["--sex", p.sex, "--age", f"{p.age:g}", *self._size(p)]
        return [*arguments, *self._exports(p), "--out", str(self._folder)]

    def loadResults(self, parameters: SynthDosePhantomParameterNode) -> Sequence[str]:
        """Add the phantom and its verdict to the scene and show them; return notes for the user."""
        from SynthDoseLib.mrml import loadPhantom, organsOfPhantom
        from SynthDoseLib.mrml.hierarchy import arrangeResults
        from SynthDoseLib.mrml.phantom_tables import qualityTable, tissuesOfPhantom
        from SynthDoseLib.mrml.phantoms import MATERIAL_TABLE_REFERENCE, MATERIALS_REFERENCE
        from SynthDoseLib.mrml.records import attachRecord

        p, used, scene = parameters, self.used(parameters), slicer.mrmlScene
        folder, organs = self._folder, used.segmentation
        name = f"{used.image.GetName()} phantom" if used.image is not None else "Phantom"
        if self.task == "person":
            (record,) = self._folder.glob("*/phantom.json")
            folder, organs = record.parent, None
            name = f"{used.sex} {used.age:g} y"
        title = scene.GenerateUniqueName(name)
        phantom = loadPhantom(folder, scene, title=title, organs=organs, segmentIDs=self._segmentIDs)
        found = json.loads((folder / "phantom.json").read_text(encoding="utf-8"))
        table = qualityTable(found.get("organs", ()), f"{title} quality", tissuesOfPhantom(phantom))
        made = {
            **found.get("made", {}),
            **{key: found[key] for key in ("person", "verdict", "findings", "notes") if key in found},
        }
        results = [phantom, organsOfPhantom(phantom), table, attachRecord(phantom, made, scene)]
        results += [phantom.GetNodeReference(role) for role in (MATERIALS_REFERENCE, MATERIAL_TABLE_REFERENCE)]
        arrangeResults(scene, title, results, None if self.task == "person" else used.image)
        with slicer.util.NodeModify(p.parameterNode):
            p.phantom, p.qualityTable, p.resultFolder = phantom, table, str(folder)
            p.verdict, p.failed = self._verdict(found), found.get("verdict") == "fail"
        slicer.util.setSliceViewerLayers(background=phantom, foreground=None)
        slicer.app.applicationLogic().FitSliceToAll()
        if self.task == "person":
            self.show3D(p)
        return found.get("notes", ())

    def done(self) -> str:
        """What to say when the results are there, and where exports are."""
        folder = pathlib.Path(self.getParameterNode().resultFolder)
        made = [name for name in EXPORTS.values() if (folder / name).is_dir()]
        text = JobLogic.done(self)
        return text + " " + _("Exports ({names}): {folder}").format(names=", ".join(made), folder=folder) if made else text

    def _verdict(self, record: dict[str, Any]) -> str:
        from SynthDoseLib.phantom.quality_values import Finding

        if "verdict" not in record:
            return _("A stylised person, so there is nothing to judge: the table has the masses and tissues of its organs")
        grave = [f for f in record["findings"] if f["severity"] == record["verdict"]]
        lines = [_("Verdict: {verdict}").format(verdict=record["verdict"])]
        return "\n".join([*lines, *(Finding(**finding).sentence() for finding in grave[:6])])

    def page(self, parameters: SynthDosePhantomParameterNode) -> pathlib.Path | None:
        """The page with table and pictures of the last phantom, if it is still there."""
        path = pathlib.Path(parameters.resultFolder) / "quality.html"
        return path if parameters.resultFolder and path.is_file() else None

    def goTo(self, parameters: SynthDosePhantomParameterNode, row: int) -> None:
        """Move the slice views to the organ of a row of the table."""
        from SynthDoseLib.core import inner_point
        from SynthDoseLib.mrml import jumpSlices, labelMapFromSegmentationNode, organsOfPhantom
        from SynthDoseLib.mrml.phantoms import segmentNames

        organ = segmentNames(parameters.phantom).get(parameters.qualityTable.GetCellText(row, 0))
        if organ is None:
            return
        labels = labelMapFromSegmentationNode(organsOfPhantom(parameters.phantom), parameters.phantom)
        if labels.voxel_counts()[organ]:
            jumpSlices(slicer.mrmlScene, inner_point(labels.mask(organ), labels.grid))

    def show3D(self, parameters: SynthDosePhantomParameterNode) -> None:
        """Show the organs as closed surfaces in the 3D view."""
        from SynthDoseLib.mrml import organsOfPhantom
        from SynthDoseLib.mrml.display import resetThreeDViews, showSurfaces

        segmentation = organsOfPhantom(parameters.phantom)
        if segmentation is not None:
            showSurfaces(segmentation)
            resetThreeDViews()

    def showCurve(self, parameters: SynthDosePhantomParameterNode) -> None:
        """Draw density against CT number in the plot view: the own table, which it follows, beside Schneider et al."""
        from SynthDoseLib.mrml.display import setLayout, showTableAndChart
        from SynthDoseLib.mrml.phantom_tables import curvesBeside
        from SynthDoseLib.phantom.calibration import schneider_calibration

        p, curve = parameters, schneider_calibration()
        own = p.calibrationTable if p.calibration is Curve.OWN else None
        p.curveChart = curvesBeside(slicer.mrmlScene, p.curveChart, own, Curve.SCHNEIDER.value, curve.hu, curve.density_g_cm3)
        setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpPlotView)
        showTableAndChart(slicer.app.applicationLogic(), chart=p.curveChart)


class SynthDosePhantomTest(ModuleTest):
    """A small test that also runs inside Slicer; the larger ones are in Testing/Slicer."""

    def test_theCalibrationTableIsRead(self) -> None:
        from SynthDoseLib.mrml.phantom_tables import setKnots

        logic = SynthDosePhantomLogic()
        parameters = logic.getParameterNode()
        assert logic.problem(parameters) == "Choose the image"
        setKnots(logic.ownTable(parameters), (-1000, 0, 1000), (0.001, 1.0, 1.6), ("", "water", ""))
        with tempfile.TemporaryDirectory() as folder:
            curve = logic.calibrationOf(parameters, pathlib.Path(folder))
        assert [float(x) for x in curve.hu] == [-1000.0, 0.0, 1000.0]
        assert [material.name for material in curve.materials] == ["water"]
        logic.startFromSchneider(parameters)
        assert float(parameters.calibrationTable.GetCellText(0, 0)) == -1000
        assert logic.calibrationProblem(parameters) == ""
