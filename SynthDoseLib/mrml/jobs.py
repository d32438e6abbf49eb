"""A calculation in a process of its own, watched without blocking and without threads: the panels poll it by a timer.

Messages go through a file, not a pipe, because Python threads that would drain a pipe starve under Slicer's event loop.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core import ProgressReport, SynthDoseError

GRACE_S = 0.6
"""How long a cancelled process may take to end by itself before it is killed."""

LOG_LINES_KEPT = 2000

BAD_INPUT = 2
"""Exit status of ``synthdose`` when it refuses its input."""

LAUNCHER = "PythonSlicer"
"""Slicer's Python is a small program that starts the interpreter as its child, and dies of a signal without passing it on."""

KILLED = (-9, 137)
"""Exit statuses of a process that the system or a user has killed."""


@dataclass(frozen=True)
class RunState:
    """What `BackgroundRun.poll` found.

    Attributes
    ----------
    running : bool
    exitCode : int or None
        None while running.
    cancelled : bool
        Whether `BackgroundRun.cancel` was called.
    progress : ProgressReport or None
        The last one received.
    newLines : tuple of str
        Lines for people that came since the last poll.
    stages : tuple of ProgressReport
        The last one of each stage, in the order in which they began.
    """

    running: bool
    exitCode: int | None
    cancelled: bool
    progress: ProgressReport | None
    newLines: tuple[str, ...]
    stages: tuple[ProgressReport, ...] = ()


def pythonExecutable() -> str:
    """Return the plain Python interpreter: PythonSlicer inside Slicer, this one elsewhere.

    Raises
    ------
    SynthDoseError
        If there is no PythonSlicer and this program is not Python: Slicer would start a second Slicer.
    """
    found = shutil.which(LAUNCHER) or sys.executable
    if not Path(found).stem.lower().startswith("python"):
        raise SynthDoseError(
            f"Slicer's Python ({LAUNCHER}) is not on the search path. Start Slicer by its own icon or launcher."
        )
    return found


def verbCommand(arguments: Sequence[str], python: str | None = None) -> list[str]:
    """Return the command of a verb with its arguments and progress in JSON lines; the same as on the command line.

    Examples
    --------
    >>> verbCommand(["run", "plan.toml", "--out", "run"], python="python")
    ['python', '-m', 'SynthDoseLib', 'run', 'plan.toml', '--out', 'run', '--progress', 'json']
    """
    return [python or pythonExecutable(), "-m", "SynthDoseLib", *arguments, "--progress", "json"]


