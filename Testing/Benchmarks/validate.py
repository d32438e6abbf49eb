"""``make validate``: the engine beside PenRed in every reference case; writes its section of RESULTS.md.

python -m Testing.Benchmarks.validate [--share 1.0] [--threads 0] [--estimator auto] [--out FILE]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .reference_cases import (
    CASES,
    PHOTON_KERNELS,
    REFERENCE,
    Comparison,
    compare_case,
    compare_photon_kernel,
    compare_s_values,
)
from .results import RESULTS, write_section

HEADING = "Accuracy: the engine beside PenRed"
HEADER = """Values and tolerances of PenRed 1.15.2 (PENELOPE 2018 physics) from the reference cases; a quantity passes when it
differs by no more than its tolerance or three standard errors of the difference. Engine settings: those of the case files
(`estimator = "{estimator}"`, {share:g} times their histories).

"""


def main() -> int:
    """Run all comparisons; return 1 if one that counts fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=1.0, help="histories relative to the case files")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--estimator", default="auto")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if not REFERENCE.is_dir():
        print(f"The reference cases are not there: {REFERENCE}", file=sys.stderr)
        return 2
    rows: list[Comparison] = []
    runs = []
    for name in CASES:
        found, result = compare_case(name, share=arguments.share, threads=arguments.threads, estimator=arguments.estimator)
        rows += found
        balance = (result.energy_deposited_MeV + result.energy_escaped_MeV) / result.energy_emitted_MeV - 1
        runs.append((name, result.histories, result.transport_cpu_s, balance))
        print(f"{name}: {sum(row.passes for row in found)} of {len(found)} pass", file=sys.stderr)
    rows += compare_s_values(share=arguments.share, threads=arguments.threads)
    for name in PHOTON_KERNELS:
        rows += compare_photon_kernel(name, share=arguments.share, threads=arguments.threads)
    text = HEADER.format(share=arguments.share, estimator=arguments.estimator) + _table(rows) + "\n" + _balance(runs)
    write_section(HEADING, "make validate", text, arguments.out)
    failed = [row for row in rows if row.judged and not row.passes]
    print(f"{len(rows) - len(failed)} of {len(rows)} quantities pass; table in {arguments.out}")
    for row in failed:
        print(f"  differs: {row.case}, {row.quantity}: {100 * (row.ratio - 1):+.2f} %")
    return 1 if failed else 0


def _table(rows: list[Comparison]) -> str:
    lines = [
        "| case | quantity | engine / PenRed - 1 | standard error of it | engine's own | tolerance | |",
        "|---|---|---:|---:|---:|---:|---|",
    ]
    for row in rows:
        verdict = "ok" if row.passes else "differs" if row.judged else "not judged"
        lines.append(
            f"| {row.case} | {row.quantity} | {100 * (row.ratio - 1):+.2f} % | {100 * row.sigma:.2f} % | "
            f"{100 * row.own_sigma:.2f} % | {100 * row.tolerance:.1f} % | {verdict} |"
        )
    return "\n".join(lines) + "\n"


def _balance(runs: list[tuple[str, int, float, float]]) -> str:
    lines = ["| case | histories | transport, CPU s | (deposited + escaped) / emitted - 1 |", "|---|---:|---:|---:|"]
    lines += [f"| {name} | {histories} | {seconds:.1f} | {balance:+.1e} |" for name, histories, seconds, balance in runs]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
