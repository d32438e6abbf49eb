"""What single stages of a run calculate and write into the run folder; `run` puts them in order."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..core import DoseMap, Emission, ImageVolume, LabelMap, MissingPackageError, Progress, SynthDoseError, VoxelPhantom
from ..dosimetry import OrganBudget, OrganDoseRow, absolute_organ_doses, write_budget_csv
from ..io import write_dicom_seg, write_rtdose, write_rtstruct, write_segmentation, write_volume
from ..io.identity import Identity
from ..kinetics import TimeIntegratedActivity
from ..phantom import PatientFacts, PhantomQuality, assess_phantom, regrid_phantom
from ..physics import get_nuclide
from ..segmentation import SegmentedImage
from ..transport import RunSettings, SimulationResult, VolumeSource
from .activity import ActivityResult, course_options, tissue_of
from .beyond_image import BEYOND_CSV, BeyondImage
from .budget import BUDGET_CSV, organ_budgets
from .clinical import (
    ALL_CYCLES_CSV,
    ALL_CYCLES_NRRD,
    BED_CSV,
    CONSTRAINTS_CSV,
    METRICS_CSV,
    RBE_CSV,
    Clinical,
    assess,
)
from .deidentify import public
from .dose_rate import compare_routes, write_routes
from .engine_plan import ENGINES
from .engines import EngineRow, compare_engines, write_engine_comparison
from .plan import DosePlan, RunPlan
from .results_json import RESULTS_JSON, write_results
from .stations import dose_grid, groups_of, make_phantom, patient_facts
from .transporting import engine_options

INPUTS = ("ct.nrrd", "labels.seg.nrrd", "density.nrrd", "materials.nrrd", "tia_MBq_s.nrrd")
JUDGED = (
    "dose_Gy.nrrd", "sigma_Gy.nrrd", "organ_doses.csv", "dvh.csv", METRICS_CSV, CONSTRAINTS_CSV, BED_CSV, RBE_CSV,
    ALL_CYCLES_CSV, ALL_CYCLES_NRRD, BEYOND_CSV, BUDGET_CSV, RESULTS_JSON,
)  # fmt: skip
DICOM = tuple(f"dicom/{name}.dcm" for name in ("rtdose", "rtdose_all_cycles", "seg", "rtstruct"))
ENGINE_FILES = (
    "engines.csv", "engines_gamma.csv",
    *(name for engine in ENGINES for name in (f"dvh_{engine}.csv", f"difference_{engine}_Gy.nrrd", f"gamma_{engine}.nrrd")),
)  # fmt: skip
DOSE_RATE_CSV, RADIOMICS_CSV, SCENE_MRB, REPORT_HTML = "dose_rate_route.csv", "radiomics.csv", "scene.mrb", "report.html"


def judged_phantom(
    plan: RunPlan, ct: ImageVolume, labels: LabelMap, identity: Identity | None
) -> tuple[VoxelPhantom, PhantomQuality]:
    """Phantom in the voxels of the dose, and its quality as found in those of the image."""
    patient = make_phantom(plan.phantom, ct, labels)
    by_label = plan.phantom.materials == "labels"
    quality = assess_phantom(patient, None if by_label else ct, person=patient_facts(plan.phantom.patient, ct))
    if identity is not None:
        quality = dataclasses.replace(quality, person=PatientFacts())  # judged by them, but they are nobody's business
    return regrid_phantom(patient, dose_grid(plan.dose, ct.grid)), quality


def write_inputs(folder: Path, ct: ImageVolume, phantom: VoxelPhantom, tia: TimeIntegratedActivity) -> None:
    """Write `INPUTS`: what the dose was calculated from, all on its voxels."""
    write_volume(folder / "ct.nrrd", ct.values, ct.grid, unit="HU" if ct.modality in ("", "CT") else ct.unit)
    write_segmentation(folder / "labels.seg.nrrd", phantom.labels)
    write_volume(folder / "density.nrrd", phantom.density_g_cm3, phantom.grid, unit="g/cm3")
    write_volume(folder / "materials.nrrd", phantom.material_index, phantom.grid)
    write_volume(folder / "tia_MBq_s.nrrd", tia.tia_MBq_s, tia.grid, unit="MBq*s")


def judge(
    folder: Path,
    plan: RunPlan,
    labels: LabelMap,
    phantom: VoxelPhantom,
    found: ActivityResult,
    organs: SegmentedImage,
    simulated: SimulationResult,
    dose: DoseMap,
    emissions: Sequence[Emission],
    beyond: BeyondImage | None,
    frame: str,
    identity: Identity | None,
) -> Clinical:
    """Write `JUDGED`: absolute dose, organ doses with their budgets, histograms, limits; see `clinical.assess`."""
    tia = found.tia
    organ_doses = absolute_organ_doses(simulated.organs, tia.decays)
    wanted = [*plan.dose.organs, *(row.organ for row in plan.organ_activity), *plan.kinetics.effective_half_life_h]
    wanted += [organ for entry in plan.dosimetry.previous for organ in entry.organ_mean_Gy]
    groups = groups_of(phantom.labels, wanted)
    write_volume(folder / "dose_Gy.nrrd", dose.dose_Gy, dose.grid, unit="Gy")
    write_volume(folder / "sigma_Gy.nrrd", dose.sigma_Gy, dose.grid, unit="Gy")
    components = {part.component: absolute_organ_doses(part.organs, tia.decays) for part in simulated.components}
    courses = {curve.region: curve.integral for curve in found.course.curves} if found.course is not None else {}
    recovery = course_options(plan.kinetics, phantom).recovery if found.course is not None else None

    def budgets_of(rows: Sequence[OrganDoseRow], named: Mapping[str, Sequence[str]]) -> tuple[OrganBudget, ...]:
        return organ_budgets(plan, phantom, found, rows, named, emissions, recovery, organs.volumes)

    clinical = assess(
        plan.dosimetry, folder, phantom, plan.segmentation, labels, dose, tia, emissions, organ_doses, groups, components,
        courses, frame, budgets_of, beyond,
    )  # fmt: skip
    write_budget_csv(folder / BUDGET_CSV, clinical.budgets)
    write_results(folder / RESULTS_JSON, plan, *public((tia, clinical, clinical.budgets), identity))
    return clinical


def engines_side_by_side(
    folder: Path,
    phantom: VoxelPhantom,
    source: VolumeSource,
    emissions: Sequence[Emission],
    settings: RunSettings,
    engines: Sequence[str],
    tia: TimeIntegratedActivity,
    plan: DosePlan,
    known: Mapping[str, SimulationResult],
    progress: Progress,
) -> tuple[tuple[str, ...], tuple[EngineRow, ...]]:
    """Write `ENGINE_FILES`; return notes and rows of the comparison."""
    comparison = compare_engines(
        phantom, source, emissions, settings, engines=engines, decays=tia.decays, options=engine_options(plan), known=known,
        progress=progress,
    )  # fmt: skip
    write_engine_comparison(folder, comparison)
    return comparison.notes, comparison.rows


def both_routes(
    folder: Path,
    plan: RunPlan,
    phantom: VoxelPhantom,
    found: ActivityResult,
    emissions: Sequence[Emission],
    settings: RunSettings,
    progress: Progress,
) -> tuple[str, ...]:
    """Write `DOSE_RATE_CSV`, doses by fitted dose rates; return notes."""
    rows = compare_routes(
        phantom, [point.image for point in found.points], [point.hours for point in found.points], emissions, settings,
        physical_half_life_s=get_nuclide(plan.therapy.nuclide).half_life_s, engine=plan.dose.engine,
        options=engine_options(plan.dose), progress=progress,
        course=dataclasses.replace(course_options(plan.kinetics, phantom), recovery=None),
        tissue=tissue_of(plan.kinetics, phantom),
    )  # fmt: skip
    return write_routes(folder / DOSE_RATE_CSV, rows)


def gas_notes(phantom: VoxelPhantom, dose: DoseMap) -> tuple[str, ...]:
    """What is done with the dose of gas in the body, if there is any."""
    gas = phantom.gas()
    if not gas.any():
        return ()
    return (
        f"{float(gas.sum()) * phantom.grid.voxel_volume_ml:.3g} ml of the body are gas. dose_Gy.nrrd keeps what was scored "
        f"there (up to {float(dose.dose_Gy[gas].max()):.3g} Gy: energy per mass of gas, the dose to no tissue); RTDOSE holds "
        "0, and histograms, doses of voxels and pictures leave it out.",
    )


def write_dicom(
    folder: Path,
    plan: RunPlan,
    ct: ImageVolume,
    labels: LabelMap,
    dose: DoseMap,
    all_cycles: DoseMap | None,
    gas: NDArray[np.bool_],
) -> list[str]:
    """Write dose, organs and contours as DICOM; return why something is missing, if it is."""
    folder.mkdir(exist_ok=True)
    deidentify = plan.output.deidentify
    try:
        write_rtdose(folder / "rtdose.dcm", dose, ct, deidentify=deidentify, gas=gas)
        if all_cycles is not None:
            said = "SynthDose absorbed dose of all cycles"
            write_rtdose(folder / "rtdose_all_cycles.dcm", all_cycles, ct, deidentify=deidentify, description=said, gas=gas)
        write_dicom_seg(folder / "seg.dcm", labels, ct, deidentify=deidentify)
        write_rtstruct(folder / "rtstruct.dcm", labels, ct, deidentify=deidentify)
    except SynthDoseError as error:
        return [f"DICOM export is incomplete: {error}"]
    return []


def write_radiomics(folder: Path, ct: ImageVolume, labels: LabelMap, progress: Progress) -> str:
    """Write `RADIOMICS_CSV`; return what was extracted and how, or why not."""
    from ..radiomics import extract_features, write_features_csv

    try:
        features = extract_features(ct, labels, progress=progress)
    except MissingPackageError as error:
        return f"Radiomics was left out: {error}"
    write_features_csv(folder / RADIOMICS_CSV, features)
    return " ".join(features.notes)


def write_scene(folder: Path) -> list[str]:
    """Write `SCENE_MRB` in a process of its own; return why it is missing, if it is."""
    command = [sys.executable, "-m", "SynthDoseLib.mrml.scene", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode == 0:
        return []
    lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
    return [f"The Slicer scene is missing: {lines[-1] if lines else f'exit status {done.returncode}'}"]
