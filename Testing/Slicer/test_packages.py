"""Packages that a panel lacks: asked for once with their size, from Slicer's own installer or a folder of wheels."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from pathlib import Path

import pytest
from surroundings import REPOSITORY

from SynthDoseLib.core import MissingPackageError, SynthDoseError
from SynthDoseLib.mrml import packages
from SynthDoseLib.mrml.packages import INTERNET, PackageInstaller, Requirements, askWhere, install

FILE = REPOSITORY / "SynthDose" / "Resources" / "requirements.txt"
NETWORKS = FILE.with_name("requirements-segmentation.txt")


class Pip:
    """Stands for Slicer's installers: remembers what they were asked, and makes it installed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, installed: dict[str, str]) -> None:
        self.installed, self.calls = dict(installed), []
        self.environment: dict[str, str | None] = {}
        monkeypatch.setattr(packages.metadata, "version", self.version)
        import slicer

        monkeypatch.setattr(slicer.util, "pip_install", lambda lines: self.take("pip_install", lines), raising=False)

    def version(self, name: str) -> str:
        try:
            return self.installed[name.lower()]
        except KeyError:
            raise packages.metadata.PackageNotFoundError(name) from None

    def take(self, how: str, lines) -> None:
        self.calls.append((how, [str(line) for line in lines]))
        self.environment = {name: os.environ.get(name) for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS")}
        for line in lines:
            self.installed[str(line).split(">=")[0].lower()] = "999"


@pytest.fixture
def pip(host, monkeypatch):
    present = {line.split(">=")[0].lower(): "99" for line in FILE.read_text(encoding="utf-8").split()}
    return Pip(monkeypatch, {name: version for name, version in present.items() if name not in ("numba", "tomlkit")})


@pytest.fixture
def slicer512(monkeypatch, pip):
    """`slicer.packaging` as Slicer 5.12 has it, with the parameters of its functions."""
    import slicer

    def pip_ensure(
        requirements, constraints=None, skip_packages=None, prompt_install=True, prompt_restart=True, requester=None
    ):
        assert requester == "SynthDose"
        assert not prompt_install, "the user has been asked already"
        pip.take("pip_ensure", requirements)

    class Requirement(str):
        name = property(lambda self: self.split(">=")[0])

    def load_requirements(path):
        lines = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines()]
        return [Requirement(line) for line in lines if line and not line.startswith(("#", "-"))]

    module = types.ModuleType("slicer.packaging")
    module.pip_ensure, module.load_requirements = pip_ensure, load_requirements
    monkeypatch.setitem(sys.modules, "slicer.packaging", module)
    monkeypatch.setattr(slicer, "packaging", module, raising=False)
    return pip


@pytest.fixture
def pytorch(monkeypatch, pip):
    """The extension PyTorch."""

    class PyTorchUtilsLogic:
        def installTorch(self, askConfirmation=False, forceComputationBackend=None, torchVersionRequirement=None):
            assert not askConfirmation
            pip.take("installTorch", [f"torch{torchVersionRequirement}"])

    module = types.ModuleType("PyTorchUtils")
    module.PyTorchUtilsLogic = PyTorchUtilsLogic
    monkeypatch.setitem(sys.modules, "PyTorchUtils", module)


def questions(answer):
    asked: list[str] = []

    def ask(text: str):
        asked.append(text)
        return answer

    return asked, ask


def test_one_question_names_what_is_missing_and_its_size_and_slicer_installs_it(slicer512):
    asked, ask = questions(INTERNET)
    installer = PackageInstaller(ask)
    assert installer(Requirements((FILE,)))
    assert slicer512.calls == [("pip_ensure", ["numba>=0.61", "tomlkit>=0.13"])]
    (text,) = asked
    assert "numba>=0.61, tomlkit>=0.13" in text
    assert "about 64 MB" in text  # numba 3.9 and llvmlite 59.7 MB as wheels
    assert installer(Requirements((FILE,)))
    assert len(asked) == 1


def test_slicer_510_without_slicer_packaging_installs_them_too(pip, monkeypatch):
    monkeypatch.setitem(sys.modules, "slicer.packaging", None)
    assert PackageInstaller(questions(INTERNET)[1])(Requirements((FILE,)))
    assert pip.calls == [("pip_install", ["numba>=0.61", "tomlkit>=0.13"])]


