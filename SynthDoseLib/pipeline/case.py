"""``synthdose simulate``: one case file in, dose and organ table out; the engine alone."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..core import PARTICLES, DoseMap, Progress, ProgressReport, SynthDoseError, computer, resample, sha256_of, silent, versions
from ..dosimetry import MarrowDoses, marrow_doses
from ..io import write_csv, write_volume
from ..io.sole_use import sole_use
from ..physics import decay_data_edition
from ..transport import CheckpointError, OrganSource, Preview, SimulationResult, part_name, simulate, simulate_s_values
from .case_file import SCHEMA, Case, read_case
from .engine_plan import ENGINES
from .engines import EngineComparison, compare_engines, write_engine_comparison
from .run_folder import require_writable

__all__ = ["Case", "read_case", "run_case"]


FURTHER = (
    "s_values.csv", "organs_components.csv", "engines.csv", "engines_gamma.csv",
    *(f"{quantity}_{particle}_Gy.nrrd" for quantity in ("dose", "sigma") for particle in PARTICLES),
    *(name for engine in ENGINES for name in (f"dvh_{engine}.csv", f"difference_{engine}_Gy.nrrd", f"gamma_{engine}.nrrd")),
)  # fmt: skip
"""What a case may ask for, and an earlier one in the same folder may have left."""

CHECKPOINT, CHECKPOINTS = ".checkpoint.npz", ".s_values"
"""In the folder of the results, while they are not complete: of the dose, and of S values source by source."""


def run_case(
    path: str | Path,
    out_dir: str | Path,
    progress: Progress = silent,
    *,
    resume: bool = False,
    preview_seconds: float | None = None,
) -> SimulationResult:
    """Simulate a case file and write its results.

    Parameters
    ----------
    path : path-like
        Case file, see `read_case`.
    out_dir : path-like
        Made if need be. Gets ``dose_Gy.nrrd`` and ``sigma_Gy.nrrd`` (per decay or beam particle), ``organs.csv``, ``run.json``
        and, if the case asks for them, ``s_values.csv``, or the dose split by what is emitted in ``dose_<component>_Gy.nrrd``,
        ``sigma_<component>_Gy.nrrd`` and ``organs_components.csv``, or other engines beside it (``engines.csv`` and more, see
        `write_engine_comparison`): all of them when the work is done, or none, in place of those of an earlier case. With
        ``marrow = true`` the organs have rows ``red_marrow`` and ``endosteum``.
    progress : callable
    resume : bool
        Go on with a run of the same case into the same folder that was cancelled or killed; without one, begin. If not set,
        what such a run left is thrown away.
    preview_seconds : float, optional
        Write the dose so far about so often, and its standard error, to ``preview_dose_Gy.nrrd`` and ``preview_sigma_Gy.nrrd``;
        they are removed at the end.

    Returns
    -------
    SimulationResult

    Raises
    ------
    SynthDoseError
        See `read_case` and `transport.simulate`; or the results cannot be written, another process writes there,
        or what is to be resumed is of another case.
    """
    folder = Path(out_dir)
    require_writable(folder)
    with sole_use(folder, progress) as use:
        return _run_case(path, folder, use.watched(progress), resume, preview_seconds)


def _run_case(
    path: str | Path, folder: Path, progress: Progress, resume: bool, preview_seconds: float | None
) -> SimulationResult:
    progress(ProgressReport("read", 0.0, None, f"Reading {path}"))
    case = read_case(path)
    checkpoint = folder / CHECKPOINT
    if not resume:
        _remove_checkpoints(folder)
    preview = _preview(folder, case, preview_seconds) if preview_seconds is not None else None
    try:
        result = simulate(case.phantom, case.source, case.emissions, case.settings, progress, checkpoint, preview)
        s_values, missed = _s_values(case, progress, folder / CHECKPOINTS) if case.s_values else ([], ())
        result = replace(result, notes=(*result.notes, *missed))
        comparison = _compare(case, result, progress) if case.compare else None
    except CheckpointError as error:
        raise SynthDoseError(
            f"{folder} does not hold an interrupted run that this case can go on from: {error} "
            "Without --resume the case is run anew."
        ) from error
    progress(ProgressReport("write", 0.0, None, f"Writing {folder}"))
    _write(folder, case, result, s_values, comparison)
    _remove_checkpoints(folder)
    for file in folder.glob("preview_*_Gy.nrrd"):
        file.unlink()
    return result


def _preview(folder: Path, case: Case, seconds: float) -> Preview:
    """Writes maps into the folder of the results; each appears in one piece."""
    if not seconds > 0:
        raise SynthDoseError(f"The seconds between previews have to be above 0; found {seconds:g}.")

    def show(dose: DoseMap) -> None:
        with tempfile.TemporaryDirectory(prefix=".preview-", dir=folder) as hidden:
            _write_map(Path(hidden), "", dose, case)
            for file in Path(hidden).iterdir():
                os.replace(file, folder / f"preview_{file.name}")

    folder.mkdir(parents=True, exist_ok=True)
    return Preview(show, seconds)


def _remove_checkpoints(folder: Path) -> None:
    """Remove the checkpoints, and what is left of one that was being written when the process was killed."""
    for name in (CHECKPOINT, part_name(CHECKPOINT)):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)


def _s_values(case: Case, progress: Progress, checkpoint: Path) -> tuple[list[list[Any]], tuple[str, ...]]:
    """Rows of organ x organ, and notes: every organ in turn is the uniform source, or those that the case names as sources."""
    sources = tuple(case.source.weights) if isinstance(case.source, OrganSource) else ()
    matrix = simulate_s_values(case.phantom, case.emissions, case.settings, sources, progress, checkpoint)
    rows = [
        [row.source, target.organ, target.mass_g, target.dose_Gy, target.sigma_Gy] for row in matrix for target in row.targets
    ]
    return rows, tuple(f"S values of {row.source}: {note}" for row in matrix for note in row.notes)


def _compare(case: Case, result: SimulationResult, progress: Progress) -> EngineComparison:
    return compare_engines(
        case.phantom, case.source, case.emissions, case.settings, engines=("monte-carlo", *case.compare),
        known={"monte-carlo": result}, progress=progress,
    )  # fmt: skip


def _write(
    folder: Path, case: Case, result: SimulationResult, s_values: list[list[Any]], comparison: EngineComparison | None
) -> None:
    """Write everything into a hidden folder first, and move the files when they are complete."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        hidden = folder / f".{uuid.uuid4().hex[:8]}"
        hidden.mkdir()
        try:
            _write_files(hidden, case, result, s_values, comparison)
            for name in ("run.json", *FURTHER):
                (folder / name).unlink(missing_ok=True)
            for file in sorted(hidden.iterdir(), key=lambda f: f.name == "run.json"):
                os.replace(file, folder / file.name)
        finally:
            shutil.rmtree(hidden, ignore_errors=True)
    except OSError as error:
        raise SynthDoseError(f"Cannot write the results to {folder}: {error.strerror}. Check space and permissions.") from error


