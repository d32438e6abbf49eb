"""What was found about activity over time, as CSV files of the run folder and as rows of the report."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..io import write_csv
from ..kinetics import CurveFit, ModelAverage, RegionCurve, SingleTimeIntegral, TrapezoidIntegral
from .activity import ActivityResult

TIME_ACTIVITY, KINETICS, REGISTRATION, FIELDS = "time_activity.csv", "kinetics.csv", "registration.csv", "activity_fields.csv"
FILES = (TIME_ACTIVITY, KINETICS, REGISTRATION, FIELDS)


def write_activity_tables(folder: Path, result: ActivityResult) -> None:
    """Write those of `FILES` that there is something for."""
    if result.course is not None:
        write_csv(folder / TIME_ACTIVITY, TIME_HEADER, time_rows(result))
        write_csv(folder / KINETICS, KINETICS_HEADER, [kinetics_row(curve, result) for curve in result.course.curves])
    if any(point.registration for point in result.points):
        write_csv(folder / REGISTRATION, REGISTRATION_HEADER, registration_rows(result))
    if result.points:
        write_csv(folder / FIELDS, FIELDS_HEADER, field_rows(result))


TIME_HEADER = ("organ", "time_h", "activity_MBq", "sigma_MBq", "fitted_MBq", "fitted_sigma_MBq")


def time_rows(result: ActivityResult) -> list[tuple[str, ...]]:
    """Measured (recovery corrected) and fitted activity of every region at every time."""
    rows = []
    for curve in result.course.curves if result.course else ():
        data = curve.integral.data
        fitted, band = curve.integral.activity_MBq(data.times_h), curve.integral.band_MBq(data.times_h)
        for n, time in enumerate(data.times_h):
            sigma = math.nan if data.sigma_MBq is None else float(data.sigma_MBq[n])
            values = (float(time), float(data.activity_MBq[n]), sigma, float(fitted[n]), float(band[n]))
            rows.append((curve.region, *map(_number, values)))
    return rows


KINETICS_HEADER = (
    "organ", "volume_ml", "model", "time_points", "tia_MBq_h", "tia_sigma_MBq_h", "total_sigma_MBq_h", "tia_MBq_s",
    "residence_time_h", "effective_half_life_h", "effective_half_life_sigma_h", "degrees_of_freedom", "coverage_factor_68",
    "chi_squared", "recovery", "recovery_sigma", "parameters", "akaike_weights", "not_used",
)  # fmt: skip


def kinetics_row(curve: RegionCurve, result: ActivityResult) -> tuple[str, ...]:
    """One line of ``kinetics.csv``: `tia_sigma_MBq_h` is of noise and fit, `total_sigma_MBq_h` has all parts."""
    integral = curve.integral
    residence = next((row.residence_time_h for row in result.tia.organs if row.organ == curve.region), None)
    best = integral.best if isinstance(integral, ModelAverage) else integral
    chi_squared = best.chi_squared if isinstance(best, CurveFit) else math.nan
    weights, rejected = "", ""
    if isinstance(integral, ModelAverage):
        weights = "; ".join(f"{f.model} {w:.3f}" for f, w in zip(integral.fits, integral.weights, strict=True))
        rejected = "; ".join(f"{name}: {why}" for name, why in integral.rejected.items())
    numbers = (
        integral.tia_MBq_h,
        integral.tia_sigma_MBq_h,
        curve.total_sigma_MBq_h,
        integral.tia_MBq_h * 3600.0,
        math.nan if residence is None else residence,
        integral.effective_half_life_h,
        integral.effective_half_life_sigma_h,
        float(integral.degrees_of_freedom),
        integral.coverage_factor,
        chi_squared,
        curve.recovery,
        curve.recovery_sigma,
    )
    return (
        curve.region,
        _number(curve.volume_ml),
        integral.model,
        str(len(integral.data.times_h)),
        *map(_number, numbers),
        parameters_text(integral),
        weights,
        rejected,
    )


def parameters_text(integral: CurveFit | ModelAverage | TrapezoidIntegral | SingleTimeIntegral) -> str:
    """Parameters of the best curve with their standard uncertainties, for people."""
    best = integral.best if isinstance(integral, ModelAverage) else integral
    if isinstance(best, CurveFit):
        return "; ".join(f"{name} {value:.5g} ± {best.sigmas[name]:.2g}" for name, value in best.parameters.items())
    if isinstance(best, TrapezoidIntegral):
        return f"start {best.start}; tail {best.tail_fraction:.1%} of the integral"
    if math.isnan(best.method_error):
        return "error of the method not known: no spread of half-lives was given"
    return f"error of the method {best.method_error:.1%}, mean {best.method_bias:+.1%}"


REGISTRATION_HEADER = (
    "time_point", "time_h", "method", "used", "nmi_before", "nmi_after", "body_dice_before", "body_dice_after",
    "mean_displacement_mm", "largest_displacement_mm", "smallest_jacobian", "largest_jacobian", "folded_fraction", "matrix_ras",
)  # fmt: skip


def registration_rows(result: ActivityResult) -> list[tuple[str, ...]]:
    """One line per time point: what was done and how good it is; the matrix takes points of the CT to the image."""
    rows = []
    for number, point in enumerate(result.points, start=1):
        found = point.registration
        if found is None:
            rows.append((str(number), _number(point.hours), "reference", "yes", *[""] * 10))
            continue
        quality = [_number(v) for v in vars(found.quality).values()] if found.quality else [""] * 9
        matrix = " ".join(f"{v:.6g}" for v in found.transform.matrix_ras.ravel())
        rows.append((str(number), _number(point.hours), found.method, "yes" if found.accepted else "no", *quality, matrix))
    return rows


FIELDS_HEADER = ("time_point", "field", "value", "unit", "source", "dicom", "used_for")


def field_rows(result: ActivityResult) -> list[tuple[str, ...]]:
    """Every field of every activity image, its value and where it comes from."""
    return [
        (str(number), f.name, f.value, f.unit, f.source, f.tag, f.used_for)
        for number, point in enumerate(result.points, start=1)
        for f in point.fields
    ]


@dataclass(frozen=True)
class CurveRow:
    """One line of the report's table of time courses; numbers are None where they are not known."""

    organ: str
    model: str
    half_life_h: float
    half_life_sigma_h: float
    tia_MBq_h: float
    sigma_percent: float
    parts: str
    recovery: float | None
    parameters: str


