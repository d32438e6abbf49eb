"""Synthetic patients imaged at several times: bias and coverage of the time-integrated activity and of the dose per organ.

python -m Testing.Benchmarks.time_points [--patients 20] [--out FILE]

The camera's blur grows from 9 mm in the middle to 12 mm at the edge, 2 % of the activity is left as scatter, counts are
Poisson's, and every scan is scaled by its own factor of 3 % scatter. The analysis knows none of it: it has a scan of hot
spheres with the same camera (recovery curve, of coefficients that err by 0.02, drawn for every patient, as is said of them),
the true organs, and relative_sigma = 0.03. The doses of the true and of the recovered map are by voxel S-kernels in the same
phantom, made from the patient's CT: whatever both have in common cancels.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from SynthDoseLib.core import VoxelPhantom, resample_mean
from SynthDoseLib.kinetics import TimeCourseOptions, fit_recovery, integrate_time_points, tissue_share
from SynthDoseLib.kinetics.recovery import RecoveryCurve
from SynthDoseLib.phantom import build_phantom, synthetic_patient
from SynthDoseLib.phantom.synthetic_time import Camera, SyntheticTimePoints, sphere_phantom, synthetic_time_points
from SynthDoseLib.physics import decay_emissions
from SynthDoseLib.transport import VolumeSource, kernel_dose

from .results import RESULTS, write_section

HEADING = "Activity and dose: bias and coverage over synthetic patients with several time points"
CONDITIONS = (
    "Unknown to the analysis: blur of 9 mm in the middle to 12 mm at the edge, 2 % of scatter, 3 % from scan to scan, counts, "
    "and the errors of the recovery coefficients (0.02 each). Known: a scan of hot spheres, the true organs."
)
CAMERA = Camera(centre_fwhm_mm=9.0, edge_fwhm_mm=12.0, scatter_fraction=0.02)
LU177_S = 574300.0
SCATTER = 0.03
RECOVERY_SIGMA = 0.02
LARGE_ML = 50.0
SPACING_MM = (6.0, 6.0, 6.0)
KERNEL_SIGMA = 0.01


@dataclass(frozen=True)
class Found:
    """One region of one patient.

    Attributes
    ----------
    volume_ml : float
    activity, activity_sigma : float
        Relative error of the time-integrated activity, and the sigma stated for it, both of the truth.
    dose : float
        Relative error of the mean dose.
    """

    volume_ml: float
    activity: float
    activity_sigma: float
    dose: float


def phantom_recovery() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Volumes, ml, and recovery coefficients of the simulated phantom scan, which is free of noise."""
    phantom = sphere_phantom(1, camera=CAMERA)
    seen = resample_mean(phantom.image.values, phantom.image.grid, phantom.labels.grid)
    found = [float(seen[phantom.labels.mask(name)].mean()) / phantom.concentration_Bq_ml for name in phantom.volumes_ml]
    return np.array(list(phantom.volumes_ml.values())), np.array(found)


def recovery_curve(volumes_ml: NDArray[np.float64], coefficients: NDArray[np.float64]) -> RecoveryCurve:
    """Curve through recovery coefficients that are said to be sure to `RECOVERY_SIGMA`."""
    return fit_recovery(volumes_ml, coefficients, np.full(volumes_ml.size, RECOVERY_SIGMA), form="sphere+scatter")


def true_map(points: SyntheticTimePoints) -> NDArray[np.float32]:
    """Time-integrated activity per voxel (nk, nj, ni) of the CT, MBq h: uniform in the tissue of every region, none in gas."""
    per_ml = np.zeros(max(organ.index for organ in points.labels.organs) + 1, np.float32)
    for organ in points.labels.organs:
        course = points.courses.get(organ.name)
        if course is not None and course.volume_ml:
            per_ml[organ.index] = course.time_integrated_activity_MBq_h / course.volume_ml
    values = per_ml[points.labels.labels] * np.float32(points.labels.grid.voxel_volume_ml)
    return np.where(points.patient.gas, np.float32(0), values)


