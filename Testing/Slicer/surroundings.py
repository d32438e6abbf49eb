"""Where the tests of nodes and panels are, and what they miss on this computer."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]

MISSING = [name for name in ("vtk", "PySide6") if importlib.util.find_spec(name) is None]
if not MISSING:
    import slicer

    if not hasattr(slicer, "vtkMRMLScene"):
        MISSING.append("slicer-core (another package called 'slicer' is installed)")


def finished(widget: Any) -> Callable[[], bool]:
    """Whether the calculation of a panel has ended and its results are in, to wait for."""
    return lambda: not widget.logic.running and not widget.timer.active
