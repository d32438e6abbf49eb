"""The dose engine alone: a phantom and any source in; dose per decay, or absolute, with its uncertainty out."""

from __future__ import annotations

import contextlib
import pathlib
import sys
import tempfile
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Annotated, Any

import slicer
from slicer import vtkMRMLScalarVolumeNode, vtkMRMLTableNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import Choice, WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import ScriptedLoadableModule

_HERE = pathlib.Path(__file__).resolve().parent
if not (_HERE / "SynthDoseLib").is_dir() and str(_HERE.parent) not in sys.path:
    sys.path.append(str(_HERE.parent))  # a checkout, added through the Extension Wizard: the library is beside this folder

from SynthDoseLib.mrml.forms import CASE_WORDS, FURTHER_NUCLIDES, NUCLIDES  # noqa: E402
from SynthDoseLib.mrml.panel import IMAGE_PACKAGES, JobLogic, JobPanel, ModuleTest, showTable  # noqa: E402

ACTIVITY_SOURCE = {"kind": "volume", "distribution": "source.nrrd", "activity_in_gas": "move"}
"""``[source]`` of a case with an activity map."""


class SynthDoseMonteCarlo(ScriptedLoadableModule):
    """What the application shows about the module."""

    def __init__(self, parent: Any) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = "SynthDose Monte Carlo"
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Radiotherapy")]
        self.parent.dependencies = []
        self.parent.contributors = ["SynthDose developers"]
        self.parent.helpText = _(
            "Dose of radionuclides, single emissions and beams in a voxel phantom by Monte Carlo, with its standard error, a "
            "preview while it runs, S values, and other dose engines beside it. Research software, not for clinical use."
        )
        self.parent.acknowledgementText = _("Decay data: ICRP Publication 107. See NOTICE for data and their licences.")


class SourceKind(Enum):
    """Where the radiation comes from."""

    ACTIVITY = "activity per voxel"
    ORGANS = "organs"
    BEAM = "beam"

    def label(self) -> str:
        return {"ACTIVITY": _("activity per voxel"), "ORGANS": _("organs"), "BEAM": _("beam")}[self.name]


class ShownMap(Enum):
    """What lies over the phantom in the slice views."""

    DOSE = "dose"
    SIGMA = "standard error"

    def label(self) -> str:
        return {"DOSE": _("dose"), "SIGMA": _("standard error of the dose")}[self.name]


@parameterNodeWrapper
class SynthDoseMonteCarloParameterNode:
    """Everything that the panel knows; saved with the scene."""

    phantom: vtkMRMLScalarVolumeNode
    sourceKind: SourceKind = SourceKind.ORGANS
    activityVolume: vtkMRMLScalarVolumeNode
    organWeights: str = ""
    beamCentre: str = "0, 200, 0"
    beamDirection: str = "0, -1, 0"
    beamUp: str = "0, 0, 1"
    beamHeightMm: Annotated[float, WithinRange(0.1, 2000)] = 100.0
    beamWidthMm: Annotated[float, WithinRange(0.1, 2000)] = 100.0
    focusDistanceMm: Annotated[float, WithinRange(0, 100000)] = 0.0
    nuclide: Annotated[str, Choice([*NUCLIDES, *FURTHER_NUCLIDES])] = "Lu-177"
    progeny: Annotated[str, Choice(["none", "all"])] = "none"
    emissions: str = ""
    histories: Annotated[int, WithinRange(0, 2_000_000_000)] = 5_000_000
    relativeSigmaPercent: Annotated[float, WithinRange(0, 100)] = 0.0
    precisionOrgans: str = ""
    maxMinutes: Annotated[float, WithinRange(0, 10000)] = 0.0
    previewSeconds: Annotated[float, WithinRange(0, 3600)] = 5.0
    device: Annotated[str, Choice(["auto", "cpu", "cuda"])] = "auto"
    estimator: Annotated[str, Choice(["auto", "analog"])] = "auto"
    seed: Annotated[int, WithinRange(0, 2_000_000_000)] = 1
    decaysMBqs: Annotated[float, WithinRange(0, 1e12)] = 0.0
    sValues: bool = False
    compare: bool = False
    outputFolder: pathlib.Path
    resultFolder: str = ""
    shownMap: ShownMap = ShownMap.DOSE
    doseVolume: vtkMRMLScalarVolumeNode
    previewVolume: vtkMRMLScalarVolumeNode
    organTable: vtkMRMLTableNode
    sValueTable: vtkMRMLTableNode
    engineTable: vtkMRMLTableNode


