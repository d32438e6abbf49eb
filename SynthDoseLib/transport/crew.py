"""The threads of a simulation, each with tallies of its own, which the pilot and the run share."""

from __future__ import annotations

import threading
from collections.abc import Callable

from .background import run_threads
from .cuda_device import Gpu
from .problem import Problem, Stopped, Work, new_work


class Crew:
    """Threads that follow histories.

    Parameters
    ----------
    problem : Problem
    threads : int
    components : int
        Tallies per thread.
    gpu : Gpu, optional
        That follows the histories in place of the threads, of which it takes one.

    Attributes
    ----------
    stop : threading.Event
        Whoever sets it makes the threads give up what they do.
    """

    def __init__(self, problem: Problem, threads: int, components: int = 1, gpu: Gpu | None = None) -> None:
        self.problem = problem
        self.gpu = gpu
        self.threads = threads
        self.components = components
        self.stop = threading.Event()
        self._works: dict[int, Work] = {}

    @property
    def followed(self) -> int:
        """Histories that are followed and not handed in yet."""
        return int(sum(work.counts.sum() for work in list(self._works.values())))

    def new_work(self) -> Work:
        """Empty tallies for a thread."""
        return self.gpu.new_work(self.components) if self.gpu else new_work(self.problem, self.components)

    def run(self, worker: Callable[[Work], None], watch: Callable[[], None], *, most: int | None = None) -> None:
        """Run a worker on every thread (on `most` at most) and wait; see `run_threads`."""
        self.stop.clear()

        def on_thread(number: int) -> None:
            work = self._works.get(number)
            if work is None:
                work = self._works[number] = self.new_work()
            try:
                worker(work)
            except Stopped:
                del self._works[number]  # there is half a batch in it

        run_threads(on_thread, self.threads if most is None else min(self.threads, most), self.stop, watch)

    def dismiss(self) -> None:
        """Give the memory of the tallies back."""
        self._works.clear()
