"""One patient, start to report."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from ..core import (
    DoseMap,
    ImageVolume,
    Progress,
    SynthDoseError,
    atomic_path,
    computer,
    silent,
    versions,
)
from ..dosimetry import (
    OrganDoseRow,
    absolute_dose,
    noise_notes,
)
from ..io.identity import Identity
from ..physics import get_nuclide
from ..transport import SimulationResult, VolumeSource
from .activity import ActivityResult, time_integrate
from .activity_tables import kinetics_record, write_activity_tables
from .beyond_image import beyond_image
from .budget import budget_notes
from .clinical import check_clinical_inputs
from .deidentify import identity_in, public, public_plan, without_names
from .engines import EngineRow
from .fingerprints import Fingerprints
from .nuclides import emissions_of
from .plan import SCHEMA, RunPlan, plan_hash, write_plan
from .quality_report import PHANTOM_JSON, phantom_record, write_phantom_json
from .report import write_report
from .run_folder import (
    CHECKPOINT,
    FINISHED,
    RESULTS,
    UNFINISHED,
    claimed,
    clear_results,
    hash_files,
    hash_outputs,
    open_folder,
    write_json,
)
from .run_report import report_contents
from .run_steps import (
    DICOM,
    DOSE_RATE_CSV,
    ENGINE_FILES,
    INPUTS,
    JUDGED,
    RADIOMICS_CSV,
    REPORT_HTML,
    SCENE_MRB,
    both_routes,
    engines_side_by_side,
    gas_notes,
    judge,
    judged_phantom,
    write_dicom,
    write_inputs,
    write_radiomics,
    write_scene,
)  # fmt: skip
from .segmenting import ENTROPY, VOLUMES, organs_inputs, write_uncertainty
from .stage_store import TAKEN_OVER, Stages, StageStore, read_value
from .stations import find_organs, groups_of, on_grid, read_ct, report_stage
from .transporting import run_settings, transport, transport_inputs


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
    stages : mapping of str to str
        Which stages were calculated, and which "taken over" from an earlier run.
    missed_sigma : tuple of str
        The note on a relative sigma of the transport that was asked for and not reached.
    """

    folder: Path
    dose: DoseMap
    organs: tuple[OrganDoseRow, ...]
    notes: tuple[str, ...]
    seconds: Mapping[str, float]
    stages: Mapping[str, str] = field(default_factory=dict)
    missed_sigma: tuple[str, ...] = ()

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
        lines += ["", *self.missed_sigma] if self.missed_sigma else []
        lines += ["", f"{total:.1f} s ({stages})"]
        if kept := taken_over(self.stages):
            lines.append(f"Taken over from an earlier run: {kept}")
        lines.append(f"Report: {self.folder / 'report.html'}")
        lines.append("Research software, not for clinical use.")
        return "\n".join(lines)


def taken_over(stages: Mapping[str, str]) -> str:
    """Names of the stages that were not calculated, for people."""
    return ", ".join(stage for stage, outcome in stages.items() if outcome == TAKEN_OVER)


@dataclass
class _Clock:
    """Wall time per stage, and the caller told of each."""

    progress: Progress
    stages: Stages
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        report_stage(self.progress, name, 0.0)
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
        report_stage(self.progress, name, 1.0, self.stages.outcome.get(name, ""))


