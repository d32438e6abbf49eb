"""What differs in the application: a launcher starts its Python, it may have no window, scenes come from elsewhere."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from surroundings import HERE, REPOSITORY
from test_panel_montecarlo import writePhantomFolder

from SynthDoseLib.core import SynthDoseError
from SynthDoseLib.mrml.forms import CASE_WORDS, PLAN_WORDS
from SynthDoseLib.mrml.jobs import LAUNCHER, BackgroundRun, pythonExecutable

WORKER = """
import os, pathlib, signal, sys, time
if sys.argv[2] == "stubborn":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))
time.sleep(60)
"""

LAUNCHER_SCRIPT = """#!{python}
import signal, subprocess, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)  # as CTK's launcher: it ends, and tells nobody
sys.exit(subprocess.run([{python!r}, *sys.argv[1:]]).returncode)
"""


WITHOUT = """
import sys
from pathlib import Path
here, modules, missing = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3].split(",")
sys.path.insert(0, str(here))

class Without:  # a finder of modules that does not know some of them
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in missing else self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
"""
"""Hides packages of the test environment that Slicer does not have."""

FRESH = """
from slicerhost import install, observerErrors
host = install()
import slicer
names = [path.stem for path in sorted(modules.glob("SynthDose*.py"))]
with observerErrors():
    loaded = {name: host.loadModule(modules / f"{name}.py") for name in names}
    slicer.app.startupCompleted.emit()
    assert slicer.modules.sampleDataSources["SynthDose"]
    assert not {"pydicom", "SimpleITK", "SynthDoseLib.io"} & set(sys.modules), "they would slow down every start of Slicer"
    for name in names:
        host.show(loaded[name])
    ui = host.show(loaded["SynthDose"]).ui
    ui.sampleButton.click()
    assert ui.statusLabel.text.startswith("A synthetic patient is loaded"), ui.statusLabel.text
    assert ui.runButton.enabled
print(len(names))
"""

CHECK = """
from SynthDoseLib.cli import main
status = main(["check"])
print("dose engine" if "SynthDoseLib.transport" in sys.modules else "light", status)
"""


def inFreshSlicer(code: str) -> str:
    """Run code where only those packages are that Slicer brings; return the last line of its output."""
    brought = {"numpy", "scipy", "simpleitk", "pydicom"}
    files = sorted((REPOSITORY / "SynthDose" / "Resources").glob("requirements*.txt"))
    wanted = {line.partition(">=")[0].strip().lower() for file in files for line in file.read_text().splitlines()}
    missing = sorted(wanted - brought | {"torch", "radiomics", "openjpeg", "libjpeg", "llvmlite"})
    assert {"psutil", "tomlkit", "numba", "monai", "highdicom"} <= set(missing)
    command = [sys.executable, "-c", WITHOUT + code, str(HERE), str(REPOSITORY / "SynthDose"), ",".join(missing)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def test_a_slicer_without_further_packages_starts_opens_every_panel_and_has_its_sample():
    """Of what we need, Slicer brings numpy, scipy, SimpleITK and pydicom; the rest comes when a calculation is started."""
    assert inFreshSlicer(FRESH) == "5"


def test_the_check_of_the_setup_runs_before_anything_is_installed():
    """It is what says which packages are missing; the versions it prints here are those of the test environment."""
    assert inFreshSlicer(CHECK) == "light 0"
    from SynthDoseLib.pipeline.run_folder import CHECKPOINT, UNFINISHED
    from SynthDoseLib.transport import part_name

    assert CHECKPOINT[-2:] == (UNFINISHED, part_name(UNFINISHED))


@pytest.fixture
def launcher(tmp_path) -> Path:
    path = tmp_path / "bin" / LAUNCHER
    path.parent.mkdir()
    path.write_text(LAUNCHER_SCRIPT.format(python=sys.executable), encoding="utf-8")
    path.chmod(0o755)
    return path


def test_slicer_is_never_started_in_place_of_its_python(launcher, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/opt/Slicer/bin/SlicerApp-real")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SynthDoseError, match="PythonSlicer"):
        pythonExecutable()
    if os.name != "nt":
        monkeypatch.setenv("PATH", str(launcher.parent))
        assert pythonExecutable() == str(launcher)


def alive(pid: int) -> bool:
    import psutil

    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.skipif(os.name == "nt", reason="the launcher is played by a script with a first line that names its interpreter")
@pytest.mark.parametrize("end", ["cancel", "cancel stubborn", "close"])
def test_the_interpreter_behind_slicers_launcher_ends_with_the_run(launcher, tmp_path, end):
    note = tmp_path / "pid.txt"
    mode = "stubborn" if end.endswith("stubborn") else "willing"
    job = BackgroundRun([str(launcher), "-c", WORKER, str(note), mode], tmp_path / "log.txt")
    begin = time.monotonic()
    while not (note.exists() and note.read_text()) and time.monotonic() - begin < 10:
        time.sleep(0.02)
    worker = int(note.read_text())
    assert worker != job._process.pid
    begin = time.monotonic()
    if end == "close":
        job.close()
    else:
        job.cancel()
        while job.poll().running:
            time.sleep(0.02)
        job.close()
    while alive(worker) and time.monotonic() - begin < 1.0:
        time.sleep(0.02)
    assert not alive(worker)
    assert time.monotonic() - begin < 1.0


def test_results_are_loaded_without_a_main_window(host, scene, monkeypatch, tmp_path):
    """With --no-main-window Slicer has no layout manager."""
    import slicer

    modules = {name: host.loadModule(REPOSITORY / "SynthDose" / f"{name}.py") for name in ("SynthDosePhantom", "SynthDose")}
    monkeypatch.setattr(host, "hasMainWindow", False)
    assert slicer.app.layoutManager() is None
    logic = modules["SynthDosePhantom"].logic()
    parameters = logic.getParameterNode()
    (tmp_path / "people").mkdir()
    writePhantomFolder(tmp_path / "people" / "person")
    logic.task, logic._folder = "person", tmp_path / "people"
    logic.loadResults(parameters)
    assert parameters.phantom is not None
    logic.showCurve(parameters)
    assert parameters.curveChart is not None
    logic.showTableInView(parameters.qualityTable)
    case = modules["SynthDose"].logic()
    case.showChart(case.getParameterNode())


def test_what_a_scene_of_another_version_says_gives_way_to_defaults(host, scene, tmp_path):
    import slicer

    module = host.loadModule(REPOSITORY / "SynthDose" / "SynthDosePhantom.py")
    node = module.logic().getParameterNode().parameterNode
    node.SetDisableModifiedEvent(1)  # as while a scene is imported
    for name, value in (("materials", "BY_MAGIC"), ("sex", "other"), ("age", "young"), ("weightKg", "-5"), ("personSeed", "7")):
        node.SetParameter(name, value)
    node.SetDisableModifiedEvent(0)
    parameters = module.logic().getParameterNode()
    tissues = module.pythonModule.Tissues
    assert (parameters.materials, parameters.sex, parameters.age, parameters.weightKg) == (tissues.BY_HU, "female", 35.0, 60.3)
    assert parameters.personSeed == 7  # what is known stays
    node.SetParameter("sex", "other")
    assert host.show(module).ui.sexBox.currentText == "female"
    module.discard()
    assert slicer.mrmlScene.GetSingletonNode("SynthDosePhantom", "vtkMRMLScriptedModuleNode") is node


def test_a_script_sees_the_nodes_of_a_scene_that_was_loaded_after_it_got_the_parameters(host, scene, tmp_path):
    """Slicer's wrapper keeps values until the node says that it was modified, which an import does not."""
    import numpy as np
    import slicer

    logic = host.loadModule(REPOSITORY / "SynthDose" / "SynthDosePhantom.py").logic()
    parameters = logic.getParameterNode()
    parameters.image = slicer.util.addVolumeFromArray(np.zeros((3, 3, 3), np.int16), name="CT")
    parameters.age = 7.0
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    scene.Clear()
    assert (parameters.image, parameters.age) == (None, 35.0)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    again = logic.getParameterNode()
    assert (again.image, again.age) == (slicer.util.getNode("CT"), 7.0)


