"""What works on this computer, and what to do about the rest."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata

from ..core import SynthDoseError, resource_path


@dataclass(frozen=True)
class Finding:
    """One line of the check.

    Attributes
    ----------
    subject : str
    state : str
        "ok", "missing" or "note".
    detail : str
        What was found, and what it is for.
    advice : str
        What to do; "" if nothing.
    required : bool
        Whether the main job fails without it.
    """

    subject: str
    state: str
    detail: str
    advice: str = ""
    required: bool = False


# distribution, import name, what it is for, required, how to get it
_PACKAGES = (
    ("numpy", "numpy", "arrays", True, "pip install numpy"),
    ("scipy", "scipy", "resampling", True, "pip install scipy"),
    ("numba", "numba", "dose engine", True, "pip install numba"),
    ("SimpleITK", "SimpleITK", "images", True, "pip install SimpleITK"),
    ("pydicom", "pydicom", "DICOM", True, "pip install pydicom"),
    ("highdicom", "highdicom", "DICOM segmentations", True, "pip install highdicom"),
    ("tomlkit", "tomlkit", "plan files", True, "pip install tomlkit"),
    ("psutil", "psutil", "free memory, stopping a run", True, "pip install psutil"),
    ("matplotlib", "matplotlib", "pictures of the report", True, "pip install matplotlib"),
    ("Jinja2", "jinja2", "report", True, "pip install Jinja2"),
    ("torch", "torch", "segmentation by networks", False, "pip install torch==2.13.0 (in Slicer: the PyTorch extension)"),
    ("monai", "monai", "segmentation by networks", False, "pip install monai"),
    ("nibabel", "nibabel", "image axes in MONAI", False, "pip install nibabel"),
    (
        "pyradiomics",
        "radiomics",
        "radiomics features",
        False,
        "python -m SynthDoseLib.radiomics.install (needs a C compiler and the headers of Python)",
    ),
    ("slicer-core", "slicer", "scene.mrb without the Slicer application", False, "pip install slicer-core==5.12.4.0"),
    ("numba-cuda", "numba_cuda", "dose engine on NVIDIA GPUs", False, 'pip install "synthdose[cuda]"'),
)


def check_setup() -> list[Finding]:
    """Look at Python, packages, shipped files, memory, disk, GPU and Slicer; nothing heavy is imported."""
    findings = [_python()]
    findings += [_package(*row) for row in _PACKAGES if row[4] or importlib.util.find_spec(row[1])]
    findings += [_shipped_files(), _memory(), _disk(), _gpu(), _slicer()]
    return findings


def describe(findings: Sequence[Finding]) -> str:
    """Format the findings as a table, with what to do below each gap."""
    signs = {"ok": "ok     ", "missing": "MISSING", "note": "note   "}
    lines = []
    for finding in findings:
        lines.append(f"{signs[finding.state]}  {finding.subject:<14} {finding.detail}")
        if finding.advice:
            lines.append(f"{'':<24} -> {finding.advice}")
    gaps = [f.subject for f in findings if f.state == "missing" and f.required]
    lines.append("")
    lines.append(f"Not ready: {', '.join(gaps)} missing." if gaps else "Ready: image to report works on this computer.")
    return "\n".join(lines)


def _python() -> Finding:
    detail = f"{platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} processors"
    return Finding("Python", "ok", detail)


def _package(distribution: str, module: str, purpose: str, required: bool, install: str) -> Finding:
    try:
        version = metadata.version(distribution)
    except metadata.PackageNotFoundError:
        version = "bundled" if importlib.util.find_spec(module) else ""
    if version:
        return Finding(distribution, "ok", f"{version} ({purpose})")
    without = "needed" if required else "everything else works without it"
    return Finding(distribution, "missing", f"not installed: {purpose}; {without}", install, required)


def _shipped_files() -> Finding:
    try:
        resource_path("physics")
        resource_path("segmentation")
        resource_path("report")
    except SynthDoseError as error:
        return Finding("SynthDose files", "missing", str(error), "install SynthDose again", required=True)
    return Finding("SynthDose files", "ok", "physics tables, segmentation bundle and report template are there")


def _memory() -> Finding:
    try:
        import psutil
    except ModuleNotFoundError:
        return Finding("Memory", "note", "not known without psutil")
    memory = psutil.virtual_memory()
    detail = f"{memory.available / 2**30:.1f} GB free of {memory.total / 2**30:.1f} GB"
    if memory.available < 4 * 2**30:
        return Finding("Memory", "note", detail, "close other programs, or use larger voxels ([dose] voxel_mm)")
    return Finding("Memory", "ok", detail)


def _disk() -> Finding:
    free = shutil.disk_usage(tempfile.gettempdir()).free
    detail = f"{free / 2**30:.1f} GB free for temporary files"
    return Finding("Disk", "note", detail, "free some space") if free < 2 * 2**30 else Finding("Disk", "ok", detail)


def _gpu() -> Finding:
    if shutil.which("nvidia-smi") is None:
        return Finding("GPU", "note", "none found; segmentation and dose run on the processor")
    return Finding("GPU", "note", "NVIDIA driver found; networks use it through torch, the dose engine through numba-cuda")


def _slicer() -> Finding:
    program = shutil.which("Slicer")
    if "slicer" in sys.modules and hasattr(sys.modules["slicer"], "app"):
        return Finding("3D Slicer", "ok", "running inside it")
    if program:
        return Finding("3D Slicer", "ok", "found on the path")
    return Finding("3D Slicer", "note", "not on the path; scenes are written without it, and open in Slicer 5.10 or newer")
