"""Progress on a terminal, or as one JSON object per line for a program that watches."""

from __future__ import annotations

import json
import sys
import time
from typing import TextIO

from ..core import Progress, ProgressReport

TITLES = {
    "read": "Reading images",
    "segment": "Finding organs",
    "phantom": "Building the phantom",
    "activity": "Activity over time",
    "transport": "Transporting radiation",
    "results": "Organ doses",
    "radiomics": "Radiomics",
    "report": "Report",
    "scene": "Slicer scene",
}


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


def text_progress(stream: TextIO | None = None, interval_s: float = 0.2) -> Progress:
    """Report for people: one line that is written over on a terminal, a line every few seconds elsewhere."""
    out = stream or sys.stderr
    terminal = out.isatty()
    pause = interval_s if terminal else 5.0
    last: dict[str, object] = {"stage": "", "time": 0.0, "width": 0}

    def report(state: ProgressReport) -> None:
        now = time.monotonic()
        new_stage = state.stage != last["stage"]
        done = state.fraction >= 1.0
        if not (new_stage or done) and now - float(str(last["time"])) < pause:
            return
        left = "" if state.seconds_left is None or done else f", {_duration(state.seconds_left)} left"
        line = f"{TITLES.get(state.stage, state.stage):<24} {100 * state.fraction:3.0f} %{left}  {state.message}".rstrip()
        if terminal:
            line = line[:118]
            prefix = "\n" if new_stage and last["stage"] else "\r"
            out.write(prefix + line.ljust(int(str(last["width"])) if not new_stage else 0))
        else:
            out.write(line + "\n")
        out.flush()
        last.update(stage=state.stage, time=now, width=len(line))

    return report


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
