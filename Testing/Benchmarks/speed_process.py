"""One measurement in a process of its own: reads a job as JSON from standard input, writes what it measured as JSON.

Jobs: ``{"task": "first dose"}``: seconds to the first dose after the start, and of a second one;
``{"task": "voxels", "shape": [nk, nj, ni], "histories": n}``: times and peak memory of a run in the resampled patient.
"""

from __future__ import annotations

import time

STARTED = time.perf_counter()

import json  # noqa: E402
import re  # noqa: E402
import sys  # noqa: E402
import threading  # noqa: E402
from typing import Any  # noqa: E402

import psutil  # noqa: E402

from SynthDoseLib.core import ProgressReport  # noqa: E402
from SynthDoseLib.transport import RunSettings, simulate  # noqa: E402

from .reference_cases import load_case  # noqa: E402
from .speed_cases import resampled_patient  # noqa: E402

FIRST_HISTORIES = 20_000
SAMPLE_SECONDS = 0.005


def first_dose() -> dict[str, float]:
    """Times of the first and of the second dose map of this process, patient phantom, Lu-177."""
    case = load_case("f_patient_Lu-177_kidneys")
    ready = time.perf_counter()
    settings = RunSettings(histories=FIRST_HISTORIES, seed=1, device="cpu")
    simulate(case.phantom, case.source, case.emissions, settings)
    first = time.perf_counter()
    simulate(case.phantom, case.source, case.emissions, settings)
    second = time.perf_counter()
    return {"loading_s": ready - STARTED, "first_s": first - ready, "second_s": second - first}


def voxels(shape: tuple[int, int, int], histories: int) -> dict[str, float]:
    """Times and memory of a run with one thread; memory on top of what the phantom takes."""
    case = resampled_patient(shape)
    small = resampled_patient((16, 16, 16))
    simulate(small.phantom, small.source, small.emissions, RunSettings(histories=1000, device="cpu", threads=1))
    said: list[float] = []

    def listen(report: ProgressReport) -> None:
        found = re.search(r"([0-9.]+(?:e[+-]?[0-9]+)?) GiB", report.message)
        if found:
            said.append(float(found[1]))

    with PeakMemory() as memory:
        begun = time.perf_counter()
        settings = RunSettings(histories=histories, device="cpu", threads=1)
        result = simulate(case.phantom, case.source, case.emissions, settings, listen)
        wall_s = time.perf_counter() - begun
    return {
        "voxels": case.phantom.grid.size, "wall_s": wall_s, "transport_cpu_s": result.transport_cpu_s,
        "peak_GiB": memory.peak / 2**30, "before_GiB": memory.before / 2**30, "said_GiB": max(said, default=float("nan")),
    }  # fmt: skip


class PeakMemory:
    """Largest resident memory of this process while it is open, bytes."""

    def __enter__(self) -> PeakMemory:
        self._process = psutil.Process()
        self.before = self.peak = self._process.memory_info().rss
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            self.peak = max(self.peak, self._process.memory_info().rss)


def main() -> None:
    """Do the job."""
    job: dict[str, Any] = json.load(sys.stdin)
    found = first_dose() if job["task"] == "first dose" else voxels(tuple(job["shape"]), job["histories"])
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
