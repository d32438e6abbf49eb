"""Batches of histories on several threads, and the statistics that come from them.

A batch is done by one thread; its result is added in the order of the batches, so that sums do not depend on who was faster.
The standard error comes from the spread of the batches: with 64 of them Student's t is within 1 % of the normal distribution.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .crew import Crew
from .histories import EMITTED, ESCAPED, EXCESS, TOTALS_PER_MEV
from .problem import Stopped, Work, follow
from .tallies import add_list, add_rest, compact, list_length, organ_energies, total_first

WAKE_SECONDS = 0.25
MIN_BATCHES = 10  # what a time limit leaves at least


@dataclass(frozen=True, eq=False)
class Batches:
    """What each batch is made of.

    Attributes
    ----------
    rates : ndarray of float64, (groups,)
        Histories of each group; whole numbers but for `open_group`.
    open_group : int
        Its rate need not be whole: the sum over batches is rounded down. Its histories share their weight batch by batch; with
        -1 for none all histories of a group have the same weight, as it has to be for the entries of a list.
    yields : ndarray of float64, (groups,)
        Weight that the histories of a group in one batch share.
    """

    rates: NDArray[np.float64]
    open_group: int
    yields: NDArray[np.float64]

    def span(self, group: int, batch: int) -> tuple[int, int]:
        """First and last (excluded) history of a group in a batch."""
        rate = self.rates[group]
        return int(np.floor(rate * batch + 1e-9)), int(np.floor(rate * (batch + 1) + 1e-9))

    def weight(self, group: int, batch: int) -> float:
        """Weight of each history of a group in a batch."""
        first, last = self.span(group, batch)
        return float(self.yields[group] / (max(1, last - first) if group == self.open_group else self.rates[group]))

    @property
    def size(self) -> float:
        """Mean number of histories in a batch."""
        return float(self.rates.sum())


@dataclass(eq=False)
class _Part:
    """Result of one batch on its way to the sums; `rest` is the voxel that the tallies still hold the energy from."""

    organ_sums: NDArray[np.float64]
    counts: NDArray[np.int64]
    totals: NDArray[np.int64]
    cpu_s: float
    voxels: NDArray[np.int32]
    amounts: NDArray[np.int64]
    tallies: NDArray[np.int64]
    rest: int


class Statistics:
    """Sums over the batches that are finished.

    The first axis of the arrays has the total dose and, if there are several components, each of them after it.

    Parameters
    ----------
    voxels, labels, emissions : int
        Sizes of the arrays.
    components : int
    with_map : bool
        False where only organs are wanted, which spares the sums per voxel.

    Attributes
    ----------
    done : int
    energy, energy_squared : ndarray of float64, (parts, voxels)
        Sums over batches of MeV per batch, and of its square.
    organ_energy : list of ndarray of float64, (parts, labels)
        MeV per label, one array per batch; label 0 is what is outside every organ.
    counts : ndarray of int64, (emissions,)
    emitted, escaped, excess, cpu_s : float
        See `run_histories`; all weighted, MeV and s.
    """

    def __init__(self, voxels: int, labels: int, emissions: int, components: int = 1, *, with_map: bool = True) -> None:
        parts = components + 1 if components > 1 else 1
        self.done = 0
        self.with_map = with_map
        self.energy = np.zeros((parts, voxels if with_map else 0))
        self.energy_squared = np.zeros((parts, voxels if with_map else 0))
        self.organ_energy: list[NDArray[np.float64]] = []
        self.counts = np.zeros(emissions, np.int64)
        self.emitted = self.escaped = self.excess = self.cpu_s = 0.0
        self.labels = labels

    def add(self, part: _Part, labels: NDArray[np.uint16]) -> None:
        """Take over the next batch, and clear the tallies that hold a rest of it."""
        if self.with_map:
            add_list(part.voxels, part.amounts, self.energy, self.energy_squared)
            if part.rest < labels.size:
                add_rest(part.rest, part.tallies, labels, part.organ_sums, self.energy, self.energy_squared)
        self.organ_energy.append(total_first(part.organ_sums))
        self.counts += part.counts
        self.emitted += float(part.totals[EMITTED]) / TOTALS_PER_MEV
        self.escaped += float(part.totals[ESCAPED]) / TOTALS_PER_MEV
        self.excess += float(part.totals[EXCESS]) / TOTALS_PER_MEV
        self.cpu_s += part.cpu_s
        self.done += 1

    def organ_means(self, organs: NDArray[np.int64], part: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean energy per batch and its standard error, MeV, of labels (n,)."""
        done = self.done
        values = np.array(self.organ_energy[:done])[:, part, organs]
        error = values.std(axis=0, ddof=1) / np.sqrt(done) if done > 1 else np.full(organs.size, np.nan)
        return values.mean(axis=0), error

    def relative_errors(self, organs: NDArray[np.int64]) -> NDArray[np.float64]:
        """Relative standard error of labels (n,); nan where there is no dose."""
        mean, error = self.organ_means(organs)
        return np.divide(error, mean, out=np.full(organs.size, np.nan), where=mean > 0)