def _write_files(
    folder: Path, case: Case, result: SimulationResult, s_values: list[list[Any]], comparison: EngineComparison | None
) -> None:
    _write_map(folder, "", result.dose, case)
    rows = [[row.organ, row.mass_g, row.dose_Gy, row.sigma_Gy] for row in result.organs]
    marrow = _marrow(case, result)
    if marrow is not None:
        named = {row.organ for row in result.organs}
        tissues = [row for row in (marrow.red_marrow, marrow.endosteum) if row.organ not in named]
        rows += [[row.organ, row.mass_g, row.mean_dose_Gy, row.sigma_Gy] for row in tissues]
    write_csv(folder / "organs.csv", ["organ", "mass_g", "dose_Gy", "sigma_Gy"], rows, digits=9)
    if result.components:
        rows = []
        for part in result.components:
            _write_map(folder, f"{part.component}_", part.dose, case)
            rows += [[row.organ, part.component, row.mass_g, row.dose_Gy, row.sigma_Gy] for row in part.organs]
        write_csv(folder / "organs_components.csv", ["organ", "component", "mass_g", "dose_Gy", "sigma_Gy"], rows, digits=9)
    if case.s_values:
        write_csv(folder / "s_values.csv", ["source", "target", "target_mass_g", "dose_Gy", "sigma_Gy"], s_values, digits=9)
    record = _record(case, result) | _marrow_record(marrow)
    if comparison is not None:
        write_engine_comparison(folder, comparison)
        record["notes"] += comparison.notes
    with (folder / "run.json").open("w", encoding="utf-8") as stream:
        json.dump(record, stream, indent=1)


def _marrow(case: Case, result: SimulationResult) -> MarrowDoses | None:
    if not case.marrow:
        return None
    components = {part.component: {row.organ: row.dose_Gy for row in part.organs} for part in result.components}
    return marrow_doses(result.dose, case.phantom, case.emissions, components=components or None, organ_sigma=result.organs)


def _marrow_record(marrow: MarrowDoses | None) -> dict[str, Any]:
    """How sure the spongiosa method is, and what it assumed, for ``run.json``."""
    if marrow is None:
        return {}
    return {
        "marrow": {
            "share_of_active_marrow_seen": marrow.marrow_seen,
            "model_sigma_Gy": {
                "red_marrow": marrow.red_marrow_model_sigma_Gy,
                "endosteum": marrow.endosteum_model_sigma_Gy,
            },
            "notes": list(marrow.notes),
        }
    }


def _write_map(folder: Path, component: str, dose: DoseMap, case: Case) -> None:
    for name, values in (("dose", dose.dose_Gy), ("sigma", dose.sigma_Gy)):
        ordered = resample(np.asarray(values), dose.grid, case.file_grid, linear=False)
        write_volume(folder / f"{name}_{component}Gy.nrrd", ordered, case.file_grid, unit="Gy")


def _record(case: Case, result: SimulationResult) -> dict[str, Any]:
    emissions = [
        {"particle": e.particle, "label": e.label, "yield_per_decay": e.yield_per_decay, "mean_energy_MeV": e.mean_energy_MeV}
        for e in case.emissions
    ]
    return {
        "schema": SCHEMA,
        "histories": result.histories,
        "histories_per_emission": list(result.histories_per_emission),
        "emissions": emissions,
        "batches": result.batches,
        "cpu_s": result.cpu_s,
        "wall_s": result.wall_s,
        "transport_cpu_s": result.transport_cpu_s,
        "device": result.device,
        "threads": result.threads,
        "seed": result.seed,
        "estimator": case.settings.estimator,
        "energy_emitted_MeV": result.energy_emitted_MeV,
        "energy_deposited_MeV": result.energy_deposited_MeV,
        "energy_escaped_MeV": result.energy_escaped_MeV,
        "energy_scored_MeV": result.energy_scored_MeV,
        "memory_forecast_GiB": result.memory_forecast_GiB,
        "memory_peak_GiB": result.memory_peak_GiB,
        "decay_data": decay_data_edition(),
        "inputs": {file.name: sha256_of(file) for file in case.inputs},
        "versions": versions(),
        "computer": computer(),
        "notes": [*case.notes, *result.notes],
    }
