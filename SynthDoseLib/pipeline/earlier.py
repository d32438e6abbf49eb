"""Doses of earlier cycles and of other treatments beside the dose of this run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..core import DoseMap, ImageVolume, LabelMap, SynthDoseError, VoxelGrid
from ..dosimetry import OrganDoseRow, cumulative_dose
from ..io import read_image, read_rtdose
from ..io.images import detect_format, require_path
from .clinical_plan import PreviousPlan
from .stations import groups_of

WHOLE = 0.999  # of an organ's voxels inside a dose: rounding of grids aside, all of them


def earlier_doses(
    plans: Sequence[PreviousPlan], dose: DoseMap, labels: LabelMap, frame_of_reference: str = ""
) -> tuple[DoseMap, tuple[str, ...]]:
    """Sum of the dose maps of earlier treatments and of this one, on the grid of this one.

    Parameters
    ----------
    plans : sequence of PreviousPlan
    dose : DoseMap
        Of this run, absolute.
    labels : LabelMap
        On its grid, for what an earlier dose does not cover.
    frame_of_reference : str
        UID of the CT of this run; a dose in another one needs its transform.

    Returns
    -------
    DoseMap
        Earlier doses are interpolated trilinearly, count 0 where they do not reach, and have no statistical error.
    tuple of str
        What was added, resampled and not covered.

    Raises
    ------
    SynthDoseError
        If a dose cannot be read, is relative or in another frame of reference, or is a difference of doses.
    """
    doses = [dose]
    notes: list[str] = []
    moves: list[NDArray[np.float64] | None] = [None]
    for plan in plans:
        if plan.path is None:
            continue
        image = _read(plan, frame_of_reference)
        move = _move(plan)
        notes += image.notes
        if plan.factor != 1.0:
            notes.append(f"{plan.path.name} was multiplied by {plan.factor:g}, as the plan says.")
        doses.append(_dose(image, plan))
        moves.append(move)
        notes += _uncovered(plan.path.name, image.grid, move, labels)
    total, said = cumulative_dose(doses, moves)
    if len(doses) > 1:
        notes += [*said, f"Doses of {len(doses)} cycles were added; earlier ones count without statistical error."]
    return total, tuple(notes)


def with_earlier_means(
    rows: Sequence[OrganDoseRow], plans: Sequence[PreviousPlan], groups: Mapping[str, Sequence[str]]
) -> tuple[tuple[OrganDoseRow, ...], tuple[str, ...]]:
    """Add the mean doses that a plan gives per organ, without a map, to those of the maps.

    A group gets the mean of its members by mass. Where a dose is known as a mean only, the organ's extremes and percentiles
    are not known.
    """
    given: dict[str, float] = {}
    for plan in plans:
        for organ, mean in plan.organ_mean_Gy.items():
            given[organ] = given.get(organ, 0.0) + plan.factor * mean
    if not given:
        return tuple(rows), ()
    masses = {row.organ: row.mass_g for row in rows}
    added = dict(given)
    for organ, mean in given.items():
        for member in groups.get(organ, ()):
            added.setdefault(member, mean)
    for group, members in groups.items():
        mass = sum(masses.get(member, 0.0) for member in members)
        if group not in given and mass > 0 and any(member in added for member in members):
            added[group] = sum(masses[m] * added.get(m, 0.0) for m in members if m in masses) / mass
    nan = math.nan
    changed = [
        replace(
            row, mean_dose_Gy=row.mean_dose_Gy + added[row.organ], min_Gy=nan, max_Gy=nan, d95_Gy=nan, d50_Gy=nan, d5_Gy=nan
        )
        if row.organ in added
        else row
        for row in rows
    ]  # fmt: skip
    listed = ", ".join(f"{organ} {mean:.4g} Gy" for organ, mean in given.items())
    note = f"Earlier mean doses were added as given, without a map: {listed}. The map of all cycles does not hold them."
    return tuple(changed), (note,)


def check_earlier(plans: Sequence[PreviousPlan], labels: LabelMap, frame_of_reference: str = "") -> None:
    """Refuse what `earlier_doses` and `with_earlier_means` would refuse, before hours are spent on a dose."""
    for plan in plans:
        if plan.path is not None:
            cumulative_dose([_dose(_read(plan, frame_of_reference), plan)], [_move(plan)])
        groups_of(labels, list(plan.organ_mean_Gy))


def _move(plan: PreviousPlan) -> NDArray[np.float64] | None:
    return np.array(plan.transform).reshape(4, 4) if plan.transform else None


def _dose(image: ImageVolume, plan: PreviousPlan) -> DoseMap:
    return DoseMap(image.grid, image.values * np.float32(plan.factor), np.zeros(image.grid.shape, np.float32))


def _read(plan: PreviousPlan, frame_of_reference: str) -> ImageVolume:
    assert plan.path is not None
    path = require_path(plan.path)
    is_dicom = detect_format(path) == "dicom"
    image = read_rtdose(path) if is_dicom else read_image(path)
    where = f"[[dosimetry.previous]] {path.name}"
    if image.unit not in ("Gy", ""):
        raise SynthDoseError(f"{where} is in {image.unit}; a dose in Gy is needed.")
    if image.metadata.get("dose_type") == "ERROR":
        raise SynthDoseError(f"{where} is a difference of doses (DoseType ERROR), which cannot be added. Give the dose itself.")
    if float(image.values.min()) < 0:
        raise SynthDoseError(f"{where} holds negative values, down to {float(image.values.min()):.4g} Gy. Is it a dose?")
    own = str(image.metadata.get("frame_of_reference_uid") or "")
    if not plan.transform and own and frame_of_reference and own != frame_of_reference:
        raise SynthDoseError(
            f"{where} is in another frame of reference ({own}) than the CT ({frame_of_reference}). Give its transform, from "
            "the registration of the two CTs (1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1 if they are known to agree)."
        )
    return image


def _uncovered(name: str, source: VoxelGrid, move: NDArray[np.float64] | None, labels: LabelMap) -> list[str]:
    """Organs with voxels beyond an earlier dose, where it counts as 0."""
    back = np.eye(4) if move is None else np.linalg.inv(move)
    size = np.array(source.shape[::-1]) - 0.5
    most = max((organ.index for organ in labels.organs), default=0) + 1
    voxels, covered = np.zeros(most, np.int64), np.zeros(most, np.int64)
    j, i = np.mgrid[: labels.grid.shape[1], : labels.grid.shape[2]]
    for k, plane in enumerate(labels.labels):
        ras = labels.grid.to_ras(np.stack([i, j, np.full_like(i, k)], axis=-1)) @ back[:3, :3].T + back[:3, 3]
        ijk = source.to_ijk(ras)
        inside = np.all((ijk > -0.5) & (ijk < size), axis=-1)
        voxels += np.bincount(plane.ravel(), minlength=most)
        covered += np.bincount(plane[inside], minlength=most)
    lacking = [
        f"{organ.name} {covered[organ.index] / voxels[organ.index]:.0%}"
        for organ in labels.organs
        if covered[organ.index] < WHOLE * voxels[organ.index]
    ]
    if not lacking:
        return []
    return [f"{name} does not reach all of some organs and counts as 0 beyond: covered are {', '.join(lacking)}."]