class BatchRunner:
    """Runs batches and adds them up.

    Parameters
    ----------
    crew : Crew
        With one tally for each of `components`.
    batches : Batches
    components : mapping of str to tuple of int
        Groups of emissions of each component of the dose; all groups in one if it is not split.
    statistics : Statistics
        Empty, or of an earlier run to be gone on with.
    deadline : float
        Value of ``time.monotonic`` when batches that run are given up, inf for none.
    """

    def __init__(
        self,
        crew: Crew,
        batches: Batches,
        components: Mapping[str, tuple[int, ...]],
        statistics: Statistics,
        deadline: float = np.inf,
    ) -> None:
        self.crew = crew
        self.batches = batches
        self.statistics = statistics
        self.expired = False
        self.sums_lock = threading.Lock()  # whoever holds it sees whole batches in the statistics
        self._groups = [(place, group) for place, members in enumerate(components.values()) for group in members]
        self._deadline = deadline
        self._turn = threading.Condition()
        self._parked: dict[int, _Part] = {}
        self._adding = False
        self._next = statistics.done
        self._last = statistics.done

    @property
    def followed(self) -> int:
        """Histories so far, those of batches that are not finished included."""
        parked = sum(int(part.counts.sum()) for part in list(self._parked.values()))
        return int(self.statistics.counts.sum()) + parked + self.crew.followed

    def run(self, last: int, watch: Callable[[BatchRunner], None]) -> None:
        """Run batches until `last` of them are done or the time is over; `watch` is called several times a second.

        Whatever `watch` raises (and Ctrl-C) stops the threads within a fraction of a second and goes on to the caller.
        """
        self._last = last
        self._next = self.statistics.done
        self._parked.clear()

        def watch_time() -> None:
            watch(self)
            if time.monotonic() > self._deadline and self.statistics.done >= min(MIN_BATCHES, last):
                self.expired = True
                self.crew.stop.set()

        if last > self.statistics.done:
            self.crew.run(self._work, watch_time, most=last - self.statistics.done)

    def _work(self, work: Work) -> None:
        while (batch := self._take()) is not None:
            for place, group in self._groups:
                first, end = self.batches.span(group, batch)
                weight = self.batches.weight(group, batch)
                follow(self.crew.problem, work, group, first, end, weight, group, batch, self.crew.stop, place)
            self._hand_in(batch, self._harvest(work))

    def _take(self) -> int | None:
        with self._turn:
            if self._next >= self._last or self.crew.stop.is_set():
                return None
            self._next += 1
            return self._next - 1

    def _harvest(self, work: Work) -> _Part:
        """Move the result of a batch out of a thread's hands, as far as the list holds it."""
        work.fetch()
        labels = self.crew.problem.labels
        sums = np.zeros((len(work.tallies), self.statistics.labels))
        if self.statistics.with_map:
            length = list_length(labels.size)
            voxels, amounts = np.empty(length, np.int32), np.empty((length, len(work.tallies)), np.int64)
            count, rest = compact(work.tallies, labels, sums, voxels, amounts)
        else:
            voxels, amounts = np.empty(0, np.int32), np.empty((0, len(work.tallies)), np.int64)
            organ_energies(0, labels.size, work.tallies, labels, sums)
            count, rest = 0, labels.size
        part = _Part(
            sums, work.counts.copy(), work.totals.copy(), work.cpu_s, voxels[:count], amounts[:count], work.tallies, rest
        )
        work.clear_sums()
        return part

    def _hand_in(self, batch: int, part: _Part) -> None:
        """Leave a result to be added in its turn; wait for that only if the tallies are needed, or too much has piled up."""
        whole = part.rest == self.crew.problem.labels.size
        with self._turn:
            self._parked[batch] = part
            while not self._adding and self.statistics.done in self._parked and not self.crew.stop.is_set():
                self._adding = True
                due = self.statistics.done
                self._turn.release()
                try:
                    with self.sums_lock:
                        self.statistics.add(self._parked[due], self.crew.problem.labels)
                finally:
                    self._turn.acquire()
                    self._adding = False
                del self._parked[due]
                self._turn.notify_all()
            while batch in self._parked and not (whole and len(self._parked) <= self.crew.threads):
                if self.crew.stop.is_set():
                    raise Stopped
                self._turn.wait(WAKE_SECONDS)
