"""Time-integrated activity per voxel from one activity image, or from a map that somebody else made."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from ..core import ImageVolume, LabelMap, SynthDoseError, VoxelGrid, overlap_fraction, resample_mean
from .convert import hours_between
from .halflife import HalfLife, resolve
from .values import REST, ActivityRow, TimeIntegratedActivity, organ_sums, require_positive, residence_time_h

CONSERVED = 0.001  # of the activity, between the image and the phantom grid


def time_integrated_activity(
    activity: ImageVolume,
    labels: LabelMap,
    *,
    physical_half_life_s: float,
    administered_at: datetime,
    effective_half_life_h: Mapping[str, float] | None = None,
    biological_half_life_h: Mapping[str, float] | None = None,
    rest_effective_half_life_h: float | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
    body: NDArray[np.bool_] | None = None,
    acquired_at: datetime | None = None,
    administered_MBq: float | None = None,
    negative: str = "refuse",
) -> TimeIntegratedActivity:
    """Carry the activity of one scan back to administration and on to infinity, one exponential per organ.

    With the activity A of a voxel at the time t after administration and the effective half-life T of its organ, the
    time-integrated activity is A 2^(t/T) T/ln 2. Uptake is neglected: the exponential is taken to start at administration.

    Parameters
    ----------
    activity : ImageVolume
        Bq/ml at the start of the acquisition, on its own grid; resampled so that the activity inside the phantom is kept.
    labels : LabelMap
        On the grid of the phantom. If it has a `rest_of_body`, voxels without a label are outside the body.
    physical_half_life_s : float
        Of the nuclide.
    administered_at : datetime
    effective_half_life_h, biological_half_life_h : mapping of organ or group to h, optional
        An organ may be in one of them. Organs that are in neither follow the rest of the body.
    rest_effective_half_life_h : float, optional
        Of the rest of the body; may also stand in the mappings as `rest_of_body`. The physical one if not given.
    groups : mapping of group name to organ names, optional
    body : ndarray of bool, (nk, nj, ni) of `labels`, optional
        Activity elsewhere is dropped and its share noted.
    acquired_at : datetime, optional
        Overrides the time in the image.
    administered_MBq : float, optional
        For residence times and a check of the sum.
    negative : {"refuse", "zero"}
        What to do with negative voxels.

    Returns
    -------
    TimeIntegratedActivity
        On the grid of `labels`.

    Raises
    ------
    SynthDoseError
        If the image is not in Bq/ml, holds NaN or (unless allowed) negative voxels, does not overlap the body, was
        acquired before administration or at an unknown time; if a half-life is longer than the physical one or is given
        for an organ that is not there or is empty.

    References
    ----------
    Bolch, Eckerman, Sgouros & Thomas, MIRD Pamphlet No. 21, J. Nucl. Med. 50 (2009) 477-484.
    """
    physical_h = require_positive("physical_half_life_s", physical_half_life_s, "s") / 3600.0
    if administered_MBq is not None:
        require_positive("administered_MBq", administered_MBq, "MBq")
    if activity.unit != "Bq/ml":
        raise SynthDoseError(
            f"The activity image is in '{activity.unit or 'unknown units'}', needed is Bq/ml. For counts give the calibration "
            '(sensitivity and duration), for SUV the injected activity, its time and the weight; or state unit = "Bq/ml".'
        )
    scan_time = acquired_at or activity.acquired_at
    if scan_time is None:
        raise SynthDoseError("The activity image does not say when it was acquired. Add acquired_at to the [[activity]] table.")
    hours = hours_between(administered_at, scan_time)
    counts = labels.voxel_counts()
    given = {**(effective_half_life_h or {}), **(biological_half_life_h or {})}
    _refuse_empty(given, counts, groups or {})
    half_lives = resolve(
        counts, physical_h, effective_half_life_h or {}, biological_half_life_h or {}, rest_effective_half_life_h, groups or {}
    )
    values, notes = _checked(activity.values, "activity", "Bq/ml", negative)
    per_ml, moved = _onto(values, activity.grid, labels, body)
    activity_MBq = per_ml * np.float32(labels.grid.voxel_volume_ml * 1e-6)
    notes += moved
    size = max((o.index for o in labels.organs), default=0) + 1
    factor_s = np.full(size, _factor_s(half_lives[REST], hours), np.float32)
    for organ in labels.organs:
        factor_s[organ.index] = _factor_s(half_lives[organ.name], hours)
    tia = activity_MBq * factor_s[labels.labels]
    at_scan, integrated = organ_sums(activity_MBq, labels), organ_sums(tia, labels)
    rows = tuple(
        ActivityRow(
            name,
            at_scan[name],
            half_lives[name].hours,
            half_lives[name].source,
            total,
            residence_time_h(total, administered_MBq),
        )
        for name, total in integrated.items()
    )
    notes += _assumptions(rows, hours, physical_h, administered_MBq)
    return TimeIntegratedActivity(labels.grid, tia, rows, tuple(notes))


def from_map(
    tia: ImageVolume,
    labels: LabelMap,
    *,
    body: NDArray[np.bool_] | None = None,
    administered_MBq: float | None = None,
    negative: str = "refuse",
) -> TimeIntegratedActivity:
    """Take over a map of time-integrated activity.

    Parameters
    ----------
    tia : ImageVolume
        MBq s in each voxel (unit "MBq*s" or "" ), or per volume (unit "MBq*s/ml"), on its own grid.
    labels : LabelMap
        On the grid of the phantom. If it has a `rest_of_body`, voxels without a label are outside the body.
    body, administered_MBq, negative
        As in `time_integrated_activity`.

    Returns
    -------
    TimeIntegratedActivity
        On the grid of `labels`.

    Raises
    ------
    SynthDoseError
        If the map holds NaN or (unless allowed) negative voxels, or does not overlap the body.
    """
    if tia.unit not in ("", "MBq*s", "MBq s", "MBq*s/ml", "MBq s/ml"):
        raise SynthDoseError(
            f"The time-integrated activity map is in '{tia.unit}'; allowed are MBq*s (per voxel) and MBq*s/ml."
        )
    if administered_MBq is not None:
        require_positive("administered_MBq", administered_MBq, "MBq")
    values, notes = _checked(tia.values, "time-integrated activity", "MBq s", negative)
    if not tia.unit.endswith("/ml"):
        values = values / np.float32(tia.grid.voxel_volume_ml)
    per_ml, moved = _onto(values, tia.grid, labels, body)
    result = per_ml * np.float32(labels.grid.voxel_volume_ml)
    rows = tuple(
        ActivityRow(name, None, None, "", total, residence_time_h(total, administered_MBq))
        for name, total in organ_sums(result, labels).items()
    )
    notes = ["The time-integrated activity was given as a map; no time course was assumed here.", *notes, *moved]
    return TimeIntegratedActivity(labels.grid, result, rows, tuple(notes))


def _factor_s(half_life: HalfLife, hours: float) -> float:
    return math.exp2(hours / half_life.hours) * half_life.hours * 3600.0 / math.log(2)


def _refuse_empty(given: Mapping[str, float], counts: Mapping[str, int], groups: Mapping[str, Sequence[str]]) -> None:
    for name in given:
        members = [name] if name in counts else [m for m in groups.get(name, ()) if m in counts]
        if name != REST and members and sum(counts[m] for m in members) == 0:
            raise SynthDoseError(f"A half-life is given for '{name}', which is empty in the segmentation.")


def _checked(values: NDArray[np.float32], what: str, unit: str, negative: str) -> tuple[NDArray[np.float32], list[str]]:
    if negative not in ("refuse", "zero"):
        raise SynthDoseError(f'negative has to be "refuse" or "zero"; found "{negative}".')
    bad = int(np.count_nonzero(~np.isfinite(values)))
    if bad:
        raise SynthDoseError(
            f"{bad} of {values.size} voxels of the {what} are not a number or infinite. Reconstruct or export the image again."
        )
    below = values < 0
    count = int(np.count_nonzero(below))
    if not count:
        return values, []
    share = -float(values[below].sum(dtype=np.float64)) / float(np.abs(values).sum(dtype=np.float64))
    found = (
        f"{count} of {values.size} voxels of the {what} are negative (lowest {values.min():.4g} {unit}, {share:.2%} of the sum)"
    )
    if negative == "refuse":
        raise SynthDoseError(f'{found}. If that is noise of the reconstruction, allow it with negative = "zero" in the plan.')
    return np.maximum(values, np.float32(0)), [f"{found}; they were set to zero as the plan allows, which raises the sum."]


def _onto(
    per_ml: NDArray[np.float32], source: VoxelGrid, labels: LabelMap, body: NDArray[np.bool_] | None
) -> tuple[NDArray[np.float32], list[str]]:
    """Bring a concentration onto the phantom grid, keep its sum inside the grid, drop it outside the body."""
    target = labels.grid
    if body is None:
        has_rest = any(organ.name == REST for organ in labels.organs)
        body = labels.labels > 0 if has_rest else np.ones(target.shape, bool)
    if body.shape != target.shape:
        raise SynthDoseError(f"The body mask has shape {body.shape}, the phantom {target.shape}.")
    if overlap_fraction(target, source) == 0.0 and overlap_fraction(source, target) == 0.0:
        raise SynthDoseError(
            f"The activity image and the CT do not overlap: their centres are at RAS {_centre(source)} mm and "
            f"{_centre(target)} mm. Check that both belong to the same patient, session and frame of reference."
        )
    notes: list[str] = []
    everything = float(per_ml.sum(dtype=np.float64)) * source.voxel_volume_ml
    if everything <= 0:
        raise SynthDoseError("The activity image is zero everywhere.")
    expected = float((per_ml * _covered(source, target)).sum(dtype=np.float64)) * source.voxel_volume_ml
    moved = resample_mean(per_ml, source, target)
    found = float(moved.sum(dtype=np.float64)) * target.voxel_volume_ml
    if expected <= 0 or found <= 0:
        raise SynthDoseError(
            "No activity of the image lies inside the CT. Check that both belong to the same patient and session."
        )
    moved *= np.float32(expected / found)
    if abs(found / expected - 1) > CONSERVED:
        notes.append(f"Resampling changed the activity inside the CT by {found / expected - 1:+.2%}; it was scaled back.")
    if expected < everything * (1 - CONSERVED):
        notes.append(f"{1 - expected / everything:.1%} of the activity in the image lies outside the CT and was dropped.")
    notes += _field_of_view(source, labels, body)
    kept = np.where(body, moved, np.float32(0))
    share = float(kept.sum(dtype=np.float64)) * target.voxel_volume_ml / expected
    if share <= 0:
        raise SynthDoseError("No activity lies inside the body. Check that image and segmentation belong together.")
    if share < 1 - 1e-9:
        notes.append(f"{1 - share:.2%} of the activity inside the CT lies outside the body or in air and was dropped.")
    return kept, notes


def _covered(source: VoxelGrid, target: VoxelGrid, parts: int = 4) -> NDArray[np.float32]:
    """Fraction of each voxel of `source` inside `target`; voxels at the border are sampled at `parts`³ points."""
    result = np.ones(source.shape, np.float32)
    if source.matches(target):
        return result
    nk, nj, ni = source.shape
    rows, columns = np.mgrid[0:nj, 0:ni]
    upper = np.asarray(target.shape[::-1]) - 0.5
    step = np.linalg.inv(target.ijk_to_ras[:3, :3]) @ source.ijk_to_ras[:3, :3]
    reach = np.abs(step).sum(axis=1) / 2  # half the extent of a source voxel along the axes of `target`
    offsets = ((np.array(list(np.ndindex(parts, parts, parts))) + 0.5) / parts - 0.5) @ step.T
    for k in range(nk):
        place = target.to_ijk(source.to_ras(np.stack([columns, rows, np.full_like(rows, k)], axis=-1)))
        result[k] = ((place + reach >= -0.5) & (place - reach <= upper)).all(axis=-1)
        border = (result[k] > 0) & ~((place - reach >= -0.5) & (place + reach <= upper)).all(axis=-1)
        points = place[border][:, None, :] + offsets
        result[k][border] = ((points >= -0.5) & (points <= upper)).all(axis=-1).mean(axis=1)
    return result


def _contains(outer: VoxelGrid, inner: VoxelGrid) -> bool:
    """Whether the centres of all voxels of `inner` lie inside `outer` (both are boxes: the corners tell)."""
    last = np.asarray(inner.shape[::-1]) - 1
    corners = np.array([[i, j, k] for i in (0, last[0]) for j in (0, last[1]) for k in (0, last[2])])
    place = outer.to_ijk(inner.to_ras(corners))
    return bool(((place >= -0.5) & (place <= np.asarray(outer.shape[::-1]) - 0.5)).all())


def _field_of_view(source: VoxelGrid, labels: LabelMap, body: NDArray[np.bool_]) -> list[str]:
    """Notes about the parts of the body that the activity image does not show."""
    if _contains(source, labels.grid):
        return []
    seen = _covered(labels.grid, source, parts=1) > 0.5
    fraction = float(seen[body].mean()) if body.any() else 0.0
    if fraction == 0.0:
        raise SynthDoseError(
            "The activity image and the body in the CT do not overlap. Check that both belong to the same patient and session."
        )
    if fraction > 1 - CONSERVED:
        return []
    notes = [f"The activity image covers {fraction:.0%} of the body in the CT; the rest is taken to hold no activity."]
    cut = []
    for organ in labels.organs:
        mask = labels.labels == organ.index
        if organ.name != REST and mask.any() and (part := float(seen[mask].mean())) < 0.99:
            cut.append(f"{organ.name} {part:.0%}")
    if cut:
        notes.append(f"Organs only partly inside the activity image, their activity is too low: {', '.join(cut)}.")
    return notes


def _assumptions(rows: Sequence[ActivityRow], hours: float, physical_h: float, administered_MBq: float | None) -> list[str]:
    notes = [
        f"Activity measured {hours:.2f} h after administration was carried back to administration and to infinity as one "
        "exponential per organ; the uptake phase is neglected.",
        "Blur of the activity image (spill-out and spill-in) is not corrected: small organs and lesions show too little "
        "activity, a lesion of 2 cm can lose half of it, and their neighbours too much.",
    ]
    physical = [row.organ for row in rows if row.half_life_source == "physical"]
    if physical:
        notes.append(
            f"No effective half-life was given for {', '.join(physical)}: the physical one, {physical_h:.4g} h, was used "
            "(no clearance, the dose is an upper bound)."
        )
    far = [row.organ for row in rows if row.effective_half_life_h is not None and hours > 4 * row.effective_half_life_h]
    if far:
        notes.append(
            f"The scan was more than 4 effective half-lives after administration for {', '.join(far)}: the start is a guess."
        )
    if administered_MBq is not None:
        start = sum(
            row.activity_at_scan_MBq * math.exp2(hours / row.effective_half_life_h)
            for row in rows
            if row.activity_at_scan_MBq is not None and row.effective_half_life_h is not None
        )
        share = start / administered_MBq
        verdict = "; more than all of it: check calibration and half-lives." if share > 1.1 else "."
        notes.append(
            f"Carried back to administration the activity in the image is {start:.4g} MBq, {share:.0%} of what was "
            f"administered{verdict}"
        )
    return notes


def _centre(grid: VoxelGrid) -> tuple[int, ...]:
    return tuple(int(x) for x in grid.to_ras((np.asarray(grid.shape[::-1]) - 1) / 2).round())
