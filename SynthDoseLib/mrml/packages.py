"""Python packages that a panel needs, asked for once where they are used: works before any of them is there.

Slicer's own installer does the work: `slicer.packaging` from 5.12 on, `slicer.util.pip_install` before, and for torch the
extension PyTorch, which knows the computer's graphics card. Packages come from the internet, or from a folder of wheels.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path

from ..core import MissingPackageError, SynthDoseError

TORCH = "torch>=2.4"
INTERNET = ""
"""Where packages come from when it is not a folder."""

DOWNLOAD_MB: Mapping[str, float] = {
    "numpy": 16, "scipy": 35, "numba": 64, "simpleitk": 53, "pydicom": 2.4, "highdicom": 1.1, "pylibjpeg": 0.1,
    "pylibjpeg-libjpeg": 3.4, "pylibjpeg-openjpeg": 2, "matplotlib": 20, "jinja2": 0.2, "tomlkit": 0.1, "psutil": 0.2,
    "monai": 1.7, "nibabel": 3.3, "safetensors": 0.5, "torch": 200,
}  # fmt: skip
"""Size of the wheels with those that they bring along, MB: CPython 3.12 on Linux, November 2026; torch for the processor."""

_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)\s*(?:>=\s*(?P<least>[0-9.]+))?")


@dataclass(frozen=True)
class Requirements:
    """What a task needs.

    Attributes
    ----------
    files : tuple of Path
        Requirements files, one package with its lowest version per line.
    needed : frozenset of str
        Names without which the task cannot be done at all; every one if empty.
    torch : bool
        Whether torch is needed as well.
    """

    files: tuple[Path, ...]
    needed: frozenset[str] = frozenset()
    torch: bool = False

    def missing(self) -> list[str]:
        """Return the requirements that are not installed, or are too old; torch first, as others bring their own.

        highdicom is left out where Slicer's own pydicom is older than 3 (before 5.12): it would replace that.
        """
        lines = [TORCH] if self.torch else []
        for file in self.files:
            lines += file.read_text(encoding="utf-8").splitlines()
        missing = [line.strip() for line in lines if _REQUIREMENT.match(line.strip()) and not _installed(line.strip())]
        old = _installed("pydicom") and not _installed("pydicom>=3.0")
        return [line for line in missing if not (old and _key(line) == "highdicom")]

    def blocking(self) -> list[str]:
        """Return those missing requirements without which the task cannot be done."""
        wanted = {_key(name) for name in self.needed}
        return [line for line in self.missing() if not wanted or _key(line) in wanted | {"torch"}]


class PackageInstaller:
    """Makes sure that the packages of a task are there; the user is asked once for all that are missing.

    Who says no is asked again only when a task cannot be done without.

    Parameters
    ----------
    ask : callable, optional
        Gets the question; returns `INTERNET`, the folder of wheels to take, or None for no.
    requester : str
        Who asks.
    """

    def __init__(self, ask: Callable[[str], str | None] | None = None, requester: str = "SynthDose") -> None:
        self._ask = ask or askWhere
        self._requester = requester
        self._declined: set[str] = set()

    def __call__(self, requirements: Requirements) -> bool:
        """Return whether the task can be done."""
        missing = requirements.missing()
        if missing and (requirements.blocking() or not set(missing) <= self._declined):
            source = self._ask(self.question(missing))
            if source is None:
                self._declined.update(missing)
            else:
                install(missing, requirements.files, source, self._requester)
        return not requirements.blocking()

    def question(self, missing: Sequence[str]) -> str:
        """What the user is asked."""
        from slicer.i18n import tr as _

        text = _(
            "{who} needs these Python packages, about {size} MB to download:\n\n{packages}\n\n"
            "They are installed into this Slicer only."
        ).format(who=self._requester, size=f"{downloadMB(missing):.0f}", packages=", ".join(missing))
        if any(_key(line) == "torch" for line in missing):
            text += " " + _("With an NVIDIA graphics card torch takes about 3 GB.")
        return str(text)


def downloadMB(requirements: Sequence[str]) -> float:
    """Return about how much installing requirements downloads, MB; 5 for each unknown one.

    Examples
    --------
    >>> downloadMB(["numpy>=2.0", "monai>=1.4"])
    17.7
    """
    return sum(DOWNLOAD_MB.get(_key(line), 5.0) for line in requirements)


def askWhere(question: str) -> str | None:
    """Ask in a dialog where packages may come from; without a main window the answer is no."""
    import qt
    import slicer.util
    from slicer.i18n import tr as _

    window = slicer.util.mainWindow()
    if window is None:
        return None
    internet, folder = _("Install from the internet"), _("Install from a folder of wheels...")
    box = qt.QMessageBox(window)
    box.windowTitle = _("Python packages")
    box.text = question
    box.addButton(internet, qt.QMessageBox.AcceptRole)
    box.addButton(folder, qt.QMessageBox.ActionRole)
    box.addButton(qt.QMessageBox.Cancel)
    box.exec_()
    chosen = box.clickedButton()
    text = chosen.text.replace("&", "") if chosen is not None else ""  # some desktops add letters of their own
    if text == internet:
        return INTERNET
    if text == folder:
        return str(qt.QFileDialog.getExistingDirectory(window, _("Folder with .whl files"))) or None
    return None


def install(missing: Sequence[str], files: Sequence[Path], source: str = INTERNET, requester: str = "SynthDose") -> None:
    """Install requirements into this Slicer, without further questions.

    Parameters
    ----------
    missing : sequence of str
        Requirements, see `Requirements.missing`.
    files : sequence of Path
        Requirements files that they come from.
    source : str
        `INTERNET`, or a folder of wheels: then nothing is looked for on the network.
    requester : str
        Shown while it works.

    Raises
    ------
    SynthDoseError
        If the folder has no wheels, or torch is to come from the internet without the extension that fetches it.
    """
    import slicer.util

    names = {_key(line) for line in missing}
    with _wheelsOnly(source):
        if "torch" in names:
            if source:
                slicer.util.pip_install([TORCH])
            else:
                _installTorch()
        names.discard("torch")
        if not names:
            return
        try:
            import slicer.packaging
        except ImportError:
            slicer.util.pip_install([line for line in missing if _key(line) in names])
        else:
            listed = [requirement for file in files for requirement in slicer.packaging.load_requirements(str(file))]
            wanted = [requirement for requirement in listed if _key(requirement.name) in names]
            slicer.packaging.pip_ensure(wanted, requester=requester, prompt_install=False)


def _installTorch() -> None:
    try:
        extension = import_module("PyTorchUtils")
    except ImportError:
        how = "the extension PyTorch of Slicer's Extensions Manager, and start Slicer again"
        raise MissingPackageError("torch", "A segmentation network", how) from None
    extension.PyTorchUtilsLogic().installTorch(askConfirmation=False, torchVersionRequirement=TORCH.removeprefix("torch"))


@contextlib.contextmanager
def _wheelsOnly(folder: str) -> Iterator[None]:
    """Let pip look into a folder, and nowhere else, meanwhile; "" changes nothing."""
    if not folder:
        yield
        return
    if not any(Path(folder).glob("*.whl")):
        raise SynthDoseError(
            f"The folder {folder} has no .whl files. Fill it on a computer with internet: pip download --dest FOLDER PACKAGES."
        )
    changed = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": Path(folder).resolve().as_uri()}  # a URI, as pip splits at spaces
    saved = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in saved.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _key(requirement: str) -> str:
    """Name of a requirement as package indices compare it."""
    found = _REQUIREMENT.match(requirement)
    return re.sub(r"[-_.]+", "-", found["name"] if found else requirement).lower()


def _installed(requirement: str) -> bool:
    found = _REQUIREMENT.match(requirement)
    assert found is not None
    try:
        version = metadata.version(found["name"])
    except metadata.PackageNotFoundError:
        # Slicer builds this one itself, and a second one beside it would not do
        return found["name"] == "SimpleITK" and importlib.util.find_spec("SimpleITK") is not None
    return found["least"] is None or _numbers(version) >= _numbers(found["least"])


def _numbers(version: str) -> tuple[int, ...]:
    """Leading numbers of a version without zeros at the end: 2.13.0+cpu is (2, 13)."""
    numbers = [int(part) for part in re.match(r"[0-9.]*", version)[0].split(".") if part]  # type: ignore[index]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
