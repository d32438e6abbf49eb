"""Where the tests of nodes and panels are, and what they miss on this computer."""

from __future__ import annotations

import importlib.util
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]

MISSING = [name for name in ("vtk", "PySide6") if importlib.util.find_spec(name) is None]
if not MISSING:
    import slicer

    if not hasattr(slicer, "vtkMRMLScene"):
        MISSING.append("slicer-core (another package called 'slicer' is installed)")