def progressFromLine(line: str) -> ProgressReport | None:
    """Return the report of a line of ``--progress json``, None for any other line.

    Examples
    --------
    >>> progressFromLine('{"stage": "transport", "fraction": 0.5, "seconds_left": 12.0, "message": ""}').fraction
    0.5
    >>> progressFromLine("reading ct/") is None
    True
    """
    if not line.startswith("{"):
        return None
    try:
        found = json.loads(line)
        left = found.get("seconds_left")
        return ProgressReport(
            str(found["stage"]),
            min(1.0, max(0.0, float(found["fraction"]))),
            None if left is None else float(left),
            str(found.get("message") or ""),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def failureText(exitCode: int | None, lines: Sequence[str]) -> str:
    """Return why a run failed: the command line's own message, or else the last lines that it wrote.

    Examples
    --------
    >>> failureText(2, ["reading", "synthdose: There is no CT."])
    'There is no CT.'
    >>> print(failureText(-9, ["Transporting"]))
    The calculation ended unexpectedly (exit status -9: killed, often for want of memory).
    Transporting
    """
    said = [index for index, line in enumerate(lines) if line.startswith("synthdose: ")]
    if said:
        return "\n".join(lines[said[-1] :]).removeprefix("synthdose: ")
    killed = ": killed, often for want of memory" if exitCode in KILLED else ""
    return "\n".join([f"The calculation ended unexpectedly (exit status {exitCode}{killed}).", *lines[-5:]])


class BackgroundRun:
    """A process whose messages are read when `poll` is called.

    Parameters
    ----------
    command : sequence of str
    logFile : path-like
        Receives stdout and stderr of the process; its folder has to exist.
    environment : mapping, optional
        Changes to this process's environment. The library's own folder is always added to PYTHONPATH.

    Raises
    ------
    SynthDoseError
        If the process cannot be started or the log file cannot be written.
    """

    def __init__(self, command: Sequence[str], logFile: str | Path, environment: Mapping[str, str] | None = None) -> None:
        self.logFile = Path(logFile)
        library = str(Path(__file__).resolve().parents[2])
        paths = [library, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        variables = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
            "PYTHONUNBUFFERED": "1",
            "PYTHONIOENCODING": "utf-8",
            **(environment or {}),
        }
        try:
            with self.logFile.open("wb") as log:
                self._process = subprocess.Popen(
                    list(command),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=variables,
                    creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
                )
            self._stream = self.logFile.open("rb")
        except OSError as error:
            raise SynthDoseError(f"Cannot start {command[0]}: {error.strerror or error}.") from error
        self._launched = Path(command[0]).stem == LAUNCHER
        self._partial = b""
        self._progress: ProgressReport | None = None
        self._stages: dict[str, ProgressReport] = {}
        self._cancelledAt: float | None = None
        self._lines: deque[str] = deque(maxlen=LOG_LINES_KEPT)

    @property
    def lines(self) -> tuple[str, ...]:
        """Lines for people received so far, the last `LOG_LINES_KEPT`."""
        return tuple(self._lines)

    def poll(self) -> RunState:
        """Read what has come since the last call; return at once."""
        exitCode = self._process.poll()
        cancelled = self._cancelledAt is not None
        if exitCode is None and self._cancelledAt is not None and time.monotonic() - self._cancelledAt > GRACE_S:
            self._kill()
            exitCode = self._process.wait()
        new = self._read(final=exitCode is not None)
        self._lines.extend(new)
        return RunState(exitCode is None, exitCode, cancelled, self._progress, tuple(new), tuple(self._stages.values()))

    def cancel(self) -> None:
        """Ask the process to stop; `poll` kills it when it has not after `GRACE_S`. Returns at once."""
        if self._cancelledAt is not None or self._process.poll() is not None:
            return
        self._cancelledAt = time.monotonic()
        if os.name == "nt":
            self._kill()  # there is no signal that asks
            return
        children = self._descendants() if self._launched else []
        for process in children or [self._process]:
            with contextlib.suppress(Exception):
                process.send_signal(signal.SIGINT)

    def close(self) -> None:
        """Kill the process if it still runs, and release the log file. May be called again."""
        if self._process.poll() is None:
            self._kill()
            self._process.wait()
        self._stream.close()

    def _descendants(self) -> list[Any]:
        """Processes that were started by the process, or by one of these; none without psutil."""
        try:
            import psutil

            return list(psutil.Process(self._process.pid).children(recursive=True))
        except Exception:  # not installed yet, or the process has just ended
            return []

    def _kill(self) -> None:
        for process in (*self._descendants(), self._process):
            with contextlib.suppress(Exception):
                process.kill()

    def _read(self, final: bool) -> list[str]:
        if self._stream.closed:
            return []
        *complete, self._partial = (self._partial + self._stream.read()).split(b"\n")
        if final and self._partial:
            complete.append(self._partial)
            self._partial = b""
        lines = []
        for raw in complete:
            line = raw.decode("utf-8", errors="replace").rstrip("\r")
            report = progressFromLine(line)
            if report is not None:
                earlier = self._stages.get(report.stage)
                if earlier is not None and earlier.fraction >= 1 > report.fraction:
                    del self._stages[report.stage]  # goes on after others: it stands behind them
                self._progress = self._stages[report.stage] = report
            elif line.strip():
                lines.append(line)
        return lines
