"""Two ways from images to organ doses: fit the activity and transport it, or transport each image and fit its dose rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..core import Emission, ImageVolume, Progress, ProgressReport, SynthDoseError, VoxelPhantom, resample_mean, silent
from ..io import write_csv
from ..kinetics import TimeCourse, TimeCourseOptions, fit_models, integrate_time_points, out_of_gas, time_activity
from ..transport import RunSettings, VolumeSource
from .engine_plan import EngineOptions
from .engines import engine_dose

AGREE_PERCENT, AGREE_SIGMA = 5.0, 2.0  # routes that differ by less, or by no more than their uncertainty, agree
SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True)
class RouteRow:
    """Dose of one organ by both routes.

    Attributes
    ----------
    organ : str
    activity_route_Gy, dose_rate_route_Gy : float
    dose_rate_sigma_Gy : float
        Standard uncertainty of the fitted integral.
    difference_percent : float
        Dose-rate route less activity route, of the activity route.
    note : str
        Why they differ; empty where they agree.
    """

    organ: str
    activity_route_Gy: float
    dose_rate_route_Gy: float
    dose_rate_sigma_Gy: float
    difference_percent: float
    note: str = ""


def compare_routes(
    phantom: VoxelPhantom,
    images: Sequence[ImageVolume],
    hours: Sequence[float],
    emissions: Sequence[Emission],
    settings: RunSettings,
    *,
    physical_half_life_s: float,
    engine: str = "kernel",
    options: EngineOptions | None = None,
    course: TimeCourseOptions | None = None,
    tissue: NDArray[np.float32] | None = None,
    progress: Progress = silent,
) -> tuple[RouteRow, ...]:
    """Organ doses by the activity route and by the dose-rate route.

    Parameters
    ----------
    phantom : VoxelPhantom
    images : sequence of 2 or more ImageVolume
        Bq/ml, registered to the phantom, each on its own grid.
    hours : sequence of float
        After administration.
    emissions, settings, engine, options
        See `engines.engine_dose`; every image is transported once.
    physical_half_life_s : float
    course : TimeCourseOptions, optional
        Models of both fits; a recovery correction is not part of this comparison.
    tissue : ndarray of float32, (nk, nj, ni), optional
        See `kinetics.tissue_share`: on both routes activity is moved out of gas.
    progress : callable

    Returns
    -------
    tuple of RouteRow
        Of every organ that has activity of its own and receives dose at two or more times.

    Raises
    ------
    SynthDoseError
        If there are fewer than two images, or images and times do not fit together.
    """
    course = course or TimeCourseOptions()
    if len(images) < 2 or len(images) != len(hours):
        raise SynthDoseError(
            f"A dose rate is fitted to two or more images, each with its time; found {len(images)}, {len(hours)}."
        )
    if course.recovery is not None:
        raise SynthDoseError("The routes are compared without recovery correction: it belongs to organs, not to voxels.")
    inside = phantom.density_g_cm3 > 0
    found = integrate_time_points(
        images, hours, phantom.labels, physical_half_life_s=physical_half_life_s, options=course, body=inside, tissue=tissue,
        negative="zero",
    )  # fmt: skip
    whole = engine_dose(
        engine, phantom, VolumeSource(found.tia.grid, found.tia.tia_MBq_s), emissions, settings, options, progress
    )
    by_activity = {organ.organ: organ.dose_Gy * found.tia.decays for organ in whole.organs}
    rates: dict[str, list[float]] = {organ: [] for organ in by_activity}
    order = np.argsort(hours, kind="stable")
    for n in order:
        progress(ProgressReport("dose rate", n / len(images), None, f"Image {n + 1} of {len(images)}"))
        concentration = np.maximum(resample_mean(images[n].values, images[n].grid, phantom.grid), 0.0)
        concentration = np.where(inside, concentration, np.float32(0))
        if tissue is not None:
            concentration, _ = out_of_gas(concentration, phantom.grid, tissue)
        becquerel = float(concentration.sum(dtype=np.float64)) * phantom.grid.voxel_volume_ml
        result = engine_dose(engine, phantom, VolumeSource(phantom.grid, concentration), emissions, settings, options, progress)
        for organ in result.organs:
            rates[organ.organ].append(organ.dose_Gy * becquerel * SECONDS_PER_HOUR)
    times = [float(hours[n]) for n in order]
    rows = []
    for curve in found.curves:
        if (dose := by_activity.get(curve.region, 0.0)) > 0 and np.count_nonzero(rates[curve.region]) > 1:
            rows.append(_row(curve.region, times, rates[curve.region], dose, found, course, physical_half_life_s))
    return tuple(rows)


def write_routes(path: Path, rows: Sequence[RouteRow]) -> tuple[str, ...]:
    """Write ``dose_rate_route.csv``; return notes: where the routes differ and why, or that they agree."""
    write_csv(path, [field.name for field in fields(RouteRow)], [astuple(row) for row in rows])
    notes = tuple(row.note for row in rows if row.note)
    if rows and not notes:
        largest = max(abs(row.difference_percent) for row in rows)
        return (
            f"The dose-rate route gives the organ doses of the activity route, to {largest:.1f} % or within its uncertainty.",
        )
    return notes


def _row(
    organ: str,
    times: Sequence[float],
    rates: Sequence[float],
    activity_route_Gy: float,
    found: TimeCourse,
    course: TimeCourseOptions,
    half_life_s: float,
) -> RouteRow:
    # a dose rate in Gy/h is fitted as an activity would be: its integral is then in Gy
    data = time_activity(organ, times, rates, relative_sigma=course.relative_sigma)
    models = course.models if course.method in ("auto", "trapezoid") else (course.method,)
    fit = fit_models(data, models, physical_half_life_h=half_life_s / SECONDS_PER_HOUR, average=course.average)
    dose, sigma = fit.tia_MBq_h, fit.tia_sigma_MBq_h
    difference = 100 * (dose / activity_route_Gy - 1)
    own = next(curve for curve in found.curves if curve.region == organ)
    allowed = AGREE_SIGMA * math.hypot(sigma / dose, own.total_sigma_MBq_h / own.integral.tia_MBq_h) if dose > 0 else 0.0
    note = ""
    if abs(difference) > max(AGREE_PERCENT, 100 * allowed if math.isfinite(allowed) else 0.0):
        note = (
            f"{organ}: the routes differ by {difference:+.1f} %. The dose rate was fitted with {fit.model}, the activity with "
            f"{own.integral.model}; radiation from other organs, whose activity fades at another pace, is in the one curve and "
            "not in the other."
        )
    return RouteRow(organ, activity_route_Gy, dose, sigma, difference, note)
