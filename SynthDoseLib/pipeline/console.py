"""Progress on a terminal, or as one JSON object per line for a program that watches."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TextIO

from ..core import Progress, ProgressReport


def open_console(kind: str) -> Progress:
    """Return what reports progress, "json", "slicer" or "text", and make the standard streams such that no message can fail.

    A stream that is closed swallows what is written; what its encoding does not know is written as an escape.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        stream = getattr(sys, name)
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    reporters = {"json": json_progress, "slicer": slicer_progress}
    return reporters[kind]() if kind in reporters else TextProgress()


def json_progress(stream: TextIO | None = None) -> Progress:
    """Report as JSON lines with the keys stage, fraction, seconds_left, message."""
    out = stream or sys.stderr

    def report(state: ProgressReport) -> None:
        record = {
            "stage": state.stage,
            "fraction": round(min(1.0, max(0.0, state.fraction)), 4),
            "seconds_left": None if state.seconds_left is None else round(state.seconds_left, 1),
            "message": state.message,
        }
        out.write(json.dumps(record) + "\n")
        out.flush()

    return report


def slicer_progress(stream: TextIO | None = None) -> Progress:
    """Report to standard output as a command line module of 3D Slicer: it shows what comes on standard error as a fault."""
    out = stream or sys.stdout

    def report(state: ProgressReport) -> None:
        fraction = min(1.0, max(0.0, state.fraction))
        out.write(f"<filter-name>{state.title}</filter-name>\n<filter-progress>{fraction:.4f}</filter-progress>\n")
        out.flush()

    return report


class TextProgress:
    """Report for people: one line that is written over on a terminal, a line every few seconds elsewhere.

    Parameters
    ----------
    stream : text stream, optional
        Standard error if not given.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._out = stream or sys.stderr
        self._terminal = self._out.isatty()
        self._pause_s = 0.2 if self._terminal else 5.0
        self._stage = ""
        self._written_at = 0.0
        self._width = 0

    def __call__(self, state: ProgressReport) -> None:
        now = time.monotonic()
        new_stage = state.stage != self._stage
        done = state.fraction >= 1.0
        if not (new_stage or done) and now - self._written_at < self._pause_s:
            return
        left = "" if state.seconds_left is None or done else f", {_duration(state.seconds_left)} left"
        line = f"{state.title:<24} {100 * state.fraction:3.0f} %{left}  {state.message}".rstrip()
        if self._terminal:
            line = line[:118]
            start = "\n" if new_stage and self._stage else "\r"
            self._out.write(start + line.ljust(0 if new_stage else self._width))
        else:
            self._out.write(line + "\n")
        self._out.flush()
        self._stage, self._written_at, self._width = state.stage, now, len(line)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
