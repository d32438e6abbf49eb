"""Time-integrated activity from numbers per organ, without an activity image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..core import LabelMap, SynthDoseError
from .gas import evenly_in_tissue
from .halflife import effective_half_life
from .values import ActivityRow, Findings, TimeIntegratedActivity, require_positive, residence_time_h


@dataclass(frozen=True)
class OrganSource:
    """What is known about the activity of one organ (a row of ``[[organ_activity]]``): exactly one of three ways.

    Attributes
    ----------
    organ : str
        Organ or group of organs.
    tia_MBq_s : float, optional
        Time-integrated activity, administration to infinity.
    residence_time_h : float, optional
        Time-integrated activity per administered activity.
    activity_MBq : float, optional
        Activity in the whole organ `hours_after_administration`.
    hours_after_administration : float
    effective_half_life_h : float, optional
        Goes with `activity_MBq`; the physical half-life if not given.
    """

    organ: str
    tia_MBq_s: float | None = None
    residence_time_h: float | None = None
    activity_MBq: float | None = None
    hours_after_administration: float = 0.0
    effective_half_life_h: float | None = None


def from_organs(
    sources: Sequence[OrganSource],
    labels: LabelMap,
    *,
    physical_half_life_s: float,
    administered_MBq: float | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
    tissue: NDArray[np.float32] | None = None,
) -> TimeIntegratedActivity:
    """Spread known organ activities evenly over the volume of their organs.

    Parameters
    ----------
    sources : sequence of OrganSource
        Each organ once. A group is filled with one concentration.
    labels : LabelMap
        On the grid of the phantom.
    physical_half_life_s : float
    administered_MBq : float, optional
        Needed for residence times.
    groups : mapping of group name to organ names, optional
    tissue : ndarray of float32, (nk, nj, ni) of `labels`, optional
        Share of every voxel that is tissue, see `tissue_share`: there is then no activity in gas.

    Returns
    -------
    TimeIntegratedActivity
        On the grid of `labels`.

    Raises
    ------
    SynthDoseError
        If an organ is unknown, empty or filled twice, or a row says too little, too much or nonsense.

    Examples
    --------
    >>> from SynthDoseLib.core import VoxelGrid, organ_table
    >>> grid = VoxelGrid.from_spacing((1, 1, 4), (10.0, 10.0, 10.0))
    >>> labels = LabelMap(grid, np.array([[[0, 1, 1, 0]]]), organ_table(["liver"]))
    >>> from_organs([OrganSource("liver", tia_MBq_s=500.0)], labels, physical_half_life_s=1e5).tia_MBq_s.tolist()
    [[[0.0, 250.0, 250.0, 0.0]]]
    """
    if not sources:
        raise SynthDoseError("No organ activity is given. Add at least one [[organ_activity]] row.")
    physical_h = require_positive("physical_half_life_s", physical_half_life_s, "s") / 3600.0
    if administered_MBq is not None:
        require_positive("administered_MBq", administered_MBq, "MBq")
    weights = evenly_in_tissue(labels, tissue)
    per_voxel = np.zeros(max((o.index for o in labels.organs), default=0) + 1)
    sums = np.bincount(labels.labels.ravel(), weights=weights.ravel(), minlength=per_voxel.size)
    counts = {organ.name: float(sums[organ.index]) for organ in labels.organs}
    rows: list[ActivityRow] = []
    for source in sources:
        members = [source.organ] if source.organ in counts else [m for m in (groups or {}).get(source.organ, ()) if m in counts]
        if not members:
            labels.organ(source.organ)  # raises, naming the organs there are
        voxels = sum(counts[m] for m in members)
        if voxels == 0:
            raise SynthDoseError(f"Activity is given for '{source.organ}', which is empty in the segmentation.")
        twice = {row.organ for row in rows} & set(members)
        if twice:
            raise SynthDoseError(f"Activity is given twice for {', '.join(sorted(twice))}.")
        tia, half_life = _integrate(source, physical_h, administered_MBq)
        for member in members:
            share = tia * counts[member] / voxels
            per_voxel[labels.organ(member).index] = tia / voxels
            origin = "" if half_life is None else "physical" if source.effective_half_life_h is None else "given"
            rows.append(ActivityRow(member, None, half_life, origin, share, residence_time_h(share, administered_MBq)))
    findings = Findings()
    findings.say("Activity was given per organ and spread evenly over each organ's volume; other tissue has none.")
    physical = [row.organ for row in rows if row.half_life_source == "physical"]
    if physical:
        findings.warn(f"No effective half-life was given for {', '.join(physical)}: the physical one was used (no clearance).")
    if any(source.activity_MBq is not None for source in sources):
        findings.say(
            "Activity was carried to administration and to infinity as one exponential; the uptake phase is neglected."
        )
    values = (per_voxel[labels.labels] * weights).astype(np.float32)
    return TimeIntegratedActivity(labels.grid, values, tuple(rows), tuple(findings.notes), tuple(findings.warnings))


def _integrate(source: OrganSource, physical_h: float, administered_MBq: float | None) -> tuple[float, float | None]:
    """Return time-integrated activity, MBq s, and the half-life used, h."""
    known = {
        name: value
        for name in ("tia_MBq_s", "residence_time_h", "activity_MBq")
        if (value := getattr(source, name)) is not None
    }
    if len(known) != 1:
        raise SynthDoseError(
            f"The activity of '{source.organ}' has to be given in one way, as tia_MBq_s, residence_time_h or activity_MBq; "
            f"found {', '.join(known) or 'none of them'}."
        )
    ((name, value),) = known.items()
    require_positive(f"{name} of {source.organ}", value, name.rpartition("_")[2])
    if name == "tia_MBq_s":
        return value, None
    if name == "residence_time_h":
        if administered_MBq is None:
            raise SynthDoseError(f"residence_time_h of '{source.organ}' needs administered_MBq. Add it under [therapy].")
        return value * 3600.0 * administered_MBq, None
    if not (math.isfinite(source.hours_after_administration) and source.hours_after_administration >= 0):
        raise SynthDoseError(
            f"The activity of '{source.organ}' has to be measured after administration; "
            f"found {source.hours_after_administration} h after it."
        )
    half_life_h = physical_h
    if source.effective_half_life_h is not None:
        half_life_h = effective_half_life(source.organ, source.effective_half_life_h, physical_h)
    grown = math.exp2(source.hours_after_administration / half_life_h)
    return value * grown * half_life_h * 3600.0 / math.log(2), half_life_h
