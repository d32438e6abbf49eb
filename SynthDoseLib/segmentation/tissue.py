"""Tissues by CT number: body, lungs, fat, soft tissue and bone of any CT, without a network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..core import ImageVolume, LabelMap, Progress, ProgressReport, SynthDoseError, VoxelGrid, silent
from .tables import canonical_organs

TISSUES = ("body", "lungs", "fat", "soft_tissue", "bone")
"""Organs of the result, in the order of their labels."""

PADDING_HU = -1100.0  # below air: outside the reconstructed circle (-2000, -3024 …)
BODY_HU = -300.0  # skin against air: half way between soft tissue and air, and above lung and couch foam
FAT_HU = (-190.0, -30.0)
BONE_HU = (150.0, 300.0)  # grown from voxels above the upper through voxels above the lower
LUNG_HU = (-955.0, -400.0)  # lower quartile of a lung and its edge; the quartile of gas in bowel or outside is below
AIR_IN_LUNG_HU = -940.0  # trachea and main bronchi
COARSE_MM = 3.0

_COUCH_HALF_MM = 7.0  # what is thinner than twice this and hangs on the body is couch, cable or sheet
_BODY_PART = 0.05  # of the largest part: legs and arms are bodies too
_BODY_DEPTH_MM = 12.0
_MARROW_ML = 60.0
_MIN_LUNG_ML, _MIN_CUT_LUNG_ML = 120.0, 15.0


def segment_tissue(ct: ImageVolume, *, progress: Progress = silent) -> LabelMap:
    """Divide a CT into tissues by CT number and connectedness.

    The couch and other things outside the patient are left out. Lungs are large parts of low density inside the body whose
    mean is that of lung; gas in airways and bowel is not lung and stays with `body`, as does everything between fat and air.
    Bone is grown from dense voxels and its marrow filled in; dense contrast medium and metal are taken for bone.

    Parameters
    ----------
    ct : ImageVolume
        CT in HU; any part of the body, any orientation, truncated or padded (-3024 …).
    progress : Progress

    Returns
    -------
    LabelMap
        `TISSUES`, one per voxel, 0 outside the body; `body` is what of the body is none of the others. On the grid of `ct`.

    Raises
    ------
    SynthDoseError
        If the image is no CT, its numbers are no HU, or no body is found.

    Notes
    -----
    Thresholds are the usual windows of the tissues (fat -190 to -30 HU; bone from 150 HU when it hangs together with
    300 HU), made robust against noise by smoothing over 3 mm.
    """
    _check(ct)
    hu = np.maximum(ct.values, -1000.0)
    hu[ct.values < PADDING_HU] = -1000.0
    progress(ProgressReport("segment", 0.0, None, "body"))
    body = _body(hu, ct.grid)
    if not body.any():
        raise SynthDoseError(
            f"No body is found in the CT: no part above {BODY_HU:g} HU is as thick as a limb. Check that the values are HU "
            "(plan: [image] hu_offset) and that the voxel spacing is right."
        )
    box = _bounding_box(body)
    hu, body = hu[box], body[box]
    grid = ct.grid.crop((box[0].start, box[1].start, box[2].start), (body.shape[0], body.shape[1], body.shape[2]))
    progress(ProgressReport("segment", 0.3, None, "lungs"))
    smooth = _smoothed(hu, grid, 1.2)
    lungs, lung_notes = _lungs(smooth, body, grid)
    progress(ProgressReport("segment", 0.6, None, "bone"))
    bone = _bone(smooth, body & ~lungs, grid)
    rest = body & ~lungs & ~bone
    fat = rest & (smooth >= FAT_HU[0]) & (smooth < FAT_HU[1])
    labels = np.zeros(ct.grid.shape, np.uint16)
    inner = labels[box]
    inner[body] = 1
    inner[lungs] = 2
    inner[fat] = 3
    inner[rest & (smooth >= FAT_HU[1])] = 4
    inner[bone] = 5
    organs = tuple(canonical_organs()[name].entry(index) for index, name in enumerate(TISSUES, start=1))
    note = "Tissues were segmented by CT number; contrast medium and metal count as bone, gas in airways and bowel as body."
    progress(ProgressReport("segment", 1.0, 0.0, "tissues segmented"))
    return LabelMap(ct.grid, labels, organs, (*ct.notes, note, *lung_notes))


def _check(ct: ImageVolume) -> None:
    if ct.modality not in ("CT", ""):
        raise SynthDoseError(f"Tissue segmentation needs a CT; this image is {ct.modality}. Use a bundle or a label map.")
    if not np.isfinite(ct.values).all():
        raise SynthDoseError("The CT holds values that are not numbers (NaN or infinite).")
    low, high = float(ct.values.min()), float(ct.values.max())
    if low > -200 or high < -100:
        raise SynthDoseError(
            f"The values of the CT run from {low:g} to {high:g}: these are no HU, where air is -1000 and water 0. If they are "
            "HU plus a constant, state it in the plan ([image] hu_offset)."
        )


def _body(hu: NDArray[np.float32], grid: VoxelGrid) -> NDArray[np.bool_]:
    """Patient without couch, holes filled slice by slice: found on coarse voxels, edge from fine ones."""
    factors = tuple(max(1, int(COARSE_MM / s + 0.5)) for s in grid.spacing_mm[::-1])
    coarse = _block_mean(hu, factors)
    spacing = np.asarray(grid.spacing_mm[::-1]) * factors
    axis = _axial_axis(grid)
    dense = coarse > BODY_HU
    filled = _fill_slices(dense, axis)
    # opening by distance: what a ball of this radius does not fit into is lost, then the rest grows back by as much
    core = _depth(filled, spacing) > _COUCH_HALF_MM
    parts, number = ndimage.label(core)
    if not number:
        return np.zeros(hu.shape, bool)
    sizes = ndimage.sum_labels(core, parts, np.arange(1, number + 1))
    deepest = ndimage.maximum(_depth(filled, spacing), parts, np.arange(1, number + 1))
    # a couch is hollow or of foam: the mean of what it fills is far below that of fat
    means = ndimage.mean(coarse, parts, np.arange(1, number + 1))
    kept = (sizes >= _BODY_PART * sizes.max()) & (deepest >= _BODY_DEPTH_MM)
    kept &= (means > -250) | (sizes == sizes.max())
    core = np.isin(parts, 1 + np.flatnonzero(kept))
    near = ndimage.distance_transform_edt(~core, sampling=spacing) <= _COUCH_HALF_MM + 1.0
    coarse_body = filled & near
    coarse_body = _fill_slices(coarse_body | _open_lungs(coarse, coarse_body, spacing), axis)
    inside = _expand(_depth(coarse_body, spacing) > 1.01 * spacing.max(), factors, hu.shape)
    outside = _expand(~ndimage.binary_dilation(coarse_body), factors, hu.shape)
    fine: NDArray[np.bool_] = _fill_slices(inside | (~outside & (hu > BODY_HU)), axis)
    return fine & ~_gaps(hu, fine, grid.voxel_volume_ml)


def _open_lungs(coarse: NDArray[np.float32], body: NDArray[np.bool_], spacing: NDArray[Any]) -> NDArray[np.bool_]:
    """Lungs that a narrow field of view cuts open: of their density, and with body around them."""
    low = ~body & (coarse < LUNG_HU[1])
    core = _depth(low, spacing) > _COUCH_HALF_MM
    parts = ndimage.label(low)[0]
    found = np.zeros(body.shape, bool)
    for index in np.unique(parts[core]):
        part = parts == index
        if np.percentile(coarse[part], 25) < LUNG_HU[0]:
            continue
        shell = ndimage.binary_dilation(part) & ~part
        # the rest of the shell are vessels and the blurred edge; foam has the shell of the couch around it
        if body[shell].mean() > 0.35:
            found |= part
    return found


def _gaps(hu: NDArray[np.float32], body: NDArray[np.bool_], voxel_ml: float) -> NDArray[np.bool_]:
    """Air between limbs or skin folds that a slice shows enclosed but that is open to the room in another slice."""
    low = hu < LUNG_HU[1]
    parts, number = ndimage.label(low & body)
    if not number:
        return np.zeros(body.shape, bool)
    index = np.arange(1, number + 1)
    edge = ndimage.binary_dilation(~body & low) & low & body
    touching = ndimage.sum_labels(edge, parts, index) > 0
    # lung is not pure air even where the windpipe leads outside
    means = ndimage.mean(hu, parts, index)
    volumes = ndimage.sum_labels(low & body, parts, index) * voxel_ml
    is_lung = (volumes > _MIN_LUNG_ML) & (means > -930)
    return np.isin(parts, index[touching & ~is_lung])


def _lungs(smooth: NDArray[np.float32], body: NDArray[np.bool_], grid: VoxelGrid) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Parts of low density that are lungs, vessels filled in, large airways taken out."""
    low = body & (smooth < LUNG_HU[1])
    spacing = np.asarray(grid.spacing_mm[::-1])
    voxel_ml = grid.voxel_volume_ml
    airways = _airways(smooth, low, voxel_ml)
    parts, number = ndimage.label(low & ~airways)
    if not number:
        return np.zeros(body.shape, bool), ()
    index = np.arange(1, number + 1)
    volumes = ndimage.sum_labels(low, parts, index) * voxel_ml
    axis = _axial_axis(grid)
    # a small part is lung only where the upper end of the scan cuts it off: at the lower end it is bowel
    top = -1 if grid.directions[2, 2 - axis] > 0 else 0
    cut = np.isin(index, np.take(parts, top, axis=axis))
    kept = (volumes >= _MIN_LUNG_ML) | (cut & (volumes >= _MIN_CUT_LUNG_ML))
    boxes = ndimage.find_objects(parts)
    for part in np.flatnonzero(kept):
        own = parts[boxes[part]] == part + 1
        kept[part] = np.percentile(smooth[boxes[part]][own], 25) > LUNG_HU[0]
    lungs = np.isin(parts, index[kept])
    if not lungs.any():
        return lungs, ()
    box = _bounding_box(lungs, margin=3, shape=lungs.shape)
    # vessels inside the lungs belong to them: close gaps up to 5 mm, but never reach into the chest wall or bone
    near = ndimage.distance_transform_edt(~lungs[box], sampling=spacing) <= 5.0
    closed = ndimage.distance_transform_edt(near, sampling=spacing) > 5.0
    lungs[box] |= closed & body[box] & ~airways[box] & (smooth[box] < BONE_HU[0])
    lungs[box] = ndimage.binary_fill_holes(lungs[box]) & ~airways[box]
    volume = float(lungs.sum()) * voxel_ml
    return lungs, (f"Lungs: {volume:.0f} ml in {int(kept.sum())} part(s), mean {float(smooth[lungs].mean()):.0f} HU.",)


