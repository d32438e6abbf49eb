"""Synthetic patients imaged at several times: bias and coverage of the time-integrated activity per organ.

python -m Testing.Benchmarks.time_points [--patients 20] [--out FILE]

The camera's blur grows from 9 mm in the middle to 12 mm at the edge, 2 % of the activity is left as scatter, counts are
Poisson's, and every scan is scaled by its own factor of 3 % scatter. The analysis knows none of it: it has a scan of hot
spheres with the same camera (recovery curve), the true organs, and relative_sigma = 0.03.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np

from SynthDoseLib.core import resample_mean
from SynthDoseLib.kinetics import TimeCourseOptions, fit_recovery, integrate_time_points
from SynthDoseLib.kinetics.recovery import RecoveryCurve
from SynthDoseLib.phantom import synthetic_patient
from SynthDoseLib.phantom.synthetic_time import Camera, sphere_phantom, synthetic_time_points

from .results import RESULTS, write_section

HEADING = "Activity: bias and coverage over synthetic patients with several time points"
CONDITIONS = (
    "Unknown to the analysis: blur of 9 mm in the middle to 12 mm at the edge, 2 % of scatter, 3 % from scan to scan, counts. "
    "Known: a scan of hot spheres, the true organs."
)
CAMERA = Camera(centre_fwhm_mm=9.0, edge_fwhm_mm=12.0, scatter_fraction=0.02)
LU177_S = 574300.0
SCATTER = 0.03
LARGE_ML = 50.0
SPACING_MM = (6.0, 6.0, 6.0)


def phantom_curve() -> RecoveryCurve:
    """Recovery curve of the simulated phantom scan."""
    phantom = sphere_phantom(1, camera=CAMERA)
    seen = resample_mean(phantom.image.values, phantom.image.grid, phantom.labels.grid)
    found = [float(seen[phantom.labels.mask(name)].mean()) / phantom.concentration_Bq_ml for name in phantom.volumes_ml]
    return fit_recovery(list(phantom.volumes_ml.values()), found, np.full(len(found), 0.02), form="sphere+scatter")


def one_patient(seed: int, curve: RecoveryCurve) -> dict[str, tuple[float, float, float]]:
    """Volume in ml, relative error and relative sigma per region of one patient."""
    rng = np.random.default_rng([seed, 99])
    points = synthetic_time_points(synthetic_patient(seed, spacing_mm=SPACING_MM), camera=CAMERA)
    factors = 1 + SCATTER * rng.standard_normal(len(points.hours))
    images = [replace(s, values=s.values * np.float32(f)) for s, f in zip(points.spects, factors, strict=True)]
    options = TimeCourseOptions(recovery=curve, relative_sigma=SCATTER)
    result = integrate_time_points(images, points.hours, points.labels, physical_half_life_s=LU177_S, options=options)
    found = {}
    for course in result.curves:
        truth = points.courses[course.region].time_integrated_activity_MBq_h
        off = course.integral.tia_MBq_h / truth - 1
        found[course.region] = (course.volume_ml, off, course.total_sigma_MBq_h / truth)
    return found


def table(patients: int) -> str:
    """Markdown table: organs, mean error and its standard error, spread, share of intervals that hold the truth."""
    curve = phantom_curve()
    errors: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    for seed in range(1, patients + 1):
        for region, numbers in one_patient(seed, curve).items():
            errors["tumours" if region.startswith("tumour_") else region].append(numbers)
        print(f"patient {seed} of {patients}", file=sys.stderr)
    lines = ["| region | volume / ml | bias | ± | spread | 68 % interval holds the truth |", "|---|---|---|---|---|---|"]
    ranked = sorted(errors.items(), key=lambda item: -float(np.mean([n[0] for n in item[1]])))
    large = []
    for region, numbers in ranked:
        volume, off, sigma = np.array(numbers).T
        mean, spread = float(off.mean()), float(off.std(ddof=1)) if off.size > 1 else 0.0
        covered = float((np.abs(off) <= sigma).mean())
        if volume.mean() > LARGE_ML:
            large.append(mean)
        lines.append(
            f"| {region.replace('_', ' ')} | {volume.mean():.0f} | {mean:+.1%} | {spread / off.size**0.5:.1%} | {spread:.1%} | "
            f"{covered:.0%} |"
        )
    within = sum(abs(mean) <= 0.05 for mean in large)
    first = (
        f"{patients} patients, scans at 4, 24, 72 and 168 h, recovery curve of one width "
        f"({curve.parameters['fwhm_mm']:.2f} mm, {curve.parameters['retained']:.1%} not scattered). "
        f"Mean error at most 5 % in {within} of {len(large)} regions over {LARGE_ML:.0f} ml. {CONDITIONS}"
    )
    return "\n".join([first, "", *lines, ""])


def main() -> int:
    """Run the patients and write the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=20)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    command = f"python -m Testing.Benchmarks.time_points --patients {arguments.patients}"
    write_section(HEADING, command, table(arguments.patients), arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
