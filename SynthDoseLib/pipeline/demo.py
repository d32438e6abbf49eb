"""The main job on a patient made on the spot: DICOM in, organs by the shipped network, dose, report."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ..core import Progress, silent
from ..io import read_labels, write_dicom_series
from ..phantom import SyntheticPatient, synthetic_patient
from ..segmentation.overlap import dice_scores
from .plan import (
    ActivityPlan,
    DosePlan,
    ImagePlan,
    KineticsPlan,
    OutputPlan,
    RunPlan,
    SegmentationPlan,
    TherapyPlan,
    write_plan,
)
from .run import RunResult, run_in_folder
from .run_folder import claimed, open_folder
from .stations import report_stage

BUNDLE = "synthetic_torso_ct"
JUDGED = ("lungs", "liver", "kidneys")
HISTORIES = 15_000_000  # for single voxels; organ means of 1 % need forty times fewer


def run_demo(
    out: str | os.PathLike[str],
    *,
    seed: int = 1,
    sex: str | None = None,
    threads: int = 0,
    overwrite: bool = False,
    progress: Progress = silent,
) -> str:
    """Make a synthetic patient, write CT and SPECT as DICOM, and run the whole chain on them.

    Parameters
    ----------
    out : path-like
        Run folder; the patient's images go to its ``input`` folder.
    seed : int
        Which patient.
    sex : str, optional
        "female" or "male"; drawn from the seed if not given.
    threads : int
        0 for all.
    overwrite : bool
        Replace an earlier run.
    progress : callable

    Returns
    -------
    str
        Organ doses, and how well the network found the organs, for people.
    """
    with claimed(out, overwrite=overwrite, progress=progress) as (folder, told):
        report_stage(told, "patient", 0.0)
        patient = synthetic_patient(seed, sex=sex)
        result = _run(folder, patient, threads, told)
    found = read_labels(folder / "labels.seg.nrrd", reference=patient.ct.grid)
    scores = dice_scores(found, patient.organ_labels, JUDGED)
    judged = ", ".join(f"{name} {score:.3f}" for name, score in scores.items())
    return f"{result.summary()}\n\nDice of the network's organs against the truth of this synthetic patient: {judged}"


def _run(folder: Path, patient: SyntheticPatient, threads: int, progress: Progress) -> RunResult:
    open_folder(folder, patient.ct.grid.size)
    shutil.rmtree(folder / "input", ignore_errors=True)
    plan = demo_plan(patient, folder / "input", threads)
    write_plan(plan, folder / "plan.toml")
    write_dicom_series(folder / "input" / "ct", patient.ct)
    write_dicom_series(folder / "input" / "spect", patient.spect)
    report_stage(progress, "patient", 1.0)
    return run_in_folder(plan, folder, progress=progress)


def demo_plan(patient: SyntheticPatient, images: Path, threads: int) -> RunPlan:
    """Plan of the demo: the network's organs, one SPECT, effective half-lives of the synthetic patient."""
    half_lives = {
        organ: patient.activity[member].effective_half_life_h
        for organ, member in (("kidneys", "kidney_left"), ("liver", "liver"), ("spleen", "spleen"))
    }
    rest = patient.activity["rest_of_body"].effective_half_life_h
    return RunPlan(
        image=ImagePlan(images / "ct"),
        segmentation=SegmentationPlan(bundle=BUNDLE),
        therapy=TherapyPlan(patient.nuclide, patient.administered_MBq, patient.administered_at),
        activity=(ActivityPlan(images / "spect"),),
        kinetics=KineticsPlan(rest, half_lives),
        dose=DosePlan(histories=HISTORIES, organs=("kidneys", "liver", "spleen"), threads=threads),
        output=OutputPlan(title="Synthetic patient: Lu-177-DOTATATE", deidentify=False),  # is nobody
    )
