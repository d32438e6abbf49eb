"""Uncertainty budgets of the organs of a run, from what the run knows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..core import Emission, SynthDoseError, VoxelPhantom
from ..dosimetry import Contribution, OrganBudget, OrganDoseRow
from ..dosimetry.budget import NEGLIGIBLE_SHARE, boundary_change, combined, displacement_sigma, volume_sigma
from ..kinetics.recovery import RecoveryCurve
from ..kinetics.registration_quality import residual_displacement_mm
from ..kinetics.spill import region_volumes
from ..kinetics.values import REST, ActivityRow
from ..segmentation import OrganVolume, organ_group, relative_volume_sigmas
from .activity import ActivityResult
from .plan import RunPlan

BUDGET_CSV = "uncertainty_budget.csv"
GY_G_PER_MEV = 1.602176634e-10
NOT_ORGANS = frozenset({REST, "body"})
STEP = 0.01  # of the volume, for the slope of a recovery curve


@dataclass(frozen=True, eq=False)
class _Region:
    """An organ or group in a box around it."""

    members: tuple[str, ...]
    mask: NDArray[np.bool_]
    measured: NDArray[np.float64]
    density: NDArray[np.float64]


def organ_budgets(
    plan: RunPlan,
    phantom: VoxelPhantom,
    found: ActivityResult,
    rows: Sequence[OrganDoseRow],
    groups: Mapping[str, Sequence[str]],
    emissions: Sequence[Emission],
    recovery: RecoveryCurve | None = None,
    segmented: Sequence[OrganVolume] = (),
) -> tuple[OrganBudget, ...]:
    """Uncertainty budget of every organ and group that has a dose, apart from the rest of the body.

    Parameters
    ----------
    plan : RunPlan
    phantom : VoxelPhantom
    found : ActivityResult
    rows : sequence of OrganDoseRow
        Absolute doses with their Monte Carlo errors.
    groups : mapping of group to members
    emissions : sequence of Emission
        Charged particles among them decide which share of its dose an organ gives itself.
    recovery : RecoveryCurve, optional
        That was applied.
    segmented : sequence of OrganVolume
        Volumes of several inferences, which take the place of the boundary's uncertainty.
    """
    names = {organ.name for organ in phantom.labels.organs}
    activity = {row.organ: row for row in found.tia.organs}
    charged_MeV = sum(e.yield_per_decay * e.mean_energy_MeV for e in emissions if e.particle != "photon")
    spread = relative_volume_sigmas(segmented)
    place = _place_sigma(plan, found, phantom)
    boxes = ndimage.find_objects(phantom.labels.labels)
    budgets = []
    for row in rows:
        members = tuple(groups.get(row.organ, (row.organ,)))
        wanted = row.organ not in NOT_ORGANS and row.mass_g > 0 and row.mean_dose_Gy > 0
        if not wanted or not set(members) <= names:
            continue
        own_MBq_s = sum(activity[name].tia_MBq_s for name in members if name in activity)
        share = min(1.0, own_MBq_s * 1e6 * charged_MeV * GY_G_PER_MEV / row.mass_g / row.mean_dose_Gy)
        region = _region(members, phantom, found, boxes)
        parts = (
            _calibration(plan),
            _of_activity("recovery", members, activity, share, _no_recovery(recovery)),
            _volume(plan, row.organ, region, phantom, recovery, share, spread),
            _fit(plan, found, members, activity, share),
            _registration(*place, region, phantom, share),
            _monte_carlo(plan, row),
        )
        budgets.append(OrganBudget(row.organ, row.mean_dose_Gy, parts, share))
    return tuple(budgets)


def _region(
    members: tuple[str, ...], phantom: VoxelPhantom, found: ActivityResult, boxes_of: Sequence[tuple[slice, ...] | None]
) -> _Region:
    """Mask, activity as measured (recovery taken back) and density in a box around an organ."""
    labels = phantom.labels.labels
    index = {organ.name: organ.index for organ in phantom.labels.organs}
    wanted = [index[name] for name in members]
    boxes = [boxes_of[n - 1] for n in wanted if boxes_of[n - 1] is not None]
    box = tuple(
        slice(max(0, min(s.start for s in along) - 4), max(s.stop for s in along) + 4) for along in zip(*boxes, strict=True)
    )
    mask = np.isin(labels[box], wanted)
    scale = np.ones(max(index.values()) + 1)
    for curve in found.course.curves if found.course is not None else ():
        scale[index.get(curve.region, 0)] = curve.recovery
    measured = found.tia.tia_MBq_s[box] * scale[labels[box]]
    return _Region(members, mask, measured, np.asarray(phantom.density_g_cm3[box], np.float64))


def _calibration(plan: RunPlan) -> Contribution:
    sigma = plan.kinetics.calibration_relative_sigma
    if plan.organ_activity or not sigma:
        why = (
            "activities were given as numbers" if plan.organ_activity else "[kinetics] calibration_relative_sigma is not given"
        )
        return Contribution("calibration", None, why)
    return Contribution("calibration", sigma, "[kinetics] calibration_relative_sigma")


def _no_recovery(curve: RecoveryCurve | None) -> str:
    return "not corrected: no recovery curve was applied" if curve is None else "not corrected, or its sigma is not known"


def _of_activity(
    component: str, members: Sequence[str], activity: Mapping[str, ActivityRow], share: float, missing: str
) -> Contribution:
    """A part of the organ's own time-integrated activity, and for the dose from elsewhere the mean of all other organs."""
    own = _mean_part(component, [activity[name] for name in members if name in activity], every=True)
    others = _mean_part(component, [row for name, row in activity.items() if name not in members], every=False)
    value = combined(own, others, share if others is not None else 1.0)
    if value is None:
        return Contribution(component, None, missing)
    return Contribution(component, value, f"time-integrated activities; {share:.0%} of the dose is the organ's own")


