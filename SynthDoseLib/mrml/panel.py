"""What the panels share: a calculation in the background, with progress, cancelling, errors and results; parameters; safety.

A module gives its parameter node, its plan or command, and what to do with the results; see ``SynthDose/SynthDose.py``.
"""

from __future__ import annotations

import datetime
import logging
import shutil
import time
import unittest
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

from ..core import ProgressReport
from .fields import Fields, Used, catchUp, forgetUnreadable, inWords, plain
from .forms import durationText
from .jobs import BackgroundRun, RunState, failureText, verbCommand
from .packages import PackageInstaller, Requirements

POLL_MS = 50
"""How often a panel looks whether something has come; what has not changed is not shown again."""

WIDEST_COLUMN = 210
"""Pixels, so that a long name does not push the numbers beside it out of sight."""

IMAGE_PACKAGES = frozenset({"numpy", "scipy", "SimpleITK", "pydicom", "tomlkit", "psutil"})
"""What reading images, segmentations and case files takes."""


def showTable(view: Any, table: Any) -> None:
    """Show a table node, or nothing, in a table view, with columns as wide as their contents but for very long ones."""
    rows = table.GetNumberOfRows() if table is not None else 0
    if view.mrmlTableNode() is table and view.property("shownRows") == rows:
        return  # else a user's own column widths would not last
    view.setMRMLTableNode(table)
    view.setProperty("shownRows", rows)
    view.resizeColumnsToContents()
    for column in range(table.GetNumberOfColumns() if table is not None else 0):
        view.setColumnWidth(column, min(view.columnWidth(column), WIDEST_COLUMN))