def test_a_package_that_is_too_old_counts_as_missing(pip):
    pip.installed |= {"numba": "0.60.0", "tomlkit": "0.13"}
    assert Requirements((FILE,)).missing() == ["numba>=0.61"]
    pip.installed["numba"] = "0.61.0rc1"
    assert Requirements((FILE,)).missing() == []


def test_what_slicer_brings_itself_is_not_replaced(pip):
    pip.installed |= {"numba": "1", "tomlkit": "1"}
    del pip.installed["simpleitk"]  # there, but without metadata
    del pip.installed["highdicom"]
    assert Requirements((FILE,)).missing() == ["highdicom>=0.25"]
    pip.installed["pydicom"] = "2.4.4"  # of Slicer 5.10; highdicom 0.25 wants 3.0.1
    assert Requirements((FILE,)).missing() == []


def test_torch_comes_through_the_extension_pytorch_before_what_needs_it(slicer512, pytorch):
    asked, ask = questions(INTERNET)
    assert PackageInstaller(ask)(Requirements((FILE, NETWORKS), torch=True))
    assert [how for how, _ in slicer512.calls] == ["installTorch", "pip_ensure"]
    assert slicer512.calls[0][1] == ["torch>=2.4"]
    assert "torch" not in " ".join(slicer512.calls[1][1])
    assert len(asked) == 1
    assert "NVIDIA" in asked[0]


def test_without_the_extension_pytorch_it_is_said_where_to_get_it(slicer512, monkeypatch):
    monkeypatch.setitem(sys.modules, "PyTorchUtils", None)
    with pytest.raises(MissingPackageError, match="extension PyTorch of Slicer's Extensions Manager"):
        PackageInstaller(questions(INTERNET)[1])(Requirements((FILE, NETWORKS), torch=True))


def test_no_is_taken_for_an_answer_and_repeated_only_where_nothing_works_without(slicer512):
    asked, ask = questions(None)
    installer = PackageInstaller(ask)
    without = Requirements((FILE,), needed=frozenset({"numpy", "scipy", "SimpleITK"}))
    assert installer(without)  # numba is not needed for this
    assert installer(without)
    assert len(asked) == 1
    assert not installer(Requirements((FILE,), needed=frozenset({"numba"})))
    assert len(asked) == 2
    assert slicer512.calls == []


