"""A simulation made ready for the kernels."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ..core import Emission, Material, SynthDoseError, VoxelPhantom
from .alphas import AlphaTables, build_alpha_tables
from .electrons_tables import ElectronTables, build_electron_tables
from .emission_groups import EmissionGroup, group_emissions, list_group
from .geometry import COUNTS, POSITRON, STACK_SIZE, build_geometry
from .histories import ALPHA, KINDS, Tables, run_histories
from .locality import local_range_classes
from .particle_lists import ParticleListSource, list_notes
from .sources import Source, build_source
from .table_store import kept_tables, table_recipe
from .tables import E_HIGHEST, REST_ENERGY, PhotonTables, build_photon_tables
from .tallies import add_list, add_rest, compact, organ_energies, range_of_labels
from .tracks import Tracks, new_tracks

CHUNK_SECONDS = 0.1
"""How long a kernel runs before it looks up: cancelling has to feel immediate."""

FIRST_CHUNK = 20


@dataclass(frozen=True, eq=False)
class Problem:
    """Tables and arrays that do not change while histories run.

    Attributes
    ----------
    tables : Tables
        All that kernels read, beside the spectra of the groups.
    labels : ndarray of uint16, (voxels,)
        Organ index per voxel, 0 elsewhere.
    """

    groups: tuple[EmissionGroup, ...]
    tables: Tables
    labels: NDArray[np.uint16]
    emission_count: int
    seed: int
    notes: tuple[str, ...] = ()

    @property
    def label_count(self) -> int:
        """Labels there are, the background included."""
        return int(self.labels.max()) + 1


@dataclass(eq=False)
class Work:
    """What one thread writes to.

    Attributes
    ----------
    tallies : ndarray of int64, (components, voxels)
        All zero between batches.
    stack, count, state, tracks, counts, totals
        See `run_histories`.
    cpu_s : float
        Time spent in histories.
    chunks : dict of int to int
        Histories of each group that take about CHUNK_SECONDS, as far as known.
    """

    tallies: NDArray[np.int64]
    stack: NDArray[np.float64]
    count: NDArray[np.int64]
    state: NDArray[np.uint64]
    tracks: Tracks
    counts: NDArray[np.int64]
    totals: NDArray[np.int64]
    cpu_s: float = 0.0
    chunks: dict[int, int] = field(default_factory=dict)

    def clock(self) -> float:
        """What `cpu_s` is measured with, s."""
        return time.thread_time()

    def run(
        self, problem: Problem, group: int, first: int, last: int, weight: float, stream: int, batch: int, component: int
    ) -> None:
        """Follow the histories `first` to `last` (excluded) of a group; see `run_histories`."""
        own = problem.groups[group]
        run_histories(
            first, last, 1, np.uint64(problem.seed), np.uint64(stream), np.uint64(batch), own.kind, weight, own.spectrum,
            problem.tables, self.tallies[component], self.stack, self.count, self.state, self.tracks, self.counts,
            self.totals,
        )  # fmt: skip

    def fetch(self) -> None:
        """Make `tallies` complete, where histories add to another memory."""

    def clear_sums(self) -> None:
        """Forget everything but the tallies."""
        self.counts[:] = 0
        self.totals[:] = 0
        self.cpu_s = 0.0


class Stopped(Exception):
    """A batch was given up because the run was cancelled or its time was over."""


def build_problem(
    phantom: VoxelPhantom, source: Source, emissions: Sequence[Emission], *, seed: int, estimator: str
) -> Problem:
    """Check the input and compute all tables.

    Raises
    ------
    SynthDoseError
        If source or emissions do not fit the phantom.
    """
    phantom = _with_used_materials(phantom)
    if isinstance(source, ParticleListSource) and emissions:
        raise SynthDoseError("A list of particles brings its own energies: leave the emissions out.")
    groups = (list_group(source.particles),) if isinstance(source, ParticleListSource) else group_emissions(emissions)
    source_tables = build_source(source, phantom, seed)
    geometry = build_geometry(phantom)
    energies = [group.max_energy_MeV for group in groups if group.kind != ALPHA]
    # the quanta of annihilation in flight, and the electrons that they set free
    energies += [min(group.max_energy_MeV + 2 * REST_ENERGY, E_HIGHEST) for group in groups if group.kind == POSITRON]
    most = max(energies, default=0.0)
    auto = estimator == "auto"
    photons, electrons, alphas = _tables(phantom.materials, max(most, 0.1), any(group.kind == ALPHA for group in groups))
    tables = Tables(
        source_tables,
        geometry,
        photons,
        electrons,
        alphas,
        local_range_classes(phantom, source) if auto else np.zeros(1, np.uint8),
        auto,
    )
    notes = list_notes(source) if isinstance(source, ParticleListSource) else ()
    return Problem(groups, tables, phantom.labels.labels.ravel(), max(1, len(emissions)), seed, notes)


def with_uses(problem: Problem, uses: int) -> Problem:
    """The same problem with every entry of its list of particles used so often."""
    source = problem.tables.source
    shape = np.array([source.shape[0], uses], np.int64)
    return replace(problem, tables=problem.tables._replace(source=source._replace(shape=shape)))


def _with_used_materials(phantom: VoxelPhantom) -> VoxelPhantom:
    """Leave out materials that no voxel has: computing their tables is most of the time before the first history."""
    used = np.flatnonzero(np.bincount(phantom.material_index.ravel(), minlength=len(phantom.materials)))
    if used.size == len(phantom.materials):
        return phantom
    place = np.zeros(len(phantom.materials), np.uint8)
    place[used] = np.arange(used.size)
    materials = tuple(phantom.materials[n] for n in used)
    return replace(phantom, material_index=place[phantom.material_index], materials=materials)


@lru_cache(maxsize=2)
def _tables(
    materials: tuple[Material, ...], max_energy_MeV: float, with_alphas: bool
) -> tuple[PhotonTables, ElectronTables, AlphaTables]:
    """Tables of all particles; kept for the next run with the same materials, as S values need it."""

    def build() -> tuple[PhotonTables, ElectronTables, AlphaTables]:
        return (
            build_photon_tables(materials, max_energy_MeV),
            # these tables end a little above the energy asked for, and the data at 20 MeV
            build_electron_tables(materials, min(max_energy_MeV, E_HIGHEST * (1 - 2e-6))),
            build_alpha_tables(materials, with_alphas),
        )

    recipe = table_recipe(materials, max_energy_MeV, with_alphas)
    photons, electrons, alphas = kept_tables(recipe, (PhotonTables, ElectronTables, AlphaTables), build)
    return photons, electrons, alphas


def components_of(groups: Sequence[EmissionGroup]) -> dict[str, tuple[int, ...]]:
    """Numbers of the groups of each kind of emitted particle; what a particle sets free counts as that particle's dose."""
    members: dict[str, list[int]] = {}
    for number, group in enumerate(groups):
        name = next((name for name, kind in KINDS.items() if kind == group.kind), "alpha")
        members.setdefault(name, []).append(number)
    return {name: tuple(members[name]) for name in KINDS if name in members}


