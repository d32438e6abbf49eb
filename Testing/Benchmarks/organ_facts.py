"""Organ means of PenRed in patient-like phantoms and megavolt beams, kept as facts, so that they are judged without PenRed.

python -m Testing.Benchmarks.organ_facts [--seconds 90] [--only TEXT]

runs PenRed again (all cases, or those whose title holds TEXT) and writes ``organ_facts.json``, which ``make validate`` reads.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from .comparison import Comparison
from .peer import PenRed, available
from .penred_cases import Setup, compare_means, megavolt_setup, patient_like_setup, peer_means
from .precision import Effort

FACTS = Path(__file__).with_name("organ_facts.json")
ABOUT = (
    "PenRed 1.15.2.0 (PENELOPE 2018 physics), C1 = C2 = 0.05; organ means with one standard error, Gy per decay (per photon of "
    "a beam), from so many seconds of histories. Cases and cut-offs: penred_cases.py. mean_excitation_eV are those of its "
    "material files, by the phantom's material index."
)


def setups() -> list[Setup]:
    """Nuclides, organs and beams that are not among the references."""
    others = ("tumour", "lung core", "cortex", "marrow")
    return [
        patient_like_setup("Lu-177", "gamma", "liver", others, 3.0, 26_000),
        patient_like_setup("Lu-177", "beta-", "marrow", ("cortex",), 1.0, 18_000),
        patient_like_setup("In-111", "gamma", "liver", others, 4.0, 24_000),
        patient_like_setup("In-111", "conversion electron", "tumour", ("liver",), 0.5, 15_000),
        patient_like_setup("Cu-67", "gamma", "marrow", ("cortex", "liver", "tumour"), 3.0, 24_000),
        patient_like_setup("I-131", "gamma", "lung rim", ("lung core", "cortex", "liver"), 4.0, 16_000),
        megavolt_setup(10.0, 25_000),
    ]


def organ_facts() -> dict[str, Any]:
    """What PenRed said, by title of the case."""
    return dict(json.loads(FACTS.read_text(encoding="utf-8"))["cases"]) if FACTS.exists() else {}


def compare_organ_facts(effort: Effort) -> list[Comparison]:
    """All of them: self 1 %, cross 2 %, beams 1 %."""
    facts, rows = organ_facts(), []
    for setup in setups():
        fact = facts[setup.title]
        means = {name: (value, error) for name, (value, error) in fact["Gy"].items()}
        rows += compare_means(setup, effort, means, {int(n): eV for n, eV in fact["mean_excitation_eV"].items()})
    return rows


def main() -> int:
    """Run PenRed and keep what it says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=90.0, help="CPU time of PenRed in each of them")
    parser.add_argument("--only", default="", help="part of the title")
    arguments = parser.parse_args()
    if not available():
        print("pyPenred is not installed. pip install pyPenred==1.15.2.0", file=sys.stderr)
        return 2
    cases, peer = organ_facts(), PenRed()
    for setup in (setup for setup in setups() if arguments.only in setup.title):
        means, excitation_eV = peer_means(setup, peer, arguments.seconds)
        cases[setup.title] = {
            "seconds": arguments.seconds,
            "mean_excitation_eV": {str(n): eV for n, eV in excitation_eV.items()},
            "Gy": {name: [float(f"{value:.5g}"), float(f"{error:.2g}")] for name, (value, error) in means.items()},
        }
        lines = ",\n".join(f"{json.dumps(title)}: {json.dumps(fact)}" for title, fact in cases.items())
        FACTS.write_text(f'{{\n"about": {json.dumps(ABOUT)},\n"cases": {{\n{lines}\n}}\n}}\n', encoding="utf-8")
        print(setup.title, cases[setup.title]["Gy"], file=sys.stderr, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
