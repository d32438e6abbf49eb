"""The voxel Monte Carlo: from a phantom, a source and its emissions to dose per decay."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..core import DoseMap, Emission, Progress, ProgressReport, SynthDoseError, VoxelPhantom, silent
from .background import in_background
from .batches import BatchRunner, Statistics
from .checkpoint import QUICK_SECONDS, SHARE_OF_TIME, Checkpoint, State, problem_key
from .crew import Crew
from .crop import Box, box_of_matter, crop_phantom, crop_source
from .cuda_device import open_gpu, wants_gpu
from .limits import extension, missed_sigma, plan_run, run_pilot
from .memory import MemoryWatch, affordable_threads, needed_bytes
from .particle_lists import ParticleListSource
from .preview import Preview
from .problem import Problem, build_problem, components_of, warm_up, with_uses
from .reporter import STAGE, Reporter
from .results import Times, collect, dose_map
from .sources import BeamSource, Source, build_source
from .values import RunSettings, SimulationResult


def simulate(
    phantom: VoxelPhantom,
    source: Source,
    emissions: Sequence[Emission],
    settings: RunSettings,
    progress: Progress = silent,
    checkpoint: str | os.PathLike[str] | None = None,
    preview: Preview | None = None,
) -> SimulationResult:
    """Dose per decay in every voxel and organ of a phantom.

    Photons, electrons and positrons are transported, alphas slow down along straight lines; see the modules of this package.
    What is emitted with less than 1 keV is deposited where it starts; energies above the tables are refused.

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
    checkpoint : path-like, optional
        File to keep the state in, written every 20 seconds or so, when the run is cancelled, and at its end. If it exists, the
        run goes on from there, and gives what it would have given without the break (a limit of time apart). The caller removes
        it when the result is safe.
    preview : Preview, optional
        Shows the dose so far now and then.

    Returns
    -------
    SimulationResult
        One standard error, from 64 batches (fewer or more when the run is limited by sigma or time).

    Raises
    ------
    SynthDoseError
        If the input is not usable: see `build_problem`, `build_source`, `RunSettings`; or memory does not suffice.
    CheckpointError
        If the checkpoint is of another simulation or damaged; it is left as it is.
    Cancelled
        From `progress`.
    """
    wall, cpu = time.monotonic(), time.process_time()
    memory = MemoryWatch()

    def watched(report: ProgressReport) -> None:
        memory.look()
        progress(report)

    job = prepare(phantom, source, emissions, settings, watched)
    kept = None
    if checkpoint is not None:
        key = in_background(lambda: problem_key(phantom, source, emissions, settings, "dose"), job.reporter.idle)
        kept = Checkpoint(checkpoint, key)
    per = "history" if isinstance(source, ParticleListSource) else "particle" if isinstance(source, BeamSource) else "decay"

    def show(runner: BatchRunner, state: State) -> None:
        def dose_so_far() -> DoseMap:
            with runner.sums_lock:
                return dose_map(phantom, job.box, state.statistics, state.plan.scale, per)

        if preview is not None and state.statistics.done > 1:
            preview.offer(dose_so_far)

    state, earlier = run(job, settings, kept, show=show)
    job.crew.dismiss()
    times = Times(time.monotonic() - wall + earlier, time.process_time() - cpu)
    device = f"cuda: {job.crew.gpu.name}" if job.crew.gpu else "cpu"
    components = list(job.components)
    result = in_background(
        lambda: collect(phantom, job.box, state, components, settings, device, job.threads, per, times), job.reporter.idle
    )
    failure = (kept.failure,) if kept is not None and kept.failure else ()
    missed = missed_sigma(state.statistics, job.organs, settings, state.plan)
    memory.look()
    result = replace(
        result,
        notes=(*missed, *job.problem.notes, *result.notes, *failure),
        missed_sigma=missed,
        memory_forecast_GiB=job.needed_GiB,
        memory_peak_GiB=memory.peak_bytes / 2**30,
    )
    progress(ProgressReport(STAGE, 1.0, 0.0, f"{result.histories} histories in {time.monotonic() - wall:.1f} s"))
    return result


@dataclass(eq=False)
class Job:
    """A simulation that is ready to run.

    Attributes
    ----------
    problem : Problem
        Of the phantom without the vacuum around it, which lies in `box` of the grid.
    components : mapping of str to tuple of int
        Groups of emissions of each component of the dose, all of them in one if it is not split.
    organs : ndarray of int64, (n,)
        Label indices of the organs that matter.
    needed_GiB : float
        Memory that was forecast for all of it.
    """

    problem: Problem
    box: Box
    components: Mapping[str, tuple[int, ...]]
    organs: NDArray[np.int64]
    crew: Crew
    reporter: Reporter
    needed_GiB: float

    @property
    def threads(self) -> int:
        """Threads that are used."""
        return self.crew.threads


def prepare(
    phantom: VoxelPhantom,
    source: Source,
    emissions: Sequence[Emission],
    settings: RunSettings,
    progress: Progress,
    *,
    with_map: bool = True,
) -> Job:
    """Check everything, compute the tables, and load the kernels; errors as `simulate`."""
    organs = in_background(lambda: organ_indices(phantom, settings), Reporter(progress, phantom, organs=()).idle)
    if settings.components and isinstance(source, ParticleListSource):
        raise SynthDoseError("components = true splits the dose by what a nuclide emits; a list of particles cannot be split.")
    reporter = Reporter(progress, phantom, organs)
    box = in_background(lambda: box_of_matter(phantom.density_g_cm3), reporter.idle)
    voxels = box.size
    on_gpu = wants_gpu(settings.device)
    split = len({emission.particle for emission in emissions}) if settings.components else 1
    threads = affordable_threads(voxels, phantom.grid.size, 1 if on_gpu else settings.threads, split, with_map=with_map)
    needed_GiB = needed_bytes(voxels, phantom.grid.size, threads, split, with_map=with_map) / 2**30
    reporter.step(f"Preparing cross sections and electron tables; {threads} threads will need {needed_GiB:.2g} GiB")

    def build() -> Problem:
        cropped = crop_phantom(phantom, box)
        if cropped is not phantom:
            build_source(source, phantom, settings.seed)  # refuses what lies in the vacuum that is left out
        own = crop_source(source, phantom, box)
        return build_problem(cropped, own, emissions, seed=settings.seed, estimator=settings.estimator)

    problem = in_background(build, reporter.idle)
    reporter.step("Loading the engine (compiled once per installation, about half a minute)")
    components: Mapping[str, tuple[int, ...]] = {"": tuple(range(len(problem.groups)))}
    if settings.components:
        components = components_of(problem.groups)
    gpu = in_background(lambda: open_gpu(problem, settings.device), reporter.idle) if on_gpu else None
    if isinstance(gpu, str):
        problem = replace(problem, notes=(*problem.notes, gpu))
        gpu = None
        threads = affordable_threads(voxels, phantom.grid.size, settings.threads, split, with_map=with_map)
        needed_GiB = needed_bytes(voxels, phantom.grid.size, threads, split, with_map=with_map) / 2**30
    crew = Crew(problem, threads, len(components), gpu)
    in_background(lambda: warm_up(problem, crew.new_work()), reporter.idle)
    return Job(problem, box, components, organs, crew, reporter, needed_GiB)


def organ_indices(phantom: VoxelPhantom, settings: RunSettings) -> NDArray[np.int64]:
    """Label indices of the organs of the settings, or of all that are not empty."""
    counts = phantom.labels.voxel_counts()
    if settings.relative_sigma is not None and not settings.organs:
        raise SynthDoseError('relative_sigma needs the organs it is meant for, for example organs = ["kidneys"].')
    for name in settings.organs:
        phantom.labels.organ(name)
        if counts[name] == 0:
            raise SynthDoseError(f"The organ '{name}' of the run settings is empty: no voxel has its label.")
    names = settings.organs or tuple(name for name, count in counts.items() if count)
    return np.array([phantom.labels.organ(name).index for name in names], np.int64)


def run(
    job: Job,
    settings: RunSettings,
    checkpoint: Checkpoint | None,
    *,
    with_map: bool = True,
    show: Callable[[BatchRunner, State], None] | None = None,
) -> tuple[State, float]:
    """Run the pilot and the batches, or go on with those of a checkpoint, until a limit of the settings is met.

    `show` is called several times a second. Returns the state at the end, and the seconds that had been spent before the break.
    """
    problem, crew, reporter = job.problem, job.crew, job.reporter
    state = in_background(checkpoint.load, reporter.idle) if checkpoint else None
    earlier = state.wall_s if state else 0.0
    begun = time.monotonic() - earlier
    deadline = np.inf if settings.max_seconds is None else begun + settings.max_seconds
    if state is None:
        pilot = run_pilot(crew, job.organs, settings, reporter.pilot)
        plan = plan_run(problem, pilot, settings, crew.threads, deadline - time.monotonic())
        statistics = Statistics(
            problem.labels.size, problem.label_count, problem.emission_count, len(job.components), with_map=with_map
        )
        statistics.cpu_s = pilot.cpu_s
        state = State(plan, plan.planned, statistics, 0.0)
    if state.plan.uses:
        crew.problem = with_uses(problem, state.plan.uses)
    runner = BatchRunner(crew, state.plan.batches, job.components, state.statistics, deadline)
    keeper = _Keeper(checkpoint, runner, state, begun)
    reporter.begin(deadline)

    def watch(_: BatchRunner) -> None:
        keeper.save_if_due()
        if show is not None:
            show(runner, state)
        reporter.running(runner, state.planned)

    try:
        while True:
            runner.run(state.planned, watch)
            wanted = extension(state.statistics, job.organs, settings, state.planned, dark=not with_map)
            planned = min(state.plan.most, wanted)
            if runner.expired or planned <= state.statistics.done:
                break
            state.planned = planned
    except BaseException:
        keeper.save_if_quick()
        raise
    reporter.step("Collecting the dose", 1.0)
    in_background(keeper.finish, reporter.idle)
    return state, earlier


class _Keeper:
    """Writes the checkpoint of a run now and then, in a thread of its own: the caller may cancel meanwhile."""

    def __init__(self, checkpoint: Checkpoint | None, runner: BatchRunner, state: State, begun: float) -> None:
        self._checkpoint, self._runner, self._state, self._begun = checkpoint, runner, state, begun
        self._thread: threading.Thread | None = None

    def save_if_due(self) -> None:
        """Begin to write if it is time and nobody is writing."""
        if self._checkpoint is None or not self._checkpoint.due() or (self._thread and self._thread.is_alive()):
            return
        self._thread = threading.Thread(target=self._save, name="checkpoint", daemon=True)
        self._thread.start()

    def save_if_quick(self) -> None:
        """Write for somebody who has cancelled and waits."""
        if self._checkpoint is not None and self._checkpoint.worth_waiting(self._runner.statistics):
            self._save()

    def finish(self) -> None:
        """Write the final state, unless that would be a notable part of the time that it spares."""
        self._state.wall_s = time.monotonic() - self._begun
        affordable = max(QUICK_SECONDS, SHARE_OF_TIME * self._state.wall_s)
        if self._checkpoint is not None and self._checkpoint.worth_waiting(self._runner.statistics, affordable):
            self._save()

    def _save(self) -> None:
        assert self._checkpoint is not None
        with self._runner.sums_lock:
            self._state.wall_s = time.monotonic() - self._begun
            self._checkpoint.save(self._state)
