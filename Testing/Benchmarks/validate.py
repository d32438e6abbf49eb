"""``make validate``: the engine beside references, publications and closed forms; writes its section of RESULTS.md.

python -m Testing.Benchmarks.validate [--share 1.0] [--threads 0] [--estimator auto] [--only GROUP ...] [--out FILE]
python -m Testing.Benchmarks.validate --penred [--seconds 60] ...

The second form runs PenRed on cases that are not among the references (about a minute each), and writes another section.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

from .comparison import Comparison, summary, table
from .electron_cases import compare_electron_facts
from .organ_facts import compare_organ_facts
from .peer import available
from .penred_cases import all_comparisons
from .point_kernels import ELECTRON_KERNELS, PHOTON_KERNELS, compare_electron_kernel, compare_photon_kernel
from .precision import Effort
from .principles import closed_forms, energy_balance, estimators, fano, honest_sigma, oblique_source, reciprocity
from .reference_cases import CASES, REFERENCE, compare_precisely
from .results import RESULTS, write_section
from .voxel_values import compare_lanconelli, compare_mird17, compare_s_values, compare_spheres

HEADING = "Accuracy: the engine beside references, publications and closed forms"
HEADER = """A row passes when it differs by no more than max(tolerance, three standard errors of the difference), with the
engine's own standard error at most a third of the tolerance. Tolerances are the project's accuracy goals and those that the
reference cases state.
Reference: PenRed 1.15.2 (PENELOPE 2018 physics) unless a group says otherwise; "from EGSnrc" is the engine's deviation from
that code, with its standard error (its spin effects are off, so that its electron cases are a few percent off at the end of
the range).
Settings: `estimator = "{estimator}"`, {share:g} times the histories that these standard errors need.
"""
PEER_HEADING = "Accuracy: cases of our own beside PenRed"
PEER_HEADER = """PenRed 1.15.2 run for {seconds:g} s per emission in cases that are not among the references, with the
tolerances of the reference cases. The engine's materials get the mean excitation energies that PenRed gives them (it adds up
those of elements: about 8 % below ICRU Report 37, which makes its stopping powers 1 % higher), so that the physics is compared
and not that choice. The engine: {share:g} times the histories that the tolerances need.
"""
Group = Callable[[Effort], list[Comparison]]
GROUPS: dict[str, tuple[str, Group]] = {
    "cases": (
        "Case files of the reference",
        lambda effort: [row for name in CASES for row in compare_precisely(name, effort)[0]],
    ),
    "photon kernels": (
        "Photon point kernels in water: 1 cm shells 2 %, integral 1 %",
        lambda effort: [row for name in PHOTON_KERNELS for row in compare_photon_kernel(name, effort)],
    ),
    "electron kernels": (
        "Electron point kernels in water: radii of 50 % and 90 % of the energy, 1 %",
        lambda effort: [row for name in ELECTRON_KERNELS for row in compare_electron_kernel(name, effort)],
    ),
    "electrons": (
        "Electrons and positrons beside kept values of PenRed: kernels 1 %, voxels 1, 2 and 5 %, slabs 1.5 %",
        compare_electron_facts,
    ),
    "organs": (
        "Patient-like phantoms and megavolt beams beside kept values of PenRed: self 1 %, cross 2 %, beams 1 %",
        compare_organ_facts,
    ),
    "closed forms": ("Absorbed fractions of cubes from point kernels: alphas CSDA, others PenRed's", closed_forms),
    "fano": ("Fano's theorem: water of mixed densities, emission per mass; expected is the energy per mass", fano),
    "reciprocity": ("Reciprocity in water", reciprocity),
    "estimators": ("Estimator `auto` beside `analog`", estimators),
    "energy": ("Energy balance: analog 1e-6, auto three standard errors", energy_balance),
    "sigma": ("Sigma: pulls between independent seeds", honest_sigma),
    "oblique": ("Sources off the centre of an oblique phantom: centre of the dose, mm", oblique_source),
    "s values": ("Voxel S values of Y-90 in 3 mm", compare_s_values),
    "lanconelli": ("Voxel S values of Lanconelli et al. 2012 (DOSXYZnrc)", compare_lanconelli),
    "mird 17": ("Voxel S values of MIRD pamphlet 17 (EGS4), for orientation", compare_mird17),
    "spheres": ("Sphere dose factors of Tb-152, for orientation", compare_spheres),
}


def main() -> int:
    """Run all comparisons; return 1 if one that counts fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=1.0, help="histories relative to those the tolerances need")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--estimator", default="auto")
    parser.add_argument("--only", nargs="+", choices=sorted(GROUPS), default=list(GROUPS))
    parser.add_argument("--penred", action="store_true", help="cases of our own beside PenRed, which has to be installed")
    parser.add_argument("--seconds", type=float, default=60.0, help="CPU time of PenRed in each of them")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if not REFERENCE.is_dir():
        print(f"The reference cases are not there: {REFERENCE}", file=sys.stderr)
        return 2
    effort = Effort(arguments.share, arguments.threads, arguments.estimator)
    if arguments.penred:
        return _beside_penred(effort, arguments.seconds, arguments.out)
    sections, overview, failed = [], ["| group | judged | pass | | CPU s |", "|---|---:|---:|---|---:|"], []
    for name in arguments.only:
        title, group = GROUPS[name]
        begun = time.process_time()
        rows = group(effort)
        judged, passed, text = summary(rows)
        overview.append(f"| {title} | {judged} | {passed} | {text} | {time.process_time() - begun:.0f} |")
        sections.append(f"### {title}\n\n{table(rows)}")
        failed += [row for row in rows if row.judged and not row.passes]
        print(f"{name}: {passed} of {judged} pass; {text}", file=sys.stderr, flush=True)
    header = HEADER.format(share=arguments.share, estimator=arguments.estimator)
    write_section(HEADING, "make validate", "\n".join([header, *overview, "", *sections]), arguments.out)
    return _report(failed, arguments.out)


def _beside_penred(effort: Effort, seconds: float, out: Path) -> int:
    if not available():
        print("pyPenred is not installed. pip install pyPenred==1.15.2.0", file=sys.stderr)
        return 2
    rows = all_comparisons(effort, seconds, lambda found: print(table(found), file=sys.stderr, flush=True))
    judged, passed, text = summary(rows)
    header = PEER_HEADER.format(seconds=seconds, share=effort.share)
    body = f"{header}\n{passed} of {judged} pass; {text}\n\n{table(rows)}"
    write_section(PEER_HEADING, "make validate ARGUMENTS=--penred", body, out)
    return _report([row for row in rows if row.judged and not row.passes], out)


def _report(failed: list[Comparison], out: Path) -> int:
    for row in failed:
        form = f"{100 * row.deviation:+.2f} %" if row.relative else f"{row.deviation:+.2g}"
        print(f"  {row.verdict}: {row.case}, {row.quantity}: {form}")
    print(f"{len(failed)} judged quantities fail; tables in {out}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
