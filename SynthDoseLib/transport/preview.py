"""The dose so far, shown while a simulation runs."""

from __future__ import annotations

import time
from collections.abc import Callable

from ..core import DoseMap


class Preview:
    """Calls `show` with the dose so far, at most every `seconds`, and for at most a tenth of the time.

    Parameters
    ----------
    show : callable
        Gets a `DoseMap`, with the standard error of what has been done.
    seconds : float
    """

    def __init__(self, show: Callable[[DoseMap], None], seconds: float) -> None:
        self._show, self._seconds = show, seconds
        self._pause, self._shown_at = seconds, time.monotonic()

    def offer(self, dose: Callable[[], DoseMap]) -> None:
        """Show what `dose` returns, if it is time."""
        begun = time.monotonic()
        if begun - self._shown_at < self._pause:
            return
        self._show(dose())
        self._shown_at = time.monotonic()
        self._pause = max(self._seconds, 9 * (self._shown_at - begun))