class JobLogic(ScriptedLoadableModuleLogic):
    """Runs a verb of the command line in the background; no widgets.

    A subclass has ``problem(parameters)``, which says what keeps a run from starting, ``prepare(parameters, folder)``, which
    writes the inputs and returns the verb with its arguments, and ``loadResults(parameters)``, which adds the results to the
    scene. A panel with more than one thing to run tells them apart by `task`, "" for the run button's.

    Parameters
    ----------
    command : callable, optional
        Makes the command of a process from the verb and its arguments; ``synthdose`` with JSON progress if not given.
    installer : callable, optional
        Makes sure that the packages of a task are there; returns whether the task can be done.
    """

    neededPackages: frozenset[str] = frozenset()
    """Names of packages without which the run cannot be done; all of the requirements if empty."""

    parametersClass: Any = None
    """Wrapper of the module's parameter node."""

    planWords: Mapping[str, str] = {}
    """Keys of plan or case files, as in ``[dose] histories``, and what the panel calls them."""

    def __init__(
        self,
        command: Callable[[Sequence[str]], list[str]] | None = None,
        installer: Callable[[Requirements], bool] | None = None,
    ) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        self.command = command or verbCommand
        self.installer = installer or PackageInstaller()
        self.task = ""
        self._parameters: Any = None
        self._used: Used | None = None
        self._job: BackgroundRun | None = None
        self._lines: tuple[str, ...] = ()
        self._logFile = Path()

    def getParameterNode(self) -> Any:
        """Return the parameters of the scene; the same wrapper for the same node, as each one goes on observing its node."""
        node = ScriptedLoadableModuleLogic.getParameterNode(self)
        if self.parametersClass is None:
            return node
        forgetUnreadable(self.parametersClass, node)
        if self._parameters is None or self._parameters.parameterNode is not node:
            self._parameters = self.parametersClass(node)
        catchUp(self._parameters)
        return self._parameters

    @property
    def running(self) -> bool:
        """Whether a calculation is under way."""
        return self._job is not None

    def problem(self, parameters: Any) -> str:
        """What keeps a run from starting, "" if nothing."""
        return ""

    def taskProblem(self, parameters: Any) -> str:
        """What keeps `task` from starting; by default, `problem` for the run button's and nothing for others."""
        return "" if self.task else self.problem(parameters)

    def prepare(self, parameters: Any, folder: Path) -> list[str]:
        """Write the inputs of a run into `folder`; return the verb and its arguments. Makes the folder when all is well."""
        raise NotImplementedError

    def loadResults(self, parameters: Any) -> Sequence[str]:
        """Add the results of the last run to the scene; return notes for the user."""
        raise NotImplementedError

    def used(self, parameters: Any) -> Any:
        """The parameters that the last calculation began with; those of now if none was started."""
        return parameters if self._used is None else self._used

    def done(self) -> str:
        """What to say when the results are there."""
        return str(_("Finished. Results are in the panel, the slice views and the Data module."))

    def resource(self, name: str) -> Path:
        """A file of the module's resources."""
        return Path(slicer.util.modulePath(self.moduleName)).parent / "Resources" / name

    def requirements(self, parameters: Any) -> Requirements:
        """Python packages that `task` needs."""
        return Requirements((self.resource("requirements.txt"),), self.neededPackages)

    def withNetworks(self, base: Requirements) -> Requirements:
        """The same and what running a MONAI bundle takes."""
        files = (*base.files, self.resource("requirements-segmentation.txt"))
        needed = base.needed | {"monai", "nibabel", "safetensors"} if base.needed else base.needed
        return Requirements(files, needed, torch=True)

    def missingText(self, parameters: Any) -> str:
        """What to say when packages are missing and were not installed."""
        missing = ", ".join(self.requirements(parameters).blocking())
        return str(_("Python packages are missing; nothing was started. {names}").format(names=missing)).strip()

    def start(self, parameters: Any) -> bool:
        """Start `task` in the background; False if packages are missing and the user did not want them."""
        if self.running:
            raise RuntimeError(_("A calculation is running already."))
        if problem := self.taskProblem(parameters):
            raise ValueError(problem)
        if not self.installer(self.requirements(parameters)):
            return False
        if str(parameters.outputFolder) in ("", "."):
            parameters.outputFolder = Path(slicer.app.temporaryPath)
        folder = Path(parameters.outputFolder) / f"{self.moduleName}-{datetime.datetime.now():%Y%m%d-%H%M%S-%f}"
        try:
            arguments = self.prepare(parameters, folder)
            self._used = Used(parameters)
            self._logFile = folder / "log.txt"
            self._job = BackgroundRun(self.command(arguments), self._logFile)
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise RuntimeError(
                _("Cannot write into {folder}: {reason}. Choose another folder, or make room there.").format(
                    folder=parameters.outputFolder, reason=error.strerror or error
                )
            ) from error
        except Exception:
            shutil.rmtree(folder, ignore_errors=True)  # nothing half-written is left
            raise
        return True

    def execute(self, parameters: Any, task: str = "") -> Sequence[str]:
        """Run a task and wait for it, for scripts; the interface stays alive meanwhile.

        Parameters
        ----------
        parameters : parameter node
            As the panel would have filled it.
        task : str
            See `task`.

        Returns
        -------
        sequence of str
            Notes for the user; the results are in the scene and in `parameters`.

        Raises
        ------
        ValueError
            If something is missing.
        RuntimeError
            If packages are missing, or the calculation fails: with its message.
        """
        self.task = task
        if not self.start(parameters):
            raise RuntimeError(self.missingText(parameters))
        try:
            while (state := self.poll()).running:
                slicer.app.processEvents()
                time.sleep(POLL_MS / 1000)
        except BaseException:  # Ctrl-C in the console or terminal: no process is left behind
            self.close()
            raise
        if state.exitCode != 0:
            raise RuntimeError(self.failure(state))
        return self.loadResults(parameters)

    def poll(self) -> RunState:
        """State of the run; returns at once."""
        if self._job is None:
            raise RuntimeError(_("No calculation is running."))
        state, self._lines = self._job.poll(), self._job.lines
        if not state.running:
            self.close()
        return state

    def cancel(self) -> None:
        """Stop the run; `poll` tells when it has ended, within a second."""
        if self._job is not None:
            self._job.cancel()

    def close(self) -> None:
        """Kill a run that is under way and forget it."""
        if self._job is not None:
            self._job.close()
            self._job = None

    def describe(self, progress: Any) -> str:
        """Stage, percentage and time left, for people."""
        text = f"{progress.title}: {100 * progress.fraction:.0f} %"
        if progress.seconds_left is not None:
            text += _(", {time} left").format(time=durationText(progress.seconds_left))
        return f"{text}. {progress.message}" if progress.message else f"{text}."

    def showTableInView(self, table: Any) -> None:
        """Change to a layout with a table, and show this one."""
        from .display import setLayout, showTableAndChart

        setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpTableView)
        showTableAndChart(slicer.app.applicationLogic(), table)

    def failure(self, state: RunState) -> str:
        """Why a run failed, and what to do if its process did not say so itself."""
        text = inWords(failureText(state.exitCode, self._lines), self.planWords)
        if any(line.startswith("synthdose: ") for line in self._lines):
            return text
        advice = _(
            "The scene is as it was; run it again. If it ends like this again, memory may be short: close other programs or "
            "use larger voxels. 'Check my setup' in the module SynthDose says what is free. Log: {file}"
        )
        return f"{text}\n{advice.format(file=self._logFile)}"


