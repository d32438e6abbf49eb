"""Time-integrated activity per voxel from one activity image, or from a map that somebody else made."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from ..core import ImageVolume, LabelMap, SynthDoseError
from .convert import hours_between
from .halflife import HalfLife, resolve
from .regrid import checked, onto_phantom
from .values import REST, ActivityRow, Findings, TimeIntegratedActivity, organ_sums, require_positive, residence_time_h, some

FAR = 4  # half-lives


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
    tissue: NDArray[np.float32] | None = None,
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
    tissue : ndarray of float32, (nk, nj, ni) of `labels`, optional
        Share of every voxel that is tissue, see `tissue_share`: activity seen in gas is moved to the tissue around.
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
    findings = Findings()
    values = checked(activity.values, "activity", "Bq/ml", negative, findings)
    per_ml = onto_phantom(values, activity.grid, labels, body, findings, tissue)
    activity_MBq = per_ml * np.float32(labels.grid.voxel_volume_ml * 1e-6)
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
    _assumptions(rows, hours, physical_h, administered_MBq, findings)
    return TimeIntegratedActivity(labels.grid, tia, rows, tuple(findings.notes), tuple(findings.warnings))


def from_map(
    tia: ImageVolume,
    labels: LabelMap,
    *,
    body: NDArray[np.bool_] | None = None,
    tissue: NDArray[np.float32] | None = None,
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
    body, tissue, administered_MBq, negative
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
    findings = Findings()
    findings.say("The time-integrated activity was given as a map; no time course was assumed here.")
    values = checked(tia.values, "time-integrated activity", "MBq s", negative, findings)
    if not tia.unit.endswith("/ml"):
        values = values / np.float32(tia.grid.voxel_volume_ml)
    per_ml = onto_phantom(values, tia.grid, labels, body, findings, tissue)
    result = per_ml * np.float32(labels.grid.voxel_volume_ml)
    rows = tuple(
        ActivityRow(name, None, None, "", total, residence_time_h(total, administered_MBq))
        for name, total in organ_sums(result, labels).items()
    )
    return TimeIntegratedActivity(labels.grid, result, rows, tuple(findings.notes), tuple(findings.warnings))


def _factor_s(half_life: HalfLife, hours: float) -> float:
    return math.exp2(hours / half_life.hours) * half_life.hours * 3600.0 / math.log(2)


def _refuse_empty(given: Mapping[str, float], counts: Mapping[str, int], groups: Mapping[str, Sequence[str]]) -> None:
    for name in given:
        members = [name] if name in counts else [m for m in groups.get(name, ()) if m in counts]
        if name != REST and members and sum(counts[m] for m in members) == 0:
            raise SynthDoseError(f"A half-life is given for '{name}', which is empty in the segmentation.")


def _assumptions(
    rows: Sequence[ActivityRow], hours: float, physical_h: float, administered_MBq: float | None, findings: Findings
) -> None:
    findings.say(
        f"Activity measured {hours:.2f} h after administration was carried back to administration and to infinity as one "
        "exponential per organ; the uptake phase is neglected."
    )
    findings.say(
        "Blur of the activity image (spill-out and spill-in) is not corrected: small organs and lesions show too little "
        "activity, a lesion of 2 cm can lose half of it, and their neighbours too much."
    )
    physical = [row.organ for row in rows if row.half_life_source == "physical"]
    if physical:
        named = "any organ" if len(physical) == len(rows) else some(physical)
        findings.warn(
            f"No effective half-life was given for {named}: the physical one, {physical_h:.4g} h, was used (no clearance)."
        )
    far = [row.organ for row in rows if row.effective_half_life_h is not None and hours > FAR * row.effective_half_life_h]
    if far:
        findings.warn(
            f"The scan was more than {FAR} effective half-lives after administration for {some(far)}: a small error of "
            "the half-life changes their decays by a large factor."
        )
    if administered_MBq is not None:
        start = sum(
            row.activity_at_scan_MBq * math.exp2(hours / row.effective_half_life_h)
            for row in rows
            if row.activity_at_scan_MBq is not None and row.effective_half_life_h is not None
        )
        share = start / administered_MBq
        text = (
            f"Carried back to administration the activity in the image is {start:.4g} MBq, {share:.0%} of what was administered"
        )
        if share > 1.1:
            findings.warn(f"{text}; more than all of it: check calibration and half-lives.")
        else:
            findings.say(f"{text}.")