def new_work(problem: Problem, components: int = 1) -> Work:
    """Empty tallies for one thread."""
    return Work(
        np.zeros((components, problem.labels.size), np.int64),
        np.zeros((STACK_SIZE, 12)),
        np.zeros(COUNTS, np.int64),
        np.zeros(7, np.uint64),
        new_tracks(),
        np.zeros(problem.emission_count, np.int64),
        np.zeros(3, np.int64),
    )


def warm_up(problem: Problem, work: Work) -> None:
    """Make the kernels ready: loaded from the cache, or compiled where that is the first time."""
    work.run(problem, 0, 0, 0, 1.0, 0, 0, 0)
    tallies, labels, sums = work.tallies[:, :1], problem.labels[:1], np.zeros((1, int(problem.labels[0]) + 1))
    voxels, amounts, energy = np.zeros(1, np.int32), np.zeros((1, 1), np.int64), np.zeros((1, 1))
    tallies = np.ascontiguousarray(tallies)
    compact(tallies, labels, sums, voxels, amounts)
    add_list(voxels, amounts, energy, energy)
    add_rest(0, tallies, labels, sums, energy, energy)
    organ_energies(0, 1, tallies, labels, sums)
    range_of_labels(labels, np.ones(sums.shape[1], bool))


def follow(
    problem: Problem,
    work: Work,
    group: int,
    first: int,
    last: int,
    weight: float,
    stream: int,
    batch: int,
    stop: threading.Event,
    component: int = 0,
) -> None:
    """Run histories `first` to `last` (excluded), of one group and batch, in chunks that look at `stop`; score in `component`.

    Raises
    ------
    Stopped
    """
    chunk = work.chunks.get(group, FIRST_CHUNK)
    while first < last:
        if stop.is_set():
            raise Stopped
        end = min(last, first + chunk)
        wall, own = time.perf_counter(), work.clock()
        work.run(problem, group, first, end, weight, stream, batch, component)
        work.cpu_s += work.clock() - own
        # by the clock on the wall: on a busy computer cancelling has to be felt at once, too
        per_history = max(time.perf_counter() - wall, 1e-6) / (end - first)
        chunk = int(min(20 * chunk, max(1, CHUNK_SECONDS / per_history)))
        first = end
    work.chunks[group] = chunk
