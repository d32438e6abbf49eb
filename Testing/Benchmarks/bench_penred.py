"""``make bench``: efficiency 1 / (sigma^2 CPU time) of the engine beside PenRed, measured in the same run, one thread each.

    python -m Testing.Benchmarks.bench_penred [--seconds 12] [--only NAME ...] [--out FILE]

PenRed runs in processes of its own, with the settings of ../shared/reference (C1 = C2 = 0.05, electrons down to 10 keV; in the
beam 200 keV) and with its fast ones (0.1, 50 keV; in the beam 200 keV). Both times are those of the histories alone, PenRed's
as it reports it, the engine's with its pilot run; tables, materials and compilation are left out on both sides. Where several
emissions make a dose, PenRed is credited with the best possible split of its time among them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .efficiency import Measured, measure_engine, measure_peer
from .peer import PenRed, available
from .reference_cases import REFERENCE
from .results import RESULTS, write_section
from .speed_cases import Row, rows
from .speed_system import Goal, first_dose, implant, linearity, thread_scaling, voxels_and_memory

HEADING = "Speed: the engine beside PenRed"
HEADER = """One thread each. Ratios of 1 / (sigma^2 CPU time) of the engine to those of PenRed 1.15.2, with the settings of the
reference cases and with its fast ones (C1 = C2 = 0.1, electrons down to 50 keV; 6 MV: 200 keV in both). Both times are those of
the histories alone. The quantities are means of organs or regions, and voxels: the mean variance of the voxels of an organ over
the square of their mean dose, averaged over organs. Histories per second are of the engine / PenRed / PenRed fast. "Asked" is
the goals: at least, aim, and at least against the fast settings. PenRed's variances are those it reports; between
12 seeds the doses of 27 voxels of Y-90 spread with 1.01(0.08) times those. The engine's come from the spread of 64 batches, the
mean of six runs; histories of a batch begin on a lattice that is shifted at random from batch to batch, which lowers the
variance of organ means more than that of voxels.

| case | quantity | histories/s | engine, s for 1 % | ratio | ratio, PenRed fast | asked | |
|---|---|---:|---:|---:|---:|---|---|"""


def main() -> int:
    """Measure and write the tables; return 1 if something asked for is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=12.0, help="CPU time of each run of PenRed")
    parser.add_argument(
        "--only", nargs="+", default=[], help="words in the names of the rows to measure; 'system' for the rest"
    )
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if not REFERENCE.is_dir():
        print(f"The reference cases are not there: {REFERENCE}", file=sys.stderr)
        return 2
    if not available():
        print(
            "pyPenred is not installed, so the engine's own times stand alone. pip install pyPenred==1.15.2.0", file=sys.stderr
        )
    peer = PenRed() if available() else None
    lines, missed = [HEADER], []
    for row in rows():
        if _chosen(row.contest.title, arguments.only):
            found, failures = _lines(row, peer, arguments.seconds)
            print("\n".join(found), flush=True)
            lines += found
            missed += failures
    if _chosen("system", arguments.only):
        text, failures = _system()
        print(text, flush=True)
        lines.append(text)
        missed += failures
    write_section(HEADING, "make bench", "\n".join(lines) + "\n", arguments.out)
    for name in missed:
        print(f"missed: {name}")
    return 1 if missed else 0


def _chosen(title: str, words: list[str]) -> bool:
    return not words or any(word.lower() in title.lower() for word in words)


def _lines(row: Row, peer: PenRed | None, seconds: float) -> tuple[list[str], list[str]]:
    own = measure_engine(row.contest)
    peers: list[Measured] = []
    if peer is not None:
        peers = [measure_peer(row.contest, peer, settings, seconds) for settings in (row.settings, row.fast)]
    rates = " / ".join(f"{measured.histories_per_s:.0f}" for measured in (own, *peers))
    asked = f">= {row.least:g}, aim {row.aim:g}" + (f"; fast >= {row.fast_least:g}" if row.fast_least else "")
    lines, missed = [], []
    for quantity, cost in own.cost_s.items():
        ratios = [measured.cost_s[quantity] / cost for measured in peers]
        verdict = ""
        if ratios:
            met = ratios[0] >= row.least and ratios[1] >= (row.fast_least or 0)
            verdict = "aim met" if met and ratios[0] >= row.aim else "met" if met else "missed"
            if not met and (row.judged == "all" or quantity == row.contest.voxels_name):
                missed.append(f"{row.contest.title}, {quantity}: {ratios[0]:.0f} and {ratios[1]:.0f}")
        shown = " | ".join(f"{ratio:.0f}" for ratio in ratios) or "- | -"
        lines.append(f"| {row.contest.title} | {quantity} | {rates} | {1e4 * cost:.2g} | {shown} | {asked} | {verdict} |")
    return lines, missed


def _system() -> tuple[str, list[str]]:
    goals: list[Goal] = [implant(), thread_scaling(), *first_dose()]
    lines = ["", "| | measured, median and range | asked | |", "|---|---|---|---|"]
    lines += [
        f"| {g.name} | {g.text} | {g.asked} | {'aim met' if g.aim_met else 'met' if g.met else 'missed'} |" for g in goals
    ]
    text = "\n".join(lines)
    text += "\n\nTime and memory against voxels: patient phantom, Lu-177 in the kidneys, 1 M histories, one thread.\n\n"
    text += voxels_and_memory() + "\nTime against histories: the same in 80 x 60 x 80 voxels.\n\n" + linearity()
    return text, [f"{goal.name}: {goal.text}" for goal in goals if not goal.met]


if __name__ == "__main__":
    sys.exit(main())