def _airways(smooth: NDArray[np.float32], low: NDArray[np.bool_], voxel_ml: float) -> NDArray[np.bool_]:
    """Trachea and main bronchi: parts of pure gas next to lung; none if so much is gas that the lungs are emphysematous."""
    gas = low & (smooth < AIR_IN_LUNG_HU)
    parts, number = ndimage.label(gas)
    if not number:
        return np.zeros(low.shape, bool)
    index = np.arange(1, number + 1)
    volumes = ndimage.sum_labels(gas, parts, index) * voxel_ml
    airways = np.isin(parts, index[volumes >= 2.0])
    if airways.sum() > 0.15 * low.sum():
        return np.zeros(low.shape, bool)
    grown: NDArray[np.bool_] = ndimage.binary_dilation(airways) & low
    return grown


def _bone(smooth: NDArray[np.float32], body: NDArray[np.bool_], grid: VoxelGrid) -> NDArray[np.bool_]:
    """Bone grown from dense voxels, its marrow filled in."""
    spacing = np.asarray(grid.spacing_mm[::-1])
    weak = body & (smooth > BONE_HU[0])
    parts, number = ndimage.label(weak, structure=np.ones((3, 3, 3)))
    if not number:
        return np.zeros(body.shape, bool)
    index = np.arange(1, number + 1)
    volumes = ndimage.sum_labels(weak, parts, index) * grid.voxel_volume_ml
    strong = ndimage.sum_labels(weak & (smooth > BONE_HU[1]), parts, index) * grid.voxel_volume_ml
    kept = (strong >= 0.1) & (strong >= 0.02 * volumes)
    depth = _depth(weak, spacing)
    boxes = ndimage.find_objects(parts)
    for part in np.flatnonzero(kept & (volumes >= 5.0)):
        own = parts[boxes[part]] == part + 1
        kept[part] = not _is_contrast(smooth[boxes[part]][own], depth[boxes[part]][own])
    bone = np.isin(parts, index[kept])
    axis = _axial_axis(grid)
    near = ndimage.distance_transform_edt(~bone, sampling=spacing) <= 5.0
    closed = ndimage.distance_transform_edt(near, sampling=spacing) > 5.0
    # marrow is fat or blood; a ring in a slice that holds more than a marrow space is the pelvis or the chest
    marrow = body & (smooth > FAT_HU[0])
    bone |= closed & marrow
    holes, number = ndimage.label(_fill_slices(bone, axis) & marrow & ~bone)
    if number:
        volumes = ndimage.sum_labels(holes > 0, holes, np.arange(1, number + 1)) * grid.voxel_volume_ml
        bone |= np.isin(holes, 1 + np.flatnonzero(volumes <= _MARROW_ML))
    result: NDArray[np.bool_] = bone & body
    return result


