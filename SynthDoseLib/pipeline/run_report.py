"""From the values of a run to the contents of its report."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from ..core import DoseMap, ImageVolume, VoxelPhantom, bare_name
from ..dosimetry import OrganBudget
from ..phantom import PhantomQuality
from ..transport import SimulationResult
from .activity import ActivityResult
from .activity_tables import curve_rows
from .clinical import Clinical
from .engines import EngineRow
from .plan import RunPlan
from .quality_report import outline_pictures
from .report import EnergyBalance, ReportContents, ReportInput
from .report_kinetics import time_pictures

ENGINE_NAMES = {"monte-carlo": "Monte Carlo", "kernel": "Convolution with voxel S-kernels", "local": "Local deposition"}
FILES = {
    "plan.toml": "the plan as resolved",
    "ct.nrrd": "CT (HU), or the image that stands for it, on the grid of the dose",
    "labels.seg.nrrd": "organs, for Slicer",
    "segmentation_volumes.csv, segmentation_entropy.nrrd": "volume intervals per organ and entropy per voxel of the network",
    "density.nrrd, materials.nrrd": "the phantom, g/cm³ and material index",
    "phantom.json": "quality verdict of the phantom, organ by organ",
    "tia_MBq_s.nrrd": "time-integrated activity per voxel, MBq s",
    "kinetics.csv, time_activity.csv": "time courses per organ, their integrals and uncertainties",
    "registration.csv": "how time points were registered, and how well",
    "activity_fields.csv": "every field of the activity images, its value and where it comes from",
    "dose_Gy.nrrd, sigma_Gy.nrrd": "absorbed dose and one standard error, Gy",
    "organ_doses.csv, dvh.csv, dvh_metrics.csv": "organ doses, dose-volume histograms and their indices",
    "uncertainty_budget.csv": "what calibration, recovery, volume, fit, registration and Monte Carlo contribute per organ",
    "results.json": "the numbers of these tables for programs",
    "constraints.csv, bed.csv": "limits with pass or fail, biologically effective doses",
    "beyond_image.csv": "activity outside the image, red marrow by blood samples, lungs by their shunt",
    "rbe_doses.csv": "RBE-weighted organ doses, Gy(RBE)",
    "cumulative_dose_Gy.nrrd": "dose of all cycles, Gy",
    "dose_rate_route.csv": "organ doses by fitted dose rates beside those by fitted activities",
    "engines.csv, engines_gamma.csv": "dose engines side by side: organ doses, gamma index, time",
    "radiomics.csv": "radiomics features per organ",
    "scene.mrb": "everything in one Slicer scene",
    "dicom/": "RTDOSE, RTSTRUCT and SEG, when the CT was DICOM",
}


def report_contents(
    plan: RunPlan,
    ct: ImageVolume,
    phantom: VoxelPhantom,
    found: ActivityResult,
    dose: DoseMap,
    clinical: Clinical,
    simulated: SimulationResult,
    record: Mapping[str, Any],
    notes: Mapping[str, tuple[str, ...]],
    warnings: tuple[str, ...],
    radiomics: str,
    folder: Path,
    engines: tuple[EngineRow, ...] = (),
    budgets: tuple[OrganBudget, ...] = (),
    quality: PhantomQuality | None = None,
    taken_over: str = "",
) -> ReportContents:
    """Arrange what a run found for `write_report`; `record` is what ``provenance.json`` will hold."""
    therapy = plan.therapy
    return ReportContents(
        title=plan.output.title or "Internal dosimetry",
        patient="" if plan.output.deidentify else str(ct.metadata.get("patient_id", "")),
        created_at=datetime.now(),
        nuclide=therapy.nuclide,
        administered_MBq=therapy.administered_MBq,
        administered_at=therapy.administered_at,
        engine=ENGINE_NAMES[plan.dose.engine],
        device=f"{simulated.device}, {simulated.threads} thread{'' if simulated.threads == 1 else 's'}"
        if simulated.histories
        else "",
        histories=simulated.histories or None,
        seed=None if plan.dose.engine == "local" else simulated.seed,
        target_sigma=plan.dose.relative_sigma if simulated.histories else None,
        target_organs=plan.dose.organs if simulated.histories else (),
        facts={"Taken over from an earlier run": taken_over} if taken_over else {},
        ct=ct,
        dose=dose,
        labels=phantom.labels,
        gas=phantom.gas(),
        organ_doses=clinical.rows,
        histograms=clinical.histograms,
        constraints=clinical.constraints,
        bed=clinical.bed,
        engines=engines,
        budgets=budgets,
        activity=found.tia,
        courses=curve_rows(found),
        time_activity=time_pictures(found, plan.dose.organs),
        quality=quality,
        outlines=() if quality is None else outline_pictures(phantom, quality, ct, close_views=0),
        segmentation_source=_segmentation_source(plan),
        radiomics=radiomics,
        inputs=_inputs(record["inputs"]),
        warnings=(*warnings, *quality_warnings(quality)),
        notes={stage: texts for stage, texts in notes.items() if texts},
        versions=record["versions"],
        computer=record["computer"],
        stage_seconds=record["seconds"],
        energy=EnergyBalance(simulated.energy_emitted_MeV, simulated.energy_deposited_MeV, simulated.energy_escaped_MeV),
        files={name: text for name, text in FILES.items() if (folder / name.split(",")[0]).exists()},
    )


def quality_warnings(quality: PhantomQuality | None) -> tuple[str, ...]:
    """What a reader has to know about the phantom before believing its doses: failures, and how many warnings there are."""
    if quality is None:
        return ()
    failures = tuple(f"Phantom: {f.sentence()}" for f in quality.findings if f.severity == "fail")
    count = sum(f.severity == "warning" for f in quality.findings)
    return (*failures, *((f"The phantom has {count} warnings, see Segmentation.",) if count else ()))


def _segmentation_source(plan: RunPlan) -> str:
    segmentation = plan.segmentation
    if segmentation.path is not None:
        return "Organs were read from a file." if plan.output.deidentify else f"Organs were read from {segmentation.path.name}."
    if segmentation.bundle:
        names = [bare_name(name) for name in (segmentation.bundle, *segmentation.ensemble)]
        if len(names) > 1:
            return f"Organs were found by the mean of the MONAI bundles {', '.join(names)}."
        return f"Organs were found by the MONAI bundle {names[0]}."
    return "Tissues were told apart by their CT numbers."


def _inputs(inputs: Mapping[str, Mapping[str, Any]]) -> tuple[ReportInput, ...]:
    found = []
    for role, entry in inputs.items():
        if "files" in entry:
            found.append(ReportInput(role, entry["name"], entry["sha256_of_sorted_sha256"], f"{entry['files']} files"))
        else:
            found.append(ReportInput(role, entry["name"], entry["sha256"]))
    return tuple(found)