def test_a_folder_of_wheels_is_the_only_place_where_pip_looks(slicer512, tmp_path, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX", raising=False)
    before = os.environ.get("PIP_FIND_LINKS")
    folder = tmp_path / "wheels of mine"
    folder.mkdir()
    with pytest.raises(SynthDoseError, match=r"has no \.whl files"):
        PackageInstaller(questions(str(folder))[1])(Requirements((FILE,)))
    (folder / "numba-1.0-py3-none-any.whl").touch()
    assert PackageInstaller(questions(str(folder))[1])(Requirements((FILE, NETWORKS), torch=True))
    assert slicer512.calls[0] == ("pip_install", ["torch>=2.4"])  # the extension PyTorch always looks on the network
    assert slicer512.environment["PIP_NO_INDEX"] == "1"
    assert slicer512.environment["PIP_FIND_LINKS"].endswith("/wheels%20of%20mine")  # a space would part two places
    assert "PIP_NO_INDEX" not in os.environ
    assert os.environ.get("PIP_FIND_LINKS") == before


def test_pip_itself_installs_from_a_folder_with_a_space_in_its_name(host, monkeypatch, tmp_path):
    import zipfile

    import slicer

    folder, target = tmp_path / "wheels of mine", tmp_path / "target"
    folder.mkdir()
    with zipfile.ZipFile(folder / "synthdosetrial-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("synthdosetrial.py", "")
        info = "synthdosetrial-1.0.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: synthdosetrial\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")

    def pip_install(lines):
        command = [sys.executable, "-m", "pip", "install", "-q", "--target", str(target), *lines]
        subprocess.run(command, check=True, timeout=60)

    monkeypatch.setattr(slicer.util, "pip_install", pip_install)
    monkeypatch.setitem(sys.modules, "slicer.packaging", None)
    install(["synthdosetrial>=1.0"], [], str(folder))
    assert (target / "synthdosetrial.py").is_file()


@pytest.mark.parametrize(("button", "expected"), [("internet", INTERNET), ("wheels", "/wheels"), ("Cancel", None)])
def test_the_dialog_offers_internet_folder_and_no(host, monkeypatch, button, expected):
    import qt
    import slicer

    window = qt.QWidget()
    monkeypatch.setattr(slicer.util, "mainWindow", lambda: window, raising=False)
    monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", lambda *_: "/wheels")
    shown = []

    def press():
        box = host.app.activeModalWidget()
        shown.append(box.text)
        next(b for b in box.buttons() if button in b.text).click()

    qt.QTimer.singleShot(50, press)
    assert askWhere("May I?") == expected
    assert shown == ["May I?"]
    monkeypatch.setattr(slicer.util, "mainWindow", lambda: None)
    assert askWhere("May I?") is None  # nobody is there to be asked


BLOCKED = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named '{{name}}'", name=name)
sys.meta_path.insert(0, Missing())
from SynthDoseLib.cli import main
for arguments in {runs!r}:
    assert main(arguments) == 0, arguments
"""


def run_without(names: set[str], runs: list[list[str]]) -> None:
    """Run verbs of the command line in a process in which packages cannot be imported."""
    code = BLOCKED.format(names=names, runs=runs)
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["SynthDoseSegmentation", "SynthDosePhantom"])
def test_what_a_panel_does_not_need_may_be_missing(host, scene, name, tmp_path):
    """The verbs of the panels run where every package that the panel does not call needed cannot be imported."""
    from SynthDoseLib.io import write_segmentation, write_volume
    from SynthDoseLib.phantom import synthetic_patient

    module = host.loadModule(REPOSITORY / "SynthDose" / f"{name}.py")
    logic = module.logic()
    parameters = logic.getParameterNode()
    if name == "SynthDoseSegmentation":
        parameters.method = module.pythonModule.Method.TISSUES
    needed = logic.requirements(parameters).needed
    assert not logic.requirements(parameters).torch
    module.discard()
    imports = {"pylibjpeg-libjpeg": "libjpeg", "pylibjpeg-openjpeg": "openjpeg", "Jinja2": "jinja2"}
    lines = [line.split(">=")[0] for line in FILE.read_text(encoding="utf-8").split()]
    blocked = {imports.get(line, line) for line in lines if line not in needed}
    blocked |= {"torch", "monai", "nibabel", "safetensors", "radiomics"}
    assert {"numba", "highdicom"} <= blocked
    patient = synthetic_patient(1, spacing_mm=(8.0, 8.0, 8.0))
    write_volume(tmp_path / "ct.nrrd", patient.ct.values, patient.ct.grid, unit="HU")
    write_segmentation(tmp_path / "organs.seg.nrrd", patient.organ_labels)
    ct, organs, ctOptions = str(tmp_path / "ct.nrrd"), str(tmp_path / "organs.seg.nrrd"), ["--modality", "CT"]
    runs = {
        "SynthDoseSegmentation": [["segment", ct, *ctOptions, "--out", str(tmp_path / "tissues.seg.nrrd")]],
        "SynthDosePhantom": [["phantom", ct, organs, *ctOptions, "--out", str(tmp_path / "phantom")]],
    }
    run_without(blocked, runs[name])


def test_the_guided_case_asks_for_torch_only_where_a_bundle_finds_the_organs(host, scene):
    module = host.loadModule(REPOSITORY / "SynthDose" / "SynthDose.py")
    logic = module.logic()
    parameters = logic.getParameterNode()
    assert not logic.requirements(parameters).torch
    parameters.bundle = "synthetic_torso_ct"
    assert logic.requirements(parameters).torch
    assert [file.name for file in logic.requirements(parameters).files] == [FILE.name, NETWORKS.name]
    parameters.segmentation = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    assert not logic.requirements(parameters).torch
    module.discard()


def test_sizes_are_stated_for_every_requirement():
    lines = [*FILE.read_text(encoding="utf-8").split(), *NETWORKS.read_text(encoding="utf-8").split(), packages.TORCH]
    assert {packages._key(line) for line in lines} == set(packages.DOWNLOAD_MB)


def test_the_requirements_of_networks_are_those_of_the_library():
    import tomllib

    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [packages.TORCH, *NETWORKS.read_text(encoding="utf-8").split()]
    assert lines == project["optional-dependencies"]["segmentation"]