def _is_contrast(values: NDArray[np.float32], depth_mm: NDArray[np.float64]) -> bool:
    """Whether a dense part is an organ with contrast medium: compact, and inside at least as dense as near its surface."""
    core, shell = values[depth_mm > 5.0], values[depth_mm <= 3.5]
    if core.size < 0.25 * values.size or not shell.size:
        return False
    return bool(shell.mean() <= core.mean() and np.median(values) < BONE_HU[1])


def _smoothed(hu: NDArray[np.float32], grid: VoxelGrid, sigma_mm: float) -> NDArray[np.float32]:
    sigma = [sigma_mm / s if s < 2.5 * sigma_mm else 0.0 for s in grid.spacing_mm[::-1]]
    return np.asarray(ndimage.gaussian_filter(hu, sigma, mode="nearest", truncate=2.5))


def _depth(mask: NDArray[np.bool_], spacing: NDArray[Any]) -> NDArray[np.float64]:
    """Distance to what is not `mask`, mm; the border of the image does not count, because the patient goes on behind it."""
    return np.asarray(ndimage.distance_transform_edt(mask, sampling=spacing))


def _axial_axis(grid: VoxelGrid) -> int:
    """Array axis that runs most along the body (superior)."""
    return 2 - int(np.argmax(np.abs(grid.directions[2])))


