"""Many patients to checked phantoms with one command, and the index of the cohort."""

from __future__ import annotations

import csv
import dataclasses
import json
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .. import __version__
from ..core import Progress, ProgressReport, SynthDoseError, silent
from ..io.folder import write_csv
from .phantom_folder import PhantomRequest, write_phantom_folder
from .quality_report import PHANTOM_JSON
from .run_folder import hash_files, write_json

COHORT_JSON, COHORT_CSV, COHORT_MASSES = "cohort.json", "cohort.csv", "cohort_masses.csv"
HEADER = (
    "patient", "state", "verdict", "fails", "warnings", "organs", "mass_kg", "seconds", "peak_MB", "image_sha256",
    "segmentation_sha256", "synthdose", "finished_at", "folder", "message",
)  # fmt: skip


@dataclass(frozen=True)
class Cohort:
    """What `make_cohort` made.

    Attributes
    ----------
    folder : Path
    rows : tuple of dict
        One per patient, the columns of ``cohort.csv``.
    kept : int
        Patients that were there already.
    """

    folder: Path
    rows: tuple[dict[str, Any], ...]
    kept: int

    @property
    def failed(self) -> int:
        """Patients without a phantom."""
        return sum(row["state"] == "failed" for row in self.rows)

    @property
    def verdicts(self) -> Counter[str]:
        """How many phantoms have which verdict."""
        return Counter(row["verdict"] for row in self.rows if row["state"] == "finished")

    def summary(self) -> str:
        """One line per patient and a last one, for people."""
        lines = [f"{row['patient']:<28}{row['state']:<10}{row['verdict'] or row['message']}" for row in self.rows]
        verdicts = ", ".join(f"{count} {name}" for name, count in sorted(self.verdicts.items())) or "none"
        lines.append(f"{self.folder / COHORT_CSV}: phantoms {verdicts}; {self.failed} failed, {self.kept} finished before.")
        return "\n".join(lines)


def make_cohort(
    folder: Path,
    request: PhantomRequest,
    out: Path,
    *,
    image_name: str,
    segmentation_name: str = "",
    progress: Progress = silent,
) -> Cohort:
    """Make a phantom of every patient in a folder; a failed one does not stop the others, a finished one is not made again.

    Parameters
    ----------
    folder : Path
        One folder per patient.
    request : PhantomRequest
        What is the same for all; its paths are replaced.
    out : Path
        Receives one folder per patient as `write_phantom_folder` makes it, and the index: ``cohort.csv`` (a row per patient
        with verdict, hashes of the inputs and version), ``cohort_masses.csv`` (a row per organ) and ``cohort.json`` (both,
        with settings), rewritten after every patient.
    image_name, segmentation_name : str
        Name or pattern (``*.nii.gz``) of the files, or of the folders, in each patient's folder.
    progress : callable

    Returns
    -------
    Cohort
        A patient counts as finished if inputs (by content), settings and version are those of the phantom that is there.

    Raises
    ------
    SynthDoseError
        If there are no patients, or `out` holds something else.
    """
    if not folder.is_dir():
        raise SynthDoseError(f"{folder} is not a folder. Give the folder that holds one folder per patient.")
    patients = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not patients:
        raise SynthDoseError(f"{folder} holds no folders. Put each patient's files into a folder of its own there.")
    if out.is_dir() and any(out.iterdir()) and not (out / COHORT_JSON).is_file():
        raise SynthDoseError(f"{out} holds other files. Choose an empty or new folder, so that nothing of yours is lost.")
    out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    kept = 0
    _write_index(out, request, rows)
    for number, patient in enumerate(patients):
        progress(ProgressReport("cohort", number / len(patients), None, patient.name))
        row = dict.fromkeys(HEADER, "")
        row |= {"patient": patient.name, "folder": patient.name, "synthdose": __version__}
        target = out / patient.name
        start = time.perf_counter()
        try:
            own, hashes = _request_of(patient, request, image_name, segmentation_name)
            row |= hashes
            key = {"hashes": hashes, "settings": _settings(request)}
            if _is_finished(target, key):
                kept += 1
                row |= _finished_row(target)
            else:
                write_phantom_folder(own, target, overwrite=True, progress=progress)
                _mark(target, key, time.perf_counter() - start)
                row |= _finished_row(target)
        except SynthDoseError as error:
            row |= {"state": "failed", "message": str(error)}
        except Exception as error:  # one patient must not stop the others; the message is kept in the table
            row |= {"state": "failed", "message": f"{type(error).__name__}: {error}"}
        rows.append(row)
        _write_index(out, request, rows)
    progress(ProgressReport("cohort", 1.0, None, ""))
    return Cohort(out, tuple(rows), kept)