def _mean_part(component: str, rows: Sequence[ActivityRow], *, every: bool) -> float | None:
    """Relative sigma of the summed activity as if all erred together (an upper bound); None if not known of `every` or any."""
    active = [row for row in rows if row.tia_MBq_s > 0]
    known = [row for row in active if component in row.parts and math.isfinite(row.parts[component])]
    if not known or (every and len(known) < len(active)):
        return None
    return sum(row.tia_MBq_s * row.parts[component] for row in known) / sum(row.tia_MBq_s for row in known)


def _fit(
    plan: RunPlan, found: ActivityResult, members: Sequence[str], activity: Mapping[str, ActivityRow], share: float
) -> Contribution:
    if found.course is not None or len(found.points) != 1:
        return _of_activity("fit", members, activity, share, "no uncertainty of the time-integrated activity is known")
    given = _per_member(plan.kinetics.half_life_sigma_h)
    rows = {}
    for name, row in activity.items():
        spread, half_life = given.get(name), row.effective_half_life_h
        if spread is not None and half_life:
            # the integral through A(t) is A 2^(t/T) T/ln 2
            slope = 1 - math.log(2) * found.points[0].hours / half_life
            row = replace(row, parts={"fit": abs(slope) * spread / half_life})
        rows[name] = row
    why = "one time point with a given half-life, of which [kinetics.half_life_sigma_h] is not given"
    return _of_activity("fit", members, rows, share, why)


