"""Image features per segment by pyradiomics, with filters, parameter files and the check against IBSI."""

from __future__ import annotations

import importlib.util
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import slicer
from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode, vtkMRMLTableNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import Choice, WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import ScriptedLoadableModule

_HERE = pathlib.Path(__file__).resolve().parent
if not (_HERE / "SynthDoseLib").is_dir() and str(_HERE.parent) not in sys.path:
    sys.path.append(str(_HERE.parent))  # a checkout, added through the Extension Wizard: the library is beside this folder

from SynthDoseLib.mrml.panel import IMAGE_PACKAGES, JobLogic, JobPanel, ModuleTest, showTable  # noqa: E402

UNITS = {"CT": "HU", "dose": "Gy"}


class SynthDoseRadiomics(ScriptedLoadableModule):
    """What the application shows about the module."""

    def __init__(self, parent: Any) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = "SynthDose Radiomics"
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Quantification")]
        self.parent.dependencies = []
        self.parent.contributors = ["SynthDose developers"]
        self.parent.helpText = _(
            "Image features of every segment of a CT, MR, PET or dose by pyradiomics, with a record of how they were made, and "
            "a check of the installed pyradiomics against IBSI. Research software, not for clinical use."
        )
        self.parent.acknowledgementText = _(
            "pyradiomics: van Griethuysen et al., Cancer Res. 77 (2017) e104. "
            "IBSI: Zwanenburg et al., Radiology 295 (2020) 328."
        )


@parameterNodeWrapper
class SynthDoseRadiomicsParameterNode:
    """Everything that the panel knows; saved with the scene."""

    image: vtkMRMLScalarVolumeNode
    modality: Annotated[str, Choice(["CT", "MR", "PT", "NM", "dose"])] = "CT"
    secondImage: vtkMRMLScalarVolumeNode
    secondModality: Annotated[str, Choice(["dose", "CT", "MR", "PT", "NM"])] = "dose"
    segmentation: vtkMRMLSegmentationNode
    organs: str = ""
    voxelMm: Annotated[float, WithinRange(0, 50)] = 3.0
    ibsiInterpolation: bool = False
    inSlices: bool = False
    binWidth: Annotated[float, WithinRange(0, 1e6)] = 0.0
    logSigmaMm: str = ""
    wavelet: bool = False
    parameterFile: str = ""
    outputFolder: pathlib.Path
    featureTable: vtkMRMLTableNode
    ibsiTable: vtkMRMLTableNode


class SynthDoseRadiomicsWidget(JobPanel):
    """The panel: choices, progress, table."""

    modalities: ClassVar = {"imageSelector": ("image", "modality"), "secondImageSelector": ("secondImage", "secondModality")}

    def makeLogic(self) -> SynthDoseRadiomicsLogic:
        return SynthDoseRadiomicsLogic()

    def setup(self) -> None:
        JobPanel.setup(self)
        self.ui.parameterFileEdit.connect("currentPathChanged(QString)", self.onParameterFile)

    def onParameterFile(self, path: str) -> None:
        if self._parameterNode is not None:
            self._parameterNode.parameterFile = path

    def buttons(self) -> dict[str, Any]:
        return {
            "ibsiButton": lambda: self.runTask("ibsi"),
            "ibsiTableButton": lambda: self.logic.showTableInView(self._parameterNode.ibsiTable),
            "featureTableButton": lambda: self.logic.showTableInView(self._parameterNode.featureTable),
        }

    def updateButtons(self, parameters: Any) -> None:
        p, ui = parameters, self.ui
        own = p is not None and not p.parameterFile
        if p is not None and ui.parameterFileEdit.currentPath != p.parameterFile:
            ui.parameterFileEdit.currentPath = p.parameterFile
        for name in (
            "voxelSpinBox", "ibsiCheckBox", "slicesCheckBox", "binWidthSpinBox", "logSigmaEdit", "waveletCheckBox",
        ):  # fmt: skip
            getattr(ui, name).enabled = own
        missing = self.logic.missingPyradiomics()
        ui.ibsiButton.enabled = p is not None and not self.logic.running and not missing
        ui.ibsiTableButton.enabled = p is not None and p.ibsiTable is not None
        ui.featureTableButton.enabled = p is not None and p.featureTable is not None
        ui.ibsiLabel.text = missing or (self.logic.ibsiSummary(p) if p is not None else "")
        showTable(ui.featureTableView, p.featureTable if p is not None else None)