def test_widgets_are_told_apart_by_their_own_class_only():
    """In PythonQt a QPushButton is no instance of QWidget (MeVisLab/pythonqt issue 358): isinstance knows no base classes."""
    made = {
        entry.get("class")
        for path in (REPOSITORY / "SynthDose" / "Resources" / "UI").glob("*.ui")
        for entry in ElementTree.parse(path).getroot().iter("widget")
    }
    asked = set()
    for path in (*(REPOSITORY / "SynthDose").glob("*.py"), *(REPOSITORY / "SynthDoseLib" / "mrml").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
                asked |= set(re.findall(r"\b(?:qt|ctk|slicer)\.(q?[A-Zq]\w+|ctk\w+)", ast.unparse(node.args[1])))
    assert asked >= {"QLineEdit", "QTextEdit"}
    assert {name for name in asked if not name.startswith("vtk")} <= made


@pytest.mark.parametrize(("module", "words"), [("SynthDose", PLAN_WORDS), ("SynthDoseMonteCarlo", CASE_WORDS)])
def test_messages_name_the_fields_that_the_panel_has(module, words):
    root = ElementTree.parse(REPOSITORY / "SynthDose" / "Resources" / "UI" / f"{module}.ui").getroot()
    texts = {(entry[0].text or "") for entry in root.iter("property") if entry.get("name") == "text"}
    labels = {re.sub(r"&(.)", r"\1", text).removesuffix(":") for text in texts}
    assert set(words.values()) <= labels


def test_a_refused_value_is_named_as_the_panel_names_it(host, scene):
    module = host.loadModule(REPOSITORY / "SynthDose" / "SynthDose.py")
    widget = host.show(module)

    def refuse() -> None:
        raise ValueError("[dose] voxel_mm is 0.1: too small. See [output] title.")

    widget.attempt(refuse, "test")
    assert widget.ui.statusLabel.text == "'Dose voxels' is 0.1: too small. See [output] title."
    module.discard()
