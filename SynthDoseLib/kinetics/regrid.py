"""Bringing an activity image to the voxels of the phantom without losing activity on the way."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core import LabelMap, SynthDoseError, VoxelGrid, overlap_fraction, resample_mean
from .gas import FWHM_MM, out_of_gas
from .values import REST, Findings, some

CONSERVED = 0.001  # of the activity, between the image and the phantom grid
WORTH_SAYING = 1e-4  # of the activity, in gas
REMARKABLE = 0.05  # more activity than this outside CT or body hints at images that do not belong together


def checked(values: NDArray[np.float32], what: str, unit: str, negative: str, findings: Findings) -> NDArray[np.float32]:
    """Return `values` without negative voxels, if `negative` is "zero"; raise `SynthDoseError` with counts otherwise."""
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
        return values
    share = -float(values[below].sum(dtype=np.float64)) / float(np.abs(values).sum(dtype=np.float64))
    found = (
        f"{count} of {values.size} voxels of the {what} are negative (lowest {values.min():.4g} {unit}, {share:.2%} of the sum)"
    )
    if negative == "refuse":
        raise SynthDoseError(f'{found}. If that is noise of the reconstruction, allow it with negative = "zero" in the plan.')
    findings.warn(f"{found}; they were set to zero as the plan allows, which raises the sum.")
    return np.maximum(values, np.float32(0))


def onto_phantom(
    per_ml: NDArray[np.float32],
    source: VoxelGrid,
    labels: LabelMap,
    body: NDArray[np.bool_] | None,
    findings: Findings,
    tissue: NDArray[np.float32] | None = None,
    fwhm_mm: float = FWHM_MM,
    covered: Covered | None = None,
) -> NDArray[np.float32]:
    """Bring a concentration onto the grid of `labels`, keep its sum inside the grid, drop it outside the body.

    With `tissue` (see `gas.tissue_share`) what an image of `fwhm_mm` shows in gas is moved to the tissue around. Images on one
    grid that are brought to the same phantom share a `covered`, which looks at the grids once.

    Raises
    ------
    SynthDoseError
        If image, grid and body do not overlap, or there is no activity.
    """
    target, covered = labels.grid, covered or Covered()
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
    everything = float(per_ml.sum(dtype=np.float64)) * source.voxel_volume_ml
    if everything <= 0:
        raise SynthDoseError("The activity image is zero everywhere.")
    expected = float((per_ml * covered(source, target)).sum(dtype=np.float64)) * source.voxel_volume_ml
    moved = resample_mean(per_ml, source, target)
    found = float(moved.sum(dtype=np.float64)) * target.voxel_volume_ml
    if expected <= 0 or found <= 0:
        raise SynthDoseError(
            "No activity of the image lies inside the CT. Check that both belong to the same patient and session."
        )
    moved *= np.float32(expected / found)
    if abs(found / expected - 1) > CONSERVED:
        findings.say(f"Resampling changed the activity inside the CT by {found / expected - 1:+.2%}; it was scaled back.")
    if expected < everything * (1 - CONSERVED):
        _dropped(1 - expected / everything, "activity in the image lies outside the CT", findings)
    _field_of_view(source, labels, body, findings, covered)
    kept = np.where(body, moved, np.float32(0))
    share = float(kept.sum(dtype=np.float64)) * target.voxel_volume_ml / expected
    if share <= 0:
        raise SynthDoseError("No activity lies inside the body. Check that image and segmentation belong together.")
    if share < 1 - 1e-9:
        _dropped(1 - share, "activity inside the CT lies outside the body", findings)
    if tissue is None:
        return kept
    moved, share = out_of_gas(kept, target, tissue, fwhm_mm=fwhm_mm)
    if share > WORTH_SAYING:
        findings.say(
            f"{share:.2%} of the activity in the body was seen in gas, or in what is gas of the voxels at its surface, where "
            "blur puts it; it was moved to the tissue around (activity_in_gas)."
        )
    return moved


def _dropped(share: float, what: str, findings: Findings) -> None:
    tell = findings.warn if share > REMARKABLE else findings.say
    tell(f"{share:.2%} of the {what} and was dropped.")


class Covered:
    """`_covered` of two grids, remembered until other grids come."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[VoxelGrid, VoxelGrid, NDArray[Any]]] = {}

    def __call__(self, source: VoxelGrid, target: VoxelGrid, parts: int = 4) -> NDArray[Any]:
        """See `_covered`; bool with one part, which is all or nothing."""
        known = self._known.get(parts)
        if known is None or not (_same(known[0], source) and _same(known[1], target)):
            share = _covered(source, target, parts)
            known = self._known[parts] = (source, target, share > 0 if parts == 1 else share)
        return known[2]


def _same(one: VoxelGrid, other: VoxelGrid) -> bool:
    return one.shape == other.shape and np.array_equal(one.ijk_to_ras, other.ijk_to_ras)


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


def _field_of_view(source: VoxelGrid, labels: LabelMap, body: NDArray[np.bool_], findings: Findings, covered: Covered) -> None:
    """Tell about the parts of the body that the activity image does not show."""
    if _contains(source, labels.grid):
        return
    seen = covered(labels.grid, source, 1)
    fraction = float(seen[body].mean()) if body.any() else 0.0
    if fraction == 0.0:
        raise SynthDoseError(
            "The activity image and the body in the CT do not overlap. Check that both belong to the same patient and session."
        )
    if fraction > 1 - CONSERVED:
        return
    findings.say(f"The activity image covers {fraction:.0%} of the body in the CT; the rest is taken to hold no activity.")
    cut = []
    for organ in labels.organs:
        mask = labels.labels == organ.index
        if organ.name != REST and mask.any() and (part := float(seen[mask].mean())) < 0.99:
            cut.append(f"{organ.name} {part:.0%}")
    if cut:
        findings.warn(f"Organs only partly inside the activity image, their activity is too low: {some(cut)}.")


def _centre(grid: VoxelGrid) -> tuple[int, ...]:
    return tuple(int(x) for x in grid.to_ras((np.asarray(grid.shape[::-1]) - 1) / 2).round())