class SynthDoseMonteCarloWidget(JobPanel):
    """The panel: choices, progress with the dose so far, results."""

    def makeLogic(self) -> SynthDoseMonteCarloLogic:
        return SynthDoseMonteCarloLogic()

    def setup(self) -> None:
        self._shownMap = ShownMap.DOSE
        JobPanel.setup(self)
        from SynthDoseLib.mrml.volumes import PHANTOM_ATTRIBUTE

        self.ui.phantomSelector.addAttribute("vtkMRMLScalarVolumeNode", PHANTOM_ATTRIBUTE, "1")

    def buttons(self) -> dict[str, Any]:
        return {
            "listOrgansButton": self.onListOrgans,
            "showDoseButton": self.onShowDose,
            "showSValuesButton": self.onShowSValues,
            "showEnginesButton": self.onShowEngines,
        }

    def updateButtons(self, parameters: Any) -> None:
        p = parameters
        kind = p.sourceKind if p is not None else None
        self.ui.activitySelector.enabled = kind is SourceKind.ACTIVITY
        self.ui.organWeightsEdit.enabled = kind is SourceKind.ORGANS
        self.ui.listOrgansButton.enabled = kind is SourceKind.ORGANS and p.phantom is not None
        self.ui.beamButton.enabled = kind is SourceKind.BEAM
        self.ui.nuclideBox.enabled = self.ui.progenyBox.enabled = p is not None and not p.emissions.strip()
        self.ui.showDoseButton.enabled = p is not None and p.doseVolume is not None
        self.ui.showSValuesButton.enabled = p is not None and p.sValueTable is not None
        self.ui.showEnginesButton.enabled = p is not None and p.engineTable is not None
        showTable(self.ui.organTableView, p.organTable if p is not None else None)
        if p is not None and p.shownMap is not self._shownMap:
            self._shownMap = p.shownMap
            self.logic.showMap(p)

    def whileRunning(self) -> None:
        from SynthDoseLib.core import SynthDoseError

        with contextlib.suppress(OSError, SynthDoseError):  # a preview that cannot be read now is shown the next time
            self.logic.showPreview(self._parameterNode)

    def onListOrgans(self) -> None:
        p = self._parameterNode
        p.organWeights = self.logic.withOrgansListed(p)

    def onShowDose(self) -> None:
        self.logic.showDose(self._parameterNode)

    def onShowSValues(self) -> None:
        self.logic.showTableInView(self._parameterNode.sValueTable)

    def onShowEngines(self) -> None:
        self.logic.showTableInView(self._parameterNode.engineTable)


