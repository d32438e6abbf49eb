"""Doses and activity that no image shows: outside the field of view, marrow by blood samples, lungs by their shunt."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..core import Emission, SynthDoseError, atomic_path
from ..dosimetry import (
    OrganDoseRow,
    activity_outside,
    dose_per_activity,
    lung_dose,
    lung_shunt_fraction,
    marrow_dose_from_blood,
)
from ..kinetics import fit_models, time_activity
from ..physics import get_nuclide
from .activity import ActivityResult
from .clinical_plan import BloodPlan, LungShuntPlan, WholeBodyPlan
from .plan import RunPlan

BEYOND_CSV = "beyond_image.csv"


@dataclass(frozen=True)
class BeyondRow:
    """One row of ``beyond_image.csv``: a quantity, its value and standard uncertainty (nan if not known), unit and basis."""

    quantity: str
    value: float
    sigma: float
    unit: str
    basis: str


@dataclass(frozen=True)
class BeyondImage:
    """What `beyond_image` found.

    Attributes
    ----------
    table : tuple of BeyondRow
    doses : tuple of (str, OrganDoseRow)
        By what they were found, to be compared with limits.
    notes : tuple of str
    """

    table: tuple[BeyondRow, ...] = ()
    doses: tuple[tuple[str, OrganDoseRow], ...] = ()
    notes: tuple[str, ...] = ()


def beyond_image(plan: RunPlan, found: ActivityResult, emissions: Sequence[Emission]) -> BeyondImage:
    """Remainder of the body, marrow dose from blood and lung dose from the shunt, as far as the plan asks for them.

    Parameters
    ----------
    plan : RunPlan
    found : ActivityResult
    emissions : sequence of Emission

    Raises
    ------
    SynthDoseError
        If the administered activity is not known, or the numbers of the plan contradict each other or the images.
    """
    parts = []
    if plan.dosimetry.whole_body is not None:
        parts.append(_whole_body(plan.dosimetry.whole_body, plan, found))
    if plan.dosimetry.blood is not None:
        parts.append(_blood(plan.dosimetry.blood, plan, emissions))
    if plan.dosimetry.lung_shunt is not None:
        parts.append(_lung_shunt(plan.dosimetry.lung_shunt, plan))
    table, doses, notes = (sum((getattr(part, name) for part in parts), ()) for name in ("table", "doses", "notes"))
    return BeyondImage(table, doses, notes)


def write_beyond_image_csv(path: Path, rows: Sequence[BeyondRow]) -> None:
    """Write one line per quantity."""
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["quantity", "value", "sigma", "unit", "basis"])
        for row in rows:
            numbers = ["" if math.isnan(x) else f"{x:.6g}" for x in (row.value, row.sigma)]
            writer.writerow([row.quantity, *numbers, row.unit, row.basis])


def _administered(plan: RunPlan, where: str) -> float:
    if plan.therapy.administered_MBq is None:
        raise SynthDoseError(f"{where} needs [therapy] administered_MBq.")
    return plan.therapy.administered_MBq


def _whole_body(body: WholeBodyPlan, plan: RunPlan, found: ActivityResult) -> BeyondImage:
    where = "[dosimetry.whole_body]"
    administered = _administered(plan, where)
    if not found.points:
        raise SynthDoseError(f"{where} needs an activity image whose field of view it completes.")
    physical_h = get_nuclide(plan.therapy.nuclide).half_life_s / 3600
    times = body.hours or (found.points[0].hours,)
    table, notes = [], []
    for n, hours in enumerate(times):
        point = min(found.points, key=lambda p: abs(p.hours - hours))
        seen = float(point.image.values.sum(dtype=float)) * point.image.grid.voxel_volume_ml * 1e-6
        seen *= 2 ** ((point.hours - hours) / physical_h)
        left = activity_outside(
            administered, seen, hours, physical_h,
            whole_body_fraction=body.fraction[n] if body.fraction else None,
            relative_sigma_administered=body.relative_sigma,
            relative_sigma_seen=plan.kinetics.calibration_relative_sigma,
        )  # fmt: skip
        basis = f"{hours:g} h after administration, image of {point.hours:g} h" + ("" if body.fraction else ", no excretion")
        table.append(BeyondRow("activity_outside_image", left.activity_MBq, left.sigma_MBq, "MBq", basis))
        notes.append(f"{hours:g} h after administration: {left.note}")
    if len(times) >= 2:
        activity = [administered * f * 2 ** (-t / physical_h) for t, f in zip(body.hours, body.fraction, strict=True)]
        data = time_activity("whole body", body.hours, activity, relative_sigma=body.relative_sigma)
        fit = fit_models(data, physical_half_life_h=physical_h)
        seen_h = found.tia.total_MBq_s / 3600
        remainder = max(0.0, fit.tia_MBq_h - seen_h)
        basis = f"whole body {fit.tia_MBq_h / administered:.3g} h ({fit.model}) less {seen_h / administered:.3g} h in the image"
        table.append(
            BeyondRow("residence_time_outside_image", remainder / administered, fit.tia_sigma_MBq_h / administered, "h", basis)
        )
        notes.append(f"Residence time outside the image: {remainder / administered:.3g} h ({basis}).")
    return BeyondImage(tuple(table), (), tuple(notes))


def _blood(blood: BloodPlan, plan: RunPlan, emissions: Sequence[Emission]) -> BeyondImage:
    physical_h = get_nuclide(plan.therapy.nuclide).half_life_s / 3600
    data = time_activity("blood", blood.hours, blood.MBq_ml, relative_sigma=blood.relative_sigma)
    fit = fit_models(data, physical_half_life_h=physical_h)
    marrow = marrow_dose_from_blood(
        fit.tia_MBq_h * 3600, emissions, hematocrit=blood.hematocrit, ratio=blood.ratio,
        relative_sigma=fit.tia_sigma_MBq_h / fit.tia_MBq_h, remainder_MBq_s=blood.remainder_MBq_s,
        remainder_s_value_Gy_MBq_s=blood.remainder_s_value_Gy_MBq_s,
    )  # fmt: skip
    basis = f"{len(blood.hours)} samples, {fit.model}; marrow over blood {marrow.marrow_blood_ratio:.3g}"
    table = (
        BeyondRow("blood_time_integrated_concentration", fit.tia_MBq_h, fit.tia_sigma_MBq_h, "MBq h/ml", basis),
        BeyondRow("red_marrow_self_dose", marrow.self_Gy, marrow.self_sigma_Gy, "Gy", basis),
        BeyondRow("red_marrow_remainder_dose", marrow.remainder_Gy, math.nan, "Gy", "S value of [dosimetry.blood]"),
        BeyondRow("red_marrow_dose", marrow.total_Gy, marrow.self_sigma_Gy, "Gy", basis),
    )
    said = f"Red marrow by blood samples: {marrow.total_Gy:.3g} Gy ± {marrow.self_sigma_Gy:.2g} Gy ({basis})."
    return BeyondImage(
        table, (("by blood", _row("red_marrow", marrow.total_Gy, marrow.self_sigma_Gy)),), (said, *marrow.notes, *fit.notes)
    )


def _lung_shunt(shunt: LungShuntPlan, plan: RunPlan) -> BeyondImage:
    administered = _administered(plan, "[dosimetry.lung_shunt]")
    fraction, sigma = shunt.fraction or 0.0, shunt.fraction_sigma
    if shunt.lung_counts is not None and shunt.liver_counts is not None:
        fraction, counted = lung_shunt_fraction(shunt.lung_counts, shunt.liver_counts)
        sigma = math.hypot(sigma, counted)
    nuclide, mass = plan.therapy.nuclide, shunt.lung_mass_g
    dose = lung_dose(administered, fraction, lung_mass_g=mass, nuclide=nuclide)
    dose_sigma = dose_per_activity(nuclide) * administered * sigma / (mass / 1000)
    basis = f"{administered:g} MBq, {fraction:.2%} to lungs of {mass:g} g, all energy of charged particles stays there"
    table = (
        BeyondRow("lung_shunt_fraction", fraction, sigma, "", "counts" if shunt.fraction is None else "given"),
        BeyondRow("lung_dose", dose, dose_sigma, "Gy", basis),
    )
    said = (
        f"Lungs by their shunt: {dose:.3g} Gy ± {dose_sigma:.2g} Gy ({basis}); it is not added to the dose of the image, where "
        "lungs in the field of view have theirs."
    )
    return BeyondImage(table, (("by shunt", _row("lungs", dose, dose_sigma, mass)),), (said,))


def _row(organ: str, dose_Gy: float, total_sigma_Gy: float, mass_g: float = math.inf) -> OrganDoseRow:
    """A mean dose without voxels; the mass of the marrow cancels."""
    return OrganDoseRow(organ, math.nan, mass_g, dose_Gy, math.nan, *(math.nan,) * 5, total_sigma_Gy)