def _volume(
    plan: RunPlan,
    organ: str,
    region: _Region,
    phantom: VoxelPhantom,
    recovery: RecoveryCurve | None,
    share: float,
    spread: Mapping[str, float],
) -> Contribution:
    voxels = plan.dosimetry.boundary_sigma_voxels
    change = boundary_change(region.mask, region.measured, region.density, voxels)
    if plan.organ_activity:
        change = replace(change, activity=0.0)  # what is known of the organ does not depend on where it is drawn
    stated = _per_member(plan.dosimetry.volume_relative_sigma).get(organ)
    given = spread.get(organ) if stated is None else stated
    exponent = _recovery_exponent(recovery, region.members, phantom)
    sigma = volume_sigma(change, recovery_exponent=exponent, own_share=share, volume_relative_sigma=given)
    volume = change.volume if given is None else given
    how = "[dosimetry.volume_relative_sigma]" if stated is not None else "spread of the network's inferences"
    how = f"boundary ± {voxels:g} voxel" if given is None else how
    slopes = [x / change.volume if change.volume else 0.0 for x in (change.activity, change.mass)]
    basis = (
        f"{how}: volume ± {volume:.1%}; exponents of the volume: activity {slopes[0]:.2f}, recovery {exponent:.2f}, "
        f"mass {slopes[1]:.2f}"
    )
    return Contribution("volume", sigma, basis)


def _recovery_exponent(curve: RecoveryCurve | None, members: Sequence[str], phantom: VoxelPhantom) -> float:
    """d ln R/d ln V, mean of the members; 0 where nothing was corrected."""
    if curve is None:
        return 0.0
    volumes = region_volumes(phantom.labels)
    slopes = []
    for name in members:
        try:
            larger, smaller = (curve.at(volumes[name] * math.exp(way * STEP))[0] for way in (1, -1))
        except SynthDoseError:
            slopes.append(0.0)  # too small: was left as measured
            continue
        slopes.append(math.log(larger / smaller) / (2 * STEP))
    return float(np.average(slopes, weights=[volumes[name] for name in members]))


def _place_sigma(plan: RunPlan, found: ActivityResult, phantom: VoxelPhantom) -> tuple[float | None, str]:
    """Standard uncertainty of the place of the images along one axis, mm, and where it comes from, or why it is not known."""
    if plan.organ_activity:
        return None, "there was no image to register"
    if plan.kinetics.registration_sigma_mm is not None:
        return plan.kinetics.registration_sigma_mm, "[kinetics] registration_sigma_mm"
    seen = residual_displacement_mm([point.image for point in found.points], phantom.labels)
    if seen is None:
        why = "one scan" if len(found.points) < 2 else "no organ stands out in every scan"
        return None, f"[kinetics] registration_sigma_mm is not given, and {why} does not tell"
    return seen[0], f"scatter of the places of {seen[1]} organs between the scans"


def _registration(sigma_mm: float | None, basis: str, region: _Region, phantom: VoxelPhantom, share: float) -> Contribution:
    if sigma_mm is None:
        return Contribution("registration", None, basis)
    steps = [sigma_mm / spacing for spacing in phantom.grid.spacing_mm[::-1]]
    sigma = share * displacement_sigma(region.mask, region.measured, steps)
    return Contribution("registration", sigma, f"images moved by {sigma_mm:.2g} mm along each axis: {basis}")


def _monte_carlo(plan: RunPlan, row: OrganDoseRow) -> Contribution:
    if plan.dose.engine == "local":
        return Contribution("Monte Carlo", None, "local deposition draws nothing; the error of the method is not known")
    if not math.isfinite(row.sigma_Gy):
        return Contribution("Monte Carlo", None, "the standard error of the mean dose is not known")
    basis = "standard error of the mean dose" + (", upper bound (noise of the kernels)" if plan.dose.engine == "kernel" else "")
    return Contribution("Monte Carlo", row.sigma_Gy / row.mean_dose_Gy, basis)


def _per_member(values: Mapping[str, float]) -> dict[str, float]:
    """Values of groups for their members too."""
    return {member: value for name, value in values.items() for member in organ_group(name)} | dict(values)


def budget_notes(budgets: Sequence[OrganBudget]) -> tuple[str, ...]:
    """What is missing from the budgets, one sentence."""
    missing = sorted({name for budget in budgets for name in budget.not_stated})
    if not missing:
        return ()
    return (
        f"total_sigma is a lower bound: not stated for some or all organs are {', '.join(missing)} (see {BUDGET_CSV} for why). "
        f"An organ's own activity counts where it gives more than {NEGLIGIBLE_SHARE:.0%} of its dose.",
    )