class SynthDoseMonteCarloLogic(JobLogic):
    """Nodes to a case file, ``synthdose simulate`` in the background or in this process, results to nodes; no widgets."""

    neededPackages = IMAGE_PACKAGES | {"numba"}
    parametersClass = SynthDoseMonteCarloParameterNode
    planWords = CASE_WORDS

    def __init__(self, command: Any = None, installer: Any = None) -> None:
        JobLogic.__init__(self, command, installer)
        self._folder: pathlib.Path | None = None
        self._previewTime, self._precision = 0.0, ""
        self._gas: Any = None

    def problem(self, parameters: SynthDoseMonteCarloParameterNode) -> str:
        """What keeps a run from starting, "" if nothing."""
        from SynthDoseLib.mrml.forms import namesFromText

        p = parameters
        if p.phantom is None:
            return _("Choose a phantom; the module SynthDose Phantom makes one from a CT and organs")
        from SynthDoseLib.mrml import isPhantom  # here, because it brings the readers of images with it

        if not isPhantom(p.phantom):
            return _("The materials of this phantom are missing; build it again in the module SynthDose Phantom")
        if p.sourceKind is SourceKind.ACTIVITY and p.activityVolume is None:
            return _("Choose the activity volume")
        if p.sourceKind is SourceKind.ORGANS and not p.organWeights.strip():
            return _("Name the source organs, one per line")
        if p.histories == 0 and p.relativeSigmaPercent == 0 and p.maxMinutes == 0:
            return _("Say when to stop: histories, relative sigma or time")
        if p.relativeSigmaPercent > 0 and not namesFromText(p.precisionOrgans):
            return _("Name the organs that are to reach the precision")
        if p.compare and p.sourceKind is SourceKind.BEAM:
            return _("Kernels and local deposition need an activity or organs, not a beam")
        if p.sValues and p.sourceKind is SourceKind.BEAM:
            return _("S values are of organs that decay; a beam has none")
        return ""

    def withOrgansListed(self, parameters: SynthDoseMonteCarloParameterNode) -> str:
        """The source organs with a line for every organ of the phantom that is not named yet."""
        from SynthDoseLib.mrml import organsFromSegmentationNode, organsOfPhantom
        from SynthDoseLib.mrml.forms import withOrganLines

        organs = organsOfPhantom(parameters.phantom)
        names = [organ.name for organ in organsFromSegmentationNode(organs)] if organs is not None else []
        return withOrganLines(parameters.organWeights, names, 1.0)

    def sourceValues(self, parameters: SynthDoseMonteCarloParameterNode) -> dict[str, Any]:
        """The table ``[source]`` of the case."""
        from SynthDoseLib.mrml.forms import emissionsFromText, vectorFromText, weightsFromText

        p = parameters
        values: dict[str, Any]
        if p.sourceKind is SourceKind.ACTIVITY:
            values = dict(ACTIVITY_SOURCE)
        elif p.sourceKind is SourceKind.ORGANS:
            values = {"kind": "organs", "weights": weightsFromText(p.organWeights)}
        else:
            values = {
                "kind": "beam",
                "centre_mm_ras": vectorFromText(p.beamCentre, _("Centre of the beam")),
                "direction_ras": vectorFromText(p.beamDirection, _("Direction of the beam")),
                "up_ras": vectorFromText(p.beamUp, _("Up of the beam")),
                "size_mm": [p.beamHeightMm, p.beamWidthMm],
            }
            if p.focusDistanceMm > 0:
                values["source_distance_mm"] = p.focusDistanceMm
        if emissions := emissionsFromText(p.emissions):
            return {**values, "emission": emissions}
        return {**values, "nuclide": p.nuclide, "progeny": p.progeny}

    def runValues(self, parameters: SynthDoseMonteCarloParameterNode) -> dict[str, Any]:
        """The table ``[run]`` of the case."""
        from SynthDoseLib.mrml.forms import namesFromText

        p = parameters
        values: dict[str, Any] = {"seed": p.seed, "device": p.device, "estimator": p.estimator, "s_values": p.sValues}
        if p.histories > 0:
            values["histories"] = p.histories
        if p.relativeSigmaPercent > 0:
            values["relative_sigma"] = p.relativeSigmaPercent / 100
        if organs := namesFromText(p.precisionOrgans):
            values["organs"] = organs
        if p.maxMinutes > 0:
            values["max_seconds"] = 60 * p.maxMinutes
        if p.compare:
            values["compare"] = ["kernel", "local"]
        return values

    def prepare(self, parameters: SynthDoseMonteCarloParameterNode, folder: pathlib.Path) -> list[str]:
        """Write the case of a run; bad values are refused before anything is written."""
        source, run = self.sourceValues(parameters), self.runValues(parameters)
        folder.mkdir(parents=True)
        activity = parameters.activityVolume if parameters.sourceKind is SourceKind.ACTIVITY else None
        case = self.writeCase(folder, parameters.phantom, activity, source, run)
        self._folder, self._previewTime, self._precision = folder / "results", 0.0, ""
        preview = ["--preview", f"{parameters.previewSeconds:g}"] if parameters.previewSeconds > 0 else []
        return ["simulate", str(case), "--out", str(self._folder), *preview]

    def writeCase(
        self, folder: pathlib.Path, phantom: Any, activity: Any, source: Mapping[str, Any], run: Mapping[str, Any]
    ) -> pathlib.Path:
        """Write phantom, activity (or None) and case file into an existing folder; return the case file."""
        import tomlkit

        from SynthDoseLib.mrml import imageFromVolumeNode, saveImage, writePhantom

        values = {"schema": 1, "phantom": writePhantom(phantom, folder), "source": dict(source), "run": dict(run)}
        if activity is not None:
            saveImage(imageFromVolumeNode(activity), folder / "source.nrrd")
        case = folder / "CASE.toml"
        case.write_text(tomlkit.dumps(values), encoding="utf-8")
        return case

    def simulate(
        self,
        phantom: Any,
        source: Any,
        nuclide: str = "",
        *,
        emissions: Sequence[Mapping[str, Any]] = (),
        progeny: str = "none",
        decaysMBqs: float = 0.0,
        progress: Any = None,
        **run: Any,
    ) -> Any:
        """Simulate in this process and add the dose to the scene; the call returns when it is done.

        Parameters
        ----------
        phantom : vtkMRMLScalarVolumeNode
            Density of a phantom, from the module SynthDose Phantom.
        source : vtkMRMLScalarVolumeNode or mapping of str to float
            Relative activity per voxel on any grid (what a scanner's blur put into gas goes to the tissue around), or relative
            decays per organ.
        nuclide : str
            For example "Lu-177"; or `emissions`, each with ``particle``, ``energy_MeV`` and ``yield_per_decay``.
        progeny : str
            "none" or "all" radioactive daughters.
        decaysMBqs : float
            Time-integrated activity, MBq s, that the dose is multiplied by; 0: dose per decay.
        progress : callable, optional
            Gets ``SynthDoseLib.core.ProgressReport``.
        **run
            Keys of the table ``[run]`` of a case file, such as ``histories``, ``relative_sigma`` with ``organs``, ``seed``.

        Returns
        -------
        vtkMRMLScalarVolumeNode
            Dose, Gy; the volume of its standard error is the node reference "SynthDose.sigmaVolume".

        Raises
        ------
        SynthDoseError
            If an input is not usable.

        Examples
        --------
        >>> dose = SynthDoseMonteCarloLogic().simulate(phantomNode, {"liver": 1}, "Y-90", histories=100_000)  # doctest: +SKIP
        """
        from SynthDoseLib.core import silent
        from SynthDoseLib.pipeline.case import run_case

        isMap = isinstance(source, Mapping)
        values: dict[str, Any] = {"kind": "organs", "weights": dict(source)} if isMap else dict(ACTIVITY_SOURCE)
        values |= {"emission": [dict(e) for e in emissions]} if emissions else {"nuclide": nuclide, "progeny": progeny}
        with tempfile.TemporaryDirectory(prefix="SynthDose-") as temporary:
            folder = pathlib.Path(temporary)
            case = self.writeCase(folder, phantom, None if isMap else source, values, run)
            run_case(case, folder / "results", progress or silent)
            name = f"{phantom.GetName()} {nuclide}".strip()
            title = slicer.mrmlScene.GenerateUniqueName(f"{name} dose")
            return self.loadDose(folder / "results", title, decaysMBqs, "decay", phantom)

    def loadDose(self, folder: pathlib.Path, name: str, decaysMBqs: float, per: str, phantom: Any) -> Any:
        """Add the dose of a result folder and its standard error to the scene."""
        from SynthDoseLib.mrml import doseVolumeFromDose

        dose = self.readDose(folder, decaysMBqs, per)
        return doseVolumeFromDose(dose, name, slicer.mrmlScene, gas=self.gas(dose, phantom))

    def gas(self, dose: Any, phantom: Any) -> Any:
        """Voxels of a dose that are gas of the phantom, None if that is gone."""
        from SynthDoseLib.core import gas_voxels
        from SynthDoseLib.mrml import imageFromVolumeNode, isPhantom

        density = imageFromVolumeNode(phantom) if isPhantom(phantom) else None
        return gas_voxels(density.values) if density is not None and density.grid.matches(dose.grid) else None

    def readDose(self, folder: pathlib.Path, decaysMBqs: float, per: str, prefix: str = "") -> Any:
        """Dose of a result folder, times the decays if they are known."""
        import numpy as np

        from SynthDoseLib.core import DoseMap
        from SynthDoseLib.io import read_volume

        dose, grid, _unit = read_volume(folder / f"{prefix}dose_Gy.nrrd")
        sigma = read_volume(folder / f"{prefix}sigma_Gy.nrrd")[0]
        scale = 1e6 * decaysMBqs if decaysMBqs > 0 else 1.0
        scaled = [np.asarray(np.asarray(values, np.float64) * scale, np.float32) for values in (dose, sigma)]
        return DoseMap(grid, scaled[0], scaled[1], "" if decaysMBqs > 0 else per)

    def showPreview(self, parameters: SynthDoseMonteCarloParameterNode) -> None:
        """Show the dose so far, if there is a new one, and keep its precision for the status line."""
        from SynthDoseLib.mrml import updateDoseVolume

        p, file = parameters, (self._folder or pathlib.Path()) / "preview_sigma_Gy.nrrd"  # the second of the two files
        if self._folder is None or not file.is_file() or file.stat().st_mtime == self._previewTime:
            return
        self._previewTime = file.stat().st_mtime
        dose = self.readDose(self._folder, 0.0, self.per(p), "preview_")
        if p.previewVolume is None:
            self._gas = self.gas(dose, self.used(p).phantom)
        self._precision = self.precisionText(dose)
        if p.previewVolume is None:
            from SynthDoseLib.mrml import doseVolumeFromDose

            p.previewVolume = doseVolumeFromDose(dose, "SynthDose preview", slicer.mrmlScene, gas=self._gas)
            self.showMap(p)
        else:
            updateDoseVolume(p.previewVolume, dose, gas=self._gas)

    def precisionText(self, dose: Any) -> str:
        """Relative standard error in the voxels that have more than half of the highest dose, for people."""
        import numpy as np

        high = dose.dose_Gy > 0
        if self._gas is not None:
            high &= ~self._gas
        high &= dose.dose_Gy > 0.5 * dose.dose_Gy.max(where=high, initial=0.0)
        relative = float(np.median(dose.sigma_Gy[high] / dose.dose_Gy[high])) if high.any() else 0.0
        return _("Dose so far ± {percent} % where it is high").format(percent=f"{100 * relative:.2g}") if relative else ""

    def describe(self, progress: Any) -> str:
        """Stage, percentage, time left, and how precise the dose is by now."""
        return f"{JobLogic.describe(self, progress)} {self._precision}".strip()

    def per(self, parameters: SynthDoseMonteCarloParameterNode) -> str:
        """What the dose is per."""
        return "particle" if parameters.sourceKind is SourceKind.BEAM else "decay"

    def close(self) -> None:
        """End the run and take the preview out of the scene."""
        from SynthDoseLib.mrml import removeDoseVolume

        JobLogic.close(self)
        preview = self._parameters.previewVolume if self._parameters is not None else None
        if preview is not None and preview.GetScene() is not None:
            removeDoseVolume(preview)

    def loadResults(self, parameters: SynthDoseMonteCarloParameterNode) -> tuple[str, ...]:
        """Add dose and tables of the last run to the scene and show them; return notes for the user."""
        import json

        from SynthDoseLib.mrml.hierarchy import arrangeRun, hasPatient
        from SynthDoseLib.mrml.records import attachRecord
        from SynthDoseLib.mrml.tables import doseTable

        p, used, folder, scene = parameters, self.used(parameters), self._folder, slicer.mrmlScene
        phantom, per = used.phantom, self.per(used)
        name = "Monte Carlo" if phantom is None else f"{phantom.GetName().removesuffix(' density (g/cm3)')} Monte Carlo"
        emitted = "own emissions" if used.emissions.strip() else used.nuclide
        title = scene.GenerateUniqueName(f"{name} {'beam' if used.sourceKind is SourceKind.BEAM else emitted}")
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        dose = self.loadDose(folder, f"{title} dose (Gy)", used.decaysMBqs, per, phantom)
        tables = {}
        for file, decays in (("organs", used.decaysMBqs), ("s_values", 0.0), ("engines", used.decaysMBqs)):
            path = folder / f"{file}.csv"
            table = doseTable(path, f"{title} {file.replace('_', ' ')}", 1e6 * decays, per, scene) if path.is_file() else None
            tables[file] = table
            if table is not None:
                dose.SetNodeReferenceID(f"SynthDose.{file}", table.GetID())
        results = [dose, dose.GetNodeReference("SynthDose.sigmaVolume"), *tables.values(), attachRecord(dose, record, scene)]
        arrangeRun(scene, title, [], results, [], phantom if hasPatient(scene, phantom) else None)
        with slicer.util.NodeModify(p.parameterNode):
            p.resultFolder, p.doseVolume, p.organTable = str(folder), dose, tables["organs"]
            p.sValueTable, p.engineTable = tables["s_values"], tables["engines"]
        self.showDose(p)
        return tuple(record["notes"])

    def showDose(self, parameters: SynthDoseMonteCarloParameterNode) -> None:
        """Show the dose, or its standard error, over the density in the slice views."""
        self.showMap(parameters)
        slicer.app.applicationLogic().FitSliceToAll()

    def showMap(self, parameters: SynthDoseMonteCarloParameterNode) -> None:
        """Put the chosen map of the dose so far, or else of the last result, over the density."""
        from SynthDoseLib.mrml import showDoseOverImage
        from SynthDoseLib.mrml.volumes import SIGMA_REFERENCE

        dose = parameters.previewVolume or parameters.doseVolume
        shown = dose
        if dose is not None and parameters.shownMap is ShownMap.SIGMA:
            shown = dose.GetNodeReference(SIGMA_REFERENCE) or dose
        if shown is not None:
            showDoseOverImage(slicer.mrmlScene, shown, parameters.phantom)


class SynthDoseMonteCarloTest(ModuleTest):
    """A small test that also runs inside Slicer; the larger ones are in Testing/Slicer."""

    def test_theCaseFollowsTheParameters(self) -> None:
        logic = SynthDoseMonteCarloLogic()
        parameters = logic.getParameterNode()
        assert logic.problem(parameters).startswith("Choose a phantom")
        parameters.organWeights = "kidneys = 3\nliver"
        assert logic.sourceValues(parameters) == {
            "kind": "organs",
            "weights": {"kidneys": 3.0, "liver": 1.0},
            "nuclide": "Lu-177",
            "progeny": "none",
        }
        parameters.emissions = "photon 0.1405 0.885"
        assert logic.sourceValues(parameters)["emission"] == [
            {"particle": "photon", "energy_MeV": 0.1405, "yield_per_decay": 0.885}
        ]
        parameters.relativeSigmaPercent = 2
        parameters.precisionOrgans = "liver"
        assert logic.runValues(parameters)["relative_sigma"] == 0.02