def _fill_slices(mask: NDArray[np.bool_], axis: int) -> NDArray[np.bool_]:
    """Fill holes of each slice across `axis`; lungs cut open at the ends of the scan are holes there too."""
    result = np.empty_like(mask)
    fill: Callable[..., NDArray[np.bool_]] = ndimage.binary_fill_holes
    for place in range(mask.shape[axis]):
        where = (slice(None),) * axis + (place,)
        result[where] = fill(mask[where])
    return result


def _block_mean(values: NDArray[np.float32], factors: tuple[int, ...]) -> NDArray[np.float32]:
    """Mean of blocks; the last block of an axis repeats the border."""
    extra = [(0, -n % f) for n, f in zip(values.shape, factors, strict=True)]
    padded = np.pad(values, extra, mode="edge") if any(e[1] for e in extra) else values
    shape = [x for n, f in zip(padded.shape, factors, strict=True) for x in (n // f, f)]
    return np.asarray(padded.reshape(shape).mean(axis=(1, 3, 5)), dtype=np.float32)


def _expand(mask: NDArray[np.bool_], factors: tuple[int, ...], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    for axis, factor in enumerate(factors):
        mask = np.repeat(mask, factor, axis=axis)
    return mask[tuple(slice(0, n) for n in shape)]


def _bounding_box(mask: NDArray[np.bool_], margin: int = 0, shape: tuple[int, ...] | None = None) -> tuple[slice, ...]:
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    limits = shape or mask.shape
    return tuple(slice(max(0, s.start - margin), min(n, s.stop + margin)) for s, n in zip(box, limits, strict=True))
