"""The engine on an NVIDIA GPU: accuracy again, histories per second and efficiency beside one core of the CPU.

    python -m Testing.Benchmarks.bench_cuda [--share 1.0] [--times 300] [--speed-only] [--out FILE]

Needs a GPU, numba-cuda (pip install "synthdose[cuda]") and ../shared/reference; says so where one is missing. Not run so far:
no GPU could be had.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from SynthDoseLib.core import SynthDoseError
from SynthDoseLib.transport import RunSettings, simulate
from SynthDoseLib.transport.cuda_device import require_gpu

from .comparison import Comparison, summary, table
from .efficiency import Contest, Measured, measure_engine
from .precision import Effort
from .reference_cases import REFERENCE
from .results import RESULTS, write_section
from .speed_cases import rows as speed_rows
from .validate import GROUPS

HEADING = "GPU: accuracy, and speed beside one core"
GOAL = 100.0
HEADER = """On {device}. {kernel}

Efficiency is 1 / (sigma^2 time): of the CPU by the time of one core, of the GPU by the clock on the wall, with its
copies to the computer but without tables and compilation. At least {goal:g} times is the goal.

| case | histories/s, one core | histories/s, GPU | ratio | efficiency ratio, least and largest of the quantities | |
|---|---:|---:|---:|---:|---|
"""


def main() -> int:
    """Measure; return 1 if a judged quantity or a goal is missed, 2 if it cannot be measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=1.0, help="histories of the accuracy table; see validate")
    parser.add_argument("--times", type=float, default=300.0, help="histories of the GPU over those of the core")
    parser.add_argument("--speed-only", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    try:
        require_gpu()
    except SynthDoseError as error:
        print(error, file=sys.stderr)
        return 2
    if not REFERENCE.is_dir():
        print(f"The reference cases are not there: {REFERENCE}", file=sys.stderr)
        return 2
    device, lines, missed = "", [], 0
    for row in speed_rows():
        core = measure_engine(row.contest)
        device, gpu = measure_gpu(row.contest, arguments.times)
        line, passes = speed_line(row.contest.title, core, gpu)
        print(line, file=sys.stderr, flush=True)
        lines.append(line)
        missed += not passes
    parts = [HEADER.format(device=device, kernel=describe_kernel(), goal=GOAL) + "\n".join(lines) + "\n"]
    failed: list[Comparison] = []
    for title, group in [] if arguments.speed_only else GROUPS.values():
        rows = group(Effort(arguments.share, device="cuda"))
        judged, passed, text = summary(rows)
        print(f"{title}: {passed} of {judged} pass; {text}", file=sys.stderr, flush=True)
        parts.append(f"### {title}\n\n{passed} of {judged} pass; {text}\n\n{table(rows)}")
        failed += [found for found in rows if found.judged and not found.passes]
    write_section(HEADING, "python -m Testing.Benchmarks.bench_cuda", "\n".join(parts), arguments.out)
    print(f"{len(failed)} judged quantities and {missed} goals are missed; tables in {arguments.out}")
    return 1 if failed or missed else 0


def measure_gpu(contest: Contest, times: float) -> tuple[str, Measured]:
    """Name of the GPU and what it makes of a contest, with `times` the histories; a first run loads the kernels."""
    named = contest.organs or contest.voxels_of
    settings = RunSettings(histories=20_000, organs=named, threads=1, estimator=contest.estimator, device="cuda")
    case = contest.case
    simulate(case.phantom, case.source, case.emissions, settings)
    settings = replace(settings, histories=int(times * contest.histories))
    result = simulate(case.phantom, case.source, case.emissions, settings)
    seconds = result.transport_cpu_s
    costs = {
        organ.organ: (organ.sigma_Gy / organ.dose_Gy) ** 2 * seconds for organ in result.organs if organ.organ in contest.organs
    }
    return result.device, Measured(costs, result.histories / seconds)


def speed_line(title: str, core: Measured, gpu: Measured) -> tuple[str, bool]:
    """Row of the table, and whether every quantity reaches the goal."""
    ratios = np.array([core.cost_s[name] / cost for name, cost in gpu.cost_s.items() if name in core.cost_s])
    passes = bool(ratios.min() >= GOAL)
    rate = gpu.histories_per_s / core.histories_per_s
    return (
        f"| {title} | {core.histories_per_s:.3g} | {gpu.histories_per_s:.3g} | {rate:.0f} | {ratios.min():.0f} to "
        f"{ratios.max():.0f} | {'ok' if passes else 'missed'} |",
        passes,
    )


def describe_kernel() -> str:
    """Registers, local memory and occupancy of the kernel as it was compiled."""
    from numba import cuda

    from SynthDoseLib.transport.cuda_kernels import BLOCKS_PER_MULTIPROCESSOR, THREADS_PER_BLOCK, run_on_device

    device = cuda.get_current_device()
    registers = max(run_on_device.get_regs_per_thread().values())
    local = max(run_on_device.get_local_mem_per_thread().values())
    share = THREADS_PER_BLOCK * BLOCKS_PER_MULTIPROCESSOR / device.MAX_THREADS_PER_MULTIPROCESSOR
    return (
        f"The kernel takes {registers} registers and {local} bytes of local memory per thread; at least "
        f"{BLOCKS_PER_MULTIPROCESSOR} blocks of {THREADS_PER_BLOCK} threads fit a multiprocessor, {100 * share:.0f} % of its "
        "threads."
    )


if __name__ == "__main__":
    sys.exit(main())