class JobPanel(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """A panel with a run button, a cancel button, a progress bar, a status line and a log.

    A subclass names its logic in `makeLogic`, its buttons in `buttons`, and enables them in `updateButtons`. Its ``.ui`` file
    has ``runButton``, ``cancelButton``, ``progressBar``, ``statusLabel``, ``logButton`` (collapsible) and ``logEdit``.
    """

    def __init__(self, parent: Any = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic: Any = None
        self._parameterNode: Any = None
        self._guiTag: int | None = None
        self._shownProgress: ProgressReport | None = None
        self._hint = ""

    modalities: Mapping[str, tuple[str, str]] = {}
    """Selectors of images, with the parameters of the image and of its modality: chosen by hand, an image says what it is."""

    def makeLogic(self) -> JobLogic:
        """Return the logic of this panel."""
        raise NotImplementedError

    def buttons(self) -> dict[str, Callable[[], None]]:
        """Names of further buttons of the panel, and what they do."""
        return {}

    def updateButtons(self, parameters: Any) -> None:
        """Enable and disable what depends on the parameters, which are None while the scene is being closed."""

    def whileRunning(self) -> None:
        """Called by the timer while a calculation is under way."""

    def setDefaults(self, parameters: Any) -> None:
        """Give a fresh parameter node the values that are not constants."""

    def setup(self) -> None:
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath(f"UI/{self.moduleName}.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = self.makeLogic()
        self._fields = Fields(self.ui, lambda: self._parameterNode)
        for selector, (image, modality) in self.modalities.items():
            getattr(self.ui, selector).connect("currentNodeChanged(vtkMRMLNode*)", self._takingModality(image, modality))
        self.timer = qt.QTimer()
        self.timer.setInterval(POLL_MS)
        self.timer.connect("timeout()", self.onTimer)
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(scene, scene.EndImportEvent, self.onSceneEndImport)
        self.addObserver(scene, scene.NodeRemovedEvent, self.onNodeRemoved)
        self._slots = {"runButton": self.onRun, "cancelButton": self.onCancel, **self.buttons()}
        for name, slot in self._slots.items():
            getattr(self.ui, name).connect("clicked(bool)", slot)
        self.initializeParameterNode()

    def _takingModality(self, image: str, modality: str) -> Callable[[Any], None]:
        def take(node: Any) -> None:
            from .volumes import knownModality

            parameters = self._parameterNode
            if parameters is None or node is None or parameters.getValue(image) is node:
                return  # the scene, not the user, has chosen it
            found = knownModality(node)
            with slicer.util.NodeModify(parameters.parameterNode):  # at once, else the selector would be set back
                parameters.setValue(image, node)
                if self._fields.others[modality].findText(found) >= 0:
                    parameters.setValue(modality, found)

        return take

    def cleanup(self) -> None:
        self.timer.stop()
        self.logic.close()
        self.setParameterNode(None)
        self.removeObservers()

    def enter(self) -> None:
        self.initializeParameterNode()

    def exit(self) -> None:
        """A run goes on while another module is shown."""

    def onSceneStartClose(self, caller: Any, event: str) -> None:
        if self.logic.running:
            self.timer.stop()
            self.logic.close()
            self.showStatus(_("Stopped, because the scene was closed."))
        self.setParameterNode(None)

    def onSceneEndClose(self, caller: Any, event: str) -> None:
        self.initializeParameterNode()

    def onSceneEndImport(self, caller: Any, event: str) -> None:
        parameterNode = self.logic.getParameterNode()  # the scene that was loaded brings its own
        if not Path(parameterNode.outputFolder).is_dir():
            parameterNode.outputFolder = Path(slicer.app.temporaryPath)  # its folder was on another computer
        self.initializeParameterNode()

    def onNodeRemoved(self, caller: Any, event: str) -> None:
        if self._parameterNode is not None and not caller.IsClosing():
            catchUp(self._parameterNode)  # the event comes before the parameters let go of the node
            self.updateGui()

    def initializeParameterNode(self) -> None:
        parameterNode, known = self.logic.getParameterNode(), self._parameterNode
        if known is not None and known.parameterNode is parameterNode.parameterNode:
            parameterNode = known
        if str(parameterNode.outputFolder) in ("", "."):
            parameterNode.outputFolder = Path(slicer.app.temporaryPath)
        self.setDefaults(parameterNode)
        if parameterNode is known:
            self.updateGui()
        else:
            self.setParameterNode(parameterNode)

    def setParameterNode(self, parameterNode: Any) -> None:
        if self._parameterNode is not None:
            self._parameterNode.disconnectGui(self._guiTag)
            self.removeObserver(self._parameterNode.parameterNode, vtk.vtkCommand.ModifiedEvent, self.updateGui)
        self._parameterNode = parameterNode
        if parameterNode is not None:
            # not connectGui, which returns no tag: nothing could be disconnected by it (Slicer issue 7547)
            self._guiTag = parameterNode.connectParametersToGui(self._fields.others)
            self.addObserver(parameterNode.parameterNode, vtk.vtkCommand.ModifiedEvent, self.updateGui)
        self.updateGui()

    def updateGui(self, caller: Any = None, event: str | None = None) -> None:
        parameters, running = self._parameterNode, self.logic.running
        if parameters is not None:
            self._fields.showTexts(parameters)
        problem = self.logic.problem(parameters) if parameters is not None else ""
        self.ui.runButton.enabled = parameters is not None and not running and not problem
        self.ui.runButton.toolTip = plain(problem) or _("Start the calculation in the background")
        self.ui.cancelButton.enabled = running
        if not running and self.ui.statusLabel.text == self._hint:  # nothing else to say
            self._hint = problem
            self.showStatus(problem)
        self.updateButtons(parameters)

    def showStatus(self, text: str, failed: bool = False) -> None:
        self.ui.statusLabel.text = text
        self.ui.statusLabel.styleSheet = "color: #b00020" if failed else ""

    def showProgress(self, fraction: float) -> None:
        self.ui.progressBar.value = round(1000 * fraction)

    def attempt(self, action: Callable[[], Any], failing: str) -> Any:
        """Do something with a wait cursor; an error is shown in the status line, its traceback goes to the log."""
        try:
            with slicer.util.WaitCursor():
                return action()
        except Exception as error:
            logging.exception(failing)
            self.showStatus(inWords(str(error), self.logic.planWords) or type(error).__name__, failed=True)
            return None

    def onRun(self) -> None:
        self.runTask("")

    def runTask(self, task: str) -> None:
        """Start one of the things that the panel can run."""
        self.logic.task = task
        self._shownProgress = None
        self.ui.runButton.enabled = False
        self.ui.logEdit.setPlainText("")
        self.showProgress(0)
        self.showStatus(_("Writing the inputs of the calculation."))
        slicer.app.processEvents()
        started = self.attempt(lambda: self.logic.start(self._parameterNode), f"{self.moduleName} could not start")
        if started:
            self.showStatus(_("Starting."))
            self.timer.start()
        elif started is False:
            self.showStatus(self.logic.missingText(self._parameterNode), failed=True)
        self.updateGui()

    def onCancel(self) -> None:
        self.logic.cancel()
        self.showStatus(_("Stopping."))

    def onTimer(self) -> None:
        state = self.logic.poll()
        if state.newLines:
            self.ui.logEdit.appendPlainText("\n".join(state.newLines))
        if state.running:
            if state.progress is not None and state.progress is not self._shownProgress:
                self._shownProgress = state.progress
                if not state.cancelled:
                    self.showProgress(state.progress.fraction)
                    self.showStatus(self.logic.describe(state.progress))
                self.whileRunning()
            return
        self.timer.stop()
        self.showProgress(0)
        if state.cancelled:
            self.showStatus(_("Cancelled. The scene is as it was."))
        elif state.exitCode != 0:
            self.showStatus(self.logic.failure(state), failed=True)
            self.ui.logButton.collapsed = False
        else:
            self.showStatus(_("Loading the results."))
            slicer.app.processEvents()
            self.finish()
        self.updateGui()

    def finish(self) -> None:
        notes = self.attempt(
            lambda: tuple(self.logic.loadResults(self._parameterNode)), f"{self.moduleName} could not load its results"
        )
        if notes is not None:
            self.ui.logEdit.appendPlainText(inWords("\n".join(notes), self.logic.planWords))
            self.showProgress(1)
            self.showStatus(self.logic.done())


class ModuleTest(ScriptedLoadableModuleTest):
    """Runs the tests of a module where *Reload and Test* of the application is pressed; Slicer's own class runs none there."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        """Run every method that begins with ``test``, each in an empty scene."""
        for name in unittest.TestLoader().getTestCaseNames(type(self)):
            self.setUp()
            try:
                getattr(self, name)()
            finally:
                self.tearDown()
