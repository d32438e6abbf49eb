"""Work in threads, while the caller is told how it goes and may stop it at any time."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

WAKE_SECONDS = 0.15
PATIENCE_SECONDS = 0.6  # that threads get to stop by themselves


def run_threads(
    worker: Callable[[int], None],
    count: int,
    stop: threading.Event,
    watch: Callable[[], None],
    *,
    patience_s: float = PATIENCE_SECONDS,
) -> None:
    """Run ``worker(0)`` to ``worker(count - 1)`` in threads of their own, and wait for them.

    Parameters
    ----------
    worker : callable
        Has to look at `stop` several times a second.
    count : int
    stop : threading.Event
        Set when a worker fails, or `watch` raises.
    watch : callable
        Called several times a second. What it raises (and Ctrl-C) goes on to the caller; threads that have not stopped by then
        are left behind, and end by themselves.
    patience_s : float
        How long such threads are waited for.
    """
    ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def guarded(number: int) -> None:
        try:
            worker(number)
        except BaseException as error:
            stop.set()
            ended.put(error)
        else:
            ended.put(None)

    for number in range(count):
        threading.Thread(target=guarded, args=(number,), name=f"transport-{number}", daemon=True).start()
    running = count
    failure: BaseException | None = None
    try:
        while running:
            try:
                error = ended.get(timeout=WAKE_SECONDS)
                running -= 1
                failure = failure or error
            except queue.Empty:
                pass
            watch()
    except BaseException:
        stop.set()
        _wait_for(ended, running, time.monotonic() + patience_s)
        raise
    if failure is not None:
        raise failure


def _wait_for(ended: queue.SimpleQueue[BaseException | None], running: int, until: float) -> None:
    for _ in range(running):
        try:
            ended.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            return


def in_background(function: Callable[[], Result], watch: Callable[[], None]) -> Result:
    """Return what a function returns, which runs in a thread and cannot be stopped: compiling, building tables.

    `watch` is called several times a second; what it raises (and Ctrl-C) reaches the caller at once.
    """
    results: list[Result] = []
    run_threads(lambda _: results.append(function()), 1, threading.Event(), watch, patience_s=0.0)
    return results[0]
