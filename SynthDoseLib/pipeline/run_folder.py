"""The run folder: checked before work begins, written file by file, never half."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Any

from ..core import SynthDoseError, atomic_path
from ..io.folder import prepare_output_folder

FINISHED = "provenance.json"
"""Written last: its presence says that the run is complete."""

BYTES_PER_VOXEL = 24  # CT, density, materials, labels, activity, dose, sigma, compressed, and a checkpoint


def claim_folder(path: str | os.PathLike[str], *, resume: bool = False, overwrite: bool = False) -> Path:
    """Check that results can be written to `path`, without creating it yet.

    Raises
    ------
    SynthDoseError
        If it is a file, holds other things than an earlier run, holds a finished run (and neither `resume` nor
        `overwrite` is set), or may not be written to.
    """
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise SynthDoseError(f"{folder} is a file; --out has to name a folder.")
    if folder.is_dir() and any(folder.iterdir()):
        ours = (folder / "plan.toml").exists() or (folder / FINISHED).exists()
        if not ours:
            raise SynthDoseError(
                f"{folder} holds other files. Choose an empty or new folder, so that nothing of yours is lost."
            )
        if not (resume or overwrite):
            raise SynthDoseError(
                f"{folder} holds an earlier run. Choose another folder, --resume to go on with it, or --overwrite."
            )
    existing = folder
    while not existing.exists():
        existing = existing.parent
    probe = existing / f".synthdose-{uuid.uuid4().hex[:8]}"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        raise SynthDoseError(f"Cannot write to {existing}: {error.strerror}. Choose another folder for --out.") from error
    return folder


def open_folder(folder: Path, voxels: int) -> None:
    """Create a claimed folder, if there is room for the results of a phantom of `voxels` voxels.

    Raises
    ------
    SynthDoseError
        If the disk is too full or the folder cannot be made.
    """
    prepare_output_folder(folder, overwrite=True, needed_MB=voxels * BYTES_PER_VOXEL / 1e6)
    (folder / FINISHED).unlink(missing_ok=True)


def write_json(path: Path, values: Any) -> None:
    """Write JSON in one piece."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2, default=str) + "\n", encoding="utf-8")
