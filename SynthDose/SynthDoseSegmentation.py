"""Organs of a CT or MR by a MONAI bundle, with their uncertainty, and two segmentations compared."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Sequence
from enum import Enum
from typing import Annotated, Any, ClassVar

import qt
import slicer
from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode, vtkMRMLTableNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import Choice, WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import ScriptedLoadableModule

_HERE = pathlib.Path(__file__).resolve().parent
if not (_HERE / "SynthDoseLib").is_dir() and str(_HERE.parent) not in sys.path:
    sys.path.append(str(_HERE.parent))  # a checkout, added through the Extension Wizard: the library is beside this folder

from SynthDoseLib.mrml.panel import IMAGE_PACKAGES, JobLogic, JobPanel, ModuleTest, Requirements, showTable  # noqa: E402

MODEL_ZOO = {
    "wholeBody_ct_segmentation": "104 structures",
    "swin_unetr_btcv_segmentation": "13 abdominal organs",
    "spleen_ct_segmentation": "spleen",
}
"""Bundles of the MONAI Model Zoo for CT, and what they segment; any other is chosen by its name."""


class Method(Enum):
    """How organs are found."""

    NETWORK = "MONAI bundle"
    TISSUES = "tissues by HU"

    def label(self) -> str:
        return {"NETWORK": _("organs, by a network (MONAI bundle)"), "TISSUES": _("tissues, by CT number")}[self.name]


class Uncertainty(Enum):
    """What is varied to see how sure a network is."""

    NONE = "none"
    IMAGE = "changed images"
    NETWORK = "several bundles"
    BOTH = "several bundles and changed images"

    def label(self) -> str:
        return {
            "NONE": _("none"),
            "IMAGE": _("changed images (test-time augmentation)"),
            "NETWORK": _("several bundles (ensemble)"),
            "BOTH": _("several bundles, each with changed images"),
        }[self.name]

    @property
    def changesImages(self) -> bool:
        """Whether the image is varied."""
        return self in (Uncertainty.IMAGE, Uncertainty.BOTH)

    @property
    def takesSeveral(self) -> bool:
        """Whether more than one bundle is run."""
        return self in (Uncertainty.NETWORK, Uncertainty.BOTH)


class SynthDoseSegmentation(ScriptedLoadableModule):
    """What the application shows about the module."""

    def __init__(self, parent: Any) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = "SynthDose Segmentation"
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = []
        self.parent.contributors = ["SynthDose developers"]
        self.parent.helpText = _(
            "Organs of a CT or MR by a MONAI bundle (shipped, a folder, or from the Model Zoo), with the uncertainty of their "
            "volumes, and two segmentations compared. Research software, not for clinical use."
        )
        self.parent.acknowledgementText = _("MONAI: Cardoso et al., arXiv:2211.02701.")


@parameterNodeWrapper
class SynthDoseSegmentationParameterNode:
    """Everything that the panel knows; saved with the scene."""

    image: vtkMRMLScalarVolumeNode
    modality: Annotated[str, Choice(["CT", "MR"])] = "CT"
    method: Method = Method.NETWORK
    bundle: str = ""
    organs: str = ""
    device: Annotated[str, Choice(["auto", "cpu", "cuda"])] = "auto"
    uncertainty: Uncertainty = Uncertainty.NONE
    inferences: Annotated[int, WithinRange(2, 100)] = 5
    ensemble: str = ""
    clean: bool = True
    memoryGB: Annotated[float, WithinRange(0, 10000)] = 0.0
    previewMm: Annotated[float, WithinRange(2, 20)] = 6.0
    outputFolder: pathlib.Path
    segmentation: vtkMRMLSegmentationNode
    entropyVolume: vtkMRMLScalarVolumeNode
    volumeTable: vtkMRMLTableNode
    reference: vtkMRMLSegmentationNode
    comparisonTable: vtkMRMLTableNode


class SynthDoseSegmentationWidget(JobPanel):
    """The panel: choices, progress, results, comparison."""

    modalities: ClassVar = {"imageSelector": ("image", "modality")}

    def makeLogic(self) -> SynthDoseSegmentationLogic:
        return SynthDoseSegmentationLogic()

    def setup(self) -> None:
        self._bundles: list[str] = []
        JobPanel.setup(self)
        self.ui.downloadCheckBox.connect("toggled(bool)", self.onDownload)
        self.ui.trustCheckBox.connect("toggled(bool)", self.onTrust)
        self.ui.bundleBox.connect("activated(int)", self.onBundleChosen)
        self.ui.memberBox.connect("activated(int)", self.onMemberChosen)

    def setDefaults(self, parameters: Any) -> None:
        atHand = self.logic.bundlesAtHand()
        if not parameters.bundle:
            parameters.bundle = next(iter(atHand), "")
        if not self._bundles:
            self.offerBundles(atHand)

    def offerBundles(self, atHand: Sequence[str]) -> None:
        """Fill the chooser with the bundles on this computer and those of the Model Zoo; the last entry is any other."""
        zoo = [name for name in MODEL_ZOO if name not in atHand]
        self._bundles = [*atHand, *zoo]
        labels = [*atHand, *(_("{name} (Model Zoo: {what})").format(name=name, what=MODEL_ZOO[name]) for name in zoo)]
        self.ui.bundleBox.clear()
        self.ui.bundleBox.addItems([*labels, _("another: name or folder below")])
        self.ui.memberBox.clear()
        self.ui.memberBox.addItems([_("add a bundle..."), *labels])
        if self._parameterNode is not None:
            self.updateGui()

    def onSceneEndImport(self, caller: Any, event: str) -> None:
        self.ui.trustCheckBox.checked = self.ui.downloadCheckBox.checked = False  # said of the bundle that was there before
        JobPanel.onSceneEndImport(self, caller, event)

    def onDownload(self, checked: bool) -> None:
        self.logic.download = checked

    def onTrust(self, checked: bool) -> None:
        self.logic.trusted = checked

    def finish(self) -> None:
        JobPanel.finish(self)
        self.offerBundles(self.logic.bundlesAtHand())  # one may have been downloaded

    def buttons(self) -> dict[str, Any]:
        return {
            "browseButton": self.onBrowse,
            "memberFolderButton": self.onMemberFolder,
            "aboutButton": lambda: self.runTask("about"),
            "previewButton": lambda: self.runTask("preview"),
            "compareButton": lambda: self.runTask("compare"),
            "showEntropyButton": self.onShowEntropy,
        }

    def updateButtons(self, parameters: Any) -> None:
        p, ui = parameters, self.ui
        idle = p is not None and not self.logic.running
        network = p is not None and p.method is Method.NETWORK
        for name in (
            "bundleBox", "bundleEdit", "browseButton", "downloadCheckBox", "trustCheckBox", "uncertaintyBox", "memorySpinBox",
            "cleanCheckBox", "deviceBox", "organsEdit",
        ):  # fmt: skip
            getattr(ui, name).enabled = network
        ui.inferencesSpinBox.enabled = network and p.uncertainty.changesImages
        for name in ("memberBox", "memberFolderButton", "ensembleEdit"):
            getattr(ui, name).enabled = network and p.uncertainty.takesSeveral
        known = p is not None and p.bundle in self._bundles
        ui.bundleBox.currentIndex = self._bundles.index(p.bundle) if known else len(self._bundles)
        ui.aboutButton.enabled = idle and network and bool(p.bundle)
        ui.previewButton.enabled = idle and not self.logic.problem(p)
        ui.compareButton.enabled = idle and not self.logic.comparisonProblem(p)
        ui.compareButton.toolTip = (self.logic.comparisonProblem(p) if p is not None else "") or _(
            "Dice, 95 % Hausdorff distance, surface Dice and volumes per organ"
        )
        ui.showEntropyButton.enabled = p is not None and p.entropyVolume is not None
        showTable(ui.volumeTableView, p.volumeTable if p is not None else None)
        showTable(ui.comparisonTableView, p.comparisonTable if p is not None else None)

    def onBundleChosen(self, index: int) -> None:
        p = self._parameterNode
        if index >= len(self._bundles):
            self.ui.bundleEdit.setFocus()
            return
        p.bundle = self._bundles[index]
        self.ui.downloadCheckBox.checked = p.bundle in MODEL_ZOO  # nothing is fetched before a button is pressed

    def onMemberChosen(self, index: int) -> None:
        self.ui.memberBox.currentIndex = 0
        if index > 0:
            self.addMember(self._bundles[index - 1])

    def onBrowse(self) -> None:
        if folder := self.askForFolder():
            self._parameterNode.bundle = folder

    def onMemberFolder(self) -> None:
        if folder := self.askForFolder():
            self.addMember(folder)

    def askForFolder(self) -> str:
        """Let the user choose the folder of a bundle, "" without."""
        return str(qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), _("Folder of a MONAI bundle")) or "")

    def addMember(self, bundle: str) -> None:
        """Add a bundle to the ensemble; one of the Model Zoo is to be downloaded if it is not here."""
        p = self._parameterNode
        p.ensemble = "\n".join([*filter(None, [p.ensemble.strip()]), bundle])
        if bundle in MODEL_ZOO:
            self.ui.downloadCheckBox.checked = True

    def onShowEntropy(self) -> None:
        self.logic.showEntropy(self._parameterNode)


class SynthDoseSegmentationLogic(JobLogic):
    """Nodes to files, ``synthdose segment``, ``bundle`` or ``compare`` in the background, results to nodes; no widgets.

    What may be fetched and what may run is no parameter of the scene, because the maker of a scene is not its user.

    Attributes
    ----------
    download : bool
        Whether bundles may be fetched from the Model Zoo.
    trusted : bool
        Whether pickled checkpoints and TorchScript, which can run code, may be loaded.
    """

    neededPackages = IMAGE_PACKAGES
    parametersClass = SynthDoseSegmentationParameterNode

    def __init__(self, command: Any = None, installer: Any = None) -> None:
        JobLogic.__init__(self, command, installer)
        self.download = self.trusted = False
        self._folder: pathlib.Path | None = None
        self._arguments: list[str] = []

    def requirements(self, parameters: SynthDoseSegmentationParameterNode) -> Requirements:
        """Tissues by HU, and reading about a bundle, do without torch and MONAI, which are large."""
        base = JobLogic.requirements(self, parameters)
        if self.task == "about" or (self.task != "compare" and parameters.method is not Method.NETWORK):
            return base
        return self.withNetworks(base)

    def bundlesAtHand(self) -> tuple[str, ...]:
        """Names of the bundles on this computer: shipped ones, then downloaded ones."""
        from SynthDoseLib.core import resource_path, user_path  # the package of networks takes seconds to import

        folders = (resource_path("segmentation"), user_path("bundles"))
        return tuple(name for folder in folders for name in sorted(path.parent.name for path in folder.glob("*/configs")))

    def problem(self, parameters: SynthDoseSegmentationParameterNode) -> str:
        """What keeps a segmentation from starting, "" if nothing."""
        p = parameters
        if p.image is None:
            return _("Choose the image")
        if p.method is Method.NETWORK and not p.bundle.strip():
            return _("Name a bundle")
        if p.method is Method.NETWORK and (fault := self.ensembleProblem(p)):
            return fault
        if p.method is Method.TISSUES and p.modality != "CT":
            return _("Tissues by HU need a CT")
        return ""

    def members(self, parameters: SynthDoseSegmentationParameterNode) -> list[str]:
        """Bundles that are averaged with the first one."""
        from SynthDoseLib.mrml.forms import linesFromText

        return linesFromText(parameters.ensemble) if parameters.uncertainty.takesSeveral else []

    def ensembleProblem(self, parameters: SynthDoseSegmentationParameterNode) -> str:
        """What is wrong with the ensemble, "" if nothing or if none is wanted."""
        if not parameters.uncertainty.takesSeveral:
            return ""
        members = self.members(parameters)
        if not members:
            return _("Name further bundles of the same organs, for the ensemble (Options)")
        names = [parameters.bundle.strip(), *members]
        twice = next((name for name in names if names.count(name) > 1), "")
        return _("The bundle {name} is in the ensemble twice; name each once").format(name=twice) if twice else ""

    def comparisonProblem(self, parameters: SynthDoseSegmentationParameterNode) -> str:
        """What keeps a comparison from starting, "" if nothing."""
        if parameters.segmentation is None or parameters.reference is None:
            return _("Choose two segmentations")
        return _("Choose two different segmentations") if parameters.segmentation is parameters.reference else ""

    def taskProblem(self, parameters: SynthDoseSegmentationParameterNode) -> str:
        """A comparison or a description of a bundle needs no image."""
        if self.task == "compare":
            return self.comparisonProblem(parameters)
        return "" if self.task == "about" else self.problem(parameters)

    def prepare(self, parameters: SynthDoseSegmentationParameterNode, folder: pathlib.Path) -> list[str]:
        """Write the inputs of the task."""
        if self.task == "about":
            from SynthDoseLib.mrml.forms import option

            words = option("bundle", parameters.bundle.strip(), *self.members(parameters))
            folder.mkdir(parents=True)
            return words
        if self.task == "compare":
            return self._prepareComparison(parameters, folder)
        return self._prepareSegmentation(parameters, folder)

    def _prepareSegmentation(self, p: SynthDoseSegmentationParameterNode, folder: pathlib.Path) -> list[str]:
        from SynthDoseLib.core import ImageVolume, resample_mean
        from SynthDoseLib.mrml import imageFromVolumeNode, saveImage
        from SynthDoseLib.mrml.forms import namesFromText, option

        image = imageFromVolumeNode(p.image, modality=p.modality, unit="HU" if p.modality == "CT" else "")
        if self.task == "preview":
            grid = image.grid.with_spacing(tuple(max(p.previewMm, size) for size in image.grid.spacing_mm))
            values = resample_mean(image.values, image.grid, grid, fill=float(image.values.min()))
            image = ImageVolume(grid, values, modality=image.modality, unit=image.unit)
        arguments = ["--modality", p.modality, "--device", p.device]
        if p.method is Method.NETWORK:
            arguments += option("--bundle", p.bundle.strip())
            if self.download:
                arguments.append("--download")
            if self.trusted:
                arguments.append("--trust-bundle")
            if self.task != "preview":
                arguments += self.uncertaintyArguments(p)
            if p.memoryGB > 0:
                arguments += ["--memory", f"{p.memoryGB:g}"]
            if not p.clean:
                arguments.append("--raw")
            arguments += option("--organs", *namesFromText(p.organs))
        folder.mkdir(parents=True)
        saveImage(image, folder / "image.nrrd")
        self._folder = folder
        self._arguments = ["segment", str(folder / "image.nrrd"), *arguments, "--out", str(folder / "labels.seg.nrrd")]
        return self._arguments

    def uncertaintyArguments(self, parameters: SynthDoseSegmentationParameterNode) -> list[str]:
        """What ``synthdose segment`` is told about changed images and further bundles."""
        from SynthDoseLib.mrml.forms import option

        p = parameters
        arguments = option("--ensemble", *self.members(p))
        return [*arguments, "--uncertainty", str(p.inferences)] if p.uncertainty.changesImages else arguments

    def _prepareComparison(self, p: SynthDoseSegmentationParameterNode, folder: pathlib.Path) -> list[str]:
        from SynthDoseLib.io import write_segmentation
        from SynthDoseLib.mrml import labelMapFromSegmentationNode
        from SynthDoseLib.mrml.segmentations import gridOfSegmentation

        grid = gridOfSegmentation(p.reference)
        labels = [labelMapFromSegmentationNode(node, grid) for node in (p.segmentation, p.reference)]
        folder.mkdir(parents=True)
        for name, values in zip(("segmentation", "reference"), labels, strict=True):
            write_segmentation(folder / f"{name}.seg.nrrd", values)
        self._folder = folder
        files = [str(folder / f"{name}.seg.nrrd") for name in ("segmentation", "reference")]
        return ["compare", *files, "--out", str(folder / "comparison.csv")]

    def loadResults(self, parameters: SynthDoseSegmentationParameterNode) -> Sequence[str]:
        """Add what the task has made to the scene; return notes for the user."""
        if self.task == "about":
            return ()
        return self._loadComparison(parameters) if self.task == "compare" else self._loadSegmentation(parameters)

    def done(self) -> str:
        """What to say when the results are there."""
        return _("The bundle is described in the log.") if self.task == "about" else JobLogic.done(self)

    def _loadSegmentation(self, p: SynthDoseSegmentationParameterNode) -> Sequence[str]:
        from SynthDoseLib.core import ImageVolume
        from SynthDoseLib.io import read_labels, read_volume
        from SynthDoseLib.mrml import segmentationNodeFromLabelMap, tableNodeFromCsv, volumeNodeFromImage
        from SynthDoseLib.mrml.hierarchy import arrangeResults
        from SynthDoseLib.mrml.records import attachRecord

        scene, folder, used = slicer.mrmlScene, self._folder, self.used(p)
        image = used.image
        name = image.GetName() if image is not None else "Image"
        kind = "preview" if self.task == "preview" else "organs"
        labels = read_labels(folder / "labels.seg.nrrd")
        node = segmentationNodeFromLabelMap(labels, scene.GenerateUniqueName(f"{name} {kind}"), scene)
        if image is not None and self.task != "preview":
            node.SetReferenceImageGeometryParameterFromVolumeNode(image)
        bundles = ", ".join([used.bundle, *(() if self.task == "preview" else self.members(used))])
        node.SetAttribute("SynthDose.bundle", bundles if used.method is Method.NETWORK else used.method.value)
        entropy = table = None
        if (folder / "labels.entropy.nrrd").is_file():
            values, grid, unit = read_volume(folder / "labels.entropy.nrrd")
            entropy = volumeNodeFromImage(ImageVolume(grid, values, unit=unit), f"{node.GetName()} entropy (nat)", scene)
            node.SetNodeReferenceID("SynthDose.entropyVolume", entropy.GetID())
        if (folder / "labels.volumes.csv").is_file():
            table = tableNodeFromCsv(folder / "labels.volumes.csv", f"{node.GetName()} volumes", scene)
        table = table or self._volumes(labels, node.GetName())
        made = {"arguments": self._arguments, "image": name, "notes": list(labels.notes)}
        arrangeResults(scene, node.GetName(), [node, entropy, table, attachRecord(node, made, scene)], image)
        with slicer.util.NodeModify(p.parameterNode):
            p.segmentation, p.entropyVolume, p.volumeTable = node, entropy, table
        if image is not None:
            slicer.util.setSliceViewerLayers(background=image)
            slicer.app.applicationLogic().FitSliceToAll()
        return labels.notes

    def _volumes(self, labels: Any, name: str) -> Any:
        """Table of organs and volumes, ml."""
        from SynthDoseLib.mrml.tables import tableNode

        counts = labels.voxel_counts()
        volumes = [count * labels.grid.voxel_volume_ml for count in counts.values()]
        return tableNode({"organ": list(counts), "volume_ml": volumes}, f"{name} volumes")

    def _loadComparison(self, p: SynthDoseSegmentationParameterNode) -> Sequence[str]:
        from SynthDoseLib.mrml import tableNodeFromCsv
        from SynthDoseLib.mrml.hierarchy import arrangeResults
        from SynthDoseLib.mrml.records import attachRecord

        scene, used = slicer.mrmlScene, self.used(p)
        nodes = [node for node in (used.segmentation, used.reference) if node is not None]
        title = scene.GenerateUniqueName(f"Comparison of {' and '.join(node.GetName() for node in nodes)}")
        table = tableNodeFromCsv(self._folder / "comparison.csv", title, scene)
        for node in nodes:
            table.AddNodeReferenceID("SynthDose.segmentation", node.GetID())
        made = {"compared": [node.GetName() for node in nodes]}
        arrangeResults(scene, title, [table, attachRecord(table, made, scene)])
        p.comparisonTable = table
        return ()

    def showEntropy(self, parameters: SynthDoseSegmentationParameterNode) -> None:
        """Show the entropy over the image in the slice views."""
        slicer.util.setSliceViewerLayers(
            background=parameters.image, foreground=parameters.entropyVolume, foregroundOpacity=0.5
        )


class SynthDoseSegmentationTest(ModuleTest):
    """A small test that also runs inside Slicer; the larger ones are in Testing/Slicer."""

    def test_theCommandFollowsTheParameters(self) -> None:
        import tempfile

        import numpy as np

        logic = SynthDoseSegmentationLogic()
        parameters = logic.getParameterNode()
        assert logic.problem(parameters) == "Choose the image"
        parameters.image = slicer.util.addVolumeFromArray(np.zeros((4, 4, 4), np.int16), name="CT")
        parameters.bundle, parameters.organs, parameters.inferences = "my_bundle", "liver, spleen", 5
        parameters.uncertainty = Uncertainty.BOTH
        assert logic.problem(parameters).startswith("Name further bundles")
        parameters.ensemble = "second_bundle\n/folder of/third_bundle"
        assert logic.problem(parameters) == ""
        with tempfile.TemporaryDirectory() as folder:
            arguments = logic.prepare(parameters, pathlib.Path(folder) / "job")
            assert (pathlib.Path(folder) / "job" / "image.nrrd").is_file()
        assert arguments[0] == "segment"
        assert arguments[arguments.index("--bundle") + 1] == "my_bundle"
        assert arguments[arguments.index("--uncertainty") + 1] == "5"
        first = arguments.index("--ensemble") + 1
        assert arguments[first : first + 2] == ["second_bundle", "/folder of/third_bundle"]
        assert arguments[arguments.index("--organs") + 1 : arguments.index("--organs") + 3] == ["liver", "spleen"]
