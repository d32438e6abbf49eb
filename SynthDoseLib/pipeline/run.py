"""One patient, start to report."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..core import (
    DoseMap,
    Emission,
    ImageVolume,
    LabelMap,
    MissingPackageError,
    OrganDose,
    Progress,
    SynthDoseError,
    VoxelPhantom,
    atomic_path,
    computer,
    silent,
    versions,
)
from ..dosimetry import (
    OrganBudget,
    OrganDoseRow,
    absolute_dose,
    absolute_organ_doses,
    noise_notes,
    write_budget_csv,
)
from ..io import write_dicom_seg, write_rtdose, write_rtstruct, write_segmentation, write_volume
from ..io.identity import Identity
from ..kinetics import TimeIntegratedActivity
from ..phantom import PatientFacts, assess_phantom, regrid_phantom
from ..physics import get_nuclide
from ..transport import CheckpointError, RunSettings, SimulationResult, VolumeSource
from .activity import ActivityResult, course_options, time_integrate
from .activity_tables import kinetics_record, write_activity_tables
from .beyond_image import beyond_image
from .budget import BUDGET_CSV, budget_notes, organ_budgets
from .clinical import assess, check_clinical_inputs
from .deidentify import identity_in, public, public_plan, without_names
from .dose_rate import compare_routes, write_routes
from .engine_plan import EngineOptions
from .engines import EngineRow, compare_engines, engine_dose, write_engine_comparison
from .nuclides import emissions_of
from .plan import SCHEMA, DosePlan, RunPlan, plan_hash, write_plan
from .quality_report import PHANTOM_JSON, phantom_record, write_phantom_json
from .report import write_report
from .results_json import RESULTS_JSON, write_results
from .run_folder import CHECKPOINT, FINISHED, UNFINISHED, claim_folder, clear_results, hash_files, open_folder, write_json
from .run_report import report_contents
from .segmenting import ENTROPY, VOLUMES, write_uncertainty
from .stage_store import StageStore
from .stations import dose_grid, find_organs, groups_of, make_phantom, members, on_grid, patient_facts, read_ct, report_stage

TAKEN_OVER = "The transported dose is that of an earlier run with the same phantom, activity and settings."


@dataclass(frozen=True, eq=False)
class RunResult:
    """What `run_patient` found.

    Attributes
    ----------
    folder : Path
    dose : DoseMap
        Gy, absolute.
    organs : tuple of OrganDoseRow
    notes : tuple of str
        Assumptions and warnings of all stages.
    seconds : mapping of str to float
        Wall time per stage.
    """

    folder: Path
    dose: DoseMap
    organs: tuple[OrganDoseRow, ...]
    notes: tuple[str, ...]
    seconds: Mapping[str, float]

    def summary(self) -> str:
        """Organ doses as a table, for people."""
        lines = [f"{'organ':<28}{'mass / g':>10}{'dose / Gy':>12}{'total ±':>11}{'Monte Carlo ±':>15}"]
        for row in self.organs:
            if row.mass_g > 0:
                lines.append(
                    f"{row.organ:<28}{row.mass_g:>10.1f}{row.mean_dose_Gy:>12.4g}{row.total_sigma_Gy:>11.2g}{row.sigma_Gy:>15.2g}"
                )
        total = sum(self.seconds.values())
        stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in self.seconds.items())
        lines += ["", f"{total:.1f} s ({stages})", f"Report: {self.folder / 'report.html'}"]
        lines.append("Research software, not for clinical use.")
        return "\n".join(lines)


@dataclass
class _Clock:
    """Wall time per stage, and the caller told of each."""

    progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        report_stage(self.progress, name, 0.0)
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
        report_stage(self.progress, name, 1.0)


def run_patient(
    plan: RunPlan,
    out: str | os.PathLike[str],
    *,
    resume: bool = False,
    overwrite: bool = False,
    reuse: str | os.PathLike[str] | None = None,
    progress: Progress = silent,
) -> RunResult:
    """Take one patient from images to report and fill the run folder.

    Parameters
    ----------
    plan : RunPlan
    out : path-like
        Run folder. It is made only when images, phantom and activity have been found good.
    resume : bool
        Take over the transported dose of an interrupted run of the same inputs.
    overwrite : bool
        Replace the files of an earlier run.
    reuse : path-like, optional
        Folder, made if need be, from which organs of a bundle and transported doses are taken if nothing that decides them has
        changed, and in which new ones are kept for the next run.
    progress : callable

    Returns
    -------
    RunResult

    Raises
    ------
    SynthDoseError
        For bad input, before anything is written.
    """
    folder = claim_folder(out, resume=resume, overwrite=overwrite)
    clock = _Clock(progress)
    store = StageStore(Path(reuse)) if reuse is not None else None
    with clock.stage("read"):
        ct = read_ct(plan.image, any_modality=plan.phantom.materials == "labels")
        identity = identity_in(plan)
    with clock.stage("segment"):
        find = partial(find_organs, plan.segmentation, ct, device=plan.dose.device, progress=progress)
        organs = store.organs(plan.segmentation, ct, find) if store is not None else find()
        source_plan = plan
        plan, labels = without_names(plan, organs.labels, identity)
    with clock.stage("phantom"):
        patient = make_phantom(plan.phantom, ct, labels)
        quality = assess_phantom(
            patient, None if plan.phantom.materials == "labels" else ct, person=patient_facts(plan.phantom.patient, ct)
        )
        if identity is not None:
            quality = dataclasses.replace(quality, person=PatientFacts())  # judged by them, but they are nobody's business
        phantom = regrid_phantom(patient, dose_grid(plan.dose, ct.grid))
        dose_ct = on_grid(ct, phantom.grid)
    with clock.stage("activity"):
        found = time_integrate(plan, phantom, dose_ct, progress)
        tia = found.tia
        settings = _settings(plan, phantom)
        frame = str(ct.metadata.get("frame_of_reference_uid") or "")
        check_clinical_inputs(plan.dosimetry, phantom.labels, frame)
        groups_of(phantom.labels, list(plan.dosimetry.volume_relative_sigma))  # refuses unknown organs before the transport
        therapy = plan.therapy
        emissions, progeny_notes = emissions_of(
            therapy.nuclide, therapy.progeny, progeny_max_half_life_d=therapy.progeny_max_half_life_d
        )
        if plan.dosimetry.rbe_alpha is not None and any(e.particle == "alpha" for e in emissions):
            if plan.dose.engine != "monte-carlo":
                raise SynthDoseError(f'[dosimetry] rbe_alpha needs [dose] engine = "monte-carlo"; found "{plan.dose.engine}".')
            settings = dataclasses.replace(settings, components=True)
        beyond = beyond_image(plan, found, emissions)
        if plan.dose.dose_rate_route and len(found.points) < 2:
            raise SynthDoseError(f"[dose] dose_rate_route needs two or more [[activity]] images; found {len(found.points)}.")
    open_folder(folder, phantom.grid.size)
    clear_results(folder, keep_checkpoint=resume)
    with clock.stage("results"):
        _write_inputs(folder, public_plan(plan, identity), dose_ct, phantom, tia)
        write_phantom_json(folder / PHANTOM_JSON, public(phantom_record(phantom, quality), identity))
        write_activity_tables(folder, _public_fields(found, identity))
        write_uncertainty(organs, folder / ENTROPY, folder / VOLUMES)
    with clock.stage("transport"):
        key = _transport_key(plan, phantom, tia)
        # a finished transport is kept without its components
        kept = store.entry("transport", key) if store is not None and not settings.components else None
        simulated = _load_checkpoint(folder, key, phantom) if resume and not settings.components else None
        if simulated is None and kept is not None and (simulated := _load_checkpoint(kept, key, phantom)) is not None:
            simulated = dataclasses.replace(simulated, notes=(*simulated.notes, TAKEN_OVER))
        source = VolumeSource(tia.grid, tia.tia_MBq_s)
        if simulated is None:
            simulated = _transport(folder / UNFINISHED, plan.dose, phantom, source, emissions, settings, progress)
            _save_checkpoint(folder, key, simulated)
            (folder / UNFINISHED).unlink(missing_ok=True)
            if kept is not None:
                _save_checkpoint(kept, key, simulated)
    with clock.stage("results"):
        dose = absolute_dose(simulated.dose, tia.decays)
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
        warnings = list(noise_notes(dose, phantom))
        if plan.output.dicom and ct.metadata.get("series_instance_uid") and ct.source_files:
            warnings += _write_dicom(folder / "dicom", plan, ct, labels, dose, clinical.all_cycles)
    compared: tuple[str, ...] = ()
    engine_rows: tuple[EngineRow, ...] = ()
    if plan.dose.compare:
        with clock.stage("engines"):
            comparison = compare_engines(
                phantom, source, emissions, dataclasses.replace(settings, components=False),
                engines=(plan.dose.engine, *plan.dose.compare), decays=tia.decays, options=_options(plan.dose),
                known={plan.dose.engine: simulated}, progress=progress,
            )  # fmt: skip
            write_engine_comparison(folder, comparison)
            compared, engine_rows = comparison.notes, comparison.rows
    if plan.dose.dose_rate_route:
        with clock.stage("dose rate"):
            routes = compare_routes(
                phantom, [point.image for point in found.points], [point.hours for point in found.points], emissions,
                dataclasses.replace(settings, components=False), physical_half_life_s=get_nuclide(therapy.nuclide).half_life_s,
                engine=plan.dose.engine, options=_options(plan.dose), progress=progress,
                course=dataclasses.replace(course_options(plan.kinetics, phantom), recovery=None),
            )  # fmt: skip
            compared += write_routes(folder / "dose_rate_route.csv", routes)
    radiomics = ""
    if plan.output.radiomics:
        with clock.stage("radiomics"):
            radiomics = _write_radiomics(folder, ct, labels, progress)
    if plan.output.scene:
        with clock.stage("scene"):
            warnings += write_scene(folder)
    notes = {
        "images": (*ct.notes, *found.notes),
        "organs": labels.notes,
        "phantom": tuple(note for note in phantom.notes if note not in labels.notes),
        "activity": tia.notes,
        "transport": (*progeny_notes, *simulated.notes),
        "engines": compared,
        "dosimetry": (*clinical.notes, *budget_notes(clinical.budgets)),
    }
    notes, warnings = public(notes, identity), public(warnings, identity)
    with clock.stage("report"):
        record = _provenance(plan, ct, found, simulated, clock.seconds, [*warnings, *sum(notes.values(), ())], identity)
        record |= clinical.record() | {"plan_sha256": plan_hash(source_plan)}
        contents = report_contents(
            public_plan(plan, identity),
            dose_ct,
            phantom,
            found,
            dose,
            clinical,
            simulated,
            record,
            notes,
            tuple(warnings),
            radiomics,
            folder,
            engine_rows,
            clinical.budgets,
            quality,
        )
        write_report(folder / "report.html", dataclasses.replace(public(contents, identity), files=contents.files))
    record["seconds"] = clock.seconds
    write_json(folder / FINISHED, record)
    for name in CHECKPOINT:
        (folder / name).unlink(missing_ok=True)
    return RunResult(folder, dose, clinical.rows, tuple(record["notes"]), clock.seconds)


def _settings(plan: RunPlan, phantom: VoxelPhantom) -> RunSettings:
    organs: list[str] = []
    for name in plan.dose.organs:
        organs += [member for member in members(name, phantom.labels) if member not in organs]
    dose = plan.dose
    limited = dose.histories or dose.relative_sigma or dose.max_seconds
    return RunSettings(
        histories=dose.histories,
        relative_sigma=dose.relative_sigma if limited else EngineOptions.kernel_sigma,
        organs=tuple(organs),
        max_seconds=plan.dose.max_seconds,
        seed=plan.dose.seed,
        device=plan.dose.device,
        threads=plan.dose.threads,
        estimator=plan.dose.estimator,
    )


def _options(dose: DosePlan) -> EngineOptions:
    return EngineOptions(dose.kernel_tissues, dose.density_scaling, dose.local_photons)


def _write_inputs(folder: Path, plan: RunPlan, ct: ImageVolume, phantom: VoxelPhantom, tia: TimeIntegratedActivity) -> None:
    with atomic_path(folder / "plan.toml") as temporary:
        write_plan(plan, temporary, as_named=plan.output.deidentify)
    write_volume(folder / "ct.nrrd", ct.values, ct.grid, unit="HU" if ct.modality in ("", "CT") else ct.unit)
    write_segmentation(folder / "labels.seg.nrrd", phantom.labels)
    write_volume(folder / "density.nrrd", phantom.density_g_cm3, phantom.grid, unit="g/cm3")
    write_volume(folder / "materials.nrrd", phantom.material_index, phantom.grid)
    write_volume(folder / "tia_MBq_s.nrrd", tia.tia_MBq_s, tia.grid, unit="MBq*s")


def _write_dicom(
    folder: Path, plan: RunPlan, ct: ImageVolume, labels: LabelMap, dose: DoseMap, all_cycles: DoseMap | None
) -> list[str]:
    folder.mkdir(exist_ok=True)
    deidentify = plan.output.deidentify
    try:
        write_rtdose(folder / "rtdose.dcm", dose, ct, deidentify=deidentify)
        if all_cycles is not None:
            said = "SynthDose absorbed dose of all cycles"
            write_rtdose(folder / "rtdose_all_cycles.dcm", all_cycles, ct, deidentify=deidentify, description=said)
        write_dicom_seg(folder / "seg.dcm", labels, ct, deidentify=deidentify)
        write_rtstruct(folder / "rtstruct.dcm", labels, ct, deidentify=deidentify)
    except SynthDoseError as error:
        return [f"DICOM export is incomplete: {error}"]
    return []


def _write_radiomics(folder: Path, ct: ImageVolume, labels: LabelMap, progress: Progress) -> str:
    """Write ``radiomics.csv``; return what was extracted and how, or why not."""
    from ..radiomics import extract_features, write_features_csv

    try:
        features = extract_features(ct, labels, progress=progress)
    except MissingPackageError as error:
        return f"Radiomics was left out: {error}"
    write_features_csv(folder / "radiomics.csv", features)
    return " ".join(features.notes)


def write_scene(folder: Path) -> list[str]:
    """Write ``scene.mrb`` in a process of its own; return why it is missing, if it is."""
    command = [sys.executable, "-m", "SynthDoseLib.mrml.scene", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode == 0:
        return []
    lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
    return [f"The Slicer scene is missing: {lines[-1] if lines else f'exit status {done.returncode}'}"]


def _transport_key(plan: RunPlan, phantom: VoxelPhantom, tia: TimeIntegratedActivity) -> str:
    """Hash of everything that decides the transported dose."""
    digest = hashlib.sha256()
    text = {
        "version": __version__,
        "therapy": [plan.therapy.nuclide, plan.therapy.progeny, plan.therapy.progeny_max_half_life_d],
        "organs": [[organ.index, organ.name] for organ in phantom.labels.organs],
        "dose": dataclasses.asdict(dataclasses.replace(plan.dose, threads=0, compare=(), dose_rate_route=False)),
        "materials": [[m.name, m.density_g_cm3, dict(m.mass_fractions)] for m in phantom.materials],
        "grid": phantom.grid.ijk_to_ras.tolist(),
    }
    digest.update(json.dumps(text, sort_keys=True, default=str).encode())
    for array in (phantom.material_index, phantom.density_g_cm3, phantom.labels.labels, tia.tia_MBq_s):
        digest.update(array.tobytes())
    return digest.hexdigest()


def _transport(
    state: Path,
    plan: DosePlan,
    phantom: VoxelPhantom,
    source: VolumeSource,
    emissions: Sequence[Emission],
    settings: RunSettings,
    progress: Progress,
) -> SimulationResult:
    """Dose per decay, going on from the state of an interrupted run if it was of the same problem; else from the beginning."""
    options = _options(plan)
    try:
        return engine_dose(plan.engine, phantom, source, emissions, settings, options, progress, state)
    except CheckpointError:
        state.unlink()
    result = engine_dose(plan.engine, phantom, source, emissions, settings, options, progress, state)
    note = (
        "The interrupted run could not be gone on with, because the plan, its inputs or the engine had changed: it began anew."
    )
    return dataclasses.replace(result, notes=(*result.notes, note))


def _save_checkpoint(folder: Path, key: str, result: SimulationResult) -> None:
    with atomic_path(folder / CHECKPOINT[1]) as temporary:
        np.savez(temporary, dose=result.dose.dose_Gy, sigma=result.dose.sigma_Gy)
    record = {"key": key, "result": _plain_fields(result), "organs": [dataclasses.asdict(organ) for organ in result.organs]}
    write_json(folder / CHECKPOINT[0], record)


def _plain_fields(result: SimulationResult) -> dict[str, Any]:
    """What is not a dose map or a table of organs."""
    left_out = ("dose", "organs", "components")
    return {f.name: getattr(result, f.name) for f in dataclasses.fields(result) if f.name not in left_out}


def _load_checkpoint(folder: Path, key: str, phantom: VoxelPhantom) -> SimulationResult | None:
    try:
        record = json.loads((folder / CHECKPOINT[0]).read_text(encoding="utf-8"))
        if record["key"] != key:
            return None
        with np.load(folder / CHECKPOINT[1], allow_pickle=False) as arrays:
            dose = DoseMap(phantom.grid, arrays["dose"], arrays["sigma"], per="decay")
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in record["result"].items()}
        return SimulationResult(dose=dose, organs=tuple(OrganDose(**organ) for organ in record["organs"]), **values)
    except (OSError, KeyError, ValueError, TypeError):
        return None  # no or another checkpoint: the dose is transported again


def _provenance(
    plan: RunPlan,
    ct: ImageVolume,
    found: ActivityResult,
    simulated: SimulationResult,
    seconds: Mapping[str, float],
    notes: list[str],
    identity: Identity | None,
) -> dict[str, Any]:
    inputs = {"image": ct.source_files, "activity": found.source_files}
    if plan.segmentation.path is not None and plan.segmentation.path.is_file():
        inputs["segmentation"] = (str(plan.segmentation.path),)
    nuclide = get_nuclide(plan.therapy.nuclide)
    return {
        "schema": SCHEMA,
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "computer": computer(),
        "inputs": {name: hash_files(files, named=identity is None) for name, files in inputs.items() if files},
        "nuclide": {"name": nuclide.name, "half_life_s": nuclide.half_life_s, "decays": found.tia.decays},
        **({"kinetics": kinetics_record(found)} if found.course else {}),
        "transport": public(_plain_fields(simulated), identity),
        "seconds": dict(seconds),
        "notes": list(notes),
        "statement": "Research software, not for clinical use.",
    }


def _public_fields(found: ActivityResult, identity: Identity | None) -> ActivityResult:
    """The same result with tables of fields that say nothing of the patient."""
    points = tuple(dataclasses.replace(point, fields=public(point.fields, identity)) for point in found.points)
    return dataclasses.replace(found, points=points)
