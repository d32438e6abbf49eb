"""What follows from the doses of a run: limits, biologically effective dose, effective dose, earlier cycles."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..core import DoseMap, Emission, LabelMap, OrganDose, VoxelPhantom, atomic_path
from ..dosimetry import (
    Constraint,
    ConstraintResult,
    DoseRate,
    DoseVolumeHistogram,
    EffectiveDose,
    MarrowDoses,
    OrganBudget,
    OrganDoseRow,
    Radiobiology,
    bed,
    bed_sigma,
    check_constraints,
    constraint_table,
    effective_dose,
    eqd2,
    eqd2_sigma,
    lea_catcheside,
    marrow_doses,
    organ_dose_table,
    radiobiology_table,
    rbe_weighted_dose,
    read_marrow_distribution,
    tissue_weights,
    with_total_sigma,
    write_dvh_csv,
    write_dvh_metrics_csv,
    write_organ_doses_csv,
)
from ..io import write_volume
from ..kinetics import TimeIntegratedActivity
from ..segmentation import organ_group
from .beyond_image import BEYOND_CSV, BeyondImage, write_beyond_image_csv
from .clinical_plan import DosimetryPlan, unused_names
from .drawn import histograms as structure_histograms
from .earlier import check_earlier, earlier_doses, with_earlier_means
from .plan import SegmentationPlan

REPAIR_STEP = 0.01  # of the repair half-life, for the slope of G
COURSE_STEPS = 1200  # of a fitted time course; its straight pieces then change G by less than 0.1 %
TUMOURS = ("tumour", "tumor", "lesion")
CONSTRAINTS_CSV, BED_CSV, ALL_CYCLES_CSV = "constraints.csv", "bed.csv", "cumulative_organ_doses.csv"
METRICS_CSV = "dvh_metrics.csv"
RBE_CSV = "rbe_doses.csv"
ALL_CYCLES_NRRD = "cumulative_dose_Gy.nrrd"


@dataclass(frozen=True)
class BedRow:
    """One row of ``bed.csv``; the names of the fields are its header.

    Attributes
    ----------
    organ : str
    mean_dose_Gy, effective_half_life_h : float
        Of the slowest phase of a fitted time course, or of the dose rate at the start; `protraction` is of the whole course.
    alpha_beta_Gy, repair_half_life_h, protraction : float
    bed_Gy, sigma_Gy, total_sigma_Gy : float
        Of the mean dose, with its Monte Carlo error and by all components of the budget and `biology_sigma_Gy`.
    voxel_bed_Gy : float
        Mean of the BED of the organ's voxels, above `bed_Gy` where the dose is not uniform.
    eqd2_Gy : float
    reference : str
    biology_sigma_Gy : float
        The part of alpha/beta and repair in `total_sigma_Gy`; nan if the table does not state how sure they are.
    """

    organ: str
    mean_dose_Gy: float
    effective_half_life_h: float
    alpha_beta_Gy: float
    repair_half_life_h: float
    protraction: float
    bed_Gy: float
    sigma_Gy: float
    total_sigma_Gy: float
    voxel_bed_Gy: float
    eqd2_Gy: float
    eqd2_total_sigma_Gy: float
    reference: str
    biology_sigma_Gy: float


@dataclass(frozen=True)
class Clinical:
    """What `assess` found.

    Attributes
    ----------
    rows : tuple of OrganDoseRow
        Labels, the groups asked for, red marrow and endosteum.
    histograms : tuple of DoseVolumeHistogram
        Of the labels, sampled finer than voxels.
    constraints : tuple of (str, ConstraintResult)
        With "this cycle" or "all cycles".
    bed : tuple of BedRow
    effective : EffectiveDose or None
    notes : tuple of str
    budgets : tuple of OrganBudget
        Of `rows`, as far as known.
    all_cycles : DoseMap or None
        Sum with the dose maps of earlier treatments.
    """

    rows: tuple[OrganDoseRow, ...]
    histograms: tuple[DoseVolumeHistogram, ...]
    constraints: tuple[tuple[str, ConstraintResult], ...]
    bed: tuple[BedRow, ...]
    effective: EffectiveDose | None
    notes: tuple[str, ...]
    budgets: tuple[OrganBudget, ...] = ()
    all_cycles: DoseMap | None = None

    def record(self) -> dict[str, Any]:
        """For ``provenance.json``."""
        if self.effective is None:
            return {}
        e = self.effective
        return {
            "effective_dose": {
                "value_Sv": e.value_Sv, "sigma_Sv": e.sigma_Sv, "weight_present": e.weight_present, "missing": list(e.missing),
            }
        }  # fmt: skip


BudgetsOf = Callable[[Sequence[OrganDoseRow], Mapping[str, Sequence[str]]], tuple[OrganBudget, ...]]


class TimeActivityCurve(Protocol):
    """A time course of activity, as any of the integrals of `kinetics` is."""

    @property
    def effective_half_life_h(self) -> float:
        """Of the slowest phase."""

    def activity_MBq(self, times_h: ArrayLike) -> NDArray[np.float64]:
        """Activity at times after administration."""


def clinical_groups(plan: DosimetryPlan, labels: LabelMap) -> dict[str, tuple[str, ...]]:
    """Groups of labels that limits, radiobiology and tissue weights speak of, with the members that have voxels."""
    counts = labels.voxel_counts()
    wanted = [c.organ for c in constraint_table(plan.constraints)]
    wanted += list(radiobiology_table(plan.radiobiology))
    wanted += [organ for tissue in tissue_weights() for organ in tissue.organs]
    groups = {}
    for name in wanted:
        members = tuple(member for member in organ_group(name) if counts.get(member))
        if not counts.get(name) and members:
            groups[name] = members
    return groups


def check_clinical_inputs(plan: DosimetryPlan, labels: LabelMap, frame_of_reference: str) -> None:
    """Read the tables and earlier doses that a plan names, so that a bad one is refused before the transport."""
    constraint_table(plan.constraints)
    radiobiology_table(plan.radiobiology)
    if plan.marrow_distribution is not None:
        read_marrow_distribution(plan.marrow_distribution)
    check_earlier(plan.previous, labels, frame_of_reference)


def assess(
    plan: DosimetryPlan,
    folder: Path,
    phantom: VoxelPhantom,
    segmentation: SegmentationPlan,
    labels: LabelMap,
    dose: DoseMap,
    tia: TimeIntegratedActivity,
    emissions: Sequence[Emission],
    organ_doses: Sequence[OrganDose],
    asked: Mapping[str, Sequence[str]],
    components: Mapping[str, Sequence[OrganDose]] | None = None,
    courses: Mapping[str, TimeActivityCurve] | None = None,
    frame_of_reference: str = "",
    budgets_of: BudgetsOf | None = None,
    beyond: BeyondImage | None = None,
) -> Clinical:
    """Organ doses, histograms, red marrow, limits, BED and earlier cycles, written as tables into the run folder.

    Parameters
    ----------
    plan : DosimetryPlan
    folder : Path
        Gets ``organ_doses.csv``, ``dvh.csv``, ``dvh_metrics.csv``, ``constraints.csv``, ``bed.csv`` and, with earlier
        cycles, their sum and its organ doses.
    phantom : VoxelPhantom
    segmentation : SegmentationPlan
        Where the labels come from: histograms of contours are of these.
    labels : LabelMap
        As segmented, possibly finer than the phantom: histograms are of these.
    dose : DoseMap
        Absolute.
    tia : TimeIntegratedActivity
        For the half-lives.
    emissions : sequence of Emission
    organ_doses : sequence of OrganDose
        Monte Carlo errors.
    asked : mapping of group to members
        Groups that get a row of their own.
    components : mapping of component to organ doses, optional
        Split by what is emitted: for RBE, the weighting of alpha particles, and red marrow.
    courses : mapping of organ to TimeActivityCurve, optional
        Fitted time courses of the activity, which dose rates follow.
    frame_of_reference : str
        UID of the CT, for earlier doses.
    budgets_of : callable, optional
        Uncertainty budgets of rows and groups; their total sigma is then that of doses, BED, limits and histograms.

    beyond : BeyondImage, optional
        Doses that no image shows, compared with limits and written as ``beyond_image.csv``.

    Raises
    ------
    SynthDoseError
        If a table or an earlier dose cannot be read.
    """
    limits = constraint_table(plan.constraints)
    groups = clinical_groups(plan, phantom.labels)
    table = radiobiology_table(plan.radiobiology)
    rows = organ_dose_table(dose, phantom, organ_doses, groups={**groups, **asked})
    split = {name: {organ.organ: organ.dose_Gy for organ in organs} for name, organs in (components or {}).items()}
    own = plan.marrow_distribution
    marrow = marrow_doses(
        dose,
        phantom,
        emissions,
        components=split or None,
        organ_sigma=organ_doses,
        source=plan.marrow_source,
        sex=plan.sex,
        distribution=read_marrow_distribution(own) if own is not None else None,
    )
    if marrow is not None:
        named = {row.organ for row in rows}
        rows = (*rows, *(row for row in (marrow.red_marrow, marrow.endosteum) if row.organ not in named))
    budgets = budgets_of(rows, {**groups, **asked}) if budgets_of is not None else ()
    rows = with_total_sigma(rows, _total_sigmas(budgets, marrow))
    kept = tuple(row for row in rows if row.organ not in groups or row.organ in asked)
    sigma = {organ.organ: organ.sigma_Gy for organ in organ_doses}
    drawn = phantom.labels if dose.grid.matches(labels.grid) else labels
    histograms, drawn_notes = structure_histograms(segmentation, dose, drawn, sigma, phantom.gas())
    totals = {budget.organ: budget.relative_sigma for budget in budgets}
    histograms = tuple(replace(h, total_relative_sigma=totals.get(h.organ, math.nan)) for h in histograms)
    write_organ_doses_csv(folder / "organ_doses.csv", kept)
    write_dvh_csv(folder / "dvh.csv", histograms)
    write_dvh_metrics_csv(folder / METRICS_CSV, histograms, volumes_at_Gy=plan.volumes_at_Gy, eud_exponents=plan.eud_exponent)
    bed_rows = _bed_rows(plan, table, rows, histograms, tia, groups, courses or {})
    by_bed = {row.organ: (row.bed_Gy, row.sigma_Gy, row.total_sigma_Gy) for row in bed_rows}
    by_eqd2 = {
        row.organ: (row.eqd2_Gy, row.sigma_Gy * row.eqd2_Gy / row.bed_Gy, row.eqd2_total_sigma_Gy)
        for row in bed_rows
        if row.bed_Gy > 0
    }
    found = check_constraints(limits, rows, histograms=histograms, bed_Gy=by_bed, eqd2_Gy=by_eqd2)
    results = [("this cycle", result) for result in found]
    unused = unused_names(plan, {h.organ for h in histograms}, {row.organ for row in rows})
    notes = [*_marrow_notes(marrow), *drawn_notes, *_biology_notes(bed_rows), *unused]
    total: DoseMap | None = None
    if plan.previous:
        total, said = earlier_doses(plan.previous, dose, phantom.labels, frame_of_reference)
        write_volume(folder / ALL_CYCLES_NRRD, total.dose_Gy, total.grid, unit="Gy")
        total_rows, of_means = with_earlier_means(
            organ_dose_table(total, phantom, organ_doses, groups={**groups, **asked}), plan.previous, {**groups, **asked}
        )
        notes += [*said, *of_means]
        physical = [limit for limit in limits if limit.quantity not in ("bed", "eqd2")]
        relative = {row.organ: row.total_sigma_Gy / row.mean_dose_Gy for row in rows if row.mean_dose_Gy > 0}
        total_rows = with_total_sigma(total_rows, relative)  # as if the steps before this one erred alike in every cycle
        write_organ_doses_csv(folder / ALL_CYCLES_CSV, total_rows)
        results += [("all cycles", result) for result in check_constraints(physical, total_rows)]
    if beyond is not None and beyond.table:
        write_beyond_image_csv(folder / BEYOND_CSV, beyond.table)
        notes += beyond.notes
        for which, row in beyond.doses:
            means = [limit for limit in limits if (limit.organ, limit.quantity) == (row.organ, "mean")]
            results += [(which, result) for result in check_constraints(means, [row])]
    failed = sorted({r.constraint.organ for _, r in results if r.status == "fail"})
    if failed:
        notes.append(f"Limits of the table are exceeded for: {', '.join(failed)} (see constraints.csv for what they hold for).")
    if split and plan.rbe_alpha is not None:
        _write_rbe(folder / RBE_CSV, plan.rbe_alpha, components or {})
        notes.append(f"RBE-weighted doses, Gy(RBE), with an RBE of {plan.rbe_alpha:g} for alpha particles, are in {RBE_CSV}.")
    effective, effective_notes = _effective(plan, rows, emissions, split)
    _write_constraints(folder / CONSTRAINTS_CSV, results)
    _write_rows(folder / BED_CSV, bed_rows)
    shown = {row.organ for row in kept}
    own_budgets = tuple(budget for budget in budgets if budget.organ in shown)
    return Clinical(kept, histograms, tuple(results), bed_rows, effective, (*notes, *effective_notes), own_budgets, total)


def _total_sigmas(budgets: Sequence[OrganBudget], marrow: MarrowDoses | None) -> dict[str, float]:
    """Relative total sigma per organ; of red marrow and endosteum by statistics and the spongiosa method."""
    totals = {budget.organ: budget.relative_sigma for budget in budgets}
    if marrow is not None and budgets:
        for row, model in (
            (marrow.red_marrow, marrow.red_marrow_model_sigma_Gy),
            (marrow.endosteum, marrow.endosteum_model_sigma_Gy),
        ):
            if row.mean_dose_Gy > 0 and row.organ not in totals:
                totals[row.organ] = math.hypot(model, 0.0 if math.isnan(row.sigma_Gy) else row.sigma_Gy) / row.mean_dose_Gy
    return totals


def _marrow_notes(marrow: MarrowDoses | None) -> list[str]:
    if marrow is None:
        return []
    doses = " and ".join(
        f"{row.organ} {row.mean_dose_Gy:.3g} Gy ± {sigma:.2g} Gy"
        for row, sigma in (
            (marrow.red_marrow, marrow.red_marrow_model_sigma_Gy),
            (marrow.endosteum, marrow.endosteum_model_sigma_Gy),
        )
    )
    return [*marrow.notes, f"Uncertainty of the spongiosa method (one standard uncertainty): {doses}."]


def _bed_rows(
    plan: DosimetryPlan,
    table: Mapping[str, Radiobiology],
    rows: Sequence[OrganDoseRow],
    histograms: Sequence[DoseVolumeHistogram],
    tia: TimeIntegratedActivity,
    groups: Mapping[str, tuple[str, ...]],
    courses: Mapping[str, TimeActivityCurve],
) -> tuple[BedRow, ...]:
    """BED of every organ of the table whose dose and half-life are known; ``tumour`` speaks for all tumour labels."""
    curves = {h.organ: h for h in histograms}
    found = []
    for row in rows:
        known = table.get(row.organ)
        if known is None and row.organ.startswith(TUMOURS):
            known = table.get("tumour")
        if known is None or not row.mean_dose_Gy > 0 or not math.isfinite(known.repair_half_life_h):
            continue
        members = groups.get(row.organ, (row.organ,))
        found_rate = _protraction(row, members, plan.effective_half_life_h, tia, courses, known.repair_half_life_h)
        if found_rate is None:
            continue
        factor, half_life = found_rate
        value = float(bed(row.mean_dose_Gy, known.alpha_beta_Gy, factor))
        parts = [curves[member] for member in members if member in curves]
        volume = sum(part.volume_ml for part in parts)
        by_voxels = [float(bed(part.sorted_dose_Gy, known.alpha_beta_Gy, factor).mean()) * part.volume_ml for part in parts]
        voxel = sum(by_voxels) / volume if volume > 0 else math.nan
        sure = (row.mean_dose_Gy, row.total_sigma_Gy, known.alpha_beta_Gy, factor)
        biology = {
            "alpha_beta_sigma_Gy": known.alpha_beta_sigma_Gy if math.isfinite(known.alpha_beta_sigma_Gy) else 0.0,
            "protraction_sigma": 0.0,
        }
        if math.isfinite(known.repair_half_life_sigma_h):
            step = known.repair_half_life_h * REPAIR_STEP
            near = [
                _protraction(row, members, plan.effective_half_life_h, tia, courses, known.repair_half_life_h + change)
                for change in (-step, step)
            ]
            slope = sum(sign * other[0] for sign, other in zip((-1, 1), near, strict=True) if other) / (2 * step)
            biology["protraction_sigma"] = slope * known.repair_half_life_sigma_h
        own = float(bed_sigma(row.mean_dose_Gy, 0.0, known.alpha_beta_Gy, factor, **biology))
        found.append(
            BedRow(
                row.organ, row.mean_dose_Gy, half_life, known.alpha_beta_Gy, known.repair_half_life_h, factor, value,
                float(bed_sigma(row.mean_dose_Gy, row.sigma_Gy, known.alpha_beta_Gy, factor)),
                float(bed_sigma(*sure, **biology)), voxel, float(eqd2(value, known.alpha_beta_Gy)),
                float(eqd2_sigma(*sure, **biology)), known.reference, own if known.states_uncertainty else math.nan,
            )
        )  # fmt: skip
    return tuple(found)


def _biology_notes(rows: Sequence[BedRow]) -> list[str]:
    silent = [row.organ for row in rows if math.isnan(row.biology_sigma_Gy)]
    if not silent:
        return []
    return [
        f"The total sigma of BED and EQD2 of {', '.join(silent)} holds what is known of the dose only: the table states no "
        "uncertainty of alpha/beta and repair (columns alpha_beta_sigma_Gy, repair_half_life_sigma_h)."
    ]


def _protraction(
    row: OrganDoseRow,
    members: Sequence[str],
    given_h: Mapping[str, float],
    tia: TimeIntegratedActivity,
    courses: Mapping[str, TimeActivityCurve],
    repair_half_life_h: float,
) -> tuple[float, float] | None:
    """Lea-Catcheside factor and half-life of an organ: as given, or by its fitted time course, or by the half-life used."""
    fitted = [courses[member] for member in members if member in courses]
    halves = [curve.effective_half_life_h for curve in fitted]
    if row.organ not in given_h and fitted and len(fitted) == len(members) and all(math.isfinite(half) for half in halves):
        longest = max(halves)
        times = np.concatenate([[0.0], np.geomspace(longest / 5000, 10 * longest, COURSE_STEPS)])
        activity = np.maximum(sum(curve.activity_MBq(times) for curve in fitted), 0.0)
        if activity.max() > 0:
            return lea_catcheside(times, activity, repair_half_life_h, tail_half_life_h=longest), longest
    rate = _dose_rate(row, members, given_h, tia)
    if rate is None:
        return None
    return rate.protraction(repair_half_life_h), row.mean_dose_Gy * math.log(2) / float(rate.at(0.0))


def _dose_rate(
    row: OrganDoseRow, members: Sequence[str], given_h: Mapping[str, float], tia: TimeIntegratedActivity
) -> DoseRate | None:
    """Dose rate of an organ that fades as its own activity does; None if no half-life is known."""
    if row.organ in given_h:
        return DoseRate.fading(row.mean_dose_Gy, given_h[row.organ])
    own = [entry for entry in tia.organs if entry.organ in members]
    parts = [(entry.tia_MBq_s, given_h.get(entry.organ, entry.effective_half_life_h)) for entry in own]
    total = sum(amount for amount, _ in parts)
    if not parts or total <= 0 or any(hours is None for _, hours in parts):
        return None
    amplitudes = [row.mean_dose_Gy * amount / total * math.log(2) / hours for amount, hours in parts if hours and amount > 0]
    return DoseRate(tuple(amplitudes), tuple(hours for amount, hours in parts if hours and amount > 0))


def _effective(
    plan: DosimetryPlan,
    rows: Sequence[OrganDoseRow],
    emissions: Sequence[Emission],
    split: Mapping[str, Mapping[str, float]],
) -> tuple[EffectiveDose | None, tuple[str, ...]]:
    if any(emission.particle == "alpha" for emission in emissions):
        return None, (
            "Effective dose was left out: alpha particles count 20 times for late effects at low doses, which is not what a "
            "therapy is judged by"
            + (f"; see {RBE_CSV}." if split else "; [dosimetry] rbe_alpha gives RBE-weighted organ doses."),
        )
    doses = {row.organ: (row.mean_dose_Gy, row.sigma_Gy) for row in rows if row.mass_g > 0}
    tissues = {organ for tissue in tissue_weights() for organ in tissue.organs}
    if not tissues & set(doses):
        return None, ()
    male, female = (doses if plan.sex in (sex, "mean") else None for sex in ("male", "female"))
    found = effective_dose(male, female)
    text = f"Effective dose (ICRP 103) of the tissues present: {found.value_Sv:.3g} Sv ± {found.sigma_Sv:.2g} Sv (statistics)."
    same = ("The patient's doses stand for both sexes, whatever the patient's is.",) if plan.sex == "mean" else ()
    return found, (text, *found.notes, *same)


def _write_rbe(path: Path, rbe_alpha: float, components: Mapping[str, Sequence[OrganDose]]) -> None:
    """Rows of organ, dose by alpha particles and by all others, and their RBE-weighted sum."""
    by_organ: dict[str, dict[str, OrganDose]] = {}
    for component, organs in components.items():
        for organ in organs:
            by_organ.setdefault(organ.organ, {})[component] = organ
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["organ", "alpha_Gy", "other_Gy", "rbe_alpha", "rbe_weighted_GyRBE", "sigma_GyRBE"])
        for name, parts in by_organ.items():
            rbe = {"alpha": rbe_alpha} if "alpha" in parts else {}
            weighted = float(rbe_weighted_dose({c: o.dose_Gy for c, o in parts.items()}, rbe))
            sigma = math.sqrt(sum((rbe.get(c, 1.0) * o.sigma_Gy) ** 2 for c, o in parts.items()))
            alpha = parts["alpha"].dose_Gy if "alpha" in parts else 0.0
            other = sum(o.dose_Gy for c, o in parts.items() if c != "alpha")
            writer.writerow([name, *(f"{x:.6g}" for x in (alpha, other, rbe_alpha, weighted, sigma))])


def _write_constraints(path: Path, results: Sequence[tuple[str, ConstraintResult]]) -> None:
    header = ["organ", "quantity", "dose", "value_Gy", "sigma_Gy", "limit_Gy", "status", "condition", "reference", "remark"]
    header.append("total_sigma_Gy")
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        for which, r in results:
            limit: Constraint = r.constraint
            value, sigma, total = ("" if math.isnan(x) else f"{x:.6g}" for x in (r.value_Gy, r.sigma_Gy, r.total_sigma_Gy))
            said = [f"{limit.limit_Gy:g}", r.status, limit.condition, limit.reference, r.remark]
            writer.writerow([limit.organ, limit.quantity, which, value, sigma, *said, total])


def _write_rows(path: Path, rows: Sequence[BedRow]) -> None:
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow([f.name for f in fields(BedRow)])
        for row in rows:
            writer.writerow(["" if x != x else f"{x:.6g}" if isinstance(x, float) else x for x in astuple(row)])
