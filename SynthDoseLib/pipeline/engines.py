"""Dose engines side by side: which one computes a dose, and how several differ on the same case."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..core import (
    DoseMap,
    Emission,
    MissingPackageError,
    OrganDose,
    Progress,
    ProgressReport,
    SynthDoseError,
    VoxelPhantom,
    silent,
)
from ..dosimetry import (
    DoseVolumeHistogram,
    GammaIndex,
    absolute_dose,
    absolute_organ_doses,
    dose_volume_histograms,
    gamma_index,
    write_dvh_csv,
)
from ..io import write_csv, write_volume
from ..transport import LUNG_SOFT_BONE, SOFT_TISSUE, RunSettings, SimulationResult, Source, kernel_dose, local_dose, simulate
from .engine_plan import ENGINES, EngineOptions

TISSUES = {"soft": SOFT_TISSUE, "lung-soft-bone": LUNG_SOFT_BONE}


@dataclass(frozen=True)
class EngineRow:
    """One row of ``engines.csv``; the names of the fields are its header.

    Attributes
    ----------
    organ, engine : str
    mass_g, dose_Gy, sigma_Gy : float
    difference_percent : float
        From the reference engine, in per cent of its dose; nan where that is 0.
    """

    organ: str
    engine: str
    mass_g: float
    dose_Gy: float
    sigma_Gy: float
    difference_percent: float


@dataclass(frozen=True, eq=False)
class EngineComparison:
    """The same case by several engines.

    Attributes
    ----------
    reference : str
        Engine that the others are compared with.
    doses : mapping of engine to DoseMap
        Absolute, Gy.
    rows : tuple of EngineRow
    differences_Gy : mapping of engine to ndarray of float32, (nk, nj, ni)
        Dose less that of the reference.
    gamma : mapping of engine to GammaIndex
        Empty without pymedphys, and a note says so.
    histograms : mapping of engine to tuple of DoseVolumeHistogram
    seconds : mapping of engine to float
        Wall time.
    notes : tuple of str
    """

    reference: str
    doses: Mapping[str, DoseMap]
    rows: tuple[EngineRow, ...]
    differences_Gy: Mapping[str, NDArray[np.float32]]
    gamma: Mapping[str, GammaIndex]
    histograms: Mapping[str, tuple[DoseVolumeHistogram, ...]]
    seconds: Mapping[str, float]
    notes: tuple[str, ...]


def engine_dose(
    engine: str,
    phantom: VoxelPhantom,
    source: Source,
    emissions: Sequence[Emission],
    settings: RunSettings,
    options: EngineOptions | None = None,
    progress: Progress = silent,
    checkpoint: Path | None = None,
) -> SimulationResult:
    """Dose per decay by one engine.

    Parameters
    ----------
    engine : str
        "monte-carlo", "kernel" or "local".
    phantom, source, emissions
        See `transport.simulate`; the other two take activity per voxel or organ.
    settings : RunSettings
        For the kernels, `relative_sigma`, `seed`, `threads` and `device` count; for local deposition nothing does.
    options : EngineOptions, optional
    progress : callable
    checkpoint : path, optional
        Of the Monte Carlo.

    Raises
    ------
    SynthDoseError
        If the engine is not known, or the input is not usable.
    """
    options = options or EngineOptions()
    if engine == "monte-carlo":
        return simulate(phantom, source, emissions, settings, progress, checkpoint)
    if engine == "local":
        return local_dose(phantom, source, emissions, photons=options.local_photons)
    if engine == "kernel":
        return kernel_dose(
            phantom, source, emissions, tissues=TISSUES[options.kernel_tissues], density_scaling=options.density_scaling,
            relative_sigma=settings.relative_sigma or options.kernel_sigma, seed=settings.seed, threads=settings.threads,
            device=settings.device, progress=progress,
        )  # fmt: skip
    raise SynthDoseError(f"The dose engine '{engine}' is not known. Allowed: {', '.join(ENGINES)}.")


def compare_engines(
    phantom: VoxelPhantom,
    source: Source,
    emissions: Sequence[Emission],
    settings: RunSettings,
    *,
    engines: Sequence[str] = ENGINES,
    decays: float = 1.0,
    options: EngineOptions | None = None,
    known: Mapping[str, SimulationResult] | None = None,
    progress: Progress = silent,
) -> EngineComparison:
    """Run several engines on one case and compare them with the first.

    Parameters
    ----------
    phantom, source, emissions, settings, options, progress
        See `engine_dose`.
    engines : sequence of str
        The first is the reference.
    decays : float
        What doses are multiplied by: time-integrated activity in MBq s times 1e6.
    known : mapping of engine to SimulationResult, optional
        Results that are there already.

    Returns
    -------
    EngineComparison
        Gamma with 3 % (global) and 3 mm above 10 % of the largest dose; gas counts neither there nor in histograms.
    """
    if len(set(engines)) < 2 or len(set(engines)) != len(engines):
        raise SynthDoseError(f"A comparison needs two or more different engines; found {', '.join(engines) or 'none'}.")
    results: dict[str, SimulationResult] = dict(known or {})
    seconds: dict[str, float] = {name: result.wall_s for name, result in results.items()}
    for engine in engines:
        if engine not in results:
            begun = time.monotonic()
            results[engine] = engine_dose(engine, phantom, source, emissions, settings, options, progress)
            seconds[engine] = time.monotonic() - begun
    reference = engines[0]
    doses = {engine: absolute_dose(results[engine].dose, decays) for engine in engines}
    organs = {engine: absolute_organ_doses(results[engine].organs, decays) for engine in engines}
    gamma: dict[str, GammaIndex] = {}
    notes: list[str] = []
    gas = phantom.gas()
    progress(ProgressReport("engines", 0.9, None, "Gamma index"))
    for engine in engines[1:]:
        try:
            gamma[engine] = gamma_index(doses[reference], doses[engine], gas=gas)
        except MissingPackageError as error:
            notes.append(str(error))
            break
    histograms = {
        engine: dose_volume_histograms(
            doses[engine], phantom.labels, sigma_Gy={o.organ: o.sigma_Gy for o in organs[engine]}, gas=gas
        )
        for engine in engines
    }
    differences = {engine: doses[engine].dose_Gy - doses[reference].dose_Gy for engine in engines[1:]}
    notes = [*_summaries(engines, organs, gamma, seconds), *_noise(doses, gamma), *notes]
    return EngineComparison(
        reference, doses, _rows(engines, organs), differences, gamma, histograms, {e: seconds[e] for e in engines}, tuple(notes)
    )


def _rows(engines: Sequence[str], organs: Mapping[str, tuple[OrganDose, ...]]) -> tuple[EngineRow, ...]:
    rows = []
    for n, first in enumerate(organs[engines[0]]):
        for engine in engines:
            own = organs[engine][n]
            difference = 100 * (own.dose_Gy / first.dose_Gy - 1) if first.dose_Gy > 0 else np.nan
            rows.append(EngineRow(own.organ, engine, own.mass_g, own.dose_Gy, own.sigma_Gy, difference))
    return tuple(rows)


def _summaries(
    engines: Sequence[str],
    organs: Mapping[str, tuple[OrganDose, ...]],
    gamma: Mapping[str, GammaIndex],
    seconds: Mapping[str, float],
) -> list[str]:
    """One sentence per engine: the organ with the highest dose, gamma, time."""
    reference = engines[0]
    hottest = max(range(len(organs[reference])), key=lambda n: organs[reference][n].dose_Gy, default=None)
    lines = []
    for engine in engines[1:]:
        parts = []
        if hottest is not None and organs[reference][hottest].dose_Gy > 0:
            own, first = organs[engine][hottest], organs[reference][hottest]
            parts.append(f"{own.organ} {own.dose_Gy:.4g} Gy ({100 * (own.dose_Gy / first.dose_Gy - 1):+.1f} %)")
        if engine in gamma:
            index = gamma[engine]
            parts.append(f"gamma {index.dose_percent:g} % / {index.distance_mm:g} mm passed by {100 * index.pass_rate:.1f} %")
        parts.append(f"{seconds[engine]:.1f} s against {seconds[reference]:.1f} s")
        lines.append(f"Engine {engine} beside {reference}: {'; '.join(parts)}.")
    return lines


def _noise(doses: Mapping[str, DoseMap], gamma: Mapping[str, GammaIndex]) -> list[str]:
    """Say where the noise of single voxels, not the engines, decides the gamma index."""
    for index in gamma.values():
        judged = np.isfinite(index.values)
        for engine, dose in doses.items():
            level = float(np.median(dose.sigma_Gy[judged])) / max(float(np.quantile(dose.dose_Gy[judged], 0.999)), 1e-300)
            if 100 * level > index.dose_percent / 3:
                return [
                    f"In the gamma index the noise of single voxels of {engine} counts ({100 * level:.1f} % of the largest "
                    "dose); organ means are not affected. More histories lower it."
                ]
    return []


def write_engine_comparison(folder: Path, comparison: EngineComparison) -> tuple[str, ...]:
    """Write ``engines.csv``, ``engines_gamma.csv``, a DVH, difference and gamma map per engine; return the file names."""
    rows = [
        [r.organ, r.engine, f"{r.mass_g:.6g}", f"{r.dose_Gy:.6g}", f"{r.sigma_Gy:.3g}", f"{r.difference_percent:.4g}"]
        for r in comparison.rows
    ]
    header = ["organ", "engine", "mass_g", "dose_Gy", "sigma_Gy", "difference_percent"]
    write_csv(folder / "engines.csv", header, rows)
    table = []
    for engine, seconds in comparison.seconds.items():
        index = comparison.gamma.get(engine)
        known = [f"{index.pass_rate:.6g}", str(index.points)] if index else ["", ""]
        table.append([engine, f"{seconds:.3g}", *known])
    write_csv(folder / "engines_gamma.csv", ["engine", "seconds", "gamma_pass_rate", "points"], table)
    names = ["engines.csv", "engines_gamma.csv"]
    for engine, histograms in comparison.histograms.items():
        names.append(f"dvh_{engine}.csv")
        write_dvh_csv(folder / names[-1], histograms)
    for engine, difference in comparison.differences_Gy.items():
        grid = comparison.doses[engine].grid
        names += [f"difference_{engine}_Gy.nrrd"]
        write_volume(folder / names[-1], difference, grid, unit="Gy")
        if engine in comparison.gamma:
            names.append(f"gamma_{engine}.nrrd")
            write_volume(folder / names[-1], np.nan_to_num(comparison.gamma[engine].values, nan=-1.0), grid)
    return tuple(names)