def organ_doses(phantom: VoxelPhantom, tia_MBq_h: NDArray[np.float32]) -> dict[str, float]:
    """Mean dose of every organ, in one unit for all maps."""
    source = VolumeSource(phantom.grid, tia_MBq_h)
    result = kernel_dose(phantom, source, decay_emissions("Lu-177"), relative_sigma=KERNEL_SIGMA, device="cpu", threads=1)
    total = float(tia_MBq_h.sum(dtype=np.float64))
    return {organ.organ: organ.dose_Gy * total for organ in result.organs}


def one_patient(seed: int, volumes_ml: NDArray[np.float64], coefficients: NDArray[np.float64]) -> dict[str, Found]:
    """What was found per region of one patient, with a recovery curve whose coefficients err as they are said to."""
    rng = np.random.default_rng([seed, 99])
    points = synthetic_time_points(synthetic_patient(seed, spacing_mm=SPACING_MM), camera=CAMERA)
    factors = 1 + SCATTER * rng.standard_normal(len(points.hours))
    images = [replace(s, values=s.values * np.float32(f)) for s, f in zip(points.spects, factors, strict=True)]
    measured = coefficients + RECOVERY_SIGMA * rng.standard_normal(coefficients.size)
    options = TimeCourseOptions(recovery=recovery_curve(volumes_ml, measured), relative_sigma=SCATTER)
    phantom = build_phantom(points.patient.ct, points.labels)
    inside = phantom.density_g_cm3 > 0
    result = integrate_time_points(
        images, points.hours, points.labels, physical_half_life_s=LU177_S, options=options, body=inside,
        tissue=tissue_share(phantom),
    )  # fmt: skip
    truth = organ_doses(phantom, np.where(inside, true_map(points), np.float32(0)))
    recovered = organ_doses(phantom, np.where(inside, result.tia.tia_MBq_s / np.float32(3600), np.float32(0)))
    found = {}
    for course in result.curves:
        right = points.courses[course.region].time_integrated_activity_MBq_h
        found[course.region] = Found(
            course.volume_ml,
            course.integral.tia_MBq_h / right - 1,
            course.total_sigma_MBq_h / right,
            recovered[course.region] / truth[course.region] - 1,
        )
    return found


def table(patients: int) -> str:
    """Markdown table: mean errors of activity and dose with their standard errors, spread, share of intervals that hold."""
    volumes_ml, coefficients = phantom_recovery()
    errors: dict[str, list[Found]] = defaultdict(list)
    for seed in range(1, patients + 1):
        for region, found in one_patient(seed, volumes_ml, coefficients).items():
            errors["tumours" if region.startswith("tumour_") else region].append(found)
        print(f"patient {seed} of {patients}", file=sys.stderr)
    lines = [
        "| region | volume / ml | activity: bias | ± | spread | 68 % interval holds the truth | dose: bias | ± | spread |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    large: list[tuple[float, float]] = []
    for region, rows in sorted(errors.items(), key=lambda item: -float(np.mean([f.volume_ml for f in item[1]]))):
        volume, activity, stated, dose = (np.array([getattr(f, n.name) for f in rows]) for n in fields(Found))
        covered = float((np.abs(activity) <= stated).mean())
        if volume.mean() > LARGE_ML:
            large.append((float(activity.mean()), float(dose.mean())))
        lines.append(
            f"| {region.replace('_', ' ')} | {volume.mean():.0f} | {_moments(activity)} | {covered:.0%} | {_moments(dose)} |"
        )
    of_activity, of_dose = (sum(abs(mean) <= 0.05 for mean in means) for means in zip(*large, strict=True))
    curve = recovery_curve(volumes_ml, coefficients)
    first = (
        f"{patients} patients, scans at 4, 24, 72 and 168 h, recovery curve of one width (without errors "
        f"{curve.parameters['fwhm_mm']:.2f} mm, {curve.parameters['retained']:.1%} not scattered). "
        f"Of {len(large)} regions over {LARGE_ML:.0f} ml the mean error is at most 5 % in {of_activity} for the "
        f"time-integrated activity, in {of_dose} for the dose (Lu-177, voxel S-kernels). {CONDITIONS}"
    )
    return "\n".join([first, "", *lines, ""])


def _moments(off: NDArray[np.float64]) -> str:
    """Cells of mean, its standard error, and spread."""
    spread = float(off.std(ddof=1)) if off.size > 1 else 0.0
    return f"{float(off.mean()):+.1%} | {spread / off.size**0.5:.1%} | {spread:.1%}"


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
