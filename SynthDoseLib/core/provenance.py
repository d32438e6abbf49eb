"""Which program on which computer made a result."""

from __future__ import annotations

import platform
from importlib import metadata

from .. import __version__

PACKAGES = (
    "numpy", "scipy", "numba", "llvmlite", "SimpleITK", "pydicom", "highdicom", "torch", "monai", "pyradiomics",
    "matplotlib", "vtk", "slicer-core",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Versions of SynthDose, Python and the packages that take part in a calculation; absent ones are left out."""
    found = {"SynthDose": __version__, "Python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def computer() -> dict[str, str]:
    """Operating system and processor, without the name of the host or of the user."""
    return {"system": platform.system(), "release": platform.release(), "machine": platform.machine()}
