"""Batches of histories on several threads, and the statistics that come from them.

All batches have the same number of histories of every group. A batch is done by one thread; its result is added in the order of
the batches, so that sums do not depend on who was faster. The standard error comes from the spread of the batches: with 64 of
them Student's t is within 1 % of the normal distribution.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

import numpy as np
from numpy.typing import NDArray

from .histories import EMITTED, ESCAPED, EXCESS, TOTALS_PER_MEV
from .problem import Problem, Stopped, Work, close_batch, follow, new_work

WAKE_SECONDS = 0.25
MIN_BATCHES = 10  # what a time limit leaves at least


class Statistics:
    """Sums over the batches that are finished.

    Attributes
    ----------
    done : int
    energy, energy_squared : ndarray of float64, (voxels,)
        Sums over batches of MeV per batch, and of its square.
    organ_energy : list of ndarray of float64, (labels,)
        MeV per label, one array per batch; label 0 is what is outside every organ.
    counts : ndarray of int64, (emissions,)
    emitted, escaped, excess, cpu_s : float
        See `run_histories`; all weighted, MeV and s.
    """

    def __init__(self, problem: Problem) -> None:
        self.done = 0
        self.energy = np.zeros(problem.labels.size)
        self.energy_squared = np.zeros(problem.labels.size)
        self.organ_energy: list[NDArray[np.float64]] = []
        self.counts = np.zeros(problem.emission_count, np.int64)
        self.emitted = self.escaped = self.excess = self.cpu_s = 0.0
        self._labels = int(problem.labels.max()) + 1

    def add(self, problem: Problem, work: Work) -> None:
        """Take over what a thread has gathered in one batch, and clear it."""
        sums = np.zeros(self._labels)
        close_batch(work.tally, problem.labels, sums, self.energy, self.energy_squared)
        self.organ_energy.append(sums)
        self.counts += work.counts
        self.emitted += float(work.totals[EMITTED]) / TOTALS_PER_MEV
        self.escaped += float(work.totals[ESCAPED]) / TOTALS_PER_MEV
        self.excess += float(work.totals[EXCESS]) / TOTALS_PER_MEV
        self.cpu_s += work.cpu_s
        work.counts[:] = 0
        work.totals[:] = 0
        work.cpu_s = 0.0
        self.done += 1

    def organ_means(self, organs: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean energy per batch and its standard error, MeV, of labels (n,)."""
        values = np.array(self.organ_energy)[:, organs]
        error = values.std(axis=0, ddof=1) / np.sqrt(self.done) if self.done > 1 else np.full(organs.size, np.nan)
        return values.mean(axis=0), error

    def relative_errors(self, organs: NDArray[np.int64]) -> NDArray[np.float64]:
        """Relative standard error of labels (n,); nan where there is no dose."""
        mean, error = self.organ_means(organs)
        return np.divide(error, mean, out=np.full(organs.size, np.nan), where=mean > 0)


class BatchRunner:
    """Runs batches of fixed composition.

    Parameters
    ----------
    problem : Problem
    per_batch : ndarray of float64, (groups,)
        Histories of each group per batch; need not be whole, the sum over batches is rounded down.
    weights : ndarray of float64, (groups,)
        Weight of each history.
    threads : int
    deadline : float
        Value of ``time.monotonic`` when batches that run are given up, inf for none.
    most : int
        Batches that there may be: a list of particles ends.
    """

    def __init__(
        self,
        problem: Problem,
        per_batch: NDArray[np.float64],
        weights: NDArray[np.float64],
        threads: int,
        deadline: float,
        most: int,
    ) -> None:
        self.most = most
        self.statistics = Statistics(problem)
        self.expired = False
        self._problem = problem
        self._per_batch = per_batch
        self._weights = weights
        self._threads = threads
        self._deadline = deadline
        self._stop = threading.Event()
        self._turn = threading.Condition()
        self._works: list[Work] = []
        self._next = 0
        self._last = 0

    @property
    def followed(self) -> int:
        """Histories so far, those of batches that are not finished included."""
        return int(self.statistics.counts.sum() + sum(work.counts.sum() for work in self._works))

    @property
    def per_batch(self) -> float:
        """Histories of a batch."""
        return float(self._per_batch.sum())

    def run(self, last: int, watch: Callable[[BatchRunner], None]) -> None:
        """Run batches until `last` of them are done or the time is over; `watch` is called several times a second.

        Whatever `watch` raises (and Ctrl-C) stops the threads within a fraction of a second and goes on to the caller.
        """
        self._last = last
        with ThreadPoolExecutor(self._threads, thread_name_prefix="transport") as pool:
            try:
                waiting = {pool.submit(self._work) for _ in range(min(self._threads, last - self.statistics.done))}
                while waiting:
                    finished, waiting = wait(waiting, timeout=WAKE_SECONDS, return_when=FIRST_EXCEPTION)
                    for future in finished:
                        future.result()
                    watch(self)
                    if time.monotonic() > self._deadline and self.statistics.done >= min(MIN_BATCHES, last):
                        self.expired = True
                        self._stop.set()
            except BaseException:
                self._stop.set()
                raise
        self._works.clear()

    def _work(self) -> None:
        work = new_work(self._problem)
        self._works.append(work)
        try:
            while (batch := self._take()) is not None:
                for group, (rate, weight) in enumerate(zip(self._per_batch, self._weights, strict=True)):
                    first, end = int(np.floor(rate * batch + 1e-9)), int(np.floor(rate * (batch + 1) + 1e-9))
                    follow(self._problem, work, group, first, end, float(weight), group, self._stop)
                self._hand_in(batch, work)
        except Stopped:
            work.counts[:] = 0
        except BaseException:
            self._stop.set()
            raise

    def _take(self) -> int | None:
        with self._turn:
            if self._next >= self._last or self._stop.is_set():
                return None
            self._next += 1
            return self._next - 1

    def _hand_in(self, batch: int, work: Work) -> None:
        with self._turn:
            while self.statistics.done < batch:
                # an earlier batch may have been given up; the order matters only for runs that are not cut short
                if self._stop.is_set():
                    break
                self._turn.wait(WAKE_SECONDS)
            self.statistics.add(self._problem, work)
            self._turn.notify_all()
