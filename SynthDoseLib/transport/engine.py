"""The voxel Monte Carlo: from a phantom, a source and its emissions to dose per decay."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import psutil
from numpy.typing import NDArray

from ..core import DoseMap, Emission, OrganDose, Progress, ProgressReport, SynthDoseError, VoxelPhantom, silent
from .allotment import Allotment, allot
from .batches import BatchRunner, Statistics
from .particle_lists import ParticleListSource, plan_uses
from .problem import Problem, build_problem, warm_up, with_uses
from .sources import LIST, BeamSource, Source
from .values import RunSettings, SimulationResult

MEV_PER_G_IN_GY = 1.602176634e-10
HOPELESS_HISTORIES = 2_000_000
BATCHES, MOST_BATCHES = 64, 1 << 40
PILOT_HISTORIES, MOST_PILOT_HISTORIES = 4000, 100_000  # of each group of emissions
_OPEN_BATCHES = 48  # for a run whose length is not known: the pilot's estimate may be off by as much as 30 %
_BYTES_PER_VOXEL, _BYTES_PER_VOXEL_AND_THREAD = 40, 8
_MEMORY_SHARE = 0.8


def simulate(
    phantom: VoxelPhantom,
    source: Source,
    emissions: Sequence[Emission],
    settings: RunSettings,
    progress: Progress = silent,
) -> SimulationResult:
    """Dose per decay in every voxel and organ of a phantom.

    Photons, electrons and positrons are transported, alphas slow down along straight lines; see the modules of this package.

    Parameters
    ----------
    phantom : VoxelPhantom
        Outside its grid and where its density is 0 is vacuum.
    source : VolumeSource, OrganSource, PointSource, SphereSource, BeamSource or ParticleListSource
        All its decays have to happen in matter (a beam or list may start anywhere).
    emissions : sequence of Emission
        Per decay; none with a list of particles, which brings its own energies.
    settings : RunSettings
    progress : callable
        Gets `ProgressReport` of stage "transport"; may raise `Cancelled`, which stops the threads within a second.

    Returns
    -------
    SimulationResult
        One standard error, from 64 batches (fewer or more when the run is limited by sigma or time).

    Raises
    ------
    SynthDoseError
        If the input is not usable: see `build_problem`, `build_source`, `RunSettings`; or memory does not suffice.
    Cancelled
        From `progress`.
    """
    wall, cpu = time.monotonic(), time.process_time()
    organs = _organ_indices(phantom, settings)
    threads = _threads(phantom.grid.size, settings.threads)
    needed = (_BYTES_PER_VOXEL + _BYTES_PER_VOXEL_AND_THREAD * threads) * phantom.grid.size / 2**30
    message = f"Preparing cross sections and electron tables; {threads} threads will need {needed:.2g} GiB"
    progress(ProgressReport("transport", 0.0, None, message))
    problem = build_problem(phantom, source, emissions, seed=settings.seed, estimator=settings.estimator)
    progress(ProgressReport("transport", 0.0, None, "Loading the engine (compiled once per installation, about half a minute)"))
    warm_up(problem)
    pilot = _pilot(problem, organs, settings)
    runner, planned, scale = _plan(problem, pilot, settings, threads)
    runner.statistics.cpu_s = pilot.cpu_s
    report = _reporter(progress, phantom, organs)
    while True:
        report.planned = planned
        runner.run(planned, report)
        planned = min(runner.most, _extension(runner.statistics, organs, settings, planned))
        if runner.expired or planned <= runner.statistics.done:
            break
    per = "history" if isinstance(source, ParticleListSource) else "particle" if isinstance(source, BeamSource) else "decay"
    times = time.monotonic() - wall, time.process_time() - cpu
    result = _result(phantom, runner.statistics, scale, settings, threads, per, *times)
    result = replace(result, notes=(*problem.notes, *result.notes, *_used_up(runner, organs, settings)))
    progress(ProgressReport("transport", 1.0, 0.0, f"{result.histories} histories in {result.wall_s:.1f} s"))
    return result


def _organ_indices(phantom: VoxelPhantom, settings: RunSettings) -> NDArray[np.int64]:
    counts = phantom.labels.voxel_counts()
    if settings.relative_sigma is not None and not settings.organs:
        raise SynthDoseError('relative_sigma needs the organs it is meant for, for example organs = ["kidneys"].')
    for name in settings.organs:
        phantom.labels.organ(name)
        if counts[name] == 0:
            raise SynthDoseError(f"The organ '{name}' of the run settings is empty: no voxel has its label.")
    names = settings.organs or tuple(name for name, count in counts.items() if count)
    return np.array([phantom.labels.organ(name).index for name in names], np.int64)


def _threads(voxels: int, wanted: int) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = wanted or cores
    free = psutil.virtual_memory().available * _MEMORY_SHARE
    affordable = int((free - _BYTES_PER_VOXEL * voxels) // (_BYTES_PER_VOXEL_AND_THREAD * voxels))
    if affordable < 1:
        needed = (_BYTES_PER_VOXEL + _BYTES_PER_VOXEL_AND_THREAD) * voxels / _MEMORY_SHARE
        raise SynthDoseError(
            f"The phantom of {voxels} voxels needs {needed / 2**30:.1f} GiB of free memory; "
            f"{free / _MEMORY_SHARE / 2**30:.1f} GiB are free. Crop it to the body or use larger voxels."
        )
    return min(threads, affordable)


def _pilot(problem: Problem, organs: NDArray[np.int64], settings: RunSettings) -> Allotment:
    """Run the pilot with about 5 % of the histories; twice, when only the first shows that many will be needed."""
    if len(problem.groups) == 1 and settings.relative_sigma is None and settings.max_seconds is None:
        return Allotment(np.ones(1), np.full(1, np.nan), np.nan, 0.0)
    per_group = 20 * len(problem.groups)
    first = PILOT_HISTORIES if settings.histories is None else min(PILOT_HISTORIES, settings.histories // per_group)
    pilot = allot(problem, organs, first, threading.Event())
    needed = _needed_histories(pilot, settings)
    second = min(MOST_PILOT_HISTORIES, needed // per_group)
    if second <= 2 * PILOT_HISTORIES:
        return pilot
    better = allot(problem, organs, second, threading.Event())
    return replace(better, cpu_s=better.cpu_s + pilot.cpu_s)


def _needed_histories(pilot: Allotment, settings: RunSettings) -> int:
    """Expected length of the run, as far as that does not depend on the speed of the computer; 0 if it does."""
    totals = [] if settings.histories is None else [settings.histories]
    if settings.relative_sigma is not None:
        known = pilot.variance_per_history[np.isfinite(pilot.variance_per_history)]
        worst = float(known.max()) if known.size else 1e4  # no dose seen yet: a few thousand histories will tell
        totals.append(int(max(5000, worst / settings.relative_sigma**2)))
    return min(totals, default=0)


def _plan(problem: Problem, pilot: Allotment, settings: RunSettings, threads: int) -> tuple[BatchRunner, int, float]:
    """Decide how many histories a batch has; return the runner, the number of batches, and what a weight of 1 stands for."""
    now = time.monotonic()
    limits = []
    needed = _needed_histories(pilot, settings)
    if needed:
        limits.append((needed, BATCHES if needed == settings.histories else _OPEN_BATCHES))
    if settings.max_seconds is not None:
        affordable = settings.max_seconds * threads / pilot.seconds_per_history
        # only a limit that is likely to end the run may shape the batches: it is not reproducible
        if not limits or affordable < 2 * min(total for total, _ in limits):
            limits.append((int(max(1000, affordable)), _OPEN_BATCHES))
    total, batches = min(limits)
    batches = min(batches, max(10, total // (10 * len(problem.groups))))
    most = MOST_BATCHES
    listed = problem.tables.source
    if listed.kind == LIST and listed.shape[1]:
        fixed = settings.histories == total
        uses, whole, batches, most = plan_uses(int(listed.shape[0]), total, batches, fixed=fixed)
        problem, total = with_uses(problem, uses), whole * batches
    per_group = _largest_remainder(pilot.share, total)
    per_batch = per_group / batches
    yields = np.array([group.yield_per_decay for group in problem.groups])
    weights = yields / per_batch
    deadline = np.inf if settings.max_seconds is None else now + settings.max_seconds
    runner = BatchRunner(problem, per_batch, weights / weights.max(), threads, deadline, most)
    return runner, batches, float(weights.max())


def _used_up(runner: BatchRunner, organs: NDArray[np.int64], settings: RunSettings) -> tuple[str, ...]:
    """Note on a relative sigma that a list of particles does not suffice for."""
    if settings.relative_sigma is None or runner.statistics.done < runner.most:
        return ()
    worst = float(np.nanmax(runner.statistics.relative_errors(organs), initial=0.0))
    if worst <= settings.relative_sigma:
        return ()
    return (
        f"The list of particles is used up at a relative sigma of {100 * worst:.2g} %, more than the "
        f"{100 * settings.relative_sigma:.2g} % asked for; what is left is its own noise. A longer list is needed.",
    )


def _largest_remainder(share: NDArray[np.float64], total: int) -> NDArray[np.int64]:
    """Whole numbers in proportion to `share` that sum to `total`, each at least 1."""
    exact = share * total
    whole = np.maximum(np.floor(exact).astype(np.int64), 1)
    rest = total - int(whole.sum())
    if rest > 0:
        order = np.argsort(exact - np.floor(exact))[::-1]
        np.add.at(whole, order[np.arange(rest) % order.size], 1)
    return whole


def _extension(statistics: Statistics, organs: NDArray[np.int64], settings: RunSettings, planned: int) -> int:
    """Batches to have in total: more than were planned if sigma, or the time that is left, asks for it."""
    limit = None
    if settings.relative_sigma is not None:
        errors = statistics.relative_errors(organs)
        if not np.isfinite(errors).any():
            if statistics.counts.sum() > HOPELESS_HISTORIES:
                raise SynthDoseError(
                    f"After {statistics.counts.sum()} histories {', '.join(settings.organs)} got no dose at all: their sigma "
                    "is out of reach. Choose organs that the radiation reaches, or limit histories or max_seconds."
                )
            return 4 * planned
        worst = float(np.nanmax(errors))
        if worst <= settings.relative_sigma:
            return planned
        factor = min(4.0, (worst / settings.relative_sigma) ** 2 * 1.05)
        limit = int(np.ceil(planned * factor))
    elif settings.histories is None:
        limit = 2 * planned
    if limit is None:
        return planned
    if settings.histories is not None:
        limit = min(limit, int(settings.histories * planned // max(1, statistics.counts.sum())))
    return max(limit, planned)


def _reporter(progress: Progress, phantom: VoxelPhantom, organs: NDArray[np.int64]) -> _Reporter:
    names = {organ.index: organ.name for organ in phantom.labels.organs}
    return _Reporter(progress, [names[int(index)] for index in organs], organs)


class _Reporter:
    """Says how far the run is, and how sure the organs are; `planned` is the number of batches to come to."""

    planned = 1

    def __init__(self, progress: Progress, names: list[str], organs: NDArray[np.int64]) -> None:
        self._progress, self._names, self._organs = progress, names, organs
        self._begun = time.monotonic()

    def __call__(self, runner: BatchRunner) -> None:
        statistics = runner.statistics
        done, followed = statistics.done, runner.followed
        fraction = min(1.0, followed / (max(self.planned, done) * runner.per_batch))
        elapsed = time.monotonic() - self._begun
        left = elapsed * (1 - fraction) / fraction if fraction > 0 else None
        message = f"{followed} histories"
        if done > 2 and self._organs.size:
            errors = statistics.relative_errors(self._organs)
            known = [(f"{name} {100 * e:.2g} %") for name, e in zip(self._names, errors, strict=True) if np.isfinite(e)]
            message += "; sigma " + ", ".join(known[:4]) if known else ""
        self._progress(ProgressReport("transport", fraction, left, message))


def _result(
    phantom: VoxelPhantom,
    statistics: Statistics,
    scale: float,
    settings: RunSettings,
    threads: int,
    per: str,
    wall_s: float,
    cpu_s: float,
) -> SimulationResult:
    batches = statistics.done
    per_batch = scale / batches
    dose, sigma = _voxel_doses(phantom, statistics, scale)
    scored = float(statistics.energy.sum())
    masses = phantom.mass_g()
    filled = [organ for organ in phantom.labels.organs if masses[organ.name] > 0]
    energies, errors = statistics.organ_means(np.array([organ.index for organ in filled], np.int64))
    organs = tuple(
        OrganDose(
            organ.name,
            masses[organ.name],
            float(energy * scale * MEV_PER_G_IN_GY / masses[organ.name]),
            float(error * scale * MEV_PER_G_IN_GY / masses[organ.name]),
        )
        for organ, energy, error in zip(filled, energies, errors, strict=True)
    )
    notes = []
    if settings.threads > threads:
        notes.append(f"{threads} of {settings.threads} threads were used: free memory does not suffice for more tallies.")
    dark = [organ.organ for organ in organs if organ.organ in settings.organs and organ.dose_Gy == 0]
    if dark:
        notes.append(f"No history reached {', '.join(dark)}; the sigma asked for does not hold there.")
    return SimulationResult(
        dose=DoseMap(phantom.grid, dose, sigma, per),
        organs=organs,
        histories=int(statistics.counts.sum()),
        histories_per_emission=tuple(int(n) for n in statistics.counts),
        cpu_s=cpu_s,
        wall_s=wall_s,
        transport_cpu_s=statistics.cpu_s,
        device="cpu",
        threads=threads,
        seed=settings.seed,
        energy_emitted_MeV=statistics.emitted * per_batch,
        energy_deposited_MeV=(scored + statistics.excess) * per_batch,
        energy_scored_MeV=scored * per_batch,
        energy_escaped_MeV=statistics.escaped * per_batch,
        batches=batches,
        notes=tuple(notes),
    )


def _voxel_doses(
    phantom: VoxelPhantom, statistics: Statistics, scale: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Dose and standard error, Gy, slice by slice to spare memory."""
    shape, batches = phantom.grid.shape, statistics.done
    dose, sigma = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    sums, squares = statistics.energy.reshape(shape), statistics.energy_squared.reshape(shape)
    for k, density in enumerate(phantom.density_g_cm3):
        mass = density * np.float64(phantom.grid.voxel_volume_ml)
        to_gray = np.divide(scale * MEV_PER_G_IN_GY, mass, out=np.zeros_like(mass), where=mass > 0)
        mean = sums[k] / batches
        variance = np.maximum(squares[k] / batches - mean**2, 0.0) / max(1, batches - 1)
        dose[k], sigma[k] = mean * to_gray, np.sqrt(variance) * to_gray
    return dose, sigma
