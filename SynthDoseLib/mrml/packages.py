"""Python packages that a panel needs, asked for where they are used: works before any of them is there."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path


def missingPackages(requirements: Path) -> list[str]:
    """Return the lines of a requirements file whose package is not installed."""
    missing = []
    for line in requirements.read_text(encoding="utf-8").splitlines():
        name = re.match(r"[A-Za-z0-9._-]+", line.strip())
        if name is None:
            continue
        try:
            metadata.version(name.group())
        except metadata.PackageNotFoundError:
            missing.append(line.strip())
    return missing


def ensurePackages(requirements: Path, requester: str = "SynthDose") -> bool:
    """Install what is missing, after asking the user; return whether everything is there.

    Slicer 5.12 and newer do this themselves; before that the user is asked here.
    """
    import slicer.util

    try:
        import slicer.packaging
    except ImportError:
        missing = missingPackages(requirements)
        question = f"{requester} needs these Python packages:\n\n{', '.join(missing)}\n\nInstall them now?"
        if missing and not slicer.util.confirmOkCancelDisplay(question, requester):
            return False
        if missing:
            slicer.util.pip_install(missing)
    else:
        slicer.packaging.pip_ensure(slicer.packaging.load_requirements(str(requirements)), requester=requester)
    return not missingPackages(requirements)