def curve_rows(result: ActivityResult) -> list[CurveRow]:
    """Rows for the report."""
    rows = []
    for curve in result.course.curves if result.course else ():
        integral = curve.integral
        parts = ", ".join(f"{name} {100 * part:.1f} %" for name, part in curve.parts.items())
        rows.append(
            CurveRow(
                curve.region,
                integral.model,
                integral.effective_half_life_h,
                integral.effective_half_life_sigma_h,
                integral.tia_MBq_h,
                100 * curve.total_sigma_MBq_h / integral.tia_MBq_h if integral.tia_MBq_h > 0 else math.nan,
                parts,
                curve.recovery if curve.recovery != 1.0 else None,
                parameters_text(integral),
            )
        )
    return rows


def kinetics_record(result: ActivityResult) -> list[dict[str, Any]]:
    """Time courses for ``provenance.json``: parameters and covariance of every region."""
    record = []
    for curve in result.course.curves if result.course else ():
        integral = curve.integral
        best = integral.best if isinstance(integral, ModelAverage) else integral
        entry: dict[str, Any] = {"organ": curve.region, "model": integral.model, "tia_MBq_h": integral.tia_MBq_h}
        entry["relative_uncertainties"] = curve.parts
        if isinstance(best, CurveFit):
            entry |= {"parameters": best.parameters, "covariance_of_amplitudes_and_ln_rates": best.covariance.tolist()}
        record.append(entry)
    return record


def _number(value: float) -> str:
    return f"{value:.6g}" if math.isfinite(value) else ""
