"""What the caller hears while a simulation is prepared and runs."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..core import Progress, ProgressReport, VoxelPhantom
from .batches import BatchRunner

STAGE = "transport"
_PILOT = 0.03  # of the way, when the run begins
_NAMED = 4  # organs whose sigma fits into a line


class Reporter:
    """Says what is being done, how far the run is, and how sure the organs are.

    Parameters
    ----------
    progress : callable
    phantom : VoxelPhantom
    organs : sequence of int, (n,)
        Label indices of the organs to name.
    """

    def __init__(self, progress: Progress, phantom: VoxelPhantom, organs: NDArray[np.int64] | Sequence[int]) -> None:
        names = {organ.index: organ.name for organ in phantom.labels.organs}
        self._progress = progress
        self._organs = np.array(organs, np.int64)
        self._names = [names[int(index)] for index in self._organs]
        self._message = "Looking at the phantom"
        self._begun = time.monotonic()
        self._deadline = np.inf
        self._earlier: int | None = None
        self._furthest = _PILOT
        self._fraction = 0.0

    def step(self, message: str, fraction: float = 0.0) -> None:
        """Something begins that has no measure of its own, before the histories (`fraction` 0) or after them (1)."""
        self._message, self._begun, self._fraction = message, time.monotonic(), fraction
        self._progress(ProgressReport(STAGE, fraction, None, message))

    def idle(self) -> None:
        """It goes on."""
        seconds = time.monotonic() - self._begun
        after = f"; {seconds:.0f} s" if seconds >= 2 else ""
        self._progress(ProgressReport(STAGE, self._fraction, None, self._message + after))

    def pilot(self, followed: int) -> None:
        """The pilot run goes on."""
        self._progress(ProgressReport(STAGE, _PILOT, None, f"Pilot run: {followed} histories"))

    def begin(self, deadline: float) -> None:
        """The run begins, and ends when ``time.monotonic`` is `deadline` at the latest."""
        self._deadline, self._begun, self._earlier = deadline, time.monotonic(), None

    def running(self, runner: BatchRunner, planned: int) -> None:
        """The run goes on, until `planned` batches are done."""
        statistics, followed = runner.statistics, runner.followed
        if self._earlier is None:
            self._earlier = int(statistics.counts.sum())
        target = max(planned, statistics.done) * runner.batches.size
        fraction = min(1.0, followed / target)
        now = time.monotonic()
        fresh = followed - self._earlier
        left = (now - self._begun) * max(0.0, target - followed) / fresh if fresh > 0 else None
        until = max(0.0, self._deadline - now)
        if np.isfinite(until) and (left is None or until < left):
            left = until
            fraction = max(fraction, (now - self._begun) / max(1e-6, self._deadline - self._begun))
        message = f"{followed} histories"
        if statistics.done > 2 and self._organs.size:
            errors = statistics.relative_errors(self._organs)
            known = [f"{name} {100 * e:.2g} %" for name, e in zip(self._names, errors, strict=True) if np.isfinite(e)]
            more = f" and {len(known) - _NAMED} more" if len(known) > _NAMED else ""
            message += f"; sigma {', '.join(known[:_NAMED])}{more}" if known else ""
        # a run that turns out longer than planned does not go backwards
        self._furthest = max(self._furthest, _PILOT + (1 - _PILOT) * min(1.0, fraction))
        self._progress(ProgressReport(STAGE, self._furthest, left, message))
