"""Tests of nodes and panels: on slicer-core and PySide6, skipped where they are not installed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).resolve().parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))

# read when the first window is made: without a screen Qt and VTK draw into memory
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
if sys.platform.startswith("linux"):
    os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")

from surroundings import MISSING, REPOSITORY  # noqa: E402

collect_ignore_glob = ["test_[!r]*.py"] if MISSING else []  # test_requirements.py says why


def pytest_report_header() -> str | None:
    return f"Testing/Slicer is not collected, it needs {', '.join(MISSING)}" if MISSING else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in Path(item.path).parents:
            item.add_marker(pytest.mark.slicer)


@pytest.fixture(scope="session")
def host():
    """The harness, once per session."""
    from slicerhost import install

    return install()


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function):
    """Fail a test in which a VTK observer or a Qt slot raised; both swallow Python exceptions."""
    if HERE not in Path(pyfuncitem.path).parents:
        return (yield)
    from slicerhost import observerErrors

    with observerErrors():
        return (yield)


@pytest.fixture
def scene(host):
    """The harness's scene, emptied."""
    host.core.scene.Clear()
    return host.core.scene


@pytest.fixture
def module(host, scene, request):
    """The module of the extension that a test file names as MODULE; the guided case if it names none."""
    loaded = host.loadModule(REPOSITORY / "SynthDose" / f"{getattr(request.module, 'MODULE', 'SynthDose')}.py")
    yield loaded
    loaded.discard()


@pytest.fixture
def screenshots(tmp_path) -> Path:
    """Where pictures go: the folder named by SYNTHDOSE_SCREENSHOTS, otherwise a temporary one."""
    folder = Path(os.environ.get("SYNTHDOSE_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def obliqueGrid():
    """A right-handed grid turned about all three axes, with three different spacings and sizes."""
    from SynthDoseLib.core import VoxelGrid

    a, b, c = 0.3, -0.2, 0.5
    rx = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    ry = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    rz = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return VoxelGrid.from_spacing((7, 6, 5), (1.1, 1.7, 2.9), (12.5, -31.0, 7.25), rx @ ry @ rz)