def run_patient(
    plan: RunPlan,
    out: str | os.PathLike[str],
    *,
    resume: bool = False,
    overwrite: bool = False,
    reuse: str | os.PathLike[str] | None = None,
    begin: str = "",
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
        Folder, made if need be, from which every stage is taken if nothing that decides it has changed, and in which the others
        are kept for the next run. It holds what run folders hold. An interrupted transport goes on from there, too.
    begin : str
        Calculate this stage and all after it (see `stage_store.STAGES`) whatever has changed; needs `reuse`.
    progress : callable

    Returns
    -------
    RunResult

    Raises
    ------
    SynthDoseError
        For bad input, before anything is written.
    """
    if resume and begin:
        raise SynthDoseError("A run is gone on with (--resume) or started again from a stage (--from), not both.")
    with claimed(out, resume=resume, overwrite=overwrite, progress=progress) as (folder, told):
        return run_in_folder(plan, folder, resume=resume, reuse=reuse, begin=begin, progress=told)


def run_in_folder(
    plan: RunPlan,
    folder: Path,
    *,
    resume: bool = False,
    reuse: str | os.PathLike[str] | None = None,
    begin: str = "",
    progress: Progress = silent,
) -> RunResult:
    """`run_patient` in a folder that the caller has claimed (see `run_folder.claimed`)."""
    stages = Stages(StageStore(Path(reuse)) if reuse is not None else None, begin)
    clock = _Clock(progress, stages)
    with clock.stage("read"):
        ct = read_ct(plan.image, any_modality=plan.phantom.materials == "labels")
        identity = identity_in(plan)
    with clock.stage("segment"):
        find = partial(find_organs, plan.segmentation, ct, device=plan.dose.device, progress=progress)
        organs = find() if plan.segmentation.path else stages.take("segment", organs_inputs(plan, ct), find)
        source_plan = plan
        plan, labels = without_names(plan, organs.labels, identity)
    with clock.stage("phantom"):
        phantom, quality = stages.take(
            "phantom",
            (plan.phantom, plan.dose.voxel_mm, ct, labels, identity is None),
            partial(judged_phantom, plan, ct, labels, identity),
        )
        dose_ct = on_grid(ct, phantom.grid)
    with clock.stage("activity"):
        found = time_integrate(plan, phantom, dose_ct, progress, stages)
        tia = found.tia
        settings = run_settings(plan, phantom)
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
        with atomic_path(folder / "plan.toml") as temporary:
            write_plan(public_plan(plan, identity), temporary, as_named=plan.output.deidentify)
        write = partial(write_inputs, folder, dose_ct, phantom, tia)
        stages.take("results", (dose_ct, phantom, tia.grid, tia.tia_MBq_s), write, part="inputs", folder=folder, files=INPUTS)
        write_phantom_json(folder / PHANTOM_JSON, public(phantom_record(phantom, quality), identity))
        write_activity_tables(folder, _public_fields(found, identity))
        write_uncertainty(organs, folder / ENTROPY, folder / VOLUMES)
    with clock.stage("transport"):
        source = VolumeSource(tia.grid, tia.tia_MBq_s)
        problem = transport_inputs(plan.dose, phantom, source, emissions, settings)
        checkpoint = folder / CHECKPOINT[0]
        kept = read_value(checkpoint, stages.key("transport", problem)) if resume else None
        if kept is not None:
            simulated: SimulationResult = kept[0]
        else:
            state = folder / UNFINISHED
            if not state.exists():
                state = stages.unfinished("transport", problem) or state
            calculate = partial(transport, state, plan.dose, phantom, source, emissions, settings, progress)
            simulated = stages.take("transport", problem, calculate)
            if stages.outcome["transport"] != TAKEN_OVER:
                stages.keep_beside("transport", problem, checkpoint, simulated)
            (folder / UNFINISHED).unlink(missing_ok=True)
    with clock.stage("results"):
        dose = absolute_dose(simulated.dose, tia.decays)
        work = partial(judge, folder, plan, labels, phantom, found, organs, simulated, dose, emissions, beyond, frame, identity)
        judged_by = (
            (plan.dosimetry, plan.kinetics, plan.therapy, plan.organ_activity, plan.dose.organs, plan.segmentation),
            (labels, phantom, found, organs.volumes, simulated.dose, simulated.organs, simulated.components),
            (emissions, beyond, frame, identity is None),
        )
        clinical = stages.take("results", judged_by, work, folder=folder, files=JUDGED)
        warnings = [*simulated.missed_sigma, *noise_notes(dose, phantom)]
    if plan.output.dicom and ct.metadata.get("series_instance_uid") and ct.source_files:
        with clock.stage("export"):
            headers = [Path(name) for name in ct.source_files]
            shown_dose = (dose, clinical.all_cycles, phantom.gas())
            exported = (plan.output.deidentify, headers, ct.grid, labels, *shown_dose)
            export = partial(write_dicom, folder / "dicom", plan, ct, labels, *shown_dose)
            warnings += stages.take("export", exported, export, folder=folder, files=DICOM, whole=nothing_missing)
    compared: tuple[str, ...] = ()
    engine_rows: tuple[EngineRow, ...] = ()
    plain = dataclasses.replace(settings, components=False)
    problem = transport_inputs(plan.dose, phantom, source, emissions, plain)
    if plan.dose.compare:
        with clock.stage("engines"):
            engines = (plan.dose.engine, *plan.dose.compare)
            known = {plan.dose.engine: simulated}
            compare = partial(
                engines_side_by_side, folder, phantom, source, emissions, plain, engines, tia, plan.dose, known, progress
            )
            compared, engine_rows = stages.take(
                "engines",
                (problem, engines, tia.decays, simulated.dose, simulated.organs),
                compare,
                folder=folder,
                files=ENGINE_FILES,
            )
    if plan.dose.dose_rate_route:
        with clock.stage("dose rate"):
            route = partial(both_routes, folder, plan, phantom, found, emissions, plain, progress)
            fitted = (problem, plan.therapy, plan.kinetics, found)
            compared += stages.take("dose rate", fitted, route, folder=folder, files=(DOSE_RATE_CSV,))
    radiomics = ""
    if plan.output.radiomics:
        with clock.stage("radiomics"):
            extract = partial(write_radiomics, folder, ct, labels, progress)
            there = (folder / RADIOMICS_CSV).is_file
            radiomics = stages.take(
                "radiomics", (ct, labels), extract, folder=folder, files=(RADIOMICS_CSV,), whole=lambda _: there()
            )
    if plan.output.scene:
        with clock.stage("scene"):
            shown = [folder / name for name in RESULTS if name.endswith((".nrrd", ".csv", "phantom.json"))]
            write_it = partial(write_scene, folder)
            warnings += stages.take("scene", shown, write_it, folder=folder, files=(SCENE_MRB,), whole=nothing_missing)
    notes = {
        "images": (*ct.notes, *found.notes),
        "organs": labels.notes,
        "phantom": tuple(note for note in phantom.notes if note not in labels.notes),
        "activity": tia.notes,
        "transport": (*progeny_notes, *simulated.notes),
        "engines": compared,
        "dosimetry": (*gas_notes(phantom, dose), *clinical.notes, *budget_notes(clinical.budgets)),
    }
    notes, warnings = public(notes, identity), public(warnings, identity)
    with clock.stage("report"):
        record = _provenance(
            plan, ct, found, simulated, clock.seconds, list(dict.fromkeys([*warnings, *sum(notes.values(), ())])), identity
        )
        record |= clinical.record() | {
            "plan_sha256": plan_hash(source_plan),
            "plan_with_files_sha256": Fingerprints().of(source_plan),
        }

        def report() -> None:
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
                taken_over(stages.outcome),
            )
            write_report(folder / REPORT_HTML, dataclasses.replace(public(contents, identity), files=contents.files))

        shown_in_it = (
            (plan.output, plan.therapy, plan.dose, plan.segmentation, identity is None, record["inputs"]),
            (dose_ct, phantom, quality, found, simulated, dose, clinical, engine_rows),
            (notes, warnings, radiomics, [name for name in RESULTS if name not in CHECKPOINT and (folder / name).is_file()]),
        )
        stages.take("report", shown_in_it, report, folder=folder, files=(REPORT_HTML,))
    record |= {"seconds": clock.seconds, "stages": stages.outcome, "notes": [*record["notes"], *stages.notes]}
    record["outputs"] = hash_outputs(folder)
    write_json(folder / FINISHED, record)
    for name in CHECKPOINT:
        (folder / name).unlink(missing_ok=True)
    return RunResult(folder, dose, clinical.rows, tuple(record["notes"]), clock.seconds, stages.outcome, simulated.missed_sigma)


def nothing_missing(notes: Iterable[str]) -> bool:
    """Whether a stage that says what is missing has said nothing: only then is its result good for another run."""
    return not list(notes)


def _plain_fields(result: SimulationResult) -> dict[str, Any]:
    """What is not a dose map or a table of organs."""
    left_out = ("dose", "organs", "components")
    return {f.name: getattr(result, f.name) for f in dataclasses.fields(result) if f.name not in left_out}


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
