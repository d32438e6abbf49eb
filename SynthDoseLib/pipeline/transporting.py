"""The transport of a run: its settings, what decides it, and going on after an interruption."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..core import Emission, Progress, VoxelPhantom
from ..transport import CheckpointError, RunSettings, SimulationResult, VolumeSource
from .engine_plan import EngineOptions
from .engines import engine_dose
from .plan import DosePlan, RunPlan
from .stations import members


def run_settings(plan: RunPlan, phantom: VoxelPhantom) -> RunSettings:
    """Settings of the transport, with the members of the groups of organs that the plan names."""
    dose = plan.dose
    organs: list[str] = []
    for name in dose.organs:
        organs += [member for member in members(name, phantom.labels) if member not in organs]
    limited = dose.histories or dose.relative_sigma or dose.max_seconds
    return RunSettings(
        histories=dose.histories,
        relative_sigma=dose.relative_sigma if limited else EngineOptions.kernel_sigma,
        organs=tuple(organs),
        max_seconds=dose.max_seconds,
        seed=dose.seed,
        device=dose.device,
        threads=dose.threads,
        estimator=dose.estimator,
    )


def engine_options(dose: DosePlan) -> EngineOptions:
    """Options of the other engines."""
    return EngineOptions(dose.kernel_tissues, dose.density_scaling, dose.local_photons)


def transport_inputs(
    plan: DosePlan, phantom: VoxelPhantom, source: VolumeSource, emissions: Sequence[Emission], settings: RunSettings
) -> Any:
    """Everything that decides the transported dose; neither notes nor the number of threads do."""
    return (
        (plan.engine, engine_options(plan), dataclasses.replace(settings, threads=0), list(emissions)),
        (phantom.grid, phantom.materials, phantom.material_index, phantom.density_g_cm3),
        (phantom.labels.grid, phantom.labels.labels, [(organ.index, organ.name) for organ in phantom.labels.organs]),
        source,
    )


def transport(
    state: Path,
    plan: DosePlan,
    phantom: VoxelPhantom,
    source: VolumeSource,
    emissions: Sequence[Emission],
    settings: RunSettings,
    progress: Progress,
) -> SimulationResult:
    """Dose per decay, going on from the state of an interrupted run if it was of the same problem; else from the beginning."""
    options = engine_options(plan)
    try:
        return engine_dose(plan.engine, phantom, source, emissions, settings, options, progress, state)
    except CheckpointError:
        state.unlink()
    result = engine_dose(plan.engine, phantom, source, emissions, settings, options, progress, state)
    note = (
        "The interrupted run could not be gone on with, because the plan, its inputs or the engine had changed: it began anew."
    )
    return dataclasses.replace(result, notes=(*result.notes, note))