class SynthDoseRadiomicsLogic(JobLogic):
    """Nodes to files, ``synthdose radiomics`` in the background, tables to nodes; no widgets."""

    neededPackages = IMAGE_PACKAGES
    parametersClass = SynthDoseRadiomicsParameterNode

    def __init__(self, command: Any = None, installer: Any = None) -> None:
        JobLogic.__init__(self, command, installer)
        self._folder: pathlib.Path | None = None

    def problem(self, parameters: SynthDoseRadiomicsParameterNode) -> str:
        """What keeps an extraction from starting, "" if nothing."""
        if parameters.image is None:
            return _("Choose the image")
        if parameters.secondImage is parameters.image:
            return _("The second image is the first one")
        return _("Choose the organs") if parameters.segmentation is None else self.missingPyradiomics()

    def missingPyradiomics(self) -> str:
        """How to get pyradiomics, "" if it is there. It has no wheels for Slicer's Python, so no panel can fetch it."""
        if importlib.util.find_spec("radiomics") is not None:
            return ""
        import SynthDoseLib

        script = pathlib.Path(SynthDoseLib.__file__).parent / "radiomics" / "install.py"
        return _(
            "Radiomics needs pyradiomics, which is not installed; everything else works without it. Get it with the extension "
            "SlicerRadiomics of the Extensions Manager and start Slicer again. Without such an extension, and with a C "
            'compiler and the headers of Python, in a terminal: PythonSlicer "{script}"'
        ).format(script=script)

    def prepare(self, parameters: SynthDoseRadiomicsParameterNode, folder: pathlib.Path) -> list[str]:
        """Write the inputs of the task; bad values are refused before anything is written."""
        from SynthDoseLib.io import write_segmentation
        from SynthDoseLib.mrml import imageFromVolumeNode, labelMapFromSegmentationNode, saveImage
        from SynthDoseLib.mrml.forms import namesFromText, option, widthsFromText

        p = parameters
        if self.task == "ibsi":
            folder.mkdir(parents=True)
            self._folder = folder
            return ["radiomics", "--ibsi", "--out", str(folder / "ibsi.csv")]
        options = ["--modality", p.modality]
        if p.parameterFile:
            options += option("--parameters", p.parameterFile)
        else:
            options += ["--voxel", f"{p.voxelMm:g}"]
            options += ["--ibsi-interpolation"] if p.ibsiInterpolation else []
            options += ["--in-slices"] if p.inSlices else []
            options += ["--bin-width", f"{p.binWidth:g}"] if p.binWidth > 0 else []
            options += ["--wavelet"] if p.wavelet else []
            if widths := widthsFromText(p.logSigmaMm):
                options += ["--log-sigma", *(f"{width:g}" for width in widths)]
        chosen = {"image.nrrd": (p.image, p.modality), "second_image.nrrd": (p.secondImage, p.secondModality)}
        images = {
            name: imageFromVolumeNode(node, modality=modality, unit=UNITS.get(modality, ""))
            for name, (node, modality) in chosen.items()
            if node is not None
        }
        labels = labelMapFromSegmentationNode(p.segmentation, images["image.nrrd"].grid)
        folder.mkdir(parents=True)
        for name, image in images.items():
            saveImage(image, folder / name)
        write_segmentation(folder / "labels.seg.nrrd", labels)
        self._folder = folder
        if p.secondImage is not None:
            options += ["--further", str(folder / "second_image.nrrd"), p.secondModality]
        organs = option("--organs", *namesFromText(p.organs))
        files = [str(folder / name) for name in ("image.nrrd", "labels.seg.nrrd")]
        return ["radiomics", *files, *options, *organs, "--out", str(folder / "features.csv")]

    def loadResults(self, parameters: SynthDoseRadiomicsParameterNode) -> Sequence[str]:
        """Add the table of the task to the scene, with the record of how it was made as a text node beside it."""
        from SynthDoseLib.mrml import tableNodeFromCsv
        from SynthDoseLib.mrml.hierarchy import arrangeResults
        from SynthDoseLib.mrml.records import attachRecord

        scene, used = slicer.mrmlScene, self.used(parameters)
        if self.task == "ibsi":
            table = tableNodeFromCsv(self._folder / "ibsi.csv", scene.GenerateUniqueName("IBSI check"))
            arrangeResults(scene, table.GetName(), [table, attachRecord(table, {"check": "IBSI digital phantom"}, scene)])
            parameters.ibsiTable = table
            return (self.ibsiSummary(parameters),)
        image = used.image
        name = f"{image.GetName()} features" if image is not None else "Features"
        first = ("organ", "feature", "value")  # what has to be seen without scrolling
        table = tableNodeFromCsv(self._folder / "features.csv", scene.GenerateUniqueName(name), scene, first)
        made = json.loads((self._folder / "features.json").read_text(encoding="utf-8"))
        arrangeResults(scene, table.GetName(), [table, attachRecord(table, made, scene)], image)
        for node in (image, used.secondImage):
            if node is not None:
                table.AddNodeReferenceID("SynthDose.image", node.GetID())
        parameters.featureTable = table
        return ()

    def done(self) -> str:
        """What to say when the results are there."""
        if self.task == "ibsi":
            return JobLogic.done(self)
        return str(_("Finished. The table is in the panel and in {file}").format(file=self._folder / "features.csv"))

    def ibsiSummary(self, parameters: SynthDoseRadiomicsParameterNode) -> str:
        """How many features of the digital phantom agreed, "" before the check."""
        table = parameters.ibsiTable
        if table is None:
            return ""
        column = [table.GetColumnName(index) for index in range(table.GetNumberOfColumns())].index("agrees")
        verdicts = [table.GetCellText(row, column) for row in range(table.GetNumberOfRows())]
        return _("{agree} of {all} features of IBSI's digital phantom agree.").format(
            agree=verdicts.count("True"), all=len(verdicts)
        )


class SynthDoseRadiomicsTest(ModuleTest):
    """A small test that also runs inside Slicer; the larger ones are in Testing/Slicer."""

    def test_problemsAreNamed(self) -> None:
        logic = SynthDoseRadiomicsLogic()
        parameters = logic.getParameterNode()
        assert logic.problem(parameters) == "Choose the image"
        logic.task = "ibsi"
        assert logic.taskProblem(parameters) == ""
        assert logic.ibsiSummary(parameters) == ""
