"""Many patients with one plan."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from ..core import Progress, SynthDoseError, sha256_of, silent
from ..io.folder import write_csv
from ..io.sole_use import SoleUse, sole_use
from .fingerprints import Fingerprints
from .plan import RunPlan, plan_hash, read_plan
from .run import run_patient
from .run_folder import FINISHED

ORGAN_DOSES = "organ_doses.csv"
TIMES = ("patient", "stage", "seconds")
HEADER = ("patient", "state", "message", "organ", "volume_ml", "mass_g", "mean_dose_Gy", "sigma_Gy")


def run_batch(folder: Path, plan: Path, out: Path, *, progress: Progress = silent) -> int:
    """Run `plan` on every folder in `folder`; those finished in `out` with the same plan and data are left as they are.

    Parameters
    ----------
    folder : Path
        One folder per patient; the plan's relative paths refer to each.
    plan : Path
        TOML plan.
    out : Path
        One run folder per patient, ``batch.csv`` with a row per patient and organ, and ``batch_times.csv`` with the seconds
        of every stage.

    Returns
    -------
    int
        Number of patients that failed.

    Raises
    ------
    SynthDoseError
        If there is no patient, the plan itself is not valid, or another process works in `out`.
    """
    if not folder.is_dir():
        raise SynthDoseError(f"{folder} is not a folder. Give the folder that holds one folder per patient.")
    patients = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith((".", "__MACOSX")))
    if not patients:
        raise SynthDoseError(f"{folder} holds no folders. Put each patient's files into a folder of its own there.")
    read_plan(plan, patients[0])
    with sole_use(out, progress) as use:
        return _run_all(patients, plan, out, use, progress)


def _run_all(patients: list[Path], plan: Path, out: Path, use: SoleUse, progress: Progress) -> int:
    rows: list[tuple[object, ...]] = []
    times: list[tuple[object, ...]] = []
    failed = 0
    for patient in patients:
        use.require()
        target = out / patient.name
        try:
            own = read_plan(plan, patient)
            if not _is_finished(target, own):
                run_patient(own, target, resume=True, progress=progress)
            rows += [(patient.name, "finished", "", *line) for line in _organ_lines(target)]
            times += [(patient.name, stage, seconds) for stage, seconds in _seconds(target).items()]
        except SynthDoseError as error:
            failed += 1
            rows.append((patient.name, "failed", str(error), "", "", "", "", ""))
        except Exception as error:  # one patient must not stop the others; the message is kept in the table
            failed += 1
            rows.append((patient.name, "failed", f"{type(error).__name__}: {error}", "", "", "", "", ""))
        write_csv(out / "batch.csv", HEADER, rows)
        write_csv(out / "batch_times.csv", TIMES, times)
    return failed


def _is_finished(target: Path, plan: RunPlan) -> bool:
    """Whether the folder holds a finished run of just this plan, of the files it names as they are now, and its own table."""
    try:
        record = json.loads((target / FINISHED).read_text(encoding="utf-8"))
        if sha256_of(target / ORGAN_DOSES) != record["outputs"][ORGAN_DOSES] or not isinstance(record["seconds"], dict):
            return False
        if record["plan_sha256"] != plan_hash(plan):
            return False
        return bool(record["plan_with_files_sha256"] == Fingerprints().of(plan))
    except (OSError, ValueError, KeyError, TypeError):  # not there, damaged, edited, or of another version: it is run again
        return False


def _seconds(folder: Path) -> dict[str, float]:
    """Wall time per stage of a finished run."""
    seconds: dict[str, float] = json.loads((folder / FINISHED).read_text(encoding="utf-8"))["seconds"]
    return seconds


def _organ_lines(folder: Path) -> list[tuple[str, ...]]:
    with open(folder / ORGAN_DOSES, newline="", encoding="utf-8") as stream:
        return [tuple(row[:5]) for row in list(csv.reader(stream))[1:]]