def _request_of(
    patient: Path, request: PhantomRequest, image_name: str, segmentation_name: str
) -> tuple[PhantomRequest, dict[str, str]]:
    image = _only(patient, image_name)
    hashes = {"image_sha256": _content_hash(image)}
    own = dataclasses.replace(request, image=dataclasses.replace(request.image, path=image))
    if request.segmentation is not None and segmentation_name:
        segmentation = _only(patient, segmentation_name)
        hashes["segmentation_sha256"] = _content_hash(segmentation)
        own = dataclasses.replace(own, segmentation=dataclasses.replace(request.segmentation, path=segmentation))
    return own, hashes


def _only(patient: Path, name: str) -> Path:
    found = sorted(patient.glob(name))
    if len(found) != 1:
        listed = ", ".join(entry.name for entry in found[:5]) or "nothing"
        raise SynthDoseError(f"'{name}' has to mean one file or folder of {patient.name}; found {listed}.")
    return found[0]


def _content_hash(path: Path) -> str:
    files = [path] if path.is_file() else sorted(entry for entry in path.rglob("*") if entry.is_file())
    record = hash_files(tuple(str(file) for file in files))
    return str(record.get("sha256", record.get("sha256_of_sorted_sha256", "")))


def _settings(request: PhantomRequest) -> dict[str, Any]:
    """What decides the phantoms besides their inputs, as plain values."""
    segmentation = request.segmentation
    values = {
        "phantom": dataclasses.asdict(request.phantom),
        "modality": request.image.modality,
        "hu_offset": request.image.hu_offset,
        "labels": request.labels,
        "unlisted": "" if segmentation is None else segmentation.unlisted,
        "voxel_mm": request.voxel_mm,
        "exports": list(request.exports),
        "synthdose": __version__,
    }
    plain: dict[str, Any] = json.loads(json.dumps(values, default=str))
    return plain


def _is_finished(target: Path, key: dict[str, Any]) -> bool:
    try:
        record = json.loads((target / PHANTOM_JSON).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(record.get("cohort", {}).get("key") == key)


def _mark(target: Path, key: dict[str, Any], seconds: float) -> None:
    record = json.loads((target / PHANTOM_JSON).read_text(encoding="utf-8"))
    record["cohort"] = {"key": key, "seconds": round(seconds, 3), "peak_MB": _peak_MB()}
    write_json(target / PHANTOM_JSON, record)


def _peak_MB() -> int | None:
    """Highest memory of this process so far; None where the system does not tell."""
    try:
        import resource
    except ImportError:
        return None
    import sys

    unit = 1e6 if sys.platform == "darwin" else 1e3
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit)


def _finished_row(target: Path) -> dict[str, Any]:
    record = json.loads((target / PHANTOM_JSON).read_text(encoding="utf-8"))
    severities = Counter(finding["severity"] for finding in record["findings"])
    return {
        "state": "finished",
        "verdict": record["verdict"],
        "fails": severities["fail"],
        "warnings": severities["warning"],
        "organs": sum(organ["voxels"] > 0 for organ in record["organs"]),
        "mass_kg": round(sum(organ["mass_g"] for organ in record["organs"]) / 1000, 3),
        "seconds": record["cohort"]["seconds"],
        "peak_MB": record["cohort"]["peak_MB"],
        "finished_at": record["made"]["at"],
    }


def _write_index(out: Path, request: PhantomRequest, rows: list[dict[str, Any]]) -> None:
    write_csv(out / COHORT_CSV, HEADER, [[row[column] for column in HEADER] for row in rows])
    masses: list[tuple[str, ...]] = []
    for row in rows:
        if row["state"] == "finished":
            with open(out / row["folder"] / "masses.csv", newline="", encoding="utf-8") as stream:
                masses += [(row["patient"], *line) for line in list(csv.reader(stream))[1:]]
    write_csv(out / COHORT_MASSES, ("patient", "organ", "volume_ml", "mass_g", "density_g_cm3"), masses)
    record = {
        "schema": 1,
        "written_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "settings": _settings(request),
        "patients": rows,
        "statement": "Research software, not for clinical use.",
    }
    write_json(out / COHORT_JSON, record)
