"""What the speed table asks of the engine alone: threads, implants, first dose, compilation, voxels, memory, histories."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from SynthDoseLib.pipeline.case import Case
from SynthDoseLib.transport import RunSettings, SimulationResult, simulate

from .reference_cases import load_case
from .speed_cases import beam_with_cube, titanium

SHAPES = ((64, 64, 64), (128, 128, 128), (256, 256, 256), (400, 512, 512))
REPEATS = 5


@dataclass(frozen=True)
class Goal:
    """A measured number beside what is asked for.

    Attributes
    ----------
    text : str
        What was measured, with its spread.
    met : bool
    aim_met : bool
    """

    name: str
    text: str
    asked: str
    met: bool
    aim_met: bool


def _run(case: Case, histories: int, threads: int = 1, seed: int = 1) -> SimulationResult:
    settings = RunSettings(histories=histories, device="cpu", threads=threads, seed=seed)
    return simulate(case.phantom, case.source, case.emissions, settings)


def thread_scaling(histories: int = 8_000_000) -> Goal:
    """Wall-clock time of whole runs with one thread over that with two; median of interleaved pairs."""
    case = load_case("f_patient_Lu-177_kidneys")
    _run(case, 10_000)
    ratios = []
    for seed in range(REPEATS):
        one, two = (_run(case, histories, threads, seed).wall_s for threads in (1, 2))
        ratios.append(one / two)
    ratio = statistics.median(ratios)
    return Goal(
        "2 threads / 1 thread", f"{ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f})", ">= 1.85", ratio >= 1.85, ratio >= 1.85
    )


def implant(histories: int = 400_000) -> Goal:
    """Own CPU time per history with a titanium cube of 12 mm over that without; median of interleaved pairs."""
    cases = [beam_with_cube(material) for material in (titanium(), None)]
    for case in cases:
        _run(case, 2000)
    ratios = []
    for seed in range(REPEATS):
        with_cube, without = (_run(case, histories, seed=seed).transport_cpu_s for case in cases)
        ratios.append(with_cube / without)
    ratio = statistics.median(ratios)
    text = f"{ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    return Goal("6 MV, 12 mm titanium cube: own time with / without", text, "<= 1.3, aim 1.1", ratio <= 1.3, ratio <= 1.1)


def first_dose() -> list[Goal]:
    """First dose in a new process with compiled kernels, and with none."""
    with tempfile.TemporaryDirectory() as folder:
        fresh = in_process({"task": "first dose"}, {"NUMBA_CACHE_DIR": str(Path(folder) / "kernels")})
    warm = [in_process({"task": "first dose"}) for _ in range(3)]
    first = statistics.median(found["first_s"] for found in warm)
    whole = statistics.median(found["first_s"] + found["loading_s"] for found in warm)
    second = statistics.median(found["second_s"] for found in warm)
    compiled = fresh["first_s"] - first
    text = f"{first:.2f} s in a new process ({whole:.2f} s with loading Python modules and the case), {second:.2f} s the next"
    return [
        Goal("first dose, warm (20000 histories, patient)", text, "< 1 s", first < 1, first < 1),
        Goal("compiling, once per installation", f"{compiled:.0f} s", "<= 30 s", compiled <= 30, compiled <= 30),
    ]


def voxels_and_memory(histories: int = 1_000_000) -> str:
    """Table of time and memory against voxels."""
    lines = [
        "| voxels | transport, CPU s | whole run, s | memory on top of the phantom, GiB | bytes per voxel | announced, GiB |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for shape in SHAPES:
        found = in_process({"task": "voxels", "shape": list(shape), "histories": histories})
        grown = found["peak_GiB"] - found["before_GiB"]
        size = " x ".join(str(n) for n in reversed(shape))
        lines.append(
            f"| {size} | {found['transport_cpu_s']:.2f} | {found['wall_s']:.2f} | {grown:.2f} | "
            f"{grown * 2**30 / found['voxels']:.0f} | {found['said_GiB']:.2g} |"
        )
    return "\n".join(lines) + "\n"


def linearity() -> str:
    """Table of time against histories."""
    case = load_case("f_patient_Lu-177_kidneys")
    _run(case, 10_000)
    lines = ["| histories | transport, CPU s | microseconds per history | whole run, s |", "|---:|---:|---:|---:|"]
    for histories in (100_000, 1_000_000, 10_000_000):
        result = _run(case, histories)
        lines.append(
            f"| {result.histories} | {result.transport_cpu_s:.2f} | {1e6 * result.transport_cpu_s / result.histories:.2f} | "
            f"{result.wall_s:.2f} |"
        )
    return "\n".join(lines) + "\n"


def in_process(job: dict[str, Any], environment: dict[str, str] | None = None) -> dict[str, float]:
    """Run `speed_process` and return what it measured."""
    command = [sys.executable, "-m", "Testing.Benchmarks.speed_process"]
    process = subprocess.run(
        command, input=json.dumps(job), text=True, check=False, capture_output=True, env={**os.environ, **(environment or {})},
        cwd=Path(__file__).resolve().parents[2],
    )  # fmt: skip
    if process.returncode:
        raise RuntimeError(f"{job} failed: {process.stderr[-1000:]}")
    result: dict[str, float] = json.loads(process.stdout)
    return result
