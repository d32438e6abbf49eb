"""The run folder: checked before work begins, written file by file, never half."""

from __future__ import annotations

import hashlib
import json
import math
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..core import Progress, SynthDoseError, atomic_path, sha256_of, silent
from ..io.folder import prepare_output_folder
from ..io.sole_use import holds_anything, sole_use
from .engine_plan import ENGINES

FINISHED = "provenance.json"
"""Written last: its presence says that the run is complete."""

RESOLVED = "# Plan of this run as SynthDose resolved it, with all defaults."
"""First line of the ``plan.toml`` of a run folder."""

UNFINISHED = ".transport-state.npz"
"""State of the transport while it goes on."""

CHECKPOINT = (".transport.json", ".transport.npz", UNFINISHED, f"{UNFINISHED}.part")
"""The transported dose, kept until the run is finished; the last name is `transport.part_name` of the one before it, which is
not asked here: the dose engine takes a second to import, and plans are read without it."""

RESULTS = (
    FINISHED, *CHECKPOINT, "plan.toml", "results.json", "phantom.json",
    "ct.nrrd", "labels.seg.nrrd", "density.nrrd", "materials.nrrd", "tia_MBq_s.nrrd",
    "dose_Gy.nrrd", "sigma_Gy.nrrd", "organ_doses.csv", "dvh.csv", "dvh_metrics.csv", "constraints.csv", "bed.csv",
    "rbe_doses.csv", "cumulative_dose_Gy.nrrd", "cumulative_organ_doses.csv", "radiomics.csv", "report.html", "scene.mrb",
    "segmentation_entropy.nrrd", "segmentation_volumes.csv", "beyond_image.csv",
    "time_activity.csv", "kinetics.csv", "registration.csv", "uncertainty_budget.csv", "activity_fields.csv",
    "dicom/rtdose.dcm", "dicom/rtdose_all_cycles.dcm", "dicom/seg.dcm", "dicom/rtstruct.dcm",
    "engines.csv", "engines_gamma.csv", "dose_rate_route.csv",
    *(name for engine in ENGINES for name in (f"dvh_{engine}.csv", f"difference_{engine}_Gy.nrrd", f"gamma_{engine}.nrrd")),
)  # fmt: skip

BYTES_PER_VOXEL = 24  # CT, density, materials, labels, activity, dose, sigma, compressed, and a checkpoint


@contextmanager
def claimed(
    path: str | os.PathLike[str], *, resume: bool = False, overwrite: bool = False, progress: Progress = silent
) -> Iterator[tuple[Path, Progress]]:
    """Have a run folder for this process alone as long as the block runs; see `io.sole_use`.

    Yields
    ------
    folder : Path
        Made if need be, and removed again if nothing is written to it.
    progress : callable
        The one given; it also ends the run should another process have taken the folder.

    Raises
    ------
    SynthDoseError
        If it is a file, is in use by another process, holds other things than an earlier run, holds a finished run (and neither
        `resume` nor `overwrite` is set), or may not be written to.
    """
    folder = Path(path)
    require_folder(folder)
    require_writable(folder)
    with sole_use(folder, progress) as use:
        if holds_anything(folder):
            if not _is_a_run(folder):
                raise SynthDoseError(
                    f"{folder} holds other files. Choose an empty or new folder, so that nothing of yours is lost."
                )
            if not (resume or overwrite):
                raise SynthDoseError(
                    f"{folder} holds an earlier run. Choose another folder, --resume to go on with it, or --overwrite."
                )
        yield folder, use.watched(progress)


def require_folder(path: Path) -> None:
    """Raise `SynthDoseError` if there is something else than a folder at `path`, which need not exist."""
    if path.exists() and not path.is_dir():
        raise SynthDoseError(f"{path} is a file; --out has to name a folder.")


def require_writable(folder: Path) -> None:
    """Raise `SynthDoseError` unless `folder`, which need not exist, can be written to; it is not created."""
    existing = folder
    while not existing.exists():
        existing = existing.parent
    probe = existing / f".synthdose-{uuid.uuid4().hex[:8]}"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        reason = "it is a file" if existing.is_file() else error.strerror
        raise SynthDoseError(f"Cannot write to {existing}: {reason}. Choose another folder for --out.") from error


def _is_a_run(folder: Path) -> bool:
    """Whether the plan in the folder is one that a run wrote there, not one of the user's."""
    try:
        with open(folder / "plan.toml", encoding="utf-8") as stream:
            return stream.readline().rstrip() == RESOLVED
    except (OSError, UnicodeDecodeError):
        return False


def open_folder(folder: Path, voxels: int) -> None:
    """Create a claimed folder, if there is room for the results of a phantom of `voxels` voxels.

    Raises
    ------
    SynthDoseError
        If the disk is too full or the folder cannot be made.
    """
    prepare_output_folder(folder, overwrite=True, needed_MB=voxels * BYTES_PER_VOXEL / 1e6)
    (folder / FINISHED).unlink(missing_ok=True)


def clear_results(folder: Path, *, keep_checkpoint: bool = False) -> None:
    """Remove what an earlier run left, and nothing else, so that no old table stands beside new ones."""
    for name in RESULTS:
        if keep_checkpoint and name in CHECKPOINT:
            continue
        (folder / name).unlink(missing_ok=True)
    if (folder / "dicom").is_dir() and not any((folder / "dicom").iterdir()):
        (folder / "dicom").rmdir()


def hash_outputs(folder: Path) -> dict[str, str]:
    """SHA-256 of every result in a run folder by its name, so that what was edited or damaged later is known."""
    names = [name for name in RESULTS if name not in (FINISHED, *CHECKPOINT)]
    return {name: sha256_of(folder / name) for name in names if (folder / name).is_file()}


def write_json(path: Path, values: Any) -> None:
    """Write JSON in one piece; what is no number is null, because JSON has neither NaN nor infinity."""
    with atomic_path(path) as temporary:
        text = json.dumps(_finite(values), indent=2, default=str, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def _finite(values: Any) -> Any:
    if isinstance(values, np.generic):
        return _finite(values.item())
    if isinstance(values, float):
        return values if math.isfinite(values) else None
    if isinstance(values, Mapping):
        return {key: _finite(value) for key, value in values.items()}
    return [_finite(value) for value in values] if isinstance(values, list | tuple) else values


def hash_files(files: tuple[str, ...], *, named: bool = True) -> dict[str, str | int]:
    """Hash of a file, or of the sorted hashes of several (a DICOM series), with its bare name if that may be told."""
    hashes = sorted(sha256_of(file) for file in files)
    if len(files) == 1:
        return {"name": Path(files[0]).name if named else "", "sha256": hashes[0]}
    joined = hashlib.sha256("".join(hashes).encode()).hexdigest()
    return {"name": Path(files[0]).parent.name if named else "", "files": len(files), "sha256_of_sorted_sha256": joined}
